"""Our accounts that are kept for some customers: nobody else's requests go there, and theirs go there first."""

import pytest
from front_door import House, without


@pytest.fixture
def open_house(open_house):
    """DeepSeek's models have no other provider here."""
    return without(open_house, "dashscope")


async def calls(house: House, name: str) -> int:
    return len(await house.upstreams[name].log())


async def test_an_account_for_a_tier_serves_that_tier_first_and_nobody_else(open_house) -> None:
    house: House = await open_house(spare={"tiers": ("enterprise",)})
    for _ in range(4):
        assert (await house.chat()).status == 200
    assert (await calls(house, "deepseek"), await calls(house, "spare")) == (4, 0)

    key, account = house.new_key(tier="enterprise")
    await house.noticed()
    with house.using(key, account):
        for _ in range(4):
            assert (await house.chat()).status == 200
    assert (await calls(house, "deepseek"), await calls(house, "spare")) == (4, 4)


async def test_it_is_not_lent_out_when_the_common_one_fails(open_house) -> None:
    house: House = await open_house(spare={"tiers": ("enterprise",)})
    await house.upstream.always("status:500")
    assert (await house.chat()).status == 502
    assert await calls(house, "spare") == 0


async def test_its_customers_fall_back_on_the_common_one(open_house) -> None:
    house: House = await open_house(spare={"tiers": ("enterprise",)})
    await house.upstreams["spare"].always("status:500")
    key, account = house.new_key(tier="enterprise")
    await house.noticed()
    with house.using(key, account):
        assert (await house.chat()).status == 200
    assert (await calls(house, "deepseek"), await calls(house, "spare")) == (1, 1)


async def test_an_account_may_be_kept_for_single_customers(open_house) -> None:
    first: House = await open_house("-first")
    house: House = await open_house(spare={"customers": (first.account_id,)})
    assert house.account_id == first.account_id
    assert (await house.chat()).status == 200
    assert (await calls(house, "deepseek"), await calls(house, "spare")) == (0, 1)
    key, account = house.new_key()
    await house.noticed()
    with house.using(key, account):
        assert (await house.chat()).status == 200
    assert (await calls(house, "deepseek"), await calls(house, "spare")) == (1, 1)

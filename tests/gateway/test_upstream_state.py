"""What a running gateway tells of its upstream accounts, and takes from an operator, through the data folder."""

import pytest
from front_door import House, eventually, without

from vipcloud.status import upstreams as upstream_state
from vipcloud.status.upstreams import AccountState


@pytest.fixture
def open_house(open_house):
    """DeepSeek's models have no other provider here."""
    return without(open_house, "dashscope")


def told(house: House, upstream: str) -> AccountState:
    parts = house.gateway.parts
    state = upstream_state.read_state(parts.settings.data_path, parts.clock.wall_s())
    assert state is not None
    return next(account for account in state.accounts if account.id == upstream)


async def test_its_state_can_be_read_while_it_runs_and_not_later(open_house, clock) -> None:
    house: House = await open_house(spare=True, clock=clock, housekeeping=True, breaker={"failures_in_row": 1})
    data = house.gateway.parts.settings.data_path
    await eventually(lambda: upstream_state.read_state(data, clock.wall_s()))
    assert {model.breaker for model in told(house, "deepseek/main").models} == {"closed"}
    await house.upstream.always("status:500")
    assert (await house.chat()).status == 200
    state = await eventually(
        lambda: next((one for one in told(house, "deepseek/main").models if one.breaker == "open"), None)
    )
    assert (state.model, state.status, state.opened) == ("deepseek-flash", "active", 1)
    assert 1 <= state.free_in_s <= 1.2
    await house.upstreams["spare"].always("status:402")
    await house.chat("Other")
    account = await eventually(lambda: one if (one := told(house, "deepseek/spare")).reason else None)
    assert (account.reason, account.models[0].status) == ("arrears (status 402)", "suspended")
    assert [event["upstream"] for event in house.logs if "out of service" in event["event"]] == ["deepseek/spare"]
    assert upstream_state.read_state(data, clock.wall_s() + upstream_state.FRESH_S) is None
    assert "sk-ours" not in (data / upstream_state.STATE_FILE).read_text()


async def test_an_account_that_is_drained_gets_nothing_new_until_it_is_revived(open_house) -> None:
    house: House = await open_house(spare=True, housekeeping=True)
    data = house.gateway.parts.settings.data_path
    main, spare = house.upstream, house.upstreams["spare"]

    async def calls(requests: int) -> tuple[int, int]:
        before = len(await main.log()), len(await spare.log())
        for number in range(requests):
            assert (await house.chat(f"{number}")).status == 200
        return len(await main.log()) - before[0], len(await spare.log()) - before[1]

    async with house.live("Count to 30 [[pace_ms=10]]") as live:
        upstream_state.drain(data, "deepseek/main")
        await eventually(lambda: house.gateway.parts.upstreams.accounts[0].health.drained)
        assert await calls(6) == (0, 6)
        assert (await live.rest()).done
    upstream_state.revive(data, "deepseek/main")
    await eventually(lambda: not house.gateway.parts.upstreams.accounts[0].health.drained)
    assert (await calls(20))[0] >= 5


async def test_with_all_drained_a_model_is_told_to_have_no_upstream(open_house) -> None:
    house: House = await open_house(housekeeping=True)
    upstream_state.drain(house.gateway.parts.settings.data_path, "deepseek/1")
    await eventually(lambda: house.gateway.parts.upstreams.accounts[0].health.drained)
    reply = await house.chat()
    assert (reply.status, reply.error["code"], reply.headers["retry-after"]) == (503, "no_upstream", "60")
    assert await house.upstream.log() == []


async def test_reviving_takes_back_a_refused_key(open_house) -> None:
    house: House = await open_house(housekeeping=True)
    await house.upstream.fails("status:401")
    assert (await house.chat()).status == 502
    assert (await house.chat()).status == 503
    upstream_state.revive(house.gateway.parts.settings.data_path, "deepseek/1")
    await eventually(lambda: not house.gateway.parts.upstreams.accounts[0].health.removed)
    assert (await house.chat()).status == 200

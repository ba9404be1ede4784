"""How long Valkey keeps what it knows of an account that does not come again, and one that does come then."""

from collections.abc import AsyncIterator

import pytest
from desk import DOLLAR, Desk, dollars, meter, valkey_desk

from valkey_server import Server
from vipcloud.limits.connection import Client
from vipcloud.limits.rules import DAYS_KEPT_MAX
from vipcloud.money import NANO

DAY_S = 86_400
KEPT_S = 40 * DAY_S
FUND = dollars(900)


@pytest.fixture
async def desk(server: Server) -> AsyncIterator[Desk]:
    async with valkey_desk(server) as desk:
        yield desk


async def kept(other: Client) -> dict[str, int]:
    """Each key's seconds to live; -1 is for ever."""
    keys = await other.call("KEYS", "*")
    assert isinstance(keys, list)
    lives = {}
    for name in keys:
        life = await other.call("TTL", name)
        assert isinstance(life, int)
        lives[name.decode()] = life
    return lives


async def test_nothing_is_kept_for_ever_of_who_does_not_come_again(desk: Desk, other: Client) -> None:
    legs = meter(rpm=9, rpd=9, concurrency=9), FUND
    await desk.settle(await desk.admit(*legs, ask=DOLLAR))
    assert KEPT_S - 60 < (await kept(other))["vc:m:a"] <= KEPT_S, "though nothing was charged"
    await desk.settle(await desk.admit(*legs, ask=DOLLAR), NANO)
    lives = await kept(other)
    assert {"vc:m:a", "vc:s:a"} < set(lives)
    assert all(0 < life <= KEPT_S for life in lives.values()), lives


async def test_each_days_first_charge_keeps_an_account_for_longer(desk: Desk, other: Client) -> None:
    await desk.settle(await desk.admit(FUND, ask=DOLLAR), NANO)
    for name in ("vc:m:a", "vc:s:a"):
        await other.call("EXPIRE", name, 1000)
    await desk.settle(await desk.admit(FUND, ask=DOLLAR), NANO)
    assert max((await kept(other)).values()) <= 1000, "once a day is enough"
    desk.clock.advance(DAY_S)
    await desk.settle(await desk.admit(FUND, ask=DOLLAR), NANO)
    assert min((await kept(other)).values()) > KEPT_S - 60


async def test_only_so_many_days_are_kept(desk: Desk, other: Client) -> None:
    for _ in range(DAYS_KEPT_MAX + 10):
        await desk.settle(await desk.admit(FUND, ask=DOLLAR), NANO)
        desk.clock.advance(DAY_S)
    days = await other.call("HLEN", "vc:s:a")
    assert isinstance(days, int)
    assert DAYS_KEPT_MAX <= days <= DAYS_KEPT_MAX + 1


async def test_one_who_comes_when_his_purse_has_just_gone_finds_his_holds(desk: Desk, other: Client) -> None:
    permits = [await desk.admit(FUND, ask=DOLLAR) for _ in range(2)]
    await other.call("DEL", "vc:m:a", "vc:s:a")
    third = await desk.admit(FUND, ask=DOLLAR)
    assert await other.call("HMGET", "vc:m:a", "charged", "held") == [b"0", b"3000000000"]
    for permit in (*permits, third):
        await desk.settle(permit, NANO)
    assert await other.call("HMGET", "vc:m:a", "charged", "held") == [b"3000000000", b"0"]


async def test_one_who_ends_when_his_purse_has_just_gone_leaves_no_debt(desk: Desk, other: Client) -> None:
    permits = [await desk.admit(FUND, ask=DOLLAR) for _ in range(2)]
    await other.call("DEL", "vc:m:a", "vc:s:a")
    await desk.settle(permits[0], NANO)
    third = await desk.admit(FUND, ask=DOLLAR)
    assert await other.call("HMGET", "vc:m:a", "charged", "held") == [b"0", b"2000000000"]
    await desk.settle(permits[1], 0)
    await desk.settle(third, 0)
    assert await other.call("HMGET", "vc:m:a", "charged", "held") == [b"0", b"0"]
    assert all(life > 0 for life in (await kept(other)).values())

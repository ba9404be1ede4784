"""A settlement that is told again: counted once, in whichever order the server hears it."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from desk import DOLLAR, Desk, dollars, key, meter, valkey_desk

from valkey_server import Server
from vipcloud.errors import Unavailable
from vipcloud.limits.connection import Client
from vipcloud.limits.guard import Permit
from vipcloud.money import NANO

MONEY = "HMGET", "vc:m:a", "charged", "held"


@pytest.fixture
async def desk(server: Server) -> AsyncIterator[Desk]:
    async with valkey_desk(server) as desk:
        yield desk


async def tell(desk: Desk, permit: Permit, charge: int, *, again: int) -> object:
    """As the server hears it on a connection."""
    return await desk.guard._call("settle", permit.subject, (permit.request_id, charge, permit.day, again))


@pytest.mark.parametrize("order", [(0, 1), (1, 0), (1, 1, 0), (1, 0, 1, 0)])
async def test_what_is_told_twice_counts_once(desk: Desk, other: Client, order: tuple[int, ...]) -> None:
    """A server that was slow may read the old connection to its end after the new one."""
    permits = [await desk.admit(dollars(9), key(total_nanousd=9 * NANO), ask=DOLLAR) for _ in range(2)]
    for again in order:
        await tell(desk, permits[0], NANO // 2, again=again)
    assert await other.call(*MONEY) == [b"500000000", b"1000000000"]
    assert await other.call("HMGET", "vc:m:k", "charged", "held") == [b"500000000", b"1000000000"]
    marks = await other.call("KEYS", "vc:t:*")
    assert isinstance(marks, list)
    assert len(marks) == 1, "for what is heard even later"
    for mark in marks:
        assert 0 < await other.call("TTL", mark) <= 3600  # type: ignore[operator]


async def test_the_order_does_not_matter_within_one_call(desk: Desk, other: Client) -> None:
    permit = await desk.admit(dollars(9), ask=DOLLAR)
    await asyncio.gather(*(tell(desk, permit, NANO // 2, again=again) for again in (1, 0)))
    assert await other.call(*MONEY) == [b"500000000", b"0"]


async def test_a_charge_does_not_wait_for_a_place_that_cannot_be_given_back(desk: Desk, other: Client) -> None:
    permit = await desk.admit(meter(concurrency=3), dollars(9), ask=DOLLAR)
    await other.call("DEL", "vc:l:a")
    await other.call("SET", "vc:l:a", "nonsense")
    for again in (0, 1, 1):
        assert "WRONGTYPE" in str(await tell(desk, permit, NANO // 2, again=again)), "it is to be told again"
        assert await other.call(*MONEY) == [b"500000000", b"0"]


async def test_a_hold_that_cannot_be_changed_stays(desk: Desk, other: Client) -> None:
    """The key's purse cannot be looked through for what has lapsed: what the account's holds is not let go."""
    legs = dollars(9), key(total_nanousd=9 * NANO)
    permit = await desk.admit(*legs, ask=DOLLAR)
    await other.call("DEL", "vc:x:k")
    await other.call("SET", "vc:x:k", "nonsense")
    with pytest.raises(Unavailable):
        await desk.guard.rehold(permit, DOLLAR)
    assert await other.call(*MONEY) == [b"0", b"1000000000"]
    assert await other.call("HGETALL", "vc:h:a") == [permit.request_id.encode(), b"1000000000"]


@pytest.mark.parametrize("charge", [0, NANO // 2])
async def test_an_extension_that_is_heard_after_the_end_holds_nothing(desk: Desk, other: Client, charge: int) -> None:
    permit = await desk.admit(dollars(9), key(total_nanousd=9 * NANO), ask=DOLLAR)
    await tell(desk, permit, charge, again=1)
    extension = permit.request_id, 2 * NANO, permit.day, 1_000_000
    assert await desk.guard._call("extend", permit.subject, extension) == 1, "nobody is there to be refused anything"
    assert await other.call(*MONEY) == [str(charge).encode(), b"0"]
    assert await other.call("EXISTS", "vc:h:a", "vc:h:k", "vc:x:a", "vc:x:k") == 0

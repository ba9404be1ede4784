"""Keys in Valkey that cannot be read or written: whom that hurts, for how long, and what is told of it."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from desk import DOLLAR, Desk, dollars, key, meter, valkey_desk

from valkey_server import Server
from vipcloud.errors import Unavailable
from vipcloud.limits.connection import Client
from vipcloud.money import NANO


@pytest.fixture
async def desk(server: Server) -> AsyncIterator[Desk]:
    async with valkey_desk(server) as desk:
        yield desk


async def spoil(other: Client, *names: str) -> None:
    for name in names:
        await other.call("DEL", name)
        await other.call("SET", name, "nonsense")


@pytest.mark.parametrize("broken", ["vc:h:k", "vc:x:k"])
async def test_an_admission_that_cannot_be_written_takes_nothing(desk: Desk, other: Client, broken: str) -> None:
    legs = meter(rpm=2, rpd=2, concurrency=1), dollars(1), key(total_nanousd=NANO)
    await desk.settle(await desk.admit(*legs, ask=DOLLAR))
    await spoil(other, broken)
    for _ in range(3):
        with pytest.raises(Unavailable):
            await desk.admit(*legs, ask=DOLLAR)
    assert await other.call("ZCARD", "vc:l:a") == 0, "the place is free"
    assert await other.call("HMGET", "vc:m:a", "charged", "held") == [b"0", b"0"], "the other purse is as it was"
    assert await other.call("HLEN", "vc:h:a") == 0 == await other.call("ZCARD", "vc:x:a")
    await other.call("DEL", broken)
    permit = await desk.admit(*legs, ask=DOLLAR)
    assert (permit.remaining_requests, permit.day_remaining) == (0, 0), "one of two was left"
    await desk.settle(permit, NANO)
    assert await other.call("HMGET", "vc:m:a", "charged", "held") == [b"1000000000", b"0"]


async def test_what_was_counted_to_refuse_another_is_taken_back(desk: Desk, other: Client) -> None:
    """To say when the window has room, it is written; to sweep the places that lapsed, these are."""
    legs = meter(rpm=2, concurrency=2), dollars(1), key(total_nanousd=9 * NANO)
    await desk.settle(await desk.admit(*legs, ask=DOLLAR))
    desk.clock.advance(61)
    await spoil(other, "vc:h:k")
    for limit in (meter(rpm=2), meter(rpm=9, concurrency=2)):
        asking = (desk.admit(limit, dollars(9), key(total_nanousd=9 * NANO), ask=DOLLAR) for _ in range(3))
        answers = await asyncio.gather(*asking, return_exceptions=True)
        assert [type(answer) for answer in answers] == [Unavailable] * 3
        assert await other.call("LLEN", "vc:w:a") == 0 == await other.call("ZCARD", "vc:l:a")
    assert await other.call("HMGET", "vc:m:a", "charged", "held") == [b"0", b"0"]


async def test_memory_that_is_full_leaves_nobody_with_a_place(desk: Desk, other: Client) -> None:
    legs = meter(rpm=9, concurrency=1), dollars(1)
    await desk.settle(await desk.admit(*legs, ask=DOLLAR))
    await other.call("CONFIG", "SET", "maxmemory", "1")
    for _ in range(2):
        with pytest.raises(Unavailable):
            await desk.admit(*legs, ask=DOLLAR)
    await other.call("CONFIG", "SET", "maxmemory", "0")
    assert (await desk.admit(*legs, ask=DOLLAR)).remaining_requests == 7


async def test_one_accounts_broken_key_is_not_called_a_loss_of_the_counts_and_is_said_once_a_minute(
    desk: Desk, other: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    await desk.settle(await desk.admit(dollars(1), ask=DOLLAR))
    await spoil(other, "vc:h:a")
    for _ in range(3):
        with pytest.raises(Unavailable):
            await desk.admit(dollars(1), ask=DOLLAR)
        assert desk.guard.degraded == ""
        await desk.settle(await desk.admit(dollars(1, "b"), ask=DOLLAR))
    out = capsys.readouterr().out
    assert "limits_degraded" not in out
    assert "limits_restored" not in out
    assert out.count("limits_unreadable") == 1
    assert "whose=['a']" in out
    desk.clock.advance(60)
    with pytest.raises(Unavailable):
        await desk.admit(dollars(1), ask=DOLLAR)
    assert capsys.readouterr().out.count("limits_unreadable") == 1


async def test_a_server_that_is_full_is_a_loss_of_the_counts(desk: Desk, other: Client) -> None:
    await desk.settle(await desk.admit(dollars(1), ask=DOLLAR))
    await other.call("CONFIG", "SET", "maxmemory", "1")
    with pytest.raises(Unavailable):
        await desk.admit(dollars(1), ask=DOLLAR)
    assert desk.guard.degraded
    await other.call("CONFIG", "SET", "maxmemory", "0")
    await desk.admit(dollars(1), ask=DOLLAR)
    assert not desk.guard.degraded

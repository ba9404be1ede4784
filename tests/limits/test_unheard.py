"""Settlements that Valkey cannot write, or not before their holds have lapsed: kept within a bound, told again, and at
last looked up in the books."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
from desk import DOLLAR, LEASE_S, Desk, dollars, key, meter, valkey_desk

from valkey_server import Server
from vipcloud.errors import InsufficientCredit, Unavailable
from vipcloud.limits import valkey
from vipcloud.limits.connection import Client
from vipcloud.limits.guard import Booked, Permit, Purse
from vipcloud.limits.valkey import BOOKED_WITHIN_S
from vipcloud.money import NANO, NanoUSD

TODAY = 1_795_000_000 // 86_400
MONEY = "HMGET", "vc:m:a", "charged", "held"


class Books:
    """What the store says of any purse: a charge for each dollar that was settled, when it gets to that."""

    def __init__(self) -> None:
        self.dollars = 0
        self.away = False
        self.reads = 0

    async def booked(self, purse: Purse) -> Booked:
        self.reads += 1
        if self.away:
            raise Unavailable("The store is away.", retry_after_s=1)
        return Booked(self.dollars * NANO, {TODAY: self.dollars * NANO})


@pytest.fixture
def books() -> Books:
    return Books()


@pytest.fixture
async def desk(server: Server, books: Books) -> AsyncIterator[Desk]:
    async with valkey_desk(server, reread=books.booked) as desk:
        yield desk
        for _ in range(2):  # nothing is left that would be told again for ever
            desk.clock.advance(2 * LEASE_S)
            await desk.guard.tell_again()
            await desk.guard.look_up()
        assert not desk.guard._untold
        assert not desk.guard._unheard


async def admitted(desk: Desk, count: int) -> list[Permit]:
    return [await desk.admit(dollars(20), meter(concurrency=20), ask=DOLLAR) for _ in range(count)]


async def spoil(other: Client) -> dict[bytes, bytes]:
    """Make holds unreadable; returns them."""
    held = await other.call("HGETALL", "vc:h:a")
    assert isinstance(held, list)
    await other.call("SET", "vc:h:a", "nonsense")
    return dict(zip(held[::2], held[1::2], strict=True))


async def mend(other: Client, held: dict[bytes, bytes]) -> None:
    await other.call("DEL", "vc:h:a")
    await other.call("HSET", "vc:h:a", *[word for pair in held.items() for word in pair])


async def test_what_was_refused_is_told_again_by_itself_and_said_once(
    desk: Desk, other: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    permits = await admitted(desk, 5)
    held = await spoil(other)
    for permit in permits:
        await desk.settle(permit, NANO)
    assert len(desk.guard._unheard) == 5
    await desk.guard.tell_again()
    await desk.guard.look_up()
    assert len(desk.guard._unheard) == 5
    await mend(other, held)
    deadline = time.monotonic() + 10
    while desk.guard._unheard:
        assert time.monotonic() < deadline, "it was never told"
        await asyncio.sleep(0.001)
    assert await other.call(*MONEY) == [b"5000000000", b"0"]
    await desk.guard.tell_again()
    await desk.guard.look_up()
    out = capsys.readouterr().out
    assert out.count("settlements_refused") == 1 == out.count("settlements_told")


async def test_others_are_told_while_one_is_refused(desk: Desk, other: Client) -> None:
    permits = await admitted(desk, 2)
    well = await desk.admit(dollars(2, "b"), ask=DOLLAR)
    held = await spoil(other)
    connection = desk.guard._client.connection
    desk.guard._client.connection = None
    for permit in (permits[0], well, permits[1]):
        desk.guard.settle(permit, NanoUSD(NANO))
    desk.guard._client.connection = connection
    await desk.guard.tell_again()
    await desk.guard.look_up()
    assert list(desk.guard._unheard) == ["r1", "r2"]
    assert await other.call("HMGET", "vc:m:b", "charged", "held") == [b"1000000000", b"0"]
    await mend(other, held)


async def test_only_so_many_are_kept_and_the_books_have_the_others(
    desk: Desk, other: Client, books: Books, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(valkey, "UNHEARD_MAX", 3)
    permits = await admitted(desk, 5)
    held = await spoil(other)
    for permit in permits:
        await desk.settle(permit, NANO)
    assert list(desk.guard._unheard) == list(desk.guard._untold) == ["r3", "r4", "r5"]
    await mend(other, held)
    await desk.guard.tell_again()
    await desk.guard.look_up()
    assert await other.call(*MONEY) == [b"3000000000", b"2000000000"], "what is not told stays held until it lapses"
    books.dollars = 5
    desk.clock.advance(BOOKED_WITHIN_S)
    await desk.guard.tell_again()
    await desk.guard.look_up()
    assert await other.call(*MONEY) == [b"5000000000", b"2000000000"]
    assert await other.call("HGET", "vc:s:a", TODAY) == b"5000000000"
    out = capsys.readouterr().out
    assert out.count("settlements_given_up") == 1
    assert "count=2" in out


async def test_what_is_refused_until_its_hold_lapses_is_given_up_to_the_books(
    desk: Desk, other: Client, books: Books
) -> None:
    (permit,) = await admitted(desk, 1)
    held = await spoil(other)
    await desk.settle(permit, NANO)
    desk.clock.advance(LEASE_S)
    books.dollars, books.away = 1, True
    await desk.guard.tell_again()
    await desk.guard.look_up()
    assert not desk.guard._untold
    desk.clock.advance(BOOKED_WITHIN_S)
    await desk.guard.tell_again()
    await desk.guard.look_up()
    assert list(desk.guard._unsure) == ["a"], "the store cannot be asked"
    books.away = False
    await mend(other, held)
    await desk.guard.tell_again()
    await desk.guard.look_up()
    assert await other.call("HGET", "vc:m:a", "charged") == b"1000000000"
    reads = books.reads
    await desk.guard.tell_again()
    await desk.guard.look_up()
    assert books.reads == reads


async def test_what_lapsed_before_it_was_told_again_is_charged_by_the_books(
    server: Server, desk: Desk, other: Client, books: Books
) -> None:
    """One gateway cannot reach the server for longer than its holds last; another goes on with the same account."""
    (permit,) = await admitted(desk, 1)
    connection = desk.guard._client.connection
    desk.guard._client.connection = None
    desk.guard.settle(permit, NanoUSD(NANO))
    async with valkey_desk(server) as elsewhere:
        elsewhere.clock.advance(LEASE_S + 1)
        await elsewhere.settle(await elsewhere.admit(dollars(20), ask=DOLLAR), 0)
    assert await other.call(*MONEY) == [b"0", b"0"]
    desk.guard._client.connection = connection
    books.dollars = 1
    await desk.guard.tell_again()
    await desk.guard.look_up()
    assert not desk.guard._untold
    desk.clock.advance(BOOKED_WITHIN_S)
    await desk.guard.tell_again()
    await desk.guard.look_up()
    assert await other.call(*MONEY) == [b"1000000000", b"0"]
    with pytest.raises(InsufficientCredit):
        await desk.admit(dollars(1), ask=DOLLAR)


async def test_what_the_books_lacked_when_the_server_had_lost_its_data_is_added_soon_after(
    server: Server, desk: Desk, other: Client, books: Books
) -> None:
    permits = await admitted(desk, 3)
    await desk.settle(permits[0], NANO)
    server.flush()
    await desk.settle(permits[1], NANO)  # nobody knows its purse
    await desk.settle(await desk.admit(dollars(20), key(total_nanousd=20 * NANO), ask=DOLLAR), NANO)
    assert await other.call(*MONEY) == [b"1000000000", b"0"], "the books know of nothing yet"
    books.dollars = 3
    desk.clock.advance(BOOKED_WITHIN_S)
    await desk.guard.tell_again()
    await desk.guard.look_up()
    assert await other.call(*MONEY) == [b"3000000000", b"0"]
    assert await other.call("HGET", "vc:m:k", "charged") == b"3000000000"
    await desk.settle(permits[2], NANO)
    assert await other.call(*MONEY) == [b"4000000000", b"0"]


async def test_books_that_are_behind_take_nothing_back(desk: Desk, other: Client, books: Books) -> None:
    for permit in await admitted(desk, 2):
        await desk.settle(permit, NANO)
    books.dollars = 1
    desk.clock.advance(BOOKED_WITHIN_S)
    await desk.guard.tell_again()
    await desk.guard.look_up()
    assert await other.call(*MONEY) == [b"2000000000", b"0"]
    assert await other.call("HGET", "vc:s:a", TODAY) == b"2000000000"

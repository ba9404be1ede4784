"""A charge that reaches Valkey by its settlement and by what the books say: counted once, whichever comes first."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from desk import DOLLAR, LEASE_S, Desk, dollars, running

from valkey_server import Server
from vipcloud.clock import ManualClock
from vipcloud.limits.connection import Client
from vipcloud.limits.guard import Booked, Permit, Purse
from vipcloud.limits.valkey import BOOKED_WITHIN_S, LOOK_AGAIN_S_MAX, ValkeyGuard
from vipcloud.money import NANO, NanoUSD

MONEY = "HMGET", "vc:m:a", "charged", "held"


class Books:
    """What the store says of any purse, and up to when it has this gateway's charges."""

    def __init__(self) -> None:
        self.dollars = 0
        self.until_s = float("inf")
        self.reads = 0

    async def booked(self, purse: Purse) -> Booked:
        self.reads += 1
        return Booked(self.dollars * NANO, {})


@pytest.fixture
def books() -> Books:
    return Books()


@pytest.fixture
async def desk(server: Server, books: Books) -> AsyncIterator[Desk]:
    async with at(server, books) as desk:
        yield desk


@asynccontextmanager
async def at(server: Server, books: Books) -> AsyncIterator[Desk]:
    """One that does nothing by itself but keep its connection: its turns are the test's."""

    def make(clock: ManualClock, chance: Callable[[], float]) -> ValkeyGuard:
        def now_us() -> int:
            return round(clock.wall_s() * 1_000_000)

        return ValkeyGuard(client, clock, LEASE_S, 1, books.booked, chance, now_us, booked_until=lambda: books.until_s)

    async with running(Client(server.url, timeout_s=5, waiting_max=1000)) as client:
        desk = Desk(make)
        await desk.guard.load()
        yield desk


async def settle_unheard(desk: Desk, permit: Permit) -> None:
    client = desk.guard._client
    connection, client.connection = client.connection, None
    desk.guard.settle(permit, NanoUSD(NANO))
    client.connection = connection


async def turns(desk: Desk, s: float) -> None:
    """Everything that becomes due within so many seconds."""
    for _ in range(int(s)):
        desk.clock.advance(1)
        await desk.guard.look_up()


async def charged_and_held(other: Client) -> tuple[int, ...]:
    return tuple(int(amount) for amount in await other.call(*MONEY))  # type: ignore[attr-defined]


async def test_what_was_looked_up_before_it_was_told_again_counts_once(desk: Desk, other: Client, books: Books) -> None:
    """The settlement of a gateway that was away comes after another gateway has told what the books say."""
    permit = await desk.admit(dollars(10), ask=DOLLAR)
    await settle_unheard(desk, permit)
    books.dollars = 1
    desk.clock.advance(1)
    desk.guard._look_up_later("a", 0)
    await desk.guard.look_up()
    assert await charged_and_held(other) == (NANO, NANO), "held for twice, but not for long"
    desk.clock.advance(1)
    await desk.guard.tell_again()
    assert await charged_and_held(other) == (NANO, 0)
    await turns(desk, 300)
    assert await charged_and_held(other) == (NANO, 0)


async def test_what_a_gateway_read_before_it_was_told_again_counts_once(
    server: Server, desk: Desk, other: Client, books: Books
) -> None:
    """Another gateway first sees the account when the books have the charge already."""
    permit = await desk.admit(dollars(10), ask=DOLLAR)
    await settle_unheard(desk, permit)
    books.dollars = 1
    async with at(server, books) as elsewhere:
        elsewhere._count = 100
        second = await elsewhere.admit(dollars(10, charged_nanousd=NANO), ask=DOLLAR)
        await elsewhere.settle(second, 0)
    await desk.guard.tell_again()
    await turns(desk, 300)
    assert await charged_and_held(other) == (NANO, 0)


async def test_what_no_sum_can_contain_is_added_at_once(desk: Desk, other: Client, books: Books) -> None:
    """The sum was raised, but long before the request ended."""
    desk.guard._look_up_later("a", 0)
    await desk.admit(dollars(10), ask=DOLLAR)
    books.dollars = 1
    await desk.guard.look_up()
    desk.clock.advance(60)
    permit = await desk.admit(dollars(10), ask=DOLLAR)
    await settle_unheard(desk, permit)
    await desk.guard.tell_again()
    assert await charged_and_held(other) == (2 * NANO, NANO)


async def test_books_that_are_behind_are_looked_up_until_they_have_the_charge(
    desk: Desk, other: Client, books: Books
) -> None:
    first, second = [await desk.admit(dollars(10), ask=DOLLAR) for _ in range(2)]
    books.until_s = desk.clock.wall_s()
    await settle_unheard(desk, first)
    await settle_unheard(desk, second)
    books.dollars = 1  # of one of them
    desk.guard._look_up_later("a", 0)
    await desk.guard.look_up()
    await desk.guard.tell_again()
    assert await charged_and_held(other) == (NANO, 0)
    await turns(desk, 3600)
    books.dollars, books.until_s = 2, desk.clock.wall_s()
    await turns(desk, LOOK_AGAIN_S_MAX)
    assert await charged_and_held(other) == (2 * NANO, 0)
    assert not desk.guard._unsure


async def test_a_lost_charge_is_looked_up_for_some_minutes_and_not_for_ever(
    server: Server, desk: Desk, other: Client, books: Books
) -> None:
    """Another gateway's bookkeeper may be behind."""
    await desk.settle(await desk.admit(dollars(10), ask=DOLLAR), NANO)
    server.flush()
    await desk.settle(await desk.admit(dollars(10), ask=DOLLAR), 0)
    await turns(desk, BOOKED_WITHIN_S)
    assert await charged_and_held(other) == (0, 0)
    books.dollars = 1
    await turns(desk, 300)
    assert await charged_and_held(other) == (NANO, 0)
    assert not desk.guard._unsure
    assert books.reads < 10


async def test_a_purse_that_keeps_becoming_unsure_is_looked_up_all_the_same(
    desk: Desk, other: Client, books: Books
) -> None:
    await desk.admit(dollars(10), ask=DOLLAR)
    books.dollars = 3
    for _ in range(int(BOOKED_WITHIN_S)):
        desk.clock.advance(1)
        desk.guard._look_up_later("a", BOOKED_WITHIN_S)
    await desk.guard.look_up()
    assert await charged_and_held(other) == (3 * NANO, NANO)

from typing import NamedTuple

import pytest

from vipcloud.clock import ManualClock
from vipcloud.errors import InsufficientCredit, RateLimited
from vipcloud.limits.guard import Permit
from vipcloud.limits.local import LocalGuard
from vipcloud.limits.rules import Ask, Limits
from vipcloud.money import NANO, NanoUSD, PicoUSDPerToken

NO_LIMITS = Limits(rpm=0, rpd=0, concurrency=0)
FREE = Ask(NanoUSD(0), PicoUSDPerToken(0), 100)


class Funds(NamedTuple):
    """What an account was granted, and what had been charged when it was first met."""

    granted_nanousd: int
    charged_nanousd: int


class Account(NamedTuple):
    id: str
    granted_nanousd: int
    charged_nanousd: int


BROKE = Funds(NanoUSD(0), NanoUSD(0))
RICH = Funds(NanoUSD(5 * NANO), NanoUSD(0))


class Desk:
    """A guard with a clock to turn, and request ids made up."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.guard = LocalGuard(self.clock, lease_s=600)
        self._count = 0

    async def admit(
        self, limits: Limits = NO_LIMITS, funds: Funds = BROKE, ask: Ask = FREE, account: str = "a"
    ) -> Permit:
        self._count += 1
        return await self.guard.admit(f"r{self._count}", Account(account, *funds), limits, ask)


async def test_exactly_n_requests_pass_in_any_sixty_seconds() -> None:
    desk = Desk()
    limits = Limits(rpm=3, rpd=0, concurrency=0)
    assert [(await desk.admit(limits)).remaining_requests for _ in range(3)] == [2, 1, 0]
    with pytest.raises(RateLimited) as refused:
        await desk.admit(limits)
    assert refused.value.retry_after_s == pytest.approx(60)
    desk.clock.advance(59.9)
    with pytest.raises(RateLimited):
        await desk.admit(limits)
    desk.clock.advance(0.1)
    assert (await desk.admit(limits)).remaining_requests == 2


async def test_the_day_count_begins_anew_at_midnight_utc() -> None:
    desk = Desk()
    limits = Limits(rpm=0, rpd=2, concurrency=0)
    await desk.admit(limits)
    await desk.admit(limits)
    with pytest.raises(RateLimited) as refused:
        await desk.admit(limits)
    assert refused.value.retry_after_s is not None
    desk.clock.advance(refused.value.retry_after_s)
    await desk.admit(limits)


async def test_a_place_comes_back_when_its_request_settles_or_its_lease_lapses() -> None:
    desk = Desk()
    limits = Limits(rpm=0, rpd=0, concurrency=2)
    first = await desk.admit(limits)
    await desk.admit(limits)
    with pytest.raises(RateLimited):
        await desk.admit(limits)
    desk.guard.settle(first, NanoUSD(0))
    await desk.admit(limits)
    with pytest.raises(RateLimited):
        await desk.admit(limits)
    desk.clock.advance(600)
    await desk.admit(limits)


async def test_a_refusal_consumes_nothing() -> None:
    desk = Desk()
    limits = Limits(rpm=2, rpd=2, concurrency=1)
    ask = Ask(NanoUSD(NANO), PicoUSDPerToken(0), 100)
    with pytest.raises(InsufficientCredit):
        await desk.admit(limits, BROKE, ask)
    first = await desk.admit(limits, RICH, ask)
    for _ in range(5):
        with pytest.raises(RateLimited):
            await desk.admit(limits, RICH, ask)
    desk.guard.settle(first, NanoUSD(0))
    second = await desk.admit(limits, RICH, ask)
    assert second.remaining_requests == 0


async def test_credit_held_or_charged_is_not_there_for_the_next() -> None:
    desk = Desk()
    ask = Ask(NanoUSD(2 * NANO), PicoUSDPerToken(0), 100)
    first = await desk.admit(funds=RICH, ask=ask)
    await desk.admit(funds=RICH, ask=ask)
    with pytest.raises(InsufficientCredit):
        await desk.admit(funds=RICH, ask=ask)
    desk.guard.settle(first, NanoUSD(1))
    with pytest.raises(InsufficientCredit):
        await desk.admit(funds=RICH, ask=Ask(NanoUSD(3 * NANO), PicoUSDPerToken(0), 1))
    assert (await desk.admit(funds=RICH, ask=ask)).held_nanousd == 2 * NANO


async def test_a_later_grant_counts_and_a_later_reading_of_charges_does_not_count_twice() -> None:
    desk = Desk()
    ask = Ask(NanoUSD(5 * NANO), PicoUSDPerToken(0), 100)
    desk.guard.settle(await desk.admit(funds=RICH, ask=ask), NanoUSD(5 * NANO))
    with pytest.raises(InsufficientCredit):
        await desk.admit(funds=Funds(RICH.granted_nanousd, NanoUSD(5 * NANO)), ask=ask)
    await desk.admit(funds=Funds(NanoUSD(10 * NANO), NanoUSD(5 * NANO)), ask=ask)


async def test_a_small_credit_lowers_the_answer_instead_of_refusing_it() -> None:
    desk = Desk()
    price = PicoUSDPerToken(1_000_000)  # $1 per million: 1,000 nano-dollars a token
    permit = await desk.admit(funds=Funds(NanoUSD(500_000), NanoUSD(0)), ask=Ask(NanoUSD(100_000), price, 4096))
    assert permit.output_tokens == 400
    assert permit.held_nanousd == 500_000
    with pytest.raises(InsufficientCredit):
        await desk.admit(funds=Funds(NanoUSD(115_000), NanoUSD(0)), ask=Ask(NanoUSD(100_000), price, 4096), account="b")


async def test_a_permit_is_settled_once() -> None:
    desk = Desk()
    permit = await desk.admit()
    desk.guard.settle(permit, NanoUSD(0))
    with pytest.raises(AssertionError):
        desk.guard.settle(permit, NanoUSD(0))

"""The guard in memory, for a gateway of one process. Its windows of a minute begin empty with the process.

Counts of days do not: what was counted before it began is asked for when a meter is first met, and not again.
Credit and caps do not: what the store holds when a purse is first seen is the start, every charge since is kept here,
and later readings of the store only raise what was granted. The journal carries the charges into the store.
"""

import random
from collections import deque
from collections.abc import Callable
from typing import Final, Literal

from vipcloud.clock import Clock
from vipcloud.errors import BudgetExceeded, GatewayError, InsufficientCredit, RateLimited
from vipcloud.limits.caps import Counts
from vipcloud.limits.guard import Permit, Purse, Subject
from vipcloud.limits.rules import (
    DAY_S,
    NO_STANDING,
    WINDOW_S,
    Ask,
    Limits,
    Meter,
    MeterState,
    PurseState,
    Standing,
    affordable_tokens,
    jittered,
    seconds_to_midnight,
)
from vipcloud.money import NanoUSD, format_usd

LimitKind = Literal["rpm", "rpd", "concurrency"]

WORDS: dict[LimitKind, str] = {"rpm": "per minute", "rpd": "per day (UTC)", "concurrency": "at the same time"}
CONCURRENCY_RETRY_S: Final = 1.0
METERS_SWEPT_AT: Final = 10_000  # a sweep drops those that count nothing any more


def _nothing(_meter_id: str, _day: int) -> int:
    return 0


class LocalGuard:
    """`lease_s` is how long a request may hold its place if its end is never told. `chance` is in [0, 1).

    `share` is the part of every limit that is ours, where other gateways admit as well: each takes its share rounded
    down, but at least 1. `before` tells how many of a meter's requests on a day were counted before this process began.
    """

    def __init__(
        self,
        clock: Clock,
        lease_s: float,
        chance: Callable[[], float] = random.random,
        *,
        share: float = 1.0,
        before: Callable[[str, int], int] = _nothing,
    ) -> None:
        self._now_s = clock.monotonic_s
        self._lease_s = lease_s
        self._chance = chance
        self._share = share
        self._before = before
        self._meters: dict[str, MeterState] = {}
        self._purses: dict[str, PurseState] = {}
        self._sweep_at = METERS_SWEPT_AT

    async def admit(self, request_id: str, subject: Subject, ask: Ask, wall_s: float) -> Permit:
        return self.admit_now(request_id, subject, ask, wall_s)

    def admit_now(self, request_id: str, subject: Subject, ask: Ask, wall_s: float) -> Permit:
        """First every leg is looked at, then all of them are taken: nothing comes between."""
        now_s = self._now_s()
        day = int(wall_s) // DAY_S
        meters = subject.meters
        for meter in meters:
            state = self._meters.get(meter.id) or self._counted_before(meter.id, day)
            if state is not None:
                self._check(state, meter, now_s, day, wall_s)
        tokens = first = ask.output_tokens
        held = ask.hold(tokens)
        if held:
            tokens, first, held = self._hold(subject, ask, held, day)
        permit = Permit(request_id, subject, ask, day, held, tokens, first)
        for meter in meters:
            state = self._meters.get(meter.id)
            if state is None:
                state = self._meter(meter.id, now_s, day)
            limits = meter.limits
            if limits.concurrency:
                state.leases[request_id] = now_s + self._lease_s
            if limits.rpm:
                admitted = state.admitted
                admitted.append(now_s)
                rpm = limits.rpm if self._share == 1.0 else self._ours(limits.rpm)
                remaining = rpm - len(admitted)
                if not permit.limit_requests or remaining < permit.remaining_requests:
                    permit.limit_requests, permit.remaining_requests = rpm, remaining
                    permit.reset_s = admitted[0] + WINDOW_S - now_s
            if limits.rpd:
                self._count_in_day(permit, state, self._ours(limits.rpd))
        return permit

    def extend(self, permit: Permit, tokens: int, refused: Callable[[], None]) -> None:
        assert not permit.settled, "only a running request needs more"
        wanted = min(permit.held_tokens + tokens, permit.output_tokens)
        more = permit.ask.hold(wanted) - permit.held_nanousd
        if not more:
            return  # all of it is held for, or it is free
        purses = permit.subject.purses
        if any(self._left(purse, permit.day) < more for purse in purses):
            refused()
            return
        for purse in purses:
            self._purses[purse.id].held_nanousd += more
        permit.held_nanousd = NanoUSD(permit.held_nanousd + more)
        permit.held_tokens = wanted

    async def rehold(self, permit: Permit, ask: Ask) -> None:
        assert not permit.settled, "only a running request holds anything"
        subject, before = permit.subject, permit.held_nanousd
        self._hold_back(subject, before)
        tokens, first, held = ask.output_tokens, ask.output_tokens, ask.hold(ask.output_tokens)
        if held:
            try:
                tokens, first, held = self._hold(subject, ask, held, permit.day)
            except GatewayError:
                self._hold_back(subject, -before)
                raise
        permit.ask, permit.held_nanousd, permit.output_tokens, permit.held_tokens = ask, held, tokens, first

    def _hold_back(self, subject: Subject, amount: int) -> None:
        """Hold `amount` less."""
        if amount:
            for purse in subject.purses:
                self._purses[purse.id].held_nanousd -= amount

    def settle(self, permit: Permit, charge: NanoUSD) -> None:
        assert not permit.settled, "a permit is settled once"
        held = permit.held_nanousd
        assert 0 <= charge <= held, "a hold is the ceiling of its request"
        permit.settled = True
        subject = permit.subject
        for meter in subject.meters:
            state = self._meters.get(meter.id)
            if state is not None:
                state.leases.pop(permit.request_id, None)
        if held:
            for purse in subject.purses:
                money = self._purses[purse.id]
                money.held_nanousd -= held
                if charge:
                    money.charged_nanousd += charge
                    day, spent = permit.day, money.spent
                    before = spent.get(day)
                    if before is None:
                        money.open_day(day, charge)
                    else:
                        spent[day] = before + charge

    @property
    def degraded(self) -> str:
        return ""

    async def run(self) -> None:
        """Memory needs no care."""

    async def ready(self) -> None:
        """It always is."""

    async def flushed(self) -> None:
        """Nothing is ever under way."""

    async def standing(self, subject: Subject, wall_s: float) -> Standing:
        now_s = self._now_s()
        day = int(wall_s) // DAY_S
        found = NO_STANDING
        for meter in subject.meters:
            state = self._meters.get(meter.id) or self._counted_before(meter.id, day) or MeterState()
            state.forget_old(now_s)
            rpm, rpd = self._ours(meter.limits.rpm), self._ours(meter.limits.rpd)
            left = max(0, rpm - len(state.admitted))
            day_left = max(0, rpd - state.days.get(day, 0))
            if rpm and (not found.limit or left < found.remaining):
                reset_s = state.admitted[0] + WINDOW_S - now_s if state.admitted else 0.0
                found = Standing(rpm, left, reset_s, found.day_limit, found.day_remaining)
            if rpd and (not found.day_limit or day_left < found.day_remaining):
                found = Standing(found.limit, found.remaining, found.reset_s, rpd, day_left)
        return found

    def counts(self) -> Counts:
        """All there is to count on with, elsewhere."""
        return Counts(
            {name: (list(state.admitted), state.days, state.leases) for name, state in self._meters.items()},
            {name: (money.charged_nanousd, money.held_nanousd, money.spent) for name, money in self._purses.items()},
        )

    def adopt(self, counts: Counts) -> None:
        """Go on from there; to be called before anything was admitted."""
        for name, (admitted, days, leases) in counts.meters.items():
            self._meters[name] = MeterState(deque(admitted), days, leases)
        for name, money in counts.purses.items():
            self._purses[name] = PurseState(*money)

    def _check(self, state: MeterState, meter: Meter, now_s: float, day: int, wall_s: float) -> None:
        """Raises RateLimited if one of the meter's limits is used up."""
        limits = meter.limits
        if self._share != 1.0:
            limits = Limits(self._ours(limits.rpm), self._ours(limits.rpd), self._ours(limits.concurrency))
        rpm = limits.rpm
        if rpm:
            state.forget_old(now_s)
            if len(state.admitted) >= rpm:
                raise self._refusal(meter, "rpm", rpm, state.slot_s(rpm, now_s))
        if limits.rpd and state.days.get(day, 0) >= limits.rpd:
            raise self._refusal(meter, "rpd", limits.rpd, seconds_to_midnight(wall_s))
        if limits.concurrency and len(state.leases) >= limits.concurrency:
            state.forget_lapsed(now_s)
            if len(state.leases) >= limits.concurrency:
                raise self._refusal(meter, "concurrency", limits.concurrency, CONCURRENCY_RETRY_S)

    def _count_in_day(self, permit: Permit, state: MeterState, rpd: int) -> None:
        count = state.days[permit.day] = state.days.get(permit.day, 0) + 1
        if not permit.day_limit or rpd - count < permit.day_remaining:
            permit.day_limit, permit.day_remaining = rpd, rpd - count

    def _refusal(self, meter: Meter, kind: LimitKind, limit: int, wait_s: float) -> RateLimited:
        return rate_limited(meter, kind, limit, jittered(wait_s, self._chance()))

    def _ours(self, limit: int) -> int:
        return limit if self._share == 1.0 or not limit else max(1, int(limit * self._share))

    def _hold(self, subject: Subject, ask: Ask, held: NanoUSD, day: int) -> tuple[int, int, NanoUSD]:
        """Hold in every purse. How much output they cover, how much of it is held for, and what that is.

        Raises InsufficientCredit or BudgetExceeded; then nothing is held. `held` is for all of it.
        """
        assert subject.purses, "what costs something has somebody who pays"
        tokens = first = ask.output_tokens
        for purse in subject.purses:
            if held > self._left(purse, day):
                tokens = first = self._afford(subject, ask, day)
                break
        if tokens != ask.output_tokens or ask.slice_tokens:
            first = ask.first(tokens)
            held = ask.hold(first)
        for purse in subject.purses:
            self._purses[purse.id].held_nanousd += held
        return tokens, first, held

    def _afford(self, subject: Subject, ask: Ask, day: int) -> int:
        """How many output tokens the purses cover. Raises InsufficientCredit or BudgetExceeded."""
        tokens, whole = ask.output_tokens, ask.hold(ask.output_tokens)
        for number, purse in enumerate(subject.purses):
            left = self._left(purse, day)
            if whole > left:
                covered = affordable_tokens(ask, left)
                if not covered:
                    raise self._unaffordable(purse, day, left, of_key=number > 0)
                tokens = min(tokens, covered)
        return tokens

    def _left(self, purse: Purse, day: int) -> int:
        money = self._purses.get(purse.id)
        if money is None:
            money = self._purses[purse.id] = PurseState(purse.charged_nanousd, 0, dict(purse.spent))
        if purse.caps is None:
            return purse.granted_nanousd - money.charged_nanousd - money.held_nanousd
        return money.left(purse.granted_nanousd, purse.caps, day)

    def _unaffordable(self, purse: Purse, day: int, left: int, *, of_key: bool) -> GatewayError:
        money = self._purses[purse.id]
        credit = money.left(purse.granted_nanousd, None, day)
        return unaffordable(left, capped=left < credit, of_key=of_key)

    def _counted_before(self, meter_id: str, day: int) -> MeterState | None:
        """The meter's state if there is anything to know of it; it is kept then."""
        count = self._before(meter_id, day)
        if not count:
            return None
        state = self._meters[meter_id] = MeterState(days={day: count})
        return state

    def _meter(self, meter_id: str, now_s: float, day: int) -> MeterState:
        if len(self._meters) >= self._sweep_at:
            self._meters = {name: state for name, state in self._meters.items() if not state.idle(now_s, day)}
            self._sweep_at = max(METERS_SWEPT_AT, 2 * len(self._meters))
        state = self._meters[meter_id] = MeterState()
        return state


def rate_limited(meter: Meter, kind: LimitKind, limit: int, wait_s: float) -> RateLimited:
    """What is told when a limit is used up; `wait_s` until it no longer is."""
    requests = f"{limit} request{'s' if limit > 1 else ''}"
    return RateLimited(f"Rate limit reached: {requests} {WORDS[kind]}{meter.whose}.", retry_after_s=wait_s)


def unaffordable(left: int, *, capped: bool, of_key: bool) -> InsufficientCredit:
    """What is told when a purse has too little left: because of its caps, or of the account's credit."""
    amount = f"${format_usd(NanoUSD(max(0, left)))} not held by running requests"
    if not capped:
        return InsufficientCredit(f"Your credit ({amount}) does not cover this request. Top up and try again.")
    whose = "this key" if of_key else "the account"
    return BudgetExceeded(f"The spending limit of {whose} leaves {amount}, which does not cover this request.")

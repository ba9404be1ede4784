"""The two guards decide alike: one trace of requests, ends and passing time, told to both."""

import asyncio
from collections.abc import Callable
from typing import Any

from desk import PRICE, Desk, running
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from valkey_server import Server
from vipcloud.clock import ManualClock
from vipcloud.errors import InsufficientCredit, RateLimited
from vipcloud.limits.caps import Caps
from vipcloud.limits.connection import Client
from vipcloud.limits.guard import NO_CREDIT_LIMIT, Booked, Permit, Purse, Subject
from vipcloud.limits.local import LocalGuard
from vipcloud.limits.rules import Ask, Limits, Meter
from vipcloud.limits.valkey import ValkeyGuard
from vipcloud.money import NanoUSD

LIMIT = st.sampled_from([0, 1, 2, 3, 7])
METERS = st.lists(
    st.builds(Meter, st.sampled_from(["k", "a", "ip", "demo"]), st.builds(Limits, LIMIT, LIMIT, LIMIT)),
    max_size=3,
    unique_by=lambda meter: meter.id,
)
AMOUNT = st.integers(0, 3_000_000)
CAPS = st.none() | st.builds(Caps, st.none() | AMOUNT, st.none() | AMOUNT, st.none() | AMOUNT)
ASK = st.builds(
    Ask,
    st.sampled_from([NanoUSD(0), NanoUSD(1), NanoUSD(300_001)]),
    st.sampled_from([0, 1, 1_270, PRICE]),
    st.integers(1, 3000),
    st.sampled_from([0, 16, 500]),
)
STEP = st.one_of(
    st.tuples(st.just("admit"), METERS, AMOUNT, CAPS, CAPS, ASK),
    st.tuples(st.just("settle"), st.integers(0, 50), st.floats(0, 1)),
    st.tuples(st.just("extend"), st.integers(0, 50), st.integers(1, 2000)),
    st.tuples(st.just("rehold"), st.integers(0, 50), ASK),
    st.tuples(st.just("wait"), st.sampled_from([0.25, 1.0, 29.5, 30.0, 60.0, 4000.0, 86_400.0, 700_000.0])),
    st.tuples(st.just("standing"), METERS),
)
WAIT = st.tuples(st.just("wait"), st.sampled_from([0.0, 1.0, 29.5, 60.0, 86_400.0]))
TOGETHER = st.one_of(
    st.tuples(st.just("admit"), METERS, AMOUNT, CAPS, CAPS, ASK),
    st.tuples(st.just("settle"), st.integers(0, 50), st.floats(0, 1)),
    st.tuples(st.just("extend"), st.integers(0, 50), st.integers(1, 2000)),
    st.tuples(st.just("rehold"), st.integers(0, 50), ASK),
    st.tuples(st.just("standing"), METERS),
)
LEASE_S = 1e9  # memory has no holds that lapse: they cannot be left behind by a process that is gone

PERMIT_FIELDS = (
    "request_id",
    "day",
    "held_nanousd",
    "output_tokens",
    "held_tokens",
    "limit_requests",
    "remaining_requests",
    "reset_s",
    "day_limit",
    "day_remaining",
    "settled",
)


async def nothing_booked(purse: Purse) -> Booked:
    return Booked(0, {})


class Told:
    """One guard, and what it answered."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.running: list[Permit] = []

    async def step(self, step: tuple[Any, ...]) -> Any:
        desk = self.desk
        match step:
            case "admit", meters, granted, caps, key_caps, ask:
                purses = [Purse("a", granted, 0, caps)]
                if key_caps is not None:
                    purses.append(Purse("k", NO_CREDIT_LIMIT, 0, key_caps))
                try:
                    permit = await desk.admit(*meters, *purses, ask=ask)
                except (RateLimited, InsufficientCredit) as error:
                    return type(error), error.message, error.retry_after_s and round(error.retry_after_s, 5)
                self.running.append(permit)
                return self.seen(permit)
            case "settle", which, part if self.running:
                permit = self.running.pop(which % len(self.running))
                await desk.settle(permit, int(permit.held_nanousd * part))
            case "extend", which, tokens if self.running:
                permit = self.running[which % len(self.running)]
                return await desk.extend(permit, tokens), self.seen(permit)
            case "rehold", which, ask if self.running:
                return await self.reheld(self.running[which % len(self.running)], ask)
            case "wait", seconds:
                desk.clock.advance(seconds)
            case "standing", meters:
                standing = await desk.standing(*meters)
                return standing.limit, standing.remaining, round(standing.reset_s, 5), standing.day_remaining
        return None

    async def together(self, steps: list[tuple[Any, ...]]) -> list[Any]:
        """In one turn of the loop: what they answered, and how those that run stand then."""
        free = list(
            self.running
        )  # each takes part in one step at most: an answer changes a permit only when it is heard
        asked: list[asyncio.Task[Any]] = []
        for step in steps:
            if step[0] in ("settle", "extend", "rehold"):
                if not free:
                    continue
                permit = free.pop(step[1] % len(free))
                asked.append(asyncio.create_task(self.of(permit, step)))
            else:
                asked.append(asyncio.create_task(self.step(step)))
        answers = await asyncio.gather(*asked)
        await self.desk.guard.flushed()
        self.running.sort(key=lambda permit: int(permit.request_id[1:]))
        return [*answers, *map(self.seen, self.running)]

    async def of(self, permit: Permit, step: tuple[Any, ...]) -> Any:
        guard = self.desk.guard
        match step:
            case "settle", _, part:
                self.running.remove(permit)
                guard.settle(permit, NanoUSD(int(permit.held_nanousd * part)))
            case "extend", _, tokens:
                guard.extend(permit, tokens, lambda: None)
            case "rehold", _, ask:
                return await self.reheld(permit, ask)
        return None

    async def reheld(self, permit: Permit, ask: Ask) -> Any:
        if not permit.subject.purses and ask.hold(ask.output_tokens):
            return None
        try:
            await self.desk.guard.rehold(permit, ask)
        except InsufficientCredit as error:
            return type(error), error.message, self.seen(permit)
        return self.seen(permit)

    def seen(self, permit: Permit) -> tuple[Any, ...]:
        fields = (getattr(permit, name) for name in PERMIT_FIELDS)
        return tuple(round(value, 5) if isinstance(value, float) else value for value in fields)


@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(STEP, max_size=40))
def test_memory_and_valkey_decide_alike(valkey: Server, steps: list[tuple[Any, ...]]) -> None:
    async def both() -> None:
        valkey.flush()
        async with running(Client(valkey.url, timeout_s=5, waiting_max=100)) as client:
            own = Told(Desk(lambda clock, chance: LocalGuard(clock, LEASE_S, chance)))

            other = Told(
                Desk(
                    lambda clock, chance: ValkeyGuard(
                        client, clock, LEASE_S, 1, nothing_booked, chance, lambda: round(clock.wall_s() * 1_000_000)
                    )
                )
            )
            await other.desk.guard.load()
            for number, step in enumerate(steps):
                answers = [await told.step(step) for told in (own, other)]
                assert answers[0] == answers[1], (number, step)

    asyncio.run(both())


@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.lists(TOGETHER, max_size=8), WAIT), max_size=8))
def test_what_goes_in_one_call_is_decided_in_its_order(valkey: Server, groups: list[Any]) -> None:
    async def both() -> None:
        valkey.flush()
        async with running(Client(valkey.url, timeout_s=5, waiting_max=100)) as client:
            own = Told(Desk(lambda clock, chance: LocalGuard(clock, LEASE_S, chance)))
            guards: list[ValkeyGuard] = []

            def make(clock: ManualClock, chance: Callable[[], float]) -> ValkeyGuard:
                now_us = lambda: round(clock.wall_s() * 1_000_000)  # noqa: E731
                guards.append(ValkeyGuard(client, clock, LEASE_S, 1, nothing_booked, chance, now_us))
                return guards[0]

            other = Told(Desk(make))
            await guards[0].load()
            await guards[0]._open(Subject((), (Purse("a", 0, 0), Purse("k", 0, 0))))
            for number, (steps, wait) in enumerate(groups):
                answers = [await told.together(steps) for told in (own, other)]
                assert answers[0] == answers[1], (number, steps)
                for told in (own, other):
                    await told.step(wait)

    asyncio.run(both())

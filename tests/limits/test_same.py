"""The two guards decide alike: one trace of requests, ends and passing time, told to both."""

import asyncio
from typing import Any

from desk import PRICE, Desk, running
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from valkey_server import Server
from vipcloud.errors import InsufficientCredit, RateLimited
from vipcloud.limits.caps import Caps
from vipcloud.limits.connection import Client
from vipcloud.limits.guard import NO_CREDIT_LIMIT, Booked, Permit, Purse
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
                permit = self.running[which % len(self.running)]
                if not permit.subject.purses and ask.hold(ask.output_tokens):
                    return None
                try:
                    await desk.guard.rehold(permit, ask)
                except InsufficientCredit as error:
                    return type(error), error.message, self.seen(permit)
                return self.seen(permit)
            case "wait", seconds:
                desk.clock.advance(seconds)
            case "standing", meters:
                standing = await desk.standing(*meters)
                return standing.limit, standing.remaining, round(standing.reset_s, 5), standing.day_remaining
        return None

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

            async def as_told(purse: Any) -> Booked:
                return Booked(0, {})

            other = Told(
                Desk(
                    lambda clock, chance: ValkeyGuard(
                        client, clock, LEASE_S, 1, as_told, chance, lambda: round(clock.wall_s() * 1_000_000)
                    )
                )
            )
            await other.desk.guard.load()
            for number, step in enumerate(steps):
                answers = [await told.step(step) for told in (own, other)]
                assert answers[0] == answers[1], (number, step)

    asyncio.run(both())

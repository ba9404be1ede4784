"""Limits, leases and credit as a state machine: whatever happens in whatever order, an oracle of lists and whole
numbers, which knows nothing of how the guard counts, says beforehand what the guard must answer.
"""

from dataclasses import dataclass

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from vipcloud.clock import ManualClock
from vipcloud.errors import GatewayError, InsufficientCredit, RateLimited
from vipcloud.limits.guard import Permit, Purse, Subject
from vipcloud.limits.local import LocalGuard
from vipcloud.limits.rules import Ask, Limits, Meter
from vipcloud.money import NanoUSD, PicoUSDPerToken

LEASE_S = 600.0
WINDOW_S, DAY_S = 60.0, 86_400.0
TOKENS_MIN = 16
COUNT = st.sampled_from([0, 1, 2, 3])
ASK = st.builds(
    Ask,
    st.sampled_from([0, 1, 500_000]).map(NanoUSD),
    st.sampled_from([0, 1, 1_270_000]).map(PicoUSDPerToken),
    st.integers(1, 2000),
    st.sampled_from([0, 64]),
)
WAIT_S = st.sampled_from([0.001, 1.0, 29.999, 30.0, 59.999, 60.0, 599.0, 601.0, DAY_S])


@dataclass
class Running:
    permit: Permit
    since_s: float


class Limited(RuleBasedStateMachine):
    """One account with one meter and one purse."""

    @initialize(rpm=COUNT, rpd=st.sampled_from([0, 2, 6]), concurrency=COUNT, granted=st.integers(0, 6_000_000))
    def begin(self, rpm: int, rpd: int, concurrency: int, granted: int) -> None:
        self.clock = ManualClock()
        self.guard = LocalGuard(self.clock, LEASE_S, lambda: 0.0)
        self.limits = Limits(rpm, rpd, concurrency)
        self.purse = Purse("a", granted, 0)
        self.admitted: list[tuple[float, int]] = []  # when, and on which day
        self.running: list[Running] = []
        self.charged = 0
        self.count = 0

    @property
    def now_s(self) -> float:
        return self.clock.monotonic_s()

    @property
    def day(self) -> int:
        return int(self.clock.wall_s() // DAY_S)

    @property
    def held(self) -> int:
        return sum(each.permit.held_nanousd for each in self.running)

    @property
    def left(self) -> int:
        return self.purse.granted_nanousd - self.charged - self.held

    def expected(self, ask: Ask) -> str | tuple[int, int]:
        """The refusal, or how many tokens are allowed, and how many of them are held for at first."""
        limits = self.limits
        in_window = sum(when > self.now_s - WINDOW_S for when, _ in self.admitted)
        if limits.rpm and in_window >= limits.rpm:
            return "per minute"
        if limits.rpd and sum(day == self.day for _, day in self.admitted) >= limits.rpd:
            return "per day"
        alive = sum(each.since_s + LEASE_S > self.now_s for each in self.running)
        if limits.concurrency and alive >= limits.concurrency:
            return "same time"
        return self.affordable(ask, self.left)

    def affordable(self, ask: Ask, left: int) -> str | tuple[int, int]:
        tokens = ask.output_tokens
        if cost(ask, tokens):
            while tokens and cost(ask, tokens) > left:  # from above, as near as one token at a time
                tokens = (
                    min(tokens - 1, max(0, (left - ask.input_nanousd) * 1000 // ask.output_price + 1))
                    if (ask.output_price)
                    else 0
                )
            if tokens != ask.output_tokens and tokens < TOKENS_MIN:
                return "credit"
            if ask.slice_tokens:
                return tokens, min(tokens, ask.slice_tokens)
        return tokens, tokens

    @rule(ask=ASK)
    def ask(self, ask: Ask) -> None:
        expected = self.expected(ask)
        self.count += 1
        subject = Subject((Meter("a", self.limits),), (self.purse,))
        refusal: RateLimited | InsufficientCredit | None = None
        try:
            permit = self.guard.admit_now(f"r{self.count}", subject, ask, self.clock.wall_s())
        except (RateLimited, InsufficientCredit) as error:
            refusal = error
        if refusal is not None:
            assert isinstance(expected, str), f"refused ({refusal.message}) what is allowed: {expected}"
            assert expected in refusal.message.lower()
            if expected == "per minute":
                self.comes_free(refusal)
            return
        assert (permit.output_tokens, permit.held_tokens) == expected
        assert permit.held_nanousd == cost(ask, permit.held_tokens)
        self.admitted.append((self.now_s, self.day))
        self.running.append(Running(permit, self.now_s))

    def comes_free(self, refusal: GatewayError) -> None:
        """`Retry-After` is neither too early nor, but for rounding, too late."""
        assert refusal.retry_after_s is not None
        times = sorted(when for when, _ in self.admitted)
        assert abs(refusal.retry_after_s - (times[-self.limits.rpm] + WINDOW_S - self.now_s)) < 1e-6

    @precondition(lambda self: self.running)
    @rule(data=st.data(), part=st.floats(0, 1))
    def end(self, data: st.DataObject, part: float) -> None:
        each = self.running.pop(data.draw(st.integers(0, len(self.running) - 1)))
        charge = int(each.permit.held_nanousd * part)
        self.guard.settle(each.permit, NanoUSD(charge))
        self.charged += charge

    @precondition(lambda self: self.running)
    @rule(data=st.data(), tokens=st.integers(1, 500))
    def hold_on(self, data: st.DataObject, tokens: int) -> None:
        permit = data.draw(st.sampled_from(self.running)).permit
        wanted = min(permit.held_tokens + tokens, permit.output_tokens)
        more = cost(permit.ask, wanted) - permit.held_nanousd
        before, refused = (permit.held_tokens, permit.held_nanousd), list[bool]()
        left = self.left
        self.guard.extend(permit, tokens, lambda: refused.append(True))
        assert bool(refused) == (more > left)
        if refused:
            assert (permit.held_tokens, permit.held_nanousd) == before
        elif more:
            assert (permit.held_tokens, permit.held_nanousd) == (wanted, cost(permit.ask, wanted))

    @precondition(lambda self: self.running)
    @rule(data=st.data(), ask=ASK)
    def change(self, data: st.DataObject, ask: Ask) -> None:
        permit = data.draw(st.sampled_from(self.running)).permit
        before, expected = permit.held_nanousd, self.affordable(ask, self.left + permit.held_nanousd)
        try:
            at_once(self.guard.rehold(permit, ask))
        except InsufficientCredit:
            assert expected == "credit"
            assert permit.held_nanousd == before
        else:
            assert (permit.output_tokens, permit.held_tokens) == expected
            assert permit.held_nanousd == cost(ask, permit.held_tokens)

    @rule(seconds=WAIT_S)
    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule(amount=st.integers(1, 3_000_000))
    def top_up(self, amount: int) -> None:
        self.purse.granted_nanousd += amount

    @invariant()
    def nobody_spends_what_is_not_there(self) -> None:
        if hasattr(self, "guard"):
            assert self.left >= 0
            money = self.guard._purses.get("a")
            assert money is None or (money.held_nanousd, money.charged_nanousd) == (self.held, self.charged)

    @invariant()
    def no_minute_has_more_than_its_limit(self) -> None:
        if hasattr(self, "guard") and self.limits.rpm:
            times = [when for when, _ in self.admitted]
            assert all(
                sum(when < later <= when + WINDOW_S - 1e-9 for later in times) < self.limits.rpm for when in times
            )


def cost(ask: Ask, tokens: int) -> int:
    """Nano-dollars, rounded up."""
    return ask.input_nanousd + -(-tokens * ask.output_price // 1000)


def at_once(call: object) -> None:
    """Run a coroutine that waits for nothing."""
    try:
        call.send(None)  # type: ignore[attr-defined]
    except StopIteration:
        return
    raise AssertionError("it waits")


TestLimited = Limited.TestCase
TestLimited.settings = settings(deadline=None, max_examples=150, stateful_step_count=40)

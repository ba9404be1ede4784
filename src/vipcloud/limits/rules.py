"""The arithmetic of admission, without clock or store: windows, days, leases, credit and caps.

Published limits are exact: never more than N in any 60 s, and never fewer than N when asked. A sliding log of the
times of admission is the only form that is both; a fixed window or GCRA admits up to 2 N around its edges.
"""

from collections import deque
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Final

from vipcloud.limits.caps import Caps
from vipcloud.money import NanoUSD, PicoUSDPerToken

WINDOW_S: Final = 60.0
DAY_S: Final = 86_400
OUTPUT_TOKENS_MIN: Final = 16  # an answer shorter than this is not worth charging for: 402 instead
DAYS_KEPT_MAX: Final = 70  # two months and some
JITTER_FRACTION: Final = 0.1  # of a wait, up to JITTER_S_MAX: those refused together do not come back together
JITTER_S_MAX: Final = 5.0
EPOCH = date(1970, 1, 1)


@dataclass(frozen=True, slots=True)
class Limits:
    """What one subject may do. 0 means no limit."""

    rpm: int = 0
    rpd: int = 0
    concurrency: int = 0


NO_LIMITS: Final = Limits()


@dataclass(frozen=True, slots=True)
class Meter:
    """Something that is counted, and its limits. `whose` ends a refusal's sentence: ` for this key`."""

    id: str
    limits: Limits
    whose: str = ""


class Ask:
    """What a request may cost at most: its input, and its output per token up to `output_tokens`.

    With `slice_tokens` only so many tokens of output are held for at first; `Guard.extend` holds for more.
    """

    def __init__(
        self, input_nanousd: NanoUSD, output_price: PicoUSDPerToken, output_tokens: int, slice_tokens: int = 0
    ) -> None:
        self.input_nanousd = input_nanousd
        self.output_price = output_price
        self.output_tokens = output_tokens
        self.slice_tokens = slice_tokens

    def hold(self, output_tokens: int) -> NanoUSD:
        """The ceiling for an answer of up to `output_tokens`, rounded up."""
        return NanoUSD(self.input_nanousd + (output_tokens * self.output_price + 999) // 1000)

    def first(self, output_tokens: int) -> int:
        """How many of `output_tokens` are held for at first."""
        slice_tokens = self.slice_tokens
        return slice_tokens if 0 < slice_tokens < output_tokens else output_tokens


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a caller stands with its limits: of all meters, the one with the fewest requests left. Limit 0: none."""

    limit: int = 0
    remaining: int = 0
    reset_s: float = 0.0
    day_limit: int = 0
    day_remaining: int = 0


NO_STANDING: Final = Standing()


@dataclass(slots=True)
class MeterState:
    """What the guard counts of one subject. Times are in the monotonic clock's seconds.

    Days are counted each by itself: a wall clock that jumps to another day and back finds its counts unchanged.
    """

    admitted: deque[float] = field(default_factory=deque)  # within the window, oldest first
    days: dict[int, int] = field(default_factory=dict)  # UTC day since 1970 → requests
    leases: dict[str, float] = field(default_factory=dict)  # request id → when it lapses

    def forget_old(self, now_s: float) -> None:
        """Drop what has left the window."""
        admitted = self.admitted
        oldest_kept = now_s - WINDOW_S
        while admitted and admitted[0] <= oldest_kept:
            admitted.popleft()

    def slot_s(self, limit: int, now_s: float) -> float:
        """Seconds until fewer than `limit` are in the window. There may be more than that: limits can be lowered."""
        return max(0.0, self.admitted[len(self.admitted) - limit] + WINDOW_S - now_s)

    def forget_lapsed(self, now_s: float) -> None:
        """Take back the leases of requests that never ended."""
        for request_id in [request_id for request_id, lapses in self.leases.items() if lapses <= now_s]:
            del self.leases[request_id]

    def idle(self, now_s: float, day: int) -> bool:
        """Whether nothing would be lost with it."""
        self.forget_old(now_s)
        return not self.admitted and not self.leases and not any(known >= day - 1 for known in self.days)


@dataclass(slots=True)
class PurseState:
    """What the guard knows of the money of an account or a key. `spent`: UTC day since 1970 → charges."""

    charged_nanousd: int = 0  # ever
    held_nanousd: int = 0
    spent: dict[int, int] = field(default_factory=dict)

    def open_day(self, day: int, amount: int) -> None:
        """The first charge of a day."""
        spent = self.spent
        spent[day] = amount
        if len(spent) > DAYS_KEPT_MAX:
            del spent[max(spent, key=lambda known: abs(known - day))]

    def left(self, granted_nanousd: int, caps: Caps | None, day: int) -> int:
        """What may still be held. A hold counts on every day that it lasts, its charge on the day it began."""
        left = granted_nanousd - self.charged_nanousd
        if caps is not None:
            if caps.total_nanousd is not None:
                left = min(left, caps.total_nanousd - self.charged_nanousd)
            if caps.daily_nanousd is not None:
                left = min(left, caps.daily_nanousd - self.spent.get(day, 0))
            if caps.monthly_nanousd is not None:
                first, last = month(day)
                spent = sum(amount for known, amount in self.spent.items() if first <= known <= last)
                left = min(left, caps.monthly_nanousd - spent)
        return left - self.held_nanousd


def affordable_tokens(ask: Ask, credit: int) -> int:
    """How many output tokens `credit` nano-dollars cover beside the input, up to what is asked; 0 if too few."""
    if ask.hold(ask.output_tokens) <= credit:
        return ask.output_tokens
    if ask.output_price == 0:
        return 0
    tokens = (credit - ask.input_nanousd) * 1000 // ask.output_price
    return tokens if tokens >= OUTPUT_TOKENS_MIN else 0


def month(day: int) -> tuple[int, int]:
    """The first and last day of the calendar month that `day` lies in, as days since 1970."""
    first = (EPOCH + timedelta(days=day)).replace(day=1)
    following = (first + timedelta(days=31)).replace(day=1)
    return (first - EPOCH).days, (following - EPOCH).days - 1


def seconds_to_midnight(wall_s: float) -> float:
    """Seconds until the next UTC day."""
    return DAY_S - wall_s % DAY_S


def jittered(wait_s: float, chance: float) -> float:
    """`wait_s` and a little more, by `chance` in [0, 1); within the minute that SDKs wait at the most, if it was."""
    longer = wait_s + chance * min(wait_s * JITTER_FRACTION, JITTER_S_MAX)
    return longer if wait_s > WINDOW_S else min(longer, WINDOW_S)


def whole_seconds(seconds: float) -> bytes:
    """OpenAI's form of a duration in `x-ratelimit-reset-*`, rounded up to a second: `8s`, `1m0s`, `23h59m59s`."""
    whole = -int(-seconds // 1)
    return _DURATIONS[whole] if whole < len(_DURATIONS) else _long(whole)


def _long(whole: int) -> bytes:
    hours, minutes = divmod(whole // 60, 60)
    return b"%b%dm%ds" % (b"%dh" % hours if hours else b"", minutes, whole % 60)


_DURATIONS: Final = [b"%ds" % second for second in range(60)] + [b"1m0s"]

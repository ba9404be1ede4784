"""The arithmetic of admission, without clock or store: windows, days, leases, credit.

Published limits are exact: never more than N in any 60 s, and never fewer than N when asked. A sliding log of the
times of admission is the only form that is both; a fixed window or GCRA admits up to 2 N around its edges.
"""

from collections import deque
from dataclasses import dataclass, field

from msgspec import Struct

from vipcloud.money import NanoUSD, PicoUSDPerToken

WINDOW_S = 60.0
DAY_S = 86_400
OUTPUT_TOKENS_MIN = 16  # an answer shorter than this is not worth charging for: 402 instead


class Limits(Struct, frozen=True, gc=False):
    """What one account may do. 0 means no limit."""

    rpm: int
    rpd: int
    concurrency: int


class Ask(Struct, frozen=True, gc=False):
    """What a request may cost at most: its input, and its output per token up to `output_tokens`."""

    input_nanousd: NanoUSD
    output_price: PicoUSDPerToken
    output_tokens: int

    def hold(self, output_tokens: int) -> NanoUSD:
        """The ceiling for an answer of up to `output_tokens`, rounded up."""
        return NanoUSD(self.input_nanousd - (-output_tokens * self.output_price // 1000))


@dataclass(slots=True)
class AccountState:
    """What the guard knows of one account. Times are in the monotonic clock's seconds."""

    admitted: deque[float] = field(default_factory=deque)  # within the window, oldest first
    day: int = 0
    day_count: int = 0
    leases: dict[str, float] = field(default_factory=dict)  # request id → when it lapses
    held_nanousd: int = 0
    charged_nanousd: int = 0  # since the store's sums were read

    def forget_old(self, now_s: float) -> None:
        """Drop what has left the window."""
        admitted = self.admitted
        oldest_kept = now_s - WINDOW_S
        while admitted and admitted[0] <= oldest_kept:
            admitted.popleft()

    def next_slot_s(self, now_s: float) -> float:
        """Seconds until the oldest admission leaves the window."""
        return max(0.0, self.admitted[0] + WINDOW_S - now_s) if self.admitted else 0.0

    def forget_lapsed(self, now_s: float) -> None:
        """Take back the leases of requests that never ended."""
        for request_id in [request_id for request_id, lapses in self.leases.items() if lapses <= now_s]:
            del self.leases[request_id]


def affordable_tokens(ask: Ask, credit: int) -> int:
    """How many output tokens `credit` nano-dollars cover beside the input, up to what is asked; 0 if too few."""
    if ask.hold(ask.output_tokens) <= credit:
        return ask.output_tokens
    if ask.output_price == 0:
        return 0
    tokens = (credit - ask.input_nanousd) * 1000 // ask.output_price
    return tokens if tokens >= OUTPUT_TOKENS_MIN else 0


def seconds_to_midnight(wall_s: float) -> float:
    """Seconds until the next UTC day."""
    return DAY_S - wall_s % DAY_S


def whole_seconds(seconds: float) -> str:
    """OpenAI's form of a duration in `x-ratelimit-reset-*`, rounded up to a second: `8s`, `1m0s`."""
    whole = -int(-seconds // 1)
    return _DURATIONS[whole] if whole < len(_DURATIONS) else f"{whole // 60}m{whole % 60}s"


_DURATIONS = [f"{second}s" for second in range(60)]

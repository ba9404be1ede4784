"""The guard's interface: one admission over rate, day count, concurrency, credit and caps, all or nothing.

`local.py` keeps it in this process's memory; an implementation on a shared store takes the same calls.
"""

from collections.abc import Callable
from typing import Final, NamedTuple, Protocol

from vipcloud.limits.caps import Caps
from vipcloud.limits.rules import Ask, Meter, Standing
from vipcloud.money import NanoUSD

NO_CREDIT_LIMIT: Final = 2**62  # what a key's purse is granted: its account's credit is the limit


class Purse:
    """The money of an account or a key as the store last told.

    `granted_nanousd` follows the store; `charged_nanousd` and `spent` (by UTC day since 1970, this month's at least)
    are what was booked when it was first read: who counts charges begins with them.
    """

    def __init__(
        self,
        id: str,  # noqa: A002
        granted_nanousd: int,
        charged_nanousd: int,
        caps: Caps | None = None,
        spent: dict[int, int] | None = None,
    ) -> None:
        self.id = id
        self.granted_nanousd = granted_nanousd
        self.charged_nanousd = charged_nanousd
        self.caps = caps
        self.spent = {} if spent is None else spent


class Booked(NamedTuple):
    """What the store says now of a purse's charges, in all and by day as in `Purse.spent`."""

    charged_nanousd: int
    spent: dict[int, int]


class Subject:
    """Who asks: everything it is counted by, and the purses that pay, the account's first. No purse: nothing to pay.

    `packed` is for a guard to keep how it sends a subject.
    """

    def __init__(self, meters: tuple[Meter, ...], purses: tuple[Purse, ...] = ()) -> None:
        self.meters = meters
        self.purses = purses
        self.packed = b""


class Permit:
    """An admission. It must be settled exactly once; `LocalGuard` asserts it."""

    def __init__(
        self,
        request_id: str,
        subject: Subject,
        ask: Ask,
        day: int,
        held_nanousd: NanoUSD,
        output_tokens: int,
        held_tokens: int,
        limit_requests: int = 0,
        remaining_requests: int = 0,
        reset_s: float = 0.0,
        day_limit: int = 0,
        day_remaining: int = 0,
    ) -> None:
        self.request_id = request_id
        self.subject = subject
        self.ask = ask
        self.day = day  # UTC, since 1970: what its charge counts in
        self.held_nanousd = held_nanousd
        self.output_tokens = output_tokens  # what the credit covers, at most what was asked for
        self.held_tokens = held_tokens  # how much of it is held for
        self.limit_requests = limit_requests  # 0: no limit
        self.remaining_requests = remaining_requests
        self.reset_s = reset_s  # until the next slot of the window is free
        self.day_limit = day_limit
        self.day_remaining = day_remaining
        self.settled = False


class Guard(Protocol):
    """`wall_s` is when the request began: its UTC day is what it counts in."""

    async def admit(self, request_id: str, subject: Subject, ask: Ask, wall_s: float) -> Permit:
        """Raises RateLimited, InsufficientCredit or BudgetExceeded, and Unavailable where credit cannot be checked.

        A refusal consumes nothing.
        """
        ...

    def extend(self, permit: Permit, tokens: int, refused: Callable[[], None]) -> None:
        """Hold for `tokens` more of the permit's output; `refused` is called, now or later, if no credit is left.

        If that cannot be told, nothing is called and the permit stays as it is: ask again. What more is held shows in
        the permit.
        """
        ...

    async def rehold(self, permit: Permit, ask: Ask) -> None:
        """Hold for `ask` in place of what the permit holds for; it stays the one request that was admitted.

        Raises InsufficientCredit, BudgetExceeded or Unavailable; then the permit is as it was.
        """
        ...

    def settle(self, permit: Permit, charge: NanoUSD) -> None:
        """Free the slot and the hold, and take `charge` (at most the hold) from the credit."""
        ...

    @property
    def degraded(self) -> str:
        """Why limits are not the published ones at present; empty while they are."""
        ...

    async def run(self) -> None:
        """What the guard does beside admissions, for as long as the gateway runs."""
        ...

    async def ready(self) -> None:
        """Wait until the counts can be reached, but not for long."""
        ...

    async def flushed(self) -> None:
        """Wait until what was settled and extended is known where the counts are kept."""
        ...

    async def standing(self, subject: Subject, wall_s: float) -> Standing:
        """How much of the limits is left; consumes nothing."""
        ...

"""The guard's interface: one admission over rate, day count, concurrency and credit, all or nothing.

`local.py` keeps it in this process's memory; an implementation on a shared store takes the same calls.
"""

from typing import Protocol

from msgspec import Struct

from vipcloud.limits.rules import Ask, Limits
from vipcloud.money import NanoUSD


class Permit(Struct, gc=False):
    """An admission. It must be settled exactly once; `LocalGuard` asserts it."""

    request_id: str
    account_id: str
    held_nanousd: NanoUSD
    output_tokens: int  # what the credit covers, at most what was asked for
    limit_requests: int  # 0: no limit
    remaining_requests: int
    reset_s: float  # until the next slot of the window is free
    settled: bool = False


class Payer(Protocol):
    """An account's money as the store last told: what was granted, and what had been charged when it was first read."""

    @property
    def id(self) -> str: ...
    @property
    def granted_nanousd(self) -> int: ...
    @property
    def charged_nanousd(self) -> int: ...


class Guard(Protocol):
    async def admit(self, request_id: str, payer: Payer, limits: Limits, ask: Ask) -> Permit:
        """Raises RateLimited or InsufficientCredit; a refusal consumes nothing."""
        ...

    def settle(self, permit: Permit, charge: NanoUSD) -> None:
        """Free the slot and the hold, and take `charge` (at most the hold) from the credit."""
        ...

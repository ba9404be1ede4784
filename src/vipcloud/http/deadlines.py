"""Coarse timers: one timer of the loop serves every connection, and setting a deadline is one attribute write.

A timer per request costs as much as the rest of its bookkeeping; a sweep over ten thousand connections four times a
second costs a few milliseconds. A deadline is therefore late by up to `interval_s`, never early.
"""

import asyncio
from collections.abc import Callable, Iterator
from typing import Final, Protocol

NEVER: Final = float("inf")


class Expiring(Protocol):
    """`deadline` is in the loop's time; NEVER while nothing is awaited. `expire` is called once it has passed."""

    deadline: float

    def expire(self, now: float) -> None: ...


class Deadlines:
    """Calls `expire` of each member whose deadline has passed. A member that stays must move its own deadline."""

    def __init__(self, interval_s: float = 0.25) -> None:
        self._interval_s = interval_s
        self._members: set[Expiring] = set()
        self._timer: asyncio.TimerHandle | None = None
        self.discard: Callable[[Expiring], None] = self._members.discard

    def __len__(self) -> int:
        return len(self._members)

    def __iter__(self) -> Iterator[Expiring]:
        return iter(self._members)

    def add(self, member: Expiring) -> None:
        self._members.add(member)
        if self._timer is None:
            self._schedule()

    def close(self) -> None:
        self._members.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _schedule(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._interval_s, self._sweep)

    def _sweep(self) -> None:
        if not self._members:
            self._timer = None
            return
        self._schedule()
        now = asyncio.get_running_loop().time()
        for member in [member for member in self._members if member.deadline <= now]:
            if member.deadline <= now:  # an earlier one may have ended it
                member.expire(now)

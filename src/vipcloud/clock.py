"""Time as an argument: code that needs the hour or an interval takes a `Clock`, so a test can replay it."""

import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """`wall_s` is seconds since 1970 in UTC; `monotonic_s` never steps back and means nothing by itself."""

    def wall_s(self) -> float: ...
    def monotonic_s(self) -> float: ...


class SystemClock:
    """The machine's own time."""

    wall_s = staticmethod(time.time)
    monotonic_s = staticmethod(time.monotonic)


class ManualClock:
    """A clock that moves when told to."""

    def __init__(self, wall_s: float = 1_795_000_000.0) -> None:
        self._wall_s = wall_s
        self._monotonic_s = 0.0

    def wall_s(self) -> float:
        return self._wall_s

    def monotonic_s(self) -> float:
        return self._monotonic_s

    def advance(self, seconds: float) -> None:
        self._wall_s += seconds
        self._monotonic_s += seconds


def rfc3339(wall_s: float) -> str:
    """Seconds since 1970 → `2026-11-24T02:33:00Z`."""
    return datetime.fromtimestamp(int(wall_s), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

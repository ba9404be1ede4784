"""How far each stream is, noted in the journal a few times a second: should the process die, that is what it costs.

Nothing is done per chunk. What moved is told by the counters that the translators keep anyway, and all streams that
did go out in one write. There is no timer while no stream is open.
"""

import asyncio
from typing import Protocol

from vipcloud.ledger.journal import Journal, JournalError
from vipcloud.ledger.records import REACHED_PER_RECORD, Progress, Reached


class Moving(Protocol):
    """`events` grows with what was delivered; `reached` counts what that is."""

    @property
    def events(self) -> int: ...
    def reached(self) -> Reached | None: ...


class ProgressNotes:
    """Belongs to one event loop."""

    def __init__(self, journal: Journal, interval_s: float) -> None:
        self._journal = journal
        self._interval_s = interval_s
        self._open: dict[Moving, int] = {}  # with the events at the last note
        self._timer: asyncio.TimerHandle | None = None

    def add(self, stream: Moving) -> None:
        self._open[stream] = 0
        if self._timer is None:
            self._schedule()

    def __len__(self) -> int:
        return len(self._open)

    def discard(self, stream: Moving) -> None:
        self._open.pop(stream, None)

    def close(self) -> None:
        self._open.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def note(self) -> None:
        """Write down every stream that has moved since the last time."""
        moved = [(stream, events) for stream, before in self._open.items() if (events := stream.events) != before]
        reached = [point for stream, _ in moved if (point := stream.reached()) is not None]
        try:
            for start in range(0, len(reached), REACHED_PER_RECORD):
                self._journal.append(Progress(reached[start : start + REACHED_PER_RECORD]))
        except JournalError:
            return  # it says so itself; the next note tells all that this one would have told
        self._open.update(moved)

    def _schedule(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._interval_s, self._tick)

    def _tick(self) -> None:
        if not self._open:
            self._timer = None
            return
        self._schedule()
        self.note()

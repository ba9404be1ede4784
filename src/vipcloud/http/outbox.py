"""What is sent in one turn of the event loop goes out together, at its end.

A send that wakes a sleeping peer costs the sender most of a send. Handed to the kernel one by one, with the work for
the next request between, every one of them finds its peer asleep again; in one burst only the first does (measured by
`make bench`: a fifth of a request's CPU time). And what must be on record before its answer leaves, such as the
journal's lines, can be written once for the whole burst, by `first`.
"""

import asyncio
from collections.abc import Callable


class Outbox:
    """Belongs to one event loop; a server and a client of that loop had better share it."""

    __slots__ = ("_first", "_scheduled", "_sends")

    def __init__(self) -> None:
        self._scheduled = False
        self._first: list[Callable[[], None]] = []
        self._sends: list[tuple[asyncio.Transport, bytes]] = []

    def send(self, transport: asyncio.Transport, data: bytes) -> None:
        """Write `data` to `transport` at the end of this turn. What is no longer open by then gets nothing."""
        self._sends.append((transport, data))
        if not self._scheduled:
            self._schedule()

    def first(self, callback: Callable[[], None]) -> None:
        """Call `callback` before anything that this turn sends goes out."""
        self._first.append(callback)
        if not self._scheduled:
            self._schedule()

    def flush(self) -> None:
        """Send now what waits: before a transport is closed, or asked how much it holds.

        Should one of them raise, the rest goes out with the next turn: a fault of one connection is nobody else's.
        """
        while self._first:
            self._first.pop(0)()
        sends = self._sends
        if sends:
            self._sends = []
            begun = 0
            try:
                for transport, data in sends:
                    begun += 1
                    if not transport.is_closing():
                        transport.write(data)
            finally:
                if begun < len(sends):
                    self._sends[:0] = sends[begun:]

    def _schedule(self) -> None:
        self._scheduled = True
        asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        self._scheduled = False
        try:
            self.flush()
        finally:
            if (self._first or self._sends) and not self._scheduled:
                self._schedule()

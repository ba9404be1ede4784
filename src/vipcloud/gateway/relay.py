"""Moves one answer from an upstream to the client; the deciding is in `providers.stream` and `providers.reply`.

A stream is relayed inside the upstream's read callback: one read, one `feed`, one write, no task switch. A client that
reads slowly pauses the reading of its upstream; its own time limit ends a stall, and the total one a stream that is
only slow. Only events that carry data move the idle time-out, and none before the first token: an upstream's
keep-alives do not.
"""

import asyncio
from typing import Final

from vipcloud.errors import GatewayError, UpstreamFailed, UpstreamInterrupted, UpstreamTimeout
from vipcloud.gateway.bill import Bill
from vipcloud.gateway.call import Call
from vipcloud.http.client import ClientError, Response, ResponseInvalid, TimedOut
from vipcloud.providers import stream
from vipcloud.providers.stream import StreamTranslator

USAGE_GRACE_S: Final = 2.0  # after the finish reason, how long a late usage chunk or `[DONE]` is waited for


class StreamRelay:
    """One upstream stream on its way to one client. `total_deadline` is in the loop's time."""

    __slots__ = (
        "_bill",
        "_call",
        "_events",
        "_exchange",
        "_idle_s",
        "_now",
        "_ping_s",
        "_response",
        "_total_deadline",
        "_translator",
    )

    def __init__(
        self,
        call: Call,
        bill: Bill,
        response: Response,
        translator: StreamTranslator,
        *,
        idle_s: float,
        ping_s: float,
        total_deadline: float,
    ) -> None:
        self._call = call
        self._bill = bill
        self._response = response
        self._translator = translator
        self._idle_s = idle_s
        self._ping_s = ping_s
        self._total_deadline = total_deadline
        self._events = 0
        self._exchange = call.exchange
        self._now = asyncio.get_running_loop().time

    @property
    def kept(self) -> bytes:
        """Of the answer, what has not been sent on: nothing."""
        return b""

    @property
    def _whole(self) -> bool:
        return self._translator.finished

    async def run(self) -> GatewayError | None:
        """Relay until the upstream has said all; None, or why it did not. Nothing final has been sent yet.

        No ClientError comes out of it: whatever became of the connection is told in the return value.
        """
        response, translator = self._response, self._translator
        response.total_deadline = self._total_deadline
        self._exchange.throttle(response.pause, response.resume)
        cut: ClientError | None = None
        try:
            await response.pipe(self._feed)
            if not translator.complete and translator.failure is None and (last := translator.eof()):
                self._send(last)
        except ClientError as error:
            cut = error
        if translator.failure is not None and cut is None:
            return translator.failure
        if self._whole:
            return None  # whole, whatever became of the connection after it
        if isinstance(cut, TimedOut):
            return UpstreamTimeout(f"The provider's stream took too long ({cut.phase.replace('_', ' ')}).")
        if translator.started:
            return UpstreamInterrupted(stream.INTERRUPTED)
        return UpstreamFailed("The provider's stream broke off before it had said anything.")

    def _feed(self, data: bytes) -> None:
        translator = self._translator
        out = translator.feed(data)
        if translator.data_events != self._events and (translator.started or translator.finished or translator.working):
            self._events = translator.data_events
            now = self._now()
            self._call.deadline = now + self._ping_s
            idle_deadline = now + self._idle_s
            if idle_deadline < self._total_deadline and not translator.finished:
                self._response.expect(idle_deadline, "idle")
            else:
                self._expect_end(now)
        if out:
            self._send(out)
        if translator.failure is not None or translator.complete:
            self._response.stop()

    def _send(self, out: bytes) -> None:
        bill = self._bill
        if bill.first_token_s is not None:
            self._exchange.write(out)
            return
        if not self._exchange.started:
            now_s = bill.parts.clock.monotonic_s()
            self._call.timed(bill.opened_s, now_s, now_s)
        self._call.send_part(out)
        bill.note_first_token()

    def _expect_end(self, now: float) -> None:
        if self._translator.finished:
            self._response.expect(now + USAGE_GRACE_S, "idle")
        else:
            self._response.expect(self._total_deadline, "total")


class BufferingRelay(StreamRelay):
    """Keeps an answer, up to `bytes_max`, until it is whole, so that another can take its place.

    The client gets signs of life meanwhile.
    """

    __slots__ = ("_bytes_left", "_parts")

    def __init__(
        self,
        call: Call,
        bill: Bill,
        response: Response,
        translator: StreamTranslator,
        *,
        idle_s: float,
        ping_s: float,
        total_deadline: float,
        bytes_max: int,
    ) -> None:
        super().__init__(call, bill, response, translator, idle_s=idle_s, ping_s=ping_s, total_deadline=total_deadline)
        self._parts: list[bytes] = []
        self._bytes_left = bytes_max

    @property
    def kept(self) -> bytes:
        """All of the answer but its end."""
        return b"".join(self._parts)

    @property
    def _whole(self) -> bool:
        """An answer that could not be kept to its end lacks it, whatever its upstream has said."""
        return self._translator.finished and self._bytes_left >= 0

    def _feed(self, data: bytes) -> None:
        ping_due = self._call.deadline
        super()._feed(data)
        self._call.deadline = ping_due

    def _send(self, out: bytes) -> None:
        self._bytes_left -= len(out)
        if self._bytes_left < 0:
            raise ResponseInvalid("the answer is too large to be kept")
        self._parts.append(out)

"""Server-sent events from bytes. Sans I/O; knows nothing of what the events say.

Theory of operation. Line ends are made LF as bytes come in, so an event is what stands between blank lines and one
split finds all of them. What follows the last blank line waits for more, as a list of pieces: an event that arrives in
a thousand reads is joined once. Nearly every event is a single `data: …` line and costs one slice.

More tolerant than the standard in two ways, because upstreams are: a byte order mark is skipped at the start of any
event, and a line that begins with `{` is taken as data (MiniMax has sent an error as a bare JSON line). At the end of
the stream the standard drops an event that no blank line closed; `at_end` hands it out and lets the caller judge.

Source: html.spec.whatwg.org/multipage/server-sent-events.html, seen 2026-11.
"""

from typing import Final, NamedTuple

BOM: Final = b"\xef\xbb\xbf"
_CR: Final = 0x0D  # as numbers: to look for `bytes` in `bytes`, CPython first raises and catches a TypeError
_LF: Final = 0x0A


class StreamTooLarge(Exception):
    """A single event is larger than the limit."""

    def __init__(self, event_bytes_max: int) -> None:
        super().__init__(f"an event is larger than {event_bytes_max} bytes")
        self.event_bytes_max = event_bytes_max


class NamedEvent(NamedTuple):
    """An event with an `event:` field other than the default `message`."""

    name: str
    data: bytes


Event = bytes | NamedEvent  # bytes: the data of an event without a name


class SSEDecoder:
    """Bytes cut anywhere in, events out. `event_bytes_max` bounds one event with its blank line, and what is kept."""

    __slots__ = ("_after_cr", "_event_bytes_max", "_tail", "_tail_bytes")

    def __init__(self, event_bytes_max: int) -> None:
        self._event_bytes_max = event_bytes_max
        self._tail: list[bytes] = []
        self._tail_bytes = 0
        self._after_cr = False  # the last byte was a CR: an LF that follows belongs to it

    def feed(self, data: bytes) -> list[Event]:
        """Events completed by `data`. Raises StreamTooLarge; the decoder is of no use afterwards."""
        if self._after_cr or _CR in data:
            data = self._with_line_feeds(data)
        if self._tail:
            if data.find(b"\n\n") < 0 and not (data[:1] == b"\n" and self._tail[-1][-1:] == b"\n"):
                self._keep(data)
                return []
            data = b"".join((*self._tail, data))
            self._tail.clear()
            self._tail_bytes = 0
        elif data.startswith(b"data: ") and data.endswith(b"\n\n") and _LF not in (event := data[6:-2]):
            # The usual case: this read is one whole event of one line.
            if len(data) > self._event_bytes_max:
                raise StreamTooLarge(self._event_bytes_max)
            return [event]
        blocks = data.split(b"\n\n")
        self._keep(blocks.pop())
        if len(data) > self._event_bytes_max and any(len(block) + 2 > self._event_bytes_max for block in blocks):
            raise StreamTooLarge(self._event_bytes_max)
        return _events(blocks)

    def at_end(self) -> list[Event]:
        """What the stream left unterminated, as the event it would have been; nothing if there is none.

        The bytes may be half of one, so the caller takes them only if they make sense whole.
        """
        tail = b"".join(self._tail)
        self._tail.clear()
        self._tail_bytes = 0
        return _events([tail])

    def _keep(self, data: bytes) -> None:
        if not data:
            return
        self._tail.append(data)
        self._tail_bytes += len(data)
        if self._tail_bytes >= self._event_bytes_max:  # the blank line, or its other half, is still to come
            raise StreamTooLarge(self._event_bytes_max)

    def _with_line_feeds(self, data: bytes) -> bytes:
        if not data:
            return data
        if self._after_cr and data[:1] == b"\n":
            data = data[1:]
        self._after_cr = data[-1:] == b"\r"
        return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


def _events(blocks: list[bytes]) -> list[Event]:
    events: list[Event] = []
    for block in blocks:
        if block.startswith(b"data: ") and _LF not in block:
            events.append(block[6:])
        elif block and (event := _event(block)) is not None:
            events.append(event)
    return events


def _event(block: bytes) -> Event | None:
    """The event of one block of lines; None if it has no data, such as a comment."""
    lines: list[bytes] = []
    name = b""
    for line in block.removeprefix(BOM).split(b"\n"):
        field, _, value = line.partition(b":")
        if field == b"data":
            lines.append(value.removeprefix(b" "))
        elif field == b"event":
            name = value.removeprefix(b" ")
        elif line[:1] == b"{":
            lines.append(line)
    if not lines:
        return None
    data = b"\n".join(lines)
    return data if name in {b"", b"message"} else NamedEvent(name.decode("utf-8", "replace"), data)

"""Heads that have come before, so that they need not be parsed again.

`RequestHead` is one of requests, `AnswerShape` what those of an upstream's answers have in common. A client sends the
same head with each of its requests, but for the length of the body. An upstream sends the same one with each of its
answers, but for that length and the values of a few headers: the date, a request's id. What llhttp finds in a head
depends on its bytes alone where a connection waits for one; so where the bytes are the same but for those, comparing
them takes the place of a callback for each line (measured by `make bench`).

Nothing here judges what llhttp has not judged: all but those values is, byte for byte, what it took for good just so.
Nor do they say how a message is framed. The Content-Length is of few digits, and all of the body has to be there, and
nothing else; any other value is of visible ASCII and spaces, on one line, and of a header that means nothing to the
framing. What does not fit is parsed.
"""

from typing import Final

HEAD_BYTES_MAX: Final = 4096
LENGTH_DIGITS_MAX: Final = 8
_END: Final = b"\r\n\r\n"
_LINE_END: Final = b"\r\n"
_SPELLINGS: Final = (b"\r\nContent-Length: ", b"\r\ncontent-length: ")  # of SDKs: Python and Go, Node
_SPELLING_BYTES: Final = 18
_FRAMING: Final = frozenset((b"connection", b"proxy-connection", b"transfer-encoding", b"upgrade"))
# The very objects by which compiled modules look them up: where a key is identical, none is compared.
_NAMES: Final = {name: name for name in (b"authorization", b"content-length", b"content-type")}
_ZERO: Final = 0x30
_NINE: Final = 0x39
_SPACE: Final = 0x20
_TILDE: Final = 0x7E


class RequestHead:
    """What the parser has found in a head: `before` the digits of the Content-Length, and `after` them.

    `note` is the application's: what it has found in all requests of this head.
    """

    def __init__(self, before: bytes, after: bytes, method: str, target: bytes, headers: dict[bytes, bytes]) -> None:
        self.before = before
        self.after = after
        self.method = method
        self.target = target
        self.headers = {_NAMES.get(name, name): value for name, value in headers.items()}
        self.note: object = None

    def begins(self, data: bytes) -> int:
        """How long the head is if `data` is it and exactly the body that it tells of; else 0."""
        if not data.startswith(self.before):
            return 0
        begin = len(self.before)
        at = _digits_end(data, begin)
        size = at + len(self.after)
        if at == begin or data[at:size] != self.after:
            return 0
        if size + _number(data, begin, at) != len(data):
            return 0
        return size

    def headers_with(self, body_bytes: int) -> dict[bytes, bytes]:
        """What the parser would find in it with a body of that length behind it."""
        headers = self.headers.copy()
        headers[b"content-length"] = b"%d" % body_bytes
        return headers


def cut(data: bytes) -> tuple[bytes, bytes] | None:
    """A head, as that a `RequestHead` could be made of it: what is before its Content-Length's digits, and what after.

    None if there is no whole one, or none of a usual spelling.
    """
    end = data.find(_END, 0, HEAD_BYTES_MAX)
    for spelling in _SPELLINGS:
        at = data.find(spelling, 0, end) if end >= 0 else -1
        if at >= 0:
            begin = at + _SPELLING_BYTES
            line_end = data.find(_LINE_END, begin, end + 2)
            return data[:begin], data[line_end : end + 4]
    return None


class AnswerShape:
    """What the heads of an origin's answers have in common: `parts`, between each two of which stands a value."""

    def __init__(self, parts: list[bytes], length_at: int) -> None:
        self.parts = parts
        self.length_at = length_at  # before which of the parts the Content-Length stands

    def begins(self, data: bytes) -> int:
        """How long the head is if `data` is one of this shape and exactly the body that it tells of; else 0."""
        at = size = 0
        for count, part in enumerate(self.parts):
            if count == self.length_at:
                begin, at = at, _digits_end(data, at)
                if at == begin:
                    return 0
                size = _number(data, begin, at)
            elif count:
                at = _value_end(data, at)
            end = at + len(part)
            if data[at:end] != part:
                return 0
            at = end
        return at if at + size == len(data) else 0


class Shaper:
    """Finds the shape of an origin's answers of status 200 from those that were parsed; None as long as there is none.

    Lines that have once differed may differ from then on. Another set of lines begins anew.
    """

    def __init__(self) -> None:
        self.shape: AnswerShape | None = None
        self._lines: list[bytes] = []
        self._varying: set[int] = set()  # which of the lines have a value of their own in each answer

    def learn(self, head: bytes) -> None:
        """Take note of a head without its blank line, behind which exactly the body came that it tells of."""
        lines = head.split(_LINE_END)
        if len(lines) != len(self._lines):
            self._varying.clear()
        else:
            for at, line in enumerate(lines):
                former = self._lines[at]
                if line != former:
                    if _name(line) != _name(former):
                        self._varying.clear()
                        break
                    self._varying.add(at)
        self._lines = lines
        self.shape = self._shape() if head.startswith(b"HTTP/1.1 200") and len(head) <= HEAD_BYTES_MAX else None

    def _shape(self) -> AnswerShape | None:
        parts: list[bytes] = []
        length_at = 0
        part = self._lines[0]
        for at, line in enumerate(self._lines[1:], 1):
            name = _name(line)
            lowered = name.lower()
            if lowered == b"content-length":
                if length_at:
                    return None
                length_at = len(parts) + 1
            elif not name or lowered in _FRAMING or at not in self._varying:
                part += _LINE_END + line
                continue
            parts.append(b"%b\r\n%b: " % (part, name))
            part = b""
        parts.append(part + _END)
        return AnswerShape(parts, length_at) if length_at else None


def _name(line: bytes) -> bytes:
    """Of a header line in the usual spelling; empty of any other line."""
    name, separator, _ = line.partition(b": ")
    return name if separator else b""


def _digits_end(data: bytes, at: int) -> int:
    """Where the digits end that begin `at`, or the most that are looked at."""
    end = min(len(data), at + LENGTH_DIGITS_MAX)
    while at < end and _ZERO <= data[at] <= _NINE:
        at += 1
    return at


def _number(data: bytes, begin: int, end: int) -> int:
    """What the digits say that stand there."""
    number = 0
    for at in range(begin, end):
        number = number * 10 + data[at] - _ZERO
    return number


def _value_end(data: bytes, at: int) -> int:
    """Where the visible ASCII and the spaces end that begin `at`."""
    end = len(data)
    while at < end and _SPACE <= data[at] <= _TILDE:
        at += 1
    return at

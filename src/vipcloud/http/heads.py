"""The head of a request that has come before on its connection, so that it need not be parsed again.

A client sends the same head with each of its requests, but for the length of the body. What llhttp finds in a head
depends on its bytes alone where a connection waits for a request; so where the bytes are the same but for the digits of
the Content-Length, comparing them takes the place of a callback for each header line (measured by `make bench`).
"""

from typing import Final

HEAD_BYTES_MAX: Final = 4096
LENGTH_DIGITS_MAX: Final = 8
_END: Final = b"\r\n\r\n"
_LINE_END: Final = b"\r\n"
_SPELLINGS: Final = (b"\r\nContent-Length: ", b"\r\ncontent-length: ")  # of SDKs: Python and Go, Node
_SPELLING_BYTES: Final = 18


class Head:
    """What the parser has found in a head: `before` the digits of the Content-Length, and `after` them."""

    def __init__(self, before: bytes, after: bytes, method: str, target: bytes, headers: dict[bytes, bytes]) -> None:
        self.before = before
        self.after = after
        self.method = method
        self.target = target
        self.headers = headers
        self.length = b""  # the digits that `begins` has found

    def begins(self, buffer: bytearray, nbytes: int) -> int:
        """How long the head is if the first `nbytes` of `buffer` are it and exactly the body that it tells of; else 0.

        Behind them are bytes of former reads, so all that is found is only as good as the length that comes out.
        """
        if not buffer.startswith(self.before):
            return 0
        begin = len(self.before)
        line_end = buffer.find(_LINE_END, begin, begin + LENGTH_DIGITS_MAX + 2)
        if line_end < 0 or not buffer.startswith(self.after, line_end):
            return 0
        length = bytes(buffer[begin:line_end])
        size = line_end + len(self.after)
        if not length.isdigit() or size + int(length) != nbytes:
            return 0
        self.length = length
        return size

    def headers_now(self) -> dict[bytes, bytes]:
        """With the length that `begins` has found."""
        headers = self.headers.copy()
        headers[b"content-length"] = self.length
        return headers


def cut(buffer: bytearray, nbytes: int) -> tuple[bytes, bytes] | None:
    """A head, as that a `Head` could be made of it: what is before the digits of its Content-Length, and what after.

    None if there is no whole one, or none of a usual spelling.
    """
    end = buffer.find(_END, 0, min(nbytes, HEAD_BYTES_MAX))
    for spelling in _SPELLINGS:
        at = buffer.find(spelling, 0, end) if end >= 0 else -1
        if at >= 0:
            begin = at + _SPELLING_BYTES
            line_end = buffer.find(_LINE_END, begin, end + 2)
            return bytes(buffer[:begin]), bytes(buffer[line_end : end + 4])
    return None

"""Header blocks: bytes of whole `name: value` lines, built once and sent many times."""

from collections.abc import Iterable
from http import HTTPStatus
from typing import Final


class _StatusLines(dict[int, bytes]):
    def __missing__(self, status: int) -> bytes:
        return f"HTTP/1.1 {status} Unknown\r\n".encode()


STATUS_LINES: Final = _StatusLines(
    {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}
)
"""`200` → `b"HTTP/1.1 200 OK\\r\\n"`, for any status."""


def header_block(pairs: Iterable[tuple[str, str]]) -> bytes:
    """`[("a", "b")]` → `b"a: b\\r\\n"`. Raises ValueError on a line break or NUL: they would split the answer."""
    lines = []
    for name, value in pairs:
        if any(mark in name or mark in value for mark in ("\r", "\n", "\0")):
            raise ValueError(f"header {name!r} holds a control character")
        lines.append(f"{name}: {value}\r\n")
    return "".join(lines).encode("latin-1", "replace")

"""Events of a stream that differ from the one before in their text alone, so that they need not be decoded.

Theory of operation. Upstreams repeat the whole of an event for each few characters of an answer. Where a text stands in
an event is learned from one that was decoded: what is before and what is after it must, around any other text, decode
as that text. From then on an event with the same bytes around is taken as it is, if all between are characters that
JSON writes as they are; all else is decoded as before. So nothing is decided here of what an event means: it is only
recognised that it has been decided (measured by `make bench`).
"""

from collections.abc import Callable
from typing import Any, Final

import msgspec

from vipcloud.providers.wire import UNDECODED

TRIES_MAX: Final = 8  # to learn: an upstream may change something in each event
_PROBE: Final = "vipcloud's probe"
_PROBE_BYTES: Final = b"vipcloud's probe"
_QUOTE: Final = 0x22
_BACKSLASH: Final = 0x5C

_encode: Final = msgspec.json.Encoder().encode


class EventShape:
    """What stands around the text of events of one kind.

    `text` is what the event that `recognise` has taken last says: to return it beside the bytes would cost a tuple for
    each event.
    """

    __slots__ = ("_after", "_before", "_bytes_min", "_decode", "_tries", "text")

    def __init__(self, decode: Callable[[bytes], Any]) -> None:
        self.text = ""
        self._decode = decode
        self._before = b""
        self._after = b""
        self._bytes_min = 0
        self._tries = 0

    def recognise(self, event: bytes) -> bytes | None:
        """The text of `event` as JSON without its quotes, and decoded in `text`; None where it has to be decoded."""
        before, after = self._before, self._after
        if not before or len(event) < self._bytes_min or not (event.startswith(before) and event.endswith(after)):
            return None
        raw = event[len(before) : len(event) - len(after)]
        if _QUOTE in raw or _BACKSLASH in raw:
            return None
        try:
            text = raw.decode()
        except UnicodeDecodeError:
            return None
        if not text.isprintable():  # control characters are not, and some that need no escape
            return None
        self.text = text
        return raw

    def decode_and_learn(self, event: bytes) -> str | None:
        """The text of `event` by decoding it, after which its like is recognised; None where it is no such event."""
        try:
            text: str = self._decode(event).choices[0].delta.text
        except UNDECODED:
            return None
        if self._tries < TRIES_MAX:
            self._learn(event, text)
        return text

    def _learn(self, event: bytes, text: str) -> None:
        encoded = _encode(text)
        at = event.find(encoded)
        if at < 0 or _BACKSLASH in encoded:
            return
        self._tries += 1
        before, after = event[: at + 1], event[at + len(encoded) - 1 :]
        try:
            found = self._decode(before + _PROBE_BYTES + after).choices[0].delta.text
        except UNDECODED:
            return
        if found == _PROBE:
            self._before, self._after = before, after
            self._bytes_min = len(before) + len(after) + 1

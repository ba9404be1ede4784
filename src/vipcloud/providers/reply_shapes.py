"""Whole replies that differ from one before in their text, ids and numbers alone, so that they need not be decoded.

Theory of operation. What an upstream answers is the same bytes from reply to reply but for a few values. Those are
found in a reply that was decoded: a value may vary if, with another in its place, all decodes as before but for at most
one thing that we read, the text or a count, which is then that other value. What stands between must come again byte
for byte. A text or an id is one whole JSON string, which msgspec judges, a number is of plain digits; so what is read
here has the parts of the reply that was learned from, and decodes as that one but for those values. All else (another
finish reason, a count of null, one key more) is decoded. As in `event_shapes`, nothing is decided of what a reply
means: docs/decisions/0036.
"""

import re
from typing import Any, Final

import msgspec

from vipcloud.dialects.openai import FinishReason
from vipcloud.dialects.text_reply import TextReply
from vipcloud.providers import usage
from vipcloud.providers.wire import UNDECODED, decode_text_reply

SHAPES_MAX: Final = 4  # of one upstream: its endings, and what it leaves out at times
WORTH_HITS: Final = 64  # replies that have to be recognised to make up for what learning costs
LEARNED_BYTES_MAX: Final = 32768
VALUES_MAX: Final = 32  # in a reply that is learned from: each may cost two decodings of it, and few have 16
DIGITS_MAX: Final = 15
IDS: Final = frozenset((b'"id"', b'"request_id"'))
# Whose texts a shape keeps: they are the upstream's. Any other may be of an answer, and no answer outlives its request.
KEPT: Final = frozenset(
    (
        b'"object"',
        b'"model"',
        b'"role"',
        b'"finish_reason"',
        b'"system_fingerprint"',
        b'"service_tier"',
        b'"name"',
        b'"status_msg"',
    )
)
# What a value is to us, its kind. The first four are the counts: such a kind is the count's place in `usage.counts_of`.
_COUNTS: Final = 4
_NUMBER: Final = 4  # that says nothing to us
_ID: Final = 5
_TEXT: Final = 6
_FIXED: Final = 7
_PROBE: Final = b'"vipcloud\'s probe"'
_QUOTE: Final = b'"'
_ZERO: Final = 0x30
# A string with the colon that makes it a key, or a number of plain digits. Of anything else in JSON nothing is found.
_TOKEN: Final = re.compile(
    rb'("[^"\\]*(?:\\.[^"\\]*)*")(\s*:)?|(?<![-+.\w])(?:0|[1-9][0-9]{0,%d})(?![-+.\w])' % (DIGITS_MAX - 1), re.DOTALL
)

_decode_text: Final = msgspec.json.Decoder(str).decode


class _Hole:
    """Where a value stands that varies, and what comes `after` it up to the next. `size` is that of an id.

    `number` is what was read last, or what all replies say where it does not vary: to return it beside the place would
    cost a tuple for each value.
    """

    def __init__(self, kind: int, size: int, number: int) -> None:
        self.kind = kind
        self.size = size
        self.number = number
        self.after = b""

    def read_forward(self, body: bytes, begin: int) -> int:
        """Where the value ends that begins there; just there if none does. A number is then in `self.number`."""
        if self.kind == _ID:
            end = begin + self.size
            return end if _text(body[begin - 1 : end + 1]) else begin
        end, most, number = begin, min(len(body), begin + DIGITS_MAX), 0
        while end < most:
            digit = body[end] - _ZERO
            if digit < 0 or digit > 9:
                break
            number = number * 10 + digit
            end += 1
        self.number = number
        return begin if end - begin > 1 and body[begin] == _ZERO else end

    def read_backward(self, body: bytes, end: int) -> int:
        """Where the value begins that ends there; just there if none does. A number is then in `self.number`."""
        if self.kind == _ID:
            begin = end - self.size
            return begin if begin > 0 and _text(body[begin - 1 : end + 1]) else end
        begin, least, number, scale = end, max(0, end - DIGITS_MAX), 0, 1
        while begin > least:
            digit = body[begin - 1] - _ZERO
            if digit < 0 or digit > 9:
                break
            number += digit * scale
            scale *= 10
            begin -= 1
        self.number = number
        return end if end - begin > 1 and body[begin] == _ZERO else begin


class ReplyShape:
    """What replies have in common, and where it is that they differ: `ahead` of the text and behind it."""

    def __init__(
        self, before: bytes, holes: list[_Hole], text_at: int, counts: list[_Hole], finish_reason: FinishReason
    ) -> None:
        self._before = before
        self._ahead = holes[:text_at]
        self._after = holes[text_at].after
        self._behind = holes[:text_at:-1]
        self._prompt, self._completion, self._cached, self._reasoning = counts
        self._finish_reason = finish_reason

    def read(self, body: bytes, id: str, model: bytes, created: int, tokens_max: int) -> TextReply | None:  # noqa: A002
        """As `ReplyShapes.read`."""
        at = self._text_begin(body)
        end = self._text_end(body) if at else 0
        if end <= at:
            return None
        raw = body[at - 1 : end + 1]  # with its quotes
        text = _text(raw)
        prompt, completion = self._prompt.number, self._completion.number
        if not text or prompt < 1 or completion < 1:
            return None
        used = usage.believed(prompt, completion, self._cached.number, self._reasoning.number, tokens_max)
        return TextReply(id, created, model, text, raw, "", self._finish_reason, used)

    def _text_begin(self, body: bytes) -> int:
        """0 if it is not this shape."""
        at = len(self._before)
        if body[:at] != self._before:
            return 0
        for hole in self._ahead:
            end, after = hole.read_forward(body, at), hole.after
            if end == at:
                return 0
            at = end + len(after)
            if body[end:at] != after:
                return 0
        return at

    def _text_end(self, body: bytes) -> int:
        """Looked for from behind, so that what is in the text does not matter; 0 if it is not this shape."""
        end = len(body)
        for hole in self._behind:
            after = hole.after
            stop = end - len(after)
            if body[stop:end] != after:
                return 0
            end = hole.read_backward(body, stop)
            if end == stop:
                return 0
        begin = end - len(self._after)
        return begin if body[begin:end] == self._after else 0


class ReplyShapes:
    """Those of one upstream, the one that was met last first."""

    def __init__(self) -> None:
        self._shapes: list[ReplyShape] = []
        self._hits = 0  # since one was learned
        self._misses = 0  # likewise
        self._wait = 1  # how many misses it takes to learn the next

    def read(self, body: bytes, id: str, model: bytes, created: int, tokens_max: int) -> TextReply | None:  # noqa: A002
        """What `body` says; None where it has to be decoded."""
        for place, shape in enumerate(self._shapes):
            found = shape.read(body, id, model, created, tokens_max)
            if found is not None:
                self._hits += 1
                if place:
                    self._shapes.insert(0, self._shapes.pop(place))
                return found
        return None

    def learn(self, body: bytes, said: Any) -> None:
        """Take note of a reply that was decoded as `said`. What did not pay is done half as often."""
        self._misses += 1
        if self._misses < self._wait or len(body) > LEARNED_BYTES_MAX:
            return
        self._wait = 1 if self._hits >= WORTH_HITS else 2 * self._wait
        self._hits = self._misses = 0
        shape = _shape(body, said)
        if shape is not None:
            self._shapes = [shape, *self._shapes[: SHAPES_MAX - 1]]


def _text(string: bytes) -> str:
    """What a JSON string says, with its quotes; empty if it is none, or says nothing."""
    try:
        return _decode_text(string)
    except UNDECODED:
        return ""


def _shape(body: bytes, said: Any) -> ReplyShape | None:
    """None if it is not clear where the text stands, if other texts are not to be kept, or if it has many values."""
    counts = [_Hole(_FIXED, 0, number) for number in usage.counts_of(said.usage)]
    literals: list[bytes] = []
    holes: list[_Hole] = []
    key, begin, values = b"", 0, 0
    for token in _TOKEN.finditer(body):
        string, colon = token.groups()
        if colon is not None:
            key = string
            continue
        values += 1
        if values > VALUES_MAX:
            return None
        at, end = token.span()
        kind = _kind(body, at, end, key, said)
        if kind == _FIXED:
            if string is not None and len(string) > 2 and key not in KEPT | IDS:
                return None
            continue
        if string is not None:
            at, end = at + 1, end - 1  # its quotes stay as they are
        hole = _Hole(kind, end - at, 0)
        if kind < _COUNTS:
            counts[kind] = hole
        holes.append(hole)
        literals.append(body[begin:at])
        begin = end
    literals.append(body[begin:])
    for hole, literal in zip(holes, literals[1:], strict=True):
        hole.after = literal
    kinds = [hole.kind for hole in holes]
    if _TEXT not in kinds:
        return None
    return ReplyShape(literals[0], holes, kinds.index(_TEXT), counts, said.choices[0].finish_reason)


def _kind(body: bytes, at: int, end: int, key: bytes, said: Any) -> int:
    """What the value is to us that stands between `at` and `end`, the latest key being `key`."""
    value = body[at:end]
    if not value.startswith(_QUOTE):
        kind = _varied(body, at, end, b"%d" % (int(value) + 1), said)
        if kind == _NUMBER and _varied(body, at, end, b"0", said) != kind:
            return _FIXED  # it says nothing, but may not be just any number
        return kind
    if key == b'"content"':
        kind = _varied(body, at, end, _PROBE, said)
    elif key in IDS and len(value) > 2:
        kind = _varied(body, at, end, b'"%b"' % (b"0" * (len(value) - 2)), said)
    else:
        return _FIXED
    return _ID if kind == _NUMBER else kind


def _varied(body: bytes, at: int, end: int, other: bytes, said: Any) -> int:
    """The kind by what changes of `said` where `other` stands between `at` and `end`; `_NUMBER` if nothing does."""
    try:
        found = decode_text_reply(body[:at] + other + body[end:])
    except UNDECODED:
        return _FIXED
    text, message = found.choices[0].message.content, said.choices[0].message
    found.choices[0].message.content = message.content
    if found.choices != said.choices:
        return _FIXED
    counts, before = usage.counts_of(found.usage), usage.counts_of(said.usage)
    moved = [place for place in range(_COUNTS) if counts[place] != before[place]]
    if text != message.content:
        return _TEXT if not moved else _FIXED
    if not moved:
        return _NUMBER
    return moved[0] if len(moved) == 1 and counts[moved[0]] == before[moved[0]] + 1 else _FIXED

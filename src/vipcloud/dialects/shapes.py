"""PURE: plain requests that differ from one before in the texts of their messages alone, so that they need no decoding.

Theory of operation. A program asks with the same model, roles and options again and again. What stands around the texts
of its messages is learned from one body: the texts are cut out, other texts are put in their place, and the result must
decode as a `PlainChat` whose messages say just these, in order. They are the hash of what is around them, which cannot
hold its own hash; so it is by their places that they came to be the messages' texts, and any other texts would. From
then on a body with the same bytes around, and one JSON string in each place, is the request that was learned with these
texts in it. All else is decoded as before, and so are faulty texts: nothing is refused here.

Mostly all texts but the last are those of the request before, too. They are compared, not decoded, while a request that
says them runs; with the last of these they are gone. So no prompt is kept: no text of a message is in a shape. Nothing
else of a caller's own is, either: a shape is learned only from a `BareChat`, which has nothing but options around its
texts, and from no body with a backslash there: a `content` spelled with escapes would not be seen, and the next one
would take its place when decoded.

A shape is its key's, and nobody else's. Learning costs as much as four requests save, and is paid for by what it
saves: by each request that is recognised, and a little by each that is not, so that a caller who never repeats anything
hardly pays.
"""

import hashlib
import re
from itertools import islice
from typing import Final
from weakref import ref

import msgspec

from vipcloud.dialects import openai, requests

KEYS_MAX: Final = 4096
LOOKED_AT_MAX: Final = 64  # keys, to find one that may go
SHAPES_MAX: Final = 4  # of a key
MESSAGES_MAX: Final = 8
BODY_BYTES_MAX: Final = 65536  # to learn from
SHAPE_BYTES_MAX: Final = 1024

# A key's balance, in sixteenths of what one recognised request saves.
LEARNING_COST: Final = 64
EARNED_IF_RECOGNISED: Final = 16
EARNED_IF_NOT: Final = 1
BALANCE_MAX: Final = 128

_CONTENT: Final = re.compile(rb'"content"\s*:\s*"([^"]*)"')

_FAULTS: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(openai.PlainChat).decode
_decode_bare: Final = msgspec.json.Decoder(openai.BareChat).decode
_decode_text: Final = msgspec.json.Decoder(str).decode
_replace: Final = msgspec.structs.replace


class Asked:
    """A request as it was read. `shape` is what it was recognised by; then `messages` are its messages as JSON.

    `held` is what it has in common with others of its shape, for as long as one of them runs.
    """

    __slots__ = ("held", "messages", "request", "shape")

    def __init__(
        self,
        request: openai.ChatRequest,
        messages: bytes | None = None,
        shape: "RequestShape | None" = None,
        held: object = None,
    ) -> None:
        self.request = request
        self.messages = messages
        self.shape = shape
        self.held = held


class Shapes:
    """What each key's requests look like."""

    def __init__(self) -> None:
        self._callers: dict[str, _Caller] = {}

    def read(self, key_id: str, body: bytes) -> Asked:
        """As `parse_chat`, by what this key has sent before. Raises BadRequest."""
        caller = self._callers.get(key_id)
        if caller is not None:
            for shape in caller.shapes:
                asked = shape.recognise(body)
                if asked is not None:
                    caller.met = True
                    if caller.balance < BALANCE_MAX:
                        caller.balance += EARNED_IF_RECOGNISED
                    return asked
        request = requests.parse_chat(body)
        if type(request) is openai.PlainChat:
            if caller is not None:
                caller.learn(body)
            else:
                if len(self._callers) >= KEYS_MAX:
                    self._make_room()
                self._callers[key_id] = _Caller()
        return Asked(request)

    def _make_room(self) -> None:
        """A key goes that was not recognised since it was last looked at here: cheaper than moving keys at each hit."""
        for key_id in list(islice(self._callers, LOOKED_AT_MAX)):
            caller = self._callers.pop(key_id)
            if not caller.met:
                return
            caller.met = False
            self._callers[key_id] = caller
        del self._callers[next(iter(self._callers))]


class _Caller:
    """A key that has sent a plain request: its shapes, the newest first, and what there is to pay for another.

    `met`: one of its requests was recognised since room was last made.
    """

    __slots__ = ("balance", "met", "shapes")

    def __init__(self) -> None:
        self.met = False
        self.shapes: list[RequestShape] = []
        self.balance = LEARNING_COST - EARNED_IF_NOT  # the second request is learned from

    def learn(self, body: bytes) -> None:
        """Of a plain request that no shape has recognised."""
        if self.balance < BALANCE_MAX:
            self.balance += EARNED_IF_NOT
        if self.balance >= LEARNING_COST and len(body) <= BODY_BYTES_MAX:
            self.balance -= LEARNING_COST
            shape = learned(body)
            if shape is not None:
                self.shapes = [shape, *self.shapes[: SHAPES_MAX - 1]]


class RequestShape:
    """What stands around the texts of a plain request, in its body and in its messages as they are sent on.

    `sent` is for whoever sends such requests on to remember something in.
    """

    __slots__ = ("_after", "_before", "_former", "_last", "_request", "_sent_after", "_sent_before", "_shared", "sent")

    def __init__(self, request: openai.PlainChat, around: list[bytes], sent_around: list[bytes]) -> None:
        """`around` ends and begins with the texts' quotes, `sent_around` leaves them out."""
        kinds = [type(message) for message in request.messages]
        self.sent: object = None
        self._request = request
        self._before = around[0]
        self._sent_before = sent_around[0]
        # Of each message but the last: its class, and what is behind its text in either.
        self._former = list(zip(kinds[:-1], around[1:-1], sent_around[1:-1], strict=True))
        self._last = kinds[-1]
        self._after = around[-1]
        self._sent_after = sent_around[-1]
        self._shared: ref[set[_SharedBeginning]] = ref(set())

    def recognise(self, body: bytes) -> Asked | None:
        """The request in `body`; None where it has to be decoded."""
        after = self._after
        if not (body.startswith(self._before) and body.endswith(after)):
            return None
        held = self._shared()
        beginning = next(iter(held)) if held is not None else None
        if beginning is None or not body.startswith(beginning.before):
            beginning = self._read_beginning(body)
            if beginning is None:
                return None
            held = {beginning}
            self._shared = ref(held)
        text = body[len(beginning.before) - 1 : len(body) - len(after) + 1]  # no string where the two overlap
        try:
            last = self._last(_decode_text(text))
        except _FAULTS:
            return None
        request = _replace(self._request, messages=[*beginning.messages, last])
        return Asked(request, b"%b%b%b" % (beginning.sent, text, self._sent_after), self, held)

    def _read_beginning(self, body: bytes) -> "_SharedBeginning | None":
        """All up to the last text; None where it has to be decoded."""
        messages: list[openai.PlainMessage] = []
        sent = [self._sent_before]
        start = len(self._before) - 1
        for message, behind, sent_behind in self._former:
            end = body.find(behind, start + 1)
            if end < 0:
                return None
            text = body[start : end + 1]
            try:
                messages.append(message(_decode_text(text)))
            except _FAULTS:
                return None
            sent += (text, sent_behind)
            start = end + len(behind) - 1
        return _SharedBeginning(body[: start + 1], messages, b"".join(sent))


class _SharedBeginning:
    """A body up to its last text: the messages before that, and as they are sent on."""

    __slots__ = ("before", "messages", "sent")

    def __init__(self, before: bytes, messages: list[openai.PlainMessage], sent: bytes) -> None:
        self.before = before
        self.messages = messages
        self.sent = sent


def learned(body: bytes) -> RequestShape | None:
    """The shape of a plain request's `body`; None where its texts cannot be told from the rest, or the rest is long or
    may hold words of the caller's own."""
    masked = body.replace(b"\\\\", b"__").replace(
        b'\\"', b"__"
    )  # as long, and each quote in it begins or ends a string
    around: list[bytes] = []
    start = 0
    for text in _CONTENT.finditer(masked):
        around.append(body[start : text.start(1)])
        start = text.end(1)
    around.append(body[start:])
    rest = b"".join(around)
    if not 1 < len(around) <= MESSAGES_MAX + 1 or len(rest) > SHAPE_BYTES_MAX or b"\\" in rest:
        return None
    probe = hashlib.blake2b(rest, digest_size=16).hexdigest()
    filled = probe.encode().join(around)
    try:
        _decode_bare(filled)
        request = _decode(filled)
    except _FAULTS:
        return None
    # As many messages say it as there are places. No place is two messages', and both have the same order.
    if [message.content for message in request.messages] != [probe] * (len(around) - 1):
        return None
    return RequestShape(request, around, _encode(request.messages).split(b'"%b"' % probe.encode()))

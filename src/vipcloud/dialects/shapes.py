"""PURE: plain requests that differ from one before in what their messages say alone, so that they need no decoding.

Theory of operation. A program asks with the same model and options again and again, and spells its messages alike: a
role, then a text. One body teaches what stands before the messages, around their roles and texts, between two of them,
and behind all of them. That is tried out: a conversation made of these pieces must decode as a `PlainChat` of just
these messages. Its texts are the hash of the pieces, which cannot hold their own hash; so it is by their places that
they came to be the messages' texts, and any others would. As one message can follow another there, any number can.
From then on a body of these pieces, with a role that we know and one JSON string in each place, is the request that was
learned with these messages in it. All else is decoded as before, and so are faulty texts: nothing is refused here.

No prompt is kept: no text of a message is in a shape. Nothing else of a caller's own is, either: a shape is learned
only from a `BareChat`, which has nothing but options around its messages, and from no body with a backslash there: a
`content` spelled with escapes would not be seen, and the next one would take its place when decoded.

A shape is its key's, and nobody else's. Learning costs as much as four requests save, and is paid for by what it
saves: by each request that is recognised, and a little by each that is not, so that a caller who never repeats anything
hardly pays.
"""

import hashlib
import re
from collections.abc import Callable
from itertools import islice
from typing import Any, Final, cast

import msgspec

from vipcloud.dialects import openai, requests

KEYS_MAX: Final = 4096
LOOKED_AT_MAX: Final = 64  # keys, to find one that may go
SHAPES_MAX: Final = 4  # of a key
MESSAGES_MAX: Final = 256
BODY_BYTES_MAX: Final = 65536  # to learn from
SHAPE_BYTES_MAX: Final = 1024

# A key's balance, in sixteenths of what one recognised request saves.
LEARNING_COST: Final = 64
EARNED_IF_RECOGNISED: Final = 16
EARNED_IF_NOT: Final = 1
BALANCE_MAX: Final = 128

# As each client spells them: up to the first role, from a role to its text, and from a text to the next role or on.
_FIRST: Final = re.compile(rb'\[\s*\{\s*"role"\s*:\s*"')
_INNER: Final = re.compile(rb'(?:assistant|system|user)("\s*,(\s*)"content"(\s*:\s*)")')
_NEXT: Final = re.compile(rb'"\s*\}\s*,\s*\{\s*"role"\s*:\s*"')
_LAST: Final = re.compile(rb'"\s*\}\s*\]')

_A: Final = 0x61  # assistant
_S: Final = 0x73  # system
_U: Final = 0x75  # user

_FAULTS: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

_Assistant: Final = openai.PlainAssistantMessage
_System: Final = openai.PlainSystemMessage
_User: Final = openai.PlainUserMessage

_copy: Final[Callable[[openai.PlainChat], openai.PlainChat]] = cast("Any", openai.PlainChat).__copy__
_decode: Final = msgspec.json.Decoder(openai.PlainChat).decode
_decode_bare: Final = msgspec.json.Decoder(openai.BareChat).decode
_decode_text: Final = msgspec.json.Decoder(str).decode


class Asked:
    """A request as it was read. `shape` is what it was recognised by; then `messages` is their JSON, as it was sent."""

    __slots__ = ("messages", "request", "shape")

    def __init__(
        self, request: openai.ChatRequest, messages: bytes | None = None, shape: "RequestShape | None" = None
    ) -> None:
        self.request = request
        self.messages = messages
        self.shape = shape


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
    """The pieces of a plain request: all of its body but the roles and texts of its messages.

    `sent` is for whoever sends such requests on to remember something in.
    """

    __slots__ = (
        "_after",
        "_array_at",
        "_array_end_bytes",
        "_assistant",
        "_before",
        "_between",
        "_request",
        "_system",
        "_user",
        "sent",
    )

    def __init__(
        self,
        request: openai.PlainChat,
        before: bytes,
        inner: bytes,
        between: bytes,
        after: bytes,
        array_at: int,
        array_end_bytes: int,
    ) -> None:
        """The messages' array begins in `before`, at `array_at`, and ends in `after`, with its first bytes."""
        self.sent: object = None
        self._request = request
        self._before = before
        self._between = between
        self._after = after
        self._array_at = array_at
        self._array_end_bytes = array_end_bytes
        self._assistant = b"assistant" + inner
        self._system = b"system" + inner
        self._user = b"user" + inner

    def recognise(self, body: bytes) -> Asked | None:
        """The request in `body`; None where it has to be decoded."""
        before, after = self._before, self._after
        if not (body.startswith(before) and body.endswith(after)):
            return None
        at, end = len(before), len(body) - len(after)
        messages: list[openai.PlainMessage] = []
        for message in body[at:end].split(self._between, MESSAGES_MAX):
            if not message:
                return None
            letter = message[0]
            kind: type[openai.PlainMessage]
            if letter == _U:
                opening, kind = self._user, _User
            elif letter == _A:
                opening, kind = self._assistant, _Assistant
            elif letter == _S:
                opening, kind = self._system, _System
            else:
                return None
            if not message.startswith(opening):
                return None
            text_at = at + len(opening)
            at += len(message)
            try:
                messages.append(kind(_decode_text(body[text_at - 1 : at + 1])))  # with its quotes
            except _FAULTS:
                return None
            at += len(self._between)
        request = _copy(self._request)
        request.messages = messages
        return Asked(request, body[self._array_at : end + self._array_end_bytes], self)


def learned(body: bytes) -> RequestShape | None:
    """The shape of a plain request's `body`; None where its messages are spelled in another way or in several, or the
    rest is long or may hold words of the caller's own."""
    first = _FIRST.search(body)
    inner = None if first is None else _INNER.match(body, first.end())
    if first is None or inner is None:
        return None
    # As long, and each quote in it begins or ends a string.
    masked = body.replace(b"\\\\", b"__").replace(b'\\"', b"__")
    between = b""
    end = masked.find(b'"', inner.end())
    while (following := _NEXT.match(masked, max(end, 0))) is not None:
        opening = _INNER.match(body, following.end())
        if opening is None or opening[1] != inner[1] or between not in (b"", following[0]):
            return None
        between = following[0]
        end = masked.find(b'"', opening.end())
    last = _LAST.match(masked, max(end, 0))
    if last is None:
        return None
    before, after = body[: first.end()], body[end:]
    between = between or b'"},%b{"role"%b"' % (inner[2], inner[3])  # as one who spells `inner` so spells it mostly
    rest = before + inner[1] + between + after
    if len(rest) > SHAPE_BYTES_MAX or b"\\" in rest:
        return None
    if before.count(b'"role"') > 1 or b'"role"' in after or b'"content"' in before or b'"content"' in after:
        return None  # there are texts besides
    probe = hashlib.blake2b(rest, digest_size=16).hexdigest()
    roles = (b"system", b"user", b"assistant")
    filled = before + between.join(b"%b%b%b" % (role, inner[1], probe.encode()) for role in roles) + after
    try:
        _decode_bare(filled)
        request = _decode(filled)
    except _FAULTS:
        return None
    if request.messages != [_System(probe), _User(probe), _Assistant(probe)]:
        return None
    return RequestShape(request, before, inner[1], between, after, first.start(), len(last[0]))

"""What a simulated upstream gets and does, as values: a call comes in, the steps of an answer go out.

A provider's module turns a `Call` into steps, `faults` bends the steps, `app` plays them on a socket. Only `app` knows
sockets and time, so every shape and every failure is tested without either.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Literal, Protocol

import msgspec
from msgspec import Struct

Headers = tuple[tuple[str, str], ...]
Kind = Literal["comment", "open", "delta", "finish", "usage", "done", "error", "body", "noise"]

encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


# --- the steps of an answer --------------------------------------------------------------------------------------


class Whole(Struct, frozen=True, gc=False):
    """A complete answer with a content length."""

    status: int
    headers: Headers
    body: bytes


class Head(Struct, frozen=True, gc=False):
    """Status line and headers of an answer that follows in pieces (chunked coding)."""

    status: int
    headers: Headers


class Write(Struct, frozen=True, gc=False):
    """Bytes for the wire, `after_s` seconds after the step before. `kind` says what they are, for `faults`."""

    data: bytes
    kind: Kind
    after_s: float = 0.0


class Wait(Struct, frozen=True, gc=False):
    seconds: float


class End(Enum):
    FINISH = "finish"  # a proper end of the body
    ABORT = "abort"  # the connection is cut


Step = Whole | Head | Write | Wait | End


class Reply(Struct, frozen=True):
    """An answer, the concurrency slot that it takes while it lasts, and its own error event where it has one."""

    steps: Iterable[Step]
    slot: str | None = None
    error_event: bytes | None = None


# --- what comes in -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Fault:
    """One failure asked for. `faults.parse` makes them, `faults.CATALOGUE` explains them."""

    name: str
    args: tuple[str, ...] = ()

    def number(self, index: int) -> float:
        return float(self.args[index])


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request as received. `document` is the decoded body, `NOT_JSON` when it does not decode."""

    method: str
    path: str
    headers: Mapping[bytes, bytes]
    body: bytes
    document: Any
    wall_s: float
    faults: tuple[Fault, ...] = ()
    query: str = ""  # what follows the path's question mark

    def header(self, name: bytes) -> str:
        return self.headers.get(name, b"").decode("latin-1").strip()

    def fault(self, name: str) -> Fault | None:
        return next((fault for fault in self.faults if fault.name == name), None)


class _NotJSON:
    """Marks a body that does not decode; None would be JSON's null."""


NOT_JSON = _NotJSON()


def decode(body: bytes) -> Any:
    """JSON, or `NOT_JSON`. Bad UTF-8 and lone surrogates do not decode, as at the providers."""
    try:
        return _decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return NOT_JSON


class Refused(Exception):
    """The provider says no: its status, its body, its content type, further headers."""

    def __init__(self, status: int, body: bytes, content_type: str = "application/json", headers: Headers = ()) -> None:
        super().__init__(f"{status} {body[:200]!r}")
        self.status = status
        self.body = body
        self.content_type = content_type
        self.headers = headers

    def reply(self, headers: Headers = ()) -> Reply:
        """As it goes out, with the `headers` that all answers of the provider have."""
        all_headers = (("content-type", self.content_type), *headers, *self.headers)
        return Reply([Whole(self.status, all_headers, self.body)])


# --- a simulated provider ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatorOptions:
    """How a simulator behaves. Milliseconds, counts and bytes.

    With no `keys` any well-shaped key is good, but for keys that contain "bad" (refused) or "broke" (no balance left).
    Keys of one account share a first part: `sk-acme-1` and `sk-acme-2`, `acme-1.secret` and `acme-2.secret`.
    """

    seed: int = 0
    keys: tuple[str, ...] = ()
    jwt_secret: str = "simulated-secret"  # noqa: S105 - signs JWTs of ids that are not in `keys`; guards nothing
    region: Literal["cn", "intl"] = "cn"  # which of a provider's two sites this is
    pace_ms: float = 0.0  # between two chunks of a stream; `[[pace_ms=20]]` in a message overrides it
    first_token_ms: float = 0.0  # before the first token; `[[first_token_ms=500]]` overrides it
    keep_alive_every: int = 3  # DeepSeek: each n-th answer is preceded by a keep-alive; 0 is never
    concurrency_max: int | None = None  # in flight per account and model; None is the provider's own number
    requests_per_minute_max: int | None = None  # Moonshot, DashScope, MiniMax; None is as the account's name says
    tokens_per_minute_max: int | None = None  # likewise
    log_requests_max: int = 1024
    log_bytes_max: int = 64 << 20  # of request bodies kept for the log


@dataclass(slots=True)
class Shared:
    """What a provider's simulator keeps between calls."""

    options: SimulatorOptions
    inflight: Counter[str] = field(default_factory=Counter)
    calls: int = 0

    def next_id(self) -> str:
        """64 hex digits, the same sequence for the same seed."""
        self.calls += 1
        return hashlib.sha256(b"%d/%d" % (self.options.seed, self.calls)).hexdigest()


class Vendor(Protocol):
    """A simulated provider: pure but for `shared`."""

    shared: Shared
    error_event: bytes  # what the provider sends when a stream fails half-way

    def answer(self, call: Call) -> Reply: ...


def stream(status: int, headers: Headers, writes: Iterator[Write]) -> Iterator[Step]:
    yield Head(status, headers)
    yield from writes
    yield End.FINISH


def unary(headers: Headers, body: bytes, delay_s: float) -> Iterator[Step]:
    """An unstreamed answer, nothing of which is sent before it is complete."""
    if delay_s:
        yield Wait(delay_s)
    yield Whole(200, headers, body)

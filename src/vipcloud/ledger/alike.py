"""PURE: usage rows on their way into the books, those alike together, so that sums are taken of whole columns.

A busy gateway's requests of one second are alike in nearly all that they are counted by. To add up their columns is far
cheaper than to look at each request; and what they share is told by its bytes in the journal, and decoded once.
"""

from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from operator import attrgetter, itemgetter
from types import GenericAlias
from typing import Any, Final, NamedTuple

import msgspec

from vipcloud.ledger.records import Settled

HOUR_S: Final = 3600
PIECE: Final = 32  # rows that are decoded together


class Shared(NamedTuple):
    """What usage rows alike have in common."""

    account_id: str
    key_id: str | None
    model: str
    provider: str | None
    upstream_model: str | None
    streamed: bool
    outcome: str
    estimated: bool
    attempts: int
    price_version: str
    finish_reason: str | None
    error_code: str


_TYPES = {field.name: field.type for field in msgspec.structs.fields(Settled)}
OWN: Final = [name for name in _TYPES if name not in Shared._fields]  # the other columns, but for the number
_WIDTH: Final = len(OWN)
_PLACES = {name: place for place, name in enumerate(OWN)}
_in_order = itemgetter(*[(*Shared._fields, *OWN).index(name) for name in _TYPES])
_shared = attrgetter(*Shared._fields)
_own = attrgetter(*OWN)

# The journal's record: a head, and in turns so many values of a row's own and so many that it may share with others.
_encode = msgspec.msgpack.Encoder().encode
_VALUES: Final = len(_TYPES)
_HEAD: Final = _encode([Settled.__struct_config__.tag, *[None] * _VALUES])[:-_VALUES]
_RUNS: Final[list[int]] = [len(list(run)) for _, run in groupby([name in Shared._fields for name in _TYPES])]
_OWN_RUNS: Final[list[int]] = _RUNS[::2]
_SHARED_RUNS: Final[list[int]] = _RUNS[1::2]
_TURNS: Final[int] = len(_OWN_RUNS)
_STR_8: Final = 0xD9
# How long a value is whose first byte is this one: of short texts, numbers and the like. What else there may be counts
# as longer than any record.
_SIZES: Final[list[int]] = [
    *[1] * 0x80,  # small numbers
    *[1 << 16] * 0x20,
    *range(1, 0x21),  # short texts
    *(1, 1 << 16, 1, 1),  # nil, false, true
    *[1 << 16] * 6,
    *(5, 9, 2, 3, 5, 9, 2, 3, 5, 9),  # floats, and whole numbers
    *[1 << 16] * 5,
    2,  # a text: this, its length, and as many bytes
    *[1 << 16] * 6,
    *[1] * 0x20,  # small numbers below 0
]


def _array(values: int) -> bytes:
    """The head of an array of so many."""
    return _encode([None] * values)[:-values]


def _decoder(names: Sequence[str]) -> Callable[[bytes], tuple[Any, ...]]:
    """For an array of these fields of a record."""
    return msgspec.msgpack.Decoder(GenericAlias(tuple, tuple([_TYPES[name] for name in names]))).decode


_SHARED_HEAD: Final = _array(len(Shared._fields))
_ROW_HEAD: Final = _array(_WIDTH)
_PIECE_HEAD: Final = _array(_WIDTH * PIECE)
_decode_shared = _decoder(Shared._fields)
_decode_row = _decoder(OWN)
_decode_piece = _decoder(OWN * PIECE)


class Alike:
    """Usage rows that began in one hour (since 1970) and are alike in `shared`.

    `values`: row after row in one flat list, what is each row's own: the columns `OWN`.
    """

    def __init__(self, hour: int, shared: Shared, values: list[Any]) -> None:
        self.hour = hour
        self.shared = shared
        self.values = values

    @property
    def requests(self) -> int:
        return len(self.values) // _WIDTH

    def column(self, name: str) -> list[Any]:
        return self.values[_PLACES[name] :: _WIDTH]

    def sum(self, name: str) -> int:
        return sum(self.column(name))

    def settled(self, row: int) -> Settled:
        """One of the rows, as the journal's record."""
        own = self.values[row * _WIDTH : (row + 1) * _WIDTH]
        return Settled(**self.shared._asdict(), **dict(zip(OWN, own, strict=True)))


def together(settled: Iterable[Settled]) -> list[Alike]:
    """The rows of `settled`. Those alike in the order they came."""
    found: dict[tuple[float, tuple[Any, ...]], list[Any]] = {}
    for record in settled:
        values = found.setdefault((record.started_at // HOUR_S, _shared(record)), [])
        values += _own(record)
    return [Alike(int(hour), Shared(*shared), values) for (hour, shared), values in found.items()]


def gathered(payloads: Iterable[bytes]) -> tuple[list[Alike], list[bytes]]:
    """The same for records as they stand in the journal; and those of `payloads` that are no plain usage rows.

    Raises msgspec.DecodeError if there is one that is none of ours.
    """
    found, others = _sorted(payloads)
    lots: list[Alike] = []
    for shared, rows in found.items():
        lots += _by_hour(Shared(*_decode_shared(_SHARED_HEAD + shared)), _decoded(rows))
    return lots, others


def _sorted(payloads: Iterable[bytes]) -> tuple[dict[bytes, list[bytes]], list[bytes]]:
    """Usage rows, the runs of their own values by what they share; and the other records. Nothing of it is decoded."""
    found: dict[bytes, list[bytes]] = {}
    others: list[bytes] = []
    known = [b"\xc1"] * _TURNS  # what the row before shared; at first what no value begins with
    rows: list[bytes] = []
    for payload in payloads:
        if not payload.startswith(_HEAD):
            others.append(payload)
            continue
        own: list[bytes] = []
        try:
            shared = _split(payload, known, own)
        except IndexError:
            others.append(payload)
            continue
        if shared is not known:
            known = shared
            rows = found.setdefault(b"".join(shared), [])
        rows += own
    return found, others


def _split(payload: bytes, known: list[bytes], own: list[bytes]) -> list[bytes]:
    """Add to `own` the runs of a row's own values. Returns those that it may share: `known` if they are the same, which
    is cheaper to see than where they end. Raises IndexError if there is a value of another kind.
    """
    at = len(_HEAD)
    shared = known
    for turn in range(_TURNS):
        middle = _past(payload, at, _OWN_RUNS[turn])
        own.append(payload[at:middle])
        run = known[turn]
        at = middle + len(run)
        if payload[middle:at] != run:
            at = _past(payload, middle, _SHARED_RUNS[turn])
            if shared is known:
                shared = known.copy()
            shared[turn] = payload[middle:at]
    if at != len(payload):
        raise IndexError
    return shared


def _past(payload: bytes, at: int, values: int) -> int:
    """Where so many values end. Raises IndexError."""
    for _ in range(values):
        first = payload[at]
        if first == _STR_8:
            at += payload[at + 1]
        at += _SIZES[first]
    return at


def _decoded(runs: list[bytes]) -> list[Any]:
    """Rows of runs, all values in one list."""
    values: list[Any] = []
    whole = len(runs) - len(runs) % (_TURNS * PIECE)
    for at in range(0, whole, _TURNS * PIECE):
        values += _decode_piece(_PIECE_HEAD + b"".join(runs[at : at + _TURNS * PIECE]))
    for at in range(whole, len(runs), _TURNS):
        values += _decode_row(_ROW_HEAD + b"".join(runs[at : at + _TURNS]))
    return values


def _by_hour(shared: Shared, values: list[Any]) -> list[Alike]:
    began = values[_PLACES["started_at"] :: _WIDTH]
    hour = min(began) // HOUR_S
    if hour == max(began) // HOUR_S:
        return [Alike(int(hour), shared, values)]
    found: dict[float, list[Any]] = {}
    for row, at in enumerate(began):
        found.setdefault(at // HOUR_S, []).extend(values[row * _WIDTH : (row + 1) * _WIDTH])
    return [Alike(int(each), shared, own) for each, own in found.items()]


def numbered(lots: Iterable[Alike], first: int, piece: int) -> tuple[list[tuple[int, Shared, list[Any]]], list[Any]]:
    """Number rows from `first` on, in the order in which they are to be inserted.

    Of each lot as many as make whole pieces: the first one's number, what they share, and their own values. Then what
    is left of all lots, whole rows with their numbers one after the other.
    """
    pieces: list[tuple[int, Shared, list[Any]]] = []
    rest: list[Any] = []
    left: list[tuple[Shared, list[Any]]] = []
    for lot in lots:
        rows = lot.requests - lot.requests % piece
        if rows:
            pieces.append((first, lot.shared, lot.values[: rows * _WIDTH]))
            first += rows
        left.append((lot.shared, lot.values[rows * _WIDTH :]))
    for shared, values in left:
        for at in range(0, len(values), _WIDTH):
            rest.append(first)
            rest += _in_order((*shared, *values[at : at + _WIDTH]))
            first += 1
    return pieces, rest

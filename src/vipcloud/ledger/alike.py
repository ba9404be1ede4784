"""PURE: usage rows on their way into the books, those alike together, so that sums are taken of whole columns.

A busy gateway's requests of one second are alike in nearly all that they are counted by. To add up their columns is far
cheaper than to look at each request.
"""

from collections.abc import Iterable
from operator import attrgetter
from typing import Any, NamedTuple

from msgspec.structs import astuple

from vipcloud.ledger.records import Settled

HOUR_S = 3600
_COLUMNS = ("id", *Settled.__struct_fields__)


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


_shared = attrgetter(*Shared._fields)
_PLACES = {name: place for place, name in enumerate(_COLUMNS)}
_OWN = [place for name, place in _PLACES.items() if name not in Shared._fields]


class Alike(NamedTuple):
    """Usage rows that began in one hour (since 1970) and are alike in `shared`.

    `values`: row after row in one flat list, all values in the order of the table's columns.
    """

    hour: int
    shared: Shared
    values: list[Any]

    @property
    def requests(self) -> int:
        return len(self.values) // len(_COLUMNS)

    def column(self, name: str) -> list[Any]:
        return self.values[_PLACES[name] :: len(_COLUMNS)]

    def sum(self, name: str) -> int:
        return sum(self.column(name))

    def own(self, rows: int, first: int) -> list[Any]:
        """The values of the first so many rows that are not shared; the rows numbered from `first` on."""
        end, width = rows * len(_COLUMNS), len(_OWN)
        own: list[Any] = [None] * (rows * width)
        own[::width] = range(first, first + rows)
        for at, place in enumerate(_OWN[1:], 1):
            own[at::width] = self.values[place : end : len(_COLUMNS)]
        return own


def together(settled: Iterable[Settled]) -> list[Alike]:
    """The rows of `settled`, not numbered yet: 0. Those alike in the order they came."""
    found: dict[tuple[float, tuple[Any, ...]], list[Any]] = {}
    last: tuple[float, tuple[Any, ...]] | None = None
    values: list[Any] = []
    for record in settled:
        key = record.started_at // HOUR_S, _shared(record)
        if key != last:  # to compare is cheaper than to hash
            last, values = key, found.setdefault(key, [])
        values.append(0)
        values += astuple(record)
    return [Alike(int(hour), Shared(*shared), values) for (hour, shared), values in found.items()]


def numbered(lots: Iterable[Alike], first: int, piece: int) -> tuple[list[tuple[Shared, list[Any]]], list[Any]]:
    """Number rows from `first` on, in the order in which they are to be inserted.

    Of each lot as many as make whole pieces: what they share, and their own values. Then what is left of all lots,
    whole rows one after the other.
    """
    pieces: list[tuple[Shared, list[Any]]] = []
    rest: list[Any] = []
    for lot in lots:
        rows = lot.requests - lot.requests % piece
        if rows:
            pieces.append((lot.shared, lot.own(rows, first)))
            first += rows
        rest += lot.values[rows * len(_COLUMNS) :]
    rest[:: len(_COLUMNS)] = range(first, first + len(rest) // len(_COLUMNS))
    return pieces, rest

"""PURE: usage rows on their way into the books, those alike together, so that sums are taken of whole columns.

A busy gateway's requests of one second are alike in nearly all that they are counted by. To add up their columns is far
cheaper than to look at each request.
"""

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

    def own(self, rows: int) -> list[Any]:
        """The values of the first so many rows that are not shared."""
        end, width = rows * len(_COLUMNS), len(_OWN)
        own: list[Any] = [None] * (rows * width)
        for at, place in enumerate(_OWN):
            own[at::width] = self.values[place : end : len(_COLUMNS)]
        return own

    def whole(self, first: int) -> list[Any]:
        """All values of the rows from `first` on."""
        return self.values[first * len(_COLUMNS) :]


def together(settled: list[Settled], first: int) -> list[Alike]:
    """The rows of `settled`, numbered from `first` on: those alike in the order they came, one lot after the other."""
    found: dict[tuple[float, tuple[Any, ...]], list[Any]] = {}
    for record in settled:
        key = record.started_at // HOUR_S, _shared(record)
        values = found.get(key)
        if values is None:
            values = found[key] = []
        values.append(0)
        values += astuple(record)
    lots = [Alike(int(hour), Shared(*shared), values) for (hour, shared), values in found.items()]
    for lot in lots:
        lot.values[:: len(_COLUMNS)] = range(first, first + lot.requests)
        first += lot.requests
    return lots

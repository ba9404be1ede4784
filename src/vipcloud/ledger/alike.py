"""PURE: usage rows on their way into the books, those alike together, so that sums are taken of whole columns.

A busy gateway's requests of one second are alike in nearly all that they are counted by. To add up their columns is far
cheaper than to look at each request.
"""

from operator import attrgetter
from typing import Any, NamedTuple

from msgspec.structs import astuple

from vipcloud.ledger.records import Settled

HOUR_S = 3600
_FIELDS = ("account_id", "key_id", "model", "provider", "outcome", "error_code", "streamed")
_COLUMNS = ("id", *Settled.__struct_fields__)
_PLACES = {name: place for place, name in enumerate(_COLUMNS)}
_alike = attrgetter(*_FIELDS)


class Alike(NamedTuple):
    """Usage rows that began in one hour (since 1970) and have these fields in common.

    `values`: row after row in one flat list, in the order of the table's columns.
    """

    hour: int
    account_id: str
    key_id: str | None
    model: str
    provider: str | None
    outcome: str
    error_code: str
    streamed: bool
    values: list[Any]

    @property
    def requests(self) -> int:
        return len(self.values) // len(_COLUMNS)

    def column(self, name: str) -> list[Any]:
        return self.values[_PLACES[name] :: len(_COLUMNS)]

    def sum(self, name: str) -> int:
        return sum(self.column(name))


def together(settled: list[Settled], first: int) -> list[Alike]:
    """The rows of `settled`, numbered from `first` on: those alike in the order they came, one lot after the other."""
    found: dict[tuple[float, tuple[Any, ...]], list[Any]] = {}
    for record in settled:
        key = record.started_at // HOUR_S, _alike(record)
        values = found.get(key)
        if values is None:
            values = found[key] = []
        values.append(0)
        values += astuple(record)
    lots = [Alike(int(hour), *fields, values) for (hour, fields), values in found.items()]
    for lot in lots:
        lot.values[:: len(_COLUMNS)] = range(first, first + lot.requests)
        first += lot.requests
    return lots

import msgspec
import pytest

from vipcloud.ledger import alike
from vipcloud.ledger.alike import Shared
from vipcloud.ledger.records import Settled
from vipcloud.ledger.rules import COMPLETE

PLAIN = Settled(
    *("r", "a", "k", "m", "zhipu", "m", False, COMPLETE, 3, 0, 4, 0, False, 10, 8, 7200.0, 5, None, 1),
    held_nanousd=20,
)


def rows(*changes: dict[str, object]) -> list[Settled]:
    return [
        msgspec.structs.replace(PLAIN, **{"request_id": f"r{number}", **fields})
        for number, fields in enumerate(changes, 1)
    ]


def test_rows_alike_stay_in_the_order_they_came() -> None:
    lots = alike.together(rows({}, {"account_id": "b"}, {}, {"streamed": True}, {"account_id": "b"}))
    assert [(lot.shared.account_id, lot.shared.streamed, lot.requests) for lot in lots] == [
        ("a", False, 2),
        ("b", False, 2),
        ("a", True, 1),
    ]
    assert [lot.column("request_id") for lot in lots] == [["r1", "r3"], ["r2", "r5"], ["r4"]]


def test_rows_of_two_hours_are_not_alike() -> None:
    lots = alike.together(rows({"started_at": 7199.9}, {"started_at": 7200.0}, {"started_at": 10_799.9}))
    assert [(lot.hour, lot.requests) for lot in lots] == [(1, 1), (2, 2)]


def test_sums_are_those_of_the_rows() -> None:
    [lot] = alike.together(rows({"charge_nanousd": 5}, {"charge_nanousd": 6, "prompt_tokens": 9}))
    assert (lot.sum("charge_nanousd"), lot.sum("prompt_tokens"), lot.sum("cost_nanousd")) == (11, 12, 16)


@pytest.mark.parametrize("piece", [1, 2, 3, 4])
def test_every_row_is_numbered_once_and_is_whole(piece: int) -> None:
    settled = rows({}, {"account_id": "b"}, {"duration_ms": 6}, {"account_id": "b"}, {"charge_nanousd": 5}, {})
    pieces, rest = alike.numbered(alike.together(settled), 4, piece)
    names = ("id", *Settled.__struct_fields__)
    own_names = [name for name in names if name not in Shared._fields]
    assert all(len(own) % (piece * len(own_names)) == 0 for _, own in pieces)
    found = [
        {**shared._asdict(), **dict(zip(own_names, own[at : at + len(own_names)], strict=True))}
        for shared, own in pieces
        for at in range(0, len(own), len(own_names))
    ]
    found += [dict(zip(names, rest[at : at + len(names)], strict=True)) for at in range(0, len(rest), len(names))]
    assert [row.pop("id") for row in found] == [4, 5, 6, 7, 8, 9], "in the order they are inserted"
    assert sorted((Settled(**row) for row in found), key=lambda row: row.request_id) == settled

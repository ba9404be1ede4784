import msgspec

from vipcloud.ledger import alike
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


def test_rows_alike_are_numbered_one_after_the_other_in_the_order_they_came() -> None:
    lots = alike.together(rows({}, {"account_id": "b"}, {}, {"streamed": True}, {"account_id": "b"}), first=7)
    assert [(lot.shared.account_id, lot.shared.streamed, lot.requests) for lot in lots] == [
        ("a", False, 2),
        ("b", False, 2),
        ("a", True, 1),
    ]
    assert [lot.column("id") for lot in lots] == [[7, 8], [9, 10], [11]]
    assert [lot.column("request_id") for lot in lots] == [["r1", "r3"], ["r2", "r5"], ["r4"]]


def test_rows_of_two_hours_are_not_alike() -> None:
    lots = alike.together(rows({"started_at": 7199.9}, {"started_at": 7200.0}, {"started_at": 10_799.9}), first=1)
    assert [(lot.hour, lot.requests) for lot in lots] == [(1, 1), (2, 2)]


def test_sums_are_those_of_the_rows() -> None:
    [lot] = alike.together(rows({"charge_nanousd": 5}, {"charge_nanousd": 6, "prompt_tokens": 9}), first=1)
    assert (lot.sum("charge_nanousd"), lot.sum("prompt_tokens"), lot.sum("cost_nanousd")) == (11, 12, 16)


def test_what_is_shared_and_what_is_a_rows_own_is_the_whole_row() -> None:
    settled = rows({"charge_nanousd": 5}, {"duration_ms": 6}, {"first_token_ms": 1})
    [lot] = alike.together(settled, first=4)
    whole = [value for number, row in enumerate(settled, 4) for value in (number, *msgspec.structs.astuple(row))]
    assert lot.whole(0) == whole
    assert lot.whole(2) == whole[-25:]
    names = [name for name in ("id", *Settled.__struct_fields__) if name not in lot.shared._fields]
    for count in (0, 2, 3):
        own = lot.own(count)
        assert [dict(zip(names, own[at : at + len(names)], strict=True)) for at in range(0, len(own), len(names))] == [
            {name: lot.column(name)[row] for name in names} for row in range(count)
        ]

from typing import get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import FieldInfo, astuple

from vipcloud.ledger import alike, journal
from vipcloud.ledger.alike import Alike
from vipcloud.ledger.records import Opened, Settled
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
    width = len(alike.OWN)
    assert all(len(own) % (piece * width) == 0 for _, _, own in pieces)
    found = [
        {"id": first + row, **shared._asdict(), **dict(zip(alike.OWN, own[row * width :][:width], strict=True))}
        for first, shared, own in pieces
        for row in range(len(own) // width)
    ]
    names = ("id", *Settled.__struct_fields__)
    found += [dict(zip(names, rest[at : at + len(names)], strict=True)) for at in range(0, len(rest), len(names))]
    assert [row.pop("id") for row in found] == [4, 5, 6, 7, 8, 9], "in the order they are inserted"
    assert sorted((Settled(**row) for row in found), key=lambda row: row.request_id) == settled


WORDS = st.text(max_size=3) | st.text("é", min_size=14, max_size=20) | st.text(min_size=200, max_size=300)
NUMBERS = st.integers(0, 300) | st.sampled_from([65_535, 65_536, 1 << 32, (1 << 63) - 1]) | st.integers(-200, 0)
TIMES = st.sampled_from([0.0, 7199.9, 7200.0, 10_799.9]) | st.floats(0, 1e10)
KINDS: dict[type, st.SearchStrategy[object]] = {
    str: WORDS,
    bool: st.booleans(),
    int: NUMBERS,
    float: TIMES,
    type(None): st.none(),
}
FEW: dict[str, list[object]] = {
    "account_id": ["a", "b"],
    "key_id": ["k", None],
    "finish_reason": ["stop", None],
    "attempts": [1, 1, 2],
}


def values_of(field: FieldInfo) -> st.SearchStrategy[object]:
    """Any that the type allows; of what many rows share mostly a few."""
    kinds = [field.type] if isinstance(field.type, type) else list(get_args(field.type))
    any_value = st.one_of([KINDS[kind] for kind in kinds])
    return st.one_of([st.sampled_from(FEW[field.name]), any_value]) if field.name in FEW else any_value


RECORDS = st.builds(Settled, **{field.name: values_of(field) for field in msgspec.structs.fields(Settled)})


@given(st.lists(RECORDS, max_size=5), st.integers(1, 70), st.lists(RECORDS, max_size=5))
def test_records_are_gathered_as_if_they_were_decoded(some: list[Settled], repeats: int, more: list[Settled]) -> None:
    settled = [*some, *more * repeats]
    payloads, _ = journal.payloads(b"".join(map(journal.frame, settled)))
    lots, others = alike.gathered(payloads)
    found = [*lots, *alike.together(msgspec.msgpack.decode(payload, type=Settled) for payload in others)]
    assert sorted((lot.hour, repr(lot.shared), repr(lot.values)) for lot in merged(found)) == sorted(
        (lot.hour, repr(lot.shared), repr(lot.values)) for lot in merged(alike.together(settled))
    )
    assert all(len(payload) > 255 for payload in others), "it is a text of more than 255 bytes that is no plain value"


def merged(lots: list[Alike]) -> list[Alike]:
    """Each lot's rows in one order, and lots that are alike in one."""
    return alike.together(
        sorted((lot.settled(row) for lot in lots for row in range(lot.requests)), key=lambda each: repr(astuple(each)))
    )


def test_records_of_other_lengths_and_kinds_are_left_to_be_decoded() -> None:
    plain = msgspec.msgpack.encode(PLAIN)
    values = msgspec.msgpack.decode(plain)
    others = [msgspec.msgpack.encode(each) for each in (values[:20], [*values, "new"], [*values[:-1], ["?"]])]
    others.append(msgspec.msgpack.encode(Opened("r", "a", None, "m", 5, 7200.0)))
    lots, left = alike.gathered([others[0], plain, *others[1:]])
    assert ([lot.settled(0) for lot in lots], left) == ([PLAIN], others)


@pytest.mark.parametrize("place", range(1, 25))
def test_a_value_of_another_type_is_an_error(place: int) -> None:
    values = msgspec.msgpack.decode(msgspec.msgpack.encode(PLAIN))
    values[place] = 1.5 if type(values[place]) is not float else "1.5"
    with pytest.raises(msgspec.DecodeError):
        alike.gathered([msgspec.msgpack.encode(PLAIN), msgspec.msgpack.encode(values)])

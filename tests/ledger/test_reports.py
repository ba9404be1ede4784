"""What an account used, for people and programs: by whole UTC days, on both databases."""

from collections.abc import Iterator

import msgspec
import pytest
from sqlalchemy import Connection, Engine
from test_ledger_store import USAGE

from vipcloud.ledger import reports, store
from vipcloud.ledger.records import Settled
from vipcloud.ledger.reports import Activity, Filter
from vipcloud.ledger.store import KeySpending
from vipcloud.storage import engine as storage

DAY_S = 86_400
DAY = 20_761  # Wednesday, 4 November 2026; odd, as PostgreSQL rounds halves to even


@pytest.fixture
def connection(engine: Engine) -> Iterator[Connection]:
    with storage.writing(engine) as connection:
        yield connection


def used(number: int, started_at: float, **fields: object) -> Settled:
    return msgspec.structs.replace(USAGE, request_id=f"req_{number}", started_at=started_at, **fields)


def test_activity_is_by_day_from_midnight_to_midnight_by_model_and_provider(connection: Connection) -> None:
    begin, end = DAY * DAY_S, (DAY + 1) * DAY_S
    rows = [
        used(1, begin - 0.001),
        used(2, begin),
        used(3, end - 0.001, reasoning_tokens=7),
        used(4, end),
        used(5, end, provider=None, charge_nanousd=0, cost_nanousd=0, outcome="upstream_failed"),
        used(6, end, account_id="b"),
        used(7, end + 1, model="glm-4-air", provider="zhipu", key_id="key_2"),
    ]
    store.post_usage(connection, rows)
    chosen = Filter("a", (DAY - 1) * DAY_S, (DAY + 2) * DAY_S)
    one = (1234, 200, 567, 0, 1_102_630)
    assert reports.activity(connection, chosen) == [
        Activity(DAY + 1, "deepseek-chat", None, 1, 1234, 200, 567, 0, 0),
        Activity(DAY + 1, "deepseek-chat", "deepseek", 1, *one),
        Activity(DAY + 1, "glm-4-air", "zhipu", 1, *one),
        Activity(DAY, "deepseek-chat", "deepseek", 2, 2468, 400, 1134, 7, 2_205_260),
        Activity(DAY - 1, "deepseek-chat", "deepseek", 1, *one),
    ]
    assert [row.day for row in reports.activity(connection, chosen._replace(key_id="key_2"))] == [DAY + 1]
    by_day = reports.by_day(connection, "a", DAY - 1)
    assert {row.day: row.requests for row in by_day if row.model == "deepseek-chat"} == {DAY - 1: 1, DAY: 2, DAY + 1: 2}
    assert [row.model for row in reports.by_day(connection, "a", DAY + 1, "key_2")] == ["glm-4-air"]
    for day in range(DAY - 1, DAY + 2):  # the fold, and the rows that it is of
        sums = reports.sums(connection, Filter("a", day * DAY_S, (day + 1) * DAY_S))
        lines = [row for row in by_day if row.day == day]
        assert sum(row.requests for row in lines) == sums.requests
        assert sum(row.failed for row in lines) == sums.failed
        assert sum(row.charge_nanousd for row in lines) == sums.charge_nanousd


def test_a_keys_spending_by_day_week_and_month(connection: Connection) -> None:
    monday, first = DAY - 2, DAY - 3  # the month began on a Sunday
    days = [first - 1, first, monday, DAY, DAY]
    store.post_usage(connection, [used(number, day * DAY_S + 5) for number, day in enumerate(days)])
    charge = USAGE.charge_nanousd
    told = store.spending_of_keys(connection, ["key_1", "key_none"], DAY)
    assert told == {"key_1": KeySpending(5 * charge, 2 * charge, 3 * charge, 4 * charge)}
    later = store.spending_of_keys(connection, ["key_1"], DAY + 40)
    assert later == {"key_1": KeySpending(5 * charge, 0, 0, 0)}


def test_when_a_key_was_used_last(connection: Connection) -> None:
    rows = [
        used(1, DAY * DAY_S + 5.5),
        used(2, DAY * DAY_S + 4),
        used(3, (DAY - 9) * DAY_S, key_id="key_2"),
        used(4, (DAY + 1) * DAY_S - 0.25, key_id="key_2"),
        used(5, (DAY + 1) * DAY_S, key_id="key_3"),
        used(6, DAY * DAY_S, key_id=None),
    ]
    store.post_usage(connection, rows)
    assert reports.last_used(connection, "a", ["key_1", "key_2", "key_none"]) == {
        "key_1": DAY * DAY_S + 5.5,
        "key_2": (DAY + 1) * DAY_S - 0.25,
    }
    assert reports.last_used(connection, "b", ["key_1"]) == {}, "another account's key"
    assert [store.account_requests_on(connection, "a", day) for day in (DAY - 1, DAY, DAY + 1)] == [0, 4, 1]

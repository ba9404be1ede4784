from collections.abc import Iterator

import msgspec
import pytest
from sqlalchemy import Connection, Engine, select, text
from sqlalchemy.exc import IntegrityError

from vipcloud.ledger import rules, store
from vipcloud.ledger.records import Settled
from vipcloud.ledger.rules import Sums
from vipcloud.money import AMOUNT_NANOUSD_MAX, NanoUSD
from vipcloud.storage import engine as storage
from vipcloud.storage import schema

IMMUTABLE = {
    "sqlite": ["DROP TRIGGER usage_refuses_update", "DROP TRIGGER usage_refuses_delete"],
    "postgresql": ["DROP TRIGGER usage_refuses_changes ON usage"],
}
USAGE = Settled(
    request_id="req_1",
    account_id="a",
    key_id="key_1",
    model="deepseek-chat",
    provider="deepseek",
    upstream_model="deepseek-chat",
    streamed=True,
    outcome="complete",
    prompt_tokens=1234,
    cached_tokens=200,
    completion_tokens=567,
    reasoning_tokens=0,
    estimated=False,
    charge_nanousd=1_102_630,
    cost_nanousd=958_808,
    started_at=1_795_000_000.125,
    duration_ms=2345,
    first_token_ms=None,
    attempts=1,
    held_nanousd=2_000_000,
    price_version="2026-11-01",
    finish_reason="stop",
)


@pytest.fixture
def connection(engine: Engine) -> Iterator[Connection]:
    with storage.writing(engine) as connection:
        yield connection


def book(connection: Connection, *settled: Settled) -> None:
    store.post_usage(connection, list(settled))


def test_the_columns_of_usage_are_a_number_and_the_fields_of_the_record() -> None:
    assert tuple(schema.usage.columns.keys()) == ("id", *Settled.__struct_fields__)


def test_the_columns_of_transfer_are_a_number_and_the_fields_of_the_transfer() -> None:
    assert tuple(schema.transfer.columns.keys()) == ("id", *rules.Transfer._fields)


def test_a_groups_charges_move_credit_from_each_customer_to_revenue_and_name_its_usage_rows(
    connection: Connection,
) -> None:
    store.grant(connection, "welcome", "a", NanoUSD(5), 1.0)
    free = msgspec.structs.replace(USAGE, request_id="req_free", charge_nanousd=0)
    book(connection, free, USAGE, msgspec.structs.replace(USAGE, request_id="req_2", streamed=False))
    store.grant(connection, "more", "a", NanoUSD(7), 2.0)
    book(
        connection,
        msgspec.structs.replace(USAGE, request_id="req_3", account_id="b", charge_nanousd=9),
        msgspec.structs.replace(USAGE, request_id="req_4"),
    )
    assert connection.execute(text("SELECT id, request_id FROM usage ORDER BY id")).all() == [
        (2, "req_free"),
        (3, "req_1"),
        (4, "req_2"),
        (8, "req_3"),
        (9, "req_4"),
    ]
    transfers = select(schema.transfer).where(schema.transfer.c.kind != "cost").order_by(schema.transfer.c.id)
    charge = USAGE.charge_nanousd
    assert connection.execute(transfers).all() == [
        (1, "promo:grants", "customer:a", 5, "grant", "grant/welcome", 1.0),
        (5, "customer:a", "revenue", 2 * charge, "charge", "charge/a/2-4", USAGE.started_at),
        (7, "promo:grants", "customer:a", 7, "grant", "grant/more", 2.0),
        (10, "customer:a", "revenue", charge, "charge", "charge/a/8-9", USAGE.started_at),
        (11, "customer:b", "revenue", 9, "charge", "charge/b/8-9", USAGE.started_at),
    ]
    assert store.differences(connection) == []


def test_a_statement_has_a_line_per_request_though_they_are_posted_together(connection: Connection) -> None:
    store.grant(connection, "welcome", "a", NanoUSD(1000), 1.0)
    charges = [5, 0, 7, 11]
    records = [msgspec.structs.replace(USAGE, request_id=f"req_{n}", charge_nanousd=n) for n in charges]
    book(connection, *records, msgspec.structs.replace(USAGE, request_id="other", account_id="b", charge_nanousd=2))
    book(connection, msgspec.structs.replace(USAGE, request_id="req_last", charge_nanousd=1))
    lines = store.statement(connection, "customer:a", 10)
    assert [(line.kind, line.reference, line.other, line.amount_nanousd, line.balance_nanousd) for line in lines] == [
        ("grant", "grant/welcome", "promo:grants", 1000, 1000),
        ("charge", "req_5", "revenue", -5, 995),
        ("charge", "req_7", "revenue", -7, 988),
        ("charge", "req_11", "revenue", -11, 977),
        ("charge", "req_last", "revenue", -1, 976),
    ]
    assert store.statement(connection, "customer:a", 2) == lines[-2:]
    earned = store.statement(connection, "revenue", 10)
    assert [line.reference for line in earned] == ["req_5", "req_7", "req_11", "other", "req_last"]
    assert earned[-1].balance_nanousd == sum(charges) + 2 + 1


def test_a_charge_below_nothing_is_refused_with_its_group(connection: Connection) -> None:
    wrong = msgspec.structs.replace(USAGE, request_id="req_2", charge_nanousd=-1)
    with pytest.raises(IntegrityError), connection.begin_nested():
        book(connection, USAGE, wrong)
    assert store.recent_usage(connection) == []
    assert store.balance(connection, "a") == 0


def test_a_balance_is_granted_less_charged(connection: Connection) -> None:
    assert store.balance(connection, "a") == 0
    store.grant(connection, "welcome", "a", NanoUSD(5_000_000_000), 0.0)
    store.grant(connection, "more", "a", NanoUSD(1), 0.0)
    store.grant(connection, "other", "b", NanoUSD(7), 0.0)
    book(connection, USAGE, msgspec.structs.replace(USAGE, request_id="req_free", charge_nanousd=0))
    assert store.sums(connection, "a") == Sums(debits_nanousd=1_102_630, credits_nanousd=5_000_000_001)
    assert store.balance(connection, "a") == 5_000_000_001 - 1_102_630
    assert store.balance(connection, "b") == 7
    assert store.differences(connection) == []


def test_a_grant_is_given_once_and_announced(connection: Connection) -> None:
    store.grant(connection, "welcome", "a", NanoUSD(5), 0.0)
    with pytest.raises(store.AlreadyPosted, match="The grant welcome is in the books already"):
        store.grant(connection, "welcome", "a", NanoUSD(5), 0.0)
    assert store.balance(connection, "a") == 5
    assert connection.execute(text("SELECT kind, subject FROM change")).all() == [("account", "a")]


def test_amounts_that_no_ledger_holds_are_refused(connection: Connection) -> None:
    with pytest.raises(store.LedgerError, match=r"above \$0"):
        store.grant(connection, "none", "a", NanoUSD(0), 0.0)
    store.grant(connection, "all", "a", NanoUSD(AMOUNT_NANOUSD_MAX), 0.0)
    with pytest.raises(store.LedgerError, match="more than the ledger can hold"), connection.begin_nested():
        store.grant(connection, "one more", "b", NanoUSD(1), 0.0)
    assert store.balance(connection, "a") == AMOUNT_NANOUSD_MAX
    assert store.differences(connection) == []


def test_a_request_is_posted_at_most_once(connection: Connection) -> None:
    book(connection, USAGE)
    with pytest.raises(IntegrityError), connection.begin_nested():
        book(connection, USAGE)
    assert store.sums(connection, "a").debits_nanousd == USAGE.charge_nanousd
    assert store.booked_requests(connection, ["req_1", *(f"req_x{n}" for n in range(1200))]) == {"req_1"}


def test_usage_comes_back_newest_first_as_it_was_recorded(connection: Connection) -> None:
    records = [
        msgspec.structs.replace(USAGE, request_id=f"req_{n}", account_id="ab"[n % 2], started_at=float(n))
        for n in range(6)
    ]
    book(connection, *records)
    assert store.recent_usage(connection) == records[::-1]
    assert store.recent_usage(connection, "b", rows_max=2) == [records[5], records[3]]
    assert store.usage_of(connection, "req_3") == records[3]
    assert type(records[3].streamed) is type(store.recent_usage(connection)[0].streamed) is bool
    assert store.usage_of(connection, "req_9") is None


def test_many_requests_at_once_come_back_as_they_were_recorded(connection: Connection) -> None:
    records = [
        msgspec.structs.replace(USAGE, request_id=f"req_{n}", streamed=n % 3 == 0, started_at=float(n))
        for n in range(300)
    ]
    book(connection, *records)
    found = store.recent_usage(connection, rows_max=300)[::-1]
    assert found == records
    assert {type(record.streamed) for record in found} == {bool}
    assert store.differences(connection) == []


@pytest.mark.parametrize(
    ("sql", "says"),
    [
        ("UPDATE balance SET debits_nanousd = 1 WHERE ledger_account = 'customer:a'", "customer:a: the balance says"),
        ("DELETE FROM balance WHERE ledger_account = 'promo:grants'", "promo:grants: the balance says"),
        ("UPDATE usage SET charge_nanousd = 1", "transfer 3: charge/a/2-2 differs from its usage rows by 1102629"),
        ("UPDATE usage SET account_id = 'b'", "charge of b: 1102630 in usage rows 2 to 2, and no transfer"),
        ("DELETE FROM usage", "transfer 3: charge/a/2-2 differs from its usage rows by 1102630"),
        (
            "INSERT INTO usage SELECT 3, 'req_2', account_id, key_id, model, provider, upstream_model, streamed, "
            "outcome, 0, 0, 0, 0, false, 5, 0, 0, 0, 0, 1, 5, 0, '', NULL, '' FROM usage",
            "transfer 3: charge/a/2-2 is not of the usage rows 2 to 3",
        ),
    ],
)
def test_books_that_are_wrong_are_found_out(connection: Connection, sql: str, says: str) -> None:
    store.grant(connection, "welcome", "a", NanoUSD(5_000_000_000), 0.0)
    book(connection, USAGE)
    assert store.differences(connection) == []
    for statement in IMMUTABLE[connection.dialect.name]:  # a hand that goes around what refuses it
        connection.execute(text(statement))
    connection.execute(text(sql))
    assert any(found.startswith(says) for found in store.differences(connection))

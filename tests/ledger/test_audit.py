from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from sqlalchemy import Engine, text

from vipcloud.ledger import audit, rules, store
from vipcloud.ledger.audit import Audit
from vipcloud.ledger.records import Aborted, Opened, Settled
from vipcloud.money import NanoUSD
from vipcloud.storage import engine as storage
from vipcloud.storage import migrate

SEALS = {
    "sqlite": ["usage_refuses_update", "usage_refuses_delete", "transfer_refuses_update", "transfer_refuses_delete"],
    "postgresql": ["usage_refuses_changes ON usage", "transfer_refuses_changes ON transfer"],
}


def settled(number: int, **fields: object) -> Settled:
    opened = Opened(f"r{number}", "ab"[number % 2], "key_1", "deepseek-chat", 100, 86_400.0 * number)
    counts = {"prompt_tokens": 3, "completion_tokens": 4, "charge_nanousd": 10, "cost_nanousd": 8}
    row = msgspec.structs.replace(rules.orphaned(opened, None), provider=("deepseek", "zhipu")[number % 2], **counts)
    return msgspec.structs.replace(row, **fields)


@pytest.fixture(autouse=True, params=[0, 3, audit.LARGE_PIECE])
def large_piece(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows are added up by the database, one by one, or now this and now that way."""
    monkeypatch.setattr(audit, "LARGE_PIECE", request.param)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    """Books with a grant, charges, costs, a variance and a lost call."""
    engine = storage.open_engine(tmp_path / "books.db")
    migrate.upgrade(engine)
    with storage.writing(engine) as connection:
        store.grant(connection, "g", "a", NanoUSD(1000), 1.0)
        store.post_usage(connection, [settled(1), settled(2), settled(3, charge_nanousd=0, cost_nanousd=0)])
        store.post_usage(connection, [settled(4, cost_nanousd=90, variance_nanousd=80)])
        store.post_aborted(connection, [Aborted("r4", 1, "zhipu", 5, 4.0)])
    yield engine
    engine.dispose()


def check(engine: Engine, told: Audit | None = None) -> list[str]:
    with storage.reading(engine) as connection:
        return (told or Audit()).check(connection)


def test_right_books_have_no_breaks(engine: Engine) -> None:
    assert check(engine) == []


def test_a_check_reads_what_is_new_and_finds_what_is_wrong_there(engine: Engine) -> None:
    told = Audit()
    assert check(engine, told) == []
    read = told.rows
    with storage.writing(engine) as connection:
        store.post_usage(connection, [settled(number) for number in range(10, 20)])
    assert check(engine, told) == []
    assert told.rows > read + 10
    with storage.writing(engine) as connection:
        store.post_usage(connection, [settled(30)])
        connection.execute(
            text("UPDATE balance SET credits_nanousd = credits_nanousd - 1 WHERE ledger_account = 'revenue'")
        )
    (found,) = check(engine, told)
    assert found.startswith("revenue: the balance says")
    assert check(engine, told) == [found], "a break is told at every check until it is mended"
    with storage.writing(engine) as connection:
        connection.execute(
            text("UPDATE balance SET credits_nanousd = credits_nanousd + 1 WHERE ledger_account = 'revenue'")
        )
    assert check(engine, told) == []


def test_books_that_were_cut_off_or_exchanged_are_noticed(engine: Engine) -> None:
    told = Audit()
    check(engine, told)
    unseal(engine)
    with storage.writing(engine) as connection:
        for table in ("usage", "transfer", "balance", "usage_day"):
            connection.execute(text(f"DELETE FROM {table}"))
    assert check(engine, told) == ["rows that were in the books are gone"]


@pytest.mark.parametrize(
    ("sql", "says"),
    [
        ("UPDATE balance SET debits_nanousd = 1 WHERE ledger_account = 'customer:a'", "customer:a: the balance says"),
        ("DELETE FROM balance WHERE ledger_account = 'variance'", "variance: the balance says"),
        (
            "UPDATE transfer SET amount_nanousd = 11 WHERE kind = 'charge'",
            "transfer 6: charge/b/2-4 differs from its usage rows by 1",
        ),
        (
            "UPDATE transfer SET credit = 'refunds' WHERE kind = 'charge'",
            "transfer 6: charge/b/2-4 goes from customer:b to refunds",
        ),
        (
            "UPDATE usage SET account_id = 'a' WHERE request_id = 'r1'",
            "transfer 5: charge/a/2-4 differs from its usage rows by -10",
        ),
        (
            "UPDATE usage SET charge_nanousd = 9 WHERE request_id = 'r1'",
            "transfer 6: charge/b/2-4 differs from its usage rows by 1",
        ),
        (
            "DELETE FROM usage WHERE request_id = 'r1'",
            "transfer 6: charge/b/2-4 differs from its usage rows by 10",
        ),
        (
            "UPDATE transfer SET cause = 'charge/b/3-4' WHERE cause = 'charge/b/2-4'",
            "transfer 6: charge/b/3-4 is not of the usage rows 2 to 2",
        ),
        (
            "UPDATE transfer SET cause = 'charge/b/2-9' WHERE cause = 'charge/b/2-4'",
            "transfer 6: charge/b/2-9 is not of the usage rows 2 to 2",
        ),
        (
            "DELETE FROM transfer WHERE cause = 'charge/a/9-9'",
            "charge of a: 10 in usage rows 9 to 9, and no transfer",
        ),
        (
            "INSERT INTO transfer VALUES (20, 'customer:a', 'revenue', 7, 'charge', 'charge/a/8-9', 1.0)",
            "transfer 20: charge/a/8-9 differs from its usage rows by 7",
        ),
        (
            "INSERT INTO transfer VALUES (20, 'customer:a', 'revenue', 7, 'charge', 'charge/a/9-9/', 1.0)",
            "transfer 20: charge/a/9-9/ names no usage rows",
        ),
        (
            "UPDATE usage SET cost_nanousd = 7 WHERE request_id = 'r1'",
            "transfer 8: cost/zhipu/2-4 differs from its usage rows by 1",
        ),
        (
            "UPDATE usage SET provider = 'zhipu' WHERE request_id = 'r2'",
            "transfer 7: cost/deepseek/2-4 differs from its usage rows by 8",
        ),
        (
            "UPDATE transfer SET debit = 'upstream:zhipu' WHERE cause = 'cost/deepseek/2-4'",
            "transfer 7: cost/deepseek/2-4 goes from upstream:zhipu to cost:deepseek",
        ),
        (
            "DELETE FROM transfer WHERE kind = 'variance'",
            "variance of deepseek: 80 in usage rows 9 to 9, and no transfer",
        ),
        ("INSERT INTO balance VALUES ('slush', 0, 0)", "slush: no account of the chart"),
        ("UPDATE usage_day SET requests = 2 WHERE day = 1", "account b, key key_1, deepseek-chat: usage by day"),
        ("DELETE FROM usage_day", "account a, key key_1, deepseek-chat: usage by day"),
        ("INSERT INTO open_request VALUES ('r1', 'gateway', 1, '', NULL)", "request r1: settled, and still open"),
    ],
)
def test_each_break_is_found(engine: Engine, sql: str, says: str) -> None:
    unseal(engine)
    with storage.writing(engine) as connection:
        connection.execute(text(sql))
    found = check(engine)
    assert any(each.startswith(says) for each in found), found


def test_charges_of_earlier_versions_are_compared_too(engine: Engine) -> None:
    unseal(engine)
    with storage.writing(engine) as connection:
        connection.execute(text("DELETE FROM transfer WHERE kind = 'charge'"))
        connection.execute(
            text(
                "INSERT INTO transfer SELECT id, 'customer:' || account_id, 'revenue', charge_nanousd, 'charge', NULL, "
                "started_at FROM usage WHERE charge_nanousd > 0"
            )
        )
    assert check(engine) == []
    with storage.writing(engine) as connection:
        lines = store.statement(connection, "customer:b", 10)
        assert [(line.id, line.reference, line.amount_nanousd) for line in lines] == [(2, "r1", -10)]
        connection.execute(text("UPDATE transfer SET amount_nanousd = 11 WHERE id = 2"))
    assert "transfer 2: charge/b/2-2 differs from its usage rows by 1" in check(engine)


def test_customers_below_zero_are_named(engine: Engine) -> None:
    with storage.reading(engine) as connection:
        assert audit.overdrawn(connection) == {"b": -10}


def unseal(engine: Engine) -> None:
    """What a hand does first that goes around the triggers."""
    with storage.writing(engine) as connection:
        for seal in SEALS[connection.dialect.name]:
            connection.execute(text(f"DROP TRIGGER {seal}"))

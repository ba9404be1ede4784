"""`vipcloud ledger`: the books read back by an operator, and an auditor who finds what does not fit."""

import csv
import io
import json
from pathlib import Path

import pytest
from sqlalchemy import text

from vipcloud.ledger import rules
from vipcloud.ledger import store as ledger
from vipcloud.ledger.records import Opened, Reached
from vipcloud.storage import engine as storage


@pytest.fixture
def books(vipcloud, data: Path):
    """Books of one account with credit and two requests; the account's id."""
    account_id = vipcloud.json("accounts", "create", "ada@example.com", "--credit", "2.00")["id"]
    engine = storage.open_engine(data / "vipcloud.db")
    requests = []
    for number in (1, 2):
        opened = Opened(f"chatcmpl-{number}", account_id, "key_1", "deepseek-chat", 9_000, 1_795_000_000.0 + number)
        reached = Reached(opened.request_id, "deepseek", "deepseek-chat", 5, 6, 0, 3_000 * number, 2_000, 70, 40, 1)
        requests.append(rules.orphaned(opened, reached))
    with storage.writing(engine) as connection:
        ledger.post_usage(connection, requests)
    yield engine
    engine.dispose()


def test_right_books_are_said_to_be_right(vipcloud, books) -> None:
    assert "The books are right" in vipcloud("ledger", "verify").stdout
    told = vipcloud.json("ledger", "verify")
    assert (told["right"], told["breaks"], told["backlog_bytes"], told["rows"] > 3) == (True, [], 0, True)


def test_a_break_is_told_in_words_and_by_the_exit_status(vipcloud, books) -> None:
    with storage.writing(books) as connection:
        connection.execute(
            text("UPDATE balance SET credits_nanousd = credits_nanousd + 7 WHERE ledger_account = 'revenue'")
        )
    assert "revenue: the balance says" in vipcloud("ledger", "verify", status=1).stdout
    result = vipcloud("ledger", "verify", "--json", status=1)
    assert json.loads(result.stdout)["right"] is False


def test_an_overdrawn_customer_is_told(vipcloud, books) -> None:
    opened = Opened("chatcmpl-9", "nobody", None, "deepseek-chat", 9, 1_795_000_000.0)
    with storage.writing(books) as connection:
        ledger.post_usage(
            connection, [rules.orphaned(opened, Reached("chatcmpl-9", "deepseek", "m", 1, 1, 0, 5, 4, 1, 1, 1))]
        )
    assert "customer:nobody: overdrawn by $0.000000005" in vipcloud("ledger", "verify", status=1).stdout


def test_a_statement_shows_what_moved_and_what_was_left(vipcloud, books) -> None:
    told = vipcloud.json("ledger", "statement", "ada@example.com")
    assert [(line["kind"], line["amount_usd"], line["balance_usd"]) for line in told["transfers"]] == [
        ("grant", "2.00", "2.00"),
        ("charge", "-0.000003", "1.999997"),
        ("charge", "-0.000006", "1.999991"),
    ]
    assert [line["reference"] for line in told["transfers"]][1:] == ["chatcmpl-1", "chatcmpl-2"]
    assert (told["transfers"][0]["other"], told["balance_usd"]) == ("promo:starter", "1.999991")
    assert vipcloud.json("ledger", "statement", told["account"], "--last", "1")["transfers"] == told["transfers"][-1:]
    assert "chatcmpl-2" in vipcloud("ledger", "statement", "revenue").stdout
    assert vipcloud.json("ledger", "statement", "cost:deepseek")["balance_usd"] == "0.000004"
    assert "is no account of the books" in vipcloud("ledger", "statement", "slush", status=1).stderr


@pytest.mark.parametrize("what", ["transfers", "usage", "balances"])
def test_what_is_exported_can_be_read_and_added_up(vipcloud, books, what: str, tmp_path: Path) -> None:
    rows = list(csv.DictReader(io.StringIO(vipcloud("ledger", "export", what).stdout)))
    target = tmp_path / "out.jsonl"
    vipcloud("ledger", "export", what, "--format", "jsonl", "--output", str(target))
    lines = [json.loads(line) for line in target.read_text().splitlines()]
    assert [[str(value) if value is not None else "" for value in line.values()] for line in lines] == [
        list(row.values()) for row in rows
    ]
    if what == "transfers":
        paid = sum(int(row["amount_nanousd"]) for row in rows if row["credit"] == "revenue")
        assert paid == 9_000
        newer = vipcloud("ledger", "export", what, "--after", rows[0]["id"]).stdout
        assert list(csv.DictReader(io.StringIO(newer))) == rows[1:]


def test_a_file_that_cannot_be_written_is_told(vipcloud, books, tmp_path: Path) -> None:
    result = vipcloud("ledger", "export", "--output", str(tmp_path / "none" / "x.csv"), status=1)
    assert "No such file" in result.stderr

"""Operators, and that what they did stays written."""

import secrets
from collections.abc import Iterator

import pytest
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import IntegrityError

from vipcloud.accounts import operators, people, store
from vipcloud.accounts.store import AccountsError
from vipcloud.storage import engine as storage


@pytest.fixture
def connection(engine: Engine) -> Iterator[Connection]:
    with storage.writing(engine) as connection:
        yield connection


def test_an_operator_is_a_member_who_was_made_one(connection: Connection) -> None:
    account = store.create_account(connection, "ann@example.com", 1.0, secrets.token_bytes)
    bob = people.add_member(connection, account.id, "bob@example.com", "member", 2.0, secrets.token_bytes)
    assert not operators.is_operator(connection, bob.id)
    assert operators.appoint(connection, " BOB@example.com ", 3.0) == bob
    assert operators.is_operator(connection, bob.id)
    assert operators.list_operators(connection) == [bob]
    with pytest.raises(AccountsError, match="cannot sign in"):
        operators.appoint(connection, "eve@example.com", 3.0)
    people.remove_member(connection, account.id, bob.id)
    assert operators.list_operators(connection) == [], "who cannot sign in runs nothing"


def test_lines_are_found_by_who_and_by_what_and_the_newest_first(connection: Connection) -> None:
    for number in range(4):
        person, thing = f"{'ab'[number % 2]}@example.com", f"account {number // 2}"
        operators.note(connection, person, "credit given", thing, float(number), before="$1", after="x" * 2000)
    assert [deed.at for deed in operators.deeds(connection)] == [3.0, 2.0, 1.0, 0.0]
    assert [deed.at for deed in operators.deeds(connection, person="a@example.com")] == [2.0, 0.0]
    assert [deed.at for deed in operators.deeds(connection, object_="account 1")] == [3.0, 2.0]
    assert [deed.at for deed in operators.deeds(connection, skip=1, most=2)] == [2.0, 1.0]
    assert len(operators.deeds(connection)[0].after) == operators.TEXT_CHARS_MAX


@pytest.mark.parametrize("sql", ["UPDATE deed SET person = 'nobody'", "DELETE FROM deed"])
def test_what_was_done_stays_written(engine: Engine, sql: str) -> None:
    with storage.writing(engine) as connection:
        operators.note(connection, "a@example.com", "account closed", "acc_1", 1.0)
    with pytest.raises(IntegrityError, match="stays written"), storage.writing(engine) as connection:
        connection.execute(text(sql))
    with storage.reading(engine) as connection:
        assert len(operators.deeds(connection)) == 1


def test_reopening_ends_both_reasons_for_being_closed(connection: Connection) -> None:
    account = store.create_account(connection, "ann@example.com", 1.0, secrets.token_bytes)
    operators.close_account(connection, account.id)
    store.set_contested(connection, account.id, contested=True)
    operators.reopen_account(connection, account.id)
    found = store.account_by_id(connection, account.id)
    assert found is not None
    assert (found.suspended, found.contested) == (False, False)

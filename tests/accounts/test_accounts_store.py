import random
import re
from collections.abc import Iterator

import pytest
from sqlalchemy import Connection, Engine, select

from vipcloud.accounts import rules, store
from vipcloud.storage import engine as storage
from vipcloud.storage import schema

NOW = 1_795_000_000.0
dice = random.Random(7).randbytes


@pytest.fixture
def connection(engine: Engine) -> Iterator[Connection]:
    with storage.writing(engine) as connection:
        yield connection


@pytest.fixture
def account(connection: Connection) -> store.AccountRow:
    return store.create_account(connection, "Ada@Example.com", NOW, dice, tier="pro", rpm=5)


def test_an_account_is_found_by_its_address_in_any_case(connection: Connection, account: store.AccountRow) -> None:
    assert re.fullmatch(r"acct_[0-9A-Za-z]{16}", account.id)
    assert account == store.AccountRow(
        account.id, "ada@example.com", "pro", 5, None, None, suspended=False, created_at=NOW
    )
    assert store.find_account(connection, "ADA@example.COM") == account
    assert store.account_by_id(connection, account.id) == account
    assert store.list_accounts(connection) == [account]


def test_an_address_has_one_account(connection: Connection, account: store.AccountRow) -> None:
    with pytest.raises(store.AccountExists, match=r"^ada@example\.com has an account already\.$"):
        store.create_account(connection, "ada@EXAMPLE.com", NOW, dice)


def test_errors_say_what_is_wrong(connection: Connection, account: store.AccountRow) -> None:
    with pytest.raises(store.AccountNotFound, match=r"bob@example\.com has no account; `vipcloud accounts create"):
        store.find_account(connection, "bob@example.com")
    with pytest.raises(store.InvalidInput, match="'bob' is not an e-mail address"):
        store.create_account(connection, "bob", NOW, dice)
    with pytest.raises(store.InvalidInput, match="rpd must be 0"):
        store.create_account(connection, "bob@example.com", NOW, dice, rpd=-1)
    with pytest.raises(store.InvalidInput, match="A key's name is at most"):
        store.create_key(connection, account.id, NOW, dice, "x" * 101)
    for act in (
        lambda: store.create_key(connection, "acct_none", NOW, dice),
        lambda: store.set_suspended(connection, "acct_none", suspended=True),
        lambda: store.set_limits(connection, "acct_none", tier="pro", rpm=None, rpd=None, concurrency=None),
    ):
        with pytest.raises(store.AccountNotFound, match="No account has the id acct_none"):
            act()
    assert issubclass(store.AccountNotFound, store.AccountsError)


def test_limits_and_suspension_are_set(connection: Connection, account: store.AccountRow) -> None:
    store.set_limits(connection, account.id, tier="payg", rpm=None, rpd=0, concurrency=3)
    store.set_suspended(connection, account.id, suspended=True)
    changed = account._replace(tier="payg", rpm=None, rpd=0, concurrency=3, suspended=True)
    assert store.account_by_id(connection, account.id) == changed


def test_a_key_is_told_once_and_kept_as_a_hash(connection: Connection, account: store.AccountRow) -> None:
    made = store.create_key(connection, account.id, NOW, dice, " batch ")
    assert rules.well_formed(made.plaintext)
    assert made.row.hash == rules.key_hash(made.plaintext.encode())
    assert made.row.masked == f"{made.plaintext[:10]}…{made.plaintext[-4:]}"
    assert made.row.name == "batch"
    assert store.list_keys(connection) == store.list_keys(connection, account.id) == [made.row]
    assert store.list_keys(connection, "acct_other") == []
    assert store.key_by_hash(connection, made.row.hash) == (made.row, account)
    assert store.key_by_hash(connection, bytes(32)) is None
    everything = [connection.execute(select(table)).all() for table in schema.metadata.sorted_tables]
    assert str(made.row.hash) in str(everything)
    assert made.plaintext not in str(everything)


@pytest.mark.parametrize(
    "reference",
    [
        lambda key: key.row.id,
        lambda key: key.plaintext,
        lambda key: f" {key.plaintext}\n",
        lambda key: key.row.masked,
        lambda key: key.row.masked[:10],
    ],
    ids=["id", "key", "key with space", "as shown", "its beginning"],
)
def test_a_key_is_revoked_by_any_of_its_names(connection: Connection, account: store.AccountRow, reference) -> None:  # type: ignore[no-untyped-def]
    other = store.create_key(connection, account.id, NOW, dice)
    made = store.create_key(connection, account.id, NOW, dice)
    revoked = store.revoke_key(connection, reference(made), NOW + 60)
    assert revoked == made.row._replace(revoked_at=NOW + 60)
    assert store.revoke_key(connection, made.row.id, NOW + 99) == revoked
    assert {key.id: key.revoked_at for key in store.list_keys(connection)} == {
        other.row.id: None,
        made.row.id: NOW + 60,
    }


@pytest.mark.parametrize("reference", ["", "key_none", "vc-sk-", "vc-sk-%", "vc-sk-____", "…", "vc-sk-7Qm2"])
def test_no_other_key_is_revoked(connection: Connection, account: store.AccountRow, reference: str) -> None:
    made = store.create_key(connection, account.id, NOW, dice)
    with pytest.raises(store.KeyNotFound):
        store.revoke_key(connection, reference, NOW)
    assert store.list_keys(connection) == [made.row]


def test_keys_that_begin_alike_must_be_named_in_full(connection: Connection, account: store.AccountRow) -> None:
    alike = iter([b"\0" * 40 + bytes(24), b"a" * 32, b"\0" * 39 + b"\1" + bytes(24), b"b" * 32])
    made = [store.create_key(connection, account.id, NOW, lambda _: next(alike)) for _ in range(2)]
    with pytest.raises(store.AmbiguousKey, match=made[0].row.id):
        store.revoke_key(connection, "vc-sk-0000", NOW)
    assert store.revoke_key(connection, made[1].row.masked, NOW).id == made[1].row.id


def test_every_write_is_in_the_change_feed(connection: Connection) -> None:
    assert store.latest_change(connection) == 0
    account = store.create_account(connection, "ada@example.com", NOW, dice)
    made = store.create_key(connection, account.id, NOW, dice)
    store.set_suspended(connection, account.id, suspended=False)
    store.revoke_key(connection, made.row.id, NOW)
    feed = store.changes_since(connection, 0)
    assert [(change.kind, change.subject) for change in feed] == [
        ("account", account.id),
        ("key", made.row.hash.hex()),
        ("account", account.id),
        ("key", made.row.hash.hex()),
    ]
    assert store.latest_change(connection) == feed[-1].seq
    assert store.changes_since(connection, feed[1].seq) == feed[2:]
    assert store.changes_since(connection, 0, rows_max=1) == feed[:1]

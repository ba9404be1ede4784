"""Which `Idempotency-Key`s were used, and for which request. Hashes only: no key and no body is kept.

A row is made when the bookkeeper learns that the request was opened, and taken away when it ended without a charge or
an answer: then the key is free again. Callers bring a connection.
"""

from collections.abc import Mapping

from msgspec import Struct
from sqlalchemy import Connection, and_, delete, insert, select

from vipcloud.ledger import rules
from vipcloud.ledger.records import Opened, Settled
from vipcloud.storage import schema

_table, _usage = schema.idempotency, schema.usage

Name = tuple[str, bytes]  # the account's id, and the SHA-256 of the key


class Used(Struct, frozen=True):
    """`charge_nanousd` is None while the request runs, or is not booked yet."""

    request_id: str
    body_hash: bytes
    charge_nanousd: int | None


def find(connection: Connection, name: Name, since: float) -> Used | None:
    """The request that this key was used for, unless that began before `since`."""
    row = connection.execute(
        select(_table.c.request_id, _table.c.body_hash, _usage.c.charge_nanousd)
        .select_from(_table.join(_usage, _usage.c.request_id == _table.c.request_id, isouter=True))
        .where(_table.c.account_id == name[0], _table.c.key_hash == name[1], _table.c.created_at >= since)
    ).one_or_none()
    return None if row is None else Used(*row)


def follow(opened: Opened, settled: Settled | None, changes: dict[Name, Opened | None]) -> None:
    """Add to `changes` what a request that was opened with a key, or its end, means for the key.

    An end that is told after the key was used anew changes nothing.
    """
    if opened.key_hash is not None:
        name = opened.account_id, opened.key_hash
        if settled is None:
            changes[name] = opened
        elif rules.frees_key(settled):
            user = changes.get(name)
            if user is None or user.request_id == opened.request_id:
                changes[name] = None


def store(connection: Connection, changes: Mapping[Name, Opened | None]) -> None:
    """Set what each key was used for; None: for nothing."""
    for account_id, key_hash in changes:
        connection.execute(delete(_table).where(and_(_table.c.account_id == account_id, _table.c.key_hash == key_hash)))
    rows = [
        {
            "account_id": account_id,
            "key_hash": key_hash,
            "body_hash": opened.body_hash,
            "request_id": opened.request_id,
            "created_at": opened.opened_at,
        }
        for (account_id, key_hash), opened in changes.items()
        if opened is not None
    ]
    if rows:
        connection.execute(insert(_table), rows)


def forget(connection: Connection, before: float) -> int:
    """Drop the keys of requests that began before. Returns how many."""
    return connection.execute(delete(_table).where(_table.c.created_at < before)).rowcount

"""The only SQL that writes transfers, and the questions asked of the ledger. Callers bring a connection.

`balance` is the fold of `transfer`, kept in the transaction that adds to it, so that what a customer has is one row
to read; `differences` compares the two.
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, func, select, text
from sqlalchemy.exc import IntegrityError

from vipcloud.ledger import rules
from vipcloud.ledger.journal import Settled
from vipcloud.ledger.rules import Sums, Transfer
from vipcloud.money import NanoUSD
from vipcloud.storage import engine as storage
from vipcloud.storage import schema

IDS_PER_QUERY = 500  # SQLite takes at most 32,766 parameters, older ones 999

# The same text on SQLite (3.24 and later) and PostgreSQL; SQLAlchemy has one construct for each, none for both.
_ADD_TO_BALANCE = text(
    "INSERT INTO balance (ledger_account, debits_nanousd, credits_nanousd) VALUES (:name, :debits, :credits) "
    "ON CONFLICT (ledger_account) DO UPDATE SET debits_nanousd = balance.debits_nanousd + excluded.debits_nanousd, "
    "credits_nanousd = balance.credits_nanousd + excluded.credits_nanousd"
)


_balances = select(schema.balance)


class LedgerError(Exception):
    """The ledger cannot do what was asked. The text is for the operator."""


class AlreadyPosted(LedgerError):
    """A transfer with this id is in the books."""


def grant(connection: Connection, grant_id: str, account_id: str, amount: NanoUSD, created_at: float) -> None:
    """Give `account_id` credit, once per `grant_id`. Raises LedgerError, or AlreadyPosted for a `grant_id` used before.

    That the account exists is the caller's to know.
    """
    try:
        transfer = rules.grant(grant_id, account_id, amount, created_at)
    except ValueError as error:
        raise LedgerError(f"Credit cannot be given: {error}.") from error
    if connection.scalar(select(schema.transfer.c.id).where(schema.transfer.c.id == transfer.id)) is not None:
        raise AlreadyPosted(f"The grant {grant_id} is in the books already.")
    try:
        post(connection, [transfer])
    except IntegrityError as error:
        raise LedgerError("Credit cannot be given: it is more than the ledger can hold.") from error
    schema.announce(connection, schema.ACCOUNT_CHANGED, account_id)


def post(connection: Connection, transfers: list[Transfer]) -> None:
    """Add `transfers` to the books and to the balances. Raises IntegrityError if one is there already."""
    if not transfers:
        return
    storage.insert_rows(connection, schema.transfer, transfers)
    connection.execute(
        _ADD_TO_BALANCE,
        [
            {"name": name, "debits": sums.debits_nanousd, "credits": sums.credits_nanousd}
            for name, sums in rules.fold(transfers).items()
        ],
    )


def post_usage(connection: Connection, rows: Sequence[tuple[object, ...]], charges: list[Transfer]) -> None:
    """Add usage rows (values in the order of `schema.usage`) and their charges. Raises IntegrityError on a repeat."""
    storage.insert_rows(connection, schema.usage, rows)
    post(connection, charges)


def booked_requests(connection: Connection, request_ids: list[str]) -> set[str]:
    """Those of `request_ids` that have a usage row."""
    found: set[str] = set()
    column = schema.usage.c.request_id
    for start in range(0, len(request_ids), IDS_PER_QUERY):
        found.update(connection.scalars(select(column).where(column.in_(request_ids[start : start + IDS_PER_QUERY]))))
    return found


def sums(connection: Connection, account_id: str) -> Sums:
    """A customer's account: credits are what was granted, debits what was charged, so far as booked."""
    row = connection.execute(
        select(schema.balance.c.debits_nanousd, schema.balance.c.credits_nanousd).where(
            schema.balance.c.ledger_account == rules.customer(account_id)
        )
    ).one_or_none()
    return Sums(*row) if row else Sums()


def balance(connection: Connection, account_id: str) -> NanoUSD:
    """Granted less charged, so far as booked: requests of the last second may be missing."""
    return sums(connection, account_id).balance_nanousd


def recent_usage(connection: Connection, account_id: str | None = None, rows_max: int = 20) -> list[Settled]:
    """The latest requests, newest first, of one account or of all."""
    query = select(schema.usage).order_by(schema.usage.c.started_at.desc()).limit(rows_max)
    if account_id is not None:
        query = query.where(schema.usage.c.account_id == account_id)
    return [_settled(row) for row in connection.execute(query)]


def usage_of(connection: Connection, request_id: str) -> Settled | None:
    """How a request ended; None if it is unknown, or not booked yet."""
    row = connection.execute(select(schema.usage).where(schema.usage.c.request_id == request_id)).one_or_none()
    return _settled(row) if row else None


def differences(connection: Connection) -> list[str]:
    """What is wrong with the books, in words; empty when they are right. Reads every transfer."""
    table = schema.transfer
    folded: dict[str, list[int]] = {}
    for side, column in enumerate((table.c.debit, table.c.credit)):
        for name, total in connection.execute(select(column, func.sum(table.c.amount_nanousd)).group_by(column)):
            folded.setdefault(name, [0, 0])[side] = int(total)
    kept = {row.ledger_account: [row.debits_nanousd, row.credits_nanousd] for row in connection.execute(_balances)}
    found = [
        f"{name}: the balance says {kept.get(name, [0, 0])}, the transfers {folded.get(name, [0, 0])} (debits, credits)"
        for name in sorted(kept.keys() | folded.keys())
        if kept.get(name, [0, 0]) != folded.get(name, [0, 0])
    ]
    found += [f"request {name}: its usage row and its charge differ" for name in _unpaired(connection)]
    return found


def _unpaired(connection: Connection) -> list[str]:
    """Requests whose usage row has no charge of its amount, and charges without a usage row."""
    usage, charge = schema.usage.c, schema.transfer.c
    both = schema.usage.join(schema.transfer, charge.id == usage.request_id + rules.CHARGE_SUFFIX, isouter=True)
    charged = func.coalesce(charge.amount_nanousd, 0)
    differing = select(usage.request_id).select_from(both).where(usage.charge_nanousd != charged)
    both = schema.transfer.join(schema.usage, charge.request_id == usage.request_id, isouter=True)
    alone = select(charge.request_id).select_from(both).where(charge.kind == "charge", usage.request_id.is_(None))
    return [*connection.scalars(differing), *connection.scalars(alone)]


def _settled(row: Row[Any]) -> Settled:
    values: tuple[Any, ...] = tuple(row)
    return Settled(*values)  # the columns are the record's fields, in order; a test holds them together

"""The only SQL that writes transfers, and the questions asked of the ledger. Callers bring a connection.

`balance` is the fold of `transfer`, kept in the transaction that adds to it, so that what a customer has is one row
to read; `usage_day` is that of `usage`. `audit` compares them.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, case, func, or_, select, text
from sqlalchemy.exc import DataError, IntegrityError

from vipcloud.ledger import alike, audit, availability, rules
from vipcloud.ledger.alike import Alike, Shared
from vipcloud.ledger.records import Aborted, Settled
from vipcloud.ledger.rules import Posting, Sums, Transfer, Withdrawn
from vipcloud.limits.rules import month
from vipcloud.money import NanoUSD
from vipcloud.storage import engine as storage
from vipcloud.storage import schema

DAY_S = 86_400
IDS_PER_QUERY = 500  # SQLite takes at most 32,766 parameters, older ones 999

# The same text on SQLite (3.24 and later) and PostgreSQL; SQLAlchemy has one construct for each, none for both.
_ADD_TO_BALANCE = text(
    "INSERT INTO balance (ledger_account, debits_nanousd, credits_nanousd) VALUES (:name, :debits, :credits) "
    "ON CONFLICT (ledger_account) DO UPDATE SET debits_nanousd = balance.debits_nanousd + excluded.debits_nanousd, "
    "credits_nanousd = balance.credits_nanousd + excluded.credits_nanousd"
)
_ADD_TO_DAY = text(
    "INSERT INTO usage_day (day, account_id, key_id, model, requests, prompt_tokens, completion_tokens, "
    "charge_nanousd, cost_nanousd, failed) VALUES (:day, :account_id, :key_id, :model, :requests, :prompt_tokens, "
    ":completion_tokens, :charge_nanousd, :cost_nanousd, :failed) "
    "ON CONFLICT (day, account_id, key_id, model) DO UPDATE SET "
    "requests = usage_day.requests + excluded.requests, "
    "prompt_tokens = usage_day.prompt_tokens + excluded.prompt_tokens, "
    "completion_tokens = usage_day.completion_tokens + excluded.completion_tokens, "
    "charge_nanousd = usage_day.charge_nanousd + excluded.charge_nanousd, "
    "cost_nanousd = usage_day.cost_nanousd + excluded.cost_nanousd, "
    "failed = usage_day.failed + excluded.failed"
)

_usage, _transfer, _balance, _day = schema.usage, schema.transfer, schema.balance, schema.usage_day
_payer = rules.CUSTOMER_PREFIX + _usage.c.account_id


class LedgerError(Exception):
    """The ledger cannot do what was asked. The text is for the operator."""


class AlreadyPosted(LedgerError):
    """A transfer with this cause is in the books."""


def grant(
    connection: Connection, grant_id: str, account_id: str, amount: NanoUSD, created_at: float, reason: str = "grants"
) -> None:
    """Give `account_id` credit, once per `grant_id`. Raises LedgerError, or AlreadyPosted for a `grant_id` used before.

    That the account exists is the caller's to know.
    """
    try:
        transfer = rules.grant(grant_id, account_id, amount, created_at, reason)
    except ValueError as error:
        raise LedgerError(f"Credit cannot be given: {error}.") from error
    if _is_posted(connection, transfer):
        raise AlreadyPosted(f"The grant {grant_id} is in the books already.")
    _move(connection, [transfer], account_id)


def redeem(connection: Connection, code: str, account_id: str, amount: NanoUSD, created_at: float) -> None:
    """Give `account_id` the credit of a promo code, once per code and account. Raises LedgerError, or AlreadyPosted."""
    try:
        transfer = rules.promised(code, account_id, amount, created_at)
    except ValueError as error:
        raise LedgerError(f"Credit cannot be given: {error}.") from error
    _move_all(connection, [transfer], account_id)


def pay_in(connection: Connection, payment_id: str, account_id: str, amount: NanoUSD, created_at: float) -> None:
    """Add what `account_id` paid by card, once per `payment_id`. Raises LedgerError, or AlreadyPosted."""
    try:
        transfer = rules.paid_in(payment_id, account_id, amount, created_at)
    except ValueError as error:
        raise LedgerError(f"Credit cannot be added: {error}.") from error
    if _is_posted(connection, transfer):
        raise AlreadyPosted(f"The payment {payment_id} is in the books already.")
    _move(connection, [transfer], account_id)


def withdraw(
    connection: Connection,
    withdrawal_id: str,
    kind: Withdrawn,
    account_id: str,
    amount: NanoUSD,
    created_at: float,
    *,
    paid: bool,
) -> None:
    """Take credit from `account_id`, once per `withdrawal_id`; `paid`: the money has left us already.

    That no running request holds it is the caller's to see to. Raises LedgerError, or AlreadyPosted.
    """
    if amount > balance(connection, account_id):
        raise LedgerError(f"{account_id} has less than is to be withdrawn.")
    transfers = [rules.withdrawal(withdrawal_id, kind, account_id, amount, created_at)]
    if paid:
        transfers.append(rules.paid_out(withdrawal_id, kind, account_id, amount, created_at))
    _move_all(connection, transfers, account_id)


def pay_out(
    connection: Connection, withdrawal_id: str, kind: Withdrawn, account_id: str, amount: NanoUSD, created_at: float
) -> None:
    """Note that the money of a withdrawal has left us, once. Raises LedgerError, or AlreadyPosted."""
    _move_all(connection, [rules.paid_out(withdrawal_id, kind, account_id, amount, created_at)], account_id)


def give_back(
    connection: Connection,
    withdrawal_id: str,
    kind: Withdrawn,
    account_id: str,
    amount: NanoUSD,
    created_at: float,
    *,
    was_paid: bool,
) -> None:
    """Undo a withdrawal, once. Raises LedgerError, or AlreadyPosted."""
    transfer = rules.given_back(withdrawal_id, kind, account_id, amount, created_at, was_paid=was_paid)
    _move_all(connection, [transfer], account_id)


def post_usage(connection: Connection, settled: list[Settled]) -> None:
    """Add a usage row for each of `settled`, the charges, what the calls cost us, and how they ended.

    Raises IntegrityError if a request is there already.
    """
    post_alike(connection, alike.together(settled))


def post_alike(connection: Connection, lots: list[Alike]) -> None:
    """The same for rows that lie together already."""
    if not lots:
        return
    first = _next_number(connection)
    following = first + sum(lot.requests for lot in lots)
    amounts: dict[Posting, int] = {}
    days: dict[tuple[int, str, str, str], tuple[int, ...]] = {}
    for lot in lots:
        shared, charge, cost = lot.shared, lot.sum("charge_nanousd"), lot.sum("cost_nanousd")
        for posting, amount in rules.due(shared.account_id, shared.provider, charge, cost, lot.sum("variance_nanousd")):
            amounts[posting] = amounts.get(posting, 0) + amount
        failed = lot.requests if shared.outcome in rules.FAILED else 0
        used = lot.requests, lot.sum("prompt_tokens"), lot.sum("completion_tokens"), charge, cost, failed
        day = lot.hour * alike.HOUR_S // DAY_S, shared.account_id, shared.key_id or "", shared.model
        before = days.get(day)
        days[day] = used if before is None else tuple(map(int.__add__, before, used))
    pieces, rest = alike.numbered(lots, first, storage.ROWS_PER_STATEMENT)
    storage.insert_alike(connection, _usage, Shared._fields, pieces)
    storage.insert_rows(connection, _usage, rest)
    columns = _day.columns.keys()
    connection.execute(_ADD_TO_DAY, [dict(zip(columns, (*day, *days[day]), strict=True)) for day in sorted(days)])
    at = max(max(lot.column("started_at")) for lot in lots)
    _post(connection, rules.posted(amounts, first, following - 1, at), following)
    availability.add(connection, lots)


def post_aborted(connection: Connection, records: list[Aborted]) -> None:
    """Post what calls cost us that nobody pays for, once each however often they were journaled."""
    transfers = {transfer.cause: transfer for record in records if (transfer := rules.aborted(record)).amount_nanousd}
    causes = [cause for cause in transfers if cause is not None]
    for start in range(0, len(causes), IDS_PER_QUERY):
        part = causes[start : start + IDS_PER_QUERY]
        for cause in connection.scalars(select(_transfer.c.cause).where(_transfer.c.cause.in_(part))):
            del transfers[cause]
    _post(connection, list(transfers.values()))


def booked_requests(connection: Connection, request_ids: list[str]) -> set[str]:
    """Those of `request_ids` that have a usage row."""
    found: set[str] = set()
    column = _usage.c.request_id
    for start in range(0, len(request_ids), IDS_PER_QUERY):
        found.update(connection.scalars(select(column).where(column.in_(request_ids[start : start + IDS_PER_QUERY]))))
    return found


def sums(connection: Connection, account_id: str) -> Sums:
    """A customer's account, so far as booked: credits are what was given and paid less what was withdrawn, debits what
    was charged.

    Gateways count charges by themselves; so a withdrawal must lower what they know to be granted.
    """
    whole = sums_of(connection, rules.customer(account_id))
    withdrawn = sums_of(connection, rules.withdrawn(account_id)).credits_nanousd
    return Sums(whole.debits_nanousd - withdrawn, whole.credits_nanousd - withdrawn)


def balance(connection: Connection, account_id: str) -> NanoUSD:
    """Granted less charged, so far as booked: requests of the last second may be missing."""
    return sums(connection, account_id).balance_nanousd


def recent_usage(connection: Connection, account_id: str | None = None, rows_max: int = 20) -> list[Settled]:
    """The requests that began last of those booked, newest first; of one account or of all."""
    query = select(_usage).order_by(_usage.c.started_at.desc(), _usage.c.id.desc()).limit(rows_max)
    if account_id is not None:
        query = query.where(_usage.c.account_id == account_id)
    return [_settled(row) for row in connection.execute(query)]


def usage_of(connection: Connection, request_id: str) -> Settled | None:
    """How a request ended; None if it is unknown, or not booked yet."""
    row = connection.execute(select(_usage).where(_usage.c.request_id == request_id)).one_or_none()
    return _settled(row) if row else None


def sums_of(connection: Connection, ledger_account: str) -> Sums:
    """Of any account of the chart."""
    row = connection.execute(
        select(_balance.c.debits_nanousd, _balance.c.credits_nanousd).where(_balance.c.ledger_account == ledger_account)
    ).one_or_none()
    return Sums(*row) if row else Sums()


def account_charges_by_day(connection: Connection, account_id: str, since_day: int) -> dict[int, int]:
    """What an account was charged on each UTC day (since 1970) from `since_day` on, so far as booked."""
    which = (_day.c.account_id == account_id) & (_day.c.day >= since_day)
    rows = select(_day.c.day, func.sum(_day.c.charge_nanousd)).where(which).group_by(_day.c.day)
    return {day: int(charge) for day, charge in connection.execute(rows)}


def charges_by_day(connection: Connection, key_id: str) -> dict[int, int]:
    """What requests with this key were charged, so far as booked: UTC day since 1970 → nano-dollars."""
    rows = select(_day.c.day, func.sum(_day.c.charge_nanousd)).where(_day.c.key_id == key_id).group_by(_day.c.day)
    return {day: int(charge) for day, charge in connection.execute(rows)}


def requests_on(connection: Connection, day: int) -> dict[str, int]:
    """How many requests there were on a UTC day (since 1970), so far as booked: by account, and by key."""
    query = select(_day.c.account_id, _day.c.key_id, func.sum(_day.c.requests)).where(_day.c.day == day)
    found: dict[str, int] = {}
    for account_id, key_id, requests in connection.execute(query.group_by(_day.c.account_id, _day.c.key_id)):
        for name in (account_id, key_id):
            if name:
                found[name] = found.get(name, 0) + int(requests)
    return found


class KeySpending(NamedTuple):
    """What a key was charged so far as booked: ever, today, since Monday, and since the first (UTC)."""

    total: int = 0
    daily: int = 0
    weekly: int = 0
    monthly: int = 0


def account_requests_on(connection: Connection, account_id: str, day: int) -> int:
    """How many requests an account made on a UTC day (since 1970), so far as booked."""
    which = (_day.c.account_id == account_id) & (_day.c.day == day)
    return int(connection.scalar(select(func.sum(_day.c.requests)).where(which)) or 0)


def spending_of_keys(connection: Connection, key_ids: Sequence[str], today: int) -> dict[str, KeySpending]:
    """By key; those that were charged nothing may be missing. `today` in days since 1970."""
    charge, day = _day.c.charge_nanousd, _day.c.day
    since = (today, today - (today + 3) % 7, month(today)[0])  # day 0 was a Thursday
    sums = [func.sum(case((day >= first, charge), else_=0)) for first in since]
    query = select(_day.c.key_id, func.sum(charge), *sums).where(_day.c.key_id.in_(key_ids)).group_by(_day.c.key_id)
    return {name: KeySpending(*map(int, amounts)) for name, *amounts in connection.execute(query)}


class Line(NamedTuple):
    """A transfer, or one request's part of it, as one of its accounts sees it: above 0 where it entered.

    `id` is the number of the transfer, or the usage row; `reference` is the cause, or the request.
    """

    id: int
    created_at: float
    kind: str
    reference: str
    other: str
    amount_nanousd: NanoUSD
    balance_nanousd: NanoUSD


def statement(connection: Connection, ledger_account: str, lines_max: int) -> list[Line]:
    """What moved an account last, oldest first, with the balance after each. A line per request that was charged."""
    query = (
        select(_transfer)
        .where(or_(_transfer.c.debit == ledger_account, _transfer.c.credit == ledger_account))
        .order_by(_transfer.c.id.desc())
        .limit(lines_max)
    )
    left = sums_of(connection, ledger_account).balance_nanousd
    lines: list[Line] = []
    for number, *fields in connection.execute(query):
        transfer = Transfer(*fields)
        entered = transfer.credit == ledger_account
        other = transfer.debit if entered else transfer.credit
        for id_, at, reference, part in _parts(connection, number, transfer, lines_max - len(lines)):
            amount = part if entered else -part
            lines.append(Line(id_, at, transfer.kind, reference, other, NanoUSD(amount), left))
            left = NanoUSD(left - amount)
    return lines[::-1]


def _parts(connection: Connection, number: int, transfer: Transfer, rows_max: int) -> list[tuple[int, float, str, int]]:
    """Number, time, reference and amount of each request of a charge, the newest first; of another transfer itself."""
    if transfer.kind != rules.CHARGE:
        return [(number, transfer.created_at, transfer.cause or "", transfer.amount_nanousd)]
    _, first, last = rules.covered(number, transfer)
    columns = _usage.c
    charged = select(columns.id, columns.started_at, columns.request_id, columns.charge_nanousd).where(
        columns.id.between(first, last), _payer == transfer.debit, columns.charge_nanousd != 0
    )
    rows = connection.execute(charged.order_by(columns.id.desc()).limit(rows_max))
    return [(row.id, row.started_at, row.request_id, row.charge_nanousd) for row in rows]


def differences(connection: Connection) -> list[str]:
    """What is wrong with the books, in words; empty when they are right. Reads every row."""
    return audit.Audit().check(connection)


def _next_number(connection: Connection) -> int:
    """The next number in the books, to be used in this transaction, which has the writer's place.

    Usage rows and transfers share one sequence, so that it is told which came first.
    """
    last = select(select(func.max(_usage.c.id)).scalar_subquery(), select(func.max(_transfer.c.id)).scalar_subquery())
    return 1 + max(number or 0 for number in connection.execute(last).one())


def _is_posted(connection: Connection, transfer: Transfer) -> bool:
    return connection.scalar(select(_transfer.c.id).where(_transfer.c.cause == transfer.cause)) is not None


def _move_all(connection: Connection, transfers: list[Transfer], account_id: str) -> None:
    if _is_posted(connection, transfers[0]):
        raise AlreadyPosted(f"{transfers[0].cause} is in the books already.")
    _move(connection, transfers, account_id)


def _move(connection: Connection, transfers: list[Transfer], account_id: str) -> None:
    """Post transfers of a customer's credit, and tell the gateways. Raises LedgerError."""
    try:
        _post(connection, transfers)
    except (IntegrityError, DataError) as error:  # a sum beyond int64 is either, by the database
        raise LedgerError("Credit cannot be given: it is more than the ledger can hold.") from error
    schema.announce(connection, schema.ACCOUNT_CHANGED, account_id)


def _post(connection: Connection, transfers: list[Transfer], number: int | None = None) -> None:
    """Add transfers under the numbers from `number` on, which are free."""
    if transfers:
        first = _next_number(connection) if number is None else number
        values: list[object] = []
        for offset, transfer in enumerate(transfers):
            values += [first + offset, *transfer]
        storage.insert_rows(connection, _transfer, values)
        _add_to_balances(connection, rules.moved(transfers))


def _add_to_balances(connection: Connection, moved: Mapping[str, Sums]) -> None:
    if moved:
        rows = [{"name": name, "debits": left, "credits": entered} for name, (left, entered) in moved.items()]
        connection.execute(_ADD_TO_BALANCE, rows)


def _settled(row: Row[Any]) -> Settled:
    values: tuple[Any, ...] = tuple(row)
    return Settled(*values[1:])  # after the number, the columns are the record's fields; a test holds them together

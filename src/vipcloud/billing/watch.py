"""Named queries for what is watched of credit: who is mailed when it runs low, whose saved card is charged then.

Callers bring a connection; what changes something asks again in its own transaction, since several consoles look.
"""

from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, Select, func, insert, select, update

from vipcloud.billing import rules
from vipcloud.billing.rules import Topup
from vipcloud.ledger import store as ledger
from vipcloud.ledger.rules import CUSTOMER_PREFIX
from vipcloud.storage import schema

MAIL_PAUSE_S = 86_400.0  # between two mails about low credit

_account, _balance, _topup, _watch = schema.account, schema.balance, schema.topup, schema.credit_watch
_left: ColumnElement[int] = func.coalesce(_balance.c.credits_nanousd - _balance.c.debits_nanousd, 0)


class Watch(NamedTuple):
    """What an account asked for, and how it stands. The fields are the table's columns, in their order.

    `low_nanousd`: None is the setting's, 0 is never. `low_at` is None while credit is above, and as long as nobody was
    mailed. `stopped_reason` is why the last charge failed, `capped_at` when the monthly cap was last told of.
    """

    account_id: str
    low_nanousd: int | None = None
    low_at: float | None = None
    mailed_at: float | None = None
    customer_id: str | None = None
    method_id: str | None = None
    card: str | None = None
    recharge_on: bool = False
    below_cents: int | None = None
    amount_cents: int | None = None
    cap_cents: int | None = None
    stopped_reason: str | None = None
    stopped_told: bool = False
    capped_at: float | None = None


class Standing(NamedTuple):
    """An account's watch, and its credit so far as booked."""

    watch: Watch
    left_nanousd: int


def find(connection: Connection, account_id: str) -> Watch:
    """The defaults where nothing was asked for yet."""
    row = connection.execute(select(_watch).where(_watch.c.account_id == account_id)).one_or_none()
    return Watch(*row) if row else Watch(account_id)


def save(connection: Connection, account_id: str, **values: Any) -> None:
    """Change what stands in the columns named."""
    if connection.execute(update(_watch).where(_watch.c.account_id == account_id).values(values)).rowcount == 0:
        connection.execute(insert(_watch).values(account_id=account_id, **values))


def crossed(connection: Connection, low_nanousd: int, now_s: float, account_id: str | None = None) -> list[Standing]:
    """Whose credit has fallen below what it is watched for and who may be mailed, or whose has risen again.

    `low_nanousd` is for who has not said. An account that never had as much has crossed nothing. One that recharges is
    told of that instead.
    """
    low = func.coalesce(_watch.c.low_nanousd, low_nanousd)
    fell = (
        (_left < low)
        & (_balance.c.credits_nanousd >= low)
        & _watch.c.low_at.is_(None)
        & (func.coalesce(_watch.c.mailed_at, 0.0) <= now_s - MAIL_PAUSE_S)
        & (func.coalesce(_watch.c.recharge_on, False) == False)  # noqa: E712 - SQL
    )
    rose = (_left >= low) & _watch.c.low_at.is_not(None)
    return _standings(connection, _accounts(account_id).where(fell | rose))


def due(connection: Connection, account_id: str | None = None) -> list[Standing]:
    """Whose saved card is to be charged: credit is below what was chosen, and no charge is under way."""
    charging = select(_topup.c.id).where(
        _topup.c.account_id == _account.c.id, _topup.c.charged_to.is_not(None), _topup.c.state == "waiting"
    )
    query = _accounts(account_id).where(
        _watch.c.recharge_on,
        _watch.c.method_id.is_not(None),
        _left < _watch.c.below_cents * rules.NANO_PER_CENT,
        ~charging.exists(),
    )
    return _standings(connection, query)


def left(connection: Connection, account_id: str) -> int:
    """Nano-dollars, so far as booked."""
    return ledger.balance(connection, account_id)


def charged_cents(connection: Connection, account_id: str, since_s: float) -> int:
    """What the saved card was charged since, or is about to be."""
    query = select(func.sum(_topup.c.amount_cents)).where(
        _topup.c.account_id == account_id,
        _topup.c.charged_to.is_not(None),
        _topup.c.created_at >= since_s,
        _topup.c.state.in_(("waiting", "added")),
    )
    return int(connection.scalar(query) or 0)


def charging(connection: Connection) -> list[Topup]:
    """Charges that are under way, oldest first."""
    query = select(_topup).where(_topup.c.charged_to.is_not(None), _topup.c.state == "waiting")
    return [Topup(*row) for row in connection.execute(query.order_by(_topup.c.created_at))]


def stopped(connection: Connection) -> list[Watch]:
    """Whose recharging was switched off by a refusal that nobody was told of yet."""
    query = select(_watch).where(_watch.c.stopped_reason.is_not(None), ~_watch.c.stopped_told)
    return [Watch(*row) for row in connection.execute(query)]


def stop(connection: Connection, account_id: str, reason: str) -> None:
    """The card was refused: it is not charged again until somebody says so."""
    save(connection, account_id, recharge_on=False, stopped_reason=reason, stopped_told=False)


def unnamed(connection: Connection, since_s: float) -> list[Topup]:
    """Payments since whose card is not known yet."""
    query = select(_topup).where(_topup.c.state == "added", _topup.c.card.is_(None), _topup.c.decided_at >= since_s)
    return [Topup(*row) for row in connection.execute(query)]


def _accounts(account_id: str | None) -> Select[Any]:
    """Open accounts, their watches and their credit."""
    query = (
        select(_account.c.id, _left, _watch)
        .select_from(
            _account.join(_balance, _balance.c.ledger_account == CUSTOMER_PREFIX + _account.c.id, isouter=True).join(
                _watch, _watch.c.account_id == _account.c.id, isouter=True
            )
        )
        .where(~_account.c.suspended, ~_account.c.contested)
    )
    return query if account_id is None else query.where(_account.c.id == account_id)


def _standings(connection: Connection, query: Select[Any]) -> list[Standing]:
    found = []
    for name, left, *columns in connection.execute(query):
        watch = Watch(name) if columns[0] is None else Watch(*columns)
        found.append(Standing(watch, int(left)))
    return found

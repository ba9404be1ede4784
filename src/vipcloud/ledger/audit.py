"""Whether the books are right: the invariants that SQL cannot hold by itself, and those that it holds, once more.

    a balance is the fold of the transfers that name it, and every account is in the chart
    a usage row with a charge has a transfer of that amount from its customer under its number; no charge is without one
    what calls cost is posted, by provider, for exactly the usage rows that the transfer names
    no charge is above its hold; a settled request is not open; usage by day is the fold of the usage rows

Rows are immutable and numbers rise in the order of commits, so an `Audit` reads every row once: its next check looks at
what is new. A fresh one reads everything.
"""

from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, and_, case, func, or_, select

from vipcloud.ledger import rules
from vipcloud.ledger.rules import Sums
from vipcloud.storage import schema

SHOWN_MAX = 100  # of one kind of break
ROWS_PER_FETCH = 1000

_usage, _transfer, _balance, _day = schema.usage, schema.transfer, schema.balance, schema.usage_day
_open = schema.open_request
_payer = rules.CUSTOMER_PREFIX + _usage.c.account_id
_USED = (
    _usage.c.prompt_tokens,
    _usage.c.completion_tokens,
    _usage.c.charge_nanousd,
    _usage.c.cost_nanousd,
    case((_usage.c.outcome.in_(rules.FAILED), 1), else_=0),
)
_USED_IN_DAYS = (
    _day.c.requests,
    _day.c.prompt_tokens,
    _day.c.completion_tokens,
    _day.c.charge_nanousd,
    _day.c.cost_nanousd,
    _day.c.failed,
)


class Audit:
    """The books as read so far. Give each check a connection that sees one moment (`storage.reading`)."""

    def __init__(self) -> None:
        self._forget()

    def _forget(self) -> None:
        self._last = 0
        self._sums: dict[str, Sums] = {}
        self._used: dict[tuple[str, str, str], tuple[int, ...]] = {}

    @property
    def rows(self) -> int:
        """How many usage rows and transfers were read."""
        return self._last

    def check(self, connection: Connection) -> list[str]:
        """What is wrong, in words; empty when all is right. After a break the next check begins anew."""
        top = _last_number(connection)
        if top < self._last:
            self._forget()
            return ["rows that were in the books are gone", *self.check(connection)]
        since = self._last
        self._fold(connection, since, top)
        breaks = [
            *self._balances(connection),
            *_unpaired(connection, since, top),
            *_spent(connection, since, top),
            *_above_hold(connection, since, top),
            *_settled_and_open(connection),
            *self._days(connection),
        ]
        self._last = top
        if breaks:
            self._forget()
        return breaks

    def _fold(self, connection: Connection, since: int, top: int) -> None:
        for side, column in enumerate((_transfer.c.debit, _transfer.c.credit)):
            amount = func.sum(_transfer.c.amount_nanousd)
            new = select(column, amount).where(_within(_transfer.c.id, since, top)).group_by(column)
            for name, total in connection.execute(new):
                left, entered = self._sums.get(name, Sums())
                self._sums[name] = Sums(left + int(total), entered) if side == 0 else Sums(left, entered + int(total))
        by = (_usage.c.account_id, func.coalesce(_usage.c.key_id, ""), _usage.c.model)
        used = select(*by, func.count(), *map(func.sum, _USED)).where(_within(_usage.c.id, since, top)).group_by(*by)
        for account_id, key_id, model, *sums in connection.execute(used):
            before = self._used.get((account_id, key_id, model), (0,) * len(sums))
            self._used[account_id, key_id, model] = tuple(old + int(new) for old, new in zip(before, sums, strict=True))

    def _balances(self, connection: Connection) -> list[str]:
        kept = {row.ledger_account: Sums(row.debits_nanousd, row.credits_nanousd) for row in _rows(connection)}
        nothing = Sums()
        return [
            *(
                f"{name}: the balance says {list(kept.get(name, nothing))}, the transfers "
                f"{list(self._sums.get(name, nothing))} (debits, credits)"
                for name in sorted(kept.keys() | self._sums.keys())
                if kept.get(name, nothing) != self._sums.get(name, nothing)
            ),
            *(f"{name}: no account of the chart" for name in sorted(kept) if not rules.in_chart(name)),
        ]

    def _days(self, connection: Connection) -> list[str]:
        by = (_day.c.account_id, _day.c.key_id, _day.c.model)
        query = select(*by, *map(func.sum, _USED_IN_DAYS)).group_by(*by)
        kept = {(row[0], row[1], row[2]): tuple(map(int, row[3:])) for row in connection.execute(query)}
        return [
            f"account {name[0]}, key {name[1]}, {name[2]}: usage by day and the usage rows differ"
            for name in sorted(kept.keys() | self._used.keys())
            if kept.get(name) != self._used.get(name)
        ]


def overdrawn(connection: Connection) -> dict[str, int]:
    """Customers whose credit is below zero, in nano-dollars. The guard never lets a request do that."""
    below = select(_balance.c.ledger_account, _balance.c.credits_nanousd - _balance.c.debits_nanousd).where(
        _balance.c.ledger_account.like(rules.CUSTOMER_PREFIX + "%"),
        _balance.c.credits_nanousd < _balance.c.debits_nanousd,
    )
    return {name.removeprefix(rules.CUSTOMER_PREFIX): left for name, left in connection.execute(below)}


def _last_number(connection: Connection) -> int:
    return max(connection.scalar(select(func.max(table.c.id))) or 0 for table in (_usage, _transfer))


def _within(column: ColumnElement[int], since: int, top: int) -> ColumnElement[bool]:
    return and_(column > since, column <= top)


def _rows(connection: Connection) -> Any:
    return connection.execute(select(_balance))


def _some(connection: Connection, query: Select[Any]) -> list[Any]:
    return list(connection.execute(query.limit(SHOWN_MAX)))


def _unpaired(connection: Connection, since: int, top: int) -> list[str]:
    """Usage rows without a charge of their amount to their account, and charges without a usage row."""
    usage, charge = _usage.c, _transfer.c
    same = (charge.id == usage.id) & (charge.kind == rules.CHARGE)
    amount = func.coalesce(charge.amount_nanousd, 0)
    differing = (
        select(usage.request_id)
        .select_from(_usage.join(_transfer, same, isouter=True))
        .where(
            _within(usage.id, since, top),
            or_(usage.charge_nanousd != amount, charge.debit != _payer, charge.credit != rules.REVENUE),
        )
    )
    alone = (
        select(charge.id)
        .select_from(_transfer.join(_usage, charge.id == usage.id, isouter=True))
        .where(_within(charge.id, since, top), charge.kind == rules.CHARGE, usage.id.is_(None))
    )
    return [
        *(f"request {name}: its usage row and its charge differ" for (name,) in _some(connection, differing)),
        *(f"transfer {number}: a charge without its usage row" for (number,) in _some(connection, alone)),
    ]


class _Posted:
    """Transfers of one kind at one provider, each for a range of usage rows; rows are counted against them in order."""

    def __init__(self) -> None:
        self.ranges: list[tuple[int, int, int, str]] = []  # first and last row, the transfer's number and cause
        self.amounts: list[int] = []  # of which no row has been counted yet
        self._at = 0

    def count(self, number: int, amount: int) -> bool:
        """Whether a transfer names this row."""
        while self._at < len(self.ranges) and self.ranges[self._at][1] < number:
            self._at += 1
        if self._at == len(self.ranges) or number < self.ranges[self._at][0]:
            return False
        self.amounts[self._at] -= amount
        return True


def _spent(connection: Connection, since: int, top: int) -> list[str]:
    """Transfers of what calls cost that differ from the rows they name, and rows that none of them names."""
    posted: dict[tuple[str, str], _Posted] = {}
    kinds = (rules.COST, rules.VARIANCE)
    transfers = select(_transfer.c.id, _transfer.c.kind, _transfer.c.cause, _transfer.c.amount_nanousd)
    named = transfers.where(_within(_transfer.c.id, since, top), _transfer.c.kind.in_(kinds)).order_by(_transfer.c.id)
    for number, kind, cause, amount in connection.execute(named):
        provider, first, last = rules.covered(cause)
        known = posted.setdefault((kind, provider), _Posted())
        known.ranges.append((first, last, number, cause))
        known.amounts.append(amount)
    unnamed: dict[tuple[str, str], int] = {}
    costs = select(_usage.c.id, _usage.c.provider, _usage.c.cost_nanousd, _usage.c.variance_nanousd)
    spent = costs.where(_within(_usage.c.id, since, top), _usage.c.cost_nanousd > 0).order_by(_usage.c.id)
    for number, provider, cost, variance in connection.execute(spent.execution_options(yield_per=ROWS_PER_FETCH)):
        for kind, amount in ((rules.COST, cost - variance), (rules.VARIANCE, variance)):
            key = kind, provider or ""
            if amount and not (key in posted and posted[key].count(number, amount)):
                unnamed[key] = unnamed.get(key, 0) + amount
    return [
        *(
            f"transfer {number}: {cause} differs from its usage rows by {left}"
            for known in posted.values()
            for (_, _, number, cause), left in zip(known.ranges, known.amounts, strict=True)
            if left
        ),
        *(
            f"{kind} at {provider}: {amount} in usage rows, and no transfer"
            for (kind, provider), amount in unnamed.items()
        ),
    ][:SHOWN_MAX]


def _above_hold(connection: Connection, since: int, top: int) -> list[str]:
    above = select(_usage.c.request_id).where(
        _within(_usage.c.id, since, top), _usage.c.charge_nanousd > _usage.c.held_nanousd
    )
    return [f"request {name}: it was charged more than was held" for (name,) in _some(connection, above)]


def _settled_and_open(connection: Connection) -> list[str]:
    both = select(_open.c.request_id).join(_usage, _usage.c.request_id == _open.c.request_id)
    return [f"request {name}: settled, and still open" for (name,) in _some(connection, both)]

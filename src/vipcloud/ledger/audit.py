"""Whether the books are right: the invariants that SQL cannot hold by itself, and those that it holds, once more.

    a balance is the fold of the transfers that name it, and every account is in the chart
    what requests were charged, by customer, and what their calls cost, by provider, is posted for exactly the usage
    rows that a transfer names, between the accounts that it belongs to
    no charge is above its hold; a settled request is not open; usage by day is the fold of the usage rows

Rows are immutable and numbers rise in the order of commits, so an `Audit` reads every row once: its next check looks at
what is new. A fresh one reads everything. Usage rows and transfers are read side by side in the order of their numbers.
A transfer comes after the rows it names, so all that is kept of rows is what is due for them.
"""

from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, and_, func, select

from vipcloud.ledger import rules
from vipcloud.ledger.rules import Sums
from vipcloud.storage import schema

SHOWN_MAX = 100  # of one kind of break
ROWS_PER_FETCH = 1000
LARGE_PIECE = 1000  # numbers

_usage, _transfer, _balance, _day = schema.usage, schema.transfer, schema.balance, schema.usage_day
_open = schema.open_request
_ROW = (
    _usage.c.id,
    _usage.c.account_id,
    _usage.c.key_id,
    _usage.c.model,
    _usage.c.provider,
    _usage.c.outcome,
    _usage.c.prompt_tokens,
    _usage.c.completion_tokens,
    _usage.c.charge_nanousd,
    _usage.c.cost_nanousd,
    _usage.c.variance_nanousd,
)
_ALIKE = (
    _usage.c.account_id,
    _usage.c.key_id,
    _usage.c.model,
    _usage.c.provider,
    _usage.c.outcome,
    _usage.c.charge_nanousd > 0,
    _usage.c.cost_nanousd > _usage.c.variance_nanousd,
    _usage.c.variance_nanousd > 0,
)
_ADDED_UP = select(
    *_ALIKE, func.min(_usage.c.id), func.max(_usage.c.id), func.count(), *map(func.sum, _ROW[6:])
).group_by(*_ALIKE)
_USED_IN_DAYS = (
    _day.c.requests,
    _day.c.prompt_tokens,
    _day.c.completion_tokens,
    _day.c.charge_nanousd,
    _day.c.cost_nanousd,
    _day.c.failed,
)
# Account, key, model, provider, outcome; and which of its amounts are posted: rows that cost nothing no transfer names.
_Alike = tuple[str, str | None, str, str | None, str, tuple[bool, bool, bool]]


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
        breaks = [
            *self._posted(connection, since, top),
            *self._balances(connection),
            *_above_hold(connection, since, top),
            *_settled_and_open(connection),
            *self._days(connection),
        ]
        self._last = top
        if breaks:
            self._forget()
        return breaks

    def _posted(self, connection: Connection, since: int, top: int) -> list[str]:
        """Transfers that differ from the rows they name, and rows that none of them names; of what is new, all of which
        is added to what was read."""
        due = _Due()
        moved: dict[str, list[int]] = {}
        rows = _RowsInOrder(connection, since)
        transfers = select(_transfer).where(_within(_transfer.c.id, since, top)).order_by(_transfer.c.id)
        for number, debit, credit, amount, kind, cause, _ in _read(connection, transfers):
            moved.setdefault(debit, [0, 0])[0] += amount
            moved.setdefault(credit, [0, 0])[1] += amount
            if kind in rules.FOR_ROWS:
                self._use(rows.up_to(number), due)
                due.meet(number, rules.Transfer(debit, credit, amount, kind, cause, 0.0))
        self._use(rows.up_to(top), due)
        for name, (left, entered) in moved.items():
            before = self._sums.get(name, Sums())
            self._sums[name] = Sums(before.debits_nanousd + left, before.credits_nanousd + entered)
        return [*due.breaks, *due.unnamed()][:SHOWN_MAX]

    def _use(self, rows: dict[_Alike, list[int]], due: "_Due") -> None:
        for (account_id, key_id, model, provider, outcome, _), added_up in rows.items():
            first, last, requests, prompt, completion, charge, cost, variance = added_up
            name = account_id, key_id or "", model
            failed = requests if outcome in rules.FAILED else 0
            new = requests, prompt, completion, charge, cost, failed
            before = self._used.get(name)
            self._used[name] = new if before is None else tuple(map(int.__add__, before, new))
            for posting, amount in rules.due(account_id, provider, charge, cost, variance):
                due.add(posting, first, last, amount)

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


class _Due:
    """What usage rows are to be posted for, and no transfer has named so far."""

    def __init__(self) -> None:
        self.breaks: list[str] = []
        self._due: dict[rules.Posting, tuple[int, int, int]] = {}  # the first row, the last, and the amount

    def add(self, posting: rules.Posting, first: int, last: int, amount: int) -> None:
        known = self._due.get(posting)
        if known is not None:
            first, last, amount = min(known[0], first), max(known[1], last), known[2] + amount
        self._due[posting] = first, last, amount

    def meet(self, number: int, transfer: rules.Transfer) -> None:
        """Compare a transfer with the rows it names, all of which were added: they are those since the one before."""
        try:
            posting, first, last = rules.covered(number, transfer)
        except ValueError:
            self.breaks.append(f"transfer {number}: {transfer.cause} names no usage rows")
            return
        kind, whose = posting
        first_due, last_due, amount = self._due.pop(posting, (first, last, 0))
        named = f"transfer {number}: {kind}/{whose}/{first}-{last}"
        if (transfer.debit, transfer.credit) != rules.sides(posting):
            self.breaks.append(f"{named} goes from {transfer.debit} to {transfer.credit}")
        if not (first <= first_due and last_due <= last <= number):
            self.breaks.append(f"{named} is not of the usage rows {first_due} to {last_due}")
        if transfer.amount_nanousd != amount:
            self.breaks.append(f"{named} differs from its usage rows by {transfer.amount_nanousd - amount}")

    def unnamed(self) -> list[str]:
        return [
            f"{kind} of {whose}: {amount} in usage rows {first} to {last}, and no transfer"
            for (kind, whose), (first, last, amount) in self._due.items()
        ]


def overdrawn(connection: Connection) -> dict[str, int]:
    """Customers whose credit is below zero, in nano-dollars. The guard never lets a request do that."""
    below = select(_balance.c.ledger_account, _balance.c.credits_nanousd - _balance.c.debits_nanousd).where(
        _balance.c.ledger_account.like(rules.CUSTOMER_PREFIX + "%"),
        _balance.c.credits_nanousd < _balance.c.debits_nanousd,
    )
    return {name.removeprefix(rules.CUSTOMER_PREFIX): left for name, left in connection.execute(below)}


class _RowsInOrder:
    """Usage rows in the order of their numbers, added up piece by piece: large ones by the database."""

    def __init__(self, connection: Connection, since: int) -> None:
        self._connection = connection
        self._since = since
        self._rows: Any = None  # of the pieces that are small: a result that is read on
        self._row: Any = None  # the one to begin with

    def up_to(self, top: int) -> dict[_Alike, list[int]]:
        """From the piece before up to that number, those alike together: the first row and the last, how many, prompt
        tokens, completion tokens, charge, cost, variance."""
        since, self._since = self._since, max(top, self._since)
        if top - since < LARGE_PIECE:
            return self._add_up(since, top)
        if self._rows is not None:
            self._rows.close()
            self._rows = None
        found: dict[_Alike, list[int]] = {}
        for row in self._connection.execute(_ADDED_UP.where(_within(_usage.c.id, since, top))):
            account_id, key_id, model, provider, outcome, charged, paid, beyond, *sums = row
            posted = bool(charged), bool(paid), bool(beyond)
            found[account_id, key_id, model, provider, outcome, posted] = list(map(int, sums))
        return found

    def _add_up(self, since: int, top: int) -> dict[_Alike, list[int]]:
        found: dict[_Alike, list[int]] = {}
        if self._rows is None:
            new = select(*_ROW).where(_usage.c.id > since).order_by(_usage.c.id)
            self._rows = _read(self._connection, new)
            self._row = next(self._rows, None)
        row, rest = self._row, self._rows
        while row is not None and row[0] <= top:
            number, account_id, key_id, model, provider, outcome, prompt, completion, charge, cost, variance = row
            posted = charge > 0, cost > variance, variance > 0
            alike = account_id, key_id, model, provider, outcome, posted
            sums = found.get(alike)
            if sums is None:
                found[alike] = [number, number, 1, prompt, completion, charge, cost, variance]
            else:
                sums[1] = number
                sums[2] += 1
                sums[3] += prompt
                sums[4] += completion
                sums[5] += charge
                sums[6] += cost
                sums[7] += variance
            row = next(rest, None)
        self._row = row
        return found


def _last_number(connection: Connection) -> int:
    return max(connection.scalar(select(func.max(table.c.id))) or 0 for table in (_usage, _transfer))


def _within(column: ColumnElement[int], since: int, top: int) -> ColumnElement[bool]:
    return and_(column > since, column <= top)


def _rows(connection: Connection) -> Any:
    return connection.execute(select(_balance))


def _read(connection: Connection, query: Select[Any]) -> Any:
    return connection.execute(query.execution_options(yield_per=ROWS_PER_FETCH))


def _some(connection: Connection, query: Select[Any]) -> list[Any]:
    return list(connection.execute(query.limit(SHOWN_MAX)))


def _above_hold(connection: Connection, since: int, top: int) -> list[str]:
    above = select(_usage.c.request_id).where(
        _within(_usage.c.id, since, top), _usage.c.charge_nanousd > _usage.c.held_nanousd
    )
    return [f"request {name}: it was charged more than was held" for (name,) in _some(connection, above)]


def _settled_and_open(connection: Connection) -> list[str]:
    both = select(_open.c.request_id).join(_usage, _usage.c.request_id == _open.c.request_id)
    return [f"request {name}: settled, and still open" for (name,) in _some(connection, both)]

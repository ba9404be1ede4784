"""Named queries over usage, for people: what an account used, by day, model and key, and each request.

Sums and lines come from the same rows by the same filter, so a sum on a page is the sum of the lines below it. Days are
UTC, counted since 1970; times are seconds since 1970.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple

from sqlalchemy import BigInteger, Connection, Select, case, cast, func, or_, select

from vipcloud.ledger import rules, store
from vipcloud.ledger.records import Settled
from vipcloud.storage import schema

DAY_S = 86_400
ROWS_PER_FETCH = 1000

_usage, _transfer, _day_sums = schema.usage, schema.transfer, schema.usage_day
ENDS = {  # what people call it → the gateway's words
    "answered": ("complete",),
    "cut": ("interrupted", "client_gone", "restarted", "revoked", "crashed"),
    "failed": rules.FAILED,
}


class Filter(NamedTuple):
    """Which requests: of one account, from `since_s` on and before `until_s`; the rest narrows it down."""

    account_id: str
    since_s: float
    until_s: float
    key_id: str | None = None
    model: str | None = None
    end: str | None = None  # one of ENDS
    request_id: str | None = None


class Sums(NamedTuple):
    """Of a selection. `failed` delivered nothing and cost nothing."""

    requests: int
    failed: int
    prompt_tokens: int
    completion_tokens: int
    charge_nanousd: int


class DaySum(NamedTuple):
    """One model on one day."""

    day: int
    model: str
    requests: int
    failed: int
    charge_nanousd: int


class Activity(NamedTuple):
    """One model at one provider on one day; no provider: none was reached."""

    day: int
    model: str
    provider: str | None
    requests: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    reasoning_tokens: int
    charge_nanousd: int


class KeyUse(NamedTuple):
    """A key: when it was used last and for what, and what it spent since a time."""

    key_id: str
    last_at: float
    requests: int
    charge_nanousd: int


def sums(connection: Connection, chosen: Filter) -> Sums:
    columns = _usage.c
    query = _where(
        select(
            func.count(),
            _count_failed(),
            _sum(columns.prompt_tokens),
            _sum(columns.completion_tokens),
            _sum(columns.charge_nanousd),
        ),
        chosen,
    )
    return Sums(*(int(value or 0) for value in connection.execute(query).one()))


def by_day(connection: Connection, account_id: str, since_day: int, key_id: str | None = None) -> list[DaySum]:
    """Days from `since_day` on and models that have any, in order of day, so far as booked."""
    columns = _day_sums.c
    sums = (columns.requests, columns.failed, columns.charge_nanousd)
    query = select(columns.day, columns.model, *map(_sum, sums)).where(
        columns.account_id == account_id, columns.day >= since_day
    )
    if key_id is not None:
        query = query.where(columns.key_id == key_id)
    rows = connection.execute(query.group_by(columns.day, columns.model).order_by(columns.day, columns.model))
    return [DaySum(int(row[0]), row[1], *map(int, row[2:])) for row in rows]


def activity(connection: Connection, chosen: Filter) -> list[Activity]:
    """Days, models and providers that have any, newest day first."""
    columns = _usage.c
    sums = (columns.prompt_tokens, columns.cached_tokens, columns.completion_tokens, columns.reasoning_tokens)
    day = _day(connection).label("day")
    query = _where(
        select(day, columns.model, columns.provider, func.count(), *map(_sum, sums), _sum(columns.charge_nanousd)),
        chosen,
    )
    rows = connection.execute(
        query.group_by("day", columns.model, columns.provider).order_by(
            day.desc(), columns.model, func.coalesce(columns.provider, "")
        )
    )
    return [Activity(int(row[0]), row[1], row[2], *map(int, row[3:])) for row in rows]


def lines(connection: Connection, chosen: Filter, *, skip: int = 0, most: int = 50) -> list[Settled]:
    """The requests themselves, newest first."""
    query = _where(select(_usage), chosen).order_by(_usage.c.started_at.desc(), _usage.c.id.desc())
    return [_settled(row) for row in connection.execute(query.offset(skip).limit(most))]


def all_lines(connection: Connection, chosen: Filter) -> Iterator[Settled]:
    """Every request of the selection, oldest first, a thousand at a time."""
    query = _where(select(_usage), chosen).order_by(_usage.c.started_at, _usage.c.id)
    result = connection.execution_options(stream_results=True).execute(query)
    for rows in result.partitions(ROWS_PER_FETCH):
        yield from (_settled(row) for row in rows)


def first_token_ms(connection: Connection, chosen: Filter) -> tuple[int, int] | None:
    """Within how long half, and 95 of 100, of the answered requests had their first token; None without any."""
    query = _where(select(func.count()), chosen).where(_usage.c.first_token_ms.is_not(None))
    count = connection.scalar(query) or 0
    if not count:
        return None
    ordered = _where(select(_usage.c.first_token_ms), chosen).where(_usage.c.first_token_ms.is_not(None))
    ordered = ordered.order_by(_usage.c.first_token_ms)
    places = ((count - 1) // 2, (count * 95 - 1) // 100)
    half, most = (connection.scalar(ordered.offset(place).limit(1)) or 0 for place in places)
    return int(half), int(most)


def by_key(connection: Connection, chosen: Filter) -> dict[str, KeyUse]:
    columns = _usage.c
    query = _where(
        select(columns.key_id, func.max(columns.started_at), func.count(), _sum(columns.charge_nanousd)), chosen
    )
    rows = connection.execute(query.where(columns.key_id.is_not(None)).group_by(columns.key_id))
    return {row[0]: KeyUse(row[0], float(row[1]), int(row[2]), int(row[3] or 0)) for row in rows}


def last_used(connection: Connection, account_id: str, key_ids: Sequence[str]) -> dict[str, float]:
    """When the last request of each key began, so far as booked; keys without any are missing.

    The last day of each is one row of the fold of usage; only the account's lines of these days are looked through.
    """
    days = select(_day_sums.c.key_id, func.max(_day_sums.c.day)).where(_day_sums.c.key_id.in_(key_ids))
    by_day: dict[int, list[str]] = {}
    for key_id, day in connection.execute(days.group_by(_day_sums.c.key_id)):
        by_day.setdefault(int(day), []).append(key_id)
    found: dict[str, float] = {}
    for day, ids in by_day.items():
        chosen = Filter(account_id, day * DAY_S, (day + 1) * DAY_S)
        query = _where(select(_usage.c.key_id, func.max(_usage.c.started_at)), chosen).where(_usage.c.key_id.in_(ids))
        found |= {row[0]: float(row[1]) for row in connection.execute(query.group_by(_usage.c.key_id))}
    return found


def request(connection: Connection, account_id: str, request_id: str) -> Settled | None:
    """One request of the account; None for another's, and for one that is not booked yet."""
    query = select(_usage).where(_usage.c.request_id == request_id, _usage.c.account_id == account_id)
    row = connection.execute(query).one_or_none()
    return _settled(row) if row else None


def _where(query: Select[Any], chosen: Filter) -> Select[Any]:
    columns = _usage.c
    query = query.where(
        columns.account_id == chosen.account_id,
        columns.started_at >= chosen.since_s,
        columns.started_at < chosen.until_s,
    )
    if chosen.key_id is not None:
        query = query.where(columns.key_id == chosen.key_id)
    if chosen.model is not None:
        query = query.where(columns.model == chosen.model)
    if chosen.end is not None:
        query = query.where(columns.outcome.in_(ENDS[chosen.end]))
    if chosen.request_id is not None:
        query = query.where(columns.request_id == chosen.request_id)
    return query


def _count_failed() -> Any:
    return func.sum(case((_usage.c.outcome.in_(ENDS["failed"]), 1), else_=0))


def _sum(column: Any) -> Any:
    return func.sum(column)


def _day(connection: Connection) -> Any:
    """The UTC day. PostgreSQL's cast to a whole number rounds, where SQLite's cuts off."""
    days = _usage.c.started_at / DAY_S
    return cast(func.floor(days) if connection.dialect.name == "postgresql" else days, BigInteger)


def _settled(row: Any) -> Settled:
    return Settled(*tuple(row)[1:])


class Movement(NamedTuple):
    """One line of a statement: a day's charges together, or one transfer of another kind. `amount` is signed."""

    at: float
    kind: str
    requests: int  # of a day's charges
    amount_nanousd: int
    balance_nanousd: int  # after it


class Statement(NamedTuple):
    """What moved since a day, oldest first, and what was there before."""

    brought_nanousd: int
    movements: tuple[Movement, ...]
    balance_nanousd: int


def statement(connection: Connection, account_id: str, since_s: float) -> Statement:
    """The account's movements since the beginning of a UTC day. The last balance is the fold of all transfers."""
    name = rules.customer(account_id)
    balance = store.balance(connection, account_id)
    charges = by_day(connection, account_id, int(since_s // DAY_S))
    days: dict[int, list[int]] = {}
    for row in charges:
        day = days.setdefault(row.day, [0, 0])
        day[0] += row.requests
        day[1] += row.charge_nanousd
    found = [
        ((day + 1) * DAY_S - 1.0, "usage", requests, -charge) for day, (requests, charge) in days.items() if charge
    ]
    columns = _transfer.c
    others = select(columns.created_at, columns.kind, columns.debit, columns.amount_nanousd).where(
        or_(columns.debit == name, columns.credit == name),
        columns.kind != rules.CHARGE,
        columns.created_at >= since_s,
    )
    for at, kind, debit, amount in connection.execute(others):
        found.append((float(at), kind, 0, -int(amount) if debit == name else int(amount)))
    found.sort()
    brought = running = balance - sum(amount for *_, amount in found)
    movements = []
    for at, kind, requests, amount in found:
        running += amount
        movements.append(Movement(at, kind, requests, amount, running))
    return Statement(brought, tuple(movements), balance)


# --- for the operator: of all customers


class Earned(NamedTuple):
    """What one model, or one account, brought and cost us, from the usage rows. `name` is its id."""

    name: str
    requests: int
    charge_nanousd: int
    cost_nanousd: int

    @property
    def margin_nanousd(self) -> int:
        return self.charge_nanousd - self.cost_nanousd


def earned(connection: Connection, since_day: int, by: Literal["model", "account"]) -> list[Earned]:
    """On the UTC days (since 1970) from `since_day` on, the dearest first."""
    columns = schema.usage_day.c
    name = columns.model if by == "model" else columns.account_id
    charged = func.sum(columns.charge_nanousd)
    query = (
        select(name, func.sum(columns.requests), charged, func.sum(columns.cost_nanousd))
        .where(columns.day >= since_day)
        .group_by(name)
        .order_by(charged.desc(), name)
    )
    return [Earned(row[0], *(int(value) for value in row[1:])) for row in connection.execute(query)]

"""How requests ended and how long they took, by the hour: counted with the usage rows, in their transaction.

What a request counts as, by its usage row (`outcome`, and the code of the error that its caller was told):

    answered   complete
    cut        the upstream's stream broke off (`interrupted`)
    failed     nothing was delivered, and not by the caller's doing: the upstream failed, was silent, throttled us or
               cut us off, or none could be asked
    refused    nothing was delivered, and another upstream would have said the same: what was asked for is not
               allowed, too long or filtered; or the model, which did answer, had not the form that was asked for
    gone       the caller left, or their key was revoked or their account suspended meanwhile
    ours       our fault, or our restart

A provider, and a model, answers for `answered`, `cut` and `failed`: a cut answer counts as none at all. Callers'
mistakes and departures count for nothing, what is `ours` counts against us alone. `rescued` are those of the answered
that another upstream, or the same one again, had failed before. Times are of answered requests, the first token's of
streams only.
"""

import math
from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from sqlalchemy import ColumnElement, Connection, delete, func, select, text

from vipcloud.errors import RateLimited, StructuredOutputFailed, documented
from vipcloud.ledger import rules
from vipcloud.ledger.alike import HOUR_S, Alike
from vipcloud.storage import schema

STEPS_PER_DOUBLING = 8  # each is 9 % longer than the one before
LATENCY_HOURS_MAX = 8 * 24
CALLERS_OWN = frozenset(kind.code for kind in documented() if kind.status < 500 and kind is not RateLimited) | {
    StructuredOutputFailed.code
}

_hours, _latency = schema.availability_hour, schema.latency_hour


class Counts(NamedTuple):
    """Requests, by what they count as; in the order of the table's columns."""

    answered: int = 0
    cut: int = 0
    failed: int = 0
    refused: int = 0
    gone: int = 0
    ours: int = 0
    rescued: int = 0

    @property
    def judged(self) -> int:
        """Those that model and provider answer for."""
        return self.answered + self.cut + self.failed


class Key(NamedTuple):
    """`bucket` is an hour, or a day, since 1970. `provider` is empty where none was tried."""

    bucket: int
    model: str
    provider: str


_BY_OUTCOME = {rules.COMPLETE: "answered", "interrupted": "cut", "client_gone": "gone", "revoked": "gone"}
_ADD_COUNTS = text(  # every name in it is a field of ours
    f"INSERT INTO availability_hour (hour, model, provider, {', '.join(Counts._fields)}) "  # noqa: S608
    f"VALUES (:bucket, :model, :provider, {', '.join(f':{name}' for name in Counts._fields)}) "
    "ON CONFLICT (hour, model, provider) DO UPDATE SET "
    + ", ".join(f"{name} = availability_hour.{name} + excluded.{name}" for name in Counts._fields)
)
_ADD_LATENCY = text(
    "INSERT INTO latency_hour (hour, model, provider, measure, step, requests) "
    "VALUES (:bucket, :model, :provider, :measure, :step, :requests) "
    "ON CONFLICT (hour, model, provider, measure, step) DO UPDATE SET "
    "requests = latency_hour.requests + excluded.requests"
)


def judged(outcome: str, error_code: str) -> str:
    """What a request counts as: a field of `Counts`. An unknown end is ours."""
    if outcome == "upstream_failed":
        return "refused" if error_code in CALLERS_OWN else "failed"
    return _BY_OUTCOME.get(outcome, "ours")


def step(ms: int) -> int:
    """The step that a time falls into; its middle is `step_ms`."""
    return round(math.log2(max(1, ms)) * STEPS_PER_DOUBLING)


def step_ms(number: int) -> float:
    return float(2.0 ** (number / STEPS_PER_DOUBLING))


def add(connection: Connection, lots: Iterable[Alike]) -> None:
    """Count requests that are being booked."""
    counts: dict[Key, Counter[str]] = {}
    taken: dict[tuple[Key, str], list[int | None]] = {}  # milliseconds, by measure
    for lot in lots:
        shared = lot.shared
        key = Key(lot.hour, shared.model, shared.provider or "")
        found = counts.setdefault(key, Counter())
        found[judged(shared.outcome, shared.error_code)] += lot.requests
        if shared.outcome == rules.COMPLETE:
            found["rescued"] += lot.requests if shared.attempts > 1 else 0
            taken.setdefault((key, "whole"), []).extend(lot.column("duration_ms"))
            if shared.streamed:
                taken.setdefault((key, "first_token"), []).extend(lot.column("first_token_ms"))
    times: Counter[tuple[Key, str, int]] = Counter()
    for (key, measure), each in taken.items():
        for ms, requests in Counter(each).items():
            if ms is not None:
                times[key, measure, step(ms)] += requests
    if counts:
        rows = [{**key._asdict(), **Counts(**found)._asdict()} for key, found in sorted(counts.items())]
        connection.execute(_ADD_COUNTS, rows)
    if times:
        connection.execute(
            _ADD_LATENCY,
            [
                {**key._asdict(), "measure": measure, "step": number, "requests": requests}
                for (key, measure, number), requests in sorted(times.items())
            ],
        )


def forget_latency(connection: Connection, now_s: float) -> None:
    """Drop times that no page shows any more."""
    connection.execute(delete(_latency).where(_latency.c.hour < int(now_s // HOUR_S) - LATENCY_HOURS_MAX))


def by_day(connection: Connection, since_day: int) -> dict[Key, Counts]:
    """Counts by UTC day (since 1970), model and provider, from `since_day` on."""
    return _by(connection, _hours.c.hour // 24, since_day * 24)


def by_hour(connection: Connection, since_hour: int) -> dict[Key, Counts]:
    """The same by hour, from `since_hour` on."""
    return _by(connection, _hours.c.hour, since_hour)


def _by(connection: Connection, bucket: ColumnElement[int], since_hour: int) -> dict[Key, Counts]:
    columns = _hours.c
    query = (
        select(
            bucket.label("bucket"),
            columns.model,
            columns.provider,
            *(func.sum(columns[name]) for name in Counts._fields),
        )
        .where(columns.hour >= since_hour)
        .group_by("bucket", columns.model, columns.provider)
    )
    return {
        Key(int(row[0]), row[1], row[2]): Counts(*(int(value) for value in row[3:]))
        for row in connection.execute(query)
    }


def steps(connection: Connection, since_hour: int, measure: str) -> dict[tuple[str, str], dict[int, int]]:
    """(model, provider) → step → requests, from `since_hour` on."""
    columns = _latency.c
    query = (
        select(columns.model, columns.provider, columns.step, func.sum(columns.requests))
        .where(columns.hour >= since_hour, columns.measure == measure)
        .group_by(columns.model, columns.provider, columns.step)
    )
    found: dict[tuple[str, str], dict[int, int]] = {}
    for model, provider, number, requests in connection.execute(query):
        found.setdefault((model, provider), {})[int(number)] = int(requests)
    return found


def quantile_ms(counts: dict[int, int], share: float) -> int | None:
    """Within how long that share of the requests was done, to the width of a step; None without any."""
    total = sum(counts.values())
    seen = 0
    for number in sorted(counts):
        seen += counts[number]
        if seen >= total * share:
            return round(step_ms(number))
    return None

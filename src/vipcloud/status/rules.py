"""PURE: from what was seen to what the status page says.

Two things are seen. Once a minute the parts of ours are asked, and each provider, by a call that costs nothing. And
every request counts, as `ledger.availability` says.

- Ours: a minute is good if a check in it was. From the first check ever on, a minute without one counts as lost: what
  does not run checks nothing, and what we do not know shall not flatter us.
- A provider: the lower of two shares, of good checks among those made, and of whole answers among the requests that it
  answers for.
- A model: whole answers among the requests for it, whoever served them; so a provider's failure that another one made
  good does not count.

A share of fewer than `REQUESTS_MIN` requests says too little and is not told.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from vipcloud.ledger.availability import Counts, Key, quantile_ms
from vipcloud.providers.models import Catalog
from vipcloud.status.report import FRESH_S, Component, Day, Incident, Period, Report, State

DAYS = 90
TARGET = 99.5
LOST_MOST = 0.001  # of a day, and it still counts as undisturbed
REQUESTS_MIN = 20
DISTURBED_SHARE, DOWN_SHARE = 0.10, 0.50  # of the requests of this hour and the last that got no whole answer
NOTES_MAX = 3
MINUTES_PER_HOUR, MINUTES_PER_DAY = 60, 1440

GATEWAY, WEBSITE, BOOKS = "gateway", "website", "books"
PARTS = {GATEWAY: "Gateway API", WEBSITE: "Website and sign-in", BOOKS: "Bookkeeping"}


class Minutes(NamedTuple):
    """One hour's checks: bit n stands for minute n."""

    checked: int = 0
    good: int = 0


class Check(NamedTuple):
    """One look at a subject. `ms` is how long its answer took, where one was asked for."""

    at: float
    good: bool
    ms: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What is reported on. A provider's, or a part's, `id` is what its checks are kept under."""

    id: str
    name: str
    models: tuple[str, ...] = ()
    providers: tuple[str, ...] = ()  # of a model: those that can serve it
    offered: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What was seen. `checks`: subject → hour → minutes; `latest`: a subject's last looks, newest last.

    `since` is the first minute (since 1970) in which a subject was ever checked; `first_token` and `whole` are steps of
    24 hours by model and provider; `hours` are this hour's and the last one's counts, `today` those of 24 hours.
    """

    now_s: float
    history_until: float | None
    parts: Sequence[Subject]
    providers: Sequence[Subject]
    models: Sequence[Subject]
    latest: Mapping[str, Sequence[Check]] = field(default_factory=dict)
    checks: Mapping[str, Mapping[int, Minutes]] = field(default_factory=dict)
    since: Mapping[str, int] = field(default_factory=dict)
    days: Mapping[Key, Counts] = field(default_factory=dict)
    hours: Mapping[Key, Counts] = field(default_factory=dict)
    last_day: Mapping[Key, Counts] = field(default_factory=dict)
    first_token: Mapping[tuple[str, str], Mapping[int, int]] = field(default_factory=dict)
    whole: Mapping[tuple[str, str], Mapping[int, int]] = field(default_factory=dict)
    incidents: Sequence[Incident] = ()


def components(catalog: Catalog) -> dict[str, str]:
    """Everything that the page reports on, id → name: parts of ours, models, providers."""
    models = {model.id: model.id for model in catalog.models.values()}
    return {**PARTS, **models, **{provider.id: provider.name for provider in catalog.providers.values()}}


def report(facts: Facts) -> Report:
    parts = tuple(_part(facts, subject) for subject in facts.parts)
    providers = tuple(_provider(facts, subject) for subject in facts.providers)
    states = {provider.id: provider.state for provider in providers}
    models = tuple(_model(facts, subject, states) for subject in facts.models)
    state, headline = _verdict(parts, models, facts.incidents)
    first = _merged(facts.first_token.values())
    total, all_days = _sum(facts.last_day.values()), _sum(facts.days.values())
    return Report(
        checked_at=facts.now_s,
        stale_after=facts.now_s + FRESH_S,
        history_until=facts.history_until,
        state=state,
        headline=headline,
        target=TARGET,
        periods=tuple(period(facts, days) for days in (30, DAYS)),
        first_token_ms=quantile_ms(first, 0.5),
        first_token_95_ms=quantile_ms(first, 0.95),
        failed=_lost(total),
        rescued=_percent(all_days.rescued, all_days.judged) if all_days.judged >= REQUESTS_MIN else None,
        parts=parts,
        providers=providers,
        models=models,
        incidents=tuple(facts.incidents),
    )


def period(facts: Facts, days: int) -> Period:
    """The gateway's last `days` days, today included, against its target."""
    spans = [_span(facts, GATEWAY, day) for day in _last_days(facts.now_s, days)]
    minutes, good = sum(span.minutes for span in spans), sum(span.good for span in spans)
    return Period(
        days=days,
        answered=_percent(good, minutes) if minutes else None,
        minutes=minutes,
        lost=minutes - good,
        unchecked=minutes - sum(span.checked for span in spans),
        allowed=int(minutes * (100 - TARGET) / 100),
    )


class _Span(NamedTuple):
    """A day of one subject, in minutes: those that count, those in which it was checked, the good ones."""

    minutes: int
    checked: int
    good: int


def _span(facts: Facts, subject: str, day: int) -> _Span:
    begin = max(day * MINUTES_PER_DAY, facts.since.get(subject, 1 << 62))
    end = min((day + 1) * MINUTES_PER_DAY, int(facts.now_s // 60) + 1)
    hours = facts.checks.get(subject, {})
    found = [hours[hour] for hour in range(day * 24, day * 24 + 24) if hour in hours]
    checked = sum(each.checked.bit_count() for each in found)
    return _Span(max(0, end - begin), checked, sum((each.good & each.checked).bit_count() for each in found))


def _part(facts: Facts, subject: Subject) -> Component:
    days, notes = [], []
    minutes = good = minutes_30 = good_30 = 0
    for place, day in enumerate(_last_days(facts.now_s, DAYS)):
        span = _span(facts, subject.id, day)
        minutes, good = minutes + span.minutes, good + span.good
        if place >= DAYS - 30:
            minutes_30, good_30 = minutes_30 + span.minutes, good_30 + span.good
        days.append(Day(day=_date(day), answered=_percent(span.good, span.minutes) if span.checked else None))
        lost = span.minutes - span.good
        if span.minutes and not span.checked:
            notes.append(f"{_short(day)}: not checked")
        elif lost > span.minutes * LOST_MOST:
            notes.append(f"{_short(day)}: {_minutes(lost)}")
    return Component(
        id=subject.id,
        name=subject.name,
        state=_checked_state(facts, subject.id),
        note=_note(notes),
        days=tuple(days),
        answered_30=_percent(good_30, minutes_30) if minutes_30 else None,
        answered_90=_percent(good, minutes) if minutes else None,
        check_ms=_last_ms(facts, subject.id),
    )


def _provider(facts: Facts, subject: Subject) -> Component:
    counts: dict[int, list[Counts]] = {}
    for key, found in facts.days.items():
        if key.provider == subject.id:
            counts.setdefault(key.bucket, []).append(found)
    days, notes = [], []
    spans: list[tuple[_Span, Counts]] = []
    for day in _last_days(facts.now_s, DAYS):
        span, total = _span(facts, subject.id, day), _sum(counts.get(day, ()))
        spans.append((span, total))
        answered = _lower(_percent(span.good, span.checked) if span.checked else None, _share(total))
        days.append(Day(day=_date(day), answered=answered))
        if answered is not None and 100 - answered > LOST_MOST * 100:
            notes.append(f"{_short(day)}: {100 - answered:.1f} % lost")
    recent = _sum(found for key, found in facts.hours.items() if key.provider == subject.id)
    return Component(
        id=subject.id,
        name=subject.name,
        state=_worse(_checked_state(facts, subject.id), _traffic_state(recent)) if subject.offered else "off",
        note=_note(notes) if subject.offered else "not offered yet",
        days=tuple(days),
        answered_30=_answered(spans[-30:]),
        answered_90=_answered(spans),
        first_token_ms=_median(facts.first_token, provider=subject.id),
        whole_ms=_median(facts.whole, provider=subject.id),
        check_ms=_last_ms(facts, subject.id),
        models=subject.models,
    )


def _model(facts: Facts, subject: Subject, providers: Mapping[str, State]) -> Component:
    counts: dict[int, list[Counts]] = {}
    for key, found in facts.days.items():
        if key.model == subject.id:
            counts.setdefault(key.bucket, []).append(found)
    by_day = [(day, _sum(counts.get(day, ()))) for day in _last_days(facts.now_s, DAYS)]
    shares = [(day, _share(total)) for day, total in by_day]
    lost = [(day, 100 - share) for day, share in shares if share is not None]
    notes = [f"{_short(day)}: {percent:.1f} % lost" for day, percent in lost if percent > LOST_MOST * 100]
    recent = _sum(found for key, found in facts.hours.items() if key.model == subject.id)
    return Component(
        id=subject.id,
        name=subject.name,
        state=_worse(_served_state(subject, providers), _traffic_state(recent)) if subject.offered else "off",
        note=_note(notes) if subject.offered else "not offered yet",
        days=tuple(Day(day=_date(day), answered=share) for day, share in shares),
        answered_30=_share(_sum(total for _, total in by_day[-30:])),
        answered_90=_share(_sum(total for _, total in by_day)),
        first_token_ms=_median(facts.first_token, model=subject.id),
        whole_ms=_median(facts.whole, model=subject.id),
    )


# --- states


def _checked_state(facts: Facts, subject: str) -> State:
    """One bad look disturbs; a second one after it means down."""
    looks = [look for look in facts.latest.get(subject, ()) if facts.now_s - look.at < FRESH_S]
    if not looks:
        return "unknown"
    if looks[-1].good:
        return "normal"
    return "down" if len(looks) > 1 and not looks[-2].good else "disturbed"


def _traffic_state(counts: Counts) -> State:
    if counts.judged < REQUESTS_MIN:
        return "unknown"
    lost = 1 - counts.answered / counts.judged
    return "down" if lost > DOWN_SHARE else "disturbed" if lost > DISTURBED_SHARE else "normal"


def _served_state(model: Subject, providers: Mapping[str, State]) -> State:
    """A model is as well as the best of its providers."""
    states = [providers.get(provider, "unknown") for provider in model.providers]
    for state in ("normal", "unknown", "disturbed"):
        if state in states:
            return state
    return "down" if states else "unknown"


_RANK: dict[State, int] = {"off": -1, "unknown": 0, "normal": 1, "disturbed": 2, "down": 3}


def _worse(one: State, other: State) -> State:
    return max(one, other, key=lambda state: _RANK[state])


def _verdict(
    parts: Sequence[Component], models: Sequence[Component], incidents: Sequence[Incident]
) -> tuple[State, str]:
    """The page's state and its headline: a gateway that is down, then open incidents, then what is seen."""
    gateway = next((part.state for part in parts if part.id == GATEWAY), "unknown")
    if gateway == "down":
        return "down", "The gateway does not answer"
    serious = [each for each in incidents if each.resolved_at is None and each.severity != "notice"]
    if serious:
        outage = next((each for each in serious if each.severity == "outage"), None)
        return ("down", outage.title) if outage is not None else ("disturbed", serious[0].title)
    if gateway == "unknown":
        return "unknown", "Not checked yet"
    failing = [model.id for model in models if model.state in ("disturbed", "down")]
    troubled = [part.name for part in parts if part.state in ("disturbed", "down")]
    if troubled:
        return "disturbed", f"Disturbed: {', '.join(troubled)}"
    if failing:
        return "disturbed", f"{len(failing)} of {sum(model.state != 'off' for model in models)} models disturbed"
    return "normal", "All systems normal"


# --- numbers


def _percent(part: int, whole: int) -> float:
    """Cut after two decimals: 99.999 is not 100."""
    return part * 10_000 // whole / 100


def _lost(counts: Counts) -> float | None:
    """Requests without a whole answer that were to have one, by whosever fault: what a customer feels."""
    whole = counts.judged + counts.ours
    return _percent(whole - counts.answered, whole) if whole >= REQUESTS_MIN else None


def _share(counts: Counts) -> float | None:
    return _percent(counts.answered, counts.judged) if counts.judged >= REQUESTS_MIN else None


def _answered(spans: Sequence[tuple[_Span, Counts]]) -> float | None:
    checked, good = sum(span.checked for span, _ in spans), sum(span.good for span, _ in spans)
    return _lower(_percent(good, checked) if checked else None, _share(_sum(total for _, total in spans)))


def _lower(one: float | None, other: float | None) -> float | None:
    known = [value for value in (one, other) if value is not None]
    return min(known, default=None)


def _sum(counts: Iterable[Counts]) -> Counts:
    found = list(counts)
    return Counts(*map(sum, zip(*found, strict=True))) if found else Counts()


def _merged(all_steps: Iterable[Mapping[int, int]]) -> dict[int, int]:
    merged: dict[int, int] = {}
    for steps in all_steps:
        for step, requests in steps.items():
            merged[step] = merged.get(step, 0) + requests
    return merged


def _median(
    times: Mapping[tuple[str, str], Mapping[int, int]], *, model: str | None = None, provider: str | None = None
) -> int | None:
    return quantile_ms(
        _merged(steps for key, steps in times.items() if model in (None, key[0]) and provider in (None, key[1])), 0.5
    )


def _last_ms(facts: Facts, subject: str) -> int | None:
    looks = facts.latest.get(subject, ())
    return looks[-1].ms if looks and looks[-1].good else None


# --- days


def _last_days(now_s: float, days: int) -> range:
    today = int(now_s // 86_400)
    return range(today - days + 1, today + 1)


def _at(day: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(days=day)


def _date(day: int) -> str:
    return f"{_at(day):%Y-%m-%d}"


def _short(day: int) -> str:
    at = _at(day)
    return f"{at.day} {at:%b}"


def _minutes(minutes: int) -> str:
    hours = minutes // 60
    return f"{hours} h {minutes % 60} min" if hours else f"{minutes} min"


def _note(notes: Sequence[str]) -> str:
    """The newest of them, and how many more there are."""
    shown = ". ".join(notes[-NOTES_MAX:])
    more = len(notes) - NOTES_MAX
    return f"{shown}. And {more} more" if more > 0 else shown

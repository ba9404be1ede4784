"""PURE: what the status page says: the shape of `/status.json`, which the page is made from as well.

Times are seconds since 1970, shares are per cent, cut (never rounded up) after two decimals; None is "not known".
"""

from typing import Literal

from msgspec import Struct

State = Literal["normal", "disturbed", "down", "unknown", "off"]
Severity = Literal["notice", "disturbance", "outage"]

FRESH_S = 180.0  # what is older is not the state of now


class Day(Struct, frozen=True, kw_only=True):
    """One UTC day, `2026-11-22`. `answered` is None where nothing was seen, and nothing is concluded from that."""

    day: str
    answered: float | None


class Component(Struct, frozen=True, kw_only=True):
    """A part of ours, a provider, or a model. `days` has the oldest first and ends with today.

    `state` is off for what is not offered. Times are the medians of the last 24 hours: until the first token of
    streams, and of whole answers; `check_ms` is how long the last check took.
    """

    id: str
    name: str
    state: State
    note: str
    days: tuple[Day, ...]
    answered_30: float | None
    answered_90: float | None
    first_token_ms: int | None = None
    whole_ms: int | None = None
    check_ms: int | None = None
    models: tuple[str, ...] = ()


class Period(Struct, frozen=True, kw_only=True):
    """The gateway against its target, in minutes. Minutes in which nothing was checked count as lost."""

    days: int
    answered: float | None
    minutes: int
    lost: int
    unchecked: int
    allowed: int


class Update(Struct, frozen=True, kw_only=True):
    at: float
    message: str


class Incident(Struct, frozen=True, kw_only=True):
    """Written by the operator. `affects`: ids of components; empty: all. `resolved_at` is None while it lasts."""

    id: int
    title: str
    severity: Severity
    affects: tuple[str, ...]
    opened_at: float
    resolved_at: float | None
    updates: tuple[Update, ...] = ()


class Report(Struct, frozen=True, kw_only=True):
    """`history_until` is when the store was last read: what is counted from it is not newer. None: never."""

    checked_at: float
    stale_after: float
    history_until: float | None
    state: State
    headline: str
    target: float
    periods: tuple[Period, ...]
    first_token_ms: int | None
    first_token_95_ms: int | None
    failed: float | None
    rescued: float | None
    parts: tuple[Component, ...]
    providers: tuple[Component, ...]
    models: tuple[Component, ...]
    incidents: tuple[Incident, ...]

"""Prices as the catalogue's file says them, for msgspec; what they mean is `prices`."""

from datetime import date, datetime
from typing import Annotated, Literal, get_args

from msgspec import Meta, Struct

Weekday = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]

WEEKDAYS: tuple[Weekday, ...] = get_args(Weekday)


class TierRow(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Prices of all tokens of a call that has at least so many. The last tier of a list that fits decides."""

    prompt_tokens_min: Annotated[int, Meta(ge=0)] = 0
    completion_tokens_min: Annotated[int, Meta(ge=0)] = 0
    input: str
    output: str
    cached_input: str | None = None
    cache_write: str | None = None


class HoursRow(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Prices in the hours of a calendar."""

    input: str
    output: str
    cached_input: str | None = None
    cache_write: str | None = None
    tiers: tuple[TierRow, ...] = ()


class PriceRow(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One version of a price: `input` and `output`, or a markup on the cost; see docs/operating.md."""

    input: str | None = None
    output: str | None = None
    cached_input: str | None = None
    cache_write: str | None = None
    markup_percent: str | None = None
    effective: Annotated[datetime, Meta(tz=True)] | None = None
    tiers: tuple[TierRow, ...] = ()
    hours: dict[str, HoursRow] = {}


class CalendarRow(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Hours of the week in a provider's time, which are not kept on holidays."""

    utc_offset: str
    weekdays: frozenset[Weekday] = frozenset(WEEKDAYS)
    windows: Annotated[tuple[str, ...], Meta(min_length=1)]
    holidays: frozenset[date] = frozenset()

"""Prices over time: rows of the catalogue → immutable versions → the one in force at a moment.

Theory of operation. A row names a price per class of token (input, input that the upstream had in its cache, input
that it wrote there, output), other `tiers` for large calls, and other prices for the `hours` of a calendar. Whatever
can be in force is one `Price`: integers, frozen, with a version id that is made from its content. So an id never means
two prices, whoever edits which file, and usage with its version is enough to compute its charge again.

A `PriceBook` is the list of versions with the moments from which they count. It remembers the price in force and how
long it stays so: a look-up is two comparisons, and only the first one after a change searches.

What tokens cost is the business of `metering.rules`; nothing is multiplied with a count here.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from datetime import UTC, date, datetime
from math import inf
from typing import Any, Final

import msgspec

from vipcloud.errors import SettingsError
from vipcloud.money import PicoUSDPerToken
from vipcloud.providers.price_rows import WEEKDAYS, CalendarRow, HoursRow, PriceRow, TierRow

DAY_S: Final = 86_400
_EPOCH_DAY = date(1970, 1, 1).toordinal()
_EPOCH_WEEKDAY = date(1970, 1, 1).weekday()
_VERSION_DIGITS = 12  # 48 bits of SHA-256 tell the prices of one model apart

_PRICE = re.compile(r"(\d{1,6})(?:\.(\d{1,6}))?", re.ASCII)
_PERCENT = re.compile(r"(\d{1,4})(?:\.(\d{1,2}))?", re.ASCII)
_PERCENT_SCALE = 10_000  # a hundredth of a per cent is one in so many
_WINDOW = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-(?:([01]\d|2[0-3]):([0-5]\d)|(24):(00))", re.ASCII)
_OFFSET = re.compile(r"([+-])(0\d|1[0-4]):([0-5]\d)", re.ASCII)


# --- what the rest of the house sees -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """Pico-dollars per token, by class. A class that a row does not name costs what `input` costs.

    `input_max` is the dearest of the input classes: what a token of the prompt can cost at most.
    """

    input: PicoUSDPerToken
    output: PicoUSDPerToken
    cached_input: PicoUSDPerToken
    cache_write: PicoUSDPerToken
    input_max: PicoUSDPerToken


_CLASSES = tuple(field.name for field in fields(Rates))


@dataclass(frozen=True, slots=True, kw_only=True)
class Tier(Rates):
    prompt_tokens_min: int
    completion_tokens_min: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Price(Rates):
    """What a call costs that began while this was in force; its own rates are those below all tiers.

    `flat` follows from the rest and is there because every call asks: no tiers, and no own price for cache writes.
    """

    version: str
    tiers: tuple[Tier, ...]
    flat: bool

    def rates(self, prompt_tokens: int, completion_tokens: int) -> Rates:
        """What each token of a call of this size costs."""
        for tier in reversed(self.tiers):
            if prompt_tokens >= tier.prompt_tokens_min and completion_tokens >= tier.completion_tokens_min:
                return tier
        return self

    def dearest(self, prompt_tokens_max: int, completion_tokens_max: int) -> Rates:
        """Rates that no call up to this size exceeds in any class, whichever tier it ends in."""
        possible: list[Rates] = [
            tier
            for tier in self.tiers
            if prompt_tokens_max >= tier.prompt_tokens_min and completion_tokens_max >= tier.completion_tokens_min
        ]
        if not possible:
            return self
        possible.append(self)
        return Rates(**{name: max(getattr(one, name) for one in possible) for name in _CLASSES})

    @property
    def free(self) -> bool:
        return not any(one.input_max or one.output for one in (self, *self.tiers))


@dataclass(frozen=True, slots=True, kw_only=True)
class Calendar:
    """`windows` are seconds of the local day, from and until; `holidays` are days by their ordinal."""

    id: str
    utc_offset_s: int
    weekdays: frozenset[int]
    windows: tuple[tuple[int, int], ...]
    holidays: frozenset[int]

    def knows(self, wall_s: float) -> bool:
        """Whether holidays of the moment's year or a later one are in it, if it has any at all."""
        return not self.holidays or max(self.holidays) >= _local_year_begin(wall_s + self.utc_offset_s)

    def at(self, wall_s: float) -> tuple[bool, float]:
        """Whether the moment is in these hours, and until when this answer holds at least."""
        day, second = divmod(wall_s + self.utc_offset_s, DAY_S)
        midnight_s = wall_s - second
        ends_s = midnight_s + DAY_S
        if (int(day) + _EPOCH_WEEKDAY) % 7 not in self.weekdays or int(day) + _EPOCH_DAY in self.holidays:
            return False, ends_s
        for begin, end in self.windows:
            if second < begin:
                return False, midnight_s + begin
            if second < end:
                return True, midnight_s + end
        return False, ends_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """From `effective_s` on: the price of the first calendar in whose hours a moment falls, or else `base`."""

    effective_s: float
    base: Price
    hours: tuple[tuple[Calendar, Price], ...] = ()

    @property
    def prices(self) -> tuple[Price, ...]:
        return (self.base, *(price for _, price in self.hours))

    def at(self, wall_s: float) -> tuple[Price, float]:
        """The price at a moment, and until when it holds at least."""
        until_s = inf
        for calendar, price in self.hours:
            inside, holds_until_s = calendar.at(wall_s)
            until_s = min(until_s, holds_until_s)
            if inside:
                return price, until_s
        return self.base, until_s


class PriceBook:
    """A price over time: its versions in the order in which they take effect, the first one since ever."""

    __slots__ = ("_in_force", "versions")

    def __init__(self, versions: tuple[Version, ...]) -> None:
        assert versions, "a book has a price"
        assert versions[0].effective_s == -inf, "there is a price for every moment"
        self.versions = versions
        self._in_force = self._search(0.0)

    def at(self, wall_s: float) -> Price:
        """The price in force at a moment."""
        since_s, until_s, price = self._in_force  # one value, so that threads see all of it or nothing
        if since_s <= wall_s < until_s:
            return price
        self._in_force = found = self._search(wall_s)
        return found[2]

    @property
    def prices(self) -> tuple[Price, ...]:
        """All that was, is and will be in force."""
        return tuple(price for version in self.versions for price in version.prices)

    def version(self, wall_s: float) -> Version:
        """The version in force at a moment, with the prices of all its hours."""
        return next(version for version in reversed(self.versions) if version.effective_s <= wall_s)

    def upcoming(self, wall_s: float) -> tuple[Version, ...]:
        """What takes effect after a moment, in order."""
        return tuple(version for version in self.versions if version.effective_s > wall_s)

    def _search(self, wall_s: float) -> tuple[float, float, Price]:
        """The price in force at a moment, and the time around it for which that holds at least."""
        version = self.version(wall_s)
        price, until_s = version.at(wall_s)
        since_s = wall_s if version.hours else version.effective_s
        return since_s, min([until_s, *(later.effective_s for later in self.upcoming(wall_s))]), price


def _local_year_begin(local_s: float) -> int:
    """The ordinal of the first day of the year."""
    return date.fromordinal(int(local_s // DAY_S) + _EPOCH_DAY).replace(month=1, day=1).toordinal()


def parse_price(text: str) -> PicoUSDPerToken:
    """Dollars per 1M tokens as text → pico-dollars per token, exact: `"0.31"` → 310_000. Raises ValueError."""
    match = _PRICE.fullmatch(text)
    if match is None:
        raise ValueError(f'{text!r} is not dollars per 1M tokens with at most six decimals, such as "0.31"')
    whole, fraction = match.groups()
    return PicoUSDPerToken(int(whole) * 1_000_000 + int((fraction or "").ljust(6, "0")))


# --- rows to values ------------------------------------------------------------------------------------------------


def calendar(calendar_id: str, row: CalendarRow, path: str) -> Calendar:
    """Raises SettingsError."""
    offset = _OFFSET.fullmatch(row.utc_offset)
    if offset is None:
        raise SettingsError(f'{path}.utc_offset: {row.utc_offset!r} is not a distance from UTC, such as "+08:00".')
    sign, hours, minutes = offset.groups()
    windows: list[tuple[int, int]] = []
    for text in row.windows:
        match = _WINDOW.fullmatch(text)
        begin, end = _window(match) if match else (0, 0)
        if begin >= end or (windows and begin < windows[-1][1]):
            raise SettingsError(f'{path}.windows: {text!r}; write hours of a day in order, such as "09:00-12:00".')
        windows.append((begin, end))
    return Calendar(
        id=calendar_id,
        utc_offset_s=(int(hours) * 3600 + int(minutes) * 60) * (-1 if sign == "-" else 1),
        weekdays=frozenset(WEEKDAYS.index(day) for day in row.weekdays),
        windows=tuple(windows),
        holidays=frozenset(day.toordinal() for day in row.holidays),
    )


def cost_book(given: PriceRow | tuple[PriceRow, ...], calendars: Mapping[str, Calendar], path: str) -> PriceBook:
    """What we pay, over time. Raises SettingsError."""
    rows = _rows(given, path)
    for row, where in rows:
        if row.markup_percent is not None:
            raise SettingsError(
                f"{where}.markup_percent: a cost is what the upstream's list says; a price has a markup."
            )
    return PriceBook(tuple(_explicit(row, calendars, where) for row, where in rows))


def price_book(
    given: PriceRow | tuple[PriceRow, ...], costs: PriceBook | None, calendars: Mapping[str, Calendar], path: str
) -> PriceBook:
    """What a customer pays, over time. A row with a markup follows `costs` through theirs. Raises SettingsError."""
    rows = _rows(given, path)
    versions: list[Version] = []
    for index, (row, where) in enumerate(rows):
        if row.markup_percent is None or (row.input is not None and row.output is not None):
            versions.append(_explicit(row, calendars, where))
            continue
        if row.input or row.output or row.cached_input or row.cache_write or row.tiers or row.hours:
            raise SettingsError(f"{where}: give input and output, or markup_percent alone.")
        if costs is None:
            raise SettingsError(f"{where}.markup_percent: there is no candidate whose cost it could stand on.")
        try:
            percent = _parse_percent(row.markup_percent)
        except ValueError as error:
            raise SettingsError(f"{where}.markup_percent: {error}.") from error
        ends_s = _effective_s(rows[index + 1][0]) if index + 1 < len(rows) else inf
        versions += _marked_up(costs, percent, _effective_s(row), ends_s)
    return PriceBook(tuple(versions))


def _rows(given: PriceRow | tuple[PriceRow, ...], path: str) -> list[tuple[PriceRow, str]]:
    """The versions with their paths, in a sound order. Raises SettingsError."""
    if isinstance(given, PriceRow):
        rows = [(given, path)]
    else:
        rows = [(row, f"{path}[{index}]") for index, row in enumerate(given)]
    if not rows:
        raise SettingsError(f"{path}: give at least one price, or leave it out.")
    for index, (row, where) in enumerate(rows):
        if index == 0 and row.effective is not None:
            raise SettingsError(f"{where}.effective: the first price counts from the beginning; leave this out.")
        if index and (row.effective is None or _effective_s(row) <= _effective_s(rows[index - 1][0])):
            raise SettingsError(
                f"{where}.effective: say when it takes effect, later than the one before, such as 2026-12-01T00:00:00Z."
            )
    return rows


def _explicit(row: PriceRow, calendars: Mapping[str, Calendar], path: str) -> Version:
    if row.input is None or row.output is None:
        missing = "input" if row.input is None else "output"
        raise SettingsError(f"{path}.{missing}: missing; a price has input and output, or markup_percent.")
    effective_s = _effective_s(row)
    base = _price(
        HoursRow(
            input=row.input,
            output=row.output,
            cached_input=row.cached_input,
            cache_write=row.cache_write,
            tiers=row.tiers,
        ),
        path,
    )
    hours = []
    for name, inner in row.hours.items():
        if name not in calendars:
            known = ", ".join(sorted(calendars)) or "none"
            raise SettingsError(f"{path}.hours.{name} is not a calendar; there are {known}.")
        hours.append((calendars[name], _price(inner, f"{path}.hours.{name}")))
    return _version(effective_s, base, hours)


def _marked_up(costs: PriceBook, percent: int, begins_s: float, ends_s: float) -> list[Version]:
    """`costs` plus `percent` hundredths of a per cent, while this row counts."""
    versions = []
    for index, version in enumerate(costs.versions):
        over_s = costs.versions[index + 1].effective_s if index + 1 < len(costs.versions) else inf
        if over_s <= begins_s or version.effective_s >= ends_s:
            continue
        hours = [(calendar, _raised(price, percent)) for calendar, price in version.hours]
        versions.append(_version(max(begins_s, version.effective_s), _raised(version.base, percent), hours))
    return versions


def _version(effective_s: float, base: Price, hours: list[tuple[Calendar, Price]]) -> Version:
    """With ids of start, calendar and content, such as `base.0a1b2c3d4e5f`, `2026-12-01.deepseek-peak.0a1b2c3d4e5f`."""
    since = "base" if effective_s == -inf else _stamp(effective_s)
    return Version(
        effective_s=effective_s,
        base=_identified(base, since),
        hours=tuple((calendar, _identified(price, f"{since}.{calendar.id}")) for calendar, price in hours),
    )


def _identified(price: Price, prefix: str) -> Price:
    tiers = [[tier.prompt_tokens_min, tier.completion_tokens_min, *_amounts(tier)] for tier in price.tiers]
    digest = hashlib.sha256(msgspec.json.encode([*_amounts(price), tiers])).hexdigest()[:_VERSION_DIGITS]
    return replace(price, version=f"{prefix}.{digest}")


def _amounts(rates: Rates) -> list[int]:
    """In the order in which ids have always had them."""
    return [rates.input, rates.output, rates.cached_input, rates.cache_write]


def _made(tiers: tuple[Tier, ...], amounts: dict[str, Any]) -> Price:
    """Still without an id."""
    return Price(version="", tiers=tiers, flat=not tiers and amounts["cache_write"] == amounts["input"], **amounts)


def _price(row: HoursRow, path: str) -> Price:
    tiers: list[Tier] = []
    for index, tier in enumerate(row.tiers):
        where = f"{path}.tiers[{index}]"
        if not tier.prompt_tokens_min and not tier.completion_tokens_min:
            raise SettingsError(f"{where}: say from how many tokens on, by prompt_tokens_min or completion_tokens_min.")
        tiers.append(
            Tier(
                prompt_tokens_min=tier.prompt_tokens_min,
                completion_tokens_min=tier.completion_tokens_min,
                **_parsed(tier, where),
            )
        )
    return _made(tuple(tiers), _parsed(row, path))


def _parsed(row: HoursRow | TierRow, path: str) -> dict[str, Any]:
    def price(name: str, text: str | None, default: int) -> int:
        if text is None:
            return default
        try:
            return parse_price(text)
        except ValueError as error:
            raise SettingsError(f"{path}.{name}: {error}.") from error

    given = price("input", row.input, 0)
    return _complete(
        given,
        price("output", row.output, 0),
        price("cached_input", row.cached_input, given),
        price("cache_write", row.cache_write, given),
    )


def _raised(price: Price, percent: int) -> Price:
    def raised(rates: Rates) -> dict[str, Any]:
        factor = _PERCENT_SCALE + percent
        return _complete(*(amount * factor // _PERCENT_SCALE for amount in _amounts(rates)))

    tiers = tuple(replace(tier, **raised(tier)) for tier in price.tiers)
    return _made(tiers, raised(price))


def _complete(input_: int, output: int, cached_input: int, cache_write: int) -> dict[str, Any]:
    return {
        "input": PicoUSDPerToken(input_),
        "output": PicoUSDPerToken(output),
        "cached_input": PicoUSDPerToken(cached_input),
        "cache_write": PicoUSDPerToken(cache_write),
        "input_max": PicoUSDPerToken(max(input_, cached_input, cache_write)),
    }


def _parse_percent(text: str) -> int:
    """`"15"` → 1_500 hundredths. Raises ValueError."""
    match = _PERCENT.fullmatch(text)
    if match is None:
        raise ValueError(f'{text!r} is not a percentage with at most two decimals, such as "15"')
    whole, fraction = match.groups()
    return int(whole) * 100 + int((fraction or "").ljust(2, "0"))


def _window(match: re.Match[str]) -> tuple[int, int]:
    begin_h, begin_m, end_h, end_m = (group for group in match.groups() if group is not None)
    return int(begin_h) * 3600 + int(begin_m) * 60, int(end_h) * 3600 + int(end_m) * 60


def _effective_s(row: PriceRow) -> float:
    return row.effective.timestamp() if row.effective is not None else -inf


def _stamp(effective_s: float) -> str:
    """`2026-12-01` where it is a UTC midnight, else `2026-12-01T16:00:00Z`."""
    moment = datetime.fromtimestamp(effective_s, UTC)
    return moment.strftime("%Y-%m-%d" if effective_s % DAY_S == 0 else "%Y-%m-%dT%H:%M:%SZ")

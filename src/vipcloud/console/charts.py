"""Charts as numbers: where bars stand, in the units of an SVG. The template only writes them down."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

WIDTH, HEIGHT = 744, 236
LEFT, RIGHT, TOP, BOTTOM = 44, 734, 16, 212
STEPS = 4


class Bar(NamedTuple):
    """One part of a day's stack. `slot` is the colour of what it stands for."""

    slot: int
    x: float
    y: float
    width: float
    height: float


class Day(NamedTuple):
    label: str
    total: int
    bars: tuple[Bar, ...]
    x: float  # its middle
    named: bool  # whether its label is written under it


class Tick(NamedTuple):
    value: int
    y: float


class Chart(NamedTuple):
    days: tuple[Day, ...]
    ticks: tuple[Tick, ...]

    @property
    def empty(self) -> bool:
        return not any(day.total for day in self.days)


def stacked(days: Sequence[tuple[str, Mapping[int, int]]]) -> Chart:
    """A stack per day, `(label, slot → value)`, on an axis that begins at zero and ends at a round number."""
    top = _round_up(max((sum(parts.values()) for _, parts in days), default=0))
    step = (RIGHT - LEFT) / max(1, len(days))
    width = max(1.0, min(28.0, step * 0.7))
    scale = (BOTTOM - TOP) / top
    every = max(1, len(days) // 5)
    made = []
    for place, (label, parts) in enumerate(days):
        middle = LEFT + step * (place + 0.5)
        bars, y = [], float(BOTTOM)
        for slot in sorted(parts):
            height = parts[slot] * scale
            if height <= 0:
                continue
            y -= height
            gap = 1 if height > 2 else 0
            bars.append(Bar(slot, round(middle - width / 2, 1), round(y, 1), round(width, 1), round(height - gap, 1)))
        named = (len(days) - 1 - place) % every == 0
        made.append(Day(label, sum(parts.values()), tuple(bars), round(middle, 1), named))
    ticks = tuple(
        Tick(top * number // STEPS, round(BOTTOM - top * number / STEPS * scale, 1)) for number in range(STEPS + 1)
    )
    return Chart(tuple(made), ticks)


class LogBar(NamedTuple):
    y: float
    width: float


class LogTick(NamedTuple):
    value: int
    x: float


class LogChart(NamedTuple):
    bars: tuple[LogBar, ...]
    ticks: tuple[LogTick, ...]
    left: float
    bottom: float


def logarithmic(values: Sequence[float], *, left: float, right: float, top: float, step: float) -> LogChart:
    """A bar per value, `step` apart, from the power of ten below the smallest on; the largest ends at `right`."""
    floor = math.floor(math.log10(min(values)))
    scale = (right - left) / max(1.0, math.log10(max(values)) - floor)
    bars = [
        LogBar(round(top + step * place, 1), round((math.log10(value) - floor) * scale, 1))
        for place, value in enumerate(values)
    ]
    decades = range(floor, max(floor + 1, math.floor(math.log10(max(values)))) + 1)
    ticks = [LogTick(10**decade, round(left + (decade - floor) * scale, 1)) for decade in decades if decade >= 0]
    return LogChart(tuple(bars), tuple(ticks), left, round(top + step * len(values), 1))


def _round_up(value: int) -> int:
    """The next 1, 2, 4 or 8 times a power of ten that is not below `value`: four steps of it are round as well."""
    size = 4
    while size < value:
        digits = 10 ** (len(str(size)) - 1)
        lead = size // digits
        size = digits * {1: 2, 2: 4, 4: 8, 8: 10}[lead]
    return size


# --- a bar for each day: what of it was answered

DAY_STEP, DAY_WIDTH, DAY_HEIGHT, DAY_TOP = 10, 6, 24, 2
DAY_LOST_BAD = 0.05
_MARK = (29, 4)  # where the mark under a disturbed day stands, and how high it is


class DayBars(NamedTuple):
    """SVG paths by what the days in them were; an empty one has none."""

    width: int
    good: str
    part: str
    bad: str
    none: str
    marks: str


def day_bars(answered: Sequence[float | None], lost_most: float) -> DayBars:
    """A bar per day, the last at the right; the share is in per cent, None where it is not known.

    A bar's height falls with what was lost, quickly at first: a lost minute is to be seen, and an hour is not the end.
    A day that lost more than `lost_most` (a share) has a mark under it.
    """
    paths: dict[str, list[str]] = {"good": [], "part": [], "bad": [], "none": [], "marks": []}
    for place, share in enumerate(answered):
        x = DAY_STEP * place + (DAY_STEP - DAY_WIDTH) // 2
        lost = 0.0 if share is None else max(0.0, 1 - share / 100)
        kind = "none" if share is None else "good" if lost <= lost_most else "part" if lost <= DAY_LOST_BAD else "bad"
        height = DAY_HEIGHT if kind in ("none", "good") else round(DAY_HEIGHT * (1 - min(0.75, 3 * lost**0.5)))
        paths[kind].append(f"M{x} {DAY_TOP + DAY_HEIGHT - height}h{DAY_WIDTH}v{height}h-{DAY_WIDTH}z")
        if kind in ("part", "bad"):
            paths["marks"].append(f"M{x} {_MARK[0]}h{DAY_WIDTH}v{_MARK[1]}h-{DAY_WIDTH}z")
    return DayBars(DAY_STEP * len(answered), *("".join(paths[name]) for name in DayBars._fields[1:]))

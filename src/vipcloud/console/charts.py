"""Charts as numbers: where bars stand, in the units of an SVG. The template only writes them down."""

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


def _round_up(value: int) -> int:
    """The next 1, 2, 4 or 8 times a power of ten that is not below `value`: four steps of it are round as well."""
    size = 4
    while size < value:
        digits = 10 ** (len(str(size)) - 1)
        lead = size // digits
        size = digits * {1: 2, 2: 4, 4: 8, 8: 10}[lead]
    return size

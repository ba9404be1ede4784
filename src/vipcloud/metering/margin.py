"""What is left of a price after the upstream's cost, for every kind of call that the two tell apart."""

from collections.abc import Sequence
from fractions import Fraction
from typing import Literal

from msgspec import Struct

from vipcloud.providers.prices import Price, Rates, Version

TokenClass = Literal["input", "cached_input", "cache_write", "output"]

CLASSES: tuple[TokenClass, ...] = ("input", "cached_input", "cache_write", "output")


class Line(Struct, frozen=True, kw_only=True):
    """Price and cost per token of calls of one kind: in the hours of a calendar (None: outside), from a size on."""

    hours: str | None
    prompt_tokens_min: int
    completion_tokens_min: int
    price: Rates
    cost: Rates

    @property
    def below_cost(self) -> tuple[TokenClass, ...]:
        """The classes of tokens that cost more than they bring; what is written to a cache only if it has a price."""
        own = self.writes_differ
        return tuple(
            name
            for name in CLASSES
            if getattr(self.price, name) < getattr(self.cost, name) and (own or name != "cache_write")
        )

    @property
    def writes_differ(self) -> bool:
        return any(rates.cache_write != rates.input for rates in (self.price, self.cost))


def lines(price: Version, cost: Version) -> list[Line]:
    """One line for each pair of rates that a call can meet; a kind whose rates stand in an earlier line is left out."""
    found: list[Line] = []
    seen = set()
    calendars = [calendar.id for calendar, _ in (*price.hours, *cost.hours)]
    for hours in (None, *dict.fromkeys(calendars)):
        price_then, cost_then = _in(price, hours), _in(cost, hours)
        tiers = (*price_then.tiers, *cost_then.tiers)
        for prompt in sorted({0, *(tier.prompt_tokens_min for tier in tiers)}):
            for completion in sorted({0, *(tier.completion_tokens_min for tier in tiers)}):
                brings, takes = price_then.rates(prompt, completion), cost_then.rates(prompt, completion)
                if (key := (_amounts(brings), _amounts(takes))) not in seen:
                    seen.add(key)
                    found.append(
                        Line(
                            hours=hours,
                            prompt_tokens_min=prompt,
                            completion_tokens_min=completion,
                            price=brings,
                            cost=takes,
                        )
                    )
    return found


def margin(price: int, cost: int) -> Fraction | None:
    """The part of the price that is left, as Fraction(1, 2) for half of it; None where the price is 0."""
    return Fraction(price - cost, price) if price else None


def least(found: Sequence[Line]) -> Fraction | None:
    """The smallest part of a price that is left in any of the lines; None where all is free."""
    parts = [
        part
        for line in found
        for name in CLASSES
        if (name != "cache_write" or line.writes_differ)
        and (part := margin(getattr(line.price, name), getattr(line.cost, name))) is not None
    ]
    return min(parts, default=None)


def _in(version: Version, hours: str | None) -> Price:
    return next((price for calendar, price in version.hours if calendar.id == hours), version.base)


def _amounts(rates: Rates) -> tuple[int, ...]:
    return tuple(getattr(rates, name) for name in CLASSES)

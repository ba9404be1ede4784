"""What is left of a price: every pair of rates that a call can meet, by an oracle that meets them one by one."""

from fractions import Fraction
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from vipcloud.metering import margin
from vipcloud.providers import prices
from vipcloud.providers.catalog import catalog_of, packaged_toml
from vipcloud.providers.price_rows import CalendarRow, PriceRow
from vipcloud.providers.prices import Calendar, Version

CATALOG = catalog_of(packaged_toml())


def calendar(name: str) -> Calendar:
    row = CalendarRow(utc_offset="+00:00", windows=("00:00-12:00",))
    return prices.calendar(name, row, name)


CALENDARS = {name: calendar(name) for name in ("day", "night")}


def version(row: dict[str, Any]) -> Version:
    return prices.price_book(msgspec.convert(row, PriceRow), None, CALENDARS, "price").versions[0]


def test_a_margin_is_a_part_of_the_price() -> None:
    assert margin.margin(200, 150) == Fraction(1, 4)
    assert margin.margin(100, 150) == Fraction(-1, 2)
    assert margin.margin(0, 0) is None


def test_kimi_is_sold_below_cost_and_deepseek_is_not() -> None:
    def below(model_id: str) -> set[str]:
        model = CATALOG.models[model_id]
        assert model.prices is not None
        price, cost = model.prices.version(0), model.listed[0].costs.version(0)
        return {name for line in margin.lines(price, cost) for name in line.below_cost}

    assert below("kimi-k2") == {"input", "output"}
    assert below("deepseek-chat") == below("glm-4-plus") == below("glm-4-air") == set()
    assert below("qwen3-max") == {"input", "output"}


def test_a_write_counts_where_it_has_a_price() -> None:
    (plain,) = margin.lines(version({"input": "1", "output": "1"}), version({"input": "2", "output": "1"}))
    assert (plain.below_cost, plain.writes_differ) == (("input", "cached_input"), False)
    cost = version({"input": "1", "output": "1", "cache_write": "1.25"})
    (written,) = margin.lines(version({"input": "1", "output": "1"}), cost)
    assert (written.below_cost, written.writes_differ) == (("cache_write",), True)


AMOUNTS = st.sampled_from(["1", "2", "3"])
RATES = st.fixed_dictionaries({"input": AMOUNTS, "output": AMOUNTS})
SIZES = st.sampled_from([0, 10, 20])
TIERS = st.lists(
    st.builds(
        lambda rates, prompt, completion: {**rates, "prompt_tokens_min": prompt, "completion_tokens_min": completion},
        RATES,
        SIZES,
        SIZES,
    ).filter(lambda tier: tier["prompt_tokens_min"] or tier["completion_tokens_min"]),
    max_size=2,
)
ROWS = st.builds(
    lambda rates, tiers, hours: {**rates, "tiers": tiers, "hours": hours},
    RATES,
    TIERS,
    st.dictionaries(st.sampled_from(["day", "night"]), RATES, max_size=2),
)


@given(ROWS, ROWS)
def test_the_lines_are_the_pairs_of_rates_that_calls_meet(price: dict[str, Any], cost: dict[str, Any]) -> None:
    ours, theirs = version(price), version(cost)
    found = margin.lines(ours, theirs)
    told = [(line.price.input, line.price.output, line.cost.input, line.cost.output) for line in found]
    met = set()
    for hours in (None, "day", "night"):
        for prompt in (0, 9, 10, 19, 20, 99):
            for completion in (0, 9, 10, 19, 20, 99):
                pair = []
                for each in (ours, theirs):
                    then = next((one for cal, one in each.hours if cal.id == hours), each.base)
                    rates = then.rates(prompt, completion)
                    pair += [rates.input, rates.output]
                met.add(tuple(pair))
    assert len(told) == len(set(told))
    assert set(told) == met

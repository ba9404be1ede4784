"""Prices over time: what rows say, which price is in force when, and what a version id stands for."""

from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from math import inf
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vipcloud.errors import SettingsError
from vipcloud.providers import prices
from vipcloud.providers.catalog import catalog_of, packaged_toml
from vipcloud.providers.price_rows import CalendarRow, PriceRow
from vipcloud.providers.prices import PriceBook

CATALOG = catalog_of(packaged_toml())
PEAK = CATALOG.models["deepseek-chat"].candidates[0].costs.versions[0].hours[0][0]
BEIJING = timezone(timedelta(hours=8))


def book(*rows: dict[str, Any], costs: PriceBook | None = None) -> PriceBook:
    """A customer's price as an operator's file would have it; one row is the short form."""
    given = tuple(msgspec.convert(row, PriceRow) for row in rows)
    return prices.price_book(given[0] if len(given) == 1 else given, costs, {PEAK.id: PEAK}, "price")


def utc(*moment: int) -> datetime:
    return datetime(*moment, tzinfo=UTC)  # type: ignore[misc,arg-type]


def beijing(*moment: int) -> float:
    return datetime(*moment, tzinfo=BEIJING).timestamp()  # type: ignore[misc,arg-type]


DEAR, CHEAP = {"input": "2", "output": "8"}, {"input": "1", "output": "4"}


# --- DeepSeek's hours ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("moment", "peak"),
    [
        ((2026, 11, 25, 8, 59, 59), False),  # a Wednesday
        ((2026, 11, 25, 9), True),
        ((2026, 11, 25, 11, 59, 59), True),
        ((2026, 11, 25, 12), False),
        ((2026, 11, 25, 13, 59, 59), False),
        ((2026, 11, 25, 14), True),
        ((2026, 11, 25, 17, 59, 59), True),
        ((2026, 11, 25, 18), False),
        ((2026, 11, 28, 10), False),  # Saturday
        ((2026, 11, 29, 10), False),
        ((2026, 11, 30, 10), True),
        ((2026, 10, 1, 10), False),  # National Day, a Thursday
        ((2026, 10, 7, 10), False),
        ((2026, 10, 8, 10), True),
        ((2026, 10, 10, 10), False),  # a working Saturday is a Saturday still
        ((2027, 2, 8, 10), False),  # Spring Festival
        ((2027, 2, 11, 10), True),
    ],
)
def test_deepseek_costs_double_at_peak_in_beijing_and_not_on_its_holidays(moment: tuple[int, ...], peak: bool) -> None:
    for model_id in ("deepseek-chat", "deepseek-reasoner"):
        cost = CATALOG.models[model_id].candidates[0].costs.at(beijing(*moment))
        rates = (cost.input, cost.cached_input, cost.output)
        assert rates == ((300_000, 6_000, 1_200_000) if peak else (150_000, 3_000, 600_000))
        assert ("deepseek-peak" in cost.version) == peak


def test_the_hours_are_the_sheets_in_utc() -> None:
    """`UTC 01–04 and 06–10`: the sheet says it twice, once for each clock."""
    inside = [hour for hour in range(24) if PEAK.at(utc(2026, 11, 25, hour).timestamp())[0]]
    assert inside == [1, 2, 3, 6, 7, 8, 9]


def slow_peak(wall_s: float) -> bool:
    """The oracle: the calendar's words, by the standard library's clock."""
    local = datetime.fromtimestamp(wall_s, BEIJING)
    if local.weekday() > 4 or local.date().toordinal() in PEAK.holidays:
        return False
    return 9 <= local.hour < 12 or 14 <= local.hour < 18


def test_a_calendar_says_when_its_holidays_have_run_out() -> None:
    assert PEAK.knows(beijing(2026, 11, 25))
    assert PEAK.knows(beijing(2027, 12, 31, 23, 59, 59))
    assert not PEAK.knows(beijing(2028, 1, 1))
    always = CalendarRow(utc_offset="+08:00", windows=("09:00-12:00",))
    assert prices.calendar("always", always, "calendars.always").knows(beijing(2040, 1, 1))


SECONDS = st.integers(int(beijing(2026, 1, 1)), int(beijing(2028, 1, 1)))


@given(SECONDS, st.floats(0, 1))
def test_a_calendar_says_the_truth_for_as_long_as_it_promises(wall_s: int, part: float) -> None:
    inside, until_s = PEAK.at(wall_s)
    assert inside == slow_peak(wall_s)
    assert wall_s < until_s <= wall_s + 86_400
    assert slow_peak(wall_s + part * (until_s - 1 - wall_s)) == inside


@given(st.lists(SECONDS, min_size=1, max_size=12))
def test_a_book_asked_in_any_order_says_what_a_new_one_would(moments: list[int]) -> None:
    rows = (
        {**CHEAP, "hours": {"deepseek-peak": DEAR}},
        {"input": "3", "output": "3", "effective": utc(2026, 6, 1)},
        {"input": "5", "output": "5", "effective": utc(2027, 6, 1, 12), "hours": {"deepseek-peak": DEAR}},
    )
    asked = book(*rows)
    for moment in moments:
        found = asked.at(moment)
        assert found == book(*rows).at(moment)
        if moment < utc(2026, 6, 1).timestamp():
            expected = 2_000_000 if slow_peak(moment) else 1_000_000
        elif moment < utc(2027, 6, 1, 12).timestamp():
            expected = 3_000_000
        else:
            expected = 2_000_000 if slow_peak(moment) else 5_000_000
        assert found.input == expected


# --- versions ------------------------------------------------------------------------------------------------------


def test_a_version_takes_effect_at_its_moment_and_not_a_second_before() -> None:
    found = book(CHEAP, {**DEAR, "effective": datetime(2026, 12, 1, 8, tzinfo=BEIJING)})
    change_s = utc(2026, 12, 1).timestamp()
    assert [found.at(change_s + shift).input for shift in (-1e9, -0.001, 0, 0.001, 1e9)] == [
        *[1_000_000] * 2,
        *[2_000_000] * 3,
    ]
    assert found.at(change_s).version.startswith("2026-12-01.")
    assert found.at(0).version.startswith("base.")


def test_an_id_stands_for_one_price_only() -> None:
    rows: list[dict[str, Any]] = [
        CHEAP,
        DEAR,
        {**CHEAP, "cached_input": "0.5"},
        {**CHEAP, "cache_write": "1.25"},
        {**CHEAP, "tiers": [{**DEAR, "prompt_tokens_min": 100}]},
        {**CHEAP, "tiers": [{**DEAR, "prompt_tokens_min": 101}]},
        {**CHEAP, "tiers": [{**DEAR, "completion_tokens_min": 100}]},
    ]
    versions = [book(row).at(0).version for row in rows]
    assert len(set(versions)) == len(rows)
    assert versions == [book(row).at(0).version for row in rows]
    same = book({**CHEAP, "cached_input": "1.0", "cache_write": "1"})
    assert same.at(0).version == versions[0]  # what it says in other words is the same price


def test_packaged_version_ids_are_well_formed_and_short() -> None:
    for model in CATALOG.models.values():
        assert model.prices is not None
        for one in (model.prices, *(candidate.costs for candidate in model.candidates)):
            assert one.versions[0].effective_s == -inf
            for price in one.prices:
                since, *hours, digest = price.version.split(".")
                assert (since, len(digest), len(hours) <= 1, len(price.version) <= 64) == ("base", 12, True, True)


# --- classes and tiers ---------------------------------------------------------------------------------------------


def test_a_class_without_a_price_costs_what_input_costs() -> None:
    price = book(CHEAP).at(0)
    assert (price.cached_input, price.cache_write, price.input_max) == (1_000_000,) * 3
    price = book({**CHEAP, "cached_input": "0.1", "cache_write": "1.25"}).at(0)
    assert (price.cached_input, price.cache_write, price.input_max) == (100_000, 1_250_000, 1_250_000)


@pytest.mark.parametrize(
    ("prompt", "completion", "rates"),
    [
        (1, 1, (112_000, 280_000, 22_400)),
        (31_999, 199, (112_000, 280_000, 22_400)),
        (1, 200, (112_000, 840_000, 22_400)),
        (31_999, 200, (112_000, 840_000, 22_400)),
        (32_000, 1, (168_000, 1_120_000, 33_600)),
        (32_000, 200, (168_000, 1_120_000, 33_600)),
    ],
)
def test_glm_4_5_air_has_tiers_by_input_and_by_output(prompt: int, completion: int, rates: tuple[int, ...]) -> None:
    found = CATALOG.models["glm-4-air"].candidates[1].costs.at(0).rates(prompt, completion)
    assert (found.input, found.output, found.cached_input) == rates


def test_the_dearest_rates_are_those_of_the_tiers_that_can_be_reached() -> None:
    price = CATALOG.models["glm-4-air"].candidates[1].costs.at(0)
    assert price.dearest(100, 100) is price
    assert (price.dearest(100, 200).input_max, price.dearest(100, 200).output) == (112_000, 840_000)
    assert (price.dearest(32_000, 1).input_max, price.dearest(32_000, 1).output) == (168_000, 1_120_000)
    falling = book({**DEAR, "tiers": [{**CHEAP, "prompt_tokens_min": 10}]}).at(0)  # a discount for large calls
    assert (falling.dearest(100, 1).input_max, falling.dearest(100, 1).output) == (2_000_000, 8_000_000)


# --- markup --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model_id", "cost", "price"),
    [("glm-4", ("0.70", "0.70"), (805_000, 805_000)), ("minimax-text-01", ("0.2", "1.1"), (230_000, 1_265_000))],
)
def test_list_price_plus_15_percent(model_id: str, cost: tuple[str, str], price: tuple[int, int]) -> None:
    model = CATALOG.models[model_id]
    assert model.prices is not None
    (found,) = model.prices.prices
    assert (found.input, found.output) == price
    assert price == tuple(Fraction(dollars) * 1_000_000 * 115 / 100 for dollars in cost)


@given(st.integers(0, 10**9), st.decimals(0, 999, places=2))
def test_a_markup_is_exact_and_rounded_down(pico: int, percent: Decimal) -> None:
    costs = book({"input": f"{pico // 10**6}.{pico % 10**6:06d}", "output": "1"})
    raised = book({"markup_percent": f"{percent:f}"}, costs=costs).at(0).input
    assert raised == int(pico * (1 + Fraction(percent) / 100) // 1)


def test_a_markup_follows_the_costs_versions_hours_and_tiers() -> None:
    costs = book(
        {**CHEAP, "cached_input": "0.1", "hours": {"deepseek-peak": DEAR}},
        {**DEAR, "tiers": [{"prompt_tokens_min": 10, "input": "4", "output": "4"}], "effective": utc(2026, 12, 1)},
    )
    follows = book(
        {"markup_percent": "10"},
        {"markup_percent": "20", "effective": utc(2026, 12, 2)},
        {"input": "9", "output": "9", "effective": utc(2026, 12, 3)},
        costs=costs,
    )
    peak, off_peak = beijing(2026, 11, 30, 10), beijing(2026, 11, 30, 20)
    assert [follows.at(moment).input for moment in (peak, off_peak)] == [2_200_000, 1_100_000]
    assert follows.at(off_peak).cached_input == 110_000
    days = [follows.at(utc(2026, 12, day).timestamp()) for day in (1, 2, 3)]
    assert [price.input for price in days] == [2_200_000, 2_400_000, 9_000_000]
    assert [price.rates(10, 1).input for price in days] == [4_400_000, 4_800_000, 9_000_000]
    assert [version.base.version.partition(".")[0] for version in follows.versions] == [
        "base",
        "2026-12-01",
        "2026-12-02",
        "2026-12-03",
    ]


def test_a_price_given_outright_wins_over_the_markup_below_it() -> None:
    loaded = catalog_of(packaged_toml(), '[models.glm-4]\nprice = { input = "1", output = "2" }')
    assert loaded.models["glm-4"].prices is not None
    price = loaded.models["glm-4"].prices.at(0)
    assert (price.input, price.output, price.cached_input) == (1_000_000, 2_000_000, 1_000_000)


# --- what is refused -----------------------------------------------------------------------------------------------

FIRST = 'price = [{ input = "1", output = "1" }, '


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("[models.glm-4-air]\nprice = []", "models.glm-4-air.price: give at least one price"),
        (
            '[models.glm-4-air]\nprice = { input = "1", output = "1", effective = 2026-12-01T00:00:00Z }',
            "price.effective: the first price counts from the beginning",
        ),
        (f'[models.glm-4-air]\n{FIRST}{{ input = "1", output = "1" }}]', r"price\[1\].effective: say when"),
        (
            f'[models.glm-4-air]\n{FIRST}{{ input = "1", output = "1", effective = 2026-12-01T00:00:00 }}]',
            r"price\[1\].effective: expected `datetime` with a timezone",
        ),
        (
            f'[models.glm-4-air]\n{FIRST}{{ input = "1", output = "1", effective = 2026-12-01T00:00:00Z }},'
            '{ input = "1", output = "1", effective = 2026-12-01T00:00:00Z }]',
            r"price\[2\].effective: say when it takes effect, later than the one before",
        ),
        (
            f"[models.glm-4-air]\n{FIRST}{{ inptu = 1 }}]",
            r"price\[1\].inptu is not a field here; there are cache_write",
        ),
        ('[models.new]\nprice = { input = "1" }', "models.new: object missing required field"),
        ('[models.glm-4.price]\noutput = "1"', "models.glm-4.price: give input and output, or markup_percent alone"),
        ('[models.glm-4.price]\nmarkup_percent = "-5"', "markup_percent: '-5' is not a percentage"),
        ("[models.glm-4.price]\nmarkup_percent = 15", "markup_percent: a price is text|markup_percent: expected `str"),
        (
            '[models.glm-4]\ncandidates = [{ provider = "zhipu", model = "m", cost = { markup_percent = "1" } }]',
            r"candidates\[0\].cost.markup_percent: a cost is what the upstream's list says",
        ),
        (
            '[models.glm-4]\ncandidates = [{ provider = "zhipu", model = "m", cost = { input = "1" } }]',
            r"candidates\[0\].cost.output: missing",
        ),
        (
            '[models.glm-4-air.price.hours]\nnight = { input = "1", output = "1" }',
            "price.hours.night is not a calendar; there are deepseek-peak",
        ),
        (
            '[models.glm-4-air.price.hours]\ndeepseek-peak = { input = "1", output = "1", effective = 1 }',
            "hours.*effective is not a field here; there are cache_write",
        ),
        (
            '[models.glm-4-air.price]\ntiers = [{ input = "1", output = "1" }]',
            r"price.tiers\[0\]: say from how many tokens on",
        ),
        (
            '[models.glm-4-air.price]\ntiers = [{ input = "1", output = "x", prompt_tokens_min = 1 }]',
            r"price.tiers\[0\].output: 'x' is not dollars",
        ),
        (
            '[models.glm-4-flash.price]\ntiers = [{ input = "1", output = "0", prompt_tokens_min = 1 }]',
            "price and status disagree",
        ),
        ('[calendars.deepseek-peak]\nutc_offset = "CST"', "utc_offset: 'CST' is not a distance from UTC"),
        ('[calendars.deepseek-peak]\nwindows = ["9-12"]', "windows: '9-12'; write hours of a day in order"),
        ('[calendars.deepseek-peak]\nwindows = ["22:00-06:00"]', "windows: '22:00-06:00'"),
        ('[calendars.deepseek-peak]\nwindows = ["08:00-12:00", "11:00-13:00"]', "windows: '11:00-13:00'"),
        ("[calendars.deepseek-peak]\nwindows = []", "windows: expected `array` of length >= 1"),
        ('[calendars.deepseek-peak]\nweekdays = ["Monday"]', "weekdays"),
        ('[calendars.Night]\nutc_offset = "+00:00"\nwindows = ["00:00-24:00"]', "calendars.Night: an id is lower-case"),
    ],
)
def test_a_wrong_price_is_refused_with_its_path_and_what_would_be_right(override: str, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        catalog_of(packaged_toml(), override)


def test_a_calendar_may_last_to_midnight_and_lie_west() -> None:
    row = CalendarRow(
        utc_offset="-05:30", windows=("00:00-06:00", "22:00-24:00"), holidays=frozenset({date(2026, 1, 2)})
    )
    night = prices.calendar("night", row, "calendars.night")
    local = timezone(-timedelta(hours=5, minutes=30))
    for day, hour, inside in ((1, 0, True), (1, 6, False), (1, 21, False), (1, 22, True), (1, 23, True), (2, 0, False)):
        assert night.at(datetime(2026, 1, day, hour, tzinfo=local).timestamp())[0] == inside, (day, hour)


@given(st.decimals(0, 999_999, places=6).map(lambda price: f"{price:f}"))
def test_a_price_is_exact_to_the_last_decimal(text: str) -> None:
    assert prices.parse_price(text) == int(Decimal(text) * 1_000_000)


@given(st.text(max_size=12))
def test_a_price_is_digits_or_refused(text: str) -> None:
    try:
        price = prices.parse_price(text)
    except ValueError:
        return
    assert text.isascii()
    assert price == int(Decimal(text) * 1_000_000)

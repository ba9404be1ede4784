"""Costs, ceilings and estimates."""

from datetime import UTC, date, datetime, timedelta
from fractions import Fraction

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vipcloud.dialects.openai import ChatRequest
from vipcloud.metering import estimate, rules, vocabulary
from vipcloud.metering.estimate import Texts
from vipcloud.providers import usage
from vipcloud.providers.catalog import catalog_of, packaged_toml
from vipcloud.providers.catalog_rows import Quirks
from vipcloud.providers.price_rows import PriceRow
from vipcloud.providers.prices import Price, price_book
from vipcloud.providers.usage import Delivered, TextSize


def rates(input_: int, output: int, cached: int | None = None, written: int | None = None) -> dict[str, int]:
    """As the catalogue has them: tokens from and into the cache cost as much as others unless a row says otherwise."""
    cached, written = input_ if cached is None else cached, input_ if written is None else written
    return {
        "input": input_,
        "output": output,
        "cached_input": cached,
        "cache_write": written,
        "input_max": max(input_, cached, written),
    }


def price(input_: int, output: int, cached: int | None = None, written: int | None = None) -> Price:
    made = rates(input_, output, cached, written)
    return msgspec.convert({"version": "v", "tiers": (), "flat": made["cache_write"] == input_, **made}, Price)


def size(text: str) -> TextSize:
    measured = TextSize()
    measured.add(text)
    return measured


prices = st.builds(price, st.integers(0, 10**8), st.integers(0, 10**8), st.none() | st.integers(0, 10**8))


@pytest.mark.parametrize(
    ("prompt", "cached", "completion", "of", "nanousd"),
    [
        (1_000_000, 0, 0, price(310_000, 480_000), 310_000_000),  # $0.31 per million is 31 cents a million
        (0, 0, 1_000_000, price(310_000, 480_000), 480_000_000),
        (1_000_000, 1_000_000, 0, price(310_000, 480_000, 31_000), 31_000_000),
        (1_000_000, 1_000_000, 0, price(310_000, 480_000), 310_000_000),
        (1_000_000, 1_000_000, 0, price(310_000, 480_000, 0), 0),
        (13, 5, 4, price(310_000, 480_000, 31_000), (8 * 310_000 + 5 * 31_000 + 4 * 480_000) // 1000),
        (1, 0, 0, price(999, 0), 0),  # down
        (1, 0, 1, price(999, 1), 1),  # once, after adding
        (3, 0, 0, price(0, 0), 0),
    ],
)
def test_cost_is_tokens_times_price(prompt: int, cached: int, completion: int, of: Price, nanousd: int) -> None:
    assert rules.cost(usage.of(prompt, completion, cached_tokens=cached), of) == nanousd


def test_a_ceiling_rounds_up() -> None:
    assert rules.ceiling(1, 0, price(999, 0)) == 1
    assert rules.ceiling(0, 1, price(0, 1001)) == 2
    assert rules.ceiling(2, 3, price(1000, 1000)) == 5


@given(st.data(), prices, st.integers(0, 10**7), st.integers(0, 10**7))
def test_no_cost_is_above_its_ceiling(data: st.DataObject, of: Price, prompt_bytes: int, output_max: int) -> None:
    prompt = data.draw(st.integers(0, prompt_bytes))
    used = usage.of(prompt, data.draw(st.integers(0, output_max)), cached_tokens=data.draw(st.integers(0, prompt)))
    assert 0 <= rules.cost(used, of) <= rules.ceiling(prompt_bytes, output_max, of)


# --- an oracle in fractions ----------------------------------------------------------------------------------------

# A price with all that can be in one: classes, tiers by input and by output, hours, and a version that follows it.
BOOK = {
    "input": "0.15",
    "cached_input": "0.003",
    "output": "0.6",
    "tiers": [
        {"completion_tokens_min": 200, "input": "0.15", "cached_input": "0.003", "output": "0.9"},
        {"prompt_tokens_min": 32_000, "input": "0.35", "cached_input": "0.03", "output": "1.333333"},
    ],
    "hours": {
        "deepseek-peak": {
            "cache_write": "0.375",
            "input": "0.30",
            "cached_input": "0.006",
            "output": "1.2",
            "tiers": [{"prompt_tokens_min": 32_000, "input": "0.7", "cached_input": "0.7", "output": "2.666666"}],
        }
    },
}
DATED = {"input": "0.111111", "output": "0.999999", "effective": datetime(2026, 12, 1, tzinfo=UTC)}
CATALOG = catalog_of(packaged_toml())
PEAK = CATALOG.models["deepseek-chat"].candidates[0].costs.versions[0].hours[0][0]
PRICES_OVER_TIME = price_book(
    tuple(msgspec.convert(row, PriceRow) for row in (BOOK, DATED)), None, {PEAK.id: PEAK}, "price"
)
CHANGE_S = int(datetime(2026, 12, 1, tzinfo=UTC).timestamp())
EDGES_S = [  # of Beijing's peak on a Wednesday, in UTC; a weekend, a holiday, and the change of version
    int(datetime(*moment, tzinfo=UTC).timestamp())
    for moment in ((2026, 11, 25, 1), (2026, 11, 25, 4), (2026, 11, 25, 6), (2026, 11, 25, 10), (2026, 11, 28, 1))
] + [int(datetime(2026, 10, 1, 1, tzinfo=UTC).timestamp()), CHANGE_S]


def oracle(at_s: int, prompt: int, cached: int, written: int, completion: int) -> int:
    """Nano-dollars, from the text of the rows, by another way than the code's: fractions, and the hour in UTC."""
    moment = datetime.fromtimestamp(at_s, UTC)
    holiday = (moment + timedelta(hours=8)).date() in {date(2026, 10, day) for day in range(1, 8)}
    workday = (moment + timedelta(hours=8)).weekday() < 5 and not holiday
    peak = workday and (1 <= moment.hour < 4 or 6 <= moment.hour < 10)
    if at_s >= CHANGE_S:
        words = ("0.111111", "0.111111", "0.111111", "0.999999")
    elif peak:
        words = ("0.7", "0.7", "0.7", "2.666666") if prompt >= 32_000 else ("0.30", "0.006", "0.375", "1.2")
    elif prompt >= 32_000:
        words = ("0.35", "0.03", "0.35", "1.333333")
    else:
        words = ("0.15", "0.003", "0.15", "0.9" if completion >= 200 else "0.6")
    counts = (prompt - cached - written, cached, written, completion)
    dollars = sum(count * Fraction(word) / 1_000_000 for count, word in zip(counts, words, strict=True))
    return int(dollars * 1_000_000_000 // 1)


moments = st.builds(int.__add__, st.sampled_from(EDGES_S), st.integers(-2, 2) | st.integers(-40_000, 40_000))
prompts = st.integers(1, 70_000) | st.sampled_from([31_999, 32_000, 32_001])
completions = st.integers(0, 1000) | st.sampled_from([199, 200, 201])


@given(moments, prompts, st.floats(0, 1), st.floats(0, 1), completions)
def test_a_charge_is_the_oracles_at_every_hour_in_every_tier(
    at_s: int, prompt: int, hit: float, put: float, completion: int
) -> None:
    cached = int(prompt * hit)
    written = int((prompt - cached) * put)
    price = PRICES_OVER_TIME.at(at_s)
    used = usage.of(prompt, completion, cached_tokens=cached, cache_write_tokens=written)
    assert rules.cost(used, price) == oracle(at_s, prompt, cached, written, completion)
    assert rules.cost(used, price) <= rules.ceiling(prompt, completion, price)


@given(moments, prompts, prompts, completions, completions)
def test_a_ceiling_covers_every_smaller_call(at_s: int, prompt: int, other: int, out: int, more: int) -> None:
    price = PRICES_OVER_TIME.at(at_s)
    used = usage.of(min(prompt, other), min(out, more))
    assert rules.cost(used, price) <= rules.ceiling(max(prompt, other), max(out, more), price)


# --- estimates ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("", 0),
        ("a", 1),
        ("abcd", 1),
        ("abcde", 2),
        ("The quick brown fox jumps over the lazy dog.", 11),
        ("你", 1),
        ("你好，世界", 3),
        ("é", 1),
        ("😀", 1),
    ],
)
def test_tokens_are_estimated_by_the_size_of_the_text(text: str, tokens: int) -> None:
    assert estimate.tokens(size(text)) == tokens


@given(st.text())
def test_no_estimate_is_above_the_bytes(text: str) -> None:
    assert 0 <= estimate.tokens(size(text)) <= len(text.encode())


@given(st.text(), st.text())
def test_more_text_is_never_fewer_tokens(text: str, more: str) -> None:
    assert estimate.tokens(size(text)) <= estimate.tokens(size(text + more))


def test_a_cut_answer_is_counted_by_what_was_delivered() -> None:
    delivered = Delivered(content=size("a" * 40), reasoning=size("b" * 20), calls=size("c" * 4))
    assert estimate.usage_of(size("p" * 8), delivered, 100) == usage.of(2, 16, reasoning_tokens=5)
    assert estimate.usage_of(size("p" * 8), delivered, 12) == usage.of(2, 12, reasoning_tokens=5)
    assert estimate.usage_of(size("p" * 8), delivered, 3) == usage.of(2, 3, reasoning_tokens=3)


def test_counts_become_usage_within_the_bytes_and_the_ceiling() -> None:
    texts, quirks = Texts("p" * 8, "content", "reasoning", "calls"), Quirks()
    assert estimate.usage_of_counts([3, 2, 4, 1], texts, quirks, 100) == usage.of(3, 7, reasoning_tokens=4)
    assert estimate.usage_of_counts([3, 2, 4, 1], texts, quirks, 3) == usage.of(3, 3, reasoning_tokens=3)
    assert estimate.usage_of_counts([10, 2, 4, 1], texts, Quirks(vocabulary_factor=1.5), 100).prompt_tokens == 8
    assert estimate.usage_of_counts([4, 2, 4, 2], texts, Quirks(vocabulary_factor=1.5), 100).completion_tokens == 12
    assert estimate.guess(Texts("", "Hello there."), Quirks(vocabulary="deepseek")) == [
        0,
        vocabulary.guess("Hello there.", "deepseek"),
        0,
        0,
    ]


def test_the_prompt_is_all_text_of_the_messages_and_tools() -> None:
    body = {
        "model": "m",
        "messages": [
            {"role": "system", "content": "1234"},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "12"},
                    {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
                ],
            },
            {
                "role": "assistant",
                "content": None,
                "reasoning_content": "123",
                "tool_calls": [{"id": "x", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
            },
            {"role": "tool", "tool_call_id": "x", "content": "é"},
            {"role": "assistant", "content": [{"type": "refusal", "refusal": "No"}]},
        ],
    }
    request = msgspec.convert(body, ChatRequest)
    assert estimate.prompt_size(request) == TextSize(15, 16)
    assert estimate.prompt_text(request).replace("\n", "") == "123412123f{}éNo"
    tools = [{"type": "function", "function": {"name": "f"}}]
    with_tools = msgspec.convert({**body, "tools": tools}, ChatRequest)
    assert estimate.prompt_size(with_tools).chars == 15 + len(msgspec.json.encode(tools))

"""Costs, ceilings and estimates."""

from typing import NamedTuple

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vipcloud.dialects.openai import ChatRequest
from vipcloud.metering import estimate, rules
from vipcloud.money import PicoUSDPerToken
from vipcloud.providers import usage
from vipcloud.providers.usage import Delivered, TextSize


class Price(NamedTuple):
    input: PicoUSDPerToken
    output: PicoUSDPerToken
    cached_input: PicoUSDPerToken


def price(input_: int, output: int, cached: int | None = None) -> Price:
    """As the catalogue has it: tokens from the cache cost as much as others unless a row says otherwise."""
    return Price(
        PicoUSDPerToken(input_), PicoUSDPerToken(output), PicoUSDPerToken(input_ if cached is None else cached)
    )


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
    tools = [{"type": "function", "function": {"name": "f"}}]
    with_tools = msgspec.convert({**body, "tools": tools}, ChatRequest)
    assert estimate.prompt_size(with_tools).chars == 15 + len(msgspec.json.encode(tools))

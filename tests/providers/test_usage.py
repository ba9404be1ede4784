"""Which counts are believed, and how they are read."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vipcloud.providers import usage
from vipcloud.providers.usage import TextSize
from vipcloud.providers.wire import Counts


@pytest.mark.parametrize(
    ("wire", "cached", "reasoning"),
    [
        ({}, 0, 0),
        ({"prompt_cache_hit_tokens": 64, "prompt_cache_miss_tokens": 36}, 64, 0),
        ({"prompt_tokens_details": {"cached_tokens": 64}}, 64, 0),
        ({"cached_tokens": 64, "prompt_tokens_details": None}, 64, 0),
        ({"prompt_cache_hit_tokens": 64, "prompt_tokens_details": {"cached_tokens": 1}, "cached_tokens": 2}, 64, 0),
        ({"prompt_cache_hit_tokens": None, "prompt_tokens_details": {"cached_tokens": None}}, 0, 0),
        ({"completion_tokens_details": {"reasoning_tokens": 7}}, 0, 7),
        ({"completion_tokens_details": None}, 0, 0),
        ({"completion_tokens_details": {"reasoning_tokens": None}}, 0, 0),
        ({"total_tokens": 999, "total_characters": 0, "vendor": [1]}, 0, 0),
    ],
)
def test_vendors_spellings_become_ours(wire: dict[str, Any], cached: int, reasoning: int) -> None:
    read = usage.read({"prompt_tokens": 100, "completion_tokens": 20, **wire})
    assert read == usage.of(100, 20, cached_tokens=cached, reasoning_tokens=reasoning)
    assert read.total_tokens == 120


@pytest.mark.parametrize(
    "wire",
    [
        None,
        "12",
        [],
        {},
        {"total_tokens": 12},
        {"prompt_tokens": 1},
        {"prompt_tokens": None, "completion_tokens": 1},
        {"prompt_tokens": -1, "completion_tokens": 1},
        {"prompt_tokens": 1, "completion_tokens": -1},
        {"prompt_tokens": 0, "completion_tokens": 1},
        {"prompt_tokens": "1", "completion_tokens": 1},
        {"prompt_tokens": 1.0, "completion_tokens": 1},
        {"prompt_tokens": float("nan"), "completion_tokens": 1},
        {"prompt_tokens": 1, "completion_tokens": float("inf")},
        {"prompt_tokens": True, "completion_tokens": 1},
        {"prompt_tokens": 1, "completion_tokens": [1]},
        {"prompt_tokens": 2**40, "completion_tokens": 1},
        {"prompt_tokens": 1, "completion_tokens": 10**30},
        {"prompt_tokens": 1, "completion_tokens": 1, "prompt_cache_hit_tokens": 2},
        {"prompt_tokens": 1, "completion_tokens": 1, "prompt_cache_hit_tokens": -1},
        {"prompt_tokens": 1, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": "1"}},
        {"prompt_tokens": 9, "completion_tokens": 1, "cached_tokens": 5, "cache_creation_input_tokens": 5},
        {"prompt_tokens": 9, "completion_tokens": 1, "prompt_tokens_details": {"cache_creation_input_tokens": True}},
        {"prompt_tokens": 1, "completion_tokens": 1, "completion_tokens_details": {"reasoning_tokens": 2}},
        {"prompt_tokens": 1, "completion_tokens": 1, "completion_tokens_details": {"reasoning_tokens": -1}},
        {"prompt_tokens": 1, "completion_tokens": 1, "completion_tokens_details": {"reasoning_tokens": "1"}},
        {"prompt_tokens": 1, "completion_tokens": 1, "completion_tokens_details": {"reasoning_tokens": True}},
    ],
)
def test_absurd_counts_are_no_counts(wire: Any) -> None:
    assert usage.read(wire) is None


def test_tokens_written_to_a_cache_are_told_apart() -> None:
    wire = {"prompt_tokens": 100, "completion_tokens": 20, "prompt_tokens_details": {"cached_tokens": 30}}
    wire["prompt_tokens_details"]["cache_creation_input_tokens"] = 60  # type: ignore[index]
    assert usage.read(wire) == usage.of(100, 20, cached_tokens=30, cache_write_tokens=60)
    assert b'"cache_write_tokens":60' in msgspec.json.encode(usage.read(wire))
    assert b"cache_write" not in msgspec.json.encode(usage.of(100, 20))


def test_dashscopes_native_names_are_known() -> None:
    assert usage.read({"input_tokens": 10, "output_tokens": 2, "total_tokens": 12}) == usage.of(10, 2)
    assert usage.is_filler({"input_tokens": 10, "output_tokens": 0}) is False


def test_a_count_above_the_window_is_refused() -> None:
    wire = {"prompt_tokens": 100, "completion_tokens": 20}
    assert usage.read(wire, 100) is not None
    assert usage.read(wire, 99) is None


def test_no_output_is_believed_only_where_none_was_seen() -> None:
    wire = {"prompt_tokens": 100, "completion_tokens": 0}
    assert usage.read(wire) == usage.of(100, 0)
    assert usage.read(wire, output_seen=True) is None


@pytest.mark.parametrize(
    ("wire", "filler"),
    [
        (None, True),
        ({}, True),
        ({"total_tokens": 0, "total_characters": 0}, True),
        ({"prompt_tokens": 0, "completion_tokens": 0, "prompt_tokens_details": {"cached_tokens": 0}}, True),
        ({"total_tokens": 12}, False),
        ({"prompt_tokens": -1}, False),
    ],
)
def test_zeros_on_running_chunks_are_filler(wire: Any, filler: bool) -> None:
    assert usage.is_filler(wire) is filler


COUNT = st.sampled_from([0, 1, 5, 10, 11, 2**70, -1, 1.0, True, "5", None])
COUNTS = st.fixed_dictionaries(
    {"prompt_tokens": COUNT, "completion_tokens": COUNT},
    optional={
        "prompt_cache_hit_tokens": COUNT,
        "cached_tokens": COUNT,
        "cache_creation_input_tokens": COUNT,
        "prompt_tokens_details": st.fixed_dictionaries(
            {}, optional={"cached_tokens": COUNT, "cache_creation_input_tokens": COUNT}
        )
        | COUNT,
        "completion_tokens_details": st.fixed_dictionaries({}, optional={"reasoning_tokens": COUNT}) | COUNT,
    },
)


@given(COUNTS)
def test_counts_that_decode_typed_are_read_as_those_that_do_not(wire: dict[str, Any]) -> None:
    try:
        typed = msgspec.json.decode(msgspec.json.encode(wire), type=Counts)
    except msgspec.ValidationError:
        return
    counted = usage.of_counts(typed, 10)
    assert (counted and counted.usage()) == usage.read(wire, 10, output_seen=True)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists) | st.none())
def test_whatever_is_read_can_be_priced(value: Any) -> None:
    for key in ("prompt_tokens", "completion_tokens", "prompt_cache_hit_tokens", "cached_tokens"):
        read = usage.read({"prompt_tokens": 10, "completion_tokens": 5, key: value})
        if read is not None:
            assert 0 <= read.prompt_tokens_details.cached_tokens <= read.prompt_tokens <= usage.TOKENS_MAX
            assert 0 <= read.completion_tokens <= usage.TOKENS_MAX


@given(st.lists(st.text()))
def test_sizes_add_up(texts: list[str]) -> None:
    size = TextSize()
    for text in texts:
        size.add(text)
    assert size == TextSize(len("".join(texts)), len("".join(texts).encode()))

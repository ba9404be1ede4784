"""Ids of tool calls: ours for the client, the provider's again on the way back."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vipcloud.providers import call_ids


@pytest.mark.parametrize(
    ("given", "ours"),
    [
        ("get_weather_0", "call_vc01ab-get_weather_0"),
        ("search:0", "call_vc01ab-search-3a0"),
        ("functions.search:0", "call_vc01ab-functions-2esearch-3a0"),
        ("a-b", "call_vc01ab-a-2db"),
        ("查_0", "call_vc01ab--e6-9f-a5_0"),
    ],
)
def test_an_id_is_told_with_the_replys_own_and_read_out_of_it_again(given: str, ours: str) -> None:
    assert call_ids.unique("chatcmpl-01ab", given) == ours
    assert call_ids.restored(ours) == given


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), st.from_regex(r"[0-9a-z]{1,24}", fullmatch=True))
def test_every_id_comes_back(given: str, serial: str) -> None:
    ours = call_ids.unique(f"chatcmpl-{serial}", given)
    assert re.fullmatch(r"[A-Za-z0-9_-]+", ours)
    assert call_ids.restored(ours) == given


def test_the_same_id_in_two_replies_is_two() -> None:
    assert call_ids.unique("chatcmpl-1", "get_weather_0") != call_ids.unique("chatcmpl-2", "get_weather_0")


@pytest.mark.parametrize(
    "other",
    [
        "",
        "get_weather_0",
        "call_00_ioIn7yN9p1ZOMNpDLwd4MgAF",
        "call_1f0c2b3a-0002-9001-8001-000000000002",
        "call_function_a6dzjuv09o80_1",
        "call_vc",
        "call_vc1-",
        "call_vc1-a-",
        "call_vc1-a.b",
        "call_vc1--ff",
    ],
)
def test_an_id_of_another_make_stays(other: str) -> None:
    assert call_ids.restored(other) == other

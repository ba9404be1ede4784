"""Amounts are integers of nano-dollars; text is the only other form, and exact both ways."""

import json
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vipcloud.money import AMOUNT_NANOUSD_MAX, NanoUSD, format_usd, parse_usd, usd_number

amounts = st.integers(-AMOUNT_NANOUSD_MAX, AMOUNT_NANOUSD_MAX).map(NanoUSD)


@given(amounts, st.integers(0, 9))
def test_what_is_printed_reads_as_the_same_amount(amount: NanoUSD, decimals_min: int) -> None:
    text = format_usd(amount, decimals_min)
    assert parse_usd(text) == amount
    assert Fraction(text) == Fraction(amount, 1_000_000_000)
    assert len(text.partition(".")[2]) >= decimals_min


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("5", 5_000_000_000),
        ("5.00", 5_000_000_000),
        ("0.000000001", 1),
        ("-0.5", -500_000_000),
        (" 1.25 ", 1_250_000_000),
        ("9223372036.854775807", AMOUNT_NANOUSD_MAX),
    ],
)
def test_dollars_are_read_exactly(text: str, amount: int) -> None:
    assert parse_usd(text) == amount


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "5.",
        ".5",
        "1e3",
        "5,00",
        "$5",
        "0x5",
        "NaN",
        "+1",
        "--1",
        "1.0000000001",
        "9223372036.854775808",
        "٥",
        "1_000",
    ],
)
def test_what_is_no_exact_amount_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"dollars|ledger"):
        parse_usd(text)


@pytest.mark.parametrize(
    ("amount", "text"), [(0, "0.00"), (1, "0.000000001"), (-1_500_000_000, "-1.50"), (13_910, "0.00001391")]
)
def test_amounts_are_printed_with_no_more_decimals_than_needed(amount: int, text: str) -> None:
    assert format_usd(NanoUSD(amount)) == text


@pytest.mark.parametrize(
    ("amount", "written"),
    [
        (0, b"0"),
        (1, b"0.000000001"),
        (1_102_630, b"0.00110263"),
        (999_999_999, b"0.999999999"),
        (1_000_000_000, b"1"),
        (1_500_000_000, b"1.5"),
        (10_000_000_000, b"10"),
        (12_000_000_001, b"12.000000001"),
    ],
)
def test_dollars_as_a_json_number(amount: int, written: bytes) -> None:
    assert usd_number(amount) == written


@given(st.integers(0, 2**63 - 1))
def test_a_json_number_of_dollars_is_exact(amount: int) -> None:
    assert json.loads(usd_number(amount), parse_float=Fraction) * 1_000_000_000 == amount

from collections import deque
from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vipcloud.limits.rules import (
    DAYS_KEPT_MAX,
    EPOCH,
    OUTPUT_TOKENS_MIN,
    WINDOW_S,
    Ask,
    Caps,
    MeterState,
    PurseState,
    affordable_tokens,
    jittered,
    month,
    whole_seconds,
)
from vipcloud.money import NanoUSD, PicoUSDPerToken


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, b"0s"), (0.01, b"1s"), (8.2, b"9s"), (59.5, b"1m0s"), (125, b"2m5s"), (86_399, b"23h59m59s")],
)
def test_durations_read_as_openai_writes_them(seconds: float, text: bytes) -> None:
    assert whole_seconds(seconds) == text


@given(
    credit=st.integers(0, 10**12),
    input_nanousd=st.integers(0, 10**10),
    price=st.integers(1, 10**8),
    tokens=st.integers(1, 10**6),
)
def test_what_is_affordable_never_exceeds_the_credit_and_one_token_more_would(
    credit: int, input_nanousd: int, price: int, tokens: int
) -> None:
    ask = Ask(NanoUSD(input_nanousd), PicoUSDPerToken(price), tokens)
    granted = affordable_tokens(ask, credit)
    if granted:
        assert ask.hold(granted) <= credit
        assert granted == tokens or ask.hold(granted + 1) > credit
        assert granted >= min(OUTPUT_TOKENS_MIN, tokens)
    else:
        assert ask.hold(min(OUTPUT_TOKENS_MIN, tokens)) > credit


@given(st.lists(st.floats(0, 300), max_size=60), st.integers(1, 5))
def test_no_window_of_sixty_seconds_ever_holds_more_than_the_limit(times: list[float], limit: int) -> None:
    state = MeterState()
    admitted: deque[float] = deque()
    for now in sorted(times):
        state.forget_old(now)
        if len(state.admitted) < limit:
            state.admitted.append(now)
            admitted.append(now)
        else:
            recent = [t for t in admitted if t > now - WINDOW_S]
            assert len(recent) == limit, "a refusal means that the window is really full"
            assert now + state.slot_s(limit, now) == pytest.approx(recent[0] + WINDOW_S)
    for start in admitted:
        assert sum(start <= t < start + WINDOW_S for t in admitted) <= limit


@pytest.mark.parametrize(
    ("day", "first", "last"),
    [(0, "1970-01-01", "1970-01-31"), (20_772, "2026-11-01", "2026-11-30"), (20_089, "2025-01-01", "2025-01-31")],
)
def test_a_month_has_a_first_and_a_last_day(day: int, first: str, last: str) -> None:
    begin, end = month(day)
    assert (EPOCH + timedelta(begin), EPOCH + timedelta(end)) == (date.fromisoformat(first), date.fromisoformat(last))
    assert month(begin) == month(end) == (begin, end)
    assert month(end + 1)[0] == end + 1


@given(st.lists(st.tuples(st.integers(20_000, 20_100), st.integers(0, 100)), max_size=200))
def test_what_was_spent_on_a_day_is_known_for_two_months_whatever_the_clock_does(
    charges: list[tuple[int, int]],
) -> None:
    purse = PurseState()
    for day, amount in charges:
        if day in purse.spent:
            purse.spent[day] += amount
        else:
            purse.open_day(day, amount)
    if charges:
        now = charges[-1][0]
        for day in range(now - 30, now + 1):
            if len(purse.spent) < DAYS_KEPT_MAX:
                assert purse.spent.get(day, 0) == sum(amount for known, amount in charges if known == day)
    assert len(purse.spent) <= DAYS_KEPT_MAX


def test_a_cap_leaves_what_the_day_the_month_and_the_whole_have_left() -> None:
    first, _ = month(20_772)
    purse = PurseState(charged_nanousd=100, held_nanousd=1, spent={first - 1: 50, first: 30, 20_772: 20})
    assert purse.left(1000, None, 20_772) == 899
    assert purse.left(1000, Caps(), 20_772) == 899
    assert purse.left(1000, Caps(daily_nanousd=25), 20_772) == 4
    assert purse.left(1000, Caps(monthly_nanousd=55), 20_772) == 4
    assert purse.left(1000, Caps(total_nanousd=105), 20_772) == 4
    assert purse.left(1000, Caps(daily_nanousd=25, monthly_nanousd=52, total_nanousd=200), 20_772) == 1
    assert purse.left(10, Caps(daily_nanousd=25), 20_772) == -91


def test_those_refused_together_come_back_apart_and_none_too_early() -> None:
    assert jittered(10, 0) == 10
    assert jittered(10, 0.5) == 10.5
    assert jittered(1000, 0.999) < 1005

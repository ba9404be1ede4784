from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vipcloud.limits.rules import OUTPUT_TOKENS_MIN, WINDOW_S, AccountState, Ask, affordable_tokens, whole_seconds
from vipcloud.money import NanoUSD, PicoUSDPerToken


@pytest.mark.parametrize(("seconds", "text"), [(0, "0s"), (0.01, "1s"), (8.2, "9s"), (59.5, "1m0s"), (125, "2m5s")])
def test_durations_read_as_openai_writes_them(seconds: float, text: str) -> None:
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
    state = AccountState()
    admitted: deque[float] = deque()
    for now in sorted(times):
        state.forget_old(now)
        if len(state.admitted) < limit:
            state.admitted.append(now)
            admitted.append(now)
        else:
            recent = [t for t in admitted if t > now - WINDOW_S]
            assert len(recent) == limit, "a refusal means that the window is really full"
            assert now + state.next_slot_s(now) == pytest.approx(recent[0] + WINDOW_S)
    for start in admitted:
        assert sum(start <= t < start + WINDOW_S for t in admitted) <= limit

"""Counts as compiled code holds them, and as the API's type: one thing in two forms."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from vipcloud.dialects.tokens import Tokens, tokens_of

COUNTS = st.integers(0, 2**40)


@given(COUNTS, COUNTS, COUNTS, COUNTS, COUNTS, st.booleans())
def test_it_is_written_as_the_type_is(
    prompt: int, completion: int, cached: int, written: int, reasoning: int, settled: bool
) -> None:
    tokens = Tokens(prompt, completion, cached, written, reasoning)
    if settled:
        tokens.cost, tokens.upstream_cost = b"0.00110263", b"0.00095"
    assert tokens.encode() == msgspec.json.encode(tokens.usage())
    assert vars_of(tokens_of(tokens.usage())) == vars_of(tokens)


def vars_of(tokens: Tokens) -> tuple[int, ...]:
    return tokens.prompt, tokens.completion, tokens.cached, tokens.written, tokens.reasoning

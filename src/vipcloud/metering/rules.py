"""What tokens cost. The only place where a count is multiplied by a price."""

from typing import Protocol

from vipcloud.dialects.openai import Usage
from vipcloud.money import NanoUSD, PicoUSDPerToken

_PICO_PER_NANO = 1000


class Price(Protocol):
    """Pico-dollars per token. `cached_input` is for tokens from the prompt cache."""

    @property
    def input(self) -> PicoUSDPerToken: ...
    @property
    def output(self) -> PicoUSDPerToken: ...
    @property
    def cached_input(self) -> PicoUSDPerToken: ...


def cost(usage: Usage, price: Price) -> NanoUSD:
    """Σ tokens × price, rounded once, down: in the customer's favour. Reasoning tokens are output."""
    prompt, completion = usage.prompt_tokens, usage.completion_tokens
    cached = usage.prompt_tokens_details.cached_tokens
    assert 0 <= cached <= prompt, "cached tokens are part of the prompt"
    assert completion >= 0, "a count is not negative"
    picos = (prompt - cached) * price.input + cached * price.cached_input + completion * price.output
    return NanoUSD(picos // _PICO_PER_NANO)


def ceiling(prompt_bytes: int, output_tokens_max: int, price: Price) -> NanoUSD:
    """The most that a call can cost, rounded up: what a hold has to cover.

    `prompt_bytes` are the bytes of the body that goes upstream. A token of a byte-level vocabulary stands for at least
    one byte, and what a chat template adds to a message (a handful of tokens) is less than the JSON around it. Images
    by address are not in the bytes: who sends them adds what they may count.
    """
    assert prompt_bytes >= 0, "a size is not negative"
    assert output_tokens_max >= 0, "a size is not negative"
    picos = prompt_bytes * max(price.input, price.cached_input) + output_tokens_max * price.output
    return NanoUSD(-(-picos // _PICO_PER_NANO))

"""What tokens cost. The only place where a count is multiplied by a price."""

from typing import Protocol

from vipcloud.dialects.openai import Usage
from vipcloud.money import NanoUSD, PicoUSDPerToken

_PICO_PER_NANO = 1000


class Price(Protocol):
    """Pico-dollars per token. `cached_input` is None where tokens from the prompt cache cost as much as others."""

    @property
    def input(self) -> PicoUSDPerToken: ...
    @property
    def output(self) -> PicoUSDPerToken: ...
    @property
    def cached_input(self) -> PicoUSDPerToken | None: ...


def cost(usage: Usage, price: Price) -> NanoUSD:
    """Σ tokens × price, rounded once, down: in the customer's favour. Reasoning tokens are output."""
    cached = usage.prompt_tokens_details.cached_tokens
    assert 0 <= cached <= usage.prompt_tokens, "cached tokens are part of the prompt"
    assert usage.completion_tokens >= 0, "a count is not negative"
    cached_price = price.input if price.cached_input is None else price.cached_input
    picos = (
        (usage.prompt_tokens - cached) * price.input + cached * cached_price + usage.completion_tokens * price.output
    )
    return NanoUSD(picos // _PICO_PER_NANO)


def ceiling(prompt_bytes: int, output_tokens_max: int, price: Price) -> NanoUSD:
    """The most that a call can cost, rounded up: what a hold has to cover.

    `prompt_bytes` are the bytes of the body that goes upstream. A token of a byte-level vocabulary stands for at least
    one byte, and what a chat template adds to a message (a handful of tokens) is less than the JSON around it. Images
    by address are not in the bytes: who sends them adds what they may count.
    """
    assert prompt_bytes >= 0, "a size is not negative"
    assert output_tokens_max >= 0, "a size is not negative"
    input_price = price.input if price.cached_input is None else max(price.input, price.cached_input)
    picos = prompt_bytes * input_price + output_tokens_max * price.output
    return NanoUSD(-(-picos // _PICO_PER_NANO))

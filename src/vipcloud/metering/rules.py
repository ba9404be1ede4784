"""What tokens cost. The only place where a count is multiplied by a price."""

from typing import Final

from vipcloud.dialects.openai import Usage
from vipcloud.money import NanoUSD
from vipcloud.providers.prices import Price

_PICO_PER_NANO: Final = 1000


def cost(usage: Usage, price: Price) -> NanoUSD:
    """Σ tokens × price, rounded once, down: in the customer's favour. Reasoning tokens are output."""
    details = usage.prompt_tokens_details
    written = details.cache_write_tokens or 0
    return amount(usage.prompt_tokens, usage.completion_tokens, details.cached_tokens, written, price)


def amount(prompt: int, completion: int, cached: int, written: int, price: Price) -> NanoUSD:
    """`cost` of so many tokens, of the prompt those `cached` and those `written` to a cache."""
    assert 0 <= cached <= prompt, "cached tokens are part of the prompt"
    assert completion >= 0, "a count is not negative"
    flat = price.flat
    rates = price if flat else price.rates(prompt, completion)
    plain = prompt - cached
    picos = completion * rates.output + cached * rates.cached_input
    if written and not flat:
        assert 0 < written <= plain, "tokens written to a cache are another part of it"
        plain -= written
        picos += written * rates.cache_write
    picos += plain * rates.input
    return NanoUSD(picos // _PICO_PER_NANO)


def ceiling(prompt_bytes: int, output_tokens_max: int, price: Price) -> NanoUSD:
    """The most that a call can cost, rounded up: what a hold has to cover.

    `prompt_bytes` are the bytes of the body that goes upstream. A token of a byte-level vocabulary stands for at least
    one byte, and what a chat template adds to a message (a handful of tokens) is less than the JSON around it. Images
    by address are not in the bytes: who sends them adds what they may count.
    """
    assert prompt_bytes >= 0, "a size is not negative"
    assert output_tokens_max >= 0, "a size is not negative"
    rates = price.dearest(prompt_bytes, output_tokens_max)
    picos = prompt_bytes * rates.input_max + output_tokens_max * rates.output
    return NanoUSD(-(-picos // _PICO_PER_NANO))

"""What a model can do, found out by asking the code that serves it.

A parameter is supported where a request that carries it has a candidate that does not refuse it, and where each of
those candidates is sent something else for it than without it. So there is no list here that could fall behind: a quirk
that drops, emulates or refuses a parameter changes what is advertised. What an upstream takes and ignores cannot be
seen in what it is sent; `inert` in the catalogue says it. A model without a candidate yet shows what it is announced
with.
"""

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import msgspec

from vipcloud.dialects.models import ModelEntry
from vipcloud.dialects.openai import ChatRequest
from vipcloud.providers import fitness, translate
from vipcloud.providers.models import Candidate, Catalog, Model

MODELS_KEPT_MAX = 1024  # in memory, with what they support

_ALWAYS = ("max_tokens", "max_completion_tokens", "stop", "stream", "stream_options")  # ours, whatever the upstream has

# Two, as an upstream may be able to force the only tool there is, and not any one of several.
_TOOLS = {
    "tools": [
        {"type": "function", "function": {"name": name, "parameters": {"type": "object"}}}
        for name in ("probe", "other")
    ]
}
_SCHEMA = {"type": "json_schema", "json_schema": {"name": "probe", "schema": {"type": "object"}}}
_NAMED = {"type": "function", "function": {"name": "probe"}}

# By name: what a request has besides, and the values that must all be possible.
_PROBES: dict[str, tuple[dict[str, Any], tuple[dict[str, Any], ...]]] = {
    "temperature": ({}, ({"temperature": 0.5},)),
    "top_p": ({}, ({"top_p": 0.5},)),
    "presence_penalty": ({}, ({"presence_penalty": 0.5},)),
    "frequency_penalty": ({}, ({"frequency_penalty": 0.5},)),
    "seed": ({}, ({"seed": 1},)),
    "logit_bias": ({}, ({"logit_bias": {"1": 1}},)),
    "n": ({}, ({"n": 2},)),
    "logprobs": ({}, ({"logprobs": True},)),
    "top_logprobs": ({"logprobs": True}, ({"top_logprobs": 2},)),
    "tools": ({}, (_TOOLS,)),
    "tool_choice": (_TOOLS, tuple({"tool_choice": choice} for choice in ("none", "auto", "required", _NAMED))),
    "parallel_tool_calls": (_TOOLS, ({"parallel_tool_calls": False},)),
    "response_format": ({}, ({"response_format": {"type": "json_object"}},)),
    "structured_outputs": ({}, ({"response_format": _SCHEMA},)),
    "reasoning_effort": ({}, ({"reasoning_effort": "low"},)),
    "reasoning": ({}, ({"reasoning": {"effort": "low"}},)),
}


def entries(catalog: Catalog, now_s: float) -> list[ModelEntry]:
    """The rows of `GET /v1/models`, with the prices in force."""
    return [entry(model, now_s) for model in catalog.models.values()]


def entry(model: Model, now_s: float) -> ModelEntry:
    """`model` as a row of `GET /v1/models`, with the price in force."""
    price = model.prices.at(now_s) if model.prices is not None else None
    return ModelEntry(
        id=model.id,
        created=model.created,
        owned_by=model.owned_by,
        name=model.name,
        status=model.status,
        description=model.notes,
        context_tokens=model.context_tokens,
        output_tokens_max=model.output_tokens_max,
        input_modalities=("text", "image") if takes_images(model) else ("text",),
        output_modalities=("text",),
        supported_parameters=supported_parameters(model),
        price_input=price.input if price is not None else None,
        price_output=price.output if price is not None else None,
        price_cached_input=price.cached_input if price is not None else None,
        price_cache_write=price.cache_write if price is not None else None,
    )


def takes_images(model: Model) -> bool:
    if not model.candidates:
        return model.capabilities.vision
    return any(candidate.quirks.vision for candidate in model.candidates)


@lru_cache(maxsize=MODELS_KEPT_MAX)
def supported_parameters(model: Model) -> tuple[str, ...]:
    """The parameters that change what the model does, whichever of its candidates serves the request."""
    if not model.candidates:
        return (*_ALWAYS, *_announced(model))
    return (*_ALWAYS, *(name for name in _PROBES if _supported(name, model.candidates)))


def _announced(model: Model) -> Iterator[str]:
    sold = model.capabilities
    if sold.reasoning:
        yield "reasoning_effort"
    if sold.tools:
        yield "tools"
    if sold.json_object:
        yield "response_format"
    if sold.json_schema:
        yield "structured_outputs"
    if sold.logprobs:
        yield from ("logprobs", "top_logprobs")


def _supported(name: str, candidates: tuple[Candidate, ...]) -> bool:
    besides, values = _PROBES[name]
    without = _request(besides)
    for value in values:
        request = _request({**besides, **value})
        able = [candidate for candidate in candidates if fitness.refusal(request, candidate) is None]
        if not able:
            return False
        for candidate in able:
            if name in candidate.quirks.inert or _body(request, candidate) == _body(without, candidate):
                return False
    return True


def _request(fields: dict[str, Any]) -> ChatRequest:
    return msgspec.convert({"model": "m", "messages": [{"role": "user", "content": "."}], **fields}, ChatRequest)


def _body(request: ChatRequest, candidate: Candidate) -> bytes:
    return translate.encode_suited(request, candidate, max_tokens=1, attempt_id="", account="")

"""Whether a call reasons and how much: what callers ask for, in the terms of each upstream."""

from typing import Any

import msgspec
import pytest

from vipcloud.dialects.openai import ChatRequest
from vipcloud.errors import NotImplementedYet
from vipcloud.providers import catalog, reasoning, translate
from vipcloud.providers.catalog import catalog_of
from vipcloud.providers.models import Candidate

SOLD = "capabilities = { tools = true, json_object = true, json_schema = true, reasoning = true }"


def sold_with_reasoning(model: str, provider: str, upstream: str, quirks: str) -> Candidate:
    """A model of that upstream, sold with reasoning, as an operator may add it."""
    override = f"""
        [models.{model}]
        name = "New"
        provider = "{provider}"
        owned_by = "{provider}"
        status = "live"
        notes = ""
        created = 1
        context_tokens = 100_000
        output_tokens_max = 10_000
        {SOLD}
        price = {{ input = "1", output = "1" }}
        [[models.{model}.candidates]]
        provider = "{provider}"
        model = "{upstream}"
        cost = {{ input = "1", output = "1" }}
        quirks = {{ thinking = true{quirks} }}
    """
    return catalog_of(catalog.packaged_toml(), override).models[model].candidates[0]


MODELS = catalog_of(catalog.packaged_toml()).models
REASONER, HOSTED = MODELS["deepseek-reasoner"].candidates
K3 = sold_with_reasoning(
    "kimi-k3",
    "moonshot",
    "kimi-k3",
    ', reasoning_efforts = { minimal = "low", low = "low", medium = "high", high = "high"'
    ', xhigh = "max", max = "max" }',
)
M3 = sold_with_reasoning("minimax-m3", "minimax", "MiniMax-M3", "")
SILENT = [candidate for model in MODELS.values() if model.id != "deepseek-reasoner" for candidate in model.candidates]

HELLO = [{"role": "user", "content": "Hello"}]
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
FIELDS = ("thinking", "enable_thinking", "thinking_budget", "reasoning_effort")
OFF: list[dict[str, Any]] = [
    {"reasoning_effort": "none"},
    {"reasoning": {"effort": "none"}},
    {"reasoning": {"enabled": False}},
    {"thinking": {"type": "disabled"}},
    {"reasoning": {"enabled": False}, "reasoning_effort": "high"},
]


def asked(**fields: Any) -> ChatRequest:
    return msgspec.convert({"model": "m", "messages": HELLO, **fields}, ChatRequest)


def told(candidate: Candidate, **fields: Any) -> dict[str, Any]:
    """What of reasoning goes upstream."""
    body = msgspec.json.decode(translate.encode_request(asked(**fields), candidate, attempt_id="a"))
    return {name: body[name] for name in FIELDS if name in body}


@pytest.mark.parametrize("fields", OFF, ids=str)
def test_reasoning_can_be_switched_off(fields: dict[str, Any]) -> None:
    assert told(REASONER, **fields) == {"thinking": {"type": "disabled"}}
    assert told(HOSTED, **fields) == {"enable_thinking": False}
    assert told(K3, **fields) == told(M3, **fields) == {"thinking": {"type": "disabled"}}


@pytest.mark.parametrize(
    ("fields", "deepseek", "k3", "budget"),
    [
        ({}, None, None, None),
        ({"reasoning": {}}, None, None, None),
        ({"reasoning": {"enabled": True}}, None, None, None),
        ({"thinking": {"type": "enabled"}}, None, None, None),
        ({"reasoning_effort": "minimal"}, "minimal", "low", 3_276),
        ({"reasoning_effort": "medium"}, "medium", "high", 16_384),
        ({"reasoning_effort": "high"}, "high", "high", 26_214),
        ({"reasoning": {"effort": "xhigh"}}, "xhigh", "max", 31_129),
        ({"reasoning": {"effort": "low"}, "reasoning_effort": "max"}, "low", "low", 6_553),
        ({"reasoning": {"max_tokens": 5_000}}, "low", "high", 5_000),
        ({"thinking": {"type": "enabled", "budget_tokens": 900}}, "minimal", "low", 900),
        ({"reasoning": {"max_tokens": 10**6}}, "max", "max", 32_768),
    ],
)
def test_how_much_is_said_in_the_upstreams_way(
    fields: dict[str, Any], deepseek: str | None, k3: str | None, budget: int | None
) -> None:
    def with_effort(word: str | None) -> dict[str, Any]:
        return {} if word is None else {"reasoning_effort": word}

    assert told(REASONER, **fields) == {"thinking": {"type": "enabled"}, **with_effort(deepseek)}
    assert told(K3, **fields) == with_effort(k3)
    assert told(HOSTED, **fields) == {
        "enable_thinking": True,
        **({} if budget is None else {"thinking_budget": budget}),
    }
    assert told(M3, **fields) == {}


def test_a_small_answer_still_leaves_reasoning_its_least() -> None:
    assert told(HOSTED, reasoning_effort="minimal", max_tokens=2_000)["thinking_budget"] == 1_024
    assert told(HOSTED, reasoning_effort="minimal", max_tokens=500)["thinking_budget"] == 500


@pytest.mark.parametrize("candidate", SILENT, ids=lambda candidate: candidate.id)
@pytest.mark.parametrize(
    "fields", [{"reasoning_effort": "high"}, {"reasoning": {"max_tokens": 99}}, {"thinking": {"type": "enabled"}}]
)
def test_a_model_sold_without_reasoning_never_reasons(candidate: Candidate, fields: dict[str, Any]) -> None:
    assert told(candidate, **fields) == {name: candidate.extra[name] for name in FIELDS if name in candidate.extra}
    assert not reasoning.thinks(asked(**fields), candidate)


def test_a_model_that_reasons_on_demand_is_told_so() -> None:
    override = "[models.qwen3-max.capabilities]\nreasoning = true"
    on_demand = catalog_of(catalog.packaged_toml(), override).models["qwen3-max"].candidates[0]
    assert told(on_demand) == {"enable_thinking": False}
    assert told(on_demand, reasoning_effort="high") == {"enable_thinking": True, "thinking_budget": 52_428}
    assert told(on_demand, thinking={"type": "enabled"}) == {"enable_thinking": True}


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "f"}}])
def test_a_call_can_be_forced_where_reasoning_is_switched_off(choice: Any) -> None:
    with pytest.raises(NotImplementedYet) as caught:
        told(REASONER, tools=[TOOL], tool_choice=choice)
    assert caught.value.param == "tool_choice"
    body = translate.encode_request(
        asked(tools=[TOOL], tool_choice=choice, reasoning_effort="none"), REASONER, attempt_id="a"
    )
    assert msgspec.json.decode(body)["tool_choice"] == choice


def test_json_mode_switches_reasoning_off_where_both_do_not_go_together() -> None:
    for form in ({"type": "json_object"}, {"type": "json_schema", "json_schema": {"name": "a", "schema": {}}}):
        assert told(HOSTED, response_format=form) == {"enable_thinking": False}
        assert told(REASONER, response_format=form) == {"thinking": {"type": "enabled"}}


@pytest.mark.parametrize(
    ("fields", "shown"),
    [
        ({}, True),
        ({"reasoning": {"exclude": True}}, False),
        ({"reasoning": {"exclude": False}, "include_reasoning": False}, True),
        ({"include_reasoning": False}, False),
        ({"include_reasoning": True}, True),
        ({"reasoning": {"effort": "low"}}, True),
    ],
)
def test_reasoning_is_shown_unless_the_caller_does_not_want_to_see_it(fields: dict[str, Any], shown: bool) -> None:
    assert reasoning.shown(asked(**fields)) is shown

"""What models are said to do: true for what we sell, and true again whenever a quirk changes."""

from typing import Any

import msgspec
import pytest

from vipcloud.dialects.openai import ChatRequest
from vipcloud.errors import GatewayError
from vipcloud.providers import abilities, fitness
from vipcloud.providers.catalog import catalog_of, packaged_toml

PACKAGED = packaged_toml()
CATALOG = catalog_of(PACKAGED)
ALWAYS = {"max_tokens", "max_completion_tokens", "stop", "stream", "stream_options"}


def supported(override: str, model_id: str = "mine") -> set[str]:
    """Beside what every model supports."""
    found = abilities.supported_parameters(catalog_of(PACKAGED, override).models[model_id])
    assert set(found[: len(ALWAYS)]) == ALWAYS
    assert len(set(found)) == len(found)
    return set(found) - ALWAYS


def mine(*quirks: str, status: str = "live") -> str:
    """A model with a candidate for each of `quirks`, on a provider that differs from OpenAI in nothing else."""
    candidates = ", ".join(
        f'{{ provider = "plain", model = "m{index}", cost = {{ input = "1", output = "1" }}, quirks = {{ {each} }} }}'
        for index, each in enumerate(quirks)
    )
    return f"""
        [providers.plain]
        name = "Plain"
        ready = true
        base_url = "http://127.0.0.1:1/v1"
        chat_path = "/chat/completions"
        key_env = "PLAIN_API_KEY"
        first_byte_s = 60
        limits_per = "account"
        [models.mine]
        name = "Mine"
        provider = "plain"
        owned_by = "me"
        status = "{status}"
        notes = ""
        created = 1
        context_tokens = 1024
        output_tokens_max = 256
        price = {{ input = "1", output = "1" }}
        capabilities = {{ reasoning = {str(any("thinking" in each for each in quirks)).lower()} }}
        candidates = [{candidates}]
    """


PLAIN = supported(mine(""))


def test_an_upstream_like_openais_supports_what_is_passed_on() -> None:
    assert {
        "temperature",
        "top_p",
        "presence_penalty",
        "frequency_penalty",
        "seed",
        "logit_bias",
        "tools",
        "tool_choice",
        "parallel_tool_calls",
        "response_format",
        "structured_outputs",
    } <= PLAIN
    assert PLAIN.isdisjoint({"n", "logprobs", "top_logprobs", "reasoning_effort"})


@pytest.mark.parametrize(
    ("quirks", "lost", "gained"),
    [
        ("choices_max = 4", (), ("n",)),
        ("logprobs = true", (), ("logprobs", "top_logprobs")),
        ('drop = ["seed", "parallel_tool_calls"]', ("seed", "parallel_tool_calls"), ()),
        ('inert = ["top_p", "temperature"]', ("top_p", "temperature"), ()),
        ('tool_choice = ["none", "auto"]', ("tool_choice",), ()),
        ('tool_choice = ["auto", "required", "named"]', (), ()),  # `none` is emulated
        ('thinking = true, reasoning_efforts = { low = "low" }', (), ("reasoning_effort", "reasoning")),
        ("thinking_on = { think = true }, thinking_off = { think = false }", (), ("reasoning_effort", "reasoning")),
        ("thinking = true", (), ()),
        ('json_object = "emulate"', (), ()),
        ('json_schema = "native"', (), ()),
        ("temperature_range = [0.1, 1.0]", (), ()),
    ],
)
def test_a_quirk_changes_what_is_said(quirks: str, lost: tuple[str, ...], gained: tuple[str, ...]) -> None:
    assert supported(mine(quirks)) == (PLAIN - set(lost)) | set(gained)


def test_what_is_refused_is_routed_around_and_what_is_dropped_is_not() -> None:
    found = supported(mine("logprobs = true", 'drop = ["seed"]'))
    assert found == (PLAIN - {"seed"}) | {"logprobs", "top_logprobs"}


def test_an_announced_model_shows_what_it_is_announced_with() -> None:
    for model in CATALOG.models.values():
        if not model.candidates:
            assert {"tools", "response_format", "structured_outputs"} <= set(abilities.supported_parameters(model))


def test_the_packaged_models_say_what_they_take() -> None:
    said = {entry.id: entry for entry in abilities.entries(CATALOG, 0)}
    assert list(said) == list(CATALOG.models)
    parameters = {model_id: set(entry.supported_parameters) - ALWAYS for model_id, entry in said.items()}
    common = {"tools", "response_format", "structured_outputs"}
    assert all(common <= of_model for of_model in parameters.values())
    assert parameters["deepseek-chat"] - common >= {"temperature", "logprobs", "top_logprobs"}
    assert "reasoning_effort" in parameters["deepseek-reasoner"]
    assert parameters["deepseek-reasoner"].isdisjoint({"temperature", "top_p", "logprobs", "n"})
    for model_id in ("glm-4-flash", "glm-4-air", "glm-4-plus", "glm-4"):
        assert parameters[model_id] - common >= {"temperature", "top_p"}
        assert parameters[model_id].isdisjoint({"seed", "logit_bias", "presence_penalty", "tool_choice", "logprobs"})
    assert said["glm-4-plus"].input_modalities == ("text", "image")
    assert said["deepseek-chat"].input_modalities == ("text",)
    assert (said["deepseek-chat"].price_input, said["deepseek-chat"].price_cached_input) == (310_000, 310_000)


TOOLS: list[dict[str, Any]] = [
    {"type": "function", "function": {"name": name, "parameters": {"type": "object"}}} for name in "fg"
]
ASKED: dict[str, dict[str, Any]] = {
    "n": {"n": 2},
    "logprobs": {"logprobs": True, "top_logprobs": 1},
    "tools": {"tools": TOOLS},
    "tool_choice": {"tools": TOOLS, "tool_choice": "required"},
    "response_format": {"response_format": {"type": "json_object"}},
    "structured_outputs": {"response_format": {"type": "json_schema", "json_schema": {"name": "f", "schema": {}}}},
}


@pytest.mark.parametrize("model_id", [model.id for model in CATALOG.models.values() if model.candidates])
@pytest.mark.parametrize("name", list(ASKED))
def test_no_request_is_refused_for_what_was_said_and_every_one_for_what_was_not(model_id: str, name: str) -> None:
    model = CATALOG.models[model_id]
    body = {"model": model_id, "messages": [{"role": "user", "content": "Hello"}], **ASKED[name]}
    try:
        fitness.suited(msgspec.convert(body, ChatRequest), model.candidates)
    except GatewayError as error:
        served, status = False, error.status
    else:
        served, status = True, 200
    assert served == (name in abilities.supported_parameters(model))
    assert served or status == 501

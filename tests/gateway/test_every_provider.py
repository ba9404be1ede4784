"""One contract, five providers: what a caller of OpenAI sends, through the front door to each simulator and back.

The simulators refuse what the real ones refuse and overlook what they overlook, so a translation that is forgotten
fails here.
"""

import inspect
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from front_door import House

CATALOG = """
[models.kimi-k2]
status = "live"
[models.qwen3-max]
status = "live"
[models.minimax-text-01]
status = "live"

[models.m3]
name = "M3"
provider = "minimax"
owned_by = "minimax"
status = "live"
notes = ""
created = 1
context_tokens = 100_000
output_tokens_max = 4_096
capabilities = { tools = true, json_object = true, json_schema = true, vision = true, reasoning = true }
price = { input = "1", output = "1" }
[[models.m3.candidates]]
provider = "minimax"
model = "MiniMax-M3"
extra = { reasoning_split = true }
cost = { input = "0.3", output = "1.2" }
quirks = { thinking = true }

[models.kimi-thinking]
name = "Kimi"
provider = "moonshot"
owned_by = "moonshot"
status = "live"
notes = ""
created = 1
context_tokens = 100_000
output_tokens_max = 4_096
capabilities = { tools = true, json_object = true, json_schema = true, vision = true, reasoning = true }
price = { input = "1", output = "1" }
[[models.kimi-thinking.candidates]]
provider = "moonshot"
model = "kimi-k2.6"
extra = { thinking = { type = "enabled" } }
cost = { input = "0.95", output = "4" }
quirks = { thinking = true }
"""

MODELS = {
    "deepseek-chat": "deepseek",
    "deepseek-reasoner": "deepseek",
    "deepseek-v3.2": "dashscope",
    "glm-4-flash": "zhipu",
    "glm-4-plus": "zhipu",
    "kimi-k2": "moonshot",
    "kimi-thinking": "moonshot",
    "qwen3-max": "dashscope",
    "minimax-text-01": "minimax",
    "m3": "minimax",
}
REASONING = {"deepseek-reasoner", "kimi-thinking", "m3"}

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city",
        "strict": True,
        "parameters": {
            "$defs": {"unit": {"enum": ["celsius", "fahrenheit", None]}},
            "type": "object",
            "properties": {"city": {"type": "string"}, "unit": {"$ref": "#/$defs/unit"}},
            "required": ["city", "unit"],
            "additionalProperties": False,
        },
    },
}
SEARCH = {
    "type": "function",
    "function": {
        "name": "search",
        "description": "Search the web",
        "parameters": {"type": "object", "properties": {"query": {"type": "string"}}, "required": ["query"]},
    },
}
PERSON = {
    "type": "json_schema",
    "json_schema": {
        "name": "person",
        "schema": {
            "type": "object",
            "properties": {
                "name": {"type": "string"},
                "age": {"type": "integer", "minimum": 0},
                "nick": {"anyOf": [{"type": "string"}, {"type": "null"}]},
            },
            "required": ["name", "age", "nick"],
            "additionalProperties": False,
        },
        "strict": True,
    },
}
PIXEL = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJ"

whole_and_streamed = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])


def every_model(check: Any) -> Any:
    """The test `check` for each model in turn, in one house: opening one takes longer than most checks."""

    async def checked(house: House, **given: Any) -> None:
        for model in MODELS:
            try:
                await check(house, model, **given)
            except AssertionError as error:
                raise AssertionError(f"{model}: {error}") from error

    signature = inspect.signature(check)
    checked.__name__, checked.__doc__ = check.__name__, check.__doc__
    checked.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[parameter for name, parameter in signature.parameters.items() if name != "model"]
    )
    return checked


@pytest.fixture
async def house(tmp_path: Path, template: Any, open_house: Any) -> House:
    data = tmp_path / "data"
    data.mkdir()
    shutil.copy(template[0], data)
    (data / "catalog.toml").write_text(CATALOG)
    opened: House = await open_house(keys={"dashscope": ("sk-ours",)})
    return opened


async def sent(house: House, model: str) -> list[dict[str, Any]]:
    return [call["body"] for call in await house.upstreams[MODELS[model]].log()]


def calls_of(reply: Any) -> list[dict[str, Any]]:
    """The tool calls of an answer, put together if it came in pieces."""
    if not reply.headers["content-type"].startswith("text/event-stream"):
        return list(reply.json["choices"][0]["message"].get("tool_calls") or [])
    calls: dict[int, dict[str, Any]] = {}
    for chunk in reply.chunks:
        for choice in chunk["choices"]:
            for delta in choice["delta"].get("tool_calls") or []:
                call = calls.setdefault(delta["index"], {"function": {"arguments": ""}})
                call |= {name: delta[name] for name in ("id", "type") if name in delta}
                call["function"]["name"] = delta["function"].get("name") or call["function"].get("name")
                call["function"]["arguments"] += delta["function"].get("arguments") or ""
    return [calls[index] for index in sorted(calls)]


def reasoning_of(reply: Any) -> str:
    if not reply.headers["content-type"].startswith("text/event-stream"):
        return reply.json["choices"][0]["message"].get("reasoning_content") or ""
    deltas = [choice["delta"] for chunk in reply.chunks for choice in chunk["choices"]]
    return "".join(delta.get("reasoning_content") or "" for delta in deltas)


@whole_and_streamed
@every_model
async def test_every_parameter_of_openais_is_taken(house: House, model: str, stream: bool) -> None:
    reply = await house.chat(
        "Say exactly: It works",
        model,
        stream=stream,
        temperature=2,
        top_p=0,
        max_tokens=2_000,
        presence_penalty=1,
        frequency_penalty=-1,
        seed=-(2**62),
        logit_bias={"1": 2},
        n=1,
        user="Ann Lee <ann@example.com>",
        metadata={"a": "b"},
        store=True,
        service_tier="auto",
        parallel_tool_calls=...,
        verbosity="low",
        prompt_cache_key="k",
    )
    assert (reply.status, reply.text) == (200, "It works"), reply.body
    body = (await sent(house, model))[-1]
    assert "ann@example.com" not in json.dumps(body)


@pytest.mark.parametrize("temperature", [0, 0.7, 1.5])
@every_model
async def test_any_temperature_is_taken(house: House, model: str, temperature: float) -> None:
    assert (await house.chat(model=model, temperature=temperature, max_completion_tokens=500)).status == 200


@whole_and_streamed
@every_model
async def test_a_conversation_of_every_kind_of_message_is_taken(house: House, model: str, stream: bool) -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": '}}
    reply = await house.chat(
        model=model,
        stream=stream,
        tools=[WEATHER],
        messages=[
            {"role": "system", "content": "Be brief."},
            {"role": "developer", "content": [{"type": "text", "text": "Be polite."}]},
            {"role": "user", "content": [{"type": "text", "text": ""}, {"type": "text", "text": "The weather?"}]},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "call_1", "content": [{"type": "text", "text": "21 degrees"}]},
            {"role": "system", "content": "Do not call tools."},
            {"role": "assistant", "content": "It is 21 degrees.", "reasoning": "I was told."},
            {"role": "user", "content": "Say exactly: Thanks", "name": "ann"},
        ],
    )
    assert (reply.status, reply.text) == (200, "Thanks"), reply.body


@whole_and_streamed
@every_model
async def test_tools_are_called_and_their_results_used(house: House, model: str, stream: bool) -> None:
    """The loop of an agent that drops reasoning and keeps ids."""
    messages: list[dict[str, Any]] = [{"role": "user", "content": "What is the weather in Paris?"}]
    ids = []
    for _ in range(2):
        reply = await house.chat(model=model, stream=stream, tools=[WEATHER, SEARCH], messages=messages)
        assert reply.status == 200, reply.body
        (call,) = calls_of(reply)
        assert call["function"]["name"] == "get_weather"
        assert json.loads(call["function"]["arguments"])["city"] == "Paris"
        ids.append(call["id"])
        messages += [
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": call["id"], "content": '{"degrees": 21}'},
        ]
        reply = await house.chat(model=model, stream=stream, tools=[WEATHER, SEARCH], messages=messages)
        assert (reply.status, calls_of(reply)) == (200, []), reply.body
        assert "21" in reply.text
        messages += [
            {"role": "assistant", "content": reply.text},
            {"role": "user", "content": "And now, what is the weather in Paris?"},
        ]
    assert len(set(ids)) == 2


@whole_and_streamed
@every_model
async def test_a_tool_named_search_is_called_by_that_name(house: House, model: str, stream: bool) -> None:
    question = {"role": "user", "content": "Search for the query: cats"}
    reply = await house.chat(model=model, stream=stream, tools=[SEARCH], messages=[question])
    (call,) = calls_of(reply)
    assert call["function"]["name"] == "search"
    messages = [
        question,
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": call["id"], "content": "Nine cats."},
    ]
    assert (await house.chat(model=model, stream=stream, tools=[SEARCH], messages=messages)).status == 200


@every_model
async def test_no_tool_is_called_where_none_may_be(house: House, model: str) -> None:
    reply = await house.chat("What is the weather in Paris?", model, tools=[WEATHER], tool_choice="none")
    assert (reply.status, calls_of(reply)) == (200, [])


FORCED = {"deepseek-chat", "deepseek-v3.2", "kimi-k2", "qwen3-max"}


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "get_weather"}}], ids=str)
@every_model
async def test_a_call_is_forced_or_refused_and_never_forgotten(house: House, model: str, choice: Any) -> None:
    reply = await house.chat("Hello", model, tools=[WEATHER], tool_choice=choice)
    if model in FORCED:
        assert [call["function"]["name"] for call in calls_of(reply)] == ["get_weather"], reply.body
    else:
        assert (reply.status, reply.json["error"]["param"]) == (501, "tool_choice")


@whole_and_streamed
@every_model
async def test_json_mode_yields_an_object(house: House, model: str, stream: bool) -> None:
    text = 'Give me name and age of Ann, 31, as json: {"name": …, "age": …}'
    reply = await house.chat(text, model, stream=stream, response_format={"type": "json_object"})
    assert reply.status == 200, reply.body
    assert isinstance(json.loads(reply.text), dict)


@whole_and_streamed
@every_model
async def test_structured_output_fits_its_schema(house: House, model: str, stream: bool) -> None:
    reply = await house.chat("Ann is 31 years old.", model, stream=stream, response_format=PERSON)
    assert reply.status == 200, reply.body
    person = json.loads(reply.text)
    assert set(person) == {"name", "age", "nick"}
    assert type(person["age"]) is int


@whole_and_streamed
@every_model
async def test_an_answer_ends_before_a_stop_string(house: House, model: str, stream: bool) -> None:
    stops = [" five", "a stop string of more than thirty-two bytes", "zzz", "yyy"]
    reply = await house.chat("Say exactly: one two three four five six", model, stream=stream, stop=stops)
    assert (reply.status, reply.text) == (200, "one two three four"), reply.body


SEES = {"glm-4-plus", "kimi-k2", "kimi-thinking", "qwen3-max", "minimax-text-01", "m3"}


@pytest.mark.parametrize("url", [PIXEL, "https://example.com/cat.png"], ids=["data", "http"])
@every_model
async def test_images_are_seen_or_refused(house: House, model: str, url: str) -> None:
    parts = [
        {"type": "text", "text": "What is this?"},
        {"type": "text", "text": ""},
        {"type": "image_url", "image_url": {"url": url}},
    ]
    reply = await house.chat(model=model, messages=[{"role": "user", "content": parts}])
    if model in SEES:
        assert reply.status == 200, reply.body
        assert "image" in reply.text.lower()
    else:
        assert (reply.status, reply.json["error"]["param"]) == (501, "messages[0].content[2]")


@whole_and_streamed
@every_model
async def test_only_models_sold_with_reasoning_reason(house: House, model: str, stream: bool) -> None:
    for fields in ({}, {"reasoning_effort": "high"}, {"thinking": {"type": "enabled"}}):
        reply = await house.chat("Why is the sky blue?", model, stream=stream, **fields)
        assert reply.status == 200, reply.body
        assert bool(reasoning_of(reply)) == (model in REASONING)
    off = await house.chat("Why is the sky blue?", model, stream=stream, reasoning={"enabled": False})
    assert (off.status, reasoning_of(off)) == (200, "")
    assert off.text


@pytest.mark.parametrize("model", sorted(REASONING))
@whole_and_streamed
async def test_reasoning_can_be_left_out_of_the_answer(house: House, model: str, stream: bool) -> None:
    reply = await house.chat("Why is the sky blue?", model, stream=stream, reasoning={"exclude": True})
    assert (reply.status, reasoning_of(reply)) == (200, "")
    assert reply.text
    assert reply.usage["completion_tokens_details"]["reasoning_tokens"] > 0


@every_model
async def test_choices_are_made_or_refused(house: House, model: str) -> None:
    reply = await house.chat("Hello", model, n=3, max_tokens=50)
    if model == "qwen3-max":
        assert [choice["index"] for choice in reply.json["choices"]] == [0, 1, 2]
        row = house.usage(reply.request_id)
        assert row is not None
        assert row.completion_tokens == reply.usage["completion_tokens"]
    else:
        assert (reply.status, reply.json["error"]["param"]) == (501, "n")


@every_model
async def test_log_probabilities_are_told_or_refused(house: House, model: str) -> None:
    reply = await house.chat("Hello", model, logprobs=True)
    if model in ("deepseek-chat", "deepseek-v3.2"):  # which has DeepSeek's own as its second pool
        assert reply.json["choices"][0]["logprobs"]["content"]
    else:
        assert (reply.status, reply.json["error"]["param"]) == (501, "logprobs")

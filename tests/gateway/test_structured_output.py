"""Answers in a form that their upstream does not know: asked for, checked, mended once, or refused."""

import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from front_door import House
from scripted import Scripted, said, scripted

SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "degrees": {"type": "integer", "minimum": -90}},
    "required": ["city", "degrees"],
    "additionalProperties": False,
}
FORM = {"type": "json_schema", "json_schema": {"name": "weather", "strict": True, "schema": SCHEMA}}
GOOD, BAD = '{"city": "Paris", "degrees": 21}', '{"city": "Paris"}'


@pytest.fixture
async def upstream(
    tmp_path: Path, template: Any, monkeypatch: pytest.MonkeyPatch, open_house: Any
) -> AsyncIterator[Scripted]:
    monkeypatch.setenv("PLAIN_API_KEY", "sk-plain")
    data = tmp_path / "data"
    data.mkdir()
    shutil.copy(template[0], data)
    async with scripted() as upstream:
        (data / "catalog.toml").write_text(upstream.catalog())
        yield upstream


async def asked(house: House, **fields: Any) -> Any:
    return await house.chat("The weather in Paris, in JSON?", "plain-1", **{"response_format": FORM, **fields})


@pytest.mark.parametrize(
    "text",
    [GOOD, f"\n{GOOD}\n", f"```json\n{GOOD}\n```", f"```\n{GOOD}```", f"Here you are:\n\n```JSON\n{GOOD}\n```\nBye."],
)
async def test_the_json_is_taken_out_of_what_stands_around_it(upstream: Scripted, open_house: Any, text: str) -> None:
    house = await open_house()
    upstream.answers = [said(text)]
    assert (await asked(house)).text == GOOD
    (call,) = upstream.calls
    assert call["response_format"] == {"type": "json_object"}
    assert json.dumps(SCHEMA, separators=(",", ":")) in call["messages"][0]["content"]


@pytest.mark.parametrize("bad", [BAD, "Sunny.", "[]", f"{BAD} {BAD}", '{"city": "Paris", "degrees": NaN}'])
@pytest.mark.parametrize("stream", [False, True])
async def test_an_unfit_answer_is_mended_once_and_charged_once(
    upstream: Scripted, open_house: Any, bad: str, stream: bool
) -> None:
    house = await open_house()
    upstream.answers = [said(bad, usage=(10, 5)), said(f"```json\n{GOOD}\n```", usage=(40, 7))]
    reply = await asked(house, stream=stream)
    assert (reply.status, reply.text) == (200, GOOD)
    assert (reply.usage["prompt_tokens"], reply.usage["completion_tokens"]) == (10, 7)
    first, second = upstream.calls
    assert "stream" not in first
    assert second["messages"][: len(first["messages"])] == first["messages"]
    answer, correction = second["messages"][len(first["messages"]) :]
    assert answer == {"role": "assistant", "content": bad}
    assert correction["role"] == "user"
    row = house.usage(reply.request_id)
    assert row is not None
    assert (row.charge_nanousd, row.attempts, row.outcome) == (10 * 1000 + 7 * 2000, 2, "complete")


async def test_a_call_to_mend_that_fails_costs_us_its_own_prompt(upstream: Scripted, open_house: Any) -> None:
    """The longer of the two: what was wrong stands in it."""
    house = await open_house(gateway={"attempts_max": 1})
    upstream.answers = [{}]
    assert (await asked(house)).status == 502
    upstream.answers = [said(BAD, usage=(10, 5)), {}]
    reply = await asked(house)
    assert reply.status == 502
    alone, first, second = house.lost()
    assert (alone.number, first.number, second.number) == (1, 1, 2)
    assert first.cost_nanousd == 10 * 500 + 5 * 1000
    assert second.cost_nanousd > alone.cost_nanousd > 0


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_that_stays_unfit_is_an_error_and_costs_nothing(
    upstream: Scripted, open_house: Any, stream: bool
) -> None:
    house = await open_house()
    upstream.answers = [said(BAD), said(BAD)]
    reply = await asked(house, stream=stream)
    assert (reply.status, reply.json["error"]["code"]) == (502, "structured_output_failed")
    assert reply.headers["x-should-retry"] == "false"
    (row,) = house.rows()
    assert (row.charge_nanousd, row.outcome, row.attempts) == (0, "upstream_failed", 2)


async def test_a_stream_is_held_back_and_sent_in_openais_shape(upstream: Scripted, open_house: Any) -> None:
    house = await open_house()
    upstream.answers = [said(GOOD, reasoning_content="Think.")]
    reply = await asked(house, stream=True, stream_options={"include_usage": True})
    assert reply.done
    deltas = [(choice["delta"], choice["finish_reason"]) for chunk in reply.chunks for choice in chunk["choices"]]
    assert deltas == [
        ({"role": "assistant", "content": None, "refusal": None}, None),
        ({"reasoning_content": "Think."}, None),
        ({"content": GOOD}, None),
        ({}, "stop"),
    ]
    assert [chunk["usage"] and chunk["usage"]["total_tokens"] for chunk in reply.chunks] == [None, None, None, None, 15]
    assert reply.chunks[-1]["choices"] == []


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_that_was_cut_is_told_as_it_is(upstream: Scripted, open_house: Any, stream: bool) -> None:
    house = await open_house()
    upstream.answers = [said('{"city": "Par', finish="length")]
    reply = await asked(house, stream=stream)
    assert reply.text == '{"city": "Par'
    assert len(upstream.calls) == 1


async def test_a_tool_call_needs_no_form(upstream: Scripted, open_house: Any) -> None:
    house = await open_house()
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
    upstream.answers = [said(None, finish="tool_calls", tool_calls=[call])] * 2
    reply = await asked(house, tools=[tool])
    assert reply.json["choices"][0]["message"]["tool_calls"] == [call]
    streamed = await asked(house, tools=[tool], stream=True)
    (delta,) = [
        choice["delta"]["tool_calls"][0]
        for chunk in streamed.chunks
        for choice in chunk["choices"]
        if "tool_calls" in choice["delta"]
    ]
    assert delta == {"index": 0, **call}
    assert len(upstream.calls) == 2


async def test_a_second_call_that_fails_is_tried_again_from_the_start(upstream: Scripted, open_house: Any) -> None:
    house = await open_house()
    upstream.answers = [said(BAD), 500, said(GOOD)]
    reply = await asked(house)
    assert (reply.status, reply.text) == (200, GOOD)
    assert [len(call["messages"]) for call in upstream.calls] == [2, 4, 2]


async def test_a_form_that_the_upstream_knows_is_left_to_it(
    upstream: Scripted, open_house: Any, tmp_path: Path
) -> None:
    (tmp_path / "data" / "catalog.toml").write_text(upstream.catalog(quirks='json_schema = "native"'))
    house = await open_house()
    upstream.answers = [said(BAD)]
    assert (await asked(house)).text == BAD
    assert upstream.calls[0]["response_format"] == FORM


async def test_a_form_that_is_only_asked_for_in_words_is_checked_too(
    upstream: Scripted, open_house: Any, tmp_path: Path
) -> None:
    (tmp_path / "data" / "catalog.toml").write_text(upstream.catalog(quirks='json_object = "emulate"'))
    house = await open_house()
    upstream.answers = [said("[1]"), said("```\n{}\n```")]
    assert (await asked(house, response_format={"type": "json_object"})).text == "{}"
    assert "response_format" not in upstream.calls[0]


async def test_a_schema_that_cannot_be_held_to_is_the_callers_fault(upstream: Scripted, open_house: Any) -> None:
    house = await open_house()
    form = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"$ref": "https://example.com/schema"}}}
    reply = await asked(house, response_format=form)
    assert (reply.status, reply.json["error"]["param"]) == (400, "response_format.json_schema.schema")
    assert upstream.calls == []
    assert house.rows() == []

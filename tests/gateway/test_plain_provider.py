"""A provider that speaks plain OpenAI is a row in an operator's file, and no code."""

import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from front_door import House
from scripted import Scripted, said, scripted

TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
FORM = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object"}}}
QUIRKS = """
    choices_max = 8
    logprobs = true
    vision = true
    json_schema = "native"
"""


def chunk(delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
    return {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "theirs", "choices": [choice]}


@pytest.fixture
async def upstream(
    tmp_path: Path, template: Any, monkeypatch: pytest.MonkeyPatch, open_house: Any
) -> AsyncIterator[Scripted]:
    monkeypatch.setenv("PLAIN_API_KEY", "sk-plain")
    data = tmp_path / "data"
    data.mkdir()
    shutil.copy(template[0], data)
    async with scripted() as upstream:
        (data / "catalog.toml").write_text(upstream.catalog(quirks=QUIRKS))
        yield upstream


async def test_a_row_is_all_it_takes(upstream: Scripted, open_house: Any) -> None:
    house: House = await open_house()
    upstream.answers = [said("Hello there.", usage=(12, 3))]
    reply = await house.chat("Hello", "plain-1", temperature=1.7, max_tokens=50)
    assert (reply.status, reply.text, reply.json["model"]) == (200, "Hello there.", "plain-1")
    assert upstream.heads[0]["path"] == "/v1/chat/completions"
    assert upstream.heads[0]["authorization"] == "Bearer sk-plain"
    assert upstream.calls == [
        {
            "model": "plain-1-upstream",
            "messages": [{"role": "user", "content": "Hello"}],
            "max_tokens": 50,
            "temperature": 1.7,
        }
    ]
    row = house.usage(reply.request_id)
    assert row is not None
    assert (row.provider, row.charge_nanousd, row.cost_nanousd) == ("plain", 12 * 1000 + 3 * 2000, 12 * 500 + 3 * 1000)
    listed = await house.ask("GET", "/v1/models/plain-1")
    assert (listed.status, listed.json["status"]) == (200, "live")


async def test_replies_that_are_recognised_cost_what_they_say(upstream: Scripted, open_house: Any) -> None:
    house: House = await open_house()
    asked = [
        ("Hello.", 12, 3),
        ("Caf\u00e9", 40, 1_000),
        ('"No."', 1, 1),
        ("", 5, 1),
        ("Caf\u00e9", 7, 0),
        ("Bye", 8, 2),
    ]
    upstream.answers = [said(text, usage=(prompt, completion)) for text, prompt, completion in asked]
    for text, prompt, completion in asked:
        reply = await house.chat("Hello", "plain-1")
        assert (reply.status, reply.text) == (200, text)
        row = house.usage(reply.request_id)
        assert row is not None
        assert row.estimated == (completion == 0)
        if completion:
            assert (row.prompt_tokens, row.completion_tokens) == (prompt, completion)
            assert row.charge_nanousd == prompt * 1000 + completion * 2000
        assert (b"\\u00e9" in reply.body) == (prompt == 40), "as it came, where it was recognised"


async def test_it_streams(upstream: Scripted, open_house: Any) -> None:
    house: House = await open_house()
    usage = {"prompt_tokens": 12, "completion_tokens": 3, "total_tokens": 15}
    upstream.answers = [
        [
            chunk({"role": "assistant", "content": ""}),
            chunk({"content": "Hello"}),
            chunk({"content": " there."}),
            chunk({}, "stop"),
            {**chunk({}), "choices": [], "usage": usage},
        ]
    ]
    reply = await house.stream("Hello", "plain-1")
    assert (reply.status, reply.text, reply.done) == (200, "Hello there.", True)
    assert reply.usage["total_tokens"] == 15
    assert upstream.calls[0]["stream_options"] == {"include_usage": True}


async def test_what_openai_takes_arrives_as_it_was_sent(upstream: Scripted, open_house: Any) -> None:
    house: House = await open_house()
    fields: dict[str, Any] = {
        "messages": [
            {"role": "system", "content": "Be brief.", "name": "boss"},
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}]},
        ],
        "top_p": 0.0,
        "stop": ["a", "b", "c", "d"],
        "presence_penalty": 1.0,
        "frequency_penalty": -1.0,
        "seed": -7,
        "logit_bias": {"1": 2},
        "logprobs": True,
        "top_logprobs": 2,
        "n": 2,
        "tools": [TOOL],
        "tool_choice": "required",
        "parallel_tool_calls": False,
        "response_format": FORM,
    }
    upstream.answers = [said("{}")]
    assert (await house.chat(model="plain-1", max_tokens=50, **fields)).status == 200
    assert upstream.calls == [{"model": "plain-1-upstream", "max_tokens": 50, **fields}]


async def test_its_failures_are_classified_by_status(upstream: Scripted, open_house: Any) -> None:
    house: House = await open_house()
    upstream.answers = [400]
    reply = await house.chat("Hello", "plain-1")
    assert (reply.status, reply.json["error"]["code"]) == (400, "bad_request")
    upstream.answers = [401]
    reply = await house.chat("Hello", "plain-1")
    assert (reply.status, reply.json["error"]["code"]) == (502, "upstream_error")

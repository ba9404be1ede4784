"""The parameter matrix of the five providers, row by row: what is passed, dropped, renamed, clamped, stripped, emulated
or refused where. One line here is one cell of each provider's column."""

from typing import Any, NamedTuple

import msgspec
import pytest

from vipcloud.dialects import requests
from vipcloud.errors import NotImplementedYet
from vipcloud.providers import catalog, structured, translate
from vipcloud.providers.catalog import catalog_of
from vipcloud.providers.models import Candidate

MODELS = catalog_of(catalog.packaged_toml()).models
COLUMNS: dict[str, Candidate] = {
    "DeepSeek": MODELS["deepseek-chat"].candidates[0],
    "Zhipu GLM-4": MODELS["glm-4-flash"].candidates[0],
    "Moonshot k2.6": MODELS["kimi-k2"].candidates[0],
    "DashScope qwen3-max": MODELS["qwen3-max"].candidates[0],
    "MiniMax Text-01": MODELS["minimax-text-01"].candidates[0],
    "MiniMax M3": MODELS["minimax-text-01"].candidates[1],
}

HELLO = [{"role": "user", "content": "Hello"}]
JSON_HELLO = [{"role": "user", "content": "Hello in JSON"}]
SYSTEM = {"role": "system", "content": "Be brief."}
DEVELOPER = {"role": "developer", "content": "Be kind."}
BOTH = {"role": "system", "content": "Be brief.\n\nBe kind."}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
OTHER = {"type": "function", "function": {"name": "g", "parameters": {"type": "object", "properties": {}}}}
NAMED = {"type": "function", "function": {"name": "f"}}
SEARCH = {"type": "function", "function": {"name": "search", "parameters": {"type": "object", "properties": {}}}}
RENAMED = {"type": "function", "function": {"name": "fn_search", "parameters": {"type": "object", "properties": {}}}}
LOOSE = {
    "type": "object",
    "properties": {"a": {"$ref": "#/$defs/a"}, "b": {"enum": [1, "x"]}},
    "$defs": {"a": {"description": "An a."}},
}
INLINED = {
    "type": "object",
    "properties": {
        "a": {"type": "string", "description": "An a."},
        "b": {"anyOf": [{"type": "integer", "enum": [1]}, {"type": "string", "enum": ["x"]}]},
    },
}
SCHEMA = {
    "type": "object",
    "properties": {"a": {"type": "integer", "minimum": 1}},
    "required": ["a"],
    "additionalProperties": False,
}
SMALLER = SCHEMA | {"properties": {"a": {"type": "integer"}}}
TEXTS = [{"type": "text", "text": "a"}, {"type": "text", "text": ""}, {"type": "text", "text": "b"}]
IMAGE = [{"type": "text", "text": "See?"}, {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}]


class X(NamedTuple):
    """Refused with 501, the parameter named."""

    param: str


def schema_format(schema: dict[str, Any]) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}


def with_schema(tool: dict[str, Any], parameters: dict[str, Any]) -> dict[str, Any]:
    return {"type": "function", "function": {"name": tool["function"]["name"], "parameters": parameters}}


D: dict[str, Any] = {}  # dropped or stripped: nothing of it goes upstream
OBJECT = {"type": "json_object"}

# What is asked, and what goes to each of the columns on top of a request without it. `messages` are those that a caller
# sends; where a cell has other ones, these are what arrives.
ROWS: list[tuple[str, dict[str, Any], list[dict[str, Any] | X]]] = [
    # parameter, asked,                     DeepSeek, Zhipu, Moonshot, DashScope, Text-01, M3
    ("temperature", {"temperature": 0.7}, [{"temperature": 0.7}, {"temperature": 0.7}, D, *[{"temperature": 0.7}] * 3]),
    (
        "temperature 2",
        {"temperature": 2},
        [
            {"temperature": 2.0},
            {"temperature": 1.0},
            D,
            {"temperature": 1.99},
            {"temperature": 1.0},
            {"temperature": 2.0},
        ],
    ),
    (
        "temperature 0",
        {"temperature": 0},
        [
            {"temperature": 0.0},
            {"temperature": 0.01, "do_sample": False},
            D,
            {"temperature": 0.0},
            {"temperature": 0.01},
            {"temperature": 0.0},
        ],
    ),
    ("top_p", {"top_p": 0.9}, [{"top_p": 0.9}, {"top_p": 0.9}, D, *[{"top_p": 0.9}] * 3]),
    ("top_p 0", {"top_p": 0}, [{"top_p": 0.0}, {"top_p": 0.01}, D, *[{"top_p": 0.01}] * 3]),
    (
        "max_tokens",
        {"max_tokens": 99},
        [
            {"max_tokens": 99},
            {"max_tokens": 99},
            {"max_completion_tokens": 99},
            {"max_tokens": 99},
            {"max_tokens": 99},
            {"max_completion_tokens": 99},
        ],
    ),
    (
        "max_tokens, too many",
        {"max_tokens": 10**9},
        [
            {"max_tokens": 8_192},
            {"max_tokens": 16_000},
            {"max_completion_tokens": 32_768},
            {"max_tokens": 65_536},
            {"max_tokens": 8_192},
            {"max_completion_tokens": 8_192},
        ],
    ),
    (
        "max_completion_tokens",
        {"max_completion_tokens": 99},
        [
            {"max_tokens": 99},
            {"max_tokens": 99},
            {"max_completion_tokens": 99},
            {"max_tokens": 99},
            {"max_tokens": 99},
            {"max_completion_tokens": 99},
        ],
    ),
    ("stop", {"stop": "a"}, [*[{"stop": ["a"]}] * 4, D, D]),
    (
        "stop, four",
        {"stop": ["a", "b", "c", "d"]},
        [{"stop": ["a", "b", "c", "d"]}, {"stop": ["a"]}, *[{"stop": ["a", "b", "c", "d"]}] * 2, D, D],
    ),
    (
        "stop, of 33 bytes",
        {"stop": ["a" * 33, "é" * 16]},
        [
            {"stop": ["a" * 33, "é" * 16]},
            {"stop": ["a" * 33]},
            {"stop": ["é" * 16]},
            {"stop": ["a" * 33, "é" * 16]},
            D,
            D,
        ],
    ),
    ("n", {"n": 4}, [X("n"), X("n"), X("n"), {"n": 4}, X("n"), X("n")]),
    ("n, five", {"n": 5}, [X("n")] * 6),
    ("n with tools", {"n": 2, "tools": [TOOL]}, [X("n")] * 6),
    ("presence_penalty", {"presence_penalty": 1}, [{"presence_penalty": 1.0}, D, D, {"presence_penalty": 1.0}, D, D]),
    ("frequency_penalty", {"frequency_penalty": 1}, [{"frequency_penalty": 1.0}, D, D, D, D, D]),
    ("logprobs", {"logprobs": True}, [{"logprobs": True}, *[X("logprobs")] * 5]),
    ("seed", {"seed": 7}, [D, D, D, {"seed": 7}, D, D]),
    ("seed, of 63 bits", {"seed": 2**62 + 5}, [D, D, D, {"seed": 5}, D, D]),
    ("seed, negative", {"seed": -1}, [D, D, D, {"seed": 2**31 - 1}, D, D]),
    ("logit_bias", {"logit_bias": {"1": 1}}, [D] * 6),
    ("tools", {"tools": [TOOL]}, [{"tools": [TOOL]}] * 6),
    (
        "tools, any schema",
        {"tools": [with_schema(TOOL, LOOSE)]},
        [
            *[{"tools": [with_schema(TOOL, LOOSE)]}] * 2,
            {"tools": [with_schema(TOOL, INLINED)]},
            *[{"tools": [with_schema(TOOL, LOOSE)]}] * 3,
        ],
    ),
    (
        "tools, a name twice",
        {"tools": [TOOL, TOOL]},
        [{"tools": [TOOL, TOOL]}, {"tools": [TOOL, TOOL]}, {"tools": [TOOL]}, *[{"tools": [TOOL, TOOL]}] * 3],
    ),
    (
        "a tool named search",
        {"tools": [SEARCH]},
        [*[{"tools": [SEARCH]}] * 3, {"tools": [RENAMED]}, *[{"tools": [SEARCH]}] * 2],
    ),
    (
        "tool_choice auto",
        {"tools": [TOOL], "tool_choice": "auto"},
        [*[{"tools": [TOOL], "tool_choice": "auto"}] * 4, *[{"tools": [TOOL]}] * 2],
    ),
    (
        "tool_choice none",
        {"tools": [TOOL], "tool_choice": "none"},
        [
            {"tools": [TOOL], "tool_choice": "none"},
            D,
            {"tools": [TOOL], "tool_choice": "none"},
            {"tools": [TOOL], "tool_choice": "none"},
            D,
            D,
        ],
    ),
    (
        "tool_choice required",
        {"tools": [TOOL], "tool_choice": "required"},
        [
            {"tools": [TOOL], "tool_choice": "required"},
            X("tool_choice"),
            {"tools": [TOOL], "tool_choice": "required"},
            {"tools": [TOOL], "tool_choice": NAMED},
            X("tool_choice"),
            X("tool_choice"),
        ],
    ),
    (
        "tool_choice required, two tools",
        {"tools": [TOOL, OTHER], "tool_choice": "required"},
        [
            {"tools": [TOOL, OTHER], "tool_choice": "required"},
            X("tool_choice"),
            {"tools": [TOOL, OTHER], "tool_choice": "required"},
            *[X("tool_choice")] * 3,
        ],
    ),
    (
        "tool_choice named",
        {"tools": [TOOL, OTHER], "tool_choice": NAMED},
        [
            {"tools": [TOOL, OTHER], "tool_choice": NAMED},
            X("tool_choice"),
            *[{"tools": [TOOL, OTHER], "tool_choice": NAMED}] * 2,
            *[X("tool_choice")] * 2,
        ],
    ),
    (
        "parallel_tool_calls",
        {"tools": [TOOL], "parallel_tool_calls": False},
        [*[{"tools": [TOOL]}] * 3, {"tools": [TOOL], "parallel_tool_calls": False}, *[{"tools": [TOOL]}] * 2],
    ),
    (
        "json_object",
        {"response_format": OBJECT, "messages": JSON_HELLO},
        [*[{"response_format": OBJECT, "messages": JSON_HELLO}] * 4, {"in words": None}, {"in words": None}],
    ),
    (
        "json_schema",
        {"response_format": schema_format(SCHEMA)},
        [
            {"response_format": OBJECT, "in words": SCHEMA},
            {"response_format": OBJECT, "in words": SCHEMA},
            {"response_format": schema_format(SMALLER)},
            {"response_format": OBJECT, "in words": SCHEMA},
            {"response_format": schema_format(SCHEMA)},
            {"in words": SCHEMA},
        ],
    ),
    ("reasoning", {"reasoning_effort": "high"}, [D] * 6),
    (
        "user",
        {"user": "Ann Lee <ann@example.com>"},
        [{"user_id": "pseudonym"}, {"user_id": "pseudonym"}, {"safety_identifier": "pseudonym"}, D, D, D],
    ),
    (
        "role developer",
        {"messages": [SYSTEM, *HELLO, DEVELOPER]},
        [
            *[{"messages": [SYSTEM, *HELLO, DEVELOPER | {"role": "system"}]}] * 4,
            *[{"messages": [BOTH, *HELLO]}] * 2,
        ],
    ),
    (
        "array content, text only",
        {"messages": [{"role": "user", "content": TEXTS}]},
        [
            *[{"messages": [{"role": "user", "content": "a\n\nb"}]}] * 2,
            {"messages": [{"role": "user", "content": [TEXTS[0], TEXTS[2]]}]},
            *[{"messages": [{"role": "user", "content": "a\n\nb"}]}] * 3,
        ],
    ),
    (
        "images",
        {"messages": [{"role": "user", "content": IMAGE}]},
        [
            X("messages[0].content[1]"),
            X("messages[0].content[1]"),
            {"messages": [{"role": "user", "content": IMAGE}]},
            X("messages[0].content[1]"),
            *[{"messages": [{"role": "user", "content": IMAGE}]}] * 2,
        ],
    ),
    (
        "stream_options.include_usage",
        {"stream": True},
        [
            {"stream": True, "stream_options": {"include_usage": True}},
            {"stream": True},
            *[{"stream": True, "stream_options": {"include_usage": True}}] * 4,
        ],
    ),
]
CELLS = [
    pytest.param(candidate, asked, cell, id=f"{name}: {column}")
    for name, asked, cells in ROWS
    for (column, candidate), cell in zip(COLUMNS.items(), cells, strict=True)
]


def sent(candidate: Candidate, fields: dict[str, Any]) -> dict[str, Any]:
    request = requests.parse_chat(msgspec.json.encode({"model": "m", "messages": HELLO, **fields}))
    decoded: dict[str, Any] = msgspec.json.decode(translate.encode_request(request, candidate, attempt_id="attempt"))
    return decoded


@pytest.mark.parametrize(("candidate", "asked", "cell"), CELLS)
def test_each_cell_holds(candidate: Candidate, asked: dict[str, Any], cell: dict[str, Any] | X) -> None:
    if isinstance(cell, X):
        with pytest.raises(NotImplementedYet) as caught:
            sent(candidate, asked)
        assert (caught.value.status, caught.value.param) == (501, cell.param)
        return
    expected = sent(candidate, {}) | cell
    found = sent(candidate, asked)
    if "in words" in cell:
        schema = expected.pop("in words")
        instruction, *found["messages"] = found["messages"]
        assert instruction["role"] == "system"
        assert "JSON" in instruction["content"]
        assert schema is None or msgspec.json.encode(schema).decode() in instruction["content"]
        expected["messages"] = asked.get("messages", HELLO)
    for field in ("user_id", "safety_identifier"):
        if field in cell:
            assert "ann" not in found[field].lower()
            found[field] = cell[field]
    if "tools" in cell and candidate is COLUMNS["DashScope qwen3-max"]:
        expected = {"parallel_tool_calls": True} | expected  # always said
    assert found == expected


def test_each_column_is_said_whether_to_think_and_no_more() -> None:
    """What goes upstream of a plain request, beside model, messages and ceiling."""
    extra = {
        "DeepSeek": {"thinking": {"type": "disabled"}},
        "Zhipu GLM-4": {"request_id": "attempt"},
        "Moonshot k2.6": {"thinking": {"type": "disabled"}},
        "DashScope qwen3-max": {"enable_thinking": False},
        "MiniMax Text-01": {"mask_sensitive_info": False},
        "MiniMax M3": {"thinking": {"type": "disabled"}, "reasoning_split": True},
    }
    for column, candidate in COLUMNS.items():
        body = sent(candidate, {})
        assert body.pop("model") == candidate.upstream_model
        assert body.pop("messages") == HELLO
        assert body.pop(candidate.quirks.ceiling_field) == candidate.output_tokens_max
        assert body == extra[column]


@pytest.mark.parametrize(("column", "checked"), list(zip(COLUMNS, [True, True, True, True, False, True], strict=True)))
def test_an_answer_is_checked_where_its_upstream_does_not_hold_it_to_the_schema(column: str, checked: bool) -> None:
    fields = {"model": "m", "messages": HELLO, "response_format": schema_format(SCHEMA)}
    request = requests.parse_chat(msgspec.json.encode(fields))
    assert structured.plan(request, COLUMNS[column]).checked is checked


def test_text_01_is_given_only_schemas_that_require_everything() -> None:
    text_01 = COLUMNS["MiniMax Text-01"]
    optional = schema_format({"type": "object", "properties": {"a": {"type": "string"}}})
    body = sent(text_01, {"response_format": optional})
    assert "response_format" not in body
    assert body["messages"][0]["role"] == "system"


def test_deepseek_and_alibaba_are_said_the_word_json() -> None:
    """A caller must say it in JSON mode; for a schema we do."""
    for column in ("DeepSeek", "DashScope qwen3-max"):
        body = sent(COLUMNS[column], {"response_format": schema_format({"type": "object"})})
        assert "JSON" in body["messages"][0]["content"]


def test_minimax_is_sent_arguments_that_are_json() -> None:
    def call(arguments: str) -> dict[str, Any]:
        return {"id": "c", "type": "function", "function": {"name": "f", "arguments": arguments}}

    for column, candidate in COLUMNS.items():
        for arguments in ('{"a": ', "", "NaN", "{} {}", '{"a": "é"}'):
            history = [
                *HELLO,
                {"role": "assistant", "tool_calls": [call(arguments)]},
                {"role": "tool", "tool_call_id": "c", "content": "x"},
            ]
            turn = sent(candidate, {"messages": history, "tools": [TOOL]})["messages"][1]
            mended = column.startswith("MiniMax") and arguments != '{"a": "é"}'
            assert turn["tool_calls"] == [call("{}" if mended else arguments)]
            assert ("content" in turn) == (column != "Moonshot k2.6")  # an empty one is a 400 there


def test_a_stop_string_that_is_not_sent_is_watched_for() -> None:
    stops = ["a", "b" * 33, "c", "d"]
    request = requests.parse_chat(msgspec.json.encode({"model": "m", "messages": HELLO, "stop": stops}))
    watched = {column: translate.local_stops(request, candidate) for column, candidate in COLUMNS.items()}
    assert watched == {
        "DeepSeek": (),
        "Zhipu GLM-4": ("b" * 33, "c", "d"),
        "Moonshot k2.6": ("b" * 33,),
        "DashScope qwen3-max": (),
        "MiniMax Text-01": ("a", "b" * 33, "c", "d"),
        "MiniMax M3": ("a", "b" * 33, "c", "d"),
    }

"""What is taken and what it becomes, the rules between fields, and that any bytes either pass or are refused."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from vipcloud.dialects import openai, requests
from vipcloud.errors import BadRequest

USER: dict[str, Any] = {"role": "user", "content": "hi"}
FUNCTION: dict[str, Any] = {"type": "function", "function": {"name": "f"}}
CUSTOM: dict[str, Any] = {"type": "custom", "custom": {"name": "c"}}
IMAGE = "data:image/png;base64,AAAA"


def calling(*ids: str) -> dict[str, Any]:
    calls = [{"id": name, "type": "function", "function": {"name": "f", "arguments": "{}"}} for name in ids]
    return {"role": "assistant", "content": None, "tool_calls": calls}


def answering(call_id: str) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": call_id, "content": "42"}


def strict_schema(**changes: Any) -> dict[str, Any]:
    schema = {
        "type": "object",
        "properties": {"a": {"type": "string"}, "b": {"type": "array", "items": {"$ref": "#/$defs/leaf"}}},
        "required": ["a", "b"],
        "additionalProperties": False,
        "$defs": {"leaf": {"type": "object", "properties": {}, "additionalProperties": False}},
    }
    return schema | changes


def answer_format(schema: Any, strict: Any = True) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "x", "schema": schema, "strict": strict}}


def nested(levels: int) -> Any:
    """Objects and arrays in turn; an object outside."""
    value: Any = {}
    for level in range(levels - 1):
        value = {"a": value} if level % 2 or level == levels - 2 else [value]
    return value


def parse(**fields: Any) -> openai.ChatRequest:
    return requests.parse_chat(json.dumps({"model": "m", "messages": [USER], **fields}, ensure_ascii=False).encode())


def refused(**fields: Any) -> BadRequest:
    with pytest.raises(BadRequest) as caught:
        parse(**fields)
    return caught.value


# --- accepted --------------------------------------------------------------------------------------------------

ACCEPTED: list[dict[str, Any]] = [
    {name: None for name in openai.ChatRequest.__struct_fields__ if name not in ("model", "messages")},
    {"temperature": 2, "top_p": 0.0, "n": 128, "presence_penalty": -2, "frequency_penalty": 2.0, "seed": -(2**63)},
    {"max_tokens": 1, "max_completion_tokens": 2**31 - 1, "logprobs": True, "top_logprobs": 20},
    {"stop": "x"},
    {"stop": ["a", "b", "c", "d"]},
    {"stream": True, "stream_options": {"include_usage": True, "include_obfuscation": False, "vendor": 1}},
    {"stream": False, "stream_options": None},
    {"logit_bias": {"50256": -100, "1": 100}},
    {"metadata": {"k" * 64: "v" * 512, **{str(number): "" for number in range(15)}}},
    {"modalities": ["text", "audio"], "audio": {"voice": {"id": "v"}, "format": "pcm16"}},
    {"prediction": {"type": "content", "content": [{"type": "text", "text": "x"}]}},
    {"reasoning_effort": "xhigh", "verbosity": "low", "service_tier": "fast", "store": True, "user": ""},
    {"prompt_cache_key": "k", "prompt_cache_retention": "24h", "prompt_cache_options": {"mode": "explicit"}},
    {
        "web_search_options": {"search_context_size": "low"},
        "moderation": {"model": "x"},
        "safety_identifier": "k" * 128,
    },
    {
        "top_k": 5,
        "thinking": {"type": "adaptive", "budget_tokens": 5},
        "chat_template_kwargs": {},
        "provider": {},
        "guided_json": nested(200),
    },
    {"tools": [FUNCTION, CUSTOM, FUNCTION], "tool_choice": "none", "parallel_tool_calls": False},
    {"tools": [FUNCTION], "tool_choice": FUNCTION},
    {"tools": [CUSTOM], "tool_choice": CUSTOM},
    {"tools": [{"type": "function", "function": {"name": "a-B_9", "parameters": nested(64), "strict": None}}]},
    {"tools": [{"type": "custom", "custom": {"name": "c", "format": {"type": "text"}}}]},
    {"tools": [{"type": "function", "function": {"name": "f", "strict": True, "parameters": strict_schema()}}]},
    {"tools": [{"type": "function", "function": {"name": "f", "strict": True}}]},
    {"response_format": {"type": "text"}},
    {"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}},
    {"response_format": answer_format(strict_schema())},
    {"response_format": answer_format({"type": "array"}, strict=False)},
    {"response_format": answer_format({"type": "object", "properties": {"a": {}}}, strict=None)},
    {
        "response_format": answer_format(
            strict_schema(properties={"a": {"type": ["string", "null"]}}, required=["a", 1])
        )
    },
    {"messages": [{"role": "user"}, {"role": "assistant"}, {"role": "assistant", "content": None}, USER]},
    {"messages": [USER, {"role": "system", "content": "x", "name": "n"}, {"role": "developer", "content": "x"}]},
    {
        "messages": [
            {"role": "system", "content": [{"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}}]}
        ]
    },
    {"messages": [{"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}], "refusal": None}]},
    {
        "messages": [
            {"role": "assistant", "content": "x", "reasoning_content": "r", "reasoning": "r", "annotations": []}
        ]
    },
    {"messages": [USER, calling("a", "b"), answering("b"), answering("a"), USER, calling("a"), answering("a")]},
    {"messages": [USER, calling("a"), answering("a"), answering("a")]},
    {"messages": [{"role": "user", "content": [{"type": "file", "file": {"file_id": "f"}}]}]},
    {
        "messages": [
            {"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "", "format": "mp3"}}]}
        ]
    },
]


@pytest.mark.parametrize("fields", ACCEPTED)
def test_what_openai_takes_is_taken(fields: dict[str, Any]) -> None:
    request = parse(**fields)
    assert request.model == "m"
    assert msgspec.json.decode(msgspec.json.encode(request))["model"] == "m"


def test_the_last_of_two_equal_keys_counts() -> None:
    body = b'{"model":"a","messages":[],"n":"x","model":"b","messages":[%s],"n":3}'
    body = body.replace(b"%s", b'{"role":"user","content":"x","content":"y"}')
    for padding in (b"", b',"x":"' + b"x" * 100_000 + b'"'):
        request = requests.parse_chat(body[:-1] + padding + b"}")
        assert (request.model, request.n, request.messages) == ("b", 3, [openai.UserMessage("y")])
        with pytest.raises(BadRequest) as caught:
            requests.parse_chat(body[:-1] + padding + b',"n":"x"}')
        assert caught.value.param == "n"


def test_text_arrives_byte_for_byte() -> None:
    text = 'naïve 中文 🙂 \u2028 \x7f \t \\ " / \u0000'
    assert parse(messages=[{"role": "user", "content": text}]).messages[0].content == text
    escaped = json.dumps({"model": "m", "messages": [{"role": "user", "content": text}]}).encode()
    assert requests.parse_chat(escaped).messages[0].content == text


# --- plain requests --------------------------------------------------------------------------------------------

PLAIN: list[dict[str, Any]] = [
    {},
    {name: None for name in openai.ChatRequest.__struct_fields__ if name not in ("model", "messages")},
    {"stream": True, "stream_options": {"include_usage": True}, "temperature": 0, "top_p": 1, "max_tokens": 5},
    {"max_completion_tokens": 5, "user": "u", "safety_identifier": "s", "store": True, "n": 1, "top_k": 5},
    {"messages": [{"role": role, "content": "x", "vendor": 1} for role in ("system", "user", "assistant")]},
    {"messages": [{"role": "assistant", "content": "x", "tool_calls": None, "name": None}]},
]

NOT_PLAIN: list[dict[str, Any]] = [
    {"stop": "x"},
    {"tools": [FUNCTION]},
    {"tools": []},
    {"n": 2},
    {"seed": 1},
    {"logprobs": False},
    {"metadata": {}},
    {"response_format": {"type": "text"}},
    {"presence_penalty": 0},
    {"moderation": {"model": "m"}},
    {"messages": [{"role": "user"}]},
    {"messages": [{"role": "user", "content": [{"type": "text", "text": "x"}]}]},
    {"messages": [{"role": "user", "content": "x", "name": "n"}]},
    {"messages": [{"role": "developer", "content": "x"}]},
    {"messages": [{"role": "assistant", "content": "x", "reasoning_content": "r"}]},
    {"messages": [USER, calling("a"), answering("a")]},
]


@pytest.mark.parametrize("fields", PLAIN)
def test_a_request_of_text_is_plain_and_holds_what_any_other_does(fields: dict[str, Any]) -> None:
    plain = parse(**fields)
    body = json.dumps({"model": "m", "messages": [USER], **fields}).encode()
    full = msgspec.json.decode(body, type=openai.ChatRequest)
    requests.check(full)
    assert type(plain) is openai.PlainChat
    assert msgspec.to_builtins(plain) == msgspec.to_builtins(full)


@pytest.mark.parametrize("fields", NOT_PLAIN)
def test_a_request_with_more_than_text_is_not_plain(fields: dict[str, Any]) -> None:
    assert type(parse(**fields)) is openai.ChatRequest


def test_a_plain_request_knows_all_fields_of_the_contract() -> None:
    assert {*openai.PlainChat.__struct_fields__} == {*openai.ChatRequest.__struct_fields__}
    for plain, full in (
        (openai.PlainSystemMessage, openai.SystemMessage),
        (openai.PlainUserMessage, openai.UserMessage),
        (openai.PlainAssistantMessage, openai.AssistantMessage),
    ):
        assert {*plain.__struct_fields__} == {*full.__struct_fields__}


# --- one spelling ----------------------------------------------------------------------------------------------


def test_empty_arrays_that_mean_nothing_are_dropped() -> None:
    request = parse(tools=[], stop="", messages=[USER, {"role": "assistant", "content": "x", "tool_calls": []}])
    assert (request.tools, request.stop) == (None, None)
    assert request.messages[1] == openai.AssistantMessage("x")


def test_any_is_another_word_for_required() -> None:
    assert parse(tools=[FUNCTION], tool_choice="any").tool_choice == "required"


def test_allowed_tools_are_reduced_to_references() -> None:
    listed = [FUNCTION | {"vendor": nested(100)}, {"type": "custom", "custom": {"name": "c", "x": 2**70}}]
    choice = {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": listed}}
    assert parse(tools=[FUNCTION, CUSTOM], tool_choice=choice).tool_choice == openai.AllowedToolsChoice(
        openai.AllowedTools("auto", [FUNCTION, CUSTOM])
    )


@pytest.mark.parametrize("url", [IMAGE, "https://a.example/x.png", "HTTP://a.example/x.png"])
def test_a_bare_image_url_is_wrapped(url: str) -> None:
    for image in (url, {"url": url}):
        request = parse(messages=[{"role": "user", "content": [{"type": "image_url", "image_url": image}]}])
        assert request.messages == [openai.UserMessage([openai.ImagePart(openai.ImageURL(url))])]


def test_a_call_said_in_both_ways_is_taken_once() -> None:
    turn = calling("a") | {"function_call": {"name": "f", "arguments": "{}"}}
    message = parse(messages=[USER, turn, answering("a")]).messages[1]
    assert isinstance(message, openai.AssistantMessage)
    assert message.function_call is None
    assert message.tool_calls is not None


# --- the functions of 2023 -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("function_call", "tool_choice"),
    [
        (None, None),
        ("none", "none"),
        ("auto", "auto"),
        ({"name": "g"}, openai.FunctionChoice(openai.NamedFunction("g"))),
    ],
)
def test_functions_become_tools_and_are_remembered(function_call: Any, tool_choice: Any) -> None:
    request = parse(functions=[{"name": "f"}, {"name": "g", "parameters": {}}], function_call=function_call)
    assert requests.uses_legacy_functions(request)
    assert request.functions == [openai.FunctionSpec("f"), openai.FunctionSpec("g", parameters={})]
    assert request.tools == [openai.FunctionTool(spec) for spec in request.functions]
    assert request.tool_choice == tool_choice
    assert not requests.uses_legacy_functions(parse(tools=[FUNCTION]))


def called(call_id: str, arguments: str = "{}", content: str | None = None) -> openai.AssistantMessage:
    calls = [openai.ToolCall(call_id, "function", function=openai.FunctionCall("f", arguments))]
    return openai.AssistantMessage(content, tool_calls=calls)


CALL = {"role": "assistant", "content": "wait", "function_call": {"name": "f", "arguments": '{"a":1}'}}
ANSWER = {"role": "function", "name": "f", "content": "42"}


@pytest.mark.parametrize(
    ("messages", "becomes"),
    [
        ([CALL, ANSWER], [called("call_legacy_1", '{"a":1}', "wait"), openai.ToolMessage("42", "call_legacy_1")]),
        ([ANSWER], [called("call_legacy_1"), openai.ToolMessage("42", "call_legacy_1")]),
        ([CALL], [called("call_legacy_1", '{"a":1}', "wait"), openai.ToolMessage("", "call_legacy_1")]),
        (
            [CALL, USER],
            [
                called("call_legacy_1", '{"a":1}', "wait"),
                openai.ToolMessage("", "call_legacy_1"),
                openai.UserMessage("hi"),
            ],
        ),
        (
            [CALL, ANSWER, ANSWER | {"content": None}],
            [
                called("call_legacy_1", '{"a":1}', "wait"),
                openai.ToolMessage("42", "call_legacy_1"),
                called("call_legacy_3"),
                openai.ToolMessage("", "call_legacy_3"),
            ],
        ),
    ],
)
def test_function_messages_become_paired_tool_messages(messages: list[Any], becomes: list[openai.Message]) -> None:
    assert parse(messages=[USER, *messages]).messages == [openai.UserMessage("hi"), *becomes]


# --- rules between fields --------------------------------------------------------------------------------------

RESPOND = "Invalid parameter: messages with role 'tool' must be a response to a preceeding message with 'tool_calls'."
UNANSWERED = (
    "An assistant message with 'tool_calls' must be followed by tool messages responding to each 'tool_call_id'. "
    "The following tool_call_ids did not have response messages: "
)
NEEDS_JSON = "'messages' must contain the word 'json' in some form, to use 'response_format' of type 'json_object'."
NO_ADDITIONAL = "In context=(), 'additionalProperties' is required to be supplied and to be false."
PARAMETERS, SCHEMA = "tools[0].function.parameters", "response_format.json_schema.schema"


def strict_function(parameters: Any) -> dict[str, Any]:
    return {"tools": [{"type": "function", "function": {"name": "f", "strict": True, "parameters": parameters}}]}


def allowed(*tools: Any) -> dict[str, Any]:
    choice = {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": list(tools)}}
    return {"tools": [FUNCTION], "tool_choice": choice}


REFUSED: list[tuple[dict[str, Any], str, str]] = [
    (
        {"stream_options": {"include_usage": True}},
        "stream_options",
        "The 'stream_options' parameter is only allowed when 'stream' is enabled.",
    ),
    ({"stream": False, "stream_options": {}}, "stream_options", "only allowed when 'stream' is enabled"),
    (
        {"top_logprobs": 2},
        "top_logprobs",
        "The 'top_logprobs' parameter is only allowed when 'logprobs' is enabled.",
    ),
    ({"top_logprobs": 0, "logprobs": False}, "top_logprobs", "'logprobs' is enabled"),
    # tools and choices
    (
        {"tool_choice": "auto"},
        "tool_choice",
        "Invalid value for 'tool_choice': 'tool_choice' is only allowed when 'tools' are specified.",
    ),
    ({"tool_choice": "none", "tools": []}, "tool_choice", "only allowed when 'tools' are specified"),
    ({"parallel_tool_calls": True}, "parallel_tool_calls", "'parallel_tool_calls' is only allowed when 'tools' are"),
    (
        {"tools": [FUNCTION], "tool_choice": {"type": "function", "function": {"name": "g"}}},
        "tool_choice",
        "Invalid value for 'tool_choice': no function named 'g' was specified in the 'tools' parameter.",
    ),
    (
        {"tools": [FUNCTION], "tool_choice": {"type": "custom", "custom": {"name": "f"}}},
        "tool_choice",
        "no custom tool named 'f'",
    ),
    (allowed(FUNCTION, CUSTOM), "tool_choice.allowed_tools.tools[1]", "no custom tool named 'c'"),
    (
        allowed({"type": "x"}),
        "tool_choice.allowed_tools.tools[0].type",
        "Supported values are: 'function' and 'custom'.",
    ),
    (allowed({"type": 1}), "tool_choice.allowed_tools.tools[0].type", "expected one of 'function' or 'custom'"),
    (allowed({}), "tool_choice.allowed_tools.tools[0].function", "Missing required parameter"),
    (allowed({"function": {}}), "tool_choice.allowed_tools.tools[0].function.name", "Missing required parameter"),
    ({"function_call": "auto"}, "function_call", "'function_call' is only allowed when 'functions' are specified."),
    ({"functions": [{"name": "f"}], "tools": [FUNCTION]}, "functions", "not allowed together with 'tools'"),
    ({"functions": [{"name": "f"}], "tool_choice": "auto"}, "tool_choice", "only allowed when 'tools' are specified"),
    (
        {"functions": [{"name": "f"}], "function_call": {"name": "g"}},
        "function_call",
        "no function named 'g' was specified in the 'functions' parameter.",
    ),
    # calls and their answers
    ({"messages": [USER, USER, USER, answering("a")]}, "messages[3].role", RESPOND),
    ({"messages": [USER, calling("a"), answering("b")]}, "messages[2].role", RESPOND),
    ({"messages": [USER, calling("a"), answering("a"), USER, answering("a")]}, "messages[4].role", RESPOND),
    ({"messages": [USER, calling("a", "b", "c"), answering("b"), USER]}, "messages[1].tool_calls", UNANSWERED + "a, c"),
    ({"messages": [USER, calling("a")]}, "messages[1].tool_calls", UNANSWERED + "a"),
    ({"messages": [USER, calling("a"), calling("a"), answering("a")]}, "messages[1].tool_calls", UNANSWERED + "a"),
    # JSON
    ({"response_format": {"type": "json_object"}}, "messages", NEEDS_JSON),
    (
        {"response_format": {"type": "json_object"}, "messages": [calling("json"), answering("json")]},
        "messages",
        NEEDS_JSON,
    ),
    ({"response_format": answer_format(None)}, SCHEMA, f"Missing required parameter: '{SCHEMA}'."),
    (
        {"response_format": answer_format({"type": "array"})},
        SCHEMA,
        "Invalid schema for response_format 'x': "
        "schema must be a JSON Schema of 'type: \"object\"', got 'type: \"array\"'.",
    ),
    ({"response_format": answer_format({})}, SCHEMA, "got 'type: \"None\"'."),
    (
        {"response_format": answer_format(strict_schema(additionalProperties=True))},
        SCHEMA,
        f"Invalid schema for response_format 'x': {NO_ADDITIONAL}",
    ),
    (
        {"response_format": answer_format(strict_schema(required=["a"]))},
        SCHEMA,
        "In context=(), 'required' is required to be supplied and to be an array including every key in properties. "
        "Missing 'b'.",
    ),
    (
        {"response_format": answer_format(strict_schema(**{"$defs": {"leaf": {"type": ["object", "null"]}}}))},
        SCHEMA,
        "In context=('$defs', 'leaf'), 'additionalProperties' is required",
    ),
    (
        strict_function(strict_schema(properties={"a": {"anyOf": [{}, {"properties": {}}]}}, required=["a"])),
        PARAMETERS,
        "Invalid schema for function 'f': In context=('properties', 'a', 'anyOf', '1'), 'additionalProperties'",
    ),
    (
        strict_function(strict_schema(properties={"a": {"items": {"type": "object"}}}, required=["a"])),
        PARAMETERS,
        "In context=('properties', 'a', 'items'), 'additionalProperties'",
    ),
    (strict_function({"type": "object"}), PARAMETERS, f"Invalid schema for function 'f': {NO_ADDITIONAL}"),
    (
        {"functions": [{"name": "f", "strict": True, "parameters": {"type": "object"}}]},
        "functions[0].parameters",
        NO_ADDITIONAL,
    ),
    # free-form fields
    (
        {"tools": [{"type": "function", "function": {"name": "f", "parameters": nested(65)}}]},
        PARAMETERS,
        "nested too deeply. Expected at most 64 levels",
    ),
    (
        {"audio": {"format": "wav", "voice": {"a": [1, {"b": 2**63}]}}},
        "audio.voice",
        "Expected a value <= 9223372036854775807, but got 9223372036854775808 instead.",
    ),
    ({"audio": {"format": "wav", "voice": {"a": -(2**63) - 1}}}, "audio.voice", "integer below minimum value"),
    ({"audio": {"format": "wav", "voice": {"a": 2**64}}}, "audio.voice", "integer above maximum value"),
    ({"response_format": answer_format({"maximum": 10**30}, strict=False)}, SCHEMA, "integer above maximum value"),
    (
        {"messages": [{"role": "assistant", "audio": {"id": 10**30}}]},
        "messages[0].audio",
        "integer above maximum value",
    ),
    # turns
    (
        {"messages": [{"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}] * 2}]},
        "messages[0].content",
        "a part of type 'refusal' must be the only one.",
    ),
    (
        {
            "messages": [
                {"role": "assistant", "content": [{"type": "text", "text": "a"}, {"type": "refusal", "refusal": "no"}]}
            ]
        },
        "messages[0].content",
        "a part of type 'refusal' must be the only one.",
    ),
    # tokens
    ({"logit_bias": {"1": 1, "abc": 1}}, "logit_bias.abc", "a string that matches the pattern '^[0-9]+$'."),
    ({"logit_bias": {"": 1}}, "logit_bias.", "a string that matches the pattern '^[0-9]+$'."),
    ({"logit_bias": {"-1": 1}}, "logit_bias.-1", "a string that matches the pattern '^[0-9]+$'."),
    ({"logit_bias": {"²": 1}}, "logit_bias.²", "a string that matches the pattern '^[0-9]+$'."),
    # metadata
    (
        {"metadata": {str(number): "" for number in range(17)}},
        "metadata",
        "Invalid 'metadata': too many properties. "
        "Expected an object with at most 16 properties, but got an object with 17 properties instead.",
    ),
    (
        {"metadata": {"k" * 65: ""}},
        "metadata." + "k" * 65,
        "Invalid property name in 'metadata': 'kkk...kkk' is too long. "
        "Expected a string with maximum length 64, but got a string with length 65 instead.",
    ),
    (
        {"metadata": {"k": "v" * 600}},
        "metadata.k",
        "Invalid 'metadata.k': string too long. "
        "Expected a string with maximum length 512, but got a string with length 600 instead.",
    ),
]


@pytest.mark.parametrize(("fields", "param", "sentence"), REFUSED)
def test_a_rule_between_fields_is_told_in_openais_words(fields: dict[str, Any], param: str, sentence: str) -> None:
    error = refused(**fields)
    assert (error.param, error.code, sentence in error.message) == (param, "bad_request", True), error.message


@pytest.mark.parametrize(
    "message",
    [
        {"role": "user", "content": "Answer in JSON."},
        {"role": "system", "content": [{"type": "text", "text": "as Json"}]},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "no json"}]},
    ],
)
def test_json_mode_wants_the_word_in_any_message_and_case(message: dict[str, Any]) -> None:
    assert parse(response_format={"type": "json_object"}, messages=[USER, message]).response_format is not None


# --- the input's ceiling ---------------------------------------------------------------------------------------


def test_the_ceiling_counts_bytes_not_characters_and_leaves_media_out() -> None:
    frame = requests.MESSAGE_FRAME_BYTES
    assert requests.text_bytes(parse(messages=[{"role": "user", "content": "中文"}])) == 6 + frame
    image = {"role": "user", "content": [{"type": "image_url", "image_url": IMAGE}, {"type": "text", "text": "what?"}]}
    assert requests.text_bytes(parse(messages=[image])) == 5 + frame
    talk = [calling("id"), answering("id"), {"role": "assistant", "content": "x", "name": "nn", "reasoning": "rrr"}]
    assert requests.text_bytes(parse(messages=talk)) == 3 * frame + (2 + 1 + 2) + (2 + 2) + (1 + 2 + 3)
    custom = {
        "role": "assistant",
        "tool_calls": [{"id": "id", "type": "custom", "custom": {"name": "c", "input": "i"}}],
    }
    assert requests.text_bytes(parse(messages=[custom, answering("id")])) == 2 * frame + 4 + 4
    tools = {"tools": [FUNCTION], "response_format": answer_format({}, strict=False)}
    assert requests.text_bytes(parse(**tools)) > 2 + frame + len(json.dumps(FUNCTION, separators=(",", ":")))


@given(
    st.lists(st.builds(dict, role=st.sampled_from(["user", "system"]), content=st.text()), min_size=1), st.booleans()
)
def test_the_body_is_never_shorter_than_the_ceiling(messages: list[dict[str, Any]], ascii_only: bool) -> None:
    fields = {"model": "m", "messages": messages, "tools": [FUNCTION]}
    body = json.dumps(fields, ensure_ascii=ascii_only, separators=(",", ":")).encode()
    assert requests.text_bytes(requests.parse_chat(body)) <= len(body)


# --- any bytes at all ------------------------------------------------------------------------------------------

RICH: dict[str, Any] = {
    "model": "m",
    "messages": [
        {"role": "system", "content": "Answer in JSON."},
        {
            "role": "user",
            "content": [{"type": "text", "text": "x"}, {"type": "image_url", "image_url": {"url": IMAGE}}],
        },
        calling("a", "b"),
        answering("a"),
        answering("b"),
        CALL,
        ANSWER,
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}], "audio": {"id": "x"}},
    ],
    "tools": [strict_function(strict_schema())["tools"][0], CUSTOM],
    "tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [FUNCTION]}},
    "response_format": answer_format(strict_schema()),
    "stream": True,
    "stream_options": {"include_usage": True},
    "stop": ["a"],
    "metadata": {"a": "b"},
    "logit_bias": {"1": 2},
    "temperature": 0.5,
    "prediction": {"type": "content", "content": "x"},
    "audio": {"voice": "v", "format": "wav"},
    "modalities": ["text"],
    "web_search_options": {"a": [1, {"b": None}]},
}

WORDS = st.sampled_from(
    ["", "auto", "any", "function", "custom", "tool", "user", "text", "object", "json_object", "f", "a", "type", "role"]
)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(2**80), 2**80)
    | st.floats(allow_nan=True)
    | st.text()
    | WORDS
)
ANYTHING = st.recursive(
    SCALARS,
    lambda below: st.lists(below, max_size=3) | st.dictionaries(st.text() | WORDS, below, max_size=3),
    max_leaves=8,
)


def passes_or_is_refused(body: bytes) -> BadRequest | None:
    """The one property of the front door; what passes must also be encodable and measurable."""
    outcomes = [outcome(body, strict_parameters=strict) for strict in (False, True)]
    for passed in outcomes:
        if isinstance(passed, BadRequest):
            assert passed.message
            assert msgspec.json.decode(passed.body())["error"]["code"] == "bad_request"
        else:
            msgspec.json.decode(msgspec.json.encode(passed))
            assert requests.text_bytes(passed) > 0
    return next((passed for passed in outcomes if isinstance(passed, BadRequest)), None)


def outcome(body: bytes, *, strict_parameters: bool) -> openai.ChatRequest | BadRequest:
    try:
        return requests.parse_chat(body, strict_parameters=strict_parameters)
    except BadRequest as refusal:
        return refusal


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) inside `value`."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    return [place for key in keys for place in ((value, key), *places(value[key]))]


def test_the_rich_body_is_good() -> None:
    assert passes_or_is_refused(json.dumps(RICH).encode()) is None


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_a_mutated_body_passes_or_is_refused_with_a_reason(data: st.DataObject) -> None:
    body = json.loads(json.dumps(RICH))
    for _ in range(data.draw(st.integers(1, 3))):
        container, key = data.draw(st.sampled_from(places(body)))
        match data.draw(st.sampled_from(["replace", "remove", "insert"])):
            case "replace":
                container[key] = data.draw(ANYTHING)
            case "remove":
                del container[key]
            case "insert" if isinstance(container, dict):
                container[data.draw(st.text() | WORDS)] = data.draw(ANYTHING)
            case "insert":
                container.insert(key, data.draw(ANYTHING))
        if not places(body):
            break
    refusal = passes_or_is_refused(json.dumps(body).encode("utf-8", "surrogatepass"))
    # No key is given twice here, so the walk of `refusals` must find what the typed decoder saw.
    assert refusal is None or "more than once" not in refusal.message


@settings(max_examples=200, deadline=None)
@given(ANYTHING)
def test_any_json_passes_or_is_refused(value: Any) -> None:
    passes_or_is_refused(json.dumps(value).encode("utf-8", "surrogatepass"))


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_damaged_bytes_pass_or_are_refused(data: st.DataObject) -> None:
    body = bytearray(json.dumps(RICH).encode())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(body) - 1))
        body[at : at + data.draw(st.integers(0, 20))] = data.draw(st.binary(max_size=6))
    passes_or_is_refused(bytes(body))


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=40))
@example(b'{"model":"\\ud83d","messages":[{"role":"user"}]}')
@example(b'{"\xff":1,"model":"m","messages":[{"role":"user"}]}')
@example(b'{"model":"m","messages":[{"role":"user"}],"metadata":{"\xff":""}}')
@example(b'{"model":"m","messages":[{"role":"user"}],"x":' + b"9" * 9_999 + b"}")
@example(b'{"model":"m","messages":[{"role":"user"}],"moderation":{"x":' + b"9" * 9_999 + b"}}")
@example(b'{"model":"m","messages":[{"role":"user"}],"moderation":{"x":' + b"9" * 4_000 + b"}}")
@example(b'{"model":"m","messages":[{"role":"user"}],"moderation":' + b'{"a":' * 500 + b"1" + b"}" * 501)
@example(b'{"model":"m","messages":[{"role":"user"}],"moderation":{"x":1e-99999,"y":-0}}')
def test_any_bytes_pass_or_are_refused(body: bytes) -> None:
    passes_or_is_refused(body)

"""What a caller is told about a faulty field: a table over the contract, through the front door `parse_chat`."""

from typing import Any

import msgspec
import pytest

from vipcloud.dialects import openai, refusals, requests
from vipcloud.errors import BadRequest

USER = {"role": "user", "content": "hi"}
FUNCTION = {"type": "function", "function": {"name": "f"}}
LONG = "k" * 600


def refusal(body: bytes, **options: bool) -> BadRequest:
    with pytest.raises(BadRequest) as caught:
        requests.parse_chat(body, **options)
    assert caught.value.code == "bad_request"
    assert msgspec.json.decode(caught.value.body())["error"]["param"] == caught.value.param
    return caught.value


def refused_field(**fields: Any) -> BadRequest:
    return refusal(msgspec.json.encode({"model": "m", "messages": [USER], **fields}))


def refused_message(*messages: Any) -> BadRequest:
    return refused_field(messages=list(messages))


TOP_LEVEL: list[tuple[dict[str, Any], str, str]] = [
    # the fields that must be there
    ({"model": 3}, "model", "Invalid type for 'model': expected a string, but got an integer instead."),
    ({"messages": None}, "messages", "expected an array of objects, but got null instead."),
    ({"messages": "hi"}, "messages", "expected an array of objects, but got a string instead."),
    (
        {"messages": []},
        "messages",
        "Invalid 'messages': empty array. Expected an array with minimum length 1, but got an empty array instead.",
    ),
    # sampling
    ({"temperature": "x"}, "temperature", "expected a decimal, but got a string instead."),
    ({"temperature": True}, "temperature", "expected a decimal, but got a boolean instead."),
    (
        {"temperature": 200},
        "temperature",
        "Invalid 'temperature': decimal above maximum value. Expected a value <= 2, but got 200 instead.",
    ),
    ({"temperature": 2.5}, "temperature", "decimal above maximum value. Expected a value <= 2, but got 2.5 instead."),
    ({"temperature": -0.5}, "temperature", "decimal below minimum value. Expected a value >= 0, but got -0.5 instead."),
    ({"top_p": 1.01}, "top_p", "decimal above maximum value. Expected a value <= 1, but got 1.01 instead."),
    ({"top_p": []}, "top_p", "expected a decimal, but got an array instead."),
    ({"presence_penalty": 2.5}, "presence_penalty", "Expected a value <= 2, but got 2.5"),
    ({"frequency_penalty": -2.5}, "frequency_penalty", "Expected a value >= -2, but got -2.5"),
    ({"seed": 1.5}, "seed", "expected an integer, but got a decimal number instead."),
    ({"seed": 2**63}, "seed", "Expected a value <= 9223372036854775807, but got 9223372036854775808"),
    # counts
    ({"n": 0}, "n", "Invalid 'n': integer below minimum value. Expected a value >= 1, but got 0 instead."),
    ({"n": 129}, "n", "Invalid 'n': integer above maximum value. Expected a value <= 128, but got 129 instead."),
    ({"n": 1.5}, "n", "expected an integer, but got a decimal number instead."),
    ({"n": True}, "n", "expected an integer, but got a boolean instead."),
    ({"max_tokens": 0}, "max_tokens", "integer below minimum value. Expected a value >= 1"),
    ({"max_tokens": 2**31}, "max_tokens", "integer above maximum value. Expected a value <= 2147483647"),
    ({"max_completion_tokens": 0}, "max_completion_tokens", "integer below minimum value"),
    ({"top_logprobs": 21, "logprobs": True}, "top_logprobs", "Expected a value <= 20, but got 21"),
    ({"logprobs": "yes"}, "logprobs", "expected a boolean, but got a string instead."),
    ({"logit_bias": []}, "logit_bias", "expected an object, but got an array instead."),
    ({"logit_bias": {"1": 5, "50256": 101}}, "logit_bias.50256", "Expected a value <= 100, but got 101"),
    ({"logit_bias": {"7": 0.5}}, "logit_bias.7", "expected an integer, but got a decimal number instead."),
    # strings and enumerations
    ({"stop": 3}, "stop", "expected one of a string or array of strings, but got an integer instead."),
    ({"stop": ["a", 1]}, "stop[1]", "expected a string, but got an integer instead."),
    (
        {"stop": ["a"] * 5},
        "stop",
        "Invalid 'stop': array too long. "
        "Expected an array with maximum length 4, but got an array with length 5 instead.",
    ),
    ({"stream": "true"}, "stream", "expected a boolean, but got a string instead."),
    ({"stream": True, "stream_options": 1}, "stream_options", "expected an object, but got an integer instead."),
    (
        {"stream": True, "stream_options": {"include_usage": 1}},
        "stream_options.include_usage",
        "expected a boolean, but got an integer instead.",
    ),
    ({"user": 5}, "user", "expected a string, but got an integer instead."),
    (
        {"safety_identifier": "k" * 129},
        "safety_identifier",
        "string too long. Expected a string with maximum length 128, but got a string with length 129 instead.",
    ),
    ({"prompt_cache_key": 5}, "prompt_cache_key", "expected a string"),
    (
        {"prompt_cache_retention": "1h"},
        "prompt_cache_retention",
        "Invalid value: '1h'. Supported values are: 'in_memory' and '24h'.",
    ),
    (
        {"reasoning_effort": "huge"},
        "reasoning_effort",
        "Invalid value: 'huge'. Supported values are: 'none', 'minimal', 'low', 'medium', 'high', 'xhigh', and 'max'.",
    ),
    ({"reasoning_effort": 3}, "reasoning_effort", "expected one of 'none', 'minimal', 'low',"),
    ({"verbosity": "loud"}, "verbosity", "Supported values are: 'low', 'medium', and 'high'."),
    (
        {"service_tier": "vip"},
        "service_tier",
        "Supported values are: 'auto', 'default', 'flex', 'scale', 'priority', and 'fast'.",
    ),
    ({"modalities": ["smell"]}, "modalities[0]", "Supported values are: 'text' and 'audio'."),
    ({"modalities": "text"}, "modalities", "expected an array of strings, but got a string instead."),
    ({"store": "no"}, "store", "expected a boolean"),
    # objects
    ({"metadata": {"a": 1}}, "metadata.a", "expected a string, but got an integer instead."),
    ({"metadata": []}, "metadata", "expected an object, but got an array instead."),
    ({"audio": {"voice": "v"}}, "audio.format", "Missing required parameter: 'audio.format'."),
    ({"audio": {"voice": 3, "format": "wav"}}, "audio.voice", "expected one of a string or object, but got an integer"),
    ({"prediction": {"type": "guess", "content": ""}}, "prediction.type", "Supported values are: 'content'."),
    ({"prediction": {"type": "content"}}, "prediction.content", "Missing required parameter"),
    ({"web_search_options": "x"}, "web_search_options", "expected an object, but got a string instead."),
    ({"prompt_cache_options": 1}, "prompt_cache_options", "expected an object"),
    ({"moderation": 1}, "moderation", "expected an object"),
    ({"moderation": {}}, "moderation.model", "Missing required parameter: 'moderation.model'."),
    (
        {"moderation": {"model": "m", "policy": {"input": {"mode": "x"}}}},
        "moderation.policy.input.mode",
        "Invalid value: 'x'. Supported values are: 'block' and 'score'.",
    ),
    (
        {"moderation": {"model": "m", "policy": {"output": {"mode": 1}}}},
        "moderation.policy.output.mode",
        "expected one of 'block' or 'score', but got an integer instead.",
    ),
    (
        {"prompt_cache_options": {"mode": "x"}},
        "prompt_cache_options.mode",
        "Invalid value: 'x'. Supported values are: 'explicit' and 'implicit'.",
    ),
    (
        {"prompt_cache_options": {"bogus": 1}},
        "prompt_cache_options.bogus",
        "Unknown parameter: 'prompt_cache_options.bogus'.",
    ),
    ({"prompt_cache_options": {"ttl": 30}}, "prompt_cache_options.ttl", "expected a string, but got an integer"),
    (
        {"web_search_options": {"search_context_size": "huge"}},
        "web_search_options.search_context_size",
        "Invalid value: 'huge'. Supported values are: 'low', 'medium', and 'high'.",
    ),
    (
        {"web_search_options": {"user_location": {"type": "exact", "approximate": {}}}},
        "web_search_options.user_location.type",
        "Invalid value: 'exact'. Supported values are: 'approximate'.",
    ),
    (
        {"web_search_options": {"user_location": {"type": "approximate", "approximate": {"city": 1}}}},
        "web_search_options.user_location.approximate.city",
        "expected a string, but got an integer",
    ),
    (
        {"thinking": {"type": "bogus"}},
        "thinking.type",
        "Invalid value: 'bogus'. Supported values are: 'auto', 'adaptive', 'disabled', and 'enabled'.",
    ),
    (
        {"stop": []},
        "stop",
        "Invalid 'stop': empty array. Expected an array with minimum length 1, but got an empty array instead.",
    ),
    (
        {"tools": [{"type": "custom", "custom": {"name": "c", "format": {"type": "bogus"}}}]},
        "tools[0].custom.format.type",
        "Invalid value: 'bogus'. Supported values are: 'text' and 'grammar'.",
    ),
    (
        {"tools": [{"type": "custom", "custom": {"name": "c", "format": {"type": "grammar", "grammar": {}}}}]},
        "tools[0].custom.format.grammar.syntax",
        "Missing required parameter",
    ),
    # tools
    ({"tools": {}}, "tools", "expected an array of objects, but got an object instead."),
    ({"tools": [3]}, "tools[0]", "expected an object, but got an integer instead."),
    ({"tools": [{}]}, "tools[0].type", "Missing required parameter: 'tools[0].type'."),
    ({"tools": [{"type": "x"}]}, "tools[0].type", "Invalid value: 'x'. Supported values are: 'function' and 'custom'."),
    ({"tools": [{"type": "function"}]}, "tools[0].function", "Missing required parameter: 'tools[0].function'."),
    ({"tools": [{"type": "function", "function": {}}]}, "tools[0].function.name", "Missing required parameter"),
    ({"tools": [{"type": "custom"}]}, "tools[0].custom", "Missing required parameter"),
    (
        {"tools": [FUNCTION] * 132},
        "tools",
        "Expected an array with maximum length 128, but got an array with length 132 instead.",
    ),
    (
        {"tools": [{"type": "function", "function": {"name": "a b"}}]},
        "tools[0].function.name",
        "string does not match pattern. Expected a string that matches the pattern '^[a-zA-Z0-9_-]+$'.",
    ),
    (
        {"tools": [{"type": "function", "function": {"name": "f\n"}}]},
        "tools[0].function.name",
        "does not match pattern",
    ),
    ({"tools": [{"type": "custom", "custom": {"name": "f\n"}}]}, "tools[0].custom.name", "does not match pattern"),
    ({"tools": [{"type": "function", "function": {"name": ""}}]}, "tools[0].function.name", "empty string"),
    (
        {"tools": [{"type": "function", "function": {"name": "f" * 65}}]},
        "tools[0].function.name",
        "Expected a string with maximum length 64, but got a string with length 65 instead.",
    ),
    (
        {"tools": [{"type": "function", "function": {"name": "f", "parameters": "{}"}}]},
        "tools[0].function.parameters",
        "expected an object, but got a string instead.",
    ),
    (
        {"tools": [FUNCTION], "tool_choice": "always"},
        "tool_choice",
        "Invalid value: 'always'. Supported values are: 'none', 'auto', and 'required'.",
    ),
    (
        {"tools": [FUNCTION], "tool_choice": 7},
        "tool_choice",
        "expected one of 'none', 'auto', 'required', or object, but got an integer instead.",
    ),
    ({"tools": [FUNCTION], "tool_choice": {}}, "tool_choice.function", "Missing required parameter"),
    ({"tools": [FUNCTION], "tool_choice": {"type": "x"}}, "tool_choice.function", "Missing required parameter"),
    ({"tools": [FUNCTION], "tool_choice": {"type": "function"}}, "tool_choice.function", "Missing required parameter"),
    ({"tools": [FUNCTION], "tool_choice": {"type": "custom"}}, "tool_choice.custom", "Missing required parameter"),
    (
        {"tools": [FUNCTION], "tool_choice": {"type": "x", "function": {"name": "f"}}},
        "tool_choice.type",
        "Supported values are: 'function', 'custom', and 'allowed_tools'.",
    ),
    ({"tools": [FUNCTION], "parallel_tool_calls": 1}, "parallel_tool_calls", "expected a boolean"),
    ({"functions": []}, "functions", "empty array"),
    ({"functions": [{}]}, "functions[0].name", "Missing required parameter"),
    ({"functions": [{"name": "f"}], "function_call": {}}, "function_call.name", "Missing required parameter"),
    ({"functions": [{"name": "f"}], "function_call": "x"}, "function_call", "Supported values are: 'none' and 'auto'."),
    # the answer's form
    ({"response_format": "text"}, "response_format", "expected an object, but got a string instead."),
    ({"response_format": {}}, "response_format.type", "Missing required parameter"),
    (
        {"response_format": {"type": "xml"}},
        "response_format.type",
        "Supported values are: 'text', 'json_object', and 'json_schema'.",
    ),
    ({"response_format": {"type": "json_schema"}}, "response_format.json_schema", "Missing required parameter"),
    (
        {"response_format": {"type": "json_schema", "json_schema": {}}},
        "response_format.json_schema.name",
        "Missing required parameter: 'response_format.json_schema.name'.",
    ),
    (
        {"response_format": {"type": "json_schema", "json_schema": {"name": "a b"}}},
        "response_format.json_schema.name",
        "string does not match pattern",
    ),
]


@pytest.mark.parametrize(("fields", "param", "sentence"), TOP_LEVEL)
def test_a_faulty_field_is_named_in_openais_words(fields: dict[str, Any], param: str, sentence: str) -> None:
    error = refused_field(**fields)
    assert (error.param, sentence in error.message) == (param, True), error.message


def call(**fields: Any) -> dict[str, Any]:
    return {"role": "assistant", "tool_calls": [{"id": "a", "type": "function", **fields}]}


MESSAGE: list[tuple[Any, str, str]] = [
    (3, "", "expected an object, but got an integer instead."),
    (None, "", "expected an object, but got null instead."),
    ({}, ".role", "Missing required parameter: 'messages[1].role'."),
    (
        {"role": "boss", "content": ""},
        ".role",
        "Invalid value: 'boss'. Supported values are: "
        "'system', 'assistant', 'user', 'function', 'tool', and 'developer'.",
    ),
    (
        {"role": 3},
        ".role",
        "expected one of 'system', 'assistant', 'user', 'function', 'tool', or 'developer', but got",
    ),
    ({"role": "system"}, ".content", "Missing required parameter: 'messages[1].content'."),
    ({"role": "system", "content": None}, ".content", "expected one of a string or array of objects, but got null"),
    ({"role": "developer"}, ".content", "Missing required parameter"),
    ({"role": "user", "content": 3}, ".content", "expected one of a string or array of objects, but got an integer"),
    ({"role": "user", "content": []}, ".content", "empty array. Expected an array with minimum length 1"),
    ({"role": "user", "content": "", "name": 5}, ".name", "expected a string"),
    ({"role": "user", "content": ["hi"]}, ".content[0]", "expected an object, but got a string instead."),
    (
        {"role": "user", "content": [{}]},
        ".content[0].type",
        "Missing required parameter: 'messages[1].content[0].type'.",
    ),
    (
        {"role": "user", "content": [{"type": "video"}]},
        ".content[0].type",
        "Invalid value: 'video'. Supported values are: 'text', 'image_url', 'input_audio', and 'file'.",
    ),
    ({"role": "user", "content": [{"type": 1}]}, ".content[0].type", "expected one of 'text', 'image_url', "),
    ({"role": "system", "content": [{"type": "file"}]}, ".content[0].type", "Supported values are: 'text'."),
    ({"role": "user", "content": [{"type": "text"}]}, ".content[0].text", "Missing required parameter"),
    ({"role": "user", "content": [{"type": "image_url"}]}, ".content[0].image_url", "Missing required parameter"),
    (
        {"role": "user", "content": [{"type": "image_url", "image_url": 3}]},
        ".content[0].image_url",
        "but got an integer instead.",
    ),
    (
        {"role": "user", "content": [{"type": "image_url", "image_url": {}}]},
        ".content[0].image_url.url",
        "Missing required parameter",
    ),
    (
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:", "detail": "4k"}}]},
        ".content[0].image_url.detail",
        "Supported values are: 'auto', 'low', 'high', and 'original'.",
    ),
    (
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}]},
        ".content[0].image_url.url",
        "Expected a valid URL, but got a value with an invalid format.",
    ),
    ({"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}, ".content[0].image_url", "a valid URL"),
    (
        {"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "", "format": "ogg"}}]},
        ".content[0].input_audio.format",
        "Supported values are: 'wav' and 'mp3'.",
    ),
    ({"role": "tool", "content": "x"}, ".tool_call_id", "Missing required parameter: 'messages[1].tool_call_id'."),
    ({"role": "tool", "tool_call_id": "x"}, ".content", "Missing required parameter"),
    ({"role": "function", "content": "x"}, ".name", "Missing required parameter"),
    (call(), ".tool_calls[0].function", "Missing required parameter: 'messages[1].tool_calls[0].function'."),
    (call(type="custom"), ".tool_calls[0].custom", "Missing required parameter"),
    (call(type="x"), ".tool_calls[0].type", "Supported values are: 'function' and 'custom'."),
    (call(id=None), ".tool_calls[0].id", "expected a string, but got null instead."),
    (
        call(function={"name": "f", "arguments": {}}),
        ".tool_calls[0].function.arguments",
        "expected a string, but got an object instead.",
    ),
]


@pytest.mark.parametrize(("message", "path", "sentence"), MESSAGE)
def test_a_faulty_message_is_named_by_its_index(message: Any, path: str, sentence: str) -> None:
    error = refused_message(USER, message)
    assert (error.param, sentence in error.message) == (f"messages[1]{path}", True), error.message


@pytest.mark.parametrize("body", [b"{}", b'{"model":null}', b'{"model":"","messages":[]}', b'{"messages":3,"n":0}'])
def test_the_model_is_asked_for_first(body: bytes) -> None:
    error = refusal(body)
    assert (error.message, error.param) == ("you must provide a model parameter", "model")


def test_messages_are_asked_for_before_anything_else_is_checked() -> None:
    error = refusal(b'{"n":0,"model":"m"}')
    assert (error.message, error.param) == ("Missing required parameter: 'messages'.", "messages")


def test_of_several_faults_the_first_in_openais_order_is_told() -> None:
    assert refused_field(stop=1, temperature="x", n=0).param == "n"
    assert refused_message(USER, {"role": "user", "content": 1}, {}).param == "messages[1].content"


WHOLE_BODY: list[tuple[bytes, str]] = [
    (b"", "the body is empty"),
    (b" \n", "the body is empty"),
    (b"{", "truncated"),
    (b"hello", "invalid character"),
    (b"{'model': 'm'}", "byte 1"),
    (b"\xef\xbb\xbf{}", "byte order mark"),
    (b"\xff\xfe{\x00}\x00", "invalid"),
    (b"[]", "one JSON object, but an array was sent"),
    (b"null", "one JSON object, but null was sent"),
    (b"1.5", "one JSON object, but a decimal number was sent"),
    (b'{"model":"\xff","messages":[{"role":"user"}]}', "not valid UTF-8"),
    (b'{"model":"m","messages":[{"role":"user","content":"\xc3"}]}', "not valid UTF-8"),
    (b'{"model":"m","messages":[{"role":"user","content":"\\ud800"}]}', "(HINT: "),
    (b'{"model":"m","messages":[{"role":"user","content":"\\udc00\\ud800 "}]}', "(HINT: "),
    (b'{"model":"m","messages":[{"role":"user"}],"temperature":NaN}', "(HINT: "),
    (b'{"model":"m","messages":[{"role":"user"}],"temperature":-Infinity}', "(HINT: "),
    (b'{"model":"m","messages":[{"role":"user"}]} x', "trailing characters"),
    (b'{"model":"m","messages":3,"n":}', "(HINT: "),
]


@pytest.mark.parametrize(("body", "hint"), WHOLE_BODY)
def test_a_body_that_is_not_a_json_object_has_no_param(body: bytes, hint: str) -> None:
    error = refusal(body)
    assert error.param is None
    assert error.message.startswith("We could not parse the JSON body of your request. (HINT: ")
    assert hint in error.message


@pytest.mark.parametrize("opening", [b"[", b'{"a":'])
@pytest.mark.parametrize("field", [b"vendor", b"web_search_options", b"messages"])
def test_a_bottomless_body_is_refused(opening: bytes, field: bytes) -> None:
    refusal(b'{"model":"m","messages":[{"role":"user"}],"' + field + b'":' + opening * 50_000)


RANGES: list[tuple[bytes, str, str]] = [
    (
        b'"temperature":1e999',
        "temperature",
        "decimal above maximum value. Expected a value <= 2, but got 1e999 instead.",
    ),
    (b'"temperature":-1e999', "temperature", "but got -1e999 instead."),
    (b'"temperature":1' + b"0" * 400, "temperature", "decimal above maximum value"),
    (b'"seed":1' + b"0" * 5_000, "seed", "Invalid 'seed': number out of range."),
    (b'"audio":{"format":"wav","voice":{"a":1e999}}', "audio.voice", "Invalid 'audio.voice': number out of range."),
    (b'"seed":-1' + b"0" * 100, "seed", "integer below minimum value"),
]


@pytest.mark.parametrize(("field", "param", "sentence"), RANGES)
def test_numbers_beyond_any_range_are_refused(field: bytes, param: str, sentence: str) -> None:
    error = refusal(b'{"model":"m","messages":[{"role":"user"}],' + field + b"}")
    assert (error.param, sentence in error.message) == (param, True), error.message


def test_a_key_given_twice_inside_a_field_with_one_faulty_value_is_refused() -> None:
    error = refusal(b'{"model":"m","messages":[{"role":"user","role":"tool","content":"","tool_call_id":""}]}')
    assert (error.param, "more than once" in error.message) == ("messages[0].role", True)


def test_strict_parameters_refuse_unknown_keys_at_the_top_and_only_there() -> None:
    good = b'{"model":"m","messages":[{"role":"user","content":"hi","cache_control":{}}]%s}'
    assert requests.parse_chat(good % b"", strict_parameters=True).model == "m"
    for body in (good % b',"top_k":5', good % b',"n":0,"top_k":5'):
        error = refusal(body, strict_parameters=True)
        assert (error.message, error.param) == ("Unknown parameter: 'top_k'.", "top_k")
    refusal(good % b',"\xff":1', strict_parameters=True)


def test_nothing_long_comes_back() -> None:
    megabyte = "x" * 1_000_000
    for error in (
        refused_field(n=megabyte),
        refused_field(verbosity=megabyte),
        refused_field(logit_bias={megabyte: 101}),
        refused_field(metadata={megabyte: "v"}),
        refused_field(tools=[FUNCTION], tool_choice={"type": "function", "function": {"name": megabyte}}),
        refused_message(call(id=megabyte, function={"name": "f"})),
        refusal(msgspec.json.encode({"model": "m", "messages": [USER], megabyte: 1}), strict_parameters=True),
    ):
        assert len(error.body()) < 1200


def test_every_field_of_the_contract_refuses_a_value_of_another_kind_by_its_name() -> None:
    contract = msgspec.inspect.type_info(openai.ChatRequest)
    assert isinstance(contract, msgspec.inspect.StructType)
    for field in contract.fields:
        if field.type != msgspec.inspect.AnyType():
            error = refused_field(**{field.name: object_that_fits_nowhere(field.name)})
            assert error.param is not None
            assert error.param.startswith(field.name), error.message
            assert "contradicting" not in error.message


def object_that_fits_nowhere(field: str) -> Any:
    """A boolean, or a number where booleans are meant."""
    booleans = {"stream", "logprobs", "parallel_tool_calls", "store", "include_reasoning"}
    return 0 if field in booleans else True


def test_each_sentence_names_its_param() -> None:
    assert refusals.only_with("a", "b").param == refusals.not_together("a", "b").param == "a"

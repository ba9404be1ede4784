"""Large bodies: refused in the words that small ones are, and neither read nor refused at everyone's expense.

What they cost is told by what is walked in Python, not by a clock.
"""

import json
from typing import Any

import msgspec
import pytest

from vipcloud.dialects import openrouter, refusals, requests
from vipcloud.errors import BadRequest

USER = {"role": "user", "content": "hi"}
LONG = "x" * refusals.WALKED_BYTES_MAX
CALL = {"id": "a", "type": "function", "function": {"name": "f"}}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"enum": [LONG]}}}
MANY = requests.VALUES_MAX


def refusal(body: bytes, **options: bool) -> BadRequest:
    with pytest.raises(BadRequest) as caught:
        requests.parse_chat(body, **options)
    return caught.value


def told(fields: dict[str, Any], **options: bool) -> tuple[str, str | None]:
    error = refusal(msgspec.json.encode(fields), **options)
    return error.message, error.param


def padded(fields: Any) -> Any:
    """The same with long texts where there are short ones, so that nothing in it is small."""
    if isinstance(fields, dict):
        return {name: padded(value) for name, value in fields.items()}
    if isinstance(fields, list):
        return [padded(value) for value in fields]
    return LONG if fields == "hi" else fields


FAULTY: list[dict[str, Any]] = [
    {"model": 3, "messages": [USER]},
    {"model": "", "messages": [USER]},
    {"model": None, "messages": [USER]},
    {"messages": [USER]},
    {"model": "m", "user": "hi"},
    {"model": "m", "messages": "hi"},
    {"model": "m", "messages": {"a": "hi"}},
    {"model": "m", "messages": None, "user": "hi"},
    {"model": "m", "messages": [], "user": "hi"},
    {"model": "m", "messages": ["hi"]},
    {"model": "m", "messages": [["hi"]]},
    {"model": "m", "messages": [USER, {"role": "usr", "content": "hi"}]},
    {"model": "m", "messages": [USER, {"content": "hi"}]},
    {"model": "m", "messages": [USER, {"role": ["hi"], "content": "hi"}]},
    {"model": "m", "messages": [USER, {"role": "tool", "content": "hi"}]},
    {"model": "m", "messages": [USER, {"role": "user", "content": {"a": "hi"}}]},
    {"model": "m", "messages": [USER, {"role": "user", "content": 5}]},
    {"model": "m", "messages": [USER, {"role": "user", "content": []}]},
    {"model": "m", "messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}, {"type": "x"}]}]},
    {"model": "m", "messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}, {"text": "hi"}]}]},
    {"model": "m", "messages": [{"role": "user", "content": [{"type": "text", "text": ["hi"]}]}]},
    {"model": "m", "messages": [{"role": "assistant", "content": "hi", "tool_calls": [{**CALL, "id": 5}]}]},
    {
        "model": "m",
        "messages": [{"role": "assistant", "tool_calls": [CALL, {**CALL, "function": {"arguments": "hi"}}]}],
    },
    {"model": "m", "messages": [USER], "temperature": 3, "n": 0},
    {"model": "m", "messages": [USER], "tools": [{"type": "function", "function": {"description": "hi"}}]},
    {"model": "m", "messages": [USER], "tools": [{"type": "function", "function": {"name": "f", "parameters": "hi"}}]},
    {"model": "m", "messages": [USER], "tools": [{"type": "function", "description": "hi"}], "tool_choice": "none"},
    {"model": "m", "messages": [USER], "tools": [TOOL] * 129},
    {"model": "m", "messages": [USER], "tool_choice": {"type": "x", "custom": "hi"}},
    {"model": "m", "messages": [USER], "stop": ["hi"] * 5},
    {"model": "m", "messages": [USER], "metadata": {"a": "hi", "b": 5}},
    {"model": "m", "messages": [USER], "metadata": {"a": ["hi"]}},
    {"model": "m", "messages": [USER], "logit_bias": {"1": "hi"}},
    {"model": "m", "messages": [USER], "logit_bias": {"1": 101}},
    {
        "model": "m",
        "messages": [USER],
        "response_format": {"type": "json_schema", "json_schema": {"schema": {"a": "hi"}}},
    },
    {"model": "m", "messages": [USER], "prediction": {"type": "hi", "content": "hi"}},
    {"model": "m", "messages": [USER], "user": ["hi"]},
    {"models": "hi", "messages": [USER]},
    {"models": [""], "messages": [USER]},
    {"models": [], "messages": [USER]},
    {"models": ["hi", 5], "messages": [USER]},
]


@pytest.mark.parametrize("fields", FAULTY)
def test_a_large_body_is_refused_in_the_words_of_a_small_one(fields: dict[str, Any]) -> None:
    message, param = told(fields)
    large = told(padded(fields))
    if "hi" in message:  # a value of the caller's, shortened
        assert large[0].startswith("Invalid value: 'xxx")
    else:
        assert large[0] == message
    assert large[1] == param


def test_in_a_large_body_too_the_first_field_in_order_is_told() -> None:
    fields = {"temperature": 3, "n": 0, "model": "m", "messages": [USER], "x": LONG}
    assert told(fields)[1] == "n"
    assert told(fields, strict_parameters=True) == ("Unknown parameter: 'x'.", "x")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"model":"m","messages":[{"role":5}],"x":"%s"', "HINT: input data was truncated"),
        (b'[{"model":"m"},"%s"]', "but an array was sent"),
        (b'"%s"', "but a string was sent"),
        (b'{"model":"m","messages":[{"role":5}],"x":"%s",}', "HINT: JSON is malformed"),
        (b'{"model":"m","messages":[{"role":"user"}],"n":[' + b"[" * 100_000 + b'"%s"', "nested too deeply"),
    ],
)
def test_a_large_body_that_is_no_json_object_is_told_as_such(body: bytes, said: str) -> None:
    error = refusal(body % LONG.encode())
    assert (said in error.message, error.param) == (True, None), error.message


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b'"messages":[' + b'{"role":"user"},' * 40_000 + b'{"role":"usr"}]', "messages[40000].role"),
        (
            b'"messages":[{"role":"user","content":[' + b'{"type":"text","text":""},' * 30_000 + b'{"type":"x"}]}]',
            "messages[0].content[30000].type",
        ),
        (
            b'"messages":[{"role":"user"}],"metadata":{'
            + b"".join(b'"%d":"",' % number for number in range(40_000))
            + b'"x":5}',
            "metadata.x",
        ),
        (b'"messages":[{"role":"user"}],"n":0,"x":[' + b"1.5," * 100_000 + b"1]", "n"),
    ],
    ids=["messages", "parts", "metadata", "floats"],
)
def test_little_is_walked_however_large_the_body_is(body: bytes, param: str, monkeypatch: pytest.MonkeyPatch) -> None:
    walked = 0
    violation = refusals._violation

    def counted(*values: Any) -> BadRequest | None:
        nonlocal walked
        walked += 1
        return violation(*values)

    monkeypatch.setattr(refusals, "_violation", counted)
    assert refusal(b'{"model":"m",' + body + b"}").param == param
    assert walked < 20


def test_a_large_body_of_another_route_is_not_walked() -> None:
    body = b'{"name":"a","x":[' + b"1.5," * 100_000 + b"1]}"
    error = refusals.explain_small(openrouter.NewKey, body, ValueError())
    assert (error.param, "at most 65536 are looked at" in error.message) == (None, True)


# --- how many values a body may have -------------------------------------------------------------------------------


def with_extra(extra: bytes) -> bytes:
    padding = b'"' + b"x" * requests.COUNTED_BYTES_MIN + b'"'
    return b'{"model":"m","messages":[{"role":"user","content":%s}],"x":%s}' % (padding, extra)


@pytest.mark.parametrize(
    "extra",
    [
        b"[" + b"1," * MANY + b"1]",
        b"[" + b"[]," * MANY + b"1]",
        b"[" + b'"",' * MANY + b'""]',
        b"{" + b'"":1,' * MANY + b'"":1}',
    ],
    ids=["numbers", "arrays", "strings", "names"],
)
def test_a_body_of_too_many_values_is_refused_before_it_is_decoded(
    extra: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requests, "_decode_plain", None)
    monkeypatch.setattr(requests, "_decode", None)
    error = refusal(with_extra(extra))
    assert (error.param, "Expected at most 200000 values" in error.message) == (None, True)


def test_a_body_with_escapes_is_counted_once_it_is_known_not_to_be_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    extra = b"[" + b'"\\\\","\\"",' * MANY + b"1]"
    assert requests.parse_chat(with_extra(extra))
    monkeypatch.setattr(requests, "_decode", None)
    error = refusal(with_extra(extra + b',"stop":"a"'))
    assert "Expected at most 200000 values" in error.message
    assert "Expected at most 200000 values" in refusal(with_extra(extra), strict_parameters=True).message


@pytest.mark.parametrize("name", [b'"role"', b'"r\\u006fle"', b'"\\u0072ole"'])
def test_many_messages_are_counted_before_they_are_decoded(name: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    message = b'{%s:"user","content":"\\n"},' % name
    start, end = b'{"model":"m","messages":[', b'{"role":"user","content":""}]}'
    assert len(requests.parse_chat(start + message * 20_000 + end).messages) == 20_001
    body = start + message * 50_001 + end
    monkeypatch.setattr(requests, "_decode_plain", None)
    monkeypatch.setattr(requests, "_decode", None)
    assert "Expected at most 200000 values" in refusal(body).message


def test_texts_with_escapes_are_not_counted_around(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "_check_values", None)
    text = '"[1, 2], {}"\n' * 100_000
    [message] = requests.parse_chat(
        msgspec.json.encode({"model": "m", "messages": [USER | {"content": text}]})
    ).messages
    assert message.content == text


@pytest.mark.parametrize(
    "text",
    ["[1, 2, 3], {}" * 100_000, '"a", ' * 300_000, "\\" * 500_000, '\\"' * 500_000, "é, " * 400_000],
    ids=["brackets", "quotes", "backslashes", "both", "not ASCII"],
)
def test_what_a_text_says_does_not_count(text: str) -> None:
    body = msgspec.json.encode({"model": "m", "messages": [{"role": "user", "content": text}]})
    [message] = requests.parse_chat(body).messages
    assert message.content == text


def test_as_many_values_as_allowed_are_taken() -> None:
    assert requests.parse_chat(with_extra(b"[" + b"1," * (MANY - 10) + b"1]"))
    assert requests.parse_chat(with_extra(b"[" + b'"",' * (MANY - 20) + b'""]'))


# --- JSON at its edges ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fields", ["", ',"n":2'], ids=["plain", "not plain"])
@pytest.mark.parametrize("unknown", [b'"x":"\xff"', b'"\xff":1', b'"x":{"y":"\xc3("}', b'"x":"\xed\xa0\x80"'])
def test_what_is_passed_over_must_be_text_too(fields: str, unknown: bytes) -> None:
    body = b'{"model":"m","messages":[{"role":"user","content":"hi"}]' + fields.encode() + b"," + unknown + b"}"
    error = refusal(body)
    assert (error.param, "not valid UTF-8" in error.message) == (None, True)


def test_a_list_of_models_is_found_however_its_name_is_written() -> None:
    body = b'{"mod\\u0065ls":["a","b"],"messages":[{"role":"user","content":"hi"}]}'
    request = requests.parse_chat(body)
    assert (request.model, request.models) == ("a", ["b"])
    assert json.loads(body)["models"] == ["a", "b"]


@pytest.mark.parametrize(
    ("models", "param"),
    [
        ("x", "models"),
        ([""], "models[0]"),
        (["a", 5], "models[1]"),
        ([], "model"),
        (None, "model"),
        (["a"] * 10, "models"),
    ],
)
def test_a_faulty_list_of_models_is_told_as_such(models: Any, param: str) -> None:
    assert told({"models": models, "messages": [USER]})[1] == param

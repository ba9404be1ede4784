"""Whole answers of upstreams, in our terms."""

import json
from dataclasses import dataclass
from typing import Any

import pytest

from vipcloud.dialects.replies import Logprobs, Reply, TokenLogprob, TopLogprob, encode_reply
from vipcloud.errors import ContentFiltered, ContextLengthExceeded, GatewayError, UpstreamFailed
from vipcloud.providers import reply, usage
from vipcloud.providers.reply_shapes import ReplyShapes


@dataclass
class Fault:
    """What a provider's rules would make of `said`: a code with "sensitive" in it is moderation."""

    said: dict[str, Any]
    retryable: bool = True
    ends_answer: bool = False

    def error(self) -> GatewayError:
        text = json.dumps(self.said)
        return ContentFiltered(text) if "sensitive" in text else UpstreamFailed(text)


def read(body: bytes | dict[str, Any], stops: tuple[str, ...] = (), legacy_functions: bool = False) -> Reply:
    """What it is read as; if it is read as a text, too, that must be the same answer."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = reply.read_reply(
        data,
        id="chatcmpl-ours",
        model="vip",
        created=1_795_000_000,
        classify=Fault,
        stops=stops,
        legacy_functions=legacy_functions,
    )
    shapes = ReplyShapes()
    texts = [reply.read_text(data, "chatcmpl-ours", b'"vip"', 1_795_000_000, shapes) for _ in range(0 if stops else 2)]
    for place, text in enumerate(texts):
        if text is not None:
            assert text.whole() == answer
            assert json.loads(text.encode()) == json.loads(encode_reply(answer))
            assert place or text.encode() == encode_reply(answer), "it was decoded"
    return answer


def read_as_any(body: dict[str, Any]) -> Reply:
    """As `read`, by the reading for what is more than text: an `error` that says nothing leads there."""
    return read({**body, "error": ""})


def message(finish_reason: str | None = "stop", **fields: Any) -> dict[str, Any]:
    """A body whose one choice has a message of `fields`."""
    return {"choices": [{"index": 0, "message": {"role": "assistant", **fields}, "finish_reason": finish_reason}]}


def call(arguments: Any, **fields: Any) -> dict[str, Any]:
    return {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": arguments}, **fields}


DEEPSEEK = (
    b'{"id":"00f10ecd-60b3-4707-b5db-e4bcadf7aea1","object":"chat.completion","created":1794700000,'
    b'"model":"deepseek-flash","choices":[{"index":0,"message":{"role":"assistant","content":"Hello there."},'
    b'"logprobs":null,"finish_reason":"stop"}],"usage":{"prompt_tokens":13,"completion_tokens":4,"total_tokens":17,'
    b'"prompt_tokens_details":{"cached_tokens":0},"prompt_cache_hit_tokens":5,"prompt_cache_miss_tokens":8},'
    b'"system_fingerprint":"fp_eaab8d114b_prod0820_fp8_kvcache"}'
)
ZHIPU = (
    b'{"choices":[{"finish_reason":"stop","index":0,"message":{"content":"Hello there.","role":"assistant"}}],'
    b'"created":1794700000,"id":"20261115101010df703dd30a854c37","model":"glm-4-flash-250414",'
    b'"object":"chat.completion","request_id":"2026","usage":{"completion_tokens":4,"prompt_tokens":13,'
    b'"prompt_tokens_details":{"cached_tokens":5},"total_tokens":17}}'
)
MOONSHOT = (
    b'{"id":"chatcmpl-6a","object":"chat.completion","created":1794700000,"model":"kimi-k2.6","choices":[{"index":0,'
    b'"message":{"role":"assistant","content":"Hello there.","reasoning_content":""},"finish_reason":"stop"}],'
    b'"usage":{"prompt_tokens":13,"completion_tokens":4,"total_tokens":17,"cached_tokens":5},'
    b'"system_fingerprint":"fpv0_5de57c9a"}'
)
MINIMAX = (
    b'{"id":"0609843b","choices":[{"finish_reason":"stop","index":0,"message":{"content":"Hello there.",'
    b'"role":"assistant","name":"MiniMax AI","audio_content":"","reasoning_details":[]}}],'
    b'"usage":{"total_tokens":17,"total_characters":0,"prompt_tokens":13,"completion_tokens":4,'
    b'"prompt_tokens_details":{"cached_tokens":5}},"input_sensitive":false,'
    b'"base_resp":{"status_code":0,"status_msg":"a warning"}}'
)


@pytest.mark.parametrize("body", [DEEPSEEK, ZHIPU, MOONSHOT, MINIMAX], ids=["deepseek", "zhipu", "moonshot", "minimax"])
@pytest.mark.parametrize("padding", [b"", b"\n\n", b"data: ", b"\r\n data:"])
def test_every_provider_says_hello_in_the_same_words(body: bytes, padding: bytes) -> None:
    assert json.loads(encode_reply(read(padding + body))) == {
        "id": "chatcmpl-ours",
        "object": "chat.completion",
        "created": 1_795_000_000,
        "model": "vip",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Hello there.", "refusal": None, "annotations": []},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {
            "prompt_tokens": 13,
            "completion_tokens": 4,
            "total_tokens": 17,
            "prompt_tokens_details": {"cached_tokens": 5, "audio_tokens": 0},
            "completion_tokens_details": {
                "reasoning_tokens": 0,
                "audio_tokens": 0,
                "accepted_prediction_tokens": 0,
                "rejected_prediction_tokens": 0,
            },
        },
        "service_tier": "default",
        "system_fingerprint": None,
    }


@pytest.mark.parametrize(
    ("fields", "shown"),
    [
        ({"content": "Hi"}, {"content": "Hi"}),
        ({"content": None}, {"content": ""}),
        ({}, {"content": ""}),
        ({"content": "Hi", "reasoning_content": "Hm"}, {"content": "Hi", "reasoning_content": "Hm"}),
        ({"content": "Hi", "reasoning": "Hm"}, {"content": "Hi", "reasoning_content": "Hm"}),
        ({"content": "Hi", "reasoning_content": None}, {"content": "Hi"}),
        ({"content": None, "refusal": "No."}, {"content": None, "refusal": "No."}),
        ({"content": "", "tool_calls": [call("{}", index=0)]}, {"content": None, "tool_calls": [call("{}")]}),
        ({"content": "\n", "tool_calls": [call("{}")]}, {"content": None, "tool_calls": [call("{}")]}),
        ({"content": "So:", "tool_calls": [call("{}")]}, {"content": "So:", "tool_calls": [call("{}")]}),
        ({"tool_calls": [call("")]}, {"content": None, "tool_calls": [call("{}")]}),
        ({"tool_calls": [call(None)]}, {"content": None, "tool_calls": [call("{}")]}),
        ({"tool_calls": [call('{"a": ')]}, {"content": None, "tool_calls": [call('{"a": ')]}),
        ({"tool_calls": [call({"a": "é"})]}, {"content": None, "tool_calls": [call('{"a":"é"}')]}),
        (
            {"tool_calls": [call("{}", id=""), call("{}"), call("{}")]},
            {
                "content": None,
                "tool_calls": [call("{}", id="call_ours_0_0"), call("{}"), call("{}", id="call_ours_0_2")],
            },
        ),
        (
            {"function_call": {"name": "f", "arguments": "{}"}},
            {"content": None, "tool_calls": [call("{}", id="call_ours_0_0")]},
        ),
        ({"content": [{"type": "text", "text": "H"}, {"type": "text", "text": "i"}]}, {"content": "Hi"}),
        ({"content": "Hi", "tool_calls": []}, {"content": "Hi"}),
        ({"content": "Hi", "tool_calls": "none"}, {"content": "Hi"}),
    ],
)
def test_a_message_is_put_into_openais_form(fields: dict[str, Any], shown: dict[str, Any]) -> None:
    said = json.loads(encode_reply(read(message(**fields))))["choices"][0]["message"]
    assert said == {"role": "assistant", "refusal": None, "annotations": [], **shown}


@pytest.mark.parametrize(
    ("word", "calls", "reason"),
    [
        ("stop", False, "stop"),
        ("stop", True, "tool_calls"),
        ("tool_calls", True, "tool_calls"),
        ("tool_calls", False, "stop"),
        ("function_call", True, "tool_calls"),
        ("length", True, "length"),
        ("length", False, "length"),
        ("sensitive", False, "content_filter"),
        ("content_filter", False, "content_filter"),
        ("model_context_window_exceeded", False, "length"),
        ("eos", False, "stop"),
        ("end_turn", False, "stop"),
        ("max_tokens", False, "length"),
        ("", False, "stop"),
        (None, True, "tool_calls"),
    ],
)
def test_finish_reasons_are_openais(word: str | None, calls: bool, reason: str) -> None:
    fields = {"tool_calls": [call("{}")]} if calls else {}
    assert read(message(word, content="Hi", **fields)).choices[0].finish_reason == reason


def test_legacy_functions_get_their_call_back() -> None:
    body = read(message("tool_calls", content="", tool_calls=[call("{}"), call("{}")]), legacy_functions=True)
    choice = json.loads(encode_reply(body))["choices"][0]
    assert choice["finish_reason"] == "function_call"
    assert choice["message"]["function_call"] == {"name": "f", "arguments": "{}"}
    assert choice["message"]["content"] is None
    assert "tool_calls" not in choice["message"]


@pytest.mark.parametrize(
    ("stops", "content", "reason"),
    [
        ((), "one two three", "length"),
        (("four",), "one two three", "length"),
        (("",), "one two three", "length"),
        (("two",), "one ", "stop"),
        (("three", "two"), "one ", "stop"),
        (("one two three", "two"), "one ", "stop"),  # what ends first stops first
        (("two", " two"), "one", "stop"),
        (("one",), "", "stop"),
    ],
)
def test_stop_strings_cut_the_answer(stops: tuple[str, ...], content: str, reason: str) -> None:
    choice = read(message("length", content="one two three"), stops).choices[0]
    assert (choice.message.content, choice.finish_reason) == (content, reason)


def test_calls_after_a_stop_string_are_gone() -> None:
    choice = read(message("tool_calls", content="a. END", tool_calls=[call("{}")]), ("END",)).choices[0]
    assert (choice.message.content, choice.finish_reason) == ("a. ", "stop")
    assert not choice.message.tool_calls


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"", UpstreamFailed),
        (b"<html>502</html>", UpstreamFailed),
        (b"null", UpstreamFailed),
        (b"[]", UpstreamFailed),
        (b'{"choices": [{"mess', UpstreamFailed),
        (b"[" * 100_000, UpstreamFailed),
        ({}, UpstreamFailed),
        ({"choices": None}, UpstreamFailed),
        ({"choices": []}, UpstreamFailed),
        ({"error": {"code": "1234", "message": "network error"}}, UpstreamFailed),
        ({"error": "sensitive"}, ContentFiltered),
        ({"base_resp": {"status_code": 1004, "status_msg": "login fail"}}, UpstreamFailed),
        ({"choices": [], "base_resp": {"status_code": 1027, "status_msg": "output sensitive"}}, ContentFiltered),
        ({"code": "DataInspectionFailed", "message": "sensitive", "request_id": "7d"}, ContentFiltered),
        (message("network_error", content="Hi"), UpstreamFailed),
        (message("insufficient_system_resource", content="Hi"), UpstreamFailed),
        (message("model_context_window_exceeded", content=""), ContextLengthExceeded),
    ],
)
def test_what_is_no_answer_raises(body: bytes | dict[str, Any], error: type[GatewayError]) -> None:
    with pytest.raises(error) as raised:
        read(body)
    assert type(raised.value) is error


@pytest.mark.parametrize(
    "wire",
    [
        '{"prompt_tokens":-1,"completion_tokens":4}',
        '{"prompt_tokens":NaN,"completion_tokens":4}',
        '{"prompt_tokens":1e999,"completion_tokens":4}',
        '{"prompt_tokens":"13","completion_tokens":4}',
        '{"prompt_tokens":13,"completion_tokens":0}',
        '"none"',
        "[1]",
        "null",
    ],
)
def test_absurd_usage_spoils_no_answer(wire: str) -> None:
    body = read(f'{{"choices":[{{"index":0,"message":{{"content":"Hi"}}}}],"usage":{wire}}}'.encode())
    assert body.choices[0].message.content == "Hi"
    assert body.usage is None


def test_usage_inside_the_choice_is_found() -> None:
    body = message(content="Hi")
    body["choices"][0]["usage"] = {"prompt_tokens": 9, "completion_tokens": 2}
    assert read(body).usage == usage.of(9, 2)


def test_several_choices_keep_their_places() -> None:
    choices = [{"message": {"content": text}, "finish_reason": "stop"} for text in ("a", "b")]
    assert [(choice.index, choice.message.content) for choice in read({"choices": choices}).choices] == [
        (0, "a"),
        (1, "b"),
    ]


def test_log_probabilities_pass_without_vendors_keys() -> None:
    body = message(content="Hi")
    top = {"token": "Ho", "logprob": -2, "bytes": [72, 111]}
    body["choices"][0]["logprobs"] = {
        "content": [{"token": "Hi", "logprob": -0.5, "bytes": None, "top_logprobs": [top], "rank": 1}],
        "reasoning_content": None,
    }
    assert read(body).choices[0].logprobs == Logprobs(
        content=[TokenLogprob("Hi", -0.5, None, [TopLogprob("Ho", -2.0, [72, 111])])]
    )
    body["choices"][0]["logprobs"] = {"content": [{"token": 1}]}
    assert read(body).choices[0].logprobs is None


@pytest.mark.parametrize(
    ("wire", "content"),
    [(rb'"\ud83d\ude00"', "😀"), (rb'"a\ud83d"', "a\ufffd"), (b'"a\xff"', "a\ufffd"), (b"7", "")],
)
def test_text_that_is_no_unicode_becomes_a_sign_of_it(wire: bytes, content: str) -> None:
    body = read(b'{"choices":[{"message":{"content":' + wire + b"}}]}")
    assert json.loads(encode_reply(body))["choices"][0]["message"]["content"] == content


def test_what_a_reply_said_is_its_texts() -> None:
    body = read(message(content="Hé", reasoning_content="abc", tool_calls=[call("{}"), call("{}")]))
    assert reply.said(body) == ("Hé", "abc", "f{}f{}")
    body = read(message(tool_calls=[call("{}"), call("{}")]), legacy_functions=True)
    assert reply.said(body) == ("", "", "f{}")


# --- text, and more than text --------------------------------------------------------------------------------------

USAGE = {"prompt_tokens": 13, "completion_tokens": 4}


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"content": ""},
        {"content": None},
        {"content": 5},
        {"content": "\ud800"},
        {"reasoning_content": "why"},
        {"reasoning_content": ""},
        {"reasoning": "why"},
        {"refusal": "no"},
        {"tool_calls": []},
        {"tool_calls": [call("{}")]},
        {"function_call": {"name": "f", "arguments": "{}"}},
    ],
)
@pytest.mark.parametrize("finish_reason", ["stop", "length", "tool_calls", "sensitive", "", None])
@pytest.mark.parametrize(
    "counts", [None, USAGE, {**USAGE, "completion_tokens": 0}, {**USAGE, "cached_tokens": 14}, {"prompt_tokens": "13"}]
)
def test_text_is_read_as_anything_else_is(fields: dict[str, Any], finish_reason: str | None, counts: Any) -> None:
    body = {**message(finish_reason, **{"content": "Hello", **fields}), "usage": counts}
    assert read(body) == read_as_any(body)


@pytest.mark.parametrize(
    "body",
    [
        {**message(content="Hello"), "base_resp": {"status_code": 0}},
        {**message(content="Hello"), "base_resp": {"status_code": "0"}},
        {"choices": message(content="a")["choices"] + message(content="b")["choices"]},
        {"choices": [{**message(content="a")["choices"][0], "index": 3}]},
        {"choices": [{**message(content="a")["choices"][0], "logprobs": {"content": []}}]},
        {"choices": [{**message(content="a")["choices"][0], "usage": USAGE}]},
    ],
)
def test_a_reply_around_text_is_read_as_any_other(body: dict[str, Any]) -> None:
    for counted in (body, {**body, "usage": USAGE}):
        assert read(counted) == read_as_any(counted)


def test_a_fault_beside_text_is_a_fault() -> None:
    for fault in ({"error": {"message": "x"}}, {"base_resp": {"status_code": 1000}}):
        with pytest.raises(UpstreamFailed):
            read({**message(content="Hello"), "usage": USAGE, **fault})

"""Upstreams' streams in our terms: each provider's own bytes in, OpenAI's out, checked with OpenAI's own types."""

import json
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types.chat import ChatCompletionChunk

from vipcloud.dialects.chunks import ChunkWriter
from vipcloud.dialects.openai import Usage
from vipcloud.errors import (
    ContentFiltered,
    ContextLengthExceeded,
    GatewayError,
    RateLimited,
    UpstreamFailed,
    UpstreamInterrupted,
)
from vipcloud.providers import usage as counts
from vipcloud.providers.catalog_rows import Quirks
from vipcloud.providers.stream import CALLS_MAX, StreamTranslator
from vipcloud.providers.usage import TextSize

DONE = b"data: [DONE]\n\n"


@dataclass
class Fault:
    """What a provider's rules would make of `said`, by words in it."""

    said: dict[str, Any]

    @property
    def ends_answer(self) -> bool:
        return "new_sensitive" in json.dumps(self.said)

    @property
    def retryable(self) -> bool:
        return "final" not in json.dumps(self.said)

    def error(self) -> GatewayError:
        text = json.dumps(self.said)
        if "inspection" in text:
            return ContentFiltered(text)
        return RateLimited(text) if "overloaded" in text else UpstreamFailed(text)


@dataclass
class Answer:
    """What a caller ends up with."""

    content: str | None = ""
    reasoning: str = ""
    calls: list[tuple[str, str, str]] = field(default_factory=list)  # id, name, arguments
    finish_reason: str | None = "stop"
    usage: tuple[int, int, int] | None = None  # prompt, completion, cached


def translator(*, include_usage: bool = True, event_bytes_max: int = 1 << 16, **options: Any) -> StreamTranslator:
    writer = ChunkWriter("chatcmpl-ours", 1_795_000_000, "vip", include_usage=include_usage)
    return StreamTranslator(writer, event_bytes_max=event_bytes_max, classify=Fault, **options)


def play(stream: StreamTranslator, *reads: bytes) -> bytes:
    """All that a caller gets, in the order in which the relay asks for it."""
    out = b"".join(stream.feed(data) for data in reads) + stream.eof()
    return out + stream.final(stream.usage) if stream.failure is None else out


def chunks(out: bytes) -> list[dict[str, Any]]:
    """The chunks of `out`, each checked against OpenAI's types; `[DONE]` is left out."""
    found = []
    for event in out.split(b"\n\n")[:-1]:
        assert event.startswith(b"data: {") or event == b"data: [DONE]"
        if event != b"data: [DONE]":
            ChatCompletionChunk.model_validate_json(event[6:], strict=True)
            found.append(json.loads(event[6:]))
    return found


def deltas(out: bytes) -> list[dict[str, Any]]:
    return [choice["delta"] for chunk in chunks(out) for choice in chunk["choices"] if choice["delta"]]


def answer(out: bytes) -> Answer:
    """`out` put together by the accumulator of OpenAI's SDK."""
    assert out.count(DONE) == 1
    assert out.endswith(DONE)
    state = ChatCompletionStreamState()
    for chunk in chunks(out):
        assert (chunk["id"], chunk["created"], chunk["model"]) == ("chatcmpl-ours", 1_795_000_000, "vip")
        state.handle_chunk(ChatCompletionChunk.model_validate(chunk))
    whole = state.current_completion_snapshot.to_dict()
    assert len(whole["choices"]) == 1
    choice = whole["choices"][0]
    message = choice["message"]
    assert message["role"] == "assistant"
    used = whole.get("usage")
    return Answer(
        content=message["content"],
        reasoning=message.get("reasoning_content", ""),
        calls=[
            (call["id"], call["function"]["name"], call["function"]["arguments"])
            for call in message.get("tool_calls") or ()
        ],
        finish_reason=choice["finish_reason"],
        usage=used
        and (used["prompt_tokens"], used["completion_tokens"], used["prompt_tokens_details"]["cached_tokens"]),
    )


# --- the providers' own forms ------------------------------------------------------------------------------------


def event(said: Any) -> bytes:
    return b"data: " + json.dumps(said, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"


def deepseek(delta: dict[str, Any], finish_reason: str | None = None, usage: Any = None) -> bytes:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
    head = {"id": "f6117a0b-129d", "object": "chat.completion.chunk", "created": 1794700001, "model": "deepseek-flash"}
    return event({**head, "system_fingerprint": "fp_eaab8d114b", "choices": [choice], "usage": usage})


def zhipu(delta: dict[str, Any], finish_reason: str | None = None, usage: Any = None) -> bytes:
    choice = {"index": 0, "delta": delta}
    said: dict[str, Any] = {"id": "20261115", "created": 1794700001, "model": "glm-4-flash-250414", "choices": [choice]}
    if finish_reason is not None:
        choice = {"index": 0, "finish_reason": finish_reason, "delta": delta}
        said = {**said, "choices": [choice], "usage": usage}
    return event(said)


def moonshot(delta: dict[str, Any], finish_reason: str | None = None, usage: Any = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    if usage is not None:
        choice["usage"] = usage
    return event({"id": "chatcmpl-6a", "choices": [choice], "system_fingerprint": "fpv0_5de57c9a"})


def dashscope(choices: list[dict[str, Any]], usage: Any = None) -> bytes:
    return event({"choices": choices, "object": "chat.completion.chunk", "usage": usage, "id": "chatcmpl-1f0c2b3a"})


def minimax(choices: Any, **others: Any) -> bytes:
    flags = {"input_sensitive": False, "output_sensitive": False, "output_sensitive_int": 0}
    return event({"id": "07008f4a", "choices": choices, "object": "chat.completion.chunk", **others, **flags})


def tool(index: int | None = 0, id: Any = None, name: str | None = None, arguments: Any = None) -> dict[str, Any]:  # noqa: A002
    function = {key: value for key, value in (("name", name), ("arguments", arguments)) if value is not None}
    outer = {key: value for key, value in (("index", index), ("id", id)) if value is not None}
    return {"tool_calls": [{**outer, "type": "function", "function": function}]}


DEEPSEEK_USAGE = {
    "prompt_tokens": 13,
    "completion_tokens": 2,
    "total_tokens": 15,
    "prompt_tokens_details": {"cached_tokens": 5},
    "prompt_cache_hit_tokens": 5,
    "prompt_cache_miss_tokens": 8,
}
ZHIPU_USAGE = {
    "prompt_tokens": 13,
    "completion_tokens": 2,
    "total_tokens": 15,
    "prompt_tokens_details": {"cached_tokens": 5},
}
MOONSHOT_USAGE = {"prompt_tokens": 13, "completion_tokens": 2, "total_tokens": 15, "cached_tokens": 5}
FILLER = {"total_tokens": 0, "total_characters": 0}
ASSISTANT = {"role": "assistant"}
PARIS = '{"city": "Paris"}'
NAMED = {**ASSISTANT, "name": "MiniMax AI", "audio_content": ""}

HELLO = Answer(content="Hello", usage=(13, 2, 5))
FOUR = Answer(content="4", reasoning="2+2 is 4.", usage=(13, 2, 5))
WEATHER = Answer(
    content=None,
    reasoning="Need weather.",
    calls=[("call_00_ioIn", "get_weather", PARIS)],
    finish_reason="tool_calls",
    usage=(13, 2, 5),
)

STREAMS: dict[str, tuple[bytes, Answer]] = {
    "deepseek text": (
        b": keep-alive\n\n"
        + deepseek({"role": "assistant", "content": ""})
        + deepseek({"content": "Hello"})
        + deepseek({"content": ""}, "stop", DEEPSEEK_USAGE)
        + DONE,
        HELLO,
    ),
    "deepseek reasoning and text": (
        deepseek({"role": "assistant", "content": None, "reasoning_content": ""})
        + deepseek({"content": None, "reasoning_content": "2+2 is 4."})
        + deepseek({"content": "4", "reasoning_content": None})
        + deepseek({"content": "", "reasoning_content": None}, "stop", DEEPSEEK_USAGE)
        + DONE,
        FOUR,
    ),
    "deepseek reasoning and tool call": (
        deepseek({"role": "assistant", "content": None, "reasoning_content": ""})
        + deepseek({"content": None, "reasoning_content": "Need weather."})
        + deepseek(tool(0, "call_00_ioIn", "get_weather", ""))
        + deepseek(tool(0, arguments='{"city": '))
        + deepseek(tool(0, arguments='"Paris"}'))
        + deepseek({"content": "", "reasoning_content": None}, "tool_calls", DEEPSEEK_USAGE)
        + DONE,
        WEATHER,
    ),
    "deepseek with usage in a chunk of its own": (
        deepseek({"role": "assistant", "content": ""})
        + deepseek({"content": "Hello"})
        + deepseek({"content": ""}, "stop")
        + event({"choices": [], "usage": DEEPSEEK_USAGE})
        + DONE,
        HELLO,
    ),
    "zhipu text": (
        zhipu({**ASSISTANT, "content": "Hel"})
        + zhipu({**ASSISTANT, "content": "lo"})
        + zhipu({**ASSISTANT, "content": ""}, "stop", ZHIPU_USAGE)
        + DONE,
        HELLO,
    ),
    "zhipu reasoning and tool call": (
        zhipu({**ASSISTANT, "reasoning_content": "Need"})
        + zhipu({**ASSISTANT, "reasoning_content": " weather."})
        + zhipu(tool(0, "call_00_ioIn", "get_weather", PARIS))
        + zhipu({**ASSISTANT, "content": ""}, "tool_calls", ZHIPU_USAGE)
        + DONE,
        WEATHER,
    ),
    "zhipu reasoning and text": (
        zhipu({**ASSISTANT, "reasoning_content": "2+2 is 4."})
        + zhipu({**ASSISTANT, "content": "4"})
        + zhipu({**ASSISTANT, "content": ""}, "stop", ZHIPU_USAGE)
        + DONE,
        FOUR,
    ),
    "zhipu sensitive": (
        zhipu({**ASSISTANT, "content": "Hello"}) + zhipu({**ASSISTANT, "content": ""}, "sensitive", ZHIPU_USAGE) + DONE,
        Answer(content="Hello", finish_reason="content_filter", usage=(13, 2, 5)),
    ),
    "zhipu out of context after text": (
        zhipu({**ASSISTANT, "content": "Hello"})
        + zhipu({**ASSISTANT, "content": ""}, "model_context_window_exceeded", ZHIPU_USAGE)
        + DONE,
        Answer(content="Hello", finish_reason="length", usage=(13, 2, 5)),
    ),
    "moonshot text": (
        moonshot({"role": "assistant", "content": ""})
        + moonshot({"content": "Hello"})
        + moonshot({}, "stop", MOONSHOT_USAGE)
        + event({"choices": [], "usage": MOONSHOT_USAGE})
        + DONE,
        HELLO,
    ),
    "moonshot reasoning and tool call": (
        moonshot({"role": "assistant", "content": ""})
        + moonshot({"reasoning_content": "Need weather."})
        + moonshot({"reasoning_content": ""})
        + moonshot(tool(0, "call_00_ioIn", "get_weather", ""))
        + moonshot(tool(0, arguments=PARIS))
        + moonshot({}, "tool_calls", MOONSHOT_USAGE)
        + DONE,
        WEATHER,
    ),
    "dashscope text": (
        dashscope([{"delta": {"content": "", **ASSISTANT}, "index": 0, "logprobs": None, "finish_reason": None}])
        + dashscope([{"finish_reason": None, "logprobs": None, "delta": {"content": "Hello"}, "index": 0}])
        + dashscope([{"finish_reason": "stop", "delta": {"content": ""}, "index": 0, "logprobs": None}])
        + dashscope([], ZHIPU_USAGE)
        + DONE,
        HELLO,
    ),
    "dashscope tool call with empty ids": (
        dashscope([{"delta": {"content": None, "reasoning_content": "Need weather."}, "index": 0}])
        + dashscope([{"delta": {"content": None, **tool(0, "call_00_ioIn", "get_weather", ""), **ASSISTANT}}])
        + dashscope([{"delta": {"content": None, **tool(0, "", None, '{"city": "Paris')}, "finish_reason": None}])
        + dashscope([{"delta": {"content": None, **tool(0, "", None, '"}')}, "finish_reason": None, "index": 0}])
        + dashscope([{"delta": tool(0, "", None, ""), "index": 0}])
        + dashscope([{"finish_reason": "tool_calls", "delta": {}, "index": 0, "logprobs": None}])
        + dashscope([], ZHIPU_USAGE)
        + DONE,
        WEATHER,
    ),
    "minimax with text in the finish chunk and no end": (
        minimax([{"index": 0, "delta": {**NAMED, "reasoning_content": "2+2", "reasoning_details": [{}]}}], usage=None)
        + minimax([{"index": 0, "delta": {**NAMED, "role": "", "reasoning_content": " is 4."}}], usage=FILLER)
        + minimax([{"finish_reason": "stop", "index": 0, "delta": {**NAMED, "content": "4"}}], usage=None)
        + minimax([], usage=ZHIPU_USAGE, base_resp={"status_code": 0, "status_msg": ""}),
        FOUR,
    ),
    "minimax v2 with the whole message again": (
        minimax([{"index": 0, "delta": {**NAMED, "content": "Hel"}}], usage=FILLER)
        + minimax([{"finish_reason": "stop", "index": 0, "delta": {**NAMED, "content": "lo"}}], usage=FILLER)
        + minimax(
            [{"finish_reason": "stop", "index": 0, "message": {**NAMED, "content": "Hello"}}],
            usage=ZHIPU_USAGE,
            base_resp={"status_code": 0, "status_msg": ""},
        ),
        HELLO,
    ),
    "minimax v2 with calls in the whole message only": (
        minimax([{"index": 0, "delta": {**NAMED, "reasoning_content": "Need weather."}}], usage=FILLER)
        + minimax([{"finish_reason": "stop", "index": 0, "delta": NAMED}], usage=FILLER)
        + minimax(
            [
                {
                    "finish_reason": "tool_calls",
                    "index": 0,
                    "message": {**NAMED, "content": "\n", **tool(0, "call_00_ioIn", "get_weather", PARIS)},
                }
            ],
            usage=ZHIPU_USAGE,
        ),
        WEATHER,
    ),
    "minimax tool call with usage after the finish chunk": (
        minimax([{"index": 0, "delta": {**NAMED, "reasoning_content": "Need weather."}}])
        + minimax([{"index": 0, "delta": {"content": "", **tool(0, "call_00_ioIn", "get_weather", '{"city": ')}}])
        + minimax([{"index": 0, "delta": {"content": "", **NAMED, **tool(0, arguments='"Paris"}')}}])
        + minimax([{"finish_reason": "tool_calls", "index": 0, "delta": {}}])
        + minimax([{"index": 0, "delta": {}}], usage=ZHIPU_USAGE)
        + DONE,
        WEATHER,
    ),
}


@pytest.mark.parametrize("name", STREAMS)
@pytest.mark.parametrize("include_usage", [True, False])
def test_every_providers_stream_becomes_the_same_answer(name: str, include_usage: bool) -> None:
    stream, expected = STREAMS[name]
    one = translator(include_usage=include_usage)
    assert answer(play(one, stream)) == expected
    assert one.usage == counts.of(13, 2, cached_tokens=5)
    assert one.complete


@pytest.mark.parametrize("name", STREAMS)
def test_any_cut_of_the_bytes_gives_the_same_bytes(name: str) -> None:
    stream, _ = STREAMS[name]
    whole = play(translator(), stream)
    for cut in range(1, len(stream)):
        assert play(translator(), stream[:cut], stream[cut:]) == whole, cut
    assert play(translator(), *(bytes([byte]) for byte in stream)) == whole
    assert play(translator(), stream.replace(b"\n", b"\r\n")) == whole


# --- order and shape ---------------------------------------------------------------------------------------------


def test_a_text_stream_is_role_text_finish_usage_done() -> None:
    out = play(translator(), STREAMS["deepseek text"][0])
    assert [(chunk["choices"] and chunk["choices"][0]["delta"], chunk["usage"] is None) for chunk in chunks(out)] == [
        ({"role": "assistant", "content": "", "refusal": None}, True),
        ({"content": "Hello"}, True),
        ({}, True),
        ([], False),
    ]


def test_without_include_usage_the_finish_chunk_carries_it() -> None:
    found = chunks(play(translator(include_usage=False), STREAMS["deepseek text"][0]))
    assert [bool(chunk["choices"]) for chunk in found] == [True, True, True]
    assert ["usage" in chunk for chunk in found] == [False, False, True]
    assert found[-1]["choices"][0]["finish_reason"] == "stop"
    assert found[-1]["usage"]["total_tokens"] == 15


def test_the_role_rides_on_the_first_tool_delta_of_a_turn_without_text() -> None:
    out = play(translator(), deepseek(tool(0, "call_1", "f", "{}")), deepseek({}, "tool_calls", DEEPSEEK_USAGE), DONE)
    start = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "f", "arguments": ""}}
    assert deltas(out) == [
        {"role": "assistant", "content": None, "refusal": None, "tool_calls": [start]},
        {"tool_calls": [{"index": 0, "function": {"arguments": "{}"}}]},
    ]


def test_reasoning_is_a_key_only_where_there_is_reasoning() -> None:
    out = play(translator(), STREAMS["deepseek reasoning and text"][0])
    assert [list(delta) for delta in deltas(out)] == [
        ["role", "content", "refusal"],
        ["reasoning_content"],
        ["content"],
    ]


def test_nothing_is_sent_before_there_is_content() -> None:
    one = translator()
    assert one.feed(b": keep-alive\n\n" + deepseek({"role": "assistant", "content": ""})) == b""
    assert (one.started, one.data_events) == (False, 1)
    assert len(chunks(one.feed(deepseek({"content": "Hi"})))) == 2
    assert (one.started, one.data_events) == (True, 2)
    assert one.feed(b": keep-alive\n\n") == b""
    assert one.data_events == 2


def test_an_empty_answer_has_its_role_and_its_end() -> None:
    out = play(translator(), zhipu({**ASSISTANT, "content": ""}, "length", ZHIPU_USAGE), DONE)
    assert answer(out) == Answer(content="", finish_reason="length", usage=(13, 2, 5))


def test_a_refusal_passes() -> None:
    out = play(translator(), moonshot({"refusal": "No."}), moonshot({}, "stop", MOONSHOT_USAGE), DONE)
    assert deltas(out) == [{"role": "assistant", "content": None, "refusal": None}, {"refusal": "No."}]


def test_log_probabilities_pass_with_their_text() -> None:
    token = {"token": "Hi", "logprob": -0.5, "bytes": [72, 105], "top_logprobs": []}
    choice = {"index": 0, "delta": {"content": "Hi"}, "logprobs": {"content": [token]}, "finish_reason": None}
    out = play(translator(), event({"choices": [choice]}), deepseek({}, "stop", DEEPSEEK_USAGE))
    assert chunks(out)[1]["choices"][0]["logprobs"] == {"content": [token], "refusal": None}


@pytest.mark.parametrize(
    "odd",
    [
        event({"choices": None}),
        event({"choices": []}),
        event({}),
        event({"choices": [{"index": 0, "delta": None}]}),
        event({"choices": [{"index": 0}]}),
        event({"choices": [{"index": 0, "delta": {"content": None, "role": ""}}]}),
        event({"choices": [{"index": 7, "delta": {"content": "x"}, "finish_reason": "stop"}]}),
        event({"choices": [{"index": -1, "delta": {"content": "x"}}]}),
        event({"choices": [None, 7], "usage": 12}),
        event({"choices": [{"index": 0, "delta": {}, "finish_reason": "null"}]}),
        event({"choices": [{"index": 0, "delta": {}, "finish_reason": ""}]}),
        event({"choices": [{"index": 0, "delta": {"content": 7}}], "usage": {"prompt_tokens": -1}}),
        event({"choices": [{"index": 0, "delta": {"tool_calls": [], "function_call": None}}]}),
        b'data: {"choices":[],"usage":{"prompt_tokens":NaN}}\n\n',
        b"event: ping\ndata: {}\n\n",
        b"data: \n\n",
        b"data\n\n",
        b"id: 5\n\n",
    ],
)
def test_oddities_are_survived(odd: bytes) -> None:
    begin, rest = deepseek({"content": "Hel"}), deepseek({"content": "lo"}) + deepseek({}, "stop", DEEPSEEK_USAGE)
    assert answer(play(translator(), odd, begin, odd, rest, DONE)) == HELLO


@pytest.mark.parametrize(
    ("word", "reason"), [("eos", "stop"), ("max_tokens", "length"), ("tool_calls", "stop"), ("content_filter",) * 2]
)
def test_finish_reasons_are_openais(word: str, reason: str) -> None:
    out = play(translator(), deepseek({"content": "Hello"}), deepseek({}, word, DEEPSEEK_USAGE))
    assert answer(out).finish_reason == reason


# --- tool calls --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "calls"),
    [
        ([tool(0, "a", "f", ""), tool(0, arguments="{}")], [("a", "f", "{}")]),
        ([tool(0, "a", "f", "{}"), tool(1, "b", "g", "{}")], [("a", "f", "{}"), ("b", "g", "{}")]),
        ([tool(1, "a", "f", "{}"), tool(2, "b", "g", "{}")], [("a", "f", "{}"), ("b", "g", "{}")]),
        ([tool(0, "a", "f", "{}"), tool(0, "b", "g", "{}")], [("a", "f", "{}"), ("b", "g", "{}")]),
        (
            [tool(None, "a", "f", "["), tool(None, arguments="]"), tool(None, "b", "g")],
            [("a", "f", "[]"), ("b", "g", "{}")],
        ),
        (
            [tool(None, None, "f", "{}"), tool(None, None, "f", "[]")],
            [("call_ours_0_0", "f", "{}"), ("call_ours_0_1", "f", "[]")],
        ),
        ([tool(0, "a", "f", "{"), tool(0, "a", "f", "}")], [("a", "f", "{}")]),
        ([tool(None, "a", "f", "{"), tool(None, "a", "f", "}")], [("a", "f", "{}")]),
        (
            [tool(0, "a", "f", "{"), tool(1, "b", "g", "["), tool(0, arguments="}"), tool(1, arguments="]")],
            [("a", "f", "{}"), ("b", "g", "[]")],
        ),
        ([tool(0, "", "f", "{}")], [("call_ours_0_0", "f", "{}")]),
        ([tool(0, "a", "f", "{}"), tool(1, "a", "g", "{}")], [("a", "f", "{}"), ("call_ours_0_1", "g", "{}")]),
        ([tool(0, "a", "f")], [("a", "f", "{}")]),
        ([tool(0, "a", "f", ""), tool(1, "b", "g", "")], [("a", "f", "{}"), ("b", "g", "{}")]),
        ([tool(0, "a", None, "{"), tool(0, None, "f", "}")], [("a", "f", "{}")]),
        ([tool(0, "a", "f", {"x": "é"})], [("a", "f", '{"x":"é"}')]),
        ([tool(0, "a", "f", '{"not json')], [("a", "f", '{"not json')]),
        (
            [{"function_call": {"name": "f", "arguments": "{"}}, {"function_call": {"arguments": "}"}}],
            [("call_ours_0_0", "f", "{}")],
        ),
        ([{"tool_calls": [{"index": 0, "id": "a", "function": {"arguments": "[]"}}]}], [("a", "", "[]")]),
    ],
)
def test_tool_calls_are_told_apart_and_start_once(
    said: list[dict[str, Any]], calls: list[tuple[str, str, str]]
) -> None:
    events = [deepseek(delta) for delta in said]
    out = play(translator(), *events, deepseek({}, "stop", DEEPSEEK_USAGE), DONE)
    assert answer(out) == Answer(content=None, calls=calls, finish_reason="tool_calls", usage=(13, 2, 5))
    starts = [call for delta in deltas(out) for call in delta.get("tool_calls", ()) if "id" in call]
    assert [call["index"] for call in starts] == list(range(len(calls)))


def test_calls_beyond_the_limit_end_the_attempt() -> None:
    one = translator()
    for index in range(CALLS_MAX):
        one.feed(deepseek(tool(index, f"call_{index}", "f", "{}")))
    assert one.failure is None
    one.feed(deepseek(tool(CALLS_MAX, "call", "f", "{}")))
    assert type(one.failure) is UpstreamInterrupted


def test_legacy_functions_get_function_calls() -> None:
    events = [deepseek(tool(0, "a", "f", "{")), deepseek(tool(0, arguments="}")), deepseek(tool(1, "b", "g", "{}"))]
    out = play(translator(legacy_functions=True), *events, deepseek({}, "tool_calls", DEEPSEEK_USAGE))
    assert deltas(out) == [
        {"role": "assistant", "content": None, "refusal": None, "function_call": {"name": "f", "arguments": ""}},
        {"function_call": {"arguments": "{"}},
        {"function_call": {"arguments": "}"}},
    ]
    assert answer(out).finish_reason == "function_call"


# --- several choices -----------------------------------------------------------------------------------------------


def test_choices_open_in_ascending_order_and_finish_together() -> None:
    def of(index: int, finish_reason: str | None = None, **delta: str) -> bytes:
        return dashscope([{"index": index, "delta": delta, "finish_reason": finish_reason}])

    one = translator(choices=2)
    reads = [of(1, content="b"), of(1, "stop"), of(0, content="a"), of(0, "length"), dashscope([], ZHIPU_USAGE), DONE]
    out = play(one, *reads)
    assert [
        (choice["index"], choice["delta"].get("content"), choice["finish_reason"])
        for chunk in chunks(out)
        for choice in chunk["choices"]
    ] == [(0, "", None), (1, "", None), (1, "b", None), (0, "a", None), (0, None, "length"), (1, None, "stop")]
    assert out.endswith(DONE)


def test_a_choice_that_never_finishes_breaks_the_answer() -> None:
    one = translator(choices=2)
    play(one, dashscope([{"index": 1, "delta": {"content": "b"}, "finish_reason": "stop"}]), DONE)
    assert isinstance(one.failure, UpstreamInterrupted)


# --- stop strings ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("texts", "stops", "content"),
    [
        (["one two three"], ("two",), "one "),
        (["one t", "w", "o three"], ("two",), "one "),
        (["one t", "w", "ice"], ("two",), "one twice"),
        (["ttw", "o"], ("two",), "t"),
        (["a\n", "\nb"], ("\n\n",), "a"),
        (["a", "b", "c"], ("abcd",), "abc"),
        (["a", "b", "c"], ("abc", "b"), "a"),
        (["abc"], ("abc", "b"), "a"),
        (["x"], ("", "y"), "x"),
        (["two"], ("two",), ""),
        (["aab", "aac"], ("aabaac",), ""),
        (["aabaa", "baac"], ("aabaac",), "aab"),
    ],
)
def test_stop_strings_are_cut_out_and_never_leak(texts: list[str], stops: tuple[str, ...], content: str) -> None:
    one = translator(stops=stops)
    events = [deepseek({"content": text}) for text in texts]
    out = play(one, *events, deepseek({}, "length", DEEPSEEK_USAGE))
    was_cut = any(stop and stop in "".join(texts) for stop in stops)
    assert answer(out) == Answer(content, finish_reason="stop" if was_cut else "length", usage=(13, 2, 5))
    assert one.stopped == was_cut


def test_a_stop_string_ends_the_answer_before_the_upstream_does() -> None:
    one = translator(stops=("END",))
    one.feed(deepseek({"content": "a"}) + deepseek({"content": "END"}))
    assert (one.stopped, one.complete, one.usage) == (True, True, None)
    assert one.feed(deepseek({"content": "more"}) + deepseek(tool(0, "a", "f", "{}"))) == b""
    assert one.delivered.content == TextSize(1, 1)
    assert chunks(one.final(counts.of(5, 1)))[0]["choices"][0]["finish_reason"] == "stop"


def test_text_held_back_is_shown_before_a_tool_call() -> None:
    events = [deepseek({"content": "see E"}), deepseek(tool(0, "a", "f", "{}"))]
    out = play(translator(stops=("END",)), *events, deepseek({}, "stop", DEEPSEEK_USAGE))
    assert [next(iter(delta)) for delta in deltas(out)] == ["role", "content", "content", "tool_calls", "tool_calls"]
    assert answer(out).content == "see E"


@given(st.lists(st.text("ab ", max_size=4), max_size=12), st.lists(st.text("ab", min_size=1), min_size=1, max_size=3))
def test_stops_do_not_depend_on_how_the_text_is_cut(texts: list[str], stops: list[str]) -> None:
    text = "".join(texts)
    ends = [(text.find(stop) + len(stop), text.find(stop)) for stop in stops if stop in text]
    out = play(
        translator(stops=tuple(stops)),
        *(deepseek({"content": piece}) for piece in texts),
        deepseek({}, "stop", DEEPSEEK_USAGE),
    )
    assert answer(out).content == (text[: min(ends)[1]] if ends else text)


# --- usage -------------------------------------------------------------------------------------------------------


def test_running_usage_is_collapsed_to_the_last() -> None:
    running = [deepseek({"content": "x"}, usage={"prompt_tokens": 13, "completion_tokens": n}) for n in range(1, 4)]
    one = translator()
    out = play(one, *running, deepseek({}, "stop", {"prompt_tokens": 13, "completion_tokens": 4}), DONE)
    assert [chunk["usage"]["completion_tokens"] for chunk in chunks(out) if chunk["usage"]] == [4]


@pytest.mark.parametrize(
    "wire",
    [None, FILLER, {"prompt_tokens": -1, "completion_tokens": 2}, {"prompt_tokens": 13, "completion_tokens": 0}, "x"],
)
def test_usage_that_is_missing_or_absurd_is_left_to_the_caller(wire: Any) -> None:
    one = translator()
    one.feed(deepseek({"content": "Hello"}) + deepseek({}, "stop", wire))
    assert (one.usage, one.finished, one.complete) == (None, True, False)
    one.feed(DONE)
    assert (one.usage, one.complete) == (None, True)
    assert chunks(one.final(counts.of(7, 1)))[-1]["usage"]["total_tokens"] == 8


def test_usage_above_the_window_is_refused() -> None:
    one = translator(usage_tokens_max=12)
    play(one, STREAMS["deepseek text"][0])
    assert one.usage is None


def test_the_answer_can_be_ended_as_soon_as_finish_and_usage_are_in() -> None:
    one = translator()
    one.feed(deepseek({"content": "Hello"}, usage=DEEPSEEK_USAGE))
    assert (one.finished, one.complete) == (False, False)
    one.feed(moonshot({}, "stop", MOONSHOT_USAGE))
    assert (one.finished, one.complete) == (True, True)


def test_what_was_delivered_is_measured_by_kind() -> None:
    one = translator()
    one.feed(
        deepseek({"reasoning_content": "Hmé"})
        + deepseek({"content": "ab"})
        + deepseek({"content": "é"})
        + deepseek({"content": "cd"})
        + deepseek(tool(0, "a", "f", "{}"))
    )
    assert one.delivered.content == TextSize(5, 6)
    assert one.delivered.reasoning == TextSize(3, 4)
    assert one.delivered.calls == TextSize(3, 3)


# --- failures ----------------------------------------------------------------------------------------------------

ERRORS = {
    "deepseek": event(
        {"error": {"message": "Internal Server Error", "type": "server_error", "code": "internal_error"}}
    ),
    "deepseek capacity": deepseek({"content": ""}, "insufficient_system_resource", DEEPSEEK_USAGE) + DONE,
    "zhipu": event({"error": {"code": "1234", "message": "network error, please retry"}}),
    "zhipu finish": zhipu({**ASSISTANT, "content": ""}, "network_error", ZHIPU_USAGE) + DONE,
    "minimax": minimax(None, usage=None, base_resp={"status_code": 1002, "status_msg": "rate limit"}),
    "minimax bare": b'{"base_resp":{"status_code":1002,"status_msg":"rate limit"}}\n\n',
    "named": b"id:2\nevent:error\n:HTTP_STATUS/500\ndata:{}\n\n",
    "named text": b"event: error\ndata: it broke\n\n",
    "text as error": event({"error": "it broke"}),
    "native": event({"code": "InternalError", "message": "it broke", "request_id": "7d"}),
}


@pytest.mark.parametrize("name", ERRORS)
@pytest.mark.parametrize("last", [b"", DONE, deepseek({"content": "more"}, "stop", DEEPSEEK_USAGE)])
def test_an_error_before_any_content_can_be_retried_elsewhere(name: str, last: bytes) -> None:
    one = translator()
    assert play(one, deepseek({"role": "assistant", "content": ""}), ERRORS[name], last) == b""
    assert type(one.failure) is UpstreamFailed
    assert isinstance(one.fault, Fault)
    assert (one.started, one.complete, one.retryable) == (False, False, True)


@pytest.mark.parametrize("name", ERRORS)
def test_an_error_midway_interrupts_what_was_begun(name: str) -> None:
    one = translator()
    out = play(one, deepseek({"content": "Hello"}) + ERRORS[name] + deepseek({"content": "more"}))
    assert [delta["content"] for delta in deltas(out)] == ["", "Hello"]
    assert type(one.failure) is UpstreamInterrupted
    assert isinstance(one.fault, Fault)
    assert (one.started, one.complete, one.retryable) == (True, False, False)


@pytest.mark.parametrize("name", ERRORS)
def test_an_error_after_the_answer_takes_nothing_from_it(name: str) -> None:
    one = translator()
    out = play(one, deepseek({"content": "Hello"}) + deepseek({}, "stop") + ERRORS[name])
    assert answer(out).content == "Hello"
    assert one.complete


def test_moderation_midway_is_told_as_such() -> None:
    one = translator()
    play(one, deepseek({"content": "Hello"}), event({"error": {"code": "data_inspection_failed"}}))
    assert type(one.failure) is ContentFiltered


def test_what_the_rules_call_final_is_not_retried() -> None:
    one = translator()
    play(one, event({"error": {"code": "final"}}))
    assert (type(one.failure), one.retryable) == (UpstreamFailed, False)


def test_throttling_before_the_answer_keeps_its_own_error() -> None:
    one = translator()
    play(one, event({"error": {"type": "engine_overloaded_error"}}))
    assert (type(one.failure), one.retryable) == (RateLimited, True)


def test_no_room_for_an_answer_is_the_requests_fault() -> None:
    one = translator()
    play(one, zhipu({**ASSISTANT, "content": ""}, "model_context_window_exceeded", ZHIPU_USAGE), DONE)
    assert (type(one.failure), one.retryable) == (ContextLengthExceeded, False)


@pytest.mark.parametrize(
    "broken",
    [
        b"data: {\n\n",
        b"data: null\n\n",
        b"data: 7\n\n",
        b"data: hello\n\n",
        b"data: " + b"[" * 20_000 + b"\n\n",
        b"data: " + b"x" * 70_000,
        b'data: {"choices":[{"delta":{"content":"x"\n\n',
    ],
)
@pytest.mark.parametrize(
    ("begin", "failure"), [(b"", UpstreamFailed), (deepseek({"content": "Hello"}), UpstreamInterrupted)]
)
def test_what_cannot_be_read_ends_the_attempt(broken: bytes, begin: bytes, failure: type[GatewayError]) -> None:
    one = translator()
    out = play(one, begin, broken, deepseek({"content": "more"}, "stop", DEEPSEEK_USAGE))
    assert type(one.failure) is failure
    assert "more" not in out.decode()
    assert one.retryable == (failure is UpstreamFailed)


def test_what_cannot_be_read_after_the_answer_takes_nothing_from_it() -> None:
    out = play(translator(), deepseek({"content": "Hello"}) + deepseek({}, "stop", DEEPSEEK_USAGE) + b"data: {\n\n")
    assert answer(out) == HELLO


@pytest.mark.parametrize("end", [b"", DONE, b"data: [DO", b'data: {"choices":[{"delta"', b"data: [DONE]"])
def test_an_end_without_a_finish_reason_is_never_a_whole_answer(end: bytes) -> None:
    empty, begun = translator(), translator()
    assert play(empty, end) == b""
    assert (type(empty.failure), empty.retryable) == (UpstreamFailed, True)
    assert DONE not in play(begun, deepseek({"content": "Hello"}), end)
    assert (type(begun.failure), begun.retryable) == (UpstreamInterrupted, False)


@pytest.mark.parametrize("end", [b"", DONE, b"data: [DO", b"data: [DONE]", b"data: [DONE]\n"])
def test_an_end_after_the_finish_reason_is_a_good_one(end: bytes) -> None:
    one = translator()
    assert answer(play(one, deepseek({"content": "Hello"}) + deepseek({}, "stop", DEEPSEEK_USAGE), end)) == HELLO


def test_a_finish_chunk_that_no_blank_line_closed_still_counts() -> None:
    finish = deepseek({"content": "lo"}, "stop", DEEPSEEK_USAGE)[:-2]
    assert answer(play(translator(), deepseek({"content": "Hel"}), finish)) == HELLO


def test_an_interrupted_answer_shows_what_was_held_back_for_a_stop_string() -> None:
    one = translator(stops=("END",))
    out = play(one, deepseek({"content": "the E"}))
    assert [delta["content"] for delta in deltas(out)] == ["", "the ", "E"]
    assert type(one.failure) is UpstreamInterrupted


def test_half_a_character_in_two_reads_is_one_character() -> None:
    stream = deepseek({"content": "你好"}) + deepseek({}, "stop", DEEPSEEK_USAGE)
    at = stream.index("你".encode()) + 1
    assert answer(play(translator(), stream[:at], stream[at:])).content == "你好"


# --- properties ----------------------------------------------------------------------------------------------------

pieces = st.tuples(
    st.integers(0, 1),
    st.sampled_from(["content", "reasoning_content", "0", "1", "2"]),
    st.text(max_size=5) | st.just(" "),
)


class Sent:
    """What one choice was sent, and what of it a caller is to have."""

    def __init__(self) -> None:
        self.content = self.reasoning = ""
        self.calls: dict[str, str] = {}

    def add(self, kind: str, text: str) -> dict[str, Any]:
        """A delta of `text`."""
        if kind == "content":
            self.content += text
        elif kind == "reasoning_content":
            self.reasoning += text
        else:
            if not self.content.strip():
                self.content = ""  # white space before a call says nothing
            begun = kind in self.calls
            self.calls[kind] = self.calls.get(kind, "") + text
            return tool(int(kind), "" if begun else f"call_{kind}", None if begun else "f", text)
        return {kind: text}


@given(st.lists(pieces, max_size=12), st.lists(st.integers(0, 6000), max_size=5), st.booleans(), st.integers(1, 2))
def test_what_is_delivered_is_what_was_sent(
    said: list[tuple[int, str, str]], cuts: list[int], include_usage: bool, choices: int
) -> None:
    sent = [Sent() for _ in range(choices)]
    stream = b""
    for index, kind, text in said:
        if index < choices:
            stream += dashscope([{"index": index, "delta": sent[index].add(kind, text), "finish_reason": None}])
    for index in range(choices):
        stream += dashscope([{"index": index, "delta": {}, "finish_reason": "stop"}])
    stream += dashscope([], DEEPSEEK_USAGE) + DONE
    edges = sorted(min(cut, len(stream)) for cut in cuts)
    one = translator(include_usage=include_usage, choices=choices)
    reads = [stream[start:end] for start, end in zip([0, *edges], [*edges, len(stream)], strict=True)]
    out = play(one, *reads)

    assert out.endswith(DONE)
    state = ChatCompletionStreamState()
    for chunk in chunks(out):
        state.handle_chunk(ChatCompletionChunk.model_validate(chunk))
    received = state.current_completion_snapshot
    assert [choice.index for choice in received.choices] == list(range(choices))
    for choice, expected in zip(received.choices, sent, strict=True):
        message = choice.message
        assert (message.content or "") == expected.content
        assert (message.model_extra or {}).get("reasoning_content", "") == expected.reasoning
        assert [(call.id, call.function.arguments) for call in message.tool_calls or ()] == [
            (f"call_{kind}", arguments or "{}") for kind, arguments in expected.calls.items()
        ]
        assert choice.finish_reason == ("tool_calls" if expected.calls else "stop")
    assert received.usage is not None
    assert received.usage.prompt_tokens == 13
    whole = "".join(expected.content for expected in sent)
    assert one.delivered.content == TextSize(len(whole), len(whole.encode()))
    assert len(one.content.text) == len(whole)


@given(st.binary(max_size=200), st.integers(0, 200))
def test_no_bytes_make_it_fall(noise: bytes, at: int) -> None:
    stream = STREAMS["deepseek text"][0]
    one = translator()
    chunks(play(one, stream[:at] + noise + stream[at:]))
    assert one.failure is not None or one.complete


def test_the_usage_of_the_caller_is_what_the_caller_sees() -> None:
    one = translator()
    one.feed(deepseek({"content": "Hello"}) + deepseek({}, "stop"))
    one.eof()
    mine: Usage = counts.of(3, 1)
    assert chunks(one.final(mine))[-1]["usage"]["prompt_tokens"] == 3
    assert one.feed(deepseek({"content": "more"})) == b""


SHORT: list[dict[str, Any]] = [
    {"content": "text"},
    {"content": "Text, 你好"},
    {"content": ""},
    {"content": None},
    {"content": "\ud800"},
    {"content": 5},
    {"content": None, "reasoning_content": "why"},
    {"content": "", "reasoning_content": "because 你"},
    {"content": "both", "reasoning_content": "at once"},
    {"reasoning": "why"},
    {"refusal": "no"},
    {"tool_calls": []},
    tool(0, "a", "f", "{}"),
]
AROUND: list[dict[str, Any]] = [
    {},
    {},
    {"usage": FILLER},
    {"usage": DEEPSEEK_USAGE},
    {"base_resp": {"status_code": 0}},
]
CHOICES: list[dict[str, Any]] = [{}, {}, {}, {"finish_reason": ""}, {"index": 1}, {"logprobs": {"content": []}}]


@given(
    st.lists(st.tuples(st.sampled_from(SHORT), st.sampled_from(CHOICES), st.sampled_from(AROUND)), max_size=8),
    st.integers(1, 2),
)
def test_the_short_way_of_a_chunk_leads_where_the_long_one_does(
    said: list[tuple[dict[str, Any], dict[str, Any], dict[str, Any]]], choices: int
) -> None:
    bodies = [{"choices": [{"index": 0, "delta": delta, **choice}], **around} for delta, choice, around in said]
    ends = [{"choices": [{"index": index, "delta": {}, "finish_reason": "stop"}]} for index in range(choices)]
    short, long = translator(choices=choices), translator(choices=choices)
    # An `error` that says nothing makes a chunk more than text.
    outs = [
        play(one, *(b"data: " + json.dumps({**body, **extra}).encode() + b"\n\n" for body in [*bodies, *ends]))
        for one, extra in ((short, {}), (long, {"error": ""}))
    ]
    assert outs[0] == outs[1]
    assert short.delivered == long.delivered
    assert (short.complete, short.usage) == (long.complete, long.usage)


# --- quirks --------------------------------------------------------------------------------------------------------

INLINE = Quirks(inline_thinking=True)


def test_reasoning_in_the_text_is_lifted_out_wherever_it_is_cut() -> None:
    text = "<think>\nNeed weather.\n</think>\n\n4 <think>"
    for cut in range(len(text)):
        events = [minimax([{"index": 0, "delta": {"content": piece}}]) for piece in (text[:cut], text[cut:])]
        out = play(translator(quirks=INLINE), *events, minimax([{"index": 0, "delta": {}, "finish_reason": "stop"}]))
        assert answer(out) == Answer(content="4 <think>", reasoning="Need weather."), cut


def test_reasoning_in_the_text_before_a_tool_call_leaves_no_text() -> None:
    events = [
        minimax([{"index": 0, "delta": {"content": "<think>\nNeed wea", "role": "assistant"}}]),
        minimax([{"index": 0, "delta": {"content": "ther.\n</think>\n\n\n"}}]),
        minimax([{"index": 0, "delta": {"content": "", **tool(0, "call_00_ioIn", "get_weather", PARIS)}}]),
        minimax([{"index": 0, "finish_reason": "tool_calls", "delta": {}}], usage=DEEPSEEK_USAGE),
    ]
    assert answer(play(translator(quirks=INLINE), *events)) == WEATHER


def test_stop_strings_are_looked_for_in_the_answer_and_not_in_the_reasoning() -> None:
    events = [deepseek({"content": piece}) for piece in ("<think>EN", "D</think> a", "bEND", "c")]
    out = play(translator(quirks=INLINE, stops=("END",)), *events, deepseek({}, "stop", DEEPSEEK_USAGE))
    assert answer(out) == Answer(content="ab", reasoning="END", usage=(13, 2, 5))


@given(
    st.text("ab <>/think\n", max_size=12),
    st.text("ab <>/think\n", max_size=12),
    st.lists(st.integers(0, 60), max_size=5),
    st.sampled_from([(), ("b",), ("ab", "k ")]),
)
def test_inline_thinking_does_not_depend_on_the_cut(
    reasoning: str, content: str, cuts: list[int], stops: tuple[str, ...]
) -> None:
    text = f"<think>{reasoning}</think>{content}"
    edges = sorted(min(cut, len(text)) for cut in cuts)
    pieces = [text[start:end] for start, end in zip([0, *edges], [*edges, len(text)], strict=True)]
    whole, cut = (
        answer(
            play(
                translator(quirks=INLINE, stops=stops),
                *(deepseek({"content": piece}) for piece in said),
                deepseek({}, "stop", DEEPSEEK_USAGE),
            )
        )
        for said in ([text], pieces)
    )
    assert (cut.content or "", cut.reasoning) == (whole.content or "", whole.reasoning)


@pytest.mark.parametrize("texts", [["The", " user", " says"], ["The", "The user", "The user says"]])
def test_details_of_reasoning_may_grow_or_go_on(texts: list[str]) -> None:
    details = [[{"type": "reasoning.text", "index": 0, "text": text}] for text in texts]
    events = [minimax([{"index": 0, "delta": {**NAMED, "reasoning_details": detail}}]) for detail in details]
    out = play(translator(), *events, deepseek({"content": "4"}), deepseek({}, "stop", DEEPSEEK_USAGE))
    assert answer(out) == Answer(content="4", reasoning="The user says", usage=(13, 2, 5))


def test_details_beside_reasoning_are_the_same_again() -> None:
    said = {**NAMED, "reasoning_content": "2+2 is 4.", "reasoning_details": [{"text": "2+2 is 4."}]}
    out = play(translator(), minimax([{"delta": said}]), deepseek({"content": "4"}), deepseek({}, "stop"))
    assert answer(out).reasoning == "2+2 is 4."


def test_ids_that_repeat_are_told_as_ours() -> None:
    events = [moonshot(tool(0, "get_weather_0", "f", "{}")), moonshot(tool(1, "get_weather_0", "f", "{}"))]
    quirks = Quirks(call_ids_repeat=True)
    calls = answer(play(translator(quirks=quirks), *events, moonshot({}, "tool_calls", MOONSHOT_USAGE))).calls
    assert [call[0] for call in calls] == ["call_vcours-get_weather_0", "call_ours_0_1"]


# --- what an answer begins with ------------------------------------------------------------------------------------


@pytest.mark.parametrize("before", [{}, {"reasoning_content": "Need weather."}])
def test_white_space_before_a_tool_call_is_left_out(before: dict[str, Any]) -> None:
    events = [minimax([{"delta": {**NAMED, **said}}]) for said in (before, {"content": "\n"}, {"content": " "})]
    out = play(translator(), *events, deepseek(tool(0, "a", "f", "{}")), deepseek({}, "tool_calls", DEEPSEEK_USAGE))
    assert answer(out).content is None


@pytest.mark.parametrize("before", [{}, {"reasoning_content": "2+2 is 4."}])
def test_white_space_before_text_is_part_of_it(before: dict[str, Any]) -> None:
    events = [deepseek(said) for said in (before, {"content": "\n"}, {"content": " "}, {"content": "4"})]
    assert answer(play(translator(), *events, deepseek({}, "stop", DEEPSEEK_USAGE))).content == "\n 4"


def test_an_answer_of_white_space_is_one() -> None:
    assert answer(play(translator(), deepseek({"content": "\n"}), deepseek({}, "stop", DEEPSEEK_USAGE))).content == "\n"


# --- other endings -------------------------------------------------------------------------------------------------


def test_moderation_that_lets_the_answer_stand_finishes_it() -> None:
    one = translator()
    filtered = minimax(None, usage=None, base_resp={"status_code": 1027, "status_msg": "output new_sensitive"})
    out = play(one, deepseek({"content": "Hello"}), filtered)
    assert answer(out) == Answer("Hello", finish_reason="content_filter")
    assert (one.complete, one.failure) == (True, None)


def test_moderation_of_an_answer_not_begun_is_an_error() -> None:
    one = translator()
    play(one, minimax(None, base_resp={"status_code": 1027, "status_msg": "output new_sensitive"}))
    assert one.failure is not None
    assert one.fault is not None


def test_a_whole_message_after_reasoning_brings_the_text() -> None:
    events = [
        minimax([{"index": 0, "delta": {**NAMED, "reasoning_content": "2+2 is 4."}}]),
        minimax([{"index": 0, "finish_reason": "stop", "message": {**NAMED, "content": "4"}}], usage=DEEPSEEK_USAGE),
    ]
    assert answer(play(translator(), *events)) == FOUR


def test_a_native_stream_is_read_from_within_its_output() -> None:
    said = {"choices": [{"message": {"content": "Hel", "role": "assistant"}, "finish_reason": "null"}]}
    last = {"choices": [{"message": {"content": "lo", "role": "assistant"}, "finish_reason": "stop"}]}
    used = {"input_tokens": 13, "output_tokens": 2, "total_tokens": 15}
    native = [
        b"id:1\nevent:result\n:HTTP_STATUS/200\ndata:"
        + json.dumps({"output": output, "usage": used}).encode()
        + b"\n\n"
        for output in (said, last)
    ]
    assert answer(play(translator(), *native)) == Answer("Hello", usage=(13, 2, 0))

"""The bytes of replies and chunks, as OpenAI's own SDK and the contract see them."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from vipcloud.dialects.chunks import DONE, ChunkWriter
from vipcloud.dialects.openai import FunctionCall, ToolCall, Usage
from vipcloud.dialects.replies import (
    Logprobs,
    Reply,
    ReplyChoice,
    ReplyMessage,
    TokenLogprob,
    encode_reply,
)
from vipcloud.providers import usage

USAGE: Usage = usage.of(9, 3)
USAGE_JSON = (
    '{"prompt_tokens":9,"completion_tokens":3,"total_tokens":12,'
    '"prompt_tokens_details":{"cached_tokens":0,"audio_tokens":0},'
    '"completion_tokens_details":{"reasoning_tokens":0,"audio_tokens":0,'
    '"accepted_prediction_tokens":0,"rejected_prediction_tokens":0}}'
)
HEAD = 'data: {"id":"chatcmpl-9f2c","object":"chat.completion.chunk","created":1795000000,"model":"vip","choices":['
LOGPROBS = Logprobs(content=[TokenLogprob("Hi", -0.5, [72, 105])])
LOGPROBS_JSON = '{"content":[{"token":"Hi","logprob":-0.5,"bytes":[72,105],"top_logprobs":[]}],"refusal":null}'


def writer(*, include_usage: bool = True, model: str = "vip") -> ChunkWriter:
    return ChunkWriter("chatcmpl-9f2c", 1_795_000_000, model, include_usage=include_usage)


def reply(message: ReplyMessage) -> dict[str, Any]:
    whole = Reply(
        id="chatcmpl-9f2c",
        object="chat.completion",
        created=1_795_000_000,
        model="vip-large",
        choices=[ReplyChoice(0, message, None, "stop")],
        usage=USAGE,
    )
    body = encode_reply(whole)
    ChatCompletion.model_validate_json(body, strict=True)
    decoded: dict[str, Any] = json.loads(body)
    return decoded


def test_a_reply_has_every_key_in_openais_order() -> None:
    body = reply(ReplyMessage(content="Hello."))
    assert json.dumps(body, separators=(",", ":")) == (
        '{"id":"chatcmpl-9f2c","object":"chat.completion","created":1795000000,"model":"vip-large",'
        '"choices":[{"index":0,"message":{"role":"assistant","content":"Hello.","refusal":null,"annotations":[]},'
        '"logprobs":null,"finish_reason":"stop"}],"usage":' + USAGE_JSON + ","
        '"service_tier":"default","system_fingerprint":null}'
    )


def test_reasoning_and_calls_are_keys_only_where_there_are_any() -> None:
    call = ToolCall(id="call_1", type="function", function=FunctionCall("f", "{}"))
    message = reply(ReplyMessage(reasoning_content="Hm.", tool_calls=[call]))["choices"][0]["message"]
    assert list(message) == ["role", "content", "refusal", "annotations", "reasoning_content", "tool_calls"]
    assert message["content"] is None
    assert message["tool_calls"] == [{"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
    message = reply(ReplyMessage(function_call=FunctionCall("f", "{}")))["choices"][0]["message"]
    assert list(message) == ["role", "content", "refusal", "annotations", "function_call"]


@pytest.mark.parametrize(
    ("write", "choice"),
    [
        (lambda w: w.role(), '"index":0,"delta":{"role":"assistant","content":"","refusal":null}'),
        (lambda w: w.role(None), '"index":0,"delta":{"role":"assistant","content":null,"refusal":null}'),
        (lambda w: w.role(index=2), '"index":2,"delta":{"role":"assistant","content":"","refusal":null}'),
        (lambda w: w.content('"é\n\x00'), '"index":0,"delta":{"content":"\\"é\\n\\u0000"}'),
        (lambda w: w.content("x", index=1), '"index":1,"delta":{"content":"x"}'),
        (lambda w: w.reasoning("x"), '"index":0,"delta":{"reasoning_content":"x"}'),
        (lambda w: w.reasoning("x", index=1), '"index":1,"delta":{"reasoning_content":"x"}'),
        (lambda w: w.refusal("No."), '"index":0,"delta":{"refusal":"No."}'),
        (
            lambda w: w.tool_start(0, "call_1", "f"),
            '"index":0,"delta":{"tool_calls":[{"index":0,"id":"call_1","type":"function",'
            '"function":{"name":"f","arguments":""}}]}',
        ),
        (
            lambda w: w.tool_start(1, "call_2", "f", first=True, index=1),
            '"index":1,"delta":{"role":"assistant","content":null,"refusal":null,"tool_calls":[{"index":1,'
            '"id":"call_2","type":"function","function":{"name":"f","arguments":""}}]}',
        ),
        (
            lambda w: w.tool_arguments(1, '{"'),
            '"index":0,"delta":{"tool_calls":[{"index":1,"function":{"arguments":"{\\""}}]}',
        ),
        (lambda w: w.function_start("f"), '"index":0,"delta":{"function_call":{"name":"f","arguments":""}}'),
        (
            lambda w: w.function_start("f", first=True),
            '"index":0,"delta":{"role":"assistant","content":null,"refusal":null,'
            '"function_call":{"name":"f","arguments":""}}',
        ),
        (lambda w: w.function_arguments("{}"), '"index":0,"delta":{"function_call":{"arguments":"{}"}}'),
    ],
)
@pytest.mark.parametrize("include_usage", [True, False])
def test_a_delta_is_written_as_openai_writes_it(
    write: Callable[[ChunkWriter], bytes], choice: str, include_usage: bool
) -> None:
    end = '"finish_reason":null}],"usage":null}\n\n' if include_usage else '"finish_reason":null}]}\n\n'
    written = write(writer(include_usage=include_usage)).decode()
    assert written == f'{HEAD}{{{choice},"logprobs":null,{end}'
    ChatCompletionChunk.model_validate_json(written.removeprefix("data: "), strict=True)


def test_log_probabilities_stand_beside_their_text() -> None:
    written = writer().content("Hi", logprobs=LOGPROBS).decode()
    assert written == (
        f'{HEAD}{{"index":0,"delta":{{"content":"Hi"}},"logprobs":{LOGPROBS_JSON},"finish_reason":null}}],'
        '"usage":null}\n\n'
    )
    ChatCompletionChunk.model_validate_json(written.removeprefix("data: "), strict=True)


def test_usage_has_a_chunk_of_its_own_for_those_who_asked() -> None:
    asked = writer(include_usage=True)
    finish = '{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}]'
    assert asked.finish("stop", usage=USAGE).decode() == f'{HEAD}{finish},"usage":null}}\n\n'
    assert asked.usage_chunk(USAGE).decode() == f'{HEAD}],"usage":{USAGE_JSON}}}\n\n'


def test_usage_rides_on_the_finish_chunk_for_those_who_did_not() -> None:
    silent = writer(include_usage=False)
    finish = '{"index":1,"delta":{},"logprobs":null,"finish_reason":"length"}]'
    assert silent.finish("length", index=1, usage=USAGE).decode() == f'{HEAD}{finish},"usage":{USAGE_JSON}}}\n\n'
    assert silent.finish("length", index=1).decode() == f"{HEAD}{finish}}}\n\n"


@given(st.text(), st.text())
def test_any_text_and_model_name_stay_one_line_of_json(text: str, model: str) -> None:
    written = writer(model=model).content(text)
    assert written.count(b"\n") == 2
    assert b"\r" not in written
    chunk = json.loads(written.removeprefix(b"data: "))
    assert chunk["choices"][0]["delta"]["content"] == text
    assert chunk["model"] == model


def test_done_is_the_last_event() -> None:
    assert DONE == b"data: [DONE]\n\n"

"""The providers' own bytes, as their reference sheets have them, through what reads them: whole, cut anywhere, cut off.

`wire/` holds the examples of section 5 ("Wire examples") of each provider's sheet: a `.http` file is the head and the
body of an answer, a `.sse` file the bytes of a stream.
"""

from pathlib import Path
from typing import Any

import pytest
from msgspec import Struct
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from vipcloud.dialects import chunks, replies
from vipcloud.dialects.chunks import ChunkWriter
from vipcloud.dialects.openai import Usage
from vipcloud.errors import GatewayError, UpstreamFailed
from vipcloud.providers import catalog, failures, reply
from vipcloud.providers import usage as counts
from vipcloud.providers.catalog import catalog_of
from vipcloud.providers.models import Provider
from vipcloud.providers.stream import StreamTranslator

WIRE = Path(__file__).parent / "wire"
PROVIDERS = catalog_of(catalog.packaged_toml()).providers
PARIS = '{"city": "Paris"}'


class Outcome(Struct, kw_only=True):
    """What became of an answer. `code` is the error's if it failed, `kind` what the provider's rules made of it."""

    content: str | None = None
    reasoning: str | None = None
    calls: list[tuple[str, str, str]] = []  # id, name, arguments
    finish: str | None = None
    usage: Usage | None = None
    code: str | None = None
    kind: str | None = None


def used(prompt: int, completion: int, cached: int = 0, reasoning: int = 0) -> Usage:
    return counts.of(prompt, completion, cached_tokens=cached, reasoning_tokens=reasoning)


def provider_of(name: str) -> Provider:
    return PROVIDERS[name.partition("-")[0]]


# --- streams -------------------------------------------------------------------------------------------------------

STREAMS = {
    "deepseek-text": Outcome(content="Hello", finish="stop", usage=used(13, 2)),
    "deepseek-reasoning-and-tool-call": Outcome(
        reasoning="Need weather.",
        calls=[("call_00_ioIn7yN9p1ZOMNpDLwd4MgAF", "get_weather", PARIS)],
        finish="tool_calls",
        usage=used(339, 83, 320, 39),
    ),
    "deepseek-reasoning-and-text": Outcome(content="4", reasoning="2+2 is 4.", code="upstream_interrupted"),
    "deepseek-error-event": Outcome(code="upstream_error", kind="server_error"),
    "deepseek-no-capacity": Outcome(code="upstream_error", kind="server_error", usage=None),
    "zhipu-text": Outcome(content="Hello", finish="stop", usage=used(8, 2)),
    "zhipu-reasoning-and-tool-call": Outcome(
        reasoning="Need weather.",
        calls=[("call_7cf82e40309b4ccda0cf9448", "get_weather", '{"city":"Paris"}')],
        finish="tool_calls",
        usage=used(166, 40, 0, 28),
    ),
    "zhipu-reasoning-and-text": Outcome(content="4", reasoning="2+2 is 4.", code="upstream_interrupted"),
    "zhipu-error-event": Outcome(code="upstream_error", kind="server_error"),
    "zhipu-sensitive": Outcome(content="", finish="content_filter", usage=used(8, 12)),
    "moonshot-text": Outcome(content="Hello", finish="stop", usage=used(9, 2)),
    "moonshot-reasoning-and-tool-call": Outcome(
        reasoning="Need weather.",
        calls=[("call_vcours-get_weather_0", "get_weather", '{"city":"Paris"}')],
        finish="tool_calls",
        usage=used(175, 58, 175, 6),
    ),
    "moonshot-reasoning-and-text": Outcome(content="4", reasoning="2+2 is 4.", code="upstream_interrupted"),
    "moonshot-overloaded": Outcome(code="upstream_error", kind="overloaded"),
    "moonshot-filtered": Outcome(content="", finish="content_filter", usage=used(9, 5)),
    "dashscope-text": Outcome(content="Hello", finish="stop", usage=used(10, 1)),
    "dashscope-tool-call": Outcome(
        calls=[("call_eee11723464a4b9eb8cee71d", "get_weather", PARIS)], finish="tool_calls", usage=used(295, 22)
    ),
    "dashscope-reasoning-and-text": Outcome(
        content="4", reasoning="2+2 is 4.", finish="stop", usage=used(24, 12, 0, 10)
    ),
    "dashscope-inspection": Outcome(code="content_filter", kind="content_filter"),
    "dashscope-native-inspection": Outcome(content="Hel", code="content_filter", kind="content_filter"),
    "minimax-reasoning-and-text": Outcome(
        content="Hello.", reasoning="The user says hi.", finish="stop", usage=used(769, 116, 443, 37)
    ),
    "minimax-native-replay": Outcome(content="Hello there.", finish="stop", usage=used(68, 5)),
    "minimax-inline-thinking-and-tool-call": Outcome(
        reasoning="Need weather.",
        calls=[("call_function_a6dzjuv09o80_1", "get_weather", PARIS)],
        finish="tool_calls",
        usage=used(14059, 75, 0, 25),
    ),
    "minimax-empty-role": Outcome(code="upstream_error"),
    "minimax-output-blocked": Outcome(code="content_filter", kind="output_filtered"),
}


def played(name: str, *reads: bytes) -> tuple[StreamTranslator, bytes]:
    """What has read `reads`, and what a caller got of them."""
    provider = provider_of(name)
    one = StreamTranslator(
        ChunkWriter("chatcmpl-ours", 1_795_000_000, "vip", include_usage=True),
        event_bytes_max=1 << 16,
        classify=lambda said: failures.classify_event(provider, said),
        quirks=provider.quirks,
    )
    out = b"".join(one.feed(data) for data in reads) + one.eof()
    if one.failure is None:
        out += one.final(one.usage)
        assert out.endswith(chunks.DONE)
    assert out.count(chunks.DONE) == (one.failure is None)
    return one, out


def outcome(one: StreamTranslator, out: bytes) -> Outcome:
    """`out` put together by the accumulator of OpenAI's SDK."""
    fault = one.fault
    came_to = Outcome(
        code=one.failure.code if one.failure else None,
        kind=fault.kind if isinstance(fault, failures.Failure) else None,
        usage=None if one.failure else one.usage,
    )
    state = ChatCompletionStreamState()
    events = [event[6:] for event in out.split(b"\n\n") if event and event != b"data: [DONE]"]
    for event in events:
        state.handle_chunk(ChatCompletionChunk.model_validate_json(event, strict=True))
    if events:
        fill(came_to, state.current_completion_snapshot.to_dict())
    return came_to


def fill(came_to: Outcome, whole: dict[str, Any]) -> None:
    (choice,) = whole["choices"]
    message = choice["message"]
    assert message["role"] == "assistant"
    came_to.content = message["content"]
    came_to.reasoning = message.get("reasoning_content")
    came_to.calls = [
        (call["id"], call["function"]["name"], call["function"]["arguments"])
        for call in message.get("tool_calls") or ()
    ]
    came_to.finish = choice["finish_reason"]


def test_every_example_has_its_outcome_here() -> None:
    files = {file.name for file in WIRE.iterdir()}
    assert files == {f"{name}.sse" for name in STREAMS} | {f"{name}.http" for name in REPLIES | ERRORS}


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_comes_to_the_same_however_it_is_cut(name: str) -> None:
    stream = (WIRE / f"{name}.sse").read_bytes()
    one, whole = played(name, stream)
    assert outcome(one, whole) == STREAMS[name]
    for cut in range(1, len(stream)):
        assert played(name, stream[:cut], stream[cut:])[1] == whole, cut
    assert played(name, *(stream[at : at + 1] for at in range(len(stream))))[1] == whole
    assert played(name, stream.replace(b"\n", b"\r\n"))[1] == whole


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_that_is_cut_off_is_never_sold_as_whole(name: str) -> None:
    stream = (WIRE / f"{name}.sse").read_bytes()
    _, whole = played(name, stream)
    for end in range(len(stream)):
        one, out = played(name, stream[:end])
        if one.failure is not None:
            assert whole.startswith(out), end
        else:
            expected = STREAMS[name]
            came_to = outcome(one, out)
            came_to.usage = expected.usage  # it may come last of all
            assert came_to == expected, end


# --- whole answers -------------------------------------------------------------------------------------------------

REPLIES = {
    "deepseek-text": Outcome(content="Hello there.", finish="stop", usage=used(13, 4)),
    "zhipu-text": Outcome(content="Hello.", finish="stop", usage=used(8, 3)),
    "moonshot-text": Outcome(content="Hello.", finish="stop", usage=used(9, 3, 0, 1)),
    "dashscope-text": Outcome(content="Hello.", finish="stop", usage=used(10, 3)),
    "minimax-reasoning-and-text": Outcome(
        content="Hello.", reasoning="Greet back.", finish="stop", usage=used(44, 43, 0, 20)
    ),
}
ERRORS: dict[str, tuple[str, str, str | None, float | None]] = {  # kind, code for the caller, state, wait in seconds
    "deepseek-wrong-key": ("auth", "upstream_error", "removed", None),
    "zhipu-rate": ("rate_limited", "rate_limited", "cooling", None),
    "zhipu-arrears": ("arrears", "upstream_error", "suspended", None),
    "zhipu-sensitive": ("content_filter", "content_filter", None, None),
    "moonshot-concurrency": ("rate_limited", "rate_limited", "cooling", 1),
    "moonshot-suspended": ("arrears", "upstream_error", "suspended", None),
    "dashscope-tokens-per-minute": ("rate_limited", "rate_limited", "cooling", None),
    "dashscope-arrears": ("arrears", "upstream_error", "suspended", None),
    "dashscope-native-rate": ("rate_limited", "rate_limited", "cooling", None),
    "minimax-two-systems": ("bad_request", "bad_request", None, None),
    "minimax-system-not-first": ("bad_request", "bad_request", None, None),
    "minimax-native-wrong-key": ("auth", "upstream_error", "removed", None),
}


def answered(name: str) -> tuple[int, str | None, bytes]:
    """Status, `Retry-After` and body of an example."""
    head, _, body = (WIRE / f"{name}.http").read_bytes().partition(b"\n\n")
    status, *lines = head.decode().split("\n")
    headers = dict(line.split(": ", 1) for line in lines)
    return int(status.split()[1]), headers.get("retry-after"), body


def read(name: str, body: bytes) -> Outcome:
    provider = provider_of(name)
    answer = reply.read_reply(
        body,
        id="chatcmpl-ours",
        model="vip",
        created=1_795_000_000,
        classify=lambda said: failures.classify_event(provider, said),
        quirks=provider.quirks,
    )
    came_to = Outcome(usage=answer.usage)
    fill(came_to, ChatCompletion.model_validate_json(replies.encode_reply(answer)).to_dict())
    return came_to


@pytest.mark.parametrize("name", REPLIES)
def test_a_whole_answer_is_read_and_half_of_one_is_not(name: str) -> None:
    status, _, body = answered(name)
    assert status == 200
    assert read(name, body) == REPLIES[name]
    for end in range(len(body.rstrip())):
        with pytest.raises(UpstreamFailed):
            read(name, body[:end])


@pytest.mark.parametrize("name", ERRORS)
def test_an_error_means_to_caller_and_account_what_the_sheet_says(name: str) -> None:
    status, retry_after, body = answered(name)
    kind, code, state, wait_s = ERRORS[name]
    provider = provider_of(name)
    if status == 200:
        with pytest.raises(GatewayError) as caught:
            read(name, body)
        assert caught.value.code == code
    for padded in (body, b"\n\n" + body, b"data: " + body):
        failure = failures.classify(provider, status, padded, retry_after)
        assert (failure.kind, failure.error().code, failure.account_state) == (kind, code, state)
        assert failure.retry_after_s == wait_s
    for end in range(len(body)):
        assert failures.classify(provider, status, body[:end], retry_after).error().status in (400, 429, 502, 504)

"""What we answer to `POST /v1/chat/completions`: whole replies and chunks of streams, in OpenAI's key order.

Whole replies are encoded as they stand; `chunks` writes the streams.

Sources: openai/openai-openapi `CreateChatCompletionResponse` and `CreateChatCompletionStreamResponse` (API 2.3.0, seen
2026-08-21); the order of chunks as in streams recorded in openai-python. `reasoning_content` is DeepSeek's convention.
"""

from typing import Any, Literal

import msgspec
from msgspec import UNSET, Struct, UnsetType, field

from vipcloud.dialects.openai import FinishReason, FunctionCall, ToolCall, Usage

RoleContent = Literal[""] | None

_encode = msgspec.json.Encoder().encode


# --- a whole reply ---------------------------------------------------------------------------------------------


class TopLogprob(Struct):
    token: str
    logprob: float
    bytes: list[int] | None = None


class TokenLogprob(Struct):
    token: str
    logprob: float
    bytes: list[int] | None = None
    top_logprobs: list[TopLogprob] = field(default_factory=list)


class Logprobs(Struct):
    content: list[TokenLogprob] | None = None
    refusal: list[TokenLogprob] | None = None


class ReplyMessage(Struct):
    """`content` is null beside tool calls and refusals. Keys that are UNSET are absent on the wire, never null."""

    role: Literal["assistant"] = "assistant"
    content: str | None = None
    refusal: str | None = None
    annotations: list[Any] = field(default_factory=list)
    reasoning_content: str | UnsetType = UNSET
    tool_calls: list[ToolCall] | UnsetType = UNSET
    function_call: FunctionCall | UnsetType = UNSET


class ReplyChoice(Struct):
    index: int
    message: ReplyMessage
    logprobs: Logprobs | None
    finish_reason: FinishReason


class Reply(Struct):
    """`usage` is None where the upstream gave none that can be believed; who encodes it has put a count there."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[ReplyChoice]
    usage: Usage | None
    service_tier: Literal["default"] = "default"
    system_fingerprint: None = None


def encode_reply(reply: Reply) -> bytes:
    """The body of a `200`."""
    return _encode(reply)


def hide_reasoning(reply: Reply) -> None:
    """Leave it out of the answer; what it cost stays in the usage."""
    for choice in reply.choices:
        choice.message.reasoning_content = UNSET


# --- a stream ----------------------------------------------------------------------------------------------------


class CallDelta(Struct, forbid_unknown_fields=True):
    """`name` comes with the first part of a call, `arguments` in parts."""

    arguments: str | UnsetType = UNSET
    name: str | UnsetType = UNSET


class ToolCallDelta(Struct, forbid_unknown_fields=True):
    """`id` and `type` come with the first part of a call."""

    index: int
    function: CallDelta
    id: str | UnsetType = UNSET
    type: Literal["function"] | UnsetType = UNSET


class Delta(Struct, forbid_unknown_fields=True):
    """What is new."""

    role: Literal["assistant"] | UnsetType = UNSET
    content: str | UnsetType | None = UNSET
    refusal: str | UnsetType | None = UNSET
    reasoning_content: str | UnsetType = UNSET
    tool_calls: list[ToolCallDelta] | UnsetType = UNSET
    function_call: CallDelta | UnsetType = UNSET


class ChunkChoice(Struct, forbid_unknown_fields=True):
    index: int
    delta: Delta
    logprobs: Logprobs | None
    finish_reason: FinishReason | None


class Chunk(Struct, forbid_unknown_fields=True):
    """One event of a stream: what `ChunkWriter` writes, as a type."""

    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    choices: list[ChunkChoice]
    usage: Usage | UnsetType | None = UNSET

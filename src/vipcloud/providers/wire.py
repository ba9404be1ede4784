"""What goes to upstreams and comes from them, as types for msgspec. Nothing is done here: `translate` fills the bodies,
`reply` and `stream` read the answers.
"""

from typing import Annotated, Any, Final, Generic, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct, field

from vipcloud.dialects.openai import (
    AssistantMessage,
    FunctionChoice,
    FunctionTool,
    Message,
    ResponseFormat,
)

# --- what upstreams take -----------------------------------------------------------------------------------------


class UsageOption(Struct):
    include_usage: bool = True


class Body(Struct, omit_defaults=True):
    """What goes upstream of a request that is no `PlainChat`, before a candidate's tail. None is "left out"."""

    model: str
    messages: list[Message]
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    do_sample: bool | None = None
    temperature: float | None = None
    top_p: float | None = None
    stream: bool | None = None
    stream_options: UsageOption | None = None
    user_id: str | None = None
    safety_identifier: str | None = None
    request_id: str | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    seed: int | None = None
    logit_bias: dict[str, int] | None = None
    stop: list[str] | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    n: int | None = None
    tools: list[FunctionTool] | None = None
    tool_choice: str | FunctionChoice | None = None
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormat | None = None
    reasoning_effort: str | None = None
    thinking_budget: int | None = None


class Beginning(AssistantMessage, tag="assistant", tag_field="role", omit_defaults=True):
    """The answer so far, marked as such in the provider's way."""

    prefix: bool | None = None
    partial: bool | None = None


# --- what upstreams send -----------------------------------------------------------------------------------------

Count = Annotated[int, Meta(ge=0)]


class _PromptCounts(Struct, gc=False):
    cached_tokens: Count | None = None
    cache_creation_input_tokens: Literal[0] | None = None


class _CompletionCounts(Struct, gc=False):
    reasoning_tokens: Count | None = None


class Counts(Struct, gc=False):
    """The usage of a reply with some text in it: no zero among the counts that have to be there."""

    prompt_tokens: Annotated[int, Meta(ge=1)]
    completion_tokens: Annotated[int, Meta(ge=1)]
    prompt_cache_hit_tokens: Count | None = None
    prompt_tokens_details: _PromptCounts | None = None
    cached_tokens: Count | None = None
    completion_tokens_details: _CompletionCounts | None = None
    cache_creation_input_tokens: Literal[0] | None = None


class WireFunction(Struct, gc=False):
    name: str | None = None
    arguments: str | None = None


class WireCall(Struct, gc=False):
    index: int | None = None
    id: str | None = None
    function: WireFunction | None = None


class WireMessage(Struct, gc=False):
    """A delta or a message. `reasoning` is OpenRouter's name for `reasoning_content`; MiniMax may send it as
    `reasoning_details` only."""

    content: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[WireCall] | None = None
    refusal: str | None = None
    reasoning: str | None = None
    function_call: WireFunction | None = None
    reasoning_details: Any = None


class WireChoice(Struct, gc=False):
    """`usage` inside the choice is Moonshot's."""

    index: int | None = None
    delta: WireMessage | None = None
    logprobs: Any = None
    finish_reason: str | None = None
    message: WireMessage | None = None
    usage: Any = None


class WireReply(Struct, gc=False):
    """A chunk or a whole reply. `base_resp` is MiniMax's place for errors."""

    choices: list[WireChoice] | None = None
    usage: Any = None
    error: Any = None
    base_resp: Any = None


# What most upstreams send most of the time. A field of these types that stands here without being read is one that must
# not say anything: where it does, decoding fails and `WireReply` is the next reading.

_NoText = Annotated[str, Meta(max_length=0)] | None
_NoItems = Annotated[list[Any], Meta(max_length=0)] | None


class _NoFault(Struct, gc=False):
    status_code: Literal[0] | None = None


class _TextDelta(Struct, gc=False):
    text: Annotated[str, Meta(min_length=1)] = field(name="content")
    reasoning_content: _NoText = None
    tool_calls: _NoItems = None
    function_call: None = None
    refusal: _NoText = None
    reasoning: _NoText = None
    reasoning_details: _NoItems = None


class _ReasoningDelta(Struct, gc=False):
    text: Annotated[str, Meta(min_length=1)] = field(name="reasoning_content")
    content: _NoText = None
    tool_calls: _NoItems = None
    function_call: None = None
    refusal: _NoText = None
    reasoning: _NoText = None


_Delta = TypeVar("_Delta")


class _PlainChoice(Struct, Generic[_Delta], gc=False):
    delta: _Delta
    index: Literal[0] | None = None
    finish_reason: Literal["", "null"] | None = None
    logprobs: None = None
    usage: None = None


class _PlainChunk(Struct, Generic[_Delta], gc=False):
    choices: Annotated[list[_PlainChoice[_Delta]], Meta(min_length=1, max_length=1)]
    usage: None = None
    error: None = None
    base_resp: _NoFault | None = None


class _TextMessage(Struct, gc=False):
    content: Annotated[str, Meta(min_length=1)]
    reasoning_content: str | None = None
    tool_calls: _NoItems = None
    function_call: None = None
    refusal: _NoText = None
    reasoning: _NoText = None
    reasoning_details: Any = None


class _TextChoice(Struct, gc=False):
    message: _TextMessage
    finish_reason: Literal["stop", "length"]
    index: Literal[0] | None = None
    logprobs: None = None


class _TextReply(Struct, gc=False):
    choices: Annotated[list[_TextChoice], Meta(min_length=1, max_length=1)]
    usage: Counts
    error: None = None
    base_resp: _NoFault | None = None


decode_text_chunk = msgspec.json.Decoder(_PlainChunk[_TextDelta]).decode
decode_reasoning_chunk = msgspec.json.Decoder(_PlainChunk[_ReasoningDelta]).decode
decode_text_reply = msgspec.json.Decoder(_TextReply).decode
decode_strictly = msgspec.json.Decoder(WireReply).decode
UNDECODED: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

"""Whole answers of upstreams in our terms, and what they share with streamed ones (`stream`).

Theory of operation. A body or event is decoded into structs that hold only what we pass on, so vendors' own keys are
gone by construction (`wire`). There are three readings, each for what the one before refuses:

    `_TextReply`, `_PlainChunk`  one choice of text, and nothing that needs a look: most replies and chunks are this
    `WireReply`                  all that we pass on: calls, several choices, errors, endings of every kind
    untyped                      a number where a text should be, an object for arguments, NaN, bytes that are no UTF-8:
                                 put into a `WireReply` as far as it makes sense

In a `WireReply` `usage` stays untyped until `usage.read` judges it: wrong counts spoil no answer.

Errors inside an answer of status 200 go to a `Classify`, which knows the provider's codes.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, Protocol

import msgspec
from msgspec import UNSET, UnsetType

from vipcloud.dialects.openai import FinishReason, FunctionCall, ToolCall
from vipcloud.dialects.replies import Logprobs, Reply, ReplyChoice, ReplyMessage
from vipcloud.dialects.text_reply import TextReply
from vipcloud.errors import ContextLengthExceeded, GatewayError, UpstreamFailed
from vipcloud.providers import call_ids, usage
from vipcloud.providers.catalog_rows import ORDINARY, Quirks
from vipcloud.providers.reply_shapes import ReplyShapes
from vipcloud.providers.thinking import Thinking
from vipcloud.providers.wire import (
    UNDECODED,
    WireCall,
    WireChoice,
    WireFunction,
    WireMessage,
    WireReply,
    decode_strictly,
    decode_text_reply,
)

# Contract sheet of chat completions, finish_reason; DeepSeek, Zhipu and MiniMax pages, seen 2026-11. Any other word
# becomes `stop`: typed clients refuse words they do not know.
FINISH_REASONS: Final[dict[str, FinishReason]] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "tool_use": "tool_calls",
    "content_filter": "content_filter",
    "sensitive": "content_filter",
    "output_sensitive": "content_filter",
    "refusal": "content_filter",
    "SAFETY": "content_filter",
    "max_tokens": "length",
    "MAX_TOKENS": "length",
    "model_context_window_exceeded": "length",
}
UNFINISHED: Final = frozenset({"", "null"})
BROKEN: Final = frozenset({"network_error", "insufficient_system_resource", "aborted", "error"})
CONTEXT_EXCEEDED: Final = "model_context_window_exceeded"

NO_NAMES: Final[Mapping[str, str]] = MappingProxyType({})
_LINE_END: Final = 0x0A

_encode: Final = msgspec.json.Encoder().encode


class Fault(Protocol):
    """An error that an upstream reported, as its provider's rules understand it (`failures.Failure`)."""

    @property
    def retryable(self) -> bool: ...
    @property
    def ends_answer(self) -> bool: ...
    def error(self) -> GatewayError: ...


Classify = Callable[[dict[str, Any]], Fault]


class Malformed(ValueError):
    """Not a JSON object, by any reading."""


def decode(data: bytes) -> WireReply:
    """Raises Malformed."""
    try:
        return decode_strictly(data)
    except UNDECODED:
        return _reply(payload(data))


def payload(data: bytes) -> dict[str, Any]:
    """All that `data` says, untyped. Takes NaN and invalid UTF-8. Raises Malformed."""
    try:
        decoded = json.loads(data.decode("utf-8", "replace"))
    except (ValueError, RecursionError) as error:
        raise Malformed("the upstream sent something that is not JSON") from error
    if not isinstance(decoded, dict):
        raise Malformed("the upstream sent JSON that is no object")
    return decoded


def _reply(wire: dict[str, Any]) -> WireReply:
    choices = wire.get("choices")
    return WireReply(
        choices=[_choice(choice) for choice in choices if isinstance(choice, dict)]
        if isinstance(choices, list)
        else None,
        usage=wire.get("usage"),
        error=wire.get("error"),
        base_resp=wire.get("base_resp"),
    )


def _choice(wire: dict[str, Any]) -> WireChoice:
    return WireChoice(
        index=_index(wire.get("index")),
        delta=_message(wire.get("delta")),
        logprobs=wire.get("logprobs"),
        finish_reason=_text(wire.get("finish_reason")),
        message=_message(wire.get("message")),
        usage=wire.get("usage"),
    )


def _message(wire: Any) -> WireMessage | None:
    if not isinstance(wire, dict):
        return None
    calls = wire.get("tool_calls")
    return WireMessage(
        content=_content(wire.get("content")),
        reasoning_content=_text(wire.get("reasoning_content")),
        tool_calls=[_call(call) for call in calls if isinstance(call, dict)] if isinstance(calls, list) else None,
        refusal=_text(wire.get("refusal")),
        reasoning=_text(wire.get("reasoning")),
        function_call=_function(wire.get("function_call")),
        reasoning_details=wire.get("reasoning_details"),
    )


def _call(wire: dict[str, Any]) -> WireCall:
    return WireCall(index=_index(wire.get("index")), id=_text(wire.get("id")), function=_function(wire.get("function")))


def _function(wire: Any) -> WireFunction | None:
    if not isinstance(wire, dict):
        return None
    arguments = wire.get("arguments")
    if isinstance(arguments, dict | list):
        arguments = json.dumps(arguments, ensure_ascii=False, separators=(",", ":"))
    return WireFunction(name=_text(wire.get("name")), arguments=_text(arguments))


def _content(wire: Any) -> str | None:
    """A text, or the texts of a list of parts."""
    if isinstance(wire, list):
        return "".join(_text(part.get("text")) or "" for part in wire if isinstance(part, dict))
    return _text(wire)


def _index(value: Any) -> int | None:
    return value if type(value) is int else None


def _text(value: Any) -> str | None:
    """`value` if it is a text; halves of surrogate pairs, which UTF-8 cannot carry, become U+FFFD."""
    if not isinstance(value, str):
        return None
    return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


# --- what whole and streamed answers share -----------------------------------------------------------------------


def reports_error(wire: WireReply) -> bool:
    """Whether a reply of status 200 is an error: an `error` key, or MiniMax's `base_resp` with another code than 0."""
    if wire.error:
        return True
    base = wire.base_resp
    return isinstance(base, dict) and base.get("status_code") not in (None, 0, "0")


def is_bare_error(said: dict[str, Any]) -> bool:
    """Whether `said` is DashScope's native error, which has no `error` around it."""
    return "code" in said and "message" in said


def native(said: dict[str, Any]) -> WireReply | None:
    """DashScope's own form of a reply or chunk, from within its `output`; None where `said` is none.

    A stream in this form must have been asked for with `incremental_output`: else each text repeats the one before.
    """
    output = said.get("output")
    if not isinstance(output, dict):
        return None
    if "choices" not in output and "text" in output:
        message = {"content": output["text"]}
        output = {"choices": [{"message": message, "finish_reason": output.get("finish_reason")}]}
    answer = _reply({"choices": output.get("choices"), "usage": said.get("usage")})
    for choice in answer.choices or ():
        choice.delta, choice.message = choice.message, None  # it is the next piece, by any name
    return answer


def details_text(wire: Any) -> str:
    """The text of MiniMax's `reasoning_details`."""
    if not isinstance(wire, list):
        return ""
    return "".join(_text(part.get("text")) or "" for part in wire if isinstance(part, dict))


def broken(word: str) -> dict[str, Any]:
    """The error that a finish reason of `BROKEN` stands for, in the form that a `Classify` takes."""
    return {"error": {"code": word, "message": f"it ended the answer with {word}"}}


def context_exceeded() -> ContextLengthExceeded:
    return ContextLengthExceeded("The messages leave no room for an answer in the model's context.", param="messages")


def finish_reason(word: str, *, calls: bool, legacy_functions: bool) -> FinishReason:
    """`word` in OpenAI's terms. With calls `stop` means `tool_calls`; without any it is the other way round."""
    reason = FINISH_REASONS.get(word, "stop")
    if reason not in {"stop", "tool_calls"}:
        return reason
    if not calls:
        return "stop"
    return "function_call" if legacy_functions else "tool_calls"


def call_id(reply_id: str, choice: int, call: int) -> str:
    """An id for a call that came without one; the same for the same place in the same reply."""
    return f"call_{reply_id.removeprefix('chatcmpl-')}_{choice}_{call}"


def log_probabilities(wire: Any) -> Logprobs | None:
    """None where there are none, or none that make sense."""
    if not isinstance(wire, dict):
        return None
    try:
        return msgspec.convert(wire, Logprobs)
    except msgspec.ValidationError:
        return None


def first_stop(text: str, stops: tuple[str, ...]) -> int:
    """Where the first stop string of `text` begins; -1 without one.

    The first is the one that ends first, for that is where generation would have stopped; so the answer does not depend
    on how a stream cuts the text. Of two that end together it is the longer.
    """
    found = [(at + len(stop), at) for stop in stops if (at := text.find(stop)) >= 0]
    return min(found)[1] if found else -1


# --- a whole reply -----------------------------------------------------------------------------------------------


def read_text(
    body: bytes,
    id: str,  # noqa: A002
    model: bytes,
    created: int,
    shapes: ReplyShapes,
    usage_tokens_max: int = usage.TOKENS_MAX,
) -> TextReply | None:
    """As `read_reply`, of a body that holds one text and nothing that needs a look: most do. None of any other.

    `model` is as JSON, `shapes` are those of the upstream's replies. Not for upstreams that put their thoughts inline,
    nor where the gateway has to look for stop strings.
    """
    if body and body[0] == _LINE_END:
        body = body.lstrip(b"\n")  # DeepSeek's keep-alive, as many as it took
    found = shapes.read(body, id, model, created, usage_tokens_max)
    if found is not None:
        return found
    try:
        said = decode_text_reply(body)
    except UNDECODED:
        return None  # more than text, or not as it should be
    choice = said.choices[0]
    message = choice.message
    reasoning = message.reasoning_content or ""
    if not reasoning and message.reasoning_details:
        reasoning = details_text(message.reasoning_details)
    if not reasoning:
        shapes.learn(body, said)
    text, used = message.content, usage.of_counts(said.usage, usage_tokens_max)
    return TextReply(id, created, model, text, _encode(text), reasoning, choice.finish_reason, used)


def read_reply(
    body: bytes,
    *,
    id: str,  # noqa: A002
    model: str,
    created: int,
    classify: Classify,
    stops: tuple[str, ...] = (),
    legacy_functions: bool = False,
    quirks: Quirks = ORDINARY,
    tool_names: Mapping[str, str] = NO_NAMES,
    usage_tokens_max: int = usage.TOKENS_MAX,
) -> Reply:
    """The body of an upstream's `200` as our reply; `id`, `model` and `created` are ours.

    `stops` are strings that the upstream does not look for itself, `quirks` those of the candidate; `tool_names` has by
    the upstream's name of a tool the caller's, where they differ. Raises what `classify` makes of an error in the body,
    ContextLengthExceeded, or UpstreamFailed for a body that is no completion.
    """
    try:
        wire = _decode_body(body)
        if reports_error(wire):
            raise classify(payload(_bare(body))).error()
        if not wire.choices:
            wire = _native_or_error(payload(_bare(body)), classify)
            assert wire.choices, "an answer without choices is an error"
    except Malformed as error:
        raise UpstreamFailed("The provider's answer could not be read.") from error
    reading = _Reading(id, classify, tuple(filter(None, stops)), legacy_functions, quirks, tool_names)
    choices = [reading.choice(choice, position) for position, choice in enumerate(wire.choices)]
    counts = wire.usage if wire.usage is not None else wire.choices[-1].usage
    output_seen = any(choice.message.content for choice in choices)
    return Reply(
        id=id,
        object="chat.completion",
        created=created,
        model=model,
        choices=choices,
        usage=usage.read(counts, usage_tokens_max, output_seen=output_seen),
    )


def _bare(body: bytes) -> bytes:
    """`body` without what stands around its JSON: keep-alive lines (DeepSeek), a stray `data:` (DashScope)."""
    data = body.strip()
    return data[5:].strip() if data.startswith(b"data:") else data


def _decode_body(body: bytes) -> WireReply:
    """Raises Malformed."""
    try:
        return decode_strictly(body)  # which takes white space around the JSON
    except UNDECODED:
        return decode(_bare(body))


def said(reply: Reply) -> tuple[str, str, str]:
    """The texts of a reply, content, reasoning and calls, to be counted where its upstream sent no usage."""
    content, reasoning, calls = [], [], []
    for choice in reply.choices:
        message = choice.message
        content += [message.content or "", message.refusal or ""]
        reasoning.append(message.reasoning_content or "")
        functions = [call.function for call in message.tool_calls or ()]
        for function in (message.function_call or None, *functions):
            if function is not None:
                calls += [function.name, function.arguments]
    return "".join(content), "".join(reasoning), "".join(calls)


def _native_or_error(said: dict[str, Any], classify: Classify) -> WireReply:
    """A body without `choices` as DashScope's native answer. Raises what else it may be, its native errors first."""
    answer = native(said)
    if answer is not None and answer.choices:
        return answer
    if is_bare_error(said):
        raise classify(said).error()
    raise UpstreamFailed("The provider's answer holds no completion.")


@dataclass(slots=True)
class _Reading:
    """How the choices of a reply are read: what `read_reply` was told."""

    reply_id: str
    classify: Classify
    stops: tuple[str, ...]
    legacy_functions: bool
    quirks: Quirks
    tool_names: Mapping[str, str]

    def choice(self, wire: WireChoice, position: int) -> ReplyChoice:
        index = position if wire.index is None else wire.index
        said = wire.message or wire.delta or WireMessage()
        word = wire.finish_reason or "stop"
        if word in BROKEN:
            raise self.classify(broken(word)).error()
        reasoning, content = self._taken_apart(said)
        if word == CONTEXT_EXCEEDED and not (content or reasoning or said.tool_calls):
            raise context_exceeded()
        calls = self._calls(said, index)
        if self.stops and (cut := first_stop(content, self.stops)) >= 0:
            content, calls, word = content[:cut], [], "stop"
        return ReplyChoice(
            index=index,
            message=self._message(said, reasoning, content, calls),
            logprobs=None if wire.logprobs is None else log_probabilities(wire.logprobs),
            finish_reason=finish_reason(word, calls=bool(calls), legacy_functions=self.legacy_functions),
        )

    def _taken_apart(self, said: WireMessage) -> tuple[str, str]:
        """Reasoning and answer."""
        reasoning = said.reasoning_content or said.reasoning or details_text(said.reasoning_details)
        content = said.content or ""
        if not self.quirks.inline_thinking:
            return reasoning, content
        thinking = Thinking()
        parts = thinking.feed(content), thinking.end()
        lifted = "".join(part[0] for part in parts)
        return reasoning or lifted, "".join(part[1] for part in parts)

    def _message(self, said: WireMessage, reasoning: str, content: str, calls: list[ToolCall]) -> ReplyMessage:
        # MiniMax puts "\n" beside tool calls (seen 2026-11).
        shown = None if (calls and not content.strip()) or (said.refusal and not content) else content
        function_call: FunctionCall | UnsetType = UNSET
        tool_calls: list[ToolCall] | UnsetType = UNSET
        if calls and self.legacy_functions:
            function_call = calls[0].function or UNSET
        elif calls:
            tool_calls = calls
        return ReplyMessage(
            content=shown,
            refusal=said.refusal or None,
            reasoning_content=reasoning or UNSET,
            tool_calls=tool_calls,
            function_call=function_call,
        )

    def _calls(self, said: WireMessage, choice: int) -> list[ToolCall]:
        wire_calls = said.tool_calls or []
        if not wire_calls and said.function_call is not None:
            wire_calls = [WireCall(function=said.function_call)]
        calls: list[ToolCall] = []
        used: set[str] = set()
        for wire in wire_calls:
            if wire.function is None:
                continue
            given = wire.id or ""
            if not given or given in used:
                given = call_id(self.reply_id, choice, len(calls))
            elif self.quirks.call_ids_repeat:
                used.add(given)
                given = call_ids.unique(self.reply_id, given)
            used.add(given)
            name = wire.function.name or ""
            function = FunctionCall(self.tool_names.get(name, name), wire.function.arguments or "{}")
            calls.append(ToolCall(id=given, type="function", function=function))
        return calls

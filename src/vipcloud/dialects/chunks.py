"""A stream's chunks as bytes, in OpenAI's key order; what they say is `replies.Chunk`.

Theory of operation. `id`, `object`, `created` and `model` are the same on every chunk by contract, so `ChunkWriter`
encodes them once, together with all else that does not change. A text chunk is three pieces: what stands before the
text, the text as JSON, what stands after it. Nothing here decides what comes when; `providers.stream` does.
"""

from collections.abc import Iterator
from typing import Final

import msgspec

from vipcloud.dialects.openai import FinishReason, Usage
from vipcloud.dialects.replies import Logprobs, Reply, ReplyChoice, RoleContent

DONE: Final = b"data: [DONE]\n\n"

_encode: Final = msgspec.json.Encoder().encode


class ChunkWriter:
    """Chunks of one stream, each a whole event `data: {…}\\n\\n`.

    `index` is the choice. With `include_usage` every chunk says `"usage":null` until `usage_chunk`, which has no
    choices. Without it there is no such chunk, because clients that did not ask index `choices[0]`; usage then rides
    on the finish chunk, the last one before `[DONE]`.

    A chunk of choice 0's text is `text_head`, the text as JSON, `text_tail`, one of its reasoning the same behind
    `reasoning_head`; who writes thousands may do so itself.
    """

    __slots__ = ("_after_delta", "_head", "id", "include_usage", "reasoning_head", "text_head", "text_tail")

    def __init__(self, id: str, created: int, model: str, *, include_usage: bool) -> None:  # noqa: A002
        self.id = id
        self.include_usage = include_usage
        usage = b',"usage":null' if include_usage else b""
        self._head = b'data: {"id":%b,"object":"chat.completion.chunk","created":%d,"model":%b,"choices":[' % (
            _encode(id),
            created,
            _encode(model),
        )
        # After a delta's closing brace, of a chunk that neither finishes nor has log probabilities.
        self._after_delta = b',"logprobs":null,"finish_reason":null}]%b}\n\n' % usage
        self.text_head = self._before_delta(0) + b'{"content":'
        self.reasoning_head = self._before_delta(0) + b'{"reasoning_content":'
        self.text_tail = b"}" + self._after_delta

    def role(self, content: RoleContent = "", *, index: int = 0) -> bytes:
        """The first chunk of a choice. `content` is None where no text is expected: reasoning or a refusal follows."""
        return self._chunk(index, b'{"role":"assistant","content":%b,"refusal":null}' % _encode(content))

    def content(self, text: str, *, index: int = 0, logprobs: Logprobs | None = None) -> bytes:
        if index == 0 and logprobs is None:
            return self.text_head + _encode(text) + self.text_tail
        return self._chunk(index, b'{"content":%b}' % _encode(text), logprobs)

    def reasoning(self, text: str, *, index: int = 0) -> bytes:
        if index == 0:
            return self.reasoning_head + _encode(text) + self.text_tail
        return self._chunk(index, b'{"reasoning_content":%b}' % _encode(text))

    def refusal(self, text: str, *, index: int = 0, logprobs: Logprobs | None = None) -> bytes:
        return self._chunk(index, b'{"refusal":%b}' % _encode(text), logprobs)

    def tool_start(
        self, tool_index: int, call_id: str, name: str, arguments: str = "", *, index: int = 0, first: bool = False
    ) -> bytes:
        """The only chunk of a call with its id, type and name. `first`: it opens the choice and carries the role."""
        call = b'"tool_calls":[{"index":%d,"id":%b,"type":"function","function":{"name":%b,"arguments":%b}}]' % (
            tool_index,
            _encode(call_id),
            _encode(name),
            _encode(arguments),
        )
        return self._chunk(index, self._opening(call, first))

    def tool_arguments(self, tool_index: int, text: str, *, index: int = 0) -> bytes:
        delta = b'{"tool_calls":[{"index":%d,"function":{"arguments":%b}}]}' % (tool_index, _encode(text))
        return self._chunk(index, delta)

    def function_start(self, name: str, arguments: str = "", *, index: int = 0, first: bool = False) -> bytes:
        """As `tool_start`, for callers of the legacy `functions`."""
        call = b'"function_call":{"name":%b,"arguments":%b}' % (_encode(name), _encode(arguments))
        return self._chunk(index, self._opening(call, first))

    def function_arguments(self, text: str, *, index: int = 0) -> bytes:
        return self._chunk(index, b'{"function_call":{"arguments":%b}}' % _encode(text))

    def finish(self, reason: FinishReason, *, index: int = 0, usage: Usage | None = None) -> bytes:
        """The last chunk of a choice. `usage` belongs to the last choice of a stream that has no usage chunk."""
        tail = b"}]"
        if self.include_usage:
            tail = b'}],"usage":null'
        elif usage is not None:
            tail = b'}],"usage":' + _encode(usage)
        return b'%b{},"logprobs":null,"finish_reason":"%b"%b}\n\n' % (self._before_delta(index), reason.encode(), tail)

    def usage_chunk(self, usage: Usage) -> bytes:
        """The chunk between the last finish chunk and `[DONE]`, for callers that asked for it."""
        return b'%b],"usage":%b}\n\n' % (self._head, _encode(usage))

    def _before_delta(self, index: int) -> bytes:
        return b'%b{"index":%d,"delta":' % (self._head, index)

    def _opening(self, call: bytes, first: bool) -> bytes:
        return b'{"role":"assistant","content":null,"refusal":null,%b}' % call if first else b"{%b}" % call

    def _chunk(self, index: int, delta: bytes, logprobs: Logprobs | None = None) -> bytes:
        if logprobs is None:
            return self._before_delta(index) + delta + self._after_delta
        usage = b',"usage":null' if self.include_usage else b""
        return b'%b%b,"logprobs":%b,"finish_reason":null}]%b}\n\n' % (
            self._before_delta(index),
            delta,
            _encode(logprobs),
            usage,
        )


def encode_as_stream(reply: Reply, *, include_usage: bool) -> bytes:
    """A whole reply as the stream that its caller asked for, from its first chunk to `[DONE]`."""
    writer = ChunkWriter(reply.id, reply.created, reply.model, include_usage=include_usage)
    out = [chunk for choice in reply.choices for chunk in _content_chunks(choice, writer)]
    last = reply.choices[-1].index
    out += [
        writer.finish(choice.finish_reason, index=choice.index, usage=reply.usage if choice.index == last else None)
        for choice in reply.choices
    ]
    if include_usage and reply.usage is not None:
        out.append(writer.usage_chunk(reply.usage))
    return b"".join((*out, DONE))


def _content_chunks(choice: ReplyChoice, writer: ChunkWriter) -> Iterator[bytes]:
    message, index = choice.message, choice.index
    reasoning = message.reasoning_content
    yield writer.role("" if message.content and not reasoning else None, index=index)
    if reasoning:
        yield writer.reasoning(reasoning, index=index)
    if message.content:
        yield writer.content(message.content, index=index, logprobs=choice.logprobs)
    if message.refusal:
        yield writer.refusal(message.refusal, index=index)
    if message.function_call:
        yield writer.function_start(message.function_call.name, message.function_call.arguments, index=index)
    for place, call in enumerate(message.tool_calls or ()):
        if call.function is not None:
            yield writer.tool_start(place, call.id, call.function.name, call.function.arguments, index=index)

"""An upstream's stream in our terms. Sans I/O: bytes cut anywhere in, bytes for the caller out.

Theory of operation. Every event is decoded, normalised and encoded again; nothing of the upstream's bytes is forwarded.
Most events hold the next piece of one choice's text or reasoning and nothing else; once the choice is open they decode
as a text chunk and take the short way in `feed`. All others go through `_take`, which keeps one `_Choice` per choice:
whether it was opened, its tool calls, its finish reason.

A choice is opened (its role chunk is written) by its first content, not by the upstream's role chunk, so that a stream
which dies empty can still be tried elsewhere. The chunks that finish it are held back until `final`, because usage
rides on them or follows them, and it may come late or have to be counted by the caller:

    feed … feed            until `failure` or `complete`; `finished` with no usage coming may be enough after a while
    eof                    if the upstream ended first; then one of the two holds
    final(usage)           what ends the stream: held chunks, usage, `[DONE]`

After a failure the caller tries elsewhere if nothing was `started`, else sends `failure.event()` and no `[DONE]`. Once
all choices have finished, the answer is whole: an error that follows, or bytes that make no sense, take nothing away
from it and only end it.

Text of the answer that holds inline `<think>` tags is passed on as it is.
"""

from typing import Final

import msgspec

from vipcloud.dialects import replies
from vipcloud.dialects.openai import Usage
from vipcloud.dialects.replies import ChunkWriter
from vipcloud.errors import BadRequest, GatewayError, UpstreamFailed, UpstreamInterrupted
from vipcloud.http import sse
from vipcloud.providers import usage as counts
from vipcloud.providers.reply import (
    BROKEN,
    CONTEXT_EXCEEDED,
    UNDECODED,
    UNFINISHED,
    Classify,
    Fault,
    Malformed,
    WireCall,
    WireChoice,
    WireMessage,
    WireReply,
    broken,
    call_id,
    context_exceeded,
    decode,
    decode_text_chunk,
    finish_reason,
    first_stop,
    log_probabilities,
    payload,
    reports_error,
)
from vipcloud.providers.usage import Delivered, TextSize

_encode = msgspec.json.Encoder().encode

CALLS_MAX: Final = 1024  # tool calls in one choice

INTERRUPTED: Final = "The provider's stream broke off. What was delivered is charged."


class StreamTranslator:
    """One upstream attempt at one streamed answer.

    `classify` tells what an error in the stream means. `choices` is the caller's `n`. `stops` are strings that the
    upstream does not look for itself: text that may be the beginning of one is held back until it is clear. With
    `legacy_functions` the first tool call is written as `function_call` and others are left out.

    `data_events` counts what the upstream said, comments left out: a time-out on silence watches it. `usage` is the
    last believable count so far. `finished`: every choice seen has its finish reason, and there is one. `complete`:
    `final` can be called, for nothing more is to come, or nothing that matters. `failure` is what to tell the caller;
    `fault` is what `classify` said, where the upstream reported an error itself.
    """

    def __init__(
        self,
        writer: ChunkWriter,
        *,
        event_bytes_max: int,
        classify: Classify,
        choices: int = 1,
        stops: tuple[str, ...] = (),
        legacy_functions: bool = False,
        usage_tokens_max: int = counts.TOKENS_MAX,
    ) -> None:
        self.started = False
        self.finished = False
        self.complete = False
        self.data_events = 0
        self.usage: Usage | None = None
        self.failure: GatewayError | None = None
        self.fault: Fault | None = None
        self.content_chars = 0
        self.content_bytes = 0
        self._writer = writer
        self._text_head = writer.text_head
        self._text_tail = writer.text_tail
        self._decoder = sse.SSEDecoder(event_bytes_max)
        self._classify = classify
        self._choices_max = choices
        self._stops = tuple(filter(None, stops))
        self._legacy_functions = legacy_functions
        self._usage_tokens_max = usage_tokens_max
        self._choices: dict[int, _Choice] = {}
        self._reasoning = TextSize()
        self._calls = TextSize()
        self._short_way = False  # there is one choice, open and without calls, and its text needs no watching
        self._usage_is_last = False  # it came with the finish reason or after it
        self._ended = False  # [DONE], end of file, or an error after the answer

    # --- what the caller asks ------------------------------------------------------------------------------------

    @property
    def stopped(self) -> bool:
        """Whether one of `stops` ended every choice. What else the upstream generates is of no use."""
        return len(self._choices) == self._choices_max and all(choice.stopped for choice in self._choices.values())

    @property
    def retryable(self) -> bool:
        """Whether, after a failure, another upstream may be tried: nothing was sent and the request is not to blame."""
        if self.failure is None or self.started or isinstance(self.failure, BadRequest):
            return False
        return self.fault is None or self.fault.retryable

    @property
    def delivered(self) -> Delivered:
        """The sizes of what `feed` has returned, for an estimate of a stream without usage."""
        content = TextSize(self.content_chars, self.content_bytes)
        return Delivered(content=content, reasoning=self._reasoning, calls=self._calls)

    # --- what the caller does ------------------------------------------------------------------------------------

    def feed(self, data: bytes) -> bytes:
        """What to send on now, whole events; often nothing. Look at `failure` and `complete` afterwards."""
        if self._ended or self.failure is not None:
            return b""
        try:
            events = self._decoder.feed(data)
        except sse.StreamTooLarge:
            self._break_off("The provider sent an event beyond the size limit.")
            return b""
        self.data_events += len(events)
        out: list[bytes] = []
        for event in events:
            if self._short_way and type(event) is bytes:
                try:
                    said = decode_text_chunk(event).choices[0].delta
                except UNDECODED:
                    pass  # more than text, or not as it should be
                else:
                    text, reasoning = said.content, said.reasoning_content
                    if text and not reasoning:
                        size = len(text)
                        self.content_chars += size
                        self.content_bytes += size if text.isascii() else len(text.encode())
                        out.append(self._text_head + _encode(text) + self._text_tail)
                        continue
                    if reasoning and not text:
                        self._reasoning.add(reasoning)
                        out.append(self._writer.reasoning(reasoning))
                        continue
            self._take(event, out)
            if self._over():
                break
        return out[0] if len(out) == 1 else b"".join(out)

    def eof(self) -> bytes:
        """The upstream has closed the stream. Returns what its last, unterminated event held; sets `failure` if the
        answer was not whole."""
        if self._over():
            return b""
        out: list[bytes] = []
        for event in self._decoder.at_end():
            data = event if isinstance(event, bytes) else event.data
            try:
                decode(data)
            except Malformed:
                if not data.startswith(b"[DONE]"):
                    continue  # half an event
            self._take(event, out)
        self._end(out)
        return b"".join(out)

    def final(self, usage: Usage | None) -> bytes:
        """What ends the stream. `usage` is ours or the caller's own count; it goes to the caller either way."""
        assert self.finished, "an unfinished answer is never ended as a whole one"
        assert self.failure is None, "a failed answer is never ended as a whole one"
        self._ended = self.complete = True
        out: list[bytes] = []
        for choice in self._choices.values():
            self._release(choice, out)
            self._end_calls(choice, out)
        for index in sorted(self._choices):
            self._open(self._choices[index], "", out)
        writer = self._writer
        last = max(self._choices)
        for index in sorted(self._choices):
            choice = self._choices[index]
            assert choice.word is not None, "checked above"
            reason = finish_reason(
                "stop" if choice.stopped else choice.word,
                calls=any(call.index is not None for call in choice.calls),
                legacy_functions=self._legacy_functions,
            )
            out.append(writer.finish(reason, index=index, usage=usage if index == last else None))
        if writer.include_usage and usage is not None:
            out.append(writer.usage_chunk(usage))
        out.append(replies.DONE)
        return b"".join(out)

    # --- events --------------------------------------------------------------------------------------------------

    def _take(self, event: sse.Event, out: list[bytes]) -> None:
        data = event
        if isinstance(data, sse.NamedEvent):
            if data.name == "error":
                self._report(_said(data.data))
                return
            data = data.data
        if data.startswith(b"[DONE]"):
            self._end(out)
        elif data.strip():
            try:
                wire = decode(data)
            except Malformed:
                self._break_off("The provider sent an event that could not be read.")
            else:
                self._take_reply(wire, data, out)

    def _take_reply(self, wire: WireReply, data: bytes, out: list[bytes]) -> None:
        if reports_error(wire) or (wire.choices is None and wire.usage is None and _is_bare_error(data)):
            self._report(_said(data))
            return
        for choice in wire.choices or ():
            self._take_choice(choice, out)
            if choice.usage is not None:
                self._count(choice.usage)
        if wire.usage is not None:
            self._count(wire.usage)

    def _take_choice(self, wire: WireChoice, out: list[bytes]) -> None:
        index = wire.index or 0
        if self.failure is not None or not 0 <= index < self._choices_max:
            return
        choice = self._choice(index)
        said = wire.delta
        if said is None and wire.message is not None:
            said = choice.unsaid(wire.message)
        if said is not None and not choice.stopped:
            self._take_delta(choice, said, wire.logprobs, out)
        if wire.finish_reason and wire.finish_reason not in UNFINISHED:
            self._finish(choice, wire.finish_reason)

    def _take_delta(self, choice: "_Choice", said: WireMessage, logprobs: object, out: list[bytes]) -> None:
        if reasoning := said.reasoning_content or said.reasoning:
            self._open(choice, None, out)
            self._reasoning.add(reasoning)
            out.append(self._writer.reasoning(reasoning, index=choice.index))
        if said.content:
            self._add_text(choice, said.content, logprobs, out)
        elif said.refusal:
            self._open(choice, None, out)
            self._add_content_size(said.refusal)
            known = log_probabilities(logprobs)
            out.append(self._writer.refusal(said.refusal, index=choice.index, logprobs=known))
        if said.tool_calls:
            for call in said.tool_calls:
                self._take_call(choice, call, out)
        elif said.function_call is not None:
            self._take_call(choice, WireCall(index=0, function=said.function_call), out)

    def _finish(self, choice: "_Choice", word: str) -> None:
        if word in BROKEN:
            self._report(broken(word))
        elif word == CONTEXT_EXCEEDED and not self.started:
            self.failure = context_exceeded()
        elif choice.word is None:
            choice.word = word
            self._note_progress()

    def _choice(self, index: int) -> "_Choice":
        choice = self._choices.get(index)
        if choice is None:
            choice = self._choices[index] = _Choice(index)
            self._note_progress()
        return choice

    def _note_progress(self) -> None:
        """Say anew how far the answer is. To be called after every change of what it looks at."""
        choices = self._choices.values()
        self.finished = bool(choices) and all(choice.word is not None for choice in choices)
        self.complete = self.finished and (
            self._ended or self.stopped or (self._usage_is_last and len(choices) == self._choices_max)
        )

    def _count(self, wire: object) -> None:
        """Keep the last count. One that is refused takes the place of an earlier one: it was to replace it."""
        if counts.is_filler(wire):
            self._short_way = False  # who sends one sends it with every chunk, so none is text alone
            return
        self.usage = counts.read(wire, self._usage_tokens_max, output_seen=self.started)
        self._usage_is_last = self.usage is not None and self.finished
        self._note_progress()

    # --- text ----------------------------------------------------------------------------------------------------

    def _open(self, choice: "_Choice", content: replies.RoleContent, out: list[bytes]) -> None:
        """Write the role chunk, and those of the choices before: SDKs want to see them in ascending order."""
        if choice.opened:
            return
        self._open_before(choice, out)
        choice.opened = True
        self._short_way = self._choices_max == 1 and not self._stops
        out.append(self._writer.role(content, index=choice.index))

    def _open_before(self, choice: "_Choice", out: list[bytes]) -> None:
        self.started = True
        for index in range(choice.index):
            self._open(self._choice(index), "", out)

    def _add_text(self, choice: "_Choice", text: str, logprobs: object, out: list[bytes]) -> None:
        if self._stops:
            text = self._watched(choice, text)
        if not text:
            return
        self._open(choice, "", out)
        self._add_content_size(text)
        known = log_probabilities(logprobs)
        out.append(self._writer.content(text, index=choice.index, logprobs=known))

    def _watched(self, choice: "_Choice", text: str) -> str:
        """What of the text may be shown: all before a stop string, and nothing that may yet become one."""
        text = choice.held + text
        choice.held = ""
        cut = first_stop(text, self._stops)
        if cut >= 0:
            choice.stopped = True
            choice.word = "stop"
            self._note_progress()
            return text[:cut]
        kept = _beginning_of_stop(text, self._stops)
        if kept:
            choice.held = text[-kept:]
            return text[:-kept]
        return text

    def _release(self, choice: "_Choice", out: list[bytes]) -> None:
        """Show what was held back: no stop string came of it."""
        text, choice.held = choice.held, ""
        if text:
            self._open(choice, "", out)
            self._add_content_size(text)
            out.append(self._writer.content(text, index=choice.index))

    def _add_content_size(self, text: str) -> None:
        self.content_chars += len(text)
        self.content_bytes += len(text.encode())

    # --- tool calls ------------------------------------------------------------------------------------------------

    def _take_call(self, choice: "_Choice", wire: WireCall, out: list[bytes]) -> None:
        self._short_way = False
        self._release(choice, out)
        call = choice.call(wire)
        if len(choice.calls) > CALLS_MAX:
            self._break_off("The provider sent tool calls without end.")
            return
        function = wire.function
        arguments = "" if function is None else function.arguments or ""
        if call.index is None:
            call.waiting += arguments
            if call.name:
                self._start_call(choice, call, out)
        elif arguments:
            self._add_arguments(choice, call, arguments, out)

    def _start_call(self, choice: "_Choice", call: "_Call", out: list[bytes]) -> None:
        """Write the chunk with id and name; indexes count from 0 in the order in which calls start."""
        index = sum(other.index is not None for other in choice.calls)
        call.index = index
        self._calls.add(call.name)
        if not self._legacy_functions or index == 0:
            first = not choice.opened
            self._open_before(choice, out)
            choice.opened = True
            if self._legacy_functions:
                out.append(self._writer.function_start(call.name, index=choice.index, first=first))
            else:
                given = choice.unused_id(call, self._writer.id)
                out.append(self._writer.tool_start(index, given, call.name, index=choice.index, first=first))
        if call.waiting:
            self._add_arguments(choice, call, call.waiting, out)

    def _add_arguments(self, choice: "_Choice", call: "_Call", text: str, out: list[bytes]) -> None:
        assert call.index is not None, "a call starts before its arguments are written"
        call.has_arguments = True
        self._calls.add(text)
        if not self._legacy_functions:
            out.append(self._writer.tool_arguments(call.index, text, index=choice.index))
        elif call.index == 0:
            out.append(self._writer.function_arguments(text, index=choice.index))

    def _end_calls(self, choice: "_Choice", out: list[bytes]) -> None:
        """A call that never got a name starts without one; a call without arguments has an empty object of them."""
        for call in choice.calls:
            if call.index is None:
                self._start_call(choice, call, out)
            if not call.has_arguments:
                self._add_arguments(choice, call, "{}", out)

    # --- endings -------------------------------------------------------------------------------------------------

    def _over(self) -> bool:
        return self._ended or self.failure is not None

    def _end(self, out: list[bytes]) -> None:
        """Nothing more is to come. An answer that breaks off shows what was held back, once it has been begun."""
        if self._over():
            return
        if self.started and not self.finished:
            for choice in self._choices.values():
                self._release(choice, out)
        self._break_off("The provider ended its answer before it was whole.")

    def _report(self, said: dict[str, object]) -> None:
        """The upstream says that it failed. Midway only a fault of the request itself is told as such."""
        if self.finished:
            self._ended = self.complete = True
            return
        self.fault = self._classify(said)
        error = self.fault.error()
        self.failure = UpstreamInterrupted(INTERRUPTED) if self.started and not isinstance(error, BadRequest) else error

    def _break_off(self, why: str) -> None:
        if self.finished:
            self._ended = self.complete = True
        else:
            self.failure = UpstreamInterrupted(INTERRUPTED) if self.started else UpstreamFailed(why)


class _Call:
    """A tool call. `index` is ours, None until it has started; `waiting` are arguments that came before the name."""

    __slots__ = ("has_arguments", "id", "index", "name", "waiting", "wire_index")

    def __init__(self, wire_index: int | None) -> None:
        self.wire_index = wire_index
        self.index: int | None = None
        self.id = ""
        self.name = ""
        self.waiting = ""
        self.has_arguments = False


class _Choice:
    """`word` is the upstream's finish reason. `held` may be the beginning of a stop string."""

    __slots__ = ("calls", "held", "index", "opened", "stopped", "word")

    def __init__(self, index: int) -> None:
        self.index = index
        self.opened = False
        self.word: str | None = None
        self.stopped = False
        self.held = ""
        self.calls: list[_Call] = []

    def unsaid(self, message: WireMessage) -> WireMessage:
        """What is new in a whole message after deltas: MiniMax v2 repeats the text; tool calls may come only here."""
        if not self.opened:
            return message
        return WireMessage(tool_calls=None if self.calls else message.tool_calls)

    def call(self, wire: WireCall) -> _Call:
        """The call that `wire` begins or goes on with, its id and name noted."""
        name = "" if wire.function is None else wire.function.name or ""
        given = wire.id or ""  # DashScope sends "" on follow-ups (seen 2026-11)
        call = self._known(wire.index, given, name)
        if call is None:
            call = _Call(wire.index)
            self.calls.append(call)
        call.id = call.id or given
        call.name = call.name or name
        return call

    def unused_id(self, call: _Call, reply_id: str) -> str:
        """The call's own id, or one made from the reply's where it has none or another call has it."""
        taken = any(other is not call and other.index is not None and other.id == call.id for other in self.calls)
        if not call.id or taken:
            assert call.index is not None, "the index is given before the id"
            return call_id(reply_id, self.index, call.index)
        return call.id

    def _known(self, wire_index: int | None, given: str, name: str) -> _Call | None:
        """The call so far under this index, or the last one for want of an index. A name with another id, or a second
        name without an index, begins a new call."""
        if wire_index is None:
            same_id = [call for call in self.calls if given and call.id == given]
            if same_id:
                return same_id[-1]
            last = self.calls[-1] if self.calls else None
            return None if last is None or (name and last.name) else last
        for call in reversed(self.calls):
            if call.wire_index == wire_index:
                return None if name and given and call.id and call.id != given else call
        return None


def _beginning_of_stop(text: str, stops: tuple[str, ...]) -> int:
    """How many characters at the end of `text` one of `stops` may begin with."""
    kept = 0
    for stop in stops:
        at = text.find(stop[0], max(0, len(text) - len(stop) + 1))
        while at >= 0 and not stop.startswith(text[at:]):
            at = text.find(stop[0], at + 1)
        if at >= 0:
            kept = max(kept, len(text) - at)
    return kept


def _is_bare_error(data: bytes) -> bool:
    """Whether `data` is DashScope's native error, which has no `error` around it."""
    said = _said(data)
    return "code" in said and "message" in said


def _said(data: bytes) -> dict[str, object]:
    """What an error event says, as an object; a plain text becomes its message."""
    try:
        return payload(data)
    except Malformed:
        return {"error": data.decode("utf-8", "replace")}

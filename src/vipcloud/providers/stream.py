"""An upstream's stream in our terms. Sans I/O: bytes cut anywhere in, bytes for the caller out.

Theory of operation. Events are decoded, normalised and encoded anew, but for those that `event_shapes` recognises: of
these the text's bytes go on as they came, and nothing else of the upstream's does. Most events hold the next piece of
the only choice's text, or of its reasoning, and nothing else. While one of the two runs, an event that decodes as more
of it takes the short way in `feed`; any other goes through `_take`, which keeps one `_Choice` per choice: whether it
was opened, its tool calls, its finish reason.

A choice is opened (its role chunk is written) by its first content, not by the upstream's role chunk, so that a stream
which dies empty can still be tried elsewhere. The chunks that finish it are held back until `final`, because usage
rides on them or follows them, and it may come late or have to be counted by the caller:

    feed … feed            until `failure` or `complete`; `finished` with no usage coming may be enough after a while
    eof                    if the upstream ended first; then one of the two holds
    final(usage)           what ends the stream: held chunks, usage, `[DONE]`

After a failure the caller tries elsewhere if nothing was `started`, else sends `failure.event()` and no `[DONE]`. Once
all choices have finished, the answer is whole: an error that follows, or bytes that make no sense, take nothing away
from it and only end it.

White space at the start of an answer waits for what follows it: before a tool call it says nothing and is left out.
"""

from collections.abc import Mapping
from typing import Final

import msgspec

from vipcloud.dialects.chunks import DONE, ChunkWriter
from vipcloud.dialects.openai import FinishReason, Usage
from vipcloud.dialects.replies import RoleContent
from vipcloud.errors import BadRequest, GatewayError, UpstreamFailed, UpstreamInterrupted
from vipcloud.http import sse
from vipcloud.providers import call_ids
from vipcloud.providers import usage as counts
from vipcloud.providers.catalog_rows import ORDINARY, Quirks
from vipcloud.providers.event_shapes import EventShape
from vipcloud.providers.reply import (
    BROKEN,
    CONTEXT_EXCEEDED,
    NO_NAMES,
    UNFINISHED,
    Classify,
    Fault,
    Malformed,
    broken,
    call_id,
    context_exceeded,
    decode,
    details_text,
    finish_reason,
    first_stop,
    is_bare_error,
    log_probabilities,
    native,
    payload,
    reports_error,
)
from vipcloud.providers.thinking import Thinking, beginning
from vipcloud.providers.usage import Delivered, GrowingText
from vipcloud.providers.wire import (
    WireCall,
    WireChoice,
    WireMessage,
    WireReply,
    decode_reasoning_chunk,
    decode_text_chunk,
)

_encode: Final = msgspec.json.Encoder().encode

CALLS_MAX: Final = 1024  # tool calls in one choice
PIECES_MAX: Final = 1024  # of a text, before they are made one

INTERRUPTED: Final = "The provider's stream broke off. What was delivered is charged."


class StreamTranslator:
    """One upstream attempt at one streamed answer.

    `classify` tells what an error in the stream means. `choices` is the caller's `n`. `stops` are strings that the
    upstream does not look for itself: text that may be the beginning of one is held back until it is clear. With
    `legacy_functions` the first tool call is written as `function_call` and others are left out. `quirks` are the
    candidate's; `tool_names` has by the upstream's name of a tool the caller's, where they differ. Without
    `show_reasoning` the caller is not shown any.

    `working`: it has begun to reason, shown or not. `data_events` counts what the upstream said, comments left out: a
    time-out on silence watches it. `usage` is the last believable count so far. `finished`: every choice seen has its
    finish reason, and there is one. `complete`: `final` can be called, for nothing more is to come, or nothing that
    matters. `failure` is what to tell the caller; `fault` is what `classify` said, where the upstream reported an error
    itself.
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
        quirks: Quirks = ORDINARY,
        tool_names: Mapping[str, str] = NO_NAMES,
        show_reasoning: bool = True,
        usage_tokens_max: int = counts.TOKENS_MAX,
    ) -> None:
        self.started = False
        self.working = False
        self.finished = False
        self.complete = False
        self.data_events = 0
        self.usage: Usage | None = None
        self.failure: GatewayError | None = None
        self.fault: Fault | None = None
        self.content = GrowingText()
        self.reasoning = GrowingText()
        self.calls = GrowingText()
        self._writer = writer
        self._text_tail = writer.text_tail
        self._decoder = sse.SSEDecoder(event_bytes_max)
        self._classify = classify
        self._choices_max = choices
        self._stops = tuple(filter(None, stops))
        self._legacy_functions = legacy_functions
        self._quirks = quirks
        self._tool_names = tool_names
        self._show_reasoning = show_reasoning
        self._usage_tokens_max = usage_tokens_max
        self._choices: dict[int, _Choice] = {}
        self._plain = choices == 1 and not self._stops  # one choice, without calls, whose text needs no watching
        self._texts = EventShape(decode_text_chunk)
        self._thoughts = EventShape(decode_reasoning_chunk)
        self._shape: EventShape | None = None  # of what is running, where the short way is open
        self._pieces = self.content.pieces
        self._head = writer.text_head
        self._usage_is_last = False  # it came with the finish reason or after it
        self._ended = False  # [DONE], end of file, or an error after the answer

    # --- what the caller asks ------------------------------------------------------------------------------------

    @property
    def stopped(self) -> bool:
        """Whether one of `stops` ended every choice. What else the upstream generates is of no use."""
        return len(self._choices) == self._choices_max and all(choice.stopped for choice in self._choices.values())

    @property
    def finish_reason(self) -> FinishReason | None:
        """Why the first choice ended; None as long as it has not."""
        choice = self._choices.get(0)
        return None if choice is None or choice.word is None else self._reason(choice)

    @property
    def retryable(self) -> bool:
        """Whether, after a failure, another upstream may be tried: nothing was sent and the request is not to blame."""
        if self.failure is None or self.started or isinstance(self.failure, BadRequest):
            return False
        return self.fault is None or self.fault.retryable

    @property
    def delivered(self) -> Delivered:
        """The sizes of what `feed` has returned, for an estimate of a stream without usage."""
        return Delivered(content=self.content.size, reasoning=self.reasoning.size, calls=self.calls.size)

    @property
    def said(self) -> tuple[str, str, str]:
        """The texts themselves: content, reasoning and calls."""
        return self.content.text, self.reasoning.text, self.calls.text

    # --- what the caller does ------------------------------------------------------------------------------------

    def carry_on(self, said: str) -> None:
        """The answer began with `said`, from another upstream; what this one says goes on from there."""
        self.content.pieces.append(said)
        self._choice(0).opened = self.started = True

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
            shape = self._shape
            if shape is not None and type(event) is bytes:
                more = self._more(event, shape)
                if more is not None:
                    out.append(more)
                    continue
            self._take(event, out)
            if self._over():
                break
        if len(self._pieces) > PIECES_MAX:
            self.content.join()
            self.reasoning.join()
        return out[0] if len(out) == 1 else b"".join(out)

    def _more(self, event: bytes, shape: EventShape) -> bytes | None:
        """The chunk for an event that says more of the same; None for something else, or not as it should be."""
        raw = shape.recognise(event)
        if raw is not None:
            self._pieces.append(shape.text)
            return b'%b"%b"%b' % (self._head, raw, self._text_tail)
        text = shape.decode_and_learn(event)
        if text is None:
            return None
        self._pieces.append(text)
        return b"%b%b%b" % (self._head, _encode(text), self._text_tail)

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

    def cut_short(self) -> None:
        """End an answer that has begun as one that has reached its `max_tokens`; what still comes does not count."""
        assert self.started, "there is something to end"
        for choice in self._choices.values():
            choice.word = choice.word or "length"
        self.finished = self.complete = self._ended = True

    def final(self, usage: Usage | None) -> bytes:
        """What ends the stream. `usage` is ours or the caller's own count; it goes to the caller either way."""
        assert self.finished, "an unfinished answer is never ended as a whole one"
        assert self.failure is None, "a failed answer is never ended as a whole one"
        self._ended = self.complete = True
        out: list[bytes] = []
        watched = bool(self._stops) or self._quirks.inline_thinking
        for choice in self._choices.values():
            if watched:
                self._release(choice, out)
            if choice.calls:
                self._end_calls(choice, out)
            if choice.blank:
                self._show_blank(choice, out)
        writer, indexes = self._writer, sorted(self._choices)
        last = indexes[-1]
        for index in indexes:
            self._open(self._choices[index], "", out)
        for index in indexes:
            choice = self._choices[index]
            out.append(writer.finish(self._reason(choice), index=index, usage=usage if index == last else None))
        if writer.include_usage and usage is not None:
            out.append(writer.usage_chunk(usage))
        out.append(DONE)
        return b"".join(out)

    def _reason(self, choice: "_Choice") -> FinishReason:
        assert choice.word is not None, "asked of choices that have finished"
        return finish_reason(
            "stop" if choice.stopped else choice.word,
            calls=any(call.index is not None for call in choice.calls),
            legacy_functions=self._legacy_functions,
        )

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
        if reports_error(wire):
            self._report(_said(data))
            return
        if wire.choices is None:
            said = _said(data)
            if wire.usage is None and is_bare_error(said):
                self._report(said)
                return
            wire = native(said) or wire
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
        content = said.content
        reasoning = said.reasoning_content or said.reasoning
        if said.reasoning_details and not reasoning:
            reasoning = choice.new_detail(details_text(said.reasoning_details))
        if content:
            choice.has_text = True
            if self._quirks.inline_thinking:
                lifted, content = choice.thinking.feed(content)
                reasoning = (reasoning or "") + lifted
        if reasoning:
            self._add_reasoning(choice, reasoning, out)
        if content:
            self._add_text(choice, content, logprobs, out)
        elif said.refusal:
            self._open(choice, None, out)
            self.content.pieces.append(said.refusal)
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
        for choice in self._choices.values():
            if choice.word is None:
                self.finished = self.complete = False
                return
        self.finished = bool(self._choices)
        self.complete = self.finished and (
            self._ended or (self._usage_is_last and len(self._choices) == self._choices_max) or self.stopped
        )

    def _count(self, wire: object) -> None:
        """Keep the last count. One that is refused takes the place of an earlier one: it was to replace it."""
        if counts.is_filler(wire):
            self._plain = False  # who sends one sends it with every chunk, so none is text alone
            self._shape = None
            return
        self.usage = counts.read(wire, self._usage_tokens_max, output_seen=self.started)
        self._usage_is_last = self.usage is not None and self.finished
        self._note_progress()

    # --- text ----------------------------------------------------------------------------------------------------

    def _open(self, choice: "_Choice", content: RoleContent, out: list[bytes]) -> None:
        """Write the role chunk, and those of the choices before: SDKs want to see them in ascending order."""
        if choice.opened:
            return
        self._open_before(choice, out)
        choice.opened = True
        out.append(self._writer.role(content, index=choice.index))

    def _open_before(self, choice: "_Choice", out: list[bytes]) -> None:
        self.started = True
        for index in range(choice.index):
            self._open(self._choice(index), "", out)

    def _add_reasoning(self, choice: "_Choice", text: str, out: list[bytes]) -> None:
        choice.has_reasoning = self.working = True
        self.reasoning.pieces.append(text)
        if not self._show_reasoning:
            return
        self._open(choice, None, out)
        out.append(self._writer.reasoning(text, index=choice.index))
        if self._plain and not self._quirks.inline_thinking:
            self._shape = self._thoughts
            self._pieces = self.reasoning.pieces
            self._head = self._writer.reasoning_head

    def _add_text(self, choice: "_Choice", text: str, logprobs: object, out: list[bytes]) -> None:
        if self._stops:
            text = self._watched(choice, text)
        self._show(choice, text, out, logprobs)

    def _show(self, choice: "_Choice", text: str, out: list[bytes], logprobs: object = None) -> None:
        """Write text of the answer, unless it is but white space so far."""
        if not choice.shown:
            text = choice.blank + text
            choice.blank = ""
            if text.isspace():
                choice.blank = text
                return
        if text:
            self._write(choice, text, out, logprobs)

    def _show_blank(self, choice: "_Choice", out: list[bytes]) -> None:
        """An answer of white space alone is one."""
        text, choice.blank = choice.blank, ""
        if text:
            self._write(choice, text, out)

    def _write(self, choice: "_Choice", text: str, out: list[bytes], logprobs: object = None) -> None:
        self._open(choice, "", out)
        choice.shown = True
        self.content.pieces.append(text)
        known = log_probabilities(logprobs)
        out.append(self._writer.content(text, index=choice.index, logprobs=known))
        if self._plain:
            self._shape = self._texts
            self._pieces = self.content.pieces
            self._head = self._writer.text_head

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
        kept = max(beginning(text, stop) for stop in self._stops)
        if kept:
            choice.held = text[-kept:]
            return text[:-kept]
        return text

    def _release(self, choice: "_Choice", out: list[bytes]) -> None:
        """Show what was held back: no stop string and no tag came of it."""
        if self._quirks.inline_thinking and not choice.stopped:
            reasoning, text = choice.thinking.end()
            if reasoning:
                self._add_reasoning(choice, reasoning, out)
            if text:
                self._add_text(choice, text, None, out)
        text, choice.held = choice.held, ""
        if text:
            self._show(choice, text, out)

    # --- tool calls ------------------------------------------------------------------------------------------------

    def _take_call(self, choice: "_Choice", wire: WireCall, out: list[bytes]) -> None:
        self._plain = False
        self._shape = None
        self._release(choice, out)
        choice.blank = ""  # MiniMax puts "\n" beside tool calls (seen 2026-11)
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

    def _start_call(self, choice: "_Choice", call: "_ToolCall", out: list[bytes]) -> None:
        """Write the chunk with id and name; indexes count from 0 in the order in which calls start."""
        index = sum(other.index is not None for other in choice.calls)
        call.index = index
        call.name = self._tool_names.get(call.name, call.name)
        self.calls.pieces.append(call.name)
        if not self._legacy_functions or index == 0:
            first = not choice.opened
            self._open_before(choice, out)
            choice.opened = True
            if self._legacy_functions:
                out.append(self._writer.function_start(call.name, index=choice.index, first=first))
            else:
                given = choice.unused_id(call, self._writer.id, repeats=self._quirks.call_ids_repeat)
                out.append(self._writer.tool_start(index, given, call.name, index=choice.index, first=first))
        if call.waiting:
            self._add_arguments(choice, call, call.waiting, out)

    def _add_arguments(self, choice: "_Choice", call: "_ToolCall", text: str, out: list[bytes]) -> None:
        assert call.index is not None, "a call starts before its arguments are written"
        call.has_arguments = True
        self.calls.pieces.append(text)
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
                self._show_blank(choice, out)
        self._break_off("The provider ended its answer before it was whole.")

    def _report(self, said: dict[str, object]) -> None:
        """The upstream says that it failed. Midway only a fault of the request itself is told as such; moderation that
        lets stand what came before it is an end like others."""
        if self.finished:
            self._ended = self.complete = True
            return
        self.fault = self._classify(said)
        if self.started and self.fault.ends_answer:
            for choice in self._choices.values():
                choice.word = choice.word or "content_filter"
            self.finished = self._ended = self.complete = True
            return
        error = self.fault.error()
        self.failure = UpstreamInterrupted(INTERRUPTED) if self.started and not isinstance(error, BadRequest) else error

    def _break_off(self, why: str) -> None:
        if self.finished:
            self._ended = self.complete = True
        else:
            self.failure = UpstreamInterrupted(INTERRUPTED) if self.started else UpstreamFailed(why)


class _ToolCall:
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
    """`word` is the upstream's finish reason. `held` may be the beginning of a stop string, `blank` is white space with
    which the answer began. `shown`: some of its text was written."""

    __slots__ = (
        "_details",
        "_details_grow",
        "_thinking",
        "blank",
        "calls",
        "has_reasoning",
        "has_text",
        "held",
        "index",
        "opened",
        "shown",
        "stopped",
        "word",
    )

    def __init__(self, index: int) -> None:
        self.index = index
        self.opened = self.shown = self.stopped = False
        self.has_text = self.has_reasoning = False
        self.word: str | None = None
        self.held = self.blank = ""
        self.calls: list[_ToolCall] = []
        self._thinking: Thinking | None = None
        self._details = ""
        self._details_grow: bool | None = None

    @property
    def thinking(self) -> Thinking:
        if self._thinking is None:
            self._thinking = Thinking()
        return self._thinking

    def new_detail(self, text: str) -> str:
        """What is new in a text of `reasoning_details`: each is all so far by MiniMax's pages, and the next piece on
        its wire (seen 2026-11). The second one tells which."""
        if self._details_grow is None:
            before, self._details = self._details, text
            if not before or text == before:
                return "" if before else text
            self._details_grow = text.startswith(before)
            return text[len(before) :] if self._details_grow else text
        if self._details_grow:
            before, self._details = self._details, text
            return text[len(before) :] if text.startswith(before) else text
        return text

    def unsaid(self, message: WireMessage) -> WireMessage:
        """What is new in a whole message after deltas: MiniMax v2 repeats the text; tool calls may come only here."""
        return WireMessage(
            content=None if self.has_text or self.shown else message.content,
            reasoning_content=None if self.has_reasoning else message.reasoning_content,
            reasoning=None if self.has_reasoning else message.reasoning,
            reasoning_details=None if self.has_reasoning else message.reasoning_details,
            refusal=None if self.opened else message.refusal,
            tool_calls=None if self.calls else message.tool_calls,
            function_call=None if self.calls else message.function_call,
        )

    def call(self, wire: WireCall) -> _ToolCall:
        """The call that `wire` begins or goes on with, its id and name noted."""
        name = "" if wire.function is None else wire.function.name or ""
        given = wire.id or ""  # DashScope sends "" on follow-ups (seen 2026-11)
        call = self._known(wire.index, given, name)
        if call is None:
            call = _ToolCall(wire.index)
            self.calls.append(call)
        call.id = call.id or given
        call.name = call.name or name
        return call

    def unused_id(self, call: _ToolCall, reply_id: str, *, repeats: bool) -> str:
        """The call's own id, or one made from the reply's where it has none, or another call has it. `repeats`: other
        replies will have it."""
        taken = any(other is not call and other.index is not None and other.id == call.id for other in self.calls)
        if not call.id or taken:
            assert call.index is not None, "the index is given before the id"
            return call_id(reply_id, self.index, call.index)
        return call_ids.unique(reply_id, call.id) if repeats else call.id

    def _known(self, wire_index: int | None, given: str, name: str) -> _ToolCall | None:
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


def _said(data: bytes) -> dict[str, object]:
    """What an error event says, as an object; a plain text becomes its message."""
    try:
        return payload(data)
    except Malformed:
        return {"error": data.decode("utf-8", "replace")}

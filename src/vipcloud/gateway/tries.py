"""One try at an answer: one way, one upstream call, and what it says about the way.

Nothing here decides whether there is another try: that is `pipeline`'s.
"""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from vipcloud.dialects import chunks, replies, requests
from vipcloud.dialects.chunks import ChunkWriter
from vipcloud.dialects.openai import ChatRequest, PlainChat
from vipcloud.dialects.text_reply import TextReply
from vipcloud.dialects.tokens import tokens_of
from vipcloud.errors import (
    GatewayError,
    UpstreamFailed,
    UpstreamTimeout,
)
from vipcloud.gateway.attempt import Attempt, OpenStream
from vipcloud.gateway.bill import Bill
from vipcloud.gateway.relay import BufferingRelay, StreamRelay
from vipcloud.gateway.upstreams import TIME_OUT_WEIGHT, AttemptFailed, Upstreams, Way, broken
from vipcloud.http.client import ClientError, Response
from vipcloud.providers import failures, reasoning, reply, translate
from vipcloud.providers.stream import StreamTranslator

JSON_TYPE: Final = "application/json"
EVENTS_TYPE: Final = "text/event-stream"


async def serve_by(attempt: Attempt, way: Way) -> None:
    """One try, what it says about the way, and what it costs us if nobody is charged for it.

    Raises AttemptFailed, or after content the GatewayError to tell.
    """
    bill, upstreams, account, breaker = attempt.bill, attempt.parts.upstreams, way.account, way.breaker
    epoch = breaker.epoch
    bill.way = way
    bill.attempts += 1
    account.running += 1
    try:
        if not bill.streamed:
            await serve_unary(attempt, way)
        elif attempt.form is not None and attempt.holds_back(way):
            await serve_unary(attempt.unstreamed, way)
        else:
            await serve_stream(attempt, way)
    except AttemptFailed as failed:
        upstreams.note_failed(way, epoch, failed.weight, failed.error.code, alone=not attempt.spare)
        raise
    except UpstreamFailed as error:
        weight = TIME_OUT_WEIGHT if isinstance(error, UpstreamTimeout) else 1
        upstreams.note_failed(way, epoch, weight, error.code, alone=not attempt.spare)
        raise
    except BaseException:
        breaker.release(epoch)
        raise
    else:
        if not upstreams.calm:
            upstreams.note_served(way, epoch)
    finally:
        account.running -= 1
        if bill.sent:
            attempt.lose()


async def serve_unary(attempt: Attempt, way: Way) -> None:
    """One upstream call, answered whole. Raises AttemptFailed."""
    parts, request, bill, candidate = attempt.parts, attempt.request, attempt.bill, way.candidate
    faults = Faults(parts.upstreams, way, bill)
    deadline = attempt.total_deadline
    if attempt.spare:  # it may not keep the caller so long that another could not answer any more
        deadline -= (deadline - asyncio.get_running_loop().time()) / 2
    response = await parts.upstreams.send(way, faults.key, attempt.encode(way), JSON_TYPE, deadline, "total", bill)
    bytes_max = parts.constants.reply_bytes_max
    try:
        payload = response.read_now(bytes_max) or await response.read(bytes_max)
    except ClientError as cut:
        raise broken(cut, way) from cut
    finally:
        response.abort()
    answered_s = parts.clock.monotonic_s()
    text: TextReply | None = None
    if request.stop is None and attempt.form is None and not bill.streamed and not candidate.inline_thinking:
        text = reply.read_text(
            payload,
            bill.permit.request_id,
            attempt.model.id_json,
            int(bill.started_s),
            way.reply_shapes,
            usage_tokens_max(attempt, way),
        )
    if text is None:
        await serve_whole(attempt, way, faults, payload, answered_s)
        return
    used = text.used
    estimated = used is None
    if used is None:
        used = text.used = tokens_of(await attempt.count(way, (text.content, text.reasoning, "")))
    if type(request) is not PlainChat and not reasoning.shown(request):
        text.reasoning = ""
    attempt.call.timed(bill.opened_s, answered_s, parts.clock.monotonic_s())
    bill.settle_tokens("complete", used, estimated=estimated, finish_reason=text.finish_reason)
    attempt.call.send_last(text.encode())


async def serve_whole(attempt: Attempt, way: Way, faults: "Faults", payload: bytes, answered_s: float) -> None:
    """The rest of `serve_unary` for what may be more than a text, or must have a form. Raises AttemptFailed."""
    parts, request, bill, candidate = attempt.parts, attempt.request, attempt.bill, way.candidate
    try:
        answer = reply.read_reply(
            payload,
            id=bill.permit.request_id,
            model=request.model,
            created=int(bill.started_s),
            classify=faults.classify,
            stops=translate.local_stops(request, candidate),
            legacy_functions=requests.uses_legacy_functions(request),
            quirks=candidate.quirks,
            tool_names=reply.NO_NAMES if type(request) is PlainChat else translate.original_names(request, candidate),
            usage_tokens_max=usage_tokens_max(attempt, way),
        )
    except GatewayError as error:
        raise faults.failed(error) from error
    estimated = attempt.estimated or answer.usage is None
    if answer.usage is None:
        answer.usage = await attempt.count(way, reply.said(answer))
    if attempt.form is not None and attempt.holds_back(way):
        mending = attempt.held_to_form(answer, estimated=estimated)
        if mending is not None:
            try:
                await serve_unary(mending, way)
            finally:
                if bill.sent:
                    mending.lose()
            return
    if type(request) is not PlainChat and not reasoning.shown(request):
        replies.hide_reasoning(answer)
    reason = answer.choices[0].finish_reason
    attempt.call.timed(bill.opened_s, answered_s, parts.clock.monotonic_s())
    if bill.streamed:
        await attempt.settle("complete", answer.usage, estimated=estimated, finish_reason=reason)
        attempt.call.send_last(chunks.encode_as_stream(answer, include_usage=asks_for_usage(request)))
    else:
        bill.settle("complete", answer.usage, estimated=estimated, finish_reason=reason)
        attempt.call.send_last(replies.encode_reply(answer))


def usage_tokens_max(attempt: Attempt, way: Way) -> int:
    """More than any answer can have used."""
    return attempt.model.context_tokens + way.candidate.output_tokens_max * (attempt.request.n or 1)


def asks_for_usage(request: ChatRequest) -> bool:
    """In a chunk of its own."""
    return request.stream_options is not None and request.stream_options.include_usage is True


async def serve_stream(attempt: Attempt, way: Way) -> None:
    """One upstream stream, relayed to its end.

    Raises AttemptFailed as long as no content has gone to the client, and the GatewayError to tell after that.
    """
    parts, rescue, bill = attempt.parts, attempt.rescue, attempt.bill
    faults = Faults(parts.upstreams, way, bill)
    translator = translator_for(attempt, way, faults)
    deadline, phase = first_deadline(attempt, way)
    asked_s = parts.clock.monotonic_s()
    carrying_on = rescue is not None and rescue.begin(translator)
    response = await parts.upstreams.send(
        way, faults.key, attempt.encode(way), EVENTS_TYPE, deadline, phase, bill, continuing=carrying_on
    )
    relay = relay_for(attempt, response, translator)
    failure = await relayed(attempt, way, response, translator, relay)
    told = translator.usage if failure is None else None
    usage = told
    if usage is None and translator.started:
        try:
            usage = await attempt.count(way, translator.said)
        except asyncio.CancelledError:
            attempt.settle_cut(way, translator)
            raise
    if carrying_on and usage is not None:
        attempt.note_billed(usage, told=told is not None)
    if failure is None:
        usage, estimated = usage or attempt.estimate(translator.delivered), told is None
        if carrying_on and rescue is not None and not estimated:
            usage, estimated = rescue.whole(usage, attempt.estimate(translator.delivered).prompt_tokens), True
        await attempt.settle("complete", usage, estimated=estimated, finish_reason=translator.finish_reason)
        attempt.note_pace(way, asked_s, usage)
        last = translator.final(usage)
        attempt.call.send_last(last if rescue is None else relay.kept + rescue.note(bill.attempts) + last)
        return
    taken = rescue is not None and translator.started and rescue.takes(translator, failure)
    if not taken and attempt.delivers(translator):
        await attempt.settle("interrupted", usage or attempt.estimate(translator.delivered), estimated=True)
        raise failure
    attempt.broke_off(translator, usage)
    raise faults.failed(failure)


def translator_for(attempt: Attempt, way: Way, faults: "Faults") -> StreamTranslator:
    """What makes our stream of this upstream's."""
    request, bill, candidate = attempt.request, attempt.bill, way.candidate
    plain = type(request) is PlainChat
    return StreamTranslator(
        ChunkWriter(
            attempt.call.completion_id,
            int(bill.started_s),
            request.model,
            include_usage=asks_for_usage(request),
        ),
        event_bytes_max=attempt.parts.settings.gateway.event_bytes_max,
        classify=faults.classify,
        choices=request.n or 1,
        stops=translate.local_stops(request, candidate),
        legacy_functions=requests.uses_legacy_functions(request),
        quirks=candidate.quirks,
        tool_names=reply.NO_NAMES if plain else translate.original_names(request, candidate),
        show_reasoning=plain or reasoning.shown(request),
        usage_tokens_max=usage_tokens_max(attempt, way),
    )


def first_deadline(attempt: Attempt, way: Way) -> tuple[float, str]:
    """Until when the upstream must have said something, in the loop's time, and which limit that is.

    It is given less time where there is another way to ask.
    """
    timeouts = attempt.parts.settings.timeouts
    first_s = timeouts.first_byte_s or way.candidate.first_byte_s
    if attempt.spare:
        first_s = min(first_s, timeouts.first_token_s or first_s)
    now = asyncio.get_running_loop().time()
    return min((now + first_s, "first_byte"), (attempt.total_deadline, "total"))


def relay_for(attempt: Attempt, response: Response, translator: StreamTranslator) -> StreamRelay:
    """What moves the stream on, or keeps it where another answer may have to take its place."""
    settings, rescue = attempt.parts.settings, attempt.rescue
    kind: Callable[..., StreamRelay] = StreamRelay
    if rescue is not None and rescue.buffers:
        kind = partial(BufferingRelay, bytes_max=settings.gateway.reply_bytes_max)
    return kind(
        attempt.call,
        attempt.bill,
        response,
        translator,
        idle_s=settings.timeouts.idle_s,
        ping_s=settings.gateway.ping_stream_s,
        total_deadline=attempt.total_deadline,
    )


async def relayed(
    attempt: Attempt, way: Way, response: Response, translator: StreamTranslator, relay: StreamRelay
) -> GatewayError | None:
    """As `StreamRelay.run`. Its progress is noted meanwhile; a caller that leaves pays for what was delivered."""
    stream = OpenStream(attempt, translator, response)
    attempt.parts.progress.add(stream)
    try:
        return await relay.run()
    except asyncio.CancelledError:
        attempt.settle_cut(way, translator)
        raise
    finally:
        attempt.parts.progress.discard(stream)
        if translator.complete:
            response.release()
        else:
            response.abort()


class Faults:
    """Errors that an upstream reports inside an answer of status 200, with what they say about our account."""

    def __init__(self, upstreams: Upstreams, way: Way, bill: Bill) -> None:
        self.upstreams = upstreams
        self.way = way
        self.key = way.account.key
        self.bill = bill
        self.reported: AttemptFailed | None = None

    def classify(self, payload: dict[str, Any]) -> failures.Failure:
        failure = self.upstreams.meaning(self.way, payload)
        self.reported = self.upstreams.failed(self.way, self.key, failure)
        self.bill.sent = False
        return failure

    def failed(self, error: GatewayError) -> AttemptFailed:
        """How the attempt failed with `error`: as the upstream said, or else, if it is the upstream's, retryable."""
        if self.reported is not None:
            return self.reported
        if isinstance(error, UpstreamTimeout):
            return AttemptFailed(error, retryable=True, weight=TIME_OUT_WEIGHT)
        fault = isinstance(error, UpstreamFailed)
        return AttemptFailed(error, retryable=fault, again=fault, weight=int(fault))

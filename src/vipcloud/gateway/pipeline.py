"""One chat completion from its key to its settlement: the table of contents of the data plane.

Every step raises a GatewayError, which the app renders. After the permit is given there is a Bill, and it is settled on
every way out: the money side is synchronous, so a cancellation cannot come between.
"""

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import msgspec
from msgspec import Struct

from vipcloud.accounts.directory import Principal, Terms
from vipcloud.dialects import replies, requests
from vipcloud.dialects.openai import ChatRequest, FinishReason, PlainChat, Usage
from vipcloud.dialects.replies import ChunkWriter, Reply
from vipcloud.errors import (
    Forbidden,
    GatewayError,
    ModelNotFound,
    NotImplementedYet,
    Overloaded,
    StructuredOutputFailed,
    Unauthenticated,
    Unavailable,
    UnsupportedMediaType,
    UpstreamFailed,
    UpstreamInterrupted,
    UpstreamTimeout,
)
from vipcloud.gateway.bill import Bill, Outcome
from vipcloud.gateway.call import Call
from vipcloud.gateway.demo import Demo
from vipcloud.gateway.idempotency import Claim
from vipcloud.gateway.parts import Parts
from vipcloud.gateway.relay import BufferingRelay, StreamRelay
from vipcloud.gateway.rescue import Rescue
from vipcloud.gateway.upstreams import TIME_OUT_WEIGHT, AttemptFailed, Pool, UpstreamKey, Upstreams, Way, broken
from vipcloud.http.addresses import client_address
from vipcloud.http.client import ClientError, Response
from vipcloud.ledger.journal import JournalError
from vipcloud.ledger.records import Reached
from vipcloud.limits.guard import Permit, Subject
from vipcloud.limits.rules import Ask, seconds_to_midnight, whole_seconds
from vipcloud.metering import estimate
from vipcloud.metering.estimate import Texts
from vipcloud.money import NanoUSD
from vipcloud.providers import answers, failures, reasoning, reply, stream, structured, translate
from vipcloud.providers import usage as counts
from vipcloud.providers.answers import Form
from vipcloud.providers.catalog import Model
from vipcloud.providers.prices import Price
from vipcloud.providers.stream import StreamTranslator
from vipcloud.providers.usage import Delivered, TextSize

JSON_TYPE, EVENTS_TYPE = "application/json", "text/event-stream"
UNFIT = "The model did not answer in the form that `response_format` asks for, and not when it was asked again either."
SMALL_BODY_BYTES = 65536  # up to here a body's own size is a good enough ceiling for its tokens
_MINUTE = b"x-ratelimit-limit-requests: %d\r\nx-ratelimit-remaining-requests: %d\r\nx-ratelimit-reset-requests: %b\r\n"
_DAY = _MINUTE.replace(b"requests", b"requests-day")


async def chat(call: Call, parts: Parts) -> None:
    """Serve `POST /v1/chat/completions`."""
    exchange = call.exchange
    if exchange.draining:
        raise Unavailable("The gateway is restarting; send the request again.", retry_after_s=1)
    headers = exchange.headers
    kind = headers.get(b"content-type")
    if kind != b"application/json":
        check_content_type(kind)
    if headers.get(b"idempotency-key") and call.claim is None:
        await chat_once(call, parts)
        return
    token = bearer(headers)
    principal = parts.directory.lookup(token) or await parts.directory.authenticate(token)
    await complete(call, parts, principal, parts.tiers.subject(principal))


async def chat_demo(call: Call, parts: Parts, demo: Demo) -> None:
    """Serve `POST /demo/chat/completions`."""
    principal, subject = demo.admit(call, parts)
    if call.exchange.draining:
        raise Unavailable("The gateway is restarting; send the request again.", retry_after_s=1)
    check_content_type(call.exchange.headers.get(b"content-type"))
    await complete(call, parts, principal, subject, demo)


async def complete(call: Call, parts: Parts, principal: Principal, subject: Subject, demo: Demo | None = None) -> None:
    """A known caller's request, from its body to its settlement."""
    exchange = call.exchange
    model: Model | None = None
    try:
        if parts.pulse.high:
            parts.pulse.check(principal.account.tier)
        body = exchange.whole
        if body is None:
            body = await exchange.body()
        request = requests.parse_chat(body, strict_parameters=parts.settings.gateway.strict_parameters)
        if demo is not None:
            demo.restrict(request, len(body))
        rescue = Rescue.of(exchange.headers.get(b"x-vipcloud-rescue"), request)
        model = parts.catalog.model(request.model)
        if principal.terms is not None:
            check_terms(call, parts, principal.terms, model.id)
        pool = parts.upstreams.pool(model, request, principal.account)
        form = answers.wanted(request) if request.response_format is not None else None
        started_s = parts.clock.wall_s()
        assert model.prices is not None, "the catalogue serves no model without a price"
        price = model.prices.at(started_s)
        permit = await admit(call, parts, subject, request, model, price, started_s, len(body))
    except GatewayError as error:
        call.tier, call.model = principal.account.tier, model.id if model is not None else ""
        if not isinstance(error, Overloaded):
            await tell_standing(call, parts, subject)
        raise
    streamed = request.stream is True
    bill = open_bill(parts, principal, model, price, permit, started_s, streamed=streamed, claim=call.claim)
    attempt = Attempt(call, parts, request, model, permit, bill, pool, form, rescue)
    try:
        await serve(attempt)
    except GatewayError as error:
        bill.settle("upstream_failed", error_code=error.code)
        call.tier, call.model = principal.account.tier, model.id
        if not exchange.started:
            raise
        parts.figures.told(error, call.request_id, call.model, call.tier)
        exchange.finish(error.event() if call.streams else error.body())
    finally:
        if not bill.settled:
            if bill.attempts:
                attempt.lose()
            bill.settle("restarted" if exchange.interrupted else "client_gone" if exchange.gone else "fault")


async def chat_once(call: Call, parts: Parts) -> None:
    """Serve a completion that came with an `Idempotency-Key`. Raises what `Idempotency.claim` does, and `chat`."""
    principal = await parts.directory.authenticate(bearer(call.exchange.headers))
    body = await call.exchange.body()
    key = call.exchange.headers[b"idempotency-key"].strip()
    call.claim = await parts.idempotency.claim(principal.account.id, key, body, call.completion_id)
    try:
        await chat(call, parts)
    finally:
        parts.idempotency.release(call.claim)


def check_content_type(value: bytes | None) -> None:
    """JSON, or nothing said. Raises UnsupportedMediaType."""
    if value is None or value == b"application/json":
        return
    kind = value.partition(b";")[0].strip().lower()
    if kind != b"application/json" and not kind.endswith(b"+json"):
        raise UnsupportedMediaType("The body must be JSON: send 'Content-Type: application/json'.")


def bearer(headers: Mapping[bytes, bytes]) -> bytes:
    """The API key as sent; empty if there is none. Raises Unauthenticated for another scheme than Bearer."""
    authorization = headers.get(b"authorization")
    if authorization is None:
        return (headers.get(b"x-api-key") or headers.get(b"api-key") or b"").strip()
    if authorization.startswith(b"Bearer "):
        return authorization[7:].strip()
    scheme, _, token = authorization.partition(b" ")
    if scheme.lower() != b"bearer":
        raise Unauthenticated("The Authorization header must be 'Bearer' and your API key.")
    return token.strip()


def check_terms(call: Call, parts: Parts, terms: Terms, model: str | None = None) -> None:
    """That a key may be used from where it is, and for `model`. Raises Forbidden, ModelNotFound."""
    if terms.networks:
        address = client_address(call.exchange.peer, call.exchange.headers, parts.trusted_proxies)
        if address is None or not any(address in network for network in terms.networks):
            raise Forbidden("This API key may not be used from your address.")
    if terms.management and model is not None:
        raise Forbidden("A management key runs no requests. Use another key of the account for them.")
    if terms.models and model is not None and model not in terms.models:
        raise ModelNotFound(model)


async def authenticate(call: Call, parts: Parts) -> Principal:
    """Whose key this is; says how its limits stand. Raises Unauthenticated, Forbidden, Unavailable."""
    principal = await parts.directory.authenticate(bearer(call.exchange.headers))
    if principal.terms is not None:
        check_terms(call, parts, principal.terms)
    await tell_standing(call, parts, parts.tiers.subject(principal))
    return principal


async def tell_standing(call: Call, parts: Parts, subject: Subject) -> None:
    """Put into the answer's head how the caller's limits stand, where no permit tells it."""
    now_s = parts.clock.wall_s()
    standing = await parts.guard.standing(subject, now_s)
    if standing.limit:
        call.head += _MINUTE % (standing.limit, standing.remaining, whole_seconds(standing.reset_s))
    if standing.day_limit:
        call.head += _DAY % (standing.day_limit, standing.day_remaining, whole_seconds(seconds_to_midnight(now_s)))


async def admit(
    call: Call,
    parts: Parts,
    subject: Subject,
    request: ChatRequest,
    model: Model,
    price: Price,
    started_s: float,
    body_bytes: int,
) -> Permit:
    """Rate, concurrency and credit in one step. Raises RateLimited, InsufficientCredit."""
    tokens_in = body_bytes if body_bytes <= SMALL_BODY_BYTES else requests.text_bytes(request)
    if tokens_in > model.context_tokens:
        tokens_in = model.context_tokens
    most = model.output_tokens_max
    asked = request.max_completion_tokens or request.max_tokens or most
    if asked > most:
        asked = most
    choices = request.n or 1
    if choices > 1:
        asked *= choices
    rates = price.dearest(tokens_in, asked) if price.tiers else price
    slice_tokens = parts.settings.guard.hold_slice_tokens if request.stream else 0
    ask = Ask(NanoUSD(-(-tokens_in * rates.input_max // 1000)), rates.output, asked, slice_tokens)
    if not subject.purses and ask.hold(asked):
        raise NotImplementedYet(f"The model '{model.id}' is not free.", param="model")
    permit = await parts.guard.admit(call.completion_id, subject, ask, started_s)
    if permit.limit_requests:
        call.head += _MINUTE % (permit.limit_requests, permit.remaining_requests, whole_seconds(permit.reset_s))
    if permit.day_limit:
        call.head += _DAY % (permit.day_limit, permit.day_remaining, whole_seconds(seconds_to_midnight(started_s)))
    if permit.output_tokens < asked:
        call.head += b"x-vipcloud-max-tokens: %d\r\n" % (permit.output_tokens // choices)
    return permit


def open_bill(
    parts: Parts,
    principal: Principal,
    model: Model,
    price: Price,
    permit: Permit,
    started_s: float,
    *,
    streamed: bool,
    claim: Claim | None,
) -> Bill:
    """The request's bill. Raises Unavailable while the journal cannot be written: nothing may be served unrecorded."""
    bill = Bill(parts, principal, model, price, permit, streamed, started_s, parts.clock.monotonic_s(), claim=claim)
    try:
        bill.open()
    except JournalError as error:
        parts.guard.settle(permit, NanoUSD(0))
        raise Unavailable("The gateway cannot record requests at present.", retry_after_s=5) from error
    return bill


class Attempt(Struct, eq=False):
    """What an attempt needs to know. `spare`: should it fail, there is another way; all else is the same for all
    attempts of a request.

    `form` is what the answer must be. If the first one was not, this is the attempt to have it mended: `unfit` is what
    the first one used, `estimated` whether that was counted here.
    """

    call: Call
    parts: Parts
    request: ChatRequest
    model: Model
    permit: Permit
    bill: Bill
    pool: Pool
    form: Form | None = None
    rescue: Rescue | None = None
    spare: bool = False
    prompt: TextSize | None = None  # measured when it is first needed
    unfit: Usage | None = None
    estimated: bool = False

    @property
    def total_deadline(self) -> float:
        """In the loop's time."""
        return self.call.exchange.received_s + self.parts.settings.timeouts.total_s

    def estimate(self, delivered: Delivered) -> Usage:
        """What was used, counted here."""
        if self.prompt is None:
            self.prompt = estimate.prompt_size(self.request)
        return estimate.usage_of(self.prompt, delivered, self.permit.output_tokens)

    async def settle(
        self, outcome: Outcome, usage: Usage, *, estimated: bool, finish_reason: FinishReason | None = None
    ) -> None:
        """Settle a stream. It may have outrun its slices: then the rest is held for first, if there is credit for it.

        Whoever cancels the wait for that changes nothing but the hold.
        """
        permit, guard = self.permit, self.parts.guard
        try:
            if permit.held_tokens < min(usage.completion_tokens, permit.output_tokens):
                guard.extend(permit, usage.completion_tokens - permit.held_tokens, refused=_nothing)
                await guard.flushed()
        finally:
            self.bill.settle(outcome, usage, estimated=estimated, finish_reason=finish_reason)

    async def count(self, way: Way, said: tuple[str, str, str]) -> Usage:
        """As `estimate`, by the texts that were delivered and a real vocabulary, if that is to be had in time."""
        texts, quirks = Texts(estimate.prompt_text(self.request), *said), way.candidate.quirks
        counts = await self.parts.counter.count(quirks.vocabulary, texts.parts)
        if counts is None:
            counts = estimate.guess(texts, quirks)
        return estimate.usage_of_counts(counts, texts, quirks, self.permit.output_tokens)

    def guess(self, way: Way, said: tuple[str, str, str]) -> Usage:
        """As `count`, without a wait."""
        texts, quirks = Texts(estimate.prompt_text(self.request), *said), way.candidate.quirks
        return estimate.usage_of_counts(estimate.guess(texts, quirks), texts, quirks, self.permit.output_tokens)

    def settle_cut(self, way: Way, translator: StreamTranslator) -> None:
        """The request was cancelled: charge what was delivered of the stream, nothing if nothing was."""
        outcome: Outcome = "restarted" if self.call.exchange.interrupted else "client_gone"
        if self.delivers(translator):
            self.bill.settle(outcome, self.guess(way, translator.said), estimated=True)
        else:
            self.lose(translator.usage)
            self.bill.settle(outcome)

    def delivers(self, translator: StreamTranslator) -> bool:
        """Whether the caller has got anything of a stream."""
        return translator.started and (self.rescue is None or not self.rescue.buffers)

    def lose(self, usage: Usage | None = None) -> None:
        """Note what the upstream bills for a call of which nothing was delivered: what it counted, or else the input.

        Its error answers are free; so this is for calls that it took and did not end with one.
        """
        self.bill.lose(usage or self.estimate(Delivered(TextSize(), TextSize(), TextSize())))

    def settle_said(self, outcome: Outcome) -> None:
        """Charge what was delivered of an answer that could not be continued; nothing is done if nothing was."""
        if self.rescue is not None and self.rescue.said:
            self.bill.settle(outcome, self.estimate(self.rescue.delivered), estimated=True)

    def encode(self, way: Way) -> bytes:
        """The upstream's body for this way."""
        request, tokens = self.request, self.permit.output_tokens // (self.request.n or 1)
        if self.rescue is not None and self.rescue.said:
            assert isinstance(request, PlainChat), "no other is continued"
            request = translate.continued(request, way.candidate, self.rescue.said)
            tokens = max(1, tokens - self.rescue.tokens_said)
        return translate.encode_suited(
            request,
            way.candidate,
            max_tokens=tokens,
            attempt_id=f"{self.call.serial}-{self.bill.attempts}",
            account=self.bill.principal.account.id,
        )

    def holds_back(self, way: Way) -> bool:
        """Whether the answer has to be seen whole before any of it can be sent."""
        return self.form is not None and structured.plan(self.request, way.candidate).checked

    @property
    def unstreamed(self) -> "Attempt":
        """The same, answered whole by the upstream."""
        return msgspec.structs.replace(self, request=msgspec.structs.replace(self.request, stream=None))

    def held_to_form(self, answer: Reply, *, estimated: bool) -> "Attempt | None":
        """Put `answer` into the form that was asked for; if that cannot be, the attempt to have it mended.

        Raises AttemptFailed if it has been mended already. The caller pays for the prompt once, and for the answer that
        is delivered; the rest is lost to us.
        """
        usage, choice = answer.usage, answer.choices[0]
        assert usage is not None, "told or counted"
        problem = ""
        if choice.finish_reason == "stop" and choice.message.content is not None:
            assert self.form is not None, "or there would be nothing to hold it to"
            try:
                choice.message.content = self.form.read(choice.message.content)
            except answers.Unfit as unfit:
                problem = str(unfit)
        first = self.unfit
        if not problem:
            if first is not None:
                self.bill.lose(counts.of(max(0, usage.prompt_tokens - first.prompt_tokens), 0))
                answer.usage = counts.with_prompt_of(first, usage)
            return None
        self.bill.lose(usage)
        if first is not None:
            raise AttemptFailed(StructuredOutputFailed(UNFIT), retryable=False, weight=0)
        self.bill.attempts += 1
        request = answers.again(self.request, choice.message.content or "", problem)
        return msgspec.structs.replace(self, request=request, prompt=None, unfit=usage, estimated=estimated)


async def serve(attempt: Attempt) -> None:
    """Try ways until one has answered. Raises the last one's GatewayError.

    Another try is made only while nothing of an answer has gone to the client, and only after a failure that another
    try may not have.
    """
    parts, call, bill, pool = attempt.parts, attempt.call, attempt.bill, attempt.pool
    settings, upstreams = parts.settings.gateway, parts.upstreams
    call.streams = bill.streamed
    call.ping_s = settings.ping_stream_s
    call.deadline = call.exchange.received_s + (settings.ping_stream_s if bill.streamed else settings.ping_unary_s)
    parts.deadlines.add(call)
    upstreams.budget.requests += 1
    try:
        if upstreams.calm and pool.fixed:
            way: Way | None = pool.ways[0]
        else:
            way = upstreams.choose(pool, attempt.request, bill.principal.account)
        if way is None:
            raise upstreams.unserved(pool)
        attempt.spare = len(pool.ways) > 1 and upstreams.spare(pool, (way,))
        try:
            await serve_by(attempt, way)
        except AttemptFailed as failed:
            await serve_again(attempt, way, failed)
    except asyncio.CancelledError:
        attempt.settle_said("restarted" if call.exchange.interrupted else "client_gone")
        raise
    finally:
        parts.deadlines.discard(call)


async def serve_again(attempt: Attempt, way: Way, failed: AttemptFailed) -> None:
    """Go on after `way` failed. Raises the GatewayError of the last try."""
    parts, bill, pool = attempt.parts, attempt.bill, attempt.pool
    upstreams, loop = parts.upstreams, asyncio.get_running_loop()
    tried, spent, rescue = [way], False, attempt.rescue
    while failed.retryable and bill.attempts < parts.settings.gateway.attempts_max:
        if rescue is not None and rescue.said:
            pool = Pool([one for one in pool.ways if one.candidate.continues])
        found = upstreams.following(pool, tried, failed) if pool.ways else None
        if found is None:
            break
        way, wait_s = found
        spent = not upstreams.budget.take(parts.clock.monotonic_s())
        if spent or loop.time() + wait_s >= attempt.total_deadline:
            way.breaker.release(way.breaker.epoch)
            break
        if wait_s:
            await asyncio.sleep(wait_s)
        tried.append(way)
        attempt.spare = upstreams.spare(pool, tried)
        try:
            await serve_by(attempt, way)
        except AttemptFailed as error:
            failed = error
        else:
            return
    if rescue is not None and rescue.said:
        attempt.settle_said("interrupted")
        raise UpstreamInterrupted(stream.INTERRUPTED)
    raise upstreams.told(failed, attempt.pool, spent=spent)


async def serve_by(attempt: Attempt, way: Way) -> None:
    """One try, and what it says about the way. Raises AttemptFailed, or after content the GatewayError to tell."""
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


async def serve_unary(attempt: Attempt, way: Way) -> None:
    """One upstream call, answered whole. Raises AttemptFailed."""
    parts, request, bill, candidate = attempt.parts, attempt.request, attempt.bill, way.candidate
    faults = Faults(parts.upstreams, way, way.account.key)
    deadline = attempt.total_deadline
    if attempt.spare:  # it may not keep the caller so long that another could not answer any more
        deadline -= (deadline - asyncio.get_running_loop().time()) / 2
    response = await parts.upstreams.send(way, faults.key, attempt.encode(way), JSON_TYPE, deadline, "total")
    bytes_max = parts.settings.gateway.reply_bytes_max
    try:
        payload = response.read_now(bytes_max) or await response.read(bytes_max)
    except ClientError as error:
        attempt.lose()
        raise broken(error, way) from error
    finally:
        response.abort()
    answered_s = parts.clock.monotonic_s()
    try:
        answer = reply.read_reply(
            payload,
            id=bill.permit.request_id,
            model=request.model,
            created=int(bill.started_s),
            classify=faults.classify,
            stops=translate.local_stops(request, candidate) if request.stop is not None else (),
            legacy_functions=requests.uses_legacy_functions(request),
            quirks=candidate.quirks,
            tool_names=reply.NO_NAMES if type(request) is PlainChat else translate.original_names(request, candidate),
            usage_tokens_max=attempt.model.context_tokens + candidate.output_tokens_max * (request.n or 1),
        )
    except GatewayError as error:
        if faults.reported is None:
            attempt.lose()
        raise faults.failed(error) from error
    estimated = attempt.estimated or answer.usage is None
    if answer.usage is None:
        answer.usage = await attempt.count(way, reply.said(answer))
    if attempt.form is not None and attempt.holds_back(way):
        mending = attempt.held_to_form(answer, estimated=estimated)
        if mending is not None:
            await serve_unary(mending, way)
            return
    if type(request) is not PlainChat and not reasoning.shown(request):
        replies.hide_reasoning(answer)
    reason = answer.choices[0].finish_reason
    attempt.call.timed(bill.opened_s, answered_s, parts.clock.monotonic_s())
    if bill.streamed:
        await attempt.settle("complete", answer.usage, estimated=estimated, finish_reason=reason)
        attempt.call.send_last(replies.encode_as_stream(answer, include_usage=asks_for_usage(request)))
    else:
        bill.settle("complete", answer.usage, estimated=estimated, finish_reason=reason)
        attempt.call.send_last(replies.encode_reply(answer))


def asks_for_usage(request: ChatRequest) -> bool:
    """In a chunk of its own."""
    return request.stream_options is not None and request.stream_options.include_usage is True


async def serve_stream(attempt: Attempt, way: Way) -> None:
    """One upstream stream, relayed to its end.

    Raises AttemptFailed as long as no content has gone to the client, and the GatewayError to tell after that.
    """
    parts, call, request, bill = attempt.parts, attempt.call, attempt.request, attempt.bill
    settings, loop = parts.settings, asyncio.get_running_loop()
    faults = Faults(parts.upstreams, way, way.account.key)
    plain = type(request) is PlainChat
    translator = StreamTranslator(
        ChunkWriter(
            call.completion_id,
            int(bill.started_s),
            request.model,
            include_usage=asks_for_usage(request),
        ),
        event_bytes_max=settings.gateway.event_bytes_max,
        classify=faults.classify,
        choices=request.n or 1,
        stops=translate.local_stops(request, way.candidate),
        legacy_functions=requests.uses_legacy_functions(request),
        quirks=way.candidate.quirks,
        tool_names=reply.NO_NAMES if plain else translate.original_names(request, way.candidate),
        show_reasoning=plain or reasoning.shown(request),
        usage_tokens_max=attempt.model.context_tokens + way.candidate.output_tokens_max * (request.n or 1),
    )
    first_token_s = settings.timeouts.first_byte_s or way.candidate.first_byte_s
    if attempt.spare:
        first_token_s = min(first_token_s, settings.timeouts.first_token_s or first_token_s)
    deadline, phase = min((loop.time() + first_token_s, "first_byte"), (attempt.total_deadline, "total"))
    rescue = attempt.rescue
    carrying_on = rescue is not None and rescue.begin(translator)
    response = await parts.upstreams.send(
        way, faults.key, attempt.encode(way), EVENTS_TYPE, deadline, phase, continuing=carrying_on
    )
    kind: Callable[..., StreamRelay] = StreamRelay
    if rescue is not None and rescue.buffers:
        kind = partial(BufferingRelay, bytes_max=settings.gateway.reply_bytes_max)
    relay = kind(
        call,
        bill,
        response,
        translator,
        idle_s=settings.timeouts.idle_s,
        ping_s=settings.gateway.ping_stream_s,
        total_deadline=attempt.total_deadline,
    )
    stream = OpenStream(attempt, translator, response)
    parts.progress.add(stream)
    try:
        failure = await relay.run()
    except asyncio.CancelledError:
        attempt.settle_cut(way, translator)
        raise
    finally:
        parts.progress.discard(stream)
        if translator.complete:
            response.release()
        else:
            response.abort()
    usage = translator.usage if failure is None else None
    estimated = usage is None
    if usage is None and translator.started:
        try:
            usage = await attempt.count(way, translator.said)
        except asyncio.CancelledError:
            attempt.settle_cut(way, translator)
            raise
    if failure is None:
        usage = usage or attempt.estimate(translator.delivered)
        if carrying_on and rescue is not None and not estimated:
            usage, estimated = rescue.whole(usage, attempt.estimate(translator.delivered).prompt_tokens), True
        await attempt.settle("complete", usage, estimated=estimated, finish_reason=translator.finish_reason)
        last = translator.final(usage)
        call.send_last(last if rescue is None else relay.kept + rescue.note(bill.attempts) + last)
    elif translator.started and not (rescue is not None and rescue.takes(translator, failure)):
        await attempt.settle("interrupted", usage or attempt.estimate(translator.delivered), estimated=True)
        raise failure
    else:
        if rescue is not None and rescue.buffers:
            attempt.lose(attempt.estimate(translator.delivered))
        elif faults.reported is None or translator.started:
            attempt.lose(translator.usage)
        raise faults.failed(failure)


class OpenStream(Struct, eq=False):
    """A stream under way, as `ProgressNotes` looks at it a few times a second.

    Of a long answer only a slice is held for at a time: the next one is asked for when half of the last has come. If
    the credit does not cover it, the stream ends where the hold ends, as an answer ends that reaches its `max_tokens`.
    """

    attempt: Attempt
    translator: StreamTranslator
    response: Response

    @property
    def events(self) -> int:
        return self.translator.data_events

    def reached(self) -> Reached | None:
        """None as long as nothing was delivered."""
        translator, attempt = self.translator, self.attempt
        if not translator.started:
            return None
        usage = attempt.estimate(translator.delivered)
        permit = attempt.permit
        if permit.held_tokens < permit.output_tokens:
            self._hold_on(permit, usage.completion_tokens)
        return attempt.bill.reached(usage) if attempt.delivers(translator) else None

    def _hold_on(self, permit: Permit, tokens: int) -> None:
        slice_tokens = permit.ask.slice_tokens
        if tokens + slice_tokens // 2 <= permit.held_tokens:
            return

        def refused() -> None:
            if tokens >= permit.held_tokens and not permit.settled and not self.translator.complete:
                self.translator.cut_short()
                self.response.stop()

        self.attempt.parts.guard.extend(permit, tokens + slice_tokens - permit.held_tokens, refused)


def _nothing() -> None:
    """A refusal shows in the permit, which stays as it was."""


class Faults(Struct, eq=False):
    """Errors that an upstream reports inside an answer of status 200, with what they say about our account."""

    upstreams: Upstreams
    way: Way
    key: UpstreamKey
    reported: AttemptFailed | None = None

    def classify(self, payload: dict[str, Any]) -> failures.Failure:
        failure = self.upstreams.meaning(self.way, payload)
        self.reported = self.upstreams.failed(self.way, self.key, failure)
        return failure

    def failed(self, error: GatewayError) -> AttemptFailed:
        """How the attempt failed with `error`: as the upstream said, or else, if it is the upstream's, retryable."""
        if self.reported is not None:
            return self.reported
        if isinstance(error, UpstreamTimeout):
            return AttemptFailed(error, retryable=True, weight=TIME_OUT_WEIGHT)
        fault = isinstance(error, UpstreamFailed)
        return AttemptFailed(error, retryable=fault, again=fault, weight=int(fault))

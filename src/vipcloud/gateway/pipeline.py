"""One chat completion from its key to its settlement: the table of contents of the data plane.

Every step raises a GatewayError, which the app renders. After the permit is given there is a Bill, and it is settled on
every way out: the money side is synchronous, so a cancellation cannot come between.
"""

import asyncio
from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from vipcloud.accounts.directory import Principal
from vipcloud.dialects import replies, requests
from vipcloud.dialects.openai import ChatRequest, Usage
from vipcloud.dialects.replies import ChunkWriter
from vipcloud.errors import (
    GatewayError,
    Unauthenticated,
    Unavailable,
    UnsupportedMediaType,
    UpstreamFailed,
    UpstreamTimeout,
)
from vipcloud.gateway.bill import Bill, Outcome
from vipcloud.gateway.call import Call
from vipcloud.gateway.parts import Parts
from vipcloud.gateway.relay import StreamRelay
from vipcloud.gateway.upstreams import AttemptFailed, Upstreams, Way, broken
from vipcloud.http.client import ClientError
from vipcloud.ledger.journal import JournalError
from vipcloud.limits.guard import Permit
from vipcloud.limits.rules import Ask, whole_seconds
from vipcloud.metering import estimate
from vipcloud.money import NanoUSD
from vipcloud.providers import failures, reply, translate
from vipcloud.providers.catalog import Model
from vipcloud.providers.prices import Price
from vipcloud.providers.stream import StreamTranslator
from vipcloud.providers.usage import Delivered

JSON_TYPE, EVENTS_TYPE = "application/json", "text/event-stream"
SMALL_BODY_BYTES = 65536  # up to here a body's own size is a good enough ceiling for its tokens


async def chat(call: Call, parts: Parts) -> None:
    """Serve `POST /v1/chat/completions`."""
    exchange = call.exchange
    if exchange.draining:
        raise Unavailable("The gateway is restarting; send the request again.", retry_after_s=1)
    headers = exchange.headers
    kind = headers.get(b"content-type")
    if kind != b"application/json":
        check_content_type(kind)
    token = bearer(headers)
    principal = parts.directory.lookup(token) or await parts.directory.authenticate(token)
    body = exchange.whole
    if body is None:
        body = await exchange.body()
    request = requests.parse_chat(body, strict_parameters=parts.settings.gateway.strict_parameters)
    model = parts.catalog.model(request.model)
    ways = parts.upstreams.ways(model, request)
    started_s = parts.clock.wall_s()
    assert model.prices is not None, "the catalogue serves no model without a price"
    price = model.prices.at(started_s)
    permit = await admit(call, parts, principal, request, model, price, len(body))
    bill = open_bill(parts, principal, model, price, permit, started_s, streamed=request.stream is True)
    try:
        await serve(Attempt(call, parts, request, model, permit, bill), ways)
    except GatewayError as error:
        bill.settle("upstream_failed")
        if not exchange.started:
            raise
        exchange.finish(error.event() if call.streams else error.body())
    finally:
        if not bill.settled:
            bill.settle("restarted" if exchange.interrupted else "client_gone" if exchange.gone else "fault")


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


async def authenticate(call: Call, parts: Parts) -> Principal:
    """Whose key this is. Raises Unauthenticated, Forbidden, Unavailable."""
    return await parts.directory.authenticate(bearer(call.exchange.headers))


async def admit(
    call: Call, parts: Parts, principal: Principal, request: ChatRequest, model: Model, price: Price, body_bytes: int
) -> Permit:
    """Rate, concurrency and credit in one step. Raises RateLimited, InsufficientCredit."""
    account = principal.account
    tokens_in = body_bytes if body_bytes <= SMALL_BODY_BYTES else requests.text_bytes(request)
    if tokens_in > model.context_tokens:
        tokens_in = model.context_tokens
    most = model.output_tokens_max
    asked = request.max_completion_tokens or request.max_tokens or most
    if asked > most:
        asked = most
    rates = price.dearest(tokens_in, asked) if price.tiers else price
    ask = Ask(NanoUSD(-(-tokens_in * rates.input_max // 1000)), rates.output, asked)
    permit = await parts.guard.admit(call.completion_id, account, parts.tiers.limits(account), ask)
    if permit.limit_requests:
        call.head += b"x-ratelimit-limit-requests: %d\r\nx-ratelimit-remaining-requests: %d\r\n%b" % (
            permit.limit_requests,
            permit.remaining_requests,
            b"x-ratelimit-reset-requests: %b\r\n" % whole_seconds(permit.reset_s).encode(),
        )
    if permit.output_tokens < asked:
        call.head += b"x-vipcloud-max-tokens: %d\r\n" % permit.output_tokens
    return permit


def open_bill(
    parts: Parts, principal: Principal, model: Model, price: Price, permit: Permit, started_s: float, *, streamed: bool
) -> Bill:
    """The request's bill. Raises Unavailable while the journal cannot be written: nothing may be served unrecorded."""
    bill = Bill(parts, principal, model, price, permit, streamed, started_s, parts.clock.monotonic_s())
    try:
        bill.open()
    except JournalError as error:
        parts.guard.settle(permit, NanoUSD(0))
        raise Unavailable("The gateway cannot record requests at present.", retry_after_s=5) from error
    return bill


class Attempt(Struct, eq=False):
    """What an attempt needs to know; the same for all attempts of a request."""

    call: Call
    parts: Parts
    request: ChatRequest
    model: Model
    permit: Permit
    bill: Bill

    @property
    def total_deadline(self) -> float:
        """In the loop's time."""
        return self.call.exchange.received_s + self.parts.settings.timeouts.total_s

    def estimate(self, delivered: Delivered) -> Usage:
        """What was used, counted here."""
        return estimate.usage_of(estimate.prompt_size(self.request), delivered, self.permit.output_tokens)

    def settle_cut(self, translator: StreamTranslator, outcome: Outcome) -> None:
        """Charge what was delivered of a stream that did not come to its end; nothing if nothing was."""
        self.bill.settle(outcome, self.estimate(translator.delivered) if translator.started else None, estimated=True)

    def encode(self, way: Way) -> bytes:
        """The upstream's body for this way."""
        return translate.encode_suited(
            self.request,
            way.candidate,
            max_tokens=self.permit.output_tokens,
            attempt_id=f"{self.call.serial}-{self.bill.attempts}",
            account=self.bill.principal.account.id,
        )


async def serve(attempt: Attempt, ways: list[Way]) -> None:
    """Try the ways in order until one has answered. Raises the last one's GatewayError.

    Another way is tried only while nothing of an answer has gone to the client, and only after a failure that another
    way may not have.
    """
    parts, call, bill = attempt.parts, attempt.call, attempt.bill
    settings = parts.settings.gateway
    stream = call.streams = bill.streamed
    serve_one = serve_stream if stream else serve_unary
    call.ping_s = settings.ping_stream_s
    call.deadline = call.exchange.received_s + (settings.ping_stream_s if stream else settings.ping_unary_s)
    parts.deadlines.add(call)
    failed: AttemptFailed | None = None
    try:
        for way in ways[: settings.attempts_max]:
            bill.way = way
            bill.attempts += 1
            account = way.account
            account.running += 1
            try:
                await serve_one(attempt, way)
            except AttemptFailed as error:
                failed = error
                if not error.retryable:
                    break
            else:
                account.health.note_success(way.candidate.upstream_model)
                return
            finally:
                account.running -= 1
    finally:
        parts.deadlines.discard(call)
    assert failed is not None, "there was a way to try"
    raise failed.error


async def serve_unary(attempt: Attempt, way: Way) -> None:
    """One upstream call, answered whole. Raises AttemptFailed."""
    parts, request, bill, candidate = attempt.parts, attempt.request, attempt.bill, way.candidate
    response = await parts.upstreams.send(way, attempt.encode(way), JSON_TYPE, attempt.total_deadline, "total")
    bytes_max = parts.settings.gateway.reply_bytes_max
    try:
        payload = response.read_now(bytes_max) or await response.read(bytes_max)
    except ClientError as error:
        raise broken(error, way) from error
    finally:
        response.abort()
    faults = Faults(parts.upstreams, way)
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
            usage_tokens_max=attempt.model.context_tokens + candidate.output_tokens_max,
        )
    except GatewayError as error:
        raise faults.failed(error) from error
    usage = answer.usage
    if usage is None:
        answer.usage = attempt.estimate(reply.delivered(answer))
    bill.settle("complete", answer.usage, estimated=usage is None)
    attempt.call.send_last(replies.encode_reply(answer))


async def serve_stream(attempt: Attempt, way: Way) -> None:
    """One upstream stream, relayed to its end.

    Raises AttemptFailed as long as no content has gone to the client, and the GatewayError to tell after that.
    """
    parts, call, request, bill = attempt.parts, attempt.call, attempt.request, attempt.bill
    settings, loop = parts.settings, asyncio.get_running_loop()
    faults = Faults(parts.upstreams, way)
    translator = StreamTranslator(
        ChunkWriter(
            call.completion_id,
            int(bill.started_s),
            request.model,
            include_usage=request.stream_options is not None and request.stream_options.include_usage is True,
        ),
        event_bytes_max=settings.gateway.event_bytes_max,
        classify=faults.classify,
        choices=request.n or 1,
        stops=translate.local_stops(request, way.candidate),
        legacy_functions=requests.uses_legacy_functions(request),
        quirks=way.candidate.quirks,
        usage_tokens_max=attempt.model.context_tokens + way.candidate.output_tokens_max,
    )
    first_byte_s = settings.timeouts.first_byte_s or way.candidate.first_byte_s
    deadline, phase = min((loop.time() + first_byte_s, "first_byte"), (attempt.total_deadline, "total"))
    response = await parts.upstreams.send(way, attempt.encode(way), EVENTS_TYPE, deadline, phase)
    relay = StreamRelay(
        call,
        bill,
        response,
        translator,
        idle_s=settings.timeouts.idle_s,
        ping_s=settings.gateway.ping_stream_s,
        total_deadline=attempt.total_deadline,
    )
    try:
        failure = await relay.run()
    except asyncio.CancelledError:
        attempt.settle_cut(translator, "restarted" if call.exchange.interrupted else "client_gone")
        raise
    finally:
        if translator.complete:
            response.release()
        else:
            response.abort()
    if failure is None:
        usage = translator.usage or attempt.estimate(translator.delivered)
        bill.settle("complete", usage, estimated=translator.usage is None)
        call.send_last(translator.final(usage))
    elif translator.started:
        attempt.settle_cut(translator, "interrupted")
        raise failure
    else:
        raise faults.failed(failure)


class Faults(Struct, eq=False):
    """Errors that an upstream reports inside an answer of status 200, with what they say about our account."""

    upstreams: Upstreams
    way: Way
    reported: AttemptFailed | None = None

    def classify(self, payload: dict[str, Any]) -> failures.Failure:
        failure = failures.classify_event(self.way.account.provider, payload)
        self.reported = self.upstreams.failed(self.way, failure)
        return failure

    def failed(self, error: GatewayError) -> AttemptFailed:
        """How the attempt failed with `error`: as the upstream said, or else, if it is the upstream's, retryable."""
        if self.reported is not None:
            return self.reported
        return AttemptFailed(
            error, retryable=isinstance(error, UpstreamFailed) and not isinstance(error, UpstreamTimeout)
        )

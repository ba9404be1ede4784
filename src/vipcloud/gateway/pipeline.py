"""One chat completion from its key to its settlement: the table of contents of the data plane.

Every step raises a GatewayError, which the app renders. After the permit is given there is a Bill, and it is settled on
every way out: the money side is synchronous, so a cancellation cannot come between.
"""

import asyncio
from collections.abc import Mapping

from vipcloud.accounts.directory import Principal, Terms
from vipcloud.dialects import requests
from vipcloud.dialects.openai import ChatRequest
from vipcloud.errors import (
    Forbidden,
    GatewayError,
    ModelNotFound,
    NotImplementedYet,
    Overloaded,
    Unauthenticated,
    Unavailable,
    UnsupportedMediaType,
    UpstreamInterrupted,
)
from vipcloud.gateway.attempt import Attempt
from vipcloud.gateway.bill import Bill
from vipcloud.gateway.call import Call
from vipcloud.gateway.demo import Demo
from vipcloud.gateway.idempotency import Claim
from vipcloud.gateway.parts import Parts
from vipcloud.gateway.rescue import Rescue
from vipcloud.gateway.tries import serve_by
from vipcloud.gateway.upstreams import AttemptFailed, Pool, Way
from vipcloud.http.addresses import client_address
from vipcloud.ledger.journal import JournalError
from vipcloud.limits.guard import Permit, Subject
from vipcloud.limits.rules import Ask, seconds_to_midnight, whole_seconds
from vipcloud.money import NanoUSD
from vipcloud.providers import answers, stream
from vipcloud.providers.catalog import Model
from vipcloud.providers.prices import Price

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
            bill.settle(call.cut_by if exchange.interrupted else "client_gone" if exchange.gone else "fault")


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


async def serve(attempt: Attempt) -> None:
    """Try ways until one has answered. Raises the last one's GatewayError.

    Another try is made only while nothing of an answer has gone to the client, and only after a failure that another
    try may not have.
    """
    parts, call, bill, pool = attempt.parts, attempt.call, attempt.bill, attempt.pool
    settings, upstreams = parts.settings.gateway, parts.upstreams
    call.principal = bill.principal
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
        attempt.settle_said(call.cut_by)
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

"""One chat completion from its key to its settlement: the table of contents of the data plane.

Every step raises a GatewayError, which the app renders. After the permit is given there is a Bill, and it is settled on
every way out: the money side is synchronous, so a cancellation cannot come between.
"""

import asyncio
from collections.abc import Awaitable, Iterator, Mapping
from typing import Final

from vipcloud.accounts.directory import Principal, Terms
from vipcloud.accounts.rules import key_hash
from vipcloud.dialects import requests
from vipcloud.dialects.openai import ChatRequest
from vipcloud.dialects.shapes import Asked
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
from vipcloud.gateway import wishes
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
from vipcloud.http.server import Exchange
from vipcloud.ledger.journal import JournalError
from vipcloud.limits.guard import Permit, Subject
from vipcloud.limits.local import LocalGuard
from vipcloud.limits.rules import Ask, seconds_to_midnight, whole_seconds
from vipcloud.money import NanoUSD
from vipcloud.providers import answers, stream
from vipcloud.providers.answers import Form
from vipcloud.providers.models import Model
from vipcloud.providers.prices import Price

SMALL_BODY_BYTES: Final = 65536  # up to here a body's own size is a good enough ceiling for its tokens
_NO_OTHERS: Final[Iterator[ChatRequest]] = iter(())


class ChatRoute:
    """`chat` as the route of an `App`."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def serve(self, call: Call) -> Awaitable[None]:
        return chat(call, self._parts)


async def chat(call: Call, parts: Parts) -> None:
    """Serve `POST /v1/chat/completions`."""
    exchange = call.exchange
    if exchange.draining:
        raise Unavailable("The gateway is restarting; send the request again.", retry_after_s=1)
    head = exchange.head
    note = None if head is None else head.note
    if isinstance(note, SentKey):  # its type and its key were looked at before, and it has no Idempotency-Key
        principal = parts.directory.known(note.key_hash)
    else:
        kind = exchange.header(b"content-type")
        if kind != b"application/json":
            check_content_type(kind)
        if exchange.header(b"idempotency-key") and call.claim is None:
            await chat_once(call, parts)
            return
        principal = known_caller(exchange, parts)
        sent = exchange.connection.note
        if (
            head is not None
            and call.claim is None
            and isinstance(sent, SentKey)
            and sent.authorization == head.headers.get(b"authorization")
        ):
            head.note = sent
    if principal is None:
        principal = await parts.directory.authenticate(bearer(exchange.headers))
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
    refused: GatewayError | None = None
    try:
        attempt, others = await admitted(call, parts, principal, subject, demo)
    except GatewayError as error:
        refused = error
    if refused is not None:
        call.tier = principal.account.tier
        if not isinstance(refused, Overloaded):
            await tell_standing(call, parts, subject)
        raise refused
    bill = attempt.bill
    try:
        if others is _NO_OTHERS:
            await serve(attempt)
        else:
            await serve_listed(attempt, others)
    except GatewayError as error:
        bill.settle("upstream_failed", error_code=error.code)
        call.tier, call.model = principal.account.tier, bill.model.id
        if not exchange.started:
            raise
        parts.figures.note_error(error, call.request_id, call.model, call.tier)
        exchange.finish(error.event() if call.streams else error.body())
    finally:
        if not bill.settled:
            bill.settle(call.cut_by if exchange.interrupted else "client_gone" if exchange.gone else "fault")


async def admitted(
    call: Call, parts: Parts, principal: Principal, subject: Subject, demo: Demo | None
) -> tuple[Attempt, Iterator[ChatRequest]]:
    """The first attempt, held and billed for, and what else the caller would have. Raises what refuses the request."""
    exchange = call.exchange
    if parts.pulse.high:
        parts.pulse.check(principal.account.tier)
    body = exchange.whole
    if body is None:
        body = await exchange.body()
    asked = read(parts, principal, body, demo)
    request = asked.request
    if demo is not None:
        demo.restrict(request, len(body))
    rescue = Rescue.of(exchange.header(b"x-vipcloud-rescue"), request)
    started_s = parts.clock.wall_s()
    others: Iterator[ChatRequest] = _NO_OTHERS
    form = answers.wanted(request) if request.response_format is not None else None
    if request.models is None:
        offer = find_offer(call, parts, principal, request, started_s, len(body), form)
    else:
        others = iter(wishes.by_model(request))
        offer = first_offer(call, parts, principal, others, started_s, len(body), form)
    permit = await admit(call, parts, subject, offer, started_s)
    bill = open_bill(parts, principal, offer, permit, started_s, claim=call.claim)
    attempt = Attempt(call, parts, offer.request, offer.model, permit, bill, offer.pool, offer.form, rescue)
    attempt.asked = asked
    return attempt, others


def read(parts: Parts, principal: Principal, body: bytes, demo: Demo | None) -> Asked:
    """What the body says. Raises BadRequest."""
    strict = parts.constants.strict_parameters
    if strict or demo is not None or principal.key_id is None:
        return Asked(requests.parse_chat(body, strict_parameters=strict))
    return parts.shapes.read(principal.key_id, body)


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


def known_caller(exchange: Exchange, parts: Parts) -> Principal | None:
    """Whose key this is, if the directory knows it. Raises Unauthenticated as `bearer` does.

    A connection mostly sends one key, so its hash stays with the connection: it costs as much as all else of this.
    """
    authorization = exchange.header(b"authorization")
    connection = exchange.connection
    note = connection.note
    if isinstance(note, SentKey) and note.authorization == authorization:
        return parts.directory.known(note.key_hash)
    hashed = key_hash(bearer(exchange.headers))
    if authorization is not None:
        connection.note = SentKey(authorization, hashed)
    return parts.directory.known(hashed)


class SentKey:
    """An Authorization header as it was sent, and what is stored of its key."""

    def __init__(self, authorization: bytes, key_hash: bytes) -> None:
        self.authorization = authorization
        self.key_hash = key_hash


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
        call.head += minute_lines(standing.limit, standing.remaining, standing.reset_s)
    if standing.day_limit:
        call.head += day_lines(standing.day_limit, standing.day_remaining, now_s)


class Offer:
    """What would serve `request`, at which price, and what it may cost at most."""

    def __init__(
        self, request: ChatRequest, model: Model, pool: Pool, form: Form | None, price: Price, ask: Ask
    ) -> None:
        self.request = request
        self.model = model
        self.pool = pool
        self.form = form
        self.price = price
        self.ask = ask


def find_offer(
    call: Call,
    parts: Parts,
    principal: Principal,
    request: ChatRequest,
    started_s: float,
    body_bytes: int,
    form: Form | None,
) -> Offer:
    """Raises Forbidden, ModelNotFound, NotImplementedYet, and what `Upstreams.pool` does.

    `form` is the request's, whatever its model: a schema takes too long to compile it for each.
    """
    model = parts.catalog.model(request.model)
    call.model = model.id
    if principal.terms is not None:
        check_terms(call, parts, principal.terms, model.id)
    pool = parts.upstreams.pool(model, request, principal.account)
    assert model.prices is not None, "the catalogue serves no model without a price"
    price = model.prices.at(started_s)
    tokens_in = body_bytes if body_bytes <= SMALL_BODY_BYTES else requests.text_bytes(request)
    if tokens_in > model.context_tokens:
        tokens_in = model.context_tokens
    most = model.output_tokens_max
    asked = request.max_completion_tokens or request.max_tokens or most
    if asked > most:
        asked = most
    if request.n is not None:
        asked *= request.n
    rates = price.dearest(tokens_in, asked) if price.tiers else price
    if request.provider is not None and request.provider.max_price is not None:
        wishes.check_price(request.provider.max_price, rates, model.id)
    slice_tokens = parts.settings.guard.hold_slice_tokens if request.stream else 0
    ask = Ask(NanoUSD((tokens_in * rates.input_max + 999) // 1000), rates.output, asked, slice_tokens)
    return Offer(request, model, pool, form, price, ask)


def first_offer(
    call: Call,
    parts: Parts,
    principal: Principal,
    wanted: Iterator[ChatRequest],
    started_s: float,
    body_bytes: int,
    form: Form | None,
) -> Offer:
    """The first that can be had of those wanted. Raises what became of the first one if none can."""
    first: GatewayError | None = None
    for request in wanted:
        try:
            return find_offer(call, parts, principal, request, started_s, body_bytes, form)
        except GatewayError as error:
            first = first or error
    assert first is not None, "at least one was wanted"
    raise first


def minute_lines(limit: int, remaining: int, reset_s: float) -> bytes:
    return (
        b"x-ratelimit-limit-requests: %d\r\nx-ratelimit-remaining-requests: %d\r\nx-ratelimit-reset-requests: %b\r\n"
        % (
            limit,
            remaining,
            whole_seconds(reset_s),
        )
    )


def day_lines(limit: int, remaining: int, now_s: float) -> bytes:
    return (
        b"x-ratelimit-limit-requests-day: %d\r\nx-ratelimit-remaining-requests-day: %d\r\n"
        b"x-ratelimit-reset-requests-day: %b\r\n"
    ) % (limit, remaining, whole_seconds(seconds_to_midnight(now_s)))


async def admit(call: Call, parts: Parts, subject: Subject, offer: Offer, started_s: float) -> Permit:
    """Rate, concurrency and credit in one step. Raises RateLimited, InsufficientCredit."""
    check_payer(subject, offer)
    guard = parts.guard
    if type(guard) is LocalGuard:
        permit = guard.admit_now(call.completion_id, subject, offer.ask, started_s)  # memory: nothing to wait for
    else:
        permit = await guard.admit(call.completion_id, subject, offer.ask, started_s)
    if permit.limit_requests:
        call.head += minute_lines(permit.limit_requests, permit.remaining_requests, permit.reset_s)
    if permit.day_limit:
        call.head += day_lines(permit.day_limit, permit.day_remaining, started_s)
    if permit.output_tokens < offer.ask.output_tokens:
        call.head += _clamp(permit, offer.request)
    return permit


def check_payer(subject: Subject, offer: Offer) -> None:
    """Raises NotImplementedYet for what costs something where nobody pays."""
    if not subject.purses and offer.ask.hold(offer.ask.output_tokens):
        raise NotImplementedYet(f"The model '{offer.model.id}' is not free.", param="model")


def _clamp(permit: Permit, request: ChatRequest) -> bytes:
    """The header that tells how far the credit goes."""
    return b"x-vipcloud-max-tokens: %d\r\n" % (permit.output_tokens // (request.n or 1))


def open_bill(
    parts: Parts, principal: Principal, offer: Offer, permit: Permit, started_s: float, *, claim: Claim | None
) -> Bill:
    """The request's bill. Raises Unavailable while the journal cannot be written: nothing may be served unrecorded."""
    streamed, opened_s = offer.request.stream is True, parts.clock.monotonic_s()
    bill = Bill(parts, principal, offer.model, offer.price, permit, streamed, started_s, opened_s, claim)
    try:
        bill.open(offer.model, offer.price)
    except JournalError as error:
        parts.guard.settle(permit, NanoUSD(0))
        raise Unavailable("The gateway cannot record requests at present.", retry_after_s=5) from error
    return bill


async def serve_listed(attempt: Attempt, others: Iterator[ChatRequest]) -> None:
    """Serve by the model at hand and, as long as nothing was delivered, by the next that the caller lists.

    Each is priced and held for before it is asked. Raises what became of the first one.
    """
    loop = asyncio.get_running_loop()
    body_bytes = len(attempt.call.exchange.whole or b"")
    first: GatewayError | None = None
    while True:
        try:
            await serve(attempt)
        except GatewayError as error:
            if attempt.delivered:
                raise
            first = first or error
        else:
            return
        following = None
        while following is None and loop.time() < attempt.total_deadline and (request := next(others, None)):
            following = await change_model(attempt, request, body_bytes)
        if following is None:
            raise first
        attempt = following


async def change_model(attempt: Attempt, request: ChatRequest, body_bytes: int) -> Attempt | None:
    """The attempt to have `request` answered under the same permit and bill; None where that cannot be."""
    call, parts, bill, permit = attempt.call, attempt.parts, attempt.bill, attempt.permit
    clamp = _clamp(permit, attempt.request)
    try:
        offer = find_offer(call, parts, bill.principal, request, bill.started_s, body_bytes, attempt.form)
        check_payer(permit.subject, offer)
        await parts.guard.rehold(permit, offer.ask)
        bill.change_model(offer.model, offer.price)
    except (GatewayError, JournalError):
        return None
    call.head = call.head.replace(clamp, b"")
    if permit.output_tokens < offer.ask.output_tokens:
        call.head += _clamp(permit, request)
    return Attempt(call, parts, request, offer.model, permit, bill, offer.pool, offer.form, attempt.rescue)


async def serve(attempt: Attempt) -> None:
    """Try ways until one has answered. Raises the last one's GatewayError.

    Another try is made only while nothing of an answer has gone to the client, and only after a failure that another
    try may not have.
    """
    parts, call, bill, pool = attempt.parts, attempt.call, attempt.bill, attempt.pool
    constants, upstreams = parts.constants, parts.upstreams
    call.principal = bill.principal
    call.streams = bill.streamed
    call.ping_s = constants.ping_stream_s
    call.deadline = call.exchange.received_s + (constants.ping_stream_s if bill.streamed else constants.ping_unary_s)
    parts.deadlines.add(call)
    if parts.tracing is not None:
        parts.tracing.opened(call.completion_id, call.exchange.headers.get(b"traceparent"))
    upstreams.budget.requests += 1
    try:
        if upstreams.calm and pool.fixed:
            way: Way | None = pool.ways[0]
        else:
            way = upstreams.choose(pool, attempt.request, bill.principal.account)
        if way is None:
            raise upstreams.unserved(pool)
        attempt.spare = len(pool.ways) > 1 and upstreams.spare(pool, (way,))
        failed: AttemptFailed | None = None
        try:
            await serve_by(attempt, way)
        except AttemptFailed as error:
            failed = error
        if failed is not None:
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
    others = bill.attempts - 1  # tries of other models
    while failed.retryable and bill.attempts - others < parts.settings.gateway.attempts_max:
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
            try:
                await asyncio.sleep(wait_s)
            except BaseException:
                way.breaker.release(way.breaker.epoch)
                raise
        attempt.pass_on()
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
    raise upstreams.last_error(failed, attempt.pool, spent=spent)

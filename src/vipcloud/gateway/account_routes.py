"""What a customer can look up about its own money: `GET /v1/generation`, `/v1/credits`, `/v1/key`.

The shapes are OpenRouter's (`dialects.openrouter`), with what is ours beside them. Everything is read from the store in
a thread; a request that the bookkeeper has not reached yet is looked for in the journal.
"""

import re
from urllib.parse import parse_qs

from vipcloud.accounts import store as accounts
from vipcloud.accounts.directory import Principal
from vipcloud.billing import store as billing
from vipcloud.clock import rfc3339
from vipcloud.dialects import openrouter
from vipcloud.dialects.openrouter import dollars
from vipcloud.errors import BadRequest, GenerationNotFound
from vipcloud.gateway import pipeline
from vipcloud.gateway.app import Route
from vipcloud.gateway.call import Call
from vipcloud.gateway.management import NOTHING, answer, bounds_of
from vipcloud.gateway.parts import Parts
from vipcloud.gateway.turns import Turns
from vipcloud.ledger import bookkeeper
from vipcloud.ledger import store as ledger
from vipcloud.ledger.records import Settled
from vipcloud.ledger.rules import Sums
from vipcloud.limits.rules import DAY_S
from vipcloud.storage import engine as storage

_ID = re.compile(r"(?:chatcmpl-|req_|gen-)?([0-9A-Za-z]{1,64})")


def table(parts: Parts, turns: Turns) -> dict[str, dict[str, Route]]:
    """Paths without `/v1`; see `App`."""

    async def generation(call: Call) -> None:
        principal = await pipeline.authenticate(call, parts)
        asked = parse_qs(call.exchange.query).get("id", [""])[-1]
        match = _ID.fullmatch(asked)
        if match is None:
            raise BadRequest("Name a request: /v1/generation?id=chatcmpl-…, or the x-request-id.", param="id")
        row = await turns.ask(lambda: find(parts, f"chatcmpl-{match[1]}"))
        if row is None or row.account_id != principal.account.id:
            raise GenerationNotFound(f"You have no finished request with the id '{asked}'.", param="id")
        provider = parts.catalog.providers.get(row.provider or "")
        told = described(row, provider.name if provider is not None else row.provider)
        answer(call, 200, openrouter.GenerationAnswer(told))

    async def credits(call: Call) -> None:  # noqa: A001 - the route's name
        principal = await pipeline.authenticate(call, parts)
        sums = await turns.ask(lambda: sums_of(parts, principal.account.id))
        told = openrouter.Credits(dollars(sums.credits_nanousd), dollars(sums.debits_nanousd))
        answer(call, 200, openrouter.CreditsAnswer(told))

    async def key(call: Call) -> None:
        principal = await pipeline.authenticate(call, parts)
        answer(call, 200, openrouter.OwnKeyAnswer(await turns.ask(lambda: key_described(parts, principal))))

    return {"/generation": {"GET": generation}, "/credits": {"GET": credits}, "/key": {"GET": key}}


def find(parts: Parts, request_id: str) -> Settled | None:
    """In a thread: how a request ended, from the books or else from the journal; None if it is unknown or runs."""
    engine, directory = parts.directory.engine, parts.settings.journal_path
    for _ in range(2):  # between the two looks the bookkeeper may have moved it from the one to the other
        with storage.reading(engine) as connection:
            row = ledger.usage_of(connection, request_id)
        row = row or bookkeeper.unbooked(engine, directory, request_id)
        if row is not None:
            return row
    return None


def described(row: Settled, provider_name: str | None) -> openrouter.Generation:
    complete = row.outcome == "complete"
    return openrouter.Generation(
        id=row.request_id,
        request_id=f"req_{row.request_id.removeprefix('chatcmpl-')}",
        model=row.model,
        provider_name=provider_name,
        created_at=rfc3339(row.started_at),
        streamed=row.streamed,
        cancelled=row.outcome == "client_gone",
        outcome=row.outcome,
        finish_reason=row.finish_reason,
        native_finish_reason=row.finish_reason,
        total_cost=dollars(row.charge_nanousd),
        usage=dollars(row.charge_nanousd),
        upstream_inference_cost=dollars(row.cost_nanousd),
        markup=dollars(row.charge_nanousd - row.cost_nanousd),
        price_version=row.price_version,
        tokens_prompt=row.prompt_tokens,
        tokens_completion=row.completion_tokens,
        native_tokens_prompt=row.prompt_tokens,
        native_tokens_completion=row.completion_tokens,
        native_tokens_reasoning=row.reasoning_tokens,
        native_tokens_cached=row.cached_tokens,
        tokens=openrouter.Tokens(
            input=row.prompt_tokens - row.cached_tokens, cached_input=row.cached_tokens, output=row.completion_tokens
        ),
        estimated=row.estimated,
        attempts=row.attempts,
        latency=row.first_token_ms,
        generation_time=row.duration_ms - (row.first_token_ms or 0) if complete else row.duration_ms,
    )


def sums_of(parts: Parts, account_id: str) -> Sums:
    with storage.reading(parts.directory.engine) as connection:
        return ledger.sums(connection, account_id)


def key_described(parts: Parts, principal: Principal) -> openrouter.OwnKey:
    """In a thread."""
    assert principal.key_id is not None, "only the demo has no key, and it does not come here"
    with storage.reading(parts.directory.engine) as connection:
        found = accounts.key_by_id(connection, principal.key_id)
        assert found is not None, "keys are revoked and never taken out"
        today = int(parts.clock.wall_s() // DAY_S)
        spent = ledger.spending_of_keys(connection, [found.id], today).get(found.id, NOTHING)
        used = ledger.account_requests_on(connection, principal.account.id, today)
        paid = billing.ever_paid(connection, principal.account.id)
    *_, meter = parts.tiers.subject(principal).meters  # the account's
    rpd = meter.limits.rpd
    return openrouter.OwnKey(
        label=found.masked,
        name=found.name,
        is_free_tier=not paid,
        is_management_key=found.management,
        is_provisioning_key=found.management,
        rate_limit=openrouter.RateLimit(meter.limits.rpm or -1),
        free_model_daily_requests=openrouter.DailyRequests(rpd or -1, max(0, rpd - used) if rpd else -1, used),
        workspace_id=principal.account.id,
        **bounds_of(found, spent),
    )

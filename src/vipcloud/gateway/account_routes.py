"""What a customer can look up about its own money: `GET /v1/generation`, `/v1/credits`, `/v1/key`.

The shapes are OpenRouter's (openrouter.ai/docs/api-reference, seen 2026-11), with what is ours beside them. Numbers of
dollars are exact. Everything is read from the store in a thread, at most `READS_MAX` at a time; a request that the
bookkeeper has not reached yet is looked for in the journal.
"""

import asyncio
import re
from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import parse_qs

import msgspec
from msgspec import Raw
from sqlalchemy.exc import SQLAlchemyError

from vipcloud.accounts import store as accounts
from vipcloud.accounts.directory import Principal
from vipcloud.clock import rfc3339
from vipcloud.errors import BadRequest, GenerationNotFound, Unavailable
from vipcloud.gateway import pipeline
from vipcloud.gateway.app import Route
from vipcloud.gateway.call import Call
from vipcloud.gateway.parts import Parts
from vipcloud.ledger import bookkeeper
from vipcloud.ledger import store as ledger
from vipcloud.ledger.journal import JournalError
from vipcloud.ledger.records import Settled
from vipcloud.ledger.rules import Sums
from vipcloud.money import NanoUSD, usd_number
from vipcloud.storage import engine as storage

READS_MAX = 2
DAY_S = 86_400
_ID = re.compile(r"(?:chatcmpl-|req_|gen-)?([0-9A-Za-z]{1,64})")

T = TypeVar("T")


def table(parts: Parts) -> dict[str, dict[str, Route]]:
    """Paths without `/v1`; see `App`."""
    turn = asyncio.Semaphore(READS_MAX)

    async def read(ask: Callable[[], T]) -> T:
        async with turn:
            try:
                return await asyncio.to_thread(ask)
            except (SQLAlchemyError, JournalError) as error:
                raise Unavailable("The books cannot be read right now; try again shortly.", retry_after_s=1) from error

    async def generation(call: Call) -> None:
        principal = await pipeline.authenticate(call, parts)
        asked = parse_qs(call.exchange.query).get("id", [""])[-1]
        match = _ID.fullmatch(asked)
        if match is None:
            raise BadRequest("Name a request: /v1/generation?id=chatcmpl-…, or the x-request-id.", param="id")
        row = await read(lambda: find(parts, f"chatcmpl-{match[1]}"))
        if row is None or row.account_id != principal.account.id:
            raise GenerationNotFound(f"You have no finished request with the id '{asked}'.", param="id")
        provider = parts.catalog.providers.get(row.provider or "")
        answer(call, described(row, provider.name if provider is not None else row.provider))

    async def credits(call: Call) -> None:  # noqa: A001 - the route's name
        principal = await pipeline.authenticate(call, parts)
        sums = await read(lambda: sums_of(parts, principal.account.id))
        answer(
            call,
            {"total_credits": number(sums.credits_nanousd), "total_usage": number(sums.debits_nanousd)},
        )

    async def key(call: Call) -> None:
        principal = await pipeline.authenticate(call, parts)
        answer(call, await read(lambda: key_described(parts, principal)))

    return {"/generation": {"GET": generation}, "/credits": {"GET": credits}, "/key": {"GET": key}}


def answer(call: Call, data: dict[str, Any]) -> None:
    call.respond(200, msgspec.json.encode({"data": data}))


def number(nanousd: int) -> Raw:
    """Dollars as a JSON number, exact."""
    return Raw(usd_number(nanousd) if nanousd >= 0 else b"-" + usd_number(-nanousd))


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


def described(row: Settled, provider_name: str | None) -> dict[str, Any]:
    """A request as OpenRouter tells of one. `markup` is what we add to the provider's list price."""
    complete = row.outcome == "complete"
    fresh = row.prompt_tokens - row.cached_tokens
    return {
        "id": row.request_id,
        "request_id": f"req_{row.request_id.removeprefix('chatcmpl-')}",
        "api_type": "completions",
        "model": row.model,
        "provider_name": provider_name,
        "created_at": rfc3339(row.started_at),
        "streamed": row.streamed,
        "cancelled": row.outcome == "client_gone",
        "outcome": row.outcome,
        "finish_reason": row.finish_reason,
        "native_finish_reason": row.finish_reason,
        "total_cost": number(row.charge_nanousd),
        "usage": number(row.charge_nanousd),
        "upstream_inference_cost": number(row.cost_nanousd),
        "markup": number(row.charge_nanousd - row.cost_nanousd),
        "cache_discount": None,
        "is_byok": False,
        "price_version": row.price_version,
        "tokens_prompt": row.prompt_tokens,
        "tokens_completion": row.completion_tokens,
        "native_tokens_prompt": row.prompt_tokens,
        "native_tokens_completion": row.completion_tokens,
        "native_tokens_reasoning": row.reasoning_tokens,
        "native_tokens_cached": row.cached_tokens,
        "tokens": {"input": fresh, "cached_input": row.cached_tokens, "output": row.completion_tokens},
        "estimated": row.estimated,
        "attempts": row.attempts,
        "latency": row.first_token_ms,
        "generation_time": row.duration_ms - (row.first_token_ms or 0) if complete else row.duration_ms,
        "moderation_latency": None,
    }


def sums_of(parts: Parts, account_id: str) -> Sums:
    with storage.reading(parts.directory.engine) as connection:
        return ledger.sums(connection, account_id)


def key_described(parts: Parts, principal: Principal) -> dict[str, Any]:
    """In a thread."""
    today = int(parts.clock.wall_s() // DAY_S)
    assert principal.key_id is not None, "only the demo has no key, and it does not come here"
    with storage.reading(parts.directory.engine) as connection:
        found = accounts.key_by_id(connection, principal.key_id)
        by_day = ledger.charges_by_day(connection, principal.key_id)
        sums = ledger.sums(connection, principal.account.id)
    since = {"usage_daily": today, "usage_weekly": today - (today + 3) % 7, "usage_monthly": _month_begins(today)}
    *_, meter = parts.tiers.subject(principal).meters  # the account's
    cap = found.cap_total_nanousd if found is not None else None
    left = sums.balance_nanousd if cap is None else NanoUSD(min(sums.balance_nanousd, cap - sum(by_day.values())))
    return {
        "label": found.masked if found is not None else "",
        "name": found.name if found is not None else "",
        "usage": number(sum(by_day.values())),
        **{
            name: number(sum(charge for day, charge in by_day.items() if day >= first)) for name, first in since.items()
        },
        "limit": None if cap is None else number(NanoUSD(cap)),
        "limit_remaining": number(left),
        "is_free_tier": False,
        "rate_limit": {"requests": meter.limits.rpm or -1, "interval": "60s"},
    }


def _month_begins(today: int) -> int:
    """The first day of the month, in days since 1970."""
    return today - int(rfc3339(today * DAY_S)[8:10]) + 1

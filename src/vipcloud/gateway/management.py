"""An account's keys and activity for programs: `/v1/keys` and `/v1/activity`, with a management key.

OpenRouter's shapes (`dialects.openrouter`). A management key is made by the account's owner or the operator; it runs no
requests, and no key made here manages others. Of others' keys nobody learns whether they are there.
"""

import re
import secrets
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import TypedDict, TypeVar
from urllib.parse import parse_qs

import msgspec
from msgspec import Raw, Struct, UnsetType
from sqlalchemy import Connection

from vipcloud.accounts import keys, store
from vipcloud.accounts.directory import Principal
from vipcloud.accounts.store import InvalidInput, KeyRow, KeyTerms
from vipcloud.clock import rfc3339
from vipcloud.dialects import openrouter, refusals
from vipcloud.dialects.openrouter import dollars, dollars_or_none
from vipcloud.errors import BadRequest, Forbidden, KeyNotFound
from vipcloud.gateway import pipeline
from vipcloud.gateway.app import Route
from vipcloud.gateway.call import Call
from vipcloud.gateway.parts import Parts
from vipcloud.gateway.turns import Turns
from vipcloud.ledger import reports
from vipcloud.ledger.store import KeySpending
from vipcloud.limits.caps import Caps
from vipcloud.limits.guard import Subject
from vipcloud.limits.rules import Ask, Limits, Meter
from vipcloud.money import NanoUSD, PicoUSDPerToken, parse_usd
from vipcloud.storage import engine as storage

ONLY_VERSIONED = frozenset(("/keys", "/keys/*"))  # `/keys` is a page of the website
ACTIVITY_DAYS = 30
NOTHING = KeySpending()
FREE = Ask(NanoUSD(0), PicoUSDPerToken(0), 0)
_HASH = re.compile(r"[0-9a-fA-F]{64}")
_FIELDS = {"models": "allowed_models", "networks": "allowed_ips"}  # ours → the API's, where they differ

S = TypeVar("S", bound=Struct)
T = TypeVar("T")


def table(parts: Parts, turns: Turns) -> dict[str, dict[str, Route]]:
    """Paths without `/v1`; see `App`."""

    async def list_keys(call: Call) -> None:
        account_id = await manager(call, parts)
        query = query_of(call)
        skip, disabled = whole_number(query, "offset"), yes_or_no(query, "include_disabled")
        answer(call, 200, await turns.ask(lambda: listed(parts, account_id, skip, disabled=disabled)))

    async def create_key(call: Call) -> None:
        account_id = await manager(call, parts)
        wanted = await read(call, openrouter.NewKey)
        made = await turns.ask(lambda: created(parts, account_id, wanted))
        call.head += b"cache-control: no-store\r\n"
        answer(call, 201, made)

    async def show_key(call: Call) -> None:
        account_id, key_hash = await manager(call, parts), named(call)
        answer(call, 200, await turns.ask(lambda: shown(parts, account_id, key_hash)))

    async def change_key(call: Call) -> None:
        account_id, key_hash = await manager(call, parts), named(call)
        wanted = await read(call, openrouter.KeyChanges)
        answer(call, 200, await turns.ask(lambda: changed(parts, account_id, key_hash, wanted)))

    async def delete_key(call: Call) -> None:
        account_id, key_hash = await manager(call, parts), named(call)
        answer(call, 200, await turns.ask(lambda: deleted(parts, account_id, key_hash)))

    async def activity(call: Call) -> None:
        account_id = await manager(call, parts)
        query = query_of(call)
        days = days_of(query, int(parts.clock.wall_s() // reports.DAY_S))
        key_hash = hash_of(query["api_key_hash"][-1]) if "api_key_hash" in query else None
        answer(call, 200, await turns.ask(lambda: active(parts, account_id, days, key_hash)))

    return {
        "/keys": {"GET": list_keys, "POST": create_key},
        "/keys/*": {"GET": show_key, "PATCH": change_key, "DELETE": delete_key},
        "/activity": {"GET": activity},
    }


# --- what is asked ---------------------------------------------------------------------------------------------------


async def manager(call: Call, parts: Parts) -> str:
    """The account whose management key this is. Raises Forbidden for other keys, RateLimited, and what `authenticate`
    does."""
    principal: Principal = await pipeline.authenticate(call, parts)
    if principal.terms is None or not principal.terms.management:
        raise Forbidden(
            "This takes a management key. An owner of the account makes one on the website's page for keys."
        )
    account_id = principal.account.id
    limits = Limits(parts.settings.accounts.management_rpm)
    asks = Subject((Meter(f"manage:{account_id}", limits, " to the management API"),))
    permit = await parts.guard.admit(call.completion_id, asks, FREE, parts.clock.wall_s())
    parts.guard.settle(permit, NanoUSD(0))
    return account_id


async def read(call: Call, kind: type[S]) -> S:
    """The body. Raises BadRequest, UnsupportedMediaType, and what reading it does."""
    pipeline.check_content_type(call.exchange.headers.get(b"content-type"))
    body = await call.exchange.body()
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise refusals.explain_small(kind, body, error) from error


def named(call: Call) -> bytes:
    return hash_of(call.rest.rstrip("/"))


def hash_of(text: str) -> bytes:
    """Raises KeyNotFound."""
    if _HASH.fullmatch(text) is None:
        raise _absent()
    return bytes.fromhex(text)


def query_of(call: Call) -> dict[str, list[str]]:
    """What is left empty is there, too: it is not what was left out."""
    return parse_qs(call.exchange.query, keep_blank_values=True)


def whole_number(query: dict[str, list[str]], name: str) -> int:
    """A number of the query, 0 if it is not there. Raises BadRequest."""
    text = query.get(name, ["0"])[-1]
    if not (text.isascii() and text.isdigit() and len(text) <= 9):
        raise BadRequest(f"'{name}' must be a whole number, 0 or above.", param=name)
    return int(text)


def yes_or_no(query: dict[str, list[str]], name: str) -> bool:
    """Raises BadRequest."""
    text = query.get(name, ["false"])[-1].lower()
    if text not in ("true", "false", "1", "0"):
        raise BadRequest(f"'{name}' must be true or false.", param=name)
    return text in ("true", "1")


def days_of(query: dict[str, list[str]], today: int) -> range:
    """The days asked for, since 1970: the last 30 that are over, or the one that is named. Raises BadRequest."""
    days = range(today - ACTIVITY_DAYS, today)
    if "date" not in query:
        return days
    text = query["date"][-1]
    try:
        day = (datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)).days
    except ValueError:
        day = -1
    if day not in days:
        asked = f"one of the last {ACTIVITY_DAYS} days that are over (UTC), such as {day_text(today - 1)}"
        raise BadRequest(f"'date' must be {asked}.", param="date")
    return range(day, day + 1)


def day_text(day: int) -> str:
    """Days since 1970 → `2026-11-24`."""
    return (date(1970, 1, 1) + timedelta(days=day)).isoformat()


# --- what is done, in a thread ---------------------------------------------------------------------------------------


def listed(parts: Parts, account_id: str, skip: int, *, disabled: bool) -> openrouter.KeyList:
    now_s = parts.clock.wall_s()
    with storage.reading(parts.directory.engine) as connection:
        rows = store.managed_keys(connection, account_id, disabled=disabled, skip=skip, most=openrouter.KEYS_PER_PAGE)
        used = keys.use(connection, account_id, rows, now_s)
    return openrouter.KeyList([described(row, used[row.id]) for row in rows])


def created(parts: Parts, account_id: str, wanted: openrouter.NewKey) -> openrouter.KeyMade:
    """Raises BadRequest."""
    now_s = parts.clock.wall_s()
    terms = terms_of(wanted, store.ALL_TERMS)
    with storage.writing(parts.directory.engine) as connection:
        try:
            made = keys.make(
                connection,
                account_id,
                wanted.name,
                terms,
                now_s,
                secrets.token_bytes,
                keys_max=parts.settings.accounts.keys_per_account_max,
                models=parts.catalog.models,
            )
            row = made.row
            if wanted.disabled is True:
                row = store.change_key(connection, row, now_s, name=row.name, disabled=True, terms=terms)
        except InvalidInput as error:
            raise _refused(error) from error
    return openrouter.KeyMade(described(row, keys.Use()), made.plaintext)


def shown(parts: Parts, account_id: str, key_hash: bytes) -> openrouter.KeyAnswer:
    """Raises KeyNotFound."""
    with storage.reading(parts.directory.engine) as connection:
        row = _managed(connection, account_id, key_hash)
        used = keys.use(connection, account_id, [row], parts.clock.wall_s())
    return openrouter.KeyAnswer(described(row, used[row.id]))


def changed(parts: Parts, account_id: str, key_hash: bytes, wanted: openrouter.KeyChanges) -> openrouter.KeyAnswer:
    """Raises KeyNotFound, BadRequest."""
    now_s = parts.clock.wall_s()
    with storage.writing(parts.directory.engine) as connection:
        row = _managed(connection, account_id, key_hash)
        used = keys.use(connection, account_id, [row], now_s)[row.id]
        try:
            row = keys.change(
                connection,
                row,
                now_s,
                name=given(wanted.name, row.name),
                disabled=given(wanted.disabled, row.disabled),
                terms=terms_of(wanted, row.terms._replace(expires_at=row.expires_at), used.spent),
                models=parts.catalog.models,
            )
        except InvalidInput as error:
            raise _refused(error) from error
    return openrouter.KeyAnswer(described(row, used))


def deleted(parts: Parts, account_id: str, key_hash: bytes) -> openrouter.KeyDeleted:
    """Raises KeyNotFound."""
    with storage.writing(parts.directory.engine) as connection:
        row = _managed(connection, account_id, key_hash)
        store.revoke_key(connection, row.id, parts.clock.wall_s())
    return openrouter.KeyDeleted()


def active(parts: Parts, account_id: str, days: range, key_hash: bytes | None) -> openrouter.Activity:
    """Raises KeyNotFound."""
    with storage.reading(parts.directory.engine) as connection:
        key_id = None
        if key_hash is not None:
            key_id = _managed(connection, account_id, key_hash).id
        chosen = reports.Filter(account_id, days.start * reports.DAY_S, days.stop * reports.DAY_S, key_id=key_id)
        rows = reports.activity(connection, chosen)
    return openrouter.Activity([_item(parts, row) for row in rows])


# --- values ----------------------------------------------------------------------------------------------------------


def terms_of(wanted: openrouter.KeyChanges, former: KeyTerms, spent: KeySpending = NOTHING) -> KeyTerms:
    """`former` with what is wanted of it. Raises BadRequest."""
    return former._replace(
        caps=caps_of(wanted, former.caps, spent),
        rpm=given(wanted.rpm, former.rpm),
        rpd=given(wanted.rpd, former.rpd),
        concurrency=given(wanted.concurrency, former.concurrency),
        expires_at=former.expires_at if isinstance(wanted.expires_at, UnsetType) else _moment(wanted.expires_at),
        models=listed_in(wanted.allowed_models, former.models),
        networks=listed_in(wanted.allowed_ips, former.networks),
    )


def caps_of(wanted: openrouter.KeyChanges, former: Caps, spent: KeySpending) -> Caps:
    """Raises BadRequest."""
    limit, reset = wanted.limit, wanted.limit_reset
    if not isinstance(wanted.caps, UnsetType):
        if not isinstance(limit, UnsetType) or not isinstance(reset, UnsetType):
            raise BadRequest("Send 'caps', or else 'limit' and 'limit_reset'.", param="caps")
        each = msgspec.structs.asdict(wanted.caps).items()
        return Caps(*(_nanousd(amount, f"caps.{name}") for name, amount in each))
    bound = keys.binding(former, spent)
    period = bound.period if bound is not None else "total"
    if isinstance(limit, UnsetType):
        if isinstance(reset, UnsetType) or bound is None:
            return former
        if sum(amount is not None for amount in msgspec.structs.astuple(former)) > 1:
            raise BadRequest("The key has several caps: send 'limit' too, or 'caps'.", param="limit_reset")
        nanousd: int | None = bound.cap_nanousd
    else:
        nanousd = _nanousd(limit, "limit")
    if not isinstance(reset, UnsetType):
        period = reset or "total"
    return Caps(**{f"{period}_nanousd": nanousd})


def described(row: KeyRow, used: keys.Use) -> openrouter.Key:
    caps = row.caps or Caps()
    return openrouter.Key(
        hash=row.hash.hex(),
        name=row.name,
        label=row.masked,
        disabled=row.disabled,
        created_at=rfc3339(row.created_at),
        updated_at=rfc3339(row.updated_at) if row.updated_at is not None else None,
        caps=openrouter.KeyCaps(
            daily=dollars_or_none(caps.daily_nanousd),
            monthly=dollars_or_none(caps.monthly_nanousd),
            total=dollars_or_none(caps.total_nanousd),
        ),
        allowed_models=row.models.split(",") if row.models else None,
        allowed_ips=row.networks.split(",") if row.networks else None,
        rpm=row.rpm,
        rpd=row.rpd,
        concurrency=row.concurrency,
        workspace_id=row.account_id,
        last_used_at=rfc3339(used.last_at) if used.last_at is not None else None,
        **bounds_of(row, used.spent),
    )


class Bounds(TypedDict):
    """The fields of `openrouter.Bound` that differ from key to key."""

    usage: Raw
    usage_daily: Raw
    usage_weekly: Raw
    usage_monthly: Raw
    limit: Raw | None
    limit_remaining: Raw | None
    limit_reset: openrouter.Reset | None
    expires_at: str | None


def bounds_of(row: KeyRow, spent: KeySpending) -> Bounds:
    bound = keys.binding(row.caps, spent)
    return {
        "usage": dollars(spent.total),
        "usage_daily": dollars(spent.daily),
        "usage_weekly": dollars(spent.weekly),
        "usage_monthly": dollars(spent.monthly),
        "limit": dollars(bound.cap_nanousd) if bound is not None else None,
        "limit_remaining": dollars(bound.left_nanousd) if bound is not None else None,
        "limit_reset": bound.period if bound is not None and bound.period != "total" else None,
        "expires_at": rfc3339(row.expires_at) if row.expires_at is not None else None,
    }


def listed_in(value: list[str] | UnsetType | None, former: Sequence[str]) -> tuple[str, ...]:
    """Each once."""
    return tuple(dict.fromkeys(former if isinstance(value, UnsetType) else value or ()))


def given(value: T | UnsetType, former: T) -> T:
    return former if isinstance(value, UnsetType) else value


def answer(call: Call, status: int, body: Struct) -> None:
    call.respond(status, msgspec.json.encode(body))


def _item(parts: Parts, row: reports.Activity) -> openrouter.ActivityItem:
    provider = parts.catalog.providers.get(row.provider or "")
    return openrouter.ActivityItem(
        date=day_text(row.day),
        model=row.model,
        model_permaslug=row.model,
        endpoint_id=f"{row.provider or 'none'}/{row.model}",
        provider_name=provider.name if provider is not None else row.provider,
        usage=dollars(row.charge_nanousd),
        requests=row.requests,
        prompt_tokens=row.prompt_tokens,
        completion_tokens=row.completion_tokens,
        reasoning_tokens=row.reasoning_tokens,
        tokens=openrouter.Tokens(
            input=row.prompt_tokens - row.cached_tokens, cached_input=row.cached_tokens, output=row.completion_tokens
        ),
    )


def _managed(connection: Connection, account_id: str, key_hash: bytes) -> KeyRow:
    """Raises KeyNotFound."""
    try:
        return keys.managed(connection, account_id, key_hash)
    except store.KeyNotFound as error:
        raise _absent() from error


def _absent() -> KeyNotFound:
    return KeyNotFound("Your account has no key with this hash.")


def _refused(error: InvalidInput) -> BadRequest:
    return BadRequest(str(error), param=_FIELDS.get(error.field, error.field) or None)


def _nanousd(amount: float | None, param: str) -> int | None:
    """Raises BadRequest."""
    if amount is None:
        return None
    try:
        return parse_usd(f"{Decimal(repr(amount)):f}")
    except ValueError as error:
        message = (
            f"Invalid '{param}': an amount of dollars has at most nine decimals, and is within the ledger's range."
        )
        raise BadRequest(message, param=param) from error


def _moment(text: str | None) -> float | None:
    """Seconds since 1970. Raises BadRequest."""
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is not None:
            return moment.timestamp()
    except (ValueError, OverflowError) as error:
        raise _no_moment() from error
    raise _no_moment()


def _no_moment() -> BadRequest:
    return BadRequest("'expires_at' must be a time with its zone, such as 2027-01-31T12:00:00Z.", param="expires_at")

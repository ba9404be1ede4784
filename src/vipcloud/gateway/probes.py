"""Does an account of ours work? One cheap call finds out, and an operator reads what is wrong and what to do.

Where the catalogue names a provider's balance endpoint, that is asked: it costs nothing and tells an empty account from
a wrong key. Elsewhere, and for each model if wanted, a completion of one token is. Nothing of it touches the health of
running accounts.
"""

import asyncio
import secrets
from typing import Any, Literal

import msgspec
from msgspec import Struct

from vipcloud.clock import Clock
from vipcloud.dialects.openai import ChatRequest, UserMessage
from vipcloud.errors import SettingsError
from vipcloud.gateway.upstreams import ERROR_BYTES_MAX, USER_AGENT
from vipcloud.http.client import Client, ClientError, ConnectFailed, TimedOut, split_url
from vipcloud.http.headers import header_block
from vipcloud.providers import auth, failures, translate
from vipcloud.providers.catalog_rows import FailureKind
from vipcloud.providers.failures import Failure
from vipcloud.providers.models import Candidate, Provider
from vipcloud.settings import Secret

TIMEOUT_S = 30.0
MESSAGE_CHARS_MAX = 200
MODELS_PATH = "/models"

Verdict = Literal["ok", "note", "fail"]


class Finding(Struct, frozen=True, kw_only=True):
    """One call's outcome. `advice` is what to do about it; empty where there is nothing to do."""

    verdict: Verdict
    kind: FailureKind | Literal["ok", "unreachable"]
    detail: str
    advice: str = ""


class Target(Struct, frozen=True, kw_only=True):
    """One key of one account, at the address where it is used."""

    provider: Provider
    base_url: str
    key: Secret
    timeout_s: float = TIMEOUT_S


async def balance(client: Client, clock: Clock, target: Target) -> Finding:
    """Ask the provider's balance endpoint."""
    where = target.provider.balance
    assert where is not None, "the catalogue says whether there is one"
    answer = await _call(client, clock, target, "GET", where.path)
    if isinstance(answer, Finding):
        return answer
    amount, currency = _at(answer, where.amount), _at(answer, where.currency) if where.currency else ""
    if not isinstance(amount, str | int | float):
        return _told(failures.classify_event(target.provider, answer), target)
    text = f"the key works, balance {amount}{f' {currency}' if isinstance(currency, str) and currency else ''}"
    if _empty(amount):
        return Finding(verdict="fail", kind="arrears", detail=text, advice=_advice("arrears", target, ""))
    return Finding(verdict="ok", kind="ok", detail=text)


async def reach(client: Client, clock: Clock, target: Target) -> Finding:
    """Ask for what every account may see and nobody is billed for: its balance, or else the provider's list of models.

    A provider without such a list answers 404, which says that it is there.
    """
    if target.provider.balance is not None:
        return await balance(client, clock, target)
    answer = await _call(client, clock, target, "GET", MODELS_PATH)
    if isinstance(answer, Finding) and answer.kind not in ("stale_mapping", "no_access"):
        return answer
    return Finding(verdict="ok", kind="ok", detail=f"{target.provider.name} answers")


async def complete(client: Client, clock: Clock, target: Target, candidate: Candidate) -> Finding:
    """Ask a model for one token."""
    request = ChatRequest(model=candidate.upstream_model, messages=[UserMessage(content="Hi")], max_tokens=1)
    body = translate.encode_request(request, candidate, max_tokens=1, attempt_id=f"probe-{secrets.token_hex(12)}")
    answer = await _call(client, clock, target, "POST", candidate.chat_path, body, candidate.upstream_model)
    if isinstance(answer, Finding):
        return answer
    if not answer.get("choices"):
        return _told(failures.classify_event(target.provider, answer), target, candidate.upstream_model)
    return Finding(verdict="ok", kind="ok", detail=f"the key works, and {candidate.upstream_model} answers")


async def _call(
    client: Client, clock: Clock, target: Target, method: str, path: str, body: bytes = b"", model: str = ""
) -> dict[str, Any] | Finding:
    """The JSON object of an answer with status 200, or what else came of it."""
    provider = target.provider
    try:
        address, prefix = split_url(target.base_url)
    except ValueError as error:
        raise SettingsError(f"upstreams.{provider.id}.base_url: {error}.") from error
    head = header_block(
        [
            ("host", address.authority),
            ("authorization", auth.auth_header(provider, target.key.reveal(), int(clock.wall_s() * 1000))),
            ("accept", "application/json"),
            ("accept-encoding", "identity"),
            ("user-agent", USER_AGENT),
            *provider.headers.items(),
            *([("content-type", "application/json"), ("content-length", str(len(body)))] if body else []),
        ]
    )
    deadline = asyncio.get_running_loop().time() + target.timeout_s
    try:
        response = await client.origin(address).send(
            f"{method} {prefix}{path} HTTP/1.1\r\n".encode() + head + b"\r\n" + body, deadline
        )
        try:
            payload = await response.read(ERROR_BYTES_MAX)
        finally:
            response.abort()
    except ClientError as error:
        return _unreached(error, target)
    if response.status == 200:
        try:
            return msgspec.json.decode(payload, type=dict[str, Any])
        except (msgspec.DecodeError, UnicodeDecodeError):
            return _told(failures.classify(provider, 200, payload, None), target, model)
    retry_after = response.headers.get(b"retry-after")
    failure = failures.classify(
        provider, response.status, payload, retry_after.decode("latin-1") if retry_after else None
    )
    return _told(failure, target, model)


def _unreached(error: ClientError, target: Target) -> Finding:
    if isinstance(error, TimedOut) and error.phase != "connect":
        detail = f"{target.base_url} did not answer within {target.timeout_s:.0f} s"
    elif isinstance(error, ConnectFailed | TimedOut):
        detail = f"{target.base_url} cannot be reached: {error}"
    else:
        detail = f"{target.base_url} broke off its answer: {error}"
    advice = f"Check the network, a proxy or firewall between, and upstreams.{target.provider.id}.base_url."
    return Finding(verdict="fail", kind="unreachable", detail=detail, advice=advice)


_FOUND: dict[FailureKind, str] = {
    "auth": "{name} does not accept the key",
    "token_expired": "{name} takes the signed token for one that has expired",
    "arrears": "the account at {name} has no money left",
    "quota_exhausted": "the account's quota or plan at {name} is used up",
    "no_access": "the account may not use {model}",
    "stale_mapping": "{name} does not know {model}",
    "rate_limited": "the key works; {name} throttles it at present",
    "overloaded": "{name} is overloaded at present, so nothing more can be said",
    "server_error": "{name} failed",
    "malformed": "what answers is not {name}'s API",
}
_PASSING: frozenset[FailureKind] = frozenset({"rate_limited", "overloaded"})


def _told(failure: Failure, target: Target, model: str = "") -> Finding:
    found = _FOUND.get(failure.kind, "{name} refused the test call").format(
        name=target.provider.name, model=model or "this"
    )
    reason = failures.mask(" ".join(failure.message.split()))[:MESSAGE_CHARS_MAX]
    quoted = f": “{reason}”" if reason else ""
    return Finding(
        verdict="note" if failure.kind in _PASSING else "fail",
        kind=failure.kind,
        detail=f"{found} (HTTP {failure.status}{f', code {failure.code}' if failure.code else ''}{quoted})",
        advice=_advice(failure.kind, target, model),
    )


def _advice(kind: FailureKind, target: Target, model: str) -> str:
    provider = target.provider
    match kind:
        case "auth":
            elsewhere = [f"{url} ({region})" for region, url in provider.regions.items() if url != target.base_url]
            advice = f"Copy it again from {provider.name}'s console: it may be mistyped, revoked or of another product."
            if elsewhere:
                advice += (
                    f" Keys count in one region only; if yours is of another one, set upstreams.{provider.id}.base_url "
                    f"to {' or '.join(elsewhere)}."
                )
            return advice
        case "token_expired":
            return "Set this machine's clock: signed tokens are good for minutes."
        case "arrears":
            return "Top it up there. The gateway passes the account by meanwhile, and takes it back by itself."
        case "quota_exhausted":
            return "Wait until it is renewed, or buy more there; the gateway passes the account by meanwhile."
        case "no_access":
            return f"Switch the model on for this account in {provider.name}'s console."
        case "stale_mapping":
            return f"It was renamed or retired: put its new name for {model or 'it'} as `model` into your catalog.toml."
        case "rate_limited" | "overloaded":
            return "Nothing to do; try again later if you want to be sure."
        case "server_error":
            return f"Look at {provider.name}'s status page, and try again later."
        case "malformed":
            return f"Check upstreams.{provider.id}.base_url: a proxy or another service may be listening there."
    return "The call was an ordinary one, so the provider may have changed: compare its documentation."


def _at(value: Any, path: tuple[str | int, ...]) -> Any:
    """What stands at `path` in decoded JSON; None where nothing does."""
    for step in path:
        if isinstance(value, dict) and isinstance(step, str):
            value = value.get(step)
        elif isinstance(value, list) and isinstance(step, int) and 0 <= step < len(value):
            value = value[step]
        else:
            return None
    return value


def _empty(amount: str | float) -> bool:
    try:
        return float(amount) <= 0  # told, never reckoned with
    except ValueError:
        return False

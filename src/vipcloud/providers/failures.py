"""What an upstream's failure means: for the caller, for the next attempt, and for our account there.

Status alone misleads on every provider (429 may be an empty balance, 400 our own stale mapping), so the body decides
first. What it says is looked for in this order: MiniMax's `base_resp`, also in an answer of status 200; its number at
the end of the message; `code`, inside `error` or beside the message; `type`; the message. Over these go the provider's
error rules in the catalogue, in their order; only then the status.

What a caller is told of an upstream's words is what a caller can act on, without what names our account or its host.
Nothing here keeps state; health and routing act on what `Failure` says.
"""

import re
from datetime import datetime, timedelta, timezone
from email.utils import parsedate_to_datetime
from typing import Any, Literal

import msgspec
from msgspec import Struct

from vipcloud.errors import (
    BadRequest,
    ContentFiltered,
    ContextLengthExceeded,
    GatewayError,
    RateLimited,
    UpstreamFailed,
    UpstreamTimeout,
    shorten,
)
from vipcloud.providers.catalog_rows import ErrorRule, FailureKind
from vipcloud.providers.models import Provider

AccountEffect = Literal["cooling", "suspended", "removed", "no_access"]

MESSAGE_CHARS_MAX = 500
RETRY_AFTER_S_MAX = 86_400.0
RESET_S_MAX = 8 * 86_400.0  # plans count by the week
CLIENT_RETRY_AFTER_S_DEFAULT = 5.0
CLIENT_RETRY_AFTER_S_MAX = 60.0  # SDKs give up on a longer wait, or take it whole

_RETRY_IN = re.compile(
    r"(?:after|in)\s+(\d{1,6}(?:\.\d{1,3})?)\s*(ms|milliseconds?|s|sec\w*|m|min\w*|h|hours?)\b",
    re.IGNORECASE | re.ASCII,
)
_UNIT_S = {"m": 60.0, "s": 1.0, "h": 3600.0}
_RESET_AT = re.compile(
    r"(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d(?::\d\d)?)(?:\.\d+)?\s*(Z|UTC|[+-]\d\d:?\d\d)?", re.IGNORECASE | re.ASCII
)
_PROVIDERS_ZONE = timezone(timedelta(hours=8))  # a time without a zone, and midnight, are Beijing's
_TRAILING_CODE = re.compile(r"\((\d{4})\)\s*$", re.ASCII)
_SECRETS = re.compile(
    r"""
      (?<=bearer\s)\S+                                    # an Authorization value
    | \bsk-[\w*.-]{3,}                                    # keys of the sk- kind, whole or starred
    | \beyJ[\w-]+(?:\.[\w-]+){1,2}                        # a JWT
    | \b[0-9a-f]{24,}(?:\.\w+)?                           # id.secret, or a long number in hex
    | \b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b     # a UUID
    | \*{3,}[\w-]*                                        # what is left of a key that was starred out
    | (?<=key:\s)\S+ | (?<=key=)\S+                       # "your api key: …"
    | <?\b(?:org|ak|app|proj|project|acct|account|ws|user|uid|group|tenant)-(?=[\w-]*\d)[\w-]{3,}>?  # who we are there
    | (?<=account\s)\d{4,} | (?<=account:\s)\S+ | (?<=group_id:\s)\S+ | (?<=groupid=)\S+
    | \b(?=[\w-]*\d)(?=[\w-]*[A-Za-z])[\w-]{32,}          # anything else as long and mixed as a key
    | \b[a-z][a-z0-9+.-]*://[^\s"'<>]+                    # addresses
    | \b(?:[a-z0-9-]+\.)+(?:com|cn|net|org|io|ai|chat|cloud|internal|local|svc)\b(?::\d+)?(?:/[^\s"'<>]*)?
    | \b\d{1,3}(?:\.\d{1,3}){3}\b(?::\d+)?
    """,
    re.IGNORECASE | re.VERBOSE | re.ASCII,
)


class _Consequence(Struct, frozen=True, kw_only=True):
    """`retryable`: another attempt may be made; `same_account`: by the same account too."""

    retryable: bool
    same_account: bool = False
    account_state: AccountEffect | None = None


_CONSEQUENCES: dict[FailureKind, _Consequence] = {
    "rate_limited": _Consequence(retryable=True, account_state="cooling"),
    "quota_exhausted": _Consequence(retryable=True, account_state="suspended"),
    "overloaded": _Consequence(retryable=True, same_account=True),
    "auth": _Consequence(retryable=True, account_state="removed"),
    "token_expired": _Consequence(retryable=True, same_account=True),
    "arrears": _Consequence(retryable=True, account_state="suspended"),
    "no_access": _Consequence(retryable=True, account_state="no_access"),
    "stale_mapping": _Consequence(retryable=True),
    "duplicate_request": _Consequence(retryable=True, same_account=True),
    "bad_request": _Consequence(retryable=False),
    "context_length": _Consequence(retryable=False),
    "content_filter": _Consequence(retryable=False),
    "output_filtered": _Consequence(retryable=False),
    "server_error": _Consequence(retryable=True, same_account=True),
    "timeout": _Consequence(retryable=True),
    "malformed": _Consequence(retryable=True),
}

_BY_STATUS: dict[int, FailureKind] = {
    401: "auth",
    402: "arrears",
    403: "no_access",
    404: "stale_mapping",
    405: "stale_mapping",
    408: "server_error",
    409: "server_error",
    410: "stale_mapping",
    425: "server_error",
    499: "server_error",  # it took us for gone
    429: "rate_limited",
    503: "overloaded",
    504: "timeout",
    529: "overloaded",
}

# Without a JSON body the answer is not the API's own but some proxy's, and blames neither the caller nor our key.
_BY_STATUS_ALONE: dict[int, FailureKind] = {
    401: "auth",
    402: "arrears",
    413: "bad_request",
    422: "bad_request",
    429: "rate_limited",
    503: "overloaded",
    504: "timeout",
    529: "overloaded",
}


class Failure(Struct, frozen=True, kw_only=True):
    """One failed attempt. `message` is the upstream's own, without secrets; it may quote the request: never log it.

    `retry_after_s` is what the upstream asked for. `account_state` is what the account enters by this failure; whether
    that holds for the account or for one model of it is `Provider.limits_per`.
    """

    kind: FailureKind
    status: int
    message: str
    code: str | None = None
    retry_after_s: float | None = None
    retryable: bool
    same_account: bool
    account_state: AccountEffect | None

    @property
    def ends_answer(self) -> bool:
        """In a stream: what came before stands, as an answer that moderation ended."""
        return self.kind == "output_filtered"

    def error(self) -> GatewayError:
        """What the caller is told if this was the last attempt. Never an upstream's 401, 402 or 403."""
        match self.kind:
            case "bad_request":
                return BadRequest(self.message or "The provider refused the request as invalid.")
            case "context_length":
                return ContextLengthExceeded(self.message or "The request is too long.", param="messages")
            case "content_filter" | "output_filtered":
                return ContentFiltered(self.message or "The provider's moderation refused the request.")
            case "rate_limited" | "quota_exhausted":
                return self._throttled()
            case "overloaded" if self.status == 429:
                return self._throttled()
            case "overloaded":
                return UpstreamFailed("The provider of this model is overloaded.", retry_after_s=self.retry_after_s)
            case "server_error":
                return UpstreamFailed("The provider failed to answer.")
            case "timeout":
                return UpstreamTimeout("The provider of this model took too long.")
            case "malformed":
                return UpstreamFailed("The provider's answer could not be read.")
            case _:
                return UpstreamFailed("The provider of this model cannot serve it right now.")

    def _throttled(self) -> RateLimited:
        wait_s = self.retry_after_s or CLIENT_RETRY_AFTER_S_DEFAULT
        return RateLimited(
            "Every upstream of this model is at its limit.", retry_after_s=min(wait_s, CLIENT_RETRY_AFTER_S_MAX)
        )


class _Facts(Struct, frozen=True):
    code: str | None = None
    type: str | None = None
    message: str = ""


def classify(
    provider: Provider, status: int, body: bytes, retry_after: str | None, *, now_s: float | None = None
) -> Failure:
    """The meaning of an answer that is no completion. `retry_after` is the header; a date in it needs `now_s`."""
    facts = _facts(provider, _decoded(body))
    if facts is None:
        kind = _BY_STATUS_ALONE.get(status, "server_error" if status >= 500 else "malformed")
        return _failure(kind, status, _Facts(message=_plain(body)), _header_s(retry_after, now_s))
    rule = _ruled(provider, status, facts)
    kind = _by_status(status) if rule is None else rule.kind
    return _failure(kind, status, facts, _header_s(retry_after, now_s) or _wait_s(rule, facts.message, now_s))


def classify_event(provider: Provider, payload: dict[str, Any], *, now_s: float | None = None) -> Failure:
    """The meaning of an error object inside an answer of status 200. It has no status of its own: rules that know only
    a status do not apply."""
    facts = _facts(provider, payload)
    if facts is None:
        return _failure("malformed", 200, _Facts(), None)
    rule = _ruled(provider, None, facts)
    kind = "server_error" if rule is None else rule.kind
    return _failure(kind, 200, facts, _wait_s(rule, facts.message, now_s))


def mask(text: str) -> str:
    """`text` with all starred out that looks like a key or a token, names our account, or is an address."""
    return _SECRETS.sub("***", text)


def _failure(kind: FailureKind, status: int, facts: _Facts, retry_after_s: float | None) -> Failure:
    consequence = _CONSEQUENCES[kind]
    return Failure(
        kind=kind,
        status=status,
        message=shorten(mask(facts.message), MESSAGE_CHARS_MAX),
        code=facts.code,
        retry_after_s=retry_after_s,
        retryable=consequence.retryable,
        same_account=consequence.same_account,
        account_state=consequence.account_state,
    )


# --- reading the body ----------------------------------------------------------------------------------------------


def _decoded(body: bytes) -> Any:
    """The JSON of `body`; None if it is not JSON. DeepSeek pads with blank lines, DashScope may begin with `data:`."""
    text = body.lstrip()
    if text.startswith(b"data:"):
        text = text[5:].lstrip()
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _facts(provider: Provider, payload: Any) -> _Facts | None:
    """Code, type and message, wherever the provider keeps them; None where `payload` is no object."""
    if not isinstance(payload, dict):
        return None
    base = payload.get("base_resp")
    if isinstance(base, dict) and base.get("status_code") not in (None, 0, "0"):
        return _Facts(code=_text(base.get("status_code")), message=_text(base.get("status_msg")) or "")
    inner = payload.get("error", payload)
    if isinstance(inner, str):
        return _Facts(message=inner)
    if not isinstance(inner, dict):
        return _Facts()
    message = _text(inner.get("message")) or ""
    code = _text(inner.get("code"))
    if provider.code_in_message and (found := _TRAILING_CODE.search(message)):
        code = found.group(1)
    return _Facts(code=code, type=_text(inner.get("type")), message=message)


def _plain(body: bytes) -> str:
    """A body that is not JSON, as a message; nothing of a page in HTML."""
    text = body[: 4 * MESSAGE_CHARS_MAX].decode("utf-8", "replace").strip()
    return "" if text.startswith("<") else text


def _text(value: Any) -> str | None:
    if isinstance(value, str):
        return value
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else None


def _ruled(provider: Provider, status: int | None, facts: _Facts) -> ErrorRule | None:
    return next((rule for rule in provider.errors if _fits(rule, provider, status, facts)), None)


def _fits(rule: ErrorRule, provider: Provider, status: int | None, facts: _Facts) -> bool:
    said = bool(rule.codes) or rule.type is not None or rule.contains is not None
    return (
        (said or status is not None)
        and (rule.status is None or status is None or rule.status == status)
        and (not rule.codes or (facts.code is not None and _is_one_of(facts.code, rule.codes)))
        and (rule.type is None or rule.type == facts.type)
        and (rule.contains is None or rule.contains.lower() in facts.message.lower())
        and (rule.auth is None or rule.auth == provider.auth)
    )


def _is_one_of(code: str, codes: frozenset[str]) -> bool:
    return code in codes or any(one.endswith("*") and code.startswith(one[:-1]) for one in codes)


def _by_status(status: int) -> FailureKind:
    if status >= 500:
        return _BY_STATUS.get(status, "server_error")
    if status >= 400:
        return _BY_STATUS.get(status, "bad_request")
    return "server_error"


# --- when to come back ---------------------------------------------------------------------------------------------


def _header_s(text: str | None, now_s: float | None) -> float | None:
    """`Retry-After` in seconds: a number, or a date if `now_s` is known; None for anything else."""
    if text is None:
        return None
    try:
        return _bounded(float(text))
    except ValueError:
        pass
    if now_s is None:
        return None
    try:
        return _bounded(parsedate_to_datetime(text).timestamp() - now_s)
    except (ValueError, OverflowError):
        return None


def _wait_s(rule: ErrorRule | None, message: str, now_s: float | None) -> float | None:
    """What the message says, "after 3 seconds" or "resets at 2026-05-15T15:00:00Z", or else what the rule does."""
    found = _RETRY_IN.search(message)
    if found:
        unit = found.group(2).lower()
        scale = 0.001 if unit.startswith(("ms", "mil")) else _UNIT_S[unit[0]]
        return _bounded(float(found.group(1)) * scale)
    if now_s is None:
        return None
    reset = _RESET_AT.search(message)
    if reset:
        return _until(reset, now_s)
    if rule is not None and rule.until_tomorrow:
        now = datetime.fromtimestamp(now_s, _PROVIDERS_ZONE)
        return timedelta(days=1).total_seconds() - (now.hour * 3600 + now.minute * 60 + now.second)
    return None


def _until(reset: re.Match[str], now_s: float) -> float | None:
    day, clock, zone = reset.groups()
    zone = {"Z": "+00:00", "UTC": "+00:00", "": "+08:00"}.get((zone or "").upper(), zone)
    try:
        seconds = datetime.fromisoformat(f"{day}T{clock}{zone}").timestamp() - now_s
    except ValueError:
        return None
    return min(seconds, RESET_S_MAX) if seconds > 0 else None


def _bounded(seconds: float) -> float | None:
    return min(seconds, RETRY_AFTER_S_MAX) if seconds > 0 else None

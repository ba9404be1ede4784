"""What a customer looks up and manages, in OpenRouter's shapes: requests, credit, keys, activity.

Fields that OpenRouter's SDKs insist on are there even where they never say anything else here (`byok_…`: nobody brings
keys of its own). What is ours stands beside them and is said so. Dollars are JSON numbers, exact to the nano-dollar.

Source: openrouter.ai/docs/api-reference (seen 2026-11).
"""

from typing import Annotated, Literal

from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from vipcloud.money import usd_number

Dollars = Annotated[Raw, Meta(description="US dollars, exact.", extra_json_schema={"type": "number"})]
Moment = Annotated[str, Meta(description="RFC 3339, in UTC.", extra_json_schema={"format": "date-time"})]
Hash = Annotated[str, Meta(description="SHA-256 of the key, in hexadecimal.")]
Reset = Literal["daily", "monthly"]
Nothing = Annotated[None, Meta(description="OpenRouter's; always null here.")]
NoBYOK = Annotated[Literal[0], Meta(description="Nobody brings keys of its own here.")]

KEYS_PER_PAGE = 100


def dollars(nanousd: int) -> Raw:
    """As a JSON number, exact."""
    return Raw(usd_number(nanousd) if nanousd >= 0 else b"-" + usd_number(-nanousd))


def dollars_or_none(nanousd: int | None) -> Raw | None:
    return None if nanousd is None else dollars(nanousd)


# --- one request ---------------------------------------------------------------------------------------------------


class Tokens(Struct, kw_only=True):
    """By class of price."""

    input: int
    cached_input: int
    output: int


class Generation(Struct, kw_only=True):
    """A request of the past. `markup` is what we add to the provider's list price, `upstream_inference_cost`."""

    id: str
    request_id: str
    api_type: Literal["completions"] = "completions"
    model: str
    provider_name: str | None
    created_at: Moment
    streamed: bool
    cancelled: Annotated[bool, Meta(description="The client left before the end.")]
    outcome: str
    finish_reason: str | None
    native_finish_reason: str | None
    total_cost: Dollars
    usage: Dollars
    upstream_inference_cost: Dollars
    markup: Dollars
    cache_discount: Nothing = None
    is_byok: bool = False
    price_version: str
    tokens_prompt: int
    tokens_completion: int
    native_tokens_prompt: int
    native_tokens_completion: int
    native_tokens_reasoning: int
    native_tokens_cached: int
    tokens: Tokens
    estimated: Annotated[bool, Meta(description="The tokens were counted here, not by the provider.")]
    attempts: int
    latency: Annotated[int | None, Meta(description="Milliseconds to the first token.")]
    generation_time: Annotated[int, Meta(description="Milliseconds from the first token on, or in all.")]
    moderation_latency: Nothing = None
    app_id: Nothing = None
    data_region: Literal["global"] = "global"
    external_user: Nothing = None
    http_referer: Nothing = None
    native_tokens_completion_images: Nothing = None
    num_fetches: Nothing = None
    num_input_audio_prompt: Nothing = None
    num_media_completion: Nothing = None
    num_media_prompt: Nothing = None
    num_search_results: Nothing = None
    origin: Literal[""] = ""
    preset_id: Nothing = None
    provider_responses: Nothing = None
    router: Nothing = None
    service_tier: Nothing = None
    upstream_id: Nothing = None
    user_agent: Nothing = None
    web_search_engine: Nothing = None
    workspace_id: Nothing = None


class GenerationAnswer(Struct):
    data: Generation


# --- credit --------------------------------------------------------------------------------------------------------


class Credits(Struct):
    total_credits: Dollars
    total_usage: Dollars


class CreditsAnswer(Struct):
    data: Credits


# --- keys ----------------------------------------------------------------------------------------------------------


class Spending(Struct, kw_only=True):
    """Of a key, so far as booked, which is about a second ago. Days, weeks (from Monday) and months are UTC's."""

    usage: Annotated[Dollars, Meta(description="US dollars charged so far, exact.")]
    usage_daily: Annotated[Dollars, Meta(description="Of these, today.")]
    usage_weekly: Annotated[Dollars, Meta(description="Of these, since Monday.")]
    usage_monthly: Annotated[Dollars, Meta(description="Of these, since the first of the month.")]
    byok_usage: NoBYOK = 0
    byok_usage_daily: NoBYOK = 0
    byok_usage_weekly: NoBYOK = 0
    byok_usage_monthly: NoBYOK = 0


class Bound(Spending, kw_only=True):
    """`limit` is the key's own; of several, the one that leaves the least."""

    limit: Annotated[Dollars | None, Meta(description="What it may spend; null: what its account may.")]
    limit_remaining: Annotated[Dollars | None, Meta(description="What the limit leaves; null without one.")]
    limit_reset: Annotated[Reset | None, Meta(description="When the limit begins anew; null: never.")]
    include_byok_in_limit: Annotated[bool, Meta(description="Always false.")] = False
    expires_at: Annotated[Moment | None, Meta(description="When it ends.")]


class RateLimit(Struct):
    requests: Annotated[int, Meta(description="-1: no limit.")]
    interval: Literal["60s"] = "60s"
    note: str = "Of the account. The x-ratelimit headers tell how it stands."


class DailyRequests(Struct):
    """Of the account in this UTC day; those for models that cost nothing are counted with the others. -1: no limit."""

    limit: int
    remaining: int
    used: int


class OwnKey(Bound, kw_only=True):
    """The key that asks."""

    label: str
    name: str
    is_free_tier: Annotated[bool, Meta(description="The account has never bought credit.")]
    is_management_key: bool
    is_provisioning_key: bool  # the former name of the same
    rate_limit: RateLimit
    free_model_daily_requests: DailyRequests
    workspace_id: Annotated[str, Meta(description="The account's id.")]
    creator_user_id: Nothing = None
    organization_id: Nothing = None
    allowed_data_regions: tuple[()] = ()
    budgets: tuple[()] = ()
    effective_budget: Nothing = None


class OwnKeyAnswer(Struct):
    data: OwnKey


class KeyCaps(Struct, kw_only=True):
    """Ours: the limits of a key that has several."""

    daily: Dollars | None
    monthly: Dollars | None
    total: Dollars | None


class Key(Bound, kw_only=True):
    """From `caps` on the fields are ours; null is no bound but the account's."""

    hash: Hash
    name: Annotated[str, Meta(description="What its owner calls it.")]
    label: Annotated[str, Meta(description="The key masked, for people.")]
    disabled: Annotated[bool, Meta(description="It is refused until it is enabled again.")]
    creator_user_id: Nothing = None
    external_user: Nothing = None
    workspace_id: Annotated[str, Meta(description="The account's id.")]
    last_used_at: Annotated[Moment | None, Meta(description="When its last request began, as booked.")]
    created_at: Moment
    updated_at: Annotated[Moment | None, Meta(description="When it was changed last.")]
    caps: Annotated[KeyCaps, Meta(description="Its limits in US dollars: `daily`, `monthly`, `total`.")]
    allowed_models: Annotated[list[str] | None, Meta(description="The only models that it may use.")]
    allowed_ips: Annotated[list[str] | None, Meta(description="The only networks that it may be used from.")]
    rpm: Annotated[int | None, Meta(description="Requests in any 60 seconds.")]
    rpd: Annotated[int | None, Meta(description="Requests per UTC day.")]
    concurrency: Annotated[int | None, Meta(description="Requests at the same time.")]


class KeyAnswer(Struct):
    data: Key


class KeyList(Struct):
    data: list[Key]


class KeyMade(Struct):
    """`key` is the key itself. It is told this once."""

    data: Key
    key: str


class KeyDeleted(Struct):
    deleted: bool = True


def _about(text: str) -> Meta:
    return Meta(description=text)


Amount = Annotated[float, Meta(ge=0, description="US dollars, at most nine decimals.")]
Names = Annotated[list[str], Meta(max_length=100)]
Count = Annotated[int, Meta(ge=1, le=2**31 - 1)]


class Caps(Struct, forbid_unknown_fields=True):
    """Ours: the most that the key may spend per UTC day, per calendar month, and in all; null: no cap."""

    daily: Amount | None = None
    monthly: Amount | None = None
    total: Amount | None = None


class KeyChanges(Struct, kw_only=True, forbid_unknown_fields=True):
    """The body of `PATCH /v1/keys/{hash}`: what is left out stays as it is, null takes a bound away."""

    name: Annotated[str, _about("Up to 100 characters; no two working keys have the same.")] | UnsetType = UNSET
    disabled: Annotated[bool, _about("Refuse new requests until this is false again.")] | UnsetType = UNSET
    limit: (
        Annotated[Amount | None, _about("US dollars that it may spend; takes the place of all caps.")] | UnsetType
    ) = UNSET
    limit_reset: Annotated[Reset | None, _about("When the limit begins anew, at midnight UTC.")] | UnsetType = UNSET
    include_byok_in_limit: Annotated[bool, _about("Read, and changes nothing.")] | UnsetType = UNSET
    expires_at: Annotated[Moment | None, _about("When it ends.")] | UnsetType = UNSET
    caps: Annotated[Caps, _about("Several limits at a time, instead of `limit`.")] | UnsetType = UNSET
    allowed_models: Annotated[Names | None, _about("The only models that it may use.")] | UnsetType = UNSET
    allowed_ips: (
        Annotated[Names | None, _about("Addresses or networks (CIDR) that it may be used from.")] | UnsetType
    ) = UNSET
    rpm: Annotated[Count | None, _about("Requests in any 60 seconds.")] | UnsetType = UNSET
    rpd: Annotated[Count | None, _about("Requests per UTC day.")] | UnsetType = UNSET
    concurrency: Annotated[Count | None, _about("Requests at the same time.")] | UnsetType = UNSET


class NewKey(KeyChanges, kw_only=True, forbid_unknown_fields=True):
    """The body of `POST /v1/keys`. Null, and what is left out, is no bound but the account's."""

    name: Annotated[str, _about("Up to 100 characters; no two working keys have the same.")]


# --- activity ------------------------------------------------------------------------------------------------------


class ActivityItem(Struct, kw_only=True):
    """One model at one provider on one day."""

    date: Annotated[str, Meta(description="A UTC day.", extra_json_schema={"format": "date"})]
    model: Annotated[str, Meta(description="The model's id.")]
    model_permaslug: Annotated[str, Meta(description="The same.")]
    endpoint_id: Annotated[str, Meta(description="Provider and model.")]
    provider_name: Annotated[str | None, Meta(description="null: no provider was reached.")]
    usage: Annotated[Dollars, Meta(description="US dollars charged, exact.")]
    byok_usage_inference: NoBYOK = 0
    requests: Annotated[int, Meta(description="How many, failed ones included.")]
    prompt_tokens: Annotated[int, Meta(description="Cached ones included.")]
    completion_tokens: Annotated[int, Meta(description="Reasoning included.")]
    reasoning_tokens: Annotated[int, Meta(description="Of these, for reasoning.")]
    tokens: Annotated[Tokens, Meta(description="By class of price: `input`, `cached_input`, `output`.")]


class Activity(Struct):
    data: list[ActivityItem]

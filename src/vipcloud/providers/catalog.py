"""The catalogue: which models exist, who can serve them, what they cost, and how each upstream differs from OpenAI.

Theory of operation. The packaged `catalog.toml` and an operator's file are merged as plain tables, aliases are filled
in from the rows they name, and every row is decoded strictly: an unknown key, a float for a price or a provider that
does not exist raises SettingsError with the row's path and what would be right. What comes out is frozen. A candidate
carries everything that a call needs (provider, upstream model, quirks, costs), so nothing else looks at rows. Prices
have versions, hours and tiers: see `providers.prices`.

Candidates on a provider that is not ready stay in the file and are skipped; a model on sale must have one that is.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from importlib import resources
from types import MappingProxyType
from typing import Annotated, Any, Literal, TypeVar, get_args

import msgspec
from msgspec import Meta, Struct

from vipcloud.dialects.openai import Effort
from vipcloud.errors import ModelNotFound, NotImplementedYet, SettingsError
from vipcloud.providers import prices
from vipcloud.providers.price_rows import CalendarRow, HoursRow, PriceRow, TierRow
from vipcloud.providers.prices import Calendar, PriceBook

Status = Literal["live", "free", "soon"]
Auth = Literal["bearer", "jwt"]
Choice = Literal["none", "auto", "required", "named"]
Droppable = Literal[
    "temperature",
    "top_p",
    "presence_penalty",
    "frequency_penalty",
    "seed",
    "logit_bias",
    "parallel_tool_calls",
]
Inert = Literal["temperature", "top_p", "presence_penalty", "frequency_penalty"]
NotThinking = Literal["required", "named", "logprobs", "json"]
Vocabulary = Literal["deepseek", "qwen", "qwen3.5"]
FailureKind = Literal[
    "rate_limited",
    "quota_exhausted",
    "overloaded",
    "auth",
    "token_expired",
    "arrears",
    "no_access",
    "stale_mapping",
    "duplicate_request",
    "bad_request",
    "context_length",
    "content_filter",
    "output_filtered",  # as `content_filter`, and what a stream has said before stands
    "server_error",
    "timeout",
    "malformed",
]

Text = Annotated[str, Meta(min_length=1)]
Tokens = Annotated[int, Meta(ge=1, le=2**31 - 1)]
Seconds = Annotated[float, Meta(gt=0)]
URLPath = Annotated[str, Meta(pattern=r"^/[^\s]+$")]
BaseURL = Annotated[str, Meta(pattern=r"^https?://[^/\s]+(/[^\s]*[^/\s])?$")]

_MODEL_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@-]{0,127}", re.ASCII)
_PROVIDER_ID = re.compile(r"[a-z][a-z0-9-]{0,31}", re.ASCII)
_HEADER_NAME = re.compile(r"[a-z0-9-]+", re.ASCII)
_HEADER_VALUE = re.compile(r"[\x20-\x7e]*", re.ASCII)
_HEADERS_RESERVED = frozenset({"authorization", "host", "content-type", "content-length", "transfer-encoding"})

_Row = TypeVar("_Row")


# --- what a row says -----------------------------------------------------------------------------------------------


class Quirks(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How an upstream differs from OpenAI's chat completions. The defaults describe one that does not."""

    vision: bool = False  # takes images
    logprobs: bool = False
    thinking: bool = False  # reasons before it answers, unless told not to
    thinking_on: dict[str, Any] = {}  # what tells it to reason; a model sold without reasoning is never told
    thinking_off: dict[str, Any] = {}  # what tells it not to
    thinking_budget: bool = False  # takes `thinking_budget`, the most tokens of reasoning
    thinking_excludes: frozenset[NotThinking] = frozenset()  # what it cannot do while it reasons; "json": reasons not
    reasoning_efforts: dict[Effort, str] = {}  # OpenAI's word → the upstream's; one that is not here is not sent
    replay_reasoning: Literal["never", "given", "always"] = "never"  # `reasoning_content` of former turns, "" for none
    choices_max: Annotated[int, Meta(ge=1, le=128)] = 1  # `n`
    choices_with_tools: bool = True  # takes `n` above 1 together with tools
    json_object: Literal["native", "emulate"] = "native"
    json_schema: Literal["native", "emulate"] = "emulate"
    json_word: bool = False  # JSON mode needs the word "json" in the messages
    json_all_required: bool = False  # takes a schema for the answer only if it requires every property
    schema_subset: bool = (
        False  # schemas without references, bounds, patterns and mixed enums; a type on every property
    )
    tool_choice: frozenset[Choice] = frozenset({"none", "auto", "required", "named"})
    tool_names_reserved: frozenset[str] = frozenset()  # refused as names of tools; sent under another and renamed back
    tools_repeat: bool = True  # takes two tools of one name; else the first is sent
    parallel_said: bool = False  # `parallel_tool_calls` is sent with tools even where the caller left it out
    arguments_valid: bool = False  # refuses former calls whose arguments are not JSON
    temperature_range: tuple[float, float] | None = None  # clamped into it
    temperature_zero: Literal["pass", "greedy"] = "pass"  # greedy: `do_sample: false`
    top_p_range: tuple[float, float] | None = None
    sampling_decimals: Annotated[int, Meta(ge=0, le=6)] | None = None
    seed_bits: Annotated[int, Meta(ge=1, le=63)] | None = None  # only the lowest of a seed's bits are sent
    stop_max: Annotated[int, Meta(ge=0)] = 4  # the gateway looks for the others itself
    stop_bytes_max: Annotated[int, Meta(ge=1)] | None = None  # and for longer ones
    drop: frozenset[Droppable] = frozenset()
    inert: frozenset[Inert] = frozenset()  # taken without a complaint and without effect: sent, and not advertised
    ceiling_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    user_field: Literal["user_id", "safety_identifier"] | None = None  # takes a pseudonym of 34 of [A-Za-z0-9_-]
    request_id: bool = False  # takes `request_id`, fresh per attempt
    usage_option: bool = True  # needs `stream_options.include_usage`
    image_data_bare: bool = False  # images as base64 without the `data:` prefix
    text_parts: bool = True  # takes text as an array of parts; else it is sent as one string
    empty_text: bool = True  # takes an empty text part, and "" beside tool calls
    message_names: bool = True  # takes `name` on messages
    system_first: bool = False  # takes one system message, the first of all: all are joined to it
    user_message_required: bool = False  # refuses a conversation of system and assistant messages alone
    vocabulary: Vocabulary = "qwen"  # nearest to the model's own; for counts where the upstream gives none
    vocabulary_factor: Annotated[float, Meta(ge=0.25, le=4)] = 1.0  # the model's tokens for one of that vocabulary
    inline_thinking: bool = False  # puts `<think>…</think>` before the text
    call_ids_repeat: bool = False  # its ids of tool calls are unique in one answer only; clients see ours instead


ORDINARY = Quirks()


class ErrorRule(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All conditions given must hold; `contains` ignores case, and a code may end with `*`. At least one condition is
    given. `until_tomorrow`: what is used up comes back at the provider's midnight, where the answer says nothing else.
    """

    kind: FailureKind
    status: Annotated[int, Meta(ge=100, le=599)] | None = None
    codes: frozenset[str] = frozenset()
    type: str | None = None
    contains: str | None = None
    auth: Auth | None = None  # holds only while the provider is called with this scheme
    until_tomorrow: bool = False


class Capabilities(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the model is sold with."""

    tools: bool = False
    json_object: bool = False
    json_schema: bool = False
    vision: bool = False
    reasoning: bool = False
    logprobs: bool = False


class Balance(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where a provider tells an account's balance, below its address, and where in the answer it stands."""

    path: URLPath
    amount: tuple[str | int, ...]
    currency: tuple[str | int, ...] = ()


class _ProviderRow(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    name: Text
    base_url: BaseURL
    chat_path: URLPath
    key_env: Annotated[str, Meta(pattern=r"^[A-Z][A-Z0-9_]*$")]
    first_byte_s: Seconds
    limits_per: Literal["account", "model"]
    ready: bool = False
    auth: Auth = "bearer"
    code_in_message: bool = False
    continue_field: Literal["prefix", "partial"] | None = None
    continue_path: Annotated[str, Meta(pattern=r"^(/[^\s]+)?$")] = ""
    headers: dict[str, str] = {}
    quirks: dict[str, Any] = {}
    errors: tuple[ErrorRule, ...] = ()
    regions: dict[str, BaseURL] = {}
    balance: Balance | None = None


class _CandidateRow(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    provider: Text
    model: Text
    cost: PriceRow | tuple[PriceRow, ...]
    extra: dict[str, Any] = {}
    chat_path: URLPath | None = None
    output_tokens_max: Tokens | None = None
    first_byte_s: Seconds | None = None
    quirks: dict[str, Any] = {}


class _ModelRow(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    name: Text
    provider: Text
    owned_by: Text
    status: Status
    notes: str
    created: Annotated[int, Meta(ge=0)]
    context_tokens: Tokens
    output_tokens_max: Tokens
    capabilities: Capabilities = Capabilities()
    price: PriceRow | tuple[PriceRow, ...] | None = None
    alias_of: str | None = None
    candidates: tuple[_CandidateRow, ...] = ()


# --- what the rest of the house sees -------------------------------------------------------------------------------


class Provider(Struct, frozen=True, kw_only=True, eq=False):
    """A company we call. Compares by identity, like `Candidate`: two loads make two providers.

    `regions` are all its addresses by a name for people: keys of one are refused at the others.
    One that has a `continue_field` goes on with an answer whose beginning is the last message, marked with it, at
    `continue_path`.
    """

    id: str
    name: str
    ready: bool
    base_url: str
    chat_path: str
    key_env: str
    auth: Auth
    headers: Mapping[str, str]
    first_byte_s: float
    limits_per: Literal["account", "model"]
    code_in_message: bool
    continue_field: str | None
    continue_path: str
    quirks: Quirks
    errors: tuple[ErrorRule, ...]
    regions: Mapping[str, str]
    balance: Balance | None


class Candidate(Struct, frozen=True, kw_only=True, eq=False):
    """A model at an upstream that could serve a call. `output_tokens_max` holds for what we sell and for the upstream.

    `extra` are fields of the upstream's body beside those translated; `first_byte_s` is how long the first byte may
    take, reasoning included. `reasoning`: its model is sold with reasoning, so that a caller may turn it on, off, up or
    down.

    The rest follows from these and is there because every call asks: `body_tail` is the end of a body, `extra` encoded,
    and `thinking_tail` and `silent_tail` the same with reasoning told on or off; with `messages_stand` and
    `sampling_stands` a plain request's messages, and its ceiling, `temperature` and `top_p`, are sent as they came.
    """

    provider: Provider
    upstream_model: str
    chat_path: str
    extra: dict[str, Any]
    costs: PriceBook
    output_tokens_max: int
    first_byte_s: float
    quirks: Quirks
    reasoning: bool
    body_tail: bytes
    thinking_tail: bytes
    silent_tail: bytes
    messages_stand: bool
    sampling_stands: bool

    @property
    def id(self) -> str:
        """A name for logs, metrics and health: `zhipu/glm-4-plus`."""
        return f"{self.provider.id}/{self.upstream_model}"

    @property
    def continues(self) -> bool:
        """Whether it can go on with an answer that another upstream has begun."""
        return self.provider.continue_field is not None and not self.quirks.thinking

    @property
    def caches_prompts(self) -> bool:
        """Whether a prompt that was sent before costs less: then a conversation had better stay at its account."""
        return any(price.cached_input < price.input for price in self.costs.prices)


class Model(Struct, frozen=True, kw_only=True, eq=False):
    """What a customer names. `candidates` stand in order of preference; empty only where the status is `soon`.

    `listed` are those and the ones on providers that are not ready, in the catalogue's order: nothing is sent to these.
    `on_sale` and `takes_plain` follow from the rest: the model can be called at all, and every candidate can serve any
    `PlainChat`.
    """

    id: str
    name: str
    owned_by: str
    provider_name: str
    status: Status
    notes: str
    created: int
    context_tokens: int
    output_tokens_max: int
    capabilities: Capabilities
    prices: PriceBook | None
    alias_of: str | None
    candidates: tuple[Candidate, ...]
    listed: tuple[Candidate, ...]
    on_sale: bool
    takes_plain: bool


class Catalog(Struct, frozen=True, kw_only=True, eq=False):
    """All models, providers and calendars, in the file's order."""

    models: Mapping[str, Model]
    providers: Mapping[str, Provider]
    calendars: Mapping[str, Calendar]

    @classmethod
    def load(cls, default_toml: str, override_toml: str | None = None) -> "Catalog":
        """The catalogue of `default_toml` with `override_toml` laid over it, key by key. Raises SettingsError."""
        source = _decode(default_toml, "the packaged catalogue")
        if override_toml is not None:
            source = merge(source, _decode(override_toml, "the catalogue file"))
        unknown = source.keys() - {"calendars", "providers", "models"}
        if unknown:
            raise SettingsError(f"{min(unknown)} is not a table of the catalogue; it has calendars, providers, models.")
        calendars = {row_id: _calendar(row_id, row) for row_id, row in _tables(source, "calendars")}
        providers = {row_id: _provider(row_id, row) for row_id, row in _tables(source, "providers")}
        rows = dict(_tables(source, "models"))
        models = {row_id: _model(row_id, _resolved(rows, row_id), providers, calendars) for row_id in rows}
        return cls(
            models=MappingProxyType(models),
            providers=MappingProxyType(providers),
            calendars=MappingProxyType(calendars),
        )

    def model(self, model_id: str) -> Model:
        """The model to call. Raises ModelNotFound, and NotImplementedYet where it is announced only or has no price."""
        model = self.models.get(model_id)
        if model is None:
            raise ModelNotFound(model_id)
        if model.on_sale:
            return model
        if model.status == "soon":
            raise NotImplementedYet(
                f"The model '{model_id}' is announced and not switched on yet; GET /v1/models shows its status.",
                param="model",
            )
        raise NotImplementedYet(f"The model '{model_id}' has no price yet and cannot be called.", param="model")


def packaged_toml() -> str:
    """The catalogue that ships with the program. The only reading of a file here."""
    return resources.files("vipcloud.providers").joinpath("catalog.toml").read_text(encoding="utf-8")


def merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """`above` laid over `below`: tables key by key, all else replaced whole. Order is that of first appearance."""
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        merged[key] = merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


# --- rows to values ------------------------------------------------------------------------------------------------


def _decode(text: str, source: str) -> dict[str, Any]:
    try:
        return msgspec.toml.decode(text, type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError) as error:
        raise SettingsError(f"{source} is not TOML: {error}") from error


def _tables(source: Mapping[str, Any], name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    group = source.get(name, {})
    if not isinstance(group, dict):
        raise SettingsError(f"{name} must be a table of tables, such as [{name}.example].")
    for row_id, row in group.items():
        if not isinstance(row, dict):
            raise SettingsError(f"{name}.{row_id} must be a table, such as [{name}.{row_id}].")
        yield row_id, row


def _resolved(rows: Mapping[str, dict[str, Any]], model_id: str) -> dict[str, Any]:
    """The model's row; an alias has its target's row under its own, and that one's under it. Raises SettingsError.

    So an alias is served as its target is, unless it names candidates of its own.
    """
    row = rows[model_id]
    seen = [model_id]
    while (target := rows[seen[-1]].get("alias_of")) is not None:
        path = f"models.{seen[-1]}"
        if not isinstance(target, str) or target not in rows:
            raise SettingsError(f"{path}.alias_of: {target!r} is not a model; name one of {_listed(rows)}.")
        if target in seen:
            raise SettingsError(
                f"{path}.alias_of: a loop, {' → '.join([*seen, target])}; an alias must end at a model."
            )
        seen.append(target)
        row = merge(rows[target], row)
    return row


def _provider(provider_id: str, raw: dict[str, Any]) -> Provider:
    path = f"providers.{provider_id}"
    if not _PROVIDER_ID.fullmatch(provider_id):
        raise SettingsError(f"{path}: an id is lower-case letters, digits and dashes, such as deepseek.")
    row = _convert(raw, _ProviderRow, path)
    for name, value in row.headers.items():
        if not _HEADER_NAME.fullmatch(name) or name in _HEADERS_RESERVED or not _HEADER_VALUE.fullmatch(value):
            raise SettingsError(f"{path}.headers.{name}: not a header that can be set here; write lower-case names.")
    for index, rule in enumerate(row.errors):
        if rule.status is None and not rule.codes and rule.type is None and rule.contains is None:
            raise SettingsError(f"{path}.errors[{index}]: give at least one of status, codes, type and contains.")
    return Provider(
        id=provider_id,
        name=row.name,
        ready=row.ready,
        base_url=row.base_url,
        chat_path=row.chat_path,
        key_env=row.key_env,
        auth=row.auth,
        headers=MappingProxyType(dict(row.headers)),
        first_byte_s=row.first_byte_s,
        limits_per=row.limits_per,
        code_in_message=row.code_in_message,
        continue_field=row.continue_field,
        continue_path=row.continue_path or row.chat_path,
        quirks=_quirks(row.quirks, f"{path}.quirks"),
        errors=row.errors,
        regions=MappingProxyType(dict(row.regions)),
        balance=row.balance,
    )


def _calendar(calendar_id: str, raw: dict[str, Any]) -> Calendar:
    path = f"calendars.{calendar_id}"
    if not _PROVIDER_ID.fullmatch(calendar_id):
        raise SettingsError(f"{path}: an id is lower-case letters, digits and dashes, such as deepseek-peak.")
    return prices.calendar(calendar_id, _convert(raw, CalendarRow, path), path)


def _model(
    model_id: str, raw: dict[str, Any], providers: Mapping[str, Provider], calendars: Mapping[str, Calendar]
) -> Model:
    path = f"models.{model_id}"
    if not _MODEL_ID.fullmatch(model_id):
        raise SettingsError(f"{path}: an id is at most 128 of letters, digits and ._:/@-, such as deepseek-chat.")
    row = _convert(raw, _ModelRow, path)
    candidates = []
    for index, candidate in enumerate(row.candidates):
        where = f"{path}.candidates[{index}]"
        costs = prices.cost_book(candidate.cost, calendars, f"{where}.cost")
        candidates.append(_candidate(row, raw["candidates"][index], candidate, costs, providers, where))
    list_price = candidates[0].costs if candidates else None
    ready = tuple(candidate for candidate in candidates if candidate.provider.ready)
    model = Model(
        id=model_id,
        name=row.name,
        owned_by=row.owned_by,
        provider_name=_named(providers, row.provider, f"{path}.provider").name,
        status=row.status,
        notes=row.notes,
        created=row.created,
        context_tokens=row.context_tokens,
        output_tokens_max=row.output_tokens_max,
        capabilities=row.capabilities,
        prices=(
            prices.price_book(row.price, list_price, calendars, f"{path}.price") if row.price is not None else None
        ),
        alias_of=row.alias_of,
        candidates=ready,
        listed=tuple(candidates),
        on_sale=row.status != "soon" and row.price is not None,
        takes_plain=not any(candidate.quirks.user_message_required for candidate in ready),
    )
    _check_unique(candidates, path)
    _check_sale(model, candidates, path)
    return model


def _candidate(
    model: _ModelRow,
    raw: dict[str, Any],
    row: _CandidateRow,
    costs: PriceBook,
    providers: Mapping[str, Provider],
    path: str,
) -> Candidate:
    provider = _named(providers, row.provider, f"{path}.provider")
    quirks = _quirks(merge(_given(provider.quirks), raw.get("quirks", {})), f"{path}.quirks")
    return Candidate(
        provider=provider,
        upstream_model=row.model,
        chat_path=row.chat_path or provider.chat_path,
        extra=row.extra,
        costs=costs,
        output_tokens_max=min(model.output_tokens_max, row.output_tokens_max or model.output_tokens_max),
        first_byte_s=row.first_byte_s or provider.first_byte_s,
        quirks=quirks,
        reasoning=model.capabilities.reasoning,
        body_tail=_tail(row.extra),
        thinking_tail=_tail(row.extra | quirks.thinking_on),
        silent_tail=_tail(row.extra | quirks.thinking_off),
        messages_stand=not quirks.system_first,
        sampling_stands=(
            quirks.temperature_range is None
            and quirks.temperature_zero == "pass"
            and quirks.top_p_range is None
            and quirks.sampling_decimals is None
            and quirks.ceiling_field == "max_tokens"
            and not {"temperature", "top_p"} & quirks.drop
        ),
    )


def _tail(extra: dict[str, Any]) -> bytes:
    """The end of a body, with `extra` in it."""
    return b"," + msgspec.json.encode(extra)[1:] if extra else b"}"


def _check_unique(candidates: list[Candidate], path: str) -> None:
    seen: list[tuple[str, dict[str, Any]]] = []
    for index, candidate in enumerate(candidates):
        key = (candidate.id, candidate.extra)
        if key in seen:
            raise SettingsError(f"{path}.candidates[{index}]: {candidate.id} is there already; name each one once.")
        seen.append(key)


def _check_sale(model: Model, listed: list[Candidate], path: str) -> None:
    """A model that can be called has a candidate for all it is sold with, and costs nothing only if it says `free`."""
    if model.status == "soon":
        return
    if not model.candidates:
        waiting = ", ".join(sorted({candidate.provider.id for candidate in listed})) or "none at all"
        raise SettingsError(
            f"{path}.status: {model.status!r} needs a candidate on a provider that is ready, and this model's are on "
            f'{waiting}; keep it "soon", or add a candidate on a ready provider.'
        )
    if model.prices is not None and any(price.free != (model.status == "free") for price in model.prices.prices):
        raise SettingsError(f'{path}.price: price and status disagree; status "free" goes with prices "0" only.')
    abilities: tuple[tuple[str, bool, bool], ...] = (
        ("vision", model.capabilities.vision, any(one.quirks.vision for one in model.candidates)),
        ("logprobs", model.capabilities.logprobs, any(one.quirks.logprobs for one in model.candidates)),
        (
            "reasoning",
            model.capabilities.reasoning,
            any(one.quirks.thinking or one.quirks.thinking_on for one in model.candidates),
        ),
    )
    for name, sold, able in abilities:
        if sold and not able:
            raise SettingsError(f"{path}.capabilities.{name}: no candidate on a ready provider can do this; drop it.")


def _quirks(raw: dict[str, Any], path: str) -> Quirks:
    quirks = _convert(raw, Quirks, path)
    for name, bounds in (("temperature_range", quirks.temperature_range), ("top_p_range", quirks.top_p_range)):
        if bounds is not None and not bounds[0] <= bounds[1]:
            raise SettingsError(f"{path}.{name}: the lower bound stands first, such as [0.01, 1.0].")
    return quirks


def _given(quirks: Quirks) -> dict[str, Any]:
    return {name: getattr(quirks, name) for name in quirks.__struct_fields__}


def _named(providers: Mapping[str, Provider], provider_id: str, path: str) -> Provider:
    if provider_id not in providers:
        raise SettingsError(f"{path}: {provider_id!r} is not a provider; name one of {_listed(providers)}.")
    return providers[provider_id]


# --- errors with a path --------------------------------------------------------------------------------------------

# Which row a path inside another row leads to, so that an unknown key can be answered with the known ones.
_NESTED: dict[str, type[Struct]] = {
    "price": PriceRow,
    "cost": PriceRow,
    "tiers": TierRow,
    "hours": HoursRow,
    "capabilities": Capabilities,
    "candidates": _CandidateRow,
    "errors": ErrorRule,
}


def _convert(raw: dict[str, Any], row: type[_Row], path: str) -> _Row:
    try:
        return msgspec.convert(raw, type=row)
    except msgspec.ValidationError as error:
        raise SettingsError(_explain(str(error), row, path)) from error


def _explain(text: str, row: type[Any], path: str) -> str:
    """msgspec's words with the row's path in front, and what would be right behind."""
    problem, _, inside = text.partition(" - at `$")
    inside = inside.rstrip("`")
    place = path + inside
    unknown = re.fullmatch(r"Object contains unknown field `(.*)`", problem)
    last = re.sub(r"\[.*?\]", "", inside).rpartition(".")[2]
    if unknown:
        known = msgspec.structs.fields(_NESTED.get(last, row))
        return f"{place}.{unknown.group(1)} is not a field here; there are {_listed(field.name for field in known)}."
    if {"price", "cost"} & set(re.split(r"[.\[]", inside)) and problem.startswith("Expected `str"):
        return f'{place}: a price is text, in dollars per 1M tokens, such as "0.31" in quotes.'
    if problem.startswith("Invalid enum value"):
        owner = _NESTED.get(re.sub(r"\[.*?\]", "", inside).strip(".").partition(".")[0], row)
        words = {word for field in msgspec.structs.fields(owner) if field.name == last for word in get_args(field.type)}
        return f"{place}: {problem.removeprefix('Invalid enum value ')} is not one of {_listed(map(str, words))}."
    return f"{place}: {problem[:1].lower()}{problem[1:]}."


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))

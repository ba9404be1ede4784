"""The catalogue: which models exist, who can serve them, what they cost, and how each upstream differs from OpenAI.

Theory of operation. The packaged `catalog.toml` and an operator's file are merged as plain tables, aliases are filled
in from the rows they name, and every row is decoded strictly: an unknown key, a float for a price or a provider that
does not exist raises SettingsError with the row's path and what would be right. What comes out (`models`) stays as it
is. A candidate carries everything that a call needs (provider, upstream model, quirks, costs), so nothing else looks at
rows (`catalog_rows`). Prices have versions, hours and tiers: see `providers.prices`.

Candidates on a provider that is not ready stay in the file and are skipped; a model on sale must have one that is.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from importlib import resources
from types import MappingProxyType
from typing import Any, TypeVar, get_args

import msgspec
from msgspec import Struct

from vipcloud.errors import SettingsError
from vipcloud.providers import prices
from vipcloud.providers.catalog_rows import CandidateRow, Capabilities, ErrorRule, ModelRow, ProviderRow, Quirks
from vipcloud.providers.models import Candidate, Catalog, Model, Provider
from vipcloud.providers.price_rows import CalendarRow, HoursRow, PriceRow, TierRow
from vipcloud.providers.prices import Calendar, PriceBook

_MODEL_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@-]{0,127}", re.ASCII)
_PROVIDER_ID = re.compile(r"[a-z][a-z0-9-]{0,31}", re.ASCII)
_HEADER_NAME = re.compile(r"[a-z0-9-]+", re.ASCII)
_HEADER_VALUE = re.compile(r"[\x20-\x7e]*", re.ASCII)
_HEADERS_RESERVED = frozenset({"authorization", "host", "content-type", "content-length", "transfer-encoding"})

_Row = TypeVar("_Row")


def catalog_of(default_toml: str, override_toml: str | None = None) -> Catalog:
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
    return Catalog(models, providers, calendars)


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
    row = _convert(raw, ProviderRow, path)
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
    row = _convert(raw, ModelRow, path)
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
    )
    _check_unique(candidates, path)
    _check_sale(model, candidates, path)
    return model


def _candidate(
    model: ModelRow,
    raw: dict[str, Any],
    row: CandidateRow,
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
    )


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
    "candidates": CandidateRow,
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

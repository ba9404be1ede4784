"""`vipcloud models`: the catalogue in force, what is left of its prices, and switching models on and off.

A model is switched in the operator's own catalogue file, which a running gateway follows; nothing has to be restarted.
"""

import json
import math
from collections.abc import Iterable
from typing import Annotated, Any

import msgspec
import typer
from msgspec import Struct
from rich.markup import escape

from vipcloud.cli import context, running
from vipcloud.clock import rfc3339
from vipcloud.dialects import models as dialect
from vipcloud.errors import SettingsError
from vipcloud.gateway.upstreams import account_settings
from vipcloud.metering import margin
from vipcloud.metering.margin import Line, TokenClass
from vipcloud.providers import abilities, edits
from vipcloud.providers.catalog_rows import Status
from vipcloud.providers.models import Candidate, Catalog, Model
from vipcloud.providers.prices import Rates
from vipcloud.settings import Settings, UpstreamSettings

app = typer.Typer(no_args_is_help=True)

ModelId = Annotated[str, typer.Argument(metavar="MODEL", help="The model's id, such as glm-4-air.")]

_CLASS_NAMES: dict[TokenClass, str] = {
    "input": "input",
    "cached_input": "cached input",
    "cache_write": "cache write",
    "output": "output",
}


@app.command("list")
@context.renders_errors
def list_(as_json: context.AsJSON = False, data: context.Data = None, config: context.Config = None) -> None:
    """List the models with status, context, price and upstreams."""
    settings = context.load(data, config)
    catalog = context.load_catalog(settings)
    now_s = context.clock.wall_s()
    if as_json:
        context.print_json(json.loads(dialect.list_body(abilities.entries(catalog, now_s))))
        return
    rows = []
    separator = "\n" if context.out.is_terminal else ", "
    for model in catalog.models.values():
        price = model.prices.at(now_s) if model.prices is not None else None
        rows.append(
            [
                model.id,
                model.status,
                f"{model.context_tokens:,}",
                per_million(price.input) if price is not None else "–",
                per_million(price.output) if price is not None else "–",
                separator.join(candidate.id for candidate in model.candidates) or "–",
            ]
        )
    columns = ["model", "status", "context", "$/1M in", "$/1M out", "upstreams"]
    context.print_table(columns, rows, frozenset({"context", "$/1M in", "$/1M out"}))
    dear = [model.id for model in catalog.models.values() if losses(model, now_s)]
    if dear:
        context.note("Below cost", f"for some calls: {', '.join(dear)}. See: vipcloud models show MODEL")


@app.command("show")
@context.renders_errors
def show(
    model_id: ModelId, as_json: context.AsJSON = False, data: context.Data = None, config: context.Config = None
) -> None:
    """Show one model: what it does, its price, and what each upstream leaves of it."""
    catalog = context.load_catalog(context.load(data, config))
    model = find(catalog, model_id)
    now_s = context.clock.wall_s()
    if as_json:
        context.print_json(described(model, now_s))
        return
    alias = f", an alias of {model.alias_of}" if model.alias_of else ""
    entry = abilities.entry(model, now_s)
    context.print_fields(
        {
            "model": f"{model.id}{alias}",
            "name": model.name,
            "status": _STATUS_WORDS[model.status],
            "about": model.notes,
            "provider": f"{model.provider_name} (owned_by: {model.owned_by})",
            "context": f"{model.context_tokens:,} tokens, answers up to {model.output_tokens_max:,}",
            "takes": " and ".join(entry.input_modalities),
            "parameters": ", ".join(entry.supported_parameters),
            "price id": model.prices.at(now_s).version if model.prices is not None else "none: it cannot be called",
        }
    )
    context.out.print("")
    columns, rows = margin_table(model, now_s)
    context.print_table(columns, rows, frozenset(columns[1:]))
    for version in model.prices.upcoming(now_s) if model.prices is not None else ():
        base = version.base
        context.out.print(
            f"\nFrom {rfc3339(version.effective_s)} on: input {per_million(base.input)}, "
            f"output {per_million(base.output)} ({base.version})."
        )
    found = losses(model, now_s)
    if found:
        context.out.print("")
        _warn(found)


@app.command("enable")
@context.renders_errors
def enable(
    model_id: ModelId, as_json: context.AsJSON = False, data: context.Data = None, config: context.Config = None
) -> None:
    """Switch a model on; a running gateway serves it within a second."""
    settings = context.load(data, config)
    before = context.load_catalog(settings)
    model = find(before, model_id)
    if model.status == "soon":
        check_can_be_sold(model, settings)
    free = model.prices is not None and all(price.free for price in model.prices.prices)
    status: Status = model.status if model.status != "soon" else "free" if free else "live"
    _switch(settings, before, model_id, status, as_json=as_json)


@app.command("disable")
@context.renders_errors
def disable(
    model_id: ModelId, as_json: context.AsJSON = False, data: context.Data = None, config: context.Config = None
) -> None:
    """Switch a model off: it stays listed as `soon`, and calls get a 501 within a second."""
    settings = context.load(data, config)
    before = context.load_catalog(settings)
    _switch(settings, before, find(before, model_id).id, "soon", as_json=as_json)


_STATUS_WORDS: dict[Status, str] = {
    "live": "live",
    "free": "free: calls cost nothing",
    "soon": "soon: listed, and calls get a 501 until you switch it on: vipcloud models enable",
}


def find(catalog: Catalog, model_id: str) -> Model:
    """Raises SettingsError."""
    model = catalog.models.get(model_id)
    if model is None:
        raise SettingsError(f"There is no model '{model_id}'; there are {', '.join(catalog.models)}.")
    return model


def check_can_be_sold(model: Model, settings: Settings) -> None:
    """Raises SettingsError with what is missing and where to give it."""
    if model.prices is None:
        raise SettingsError(
            f'{model.id} has no price, and nothing is sold without one: write [models."{model.id}"] with '
            f'price = {{ input = "…", output = "…" }} in {settings.catalog_path}.'
        )
    if not model.candidates:
        waiting = ", ".join(dict.fromkeys(candidate.provider.name for candidate in model.listed)) or "no upstream"
        raise SettingsError(
            f"{model.id} cannot be switched on: it is served by {waiting}, and this version cannot speak to "
            f"{'it' if len(model.listed) < 2 else 'them'} yet (providers with ready = false in the catalogue)."
        )


class Loss(Struct, frozen=True):
    """An upstream at which some calls cost more than they bring, for these classes of tokens."""

    upstream: str
    classes: tuple[TokenClass, ...]

    @property
    def words(self) -> str:
        return f"{self.upstream} ({', '.join(_CLASS_NAMES[name] for name in self.classes)})"


def losses(model: Model, now_s: float) -> list[Loss]:
    """Nothing for a model that is free on purpose."""
    if model.prices is None or model.status == "free":
        return []
    found = []
    for candidate in model.listed:
        below = {name for line in lines(model, candidate, now_s) for name in line.below_cost}
        if below:
            found.append(Loss(candidate.id, tuple(name for name in margin.CLASSES if name in below)))
    return found


def lines(model: Model, candidate: Candidate, now_s: float) -> list[Line]:
    assert model.prices is not None, "without a price there is no margin"
    return margin.lines(model.prices.version(now_s), candidate.costs.version(now_s))


def described(model: Model, now_s: float) -> dict[str, Any]:
    """All of `models show`, for scripts: amounts are dollars per 1M tokens as text, margins are parts of the price."""
    shown: dict[str, Any] = json.loads(dialect.model_body(abilities.entry(model, now_s)))
    shown["alias_of"] = model.alias_of
    shown["price_version"] = model.prices.at(now_s).version if model.prices is not None else None
    shown["upstreams"] = [
        {
            "id": candidate.id,
            "ready": candidate.provider.ready,
            "cost_version": candidate.costs.at(now_s).version,
            "margins": [_line_json(line) for line in lines(model, candidate, now_s)]
            if model.prices is not None
            else [],
        }
        for candidate in model.listed
    ]
    shown["below_cost"] = msgspec.to_builtins(losses(model, now_s))
    return shown


def _line_json(line: Line) -> dict[str, Any]:
    kinds: dict[str, Any] = {
        "hours": line.hours,
        "prompt_tokens_min": line.prompt_tokens_min,
        "completion_tokens_min": line.completion_tokens_min,
    }
    for name in margin.CLASSES:
        price, cost = getattr(line.price, name), getattr(line.cost, name)
        left = margin.margin(price, cost)
        kinds[name] = {
            "price": per_million(price),
            "cost": per_million(cost),
            "margin": None if left is None else round(float(left), 4),
        }
    return kinds


def margin_table(model: Model, now_s: float) -> tuple[list[str], list[list[str]]]:
    """Price and costs by class of token; a cost with what it leaves of the price."""
    blocks = [(candidate, lines(model, candidate, now_s) if model.prices else []) for candidate in model.listed]
    writes = any(line.writes_differ for _, block in blocks for line in block)
    shown = [name for name in margin.CLASSES if writes or name != "cache_write"]
    columns = ["$ per 1M tokens", *(_CLASS_NAMES[name] for name in shown)]
    if model.prices is None:
        rows = []
        for candidate in model.listed:
            rates = candidate.costs.at(now_s)
            rows.append([_label(candidate, ""), *(per_million(getattr(rates, name)) for name in shown)])
        return columns, rows
    price = model.prices.version(now_s).base
    rows = [["the price", *(per_million(getattr(price, name)) for name in shown)]]
    for candidate, block in blocks:
        for line in block:
            cells = [_cell(line, name, price) for name in shown]
            rows.append([_label(candidate, _kind(line)), *cells])
    return columns, rows


def _label(candidate: Candidate, kind: str) -> str:
    return f"{candidate.id}{'' if candidate.provider.ready else ' (not ready)'}{f', {kind}' if kind else ''}".rstrip(
        ": "
    )


def _cell(line: Line, name: TokenClass, usual: Rates) -> str:
    """The cost, and what it leaves of the price in per cent; the price too where it is not the usual one."""
    price, cost = getattr(line.price, name), getattr(line.cost, name)
    left = margin.margin(price, cost)
    other = "" if price == getattr(usual, name) else f" of {per_million(price)}"
    part = "" if left is None else f"{math.floor(left * 100):+d} %".replace("-", "−")
    return f"{per_million(cost)}{other} {part:>6}".rstrip()


def _kind(line: Line) -> str:
    """`deepseek-peak, prompts from 32,000 tokens`; empty for all calls."""
    parts = [
        line.hours or "",
        f"prompts from {line.prompt_tokens_min:,} tokens" if line.prompt_tokens_min else "",
        f"answers from {line.completion_tokens_min:,} tokens" if line.completion_tokens_min else "",
    ]
    return ", ".join(part for part in parts if part)


def _warn(found: Iterable[Loss]) -> None:
    told = ", ".join(loss.words for loss in found)
    if told:
        context.note("Below cost", f"at {told}: such calls cost more than they bring.")


def _switch(settings: Settings, before: Catalog, model_id: str, status: Status, *, as_json: bool) -> None:
    """Write the model's status and say what has come of it. Raises SettingsError."""
    changed = before.models[model_id].status != status and context.edit_catalog(
        settings, lambda text: edits.with_status(text, model_id, status)
    )
    after = context.load_catalog(settings)
    model = after.models[model_id]
    followers = [
        other.id
        for other in after.models.values()
        if other.id != model_id and other.status != before.models[other.id].status
    ]
    now_s = context.clock.wall_s()
    found = losses(model, now_s) if status != "soon" else []
    if as_json:
        shown = {
            "id": model_id,
            "status": status,
            "changed": changed,
            "also": followers,
            "file": str(settings.catalog_path),
            "below_cost": msgspec.to_builtins(found),
        }
        context.print_json(shown)
        return
    if not changed:
        context.out.print(f"{escape(model_id)} is {status} already.")
    else:
        context.out.print(
            f"[bold]{escape(model_id)}[/] is {status} now, written to {escape(str(settings.catalog_path))}."
        )
        if followers:
            context.out.print(f"So is what follows it as an alias: {escape(', '.join(followers))}.")
        gateway = running.find(settings)
        where = f"The gateway at {gateway.origin} takes it" if gateway is not None else "A running gateway takes it"
        context.out.print(f"{escape(where)} within a second.")
    _warn(found)
    if status != "soon":
        _note_missing_keys(running.as_served(settings)[0], model)


def _note_missing_keys(settings: Settings, model: Model) -> None:
    """Where no account serves the model, it is on and cannot be called."""
    providers = list(dict.fromkeys(candidate.provider for candidate in model.candidates))
    if not any(
        account_settings(provider, settings.upstreams.get(provider.id) or UpstreamSettings()) for provider in providers
    ):
        context.note(
            "No key",
            f"for {' or '.join(provider.name for provider in providers)} is set here. Unless the gateway simulates its "
            f"providers, set {' or '.join(provider.key_env for provider in providers)} and start it again.",
        )


def per_million(pico: int) -> str:
    """Pico-dollars per token are micro-dollars per million tokens."""
    whole, fraction = divmod(pico, 1_000_000)
    return f"{whole}.{f'{fraction:06d}'.rstrip('0').ljust(2, '0')}"

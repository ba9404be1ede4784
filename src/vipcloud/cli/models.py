"""`vipcloud models`: the catalogue in force."""

import json

import typer

from vipcloud.cli import context
from vipcloud.dialects import models as dialect
from vipcloud.providers import abilities

app = typer.Typer(no_args_is_help=True)


@app.command("list")
@context.told
def list_(as_json: context.AsJSON = False, data: context.Data = None, config: context.Config = None) -> None:
    """List the models with status, context, price and upstreams."""
    settings = context.load(data, config)
    catalog = context.load_catalog(settings)
    now_s = context.clock.wall_s()
    if as_json:
        context.print_json(json.loads(dialect.list_body(abilities.entries(catalog, now_s))))
        return
    rows = [
        [
            model.id,
            model.provider_name,
            model.status,
            f"{model.context_tokens:,}",
            _per_million(model.prices.at(now_s).input) if model.prices else "–",
            _per_million(model.prices.at(now_s).output) if model.prices else "–",
            ", ".join(candidate.id for candidate in model.candidates) or "–",
        ]
        for model in catalog.models.values()
    ]
    columns = ["model", "provider", "status", "context", "input $/1M", "output $/1M", "upstreams"]
    context.print_table(columns, rows, frozenset({"context", "input $/1M", "output $/1M"}))


def _per_million(pico: int) -> str:
    """Pico-dollars per token are micro-dollars per million tokens."""
    whole, fraction = divmod(pico, 1_000_000)
    return f"{whole}.{f'{fraction:06d}'.rstrip('0').ljust(2, '0')}"

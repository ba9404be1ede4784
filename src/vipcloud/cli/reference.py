"""Writes docs/reference from the code: `python -m vipcloud.cli.reference [FOLDER]`, which is what `make docs` calls."""

import sys
import typing
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
import typer.main
from msgspec import Meta, Struct

from vipcloud import errors
from vipcloud.cli import context, models
from vipcloud.cli.commands import app
from vipcloud.providers.catalog import catalog_of, packaged_toml
from vipcloud.settings import PREFIX, Secret, Settings, TierSettings, UpstreamAccountSettings, UpstreamSettings
from vipcloud.telemetry.families import FAMILIES

NOTE = "<!-- Written by `make docs` from the code; do not edit. -->\n\n"


def settings_page() -> str:
    """docs/reference/settings.md"""
    lines = [
        "# Settings\n",
        NOTE,
        "Read once at start. Later sources win: defaults, `vipcloud.toml` (or `--config FILE`), environment variables",
        f"`{PREFIX}<GROUP>_<FIELD>` (such as `{PREFIX}SERVER_PORT`), command line options. A wrong setting stops the",
        "start with its name and what would be right. Units stand last in names.\n",
        "| setting | default | meaning |\n| --- | --- | --- |",
    ]
    groups: list[tuple[str, type[Struct]]] = []
    for name, hint in typing.get_type_hints(Settings, include_extras=True).items():
        if isinstance(hint, type) and issubclass(hint, Struct):
            groups.append((name, hint))
        elif meta := _meta(hint):
            lines.append(_row(name, Settings().data, meta))
    groups += [
        ("upstreams.PROVIDER", UpstreamSettings),
        ("[upstreams.PROVIDER.accounts]", UpstreamAccountSettings),
        ("tiers.NAME", TierSettings),
    ]
    for name, group in groups:
        lines += ["", f"## `[{name}]`\n", f"{(group.__doc__ or '').strip()}\n"]
        lines.append("| setting | default | meaning |\n| --- | --- | --- |")
        defaults: Any = group()
        for field, hint in typing.get_type_hints(group, include_extras=True).items():
            lines.append(_row(f"{name.strip('[]')}.{field}", getattr(defaults, field), _meta(hint)))
    lines += [
        "",
        "The tiers that are there without being set:\n",
        "| tier | rpm | rpd | concurrency |\n| --- | --- | --- | --- |",
    ]
    for tier, limits in Settings().tiers.items():
        lines.append(f"| `{tier}` | {limits.rpm} | {limits.rpd or 'no limit'} | {limits.concurrency} |")
    return "\n".join(lines) + "\n"


def errors_page() -> str:
    """docs/reference/errors.md"""
    lines = [
        "# Errors\n",
        NOTE,
        'Every error has OpenAI\'s envelope, `{"error": {"message", "type", "param", "code"}}`, and the header',
        "`x-request-id`. Once a stream has begun, an error is its last event, and no `[DONE]` follows it.",
        "`x-should-retry: false` tells SDKs that trying again is useless.\n",
        "| status | code | type | SDK retries | meaning |\n| --- | --- | --- | --- | --- |",
    ]
    for kind in errors.documented():
        retried = kind.status in (408, 409, 429) or kind.status >= 500
        retries = "no" if kind.retryable is False or not retried else "yes"
        lines.append(f"| {kind.status} | `{kind.code}` | `{kind.type}` | {retries} | {kind.meaning} |")
    return "\n".join(lines) + "\n"


def cli_page() -> str:
    """docs/reference/cli.md"""
    lines = ["# Command line\n", NOTE]
    command = typer.main.get_command(app)
    lines += _command(command, typer.Context(command, info_name="vipcloud"))
    return "\n".join(lines) + "\n"


def margins_page() -> str:
    """docs/reference/margins.md"""
    lines = [
        "# Margins\n",
        NOTE,
        "What the packaged catalogue leaves of each price: upstreams' list prices in US dollars per million tokens,",
        "and the per cent of our price that remains. Upstreams stand in the order in which they are tried. What stands",
        "behind a comma is for calls in the hours of a calendar, or from a size on. `vipcloud models show` prints the",
        "same of your own catalogue.",
    ]
    for model in catalog_of(packaged_toml()).models.values():
        columns, rows = models.margin_table(model, 0.0)
        alias = f", an alias of `{model.alias_of}`" if model.alias_of else ""
        lines += [f"\n## `{model.id}`\n", f"{model.status}{alias}\n"]
        lines += [f"| {' | '.join(columns)} |", f"| --- |{' ---: |' * (len(columns) - 1)}"]
        lines += [f"| {' | '.join(' '.join(cell.split()) for cell in row)} |" for row in rows]
        below = ", ".join(loss.words for loss in models.losses(model, 0.0))
        if below:
            lines.append(f"\n**Below cost** at {below}.")
    return "\n".join(lines) + "\n"


def _command(command: Any, parent: Any) -> list[str]:
    path = parent.command_path
    lines: list[str] = []
    if hasattr(command, "commands"):
        for name, child in command.commands.items():
            if not child.hidden:
                lines += _command(child, typer.Context(child, info_name=name, parent=parent))
        return lines
    lines += [f"## `{path}`\n", f"{(command.help or '').strip()}\n"]
    rows = []
    for parameter in command.params:
        if getattr(parameter, "hidden", False) or "--help" in parameter.opts:
            continue
        options = ", ".join(f"`{option}`" for option in parameter.opts)
        name = options if parameter.param_type_name == "option" else f"`{parameter.name.upper()}`"
        rows.append(f"| {name} | {getattr(parameter, 'help', '') or ''} |")
    if rows:
        lines += ["| argument or option | meaning |\n| --- | --- |", *rows, ""]
    return lines


def metrics_page() -> str:
    """docs/reference/metrics.md"""
    lines = [
        "# Metrics\n",
        "What `GET /metrics` shows, written from `src/vipcloud/telemetry/families.py` by `make docs`. Who may read",
        "it is in [operating](../operating.md#metrics-and-alerts). Beside these there is what system and runtime say:",
        "`process_resident_memory_bytes`, `process_open_fds`, `process_cpu_seconds_total`, `python_gc_…` and others.\n",
        "| metric | kind | labels | meaning |\n| --- | --- | --- | --- |",
    ]
    for family in FAMILIES.values():
        labels = ", ".join(f"`{label}`" for label in family.labels)
        lines.append(f"| `{family.shown}` | {family.sort} | {labels} | {family.meaning} |")
    return "\n".join(lines) + "\n"


def _meta(hint: Any) -> Meta | None:
    if typing.get_origin(hint) is Annotated:
        return next((extra for extra in typing.get_args(hint)[1:] if isinstance(extra, Meta)), None)
    return None


def _row(name: str, default: object, meta: Meta | None) -> str:
    shown = "empty" if default in ("", (), Secret("")) else str(msgspec.to_builtins(default)).lower()
    return f"| `{name}` | {shown} | {meta.description if meta and meta.description else ''} |"


def write(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    pages = {
        "settings": settings_page,
        "errors": errors_page,
        "cli": cli_page,
        "margins": margins_page,
        "metrics": metrics_page,
    }
    for name, page in pages.items():
        (folder / f"{name}.md").write_text(page(), encoding="utf-8")
        context.out.print(f"wrote {folder / name}.md")


if __name__ == "__main__":
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else Path("docs/reference"))

"""What every command shares: where the settings come from, the store, and how things are shown."""

import json
import secrets
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, Literal, ParamSpec, TypeVar

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from vipcloud import settings as settings_module
from vipcloud.accounts.store import AccountsError
from vipcloud.clock import SystemClock
from vipcloud.errors import SettingsError
from vipcloud.ledger.journal import JournalError
from vipcloud.ledger.store import LedgerError
from vipcloud.providers.catalog import catalog_of, packaged_toml
from vipcloud.providers.models import Catalog
from vipcloud.settings import Settings
from vipcloud.status.store import IncidentError
from vipcloud.storage import engine as storage
from vipcloud.storage import files, migrate

PIPED_WIDTH = 10_000  # columns: nobody looks at it, and a line is a row

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)
clock = SystemClock()
random_bytes = secrets.token_bytes

Data = Annotated[
    Path | None, typer.Option("--data", help="Folder for database, journal and catalogue.", show_default=False)
]
Config = Annotated[
    Path | None, typer.Option("--config", help="Settings file (default: ./vipcloud.toml).", show_default=False)
]
AsJSON = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]

Verdict = Literal["ok", "note", "fail"]
_COLOURS: dict[Verdict, str] = {"ok": "green", "note": "yellow", "fail": "red"}

P = ParamSpec("P")
R = TypeVar("R")


def renders_errors(command: Callable[P, R]) -> Callable[P, R]:
    """Errors that are the user's to mend are told in one line, without a traceback; the exit status is 1."""

    @wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except (SettingsError, AccountsError, IncidentError, LedgerError, JournalError) as error:
            err.print(f"[bold red]Error:[/] {escape(str(error))}")
        except SQLAlchemyError as error:
            reason = escape(str(getattr(error, "orig", None) or error))
            err.print(f"[bold red]Error:[/] the store cannot be used: {reason}")
        finally:
            while _opened:
                _opened.pop().dispose()
        raise typer.Exit(1)

    return run


def load(data: Path | None, config: Path | None, overrides: Mapping[str, Any] | None = None) -> Settings:
    """The settings, with what the command line says laid over them. Raises SettingsError."""
    given: dict[str, Any] = dict(overrides or {})
    given.update({"data": str(data)} if data is not None else _defaults)
    return settings_module.load(config or _config, given)


def chosen_config(config: Path | None) -> Path | None:
    """The settings file named on the command line, wherever it stood there."""
    return config or _config


def remember(data: Path | None, config: Path | None) -> None:
    """Options given before the command hold for it."""
    global _config  # noqa: PLW0603 - the command line is read once per process
    _config = config
    _defaults.clear()
    if data is not None:
        _defaults["data"] = str(data)


_defaults: dict[str, Any] = {}
_config: Path | None = None
_opened: list[Engine] = []  # closed when the command ends


def open_store(settings: Settings) -> Engine:
    """The store, with its tables brought up to this version. Raises SettingsError and SQLAlchemyError."""
    try:
        settings.data_path.mkdir(parents=True, exist_ok=True, mode=0o700)
        engine = storage.open_engine(settings.store_url)
    except OSError as error:
        raise SettingsError(f"data: the folder {error.filename} cannot be used: {error.strerror}.") from error
    _opened.append(engine)
    migrate.upgrade(engine)
    return engine


def load_catalog(settings: Settings) -> Catalog:
    """The packaged catalogue with the operator's laid over it. Raises SettingsError."""
    path = settings.catalog_path
    if not path.is_file():
        if settings.gateway.catalog:
            raise SettingsError(f"gateway.catalog: the file {path} does not exist.")
        return catalog_of(packaged_toml())
    try:
        override = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} cannot be read: {error}.") from error
    try:
        return catalog_of(packaged_toml(), override)
    except SettingsError as error:
        raise SettingsError(f"{path}: {error}") from error


def edit_catalog(settings: Settings, edit: Callable[[str], str]) -> bool:
    """Put `edit` of the operator's catalogue in its place; whether that changed it. Raises SettingsError.

    A text that would not load is not written.
    """
    path = settings.catalog_path

    def checked(text: str) -> str:
        changed = edit(text)
        catalog_of(packaged_toml(), changed)
        return changed

    try:
        return files.rewrite(path, checked)
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} cannot be changed: {error}.") from error
    except SettingsError as error:
        raise SettingsError(f"{path}: {error}") from error


def moment(text: str | None, name: str) -> float | None:
    """A day or a time (UTC, unless it says another zone) as seconds since 1970. Raises SettingsError."""
    if text is None:
        return None
    try:
        at = datetime.fromisoformat(text)
    except ValueError as error:
        raise SettingsError(f"{name} {text}: say such as 2027-01-31 or 2027-01-31T12:00.") from error
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()


def print_json(value: object) -> None:
    out.out(json.dumps(value, ensure_ascii=False))


def print_fields(fields: Mapping[str, str]) -> None:
    """Names and values, one below the other; in a terminal a long value goes on below where it began."""
    width = max(map(len, fields)) + 2
    for name, value in fields.items():
        lines = Text(value).wrap(out, out.width - width) if out.is_terminal else [Text(value)]
        for place, line in enumerate(lines):
            out.print(Text.assemble((("" if place else name).ljust(width), "bold"), line))


def note(title: str, text: str) -> None:
    """Something to know, on standard error: it is no part of what was asked for."""
    err.print(f"[yellow]{title}[/] {escape(text)}", soft_wrap=not err.is_terminal)


def print_finding(verdict: Verdict, what: str, detail: str, advice: str) -> None:
    """One thing looked at, and below it what to do about it, if anything."""
    text = Text.assemble((what, "bold"), f": {detail}", f"\n{advice}" if advice else "")
    if out.is_terminal:
        mark = Table.grid(padding=(0, 2, 0, 0))
        mark.add_column(width=len("note"))
        mark.add_column(overflow="fold")
        mark.add_row(Text(verdict, _COLOURS[verdict]), text)
        out.print(mark)
    else:
        first, *rest = text.plain.split("\n")
        for line in (f"{verdict:4}  {first}", *(f"      {line}" for line in rest)):
            out.print(Text(line))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], numbers: frozenset[str] = frozenset()) -> None:
    """A table; `numbers` are the columns that are aligned to the right, and never broken.

    Only a terminal has other cells broken to fit it.
    """
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in columns:
        number = column in numbers
        table.add_column(column, justify="right" if number else "left", overflow="fold", no_wrap=number)
    for row in rows:
        table.add_row(*map(Text, row))
    console = out if out.is_terminal else Console(width=PIPED_WIDTH)
    console.print(table)

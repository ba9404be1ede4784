"""The `vipcloud` command: the one door to everything.

The programs that `serve` is made of load no more than they need: with all commands each would carry 8 MB and 0.4 s of
CPU time more, on every start.
"""

import atexit
import gc
import importlib
import sys
from collections.abc import Iterator, Sequence

import typer

from vipcloud.cli import context

PROGRAMS = ("serve", "bookkeeper", "console", "watch", "sim")  # each a function in a module of its name
VALUED = ("--data", "--config")


def group() -> typer.Typer:
    """`vipcloud` without its commands."""
    made = typer.Typer(
        name="vipcloud",
        help="An OpenAI-compatible gateway business in one program.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
    )
    made.callback()(root)
    return made


def root(data: context.Data = None, config: context.Config = None) -> None:
    context.remember(data, config)


def run() -> None:
    atexit.register(gc.freeze)  # or all that was loaded is looked through for cycles: 0.2 s of CPU time for nothing
    name = command(sys.argv[1:])
    if name in PROGRAMS:
        app = group()
        app.command(name)(getattr(importlib.import_module(f"vipcloud.cli.{name}"), name))
    else:
        from vipcloud.cli.commands import app
    app()


def command(arguments: Sequence[str]) -> str | None:
    """The command's name; None where `arguments` name none, or ask for help."""
    words: Iterator[str] = iter(arguments)
    for word in words:
        if word in VALUED:
            next(words, None)
        elif not word.startswith(tuple(f"{option}=" for option in VALUED)):
            return None if word.startswith("-") else word
    return None

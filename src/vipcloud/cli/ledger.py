"""`vipcloud ledger`: the books, for the operator and for an auditor."""

import csv
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, TextIO

import typer
from rich.markup import escape
from sqlalchemy import Connection, Table, select

from vipcloud.accounts import store as accounts
from vipcloud.accounts.store import AccountNotFound
from vipcloud.cli import context
from vipcloud.clock import rfc3339
from vipcloud.errors import SettingsError
from vipcloud.ledger import audit, bookkeeper, rules
from vipcloud.ledger import store as ledger
from vipcloud.money import NanoUSD, format_usd
from vipcloud.storage import engine as storage
from vipcloud.storage import schema

BREAKS_SHOWN_MAX = 20
ROWS_PER_FETCH = 1000
What = Literal["transfers", "usage", "balances"]
_TABLES: dict[What, Table] = {"transfers": schema.transfer, "usage": schema.usage, "balances": schema.balance}

app = typer.Typer(no_args_is_help=True)


@app.command("verify")
@context.renders_errors
def verify(as_json: context.AsJSON = False, data: context.Data = None, config: context.Config = None) -> None:
    """Read every transfer and usage row again and compare. Exit status 1 if anything does not fit."""
    settings = context.load(data, config)
    engine = context.open_store(settings)
    told = audit.Audit()
    with storage.reading(engine) as connection:
        breaks = told.check(connection)
        below = audit.overdrawn(connection)
    breaks += [f"customer:{name}: overdrawn by ${format_usd(NanoUSD(-left))}" for name, left in below.items()]
    backlog = bookkeeper.backlog_bytes(engine, settings.journal_path)
    damaged = bookkeeper.damaged_files(engine, settings.journal_path)
    breaks += [f"journal {name}: {lost} bytes could not be read" for name, lost in damaged.items()]
    if as_json:
        context.print_json({"right": not breaks, "rows": told.rows, "backlog_bytes": backlog, "breaks": breaks})
    elif breaks:
        context.out.print(f"[bold red]The books are wrong[/] in {len(breaks)} places:")
        for found in breaks[:BREAKS_SHOWN_MAX]:
            context.out.print(f"  {escape(found)}")
    else:
        context.out.print(
            f"[green]The books are right[/]: {told.rows:,} rows read; every balance is the sum of its transfers, every "
            f"charge has its usage row. {backlog:,} bytes of the journal are not booked yet."
        )
    if breaks:
        raise typer.Exit(1)


@app.command("statement")
@context.renders_errors
def statement(
    account: Annotated[
        str, typer.Argument(help="A customer's e-mail address, or an account of the chart, such as revenue.")
    ],
    last: Annotated[int, typer.Option(min=1, help="So many transfers, the newest.")] = 50,
    as_json: context.AsJSON = False,
    data: context.Data = None,
    config: context.Config = None,
) -> None:
    """What entered and left one account, and its balance after each transfer."""
    settings = context.load(data, config)
    with storage.reading(context.open_store(settings)) as connection:
        name = ledger_account(connection, account)
        lines = ledger.statement(connection, name, last)
        left = ledger.sums_of(connection, name).balance_nanousd
    if as_json:
        shown = [
            {
                **line._asdict(),
                "amount_usd": format_usd(line.amount_nanousd),
                "balance_usd": format_usd(line.balance_nanousd),
            }
            for line in lines
        ]
        context.print_json({"account": name, "balance_usd": format_usd(left), "transfers": shown})
        return
    columns = ["time", "kind", "for", "other account", "amount_usd", "balance_usd"]
    rows = [
        [
            rfc3339(line.created_at),
            line.kind,
            line.reference,
            line.other,
            format_usd(line.amount_nanousd),
            format_usd(line.balance_nanousd),
        ]
        for line in lines
    ]
    context.print_table(columns, rows, frozenset({"amount_usd", "balance_usd"}))
    context.out.print(f"[bold]{name}[/]: ${format_usd(left)}")


@app.command("export")
@context.renders_errors
def export(
    what: Annotated[What, typer.Argument(help="transfers, usage or balances.")] = "transfers",
    form: Annotated[Literal["csv", "jsonl"], typer.Option("--format", help="csv or jsonl.")] = "csv",
    output: Annotated[
        Path | None, typer.Option("--output", help="File to write (default: standard output).", show_default=False)
    ] = None,
    after: Annotated[int, typer.Option(min=0, help="Only rows with a higher number: what is new since then.")] = 0,
    data: context.Data = None,
    config: context.Config = None,
) -> None:
    """Write a table of the books, oldest row first. Amounts are whole nano-dollars."""
    settings = context.load(data, config)
    with storage.reading(context.open_store(settings)) as connection:
        rows = exported(connection, _TABLES[what], after)
        if output is None:
            write(sys.stdout, form, _TABLES[what].columns.keys(), rows)
            return
        try:
            with output.open("w", encoding="utf-8", newline="") as file:
                write(file, form, _TABLES[what].columns.keys(), rows)
        except OSError as error:
            raise SettingsError(f"--output {output}: {error.strerror}.") from error


def ledger_account(connection: Connection, name: str) -> str:
    """The account of the chart that `name` means. Raises AccountNotFound."""
    if "@" in name and ":" not in name:
        return rules.customer(accounts.find_account(connection, name).id)
    if not rules.in_chart(name):
        raise AccountNotFound(
            f"{name} is no account of the books: name a customer's e-mail address, or revenue, cost:…"
        )
    return name


def exported(connection: Connection, table: Table, after: int) -> Iterator[tuple[Any, ...]]:
    query = select(table).order_by(*table.primary_key.columns)
    if "id" in table.columns:
        query = query.where(table.c.id > after)
    for row in connection.execution_options(yield_per=ROWS_PER_FETCH).execute(query):
        yield tuple(row)


def write(file: TextIO, form: str, names: list[str], rows: Iterator[tuple[Any, ...]]) -> None:
    if form == "jsonl":
        for row in rows:
            file.write(json.dumps(dict(zip(names, row, strict=True)), ensure_ascii=False) + "\n")
        return
    table = csv.writer(file, lineterminator="\n")
    table.writerow(names)
    table.writerows(rows)

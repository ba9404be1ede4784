"""`vipcloud promos`: codes that give credit to whoever knows them, once per account."""

from typing import Annotated

import typer

from vipcloud.billing import promos, rules
from vipcloud.billing.promos import Promo, PromoError
from vipcloud.cli import context
from vipcloud.cli.accounts import amount_of
from vipcloud.clock import rfc3339
from vipcloud.errors import SettingsError
from vipcloud.money import format_usd
from vipcloud.storage import engine as storage

app = typer.Typer(no_args_is_help=True)
Code = Annotated[str, typer.Argument(help="Letters, digits and hyphens, such as WELCOME-5; case does not matter.")]


@app.callback()
def group() -> None:
    """Codes that give credit to whoever knows them, once per account."""


@app.command("create")
@context.renders_errors
def create(
    code: Code,
    amount: Annotated[str, typer.Option(help="Dollars for each account, such as 5.")],
    max_uses: Annotated[
        int | None, typer.Option(min=1, max=10**9, help="So many accounts at most.", show_default=False)
    ] = None,
    expires: Annotated[
        str | None, typer.Option(help="From when on it gives nothing, such as 2027-01-31 (UTC).", show_default=False)
    ] = None,
    new_accounts_only: Annotated[
        bool, typer.Option(help="Only for accounts made within 30 days that used no other such code.")
    ] = False,
    data: context.Data = None,
    config: context.Config = None,
) -> None:
    """Make a code; owners use it on /credit."""
    settings = context.load(data, config)
    nanousd = amount_of(amount, "--amount")
    if not nanousd:
        raise SettingsError("--amount must be above 0.")
    until, now_s = context.moment(expires, "--expires"), context.clock.wall_s()
    made = Promo(rules.promo_code(code) or code, nanousd, max_uses, 0, until, new_accounts_only, now_s)
    try:
        with storage.writing(context.open_store(settings)) as connection:
            promos.create(connection, made)
    except PromoError as error:
        raise SettingsError(str(error)) from error
    context.out.print(f"{made.code} gives ${format_usd(nanousd)} to {_for_whom(made)}.")


@app.command("list")
@context.renders_errors
def list_(as_json: context.AsJSON = False, data: context.Data = None, config: context.Config = None) -> None:
    """List all codes, newest first, and how often each was used."""
    settings = context.load(data, config)
    with storage.reading(context.open_store(settings)) as connection:
        found = promos.list_all(connection)
    now_s = context.clock.wall_s()
    shown = [
        {
            "code": each.code,
            "amount_usd": format_usd(each.amount_nanousd),
            "uses": each.uses,
            "max_uses": each.uses_max,
            "expires_at": rfc3339(each.expires_at) if each.expires_at is not None else None,
            "new_accounts_only": each.new_accounts_only,
            "active": promos.gives(each, now_s, now_s),
        }
        for each in found
    ]
    if as_json:
        context.print_json(shown)
    elif not shown:
        context.out.print("No codes yet. Make one: vipcloud promos create WELCOME-5 --amount 5")
    else:
        rows = [["–" if value is None else str(value) for value in row.values()] for row in shown]
        context.print_table(list(shown[0]), rows, frozenset({"amount_usd", "uses", "max_uses"}))


@app.command("end")
@context.renders_errors
def end(code: Code, data: context.Data = None, config: context.Config = None) -> None:
    """Have a code give nothing from now on; what it gave stays."""
    settings = context.load(data, config)
    try:
        with storage.writing(context.open_store(settings)) as connection:
            ended = promos.end(connection, code.strip().upper(), context.clock.wall_s())
    except PromoError as error:
        raise SettingsError(str(error)) from error
    context.out.print(f"{ended.code} has ended; {ended.uses} accounts used it.")


def _for_whom(promo: Promo) -> str:
    who = "each new account" if promo.new_accounts_only else "each account"
    most = f", {promo.uses_max} at most" if promo.uses_max is not None else ""
    until = f", until {rfc3339(promo.expires_at)}" if promo.expires_at is not None else ""
    return f"{who}{most}{until}"

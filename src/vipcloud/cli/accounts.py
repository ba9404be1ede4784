"""`vipcloud accounts`: the operator's hand on customers."""

import secrets
from typing import Annotated

import msgspec
import typer
from rich.markup import escape
from sqlalchemy import Connection

from vipcloud.accounts import operators, store
from vipcloud.accounts.store import AccountRow
from vipcloud.cli import context
from vipcloud.clock import rfc3339
from vipcloud.errors import SettingsError
from vipcloud.ledger import store as ledger
from vipcloud.limits.caps import Caps
from vipcloud.money import NanoUSD, format_usd, parse_usd
from vipcloud.settings import Settings
from vipcloud.storage import engine as storage

app = typer.Typer(no_args_is_help=True)

Email = Annotated[str, typer.Argument(help="The account's e-mail address.")]
OwnLimit = Annotated[
    str | None, typer.Option(show_default=False, help="A number, 0 for no limit, or `tier` for the tier's.")
]
Cap = Annotated[str | None, typer.Option(show_default=False, help="Dollars, such as 25.00, or `none`.")]
Limit = Annotated[int | None, typer.Option(min=0, show_default=False, help="Instead of the tier's; 0 is no limit.")]


@app.command("create")
@context.renders_errors
def create(
    email: Email,
    tier: Annotated[str, typer.Option(help="A tier of the settings.")] = "payg",
    credit: Annotated[
        str | None,
        typer.Option(help="Dollars to begin with (default: accounts.starter_credit_usd, 5.00).", show_default=False),
    ] = None,
    rpm: Limit = None,
    rpd: Limit = None,
    concurrency: Limit = None,
    as_json: context.AsJSON = False,
    data: context.Data = None,
    config: context.Config = None,
) -> None:
    """Create an account, with credit."""
    settings = context.load(data, config)
    if tier not in settings.tiers:
        raise SettingsError(f"--tier {tier}: the tiers are {', '.join(settings.tiers)}.")
    amount = amount_of(settings.accounts.starter_credit_usd if credit is None else credit, "--credit")
    now_s = context.clock.wall_s()
    with storage.writing(context.open_store(settings)) as connection:
        row = store.create_account(
            connection, email, now_s, context.random_bytes, tier=tier, rpm=rpm, rpd=rpd, concurrency=concurrency
        )
        if amount:
            ledger.grant(connection, secrets.token_hex(8), row.id, amount, now_s, "starter")
        shown = describe(connection, row, settings)
    if as_json:
        context.print_json(shown)
    else:
        context.out.print(f"Created the account [bold]{row.email}[/] ({tier}) with ${format_usd(amount)} credit.")
        context.out.print(f"Next: vipcloud keys create --account {row.email}")


@app.command("list")
@context.renders_errors
def list_(as_json: context.AsJSON = False, data: context.Data = None, config: context.Config = None) -> None:
    """List all accounts."""
    settings = context.load(data, config)
    with storage.reading(context.open_store(settings)) as connection:
        shown = [describe(connection, row, settings) for row in store.list_accounts(connection)]
    if as_json:
        context.print_json(shown)
    elif not shown:
        context.out.print("No accounts yet. Create one: vipcloud accounts create you@example.com")
    else:
        columns = ["email", "tier", "credit_usd", "spent_usd", "rpm", "rpd", "concurrency", "created_at"]
        rows = [[_text(account[column]) for column in columns] for account in shown]
        context.print_table(columns, rows, frozenset({"credit_usd", "spent_usd", "rpm", "rpd", "concurrency"}))


@app.command("show")
@context.renders_errors
def show(
    email: Email, as_json: context.AsJSON = False, data: context.Data = None, config: context.Config = None
) -> None:
    """Show one account: credit, limits, its latest requests."""
    settings = context.load(data, config)
    with storage.reading(context.open_store(settings)) as connection:
        row = store.find_account(connection, email)
        shown = describe(connection, row, settings)
        recent = ledger.recent_usage(connection, row.id)
    if as_json:
        context.print_json(shown)
        return
    for name, value in shown.items():
        context.out.print(f"[bold]{name:12}[/] {escape(_text(value))}")
    context.out.print("")
    columns = ["time", "model", "outcome", "tokens in", "tokens out", "charge_usd", "request"]
    rows = [
        [
            rfc3339(usage.started_at),
            usage.model,
            usage.outcome,
            str(usage.prompt_tokens),
            str(usage.completion_tokens),
            format_usd(NanoUSD(usage.charge_nanousd)),
            usage.request_id,
        ]
        for usage in recent
    ]
    context.print_table(columns, rows, frozenset({"tokens in", "tokens out", "charge_usd"}))


@app.command("grant")
@context.renders_errors
def grant(
    email: Email,
    amount: Annotated[str, typer.Argument(help="Dollars, such as 10.00.")],
    data: context.Data = None,
    config: context.Config = None,
) -> None:
    """Give an account credit; it counts within a second."""
    settings = context.load(data, config)
    nanousd = amount_of(amount, "AMOUNT")
    with storage.writing(context.open_store(settings)) as connection:
        row = store.find_account(connection, email)
        ledger.grant(connection, secrets.token_hex(8), row.id, nanousd, context.clock.wall_s())
        left = ledger.balance(connection, row.id)
    context.out.print(f"{row.email} now has ${format_usd(left)} credit.")


@app.command("limit")
@context.renders_errors
def limit(
    email: Email,
    tier: Annotated[str | None, typer.Option(help="A tier of the settings.", show_default=False)] = None,
    rpm: OwnLimit = None,
    rpd: OwnLimit = None,
    concurrency: OwnLimit = None,
    data: context.Data = None,
    config: context.Config = None,
) -> None:
    """Change an account's tier, or limits of its own; it counts within a second."""
    settings = context.load(data, config)
    if tier is not None and tier not in settings.tiers:
        raise SettingsError(f"--tier {tier}: the tiers are {', '.join(settings.tiers)}.")
    with storage.writing(context.open_store(settings)) as connection:
        row = store.find_account(connection, email)
        store.set_limits(
            connection,
            row.id,
            tier=tier or row.tier,
            rpm=_own(rpm, row.rpm, "--rpm"),
            rpd=_own(rpd, row.rpd, "--rpd"),
            concurrency=_own(concurrency, row.concurrency, "--concurrency"),
        )
        shown = describe(connection, store.find_account(connection, email), settings)
    context.out.print(", ".join(f"{name} {_text(shown[name])}" for name in ("tier", "rpm", "rpd", "concurrency")))


@app.command("cap")
@context.renders_errors
def cap(
    email: Email,
    daily: Cap = None,
    monthly: Cap = None,
    total: Cap = None,
    data: context.Data = None,
    config: context.Config = None,
) -> None:
    """Limit what an account may spend, whatever its credit; it counts within a second. Days and months are UTC."""
    settings = context.load(data, config)
    with storage.writing(context.open_store(settings)) as connection:
        row = store.find_account(connection, email)
        former = row.caps or Caps()
        caps = Caps(
            _cap(daily, former.daily_nanousd, "--daily"),
            _cap(monthly, former.monthly_nanousd, "--monthly"),
            _cap(total, former.total_nanousd, "--total"),
        )
        store.set_caps(connection, row.id, caps)
    context.out.print(", ".join(f"{name} {amount or 'no cap'}" for name, amount in describe_caps(caps).items()))


@app.command("suspend")
@context.renders_errors
def suspend(email: Email, data: context.Data = None, config: context.Config = None) -> None:
    """Close an account: its keys answer 403 within a second, its credit stays."""
    _set_suspended(context.load(data, config), email, suspended=True)
    context.out.print(f"{email} is closed. Open it again: vipcloud accounts reopen {email}")


@app.command("reopen")
@context.renders_errors
def reopen(email: Email, data: context.Data = None, config: context.Config = None) -> None:
    """Open an account that was suspended, or that a disputed payment had closed."""
    _set_suspended(context.load(data, config), email, suspended=False)
    context.out.print(f"{email} is open.")


def _set_suspended(settings: Settings, email: str, *, suspended: bool) -> None:
    with storage.writing(context.open_store(settings)) as connection:
        row = store.find_account(connection, email)
        change = operators.close_account if suspended else operators.reopen_account
        change(connection, row.id)


def describe_caps(caps: Caps | None) -> dict[str, str | None]:
    """Caps as commands show them: dollars, or None."""
    amounts = msgspec.structs.asdict(caps or Caps())
    return {
        f"cap_{name.removesuffix('_nanousd')}_usd": None if amount is None else format_usd(NanoUSD(amount))
        for name, amount in amounts.items()
    }


def _own(text: str | None, former: int | None, name: str) -> int | None:
    if text is None:
        return former
    if text == "tier":
        return None
    if not text.isdecimal():
        raise SettingsError(f"{name} {text}: say a number (0 is no limit), or `tier` for the tier's.")
    return int(text)


def _cap(text: str | None, former: int | None, name: str) -> int | None:
    if text is None:
        return former
    return None if text == "none" else amount_of(text, name)


def amount_of(text: str, name: str) -> NanoUSD:
    """Dollars from the command line. Raises SettingsError."""
    try:
        amount = parse_usd(text)
    except ValueError as error:
        raise SettingsError(f"{name}: {error}.") from error
    if amount < 0:
        raise SettingsError(f"{name} must not be below 0.")
    return amount


def describe(connection: Connection, row: AccountRow, settings: Settings) -> dict[str, object]:
    """An account as commands show it; its own limits, or else its tier's."""
    tier = settings.tiers.get(row.tier)
    sums = ledger.sums(connection, row.id)
    return {
        "id": row.id,
        "email": row.email,
        "tier": row.tier,
        "credit_usd": format_usd(sums.balance_nanousd),
        "spent_usd": format_usd(NanoUSD(sums.debits_nanousd)),
        "rpm": row.rpm if row.rpm is not None else tier.rpm if tier else None,
        "rpd": row.rpd if row.rpd is not None else tier.rpd if tier else None,
        "concurrency": row.concurrency if row.concurrency is not None else tier.concurrency if tier else None,
        **describe_caps(row.caps),
        "suspended": row.suspended,
        "contested": row.contested,
        "created_at": rfc3339(row.created_at),
    }


def _text(value: object) -> str:
    return "–" if value is None else "no limit" if value == 0 and not isinstance(value, bool) else str(value)

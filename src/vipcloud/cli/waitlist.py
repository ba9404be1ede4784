"""`vipcloud waitlist`: who asks for a key, and the answer."""

from typing import Annotated

import typer

from vipcloud.accounts import admission, people
from vipcloud.cli import context
from vipcloud.errors import SettingsError
from vipcloud.money import parse_usd
from vipcloud.settings import Settings
from vipcloud.storage import engine as storage

app = typer.Typer(no_args_is_help=True)
Email = Annotated[str, typer.Argument(metavar="EMAIL", help="The address that waits.")]


@app.command("list")
@context.renders_errors
def list_(
    everyone: Annotated[bool, typer.Option("--all", help="Also who is decided on, or has not confirmed.")] = False,
    as_json: context.AsJSON = False,
    data: context.Data = None,
    config: context.Config = None,
) -> None:
    """Who waits, the longest first."""
    settings = context.load(data, config)
    with storage.reading(context.open_store(settings)) as connection:
        found = people.list_waiting(connection, None if everyone else "waiting")
    if as_json:
        context.print_json([row._asdict() for row in found])
        return
    if not found:
        context.out.print("Nobody waits.")
        return
    now_s = context.clock.wall_s()
    rows = [(row.email, row.status, f"{(now_s - row.created_at) / 3600:.1f} h") for row in found]
    context.print_table(("EMAIL", "STATUS", "SINCE"), rows, frozenset({"SINCE"}))


@app.command()
@context.renders_errors
def approve(
    email: Email,
    tier: Annotated[str, typer.Option(help="Tier of the new account.")] = "payg",
    credit: Annotated[
        str | None, typer.Option(help="Credit in US dollars (default: console.welcome_credit_usd).", show_default=False)
    ] = None,
    data: context.Data = None,
    config: context.Config = None,
) -> None:
    """Open an account for EMAIL and mail the link that shows its first key."""
    settings = context.load(data, config)
    if tier not in settings.tiers:
        raise SettingsError(f"--tier: {tier} is no tier; there are {', '.join(settings.tiers)}.")
    try:
        given = parse_usd(credit) if credit is not None else None
    except ValueError as error:
        raise SettingsError(f"--credit: {error}.") from error
    with storage.writing(context.open_store(settings)) as connection:
        account = admission.approve(
            connection,
            email,
            context.clock.wall_s(),
            context.random_bytes,
            settings,
            public_url(settings),
            tier=tier,
            credit=given,
        )
    context.out.print(f"{account.email} has an account ({account.id}); the link to its first key is being mailed.")


@app.command()
@context.renders_errors
def reject(email: Email, data: context.Data = None, config: context.Config = None) -> None:
    """Say no to EMAIL, by mail."""
    settings = context.load(data, config)
    with storage.writing(context.open_store(settings)) as connection:
        admission.reject(connection, email, context.clock.wall_s())
    context.out.print(f"{email} is told that there is no key at present.")


def public_url(settings: Settings) -> str:
    """Where links in mails lead."""
    if settings.console.public_url:
        return settings.console.public_url
    return f"http://{settings.server.host}:{settings.server.port}"

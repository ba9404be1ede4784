"""`vipcloud payments`: card payments, compared with what Stripe has."""

from typing import Annotated

import typer
from rich.markup import escape

from vipcloud.billing import rules
from vipcloud.billing import store as billing
from vipcloud.billing.payments import Payments, PaymentsError
from vipcloud.cli import context
from vipcloud.errors import SettingsError
from vipcloud.storage import engine as storage

DAY_S = 86_400.0

app = typer.Typer(no_args_is_help=True)


@app.callback()
def group() -> None:
    """Card payments, compared with what Stripe has."""


@app.command("reconcile")
@context.told
def reconcile(
    days: Annotated[int, typer.Option(min=1, max=400, help="How far back.")] = 30,
    data: context.Data = None,
    config: context.Config = None,
) -> None:
    """Compare our top-ups with Stripe's sessions. Exit status 1 if they differ."""
    settings = context.load(data, config)
    if not settings.payments.stripe_key.reveal():
        raise SettingsError("payments.stripe_key is not set: there is nothing to compare with.")
    since_s = context.clock.wall_s() - days * DAY_S
    try:
        sessions = list(Payments(settings.payments).sessions(since_s))
    except PaymentsError as error:
        raise SettingsError(f"Stripe does not answer as it should: {error}") from error
    with storage.reading(context.open_store(settings)) as connection:
        ours = billing.since(connection, since_s)
    found = rules.differences(ours, sessions)
    for each in found:
        context.out.print(escape(each))
    context.out.print(f"{len(ours)} top-ups, {len(sessions)} sessions at Stripe, {len(found)} differences.")
    if found:
        raise typer.Exit(1)

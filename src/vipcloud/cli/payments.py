"""`vipcloud payments`: card payments, refunds, and both compared with what Stripe has."""

import time
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from sqlalchemy import Connection, Engine

from vipcloud.accounts import store as accounts
from vipcloud.billing import rules, withdrawals
from vipcloud.billing import store as billing
from vipcloud.billing.rules import Topup
from vipcloud.billing.withdrawals import Withdrawal
from vipcloud.cli import context
from vipcloud.cli.accounts import amount_of
from vipcloud.clock import rfc3339
from vipcloud.errors import SettingsError
from vipcloud.ledger import store as ledger
from vipcloud.money import format_usd
from vipcloud.settings import Settings
from vipcloud.storage import engine as storage

if TYPE_CHECKING:  # every command reads this module, and the gateway too: Stripe's library is loaded where it is used
    from vipcloud.billing.payments import Payments

DAY_S = 86_400.0
GATEWAY_WAIT_S = 20.0
LOOK_S = 0.1

app = typer.Typer(no_args_is_help=True)


@app.callback()
def group() -> None:
    """Card payments: list, refund, compare with Stripe."""


Target = Annotated[str, typer.Argument(help="A receipt's number (VC-2026-000412), or an account's e-mail address.")]


@app.command("list")
@context.renders_errors
def list_(
    account: Annotated[str | None, typer.Argument(help="Only this account's; its e-mail address.")] = None,
    days: Annotated[int, typer.Option(min=1, max=4000, help="How far back.")] = 30,
    as_json: context.AsJSON = False,
    data: context.Data = None,
    config: context.Config = None,
) -> None:
    """List payments and what went back of them, oldest first."""
    settings = context.load(data, config)
    since_s = context.clock.wall_s() - days * DAY_S
    with storage.reading(context.open_store(settings)) as connection:
        emails = {row.id: row.email for row in accounts.list_accounts(connection)}
        only = accounts.find_account(connection, account).id if account is not None else None
        topups = [each for each in billing.since(connection, since_s) if only in (None, each.account_id)]
        shown = [_described(topup, emails, withdrawals.of_topup(connection, topup.id)) for topup in topups]
    if as_json:
        context.print_json(shown)
    elif not shown:
        context.out.print("No payments yet.")
    else:
        columns = ["created_at", "account", "receipt", "amount_usd", "state", "refunded_usd", "note"]
        rows = [[str(each[column] or "") for column in columns] for each in shown]
        context.print_table(columns, rows, frozenset({"amount_usd", "refunded_usd"}))


def _described(topup: Topup, emails: dict[str, str], back: list[Withdrawal]) -> dict[str, str | None]:
    refunded = sum(each.amount_cents for each in back if each.kind == "refund" and each.state in withdrawals.LIVE)
    notes = [
        f"dispute {topup.dispute}" if topup.dispute else "",
        "charged by itself" if topup.charged_to else "",
        f"a second payment for {topup.again_of}" if topup.again_of else "",
        topup.reason or "",
        *(f"refund {each.state}: {each.reason}" for each in back if each.reason),
    ]
    return {
        "id": topup.id,
        "created_at": rfc3339(topup.created_at),
        "account": emails.get(topup.account_id, topup.account_id),
        "receipt": billing.number(topup) if topup.state == "added" else None,
        "amount_usd": rules.usd(topup.amount_cents)[1:],
        "state": topup.state,
        "refunded_usd": rules.usd(refunded)[1:] if refunded else None,
        "note": "; ".join(filter(None, notes)) or None,
    }


@app.command("refund")
@context.renders_errors
def refund(
    target: Target,
    amount: Annotated[
        str | None, typer.Option(help="Dollars, such as 12.50 (default: all that is unused).", show_default=False)
    ] = None,
    data: context.Data = None,
    config: context.Config = None,
) -> None:
    """Send unused credit back to the card that paid for it: of one payment, or of an account's, newest first.

    Never more than is unused of what was paid and not held by running requests; a gateway must be running, for it
    knows of those. Killed midway it is finished by the console, or by asking again.
    """
    from vipcloud.billing import refunds

    settings = context.load(data, config)
    stripe, engine = _stripe(settings), context.open_store(settings)
    wanted = None if amount is None else _cents(amount)
    with storage.writing(engine) as connection:
        topups = _topups(connection, target)
        begun = [
            each
            for each in withdrawals.of_account(connection, topups[0].account_id)
            if each.state in ("asked", "taken") and each.kind == "refund" and each.provider_id is None
        ]
        if begun:
            context.note("Under way:", "a refund that was begun before is finished first; ask again for another.")
        else:
            free = max(0, ledger.balance(connection, topups[0].account_id)) // rules.NANO_PER_CENT
            try:
                parts = refunds.plan(connection, topups, free, wanted)
            except ValueError as error:
                raise SettingsError(f"{target}: {error}.") from error
            now_s = context.clock.wall_s()
            for part in parts:
                name = accounts.new_id("wd", context.random_bytes)
                begun.append(refunds.ask(connection, part, name, now_s, whole=wanted is not None))
    done = [_finish(engine, stripe, each) for each in _all_taken(engine, begun)]
    if not all(each.state == "done" for each in done):
        raise typer.Exit(1)


def _finish(engine: Engine, stripe: "Payments", found: Withdrawal) -> Withdrawal:
    """See a refund to its end, and say how it ended."""
    from vipcloud.billing import refunds
    from vipcloud.billing.payments import PaymentsError

    if found.state == "taken":
        try:
            found = refunds.pursue(engine, stripe, context.clock, found)
        except PaymentsError as error:
            context.err.print(f"[bold red]Error:[/] Stripe does not answer as it should: {escape(str(error))}")
            context.err.print("The credit is set aside for the refund; the console goes on trying.")
            return found
    with storage.reading(engine) as connection:
        topup = billing.find(connection, found.topup_id)
        left = ledger.balance(connection, found.account_id)
    assert topup is not None, "a withdrawal is of a payment"
    number, card = billing.number(topup), topup.card or "the card that paid"
    if found.state == "done":
        context.out.print(
            f"Refunded {rules.usd(found.amount_cents)} of {number} to {escape(card)}; "
            f"${format_usd(left)} of credit are left."
        )
    elif found.state == "failed":
        context.err.print(f"[bold red]Error:[/] {number}: {escape(found.reason or 'Stripe refused')}. Nothing changed.")
    else:
        context.err.print(f"[bold red]Error:[/] {number}: running requests hold that credit. Nothing changed.")
    return found


def _all_taken(engine: Engine, begun: list[Withdrawal]) -> list[Withdrawal]:
    """Withdrawals when the gateway has spoken. Raises SettingsError where none does; then nothing changed."""
    until_s = context.clock.monotonic_s() + GATEWAY_WAIT_S
    while any(each.state == "asked" for each in begun):
        if context.clock.monotonic_s() >= until_s:
            with storage.writing(engine) as connection:
                called_off = [withdrawals.cancel(connection, each.id, context.clock.wall_s()) for each in begun]
            if all(called_off):
                raise SettingsError("no gateway took it up: is one running on this store? Nothing changed.")
        time.sleep(LOOK_S)
        with storage.reading(engine) as connection:
            found = [withdrawals.find(connection, each.id) for each in begun]
        begun = [each for each in found if each is not None]
    return begun


def _topups(connection: Connection, target: str) -> list[Topup]:
    """The payment of a receipt, or those of an account, newest first. Raises SettingsError and AccountsError."""
    if "@" in target:
        found = billing.receipts(connection, accounts.find_account(connection, target).id)
        if not found:
            raise SettingsError(f"{target} has paid nothing; only what was paid can be refunded.")
        return found
    topup = billing.by_receipt(connection, target)
    if topup is None:
        raise SettingsError(f"{target}: no receipt has this number; `vipcloud payments list` shows them.")
    return [topup]


def _cents(amount: str) -> int:
    cents, rest = divmod(amount_of(amount, "--amount"), rules.NANO_PER_CENT)
    if rest or not cents:
        raise SettingsError("--amount must be above 0, in whole cents.")
    return cents


def _stripe(settings: Settings) -> "Payments":
    """Raises SettingsError."""
    from vipcloud.billing.payments import Payments

    if not settings.payments.stripe_key.reveal():
        raise SettingsError("payments.stripe_key is not set: Stripe cannot be asked.")
    return Payments(settings.payments)


@app.command("reconcile")
@context.renders_errors
def reconcile(
    days: Annotated[int, typer.Option(min=1, max=400, help="How far back.")] = 30,
    data: context.Data = None,
    config: context.Config = None,
) -> None:
    """Compare our top-ups and refunds with Stripe's payments and refunds. Exit status 1 if they differ."""
    from vipcloud.billing import refunds
    from vipcloud.billing.payments import PaymentsError

    settings = context.load(data, config)
    stripe = _stripe(settings)
    since_s = context.clock.wall_s() - days * DAY_S
    try:
        sessions, refunded = list(stripe.sessions(since_s)), stripe.refunds_since(since_s)
        charges = stripe.charges_since(since_s)
    except PaymentsError as error:
        raise SettingsError(f"Stripe does not answer as it should: {error}") from error
    with storage.reading(context.open_store(settings)) as connection:
        ours, back = billing.since(connection, since_s), withdrawals.since(connection, since_s)
        found = rules.differences(ours, sessions, charges)
        wrong, lost = refunds.differences(lambda payment: billing.by_payment(connection, payment), back, refunded)
    for each in lost:
        context.note("Lost:", each)
    for each in (*found, *wrong):
        context.out.print(escape(each))
    count = len(found) + len(wrong)
    context.out.print(
        f"{len(ours)} top-ups, {len(sessions)} sessions and {len(refunded)} refunds at Stripe, {count} differences."
    )
    if count:
        raise typer.Exit(1)

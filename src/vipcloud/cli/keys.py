"""`vipcloud keys`: API keys. A key is shown once, when it is made; only its hash is kept."""

from typing import Annotated

import typer

from vipcloud.accounts import store
from vipcloud.cli import context
from vipcloud.cli.accounts import amount_of, describe_caps
from vipcloud.clock import rfc3339
from vipcloud.errors import SettingsError
from vipcloud.limits.caps import Caps
from vipcloud.storage import engine as storage

app = typer.Typer(no_args_is_help=True)

ALWAYS_SHOWN = frozenset({"id", "key", "name", "account", "created_at", "revoked_at"})  # others where one has them

Cap = Annotated[str | None, typer.Option(show_default=False, help="Dollars that it may spend, such as 25.00.")]
Limit = Annotated[int | None, typer.Option(min=1, show_default=False, help="Its own, within its account's.")]
Account = Annotated[str, typer.Option("--account", help="The account's e-mail address.")]


@app.command("create")
@context.renders_errors
def create(
    account: Account,
    name: Annotated[str, typer.Option(help="What the key is for.")] = "",
    cap_daily: Cap = None,
    cap_monthly: Cap = None,
    cap_total: Cap = None,
    rpm: Limit = None,
    rpd: Limit = None,
    concurrency: Limit = None,
    expires: Annotated[
        str | None,
        typer.Option(
            help="When it ends: a date or time in UTC, such as 2027-01-31 or 2027-01-31T12:00.", show_default=False
        ),
    ] = None,
    models: Annotated[
        list[str] | None, typer.Option(help="A model that it may use; again for more.", show_default=False)
    ] = None,
    ips: Annotated[
        list[str] | None,
        typer.Option(help="An address or network from where it may be used; again for more.", show_default=False),
    ] = None,
    management: Annotated[
        bool, typer.Option("--management", help="It manages the account's other keys and runs no requests.")
    ] = False,
    as_json: context.AsJSON = False,
    data: context.Data = None,
    config: context.Config = None,
) -> None:
    """Create a key and print it, this once."""
    settings = context.load(data, config)
    known = context.load_catalog(settings).models
    for model in models or ():
        if model not in known:
            raise SettingsError(f"--models {model}: there is no such model; `vipcloud models list` lists them.")
    caps = Caps(
        *(
            None if text is None else amount_of(text, option)
            for text, option in ((cap_daily, "--cap-daily"), (cap_monthly, "--cap-monthly"), (cap_total, "--cap-total"))
        )
    )
    terms = store.KeyTerms(
        caps, rpm, rpd, concurrency, context.moment(expires, "--expires"), models or (), ips or (), management
    )
    with storage.writing(context.open_store(settings)) as connection:
        owner = store.find_account(connection, account)
        made = store.create_key(connection, owner.id, context.clock.wall_s(), context.random_bytes, name, terms)
    if as_json:
        context.print_json({"key": made.plaintext, "id": made.row.id, "account": owner.email, "name": made.row.name})
    else:
        context.out.print(made.plaintext)
        context.err.print("Keep it now: it is not shown again.")


@app.command("list")
@context.renders_errors
def list_(
    account: Annotated[str | None, typer.Option("--account", help="Only this account's.", show_default=False)] = None,
    as_json: context.AsJSON = False,
    data: context.Data = None,
    config: context.Config = None,
) -> None:
    """List keys, revoked ones included."""
    settings = context.load(data, config)
    with storage.reading(context.open_store(settings)) as connection:
        owner = store.find_account(connection, account).id if account else None
        emails = {row.id: row.email for row in store.list_accounts(connection)}
        found = store.list_keys(connection, owner)
    shown = [
        {
            "id": row.id,
            "key": row.masked,
            "name": row.name,
            "account": emails[row.account_id],
            **describe_caps(row.caps),
            "rpm": row.rpm,
            "rpd": row.rpd,
            "concurrency": row.concurrency,
            "models": row.models,
            "ips": row.networks,
            "management": row.management or None,
            "disabled": row.disabled or None,
            "created_at": rfc3339(row.created_at),
            "expires_at": rfc3339(row.expires_at) if row.expires_at is not None else None,
            "revoked_at": rfc3339(row.revoked_at) if row.revoked_at is not None else None,
        }
        for row in found
    ]
    if as_json:
        context.print_json(shown)
    elif not shown:
        context.out.print("No keys yet. Create one: vipcloud keys create --account you@example.com")
    else:
        columns = [name for name in shown[0] if name in ALWAYS_SHOWN or any(row[name] is not None for row in shown)]
        context.print_table(columns, [[str(row[name] or "–") for name in columns] for row in shown])


@app.command("revoke")
@context.renders_errors
def revoke(
    key: Annotated[str, typer.Argument(help="The key, its id, or its masked form as listed.")],
    as_json: context.AsJSON = False,
    data: context.Data = None,
    config: context.Config = None,
) -> None:
    """Revoke a key; a running gateway refuses it within a second."""
    settings = context.load(data, config)
    with storage.writing(context.open_store(settings)) as connection:
        row = store.revoke_key(connection, key, context.clock.wall_s())
    if as_json:
        context.print_json({"id": row.id, "key": row.masked, "revoked_at": rfc3339(row.revoked_at or 0)})
    else:
        context.out.print(f"Revoked {row.masked} ({row.id}).")

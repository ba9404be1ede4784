"""`vipcloud keys`: API keys. A key is shown once, when it is made; only its hash is kept."""

from typing import Annotated

import typer

from vipcloud.accounts import store
from vipcloud.cli import context
from vipcloud.clock import rfc3339
from vipcloud.storage import engine as storage

app = typer.Typer(no_args_is_help=True)

Account = Annotated[str, typer.Option("--account", help="The account's e-mail address.")]


@app.command("create")
@context.told
def create(
    account: Account,
    name: Annotated[str, typer.Option(help="What the key is for.")] = "",
    as_json: context.AsJSON = False,
    data: context.Data = None,
    config: context.Config = None,
) -> None:
    """Create a key and print it, this once."""
    settings = context.load(data, config)
    with storage.writing(context.open_store(settings)) as connection:
        owner = store.find_account(connection, account)
        made = store.create_key(connection, owner.id, context.clock.wall_s(), context.random_bytes, name)
    if as_json:
        context.print_json({"key": made.plaintext, "id": made.row.id, "account": owner.email, "name": made.row.name})
    else:
        context.out.print(made.plaintext)
        context.err.print("Keep it now: it is not shown again.")


@app.command("list")
@context.told
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
            "created_at": rfc3339(row.created_at),
            "revoked_at": rfc3339(row.revoked_at) if row.revoked_at is not None else None,
        }
        for row in found
    ]
    if as_json:
        context.print_json(shown)
    elif not shown:
        context.out.print("No keys yet. Create one: vipcloud keys create --account you@example.com")
    else:
        context.print_table(list(shown[0]), [[str(value or "–") for value in row.values()] for row in shown])


@app.command("revoke")
@context.told
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

"""`vipcloud people`: who may sign in, and who of them runs the house."""

from typing import Annotated

import typer

from vipcloud.accounts import operators, people, store
from vipcloud.cli import context
from vipcloud.storage import engine as storage

app = typer.Typer(no_args_is_help=True)


@app.command("list")
@context.renders_errors
def list_(as_json: context.AsJSON = False, data: context.Data = None, config: context.Config = None) -> None:
    """Everybody who may sign in, by account."""
    settings = context.load(data, config)
    with storage.reading(context.open_store(settings)) as connection:
        admins = {member.id for member in operators.list_operators(connection)}
        found = [
            {"email": member.email, "account": account.email, "role": member.role, "operator": member.id in admins}
            for account in store.list_accounts(connection)
            for member in people.list_members(connection, account.id)
        ]
    if as_json:
        context.print_json(found)
        return
    rows = [
        [str(row["email"]), str(row["account"]), str(row["role"]), "yes" if row["operator"] else "–"] for row in found
    ]
    context.print_table(["email", "account", "role", "operator"], rows)


@app.command()
@context.renders_errors
def admin(
    email: Annotated[str, typer.Argument(metavar="EMAIL", help="The address that they sign in with.")],
    remove: Annotated[bool, typer.Option("--remove", help="They are to be an operator no more.")] = False,
    data: context.Data = None,
    config: context.Config = None,
) -> None:
    """Make somebody an operator: they see the pages at /admin. For everybody else these pages do not exist."""
    settings = context.load(data, config)
    now_s = context.clock.wall_s()
    with storage.writing(context.open_store(settings)) as connection:
        member = (operators.dismiss if remove else operators.appoint)(connection, email, now_s)
    context.out.print(f"{member.email} is {'no operator any more' if remove else 'an operator'}.")

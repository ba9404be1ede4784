"""`vipcloud incidents`: what the operator tells people on the status page."""

from typing import Annotated

import msgspec
import typer
from sqlalchemy import Connection

from vipcloud.accounts import operators
from vipcloud.cli import context
from vipcloud.clock import rfc3339
from vipcloud.status import rules, store
from vipcloud.status.report import Incident
from vipcloud.storage import engine as storage

app = typer.Typer(no_args_is_help=True)

Number = Annotated[int, typer.Argument(metavar="NUMBER", help="As `list` shows it.")]
Message = Annotated[
    str, typer.Argument(metavar="MESSAGE", help="What is known: what, who feels it, is anyone charged.")
]


@app.command("open")
@context.renders_errors
def open_(
    title: Annotated[str, typer.Argument(metavar="TITLE", help="What happens, in a few words.")],
    message: Message,
    severity: Annotated[
        str, typer.Option(help="`notice`, `disturbance` or `outage`; the last two are the page's headline.")
    ] = "disturbance",
    affects: Annotated[
        list[str] | None,
        typer.Option(help="A model, a provider, gateway, website or books; may be given again.", show_default=False),
    ] = None,
    data: context.Data = None,
    config: context.Config = None,
) -> None:
    """Open an incident; the status page has it within a minute."""
    settings = context.load(data, config)
    known = rules.components(context.load_catalog(settings))
    now_s = context.clock.wall_s()
    with storage.writing(context.open_store(settings)) as connection:
        made = store.open_incident(connection, title, severity, affects or [], message, now_s, known=known)
        _note(connection, "incident opened", made, now_s)
    context.out.print(f"Incident {made.id} is open. `vipcloud incidents resolve {made.id} MESSAGE` ends it.")


@app.command()
@context.renders_errors
def update(number: Number, message: Message, data: context.Data = None, config: context.Config = None) -> None:
    """Say something more of an open incident."""
    settings = context.load(data, config)
    now_s = context.clock.wall_s()
    with storage.writing(context.open_store(settings)) as connection:
        _note(connection, "incident updated", store.update_incident(connection, number, message, now_s), now_s)
    context.out.print(f"Incident {number} has the update.")


@app.command()
@context.renders_errors
def resolve(number: Number, message: Message, data: context.Data = None, config: context.Config = None) -> None:
    """Say how an incident ended. It stays on the page for 90 days."""
    settings = context.load(data, config)
    now_s = context.clock.wall_s()
    with storage.writing(context.open_store(settings)) as connection:
        _note(connection, "incident resolved", store.resolve_incident(connection, number, message, now_s), now_s)
    context.out.print(f"Incident {number} is resolved.")


@app.command("list")
@context.renders_errors
def list_(as_json: context.AsJSON = False, data: context.Data = None, config: context.Config = None) -> None:
    """All incidents, the newest first."""
    settings = context.load(data, config)
    with storage.reading(context.open_store(settings)) as connection:
        found = store.incidents(connection)
    if as_json:
        context.print_json([msgspec.to_builtins(incident) for incident in found])
    elif not found:
        context.out.print("There were none.")
    else:
        rows = [
            [
                str(incident.id),
                "open" if incident.resolved_at is None else rfc3339(incident.resolved_at),
                incident.severity,
                rfc3339(incident.opened_at),
                ", ".join(incident.affects) or "everything",
                incident.title,
            ]
            for incident in found
        ]
        context.print_table(
            ["number", "resolved", "severity", "opened", "affects", "title"], rows, frozenset({"number"})
        )


def _note(connection: Connection, action: str, incident: Incident, now_s: float) -> None:
    said = incident.updates[-1].message
    operators.note(connection, operators.COMMAND_LINE, action, f"incident {incident.id}", now_s, after=said)

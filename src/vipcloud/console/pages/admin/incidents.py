"""`/admin/incidents`: tell people what happens."""

from typing import Any

from litestar import Response, get, post
from litestar.params import FromPath
from litestar.types import ControllerRouterHandler
from sqlalchemy import Connection

from vipcloud.accounts.people import Visitor
from vipcloud.console.pages import status
from vipcloud.console.pages.admin.desk import Context, Desk, Refused
from vipcloud.console.parts import threaded
from vipcloud.console.visits import AnyRequest
from vipcloud.status import rules, store

AFFECTS = "affects:"  # a tick per component


def handlers(desk: Desk) -> list[ControllerRouterHandler]:
    parts = desk.parts

    def show(connection: Connection) -> Context:
        found = store.incidents(connection)
        return {
            "open": [each for each in found if each.resolved_at is None],
            "past": [each for each in found if each.resolved_at is not None],
            "severities": status.SEVERITIES,
            "affected": rules.components(parts.catalog),
        }

    @get("/admin/incidents")
    @threaded
    def page(request: AnyRequest) -> Response[Any]:
        return desk.page(request, "incidents", show)

    @post("/admin/incidents")
    async def begin(request: AnyRequest) -> Response[Any]:
        def act(connection: Connection, visitor: Visitor, fields: dict[str, str]) -> None:
            made = store.open_incident(
                connection,
                fields.get("title", ""),
                fields.get("severity", ""),
                [name.removeprefix(AFFECTS) for name in fields if name.startswith(AFFECTS)],
                fields.get("message", ""),
                parts.clock.wall_s(),
                known=rules.components(parts.catalog),
            )
            desk.note(
                connection, visitor, "incident opened", f"incident {made.id}", after=f"{made.severity}: {made.title}"
            )

        return await desk.act(request, act, "/admin/incidents", "incidents", show)

    @post("/admin/incidents/{number:int}")
    async def go_on(request: AnyRequest, number: FromPath[int]) -> Response[Any]:
        def act(connection: Connection, visitor: Visitor, fields: dict[str, str]) -> None:
            message, now_s = fields.get("message", ""), parts.clock.wall_s()
            match fields.get("action"):
                case "update":
                    store.update_incident(connection, number, message, now_s)
                    desk.note(connection, visitor, "incident updated", f"incident {number}", after=message.strip())
                case "resolve":
                    store.resolve_incident(connection, number, message, now_s)
                    desk.note(connection, visitor, "incident resolved", f"incident {number}", after=message.strip())
                case _:
                    raise Refused("An incident can be updated or resolved. Nothing was changed.")

        return await desk.act(request, act, "/admin/incidents", "incidents", show)

    return [page, begin, go_on]

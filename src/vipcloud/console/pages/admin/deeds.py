"""`/admin/audit`: who did what. Nothing of it can be changed."""

from typing import Any
from urllib.parse import urlencode

from litestar import Response, get
from litestar.types import ControllerRouterHandler
from sqlalchemy import Connection

from vipcloud.accounts import operators
from vipcloud.clock import rfc3339
from vipcloud.console import sheets
from vipcloud.console.pages.admin.desk import Context, Desk
from vipcloud.console.parts import threaded
from vipcloud.console.visits import AnyRequest
from vipcloud.storage import engine as storage

LINES = 50
PAGES_MAX = 10_000
COLUMNS = ("time_utc", "person", "action", "object", "before", "after")


def handlers(desk: Desk) -> list[ControllerRouterHandler]:
    def asked(request: AnyRequest) -> dict[str, str]:
        return {name: request.query_params.get(name, "").strip()[:200] for name in ("person", "object")}

    @get("/admin/audit")
    @threaded
    def page(request: AnyRequest) -> Response[Any]:
        filters, number = asked(request), request.query_params.get("page", "1")
        at = min(int(number), PAGES_MAX) if number.isdecimal() and len(number) < 6 and int(number) else 1

        def show(connection: Connection) -> Context:
            found = operators.deeds(
                connection,
                person=filters["person"],
                object_=filters["object"],
                skip=(at - 1) * LINES,
                most=LINES + 1,
            )
            return {
                "deeds": found[:LINES],
                "asked": filters,
                "at": at,
                "older": len(found) > LINES,
                "query": urlencode(filters),
            }

        return desk.page(request, "audit", show)

    @get("/admin/audit.csv")
    @threaded
    def export(request: AnyRequest) -> Response[Any]:
        filters = asked(request)
        with storage.reading(desk.parts.engine) as connection:
            desk.operator(request, connection)
            found = operators.deeds(connection, person=filters["person"], object_=filters["object"], most=None)
        rows = [[rfc3339(deed.at), *map(sheets.text, deed[2:])] for deed in found]
        return Response(
            sheets.encode([list(COLUMNS), *rows]),
            media_type="text/csv; charset=utf-8",
            headers={"content-disposition": 'attachment; filename="audit.csv"', "cache-control": "no-store"},
        )

    return [page, export]

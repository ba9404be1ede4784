"""`/admin`: is anything on fire."""

from typing import Any

import msgspec
from litestar import Response, get
from litestar.types import ControllerRouterHandler
from sqlalchemy import Connection

from vipcloud.accounts import people
from vipcloud.billing import store as billing
from vipcloud.billing.rules import NANO_PER_CENT
from vipcloud.console.pages import status as status_page
from vipcloud.console.pages.admin import books, margin, upstreams, waitlist
from vipcloud.console.pages.admin.desk import Context, Desk
from vipcloud.console.parts import threaded
from vipcloud.console.visits import AnyRequest
from vipcloud.ledger import bookkeeper, reports
from vipcloud.status import files, store
from vipcloud.status.report import FRESH_S, Report


def handlers(desk: Desk) -> list[ControllerRouterHandler]:
    parts = desk.parts

    def show(connection: Connection) -> Context:
        now_s = parts.clock.wall_s()
        today = int(now_s // reports.DAY_S)
        rows = upstreams.rows(desk, connection)
        earned = margin.total(reports.earned(connection, today, "model"))
        told = bookkeeper.status(parts.settings.journal_path)
        waiting = people.list_waiting(connection, "waiting")
        return {
            "incidents": store.incidents(connection, now_s),
            "severities": status_page.SEVERITIES,
            "upstreams": rows,
            "ill": [row for row in rows or [] if row.state != "serving"],
            "shapes": upstreams.SHAPES,
            "sold": billing.added_cents(connection, today * reports.DAY_S) * NANO_PER_CENT,
            "earned": earned,
            "earned_percent": margin.percent(earned),
            "told": told,
            "lag_s": None if told is None else now_s - told.booked_until,
            "late_s": books.LATE_S,
            "late": [row for row in waiting if now_s - (row.confirmed_at or row.created_at) > waitlist.LATE_S],
            "report": newest(desk, now_s),
            "states": status_page.STATES,
        }

    @get("/admin")
    @threaded
    def page(request: AnyRequest) -> Response[Any]:
        return desk.page(request, "overview", show)

    return [page]


def newest(desk: Desk, now_s: float) -> Report | None:
    """What the status page says, while that is fresh."""
    try:
        data = (files.folder(desk.parts.settings.data_path) / files.JSON).read_bytes()
        report = msgspec.json.decode(data, type=Report)
    except (OSError, msgspec.DecodeError):
        return None
    return report if now_s - report.checked_at <= FRESH_S else None

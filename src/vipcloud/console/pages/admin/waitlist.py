"""`/admin/waitlist`: who waits how long, and the answer."""

from typing import Any

from litestar import Response, get, post
from litestar.types import ControllerRouterHandler
from sqlalchemy import Connection

from vipcloud.accounts import admission, people
from vipcloud.accounts.people import Visitor
from vipcloud.console.pages.admin.desk import Context, Desk, Refused
from vipcloud.console.parts import threaded
from vipcloud.console.visits import AnyRequest
from vipcloud.money import format_usd, parse_usd

LATE_S = 20 * 3600  # a key within 24 hours is what the home page says
DECIDED_MAX = 20


def handlers(desk: Desk) -> list[ControllerRouterHandler]:
    parts = desk.parts

    def show(connection: Connection) -> Context:
        decided = [row for row in people.list_waiting(connection) if row.decided_at is not None]
        return {
            "rows": people.list_waiting(connection, "waiting"),
            "decided": sorted(decided, key=lambda row: row.decided_at or 0, reverse=True)[:DECIDED_MAX],
            "late_s": LATE_S,
            "tiers": list(parts.settings.tiers),
            "credit": parts.settings.console.welcome_credit_usd,
        }

    def decide(connection: Connection, visitor: Visitor, fields: dict[str, str]) -> None:
        email, now_s = fields.get("email", "").strip(), parts.clock.wall_s()
        match fields.get("action"):
            case "approve":
                tier = fields.get("tier", "payg")
                if tier not in parts.settings.tiers:
                    raise Refused(f"The tiers are {', '.join(parts.settings.tiers)}. Nothing was decided.")
                try:
                    credit = parse_usd(fields.get("credit", "").strip().removeprefix("$"))
                except ValueError as error:
                    raise Refused(f"The credit: {error}. Nothing was decided.") from error
                if credit < 0:
                    raise Refused("The credit must not be below 0. Nothing was decided.")
                admission.approve(
                    connection,
                    email,
                    now_s,
                    parts.random_bytes,
                    parts.settings,
                    parts.public_url,
                    tier=tier,
                    credit=credit,
                )
                desk.note(connection, visitor, "approved", email, after=f"{tier}, ${format_usd(credit)}")
            case "reject":
                admission.reject(connection, email, now_s)
                desk.note(connection, visitor, "rejected", email)
            case _:
                raise Refused("Who waits can be approved or rejected. Nothing was decided.")

    @get("/admin/waitlist")
    @threaded
    def page(request: AnyRequest) -> Response[Any]:
        return desk.page(request, "waitlist", show)

    @post("/admin/waitlist")
    async def change(request: AnyRequest) -> Response[Any]:
        return await desk.act(request, decide, "/admin/waitlist", "waitlist", show)

    return [page, change]

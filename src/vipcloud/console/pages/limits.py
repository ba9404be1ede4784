"""`/limits`: what the account may do, and how close it is."""

from typing import Any

from litestar import Response, get
from litestar.types import ControllerRouterHandler

from vipcloud.console import visits
from vipcloud.console.pages import catalogue, shell
from vipcloud.console.parts import Parts, threaded
from vipcloud.console.render import Renderer
from vipcloud.console.visits import AnyRequest
from vipcloud.ledger import reports
from vipcloud.storage import engine as storage

WINDOW_S = 60


def handlers(parts: Parts, renderer: Renderer) -> list[ControllerRouterHandler]:
    @get("/limits")
    @threaded
    def limits(request: AnyRequest) -> Response[Any]:
        now_s = parts.clock.wall_s()
        with storage.reading(parts.engine) as connection:
            visitor = visits.visitor(request, connection, parts)
            account = visitor.account
            minute = reports.Filter(account.id, now_s - WINDOW_S, now_s + 1)
            day = minute._replace(since_s=now_s - now_s % reports.DAY_S)
            tier = parts.settings.tiers.get(account.tier) or parts.settings.tiers["payg"]
            rows = [
                ("Requests in any 60 seconds", tier.rpm if account.rpm is None else account.rpm, minute),
                ("Requests a day, UTC", tier.rpd if account.rpd is None else account.rpd, day),
            ]
            context = {
                **shell.context(request, connection, visitor, "limits"),
                "tier": catalogue.TIER_NAMES.get(account.tier, account.tier),
                "rows": [(name, limit, reports.sums(connection, chosen).requests) for name, limit, chosen in rows],
                "at_once": tier.concurrency if account.concurrency is None else account.concurrency,
            }
        return renderer.page("pages/limits.html", context)

    return [limits]

"""`/credit`: what is left, and every movement of it."""

from datetime import UTC, datetime
from typing import Any

from litestar import Response, get
from litestar.types import ControllerRouterHandler

from vipcloud.accounts import store as accounts
from vipcloud.billing import rules
from vipcloud.billing import store as billing
from vipcloud.console import visits
from vipcloud.console.pages import recharge, shell, topup
from vipcloud.console.parts import Parts, threaded
from vipcloud.console.render import Renderer
from vipcloud.console.visits import AnyRequest
from vipcloud.ledger import reports
from vipcloud.ledger import store as ledger
from vipcloud.storage import engine as storage

MONTHS = 13
AMOUNTS_USD = (10, 25, 50, 100)
AMOUNT_USD = 50
KINDS = {
    "grant": "Credit given by us",
    "promo": "Promo code",
    "topup": "Paid in by card",
    "refund": "Refunded to your card",
    "refund_returned": "Refund that came back",
    "dispute": "Taken back by your bank",
}


def handlers(parts: Parts, renderer: Renderer) -> list[ControllerRouterHandler]:
    @get("/credit")
    @threaded
    def credit(request: AnyRequest) -> Response[Any]:
        months = last_months(parts.clock.wall_s())
        asked = request.query_params.get("since", "")
        since = next((month for month in months if month[0] == asked), months[0])
        with storage.reading(parts.engine) as connection:
            visitor = visits.visitor(request, connection, parts)
            paid = billing.receipts(connection, visitor.account.id)
            left = ledger.balance(connection, visitor.account.id)
            context = {
                **shell.context(request, connection, visitor, "credit"),
                "statement": reports.statement(connection, visitor.account.id, since[2]),
                "months": months,
                "since": since,
                "kinds": KINDS,
                "card_on": topup.is_on(parts),
                "payments": parts.settings.payments,
                "topup_id": accounts.new_id("top", parts.random_bytes),
                "amounts": AMOUNTS_USD,
                "chosen": AMOUNT_USD,
                "afters": [(pays, left + pays) for pays in (rules.nanousd(each * 100) for each in AMOUNTS_USD)],
                **recharge.context(parts, connection, visitor.account.id, parts.clock.wall_s()),
                "redeemed": request.query_params.get("promo") == "added",
                "receipts": [(each, billing.number(each)) for each in paid],
            }
        return renderer.page("pages/credit.html", context)

    return [credit]


def last_months(now_s: float) -> list[tuple[str, str, float]]:
    """`("2026-11", "November 2026", its first moment)`, this month first."""
    now = datetime.fromtimestamp(now_s, UTC)
    year, month = now.year, now.month
    found = []
    for _ in range(MONTHS):
        first = datetime(year, month, 1, tzinfo=UTC)
        found.append((f"{first:%Y-%m}", f"{first:%B %Y}", first.timestamp()))
        year, month = (year, month - 1) if month > 1 else (year - 1, 12)
    return found

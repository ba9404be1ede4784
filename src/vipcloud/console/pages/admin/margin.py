"""`/admin/margin`: what do we earn, by model and by customer, and what the price list leaves."""

from fractions import Fraction
from typing import Any

from litestar import Response, get
from litestar.types import ControllerRouterHandler
from sqlalchemy import Connection

from vipcloud.accounts import store
from vipcloud.console import sheets
from vipcloud.console.pages.admin.desk import Context, Desk
from vipcloud.console.parts import threaded
from vipcloud.console.visits import AnyRequest
from vipcloud.ledger import reports, rules
from vipcloud.ledger import store as ledger
from vipcloud.ledger.reports import Earned
from vipcloud.metering import margin
from vipcloud.money import format_usd
from vipcloud.providers.models import Model
from vipcloud.storage import engine as storage

PERIODS = {"1": "Today", "7": "Last 7 days", "30": "Last 30 days", "365": "Last 365 days"}
CUSTOMERS_MAX = 20
COLUMNS = ("model", "requests", "charged_usd", "cost_usd", "margin_usd")


def handlers(desk: Desk) -> list[ControllerRouterHandler]:
    parts = desk.parts

    def chosen(request: AnyRequest) -> str:
        period = request.query_params.get("days", "30")
        return period if period in PERIODS else "30"

    def since(period: str) -> int:
        return int(parts.clock.wall_s() // reports.DAY_S) - int(period) + 1

    @get("/admin/margin")
    @threaded
    def page(request: AnyRequest) -> Response[Any]:
        period = chosen(request)

        def show(connection: Connection) -> Context:
            models = reports.earned(connection, since(period), "model")
            customers = reports.earned(connection, since(period), "account")
            names = {account.id: account.email for account in store.list_accounts(connection)}
            now_s = parts.clock.wall_s()
            return {
                "period": period,
                "periods": PERIODS,
                "rows": [(row, percent(row), listed(parts.catalog.models.get(row.name), now_s)) for row in models],
                "unsold": [
                    (model.id, listed(model, now_s))
                    for model in parts.catalog.models.values()
                    if model.id not in {row.name for row in models} and model.on_sale
                ],
                "total": total(models),
                "total_percent": percent(total(models)),
                "customers": [(names.get(row.name, row.name), row, percent(row)) for row in customers[:CUSTOMERS_MAX]],
                "more": max(0, len(customers) - CUSTOMERS_MAX),
                "variance": ledger.sums_of(connection, rules.VARIANCE).balance_nanousd,
                "aborted": ledger.sums_of(connection, rules.ABORTED_ATTEMPTS).balance_nanousd,
            }

        return desk.page(request, "margin", show)

    @get("/admin/margin.csv")
    @threaded
    def export(request: AnyRequest) -> Response[Any]:
        with storage.reading(parts.engine) as connection:
            desk.operator(request, connection)
            rows = reports.earned(connection, since(chosen(request)), "model")
        amounts = [
            [
                sheets.text(row.name),
                str(row.requests),
                *map(_usd, (row.charge_nanousd, row.cost_nanousd, row.margin_nanousd)),
            ]
            for row in rows
        ]
        return Response(
            sheets.encode([list(COLUMNS), *amounts]),
            media_type="text/csv; charset=utf-8",
            headers={"content-disposition": 'attachment; filename="margin.csv"', "cache-control": "no-store"},
        )

    return [page, export]


def total(rows: list[Earned]) -> Earned:
    sums = [sum(column) for column in zip(*(row[1:] for row in rows), strict=True)] or [0, 0, 0]
    return Earned("", *sums)


def percent(row: Earned) -> str:
    """Of what was charged; a dash where nothing was."""
    return _shown(Fraction(row.margin_nanousd, row.charge_nanousd) if row.charge_nanousd else None)


def listed(model: Model | None, now_s: float) -> str:
    """The least that the price list leaves at the model's first upstream; a dash where it is free or has no price."""
    if model is None or model.prices is None or not model.candidates:
        return "–"
    found = margin.lines(model.prices.version(now_s), model.candidates[0].costs.version(now_s))
    return _shown(margin.least(found))


def _shown(part: Fraction | None) -> str:
    if part is None:
        return "–"
    text = f"{float(part * 100):.1f}\N{NO-BREAK SPACE}%"
    return text.replace("-", "\N{MINUS SIGN}")


def _usd(amount: int) -> str:
    return format_usd(amount, decimals_min=9)  # type: ignore[arg-type]

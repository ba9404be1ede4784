"""`/overview`: is all well, and what does it cost."""

from datetime import UTC, datetime, timedelta
from typing import Any

from litestar import Response, get
from litestar.types import ControllerRouterHandler
from sqlalchemy import Connection

from vipcloud.accounts import store
from vipcloud.accounts.people import Visitor
from vipcloud.console import charts, visits
from vipcloud.console.pages import shell
from vipcloud.console.parts import Parts, threaded
from vipcloud.console.render import Renderer
from vipcloud.console.visits import AnyRequest
from vipcloud.ledger import reports
from vipcloud.providers.models import Catalog
from vipcloud.storage import engine as storage

DAYS = 30
PACE_DAYS = 7
GREY = 6


def handlers(parts: Parts, renderer: Renderer) -> list[ControllerRouterHandler]:
    @get("/overview")
    @threaded
    def overview(request: AnyRequest) -> Response[Any]:
        with storage.reading(parts.engine) as connection:
            visitor = visits.visitor(request, connection, parts)
            context = {
                **shell.context(request, connection, visitor, "overview"),
                **figures(parts, connection, visitor, request.query_params.get("key", "")),
            }
        return renderer.page("pages/overview.html", context)

    return [overview]


def figures(parts: Parts, connection: Connection, visitor: Visitor, key_id: str) -> dict[str, Any]:
    """The read-outs, the chart, the table below it. One selection feeds all of them."""
    now_s = parts.clock.wall_s()
    today = int(now_s // reports.DAY_S)
    keys = store.list_keys(connection, visitor.account.id)
    chosen_key = next((key for key in keys if key.id == key_id), None)
    chosen = reports.Filter(
        visitor.account.id,
        (today - DAYS + 1) * reports.DAY_S,
        (today + 1) * reports.DAY_S,
        key_id=chosen_key.id if chosen_key else None,
    )
    sums = reports.by_day(connection, visitor.account.id, today - DAYS + 1, chosen.key_id)
    models = list(parts.catalog.models)
    slots = colours(parts.catalog)
    days = []
    for day in range(today - DAYS + 1, today + 1):
        stack: dict[int, int] = {}
        for row in sums:
            if row.day == day:
                slot = slots.get(row.model, GREY)
                stack[slot] = stack.get(slot, 0) + row.charge_nanousd
        days.append((label(day), stack))
    by_model: dict[str, list[int]] = {}
    for row in sums:
        total = by_model.setdefault(row.model, [0, 0, 0])
        for place, value in enumerate((row.requests, row.failed, row.charge_nanousd)):
            total[place] += value
    full_days = chosen._replace(since_s=(today - PACE_DAYS) * reports.DAY_S, until_s=today * reports.DAY_S, key_id=None)
    pace = reports.sums(connection, full_days).charge_nanousd // PACE_DAYS
    return {
        "keys": [key for key in keys if key.revoked_at is None],
        "chosen_key": chosen_key,
        "totals": reports.sums(connection, chosen),
        "today": sum(row.charge_nanousd for row in sums if row.day == today),
        "chart": charts.stacked(days),
        "rows": [(model, slots.get(model, GREY), *by_model[model]) for model in sorted(by_model, key=_order(models))],
        "first_token": reports.first_token_ms(connection, chosen._replace(since_s=today * reports.DAY_S)),
        "failures": reports.lines(connection, chosen._replace(end="failed"), most=5),
        "pace": pace,
    }


def colours(catalog: Catalog) -> dict[str, int]:
    """A colour belongs to a model for ever: its place in the catalogue decides. Free models are grey."""
    paid = [model.id for model in catalog.models.values() if model.status != "free"]
    slots = {model: place % (GREY - 1) + 1 for place, model in enumerate(paid)}
    return {model: slots.get(model, GREY) for model in catalog.models}


def _order(models: list[str]) -> Any:
    places = {model: place for place, model in enumerate(models)}
    return lambda model: places.get(model, len(models))


def label(day: int) -> str:
    """`22 Nov` of a day since 1970."""
    at = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(days=day)
    return f"{at.day} {at:%b}"

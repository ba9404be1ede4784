"""`/models`: choose a model and know the bill."""

from typing import Any

from litestar import Request, Response, get
from litestar.types import ControllerRouterHandler

from vipcloud.console.pages import catalogue, home, settlement
from vipcloud.console.parts import Parts
from vipcloud.console.render import Renderer
from vipcloud.metering import rules as metering
from vipcloud.providers import usage as counts
from vipcloud.providers.models import Model

COUNT_MAX = 1_000_000_000
DAYS = 30


def handlers(parts: Parts, renderer: Renderer) -> list[ControllerRouterHandler]:
    @get("/models", sync_to_thread=False)
    def models(request: Request[Any, Any, Any]) -> Response[str]:
        return renderer.page("pages/models.html", context(parts, dict(request.query_params)))

    return [models]


def context(parts: Parts, query: dict[str, str]) -> dict[str, Any]:
    asked = {
        "in": count(query.get("in"), 1200),
        "out": count(query.get("out"), 350),
        "n": count(query.get("n"), 3000),
    }
    catalog, now_s = parts.catalog, parts.clock.wall_s()
    return {
        "page": "models",
        "asked": asked,
        "rows": [(catalogue.row(model, now_s), *bills(model, asked, now_s)) for model in catalog.models.values()],
        "tiers": catalogue.tiers(parts.settings.tiers),
        "settlement": settlement.ROWS,
        "demo": home.demo(parts),
    }


def count(text: str | None, default: int) -> int:
    """A number as people write it, within bounds; `default` for anything else. The page says what was taken."""
    digits = "".join(mark for mark in text or "" if mark not in ", ")
    return min(COUNT_MAX, int(digits)) if digits.isdecimal() and len(digits) < 20 else default


def bills(model: Model, asked: dict[str, int], now_s: float) -> tuple[int | None, int | None]:
    """What one such request costs, and a month of them, in nano-dollars; None without a price."""
    if model.prices is None:
        return None, None
    one = metering.cost(counts.of(asked["in"], asked["out"]), model.prices.at(now_s))
    return one, one * asked["n"] * DAYS

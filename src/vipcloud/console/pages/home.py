"""`/`: what this is, in a minute, with a model to try."""

from pathlib import Path
from typing import Any

from litestar import Response, get
from litestar.types import ControllerRouterHandler

from vipcloud.console import benchmarks, charts
from vipcloud.console.pages import catalogue, settlement
from vipcloud.console.parts import Parts
from vipcloud.console.render import Renderer
from vipcloud.metering import rules as metering
from vipcloud.money import NanoUSD
from vipcloud.providers import usage as counts
from vipcloud.settings import DemoSettings

SAMPLE_MODEL = "deepseek-chat"
SAMPLE_TOKENS = (2310, 512)


def handlers(parts: Parts, renderer: Renderer) -> list[ControllerRouterHandler]:
    @get("/", sync_to_thread=False)
    def home() -> Response[str]:
        return renderer.page("pages/home.html", context(parts))

    return [home]


def context(parts: Parts) -> dict[str, Any]:
    catalog = parts.catalog
    return {
        "page": "home",
        "models": catalogue.rows(catalog, parts.clock.wall_s()),
        "settlement": settlement.ROWS,
        "worked": worked(parts),
        "demo": demo(parts),
        "cpu": cpu(benchmarks.RESULTS),
    }


def demo(parts: Parts) -> DemoSettings | None:
    """The demo's limits; None where it is off, or its model cannot be called."""
    settings = parts.settings.demo
    model = parts.catalog.models.get(settings.model)
    return settings if settings.enabled and model is not None and model.on_sale else None


def cpu(folder: Path) -> dict[str, Any] | None:
    """The chart of CPU time, for wide and narrow windows; None where nothing was measured."""
    comparison = benchmarks.read(folder)
    if comparison is None:
        return None
    values = [cost.cpu_us for cost in comparison.costs]
    return {
        "of": comparison,
        "wide": charts.logarithmic(values, left=250, right=1130, top=37.6, step=41.2),
        "narrow": charts.logarithmic(values, left=8, right=270, top=43, step=50.4),
    }


def worked(parts: Parts) -> dict[str, Any] | None:
    """One charge, worked out by the code that charges; None while the sample's model has no price."""
    model = parts.catalog.models.get(SAMPLE_MODEL)
    if model is None or model.prices is None:
        return None
    prompt, completion = SAMPLE_TOKENS
    prices = model.prices.at(parts.clock.wall_s())
    return {
        "model": model.id,
        "prompt": prompt,
        "completion": completion,
        "input": prices.input,
        "output": prices.output,
        "input_charge": NanoUSD(metering.cost(counts.of(prompt, 0), prices)),
        "output_charge": NanoUSD(metering.cost(counts.of(0, completion), prices)),
        "charge": metering.cost(counts.of(prompt, completion), prices),
    }

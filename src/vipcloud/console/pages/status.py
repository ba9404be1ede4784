"""The status page as text: rendered once a minute by `vipcloud watch`, served by `gateway.status_page`."""

from vipcloud.console import charts, render
from vipcloud.console.render import Renderer
from vipcloud.status import rules
from vipcloud.status.files import Asset
from vipcloud.status.report import Component, Report, State

ASSETS = ("tokens.css", "base.css", "theme.js", "app.js", "mark.svg")
STATES: dict[State, tuple[str, str]] = {  # its shape, its word
    "normal": ("ok", "normal"),
    "disturbed": ("warn", "disturbed"),
    "down": ("bad", "down"),
    "unknown": ("off", "not known"),
    "off": ("off", "not offered yet"),
}
SEVERITIES = {"notice": ("off", "notice"), "disturbance": ("warn", "disturbance"), "outage": ("bad", "outage")}


def assets() -> list[Asset]:
    """What the page loads: copies of the design system's files, so that it looks right without the console."""
    return [Asset(_name(name), render.STATIC[name].data) for name in ASSETS]


def page(renderer: Renderer, report: Report, *, stale: bool = False) -> str:
    """The whole page. `stale`: as it is to be read when nothing newer came."""
    return renderer.text(
        "pages/status.html",
        {
            "page": "status",
            "report": report,
            "stale": stale,
            "state": ("off", "") if stale else STATES[report.state],
            "groups": [
                ("parts", "Ours", "Checked each minute, from the machine that it runs on", report.parts),
                ("models", "Models", "What requests for them got, whoever served them", report.models),
                (
                    "providers",
                    "Providers, as seen from here",
                    "A bad day here is often invisible to you: another upstream of the same model takes over",
                    report.providers,
                ),
            ],
            "affected": {each.id: each.name for each in (*report.parts, *report.providers, *report.models)},
            "bars": _bars,
            "states": STATES,
            "severities": SEVERITIES,
            "lost_most": rules.LOST_MOST * 100,
            "lost_bad": charts.DAY_LOST_BAD * 100,
            "requests_min": rules.REQUESTS_MIN,
            "share": share,
            "static": _address,
        },
    )


def _bars(component: Component) -> charts.DayBars:
    return charts.day_bars([day.answered for day in component.days], rules.LOST_MOST)


def share(percent: float | None) -> str:
    """`99.98 %`, with a space that does not break."""
    return "not known" if percent is None else f"{percent:.2f}\N{NO-BREAK SPACE}%"


def _name(name: str) -> str:
    return f"{render.STATIC[name].version}.{name}"


def _address(name: str) -> str:
    return f"/status/{_name(name)}"

"""`/usage`: every request as it was charged, one request worked out, and all of them as CSV."""

from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from typing import Any, NamedTuple
from urllib.parse import urlencode

from litestar import Response, get
from litestar.exceptions import NotFoundException
from litestar.params import FromPath
from litestar.response import Stream
from litestar.types import ControllerRouterHandler
from sqlalchemy import Connection

from vipcloud.accounts import store
from vipcloud.accounts.people import Visitor
from vipcloud.accounts.store import KeyRow
from vipcloud.console import sheets, visits
from vipcloud.console.pages import shell
from vipcloud.console.parts import Parts, threaded
from vipcloud.console.render import Renderer
from vipcloud.console.visits import AnyRequest
from vipcloud.ledger import reports
from vipcloud.ledger.records import Settled
from vipcloud.money import format_usd
from vipcloud.storage import engine as storage

LINES = 50
PERIODS = {
    "today": "Today",
    "yesterday": "Yesterday",
    "7d": "Last 7 days",
    "30d": "Last 30 days",
    "month": "This month",
}
ENDS = {"answered": "Answered", "cut": "Cut short", "failed": "Failed"}
CSV_COLUMNS = (
    "time_utc",
    "request_id",
    "key",
    "key_hint",
    "model",
    "ended",
    "stream",
    "prompt_tokens",
    "cached_tokens",
    "completion_tokens",
    "reasoning_tokens",
    "estimated",
    "first_token_s",
    "total_s",
    "charge_usd",
    "price_version",
    "processed_by",
)
CSV_LINES_PER_WRITE = 500


class Asked(NamedTuple):
    """The form of the page, as far as it makes sense."""

    period: str
    key: str
    model: str
    end: str
    id: str
    page: int

    def query(self, **changes: object) -> str:
        fields = {name: value for name, value in {**self._asdict(), **changes}.items() if value not in ("", 1)}
        return urlencode(fields)


def handlers(parts: Parts, renderer: Renderer) -> list[ControllerRouterHandler]:
    @get("/usage")
    @threaded
    def usage(request: AnyRequest) -> Response[Any]:
        asked = read(dict(request.query_params))
        with storage.reading(parts.engine) as connection:
            visitor = visits.visitor(request, connection, parts)
            keys = {key.id: key for key in store.list_keys(connection, visitor.account.id)}
            chosen = selection(parts, visitor, asked, keys)
            sums = reports.sums(connection, chosen)
            lines = reports.lines(connection, chosen, skip=(asked.page - 1) * LINES, most=LINES)
            context = {
                **shell.context(request, connection, visitor, "usage"),
                "asked": asked,
                "periods": PERIODS,
                "ends": ENDS,
                "models": list(parts.catalog.models),
                "keys": keys,
                "sums": sums,
                "lines": lines,
                "first": (asked.page - 1) * LINES + 1,
                "csv_query": asked._replace(page=1).query(),
            }
        return renderer.page("pages/usage.html", context)

    @get("/usage.csv")
    @threaded
    def export(request: AnyRequest) -> Response[Any]:
        asked = read(dict(request.query_params))
        with storage.reading(parts.engine) as connection:
            visitor = visits.visitor(request, connection, parts)
            keys = {key.id: key for key in store.list_keys(connection, visitor.account.id)}
        chosen = selection(parts, visitor, asked, keys)
        name = f"usage-{asked.period}.csv"
        return Stream(
            written(parts, chosen, keys),
            media_type="text/csv; charset=utf-8",
            headers={"content-disposition": f'attachment; filename="{name}"', "cache-control": "no-store"},
        )

    @get("/usage/{request_id:str}")
    @threaded
    def one(request: AnyRequest, request_id: FromPath[str]) -> Response[Any]:
        with storage.reading(parts.engine) as connection:
            visitor = visits.visitor(request, connection, parts)
            line = reports.request(connection, visitor.account.id, request_id)
            if line is None:
                raise NotFoundException
            context = {**shell.context(request, connection, visitor, "usage"), **worked(parts, connection, line)}
        return renderer.page("pages/request.html", context)

    return [usage, export, one]


def read(query: dict[str, str]) -> Asked:
    period, end = query.get("period", "today"), query.get("end", "")
    page = query.get("page", "1")
    return Asked(
        period=period if period in PERIODS else "today",
        key=query.get("key", "")[:64],
        model=query.get("model", "")[:128],
        end=end if end in ENDS else "",
        id=query.get("id", "").strip()[:64],
        page=min(100_000, max(1, int(page))) if page.isascii() and page.isdigit() and len(page) < 7 else 1,
    )


def selection(parts: Parts, visitor: Visitor, asked: Asked, keys: dict[str, KeyRow]) -> reports.Filter:
    """The requests that the form means. A request id is looked for in all of time."""
    since_s, until_s = bounds(asked.period, parts.clock.wall_s())
    if asked.id:
        since_s = 0.0
    return reports.Filter(
        visitor.account.id,
        since_s,
        until_s,
        key_id=asked.key if asked.key in keys else None,
        model=asked.model or None,
        end=asked.end or None,
        request_id=asked.id.replace("req_", "chatcmpl-", 1) or None,
    )


def bounds(period: str, now_s: float) -> tuple[float, float]:
    """From when until when, in UTC days."""
    day = int(now_s // reports.DAY_S)
    tomorrow = (day + 1) * reports.DAY_S
    if period == "month":
        now = datetime.fromtimestamp(now_s, UTC)
        return datetime(now.year, now.month, 1, tzinfo=UTC).timestamp(), tomorrow
    if period == "yesterday":
        return (day - 1) * reports.DAY_S, day * reports.DAY_S
    days = {"7d": 7, "30d": 30}.get(period, 1)
    return (day - days + 1) * reports.DAY_S, tomorrow


def worked(parts: Parts, connection: Connection, line: Settled) -> dict[str, Any]:
    """One request as its page shows it."""
    key = next((key for key in store.list_keys(connection, line.account_id) if key.id == line.key_id), None)
    model = parts.catalog.models.get(line.model)
    provider = parts.catalog.providers.get(line.provider or "")
    return {
        "line": line,
        "key": key,
        "provider": provider.name if provider is not None else line.provider,
        "price": model.prices.at(line.started_at) if model is not None and model.prices is not None else None,
    }


# --- CSV --------------------------------------------------------------------------------------------------------------


async def written(parts: Parts, chosen: reports.Filter, keys: dict[str, KeyRow]) -> AsyncIterator[bytes]:
    """The whole selection, a few hundred lines at a time."""
    yield sheets.encode([list(CSV_COLUMNS)])
    pieces = _pieces(parts, chosen, keys)
    while (piece := await parts.in_thread(next, pieces, None)) is not None:
        yield piece


def _pieces(parts: Parts, chosen: reports.Filter, keys: dict[str, KeyRow]) -> Iterator[bytes]:
    skip = 0
    while True:  # each piece in a transaction of its own: a slow reader holds none open
        with storage.reading(parts.engine) as connection:
            lines = reports.lines(connection, chosen, skip=skip, most=CSV_LINES_PER_WRITE)
        if not lines:
            return
        skip += len(lines)
        yield sheets.encode([_cells(line, keys) for line in lines])


def _cells(line: Settled, keys: dict[str, KeyRow]) -> list[str]:
    key = keys.get(line.key_id or "")
    first = "" if line.first_token_ms is None else f"{line.first_token_ms / 1000:.3f}"
    cells = [
        datetime.fromtimestamp(line.started_at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        line.request_id,
        key.name if key else "",
        key.masked if key else "",
        line.model,
        line.outcome,
        str(line.streamed).lower(),
        str(line.prompt_tokens),
        str(line.cached_tokens),
        str(line.completion_tokens),
        str(line.reasoning_tokens),
        str(line.estimated).lower(),
        first,
        f"{line.duration_ms / 1000:.3f}",
        format_usd(line.charge_nanousd, decimals_min=9),  # type: ignore[arg-type]
        line.price_version,
        line.provider or "",
    ]
    return [sheets.text(cell) for cell in cells]

"""`/admin/upstreams`: who serves, who is ill; drain and revive."""

from typing import Any, NamedTuple

from litestar import Response, get, post
from litestar.types import ControllerRouterHandler
from sqlalchemy import Connection

from vipcloud.accounts.people import Visitor
from vipcloud.console.pages.admin.desk import Context, Desk, Refused
from vipcloud.console.parts import threaded
from vipcloud.console.visits import AnyRequest
from vipcloud.ledger import availability
from vipcloud.ledger.availability import Counts
from vipcloud.status import upstreams
from vipcloud.status.upstreams import AccountState, Look

HOUR_S = 3600
SHAPES = {"serving": "ok", "drained": "off", "partly": "warn", "out": "bad"}


class Row(NamedTuple):
    """One of our accounts. `troubles` say what keeps it, or a model there, from being asked now."""

    account: AccountState
    provider: str
    state: str  # of SHAPES
    troubles: tuple[str, ...]
    look: Look | None
    last_day: Counts
    first_token_ms: int | None


def rows(desk: Desk, connection: Connection) -> list[Row] | None:
    """As the running gateway tells of them; None while none runs."""
    parts = desk.parts
    now_s = parts.clock.wall_s()
    told = upstreams.read_state(parts.settings.data_path, now_s)
    if told is None:
        return None
    looks = upstreams.read_looks(parts.settings.data_path)
    since = int(now_s // HOUR_S) - 23
    counts: dict[str, list[Counts]] = {}
    for key, found in availability.by_hour(connection, since).items():
        counts.setdefault(key.provider, []).append(found)
    times: dict[str, dict[int, int]] = {}
    for (_, provider), steps in availability.steps(connection, since, "first_token").items():
        merged = times.setdefault(provider, {})
        for step, requests in steps.items():
            merged[step] = merged.get(step, 0) + requests
    made = []
    for account in told.accounts:
        provider = account.id.partition("/")[0]
        state, troubles = judged(account)
        found_counts = counts.get(provider, [])
        total = Counts(*map(sum, zip(*found_counts, strict=True))) if found_counts else Counts()
        median = availability.quantile_ms(times.get(provider, {}), 0.5)
        name = parts.catalog.providers[provider].name if provider in parts.catalog.providers else provider
        made.append(Row(account, name, state, troubles, looks.get(account.id), total, median))
    return made


def judged(account: AccountState) -> tuple[str, tuple[str, ...]]:
    """The account's state in a word, and why."""
    if account.drained:
        return "drained", ("by an operator",)
    troubles = [f"{account.keys_refused} of its keys refused"] if account.keys_refused else []
    out = 0
    for model in account.models:
        if model.status != "active":
            out += 1
            troubles.append(f"{model.model}: {model.status}, {account.reason}")
        elif model.breaker != "closed":
            out += 1
            troubles.append(f"{model.model}: breaker {model.breaker}, next try in {model.free_in_s:g} s")
    if account.models and out == len(account.models):
        return "out", tuple(troubles)
    return ("partly", tuple(troubles)) if troubles else ("serving", ())


def handlers(desk: Desk) -> list[ControllerRouterHandler]:
    def show(connection: Connection) -> Context:
        return {"rows": rows(desk, connection), "shapes": SHAPES}

    def order(connection: Connection, visitor: Visitor, fields: dict[str, str]) -> None:
        account_id, action = fields.get("account", ""), fields.get("action", "")
        found = {row.account.id: row for row in rows(desk, connection) or []}
        if account_id not in found:
            raise Refused("There is no such account at a running gateway. Nothing was changed.")
        if action not in ("drain", "revive"):
            raise Refused("An account can be drained or revived. Nothing was changed.")
        before = found[account_id].state
        word = "upstream drained" if action == "drain" else "upstream revived"
        desk.note(connection, visitor, word, account_id, before=before)
        (upstreams.drain if action == "drain" else upstreams.revive)(desk.parts.settings.data_path, account_id)

    @get("/admin/upstreams")
    @threaded
    def page(request: AnyRequest) -> Response[Any]:
        return desk.page(request, "upstreams", show)

    @post("/admin/upstreams")
    async def change(request: AnyRequest) -> Response[Any]:
        return await desk.act(request, order, "/admin/upstreams", "upstreams", show)

    return [page, change]

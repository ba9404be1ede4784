"""The data plane's routes, but for the completion itself (`pipeline`)."""

from functools import partial

import msgspec

from vipcloud.accounts.directory import Principal
from vipcloud.dialects import contract
from vipcloud.dialects import models as dialect
from vipcloud.errors import ModelNotFound, NotImplementedYet
from vipcloud.gateway import account_routes, management, metrics, pipeline, playground
from vipcloud.gateway.app import Route
from vipcloud.gateway.call import Call
from vipcloud.gateway.demo import DEMO_PATH, Demo
from vipcloud.gateway.parts import Parts
from vipcloud.gateway.playground import PLAYGROUND_PATH
from vipcloud.gateway.status_page import StatusPage
from vipcloud.gateway.turns import Turns
from vipcloud.ledger import bookkeeper
from vipcloud.providers import abilities
from vipcloud.settings import Settings

SAME_ORIGIN = frozenset((DEMO_PATH, PLAYGROUND_PATH, "/metrics"))  # what other sites' pages may not call
CHANGES_LAG_MAX_S = 15.0
BOOKS_LAG_MAX_S = 60.0
NOT_SERVED = (  # of OpenAI's API: an honest 501 tells more than a 404
    "/completions",
    "/embeddings",
    "/responses",
    "/moderations",
    "/images/generations",
    "/audio/speech",
    "/audio/transcriptions",
)


def table(parts: Parts, pages: Route | None = None) -> dict[str, dict[str, Route]]:
    """Paths without `/v1`; see `App`. `pages` is the console's route, where there is one."""

    async def list_models(call: Call) -> None:
        if pages is not None and wants_page(call):
            await pages(call)
            return
        allowed = allowed_models(await pipeline.authenticate(call, parts))
        models = [model for model in parts.catalog.models.values() if allowed is None or model.id in allowed]
        now_s = parts.clock.wall_s()
        call.respond(200, dialect.list_body(abilities.entry(model, now_s) for model in models))

    async def show_model(call: Call) -> None:
        allowed = allowed_models(await pipeline.authenticate(call, parts))
        model = parts.catalog.models.get(call.rest)
        if model is None or (allowed is not None and model.id not in allowed):
            raise ModelNotFound(call.rest)
        call.respond(200, dialect.model_body(abilities.entry(model, parts.clock.wall_s())))

    async def not_served(call: Call) -> None:
        raise NotImplementedYet(f"{call.exchange.path} is not served yet; chat completions and models are.")

    async def openapi(call: Call) -> None:
        call.respond(200, contract.document_body())

    async def healthz(call: Call) -> None:
        call.respond(200, b'{"status":"ok"}')

    async def readyz(call: Call) -> None:
        reasons = unready(call, parts)
        body: dict[str, object] = {"ready": not reasons, "reasons": reasons}
        if parts.guard.degraded:
            body["degraded"] = [parts.guard.degraded]
        if warnings := worries(parts):
            body["warnings"] = warnings
        call.respond(503 if reasons else 200, msgspec.json.encode(body))

    demo, turns = Demo(parts.settings.demo), Turns()
    return {
        **(
            {DEMO_PATH: {"POST": partial(pipeline.chat_demo, parts=parts, demo=demo)}}
            if demo_served(parts.settings)
            else {}
        ),
        **(
            {PLAYGROUND_PATH: {"POST": partial(playground.chat, parts=parts)}} if parts.settings.console.enabled else {}
        ),
        "/chat/completions": {"POST": pipeline.ChatRoute(parts).serve},
        "/models": {"GET": list_models},
        "/models/*": {"GET": show_model},
        **{path: {"POST": not_served} for path in NOT_SERVED},
        **account_routes.table(parts, turns),
        **management.table(parts, turns),
        **(StatusPage(parts.settings.data_path, parts.clock).table() if parts.settings.status.enabled else {}),
        "/openapi.json": {"GET": openapi},
        "/healthz": {"GET": healthz},
        "/readyz": {"GET": readyz},
        "/metrics": {"GET": metrics.route(parts)},
    }


def allowed_models(principal: Principal) -> frozenset[str] | None:
    """The only models that the key may use; None: all of them."""
    return principal.terms.models or None if principal.terms is not None else None


def demo_served(settings: Settings) -> bool:
    """The demo belongs to the website's home page."""
    return settings.demo.enabled and settings.console.enabled


def wants_page(call: Call) -> bool:
    """Whether a browser asks for `/models`, which is also the list's address for clients that leave out `/v1`."""
    exchange = call.exchange
    return not exchange.target.startswith(b"/v1") and b"text/html" in exchange.headers.get(b"accept", b"")


def worries(parts: Parts) -> list[str]:
    """What the operator should look into, though requests may go on: of the bookkeeper."""
    told = bookkeeper.status(parts.settings.journal_path)
    if told is None:
        return []
    found = []
    behind_s = parts.clock.wall_s() - told.booked_until
    if behind_s > BOOKS_LAG_MAX_S:
        found.append(f"books: nothing was booked for {behind_s:.0f} s; {told.backlog_bytes} bytes were waiting")
    if told.breaks:
        found.append(f"books: {len(told.breaks)} breaks; `vipcloud ledger verify` lists them")
    return found


def unready(call: Call, parts: Parts) -> list[str]:
    """Why no request should be sent here now; empty when all is well."""
    reasons = []
    if call.exchange.draining:
        reasons.append("draining: the gateway is going down")
    if parts.directory.lag_s > CHANGES_LAG_MAX_S:
        reasons.append(f"store: not read for {parts.directory.lag_s:.0f} s")
    if parts.journal.failing:
        reasons.append("journal: it cannot be written")
    if not parts.upstreams.configured:
        reasons.append("upstreams: no provider key is configured")
    return reasons

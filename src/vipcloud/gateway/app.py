"""The data plane's front door: which handler serves which path, and how answers and errors look.

Every answer carries `x-request-id` and the CORS headers, errors included: without them a browser shows "failed to
fetch" instead of the 401. What a path means is decided here once, from the path as it was sent; a handler gets the
exchange and never looks at the path again. Routes are served with and without `/v1`, with and without a slash at the
end, and never by redirect: clients lose their method or their key on the way.
"""

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from typing import Final, cast
from urllib.parse import unquote

from vipcloud.clock import Clock
from vipcloud.errors import Forbidden, GatewayError, MethodNotAllowed, RouteNotFound, Unavailable, shorten
from vipcloud.gateway.call import Call
from vipcloud.http.headers import header_block
from vipcloud.http.server import Exchange

TYPE_JSON: Final = b"content-type: application/json\r\n"
EXPOSED = (
    "x-request-id, retry-after, x-should-retry, x-ratelimit-limit-requests, x-ratelimit-remaining-requests, "
    "x-vipcloud-original-request-id, x-vipcloud-original-charge-usd, server-timing, "
    "x-ratelimit-reset-requests, x-ratelimit-limit-requests-day, x-ratelimit-remaining-requests-day, "
    "x-ratelimit-reset-requests-day, x-vipcloud-max-tokens"
)
CORS: Final = header_block([("access-control-allow-origin", "*"), ("access-control-expose-headers", EXPOSED)])
HEAD: Final = CORS + b"x-request-id: req_"
METHODS: Final = "GET, POST, PATCH, DELETE, OPTIONS, HEAD"
PREFLIGHT_AGE_S = 86_400
_BYTES: Final = [f"{number:02x}" for number in range(256)]


def same_origin_head(head: bytes) -> bytes:
    """`head` for an answer that no other site may read."""
    return head.replace(CORS, b"", 1)


Route = Callable[[Call], Awaitable[None]]
OnError = Callable[[GatewayError, str, str, str], None]  # with the ids of request and model, and the tier


class App:
    """`routes` maps a path (without `/v1`, starting with a slash) to its handlers by method.

    A path that ends in `/*` takes any rest; the handler finds it, decoded once, in `call.rest`. What has no route goes
    to `fallback`, unless it is below `/v1`, or is a 404. Preflights for paths of `same_origin` are refused. Those of
    `versioned` are served below `/v1` only: without it they are the website's. `on_error` is called with every error
    that becomes an answer here.
    """

    def __init__(
        self,
        routes: dict[str, dict[str, Route]],
        clock: Clock,
        fallback: Route | None = None,
        same_origin: frozenset[str] = frozenset(),
        versioned: frozenset[str] = frozenset(),
        on_error: OnError | None = None,
    ) -> None:
        self._on_error = on_error
        self._fallback = fallback
        self._same_origin = same_origin
        self._versioned = versioned
        self._exact = {path: methods for path, methods in routes.items() if not path.endswith("/*")}
        self._prefixes = {path[:-1]: methods for path, methods in routes.items() if path.endswith("/*")}
        self._posts: dict[bytes, Route] = {}  # by the target as nearly all send it; `_search` knows the rest
        for path, methods in self._exact.items():
            if "POST" in methods:
                for spelled in (f"/v1{path}",) if path in versioned else (path, f"/v1{path}"):
                    self._posts[spelled.encode()] = methods["POST"]
        self._boot = (
            f"{int(clock.wall_s()):08x}{secrets.token_hex(3)}"  # ids in the order of time keep the books compact
        )
        self._count = 0
        self._serials = ""  # the beginning of the next 256

    async def handle(self, exchange: Exchange) -> None:
        """Serve one exchange. GatewayErrors go on to `render_error` through the server."""
        call = self._call(exchange)
        route = self._posts.get(exchange.target) if exchange.method == "POST" else None
        try:
            await (self._search(call) if route is None else route(call))
        except asyncio.CancelledError:
            if not exchange.interrupted:
                raise
            self._interrupted(exchange)

    def render_error(self, exchange: Exchange, error: GatewayError) -> None:
        """Answer with the error's status and envelope."""
        call = self._call(exchange)
        self._tell(call, error)
        exchange.respond(error.status, call.head + TYPE_JSON + header_block(error.headers()), error.body())

    def _call(self, exchange: Exchange) -> Call:
        """The exchange's call; made when it is first asked for, and kept in `exchange.state`."""
        call = exchange.state
        if call is not None:
            return cast("Call", call)
        place = self._count & 0xFF
        if place == 0:
            self._serials = f"{self._boot}{self._count >> 8:06x}"
        self._count += 1
        serial = self._serials + _BYTES[place]
        made = exchange.state = Call(exchange, serial, b"%b%b\r\n" % (HEAD, serial.encode()))
        return made

    async def _search(self, call: Call) -> None:
        """The slow way: other spellings, preflights, HEAD, and the errors."""
        exchange = call.exchange
        path = exchange.path
        if exchange.method == "OPTIONS" and self._spelled(path) in self._same_origin:
            call.head = same_origin_head(call.head)
            raise Forbidden("No other site may call this.")
        if path == "*" and exchange.method == "OPTIONS":  # of the server, and no path of it (RFC 9110 §9.3.7)
            exchange.respond(204, call.head + header_block([("allow", METHODS)]))
            return
        if not path.startswith("/"):
            raise RouteNotFound(f"Invalid URL ({exchange.method} {shorten(path)})")
        methods = self._methods(call, path)
        if methods is None and self._fallback is not None and not path.startswith("/v1/"):
            await self._fallback(call)
            return
        if exchange.method == "OPTIONS":
            self._preflight(call)
            return
        if methods is None:
            raise RouteNotFound(f"Invalid URL ({exchange.method} {shorten(path)})")
        route = methods.get("GET" if exchange.method == "HEAD" else exchange.method)
        if route is None:
            allowed = ", ".join([*methods, *(["HEAD"] if "GET" in methods else []), "OPTIONS"])
            raise MethodNotAllowed(f"Not allowed to {exchange.method} on {shorten(path)}.", allowed)
        await route(call)

    def _methods(self, call: Call, path: str) -> dict[str, Route] | None:
        bare = self._spelled(path)
        plain = not path.startswith("/v1/")
        if bare in self._exact:
            return None if plain and bare in self._versioned else self._exact[bare]
        for prefix, methods in self._prefixes.items():
            if bare.startswith(prefix):
                if plain and f"{prefix}*" in self._versioned:
                    return None
                call.rest = unquote(bare[len(prefix) :], errors="replace")
                return methods
        return None

    def _spelled(self, path: str) -> str:
        while path.startswith("/v1/"):
            path = path[3:]
        return path.rstrip("/")

    def _preflight(self, call: Call) -> None:
        """What a browser asks before it sends a key. `*` would not cover Authorization, so the list is echoed."""
        asked = call.exchange.headers.get(b"access-control-request-headers", b"authorization, content-type")
        headers = header_block(
            [
                ("access-control-allow-methods", METHODS),
                ("access-control-allow-headers", asked.decode("latin-1")),
                ("access-control-max-age", str(PREFLIGHT_AGE_S)),
                ("vary", "Origin, Access-Control-Request-Headers"),
            ]
        )
        call.exchange.respond(204, call.head + headers)

    def _interrupted(self, exchange: Exchange) -> None:
        """It was to end before its end, mostly because the drain limit is reached: an error, as still fits."""
        call = self._call(exchange)
        error = call.ending or Unavailable("The gateway is restarting; send the request again.", retry_after_s=1)
        if not exchange.started:
            self.render_error(exchange, error)
        elif not exchange.finished:
            self._tell(call, error)
            exchange.finish(error.event() if call.streams else error.body())

    def _tell(self, call: Call, error: GatewayError) -> None:
        if self._on_error is not None:
            self._on_error(error, call.request_id, call.model, call.tier)

"""The console as an ASGI application: its routes, and what holds for all of them."""

from collections.abc import Sequence
from typing import Any
from urllib.parse import urlencode

import structlog
from litestar import Litestar, Request, Response, get
from litestar.config.compression import CompressionConfig
from litestar.config.response_cache import ResponseCacheConfig
from litestar.enums import MediaType
from litestar.exceptions import HTTPException, NotFoundException
from litestar.params import FromPath
from litestar.response import Redirect
from litestar.types import ControllerRouterHandler

from vipcloud.console import render, visits
from vipcloud.console.chores import Chores
from vipcloud.console.mailer import Mailer
from vipcloud.console.pages import (
    credit,
    docs,
    home,
    keys,
    legal,
    limits,
    login,
    models,
    outbox,
    overview,
    playground,
    promo,
    recharge,
    settings,
    topup,
    usage,
    waitlist,
)
from vipcloud.console.pages.admin import routes as admin
from vipcloud.console.parts import Parts
from vipcloud.console.render import Renderer
from vipcloud.console.site import Site
from vipcloud.errors import (
    BadRequest,
    Forbidden,
    GatewayError,
    InternalError,
    MethodNotAllowed,
    RequestTooLarge,
    RouteNotFound,
    shorten,
)

log = structlog.get_logger(__name__)

AnyRequest = Request[Any, Any, Any]
AnyResponse = Response[Any]
STATIC_AGE_S = 31_536_000
_KINDS: dict[int, type[GatewayError]] = {kind.status: kind for kind in (Forbidden, RequestTooLarge)}
_TYPES = {"css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8", "svg": "image/svg+xml"}


def build(parts: Parts) -> Litestar:
    """The whole console."""
    renderer = Renderer(Site(parts.public_url, parts.settings.console.support_email, parts.settings.status.enabled))
    handlers: Sequence[ControllerRouterHandler] = [
        static_file,
        favicon,
        robots,
        *home.handlers(parts, renderer),
        *models.handlers(parts, renderer),
        *docs.handlers(parts, renderer),
        *legal.handlers(renderer),
        *login.handlers(parts, renderer),
        *waitlist.handlers(parts, renderer),
        *outbox.handlers(parts, renderer),
        *overview.handlers(parts, renderer),
        *usage.handlers(parts, renderer),
        *keys.handlers(parts, renderer),
        *credit.handlers(parts, renderer),
        *topup.handlers(parts, renderer),
        *playground.handlers(parts, renderer),
        *recharge.handlers(parts, renderer),
        *promo.handlers(parts, renderer),
        *limits.handlers(parts, renderer),
        *settings.handlers(parts, renderer),
        *admin.handlers(parts, renderer),
    ]

    def not_found(request: AnyRequest, _error: NotFoundException) -> AnyResponse:
        if _speaks_json(request):
            error = RouteNotFound(f"Invalid URL ({request.method} {shorten(request.url.path)})")
            return _json(error, error.status)
        return renderer.page("pages/not_found.html", {"page": "none"}, status=404)

    def failed(request: AnyRequest, error: HTTPException) -> AnyResponse:
        problem = _problem(request, error)
        if _speaks_json(request):
            return _json(problem, error.status_code)
        context = {"page": "none", "detail": error.detail, "code": error.status_code}
        return renderer.page("pages/problem.html", context, status=error.status_code, headers=dict(problem.headers()))

    def crashed(request: AnyRequest, error: Exception) -> AnyResponse:
        log.error("page failed", method=request.method, path=request.url.path, exc_info=error)
        return failed(request, HTTPException(detail="This page failed", status_code=500))

    def sign_in_first(_request: AnyRequest, error: visits.NotSignedIn) -> AnyResponse:
        return Redirect(f"/login?{urlencode({'back': error.back})}", status_code=303)

    return Litestar(
        route_handlers=handlers,
        lifespan=[Mailer(parts).lifespan, Chores(parts).lifespan],
        exception_handlers={
            visits.NotSignedIn: sign_in_first,
            NotFoundException: not_found,
            HTTPException: failed,
            Exception: crashed,
        },
        compression_config=CompressionConfig(backend="gzip", gzip_compress_level=6, minimum_size=700),
        response_cache_config=ResponseCacheConfig(),
        after_request=_with_headers,
        openapi_config=None,
        logging_config=None,
    )


async def _with_headers(response: AnyResponse) -> AnyResponse:
    for name, value in render.HEADERS.items():
        response.headers.setdefault(name, value)
    return response


def _speaks_json(request: AnyRequest) -> bool:
    return request.url.path.startswith("/v1/") or "text/html" not in request.headers.get("accept", "")


def _problem(request: AnyRequest, error: HTTPException) -> GatewayError:
    """`error` in the words of the API."""
    if error.status_code == MethodNotAllowed.status:
        allowed = [name.strip() for name in (error.headers or {}).get("allow", "").split(",")]
        if "GET" in allowed:
            allowed.append("HEAD")  # which the gateway asks as GET
        words = f"Not allowed to {request.method} on {shorten(request.url.path)}."
        return MethodNotAllowed(words, ", ".join(sorted(allowed)))
    if error.status_code >= 500:
        return InternalError(error.detail)
    return _KINDS.get(error.status_code, BadRequest)(error.detail)


def _json(error: GatewayError, status: int) -> Response[bytes]:
    headers = {**render.HEADERS, **dict(error.headers())}
    return Response(error.body(), status_code=status, media_type=MediaType.JSON, headers=headers)


@get("/static/{version:str}/{name:str}", sync_to_thread=False)
def static_file(version: FromPath[str], name: FromPath[str]) -> Response[bytes]:
    """A file of the design system."""
    file = render.STATIC.get(name)
    if file is None or file.version != version:
        raise NotFoundException
    return Response(
        file.data,
        media_type=_TYPES[name.rpartition(".")[2]],
        headers={"cache-control": f"public, max-age={STATIC_AGE_S}, immutable"},
    )


@get("/favicon.ico", sync_to_thread=False)
def favicon() -> Response[bytes]:
    return Response(
        render.STATIC["mark.svg"].data, media_type=_TYPES["svg"], headers={"cache-control": "max-age=86400"}
    )


@get("/robots.txt", sync_to_thread=False, media_type=MediaType.TEXT)
def robots() -> str:
    return "User-agent: *\nDisallow: /v1/\nDisallow: /admin\n"

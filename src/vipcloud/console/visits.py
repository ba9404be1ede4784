"""Who is looking: cookies, sessions, and whether a form was sent by one of our own pages.

A session's cookie is `HttpOnly` and `SameSite=Lax`. Forms are taken only from our own origin, which the browser says
itself (Fetch Metadata, or else `Origin`), and forms of signed-in people also carry a token made from their session.
"""

import hmac
from collections.abc import Mapping
from itertools import islice
from typing import Any
from urllib.parse import urlsplit

from litestar import Request
from litestar.datastructures import Cookie
from litestar.exceptions import PermissionDeniedException
from sqlalchemy import Connection

from vipcloud.accounts import people
from vipcloud.accounts.people import Visitor
from vipcloud.console.parts import Parts

SESSION = people.SESSION_COOKIE
BROWSER = "vc_sign_in"
FORM_FIELDS_MAX = 200

AnyRequest = Request[Any, Any, Any]


class NotSignedIn(Exception):
    """The page is for members. `back` is where to go once that is mended."""

    def __init__(self, back: str) -> None:
        super().__init__(back)
        self.back = back


def visitor(request: AnyRequest, connection: Connection, parts: Parts) -> Visitor:
    """Who is signed in. Raises NotSignedIn."""
    found = known_visitor(request, connection, parts)
    if found is None:
        raise NotSignedIn(request.url.path)
    return found


def known_visitor(request: AnyRequest, connection: Connection, parts: Parts) -> Visitor | None:
    return people.visitor(connection, request.cookies.get(SESSION, ""), parts.clock.wall_s())


def cookie(parts: Parts, name: str, value: str, life_s: float) -> Cookie:
    """`life_s` of 0 takes the cookie away."""
    return Cookie(
        key=name,
        value=value,
        max_age=int(life_s),
        path="/",
        httponly=True,
        samesite="lax",
        secure=parts.public_url.startswith("https:"),
    )


def form_token(request: AnyRequest) -> str:
    """What forms of this session carry; nobody without the cookie can make it."""
    return people.form_token(request.cookies.get(SESSION, ""))


def check_origin(request: AnyRequest, parts: Parts) -> None:
    """That a form comes from a page of ours. Raises PermissionDeniedException.

    Every browser of today says so in `Sec-Fetch-Site`; older ones send `Origin`. What sends neither is no browser, and
    has nobody's cookies to abuse.
    """
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        allowed = site in ("same-origin", "none")
    else:
        origin = request.headers.get("origin")
        own = {urlsplit(parts.public_url).netloc, request.headers.get("host", "")}
        allowed = origin is None or urlsplit(origin).netloc in own
    if not allowed:
        raise PermissionDeniedException("The form was sent from another website")


async def form(request: AnyRequest, parts: Parts, *, signed_in: bool = True) -> dict[str, str]:
    """The fields of a form of ours, last value of each. Raises PermissionDeniedException."""
    check_origin(request, parts)
    data = await request.form()
    fields = {name: value for name, value in islice(data.multi_items(), FORM_FIELDS_MAX) if isinstance(value, str)}
    if signed_in and not hmac.compare_digest(fields.get("token", ""), form_token(request)):
        raise PermissionDeniedException("The form is older than your session")
    return fields


async def form_lists(request: AnyRequest, parts: Parts) -> dict[str, list[str]]:
    """As `form`, with every value of each field."""
    await form(request, parts)
    found: dict[str, list[str]] = {}
    for name, value in islice((await request.form()).multi_items(), FORM_FIELDS_MAX):
        if isinstance(value, str):
            found.setdefault(name, []).append(value)
    return found


def client_address(headers: Mapping[str, str]) -> str:
    """The caller's address, as the gateway found it."""
    return headers.get("x-vipcloud-client", "")


def local_page(path: str, default: str) -> str:
    """`path` if it is one of our pages, and not another website in disguise."""
    fine = path.startswith("/") and not path.startswith(("//", "/\\")) and "\\" not in path and ":" not in path
    return path if fine and path.isprintable() else default

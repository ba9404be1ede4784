"""The dashboard's playground: completions for whoever is signed in, at the expense of their account.

The browser holds no key. What it sends is the session's cookie, which no script can read, and the token that our own
pages carry and no other site can make; of the account it uses the key that is named `playground`, whose secret nobody
has. That key's terms hold, its name is in the usage log, and revoking it ends the playground for the account.
"""

import asyncio
import hmac
from collections.abc import Mapping

from sqlalchemy.exc import SQLAlchemyError

from vipcloud.accounts import people, store
from vipcloud.accounts.directory import Principal
from vipcloud.accounts.store import KeyRow
from vipcloud.errors import Forbidden, Unauthenticated, Unavailable
from vipcloud.gateway import pipeline
from vipcloud.gateway.app import same_origin_head
from vipcloud.gateway.call import Call
from vipcloud.gateway.parts import Parts
from vipcloud.storage import engine as storage

PLAYGROUND_PATH = "/playground/chat/completions"
TOKEN_HEADER = b"x-vipcloud-form"  # a simple form cannot send it, and a preflight for it is refused
_COOKIE = people.SESSION_COOKIE.encode()


async def chat(call: Call, parts: Parts) -> None:
    """Serve `POST /playground/chat/completions`. Raises what `admit` does."""
    principal = await admit(call, parts)
    exchange = call.exchange
    if exchange.draining:
        raise Unavailable("The gateway is restarting; send the request again.", retry_after_s=1)
    pipeline.check_content_type(exchange.headers.get(b"content-type"))
    await pipeline.complete(call, parts, principal, parts.tiers.subject(principal))


async def admit(call: Call, parts: Parts) -> Principal:
    """Who is signed in. Raises Unauthenticated, Forbidden and Unavailable."""
    call.head = same_origin_head(call.head)
    headers = call.exchange.headers
    cookie = session_cookie(headers)
    token = headers.get(TOKEN_HEADER, b"").strip()
    same_site = headers.get(b"sec-fetch-site", b"same-origin").strip() == b"same-origin"
    if not same_site or not hmac.compare_digest(token, people.form_token(cookie).encode()):
        raise Forbidden("The playground is for this site's own page. Load it again, or use an API key.")
    try:
        row = await asyncio.to_thread(_key_of_visitor, parts, cookie)
    except SQLAlchemyError as error:
        raise Unavailable("Who is signed in cannot be looked up right now; try again.", retry_after_s=1) from error
    return await parts.directory.holder(row)


def session_cookie(headers: Mapping[bytes, bytes]) -> str:
    """The value as sent; empty if there is none."""
    for pair in headers.get(b"cookie", b"").split(b";"):
        name, _, value = pair.strip().partition(b"=")
        if name == _COOKIE:
            return value.decode("latin-1")
    return ""


def _key_of_visitor(parts: Parts, cookie: str) -> KeyRow:
    now_s = parts.clock.wall_s()
    with storage.reading(parts.directory.engine) as connection:
        visitor = people.visitor(connection, cookie, now_s)
        if visitor is None:
            raise Unauthenticated("You are signed out. Sign in and send it again.")
        row = store.working_key(connection, visitor.account.id, store.PLAYGROUND_KEY, now_s)
    if row is None:
        raise Forbidden("The key named playground was revoked or has ended. Load the page again for a new one.")
    return row

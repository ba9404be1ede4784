"""Hands on to the console whatever is none of the data plane's routes, over a Unix socket.

One port and one origin serve both. The console is another process: while it is down or slow, only its own pages are.
A body is taken whole before it goes on, and so is a short answer, such as any page is; a long one is passed on as it
comes, under back-pressure both ways.
"""

import asyncio
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from vipcloud.errors import RequestTooLarge, Unavailable
from vipcloud.gateway.call import Call
from vipcloud.http.addresses import HANDED_ON, Network, client_address
from vipcloud.http.client import Address, Client, ClientError, ConnectFailed, Response, TimedOut
from vipcloud.http.headers import header_block
from vipcloud.http.server import Exchange
from vipcloud.settings import ConsoleSettings

CLIENT_HEADER = b"x-vipcloud-client"  # the caller's address, as the gateway understands it
WHOLE_BYTES_MAX: Final = 1 << 18  # of an answer that is taken whole before it goes on
_HANDED_ON: Final = frozenset(name.encode() for name in HANDED_ON)
_NOT_PASSED = frozenset(  # of one connection only (RFC 9110 §7.6.1), set anew, or nobody's to claim
    (
        b"connection",
        b"content-length",
        b"expect",
        b"forwarded",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"via",
        b"x-forwarded-for",
        b"x-forwarded-host",
        b"x-forwarded-proto",
        b"x-real-ip",
        b"x-request-id",
        CLIENT_HEADER,
    )
)
_PAGE = b"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Back in a moment: vipcloud</title></head>
<body><h1>This page does not answer at the moment</h1>
<p>The website is starting or has failed. The API is a separate process and is not affected: calls to it go on%b</p>
</body></html>
"""
_DOWN_PAGE = _PAGE % b", and\nnothing was lost. Load this page again in a few seconds."
_CUT_PAGE = _PAGE % b".\nWhat you sent may have been done or not. Look whether it was done before you send it again."


class ConsoleRelay:
    """The route of everything else. `socket` is where the console listens; `trusted` are `server.trusted_proxies`."""

    def __init__(
        self, client: Client, socket: Path, settings: ConsoleSettings, trusted: Sequence[Network] = ()
    ) -> None:
        self._origin = client.origin(Address("unix", str(socket.absolute()), 0))
        self._settings = settings
        self._trusted = trusted

    async def serve(self, call: Call) -> None:
        """Relay one exchange. Raises RequestTooLarge, and Unavailable where the caller is not a browser."""
        exchange = call.exchange
        body = await self._body(exchange)
        began_s = asyncio.get_running_loop().time()  # how long the body took is not the console's doing
        request = _request(call, body, self._trusted)
        try:
            response = await self._origin.send(request, began_s + self._settings.first_byte_timeout_s)
        except ClientError as error:
            self._tell_down(call, error)
            return
        response.expect(began_s + self._settings.total_timeout_s, "total")
        try:
            await self._answer(call, response)
        except ClientError as error:
            if exchange.started:
                exchange.abort()  # a cut answer shall not look whole
            else:
                self._tell_down(call, error)
        except asyncio.CancelledError:
            if exchange.started:
                exchange.abort()  # nor one that the drain limit cuts
            raise
        finally:
            response.abort()

    async def _body(self, exchange: Exchange) -> bytes:
        most = self._settings.body_bytes_max
        announced = exchange.headers.get(b"content-length", b"0")
        if int(announced) > most:
            raise RequestTooLarge(f"The request's body is above {most} bytes.")
        body = await exchange.body()
        if len(body) > most:
            raise RequestTooLarge(f"The request's body is above {most} bytes.")
        return body

    async def _answer(self, call: Call, response: Response) -> None:
        """Raises ClientError."""
        exchange = call.exchange
        head = b"x-request-id: %b\r\n%b" % (call.request_id.encode(), _passed_on(response))
        if int(response.headers.get(b"content-length", WHOLE_BYTES_MAX + 1)) <= WHOLE_BYTES_MAX:
            whole: bytes | None = await response.read(WHOLE_BYTES_MAX)
        else:
            whole = response.read_now(sys.maxsize)
        if whole is not None or response.status in (204, 304):
            exchange.respond(response.status, head, whole or b"")
            return
        exchange.start(response.status, head)
        if exchange.method != "HEAD":
            exchange.throttle(response.pause, response.resume)
            await response.pipe(exchange.write)
        exchange.finish()

    def _tell_down(self, call: Call, error: ClientError) -> None:
        """Say when to ask again, but not where the request may have been carried out and would be a second time."""
        again = call.exchange.method in ("GET", "HEAD") or _unsent(error)
        if b"text/html" not in call.exchange.headers.get(b"accept", b""):
            if again:
                raise Unavailable("The console does not answer at present; the API does.", retry_after_s=2) from error
            raise Unavailable(
                "The console gave no answer, but may have done what was asked. "
                "Look whether it was done before you send it again."
            ) from error
        lines = [
            ("x-request-id", call.request_id),
            ("content-type", "text/html; charset=utf-8"),
            ("cache-control", "no-store"),
            ("content-security-policy", "default-src 'none'"),
        ]
        if again:
            lines.append(("retry-after", "2"))
        call.exchange.respond(503, header_block(lines), _DOWN_PAGE if again else _CUT_PAGE)


def _unsent(error: ClientError) -> bool:
    """Whether the console cannot have got the request."""
    return isinstance(error, ConnectFailed) or (isinstance(error, TimedOut) and error.phase == "connect")


def _request(call: Call, body: bytes, trusted: Sequence[Network]) -> bytes:
    """The request as the console gets it. HEAD goes as GET: the body of its answer is dropped here."""
    exchange = call.exchange
    headers, target = exchange.headers, exchange.target
    if not target.startswith(b"/"):
        target, host = _split(target)
        headers = {**headers, b"host": host}
    lines = [b"%b %b HTTP/1.1\r\n" % (b"GET" if exchange.method == "HEAD" else exchange.method.encode(), target)]
    dropped = _NOT_PASSED | _named(headers) - {b"host"}
    lines += [b"%b: %b\r\n" % (name, value) for name, value in headers.items() if name not in dropped]
    client = client_address(exchange.peer, headers, trusted)
    lines.append(b"%b: %b\r\n" % (CLIENT_HEADER, str(client or exchange.peer).encode()))
    lines.append(b"x-request-id: %b\r\n" % call.request_id.encode())
    if not _HANDED_ON.isdisjoint(headers):
        lines.append(b"via: 1.1 proxy\r\n")  # that there is one matters to `/outbox`; what it claims, to nobody
    if body or exchange.method in ("POST", "PUT", "PATCH", "DELETE"):
        lines.append(b"content-length: %d\r\n" % len(body))
    return b"".join((*lines, b"\r\n", body))


def _split(target: bytes) -> tuple[bytes, bytes]:
    """`http://host/path?query` → `/path?query` and `host`, which counts and not the header (RFC 9112 §3.2.2)."""
    rest = target.partition(b"://")[2]
    cut = min((at for mark in (b"/", b"?") if (at := rest.find(mark)) >= 0), default=len(rest))
    path = rest[cut:]
    return path if path.startswith(b"/") else b"/" + path, rest[:cut]


def _named(headers: Mapping[bytes, bytes]) -> frozenset[bytes]:
    """What `Connection` names is of this connection only, as it is itself (RFC 9110 §7.6.1)."""
    tokens = headers.get(b"connection", b"").replace(b"\n", b",").split(b",")
    return frozenset(token.strip().lower() for token in tokens)


def _passed_on(response: Response) -> bytes:
    dropped = _NOT_PASSED | _named(response.headers)
    lines = []
    for name, value in response.raw_headers.items():
        if name.lower() not in dropped:
            lines += [b"%b: %b\r\n" % (name, each) for each in value.split(b"\n")]
    return b"".join(lines)

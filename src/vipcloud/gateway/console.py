"""Hands on to the console whatever is none of the data plane's routes, over a Unix socket.

One port and one origin serve both. The console is another process: while it is down or slow, only its own pages are.
A body is taken whole before it goes on; an answer is passed on as it comes, under back-pressure both ways.
"""

from pathlib import Path

from vipcloud.errors import RequestTooLarge, Unavailable
from vipcloud.gateway.call import Call
from vipcloud.http.client import Address, Client, ClientError, Response
from vipcloud.http.headers import header_block
from vipcloud.http.server import Exchange
from vipcloud.settings import ConsoleSettings

CLIENT_HEADER = b"x-vipcloud-client"  # the caller's address, as the gateway understands it
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
        b"x-forwarded-for",
        b"x-forwarded-host",
        b"x-forwarded-proto",
        b"x-real-ip",
        b"x-request-id",
        CLIENT_HEADER,
    )
)
_DOWN_PAGE = b"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Back in a moment: vipcloud</title></head>
<body><h1>This page does not answer at the moment</h1>
<p>The website is starting or has failed. The API is a separate process and is not affected: calls to it go on, and
nothing was lost. Load this page again in a few seconds.</p></body></html>
"""


class ConsoleRelay:
    """The route of everything else. `socket` is where the console listens."""

    def __init__(self, client: Client, socket: Path, settings: ConsoleSettings) -> None:
        self._origin = client.origin(Address("unix", str(socket.absolute()), 0))
        self._settings = settings

    async def serve(self, call: Call) -> None:
        """Relay one exchange. Raises RequestTooLarge, and Unavailable where the caller is not a browser."""
        exchange = call.exchange
        body = await self._body(exchange)
        deadline = exchange.received_s + self._settings.first_byte_timeout_s
        try:
            response = await self._origin.send(_request(call, body), deadline)
        except ClientError as error:
            self._tell_down(call, error)
            return
        await self._answer(call, response)

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
        exchange = call.exchange
        head = b"x-request-id: %b\r\n%b" % (call.request_id.encode(), _passed_on(response))
        try:
            whole = response.read_now(self._settings.body_bytes_max)
            if whole is not None or exchange.method == "HEAD" or response.status in (204, 304):
                exchange.respond(response.status, head, whole or b"")
                return
            exchange.start(response.status, head)
            exchange.throttle(response.pause, response.resume)
            response.expect(exchange.received_s + self._settings.total_timeout_s, "total")
            await response.pipe(exchange.write)
            exchange.finish()
        except ClientError:
            exchange.abort()  # a cut answer shall not look whole
        finally:
            response.abort()

    def _tell_down(self, call: Call, error: ClientError) -> None:
        if b"text/html" not in call.exchange.headers.get(b"accept", b""):
            raise Unavailable("The console does not answer at present; the API does.", retry_after_s=2) from error
        head = header_block(
            [
                ("x-request-id", call.request_id),
                ("content-type", "text/html; charset=utf-8"),
                ("cache-control", "no-store"),
                ("content-security-policy", "default-src 'none'"),
                ("retry-after", "2"),
            ]
        )
        call.exchange.respond(503, head, _DOWN_PAGE)


def _request(call: Call, body: bytes) -> bytes:
    """The request as the console gets it. HEAD goes as GET: the body of its answer is dropped here."""
    exchange = call.exchange
    target = exchange.target if exchange.target.startswith(b"/") else exchange.path.encode("latin-1")
    lines = [b"%b %b HTTP/1.1\r\n" % (b"GET" if exchange.method == "HEAD" else exchange.method.encode(), target)]
    for name, value in exchange.headers.items():
        if name not in _NOT_PASSED:
            lines.append(b"%b: %b\r\n" % (name, value))
    lines.append(b"%b: %b\r\nx-request-id: %b\r\n" % (CLIENT_HEADER, exchange.peer.encode(), call.request_id.encode()))
    if body or exchange.method in ("POST", "PUT", "PATCH", "DELETE"):
        lines.append(b"content-length: %d\r\n" % len(body))
    return b"".join((*lines, b"\r\n", body))


def _passed_on(response: Response) -> bytes:
    lines = []
    for name, value in response.raw_headers.items():
        if name.lower() not in _NOT_PASSED:
            lines += [b"%b: %b\r\n" % (name, each) for each in value.split(b"\n")]
    return b"".join(lines)

"""The gateway in front of a console: what HTTP asks of one that hands messages on."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from ipaddress import ip_network
from pathlib import Path

import pytest

from vipcloud.clock import SystemClock
from vipcloud.gateway.app import App
from vipcloud.gateway.console import ConsoleRelay
from vipcloud.http.client import Client
from vipcloud.http.server import Exchange, HTTPServer
from vipcloud.settings import ClientSettings, ConsoleSettings, ServerSettings

PROXY = "127.0.0.1/32"
HELLO = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi"


class House:
    """A gateway and a console that takes one request per connection, keeps its bytes, and answers with `answer`."""

    def __init__(self, folder: Path, trusted: str = "") -> None:
        self.requests: list[bytes] = []
        self.answer = HELLO
        self.late_s = 0.0  # how long ago a request's head had come when it is served
        self.left_s = 0.0  # for the answer, when the console has the request
        self.answered = asyncio.Event()
        self.answered.set()
        self._path = folder / "c.sock"
        self._client = Client(ClientSettings())
        networks = (ip_network(trusted),) if trusted else ()
        self._relay = ConsoleRelay(self._client, self._path, ConsoleSettings(body_bytes_max=1024), networks)
        self._app = App({}, SystemClock(), self._relay.serve)
        self.server = HTTPServer(self._handle, ServerSettings(), self._app.render_error)
        self._port = 0

    async def start(self) -> None:
        self._listener = await asyncio.start_unix_server(self._console, self._path)
        self._port = await self.server.start("127.0.0.1", 0)

    async def close(self) -> None:
        await self.server.close(0)
        self._client.close()
        self._listener.close()

    async def _handle(self, exchange: Exchange) -> None:
        exchange.received_s -= self.late_s
        await self._app.handle(exchange)

    async def _console(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next((int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")), 0)
        self.requests.append(head + await reader.readexactly(length))
        now_s = asyncio.get_running_loop().time()
        self.left_s = min(connection.deadline for connection in self._client._deadlines) - now_s
        writer.write(self.answer)
        await writer.drain()
        await self.answered.wait()
        writer.close()

    async def ask(self, line: bytes, *headers: bytes, body: bytes = b"") -> tuple[bytes, bytes]:
        """The answer's head, in lower case, and what follows it."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        lines = [line + b" HTTP/1.1", b"Host: x", b"Connection: close", *headers]
        writer.write(b"\r\n".join(lines) + b"\r\n\r\n" + body)
        head, _, rest = (await reader.read()).partition(b"\r\n\r\n")
        writer.close()
        return head.lower(), rest

    async def sent(self, line: bytes, *headers: bytes) -> list[bytes]:
        """The head of the request as the console gets it, line by line."""
        await self.ask(line, *headers)
        return self.requests.pop().partition(b"\r\n\r\n")[0].split(b"\r\n")


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    made = House(tmp_path)
    await made.start()
    yield made
    await made.close()


@pytest.fixture
async def behind_proxy(tmp_path: Path) -> AsyncIterator[House]:
    made = House(tmp_path, PROXY)
    await made.start()
    yield made
    await made.close()


@pytest.mark.parametrize("size", [0, 2, 100_000, 3_000_000])
async def test_head_tells_no_other_length_than_get(house: House, size: int) -> None:
    house.answer = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size + b"x" * size
    head, body = await house.ask(b"HEAD /")
    assert body == b""
    lengths = [line for line in head.split(b"\r\n") if line.startswith(b"content-length")]
    assert lengths == ([b"content-length: %d" % size] if size <= 100_000 else [])
    got, body = await house.ask(b"GET /")
    assert lengths == [line for line in got.split(b"\r\n") if line.startswith(b"content-length")]
    assert body.count(b"x") == size


async def test_an_answer_that_breaks_off_before_any_of_it_went_on_is_a_503(house: House) -> None:
    house.answer = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhi"
    head, body = await house.ask(b"GET /", b"Accept: text/html")
    assert head.startswith(b"http/1.1 503")
    assert b"does not answer at the moment" in body


async def test_the_limit_on_requests_is_none_on_answers(house: House) -> None:
    house.answer = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n7d0\r\n%b\r\n0\r\n\r\n" % (b"x" * 2000)
    head, body = await house.ask(b"GET /")
    assert head.startswith(b"http/1.1 200")
    assert body.count(b"x") == 2000


@pytest.mark.parametrize(
    ("target", "sent", "host"),
    [
        (b"http://site.example/docs?q=a%20b", b"/docs?q=a%20b", b"site.example"),
        (b"HTTP://site.example:81?q=1?2", b"/?q=1?2", b"site.example:81"),
        (b"/docs?to=http://site.example/", b"/docs?to=http://site.example/", b"x"),
    ],
)
async def test_a_whole_url_keeps_its_query_and_its_host(house: House, target: bytes, sent: bytes, host: bytes) -> None:
    lines = await house.sent(b"GET " + target)
    assert lines[0] == b"GET %b HTTP/1.1" % sent
    assert [line for line in lines if line.startswith(b"host:")] == [b"host: " + host]


async def test_a_request_of_old_without_a_host_gets_none(house: House) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", house._port)
    writer.write(b"GET / HTTP/1.0\r\n\r\n")
    assert (await reader.read()).endswith(b"hi")
    writer.close()
    assert b"host:" not in house.requests[0]


async def test_what_connection_names_goes_no_further(house: House) -> None:
    lines = await house.sent(b"GET /", b"Connection: X-Hop , host,x-vipcloud-client", b"X-Hop: 1", b"X-End: 1")
    assert b"x-end: 1" in lines
    assert b"x-vipcloud-client: 127.0.0.1" in lines
    assert b"host: x" in lines, "without it there is no request"
    assert not [line for line in lines if line.startswith(b"x-hop")]
    house.answer = b"HTTP/1.1 200 OK\r\nConnection: X-Hop\r\nX-Hop: 1\r\nX-End: 1\r\nContent-Length: 2\r\n\r\nhi"
    head, body = await house.ask(b"GET /")
    assert b"x-end: 1" in head
    assert b"x-hop" not in head
    assert body == b"hi"


async def test_time_that_the_body_took_to_come_is_not_the_consoles(house: House) -> None:
    house.late_s = 1000
    await house.ask(b"POST /form", b"Content-Length: 3", body=b"a=b")
    assert house.left_s > 0


@pytest.mark.parametrize("name", [b"X-Forwarded-For", b"Forwarded", b"X-Real-IP"])
async def test_the_console_learns_that_there_is_a_proxy_and_not_what_it_claims(house: House, name: bytes) -> None:
    lines = await house.sent(b"GET /", name + b": 6.6.6.6")
    assert b"via: 1.1 proxy" in lines
    assert b"6.6.6.6" not in b"".join(lines)
    assert not [line for line in await house.sent(b"GET /") if line.startswith(b"via")]


async def test_a_visitor_behind_a_trusted_proxy_is_not_taken_for_it(behind_proxy: House) -> None:
    lines = await behind_proxy.sent(b"GET /", b"X-Forwarded-For: 6.6.6.6, 7.7.7.7")
    assert b"x-vipcloud-client: 7.7.7.7" in lines
    assert b"via: 1.1 proxy" in lines


async def test_a_long_answer_that_the_drain_limit_cuts_does_not_look_whole(house: House) -> None:
    house.answered.clear()
    house.answer = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\na,b\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", house._port)
    writer.write(b"GET /csv HTTP/1.1\r\nHost: x\r\n\r\n")
    got = await reader.readuntil(b"a,b\r\n")
    await house.server.close(0)
    with contextlib.suppress(ConnectionResetError):  # as plain a sign as any
        got += await reader.read()
    house.answered.set()
    writer.close()
    assert got.startswith(b"HTTP/1.1 200")
    assert got.endswith(b"a,b\r\n")

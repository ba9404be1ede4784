"""The gateway in front of a console: what goes to it, what comes back, and what happens while it is away."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from vipcloud.clock import SystemClock
from vipcloud.gateway.app import App
from vipcloud.gateway.console import ConsoleRelay
from vipcloud.http.client import Client
from vipcloud.http.server import HTTPServer
from vipcloud.settings import ClientSettings, ConsoleSettings, ServerSettings

Ask = Callable[[bytes], "asyncio.Future[bytes]"]


class Console:
    """Takes one request per connection, keeps its bytes, and answers with `answer`."""

    def __init__(self) -> None:
        self.requests: list[bytes] = []
        self.answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next((int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")), 0)
        self.requests.append(head + await reader.readexactly(length))
        writer.write(self.answer)
        await writer.drain()
        writer.close()


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[tuple[Console, int, asyncio.Server]]:
    console = Console()
    listener = await asyncio.start_unix_server(console.serve, tmp_path / "c.sock")
    client = Client(ClientSettings())
    relay = ConsoleRelay(client, tmp_path / "c.sock", ConsoleSettings(body_bytes_max=1024))
    app = App({}, SystemClock(), relay.serve)
    server = HTTPServer(app.handle, ServerSettings(), app.render_error)
    port = await server.start("127.0.0.1", 0)
    yield console, port, listener
    await server.close(0)
    client.close()
    listener.close()


async def ask(port: int, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    answer = await reader.read()
    writer.close()
    return answer


async def test_a_request_goes_on_without_what_is_not_its_callers_to_say(
    house: tuple[Console, int, asyncio.Server],
) -> None:
    console, port, _ = house
    answer = await ask(
        port,
        b"POST /form?a=1%20b HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 3\r\nCookie: s=1\r\n"
        b"X-Forwarded-For: 6.6.6.6\r\nX-Vipcloud-Client: 6.6.6.6\r\nX-Request-Id: mine\r\nTE: trailers\r\n\r\na=b",
    )
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert answer.endswith(b"hi")
    [request] = console.requests
    head, _, body = request.partition(b"\r\n\r\n")
    assert head.startswith(b"POST /form?a=1%20b HTTP/1.1\r\n")
    assert body == b"a=b"
    assert b"cookie: s=1" in head
    assert b"x-vipcloud-client: 127.0.0.1" in head
    assert b"6.6.6.6" not in head
    assert b"mine" not in head
    assert b"trailers" not in head


async def test_every_cookie_of_an_answer_arrives_and_no_foreign_origin_is_let_in(
    house: tuple[Console, int, asyncio.Server],
) -> None:
    console, port, _ = house
    cookies = b"set-cookie: a=1; Path=/\r\nset-cookie: b=2\r\n"
    console.answer = b"HTTP/1.1 302 Found\r\n%blocation: /next\r\ncontent-length: 0\r\n\r\n" % cookies
    answer = await ask(port, b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert cookies in answer
    assert b"location: /next" in answer
    assert b"x-request-id: req_" in answer
    assert b"access-control-allow-origin" not in answer


async def test_head_is_answered_without_a_body(house: tuple[Console, int, asyncio.Server]) -> None:
    console, port, _ = house
    answer = await ask(port, b"HEAD / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert console.requests[0].startswith(b"GET / ")
    assert answer.startswith(b"HTTP/1.1 200 OK")
    assert answer.endswith(b"\r\n\r\n")


async def test_a_long_answer_streams_and_a_cut_one_does_not_look_whole(
    house: tuple[Console, int, asyncio.Server],
) -> None:
    console, port, _ = house
    row = b"x" * 1000
    console.answer = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + b"3e8\r\n%b\r\n" % row * 300
    cut = await ask(port, b"GET /csv HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert not cut.endswith(b"0\r\n\r\n")
    console.answer += b"0\r\n\r\n"
    whole = await ask(port, b"GET /csv HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert whole.endswith(b"0\r\n\r\n")
    assert whole.count(b"x") >= 300_000


@pytest.mark.parametrize(
    ("accept", "said"), [(b"text/html", b"The API is a separate"), (b"*/*", b"service_unavailable")]
)
async def test_while_the_console_is_away_only_its_pages_are(
    house: tuple[Console, int, asyncio.Server], tmp_path: Path, accept: bytes, said: bytes
) -> None:
    _, port, listener = house
    listener.close()
    (tmp_path / "c.sock").unlink(missing_ok=True)
    answer = await ask(port, b"GET / HTTP/1.1\r\nHost: x\r\nAccept: %b\r\nConnection: close\r\n\r\n" % accept)
    assert answer.startswith(b"HTTP/1.1 503")
    assert b"retry-after: 2" in answer
    assert said in answer


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhi"], ids=["none", "cut"])
@pytest.mark.parametrize("accept", [b"text/html", b"*/*"])
@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"POST", b"DELETE"])
async def test_what_the_console_may_have_done_is_not_to_be_sent_again_unseen(
    house: tuple[Console, int, asyncio.Server], method: bytes, accept: bytes, answer: bytes
) -> None:
    console, port, _ = house
    console.answer = answer
    told = await ask(port, b"%b /x HTTP/1.1\r\nHost: x\r\nAccept: %b\r\nConnection: close\r\n\r\n" % (method, accept))
    assert len(console.requests) == 1
    assert told.startswith(b"HTTP/1.1 503")
    reads = method in (b"GET", b"HEAD")
    assert (b"retry-after: 2" in told) is reads
    assert (b"Look whether it was done" in told) is not reads
    assert b"Load this page again" not in told or method == b"GET"


async def test_what_never_reached_the_console_may_be_sent_again(
    house: tuple[Console, int, asyncio.Server], tmp_path: Path
) -> None:
    _, port, listener = house
    listener.close()
    (tmp_path / "c.sock").unlink(missing_ok=True)
    told = await ask(port, b"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert b"retry-after: 2" in told
    assert b"Look whether" not in told


async def test_a_large_body_is_refused_before_it_is_read(house: tuple[Console, int, asyncio.Server]) -> None:
    console, port, _ = house
    answer = await ask(port, b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 413")
    assert console.requests == []

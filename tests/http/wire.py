"""HTTP as bytes over loopback: clients and peers that behave, and those that do not."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from vipcloud.http.server import TYPE_JSON, Exchange, HTTPServer

Serve = Callable[..., Coroutine[Any, Any, "Served"]]
Script = Callable[["Wire"], Coroutine[Any, Any, None]]

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
CHUNKED_HEAD = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"


async def until(condition: Callable[[], object]) -> None:
    """Wait for what no event tells of."""
    for _ in range(10_000):
        if condition():
            return
        await asyncio.sleep(0.002)
    raise TimeoutError


def get(path: str, *lines: str) -> bytes:
    return "".join(f"{line}\r\n" for line in (f"GET {path} HTTP/1.1", "Host: a", *lines, "")).encode()


def post(body: bytes, *lines: str, path: str = "/") -> bytes:
    head = (f"POST {path} HTTP/1.1", "Host: a", f"Content-Length: {len(body)}", *lines, "")
    return "".join(f"{line}\r\n" for line in head).encode() + body


@dataclass(frozen=True)
class Answer:
    """One answer off the wire. `interim` are the statuses of the 1xx answers before it."""

    status: int
    headers: dict[str, str]
    body: bytes
    interim: tuple[int, ...] = ()


class Wire:
    """One end of a TCP connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def trickle(self, data: bytes) -> None:
        """One byte per packet, as far as the system lets us."""
        for at in range(len(data)):
            self.writer.write(data[at : at + 1])
            await asyncio.sleep(0)

    async def head(self) -> tuple[str, dict[str, str]]:
        """The first line and the headers, with lower-case names."""
        first, *lines = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")[:-2]
        pairs = [line.partition(": ")[::2] for line in lines]
        assert all(name and name == name.lower() for name, _ in pairs), lines
        assert len({name for name, _ in pairs}) == len(pairs), f"a header twice: {lines}"
        return first, dict(pairs)

    async def answer(self, method: str = "GET") -> Answer:
        """The next answer, parsed strictly."""
        interim: list[int] = []
        while True:
            first, headers = await self.head()
            version, code, _ = first.split(" ", 2)
            assert version == "HTTP/1.1"
            status = int(code)
            if status >= 200:
                return Answer(status, headers, await self._body(method, status, headers), tuple(interim))
            interim.append(status)

    async def _body(self, method: str, status: int, headers: dict[str, str]) -> bytes:
        assert "date" in headers
        if method == "HEAD" or status in (204, 304):
            return b""
        if "content-length" in headers:
            return await self.reader.readexactly(int(headers["content-length"]))
        if headers.get("transfer-encoding") != "chunked":
            assert headers["connection"] == "close"
            return await self.reader.read()
        parts = []
        while size := int((await self.reader.readuntil(b"\r\n"))[:-2], 16):
            parts.append(await self.reader.readexactly(size))
            assert await self.reader.readexactly(2) == b"\r\n"
        assert await self.reader.readexactly(2) == b"\r\n"
        return b"".join(parts)

    async def ended(self) -> bool:
        """True once the peer has closed, in whatever way, without another byte."""
        try:
            return await self.reader.read(1) == b""
        except ConnectionError:
            return True

    async def is_silent(self, for_s: float = 0.05) -> bool:
        """No byte comes and the connection stays open for a moment."""
        try:
            await asyncio.wait_for(self.reader.read(1), for_s)
        except TimeoutError:
            return True
        return False

    def half_close(self) -> None:
        self.writer.write_eof()

    def close(self) -> None:
        self.writer.close()

    def reset(self) -> None:
        linger = struct.pack("ii", 1, 0)
        self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.writer.transport.abort()


@asynccontextmanager
async def dial(port: int, host: str = "127.0.0.1", read_buffer_bytes: int = 0) -> AsyncIterator[Wire]:
    """A connection to `port`. A small `read_buffer_bytes` makes a reader that fills up at once."""
    client = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    client.settimeout(0)
    if read_buffer_bytes:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, read_buffer_bytes)
    try:
        await asyncio.get_running_loop().sock_connect(client, (host, port))
    except OSError:
        client.close()
        raise
    reader, writer = await asyncio.open_connection(sock=client, limit=read_buffer_bytes or 1 << 20)
    try:
        yield Wire(reader, writer)
    finally:
        writer.transport.abort()


@dataclass(frozen=True)
class Served:
    """A server that runs."""

    server: HTTPServer
    host: str
    port: int

    def dial(self, read_buffer_bytes: int = 0) -> "Any":
        return dial(self.port, self.host, read_buffer_bytes)

    async def ask(self, data: bytes, method: str = "GET") -> Answer:
        """One answer to `data` on a connection of its own."""
        async with self.dial() as wire:
            wire.send(data)
            return await wire.answer(method)

    async def emptied(self) -> None:
        """Wait until no connection is left."""
        await until(lambda: not self.server.connections)


class Echo:
    """A handler that answers with method, path and body, and remembers what reached it."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    async def __call__(self, exchange: Exchange) -> None:
        self.seen.append(f"{exchange.method} {exchange.path}")
        body = await exchange.body()
        exchange.respond(200, TYPE_JSON, f"{exchange.method} {exchange.path} ".encode() + body)


class Stuck:
    """A handler that never ends by itself. `entered` and `left` tell when it was called and cancelled."""

    def __init__(self) -> None:
        self.entered = asyncio.Event()
        self.left = asyncio.Event()
        self.exchange: Exchange | None = None

    async def __call__(self, exchange: Exchange) -> None:
        self.exchange = exchange
        await exchange.body()
        self.entered.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.left.set()


class Peer:
    """An HTTP peer that plays one script per connection, in order; the last one over and over."""

    def __init__(self, *scripts: Script) -> None:
        self.scripts = list(scripts)
        self.accepted = 0
        self.requests: list[bytes] = []
        self.port = 0

    @asynccontextmanager
    async def listening(self, **options: Any) -> AsyncIterator["Peer"]:
        tasks: set[asyncio.Task[None]] = set()

        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            tasks.add(task := asyncio.current_task())
            script = self.scripts[min(self.accepted, len(self.scripts) - 1)]
            self.accepted += 1
            try:
                await script(Wire(reader, writer))
            except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
                pass  # the client left, or the test is over
            finally:
                writer.transport.abort()
                tasks.discard(task)

        listener = await asyncio.start_server(accept, "127.0.0.1", 0, **options)
        self.port = listener.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            listener.close()
            for task in tasks:
                task.cancel()
            await until(lambda: not tasks)

    async def request(self, wire: Wire) -> bytes:
        """Read one request's head and body."""
        head = await wire.reader.readuntil(b"\r\n\r\n")
        length = next((int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")), 0)
        self.requests.append(head + await wire.reader.readexactly(length))
        return self.requests[-1]

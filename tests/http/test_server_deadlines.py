"""Which time limit holds when several do: a connection by itself, whose clock is the test."""

import asyncio
import socket
import struct

import pytest

from vipcloud.http.server import Connection, Exchange, HTTPServer
from vipcloud.settings import ServerSettings
from wire import GET, post


class Options:
    """A socket as far as a transport shows it: what is set of it."""

    def __init__(self) -> None:
        self.told: list[tuple[int, bytes]] = []

    def setsockopt(self, level: int, name: int, value: bytes) -> None:
        assert level == socket.SOL_SOCKET
        self.told.append((name, value))


class Pipe(asyncio.Transport):
    """What is written stays in its buffer; the test says how much of it."""

    def __init__(self) -> None:
        self.options = Options()
        super().__init__({"socket": self.options})
        self.unsent_bytes = 0
        self.aborted = False
        self.closed = False
        self.written = b""

    def write(self, data: bytes) -> None:  # type: ignore[override]
        self.written += data

    def get_write_buffer_size(self) -> int:
        return self.unsent_bytes

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def is_closing(self) -> bool:
        return self.aborted or self.closed

    def abort(self) -> None:
        self.aborted = True

    def close(self) -> None:
        self.closed = True

    def can_write_eof(self) -> bool:
        return False

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


SETTINGS = ServerSettings(
    head_timeout_s=40, body_timeout_s=40, linger_timeout_s=40, write_stall_timeout_s=30, keepalive_timeout_s=1000
)
HALF_A_HEAD = b"GET / HTTP/1.1\r\nHo"


async def connected(gate: asyncio.Event | None = None) -> tuple[Connection, Pipe]:
    async def handler(exchange: Exchange) -> None:
        await exchange.body()
        if gate is not None:
            await gate.wait()
        exchange.respond(200, b"")

    pipe = Pipe()
    connection = Connection(HTTPServer(handler, SETTINGS))
    connection.connection_made(pipe)
    return connection, pipe


async def settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def let_pass(connection: Connection, pipe: Pipe, after_s: float) -> float:
    """Let `after_s` pass from now, by which the reader has taken some of what waits for it. The clock then."""
    pipe.unsent_bytes -= 1
    now = asyncio.get_running_loop().time() + after_s
    if connection.deadline <= now:
        connection.expire(now)
    return now


@pytest.mark.parametrize("half", [HALF_A_HEAD, post(b"abc")[:-1]], ids=["head", "body"])
@pytest.mark.parametrize("first", ["stall", "request"])
async def test_a_reader_that_is_slow_has_no_more_time_to_send(half: bytes, first: str) -> None:
    connection, pipe = await connected()
    connection.data_received(GET)
    await settled()
    pipe.unsent_bytes = 1000
    if first == "stall":
        connection.pause_writing()
    connection.data_received(half)
    if first == "request":
        connection.pause_writing()
    await settled()
    assert b"408" not in pipe.written
    now = let_pass(connection, pipe, 31)  # the reader is seen to go on
    assert not pipe.aborted
    assert connection.deadline <= now + 10
    let_pass(connection, pipe, 42)
    await settled()
    assert b"HTTP/1.1 408" in pipe.written
    connection.connection_lost(None)


async def test_a_reader_that_has_caught_up_has_the_time_it_had() -> None:
    connection, pipe = await connected()
    connection.data_received(GET)
    await settled()
    pipe.unsent_bytes = 1000
    connection.pause_writing()
    await asyncio.sleep(0)
    connection.data_received(HALF_A_HEAD)
    connection.resume_writing()
    let_pass(connection, pipe, 38)
    await settled()
    assert b"HTTP/1.1 408" not in pipe.written
    let_pass(connection, pipe, 42)
    await settled()
    assert b"HTTP/1.1 408" in pipe.written
    connection.connection_lost(None)


async def test_a_reader_that_is_slow_does_not_linger_longer() -> None:
    connection, pipe = await connected()
    connection.data_received(b"GET / HTTP/1.1\r\n\r\n" + GET)
    await settled()
    assert b"HTTP/1.1 400" in pipe.written
    pipe.unsent_bytes = 1000
    connection.pause_writing()
    let_pass(connection, pipe, 31)
    assert not pipe.is_closing()
    let_pass(connection, pipe, 42)
    assert pipe.closed
    assert pipe.options.told == []
    connection.connection_lost(None)


async def test_a_reader_that_takes_nothing_is_cut_whatever_else_is_awaited() -> None:
    connection, pipe = await connected()
    connection.data_received(GET)
    await settled()
    pipe.unsent_bytes = 1000
    connection.pause_writing()
    connection.data_received(HALF_A_HEAD)
    connection.expire(asyncio.get_running_loop().time() + 31)
    assert pipe.aborted
    assert pipe.options.told == [(socket.SO_LINGER, struct.pack("ii", 1, 0))]
    connection.connection_lost(None)


async def test_a_bad_upgrade_offer_does_not_end_what_runs_before_it() -> None:
    connection, pipe = await connected(gate := asyncio.Event())
    connection.data_received(GET + b"GET / HTTP/1.1\r\n")
    connection.data_received(b"Connection: upgrade\r\nUpgrade: h2c\r\n\r\n")
    await settled()
    pipe.unsent_bytes = 1000
    connection.pause_writing()
    for after_s in (31, 42, 1001):
        let_pass(connection, pipe, after_s)
    assert not pipe.closed
    connection.resume_writing()
    gate.set()
    await settled()
    assert pipe.written.count(b"HTTP/1.1 200") == pipe.written.count(b"HTTP/1.1 400") == 1
    connection.connection_lost(None)

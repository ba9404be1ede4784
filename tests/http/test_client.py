"""The pool and its calls, against peers that behave and peers that do not."""

import asyncio
import os
import random
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec
import pytest

from vipcloud.http.client import (
    STALE_S,
    Address,
    Client,
    ClientError,
    ConnectFailed,
    ConnectionBroken,
    Origin,
    ResponseInvalid,
    TimedOut,
    split_url,
)
from vipcloud.http.server import Exchange
from vipcloud.settings import ClientSettings
from wire import Echo, Peer, Script, Serve, Wire, until

REQUEST = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

Connect = Callable[..., Origin]


@pytest.fixture
async def connect(faults: list[dict[str, object]]) -> AsyncIterator[Connect]:
    """Makes origins on the loopback; settings by keyword. Afterwards no socket of theirs may be open."""
    clients: list[Client] = []

    def make(port: int, *, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1", **settings: float) -> Origin:
        client = Client(msgspec.structs.replace(ClientSettings(), **settings), tls)
        clients.append(client)
        return client.origin(Address("https" if tls else "http", host, port))

    yield make
    for client in clients:
        client.close()
        await asyncio.sleep(0)
        assert client.open_count == 0


def soon(seconds: float = 5) -> float:
    return asyncio.get_running_loop().time() + seconds


async def ask(origin: Origin, data: bytes = REQUEST, deadline_s: float = 5) -> bytes:
    response = await origin.send(data, soon(deadline_s))
    try:
        return await response.read(1 << 20)
    finally:
        response.release()


def answers(*replies: bytes) -> Script:
    """One request, one reply, and so on; the last over and over, until the client leaves."""

    async def script(wire: Wire) -> None:
        for at in range(1 << 30):
            await wire.reader.readuntil(b"\r\n\r\n")
            wire.send(replies[min(at, len(replies) - 1)])

    return script


def once(reply: bytes) -> Script:
    """One request, this reply, and the end."""

    async def script(wire: Wire) -> None:
        await wire.reader.readuntil(b"\r\n\r\n")
        wire.send(reply)
        wire.half_close()
        await wire.reader.read()

    return script


async def silent(wire: Wire) -> None:
    await wire.reader.read()
    await asyncio.Event().wait()


# --- the pool


async def test_a_connection_is_used_again(connect: Connect) -> None:
    async with Peer(answers(OK)).listening() as peer:
        origin = connect(peer.port)
        for _ in range(5):
            assert await ask(origin) == b"ok"
        assert (peer.accepted, origin.open_count, origin.idle_count) == (1, 1, 1)


async def test_the_connection_used_last_is_taken_first(connect: Connect) -> None:
    used: list[int] = []

    async def script(wire: Wire) -> None:
        me = peer.accepted
        while True:
            await wire.reader.readuntil(b"\r\n\r\n")
            used.append(me)
            wire.send(OK)

    peer = Peer(script)
    async with peer.listening():
        origin = connect(peer.port)
        await asyncio.gather(*[ask(origin) for _ in range(3)])
        last = used[-1]
        used.clear()
        for _ in range(4):
            await ask(origin)
        assert used == [last] * 4


async def test_no_more_connections_than_allowed_and_calls_are_served_in_turn(connect: Connect) -> None:
    async with Peer(answers(OK)).listening() as peer:
        origin = connect(peer.port, connections_max=3)
        done: list[int] = []

        async def call(number: int) -> None:
            assert await ask(origin) == b"ok"
            done.append(number)
            assert origin.open_count <= 3

        await asyncio.gather(*[call(number) for number in range(60)])
        assert peer.accepted == 3
        assert all(abs(number - at) < 6 for at, number in enumerate(done)), done


async def test_a_call_that_finds_no_place_in_time_or_too_long_a_queue_fails(connect: Connect) -> None:
    async with Peer(silent).listening() as peer:
        origin = connect(peer.port, connections_max=1, waiting_max=1, connect_timeout_s=0.1)
        running, waiting = [asyncio.create_task(origin.send(REQUEST, soon())) for _ in range(2)]
        await asyncio.sleep(0.02)
        with pytest.raises(ConnectFailed, match="too many"):
            await origin.send(REQUEST, soon())
        with pytest.raises(ConnectFailed, match="in time"):
            await waiting
        with pytest.raises(ConnectFailed, match="in time"):
            await origin.send(REQUEST, soon())
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


@pytest.mark.parametrize("given_back", [True, False], ids=["given back", "cut"])
@pytest.mark.parametrize("error", [ConnectFailed, asyncio.CancelledError])
async def test_a_call_that_stops_waiting_just_before_a_place_comes_free_fails_as_any_other(
    connect: Connect, error: type[BaseException], given_back: bool
) -> None:
    async with Peer(answers(OK[:-1], OK), answers(OK)).listening() as peer:
        origin = connect(peer.port, connections_max=1, waiting_max=1)
        running = await origin.send(REQUEST, soon())
        if error is ConnectFailed:  # its time is up in the next turn
            origin.settings = msgspec.structs.replace(origin.settings, connect_timeout_s=0)
        waiting = asyncio.create_task(origin.send(REQUEST, soon()))
        await asyncio.sleep(0)
        assert len(origin._waiting) == 1
        loop = asyncio.get_running_loop()
        if error is asyncio.CancelledError:
            loop.call_soon(waiting.cancel)
        if given_back:
            loop.call_soon(running.connection.data_received, b"k")  # the end of its answer
        else:
            loop.call_soon(running.abort)
        with pytest.raises(error):
            await waiting
        assert (len(origin._waiting), origin._opening, origin.idle_count) == (0, 0, given_back)
        origin.settings = ClientSettings()
        assert await ask(origin) == b"ok"


async def test_a_failed_connect_lets_the_next_in_the_queue_try(connect: Connect) -> None:
    origin = connect(1, connections_max=1, connect_timeout_s=2)
    started = asyncio.get_running_loop().time()
    results = await asyncio.gather(*[origin.send(REQUEST, soon()) for _ in range(5)], return_exceptions=True)
    assert all(isinstance(result, ConnectFailed) for result in results)
    assert asyncio.get_running_loop().time() - started < 1


async def test_an_idle_connection_is_closed_after_a_while(connect: Connect) -> None:
    async with Peer(answers(OK)).listening() as peer:
        origin = connect(peer.port, idle_timeout_s=0.1)
        await ask(origin)
        await until(lambda: not origin.open_count)
        assert await ask(origin) == b"ok"


async def test_a_closed_client_fails_calls_that_wait(connect: Connect) -> None:
    async with Peer(silent).listening() as peer:
        origin = connect(peer.port, connections_max=1)
        calls = [asyncio.create_task(origin.send(REQUEST, soon())) for _ in range(3)]
        await asyncio.sleep(0.05)
        origin.close()
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert [type(result) for result in results] == [ConnectionBroken, ConnectFailed, ConnectFailed]
        with pytest.raises(ConnectFailed):
            await origin.send(REQUEST, soon())


# --- stale connections


async def test_a_stale_connection_is_replaced_once_without_the_caller_noticing(connect: Connect) -> None:
    async def leaves_at_the_second(wire: Wire) -> None:
        await wire.reader.readuntil(b"\r\n\r\n")
        wire.send(OK)
        await wire.reader.readuntil(b"\r\n\r\n")
        wire.reset()

    async with Peer(leaves_at_the_second, answers(OK)).listening() as peer:
        origin = connect(peer.port, connections_max=1)
        assert await ask(origin) == b"ok"
        assert await ask(origin) == b"ok"
        assert peer.accepted == 2


async def test_only_one_new_connection_is_tried(connect: Connect) -> None:
    async def leaves_at_the_second(wire: Wire) -> None:
        await wire.reader.readuntil(b"\r\n\r\n")
        wire.send(OK)
        await wire.reader.readuntil(b"\r\n\r\n")
        wire.reset()

    async def leaves(wire: Wire) -> None:
        await wire.reader.readuntil(b"\r\n\r\n")
        wire.reset()

    async with Peer(leaves_at_the_second, leaves).listening() as peer:
        origin = connect(peer.port)
        await ask(origin)
        with pytest.raises(ConnectionBroken):
            await ask(origin)
        assert peer.accepted == 2


async def test_a_new_connection_that_dies_is_not_tried_again(connect: Connect) -> None:
    async def leaves(wire: Wire) -> None:
        await wire.reader.readuntil(b"\r\n\r\n")
        wire.reset()

    async with Peer(leaves).listening() as peer:
        with pytest.raises(ConnectionBroken):
            await ask(connect(peer.port))
        assert peer.accepted == 1


async def test_a_connection_that_broke_while_idle_is_replaced_though_its_end_is_seen_only_now(connect: Connect) -> None:
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0)
        origin = connect(listener.getsockname()[1])

        async def accept() -> socket.socket:
            """Take the next connection and answer one request on it."""
            peer, _ = await loop.sock_accept(listener)
            peer.settimeout(0)
            assert await loop.sock_recv(peer, 1000) == REQUEST
            await loop.sock_sendall(peer, OK)
            return peer

        first = asyncio.create_task(accept())
        assert await ask(origin) == b"ok"
        (await first).close()
        assert origin.idle_count == 1  # nobody has looked
        second = asyncio.create_task(accept())
        assert await ask(origin) == b"ok"
        (await second).close()


@pytest.mark.parametrize("end", ["half_close", "reset"])
@pytest.mark.parametrize("late", [False, True], ids=["at once", "late"])
async def test_nothing_is_sent_twice_that_the_peer_had_time_to_work_on(connect: Connect, end: str, late: bool) -> None:
    asked, gate = asyncio.Event(), asyncio.Event()

    async def breaks_at_the_second(wire: Wire) -> None:
        await wire.reader.readuntil(b"\r\n\r\n")
        wire.send(OK)
        await wire.reader.readuntil(b"\r\n\r\n")
        asked.set()
        await gate.wait()
        getattr(wire, end)()
        await wire.reader.read()

    async with Peer(breaks_at_the_second, answers(OK)).listening() as peer:
        origin = connect(peer.port)
        await ask(origin)
        (connection,) = origin._idle
        call = asyncio.create_task(ask(origin))
        await asked.wait()
        connection._asked_s += -2 * STALE_S if late else 60  # not to depend on how busy this machine is
        gate.set()
        if late:
            with pytest.raises(ConnectionBroken):
                await call
        else:
            assert await call == b"ok"
        assert peer.accepted == (1 if late else 2)


@pytest.mark.parametrize("begun", [b"H", b"HTTP/1.1 100 Continue\r\n\r\n", OK[:-1]])
async def test_nothing_is_sent_twice_once_a_byte_of_an_answer_came(connect: Connect, begun: bytes) -> None:
    async def breaks_at_the_second(wire: Wire) -> None:
        await wire.reader.readuntil(b"\r\n\r\n")
        wire.send(OK)
        await wire.reader.readuntil(b"\r\n\r\n")
        wire.send(begun)
        await wire.writer.drain()

    async with Peer(breaks_at_the_second).listening() as peer:
        origin = connect(peer.port)
        await ask(origin)
        with pytest.raises(ConnectionBroken):
            await ask(origin)
        assert peer.accepted == 1


# --- time


@pytest.mark.parametrize("reply", [b"", b"HTTP/1.1 200", b"HTTP/1.1 100 Continue\r\n\r\n"])
async def test_an_answer_that_does_not_begin_times_out(connect: Connect, reply: bytes) -> None:
    async def script(wire: Wire) -> None:
        wire.send(reply)
        await silent(wire)

    async def later(wire: Wire) -> None:
        await wire.reader.readuntil(b"\r\n\r\n")
        await script(wire)

    async with Peer(later).listening() as peer:
        origin = connect(peer.port)
        with pytest.raises(TimedOut) as caught:
            await ask(origin, deadline_s=0.1)
        assert caught.value.phase == "first_byte"
        assert origin.open_count == 0


@pytest.mark.parametrize("phase", ["idle", "total"])
async def test_a_body_that_stops_times_out_with_the_phase_that_was_set(connect: Connect, phase: str) -> None:
    async with Peer(answers(OK[:-1])).listening() as peer:
        origin = connect(peer.port)
        response = await origin.send(REQUEST, soon())
        response.expect(soon(0.1), phase)
        with pytest.raises(TimedOut) as caught:
            await response.read(100)
        assert caught.value.phase == phase
        assert origin.open_count == 0


@pytest.mark.parametrize("phase", ["first_byte", "idle"])
async def test_a_pause_moves_every_deadline_but_that_of_the_whole(connect: Connect, phase: str) -> None:
    async with Peer(answers(OK[:-1])).listening() as peer:
        response = await connect(peer.port).send(REQUEST, soon())
        connection, began = response.connection, soon(0)
        response.total_deadline = began + 300
        response.pause()
        response.expect(began + 60, phase)
        for after_s in (60, 200, 299.5):
            connection.expire(began + after_s)
            assert response.error is None
            assert connection.deadline == began + min(after_s + 1, 300)
        connection.expire(began + 300)
        assert isinstance(response.error, TimedOut)
        assert response.error.phase == "total"


async def test_a_pause_does_not_move_the_deadline_of_the_whole_where_that_is_awaited(connect: Connect) -> None:
    async with Peer(answers(OK[:-1])).listening() as peer:
        response = await connect(peer.port).send(REQUEST, soon())
        response.pause()
        response.expect(soon(60), "total")
        response.connection.expire(soon(60))
        assert isinstance(response.error, TimedOut)
        assert response.error.phase == "total"


async def test_connecting_times_out(connect: Connect) -> None:
    async with Peer(silent).listening() as peer:
        origin = connect(peer.port, tls=ssl.create_default_context(), connect_timeout_s=0.2)
        with pytest.raises(TimedOut) as caught:
            await ask(origin)
        assert caught.value.phase == "connect"
        assert origin.open_count == 0


async def test_a_refused_connection_fails(connect: Connect) -> None:
    with pytest.raises(ConnectFailed):
        await ask(connect(1))


# --- answers


GOOD = {
    "length": (OK, b"ok"),
    "chunked": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\no\r\n1;x\r\nk\r\n0\r\nT: u\r\n\r\n", b"ok"),
    "interim": (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + OK, b"ok"),
    "empty": (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b""),
    "no content": (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
    "no reason": (b"HTTP/1.1 200 \r\nContent-Length: 2\r\n\r\nok", b"ok"),
}


@pytest.mark.parametrize("name", GOOD)
async def test_an_answer_is_read_in_one_piece_and_in_single_bytes(connect: Connect, name: str) -> None:
    reply, body = GOOD[name]

    async def trickles(wire: Wire) -> None:
        while True:
            await wire.reader.readuntil(b"\r\n\r\n")
            for at in range(len(reply)):
                wire.send(reply[at : at + 1])
                await asyncio.sleep(0.0005)

    for script in (answers(reply), trickles):
        async with Peer(script).listening() as peer:
            origin = connect(peer.port)
            assert await ask(origin) == body
            assert await ask(origin) == body
            assert peer.accepted == 1


@pytest.mark.parametrize(
    "reply",
    [b"HTTP/1.1 200 OK\r\n\r\nok", b"HTTP/1.0 200 OK\r\n\r\nok", b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nok"],
)
async def test_a_body_may_end_with_the_connection(connect: Connect, reply: bytes) -> None:
    async with Peer(once(reply)).listening() as peer:
        origin = connect(peer.port)
        assert await ask(origin) == b"ok"
        assert await ask(origin) == b"ok"
        assert (peer.accepted, origin.idle_count) == (2, 0)


async def test_a_connection_that_the_peer_will_close_is_not_kept(connect: Connect) -> None:
    reply = OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    async with Peer(answers(reply)).listening() as peer:
        origin = connect(peer.port)
        assert await ask(origin) == b"ok"
        assert origin.open_count == 0


BAD = {
    "garbage": b"\x00garbage\r\n\r\n",
    "another protocol": b"SSH-2.0-OpenSSH\r\n\r\n",
    "bare line feeds": b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
    "two lengths": OK.replace(b"\r\n\r\n", b"\r\nContent-Length: 3\r\n\r\n"),
    "length and encoding": OK.replace(b"\r\n\r\n", b"\r\nTransfer-Encoding: chunked\r\n\r\n"),
    "signed length": OK.replace(b": 2", b": +2"),
    "bad chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n",
    "switching protocols": b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
    "endless head": b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 20_000,
    "one endless header": b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000,
    "endless interim answers": b"HTTP/1.1 103 Early Hints\r\n\r\n" * 5_000,
}


@pytest.mark.parametrize("name", BAD)
async def test_a_malformed_answer_is_an_error_and_its_connection_cut(connect: Connect, name: str) -> None:
    async with Peer(answers(BAD[name])).listening() as peer:
        origin = connect(peer.port)
        with pytest.raises(ResponseInvalid):
            await ask(origin)
        assert origin.open_count == 0


async def test_an_answer_above_the_limit_is_an_error(connect: Connect) -> None:
    body = bytes(100_000)
    async with Peer(answers(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)).listening() as peer:
        origin = connect(peer.port)
        response = await origin.send(REQUEST, soon())
        with pytest.raises(ResponseInvalid):
            await response.read(99_999)
        assert origin.open_count == origin.idle_count, "cut, unless it had come whole"
        response = await origin.send(REQUEST, soon())
        assert await response.read(100_000) == body


async def test_a_short_answer_can_be_read_without_waiting_and_a_longer_one_not_yet(connect: Connect) -> None:
    async with Peer(answers(OK, OK[:-1])).listening() as peer:
        origin = connect(peer.port)
        response = await origin.send(REQUEST, soon())
        await until(lambda: response.complete)
        assert response.read_now(2) == b"ok"
        with pytest.raises(ResponseInvalid):
            response.read_now(1)
        response = await origin.send(REQUEST, soon())
        assert response.read_now(2) is None
        response.abort()


async def test_headers_have_lower_case_names_and_of_repeated_ones_the_last_counts(connect: Connect) -> None:
    lines = b"X: 1\r\nRetry-After: 2\r\nX: 3\r\nTransfer-Encoding: chunked\r\n"
    first = b"HTTP/1.1 200 OK\r\n" + lines + b"\r\n0\r\nTrailer: t\r\n\r\n"
    async with Peer(answers(first, b"HTTP/1.1 103 Early Hints\r\nLink: l\r\n\r\n" + OK)).listening() as peer:
        origin = connect(peer.port)
        response = await origin.send(REQUEST, soon())
        assert await response.read(0) == b""
        assert response.headers == {b"x": b"3", b"retry-after": b"2", b"transfer-encoding": b"chunked"}
        response = await origin.send(REQUEST, soon())
        assert response.headers == {b"content-length": b"2"}
        assert await response.read(2) == b"ok"


async def test_an_answer_cut_short_is_an_error_after_what_came(connect: Connect) -> None:
    parts: list[bytes] = []
    async with Peer(once(OK[:-1])).listening() as peer:
        response = await connect(peer.port).send(REQUEST, soon())
        with pytest.raises(ConnectionBroken):
            await response.pipe(parts.append)
    assert b"".join(parts) == b"o"


async def test_a_second_answer_in_the_same_read_is_not_believed(connect: Connect) -> None:
    async with Peer(answers(OK + OK.replace(b"ok", b"no"))).listening() as peer:
        origin = connect(peer.port, connections_max=1)
        results = await asyncio.gather(*[ask(origin) for _ in range(10)])
        assert results == [b"ok"] * 10
        assert (peer.accepted, origin.open_count) == (10, 0)


async def test_bytes_that_nobody_asked_for_end_an_idle_connection(connect: Connect) -> None:
    gate = asyncio.Event()

    async def script(wire: Wire) -> None:
        await wire.reader.readuntil(b"\r\n\r\n")
        wire.send(OK)
        await gate.wait()
        wire.send(OK)
        await wire.reader.read()

    async with Peer(script, answers(OK)).listening() as peer:
        origin = connect(peer.port)
        await ask(origin)
        gate.set()
        await until(lambda: not origin.open_count)
        assert await ask(origin) == b"ok"


# --- piping


def stream(*parts: bytes, gate: asyncio.Event) -> Script:
    """An endless chunked answer: `parts`, and the end once `gate` is open."""

    async def script(wire: Wire) -> None:
        while True:
            await wire.reader.readuntil(b"\r\n\r\n")
            wire.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            for part in parts:
                wire.send(b"%x\r\n%b\r\n" % (len(part), part))
                await wire.writer.drain()
            await gate.wait()
            wire.send(b"0\r\n\r\n")

    return script


@pytest.mark.parametrize("ends", [True, False])
async def test_a_released_connection_is_used_again_if_its_answer_ends_soon(connect: Connect, ends: bool) -> None:
    gate = asyncio.Event()
    async with Peer(stream(b"one", b"[DONE]", gate=gate)).listening() as peer:
        origin = connect(peer.port, release_timeout_s=0.2)
        response = await origin.send(REQUEST, soon())
        taken: list[bytes] = []

        def sink(data: bytes) -> None:
            taken.append(data)
            if b"[DONE]" in b"".join(taken):
                response.stop()

        await response.pipe(sink)
        assert b"".join(taken) == b"one[DONE]"
        response.release()
        response.release()
        if ends:
            gate.set()
            await until(lambda: bool(origin.idle_count))
        else:
            await until(lambda: not origin.open_count)
        assert origin.open_count == ends


async def test_a_paused_answer_stops_its_peer(connect: Connect) -> None:
    sent = 0

    async def script(wire: Wire) -> None:
        nonlocal sent
        await wire.reader.readuntil(b"\r\n\r\n")
        wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (64 << 20))
        for _ in range(1024):
            wire.send(bytes(65536))
            await wire.writer.drain()
            sent += 65536
        await wire.reader.read()

    async with Peer(script).listening() as peer:
        origin = connect(peer.port)
        response = await origin.send(REQUEST, soon(30))
        response.pause()
        before = -1
        while before != sent:
            before = sent
            await asyncio.sleep(0.1)
        assert sent < 32 << 20
        taken = 0

        def sink(data: bytes) -> None:
            nonlocal taken
            taken += len(data)

        response.resume()
        await response.pipe(sink)
        assert taken == 64 << 20
        assert origin.idle_count == 1


@pytest.mark.parametrize("error", [ResponseInvalid("mine"), KeyError("mine")])
@pytest.mark.parametrize("early", [True, False])
async def test_what_a_sink_raises_reaches_its_caller_and_cuts_the_connection(
    connect: Connect, faults: list[dict[str, object]], error: Exception, early: bool
) -> None:
    gate = asyncio.Event()

    def sink(data: bytes) -> None:
        raise error

    async def script(wire: Wire) -> None:
        await wire.reader.readuntil(b"\r\n\r\n")
        wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n" + b"o" * early)
        await gate.wait()
        wire.send(b"k")
        await wire.reader.read()

    async with Peer(script).listening() as peer:
        origin = connect(peer.port)
        response = await origin.send(REQUEST, soon())
        gate.set()
        with pytest.raises(type(error), match="mine"):
            await response.pipe(sink)
        assert origin.open_count == 0
    if isinstance(error, KeyError):
        faults.clear()  # the loop tells of a fault of ours too


async def test_cancelling_a_call_whose_answer_just_came_spares_the_next_user_of_its_connection(
    connect: Connect,
) -> None:
    async with Peer(answers(OK)).listening() as peer:
        origin = connect(peer.port, connections_max=1)
        first = asyncio.create_task(origin.send(REQUEST, soon()))
        await asyncio.sleep(0.01)
        await first
        for _ in range(50):
            doomed = asyncio.create_task(origin.send(REQUEST, soon()))
            follower = asyncio.create_task(ask(origin))
            while not origin.idle_count and not doomed.done():
                waiting = not follower.done() and origin._waiting
                await asyncio.sleep(0)
                if waiting and not origin._waiting:
                    break
            doomed.cancel()
            assert await follower == b"ok"
            await asyncio.gather(doomed, return_exceptions=True)
        assert peer.accepted == 1


# --- TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate for localhost, with its key, in one file."""
    folder = tmp_path_factory.mktemp("tls")
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
    subprocess.run(
        [*command.split(), "-addext", "subjectAltName=DNS:localhost", "-keyout", "key.pem", "-out", "cert.pem"],
        cwd=folder,
        check=True,
        capture_output=True,
    )
    both = folder / "both.pem"
    both.write_bytes((folder / "key.pem").read_bytes() + (folder / "cert.pem").read_bytes())
    return both


def server_tls(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


async def test_a_trusted_certificate_is_accepted_and_its_connection_kept(connect: Connect, certificate: Path) -> None:
    async with Peer(answers(OK)).listening(ssl=server_tls(certificate)) as peer:
        trusting = ssl.create_default_context(cafile=str(certificate.with_name("cert.pem")))
        origin = connect(peer.port, tls=trusting, host="localhost")
        for _ in range(3):
            assert await ask(origin) == b"ok"
        assert peer.accepted == 1


@pytest.mark.parametrize(("host", "trusted"), [("localhost", False), ("127.0.0.1", True)])
async def test_an_untrusted_or_foreign_certificate_is_refused(
    connect: Connect, certificate: Path, host: str, trusted: bool
) -> None:
    async with Peer(answers(OK)).listening(ssl=server_tls(certificate)) as peer:
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)  # the peer's end complains
        context = ssl.create_default_context(cafile=str(certificate.with_name("cert.pem")) if trusted else None)
        origin = connect(peer.port, tls=context, host=host)
        with pytest.raises(ConnectFailed):
            await ask(origin)
        assert origin.open_count == 0


# --- storms


@contextmanager
def no_descriptor_leaks(allowed: Callable[[], int]) -> Iterator[None]:
    before = len(os.listdir("/proc/self/fd"))
    yield
    assert len(os.listdir("/proc/self/fd")) <= before + allowed()


async def slow_echo(exchange: Exchange) -> None:
    """Answers in two parts with pauses of random length before each."""
    for _ in range(random.randrange(3)):
        await asyncio.sleep(0)
    exchange.start(200, b"")
    exchange.write(b"o")
    if random.random() < 0.3:
        await asyncio.sleep(0.001)
    exchange.finish(b"k")


async def test_ten_thousand_cancelled_calls_leave_the_pool_sound_and_no_socket_behind(
    serve: Serve, connect: Connect
) -> None:
    random.seed(7)
    served = await serve(slow_echo)
    origin = connect(served.port, connections_max=20)
    cancelled = 0

    async def call() -> None:
        with suppress(ClientError):
            await ask(origin)

    with no_descriptor_leaks(lambda: 2 * origin.open_count):
        while cancelled < 10_000:
            tasks = [asyncio.create_task(call()) for _ in range(100)]
            for task in random.sample(tasks, 100):
                if random.random() < 0.3:
                    await asyncio.sleep(random.choice((0, 0, 0.0005)))
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            faults = [each for each in results if not isinstance(each, asyncio.CancelledError | None)]
            assert faults == []
            cancelled += len(results) - results.count(None)
        for _ in range(20):
            assert await ask(origin) == b"ok"
        assert origin.open_count == origin.idle_count <= 20
        assert (origin._opening, len(origin._waiting)) == (0, 0)
        await until(lambda: len(served.server.connections) <= origin.open_count)


async def test_a_peer_that_kills_connections_at_random_leaves_the_pool_sound(serve: Serve, connect: Connect) -> None:
    random.seed(11)
    killing = True

    async def handler(exchange: Exchange) -> None:
        if killing and random.random() < 0.3:
            exchange.abort()
            return
        await slow_echo(exchange)
        if killing and random.random() < 0.2:
            exchange.abort()

    served = await serve(handler)
    origin = connect(served.port, connections_max=20)
    with no_descriptor_leaks(lambda: 2 * origin.open_count):
        for _ in range(20):
            results = await asyncio.gather(*[ask(origin) for _ in range(100)], return_exceptions=True)
            assert all(result == b"ok" or isinstance(result, ClientError) for result in results)
        killing = False
        for _ in range(20):
            assert await ask(origin) == b"ok"
        assert origin.open_count == origin.idle_count <= 20
        assert (origin._opening, len(origin._waiting)) == (0, 0)


async def test_the_client_and_the_server_understand_each_other(serve: Serve, connect: Connect) -> None:
    served = await serve(Echo())
    origin = connect(served.port)
    body = bytes(range(256)) * 1000
    data = b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    for _ in range(3):
        assert await ask(origin, data) == b"POST /x " + body


# --- addresses


@pytest.mark.parametrize(
    ("url", "address", "path", "authority"),
    [
        ("http://a", Address("http", "a", 80), "", "a"),
        ("https://a.b/v1/", Address("https", "a.b", 443), "/v1", "a.b"),
        ("http://a:8080/x/y", Address("http", "a", 8080), "/x/y", "a:8080"),
        ("http://a:443", Address("http", "a", 443), "", "a:443"),
        ("http://[::1]:9/v1", Address("http", "::1", 9), "/v1", "[::1]:9"),
        ("https://[::1]", Address("https", "::1", 443), "", "[::1]"),
    ],
)
def test_an_url_is_split(url: str, address: Address, path: str, authority: str) -> None:
    assert split_url(url) == (address, path)
    assert address.authority == authority


@pytest.mark.parametrize("url", ["", "a.b/c", "ftp://a", "http://", "http:///x", "http://a:99999"])
def test_what_is_no_http_url_is_refused(url: str) -> None:
    with pytest.raises(ValueError):
        split_url(url)

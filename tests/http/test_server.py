"""Exchanges over real connections: order, bodies, time, back-pressure and clients that leave."""

import asyncio
import gc
import resource
import sys
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import pytest
from structlog.testing import capture_logs

from vipcloud.errors import BadRequest, GatewayError, RateLimited, Unauthenticated
from vipcloud.http.addresses import bucket, client_address
from vipcloud.http.server import TYPE_JSON, Connection, Exchange, HTTPServer
from vipcloud.settings import ServerSettings
from wire import CHUNKED_HEAD, GET, Echo, Serve, Stuck, get, post, until

LEAVE_S = 0.25  # the longest that a handler may go on after its client has left

# --- requests in a row


async def test_a_connection_serves_one_request_after_the_other(serve: Serve) -> None:
    echo = Echo()
    served = await serve(echo)
    async with served.dial() as wire:
        for at in range(3):
            wire.send(post(b"x" * at, path=f"/{at}"))
            answer = await wire.answer()
            assert (answer.status, answer.body) == (200, f"POST /{at} ".encode() + b"x" * at)
            assert "connection" not in answer.headers
    assert len(echo.seen) == 3


async def test_pipelined_requests_are_answered_in_order_even_if_the_first_is_slow(serve: Serve) -> None:
    gate = asyncio.Event()
    running = 0

    async def handler(exchange: Exchange) -> None:
        nonlocal running
        running += 1
        assert running == 1, "one at a time"
        if exchange.path == "/slow":
            await gate.wait()
        running -= 1
        exchange.respond(200, b"", exchange.path.encode())

    served = await serve(handler)
    async with served.dial() as wire:
        wire.send(get("/slow") + get("/1") + get("/2"))
        assert await wire.is_silent()
        gate.set()
        assert [(await wire.answer()).body for _ in range(3)] == [b"/slow", b"/1", b"/2"]


async def test_many_pipelined_requests_are_all_answered(serve: Serve) -> None:
    served = await serve(Echo(), pipelined_max=4)
    async with served.dial() as wire:
        for at in range(500):
            wire.send(post(b"x" * 1000, path=f"/{at}"))
        for at in range(500):
            assert (await wire.answer()).body.startswith(f"POST /{at} ".encode())


async def test_answers_to_pipelined_requests_wait_for_the_reader(serve: Serve) -> None:
    served_count = 0

    async def handler(exchange: Exchange) -> None:
        nonlocal served_count
        served_count += 1
        exchange.respond(200, b"", bytes(1 << 20))

    served = await serve(handler)
    async with served.dial(read_buffer_bytes=4096) as wire:
        wire.send(GET * 12)
        assert await wire.reader.read(1) == b"H"
        assert served_count < 8
        wire.reader._buffer[:0] = b"H"  # type: ignore[attr-defined]  # the byte that was read goes back
        for _ in range(12):
            assert len((await wire.answer()).body) == 1 << 20
    assert served_count == 12


async def test_connection_close_is_kept_to(serve: Serve) -> None:
    served = await serve(Echo())
    async with served.dial() as wire:
        wire.send(get("/", "Connection: close"))
        assert (await wire.answer()).headers["connection"] == "close"
        assert await wire.ended()


async def test_http_1_0_needs_no_host_and_is_closed(serve: Serve) -> None:
    async def handler(exchange: Exchange) -> None:
        if exchange.path == "/whole":
            exchange.respond(200, b"", b"abc")
        else:
            exchange.start(200, b"")
            exchange.write(b"a")
            exchange.finish(b"bc")

    served = await serve(handler)
    for path in ("/whole", "/parts"):
        async with served.dial() as wire:
            wire.send(f"GET {path} HTTP/1.0\r\nConnection: keep-alive\r\n\r\n".encode())
            answer = await wire.answer()
            assert answer.body == b"abc"
            assert answer.headers["connection"] == "close"
            assert "transfer-encoding" not in answer.headers
            assert await wire.ended()


async def test_head_has_the_headers_of_get_and_no_body(serve: Serve) -> None:
    async def handler(exchange: Exchange) -> None:
        if exchange.path == "/whole":
            exchange.respond(200, TYPE_JSON, b"abc")
        else:
            exchange.start(200, TYPE_JSON)
            exchange.write(b"a")
            exchange.finish(b"bc")

    served = await serve(handler)
    async with served.dial() as wire:
        wire.send(b"HEAD /whole HTTP/1.1\r\nHost: a\r\n\r\nHEAD /parts HTTP/1.1\r\nHost: a\r\n\r\n" + get("/whole"))
        assert (await wire.answer("HEAD")).headers["content-length"] == "3"
        assert (await wire.answer("HEAD")).headers["transfer-encoding"] == "chunked"
        assert (await wire.answer()).body == b"abc"


async def test_204_has_no_length_and_no_body(serve: Serve) -> None:
    async def handler(exchange: Exchange) -> None:
        exchange.respond(204, b"")

    served = await serve(handler)
    async with served.dial() as wire:
        wire.send(GET * 2)
        for _ in range(2):
            answer = await wire.answer()
            assert answer.status == 204
            assert "content-length" not in answer.headers


async def test_a_streamed_answer_comes_part_by_part_and_keeps_the_connection(serve: Serve) -> None:
    gate = asyncio.Event()

    async def handler(exchange: Exchange) -> None:
        exchange.start(200, b"")
        exchange.write(b"one")
        exchange.write(b"")
        await gate.wait()
        exchange.finish(b"two")
        exchange.finish()

    served = await serve(handler)
    async with served.dial() as wire:
        wire.send(GET + GET)
        await wire.head()
        assert await wire.reader.readexactly(8) == b"3\r\none\r\n"
        assert await wire.is_silent()
        gate.set()
        assert await wire.reader.readexactly(13) == b"3\r\ntwo\r\n0\r\n\r\n"
        assert (await wire.answer()).body == b"onetwo"


# --- bodies


@pytest.mark.parametrize("size", [0, 1, 1000, 65_535, 65_536, 300_000])
@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_arrives_as_it_was_sent(serve: Serve, size: int, chunked: bool) -> None:
    content = bytes(at * 7 % 251 for at in range(size))
    chunks = [content[at : at + 999] for at in range(0, size, 999)]
    data = CHUNKED_HEAD + b"".join(b"%X\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"
    served = await serve(Echo())
    assert (await served.ask(data if chunked else post(content))).body == b"POST / " + content


async def test_a_body_that_came_with_its_head_is_there_at_once_and_a_late_one_is_awaited(serve: Serve) -> None:
    at_once: list[bytes | None] = []

    async def handler(exchange: Exchange) -> None:
        at_once.append(exchange.whole)
        body = await exchange.body()
        assert exchange.whole == body
        exchange.respond(200, b"", body)

    served = await serve(handler)
    async with served.dial() as wire:
        wire.send(GET + post(b"abc"))
        assert [(await wire.answer()).body for _ in range(2)] == [b"", b"abc"]
        wire.send(post(b"abc")[:-1])
        await until(lambda: len(at_once) == 3)
        wire.send(b"c")
        assert (await wire.answer()).body == b"abc"
    assert at_once == [b"", b"abc", None]


async def test_an_idle_connection_keeps_nothing_of_its_last_request(serve: Serve) -> None:
    served = await serve(Echo())
    async with served.dial() as wire:
        for _ in range(2):
            wire.send(post(b"abc", path="/forgotten"))
            await wire.answer()
        await until(lambda: not served.server.running)
        gc.collect()
        exchanges = [thing for thing in gc.get_objects() if isinstance(thing, Exchange)]
        assert not [exchange for exchange in exchanges if exchange.target == b"/forgotten"]


async def test_a_body_in_single_bytes_arrives(serve: Serve) -> None:
    served = await serve(Echo())
    async with served.dial() as wire:
        await wire.trickle(CHUNKED_HEAD + b"3;a=b\r\nabc\r\n2\r\nde\r\n0\r\nX: y\r\n\r\n" + post(b"fgh"))
        assert (await wire.answer()).body == b"POST / abcde"
        assert (await wire.answer()).body == b"POST / fgh"


@pytest.mark.parametrize(
    "lines", [("100-Continue",), ("100-continue \t",), ("100-continue", "100-continue"), (",100-continue",)]
)
async def test_continue_is_sent_when_the_handler_asks_for_the_body_and_not_before(
    serve: Serve, lines: tuple[str, ...]
) -> None:
    gate = asyncio.Event()

    async def handler(exchange: Exchange) -> None:
        await gate.wait()
        exchange.respond(200, b"", await exchange.body())

    served = await serve(handler, body_timeout_s=0.3)
    async with served.dial() as wire:
        request = post(b"abc", *[f"Expect: {line}" for line in lines])
        wire.send(request[:-3])
        assert await wire.is_silent(1.0), "waiting to be asked is not slowness of the client"
        gate.set()
        assert (await wire.head())[0] == "HTTP/1.1 100 Continue"
        wire.send(request[-3:])
        answer = await wire.answer()
        assert (answer.body, answer.interim) == (b"abc", ())
        wire.send(post(b"x"))
        assert (await wire.answer()).body == b"x"


async def test_http_1_0_is_sent_no_continue(serve: Serve) -> None:
    asked = asyncio.Event()

    async def handler(exchange: Exchange) -> None:
        asked.set()
        exchange.respond(200, b"", await exchange.body())

    served = await serve(handler)
    async with served.dial() as wire:
        request = post(b"abc", "Expect: 100-continue").replace(b"HTTP/1.1", b"HTTP/1.0")
        wire.send(request[:-3])
        await asked.wait()
        wire.send(request[-3:])
        answer = await wire.answer()
        assert (answer.status, answer.body, answer.interim) == (200, b"abc", ())


async def test_the_body_of_http_1_0_is_not_waited_for_without_an_end(serve: Serve) -> None:
    served = await serve(Echo(), body_timeout_s=0.2)
    async with served.dial() as wire:
        wire.send(post(b"abc", "Expect: 100-continue").replace(b"HTTP/1.1", b"HTTP/1.0")[:-3])
        assert (await wire.answer()).status == 408


async def test_an_early_refusal_sends_no_continue_and_closes(serve: Serve) -> None:
    async def handler(exchange: Exchange) -> None:
        raise Unauthenticated("no")

    served = await serve(handler, linger_timeout_s=0.2)
    async with served.dial() as wire:
        wire.send(post(b"abc", "Expect: 100-continue")[:-3])
        answer = await wire.answer()
        assert (answer.status, answer.interim, answer.headers["connection"]) == (401, (), "close")
        assert await wire.ended()


async def test_a_refusal_after_a_small_body_keeps_the_connection(serve: Serve) -> None:
    async def handler(exchange: Exchange) -> None:
        raise RateLimited("no", retry_after_s=2)

    served = await serve(handler)
    async with served.dial() as wire:
        wire.send(post(b"abc"))
        for _ in range(2):
            answer = await wire.answer()
            assert (answer.status, answer.headers["retry-after"]) == (429, "2")
            wire.send(post(b"abc"))


@pytest.mark.parametrize("declared", [True, False])
async def test_a_client_that_sends_on_still_reads_the_413(serve: Serve, declared: bool) -> None:
    served = await serve(Echo(), body_bytes_max=1 << 20, linger_timeout_s=3)
    size = 4 << 20
    async with served.dial() as wire:
        declared_head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size
        wire.send(declared_head if declared else CHUNKED_HEAD + b"400000\r\n")
        for _ in range(size >> 16):
            wire.send(bytes(1 << 16))
            await wire.writer.drain()
        answer = await wire.answer()
        assert (answer.status, answer.headers["connection"]) == (413, "close")
        assert await wire.ended()
        wire.close()
        await served.emptied()


async def test_a_client_that_never_stops_sending_is_cut_after_lingering(serve: Serve) -> None:
    served = await serve(Echo(), body_bytes_max=1024, linger_timeout_s=0.3)
    async with served.dial() as wire:
        wire.send(CHUNKED_HEAD)

        async def flood() -> None:
            while True:
                wire.send(b"1000\r\n" + bytes(4096) + b"\r\n")
                await wire.writer.drain()
                await asyncio.sleep(0.01)

        with pytest.raises(ConnectionError):
            await flood()
        await served.emptied()


async def test_a_body_that_nobody_asks_for_is_not_taken_in(serve: Serve) -> None:
    stuck = asyncio.Event()
    kept: list[Exchange] = []

    async def handler(exchange: Exchange) -> None:
        kept.append(exchange)
        await stuck.wait()
        exchange.respond(200, b"", b"%d" % len(await exchange.body()))

    served = await serve(handler, body_timeout_s=0.3)
    content = bytes(24 << 20)
    async with served.dial() as wire:
        wire.send(post(content))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(wire.writer.drain(), 0.8)
        assert kept[0].body_bytes <= 2 * 65536
        stuck.set()
        answer = await wire.answer()
        assert (answer.status, answer.body) == (200, b"%d" % len(content)), "the pause was not the client's slowness"


# --- time


@pytest.mark.parametrize("before", [b"", GET])
async def test_a_head_that_stops_gets_408(serve: Serve, before: bytes) -> None:
    served = await serve(Echo(), head_timeout_s=0.2)
    async with served.dial() as wire:
        wire.send(before + b"GET / HTTP/1.1\r\nHost: a\r\nX: y\r\nX: z\r\nY")
        if before:
            assert (await wire.answer()).status == 200
        assert (await asyncio.wait_for(wire.answer(), 2)).status == 408


async def test_an_answer_has_the_date_of_its_second_or_of_the_one_before(serve: Serve) -> None:
    served = await serve(Echo())
    async with served.dial() as wire:
        for pause_s in (1.1, 0):
            wire.send(GET)
            sent = parsedate_to_datetime((await wire.answer()).headers["date"])
            assert 0 <= (datetime.now(UTC) - sent).total_seconds() < 2
            await asyncio.sleep(pause_s)  # the server renews it by itself


async def test_a_head_that_trickles_gets_408(serve: Serve) -> None:
    served = await serve(Echo(), head_timeout_s=0.2)
    async with served.dial() as wire:
        answering = asyncio.create_task(wire.answer())
        wire.send(b"GET / HTTP/1.1\r\nHost: a\r\n")
        while not answering.done():
            wire.send(b"X: y\r\n")
            await asyncio.sleep(0.02)
        assert (await answering).status == 408


async def test_a_body_that_trickles_gets_408(serve: Serve) -> None:
    served = await serve(Echo(), body_timeout_s=0.2)
    async with served.dial() as wire:
        answering = asyncio.create_task(wire.answer())
        wire.send(post(bytes(100_000))[:200])
        while not answering.done():
            wire.send(b"x")
            await asyncio.sleep(0.02)
        assert (await answering).status == 408


async def test_a_body_that_is_slow_but_above_the_floor_is_waited_for(serve: Serve) -> None:
    served = await serve(Echo(), body_timeout_s=0.1, body_rate_min_bytes_s=10_000)
    async with served.dial() as wire:
        data = post(bytes(12_000))
        for at in range(0, len(data), 1000):
            wire.send(data[at : at + 1000])
            await asyncio.sleep(0.04)
        assert (await wire.answer()).status == 200


async def test_slow_heads_on_many_connections_do_not_hold_up_others(serve: Serve) -> None:
    served = await serve(Echo(), head_timeout_s=0.4)

    async def slow() -> int:
        async with served.dial() as wire:
            await wire.trickle(b"GET / HTTP/1.1\r\nHo")
            return (await wire.answer()).status

    async with asyncio.TaskGroup() as group:
        slows = [group.create_task(slow()) for _ in range(200)]
        await asyncio.sleep(0)
        assert (await asyncio.wait_for(served.ask(GET), 0.5)).status == 200
    assert {task.result() for task in slows} == {408}
    await served.emptied()


@pytest.mark.parametrize("sent", [b"", GET, b"\r\n\r\n"])
async def test_an_idle_connection_is_closed(serve: Serve, sent: bytes) -> None:
    served = await serve(Echo(), keepalive_timeout_s=0.2)
    async with served.dial() as wire:
        wire.send(sent)
        if sent == GET:
            await wire.answer()
        assert await wire.ended()
    await served.emptied()


# --- slow readers


async def test_a_source_is_paused_while_its_reader_stops_and_resumed_after(serve: Serve) -> None:
    events: list[str] = []
    paused, resumed = asyncio.Event(), asyncio.Event()

    def pause() -> None:
        events.append("pause")
        paused.set()

    def resume() -> None:
        events.append("resume")
        resumed.set()

    async def handler(exchange: Exchange) -> None:
        exchange.throttle(pause, resume)
        exchange.start(200, b"")
        while not paused.is_set():
            exchange.write(bytes(16384))
            await asyncio.sleep(0)
        await exchange.drain()
        exchange.finish()

    served = await serve(handler)
    async with served.dial(read_buffer_bytes=4096) as wire:
        wire.send(GET)
        await paused.wait()
        connection = next(iter(served.server.connections))
        assert connection._transport.get_write_buffer_size() <= 32768 + 2 * 16384
        assert not resumed.is_set()
        await wire.answer()
        assert events == ["pause", "resume"]


async def test_a_reader_that_takes_nothing_is_cut_and_its_handler_cancelled(serve: Serve) -> None:
    left = asyncio.Event()

    async def handler(exchange: Exchange) -> None:
        exchange.start(200, b"")
        try:
            while True:
                exchange.write(bytes(16384))
                await exchange.drain()
        finally:
            left.set()

    served = await serve(handler, write_stall_timeout_s=0.3)
    async with served.dial(read_buffer_bytes=4096) as wire:
        wire.send(GET)
        await asyncio.wait_for(left.wait(), 3)
        await served.emptied()


@pytest.mark.parametrize("lines", [(), ("Connection: close",)])
async def test_a_reader_that_leaves_a_finished_answer_is_cut(serve: Serve, lines: tuple[str, ...]) -> None:
    async def handler(exchange: Exchange) -> None:
        exchange.respond(200, b"", bytes(16 << 20))

    served = await serve(handler, write_stall_timeout_s=0.3, keepalive_timeout_s=60)
    async with served.dial(read_buffer_bytes=4096) as wire:
        wire.send(get("/", *lines))
        await wire.reader.read(1)
        await asyncio.wait_for(served.emptied(), 3)
        with pytest.raises(ConnectionResetError):  # an end of file only came behind what the kernel kept for it
            await wire.reader.read()


async def test_a_slow_reader_is_waited_for(serve: Serve) -> None:
    async def handler(exchange: Exchange) -> None:
        exchange.respond(200, b"", bytes(8 << 20))

    served = await serve(handler, write_stall_timeout_s=0.3)
    async with served.dial(read_buffer_bytes=65536) as wire:
        wire.send(GET)
        await wire.head()
        left = 8 << 20
        while left:
            left -= len(await wire.reader.read(min(left, 1 << 17)))
            await asyncio.sleep(0.01)
        wire.send(GET)
        assert (await wire.head())[0] == "HTTP/1.1 200 OK"


# --- clients that leave


async def test_a_client_that_leaves_cancels_its_handler_at_once(serve: Serve) -> None:
    for how in ("close", "reset"):
        stuck = Stuck()
        served = await serve(stuck)
        async with served.dial() as wire:
            wire.send(post(b"abc"))
            await stuck.entered.wait()
            getattr(wire, how)()
            await asyncio.wait_for(stuck.left.wait(), LEAVE_S)
            await asyncio.wait_for(served.emptied(), LEAVE_S)
        assert stuck.exchange is not None
        assert stuck.exchange.gone


@pytest.mark.parametrize("how", ["close", "reset", "half_close"])
async def test_a_client_that_leaves_mid_body_cancels_its_handler(serve: Serve, how: str) -> None:
    entered, left = asyncio.Event(), asyncio.Event()

    async def handler(exchange: Exchange) -> None:
        entered.set()
        try:
            await exchange.body()
        finally:
            left.set()

    served = await serve(handler)
    async with served.dial() as wire:
        wire.send(post(b"abc")[:-1])
        await entered.wait()
        getattr(wire, how)()
        await asyncio.wait_for(left.wait(), LEAVE_S)
        await asyncio.wait_for(served.emptied(), LEAVE_S)


@pytest.mark.parametrize("how", ["close", "reset"])
async def test_a_client_that_leaves_mid_stream_cancels_its_handler(serve: Serve, how: str) -> None:
    left = asyncio.Event()

    async def handler(exchange: Exchange) -> None:
        exchange.start(200, b"")
        exchange.write(b"x")
        try:
            await asyncio.Event().wait()
        finally:
            left.set()
            exchange.write(b"late")
            exchange.finish()

    served = await serve(handler)
    async with served.dial() as wire:
        wire.send(GET)
        await wire.head()
        getattr(wire, how)()
        await asyncio.wait_for(left.wait(), LEAVE_S)
        await asyncio.wait_for(served.emptied(), LEAVE_S)


@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize("behind", [GET * 40, post(bytes(400_000))[:-300_000]], ids=["requests", "body"])
@pytest.mark.parametrize("streams", [False, True])
async def test_a_client_that_leaves_is_noticed_while_nothing_is_read(
    serve: Serve, how: str, behind: bytes, streams: bool
) -> None:
    stuck = Stuck()

    async def handler(exchange: Exchange) -> None:
        if streams:
            exchange.start(200, b"")
            exchange.write(b"x")
        await stuck(exchange)

    served = await serve(handler, pipelined_max=4)
    async with served.dial() as wire:
        wire.send(post(b"abc") + behind)
        await stuck.entered.wait()
        await until(lambda: [each for each in served.server.connections if each._paused_reading])
        if streams:
            await wire.head()
        getattr(wire, how)()
        await asyncio.wait_for(stuck.left.wait(), LEAVE_S)
        await asyncio.wait_for(served.emptied(), LEAVE_S)


@pytest.mark.parametrize("half", [False, True])
async def test_a_client_that_stays_is_let_be_while_nothing_is_read(serve: Serve, half: bool) -> None:
    gate = asyncio.Event()

    async def handler(exchange: Exchange) -> None:
        await gate.wait()
        exchange.respond(200, b"")

    served = await serve(handler, pipelined_max=4)
    async with served.dial() as wire:
        wire.send(GET * 40)
        if half:
            wire.half_close()
            for _ in range(3):
                assert (await asyncio.wait_for(wire.head(), 2))[0] == "HTTP/1.1 100 Continue", "the probe"
        else:
            assert await wire.is_silent(0.4)
        gate.set()
        for _ in range(40):
            assert (await wire.answer()).status == 200


@pytest.mark.parametrize("requests", [1, 3])
async def test_a_half_closed_client_gets_all_its_answers(serve: Serve, requests: int) -> None:
    gate = asyncio.Event()

    async def handler(exchange: Exchange) -> None:
        await gate.wait()
        exchange.respond(200, b"", b"x" * 100_000)

    served = await serve(handler)
    async with served.dial() as wire:
        wire.send(GET * requests)
        wire.half_close()
        assert (await wire.head())[0] == "HTTP/1.1 100 Continue", "the probe"
        gate.set()
        for _ in range(requests):
            answer = await wire.answer()
            assert (answer.status, len(answer.body)) == (200, 100_000)
        assert answer.headers["connection"] == "close"
        assert await wire.ended()
    await served.emptied()


async def test_a_half_closed_client_that_leaves_later_is_noticed_behind_the_first_answer(serve: Serve) -> None:
    stuck = Stuck()

    async def handler(exchange: Exchange) -> None:
        if exchange.path == "/":
            exchange.respond(200, b"")
        else:
            await stuck(exchange)

    served = await serve(handler)
    async with served.dial() as wire:
        wire.send(GET + get("/stuck"))
        wire.half_close()
        await wire.answer()
        await stuck.entered.wait()
        wire.reset()
        await asyncio.wait_for(stuck.left.wait(), 2)
    await served.emptied()


async def test_a_body_cut_short_by_a_half_close_behind_another_request_gets_400(serve: Serve) -> None:
    gate = asyncio.Event()

    async def handler(exchange: Exchange) -> None:
        await gate.wait()
        exchange.respond(200, b"", await exchange.body())

    served = await serve(handler)
    async with served.dial() as wire:
        wire.send(GET + post(b"abc")[:-1])
        wire.half_close()
        assert (await wire.head())[0] == "HTTP/1.1 100 Continue"
        gate.set()
        assert (await wire.answer()).status == 200
        assert (await wire.answer()).status == 400
        assert await wire.ended()


async def test_a_half_closed_http_1_0_client_gets_a_prompt_answer(serve: Serve) -> None:
    served = await serve(Echo())
    async with served.dial() as wire:
        wire.send(b"GET / HTTP/1.0\r\n\r\n")
        wire.half_close()
        assert (await wire.answer()).body == b"GET / "


async def test_asking_for_the_body_of_a_client_that_left_raises(serve: Serve) -> None:
    raised: list[Exception] = []
    done = asyncio.Event()

    async def handler(exchange: Exchange) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            try:
                await exchange.body()
            except BadRequest as error:
                raised.append(error)
            done.set()
            raise

    served = await serve(handler)
    async with served.dial() as wire:
        wire.send(post(b"abc")[:-1])
        await until(lambda: bool(served.server.running))
        wire.reset()
        await asyncio.wait_for(done.wait(), 1)
    assert len(raised) == 1


# --- faults of our own


async def test_an_exception_in_a_handler_is_a_500_and_logged(serve: Serve) -> None:
    async def handler(exchange: Exchange) -> None:
        await exchange.body()
        raise KeyError("secret")

    served = await serve(handler)
    with capture_logs() as logs:
        async with served.dial() as wire:
            for _ in range(2):
                wire.send(post(b"abc"))
                answer = await wire.answer()
                assert answer.status == 500
                assert b"secret" not in answer.body
    assert [line["event"] for line in logs] == ["handler failed"] * 2


async def test_an_exception_after_the_answer_began_cuts_the_connection(serve: Serve) -> None:
    async def handler(exchange: Exchange) -> None:
        exchange.start(200, b"")
        exchange.write(b"abc")
        raise KeyError

    served = await serve(handler)
    with capture_logs():
        async with served.dial() as wire:
            wire.send(GET)
            with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
                await wire.answer()


async def test_a_handler_that_ends_without_an_answer_is_a_500_and_logged(serve: Serve) -> None:
    async def handler(exchange: Exchange) -> None:
        return

    served = await serve(handler)
    with capture_logs() as logs:
        assert (await served.ask(GET)).status == 500
    assert [line["event"] for line in logs] == ["handler gave no answer"]


async def test_a_handler_that_ends_in_the_middle_of_its_answer_cuts_the_connection(serve: Serve) -> None:
    async def handler(exchange: Exchange) -> None:
        exchange.start(200, b"")

    served = await serve(handler)
    async with served.dial() as wire:
        wire.send(GET)
        await wire.head()
        assert await wire.ended()


async def test_a_fault_in_rendering_an_error_cuts_the_connection_and_is_logged(
    serve: Serve, faults: list[dict[str, object]]
) -> None:
    async def handler(exchange: Exchange) -> None:
        raise BadRequest("no")

    def broken(exchange: Exchange, error: GatewayError) -> None:
        raise KeyError("rendering")

    served = await serve(handler, on_error=broken)
    with capture_logs() as logs:
        async with served.dial() as wire:
            wire.send(GET)
            assert await wire.ended()
        await served.emptied()
    assert [line["event"] for line in logs] == ["error could not be rendered"]
    gc.collect()
    faults.clear()  # the loop tells of the task's error too


async def test_an_error_renderer_of_the_application_is_used_for_faults_of_the_framing_too(serve: Serve) -> None:
    def render(exchange: Exchange, error: GatewayError) -> None:
        exchange.respond(error.status, b"x-request-id: 1\r\n", b"mine")

    served = await serve(Echo(), on_error=render)
    answer = await served.ask(b"garbage\r\n\r\n")
    assert (answer.status, answer.headers["x-request-id"], answer.body) == (400, "1", b"mine")


# --- many connections, addresses


async def test_connections_above_the_limit_are_closed_at_once(serve: Serve) -> None:
    served = await serve(Echo(), connections_max=2)
    async with served.dial() as first, served.dial() as second:
        for wire in (first, second):
            wire.send(GET)
            await wire.answer()
        async with served.dial() as third:
            assert await third.ended()
        first.send(GET)
        assert (await first.answer()).status == 200
        first.close()
        await until(lambda: len(served.server.connections) <= 1)
        assert (await served.ask(GET)).status == 200


IDLE_COUNT = 10_000
IDLE_CLIENTS = """
import resource, socket, sys
port, count = int(sys.argv[1]), int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
clients = [socket.create_connection(("127.0.0.1", port)) for _ in range(count)]
for client in clients[::100]:
    client.sendall(b"GET / HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n")
print(sum(client.recv(1000).startswith(b"HTTP/1.1 200 OK") for client in clients[::100]), flush=True)
print(sum(client.recv(1) == b"" for client in clients), flush=True)
"""


async def test_ten_thousand_idle_connections_are_held_served_and_closed(serve: Serve) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < IDLE_COUNT + 500:
        pytest.skip("the system allows too few open files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    served = await serve(Echo(), keepalive_timeout_s=3)
    command = (sys.executable, "-c", IDLE_CLIENTS, str(served.port), str(IDLE_COUNT))
    clients = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    assert clients.stdout is not None
    assert int(await clients.stdout.readline()) == IDLE_COUNT // 100, "answered"
    await until(lambda: len(served.server.connections) == IDLE_COUNT)
    assert int(await clients.stdout.readline()) == IDLE_COUNT, "closed"
    await clients.wait()
    await served.emptied()
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_an_ipv6_client_is_served_and_its_network_named(serve: Serve) -> None:
    async def handler(exchange: Exchange) -> None:
        exchange.respond(200, b"", bucket(client_address(exchange.peer, exchange.headers, ())).encode())

    try:
        served = await serve(handler, host="::1")
    except OSError:
        pytest.skip("no IPv6 here")
    assert (await served.ask(GET)).body == b"::/64"


def test_a_path_and_a_query_are_told_apart() -> None:
    async def build() -> list[tuple[str, str]]:
        connection = Connection(HTTPServer(Echo(), ServerSettings()))
        targets = [b"/a/b?c=d?e", b"/", b"*", b"http://h/a?b", b"https://h?b", b"ftp://h/a"]
        return [
            (e.path, e.query)
            for e in (Exchange(connection, "GET", target, {}, 0.0, keep_alive=True) for target in targets)
        ]

    assert asyncio.run(build()) == [
        ("/a/b", "c=d?e"),
        ("/", ""),
        ("*", ""),
        ("/a", "b"),
        ("/", "b"),
        ("ftp://h/a", ""),
    ]

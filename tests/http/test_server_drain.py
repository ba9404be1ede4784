"""Going down in good order."""

import asyncio

import pytest
from structlog.testing import capture_logs

from vipcloud.errors import Unavailable
from vipcloud.http.server import Exchange
from wire import GET, Echo, Serve, Stuck, get, post, until


async def test_idle_connections_are_closed_at_once(serve: Serve) -> None:
    served = await serve(Echo())
    async with served.dial() as used, served.dial() as unused:
        used.send(GET)
        await used.answer()
        await asyncio.wait_for(served.server.close(10), 0.5)
        assert await used.ended()
        assert await unused.ended()


async def test_what_runs_is_finished_and_its_connection_closed(serve: Serve) -> None:
    gate, entered = asyncio.Event(), asyncio.Event()

    async def handler(exchange: Exchange) -> None:
        entered.set()
        await gate.wait()
        exchange.respond(200, b"", bytes(1 << 20))

    served = await serve(handler)
    async with served.dial() as wire:
        wire.send(GET)
        await entered.wait()
        async with asyncio.TaskGroup() as group:
            closing = group.create_task(served.server.close(10))
            assert await wire.is_silent()
            gate.set()
            answer = await wire.answer()
            assert (answer.status, answer.headers["connection"], len(answer.body)) == (200, "close", 1 << 20)
            assert await wire.ended()
            await asyncio.wait_for(closing, 1)


async def test_new_requests_while_draining_reach_the_handler_which_sees_it(serve: Serve) -> None:
    stuck = Stuck()

    async def handler(exchange: Exchange) -> None:
        if exchange.path == "/stuck":
            await stuck(exchange)
        if exchange.draining:
            raise Unavailable("going down", retry_after_s=1)
        exchange.respond(200, b"")

    served = await serve(handler)
    async with served.dial() as running:
        running.send(get("/stuck"))
        await stuck.entered.wait()
        async with asyncio.TaskGroup() as group:
            closing = group.create_task(served.server.close(1))
            await asyncio.sleep(0)
            answer = await served.ask(GET)
            assert (answer.status, answer.headers["connection"]) == (503, "close")
            await closing


@pytest.mark.parametrize("raising", [False, True])
async def test_past_the_limit_a_handler_is_interrupted_and_may_still_send_an_error(serve: Serve, raising: bool) -> None:
    entered = asyncio.Event()

    async def handler(exchange: Exchange) -> None:
        exchange.start(200, b"content-type: text/event-stream\r\n")
        exchange.write(b"data: 1\n\n")
        entered.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            assert exchange.interrupted
            exchange.finish(Unavailable("going down").event())
            if raising:
                raise

    served = await serve(handler)
    async with served.dial() as wire:
        wire.send(GET)
        await entered.wait()
        await served.server.close(0.1)
        body = (await wire.answer()).body
        assert body.startswith(b'data: 1\n\ndata: {"error":')
        assert await wire.ended()


async def test_a_handler_that_has_not_begun_may_answer_503_when_interrupted(serve: Serve) -> None:
    entered = asyncio.Event()

    async def handler(exchange: Exchange) -> None:
        entered.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise Unavailable("going down") from None

    served = await serve(handler)
    async with served.dial() as wire:
        wire.send(GET)
        await entered.wait()
        await served.server.close(0.1)
        assert (await wire.answer()).status == 503


async def test_requests_that_wait_behind_the_last_answer_are_dropped_unserved(serve: Serve) -> None:
    gate = asyncio.Event()
    seen: list[str] = []

    async def handler(exchange: Exchange) -> None:
        seen.append(exchange.path)
        await gate.wait()
        exchange.respond(200, b"")

    served = await serve(handler)
    async with served.dial() as wire:
        wire.send(get("/1") + get("/2"))
        await until(lambda: bool(seen))
        async with asyncio.TaskGroup() as group:
            group.create_task(served.server.close(1))
            await asyncio.sleep(0)
            gate.set()
            assert (await wire.answer()).headers["connection"] == "close"
            assert await wire.ended()
    assert seen == ["/1"]


async def test_a_handler_that_will_not_end_is_left_after_a_moment(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vipcloud.http.server.INTERRUPT_S", 0.1)
    monkeypatch.setattr("vipcloud.http.server.FLUSH_S", 0.1)
    cancels = 0
    entered = asyncio.Event()

    async def handler(exchange: Exchange) -> None:
        nonlocal cancels
        while cancels < 2:
            try:
                entered.set()
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancels += 1
        exchange.respond(200, b"")

    served = await serve(handler)
    async with served.dial() as wire:
        wire.send(GET)
        await entered.wait()
        await asyncio.wait_for(served.server.close(0), 2)
        assert await wire.ended()
    assert cancels == 2


async def test_a_reader_that_stops_does_not_hold_up_the_end(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vipcloud.http.server.FLUSH_S", 0.2)

    async def handler(exchange: Exchange) -> None:
        exchange.respond(200, b"", bytes(16 << 20))

    served = await serve(handler)
    async with served.dial(read_buffer_bytes=4096) as wire:
        wire.send(get("/", "Connection: close"))
        await wire.reader.read(1)
        await asyncio.wait_for(served.server.close(0), 2)
        await asyncio.wait_for(served.emptied(), 1)


async def test_the_clean_up_of_a_client_that_left_is_waited_for(serve: Serve) -> None:
    entered, cleaned = asyncio.Event(), asyncio.Event()

    async def handler(exchange: Exchange) -> None:
        try:
            entered.set()
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.1)
            cleaned.set()

    served = await serve(handler)
    async with served.dial() as wire:
        wire.send(GET)
        await entered.wait()
        wire.reset()
        await served.emptied()
        assert not cleaned.is_set()
        await served.server.close(5)
        assert cleaned.is_set()


async def test_half_sent_heads_and_bodies_do_not_hold_up_the_end(serve: Serve) -> None:
    served = await serve(Echo())
    async with served.dial() as in_head, served.dial() as in_body:
        in_head.send(GET[:-3])
        in_body.send(post(b"abc")[:-1])
        await until(lambda: bool(served.server.running))
        with capture_logs() as logs:
            await asyncio.wait_for(served.server.close(0.1), 2)
        assert logs == []
        assert await in_head.ended()
        assert await in_body.ended()


async def test_nobody_can_connect_afterwards(serve: Serve) -> None:
    served = await serve(Echo())
    await served.server.close(1)
    with pytest.raises(ConnectionRefusedError):
        await served.ask(GET)

"""Going down: what runs may finish, what is new is refused, what takes too long is told so."""

import asyncio
import time

from front_door import House, Reply, eventually, request

from wire import dial

CHAT = "/v1/chat/completions"


async def test_streams_finish_while_new_requests_are_refused(house: House) -> None:
    server = house.gateway.server
    async with dial(house.port) as kept, house.live("Count to 20 [[pace_ms=20]]") as live:
        await live.until(3)
        kept.send(b"GET /healthz HT")  # a connection that is not idle, for what comes later
        await eventually(lambda: len(server.connections) == 2)
        closing = asyncio.get_running_loop().create_task(server.close(10))
        await eventually(lambda: server.draining)
        refused = await house.chat()
        assert (refused.status, refused.headers["retry-after"]) == (503, "1")
        assert refused.error["code"] == "service_unavailable"
        ready = await house.ask("GET", "/readyz")
        assert (ready.status, ready.json["reasons"]) == (503, ["draining: the gateway is going down"])
        assert (await house.ask("GET", "/healthz")).status == 200
        reply = await live.rest()
        assert (reply.text.endswith("19, 20"), reply.done) == (True, True)
        kept.send(b"TP/1.1\r\nHost: a\r\n\r\n")
        assert (await kept.answer()).headers["connection"] == "close"
        began_s = time.monotonic()
        await closing
    assert time.monotonic() - began_s < 1.5  # not the ten seconds that were allowed
    assert [row.outcome for row in house.rows()] == ["complete"]


async def test_what_runs_beyond_the_limit_is_ended_with_an_error(house: House) -> None:
    async with (
        house.live("Count to 30 [[fault=stall:3]]") as stream,
        house.sent("Hello [[fault=hang]]") as unary,
    ):
        await stream.until(4)
        await house.upstream.called(2)
        began_s = time.monotonic()
        await house.gateway.server.close(0.1)
        assert time.monotonic() - began_s < 1.5
        cut, refused = await stream.rest(), Reply.of(await unary.answer())
    assert cut.stream_error is not None
    assert cut.stream_error["code"] == refused.error["code"] == "service_unavailable"
    assert refused.status == 503
    rows = {row.request_id: row for row in house.rows()}
    assert (rows[cut.request_id].outcome, rows[cut.request_id].charge_nanousd > 0) == ("restarted", True)
    assert (rows[refused.request_id].outcome, rows[refused.request_id].charge_nanousd) == ("restarted", 0)
    assert {entry["outcome"] for entry in await house.upstream.ended(2)} == {"cancelled"}


async def test_what_waits_behind_a_running_request_is_refused(house: House) -> None:
    async with dial(house.port) as wire:
        for text in ("Hello [[first_token_ms=100]]", "Hello"):
            wire.send(request("POST", CHAT, house.body(text, "deepseek-chat", {}), house.head()))
        await house.upstream.called()
        closing = asyncio.get_running_loop().create_task(house.gateway.server.close(5))
        assert (await wire.answer()).status == 200
        assert await wire.ended()
        await closing
    assert len(house.rows()) == 1


async def test_a_new_gateway_goes_on_with_the_books_of_the_one_before(open_house) -> None:
    first: House = await open_house()
    await first.chat("Count to 10")
    spent = 5_000_000_000 - first.credit()
    await first.gateway.server.close(0)
    first.gateway.parts.journal._rotate()
    second: House = await open_house(data_suffix="-2")
    assert (await second.chat("Count to 10")).status == 200
    assert 5_000_000_000 - second.credit() == spent

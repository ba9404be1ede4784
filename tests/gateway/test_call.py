"""Signs of life while an upstream is silent, and what follows them."""

import asyncio
import json

import pytest
from front_door import House, Reply

PINGS = {"ping_stream_s": 0.05, "ping_unary_s": 0.05}


async def test_a_silent_stream_is_pinged_and_then_goes_on(open_house) -> None:
    house: House = await open_house(gateway=PINGS)
    reply = await house.stream("Hello [[first_token_ms=700]]")
    assert reply.body.startswith(b": ping\n\n: ping\n\ndata: ")
    assert (reply.text, reply.done) == ("Hello! How can I help you today?", True)


async def test_a_stream_that_falls_silent_half_way_is_pinged(open_house) -> None:
    house: House = await open_house(gateway=PINGS)
    async with house.live("Count to 9 [[fault=stall:3]]") as live:
        await live.until(4)
        assert await live.part() == b": ping\n\n"


async def test_keep_alives_of_the_upstream_do_not_stand_in_for_pings(open_house) -> None:
    house: House = await open_house(gateway=PINGS)
    reply = await house.stream("Hello [[fault=keep-alive:0.6:10]]")
    assert b": ping\n\n" in reply.body
    assert b"keep-alive" not in reply.body
    assert reply.done


async def test_a_stream_that_flows_is_not_pinged(open_house) -> None:
    house: House = await open_house(gateway={"ping_stream_s": 0.3})
    reply = await house.stream("Count to 10 [[pace_ms=30]]")
    assert b": ping" not in reply.body


async def test_an_unstreamed_answer_gets_white_space_before_it(open_house) -> None:
    house: House = await open_house(gateway=PINGS)
    reply = await house.chat("Hello [[first_token_ms=700]]")
    assert (reply.status, reply.headers["content-type"]) == (200, "application/json")
    assert reply.body.startswith(b"  {")
    assert reply.text == "Hello! How can I help you today?"
    assert "content-length" not in reply.headers


@pytest.mark.parametrize("stream", [False, True], ids=["unary", "stream"])
async def test_a_failure_after_a_ping_travels_in_the_body(open_house, stream: bool) -> None:
    house: House = await open_house(gateway=PINGS, timeouts={"total_s": 0.6})
    reply = await house.chat("Hello [[fault=hang]]", stream=stream)
    assert reply.status == 200
    if stream:
        assert reply.body.startswith(b": ping\n\n")
        assert reply.stream_error is not None
        error = reply.stream_error
    else:
        assert reply.body.startswith(b" ")
        error = json.loads(reply.body)["error"]
    assert (error["code"], error["type"]) == ("upstream_timeout", "timeout_error")
    assert [(row.outcome, row.charge_nanousd) for row in house.rows()] == [("upstream_failed", 0)]


async def test_another_account_may_still_answer_after_a_ping(open_house) -> None:
    house: House = await open_house(gateway=PINGS, keys={"deepseek": ("sk-a", "sk-b")})
    await house.upstream.fails("keep-alive:0.5:100,eof:0")
    reply = await house.stream("Count to 3")
    assert reply.body.startswith(b": ping\n\n")
    assert (reply.text, reply.done) == ("1, 2, 3", True)


@pytest.mark.parametrize("stream", [False, True], ids=["unary", "stream"])
async def test_a_client_that_leaves_between_pings_pays_nothing(open_house, stream: bool) -> None:
    house: House = await open_house(gateway=PINGS)
    async with house.live("Hello [[fault=hang]]", stream=stream) as live:
        await live.part()
    assert [(row.outcome, row.charge_nanousd) for row in await house.settled()] == [("client_gone", 0)]


async def test_the_drain_limit_after_a_ping_ends_an_unstreamed_answer_with_the_error(open_house) -> None:
    house: House = await open_house(gateway=PINGS)
    async with house.live("Hello [[fault=hang]]", stream=False) as live:
        await live.part()
        closing = asyncio.get_running_loop().create_task(house.gateway.server.close(0))
        reply: Reply = await live.rest()
        await closing
    assert json.loads(reply.body)["error"]["code"] == "service_unavailable"

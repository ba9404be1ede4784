"""Streams that are held for in slices: as long as there is credit, however fast they come."""

from collections.abc import Iterator

import pytest
from front_door import House, charge

import valkey_server
from valkey_server import Server


@pytest.fixture
def server() -> Iterator[Server]:
    """A server of this test's own, to be killed."""
    with valkey_server.serving() as server:
        yield server


async def test_a_fast_long_stream_with_credit_comes_whole(open_house) -> None:
    house: House = await open_house(guard={"hold_slice_tokens": 256}, journal={"progress_interval_s": 0.02})
    reply = await house.chat("[[tokens=6000]]", stream=True, max_tokens=8000)
    assert reply.done
    assert reply.chunks[-1]["choices"][0]["finish_reason"] == "stop"
    row = house.usage(reply.request_id)
    assert row is not None
    assert row.completion_tokens == 6000


async def test_a_long_stream_goes_on_without_the_server_that_counts_the_credit(open_house, server: Server) -> None:
    guard = {"backend": "valkey", "url": server.url, "hold_slice_tokens": 64}
    house: House = await open_house(guard=guard, journal={"progress_interval_s": 0.01})
    async with house.live("[[tokens=600 pace_ms=2]]", max_tokens=1000) as answer:
        await answer.until(3)
        server.kill()
        reply = await answer.rest()
    assert reply.done
    assert reply.chunks[-1]["choices"][0]["finish_reason"] == "stop"
    row = house.usage(reply.request_id)
    assert row is not None
    assert (row.outcome, row.finish_reason, row.completion_tokens) == ("complete", "stop", 600)
    assert row.charge_nanousd == row.held_nanousd
    assert 0 < row.charge_nanousd < charge("deepseek-chat", row.prompt_tokens, 600)


async def test_a_server_that_has_lost_its_data_is_asked_for_all_of_it(open_house, server: Server) -> None:
    guard = {"backend": "valkey", "url": server.url, "hold_slice_tokens": 64}
    house: House = await open_house(guard=guard, journal={"progress_interval_s": 0.01})
    async with house.live("[[tokens=600 pace_ms=2]]", max_tokens=1000) as answer:
        await answer.until(3)
        server.flush()
        assert (await house.chat()).status == 200, "whereby the server knows the account again"
        reply = await answer.rest()
    row = house.usage(reply.request_id)
    assert row is not None
    assert (row.finish_reason, row.completion_tokens) == ("stop", 600)
    assert row.charge_nanousd == charge("deepseek-chat", row.prompt_tokens, 600)

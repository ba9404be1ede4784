"""What a revoked key or a suspended account has running ends, is charged for what was delivered, and is told why."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from front_door import House, Live, Reply, eventually, request
from test_bill import MODEL, STREAM, TEXT, expect

from vipcloud.accounts import store
from vipcloud.cli import context
from vipcloud.storage import engine as storage
from wire import dial

STALLED = f"{TEXT} [[fault=stall:6]]"
UNANSWERED = f"{TEXT} [[first_token_ms=60000]]"


@pytest.fixture
async def house(open_house) -> House:
    return await open_house(housekeeping=True)


def revoke(house: House, key: str) -> None:
    with storage.writing(house.engine) as connection:
        store.revoke_key(connection, key, context.clock.wall_s())


def suspend(house: House, *, suspended: bool = True) -> None:
    with storage.writing(house.engine) as connection:
        store.set_suspended(connection, house.account_id, suspended=suspended)


@asynccontextmanager
async def beside(house: House, key: str, account_id: str) -> AsyncIterator[Live]:
    """A stream of another key, which takes a while."""
    with house.using(key, account_id):
        body = house.body(f"{TEXT} [[pace_ms=20]]", MODEL, {"stream": True})
        head = house.head()
    async with dial(house.port) as wire:
        wire.send(request("POST", "/v1/chat/completions", body, head))
        first, headers = await wire.head()
        yield Live(wire, int(first.split()[1]), headers)


async def cut(live: Live, code: str) -> Reply:
    """The stream's rest: an error event of this code, no `[DONE]`, and the connection is closed."""
    reply = await live.rest()
    assert reply.stream_error is not None
    assert (reply.stream_error["code"], reply.stream_error["param"]) == (code, None)
    assert await live.wire.reader.read() == b""
    return reply


async def test_revoking_a_key_ends_its_streams_and_no_others(house: House) -> None:
    other, _ = house.new_key(account_id=house.account_id)
    async with house.live(STALLED) as live, beside(house, other, house.account_id) as kept:
        await live.until(7)
        revoke(house, house.key)
        reply = await cut(live, "invalid_api_key")
        assert (await kept.rest()).done
    assert "revoked" in str(reply.stream_error)
    expect(house, reply.request_id, "revoked", stream=True, delivered=reply.text)
    assert (await house.chat()).status == 401
    assert {entry["outcome"] for entry in await house.upstream.ended(2)} == {"cancelled", "finished"}


async def test_suspending_an_account_ends_the_streams_of_all_its_keys(house: House) -> None:
    other, account_id = house.new_key()
    async with house.live(STALLED) as live, beside(house, other, account_id) as stranger:
        await live.until(7)
        suspend(house)
        reply = await cut(live, "forbidden")
        assert (await stranger.rest()).done
    expect(house, reply.request_id, "revoked", stream=True, delivered=reply.text)
    suspend(house, suspended=False)
    await eventually(lambda: not house.gateway.parts.directory.closed)
    assert (await house.stream()).done, "what begins after it was opened again is left alone"


@STREAM
async def test_what_has_no_content_yet_is_refused_and_costs_nothing(house: House, stream: bool) -> None:
    async with house.sent(UNANSWERED, stream=stream) as wire:
        await house.upstream.called()
        revoke(house, house.key)
        reply = Reply.of(await wire.answer())
    assert (reply.status, reply.error["code"]) == (401, "invalid_api_key")
    assert (reply.headers["x-should-retry"], reply.headers["connection"]) == ("false", "close")
    expect(house, reply.request_id, "revoked", stream=stream)


async def test_a_request_whose_body_was_still_coming_ends_as_well(house: House) -> None:
    async with dial(house.port) as wire:
        sent = request("POST", "/v1/chat/completions", house.body(UNANSWERED, MODEL, {}), house.head())
        wire.send(sent[:-5])
        await eventually(lambda: house.gateway.server.running)
        revoke(house, house.key)
        await eventually(lambda: house.gateway.parts.directory.closed)
        wire.send(sent[-5:])
        assert (await wire.answer()).status == 401


async def test_while_two_keys_overlap_both_work_and_what_runs_with_the_old_one_goes_on(house: House) -> None:
    with storage.writing(house.engine) as connection:
        [old] = store.list_keys(connection, house.account_id)
        new = store.create_key(connection, house.account_id, context.clock.wall_s(), context.random_bytes)
    async with house.live(f"{TEXT} [[pace_ms=20]]") as live:
        await live.until(3)
        with storage.writing(house.engine) as connection:
            store.end_key(connection, old.id, context.clock.wall_s() + 3600)
        await asyncio.sleep(0.1)  # five polls
        assert (await house.chat()).status == 200
        with house.using(new.plaintext, house.account_id):
            assert (await house.chat()).status == 200
        assert (await live.rest()).done

"""A long answer's next slice when Valkey cannot say whether there is credit for it: nothing is refused for that."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable

import pytest
from desk import PRICE, Desk, running, valkey_desk

from valkey_server import Server
from vipcloud.limits.connection import Client
from vipcloud.limits.guard import Permit, Purse
from vipcloud.limits.rules import Ask
from vipcloud.money import NanoUSD

LONG = Ask(NanoUSD(100_000), PRICE, 600, slice_tokens=200)
FUNDS = Purse("a", 2_000_000, 0)
HELD = "HMGET", "vc:m:a", "charged", "held"


@pytest.fixture
async def desk(server: Server) -> AsyncIterator[Desk]:
    async with valkey_desk(server, timeout_s=0.3) as desk:
        yield desk


async def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not true():
        assert time.monotonic() < deadline, "it never came true"
        await asyncio.sleep(0.001)


async def restored(desk: Desk) -> None:
    await asyncio.wait_for(desk.guard._client.up.wait(), 10)


def held(permit: Permit) -> tuple[int, int]:
    return permit.held_tokens, permit.held_nanousd


async def test_a_server_that_is_away_refuses_nothing_and_is_asked_again(server: Server, desk: Desk) -> None:
    permit = await desk.admit(FUNDS, ask=LONG)
    server.kill()
    await until(lambda: not desk.guard._client.connected)
    assert await desk.extend(permit, 200)
    assert held(permit) == (200, 300_000), "nothing was held either"
    server.start()
    await restored(desk)
    assert await desk.extend(permit, 200), "it has forgotten whose purse this is"
    assert held(permit) == (200, 300_000)
    await desk.admit(FUNDS, ask=LONG)
    assert await desk.extend(permit, 200)
    assert held(permit) == (400, 500_000)
    async with running(Client(server.url, timeout_s=10, waiting_max=100)) as other:
        assert await other.call(*HELD) == [b"0", b"800000"], "what had been held before is held again"
        desk.guard.settle(permit, NanoUSD(400_000))
        await desk.guard.flushed()
        assert await other.call(*HELD) == [b"400000", b"300000"]


async def test_what_was_forgotten_is_held_again_only_if_there_is_credit_for_it(server: Server, desk: Desk) -> None:
    permit = await desk.admit(Purse("a", 900_000, 0), ask=LONG)
    server.flush()
    await desk.admit(Purse("a", 1_000_000, 0, None), ask=LONG)
    permit.subject.purses[0].granted_nanousd, permit.subject.packed = 700_000, b""
    assert not await desk.extend(permit, 200), "200,000 more would do, but 500,000 are missing"
    assert held(permit) == (200, 300_000)
    permit.subject.purses[0].granted_nanousd, permit.subject.packed = 800_000, b""
    assert await desk.extend(permit, 200)


async def test_what_is_held_again_lapses(server: Server, desk: Desk, other: Client) -> None:
    permit = await desk.admit(FUNDS, ask=LONG)
    server.flush()
    second = await desk.admit(FUNDS, ask=LONG)
    await desk.extend(permit, 200)
    assert sorted(await other.call("ZRANGE", "vc:x:a", 0, -1)) == [b"r1", b"r2"]
    await desk.settle(second)
    await desk.settle(permit)
    assert await other.call("ZCARD", "vc:x:a") == 0


async def test_an_extension_without_an_answer_may_be_asked_again_and_is_held_once(
    server: Server, desk: Desk, other: Client
) -> None:
    permit, refused = await desk.admit(FUNDS, ask=LONG), list[bool]()
    os.kill(server.pid, signal.SIGSTOP)
    desk.guard.extend(permit, 200, lambda: refused.append(True))
    await until(lambda: not desk.guard._client.connected)
    assert not refused
    assert held(permit) == (200, 300_000)
    os.kill(server.pid, signal.SIGCONT)
    await restored(desk)
    assert await desk.extend(permit, 200)
    assert held(permit) == (400, 500_000)
    assert await other.call(*HELD) == [b"0", b"500000"]


async def test_who_asks_twice_before_the_answer_holds_once(desk: Desk, other: Client) -> None:
    permit, refused = await desk.admit(FUNDS, ask=LONG), list[bool]()
    for tokens in (200, 210):
        desk.guard.extend(permit, tokens, lambda: refused.append(True))
    await desk.guard.flushed()
    assert not refused
    assert held(permit) == (410, 510_000)
    assert await other.call(*HELD) == [b"0", b"510000"]


async def test_a_server_that_forgot_the_script_is_given_it_again(desk: Desk, other: Client) -> None:
    permit = await desk.admit(FUNDS, ask=LONG)
    await other.call("SCRIPT", "FLUSH")
    assert await desk.extend(permit, 200)
    deadline = time.monotonic() + 10
    while permit.held_tokens == 200:
        assert time.monotonic() < deadline, "it was never given the script"
        await asyncio.sleep(0.001)
        assert await desk.extend(permit, 200)


async def test_an_extension_that_cannot_be_written_is_no_refusal(desk: Desk, other: Client) -> None:
    permit = await desk.admit(FUNDS, ask=LONG)
    amounts = await other.call("HGETALL", "vc:h:a")
    await other.call("SET", "vc:h:a", "nonsense")
    assert await desk.extend(permit, 200)
    assert held(permit) == (200, 300_000)
    await other.call("DEL", "vc:h:a")
    await other.call("HSET", "vc:h:a", *amounts)
    assert await desk.extend(permit, 200)
    assert await other.call(*HELD) == [b"0", b"500000"]


async def test_one_who_alone_asks_after_a_loss_of_data_is_held_for_again(
    server: Server, desk: Desk, other: Client
) -> None:
    permit = await desk.admit(FUNDS, ask=LONG)
    server.flush()
    for _ in range(3):
        assert await desk.extend(permit, 200)
    assert len(desk.guard._unsure) == 1
    await desk.guard.look_up()
    assert await desk.extend(permit, 200)
    assert held(permit) == (400, 500_000)
    assert await other.call(*HELD) == [b"0", b"500000"]


async def test_who_ends_after_an_extension_without_an_answer_is_not_held_for_by_it(
    server: Server, desk: Desk, other: Client
) -> None:
    """The server may read the lost connection to its end after the settlement."""
    permit = await desk.admit(FUNDS, ask=LONG)
    os.kill(server.pid, signal.SIGSTOP)
    desk.guard.extend(permit, 200, lambda: None)
    await until(lambda: not desk.guard._client.connected)
    os.kill(server.pid, signal.SIGCONT)
    await restored(desk)
    desk.guard.settle(permit, NanoUSD(200_000))
    await desk.guard.flushed()
    assert await desk.guard._call("extend", permit.subject, (permit.request_id, 500_000, permit.day, 1_000_000)) == 1
    assert await other.call(*HELD) == [b"200000", b"0"]
    assert not desk.guard._doubted

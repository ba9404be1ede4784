"""What goes to Valkey in one call: done in its order, each by itself; its bounds, and what no answer comes for."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Coroutine
from typing import Any

import pytest
from desk import DOLLAR, LEASE_S, Desk, dollars, key, meter, valkey_desk

from valkey_server import Server
from vipcloud.errors import BudgetExceeded, InsufficientCredit, RateLimited, Unavailable
from vipcloud.limits.connection import Client
from vipcloud.limits.guard import Permit, Subject
from vipcloud.limits.valkey import TOGETHER_MAX
from vipcloud.money import NANO, NanoUSD


@pytest.fixture
async def desk(server: Server) -> AsyncIterator[Desk]:
    async with valkey_desk(server, timeout_s=0.3) as desk:
        yield desk


async def calls(other: Client) -> int:
    """How many calls of the script the server has had."""
    counts = await other.call("INFO", "commandstats")
    assert isinstance(counts, bytes)
    for line in counts.decode().splitlines():
        if line.startswith("cmdstat_evalsha:"):
            return int(line.partition("calls=")[2].partition(",")[0])
    return 0


async def together(*asking: Coroutine[Any, Any, Any]) -> list[Any]:
    """In one turn of the loop; a permit, or the class of what was raised."""
    answers = await asyncio.gather(*asking, return_exceptions=True)
    return [type(answer) if isinstance(answer, Exception) else answer for answer in answers]


def kinds(answers: list[Any]) -> list[type]:
    return [answer if isinstance(answer, type) else type(answer) for answer in answers]


async def test_admissions_and_ends_of_one_turn_are_one_call_done_in_order(desk: Desk, other: Client) -> None:
    limit, fund = meter(concurrency=2, rpm=50), dollars(2)
    first, second = [await desk.admit(limit, fund, ask=DOLLAR) for _ in range(2)]
    before = await calls(other)

    async def end(permit: Permit, charge: int) -> None:
        desk.guard.settle(permit, NanoUSD(charge))

    answers = await together(
        desk.admit(limit, fund, ask=DOLLAR),  # both places are taken
        end(first, NANO),
        desk.admit(limit, fund, ask=DOLLAR),  # a place, but the dollar is spent
        desk.admit(limit),
        desk.admit(limit),
        end(second, 0),
        desk.admit(limit, fund, ask=DOLLAR),
        desk.standing(limit),
    )
    assert kinds(answers[:4]) == [RateLimited, type(None), InsufficientCredit, Permit]
    assert kinds(answers[4:7]) == [RateLimited, type(None), Permit]
    assert [answers[3].remaining_requests, answers[6].remaining_requests] == [47, 46]
    assert answers[7].remaining == 46
    assert await calls(other) == before + 1
    with pytest.raises(InsufficientCredit):
        await desk.admit(fund, ask=DOLLAR)


async def test_charges_of_one_call_count_against_the_caps_of_those_after_them(desk: Desk) -> None:
    legs = dollars(100), key(daily_nanousd=4 * NANO)
    permits = [await desk.admit(*legs, ask=DOLLAR) for _ in range(3)]
    for permit in permits:
        desk.guard.settle(permit, NanoUSD(NANO))
    answers = await together(desk.admit(*legs, ask=DOLLAR), desk.admit(*legs, ask=DOLLAR))
    assert kinds(answers) == [Permit, BudgetExceeded]
    await desk.settle(answers[0], NANO)
    assert kinds(await together(desk.admit(*legs, ask=DOLLAR))) == [BudgetExceeded]


async def test_one_who_is_given_up_in_the_call_that_he_is_admitted_in_is_in_nobodys_way(
    desk: Desk, other: Client
) -> None:
    limit, fund = meter(concurrency=1), dollars(1)
    await desk.settle(await desk.admit(limit, fund, ask=DOLLAR))
    before = await calls(other)
    leaving = asyncio.get_running_loop().create_task(desk.admit(limit, fund, ask=DOLLAR))
    await asyncio.sleep(0)
    desk.guard._abandon("r2", Subject((limit,), (fund,)))
    staying = await desk.admit(limit, fund, ask=DOLLAR)
    assert (await leaving).request_id == "r2"
    assert await calls(other) == before + 1
    assert await other.call("HKEYS", "vc:h:a") == await other.call("ZRANGE", "vc:x:a", 0, -1) == [b"r3"]
    assert await other.call("ZRANGE", "vc:l:a", 0, -1) == [staying.request_id.encode()]


@pytest.mark.parametrize("kind", ["rpm", "rpd", "concurrency"])
async def test_the_first_of_many_are_admitted(desk: Desk, other: Client, kind: str) -> None:
    """More than go in one call, and more admissions than go in one."""
    await desk.settle(await desk.admit(dollars(100), ask=DOLLAR))
    before = await calls(other)
    limit, many = meter(**{kind: TOGETHER_MAX + 10}), 2 * TOGETHER_MAX + 5
    answers = await together(*(desk.admit(limit, dollars(100), ask=DOLLAR) for _ in range(many)))
    assert kinds(answers) == [Permit] * (TOGETHER_MAX + 10) + [RateLimited] * (TOGETHER_MAX - 5)
    if kind == "rpm":
        assert [answer.remaining_requests for answer in answers[62:66]] == [11, 10, 9, 8]
    assert await calls(other) == before + 3
    assert kinds(await together(*(desk.admit(meter("b", **{kind: 2})) for _ in range(4)))) == (
        [Permit] * 2 + [RateLimited] * 2
    )


@pytest.mark.parametrize("broken", ["vc:w:b", "vc:m:b", "vc:h:b", "vc:x:b"])
async def test_a_failure_is_of_those_who_meet_it_alone(desk: Desk, other: Client, broken: str) -> None:
    """Where it is read (the window, the money, what lapses) or only written (what is held)."""
    legs = {name: (meter(name, rpm=9, concurrency=1), dollars(1, name)) for name in ("a", "b", "c")}
    for name in "abc":
        await desk.settle(await desk.admit(*legs[name], ask=DOLLAR))
    await other.call("DEL", broken)
    await other.call("SET", broken, "nonsense")
    before = await calls(other)
    answers = await together(*(desk.admit(*legs[name], ask=DOLLAR) for name in "abc"))
    assert kinds(answers) == [Permit, Unavailable, Permit]
    assert await calls(other) == before + 1
    for permit in (answers[0], answers[2]):
        await desk.settle(permit, NANO // 2)
    assert not desk.guard._untold
    assert await other.call("HMGET", "vc:m:a", "charged", "held") == [b"500000000", b"0"]
    if broken != "vc:m:b":
        assert await other.call("HMGET", "vc:m:b", "charged", "held") == [b"0", b"0"]


async def test_credit_is_counted_as_held_only_with_what_it_lapses_by(desk: Desk, other: Client) -> None:
    await desk.settle(await desk.admit(dollars(1), ask=DOLLAR))
    await other.call("SET", "vc:h:a", "nonsense")
    with pytest.raises(Unavailable):
        await desk.admit(dollars(1), ask=DOLLAR)
    await other.call("DEL", "vc:h:a")
    await desk.settle(await desk.admit(dollars(1), ask=DOLLAR))
    desk.clock.advance(2 * LEASE_S)
    assert (await desk.admit(dollars(1), ask=DOLLAR)).held_nanousd == NANO, "what was left behind lapses for nothing"
    assert await other.call("HMGET", "vc:m:a", "charged", "held") == [b"0", b"1000000000"]


async def test_an_end_that_could_not_be_written_is_charged_when_it_can(desk: Desk, other: Client) -> None:
    permit = await desk.admit(dollars(2), ask=DOLLAR)
    await other.call("DEL", "vc:x:a")
    await other.call("SET", "vc:x:a", "nonsense")
    await desk.settle(permit, NANO)
    assert await other.call("HMGET", "vc:m:a", "charged", "held") == [b"0", b"1000000000"]
    await other.call("DEL", "vc:x:a")
    desk.guard._client.changed.set()
    await _until_told(desk)
    assert await other.call("HMGET", "vc:m:a", "charged", "held") == [b"1000000000", b"0"]


async def test_what_was_sent_together_and_not_answered_gives_everything_back(
    server: Server, desk: Desk, other: Client
) -> None:
    limit, fund = meter(concurrency=9), dollars(9)
    ended = await desk.admit(limit, fund, ask=DOLLAR)
    os.kill(server.pid, signal.SIGSTOP)
    desk.guard.settle(ended, NanoUSD(NANO))
    waiting = asyncio.get_running_loop().create_task(together(*(desk.admit(limit, fund, ask=DOLLAR) for _ in range(5))))
    await asyncio.sleep(0.01)  # these are sent, and the next ones after them
    more = asyncio.get_running_loop().create_task(together(*(desk.admit(limit, fund, ask=DOLLAR) for _ in range(3))))
    assert kinds(await waiting) == [Unavailable] * 5
    assert kinds(await more) == [Unavailable] * 3
    os.kill(server.pid, signal.SIGCONT)
    await asyncio.wait_for(desk.guard._client.up.wait(), 10)
    await _until_told(desk)
    assert await other.call("HMGET", "vc:m:a", "charged", "held") == [b"1000000000", b"0"]
    assert await other.call("ZCARD", "vc:l:a") == 0 == await other.call("HLEN", "vc:h:a")


async def test_an_end_waits_for_an_admission_to_go_with_but_not_for_long(desk: Desk, other: Client) -> None:
    limit = meter(concurrency=1)
    permit = await desk.admit(limit)
    before = await calls(other)
    desk.guard.settle(permit, NanoUSD(0))
    await asyncio.sleep(0)
    permit = await desk.admit(limit)
    assert await calls(other) == before + 1
    desk.guard.settle(permit, NanoUSD(0))
    await _until_told(desk)
    assert await other.call("ZCARD", "vc:l:a") == 0


async def _until_told(desk: Desk) -> None:
    deadline = time.monotonic() + 10
    while desk.guard._untold:
        assert time.monotonic() < deadline, "it was never told"
        await asyncio.sleep(0.001)

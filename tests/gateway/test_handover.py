"""A gateway hands its port to another on the same folder: nobody notices, and every limit and cent goes on."""

import asyncio
import fcntl
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from front_door import House, ended, eventually, request

from vipcloud.cli import context
from vipcloud.cli.serve import Gateway, gateway
from vipcloud.clock import SystemClock
from vipcloud.gateway import handover
from vipcloud.gateway.handover import Elder, HandoverFailed, RelayedGuard, Successor
from vipcloud.ledger import audit, slots
from vipcloud.ledger.journal import JournalError
from vipcloud.limits.local import LocalGuard
from vipcloud.storage import engine as storage
from wire import dial

LONG = "Count to 40 [[pace_ms=20]]"


@dataclass
class Pair:
    """A house whose gateway has handed over to `second`; both are still there."""

    house: House
    first: Gateway
    second: Gateway
    elder: Elder
    follows: asyncio.Task[None]

    async def end_first(self) -> None:
        """It has drained."""
        await self.first.server.close(5)
        await self.first.parts.guard.flushed()
        await self.elder.end()
        await self.follows

    def money(self) -> tuple[int, int]:
        """What the second one's guard says the account was charged, and what is held."""
        state = guard_of(self.second)._purses[self.house.account_id]
        return state.charged_nanousd, state.held_nanousd


def guard_of(built: Gateway) -> LocalGuard:
    guard = built.parts.guard
    return guard.local if isinstance(guard, RelayedGuard) else guard  # type: ignore[return-value]


Take = Callable[..., Any]


@pytest.fixture
async def take(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Take]:
    """Hands over from a house's gateway, or from one that was handed over to."""
    async with AsyncExitStack() as stack:

        @asynccontextmanager
        async def taken(house: House, first: Gateway) -> AsyncIterator[Pair]:
            path = tmp_path_factory.mktemp("s") / "h"
            elder = Elder(first.parts, first.server, path)
            waiting = asyncio.get_running_loop().create_task(elder.run())
            await eventually(path.exists)
            settings = first.parts.settings
            with gateway(
                settings, context.load_catalog(settings), house.engine, SystemClock(), asyncio.Event(), beside=True
            ) as second:
                successor = await Successor.ask(path)
                assert await successor.serve(second.parts, second.server) == house.port
                loop = asyncio.get_running_loop()
                follows = loop.create_task(successor.follow(second.parts, house.engine, "gateway"))
                await asyncio.wait_for(elder.left.wait(), 5)
                pair = Pair(house, first, second, elder, follows)
                yield pair
                if not follows.done():
                    await pair.end_first()
                await first.server.close(0)
                await ended(waiting)
                await second.server.close(0)
                with storage.reading(house.engine) as connection:
                    house.rows()
                    assert audit.Audit().check(connection) == []
                assert follows.exception() is None
                first.parts.guard = guard_of(second)  # the house looks at its guard in the end: that is this one now

        async def enter(house: House, first: Gateway | None = None) -> Pair:
            return await stack.enter_async_context(taken(house, first or house.gateway))

        yield enter


def charged(house: House) -> int:
    return sum(row.charge_nanousd for row in house.rows() if row.account_id == house.account_id)


async def test_a_stream_ends_where_it_began_and_new_requests_go_to_the_successor(house: House, take: Take) -> None:
    before = await house.chat()
    async with house.live(LONG) as answer:
        await answer.until(3)
        pair = await take(house)
        replies = [await house.chat(f"Hello {number}") for number in range(3)]
        assert [reply.status for reply in replies] == [200, 200, 200]
        assert pair.second.parts.figures.answers() != {}
        assert pair.money()[1] > 0, "the stream's hold came along"
        whole = await answer.rest()
        assert whole.done
        assert whole.text.endswith("40")
    await pair.end_first()
    assert len(await house.settled(5)) == 5
    assert {row.outcome for row in house.rows()} == {"complete"}
    assert pair.money() == (charged(house), 0)
    assert before.request_id in {row.request_id for row in house.rows()}


async def test_who_comes_meanwhile_waits_and_is_served(house: House, tmp_path_factory: Any) -> None:
    sockets = house.gateway.server.release()
    asked = asyncio.get_running_loop().create_task(house.chat())
    await asyncio.sleep(0.05)
    assert not asked.done()
    await house.gateway.server.adopt(sockets, [])
    assert (await asked).status == 200


async def test_connections_that_wait_for_a_request_change_hands(house: House, take: Take) -> None:
    asked = request("POST", "/v1/chat/completions", house.body("Hello", "deepseek-chat", {}), house.head())
    async with AsyncExitStack() as stack:
        used, *fresh = [await stack.enter_async_context(dial(house.port)) for _ in range(300)]
        used.send(asked)
        assert (await used.answer()).status == 200
        await eventually(lambda: len(house.gateway.server.connections) == 300)
        pair = await take(house)
        assert len(pair.second.server.connections) == 300
        await pair.end_first()
        for wire in (used, fresh[0], fresh[-1], used):
            wire.send(asked)
            assert (await wire.answer()).status == 200


async def test_credit_that_a_stream_holds_is_not_given_to_another(open_house: Any, take: Take) -> None:
    house: House = await open_house(guard={"hold_slice_tokens": 0})
    with house.using(*house.new_key(credit="0.0026")):
        async with house.live("Count to 30 [[pace_ms=30]]", max_tokens=2000) as answer:
            await answer.until(2)
            pair = await take(house)
            assert (await house.chat(max_tokens=1000)).status == 402
            assert (await answer.rest()).done
        await pair.end_first()
        assert (await house.chat(max_tokens=1000)).status == 200
        await eventually(lambda: pair.money() == (charged(house), 0))


async def test_limits_per_minute_and_at_the_same_time_go_on(house: House, take: Take) -> None:
    with house.using(*house.new_key(rpm=3, concurrency=1)):
        async with house.live(LONG) as answer:
            await answer.until(2)
            pair = await take(house)
            busy = await house.chat()
            assert (busy.status, "at the same time" in busy.error["message"]) == (429, True)
            assert (await answer.rest()).done
        await pair.end_first()
        assert [(await house.chat()).status for _ in range(3)] == [200, 200, 429]


async def test_an_idempotency_key_that_runs_there_is_known_here(house: House, take: Take) -> None:
    body = house.body(LONG, "deepseek-chat", {"stream": True})
    head = house.head(**{"Idempotency-Key": "once"})

    async def again() -> Any:
        return await house.ask("POST", "/v1/chat/completions", body, head)

    running = asyncio.get_running_loop().create_task(again())
    await eventually(lambda: len(house.gateway.parts.progress))
    pair = await take(house)
    assert (await again()).error["code"] == "request_in_progress"
    whole = await running
    assert whole.done
    await pair.end_first()
    told = await again()
    assert told.error["code"] == "already_answered"
    assert told.headers["x-vipcloud-original-request-id"] == whole.headers["x-request-id"].replace("req_", "chatcmpl-")


@pytest.mark.parametrize(("credit", "whole"), [("1.00", True), ("0.0005", False)])
async def test_a_long_stream_asks_the_successor_for_more_credit(
    open_house: Any, take: Take, credit: str, whole: bool
) -> None:
    house: House = await open_house(guard={"hold_slice_tokens": 16}, journal={"progress_interval_s": 0.01})
    with house.using(*house.new_key(credit=credit)):
        async with house.live("[[tokens=400 pace_ms=3]]", max_tokens=1500) as answer:
            await answer.until(3)
            pair = await take(house)
            spent = 0
            if not whole:  # the successor's callers take what is left
                while (await house.chat("Count to 20", max_tokens=40)).status == 200:
                    spent += 1
            reply = await answer.rest()
        await pair.end_first()
        assert reply.done
        [row] = [row for row in house.rows() if row.streamed]
        assert (row.finish_reason, row.completion_tokens == 400) == (("stop", True) if whole else ("length", False))
        assert pair.money() == (charged(house), 0)
        assert house.credit() >= 0


async def test_a_successor_that_does_not_come_up_changes_nothing(
    house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "h"
    elder = Elder(house.gateway.parts, house.gateway.server, path)
    task = asyncio.get_running_loop().create_task(elder.run())
    await eventually(path.exists)
    async with house.live(LONG) as answer:
        await answer.until(2)
        for hangs in (False, True):
            monkeypatch.setattr(handover, "ANSWER_S", 0.2 if hangs else 10)
            with socket.socket(socket.AF_UNIX) as asked:
                asked.connect(str(path))
                if hangs:
                    await asyncio.sleep(0.3)
            await eventually(lambda: not house.gateway.server.draining)
            assert (await house.chat()).status == 200
        assert isinstance(house.gateway.parts.guard, LocalGuard)
        assert not elder.left.is_set()
        assert (await answer.rest()).done
    await ended(task)


async def test_requests_that_end_during_the_hand_over_are_told(
    house: House, take: Take, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve = Successor.serve

    async def slow(self: Successor, parts: Any, server: Any) -> int:
        while len(house.gateway.parts.progress):  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.01)
        return await serve(self, parts, server)

    monkeypatch.setattr(Successor, "serve", slow)
    async with house.live("Count to 5 [[pace_ms=20]]") as answer:
        await answer.until(2)
        pair = await take(house)
        assert (await answer.rest()).done
    await pair.end_first()
    assert pair.money() == (charged(house), 0)


async def test_nobody_to_take_over_from_is_said(tmp_path: Path) -> None:
    with pytest.raises(HandoverFailed, match="does not hand over"):
        await Successor.ask(tmp_path / "nobody")


@pytest.mark.interpreted
async def test_what_an_elder_leaves_open_that_dies_is_settled_at_once(
    open_house: Any, take: Take, monkeypatch: pytest.MonkeyPatch
) -> None:
    house: House = await open_house(journal={"progress_interval_s": 0.01})
    monkeypatch.setattr(handover, "GONE_TRY_S", 0.01)
    house.key, house.account_id = house.new_key(concurrency=2)
    async with house.live(LONG) as answer, house.sent("Hello [[first_token_ms=9000]]", stream=True):
        await answer.until(5)
        await eventually(lambda: len(house.gateway.parts.progress) == 2)
        pair = await take(house)
        await asyncio.sleep(0.05)
        first = house.gateway.parts
        first.journal._flush()
        for owner, name in ((first.journal, "append"), (pair.elder._channel, "send")):
            monkeypatch.setattr(owner, name, _nothing_more)
        fcntl.flock(first.journal._lock, fcntl.LOCK_UN)
        await pair.elder._channel.close()  # type: ignore[union-attr]
        await pair.follows
        rows = [row for row in house.rows() if row.outcome == "crashed"]
        assert len(rows) == 2
        assert sorted(row.charge_nanousd > 0 for row in rows) == [False, True]
        assert pair.money() == (charged(house), 0)
        assert [(await house.chat()).status for _ in range(2)] == [200, 200]


def _nothing_more(*_: object) -> None:
    """As of a process that is dead."""


async def test_a_successor_may_hand_over_before_its_elder_has_ended(house: House, take: Take) -> None:
    async with house.live("Count to 60 [[pace_ms=30]]") as oldest:
        await oldest.until(2)
        pair = await take(house)
        async with house.live("Count to 50 [[pace_ms=20]]") as older:
            await older.until(2)
            last = await take(house, pair.second)
            assert (await house.chat()).status == 200
            assert last.money()[1] > 0
            assert (await older.rest()).done
        assert (await oldest.rest()).done
    await pair.end_first()
    await last.end_first()
    assert {row.outcome for row in house.rows()} == {"complete"}
    assert last.money() == (charged(house), 0)


async def test_gateways_of_one_folder_have_names_and_a_third_is_refused(house: House, take: Take) -> None:
    pair = await take(house)
    settings = house.gateway.parts.settings
    assert (house.gateway.parts.journal.worker, pair.second.parts.journal.worker) == ("gateway", "gatewayx2")
    catalog = context.load_catalog(settings)
    with pytest.raises(JournalError, match="Another process"):
        gateway(settings, catalog, house.engine, SystemClock(), asyncio.Event()).__enter__()
    await pair.end_first()
    house.gateway.parts.journal.close()
    try:
        with pytest.raises(JournalError, match="takeover"):
            gateway(settings, catalog, house.engine, SystemClock(), asyncio.Event()).__enter__()
    finally:
        house.gateway.parts.journal.__init__(settings.journal_path, lambda _: None, SystemClock())  # type: ignore[misc]


def test_a_name_is_held_while_it_is_held(tmp_path: Path) -> None:
    assert slots.names("west")[:3] == ["west", "westx2", "westx3"]
    assert slots.used(tmp_path, "west") == []
    with slots.held(tmp_path, "west") as free:
        assert free
        with slots.held(tmp_path, "west") as again:
            assert not again
    with slots.held(tmp_path, "west") as free:
        assert free
    assert slots.used(tmp_path, "west") == ["west"]

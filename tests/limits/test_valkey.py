"""What only the guard on Valkey does: a server that goes, comes back, forgets, or does not answer."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable

import pytest
from desk import DOLLAR, FREE, LEASE_S, Desk, as_told, dollars, meter, running, valkey_desk

from valkey_server import Server
from vipcloud.clock import ManualClock, SystemClock
from vipcloud.errors import InsufficientCredit, RateLimited, SettingsError, Unavailable
from vipcloud.limits.connection import Address, Away, Client
from vipcloud.limits.guard import Subject
from vipcloud.limits.valkey import ValkeyGuard
from vipcloud.money import NANO, NanoUSD


@pytest.fixture
async def desk(server: Server) -> AsyncIterator[Desk]:
    """One gateway of three."""
    async with valkey_desk(server, nodes=3, timeout_s=0.3) as desk:
        yield desk


async def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not true():
        assert time.monotonic() < deadline, "it never came true"
        await asyncio.sleep(0.001)


async def restored(desk: Desk) -> None:
    await asyncio.wait_for(desk.guard._client.up.wait(), 10)


async def lost(desk: Desk) -> None:
    await until(lambda: not desk.guard._client.connected)


async def test_without_the_server_a_gateway_takes_its_part_of_the_limits_and_no_money(
    server: Server, desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    limit = meter(rpm=7, concurrency=1)
    await desk.settle(await desk.admit(limit))
    assert desk.guard.degraded == ""
    server.kill()
    await lost(desk)
    assert "cannot be reached" in desk.guard.degraded
    permit = await desk.admit(limit, dollars(5), ask=FREE)
    assert permit.limit_requests == 2, "a third of seven"
    with pytest.raises(RateLimited, match="1 request at the same time"):
        await desk.admit(limit)
    await desk.settle(permit)
    await desk.settle(await desk.admit(limit))
    with pytest.raises(RateLimited, match="2 requests per minute"):
        await desk.admit(limit)
    assert (await desk.standing(limit)).limit == 2
    with pytest.raises(Unavailable) as refused:
        await desk.admit(meter("b"), dollars(5), ask=DOLLAR)
    assert refused.value.retry_after_s == 2
    assert capsys.readouterr().out.count("limits_degraded") == 1
    server.start()
    await restored(desk)
    assert (await desk.admit(limit, dollars(5), ask=DOLLAR)).limit_requests == 7
    assert desk.guard.degraded == ""


async def test_a_settlement_that_was_not_heard_is_told_again_and_counts_once(server: Server, desk: Desk) -> None:
    """The server is halted, not gone: it hears the first telling late, and the second one too."""
    permits = [await desk.admit(dollars(5), meter(concurrency=9), ask=DOLLAR) for _ in range(5)]
    os.kill(server.pid, signal.SIGSTOP)
    for permit in permits[:3]:
        desk.guard.settle(permit, NanoUSD(NANO // 2))
    await lost(desk)
    for permit in permits[3:]:
        desk.guard.settle(permit, NanoUSD(NANO))
    os.kill(server.pid, signal.SIGCONT)
    await restored(desk)
    await until(lambda: not desk.guard._untold)
    assert (await desk.admit(dollars(4.5), ask=DOLLAR)).held_nanousd == NANO
    with pytest.raises(InsufficientCredit, match=r"\$0.00 not held"):
        await desk.admit(dollars(4.5), ask=DOLLAR)


async def test_an_admission_without_an_answer_gives_everything_back(server: Server, desk: Desk) -> None:
    limit = meter(concurrency=1)
    os.kill(server.pid, signal.SIGSTOP)
    with pytest.raises(Unavailable):
        await desk.admit(limit, dollars(1), ask=DOLLAR)
    os.kill(server.pid, signal.SIGCONT)
    await restored(desk)
    await until(lambda: not desk.guard._untold)
    await desk.admit(limit, dollars(1), ask=DOLLAR)


async def test_a_caller_who_leaves_while_the_server_thinks_keeps_nothing(server: Server, desk: Desk) -> None:
    limit = meter(concurrency=1)
    asking = asyncio.get_running_loop().create_task(desk.admit(limit, dollars(1), ask=DOLLAR))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    asking.cancel()
    await asyncio.wait([asking])
    assert asking.cancelled()
    await desk.guard.flushed()
    await desk.settle(await desk.admit(limit, dollars(1), ask=DOLLAR))


async def test_a_server_that_forgot_the_script_is_given_it_again(server: Server, desk: Desk) -> None:
    async with running(Client(server.url, timeout_s=5, waiting_max=10)) as other:
        for _ in range(2):
            await other.call("SCRIPT", "FLUSH")
            permit = await desk.admit(dollars(1), meter(concurrency=1), ask=DOLLAR)
            await other.call("SCRIPT", "FLUSH")
            await desk.settle(permit)
            await until(lambda: not desk.guard._untold)


async def test_a_server_that_forgot_everything_begins_with_what_the_store_says(server: Server, desk: Desk) -> None:
    running_still = await desk.admit(dollars(5), ask=DOLLAR)
    server.flush()
    with pytest.raises(InsufficientCredit):
        await desk.admit(dollars(5, charged_nanousd=5 * NANO), ask=DOLLAR)
    await desk.settle(running_still, NANO)
    assert (await desk.admit(dollars(7, charged_nanousd=5 * NANO), ask=DOLLAR)).held_nanousd == NANO
    with pytest.raises(InsufficientCredit):
        await desk.admit(dollars(7), ask=DOLLAR)


async def test_charges_that_only_the_books_know_count(server: Server, desk: Desk) -> None:
    await desk.settle(await desk.admit(dollars(5), ask=DOLLAR), 1)
    with pytest.raises(InsufficientCredit):
        await desk.admit(dollars(5, charged_nanousd=5 * NANO), ask=DOLLAR)


async def test_what_a_dead_gateway_held_comes_back_when_it_lapses(server: Server, desk: Desk) -> None:
    await desk.admit(dollars(1), meter(concurrency=1), ask=DOLLAR)
    with pytest.raises(InsufficientCredit):
        await desk.admit(dollars(1), ask=DOLLAR)
    with pytest.raises(RateLimited):
        await desk.admit(meter(concurrency=1), ask=FREE)
    desk.clock.advance(LEASE_S)
    await desk.admit(dollars(1), meter(concurrency=1), ask=DOLLAR)


async def test_gateways_share_their_counts_by_the_servers_clock(server: Server) -> None:
    guards = [
        ValkeyGuard(Client(server.url, timeout_s=5, waiting_max=1000), SystemClock(), LEASE_S, 2, as_told)
        for _ in range(2)
    ]
    tasks = [asyncio.get_running_loop().create_task(guard.run()) for guard in guards]
    for guard in guards:
        await guard.ready()

    async def ask(number: int) -> bool:
        subject = Subject((meter(rpm=50),), (dollars(1000),))
        try:
            await guards[number % 2].admit(f"r{number}", subject, DOLLAR, 0.0)
        except RateLimited as error:
            waits.append(error.retry_after_s or 0)
            return False
        return True

    waits: list[float] = []
    assert sum(await asyncio.gather(*map(ask, range(200)))) == 50
    assert 55 < min(waits) <= max(waits) <= 66
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


async def test_too_many_calls_at_once_are_told_at_once(server: Server) -> None:
    async with running(Client(server.url, timeout_s=5, waiting_max=3)) as client:
        answers = [client.call("PING") for _ in range(3)]
        with pytest.raises(Away, match="too many") as refused:
            client.call("PING")
        assert not refused.value.sent
        assert await asyncio.gather(*answers) == [b"PONG"] * 3


async def test_whoever_talks_another_protocol_is_not_listened_to() -> None:
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await reader.read()
        writer.close()

    async with await asyncio.start_server(greet, "127.0.0.1", 0) as stranger:
        client = Client(f"redis://127.0.0.1:{stranger.sockets[0].getsockname()[1]}", timeout_s=1, waiting_max=9)
        with pytest.raises((Away, ConnectionError)):
            await client._open()


async def test_a_guard_that_never_had_a_server_begins_degraded() -> None:
    guard = ValkeyGuard(
        Client("unix:///nowhere/socket", timeout_s=0.1, waiting_max=9), ManualClock(), LEASE_S, 1, as_told
    )
    with pytest.raises(Unavailable):
        await guard.admit("r", Subject((), (dollars(1),)), DOLLAR, 0.0)
    guard.settle(await guard.admit("r", Subject((meter(rpm=1),)), FREE, 0.0), NanoUSD(0))
    assert not guard._untold
    assert guard.degraded


@pytest.mark.parametrize(
    ("url", "host", "port", "database", "greeting"),
    [
        ("redis://", "127.0.0.1", 6379, 0, [("PING",)]),
        ("redis://cache.internal:7000/3", "cache.internal", 7000, 3, [("SELECT", 3), ("PING",)]),
        ("rediss://:p%40ss@h", "h", 6379, 0, [("AUTH", "p@ss"), ("PING",)]),
        ("valkey://ann:secret@h/1", "h", 6379, 1, [("AUTH", "ann", "secret"), ("SELECT", 1), ("PING",)]),
        ("unix:///run/v.sock?db=2", "127.0.0.1", 6379, 2, [("SELECT", 2), ("PING",)]),
    ],
)
def test_a_url_says_where_and_as_whom(url: str, host: str, port: int, database: int, greeting: list[object]) -> None:
    address = Address(url)
    assert (address.host, address.port, address.database) == (host, port, database)
    assert address.greeting() == greeting
    assert address.tls == url.startswith("rediss")
    assert "ss" not in str(address).replace("/run/", "")


@pytest.mark.parametrize("url", ["http://x", "redis://h:99999", "redis://h/first", "127.0.0.1:6379"])
def test_a_url_that_is_none_is_a_wrong_setting(url: str) -> None:
    with pytest.raises(SettingsError, match=r"guard\.url"):
        Address(url)


async def test_a_password_is_asked_for(server: Server) -> None:
    async with running(Client(server.url, timeout_s=5, waiting_max=3)) as client:
        await client.call("CONFIG", "SET", "requirepass", "secret")
        await client.call("AUTH", "secret")
        async with running(
            Client(server.url.replace("unix://", "unix://:secret@"), timeout_s=5, waiting_max=3)
        ) as ours:
            assert await ours.call("PING") == b"PONG"
        with pytest.raises(Exception, match="NOAUTH"):
            await Client(server.url, timeout_s=5, waiting_max=3)._open()


def test_memory_needs_nothing_of_it() -> None:
    program = "import sys, vipcloud.cli.commands; sys.exit('hiredis' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0

"""A server that has become a replica, or always was one: gateways look for the one that can be written."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable

import pytest
from desk import DOLLAR, Desk, dollars, meter, running, valkey_desk

from valkey_server import Server
from vipcloud.errors import Unavailable
from vipcloud.limits import connection
from vipcloud.limits.connection import PAUSE_S_MAX, PAUSE_S_MIN, Away, Client
from vipcloud.money import NANO, NanoUSD

REPLICATE = "REPLICAOF", "127.0.0.1", "1"  # nobody is there


@pytest.fixture
async def desk(server: Server) -> AsyncIterator[Desk]:
    async with valkey_desk(server) as desk:
        yield desk


async def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not true():
        assert time.monotonic() < deadline, "it never came true"
        await asyncio.sleep(0.001)


@pytest.mark.parametrize("with_admission", [True, False])
async def test_a_server_that_became_a_replica_is_left_for_one_that_is_none(
    desk: Desk, other: Client, with_admission: bool
) -> None:
    permit = await desk.admit(dollars(5), meter(concurrency=5), ask=DOLLAR)
    await other.call(*REPLICATE)
    if with_admission:
        with pytest.raises(Unavailable):
            await desk.admit(dollars(5), ask=DOLLAR)
        desk.guard.settle(permit, NanoUSD(NANO))
    else:
        desk.guard.settle(permit, NanoUSD(NANO))
    await until(lambda: not desk.guard._client.connected)
    assert desk.guard.degraded
    await other.call("REPLICAOF", "NO", "ONE")
    await until(lambda: not desk.guard._untold)
    assert await other.call("HMGET", "vc:m:a", "charged", "held") == [b"1000000000", b"0"]
    await desk.admit(dollars(5), ask=DOLLAR)
    assert not desk.guard.degraded


async def test_a_replica_is_not_connected_to(server: Server, other: Client) -> None:
    await other.call(*REPLICATE)
    with pytest.raises(Away, match="replica"):
        await Client(server.url, timeout_s=5, waiting_max=3)._open()


async def test_who_may_not_ask_for_the_role_is_connected(server: Server, other: Client) -> None:
    await other.call("ACL", "SETUSER", "ann", "on", ">secret", "~vc:*", "+@all", "-role")
    url = server.url.replace("unix://", "unix://ann:secret@")
    async with running(Client(url, timeout_s=5, waiting_max=3)) as client:
        assert client.connected


async def test_connections_that_do_not_last_are_made_after_growing_pauses(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who may not ask for the role of a replica leaves it at its first refusal to write."""
    pauses = list[float]()
    sleep = asyncio.sleep

    async def noted(pause_s: float) -> None:
        if pause_s >= PAUSE_S_MIN / 2:  # shorter ones are this test's own
            pauses.append(pause_s)
        await sleep(0)

    monkeypatch.setattr(asyncio, "sleep", noted)
    monkeypatch.setattr(connection, "STEADY_S", 3600)
    async with running(Client(server.url, timeout_s=5, waiting_max=3)) as client:
        for count in range(1, 9):
            await client.up.wait()
            client.leave()
            await until(lambda count=count: len(pauses) == count)  # type: ignore[misc]
        assert pauses[0] < 0.1
        assert pauses[7] >= PAUSE_S_MAX / 2
        monkeypatch.setattr(connection, "STEADY_S", 0)
        for _ in range(2):
            await client.up.wait()
            left = client.connection
            client.leave()
            await until(lambda left=left: client.connection not in (None, left))  # type: ignore[misc]
        assert len(pauses) == 8, "one that lasted is followed at once"

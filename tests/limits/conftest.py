from collections.abc import AsyncIterator, Iterator

import pytest
from desk import LEASE_S, Desk, running, valkey_desk

import valkey_server
from valkey_server import Server
from vipcloud.limits.connection import Client
from vipcloud.limits.local import LocalGuard


@pytest.fixture(params=["memory", "valkey"])
async def desk(request: pytest.FixtureRequest) -> AsyncIterator[Desk]:
    """A guard of each kind."""
    if request.param == "memory":
        yield Desk(lambda clock, chance: LocalGuard(clock, LEASE_S, chance))
        return
    async with valkey_desk(request.getfixturevalue("valkey")) as desk:
        yield desk


@pytest.fixture
def server() -> Iterator[Server]:
    """A server of this test's own, to be stopped, killed and spoiled."""
    with valkey_server.serving() as server:
        yield server


@pytest.fixture
async def other(server: Server) -> AsyncIterator[Client]:
    """Somebody else on that server."""
    async with running(Client(server.url, timeout_s=10, waiting_max=100)) as client:
        yield client

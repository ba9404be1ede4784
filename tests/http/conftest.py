import asyncio
from collections.abc import AsyncIterator, Callable

import msgspec
import pytest
import uvloop

from vipcloud.http.server import ErrorRenderer, Handler, HTTPServer, render_error
from vipcloud.settings import ServerSettings
from wire import Serve, Served


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The loop that the gateway runs on."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture
async def faults() -> AsyncIterator[list[dict[str, object]]]:
    """What reached the loop's exception handler; a test passes only if nothing did."""
    found: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: found.append(context))
    yield found
    assert found == []


@pytest.fixture
async def serve(faults: list[dict[str, object]]) -> AsyncIterator[Serve]:
    """Starts servers on the loopback; settings by keyword. They are closed after the test."""
    servers: list[HTTPServer] = []

    async def start(
        handler: Handler, *, on_error: ErrorRenderer = render_error, host: str = "127.0.0.1", **settings: float
    ) -> Served:
        server = HTTPServer(handler, msgspec.structs.replace(ServerSettings(), **settings), on_error)
        servers.append(server)
        return Served(server, host, await server.start(host, 0))

    yield start
    for server in servers:
        await server.close(0)
        assert not server.connections

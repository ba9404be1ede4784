"""Whether a request has left, told to its sender however the wait for the answer ends."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from vipcloud.http.client import Address, Client, ConnectFailed, Origin, Sender
from vipcloud.settings import ClientSettings
from wire import Peer, Wire, until

REQUEST = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
NOWHERE = Address("http", "127.0.0.1", 1)


async def breaks_off_at_the_second(wire: Wire) -> None:
    await wire.reader.readuntil(b"\r\n\r\n")
    wire.send(OK)
    await wire.reader.readuntil(b"\r\n\r\n")
    wire.reset()


@pytest.fixture
async def origin(faults: list[dict[str, object]]) -> AsyncIterator[Origin]:
    """Of a peer that answers one request and breaks off at the next; it takes one connection at a time."""
    client = Client(ClientSettings(connections_max=1))
    async with Peer(breaks_off_at_the_second).listening() as peer:
        yield client.origin(Address("http", "127.0.0.1", peer.port))
        client.close()


async def ask(origin: Origin, sender: Sender) -> bytes:
    response = await origin.send(REQUEST, asyncio.get_running_loop().time() + 5, "total", sender)
    return await response.read(1000)


async def test_what_is_answered_has_left(origin: Origin) -> None:
    sender = Sender()
    assert not sender.sent
    assert await ask(origin, sender) == b"ok"
    assert sender.sent


async def test_what_is_sent_again_has_left(origin: Origin) -> None:
    await ask(origin, Sender())
    sender = Sender()
    assert await ask(origin, sender) == b"ok"
    assert sender.sent


async def test_what_waits_for_a_connection_has_not_left(origin: Origin) -> None:
    response = await origin.send(REQUEST, asyncio.get_running_loop().time() + 5)
    (connection,) = origin._connections
    origin._idle.pop(connection, None)  # as if its answer had not ended
    sender = Sender()
    call = asyncio.ensure_future(ask(origin, sender))
    await until(lambda: len(origin._waiting) == 1)
    call.cancel()
    await asyncio.wait([call])
    assert not sender.sent
    response.abort()


async def test_what_cannot_be_sent_again_has_not_left(origin: Origin) -> None:
    """Its first connection had been given up by the peer, so that nobody has read it."""
    await ask(origin, Sender())
    origin.address = NOWHERE
    sender = Sender()
    with pytest.raises(ConnectFailed):
        await ask(origin, sender)
    assert not sender.sent

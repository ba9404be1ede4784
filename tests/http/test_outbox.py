"""One burst for each turn of the loop: in order, after what must come first, and never to what has closed."""

import asyncio
from typing import cast

from vipcloud.http.outbox import Outbox
from vipcloud.http.server import Exchange
from wire import Serve, get


class Line:
    """A transport that notes what it is given in `said`, which it may share."""

    def __init__(self, said: list[bytes]) -> None:
        self.said = said
        self.closed = False

    def is_closing(self) -> bool:
        return self.closed

    def write(self, data: bytes) -> None:
        self.said.append(data)


def line(said: list[bytes]) -> asyncio.Transport:
    return cast(asyncio.Transport, Line(said))


async def test_what_a_turn_sends_goes_out_at_its_end_in_order_after_what_comes_first() -> None:
    outbox, said = Outbox(), list[bytes]()
    one, other = line(said), line(said)
    outbox.send(one, b"a")
    outbox.send(other, b"b")
    outbox.first(lambda: said.append(b"journal"))
    outbox.send(one, b"c")
    assert said == []
    await asyncio.sleep(0)
    assert said == [b"journal", b"a", b"b", b"c"]
    outbox.send(one, b"d")
    await asyncio.sleep(0)
    assert said[4:] == [b"d"]


async def test_a_flush_sends_at_once_and_nothing_twice() -> None:
    outbox, said = Outbox(), list[bytes]()
    outbox.send(line(said), b"a")
    outbox.flush()
    assert said == [b"a"]
    await asyncio.sleep(0)
    assert said == [b"a"]


async def test_a_line_that_closed_meanwhile_gets_nothing() -> None:
    outbox, said = Outbox(), list[bytes]()
    gone = Line(said)
    outbox.send(cast(asyncio.Transport, gone), b"a")
    outbox.send(line(said), b"b")
    gone.closed = True
    await asyncio.sleep(0)
    assert said == [b"b"]


async def test_a_line_that_fails_takes_nobody_elses_answer_with_it() -> None:
    class Broken(Line):
        def write(self, data: bytes) -> None:
            raise RuntimeError("broken")

    outbox, said, faults = Outbox(), list[bytes](), list[object]()
    asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(context["exception"]))
    outbox.send(line(said), b"a")
    outbox.send(cast(asyncio.Transport, Broken(said)), b"b")
    outbox.send(line(said), b"c")
    await asyncio.sleep(0)
    outbox.send(line(said), b"d")
    await asyncio.sleep(0)
    assert said == [b"a", b"c", b"d"]
    assert [str(fault) for fault in faults] == ["broken"]


async def test_a_fault_of_what_comes_first_keeps_no_answer_back() -> None:
    outbox, said, faults = Outbox(), list[bytes](), list[object]()
    asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(context["exception"]))
    outbox.first([].pop)
    outbox.send(line(said), b"a")
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert said == [b"a"]
    assert len(faults) == 1


async def test_an_answer_comes_after_what_was_to_be_on_record_before_it(serve: Serve) -> None:
    recorded: list[str] = []

    async def handler(exchange: Exchange) -> None:
        exchange.respond(200, b"", b"answer")
        exchange.connection.server.outbox.first(lambda: recorded.append(exchange.path))

    served = await serve(handler)
    async with served.dial() as wire:
        for path in ("/one", "/two"):
            wire.send(get(path))
            await wire.answer()
            assert recorded[-1] == path


async def test_answers_to_pipelined_requests_keep_their_order_up_to_the_one_that_closes(serve: Serve) -> None:
    async def handler(exchange: Exchange) -> None:
        exchange.respond(200, b"", exchange.path.encode())

    served = await serve(handler)
    async with served.dial() as wire:
        wire.send(get("/1") + get("/2") + get("/3", "connection: close"))
        assert [(await wire.answer()).body for _ in range(3)] == [b"/1", b"/2", b"/3"]
        assert await wire.ended()


async def test_a_client_that_closes_its_sending_half_behind_its_request_gets_the_answer(serve: Serve) -> None:
    async def handler(exchange: Exchange) -> None:
        exchange.respond(200, b"", b"whole")

    served = await serve(handler)
    for _ in range(50):
        async with served.dial() as wire:
            wire.send(get("/"))
            wire.half_close()
            assert (await wire.answer()).body == b"whole"
            assert await wire.ended()

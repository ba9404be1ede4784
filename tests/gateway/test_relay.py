"""What reaches the client of what an upstream sends, at its own pace and at the client's."""

import asyncio
import time

import pytest
from front_door import House, Reply, eventually

STREAM = pytest.mark.parametrize("stream", [False, True], ids=["unary", "stream"])
MODELS = pytest.mark.parametrize("model", ["deepseek-chat", "glm-4-air"])


@MODELS
@STREAM
@pytest.mark.parametrize(
    "fault", ["drip:7:0", "utf8", "batch", "batch:3", "crlf", "comments:3", "keep-alive:0.05:10", "blank:5", "close"]
)
async def test_awkward_bytes_carry_the_same_answer(house: House, model: str, stream: bool, fault: str) -> None:
    text = "Repeat exactly: naïve 你好 🚢 done"
    plain = await house.chat(text, model, stream=stream)
    reply = await house.chat(f"{text}[[fault={fault}]]", model, stream=stream)
    assert (reply.status, reply.text) == (200, plain.text), reply.body
    assert "你好" in reply.text
    assert not stream or (reply.done and b"keep-alive" not in reply.body)
    rows = house.rows()
    assert [row.outcome for row in rows] == ["complete", "complete"]
    assert rows[0].completion_tokens == rows[1].completion_tokens


@MODELS
async def test_an_end_of_file_after_the_finish_reason_is_success(house: House, model: str) -> None:
    reply = await house.stream("Count to 5 [[fault=no-done]]", model)
    assert (reply.text, reply.done) == ("1, 2, 3, 4, 5", True)
    assert [row.outcome for row in house.rows()] == ["complete"]


@pytest.mark.parametrize("fault", ["cut:3", "eof:3", "malformed:3", "error:3"])
@MODELS
async def test_a_stream_that_breaks_ends_in_an_error_and_never_as_a_whole_one(
    house: House, model: str, fault: str
) -> None:
    reply = await house.stream(f"Count to 9 [[fault={fault}]]", model)
    assert (reply.status, reply.done) == (200, False)
    assert reply.stream_error is not None
    assert reply.stream_error["code"] == "upstream_interrupted"
    assert "1, 2, 3, 4, 5, 6, 7, 8, 9".startswith(reply.text)
    assert len(await house.upstreams["deepseek" if model == "deepseek-chat" else "zhipu"].log()) == 1


async def test_an_event_above_the_limit_ends_the_stream(open_house) -> None:
    house: House = await open_house(gateway={"event_bytes_max": 4096})
    reply = await house.stream("Count to 9 [[fault=giant:8000]]")
    error = reply.error if reply.status == 502 else reply.stream_error  # with what came before it in the same read
    assert error is not None
    assert error["type"] == "upstream_error"
    assert b"padding" not in reply.body


@STREAM
@pytest.mark.parametrize(
    ("fault", "settings"),
    [
        ("hang", {"first_byte_s": 0.05, "total_s": 0.1}),
        ("hang-body", {"first_byte_s": 0.05, "total_s": 0.1}),
        ("keep-alive:5:20", {"first_byte_s": 0.05, "total_s": 0.1}),
    ],
)
async def test_an_upstream_that_says_nothing_is_a_504(open_house, stream: bool, fault: str, settings: dict) -> None:
    house: House = await open_house(timeouts=settings)
    began_s = time.monotonic()
    reply = await house.chat(f"Hello [[fault={fault}]]", stream=stream)
    assert (reply.status, reply.error["code"]) == (504, "upstream_timeout"), reply.body
    assert time.monotonic() - began_s < 1
    log = await house.upstream.ended()
    assert [entry["outcome"] for entry in log] == ["cancelled"]  # asked once, and given up


@pytest.mark.parametrize("stall", ["stall:3", "stall:3,keep-alive:0.01:10", "stall:1"])
async def test_silence_in_a_stream_ends_it(open_house, stall: str) -> None:
    house: House = await open_house(timeouts={"idle_s": 0.05})
    reply = await house.stream(f"Count to 9 [[fault={stall}]]")
    assert reply.stream_error is not None
    assert (reply.stream_error["code"], reply.done) == ("upstream_timeout", False)
    assert (await house.upstream.ended())[0]["outcome"] == "cancelled"


async def test_a_stream_may_not_take_longer_than_its_total(open_house) -> None:
    house: House = await open_house(timeouts={"total_s": 0.2})
    reply = await house.stream("Count to 500 [[pace_ms=20]]")
    assert reply.stream_error is not None
    assert reply.stream_error["code"] == "upstream_timeout"
    assert "total" in reply.stream_error["message"]


async def test_an_answer_above_the_limit_is_no_answer(open_house) -> None:
    house: House = await open_house(gateway={"reply_bytes_max": 2048})
    reply = await house.chat("[[bytes=4000]]")
    assert (reply.status, reply.error["code"]) == (502, "upstream_error")


@pytest.mark.parametrize("leave", ["close", "reset"])
@pytest.mark.parametrize("events", [0, 1, 10])
@STREAM
async def test_a_client_that_leaves_takes_its_upstream_call_along(
    house: House, leave: str, events: int, stream: bool
) -> None:
    if events and not stream:
        return
    text = f"Count to 30 [[fault=stall:{events}]]" if events else "Hello [[fault=hang]]"
    async with house.sent(text, stream=stream) as wire:
        if events:
            await wire.reader.readuntil(b'"1"')
        else:
            await house.upstream.called()
        getattr(wire, leave)()
        left_s = time.monotonic()
        (call,) = await house.upstream.ended()
    assert call["outcome"] == "cancelled"
    assert call["ended_s"] - left_s < 0.25
    assert [row.outcome for row in await house.settled()] == ["client_gone"]


async def test_a_client_that_only_ends_its_sending_gets_its_answer(house: House) -> None:
    async with house.sent("Hello [[first_token_ms=120]]") as wire:
        wire.half_close()
        reply = Reply.of(await wire.answer())
    assert (reply.status, reply.text) == (200, "Hello! How can I help you today?")


async def test_a_slow_reader_holds_its_upstream_back_and_a_stalled_one_is_cut_off(open_house) -> None:
    house: House = await open_house(server={"write_stall_timeout_s": 0.4})
    tokens = 120_000  # some 25 MB of chunks: more than the kernel's buffers take
    async with house.sent(f"[[tokens={tokens}]]", "deepseek-reasoner", 4096, stream=True, max_tokens=tokens):
        (connection,) = await eventually(lambda: house.gateway.server.connections)
        await eventually(lambda: connection._paused_writing, within_s=10)
        sizes = []
        while connection in house.gateway.server.connections:
            sizes.append(connection._transport.get_write_buffer_size())
            await asyncio.sleep(0.02)
    assert max(sizes) < 32_768 + 8 * 65_536
    (call,) = await house.upstream.ended()
    assert (call["outcome"], call["events"] < tokens) == ("cancelled", True)
    assert [row.outcome for row in await house.settled()] == ["client_gone"]


async def test_a_slow_reader_does_not_keep_a_stream_beyond_its_total(open_house) -> None:
    house: House = await open_house(timeouts={"idle_s": 0.5, "total_s": 2})
    tokens = 120_000  # as above
    async with house.live(
        f"[[tokens={tokens}]]", "deepseek-reasoner", read_buffer_bytes=4096, max_tokens=tokens
    ) as live:
        (connection,) = await eventually(lambda: house.gateway.server.connections)
        await eventually(lambda: connection._paused_writing, within_s=10)
        assert [row.outcome for row in await house.settled()] == ["interrupted"]
        assert connection in house.gateway.server.connections, "settled although the client is still there"
        (call,) = await house.upstream.ended()
        assert (call["outcome"], call["events"] < tokens) == ("cancelled", True)
        reply = await live.rest()
    assert reply.stream_error is not None
    assert reply.stream_error["code"] == "upstream_timeout"
    assert "total" in reply.stream_error["message"]


async def test_a_reader_that_pauses_and_goes_on_gets_it_all(house: House) -> None:
    async with house.sent("[[tokens=4000]]", read_buffer_bytes=4096, stream=True) as wire:
        await house.upstream.called()
        await asyncio.sleep(0.1)
        reply = Reply.of(await wire.answer())
    assert reply.done
    row = house.usage(reply.request_id)
    assert row is not None
    assert row.completion_tokens == len(
        [chunk for chunk in reply.chunks if chunk["choices"][0]["delta"].get("content")]
    )

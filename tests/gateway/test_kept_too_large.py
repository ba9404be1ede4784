"""A kept answer whose last part is beyond the limit is not sent without it."""

import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from front_door import House
from scripted import EVENTS, Scripted

from vipcloud.http.server import Exchange, HTTPServer
from vipcloud.settings import ServerSettings

USAGE = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}


def event(content: str, **fields: Any) -> bytes:
    choice = {"index": 0, "delta": {"content": content}, "finish_reason": None, **fields}
    return b"data: " + json.dumps({"id": "x", "choices": [choice], "usage": USAGE}).encode()


@pytest.fixture
async def upstream(
    tmp_path: Path, template: Any, monkeypatch: pytest.MonkeyPatch, open_house: Any
) -> AsyncIterator[list[bytes]]:
    """The bytes that it answers with, to be filled in."""
    monkeypatch.setenv("PLAIN_API_KEY", "sk-plain")
    parts: list[bytes] = []

    async def handle(exchange: Exchange) -> None:
        await exchange.body()
        exchange.start(200, EVENTS)
        for part in parts:
            exchange.write(part)
        exchange.finish(b"")

    server = HTTPServer(handle, ServerSettings())
    port = await server.start("127.0.0.1", 0)
    data = tmp_path / "data"
    data.mkdir()
    shutil.copy(template[0], data)
    (data / "catalog.toml").write_text(Scripted(port).catalog())
    yield parts
    await server.close(0)


async def ask(house: House) -> Any:
    body = house.body("Hello", "plain-1", {"stream": True})
    return await house.ask("POST", "/v1/chat/completions", body, house.head(**{"x-vipcloud-rescue": "buffer"}))


@pytest.mark.parametrize("end", [b"\n\n", b""], ids=["a whole event", "one that ends with the stream"])
@pytest.mark.parametrize("reason", ["stop", None], ids=["the last", "not the last"])
@pytest.mark.parametrize(("chars", "status"), [(100, 200), (6000, 502)])
async def test_an_answer_is_sent_whole_or_not_at_all(
    upstream: list[bytes], open_house: Any, end: bytes, reason: str | None, chars: int, status: int
) -> None:
    house: House = await open_house(gateway={"reply_bytes_max": 4096, "attempts_max": 1})
    upstream[:] = [event("Hello. ") + b"\n\n", event("x" * chars, finish_reason=reason) + end]
    reply = await ask(house)
    if reason is None:
        status = 502
    assert reply.status == status, reply.body
    (row,) = house.rows()
    if status == 200:
        assert (reply.text, reply.done) == ("Hello. " + "x" * chars, True)
        assert row.outcome == "complete"
    else:
        assert (row.outcome, row.charge_nanousd) == ("upstream_failed", 0)
        assert [record.number for record in house.lost()] == [1]

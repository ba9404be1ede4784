"""A streaming upstream, shaped like DeepSeek's: `stream_upstream.py PORT CHUNKS INTERVAL_MS`.

A request for a stream gets an opening chunk, CHUNKS chunks with text, one every INTERVAL_MS, a finish chunk with usage,
and [DONE]. Each stream keeps its own time, and each chunk is its own write. Any other request gets a whole reply.
"""

import asyncio
import json
import sys
from itertools import cycle, islice
from typing import cast

import httptools
import uvloop

from wire import REPLY, compact

WORDS = [" Alvalade", " is", " flat", " and", " calm", ",", " the", " metro", " is", " near", "."]
STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ncache-control: no-cache\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)
WHOLE = compact(REPLY).encode()
WHOLE_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(WHOLE)


def event(delta: dict[str, str], finish_reason: str | None = None, usage: dict[str, int] | None = None) -> bytes:
    """One chunk as an HTTP chunk; with a word of text in it, about 280 bytes of event."""
    message = {
        "id": "5f0a3c1e-9a57-4a0e-8f0c-3d1c8f6b7a21",
        "object": "chat.completion.chunk",
        "created": 1795000000,
        "model": "deepseek-chat",
        "system_fingerprint": "fp_8802369eaa_prod0425fp8",
        "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}],
    }
    return framed(b"data: %s\n\n" % compact(message | ({"usage": usage} if usage else {})).encode())


def framed(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


class Upstream(asyncio.Protocol):
    """One connection: answers one request after the other."""

    def __init__(self, script: list[bytes], interval_s: float) -> None:
        self._script = script
        self._interval_s = interval_s
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's does not derive from it
        self._parser = httptools.HttpRequestParser(self)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_begin(self) -> None:
        self._body = b""

    def on_body(self, data: bytes) -> None:
        self._body += data

    def on_message_complete(self) -> None:
        if not json.loads(self._body).get("stream"):
            self._transport.write(WHOLE_HEAD + WHOLE)
            return
        self._transport.write(STREAM_HEAD + self._script[0])
        self._position = 1
        self._due_s = self._loop.time()
        self._schedule()

    def _schedule(self) -> None:
        self._due_s += self._interval_s
        self._timer = self._loop.call_at(self._due_s, self._play)

    def _play(self) -> None:
        self._transport.write(self._script[self._position])
        self._position += 1
        if self._position < len(self._script):
            self._schedule()

    def connection_lost(self, error: Exception | None) -> None:
        if self._timer:
            self._timer.cancel()


def script(chunks: int) -> list[bytes]:
    """The writes of one stream after its head: opening, texts, and an end that comes as one."""
    usage = {"prompt_tokens": 187, "completion_tokens": chunks, "total_tokens": 187 + chunks}
    texts = [event({"content": word}) for word in WORDS]
    end = event({"content": ""}, "stop", usage) + framed(b"data: [DONE]\n\n") + b"0\r\n\r\n"
    return [event({"role": "assistant", "content": ""}), *islice(cycle(texts), chunks), end]


async def serve(port: int, chunks: int, interval_ms: int) -> None:
    writes = script(chunks)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Upstream(writes, interval_ms / 1000), "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(*map(int, sys.argv[1:])))

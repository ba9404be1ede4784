"""Many streams at once: `stream_client.py PORT REQUEST_FILE STREAMS REPEATS`, or `… hold` in place of REPEATS.

Each of STREAMS connections sends the bytes of REQUEST_FILE, reads the stream to its end, and does so REPEATS times; at
the end there is one line of JSON. With `hold`, prints a line once every stream has delivered, and keeps them open until
standard input is closed.
"""

import asyncio
import json
import re
import sys
import time
from pathlib import Path
from typing import cast

import uvloop

EVENT = b"data: {"
DONE = b"data: [DONE]"
TEXT = re.compile(rb'"content": ?"[^"]')  # the first chunk's and the last one's is empty
LAST_CHUNK = b"\r\n0\r\n\r\n"
TIMEOUT_S = 120


class Stream(asyncio.Protocol):
    """One connection. `finished` resolves at the end of the last answer, `delivering` with its first event."""

    def __init__(self, request: bytes, repeats: int) -> None:
        loop = asyncio.get_running_loop()
        self._request = request
        self._repeats = repeats
        self._line = b""  # what has come of one that is not whole
        self._tail = b""
        self.texts = 0
        self.completed = 0
        self.delivering: asyncio.Future[None] = loop.create_future()
        self.finished: asyncio.Future[None] = loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's does not derive from it
        self._ask()

    def _ask(self) -> None:
        self._is_done = False
        self._is_new = True
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        if self._is_new:
            self._is_new = False
            if not data.startswith(b"HTTP/1.1 200"):
                self._end(data[:1000].decode(errors="replace"))
                return
        # A line may be cut by the read: it is looked at when it is whole.
        lines, _, self._line = (self._line + data).rpartition(b"\n")
        self.texts += len(TEXT.findall(lines))
        if not self.delivering.done() and EVENT in lines:
            self.delivering.set_result(None)
        self._is_done = self._is_done or DONE in lines
        self._tail = (self._tail + data)[-len(LAST_CHUNK) :]
        if self._tail == LAST_CHUNK:
            self._tail = b""
            self._complete()

    def _complete(self) -> None:
        if not self._is_done:
            self._end("a stream ended without [DONE]")
            return
        self.completed += 1
        if self.completed < self._repeats:
            self._ask()
        else:
            self._end()

    def connection_lost(self, error: Exception | None) -> None:
        self._end(f"the connection was closed after {self.texts} texts: {error!r}")

    def _end(self, failure: str | None = None) -> None:
        for future in (self.delivering, self.finished):
            if not future.done():
                future.set_exception(ConnectionError(failure)) if failure else future.set_result(None)
        self._transport.close()


async def open_streams(port: int, request: bytes, streams: int, repeats: int) -> list[Stream]:
    loop = asyncio.get_running_loop()
    opened = []
    for _ in range(streams):
        _, stream = await loop.create_connection(lambda: Stream(request, repeats), "127.0.0.1", port)
        opened.append(stream)
    return opened


async def play(port: int, request: bytes, streams: int, repeats: int) -> None:
    began_s = time.monotonic()
    opened = await open_streams(port, request, streams, repeats)
    async with asyncio.timeout(TIMEOUT_S):
        await asyncio.gather(*(stream.finished for stream in opened))
    report = {
        "streams": sum(stream.completed for stream in opened),
        "texts": sum(stream.texts for stream in opened),
        "duration_s": time.monotonic() - began_s,
    }
    print(json.dumps(report))


async def hold(port: int, request: bytes, streams: int) -> None:
    opened = await open_streams(port, request, streams, repeats=1)
    async with asyncio.timeout(TIMEOUT_S):
        await asyncio.gather(*(stream.delivering for stream in opened))
    print(json.dumps({"open": streams}), flush=True)
    await asyncio.to_thread(sys.stdin.read)
    for stream in opened:
        if stream.finished.done():
            stream.finished.result()
        stream.finished.cancel()


def main(port: str, request_file: str, streams: str, repeats: str) -> None:
    request = Path(request_file).read_bytes()
    if repeats == "hold":
        uvloop.run(hold(int(port), request, int(streams)))
    else:
        uvloop.run(play(int(port), request, int(streams), int(repeats)))


if __name__ == "__main__":
    main(*sys.argv[1:])

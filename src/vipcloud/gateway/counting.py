"""Counts tokens by real vocabularies, away from the event loop.

A vocabulary takes half a second and 100 MB to load, and counting holds the interpreter; so both happen in a process of
its own, which is started by the first answer that comes without usage. It speaks a line of JSON each way and ends when
its standard input does, so it never outlives the gateway. Whoever asks waits for so long and no longer.
"""

import asyncio
import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import msgspec
import structlog
from msgspec import Struct

from vipcloud.metering import vocabulary
from vipcloud.providers.catalog_rows import Vocabulary

COMMAND: Final = (sys.executable, "-m", "vipcloud.gateway.counting")
NICE: Final = 10  # serving goes first
WAITING_MAX: Final = 64
LATE_MAX: Final = 8  # in a row; then it is taken to hang

log = structlog.get_logger(__name__)


class _Ask(Struct, array_like=True):
    vocabulary: Vocabulary
    texts: list[str]


class TokenCounter:
    """The counting process, as the gateway sees it. With a `timeout_s` of 0 there is none."""

    def __init__(self, timeout_s: float, command: Sequence[str] = COMMAND) -> None:
        self._timeout_s = timeout_s
        self._command = command
        self._process: subprocess.Popen[bytes] | None = None
        self._starting = threading.Lock()
        self._closed = False
        self._thread = ThreadPoolExecutor(1, "counting")
        self._waiting = 0
        self._late = 0

    async def count(self, by: Vocabulary, texts: Sequence[str]) -> list[int] | None:
        """The tokens of each of `texts`; None if that is not known in time."""
        if not self._timeout_s or self._waiting >= WAITING_MAX:
            return None
        self._waiting += 1
        samples = [vocabulary.sampled(text, vocabulary.COUNT_CHARS) for text in texts]
        line = msgspec.json.encode(_Ask(by, samples))
        asked = asyncio.get_running_loop().run_in_executor(self._thread, self._ask, line + b"\n")
        asked.add_done_callback(self._answered)
        try:
            async with asyncio.timeout(self._timeout_s):
                counts = await asyncio.shield(asked)
        except TimeoutError:
            self._late += 1
            if self._late >= LATE_MAX:
                self._end()
            return None
        self._late = 0
        if counts is None:
            return None
        found = zip(counts, samples, texts, strict=True)
        return [vocabulary.scaled(tokens, len(sample), text) for tokens, sample, text in found]

    def close(self) -> None:
        self._closed = True
        self._end()
        self._thread.shutdown()

    def _answered(self, _asked: asyncio.Future[list[int] | None]) -> None:
        self._waiting -= 1

    def _ask(self, line: bytes) -> list[int] | None:
        """Runs in the thread. None if the process has ended."""
        process = self._started()
        if process is None:
            return None
        assert process.stdin is not None, "its input is a pipe"
        assert process.stdout is not None, "its output is a pipe"
        try:
            process.stdin.write(line)
            process.stdin.flush()
            return msgspec.json.decode(process.stdout.readline(), type=list[int])
        except (OSError, ValueError, msgspec.DecodeError) as error:  # ValueError: closed meanwhile
            log.warning("the counting process ended; the next call starts it again", error=str(error))
            self._end()
            return None

    def _started(self) -> subprocess.Popen[bytes] | None:
        with self._starting:
            if self._process is None and not self._closed:
                self._process = subprocess.Popen(  # noqa: S603 - our own program
                    self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
                )
            return self._process

    def _end(self) -> None:
        with self._starting:
            process, self._process = self._process, None
        self._late = 0
        if process is not None:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                assert pipe is not None, "both are pipes"
                with contextlib.suppress(BrokenPipeError):  # of what was still to be written
                    pipe.close()


def main() -> None:
    """The counting process: a list of counts for each line of vocabulary and texts."""
    os.nice(NICE)
    decode = msgspec.json.Decoder(_Ask).decode
    while line := sys.stdin.buffer.readline():
        ask = decode(line)
        counts = [vocabulary.count(text, ask.vocabulary) for text in ask.texts]
        sys.stdout.buffer.write(msgspec.json.encode(counts) + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()

"""Helper processes of `vipcloud serve`: started, watched, restarted, ended.

A child ends when its standard input does, so none outlives its parent, however that died. It runs in a session of its
own: Ctrl-C in the terminal reaches the parent only, which then ends its children in order.
"""

import asyncio
import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import structlog

RESTART_FIRST_S = 0.5
RESTART_MAX_S = 30.0
HEALTHY_AFTER_S = 60.0
END_TIMEOUT_S = 10.0
POLL_S = 0.5
NICENESS = 10  # where both want the same core, the gateway gets about nine tenths of it
_SESSION_NICENESS = Path("/proc/self/autogroup")

log = structlog.get_logger(__name__)


class Child:
    """One helper: `python -m vipcloud ARGUMENTS`, brought up again when it ends by itself.

    One that has nothing to bring to an end (`abrupt`) is not waited for.
    """

    def __init__(self, name: str, arguments: Sequence[str], *, abrupt: bool = False) -> None:
        self.name = name
        self._abrupt = abrupt
        self._over = False
        self._command = [sys.executable, "-m", "vipcloud", *arguments]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> subprocess.Popen[bytes]:
        self._process = subprocess.Popen(  # noqa: S603 - our own program
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
        )
        return self._process

    def first_line(self) -> str:
        """The first line that it prints; empty if it ends without one."""
        assert self._process is not None, "start comes first"
        assert self._process.stdout is not None, "its output is a pipe"
        return self._process.stdout.readline().decode().strip()

    async def heard(self) -> None:
        """Wait for the first word that it prints, or for its end. Whoever cancels this changes nothing."""
        assert self._process is not None, "start comes first"
        assert self._process.stdout is not None, "its output is a pipe"
        loop, said = asyncio.get_running_loop(), asyncio.Event()
        output = os.dup(self._process.stdout.fileno())  # `watch` closes the other when it has ended
        loop.add_reader(output, said.set)
        try:
            await said.wait()
        finally:
            loop.remove_reader(output)
            os.close(output)

    async def watch(self) -> None:
        """Restart it whenever it ends, more and more slowly while it keeps ending. Returns after `end`."""
        pause_s = RESTART_FIRST_S
        loop = asyncio.get_running_loop()
        while True:
            assert self._process is not None, "start comes first"
            began_s = loop.time()
            while (code := self._process.poll()) is None:  # noqa: ASYNC110 - nothing tells of its end
                await asyncio.sleep(POLL_S)
            if self._over:
                return
            self._close_pipes()
            if loop.time() - began_s > HEALTHY_AFTER_S:
                pause_s = RESTART_FIRST_S
            log.error("helper process ended; it is started again", helper=self.name, code=code, pause_s=pause_s)
            await asyncio.sleep(pause_s)
            pause_s = min(RESTART_MAX_S, pause_s * 2)
            try:
                self.start()
            except OSError as error:  # the limit of open files or processes is reached; serving goes on
                log.error("helper process cannot be started", helper=self.name, error=str(error))

    def kill(self) -> None:
        """End it at once, as one that is stuck; `watch` starts it again."""
        if self._process is not None:
            self._process.kill()

    def end(self) -> None:
        """As `kill`, and for good."""
        self._over = True
        self.kill()

    def stop(self) -> None:
        """End it and wait; kill it if it does not end."""
        process = self._process
        if process is None:
            return
        if self._abrupt:
            process.terminate()
        self._close_pipes()
        try:
            process.wait(END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _close_pipes(self) -> None:
        assert self._process is not None, "start comes first"
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()


def when_parent_ends(act: Callable[[], object]) -> None:
    """Call `act` (from another thread) when standard input ends, as it does when the parent is gone."""

    def wait() -> None:
        while sys.stdin.buffer.read(4096):
            continue
        act()

    threading.Thread(target=wait, daemon=True, name="parent-watch").start()


def give_way() -> None:
    """Let requests go first: what helpers do may lag, answers may not.

    Where Linux groups processes by session (sched(7), autogroup), niceness counts only within a session. This process
    has one of its own, whose niceness is another setting.
    """
    os.nice(NICENESS)
    if os.getsid(0) == os.getpid():
        # Other systems, and kernels built without it, have no such file; and it may be read-only in a container.
        with contextlib.suppress(OSError):
            _SESSION_NICENESS.write_text(str(NICENESS))

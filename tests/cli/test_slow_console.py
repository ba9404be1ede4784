"""A console that is slow to start, or never does: the API does not wait for it, and neither does the end."""

import asyncio
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from vipcloud.cli import context, running, serve
from vipcloud.cli.children import Child

HANGS = """
import sys
if "console" in sys.orig_argv:
    sys.stdin.buffer.read()
"""
NEVER = "import time; time.sleep(600)"
pytestmark = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="processes as Linux has them")


@pytest.fixture
def hanging(tmp_path: Path, data: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """`vipcloud serve`, whose console says nothing until its standard input ends."""
    (tmp_path / "sitecustomize.py").write_text(HANGS)
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    (port,) = serve.free_ports(1)
    with (
        (tmp_path / "said").open("wb") as said,
        subprocess.Popen(
            [sys.executable, "-m", "vipcloud", "serve", "--port", str(port), "--data", str(data)],
            env={**os.environ, "PYTHONPATH": path},
            stdout=said,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        ) as process,
    ):
        yield process
        process.kill()


def test_the_api_does_not_wait_for_it(
    hanging: "subprocess.Popen[bytes]", tmp_path: Path, data: Path, until: Callable[..., running.Running]
) -> None:
    """The gateway is found by commands, and so follows their changes; and it ends when it is told to, not greeting."""
    found = until(lambda: running.find(context.load(data, None, {})))
    with urllib.request.urlopen(f"{found.origin}/readyz", timeout=10) as answer:
        assert answer.status == 200
    hanging.send_signal(signal.SIGTERM)
    assert hanging.wait(15) == 0
    assert b"is ready" not in (tmp_path / "said").read_bytes()


class Helper(Child):
    def __init__(self, program: str) -> None:
        super().__init__("helper", [])
        self._command = [sys.executable, "-c", program]

    @property
    def code(self) -> int | None:
        """What it ended with."""
        assert self._process is not None
        return self._process.wait(10)


@pytest.fixture
def helper() -> Iterator[Callable[[str], Helper]]:
    started: list[Helper] = []

    def start(program: str) -> Helper:
        started.append(Helper(program))
        started[-1].start()
        return started[-1]

    yield start
    for one in started:
        one.kill()
        one.stop()


async def test_one_that_says_nothing_within_the_limit_is_ended(helper, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is watched, and so it is started again."""
    monkeypatch.setattr(serve, "CONSOLE_START_S", 0.05)
    silent = helper(NEVER)
    await serve.heard(silent, asyncio.Event())
    assert silent.code == -signal.SIGKILL


async def test_one_that_says_nothing_is_not_waited_for_when_all_ends(helper) -> None:
    stop, silent = asyncio.Event(), helper(NEVER)
    waiting = asyncio.get_running_loop().create_task(serve.heard(silent, stop))
    stop.set()
    await waiting
    assert silent.code == -signal.SIGKILL
    await asyncio.wait_for(silent.watch(), 10)  # nor started again


async def test_one_that_says_that_it_is_ready_is_left_alone(helper) -> None:
    ready = helper("print('ready', flush=True); input()")
    await serve.heard(ready, asyncio.Event())
    ready.stop()
    assert ready.code == 1  # at the end of its input


async def test_one_that_ends_without_a_word_is_waited_for_no_longer(helper) -> None:
    failed = helper("raise SystemExit(3)")
    await serve.heard(failed, asyncio.Event())
    assert failed.code == 3


async def test_without_a_console_nothing_is_waited_for() -> None:
    await serve.heard(None, asyncio.Event())

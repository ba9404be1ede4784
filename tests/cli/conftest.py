"""The program itself, as a process, and its commands in this one."""

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from vipcloud.cli.commands import app

WAIT_S = 15.0


def _until(true: Callable[[], Any], within_s: float = WAIT_S) -> Any:
    """Wait for something that only another process can bring about."""
    deadline = time.monotonic() + within_s
    while not (found := true()):
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.02)
    return found


class Commands:
    """Runs commands in this process, on one data folder."""

    def __init__(self, data: Path) -> None:
        self.data = data

    def __call__(self, *arguments: str, status: int = 0) -> Any:
        result = CliRunner().invoke(app, [*arguments, "--data", str(self.data)])
        assert result.exit_code == status, (result.output, result.stderr, result.exception)
        assert "Traceback" not in result.output + result.stderr
        return result

    def json(self, *arguments: str) -> Any:
        """What the command prints with `--json`: one line, nothing else."""
        output = self(*arguments, "--json").stdout
        assert output.count("\n") == 1
        return json.loads(output)


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder in a working folder without settings, in an environment without ours."""
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.startswith("VIPCLOUD_") or name.endswith("_API_KEY"):
            monkeypatch.delenv(name)
    return tmp_path / "data"


@pytest.fixture
def vipcloud(data: Path) -> Commands:
    return Commands(data)


class Served:
    """`vipcloud serve` as a process, greeting read."""

    def __init__(self, data: Path, *arguments: str, last_word: str = "-d '{") -> None:
        self.data = data
        self.errors = data.with_suffix(f".{time.monotonic_ns()}.log")
        with self.errors.open("wb") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "vipcloud", "serve", "--port", "0", "--data", str(data), *arguments],
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                start_new_session=True,
            )
        lines: queue.Queue[str] = queue.Queue()
        assert self.process.stdout is not None
        output = self.process.stdout
        threading.Thread(target=lambda: [lines.put(line) for line in output], daemon=True).start()
        self.greeting = ""
        while last_word not in self.greeting:
            try:
                self.greeting += lines.get(timeout=WAIT_S)
            except queue.Empty:
                raise AssertionError(f"no greeting: {self.greeting} {self.errors.read_text()}") from None
        self.base = self.field("base URL")
        self.key = self.field("API key")  # of no use where upstreams are not simulated
        self.children = self._children()

    def field(self, name: str) -> str:
        return next(line.split()[-1] for line in self.greeting.splitlines() if name in line)

    def _children(self) -> list[int]:
        listing = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [int(pid) for pid in listing.split()]

    def child(self, word: str) -> int | None:
        """The helper whose command line has `word`."""
        return next((pid for pid in self._children() if word in command_line(pid)), None)

    def chat(self, text: str = "Hello", **fields: Any) -> tuple[int, bytes]:
        body = {"model": "deepseek-chat", "messages": [{"role": "user", "content": text}], **fields}
        request = urllib.request.Request(
            f"{self.base}/chat/completions",
            json.dumps(body).encode(),
            {"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=WAIT_S) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()

    def end(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(WAIT_S)


def command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except (FileNotFoundError, ProcessLookupError):
        return ""


def _runs(pid: int) -> bool:
    return "vipcloud" in command_line(pid)


@pytest.fixture
def until() -> Callable[..., Any]:
    return _until


@pytest.fixture
def runs() -> Callable[[int], bool]:
    """Whether one of our processes is still there."""
    return _runs


@pytest.fixture
def serve(data: Path) -> Iterator[Callable[..., Served]]:
    """Starts the program; whatever still runs of it is killed after the test."""
    started: list[Served] = []

    def start(*arguments: str, **options: str) -> Served:
        started.append(Served(data, *arguments, **options))
        return started[-1]

    yield start
    for served in started:
        if served.process.poll() is None:
            served.end(signal.SIGKILL)
        assert served.process.stdout is not None
        _until(lambda served=served: not any(map(_runs, served.children)))
        served.process.stdout.close()

"""Load on a contestant: wrk for single answers, our own client for streams. Both say what was served, and its CPU."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from contestants import BENCH, Contestant, Pace
from process import BenchError, cpu_s, quiet_cpu_s
from wire import PATH, QUESTIONS

CLIENT = BENCH / "stream_client.py"
CLIENT_TIMEOUT_S = 180


@dataclass(frozen=True, slots=True)
class Answers:
    """What a run of single answers came to. `cpu_us` is the contestant's CPU time for each."""

    requests: int
    cpu_us: float
    per_s: float
    p50_us: int
    p99_us: int


@dataclass(frozen=True, slots=True)
class Chunks:
    """What a run of streams came to. `cpu_us` is the contestant's CPU time for each chunk of text."""

    cpu_us: float
    per_s: float


def answers(contestant: Contestant, folder: Path, core: int, *, connections: int, duration_s: float) -> Answers:
    """Ask over `connections` at once, as fast as answers come. Raises BenchError if one fails."""
    requests = folder / f"{contestant.name}-{contestant.port}-unary.http"
    written = [contestant.request(stream=False, question=question) for question in QUESTIONS]
    requests.write_bytes(b"".join(b"%d\n%b" % (len(one), one) for one in written))
    wrk = [
        "wrk",
        "--threads",
        "1",
        "--connections",
        str(connections),
        "--duration",
        f"{duration_s}s",
        "--timeout",
        "30s",
    ]
    url = f"http://127.0.0.1:{contestant.port}{PATH}"
    before_s = cpu_s(contestant.pid)
    output = _run([*wrk, "--script", str(BENCH / "unary.lua"), url, "--", str(requests)], core)
    used_s = quiet_cpu_s(contestant.pid) - before_s
    report = json.loads(output.splitlines()[-1])
    if report["failed"] or not report["requests"]:
        raise BenchError(f"{contestant.name}: {report['failed']} of {report['requests']} requests failed")
    return Answers(
        requests=report["requests"],
        cpu_us=used_s * 1e6 / report["requests"],
        per_s=report["requests"] * 1e6 / report["duration_us"],
        p50_us=report["p50_us"],
        p99_us=report["p99_us"],
    )


def chunks(contestant: Contestant, folder: Path, core: int, *, streams: int, repeats: int, pace: Pace) -> Chunks:
    """`streams` at once, each connection `repeats` of them. Raises BenchError unless every chunk of text arrives."""
    request = _request_file(contestant, folder)
    before_s = cpu_s(contestant.pid)
    output = _run(_client(contestant, request, streams, str(repeats)), core)
    used_s = quiet_cpu_s(contestant.pid) - before_s
    report = json.loads(output.splitlines()[-1])
    expected = streams * repeats * pace.chunks
    if report["streams"] != streams * repeats or report["texts"] != expected:
        raise BenchError(f"{contestant.name}: {report['texts']} texts of {expected} arrived")
    return Chunks(cpu_us=used_s * 1e6 / expected, per_s=expected / report["duration_s"])


@contextmanager
def held_streams(contestant: Contestant, folder: Path, core: int, streams: int) -> Iterator[None]:
    """`streams` more are open, each has delivered something, and they stay open until leaving."""
    request = _request_file(contestant, folder)
    command = _pinned(_client(contestant, request, streams, "hold"), core)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True) as client:
        assert client.stdin is not None
        assert client.stdout is not None
        try:
            if not client.stdout.readline():
                raise BenchError(f"{contestant.name} did not open {streams} streams")
            yield
        finally:
            client.stdin.close()
            client.wait(CLIENT_TIMEOUT_S)
    if client.returncode:
        raise BenchError(f"{contestant.name}: a stream that was to stay open ended")


def _client(contestant: Contestant, request: Path, streams: int, repeats: str) -> list[str]:
    return [sys.executable, str(CLIENT), str(contestant.port), str(request), str(streams), repeats]


def _request_file(contestant: Contestant, folder: Path) -> Path:
    file = folder / f"{contestant.name}-{contestant.port}-stream.http"
    file.write_bytes(contestant.request(stream=True))
    return file


def _pinned(command: list[str], core: int) -> list[str]:
    return ["taskset", "--cpu-list", str(core), *command]


def _run(command: list[str], core: int) -> str:
    done = subprocess.run(_pinned(command, core), capture_output=True, text=True, timeout=CLIENT_TIMEOUT_S)
    if done.returncode:
        raise BenchError(f"{command[0]} failed:\n{done.stdout}{done.stderr}")
    return done.stdout

"""What is measured, and what stands behind it: nginx as a bare proxy, the gateway, and the upstreams.

Every contestant listens on loopback on a free port, on the core it is given, and gets the same request.
"""

import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from process import BenchError, running
from wire import PATH, QUESTIONS, SDK_HEADERS, chat_body, replies

BENCH = Path(__file__).parent
ROOT = BENCH.parent
PROGRAM = ROOT / ".venv" / "bin" / "vipcloud"
START_TIMEOUT_S = 90
REPLY_TIMEOUT_S = 10


@dataclass(frozen=True, slots=True)
class Contestant:
    """One program under test: its process, its port, and the headers it needs beside the SDK's."""

    name: str
    pid: int
    port: int
    headers: dict[str, str] = field(default_factory=dict)

    def request(self, *, stream: bool, question: str = QUESTIONS[0]) -> bytes:
        """The whole request on the wire: 1 KB of body and the headers of an SDK."""
        body = chat_body(stream=stream, question=question)
        lines = [f"POST {PATH} HTTP/1.1", f"Host: 127.0.0.1:{self.port}", f"Content-Length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in (SDK_HEADERS | self.headers).items()]
        return "\r\n".join([*lines, "", ""]).encode() + body


@dataclass(frozen=True, slots=True)
class Pace:
    """What a streaming upstream plays: `chunks` with text, one every `interval_ms`."""

    chunks: int
    interval_ms: int


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def unary_upstream(folder: Path, core: int) -> Iterator[Contestant]:
    """An nginx that answers with one of `replies`, each with an id of its own and the time."""
    port = free_port()
    written = [one.replace("\\", "\\\\") for one in replies("$request_id", "$seconds")]
    firsts = ["[0-3]", "[4-7]", "[89ab]", "[c-f]"]  # of an id's sixteen digits
    choice = " ".join(f"~^{first} '{one}';" for first, one in zip(firsts, written, strict=True))
    maps = f"map $msec $seconds {{ ~^(?<whole>\\d+) $whole; }} map $request_id $reply {{ {choice} }}"
    location = "location / { default_type application/json; return 200 $reply; }"
    with _nginx(folder / f"upstream-{port}", core, port, location, before=maps) as process:
        yield Contestant("direct", process.pid, port)


@contextmanager
def stream_upstream(folder: Path, core: int, pace: Pace) -> Iterator[Contestant]:
    """A server that answers every request with a stream of that pace."""
    port = free_port()
    command: list[str | Path] = [
        sys.executable,
        BENCH / "stream_upstream.py",
        str(port),
        str(pace.chunks),
        str(pace.interval_ms),
    ]
    log = folder / f"stream-upstream-{port}.log"
    with running(command, core=core, log=log) as process:
        _wait_until_listening(port, process, log)
        yield Contestant("direct", process.pid, port)


def nginx_proxy(folder: Path, core: int, upstream_port: int) -> AbstractContextManager[Contestant]:
    """The measure of all things: a bare `proxy_pass`, connections kept alive on both sides, no log."""
    return _nginx_proxy(folder, core, upstream_port, "proxy_buffering on;")


def nginx_unbuffered(folder: Path, core: int, upstream_port: int) -> AbstractContextManager[Contestant]:
    """The same as one sets it up for streams: each chunk goes on as it comes."""
    return _nginx_proxy(folder, core, upstream_port, "proxy_buffering off;")


def gateway(folder: Path, core: int, upstream_port: int) -> AbstractContextManager[Contestant]:
    """vipcloud as a user starts it, with one upstream, one account and one key, and no simulators."""
    return _gateway("vipcloud", folder, core, upstream_port)


@contextmanager
def gateway_with_valkey(folder: Path, core: int, upstream_port: int) -> Iterator[Contestant]:
    """The same with its limits and credit in a Valkey (or Redis) server, which has another core and is not counted."""
    program = shutil.which("valkey-server") or shutil.which("redis-server")
    if program is None:
        raise BenchError("neither valkey-server nor redis-server is installed")
    home, at = folder / "valkey", folder / "valkey" / "socket"
    home.mkdir()
    command: list[str | Path] = [program, "--port", "0", "--unixsocket", at, "--save", "", "--dir", home]
    others = sorted(os.sched_getaffinity(0) - {core})
    with running(command, core=others[0], log=home / "valkey.log"):
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while not at.exists():
            if time.monotonic() > deadline_s:
                raise BenchError(f"valkey did not start:\n{_tail(home / 'valkey.log')}")
            time.sleep(0.05)
        guard = f'[guard]\nbackend = "valkey"\nurl = "unix://{at}"\n'
        with _gateway("valkey", folder, core, upstream_port, guard) as contestant:
            yield contestant


def gateway_in_valgrind(
    folder: Path, core: int, upstream_port: int, output: Path
) -> AbstractContextManager[Contestant]:
    """The same under callgrind, which counts nothing until it is told to, and writes `output`.1 when it is told to."""
    valgrind: list[str | Path] = [
        "valgrind",
        "--tool=callgrind",
        "--instr-atstart=no",
        f"--callgrind-out-file={output}",
        sys.executable,
    ]
    return _gateway("vipcloud", folder, core, upstream_port, before=valgrind)


@contextmanager
def _gateway(
    name: str, folder: Path, core: int, upstream_port: int, more: str = "", before: Sequence[str | Path] = ()
) -> Iterator[Contestant]:
    port = free_port()
    home = folder / f"vipcloud-{port}"
    home.mkdir()
    settings = home / "vipcloud.toml"
    settings.write_text(
        f'[upstreams.deepseek]\nbase_url = "http://127.0.0.1:{upstream_port}"\nkeys = ["sk-bench"]\n{more}'
    )
    account = ["accounts", "create", "bench@example.com", "--credit", "100000"]
    _vipcloud(*account, "--rpm", "1000000000", "--concurrency", "100000", "--data", home)
    made = json.loads(_vipcloud("keys", "create", "--account", "bench@example.com", "--json", "--data", home))
    command: list[str | Path] = [
        *before,
        PROGRAM,
        "serve",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--data",
        home,
        "--config",
        settings,
    ]
    log = home / "serve.log"
    with running(command, core=core, log=log, environment=bare_environment()) as process:
        contestant = Contestant(name, process.pid, port, {"Authorization": f"Bearer {made['key']}"})
        wait_until_serving(contestant, process, log)
        yield contestant


@contextmanager
def _nginx_proxy(folder: Path, core: int, upstream_port: int, buffering: str) -> Iterator[Contestant]:
    port = free_port()
    origin = f"upstream origin {{ server 127.0.0.1:{upstream_port}; keepalive 2048; keepalive_requests 100000000; }}"
    location = 'location / { proxy_pass http://origin; proxy_http_version 1.1; proxy_set_header Connection ""; }'
    with _nginx(folder / f"nginx-{port}", core, port, location, before=f"{origin} {buffering}") as process:
        contestant = Contestant("nginx", process.pid, port, {"Authorization": "Bearer sk-bench"})
        wait_until_serving(contestant, process)
        yield contestant


def wait_until_serving(contestant: Contestant, process: subprocess.Popen[bytes], log: Path | None = None) -> None:
    """Return once it answers the benchmark's request with 200. Raises BenchError with what it says instead."""
    _wait_until_listening(contestant.port, process, log)
    deadline_s = time.monotonic() + START_TIMEOUT_S
    while True:
        status, text = _try(contestant)
        if status == 200:
            return
        if time.monotonic() > deadline_s or 400 <= status < 500:
            raise BenchError(f"{contestant.name} answers {status}: {text}\n{_tail(log)}")
        time.sleep(0.2)


def _try(contestant: Contestant) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", contestant.port, timeout=REPLY_TIMEOUT_S)
    try:
        connection.request("POST", PATH, chat_body(stream=False), SDK_HEADERS | contestant.headers)
        reply = connection.getresponse()
        return reply.status, reply.read(500).decode(errors="replace") if reply.status != 200 else ""
    except (OSError, http.client.HTTPException) as error:
        return 0, repr(error)
    finally:
        connection.close()


@contextmanager
def _nginx(folder: Path, core: int, port: int, location: str, before: str = "") -> Iterator[subprocess.Popen[bytes]]:
    folder.mkdir()
    temporary = " ".join(
        f"{kind}_temp_path {folder / kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    configuration = folder / "nginx.conf"
    configuration.write_text(
        f"worker_processes 1; daemon off; pid {folder}/pid; error_log {folder}/error.log;\n"
        "events { worker_connections 8192; }\n"
        f"http {{ access_log off; {temporary} client_body_buffer_size 64k;\n"
        f"keepalive_requests 100000000; keepalive_timeout 600s; {before}\n"
        f"server {{ listen 127.0.0.1:{port} backlog=4096; {location} }} }}\n"
    )
    environment = dict(os.environ) | {"PATH": f"{os.environ.get('PATH', '')}:/usr/sbin"}
    log = folder / "output.log"
    command: list[str | Path] = ["nginx", "-e", folder / "error.log", "-c", configuration]
    with running(command, core=core, log=log, environment=environment) as process:
        _wait_until_listening(port, process, log)
        yield process


def _vipcloud(*arguments: str | Path) -> str:
    done = subprocess.run([PROGRAM, *arguments], capture_output=True, text=True, env=bare_environment())
    if done.returncode:
        raise BenchError(f"vipcloud {' '.join(map(str, arguments))} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


def bare_environment() -> dict[str, str]:
    """Ours, without what would change the gateway's settings."""
    keys = ("DEEPSEEK_API_KEY", "ZHIPU_API_KEY", "MOONSHOT_API_KEY", "DASHSCOPE_API_KEY", "MINIMAX_API_KEY")
    return {name: value for name, value in os.environ.items() if name not in keys and not name.startswith("VIPCLOUD_")}


def _wait_until_listening(port: int, process: subprocess.Popen[bytes], log: Path | None) -> None:
    deadline_s = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline_s:
        if process.poll() is not None:
            raise BenchError(f"{process.args!r} ended with {process.returncode}:\n{_tail(log)}")
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise BenchError(f"{process.args!r} did not listen within {START_TIMEOUT_S} s:\n{_tail(log)}")


def _tail(log: Path | None) -> str:
    return log.read_text(errors="replace")[-2000:] if log else ""

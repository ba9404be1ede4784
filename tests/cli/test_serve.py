"""The program as people run it: greeting, helpers, ends of every kind."""

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from databases import Postgres
from vipcloud.accounts import store as accounts
from vipcloud.ledger import store as ledger
from vipcloud.simulators import app as simulators
from vipcloud.storage import engine as storage

LINUX = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks for processes in /proc")
pytestmark = LINUX


def accepts(base: str) -> bool:
    port = int(base.rpartition(":")[2].partition("/")[0])
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_it_greets_serves_and_ends_when_told(serve, vipcloud, data: Path) -> None:
    served = serve()
    assert served.greeting.startswith("vipcloud is ready.")
    assert "simulated" in served.greeting
    assert served.key.startswith("vc-sk-")
    shown = served.greeting[served.greeting.index("curl") :].replace("\\\n", "")
    said = subprocess.run(["sh", "-c", shown], capture_output=True, text=True)
    if said.returncode != 127:  # where there is curl
        assert said.stdout.rstrip().endswith("data: [DONE]"), said
    status, body = served.chat("Repeat exactly: Zyzzyva")
    assert (status, b"Zyzzyva" in body) == (200, True)
    status, body = served.chat("Zyzzyva", stream=True)
    assert (status, body.endswith(b"data: [DONE]\n\n")) == (200, True)
    assert served.chat("Zyzzyva [[fault=status:500]]")[0] == 502
    assert served.chat("Zyzzyva", temperature="Zyzzyva")[0] == 400
    keys = vipcloud.json("keys", "list")
    assert [key["name"] for key in keys] == ["vipcloud serve"]
    assert served.end() == 0
    assert not accepts(served.base)
    rows = vipcloud("accounts", "show", "demo@example.com").stdout.count("chatcmpl-")
    assert rows >= 3  # the bookkeeper has booked all before it ended
    written = [path for path in data.rglob("*") if path.is_file() and b"Zyzzyva" in path.read_bytes()]
    assert written == []
    assert "Zyzzyva" not in served.errors.read_text()
    assert "Traceback" not in served.errors.read_text()


def test_a_stream_under_way_is_finished_before_the_end(serve) -> None:
    served = serve()
    with ThreadPoolExecutor() as threads:
        answer = threads.submit(served.chat, "Count to 20 [[pace_ms=30]]", stream=True)
        assert served.chat("Hello")[0] == 200
        assert served.end(signal.SIGINT) == 0
        status, body = answer.result()
    assert (status, body.endswith(b"data: [DONE]\n\n")) == (200, True)


def test_a_key_that_is_revoked_while_it_drains_ends_its_streams(serve, until, data: Path) -> None:
    served = serve()
    engine = storage.open_engine(f"sqlite:///{data / 'vipcloud.db'}")
    with ThreadPoolExecutor() as threads:
        answer = threads.submit(served.chat, "Hello [[tokens=2000 pace_ms=20]]", stream=True)
        assert served.chat("Hello")[0] == 200
        served.process.send_signal(signal.SIGTERM)
        until(lambda: served.chat()[0] == 503)
        with storage.writing(engine) as connection:
            accounts.revoke_key(connection, served.key, 0)
        status, body = answer.result()
    engine.dispose()
    assert (status, b"invalid_api_key" in body, b"[DONE]" in body) == (200, True, False), body[-300:]
    assert served.process.wait(10) == 0


def test_kill_9_ends_the_helpers_frees_the_port_and_loses_nothing(serve, vipcloud, until, runs) -> None:
    served = serve()
    assert len(served.children) == 4
    answered = sum(served.chat(f"Count to {number}", stream=number % 2 == 0)[0] == 200 for number in range(8))
    assert [demo(served.base)["x-ratelimit-remaining-requests-day"] for _ in range(2)] == ["99", "98"]
    with ask_demo(served.base, "Hello [[tokens=500 pace_ms=50]]") as begun:
        assert begun.readline().startswith(b"data: ")
        served.end(signal.SIGKILL)
    assert answered == 8
    until(lambda: not any(map(runs, served.children)))
    assert not accepts(served.base)

    again = serve()
    shown = vipcloud("accounts", "show", "demo@example.com").stdout
    assert shown.count("chatcmpl-") == answered
    assert again.chat()[0] == 200
    assert demo(again.base)["x-ratelimit-remaining-requests-day"] == "96", "a day's count outlasts the process"


def ask_demo(base: str, text: str) -> Any:
    body = {"stream": True, "model": "glm-4-flash", "messages": [{"role": "user", "content": text}]}
    url = f"{base.removesuffix('/v1')}/demo/chat/completions"
    return urllib.request.urlopen(
        urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"}), timeout=10
    )


def demo(base: str) -> Any:
    """The headers of an answer of the demo."""
    with ask_demo(base, "Hello") as answer:
        answer.read()
        return answer.headers


def test_a_killed_bookkeeper_is_started_again(serve, vipcloud, until) -> None:
    served = serve()
    first = served.child(" bookkeeper")
    assert first is not None
    assert served.chat()[0] == 200
    os.kill(first, signal.SIGKILL)
    second = until(lambda: (pid := served.child(" bookkeeper")) != first and pid)
    served.children.append(second)
    assert served.chat()[0] == 200
    until(lambda: vipcloud("accounts", "show", "demo@example.com").stdout.count("chatcmpl-") == 2)
    assert "helper process ended" in served.errors.read_text()


def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "vipcloud", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=15)


def test_a_second_one_says_what_is_in_its_way(serve, data: Path, tmp_path: Path) -> None:
    served = serve()
    port = served.base.rpartition(":")[2].partition("/")[0]
    same_data = run("serve", "--data", str(data), "--port", "0")
    same_port = run("serve", "--data", str(tmp_path / "other"), "--port", port)
    for second, word in ((same_data, "Another process writes the journal"), (same_port, f"port {port} on 127.0.0.1")):
        assert second.returncode == 1
        assert second.stderr.count("Error:") == 1, second.stderr
        assert word in second.stderr
        assert "Traceback" not in second.stderr
    assert served.chat()[0] == 200


def test_sighup_reads_the_catalogue_again(serve, data: Path, until: Callable) -> None:
    served = serve()
    (data / "catalog.toml").write_text(
        '[models.house-model]\nalias_of = "glm-4-air"\nname = "Ours"\nnotes = "x"\ncreated = 1764547200\n'
    )
    served.process.send_signal(signal.SIGHUP)
    until(lambda: served.chat(model="house-model")[0] == 200)
    assert '"event": "catalogue taken"' in served.errors.read_text()


def test_with_a_key_nothing_is_simulated(serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEEPSEEK_API_KEY", "sk-secret-of-ours")
    served = serve(last_word="accounts create")
    assert "simulated" not in served.greeting
    assert len(served.children) == 3
    assert served.end() == 0
    assert "sk-secret-of-ours" not in served.greeting + served.errors.read_text()


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--port", "99999"], "server.port"),
        (["--config", "absent.toml"], "absent.toml does not exist"),
    ],
)
def test_wrong_settings_stop_the_start(data: Path, arguments: list[str], word: str) -> None:
    result = run("serve", "--data", str(data), *arguments)
    assert (result.returncode, word in result.stderr, result.stderr.count("\n")) == (1, True, 1), result.stderr


@pytest.mark.parametrize("providers", [["zhipu"], list(simulators.PROVIDERS)], ids=["one", "all"])
def test_simulators_run_by_themselves(providers: list[str]) -> None:
    ports = ["--port", "0"] * len(providers)
    command = [sys.executable, "-m", "vipcloud", "sim", *providers, *ports, "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = [json.loads(process.stdout.readline()) for _ in providers]
        assert [one["provider"] for one in said] == providers
        assert all(accepts(one["base_url"]) for one in said)
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["openai"], f"there are {', '.join(simulators.PROVIDERS)}"),
        (["deepseek", "zhipu", "--port", "0"], "--port is there 1 times for 2 providers"),
    ],
)
def test_simulators_that_cannot_be_are_refused(arguments: list[str], words: str) -> None:
    result = run("sim", *arguments)
    assert (result.returncode, words in result.stderr) == (1, True)


def test_it_serves_from_postgresql_and_books_there(
    serve: Callable[..., Any],
    until: Callable[..., Any],
    data: Path,
    postgres: Postgres,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    url = postgres.create()
    monkeypatch.setenv("VIPCLOUD_STORE_URL", url)
    served = serve()
    assert served.chat()[0] == 200
    engine = storage.open_engine(url)

    def booked() -> list[Any]:
        with storage.reading(engine) as connection:
            return ledger.recent_usage(connection)

    [row] = until(booked)
    assert row.outcome == "complete"
    assert served.end() == 0
    engine.dispose()
    [file] = (data / "journal").glob("*.journal")
    assert file.name.startswith((data / "journal" / "worker").read_text()), (
        "its files are named like no other gateway's"
    )


@pytest.mark.timeout(120)
def test_a_successor_takes_the_port_over_and_streams_go_on(serve, vipcloud, data: Path) -> None:
    first = serve("--takeover")  # there is nobody to take it over from
    port = first.base.rpartition(":")[2].partition("/")[0]
    with ThreadPoolExecutor() as threads:
        answer = threads.submit(first.chat, "Count to 60 [[pace_ms=100]]", stream=True)
        assert first.chat()[0] == 200
        second = serve("--takeover")
        assert second.base == first.base
        assert second.chat()[0] == 200
        status, body = answer.result()
    assert (status, body.endswith(b"data: [DONE]\n\n")) == (200, True)
    assert first.process.wait(60) == 0
    told = json.loads((data / "gateway.json").read_text())
    assert told["origin"].endswith(f":{port}")
    assert second.chat()[0] == 200
    assert second.end() == 0
    assert vipcloud("ledger", "verify").exit_code == 0
    assert vipcloud("accounts", "show", "demo@example.com").stdout.count("complete") == 4
    assert "Traceback" not in first.errors.read_text() + second.errors.read_text()

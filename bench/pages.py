"""`make bench-pages`: how long each page of the website takes, with 100,000 requests in the books of one account.

The program runs as a user starts it, on SQLite; a person is signed in, as an operator too. A page is asked for one at a
time over a kept connection; what is told is the median of the time until its last byte has come.
"""

import argparse
import http.client
import os
import secrets
import signal
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

from contestants import PROGRAM, START_TIMEOUT_S, bare_environment, free_port
from process import BenchError, running
from vipcloud.accounts import operators, people, store
from vipcloud.ledger import store as ledger
from vipcloud.ledger.records import Settled
from vipcloud.money import NANO, NanoUSD
from vipcloud.storage import engine as storage
from vipcloud.storage import migrate

GOAL_MS = 50
DAYS = 60
GROUP = 5_000
EMAIL = "bench@example.com"
MODELS = ("deepseek-chat", "deepseek-reasoner", "glm-4-flash", "glm-4-air", "glm-4-plus")
PUBLIC = ("/", "/models", "/docs/quickstart", "/docs/chat-completions", "/docs/errors", "/status", "/login")
SIGNED_IN = (
    "/overview",
    "/usage",
    "/usage?page=40",
    "/usage.csv",
    "/keys",
    "/credit",
    "/limits",
    "/playground",
    "/settings",
)
OPERATOR = ("/admin", "/admin/upstreams", "/admin/margin", "/admin/accounts", "/admin/waitlist", "/admin/incidents")


def fill(data: Path, rows: int) -> str:
    """Books with so many requests of one account, and the cookie of an owner who is an operator."""
    data.mkdir()
    engine = storage.open_engine(f"sqlite:///{data / 'vipcloud.db'}")
    migrate.upgrade(engine)
    now_s = time.time()
    with storage.writing(engine) as connection:
        account = store.create_account(connection, EMAIL, now_s - DAYS * 86_400, secrets.token_bytes)
        ledger.grant(connection, "bench", account.id, NanoUSD(1000 * NANO), now_s - DAYS * 86_400)
        names = ("site", "batch", "tests")
        keys = [store.create_key(connection, account.id, now_s, secrets.token_bytes, name).row.id for name in names]
        member = people.find_member(connection, EMAIL)
        assert member is not None, "an account has an owner"
        operators.appoint(connection, EMAIL, now_s)
        cookie = people.open_session(connection, member.id, now_s, secrets.token_bytes)
    for first in range(0, rows, GROUP):
        numbers = range(first, min(rows, first + GROUP))
        with storage.writing(engine) as connection:
            ledger.post_usage(connection, [record(number, rows, account.id, keys, now_s) for number in numbers])
    engine.dispose()
    return cookie


def record(number: int, rows: int, account_id: str, keys: list[str], now_s: float) -> Settled:
    model, tokens = MODELS[number % len(MODELS)], 100 + number % 1900
    return Settled(
        request_id=f"chatcmpl-bench{number:016x}",
        account_id=account_id,
        key_id=keys[number % len(keys)],
        model=model,
        provider="zhipu" if model.startswith("glm") else "deepseek",
        upstream_model=model,
        streamed=number % 2 == 0,
        outcome="complete",
        prompt_tokens=tokens,
        cached_tokens=tokens // 4,
        completion_tokens=tokens // 2,
        reasoning_tokens=0,
        estimated=False,
        charge_nanousd=tokens * 600,
        cost_nanousd=tokens * 500,
        started_at=now_s - (rows - number) * DAYS * 86_400 / rows,
        duration_ms=800 + number % 4000,
        first_token_ms=300 + number % 500,
        attempts=1,
        held_nanousd=tokens * 900,
        price_version="bench",
        finish_reason="stop",
    )


def measure(port: int, path: str, cookie: str, repeats: int) -> float:
    """Milliseconds. Raises BenchError for a page that is not there."""
    times: list[float] = []
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    headers = (
        {"Cookie": cookie, "Accept": "text/html", "Accept-Encoding": "gzip"} if cookie else {"Accept": "text/html"}
    )
    for turn in range(repeats + 2):
        began = time.perf_counter()
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        answer.read()
        if answer.status != 200:
            raise BenchError(f"{path} answers {answer.status}")
        if turn >= 2:
            times.append((time.perf_counter() - began) * 1000)
    connection.close()
    return median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description="How long each page takes with many requests in the books.")
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=15)
    arguments = parser.parse_args()
    console = Console()
    try:
        with tempfile.TemporaryDirectory(prefix="vipcloud-bench-") as folder:
            table, slow = pages(Path(folder), arguments.rows, arguments.repeats)
    except BenchError as error:
        sys.exit(f"bench: {error}")
    console.print(table)
    if slow:
        console.print(f"[red]above {GOAL_MS} ms: {', '.join(slow)}[/]")


def pages(folder: Path, rows: int, repeats: int) -> tuple[Table, list[str]]:
    data, port = folder / "data", free_port()
    cookie = fill(data, rows)
    command: list[str | Path] = [PROGRAM, "serve", "--port", str(port), "--data", data]
    table = Table(title=f"Pages with {rows:,} requests in the books, milliseconds")
    for heading in ("page", "signed in", "ms", "goal"):
        table.add_column(heading, justify="right" if heading in {"ms", "goal"} else "left")
    slow = []
    core = min(os.sched_getaffinity(0))
    with running(command, core=core, log=folder / "serve.log", environment=bare_environment()) as process:
        wait_until_serving(port)
        for paths, signed_in in ((PUBLIC, False), (SIGNED_IN, True), (OPERATOR, True)):
            for path in paths:
                took_ms = measure(port, path, f"{people.SESSION_COOKIE}={cookie}" if signed_in else "", repeats)
                if took_ms > GOAL_MS:
                    slow.append(path)
                table.add_row(path, "yes" if signed_in else "", f"{took_ms:.1f}", f"≤ {GOAL_MS}")
        process.send_signal(signal.SIGTERM)
    return table, slow


def wait_until_serving(port: int) -> None:
    deadline_s = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline_s:
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            connection.request("GET", "/status", headers={"Accept": "text/html"})  # written last
            if connection.getresponse().status == 200:
                return
        except OSError:
            pass
        time.sleep(0.3)
    raise BenchError("the website did not come up")


if __name__ == "__main__":
    main()

"""A soak with faults of every kind by chance: whatever upstreams and clients do, each caller gets a whole answer or one
clear error, nothing hangs, no cut answer looks whole, and the books are right.

`python proofs/chaos.py --seconds 60`. The gateway, the bookkeeper and ten simulated upstream accounts (two at each
provider) are processes; clients speak HTTP over loopback. Every request asks for faults of `vipcloud.simulators.faults`
by chance: none, some for its first try only, or some for all of them. Some clients leave, some take a broken stream's
rescue. Chance comes from `--seed`; what the scheduler makes of it differs from run to run.

Exit status 1 if anything that must be zero is not.
"""

import argparse
import asyncio
import contextlib
import json
import os
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

import structlog
import uvloop
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import select

from kills import CREDIT, Nursery, _silent, answers, free_port, kill, run_bookkeeper, unchunked
from vipcloud.accounts import store as accounts
from vipcloud.cli import context, serve
from vipcloud.clock import SystemClock
from vipcloud.ledger import audit, bookkeeper, store
from vipcloud.ledger.journal import Journal
from vipcloud.ledger.records import Settled
from vipcloud.settings import (
    ClientSettings,
    GatewaySettings,
    JournalSettings,
    Secret,
    ServerSettings,
    Settings,
    TimeoutSettings,
    UpstreamAccountSettings,
    UpstreamSettings,
)
from vipcloud.simulators import app as simulators
from vipcloud.simulators import faults
from vipcloud.status import upstreams as upstream_state
from vipcloud.storage import engine as storage
from vipcloud.storage import migrate, schema

ACCOUNTS_EACH = 2
TOTAL_S = 8.0  # the longest that an upstream may take
HANG_S = TOTAL_S + 7  # what has not ended by then hangs
SETTLE_S = 10.0  # for the last requests to end
REVIVE_S = 2.0  # how often the operator puts accounts back that faults took out of service
LOG = "gateway.log"
COUNTS = (4, 25, 80)
HEALTHY, FIRST_ONLY = 0.5, 0.3  # shares of requests
LEAVERS, RESCUES = 0.1, 0.15
FILES_MORE_MAX, MEMORY_MORE_MAX = 16, 160 * 1024 * 1024  # the allocator keeps what giant events took
ENVELOPE = {"message", "type", "param", "code"}
MODELS = {  # with the code of its provider that says: no money
    "deepseek-chat": "risk",
    "deepseek-reasoner": "risk",
    "glm-4-flash": "1113",
    "glm-4-air": "1113",
    "glm-4-plus": "1301",
    "kimi-k2": "engine_overloaded_error",
    "qwen3-max": "Arrearage",
    "minimax-text-01": "1008",
}
SWITCHED_ON = ("kimi-k2", "qwen3-max", "minimax-text-01")

# How each fault is asked for.
FAULTS: Mapping[str, Callable[[random.Random, str], str]] = {
    "status": lambda chance, _: f"status:{chance.choice([400, 401, 402, 403, 404, 413, 422, 429, 500, 502, 503, 504])}",
    "code": lambda _, model: f"code:{MODELS[model]}",
    "html": lambda chance, _: f"html:{chance.choice([200, 502])}",
    "finish": lambda chance, _: f"finish:{chance.choice(['length', 'content_filter', 'nonsense'])}",
    "usage": lambda chance, _: f"usage:{chance.choice(faults.USAGES)}",
    "retry-after": lambda chance, _: f"status:429,retry-after:{chance.choice([0, 1, 30])}",
    "reset": lambda *_: "reset",
    "hang": lambda *_: "hang",
    "hang-body": lambda *_: "hang-body",
    "stall": lambda chance, _: f"stall:{chance.randint(0, 20)}",
    "keep-alive": lambda chance, _: f"keep-alive:{chance.choice([1, 5])}:50",
    "mute": lambda *_: "mute",
    "cut": lambda chance, _: f"cut:{chance.randint(0, 20)}",
    "eof": lambda chance, _: f"eof:{chance.randint(0, 20)}",
    "empty": lambda *_: "empty",
    "endless": lambda chance, _: f"endless:{chance.choice([5, 1000])}:1",
    "no-done": lambda *_: "no-done",
    "close": lambda *_: "close",
    "malformed": lambda chance, _: f"malformed:{chance.randint(0, 5)}",
    "error": lambda chance, _: f"error:{chance.randint(0, 5)}",
    "giant": lambda chance, _: f"giant:{chance.choice([1 << 20, 6 << 20])}",
    "comments": lambda *_: "comments:3",
    "blank": lambda *_: "blank:50",
    "drip": lambda chance, _: f"drip:{chance.choice([1, 7, 100])}:1",
    "utf8": lambda *_: "utf8",
    "batch": lambda chance, _: f"batch:{chance.choice([2, 1000000])}",
    "crlf": lambda *_: "crlf",
}
NOT_ASKED_FOR = {"none", "first"}
LENGTHEN = {"endless", "giant"}  # what they leave of an answer is longer than it


# --- what a client gets --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Asked:
    """One request, and what its whole answer is. `leaves_after` bytes the client is gone; None: it stays."""

    model: str
    number: int
    streamed: bool
    fault: str
    rescue: str
    pace_ms: int
    leaves_after: int | None
    nonce: str = ""  # the simulators count first tries by message

    @property
    def body(self) -> bytes:
        directive = f"pace_ms={self.pace_ms}" + (f" fault={self.fault}" if self.fault else "")
        said = f"Count to {self.number} [[{directive}]] {self.nonce}"
        asked = {"model": self.model, "stream": self.streamed, "messages": [{"role": "user", "content": said}]}
        return json.dumps(asked).encode()


def by_chance(chance: random.Random) -> Asked:
    model, streamed = chance.choice(list(MODELS)), chance.random() < 0.6
    fault = ""
    if chance.random() > HEALTHY:
        names = chance.sample(list(FAULTS), chance.choice([1, 1, 1, 2]))
        parts = [FAULTS[name](chance, model) for name in names]
        if chance.random() < FIRST_ONLY / (1 - HEALTHY):
            parts.insert(0, "first:1")
        fault = ",".join(parts)
    rescue = chance.choice(["continue", "buffer"]) if streamed and chance.random() < RESCUES else ""
    leaves = chance.randint(0, 4000) if chance.random() < LEAVERS else None
    nonce = "".join(chance.choices("abcdefgh", k=8))
    return Asked(model, chance.choice(COUNTS), streamed, fault, rescue, chance.choice([0, 0, 1, 5]), leaves, nonce)


@dataclass
class Got:
    """How a request ended for its client: `whole`, `error`, `left`, or one of those that must not be."""

    asked: Asked
    end: str
    detail: str = ""
    request_id: str = ""
    cost: Decimal | None = None
    took_s: float = 0.0


def judge(asked: Asked, data: bytes, expected: str) -> Got:
    """What the bytes of an answer are, up to the end of its connection."""
    head, separator, body = data.partition(b"\r\n\r\n")
    if not separator:
        return Got(asked, "unclean", "no head")
    status = int(head.split(b" ", 2)[1])
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in head.decode().split("\r\n")[1:])}
    request_id = f"chatcmpl-{headers['x-request-id'].removeprefix('req_')}"
    if "transfer-encoding" in headers:
        if not body.endswith(b"0\r\n\r\n"):
            return Got(asked, "unclean", "the body has no end", request_id)
        body = unchunked(body)
    elif len(body) != int(headers["content-length"]):
        return Got(asked, "unclean", "the body is cut", request_id)
    if status != 200:
        return Got(asked, "error" if is_error(body) else "unclean", f"{status} {code(body)}", request_id)
    if headers["content-type"].startswith("text/event-stream"):
        return judge_stream(asked, body, expected, request_id)
    if is_error(body):
        return Got(asked, "error", f"late {code(body)}", request_id)
    try:
        answer = json.loads(body, parse_float=Decimal)
        choice = answer["choices"][0]
        text, reason = choice["message"]["content"] or "", choice["finish_reason"]
        cost = Decimal(answer["usage"]["cost"])
    except (ValueError, KeyError, TypeError) as error:
        return Got(asked, "unclean", f"no answer: {error}", request_id)
    return whole(asked, text, reason, expected, request_id, cost)


def judge_stream(asked: Asked, body: bytes, expected: str, request_id: str) -> Got:
    text, reason, cost, done, failure = "", None, None, False, ""
    for event in body.split(b"\n\n"):
        if not event.startswith(b"data: "):
            if event and not event.startswith(b":"):
                return Got(asked, "unclean", f"half an event: {event[:40]!r}", request_id)
            continue
        if done or failure:
            return Got(asked, "unclean", "events after the end", request_id)
        if event == b"data: [DONE]":
            done = True
            continue
        if is_error(event[6:]):
            failure = code(event[6:])
            continue
        chunk = json.loads(event[6:], parse_float=Decimal)
        if chunk.get("usage"):
            cost = Decimal(chunk["usage"]["cost"])
        for choice in chunk["choices"]:
            text += choice["delta"].get("content") or ""
            reason = choice["finish_reason"] or reason
    if failure:
        return Got(asked, "error", f"event {failure}", request_id)
    if not done or reason is None:
        return Got(asked, "unclean", "neither [DONE] nor an error", request_id)
    return whole(asked, text, reason, expected, request_id, cost)


def whole(asked: Asked, text: str, reason: str | None, expected: str, request_id: str, cost: Decimal | None) -> Got:
    """It says that it is whole; `length` and `content_filter` say that it is not."""
    named = {part.partition(":")[0] for part in asked.fault.split(",")}
    complete = text == expected or (bool(named & LENGTHEN) and text.endswith(expected[-2:]))
    if complete or reason in ("length", "content_filter"):
        return Got(asked, "whole", reason or "", request_id, cost)
    return Got(asked, "cut as whole", f"{len(text)} of {len(expected)} characters, {reason}", request_id, cost)


def is_error(body: bytes) -> bool:
    try:
        error = json.loads(body)["error"]
    except (ValueError, KeyError, TypeError):
        return False
    return isinstance(error, dict) and error.keys() == ENVELOPE and bool(error["message"] and error["code"])


def code(body: bytes) -> str:
    try:
        return str(json.loads(body)["error"]["code"])
    except (ValueError, KeyError, TypeError):
        return "no envelope"


@dataclass
class Clients:
    """Ask until they are told to stop. `expected` is each whole answer by model and number."""

    port: int
    api_key: str
    chance: random.Random
    expected: dict[tuple[str, int], str] = field(default_factory=dict)
    got: list[Got] = field(default_factory=list)
    stopping: bool = False
    hang_s: float = HANG_S

    async def run(self) -> None:
        while not self.stopping:
            asked = by_chance(self.chance)
            self.got.append(await self.ask(asked))

    async def learn(self) -> None:
        """What whole answers are, from upstreams without faults."""
        for model in MODELS:
            for number in COUNTS:
                asked = Asked(model, number, streamed=False, fault="", rescue="", pace_ms=0, leaves_after=None)
                data = await self.exchange(asked)
                body = json.loads(data.partition(b"\r\n\r\n")[2])
                assert "choices" in body, (model, body)
                self.expected[model, number] = body["choices"][0]["message"]["content"]

    async def ask(self, asked: Asked) -> Got:
        began = time.monotonic()
        try:
            async with asyncio.timeout(self.hang_s):
                data = await self.exchange(asked)
        except TimeoutError:
            got = Got(asked, "hang", f"after {self.hang_s:.0f} s")
        except OSError as error:
            got = Got(asked, "unclean", str(error))
        else:
            left = asked.leaves_after is not None and len(data) > asked.leaves_after
            expected = self.expected[asked.model, asked.number]
            got = Got(asked, "left") if left else judge(asked, data, expected)
        got.took_s = time.monotonic() - began
        return got

    async def exchange(self, asked: Asked) -> bytes:
        """All bytes of the answer, or more than `leaves_after`. Raises OSError."""
        body = asked.body
        head = "POST /v1/chat/completions HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n"
        head += f"Authorization: Bearer {self.api_key}\r\nContent-Type: application/json\r\n"
        head += f"x-vipcloud-rescue: {asked.rescue}\r\n" if asked.rescue else ""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        parts, size = [], 0
        try:
            writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            while part := await reader.read(65536):
                parts.append(part)
                size += len(part)
                if asked.leaves_after is not None and size > asked.leaves_after:
                    break
        finally:
            writer.transport.abort()
        return b"".join(parts)


# --- the gateway, from outside -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Weight:
    """What the gateway's process holds."""

    memory_bytes: int
    files: int

    @classmethod
    def of(cls, pid: int) -> "Weight":
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        return cls(pages * os.sysconf("SC_PAGE_SIZE"), len(os.listdir(f"/proc/{pid}/fd")))

    def __str__(self) -> str:
        return f"{self.memory_bytes / 1e6:.0f} MB, {self.files} files"


async def metrics(port: int) -> dict[str, float]:
    """Every metric of the gateway, summed over its labels."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    text = (await reader.read()).partition(b"\r\n\r\n")[2].decode()
    writer.close()
    sums: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            sums[sample.name] = sums.get(sample.name, 0) + sample.value
    return sums


async def watch(pid: int, seen: list[Weight]) -> None:
    while True:
        seen.append(Weight.of(pid))
        await asyncio.sleep(0.2)


async def operate(data: Path, ids: list[str]) -> None:
    """What an operator does: put accounts back into service."""
    while True:
        await asyncio.sleep(REVIVE_S)
        for account in ids:
            upstream_state.revive(data, account)


def run_simulators(ports: Mapping[str, list[int]]) -> None:
    async def forever() -> None:
        for provider, own in ports.items():
            for port in own:
                await simulators.start(provider, "127.0.0.1", port)
        await asyncio.Event().wait()

    uvloop.run(forever())


def run_gateway(settings: Settings) -> None:
    """With its housekeeping, which follows the operator; errors are logged to a file."""
    keep = structlog.WriteLoggerFactory((settings.data_path / LOG).open("a"))
    structlog.configure(
        processors=[
            structlog.stdlib.add_log_level,
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=keep,
    )

    async def forever() -> None:
        engine = storage.open_engine(settings.store_url)
        catalog = context.load_catalog(settings)
        with serve.gateway(settings, catalog, engine, SystemClock(), asyncio.Event()) as built:
            await built.server.start(settings.server.host, settings.server.port)
            await built.housekeeping.run()

    uvloop.run(forever())


def tracebacks(settings: Settings) -> list[str]:
    """What the gateway logged of faults of its own."""
    return [line for line in (settings.data_path / LOG).read_text().splitlines() if "Traceback" in line]


def prepare(folder: Path, ports: Mapping[str, list[int]]) -> tuple[Settings, str, str]:
    """Settings, the account's id and its key."""
    settings = Settings(
        data=str(folder),
        server=ServerSettings(port=free_port()),
        client=ClientSettings(idle_timeout_s=1, connect_timeout_s=1),
        timeouts=TimeoutSettings(first_byte_s=2, idle_s=1, total_s=TOTAL_S),
        gateway=GatewaySettings(count_timeout_s=0, ping_stream_s=0.5, ping_unary_s=1.5),
        journal=JournalSettings(file_bytes_max=1 << 20, worker="gateway"),
        upstreams={
            provider: UpstreamSettings(
                accounts=tuple(
                    UpstreamAccountSettings(
                        name=f"a{place}", base_url=f"http://127.0.0.1:{port}", keys=(Secret(f"sk-{place}.ours"),)
                    )
                    for place, port in enumerate(own)
                )
            )
            for provider, own in ports.items()
        },
    )
    settings.catalog_path.write_text("".join(f'[models."{name}"]\nstatus = "live"\n' for name in SWITCHED_ON))
    engine = storage.open_engine(settings.store_url)
    migrate.upgrade(engine)
    with storage.writing(engine) as connection:
        row = accounts.create_account(connection, "chaos@example.com", 0.0, os.urandom, rpm=0, concurrency=0)
        store.grant(connection, "all", row.id, CREDIT, 0.0)
        key = accounts.create_key(connection, row.id, 0.0, os.urandom).plaintext
    engine.dispose()
    return settings, row.id, key


# --- the soak ------------------------------------------------------------------------------------------------------


@dataclass
class Soak:
    """What came of it. `recovered`: models that answered at the first try once faults had ended."""

    clients: Clients
    before: Weight
    during: Weight
    after: Weight
    metrics: dict[str, float]
    recovered: int
    seconds: float
    tracebacks: int = 0


async def soak(pid: int, clients: Clients, count: int, seconds: float, settings: Settings) -> Soak:
    await answers(clients.port)
    await clients.learn()
    loop, weights = asyncio.get_running_loop(), [Weight.of(pid)]
    ids = [f"{provider}/{one.name}" for provider, own in settings.upstreams.items() for one in own.accounts]
    beside = [loop.create_task(watch(pid, weights)), loop.create_task(operate(settings.data_path, ids))]
    began = time.monotonic()
    running = [loop.create_task(clients.run()) for _ in range(count)]
    await asyncio.sleep(seconds)
    clients.stopping = True
    await asyncio.wait(running)
    took_s = time.monotonic() - began
    await asyncio.sleep(max(REVIVE_S, settings.client.idle_timeout_s) + 2)
    recovered = 0
    for model in MODELS:
        asked = Asked(model, COUNTS[0], streamed=True, fault="", rescue="", pace_ms=0, leaves_after=None)
        recovered += (await clients.ask(asked)).end == "whole"
    await asyncio.sleep(settings.client.idle_timeout_s + 1)
    for task in beside:
        task.cancel()
    await asyncio.wait(beside)
    for task in (*running, *beside):
        if not task.cancelled() and (error := task.exception()) is not None:
            raise error
    peak = Weight(max(one.memory_bytes for one in weights), max(one.files for one in weights))
    return Soak(clients, weights[0], peak, Weight.of(pid), await metrics(clients.port), recovered, took_s)


def books(settings: Settings, account_id: str, got: list[Got]) -> Iterator[tuple[str, int]]:
    """What must be zero of the books, compared with what clients were told."""
    engine = storage.open_engine(settings.store_url)
    Journal(settings.journal_path, lambda _: None, SystemClock()).close()
    bookkeeper.catch_up(engine, settings.journal_path)
    with storage.reading(engine) as connection:
        breaks = audit.Audit().check(connection)
        below = audit.overdrawn(connection)
        columns = [schema.usage.c[name] for name in Settled.__struct_fields__]
        rows = {row.request_id: row for row in connection.execute(select(*columns))}
        left = store.balance(connection, account_id)
    engine.dispose()
    told = [one for one in got if one.cost is not None]
    yield "breaks of the books", len(breaks) + len(below)
    yield "nano-dollars missing", abs(CREDIT - sum(row.charge_nanousd for row in rows.values()) - left)
    yield "whole answers not booked", sum(one.request_id not in rows for one in told)
    yield (
        "charged otherwise than told",
        sum(
            one.request_id in rows and one.cost is not None and one.cost * 10**9 != rows[one.request_id].charge_nanousd
            for one in told
        ),
    )
    errors = [rows[one.request_id] for one in got if one.end == "error" and one.request_id in rows]
    yield (
        "errors without content charged",
        sum(row.charge_nanousd > 0 for row in errors if row.outcome == "upstream_failed"),
    )


def table(found: Soak, zeros: dict[str, int], seed: int, count: int) -> str:
    ends = Counter(one.end for one in found.clients.got)
    errors = Counter(one.detail for one in found.clients.got if one.end == "error")
    faulty = sum(bool(one.asked.fault) for one in found.clients.got)
    slowest = max((one.took_s for one in found.clients.got), default=0.0)
    rows = [
        ("requests", f"{len(found.clients.got):,} ({faulty:,} with faults), {count} clients"),
        ("whole answers", f"{ends['whole']:,}"),
        ("clean errors", f"{ends['error']:,}: " + ", ".join(f"{name} {n}" for name, n in errors.most_common(6))),
        ("clients that left", f"{ends['left']:,}"),
        *((name, str(value)) for name, value in zeros.items()),
        ("models that answer after it", f"{found.recovered} of {len(MODELS)}"),
        ("slowest answer", f"{slowest:.1f} s (an upstream may take {TOTAL_S:.0f})"),
        ("before, at most, after", f"{found.before} | {found.during} | {found.after}"),
        (
            "calls, retries, wasted",
            f"{found.metrics.get('vipcloud_upstream_calls_total', 0):,.0f}, "
            f"{found.metrics.get('vipcloud_upstream_retries_total', 0):,.0f}, "
            f"${found.metrics.get('vipcloud_waste_nanousd_total', 0) / 1e9:.4f}",
        ),
    ]
    width = max(len(name) for name, _ in rows)
    return f"chaos: {found.seconds:.0f} s, seed {seed}\n" + "\n".join(
        f"  {name:{width}}  {value}" for name, value in rows
    )


def zeros_of(found: Soak, booked: Iterator[tuple[str, int]]) -> dict[str, int]:
    """All that must be zero."""
    ends = Counter(one.end for one in found.clients.got)
    open_ = ("vipcloud_open_streams", "vipcloud_upstream_running", "vipcloud_deadlines")
    more_files = found.after.files - found.before.files
    more_memory = found.after.memory_bytes - found.before.memory_bytes
    return {
        "hangs": ends["hang"],
        "cut as whole": ends["cut as whole"],
        "unclean ends": ends["unclean"],
        "internal errors": sum("internal_error" in one.detail for one in found.clients.got) + found.tracebacks,
        **dict(booked),
        "left open": int(sum(found.metrics.get(name, 0) for name in open_)),
        "files too many": max(0, more_files - FILES_MORE_MAX),
        "memory too much (MB)": max(0, more_memory - MEMORY_MORE_MAX) // 1_000_000,
        "models not back": len(MODELS) - found.recovered,
    }


def play(seconds: float, seed: int, count: int) -> bool:
    """Whether all is well. Prints the table."""
    structlog.configure(processors=[_silent])
    ports = {provider: [free_port() for _ in range(ACCOUNTS_EACH)] for provider in simulators.PROVIDERS}
    with tempfile.TemporaryDirectory() as folder:
        settings, account_id, key = prepare(Path(folder), ports)
        nursery = Nursery(
            {
                "simulators": lambda: run_simulators(ports),
                "gateway": lambda: run_gateway(settings),
                "bookkeeper": lambda: run_bookkeeper(settings),
            }
        )
        pids = [nursery.start(role) for role in ("simulators", "gateway", "bookkeeper")]
        clients = Clients(settings.server.port, key, random.Random(seed))
        try:
            found = uvloop.run(soak(pids[1], clients, count, seconds, settings))
        finally:
            for pid in pids:
                kill(pid)
            nursery.close()
        logged = tracebacks(settings)
        found.tracebacks = len(logged)
        zeros = zeros_of(found, books(settings, account_id, clients.got))
    print(table(found, zeros, seed, count))
    wrong = [one for one in clients.got if one.end not in ("whole", "error", "left")]
    for line in logged[:5]:
        print(f"  {json.loads(line).get('exception', line)}", file=sys.stderr)
    for one in wrong[:20]:
        print(f"  {one.end}: {one.detail}: {one.asked}", file=sys.stderr)
    return not any(zeros.values())


def main() -> None:
    parser = argparse.ArgumentParser(description="A soak with random faults.")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--clients", type=int, default=32)
    given = parser.parse_args()
    if not play(given.seconds, given.seed, given.clients):
        print("chaos: something that must be zero is not", file=sys.stderr)
        raise SystemExit(1)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()

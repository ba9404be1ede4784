"""Kill gateway and bookkeeper under load, again and again, and compare what clients received with the books.

`python proofs/kills.py --kills 300`. Every process is a real one and every death a SIGKILL; processes are forked from
one that has loaded the program, which makes a start cheap. Clients speak HTTP over loopback and write down what came:
complete answers with the cost they told, and streams as far as they got.
"""

import argparse
import asyncio
import contextlib
import json
import os
import random
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import structlog
import uvloop
from sqlalchemy import select

from vipcloud.accounts import store as accounts
from vipcloud.cli import context, serve
from vipcloud.clock import SystemClock
from vipcloud.ledger import audit, bookkeeper, store
from vipcloud.ledger.bookkeeper import Bookkeeper
from vipcloud.ledger.journal import Journal
from vipcloud.ledger.records import Settled
from vipcloud.money import NanoUSD
from vipcloud.settings import GatewaySettings, JournalSettings, Secret, Settings, UpstreamSettings
from vipcloud.simulators import app as simulators
from vipcloud.storage import engine as storage
from vipcloud.storage import migrate, schema

CLIENTS = 12
CREDIT = NanoUSD(1_000_000_000_000)
BOOK_INTERVAL_S = 0.1
LIVES_S = (0.1, 0.7)  # between two kills
START_TIMEOUT_S = 30


# --- processes -----------------------------------------------------------------------------------------------------


class Nursery:
    """A process without threads or loops that forks others on demand."""

    def __init__(self, roles: dict[str, Callable[[], None]]) -> None:
        ask_read, self._ask = os.pipe()
        answer_read, answer = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self._ask)
            os.close(answer_read)
            signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the dead need no burial
            with os.fdopen(ask_read) as asked:
                for line in asked:
                    os.write(answer, b"%d\n" % _fork(roles[line.strip()]))
            os._exit(0)
        os.close(ask_read)
        os.close(answer)
        self._answers = os.fdopen(answer_read)

    def start(self, role: str) -> int:
        os.write(self._ask, f"{role}\n".encode())
        return int(self._answers.readline())

    def close(self) -> None:
        os.close(self._ask)
        os.waitpid(self.pid, 0)
        self._answers.close()


def _fork(role: Callable[[], None]) -> int:
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        try:
            role()
        finally:
            os._exit(1)
    return child


def kill(pid: int) -> None:
    """And wait until it is gone."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
        while True:
            os.kill(pid, 0)
            time.sleep(0.002)


def run_simulator(port: int) -> None:
    async def forever() -> None:
        await simulators.start("deepseek", "127.0.0.1", port)
        await asyncio.Event().wait()

    uvloop.run(forever())


def run_gateway(settings: Settings) -> None:
    async def forever() -> None:
        engine = storage.open_engine(settings.store_url)
        catalog = context.load_catalog(settings)
        with serve.gateway(settings, catalog, engine, SystemClock(), asyncio.Event()) as built:
            await built.server.start(settings.server.host, settings.server.port)
            await asyncio.Event().wait()

    uvloop.run(forever())


def run_bookkeeper(settings: Settings) -> None:
    keeper = Bookkeeper(storage.open_engine(settings.store_url), settings.journal_path, SystemClock())
    bookkeeper.run(keeper, threading.Event(), BOOK_INTERVAL_S)


# --- clients -------------------------------------------------------------------------------------------------------


@dataclass
class Seen:
    """What a client got for a request. `characters` are of content; `cost` is what a whole answer told."""

    request_id: str
    key: str
    streamed: bool
    complete: bool
    characters: int
    cost: Decimal | None
    left: bool = False  # by its own choice


@dataclass
class Load:
    """Clients that ask until they are told to stop."""

    port: int
    api_key: str
    chance: random.Random
    seen: list[Seen]
    sent: int = 0
    refused: int = 0
    stopping: bool = False

    async def run(self, number: int) -> None:
        turn = 0
        while not self.stopping:
            turn += 1
            key = f"client-{number}-{turn}" if self.chance.random() < 0.3 else ""
            streamed = self.chance.random() < 0.6
            said = f"Count to {self.chance.randint(1, 30)} [[pace_ms={self.chance.choice([0, 2, 10, 40])}]]"
            for _ in range(6 if key else 1):  # with a key it is sent again until there is an answer
                found = await self.ask(said, key, streamed=streamed)
                if found is not None:
                    self.seen.append(found)
                if self.stopping or (found is not None and (found.complete or found.left)):
                    break

    async def ask(self, said: str, key: str, *, streamed: bool) -> Seen | None:
        """None where no answer began."""
        body = {"model": "deepseek-chat", "stream": streamed, "messages": [{"role": "user", "content": said}]}
        content = json.dumps(body).encode()
        head = "POST /v1/chat/completions HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n"
        head += f"Authorization: Bearer {self.api_key}\r\nContent-Type: application/json\r\n"
        head += f"Idempotency-Key: {key}\r\n" if key else ""
        leaves_after = self.chance.randint(0, 3000) if streamed and self.chance.random() < 0.1 else None
        data = b""
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        except OSError:
            await asyncio.sleep(0.02)
            return None
        self.sent += 1
        left = False
        try:
            writer.write(f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content)
            while part := await reader.read(65536):
                data += part
                if leaves_after is not None and len(data) > leaves_after:
                    left = True
                    break
        except OSError:
            pass  # killed: what had come counts
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
        return self._read(data, key, streamed=streamed, left=left)

    def _read(self, data: bytes, key: str, *, streamed: bool, left: bool) -> Seen | None:
        head, separator, body = data.partition(b"\r\n\r\n")
        if not separator:
            return None
        if not head.startswith(b"HTTP/1.1 200"):
            self.refused += 1
            return None
        headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n")[1:])
        request_id = f"chatcmpl-{headers['x-request-id'].removeprefix('req_')}"
        if not streamed:
            if len(body) < int(headers["content-length"]):
                return Seen(request_id, key, streamed, complete=False, characters=0, cost=None)
            answer = json.loads(body, parse_float=Decimal)
            text = answer["choices"][0]["message"]["content"]
            return Seen(
                request_id, key, streamed, complete=True, characters=len(text), cost=Decimal(answer["usage"]["cost"])
            )
        characters, cost, done = 0, None, False
        for event in unchunked(body).split(b"\n\n")[:-1]:
            if event == b"data: [DONE]":
                done = True
            elif event.startswith(b"data: {"):
                chunk = json.loads(event[6:], parse_float=Decimal)
                if chunk.get("usage"):
                    cost = Decimal(chunk["usage"]["cost"])
                for choice in chunk.get("choices", ()):
                    characters += len(choice["delta"].get("content") or "")
        return Seen(request_id, key, streamed, done, characters, cost, left and not done)


def unchunked(body: bytes) -> bytes:
    """The content of a chunked body, as far as it has come."""
    content = b""
    while True:
        size, separator, body = body.partition(b"\r\n")
        if not separator or not size:
            return content
        length = int(size, 16)
        content += body[:length]
        if length == 0 or len(body) < length + 2:
            return content
        body = body[length + 2 :]


# --- the proof -----------------------------------------------------------------------------------------------------


def prepare(folder: Path, ports: tuple[int, int]) -> tuple[Settings, str, str]:
    """Settings, the account's id and its key."""
    settings = Settings(
        data=str(folder),
        upstreams={"deepseek": UpstreamSettings(base_url=f"http://127.0.0.1:{ports[0]}", keys=(Secret("sk-ours"),))},
        gateway=GatewaySettings(count_timeout_s=0),
        journal=JournalSettings(file_bytes_max=65536, progress_interval_s=0.05, worker="gateway"),
    )
    settings = replaced(settings, port=ports[1])
    engine = storage.open_engine(settings.store_url)
    migrate.upgrade(engine)
    with storage.writing(engine) as connection:
        row = accounts.create_account(connection, "kills@example.com", 0.0, os.urandom, rpm=0, concurrency=0)
        store.grant(connection, "all", row.id, CREDIT, 0.0)
        key = accounts.create_key(connection, row.id, 0.0, os.urandom).plaintext
    engine.dispose()
    return settings, row.id, key


def replaced(settings: Settings, port: int) -> Settings:
    return msgspec.structs.replace(settings, server=msgspec.structs.replace(settings.server, port=port))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def answers(port: int) -> None:
    """Wait until the gateway listens."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            assert time.monotonic() < deadline, "the gateway does not come up"
            await asyncio.sleep(0.01)
        else:
            writer.close()
            return


async def storm(nursery: Nursery, load: Load, kills: int, chance: random.Random) -> dict[str, int]:
    counts = {"gateway": 0, "bookkeeper": 0}
    gateway, keeper = nursery.start("gateway"), nursery.start("bookkeeper")
    await answers(load.port)
    clients = [asyncio.get_running_loop().create_task(load.run(number)) for number in range(CLIENTS)]
    began = time.monotonic()
    while sum(counts.values()) < kills:
        await asyncio.sleep(chance.uniform(*LIVES_S))
        victim = chance.choice(["gateway", "gateway", "bookkeeper", "both"])
        if victim != "gateway":
            await asyncio.to_thread(kill, keeper)
            counts["bookkeeper"] += 1
        if victim != "bookkeeper":
            await asyncio.to_thread(kill, gateway)
            counts["gateway"] += 1
            gateway = nursery.start("gateway")
            await answers(load.port)
        if victim != "gateway":
            keeper = nursery.start("bookkeeper")
        done = sum(counts.values())
        if done % 50 < 2:
            print(f"  {done} kills, {load.sent} requests, {time.monotonic() - began:.0f} s", flush=True)
    load.stopping = True
    await asyncio.sleep(0.2)
    await asyncio.to_thread(kill, gateway)
    await asyncio.to_thread(kill, keeper)
    await asyncio.wait(clients)
    return counts


def compare(settings: Settings, account_id: str, seen: list[Seen]) -> dict[str, int]:
    """Raises AssertionError where the books differ from what clients received."""
    engine = storage.open_engine(settings.store_url)
    Journal(settings.journal_path, lambda _: None, SystemClock()).close()
    bookkeeper.catch_up(engine, settings.journal_path)
    with storage.reading(engine) as connection:
        breaks = audit.Audit().check(connection)
        below = audit.overdrawn(connection)
        listed = [Settled(*tuple(row)[1:]) for row in connection.execute(select(schema.usage))]
        left = store.balance(connection, account_id)
        still_open = len(connection.execute(select(schema.open_request.c.request_id)).all())
    assert breaks == [], breaks
    assert below == {}, below
    assert still_open == 0, "every request of a dead process is resolved"
    assert len({row.request_id for row in listed}) == len(listed), "a request is in the books twice"
    assert left == CREDIT - sum(row.charge_nanousd for row in listed), "the balance is not what was given less charges"
    rows = {row.request_id: row for row in listed}
    for one in seen:
        row = rows.get(one.request_id)
        if one.complete:
            assert row is not None, f"{one.request_id} was answered and is lost"
            assert row.outcome == "complete", row
            assert one.cost is not None
            assert one.cost * 1_000_000_000 == row.charge_nanousd, f"{one} told another charge than {row}"
        elif one.characters:
            assert row is not None, f"{one.request_id} was begun and is lost"
        if row is not None and row.outcome == "crashed":
            assert row.completion_tokens <= -(-one.characters // 4), f"{row} is charged for more than came: {one}"
    answered = [one for one in seen if one.complete and one.key]
    assert len({one.key for one in answered}) == len(answered), "an Idempotency-Key was answered twice"
    known = {one.request_id: one for one in seen}
    crashed = [row for row in listed if row.outcome == "crashed"]
    unseen = [
        row for row in listed if row.charge_nanousd and row.outcome == "complete" and not known_complete(known, row)
    ]
    return {
        "answered": sum(one.complete for one in seen),
        "cut": sum(not one.complete for one in seen),
        "rows": len(listed),
        "crashed_charged": sum(row.charge_nanousd > 0 for row in crashed),
        "crashed_void": sum(row.charge_nanousd == 0 for row in crashed),
        "settled_before_last_byte": sum(not (row.request_id in known and known[row.request_id].left) for row in unseen),
        "keys": len(answered),
    }


def known_complete(known: dict[str, Seen], row: Settled) -> bool:
    return row.request_id in known and known[row.request_id].complete


def main() -> None:
    parser = argparse.ArgumentParser(description="Kill gateway and bookkeeper under load.")
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    chance = random.Random(given.seed)
    began = time.monotonic()
    structlog.configure(processors=[_silent], cache_logger_on_first_use=False)
    with tempfile.TemporaryDirectory(prefix="vipcloud-kills-") as folder:
        ports = free_port(), free_port()
        settings, account_id, key = prepare(Path(folder), ports)
        nursery = Nursery(
            {
                "simulator": lambda: run_simulator(ports[0]),
                "gateway": lambda: run_gateway(settings),
                "bookkeeper": lambda: run_bookkeeper(settings),
            }
        )
        simulator = nursery.start("simulator")
        load = Load(ports[1], key, chance, [])
        try:
            counts = asyncio.run(storm(nursery, load, given.kills, chance))
            found = compare(settings, account_id, load.seen)
        finally:
            kill(simulator)
            nursery.close()
    print(
        f"kills: {sum(counts.values())} (gateway {counts['gateway']}, bookkeeper {counts['bookkeeper']}), "
        f"seed {given.seed}, {time.monotonic() - began:.0f} s\n"
        f"  {load.sent:,} requests sent, {found['answered']:,} complete answers received, {found['cut']:,} cut off\n"
        f"  0 of these answers lost, 0 charged twice, 0 told another charge; "
        f"{found['rows']:,} usage rows, books right\n"
        f"  cut off by a kill: {found['crashed_charged']:,} streams paid for what had come, "
        f"{found['crashed_void']:,} for nothing\n"
        f"  settled, and killed before the last byte was sent: {found['settled_before_last_byte']:,}\n"
        f"  {found['keys']:,} requests with an Idempotency-Key, sent again until answered: each answered once"
    )


def _silent(_logger: Any, _method: str, _event: Any) -> Any:
    raise structlog.DropEvent


if __name__ == "__main__":
    main()

"""Restart the gateway under load, by hand-over, again and again: no stream is dropped that can end within the drain
limit, nobody is refused, and the books are right to the nano-dollar.

`python proofs/restarts.py --restarts 20 --streams 1000`. Gateways are what `vipcloud serve --takeover` runs, each a
process; so are the bookkeeper and the simulators. Clients keep so many streams open, of some seconds each, and ask for
whole answers between them. A new gateway is started every few seconds; its elder drains beside it.

Exit status 1 if anything that must be zero is not.
"""

import argparse
import asyncio
import contextlib
import os
import random
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import MutableMapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import structlog
import uvloop
from sqlalchemy import func, select

from chaos import Asked, Clients, Got, books, metrics, prepare, run_simulators
from kills import Nursery, _silent, answers, free_port, kill, run_bookkeeper
from vipcloud.cli import context, running, serve
from vipcloud.settings import (
    ClientSettings,
    ConsoleSettings,
    GatewaySettings,
    Settings,
    StatusSettings,
    TimeoutSettings,
)
from vipcloud.simulators import app as simulators
from vipcloud.storage import engine as storage
from vipcloud.storage import schema

MODEL = "deepseek-chat"
NUMBERS = (4, 6, 8)
PACE_MS = (250, 500)
BETWEEN_S = (1.5, 3.0)
START_S = 60.0
LIVING_MAX = 6  # gateways at the same time; the next restart waits for the oldest to end
AGAIN = "503 service_unavailable"


def run_gateway(settings: Settings) -> None:
    """The gateway as it is served, beside its elder if there is one."""
    context.out.quiet = True  # no greeting
    serve.raise_file_limit()
    catalog, engine = context.load_catalog(settings), storage.open_engine(settings.store_url)
    elder = running.find(settings)
    structlog.configure(processors=[_worse, structlog.dev.ConsoleRenderer(colors=False)])
    try:
        uvloop.run(serve.run(settings, catalog, engine, [], None, simulated=False, elder=elder))
    except BaseException:
        traceback.print_exc()
        raise
    os._exit(0)


def _worse(_logger: object, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """What has to be looked into."""
    if method not in ("warning", "error", "exception"):
        raise structlog.DropEvent
    return event


@dataclass
class Crowd(Clients):
    """`streams` at a time, and a few who want whole answers. Who is told to come again does."""

    open: int = 0
    open_max: int = 0
    again: int = 0
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    async def learn(self) -> None:
        for number in NUMBERS:
            asked = Asked(MODEL, number, streamed=False, fault="", rescue="", pace_ms=0, leaves_after=None)
            data = await self.exchange(asked)
            body = msgspec.json.decode(data.partition(b"\r\n\r\n")[2])
            self.expected[MODEL, number] = body["choices"][0]["message"]["content"]

    async def keep_asking(self, *, streamed: bool) -> None:
        await asyncio.sleep(self.chance.random() * 3)
        while not self.stopping:
            pace_ms = self.chance.randint(*PACE_MS) if streamed else 0
            asked = Asked(MODEL, self.chance.choice(NUMBERS), streamed, "", "", pace_ms, None)
            self.open += streamed
            self.open_max = max(self.open_max, self.open)
            got = await self.ask(asked)
            self.open -= streamed
            if got.end == "error" and got.detail == AGAIN:
                self.again += 1
            else:
                self.got.append(got)
            if not streamed:
                await asyncio.sleep(0.2)


async def taken_over(settings: Settings, before: str) -> float:
    """Wait until another gateway says that it is the one; how long that took."""
    began = time.monotonic()
    while (found := running.find(settings)) is None or found.handover == before:
        assert time.monotonic() - began < START_S, "the successor does not come up"
        await asyncio.sleep(0.02)
    return time.monotonic() - began


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@dataclass
class Outcome:
    """`living_max` gateways ran side by side; `not_ended` of the elders did not end by themselves."""

    crowd: Crowd
    restarts: int
    starts_s: list[float]
    living_max: int
    left_open: int
    not_ended: int
    seconds: float


async def storm(
    nursery: Nursery, gateways: list[int], settings: Settings, crowd: Crowd, restarts: int, streams: int
) -> Outcome:
    """`gateways` takes the processes that were started, oldest first; whoever calls ends those that are left."""
    gateways.append(nursery.start("gateway"))
    await taken_over(settings, "")
    await answers(crowd.port)
    await crowd.learn()
    loop, began = asyncio.get_running_loop(), time.monotonic()
    tasks = [loop.create_task(crowd.keep_asking(streamed=number < streams)) for number in range(streams + 8)]
    await asyncio.sleep(4)
    starts_s, living_max = [], 1
    for done in range(restarts):
        while sum(map(alive, gateways)) >= LIVING_MAX:  # noqa: ASYNC110 - nothing tells of a process' end
            await asyncio.sleep(0.1)
        before = running.find(settings)
        assert before is not None, "one serves"
        gateways.append(await asyncio.to_thread(nursery.start, "gateway"))
        starts_s.append(await taken_over(settings, before.handover))
        living_max = max(living_max, sum(map(alive, gateways)))
        if done % 5 == 4:
            print(f"  {done + 1} restarts, {crowd.open} streams open, {time.monotonic() - began:.0f} s", flush=True)
        await asyncio.sleep(crowd.chance.uniform(*BETWEEN_S))
    crowd.stopping = True
    await asyncio.wait(tasks)
    for task in tasks:
        task.result()
    seconds = time.monotonic() - began
    deadline = time.monotonic() + settings.server.drain_timeout_s
    while any(map(alive, gateways[:-1])) and time.monotonic() < deadline:  # noqa: ASYNC110
        await asyncio.sleep(0.1)
    told = await metrics(crowd.port)
    left_open = int(told["vipcloud_open_streams"] + told["vipcloud_upstream_running"])
    not_ended = sum(map(alive, gateways[:-1]))
    return Outcome(crowd, restarts, starts_s, living_max, left_open, not_ended, seconds)


def play(restarts: int, streams: int, seed: int) -> bool:
    """Whether all is well. Prints what came of it."""
    structlog.configure(processors=[_silent])
    serve.raise_file_limit()
    ports = {provider: [free_port()] for provider in simulators.PROVIDERS}
    with tempfile.TemporaryDirectory() as folder:
        settings, account_id, key = prepare(Path(folder), ports)
        settings = msgspec.structs.replace(
            settings,
            client=ClientSettings(connect_timeout_s=30),  # simulators, clients and gateways share one machine
            gateway=GatewaySettings(count_timeout_s=0),
            timeouts=TimeoutSettings(),
            console=ConsoleSettings(enabled=False),
            status=StatusSettings(enabled=False),
            tiers={**settings.tiers, "payg": msgspec.structs.replace(settings.tiers["payg"], shed_lag_s=0)},
        )
        nursery = Nursery(
            {
                "simulators": lambda: run_simulators(ports),
                "gateway": lambda: run_gateway(settings),
                "bookkeeper": lambda: run_bookkeeper(settings),
            }
        )
        helpers = [nursery.start(role) for role in ("simulators", "bookkeeper")]
        gateways: list[int] = []
        crowd = Crowd(settings.server.port, key, random.Random(seed), hang_s=120)
        try:
            found = uvloop.run(storm(nursery, gateways, settings, crowd, restarts, streams))
        finally:
            for pid in (*gateways, *helpers):
                kill(pid)
            nursery.close()
        zeros = {**zeros_of(found), **dict(books(settings, account_id, crowd.got)), **outcomes(settings)}
    print(told(found, zeros, seed))
    for one in [one for one in crowd.got if one.end != "whole"][:20]:
        print(f"  {one.end}: {one.detail}: {one.asked}", file=sys.stderr)
    return not any(zeros.values())


def zeros_of(found: Outcome) -> dict[str, int]:
    """All that must be zero of what clients saw."""
    ends = Counter((one.end, one.asked.streamed) for one in found.crowd.got)
    return {
        "streams dropped": sum(count for (end, streamed), count in ends.items() if streamed and end != "whole"),
        "others not answered": sum(count for (end, streamed), count in ends.items() if not streamed and end != "whole"),
        "left open": found.left_open,
        "gateways that did not end": found.not_ended,
    }


def outcomes(settings: Settings) -> dict[str, int]:
    """Rows of requests that did not end as they should."""
    engine = storage.open_engine(settings.store_url)
    with storage.reading(engine) as connection:
        query = select(func.count()).where(schema.usage.c.outcome.not_in(["complete"]))
        count = connection.scalar(query.select_from(schema.usage)) or 0
    engine.dispose()
    return {"rows that are not complete": count}


def told(found: Outcome, zeros: dict[str, int], seed: int) -> str:
    got: list[Got] = found.crowd.got
    rows = {
        "streams open at most": f"{found.crowd.open_max:,}",
        "streams whole": f"{sum(one.asked.streamed and one.end == 'whole' for one in got):,}",
        "other answers whole": f"{sum(not one.asked.streamed and one.end == 'whole' for one in got):,}",
        **{name: str(count) for name, count in zeros.items()},
        "told to come again (503)": f"{found.crowd.again}",
        "gateways side by side": f"{found.living_max}",
        "from start to hand-over": f"{min(found.starts_s):.1f} to {max(found.starts_s):.1f} s",
    }
    width = max(map(len, rows))
    head = f"restarts: {found.restarts} under load, seed {seed}, {found.seconds:.0f} s"
    return "\n".join([head, *(f"  {name:{width}}  {value}" for name, value in rows.items())])


def main() -> None:
    parser = argparse.ArgumentParser(description="Restart the gateway under load.")
    parser.add_argument("--restarts", type=int, default=20)
    parser.add_argument("--streams", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    if not play(given.restarts, given.streams, given.seed):
        print("restarts: something that must be zero is not", file=sys.stderr)
        raise SystemExit(1)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()

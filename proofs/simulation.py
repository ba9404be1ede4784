"""A deterministic simulation of guard, pipeline, journal and bookkeeper: clients that leave at every await, upstreams
that fail in every way, processes that die at any step, clocks that jump.

`python proofs/simulation.py --schedules 100000`

Theory of operation. The code under test is the gateway's own `pipeline.chat` with its guard, bills and journal; only
sockets, time and chance are replaced. The loop's clock is a number that jumps to the next timer, and all chance comes
from one seed, so a schedule that fails is played again by its number. A scenario is a few requests of one account,
whose credit does not cover all of them. It is played once to count the awaits of the first request, and then once for
each of them, with its client (or the drain limit) cutting it off there. In each schedule the process also dies at a
step chosen by chance: what the journal holds then is settled as the next start would do it.

What must hold is told by `Schedule.check` and `Schedule.check_death`.
"""

import argparse
import asyncio
import json
import logging
import os
import random
import tempfile
import time
from collections.abc import Awaitable, Callable, Generator, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import structlog

if __name__ == "__main__":
    import sources  # noqa: F401 - before vipcloud: it puts fakes into it

from vipcloud.accounts.directory import Account, Directory, Principal
from vipcloud.cli.serve import LEASE_BEYOND_TOTAL_S
from vipcloud.clock import ManualClock
from vipcloud.errors import GatewayError
from vipcloud.gateway import pipeline
from vipcloud.gateway.app import HEAD
from vipcloud.gateway.call import Call
from vipcloud.gateway.counting import TokenCounter
from vipcloud.gateway.idempotency import Idempotency
from vipcloud.gateway.parts import Parts
from vipcloud.gateway.progress import ProgressNotes
from vipcloud.gateway.upstreams import Upstreams
from vipcloud.gateway.visitors import Visitors
from vipcloud.http.client import Address, Client, ConnectFailed, ConnectionBroken, Sender, TimedOut
from vipcloud.http.deadlines import Deadlines
from vipcloud.http.outbox import Outbox
from vipcloud.ledger import audit, bookkeeper, journal, rules, store
from vipcloud.ledger.journal import Journal
from vipcloud.ledger.records import Aborted, Opened, Progress, Reached, Settled
from vipcloud.limits.guard import Permit, Subject
from vipcloud.limits.local import LocalGuard
from vipcloud.limits.rules import Ask
from vipcloud.money import NanoUSD
from vipcloud.providers.catalog import catalog_of, packaged_toml
from vipcloud.settings import Secret, Settings, UpstreamSettings
from vipcloud.storage import engine as storage
from vipcloud.storage import migrate

MODEL = "deepseek-chat"
PRICE_IN, PRICE_OUT = Fraction(310), Fraction(1270)  # nano-dollars per token: a copy of our own
DELAYS_S = (0.0, 0.001, 0.2, 0.3, 1.0)
BOOKED_EVERY = 500  # schedules: then the journal is booked by the real bookkeeper and the books are audited


class VirtualLoop(asyncio.BaseEventLoop):
    """An event loop whose time passes when nothing else is to be done."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__()
        self._clock = clock
        self._selector = self
        self.steps = 0
        self.on_step: Callable[[], None] = lambda: None

    def time(self) -> float:
        return self._clock.monotonic_s()

    def select(self, timeout: float | None) -> list[Any]:
        self.steps += 1
        self.on_step()
        assert timeout is not None, "something waits for ever"
        if timeout > 0:
            self._clock.advance(timeout)
        return []

    def _process_events(self, event_list: list[Any]) -> None:
        assert event_list == []

    def _write_to_self(self) -> None:
        """Nobody sleeps in a system call."""


@dataclass
class Answer:
    """What an upstream will do with one call."""

    status: int
    body: bytes
    chunks: list[bytes] = field(default_factory=list)
    breaks_after: int | None = None  # chunks; then the connection is cut
    refuses: bool = False  # to be connected to
    reports: bool = False  # an error, with status 200
    delays_s: list[float] = field(default_factory=list)


class FakeResponse:
    """An upstream's answer, as `http.client.Response` gives it."""

    def __init__(self, answer: Answer, chance: random.Random) -> None:
        self.headers: dict[bytes, bytes] = {}
        self.status = answer.status
        self._answer = answer
        self._chance = chance
        self._stopped = False

    def read_now(self, bytes_max: int) -> bytes | None:
        return self._answer.body if self._chance.random() < 0.5 and self._answer.breaks_after is None else None

    async def read(self, bytes_max: int) -> bytes:
        await asyncio.sleep(self._chance.choice(DELAYS_S))
        if self._answer.breaks_after is not None:
            raise ConnectionBroken("cut")
        return self._answer.body

    async def pipe(self, feed: Callable[[bytes], None]) -> None:
        for number, chunk in enumerate(self._answer.chunks):
            await asyncio.sleep(self._chance.choice(DELAYS_S))
            if number == self._answer.breaks_after:
                raise self._chance.choice([ConnectionBroken("cut"), TimedOut("idle")])
            feed(chunk)
            if self._stopped:
                return

    def stop(self) -> None:
        self._stopped = True

    def expect(self, deadline: float, phase: str) -> None:
        """Time-outs are among the ways to break."""

    def pause(self) -> None: ...
    def resume(self) -> None: ...
    def release(self) -> None: ...
    def abort(self) -> None: ...


class FakeClient:
    """Makes origins whose calls are answered by `answers`."""

    address = Address("http", "upstream.example", 80)

    def __init__(self) -> None:
        self.answers: Callable[[bytes], Answer] = lambda _: Answer(500, b"{}")
        self.chance = random.Random(0)
        self.sent = 0  # calls that an upstream has got
        self.owed = 0  # of those, the ones that it bills whatever becomes of them

    def origin(self, address: Address) -> "FakeClient":
        return self

    async def send(self, data: bytes, deadline: float, phase: str, sender: Sender) -> FakeResponse:
        answer = self.answers(data)
        if not answer.refuses:
            sender.sent = True
            self.sent += 1
            self.owed += answer.status == 200 and not answer.reports
        await asyncio.sleep(self.chance.choice(DELAYS_S))
        if answer.refuses:
            raise ConnectFailed("refused")
        return FakeResponse(answer, self.chance)


@dataclass
class FakeLine:
    """A client's connection, as a transport: what has left for it."""

    arrived: bytes = b""

    def write(self, data: bytes) -> None:
        self.arrived += data

    def is_closing(self) -> bool:
        return False


@dataclass
class FakeExchange:
    """A client's end of a request, as `http.server.Exchange` gives it. What is sent leaves at the turn's end."""

    outbox: Outbox
    whole: bytes
    headers: dict[bytes, bytes]
    received_s: float
    connection: Any = field(default_factory=lambda: SimpleNamespace(note=None))
    draining: bool = False
    started: bool = False
    finished: bool = False
    gone: bool = False
    interrupted: bool = False
    sent: bytes = b""
    status: int = 0
    line: FakeLine = field(default_factory=FakeLine)
    head: None = None

    def header(self, name: bytes) -> bytes | None:
        return self.headers.get(name)

    def respond(self, status: int, headers: bytes, body: bytes = b"") -> None:
        self.start(status, headers)
        self.finish(body)

    def start(self, status: int, headers: bytes) -> None:
        assert not self.started, "an exchange is answered once"
        self.started, self.status = True, status

    def write(self, data: bytes) -> None:
        assert self.started
        assert not self.finished, "nothing follows the end"
        self.sent += data
        self.outbox.send(cast(asyncio.Transport, self.line), data)

    def finish(self, data: bytes = b"") -> None:
        self.write(data)
        self.finished = True

    def throttle(self, pause: Callable[[], None], resume: Callable[[], None]) -> None:
        """Readers are quick."""


class WatchedGuard(LocalGuard):
    """The guard, looked at after each of its steps: credit is never below zero, holds included."""

    def __init__(self, clock: ManualClock, lease_s: float, chance: Callable[[], float]) -> None:
        super().__init__(clock, lease_s, chance)
        self.admitted: dict[str, Permit] = {}

    def _watch(self, subject: Subject) -> None:
        for purse in subject.purses:
            if (money := self._purses.get(purse.id)) is not None:
                assert money.held_nanousd >= 0, "more was freed than held"
                left = purse.granted_nanousd - money.charged_nanousd - money.held_nanousd
                assert left >= 0, f"{purse.id} is overdrawn by {-left}"

    async def admit(self, request_id: str, subject: Subject, ask: Ask, wall_s: float) -> Permit:
        await asyncio.sleep(0)  # an await that a guard on another machine would have
        permit = await super().admit(request_id, subject, ask, wall_s)
        self.admitted[request_id] = permit
        self._watch(subject)
        return permit

    def extend(self, permit: Permit, tokens: int, refused: Callable[[], None]) -> None:
        super().extend(permit, tokens, refused)
        self._watch(permit.subject)

    def settle(self, permit: Permit, charge: NanoUSD) -> None:
        super().settle(permit, charge)
        self._watch(permit.subject)


class FakeDirectory:
    """Everyone is the account of the schedule."""

    lag_s = 0.0

    def __init__(self) -> None:
        self.principal: Principal | None = None

    def known(self, key_hash: bytes) -> Principal | None:
        return self.principal


class Cut:
    """An awaitable around a coroutine that counts its awaits, and calls `at_await` at number `stop`."""

    def __init__(self, inner: Awaitable[None], stop: int, at_await: Callable[[], None]) -> None:
        self.inner = inner
        self.stop = stop
        self.at_await = at_await
        self.count = 0

    def __await__(self) -> Generator[Any, Any, None]:
        steps = self.inner.__await__()
        thrown: BaseException | None = None
        while True:
            try:
                waits_for = steps.send(None) if thrown is None else cast(Any, steps).throw(thrown)
            except StopIteration:
                return
            self.count += 1
            if self.count == self.stop:
                self.at_await()
            thrown = None
            try:
                yield waits_for
            except BaseException as error:  # noqa: BLE001 - handed to the coroutine, whose it is
                thrown = error


class World:
    """What all schedules share: a gateway whose sockets, time and chance are ours, and a real journal in memory."""

    def __init__(self, folder: Path) -> None:
        self.clock = ManualClock()
        self.loop = VirtualLoop(self.clock)
        self.folder = folder
        self.settings = Settings(
            data=str(folder),
            upstreams={
                "deepseek": UpstreamSettings(base_url="http://upstream.example", keys=(Secret("a"), Secret("b")))
            },
        )
        self.engine = storage.open_engine(folder / "books.db")
        migrate.upgrade(self.engine)
        self.client = FakeClient()
        self.directory = FakeDirectory()
        self.outbox = Outbox()
        self.serial = 0
        asyncio.events._set_running_loop(self.loop)
        try:
            self.parts = self._parts()
        finally:
            asyncio.events._set_running_loop(None)

    def _parts(self) -> Parts:
        settings, clock = self.settings, self.clock
        catalog = catalog_of(packaged_toml())
        client = cast(Client, self.client)
        upstreams = Upstreams(client, clock, settings, self._chance)
        upstreams.adopt(catalog)
        book = Journal(settings.journal_path, self.outbox.first, clock)
        guard = WatchedGuard(clock, settings.timeouts.total_s + LEASE_BEYOND_TOTAL_S, lambda: 0.5)
        return Parts(
            settings=settings,
            clock=clock,
            catalog=catalog,
            directory=cast(Directory, self.directory),
            guard=guard,
            journal=book,
            upstreams=upstreams,
            deadlines=Deadlines(),
            progress=ProgressNotes(book, settings.journal.progress_interval_s),
            counter=TokenCounter(0),
            idempotency=Idempotency(self.engine, clock, settings.idempotency, lambda: 0.0),
            visitors=Visitors(settings.data_path / "demo-visitors", bytes),
        )

    def _chance(self) -> float:
        """That of the schedule which is played."""
        return self.client.chance.random()

    @property
    def guard(self) -> WatchedGuard:
        return cast(WatchedGuard, self.parts.guard)

    def journal_end(self) -> int:
        return self.parts.journal._size

    def journaled(self, start: int, end: int) -> list[Any]:
        """The records between two places of the live file."""
        book = self.parts.journal
        path = book._directory / f"{book._worker}-{book._number:012d}.journal"
        with path.open("rb") as file:
            data = os.pread(file.fileno(), end - start, start)
        parsed = journal.parse(data)
        assert parsed.end == len(data), "what is in the journal can be read"
        return parsed.records

    def book(self) -> None:
        """Book all that is journaled, audit, and begin a new file."""
        self.parts.journal._rotate()
        bookkeeper.catch_up(self.engine, self.settings.journal_path)
        with storage.reading(self.engine) as connection:
            breaks = audit.Audit().check(connection)
            below = audit.overdrawn(connection)
        assert breaks == [], breaks
        assert below == {}, below


def chunk(text: str) -> bytes:
    said = {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}]}
    return b"data: " + json.dumps(said).encode() + b"\n\n"


def usage(prompt: int, completion: int) -> dict[str, int]:
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def make_answer(chance: random.Random) -> Answer:
    """One upstream behaviour by chance, most of them bad."""
    words = chance.randint(1, 6)
    text = "word " * words
    kind = chance.choice(["whole", "whole", "whole", "status", "refused", "cut", "no usage", "error inside"])
    counts = usage(chance.randint(1, 40), words)
    if kind == "refused":
        return Answer(0, b"", refuses=True)
    if kind == "status":
        error = {"error": {"message": "no", "type": "x", "code": "x"}}
        return Answer(chance.choice([400, 429, 500, 503]), json.dumps(error).encode())
    if kind == "error inside":
        error_event = b'data: {"error": {"message": "overloaded", "code": "x"}}\n\n'
        begun = [chunk("word ")] * chance.randint(0, 2)
        return Answer(200, b'{"error": {"message": "overloaded", "code": "x"}}', [*begun, error_event], reports=True)
    told = {} if kind == "no usage" else {"usage": counts}
    end = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], **told}
    chunks = [chunk("word ") for _ in range(words)]
    chunks += [b"data: " + json.dumps(end).encode() + b"\n\n", b"data: [DONE]\n\n"]
    message = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    body = json.dumps({"choices": [message], **told}).encode()
    cut = chance.randint(0, len(chunks) - 2) if kind == "cut" else None
    return Answer(200, body, chunks, cut)


@dataclass
class Request:
    streamed: bool
    exchange: FakeExchange
    call: Call
    sent_at_death: bytes = b""


class Schedule:
    """One run of a scenario. `stop` is the await of the first request at which it is cut off; 0: at none."""

    def __init__(self, world: World, seed: int, stop: int) -> None:
        self.world = world
        self.chance = chance = random.Random(seed)
        self.interrupts = chance.random() < 0.3
        self.dies_at = 0
        self.start = world.journal_end()
        self.end_at_death = self.start
        self.called_at_death = 0
        self.stop = stop
        self.account = Account(
            id=f"acct_{world.serial}",
            tier="enterprise",
            rpm=0,
            rpd=0,
            concurrency=chance.choice([0, 2]),
            suspended=False,
            granted_nanousd=chance.choice([0, 60_000, 100_000, 10_000_000]),
            charged_nanousd=0,
        )
        world.directory.principal = Principal("key_1", self.account, 0)
        world.client.chance = chance
        world.client.answers = lambda _: make_answer(chance)
        world.client.sent = world.client.owed = 0
        world.guard.admitted.clear()
        self.rescues = random.Random(seed + 2)
        self.requests = [self._request() for _ in range(chance.randint(1, 3))]
        self.cut: Cut | None = None
        self.dies_at = world.loop.steps + chance.randint(1, 40)
        jumps = random.Random(seed + 1)
        self.clock_jumps_at = world.loop.steps + jumps.randint(1, 40)
        self.clock_jump_s = jumps.choice([0, 0, 3600, -3600, 86_400, -86_400, 400 * 86_400, -400 * 86_400])

    def _request(self) -> Request:
        world, chance = self.world, self.chance
        streamed = chance.random() < 0.6
        body: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "x" * chance.randint(1, 60)}]}
        if streamed:
            body["stream"] = True
        if chance.random() < 0.7:
            body["max_tokens"] = chance.choice([16, 20, 64])
        headers = {b"content-type": b"application/json", b"authorization": b"Bearer any"}
        if rescue := self.rescues.choice([b"", b"", b"continue", b"buffer"]):
            headers[b"x-vipcloud-rescue"] = rescue
        exchange = FakeExchange(
            world.outbox,
            json.dumps(body).encode(),
            headers,
            world.clock.monotonic_s(),
        )
        world.serial += 1
        serial = f"{world.serial:022x}"
        return Request(streamed, exchange, Call(cast(Any, exchange), serial, HEAD + serial.encode() + b"\r\n"))

    def run(self) -> int:
        """Play it; how many awaits the first request had."""
        self.world.loop.on_step = self._step
        self.world.loop.run_until_complete(self._main())
        assert self.cut is not None
        return self.cut.count

    def _step(self) -> None:
        if self.world.loop.steps == self.dies_at:
            self.end_at_death = self.world.journal_end()
            self.called_at_death = self.world.client.sent
            for request in self.requests:
                request.sent_at_death = request.exchange.line.arrived
        if self.world.loop.steps == self.clock_jumps_at:
            self.world.clock._wall_s += self.clock_jump_s

    async def _main(self) -> None:
        loop = asyncio.get_running_loop()
        tasks: list[asyncio.Task[None]] = []
        for number, request in enumerate(self.requests):
            tasks.append(loop.create_task(self._serve(request, number)))
            await asyncio.sleep(self.chance.choice(DELAYS_S))
        await asyncio.wait(tasks)
        for task in tasks:
            if not task.cancelled() and (error := task.exception()) is not None:
                raise error
        await asyncio.sleep(0)  # what the journal has for this turn

    async def _serve(self, request: Request, number: int) -> None:
        """As `App.handle` and the server do."""
        exchange = request.exchange
        served = pipeline.chat(request.call, self.world.parts)
        task = asyncio.current_task()
        assert task is not None

        def cut_off() -> None:
            if not exchange.finished:
                exchange.interrupted, exchange.gone = self.interrupts, not self.interrupts
                asyncio.get_running_loop().call_soon(task.cancel)

        cut = Cut(served, self.stop if number == 0 else 0, cut_off)
        if number == 0:
            self.cut = cut
        try:
            await cut
        except GatewayError as error:
            exchange.respond(error.status, b"", error.body())
        except asyncio.CancelledError:
            assert exchange.gone or exchange.interrupted, "nobody cancelled it"

    # --- what must hold

    def check(self) -> None:
        """Every admitted request is settled once, within its hold, for what it delivered; no hold is left over."""
        world = self.world
        records = world.journaled(self.start, world.journal_end())
        settled = [record for record in records if type(record) is Settled]
        by_id = {record.request_id: record for record in settled}
        assert len(by_id) == len(settled), "a request is settled once"
        assert by_id.keys() == world.guard.admitted.keys(), "what was admitted is settled, and nothing else"
        money = world.guard._purses.get(self.account.id)
        if money is not None:
            assert money.held_nanousd == 0, "a hold is left over"
            assert money.charged_nanousd == sum(record.charge_nanousd for record in settled), "guard and journal differ"
        assert sum(record.charge_nanousd for record in settled) <= self.account.granted_nanousd
        meter = world.guard._meters.get(self.account.id)
        assert meter is None or not meter.leases, "a place is left over"
        assert not world.parts.progress._open, "a stream is still noted"
        self._check_losses(settled, [record for record in records if type(record) is Aborted])
        for request in self.requests:
            if (record := by_id.get(request.call.completion_id)) is not None:
                self._check_one(request, record)

    def _check_losses(self, settled: list[Settled], lost: list[Aborted]) -> None:
        """What an upstream bills is the cost of a usage row or a loss, and neither twice."""
        assert len({(record.request_id, record.number) for record in lost}) == len(lost), "a call is lost once"
        known = len(lost) + sum(record.cost_nanousd > 0 for record in settled)
        client = self.world.client
        assert client.owed <= known <= client.sent, f"the cost of {known} calls is known, of {client.owed} it is owed"

    def _check_one(self, request: Request, record: Settled) -> None:
        exchange = request.exchange
        held = record.held_nanousd
        assert held is not None
        assert 0 <= record.charge_nanousd <= held, "a charge is above its hold"
        assert record.variance_nanousd <= record.cost_nanousd
        price = (record.prompt_tokens * PRICE_IN + record.completion_tokens * PRICE_OUT) // 1
        assert record.charge_nanousd == min(held, price), "a charge is not tokens times price"
        content = delivered(exchange.sent)
        if record.outcome == "complete":
            assert exchange.finished or exchange.gone, "what was answered whole was sent"
            if not exchange.gone:
                told = cost_told(exchange.sent)
                assert told == record.charge_nanousd, "the answer tells another charge"
        elif content == 0:
            assert record.charge_nanousd == 0, (
                f"{record.outcome}: nothing was delivered, {record.charge_nanousd} charged"
            )
        else:
            assert record.charge_nanousd > 0 or held == 0, f"{record.outcome}: content was given away"

    def check_death(self) -> None:
        """The journal as it was at some step, settled as the next start does it."""
        records = self.world.journaled(self.start, self.end_at_death)
        final = settle_after_death(records)
        settled = {record.request_id: record for record in records if type(record) is Settled}
        assert len(final) == len({record.request_id for record in final}), "a request is settled once"
        for record in final:
            if record.request_id in settled:
                assert record == settled[record.request_id], "what was settled stands"
        assert sum(record.charge_nanousd for record in final) <= self.account.granted_nanousd, "a customer is overdrawn"
        known = sum(type(record) is Aborted for record in records) + sum(record.cost_nanousd > 0 for record in final)
        assert known <= self.called_at_death, f"the cost of {known} calls is known, {self.called_at_death} were sent"
        told = {record.request_id: record for record in final}
        for request in self.requests:
            row = told.get(request.call.completion_id)
            if delivered(request.sent_at_death):
                assert row is not None, "content was delivered of which the journal knows nothing"
            elif row is not None and row.outcome == rules.CRASHED:
                assert row.charge_nanousd == 0, "nothing was delivered"
            if row is not None and row.outcome == rules.CRASHED:
                words = delivered(request.sent_at_death)
                # Counted here: a quarter token a character, five characters a word, rounded up.
                assert row.completion_tokens <= -(-5 * words // 4), "more is charged than was delivered"


def settle_after_death(records: list[Any]) -> list[Settled]:
    """Every request of a dead process, as the books will have it."""
    opened: dict[str, Opened] = {}
    points: dict[str, Reached] = {}
    settled: list[Settled] = []
    for record in records:
        if type(record) is Opened:
            opened[record.request_id] = record
        elif type(record) is Progress:
            points.update({point.request_id: point for point in record.reached})
        elif type(record) is Settled:
            settled.append(record)
            opened.pop(record.request_id, None)
    return settled + [rules.orphaned(record, points.get(name)) for name, record in opened.items()]


def delivered(sent: bytes) -> int:
    """How many words of content a client was sent."""
    return sent.count(b"word ")


def cost_told(sent: bytes) -> int | None:
    """The charge that the answer tells, in nano-dollars."""
    at = sent.rfind(b'"cost":')
    if at < 0:
        return None
    number = sent[at + 7 :].split(b",", 1)[0]
    return int(Fraction(number.decode()) * 1_000_000_000)


def play(schedules: int, seed: int, told: Callable[[int], object] = bool) -> dict[str, int]:
    """Play so many schedules, or a few more: a scenario is played to its end. AssertionError names the schedule."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    counts = {"schedules": 0, "scenarios": 0, "requests": 0, "booked": 0}
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        world = World(Path(folder))
        try:
            for scenario in scenarios(seed):
                stop, awaits = 0, 0
                while stop <= awaits:
                    schedule = Schedule(world, scenario, stop)
                    try:
                        count = schedule.run()
                        awaits = count if stop == 0 else awaits
                        schedule.check()
                        schedule.check_death()
                    except AssertionError as error:
                        raise AssertionError(f"scenario {scenario}, cut off at await {stop}: {error}") from error
                    counts["schedules"] += 1
                    counts["requests"] += len(schedule.requests)
                    stop += 1
                    if counts["schedules"] % BOOKED_EVERY == 0:
                        grant_everyone(world)
                        world.book()
                        counts["booked"] = counts["schedules"]
                        told(counts["schedules"])
                counts["scenarios"] += 1
                if counts["schedules"] >= schedules:
                    break
            grant_everyone(world)
            world.book()
            counts["booked"] = counts["schedules"]
        finally:
            world.parts.journal.close()
            world.parts.counter.close()
            world.engine.dispose()
            world.loop.close()
    return counts


def scenarios(seed: int) -> Iterator[int]:
    number = seed * 1_000_000
    while True:
        yield number
        number += 1


def grant_everyone(world: World) -> None:
    """Credit in the books for the accounts that are about to be charged there; the guard had it all along."""
    with storage.writing(world.engine) as connection:
        names = {
            record.account_id
            for record in world.journaled(0, world.journal_end())
            if type(record) is Settled and record.charge_nanousd
        }
        for name in sorted(names):
            store.grant(connection, f"simulation/{name}", name, NanoUSD(10_000_000), 0.0)


def main() -> None:
    parser = argparse.ArgumentParser(description="Simulate cancellations and deaths.")
    parser.add_argument("--schedules", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    began = time.monotonic()

    def told(done: int) -> None:
        if done % 10_000 == 0:
            print(f"  {done:,} schedules, {time.monotonic() - began:.0f} s", flush=True)

    counts = play(given.schedules, given.seed, told)
    print(
        f"simulation: {counts['schedules']:,} schedules of {counts['scenarios']:,} scenarios, "
        f"{counts['requests']:,} requests, seed {given.seed}, {time.monotonic() - began:.0f} s\n"
        "  every admitted request settled once, no hold left over, no customer overdrawn, every death settled for at "
        "most what was delivered, whatever the wall clock did"
    )


if __name__ == "__main__":
    main()

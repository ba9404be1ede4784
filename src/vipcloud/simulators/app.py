"""A simulated provider as an HTTP handler: plays the steps, keeps the log, takes faults for coming requests.

    POST   /_sim/faults   {"faults": ["status:500", "none", "cut:2"]}, or one fault a line; each is used once
    POST   /_sim/faults   {"always": "status:500"} for every request, until it is "none"
    GET    /_sim/faults   those still waiting        DELETE /_sim/faults   forget them
    GET    /_sim/log      the requests as received   DELETE /_sim/log      forget them
    GET    /_sim          what faults and directives there are

Prompts are kept in memory for the log, as that is what it is for; nothing is written anywhere.
"""

import asyncio
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from vipcloud.clock import Clock, SystemClock
from vipcloud.http.headers import header_block
from vipcloud.http.server import Exchange, Handler, HTTPServer
from vipcloud.settings import ServerSettings
from vipcloud.simulators import answers, faults, script, vendor
from vipcloud.simulators.dashscope import DashScope
from vipcloud.simulators.deepseek import DeepSeek
from vipcloud.simulators.minimax import MiniMax
from vipcloud.simulators.moonshot import Moonshot
from vipcloud.simulators.script import NOT_JSON, Call, End, Fault, Head, Reply, SimulatorOptions, Vendor, Wait, Write
from vipcloud.simulators.zhipu import Zhipu

VENDORS: Mapping[str, Callable[[SimulatorOptions], Vendor]] = {
    "dashscope": DashScope,
    "deepseek": DeepSeek,
    "minimax": MiniMax,
    "moonshot": Moonshot,
    "zhipu": Zhipu,
}
PROVIDERS = tuple(VENDORS)

JSON_HEADERS = (("content-type", "application/json"),)
WRITES_PER_TURN_MAX = 64  # a stream without pace gives way to others after so many events
DIRECTIVES = (answers.__doc__ or "").partition("They are\n\n")[2].splitlines()
QUEUED_FAULTS_MAX = 10_000
SEEN_MESSAGES_MAX = 10_000


def handler(provider: str, options: SimulatorOptions | None = None, clock: Clock | None = None) -> Handler:
    """Raises KeyError for an unknown provider."""
    return Simulator(provider, options or SimulatorOptions(), clock or SystemClock()).handle


async def start(
    provider: str, host: str, port: int, options: SimulatorOptions | None = None, clock: Clock | None = None
) -> tuple[HTTPServer, int]:
    """A listening simulator and its port. Close the server when done. Raises OSError, KeyError."""
    server = HTTPServer(handler(provider, options, clock), ServerSettings())
    return server, await server.start(host, port)


@dataclass(slots=True)
class LogEntry:
    """One request. `outcome` is running, finished, aborted (a fault cut it) or cancelled (the client left)."""

    number: int
    method: str
    target: bytes
    headers: Mapping[bytes, bytes]
    body: bytes
    faults: tuple[Fault, ...]
    started_s: float  # monotonic
    ended_s: float | None = None
    status: int | None = None
    events: int = 0
    outcome: str = "running"

    def document(self) -> dict[str, Any]:
        decoded = script.decode(self.body)
        target = self.target.decode("latin-1")
        return {
            "number": self.number,
            "method": self.method,
            "path": target.partition("?")[0],
            "target": target,
            "headers": {name.decode("latin-1"): value.decode("latin-1") for name, value in self.headers.items()},
            "body": None if decoded is NOT_JSON else decoded,
            "body_text": self.body.decode("utf-8", "replace"),
            "faults": [":".join((fault.name, *fault.args)) for fault in self.faults],
            "status": self.status,
            "events": self.events,
            "outcome": self.outcome,
            "started_s": self.started_s,
            "ended_s": self.ended_s,
        }


class Simulator:
    """One provider with its log and its queue of faults."""

    def __init__(self, provider: str, options: SimulatorOptions, clock: Clock) -> None:
        self.vendor: Vendor = VENDORS[provider](options)
        self._options = options
        self._clock = clock
        self._always: tuple[Fault, ...] = ()
        self._queue: deque[str] = deque(maxlen=QUEUED_FAULTS_MAX)
        self._log: deque[LogEntry] = deque()
        self._log_bytes = 0
        self._number = 0
        self._seen: OrderedDict[int, int] = OrderedDict()

    async def handle(self, exchange: Exchange) -> None:
        body = await exchange.body()
        if exchange.path.startswith("/_sim"):
            self._control(exchange, body)
            return
        document = script.decode(body) if body else NOT_JSON
        try:
            asked = self._faults(exchange, body, document)
        except faults.UnknownFault as problem:
            refuse(exchange, str(problem))
            return
        entry = self._enter(exchange, body, asked)
        call = Call(
            method=exchange.method,
            path=exchange.path,
            query=exchange.target.partition(b"?")[2].decode("latin-1"),
            headers=exchange.headers,
            body=body,
            document=document,
            wall_s=self._clock.wall_s(),
            faults=asked,
        )
        if call.fault("close"):
            exchange.keep_alive = False
        await self._serve(exchange, self.vendor.answer(call), asked, entry)

    async def _serve(self, exchange: Exchange, reply: Reply, asked: tuple[Fault, ...], entry: LogEntry) -> None:
        inflight: Counter[str] = self.vendor.shared.inflight
        if reply.slot is not None:
            inflight[reply.slot] += 1
        try:
            event = self.vendor.error_event if reply.error_event is None else reply.error_event
            steps = faults.apply(asked, iter(reply.steps), event)
            entry.outcome = await play(exchange, steps, entry)
        except asyncio.CancelledError:
            entry.outcome = "cancelled" if entry.outcome == "running" else entry.outcome
            raise
        finally:
            entry.ended_s = self._clock.monotonic_s()
            if reply.slot is not None:
                inflight[reply.slot] -= 1
                if not inflight[reply.slot]:
                    del inflight[reply.slot]

    def _faults(self, exchange: Exchange, body: bytes, document: Any) -> tuple[Fault, ...]:
        """What header, message and queue ask for. Raises UnknownFault."""
        asked = faults.parse(exchange.headers.get(b"x-sim-fault", b"").decode("latin-1"))
        if b"[[" in body and (text := vendor.message_directives(document).get("fault")):
            asked += self._first(faults.parse(text), body)
        if self._queue and exchange.method == "POST":
            asked += faults.parse(self._queue.popleft())
        return asked + self._always if exchange.method == "POST" else asked

    def _first(self, asked: tuple[Fault, ...], body: bytes) -> tuple[Fault, ...]:
        """Leaves out the faults of a message that has been answered with them `first:N` times."""
        limit = next((fault for fault in asked if fault.name == "first"), None)
        if limit is None:
            return asked
        mark = hash(answers.last_user_text(script.decode(body)["messages"]))
        seen = self._seen[mark] = self._seen.get(mark, 0) + 1
        if len(self._seen) > SEEN_MESSAGES_MAX:
            self._seen.popitem(last=False)
        return asked if seen <= limit.number(0) else ()

    # --- the log

    def _enter(self, exchange: Exchange, body: bytes, asked: tuple[Fault, ...]) -> LogEntry:
        self._number += 1
        entry = LogEntry(
            number=self._number,
            method=exchange.method,
            target=exchange.target,
            headers=exchange.headers,
            body=body,
            faults=asked,
            started_s=self._clock.monotonic_s(),
        )
        self._log.append(entry)
        self._log_bytes += len(body)
        options = self._options
        while self._log and (len(self._log) > options.log_requests_max or self._log_bytes > options.log_bytes_max):
            self._log_bytes -= len(self._log.popleft().body)
        return entry

    # --- control

    def _control(self, exchange: Exchange, body: bytes) -> None:
        match exchange.method, exchange.path:
            case "GET", "/_sim":
                answer_json(exchange, described())
            case "GET", "/_sim/log":
                answer_json(exchange, [entry.document() for entry in self._log])
            case "DELETE", "/_sim/log":
                self._log.clear()
                self._log_bytes = 0
                answer_json(exchange, [])
            case "GET", "/_sim/faults":
                answer_json(exchange, list(self._queue))
            case "DELETE", "/_sim/faults":
                self._queue.clear()
                answer_json(exchange, [])
            case "POST", "/_sim/faults":
                self._enqueue(exchange, body)
            case _:
                refuse(exchange, "There are GET /_sim, and GET, DELETE (and POST) on /_sim/faults and /_sim/log.")

    def _enqueue(self, exchange: Exchange, body: bytes) -> None:
        try:
            always = script.decode(body)
            if isinstance(always, dict) and isinstance(text := always.get("always"), str):
                self._always = faults.parse(text)
                answer_json(exchange, [text])
                return
            wanted = queued_faults(body)
            for text in wanted:
                faults.parse(text)
        except faults.UnknownFault as problem:
            refuse(exchange, str(problem))
            return
        self._queue.extend(wanted)
        answer_json(exchange, list(self._queue))


def queued_faults(body: bytes) -> list[str]:
    """The faults of a control request: JSON (an object, a list or a string) or lines. Raises UnknownFault."""
    document = script.decode(body)
    if document is NOT_JSON:
        return [line.strip() for line in body.decode("utf-8", "replace").splitlines() if line.strip()]
    wanted = document.get("faults", document.get("fault")) if isinstance(document, dict) else document
    wanted = [wanted] if isinstance(wanted, str) else wanted
    if not isinstance(wanted, list) or not all(isinstance(one, str) for one in wanted):
        raise faults.UnknownFault('Send {"faults": ["status:500", "none"]} or one fault a line.')
    return wanted


def described() -> dict[str, Any]:
    listed = {name: {"defaults": list(spec.defaults), "does": spec.help} for name, spec in faults.CATALOGUE.items()}
    return {"faults": listed, "directives": [line.strip() for line in DIRECTIVES]}


def answer_json(exchange: Exchange, value: Any) -> None:
    exchange.respond(200, header_block(JSON_HEADERS), script.encode(value) + b"\n")


def refuse(exchange: Exchange, problem: str) -> None:
    """An error of the simulator's own, which no provider would send."""
    exchange.respond(400, header_block(JSON_HEADERS), script.encode({"sim_error": problem}) + b"\n")


async def play(exchange: Exchange, steps: faults.Steps, entry: LogEntry) -> str:
    """Play the steps to their end; how it ended. A write's delay counts from the last one's due time, so that the pace
    of a stream holds on average however late single timers fire."""
    loop = asyncio.get_running_loop()
    due_s = loop.time()
    turn = 0
    for step in steps:
        if type(step) is Write:
            if step.after_s:
                turn = 0
                now_s = loop.time()
                due_s = max(due_s + step.after_s, now_s)
                await asyncio.sleep(due_s - now_s)
            else:
                turn += 1
                if turn >= WRITES_PER_TURN_MAX:
                    turn = 0
                    await asyncio.sleep(0)
            if step.kind != "comment":
                entry.events += 1
            exchange.write(step.data)
            await exchange.drain()
        elif isinstance(step, Head):
            entry.status = step.status
            exchange.start(step.status, header_block(step.headers))
        elif isinstance(step, Wait):
            await asyncio.sleep(step.seconds)
            due_s = loop.time()
        elif step is End.FINISH:
            exchange.finish()
        elif step is End.ABORT:
            entry.outcome = "aborted"
            exchange.abort()
            return "aborted"
        elif isinstance(step, script.Whole):
            entry.status = step.status
            exchange.respond(step.status, header_block(step.headers), step.body)
    return "finished"

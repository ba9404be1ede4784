"""A house to test in: simulated upstreams and the gateway in one event loop, spoken to over loopback.

`House` starts what `vipcloud serve` starts, by the same assembly (`cli.serve.gateway`), but for the bookkeeper: the
journal is booked when a test asks for the books.
"""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, TypeVar

import msgspec

from vipcloud.accounts import store
from vipcloud.cli import context
from vipcloud.cli.serve import Gateway, gateway
from vipcloud.clock import Clock, SystemClock
from vipcloud.http.server import HTTPServer
from vipcloud.ledger import bookkeeper, journal
from vipcloud.ledger import store as ledger
from vipcloud.ledger.records import Aborted, Settled
from vipcloud.limits.guard import Guard
from vipcloud.limits.local import LocalGuard
from vipcloud.limits.valkey import ValkeyGuard
from vipcloud.money import NanoUSD
from vipcloud.providers.models import Candidate
from vipcloud.settings import Secret, Settings, UpstreamAccountSettings, UpstreamSettings
from vipcloud.simulators import app as simulators
from vipcloud.storage import engine as storage
from wire import Answer, Wire, dial

KEYS = {
    "deepseek": ("sk-ours",),
    "zhipu": ("ours.secret",),
    "moonshot": ("sk-ours",),
    "dashscope": (),  # the second pool of DeepSeek's models: most tests want one route
    "minimax": ("sk-ours",),
}
WAIT_S = 5.0

T = TypeVar("T")

# What the price list says, in dollars per 1M tokens: the tests' own copy.
PRICES = {
    "deepseek-chat": ("0.31", "1.27"),
    "deepseek-v3.2": ("0.31", "1.27"),
    "deepseek-reasoner": ("0.63", "2.53"),
    "glm-4-flash": ("0", "0"),
    "glm-4-air": ("0.16", "0.16"),
    "glm-4-plus": ("8.05", "8.05"),
    "glm-4": ("0.805", "0.805"),
}


def charge(model: str, prompt_tokens: int, completion_tokens: int) -> int:
    """The oracle: nano-dollars for a call, in exact fractions, rounded once, down."""
    price_in, price_out = (Fraction(price) / 1_000_000 for price in PRICES[model])
    return int((prompt_tokens * price_in + completion_tokens * price_out) * 1_000_000_000 // 1)


def upstream_cost(
    candidate: Candidate, at_s: float, prompt_tokens: int, cached_tokens: int, completion_tokens: int
) -> int:
    """The same for what we pay, from a catalogue row in pico-dollars per token."""
    rates = candidate.costs.at(at_s).rates(prompt_tokens, completion_tokens)
    picos = (
        (prompt_tokens - cached_tokens) * rates.input
        + cached_tokens * rates.cached_input
        + completion_tokens * rates.output
    )
    return int(Fraction(picos, 1000) // 1)


async def eventually(true: Callable[[], Any], within_s: float = WAIT_S) -> Any:
    """Wait until `true()` is, and return it."""
    deadline = time.monotonic() + within_s
    while not (found := true()):
        assert time.monotonic() < deadline, "it never came true"
        await asyncio.sleep(0.005)
    return found


async def comes_true(ask: Callable[[], Awaitable[T]], true: Callable[[T], bool]) -> T:
    """Ask until the answer is `true`, and return it."""
    deadline = time.monotonic() + WAIT_S
    while not true(answer := await ask()):
        assert time.monotonic() < deadline, answer
        await asyncio.sleep(0.005)
    return answer


@dataclass(frozen=True)
class Reply:
    """An answer of the gateway. `request_id` is the one in the books."""

    status: int
    headers: dict[str, str]
    body: bytes

    @classmethod
    def of(cls, answer: Answer) -> "Reply":
        return cls(answer.status, answer.headers, answer.body)

    @property
    def request_id(self) -> str:
        return booked_id(self.headers)

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        """The error of the envelope, which holds it in full and nothing else."""
        envelope = self.json
        assert list(envelope) == ["error"], envelope
        assert sorted(envelope["error"]) == ["code", "message", "param", "type"], envelope
        return envelope["error"]

    @property
    def data(self) -> list[str]:
        """The data of each event of a stream, `[DONE]` included; comments left out."""
        blocks = self.body.decode().split("\n\n")
        assert blocks.pop() == "", "a stream ends after an event"
        for block in blocks:
            assert block.startswith(("data: ", ": ")), block
            assert "\n" not in block, block
        return [block.removeprefix("data: ") for block in blocks if block.startswith("data: ")]

    @property
    def chunks(self) -> list[Any]:
        return [json.loads(data) for data in self.data if data != "[DONE]" and '"error"' not in data[:10]]

    @property
    def stream_error(self) -> dict[str, Any] | None:
        """The error that ended the stream, if one did: its last event, and no `[DONE]` in all of it."""
        if not self.data[-1].startswith('{"error"'):
            return None
        assert "[DONE]" not in self.data
        return json.loads(self.data[-1])["error"]

    @property
    def done(self) -> bool:
        return self.data[-1:] == ["[DONE]"] and self.data.count("[DONE]") == 1

    @property
    def text(self) -> str:
        """What was said, streamed or not."""
        if self.headers["content-type"].startswith("text/event-stream"):
            deltas = [choice["delta"] for chunk in self.chunks for choice in chunk["choices"]]
            return "".join(delta.get("content") or "" for delta in deltas)
        return self.json["choices"][0]["message"]["content"] or ""

    @property
    def usage(self) -> Any:
        """The usage that the caller was told."""
        if self.headers["content-type"].startswith("text/event-stream"):
            return next((chunk["usage"] for chunk in reversed(self.chunks) if chunk.get("usage")), None)
        return self.json["usage"]


def booked_id(headers: dict[str, str]) -> str:
    return f"chatcmpl-{headers['x-request-id'].removeprefix('req_')}"


@dataclass
class Live:
    """An answer that is still coming in."""

    wire: Wire
    status: int
    headers: dict[str, str]
    body: bytes = b""
    ended: bool = False

    @property
    def request_id(self) -> str:
        return booked_id(self.headers)

    async def part(self) -> bytes:
        """The next chunk of the body; empty at its end."""
        size = int((await self.wire.reader.readuntil(b"\r\n"))[:-2], 16)
        data = await self.wire.reader.readexactly(size + 2)
        self.ended = size == 0
        self.body += data[:-2]
        return data[:-2]

    async def until(self, events: int) -> bytes:
        """The body as soon as it holds so many events of data."""
        while self.body.count(b"data: ") < events:
            assert await self.part(), f"it ended early: {self.body!r}"
        return self.body

    async def rest(self) -> Reply:
        while not self.ended:
            await self.part()
        return Reply(self.status, self.headers, self.body)


@dataclass(frozen=True)
class Upstream:
    """A simulated provider, spoken to as an operator would."""

    server: HTTPServer
    port: int

    async def _ask(self, method: str, path: str, body: bytes = b"") -> Any:
        async with dial(self.port) as wire:
            wire.send(request(method, path, body, {}))
            answer = await wire.answer()
        assert answer.status == 200, answer.body
        return json.loads(answer.body)

    async def log(self) -> list[dict[str, Any]]:
        """The calls that it got, oldest first."""
        return [entry for entry in await self._ask("GET", "/_sim/log") if entry["method"] == "POST"]

    async def fails(self, *faults: str) -> None:
        """The coming calls fail so, one after the other."""
        await self._ask("POST", "/_sim/faults", json.dumps({"faults": faults}).encode())

    async def always(self, fault: str) -> None:
        """Every call fails so, until it is `none`."""
        await self._ask("POST", "/_sim/faults", json.dumps({"always": fault}).encode())

    async def ended(self, calls: int = 1) -> list[dict[str, Any]]:
        """The log, as soon as it has so many calls and all of them are over."""
        return await comes_true(
            self.log, lambda log: len(log) >= calls and all(entry["outcome"] != "running" for entry in log)
        )

    async def called(self, calls: int = 1) -> None:
        """Wait until so many calls have come in."""
        await comes_true(self.log, lambda log: len(log) >= calls)


def request(method: str, path: str, body: bytes, headers: dict[str, str]) -> bytes:
    lines = [f"{method} {path} HTTP/1.1"]
    if body or method == "POST":
        lines.append(f"Content-Length: {len(body)}")
    lines += [f"{name}: {value}" for name, value in {"Host": "gateway.example", **headers}.items()]
    return "".join(f"{line}\r\n" for line in (*lines, "")).encode("latin-1") + body


@dataclass
class House:
    """All of it. `key` belongs to `account_id`; `logs` are the events logged so far."""

    gateway: Gateway
    engine: Any
    upstreams: dict[str, Upstream]
    port: int
    key: str
    account_id: str
    logs: list[dict[str, Any]] = field(default_factory=list)
    reload: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def upstream(self) -> Upstream:
        """DeepSeek's."""
        return self.upstreams["deepseek"]

    # --- asking

    def body(self, text: str, model: str, fields: dict[str, Any]) -> bytes:
        asked = {"model": model, "messages": [{"role": "user", "content": text}], **fields}
        return json.dumps({name: value for name, value in asked.items() if value is not ...}).encode()

    def head(self, **headers: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}", "Content-Type": "application/json", **headers}

    async def ask(self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None) -> Reply:
        """Any request, on a connection of its own; with our key unless `headers` are given."""
        async with dial(self.port) as wire:
            wire.send(request(method, path, body, self.head() if headers is None else headers))
            return Reply.of(await wire.answer(method))

    async def chat(self, text: str = "Hello", model: str = "deepseek-chat", **fields: Any) -> Reply:
        return await self.ask("POST", "/v1/chat/completions", self.body(text, model, fields))

    async def stream(self, text: str = "Hello", model: str = "deepseek-chat", **fields: Any) -> Reply:
        return await self.chat(text, model, stream=True, **fields)

    @asynccontextmanager
    async def sent(
        self, text: str = "Hello", model: str = "deepseek-chat", read_buffer_bytes: int = 0, **fields: Any
    ) -> AsyncIterator[Wire]:
        """A request on its way; nothing is read."""
        async with dial(self.port, read_buffer_bytes=read_buffer_bytes) as wire:
            body = self.body(text, model, fields)
            wire.send(request("POST", "/v1/chat/completions", body, self.head()))
            yield wire

    @asynccontextmanager
    async def live(self, text: str = "Hello", model: str = "deepseek-chat", **fields: Any) -> AsyncIterator[Live]:
        """A request whose answer has begun; a stream unless the fields say otherwise."""
        async with self.sent(text, model, **{"stream": True, **fields}) as wire:
            first, headers = await wire.head()
            yield Live(wire, int(first.split()[1]), headers)

    # --- the books

    def rows(self) -> list[Settled]:
        """Every usage row there is now, oldest first."""
        bookkeeper.book_once(self.engine, self.gateway.parts.settings.journal_path)
        with storage.reading(self.engine) as connection:
            return ledger.recent_usage(connection, rows_max=10_000)[::-1]

    def usage(self, request_id: str) -> Settled | None:
        return next((row for row in self.rows() if row.request_id == request_id), None)

    async def settled(self, count: int = 1) -> list[Settled]:
        """The usage rows, as soon as there are so many."""
        return await eventually(lambda: rows if len(rows := self.rows()) >= count else None)

    def credit(self) -> int:
        """Nano-dollars left, so far as booked."""
        self.rows()
        with storage.reading(self.engine) as connection:
            return ledger.balance(connection, self.account_id)

    def lost(self) -> list[Aborted]:
        """The calls noted as ours to pay, as the live journal has them; the figures know of the same."""
        parts = self.gateway.parts
        parts.journal.flush()
        (live,) = [file for file in journal.files(parts.settings.journal_path) if file.live]
        records = journal.parse(live.path.read_bytes()).records
        found = [record for record in records if isinstance(record, Aborted)]
        assert sum(waste.calls for waste in parts.figures.wasted.values()) == len(found)
        assert sum(waste.cost_nanousd for waste in parts.figures.wasted.values()) == sum(
            record.cost_nanousd for record in found
        )
        return found

    # --- changes an operator makes

    def new_key(self, *, credit: str = "5.00", account_id: str | None = None, **limits: Any) -> tuple[str, str]:
        """A key and its account's id; the account is a new one unless it is given."""
        with storage.writing(self.engine) as connection:
            return make_key(connection, credit=credit, account_id=account_id, **limits)

    @contextlib.contextmanager
    def using(self, key: str, account_id: str) -> Any:
        """Ask with another key for a while."""
        former = self.key, self.account_id
        self.key, self.account_id = key, account_id
        try:
            yield
        finally:
            self.key, self.account_id = former

    async def noticed(self) -> None:
        """Let the gateway read the changes made so far."""
        await self.gateway.parts.directory.poll_changes()

    # --- the end

    async def check(self) -> None:
        """What must hold once nothing runs any more."""
        parts = self.gateway.parts
        await eventually(lambda: not self.gateway.server.running and not self.gateway.server.leaving)
        rows = self.rows()
        with storage.reading(self.engine) as connection:
            assert ledger.differences(connection) == []
        await check_guard(parts.guard, rows)
        assert not any(account.running for account in parts.upstreams.accounts)
        assert len(parts.deadlines._members) == 0


async def check_guard(guard: Guard, rows: list[Settled]) -> None:
    """No lease and no hold is left over, and it has charged what the books say."""
    await guard.flushed()
    if isinstance(guard, LocalGuard):
        leases = [state.leases for state in guard._meters.values() if state.leases]
        purses = {name: (state.charged_nanousd, state.held_nanousd) for name, state in guard._purses.items()}
    else:
        assert isinstance(guard, ValkeyGuard)
        if not guard._client.connected:
            return
        leases = [*await guard._client.call("KEYS", "vc:l:*"), *await guard._client.call("KEYS", "vc:x:*")]
        purses = {}
        for key in await guard._client.call("KEYS", "vc:m:*"):
            money = await guard._client.call("HMGET", key, "charged", "held")
            purses[key.decode().removeprefix("vc:m:")] = int(money[0]), int(money[1] or 0)
    assert leases == [], "a lease is left over"
    for name, (charged, held) in purses.items():
        assert held == 0, "a hold is left over"
        assert charged == sum(row.charge_nanousd for row in rows if name in (row.account_id, row.key_id))


def make_key(connection: Any, *, credit: str, account_id: str | None = None, **limits: Any) -> tuple[str, str]:
    now_s = context.clock.wall_s()
    if account_id is None:
        email = f"a{len(store.list_accounts(connection))}@example.com"
        account_id = store.create_account(connection, email, now_s, context.random_bytes, **limits).id
        if amount := NanoUSD(int(Fraction(credit) * 1_000_000_000)):
            ledger.grant(connection, f"grant-{account_id}", account_id, amount, now_s)
    return store.create_key(connection, account_id, now_s, context.random_bytes).plaintext, account_id


def with_settings(settings: Settings, groups: dict[str, Any]) -> Settings:
    """`settings` with `{"timeouts": {"idle_s": 1}}` laid over them."""
    changed = {
        name: msgspec.structs.replace(getattr(settings, name), **fields) if isinstance(fields, dict) else fields
        for name, fields in groups.items()
    }
    return msgspec.structs.replace(settings, **changed)


@asynccontextmanager
async def opened(
    data: str,
    key: tuple[str, str],
    logs: list[dict[str, Any]],
    *,
    keys: dict[str, tuple[str, ...]] | None = None,
    auth: dict[str, str] | None = None,
    clock: Clock | None = None,
    housekeeping: bool = False,
    spare: bool | dict[str, Any] = False,
    **groups: Any,
) -> AsyncIterator[House]:
    """A house that runs. `keys` are ours at the providers; `groups` are settings.

    With `spare` there is a second account at DeepSeek, with an endpoint of its own: `upstreams["spare"]`; settings of
    the account may be given.
    """
    keys = {**KEYS, **(keys or {})}
    async with AsyncExitStack() as stack:
        upstreams = {}
        for provider in simulators.PROVIDERS:
            server, port = await simulators.start(provider, "127.0.0.1", 0)
            stack.push_async_callback(server.close, 0)
            upstreams[provider] = Upstream(server, port)
        configured = {
            provider: UpstreamSettings(
                base_url=f"http://127.0.0.1:{upstream.port}",
                keys=tuple(map(Secret, keys[provider])),
                auth=(auth or {}).get(provider, ""),
            )
            for provider, upstream in upstreams.items()
        }
        if spare:
            server, port = await simulators.start("deepseek", "127.0.0.1", 0)
            stack.push_async_callback(server.close, 0)
            upstreams["spare"] = Upstream(server, port)
            first = configured["deepseek"]
            accounts = (
                UpstreamAccountSettings(name="main", keys=first.keys, base_url=first.base_url),
                UpstreamAccountSettings(
                    name="spare",
                    keys=first.keys,
                    base_url=f"http://127.0.0.1:{port}",
                    **(spare if isinstance(spare, dict) else {}),
                ),
            )
            configured["deepseek"] = UpstreamSettings(accounts=accounts)
        quick = {"poll_interval_s": 0.02, "count_timeout_s": 0}  # loading a vocabulary takes longer than a test
        settings = with_settings(Settings(data=data, upstreams=configured), {"gateway": quick})
        settings = with_settings(settings, groups)
        engine = storage.open_engine(settings.store_url)
        stack.callback(engine.dispose)
        reload = asyncio.Event()
        built = stack.enter_context(
            gateway(settings, context.load_catalog(settings), engine, clock or SystemClock(), reload)
        )
        stack.push_async_callback(ended, asyncio.get_running_loop().create_task(built.parts.guard.run()))
        await built.parts.guard.ready()
        port = await built.server.start("127.0.0.1", 0)
        stack.push_async_callback(built.server.close, 0)
        if housekeeping:
            stack.push_async_callback(ended, asyncio.get_running_loop().create_task(built.housekeeping.run()))
        house = House(built, engine, upstreams, port, *key, logs, reload)
        yield house
        await built.server.close(0)
        await house.check()


async def ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])


def without(open_house: Callable[..., Any], *providers: str) -> Callable[..., Any]:
    """`open_house`, but without a key at some providers: their models have one route less."""

    async def start(data_suffix: str = "", **options: Any) -> House:
        keys = {**dict.fromkeys(providers, ()), **options.pop("keys", {})}
        return await open_house(data_suffix, keys=keys, **options)

    return start

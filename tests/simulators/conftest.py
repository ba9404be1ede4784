"""A simulated provider without a socket: one call in, the bytes it would send out."""

import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from asking import HOW, Client, Opener

from vipcloud.simulators import app, faults, script
from vipcloud.simulators.script import Call, End, Head, SimulatorOptions, Step, Vendor, Wait, Whole, Write

WALL_S = 1_794_700_000.0


@dataclass
class Played:
    """What went over the wire."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    steps: list[Step] = field(default_factory=list)
    waited_s: float = 0.0

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def data(self) -> list[str]:
        """The data of each event, `[DONE]` included."""
        blocks = self.body.decode().replace("\r\n", "\n").split("\n\n")
        return [block.removeprefix("data: ") for block in blocks if block.startswith("data: ")]

    @property
    def chunks(self) -> list[Any]:
        return [json.loads(data) for data in self.data if data != "[DONE]"]

    @property
    def deltas(self) -> list[Any]:
        return [chunk["choices"][0]["delta"] for chunk in self.chunks if chunk["choices"]]

    def deltas_with(self, name: str) -> list[Any]:
        return [delta for delta in self.deltas if name in delta]

    @property
    def text(self) -> str:
        return "".join(delta.get("content") or "" for delta in self.deltas)

    @property
    def ended(self) -> End | None:
        return self.steps[-1] if isinstance(self.steps[-1], End) else None


def play(steps: Any) -> Played:
    played = Played(steps=list(steps))
    for step in played.steps:
        match step:
            case Whole():
                played.status, played.headers, played.body = step.status, dict(step.headers), step.body
            case Head():
                played.status, played.headers = step.status, dict(step.headers)
            case Write():
                played.body += step.data
                played.waited_s += step.after_s
            case Wait():
                played.waited_s += step.seconds
    return played


class Bench:
    """One simulated provider with what it keeps between calls."""

    def __init__(self, provider: str, **options: Any) -> None:
        self.provider = provider
        self.vendor: Vendor = app.VENDORS[provider](SimulatorOptions(**{"keep_alive_every": 0, **options}))

    def call(
        self,
        body: Any = None,
        *,
        key: str | None = None,
        authorization: str | None = None,
        method: str = "POST",
        path: str | None = None,
        fault: str = "",
        language: str = "",
        more: dict[bytes, bytes] | None = None,
        query: str = "",
        wall_s: float = WALL_S,
    ) -> Played:
        raw = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        sent = f"Bearer {key or HOW[self.provider].key}" if authorization is None else authorization
        headers = {b"authorization": sent.encode(), b"accept-language": language.encode(), **(more or {})}
        asked = faults.parse(fault)
        call = Call(
            method=method,
            path=path or HOW[self.provider].path,
            headers={name: value for name, value in headers.items() if value},
            body=raw,
            document=script.decode(raw),
            wall_s=wall_s,
            faults=asked,
            query=query,
        )
        reply = self.vendor.answer(call)
        event = self.vendor.error_event if reply.error_event is None else reply.error_event
        return play(faults.apply(asked, iter(reply.steps), event))


@pytest.fixture
def bench() -> Callable[..., Bench]:
    return Bench


@pytest.fixture
async def simulator() -> AsyncIterator[Opener]:
    servers = []

    async def opened(provider: str, **options: Any) -> Client:
        settings = SimulatorOptions(**{"keep_alive_every": 0, **options})
        server, port = await app.start(provider, "127.0.0.1", 0, settings)
        servers.append(server)
        return Client(provider, port)

    yield opened
    for server in servers:
        await server.close(0)

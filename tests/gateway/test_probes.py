"""What an operator is told of an account: against simulators, with keys and faults of every kind."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest

from candidates import varied
from vipcloud.clock import SystemClock
from vipcloud.gateway import probes
from vipcloud.gateway.probes import Finding, Target
from vipcloud.http.client import Client
from vipcloud.providers.catalog import catalog_of, packaged_toml
from vipcloud.settings import ClientSettings, Secret
from vipcloud.simulators import app as simulators
from vipcloud.simulators.script import SimulatorOptions

CATALOG = catalog_of(packaged_toml())
CANDIDATES = {
    "deepseek": CATALOG.models["deepseek-chat"].candidates[0],
    "zhipu": CATALOG.models["glm-4-air"].candidates[0],
    "moonshot": CATALOG.models["kimi-k2"].candidates[0],
    "dashscope": CATALOG.models["qwen3-max"].candidates[0],
    "minimax": CATALOG.models["minimax-text-01"].candidates[0],
}
SK_KEY = "sk-acme-0123456789abcdef"
GOOD = {**dict.fromkeys(CANDIDATES, SK_KEY), "zhipu": "acme0123456789abcdef.0123456789abcdef"}


@dataclass
class Bench:
    """A simulator of `provider`, and calls to it with any key."""

    client: Client
    provider: str
    origin: str
    clock: SystemClock

    def target(self, key: str | None = None) -> Target:
        provider = CATALOG.providers[self.provider]
        return Target(provider=provider, base_url=self.origin, key=Secret(key or GOOD[self.provider]))

    async def balance(self, key: str | None = None) -> Finding:
        return await probes.balance(self.client, self.clock, self.target(key))

    async def complete(self, key: str | None = None, upstream_model: str | None = None) -> Finding:
        candidate = CANDIDATES[self.provider]
        if upstream_model is not None:
            candidate = varied(candidate, upstream_model=upstream_model)
        return await probes.complete(self.client, self.clock, self.target(key), candidate)

    async def ask(self, method: str, path: str, body: bytes = b"") -> Any:
        """The simulator's own paths."""
        host = self.origin.removeprefix("http://")
        head = f"{method} {path} HTTP/1.1\r\nhost: {host}\r\ncontent-length: {len(body)}\r\n\r\n"
        from_url = self.client.origin(probes.split_url(self.origin)[0])
        response = await from_url.send(head.encode() + body, asyncio.get_running_loop().time() + 5)
        payload = await response.read(1 << 20)
        response.abort()
        return json.loads(payload or b"null")


Open = Callable[..., Awaitable[Bench]]


@pytest.fixture
async def bench() -> AsyncIterator[Open]:
    client = Client(ClientSettings())
    servers = []

    async def open_bench(provider: str, **options: Any) -> Bench:
        server, port = await simulators.start(provider, "127.0.0.1", 0, SimulatorOptions(**options))
        servers.append(server)
        return Bench(client, provider, f"http://127.0.0.1:{port}", SystemClock())

    yield open_bench
    client.close()
    for server in servers:
        await server.close(0)


async def test_a_good_account_has_a_balance_and_answers(bench: Open) -> None:
    deepseek = await bench("deepseek")
    assert await deepseek.balance() == Finding(verdict="ok", kind="ok", detail="the key works, balance 110.00 CNY")
    assert (await deepseek.complete()).detail == "the key works, and deepseek-flash answers"
    moonshot = await (await bench("moonshot")).balance()
    assert moonshot == Finding(verdict="ok", kind="ok", detail="the key works, balance 49.58894")


@pytest.mark.parametrize("provider", list(CANDIDATES))
async def test_every_provider_is_asked_for_a_token_as_it_wants_to_be(bench: Open, provider: str) -> None:
    found = await (await bench(provider)).complete()
    model = CANDIDATES[provider].upstream_model
    assert found == Finding(verdict="ok", kind="ok", detail=f"the key works, and {model} answers")


async def test_the_call_is_one_token_and_asks_for_nothing_else(bench: Open) -> None:
    zhipu = await bench("zhipu")
    await zhipu.complete()
    (sent,) = await zhipu.ask("GET", "/_sim/log")
    body = json.loads(sent["body"]) if isinstance(sent["body"], str) else sent["body"]
    assert (body["max_tokens"], body["model"], len(body["messages"])) == (1, "glm-4-air-250414", 1)
    assert "stream" not in body


# The provider, its key, and what is found: the kind of failure, words of the detail, words of the advice.
KEYS = [
    ("deepseek", "sk-bad-key-0123456789", "auth", "DeepSeek does not accept the key (HTTP 401", "revoked"),
    ("deepseek", "sk-broke-0123456789ab", "arrears", "no money left (HTTP 402", "Top it up"),
    ("moonshot", "sk-bad-key-0123456789", "auth", "Moonshot does not accept the key (HTTP 401", "one region"),
    ("moonshot", "sk-broke-0123456789ab", "arrears", "no money left (HTTP 429", "Top it up"),
    ("dashscope", "sk-bad-key-0123456789", "auth", "Alibaba does not accept the key (HTTP 401", "(China)"),
    ("dashscope", "sk-broke-0123456789ab", "arrears", "no money left (HTTP 400", "Top it up"),
    ("minimax", "sk-bad-key-0123456789", "auth", "MiniMax does not accept the key", "api.minimaxi.com"),
    ("minimax", "sk-broke-0123456789ab", "arrears", "no money left", "Top it up"),
    ("zhipu", "bad0123456789abcdef.0123456789abcdef", "auth", "Zhipu BigModel does not accept the key", "one region"),
    ("zhipu", "broke0123456789abcdef.0123456789abcdef", "arrears", "no money left (HTTP 429, code 1113", "Top it up"),
]


@pytest.mark.parametrize(("provider", "key", "kind", "detail", "advice"), KEYS)
async def test_a_key_that_does_not_work_is_told_with_what_to_do(
    bench: Open, provider: str, key: str, kind: str, detail: str, advice: str
) -> None:
    found = await (await bench(provider)).complete(key)
    assert (found.verdict, found.kind) == ("fail", kind)
    assert detail in found.detail
    assert advice in found.advice
    assert key not in found.detail + found.advice


async def test_an_empty_account_is_told_by_its_balance(bench: Open) -> None:
    found = await (await bench("deepseek")).balance("sk-broke-0123456789ab")
    assert (found.verdict, found.kind, found.detail) == ("fail", "arrears", "the key works, balance 0.00 CNY")
    assert "Top it up" in found.advice
    refused = await (await bench("deepseek")).balance("sk-bad-key-0123456789")
    assert (refused.verdict, refused.kind) == ("fail", "auth")


async def test_a_key_of_another_region_is_told_where_it_may_work(bench: Open) -> None:
    zhipu = await bench("zhipu", region="cn")
    found = await zhipu.complete("intl-acme0123456789.0123456789abcdef")
    assert found.kind == "auth"
    assert "set upstreams.zhipu.base_url to https://" in found.advice
    assert "https://api.z.ai/api/paas/v4 (international)" in found.advice
    at_home = Target(
        provider=CATALOG.providers["zhipu"], base_url="https://open.bigmodel.cn/api/paas/v4", key=Secret("x")
    )
    assert "bigmodel" not in probes._advice("auth", at_home, "")


async def test_a_model_that_was_renamed_is_named(bench: Open) -> None:
    gone = {"deepseek": "deepseek-chat", "zhipu": "glm-3-turbo", "moonshot": "kimi-k2-0905", "dashscope": "qwen-none"}
    for provider, upstream_model in gone.items():
        found = await (await bench(provider)).complete(upstream_model=upstream_model)
        assert (found.verdict, found.kind) == ("fail", "stale_mapping"), found
        assert f"does not know {upstream_model}" in found.detail
        assert f"new name for {upstream_model}" in found.advice


@pytest.mark.parametrize(
    ("fault", "verdict", "kind", "words"),
    [
        ("status:429", "note", "rate_limited", "the key works; DeepSeek throttles it"),
        ("status:503", "note", "overloaded", "DeepSeek is overloaded"),
        ("status:500", "fail", "server_error", "DeepSeek failed (HTTP 500"),
        ("html:502", "fail", "server_error", "DeepSeek failed (HTTP 502"),
        ("reset", "fail", "unreachable", "broke off its answer"),
        ("html:200", "fail", "malformed", "is not DeepSeek's API"),
    ],
)
async def test_trouble_that_is_not_ours_is_told_as_such(
    bench: Open, fault: str, verdict: str, kind: str, words: str
) -> None:
    deepseek = await bench("deepseek")
    await deepseek.ask("POST", "/_sim/faults", json.dumps({"always": fault}).encode())
    found = await deepseek.complete()
    assert (found.verdict, found.kind) == (verdict, kind), found
    assert words in found.detail
    assert found.advice


async def test_nobody_at_the_address_is_told(bench: Open) -> None:
    deepseek = await bench("deepseek")
    deepseek.origin = "http://127.0.0.1:9"
    found = await deepseek.balance()
    assert (found.verdict, found.kind) == ("fail", "unreachable")
    assert "http://127.0.0.1:9 cannot be reached" in found.detail
    assert "upstreams.deepseek.base_url" in found.advice


async def test_every_kind_of_failure_has_words(bench: Open) -> None:
    target = (await bench("deepseek")).target()
    for kind in msgspec.inspect.type_info(probes.FailureKind).values:  # type: ignore[union-attr]
        assert probes._advice(kind, target, "m")

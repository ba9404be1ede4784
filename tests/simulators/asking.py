"""How each simulated provider is asked for a chat: where, with which key, for which model, for what, over a socket."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

USER = [{"role": "user", "content": "Hello!"}]
PARIS = [{"role": "user", "content": "Weather in Paris?"}]
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
NAMED = {"type": "function", "function": {"name": "get_weather"}}


@dataclass(frozen=True)
class Asked:
    """`fields` are what a plain, unthinking answer takes beside model and messages. `done`: it ends in `[DONE]`."""

    path: str
    key: str
    model: str
    fields: dict[str, Any] = field(default_factory=dict)
    done: bool = True


HOW = {
    "dashscope": Asked("/compatible-mode/v1/chat/completions", "sk-test", "qwen3-max"),
    "deepseek": Asked("/chat/completions", "sk-test", "deepseek-flash", {"thinking": {"type": "disabled"}}),
    "moonshot": Asked("/v1/chat/completions", "sk-test", "kimi-k2.6", {"thinking": {"type": "disabled"}}),
    "zhipu": Asked("/api/paas/v4/chat/completions", "test.secret", "glm-4-flash-250414"),
    "minimax": Asked("/v1/text/chatcompletion_v2", "sk-api-test", "MiniMax-Text-01", done=False),
}


@dataclass
class Answer:
    """`body` has chunked coding taken off; `whole` is false where the connection broke before its end."""

    status: int
    headers: dict[str, str]
    body: bytes
    whole: bool

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Client:
    """Speaks to one simulator, one connection per request."""

    def __init__(self, provider: str, port: int) -> None:
        self.provider = provider
        self.port = port

    async def send(
        self, method: str, path: str, body: bytes = b"", **headers: str
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
        head = f"{method} {path} HTTP/1.1\r\nhost: sim\r\ncontent-length: {len(body)}\r\n{lines}\r\n"
        writer.write(head.encode() + body)
        return reader, writer

    async def request(self, method: str, path: str, body: bytes = b"", **headers: str) -> Answer:
        reader, writer = await self.send(method, path, body, **headers)
        answer = await read(reader)
        writer.close()
        return answer

    def body(self, text: str, **fields: Any) -> bytes:
        messages = [{"role": "user", "content": text}]
        how = HOW[self.provider]
        return json.dumps({"model": how.model, "messages": messages, **how.fields, **fields}).encode()

    async def chat(self, text: str = "Hello!", headers: dict[str, str] | None = None, **fields: Any) -> Answer:
        headers = {"authorization": f"Bearer {HOW[self.provider].key}", **(headers or {})}
        return await self.request("POST", HOW[self.provider].path, self.body(text, **fields), **headers)

    async def log(self) -> list[Any]:
        return (await self.request("GET", "/_sim/log")).json


async def read(reader: asyncio.StreamReader) -> Answer:
    head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
    status = int(head[0].split()[1])
    if "content-length" in headers:
        return Answer(status, headers, await reader.readexactly(int(headers["content-length"])), whole=True)
    body = b""
    try:
        while size := int(await reader.readuntil(b"\r\n"), 16):
            body += (await reader.readexactly(size + 2))[:-2]
    except (asyncio.IncompleteReadError, ConnectionError):
        return Answer(status, headers, body, whole=False)
    return Answer(status, headers, body, whole=True)


Opener = Callable[..., Awaitable[Client]]

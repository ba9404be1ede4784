"""An upstream that speaks plain OpenAI and says what a test puts into its mouth."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from vipcloud.http.server import Exchange, HTTPServer
from vipcloud.settings import ServerSettings

JSON = b"content-type: application/json\r\n"
EVENTS = b"content-type: text/event-stream\r\n"


def said(content: str | None, *, finish: str = "stop", usage: tuple[int, int] = (10, 5), **message: Any) -> Any:
    """A whole answer."""
    return {
        "id": "x",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": content, **message},
                "logprobs": None,
                "finish_reason": finish,
            }
        ],
        "usage": {"prompt_tokens": usage[0], "completion_tokens": usage[1], "total_tokens": sum(usage)},
    }


@dataclass
class Scripted:
    """`answers` are given one after the other: a status alone, a whole answer, or a list of chunks."""

    port: int = 0
    answers: list[Any] = field(default_factory=list)
    calls: list[dict[str, Any]] = field(default_factory=list)
    heads: list[dict[str, str]] = field(default_factory=list)

    async def handle(self, exchange: Exchange) -> None:
        self.calls.append(json.loads(await exchange.body()))
        head = {name.decode(): value.decode() for name, value in exchange.headers.items()}
        self.heads.append({"path": exchange.path, **head})
        answer = self.answers.pop(0)
        if isinstance(answer, int):
            exchange.respond(answer, JSON, b'{"error":{"message":"no","type":"server_error"}}')
        elif isinstance(answer, list):
            exchange.start(200, EVENTS)
            for chunk in answer:
                exchange.write(b"data: " + json.dumps(chunk).encode() + b"\n\n")
            exchange.finish(b"data: [DONE]\n\n")
        else:
            exchange.respond(200, JSON, json.dumps(answer).encode())

    def catalog(self, *, quirks: str = "", models: str = "") -> str:
        """An operator's file that names this upstream as a provider, and one model of it."""
        return f"""
            [providers.plain]
            name = "Plain"
            ready = true
            base_url = "http://127.0.0.1:{self.port}/v1"
            chat_path = "/chat/completions"
            key_env = "PLAIN_API_KEY"
            first_byte_s = 60
            limits_per = "account"

            [providers.plain.quirks]
            {quirks}

            [models.plain-1]
            name = "Plain 1"
            provider = "plain"
            owned_by = "plain"
            status = "live"
            notes = ""
            created = 1
            context_tokens = 100_000
            output_tokens_max = 1_000
            capabilities = {{ tools = true, json_object = true, json_schema = true }}
            price = {{ input = "1", output = "2" }}

            [[models.plain-1.candidates]]
            provider = "plain"
            model = "plain-1-upstream"
            cost = {{ input = "0.5", output = "1" }}
            {models}
        """


@asynccontextmanager
async def scripted() -> AsyncIterator[Scripted]:
    upstream = Scripted()
    server = HTTPServer(upstream.handle, ServerSettings())
    upstream.port = await server.start("127.0.0.1", 0)
    try:
        yield upstream
    finally:
        await server.close(0)

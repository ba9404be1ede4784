"""A page in a real browser, served from another origin, that calls the gateway with `fetch` and with the SDK.

What a browser adds: it asks before it sends a key (preflight), and hides from the page what the answer does not expose.
"""

import functools
import http.server
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from playwright.sync_api import Browser, Page
from running import CANCEL_WITHIN_S, Gateway, Simulator, eventually, mark

pytestmark = [pytest.mark.clients, pytest.mark.timeout(120)]

NODE_MODULES = Path(__file__).parent / "node" / "node_modules"
GREETING = "Hello! How can I help you today?"
ANSWER_WITHIN_S = 30

# What the SDK sends from a browser, and so what a preflight asks for.
HEADERS = """{
    "authorization": `Bearer ${key}`,
    "content-type": "application/json",
    "x-stainless-lang": "js",
    "x-stainless-runtime": "browser:chrome",
    "x-stainless-retry-count": "0",
    "x-stainless-timeout": "600",
}"""

READ_STREAM = f"""async ({{url, key, body}}) => {{
    const answer = await fetch(`${{url}}/chat/completions`, {{method: "POST", headers: {HEADERS}, body}});
    const reader = answer.body.getReader();
    const decoder = new TextDecoder();
    const parts = [];
    for (let part = await reader.read(); !part.done; part = await reader.read()) {{
        parts.push({{text: decoder.decode(part.value, {{stream: true}}), atMs: performance.now()}});
    }}
    return {{status: answer.status, type: answer.headers.get("content-type"), parts}};
}}"""

READ_ANSWER = f"""async ({{url, key, body, path = "/chat/completions"}}) => {{
    const method = body === undefined ? "GET" : "POST";
    const answer = await fetch(url + path, {{method, headers: {HEADERS}, body}});
    return {{status: answer.status, headers: Object.fromEntries(answer.headers), body: await answer.json()}};
}}"""

ABORT_STREAM = f"""async ({{url, key, body}}) => {{
    const controller = new AbortController();
    const {{signal}} = controller;
    const answer = await fetch(`${{url}}/chat/completions`, {{method: "POST", headers: {HEADERS}, body, signal}});
    const reader = answer.body.getReader();
    await reader.read();
    controller.abort();
    try {{
        while (!(await reader.read()).done);
        return "ended";
    }} catch (error) {{
        return error.name;
    }}
}}"""

USE_SDK = """async ({url, key, text}) => {
    const { default: OpenAI } = await import("/openai/index.mjs");
    const client = new OpenAI({baseURL: url, apiKey: key, dangerouslyAllowBrowser: true, maxRetries: 0});
    const ask = {model: "deepseek-chat", messages: [{role: "user", content: text}]};
    try {
        const whole = await client.chat.completions.create(ask);
        let streamed = "";
        for await (const chunk of await client.chat.completions.create({...ask, stream: true})) {
            streamed += chunk.choices[0].delta.content ?? "";
        }
        return {whole: whole.choices[0].message.content, streamed, requestId: whole._request_id};
    } catch (error) {
        return {name: error.constructor.name, status: error.status, code: error.code, requestId: error.requestID};
    }
}"""


class Files(http.server.SimpleHTTPRequestHandler):
    """The SDK's files, and an empty page for every other path."""

    extensions_map: ClassVar[dict[str, str]] = {".mjs": "text/javascript"}

    def do_GET(self) -> None:
        if self.path.startswith("/openai/"):
            super().do_GET()
            return
        page = b"<!doctype html><title>A customer's page</title>"
        self.send_response(200)
        self.send_header("content-type", "text/html")
        self.send_header("content-length", str(len(page)))
        self.end_headers()
        self.wfile.write(page)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the library's
        pass


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    """A customer's site: another host name and another port than the gateway's."""
    assert (NODE_MODULES / "openai").is_dir(), "run `make test`, which installs the SDK for Node"
    handler = functools.partial(Files, directory=str(NODE_MODULES))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield f"http://localhost:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def page(chromium: Browser, site: str) -> Iterator[Page]:
    page = chromium.new_page()
    page.goto(site)
    yield page
    page.close()


def body(text: str, **more: object) -> str:
    return json.dumps({"model": "deepseek-chat", "messages": [{"role": "user", "content": text}], **more})


def in_time(program: str) -> str:
    """The same, failing where it takes too long: Playwright itself would wait for ever."""
    late = f"new Error('nothing came of it within {ANSWER_WITHIN_S} s')"
    return f"""(arguments_) => Promise.race([
        ({program})(arguments_),
        new Promise((_, fail) => setTimeout(() => fail({late}), {ANSWER_WITHIN_S * 1000})),
    ])"""


def call(page: Page, program: str, gateway: Gateway, **arguments: object) -> Any:
    return page.evaluate(in_time(program), {"url": gateway.base_url, "key": gateway.customer, **arguments})


def test_a_page_of_another_origin_reads_a_stream_as_it_is_made(page: Page, gateway: Gateway) -> None:
    got = call(page, READ_STREAM, gateway, body=body("[[tokens=20 pace_ms=50]]", stream=True))
    assert (got["status"], got["type"]) == (200, "text/event-stream; charset=utf-8")
    assert len(got["parts"]) >= 10
    assert got["parts"][-1]["atMs"] - got["parts"][0]["atMs"] > 800
    assert "".join(part["text"] for part in got["parts"]).endswith("data: [DONE]\n\n")


def test_the_preflight_allows_what_the_page_wants_to_send(page: Page, gateway: Gateway) -> None:
    with page.expect_request("**/chat/completions") as sent:
        got = call(page, READ_ANSWER, gateway, body=body("Hello!"))
    assert got["status"] == 200
    assert got["body"]["choices"][0]["message"]["content"] == GREETING
    headers = sent.value.all_headers()
    assert headers["origin"] == page.url.rstrip("/")
    assert headers["sec-fetch-site"] == "cross-site"
    assert headers["x-stainless-runtime"] == "browser:chrome"


def test_the_page_reads_the_headers_that_matter(page: Page, gateway: Gateway) -> None:
    got = call(page, READ_ANSWER, gateway, key=gateway.key(rpm=1), body=body("Hello!"))
    assert got["headers"]["x-request-id"].startswith("req_")
    assert got["headers"]["x-ratelimit-limit-requests"] == "1"
    assert got["headers"]["x-ratelimit-remaining-requests"] == "0"


def test_the_page_reads_an_error_instead_of_a_failure_to_fetch(page: Page, gateway: Gateway) -> None:
    wrong = call(page, READ_ANSWER, gateway, key="sk-wrong", body=body("Hello!"))
    assert (wrong["status"], wrong["body"]["error"]["code"]) == (401, "invalid_api_key")
    assert wrong["headers"]["x-should-retry"] == "false"
    unknown = call(page, READ_ANSWER, gateway, body=body("Hello!", model="gpt-4o"))
    assert (unknown["status"], unknown["body"]["error"]["code"]) == (404, "model_not_found")
    nowhere = call(page, READ_ANSWER, gateway, path="/nowhere")
    assert (nowhere["status"], nowhere["body"]["error"]["code"]) == (404, "not_found")
    failed = call(page, READ_ANSWER, gateway, body=body("Hello! [[fault=status:500]]"))
    assert (failed["status"], failed["body"]["error"]["code"]) == (502, "upstream_error")


def test_the_page_reads_when_to_come_back(page: Page, gateway: Gateway) -> None:
    key = gateway.key(rpm=1)
    call(page, READ_ANSWER, gateway, key=key, body=body("Hello!"))
    limited = call(page, READ_ANSWER, gateway, key=key, body=body("Hello!"))
    assert limited["status"] == 429
    assert 50 <= int(limited["headers"]["retry-after"]) <= 60


def test_models_are_listed_to_the_page(page: Page, gateway: Gateway) -> None:
    got = call(page, READ_ANSWER, gateway, path="/models")
    assert "deepseek-chat" in [model["id"] for model in got["body"]["data"]]


def test_aborting_cancels_the_upstream(page: Page, gateway: Gateway, deepseek: Simulator) -> None:
    word = mark()
    got = call(page, ABORT_STREAM, gateway, body=body(f"{word} [[tokens=400 pace_ms=20]]", stream=True))
    left_s = time.monotonic()
    entry = deepseek.ended(word)
    assert (got, entry["outcome"]) == ("AbortError", "cancelled")
    assert entry["ended_s"] - left_s < CANCEL_WITHIN_S


def test_closing_the_page_cancels_the_upstream(page: Page, gateway: Gateway, deepseek: Simulator) -> None:
    word = mark()
    in_the_background = f"(arguments_) => {{ ({READ_STREAM})(arguments_); }}"
    call(page, in_the_background, gateway, body=body(f"{word} [[fault=stall:3]]", stream=True))
    eventually(lambda: [entry for entry in deepseek.log(word) if entry["events"] >= 3])
    page.close()
    left_s = time.monotonic()
    entry = deepseek.ended(word)
    assert entry["outcome"] == "cancelled"
    assert entry["ended_s"] - left_s < CANCEL_WITHIN_S


def test_the_sdk_works_in_the_browser(page: Page, gateway: Gateway) -> None:
    got = call(page, USE_SDK, gateway, text="Hello!")
    assert (got["whole"], got["streamed"]) == (GREETING, GREETING)
    assert got["requestId"].startswith("req_")


def test_the_sdk_in_the_browser_raises_its_own_errors(page: Page, gateway: Gateway) -> None:
    got = call(page, USE_SDK, gateway, key="sk-wrong", text="Hello!")
    assert got.pop("requestId").startswith("req_")
    assert got == {"name": "AuthenticationError", "status": 401, "code": "invalid_api_key"}

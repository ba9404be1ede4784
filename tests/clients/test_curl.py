"""curl, as people try things out, and the corners of HTTP that it reaches and SDKs do not."""

import json
import re
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from running import CANCEL_WITHIN_S, Gateway, Simulator, environment, eventually, mark, tool

pytestmark = pytest.mark.clients

HELLO = json.dumps({"model": "deepseek-chat", "messages": [{"role": "user", "content": "Hello!"}]})
GREETING = "Hello! How can I help you today?"


@pytest.fixture(scope="module", autouse=True)
def _curl_is_here() -> None:
    tool("curl", "curl")


@dataclass(frozen=True)
class Answer:
    """What curl saw. `heads` are all it got, interim ones included; `headers` are the last one's."""

    status: int
    heads: list[str]
    headers: dict[str, str]
    body: str
    trace: str  # what `-v` tells

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def curl(*arguments: str, folder: Path) -> Answer:
    dump = folder / "head"
    command = ["curl", "--silent", "--show-error", "--verbose", "--max-time", "15", "--dump-header", str(dump)]
    ended = subprocess.run([*command, *arguments], env=environment(), capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    heads = [head for head in dump.read_text().replace("\r\n", "\n").split("\n\n") if head]
    first, *lines = heads[-1].splitlines()
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return Answer(int(first.split()[1]), heads, headers, ended.stdout, ended.stderr)


def completion(gateway: Gateway, body: str) -> list[str]:
    """What asks for a completion."""
    headers = ["-H", f"Authorization: Bearer {gateway.customer}", "-H", "Content-Type: application/json"]
    return [*headers, "--data-binary", body, f"{gateway.base_url}/chat/completions"]


def chat(gateway: Gateway, *arguments: str, folder: Path, body: str = HELLO) -> Answer:
    return curl(*arguments, *completion(gateway, body), folder=folder)


def said(body: str) -> str:
    chunks = [json.loads(data) for data in re.findall(r"^data: (\{.*\})$", body, re.MULTILINE)]
    return "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"])


def streaming(text: str, model: str = "deepseek-chat") -> str:
    return json.dumps({"model": model, "stream": True, "messages": [{"role": "user", "content": text}]})


def test_the_line_that_serve_prints_streams(demo: Gateway) -> None:
    line = demo.process.says(r"(?s)Try it:\n\n(curl .*\}')\n")[1]
    ended = subprocess.run(["sh", "-c", line], env=environment(), capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert said(ended.stdout) == GREETING
    assert ended.stdout.endswith("data: [DONE]\n\n")


def test_serve_says_that_answers_are_simulated(demo: Gateway) -> None:
    assert "simulated" in demo.process.output
    assert "DEEPSEEK_API_KEY" in demo.process.output


def test_a_stream_is_read_while_it_is_made(gateway: Gateway) -> None:
    command = ["curl", "-sN", *completion(gateway, streaming("Count to 9 [[fault=stall:3:60]]"))]
    with subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(8)]  # the role and three pieces of text; no more will come
        process.terminate()
    assert said("".join(lines)) == "1, 2"


def test_curl_ended_by_the_user_cancels_the_upstream(gateway: Gateway, deepseek: Simulator) -> None:
    word = mark()
    command = ["curl", "-sN", *completion(gateway, streaming(f"{word} [[fault=stall:3]]"))]
    with subprocess.Popen(command, env=environment(), stdout=subprocess.DEVNULL) as process:
        eventually(lambda: [entry for entry in deepseek.log(word) if entry["events"] >= 3])
        process.kill()
    left_s = time.monotonic()
    entry = deepseek.ended(word)
    assert entry["outcome"] == "cancelled"
    assert entry["ended_s"] - left_s < CANCEL_WITHIN_S


def test_http_1_0_gets_a_whole_answer(gateway: Gateway, tmp_path: Path) -> None:
    answer = chat(gateway, "--http1.0", folder=tmp_path)
    assert answer.status == 200
    assert answer.json["choices"][0]["message"]["content"] == GREETING
    assert "transfer-encoding" not in answer.headers


def test_http_1_0_gets_a_stream_that_ends_with_the_connection(gateway: Gateway, tmp_path: Path) -> None:
    answer = chat(gateway, "--http1.0", folder=tmp_path, body=streaming("Hello!"))
    assert answer.status == 200
    assert "transfer-encoding" not in answer.headers
    assert said(answer.body) == GREETING
    assert answer.body.endswith("data: [DONE]\n\n")


def test_an_offer_of_http_2_is_left_aside(gateway: Gateway, tmp_path: Path) -> None:
    answer = chat(gateway, "--http2", folder=tmp_path)
    assert "Upgrade: h2c" in answer.trace
    assert [head.split()[1] for head in answer.heads] == ["200"]
    assert answer.heads[0].startswith("HTTP/1.1 ")
    assert answer.json["choices"][0]["message"]["content"] == GREETING


def big_body(folder: Path, size: int) -> str:
    """A request of more than `size` bytes, in a file, as curl wants it."""
    messages = [{"role": "user", "content": "word " * (size // 5)}, {"role": "user", "content": "Hello!"}]
    file = folder / "body.json"
    file.write_text(json.dumps({"model": "glm-4-flash", "messages": messages}))
    return f"@{file}"


def test_a_big_body_waits_for_100_continue(gateway: Gateway, tmp_path: Path) -> None:
    answer = chat(gateway, "-H", "Expect: 100-continue", folder=tmp_path, body=big_body(tmp_path, 400_000))
    assert "Done waiting for 100-continue" not in answer.trace
    assert [head.split()[1] for head in answer.heads] == ["100", "200"]
    assert answer.json["choices"][0]["message"]["content"]


def test_a_body_of_more_than_a_megabyte_is_expected_and_judged(gateway: Gateway, tmp_path: Path) -> None:
    answer = chat(gateway, folder=tmp_path, body=big_body(tmp_path, 1_200_000))
    assert "Expect: 100-continue" in answer.trace
    assert "Done waiting for 100-continue" not in answer.trace
    assert answer.heads[0].startswith("HTTP/1.1 100 ")
    assert answer.status in (200, 400)  # more than the model's context, if the provider looks


@pytest.mark.parametrize(("key", "status"), [("sk-wrong", 401), (None, 413)], ids=["a wrong key", "a body too large"])
def test_what_is_refused_anyway_is_not_sent(impatient: Gateway, tmp_path: Path, key: str | None, status: int) -> None:
    answer = curl(
        *("-H", f"Authorization: Bearer {key or impatient.customer}", "-H", "Content-Type: application/json"),
        *("-H", "Expect: 100-continue", "--write-out", "%{stderr}sent=%{size_upload}\n"),
        *("--data-binary", big_body(tmp_path, 2_000_000 if status == 413 else 400_000)),
        f"{impatient.base_url}/chat/completions",
        folder=tmp_path,
    )
    assert [head.split()[1] for head in answer.heads] == [str(status)]
    assert answer.json["error"]["code"]
    assert "sent=0\n" in answer.trace


def test_a_chunked_body_is_taken(gateway: Gateway, tmp_path: Path) -> None:
    answer = chat(gateway, "-H", "Transfer-Encoding: chunked", folder=tmp_path)
    assert answer.json["choices"][0]["message"]["content"] == GREETING


def test_one_connection_serves_many_requests(gateway: Gateway, tmp_path: Path) -> None:
    url = f"{gateway.base_url}/models"
    answer = curl("-H", f"Authorization: Bearer {gateway.customer}", url, url, url, folder=tmp_path)
    assert [head.split()[1] for head in answer.heads] == ["200"] * 3
    assert answer.trace.count("Re-using existing connection") == 2


def test_a_key_is_asked_for_in_the_envelope(gateway: Gateway, tmp_path: Path) -> None:
    body = ["-d", HELLO, "-H", "Content-Type: application/json"]
    answer = curl(*body, f"{gateway.base_url}/chat/completions", folder=tmp_path)
    assert answer.status == 401
    assert list(answer.json["error"]) == ["message", "type", "param", "code"]
    assert "Bearer" in answer.json["error"]["message"]


@pytest.mark.parametrize("body", ["", "{", "{'model': 1}", '{"model": NaN}', "\x00", "[]", '"x"'])
def test_what_is_not_json_is_a_bad_request(gateway: Gateway, tmp_path: Path, body: str) -> None:
    (tmp_path / "body").write_text(body)
    answer = chat(gateway, folder=tmp_path, body=f"@{tmp_path / 'body'}")
    assert (answer.status, answer.json["error"]["code"]) == (400, "bad_request")


def test_head_shows_the_headers_of_get(gateway: Gateway, tmp_path: Path) -> None:
    key = ("-H", f"Authorization: Bearer {gateway.customer}")
    whole = curl(*key, f"{gateway.base_url}/models", folder=tmp_path)
    head = curl(*key, "--head", f"{gateway.base_url}/models", folder=tmp_path)
    assert head.status == 200
    assert head.headers["content-length"] == whole.headers["content-length"] == str(len(whole.body.encode()))


def test_both_spellings_of_a_path_are_served_without_a_redirect(gateway: Gateway, tmp_path: Path) -> None:
    key = ("-H", f"Authorization: Bearer {gateway.customer}")
    for path in ("/v1/models", "/v1/models/", "/models", "/v1/models/deepseek-chat/"):
        assert curl(*key, gateway.origin + path, folder=tmp_path).status == 200, path


def test_a_wrong_method_is_told_the_right_one(gateway: Gateway, tmp_path: Path) -> None:
    answer = curl("-X", "DELETE", f"{gateway.base_url}/chat/completions", folder=tmp_path)
    assert (answer.status, answer.json["error"]["code"]) == (405, "method_not_allowed")
    assert "POST" in answer.headers["allow"]


def test_health_and_readiness_need_no_key(demo: Gateway, tmp_path: Path) -> None:
    assert curl(f"{demo.origin}/healthz", folder=tmp_path).status == 200
    ready = curl(f"{demo.origin}/readyz", folder=tmp_path)
    assert (ready.status, ready.json) == (200, {"ready": True, "reasons": []})

"""The three programs of the public quickstart, run as printed there but for the base URL and the key."""

import subprocess
import sys
from pathlib import Path

import pytest
from running import Gateway, environment, tool

pytestmark = pytest.mark.clients

NODE_MODULES = Path(__file__).parent / "node" / "node_modules"

PYTHON = """\
from openai import OpenAI

client = OpenAI(
    api_key="vc-sk-...",
    base_url="https://vipcloud.ai/v1",
)

resp = client.chat.completions.create(
    model="deepseek-chat",
    messages=[{"role": "user", "content": "Hello!"}],
)
print(resp.choices[0].message.content)
"""

PYTHON_STREAMING = """\
from openai import OpenAI

client = OpenAI(
    api_key="vc-sk-...",
    base_url="https://vipcloud.ai/v1",
)

# Python streaming
stream = client.chat.completions.create(
    model="deepseek-chat",
    messages=[{"role": "user", "content": "Count to 5"}],
    stream=True,
)
for chunk in stream:
    delta = chunk.choices[0].delta.content or ""
    print(delta, end="", flush=True)
"""

NODE = """\
import OpenAI from "openai";

const client = new OpenAI({
  apiKey: "vc-sk-...",
  baseURL: "https://vipcloud.ai/v1",
});

const resp = await client.chat.completions.create({
  model: "deepseek-chat",
  messages: [{ role: "user", content: "Hello!" }],
});
console.log(resp.choices[0].message.content);
"""

CURL = """\
curl https://vipcloud.ai/v1/chat/completions \\
  -H "Authorization: Bearer vc-sk-..." \\
  -H "Content-Type: application/json" \\
  -d '{
    "model": "deepseek-chat",
    "messages": [{"role":"user","content":"Hello!"}]
  }'
"""


def run(command: list[str], program: str, file: Path, gateway: Gateway) -> str:
    """What `program`, pointed to `gateway`, prints."""
    file.write_text(program.replace("vc-sk-...", gateway.customer).replace("https://vipcloud.ai/v1", gateway.base_url))
    ended = subprocess.run([*command, str(file)], cwd=file.parent, env=environment(), capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_the_python_program_gets_a_response(demo: Gateway, tmp_path: Path) -> None:
    assert run([sys.executable], PYTHON, tmp_path / "hello.py", demo) == "Hello! How can I help you today?\n"


def test_the_python_streaming_program_never_meets_a_chunk_without_a_choice(demo: Gateway, tmp_path: Path) -> None:
    assert run([sys.executable], PYTHON_STREAMING, tmp_path / "count.py", demo) == "1, 2, 3, 4, 5"


def test_the_node_program_gets_a_response(demo: Gateway, tmp_path: Path) -> None:
    assert NODE_MODULES.is_dir(), "run `make test`, which installs the SDK for Node in tests/clients/node"
    (tmp_path / "node_modules").symlink_to(NODE_MODULES)
    said = run([tool("node", "nodejs")], NODE, tmp_path / "hello.mjs", demo)
    assert said == "Hello! How can I help you today?\n"


def test_the_curl_line_gets_the_documented_shape(demo: Gateway, tmp_path: Path) -> None:
    tool("curl", "curl")
    said = run(["sh"], CURL, tmp_path / "hello.sh", demo)
    for part in ('"object":"chat.completion"', '"model":"deepseek-chat"', '"finish_reason":"stop"', '"total_tokens"'):
        assert part in said

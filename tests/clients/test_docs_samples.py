"""The customers' docs, executed: each Python, Node and curl sample runs against the program that shows it."""

import os
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from running import Process, environment, tool, vipcloud

from vipcloud.cli.serve import DEMO_EMAIL
from vipcloud.console import markdown
from vipcloud.console.pages import docs

pytestmark = [pytest.mark.clients, pytest.mark.timeout(120)]

NODE = Path(__file__).parent / "node"
NOT_CALLS = {"Shell", "pip", "npm"}  # samples that install or export something
PYTHON = """
import os
from openai import OpenAI
client = OpenAI(api_key=os.environ["VIPCLOUD_API_KEY"], base_url=os.environ["BASE_URL"], max_retries=0)
"""
JAVASCRIPT = """
import OpenAI from "openai";
const client = new OpenAI({ apiKey: process.env.VIPCLOUD_API_KEY, baseURL: process.env.BASE_URL, maxRetries: 0 });
"""


class Running:
    """`vipcloud serve`, its key, and its docs."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder
        self.process = Process("serve", ["serve", "--port", "0", "--data", str(folder / "data")], folder)
        self.url = self.process.says(r"website +(http://\S+)")[1]
        self.key = self.process.says(r"API key +(vc-sk-\w+)")[1]
        made = vipcloud(
            *("keys", "create", "--account", DEMO_EMAIL, "--management", "--data", str(folder / "data")), cwd=folder
        )
        self.environment = environment(
            VIPCLOUD_API_KEY=self.key, VIPCLOUD_MANAGEMENT_KEY=made.strip(), BASE_URL=f"{self.url}/v1"
        )

    def samples(self, slug: str, language: str) -> list[str]:
        with urllib.request.urlopen(f"{self.url}/docs/{slug}.md") as answer:
            page = markdown.read(answer.read().decode())
        blocks = [sample for section in page.sections for block in section.code for sample in block]
        return [block.text for block in blocks if block.language == language and block.title not in NOT_CALLS]

    def run(self, command: list[str], text: str, cwd: Path) -> None:
        ended = subprocess.run(
            command, input=text, cwd=cwd, env=self.environment, capture_output=True, text=True, timeout=60
        )
        assert ended.returncode == 0, f"{text}\n{ended.stdout}{ended.stderr}"
        assert '"error"' not in ended.stdout, ended.stdout


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    started = Running(tmp_path_factory.mktemp("samples") / "site")
    yield started
    started.process.stop()


def test_python_samples_run(running: Running) -> None:
    ran = 0
    for slug in docs.SLUGS:
        samples = running.samples(slug, "python")
        if samples:
            running.run([sys.executable, "-W", "error", "-"], PYTHON + "\n".join(samples), running.folder)
            ran += len(samples)
    assert ran > 10


def test_node_samples_run(running: Running) -> None:
    ran = 0
    for slug in docs.SLUGS:
        for sample in running.samples(slug, "javascript"):
            own = JAVASCRIPT if "new OpenAI" not in sample else ""
            running.run([tool("node", "nodejs"), "--input-type=module", "-"], own + sample, NODE)
            ran += 1
    assert ran > 5


def test_curl_samples_run(running: Running) -> None:
    tool("curl", "curl")
    ran = 0
    for slug in docs.SLUGS:
        for sample in running.samples(slug, "bash"):
            if not re.match(r"curl ", sample):
                continue
            running.run(["sh", "-es"], sample.replace("curl ", "curl -sS --fail-with-body ", 1), running.folder)
            ran += 1
    assert ran > 3


def test_the_samples_name_the_address_that_shows_them(running: Running) -> None:
    assert any(f'base_url="{running.url}/v1"' in sample for sample in running.samples("quickstart", "python"))
    assert "vc-sk-" not in os.linesep.join(running.samples("quickstart", "python"))

"""`make bench-peers`: the same work through LiteLLM's proxy and Portkey's gateway, installed on the spot.

Each peer runs as its maker starts it: one process, no database, no cache, no log of requests. Only what the work costs
is compared; each of them does other things besides.
"""

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

import report
import sections
from contestants import (
    ROOT,
    Contestant,
    bare_environment,
    free_port,
    gateway,
    nginx_proxy,
    nginx_unbuffered,
    wait_until_serving,
)
from process import BenchError, running
from run import place, plain

PEERS = ROOT / ".venv" / "peers"
LITELLM = "litellm[proxy]==1.106.2"
PORTKEY = {"@portkey-ai/gateway": "1.15.2"}
# Later versions of a library that Portkey takes break its streams: its issue 1389, seen 2026-11-24.
PORTKEY_OVERRIDES = {"@hono/node-server": "1.14.1"}
STREAMS = 30  # what the slowest of them carries without falling far behind
STREAM_REPEATS = 3
DURATION_S = 4

console = Console()


@contextmanager
def litellm(folder: Path, core: int, upstream_port: int) -> Iterator[Contestant]:
    port = free_port()
    settings = folder / f"litellm-{port}.yaml"
    settings.write_text(
        "model_list:\n"
        "  - model_name: deepseek-chat\n"
        "    litellm_params:\n"
        "      model: openai/deepseek-chat\n"
        f"      api_base: http://127.0.0.1:{upstream_port}/v1\n"
        "      api_key: sk-bench\n"
        "general_settings:\n"
        "  master_key: sk-bench\n"
    )
    environment = bare_environment() | {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR"}
    command: list[str | Path] = [
        PEERS / "litellm" / "bin" / "litellm",
        "--config",
        settings,
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
    ]
    log = folder / f"litellm-{port}.log"
    with running(command, core=core, log=log, environment=environment) as process:
        contestant = Contestant("LiteLLM", process.pid, port, {"Authorization": "Bearer sk-bench"})
        wait_until_serving(contestant, process, log)
        yield contestant


@contextmanager
def portkey(folder: Path, core: int, upstream_port: int) -> Iterator[Contestant]:
    port = free_port()
    program = PEERS / "portkey" / "node_modules" / "@portkey-ai" / "gateway" / "build" / "start-server.js"
    headers = {
        "Authorization": "Bearer sk-bench",
        "x-portkey-provider": "openai",
        "x-portkey-custom-host": f"http://127.0.0.1:{upstream_port}/v1",
    }
    log = folder / f"portkey-{port}.log"
    command: list[str | Path] = ["node", program, f"--port={port}", "--headless"]
    environment = bare_environment() | {"NODE_ENV": "production", "TRUSTED_CUSTOM_HOSTS": "127.0.0.1"}
    with running(command, core=core, log=log, environment=environment) as process:
        contestant = Contestant("Portkey", process.pid, port, headers)
        wait_until_serving(contestant, process, log)
        yield contestant


def install() -> None:
    """Both peers, each into a folder of its own under .venv/peers; what is there already stays."""
    venv = PEERS / "litellm"
    pip = [str(venv / "bin" / "pip"), "install", "--disable-pip-version-check", "--quiet", LITELLM]
    _install(venv, [[sys.executable, "-m", "venv", str(venv)], pip])
    modules = PEERS / "portkey"
    package = json.dumps({"dependencies": PORTKEY, "overrides": PORTKEY_OVERRIDES})
    _install(modules, [["npm", "install", "--silent", "--prefix", str(modules)]], package)


def _install(folder: Path, commands: Sequence[Sequence[str]], package: str = "{}") -> None:
    """Fill `folder` by running `commands` beside that package.json, unless this version of this file has done so."""
    mark = folder / "installed-for"
    wanted = Path(__file__).read_text()
    if mark.exists() and mark.read_text() == wanted:
        return
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "package.json").write_text(package)
    with console.status(f"Installing {folder.name} …"):
        for command in commands:
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                raise BenchError(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
    mark.write_text(wanted)


def table(columns: Sequence[tuple[str, dict[str, float]]]) -> Table:
    """One row for each contestant; each column beside how often the first row's cost goes into it."""
    made = Table(title="One core, beside nginx proxy_pass")
    made.add_column("")
    for heading, _ in columns:
        made.add_column(heading, justify="right")
        made.add_column("× nginx", justify="right")
    for name in columns[0][1]:
        cells = [cell for _, of in columns for cell in (f"{of[name]:,.1f}", f"{of[name] / of['nginx']:,.1f}")]
        made.add_row(name, *cells)
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description="What other gateways cost for the same work.")
    parser.add_argument("--rounds", type=int, default=2, help="runs of each contestant that count")
    arguments = parser.parse_args()
    gateways = (gateway, portkey, litellm)
    try:
        install()
        with place() as where:
            with console.status("Single answers, 32 connections …"):
                answers = sections.answers(where, (nginx_proxy, *gateways), arguments.rounds, DURATION_S)
            with console.status(f"{STREAMS} streams at 50 chunks a second …"):
                chunks = sections.streams(
                    where, (nginx_unbuffered, *gateways), arguments.rounds, STREAMS, STREAM_REPEATS
                )
    except BenchError as error:
        sys.exit(f"bench-peers: {error}")
    per_answer = {name: round(median(run.cpu_us for run in runs), 2) for name, runs in answers.items()}
    per_chunk = {name: round(median(run.cpu_us for run in runs), 2) for name, runs in chunks.items()}
    numbers = {
        "nonstream_cpu_us": per_answer,
        "stream_cpu_us_per_chunk": per_chunk,
        "versions": [LITELLM, PORTKEY, PORTKEY_OVERRIDES],
    }
    file = report.write("peers", numbers, {"nonstream": plain(answers), "stream": plain(chunks)})
    console.print(table([("CPU µs / request", per_answer), (f"CPU µs / chunk, {STREAMS} streams", per_chunk)]))
    console.print(f"Written to {file.relative_to(ROOT)}")


if __name__ == "__main__":
    main()

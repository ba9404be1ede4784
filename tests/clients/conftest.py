import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from chromium import launched
from playwright.sync_api import Browser
from running import Gateway, Process, Simulator, environment
from second_tries import pytest_runtest_makereport, pytest_runtest_protocol

__all__ = ["pytest_runtest_makereport", "pytest_runtest_protocol"]

PROVIDERS = ("deepseek", "zhipu", "moonshot", "dashscope", "minimax")
SOON = ("kimi-k2", "qwen3-max", "minimax-text-01")  # not on sale as the program comes


@pytest.fixture(scope="session", autouse=True)
def _own_environment() -> Iterator[None]:
    """SDKs in this process read keys, addresses and proxies from the environment, too."""
    kept = environment()
    with pytest.MonkeyPatch.context() as patch:
        for name in set(os.environ) - set(kept):
            patch.delenv(name)
        yield


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with launched() as browser:
        yield browser


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("clients")


@pytest.fixture(scope="session")
def demo(folder: Path) -> Iterator[Gateway]:
    """What `make run` starts: no settings, simulators of its own, and a key in its greeting."""
    yield from running(Gateway(folder / "demo"))


@pytest.fixture(scope="session")
def simulators(folder: Path) -> Iterator[dict[str, Simulator]]:
    """Simulated providers by name, their logs at hand."""
    process = Process("simulators", ["sim", *PROVIDERS, *("--port", "0") * len(PROVIDERS), "--json"], folder)
    try:
        process.says(rf"(?:\{{.*\}}\s+){{{len(PROVIDERS)}}}")
        said = map(json.loads, process.output.splitlines())
        yield {each["provider"]: Simulator(each["base_url"]) for each in said}
    finally:
        process.stop()


@pytest.fixture(scope="session")
def deepseek(simulators: dict[str, Simulator]) -> Simulator:
    return simulators["deepseek"]


@pytest.fixture(scope="session")
def gateway(folder: Path, simulators: dict[str, Simulator]) -> Iterator[Gateway]:
    """A gateway with the default limits and one provider for each model; it books at once."""
    routes = upstreams(simulators, "deepseek", "zhipu")
    yield from running(Gateway(folder / "gateway", routes + "[journal]\nbook_interval_s = 0.05\n"))


@pytest.fixture(scope="session")
def complete(folder: Path, simulators: dict[str, Simulator]) -> Iterator[Gateway]:
    """A gateway on which all ten models are on sale."""
    catalog = "".join(f'[models.{model}]\nstatus = "live"\n' for model in SOON)
    yield from running(Gateway(folder / "complete", upstreams(simulators), catalog))


@pytest.fixture(scope="session")
def impatient(folder: Path, simulators: dict[str, Simulator]) -> Iterator[Gateway]:
    """A gateway with time outs and sizes that a test can reach."""
    limits = """
[timeouts]
first_byte_s = 1.0
idle_s = 1.0
total_s = 2.0
[server]
body_bytes_max = 1_048_576
"""
    yield from running(Gateway(folder / "impatient", upstreams(simulators, "deepseek", "zhipu") + limits))


@pytest.fixture(scope="session")
def lively(folder: Path, simulators: dict[str, Simulator]) -> Iterator[Gateway]:
    """A gateway that sends signs of life after a fraction of a second of silence."""
    pings = "[gateway]\nping_stream_s = 0.2\nping_unary_s = 0.2\n"
    yield from running(Gateway(folder / "lively", upstreams(simulators, "deepseek", "zhipu") + pings))


def running(gateway: Gateway) -> Iterator[Gateway]:
    gateway.start()
    yield gateway
    gateway.stop()


def upstreams(simulators: dict[str, Simulator], *names: str) -> str:
    """The settings that point a gateway to the named simulators, or to all."""
    return "".join(
        f'[upstreams.{name}]\nbase_url = "{simulator.base_url}"\nkeys = ["sk-simulated.simulated"]\n'
        for name, simulator in simulators.items()
        if not names or name in names
    )

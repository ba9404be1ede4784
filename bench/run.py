"""`make bench`: what the gateway costs beside nginx, on the same machine, in the same minutes, for the same bytes.

CPU time is read from /proc for a program's whole family of processes and divided by the answers or chunks served, so it
holds on a shared machine too; throughput and latency hold only on an idle one. docs/reference/benchmarks.md says more.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

import report
import sections
from contestants import ROOT, gateway, gateway_with_valkey, nginx_proxy, nginx_unbuffered
from load import Answers, Chunks
from process import BenchError
from sections import Place, ratio

STREAMS = 500
STREAM_REPEATS = 2
ANSWERS_DURATION_S = 4
LATENCY_DURATION_S = 2
GOALS = {
    "nonstream_cpu_ratio_nginx": 2.0,
    "stream_cpu_ratio_nginx": 1.6,
    "rss_kib_per_stream": 48.0,
    "nonstream_cpu_ratio_valkey": 1.5,
}

console = Console()


@contextmanager
def place() -> Iterator[Place]:
    """Two cores and a folder that goes afterwards. Raises BenchError on a machine with a single core."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise BenchError("the benchmark needs two cores: one for the contestants, one for upstream and load")
    with tempfile.TemporaryDirectory(prefix="vipcloud-bench-") as folder:
        # nginx gives up root for its workers, which must still get through to their own folders.
        Path(folder).chmod(0o755)
        yield Place(Path(folder), cores[0], cores[1])


def measure(where: Place, rounds: int) -> tuple[dict[str, float], Mapping[str, object]]:
    """The numbers of bench/results/latest.json, and the runs behind them."""
    for_answers, for_streams = (nginx_proxy, gateway), (nginx_unbuffered, gateway)
    with console.status("Single answers, 32 connections …"):
        answers = sections.answers(where, (*for_answers, gateway_with_valkey), rounds, ANSWERS_DURATION_S)
    with console.status("Single answers, one connection …"):
        latencies = sections.latencies(where, for_answers, min(rounds, 3), LATENCY_DURATION_S)
    with console.status(f"{STREAMS} streams at 50 chunks a second …"):
        chunks = sections.streams(where, for_streams, rounds, STREAMS, STREAM_REPEATS)
    with console.status("Open streams …"):
        memory = sections.memory(where, for_streams)

    numbers: dict[str, float] = {}
    for name, prefix in (("vipcloud", ""), ("nginx", "nginx_")):
        numbers[f"{prefix}nonstream_cpu_us"] = median(run.cpu_us for run in answers[name])
        numbers[f"{prefix}nonstream_per_s"] = median(run.per_s for run in answers[name])
        numbers[f"{prefix}stream_cpu_us_per_chunk"] = median(run.cpu_us for run in chunks[name])
        numbers[f"{prefix}stream_chunks_per_s"] = median(run.per_s for run in chunks[name])
        for quantile in ("p50_us", "p99_us"):
            direct, relayed = ([getattr(run, quantile) for run in latencies[each]] for each in ("direct", name))
            numbers[f"{prefix}added_latency_{quantile}"] = median(relayed) - median(direct)
        numbers[f"{prefix}rss_kib_per_stream"] = memory[name].stream_kib
        numbers[f"{prefix}rss_kib_per_stream_marginal"] = memory[name].stream_marginal_kib
        numbers[f"{prefix}rss_kib_idle"] = memory[name].idle_kib
    for key, runs in (("nonstream", answers), ("stream", chunks)):
        own, other = ([run.cpu_us for run in runs[name]] for name in ("vipcloud", "nginx"))
        numbers[f"{key}_cpu_ratio_nginx"] = ratio(own, other)

    with_valkey, without = ([run.cpu_us for run in answers[name]] for name in ("valkey", "vipcloud"))
    numbers["nonstream_cpu_us_valkey"] = median(with_valkey)
    numbers["nonstream_cpu_ratio_valkey"] = ratio(with_valkey, without)

    behind = {"nonstream": plain(answers), "latency": plain(latencies), "stream": plain(chunks)}
    return {key: round(number, 2) for key, number in numbers.items()}, behind


def plain(runs: Mapping[str, Sequence[Answers | Chunks]]) -> dict[str, list[dict[str, float]]]:
    return {name: [asdict(run) for run in of] for name, of in runs.items()}


def table(numbers: dict[str, float]) -> Table:
    rows = [
        ("CPU per request", "µs", "nonstream_cpu_us", "nonstream_cpu_ratio_nginx"),
        ("CPU per streamed chunk", "µs", "stream_cpu_us_per_chunk", "stream_cpu_ratio_nginx"),
        ("memory per open stream", "KiB", "rss_kib_per_stream", None),
        ("memory at rest", "KiB", "rss_kib_idle", None),
        ("requests, 32 connections", "/s", "nonstream_per_s", None),
        ("chunks, 500 streams", "/s", "stream_chunks_per_s", None),
        ("added latency, p50", "µs", "added_latency_p50_us", None),
        ("added latency, p99", "µs", "added_latency_p99_us", None),
    ]
    made = Table(title="One core, beside nginx proxy_pass")
    made.add_column("", no_wrap=True)
    for heading in ("nginx", "vipcloud", "unit", "× nginx", "goal"):
        made.add_column(heading, justify="right" if heading != "unit" else "left")
    for title, unit, key, ratio_key in rows:
        factor = f"{numbers[ratio_key]:.2f}" if ratio_key else ""
        judged = ratio_key or key
        goal = GOALS.get(judged)
        verdict = "" if goal is None else f"[{'green' if numbers[judged] <= goal else 'red'}]≤ {goal:g}[/]"
        made.add_row(title, f"{numbers[f'nginx_{key}']:,.1f}", f"{numbers[key]:,.1f}", unit, factor, verdict)
    beside, most = numbers["nonstream_cpu_ratio_valkey"], GOALS["nonstream_cpu_ratio_valkey"]
    made.caption = (
        f"With limits and credit in Valkey: {numbers['nonstream_cpu_us_valkey']:,.1f} µs per request, "
        f"[{'green' if beside <= most else 'red'}]{beside:.2f} × without[/] (goal ≤ {most:g}), "
        "Valkey itself not counted"
    )
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description="What the gateway costs beside nginx.")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each contestant that count (5: about 3 minutes)")
    arguments = parser.parse_args()
    try:
        with place() as where:
            numbers, rounds = measure(where, arguments.rounds)
    except BenchError as error:
        sys.exit(f"bench: {error}")
    file = report.write("latest", numbers, rounds)
    console.print(table(numbers))
    console.print(f"Written to {file.relative_to(ROOT)}")


if __name__ == "__main__":
    main()

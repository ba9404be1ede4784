"""The parts of a benchmark. Each starts its upstream and its contestants afresh and lets them take turns: A B A B …

The contestants share one core and the upstream and the load another, so a run of one never competes with a run of the
other, and what disturbs the machine for a while disturbs neighbours alike.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TypeVar

import load
from contestants import Contestant, Pace, stream_upstream, unary_upstream
from process import rss_kib

Result = TypeVar("Result")
Starter = Callable[[Path, int, int], AbstractContextManager[Contestant]]  # folder, core, port of the upstream

CONNECTIONS = 32
STREAM_PACE = Pace(chunks=100, interval_ms=20)
HELD_PACE = Pace(chunks=600, interval_ms=1000)
HELD_BATCH = 500
HELD_SETTLE_S = 7


@dataclass(frozen=True, slots=True)
class Place:
    """Where a benchmark runs: a folder for its files, a core for the contestants, one for upstream and load."""

    folder: Path
    core: int
    load_core: int


@dataclass(frozen=True, slots=True)
class Memory:
    """Resident memory in KiB: of the fresh program, for each of the first 1000 streams, for each of the second 500."""

    idle_kib: int
    stream_kib: float
    stream_marginal_kib: float


def answers(place: Place, starters: Sequence[Starter], rounds: int, duration_s: int) -> dict[str, list[load.Answers]]:
    """Single answers over 32 connections, a run for each contestant and round, after a warm-up that does not count."""

    def run(contestant: Contestant) -> load.Answers:
        return load.answers(contestant, place.folder, place.load_core, connections=CONNECTIONS, duration_s=duration_s)

    with ExitStack() as stack:
        upstream = stack.enter_context(unary_upstream(place.folder, place.load_core))
        return _in_turns(_start(stack, place, starters, upstream.port), rounds, run)


def latencies(place: Place, starters: Sequence[Starter], rounds: int, duration_s: int) -> dict[str, list[load.Answers]]:
    """Single answers over one connection; the upstream itself, asked directly, takes its turn as `direct`."""

    def run(contestant: Contestant) -> load.Answers:
        return load.answers(contestant, place.folder, place.load_core, connections=1, duration_s=duration_s)

    with ExitStack() as stack:
        upstream = stack.enter_context(unary_upstream(place.folder, place.load_core))
        return _in_turns([upstream, *_start(stack, place, starters, upstream.port)], rounds, run)


def streams(
    place: Place, starters: Sequence[Starter], rounds: int, streams: int, repeats: int
) -> dict[str, list[load.Chunks]]:
    """`streams` at once at 50 chunks a second each, a run for each contestant and round, after a warm-up."""

    def run(contestant: Contestant) -> load.Chunks:
        return load.chunks(
            contestant, place.folder, place.load_core, streams=streams, repeats=repeats, pace=STREAM_PACE
        )

    with ExitStack() as stack:
        upstream = stack.enter_context(stream_upstream(place.folder, place.load_core, STREAM_PACE))
        return _in_turns(_start(stack, place, starters, upstream.port), rounds, run)


def memory(place: Place, starters: Sequence[Starter]) -> dict[str, Memory]:
    """What open streams that speak once a second hold in memory, each contestant by itself and fresh."""
    return dict(_memory(place, starter) for starter in starters)


def _memory(place: Place, starter: Starter) -> tuple[str, Memory]:
    with ExitStack() as stack:
        upstream = stack.enter_context(stream_upstream(place.folder, place.load_core, HELD_PACE))
        [contestant] = _start(stack, place, [starter], upstream.port)
        time.sleep(HELD_SETTLE_S)  # a helper process may still be starting
        sizes_kib = [rss_kib(contestant.pid)]
        for _ in range(2):
            stack.enter_context(load.held_streams(contestant, place.folder, place.load_core, HELD_BATCH))
            time.sleep(HELD_SETTLE_S)
            sizes_kib.append(rss_kib(contestant.pid))
    idle_kib, first_kib, both_kib = sizes_kib
    return contestant.name, Memory(
        idle_kib=idle_kib,
        stream_kib=(both_kib - idle_kib) / (2 * HELD_BATCH),
        stream_marginal_kib=(both_kib - first_kib) / HELD_BATCH,
    )


def ratio(own: Sequence[float], other: Sequence[float]) -> float:
    """The median over the pairs of neighbouring runs."""
    return median(mine / theirs for mine, theirs in zip(own, other, strict=True))


def _start(stack: ExitStack, place: Place, starters: Sequence[Starter], upstream_port: int) -> list[Contestant]:
    return [stack.enter_context(starter(place.folder, place.core, upstream_port)) for starter in starters]


def _in_turns(
    contestants: Sequence[Contestant], rounds: int, run: Callable[[Contestant], Result]
) -> dict[str, list[Result]]:
    results: dict[str, list[Result]] = {contestant.name: [] for contestant in contestants}
    for number in range(rounds + 1):
        for contestant in contestants:
            result = run(contestant)
            if number > 0:  # the first round warms up
                results[contestant.name].append(result)
    return results

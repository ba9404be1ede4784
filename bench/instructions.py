"""`make bench-instructions`: how many instructions of the gateway an unstreamed request takes, and a streamed chunk.

valgrind counts them, so they are the same on a busy machine as on an idle one: for comparing two states of the code.
They are not time. Most of a request's time is waiting for code and data that are in no near cache
(docs/decisions/0038), so half the instructions is not half the time; `make bench` has the time.
"""

import argparse
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.table import Table

import load
import report
from contestants import ROOT, Contestant, Pace, gateway_in_valgrind, stream_upstream, unary_upstream
from process import BenchError
from run import place

CONNECTIONS = 8
STREAMS = 60
PACE = Pace(chunks=100, interval_ms=20)
WARM_UP_S = 8  # what is compared, recognised or remembered has been met by then; valgrind takes fifty times as long
ANSWERS_S = 10
OTHERS = "other libraries"
SHOWN = 6  # libraries

_NAME = re.compile(r"\((\d+)\)(?: (.*))?")

console = Console()


@contextmanager
def counted(contestant: Contestant, dump: Path) -> Iterator[Counter[str]]:
    """The instructions of the gateway's process by the file that they are in: filled when what is inside has ended.

    `dump` is what callgrind calls its next one.
    """
    found: Counter[str] = Counter()
    _control(contestant, "--instr=on")
    yield found
    _control(contestant, "--instr=off")
    _control(contestant, "--dump")
    deadline_s = time.monotonic() + 30
    while not dump.exists() or "totals:" not in dump.read_text():
        if time.monotonic() > deadline_s:
            raise BenchError("valgrind wrote nothing")
        time.sleep(0.2)
    found.update(by_library(dump.read_text()))


def by_library(profile: str) -> Counter[str]:
    """A callgrind profile's own costs by the file that holds the code. Its format is in valgrind's manual."""
    found: Counter[str] = Counter()
    names: dict[str, str] = {}
    library, is_call = "", False
    for line in profile.splitlines():
        if line.startswith(("ob=", "cob=")):
            match = _NAME.fullmatch(line.partition("=")[2])
            assert match is not None, "callgrind numbers its names"
            name = names.setdefault(match[1], match[2] or "")
            library = name if line.startswith("ob=") else library
        elif line.startswith("calls="):
            is_call = True  # the next line's cost is the callee's
        elif line[:1].isdigit() or line[:1] in ("+", "-", "*"):
            if not is_call:
                found[Path(library).name.partition(".cpython")[0]] += int(line.split()[1])
            is_call = False
    return found


def _control(contestant: Contestant, what: str) -> None:
    done = subprocess.run(["callgrind_control", what, str(contestant.pid)], capture_output=True, text=True)
    if done.returncode:
        raise BenchError(f"callgrind_control {what} failed:\n{done.stdout}{done.stderr}")


def of_answers(folder: Path, core: int, load_core: int) -> dict[str, float]:
    """Of an unstreamed request."""

    def ask(contestant: Contestant, duration_s: float) -> int:
        return load.answers(contestant, folder, load_core, connections=CONNECTIONS, duration_s=duration_s).requests

    with unary_upstream(folder, load_core) as upstream:
        output = folder / "answers.callgrind"
        with gateway_in_valgrind(folder, core, upstream.port, output) as contestant:
            ask(contestant, WARM_UP_S)
            return _each(contestant, output, lambda: ask(contestant, ANSWERS_S))


def of_chunks(folder: Path, core: int, load_core: int) -> dict[str, float]:
    """Of a streamed chunk, opening and end of its stream included."""

    def ask(contestant: Contestant) -> int:
        load.chunks(contestant, folder, load_core, streams=STREAMS, repeats=1, pace=PACE)
        return STREAMS * PACE.chunks

    with stream_upstream(folder, load_core, PACE) as upstream:
        output = folder / "chunks.callgrind"
        with gateway_in_valgrind(folder, core, upstream.port, output) as contestant:
            ask(contestant)
            return _each(contestant, output, lambda: ask(contestant))


def _each(contestant: Contestant, output: Path, ask: Callable[[], int]) -> dict[str, float]:
    """Without what the gateway does in that time in any case, of which there is much: everything takes so long."""
    began_s = time.monotonic()
    with counted(contestant, output.with_name(f"{output.name}.1")) as found:
        units = ask()
    took_s = time.monotonic() - began_s
    with counted(contestant, output.with_name(f"{output.name}.2")) as idle:
        time.sleep(took_s)
    found.subtract(idle)
    return {library: instructions / units for library, instructions in found.most_common()}


def table(answers: dict[str, float], chunks: dict[str, float]) -> Table:
    made = Table(title="Instructions of the gateway's process")
    made.add_column("", no_wrap=True)
    for heading in ("unstreamed request", "streamed chunk"):
        made.add_column(heading, justify="right")
    shown = list(answers)[:SHOWN]
    for library in (*shown, OTHERS, "all"):
        row = [
            sum(count for name, count in counts.items() if library in ("all", name if name in shown else OTHERS))
            for counts in (answers, chunks)
        ]
        made.add_row(library, *(f"{count:,.0f}" for count in row), end_section=library == OTHERS)
    return made


def main() -> None:
    argparse.ArgumentParser(description="Instructions of a request and of a chunk.").parse_args()
    try:
        with place() as where:
            with console.status("Single answers …"):
                answers = of_answers(where.folder, where.core, where.load_core)
            with console.status("Streams …"):
                chunks = of_chunks(where.folder, where.core, where.load_core)
    except BenchError as error:
        sys.exit(f"bench: {error}")
    numbers = {"instructions_per_request": sum(answers.values()), "instructions_per_chunk": sum(chunks.values())}
    file = report.write("instructions", numbers, {"nonstream": answers, "stream": chunks})
    console.print(table(answers, chunks))
    console.print(f"Written to {file.relative_to(ROOT)}")


if __name__ == "__main__":
    main()

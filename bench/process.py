"""Processes of a benchmark: pinned to one core, measured from /proc with all their descendants, and ended."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
PAGE_KIB = os.sysconf("SC_PAGE_SIZE") // 1024
STOP_TIMEOUT_S = 15
QUIET_TIMEOUT_S = 20
QUIET_WINDOW_S = 0.5
QUIET_CPU_S = 0.02  # within a window: what an idle program's own housekeeping may take


class BenchError(Exception):
    """The benchmark cannot go on; the text says why."""


def family(pid: int) -> list[int]:
    """`pid` and all its living descendants."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (fields := _stat(int(entry.name))):
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    found = [pid]
    for member in found:  # grows while it is walked: generation after generation
        found.extend(children.get(member, []))
    return found


def cpu_s(pid: int) -> float:
    """Seconds of CPU, user and system, that the family of `pid` has used, its dead and reaped children included."""
    ticks = sum(int(field) for member in family(pid) if (fields := _stat(member)) for field in fields[11:15])
    return ticks / TICKS_PER_S


def rss_kib(pid: int) -> int:
    """Resident memory of the family of `pid`, pages shared between its members counted for each."""
    pages = 0
    for member in family(pid):
        try:
            pages += int(Path(f"/proc/{member}/statm").read_text().split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended while we looked
    return pages * PAGE_KIB


def quiet_cpu_s(pid: int) -> float:
    """`cpu_s` once the family is idle, so that work left behind (a lagging bookkeeper) is counted too.

    Raises BenchError if it is still busy after QUIET_TIMEOUT_S.
    """
    deadline_s = time.monotonic() + QUIET_TIMEOUT_S
    before_s = cpu_s(pid)
    while time.monotonic() < deadline_s:
        time.sleep(QUIET_WINDOW_S)
        now_s = cpu_s(pid)
        if now_s - before_s <= QUIET_CPU_S:
            return now_s
        before_s = now_s
    raise BenchError(f"process {pid} was still busy {QUIET_TIMEOUT_S} s after its load had ended")


@contextmanager
def running(
    command: Sequence[str | Path], *, core: int, log: Path, environment: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """`command`, with its descendants, on `core`, its output in `log`; ended on leaving."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["taskset", "--cpu-list", str(core), *map(str, command)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=dict(environment) if environment is not None else None,
            start_new_session=True,  # an interrupt from the keyboard reaches us, and we end our processes in order
        )
    try:
        yield process
    finally:
        _stop(process)


def _stop(process: subprocess.Popen[bytes]) -> None:
    members = family(process.pid)
    process.terminate()
    try:
        process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        for member in members:
            if Path(f"/proc/{member}").exists():
                os.kill(member, signal.SIGKILL)
        process.wait(STOP_TIMEOUT_S)


def _stat(pid: int) -> list[str]:
    """Fields of /proc/PID/stat from the third on (state, parent, …); empty for a process that is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []

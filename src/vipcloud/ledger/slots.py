"""Names for the gateways that write one journal folder one after the other, and at times side by side.

A gateway that takes over from another runs beside it until that has drained, so each needs a name, files and a lock of
its own: the settings' name, or that with `x2`, `x3`, …: the first that nobody holds. A lock ends with its process, so
whose lock can be had is gone, and what it left open is nobody's but ours to settle.
"""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

SLOTS_MAX = 9  # how many drain at the same time, at most


def names(worker: str) -> list[str]:
    """The names of one folder's gateways, in the order in which they are taken."""
    return [worker, *(f"{worker}x{number}" for number in range(2, SLOTS_MAX + 1))]


def used(directory: Path, worker: str) -> list[str]:
    """Those that ever had a gateway."""
    return [name for name in names(worker) if _lock(directory, name).exists()]


@contextlib.contextmanager
def held(directory: Path, name: str) -> Iterator[bool]:
    """Keep others from taking `name` until the block ends; False if a living gateway has it. Raises OSError."""
    lock = os.open(_lock(directory, name), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(lock)


def _lock(directory: Path, name: str) -> Path:
    return directory / f"{name}.lock"

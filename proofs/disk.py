"""A disk that fails: full, broken on write, on truncation, on opening a file, on fdatasync; at any call, by a seed.

`python proofs/disk.py --rounds 2000`. The journal under test is the real one on real files; only its system calls go
through a `Disk` that lets some of them fail, after it has done part of their work. What must hold: a record whose
append was refused is not in the journal, every settled record is in it exactly once when the disk is well again, in
order; nothing in any file is unreadable; while the disk fails nothing is admitted.
"""

import argparse
import asyncio
import errno
import logging
import os
import random
import tempfile
import time
from pathlib import Path

import msgspec
import structlog
from sqlalchemy import Engine

from vipcloud.clock import ManualClock
from vipcloud.ledger import audit, bookkeeper, journal, store
from vipcloud.ledger.journal import Journal, JournalError, Syncer
from vipcloud.ledger.records import Opened, Settled
from vipcloud.ledger.rules import orphaned
from vipcloud.storage import engine as storage
from vipcloud.storage import migrate

BOOKED_EVERY = 100  # rounds


class Disk:
    """`os`, but for calls that fail while `failing`, each with the chance given."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.failing = 0.0
        self.failures = 0

    def _may_fail(self) -> None:
        if self.chance.random() < self.failing:
            self.failures += 1
            code = self.chance.choice([errno.ENOSPC, errno.EIO])
            raise OSError(code, os.strerror(code))

    def open(self, path: Path, flags: int, mode: int = 0o777, /) -> int:
        self._may_fail()
        return os.open(path, flags, mode)

    def write(self, file: int, data: bytes, /) -> int:
        if self.chance.random() < self.failing:
            self.failures += 1
            taken = self.chance.randint(0, len(data))
            if taken:
                os.write(file, data[:taken])
            if taken == len(data) or self.chance.random() < 0.5:
                code = self.chance.choice([errno.ENOSPC, errno.EIO])
                raise OSError(code, os.strerror(code))  # though some of it, or all, has been written
            return taken
        return os.write(file, data)

    def ftruncate(self, file: int, length: int, /) -> None:
        self._may_fail()
        os.ftruncate(file, length)

    def fdatasync(self, file: int, /) -> None:
        self._may_fail()

    def close(self, file: int, /) -> None:
        os.close(file)


class Round:
    """One life of a journal on a disk that fails now and then."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.chance = random.Random(seed)
        self.disk = Disk(self.chance)
        self.turns: list[object] = []
        clock = ManualClock(1_795_000_000 + seed)
        self.journal = Journal(
            folder,
            self.turns.append,
            clock,
            file_bytes_max=self.chance.choice([300, 2000, 1 << 20]),
            files=self.disk,
            synced=True,
        )
        self.syncer = Syncer(self.journal, folder, 1.0, self.disk)
        self.folder = folder
        self.seed = seed
        self.settled: list[str] = []
        self.refused: set[str] = set()
        self.admitted: set[str] = set()

    async def play(self) -> None:
        for number in range(self.chance.randint(5, 40)):
            if self.chance.random() < 0.2:
                self.disk.failing = self.chance.choice([0.0, 0.0, 0.3, 0.9, 1.0])
            name = f"r{self.seed}-{number}"
            opened = Opened(name, "a", None, "m", 100, 1.0)
            was_failing = self.journal.failing and self.disk.failing == 1.0
            try:
                self.journal.append(opened)
            except JournalError:
                self.refused.add(name)
            else:
                assert not was_failing, "a request was admitted while the disk fails"
                self.admitted.add(name)
            if self.chance.random() < 0.5:
                self._turn()
            if name in self.admitted:
                self.settled.append(name)
                try:
                    self.journal.keep(ended(opened))
                    self.journal.flush()
                except JournalError:
                    assert self.journal.failing, "a failed append says so"
            if self.chance.random() < 0.3:
                await self.syncer.sync()
        self.disk.failing = 0.0
        await self.syncer.sync()
        self._turn()
        self.journal.append(Opened(f"r{self.seed}-last", "a", None, "m", 100, 1.0))
        await self.syncer.sync()
        assert not self.journal.failing, "a disk that is well again is used again"
        self.journal.close()

    def _turn(self) -> None:
        """What the event loop does between two callbacks."""
        turns, self.turns[:] = list(self.turns), []
        for turn in turns:
            turn()  # type: ignore[operator]

    def check(self) -> None:
        found: list[str] = []
        opened: set[str] = set()
        for file in journal.files(self.folder):
            data = file.path.read_bytes()
            parsed = journal.parse(data)
            assert journal.next_frame(data[parsed.end :], 1) is None, "there is damage inside a file"
            for record in parsed.records:
                if type(record) is Settled:
                    found.append(record.request_id)
                elif type(record) is Opened:
                    opened.add(record.request_id)
        mine = [name for name in found if name.startswith(f"r{self.seed}-")]
        unique = list(dict.fromkeys(mine))
        assert unique == self.settled, "a settled record is missing, or out of order"
        assert not opened & self.refused, "a refused request is in the journal"


def ended(opened: Opened) -> Settled:
    row = orphaned(opened, None)
    return msgspec.structs.replace(row, outcome="complete", provider="p", charge_nanousd=7, cost_nanousd=5)


async def play(rounds: int, seed: int) -> dict[str, int]:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    counts = {"rounds": 0, "failures": 0, "settled": 0, "refused": 0}
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=memory) as name:
        folder = Path(name)
        engine = storage.open_engine(folder / "books.db")
        migrate.upgrade(engine)
        try:
            for number in range(rounds):
                directory = folder / "journal" / f"part{number // BOOKED_EVERY}"
                one = Round(directory, seed * 10_000_000 + number)
                try:
                    await one.play()
                    one.check()
                except AssertionError as error:
                    raise AssertionError(f"round {one.seed}: {error}") from error
                counts["rounds"] += 1
                counts["failures"] += one.disk.failures
                counts["settled"] += len(one.settled)
                counts["refused"] += len(one.refused)
                if counts["rounds"] % BOOKED_EVERY == 0 or counts["rounds"] == rounds:
                    book(engine, directory, counts["settled"])
        finally:
            engine.dispose()
    return counts


def book(engine: Engine, directory: Path, settled: int) -> None:
    """Everything is booked once, whatever stands twice in the files."""
    Journal(directory, lambda _: None, ManualClock(4_000_000_000)).close()
    bookkeeper.catch_up(engine, directory)
    with storage.reading(engine) as connection:
        breaks = audit.Audit().check(connection)
        charged = store.sums(connection, "a").debits_nanousd
    assert breaks == [], breaks
    assert charged == 7 * settled, f"{charged} charged for {settled} requests of 7"
    assert bookkeeper.damaged_files(engine, directory) == {}


def main() -> None:
    parser = argparse.ArgumentParser(description="Journal on a disk that fails.")
    parser.add_argument("--rounds", type=int, default=2_000)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    began = time.monotonic()
    counts = asyncio.run(play(given.rounds, given.seed))
    print(
        f"disk: {counts['rounds']:,} lives of a journal, {counts['failures']:,} calls failed (ENOSPC, EIO, short "
        f"writes; on write, open, ftruncate, fdatasync), seed {given.seed}, {time.monotonic() - began:.0f} s\n"
        f"  {counts['settled']:,} settled requests, each booked once; {counts['refused']:,} refused while the disk "
        "failed, none of them on record; 0 bytes unreadable"
    )


if __name__ == "__main__":
    main()

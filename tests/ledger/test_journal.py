import contextlib
import errno
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TextIO, cast

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from vipcloud.clock import ManualClock
from vipcloud.ledger import journal
from vipcloud.ledger.journal import Journal, JournalError, Syncer
from vipcloud.ledger.records import Opened, Record, Settled
from vipcloud.telemetry import logs

text = st.text(st.characters(codec="utf-8"), max_size=40)
count = st.integers(0, 2**53)
settled = st.builds(
    Settled,
    text,
    text,
    st.none() | text,
    text,
    st.none() | text,
    st.none() | text,
    st.booleans(),
    text,
    count,
    count,
    count,
    count,
    st.booleans(),
    count,
    count,
    st.floats(0, 2e9),
    count,
    st.none() | count,
    count,
)
opened = st.builds(Opened, text, text, st.none() | text, text, count, st.floats(0, 2e9))
records = st.lists(settled | opened, min_size=1, max_size=5)


def request(number: int) -> Opened:
    return Opened(f"req_{number}", "acct_1", "key_1", "deepseek-chat", 5, 7.0)


class Turns:
    """An event loop's `call_soon`, run by hand."""

    def __init__(self) -> None:
        self.waiting: list[Callable[[], None]] = []

    def __call__(self, callback: Callable[[], None]) -> None:
        self.waiting.append(callback)

    def run(self) -> None:
        while self.waiting:
            self.waiting.pop(0)()


@pytest.fixture
def turns() -> Turns:
    return Turns()


def written(directory: Path) -> list[Record]:
    found = []
    for file in journal.files(directory):
        data = file.path.read_bytes()
        parsed = journal.parse(data)
        assert parsed.end == len(data)
        found += parsed.records
    return found


@given(records)
def test_what_is_written_is_read(given_records: list[Record]) -> None:
    data = b"".join(map(journal.frame, given_records))
    assert journal.parse(data) == journal.Parsed(given_records, len(data), unknown=False)


@given(records)
def test_a_cut_at_any_byte_loses_the_last_record_only(given_records: list[Record]) -> None:
    last = journal.frame(given_records[-1])
    before = b"".join(map(journal.frame, given_records[:-1]))
    for cut in range(len(last)):
        data = before + last[:cut]
        assert journal.parse(data) == journal.Parsed(given_records[:-1], len(before), unknown=False)
        assert journal.next_frame(data[len(before) :], 1) is None, "a torn tail is not taken for damage"
        if any(last[cut:]):
            assert journal.parse(data + bytes(99)).end == len(before), "nor are a power cut's zeros read as records"


@given(records, st.data())
def test_a_flipped_byte_is_found_and_what_follows_it_is_not_lost(
    given_records: list[Record], data: st.DataObject
) -> None:
    frames = [journal.frame(record) for record in given_records]
    at = data.draw(st.integers(0, len(frames[0]) - 1))
    flipped = bytearray(b"".join(frames))
    flipped[at] ^= data.draw(st.integers(1, 255))
    assert journal.parse(bytes(flipped)) == journal.Parsed([], 0, unknown=False)
    assert journal.next_frame(bytes(flipped), 1) == (len(frames[0]) if len(frames) > 1 else None)


def test_a_record_of_a_later_version_is_named_not_skipped() -> None:
    sound = journal.frame(request(1))
    payload = b"\x92\xa7unknown\x01"
    strange = len(payload).to_bytes(4, "little") + journal.crc32(payload).to_bytes(4, "little") + payload
    assert journal.parse(sound + strange + sound) == journal.Parsed([request(1)], len(sound), unknown=True)


def test_the_records_of_one_turn_go_out_in_one_write(tmp_path: Path, turns: Turns) -> None:
    book = Journal(tmp_path, turns, ManualClock())
    for number in range(3):
        book.append(request(number))
    assert written(tmp_path) == []
    assert len(turns.waiting) == 1
    turns.run()
    assert written(tmp_path) == [request(number) for number in range(3)]
    book.append(request(3))
    turns.run()
    book.append(request(4))
    book.close()
    turns.run()
    assert written(tmp_path) == [request(number) for number in range(5)]


def test_a_record_that_must_be_there_now_takes_the_earlier_ones_with_it(tmp_path: Path, turns: Turns) -> None:
    book = Journal(tmp_path, turns, ManualClock())
    book.append(request(1))
    book.keep(request(2))
    book.flush()
    assert written(tmp_path) == [request(1), request(2)]
    turns.run()
    assert written(tmp_path) == [request(1), request(2)]
    book.close()


@pytest.mark.parametrize(
    "bad",
    [
        Opened("bad", "acct_1", "key_1", "deepseek-chat", 2**70, 7.0),
        Opened("bad", "acct_1", "key_1", "\ud800", 5, 7.0),
        Opened("bad", "acct_1", "key_1", "x" * 70_000, 5, 7.0),
        Opened("bad", "acct_1", "key_1", "deepseek-chat", object(), 7.0),  # type: ignore[arg-type]
    ],
    ids=["a number above 64 bits", "half a character", "too long", "of no type it knows"],
)
@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_record_that_cannot_be_written_is_logged_and_holds_up_no_other(
    tmp_path: Path, turns: Turns, bad: Opened, place: int
) -> None:
    book = Journal(tmp_path, turns, ManualClock())
    given_records = [request(1), request(2)]
    given_records.insert(place, bad)
    with capture_logs() as logged:
        for record in given_records:
            book.keep(record)
        turns.run()
    assert written(tmp_path) == [request(1), request(2)]
    (line,) = logged
    assert (line["event"], line["log_level"], line["exc_info"]) == ("record_not_encoded", "error", True)
    assert line["record"].startswith("Opened(request_id='bad', account_id='acct_1'")
    assert len(line["record"]) <= journal.LOGGED_CHARS_MAX
    assert not book.failing
    book.append(request(3))
    turns.run()
    assert written(tmp_path) == [request(1), request(2), request(3)]
    book.close()


def test_a_full_file_is_followed_by_another(tmp_path: Path, turns: Turns) -> None:
    book = Journal(tmp_path, turns, ManualClock(1_795_000_000), file_bytes_max=200)
    for number in range(10):
        book.keep(request(number))
        book.flush()
    book.close()
    found = journal.files(tmp_path)
    assert [file.number for file in found] == list(range(1_795_000_000, 1_795_000_000 + len(found)))
    assert [file.live for file in found] == [False] * (len(found) - 1) + [True]
    assert all(file.path.stat().st_size < 300 for file in found)
    assert written(tmp_path) == [request(number) for number in range(10)]


def test_a_new_process_writes_a_new_file_whatever_the_clock_says(tmp_path: Path, turns: Turns) -> None:
    for wall_s in (1000, 1000, 5, 2000):
        book = Journal(tmp_path, turns, ManualClock(wall_s))
        book.keep(request(wall_s))
        book.flush()
        book.close()
    assert [file.number for file in journal.files(tmp_path)] == [1000, 1001, 1002, 2000]
    for file in journal.files(tmp_path):
        file.path.unlink()
    Journal(tmp_path, turns, ManualClock(3000)).close()
    assert [file.number for file in journal.files(tmp_path)] == [3000]


def test_each_worker_has_files_of_its_own(tmp_path: Path, turns: Turns) -> None:
    workers = [Journal(tmp_path, turns, ManualClock(1), worker=f"w{n}") for n in range(2)]
    (tmp_path / "notes.txt").write_text("not a journal file")
    assert [(file.worker, file.live) for file in journal.files(tmp_path)] == [("w0", True), ("w1", True)]
    for worker in workers:
        worker.close()


def test_a_folder_has_one_writer_per_worker(tmp_path: Path, turns: Turns) -> None:
    first = Journal(tmp_path, turns, ManualClock())
    with pytest.raises(JournalError, match="Another process writes the journal"):
        Journal(tmp_path, turns, ManualClock())
    assert len(journal.files(tmp_path)) == 1
    first.close()
    Journal(tmp_path, turns, ManualClock()).close()


def test_a_folder_that_cannot_be_written_is_said_at_once(tmp_path: Path, turns: Turns) -> None:
    (tmp_path / "journal").write_text("a file where the folder should be")
    with pytest.raises(JournalError, match="cannot be written: File exists"):
        Journal(tmp_path / "journal", turns, ManualClock())


@pytest.fixture
def file_size_limit() -> Iterator[Callable[[int], None]]:
    """Sets how large a file of this process may get: a disk that is full at a byte of our choice (EFBIG).

    The log may be on it, too: here it is where pytest keeps what a test writes.
    """
    structlog.configure(logger_factory=structlog.WriteLoggerFactory(cast(TextIO, logs.Unfailing(sys.stderr))))
    old, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    signal_before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (old if size < 0 else size, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (old, hard))
    signal.signal(signal.SIGXFSZ, signal_before)
    structlog.reset_defaults()


def test_a_disk_that_fills_up_at_any_byte_stops_admission_and_corrupts_nothing(
    tmp_path: Path, turns: Turns, file_size_limit: Callable[[int], None]
) -> None:
    one = len(journal.frame(request(1)))
    for room in range(1, 3 * one):
        directory = tmp_path / str(room)
        book = Journal(directory, turns, ManualClock())
        book.keep(request(1))
        book.flush()
        book.append(request(2))
        file_size_limit(one + room)
        if room < 2 * one:
            book.keep(request(3))
            with pytest.raises(JournalError, match="The journal cannot be written: File too large"):
                book.flush()
            assert book.failing
            assert written(directory) == [request(1)]
            if room < one:
                with pytest.raises(JournalError):
                    book.append(request(4))
        else:
            book.keep(request(3))
            book.flush()
        file_size_limit(-1)
        turns.run()
        book.keep(request(5))
        book.flush()
        assert not book.failing
        assert written(directory) == [request(1), request(2), request(3), request(5)]
        book.close()


def test_a_lone_record_that_a_full_disk_cuts_at_any_byte_is_kept_and_goes_out_with_the_next(
    tmp_path: Path, turns: Turns, file_size_limit: Callable[[int], None]
) -> None:
    one = len(journal.frame(request(1)))
    for room in range(one):
        directory = tmp_path / str(room)
        book = Journal(directory, turns, ManualClock())
        book.keep(request(1))
        book.flush()
        file_size_limit(one + room)
        book.keep(request(2))
        with pytest.raises(JournalError, match="The journal cannot be written: File too large"):
            book.flush()
        assert book.failing
        assert written(directory) == [request(1)]
        file_size_limit(-1)
        book.keep(request(3))
        book.flush()
        assert not book.failing
        assert written(directory) == [request(1), request(2), request(3)]
        book.close()


def test_a_failed_write_in_the_background_shows_at_the_next_append(
    tmp_path: Path, turns: Turns, file_size_limit: Callable[[int], None]
) -> None:
    book = Journal(tmp_path, turns, ManualClock())
    file_size_limit(10)
    book.append(request(1))
    assert not book.failing
    turns.run()
    assert book.failing
    with pytest.raises(JournalError):
        book.append(request(2))
    file_size_limit(-1)
    book.append(request(3))
    turns.run()
    assert not book.failing
    assert written(tmp_path) == [request(1), request(3)]
    book.close()


def test_a_killed_process_has_what_it_promised_on_record(tmp_path: Path) -> None:
    program = """
import os, signal, sys
from pathlib import Path
from vipcloud.clock import SystemClock
from vipcloud.ledger.journal import Journal
from vipcloud.ledger.records import Opened
book = Journal(Path(sys.argv[1]), lambda callback: None, SystemClock())
for number in range(100):
    book.keep(Opened(f"req_{number}", "acct_1", "key_1", "deepseek-chat", 5, 7.0))
    book.flush()
os.kill(os.getpid(), signal.SIGKILL)
"""
    died = subprocess.run([sys.executable, "-c", program, str(tmp_path)], timeout=20, check=False)
    assert died.returncode == -signal.SIGKILL
    assert written(tmp_path) == [request(number) for number in range(100)]


def test_files_can_be_read_by_nobody_else(tmp_path: Path, turns: Turns) -> None:
    Journal(tmp_path, turns, ManualClock()).close()
    assert {os.stat(path).st_mode & 0o077 for path in tmp_path.iterdir()} == {0}


class Spoiling:
    """`os`, but for calls that fail as often as is asked for; a write that fails has done half of its work."""

    def __init__(self) -> None:
        self.fails: dict[str, int] = {}

    def _may_fail(self, name: str) -> None:
        if self.fails.get(name):
            self.fails[name] -= 1
            raise OSError(5, "Input/output error")

    def open(self, path: Path, flags: int, mode: int = 0o600, /) -> int:
        self._may_fail("open")
        return os.open(path, flags, mode)

    def write(self, file: int, data: bytes, /) -> int:
        if self.fails.get("write"):
            os.write(file, data[: len(data) // 2])
        self._may_fail("write")
        return os.write(file, data)

    def ftruncate(self, file: int, length: int, /) -> None:
        self._may_fail("ftruncate")
        os.ftruncate(file, length)

    def fdatasync(self, file: int, /) -> None:
        self._may_fail("fdatasync")

    def close(self, file: int, /) -> None:
        os.close(file)


def test_a_file_whose_end_cannot_be_cut_off_is_left_and_loses_nothing(tmp_path: Path, turns: Turns) -> None:
    disk = Spoiling()
    book = Journal(tmp_path, turns, ManualClock(), file_bytes_max=60, files=disk)
    book.keep(request(1))
    book.flush()
    book.keep(request(2))  # beyond the file's size: the next one goes into another
    book.flush()
    disk.fails = {"open": 3, "ftruncate": 1}
    for number in (3, 4):
        book.keep(request(number))
        with pytest.raises(JournalError, match="cannot be written: Input/output error"):
            book.flush()
    disk.fails = {}
    book.keep(request(5))
    book.flush()
    assert written(tmp_path) == [request(number) for number in range(1, 6)]
    book.close()


async def test_a_disk_that_cannot_keep_what_was_written_stops_admission_until_it_can(
    tmp_path: Path, turns: Turns
) -> None:
    disk = Spoiling()
    book = Journal(tmp_path, turns, ManualClock(), files=disk, synced=True)
    syncer = Syncer(book, tmp_path, 1.0, disk)
    book.keep(request(1))
    book.flush()
    await syncer.sync()
    disk.fails = {"fdatasync": 2}
    await syncer.sync()
    assert disk.fails == {"fdatasync": 2}, "nothing was new"
    book.keep(request(2))
    book.flush()
    await syncer.sync()
    assert book.failing
    with pytest.raises(JournalError, match="cannot be put on the disk"):
        book.append(request(3))
    book.keep(request(4))  # what runs is settled all the same
    book.flush()
    await syncer.sync()
    assert book.failing
    await syncer.sync()
    assert not book.failing
    book.append(request(5))
    turns.run()
    assert written(tmp_path) == [request(number) for number in (1, 2, 4, 5)]
    book.close()


async def test_files_of_which_no_copy_can_be_had_are_put_on_the_disk_later(
    tmp_path: Path, turns: Turns, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As at the limit of open files: that must stop admission, and not the process."""
    put: list[int] = []

    class Counting(Spoiling):
        def fdatasync(self, file: int, /) -> None:
            put.append(os.fstat(file).st_ino)

    def none_left(_: int) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    disk = Counting()
    book = Journal(tmp_path, turns, ManualClock(), file_bytes_max=40, files=disk, synced=True)
    syncer = Syncer(book, tmp_path, 1.0, disk)
    for number in (1, 2, 3):  # the last one's file is live, the others are full
        book.keep(request(number))
        book.flush()
    monkeypatch.setattr(os, "dup", none_left)
    await syncer.sync()
    assert book.failing
    with pytest.raises(JournalError, match="cannot be put on the disk: Too many open files"):
        book.append(request(4))
    disk.fails = {"open": 1}
    await syncer.sync()
    assert book.failing
    monkeypatch.undo()
    await syncer.sync()
    assert not book.failing
    inodes = {file.path.stat().st_ino for file in journal.files(tmp_path)}
    assert len(inodes) == 4  # after a failure it goes on in a new one
    assert sorted(put) == sorted(inodes), "each is put there, once"
    book.close()


async def test_a_file_that_cannot_be_put_on_the_disk_keeps_no_other_from_it(tmp_path: Path, turns: Turns) -> None:
    put: list[int] = []

    class Counting(Spoiling):
        def fdatasync(self, file: int, /) -> None:
            super().fdatasync(file)
            put.append(os.fstat(file).st_ino)

    disk = Counting()
    book = Journal(tmp_path, turns, ManualClock(), file_bytes_max=40, files=disk, synced=True)
    syncer = Syncer(book, tmp_path, 1.0, disk)
    for number in (1, 2, 3):  # the last one's file is live, the others are full
        book.keep(request(number))
        book.flush()
    disk.fails = {"fdatasync": 1}
    await syncer.sync()
    assert book.failing
    first, *others = [file.path.stat().st_ino for file in journal.files(tmp_path)]
    assert put == others
    await syncer.sync()
    assert not book.failing
    assert first not in put, "the kernel may have given up what it could not write, whatever it says later"
    book.close()


async def test_a_disk_that_fails_stops_admission_before_it_is_logged(tmp_path: Path, turns: Turns) -> None:
    disk = Spoiling()
    book = Journal(tmp_path, turns, ManualClock(), files=disk, synced=True)
    book.keep(request(1))
    book.flush()
    disk.fails = {"fdatasync": 1}

    def full(*_: object) -> str:
        raise OSError(errno.ENOSPC, "No space left on device")

    structlog.configure(processors=[full])
    try:
        with contextlib.suppress(OSError):
            await Syncer(book, tmp_path, 1.0, disk).sync()
    finally:
        structlog.reset_defaults()
    assert book.failing
    book.close()

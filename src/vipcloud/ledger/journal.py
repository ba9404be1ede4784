"""The append-only record between the gateway and the books: one row of files per worker.

    DIR/{worker}-{number}.journal      numbers rise; the highest is live, the others are closed
    DIR/{worker}.lock                  held while the worker runs
    file   = frame*
    frame  = length u32 LE | CRC-32 of payload u32 LE | payload (a record as a msgpack array; 1 to 65535 bytes)

A frame reaches the file by `write(2)` before the call that promised it returns, so it survives the death of the
process; a power cut may cost what the kernel had not yet put on the disk, which a `Syncer` bounds to a moment. A file
that was cut ends in a torn frame: no valid frame begins after it. A bad frame with a valid one after it is damage, and
is told apart by looking for one.

A new process never appends to an old file: its number is above every number that was used before. No prompt and no
completion text is in any record.
"""

import asyncio
import fcntl
import os
import re
from collections.abc import Callable
from pathlib import Path
from struct import Struct as Layout
from typing import Final, NamedTuple, Protocol, cast
from zlib import crc32

import msgspec
import structlog

from vipcloud.clock import Clock
from vipcloud.ledger.records import Record

WORKER = "gateway"
RECORD_BYTES_MAX: Final = 65_535
FILE_BYTES_MAX = 64 * 1024 * 1024
LOGGED_CHARS_MAX: Final = 2000  # of a record that cannot be written
_HEADER = Layout("<II")
_NAME = re.compile(r"(?P<worker>[a-z0-9]+)-(?P<number>\d{12})\.journal")


class JournalError(Exception):
    """The journal cannot be written or read. While writing fails no new request may be admitted."""


_log = structlog.get_logger(__name__)
_encode: Final = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Record).decode
_crc32: Final = crc32
_pack: Final = _HEADER.pack


def frame(record: Record) -> bytes:
    """`record` as it stands in the file."""
    payload = _encode(record)
    assert len(payload) <= RECORD_BYTES_MAX, "no field of a record holds text of a caller's length"
    return _pack(len(payload), _crc32(payload)) + payload


class Parsed(NamedTuple):
    """The records at the beginning of some bytes, and where the first frame begins that is incomplete, bad or unknown.

    `unknown`: the frame there is sound, but its record is of no kind that this version knows.
    """

    records: list[Record]
    end: int
    unknown: bool


def payloads(data: bytes) -> tuple[list[bytes], int]:
    """What the frames that `data` begins with hold, as far as they are whole and sound, and where the rest begins."""
    found: list[bytes] = []
    unpack = _HEADER.unpack_from
    at, size = 0, len(data)
    begin = 8  # where the payload of the frame at `at` begins
    length: int
    checksum: int
    while begin <= size:
        length, checksum = unpack(data, at)
        end = begin + length
        # A length of 0 is never written: a run of zero bytes, as a power cut leaves them, is not a frame.
        if not 0 < length <= RECORD_BYTES_MAX or end > size:
            break
        payload = data[begin:end]
        if crc32(payload) != checksum:
            break
        found.append(payload)
        at = end
        begin = end + 8
    return found, at


def parse(data: bytes) -> Parsed:
    """The records at the beginning of `data`, as far as its frames are whole and sound."""
    found, end = payloads(data)
    records: list[Record] = []
    at = 0
    try:
        for payload in found:
            records.append(decode(payload))
            at += 8 + len(payload)
    except msgspec.DecodeError:
        return Parsed(records, at, unknown=True)
    return Parsed(records, end, unknown=False)


def decode(payload: bytes) -> Record:
    """The record that a frame holds. Raises msgspec.DecodeError for one of a kind that this version does not know."""
    return cast("Record", _decode(payload))


def next_frame(data: bytes, start: int) -> int | None:
    """Where the first valid frame at or after `start` begins; None if there is none: then `data` ends torn."""
    # The upper half of every frame's length is zero, and so two zero bytes stand where a frame may begin.
    at = data.find(b"\0\0", start + 2) - 2
    while at >= start and at + 8 < len(data):
        length, checksum = _HEADER.unpack_from(data, at)
        end = at + 8 + length
        if 0 < length <= RECORD_BYTES_MAX and end <= len(data) and crc32(memoryview(data)[at + 8 : end]) == checksum:
            return at
        at = data.find(b"\0\0", at + 3) - 2
    return None


def frame_bytes(data: bytes, at: int) -> int:
    """How long the frame that begins at `at` is."""
    return 8 + int(_HEADER.unpack_from(data, at)[0])


class JournalFile(NamedTuple):
    """One file of the journal, as its name tells."""

    path: Path
    worker: str
    number: int
    live: bool


def files(directory: Path) -> list[JournalFile]:
    """Every journal file in `directory`, each worker's in the order they were written."""
    named = [match for name in sorted(os.listdir(directory)) if (match := _NAME.fullmatch(name))]
    newest = {match["worker"]: match["number"] for match in named}
    return [
        JournalFile(
            directory / match[0], match["worker"], int(match["number"]), match["number"] == newest[match["worker"]]
        )
        for match in named
    ]


class Files(Protocol):
    """The system calls that a journal makes: `os`, or in proofs a disk that fails."""

    def open(self, path: Path, flags: int, mode: int = 0o777, /) -> int: ...
    def write(self, file: int, data: bytes, /) -> int: ...
    def ftruncate(self, file: int, length: int, /) -> None: ...
    def fdatasync(self, file: int, /) -> None: ...
    def close(self, file: int, /) -> None: ...


class Journal:
    """One worker's end of the journal. Raises JournalError if the folder cannot be written or another process has it.

    Not thread-safe: it belongs to one event loop. What is given to it in one turn of the loop is written together, by a
    callback given to `call_soon`: the loop's, or an outbox's `first`, which writes before that turn's answers go out.
    """

    def __init__(
        self,
        directory: Path,
        call_soon: Callable[[Callable[[], None]], object],
        clock: Clock,
        *,
        worker: str = WORKER,
        file_bytes_max: int = FILE_BYTES_MAX,
        files: Files = os,
        synced: bool = False,
    ) -> None:
        assert _NAME.fullmatch(f"{worker}-{0:012d}.journal"), "a worker's name is small letters and digits"
        self._directory = directory
        self._call_soon = call_soon
        self._clock = clock
        self._worker = worker
        self._file_bytes_max = file_bytes_max
        self._kept: list[Record] = []
        self._pending: list[bytes] = []  # frames of those that a write has been tried for
        self._scheduled = False
        self._failure: OSError | None = None
        self._files = files
        self._write = files.write
        self._spoiled = False  # the live file has a bad end, and is only to be left
        self._synced = synced  # a `Syncer` follows
        self._unsynced: list[int] = []  # full files that it has yet to see to
        self._synced_size = 0  # of the live file, as far as it is on the disk
        self._sync_failure: OSError | None = None
        self._file = -1
        self._number = 0
        self._size = 0
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(directory / f"{worker}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise JournalError(f"The journal folder {directory} cannot be written: {error.strerror}.") from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._rotate()
        except BlockingIOError as error:
            os.close(self._lock)
            raise JournalError(f"Another process writes the journal in {directory}; stop it first.") from error
        except OSError as error:
            os.close(self._lock)
            raise JournalError(f"The journal folder {directory} cannot be written: {error.strerror}.") from error

    @property
    def worker(self) -> str:
        """What its files are named after."""
        return self._worker

    @property
    def failing(self) -> bool:
        """Whether the last write, or putting it on the disk, failed. It is tried again."""
        return self._failure is not None or self._sync_failure is not None

    def append(self, record: Record) -> None:
        """Write `record` soon. Raises JournalError, and does not take it, while writing fails: admit no request."""
        if self._failure is not None:
            self._write_pending()
        if self._sync_failure is not None:
            raise JournalError(f"The journal cannot be put on the disk: {self._sync_failure.strerror}.")
        self.keep(record)

    def keep(self, record: Record) -> None:
        """Write `record` soon, whatever may fail: it tells of what has happened already.

        While writing fails it is kept, and goes out with the next write that succeeds.
        """
        self._kept.append(record)
        if not self._scheduled:
            self._scheduled = True
            self._call_soon(self._flush)

    def flush(self) -> None:
        """Write what waits, now. Raises JournalError when that fails; all of it waits on then."""
        self._write_pending()

    def close(self) -> None:
        """Write what is left and give the folder back. Raises JournalError if the last write failed."""
        try:
            self._write_pending()
        finally:
            for file in (*self._unsynced, self._file):
                self._files.close(file)
            os.close(self._lock)

    def take_unsynced(self) -> list[int]:
        """Copies of the files that hold what may not be on the disk yet; whoever takes them closes them.

        After a failure that is a new file: what the kernel could not write it may have given up. Raises OSError if that
        cannot be opened or there is no room for a copy; then they are still to be taken.
        """
        if self._sync_failure is not None:
            self._rotate()
        taken = self._unsynced
        if self._size != self._synced_size:
            taken = [*taken, os.dup(self._file)]
            self._synced_size = self._size
        self._unsynced = []
        return taken

    def note_sync(self, failure: OSError | None) -> None:
        """How putting the taken files on the disk went. While it fails no request may be admitted."""
        self._sync_failure = failure

    def _flush(self) -> None:
        self._scheduled = False
        known = self._failure is not None
        try:
            self._write_pending()
        except JournalError as error:  # `failing` says so, and the next append raises
            if not known:
                _log.error("journal_failed", error=str(error), effect="new requests are refused until it is well")

    def _write_pending(self) -> None:
        if self._kept:
            self._frame_kept()
        pending = self._pending
        if not pending:
            return
        data = pending[0] if len(pending) == 1 else b"".join(pending)
        try:
            if self._size >= self._file_bytes_max:
                self._rotate()
            written = self._write(self._file, data)
            if written != len(data):
                self._write_rest(data[written:])
        except OSError as error:
            self._failure = error
            self._repair()
            raise JournalError(f"The journal cannot be written: {error.strerror}.") from error
        self._size += len(data)
        self._failure = None
        pending.clear()

    def _frame_kept(self) -> None:
        """Frame what was kept. A record that cannot be, by a fault of ours, is logged whole and holds up no other."""
        pending, kept = self._pending, self._kept
        while kept:
            framed = 0
            try:
                for record in kept:  # all of a turn at once: code that has just run is quicker
                    framed += 1
                    pending.append(frame(record))
            except (AssertionError, OverflowError, TypeError, ValueError, msgspec.MsgspecError):
                _log.exception("record_not_encoded", record=repr(kept[framed - 1])[:LOGGED_CHARS_MAX])
            finally:
                del kept[:framed]

    def _write_rest(self, data: bytes) -> None:
        """A full disk may take part of a write; the next attempt tells why."""
        while data:
            data = data[self._write(self._file, data) :]

    def _repair(self) -> None:
        """Cut off what a failed write left, so that the frames after it can be read; or else begin a new file."""
        if self._spoiled:
            return
        try:
            self._files.ftruncate(self._file, self._size)
        except OSError:
            self._spoiled = True
            self._size = max(self._size, self._file_bytes_max)  # the next write looks for another file

    def _rotate(self) -> None:
        """Begin a new file. Its number is at least the hour in seconds: unique even in a folder that was emptied,
        whose old names the books still know."""
        own = [file.number for file in files(self._directory) if file.worker == self._worker]
        number = max([int(self._clock.wall_s()), self._number + 1, *(number + 1 for number in own)])
        path = self._directory / f"{self._worker}-{number:012d}.journal"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        opened = self._files.open(path, flags, 0o600)
        if self._file >= 0:
            if self._synced:
                self._unsynced.append(self._file)
            else:
                self._files.close(self._file)
        self._file, self._number, self._size, self._synced_size = opened, number, 0, -1
        self._spoiled = False


class Syncer:
    """Puts on the disk what a journal has written, every `interval_s`, in a thread: `fdatasync` in groups.

    The event loop never waits for it. A power cut costs what was settled since the last one.
    """

    def __init__(self, journal: Journal, directory: Path, interval_s: float, files: Files = os) -> None:
        self._journal = journal
        self._directory = directory
        self._interval_s = interval_s
        self._files = files

    async def run(self) -> None:
        while True:
            await asyncio.sleep(self._interval_s)
            await self.sync()

    async def sync(self) -> None:
        try:
            taken = self._journal.take_unsynced()
            if not taken:
                return
            await asyncio.to_thread(self._put, taken)
        except OSError as error:
            self._journal.note_sync(error)
            _log.error("journal_not_on_disk", error=error.strerror)
        else:
            self._journal.note_sync(None)

    def _put(self, taken: list[int]) -> None:
        """Raises OSError, the first of them, when all has been tried: none of these files is taken again."""
        failure: OSError | None = None
        try:
            for file in taken:
                try:
                    self._files.fdatasync(file)
                except OSError as error:
                    failure = failure or error
            folder = os.open(self._directory, os.O_RDONLY | os.O_CLOEXEC)  # a new file's name is the folder's
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        finally:
            for file in taken:
                os.close(file)
        if failure is not None:
            raise failure

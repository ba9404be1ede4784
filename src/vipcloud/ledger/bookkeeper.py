"""The way from the journal into the books: in groups, exactly once, resumable after a kill at any point.

One group is one transaction: usage rows, charges, balances, and the position in the file up to which it is booked.
The position is read inside the transaction, so two bookkeepers cannot book the same bytes; a request that was
journaled twice (the gateway may have had to write to a new file) is told by its id and booked once.

What is open stays in the books as such, group by group, with what it had reached. `catch_up`, which a starting gateway
calls, knows that the process before it is dead: it settles what that left open, once.
"""

import os
import threading
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import structlog
from sqlalchemy import Connection, Engine, delete, insert, select, update
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from vipcloud.clock import Clock
from vipcloud.ledger import alike, audit, availability, journal, rules, slots, store, used_keys
from vipcloud.ledger.alike import Alike
from vipcloud.ledger.audit import Audit
from vipcloud.ledger.journal import JournalError, JournalFile
from vipcloud.ledger.records import Aborted, Opened, Progress, Reached, Record, Settled
from vipcloud.storage import engine as storage
from vipcloud.storage import schema

INTERVAL_S = 1.0
CHECK_INTERVAL_S = 60.0
KEY_RETENTION_S = 86_400.0
STATUS_FILE = "bookkeeper.json"
GROUP_BYTES = 2 * 1024 * 1024  # about 10,000 requests; the writer's place is held for some 50 ms
UNBOOKED_BYTES_MAX = 4 * 1024 * 1024  # looked through for one request
RECORD_HEAD_BYTES_MAX = 64  # of a frame, before its request's id
_WHOLE_FRAME_BYTES_MAX = 8 + journal.RECORD_BYTES_MAX

_log = structlog.get_logger(__name__)
_encode = msgspec.msgpack.Encoder().encode
_decode_opened = msgspec.msgpack.Decoder(Opened).decode
_decode_reached = msgspec.msgpack.Decoder(Reached).decode


class _Position(msgspec.Struct):
    offset: int = 0
    damaged: int = 0


def catch_up(engine: Engine, directory: Path, worker: str = journal.WORKER) -> int:
    """Book every record that is in the journal now, and settle what the worker's former processes left open.

    Returns the usage rows posted. To be called before balances are loaded, and after the worker's own `Journal` is
    opened: that begins a new file, and all that was opened in earlier ones has no process any more. Raises JournalError
    and SQLAlchemyError.
    """
    return book_once(engine, directory) + len(settle_orphans(engine, directory, worker))


def settle_orphans(engine: Engine, directory: Path, worker: str, *, gone: bool = False) -> list[Settled]:
    """Settle what `worker`'s former processes left open, so far as it is booked; how each request was settled.

    With `gone` no process has that name now, and none may come to have it meanwhile: nothing of it is open any more.
    Raises SQLAlchemyError.
    """
    live = max((file.number for file in journal.files(directory) if file.worker == worker), default=0)
    with storage.writing(engine) as connection:
        open_requests = _open_requests(connection, worker)
        orphans = [
            rules.orphaned(open_.opened, open_.reached)
            for open_ in open_requests.values()
            if gone or open_.number < live
        ]
        if orphans:
            _close(connection, [record.request_id for record in orphans])
            keys: dict[used_keys.Name, Opened | None] = {}
            for record in orphans:
                used_keys.follow(open_requests[record.request_id].opened, record, keys)
            used_keys.store(connection, keys)
            orphans = _without_repeats(connection, orphans)
            store.post_usage(connection, orphans)
            charged = sum(record.charge_nanousd > 0 for record in orphans)
            _log.warning("orphans_settled", requests=len(orphans), charged=charged)
    return orphans


def settle_gone(engine: Engine, directory: Path, worker: str, own: str) -> list[Settled]:
    """The same for every gateway of the folder that is gone. `own` is who asks. Raises SQLAlchemyError, OSError."""
    settled: list[Settled] = []
    for name in slots.used(directory, worker):
        if name == own:
            continue
        with slots.held(directory, name) as free:
            if free:
                book_once(engine, directory)
                settled += settle_orphans(engine, directory, name, gone=True)
    return settled


def book_once(engine: Engine, directory: Path) -> int:
    """Book what is new in every file; remove closed files that are booked to the end. Returns the usage rows posted.

    Damage in a closed file is logged and counted in `damaged_bytes`, what follows it is booked, and the file is kept.
    Raises JournalError for a file that cannot be read (the other files are booked first), and SQLAlchemyError.
    """
    if not directory.is_dir():
        return 0
    with storage.reading(engine) as connection:
        positions = _positions(connection)
    rows = 0
    failure: JournalError | None = None
    for file in journal.files(directory):
        try:
            rows += _book_file(engine, file, positions.get(file.path.name, _Position()))
        except FileNotFoundError:
            continue  # another bookkeeper was faster: it removes a file when all of it is in the books
        except JournalError as error:
            failure = error
        except OSError as error:
            failure = JournalError(f"{file.path} cannot be read: {error.strerror}.")
            failure.__cause__ = error
    if failure is not None:
        raise failure
    return rows


class Status(msgspec.Struct, frozen=True):
    """What the bookkeeper last said of itself, in `STATUS_FILE` beside the journal. Times are seconds since 1970.

    `booked_until`: everything that was journaled before is in the books. `breaks` are what the last check of the books
    found, in words; `checked_at` is None before the first. `failing` is why the last round failed; empty if it did not.
    """

    at: float
    booked_until: float
    backlog_bytes: int
    checked_at: float | None = None
    checked_rows: int = 0
    breaks: tuple[str, ...] = ()
    overdrawn: int = 0  # customers below zero
    failing: str = ""


def status(directory: Path) -> Status | None:
    """None where no bookkeeper has worked yet."""
    try:
        return msgspec.json.decode((directory / STATUS_FILE).read_bytes(), type=Status)
    except (FileNotFoundError, msgspec.DecodeError):
        return None


def booked_until(directory: Path) -> float:
    """Everything that was journaled before (seconds since 1970) is in the books; 0 if nobody said so yet."""
    told = status(directory)
    return 0.0 if told is None else told.booked_until


class Bookkeeper:
    """Books, checks the books now and then, and says how it stands. One per journal folder."""

    def __init__(
        self,
        engine: Engine,
        directory: Path,
        clock: Clock,
        *,
        check_interval_s: float = CHECK_INTERVAL_S,
        key_retention_s: float = KEY_RETENTION_S,
    ) -> None:
        self._engine = engine
        self._directory = directory
        self._clock = clock
        self._check_interval_s = check_interval_s
        self._key_retention_s = key_retention_s
        self._audit = Audit()
        self._status = status(directory) or Status(0.0, 0.0, 0)
        self._check_due_s = clock.monotonic_s()

    def round(self) -> None:
        """Book what is new. The store or the disk may be away: that is logged, and the journal keeps what is left."""
        began = self._clock.wall_s()
        changed: dict[str, Any] = {"failing": ""}
        try:
            book_once(self._engine, self._directory)
            changed |= {"booked_until": began, "backlog_bytes": backlog_bytes(self._engine, self._directory)}
            if self._clock.monotonic_s() >= self._check_due_s:
                self._check_due_s = self._clock.monotonic_s() + self._check_interval_s
                changed |= self._check()
        except (SQLAlchemyError, JournalError, OSError) as error:
            _log.exception("booking_failed", journal=str(self._directory))
            changed["failing"] = f"{type(error).__name__}: {error}"[:500]
        self._status = msgspec.structs.replace(self._status, at=self._clock.wall_s(), **changed)
        self._say()

    def _check(self) -> dict[str, Any]:
        now = self._clock.wall_s()
        with storage.reading(self._engine) as connection:
            breaks = self._audit.check(connection)
            below = len(audit.overdrawn(connection))
        if breaks:
            _log.error("books_wrong", breaks=breaks[:5], count=len(breaks))
        with storage.writing(self._engine) as connection:
            used_keys.forget(connection, now - self._key_retention_s)
            availability.forget_latency(connection, now)
        return {"checked_at": now, "checked_rows": self._audit.rows, "breaks": tuple(breaks), "overdrawn": below}

    def _say(self) -> None:
        if not self._directory.is_dir():
            return
        path = self._directory / STATUS_FILE
        fresh = path.with_suffix(".new")
        try:
            fresh.write_bytes(msgspec.json.encode(self._status))
            fresh.chmod(0o600)
            fresh.replace(path)
        except OSError as error:
            _log.warning("status_not_written", error=str(error))


def run(keeper: Bookkeeper, stop: threading.Event, interval_s: float = INTERVAL_S) -> None:
    """A round every `interval_s` until `stop` is set, and one more then. For a thread or a process of its own."""
    stopping = False
    while not stopping:
        stopping = stop.wait(interval_s)
        keeper.round()


def unbooked(engine: Engine, directory: Path, request_id: str) -> Settled | None:
    """How a request ended whose record is not in the books yet. Looks at the last `UNBOOKED_BYTES_MAX` of each file.

    Raises JournalError.
    """
    if not directory.is_dir():
        return None
    with storage.reading(engine) as connection:
        positions = _positions(connection)
    wanted = request_id.encode()
    try:
        for file in journal.files(directory):
            start = positions.get(file.path.name, _Position()).offset
            data, _ = _read(file.path, max(start, file.path.stat().st_size - UNBOOKED_BYTES_MAX), UNBOOKED_BYTES_MAX)
            at = data.find(wanted)
            while at >= 0:
                for record in _records_around(data, at):
                    if type(record) is Settled and record.request_id == request_id:
                        return record
                at = data.find(wanted, at + 1)
    except FileNotFoundError:
        return None  # it is booked by now
    except OSError as error:
        raise JournalError(f"The journal in {directory} cannot be read: {error.strerror}.") from error
    return None


def _records_around(data: bytes, at: int) -> list[Record]:
    """The record that the byte at `at` is in, if its frame is whole."""
    start = max(0, at - RECORD_HEAD_BYTES_MAX)
    while (found := journal.next_frame(data[: at + journal.RECORD_BYTES_MAX], start)) is not None and found < at:
        length = journal.frame_bytes(data, found)
        if found + length > at:
            return journal.parse(data[found : found + length]).records
        start = found + 1
    return []


def backlog_bytes(engine: Engine, directory: Path) -> int:
    """Journal bytes that are not booked yet."""
    if not directory.is_dir():
        return 0
    with storage.reading(engine) as connection:
        positions = _positions(connection)
    return sum(
        max(0, file.path.stat().st_size - positions.get(file.path.name, _Position()).offset)
        for file in journal.files(directory)
    )


def damaged_files(engine: Engine, directory: Path) -> dict[str, int]:
    """Journal files that could not be read in full, with the bytes lost. Who has looked into one may remove it."""
    with storage.reading(engine) as connection:
        positions = _positions(connection)
    return {
        name: position.damaged
        for name, position in positions.items()
        if position.damaged and (directory / name).exists()
    }


def _book_file(engine: Engine, file: JournalFile, known: _Position) -> int:
    rows = 0
    position = known
    while file.path.stat().st_size > position.offset:
        before = position.offset
        try:
            position, posted = _book_group(engine, file, known_repeats=False)
        except IntegrityError:  # a request is in the books already: look for it, which costs a query
            position, posted = _book_group(engine, file, known_repeats=True)
        rows += posted
        if position.offset == before:
            return rows  # the live file ends in a frame that is still being written
    if not file.live and position.damaged == 0:
        file.path.unlink(missing_ok=True)
        with storage.writing(engine) as connection:
            connection.execute(delete(_table).where(_table.c.file == file.path.name))
    return rows


def _book_group(engine: Engine, file: JournalFile, *, known_repeats: bool) -> tuple[_Position, int]:
    """Post the next group of records in a transaction of its own. Returns the new position and the usage rows posted.

    Raises IntegrityError, and has done nothing, if a request was booked before and `known_repeats` is not set.
    """
    with storage.writing(engine) as connection:
        position = _positions(connection, file.path.name).get(file.path.name, _Position())
        start = position.offset
        lots, others = _next_group(file, position)
        if position.offset == start:
            return position, 0
        if others or _has_open_requests(connection):
            _follow(connection, file, lots, others)
        if known_repeats:
            settled = _without_repeats(connection, [lot.settled(row) for lot in lots for row in range(lot.requests)])
            lots = alike.together(settled)
        store.post_alike(connection, lots)
        _store_position(connection, file.path.name, position)
    return position, sum(lot.requests for lot in lots)


def _follow(connection: Connection, file: JournalFile, lots: list[Alike], others: list[Record]) -> None:
    """Keep what is open, and how far it is, as the group's records tell; post what calls cost that nobody pays for.

    What opened and how far it came is looked at first, then what ended, although they alternate in the journal: no
    request is opened after its own end.
    """
    before = _open_requests(connection, file.worker)
    now = dict(before)
    aborted = []
    keys: dict[used_keys.Name, Opened | None] = {}
    for record in others:
        if type(record) is Opened:
            now[record.request_id] = _Open(file.number, record)
            used_keys.follow(record, None, keys)
        elif type(record) is Progress:
            for reached in record.reached:
                if (open_ := now.get(reached.request_id)) is not None:
                    now[reached.request_id] = _Open(open_.number, open_.opened, reached)
        elif type(record) is Aborted:
            aborted.append(record)
    if now:
        _end(lots, now, keys)
    _close(connection, [name for name, open_ in before.items() if now.get(name) is not open_])
    rows = [
        {
            "request_id": name,
            "worker": file.worker,
            "number": open_.number,
            "opened": _encode(open_.opened),
            "reached": None if open_.reached is None else _encode(open_.reached),
        }
        for name, open_ in now.items()
        if before.get(name) is not open_
    ]
    if rows:
        connection.execute(insert(_open), rows)
    store.post_aborted(connection, aborted)
    if keys:
        used_keys.store(connection, keys)


def _end(lots: list[Alike], now: dict[str, "_Open"], keys: dict[used_keys.Name, Opened | None]) -> None:
    """Take out of `now` what ended."""
    for lot in lots:
        for row, name in enumerate(lot.column("request_id")):
            if (open_ := now.pop(name, None)) is not None and open_.opened.key_hash is not None:
                used_keys.follow(open_.opened, lot.settled(row), keys)


def _next_group(file: JournalFile, position: _Position) -> tuple[list[Alike], list[Record]]:
    """Usage rows, and the other records, from `position` on, as far as one group goes; moves `position` behind them."""
    start = position.offset
    data, at_end = _read(file.path, start, GROUP_BYTES)
    payloads, end = journal.payloads(data)
    unknown = False
    try:
        lots, rest = alike.gathered(payloads)
        records = [journal.decode(payload) for payload in rest]
    except msgspec.DecodeError:  # one by one, to find it
        records, end, unknown = journal.parse(data)
        lots = []
    lots += alike.together(record for record in records if type(record) is Settled)
    if unknown and end == 0:
        raise JournalError(f"{file.path}, byte {start}: a sound record of unknown kind; did a newer version write it?")
    position.offset += end
    if not unknown and not file.live and end < len(data) and (at_end or len(data) - end > _WHOLE_FRAME_BYTES_MAX):
        _step_over(file.path, position)
    return lots, [record for record in records if type(record) is not Settled]


def _step_over(path: Path, position: _Position) -> None:
    """Move past a bad frame of a closed file: to the next good one, which is damage, or to a torn end."""
    rest, _ = _read(path, position.offset, path.stat().st_size)
    found = journal.next_frame(rest, 1)
    if found is None:
        _log.info("journal_ends_torn", file=str(path), offset=position.offset, bytes=len(rest))
        position.offset += len(rest)
        return
    _log.error("journal_damaged", file=str(path), offset=position.offset, bytes=found)
    position.offset += found
    position.damaged += found


def _without_repeats(connection: Connection, settled: list[Settled]) -> list[Settled]:
    booked = store.booked_requests(connection, [record.request_id for record in settled])
    return list({record.request_id: record for record in settled if record.request_id not in booked}.values())


def _read(path: Path, offset: int, bytes_max: int) -> tuple[bytes, bool]:
    """Up to `bytes_max` bytes from `offset`, and whether the file ends there."""
    with path.open("rb", buffering=0) as file:
        file.seek(offset)
        data = file.read(bytes_max)
        return data, offset + len(data) >= os.fstat(file.fileno()).st_size


_table, _open = schema.journal_position, schema.open_request


class _Open(NamedTuple):
    """A request that is open: the number of the worker's file that said so, and how far it had come."""

    number: int
    opened: Opened
    reached: Reached | None = None


def _has_open_requests(connection: Connection) -> bool:
    return connection.execute(select(_open.c.request_id).limit(1)).first() is not None


def _open_requests(connection: Connection, worker: str) -> dict[str, _Open]:
    rows = connection.execute(
        select(_open.c.request_id, _open.c.number, _open.c.opened, _open.c.reached).where(_open.c.worker == worker)
    )
    return {
        name: _Open(number, _decode_opened(opened), None if reached is None else _decode_reached(reached))
        for name, number, opened, reached in rows
    }


def _close(connection: Connection, request_ids: list[str]) -> None:
    for start in range(0, len(request_ids), store.IDS_PER_QUERY):
        part = request_ids[start : start + store.IDS_PER_QUERY]
        connection.execute(delete(_open).where(_open.c.request_id.in_(part)))


def _positions(connection: Connection, name: str | None = None) -> dict[str, _Position]:
    query = select(_table.c.file, _table.c.offset_bytes, _table.c.damaged_bytes)
    if name is not None:
        query = query.where(_table.c.file == name).with_for_update()
    return {row.file: _Position(row.offset_bytes, row.damaged_bytes) for row in connection.execute(query)}


def _store_position(connection: Connection, name: str, position: _Position) -> None:
    values = {"offset_bytes": position.offset, "damaged_bytes": position.damaged}
    if connection.execute(update(_table).where(_table.c.file == name).values(values)).rowcount == 0:
        connection.execute(insert(_table).values(file=name, **values))

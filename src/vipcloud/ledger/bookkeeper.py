"""The way from the journal into the books: in groups, exactly once, resumable after a kill at any point.

One group is one transaction: usage rows, charges, balances, and the position in the file up to which it is booked.
The position is read inside the transaction, so two bookkeepers cannot book the same bytes; a request that was
journaled twice (the gateway may have had to write to a new file) is told by its id and booked once.

A request that was opened and never settled, because its process died, costs nothing.
"""

import os
import threading
from pathlib import Path

import msgspec
import structlog
from sqlalchemy import Connection, Engine, delete, insert, select, update
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from vipcloud.ledger import journal, store
from vipcloud.ledger.journal import JournalError, JournalFile, Settled
from vipcloud.storage import engine as storage
from vipcloud.storage import schema

INTERVAL_S = 1.0
GROUP_BYTES = 1024 * 1024  # about 6,000 requests; the writer's place is held for some 30 ms
_WHOLE_FRAME_BYTES_MAX = 8 + journal.RECORD_BYTES_MAX

_log = structlog.get_logger(__name__)


class _Position(msgspec.Struct):
    offset: int = 0
    damaged: int = 0


def catch_up(engine: Engine, directory: Path) -> int:
    """Book every record that is in the journal now; call it before balances are loaded. Returns the usage rows posted.

    Open the worker's own `Journal` first: that closes the file of the process before it. Raises JournalError and
    SQLAlchemyError.
    """
    return book_once(engine, directory)


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


def run(engine: Engine, directory: Path, stop: threading.Event, interval_s: float = INTERVAL_S) -> None:
    """Book every `interval_s` until `stop` is set, and once more then. For a thread or a process of its own.

    The store or the disk may be away for a while: that is logged, and the journal keeps what is not booked.
    """
    stopping = False
    while not stopping:
        stopping = stop.wait(interval_s)
        try:
            book_once(engine, directory)
        except (SQLAlchemyError, JournalError, OSError):
            _log.exception("booking_failed", journal=str(directory))


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
        settled = _next_group(file, position)
        if position.offset == start:
            return position, 0
        if known_repeats:
            settled = _without_repeats(connection, settled)
        store.post_usage(connection, settled)
        _store_position(connection, file.path.name, position)
    return position, len(settled)


def _next_group(file: JournalFile, position: _Position) -> list[Settled]:
    """The settled records from `position` on, as far as one group goes; moves `position` behind them."""
    start = position.offset
    data, at_end = _read(file.path, start, GROUP_BYTES)
    records, end, unknown = journal.parse(data)
    if unknown and end == 0:
        raise JournalError(f"{file.path}, byte {start}: a sound record of unknown kind; did a newer version write it?")
    position.offset += end
    if not unknown and not file.live and end < len(data) and (at_end or len(data) - end > _WHOLE_FRAME_BYTES_MAX):
        _step_over(file.path, position)
    return [record for record in records if type(record) is Settled]


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


_table = schema.journal_position


def _positions(connection: Connection, name: str | None = None) -> dict[str, _Position]:
    query = select(_table.c.file, _table.c.offset_bytes, _table.c.damaged_bytes)
    if name is not None:
        query = query.where(_table.c.file == name).with_for_update()
    return {row.file: _Position(row.offset_bytes, row.damaged_bytes) for row in connection.execute(query)}


def _store_position(connection: Connection, name: str, position: _Position) -> None:
    values = {"offset_bytes": position.offset, "damaged_bytes": position.damaged}
    if connection.execute(update(_table).where(_table.c.file == name).values(values)).rowcount == 0:
        connection.execute(insert(_table).values(file=name, **values))

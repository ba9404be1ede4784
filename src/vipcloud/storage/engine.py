"""Opening the store, reading it and writing it. The only module that knows which database is underneath.

SQL is never on the hot path, so everything here is synchronous: the gateway calls it from a thread, on a cache miss
or a change. SQLite runs with a write-ahead log (readers never wait for the writer), `synchronous=FULL` (a commit is on
the disk), foreign keys, and `recursive_triggers` (without it `INSERT OR REPLACE` would slip past delete triggers).

PostgreSQL keeps SQLite's promise that there is one writer at a time, by an advisory lock that each writing transaction
takes first. So the numbers of the books and of the change feed rise in the order of the commits on both, and the
queries are the same text. Writers read what was committed last (READ COMMITTED, after the lock); readers see one
moment (REPEATABLE READ).
"""

import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Boolean, Column, Connection, Double, Engine, Table, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError
from sqlalchemy.pool import ConnectionPoolEntry

from vipcloud.errors import SettingsError

BUSY_TIMEOUT_S = 10.0
WAL_ATTEMPTS_MAX = 100
WAL_PAUSE_S = 0.05
ROWS_PER_STATEMENT = 32  # of 25 columns: 800 parameters; SQLite takes 32,766, older ones 999
PAGE_BYTES = 8192
CACHE_KIB = 8192  # per connection, as far as it is used; SQLite's own 2,000 are less than one booking of many accounts
CONNECT_TIMEOUT_S = 5
WRITERS_LOCK = 0x76697063  # any number that no other program takes in our database: "vipc"
_WRITES = "vipcloud_writes"

# The first row's number, the values that rows share, and the others, row after row.
Lot = tuple[int, Sequence[Any], list[Any]]


def open_engine(where: str | Path) -> Engine:
    """An engine for a SQLAlchemy URL or a file's path; the file's folder is made. Raises SettingsError.

    Nothing is connected yet; an unreachable store shows as SQLAlchemy's OperationalError at first use.
    """
    url = _url(where)
    kind = url.get_backend_name()
    if kind == "postgresql":
        return _open_postgresql(url)
    if kind != "sqlite":
        raise SettingsError(f"store.url begins with {url.drivername}://; use sqlite:/// or postgresql://.")
    if not url.database or url.database == ":memory:":
        raise SettingsError("store.url must name a file, such as sqlite:///data/vipcloud.db: books in memory are lost.")
    Path(url.database).parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(url, connect_args={"timeout": BUSY_TIMEOUT_S})
    event.listen(engine, "connect", _prepare)
    event.listen(engine, "begin", _begin)
    return engine


def shown(where: str | Path) -> str:
    """Where the store is, for people: the URL without its password. Raises SettingsError."""
    return _url(where).render_as_string(hide_password=True)


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """One consistent view of the store, for reading."""
    with engine.connect() as connection, connection.begin():
        yield connection


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """One transaction that takes the writer's place at its beginning; commits at the end, rolls back on an error.

    A transaction that reads first and writes later would fail on SQLite when another writer came between.
    """
    with engine.connect() as connection:
        connection.execution_options(**{_WRITES: True})
        with connection.begin():
            yield connection


def insert_rows(connection: Connection, table: Table, values: list[Any]) -> None:
    """Insert rows at the driver's own speed. `values`: row after row in one flat list, a value per column in the
    table's order. After an error the transaction has to be rolled back: some of the rows may be there.

    Measured for usage rows (25 columns, 3 trees), per row: SQLAlchemy's own execution 8.8 µs, the driver's
    `executemany` 3.1, many rows to a statement 2.5. On PostgreSQL, with all that booking does: SQLAlchemy's own 39 µs
    here and 25 at the server, an array per column 22 and 15.
    """
    columns = list(table.columns)
    if not _is_sqlite(connection):
        _insert_arrays(
            connection, table, {column.name: values[at :: len(columns)] for at, column in enumerate(columns)}
        )
        return
    step = ROWS_PER_STATEMENT * len(columns)
    whole = len(values) - len(values) % step
    for part, rows in ((values[:whole], ROWS_PER_STATEMENT), (values[whole:], 1)):
        parameters = [tuple(each) for each in _parts(part, columns, rows)]
        if parameters:
            connection.exec_driver_sql(_statement(table, rows), parameters)


def insert_alike(connection: Connection, table: Table, names: Sequence[str], lots: Sequence[Lot]) -> None:
    """The same for rows that share values, in a table whose first column is their number. A lot is the first one's
    number, from which they rise, the values of the columns `names`, and those of the others as above, of
    `ROWS_PER_STATEMENT` rows or a multiple.

    The driver is given once for a statement what its rows share, and the number: with 12 of 25 columns that saves
    1.1 µs a row.
    """
    number, *columns = table.columns
    own = [column for column in columns if column.name not in names]
    if not _is_sqlite(connection):
        arrays: dict[str, list[Any]] = {column.name: [] for column in table.columns}
        for first, shared, values in lots:
            rows = len(values) // len(own)
            arrays[number.name] += range(first, first + rows)
            for name, value in zip(names, shared, strict=True):
                arrays[name] += [value] * rows
            for at, column in enumerate(own):
                arrays[column.name] += values[at :: len(own)]
        _insert_arrays(connection, table, arrays)
        return
    parameters = []
    for first, shared, values in lots:
        common = [int(value) if isinstance(value, bool) else value for value in shared]
        parts = _parts(values, own, ROWS_PER_STATEMENT)
        numbers = range(first, first + len(parts) * ROWS_PER_STATEMENT, ROWS_PER_STATEMENT)
        parameters += [(at, *common, *part) for at, part in zip(numbers, parts, strict=True)]
    if parameters:
        connection.exec_driver_sql(_statement_alike(table, tuple(names)), parameters)


def _is_sqlite(connection: Connection) -> bool:
    return connection.dialect.name == "sqlite"


def _parts(values: list[Any], columns: Sequence[Column[Any]], rows: int) -> list[list[Any]]:
    """`values` in statements of so many rows, as SQLite's driver likes them best."""
    step = rows * len(columns)
    assert len(values) % step == 0, "every row has all its values"
    flags = [place for place, column in enumerate(columns) if isinstance(column.type, Boolean)]
    parts = [values[at : at + step] for at in range(0, len(values), step)]
    for place in flags:  # what is no plain number the driver asks first whether it can adapt itself, for 0.8 µs
        for part in parts:
            part[place :: len(columns)] = map(int, part[place :: len(columns)])
    return parts


def _insert_arrays(connection: Connection, table: Table, columns: dict[str, list[Any]]) -> None:
    """PostgreSQL's way: one statement, which gets an array per column."""
    if not columns[table.columns[0].name]:
        return
    for column in table.columns:
        if isinstance(column.type, Double):  # an array has one type, and whole seconds may come as integers
            columns[column.name] = [None if value is None else float(value) for value in columns[column.name]]
    arrays = ", ".join(f"%s::{column.type.compile(connection.dialect)}[]" for column in table.columns)
    statement = f"INSERT INTO {table.name} ({', '.join(columns)}) SELECT * FROM unnest({arrays})"  # noqa: S608
    connection.exec_driver_sql(statement, tuple(columns.values()))


@cache
def _statement(table: Table, rows: int) -> str:
    """SQLite's, to insert so many rows; the parameters are their values, row after row.

    So that it could undo one statement alone, SQLite would copy every page that this touches: 200 accounts' rows took
    twice as long. OR FAIL leaves that to the transaction.
    """
    names = table.columns.keys()
    values = ", ".join([f"({', '.join('?' * len(names))})"] * rows)
    return f"INSERT OR FAIL INTO {table.name} ({', '.join(names)}) VALUES {values}"  # noqa: S608


@cache
def _statement_alike(table: Table, shared: tuple[str, ...]) -> str:
    """The same for rows that are numbered from the first parameter on; then come the shared values, then the others."""
    number, *names = table.columns.keys()
    places = {name: place for place, name in enumerate(shared, 2)}
    others = count(len(shared) + 2)
    values = [
        ", ".join([f"?1 + {row}", *(f"?{places.get(name) or next(others)}" for name in names)])
        for row in range(ROWS_PER_STATEMENT)
    ]
    columns = ", ".join((number, *names))
    return f"INSERT OR FAIL INTO {table.name} ({columns}) VALUES ({'), ('.join(values)})"  # noqa: S608


def _url(where: str | Path) -> URL:
    if isinstance(where, Path) or "://" not in where:
        return URL.create("sqlite", database=str(where))
    try:
        url = make_url(where)
        url.get_dialect()
    except (ArgumentError, NoSuchModuleError) as error:
        raise SettingsError(
            "store.url is not a database URL such as sqlite:///data/vipcloud.db or postgresql://user@host/vipcloud."
        ) from error
    return url


def _open_postgresql(url: URL) -> Engine:
    engine = create_engine(
        url.set(drivername="postgresql+psycopg"),
        connect_args={
            "connect_timeout": CONNECT_TIMEOUT_S,
            "options": f"-c lock_timeout={int(BUSY_TIMEOUT_S * 1000)} -c timezone=UTC",
        },
        pool_pre_ping=True,  # a server that was restarted shows at once, not as a failed query
    )
    event.listen(engine, "begin", _begin_postgresql)
    return engine


def _prepare(connection: sqlite3.Connection, _: ConnectionPoolEntry) -> None:
    connection.isolation_level = None  # the driver must not begin transactions by itself: `_begin` does
    _write_ahead(connection)
    for pragma in (
        "synchronous = FULL",
        "foreign_keys = ON",
        "recursive_triggers = ON",
        f"cache_size = -{CACHE_KIB}",  # below zero: KiB, not pages
    ):
        connection.execute(f"PRAGMA {pragma}")


def _write_ahead(connection: sqlite3.Connection) -> None:
    """Switch the file to its write-ahead log, once in its life.

    SQLite does not apply the busy time-out to this switch, so processes that open a new file at once must try again.
    """
    for attempt in range(WAL_ATTEMPTS_MAX):
        try:
            if connection.execute("PRAGMA journal_mode").fetchone() != ("wal",):
                connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")  # holds from the file's first page on
                connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or attempt == WAL_ATTEMPTS_MAX - 1:
                raise
            time.sleep(WAL_PAUSE_S)
        else:
            return


def _begin(connection: Connection) -> None:
    writes = connection.get_execution_options().get(_WRITES, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _begin_postgresql(connection: Connection) -> None:
    """The driver has yet to say BEGIN: it does with the first statement, which settles the isolation too."""
    if connection.get_execution_options().get(_WRITES, False):
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({WRITERS_LOCK})")
    else:
        connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")

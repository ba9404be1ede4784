import sqlite3
import threading
from pathlib import Path

import pytest
from sqlalchemy import Engine, func, select
from sqlalchemy.exc import IntegrityError, InternalError

from databases import Postgres
from vipcloud.errors import SettingsError
from vipcloud.storage import engine as storage
from vipcloud.storage import migrate, schema


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("mysql://localhost/books", "use sqlite:/// or postgresql://"),
        ("nonsense://localhost/books", "not a database URL"),
        ("sqlite://", "must name a file"),
        ("sqlite:///:memory:", "must name a file"),
        ("sqlite:\\//x://", "not a database URL"),
    ],
)
def test_a_store_we_cannot_use_is_a_wrong_setting(url: str, says: str) -> None:
    with pytest.raises(SettingsError, match=says):
        storage.open_engine(url)


@pytest.mark.parametrize("as_url", [False, True])
def test_sqlite_is_opened_durable_and_strict(tmp_path: Path, as_url: bool) -> None:
    path = tmp_path / "new folder" / "books.db"
    engine = storage.open_engine(f"sqlite:///{path}" if as_url else path)
    with storage.reading(engine) as connection:
        pragmas = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in (
                "journal_mode",
                "synchronous",
                "foreign_keys",
                "recursive_triggers",
                "busy_timeout",
                "page_size",
                "cache_size",
            )
        }
    engine.dispose()
    assert path.exists()
    assert pragmas == {
        "journal_mode": "wal",
        "synchronous": 2,  # FULL
        "foreign_keys": 1,
        "recursive_triggers": 1,
        "busy_timeout": 10_000,
        "page_size": 8192,
        "cache_size": -8192,  # KiB
    }


def test_writing_takes_the_writers_place_at_once_and_reading_does_not(tmp_path: Path) -> None:
    engine = storage.open_engine(tmp_path / "books.db")
    migrate.upgrade(engine)
    other = sqlite3.connect(tmp_path / "books.db", timeout=0, isolation_level=None)
    with storage.reading(engine) as connection:
        connection.execute(select(schema.account)).all()
        other.execute("BEGIN IMMEDIATE")
        other.execute("ROLLBACK")
    with storage.writing(engine), pytest.raises(sqlite3.OperationalError, match="locked"):
        other.execute("BEGIN IMMEDIATE")
    other.close()
    engine.dispose()


def test_postgresql_has_one_writer_at_a_time_and_readers_never_wait(postgres: Postgres) -> None:
    engine = storage.open_engine(postgres.create("tables"))
    with storage.writing(engine) as first:
        schema.announce(first, "account", "a")
        with storage.reading(engine) as reader:
            assert reader.execute(select(schema.change)).all() == []
        with engine.connect() as second:
            lock = f"SELECT pg_try_advisory_xact_lock({storage.WRITERS_LOCK})"
            assert second.exec_driver_sql(lock).scalar() is False
    engine.dispose()


def test_a_reader_of_postgresql_sees_one_moment_and_can_write_nothing(postgres: Postgres) -> None:
    engine = storage.open_engine(postgres.create("tables"))
    with storage.reading(engine) as reader:
        assert reader.execute(select(schema.change)).all() == []
        with storage.writing(engine) as writer:
            schema.announce(writer, "account", "a")
        assert reader.execute(select(schema.change)).all() == []
        with pytest.raises(InternalError, match="read-only transaction"):
            schema.announce(reader, "account", "b")
    with storage.writing(engine) as writer:
        assert len(writer.execute(select(schema.change)).all()) == 1, "a writer sees what was committed before it"
    engine.dispose()


def test_writers_of_postgresql_number_the_change_feed_in_the_order_of_their_commits(postgres: Postgres) -> None:
    engine = storage.open_engine(postgres.create("tables"))

    def write(name: str) -> None:
        for _ in range(20):
            with storage.writing(engine) as connection:
                last = connection.execute(select(func.max(schema.change.c.seq))).scalar() or 0
                schema.announce(connection, "account", f"{name} after {last}")

    writers = [threading.Thread(target=write, args=(name,)) for name in "abc"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    with storage.reading(engine) as connection:
        feed = connection.execute(select(schema.change).order_by(schema.change.c.seq)).all()
    engine.dispose()
    assert [row.subject.split()[-1] for row in feed] == [str(row.seq - 1) for row in feed]
    assert len(feed) == 60


def test_a_connection_that_the_server_dropped_is_made_anew(postgres: Postgres) -> None:
    engine = storage.open_engine(postgres.create("tables"))
    for _ in range(2):
        with storage.reading(engine) as connection:
            assert connection.execute(select(schema.change)).all() == []
        postgres.close(str(engine.url.database))
        postgres.reopen(str(engine.url.database))
    engine.dispose()


def test_a_password_is_not_shown() -> None:
    assert storage.shown("postgresql://ann:secret@db/books") == "postgresql://ann:***@db/books"


@pytest.mark.parametrize("count", [2, storage.ROWS_PER_STATEMENT, 3 * storage.ROWS_PER_STATEMENT])
def test_an_error_inside_writing_leaves_nothing(engine: Engine, count: int) -> None:
    names = [*(f"file-{number}" for number in range(count - 1)), "file-0"]
    with pytest.raises(IntegrityError), storage.writing(engine) as connection:
        storage.insert_rows(connection, schema.journal_position, [value for name in names for value in (name, 1, 0)])
    with storage.reading(engine) as connection:
        assert connection.execute(select(schema.journal_position)).all() == []


@pytest.mark.parametrize("count", [0, 1, 31, 32, 33, 1000])
def test_rows_inserted_in_bulk_are_the_rows_that_come_back(engine: Engine, count: int) -> None:
    rows = [(f"file-{number}", number, 0) for number in range(count)]
    with storage.writing(engine) as connection:
        storage.insert_rows(connection, schema.journal_position, [value for row in rows for value in row])
        assert sorted(map(tuple, connection.execute(select(schema.journal_position)))) == sorted(rows)


def test_rows_that_share_values_come_back_with_them_and_a_number_each(engine: Engine) -> None:
    size = storage.ROWS_PER_STATEMENT
    names = ["debit", "credit", "amount_nanousd", "kind"]
    lots = [
        (5, ("a", "b", 7, "x"), [value for row in range(size) for value in (f"x-{row}", 0.5)]),
        (99, ("c", "d", 8, "y"), [value for row in range(2 * size) for value in (None, row)]),
    ]
    with storage.writing(engine) as connection:
        storage.insert_alike(connection, schema.transfer, names, lots)
        found = sorted(map(tuple, connection.execute(select(schema.transfer))))
    assert found == [
        *((5 + row, "a", "b", 7, "x", f"x-{row}", 0.5) for row in range(size)),
        *((99 + row, "c", "d", 8, "y", None, row) for row in range(2 * size)),
    ]


def test_any_text_and_number_comes_back_as_it_was_inserted(engine: Engine) -> None:
    names = ["", "NULL", "null", 'a"b', "a'b", "a\\b", "{a,b}", "a,b", " ä\n\t", "%s ? :name", "{}", "\\N"]
    numbers = [0, -1, 1 << 15, 1 << 31, (1 << 63) - 1, -(1 << 63)]
    rows = [(name, numbers[at % len(numbers)], numbers[-1 - at % len(numbers)]) for at, name in enumerate(names)]
    with storage.writing(engine) as connection:
        storage.insert_rows(connection, schema.journal_position, [value for row in rows for value in row])
        assert sorted(map(tuple, connection.execute(select(schema.journal_position)))) == sorted(rows)

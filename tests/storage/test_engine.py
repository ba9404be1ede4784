import sqlite3
from pathlib import Path

import pytest
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from vipcloud.errors import SettingsError
from vipcloud.storage import engine as storage
from vipcloud.storage import migrate, schema


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("postgresql://localhost/books", "only sqlite:///"),
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


def test_an_error_inside_writing_leaves_nothing(tmp_path: Path) -> None:
    engine = storage.open_engine(tmp_path / "books.db")
    migrate.upgrade(engine)
    with pytest.raises(IntegrityError), storage.writing(engine) as connection:
        storage.insert_rows(connection, schema.journal_position, ["first", 1, 0, "second", 1, 0, "first", 2, 0])
    with storage.reading(engine) as connection:
        assert connection.execute(select(schema.journal_position)).all() == []
    engine.dispose()


@pytest.mark.parametrize("count", [0, 1, 249, 250, 251, 1000])
def test_rows_inserted_in_bulk_are_the_rows_that_come_back(tmp_path: Path, count: int) -> None:
    engine = storage.open_engine(tmp_path / "books.db")
    migrate.upgrade(engine)
    rows = [(f"file-{number}", number, 0) for number in range(count)]
    with storage.writing(engine) as connection:
        storage.insert_rows(connection, schema.journal_position, [value for row in rows for value in row])
        assert sorted(map(tuple, connection.execute(select(schema.journal_position)))) == sorted(rows)
    engine.dispose()

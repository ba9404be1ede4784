import subprocess
import sys
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import CheckConstraint, inspect

from vipcloud.storage import engine as storage
from vipcloud.storage import migrate, schema

START = "import sys; from vipcloud.storage import engine, migrate; migrate.upgrade(engine.open_engine(sys.argv[1]))"


def test_the_migrations_make_the_tables_of_the_schema(tmp_path: Path) -> None:
    engine = storage.open_engine(tmp_path / "books.db")
    migrate.upgrade(engine)
    with storage.reading(engine) as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, schema.metadata) == []
        for table in schema.metadata.sorted_tables:  # Alembic does not compare checks
            made = {
                (check["name"], check["sqltext"]) for check in inspect(connection).get_check_constraints(table.name)
            }
            meant = {
                (str(check.name), str(check.sqltext))
                for check in table.constraints
                if isinstance(check, CheckConstraint)
            }
            assert made == meant
    engine.dispose()


def test_migrating_again_changes_and_prints_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    engine = storage.open_engine(tmp_path / "100% books.db")
    migrate.upgrade(engine)
    with storage.reading(engine) as connection:
        before = connection.exec_driver_sql("SELECT name, sql FROM sqlite_master ORDER BY name").all()
    migrate.upgrade(engine)
    with storage.reading(engine) as connection:
        assert connection.exec_driver_sql("SELECT name, sql FROM sqlite_master ORDER BY name").all() == before
    assert capfd.readouterr() == ("", "")
    engine.dispose()


def test_processes_that_start_at_once_migrate_once(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "error", "-c", START, str(tmp_path / "books.db")]
    starts = [subprocess.Popen(command, stderr=subprocess.PIPE) for _ in range(4)]
    for start in starts:
        _, errors = start.communicate(timeout=20)
        assert (start.returncode, errors) == (0, b"")

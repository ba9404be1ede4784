import subprocess
import sys
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import CheckConstraint, Engine, inspect
from sqlalchemy.exc import OperationalError, ProgrammingError

from vipcloud.storage import engine as storage
from vipcloud.storage import migrate, schema

START = (
    "import sys; from vipcloud.storage import engine, migrate; "
    "store = engine.open_engine(sys.argv[1]); migrate.upgrade(store); store.dispose()"
)


def test_the_migrations_make_the_tables_of_the_schema(engine: Engine) -> None:
    with storage.reading(engine) as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, schema.metadata) == []
        for table in schema.metadata.sorted_tables:  # Alembic does not compare checks
            made = {check["name"]: check["sqltext"] for check in inspect(connection).get_check_constraints(table.name)}
            meant = {
                str(check.name): str(check.sqltext) for check in table.constraints if isinstance(check, CheckConstraint)
            }
            assert made.keys() == meant.keys()
            assert made == meant or engine.name != "sqlite"  # PostgreSQL spells them in its own way


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


def test_the_head_is_the_last_migration() -> None:
    config = Config()
    config.set_main_option("script_location", str(migrate.SCRIPTS))
    assert ScriptDirectory.from_config(config).get_heads() == [migrate.HEAD]


@pytest.mark.parametrize("version", ["DELETE FROM alembic_version", "UPDATE alembic_version SET version_num = '9999'"])
def test_a_store_that_is_not_at_the_head_is_not_taken_for_one(engine: Engine, version: str) -> None:
    with storage.writing(engine) as connection:
        connection.exec_driver_sql(version)
    with pytest.raises((CommandError, OperationalError, ProgrammingError)):  # an unknown revision; the tables are there
        migrate.upgrade(engine)


def test_a_store_that_has_its_tables_is_opened_without_alembic(empty_store_url: str) -> None:
    for loads in (True, False):
        program = f"{START}; assert ('alembic' in sys.modules) is {loads}"
        subprocess.run([sys.executable, "-c", program, empty_store_url], check=True, timeout=20)


def test_processes_that_start_at_once_migrate_once(empty_store_url: str) -> None:
    command = [sys.executable, "-W", "error", "-c", START, empty_store_url]
    starts = [subprocess.Popen(command, stderr=subprocess.PIPE) for _ in range(4)]
    for start in starts:
        _, errors = start.communicate(timeout=20)
        assert (start.returncode, errors) == (0, b"")

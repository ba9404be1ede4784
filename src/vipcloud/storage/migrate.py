"""Bringing the store to the tables that this version needs."""

from pathlib import Path

from sqlalchemy import Engine, column, inspect, select, table

from vipcloud.storage import engine as storage

SCRIPTS = Path(__file__).with_name("migrations")
HEAD = "0013"  # the last revision under `migrations/versions`; a test compares the two
_version = table("alembic_version", column("version_num"))  # Alembic keeps it


def upgrade(engine: Engine) -> None:
    """Run the migrations that are missing, all in one transaction.

    Two processes may start at once: the writer's place is taken before the version is read, so the second one waits
    and then finds nothing to do.
    """
    if _is_current(engine):
        return
    # Every command comes here and nearly none has anything to migrate: loading Alembic takes longer than most of them.
    from alembic import command
    from alembic.config import Config

    with storage.writing(engine) as connection:
        config = Config()
        config.set_main_option("script_location", str(SCRIPTS).replace("%", "%%"))
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def _is_current(engine: Engine) -> bool:
    with storage.reading(engine) as connection:
        if not inspect(connection).has_table(_version.name):
            return False
        return connection.scalars(select(_version.c.version_num)).all() == [HEAD]

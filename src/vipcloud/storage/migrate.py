"""Bringing the store to the tables that this version needs."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Engine

from vipcloud.storage import engine as storage

SCRIPTS = Path(__file__).with_name("migrations")


def upgrade(engine: Engine) -> None:
    """Run the migrations that are missing, all in one transaction.

    Two processes may start at once: the writer's place is taken before the version is read, so the second one waits
    and then finds nothing to do.
    """
    with storage.writing(engine) as connection:
        config = Config()
        config.set_main_option("script_location", str(SCRIPTS).replace("%", "%%"))
        config.attributes["connection"] = connection
        command.upgrade(config, "head")

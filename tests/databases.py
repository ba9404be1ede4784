"""A real PostgreSQL server for tests: in a folder of its own, reached by a socket in it, ended with the tests.

A test gets a database of its own, copied from one whose tables are there. Nothing of it needs to survive a power cut,
so the server does not wait for the disk.
"""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import psycopg
import pytest

from vipcloud.storage import engine as storage
from vipcloud.storage import migrate

SERVER_USER = "postgres"  # the server refuses to run as root
OPTIONS = ("fsync=off", "full_page_writes=off", "synchronous_commit=off", "listen_addresses=''", "max_connections=60")


def program(name: str) -> str:
    """Debian keeps the server's programs off the path, in a folder per version."""
    newest = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    found = str(newest[-1]) if newest else shutil.which(name)
    if found is None:
        pytest.skip("PostgreSQL's server is not installed; `make test` installs it")
    return found


@dataclass
class Postgres:
    """A running server. `folder` holds its socket."""

    folder: Path
    _numbers: Iterator[int] = field(default_factory=lambda: count(1))

    def url(self, database: str) -> str:
        return f"postgresql://{SERVER_USER}@/{database}?host={self.folder}"

    def run(self, statement: str) -> None:
        """A statement that no transaction may hold, as the server's administrator."""
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(statement)

    def create(self, template: str = "template1") -> str:
        """A new database; its URL."""
        name = f"books_{next(self._numbers)}"
        self.run(f"CREATE DATABASE {name} TEMPLATE {template}")
        return self.url(name)

    def close(self, name: str) -> None:
        """The database refuses everyone, as if its server were away."""
        self.run(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        self.run(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")

    def reopen(self, name: str) -> None:
        self.run(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")


@contextmanager
def serving() -> Iterator[Postgres]:
    """A server with the database `tables`, which has ours."""
    as_user = []
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # a disk takes long to forget so many files
    with tempfile.TemporaryDirectory(prefix="vipcloud-pg-", dir=memory) as folder:
        if os.geteuid() == 0:
            as_user = ["runuser", "-u", SERVER_USER, "--"]
            shutil.chown(folder, pwd.getpwnam(SERVER_USER).pw_uid)
        home = Path(folder)
        initdb = ["-D", f"{home}/data", "-U", SERVER_USER, "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"]
        control = [*as_user, program("pg_ctl"), "-D", f"{home}/data", "-w"]
        options = " ".join(f"-c {option}" for option in (*OPTIONS, f"unix_socket_directories={home}"))
        for command in (
            [*as_user, program("initdb"), *initdb],
            [*control, "-l", f"{home}/log", "-o", options, "start"],
        ):
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=folder)
        try:
            server = Postgres(home)
            server.run("CREATE DATABASE tables")
            engine = storage.open_engine(server.url("tables"))
            migrate.upgrade(engine)
            engine.dispose()
            yield server
        finally:
            subprocess.run([*control, "-m", "immediate", "stop"], check=True, stdout=subprocess.DEVNULL, cwd=folder)

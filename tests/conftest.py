import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
import structlog
from sqlalchemy import Engine

sys.path.append(str(Path(__file__).parents[1] / "requirements"))

import native

import databases
import hanging
import stripe_server
import valkey_server
from databases import Postgres
from valkey_server import Server
from vipcloud.storage import engine as storage
from vipcloud.storage import migrate

STORES = ("sqlite", "postgresql")
ROOT = Path(__file__).parents[1]

hypothesis.settings.register_profile("house", deadline=None)  # a busy machine is no fault; every test has its own limit
hypothesis.settings.load_profile("house")


def pytest_sessionstart(session: pytest.Session) -> None:
    """Extensions made of other sources would be tested in place of these; the rules of the house only read sources."""
    only_house = all("tests/house" in argument for argument in session.config.args)
    if not only_house and "sources" not in sys.modules and native.stale():
        pytest.exit("compiled modules are not of these sources: make .venv/ready/native, or make pure", 4)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """A test that hangs may take the whole run with it: `tests/all` then finds its name in this file."""
    named = os.environ.get("TEST_RUNNING")
    if named:
        Path(named).write_text(item.nodeid)
    with hanging.last_resort(item):
        done = yield
    if named:
        Path(named).unlink(missing_ok=True)
    return done


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Tests marked `interpreted` put fakes or faults into what may be compiled: they get a Python of their own."""
    if pyfuncitem.get_closest_marker("interpreted") is None or "sources" in sys.modules:
        return None
    command = [sys.executable, "-m", "pytest", "-p", "sources", "-p", "no:cacheprovider", pyfuncitem.nodeid]
    path = {"PYTHONPATH": str(ROOT / "proofs")}
    done = subprocess.run(command, cwd=ROOT, env=os.environ | path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return True


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL server, started when the first test asks for it."""
    with databases.serving() as server:
        yield server


@pytest.fixture(params=STORES)
def empty_store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A store without tables: once a SQLite file, once a PostgreSQL database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'books.db'}"
    return request.getfixturevalue("postgres").create()  # type: ignore[no-any-return]


@pytest.fixture(params=STORES)
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A store with its tables: once a SQLite file, once a PostgreSQL database."""
    if request.param == "postgresql":
        return request.getfixturevalue("postgres").create("tables")  # type: ignore[no-any-return]
    url = f"sqlite:///{tmp_path / 'books.db'}"
    engine = storage.open_engine(url)
    migrate.upgrade(engine)
    engine.dispose()
    return url


@pytest.fixture
def engine(store_url: str) -> Iterator[Engine]:
    """The same, opened."""
    engine = storage.open_engine(store_url)
    yield engine
    engine.dispose()


@pytest.fixture(scope="session")
def valkey_session() -> Iterator[Server]:
    with valkey_server.serving() as server:
        yield server


@pytest.fixture
def valkey(valkey_session: Server) -> Server:
    """A running server without any data."""
    valkey_session.flush()
    return valkey_session


@pytest.fixture(scope="session")
def stripe_url() -> Iterator[str]:
    """Where a local Stripe answers."""
    with stripe_server.serving() as url:
        yield url


@pytest.fixture(autouse=True)
def _own_logging() -> Iterator[None]:
    """What a test, or a proof that it runs, does to logging ends with it."""
    yield
    structlog.reset_defaults()

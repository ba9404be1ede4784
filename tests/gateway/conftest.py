import asyncio
import os
import shutil
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import structlog
import uvloop

sys.path.append(str(Path(__file__).parents[1] / "http"))  # for `wire`, the client of bytes

from front_door import House, make_key, opened

from vipcloud.clock import ManualClock
from vipcloud.storage import engine as storage
from vipcloud.storage import migrate

Open = Callable[..., Any]


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The loop that the gateway runs on."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, tuple[str, str]]:
    """A store with one account of $5.00, to be copied; and the account's key and id."""
    path = tmp_path_factory.mktemp("template") / "vipcloud.db"
    engine = storage.open_engine(path)
    migrate.upgrade(engine)
    with storage.writing(engine) as connection:
        key = make_key(connection, credit="5.00", rpm=0, concurrency=0)
    engine.dispose()
    return path, key


@pytest.fixture
def logs() -> Iterator[list[dict[str, Any]]]:
    """What is logged, as events, tracebacks rendered."""
    events: list[dict[str, Any]] = []

    def keep(_: object, method: str, event: dict[str, Any]) -> dict[str, Any]:
        events.append({**event, "level": method})
        raise structlog.DropEvent

    structlog.configure(processors=[structlog.processors.format_exc_info, keep], cache_logger_on_first_use=False)
    yield events
    structlog.reset_defaults()


@pytest.fixture
async def open_house(
    tmp_path: Path,
    template: tuple[Path, tuple[str, str]],
    logs: list[dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[Open]:
    """Opens houses; settings by group: `await open_house(timeouts={"idle_s": 1})`. No fault of ours may be logged."""
    for name in [name for name in os.environ if name.endswith("_API_KEY")]:
        monkeypatch.delenv(name)
    faults: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(context))
    async with AsyncExitStack() as houses:

        async def start(data_suffix: str = "", **options: Any) -> House:
            data = tmp_path / f"data{data_suffix}"
            if not data.exists():
                data.mkdir()
                shutil.copy(template[0], data)
            return await houses.enter_async_context(opened(str(data), template[1], logs, **options))

        yield start
    assert faults == []
    assert [event for event in logs if "handler" in event["event"]] == []


@pytest.fixture
async def house(open_house: Open) -> House:
    return await open_house()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()

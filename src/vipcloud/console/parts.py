"""What the console is made of, built once by `cli.console` and passed to every page."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from sqlalchemy import Engine

from vipcloud.clock import Clock
from vipcloud.errors import SettingsError
from vipcloud.providers.models import Catalog
from vipcloud.settings import Settings

P = ParamSpec("P")
R = TypeVar("R")

CATALOG_LOOK_S = 1.0


@dataclass(slots=True)
class Parts:
    """`public_url` is where customers reach us, without a slash at the end."""

    settings: Settings
    clock: Clock
    engine: Engine
    catalogs: "CurrentCatalog"
    public_url: str
    random_bytes: Callable[[int], bytes]

    @property
    def catalog(self) -> Catalog:
        return self.catalogs.get()

    async def in_thread(self, act: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """`act`, which reads or writes the store, without holding up other pages."""
        return await asyncio.to_thread(act, *args, **kwargs)


def threaded(act: Callable[P, R]) -> Callable[P, Awaitable[R]]:
    """A page that reads the store, as a coroutine: it runs in a thread and holds up no other page."""

    @wraps(act)
    async def run(*args: P.args, **kwargs: P.kwargs) -> R:
        return await asyncio.to_thread(act, *args, **kwargs)

    return run


@asynccontextmanager
async def beside(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Something that goes on for as long as pages are served."""
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(work)
        try:
            yield
        finally:
            task.cancel()


class CurrentCatalog:
    """The catalogue in force: pages show what the gateway serves. A file with a mistake leaves the former in force."""

    def __init__(self, load: Callable[[], Catalog], path: Path, clock: Clock) -> None:
        self._load = load
        self._path = path
        self._clock = clock
        self._catalog = load()
        self._seen = _stamp(path)
        self._looked_s = clock.monotonic_s()

    def get(self) -> Catalog:
        now_s = self._clock.monotonic_s()
        if now_s - self._looked_s >= CATALOG_LOOK_S:
            self._looked_s = now_s
            stamp = _stamp(self._path)
            if stamp != self._seen:
                self._seen = stamp
                try:
                    self._catalog = self._load()
                except SettingsError:
                    return self._catalog  # the gateway logs why
        return self._catalog


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size

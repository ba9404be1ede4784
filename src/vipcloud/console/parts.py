"""What the console is made of, built once by `cli.console` and passed to every page."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Engine

from vipcloud.clock import Clock
from vipcloud.errors import SettingsError
from vipcloud.providers.catalog import Catalog
from vipcloud.settings import Settings

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

"""What the gateway does beside serving: follows the change feed, the catalogue file and orders, and tells its state."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import structlog

from vipcloud.errors import SettingsError
from vipcloud.gateway import endings
from vipcloud.gateway.parts import Parts
from vipcloud.gateway.upstream_state import UpstreamNotices
from vipcloud.providers.models import Catalog

log = structlog.get_logger(__name__)


class Housekeeping:
    """Polls every `gateway.poll_interval_s`; `reload` (set by SIGHUP) forces the catalogue to be read again."""

    def __init__(self, parts: Parts, load_catalog: Callable[[], Catalog], reload: asyncio.Event) -> None:
        self._parts = parts
        self._load_catalog = load_catalog
        self._reload = reload
        self._seen = _stamp(parts.settings.catalog_path)
        self._notices = UpstreamNotices(parts.upstreams, parts.settings.data_path)

    async def run(self) -> None:
        await self._repeat(self._look)

    async def run_draining(self) -> None:
        """What is left of it once this gateway takes nothing new: what still runs must end when its key is revoked."""
        await self._repeat(self._follow_keys)

    async def _repeat(self, look: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await look()
            except Exception:  # serving goes on without the news; `/readyz` says when they are too old
                log.exception("housekeeping failed")
            await asyncio.sleep(self._parts.settings.gateway.poll_interval_s)

    async def _look(self) -> None:
        await self._follow_keys()
        self._follow_catalog()
        self._notices.follow()
        self._notices.tell(self._parts.clock.wall_s(), self._parts.clock.monotonic_s())

    async def _follow_keys(self) -> None:
        await self._parts.directory.poll_changes()
        endings.end_closed(self._parts)

    def _follow_catalog(self) -> None:
        stamp = _stamp(self._parts.settings.catalog_path)
        if stamp == self._seen and not self._reload.is_set():
            return
        self._seen = stamp
        self._reload.clear()
        try:
            catalog = self._load_catalog()
            self._parts.upstreams.adopt(catalog)
        except SettingsError as error:
            log.error("catalogue not taken; the former one stays in force", error=str(error))
            return
        self._parts.catalog = catalog
        log.info("catalogue taken", models=len(catalog.models))


def _stamp(path: Path) -> tuple[int, int] | None:
    """Changes whenever the file does; None while there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size

"""`/status`: the finished page that `vipcloud watch` left in the data folder. Neither store nor console is asked.

A page that was not made anew for too long is not passed on as news: its other form is, which says since when nothing
was checked. While there is none at all, a plain sentence is.
"""

import re
from pathlib import Path
from typing import NamedTuple

import structlog

from vipcloud.clock import Clock
from vipcloud.errors import RouteNotFound, Unavailable
from vipcloud.gateway.app import TYPE_JSON, Route, same_origin_head
from vipcloud.gateway.call import Call
from vipcloud.http.headers import header_block
from vipcloud.status import files
from vipcloud.status.report import FRESH_S

ASSET_AGE_S = 31_536_000
_ASSET = re.compile(rf"[0-9a-z]{{1,16}}\.[a-z]{{1,16}}({'|'.join(map(re.escape, files.TYPES))})")
_PAGE = header_block(
    [("content-type", "text/html; charset=utf-8"), ("cache-control", "no-cache"), *files.HEADERS.items()]
)
_NONE_YET = b"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Status: vipcloud</title></head>
<body><main><h1>Nothing was checked yet</h1>
<p>The gateway answers, as you see; that is all that is known. The first check is made within a minute of its start.</p>
</main></body></html>
"""

log = structlog.get_logger(__name__)


class _File(NamedTuple):
    stamp: tuple[int, int]
    plain: bytes
    packed: bytes


class StatusPage:
    """The routes. Files are read again when they have changed."""

    def __init__(self, data: Path, clock: Clock) -> None:
        self._folder = files.folder(data)
        self._clock = clock
        self._read: dict[str, _File] = {}

    def table(self) -> dict[str, dict[str, Route]]:
        return {"/status": {"GET": self.page}, "/status.json": {"GET": self.json}, "/status/*": {"GET": self.asset}}

    async def page(self, call: Call) -> None:
        head = same_origin_head(call.head) + _PAGE
        found = self._newest(files.PAGE, files.STALE_PAGE)
        if found is None:
            call.exchange.respond(503, head + b"retry-after: 30\r\n", _NONE_YET)
            return
        self._answer(call, head, found)

    async def json(self, call: Call) -> None:
        """Any site may read it. Raises Unavailable before the first check."""
        found = self._newest(files.JSON, files.STALE_JSON)
        if found is None:
            raise Unavailable("Nothing was checked yet.", retry_after_s=30)
        self._answer(call, call.head + TYPE_JSON + b"cache-control: no-cache\r\n", found)

    async def asset(self, call: Call) -> None:
        """What the page loads. Raises RouteNotFound."""
        named = _ASSET.fullmatch(call.rest)
        found = self._file(call.rest) if named is not None else None
        if named is None or found is None:
            raise RouteNotFound("There is no such file.")
        lines = [
            ("content-type", files.TYPES[named.group(1)]),
            ("cache-control", f"public, max-age={ASSET_AGE_S}, immutable"),
            ("x-content-type-options", "nosniff"),
        ]
        self._answer(call, same_origin_head(call.head) + header_block(lines), found)

    def _newest(self, fresh: str, stale: str) -> _File | None:
        found = self._file(fresh)
        if found is not None and self._clock.wall_s() - found.stamp[0] / 1e9 > FRESH_S:
            return self._file(stale) or found
        return found

    def _file(self, name: str) -> _File | None:
        path = self._folder / name
        try:
            status = path.stat()
            stamp = status.st_mtime_ns, status.st_size
            known = self._read.get(name)
            if known is None or known.stamp != stamp:
                packed = path.with_name(name + files.PACKED)
                known = self._read[name] = _File(stamp, path.read_bytes(), packed.read_bytes())
        except FileNotFoundError:
            return None
        except OSError as error:
            log.warning("status page cannot be read", file=name, error=str(error))
            return self._read.get(name)
        return known

    def _answer(self, call: Call, head: bytes, found: _File) -> None:
        head += b"vary: Accept-Encoding\r\n"
        if b"gzip" in call.exchange.headers.get(b"accept-encoding", b""):
            call.exchange.respond(200, head + b"content-encoding: gzip\r\n", found.packed)
        else:
            call.exchange.respond(200, head, found.plain)

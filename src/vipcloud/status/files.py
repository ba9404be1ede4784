"""The finished status page in the data folder: written by `vipcloud watch` each minute, served by the gateway as it is.

It needs neither store nor console. There are two of each: one as long as it is fresh, and one that says how old it is.
"""

import gzip
import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

FOLDER = "status"
PAGE, STALE_PAGE = "status.html", "stale.html"
JSON, STALE_JSON = "status.json", "stale.json"
PACKED = ".gz"
HEADERS = {
    "content-security-policy": (
        "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
}
TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


class Asset(NamedTuple):
    """A file that the page loads. Its name says its content: it may be cached for ever."""

    name: str
    data: bytes


def folder(data: Path) -> Path:
    return data / FOLDER


def write(data: Path, pages: Mapping[str, bytes], assets: list[Asset]) -> None:
    """Put the files in place, each whole or not at all: what pages load goes first, the freshest page last.

    Assets that no page names any more are removed. Raises OSError.
    """
    place = folder(data)
    place.mkdir(parents=True, exist_ok=True, mode=0o755)
    wanted = {asset.name for asset in assets} | {f"{asset.name}{PACKED}" for asset in assets}
    for asset in assets:
        if not (place / asset.name).exists():
            _write(place / asset.name, asset.data)
    for name, content in pages.items():
        _write(place / name, content)
        wanted |= {name, f"{name}{PACKED}"}
    for path in place.iterdir():
        if path.name not in wanted and not path.name.startswith("."):
            path.unlink(missing_ok=True)


def put(path: Path, content: bytes) -> None:
    """All of it or nothing: a reader never sees half a file. Raises OSError."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fresh.write_bytes(content)
    fresh.replace(path)


def _write(path: Path, content: bytes) -> None:
    put(path.with_name(path.name + PACKED), gzip.compress(content, 6, mtime=0))
    put(path, content)

"""`/status` from files alone: fresh, old, packed, not there yet; and nothing else of the folder."""

import asyncio
import gzip
import json
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from vipcloud.clock import ManualClock
from vipcloud.gateway.app import App
from vipcloud.gateway.status_page import StatusPage
from vipcloud.http.server import HTTPServer
from vipcloud.settings import ServerSettings
from vipcloud.status import files
from vipcloud.status.files import Asset
from vipcloud.status.report import FRESH_S

NOW_S = 1_795_000_000.0


@dataclass
class Front:
    """The status routes on a port, over a folder that a test fills."""

    data: Path
    clock: ManualClock
    port: int

    def write(self, text: bytes = b"<h1>All systems normal") -> None:
        pages = {
            files.STALE_PAGE: b"<h1>Not checked since",
            files.STALE_JSON: b'{"state":"unknown"}',
            files.JSON: b'{"state":"normal"}',
            files.PAGE: text,
        }
        files.write(self.data, pages, [Asset("ab12.base.css", b"main{}")])
        for path in files.folder(self.data).iterdir():
            os.utime(path, (self.clock.wall_s(), self.clock.wall_s()))

    async def get(self, path: str, *headers: str, method: str = "GET") -> tuple[int, dict[str, str], bytes]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        lines = [f"{method} {path} HTTP/1.1", "Host: x", "Connection: close", *headers]
        writer.write("\r\n".join([*lines, "", ""]).encode())
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        writer.close()
        status, *rest = head.decode().split("\r\n")
        found = dict(line.lower().split(": ", 1) for line in rest)
        return int(status.split()[1]), found, body


@pytest.fixture
async def front(tmp_path: Path) -> AsyncIterator[Front]:
    clock = ManualClock(NOW_S)
    app = App(StatusPage(tmp_path, clock).table(), clock)
    server = HTTPServer(app.handle, ServerSettings(), app.render_error)
    port = await server.start("127.0.0.1", 0)
    yield Front(tmp_path, clock, port)
    await server.close(0)


async def test_before_the_first_check_it_says_that_nothing_is_known(front: Front) -> None:
    status, headers, body = await front.get("/status")
    assert (status, headers["retry-after"]) == (503, "30")
    assert b"Nothing was checked yet" in body
    status, _, body = await front.get("/status.json")
    assert (status, json.loads(body)["error"]["code"]) == (503, "service_unavailable")


async def test_the_page_is_the_file(front: Front) -> None:
    front.write()
    for path in ("/status", "/status/", "/status?from=footer"):
        status, headers, body = await front.get(path)
        assert (status, body) == (200, b"<h1>All systems normal")
        assert headers["content-type"] == "text/html; charset=utf-8"
        assert headers["cache-control"] == "no-cache"
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert "access-control-allow-origin" not in headers
    status, headers, body = await front.get("/status", method="HEAD")
    assert (status, headers["content-length"], body) == (200, "22", b"")
    status, _, _ = await front.get("/status", method="POST")
    assert status == 405


async def test_it_comes_packed_to_those_that_take_it_so(front: Front) -> None:
    front.write()
    _, headers, body = await front.get("/status", "Accept-Encoding: br, gzip")
    assert (headers["content-encoding"], headers["vary"]) == ("gzip", "accept-encoding")
    assert gzip.decompress(body) == b"<h1>All systems normal"


async def test_any_site_may_read_the_data(front: Front) -> None:
    front.write()
    status, headers, body = await front.get("/status.json")
    assert (status, json.loads(body)) == (200, {"state": "normal"})
    assert headers["access-control-allow-origin"] == "*"
    assert headers["content-type"] == "application/json"


async def test_a_page_that_is_made_anew_is_served_anew(front: Front) -> None:
    front.write()
    await front.get("/status")
    front.clock.advance(60)
    front.write(b"<h1>The gateway does not answer")
    assert (await front.get("/status"))[2] == b"<h1>The gateway does not answer"


async def test_an_old_page_says_that_it_is_old_until_a_new_one_comes(front: Front) -> None:
    front.write()
    front.clock.advance(FRESH_S - 1)
    assert (await front.get("/status"))[2] == b"<h1>All systems normal"
    front.clock.advance(2)
    status, _, body = await front.get("/status")
    assert (status, body) == (200, b"<h1>Not checked since")
    assert json.loads((await front.get("/status.json"))[2]) == {"state": "unknown"}
    front.write()
    assert (await front.get("/status"))[2] == b"<h1>All systems normal"


async def test_what_the_page_loads_may_be_kept_for_ever(front: Front) -> None:
    front.write()
    status, headers, body = await front.get("/status/ab12.base.css")
    assert (status, headers["content-type"], body) == (200, "text/css; charset=utf-8", b"main{}")
    assert headers["cache-control"] == "public, max-age=31536000, immutable"


@pytest.mark.parametrize(
    "path",
    [
        "/status/gone.css",
        "/status/status.html",
        "/status/status.json.gz",
        "/status/..%2fsecret.css",
        "/status/%2e%2e%2fsecret.css",
        "/status/../secret.css",
        "/status/.hidden.css",
        "/status//secret.css",
        "/status/%00.css",
        "/status/" + "a" * 300 + ".css",
    ],
)
async def test_nothing_else_is_served(front: Front, path: str) -> None:
    front.write()
    (front.data / "secret.css").write_text("secret")
    (files.folder(front.data) / ".hidden.css").write_text("secret")
    status, _, body = await front.get(path)
    assert (status, b"secret{" in body or body == b"secret") == (404, False)

"""The status page of a running gateway, in a browser: with everything there, and without store, website or checks."""

import json
import os
import signal
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from chromium import PICTURES, SCHEMES, SIZES, watched
from playwright.sync_api import Browser
from running import Gateway, eventually

from vipcloud.status import files

pytestmark = [pytest.mark.clients, pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """What `make run` starts, when it has checked for the first time. Its end is not looked at: its store is taken."""
    gateway = Gateway(tmp_path_factory.mktemp("status") / "house")
    gateway.start()
    eventually(lambda: gateway.status("/status") == 200, 30.0)
    yield gateway
    gateway.process._process.terminate()
    gateway.process._process.wait(20)


def helper(gateway: Gateway, name: str) -> int:
    """The process id of one of its helpers."""
    for pid in gateway.process._helpers():
        if name in Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0"):
            return int(pid)
    raise AssertionError(f"no helper {name}")


def text_of(gateway: Gateway, path: str) -> str:
    with urllib.request.urlopen(gateway.origin + path, timeout=5) as answer:
        return str(answer.read().decode())


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("size", SIZES, ids=["wide", "narrow"])
def test_the_page_is_found_read_by_everybody_and_loads_only_its_own(
    house: Gateway, chromium: Browser, size: tuple[int, int], scheme: str
) -> None:
    PICTURES.mkdir(parents=True, exist_ok=True)
    context = chromium.new_context(
        viewport={"width": size[0], "height": size[1]}, color_scheme="dark" if scheme == "dark" else "light"
    )
    page, complaints = watched(context)
    loaded: list[str] = []
    page.goto(house.origin)
    page.click("footer >> text=Status")
    assert page.url == f"{house.origin}/status"
    page.on("request", lambda request: loaded.append(request.url))
    page.reload()
    assert page.inner_text("h1") == "All systems normal"
    assert page.get_attribute(f"nav[aria-label={'Site' if size[0] > 900 else 'Footer'}] a[href='/status']", "href")
    assert {url.removeprefix(house.origin).split("/")[1] for url in loaded} == {"status"}
    found = Axe().run(page).response["violations"]
    assert [(each["id"], [node["html"] for node in each["nodes"]][:3]) for each in found] == []
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    page.screenshot(path=PICTURES / f"status.{size[0]}.{scheme}.png", full_page=True)
    assert complaints == []
    context.close()


def test_what_it_says_is_also_data(house: Gateway) -> None:
    told = json.loads(text_of(house, "/status.json"))
    assert told["state"] == "normal"
    assert {each["id"] for each in told["parts"]} == {"gateway", "website", "books"}
    assert "deepseek-chat" in {each["id"] for each in told["models"]}


def test_it_is_there_when_the_website_and_the_store_are_not(house: Gateway, chromium: Browser) -> None:
    os.kill(helper(house, "console"), signal.SIGKILL)
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(urllib.request.Request(f"{house.origin}/login", headers={"accept": "text/html"}))
    assert refused.value.code == 503
    for path in (house.folder / "data").glob("vipcloud.db*"):
        path.unlink()
    page = chromium.new_page()
    page.goto(f"{house.origin}/status")
    assert page.inner_text("h1") == "All systems normal", "as it was a moment ago, with the time beside it"
    assert "Checked at" in page.inner_text("main")
    colour = page.evaluate("getComputedStyle(document.querySelector('.uptime .day, .uptime .day-part')).fill")
    assert colour not in ("", "rgb(0, 0, 0)"), "the design system is there, too"
    page.close()


def test_a_page_that_nobody_makes_anew_says_so(house: Gateway, chromium: Browser) -> None:
    os.kill(helper(house, "watch"), signal.SIGSTOP)
    try:
        for name in (files.PAGE, files.JSON):
            path = files.folder(house.folder / "data") / name
            old = path.stat().st_mtime - 300
            os.utime(path, (old, old))
        page = chromium.new_page()
        page.goto(f"{house.origin}/status")
        assert page.inner_text("h1").startswith("Not checked since")
        assert page.query_selector(".state-ok") is None, "nothing is green"
        assert json.loads(text_of(house, "/status.json"))["state"] == "unknown"
        found = Axe().run(page).response["violations"]
        assert [each["id"] for each in found] == []
        page.close()
    finally:
        os.kill(helper(house, "watch"), signal.SIGCONT)

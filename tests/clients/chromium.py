"""Debian's Chromium, as tests drive it: how it starts and ends, what a page's console says, and how one signs in."""

import contextlib
import html
import os
import re
import signal
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright
from running import Site, eventually, tool

PICTURES = Path(__file__).parents[2] / "build" / "screenshots"
SIZES = ((1440, 900), (390, 844))
SCHEMES = ("light", "dark")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",  # containers have little of it, and pages crash where there is no more
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
# A page that is closed while it goes to another never closes with RenderDocument, and hangs the next `new_page`:
# https://github.com/microsoft/playwright/issues/42068. The last such flag counts alone, so this one names again what
# Playwright switches off and pages here could meet.
SWITCHED_OFF = (
    "RenderDocument",
    "AvoidCorsURLLoaderRestartOnRedirect",
    "AvoidUnnecessaryBeforeUnloadCheckSync",
    "DestroyProfileOnBrowserClose",
    "HttpsFirstBalancedModeAutoEnable",
    "HttpsUpgrades",
    "MediaRouter",
    "OptimizationHints",
    "PaintHolding",
    "ThirdPartyStoragePartitioning",
)


@contextlib.contextmanager
def launched() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        flags = [*FLAGS, f"--disable-features={','.join(SWITCHED_OFF)}"]
        browser = playwright.chromium.launch(executable_path=tool("chromium", "chromium"), args=flags)
        yield browser
        browser.close()


def descendants(pid: int) -> Iterator[int]:
    """The process's children, their children, and so on."""
    with contextlib.suppress(OSError):  # it has ended
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                yield from descendants(int(child))
                yield int(child)


def end(program: str, ancestor: int) -> None:
    """Kill those descendants of `ancestor` that run a program whose path ends like that."""
    for pid in list(descendants(ancestor)):
        with contextlib.suppress(OSError):
            if re.match(rb"[^\0 ]*", Path(f"/proc/{pid}/cmdline").read_bytes())[0].endswith(program.encode()):
                os.kill(pid, signal.SIGKILL)


def watched(context: BrowserContext) -> tuple[Page, list[str]]:
    """A page, and what its console complains of."""
    page = context.new_page()
    complaints: list[str] = []
    page.on(
        "console", lambda message: complaints.append(message.text) if message.type in ("error", "warning") else None
    )
    page.on("pageerror", lambda error: complaints.append(str(error)))
    return page, complaints


def mail(site: Site, pattern: str) -> str:
    """What the newest mail that matches says, read at the outbox: without a page, for opening one may hang."""

    def look() -> str | None:
        with urllib.request.urlopen(f"{site.url}/outbox", timeout=5) as answer:
            text = html.unescape(re.sub(r"<[^>]*>", "", answer.read().decode()))
        found = re.search(pattern, text)
        return found[1] if found else None

    text = eventually(look)
    assert text is not None
    return text


def sign_in(page: Page, site: Site, email: str) -> None:
    """On the page for it, with the code of the mail; the page that was asked for has come when it returns."""
    page.fill("#mail", email)
    page.click("text=Mail me a code")
    page.fill("#code", mail(site, r"Your code: (\d{4} \d{4})"))
    page.click("main button:has-text('Sign in')")
    page.wait_for_url(lambda url: "/login" not in url)

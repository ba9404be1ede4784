"""The whole story in a real browser: from the waitlist to the first call, its cost in the dashboard, and the last key.

Every page on the way is looked at as axe-core looks at pages, wide and narrow, light and dark; its picture is kept in
build/screenshots.
"""

import json
import re
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest
from axe_playwright_python.sync_playwright import Axe
from chromium import PICTURES, SCHEMES, SIZES, mail, watched
from playwright.sync_api import Browser
from running import Site, eventually, vipcloud

pytestmark = [pytest.mark.clients, pytest.mark.timeout(240)]

PUBLIC = [
    "/",
    "/models",
    "/docs/quickstart",
    "/docs/chat-completions",
    "/docs/errors",
    "/docs/management",
    "/docs/openapi",
    "/docs/status",
    "/docs?q=limits",
    "/login",
    "/terms",
]
MEMBERS = ["/overview", "/usage", "/keys", "/keys/new", "/credit", "/playground", "/limits", "/settings"]
EMAIL = "eve@example.com"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    started = Site(tmp_path_factory.mktemp("website") / "site")
    yield started
    started.process.stop()


def test_from_the_waitlist_to_the_bill(site: Site, chromium: Browser) -> None:
    context = chromium.new_context()
    page, complaints = watched(context)
    page.goto(site.url)
    page.click("[data-demo] button")
    page.wait_for_selector("[data-m=tok]:has-text('out')")
    assert page.inner_text("[data-reply]").strip() != ""
    assert page.inner_text("[data-m=cost]") == "$0.00"
    assert "99 of 100 left today" in page.inner_text("[data-left]")
    page.fill("#wl-mail", EMAIL)
    page.click("form#waitlist button")
    assert page.inner_text("h1") == "Look into your mail"
    page.goto(mail(site, r"(http://\S+/waitlist/confirm/\w+)"))
    page.click("text=Put me on the waitlist")
    assert page.inner_text("h1") == "You are on the list"

    assert EMAIL in vipcloud("waitlist", "list", "--data", "data", cwd=site.folder)
    vipcloud("waitlist", "approve", EMAIL, "--credit", "3.00", "--data", "data", cwd=site.folder)
    welcome = mail(site, r"http://\S+(/welcome/\w+)")
    page.goto(site.url + welcome)
    page.click("text=Let me in")
    key = page.inner_text("#the-key")
    assert re.fullmatch(r"vc-sk-\w{46}", key)
    page.check("input[type=checkbox]")
    page.click("text=Done, hide the key")
    assert "first key" in page.inner_text("table")
    assert key not in page.content()

    body = {"model": "deepseek-chat", "messages": [{"role": "user", "content": "Count to 5"}]}
    request = urllib.request.Request(
        f"{site.url}/v1/chat/completions",
        json.dumps(body).encode(),
        {"authorization": f"Bearer {key}", "content-type": "application/json"},
    )

    def call() -> dict[str, object]:
        with urllib.request.urlopen(request) as answer:
            found: dict[str, object] = json.load(answer)
            return found

    answered = call()

    def booked() -> bool:
        page.goto(f"{site.url}/usage")
        return str(answered["id"]) in page.content()

    eventually(booked)
    page.click(f"a[href='/usage/{answered['id']}']")
    cost = page.get_attribute(".total data", "value")
    usage = answered["usage"]
    assert isinstance(usage, dict)
    assert cost is not None
    assert float(cost) == pytest.approx(usage["cost"], abs=1e-12)
    page.goto(f"{site.url}/credit")
    left = page.get_attribute("dd.figure data", "value")
    assert left is not None
    assert round((float(left) + float(cost)) * 1e9) == 3_000_000_000

    page.goto(f"{site.url}/keys")
    page.click("text=Create a key")
    page.fill("#k-name", "second")
    page.click("text=Create the key")
    page.goto(f"{site.url}/keys")
    page.click("tr:has-text('first key') >> text=Revoke")
    page.fill("#rv", "first key")
    page.click("button:has-text('Revoke the key')")

    def refused() -> bool:
        try:
            call()
        except urllib.error.HTTPError as error:
            return error.code == 401
        return False

    eventually(refused, within_s=2.0)
    page.click(".app-side >> text=Sign out")
    page.goto(f"{site.url}/overview")
    assert "/login" in page.url
    assert complaints == []
    context.close()


def test_signing_in_with_a_code_of_the_mail(site: Site, chromium: Browser) -> None:
    vipcloud("accounts", "create", "ann@example.com", "--data", "data", cwd=site.folder)
    context = chromium.new_context()
    page, _ = watched(context)
    page.goto(f"{site.url}/usage")
    page.fill("#mail", "ann@example.com")
    page.click("text=Mail me a code")
    page.fill("#code", "0000 0000")
    page.click("main button:has-text('Sign in')")
    assert "4 tries are left" in page.inner_text(".error")
    page.fill("#code", mail(site, r"Your code: (\d{4} \d{4})"))
    page.click("main button:has-text('Sign in')")
    assert page.url == f"{site.url}/usage", "back where one wanted to go"
    context.storage_state(path=site.folder / "ann.json")
    context.close()


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("size", SIZES, ids=["wide", "narrow"])
def test_every_page_is_readable_by_everybody(site: Site, chromium: Browser, size: tuple[int, int], scheme: str) -> None:
    width, height = size
    PICTURES.mkdir(parents=True, exist_ok=True)
    context = chromium.new_context(
        viewport={"width": width, "height": height},
        color_scheme="dark" if scheme == "dark" else "light",
        storage_state=site.folder / "ann.json",
    )
    page, complaints = watched(context)
    problems = []
    for path in [*PUBLIC, *MEMBERS]:
        page.goto(site.url + path)
        name = re.sub(r"\W+", "-", path).strip("-") or "home"
        page.screenshot(path=PICTURES / f"{name}.{width}.{scheme}.png", full_page=True)
        if page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth"):
            problems.append(f"{path} scrolls sideways at {width}")
        for violation in Axe().run(page).response["violations"]:
            problems += [f"{path}: {violation['id']}: {node['html'][:160]}" for node in violation["nodes"]]
    assert problems == []
    assert complaints == []
    context.close()


def test_the_site_works_without_a_script(site: Site, chromium: Browser) -> None:
    context = chromium.new_context(java_script_enabled=False, storage_state=site.folder / "ann.json")
    page = context.new_page()
    page.goto(f"{site.url}/models")
    page.fill("#c-in", "1000000")
    page.click("text=Work out")
    assert "1,000,000 tokens in" in page.inner_text("caption")
    page.goto(f"{site.url}/keys/new")
    page.fill("#k-name", "plain")
    page.click("text=Create the key")
    assert page.inner_text("#the-key").startswith("vc-sk-")
    context.close()

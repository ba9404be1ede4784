"""An operator in a browser: signs in, walks every page as axe-core does, and acts on a running gateway."""

from collections.abc import Iterator

import pytest
from axe_playwright_python.sync_playwright import Axe
from chromium import PICTURES, SCHEMES, SIZES, sign_in, watched
from playwright.sync_api import Browser
from running import Site, eventually, vipcloud

pytestmark = [pytest.mark.clients, pytest.mark.timeout(240)]

OPERATOR, CUSTOMER = "ops@example.com", "ann@example.com"
PAGES = ("", "/upstreams", "/margin", "/accounts", "/waitlist", "/incidents", "/ledger", "/audit")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    site = Site(tmp_path_factory.mktemp("operator") / "site")
    yield site
    site.process.stop()


def test_an_operator_signs_in_and_acts(site: Site, chromium: Browser) -> None:
    for email in (OPERATOR, CUSTOMER):
        vipcloud("accounts", "create", email, "--data", "data", cwd=site.folder)
    context = chromium.new_context()
    page, complaints = watched(context)
    page.goto(f"{site.url}/login")
    sign_in(page, site, OPERATOR)
    assert "Operator view" not in page.inner_text(".app-side")
    vipcloud("people", "admin", OPERATOR, "--data", "data", cwd=site.folder)
    page.reload()
    page.click(".app-side >> text=Operator view")
    assert page.inner_text("h1") == "Overview"

    page.click(".app-side >> text=Accounts")
    page.fill("#q", "ann@")
    page.click("text=Search")
    page.click(f"table >> text={CUSTOMER}")
    page.fill("#amount", "12.50")
    page.fill("#reason", "a cut stream on Monday")
    page.click(f"text=Give {CUSTOMER} credit")
    assert "$17.50" in page.inner_text(".readout >> nth=0")
    page.click(f"text=Close {CUSTOMER}")
    assert "closed by an operator" in page.inner_text(".page-head")
    page.click(f"text=Open {CUSTOMER} again")

    page.click(".app-side >> text=Upstreams")
    page.click("text=Drain deepseek/1")

    def state() -> str:
        page.goto(f"{site.url}/admin/upstreams")
        return page.inner_text("tr:has-text('deepseek/1')")

    eventually(lambda: "drained" in state(), 15.0)
    page.click("text=Revive deepseek/1")
    eventually(lambda: "serving" in state(), 15.0)

    page.click(".app-side >> text=Incidents")
    page.fill("#i-title", "DeepSeek is slow")
    page.check("input[name='affects:deepseek']")
    page.fill("#i-text", "First tokens take twice as long as usual. Nothing fails.")
    page.click("text=Publish the incident")
    assert "Affects DeepSeek" in page.inner_text("article")
    page.click(".app-side >> text=Audit log")
    told = page.inner_text("table")
    for act in ("credit given", "account closed", "account opened again", "upstream drained", "upstream revived"):
        assert act in told
    assert "$12.50: a cut stream on Monday" in told
    assert complaints == []
    context.storage_state(path=site.folder / "ops.json")
    context.close()


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("size", SIZES, ids=["wide", "narrow"])
def test_every_page_is_readable_by_everybody_who_may(
    site: Site, chromium: Browser, size: tuple[int, int], scheme: str
) -> None:
    PICTURES.mkdir(parents=True, exist_ok=True)
    context = chromium.new_context(
        viewport={"width": size[0], "height": size[1]},
        color_scheme="dark" if scheme == "dark" else "light",
        storage_state=site.folder / "ops.json",
    )
    page, complaints = watched(context)
    page.goto(f"{site.url}/admin/accounts")
    account = page.get_attribute(f"a:has-text('{CUSTOMER}')", "href")
    assert account is not None
    problems = []
    for path in (*(f"/admin{each}" for each in PAGES), account):
        page.goto(site.url + path)
        name = "account" if path == account else path.strip("/").replace("/", "-")
        page.screenshot(path=PICTURES / f"{name}.{size[0]}.{scheme}.png", full_page=True)
        if page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth"):
            problems.append(f"{path} scrolls sideways at {size[0]}")
        for violation in Axe().run(page).response["violations"]:
            problems += [f"{path}: {violation['id']}: {node['html'][:160]}" for node in violation["nodes"]]
    assert problems == []
    assert complaints == []
    context.close()


def test_a_stranger_finds_nothing_there(site: Site, chromium: Browser) -> None:
    page = chromium.new_page()
    for path in PAGES:
        answer = page.goto(f"{site.url}/admin{path}")
        assert answer is not None
        assert answer.status == 404
    page.close()

"""The playground as somebody uses it: models side by side, tools by hand, images, stop, and the code that it shows."""

import re
import struct
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from chromium import PICTURES, SCHEMES, SIZES, sign_in, watched
from playwright.sync_api import Browser, BrowserContext, Page, expect
from running import Site, environment, eventually, tool, vipcloud

pytestmark = [pytest.mark.clients, pytest.mark.timeout(240)]

NODE = Path(__file__).parent / "node"
EMAIL = "pat@example.com"


def png() -> bytes:
    """A picture of one red pixel."""
    parts = (b"IHDR" + struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0), b"IDAT" + zlib.compress(b"\0\xff\0\0"), b"IEND")
    chunks = [struct.pack(">I", len(part) - 4) + part + struct.pack(">I", zlib.crc32(part)) for part in parts]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    started = Site(tmp_path_factory.mktemp("playground") / "site")
    vipcloud("accounts", "create", EMAIL, "--credit", "3.00", "--data", "data", cwd=started.folder)
    yield started
    started.process.stop()


@pytest.fixture(scope="module")
def context(site: Site, chromium: Browser) -> Iterator[BrowserContext]:
    """Somebody is signed in there."""
    made = chromium.new_context(viewport={"width": 1440, "height": 900})
    page, _ = watched(made)
    page.goto(f"{site.url}/playground")
    sign_in(page, site, EMAIL)
    assert page.url == f"{site.url}/playground", "back where one wanted to go"
    page.close()
    yield made
    made.close()


@pytest.fixture
def page(site: Site, context: BrowserContext) -> Iterator[Page]:
    opened, complaints = watched(context)
    opened.goto(f"{site.url}/playground")
    yield opened
    opened.close()
    assert [said for said in complaints if "the server responded with a status of" not in said] == []


def send(page: Page, text: str) -> None:
    page.fill("#p-next", text)
    page.click("[data-send]")


def answered(page: Page) -> None:
    expect(page.locator("[data-send]")).to_have_text("Send", timeout=15_000)


def open_line(page: Page, site: Site) -> None:
    """The request's page in usage, as soon as it is booked."""
    line = page.locator("[data-line] a").get_attribute("href")

    def look() -> bool:
        page.goto(f"{site.url}{line}")
        return page.locator("h1").inner_text() != "Nothing is at this address"

    eventually(look)


def test_an_answer_tells_what_it_cost_and_is_in_the_usage_log(site: Site, page: Page) -> None:
    send(page, "Count to 5")
    answered(page)
    assert page.locator("[data-reply]").inner_text() != ""
    assert re.fullmatch(r"\d+ in, \d+ out", page.locator("[data-m=tok]").inner_text())
    assert re.fullmatch(r"\d+ ms|\d+\.\d\d s", page.locator("[data-m=ttft]").inner_text())
    cost = page.locator("[data-m=cost] data").get_attribute("value")
    open_line(page, site)
    assert page.locator(".total data").get_attribute("value") == cost
    page.goto(f"{site.url}/usage")
    assert page.locator("tbody td.p3").first.inner_text() == "playground"
    page.goto(f"{site.url}/keys")
    assert page.locator("tbody th:has-text('playground')").count() == 1, "made once"


def test_three_models_answer_the_same_conversation_and_each_goes_on_from_its_own(page: Page) -> None:
    page.select_option("#p-model-1", "glm-4-flash")
    page.select_option("#p-model-2", "deepseek-reasoner")
    page.fill("#p-system", "Be brief.")
    send(page, "Say hello")
    answered(page)
    assert page.locator(".answer-model").all_inner_texts() == ["deepseek-chat", "glm-4-flash", "deepseek-reasoner"]
    assert page.locator("[data-m=cost] data").nth(1).get_attribute("value") == "0.000000000"
    first = page.locator("[data-reply]").nth(1).inner_text()
    page.select_option("[data-code-model]", "1")
    page.fill("#p-next", "And again")
    code = page.locator("[data-code=python]")
    expect(code).to_contain_text("And again")
    expect(code).to_contain_text('model="glm-4-flash"')
    assert first[:20] in code.inner_text()
    page.click("[data-send]")
    answered(page)
    assert page.locator("[data-round]").count() == 2
    page.locator("[data-round] textarea").first.fill("What is 3 * 14?")
    page.locator("[data-again]").first.click()
    answered(page)
    assert page.locator("[data-round]").count() == 1, "what came after it is gone"
    assert "42" in page.locator("[data-reply]").first.inner_text()


def test_a_call_is_shown_and_answered_by_hand(page: Page) -> None:
    page.check("#p-tools-on")
    page.fill("#p-tools", "[{")
    send(page, "What is the weather in Oslo?")
    assert page.locator("[data-round]").count() == 0, "nothing is sent with tools that are not JSON"
    page.reload()
    page.check("#p-tools-on")
    send(page, "What is the weather in Oslo?")
    answered(page)
    call = page.locator("[data-calls]")
    assert "Calls get_weather" in call.inner_text()
    assert "Oslo" in call.locator("[data-arguments]").inner_text()
    page.click("text=Send the result")
    expect(page.locator("[data-problem]").first).to_be_hidden()
    expect(page.locator("form [data-problem]").last).to_have_text("A call waits for its result. Nothing was sent.")
    call.locator("textarea").fill('{"degrees": -7}')
    page.click("text=Send the result")
    answered(page)
    expect(page.locator("[data-reply]").last).to_contain_text("-7")
    assert page.locator("[data-m=cost] data").count() == 2, "two requests, each with its charge"


def test_stopping_says_what_is_charged(site: Site, page: Page) -> None:
    send(page, "Tell me a story [[tokens=2000 pace_ms=20]]")
    expect(page.locator("[data-reply]")).not_to_be_empty()
    expect(page.locator("[data-m=ttft]")).not_to_have_text("…")
    page.click("text=Stop")
    answered(page)
    assert "You stopped it. What was delivered is charged" in page.locator(".answer [data-problem]").inner_text()
    open_line(page, site)
    assert "you left" in page.locator("main").inner_text()


def test_an_error_is_shown_with_its_request_id(page: Page) -> None:
    page.fill("#p-temp", "3")
    send(page, "Hello")
    answered(page)
    told = page.locator(".answer [data-problem]").inner_text()
    assert told.startswith("400 ")
    assert "temperature" in told
    assert re.search(r"Nothing was charged\. Request req_\w+\.", told)
    page.fill("#p-temp", "")
    page.locator("[data-again]").click()
    answered(page)
    assert page.locator("[data-m=cost] data").count() == 1


def test_forms_of_answers_and_unstreamed_ones(page: Page) -> None:
    page.uncheck("#p-stream")
    page.select_option("#p-form", "json_schema")
    page.fill("#p-max", "500")
    send(page, "Hello")
    answered(page)
    assert page.locator("[data-reply]").inner_text().startswith("{")


def test_images_go_to_models_that_take_them(page: Page, tmp_path: Path) -> None:
    assert page.locator("#p-files").is_disabled()
    page.select_option("#p-model-0", "glm-4-plus")
    picture = tmp_path / "dot.png"
    picture.write_bytes(png())
    page.set_input_files("#p-files", picture)
    expect(page.locator(".images canvas")).to_have_count(1)
    send(page, "What is this?")
    answered(page)
    assert "1 image: image/png" in page.locator("[data-reply]").inner_text()
    assert page.locator(".turn:has(#p-next) .images").is_hidden()
    text = tmp_path / "no.png"
    text.write_text("no picture")
    page.set_input_files("#p-files", text)
    expect(page.locator("form [data-problem]").last).to_contain_text("It was not added.")


@pytest.mark.parametrize("streamed", [True, False])
def test_the_code_is_the_request_and_runs(site: Site, page: Page, tmp_path: Path, streamed: bool) -> None:
    page.fill("#p-system", 'It\'s "quoted", $HOME, `x` and a \\ too — with\na second line.')
    page.fill("#p-next", "Repeat after me: it's fine")
    page.fill("#p-max", "200")
    page.fill("#p-temp", "0.5")
    if not streamed:
        page.uncheck("#p-stream")
        page.select_option("#p-form", "json_object")
        page.fill("#p-next", "Repeat as JSON: it's fine")
    key = vipcloud("keys", "create", "--account", EMAIL, "--data", "data", cwd=site.folder)
    found = re.search(r"vc-sk-\w+", key)
    assert found is not None
    own = environment(VIPCLOUD_API_KEY=found[0])
    for name, command, folder in (
        ("python", [sys.executable, "-W", "error", "-"], tmp_path),
        ("node", [tool("node", "nodejs"), "--input-type=module", "-"], NODE),
        ("curl", [tool("sh", "dash"), "-es"], tmp_path),
    ):
        text = page.locator(f"[data-code={name}]").text_content()
        assert text is not None
        ended = subprocess.run(command, input=text, cwd=folder, env=own, capture_output=True, text=True, timeout=60)
        assert ended.returncode == 0, f"{text}\n{ended.stdout}{ended.stderr}"
        assert "fine" in ended.stdout or not streamed, ended.stdout
        assert '"error"' not in ended.stdout, ended.stdout


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("size", SIZES, ids=["wide", "narrow"])
def test_a_conversation_is_readable_by_everybody(page: Page, size: tuple[int, int], scheme: str) -> None:
    page.set_viewport_size({"width": size[0], "height": size[1]})
    page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    page.select_option("#p-model-1", "deepseek-reasoner")
    page.check("#p-tools-on")
    send(page, "What is the weather in Oslo?")
    answered(page)
    PICTURES.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=PICTURES / f"playground-answered.{size[0]}.{scheme}.png", full_page=True)
    assert Axe().run(page).response["violations"] == []
    assert not page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth")


def test_without_a_script_it_says_so(site: Site, chromium: Browser, context: BrowserContext) -> None:
    plain = chromium.new_context(java_script_enabled=False, storage_state=context.storage_state())
    page = plain.new_page()
    page.goto(f"{site.url}/playground")
    assert "The playground needs JavaScript." in page.locator("noscript").inner_text()
    assert page.locator("[data-send]").is_disabled()
    plain.close()

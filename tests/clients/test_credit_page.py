"""Credit as an owner meets it, against a local Stripe: pay and keep the card, recharge, promo code, refund, receipts.

And each of these pages, and those for keys, as axe-core looks at them: wide and narrow, light and dark.
"""

import hashlib
import hmac
import json
import re
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe
from chromium import PICTURES, SCHEMES, SIZES, mail, sign_in, watched
from playwright.sync_api import Browser, BrowserContext, Page, expect
from running import Process, Site, eventually, vipcloud

pytestmark = [pytest.mark.clients, pytest.mark.timeout(240)]

EMAIL = "ann@example.com"
SECRET = "whsec_test"
VISA, REFUSED = "4242424242424242", "4000000000000341"
SETTINGS = """
[payments]
stripe_key = "sk_test_12345"
webhook_secret = "whsec_test"
api_url = "{stripe_url}"
seller = "Seller Ltd, 1 Street, Oslo"
"""


class Shop(Site):
    """A site that takes cards."""

    def __init__(self, folder: Path, stripe_url: str) -> None:
        self.folder, self.stripe_url = folder, stripe_url
        folder.mkdir()
        (folder / "vipcloud.toml").write_text(SETTINGS.format(stripe_url=stripe_url))
        self.process = Process("serve", ["serve", "--port", "0", "--data", "data"], folder)
        self.url = self.process.says(r"website +(http://\S+)")[1]

    def run(self, *arguments: str) -> str:
        return vipcloud(*arguments, "--data", "data", cwd=self.folder)

    def pay(self, page_url: str, number: str = VISA) -> None:
        """The customer pays at Stripe, which tells us."""
        session = page_url.rpartition("/")[2]
        for event in httpx.post(f"{self.stripe_url}/_pay/{session}", data={"number": number}).json():
            body = json.dumps({**event, "livemode": False}).encode()
            at = int(time.time())
            mac = hmac.new(SECRET.encode(), b"%d.%s" % (at, body), hashlib.sha256).hexdigest()
            headers = {"stripe-signature": f"t={at},v1={mac}", "content-type": "application/json"}
            with urllib.request.urlopen(urllib.request.Request(f"{self.url}/webhooks/stripe", body, headers)) as answer:
                assert answer.status == 200


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory, stripe_url: str) -> Iterator[Shop]:
    started = Shop(tmp_path_factory.mktemp("credit") / "shop", stripe_url)
    started.run("accounts", "create", EMAIL, "--credit", "3.00")
    started.run("promos", "create", "WELCOME-5", "--amount", "5")
    yield started
    started.process.stop()


@pytest.fixture(scope="module")
def signed_in(shop: Shop, chromium: Browser) -> Iterator[BrowserContext]:
    context = chromium.new_context(viewport={"width": 1440, "height": 900})
    context.route(
        "https://checkout.stripe.com/**",
        lambda route: route.fulfill(status=200, content_type="text/html", body="<title>Stripe</title>Pay here"),
    )
    page, _ = watched(context)
    page.goto(f"{shop.url}/credit")
    sign_in(page, shop, EMAIL)
    page.close()
    yield context
    context.close()


def add_credit(page: Page, shop: Shop, amount: str, *, keep: bool = False) -> None:
    """From the form through Stripe's page to the credit."""
    page.goto(f"{shop.url}/credit")
    page.fill("#other", amount)
    if keep:
        page.check("input[name=save]")
    page.click("text=Pay by card")
    page.wait_for_url("https://checkout.stripe.com/**")
    shop.pay(page.url)


def credit(page: Page, shop: Shop) -> str:
    page.goto(f"{shop.url}/credit")
    return page.inner_text("dd.figure")


def test_pay_keep_the_card_recharge_use_a_code_and_get_a_refund(shop: Shop, signed_in: BrowserContext) -> None:
    page, complaints = watched(signed_in)
    page.goto(f"{shop.url}/credit")
    expect(page.locator("#recharge")).to_contain_text("No card is saved")
    add_credit(page, shop, "12.50", keep=True)
    assert credit(page, shop).startswith("$15.50")
    eventually(lambda: page.reload() and "Visa ending 4242" in page.inner_text("#recharge"))
    page.fill("#re-below", "20")
    page.fill("#re-amount", "20")
    page.fill("#re-cap", "40")
    page.click("button:has-text('Switch on')")
    expect(page.locator("#recharge .state")).to_have_text("on")
    eventually(lambda: credit(page, shop).startswith("$35.50"), within_s=15)
    assert page.locator("a[href^='/credit/receipts/']").count() == 2
    assert "$20.00 of credit was added" in mail(shop, r"(\$20\.00 of credit was added at vipcloud)")

    page.fill("#promo-code", "welcome-5")
    page.click("text=Add its credit")
    expect(page.locator("#promo")).to_contain_text("The code's credit was added")
    assert credit(page, shop).startswith("$40.50")

    number = page.locator("a[href^='/credit/receipts/']").first.inner_text()
    assert f"Refunded $20.00 of {number}" in shop.run("payments", "refund", number)
    assert "0 differences" in shop.run("payments", "reconcile")
    page.goto(f"{shop.url}/credit/receipts/{number}")
    assert "Refunded\n$20.00" in page.inner_text("main")
    page.goto(f"{shop.url}/credit")
    page.click("button:has-text('Switch off')")
    expect(page.locator("#recharge .state")).to_have_text("off")
    assert "The books are right" in shop.run("ledger", "verify")
    assert complaints == []
    page.close()


def test_a_refusal_and_a_wrong_amount_are_told_as_such(shop: Shop, signed_in: BrowserContext) -> None:
    page, _ = watched(signed_in)
    page.goto(f"{shop.url}/credit")
    page.fill("#other", "2")
    page.click("text=Pay by card")
    assert "Choose an amount from $5 to $1,000" in page.inner_text("[role=alert]")
    page.goto(f"{shop.url}/credit")
    page.click("text=Pay by card")
    page.wait_for_url("https://checkout.stripe.com/**")
    shop.pay(page.url, REFUSED)
    page.goto(f"{shop.url}/credit")
    page.fill("#re-cap", "1")
    page.click("button:has-text('Switch on')")
    assert "Choose a cap per month" in page.inner_text("[role=alert]")
    page.close()


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("size", SIZES, ids=["wide", "narrow"])
def test_every_page_about_credit_and_keys_is_readable_by_everybody(
    shop: Shop, chromium: Browser, signed_in: BrowserContext, size: tuple[int, int], scheme: str
) -> None:
    PICTURES.mkdir(parents=True, exist_ok=True)
    context = chromium.new_context(
        viewport={"width": size[0], "height": size[1]},
        color_scheme="dark" if scheme == "dark" else "light",
        storage_state=signed_in.storage_state(),
    )
    page, complaints = watched(context)
    problems: list[str] = []

    def look(name: str) -> None:
        page.screenshot(path=PICTURES / f"{name}.{size[0]}.{scheme}.png", full_page=True)
        if page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth"):
            problems.append(f"{name} scrolls sideways at {size[0]}")
        for violation in Axe().run(page).response["violations"]:
            problems.extend(f"{name}: {violation['id']}: {node['html'][:160]}" for node in violation["nodes"])

    page.goto(f"{shop.url}/credit")
    look("credit-with-receipts")
    page.click("a[href^='/credit/receipts/'] >> nth=0")
    look("receipt")
    page.goto(f"{shop.url}/credit")
    page.fill("#promo-code", "NO-SUCH-CODE")
    page.click("text=Add its credit")
    look("credit-problem")
    page.goto(f"{shop.url}/keys/new")
    look("key-new")
    page.fill("#k-name", f"of {size[0]} {scheme}")
    page.click("text=Create the key")
    look("key-created")
    page.goto(f"{shop.url}/keys")
    look("keys")
    page.click(f"tr:has-text('of {size[0]} {scheme}') >> text=Rotate")
    look("key-rotate")
    page.click("main button.btn-primary")
    look("key-rotated")
    assert problems == []
    assert [each for each in complaints if "status of 400" not in each] == []
    context.close()


def test_a_receipt_has_what_a_receipt_needs(shop: Shop, signed_in: BrowserContext) -> None:
    page, _ = watched(signed_in)
    page.goto(f"{shop.url}/credit")
    page.click("a[href^='/credit/receipts/'] >> nth=-1")
    text = page.inner_text("main")
    assert re.search(r"Receipt VC-\d{4}-000001", text)
    for part in ("Seller Ltd, 1 Street, Oslo", EMAIL, "Visa ending 4242", "$12.50"):
        assert part in text
    page.close()

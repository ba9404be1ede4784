"""The playground: whoever is signed in asks with a cookie and no key, and pays with their account's credit."""

import secrets
from dataclasses import dataclass
from typing import Any

import pytest
from front_door import House, Reply

from vipcloud.accounts import people, store
from vipcloud.cli import context
from vipcloud.storage import engine as storage


@dataclass
class Browser:
    """Somebody signed in; `key_id` is of the key that the page made."""

    house: House
    cookie: str
    key_id: str
    member_id: str

    async def ask(self, text: str = "Hello", headers: dict[str, str] | None = None, **fields: Any) -> Reply:
        sent = {
            "Content-Type": "application/json",
            "Cookie": f"theme=dark; vc_session={self.cookie}; other=1",
            "X-Vipcloud-Form": people.form_token(self.cookie),
            "Sec-Fetch-Site": "same-origin",
            **(headers or {}),
        }
        sent = {name: value for name, value in sent.items() if value}
        body = self.house.body(text, "deepseek-chat", fields)
        return await self.house.ask("POST", "/playground/chat/completions", body, sent)


@pytest.fixture
def browser(house: House) -> Browser:
    now_s = context.clock.wall_s()
    with storage.writing(house.engine) as connection:
        account = store.account_by_id(connection, house.account_id)
        assert account is not None
        member = people.find_member(connection, account.email)
        assert member is not None
        cookie = people.open_session(connection, member.id, now_s, secrets.token_bytes)
        key = store.create_key(connection, account.id, now_s, secrets.token_bytes, store.PLAYGROUND_KEY)
    return Browser(house, cookie, key.row.id, member.id)


async def test_the_session_pays_and_the_key_named_playground_is_in_the_books(browser: Browser, house: House) -> None:
    reply = await browser.ask()
    stream = await browser.ask(stream=True)
    assert (reply.status, stream.done) == (200, True)
    assert "access-control-allow-origin" not in reply.headers
    rows = await house.settled(2)
    assert {(row.account_id, row.key_id) for row in rows} == {(house.account_id, browser.key_id)}
    assert rows[0].charge_nanousd == round(reply.usage["cost"] * 1e9) > 0


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"X-Vipcloud-Form": ""}, 403),
        ({"X-Vipcloud-Form": "0" * 64}, 403),
        ({"Cookie": ""}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Sec-Fetch-Site": "none"}, 403),
        ({"Content-Type": "text/plain"}, 415),
    ],
)
async def test_another_site_cannot_spend_it(browser: Browser, headers: dict[str, str], status: int) -> None:
    refused = await browser.ask(headers=headers)
    assert refused.status == status
    assert "access-control-allow-origin" not in refused.headers
    assert browser.house.rows() == []


async def test_other_sites_preflights_are_refused(house: House) -> None:
    asked = {"Origin": "https://other.example", "Access-Control-Request-Headers": "x-vipcloud-form"}
    preflight = await house.ask("OPTIONS", "/playground/chat/completions", headers=asked)
    assert preflight.status == 403
    assert "access-control-allow-origin" not in preflight.headers


async def test_a_key_is_no_way_in(house: House) -> None:
    refused = await house.ask("POST", "/playground/chat/completions", house.body("Hello", "deepseek-chat", {}))
    assert refused.status == 403


@pytest.mark.parametrize("cookie", ["x" * 43, "x" * 5000, "é", "\ud800"])
async def test_a_cookie_that_is_no_session_is_signed_out(browser: Browser, cookie: str) -> None:
    raw = cookie.encode("utf-8", "surrogatepass").decode("latin-1")
    headers = {"Cookie": f"vc_session={raw}", "X-Vipcloud-Form": people.form_token(raw)}
    assert (await browser.ask(headers=headers)).error["message"] == "You are signed out. Sign in and send it again."


async def test_signing_out_ends_it_at_once(browser: Browser, house: House) -> None:
    assert (await browser.ask()).status == 200
    with storage.writing(house.engine) as connection:
        people.close_sessions(connection, browser.member_id)
    assert (await browser.ask()).status == 401


async def test_the_keys_terms_hold_and_revoking_it_ends_it(browser: Browser, house: House) -> None:
    now_s = context.clock.wall_s()
    with storage.writing(house.engine) as connection:
        terms = store.KeyTerms(models=("glm-4-flash",))
        newer = store.create_key(connection, house.account_id, now_s + 1, secrets.token_bytes, "playground", terms)
    assert (await browser.ask()).status == 404
    assert (await browser.ask(model="glm-4-flash")).status == 200
    with storage.writing(house.engine) as connection:
        store.revoke_key(connection, newer.row.id, now_s)
        store.revoke_key(connection, browser.key_id, now_s)
    refused = await browser.ask()
    assert refused.status == 403
    assert "key named playground" in refused.error["message"]


async def test_a_suspended_account_is_refused(browser: Browser, house: House) -> None:
    with storage.writing(house.engine) as connection:
        store.set_suspended(connection, house.account_id, suspended=True)
    await house.noticed()
    assert (await browser.ask()).error["message"] == "This account is suspended."


async def test_it_goes_with_the_website(open_house) -> None:
    house = await open_house(console={"enabled": False})
    assert (await house.ask("POST", "/playground/chat/completions", b"{}")).status == 404

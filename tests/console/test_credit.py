"""Paying by card, against a local Stripe: what is paid is added once, and nothing else is."""

import asyncio
import hashlib
import hmac
import json
import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from typing import Any

import httpx
import msgspec
import pytest
from litestar import Litestar
from litestar.testing import TestClient
from sqlalchemy import select

from console.conftest import PUBLIC_URL, Page, Person, words
from vipcloud.accounts import mails, people, store
from vipcloud.accounts.directory import Directory
from vipcloud.billing import refunds, watch, withdrawals
from vipcloud.billing import store as billing
from vipcloud.billing.payments import PaymentsError
from vipcloud.console import app
from vipcloud.console.chores import Chores
from vipcloud.console.parts import Parts
from vipcloud.gateway.withdrawals import Withdrawals
from vipcloud.ledger import audit
from vipcloud.ledger import store as ledger
from vipcloud.limits.local import LocalGuard
from vipcloud.money import NANO
from vipcloud.settings import PaymentSettings, Secret
from vipcloud.storage import engine as storage
from vipcloud.storage import schema

SECRET = "whsec_test"
VISA, REFUSED = "4242424242424242", "4000000000000341"
Change = Callable[[dict[str, Any]], None]


@pytest.fixture
def site(parts: Parts, stripe_url: str) -> Iterator[TestClient[Litestar]]:
    payments = PaymentSettings(
        stripe_key=Secret("sk_test_12345"), webhook_secret=Secret(SECRET), api_url=stripe_url, seller="Seller Ltd, Oslo"
    )
    parts.settings = msgspec.structs.replace(parts.settings, payments=payments)
    with TestClient(app.build(parts), base_url=PUBLIC_URL, raise_server_exceptions=False) as client:
        client.headers["accept"] = "text/html,*/*;q=0.8"
        yield client


class Shop:
    """Ann, who pays; Stripe's page; and Stripe's events."""

    def __init__(self, site: TestClient[Litestar], person: Person, parts: Parts, stripe_url: str) -> None:
        self.site, self.person, self.parts, self.stripe_url = site, person, parts, stripe_url
        self.account = person.account("ann@example.com")
        person.sign_in("ann@example.com")

    def begin(self, **fields: str) -> str:
        """The session of a payment just begun."""
        answer = self.person.post("/credit", **fields)
        assert answer.status_code == 303, answer.text
        assert answer.headers["location"].startswith("https://checkout.stripe.com/")
        return str(answer.headers["location"].rpartition("/")[2])

    def pay(self, session: str, number: str = VISA) -> list[dict[str, Any]]:
        """The events of a customer's try to pay, as Stripe sends them."""
        found = httpx.post(f"{self.stripe_url}/_pay/{session}", data={"number": number})
        events: list[dict[str, Any]] = found.json()
        for event in events:
            event["livemode"] = False
        return events

    def paid(self, amount: str = "50") -> dict[str, Any]:
        """The event of a payment that was made."""
        return next(event for event in self.pay(self.begin(amount=amount)) if event["type"].endswith("completed"))

    def send(self, event: dict[str, Any], *, secret: str = SECRET, age_s: int = 0) -> httpx.Response:
        body = json.dumps(event, indent=2).encode()
        at = int(time.time()) - age_s
        mac = hmac.new(secret.encode(), b"%d.%s" % (at, body), hashlib.sha256).hexdigest()
        headers = {"stripe-signature": f"t={at},v1={mac}", "content-type": "application/json"}
        return self.site.post("/webhooks/stripe", content=body, headers=headers)

    def added(self) -> int:
        """Nano-dollars paid in, and that the books are right."""
        with storage.reading(self.parts.engine) as connection:
            assert ledger.differences(connection) == []
            assert audit.overdrawn(connection) == {}
            return ledger.balance(connection, self.account.id) - 5 * NANO

    def waiting(self) -> str:
        """The page of the payment begun last."""
        with storage.reading(self.parts.engine) as connection:
            return f"/credit/wait/{billing.since(connection, 0)[-1].id}"

    def closed(self) -> bool:
        with storage.reading(self.parts.engine) as connection:
            found = store.account_by_id(connection, self.account.id)
            assert found is not None
            return found.closed

    def tell(self, kind: str, name: str, about: dict[str, Any]) -> None:
        assert self.send({"id": name, "type": kind, "livemode": False, "data": {"object": about}}).status_code == 200

    def take(self) -> None:
        """The gateway's part: it takes what goes back."""
        clock, engine = self.parts.clock, self.parts.engine
        directory = Directory(engine, clock, self.parts.settings.accounts)
        guard = LocalGuard(clock, 600.0)
        asyncio.run(Withdrawals(engine, directory, lambda: guard, clock).round())


@pytest.fixture
def shop(site: TestClient[Litestar], person: Person, parts: Parts, stripe_url: str) -> Shop:
    return Shop(site, person, parts, stripe_url)


def test_a_payment_is_added_once_and_has_a_receipt(shop: Shop) -> None:
    event = shop.paid()
    assert "Waiting for Stripe to confirm" in shop.site.get(shop.waiting()).text
    with storage.reading(shop.parts.engine) as connection:
        before = store.latest_change(connection)
    assert shop.send(event).status_code == 200
    assert shop.added() == 50 * NANO
    with storage.reading(shop.parts.engine) as connection:
        [change] = store.changes_since(connection, before)
    assert (change.kind, change.subject) == (schema.ACCOUNT_CHANGED, shop.account.id)
    page = shop.site.get(shop.waiting()).text
    assert "$50.00 was added." in words(page)
    assert "http-equiv" not in page
    [number] = re.findall(r'href="/credit/receipts/(VC-\d{4}-000001)"', page)
    receipt = words(shop.site.get(f"/credit/receipts/{number}").text)
    assert all(
        part in receipt for part in (number, "Seller Ltd, Oslo", "ann@example.com", "Visa ending 4242", "$50.00")
    )
    credit = words(shop.site.get("/credit").text)
    assert "Paid in by card" in credit
    assert number in credit


def test_an_event_that_comes_again_or_twice_at_once_adds_nothing(shop: Shop) -> None:
    event = shop.paid("25")
    other = {**event, "id": "evt_other"}  # another event of the same payment
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(shop.send, [event, other, event, other]))
    assert [answer.status_code for answer in answers] == [200] * 4
    assert shop.send(event).status_code == 200
    assert shop.added() == 25 * NANO


@pytest.mark.parametrize(
    "change",
    [
        lambda event: event["data"]["object"].update(amount_total=100_000),
        lambda event: event["data"]["object"].update(amount_total=5000.0),
        lambda event: event["data"]["object"].update(currency="jpy"),
        lambda event: event["data"]["object"].update(id="cs_test_another"),
        lambda event: event["data"]["object"].update(client_reference_id="top_0000000000000000"),
        lambda event: event["data"]["object"]["metadata"].update(account="acct_another"),
        lambda event: event["data"]["object"].update(mode="subscription"),
        lambda event: event["data"]["object"].update(payment_status="unpaid"),
        lambda event: event["data"]["object"].update(payment_intent=None),
        lambda event: event.update(livemode=True),
        lambda event: event.update(type="invoice.paid"),
    ],
)
def test_an_event_that_does_not_match_adds_nothing_and_the_right_one_still_does(shop: Shop, change: Change) -> None:
    event = shop.paid()
    wrong = deepcopy(event)
    change(wrong)
    wrong["id"] = "evt_wrong"
    assert shop.send(wrong).status_code == 200
    assert shop.added() == 0
    assert shop.send(event).status_code == 200
    assert shop.added() == 50 * NANO


def test_a_forged_or_old_event_is_refused_and_not_stored(shop: Shop) -> None:
    event = shop.paid()
    assert shop.send(event, secret="whsec_guess").status_code == 400
    assert shop.send(event, age_s=3600).status_code == 400
    assert shop.site.post("/webhooks/stripe", json=event).status_code == 400
    assert shop.send({"id": "evt_1"}).status_code == 400
    with storage.reading(shop.parts.engine) as connection:
        assert connection.execute(select(schema.payment_event)).all() == []
    assert shop.added() == 0


def test_a_refusal_is_told_and_paying_after_it_still_adds(shop: Shop) -> None:
    session = shop.begin(other="12.34")
    [refused] = [event for event in shop.pay(session, REFUSED) if event["type"].endswith("payment_failed")]
    assert shop.send(refused).status_code == 200
    assert "The payment was refused." in shop.site.get(shop.waiting()).text
    assert shop.added() == 0
    [paid] = [event for event in shop.pay(session) if event["type"].endswith("session.completed")]
    shop.send(paid)
    shop.send({**refused, "id": "evt_late"})
    assert shop.added() == 12_340_000_000
    assert "was added" in shop.site.get(shop.waiting()).text


def test_a_form_sent_twice_begins_one_payment(shop: Shop) -> None:
    [form_id] = re.findall(r'name="topup" value="(top_\w+)"', shop.site.get("/credit").text)
    assert shop.begin(amount="50", topup=form_id) == shop.begin(amount="50", topup=form_id)
    assert shop.begin(amount="25", topup=form_id) != shop.begin(amount="50", topup=form_id)


@pytest.mark.parametrize("amount", ["", "4.99", "1000.01", "-50", "50.001", "1e2", "fifty", "٥٠"])
def test_an_amount_out_of_bounds_begins_nothing(shop: Shop, amount: str) -> None:
    answer = shop.person.post("/credit", other=amount, amount="")
    assert answer.status_code == 400
    assert "Nothing was charged" in answer.text
    with storage.reading(shop.parts.engine) as connection:
        assert billing.since(connection, 0) == []


def test_a_dispute_closes_the_account_and_a_lost_one_never_overdraws(shop: Shop) -> None:
    event = shop.paid()
    shop.send(event)
    payment = event["data"]["object"]["payment_intent"]

    def dispute(kind: str, status: str) -> None:
        about = {"id": f"dp_{payment}", "payment_intent": payment, "status": status, "amount": 5000}
        shop.tell(f"charge.dispute.{kind}", f"evt_{kind}", about)

    dispute("created", "needs_response")
    assert shop.closed()
    assert shop.added() == 50 * NANO
    dispute("closed", "lost")
    shop.take()
    assert shop.closed()
    assert shop.added() == 0
    assert "Taken back by your bank" in words(shop.site.get("/credit").text)


def test_a_card_is_kept_charged_when_credit_falls_and_forgotten(shop: Shop) -> None:
    assert "No card is saved" in words(shop.site.get("/credit").text)
    assert shop.person.post("/credit/recharge", do="on", below="10", amount="20", cap="50").status_code == 400
    [event] = [event for event in shop.pay(shop.begin(amount="10", save="yes")) if event["type"].endswith("completed")]
    shop.send(event)
    page = words(shop.site.get("/credit").text)
    assert "Visa ending 4242" in page
    switched = shop.person.post("/credit/recharge", do="on", below="20", amount="20", cap="50")
    assert (switched.status_code, switched.headers["location"]) == (303, "/credit#recharge")
    Chores(shop.parts).round()
    assert shop.added() == 30 * NANO
    page = shop.site.get("/credit").text
    assert "Charged by itself this month $20.00" in words(page)
    assert Page(page).inline == []
    assert "was charged $20.00" in shop.person.mail("ann@example.com")
    assert shop.person.post("/credit/recharge", do="off").status_code == 303
    assert "Switch on" in shop.site.get("/credit").text
    assert shop.person.post("/credit/card/forget").status_code == 303
    assert "No card is saved" in words(shop.site.get("/credit").text)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"amount": "4", "below": "1", "cap": "50"}, "an amount to add from $5 to $1,000"),
        ({"amount": "10", "below": "11", "cap": "50"}, "a bound no higher than what is added, from $1 to $10"),
        ({"amount": "10", "below": "x", "cap": "50"}, "a bound no higher"),
        ({"amount": "10", "below": "5", "cap": "9"}, "a cap per month from $10 to $5,000"),
        ({"amount": "10", "below": "5", "cap": "6000"}, "a cap per month from $10 to $5,000"),
    ],
)
def test_what_cannot_be_switched_on_is_said_and_changes_nothing(shop: Shop, fields: dict[str, str], said: str) -> None:
    with storage.writing(shop.parts.engine) as connection:
        watch.save(connection, shop.account.id, customer_id="cus_1", method_id="pm_1", card="Visa ending 4242")
    answer = shop.person.post("/credit/recharge", do="on", **fields)
    assert answer.status_code == 400
    assert said in words(answer.text)
    with storage.reading(shop.parts.engine) as connection:
        assert not watch.find(connection, shop.account.id).recharge_on


def test_when_to_be_mailed_is_the_owners_to_say(shop: Shop) -> None:
    assert shop.person.post("/credit/low", low="4.50").status_code == 303
    assert 'value="4.50"' in shop.site.get("/credit").text
    for wrong in ("", "x", "-1", "10001"):
        assert shop.person.post("/credit/low", low=wrong).status_code == 400
    with storage.writing(shop.parts.engine) as connection:
        people.add_member(
            connection, shop.account.id, "cleo@example.com", "member", time.time(), shop.parts.random_bytes
        )
    shop.person.sign_in("cleo@example.com")
    for path in ("/credit/low", "/credit/recharge", "/credit/card/forget"):
        assert shop.person.post(path, low="1").status_code == 403
    assert "When credit runs low" not in shop.site.get("/credit").text


def test_a_refund_made_at_stripe_is_found_and_shown(shop: Shop) -> None:
    event = shop.paid()
    shop.send(event)
    payment = event["data"]["object"]["payment_intent"]
    asked = {"payment_intent": payment, "amount": 2000}
    httpx.post(f"{shop.stripe_url}/v1/refunds", data=asked, headers={"authorization": "Bearer sk_test_12345"})
    shop.tell("charge.refunded", "evt_refunded", {"id": "ch_1", "payment_intent": payment, "amount_refunded": 2000})
    Chores(shop.parts).round()
    shop.take()
    Chores(shop.parts).round()
    assert shop.added() == 30 * NANO
    page = shop.site.get("/credit").text
    assert "Refunded to your card" in words(page)
    [number] = re.findall(r"/credit/receipts/([\w-]+)", page)
    assert "Refunded $20.00" in words(shop.site.get(f"/credit/receipts/{number}").text)


def test_a_refund_whose_command_died_is_finished_once(shop: Shop) -> None:
    shop.send(shop.paid())
    now_s = shop.parts.clock.wall_s()
    with storage.writing(shop.parts.engine) as connection:
        [topup] = billing.receipts(connection, shop.account.id)
        name = store.new_id("wd", shop.parts.random_bytes)
        refunds.ask(connection, refunds.Part(topup, 1000), name, now_s - 60, whole=True)
        withdrawals.take(connection, name, 1000, now_s - 60)
    for _ in range(2):
        Chores(shop.parts).round()
    assert shop.added() == 40 * NANO
    with storage.reading(shop.parts.engine) as connection:
        [found] = withdrawals.of_account(connection, shop.account.id)
    assert (found.state, found.taken_cents) == ("done", 1000)


def test_the_operator_is_told_of_disputes_and_second_payments(shop: Shop, parts: Parts) -> None:
    payments = msgspec.structs.replace(parts.settings.payments, operator_email="op@gateway.example")
    parts.settings = msgspec.structs.replace(parts.settings, payments=payments)
    event = shop.paid()
    shop.send(event)
    other = shop.paid()
    session = {**other["data"]["object"], "client_reference_id": event["data"]["object"]["client_reference_id"]}
    twice = {
        **other,
        "id": "evt_twice",
        "data": {"object": {**session, "metadata": event["data"]["object"]["metadata"]}},
    }
    for _ in range(2):
        shop.send(twice)
    assert "A second payment of $50.00" in shop.person.mail("op@gateway.example")
    assert shop.added() == 100 * NANO
    about = {"id": "dp_op", "payment_intent": session["payment_intent"], "status": "needs_response"}
    shop.tell("charge.dispute.created", "evt_op", about)
    assert "The account is closed until the bank decides" in shop.person.mail("op@gateway.example")
    with storage.reading(parts.engine) as connection:
        assert sum(mail.recipient == "op@gateway.example" for mail in mails.unsent(connection)) == 2


def test_where_stripe_fails_for_one_the_others_are_done(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    event = shop.paid()
    shop.send(event)
    with storage.writing(shop.parts.engine) as connection:
        watch.save(connection, shop.account.id, recharge_on=True, customer_id="cus_1", method_id="pm_1",
                   below_cents=10_000, amount_cents=10_000, cap_cents=10_000)  # fmt: skip
        [topup] = billing.receipts(connection, shop.account.id)
        name = store.new_id("wd", shop.parts.random_bytes)
        refunds.ask(connection, refunds.Part(topup, 1000), name, 1.0, whole=True)
        withdrawals.take(connection, name, 1000, 1.0)

    def fails(*_: object) -> None:
        raise PaymentsError("not now")

    monkeypatch.setattr("vipcloud.billing.recharges.charge", fails)
    with pytest.raises(PaymentsError):
        Chores(shop.parts).round()
    assert shop.added() == 40 * NANO
    with storage.reading(shop.parts.engine) as connection:
        assert [each.state for each in withdrawals.of_account(connection, shop.account.id)] == ["done"]
    assert "goes back to Visa ending 4242" in shop.person.mail("ann@example.com")


def test_a_dispute_that_is_won_opens_the_account_again(shop: Shop) -> None:
    event = shop.paid()
    shop.send(event)
    about = {"payment_intent": event["data"]["object"]["payment_intent"], "status": "won"}
    for kind, closed in (("created", True), ("closed", False), ("updated", False)):
        shop.tell(f"charge.dispute.{kind}", kind, about)
        assert shop.closed() is closed
    assert shop.added() == 50 * NANO


def test_nobody_sees_anothers_payment_or_receipt_and_members_cannot_pay(shop: Shop) -> None:
    shop.send(shop.paid())
    wait = shop.waiting()
    [number] = re.findall(r"/credit/receipts/([\w-]+)", shop.site.get("/credit").text)
    [form_id] = re.findall(r"top_\w{16}", wait)
    shop.person.account("bob@example.com")
    shop.person.sign_in("bob@example.com")
    assert shop.site.get(wait).status_code == 404
    assert shop.site.get(f"/credit/receipts/{number}").status_code == 404
    assert number not in shop.site.get("/credit").text
    shop.begin(amount="50", topup=form_id)  # ann's id is not taken up
    assert form_id not in shop.waiting()
    with storage.writing(shop.parts.engine) as connection:
        people.add_member(
            connection, shop.account.id, "cleo@example.com", "member", time.time(), shop.parts.random_bytes
        )
    shop.person.sign_in("cleo@example.com")
    assert shop.person.post("/credit", amount="50").status_code == 403


def test_the_pages_obey_their_policy(shop: Shop) -> None:
    shop.send(shop.paid())
    for path in ("/credit", shop.waiting(), "/credit/receipts/" + time.strftime("VC-%Y-000001", time.gmtime())):
        answer = shop.site.get(path)
        page = Page(answer.text)
        assert answer.status_code == 200
        assert page.inline == []
        assert page.tags.count("h1") == 1
        assert page.labelled <= set(page.ids)


def test_without_an_answer_of_stripe_nothing_is_begun_and_the_page_says_so(shop: Shop, parts: Parts) -> None:
    gone = msgspec.structs.replace(parts.settings.payments, api_url="http://127.0.0.1:9")
    parts.settings = msgspec.structs.replace(parts.settings, payments=gone)
    with TestClient(app.build(parts), base_url=PUBLIC_URL, cookies=shop.site.cookies) as client:
        other = Person(client, parts)
        answer = other.post("/credit", amount="50")
    assert answer.status_code == 503
    assert "Stripe does not answer. Nothing was charged." in answer.text


def test_without_a_secret_there_is_no_route_and_paying_is_off(parts: Parts) -> None:
    for payments in (PaymentSettings(), PaymentSettings(stripe_key=Secret("sk_test_12345"))):
        parts.settings = msgspec.structs.replace(parts.settings, payments=payments)
        with TestClient(app.build(parts), base_url=PUBLIC_URL) as client:
            assert client.post("/webhooks/stripe", content=b"{}").status_code == 404
            visitor = Person(client, parts)
            email = f"{len(payments.stripe_key.reveal())}@example.com"
            visitor.account(email)
            visitor.sign_in(email)
            assert "Paying by card is off" in client.get("/credit").text
            assert visitor.post("/credit", amount="50").status_code == 405

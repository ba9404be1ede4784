"""Low credit: one mail per fall, one charge per fall, whatever dies in between."""

import re
import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine

from till import KEY, Till
from vipcloud.accounts import mails
from vipcloud.accounts import store as accounts
from vipcloud.billing import recharges, watch
from vipcloud.billing import store as billing
from vipcloud.billing.payments import Payments, PaymentsError
from vipcloud.billing.rules import Topup
from vipcloud.money import NANO
from vipcloud.settings import PaymentSettings
from vipcloud.storage import engine as storage

URL = "https://gateway.example"
DAY_S = 86_400.0
SETTINGS = PaymentSettings(low_credit_usd="2.00")
REFUSED = "4000000000000341"  # can be saved, and not be charged
ASKS = "4000002500003155"  # asks for a confirmation


@pytest.fixture
def till(engine: Engine, stripe_url: str) -> Till:
    return Till(engine, stripe_url)


@pytest.fixture
def saved(till: Till) -> Till:
    """An account whose card is charged $20 when credit falls below $10, up to $50 a month."""
    topup = till.pay(2000, saves_card=True)
    recharges.name_card(till.engine, till.stripe, till.clock, topup, URL)
    switch(till, recharge_on=True, below_cents=1000, amount_cents=2000, cap_cents=5000)
    return till


def switch(till: Till, **values: Any) -> None:
    with storage.writing(till.engine) as connection:
        watch.save(connection, till.account.id, **values)


def watched(till: Till) -> watch.Watch:
    with storage.reading(till.engine) as connection:
        return watch.find(connection, till.account.id)


def letters(till: Till) -> list[str]:
    """Subjects of the mails so far, oldest first."""
    with storage.reading(till.engine) as connection:
        return [mail.subject for mail in mails.unsent(connection) if mail.recipient == till.account.email][::-1]


def look(till: Till) -> None:
    recharges.tell_low(till.engine, till.clock, SETTINGS, URL)


def round_(till: Till, stripe: Payments | None = None) -> None:
    """What the console does every few seconds."""
    stripe = stripe or till.stripe
    look(till)
    recharges.tell_stopped(till.engine, till.clock, URL)
    recharges.begin(till.engine, till.clock, URL, secrets.token_bytes)
    carry_on(till, stripe)
    with storage.reading(till.engine) as connection:
        unnamed = watch.unnamed(connection, 0)
    for topup in unnamed:
        recharges.name_card(till.engine, stripe, till.clock, topup, URL)


def carry_on(till: Till, stripe: Payments) -> None:
    with storage.reading(till.engine) as connection:
        begun = watch.charging(connection)
    for topup in begun:
        recharges.charge(till.engine, stripe, till.clock, topup)


def charges(till: Till) -> list[dict[str, Any]]:
    """What Stripe has charged the saved card, but for the payment that saved it."""
    made = till.stripe.charges_since(0, watched(till).customer_id)
    return [each for each in made if each["status"] == "succeeded"][1:]


# --- mails -----------------------------------------------------------------------------------------------------------


def test_one_mail_each_time_credit_falls_and_at_most_one_a_day(till: Till) -> None:
    look(till)
    till.spend("3.01")
    for _ in range(3):
        look(till)
    assert letters(till) == ["$1.99 of credit is left at vipcloud"]
    with storage.reading(till.engine) as connection:
        [mail] = mails.unsent(connection)
    assert f"{URL}/credit" in mail.body
    till.pay(500)
    look(till)
    till.spend("5.00")
    look(till)
    assert len(letters(till)) == 1
    till.clock.advance(DAY_S)
    look(till)
    look(till)
    assert len(letters(till)) == 2


def test_two_that_look_at_once_write_one_mail(till: Till) -> None:
    till.spend("4.00")
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(look, [till] * 4))
    assert len(letters(till)) == 1


def test_who_never_had_as_much_or_wants_none_or_is_closed_is_not_mailed(till: Till, stripe_url: str) -> None:
    poor = Till(till.engine, stripe_url, "poor@example.com", "1.99")
    silent = Till(till.engine, stripe_url, "silent@example.com")
    closed = Till(till.engine, stripe_url, "closed@example.com")
    switch(silent, low_nanousd=0)
    with storage.writing(till.engine) as connection:
        accounts.set_suspended(connection, closed.account.id, suspended=True)
    for each in (silent, closed):
        each.spend("4.90")
    look(till)
    assert letters(poor) + letters(silent) + letters(closed) == []


def test_a_bound_of_ones_own_counts(till: Till) -> None:
    switch(till, low_nanousd=4 * NANO)
    till.spend("1.50")
    look(till)
    assert letters(till) == ["$3.50 of credit is left at vipcloud"]


# --- charges ---------------------------------------------------------------------------------------------------------


def test_the_saved_card_is_charged_once_and_it_is_told(saved: Till) -> None:
    assert watched(saved).card == "Visa ending 4242"
    round_(saved)
    assert charges(saved) == []
    saved.spend("15.01")
    for _ in range(3):
        round_(saved)
    assert saved.credit == int(29.99 * NANO)
    assert [each["amount"] for each in charges(saved)] == [2000]
    assert letters(saved) == ["$20.00 of credit was added at vipcloud"]
    with storage.reading(saved.engine) as connection:
        [mail] = mails.unsent(connection)
        [newest, _] = billing.receipts(connection, saved.account.id)
    assert re.search(rf"{URL}/credit/receipts/{billing.number(newest)}\b", mail.body)
    assert newest.card == "Visa ending 4242"


def test_the_event_of_a_charge_adds_nothing_a_second_time(saved: Till) -> None:
    saved.spend("15.01")
    recharges.begin(saved.engine, saved.clock, URL, secrets.token_bytes)
    with storage.reading(saved.engine) as connection:
        [topup] = watch.charging(connection)
    payment = saved.stripe.charge(topup)  # and here the console dies
    saved.tell("payment_intent.succeeded", payment)
    round_(saved)
    saved.tell("payment_intent.succeeded", payment)
    assert saved.credit == int(29.99 * NANO)
    assert len(charges(saved)) == 1


class Dying:
    """Stripe, by a console that dies at the call named: before it is sent, or before the answer is taken in."""

    def __init__(self, stripe: Payments, when: str) -> None:
        self._stripe, self._when = stripe, when

    def charge(self, topup: Topup) -> dict[str, Any]:
        if self._when == "before":
            raise PaymentsError("dead")
        self._stripe.charge(topup)
        raise PaymentsError("dead")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stripe, name)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("later_s", [5.0, 3 * DAY_S])
def test_whatever_dies_there_is_one_charge(saved: Till, when: str, later_s: float) -> None:
    saved.spend("15.01")
    for _ in range(2):
        with pytest.raises(PaymentsError):
            round_(saved, Dying(saved.stripe, when))  # type: ignore[arg-type]
    if later_s > DAY_S and when == "after":
        assert httpx.post(f"{saved.stripe_url}/_forget_keys").status_code == 200
    saved.clock.advance(later_s)
    round_(saved)
    round_(saved)
    assert len(charges(saved)) == 1
    assert saved.credit == int(29.99 * NANO)


def test_two_consoles_at_once_charge_once(saved: Till) -> None:
    saved.spend("15.01")

    def one(_: int) -> None:
        recharges.begin(saved.engine, saved.clock, URL, secrets.token_bytes)
        carry_on(saved, saved.stripe)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(one, range(4)))
    assert len(charges(saved)) == 1
    assert saved.credit == int(29.99 * NANO)


def save_card(till: Till, number: str) -> None:
    """Another card for the same customer."""
    ask: Callable[..., Any] = httpx.post
    headers = {"authorization": f"Bearer {KEY}"}
    card = {"card[number]": number, "card[exp_month]": "12", "card[exp_year]": "2030", "card[cvc]": "123"}
    made = ask(f"{till.stripe_url}/v1/payment_methods", data={"type": "card", **card}, headers=headers).json()
    customer = watched(till).customer_id
    ask(f"{till.stripe_url}/v1/payment_methods/{made['id']}/attach", data={"customer": customer}, headers=headers)
    switch(till, method_id=made["id"], card=f"Visa ending {number[-4:]}")


@pytest.mark.parametrize(("number", "said"), [(REFUSED, "declined"), (ASKS, "confirmation")])
def test_a_refused_card_switches_it_off_and_is_told_once(saved: Till, number: str, said: str) -> None:
    save_card(saved, number)
    saved.spend("15.01")
    for _ in range(3):
        round_(saved)
    assert not watched(saved).recharge_on
    assert said in (watched(saved).stopped_reason or "")
    assert letters(saved) == ["Your card was refused: automatic recharging is off"]
    assert charges(saved) == []
    assert saved.credit == int(9.99 * NANO)


def test_a_month_has_its_cap_and_that_is_told_once(saved: Till) -> None:
    for amount in ("15.01", "20.00", "20.00"):
        saved.spend(amount)
        round_(saved)
        round_(saved)
    assert len(charges(saved)) == 2  # a third $20 would be beyond $50
    assert letters(saved).count("Automatic recharging has reached $50.00 this month") == 1
    saved.clock.advance(31 * DAY_S)
    round_(saved)
    assert len(charges(saved)) == 3


def test_what_was_switched_off_meanwhile_is_not_charged(saved: Till) -> None:
    saved.spend("15.01")
    recharges.begin(saved.engine, saved.clock, URL, secrets.token_bytes)
    switch(saved, recharge_on=False)
    round_(saved)
    assert charges(saved) == []
    switch(saved, recharge_on=True)
    round_(saved)
    assert len(charges(saved)) == 1


def test_another_card_that_is_kept_replaces_the_former(saved: Till) -> None:
    former = watched(saved)
    topup = saved.pay(500, saves_card=True)
    recharges.name_card(saved.engine, saved.stripe, saved.clock, topup, URL)
    assert watched(saved).method_id != former.method_id
    assert watched(saved).recharge_on

"""What events mean: cents are exact, and in whatever order they come, a payment is added once."""

from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vipcloud.billing import rules
from vipcloud.billing.rules import Added, Ended, Event, Topup
from vipcloud.money import NANO

TOPUP = Topup("top_0123456789abcdef", "acct_1", 5000, "waiting", 0.0)
KINDS = ["completed", "expired", "async_payment_failed", "async_payment_succeeded", "refused"]


def event(kind: str, status: str = "paid") -> Event:
    named = {"topup": TOPUP.id, "account": TOPUP.account_id}
    if kind == "refused":
        return Event(
            kind, "payment_intent.payment_failed", live=False, about={"metadata": named, "last_payment_error": None}
        )
    about: dict[str, Any] = {
        "id": "cs_1",
        "client_reference_id": TOPUP.id,
        "metadata": named,
        "amount_total": TOPUP.amount_cents,
        "currency": "usd",
        "mode": "payment",
        "payment_status": status,
        "payment_intent": "pi_1",
    }
    return Event(kind, f"checkout.session.{kind}", live=False, about=about)


@given(st.integers(1, 10**7))
def test_cents_are_nano_dollars_exactly(cents: int) -> None:
    assert Fraction(rules.nanousd(cents), NANO) == Fraction(cents, 100)


@given(st.integers(500, 100_000))
def test_dollars_as_typed_are_cents_exactly(cents: int) -> None:
    assert rules.cents(f"{cents // 100:,}.{cents % 100:02d}", 5, 1000) == cents


@pytest.mark.parametrize("text", ["", "4.99", "1000.01", "5.5", "5.001", "-5", "nan", "1e1", "١٠"])
def test_what_is_no_amount_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="from \\$5 to \\$1,000"):
        rules.cents(text, 5, 1000)


@given(st.lists(st.sampled_from(KINDS), max_size=12), st.booleans())
def test_in_any_order_a_payment_is_added_once_and_stays(kinds: list[str], paid_at_once: bool) -> None:
    topup, added = TOPUP, 0
    for kind in kinds:
        unpaid = kind == "completed" and not paid_at_once
        outcome = rules.judge(event(kind, "unpaid" if unpaid else "paid"), topup, live=False)
        if isinstance(outcome, Added):
            added += 1
            topup = topup._replace(state="added", payment_id=outcome.payment_id, session_id=outcome.session_id)
        elif isinstance(outcome, Ended):
            assert topup.state == "waiting"
            topup = topup._replace(state=outcome.state)
    paid = "async_payment_succeeded" in kinds or (paid_at_once and "completed" in kinds)
    assert added == paid
    assert (topup.state == "added") == paid


def test_differences_with_the_provider_are_told_and_agreement_is_not() -> None:
    session = event("completed").about
    added = TOPUP._replace(state="added", session_id="cs_1", payment_id="pi_1")
    assert rules.differences([added], [session, {**session, "client_reference_id": "another shop"}]) == []
    assert rules.differences([TOPUP], [{**session, "payment_status": "unpaid"}]) == []
    assert rules.differences([TOPUP], [session]) == [f"{TOPUP.id}: paid at Stripe, and waiting here"]
    assert rules.differences([added], []) == [f"{TOPUP.id}: added here, and not paid at Stripe"]
    assert rules.differences([added], [{**session, "amount_total": 1}]) == [
        f"{TOPUP.id}: another amount than asked for"
    ]

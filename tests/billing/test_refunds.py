"""Refunds against a local Stripe: what goes back is what was unused, and it goes back once."""

import secrets
from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import Engine

from till import Till
from vipcloud.billing import refunds, rules, withdrawals
from vipcloud.billing import store as billing
from vipcloud.billing.payments import PaymentsError, Refund
from vipcloud.billing.rules import Topup
from vipcloud.billing.withdrawals import Withdrawal
from vipcloud.ledger import store as ledger
from vipcloud.money import NANO, NanoUSD
from vipcloud.settings import PaymentSettings, Secret
from vipcloud.storage import engine as storage


@pytest.fixture
def till(engine: Engine, stripe_url: str) -> Till:
    return Till(engine, stripe_url)


def ask(till: Till, topup: Topup, cents: int | None = None) -> Withdrawal:
    """What the command does first."""
    with storage.writing(till.engine) as connection:
        free = int(ledger.balance(connection, till.account.id)) // rules.NANO_PER_CENT
        [part] = refunds.plan(connection, [topup], free, cents)
        name = f"wd_{secrets.token_hex(8)}"
        return refunds.ask(connection, part, name, till.clock.wall_s(), whole=cents is not None)


def now(till: Till, withdrawal: Withdrawal) -> Withdrawal:
    with storage.reading(till.engine) as connection:
        found = withdrawals.find(connection, withdrawal.id)
    assert found is not None
    return found


def pursue(till: Till, withdrawal: Withdrawal) -> Withdrawal:
    return refunds.pursue(till.engine, till.stripe, till.clock, now(till, withdrawal))


def at_stripe(till: Till, topup: Topup) -> list[Refund]:
    assert topup.payment_id is not None
    return till.stripe.refunds_of(topup.payment_id)


def test_what_is_unused_goes_back_and_the_books_say_so(till: Till) -> None:
    topup = till.pay(5000)
    till.spend("8.00")  # 5 given, so 3 of what was paid
    asked = ask(till, topup)
    till.take()
    assert now(till, asked).state == "taken"
    assert till.credit == 0
    assert till.balance_of(f"withdrawn:{till.account.id}") == 47 * NANO
    assert pursue(till, asked).state == "done"
    [made] = at_stripe(till, topup)
    assert (made.amount_cents, made.withdrawal_id) == (4700, asked.id)
    assert till.balance_of("refunds") == 47 * NANO
    assert till.balance_of(f"withdrawn:{till.account.id}") == 0
    assert till.credit == 0


def test_what_a_running_request_holds_stays(till: Till) -> None:
    topup = till.pay(5000)
    permit = till.hold("20.00")
    whole, rest = ask(till, topup, 4000), ask(till, topup, 1000)
    till.take()
    assert (now(till, whole).state, now(till, rest).state) == ("refused", "taken")
    till.guard.settle(permit, NanoUSD(20 * NANO))
    till.book("20.00")
    assert till.credit == 25 * NANO
    everything = ask(till, topup)
    till.take()
    assert now(till, everything).taken_cents == 2500


def test_no_request_is_admitted_on_credit_that_goes_back(till: Till) -> None:
    topup = till.pay(5000)
    till.hold("1.00")  # this gateway knows the account already, from before
    ask(till, topup, 5000)
    till.take()
    with pytest.raises(Exception, match="does not cover"):
        till.hold("4.01")
    till.hold("4.00")


def test_done_twice_or_by_two_it_is_one_refund(till: Till) -> None:
    topup = till.pay(5000)
    asked = ask(till, topup, 1000)
    till.take()
    taken = now(till, asked)
    for _ in range(3):
        refunds.pursue(till.engine, till.stripe, till.clock, taken)
    assert len(at_stripe(till, topup)) == 1
    assert till.credit == 45 * NANO


def test_more_than_is_unused_or_paid_is_refused(till: Till) -> None:
    topup = till.pay(5000)
    with pytest.raises(ValueError, match=r"at most \$50\.00"):
        ask(till, topup, 5001)
    ask(till, topup, 3000)
    with pytest.raises(ValueError, match=r"at most \$20\.00"):
        ask(till, topup, 2001)
    ask(till, topup)
    with pytest.raises(ValueError, match="nothing is left"):
        ask(till, topup)


def test_what_stripe_refuses_is_credit_again(till: Till) -> None:
    topup = till.pay(5000)
    asked = ask(till, topup, 4000)
    till.take()
    till.refund_at_stripe(topup, 2000)  # somebody was faster there: 40 of 50 are too many now
    failed = pursue(till, asked)
    assert failed.state == "failed"
    assert "greater than unrefunded" in (failed.reason or "")
    assert till.credit == 55 * NANO
    assert pursue(till, ask_and_take(till, topup, 1000)).state == "done"


def ask_and_take(till: Till, topup: Topup, cents: int) -> Withdrawal:
    asked = ask(till, topup, cents)
    till.take()
    return asked


def test_a_stripe_that_does_not_answer_leaves_it_for_later(till: Till) -> None:
    topup = till.pay(5000)
    asked = ask_and_take(till, topup, 1000)
    settings = PaymentSettings(stripe_key=Secret("sk_test_1"), api_url="http://127.0.0.1:9", timeout_s=1)
    away = type(till.stripe)(settings)
    with pytest.raises(PaymentsError):
        refunds.pursue(till.engine, away, till.clock, now(till, asked))
    assert now(till, asked).state == "taken"
    assert pursue(till, asked).state == "done"


@pytest.mark.parametrize("order", [["charge.refunded", "refund.created"], ["refund.created"] * 2, ["charge.refunded"]])
def test_a_refund_made_at_stripe_takes_its_credit_once(till: Till, order: list[str]) -> None:
    topup = till.pay(5000)
    made = till.refund_at_stripe(topup, 2000)
    for kind in order:
        till.tell(kind, {"id": made["id"], "payment_intent": topup.payment_id})
        look(till)
        till.take()
        assert till.credit == 35 * NANO
    assert till.balance_of("refunds") == 20 * NANO
    with storage.reading(till.engine) as connection:
        assert billing.refundable_cents(connection, topup) == 3000


def look(till: Till) -> None:
    with storage.reading(till.engine) as connection:
        stale = billing.stale(connection)
    for topup in stale:
        refunds.look(till.engine, till.stripe, till.clock, topup)


def test_a_refund_at_stripe_of_used_credit_takes_what_is_free_and_is_told(till: Till) -> None:
    topup = till.pay(5000)
    till.spend("45.00")
    held = till.hold("3.00")
    till.refund_at_stripe(topup, 5000)
    till.tell("charge.refunded", {"payment_intent": topup.payment_id})
    look(till)
    till.take()
    assert till.credit == 3 * NANO
    till.guard.settle(held, NanoUSD(0))
    wrong, lost = differences(till)
    assert wrong == []
    [told] = lost
    assert told.endswith("of $50.00 refunded, $43.00 was used up")


def differences(till: Till) -> tuple[list[str], list[str]]:
    with storage.reading(till.engine) as connection:
        ours = withdrawals.since(connection, 0)
        mine = [refund for refund in till.stripe.refunds_since(0) if billing.by_payment(connection, refund.payment_id)]
        return refunds.differences(lambda payment: billing.by_payment(connection, payment), ours, mine)


def test_a_refund_that_nobody_told_of_is_a_difference(till: Till) -> None:
    topup = till.pay(5000)
    made = till.refund_at_stripe(topup, 2000)
    assert differences(till)[0] == [f"{made['id']}: refunded at Stripe, and not here"]
    till.tell("refund.created", {"payment_intent": topup.payment_id})
    look(till)
    till.take()
    assert differences(till) == ([], [])


def test_events_that_come_before_their_payment_are_kept_and_done_with_it(till: Till) -> None:
    topup = till.begin(5000)
    [session] = [each["data"]["object"] for each in till.paid if each["type"] == "checkout.session.completed"]
    payment = session["payment_intent"]
    till.refund_at_stripe(topup._replace(payment_id=payment), 1000)
    assert till.tell("charge.refunded", {"payment_intent": payment}) == rules.Kept(payment)
    dispute = {"id": f"dp_{payment}", "payment_intent": payment, "status": "needs_response", "amount": 4000}
    assert till.tell("charge.dispute.created", dispute) == rules.Kept(payment)
    assert till.credit == 5 * NANO
    till.tell("checkout.session.completed", session)
    assert till.closed
    look(till)
    till.take()
    assert till.credit == 45 * NANO
    till.tell("charge.dispute.closed", {**dispute, "status": "lost"})
    till.take()
    assert till.credit == 5 * NANO
    assert till.balance_of("disputes") == 40 * NANO


def test_a_lost_dispute_leaves_what_running_requests_hold(till: Till) -> None:
    topup = till.pay(5000)
    permit = till.hold("52.00")
    about = {"id": f"dp_{topup.id}", "payment_intent": topup.payment_id, "status": "lost"}
    till.tell("charge.dispute.closed", about)
    till.take()
    assert till.credit == 52 * NANO
    till.guard.settle(permit, NanoUSD(52 * NANO))
    till.book("52.00")
    assert till.credit == 0


def test_a_won_dispute_does_not_open_what_the_operator_closed(till: Till) -> None:
    topup = till.pay(5000)
    about = {"id": "dp_1", "payment_intent": topup.payment_id, "status": "won"}
    till.tell("charge.dispute.created", about)
    with storage.writing(till.engine) as connection:
        billing.accounts.set_suspended(connection, till.account.id, suspended=True)
    till.tell("charge.dispute.closed", about)
    assert till.closed
    with storage.writing(till.engine) as connection:
        billing.accounts.set_suspended(connection, till.account.id, suspended=False)
    assert not till.closed


@pytest.fixture
def second(till: Till) -> Iterator[Callable[[], object]]:
    """Pays the same top-up once more, by another payment."""
    topup = till.pay(5000)
    other = till.begin(5000)
    session = next(each["data"]["object"] for each in till.paid if each["type"] == "checkout.session.completed")
    named = {"client_reference_id": topup.id, "metadata": {"topup": topup.id, "account": topup.account_id}}
    yield lambda: till.tell("checkout.session.completed", {**session, **named})
    assert other.id != topup.id


def test_a_second_payment_becomes_credit_with_a_receipt_once(till: Till, second: Callable[[], object]) -> None:
    assert isinstance(second(), rules.AddedAgain)
    assert isinstance(second(), rules.Ignored)
    assert till.credit == 105 * NANO
    with storage.reading(till.engine) as connection:
        paid = billing.receipts(connection, till.account.id)
    assert [each.receipt for each in paid] == [2, 1]
    assert paid[0].again_of == paid[1].id
    asked = ask(till, paid[0])
    till.take()
    assert pursue(till, asked).state == "done"

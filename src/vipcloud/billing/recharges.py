"""Credit that runs low: mails about it, and charges of the saved card. Each function is a chore, safe to repeat.

A charge is a top-up: its row is written before Stripe hears of it, there is one under way per account (the schema holds
that), and its id is the idempotency key. Whoever dies in between, the next round goes on with the same row: it asks for
the same charge again, and where Stripe may have forgotten the key, looks for the payment that names the row.
"""

from collections.abc import Callable

import structlog
from sqlalchemy import Engine

from vipcloud.accounts import letters, people
from vipcloud.accounts import store as accounts
from vipcloud.accounts.people import RandomBytes
from vipcloud.billing import rules, store, watch
from vipcloud.billing.payments import PaymentRefused, Payments, PaymentsError
from vipcloud.billing.rules import Added, AddedAgain, Ended, Topup
from vipcloud.clock import Clock
from vipcloud.ledger import store as ledger
from vipcloud.money import NanoUSD, format_usd, parse_usd
from vipcloud.settings import PaymentSettings
from vipcloud.storage import engine as storage

KEY_SAFE_S = 3600.0  # Stripe keeps idempotency keys for a day at least

log = structlog.get_logger(__name__)


def tell_low(engine: Engine, clock: Clock, settings: PaymentSettings, public_url: str) -> None:
    """Mail the owners of accounts whose credit fell below what it is watched for: once per fall, and once a day."""
    low, now_s = int(parse_usd(settings.low_credit_usd)), clock.wall_s()
    with storage.reading(engine) as connection:
        names = [each.watch.account_id for each in watch.crossed(connection, low, now_s)]
    for name in names:
        with storage.writing(engine) as connection:
            for known, left in watch.crossed(connection, low, now_s, name):
                if known.low_at is not None:
                    watch.save(connection, name, low_at=None)
                    continue
                bound = low if known.low_nanousd is None else known.low_nanousd
                watch.save(connection, name, low_at=now_s, mailed_at=now_s)
                letter = letters.low_credit(_usd(left), _usd(bound), f"{public_url}/credit")
                people.mail_owners(connection, name, letter, now_s)
                log.info("credit is low", account=name)


def begin(engine: Engine, clock: Clock, public_url: str, random_bytes: RandomBytes) -> None:
    """Write down the charges that are due; or tell, once a month, that the cap forbids one."""
    with storage.reading(engine) as connection:
        names = [each.watch.account_id for each in watch.due(connection)]
    for name in names:
        now_s = clock.wall_s()
        with storage.writing(engine) as connection:
            for known, _ in watch.due(connection, name):
                assert known.amount_cents is not None, "it is on"
                assert known.cap_cents is not None, "it is on"
                month_s = rules.month_start(now_s)
                if watch.charged_cents(connection, name, month_s) + known.amount_cents <= known.cap_cents:
                    topup = Topup(accounts.new_id("top", random_bytes), name, known.amount_cents, "waiting", now_s)
                    store.begin(connection, topup._replace(charged_to=f"{known.customer_id} {known.method_id}"))
                elif known.capped_at is None or known.capped_at < month_s:
                    watch.save(connection, name, capped_at=now_s)
                    cap = _usd(rules.nanousd(known.cap_cents))
                    people.mail_owners(connection, name, letters.recharge_capped(cap, f"{public_url}/credit"), now_s)


def charge(engine: Engine, stripe: Payments, clock: Clock, topup: Topup) -> None:
    """See a charge that was begun to its end. Raises PaymentsError."""
    now_s = clock.wall_s()
    with storage.reading(engine) as connection:
        account = accounts.account_by_id(connection, topup.account_id)
        wanted = watch.find(connection, topup.account_id).recharge_on and account is not None and not account.closed
    assert topup.charged_to is not None, "a charge names its card"
    payment = None
    if not wanted or now_s - topup.created_at > KEY_SAFE_S:
        made = stripe.charges_since(topup.created_at - KEY_SAFE_S, topup.charged_to.partition(" ")[0])
        payment = next((each for each in made if (each.get("metadata") or {}).get("topup") == topup.id), None)
        if payment is not None and payment.get("status") not in ("succeeded", "processing"):
            _end(engine, clock, topup, Ended("refused", _failure(payment)))
            return
        if payment is None and not wanted:
            _end(engine, clock, topup, Ended("expired", None))
            return
    if payment is None:
        try:
            payment = stripe.charge(topup)
        except PaymentRefused as error:
            _end(engine, clock, topup, Ended("refused", str(error)[:200]))
            return
    with storage.writing(engine) as connection:
        known = store.find(connection, topup.id)
        assert known is not None, "rows stay"
        outcome = rules.charged(payment, known)
        store.act(connection, known, outcome, now_s)
    if isinstance(outcome, Added | AddedAgain):
        log.info("a card was charged", topup=topup.id, cents=topup.amount_cents)


def _end(engine: Engine, clock: Clock, topup: Topup, ended: Ended) -> None:
    with storage.writing(engine) as connection:
        known = store.find(connection, topup.id)
        if known is not None and known.state == "waiting":
            store.act(connection, known, ended, clock.wall_s())
            log.warning("a card was not charged", topup=topup.id, state=ended.state, reason=ended.reason)


def _failure(payment: dict[str, object]) -> str:
    error = payment.get("last_payment_error")
    message = error.get("message") if isinstance(error, dict) else None
    return message[:200] if isinstance(message, str) else "The bank refused the payment."


def tell_stopped(engine: Engine, clock: Clock, public_url: str) -> None:
    """Mail whose recharging a refused card has switched off."""
    with storage.writing(engine) as connection:
        for known in watch.stopped(connection):
            watch.save(connection, known.account_id, stopped_told=True)
            letter = letters.recharge_stopped(known.card or "", known.stopped_reason or "", f"{public_url}/credit")
            people.mail_owners(connection, known.account_id, letter, clock.wall_s())


def name_card(engine: Engine, stripe: Payments, clock: Clock, topup: Topup, public_url: str) -> None:
    """Note the card of a payment; keep it for later charges where that was asked for, and tell of a charge.

    Raises PaymentsError.
    """
    assert topup.payment_id is not None, "it was paid"
    card, former = stripe.card(topup.payment_id), None
    with storage.writing(engine) as connection:
        known = store.find(connection, topup.id)
        if known is None or known.card is not None:
            return
        store.note_card(connection, topup.id, card.name)
        if known.saves_card and card.customer_id is not None and card.method_id is not None:
            former = watch.find(connection, known.account_id).method_id
            saved = {"customer_id": card.customer_id, "method_id": card.method_id, "card": card.name}
            watch.save(connection, known.account_id, **saved, stopped_reason=None)
        if known.charged_to is not None:
            left = ledger.balance(connection, known.account_id)
            link = f"{public_url}/credit/receipts/{store.number(known)}"
            letter = letters.recharged(_usd(known.amount_nanousd), card.name, _usd(left), link)
            people.mail_owners(connection, known.account_id, letter, clock.wall_s())
    if former is not None and former != card.method_id:
        _forget(stripe.forget_card, former)


def _forget(forget: Callable[[str], None], method_id: str) -> None:
    try:
        forget(method_id)
    except PaymentsError as error:
        log.warning("a card that was replaced is still known to stripe", method=method_id, error=str(error))


def _usd(amount: int) -> str:
    """Dollars as mails say them: cut after the cents."""
    return f"${format_usd(NanoUSD(amount - amount % rules.NANO_PER_CENT))}"

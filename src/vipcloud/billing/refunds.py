"""Refunds between our books and Stripe: asks Stripe for what the gateway has taken, and takes what Stripe has given.

Every step may be repeated: by the command that was killed and by the console that goes on, at once or days later.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import structlog
from sqlalchemy import Connection, Engine

from vipcloud.accounts import letters, people
from vipcloud.billing import rules, store, withdrawals
from vipcloud.billing.payments import PaymentRefused, Payments, Refund
from vipcloud.billing.rules import Topup
from vipcloud.billing.withdrawals import Withdrawal
from vipcloud.clock import Clock
from vipcloud.storage import engine as storage

log = structlog.get_logger(__name__)


class Part(NamedTuple):
    """So much of one payment."""

    topup: Topup
    cents: int


def plan(connection: Connection, topups: list[Topup], free_cents: int, wanted_cents: int | None) -> list[Part]:
    """What of which payment goes back, the first of `topups` first. Raises ValueError, with a text for the operator.

    Credit is not marked: a payment's unused part is what is left of all credit, up to the payment. So credit that was
    given counts as used first. `wanted_cents` None: all that is unused.
    """
    left = free_cents if wanted_cents is None else wanted_cents
    parts = []
    for topup in topups:
        cents = min(left, store.refundable_cents(connection, topup), free_cents)
        if cents > 0:
            parts.append(Part(topup, cents))
            left -= cents
            free_cents -= cents
    possible = sum(part.cents for part in parts)
    if not possible:
        raise ValueError("nothing is left of it to refund")
    if wanted_cents is not None and possible < wanted_cents:
        raise ValueError(f"at most {rules.usd(possible)} of it is unused and not refunded yet")
    return parts


def ask(connection: Connection, part: Part, withdrawal_id: str, now_s: float, *, whole: bool) -> Withdrawal:
    """Have the gateway take the credit of a refund that is then to be made."""
    made = withdrawals.new(withdrawal_id, part.topup, "refund", part.cents, now_s, whole=whole)
    fresh = withdrawals.ask(connection, made)
    assert fresh, "its id is random"
    return made


def pursue(engine: Engine, stripe: Payments, clock: Clock, withdrawal: Withdrawal) -> Withdrawal:
    """Ask Stripe for the money of a refund whose credit is taken; how it stands then. Raises PaymentsError."""
    with storage.reading(engine) as connection:
        topup = store.find(connection, withdrawal.topup_id)
    assert topup is not None, "a withdrawal is of a payment"
    assert topup.payment_id is not None, "a withdrawal is of a payment"
    assert withdrawal.taken_cents, "nothing was taken"
    try:
        made = stripe.refund(withdrawal.id, topup.payment_id, withdrawal.taken_cents)
        _settle(engine, clock, topup, made)
    except PaymentRefused as error:
        log.error("a refund was refused", withdrawal=withdrawal.id, error=str(error))
        with storage.writing(engine) as connection:
            withdrawals.fail(connection, withdrawal.id, str(error), clock.wall_s())
    with storage.reading(engine) as connection:
        found = withdrawals.find(connection, withdrawal.id)
    assert found is not None, "rows stay"
    return found


def look(engine: Engine, stripe: Payments, clock: Clock, topup: Topup) -> None:
    """Bring the books to what Stripe knows of a payment's refunds. Raises PaymentsError."""
    assert topup.payment_id is not None, "it was paid"
    with storage.writing(engine) as connection:
        store.note_looked_at(connection, topup.id)  # first: what Stripe tells of from here on has us look again
    try:
        for refund in stripe.refunds_of(topup.payment_id):
            _settle(engine, clock, topup, refund)
    except BaseException:
        with storage.writing(engine) as connection:
            store.note_stale(connection, topup.id)
        raise


def _settle(engine: Engine, clock: Clock, topup: Topup, refund: Refund) -> None:
    """Have the books say what Stripe says of one refund."""
    now_s = clock.wall_s()
    with storage.writing(engine) as connection:
        known = _known(connection, topup, refund)
        if known is None:
            if refund.stands:
                _take(connection, topup, refund, now_s)
                _tell(connection, topup, refund, now_s)
        elif refund.stands:
            if withdrawals.finish(connection, known.id, refund.id, now_s):
                log.info("a refund was made", withdrawal=known.id, refund=refund.id, cents=refund.amount_cents)
                _tell(connection, topup, refund, now_s)
        elif withdrawals.fail(connection, known.id, f"Stripe: {refund.status}", now_s):
            log.error("a refund came back", withdrawal=known.id, refund=refund.id, cents=refund.amount_cents)


def _known(connection: Connection, topup: Topup, refund: Refund) -> Withdrawal | None:
    for each in withdrawals.of_account(connection, topup.account_id):
        if each.topup_id == topup.id and (each.provider_id == refund.id or each.id == refund.withdrawal_id):
            return each
    return None


def _take(connection: Connection, topup: Topup, refund: Refund, now_s: float) -> None:
    """A refund that was made at Stripe: the money is gone, so the gateway takes what credit is free."""
    cents = min(refund.amount_cents, topup.amount_cents)
    name = store.derived_id("wd", refund.id)
    withdrawals.ask(connection, withdrawals.new(name, topup, "refund", cents, now_s, provider_id=refund.id))
    log.warning("a refund was made at Stripe", topup=topup.id, refund=refund.id, cents=refund.amount_cents)


def _tell(connection: Connection, topup: Topup, refund: Refund, now_s: float) -> None:
    amount = rules.usd(refund.amount_cents)
    people.mail_owners(
        connection, topup.account_id, letters.refunded(amount, store.number(topup), topup.card or ""), now_s
    )


def differences(
    topups: Callable[[str], Topup | None], ours: list[Withdrawal], refunds: list[Refund]
) -> tuple[list[str], list[str]]:
    """Where withdrawals and the provider's refunds disagree, in words; and what was lost, which is no disagreement.

    `topups`: by payment; refunds of payments that are not ours are left out.
    """
    by_provider: dict[Any, Withdrawal] = {each.provider_id: each for each in ours if each.provider_id is not None}
    by_provider |= {each.id: each for each in ours}
    standing = {refund.id for refund in refunds if refund.stands}
    wrong, lost = [], []
    for refund in refunds:
        if topups(refund.payment_id) is None:
            continue
        known = by_provider.get(refund.id) or by_provider.get(refund.withdrawal_id)
        if known is None:
            if refund.stands:
                wrong.append(f"{refund.id}: refunded at Stripe, and not here")
        elif refund.stands != (known.state in ("asked", "done")):
            wrong.append(f"{refund.id}: {refund.status} at Stripe, and {known.state} here")
        elif known.state == "done" and (short := refund.amount_cents - (known.taken_cents or 0)) > 0:
            lost.append(f"{refund.id}: of {rules.usd(refund.amount_cents)} refunded, {rules.usd(short)} was used up")
    wrong += [
        f"{each.id}: refunded here, and not at Stripe"
        for each in ours
        if each.kind == "refund" and each.state == "done" and each.provider_id not in standing
    ]
    return wrong, lost

"""PURE: what an event of the payment provider means for a top-up.

Stripe sends events late, twice, and in any order. So each is judged against the top-up as it stands: money that came
in is added whatever was heard before, and what was added stays added.
"""

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple

from vipcloud.money import NANO, NanoUSD

CURRENCY = "usd"
CENTS = 100
NANO_PER_CENT = NANO // CENTS
_DOLLARS = re.compile(r"\$?(\d{1,5})(?:\.(\d{2}))?", re.ASCII)
_DISPUTES = "charge.dispute."
_OF_PAYMENTS = (_DISPUTES, "charge.refunded", "charge.refund.", "refund.")
_PROMO = re.compile(r"[A-Z0-9][A-Z0-9-]{3,31}", re.ASCII)
_ID = re.compile(r"top_[0-9A-Za-z]{16}", re.ASCII)

State = Literal["waiting", "added", "refused", "expired"]
Dispute = Literal["open", "won", "lost"]


class Topup(NamedTuple):
    """A payment that a customer began. The fields are the table's columns, in their order."""

    id: str
    account_id: str
    amount_cents: int
    state: State
    created_at: float
    decided_at: float | None = None
    session_id: str | None = None
    payment_id: str | None = None
    receipt: int | None = None
    card: str | None = None
    reason: str | None = None
    dispute: Dispute | None = None
    stale: bool = False
    again_of: str | None = None
    saves_card: bool = False
    charged_to: str | None = None

    @property
    def amount_nanousd(self) -> NanoUSD:
        return nanousd(self.amount_cents)


class Event(NamedTuple):
    """A signed message of the payment provider; `about` is the object it tells of."""

    id: str
    kind: str
    live: bool
    about: dict[str, Any]


class Added(NamedTuple):
    """The money is there: credit it, once per payment."""

    payment_id: str
    session_id: str | None


class AddedAgain(NamedTuple):
    """The money is there a second time, by another payment: it becomes credit too, and the operator is told."""

    payment_id: str
    session_id: str | None


class Ended(NamedTuple):
    """No money came, so far."""

    state: Literal["refused", "expired"]
    reason: str | None


class Disputed(NamedTuple):
    """The customer's bank contests the payment, or has decided: about `amount_cents` of it, None for all."""

    dispute: Dispute
    dispute_id: str | None = None
    amount_cents: int | None = None


class Refunded(NamedTuple):
    """Something about the payment's refunds is new: the provider's list of them says what."""


class Kept(NamedTuple):
    """The payment is not known yet: to be looked at again when it is."""

    payment_id: str


class Ignored(NamedTuple):
    """Nothing is to be done. `wrong` tells a message that should not be from one that need not concern us."""

    why: str
    wrong: bool = False


Outcome = Added | AddedAgain | Ended | Disputed | Refunded | Kept | Ignored


def nanousd(cents: int) -> NanoUSD:
    return NanoUSD(cents * NANO_PER_CENT)


def usd(amount_cents: int) -> str:
    """`$1,234.50`."""
    return f"${amount_cents // CENTS:,}.{amount_cents % CENTS:02d}"


def cents(text: str, min_usd: int, max_usd: int, what: str = "an amount") -> int:
    """Dollars as a person types them. Raises ValueError, with a text for that person."""
    match = _DOLLARS.fullmatch(text.strip().replace(",", ""))
    amount = int(match.group(1)) * CENTS + int(match.group(2) or 0) if match else -1
    if not min_usd * CENTS <= amount <= max_usd * CENTS:
        raise ValueError(f"Choose {what} from ${min_usd:,} to ${max_usd:,}, with cents or without")
    return amount


def is_id(text: str) -> bool:
    return _ID.fullmatch(text) is not None


def promo_code(text: str) -> str | None:
    """A promo code as a person types it, as it is kept; None where it can be none."""
    code = text.strip().upper()
    return code if _PROMO.fullmatch(code) else None


def receipt_number(topup: Topup, year: int) -> str:
    """`VC-2026-000412`."""
    return f"VC-{year}-{topup.receipt or 0:06d}"


def names_payment(event: Event) -> bool:
    """Whether it is a dispute or a refund: they name their payment, and no top-up."""
    return event.kind.startswith(_OF_PAYMENTS)


def payment_id(event: Event) -> str | None:
    """The payment that a dispute or a refund is about."""
    payment = event.about.get("payment_intent")
    return payment if isinstance(payment, str) and payment else None


def topup_id(event: Event) -> str | None:
    """Which top-up a session or a payment says it is of."""
    reference = event.about.get("client_reference_id")
    if reference is None:
        metadata = event.about.get("metadata")
        reference = metadata.get("topup") if isinstance(metadata, dict) else None
    return reference if isinstance(reference, str) else None


def judge(event: Event, topup: Topup | None, *, live: bool) -> Outcome:
    """What to do about `event`, given the top-up that it names. `live`: whether our key moves real money."""
    of_payment = names_payment(event)
    if not of_payment and not event.kind.startswith(("checkout.session.", "payment_intent.")):
        return Ignored("not of our concern")
    if event.live != live:
        return Ignored("test and live mode are mixed up", wrong=True)
    if topup is None:
        payment = payment_id(event) if of_payment else None
        return Kept(payment) if payment else Ignored("no top-up of ours", wrong=True)
    if of_payment:
        return _disputed(event, topup) if event.kind.startswith(_DISPUTES) else Refunded()
    return _of_session(event, topup) if event.kind.startswith("checkout.session.") else _of_payment(event, topup)


def _of_payment(event: Event, topup: Topup) -> Outcome:
    if event.kind == "payment_intent.payment_failed":
        return _failed(event, topup)
    if event.kind == "payment_intent.succeeded" and topup.charged_to is not None:
        return charged(event.about, topup)
    return Ignored("told by the session")


def _of_session(event: Event, topup: Topup) -> Outcome:
    wrong = _mismatch(event.about, topup, any_session=topup.state == "added")
    if wrong is not None:
        return Ignored(wrong, wrong=True)
    if event.kind in ("checkout.session.completed", "checkout.session.async_payment_succeeded"):
        return _paid(event.about, topup)
    if topup.state != "waiting":
        return Ignored("decided before")
    if event.kind == "checkout.session.expired":
        return Ended("expired", None)
    if event.kind == "checkout.session.async_payment_failed":
        return Ended("refused", "The bank refused the payment.")
    return Ignored("not of our concern")


def charged(payment: dict[str, Any], topup: Topup) -> Added | AddedAgain | Ignored:
    """What a payment that was made without the customer means, told by an event or as the answer to the charge."""
    metadata, name = payment.get("metadata"), payment.get("id")
    checks = {
        "reference": isinstance(metadata, dict) and metadata.get("topup") == topup.id,
        "account": isinstance(metadata, dict) and metadata.get("account") == topup.account_id,
        "amount": _same(payment.get("amount"), topup.amount_cents),
        "currency": payment.get("currency") == CURRENCY,
    }
    wrong = [check for check, right in checks.items() if not right]
    if wrong or not isinstance(name, str):
        return Ignored(f"another {', '.join(wrong)} than asked for", wrong=True)
    if payment.get("status") != "succeeded":
        return Ignored("the bank has yet to decide")
    if topup.state == "added":
        return Ignored("added before") if name == topup.payment_id else AddedAgain(name, None)
    return Added(name, None)


def month_start(now_s: float) -> float:
    """When the calendar month (UTC) began."""
    now = datetime.fromtimestamp(now_s, UTC)
    return datetime(now.year, now.month, 1, tzinfo=UTC).timestamp()


def differences(
    topups: list[Topup], sessions: list[dict[str, Any]], charges: Sequence[dict[str, Any]] = ()
) -> list[str]:
    """Where our top-ups and the provider's sessions and charges disagree about money, in words; not those of others."""
    known = {topup.id: topup for topup in topups}
    added = {topup.payment_id for topup in topups if topup.state == "added"}
    paid: set[str] = set()
    found = []
    for session in sessions:
        topup = known.get(session.get("client_reference_id") or "")
        if topup is None or session.get("payment_status") != "paid":
            continue
        payment = str(session.get("payment_intent"))
        paid.add(payment)
        wrong = _mismatch(session, topup, any_session=payment in added)
        if wrong is not None:
            found.append(f"{topup.id}: {wrong}")
        elif payment not in added:
            found.append(
                f"{topup.id}: paid at Stripe, and {'not added' if topup.state == 'added' else topup.state} here"
            )
    for charge in charges:
        topup = known.get((charge.get("metadata") or {}).get("topup") or "")
        if topup is None or topup.charged_to is None or charge.get("status") != "succeeded":
            continue
        paid.add(str(charge.get("id")))
        outcome = charged(charge, topup)
        if not isinstance(outcome, Ignored):
            found.append(f"{topup.id}: charged at Stripe, and {topup.state} here")
        elif outcome.wrong:
            found.append(f"{topup.id}: {outcome.why}")
    found += [
        f"{each.id}: added here, and not paid at Stripe"
        for each in topups
        if each.state == "added" and each.payment_id not in paid
    ]
    return found


def _mismatch(session: dict[str, Any], topup: Topup, *, any_session: bool = False) -> str | None:
    """What of a session is not as we asked for it. `any_session`: a second one for what is paid would be money too."""
    metadata = session.get("metadata")
    name = session.get("id")
    checks = {
        "session": isinstance(name, str) and (any_session or topup.session_id in (None, name)),
        "reference": session.get("client_reference_id") == topup.id,
        "account": isinstance(metadata, dict) and metadata.get("account") == topup.account_id,
        "amount": _same(session.get("amount_total"), topup.amount_cents),
        "currency": session.get("currency") == CURRENCY,
        "mode": session.get("mode") == "payment",
    }
    wrong = [name for name, right in checks.items() if not right]
    return f"another {', '.join(wrong)} than asked for" if wrong else None


def _same(value: object, amount: int) -> bool:
    return type(value) is int and value == amount


def _paid(session: dict[str, Any], topup: Topup) -> Outcome:
    if session.get("payment_status") != "paid":
        return Ignored("the bank has yet to decide")
    payment = session.get("payment_intent")
    if not isinstance(payment, str) or not payment:
        return Ignored("paid, and by no payment", wrong=True)
    if topup.state == "added":
        return Ignored("added before") if payment == topup.payment_id else AddedAgain(payment, session["id"])
    return Added(payment, session["id"])


def _failed(event: Event, topup: Topup) -> Outcome:
    if topup.state != "waiting":
        return Ignored("decided before")
    error = event.about.get("last_payment_error")
    message = error.get("message") if isinstance(error, dict) else None
    return Ended("refused", message[:200] if isinstance(message, str) else "The bank refused the payment.")


def _disputed(event: Event, topup: Topup) -> Outcome:
    if topup.dispute in ("won", "lost"):
        return Ignored("decided before")
    if event.kind == "charge.dispute.created":
        return Disputed("open") if topup.dispute is None else Ignored("known")
    if event.kind == "charge.dispute.closed":
        name, amount = event.about.get("id"), event.about.get("amount")
        return Disputed(
            "lost" if event.about.get("status") == "lost" else "won",
            name if isinstance(name, str) else None,
            amount if type(amount) is int and amount > 0 else None,
        )
    return Ignored("told when it is decided")

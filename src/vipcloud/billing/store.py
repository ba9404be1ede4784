"""Named queries for top-ups, and the one transaction that an event makes. Callers bring a connection.

Times are seconds since 1970. Money is the ledger's to move; what is here says why it did.
"""

import hashlib
from datetime import UTC, datetime
from typing import Any

import msgspec
from sqlalchemy import Connection, func, insert, select, update

from vipcloud.accounts import store as accounts
from vipcloud.billing import rules, watch, withdrawals
from vipcloud.billing.rules import Added, AddedAgain, Disputed, Ended, Event, Ignored, Kept, Outcome, Refunded, Topup
from vipcloud.ledger import store as ledger
from vipcloud.storage import schema

SEEN_BEFORE = Ignored("seen before")

_topup, _event = schema.topup, schema.payment_event


def begin(connection: Connection, topup: Topup) -> Topup:
    """The top-up of that id: this one if there is none yet, so that a form sent twice begins one payment."""
    known = find(connection, topup.id)
    if known is not None:
        return known
    connection.execute(insert(_topup).values(topup._asdict()))
    return topup


def note_session(connection: Connection, topup_id: str, session_id: str) -> None:
    connection.execute(update(_topup).where(_topup.c.id == topup_id).values(session_id=session_id))


def note_card(connection: Connection, topup_id: str, card: str) -> None:
    connection.execute(update(_topup).where(_topup.c.id == topup_id).values(card=card))


def find(connection: Connection, topup_id: str) -> Topup | None:
    row = connection.execute(select(_topup).where(_topup.c.id == topup_id)).one_or_none()
    return Topup(*row) if row else None


def receipts(connection: Connection, account_id: str) -> list[Topup]:
    """What the account paid, newest first."""
    query = select(_topup).where(_topup.c.account_id == account_id, _topup.c.state == "added")
    return [Topup(*row) for row in connection.execute(query.order_by(_topup.c.receipt.desc()))]


def ever_paid(connection: Connection, account_id: str) -> bool:
    """Whether the account has bought credit at any time."""
    paid = select(_topup.c.id).where(_topup.c.account_id == account_id, _topup.c.state == "added").limit(1)
    return connection.scalar(paid) is not None


def since(connection: Connection, since_s: float) -> list[Topup]:
    query = select(_topup).where(_topup.c.created_at >= since_s).order_by(_topup.c.created_at)
    return [Topup(*row) for row in connection.execute(query)]


def added_cents(connection: Connection, since_s: float) -> int:
    """What all customers paid in since then."""
    which = (_topup.c.state == "added") & (_topup.c.decided_at >= since_s)
    return int(connection.scalar(select(func.sum(_topup.c.amount_cents)).where(which)) or 0)


def number(topup: Topup) -> str:
    """The number on its receipt."""
    assert topup.decided_at is not None, "only what was added has a receipt"
    return rules.receipt_number(topup, datetime.fromtimestamp(topup.decided_at, UTC).year)


def by_payment(connection: Connection, payment_id: str) -> Topup | None:
    row = connection.execute(select(_topup).where(_topup.c.payment_id == payment_id)).one_or_none()
    return Topup(*row) if row else None


def by_receipt(connection: Connection, text: str) -> Topup | None:
    """The top-up whose receipt has this number, as people write it."""
    last = text.rpartition("-")[2]
    if not (last.isascii() and last.isdecimal()):
        return None
    row = connection.execute(select(_topup).where(_topup.c.receipt == int(last))).one_or_none()
    found = Topup(*row) if row else None
    return found if found is not None and number(found) == text.strip().upper() else None


def stale(connection: Connection) -> list[Topup]:
    """Those whose refunds at the provider are to be looked at."""
    return [Topup(*row) for row in connection.execute(select(_topup).where(_topup.c.stale))]


def note_looked_at(connection: Connection, topup_id: str) -> None:
    connection.execute(update(_topup).where(_topup.c.id == topup_id).values(stale=False))


def note_stale(connection: Connection, topup_id: str) -> None:
    connection.execute(update(_topup).where(_topup.c.id == topup_id).values(stale=True))


def refundable_cents(connection: Connection, topup: Topup) -> int:
    """What of a payment has not gone back, and is not contested."""
    if topup.state != "added" or topup.dispute in ("open", "lost"):
        return 0
    return max(0, topup.amount_cents - withdrawals.live_cents(connection, topup.id))


def take_in(connection: Connection, event: Event, now_s: float, *, live: bool) -> tuple[Outcome, Topup | None]:
    """Do what `event` asks for, once, in the caller's transaction, which has the writer's place.

    What came before its payment was known is done with it.
    """
    if connection.scalar(select(_event.c.id).where(_event.c.id == event.id)) is not None:
        return SEEN_BEFORE, None
    topup = _named_by(connection, event)
    outcome = rules.judge(event, topup, live=live)
    if topup is not None:
        outcome, topup = act(connection, topup, outcome, now_s)
    values: dict[str, object] = {"id": event.id, "kind": event.kind, "received_at": now_s, "outcome": _said(outcome)}
    if isinstance(outcome, Kept):
        values |= {"payment_id": outcome.payment_id, "kept": msgspec.json.encode(event)}
    connection.execute(insert(_event).values(values))
    if topup is not None and isinstance(outcome, Added | AddedAgain):
        _act_on_kept(connection, topup, now_s, live=live)
    return outcome, topup


def _said(outcome: Outcome) -> str:
    return outcome.why if isinstance(outcome, Ignored) else type(outcome).__name__.lower()


def _named_by(connection: Connection, event: Event) -> Topup | None:
    if rules.names_payment(event):
        payment = rules.payment_id(event)
        return by_payment(connection, payment) if payment is not None else None
    named = rules.topup_id(event)
    return find(connection, named) if named is not None else None


def _act_on_kept(connection: Connection, topup: Topup, now_s: float, *, live: bool) -> None:
    assert topup.payment_id is not None, "it was added"
    kept = select(_event.c.id, _event.c.kept).where(_event.c.payment_id == topup.payment_id, _event.c.kept.is_not(None))
    for name, encoded in connection.execute(kept.order_by(_event.c.received_at, _event.c.id)).all():
        event = msgspec.json.decode(encoded, type=Event)
        outcome, topup = act(connection, topup, rules.judge(event, topup, live=live), now_s)
        connection.execute(update(_event).where(_event.c.id == name).values(kept=None, outcome=_said(outcome)))


def act(connection: Connection, topup: Topup, outcome: Outcome, now_s: float) -> tuple[Outcome, Topup]:
    """Do what `outcome` says; what came of it, and the top-up as it stands then. A second payment gets its own."""
    match outcome:
        case Added(payment_id, session_id):
            try:
                ledger.pay_in(connection, payment_id, topup.account_id, topup.amount_nanousd, now_s)
            except ledger.AlreadyPosted:  # for another top-up: its payment was named twice
                return Ignored("the payment is in the books already", wrong=True), topup
            values = {"payment_id": payment_id, "session_id": session_id, "receipt": _next_receipt(connection)}
            topup = _change(connection, topup, state="added", decided_at=now_s, reason=None, **values)
        case AddedAgain(payment_id, session_id):
            try:
                ledger.pay_in(connection, payment_id, topup.account_id, topup.amount_nanousd, now_s)
            except ledger.AlreadyPosted:
                return Ignored("added before"), topup
            own = Topup(derived_id("top", payment_id), topup.account_id, topup.amount_cents, "added", now_s)
            own = own._replace(
                decided_at=now_s, payment_id=payment_id, receipt=_next_receipt(connection), again_of=topup.id
            )
            connection.execute(insert(_topup).values(own._asdict()))
            topup = own
        case Ended(state, reason):
            topup = _change(connection, topup, state=state, reason=reason, decided_at=now_s)
            if topup.charged_to is not None and state == "refused":
                watch.stop(connection, topup.account_id, reason or "")
        case Disputed(dispute, dispute_id, amount_cents):
            topup = _change(connection, topup, dispute=dispute)
            if dispute == "lost":
                _take_back(connection, topup, dispute_id, amount_cents, now_s)
            accounts.set_contested(connection, topup.account_id, contested=_contested(connection, topup.account_id))
        case Refunded():
            topup = _change(connection, topup, stale=True)
    return outcome, topup


def _take_back(
    connection: Connection, topup: Topup, dispute_id: str | None, amount_cents: int | None, now_s: float
) -> None:
    """Have the gateway take what is free of the credit, up to what the bank took of the payment."""
    left = topup.amount_cents - withdrawals.live_cents(connection, topup.id)
    cents = min(left, amount_cents or left)
    if cents > 0:
        name = dispute_id or f"dispute of {topup.payment_id}"
        taken = withdrawals.new(derived_id("wd", name), topup, "dispute", cents, now_s, provider_id=name)
        withdrawals.ask(connection, taken)


def _next_receipt(connection: Connection) -> int:
    return 1 + (connection.scalar(select(func.max(_topup.c.receipt))) or 0)


def derived_id(prefix: str, name: str) -> str:
    """An id of ours for something that has one elsewhere."""
    return f"{prefix}_{hashlib.sha256(name.encode()).hexdigest()[:16]}"


def _contested(connection: Connection, account_id: str) -> bool:
    open_or_lost = _topup.c.dispute.in_(("open", "lost"))
    return connection.scalar(select(_topup.c.id).where(_topup.c.account_id == account_id, open_or_lost)) is not None


def _change(connection: Connection, topup: Topup, **values: Any) -> Topup:
    connection.execute(update(_topup).where(_topup.c.id == topup.id).values(values))
    return topup._replace(**values)

"""Named queries for top-ups, and the one transaction that an event makes. Callers bring a connection.

Times are seconds since 1970. Money is the ledger's to move; what is here says why it did.
"""

from datetime import UTC, datetime

from sqlalchemy import Connection, func, insert, select, update

from vipcloud.accounts import store as accounts
from vipcloud.billing import rules
from vipcloud.billing.rules import Added, Disputed, Ended, Event, Ignored, Outcome, Topup
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


def since(connection: Connection, since_s: float) -> list[Topup]:
    query = select(_topup).where(_topup.c.created_at >= since_s).order_by(_topup.c.created_at)
    return [Topup(*row) for row in connection.execute(query)]


def number(topup: Topup) -> str:
    """The number on its receipt."""
    assert topup.decided_at is not None, "only what was added has a receipt"
    return rules.receipt_number(topup, datetime.fromtimestamp(topup.decided_at, UTC).year)


def take_in(connection: Connection, event: Event, now_s: float, *, live: bool) -> tuple[Outcome, Topup | None]:
    """Do what `event` asks for, once, in the caller's transaction, which has the writer's place."""
    if connection.scalar(select(_event.c.id).where(_event.c.id == event.id)) is not None:
        return SEEN_BEFORE, None
    topup = _named_by(connection, event)
    outcome = rules.judge(event, topup, live=live)
    if topup is not None:
        outcome = _act(connection, topup, outcome, now_s)
    said = outcome.why if isinstance(outcome, Ignored) else type(outcome).__name__.lower()
    values = {"id": event.id, "kind": event.kind, "received_at": now_s, "outcome": said}
    connection.execute(insert(_event).values(values))
    return outcome, topup


def _named_by(connection: Connection, event: Event) -> Topup | None:
    if event.kind.startswith("charge.dispute."):
        row = connection.execute(
            select(_topup).where(_topup.c.payment_id == str(event.about.get("payment_intent")))
        ).one_or_none()
        return Topup(*row) if row else None
    named = rules.topup_id(event)
    return find(connection, named) if named is not None else None


def _act(connection: Connection, topup: Topup, outcome: Outcome, now_s: float) -> Outcome:
    match outcome:
        case Added(payment_id, session_id):
            try:
                ledger.pay_in(connection, payment_id, topup.account_id, topup.amount_nanousd, now_s)
            except ledger.AlreadyPosted:  # for another top-up: its payment was named twice
                return Ignored("the payment is in the books already", wrong=True)
            last = connection.scalar(select(func.max(_topup.c.receipt))) or 0
            values = {"payment_id": payment_id, "session_id": session_id, "receipt": last + 1, "reason": None}
            _change(connection, topup, state="added", decided_at=now_s, **values)
        case Ended(state, reason):
            _change(connection, topup, state=state, reason=reason, decided_at=now_s)
        case Disputed(dispute):
            _change(connection, topup, dispute=dispute)
            if dispute == "lost" and topup.payment_id is not None:
                ledger.take_back(connection, topup.payment_id, topup.account_id, topup.amount_nanousd, now_s)
            if dispute != "won":
                accounts.set_suspended(connection, topup.account_id, suspended=True)
            elif topup.dispute == "open" and not _contested(connection, topup.account_id):
                accounts.set_suspended(connection, topup.account_id, suspended=False)
    return outcome


def _contested(connection: Connection, account_id: str) -> bool:
    open_or_lost = _topup.c.dispute.in_(("open", "lost"))
    return connection.scalar(select(_topup.c.id).where(_topup.c.account_id == account_id, open_or_lost)) is not None


def _change(connection: Connection, topup: Topup, **values: object) -> None:
    connection.execute(update(_topup).where(_topup.c.id == topup.id).values(values))

"""Named queries for credit that is taken back: refunds, and payments that a bank took back. Callers bring a connection.

Theory of operation. Only the gateway knows what running requests hold, so nobody else may say how much credit is free.
A withdrawal is therefore asked for as a row; the gateway takes it (`gateway.withdrawals`): it holds the amount as it
would for a request, posts it, and lets go once every guard knows of the smaller credit.

    asked ──► taken ──► done         a refund of ours: its credit is taken before Stripe is asked for the money
      │         └─────► failed       Stripe refused, or the bank sent it back: the credit is the customer's again
      ├───────────────► done         the money has left us already (a dispute that was lost, a refund made at Stripe)
      └───────────────► refused      nothing is free

Each step is one transaction, and each transfer has its own cause, so whoever dies in between, the next one goes on.
Amounts are whole cents, as Stripe has them: what is taken for a dispute may leave less than a cent.
"""

from typing import Any, Literal, NamedTuple

from sqlalchemy import Connection, Select, func, insert, select, update

from vipcloud.billing import rules
from vipcloud.billing.rules import Topup
from vipcloud.ledger import store as ledger
from vipcloud.ledger.rules import Withdrawn
from vipcloud.storage import schema

State = Literal["asked", "taken", "done", "failed", "refused"]
LIVE = ("asked", "taken", "done")

_withdrawal = schema.withdrawal


class Withdrawal(NamedTuple):
    """Credit that goes back for a top-up. The fields are the table's columns, in their order.

    `whole`: all of it or nothing. `provider_id` is Stripe's name for the refund or dispute; is it there before credit
    was taken, the money has left us already. `taken_cents` is None until the gateway has spoken.
    """

    id: str
    account_id: str
    topup_id: str
    kind: Withdrawn
    amount_cents: int
    whole: bool
    state: State
    created_at: float
    taken_cents: int | None = None
    decided_at: float | None = None
    provider_id: str | None = None
    reason: str | None = None


def new(
    withdrawal_id: str,
    topup: Topup,
    kind: Withdrawn,
    cents: int,
    now_s: float,
    *,
    whole: bool = False,
    provider_id: str | None = None,
) -> Withdrawal:
    """One that nobody was asked for yet."""
    made = Withdrawal(withdrawal_id, topup.account_id, topup.id, kind, cents, whole, "asked", now_s)
    return made._replace(provider_id=provider_id)


def ask(connection: Connection, withdrawal: Withdrawal) -> bool:
    """Have it taken; whether it is new. Stripe's name for it makes it once."""
    known = _withdrawal.c.id == withdrawal.id
    if withdrawal.provider_id is not None:
        known |= _withdrawal.c.provider_id == withdrawal.provider_id
    if connection.scalar(select(_withdrawal.c.id).where(known)) is not None:
        return False
    connection.execute(insert(_withdrawal).values(withdrawal._asdict()))
    return True


def find(connection: Connection, withdrawal_id: str) -> Withdrawal | None:
    row = connection.execute(select(_withdrawal).where(_withdrawal.c.id == withdrawal_id)).one_or_none()
    return Withdrawal(*row) if row else None


def in_state(connection: Connection, *states: State) -> list[Withdrawal]:
    """Oldest first."""
    return _rows(connection, select(_withdrawal).where(_withdrawal.c.state.in_(states)))


def of_account(connection: Connection, account_id: str) -> list[Withdrawal]:
    """Oldest first, whatever became of them."""
    return _rows(connection, select(_withdrawal).where(_withdrawal.c.account_id == account_id))


def of_topup(connection: Connection, topup_id: str) -> list[Withdrawal]:
    """Oldest first, whatever became of them."""
    return _rows(connection, select(_withdrawal).where(_withdrawal.c.topup_id == topup_id))


def since(connection: Connection, since_s: float) -> list[Withdrawal]:
    return _rows(connection, select(_withdrawal).where(_withdrawal.c.created_at >= since_s))


def live_cents(connection: Connection, topup_id: str) -> int:
    """How much of a payment has gone back, or is on its way."""
    amount = select(func.sum(_withdrawal.c.amount_cents))
    which = (_withdrawal.c.topup_id == topup_id) & _withdrawal.c.state.in_(LIVE)
    return int(connection.scalar(amount.where(which)) or 0)


def refunded_cents(connection: Connection, topup_id: str) -> int:
    """How much of a payment went back to the card, or is on its way."""
    amount = select(func.sum(_withdrawal.c.amount_cents))
    which = (_withdrawal.c.topup_id == topup_id) & (_withdrawal.c.kind == "refund")
    return int(connection.scalar(amount.where(which, _withdrawal.c.state.in_(("taken", "done")))) or 0)


def take(connection: Connection, withdrawal_id: str, cents: int, now_s: float) -> int:
    """Post what the gateway found free of a withdrawal, if it is still asked for; how much. Raises LedgerError."""
    found = find(connection, withdrawal_id)
    if found is None or found.state != "asked":
        return 0
    left = max(0, ledger.balance(connection, found.account_id)) // rules.NANO_PER_CENT
    cents = min(cents, found.amount_cents, left)
    paid = found.provider_id is not None
    if cents < found.amount_cents and found.whole:
        cents = 0
    if cents:
        amount = rules.nanousd(cents)
        ledger.withdraw(connection, found.id, found.kind, found.account_id, amount, now_s, paid=paid)
    state: State = "done" if paid else "taken" if cents else "refused"
    values: dict[str, object] = {"state": state, "taken_cents": cents, "decided_at": now_s}
    if state == "taken":
        values["amount_cents"] = cents
    _change(connection, found, **values)
    return cents


def finish(connection: Connection, withdrawal_id: str, provider_id: str, now_s: float) -> bool:
    """The money of a refund has left us; whether that was news."""
    found = find(connection, withdrawal_id)
    if found is None or found.state != "taken" or not found.taken_cents:
        return False
    ledger.pay_out(connection, found.id, found.kind, found.account_id, rules.nanousd(found.taken_cents), now_s)
    _change(connection, found, state="done", provider_id=provider_id, decided_at=now_s)
    return True


def fail(connection: Connection, withdrawal_id: str, reason: str, now_s: float) -> bool:
    """The money of a refund did not leave us, or came back: so does the credit. Whether that was news."""
    found = find(connection, withdrawal_id)
    if found is None or found.state not in LIVE:
        return False
    if found.taken_cents:
        amount = rules.nanousd(found.taken_cents)
        paid = found.state == "done"
        ledger.give_back(connection, found.id, found.kind, found.account_id, amount, now_s, was_paid=paid)
    _change(connection, found, state="failed", reason=reason[:200], decided_at=now_s)
    return True


def cancel(connection: Connection, withdrawal_id: str, now_s: float) -> bool:
    """Withdraw nothing after all; False where the gateway was faster."""
    found = find(connection, withdrawal_id)
    if found is None or found.state != "asked":
        return False
    _change(connection, found, state="refused", taken_cents=0, decided_at=now_s)
    return True


def _rows(connection: Connection, query: Select[Any]) -> list[Withdrawal]:
    ordered = query.order_by(_withdrawal.c.created_at, _withdrawal.c.id)
    return [Withdrawal(*row) for row in connection.execute(ordered)]


def _change(connection: Connection, withdrawal: Withdrawal, **values: object) -> None:
    connection.execute(update(_withdrawal).where(_withdrawal.c.id == withdrawal.id).values(values))

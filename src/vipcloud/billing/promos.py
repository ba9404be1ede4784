"""Named queries for promo codes: credit that is given once per account to whoever knows the code.

Callers bring a connection; redeeming takes the writer's place, so that of two at once the second sees the first.
"""

from typing import NamedTuple

from sqlalchemy import Connection, insert, select, update

from vipcloud.accounts.store import AccountRow
from vipcloud.billing import rules
from vipcloud.ledger import store as ledger
from vipcloud.money import NanoUSD
from vipcloud.storage import schema

NEW_ACCOUNT_S = 30 * 86_400.0
NOTHING = "This code gives nothing here: it is mistyped, over, used up, or for new accounts only."

_promo, _use = schema.promo, schema.promo_use


class PromoError(Exception):
    """A promo code cannot be made or used. The text is for whoever asked."""


class Promo(NamedTuple):
    """A code and what it gives. The fields are the table's columns, in their order."""

    code: str
    amount_nanousd: NanoUSD
    uses_max: int | None
    uses: int
    expires_at: float | None
    new_accounts_only: bool
    created_at: float
    ended_at: float | None = None


def gives(promo: Promo, account_made_at: float, now_s: float) -> bool:
    """Whether it gives anything to an account made then."""
    return (
        promo.ended_at is None
        and (promo.expires_at is None or now_s < promo.expires_at)
        and (promo.uses_max is None or promo.uses < promo.uses_max)
        and (not promo.new_accounts_only or now_s - account_made_at < NEW_ACCOUNT_S)
    )


def create(connection: Connection, promo: Promo) -> None:
    """Raises PromoError."""
    if rules.promo_code(promo.code) != promo.code:
        raise PromoError("A code has 4 to 32 letters A to Z, digits and hyphens, and begins with a letter or a digit.")
    if find(connection, promo.code) is not None:
        raise PromoError(f"{promo.code} exists already; a code is never used for another offer.")
    if promo.expires_at is not None and promo.expires_at <= promo.created_at:
        raise PromoError("A code must expire later than now.")
    connection.execute(insert(_promo).values(promo._asdict()))


def find(connection: Connection, code: str) -> Promo | None:
    row = connection.execute(select(_promo).where(_promo.c.code == code)).one_or_none()
    return Promo(*row) if row else None


def list_all(connection: Connection) -> list[Promo]:
    """Newest first."""
    return [Promo(*row) for row in connection.execute(select(_promo).order_by(_promo.c.created_at.desc()))]


def end(connection: Connection, code: str, now_s: float) -> Promo:
    """From now on it gives nothing; what it gave stays. Raises PromoError."""
    promo = find(connection, code)
    if promo is None:
        raise PromoError(f"{code} is no code; `vipcloud promos list` shows them.")
    if promo.ended_at is None:
        connection.execute(update(_promo).where(_promo.c.code == code).values(ended_at=now_s))
        promo = promo._replace(ended_at=now_s)
    return promo


def redeem(connection: Connection, account: AccountRow, text: str, now_s: float) -> Promo:
    """Give `account` the credit of the code that a person typed, once. Raises PromoError.

    A code that is unknown and one that no longer gives anything, or nothing to this account, have the same answer: who
    guesses learns nothing.
    """
    code = rules.promo_code(text)
    promo = find(connection, code) if code is not None else None
    if promo is None:
        raise PromoError(NOTHING)
    used = connection.execute(
        select(_use.c.code, _promo.c.new_accounts_only).join(_promo).where(_use.c.account_id == account.id)
    ).all()
    if any(name == promo.code for name, _ in used):
        raise PromoError("This account has used this code.")
    spoilt = promo.new_accounts_only and any(for_new for _, for_new in used)
    if spoilt or not gives(promo, account.created_at, now_s):
        raise PromoError(NOTHING)
    connection.execute(insert(_use).values(code=promo.code, account_id=account.id, used_at=now_s))
    connection.execute(update(_promo).where(_promo.c.code == promo.code).values(uses=promo.uses + 1))
    ledger.redeem(connection, promo.code, account.id, promo.amount_nanousd, now_s)
    return promo

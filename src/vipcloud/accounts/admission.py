"""Letting a person of the waitlist in: the account, its credit, the mail. One transaction of the caller's."""

from sqlalchemy import Connection

from vipcloud.accounts import letters, mails, people
from vipcloud.accounts.people import RandomBytes
from vipcloud.accounts.store import AccountRow
from vipcloud.ledger import store as ledger
from vipcloud.money import NanoUSD, format_usd, parse_usd
from vipcloud.settings import Settings


def approve(
    connection: Connection,
    email: str,
    now_s: float,
    random_bytes: RandomBytes,
    settings: Settings,
    public_url: str,
    *,
    tier: str = "payg",
    credit: NanoUSD | None = None,
) -> AccountRow:
    """Open an account with the welcome credit, or `credit`, and mail its link. Raises AccountsError, LedgerError."""
    if credit is None:
        credit = parse_usd(settings.console.welcome_credit_usd)
    account, token = people.approve(connection, email, now_s, random_bytes, tier=tier)
    if credit:
        ledger.grant(connection, f"welcome/{account.id}", account.id, credit, now_s)
    letter = letters.approved(f"{public_url}/welcome/{token}", format_usd(credit))
    mails.queue(connection, account.email, letter.subject, letter.body, now_s)
    return account


def reject(connection: Connection, email: str, now_s: float) -> None:
    """Say no, by mail. Raises AccountsError."""
    people.decide(connection, email, "rejected", now_s)
    letter = letters.rejected()
    mails.queue(connection, people.normal_email(email), letter.subject, letter.body, now_s)

"""Named queries for people: members of accounts, signing in, sessions, the waitlist, and the first key's link.

Codes, cookies and links are random and kept as SHA-256 only, so a copy of the store opens nothing. Every answer is the
same for addresses that are known and that are not. Times are seconds since 1970.
"""

import hashlib
import hmac
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from sqlalchemy import Connection, Select, delete, func, insert, select, update

from vipcloud.accounts import mails, rules, store
from vipcloud.accounts.letters import Letter
from vipcloud.accounts.store import AccountRow, AccountsError, InvalidInput
from vipcloud.storage import schema

RandomBytes = Callable[[int], bytes]
Role = Literal["owner", "member"]
WaitStatus = Literal["unconfirmed", "waiting", "approved", "rejected"]

SESSION_COOKIE = "vc_session"
COOKIE_CHARS_MAX = 128
SECRET_BYTES = 64  # enough for 43 digits of 62, which are 256 bits
CODE_DIGITS = 8
CODE_LIFE_S = 600.0
CODE_TRIES = 5
CODES_PER_HOUR = 5  # for one address: so many mails, and five guesses at each of a hundred million codes
SESSION_LIFE_S = 30 * 86_400.0
WELCOME_LIFE_S = 14 * 86_400.0

_member, _sign_in, _session = schema.member, schema.sign_in, schema.session
_waitlist, _welcome, _account = schema.waitlist, schema.welcome, schema.account


class PersonExists(AccountsError):
    """The address belongs to a member already."""


class NotWaiting(AccountsError):
    """The address is not on the waitlist, or has been decided on."""


class Member(NamedTuple):
    """A person who may sign in."""

    id: str
    account_id: str
    email: str
    role: Role
    created_at: float


class Visitor(NamedTuple):
    """Who is signed in, and to what. `session_hash` names the session."""

    member: Member
    account: AccountRow
    session_hash: bytes


class Waiting(NamedTuple):
    """A line of the waitlist."""

    email: str
    status: WaitStatus
    created_at: float
    confirmed_at: float | None
    decided_at: float | None


class Issued(NamedTuple):
    """A code to be mailed, and the secret that the asking browser keeps."""

    code: str
    browser: str
    expires_at: float


# --- members ---------------------------------------------------------------------------------------------------------


def add_member(
    connection: Connection, account_id: str, email: str, role: Role, now_s: float, random_bytes: RandomBytes
) -> Member:
    """Let `email` sign in to the account. Raises PersonExists and InvalidInput."""
    email = normal_email(email)
    if find_member(connection, email) is not None:
        raise PersonExists(f"{email} belongs to an account already.")
    row = Member(store.new_id("mem", random_bytes), account_id, email, role, now_s)
    connection.execute(insert(_member).values(row._asdict()))
    return row


def find_member(connection: Connection, email: str) -> Member | None:
    row = connection.execute(select(_member).where(_member.c.email == email)).one_or_none()
    return Member(*row) if row else None


def list_members(connection: Connection, account_id: str) -> list[Member]:
    """Oldest first."""
    query = select(_member).where(_member.c.account_id == account_id).order_by(_member.c.created_at, _member.c.id)
    return [Member(*row) for row in connection.execute(query)]


def mail_owners(connection: Connection, account_id: str, letter: Letter, now_s: float) -> None:
    """Write to everybody who may spend and pay."""
    for member in list_members(connection, account_id):
        if member.role == "owner":
            mails.queue(connection, member.email, letter.subject, letter.body, now_s)


def remove_member(connection: Connection, account_id: str, member_id: str) -> Member:
    """Take a person's access away, sessions included. Raises AccountsError for the last owner and for strangers."""
    members = list_members(connection, account_id)
    found = next((member for member in members if member.id == member_id), None)
    if found is None:
        raise AccountsError("No member of this account has this id.")
    if found.role == "owner" and sum(member.role == "owner" for member in members) == 1:
        raise AccountsError("The last owner cannot leave: make somebody else an owner first.")
    connection.execute(delete(_session).where(_session.c.member_id == member_id))
    connection.execute(delete(_welcome).where(_welcome.c.member_id == member_id))
    connection.execute(delete(schema.operator).where(schema.operator.c.member_id == member_id))
    connection.execute(delete(_member).where(_member.c.id == member_id))
    return found


def set_role(connection: Connection, account_id: str, member_id: str, role: Role) -> None:
    """Raises AccountsError where that would leave no owner."""
    members = list_members(connection, account_id)
    if not any(member.id == member_id for member in members):
        raise AccountsError("No member of this account has this id.")
    if role != "owner" and not any(member.role == "owner" and member.id != member_id for member in members):
        raise AccountsError("An account needs an owner: make somebody else one first.")
    connection.execute(update(_member).where(_member.c.id == member_id).values(role=role))


# --- signing in ------------------------------------------------------------------------------------------------------


def issue_code(connection: Connection, email: str, now_s: float, random_bytes: RandomBytes) -> Issued | None:
    """A code for `email`, good in the browser that gets the secret; None where this address has asked too often.

    Nothing tells whether the address is known: that is the caller's to look up, and to keep to itself.
    """
    connection.execute(delete(_sign_in).where(_sign_in.c.created_at < now_s - 3600))
    asked = connection.scalar(select(func.count()).select_from(_sign_in).where(_sign_in.c.email == email)) or 0
    if asked >= CODES_PER_HOUR:
        return None
    number = int.from_bytes(random_bytes(16), "big") % 10**CODE_DIGITS
    issued = Issued(f"{number:0{CODE_DIGITS}d}", secret(random_bytes), now_s + CODE_LIFE_S)
    connection.execute(
        insert(_sign_in).values(
            browser_hash=digest(issued.browser),
            email=email,
            code_hash=digest(f"{issued.browser}:{issued.code}"),
            tries_left=CODE_TRIES,
            created_at=now_s,
            expires_at=issued.expires_at,
        )
    )
    return issued


class Asked(NamedTuple):
    """A code that a browser was promised."""

    email: str
    tries_left: int
    expires_at: float


def asked_code(connection: Connection, browser: str) -> Asked | None:
    query = select(_sign_in.c.email, _sign_in.c.tries_left, _sign_in.c.expires_at)
    row = connection.execute(query.where(_sign_in.c.browser_hash == digest(browser))).one_or_none()
    return Asked(*row) if row else None


def check_code(connection: Connection, browser: str, code: str, now_s: float) -> Member | None:
    """Whom the code lets in; None if it is wrong, expired, used or tried too often, or nobody has its address.

    Every try counts, and the right code counts once.
    """
    row = connection.execute(
        select(_sign_in).where(_sign_in.c.browser_hash == digest(browser)).with_for_update()
    ).one_or_none()
    if row is None or row.tries_left <= 0 or row.expires_at < now_s:
        return None
    same = _sign_in.c.browser_hash == row.browser_hash
    if not hmac.compare_digest(row.code_hash, digest(f"{browser}:{code}")):
        connection.execute(update(_sign_in).where(same).values(tries_left=row.tries_left - 1))
        return None
    connection.execute(update(_sign_in).where(same).values(tries_left=0))
    return find_member(connection, row.email)


def open_session(connection: Connection, member_id: str, now_s: float, random_bytes: RandomBytes) -> str:
    """A new session; returns the cookie's value, which is kept nowhere here."""
    value = secret(random_bytes)
    connection.execute(delete(_session).where(_session.c.expires_at < now_s))
    connection.execute(
        insert(_session).values(
            hash=digest(value), member_id=member_id, created_at=now_s, expires_at=now_s + SESSION_LIFE_S
        )
    )
    return value


def visitor(connection: Connection, cookie: str, now_s: float) -> Visitor | None:
    """Whose session the cookie is; None if it is unknown or over."""
    if not 0 < len(cookie) <= COOKIE_CHARS_MAX:
        return None
    known = digest(cookie)
    query = (
        select(_member, _account)
        .join(_session, _session.c.member_id == _member.c.id)
        .join(_account, _account.c.id == _member.c.account_id)
        .where(_session.c.hash == known, _session.c.expires_at > now_s)
    )
    row = connection.execute(query).one_or_none()
    if row is None:
        return None
    values, width = tuple(row), len(Member._fields)
    return Visitor(Member(*values[:width]), AccountRow(*values[width:]), known)


def form_token(cookie: str) -> str:
    """What a page of this session sends along with what it asks for; nobody without the cookie can make it."""
    return hmac.new(cookie.encode("utf-8", "surrogatepass"), b"vipcloud form", hashlib.sha256).hexdigest()


def close_session(connection: Connection, session_hash: bytes) -> None:
    connection.execute(delete(_session).where(_session.c.hash == session_hash))


def close_sessions(connection: Connection, member_id: str) -> int:
    """Sign a person out everywhere; how many sessions that ended."""
    return connection.execute(delete(_session).where(_session.c.member_id == member_id)).rowcount


# --- the waitlist ----------------------------------------------------------------------------------------------------


def join_waitlist(connection: Connection, email: str, now_s: float, random_bytes: RandomBytes) -> str | None:
    """Note the address; returns the token of a link to confirm it, or None where it is not to be mailed again.

    Raises InvalidInput. An address that waits or was decided on stays as it is.
    """
    email = normal_email(email)
    row = connection.execute(select(_waitlist).where(_waitlist.c.email == email)).one_or_none()
    token = secret(random_bytes)
    if row is None:
        connection.execute(
            insert(_waitlist).values(email=email, status="unconfirmed", token_hash=digest(token), created_at=now_s)
        )
        return token
    if row.status != "unconfirmed" or now_s - row.created_at < CODE_LIFE_S:
        return None
    values = {"token_hash": digest(token), "created_at": now_s}
    connection.execute(update(_waitlist).where(_waitlist.c.email == email).values(values))
    return token


def confirm_waiting(connection: Connection, token: str, now_s: float) -> Waiting | None:
    """The address of a confirming link, now waiting; None if the link is unknown. Confirming twice changes nothing."""
    row = connection.execute(select(_waitlist).where(_waitlist.c.token_hash == digest(token))).one_or_none()
    if row is None:
        return None
    if row.status == "unconfirmed":
        values = {"status": "waiting", "confirmed_at": now_s}
        connection.execute(update(_waitlist).where(_waitlist.c.email == row.email).values(values))
    return waiting(connection, row.email)


def waiting(connection: Connection, email: str) -> Waiting | None:
    row = connection.execute(_waiting_query().where(_waitlist.c.email == email)).one_or_none()
    return Waiting(*row) if row else None


def list_waiting(connection: Connection, status: WaitStatus | None = None) -> list[Waiting]:
    """Longest waiting first."""
    query = _waiting_query().order_by(_waitlist.c.created_at)
    return [Waiting(*row) for row in connection.execute(query.where(_waitlist.c.status == status) if status else query)]


def decide(connection: Connection, email: str, status: Literal["approved", "rejected"], now_s: float) -> None:
    """Raises NotWaiting, also for an address that was not confirmed by its owner."""
    found = waiting(connection, normal_email(email))
    if found is None or found.status != "waiting":
        state = "is not on the waitlist" if found is None else f"is {found.status}"
        raise NotWaiting(f"{email} {state}; only confirmed addresses that wait can be decided on.")
    values = {"status": status, "decided_at": now_s}
    connection.execute(update(_waitlist).where(_waitlist.c.email == found.email).values(values))


def approve(
    connection: Connection, email: str, now_s: float, random_bytes: RandomBytes, *, tier: str
) -> tuple[AccountRow, str]:
    """Make an account for a waiting address. Returns it and the token of the link to its first key.

    Raises NotWaiting, AccountExists and PersonExists. Credit is the caller's to give.
    """
    decide(connection, email, "approved", now_s)
    account = store.create_account(connection, email, now_s, random_bytes, tier=tier)
    owner = find_member(connection, account.email)
    assert owner is not None, "an account is made with its owner"
    return account, invite(connection, owner.id, now_s, random_bytes)


# --- the first key ---------------------------------------------------------------------------------------------------


def invite(connection: Connection, member_id: str, now_s: float, random_bytes: RandomBytes) -> str:
    """The token of a link that lets a member in once."""
    token = secret(random_bytes)
    connection.execute(
        insert(_welcome).values(token_hash=digest(token), member_id=member_id, expires_at=now_s + WELCOME_LIFE_S)
    )
    return token


def invited(connection: Connection, token: str, now_s: float) -> Member | None:
    """Whose link it is, as long as it can be used."""
    query = (
        select(_member)
        .join(_welcome, _welcome.c.member_id == _member.c.id)
        .where(_welcome.c.token_hash == digest(token), _welcome.c.used_at.is_(None), _welcome.c.expires_at > now_s)
    )
    row = connection.execute(query).one_or_none()
    return Member(*row) if row else None


def use_invitation(connection: Connection, token: str, now_s: float) -> Member | None:
    """As `invited`, and the link is used up. Two at the same moment: one gets None."""
    member = invited(connection, token, now_s)
    if member is None:
        return None
    same = (_welcome.c.token_hash == digest(token)) & _welcome.c.used_at.is_(None)
    used = connection.execute(update(_welcome).where(same).values(used_at=now_s)).rowcount
    return member if used else None


# --- inside ----------------------------------------------------------------------------------------------------------


def normal_email(text: str) -> str:
    """Raises InvalidInput."""
    try:
        return rules.normal_email(text)
    except ValueError as error:
        raise InvalidInput(f"{error}.") from error


def secret(random_bytes: RandomBytes) -> str:
    """43 base62 characters, 256 bits."""
    return rules.encode(random_bytes(SECRET_BYTES), 43)


def digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def _waiting_query() -> Select[Any]:
    columns = _waitlist.c
    return select(columns.email, columns.status, columns.created_at, columns.confirmed_at, columns.decided_at)

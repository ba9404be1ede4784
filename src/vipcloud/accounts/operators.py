"""Who runs the house beside the command line, and what they did: a line for each act, in its own transaction.

An operator is a member who was made one by `vipcloud people admin`. What was done stays written: the store refuses
changes to these lines.
"""

from typing import NamedTuple

from sqlalchemy import Connection, delete, insert, select

from vipcloud.accounts import people, store
from vipcloud.accounts.people import Member
from vipcloud.accounts.store import AccountsError
from vipcloud.storage import schema

COMMAND_LINE = "command line"
TEXT_CHARS_MAX = 1000  # of what was before and after

_operator, _member, _deed = schema.operator, schema.member, schema.deed


class Deed(NamedTuple):
    """One act. `object` names what it was done to; `before` and `after` are for people."""

    id: int
    at: float
    person: str
    action: str
    object: str
    before: str
    after: str


def appoint(connection: Connection, email: str, now_s: float) -> Member:
    """Make a member an operator; doing it twice changes nothing. Raises AccountsError for who cannot sign in."""
    member = people.find_member(connection, people.normal_email(email))
    if member is None:
        raise AccountsError(f"{email} cannot sign in: make an account, or add them to one, first.")
    if not is_operator(connection, member.id):
        connection.execute(insert(_operator).values(member_id=member.id, created_at=now_s))
        note(connection, COMMAND_LINE, "operator appointed", member.email, now_s)
    return member


def dismiss(connection: Connection, email: str, now_s: float) -> Member:
    """End that. Raises AccountsError for who is no operator."""
    member = people.find_member(connection, people.normal_email(email))
    if member is None or not is_operator(connection, member.id):
        raise AccountsError(f"{email} is no operator.")
    connection.execute(delete(_operator).where(_operator.c.member_id == member.id))
    note(connection, COMMAND_LINE, "operator dismissed", member.email, now_s)
    return member


def is_operator(connection: Connection, member_id: str) -> bool:
    return connection.scalar(select(_operator.c.member_id).where(_operator.c.member_id == member_id)) is not None


def list_operators(connection: Connection) -> list[Member]:
    """In order of their addresses."""
    query = select(_member).join(_operator, _operator.c.member_id == _member.c.id).order_by(_member.c.email)
    return [Member(*row) for row in connection.execute(query)]


# --- what was done


def note(
    connection: Connection, person: str, action: str, object_: str, now_s: float, *, before: str = "", after: str = ""
) -> None:
    """In the transaction of the act itself: one is not without the other."""
    values = {"at": now_s, "person": person, "action": action, "object": object_}
    texts = {"before": before[:TEXT_CHARS_MAX], "after": after[:TEXT_CHARS_MAX]}
    connection.execute(insert(_deed).values(**values, **texts))


def deeds(
    connection: Connection, *, person: str = "", object_: str = "", skip: int = 0, most: int | None = 100
) -> list[Deed]:
    """Newest first; of one person, or done to one thing, if they are named."""
    query = select(_deed).order_by(_deed.c.id.desc()).offset(skip)
    if most is not None:
        query = query.limit(most)
    if person:
        query = query.where(_deed.c.person == person)
    if object_:
        query = query.where(_deed.c.object == object_)
    return [Deed(*row) for row in connection.execute(query)]


# --- acts on accounts that commands and pages share


def close_account(connection: Connection, account_id: str) -> None:
    """Its keys answer 403 within a second, its credit stays. Raises AccountNotFound."""
    store.set_suspended(connection, account_id, suspended=True)


def reopen_account(connection: Connection, account_id: str) -> None:
    """Also one that a disputed payment had closed. Raises AccountNotFound."""
    store.set_suspended(connection, account_id, suspended=False)
    store.set_contested(connection, account_id, contested=False)

"""The mails that are to be sent, as rows: written in the transaction that they tell of, delivered by the console.

A mail's text is erased when it has gone, because it may hold a code or a link. Times are seconds since 1970.
"""

from typing import Any, NamedTuple

from sqlalchemy import Connection, Select, insert, select, update

from vipcloud.storage import schema

RETRY_FIRST_S = 15.0
RETRY_MAX_S = 3600.0
SHOWN_MAX = 20

_mail = schema.mail


class Mail(NamedTuple):
    id: int
    recipient: str
    subject: str
    body: str
    created_at: float
    tries: int


def queue(connection: Connection, recipient: str, subject: str, body: str, now_s: float) -> None:
    """To be sent soon. A subject is one line."""
    assert "\n" not in subject + recipient, "headers are lines"
    values = {
        "recipient": recipient,
        "subject": subject,
        "body": body,
        "created_at": now_s,
        "due_at": now_s,
        "tries": 0,
    }
    connection.execute(insert(_mail).values(values))


def due(connection: Connection, now_s: float, rows_max: int = 20) -> list[Mail]:
    """Mails that wait for a delivery now, oldest first."""
    query = _query().where(_mail.c.body.is_not(None), _mail.c.due_at <= now_s).order_by(_mail.c.id).limit(rows_max)
    return [Mail(*row) for row in connection.execute(query)]


def unsent(connection: Connection) -> list[Mail]:
    """What an installation without a mail server keeps, newest first."""
    query = _query().where(_mail.c.body.is_not(None)).order_by(_mail.c.id.desc()).limit(SHOWN_MAX)
    return [Mail(*row) for row in connection.execute(query)]


def note_sent(connection: Connection, mail_id: int, now_s: float) -> None:
    """It has gone: its text goes too."""
    connection.execute(update(_mail).where(_mail.c.id == mail_id).values(body=None, sent_at=now_s))


def note_failed(connection: Connection, mail: Mail, now_s: float, tries_max: int) -> None:
    """Try again later, or never: then its text goes as well."""
    tries = mail.tries + 1
    due_at = now_s + min(RETRY_MAX_S, RETRY_FIRST_S * 2**mail.tries)
    values: dict[str, object] = {"tries": tries, "due_at": due_at}
    if tries >= tries_max:
        values["body"] = None
    connection.execute(update(_mail).where(_mail.c.id == mail.id).values(values))


def _query() -> Select[Any]:
    columns = _mail.c
    return select(columns.id, columns.recipient, columns.subject, columns.body, columns.created_at, columns.tries)

"""Named queries: checks by the minute, and incidents. Callers bring a connection. Times are seconds since 1970."""

from collections.abc import Collection, Iterable
from typing import get_args

from sqlalchemy import ColumnElement, Connection, func, insert, select, text, update

from vipcloud.status.report import Incident, Severity, Update
from vipcloud.status.rules import MINUTES_PER_HOUR, Minutes
from vipcloud.storage import schema

TITLE_CHARS_MAX, MESSAGE_CHARS_MAX = 120, 2000
SEVERITIES: tuple[Severity, ...] = get_args(Severity)

_check, _incident, _update = schema.check_hour, schema.incident, schema.incident_update
_ADD_CHECK = text(
    "INSERT INTO check_hour (hour, subject, checked, good) VALUES (:hour, :subject, :checked, :good) "
    "ON CONFLICT (hour, subject) DO UPDATE SET checked = check_hour.checked | excluded.checked, "
    "good = check_hour.good | excluded.good"
)


class IncidentError(Exception):
    """What was asked for cannot be done to an incident. The text is for the operator."""


# --- checks


def note_checks(connection: Connection, checks: Iterable[tuple[int, str, bool]]) -> None:
    """Add `(minute since 1970, subject, good)`; saying one twice changes nothing."""
    hours: dict[tuple[int, str], Minutes] = {}
    for minute, subject, good in checks:
        hour, bit = minute // MINUTES_PER_HOUR, 1 << minute % MINUTES_PER_HOUR
        known = hours.get((hour, subject), Minutes())
        hours[hour, subject] = Minutes(known.checked | bit, known.good | (bit if good else 0))
    if hours:
        rows = [
            {"hour": hour, "subject": subject, **found._asdict()} for (hour, subject), found in sorted(hours.items())
        ]
        connection.execute(_ADD_CHECK, rows)


def checks(connection: Connection, since_hour: int) -> dict[str, dict[int, Minutes]]:
    """Subject → hour → minutes, from `since_hour` on."""
    found: dict[str, dict[int, Minutes]] = {}
    for hour, subject, checked, good in connection.execute(select(_check).where(_check.c.hour >= since_hour)):
        found.setdefault(subject, {})[hour] = Minutes(checked, good)
    return found


def first_minutes(connection: Connection) -> dict[str, int]:
    """The first minute (since 1970) in which each subject was checked."""
    first = select(_check.c.subject, func.min(_check.c.hour).label("hour")).group_by(_check.c.subject).subquery()
    query = select(_check.c.subject, _check.c.hour, _check.c.checked).join(
        first, (first.c.subject == _check.c.subject) & (first.c.hour == _check.c.hour)
    )
    return {
        subject: hour * MINUTES_PER_HOUR + (checked & -checked).bit_length() - 1
        for subject, hour, checked in connection.execute(query)
    }


# --- incidents


def open_incident(
    connection: Connection,
    title: str,
    severity: str,
    affects: Iterable[str],
    message: str,
    now_s: float,
    *,
    known: Collection[str],
) -> Incident:
    """`known` are the ids of what can be affected. Raises IncidentError."""
    title = " ".join(title.split())
    named = tuple(dict.fromkeys(filter(None, (each.strip() for each in affects))))
    if not 0 < len(title) <= TITLE_CHARS_MAX:
        raise IncidentError(f"An incident needs a title of at most {TITLE_CHARS_MAX} characters.")
    if severity not in SEVERITIES:
        raise IncidentError(f"'{severity[:40]}' is no severity; there are {', '.join(SEVERITIES)}.")
    strange = [each for each in named if each not in known]
    if strange:
        raise IncidentError(f"'{strange[0][:100]}' is none of what can be affected: {', '.join(known)}.")
    text = _checked(message)
    values = {"title": title, "severity": severity, "affects": ",".join(named), "opened_at": now_s}
    [number] = connection.execute(insert(_incident).values(values).returning(_incident.c.id)).one()
    connection.execute(insert(_update).values(incident_id=number, at=now_s, message=text))
    return find_incident(connection, number)


def update_incident(connection: Connection, number: int, message: str, now_s: float) -> Incident:
    """Say something more. Raises IncidentError for one that is over."""
    _open(connection, number)
    connection.execute(insert(_update).values(incident_id=number, at=now_s, message=_checked(message)))
    return find_incident(connection, number)


def resolve_incident(connection: Connection, number: int, message: str, now_s: float) -> Incident:
    """Say how it ended. Raises IncidentError for one that is over."""
    _open(connection, number)
    connection.execute(insert(_update).values(incident_id=number, at=now_s, message=_checked(message)))
    connection.execute(update(_incident).where(_incident.c.id == number).values(resolved_at=now_s))
    return find_incident(connection, number)


def find_incident(connection: Connection, number: int) -> Incident:
    """Raises IncidentError."""
    found = _read(connection, _incident.c.id == number)
    if not found:
        raise IncidentError(f"There is no incident {number}.")
    return found[0]


def incidents(connection: Connection, since_s: float = 0.0) -> list[Incident]:
    """Open ones and those resolved since, the newest first."""
    return _read(connection, _incident.c.resolved_at.is_(None) | (_incident.c.resolved_at >= since_s))


def _open(connection: Connection, number: int) -> None:
    if find_incident(connection, number).resolved_at is not None:
        raise IncidentError(f"Incident {number} is resolved; open another one.")


def _checked(message: str) -> str:
    message = message.strip()
    if not 0 < len(message) <= MESSAGE_CHARS_MAX:
        raise IncidentError(f"Say what is known, in at most {MESSAGE_CHARS_MAX} characters.")
    return message


def _read(connection: Connection, which: ColumnElement[bool]) -> list[Incident]:
    rows = connection.execute(
        select(_incident).where(which).order_by(_incident.c.opened_at.desc(), _incident.c.id.desc())
    ).all()
    said: dict[int, list[Update]] = {}
    query = select(_update.c.incident_id, _update.c.at, _update.c.message).join(_incident).where(which)
    for number, at, message in connection.execute(query.order_by(_update.c.id)):
        said.setdefault(number, []).append(Update(at=at, message=message))
    return [
        Incident(
            id=row.id,
            title=row.title,
            severity=row.severity,
            affects=tuple(filter(None, row.affects.split(","))),
            opened_at=row.opened_at,
            resolved_at=row.resolved_at,
            updates=tuple(said.get(row.id, ())),
        )
        for row in rows
    ]

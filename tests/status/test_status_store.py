"""Checks by the minute and incidents, in the store."""

from collections.abc import Iterator

import pytest
from sqlalchemy import Connection, Engine

from vipcloud.status import store
from vipcloud.status.report import Incident
from vipcloud.status.rules import Minutes
from vipcloud.status.store import IncidentError
from vipcloud.storage import engine as storage

KNOWN = ("gateway", "deepseek", "deepseek-chat")


def opened(connection: Connection, title: str, severity: str, affects: list[str], message: str, at: float) -> Incident:
    return store.open_incident(connection, title, severity, affects, message, at, known=KNOWN)


@pytest.fixture
def connection(engine: Engine) -> Iterator[Connection]:
    with storage.writing(engine) as connection:
        yield connection


def test_a_minute_is_good_if_one_of_its_checks_was(connection: Connection) -> None:
    store.note_checks(connection, [(120, "gateway", False), (120, "gateway", True), (121, "gateway", False)])
    store.note_checks(connection, [(120, "gateway", False), (179, "gateway", True), (180, "gateway", True)])
    store.note_checks(connection, [(121, "website", True)])
    assert store.checks(connection, 2) == {
        "gateway": {2: Minutes(0b11 | 1 << 59, 1 | 1 << 59), 3: Minutes(1, 1)},
        "website": {2: Minutes(0b10, 0b10)},
    }
    assert store.checks(connection, 3) == {"gateway": {3: Minutes(1, 1)}}
    assert store.first_minutes(connection) == {"gateway": 120, "website": 121}


def test_saying_it_twice_changes_nothing(connection: Connection) -> None:
    seen = [(minute, "gateway", minute % 3 > 0) for minute in range(100, 300)]
    store.note_checks(connection, seen)
    before = store.checks(connection, 0)
    store.note_checks(connection, seen)
    assert store.checks(connection, 0) == before
    assert sum(each.checked.bit_count() for each in before["gateway"].values()) == 200


def test_nothing_to_note_is_no_mistake(connection: Connection) -> None:
    store.note_checks(connection, [])
    assert (store.checks(connection, 0), store.first_minutes(connection)) == ({}, {})


def test_an_incident_is_opened_told_of_and_resolved(connection: Connection) -> None:
    incident = opened(
        connection,
        "  DeepSeek  is slow ",
        "disturbance",
        ["deepseek", " deepseek-chat", "deepseek", ""],
        "We look.",
        10.0,
    )
    assert (incident.title, incident.affects, incident.resolved_at) == (
        "DeepSeek is slow",
        ("deepseek", "deepseek-chat"),
        None,
    )
    store.update_incident(connection, incident.id, " It is they. ", 20.0)
    ended = store.resolve_incident(connection, incident.id, "Over.", 30.0)
    assert ended.resolved_at == 30.0
    assert [(update.at, update.message) for update in ended.updates] == [
        (10.0, "We look."),
        (20.0, "It is they."),
        (30.0, "Over."),
    ]
    assert store.find_incident(connection, incident.id) == ended


def test_open_ones_are_listed_however_old_and_the_newest_first(connection: Connection) -> None:
    old = opened(connection, "Old and open", "notice", [], "Yes.", 1.0)
    past = opened(connection, "Past", "outage", [], "Yes.", 2.0)
    store.resolve_incident(connection, past.id, "Over.", 3.0)
    new = opened(connection, "New", "outage", [], "Yes.", 100.0)
    assert [each.id for each in store.incidents(connection, 50.0)] == [new.id, old.id]
    assert [each.id for each in store.incidents(connection)] == [new.id, past.id, old.id]
    assert [len(each.updates) for each in store.incidents(connection)] == [1, 2, 1]


@pytest.mark.parametrize(
    ("title", "severity", "affects", "message", "problem"),
    [
        (" ", "notice", [], "Yes.", "needs a title"),
        ("x" * 121, "notice", [], "Yes.", "at most 120"),
        ("Title", "disaster", [], "Yes.", "'disaster' is no severity; there are notice, disturbance, outage"),
        (
            "Title",
            "notice",
            ["deepseek", "gpt-9"],
            "Yes.",
            "'gpt-9' is none of what can be affected: gateway",
        ),
        ("Title", "notice", ["gateway,deepseek"], "Yes.", "is none of what"),
        ("Title", "notice", [], " ", "Say what is known"),
        ("Title", "notice", [], "x" * 2001, "at most 2000"),
    ],
)
def test_what_is_wrong_with_an_incident_is_said(
    connection: Connection, title: str, severity: str, affects: list[str], message: str, problem: str
) -> None:
    with pytest.raises(IncidentError, match=problem):
        opened(connection, title, severity, affects, message, 1.0)
    assert store.incidents(connection) == []


def test_what_is_over_stays_as_it_is(connection: Connection) -> None:
    number = opened(connection, "Past", "outage", [], "Yes.", 2.0).id
    store.resolve_incident(connection, number, "Over.", 3.0)
    for act in (store.update_incident, store.resolve_incident):
        with pytest.raises(IncidentError, match="is resolved"):
            act(connection, number, "More.", 4.0)
        with pytest.raises(IncidentError, match="no incident 99"):
            act(connection, 99, "More.", 4.0)
    assert len(store.find_incident(connection, number).updates) == 2

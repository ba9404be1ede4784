"""`vipcloud incidents` and `vipcloud people`: what an operator does at the command line, and the trace of it."""

from pathlib import Path

from vipcloud.accounts import operators
from vipcloud.accounts.operators import Deed
from vipcloud.storage import engine as storage


def deeds(data: Path) -> list[Deed]:
    engine = storage.open_engine(data / "vipcloud.db")
    with storage.reading(engine) as connection:
        found = operators.deeds(connection)
    engine.dispose()
    return found


def test_an_incident_from_its_beginning_to_its_end(vipcloud, data: Path) -> None:
    assert "There were none" in vipcloud("incidents", "list").stdout
    opened = vipcloud(
        "incidents", "open", "DeepSeek is slow", "We look.", "--affects", "deepseek", "--affects", "deepseek-chat"
    )
    assert "Incident 1 is open" in opened.stdout
    vipcloud("incidents", "update", "1", "It is they.")
    [incident] = vipcloud.json("incidents", "list")
    assert (incident["severity"], incident["affects"], incident["resolved_at"]) == (
        "disturbance", ["deepseek", "deepseek-chat"], None,
    )  # fmt: skip
    assert "is resolved" in vipcloud("incidents", "resolve", "1", "Over.").stdout
    [incident] = vipcloud.json("incidents", "list")
    assert [update["message"] for update in incident["updates"]] == ["We look.", "It is they.", "Over."]
    assert incident["resolved_at"] == incident["updates"][-1]["at"]
    assert "DeepSeek is slow" in vipcloud("incidents", "list").stdout
    assert [(deed.person, deed.action, deed.object, deed.after) for deed in deeds(data)] == [
        ("command line", "incident resolved", "incident 1", "Over."),
        ("command line", "incident updated", "incident 1", "It is they."),
        ("command line", "incident opened", "incident 1", "We look."),
    ]


def test_what_is_wrong_is_said_in_a_line_and_nothing_is_noted(vipcloud, data: Path) -> None:
    for arguments, problem in (
        (("open", "Title", "Text", "--affects", "gpt-9"), "'gpt-9' is none of what can be affected: gateway, website"),
        (("open", "Title", "Text", "--severity", "bad"), "'bad' is no severity"),
        (("open", " ", "Text"), "needs a title"),
        (("update", "7", "Text"), "There is no incident 7"),
        (("resolve", "7", "Text"), "There is no incident 7"),
    ):
        told = vipcloud("incidents", *arguments, status=1)
        assert problem in told.stderr
        assert "Traceback" not in told.stderr
    assert deeds(data) == []


def test_somebody_is_made_an_operator_and_dismissed(vipcloud, data: Path) -> None:
    vipcloud("accounts", "create", "ops@example.com")
    assert "cannot sign in" in vipcloud("people", "admin", "nobody@example.com", status=1).stderr
    assert "is no operator" in vipcloud("people", "admin", "ops@example.com", "--remove", status=1).stderr
    for _ in range(2):
        assert "ops@example.com is an operator" in vipcloud("people", "admin", "Ops@Example.com").stdout
    [person] = vipcloud.json("people", "list")
    assert person == {"email": "ops@example.com", "account": "ops@example.com", "role": "owner", "operator": True}
    assert "no operator any more" in vipcloud("people", "admin", "ops@example.com", "--remove").stdout
    assert vipcloud.json("people", "list")[0]["operator"] is False
    assert [deed.action for deed in deeds(data)] == ["operator dismissed", "operator appointed"]

"""The operator's pages: there for operators alone, right about what they show, and every act leaves its trace."""

import csv
import io
import re
import secrets

import msgspec
import pytest
from litestar import Litestar
from litestar.testing import TestClient

from console.conftest import Page, Person, words
from console.test_dashboard import book
from vipcloud.accounts import operators, people, store
from vipcloud.accounts.operators import Deed
from vipcloud.console.parts import Parts
from vipcloud.ledger import store as ledger
from vipcloud.ledger.bookkeeper import STATUS_FILE, Status
from vipcloud.status import store as status
from vipcloud.status import upstreams
from vipcloud.status.upstreams import AccountState, Look, ModelState, State
from vipcloud.storage import engine as storage

PAGES = [
    "/admin",
    "/admin/upstreams",
    "/admin/margin",
    "/admin/margin.csv",
    "/admin/accounts",
    "/admin/waitlist",
    "/admin/incidents",
    "/admin/ledger",
    "/admin/audit",
    "/admin/audit.csv",
]
FORMS = {
    "/admin/upstreams": {"account": "deepseek/1", "action": "drain"},
    "/admin/waitlist": {"email": "new@example.com", "action": "approve", "tier": "payg", "credit": "1.00"},
    "/admin/incidents": {"title": "Down", "severity": "outage", "message": "We look."},
    "/admin/incidents/1": {"message": "Over.", "action": "resolve"},
    "/admin/accounts/ACCOUNT/credit": {"amount": "1000", "reason": "because", "once": "a" * 24},
    "/admin/accounts/ACCOUNT/state": {"action": "close"},
    "/admin/accounts/ACCOUNT/tier": {"tier": "enterprise"},
}


@pytest.fixture
def operator(person: Person, parts: Parts) -> Person:
    """An operator, signed in."""
    person.account("ops@example.com")
    with storage.writing(parts.engine) as connection:
        operators.appoint(connection, "ops@example.com", 1.0)
    person.sign_in("ops@example.com")
    return person


@pytest.fixture
def gateway(parts: Parts) -> None:
    """What a running gateway tells of its accounts, and what was seen of them."""
    data, now_s = parts.settings.data_path, parts.clock.wall_s()
    well, ill = (
        ModelState("deepseek-flash", "active", "closed", 0, 0.0),
        ModelState("glm-5", "suspended", "closed", 0, 60.0),
    )
    accounts = [
        AccountState("deepseek/1", 3, 1, 0, False, "", [well]),  # noqa: FBT003
        AccountState("zhipu/1", 0, 1, 1, False, "arrears (status 429)", [ill]),  # noqa: FBT003
    ]
    upstreams.write_state(data, State(now_s, accounts))
    looks = [Look(id="zhipu/1", at=now_s - 20, ms=312, verdict="fail", detail="no money left", advice="Top it up.")]
    upstreams.write_looks(data, looks)


def deeds(parts: Parts) -> list[Deed]:
    with storage.reading(parts.engine) as connection:
        return operators.deeds(connection)


def traces(parts: Parts) -> list[tuple[str, str, str, str, str]]:
    """Without the appointment of the operator, oldest first."""
    return [deed[2:] for deed in reversed(deeds(parts)) if deed.action != "operator appointed"]


def wait(parts: Parts, email: str, ago_s: float) -> None:
    """Somebody on the waitlist, confirmed that long ago."""
    at = parts.clock.wall_s() - ago_s
    with storage.writing(parts.engine) as connection:
        token = people.join_waitlist(connection, email, at, secrets.token_bytes)
        assert token is not None
        people.confirm_waiting(connection, token, at)


# --- for whom they are


@pytest.mark.parametrize("path", [*PAGES, "/admin/accounts/ACCOUNT"])
def test_for_everybody_else_a_page_does_not_exist(
    site: TestClient[Litestar], person: Person, parts: Parts, path: str
) -> None:
    account = person.account("ann@example.com")
    path = path.replace("ACCOUNT", account.id)
    missing = words(site.get("/no/such/page").text)
    for _ in ("a stranger", "a customer"):
        answer = site.get(path)
        assert (answer.status_code, words(answer.text)) == (404, missing)
        person.sign_in("ann@example.com")
    with storage.writing(parts.engine) as connection:
        operators.appoint(connection, "ann@example.com", 1.0)
    assert site.get(path).status_code == 200
    with storage.writing(parts.engine) as connection:
        operators.dismiss(connection, "ann@example.com", 2.0)
    assert site.get(path).status_code == 404, "within the same session"


@pytest.mark.parametrize("path", FORMS)
def test_for_everybody_else_a_form_does_not_exist_and_does_nothing(
    site: TestClient[Litestar], person: Person, parts: Parts, gateway: None, path: str
) -> None:
    account = person.account("ann@example.com")
    wait(parts, "new@example.com", 60)
    with storage.writing(parts.engine) as connection:
        status.open_incident(connection, "Slow", "notice", [], "Yes.", 1.0, known=())
    fields = FORMS[path]
    path = path.replace("ACCOUNT", account.id)
    assert site.post(path, data=fields).status_code == 404
    person.sign_in("ann@example.com")
    assert person.post(path, **fields).status_code == 404
    assert deeds(parts) == []
    assert upstreams.read_control(parts.settings.data_path).drained == frozenset()
    with storage.reading(parts.engine) as connection:
        assert store.account_by_id(connection, account.id) == account
        assert ledger.balance(connection, account.id) == 5_000_000_000
        assert [row.email for row in people.list_waiting(connection, "waiting")] == ["new@example.com"]
        [incident] = status.incidents(connection)
        assert (incident.title, incident.resolved_at) == ("Slow", None)


@pytest.mark.parametrize("path", FORMS)
def test_a_form_of_another_site_or_of_another_session_does_nothing(
    site: TestClient[Litestar], operator: Person, parts: Parts, gateway: None, path: str
) -> None:
    account = operator.account("ann@example.com")
    fields = FORMS[path]
    path = path.replace("ACCOUNT", account.id)
    assert site.post(path, data={"token": "f" * 64, **fields}).status_code == 403
    token = operator.token()
    foreign = {"sec-fetch-site": "cross-site"}
    assert site.post(path, data={"token": token, **fields}, headers=foreign).status_code == 403
    assert traces(parts) == []


def test_the_table_of_forms_has_all_of_them(site: TestClient[Litestar]) -> None:
    """Every route below /admin is in PAGES or FORMS: a new one is looked at as the others are."""
    found = {
        (method, re.sub(r"\{account_id:str\}", "ACCOUNT", route.path).replace("{number:int}", "1"))
        for route in site.app.routes
        if route.path.startswith("/admin")
        for method in getattr(route, "methods", ())
        if method in ("GET", "POST", "PUT", "PATCH", "DELETE")
    }
    expected = {("GET", path) for path in [*PAGES, "/admin/accounts/ACCOUNT"]} | {("POST", path) for path in FORMS}
    assert found == expected


# --- what they show


@pytest.mark.parametrize("path", [path for path in PAGES if not path.endswith(".csv")])
def test_a_page_obeys_its_policy_empty_and_full(
    site: TestClient[Litestar], operator: Person, parts: Parts, path: str, request: pytest.FixtureRequest
) -> None:
    for _ in range(2):
        answer = site.get(path)
        assert answer.status_code == 200
        page = Page(answer.text)
        assert page.inline == []
        assert (page.tags.count("h1"), page.tags.count("main")) == (1, 1)
        assert len(page.ids) == len(set(page.ids))
        assert page.labelled <= set(page.ids)
        assert answer.headers["cache-control"] == "private, no-cache"
        account = operator.account(f"{secrets.token_hex(4)}@example.com")
        book(parts, account.id, 30)
        wait(parts, f"{secrets.token_hex(4)}@example.com", 25 * 3600)
        with storage.writing(parts.engine) as connection:
            status.open_incident(connection, "Slow <b>", "outage", ["x"], "Yes.", 1.0, known=["x"])
        request.getfixturevalue("gateway")


def test_the_front_page_says_what_is_on_fire(
    site: TestClient[Litestar], operator: Person, parts: Parts, gateway: None
) -> None:
    account = operator.account("ann@example.com")
    book(parts, account.id, 2, charge_nanousd=1_000_000, cost_nanousd=700_000)
    wait(parts, "late@example.com", 25 * 3600)
    with storage.writing(parts.engine) as connection:
        status.open_incident(
            connection, "Slow at Zhipu", "disturbance", [], "Yes.", parts.clock.wall_s() - 120, known=()
        )
    folder = parts.settings.journal_path
    folder.mkdir()
    told = Status(1.0, parts.clock.wall_s() - 300, 4096, checked_at=1.0, breaks=("one", "two"))
    (folder / STATUS_FILE).write_bytes(msgspec.json.encode(told))
    text = words(site.get("/admin").text)
    for said in (
        "Slow at Zhipu. Open for 2 min",
        "The books do not agree in 2 places",
        "1 on the waitlist has waited for more than 20 h",
        "2 requests in the books",
        "30.0 % of what was spent",
        "out zhipu/1 1 of its keys refused; glm-5: suspended, arrears (status 429)",
        "300 s behind late",
    ):
        assert said in text.replace("\N{NO-BREAK SPACE}", " "), said
    assert "deepseek/1" not in text, "it serves"


def test_margin_is_what_was_charged_less_what_it_cost(
    site: TestClient[Litestar], operator: Person, parts: Parts
) -> None:
    ann, bob = operator.account("ann@example.com"), operator.account("bob@example.com")
    book(parts, ann.id, 3, charge_nanousd=2_000_000, cost_nanousd=1_500_000)
    book(parts, bob.id, 1, model="glm-4-air", charge_nanousd=1_000_000, cost_nanousd=1_600_000)
    book(parts, bob.id, 5, model="glm-4-flash", charge_nanousd=0, cost_nanousd=0)
    book(parts, bob.id, 1, started_at=parts.clock.wall_s() - 10 * 86_400)
    rows = {row["model"]: row for row in csv.DictReader(io.StringIO(site.get("/admin/margin.csv?days=1").text))}
    assert rows["deepseek-chat"] == {
        "model": "deepseek-chat",
        "requests": "3",
        "charged_usd": "0.006000000",
        "cost_usd": "0.004500000",
        "margin_usd": "0.001500000",
    }
    assert rows["glm-4-air"]["margin_usd"] == "-0.000600000"
    assert len(list(csv.DictReader(io.StringIO(site.get("/admin/margin.csv?days=30").text)))) == 3
    text = words(site.get("/admin/margin?days=1").text).replace("\N{NO-BREAK SPACE}", " ")
    assert "25.0 %" in text
    assert "\N{MINUS SIGN}60.0 %" in text
    assert "ann@example.com" in text
    assert "All 9 $0.00 7000000 $0.00 6100000 $0.00 0900000 12.9 %" in text


def test_accounts_are_found_by_address_member_and_id(
    site: TestClient[Litestar], operator: Person, parts: Parts
) -> None:
    ann, bob = operator.account("ann@example.com", "7.25"), operator.account("bob_x@example.com")
    with storage.writing(parts.engine) as connection:
        people.add_member(connection, bob.id, "carl@other.example", "member", 1.0, secrets.token_bytes)

    def found(words_: str) -> list[str]:
        text = site.get("/admin/accounts", params={"q": words_}).text
        return re.findall(r'href="/admin/accounts/[^"]+">([^<]+)<', text)

    assert found("ANN@") == ["ann@example.com"]
    assert found("carl@other") == ["bob_x@example.com"]
    assert found(bob.id) == ["bob_x@example.com"]
    assert found("b_x") == ["bob_x@example.com"]
    assert found("n_e") == [], "an underscore is an underscore"
    assert found("%") == []
    assert sorted(found("")) == ["ann@example.com", "bob_x@example.com", "ops@example.com"]
    assert "No account fits" in site.get("/admin/accounts?q=<script>").text
    assert "<script>" not in site.get("/admin/accounts?q=<script>").text
    text = words(site.get(f"/admin/accounts/{ann.id}").text)
    assert "$7.25 0000000" in text
    assert site.get("/admin/accounts/acc_none").status_code == 404


def test_upstreams_are_shown_as_the_gateway_tells_of_them(
    site: TestClient[Litestar], operator: Person, parts: Parts
) -> None:
    assert "No gateway tells of its accounts" in site.get("/admin/upstreams").text


# --- what they do


def test_an_account_gets_credit_once_however_often_the_form_is_sent(
    site: TestClient[Litestar], operator: Person, parts: Parts
) -> None:
    ann = operator.account("ann@example.com")
    path = f"/admin/accounts/{ann.id}"
    [once] = re.findall(r'name="once" value="(\w+)"', site.get(path).text)
    fields = {"amount": "$12.50", "reason": "a cut stream on Monday", "once": once}
    for _ in range(3):
        assert operator.post(f"{path}/credit", **fields).headers["location"] == path
    with storage.reading(parts.engine) as connection:
        assert ledger.balance(connection, ann.id) == 17_500_000_000
        assert ledger.differences(connection) == []
    assert traces(parts) == [
        ("ops@example.com", "credit given", "ann@example.com", "$5.00", "$12.50: a cut stream on Monday")
    ]
    assert "a cut stream on Monday" in site.get(path).text


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"amount": "0"}, "must be above 0"),
        ({"amount": "-5"}, "No credit was given"),
        ({"amount": "ten"}, "No credit was given"),
        ({"amount": "99999999999999"}, "Problem"),
        ({"reason": " "}, "Say why"),
        ({"reason": "x" * 201}, "Say why"),
        ({"once": ""}, "incomplete"),
        ({"once": "../" + "a" * 21}, "incomplete"),
    ],
)
def test_credit_with_a_mistake_is_not_given(
    site: TestClient[Litestar], operator: Person, parts: Parts, changes: dict[str, str], problem: str
) -> None:
    ann = operator.account("ann@example.com")
    fields = {"amount": "1.00", "reason": "yes", "once": "b" * 24} | changes
    answer = operator.post(f"/admin/accounts/{ann.id}/credit", **fields)
    assert (answer.status_code, problem in answer.text) == (400, True)
    assert traces(parts) == []
    with storage.reading(parts.engine) as connection:
        assert ledger.balance(connection, ann.id) == 5_000_000_000


def test_an_account_is_closed_opened_again_and_put_into_another_tier(
    site: TestClient[Litestar], operator: Person, parts: Parts
) -> None:
    ann = operator.account("ann@example.com")
    path = f"/admin/accounts/{ann.id}"
    assert operator.post(f"{path}/state", action="close").status_code == 303
    assert "closed by an operator" in words(site.get(path).text)
    assert operator.post(f"{path}/state", action="reopen").status_code == 303
    assert operator.post(f"{path}/tier", tier="pro").status_code == 303
    for where, fields in (("state", {"action": "burn"}), ("tier", {"tier": "gold"})):
        answer = operator.post(f"{path}/{where}", **fields)
        assert (answer.status_code, "Nothing was changed" in answer.text) == (400, True)
    with storage.reading(parts.engine) as connection:
        found = store.account_by_id(connection, ann.id)
    assert found is not None
    assert (found.suspended, found.tier) == (False, "pro")
    assert [trace[1:] for trace in traces(parts)] == [
        ("account closed", "ann@example.com", "open", "closed"),
        ("account opened again", "ann@example.com", "closed", "open"),
        ("tier changed", "ann@example.com", "payg", "pro"),
    ]
    assert operator.post("/admin/accounts/acc_none/state", action="close").status_code == 404


def test_who_waits_is_approved_with_tier_and_credit_or_rejected_and_told(
    site: TestClient[Litestar], operator: Person, parts: Parts
) -> None:
    wait(parts, "new@example.com", 60)
    wait(parts, "late@example.com", 21 * 3600)
    text = words(site.get("/admin/waitlist").text)
    assert text.index("late@example.com") < text.index("new@example.com"), "the longest waiting first"
    assert "21 h 0 min" in text
    answer = operator.post("/admin/waitlist", email="new@example.com", action="approve", tier="gold", credit="1")
    assert "Nothing was decided" in answer.text
    answer = operator.post("/admin/waitlist", email="new@example.com", action="approve", tier="pro", credit="2.50")
    assert answer.status_code == 303
    assert operator.post("/admin/waitlist", email="late@example.com", action="reject").status_code == 303
    assert "/welcome/" in operator.mail("new@example.com")
    assert operator.mail("late@example.com")
    answer = operator.post("/admin/waitlist", email="late@example.com", action="reject")
    assert (answer.status_code, "only confirmed addresses that wait" in answer.text) == (400, True)
    with storage.reading(parts.engine) as connection:
        account = store.find_account(connection, "new@example.com")
        assert (account.tier, ledger.balance(connection, account.id)) == ("pro", 2_500_000_000)
    assert [trace[1:] for trace in traces(parts)] == [
        ("approved", "new@example.com", "", "pro, $2.50"),
        ("rejected", "late@example.com", "", ""),
    ]
    assert "Nobody waits" in site.get("/admin/waitlist").text


def test_an_upstream_is_drained_and_revived(
    site: TestClient[Litestar], operator: Person, parts: Parts, gateway: None
) -> None:
    text = words(site.get("/admin/upstreams").text)
    assert "serving" in text
    assert "312 ms: no money left. Top it up." in text
    for action, drained in (("drain", {"deepseek/1"}), ("revive", set())):
        assert operator.post("/admin/upstreams", account="deepseek/1", action=action).status_code == 303
        assert upstreams.read_control(parts.settings.data_path).drained == drained
    for fields in ({"account": "deepseek/9", "action": "drain"}, {"account": "deepseek/1", "action": "sell"}):
        answer = operator.post("/admin/upstreams", **fields)
        assert (answer.status_code, "Nothing was changed" in answer.text) == (400, True)
    assert [trace[1:3] for trace in traces(parts)] == [
        ("upstream drained", "deepseek/1"),
        ("upstream revived", "deepseek/1"),
    ]


def test_an_incident_is_published_updated_and_resolved(
    site: TestClient[Litestar], operator: Person, parts: Parts
) -> None:
    fields = {"title": "Slow <i>", "severity": "disturbance", "message": "We look.", "affects:deepseek": "1"}
    assert operator.post("/admin/incidents", **fields).status_code == 303
    text = site.get("/admin/incidents").text
    assert "Slow &lt;i&gt;" in text
    assert "Affects DeepSeek" in words(text)
    assert operator.post("/admin/incidents/1", message="It is they.", action="update").status_code == 303
    assert operator.post("/admin/incidents/1", message="Over.", action="resolve").status_code == 303
    with storage.reading(parts.engine) as connection:
        [incident] = status.incidents(connection)
    assert [update.message for update in incident.updates] == ["We look.", "It is they.", "Over."]
    assert (incident.affects, incident.resolved_at is not None) == (("deepseek",), True)
    for path, mistake in (
        ("/admin/incidents", {**fields, "affects:gpt-9": "1"}),
        ("/admin/incidents", {**fields, "severity": "bad"}),
        ("/admin/incidents/1", {"message": "More.", "action": "update"}),
        ("/admin/incidents/7", {"message": "More.", "action": "resolve"}),
        ("/admin/incidents/1", {"message": "More.", "action": "forget"}),
    ):
        assert operator.post(path, **mistake).status_code == 400
    assert [trace[1:3] for trace in traces(parts)] == [
        ("incident opened", "incident 1"),
        ("incident updated", "incident 1"),
        ("incident resolved", "incident 1"),
    ]


def test_the_log_is_filtered_paged_and_exported(site: TestClient[Litestar], operator: Person, parts: Parts) -> None:
    with storage.writing(parts.engine) as connection:
        for number in range(120):
            person, thing = ("a@example.com", "b@example.com")[number % 2], f"account {number % 3}"
            operators.note(connection, person, "=cmd()", thing, 1000.0 + number)
    text = site.get("/admin/audit?person=a@example.com&page=2").text
    assert text.count("=cmd()") == 10
    assert "b@example.com" not in text
    assert site.get("/admin/audit?page=99999999999").status_code == 200
    rows = list(csv.DictReader(io.StringIO(site.get("/admin/audit.csv?object=account 1").text)))
    assert len(rows) == 40
    assert {row["action"] for row in rows} == {"'=cmd()"}


def test_the_ledger_page_says_how_the_books_stand(site: TestClient[Litestar], operator: Person, parts: Parts) -> None:
    assert "No bookkeeper has worked yet" in site.get("/admin/ledger").text
    account = operator.account("ann@example.com")
    book(parts, account.id, 3)
    folder, now_s = parts.settings.journal_path, parts.clock.wall_s()
    folder.mkdir()
    (folder / STATUS_FILE).write_bytes(msgspec.json.encode(Status(now_s, now_s, 0, checked_at=now_s, checked_rows=9)))
    text = words(site.get("/admin/ledger").text)
    assert "The books agree" in text
    assert "Sum $0.00 0000000" in text, "every transfer has two sides"
    told = Status(now_s, now_s, 0, checked_at=now_s, breaks=("customer:x: balance and transfers differ",), overdrawn=1)
    (folder / STATUS_FILE).write_bytes(msgspec.json.encode(told))
    text = words(site.get("/admin/ledger").text)
    assert "The books do not agree" in text
    assert "customer:x: balance and transfers differ" in text

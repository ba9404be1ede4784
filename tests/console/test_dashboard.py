"""The dashboard: sums are the sums of their lines, a key is shown once, and nobody sees another account's anything."""

import csv
import io
import re
import secrets

import pytest
from litestar import Litestar
from litestar.testing import TestClient

from console.conftest import Page, Person, words
from vipcloud.accounts import people, rules, store
from vipcloud.console import charts
from vipcloud.console.pages import overview
from vipcloud.console.parts import Parts
from vipcloud.ledger import store as ledger
from vipcloud.ledger.records import Settled
from vipcloud.limits.caps import Caps
from vipcloud.storage import engine as storage

PAGES = ["/overview", "/usage?period=30d", "/keys", "/keys/new", "/credit", "/playground", "/limits", "/settings"]


def book(parts: Parts, account_id: str, count: int, key_id: str | None = None, **changes: object) -> list[Settled]:
    """Requests of the last hour, in the books."""
    now_s = parts.clock.wall_s()
    made = []
    for number in range(count):
        values = {
            "request_id": f"chatcmpl-{secrets.token_hex(8)}",
            "account_id": account_id,
            "key_id": key_id,
            "model": "deepseek-chat",
            "provider": "deepseek",
            "upstream_model": "deepseek-flash",
            "streamed": False,
            "outcome": "complete",
            "prompt_tokens": 10 + number,
            "cached_tokens": 0,
            "completion_tokens": 5,
            "reasoning_tokens": 0,
            "estimated": False,
            "charge_nanousd": 1_234_567 + number,
            "cost_nanousd": 1_000_000,
            "started_at": now_s - 1 - number / 100,
            "duration_ms": 900,
            "first_token_ms": 300,
            "attempts": 1,
            "held_nanousd": 2_000_000,
            **changes,
        }
        made.append(Settled(**values))  # type: ignore[arg-type]
    with storage.writing(parts.engine) as connection:
        ledger.post_usage(connection, made)
    return made


@pytest.mark.parametrize("path", PAGES)
def test_a_page_obeys_its_policy_empty_and_full(
    site: TestClient[Litestar], person: Person, parts: Parts, path: str
) -> None:
    account = person.account("ann@example.com")
    person.sign_in("ann@example.com")
    for _ in range(2):
        answer = site.get(path)
        assert answer.status_code == 200
        page = Page(answer.text)
        assert page.inline == []
        assert page.tags.count("h1") == 1
        assert page.tags.count("main") == 1
        assert len(page.ids) == len(set(page.ids))
        assert page.labelled <= set(page.ids)
        book(parts, account.id, 3)


def test_sums_are_the_sums_of_the_lines_and_of_the_csv(
    site: TestClient[Litestar], person: Person, parts: Parts
) -> None:
    account = person.account("ann@example.com")
    person.sign_in("ann@example.com")
    lines = book(parts, account.id, 120)
    book(parts, account.id, 2, outcome="upstream_failed", charge_nanousd=0, completion_tokens=0, cost_nanousd=0)
    total = sum(line.charge_nanousd for line in lines)
    shown = f"${total / 1e9:.9f}"
    text = words(site.get("/usage?period=30d").text)
    assert shown[:5] in text
    assert f"{shown[:5]} {shown[5:]}" in text
    assert "Lines 1 to 50 of 122" in text
    seen = []
    for page in (1, 2, 3):
        seen += re.findall(r'href="/usage/(chatcmpl-\w+)"', site.get(f"/usage?period=30d&page={page}").text)
    assert len(seen) == len(set(seen)) == 122
    answer = site.get("/usage.csv?period=30d")
    assert "attachment" in answer.headers["content-disposition"]
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert len(rows) == 122
    assert sum(int(row["charge_usd"].replace(".", "")) for row in rows) == total
    assert len(list(csv.DictReader(io.StringIO(site.get("/usage.csv?period=30d&end=failed").text)))) == 2


def test_a_cell_that_a_spreadsheet_would_run_is_quoted(
    site: TestClient[Litestar], person: Person, parts: Parts
) -> None:
    account = person.account("ann@example.com")
    person.sign_in("ann@example.com")
    with storage.writing(parts.engine) as connection:
        key = store.create_key(connection, account.id, 1.0, secrets.token_bytes, "=HYPERLINK(1)").row
    book(parts, account.id, 1, key_id=key.id)
    [row] = csv.DictReader(io.StringIO(site.get("/usage.csv?period=30d").text))
    assert row["key"] == "'=HYPERLINK(1)"


def test_the_statement_adds_up_to_the_balance(site: TestClient[Litestar], person: Person, parts: Parts) -> None:
    account = person.account("ann@example.com", "5.00")
    person.sign_in("ann@example.com")
    total = sum(line.charge_nanousd for line in book(parts, account.id, 4))
    text = words(site.get("/credit").text)
    left = f"{5_000_000_000 - total:010d}"
    assert f"${left[0]}.{left[1:3]} {left[3:]}" in text
    assert "Credit given by us" in text
    assert "Usage, 4 requests" in text


def test_a_key_is_shown_once_works_and_is_revoked_by_its_name(
    site: TestClient[Litestar], person: Person, parts: Parts
) -> None:
    account = person.account("ann@example.com")
    person.sign_in("ann@example.com")
    made = person.post("/keys", name="production-api")
    [key] = re.findall(r'id="the-key"[^>]*>(vc-sk-\w+)<', made.text)
    assert rules.well_formed(key)
    assert made.headers["cache-control"] == "no-store"
    with storage.reading(parts.engine) as connection:
        found = store.key_by_hash(connection, rules.key_hash(key.encode()))
    assert found is not None
    assert found[1].id == account.id
    assert key not in site.get("/keys").text
    assert rules.masked(key) in site.get("/keys").text
    assert "was created" in person.mail("ann@example.com")
    again = person.post("/keys", name="production-api")
    assert (again.status_code, "named production-api already" in again.text) == (400, True)
    assert person.post("/keys", name=" ").status_code == 400

    book(parts, account.id, 2, key_id=found[0].id)
    asked = words(site.get(f"/keys/{found[0].id}/revoke").text)
    assert "2 requests used it in the last hour" in asked
    assert person.post(f"/keys/{found[0].id}/revoke", name="wrong").status_code == 400
    assert person.post(f"/keys/{found[0].id}/revoke", name="production-api").headers["location"] == "/keys"
    with storage.reading(parts.engine) as connection:
        [row] = store.list_keys(connection, account.id)
    assert row.revoked_at is not None


def test_a_key_has_the_terms_of_its_form(site: TestClient[Litestar], person: Person, parts: Parts) -> None:
    account = person.account("ann@example.com")
    person.sign_in("ann@example.com")
    fields = {"models": "glm-4-air", "cap_day": "1.50", "cap_total": "$20", "ends": "2099-12-31"}
    assert person.post("/keys", name="bound", networks="203.0.113.7, 2001:db8::/48", **fields).status_code == 200
    with storage.reading(parts.engine) as connection:
        [row] = store.list_keys(connection, account.id)
    assert row.caps == Caps(1_500_000_000, None, 20_000_000_000)
    assert (row.models, row.networks) == ("glm-4-air", "203.0.113.7/32,2001:db8::/48")
    assert row.expires_at == 4_102_444_800.0
    text = words(site.get("/keys").text)
    assert "$1.50 a day" in text
    assert "glm-4-air only" in text


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("cap_day", "ten"),
        ("cap_month", "-5"),
        ("cap_total", "0"),
        ("ends", "soon"),
        ("ends", "2001-01-01"),
        ("networks", "not an address"),
        ("models", "gpt-9"),
        ("name", "x" * 101 + "\n"),
    ],
)
def test_a_form_with_a_mistake_makes_no_key_and_is_kept_as_typed(
    site: TestClient[Litestar], person: Person, parts: Parts, field: str, value: str
) -> None:
    account = person.account("ann@example.com")
    person.sign_in("ann@example.com")
    answer = person.post("/keys", **{"name": "bound", "cap_month": "7.25", field: value})
    if field == "name":
        assert answer.status_code == 200, "a long name is cut"
        return
    assert answer.status_code == 400
    assert "No key was made" in answer.text
    assert 'value="bound"' in answer.text
    with storage.reading(parts.engine) as connection:
        assert store.list_keys(connection, account.id) == []


def test_a_management_key_is_made_by_its_kind_and_takes_no_bounds(
    site: TestClient[Litestar], person: Person, parts: Parts
) -> None:
    account = person.account("ann@example.com")
    person.sign_in("ann@example.com")
    refused = person.post("/keys", name="ops", kind="management", cap_month="5")
    assert (refused.status_code, "it takes no caps, limits or models" in refused.text) == (400, True)
    assert re.search(r'value="management" checked', refused.text)
    made = person.post("/keys", name="ops", kind="management", networks="203.0.113.7")
    assert made.status_code == 200
    person.post("/keys", name="plain", kind="requests")
    with storage.reading(parts.engine) as connection:
        first, second = store.list_keys(connection, account.id)
    assert (first.management, first.networks, second.management) == (True, "203.0.113.7/32", False)
    assert words(site.get("/keys").text).count("manages keys, runs no requests") == 1
    person.post(f"/keys/{first.id}/rotate", overlap="0")
    with storage.reading(parts.engine) as connection:
        assert [key.management for key in store.standing_keys(connection, account.id, 0)] == [False, True]


def test_a_disabled_key_is_shown_as_such(site: TestClient[Litestar], person: Person, parts: Parts) -> None:
    account = person.account("ann@example.com")
    person.sign_in("ann@example.com")
    person.post("/keys", name="api")
    with storage.writing(parts.engine) as connection:
        [key] = store.list_keys(connection, account.id)
        store.change_key(connection, key, 2.0, name=key.name, disabled=True, terms=key.terms)
    assert "disabled api" in words(site.get("/keys").text)


@pytest.mark.parametrize(("overlap", "works"), [("24h", True), ("1h", True), ("0", False), ("nonsense", True)])
def test_rotating_gives_a_new_key_while_the_old_one_works_on(
    site: TestClient[Litestar], person: Person, parts: Parts, overlap: str, works: bool
) -> None:
    account = person.account("ann@example.com")
    person.sign_in("ann@example.com")
    person.post("/keys", name="api", models="glm-4-air", cap_month="9")
    with storage.reading(parts.engine) as connection:
        [old] = store.list_keys(connection, account.id)
    made = person.post(f"/keys/{old.id}/rotate", overlap=overlap)
    [key] = re.findall(r'id="the-key"[^>]*>(vc-sk-\w+)<', made.text)
    with storage.reading(parts.engine) as connection:
        before, new = store.list_keys(connection, account.id)
    assert new.hash == rules.key_hash(key.encode())
    assert (new.name, new.models, new.caps) == (old.name, old.models, old.caps)
    now_s = parts.clock.wall_s()
    assert before.ended(now_s) is not works
    assert before.ended(now_s + 25 * 3600)
    if works:
        assert "An old key of this name still works" in site.get(f"/keys/{new.id}/rotate").text
        assert person.post(f"/keys/{new.id}/rotate", overlap="24h").status_code == 303
        with storage.reading(parts.engine) as connection:
            assert len(store.list_keys(connection, account.id)) == 2


def test_one_request_is_worked_out(site: TestClient[Litestar], person: Person, parts: Parts) -> None:
    account = person.account("ann@example.com")
    person.sign_in("ann@example.com")
    [line] = book(parts, account.id, 1, attempts=2, reasoning_tokens=3)
    text = words(site.get(f"/usage/{line.request_id}").text)
    assert "$0.001234 567" in text
    assert "$0.002000 000 was held" in text
    assert "2 attempts, you pay for one" in text
    assert "3 of it reasoning" in text
    found = site.get(f"/usage?id={line.request_id.replace('chatcmpl-', 'req_')}").text
    assert line.request_id in found


def test_nobody_sees_another_accounts_anything(site: TestClient[Litestar], person: Person, parts: Parts) -> None:
    other = person.account("other@example.com", "77.00")
    with storage.writing(parts.engine) as connection:
        key = store.create_key(connection, other.id, 1.0, secrets.token_bytes, "secret-name").row
        [member] = people.list_members(connection, other.id)
    [line] = book(parts, other.id, 1, key_id=key.id)
    person.account("ann@example.com")
    person.sign_in("ann@example.com")
    for path in [*PAGES, f"/usage?period=30d&key={key.id}", f"/usage?id={line.request_id}", "/usage.csv?period=30d"]:
        text = site.get(path).text
        for trace in ("other@example.com", "secret-name", f"/usage/{line.request_id}", key.masked, "$77"):
            assert trace not in text, (path, trace)
    assert site.get(f"/usage/{line.request_id}").status_code == 404
    assert site.get(f"/keys/{key.id}/revoke").status_code == 404
    assert person.post(f"/keys/{key.id}/revoke", name="secret-name").status_code == 404
    assert person.post(f"/settings/members/{member.id}/remove").status_code == 400
    assert person.post(f"/settings/members/{member.id}/role", role="member").status_code == 400
    with storage.reading(parts.engine) as connection:
        assert store.list_keys(connection, other.id)[0].revoked_at is None
        assert people.list_members(connection, other.id) == [member]


def test_members_use_owners_decide(site: TestClient[Litestar], person: Person, parts: Parts) -> None:
    person.account("ann@example.com")
    person.sign_in("ann@example.com")
    assert person.post("/settings/members", email="bob@example.com", role="member").status_code == 303
    [link] = re.findall(r"https://gateway\.example(/welcome/\w+)", person.mail("bob@example.com"))
    site.cookies.clear()
    site.post(link)
    assert "bob@example.com" in site.get("/settings").text
    assert "Send an invitation" not in site.get("/settings").text
    assert person.post("/settings/members", email="eve@example.com").status_code == 403
    with storage.reading(parts.engine) as connection:
        ann = people.find_member(connection, "ann@example.com")
        bob = people.find_member(connection, "bob@example.com")
    assert ann is not None
    assert bob is not None
    assert person.post(f"/settings/members/{ann.id}/remove").status_code == 403
    assert person.post(f"/settings/members/{bob.id}/role", role="owner").status_code == 403
    assert person.post(f"/settings/members/{bob.id}/remove").headers["location"] == "/", "one may leave"
    assert site.get("/settings", follow_redirects=False).status_code == 303


def test_a_chart_stands_on_zero_and_its_stacks_are_the_sums() -> None:
    chart = charts.stacked([("1 Nov", {1: 30, 3: 10}), ("2 Nov", {}), ("3 Nov", {2: 80})])
    assert [day.total for day in chart.days] == [40, 0, 80]
    assert chart.ticks[0] == charts.Tick(0, charts.BOTTOM)
    assert chart.ticks[-1].value == 80
    low, high = chart.days[0].bars
    assert low.y + low.height <= charts.BOTTOM
    assert high.y + high.height <= low.y
    [full] = chart.days[2].bars
    assert full.y == charts.TOP
    assert charts.stacked([("1 Nov", {})]).empty


def test_free_models_are_grey_and_paid_ones_keep_their_colour(parts: Parts) -> None:
    slots = overview.colours(parts.catalog)
    assert slots["glm-4-flash"] == overview.GREY
    assert slots["deepseek-chat"] != slots["deepseek-reasoner"]
    assert set(slots.values()) <= set(range(1, 7))

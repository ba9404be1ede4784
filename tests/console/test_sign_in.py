"""Getting in: codes by mail, the same answer for everybody, forms only from our own pages, the waitlist."""

import re

import pytest
from litestar import Litestar
from litestar.testing import TestClient

from console.conftest import Person, words
from vipcloud.accounts import admission, mails, people, rules
from vipcloud.console import visits
from vipcloud.console.parts import Parts
from vipcloud.storage import engine as storage

MEMBERS_ONLY = ["/overview", "/usage", "/usage.csv", "/usage/chatcmpl-1", "/keys", "/credit", "/limits", "/settings"]


@pytest.mark.parametrize("path", MEMBERS_ONLY)
def test_a_page_for_members_sends_strangers_to_sign_in_and_back(site: TestClient[Litestar], path: str) -> None:
    answer = site.get(path, follow_redirects=False)
    assert answer.status_code == 303
    assert answer.headers["location"].startswith("/login?back=%2F")
    site.cookies.set(visits.SESSION, "x" * 43)
    assert site.get(path, follow_redirects=False).status_code == 303


def test_a_member_signs_in_with_the_code_of_the_mail_and_out_again(site: TestClient[Litestar], person: Person) -> None:
    person.account("ann@example.com")
    person.sign_in("ann@example.com")
    cookie = site.cookies.get(visits.SESSION)
    assert "ann@example.com" in site.get("/overview").text
    assert person.post("/logout").headers["location"] == "/"
    assert cookie is not None
    site.cookies.set(visits.SESSION, cookie)
    assert site.get("/overview", follow_redirects=False).status_code == 303, "the session is over, not only its cookie"


def test_the_cookie_is_out_of_reach_of_scripts_and_other_sites(site: TestClient[Litestar], person: Person) -> None:
    person.account("ann@example.com")
    site.post("/login", data={"email": "ann@example.com"}, follow_redirects=False)
    [code] = re.findall(r"(\d{4} \d{4})", person.mail("ann@example.com").splitlines()[0])
    answer = site.post("/login/code", data={"code": code.replace(" ", "")}, follow_redirects=False)
    line = next(line for line in answer.headers.get_list("set-cookie") if line.startswith(visits.SESSION))
    assert {"HttpOnly", "SameSite=lax", "Secure", "Path=/"} <= set(line.split("; "))


def test_nothing_tells_whether_an_address_has_an_account(
    site: TestClient[Litestar], person: Person, parts: Parts
) -> None:
    person.account("ann@example.com")
    answers = []
    for email in ("ann@example.com", "nobody@example.com"):
        answer = site.post("/login", data={"email": email})
        answers.append((answer.status_code, answer.url.path, words(answer.text).replace(email, "…")))
        wrong = site.post("/login/code", data={"code": "00000000"})
        answers[-1] += (wrong.status_code, words(wrong.text).replace(email, "…"))
        site.cookies.clear()
    assert answers[0] == answers[1]
    with storage.reading(parts.engine) as connection:
        assert [mail.recipient for mail in mails.unsent(connection)] == ["ann@example.com"]


def test_a_code_of_another_browser_does_not_help(site: TestClient[Litestar], person: Person) -> None:
    person.account("ann@example.com")
    site.post("/login", data={"email": "ann@example.com"})
    [code] = re.findall(r"Your code: (\d{4} \d{4})", person.mail("ann@example.com"))
    site.cookies.clear()
    refused = site.post("/login/code", data={"code": code}, follow_redirects=False)
    assert (refused.status_code, "Nobody was signed in" in refused.text) == (400, True)


def test_too_many_codes_are_refused_in_words(site: TestClient[Litestar]) -> None:
    for _ in range(people.CODES_PER_HOUR):
        assert site.post("/login", data={"email": "x@example.com"}).status_code == 200
    answer = site.post("/login", data={"email": "x@example.com"})
    assert answer.status_code == 429
    assert "Nothing was sent" in answer.text


@pytest.mark.parametrize(
    "headers",
    [
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"origin": "https://evil.example"},
        {"origin": "null"},
    ],
)
@pytest.mark.parametrize("path", ["/login", "/login/code", "/waitlist", "/keys", "/logout", "/settings/members"])
def test_a_form_from_another_site_does_nothing(
    site: TestClient[Litestar], person: Person, path: str, headers: dict[str, str]
) -> None:
    person.account("ann@example.com")
    person.sign_in("ann@example.com")
    fields = {"email": "x@example.com", "name": "evil", "token": person.token()}
    assert site.post(path, data=fields, headers=headers).status_code == 403
    assert site.get("/overview", follow_redirects=False).status_code == 200
    assert "evil" not in site.get("/keys").text


def test_a_form_without_the_sessions_token_does_nothing(site: TestClient[Litestar], person: Person) -> None:
    person.account("ann@example.com")
    person.sign_in("ann@example.com")
    for token in ("", "0" * 64):
        assert site.post("/keys", data={"name": "evil", "token": token}).status_code == 403
    assert "evil" not in site.get("/keys").text


@pytest.mark.parametrize("back", ["//evil.example", "https://evil.example", "/\\evil.example", "javascript:x", "/a:b"])
def test_signing_in_never_leads_to_another_site(back: str) -> None:
    assert visits.local_page(back, "/overview") == "/overview"
    assert visits.local_page("/usage", "/overview") == "/usage"


def test_from_the_waitlist_to_the_first_key(site: TestClient[Litestar], person: Person, parts: Parts) -> None:
    told = site.post("/waitlist", data={"email": "eve@example.com"})
    assert "Look into your mail" in told.text
    [link] = re.findall(r"https://gateway\.example(/waitlist/confirm/\w+)", person.mail("eve@example.com"))
    assert site.get(link).status_code == 200
    with storage.reading(parts.engine) as connection:
        assert people.list_waiting(connection, "waiting") == [], "looking at a link confirms nothing"
    assert "You are on the list" in site.post(link).text

    with storage.writing(parts.engine) as connection:
        admission.approve(
            connection, "eve@example.com", parts.clock.wall_s(), parts.random_bytes, parts.settings, parts.public_url
        )
    [welcome] = re.findall(r"https://gateway\.example(/welcome/\w+)", person.mail("eve@example.com"))
    assert "vc-sk-" not in site.get(welcome).text, "looking at the link shows no key"
    shown = site.post(welcome)
    [key] = re.findall(r'id="the-key"[^>]*>(vc-sk-\w+)<', shown.text)
    assert rules.well_formed(key)
    assert shown.headers["cache-control"] == "no-store"
    assert "$1.00" in site.get("/overview").text, "signed in, with the welcome credit"
    assert key not in site.get("/keys").text
    again = site.post(welcome)
    assert again.status_code == 404
    assert "vc-sk-" not in again.text


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("127.0.0.1:8080", 200),
        ("[::1]:8080", 200),
        ("attacker.example:8080", 404),
        ("localhost.attacker.example", 404),
        ("[", 404),
    ],
)
def test_the_outbox_is_not_read_by_a_website_whose_name_was_pointed_here(
    site: TestClient[Litestar], host: str, status: int
) -> None:
    answer = site.get("/outbox", headers={"x-vipcloud-client": "127.0.0.1", "host": host})
    assert answer.status_code == status


def test_the_outbox_is_for_this_machine_alone(site: TestClient[Litestar], parts: Parts) -> None:
    local = {"x-vipcloud-client": "127.0.0.1", "host": "localhost:8080"}
    assert site.get("/outbox", headers=local).status_code == 200
    assert site.get("/outbox", headers={**local, "x-vipcloud-client": "10.0.0.9"}).status_code == 404
    assert site.get("/outbox", headers={"host": "localhost:8080"}).status_code == 404
    for name in ("cf-connecting-ip", "via"):  # the second is what the gateway tells of proxies
        assert site.get("/outbox", headers={**local, name: "1.2.3.4"}).status_code == 404

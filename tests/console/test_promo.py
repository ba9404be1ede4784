"""The form for promo codes: its credit is there at once, and guessing is slow."""

import time

from litestar import Litestar
from litestar.testing import TestClient

from console.conftest import Person, words
from vipcloud.accounts import people
from vipcloud.billing import promos
from vipcloud.billing.promos import Promo
from vipcloud.console.pages.promo import TRIES_PER_HOUR
from vipcloud.console.parts import Parts
from vipcloud.money import NANO, NanoUSD
from vipcloud.storage import engine as storage


def offer(parts: Parts, code: str = "WELCOME-5") -> None:
    with storage.writing(parts.engine) as connection:
        promos.create(
            connection, Promo(code, NanoUSD(5 * NANO), None, 0, None, new_accounts_only=False, created_at=time.time())
        )


def test_a_code_adds_its_credit_and_the_statement_says_so(
    site: TestClient[Litestar], person: Person, parts: Parts
) -> None:
    offer(parts)
    person.account("ann@example.com")
    person.sign_in("ann@example.com")
    answer = person.post("/credit/promo", code="welcome-5")
    assert (answer.status_code, answer.headers["location"]) == (303, "/credit?promo=added#promo")
    page = words(site.get("/credit?promo=added").text)
    assert "credit was added" in page
    assert "Promo code $5.00" in page
    again = person.post("/credit/promo", code="WELCOME-5")
    assert (again.status_code, "has used this code" in again.text) == (400, True)


def test_guesses_are_few_and_learn_nothing(site: TestClient[Litestar], person: Person, parts: Parts) -> None:
    offer(parts)
    with storage.writing(parts.engine) as connection:
        promos.end(connection, "WELCOME-5", time.time())
    person.account("ann@example.com")
    person.sign_in("ann@example.com")
    answers = [person.post("/credit/promo", code=f"GUESS-{number}") for number in range(TRIES_PER_HOUR - 1)]
    answers.append(person.post("/credit/promo", code="WELCOME-5"))
    assert {answer.status_code for answer in answers} == {400}
    assert len({answer.text for answer in answers}) == 1
    assert person.post("/credit/promo", code="WELCOME-5").status_code == 429
    person.account("bob@example.com")
    person.sign_in("bob@example.com")
    assert person.post("/credit/promo", code="OTHER").status_code == 400


def test_members_and_strangers_add_nothing(site: TestClient[Litestar], person: Person, parts: Parts) -> None:
    offer(parts)
    account = person.account("ann@example.com")
    with storage.writing(parts.engine) as connection:
        people.add_member(connection, account.id, "cleo@example.com", "member", time.time(), parts.random_bytes)
    person.sign_in("cleo@example.com")
    assert person.post("/credit/promo", code="WELCOME-5").status_code == 403
    site.cookies.clear()
    assert site.post("/credit/promo", data={"code": "WELCOME-5"}, follow_redirects=False).status_code in (303, 403)
    with storage.reading(parts.engine) as connection:
        assert promos.list_all(connection)[0].uses == 0

"""The playground's page: what there is to choose from, and the key that its requests are counted by."""

import re
import secrets
from html import unescape

from console.conftest import Person
from vipcloud.accounts import store
from vipcloud.storage import engine as storage


def keys(person: Person, account_id: str) -> list[store.KeyRow]:
    with storage.reading(person.parts.engine) as connection:
        return store.list_keys(connection, account_id)


def test_it_offers_what_is_on_sale_with_what_the_catalogue_says(person: Person) -> None:
    person.account("ann@example.com")
    person.sign_in("ann@example.com")
    text = person.site.get("/playground").text
    catalog = person.parts.catalog
    offered = re.findall(r'<option value="([^"]+)" data-', text)
    assert set(offered) == {name for name, model in catalog.models.items() if model.on_sale}
    [chat] = re.findall(r'<option value="deepseek-chat" ([^>]*)>', text.split("data-model>")[1])
    assert 'data-input-max="310000"' in chat
    assert 'data-output-max="1270000"' in chat
    assert "$0.31 in, $1.27 out per 1M tokens." in unescape(chat)
    assert 'data-vision=""' in chat
    assert '<option value="glm-4-plus"' in text
    assert re.search(r'<option value="glm-4-plus"[^>]*data-vision="yes"', text)
    assert "<option disabled>kimi-k2</option>" in text
    assert "<option selected" not in text


def test_who_has_no_credit_begins_with_a_free_model(person: Person) -> None:
    with storage.writing(person.parts.engine) as connection:
        store.create_account(connection, "ann@example.com", person.parts.clock.wall_s(), secrets.token_bytes)
    person.sign_in("ann@example.com")
    assert re.findall(r'<option selected value="([^"]+)"', person.site.get("/playground").text) == ["glm-4-flash"]


def test_the_key_is_made_once_and_again_after_it_was_revoked(person: Person) -> None:
    account = person.account("ann@example.com")
    person.sign_in("ann@example.com")
    assert 'data-ready=""' in person.site.get("/playground").text
    assert keys(person, account.id) == [], "looking makes none"
    for _ in range(2):
        assert person.post("/playground/key").status_code == 204
    [key] = keys(person, account.id)
    assert (key.name, key.revoked_at) == ("playground", None)
    assert 'data-ready="yes"' in person.site.get("/playground").text
    with storage.writing(person.parts.engine) as connection:
        store.revoke_key(connection, key.id, person.parts.clock.wall_s())
    assert 'data-ready=""' in person.site.get("/playground").text
    assert person.post("/playground/key").status_code == 204
    assert len(keys(person, account.id)) == 2


def test_no_key_is_made_for_another_site_or_a_stranger(person: Person) -> None:
    account = person.account("ann@example.com")
    person.sign_in("ann@example.com")
    assert person.site.post("/playground/key", data={"token": "0" * 64}).status_code == 403
    token = person.token("/playground")
    away = person.site.post("/playground/key", data={"token": token}, headers={"sec-fetch-site": "cross-site"})
    assert away.status_code == 403
    person.site.cookies.clear()
    assert person.site.post("/playground/key", data={"token": token}, follow_redirects=False).status_code == 403
    assert keys(person, account.id) == []

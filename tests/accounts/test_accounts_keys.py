"""An owner's keys: which names and how many, whose they are, and what a key may still spend."""

import random
from collections.abc import Iterator

import pytest
from sqlalchemy import Connection, Engine

from vipcloud.accounts import keys, store
from vipcloud.accounts.keys import Binding
from vipcloud.accounts.store import InvalidInput, KeyTerms
from vipcloud.ledger.store import KeySpending
from vipcloud.limits.caps import Caps
from vipcloud.storage import engine as storage

NOW = 1_795_000_000.0
MODELS = {"glm-4-air", "deepseek-chat"}
dice = random.Random(7).randbytes


@pytest.fixture
def connection(engine: Engine) -> Iterator[Connection]:
    with storage.writing(engine) as connection:
        yield connection


@pytest.fixture
def account(connection: Connection) -> store.AccountRow:
    return store.create_account(connection, "ada@example.com", NOW, dice)


def make(
    connection: Connection, account: store.AccountRow, name: str, now_s: float = NOW, **terms: object
) -> store.KeyRow:
    chosen = KeyTerms(**terms)  # type: ignore[arg-type]
    return keys.make(connection, account.id, name, chosen, now_s, dice, keys_max=3, models=MODELS).row


def test_a_name_is_free_again_when_its_key_has_ended(connection: Connection, account: store.AccountRow) -> None:
    first = make(connection, account, "api", expires_at=NOW + 60)
    with pytest.raises(InvalidInput, match="named api already") as refused:
        make(connection, account, " api ")
    assert refused.value.field == "name"
    second = make(connection, account, "api", NOW + 60)
    store.revoke_key(connection, second.id, NOW + 61)
    third = make(connection, account, "api", NOW + 62)
    assert store.standing_keys(connection, account.id, NOW + 62) == [third]
    assert store.standing_keys(connection, account.id, NOW) == [first, third]


def test_a_change_keeps_to_the_same_rules(connection: Connection, account: store.AccountRow) -> None:
    make(connection, account, "taken")
    row = make(connection, account, "mine", models=["glm-4-air"])
    for fields, field in (
        ({"name": "taken"}, "name"),
        ({"name": ""}, "name"),
        ({"terms": KeyTerms(models=("x",))}, "models"),
    ):
        wanted = {"name": row.name, "disabled": False, "terms": row.terms, **fields}
        with pytest.raises(InvalidInput) as refused:
            keys.change(connection, row, NOW + 1, **wanted, models=MODELS)  # type: ignore[arg-type]
        assert refused.value.field == field
    terms = KeyTerms(
        caps=Caps(daily_nanousd=5), rpm=2, expires_at=NOW + 60, models=("deepseek-chat",), networks=("::1",)
    )
    changed = keys.change(connection, row, NOW + 1, name="other", disabled=True, terms=terms, models=MODELS)
    assert changed == store.key_by_id(connection, row.id)
    assert (changed.name, changed.disabled, changed.updated_at, changed.rpm) == ("other", True, NOW + 1, 2)
    assert (changed.caps, changed.models, changed.networks) == (Caps(daily_nanousd=5), "deepseek-chat", "::1/128")
    assert store.changes_since(connection, 0)[-1].subject == row.hash.hex()
    kept = keys.change(
        connection, changed, NOW + 99, name="other", disabled=False,
        terms=changed.terms._replace(expires_at=changed.expires_at), models=(),
    )  # fmt: skip
    assert (kept.expires_at, kept.models) == (NOW + 60, "deepseek-chat"), "what is as it was is not asked about"


def test_there_are_so_many_and_no_more(connection: Connection, account: store.AccountRow) -> None:
    rows = [make(connection, account, str(number)) for number in range(3)]
    with pytest.raises(InvalidInput, match="3 keys are the most"):
        make(connection, account, "fourth")
    store.revoke_key(connection, rows[0].id, NOW)
    make(connection, account, "fourth")


def test_anothers_revoked_and_managing_keys_are_not_there(connection: Connection, account: store.AccountRow) -> None:
    own = make(connection, account, "own")
    other = store.create_account(connection, "bob@example.com", NOW, dice)
    hidden = [make(connection, account, "ops", management=True), make(connection, other, "theirs")]
    hidden.append(store.revoke_key(connection, make(connection, account, "gone").id, NOW))
    assert keys.managed(connection, account.id, own.hash) == own
    for row in hidden:
        with pytest.raises(store.KeyNotFound):
            keys.managed(connection, account.id, row.hash)
    with pytest.raises(store.KeyNotFound):
        keys.managed(connection, account.id, bytes(32))
    assert store.managed_keys(connection, account.id, disabled=True) == [own]


@pytest.mark.parametrize(
    "bounds", [{"rpm": 1}, {"rpd": 1}, {"concurrency": 1}, {"models": ["glm-4-air"]}, {"caps": Caps(1)}]
)
def test_a_management_key_takes_no_bounds(connection: Connection, account: store.AccountRow, bounds: dict) -> None:
    with pytest.raises(InvalidInput, match="A management key runs no requests"):
        make(connection, account, "ops", management=True, **bounds)


@pytest.mark.parametrize(
    ("caps", "binding"),
    [
        (None, None),
        (Caps(), None),
        (Caps(total_nanousd=100), Binding(100, "total", 60)),
        (Caps(daily_nanousd=100, total_nanousd=100), Binding(100, "total", 60)),
        (Caps(daily_nanousd=50, monthly_nanousd=65, total_nanousd=100), Binding(65, "monthly", 35)),
        (Caps(daily_nanousd=5), Binding(5, "daily", 0)),
    ],
)
def test_of_several_caps_the_one_that_leaves_the_least_binds(caps: Caps | None, binding: Binding | None) -> None:
    assert keys.binding(caps, KeySpending(total=40, daily=10, weekly=20, monthly=30)) == binding

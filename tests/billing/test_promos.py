"""Promo codes: once per account, never more often than offered, and the same answer to every guess."""

import secrets
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import Engine

from vipcloud.accounts import store as accounts
from vipcloud.accounts.store import AccountRow
from vipcloud.billing import promos
from vipcloud.billing.promos import Promo, PromoError
from vipcloud.ledger import store as ledger
from vipcloud.money import NANO, NanoUSD
from vipcloud.storage import engine as storage

NOW_S = 1_795_000_000.0
OFFER = Promo("WELCOME-5", NanoUSD(5 * NANO), None, 0, None, new_accounts_only=False, created_at=NOW_S - 10)


def made(engine: Engine, *, email: str = "", at: float = NOW_S - 60) -> AccountRow:
    with storage.writing(engine) as connection:
        return accounts.create_account(
            connection, email or f"{secrets.token_hex(4)}@x.example", at, secrets.token_bytes
        )


def offer(engine: Engine, promo: Promo = OFFER) -> None:
    with storage.writing(engine) as connection:
        promos.create(connection, promo)


def redeem(engine: Engine, account: AccountRow, code: str = "WELCOME-5", now_s: float = NOW_S) -> str:
    """What the owner is told; empty when it worked."""
    try:
        with storage.writing(engine) as connection:
            promos.redeem(connection, account, code, now_s)
    except PromoError as error:
        return str(error)
    return ""


def credit(engine: Engine, account: AccountRow) -> int:
    with storage.reading(engine) as connection:
        assert ledger.differences(connection) == []
        return ledger.balance(connection, account.id)


def test_a_code_gives_its_credit_once_however_it_is_typed(engine: Engine) -> None:
    offer(engine)
    account = made(engine)
    assert redeem(engine, account, "  welcome-5 ") == ""
    assert "has used this code" in redeem(engine, account)
    assert credit(engine, account) == 5 * NANO
    with storage.reading(engine) as connection:
        [line] = ledger.statement(connection, f"customer:{account.id}", 10)
        assert (line.kind, line.other) == ("promo", "promo:WELCOME-5")
        [promo] = promos.list_all(connection)
    assert promo.uses == 1


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({}, "WELCOME-6"),
        ({}, ""),
        ({}, "'; DROP TABLE promo"),
        ({"ended_at": NOW_S - 1}, "WELCOME-5"),
        ({"expires_at": NOW_S}, "WELCOME-5"),
        ({"uses_max": 3, "uses": 3}, "WELCOME-5"),
        ({"new_accounts_only": True}, "WELCOME-5"),
    ],
)
def test_every_code_that_gives_nothing_has_the_same_answer(
    engine: Engine, change: dict[str, object], code: str
) -> None:
    offer(engine, OFFER._replace(**change))  # type: ignore[arg-type]
    account = made(engine, at=NOW_S - promos.NEW_ACCOUNT_S)
    assert redeem(engine, account, code) == promos.NOTHING
    assert credit(engine, account) == 0


def test_a_new_account_gets_one_of_the_offers_for_new_accounts(engine: Engine) -> None:
    offer(engine, OFFER._replace(new_accounts_only=True))
    offer(engine, OFFER._replace(code="HELLO", new_accounts_only=True))
    offer(engine, OFFER._replace(code="ALWAYS"))
    account = made(engine)
    assert redeem(engine, account, "HELLO") == ""
    assert redeem(engine, account, "WELCOME-5") == promos.NOTHING
    assert redeem(engine, account, "ALWAYS") == ""
    assert credit(engine, account) == 10 * NANO


def test_of_many_at_once_as_many_get_it_as_were_offered_and_each_once(engine: Engine) -> None:
    offer(engine, OFFER._replace(uses_max=3))
    people = [made(engine) for _ in range(5)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda account: redeem(engine, account), people * 2))
    assert sorted(credit(engine, account) for account in people) == [0, 0, 5 * NANO, 5 * NANO, 5 * NANO]


@pytest.mark.parametrize(
    "wrong",
    [OFFER, OFFER._replace(code="ab"), OFFER._replace(code="lower"), OFFER._replace(code="X", expires_at=1.0)],
)
def test_a_code_that_exists_or_can_be_none_is_not_made(engine: Engine, wrong: Promo) -> None:
    offer(engine)
    with pytest.raises(PromoError):
        offer(engine, wrong)


def test_what_has_ended_stays_given(engine: Engine) -> None:
    offer(engine)
    account = made(engine)
    redeem(engine, account)
    with storage.writing(engine) as connection:
        assert promos.end(connection, "WELCOME-5", NOW_S).uses == 1
        with pytest.raises(PromoError, match="is no code"):
            promos.end(connection, "NEVER", NOW_S)
    assert redeem(engine, made(engine)) == promos.NOTHING
    assert credit(engine, account) == 5 * NANO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vipcloud.ledger import rules
from vipcloud.ledger.rules import Sums, Transfer
from vipcloud.money import AMOUNT_NANOUSD_MAX, NanoUSD

amounts = st.integers(1, AMOUNT_NANOUSD_MAX)
events = st.one_of(
    st.builds(rules.grant, st.uuids().map(str), st.sampled_from("abc"), amounts.map(NanoUSD), st.just(0.0)),
    st.builds(rules.charge, st.uuids().map(str), st.sampled_from("abc"), amounts, st.just(0.0)),
)


def test_a_grant_moves_credit_from_promo_to_the_customer() -> None:
    assert rules.grant("welcome", "a", NanoUSD(5), 7.0) == Transfer(
        "grant/welcome", "promo", "customer:a", 5, "grant", None, 7.0
    )


def test_a_charge_moves_credit_from_the_customer_to_revenue() -> None:
    assert rules.charge("req_1", "a", 5, 7.0) == Transfer(
        "req_1/charge", "customer:a", "revenue", 5, "charge", "req_1", 7.0
    )


@pytest.mark.parametrize("amount", [0, -1, AMOUNT_NANOUSD_MAX + 1])
def test_a_grant_of_nothing_or_of_too_much_is_refused(amount: int) -> None:
    with pytest.raises(ValueError, match="a grant must be above"):
        rules.grant("welcome", "a", NanoUSD(amount), 0.0)


@given(st.lists(events))
def test_every_amount_leaves_one_account_and_enters_another(transfers: list[Transfer]) -> None:
    sums = rules.fold(transfers)
    assert sum(each.balance_nanousd for each in sums.values()) == 0
    assert sum(each.debits_nanousd for each in sums.values()) == sum(each.amount_nanousd for each in transfers)
    for name in "abc":
        of_customer = sums.get(rules.customer(name), Sums())
        assert of_customer.credits_nanousd == sum(
            each.amount_nanousd for each in transfers if each.kind == "grant" and each.credit == f"customer:{name}"
        )
        assert of_customer.debits_nanousd == sum(
            each.amount_nanousd for each in transfers if each.kind == "charge" and each.debit == f"customer:{name}"
        )

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vipcloud.ledger import rules
from vipcloud.ledger.rules import Sums, Transfer
from vipcloud.money import AMOUNT_NANOUSD_MAX, NanoUSD

amounts = st.integers(1, AMOUNT_NANOUSD_MAX)


def test_a_grant_moves_credit_from_promo_to_the_customer() -> None:
    transfer = rules.grant("welcome", "a", NanoUSD(5), 7.0)
    assert transfer == Transfer("promo:grants", "customer:a", 5, "grant", "grant/welcome", 7.0)
    assert rules.moved([transfer]) == {"promo:grants": Sums(5, 0), "customer:a": Sums(0, 5)}


def test_charges_move_credit_from_customers_to_revenue() -> None:
    assert rules.charged({"b": 5, "free": 0, "a": 7}) == {
        "customer:a": Sums(7, 0),
        "customer:b": Sums(5, 0),
        "revenue": Sums(0, 12),
    }


@pytest.mark.parametrize("paid", [{}, {"a": 0, "b": 0}])
def test_requests_that_cost_nothing_touch_no_ledger_account(paid: dict[str, int]) -> None:
    assert rules.charged(paid) == {}


@pytest.mark.parametrize("amount", [0, -1, AMOUNT_NANOUSD_MAX + 1])
def test_a_grant_of_nothing_or_of_too_much_is_refused(amount: int) -> None:
    with pytest.raises(ValueError, match="a grant must be above"):
        rules.grant("welcome", "a", NanoUSD(amount), 0.0)


@given(st.sampled_from("abc"), amounts)
def test_a_grant_leaves_one_account_and_enters_another(account_id: str, amount: int) -> None:
    sums = rules.moved([rules.grant("welcome", account_id, NanoUSD(amount), 0.0)])
    assert sum(each.balance_nanousd for each in sums.values()) == 0
    assert sums[rules.customer(account_id)].balance_nanousd == amount


@given(st.dictionaries(st.text(max_size=3), st.integers(0, AMOUNT_NANOUSD_MAX)))
def test_what_customers_pay_is_what_enters_revenue(paid: dict[str, int]) -> None:
    sums = rules.charged(paid)
    assert sum(each.balance_nanousd for each in sums.values()) == 0
    assert {name: sums.get(rules.customer(name), Sums()).debits_nanousd for name in paid} == paid

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


def test_usage_rows_are_posted_by_customer_and_by_provider_with_their_first_and_last_number() -> None:
    amounts = dict(rules.due("a", "zhipu", charge=9, cost=8, variance=3) + rules.due("b", "zhipu", 1, 0, 0))
    transfers = rules.posted(amounts, 5, 7, at=2.0)
    assert transfers == [
        Transfer("customer:a", "revenue", 9, "charge", "charge/a/5-7", 2.0),
        Transfer("customer:b", "revenue", 1, "charge", "charge/b/5-7", 2.0),
        Transfer("upstream:zhipu", "cost:zhipu", 5, "cost", "cost/zhipu/5-7", 2.0),
        Transfer("upstream:zhipu", "variance", 3, "variance", "variance/zhipu/5-7", 2.0),
    ]
    assert [rules.covered(8, transfer) for transfer in transfers] == [(posting, 5, 7) for posting in sorted(amounts)]


def test_a_charge_of_an_earlier_version_is_for_the_usage_row_of_its_number() -> None:
    assert rules.covered(3, Transfer("customer:a", "revenue", 9, "charge", None, 2.0)) == (("charge", "a"), 3, 3)


def test_requests_that_cost_nothing_are_posted_nowhere() -> None:
    assert rules.due("a", None, 0, 0, 0) == rules.due("a", "zhipu", 0, 0, 0) == []


@pytest.mark.parametrize("amount", [0, -1, AMOUNT_NANOUSD_MAX + 1])
def test_a_grant_of_nothing_or_of_too_much_is_refused(amount: int) -> None:
    with pytest.raises(ValueError, match="a grant must be above"):
        rules.grant("welcome", "a", NanoUSD(amount), 0.0)


@given(st.sampled_from("abc"), amounts)
def test_a_grant_leaves_one_account_and_enters_another(account_id: str, amount: int) -> None:
    sums = rules.moved([rules.grant("welcome", account_id, NanoUSD(amount), 0.0)])
    assert sum(each.balance_nanousd for each in sums.values()) == 0
    assert sums[rules.customer(account_id)].balance_nanousd == amount


@given(st.dictionaries(st.tuples(st.sampled_from(sorted(rules.FOR_ROWS)), st.text(max_size=3)), amounts))
def test_a_posting_names_its_rows_and_leaves_nothing_over(posted: dict[rules.Posting, int]) -> None:
    transfers = rules.posted(posted, 5, 7, at=2.0)
    assert sum(each.balance_nanousd for each in rules.moved(transfers).values()) == 0
    assert {rules.covered(8, each)[0]: each.amount_nanousd for each in transfers} == posted

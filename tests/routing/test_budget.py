from vipcloud.routing.budget import RetryBudget
from vipcloud.settings import RetrySettings


def test_requests_and_seconds_earn_tries_up_to_the_burst() -> None:
    budget = RetryBudget(RetrySettings(share=0.1, per_s=1.0, burst=2))
    assert [budget.take(0.0) for _ in range(3)] == [True, True, False]
    budget.requests = 9
    assert not budget.take(0.0)
    budget.requests = 10
    assert [budget.take(0.0), budget.take(0.0)] == [True, False]
    assert [budget.take(1.0), budget.take(1.0)] == [True, False]
    assert [budget.take(100.0) for _ in range(3)] == [True, True, False]

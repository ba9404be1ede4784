from dataclasses import dataclass, field

import pytest

from vipcloud.routing import rules
from vipcloud.routing.breaker import Breaker
from vipcloud.routing.health import COOLING_MAX_S, SUSPENDED_S, AccountHealth
from vipcloud.settings import BreakerSettings


@dataclass(eq=False)
class Account:
    running: int = 0
    weight: int = 1


@dataclass(eq=False)
class Way:
    name: str
    preference: int = 0
    model: str = "m"
    account: Account = field(default_factory=Account)
    health: AccountHealth = field(default_factory=AccountHealth)
    breaker: Breaker = field(default_factory=lambda: Breaker(BreakerSettings(), lambda: 0.0))
    turn: float = 0.0


def names(*ways: Way, now_s: float = 0.0, bound: object = None) -> str:
    return "".join(way.name for way in rules.order(ways, now_s, bound))


def cooling(until_s: float) -> AccountHealth:
    health = AccountHealth()
    health.note("cooling", "m", 0.0, until_s, "429")
    return health


def opened(now_s: float = 0.0) -> Breaker:
    breaker = Breaker(BreakerSettings(), lambda: 0.0)
    breaker.trip(now_s)
    return breaker


def test_preference_goes_first_and_load_decides_among_equals() -> None:
    assert names(Way("c", 1), Way("b", account=Account(5)), Way("a", account=Account(2))) == "abc"


def test_load_counts_by_weight() -> None:
    assert names(Way("b", account=Account(2, weight=1)), Way("a", account=Account(5, weight=4))) == "ab"


def test_a_conversation_stays_at_its_account_unless_that_rests() -> None:
    a, b = Way("a"), Way("b", account=Account(9))
    assert names(a, b, bound=b.account) == "ba"
    b.breaker.trip(0.0)
    assert names(a, b, bound=b.account) == "a"


@pytest.mark.parametrize(("weights", "shares"), [((1, 1), (50, 50)), ((3, 1), (75, 25)), ((1, 4), (20, 80))])
def test_idle_accounts_take_turns_by_weight(weights: tuple[int, int], shares: tuple[int, int]) -> None:
    ways = [Way(str(place), account=Account(weight=weight)) for place, weight in enumerate(weights)]
    turn, taken = 0.0, []
    for _ in range(100):
        first = rules.order(ways, 0.0, None, turn)[0]
        turn = rules.take_turn(first, turn)
        taken.append(first.name)
    assert (taken.count("0"), taken.count("1")) == shares


def test_what_an_account_missed_while_it_rested_is_not_made_up_for() -> None:
    a, b = Way("a"), Way("b", health=cooling(10))
    turn, taken = 0.0, []
    for now_s in range(20):
        first = rules.order([a, b], float(now_s), None, turn)[0]
        turn = rules.take_turn(first, turn)
        taken.append(first.name)
    assert "".join(taken) == "a" * 10 + "ba" * 5


def test_a_resting_account_is_left_out_while_another_is_active() -> None:
    assert names(Way("a", health=cooling(10)), Way("b", 1)) == "b"
    assert names(Way("a", breaker=opened()), Way("b", 1)) == "b"


def test_a_route_that_is_due_for_its_probe_goes_first_among_its_equals() -> None:
    probed = Way("a", account=Account(7), breaker=opened())
    assert names(Way("b"), probed, now_s=1.0) == "ab"
    assert names(Way("b", -1), probed, now_s=1.0) == "ba"
    assert probed.breaker.begin(1.0)
    assert names(Way("b"), probed, now_s=1.0) == "b"


def test_the_last_resort_is_the_breaker_that_is_soonest_due_and_one_call_at_a_time() -> None:
    ways = [Way("a", breaker=opened(0.5)), Way("b", breaker=opened(0.0))]
    assert names(*ways, now_s=0.6) == ""
    taken = [rules.last_resort(ways, 0.6) for _ in range(3)]
    assert [way and way.name for way in taken] == ["b", "a", None]
    assert rules.free_in_s(ways, 0.6) == 1.0


def test_who_is_throttled_or_drained_is_no_last_resort() -> None:
    drained = AccountHealth(drained=True)
    assert rules.last_resort([Way("a", health=cooling(9)), Way("b", health=drained)], 1.0) is None


@pytest.mark.parametrize("effect", ["suspended", "removed", "no_access"])
def test_an_account_out_of_service_is_the_last_resort_as_often_as_its_breaker_says(effect: str) -> None:
    way = Way("a", breaker=opened())
    way.health.note(effect, "m", 0.0, None, "402")  # type: ignore[arg-type]
    assert names(way, now_s=1.0) == ""
    assert rules.last_resort([way], 0.5) is None
    assert rules.last_resort([way], 1.0) is way


def test_models_an_account_may_not_use_close_no_other() -> None:
    closed = AccountHealth(closed_models={"m"})
    assert names(Way("a", health=closed), Way("b", model="other", health=closed)) == "b"


def test_cooling_grows_from_one_second_to_a_minute_and_a_later_success_ends_it() -> None:
    health = AccountHealth()
    rests = []
    for _ in range(8):
        health.note("cooling", "m", 0.0, None, "429")
        rests.append(health.free_in_s("m", 0.0))
    assert rests == [1, 2, 4, 8, 16, 32, COOLING_MAX_S, COOLING_MAX_S]
    health.note_success("m", 1.0)
    assert health.status("m", 1.0) == "cooling"  # that call had begun before
    health.note_success("m", COOLING_MAX_S)
    assert (health.status("m", COOLING_MAX_S), health.troubled) == ("active", False)
    health.note("cooling", "m", 0.0, None, "429")
    assert health.free_in_s("m", 0.0) == 1


def test_the_upstreams_own_retry_after_is_taken_but_never_beyond_a_minute() -> None:
    health = AccountHealth()
    health.note("cooling", "m", 0.0, 7.0, "429")
    assert health.free_in_s("m", 0.0) == 7
    health.note("cooling", "m", 0.0, 7000.0, "429")
    assert health.free_in_s("m", 0.0) == COOLING_MAX_S


def test_arrears_suspend_and_a_refused_key_removes() -> None:
    health = AccountHealth()
    health.note("suspended", "m", 0.0, None, "402")
    assert (health.status("m", SUSPENDED_S - 1), health.status("m", SUSPENDED_S)) == ("suspended", "active")
    health.note("no_access", "m2", 0.0, None, "403")
    assert (health.status("m", SUSPENDED_S), health.status("m2", SUSPENDED_S)) == ("active", "no_access")
    health.note("removed", "m", 0.0, None, "401")
    assert health.status("m", 10**9) == "removed"
    health.revive()
    assert (health.status("m2", 0.0), health.troubled) == ("active", False)


def test_where_limits_are_per_model_only_that_model_rests() -> None:
    health = AccountHealth(per_model=True)
    health.note("cooling", "m", 0.0, 5.0, "1302")
    assert (health.status("m", 1.0), health.status("n", 1.0)) == ("cooling", "active")
    assert names(Way("a", health=health), Way("b", model="n", health=health), now_s=1.0) == "b"

from dataclasses import dataclass, field

from vipcloud.routing.health import COOLING_MAX_S, SUSPENDED_S, AccountHealth
from vipcloud.routing.rules import order


@dataclass
class Way:
    name: str
    preference: int = 0
    model: str = "m"
    running: int = 0
    health: AccountHealth = field(default_factory=AccountHealth)


def names(*ways: Way, now_s: float = 0.0) -> str:
    return "".join(way.name for way in order(ways, now_s))


def cooling(until_s: float) -> AccountHealth:
    health = AccountHealth()
    health.note("cooling", "m", 0.0, until_s, "429")
    return health


def test_preference_goes_first_and_load_decides_among_equals() -> None:
    assert names(Way("c", 1), Way("b", 0, running=5), Way("a", 0, running=2)) == "abc"


def test_a_resting_account_is_left_out_while_another_is_active() -> None:
    assert names(Way("a", health=cooling(10)), Way("b", 1)) == "b"


def test_with_none_active_the_soonest_free_is_tried_first() -> None:
    assert names(Way("a", health=cooling(20)), Way("b", 1, health=cooling(10)), now_s=1) == "ba"


def test_removed_accounts_and_closed_models_are_never_tried() -> None:
    removed = AccountHealth(removed=True)
    closed = AccountHealth(closed_models={"m"})
    assert names(Way("a", health=removed), Way("b", health=closed)) == ""
    assert names(Way("a", health=removed), Way("b", model="other", health=closed)) == "b"


def test_cooling_grows_from_one_second_to_a_minute_and_a_success_ends_it() -> None:
    health = AccountHealth()
    rests = []
    for _ in range(8):
        health.note("cooling", "m", 0.0, None, "429")
        rests.append(health.free_in_s("m", 0.0))
    assert rests == [1, 2, 4, 8, 16, 32, COOLING_MAX_S, COOLING_MAX_S]
    assert health.status("m", 0.0) == "cooling"
    health.note_success("m")
    assert (health.status("m", 0.0), health.free_in_s("m", 0.0)) == ("active", 0.0)


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
    assert (health.serves("m"), health.serves("m2")) == (True, False)
    health.note("removed", "m", 0.0, None, "401")
    assert health.status("m", 10**9) == "removed"


def test_where_limits_are_per_model_only_that_model_rests() -> None:
    health = AccountHealth(per_model=True)
    health.note("cooling", "m", 0.0, 5.0, "1302")
    assert (health.status("m", 1.0), health.status("n", 1.0)) == ("cooling", "active")
    assert names(Way("a", health=health), Way("b", model="n", health=health), now_s=1.0) == "b"

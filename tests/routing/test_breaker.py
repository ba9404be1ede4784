from vipcloud.routing.breaker import Breaker
from vipcloud.settings import BreakerSettings


def breaker(**rules: float) -> Breaker:
    return Breaker(BreakerSettings(**{"jitter": 0.0, **rules}), lambda: 0.0)  # type: ignore[arg-type]


def call(one: Breaker, now_s: float, *, fails: bool) -> bool:
    """Whether the call was let through."""
    if not one.begin(now_s):
        return False
    if fails:
        one.note_failure(now_s, one.epoch)
    else:
        one.note_success(now_s, one.epoch)
    return True


def test_a_calm_one_has_nothing_to_say() -> None:
    one = breaker()
    assert one.begin(0.0)
    one.note_success(0.0, one.epoch)
    assert (one.troubled, one.state) == (False, "closed")


def test_failures_in_a_row_open_it_and_a_success_between_begins_anew() -> None:
    one = breaker(failures_in_row=3, window_calls_min=100)
    for fails in (True, True, False, True, True):
        assert call(one, 0.0, fails=fails)
    assert one.state == "closed"
    call(one, 0.0, fails=True)
    assert (one.state, one.usable(0.5), one.usable(1.0)) == ("open", False, True)


def test_a_time_out_counts_for_two() -> None:
    one = breaker(failures_in_row=4)
    one.note_failure(0.0, 0, 2)
    one.note_failure(0.0, 0, 2)
    assert one.state == "open"


def test_a_share_of_failures_opens_it_once_there_are_enough_calls() -> None:
    one = breaker(failures_in_row=100, window_calls_min=10)
    calls = 0
    while one.state == "closed":
        call(one, 0.0, fails=calls % 2 == 0)
        calls += 1
    assert calls == 11  # ten, of which five had failed, and then a success that cannot open it; and the next failure


def test_failures_of_a_former_window_do_not_count() -> None:
    one = breaker(failures_in_row=100, window_calls_min=4, window_s=10)
    for now_s in (0.0, 1.0, 2.0, 20.0):
        call(one, now_s, fails=True)
    assert one.state == "closed"


def test_a_flapping_route_costs_one_failed_call_per_interval() -> None:
    one = breaker(failures_in_row=1)
    call(one, 0.0, fails=True)
    failed_s = []
    for tick in range(1, 6_300):
        now_s = tick / 100
        if one.begin(now_s):
            one.note_failure(now_s, one.epoch)
            failed_s.append(now_s)
    assert failed_s == [1.0, 3.0, 7.0, 15.0, 31.0]


def test_intervals_grow_to_their_maximum_with_jitter() -> None:
    one = Breaker(BreakerSettings(interval_s=1, interval_max_s=4, jitter=0.5), lambda: 0.5)
    waits = []
    for _ in range(4):
        one.trip(0.0)
        waits.append(one.open_until_s)
    assert waits == [1.25, 2.5, 5.0, 5.0]


def test_a_trial_lets_one_through_at_a_time_until_its_first_token() -> None:
    one = breaker(trial_successes=2)
    one.trip(0.0)
    assert one.begin(1.0)
    assert not one.begin(1.0)
    one.note_alive(one.epoch)
    assert one.begin(1.0)
    one.note_success(1.1, one.epoch)
    one.note_success(1.2, one.epoch)
    assert (one.state, one.begin(1.2)) == ("closed", True)


def test_a_probe_that_never_ends_blocks_the_next_for_an_interval_only() -> None:
    one = breaker()
    one.trip(0.0)
    assert one.begin(1.0)
    assert (one.begin(1.9), one.begin(2.0)) == (False, True)


def test_a_verdictless_end_frees_the_place() -> None:
    one = breaker()
    one.trip(0.0)
    assert one.begin(1.0)
    one.release(one.epoch)
    assert one.begin(1.0)


def test_what_began_before_it_opened_changes_nothing() -> None:
    one = breaker(failures_in_row=1)
    before = one.epoch
    one.note_failure(0.0, before)
    assert one.state == "open"
    one.note_failure(0.0, before)
    one.note_success(0.0, before)
    assert (one.state, one.open_until_s) == ("open", 1.0)


def test_the_only_route_is_forced_one_call_at_a_time_and_a_success_frees_it() -> None:
    one = breaker()
    one.trip(0.0)
    assert (one.begin(0.1), one.force(0.1), one.force(0.1)) == (False, True, False)
    one.note_failure(0.2, one.epoch, alone=True)
    assert (one.state, one.force(0.2)) == ("open", True)
    one.note_success(0.3, one.epoch)
    assert (one.state, one.force(0.3), one.force(0.3)) == ("trial", True, True)


def test_alone_only_failures_in_a_row_count_on_trial_too() -> None:
    one = breaker(failures_in_row=3, window_calls_min=2)
    for fails in (True, False, True, False, True):
        one.begin(0.0)
        if fails:
            one.note_failure(0.0, one.epoch, alone=True)
        else:
            one.note_success(0.0, one.epoch)
    assert one.state == "closed"


def test_it_is_calm_again_a_while_after_it_closed() -> None:
    one = breaker(failures_in_row=1, trial_successes=1, window_s=30, interval_max_s=60)
    call(one, 0.0, fails=True)
    call(one, 1.0, fails=False)
    assert (one.state, one.troubled) == ("closed", True)
    call(one, 50.0, fails=False)
    assert one.troubled
    call(one, 62.0, fails=False)
    assert not one.troubled
    call(one, 63.0, fails=True)
    assert one.open_until_s == 64.0  # the first interval again


def test_it_closes_by_hand() -> None:
    one = breaker()
    one.trip(0.0)
    one.reset()
    assert (one.state, one.troubled, one.begin(0.0)) == ("closed", False, True)

"""What an account has used lately, and how long until there is room again."""

from vipcloud.simulators.throttle import Window


def test_amounts_leave_after_their_time() -> None:
    window = Window(60)
    window.add("a", 0.0, 5)
    window.add("a", 30.0, 3)
    assert [window.used("a", now_s) for now_s in (30.0, 59.9, 60.0, 90.0)] == [8, 8, 3, 0]
    assert window.used("b", 0.0) == 0


def test_waiting_is_in_whole_seconds_until_the_oldest_leaves() -> None:
    window = Window(60)
    window.add("a", 0.0, 5)
    assert window.wait_s("a", 10.0, most=10, amount=5) == 0
    assert window.wait_s("a", 10.5, most=10, amount=6) == 50
    assert window.wait_s("b", 0.0, most=10, amount=11) == 60

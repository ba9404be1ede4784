from vipcloud.routing.sticky import Sticky


def test_it_remembers_until_it_is_idle_too_long() -> None:
    sticky = Sticky(entries_max=10, idle_s=60)
    sticky.bind("a", 1, 0.0)
    assert (sticky.find("a", 60.0), sticky.find("a", 61.0), sticky.find("b", 0.0)) == (1, None, None)
    assert len(sticky) == 0


def test_it_is_bounded_and_the_longest_unused_goes_first() -> None:
    sticky = Sticky(entries_max=2, idle_s=60)
    for key in "aba":
        sticky.bind(key, key, 0.0)
    sticky.bind("c", "c", 0.0)
    assert [sticky.find(key, 0.0) for key in "abc"] == ["a", None, "c"]


def test_what_is_idle_is_let_go_as_new_ones_come() -> None:
    sticky = Sticky(entries_max=10_000, idle_s=60)
    for number in range(1000):
        sticky.bind(number, number, float(number))
    assert len(sticky) <= 62

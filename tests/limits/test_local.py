"""The guard in memory: what was counted before it began goes on."""

import pytest
from desk import Desk, meter

from vipcloud.errors import RateLimited
from vipcloud.limits.guard import Subject
from vipcloud.limits.local import LocalGuard
from vipcloud.limits.rules import DAY_S


async def test_a_days_count_from_before_goes_on_and_is_asked_for_once() -> None:
    asked: list[tuple[str, int]] = []
    day = 0

    def before(meter_id: str, asked_day: int) -> int:
        asked.append((meter_id, asked_day))
        return 3 if meter_id == "a" and asked_day == day else 0

    desk = Desk(lambda clock, chance: LocalGuard(clock, 600, chance, before=before))
    day = int(desk.clock.wall_s() // DAY_S)
    limit = meter(rpd=5, rpm=9)
    standing = await desk.guard.standing(Subject((limit,)), desk.clock.wall_s())
    assert (standing.remaining, standing.day_remaining) == (9, 2), "a minute's window begins empty"
    assert [(await desk.admit(limit)).day_remaining for _ in range(2)] == [1, 0]
    with pytest.raises(RateLimited):
        await desk.admit(limit)
    assert asked == [("a", day)]
    assert (await desk.admit(meter("b", rpd=1))).day_remaining == 0
    desk.clock.advance(DAY_S)
    assert (await desk.admit(limit)).day_remaining == 4


async def test_a_limit_that_was_used_up_before_is_refused_at_the_first_request() -> None:
    desk = Desk(lambda clock, chance: LocalGuard(clock, 600, chance, before=lambda _id, _day: 5))
    with pytest.raises(RateLimited):
        await desk.admit(meter(rpd=5))

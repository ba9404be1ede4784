"""How late the event loop is, and who is turned away for it."""

import asyncio
import time
from typing import Any

import pytest
from front_door import House

from vipcloud.errors import Overloaded
from vipcloud.gateway.pulse import Pulse
from vipcloud.settings import DemoSettings, OverloadSettings, Settings, TierSettings
from vipcloud.telemetry.figures import Figures

TIERS = ("demo", "payg", "pro", "enterprise")


def turned_away(pulse: Pulse, tiers: tuple[str, ...] = TIERS) -> list[str]:
    found = []
    for tier in tiers:
        try:
            pulse.check(tier)
        except Overloaded:
            found.append(tier)
    return found


def beaten(pulse: Pulse, *late_s: float) -> Pulse:
    for each in late_s:
        pulse.beat(each)
    return pulse


@pytest.fixture
def pulse() -> Pulse:
    return Pulse.of(Settings(), Figures())


@pytest.mark.parametrize(
    ("lag_s", "away"),
    [(0.0, 0), (0.19, 0), (0.2, 1), (0.49, 1), (0.5, 2), (1.0, 3), (1.99, 3), (2.0, 4), (60.0, 4)],
)
def test_the_later_the_loop_the_more_tiers_are_turned_away(pulse: Pulse, lag_s: float, away: int) -> None:
    beaten(pulse, lag_s, lag_s, lag_s)
    assert turned_away(pulse) == list(TIERS[:away])
    assert pulse.high == (away > 0)


def test_one_late_beat_is_no_overload_and_one_in_time_ends_it(pulse: Pulse) -> None:
    assert turned_away(beaten(pulse, 5.0)) == []
    assert turned_away(beaten(pulse, 5.0)) == []
    assert turned_away(beaten(pulse, 5.0)) == list(TIERS)
    assert turned_away(beaten(pulse, 0.01)) == []
    assert not pulse.high
    assert pulse.lags_ms.total == pytest.approx(15_010)


def test_a_tier_of_the_settings_own_has_its_own_mark_and_an_unknown_one_is_payg() -> None:
    tiers = {**Settings().tiers, "gold": TierSettings(shed_lag_s=0), "tin": TierSettings(shed_lag_s=0.1)}
    figures = Figures()
    pulse = Pulse.of(Settings(tiers=tiers, demo=DemoSettings(shed_lag_s=0)), figures)
    beaten(pulse, 0.3, 0.3, 0.3)
    assert turned_away(pulse, ("gold", "tin", "demo", "lead")) == ["tin"]
    beaten(pulse, 0.7, 0.7, 0.7)
    assert turned_away(pulse, ("gold", "tin", "demo", "lead")) == ["tin", "lead"]
    assert figures.turned_away == {"tin": 2, "payg": 1}


def test_callers_are_told_to_come_back_at_different_moments() -> None:
    chances = iter([0.0, 0.3, 0.5, 0.999])
    pulse = Pulse(OverloadSettings(beats_in_row=1), {"payg": 0.1}, Figures(), lambda: next(chances))
    pulse.beat(1.0)
    told = []
    for _ in range(4):
        with pytest.raises(Overloaded) as raised:
            pulse.check("payg")
        told.append(dict(raised.value.headers()))
    assert [headers["retry-after"] for headers in told] == ["1", "2", "3", "5"]
    assert {headers["x-should-retry"] for headers in told} == {"true"}


@pytest.mark.parametrize(("mark_s", "high"), [(60.0, False), (0.01, True)])
async def test_it_times_the_loop(mark_s: float, high: bool) -> None:
    pulse = Pulse(OverloadSettings(beat_interval_s=0.001, beats_in_row=2), {"payg": mark_s}, Figures())
    pulse.start()
    for _ in range(8):  # every turn of the loop takes so long
        time.sleep(0.03)  # noqa: ASYNC251
        await asyncio.sleep(0)
    assert pulse.high == high
    assert pulse.lag_s > 0.01
    pulse.close()
    beats = sum(pulse.lags_ms.counts)
    await asyncio.sleep(0.005)
    assert sum(pulse.lags_ms.counts) == beats


async def late(house: House, lag_s: float) -> None:
    """The loop is that late from now on."""
    pulse = house.gateway.parts.pulse
    pulse.close()
    beaten(pulse, *[lag_s] * house.gateway.parts.settings.overload.beats_in_row)


async def test_a_late_gateway_sheds_new_work_by_tier_and_keeps_what_is_open(open_house: Any) -> None:
    house: House = await open_house()
    keys = {tier: house.new_key(tier=tier) for tier in ("payg", "pro", "enterprise")}
    async with house.live("Count to 20 [[pace_ms=20]]") as answer:
        await answer.until(2)
        for lag_s, served in ((0.3, 3), (0.7, 2), (1.5, 1), (3.0, 0)):
            await late(house, lag_s)
            replies = {}
            for tier, (key, account_id) in keys.items():
                with house.using(key, account_id):
                    replies[tier] = await house.chat()
            refused = [reply for reply in replies.values() if reply.status != 200]
            assert len(refused) == 3 - served
            assert [reply.status for reply in replies.values()] == [503] * (3 - served) + [200] * served
            for reply in refused:
                assert reply.error["code"] == "overloaded"
                assert 1 <= int(reply.headers["retry-after"]) <= 5
                assert reply.headers["x-should-retry"] == "true"
        whole = await answer.rest()
        assert whole.done
    assert (await house.ask("GET", "/healthz")).status == 200
    assert house.gateway.parts.figures.turned_away == {"payg": 3, "pro": 2, "enterprise": 1}
    assert len(await house.settled(7)) == 7, "who is turned away is not charged"


async def test_the_demo_is_shed_first(open_house: Any) -> None:
    house: House = await open_house(console={"enabled": True})
    await late(house, 0.3)
    body = house.body("Hello", "glm-4-flash", {})
    demo = await house.ask("POST", "/demo/chat/completions", body, {"Content-Type": "application/json"})
    assert (demo.status, demo.error["code"]) == (503, "overloaded")
    assert (await house.chat()).status == 200
    await late(house, 0.0)
    demo = await house.ask("POST", "/demo/chat/completions", body, {"Content-Type": "application/json"})
    assert demo.status == 200

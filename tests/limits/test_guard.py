"""What every guard must do, wherever it keeps its counts."""

import pytest
from desk import DOLLAR, FREE, PRICE, Desk, dollars, key, meter

from vipcloud.errors import BudgetExceeded, InsufficientCredit, RateLimited
from vipcloud.limits.caps import Caps
from vipcloud.limits.guard import Purse
from vipcloud.limits.rules import Ask, Standing
from vipcloud.money import NANO, NanoUSD, PicoUSDPerToken


async def test_exactly_n_requests_pass_in_any_sixty_seconds(desk: Desk) -> None:
    limit = meter(rpm=3)
    assert [(await desk.admit(limit)).remaining_requests for _ in range(3)] == [2, 1, 0]
    with pytest.raises(RateLimited, match=r"Rate limit reached: 3 requests per minute\.") as refused:
        await desk.admit(limit)
    assert refused.value.retry_after_s == pytest.approx(60)
    desk.clock.advance(59.9)
    with pytest.raises(RateLimited) as refused:
        await desk.admit(limit)
    assert refused.value.retry_after_s == pytest.approx(0.1)
    desk.clock.advance(0.1)
    assert (await desk.admit(limit)).remaining_requests == 2


async def test_a_permit_tells_how_long_until_the_oldest_leaves_the_minute(desk: Desk) -> None:
    limit = meter(rpm=3)
    assert (await desk.admit(limit)).reset_s == pytest.approx(60)
    desk.clock.advance(20)
    permit = await desk.admit(limit)
    assert (permit.limit_requests, permit.remaining_requests) == (3, 1)
    assert permit.reset_s == pytest.approx(40)


async def test_a_refused_caller_is_told_to_come_back_a_little_later_than_the_next(desk: Desk) -> None:
    await desk.admit(meter(rpm=1))
    for desk.chance in (0.0, 0.5, 0.999):
        with pytest.raises(RateLimited) as refused:
            await desk.admit(meter(rpm=1))
        assert refused.value.retry_after_s == pytest.approx(60), "SDKs wait no longer than a minute"
    desk.clock.advance(20)
    for desk.chance, wait_s in ((0.0, 40), (0.5, 42), (0.999, 43.996)):
        with pytest.raises(RateLimited) as refused:
            await desk.admit(meter(rpm=1))
        assert refused.value.retry_after_s == pytest.approx(wait_s)


async def test_a_lowered_limit_says_when_there_are_fewer_than_that(desk: Desk) -> None:
    for _ in range(5):
        await desk.admit(meter(rpm=5))
        desk.clock.advance(1)
    with pytest.raises(RateLimited) as refused:
        await desk.admit(meter(rpm=2))
    assert refused.value.retry_after_s == pytest.approx(58), "until four of the five have left"


async def test_the_day_count_begins_anew_at_midnight_utc(desk: Desk) -> None:
    limit = meter(rpd=2)
    permit = await desk.admit(limit)
    assert (permit.day_limit, permit.day_remaining) == (2, 1)
    await desk.admit(limit)
    with pytest.raises(RateLimited, match=r"2 requests per day \(UTC\)") as refused:
        await desk.admit(limit)
    assert refused.value.retry_after_s is not None
    desk.clock.advance(refused.value.retry_after_s)
    await desk.admit(limit)


async def test_a_place_comes_back_when_its_request_settles_or_its_lease_lapses(desk: Desk) -> None:
    limit = meter(concurrency=2)
    first = await desk.admit(limit)
    await desk.admit(limit)
    with pytest.raises(RateLimited, match="2 requests at the same time") as refused:
        await desk.admit(limit)
    assert refused.value.retry_after_s == 1
    await desk.settle(first)
    await desk.admit(limit)
    with pytest.raises(RateLimited):
        await desk.admit(limit)
    desk.clock.advance(599)
    with pytest.raises(RateLimited):
        await desk.admit(limit)
    desk.clock.advance(1)
    await desk.admit(limit)


async def test_every_leg_must_pass_and_a_refusal_by_any_consumes_nothing(desk: Desk) -> None:
    account, address, demo = meter("a", rpm=9), meter("ip", rpm=9, rpd=9, concurrency=9), meter("demo", rpd=9)
    before = [await desk.standing(leg) for leg in (account, address, demo)]
    full = meter("full", rpm=1)
    await desk.admit(full)
    for legs in ((account, address, demo, full), (full, account, address, demo), (account, full, demo, address)):
        with pytest.raises(RateLimited):
            await desk.admit(*legs)
    with pytest.raises(InsufficientCredit):
        await desk.admit(account, address, demo, dollars(0.5), ask=DOLLAR)
    assert [await desk.standing(leg) for leg in (account, address, demo)] == before
    for _ in range(9):
        await desk.admit(account, address, demo)


async def test_a_refusal_by_one_purse_holds_nothing_in_the_other(desk: Desk) -> None:
    for legs in ((dollars(5), key(total_nanousd=NANO // 2)), (dollars(0.5), key(total_nanousd=5 * NANO))):
        with pytest.raises(InsufficientCredit):
            await desk.admit(*legs, ask=DOLLAR)
    assert (await desk.admit(dollars(1), key(total_nanousd=NANO), ask=DOLLAR)).held_nanousd == NANO


async def test_the_meter_with_the_fewest_left_is_told(desk: Desk) -> None:
    permit = await desk.admit(meter("a", rpm=60, rpd=9), meter("k", rpm=5), meter("ip", rpm=70, rpd=3))
    assert (permit.limit_requests, permit.remaining_requests) == (5, 4)
    assert (permit.day_limit, permit.day_remaining) == (3, 2)


async def test_standing_is_told_without_using_anything_up(desk: Desk) -> None:
    limit = meter(rpm=5, rpd=7)
    assert await desk.standing(limit) == Standing(5, 5, 0.0, 7, 7)
    await desk.admit(limit)
    desk.clock.advance(20)
    for _ in range(3):
        standing = await desk.standing(limit, meter("b", rpm=60))
        assert (standing.limit, standing.remaining, standing.day_limit, standing.day_remaining) == (5, 4, 7, 6)
        assert standing.reset_s == pytest.approx(40)
    assert await desk.standing(meter()) == Standing()


async def test_credit_held_or_charged_is_not_there_for_the_next(desk: Desk) -> None:
    funds, ask = dollars(5), Ask(NanoUSD(2 * NANO), PicoUSDPerToken(0), 100)
    first = await desk.admit(funds, ask=ask)
    await desk.admit(funds, ask=ask)
    with pytest.raises(InsufficientCredit):
        await desk.admit(funds, ask=ask)
    await desk.settle(first, 1)
    with pytest.raises(InsufficientCredit):
        await desk.admit(funds, ask=Ask(NanoUSD(3 * NANO), PicoUSDPerToken(0), 1))
    assert (await desk.admit(funds, ask=ask)).held_nanousd == 2 * NANO


async def test_a_later_grant_counts_and_a_later_reading_of_charges_does_not_count_twice(desk: Desk) -> None:
    ask = Ask(NanoUSD(5 * NANO), PicoUSDPerToken(0), 100)
    await desk.settle(await desk.admit(dollars(5), ask=ask), 5 * NANO)
    with pytest.raises(InsufficientCredit):
        await desk.admit(dollars(5, charged_nanousd=5 * NANO), ask=ask)
    await desk.admit(dollars(10, charged_nanousd=5 * NANO), ask=ask)


async def test_what_was_booked_when_a_purse_is_first_seen_is_its_start(desk: Desk) -> None:
    with pytest.raises(InsufficientCredit):
        await desk.admit(dollars(5, charged_nanousd=4 * NANO + 1), ask=DOLLAR)
    today = int(desk.clock.wall_s() // 86400)
    capped = dollars(5, "b", charged_nanousd=NANO, caps=Caps(daily_nanousd=2 * NANO), spent={today: NANO})
    await desk.admit(capped, ask=DOLLAR)
    with pytest.raises(BudgetExceeded):
        await desk.admit(capped, ask=DOLLAR)


async def test_a_small_credit_lowers_the_answer_instead_of_refusing_it(desk: Desk) -> None:
    permit = await desk.admit(Purse("a", 500_000, 0), ask=Ask(NanoUSD(100_000), PRICE, 4096))
    assert (permit.output_tokens, permit.held_nanousd) == (400, 500_000)
    with pytest.raises(InsufficientCredit, match="Your credit"):
        await desk.admit(Purse("b", 115_999, 0), ask=Ask(NanoUSD(100_000), PRICE, 4096))
    assert (await desk.admit(Purse("c", 116_000, 0), ask=Ask(NanoUSD(100_000), PRICE, 4096))).output_tokens == 16


@pytest.mark.parametrize("of_key", [False, True], ids=["account", "key"])
@pytest.mark.parametrize(
    ("cap", "days"),
    [("daily_nanousd", 1), ("monthly_nanousd", 13), ("total_nanousd", None)],
    ids=["day", "month", "all"],
)
async def test_a_cap_holds_until_its_time_is_over(desk: Desk, of_key: bool, cap: str, days: int | None) -> None:
    """The clock begins on the 18th of November 2026."""
    capped = key(**{cap: 2 * NANO}) if of_key else dollars(100, caps=Caps(**{cap: 2 * NANO}))
    legs = (dollars(100), capped) if of_key else (capped,)
    for _ in range(2):
        await desk.settle(await desk.admit(*legs, ask=DOLLAR), NANO)
    whose = "this key" if of_key else "the account"
    with pytest.raises(BudgetExceeded, match=f"The spending limit of {whose} leaves") as refused:
        await desk.admit(*legs, ask=DOLLAR)
    assert (refused.value.status, refused.value.retryable) == (402, False)
    for _ in range(40):
        desk.clock.advance(43_200)
        if days is not None and int(desk.clock.wall_s() // 86400) - 20_775 >= days:
            await desk.admit(*legs, ask=DOLLAR)
            return
        with pytest.raises(BudgetExceeded):
            await desk.admit(*legs, ask=DOLLAR)
    assert days is None


async def test_a_cap_set_later_knows_what_was_spent_before(desk: Desk) -> None:
    await desk.settle(await desk.admit(dollars(9), ask=DOLLAR), NANO)
    with pytest.raises(BudgetExceeded):
        await desk.admit(dollars(9, caps=Caps(daily_nanousd=NANO)), ask=DOLLAR)


async def test_a_long_answer_is_held_for_in_slices(desk: Desk) -> None:
    funds, ask = Purse("a", 1_100_000, 0), Ask(NanoUSD(100_000), PRICE, 600, slice_tokens=200)
    first = await desk.admit(funds, ask=ask)
    assert (first.output_tokens, first.held_tokens, first.held_nanousd) == (600, 200, 300_000)
    second = await desk.admit(funds, ask=ask)
    assert second.held_nanousd == 300_000
    assert await desk.extend(first, 200)
    assert (first.held_tokens, first.held_nanousd) == (400, 500_000)
    assert await desk.extend(second, 200)
    assert not await desk.extend(first, 200), "the credit is held by both"
    assert (first.held_tokens, first.held_nanousd) == (400, 500_000)
    await desk.settle(second, 400_000)
    assert await desk.extend(first, 5000), "up to what was asked for"
    assert (first.held_tokens, first.held_nanousd) == (600, 700_000)
    await desk.settle(first, 500_000)
    with pytest.raises(InsufficientCredit):
        await desk.admit(funds, ask=Ask(NanoUSD(199_001), PRICE, 1))


async def test_a_free_request_needs_no_purse(desk: Desk) -> None:
    permit = await desk.admit(dollars(0), ask=FREE)
    assert permit.held_nanousd == 0
    await desk.settle(permit)
    await desk.settle(await desk.admit(ask=FREE))


async def test_a_permit_is_settled_once(desk: Desk) -> None:
    permit = await desk.admit(dollars(1), ask=DOLLAR)
    with pytest.raises(AssertionError):
        await desk.settle(permit, NANO + 1)
    await desk.settle(permit)
    with pytest.raises(AssertionError):
        await desk.settle(permit)

"""A request that goes on with another price: its hold changes, and nothing else of what was admitted."""

import pytest
from desk import PRICE, Desk, dollars, meter

from vipcloud.errors import InsufficientCredit
from vipcloud.limits.rules import Ask
from vipcloud.money import NANO, NanoUSD


def ask(amount: float, tokens: int = 100) -> Ask:
    return Ask(NanoUSD(int(amount * NANO)), PRICE, tokens)


async def test_the_hold_becomes_that_of_the_new_ask_and_the_request_counts_once(desk: Desk) -> None:
    purse, one = dollars(1), meter(rpm=5, concurrency=5)
    permit = await desk.admit(one, purse, ask=ask(0.2))
    await desk.guard.rehold(permit, ask(0.7, 300))
    assert permit.held_nanousd == ask(0.7, 300).hold(300)
    assert (permit.output_tokens, permit.held_tokens) == (300, 300)
    assert (await desk.standing(one)).remaining == 4
    with pytest.raises(InsufficientCredit):
        await desk.admit(purse, ask=ask(0.4))
    await desk.settle(permit, permit.held_nanousd)
    with pytest.raises(InsufficientCredit):
        await desk.admit(purse, ask=ask(0.4))
    await desk.settle(await desk.admit(purse, ask=ask(0.2)))


async def test_what_the_credit_does_not_cover_leaves_the_hold_as_it_was(desk: Desk) -> None:
    purse = dollars(1)
    permit = await desk.admit(purse, ask=ask(0.2))
    held = permit.held_nanousd
    with pytest.raises(InsufficientCredit):
        await desk.guard.rehold(permit, ask(1.5))
    assert permit.held_nanousd == held
    other = await desk.admit(purse, ask=ask(0.7))
    await desk.settle(other)
    await desk.settle(permit, held)


async def test_a_free_request_may_become_a_paid_one_and_back(desk: Desk) -> None:
    purse = dollars(1)
    permit = await desk.admit(purse)
    await desk.guard.rehold(permit, ask(0.9))
    with pytest.raises(InsufficientCredit):
        await desk.admit(purse, ask=ask(0.2))
    await desk.guard.rehold(permit, Ask(NanoUSD(0), 0, 10))
    assert permit.held_nanousd == 0
    await desk.settle(await desk.admit(purse, ask=ask(0.9)))
    await desk.settle(permit)

"""Every number of a settlement stands in its own field: what is built by place shows if two change places."""

import msgspec
import pytest
from front_door import House

from vipcloud.accounts.directory import Account, Principal
from vipcloud.clock import ManualClock
from vipcloud.dialects.tokens import Tokens
from vipcloud.gateway.bill import Bill
from vipcloud.ledger.records import Settled
from vipcloud.limits.guard import Permit, Subject
from vipcloud.limits.rules import Ask
from vipcloud.money import NanoUSD

ENDING = [
    "model",
    "provider",
    "outcome",
    "tier",
    "duration_ms",
    "first_token_ms",
    "attempts",
    "prompt",
    "cached",
    "completion",
    "reasoning",
    "estimated",
    "charge_nanousd",
    "cost_nanousd",
    "variance_nanousd",
]
COUNTS = {"prompt_tokens": 1100, "cached_tokens": 220, "completion_tokens": 330, "reasoning_tokens": 44}


class Kept:
    """Keeps what a watcher is told."""

    def __init__(self) -> None:
        self.told: list[tuple[Settled, str]] = []

    def settled(self, record: Settled, tier: str) -> None:
        self.told.append((record, tier))


@pytest.mark.parametrize("covered", [True, False], ids=["within the hold", "above the hold"])
async def test_each_value_has_its_own_field(open_house, clock: ManualClock, covered: bool) -> None:
    house: House = await open_house(clock=clock)
    parts, kept = house.gateway.parts, Kept()
    parts.figures._watchers = (kept,)
    model = parts.catalog.models["deepseek-chat"]
    assert model.prices is not None
    started_s = clock.wall_s()
    price = model.prices.at(started_s)
    (way, *_) = parts.upstreams._pools[model.id].ways
    account = Account(
        id="acct_x", tier="pro", rpm=0, rpd=0, concurrency=0, suspended=False, granted_nanousd=0, charged_nanousd=0
    )
    held = NanoUSD(9_000_000 if covered else 7)
    permit = Permit("chatcmpl-x", Subject(()), Ask(held, 0, 400, 0), 1, held, 400, 400)
    bill = Bill(
        parts,
        Principal("key_x", account, 0),
        model,
        price,
        permit,
        streamed=True,
        started_s=started_s,
        opened_s=clock.monotonic_s(),
        claim=None,
    )
    bill.way, bill.attempts = way, 5
    clock.advance(0.25)
    bill.first_token_s = clock.monotonic_s()
    clock.advance(2)

    bill.settle_tokens(
        "interrupted", Tokens(1100, 330, 220, 0, 44), estimated=True, finish_reason="length", error_code="code_x"
    )

    costs = way.candidate.costs.at(started_s)
    cost = ((1100 - 220) * costs.input + 220 * costs.cached_input + 330 * costs.output) // 1000
    whole = ((1100 - 220) * price.input + 220 * price.cached_input + 330 * price.output) // 1000
    money = {
        "charge_nanousd": whole if covered else held,
        "cost_nanousd": cost,
        "variance_nanousd": 0 if covered else cost - held,
    }
    times = {"duration_ms": 2250, "first_token_ms": 250, "attempts": 5}
    which = {"model": "deepseek-chat", "provider": way.candidate.provider.id, "outcome": "interrupted"}
    ((record, tier),) = kept.told
    assert msgspec.structs.asdict(record) == {
        "request_id": "chatcmpl-x",
        "account_id": "acct_x",
        "key_id": "key_x",
        "upstream_model": way.candidate.upstream_model,
        "streamed": True,
        "estimated": True,
        "started_at": started_s,
        "held_nanousd": held,
        "price_version": price.version,
        "finish_reason": "length",
        "error_code": "code_x",
        **which,
        **COUNTS,
        **times,
        **money,
    }
    assert tier == "pro"
    (ending,) = parts.figures._waiting
    assert {name: getattr(ending, name) for name in ENDING} == {
        "tier": "pro",
        "estimated": True,
        **which,
        **{name.removesuffix("_tokens"): count for name, count in COUNTS.items()},
        **times,
        **money,
    }
    numbers = [held, cost, whole, cost - held, *COUNTS.values(), *times.values()]
    assert len(set(numbers)) == len(numbers), "or two could change places"
    parts.journal.flush()


async def test_an_unstreamed_answers_first_token_comes_with_its_last(open_house, clock: ManualClock) -> None:
    """The figures leave it out: it says nothing of how soon one comes."""
    house: House = await open_house(clock=clock)
    kept = Kept()
    house.gateway.parts.figures._watchers = (kept,)
    await house.chat()
    ((record, _),) = kept.told
    (ending,) = house.gateway.parts.figures._waiting
    assert record.first_token_ms == record.duration_ms
    assert ending.first_token_ms is None

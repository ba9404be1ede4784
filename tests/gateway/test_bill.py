"""Who pays what: each row of the money table of docs/architecture.md, streamed and not, by an oracle in fractions.

`front_door` checks after every test, these and all others, that no hold is left over, that the guard has charged what
the books say, and that each charge has its usage row.
"""

import json
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import pytest
from front_door import House, Reply, charge

from vipcloud.metering import vocabulary
from vipcloud.providers.catalog_rows import Vocabulary

MODEL = "deepseek-chat"
TEXT = "Count to 30"  # the answer is "1, 2, …": four characters a number, and their tokens one each


def estimated_tokens(text: str, by: Vocabulary = "deepseek") -> int:
    """A count made here; `tests/metering/test_vocabulary.py` holds it against the real one."""
    return vocabulary.guess(text, by)


def expect(house: House, request_id: str, outcome: str, *, stream: bool, delivered: str | None = None) -> None:
    """The request is booked with `outcome`; it cost what was `delivered`, counted here, and nothing if that is None."""
    row = house.usage(request_id)
    assert row is not None
    assert (row.outcome, row.streamed) == (outcome, stream), row
    if delivered is None:
        assert (row.prompt_tokens, row.completion_tokens, row.charge_nanousd, row.cost_nanousd) == (0, 0, 0, 0)
        return
    assert row.estimated
    assert row.completion_tokens == estimated_tokens(delivered)
    assert row.charge_nanousd == charge(MODEL, row.prompt_tokens, row.completion_tokens) > 0


STREAM = pytest.mark.parametrize("stream", [False, True], ids=["unary", "stream"])


@STREAM
@pytest.mark.parametrize(("fields", "reason"), [({}, "stop"), ({"max_tokens": 7}, "length")])
async def test_complete_costs_the_upstreams_count(house: House, stream: bool, fields: dict, reason: str) -> None:
    reply = await house.chat(TEXT, stream=stream, **fields)
    choice = (reply.chunks[-1] if stream else reply.json)["choices"][0]
    assert choice["finish_reason"] == reason
    row = house.usage(reply.request_id)
    assert row is not None
    assert (row.outcome, row.estimated, row.streamed) == ("complete", False, stream)
    assert row.completion_tokens == (7 if reason == "length" else reply.usage["completion_tokens"])
    assert row.charge_nanousd == charge(MODEL, row.prompt_tokens, row.completion_tokens)


@STREAM
@pytest.mark.parametrize("model", ["deepseek-chat", "glm-4-air", "glm-4-flash"])
@pytest.mark.parametrize("fields", [{}, {"stream_options": {"include_usage": True}}])
async def test_every_answer_says_what_it_cost(house: House, stream: bool, model: str, fields: dict) -> None:
    reply = await house.chat(TEXT, model, stream=stream, **(fields if stream else {}))
    row = house.usage(reply.request_id)
    assert row is not None
    told = json.loads(reply.body, parse_float=Decimal) if not stream else None
    usage = told["usage"] if told else exact_usage(reply)
    assert row.charge_nanousd == charge(model, row.prompt_tokens, row.completion_tokens)
    assert usage["cost"] * 1_000_000_000 == row.charge_nanousd
    assert usage["cost_details"]["upstream_inference_cost"] * 1_000_000_000 == row.cost_nanousd


def exact_usage(reply: Reply) -> dict:
    """The usage of a stream, its numbers as they were written."""
    told = [json.loads(data, parse_float=Decimal) for data in reply.data if data != "[DONE]"]
    (usage,) = [chunk["usage"] for chunk in told if chunk.get("usage")]
    return usage


@pytest.mark.parametrize("model", ["deepseek-chat", "deepseek-reasoner", "glm-4-air", "glm-4-plus"])
async def test_the_same_answer_costs_the_same_streamed_or_not(house: House, model: str) -> None:
    whole, parts = await house.chat(TEXT, model), await house.stream(TEXT, model)
    assert whole.text == parts.text
    assert whole.usage["cost"] == parts.usage["cost"] > 0


async def test_cached_tokens_cost_the_customer_the_same_and_us_less(house: House) -> None:
    messages = [{"role": "system", "content": "Be brief. " * 60}, {"role": "user", "content": "Hello"}]
    first, second = [await house.chat(messages=messages) for _ in range(2)]
    before, after = house.usage(first.request_id), house.usage(second.request_id)
    assert before is not None
    assert after is not None
    assert (before.cached_tokens, after.cached_tokens > 0) == (0, True)
    assert second.usage["prompt_tokens_details"]["cached_tokens"] == after.cached_tokens
    assert after.charge_nanousd == before.charge_nanousd
    assert after.cost_nanousd < before.cost_nanousd


BEIJING = timezone(timedelta(hours=8))


async def test_the_hour_at_which_a_request_begins_decides_what_it_costs_us(open_house, clock) -> None:
    house: House = await open_house(clock=clock)
    costs = []
    for moment, per_million in (
        (datetime(2026, 11, 25, 8, 59, 59, tzinfo=BEIJING), ("0.15", "0.6")),
        (datetime(2026, 11, 25, 9, 0, 0, tzinfo=BEIJING), ("0.30", "1.2")),
        (datetime(2026, 11, 25, 18, 0, 0, tzinfo=BEIJING), ("0.15", "0.6")),
    ):
        clock.advance(moment.timestamp() - clock.wall_s())
        reply = await house.chat(TEXT)
        assert reply.status == 200, reply.body
        row = house.usage(reply.request_id)
        assert row is not None
        assert row.cached_tokens == 0
        price_in, price_out = (Fraction(dollars) / 1_000_000 for dollars in per_million)
        exact = (row.prompt_tokens * price_in + row.completion_tokens * price_out) * 1_000_000_000
        assert row.cost_nanousd == exact // 1
        assert row.charge_nanousd == charge(MODEL, row.prompt_tokens, row.completion_tokens)
        costs.append(row.cost_nanousd)
    assert costs[0] == costs[2] < costs[1]


CHANGING = """
[models.glm-4-air]
price = [
  { input = "0.16", output = "0.16" },
  { input = "1.6", output = "1.6", effective = 2026-12-01T00:00:00Z },
]
"""


async def test_a_price_changes_at_its_moment_without_a_reload(open_house, clock, tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_text(CHANGING)
    house: House = await open_house(clock=clock, gateway={"catalog": str(tmp_path / "own.toml")})
    clock.advance(datetime(2026, 11, 30, 23, 59, 59, tzinfo=UTC).timestamp() - clock.wall_s())
    charges = []
    for _ in range(2):
        shown = (await house.ask("GET", "/v1/models/glm-4-air")).json["pricing"]["completion"]
        row = house.usage((await house.chat(TEXT, "glm-4-air")).request_id)
        assert row is not None
        charges.append((shown, row.charge_nanousd * 1000 / (row.prompt_tokens + row.completion_tokens)))
        clock.advance(1)
    assert charges == [("0.00000016", 160_000), ("0.0000016", 1_600_000)]


TIERED = """
[models.glm-4-air.price]
input = "0.1"
output = "0.1"
tiers = [{ completion_tokens_min = 20, input = "1", output = "1" }]
"""


@pytest.mark.parametrize(("most", "dear"), [(19, False), (20, True), (None, True)])
async def test_a_hold_covers_the_dearest_tier_that_an_answer_may_reach(
    open_house, tmp_path: Path, most: int | None, dear: bool
) -> None:
    """A charge is never above its hold, so one that is whole had a hold that was large enough."""
    (tmp_path / "own.toml").write_text(TIERED)
    house: House = await open_house(gateway={"catalog": str(tmp_path / "own.toml")})
    row = house.usage((await house.chat(TEXT, "glm-4-air", **({"max_tokens": most} if most else {}))).request_id)
    assert row is not None
    assert (row.completion_tokens >= 20) == dear
    assert row.charge_nanousd == (row.prompt_tokens + row.completion_tokens) * (1000 if dear else 100)


async def test_reasoning_is_output(house: House) -> None:
    reply = await house.stream("[[reasoning_tokens=40 tokens=10]]", "deepseek-reasoner")
    row = house.usage(reply.request_id)
    assert row is not None
    assert (row.completion_tokens, row.reasoning_tokens) == (50, 40)
    assert row.charge_nanousd == charge("deepseek-reasoner", row.prompt_tokens, 50)


@STREAM
@pytest.mark.parametrize(
    ("fault", "status"),
    [("code:risk", 400), ("status:500", 502), ("html:502", 502), ("status:429", 429), ("cut:0", 502)],
)
async def test_a_failure_before_any_content_costs_nothing(house: House, stream: bool, fault: str, status: int) -> None:
    reply = await house.chat(f"{TEXT} [[fault={fault}]]", stream=stream)
    assert reply.status == status, reply.body
    expect(house, reply.request_id, "upstream_failed", stream=stream)
    assert house.credit() == 5_000_000_000


@STREAM
async def test_a_client_that_leaves_before_the_first_content_pays_nothing(house: House, stream: bool) -> None:
    async with house.sent(f"{TEXT} [[first_token_ms=60000]]", stream=stream):
        await house.upstream.called()
    (row,) = await house.settled()
    expect(house, row.request_id, "client_gone", stream=stream)
    assert (await house.upstream.ended())[0]["outcome"] == "cancelled"


@pytest.mark.parametrize("events", [2, 5, 20])
async def test_a_client_that_leaves_later_pays_for_what_it_was_sent(house: House, events: int) -> None:
    async with house.live(f"{TEXT} [[fault=stall:{events}]]") as live:
        body = await live.until(events + (1 if events else 0))
        said = Reply(200, live.headers, body).text
    (row,) = await house.settled()
    assert row.request_id == live.request_id
    expect(house, row.request_id, "client_gone", stream=True, delivered=said)


@pytest.mark.parametrize("fault", ["cut:9", "eof:9", "malformed:9", "error:9"])
async def test_a_stream_that_breaks_off_costs_what_was_delivered_and_says_so(house: House, fault: str) -> None:
    reply = await house.stream(f"{TEXT} [[fault={fault}]]")
    assert reply.status == 200
    assert reply.stream_error is not None
    assert (reply.stream_error["code"], reply.stream_error["type"]) == ("upstream_interrupted", "upstream_error")
    assert reply.text
    expect(house, reply.request_id, "interrupted", stream=True, delivered=reply.text)


@pytest.mark.parametrize("fault", ["cut", "eof"])
async def test_an_unstreamed_answer_that_breaks_off_costs_nothing(house: House, fault: str) -> None:
    reply = await house.chat(f"{TEXT} [[fault={fault}]]")
    assert (reply.status, reply.error["code"]) == (502, "upstream_error")
    expect(house, reply.request_id, "upstream_failed", stream=False)


async def test_a_stream_that_stalls_costs_what_was_delivered(open_house) -> None:
    house: House = await open_house(timeouts={"idle_s": 0.05})
    reply = await house.stream(f"{TEXT} [[fault=stall:4]]")
    assert reply.stream_error is not None
    assert (reply.stream_error["code"], reply.done) == ("upstream_timeout", False)
    expect(house, reply.request_id, "interrupted", stream=True, delivered=reply.text)


async def test_a_stream_that_the_drain_cuts_off_costs_what_was_delivered(house: House) -> None:
    async with house.live(f"{TEXT} [[fault=stall:6]]") as live:
        await live.until(7)
        await house.gateway.server.close(0)
        reply = await live.rest()
    assert reply.stream_error is not None
    assert reply.stream_error["code"] == "service_unavailable"
    expect(house, reply.request_id, "restarted", stream=True, delivered=reply.text)


@STREAM
async def test_an_answer_that_the_drain_cuts_off_before_any_content_costs_nothing(house: House, stream: bool) -> None:
    async with house.sent(f"{TEXT} [[first_token_ms=60000]]", stream=stream) as wire:
        await house.upstream.called()
        await house.gateway.server.close(0)
        reply = Reply.of(await wire.answer())
    assert (reply.status, reply.headers["retry-after"]) == (503, "1")
    expect(house, reply.request_id, "restarted", stream=stream)


@STREAM
@pytest.mark.parametrize("kind", ["missing", "zero", "negative", "absurd"])
@pytest.mark.parametrize("model", ["deepseek-chat", "glm-4-air"])
async def test_usage_that_is_missing_or_absurd_is_counted_here(
    house: House, stream: bool, kind: str, model: str
) -> None:
    asked = f"{TEXT} [[fault=usage:{kind}]]"
    reply = await house.chat(asked, model, stream=stream)
    assert reply.status == 200
    row = house.usage(reply.request_id)
    assert row is not None
    assert (row.outcome, row.estimated) == ("complete", True)
    by: Vocabulary = "deepseek" if model == "deepseek-chat" else "qwen"
    assert (row.prompt_tokens, row.completion_tokens) == (estimated_tokens(asked, by), estimated_tokens(reply.text, by))
    assert row.charge_nanousd == charge(model, row.prompt_tokens, row.completion_tokens)
    assert (reply.usage["prompt_tokens"], reply.usage["completion_tokens"]) == (
        row.prompt_tokens,
        row.completion_tokens,
    )


async def test_usage_that_is_missing_is_counted_by_the_real_vocabulary(open_house) -> None:
    house = await open_house(gateway={"count_timeout_s": 10})
    for fault, outcome in (("usage:missing", "complete"), ("cut:9", "interrupted")):
        asked = f"{TEXT} [[fault={fault}]]"
        reply = await house.chat(asked, stream=True)
        row = house.usage(reply.request_id)
        assert row is not None
        assert (row.outcome, row.estimated) == (outcome, True)
        assert row.prompt_tokens == vocabulary.count(asked, "deepseek")
        assert row.completion_tokens == vocabulary.count(reply.text, "deepseek")


@STREAM
async def test_usage_in_a_chunk_of_its_own_is_taken(house: House, stream: bool) -> None:
    reply = await house.chat(f"{TEXT} [[fault=usage:trailing]]", "glm-4-air", stream=stream)
    row = house.usage(reply.request_id)
    assert row is not None
    assert (row.estimated, row.completion_tokens) == (False, reply.usage["completion_tokens"])


async def test_only_the_winner_is_paid_for(open_house) -> None:
    house: House = await open_house(keys={"deepseek": ("sk-one", "sk-two")})
    await house.upstream.fails("status:500")
    reply = await house.stream(TEXT)
    assert reply.done
    row = house.usage(reply.request_id)
    assert row is not None
    assert (row.outcome, row.attempts) == ("complete", 2)
    assert row.charge_nanousd == charge(MODEL, reply.usage["prompt_tokens"], reply.usage["completion_tokens"])


async def test_a_charge_is_never_above_the_hold(house: House) -> None:
    """An upstream that counts more than it was allowed to say is believed up to what the customer agreed to."""
    asked = "[[tokens=16 prompt_tokens=9000]]"
    reply = await house.chat(asked, max_tokens=16)
    row = house.usage(reply.request_id)
    assert row is not None
    body_bytes = len(house.body(asked, MODEL, {"max_tokens": 16}))
    assert row.prompt_tokens == 9000
    assert row.charge_nanousd == charge(MODEL, body_bytes, 16) < charge(MODEL, 9000, 16)

"""The settlement table, for every provider, streamed and not: charges by an oracle in fractions.

What an upstream counts is told to the simulators in the message (`[[tokens=… prompt_tokens=…]]`) and read back from
their log, so the oracle knows it without the gateway.
"""

import re
from fractions import Fraction
from pathlib import Path

import pytest
from front_door import House, Reply

from vipcloud.ledger.records import Settled
from vipcloud.metering import vocabulary

MODELS = {
    "deepseek": "deepseek-chat",
    "zhipu": "glm-4-air",
    "moonshot": "kimi-k2",
    "dashscope": "qwen3-max",
    "minimax": "minimax-text-01",
}
UNSEEN_TOKENS = {"moonshot": 1}  # what it counts without showing it: the mark at which its reasoning would end
ASKED = "Count to 30"

PROVIDER = pytest.mark.parametrize("provider", list(MODELS))
STREAM = pytest.mark.parametrize("stream", [False, True], ids=["unary", "stream"])


@pytest.fixture
async def all_on(open_house, tmp_path: Path) -> House:
    """A house that sells a model of every provider."""
    catalog = tmp_path / "all.toml"
    catalog.write_text("".join(f'[models."{model}"]\nstatus = "live"\n' for model in MODELS.values()))
    return await open_house(keys={"dashscope": ("sk-ours",)}, gateway={"catalog": str(catalog)})


def price(house: House, model: str, at_s: float, prompt_tokens: int, completion_tokens: int) -> Fraction:
    """Nano-dollars for fresh input and output, before any rounding."""
    prices = house.gateway.parts.catalog.models[model].prices
    assert prices is not None
    rates = prices.at(at_s).rates(prompt_tokens, completion_tokens)
    return Fraction(prompt_tokens * rates.input + completion_tokens * rates.output, 1000)


def booked(house: House, reply: Reply) -> Settled:
    row = house.usage(reply.request_id)
    assert row is not None
    return row


@PROVIDER
@STREAM
async def test_what_is_answered_costs_what_the_provider_counted(all_on: House, provider: str, stream: bool) -> None:
    reply = await all_on.chat(f"{ASKED} [[tokens=21 prompt_tokens=123]]", MODELS[provider], stream=stream)
    assert reply.status == 200, reply.body
    (call,) = await all_on.upstreams[provider].log()
    tokens, prompt_tokens = map(int, re.findall(r"tokens=(\d+)", call["body_text"]))
    tokens += UNSEEN_TOKENS.get(provider, 0)
    row = booked(all_on, reply)
    assert (row.outcome, row.provider, row.estimated, row.streamed) == ("complete", provider, False, stream)
    assert row.charge_nanousd == price(all_on, row.model, row.started_at, prompt_tokens, tokens) // 1 > 0
    assert reply.usage["cost"] == pytest.approx(row.charge_nanousd / 1e9, abs=1e-12)


@PROVIDER
async def test_the_same_answer_costs_the_same_streamed_or_not(all_on: House, provider: str) -> None:
    asked = f"{ASKED} [[tokens=17 prompt_tokens=90]]"
    whole, parts = [await all_on.chat(asked, MODELS[provider], stream=stream) for stream in (False, True)]
    assert booked(all_on, whole).charge_nanousd == booked(all_on, parts).charge_nanousd > 0


@PROVIDER
@STREAM
async def test_what_fails_before_any_content_costs_nothing(all_on: House, provider: str, stream: bool) -> None:
    reply = await all_on.chat(f"{ASKED} [[fault=status:500]]", MODELS[provider], stream=stream)
    assert reply.status >= 500, reply.body
    row = booked(all_on, reply)
    assert (row.outcome, row.charge_nanousd, row.completion_tokens) == ("upstream_failed", 0, 0)
    assert row.error_code == reply.error["code"]


@PROVIDER
async def test_a_cut_stream_costs_input_and_what_was_delivered(all_on: House, provider: str) -> None:
    reply = await all_on.stream(f"{ASKED} [[fault=cut:9]]", MODELS[provider])
    assert reply.stream_error is not None
    row = booked(all_on, reply)
    by = all_on.gateway.parts.catalog.models[row.model].candidates[0].quirks.vocabulary
    assert (row.outcome, row.estimated) == ("interrupted", True)
    assert row.completion_tokens == vocabulary.guess(reply.text, by) > 0
    assert row.charge_nanousd == price(all_on, row.model, row.started_at, row.prompt_tokens, row.completion_tokens) // 1


@PROVIDER
@STREAM
async def test_who_leaves_before_the_first_token_pays_nothing(all_on: House, provider: str, stream: bool) -> None:
    async with all_on.sent(f"{ASKED} [[first_token_ms=60000]]", MODELS[provider], stream=stream):
        await all_on.upstreams[provider].called()
    (row,) = await all_on.settled()
    assert (row.outcome, row.charge_nanousd, row.provider) == ("client_gone", 0, provider)


async def test_who_leaves_at_any_chunk_pays_for_the_chunks_so_far(house: House) -> None:
    charges = []
    for events in range(2, 14):
        async with house.live(f"{ASKED} [[fault=stall:{events}]]") as live:
            said = Reply(200, live.headers, await live.until(events + 1)).text
        row = (await house.settled(events - 1))[-1]
        assert (row.request_id, row.outcome) == (live.request_id, "client_gone")
        assert row.completion_tokens == vocabulary.guess(said, "deepseek")
        assert (
            row.charge_nanousd == price(house, row.model, row.started_at, row.prompt_tokens, row.completion_tokens) // 1
        )
        charges.append(row.charge_nanousd)
    assert charges == sorted(charges)
    assert len(set(charges)) > 6

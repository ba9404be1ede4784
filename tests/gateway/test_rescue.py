"""A stream that breaks off midway becomes a whole answer for callers who ask for that, and says what was done."""

import shutil
from pathlib import Path

import pytest
from front_door import House, Reply, charge, without

CHAT = "/v1/chat/completions"
TEXT = "Count to 20"
WHOLE = ", ".join(str(number) for number in range(1, 21))
MODES = pytest.mark.parametrize("mode", ["continue", "buffer"])


@pytest.fixture
def open_house(open_house):
    """DeepSeek's models have no other provider here."""
    return without(open_house, "dashscope")


async def ask(house: House, mode: str, text: str = TEXT, model: str = "deepseek-chat", **fields: object) -> Reply:
    body = house.body(text, model, {"stream": True, "stream_options": {"include_usage": True}, **fields})
    return await house.ask("POST", CHAT, body, house.head(**{"x-vipcloud-rescue": mode}))


@pytest.mark.parametrize("fault", ["cut:7", "eof:7", "malformed:7", "error:7", "stall:7"])
@MODES
async def test_a_broken_stream_becomes_one_whole_answer(open_house, mode: str, fault: str) -> None:
    house: House = await open_house(spare=True, timeouts={"idle_s": 0.1})
    healthy = await ask(house, mode, "Count to 20, healthy")
    assert b"rescued" not in healthy.body
    await house.upstream.always(fault)
    await house.upstreams["spare"].always("none")
    replies = [await ask(house, mode, f"{TEXT} {number}") for number in range(2)]
    reply = next(one for one in replies if b"rescued" in one.body)
    assert f": rescued ({mode}) by try 2" in reply.body.decode()
    assert (reply.status, reply.text, reply.done) == (200, WHOLE, True)
    assert {(chunk["id"], chunk["model"]) for chunk in reply.chunks} == {(reply.request_id, "deepseek-chat")}
    roles = [choice for chunk in reply.chunks for choice in chunk["choices"] if "role" in choice["delta"]]
    assert len(roles) == 1

    row = house.usage(reply.request_id)
    assert row is not None
    assert (row.outcome, row.attempts, row.estimated) == ("complete", 2, mode == "continue")
    assert row.completion_tokens == reply.usage["completion_tokens"]
    assert row.charge_nanousd == charge("deepseek-chat", row.prompt_tokens, row.completion_tokens)
    whole = healthy.usage
    assert 0 < row.prompt_tokens <= whole["prompt_tokens"]  # never twice
    assert 0.5 * whole["completion_tokens"] <= row.completion_tokens <= whole["completion_tokens"] + 6


async def test_a_route_goes_on_by_its_providers_prefix_mode(house: House) -> None:
    await house.upstream.fails("cut:7")
    reply = await ask(house, "continue", max_tokens=500)
    assert (reply.text, reply.done) == (WHOLE, True)
    first, second = await house.upstream.log()
    assert (first["path"], second["path"]) == ("/chat/completions", "/beta/chat/completions")
    last = second["body"]["messages"][-1]
    assert (last["role"], last["prefix"]) == ("assistant", True)
    assert WHOLE.startswith(last["content"])
    assert second["body"]["max_tokens"] < first["body"]["max_tokens"] == 500


async def test_kimi_goes_on_by_its_partial_mode(open_house, tmp_path: Path, template) -> None:
    data = tmp_path / "data"
    data.mkdir()
    shutil.copy(template[0], data)
    (data / "catalog.toml").write_text('[models.kimi-k2]\nstatus = "live"\n')
    house: House = await open_house()
    moonshot = house.upstreams["moonshot"]
    await moonshot.fails("cut:7")
    reply = await ask(house, "continue", model="kimi-k2", max_tokens=500)
    assert (reply.text, reply.done) == (WHOLE, True)
    first, second = await moonshot.log()
    assert first["path"] == second["path"] == "/chat/completions"
    last = second["body"]["messages"][-1]
    assert (last["role"], last["partial"]) == ("assistant", True)
    assert WHOLE.startswith(last["content"])


async def test_a_stream_that_breaks_twice_is_continued_twice(house: House) -> None:
    await house.upstream.fails("cut:7", "cut:3")
    reply = await ask(house, "continue")
    assert (reply.text, reply.done) == (WHOLE, True)
    assert house.rows()[0].attempts == 3


@pytest.mark.parametrize(
    ("model", "fields"),
    [("glm-4-air", {}), ("deepseek-reasoner", {}), ("deepseek-chat", {"stop": ["21"]})],
    ids=["no prefix mode", "reasoning", "watched text"],
)
async def test_a_route_that_cannot_continue_is_never_asked_to(house: House, model: str, fields: dict) -> None:
    reply = await ask(house, "continue", f"{TEXT} [[fault=cut:7]]", model, **fields)
    assert reply.stream_error is not None
    assert reply.stream_error["code"] == "upstream_interrupted"
    upstream = house.upstreams["zhipu" if model == "glm-4-air" else "deepseek"]
    assert len(await upstream.log()) == 1


async def test_an_answer_that_cannot_be_rescued_is_charged_as_far_as_it_came(house: House) -> None:
    await house.upstream.always("cut:4")
    reply = await ask(house, "continue")
    assert reply.stream_error is not None
    assert (reply.stream_error["code"], reply.done) == ("upstream_interrupted", False)
    assert WHOLE.startswith(reply.text)
    (row,) = house.rows()
    assert (row.outcome, row.attempts, row.estimated) == ("interrupted", 3, True)
    assert row.completion_tokens >= 4
    assert house.credit() == 5_000_000_000 - row.charge_nanousd


async def test_a_kept_answer_that_never_came_whole_is_a_plain_error_and_costs_nothing(house: House) -> None:
    await house.upstream.always("cut:4")
    reply = await ask(house, "buffer")
    assert (reply.status, reply.error["code"]) == (502, "upstream_interrupted")
    assert [row.outcome for row in house.rows()] == ["upstream_failed"]
    assert house.credit() == 5_000_000_000


async def test_a_kept_answer_is_awaited_with_signs_of_life(open_house) -> None:
    house: House = await open_house(gateway={"ping_stream_s": 0.05})
    reply = await ask(house, "buffer", "Count to 20 [[pace_ms=40]]")
    assert (reply.text, reply.done) == (WHOLE, True)
    assert reply.body.startswith(b": ping\n\n")


async def test_a_kept_answer_has_a_limit(open_house) -> None:
    house: House = await open_house(gateway={"reply_bytes_max": 4096})
    assert (await ask(house, "buffer", "[[tokens=200]]")).status == 502


async def test_another_word_is_refused_and_an_unstreamed_answer_needs_none(house: House) -> None:
    assert (await ask(house, "please")).error["code"] == "bad_request"
    await house.upstream.fails("cut:3")
    reply = await ask(house, "continue", stream=False, stream_options=...)
    assert (reply.status, reply.text) == (200, WHOLE)


async def test_a_route_that_cannot_continue_is_not_asked_again_while_the_one_that_can_is_out(open_house) -> None:
    house: House = await open_house(keys={"dashscope": ("sk-ours",)})
    upstreams = house.gateway.parts.upstreams
    next(one for one in upstreams.accounts if one.provider.id == "deepseek").health.drained = True
    upstreams.calm = False
    reply = await ask(house, "continue", f"{TEXT} [[fault=eof:7]]")
    assert reply.stream_error is not None
    assert reply.stream_error["code"] == "upstream_interrupted"
    assert len(await house.upstreams["dashscope"].log()) == 1

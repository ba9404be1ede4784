"""A caller's own list of models, and of providers: who is asked, in which order, at whose price, and who is not."""

import asyncio

import pytest
from front_door import charge

STREAM = pytest.mark.parametrize("stream", [False, True], ids=["unary", "stream"])
BOTH = {"deepseek": ("sk-ours",), "dashscope": ("sk-ours",)}


@STREAM
async def test_the_next_listed_model_answers_at_its_own_price_under_one_request(open_house, stream):
    house = await open_house()
    await house.upstream.always("status:500")
    reply = await house.chat(models=["glm-4-plus"], stream=stream)
    assert reply.status == 200
    named = reply.chunks[0]["model"] if stream else reply.json["model"]
    assert named == "glm-4-plus"
    [row] = await house.settled()
    assert (row.request_id, row.model, row.provider, row.outcome) == (
        reply.request_id,
        "glm-4-plus",
        "zhipu",
        "complete",
    )
    assert row.charge_nanousd == charge("glm-4-plus", row.prompt_tokens, row.completion_tokens) > 0
    assert row.attempts >= 2


async def test_a_dear_model_is_held_for_before_it_is_asked_and_passed_by_where_the_credit_ends(open_house):
    house = await open_house()
    key, account = house.new_key(credit="0.0007")
    await house.noticed()
    await house.upstream.always("status:500")
    with house.using(key, account):
        reply = await house.chat(models=["glm-4-plus", "glm-4-flash"], max_tokens=100)
        assert (reply.status, reply.json["model"]) == (200, "glm-4-flash")
        assert len(await house.upstreams["zhipu"].log()) == 1
        cut = await house.chat(models=["glm-4-air"], max_tokens=100)
        assert (cut.status, cut.json["model"]) == (200, "glm-4-air")
        assert cut.headers.get("x-vipcloud-max-tokens") is None


async def test_the_first_error_is_told_where_none_of_the_models_answers(open_house):
    house = await open_house()
    await house.upstream.always("status:429,retry-after:7")
    await house.upstreams["zhipu"].always("status:500")
    reply = await house.chat(models=["glm-4-plus"])
    assert (reply.status, reply.error["code"]) == (429, "rate_limited")
    [row] = await house.settled()
    assert (row.outcome, row.charge_nanousd) == ("upstream_failed", 0)


async def test_without_a_list_no_other_model_is_taken(open_house):
    house = await open_house()
    await house.upstream.always("status:500")
    assert (await house.chat()).status == 502
    assert await house.upstreams["zhipu"].log() == []


async def test_a_stream_that_has_begun_stays_with_its_model(open_house):
    house = await open_house()
    await house.upstream.always("cut:3")
    reply = await house.stream(models=["glm-4-plus"])
    assert reply.stream_error is not None
    assert reply.stream_error["code"] == "upstream_interrupted"
    assert await house.upstreams["zhipu"].log() == []


@pytest.mark.interpreted
async def test_who_leaves_between_two_models_is_settled_all_the_same(open_house, monkeypatch):
    house = await open_house()
    await house.upstream.always("status:500")
    parts, waits = house.gateway.parts, asyncio.Event()
    choose, rehold, count = parts.upstreams.choose, parts.guard.rehold, 0

    async def slow(permit, ask):  # as a shared guard's, whose server has to be asked
        nonlocal count
        count += 1
        if count == 2:
            waits.set()
            await asyncio.Event().wait()
        await rehold(permit, ask)

    monkeypatch.setattr(parts.guard, "rehold", slow)
    monkeypatch.setattr(
        parts.upstreams,
        "choose",
        lambda pool, request, customer: None if request.model == "glm-4-air" else choose(pool, request, customer),
    )
    async with house.sent(models=["glm-4-air", "glm-4-plus"]) as wire:
        await waits.wait()
        wire.reset()
    [row] = await house.settled()
    assert (row.outcome, row.charge_nanousd) == ("client_gone", 0)


async def test_models_that_cannot_be_had_are_passed_by_and_a_list_alone_will_do(open_house):
    house = await open_house()
    reply = await house.chat(model=..., models=["no-such-model", "glm-4-flash"])
    assert (reply.status, reply.json["model"]) == (200, "glm-4-flash")
    reply = await house.chat(model="no-such-model", models=["neither"])
    assert (reply.status, reply.error["code"]) == (404, "model_not_found")
    assert "no-such-model" in reply.error["message"]


async def test_the_list_is_checked(open_house):
    house = await open_house()
    for models, param in (("glm-4-flash", "models"), ([7], "models[0]"), (["m"] * 9, "models")):
        reply = await house.chat(models=models)
        assert (reply.status, reply.error["param"]) == (400, param)


async def test_only_ignore_and_order_choose_among_providers(open_house):
    house = await open_house(keys=BOTH)

    async def served(**provider):
        reply = await house.chat(provider=provider)
        assert reply.status == 200, reply.body
        return (await house.settled())[-1].provider

    assert await served() == "deepseek"
    assert await served(only=["DashScope"]) == "dashscope"
    assert await served(ignore=["deepseek"]) == "dashscope"
    assert await served(order=["dashscope", "deepseek"]) == "dashscope"
    assert await served(order=["somebody-else"]) == "deepseek"
    assert await served(sort="price") == "deepseek"


async def test_who_allows_no_fallback_gets_none(open_house):
    house = await open_house(keys=BOTH)
    await house.upstream.always("status:500")
    assert (await house.chat(provider={"allow_fallbacks": False})).status == 502
    assert (await house.chat(provider={"order": ["deepseek"], "allow_fallbacks": False})).status == 502
    assert await house.upstreams["dashscope"].log() == []
    assert (await house.chat(provider={"order": ["deepseek"]})).status == 200


async def test_who_allows_nobody_is_told_so(open_house):
    house = await open_house()
    for provider in ({"only": ["zhipu"]}, {"ignore": ["deepseek"]}, {"max_price": {"completion": "1.26"}}):
        reply = await house.chat(provider=provider)
        assert (reply.status, reply.error["code"]) == (404, "no_provider_allowed"), provider
    assert (await house.chat(provider={"max_price": {"prompt": 0.31, "completion": "1.27"}})).status == 200
    reply = await house.chat(provider={"max_price": {"prompt": 0.1}}, models=["glm-4-flash"])
    assert (reply.status, reply.json["model"]) == (200, "glm-4-flash")


@pytest.mark.parametrize("sort", ["latency", "throughput"])
async def test_the_quickest_goes_first_for_who_asks_for_it(open_house, sort):
    house = await open_house(keys=BOTH)
    pool = house.gateway.parts.upstreams._pools["deepseek-chat"]
    slow, quick = pool.ways
    slow.pace.note(2.0, 100, 10.0)
    quick.pace.note(0.1, 100, 1.0)
    assert (await house.chat(provider={"sort": sort})).status == 200
    assert (await house.settled())[-1].provider == quick.candidate.provider.id
    assert (await house.chat()).status == 200
    assert (await house.settled(2))[-1].provider == slow.candidate.provider.id


async def test_streams_tell_how_quick_a_route_is(open_house):
    house = await open_house(keys=BOTH)
    way = house.gateway.parts.upstreams._pools["deepseek-chat"].ways[0]
    assert way.pace.first_token_s is None
    assert (await house.stream()).done
    assert way.pace.first_token_s is not None
    assert way.pace.tokens_per_s > 0

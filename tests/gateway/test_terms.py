"""What a key may do that is not all its account may; caps of keys and accounts; holds in slices."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from front_door import House, charge, opened

from vipcloud.accounts import store
from vipcloud.accounts.store import KeyTerms
from vipcloud.cli import context
from vipcloud.limits.caps import Caps
from vipcloud.storage import engine as storage


def bounded_key(house: House, account_id: str | None = None, credit: str = "5.00", **terms: Any) -> tuple[str, str]:
    """A key with `terms`, and its account's id."""
    _, owner = house.new_key(credit=credit, rpm=0, concurrency=0) if account_id is None else ("", account_id)
    now_s = house.gateway.parts.clock.wall_s()
    with storage.writing(house.engine) as connection:
        made = store.create_key(connection, owner, now_s, context.random_bytes, "", KeyTerms(**terms))
    return made.plaintext, owner


async def test_a_key_has_limits_of_its_own_within_its_accounts(house: House) -> None:
    key, owner = bounded_key(house, rpm=2)
    with house.using(key, owner):
        replies = [await house.chat() for _ in range(3)]
        assert [reply.status for reply in replies] == [200, 200, 429]
        assert replies[1].headers["x-ratelimit-limit-requests"] == "2"
        assert "2 requests per minute for this key" in replies[2].error["message"]
    with house.using(*bounded_key(house, owner)):
        assert (await house.chat()).status == 200


async def test_a_key_for_some_models_knows_no_others(house: House) -> None:
    with house.using(*bounded_key(house, models=["glm-4-air", "deepseek-chat"])):
        assert (await house.chat()).status == 200
        refused = await house.chat(model="glm-4-plus")
        assert (refused.status, refused.error["code"]) == (404, "model_not_found")


async def test_a_key_for_some_models_is_told_of_no_others(house: House) -> None:
    every = [model["id"] for model in (await house.ask("GET", "/v1/models")).json["data"]]
    with house.using(*bounded_key(house, models=["glm-4-air", "deepseek-chat"])):
        told = [model["id"] for model in (await house.ask("GET", "/v1/models")).json["data"]]
        assert told == [model for model in every if model in ("glm-4-air", "deepseek-chat")]
        assert (await house.ask("GET", "/v1/models/glm-4-air")).json["id"] == "glm-4-air"
        refused = await house.ask("GET", "/v1/models/glm-4-plus")
        unknown = await house.ask("GET", "/v1/models/gpt-9")
        assert (refused.status, refused.error["code"]) == (404, "model_not_found")
        assert refused.body == unknown.body.replace(b"gpt-9", b"glm-4-plus")


@pytest.mark.parametrize(
    ("networks", "claimed", "status"),
    [
        (["127.0.0.1"], None, 200),
        (["10.0.0.0/8", "127.0.0.0/8"], None, 200),
        (["10.0.0.0/8"], None, 403),
        (["10.0.0.0/8"], "10.1.2.3", 200),
        (["127.0.0.0/8"], "10.1.2.3", 403),
        (["2001:db8::/32"], "2001:db8::7", 200),
    ],
)
async def test_a_key_for_some_addresses_is_refused_elsewhere(
    open_house, networks: list[str], claimed: str | None, status: int
) -> None:
    house: House = await open_house(server={"trusted_proxies": ("127.0.0.1/32",)})
    headers = {"CF-Connecting-IP": claimed} if claimed else {}
    with house.using(*bounded_key(house, networks=networks)):
        for path, body in (("/v1/chat/completions", house.body("x", "deepseek-chat", {})), ("/v1/models", b"")):
            reply = await house.ask("POST" if body else "GET", path, body, house.head(**headers))
            assert reply.status == status


async def test_a_key_ends_when_it_expires(open_house, clock) -> None:
    house: House = await open_house(clock=clock)
    with house.using(*bounded_key(house, expires_at=clock.wall_s() + 60)):
        assert (await house.chat()).status == 200
        clock.advance(60)
        for _ in range(2):
            refused = await house.chat()
            assert (refused.status, refused.error["code"]) == (401, "invalid_api_key")
            assert "has expired" in refused.error["message"]


@pytest.mark.parametrize("cap", ["daily_nanousd", "monthly_nanousd", "total_nanousd"])
@pytest.mark.parametrize("of_key", [True, False], ids=["key", "account"])
async def test_what_was_spent_before_a_restart_counts_against_the_cap(
    tmp_path: Path, template: Any, logs: list[dict[str, Any]], cap: str, of_key: bool
) -> None:
    shutil.copy(template[0], tmp_path)
    fields = {"max_tokens": 100, "messages": [{"role": "user", "content": "Count to 30"}]}
    async with opened(str(tmp_path), template[1], logs) as house:
        hold = charge("deepseek-chat", len(house.body("", "deepseek-chat", fields)), 100) + 1
        caps = Caps(**{cap: hold})
        key, owner = bounded_key(house, caps=caps) if of_key else bounded_key(house)
        if not of_key:
            with storage.writing(house.engine) as connection:
                store.set_caps(connection, owner, caps)
        with house.using(key, owner):
            assert (await house.chat(**fields)).status == 200
    async with opened(str(tmp_path), template[1], logs) as house:
        with house.using(key, owner):
            refused = await house.chat(**{**fields, "max_tokens": 4096})
            assert (refused.status, refused.headers.get("x-vipcloud-max-tokens") is None) in ((402, True), (200, False))
            for _ in range(20):
                refused = await house.chat(**fields)
            assert (refused.status, refused.error["code"]) == (402, "budget_exceeded")
            assert refused.headers["x-should-retry"] == "false"
            assert ("this key" if of_key else "the account") in refused.error["message"]
        rows = [row for row in house.rows() if row.account_id == owner]
        assert 0 < sum(row.charge_nanousd for row in rows) <= hold


async def test_a_cap_that_is_set_counts_what_was_spent_and_lifting_it_frees(house: House) -> None:
    with house.using(*house.new_key(rpm=0, concurrency=0)):
        assert (await house.chat()).status == 200
        for caps, status in ((Caps(daily_nanousd=1), 402), (Caps(), 200), (Caps(total_nanousd=1), 402)):
            with storage.writing(house.engine) as connection:
                store.set_caps(connection, house.account_id, caps)
            await house.noticed()
            assert (await house.chat()).status == status


SLICED = {"guard": {"hold_slice_tokens": 64}, "journal": {"progress_interval_s": 0.02}}


async def test_a_long_stream_holds_a_slice_at_a_time_and_lasts_while_credit_does(open_house) -> None:
    house: House = await open_house(**SLICED)
    with house.using(*house.new_key(credit="1.00", rpm=0, concurrency=0)):
        async with house.live("[[tokens=400 pace_ms=3]]", max_tokens=4000) as live:
            await live.until(3)
            [purse] = [state for name, state in house.gateway.parts.guard._purses.items() if name == house.account_id]
            assert purse.held_nanousd < charge("deepseek-chat", 1000, 200), "not for 4,000 tokens"
            reply = await live.rest()
        assert (reply.done, reply.usage["completion_tokens"]) == (True, 400)
        [row] = house.rows()
        assert row.charge_nanousd == charge("deepseek-chat", row.prompt_tokens, 400)


async def test_a_stream_that_outruns_its_slices_is_charged_in_full_all_the_same(open_house) -> None:
    house: House = await open_house(guard={"hold_slice_tokens": 16})
    with house.using(*house.new_key(credit="1.00", rpm=0, concurrency=0)):
        reply = await house.stream("[[tokens=500]]")
        assert reply.usage["completion_tokens"] == 500
        [row] = house.rows()
        assert row.charge_nanousd == charge("deepseek-chat", row.prompt_tokens, 500)


async def test_a_stream_whose_credit_others_have_taken_ends_by_length(open_house) -> None:
    house: House = await open_house(**SLICED)
    with house.using(*house.new_key(credit="0.003", rpm=0, concurrency=0)):
        async with house.live("[[tokens=1500 pace_ms=2]]", max_tokens=1500) as long:
            await long.until(2)
            other = await house.chat("[[tokens=900]]", max_tokens=1800)
            assert other.status == 200
            reply = await long.rest()
        assert reply.done
        assert reply.chunks[-1]["choices"][0]["finish_reason"] == "length"
        rows = [row for row in house.rows() if row.account_id == house.account_id]
        assert len(rows) == 2
        assert house.credit() >= 0
        [cut] = [row for row in rows if row.streamed]
        assert (cut.outcome, cut.estimated) == ("complete", True)
        assert 64 <= cut.completion_tokens < 1500


async def test_several_answers_to_one_request_are_all_held_for(house: House) -> None:
    with house.using(*house.new_key(credit="0.0005", rpm=0, concurrency=0)):
        one = await house.chat(max_tokens=300)
        assert one.status == 200
        several = await house.chat(max_tokens=300, n=3)
        assert "x-vipcloud-max-tokens" in several.headers or several.status in (400, 501)

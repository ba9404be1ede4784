"""What a customer can look up: each request's cost, its credit, its key; and nobody else's."""

import json
from decimal import Decimal
from fractions import Fraction

import pytest
from front_door import House, Reply, comes_true
from sqlalchemy import event, update
from sqlalchemy.exc import OperationalError

from vipcloud.accounts import store as accounts
from vipcloud.billing import store as billing
from vipcloud.billing.rules import Topup
from vipcloud.cli import context
from vipcloud.limits.caps import Caps
from vipcloud.storage import engine as storage
from vipcloud.storage import schema

CREDIT = 5_000_000_000


async def told(house: House, path: str) -> dict:
    reply = await house.ask("GET", path)
    assert reply.status == 200, reply.body
    return json.loads(reply.body, parse_float=Decimal)["data"]


@pytest.mark.parametrize("stream", [False, True], ids=["unary", "stream"])
@pytest.mark.parametrize("booked", [False, True], ids=["journaled", "booked"])
async def test_a_request_can_be_looked_up_right_after_its_answer(house: House, stream: bool, booked: bool) -> None:
    reply = await house.chat("Count to 12", stream=stream)
    if booked:
        house.rows()
    for name in (
        reply.request_id,
        reply.headers["x-request-id"],
        reply.request_id.removeprefix("chatcmpl-"),
    ):
        data = await told(house, f"/v1/generation?id={name}")
        assert data["id"] == reply.request_id
    row = house.usage(reply.request_id)
    assert row is not None
    assert data["request_id"] == reply.headers["x-request-id"]
    assert (data["total_cost"] * 10**9, data["usage"] * 10**9) == (row.charge_nanousd, row.charge_nanousd)
    assert data["upstream_inference_cost"] + data["markup"] == data["total_cost"]
    assert data["markup"] > 0
    assert (data["streamed"], data["finish_reason"], data["outcome"]) == (stream, "stop", "complete")
    assert (data["tokens_prompt"], data["tokens_completion"]) == (row.prompt_tokens, row.completion_tokens)
    assert data["tokens"]["input"] + data["tokens"]["cached_input"] == row.prompt_tokens
    assert (data["provider_name"], data["model"], data["attempts"]) == ("DeepSeek", "deepseek-chat", 1)
    assert data["price_version"] == row.price_version != ""
    assert (data["cancelled"], data["estimated"], data["is_byok"]) == (False, False, False)


async def test_what_costs_something_can_be_computed_again_from_what_is_told(house: House) -> None:
    reply = await house.chat("Count to 30")
    data = await told(house, f"/v1/generation?id={reply.request_id}")
    price = next(model for model in (await house.ask("GET", "/v1/models")).json["data"] if model["id"] == data["model"])
    tokens = data["tokens"]
    rates = {name: Fraction(price["pricing"][name]) for name in ("prompt", "completion")}
    cost = (tokens["input"] + tokens["cached_input"]) * rates["prompt"] + tokens["output"] * rates["completion"]
    assert data["total_cost"] * 10**9 == cost * 10**9 // 1


async def test_a_client_that_left_is_told_as_cancelled(house: House) -> None:
    async with house.live("Count to 30 [[fault=stall:4]]") as live:
        await live.until(5)
    await house.settled()
    data = await told(house, f"/v1/generation?id={live.request_id}")
    assert (data["cancelled"], data["estimated"], data["outcome"]) == (True, True, "client_gone")
    assert data["total_cost"] > 0


async def test_another_accounts_requests_do_not_exist(house: House) -> None:
    reply = await house.chat()
    house.rows()
    theirs = await house.chat()  # of this one only the journal knows
    with house.using(*house.new_key()):
        for name in (reply.request_id, theirs.request_id):
            refused = await house.ask("GET", f"/v1/generation?id={name}")
            assert (refused.status, refused.error["code"]) == (404, "generation_not_found")


@pytest.mark.parametrize(
    ("query", "status"),
    [("", 400), ("?id=", 400), ("?id=../x", 400), ("?id=chatcmpl-00", 404), (f"?id={'a' * 80}", 400)],
)
async def test_ids_that_lead_nowhere(house: House, query: str, status: int) -> None:
    reply = await house.ask("GET", f"/v1/generation{query}")
    assert (reply.status, reply.error["param"]) == (status, "id")


async def test_a_request_that_runs_is_not_there_yet(house: House) -> None:
    async with house.live("Count to 30 [[fault=stall:2]]") as live:
        await live.until(3)
        assert (await house.ask("GET", f"/v1/generation?id={live.request_id}")).status == 404


async def test_credits_are_what_was_given_and_what_was_used(house: House) -> None:
    assert await told(house, "/v1/credits") == {"total_credits": 5, "total_usage": 0}
    await house.chat()
    used = CREDIT - house.credit()
    data = await told(house, "/v1/credits")
    assert (data["total_credits"], data["total_usage"] * 10**9) == (5, used)


async def test_a_key_tells_what_it_used_and_what_it_may(house: House) -> None:
    other, _ = house.new_key(account_id=house.account_id)
    replies = [await house.chat() for _ in range(2)]
    with house.using(other, house.account_id):
        await house.chat()
        assert (await told(house, "/v1/key"))["usage"] == 0, "nothing is booked yet"
    house.rows()
    data = await told(house, "/v1/key")
    cost = sum(Decimal(str(reply.usage["cost"])) for reply in replies)
    assert data["label"].startswith("vc-sk-")
    assert house.key not in json.dumps(data, default=str)
    assert data["usage"] == data["usage_daily"] == data["usage_weekly"] == data["usage_monthly"] == cost
    assert (data["limit"], data["limit_remaining"], data["limit_reset"]) == (None, None, None)
    assert (data["rate_limit"]["requests"], data["rate_limit"]["interval"]) == (-1, "60s")
    assert (data["is_management_key"], data["expires_at"]) == (False, None)
    assert data["free_model_daily_requests"] == {"limit": -1, "remaining": -1, "used": 3}
    assert data["workspace_id"] == house.account_id


async def test_a_key_tells_how_its_accounts_day_stands(house: House) -> None:
    with house.using(*house.new_key(rpd=5)):
        await house.chat()
        house.rows()
        data = await told(house, "/v1/key")
    assert data["free_model_daily_requests"] == {"limit": 5, "remaining": 4, "used": 1}


async def test_a_key_tells_the_cap_that_leaves_it_the_least(house: House) -> None:
    caps = Caps(daily_nanousd=3_000_000_000, monthly_nanousd=2_000_000_000, total_nanousd=9_000_000_000)
    with storage.writing(house.engine) as connection:
        now_s = house.gateway.parts.clock.wall_s()
        terms = accounts.KeyTerms(caps=caps)
        made = accounts.create_key(connection, house.account_id, now_s, context.random_bytes, "", terms)
    with house.using(made.plaintext, house.account_id):
        await house.chat()
        house.rows()
        data = await told(house, "/v1/key")
    assert (data["limit"], data["limit_reset"]) == (2, "monthly")
    assert data["limit_remaining"] == 2 - data["usage"] < 2


async def test_an_account_that_never_bought_credit_is_on_the_free_tier(house: House) -> None:
    assert (await told(house, "/v1/key"))["is_free_tier"] is True
    topup = Topup("top_1", house.account_id, 500, "waiting", house.gateway.parts.clock.wall_s())
    for state, free in (("waiting", True), ("refused", True), ("added", False)):
        with storage.writing(house.engine) as connection:
            billing.begin(connection, topup)
            connection.execute(update(schema.topup).values(state=state))
        assert (await told(house, "/v1/key"))["is_free_tier"] is free
    with house.using(*house.new_key()):
        assert (await told(house, "/v1/key"))["is_free_tier"] is True, "another account paid"


@pytest.mark.parametrize("path", ["/v1/generation?id=chatcmpl-1", "/v1/credits", "/v1/key"])
async def test_a_key_is_asked_for(house: House, path: str) -> None:
    assert (await house.ask("GET", path, headers={})).status == 401


async def test_the_books_may_be_away(house: House) -> None:
    reply: Reply = await house.chat()

    def away(*_: object) -> None:
        raise OperationalError("BEGIN", {}, OSError("the disk is away"))

    event.listen(house.engine, "before_cursor_execute", away)
    try:
        refused = await comes_true(lambda: house.ask("GET", "/v1/credits"), lambda answer: answer.status == 503)
    finally:
        event.remove(house.engine, "before_cursor_execute", away)
    assert refused.error["code"] == "service_unavailable"
    assert (await told(house, f"/v1/generation?id={reply.request_id}"))["id"] == reply.request_id

"""Which of our accounts is asked, what its refusals mean to the caller, and what we remember of them."""

import pytest
from front_door import House, without

from vipcloud.providers import auth

STREAM = pytest.mark.parametrize("stream", [False, True], ids=["unary", "stream"])

# A provider's refusal → what the caller is told. Zhipu's come with its own codes, DeepSeek's by status.
TOLD = [
    ("deepseek-chat", "status:400", 400, "bad_request"),
    ("deepseek-chat", "code:risk", 400, "content_filter"),
    ("deepseek-chat", "code:context", 400, "context_length_exceeded"),
    ("deepseek-chat", "code:model", 502, "upstream_error"),
    ("deepseek-chat", "status:401", 502, "upstream_error"),
    ("deepseek-chat", "status:402", 502, "upstream_error"),
    ("deepseek-chat", "status:403", 502, "upstream_error"),
    ("deepseek-chat", "status:422", 400, "bad_request"),
    ("deepseek-chat", "status:429", 429, "rate_limited"),
    ("deepseek-chat", "status:500", 502, "upstream_error"),
    ("deepseek-chat", "status:503", 502, "upstream_error"),
    ("deepseek-chat", "html:502", 502, "upstream_error"),
    ("deepseek-chat", "html:403", 502, "upstream_error"),
    ("deepseek-chat", "error:0", 502, "upstream_error"),
    ("deepseek-chat", "malformed:0", 502, "upstream_error"),
    ("deepseek-chat", "finish:insufficient_system_resource", 502, "upstream_error"),
    ("glm-4", "code:1000", 502, "upstream_error"),
    ("glm-4", "code:1113", 502, "upstream_error"),
    ("glm-4", "code:1211", 502, "upstream_error"),
    ("glm-4", "code:1214", 400, "bad_request"),
    ("glm-4", "code:1261", 400, "context_length_exceeded"),
    ("glm-4", "code:1301", 400, "content_filter"),
    ("glm-4", "code:1302", 429, "rate_limited"),
    ("glm-4", "code:1305", 429, "rate_limited"),
    ("glm-4", "code:1308", 429, "rate_limited"),
    ("glm-4", "code:500", 502, "upstream_error"),
    ("glm-4", "error:0", 502, "upstream_error"),
]


@pytest.fixture
def open_house(open_house):
    """DeepSeek's models have no other provider here."""
    return without(open_house, "dashscope")


@STREAM
@pytest.mark.parametrize(("model", "fault", "status", "code"), TOLD)
async def test_a_providers_refusal_is_told_in_our_words(
    house: House, model: str, fault: str, status: int, code: str, stream: bool
) -> None:
    if not stream and fault.startswith("malformed"):
        return  # the fault is one of streams
    reply = await house.chat(f"Hello [[fault={fault}]]", model, stream=stream)
    if fault.startswith("finish") and stream:
        assert reply.stream_error is not None
        assert reply.stream_error["code"] == "upstream_interrupted"
        return
    assert (reply.status, reply.error["code"]) == (status, code), reply.body
    assert ("retry-after" in reply.headers) == (status == 429)
    assert "ours" not in reply.body.decode()


async def test_a_provider_that_says_when_to_come_back_is_quoted(house: House) -> None:
    reply = await house.chat("Hello [[fault=status:429,retry-after:17]]")
    assert (reply.status, reply.headers["retry-after"]) == (429, "17")


RETRIED = ["status:429", "status:500", "status:503", "status:401", "status:402", "html:502", "cut:0", "eof:0"]


@STREAM
@pytest.mark.parametrize("fault", RETRIED)
async def test_a_failure_before_content_moves_on_to_the_next_account(open_house, stream: bool, fault: str) -> None:
    house: House = await open_house(keys={"deepseek": ("sk-first", "sk-second")})
    await house.upstream.fails(fault)
    reply = await house.chat("Count to 3", stream=stream)
    assert (reply.status, reply.text) == (200, "1, 2, 3")
    sent = [call["headers"]["authorization"] for call in await house.upstream.log()]
    assert sent == ["Bearer sk-first", "Bearer sk-second"]
    assert house.usage(reply.request_id).attempts == 2


async def test_what_replies_have_in_common_is_learned_of_each_account_and_model(open_house) -> None:
    house: House = await open_house(keys={"deepseek": ("sk-first", "sk-second")})
    accounts = [account for account in house.gateway.parts.upstreams.accounts if account.provider.id == "deepseek"]
    shapes = [shapes for account in accounts for shapes in account.reply_shapes.values()]
    assert len({id(one) for one in shapes}) == len(shapes) == 2 * len(accounts[0].reply_shapes) > 0


@STREAM
@pytest.mark.parametrize("bad", ["sk-bad", "sk-broke"])
async def test_an_account_that_is_refused_is_not_asked_again(open_house, stream: bool, bad: str) -> None:
    house: House = await open_house(keys={"deepseek": (bad, "sk-good")})
    for _ in range(3):
        assert (await house.chat(stream=stream)).status == 200
    sent = [call["headers"]["authorization"] for call in await house.upstream.log()]
    assert sent == [f"Bearer {bad}", *["Bearer sk-good"] * 3]
    assert [row.attempts for row in house.rows()] == [2, 1, 1]


async def test_a_throttled_account_rests_and_comes_back(open_house, clock) -> None:
    house: House = await open_house(clock=clock, keys={"deepseek": ("sk-first", "sk-second")})
    await house.upstream.fails("status:429,retry-after:9")
    assert [(await house.chat(text)).status for text in ("one", "two")] == [200, 200]
    clock.advance(9)
    assert (await house.chat("three")).status == 200
    sent = [call["headers"]["authorization"].removeprefix("Bearer sk-") for call in await house.upstream.log()]
    assert sent == ["first", "second", "second", "first"]


async def test_another_candidate_of_the_model_is_tried_with_the_same_account(house: House) -> None:
    await house.upstreams["zhipu"].fails("code:1305")
    reply = await house.stream("Count to 3", "glm-4")
    assert (reply.text, reply.done) == ("1, 2, 3", True)
    assert {chunk["model"] for chunk in reply.chunks} == {"glm-4"}
    assert [call["body"]["model"] for call in await house.upstreams["zhipu"].log()] == ["glm-4-plus", "glm-4.7"]
    assert house.usage(reply.request_id).upstream_model == "glm-4.7"


async def test_after_content_nothing_is_tried_again(open_house) -> None:
    house: House = await open_house(keys={"deepseek": ("sk-first", "sk-second")})
    reply = await house.stream("Count to 9 [[fault=cut:1]]")
    assert reply.stream_error is not None
    assert len(await house.upstream.log()) == 1


async def test_attempts_end_at_their_limit(open_house) -> None:
    house: House = await open_house(keys={"deepseek": ("sk-a", "sk-b", "sk-c", "sk-d", "sk-e")})
    reply = await house.chat("Hello [[fault=status:500]]")
    assert reply.status == 502
    assert len(await house.upstream.log()) == house.gateway.parts.settings.gateway.attempts_max == 3


async def test_a_refusal_of_the_request_itself_is_not_tried_elsewhere(open_house) -> None:
    house: House = await open_house(keys={"deepseek": ("sk-first", "sk-second")})
    assert (await house.chat("Hello [[fault=code:risk]]")).status == 400
    assert len(await house.upstream.log()) == 1


@STREAM
async def test_an_upstream_that_cannot_be_reached_is_a_502(house: House, stream: bool) -> None:
    await house.upstream.server.close(0)
    reply = await house.chat(stream=stream)
    assert (reply.status, reply.error["message"]) == (502, "DeepSeek could not be reached.")
    assert [row.outcome for row in house.rows()] == ["upstream_failed"]


async def test_zhipus_token_can_be_signed(open_house) -> None:
    house: House = await open_house(keys={"zhipu": ("id-ours.simulated-secret",)}, auth={"zhipu": "jwt"})
    assert (await house.chat(model="glm-4")).status == 200
    (call,) = await house.upstreams["zhipu"].log()
    assert call["headers"]["authorization"].startswith("Bearer eyJ")
    assert "simulated-secret" not in str(call)


@pytest.mark.parametrize("scheme", ["jwt", "bearer"])
async def test_a_head_is_kept_only_where_its_key_is_sent_as_it_is(open_house, scheme: str) -> None:
    house: House = await open_house(keys={"zhipu": ("id-ours.simulated-secret",)}, auth={"zhipu": scheme})
    assert [(await house.chat(model="glm-4")).status for _ in range(2)] == [200, 200]
    (account,) = (one for one in house.gateway.parts.upstreams.accounts if one.provider.id == "zhipu")
    key = account.key
    path, kind = "/chat/completions", "application/json"
    first, later = (key.head(account, now_ms, path, kind) for now_ms in (0, auth.RENEWAL_MS))
    assert (first == later) == (scheme == "bearer")
    assert list(key.steady_heads) == ([(path, kind)] if scheme == "bearer" else [])
    assert "Bearer" not in repr(account)
    account.renew(account.provider, account.settings)
    assert key.steady_heads == {}


async def test_connections_are_used_again_and_given_back(house: House) -> None:
    for _ in range(5):
        await house.chat()
        await house.stream()
    origins = {account.origin for account in house.gateway.parts.upstreams.accounts}
    assert sum(origin.open_count for origin in origins) == 1
    assert sum(origin.idle_count for origin in origins) == 1

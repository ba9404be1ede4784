"""What calls cost us of which nothing was delivered: each that was sent, and that no error answer ended, once."""

import pytest
from front_door import House, eventually

STREAM = pytest.mark.parametrize("stream", [False, True], ids=["unary", "stream"])


def lost(house: House) -> list[tuple[str, int]]:
    """By request and number."""
    return [(record.request_id, record.number) for record in house.lost()]


async def tried(house: House, code: str) -> None:
    """Wait until a call has failed so."""
    accounts = house.gateway.parts.upstreams.accounts
    await eventually(lambda: any(name == code for account in accounts for _, name in account.failures))


@STREAM
@pytest.mark.parametrize("fault", ["none", "status:500", "status:429", "code:risk", "html:502"])
async def test_answers_and_error_answers_lose_nothing(house: House, stream: bool, fault: str) -> None:
    await house.chat(f"Count to 5 [[fault={fault}]]", stream=stream)
    assert lost(house) == []


@pytest.mark.parametrize("stream", [False, True], ids=["unary", "stream"])
async def test_who_leaves_before_another_try_loses_nothing_by_an_error_answer(open_house, stream: bool) -> None:
    house: House = await open_house(retry={"backoff_s": 60})
    await house.upstream.always("status:500")
    async with house.sent(stream=stream):
        await tried(house, "upstream_error")
    (row,) = await house.settled()
    assert (row.outcome, row.attempts) == ("client_gone", 1)
    assert lost(house) == []


@pytest.mark.parametrize(("stream", "fault"), [(False, "cut"), (False, "reset"), (True, "cut:0"), (True, "reset")])
async def test_a_call_that_broke_off_is_lost_once_whatever_follows(open_house, stream: bool, fault: str) -> None:
    house: House = await open_house(retry={"backoff_s": 60})
    await house.upstream.always(fault)
    async with house.sent(stream=stream):
        await tried(house, "upstream_error")
    (row,) = await house.settled()
    assert (row.outcome, row.attempts) == ("client_gone", 1)
    assert lost(house) == [(row.request_id, 1)]


@pytest.mark.parametrize("fault", ["hang", "hang-body"])
@pytest.mark.parametrize(
    ("stream", "settings"),
    [(False, {"total_s": 0.1}), (True, {"total_s": 0.1}), (True, {"first_byte_s": 0.05})],
    ids=["unary total", "stream total", "stream first byte"],
)
async def test_a_call_that_ran_out_of_time_is_lost(open_house, fault: str, stream: bool, settings: dict) -> None:
    house: House = await open_house(timeouts=settings)
    reply = await house.chat(f"Hello [[fault={fault}]]", stream=stream)
    assert (reply.status, reply.error["code"]) == (504, "upstream_timeout")
    assert lost(house) == [(f"chatcmpl-{reply.headers['x-request-id'].removeprefix('req_')}", 1)]


async def test_each_try_that_broke_off_is_lost(open_house) -> None:
    house: House = await open_house(retry={"backoff_s": 0.001})
    await house.upstream.fails("cut", "cut")
    reply = await house.chat()
    assert reply.status == 200
    assert lost(house) == [(reply.request_id, 1), (reply.request_id, 2)]


@STREAM
async def test_who_leaves_while_a_call_is_at_work_loses_it(house: House, stream: bool) -> None:
    async with house.sent("Hello [[first_token_ms=60000]]", stream=stream):
        await house.upstream.called()
    (row,) = await house.settled()
    assert lost(house) == [(row.request_id, 1)]


async def test_who_leaves_after_some_of_an_answer_has_it_in_the_usage_row(house: House) -> None:
    async with house.live("Count to 30 [[fault=stall:5]]") as live:
        await live.until(6)
    (row,) = await house.settled()
    assert row.cost_nanousd > 0
    assert lost(house) == []


@STREAM
async def test_who_leaves_while_waiting_for_a_connection_loses_nothing(open_house, stream: bool) -> None:
    house: House = await open_house(client={"connections_max": 1})
    (account,) = [one for one in house.gateway.parts.upstreams.accounts if one.provider.id == "deepseek"]
    async with house.sent("Hello [[first_token_ms=60000]]"):
        await house.upstream.called()
        async with house.sent(stream=stream):
            await eventually(lambda: account.origin._waiting)
        (waited,) = await house.settled()
        assert (waited.outcome, waited.attempts) == ("client_gone", 1)
        assert lost(house) == []
    first, second = await house.settled(2)
    assert len(await house.upstream.log()) == 1
    (other,) = {first.request_id, second.request_id} - {waited.request_id}
    assert lost(house) == [(other, 1)]


async def test_who_cannot_be_reached_costs_nothing(house: House) -> None:
    await house.upstream.server.close(0)
    assert (await house.chat()).status == 502
    assert lost(house) == []


@pytest.mark.parametrize("rescue", ["buffer", "continue"])
async def test_an_error_as_the_first_event_loses_nothing(house: House, rescue: str) -> None:
    body = house.body("Count to 9 [[fault=error:0]]", "deepseek-chat", {"stream": True})
    headers = house.head(**{"x-vipcloud-rescue": rescue})
    reply = await house.ask("POST", "/v1/chat/completions", body, headers)
    assert reply.status >= 400, reply.body
    assert lost(house) == []

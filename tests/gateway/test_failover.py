"""Whatever an upstream does, the caller gets the whole answer where another route has it, or one clear error.

Each fault is met twice: with a second route, which must serve every request, and without one. Then what faults cost
while they last, and that the traffic comes back when they end.
"""

import time
from dataclasses import dataclass

import pytest
from front_door import House, Reply, Upstream, without

STREAM = pytest.mark.parametrize("stream", [False, True], ids=["unary", "stream"])
WHOLE = "1, 2, 3, 4, 5"
BOUND_S = 3.0  # nothing below takes as long as this

# Time outs short enough to see, long enough for a machine that is busy.
TIMEOUTS = {"first_byte_s": 0.25, "idle_s": 0.25, "total_s": 1.5}


@pytest.fixture
def open_house(open_house):
    """DeepSeek's models have no other provider here."""
    return without(open_house, "dashscope")


@dataclass(frozen=True)
class Case:
    """A fault, and what a caller is told who has no other route: status, code, and whether trying again has sense."""

    fault: str
    status: int
    code: str
    retry: str | None = "false"  # x-should-retry
    retry_after: bool = False
    only: bool | None = None  # streams only, or unstreamed only


SCENARIOS = {
    "refused connect": Case("refused", 502, "upstream_error"),
    "reset before the head": Case("reset", 502, "upstream_error"),
    "hang before the head": Case("hang", 504, "upstream_timeout"),
    "429 with Retry-After": Case("status:429,retry-after:7", 429, "rate_limited", None, retry_after=True),
    "429 without Retry-After": Case("status:429", 429, "rate_limited", None, retry_after=True),
    "401": Case("status:401", 502, "upstream_error"),
    "402, arrears": Case("status:402", 502, "upstream_error"),
    "403": Case("status:403", 502, "upstream_error"),
    "404, an unknown model": Case("code:model", 502, "upstream_error"),
    "500": Case("status:500", 502, "upstream_error"),
    "503": Case("status:503", 502, "upstream_error"),
    "an HTML page of a proxy": Case("html:502", 502, "upstream_error"),
    "an HTML page with status 200": Case("html:200", 502, "upstream_error"),
    "malformed JSON": Case("eof:0", 502, "upstream_error", only=False),
    "a malformed first event": Case("malformed:0", 502, "upstream_error", only=True),
    "an error as first event": Case("error:0", 502, "upstream_error", only=True),
    "an empty body": Case("empty", 502, "upstream_error"),
    "a cut body": Case("cut:3", 502, "upstream_error", only=False),
    "a cut before any content": Case("cut:0", 502, "upstream_error"),
    "an end before any content": Case("eof:0", 502, "upstream_error"),
    "a head and no token": Case("mute", 504, "upstream_timeout"),
    "a head and nothing else": Case("hang-body", 504, "upstream_timeout"),
    "keep-alives for ever": Case("keep-alive:60:20", 504, "upstream_timeout"),
}
CASES = [
    pytest.param(case, stream, id=f"{name}, {'stream' if stream else 'unary'}")
    for name, case in SCENARIOS.items()
    for stream in (False, True)
    if case.only is None or case.only == stream
]


async def breaks(upstream: Upstream, fault: str) -> None:
    if fault == "refused":
        await upstream.server.close(0)
    else:
        await upstream.always(fault)


async def asked(house: House, number: int = 0, *, stream: bool = False) -> Reply:
    return await house.chat(f"Count to 5. Request {number}", stream=stream)


def whole(reply: Reply, *, stream: bool = False) -> bool:
    return reply.status == 200 and reply.text == WHOLE and (not stream or reply.done)


@pytest.mark.parametrize(("case", "stream"), CASES)
async def test_with_a_second_route_every_request_gets_its_whole_answer(open_house, case: Case, stream: bool) -> None:
    house: House = await open_house(spare=True, timeouts=TIMEOUTS)
    await breaks(house.upstream, case.fault)
    for number in range(6):
        began_s = time.monotonic()
        reply = await asked(house, number, stream=stream)
        assert whole(reply, stream=stream), reply.body
        assert time.monotonic() - began_s < BOUND_S
    rows = house.rows()
    assert [row.outcome for row in rows] == ["complete"] * 6
    assert all(row.completion_tokens == rows[0].completion_tokens for row in rows)  # the winner's usage only


@pytest.mark.parametrize(("case", "stream"), CASES)
async def test_without_one_the_caller_gets_one_clear_error_in_time(open_house, case: Case, stream: bool) -> None:
    house: House = await open_house(timeouts=TIMEOUTS)
    await breaks(house.upstream, case.fault)
    began_s = time.monotonic()
    reply = await asked(house, stream=stream)
    assert time.monotonic() - began_s < BOUND_S
    assert (reply.status, reply.error["code"]) == (case.status, case.code), reply.body
    assert reply.headers.get("x-should-retry") == case.retry
    assert ("retry-after" in reply.headers) == case.retry_after
    assert house.credit() == 5_000_000_000
    assert [row.outcome for row in house.rows()] == ["upstream_failed"]


# --- after content has gone out


MIDWAY = {
    "a cut": ("cut:3", "upstream_interrupted"),
    "an end without finish_reason": ("eof:3", "upstream_interrupted"),
    "a malformed event": ("malformed:3", "upstream_interrupted"),
    "an error event": ("error:3", "upstream_interrupted"),
    "a stall": ("stall:3", "upstream_timeout"),
    "a giant line": ("giant:8000,drip:400:1", "upstream_interrupted"),
    "an answer without end": ("endless:1000:20", "upstream_timeout"),
}


@pytest.mark.parametrize("name", MIDWAY)
async def test_a_stream_that_fails_midway_is_never_told_as_whole(open_house, name: str) -> None:
    fault, code = MIDWAY[name]
    house: House = await open_house(spare=True, timeouts=TIMEOUTS, gateway={"event_bytes_max": 4096})
    await house.upstream.always(fault)
    began_s = time.monotonic()
    reply = await asked(house, stream=True)
    assert time.monotonic() - began_s < BOUND_S
    assert (reply.status, reply.done) == (200, False)
    assert reply.stream_error is not None
    assert reply.stream_error["code"] == code
    (row,) = house.rows()
    assert (row.outcome, row.attempts, row.estimated) == ("interrupted", 1, True)
    assert row.completion_tokens > 0
    assert await house.upstreams["spare"].log() == []


async def test_a_missing_done_after_the_finish_is_success_at_once(open_house) -> None:
    house: House = await open_house(timeouts=TIMEOUTS)
    await house.upstream.always("no-done")
    assert whole(await asked(house, stream=True), stream=True)
    assert [row.outcome for row in house.rows()] == ["complete"]


# --- what a fault costs while it lasts


async def cost(house: House, requests: int) -> int:
    """How many calls the first upstream had of so many requests, each of which must have its whole answer."""
    before = len(await house.upstream.log())
    for number in range(requests):
        assert whole(await asked(house, number))
    return len(await house.upstream.log()) - before


async def test_a_failing_route_is_passed_by_and_probed_once_per_growing_interval(open_house, clock) -> None:
    house: House = await open_house(spare=True, clock=clock, breaker={"failures_in_row": 3, "jitter": 0.0})
    await house.upstream.always("status:500")
    assert await cost(house, 20) == 3
    costs = []
    for wait_s in (1, 2, 4, 8):
        clock.advance(wait_s)
        costs.append(await cost(house, 10))
    assert costs == [1, 1, 1, 1]


async def test_a_flapping_route_costs_one_failed_call_per_interval(open_house, clock) -> None:
    house: House = await open_house(spare=True, clock=clock, breaker={"jitter": 0.0})
    await house.upstream.fails(*["status:500", "none"] * 200)
    await cost(house, 60)  # opens by its share of failures
    for wait_s in (4, 8, 16):
        clock.advance(wait_s)
        await cost(house, 20)
        log = await house.upstream.log()
        assert sum(call["status"] == 500 for call in log[-2:]) <= 1
    assert len(log) < 30


@STREAM
async def test_a_route_that_dies_slowly_is_left_after_a_few_time_outs(open_house, stream: bool) -> None:
    house: House = await open_house(spare=True, timeouts={**TIMEOUTS, "total_s": 1.0})
    await house.upstream.fails("none", "drip:200:1", "mute", *["hang"] * 50)
    for number in range(20):
        assert whole(await asked(house, number, stream=stream), stream=stream)
    assert len(await house.upstream.log()) <= 6


@pytest.mark.parametrize("fault", ["status:500", "status:429,retry-after:3", "status:402", "status:401", "reset"])
async def test_traffic_returns_when_the_route_recovers(open_house, clock, fault: str) -> None:
    house: House = await open_house(spare=True, clock=clock, breaker={"failures_in_row": 2, "jitter": 0.0})
    await house.upstream.always(fault)
    await cost(house, 10)
    await house.upstream.always("none")
    house.gateway.parts.upstreams.accounts[0].revive() if fault == "status:401" else clock.advance(601)
    assert await cost(house, 20) >= 5  # half of those that are not bound to the other by now


@STREAM
@pytest.mark.parametrize("fault", ["status:500", "status:402", "reset", "html:502", "empty"])
async def test_the_only_route_serves_again_as_soon_as_it_can(open_house, clock, stream: bool, fault: str) -> None:
    house: House = await open_house(clock=clock, breaker={"failures_in_row": 2})
    await house.upstream.always(fault)
    for number in range(4):
        assert (await asked(house, number, stream=stream)).status in (502, 503)
    await house.upstream.always("none")
    if fault == "status:402":  # nobody knows before the next probe that the bill was paid
        assert (await asked(house, stream=stream)).headers["retry-after"] == "2"
        clock.advance(2)
    for number in range(5):
        assert whole(await asked(house, number, stream=stream), stream=stream)


async def test_a_callers_own_mistakes_never_count_against_a_route(house: House) -> None:
    for _ in range(30):
        assert (await house.chat("Hello [[fault=status:400]]")).status == 400
    assert house.gateway.parts.upstreams.calm
    assert (await house.chat()).status == 200


async def test_the_only_route_is_waited_for_where_it_says_that_it_is_soon_free(house: House) -> None:
    await house.upstream.fails("status:429,retry-after:1")
    began_s = time.monotonic()
    assert whole(await asked(house, stream=True), stream=True)
    assert 0.9 < time.monotonic() - began_s < 2
    assert house.rows()[0].attempts == 2


async def test_while_every_route_rests_callers_are_told_how_long(open_house, clock) -> None:
    house: House = await open_house(spare=True, clock=clock)
    await house.upstream.always("status:429,retry-after:20")
    await house.upstreams["spare"].always("status:429,retry-after:9")
    replies = [await asked(house, number) for number in range(3)]
    assert [(reply.status, reply.headers["retry-after"]) for reply in replies] == [(429, "9")] * 3
    assert len(await house.upstream.log()) == 1
    clock.advance(8)
    assert (await asked(house)).headers["retry-after"] == "1"
    assert len(house.rows()) == 1  # the others were refused before anything was held


async def test_extra_tries_end_with_their_budget_and_say_when_to_come_back(open_house) -> None:
    house: House = await open_house(
        spare=True, retry={"share": 0.0, "per_s": 0.0, "burst": 2}, breaker={"failures_in_row": 1000}
    )
    for name in ("deepseek", "spare"):
        await house.upstreams[name].always("status:500")
    replies = [await asked(house, number) for number in range(3)]
    calls = len(await house.upstream.log()) + len(await house.upstreams["spare"].log())
    assert calls == 3 + 2
    assert [reply.headers.get("x-should-retry") for reply in replies] == ["false", None, None]
    assert replies[2].headers["retry-after"] == "1"


# --- accounts


async def test_a_conversation_stays_at_its_account_and_others_spread(open_house) -> None:
    house: House = await open_house(spare=True)
    first = [{"role": "user", "content": "Count to 3"}]
    for _ in range(4):
        await house.chat(messages=first)
        first = [*first, {"role": "assistant", "content": "1, 2, 3"}, {"role": "user", "content": "Count to 2"}]
    logs = [len(await house.upstreams[name].log()) for name in ("deepseek", "spare")]
    assert sorted(logs) == [0, 4]
    for number in range(10):
        await asked(house, number)
    spread = [len(await house.upstreams[name].log()) for name in ("deepseek", "spare")]
    assert min(after - before for before, after in zip(logs, spread, strict=True)) >= 4

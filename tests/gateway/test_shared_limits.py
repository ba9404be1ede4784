"""The promises of the guard through the front door, wherever the counts and the books are kept."""

import asyncio

import pytest
from front_door import House, charge, make_key

from databases import Postgres
from valkey_server import Server
from vipcloud.storage import engine as storage


@pytest.fixture(params=["memory", "valkey"])
def guard(request: pytest.FixtureRequest) -> dict[str, str]:
    """The guard's settings, once for each kind."""
    if request.param == "memory":
        return {"backend": "memory"}
    server: Server = request.getfixturevalue("valkey")
    return {"backend": "valkey", "url": server.url}


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest) -> dict[str, str]:
    """The store's settings, once for each database."""
    if request.param == "sqlite":
        return {}
    postgres: Postgres = request.getfixturevalue("postgres")
    return {"url": postgres.create("tables")}


SLOWLY = "[[tokens=3 first_token_ms=3000]]"  # nothing ends before all have come


@pytest.mark.parametrize("stream", [False, True], ids=["unary", "stream"])
async def test_of_two_hundred_requests_at_once_credit_for_one_admits_one(
    open_house, guard: dict[str, str], store: dict[str, str], stream: bool
) -> None:
    house: House = await open_house(guard={**guard, "hold_slice_tokens": 0}, store=store)
    fields = {"max_tokens": 200, "stream": stream}
    hold = charge("deepseek-chat", len(house.body(SLOWLY, "deepseek-chat", fields)), 200)
    with storage.writing(house.engine) as connection:
        key = make_key(connection, credit=f"{(hold + 1000) / 1e9:.9f}", rpm=0, concurrency=0)
    with house.using(*key):
        replies = await asyncio.gather(*(house.chat(SLOWLY, **fields) for _ in range(200)))
        statuses = [reply.status for reply in replies]
        assert (statuses.count(200), statuses.count(402)) == (1, 199)
        [row] = house.rows()
        assert 0 < row.charge_nanousd <= hold
        assert house.credit() == hold + 1000 - row.charge_nanousd


async def test_limits_and_money_are_the_same_by_either_guard(open_house, guard: dict[str, str]) -> None:
    house: House = await open_house(guard=guard)
    with house.using(*house.new_key(rpm=3, concurrency=1, credit="0.01")):
        replies = [await house.chat(stream=stream) for stream in (False, True, False, False)]
        assert [reply.status for reply in replies] == [200, 200, 200, 429]
        assert [reply.headers["x-ratelimit-remaining-requests"] for reply in replies] == ["2", "1", "0", "0"]
        assert "3 requests per minute for this account" in replies[3].error["message"]
    with house.using(*house.new_key(credit="0.01", rpm=0, concurrency=1)):
        async with house.live("[[tokens=3 pace_ms=400]]") as one:
            assert (await house.chat()).status == 429
            await one.rest()
        assert (await house.chat()).status == 200


async def test_a_gateway_whose_counts_are_away_serves_what_is_free_and_says_so(open_house, valkey: Server) -> None:
    house: House = await open_house(guard={"backend": "valkey", "url": f"{valkey.url}.gone", "nodes": 2})
    with house.using(*house.new_key(rpm=60)):
        reply = await house.chat("Hello", "glm-4-flash")
        assert (reply.status, reply.headers["x-ratelimit-limit-requests"]) == (200, "30")
        refused = await house.chat("Hello", "deepseek-chat")
    assert (refused.status, refused.headers["retry-after"]) == (503, "2")
    ready = await house.ask("GET", "/readyz")
    assert (ready.status, ready.json["degraded"]) == (200, ["limits: the shared counts cannot be reached"])

"""The demo on the home page: no key, one free model, limits by address and in all."""

import asyncio

import pytest
from front_door import House, Reply

JSON = {"Content-Type": "application/json"}


async def ask(house: House, text: str = "Hello", headers: dict[str, str] | None = None, **fields: object) -> Reply:
    body = house.body(text, "whatever", fields)
    return await house.ask("POST", "/demo/chat/completions", body, {**JSON, **(headers or {})})


@pytest.fixture
async def house(open_house, clock) -> House:
    return await open_house(
        clock=clock,
        demo={"enabled": True, "rpd": 9, "address_rpd": 7},
        server={"trusted_proxies": ("127.0.0.0/8",)},
    )


@pytest.mark.parametrize("off", [{"demo": {"enabled": False}}, {"console": {"enabled": False}}])
async def test_it_goes_with_the_website_and_can_be_switched_off(open_house, off: dict[str, dict[str, bool]]) -> None:
    house = await open_house(**off)
    assert (await ask(house)).status == 404


async def test_the_free_model_answers_without_a_key(house: House) -> None:
    reply = await ask(house, max_tokens=100_000)
    assert (reply.status, reply.json["model"]) == (200, "glm-4-flash")
    stream = await ask(house, stream=True)
    assert stream.done
    call, _ = await house.upstreams["zhipu"].log()
    assert call["body"]["max_tokens"] == 1024
    row, _ = house.rows()
    assert (row.account_id, row.key_id, row.model, row.charge_nanousd) == (
        "demo",
        house.gateway.parts.visitors.name("127.0.0.1", int(row.started_at // 86_400)),
        "glm-4-flash",
        0,
    )


async def test_an_address_has_five_a_minute_and_one_at_a_time(house: House) -> None:
    replies = [await ask(house) for _ in range(6)]
    assert [reply.status for reply in replies] == [200] * 5 + [429]
    assert [reply.headers["x-ratelimit-remaining-requests"] for reply in replies] == ["4", "3", "2", "1", "0", "0"]
    assert "5 requests per minute for your address" in replies[5].error["message"]
    assert (await ask(house, headers={"CF-Connecting-IP": "1.2.3.4"})).status == 200
    together = await asyncio.gather(
        *(ask(house, "[[first_token_ms=300]]", {"X-Forwarded-For": "9.9.9.9, 2.2.2.2"}) for _ in range(2))
    )
    assert sorted(reply.status for reply in together) == [200, 429]


async def test_one_address_cannot_use_up_the_day_and_all_together_can(house: House, clock) -> None:
    statuses = []
    for _ in range(8):
        statuses.append((await ask(house, headers={"CF-Connecting-IP": "2001:db8:1:2::1"})).status)
        clock.advance(30)
    assert statuses == [200] * 7 + [429]
    neighbour = await ask(house, headers={"CF-Connecting-IP": "2001:db8:1:2:ffff::9"})
    assert "7 requests per day (UTC) for your address" in neighbour.error["message"]
    replies = [await ask(house, headers={"CF-Connecting-IP": f"2.2.2.{number}"}) for number in range(3)]
    assert [reply.status for reply in replies] == [200, 200, 429]
    assert "9 requests per day (UTC) for the demo in all" in replies[2].error["message"]
    clock.advance(86_400)
    assert (await ask(house)).status == 200


async def test_other_sites_may_not_use_it(house: House) -> None:
    for site in ("cross-site", "same-site"):
        refused = await ask(house, headers={"Sec-Fetch-Site": site, "Origin": "https://other.example"})
        assert refused.status == 403
        assert "access-control-allow-origin" not in refused.headers
    preflight = await house.ask("OPTIONS", "/demo/chat/completions", headers={"Origin": "https://other.example"})
    assert preflight.status == 403
    assert "access-control-allow-origin" not in preflight.headers
    own = await ask(house, headers={"Sec-Fetch-Site": "same-origin"})
    assert own.status == 200
    assert "access-control-allow-origin" not in own.headers


async def test_what_is_too_much_is_refused(house: House) -> None:
    assert (await ask(house, "x" * 17_000)).status == 413
    assert (await ask(house, n=2)).error["param"] == "n"
    assert (await house.ask("POST", "/demo/chat/completions", b"{", JSON)).status == 400


async def test_a_model_that_costs_something_is_not_given_away(open_house) -> None:
    house = await open_house(demo={"enabled": True, "model": "deepseek-chat"})
    assert (await ask(house)).status == 501

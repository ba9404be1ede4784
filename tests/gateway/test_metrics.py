"""`GET /metrics`: what it says, and to whom."""

import re
from typing import Any

import msgspec
import pytest
from front_door import House, Reply, eventually
from prometheus_client.parser import text_string_to_metric_families

from vipcloud.ledger import bookkeeper
from vipcloud.ledger.bookkeeper import Bookkeeper
from vipcloud.settings import Secret
from vipcloud.telemetry.families import FAMILIES

LOCAL = {"Host": "localhost:8080"}
PROCESS = re.compile(r"process_|python_")


async def scrape(house: House) -> dict[str, dict[tuple[str, ...], float]]:
    """Every sample by name, and by its values in the order of its family's labels."""
    reply = await house.ask("GET", "/metrics", headers=LOCAL)
    assert reply.status == 200, reply.body
    assert reply.headers["content-type"].startswith("text/plain")
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(reply.body.decode()):
        if not PROCESS.match(family.name):
            assert family.name in FAMILIES, family.name
            assert family.documentation == FAMILIES[family.name].meaning
            assert family.type == FAMILIES[family.name].sort
        for sample in family.samples:
            names = FAMILIES[family.name].labels if family.name in FAMILIES else ()
            values = tuple(sample.labels[name] for name in names)
            found.setdefault(sample.name, {})[(*values, *filter(None, [sample.labels.get("le")]))] = sample.value
    return found


async def test_every_family_is_there_once_all_has_happened(house: House) -> None:
    await house.chat()
    await house.stream()
    await house.upstream.fails("status:500", "status:500", "status:500")
    await house.chat()
    await house.ask("POST", "/v1/chat/completions", b"{}", {"Authorization": "Bearer nobody"})
    Bookkeeper(house.engine, house.gateway.parts.settings.journal_path, house.gateway.parts.clock).round()
    text = (await house.ask("GET", "/v1/metrics", headers=LOCAL)).body.decode()
    assert [name for name in FAMILIES if f"# TYPE {name}" not in text] == []
    assert "process_open_fds" in text


async def test_requests_tokens_and_money_are_those_of_the_books(house: House) -> None:
    answered = await house.chat("Count to 7")
    streamed = await house.stream("Count to 9")
    await house.upstream.fails("status:400")
    refused = await house.chat()
    rows = {row.request_id: row for row in await house.settled(3)}
    seen = await scrape(house)
    model = ("deepseek-chat", "payg")
    assert seen["vipcloud_requests_total"] == {("200", "", *model): 2, ("400", "bad_request", *model): 1}
    assert seen["vipcloud_settled_total"] == {("complete", *model): 2, ("upstream_failed", *model): 1}
    used = [rows[answered.request_id], rows[streamed.request_id]]
    assert refused.status == 400
    assert seen["vipcloud_charged_nanousd_total"] == {model: sum(row.charge_nanousd for row in used)}
    assert seen["vipcloud_cost_nanousd_total"]["deepseek-chat", "deepseek"] == sum(row.cost_nanousd for row in used)
    base = ("chat", "deepseek", "deepseek-chat")
    tokens = seen["gen_ai_client_token_usage_sum"]
    assert tokens[(*base, "output")] == sum(row.completion_tokens for row in used)
    assert tokens[(*base, "input")] == seen["vipcloud_tokens_total"][("input", *model)]
    assert seen["gen_ai_client_token_usage_bucket"][(*base, "output", "+Inf")] == 2
    durations = seen["gen_ai_server_request_duration_seconds_sum"]
    assert durations[(*base, "")] == pytest.approx(sum(row.duration_ms for row in used) / 1000)
    assert seen["gen_ai_server_request_duration_seconds_count"][(*base, "upstream_failed")] == 1
    assert seen["gen_ai_server_time_to_first_token_seconds_count"] == {base: 1}


async def test_errors_name_what_was_known_of_the_request(house: House) -> None:
    await house.ask("POST", "/v1/chat/completions", b"{}", {"Authorization": "Bearer nobody"})
    await house.chat(model="nothing-like-it")
    await house.chat(temperature=99)
    await house.chat(model="kimi-k2")
    seen = await scrape(house)
    assert seen["vipcloud_requests_total"] == {
        ("401", "invalid_api_key", "", ""): 1,
        ("404", "model_not_found", "", "payg"): 1,
        ("400", "bad_request", "", "payg"): 1,
        ("501", "not_implemented", "", "payg"): 1,
    }


async def test_an_error_inside_a_stream_is_counted_by_its_own_status(house: House) -> None:
    reply = await house.stream("Count to 30 [[fault=cut:5]]")
    assert reply.stream_error
    seen = await scrape(house)
    assert seen["vipcloud_requests_total"] == {("502", "upstream_interrupted", "deepseek-chat", "payg"): 1}


async def test_failed_calls_retries_and_waste_are_told(open_house: Any) -> None:
    house: House = await open_house(spare=True)
    await house.upstream.always("reset")
    for _ in range(2):  # the accounts take turns
        assert (await house.chat()).status == 200
    await house.upstream.always("none")
    async with house.sent("Hello [[first_token_ms=5000]]", stream=True):
        await eventually(lambda: any(one.running for one in house.gateway.parts.upstreams.accounts))
    attempts = [row.attempts for row in await house.settled(3)]
    assert sum(attempts) > 3
    seen = await scrape(house)
    [(upstream, _, code)] = seen["vipcloud_upstream_failures_total"]
    assert (upstream, code) == ("deepseek/main", "upstream_error")
    assert seen["vipcloud_upstream_calls_total"]["deepseek-chat", "deepseek"] == sum(attempts)
    assert seen["vipcloud_upstream_retries_total"]["deepseek-chat", "deepseek"] == sum(attempts) - 3
    broke_off = sum(attempts) - 3
    assert seen["vipcloud_waste_calls_total"]["deepseek-chat", "deepseek"] == broke_off + 1
    assert seen["vipcloud_waste_nanousd_total"]["deepseek-chat", "deepseek"] > 0
    assert seen["vipcloud_waste_tokens_total"]["input", "deepseek-chat", "deepseek"] > 0
    assert seen["vipcloud_requests_total"]["499", "client_gone", "deepseek-chat", "payg"] == 1


async def test_breakers_and_accounts_show_their_state(open_house: Any) -> None:
    house: House = await open_house(breaker={"failures_in_row": 1})
    await house.upstream.fails("status:500", "status:500", "status:500")
    await house.chat()
    seen = await scrape(house)
    opened = {name for name, state in seen["vipcloud_upstream_breaker_state"].items() if state == 2}
    assert len(opened) == 1
    assert sum(seen["vipcloud_upstream_breaker_opened_total"].values()) == 1
    house.gateway.parts.upstreams.accounts[0].health.drained = True
    seen = await scrape(house)
    drained = [name for name, is_so in seen["vipcloud_upstream_status"].items() if name[2] == "drained" and is_so]
    assert {name[0] for name in drained} == {house.gateway.parts.upstreams.accounts[0].id}


async def test_what_is_open_is_counted(house: House) -> None:
    async with house.live("Count to 20 [[pace_ms=20]]") as answer:
        await answer.until(2)
        seen = await scrape(house)
        assert seen["vipcloud_open_streams"][()] == 1
        assert seen["vipcloud_open_connections"][()] == 2
        assert seen["vipcloud_running_requests"][()] == 2
        assert seen["vipcloud_upstream_running"][("deepseek/1",)] == 1
        await answer.rest()
    assert (await scrape(house))["vipcloud_open_streams"][()] == 0


async def test_the_bookkeeper_says_its_part_by_a_file(house: House) -> None:
    assert "vipcloud_ledger_breaks" not in await scrape(house)
    parts = house.gateway.parts
    path = parts.settings.journal_path / bookkeeper.STATUS_FILE
    now = parts.clock.wall_s()
    told = bookkeeper.Status(now - 5, now - 90, 1234, checked_at=now - 30, breaks=("a", "b"), failing="disk")
    path.write_bytes(msgspec.json.encode(told))
    seen = await scrape(house)
    assert seen["vipcloud_journal_backlog_bytes"][()] == 1234
    assert 90 <= seen["vipcloud_bookkeeper_lag_seconds"][()] < 100
    assert 5 <= seen["vipcloud_bookkeeper_silence_seconds"][()] < 15
    assert (seen["vipcloud_ledger_breaks"][()], seen["vipcloud_bookkeeper_failing"][()]) == (2, 1)


@pytest.mark.parametrize(
    ("console", "headers", "status"),
    [
        ({}, {}, 200),
        ({}, {"X-Forwarded-For": "203.0.113.9"}, 404),
        ({}, {"CF-Connecting-IP": "203.0.113.9"}, 404),
        ({"public_url": "https://vipcloud.example"}, {}, 404),
    ],
)
async def test_without_a_token_only_this_machine_reads_it(
    open_house: Any, console: dict[str, str], headers: dict[str, str], status: int
) -> None:
    house: House = await open_house(console=console)
    reply: Reply = await house.ask("GET", "/metrics", headers={**LOCAL, **headers})
    assert reply.status == status
    assert "access-control-allow-origin" not in reply.headers


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("127.0.0.1:8080", 200),
        ("[::1]:8080", 200),
        ("LOCALHOST:8080", 200),
        ("attacker.example:8080", 404),
        ("localhost.attacker.example", 404),
        ("192.168.1.7", 404),
        ("", 404),
    ],
)
async def test_it_is_not_read_by_a_website_whose_name_was_pointed_here(house: House, host: str, status: int) -> None:
    assert (await house.ask("GET", "/metrics", headers={"Host": host})).status == status


async def test_with_a_token_only_who_sends_it_reads_it(open_house: Any) -> None:
    house: House = await open_house(telemetry={"metrics_token": Secret("let-me-see")})
    for headers, status in (
        ({}, 401),
        ({"Authorization": "Bearer let-me"}, 401),
        (house.head(), 401),
        ({"Authorization": "Bearer let-me-see", "X-Forwarded-For": "203.0.113.9"}, 200),
    ):
        assert (await house.ask("GET", "/metrics", headers=headers)).status == status, headers


async def test_no_other_site_may_ask_for_it(house: House) -> None:
    asked = {"Origin": "https://evil.example", "Access-Control-Request-Method": "GET"}
    assert (await house.ask("OPTIONS", "/metrics", headers=asked)).status == 403


async def test_answers_say_where_the_time_went(house: House) -> None:
    unary = await house.chat("Hello [[first_token_ms=40]]")
    stream = await house.stream("Hello [[first_token_ms=40]]")
    for reply in (unary, stream):
        told = re.fullmatch(r"gateway;dur=(\d+), upstream;dur=(\d+)", reply.headers["server-timing"])
        assert told is not None, reply.headers
        assert int(told[2]) >= 30

"""Counts of a day outlast the gateway; who the demo's visitors were outlasts the day for nobody."""

import os
import stat
from pathlib import Path

from front_door import House
from test_demo import ask

from vipcloud.gateway.visitors import DayCounts, Visitors

NOON = {"demo": {"enabled": True, "rpd": 9, "address_rpd": 3, "address_rpm": 0}}
PROXY = {"server": {"trusted_proxies": ("127.0.0.0/8",)}}


def names(path: Path) -> Visitors:
    return Visitors(path, os.urandom)


def test_a_name_holds_for_its_day_and_across_processes(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    first = names(path)
    name = first.name("203.0.113.7", 20_000)
    assert name == first.name("203.0.113.7", 20_000) == names(path).name("203.0.113.7", 20_000)
    assert first.name("203.0.113.8", 20_000) != name
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    before = path.read_text()
    assert first.name("203.0.113.7", 20_001) != name
    assert before.split()[1] not in path.read_text(), "yesterday's secret is gone"
    assert first.name("203.0.113.7", 20_000) != name


def test_a_secret_that_the_gateway_before_began_is_taken_over(tmp_path: Path) -> None:
    elder, successor = names(tmp_path / "secret"), names(tmp_path / "secret")
    assert elder.name("203.0.113.7", 20_000) == successor.name("203.0.113.7", 20_000)


def test_a_file_that_is_none_of_ours_is_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    for text in ("", "20000", "20000 abcd", "x" * 100, "20000 " + "zz" * 32):
        path.write_text(text)
        assert names(path).name("a", 20_000) == names(path).name("a", 20_000)


def test_a_folder_that_takes_no_file_costs_only_the_memory(tmp_path: Path) -> None:
    lost = names(tmp_path / "nowhere" / "secret")
    assert lost.name("a", 1) == lost.name("a", 1)


async def test_the_demos_counts_go_on_in_the_next_gateway(open_house) -> None:
    house: House = await open_house(**NOON, **PROXY)
    for _ in range(3):
        assert (await ask(house, headers={"CF-Connecting-IP": "198.51.100.1"})).status == 200
    assert (await ask(house, headers={"CF-Connecting-IP": "198.51.100.2"})).status == 200
    assert "198.51.100.1" not in str(house.rows())
    house.rows()
    again: House = await open_house(**NOON, **PROXY, journal={"worker": "another"})
    refused = await ask(again, headers={"CF-Connecting-IP": "198.51.100.1"})
    assert refused.status == 429
    assert "3 requests per day (UTC) for your address" in refused.error["message"]
    second = await ask(again, headers={"CF-Connecting-IP": "198.51.100.2"})
    assert (second.status, second.headers["x-ratelimit-remaining-requests-day"]) == (200, "1")
    for number in range(4):
        assert (await ask(again, headers={"CF-Connecting-IP": f"203.0.113.{number}"})).status == 200
    refused = await ask(again, headers={"CF-Connecting-IP": "203.0.113.9"})
    assert "9 requests per day (UTC) for the demo in all" in refused.error["message"]


async def test_an_accounts_day_goes_on_in_the_next_gateway(open_house) -> None:
    house: House = await open_house()
    key, account_id = house.new_key(rpd=5)
    with house.using(key, account_id):
        assert [(await house.chat(model="glm-4-flash")).status for _ in range(3)] == [200] * 3
        house.rows()
    again: House = await open_house(journal={"worker": "another"})
    with again.using(key, account_id):
        standing = await again.ask("GET", "/v1/models")
        assert standing.headers["x-ratelimit-remaining-requests-day"] == "2"
        assert [(await again.chat(model="glm-4-flash")).status for _ in range(3)] == [200, 200, 429]


async def test_another_days_requests_do_not_count(open_house, clock) -> None:
    house: House = await open_house(clock=clock)
    key, account_id = house.new_key(rpd=2)
    with house.using(key, account_id):
        assert [(await house.chat(model="glm-4-flash")).status for _ in range(3)] == [200, 200, 429]
        house.rows()
    clock.advance(86_400)
    again: House = await open_house(clock=clock, journal={"worker": "another"})
    with again.using(key, account_id):
        assert (await again.chat(model="glm-4-flash")).status == 200
    counts = DayCounts(again.engine, 1, again.gateway.parts.visitors)
    assert counts.before(account_id, 1) == 0

"""Keys and activity for programs: OpenRouter's shapes, what a key may and may not, and nobody else's anything."""

import json
import re
import time
from decimal import Decimal
from typing import Any

import pytest
from front_door import House, Reply, eventually

from vipcloud.accounts import rules, store
from vipcloud.accounts.store import KeyTerms
from vipcloud.cli import context
from vipcloud.clock import rfc3339
from vipcloud.limits.caps import Caps
from vipcloud.storage import engine as storage

DAY_S = 86_400
# Of OpenRouter's schemas, what their SDKs insist on.
KEY_FIELDS = {
    "hash", "name", "label", "disabled", "limit", "limit_remaining", "limit_reset", "include_byok_in_limit", "usage",
    "usage_daily", "usage_weekly", "usage_monthly", "byok_usage", "byok_usage_daily", "byok_usage_weekly",
    "byok_usage_monthly", "created_at", "updated_at", "expires_at", "creator_user_id", "external_user", "last_used_at",
    "workspace_id",
}  # fmt: skip
ACTIVITY_FIELDS = {
    "date", "model", "model_permaslug", "endpoint_id", "provider_name", "usage", "byok_usage_inference", "requests",
    "prompt_tokens", "completion_tokens", "reasoning_tokens",
}  # fmt: skip


def management_key(house: House, account_id: str | None = None, **terms: Any) -> str:
    with storage.writing(house.engine) as connection:
        now_s = house.gateway.parts.clock.wall_s()
        owner = account_id or house.account_id
        return store.create_key(
            connection, owner, now_s, context.random_bytes, "ops", KeyTerms(management=True, **terms)
        ).plaintext


@pytest.fixture
def manager(house: House) -> "Manager":
    return Manager(house, management_key(house))


class Manager:
    """Asks with a management key."""

    def __init__(self, house: House, key: str) -> None:
        self.house, self.key = house, key

    async def __call__(self, method: str, path: str, fields: Any = None, *, status: int | None = None) -> Reply:
        body = b"" if fields is None else fields if isinstance(fields, bytes) else json.dumps(fields).encode()
        head = {"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"}
        reply = await self.house.ask(method, f"/v1{path}", body, head)
        assert status is None or reply.status == status, reply.body
        return reply

    async def make(self, name: str = "a key", **fields: Any) -> tuple[str, Any]:
        """A new key, and what is told of it."""
        made = (await self("POST", "/keys", {"name": name, **fields}, status=201)).json
        return made["key"], made["data"]

    async def told(self, key_hash: str) -> Any:
        return (await self("GET", f"/keys/{key_hash}", status=200)).json["data"]

    async def change(self, key_hash: str, **fields: Any) -> Any:
        return (await self("PATCH", f"/keys/{key_hash}", fields, status=200)).json["data"]


async def status_of(house: House, key: str, **fields: Any) -> Reply:
    with house.using(key, house.account_id):
        return await house.chat(**fields)


# --- keys


async def test_a_key_is_made_shown_once_and_works(house: House, manager: Manager) -> None:
    reply = await manager("POST", "/keys", {"name": "customer 7"}, status=201)
    assert list(reply.json) == ["data", "key"]
    key, data = reply.json["key"], reply.json["data"]
    assert rules.well_formed(key)
    assert reply.headers["cache-control"] == "no-store"
    assert set(data) >= KEY_FIELDS
    assert data["hash"] == rules.key_hash(key.encode()).hex()
    assert (data["name"], data["label"], data["disabled"]) == ("customer 7", rules.masked(key), False)
    assert (data["limit"], data["limit_remaining"], data["limit_reset"]) == (None, None, None)
    assert (data["usage"], data["byok_usage"], data["updated_at"], data["expires_at"]) == (0, 0, None, None)
    assert (await status_of(house, key)).status == 200
    later = await manager("GET", f"/keys/{data['hash']}", status=200)
    assert list(later.json) == ["data"]
    assert key not in later.body.decode() + (await manager("GET", "/keys")).body.decode()


async def test_all_terms_are_kept_and_told(house: House, manager: Manager) -> None:
    wanted = {
        "limit": 12.5,
        "limit_reset": "monthly",
        "expires_at": "2099-01-31T12:00:00Z",
        "allowed_models": ["glm-4-air", "deepseek-chat"],
        "allowed_ips": ["10.0.0.0/8", "2001:db8::7"],
        "rpm": 3,
        "rpd": 40,
        "concurrency": 2,
    }
    _, data = await manager.make(**wanted, include_byok_in_limit=False)
    told = await manager.told(data["hash"])
    assert told == data
    assert {name: told[name] for name in wanted} == {**wanted, "allowed_ips": ["10.0.0.0/8", "2001:db8::7/128"]}
    assert told["limit_remaining"] == 12.5
    assert told["caps"] == {"daily": None, "monthly": 12.5, "total": None}
    [row] = [row for row in keys_of(house) if row.hash.hex() == data["hash"]]
    assert row.caps == Caps(monthly_nanousd=12_500_000_000)
    unbound = await manager.change(data["hash"], **dict.fromkeys(wanted))
    assert {unbound[name] for name in wanted if not name.startswith("allowed")} == {None}
    assert unbound["allowed_models"] is unbound["allowed_ips"] is None
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", unbound["updated_at"])


def keys_of(house: House) -> list[store.KeyRow]:
    with storage.reading(house.engine) as connection:
        return store.list_keys(connection, house.account_id)


async def test_terms_made_here_bind_within_a_second(house: House, manager: Manager) -> None:
    key, data = await manager.make(allowed_models=["deepseek-chat"])
    assert (await status_of(house, key)).status == 200
    assert (await status_of(house, key, model="glm-4-air")).status == 404
    house.rows()  # what a limit is set on counts as far as booked
    for changes, expected in (
        ({"allowed_models": ["glm-4-air"]}, (404, "model_not_found")),
        ({"allowed_models": None, "allowed_ips": ["10.0.0.0/8"]}, (403, "forbidden")),
        ({"allowed_ips": None, "limit": 0}, (402, "budget_exceeded")),
        ({"limit": None, "disabled": True}, (401, "invalid_api_key")),
    ):
        await manager.change(data["hash"], **changes)
        await house.noticed()
        refused = await status_of(house, key)
        assert (refused.status, refused.error["code"]) == expected, changes
    assert "is disabled" in refused.error["message"]
    await manager.change(data["hash"], disabled=False)
    await house.noticed()
    assert (await status_of(house, key)).status == 200


async def test_the_gateway_itself_looks_for_changes_in_time(open_house) -> None:
    house: House = await open_house(housekeeping=True)
    manager = Manager(house, management_key(house))
    key, data = await manager.make()
    assert (await status_of(house, key)).status == 200
    await manager("DELETE", f"/keys/{data['hash']}")
    await eventually(lambda: house.gateway.parts.directory.lookup(key.encode()) is None, within_s=1.0)


async def test_a_deleted_key_is_gone_for_good(house: House, manager: Manager) -> None:
    key, data = await manager.make()
    deleted = await manager("DELETE", f"/keys/{data['hash']}", status=200)
    assert deleted.json == {"deleted": True}
    await house.noticed()
    refused = await status_of(house, key)
    assert (refused.status, refused.error["code"]) == (401, "invalid_api_key")
    for method, fields in (("GET", None), ("PATCH", {"disabled": False}), ("DELETE", None)):
        gone = await manager(method, f"/keys/{data['hash']}", fields, status=404)
        assert gone.error["code"] == "key_not_found"
    listed = (await manager("GET", "/keys?include_disabled=true")).json["data"]
    assert data["hash"] not in [row["hash"] for row in listed]
    await manager.make(data["name"])


async def test_keys_are_listed_newest_first_a_hundred_at_a_time(open_house, clock) -> None:
    clock.advance(time.time() + DAY_S - clock.wall_s())  # the key that is there was made a moment ago
    house: House = await open_house(clock=clock, accounts={"management_rpm": 0})
    manager = Manager(house, management_key(house))
    made = []
    for number in range(103):
        clock.advance(1)
        made.append((await manager.make(f"key {number}"))[1]["hash"])
    await manager.change(made[50], disabled=True)

    async def page(query: str) -> list[str]:
        return [row["hash"] for row in (await manager("GET", f"/keys{query}", status=200)).json["data"]]

    newest = made[::-1]
    own = rules.key_hash(house.key.encode()).hex()
    every = [*newest, own]
    shown = [key_hash for key_hash in every if key_hash != made[50]]
    assert await page("") == shown[:100]
    assert await page("?offset=100") == shown[100:]
    assert await page("?offset=100&include_disabled=true") == every[100:]
    assert await page("?include_disabled=1&offset=0") == every[:100]
    assert await page("?offset=500") == []


@pytest.mark.parametrize("query", ["offset=-1", "offset=x", "offset=", "offset=9999999999", "include_disabled=perhaps"])
async def test_a_list_asked_for_wrongly_is_refused(manager: Manager, query: str) -> None:
    refused = await manager("GET", f"/keys?{query}", status=400)
    assert refused.error["param"] == query.partition("=")[0]


@pytest.mark.parametrize(
    ("fields", "param", "says"),
    [
        ({}, "name", "Missing required parameter: 'name'."),
        ({"name": 7}, "name", "expected a string, but got an integer"),
        ({"name": " "}, "name", "Give the key a name."),
        ({"name": "x" * 101}, "name", "at most 100"),
        ({"name": "taken"}, "name", "A working key is named taken already"),
        ({"name": "x", "limit": -1}, "limit", "a value >= 0"),
        ({"name": "x", "limit": "5"}, "limit", "expected a decimal"),
        ({"name": "x", "limit": 0.00000000001}, "limit", "at most nine decimals"),
        ({"name": "x", "limit": 1e12}, "limit", "within the ledger's range"),
        ({"name": "x", "limit_reset": "weekly"}, "limit_reset", "Supported values are: 'daily' and 'monthly'."),
        ({"name": "x", "limit": 1, "caps": {"daily": 1}}, "caps", "'caps', or else 'limit'"),
        ({"name": "x", "caps": {"weekly": 1}}, "caps.weekly", "Unknown parameter"),
        ({"name": "x", "limits": 1}, "limits", "Unknown parameter: 'limits'."),
        ({"name": "x", "expires_at": "tomorrow"}, "expires_at", "2027-01-31T12:00:00Z"),
        ({"name": "x", "expires_at": "2099-01-31T12:00:00"}, "expires_at", "with its zone"),
        ({"name": "x", "expires_at": "2020-01-31T12:00:00Z"}, "expires_at", "later than now"),
        ({"name": "x", "allowed_models": ["gpt-9"]}, "allowed_models", "There is no model gpt-9."),
        ({"name": "x", "allowed_models": "glm-4-air"}, "allowed_models", "expected an array"),
        ({"name": "x", "allowed_ips": ["10.0.0.0/99"]}, "allowed_ips", "not an address or a network"),
        ({"name": "x", "rpm": 0}, "rpm", "a value >= 1"),
        ({"name": "x", "disabled": "yes"}, "disabled", "expected a boolean"),
        (b"", None, "the body is empty"),
        (b"[]", None, "must be one JSON object"),
        (b'{"name": "x"', None, "parse the JSON body"),
        (b'{"name": "\xff"}', None, "not valid UTF-8"),
    ],
)
async def test_a_wrong_wish_makes_no_key(house: House, manager: Manager, fields: Any, param: str, says: str) -> None:
    await manager.make("taken")
    before = keys_of(house)
    refused = await manager("POST", "/keys", fields, status=400)
    assert (refused.error["param"], refused.error["code"]) == (param, "bad_request")
    assert says in refused.error["message"]
    assert keys_of(house) == before


async def test_a_wrong_change_changes_nothing(house: House, manager: Manager) -> None:
    await manager.make("taken")
    _, data = await manager.make("mine", caps={"daily": 1, "total": 5})
    for fields in (
        {"name": "taken"},
        {"name": None},
        {"limit_reset": "daily"},
        {"allowed_models": ["x"]},
        {"hash": "x"},
    ):
        await manager("PATCH", f"/keys/{data['hash']}", fields, status=400)
    assert await manager.told(data["hash"]) == data
    assert (await manager.change(data["hash"]))["name"] == "mine"


async def test_a_body_that_is_no_json_by_its_type_is_refused(house: House, manager: Manager) -> None:
    head = {"Authorization": f"Bearer {manager.key}", "Content-Type": "text/plain"}
    refused = await house.ask("POST", "/v1/keys", b'{"name":"x"}', head)
    assert (refused.status, refused.error["code"]) == (415, "unsupported_media_type")


async def test_an_account_has_so_many_keys_and_no_more(open_house) -> None:
    house: House = await open_house(accounts={"keys_per_account_max": 3})
    manager = Manager(house, management_key(house))  # the second
    _, data = await manager.make("third")
    refused = await manager("POST", "/keys", {"name": "fourth"}, status=400)
    assert "3 keys are the most" in refused.error["message"]
    await manager("DELETE", f"/keys/{data['hash']}")
    await manager.make("fourth")


async def test_a_limit_moves_between_periods(manager: Manager) -> None:
    _, data = await manager.make(limit=10)
    key_hash = data["hash"]
    assert (data["limit"], data["limit_reset"]) == (10, None)
    for changes, limit, reset in (
        ({"limit_reset": "daily"}, 10, "daily"),
        ({"limit": 3}, 3, "daily"),
        ({"limit": 4.000000001, "limit_reset": None}, 4.000000001, None),
        ({"caps": {"daily": 2, "monthly": 1}}, 1, "monthly"),
        ({"limit": 7}, 7, "monthly"),
        ({"limit": None, "limit_reset": "daily"}, None, None),
        ({"limit_reset": "daily"}, None, None),
    ):
        told = await manager.change(key_hash, **changes)
        assert (told["limit"], told["limit_reset"], told["limit_remaining"]) == (limit, reset, limit), changes


async def test_what_a_key_spent_is_told_and_counts_against_a_limit_set_later(house: House, manager: Manager) -> None:
    key, data = await manager.make()
    with house.using(key, house.account_id):
        reply = await house.chat("Count to 30")
        house.rows()
        cost = Decimal(str(reply.usage["cost"]))
        told = json.loads((await manager("GET", f"/keys/{data['hash']}")).body, parse_float=Decimal)["data"]
        assert (data["last_used_at"], told["last_used_at"]) == (None, rfc3339(house.rows()[-1].started_at))
        spent = {told[name] for name in ("usage", "usage_daily", "usage_weekly", "usage_monthly")}
        assert spent == {cost} != {0}
        await manager.change(data["hash"], limit=float(cost))
        await house.noticed()
        assert (await house.chat()).error["code"] == "budget_exceeded"
        assert (await manager.told(data["hash"]))["limit_remaining"] == 0
        await manager.change(data["hash"], limit=None)
        await house.noticed()
        again = await house.chat("Count to 30")  # while nothing limits it, it is counted all the same
        assert again.status == 200
        await manager.change(data["hash"], limit=float(cost * Decimal("1.5")), limit_reset="monthly")
        await house.noticed()
        assert (await house.chat()).error["code"] == "budget_exceeded"


# --- who may


async def test_a_management_key_runs_nothing_and_reads_all_of_its_account(house: House, manager: Manager) -> None:
    for stream in (False, True):
        with house.using(manager.key, house.account_id):
            refused = await house.chat(stream=stream)
        assert (refused.status, refused.error["code"]) == (403, "forbidden")
        assert "A management key runs no requests" in refused.error["message"]
    assert await house.upstream.log() == []
    for path in ("/models", "/models/deepseek-chat", "/credits", "/key"):
        await manager("GET", path, status=200)
    assert (await manager("GET", "/key")).json["data"]["is_management_key"] is True
    assert (await house.ask("GET", "/v1/key")).json["data"]["is_management_key"] is False


ROUTES = [
    ("GET", "/keys", None),
    ("POST", "/keys", {"name": "x"}),
    ("GET", f"/keys/{'0' * 64}", None),
    ("PATCH", f"/keys/{'0' * 64}", {"disabled": True}),
    ("DELETE", f"/keys/{'0' * 64}", None),
    ("GET", "/activity", None),
]


@pytest.mark.parametrize(("method", "path", "fields"), ROUTES)
async def test_other_keys_manage_nothing(house: House, method: str, path: str, fields: Any) -> None:
    for key, expected in ((house.key, (403, "forbidden")), ("", (401, "invalid_api_key"))):
        refused = await Manager(house, key)(method, path, fields)
        assert (refused.status, refused.error["code"]) == expected
    assert len(keys_of(house)) == 1


async def test_a_management_key_has_an_end_and_a_place(open_house, clock) -> None:
    house: House = await open_house(clock=clock)
    near = Manager(house, management_key(house, expires_at=clock.wall_s() + 60, networks=["127.0.0.0/8"]))
    far = Manager(house, management_key(house, networks=["10.0.0.0/8"]))
    await near("GET", "/keys", status=200)
    await far("GET", "/keys", status=403)
    clock.advance(61)
    await near("GET", "/keys", status=401)


async def test_management_keys_are_neither_listed_nor_touched(house: House, manager: Manager) -> None:
    listed = (await manager("GET", "/keys?include_disabled=true")).json["data"]
    assert [row["hash"] for row in listed] == [rules.key_hash(house.key.encode()).hex()]
    for key in (manager.key, management_key(house)):
        for method, fields in (("GET", None), ("PATCH", {"disabled": True}), ("DELETE", None)):
            await manager(method, f"/keys/{rules.key_hash(key.encode()).hex()}", fields, status=404)


async def test_nobody_sees_or_touches_anothers_keys(house: House, manager: Manager) -> None:
    key, data = await manager.make("ours", limit=5)
    with house.using(key, house.account_id):
        await house.chat()
    house.rows()
    _, other_account = house.new_key()
    other = Manager(house, management_key(house, other_account))
    assert data["hash"] not in (await other("GET", "/keys?include_disabled=true")).body.decode()
    absent = await other("GET", f"/keys/{'0' * 64}", status=404)
    for method, fields in (("GET", None), ("PATCH", {"disabled": True}), ("DELETE", None)):
        refused = await other(method, f"/keys/{data['hash']}", fields, status=404)
        assert refused.body == absent.body
    for key_hash in (data["hash"], "", "x"):
        await other("GET", f"/activity?api_key_hash={key_hash}", status=404)
    assert (await other("GET", "/activity")).json == {"data": []}
    assert (await manager.told(data["hash"]))["disabled"] is False
    await other.make("ours")  # names are an account's own


@pytest.mark.parametrize("key_hash", ["x", "0" * 63, "0" * 65, "%00", "../credits", "g" * 64, "0" * 64 + "/rotate"])
async def test_hashes_that_are_none_lead_nowhere(manager: Manager, key_hash: str) -> None:
    refused = await manager("GET", f"/keys/{key_hash}", status=404)
    assert refused.error["code"] == "key_not_found"


async def test_the_routes_are_served_below_v1_only(house: House, manager: Manager) -> None:
    for method, path, fields in ROUTES[:-1]:
        body = b"" if fields is None else json.dumps(fields).encode()
        head = {"Authorization": f"Bearer {manager.key}", "Content-Type": "application/json"}
        assert (await house.ask(method, path, body, head)).error["code"] == "not_found"
    preflight = await house.ask("OPTIONS", "/v1/keys/x", headers={"Origin": "https://app.example"})
    assert preflight.status == 204
    assert "PATCH" in preflight.headers["access-control-allow-methods"]


async def test_an_account_may_ask_so_often_whatever_it_asks(open_house, clock) -> None:
    house: House = await open_house(clock=clock, accounts={"management_rpm": 3})
    manager = Manager(house, management_key(house))
    second = Manager(house, management_key(house))
    other = Manager(house, management_key(house, house.new_key()[1]))
    await manager("GET", "/keys", status=200)
    await manager("GET", "/activity", status=200)
    await second("POST", "/keys", {"name": ""}, status=400)
    refused = await manager("POST", "/keys", {"name": "x"}, status=429)
    assert "3 requests per minute to the management API" in refused.error["message"]
    assert 60 <= int(refused.headers["retry-after"]) <= 66
    await other("GET", "/keys", status=200)
    assert (await house.chat()).status == 200
    clock.advance(60)
    await manager.make("x")


# --- activity


async def test_activity_tells_each_day_and_model_of_the_last_thirty(open_house, clock) -> None:
    clock.advance(DAY_S - clock.wall_s() % DAY_S + 1)  # a day's first second
    house: House = await open_house(clock=clock)
    manager = Manager(house, management_key(house))
    key, data = await manager.make()
    for day in (1, 2):
        for model, count in (("deepseek-chat", day), ("glm-4-air", 1)):
            for _ in range(count):
                reply = await house.chat(model=model, stream=day == 2)
                assert reply.status == 200
        with house.using(key, house.account_id):
            await house.chat(model="glm-4-plus")
        clock.advance(DAY_S)
    house.rows()
    today = await house.chat()
    assert today.status == 200
    house.rows()

    async def told(query: str = "") -> Any:
        reply = await manager("GET", f"/activity{query}", status=200)
        return json.loads(reply.body, parse_float=Decimal)["data"]

    rows = await told()
    assert [(row["model"], row["requests"]) for row in rows] == [
        ("deepseek-chat", 2),
        ("glm-4-air", 1),
        ("glm-4-plus", 1),
        ("deepseek-chat", 1),
        ("glm-4-air", 1),
        ("glm-4-plus", 1),
    ]
    assert len({row["date"] for row in rows}) == 2
    booked = house.rows()
    for row in rows:
        assert set(row) >= ACTIVITY_FIELDS
        same = [each for each in booked if each.model == row["model"] and day_of(each.started_at) == row["date"]]
        assert row["usage"] * 10**9 == sum(each.charge_nanousd for each in same)
        assert row["prompt_tokens"] == sum(each.prompt_tokens for each in same)
        assert row["completion_tokens"] == sum(each.completion_tokens for each in same)
        assert row["tokens"]["input"] + row["tokens"]["cached_input"] == row["prompt_tokens"]
    assert rows[0]["provider_name"] == "DeepSeek"
    assert await told(f"?date={rows[-1]['date']}") == rows[3:]
    assert [row["model"] for row in await told(f"?api_key_hash={data['hash']}")] == ["glm-4-plus"] * 2
    for date in (day_of(clock.wall_s()), "2020-01-01", "2026-13-01", "yesterday", ""):
        refused = await manager("GET", f"/activity?date={date}", status=400)
        assert refused.error["param"] == "date"
    clock.advance(30 * DAY_S)
    assert [(row["model"], row["requests"]) for row in await told()] == [("deepseek-chat", 1)]


def day_of(at_s: float) -> str:
    return rfc3339(at_s)[:10]

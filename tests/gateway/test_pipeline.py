"""A completion from its key to its answer: who may ask, what is admitted, what goes upstream, what comes back."""

import asyncio
import errno
import json
from collections import Counter

import pytest
from front_door import PRICES, House, Reply, booked_id, charge, comes_true, request, upstream_cost

from vipcloud.accounts import rules, store
from vipcloud.ledger import journal
from vipcloud.ledger import store as ledger
from vipcloud.storage import engine as storage
from wire import dial

CHAT = "/v1/chat/completions"


# --- answers


@pytest.mark.parametrize("stream", [False, True], ids=["unary", "stream"])
@pytest.mark.parametrize("model", PRICES)
async def test_every_model_on_sale_answers_and_is_booked(house: House, model: str, stream: bool) -> None:
    reply = await house.chat("Count to 5", model, stream=stream)
    assert reply.status == 200, reply.body
    assert reply.text == "1, 2, 3, 4, 5"
    answers = reply.chunks if stream else [reply.json]
    assert {(answer["id"], answer["model"]) for answer in answers} == {(reply.request_id, model)}
    assert not stream or reply.done

    row = house.usage(reply.request_id)
    assert row is not None
    told = reply.usage
    assert (row.prompt_tokens, row.completion_tokens) == (told["prompt_tokens"], told["completion_tokens"])
    assert (row.outcome, row.streamed, row.estimated, row.attempts) == ("complete", stream, False, 1)
    assert row.charge_nanousd == charge(model, row.prompt_tokens, row.completion_tokens)
    catalogued = house.gateway.parts.catalog.model(model)
    candidate = next(one for one in catalogued.candidates if one.upstream_model == row.upstream_model)
    assert row.cost_nanousd == upstream_cost(
        candidate, row.started_at, row.prompt_tokens, row.cached_tokens, row.completion_tokens
    )
    assert house.credit() == 5_000_000_000 - row.charge_nanousd


async def test_usage_comes_in_a_chunk_of_its_own_where_it_is_asked_for(house: House) -> None:
    reply = await house.stream(stream_options={"include_usage": True})
    assert reply.done
    *before, last = reply.chunks
    assert (last["choices"], last["usage"]["total_tokens"]) == ([], 17)
    assert all(chunk["usage"] is None for chunk in before)


async def test_the_upstream_gets_our_bytes_and_our_key(house: House) -> None:
    odd = b'{ "messages" :[{"content":"caf\\u00e9","role":"user"}],"model":"deepseek-chat","user":"me","x-extra":1}'
    headers = {**house.head(), "Cookie": "session=1", "OpenAI-Organization": "org", "User-Agent": "caller/1"}
    assert (await house.ask("POST", CHAT, odd, headers)).status == 200
    (got,) = await house.upstream.log()
    assert got["headers"]["authorization"] == "Bearer sk-ours"
    assert not {"cookie", "openai-organization"} & set(got["headers"])
    sent = json.dumps(got, ensure_ascii=False)
    assert got["body"]["messages"] == [{"role": "user", "content": "café"}]
    for of_the_caller in (house.key, "caller/1", "session=1", "x-extra", '"me"', "gateway.example"):
        assert of_the_caller not in sent


async def test_a_doubled_field_means_the_same_to_us_and_upstream(house: House) -> None:
    doubled = b'{"model":"deepseek-chat","messages":[{"role":"user","content":"one"}],"max_tokens":1,"max_tokens":2}'
    assert (await house.ask("POST", CHAT, doubled)).status == 200
    (got,) = await house.upstream.log()
    assert got["body_text"].count("max_tokens") == 1
    assert got["body"]["max_tokens"] == 2


@pytest.mark.parametrize("stream", [False, True], ids=["unary", "stream"])
async def test_tool_calls_come_through(house: House, stream: bool) -> None:
    weather = {
        "type": "function",
        "function": {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}},
    }
    reply = await house.chat("What is the weather in Paris?", tools=[weather], stream=stream)
    assert reply.status == 200
    if stream:
        calls = [call for chunk in reply.chunks for call in chunk["choices"][0]["delta"].get("tool_calls", ())]
        name, arguments = calls[0]["function"]["name"], "".join(call["function"]["arguments"] for call in calls)
        reason = reply.chunks[-1]["choices"][0]["finish_reason"]
    else:
        choice = reply.json["choices"][0]
        (call,) = choice["message"]["tool_calls"]
        name, arguments, reason = call["function"]["name"], call["function"]["arguments"], choice["finish_reason"]
    assert (name, json.loads(arguments), reason) == ("weather", {"city": "Paris"}, "tool_calls")


# --- who may ask


def spoiled(key: str) -> str:
    """The key with one digit changed: its checksum no longer fits."""
    return key[:20] + ("a" if key[20] != "a" else "b") + key[21:]


@pytest.mark.parametrize(
    "header",
    [
        ("Authorization", "Bearer {}"),
        ("Authorization", "bearer {}"),
        ("authorization", "BEARER {}"),
        ("Authorization", "Bearer   {}  "),
        ("x-api-key", "{}"),
        ("X-Api-Key", "{} "),
        ("api-key", "{}"),
    ],
)
async def test_a_key_may_come_in_several_headers(house: House, header: tuple[str, str]) -> None:
    name, form = header
    assert (await house.ask("GET", "/v1/models", headers={name: form.format(house.key)})).status == 200


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ({}, "No API key was given"),
        ({"Authorization": "Bearer "}, "No API key was given"),
        ({"Authorization": "Bearer"}, "No API key was given"),
        ({"Authorization": "Basic dTpw"}, "must be 'Bearer'"),
        ({"Authorization": "{key}"}, "must be 'Bearer'"),
        ({"Authorization": "Bearer nonsense"}, "Incorrect API key provided: no…"),
        ({"Authorization": "Bearer {spoiled}"}, "Incorrect API key provided: vc-sk-"),
        ({"Authorization": "Bearer {unknown}"}, "Incorrect API key provided: vc-sk-"),
        ({"Authorization": "Bearer {key} x"}, "Incorrect API key provided: vc-sk-"),
        ({"x-api-key": "{unknown}"}, "Incorrect API key provided: vc-sk-"),
        ({"Authorization": "Bearer " + "x" * 5000}, "Incorrect API key provided: xx"),
        ({"Authorization": "Bearer \xff\xfe"}, "Incorrect API key provided: "),
    ],
)
async def test_anything_but_a_key_of_ours_is_401(house: House, header: dict[str, str], said: str) -> None:
    unknown = rules.mint(bytes(range(64)))
    values = {"key": house.key, "spoiled": spoiled(house.key), "unknown": unknown}
    headers = {name: value.format(**values) for name, value in header.items()}
    for path, method, body in (("/v1/models", "GET", b""), (CHAT, "POST", b"{")):
        reply = await house.ask(method, path, body, headers)
        assert (reply.status, reply.error["code"]) == (401, "invalid_api_key")
        assert said in reply.error["message"]
        assert reply.headers["x-should-retry"] == "false"
        for key in values.values():
            assert key.encode() not in reply.body
    assert house.rows() == []


async def test_a_revoked_key_is_refused_from_the_next_poll_on(open_house) -> None:
    house: House = await open_house(housekeeping=True)
    assert (await house.chat()).status == 200
    with storage.writing(house.engine) as connection:
        store.revoke_key(connection, house.key, 0)
    await comes_true(lambda: house.ask("GET", "/v1/models"), lambda reply: reply.status == 401)
    assert "has been revoked" in (await house.chat()).error["message"]


async def test_a_suspended_account_is_403_until_it_is_opened_again(house: House) -> None:
    assert (await house.chat()).status == 200
    for suspended, status in ((True, 403), (False, 200)):
        with storage.writing(house.engine) as connection:
            store.set_suspended(connection, house.account_id, suspended=suspended)
        await house.noticed()
        assert (await house.chat()).status == status


async def test_a_new_key_works_although_it_was_tried_before_it_existed(house: House) -> None:
    key, _ = house.new_key(account_id=house.account_id)
    assert (await house.ask("GET", "/v1/models", headers={"x-api-key": key})).status == 200


async def test_what_a_recurring_head_said_is_never_taken_for_what_another_says(house: House) -> None:
    """A head that has come twice is known from then on, with all that was found in it; each is sent four times here."""
    other, other_account = house.new_key()
    body = house.body("Hello", "deepseek-chat", {})
    json_type = {"Content-Type": "application/json"}
    async with dial(house.port) as wire:

        async def ask(headers: dict[str, str], status: int) -> None:
            wire.send(request("POST", CHAT, body, json_type | headers))
            assert (await wire.answer()).status == status

        for _ in range(2):
            for headers, status in (
                ({"Authorization": f"Bearer {house.key}"}, 200),
                ({"x-api-key": other}, 200),
                ({"Authorization": f"Bearer {other}"}, 200),
                ({"api-key": "nonsense"}, 401),
                ({"Authorization": f"Bearer {house.key}", "Content-Type": "text/plain"}, 415),
                ({"Authorization": f"Bearer {house.key}", "x-vipcloud-rescue": "nonsense"}, 400),
                ({}, 401),
            ):
                for _ in range(4):
                    await ask(headers, status)
        with storage.writing(house.engine) as connection:
            store.revoke_key(connection, other, 0)
        await house.noticed()
        for headers, status in (
            ({"Authorization": f"Bearer {other}"}, 401),
            ({"x-api-key": other}, 401),
            ({"Authorization": f"Bearer {house.key}"}, 200),
        ):
            for _ in range(4):
                await ask(headers, status)
    charged = Counter(row.account_id for row in house.rows())
    assert charged == {house.account_id: 12, other_account: 16}


async def test_an_idempotency_key_in_a_recurring_head_is_heeded_each_time(house: House) -> None:
    body = house.body("Hello", "deepseek-chat", {})
    async with dial(house.port) as wire:
        for key in ("", "Idempotency-Key", ""):
            headers = {"Authorization": f"Bearer {house.key}", "Content-Type": "application/json"}
            headers |= {key: "one"} if key else {}
            for _ in range(4):
                wire.send(request("POST", CHAT, body, headers))
                answer = await wire.answer()
                assert answer.status in ((200, 409) if key else (200,))
    assert len(house.rows()) == 4 + 1 + 4


# --- what is admitted


async def test_a_rate_limit_is_exact_and_told_in_headers(open_house, clock) -> None:
    house: House = await open_house(clock=clock)
    with house.using(*house.new_key(rpm=3)):
        replies = [await house.chat() for _ in range(4)]
        assert [reply.status for reply in replies] == [200, 200, 200, 429]
        limits = [
            (reply.headers["x-ratelimit-limit-requests"], reply.headers["x-ratelimit-remaining-requests"])
            for reply in replies[:3]
        ]
        assert limits == [("3", "2"), ("3", "1"), ("3", "0")]
        assert replies[3].error["code"] == "rate_limited"
        assert replies[3].headers["x-ratelimit-remaining-requests"] == "0"
        assert 60 <= int(replies[3].headers["retry-after"]) <= 65, "rounded up, and a little later for each"
        clock.advance(59)
        assert (await house.chat()).headers["retry-after"] in ("1", "2")
        clock.advance(1)
        assert [(await house.chat()).status for _ in range(4)] == [200, 200, 200, 429]
        assert len(house.rows()) == 6


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/v1/chat/completions", b"{", 400),
        ("POST", "/v1/chat/completions", b'{"model": "none", "messages": [{"role": "user", "content": "x"}]}', 404),
        ("POST", "/v1/chat/completions", b'{"model": "kimi-k2", "messages": [{"role": "user", "content": "x"}]}', 501),
        ("GET", "/v1/models", b"", 200),
        ("GET", "/v1/models/none", b"", 404),
    ],
)
async def test_every_answer_to_a_known_key_tells_how_its_limits_stand(
    house: House, method: str, path: str, body: bytes, status: int
) -> None:
    with house.using(*house.new_key(rpm=3, rpd=7)):
        await house.stream()
        for _ in range(2):
            reply = await house.ask(method, path, body)
            assert reply.status == status
            assert reply.headers["x-ratelimit-limit-requests"] == "3"
            assert reply.headers["x-ratelimit-remaining-requests"] == "2"
            assert reply.headers["x-ratelimit-reset-requests"] in ("1m0s", "59s", "58s")
            assert reply.headers["x-ratelimit-remaining-requests-day"] == "6"


async def test_a_days_limit_begins_anew_at_midnight(open_house, clock) -> None:
    house: House = await open_house(clock=clock)
    with house.using(*house.new_key(rpm=0, rpd=2)):
        replies = [await house.chat() for _ in range(3)]
        assert [reply.status for reply in replies] == [200, 200, 429]
        wait_s = int(replies[2].headers["retry-after"])
        assert 0 <= wait_s - (86_400 - clock.wall_s() % 86_400) <= 6
        assert replies[1].headers["x-ratelimit-limit-requests-day"] == "2"
        assert [reply.headers["x-ratelimit-remaining-requests-day"] for reply in replies] == ["1", "0", "0"]
        assert replies[2].headers["x-ratelimit-reset-requests-day"] == "12h53m20s"
        clock.advance(wait_s)
        assert (await house.chat()).status == 200


async def test_requests_at_the_same_time_are_counted_and_come_free(house: House) -> None:
    with house.using(*house.new_key(rpm=0, concurrency=2)):
        async with house.live("x [[tokens=3 pace_ms=400]]") as one, house.live("y [[tokens=3 pace_ms=400]]") as two:
            await one.until(2)
            await two.until(2)
            reply = await house.chat()
            assert (reply.status, reply.headers["retry-after"]) in ((429, "1"), (429, "2"))
            one.wire.close()
            await house.settled(1)
            assert (await house.chat()).status == 200


async def test_a_request_beyond_the_credit_is_402(house: House) -> None:
    with house.using(*house.new_key(credit="0.00001")):
        reply = await house.chat()
        assert (reply.status, reply.error["code"]) == (402, "insufficient_credit")
        assert "$0.00001" in reply.error["message"]
        assert (await house.chat(model="glm-4-flash")).status == 200  # free of charge
        assert [row.model for row in house.rows()] == ["glm-4-flash"]


async def test_credit_that_covers_part_of_the_answer_shortens_it_and_says_so(house: House) -> None:
    with house.using(*house.new_key(credit="0.0002")):
        reply = await house.chat("[[tokens=500]]")
        body_bytes = len(house.body("[[tokens=500]]", "deepseek-chat", {}))
        covered = (200_000 - body_bytes * 310) // 1270  # nano-dollars: 310 a token in, 1270 a token out
        assert reply.status == 200
        assert reply.headers["x-vipcloud-max-tokens"] == str(covered)
        assert reply.json["choices"][0]["finish_reason"] == "length"
        assert reply.usage["completion_tokens"] == covered
        assert (await house.upstream.log())[0]["body"]["max_tokens"] == covered
        assert house.credit() == 200_000 - charge("deepseek-chat", reply.usage["prompt_tokens"], covered) >= 0


async def test_new_credit_counts_from_the_next_poll_on(house: House) -> None:
    key, account_id = house.new_key(credit="0")
    with house.using(key, account_id):
        assert (await house.chat()).status == 402
        with storage.writing(house.engine) as connection:
            ledger.grant(connection, "later", account_id, 1_000_000_000, 0.0)
        await house.noticed()
        assert (await house.chat()).status == 200


REFUSED = [
    ("POST", {"messages": ...}, 400),
    ("POST", {"model": "gpt-9"}, 404),
    ("POST", {"model": "kimi-k2"}, 501),
    ("POST", {"max_tokens": 0}, 400),
    ("POST", {"model": "deepseek-chat", "n": 2}, 501),
]


async def test_a_refusal_consumes_nothing(open_house, clock) -> None:
    house: House = await open_house(clock=clock)
    with house.using(*house.new_key(rpm=1, rpd=1)):
        for _, fields, status in REFUSED:
            reply = await house.chat(**fields)
            assert reply.status in (status, 400), reply.body
        assert (await house.chat()).status == 200
        assert (await house.chat()).status == 429
        assert len(house.rows()) == 1


async def test_models_that_are_not_switched_on_or_unknown_say_so(house: House) -> None:
    soon, unknown = await house.chat(model="qwen3-max"), await house.chat(model="x" * 5000)
    assert (soon.status, soon.error["code"]) == (501, "not_implemented")
    assert (unknown.status, unknown.error["code"], unknown.error["param"]) == (404, "model_not_found", "model")
    assert len(unknown.body) < 400


# --- the journal


class FullDisk:
    """Stands under a journal in place of the real disk: no space left, until `full` is taken back."""

    def __init__(self, under: journal.Journal, monkeypatch: pytest.MonkeyPatch) -> None:
        self.full = True
        self._write = under._write
        monkeypatch.setattr(under, "_write", self.write)

    def write(self, file: int, data: bytes) -> int:
        if self.full:
            raise OSError(errno.ENOSPC, "No space left on device")
        return self._write(file, data)


@pytest.mark.parametrize("stream", [False, True], ids=["unary", "stream"])
async def test_nothing_is_served_unrecorded(house: House, monkeypatch: pytest.MonkeyPatch, stream: bool) -> None:
    disk = FullDisk(house.gateway.parts.journal, monkeypatch)
    first = await house.chat(stream=stream)  # the disk was not known to be full
    assert first.status == 200
    refused = await house.chat(stream=stream)
    assert (refused.status, refused.error["code"], refused.headers["retry-after"]) == (503, "service_unavailable", "5")
    ready = await house.ask("GET", "/readyz")
    assert (ready.status, ready.json["reasons"]) == (503, ["journal: it cannot be written"])
    assert len(await house.upstream.log()) == 1

    disk.full = False
    again = await house.chat(stream=stream)
    assert again.status == 200
    assert (await house.ask("GET", "/readyz")).status == 200
    assert {row.request_id for row in house.rows()} == {first.request_id, again.request_id}


# --- many at once


async def test_many_at_once_are_each_booked_once(house: House) -> None:
    async def ask(number: int) -> Reply:
        return await house.chat(f"Count to {number % 7 + 1}", stream=number % 2 == 0)

    replies = await asyncio.gather(*(ask(number) for number in range(60)))
    assert all(reply.status == 200 for reply in replies)
    rows = {row.request_id: row for row in house.rows()}
    assert set(rows) == {reply.request_id for reply in replies}
    for reply in replies:
        assert rows[reply.request_id].completion_tokens == reply.usage["completion_tokens"]


async def test_pipelined_requests_are_answered_in_order(house: House) -> None:
    async with dial(house.port) as wire:
        for number in (3, 1, 2):
            wire.send(
                request("POST", CHAT, house.body(f"Count to {number}", "glm-4", {"stream": number == 1}), house.head())
            )
        said = [Reply.of(await wire.answer()) for _ in range(3)]
    assert [reply.text for reply in said] == ["1, 2, 3", "1", "1, 2"]
    assert {booked_id(reply.headers) for reply in said} == {row.request_id for row in house.rows()}


@pytest.mark.parametrize(
    ("fields", "most"),
    [
        ({"max_tokens": 20}, 20),
        ({"max_completion_tokens": 30}, 30),
        ({"max_tokens": 20, "max_completion_tokens": 30}, 30),
    ],
    ids=["older", "newer", "both"],
)
async def test_both_names_of_the_output_ceiling_are_taken_and_the_newer_wins(
    house: House, fields: dict[str, int], most: int
) -> None:
    reply = await house.chat("[[tokens=90]]", **fields)
    row = house.usage(reply.request_id)
    assert row is not None
    assert (row.completion_tokens, row.finish_reason) == (most, "length")


async def test_a_connection_that_repeats_its_head_is_charged_by_the_key_of_each_request(house: House) -> None:
    other, other_account = house.new_key()
    keys = [house.key] * 4 + [other] * 3 + [house.key, "vc-sk-unknown", house.key, other]
    said: list[Reply] = []
    async with dial(house.port) as wire:
        for number, key in enumerate(keys):
            body = house.body(f"Count to {number + 1}", "deepseek-chat", {"stream": number % 3 == 2})
            wire.send(request("POST", CHAT, body, house.head() | {"Authorization": f"Bearer {key}"}))
            said.append(Reply.of(await wire.answer()))
    assert [reply.status for reply in said] == [401 if key == "vc-sk-unknown" else 200 for key in keys]
    told = {booked_id(reply.headers): key for reply, key in zip(said, keys, strict=True) if reply.status == 200}
    accounts = {house.key: house.account_id, other: other_account}
    rows = await house.settled(len(told))
    assert {row.request_id: row.account_id for row in rows} == {name: accounts[key] for name, key in told.items()}
    assert [reply.text for reply in said[:3]] == ["1", "1, 2", "1, 2, 3"]

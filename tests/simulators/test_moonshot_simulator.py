"""Moonshot's simulator against the wire examples of its documentation, help centre and captures."""

import json
import re

import pytest
from asking import NAMED, PARIS, USER, WEATHER
from shapes import example, shape, shapes

OFF = {"type": "disabled"}
ON = {"type": "enabled"}
USAGE = {"include_usage": True}
CALLED = {
    "role": "assistant",
    "content": "",
    "tool_calls": [{"id": "get_weather:0", "type": "function", "function": {"name": "get_weather", "arguments": "{}"}}],
}
RESULT = {"role": "tool", "tool_call_id": "get_weather:0", "content": "sunny"}


def request(**fields):
    return {"model": "kimi-k2.6", "messages": USER, "thinking": OFF, **fields}


def k3(**fields):
    return {"model": "kimi-k3", "messages": USER, **fields}


def tool(name: str = "look", **schema) -> dict:
    return {"type": "function", "function": {"name": name, "parameters": {"type": "object", **schema}}}


def structured(**field) -> dict:
    schema = {"type": "object", "properties": {"age": {"type": "integer", **field}}, "required": ["age"]}
    return {"type": "json_schema", "json_schema": {"name": "person", "strict": True, "schema": schema}}


@pytest.fixture
def moonshot(bench):
    return bench("moonshot")


# --- the wire examples


def test_an_unstreamed_answer_is_the_documented_one(moonshot) -> None:
    documented = example("moonshot/whole.http")
    reply = moonshot.call(request())
    assert shape(reply.json) == documented.shape
    assert reply.headers["content-type"] == documented.headers["content-type"]
    assert re.fullmatch(r"[0-9a-f-]{36}", reply.headers["msh-request-id"])
    assert re.fullmatch(r"chatcmpl-[0-9a-f]{24}", reply.json["id"])
    usage = reply.json["usage"]
    assert usage["prompt_tokens"] + usage["completion_tokens"] == usage["total_tokens"]


def test_a_stream_has_its_usage_twice(moonshot) -> None:
    reply = moonshot.call(request(stream=True, stream_options=USAGE))
    assert shapes(reply.body) == example("moonshot/stream.sse").shapes
    finish, last = reply.chunks[-2:]
    assert finish["choices"][0]["usage"] == last["usage"]
    assert reply.text == "Hello! How can I help you today?"


def test_the_usage_inside_the_choice_comes_unasked(moonshot) -> None:
    reply = moonshot.call(request(stream=True))
    assert reply.chunks[-1]["choices"][0]["usage"]["total_tokens"] > 0
    assert shapes(reply.body) == [
        one for one in example("moonshot/stream.sse").shapes if one == "[DONE]" or one["choices"]
    ]


def test_reasoning_is_closed_by_an_empty_delta_before_a_tool_call(moonshot) -> None:
    reply = moonshot.call(k3(messages=PARIS, tools=[WEATHER], stream=True, stream_options=USAGE))
    assert shapes(reply.body) == example("moonshot/tool_call.sse").shapes
    deltas = [delta["tool_calls"][0] for delta in reply.deltas_with("tool_calls")]
    assert json.loads("".join(delta["function"]["arguments"] for delta in deltas)) == {"city": "Paris"}


def test_reasoning_is_closed_by_an_empty_delta_before_text(moonshot) -> None:
    reply = moonshot.call(k3(stream=True))
    documented = example("moonshot/reasoning.sse").shapes
    assert shapes(reply.body)[1 : 1 + len(documented)] == documented
    thoughts = [delta for delta in reply.deltas if delta.get("reasoning_content")]
    assert reply.chunks[-1]["choices"][0]["usage"]["completion_tokens_details"] == {"reasoning_tokens": len(thoughts)}


def test_an_answer_cut_in_its_reasoning_has_no_text(moonshot) -> None:
    reply = moonshot.call(k3(max_completion_tokens=3))
    choice = reply.json["choices"][0]
    assert (choice["finish_reason"], choice["message"]["content"]) == ("length", "")
    assert choice["message"]["reasoning_content"]
    cut = moonshot.call(k3(max_completion_tokens=3, stream=True))
    assert {"reasoning_content": ""} not in cut.deltas


@pytest.mark.parametrize(
    ("name", "fields", "how"),
    [
        ("concurrency", {}, {"fault": "code:concurrency"}),
        ("suspended", {}, {"fault": "code:exceeded_current_quota_error"}),
        ("suspended", {}, {"key": "sk-broke-1"}),
    ],
)
def test_refusals_have_a_message_and_a_type_and_nothing_else(moonshot, name: str, fields: dict, how: dict) -> None:
    documented = example(f"moonshot/{name}.http")
    reply = moonshot.call(request(**fields), **how)
    assert (reply.status, shape(reply.json)) == (documented.status, documented.shape)
    expected = json.loads(documented.body)["error"]["message"].partition("> ")
    assert reply.json["error"]["message"].partition("> ")[2] == expected[2]
    assert {name: reply.headers.get(name) for name in documented.headers} == documented.headers
    assert ("retry-after" in reply.headers) == ("retry-after" in documented.headers)


def test_a_stream_can_end_in_an_error_event(moonshot) -> None:
    reply = moonshot.call(request(stream=True), fault="error:1")
    assert shapes(reply.body)[-1:] == example("moonshot/error_event.sse").shapes


def test_a_stream_can_end_in_a_filter(moonshot) -> None:
    reply = moonshot.call(request(stream=True), fault="finish:content_filter")
    assert shapes(reply.body)[-2:] == example("moonshot/content_filter.sse").shapes


# --- what it does


def test_tool_call_ids_are_the_same_in_every_turn(moonshot) -> None:
    def ids(model: str) -> list[str]:
        asked = {"messages": [{"role": "user", "content": "Weather in Paris and Tokyo?"}], "tools": [WEATHER]}
        message = moonshot.call(request(model=model, **asked)).json["choices"][0]["message"]
        assert message["content"] == ""
        return [call["id"] for call in message["tool_calls"]]

    assert ids("kimi-k2.6") == ids("kimi-k2.6") == ["get_weather:0", "get_weather:1"]
    assert ids("kimi-k3") == ["get_weather_0", "get_weather_1"]


def test_a_round_of_tools_ends_in_an_answer(moonshot) -> None:
    reply = moonshot.call(request(messages=[*USER, CALLED, RESULT], tools=[WEATHER]))
    assert reply.json["choices"][0]["message"]["content"] == "Here is what I found: sunny"


@pytest.mark.parametrize(
    ("fields", "thinks"),
    [
        ({"model": "kimi-k2.6"}, True),
        ({"model": "kimi-k2.6", "thinking": ON}, True),
        ({"model": "kimi-k2.6", "thinking": OFF}, False),
        ({"model": "kimi-k3", "reasoning_effort": "none"}, True),
        ({"model": "kimi-k3", "thinking": OFF}, False),
        ({"model": "kimi-k2.7-code", "thinking": OFF}, True),
        ({"model": "kimi-k2.6", "reasoning_effort": "none"}, True),
    ],
)
def test_thinking_is_on_unless_it_is_switched_off_where_it_can_be(moonshot, fields: dict, thinks: bool) -> None:
    reply = moonshot.call({"messages": USER, **fields})
    assert bool(reply.json["choices"][0]["message"]["reasoning_content"]) is thinks


def test_an_answer_goes_on_where_a_partial_turn_ends(moonshot) -> None:
    messages = [{"role": "user", "content": "Count to 4"}, {"role": "assistant", "content": "1, 2, ", "partial": True}]
    assert moonshot.call(request(messages=messages)).json["choices"][0]["message"]["content"] == "3, 4"


def test_json_is_answered_after_the_schema(moonshot) -> None:
    asked = [{"role": "user", "content": "How old is a person of 42?"}]
    text = moonshot.call(request(messages=asked, response_format=structured())).json["choices"][0]["message"]["content"]
    assert json.loads(text) == {"age": 42}
    plain = moonshot.call(request(response_format={"type": "json_object"})).json["choices"][0]["message"]["content"]
    json.loads(plain)


@pytest.mark.parametrize("url", ["https://example.com/a.png", "data:image/png;base64,iVBORw0KGgo=", "ms://file-1"])
def test_pictures_are_seen_and_count_1024_tokens(moonshot, url: str) -> None:
    content = [{"type": "text", "text": "What is it?"}, {"type": "image_url", "image_url": {"url": url}}]
    reply = moonshot.call(request(messages=[{"role": "user", "content": content}]))
    assert "1 image" in reply.json["choices"][0]["message"]["content"]
    assert reply.json["usage"]["prompt_tokens"] > 1024


def test_a_repeated_prefix_hits_the_cache_and_is_told_twice(moonshot) -> None:
    messages = [{"role": "system", "content": "word " * 100}, *USER]
    assert moonshot.call(request(messages=messages)).json["usage"]["cached_tokens"] == 0
    usage = moonshot.call(request(messages=messages)).json["usage"]
    assert usage["cached_tokens"] == usage["prompt_tokens_details"]["cached_tokens"] > 0


# --- checks

REFUSED = [
    ({"temperature": 1}, "invalid temperature: only 0.6 is allowed for this model"),
    ({"thinking": ON, "temperature": 0.6}, "invalid temperature: only 1 is allowed for this model"),
    ({"model": "kimi-k3", "temperature": 0.7}, "invalid temperature: only 1 is allowed"),
    ({"model": "kimi-k2.7-code", "temperature": 0}, "invalid temperature: only 1 is allowed"),
    ({"top_p": 1}, "invalid top_p: only 0.95 is allowed"),
    ({"n": 2}, "invalid n: only 1 is allowed"),
    ({"presence_penalty": 0.1}, "invalid presence_penalty: only 0 is allowed"),
    ({"frequency_penalty": -1}, "invalid frequency_penalty: only 0 is allowed"),
    ({"stop": ["a"] * 6}, "at most 5"),
    ({"stop": ["é" * 17]}, "longer than 32 bytes"),
    ({"messages": [{"role": "developer", "content": "x"}, *USER]}, "unsupported role developer"),
    ({"messages": [{"role": "user", "content": [{"type": "text", "text": ""}]}]}, "text content is empty"),
    ({"messages": [{"role": "user", "content": ""}]}, "must not be empty"),
    ({"messages": [*USER, {"role": "assistant", "content": ""}, *USER]}, "must not be empty"),
    ({"messages": [*USER, CALLED, *USER]}, "did not have response messages: get_weather:0"),
    ({"messages": [*USER, RESULT]}, "is not found"),
    ({"model": "kimi-k3", "messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://e.org/a.png"}}]}]},
     "Image input not supported"),
    ({"tools": [WEATHER, WEATHER]}, "function name get_weather is duplicated"),
    ({"tools": [{"type": "web_search"}]}, "unsupported tool type web_search"),
    ({"tools": [tool(properties={"x": {}})]}, "At path 'properties.x': type is not defined"),
    ({"tools": [tool(properties={"x": {"type": "array", "items": {"enum": ["a"]}}})]}, "'properties.x.items'"),
    ({"tools": [tool(properties={"x": {"type": "string", "enum": ["a", 1]}})]}, "enum values must be of one type"),
    ({"tools": [tool(properties={"x": {"$ref": "#/$defs/y"}})]}, "references are not supported"),
    ({"tools": [tool(properties={"x": {"anyOf": [{"type": "string"}, {}]}})]}, "'properties.x.anyOf.1'"),
    ({"thinking": ON, "tools": [WEATHER], "tool_choice": "required"},
     "tool_choice 'required' is incompatible with thinking enabled"),
    ({"thinking": ON, "tools": [WEATHER], "tool_choice": NAMED},
     "tool_choice 'specified' is incompatible with thinking enabled"),
    ({"model": "kimi-k3", "thinking": ON, "tools": [WEATHER], "tool_choice": NAMED}, "tool_choice 'specified'"),
    ({"tool_choice": "required"}, "not in tools"),
    ({"response_format": structured(minimum=0)}, "keyword 'minimum' is not supported"),
    ({"response_format": structured(pattern="x")}, "keyword 'pattern' is not supported"),
    ({"response_format": {"type": "json_schema"}}, "json_schema.schema is required"),
    ({"thinking": {"type": "maybe"}}, "thinking.type"),
    ({"max_completion_tokens": 0}, "max_completion_tokens"),
    ({"messages": [{"role": "user", "content": "[[prompt_tokens=262144]]"}]}, "Input token length too long"),
    ({"messages": [{"role": "user", "content": "[[prompt_tokens=262000]]"}], "max_tokens": 500},
     "exceeded model token limit"),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "marker"), REFUSED, ids=[marker for _, marker in REFUSED])
def test_requests_are_refused_as_moonshot_refuses_them(moonshot, fields: dict, marker: str) -> None:
    reply = moonshot.call(request(**fields))
    error = reply.json["error"]
    assert (reply.status, set(error), error["type"]) == (400, {"message", "type"}, "invalid_request_error")
    assert marker in error["message"]


@pytest.mark.parametrize("model", ["kimi-k2-0711-preview", "kimi-k2.5", "moonshot-v1-8k", "kimi-k2"])
def test_retired_models_are_not_found(moonshot, model: str) -> None:
    reply = moonshot.call(request(model=model))
    assert (reply.status, reply.json["error"]["type"]) == (404, "resource_not_found_error")
    assert reply.json["error"]["message"] == f"Not found the model {model} or Permission denied"


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"model":"kimi-k2.6"}'])
def test_broken_bodies_are_refused(moonshot, body: bytes) -> None:
    reply = moonshot.call(body)
    assert (reply.status, reply.json["error"]["type"]) == (400, "invalid_request_error")


@pytest.mark.parametrize(
    "fields",
    [
        {"temperature": 0.6, "top_p": 0.95, "n": 1, "presence_penalty": 0, "frequency_penalty": 0},
        {"thinking": {"type": "enabled", "keep": "all"}, "temperature": 1},
        {"reasoning_effort": "nonsense", "seed": 7, "top_k": 3, "logit_bias": {}, "logprobs": True, "user": "x"},
        {"model": "kimi-k3", "thinking": None, "reasoning_effort": "nonsense"},
        {"parallel_tool_calls": False, "safety_identifier": "x", "prompt_cache_key": "y"},
        {"max_tokens": 10},
        {"stop": ["a"] * 5},
        {"stop": "x" * 32},
        {"tools": [WEATHER, {"type": "builtin_function", "function": {"name": "$web_search"}}]},
        {"tools": [WEATHER], "tool_choice": "required"},
        {"tools": [WEATHER], "tool_choice": NAMED},
        {"model": "kimi-k3", "thinking": ON, "tools": [WEATHER], "tool_choice": "required"},
        {"tools": [tool(properties={"x": {"anyOf": [{"type": "string"}, {"type": "null"}]}})]},
        {"thinking": ON, "messages": [*USER, CALLED, RESULT], "tools": [WEATHER]},
        {"messages": [*USER, {name: CALLED[name] for name in ("role", "tool_calls")}, RESULT]},
    ],
)  # fmt: skip
def test_requests_that_moonshot_takes_are_taken(moonshot, fields: dict) -> None:
    assert moonshot.call(request(**fields)).status == 200


def test_the_subscription_wants_reasoning_back_and_small_bodies(moonshot) -> None:
    def there(**fields):
        return moonshot.call(request(thinking=ON, **fields), path="/coding/v1/chat/completions")

    missing = there(messages=[*USER, CALLED, RESULT])
    assert "reasoning_content is missing in assistant tool call message at index 1" in missing.json["error"]["message"]
    assert there(messages=[*USER, {**CALLED, "reasoning_content": "Hm."}, RESULT]).status == 200
    big = there(messages=[{"role": "user", "content": "x" * (2 << 20)}])
    assert re.search(r"total message size \d+ exceeds limit 2097152", big.json["error"]["message"])


# --- who calls, and how much


@pytest.mark.parametrize(
    ("authorization", "kind"),
    [
        ("", "invalid_authentication_error"),
        ("Basic x", "invalid_authentication_error"),
        ("Bearer sk-bad", "incorrect_api_key_error"),
        ("Bearer nonsense", "incorrect_api_key_error"),
        ("Bearer sk-intl-acme", "incorrect_api_key_error"),
    ],
)
def test_wrong_keys_are_refused_401(moonshot, authorization: str, kind: str) -> None:
    reply = moonshot.call(request(), authorization=authorization)
    assert (reply.status, reply.json["error"]["type"]) == (401, kind)


def test_keys_of_one_site_are_unknown_to_the_other(bench) -> None:
    abroad = bench("moonshot", region="intl")
    assert abroad.call(request(), key="sk-intl-acme").status == 200
    assert abroad.call(request(), key="sk-cn-acme").status == 401


def test_tokens_are_throttled_by_what_an_answer_might_cost(bench) -> None:
    busy = bench("moonshot", tokens_per_minute_max=140_000)
    assert busy.call(k3(), key="sk-acme-1").status == 200  # counts 131,072, the model's default
    refused = busy.call(request(max_completion_tokens=10_000), key="sk-acme-2")
    assert (refused.status, refused.json["error"]["type"]) == (429, "rate_limit_reached_error")
    assert re.search(r"TPM rate limit, current: \d+, limit: 140000", refused.json["error"]["message"])
    assert refused.headers["retry-after"] == "60"
    assert busy.call(request(max_completion_tokens=100), key="sk-acme-2").status == 200
    assert busy.call(k3(), key="sk-other").status == 200
    assert busy.call(k3(), key="sk-acme-1", wall_s=1_794_700_061.0).status == 200


def test_the_lowest_tier_has_three_requests_a_minute(moonshot) -> None:
    replies = [moonshot.call(request(), key="sk-tier0-acme") for _ in range(4)]
    assert [reply.status for reply in replies] == [200, 200, 200, 429]
    told = [[reply.headers[f"x-ratelimit-{name}"] for name in ("limit", "remaining", "reset")] for reply in replies[:3]]
    assert told == [["3", "2", "60"], ["3", "1", "60"], ["3", "0", "60"]]
    assert "x-ratelimit-limit" not in moonshot.call(request()).headers
    refused = moonshot.call(request(), key="sk-tier0-acme", wall_s=1_794_700_041.0)
    assert "max RPM: 3, please try again after 19 seconds" in refused.json["error"]["message"]


def test_a_day_has_its_own_limit(moonshot) -> None:
    for minute in range(3):
        big = request(max_completion_tokens=200_000)
        statuses = [
            moonshot.call(big, key="sk-tier0-a", wall_s=1_794_700_000.0 + 61 * minute + n).status for n in (0, 1)
        ]
    assert statuses == [200, 200]
    last = [moonshot.call(big, key="sk-tier0-a", wall_s=1_794_700_000.0 + 61 * 4 + n) for n in (0, 1)]
    assert [reply.status for reply in last] == [200, 429]
    assert "TPD" in last[1].json["error"]["message"]


def test_concurrency_counts_for_the_organisation(bench) -> None:
    busy = bench("moonshot", concurrency_max=3)
    busy.vendor.shared.inflight["acme"] = 3
    for model in ("kimi-k2.6", "kimi-k3"):
        refused = busy.call(request(model=model), key="sk-acme-2")
        assert "max organization concurrency: 3, please try again after 1 seconds" in refused.json["error"]["message"]
    assert busy.call(request(), key="sk-other").status == 200


# --- failures on demand, other routes


@pytest.mark.parametrize(
    ("fault", "status", "kind"),
    [
        ("code:content_filter", 400, "content_filter"),
        ("code:permission_denied_error", 403, "permission_denied_error"),
        ("code:engine_overloaded_error", 429, "engine_overloaded_error"),
        ("code:tpd", 429, "rate_limit_reached_error"),
        ("code:unexpected_output", 500, "unexpected_output"),
        ("status:400", 400, "invalid_request_error"),
        ("status:401", 401, "incorrect_api_key_error"),
        ("status:429", 429, "engine_overloaded_error"),
        ("status:500", 500, "server_error"),
        ("status:503", 503, "server_unavailable"),
    ],
)
def test_errors_can_be_asked_for(moonshot, fault: str, status: int, kind: str) -> None:
    reply = moonshot.call(request(), fault=fault)
    assert (reply.status, reply.json["error"]["type"]) == (status, kind)
    assert ("retry-after" in reply.headers) == (kind == "engine_overloaded_error")


def test_the_servers_own_time_limit_has_a_page(moonshot) -> None:
    reply = moonshot.call(request(), fault="status:504")
    assert (reply.status, reply.headers["content-type"]) == (504, "text/html")


def test_usage_can_be_missing(moonshot) -> None:
    reply = moonshot.call(request(stream=True, stream_options=USAGE), fault="usage:missing")
    assert all("usage" not in chunk and "usage" not in chunk["choices"][0] for chunk in reply.chunks)
    assert "usage" not in moonshot.call(request(), fault="usage:missing").json
    trailing = moonshot.call(request(stream=True, stream_options=USAGE), fault="usage:trailing").chunks
    assert ("usage" in trailing[-2]["choices"][0], "usage" in trailing[-1]) == (False, True)


@pytest.mark.parametrize("prefix", ["", "/v1"])
def test_models_balance_and_the_count_of_tokens(moonshot, prefix: str) -> None:
    listed = moonshot.call(method="GET", path=prefix + "/models").json["data"]
    assert [model["id"] for model in listed] == ["kimi-k3", "kimi-k2.7-code", "kimi-k2.7-code-highspeed", "kimi-k2.6"]
    balance = moonshot.call(method="GET", path=prefix + "/users/me/balance").json
    assert (balance["code"], balance["scode"], balance["status"]) == (0, "0x0", True)
    assert set(balance["data"]) == {"available_balance", "voucher_balance", "cash_balance"}
    broke = moonshot.call(method="GET", path=prefix + "/users/me/balance", key="sk-broke").json
    assert broke["data"]["available_balance"] == 0
    counted = moonshot.call(request(), path=prefix + "/tokenizers/estimate-token-count").json
    assert counted["data"]["total_tokens"] > 0
    missing = moonshot.call(request(), path=prefix + "/embeddings")
    assert (missing.status, missing.json["error"]["type"]) == (404, "resource_not_found_error")

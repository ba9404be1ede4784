"""DashScope's simulator against the wire examples of its documentation, SDK and captures."""

import json
import math
import re

import pytest
from asking import NAMED, PARIS, USER, WEATHER
from shapes import example, shape, shapes

CITIES = [{"role": "user", "content": "Weather in Paris and Tokyo?"}]
USAGE = {"include_usage": True}
CALLED = {
    "role": "assistant",
    "content": "",
    "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "get_weather", "arguments": "{}"}}],
}
RESULT = {"role": "tool", "tool_call_id": "c1", "content": "sunny"}
SCHEMA = {"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"]}
STRUCTURED = {"type": "json_schema", "json_schema": {"name": "person", "schema": SCHEMA}}
IMAGE = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}
NATIVE = "/api/v1/services/aigc/text-generation/generation"
QUOTAS = "/api/v1/quotas"
WALL_S = 1_794_700_000.0


def request(**fields):
    return {"model": "qwen3-max", "messages": USER, **fields}


def native(**parameters):
    return {"model": "qwen3-max", "input": {"messages": USER}, "parameters": {"result_format": "message", **parameters}}


def message(reply):
    return reply.json["choices"][0]["message"]


@pytest.fixture
def dashscope(bench):
    return bench("dashscope")


# --- the wire examples


def test_an_unstreamed_answer_is_the_documented_one(dashscope) -> None:
    documented = example("dashscope/whole.http")
    reply = dashscope.call(request())
    assert shape(reply.json) == documented.shape
    assert set(reply.headers) == set(documented.headers) - {"transfer-encoding"}
    assert reply.headers["content-type"] == documented.headers["content-type"]
    assert reply.json["id"] == "chatcmpl-" + reply.headers["x-request-id"]
    usage = reply.json["usage"]
    assert usage["prompt_tokens"] + usage["completion_tokens"] == usage["total_tokens"]


def test_a_stream_has_null_for_usage_until_the_end(dashscope) -> None:
    reply = dashscope.call(request(stream=True, stream_options=USAGE))
    assert reply.headers["content-type"] == "text/event-stream;charset=utf-8"
    assert shapes(reply.body) == example("dashscope/stream.sse").shapes
    assert reply.text == "Hello! How can I help you today?"


def test_usage_is_for_those_who_ask(dashscope) -> None:
    reply = dashscope.call(request(stream=True))
    assert reply.data[-1] == "[DONE]"
    assert all(chunk["choices"] and chunk["usage"] is None for chunk in reply.chunks)


def test_parts_of_a_tool_call_have_empty_ids(dashscope) -> None:
    reply = dashscope.call(request(messages=PARIS, tools=[WEATHER], stream=True, stream_options=USAGE))
    assert shapes(reply.body) == example("dashscope/tool_call.sse").shapes
    named, *parts = [delta["tool_calls"][0] for delta in reply.deltas_with("tool_calls")]
    assert re.fullmatch(r"call_[0-9a-f]{24}", named["id"])
    assert {part["id"] for part in parts} == {""}
    assert json.loads("".join(part["function"]["arguments"] for part in parts)) == {"city": "Paris"}


def test_reasoning_and_text_are_null_in_turn(dashscope) -> None:
    reply = dashscope.call(request(enable_thinking=True, stream=True, stream_options=USAGE))
    assert shapes(reply.body) == example("dashscope/reasoning.sse").shapes
    thoughts = [delta for delta in reply.deltas if delta["reasoning_content"]]
    assert reply.chunks[-1]["usage"]["completion_tokens_details"] == {"reasoning_tokens": len(thoughts)}


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("quota", {"fault": "code:Throttling.AllocationQuota"}),
        ("arrears", {"fault": "code:Arrearage"}),
        ("arrears", {"key": "sk-broke-1"}),
        ("native_rate", {"fault": "code:Throttling.RateQuota", "path": NATIVE}),
    ],
)
def test_refusals_are_the_documented_ones(dashscope, name: str, how: dict) -> None:
    documented = example(f"dashscope/{name}.http")
    reply = dashscope.call(request(), **how)
    expected = json.loads(documented.body)
    assert reply.status == documented.status
    assert reply.json == {**expected, "request_id": reply.headers["x-request-id"]}
    assert "retry-after" not in reply.headers


def test_moderation_cuts_a_stream_with_an_event_and_no_done(dashscope) -> None:
    reply = dashscope.call(request(stream=True), fault="error:1")
    assert shapes(reply.body)[-1:] == example("dashscope/error_event.sse").shapes
    assert reply.chunks[-1]["request_id"] == reply.headers["x-request-id"]
    assert "[DONE]" not in reply.data


def test_a_native_stream_fails_in_an_event_of_its_own(dashscope) -> None:
    reply = dashscope.call(native(), path=NATIVE, more={b"x-dashscope-sse": b"enable"}, fault="error:1")
    documented = example("dashscope/native_error.sse")
    assert reply.status == 200
    assert shapes(reply.body) == documented.shapes
    unlike = re.compile(rb"data:.*")
    assert unlike.sub(b"", reply.body) == unlike.sub(b"", documented.body)


# --- what it does


def test_unstreamed_tool_calls_are_indexed_beside_empty_content(dashscope) -> None:
    asked = request(messages=CITIES, tools=[WEATHER], parallel_tool_calls=True)
    said = message(dashscope.call(asked))
    assert (said["content"], [call["index"] for call in said["tool_calls"]]) == ("", [0, 1])
    assert all(re.fullmatch(r"call_[0-9a-f]{24}", call["id"]) for call in said["tool_calls"])
    assert len({call["id"] for call in said["tool_calls"]}) == 2
    streamed = dashscope.call({**asked, "stream": True})
    assert {delta["tool_calls"][0]["index"] for delta in streamed.deltas_with("tool_calls")} == {0, 1}
    assert sum("role" in delta for delta in streamed.deltas) == 1


def test_calls_come_one_at_a_time_unless_they_may_come_together(dashscope) -> None:
    for fields in ({}, {"parallel_tool_calls": False}):
        reply = dashscope.call(request(messages=CITIES, tools=[WEATHER], **fields))
        assert len(message(reply)["tool_calls"]) == 1


def test_a_round_of_tools_ends_in_an_answer(dashscope) -> None:
    reply = dashscope.call(request(messages=[*USER, CALLED, RESULT], tools=[WEATHER]))
    assert message(reply)["content"] == "Here is what I found: sunny"


def test_choices_come_together_or_in_turns(dashscope) -> None:
    whole = dashscope.call(request(n=3)).json
    assert [choice["index"] for choice in whole["choices"]] == [0, 1, 2]
    chunks = dashscope.call(request(n=2, stream=True, stream_options=USAGE)).chunks
    assert [chunk["choices"][0]["index"] for chunk in chunks[:-1]] == [0, 1] * ((len(chunks) - 1) // 2)
    one = dashscope.call(request()).json["usage"]["completion_tokens"]
    assert whole["usage"]["completion_tokens"] == 3 * one
    assert chunks[-1]["usage"]["completion_tokens"] == 2 * one


@pytest.mark.parametrize(
    ("fields", "thinks"),
    [
        ({"model": "qwen3-max"}, False),
        ({"model": "qwen3-max", "enable_thinking": True}, True),
        ({"model": "qwen3-max", "reasoning_effort": "high"}, False),
        ({"model": "deepseek-v3.2"}, False),
        ({"model": "deepseek-v3.2", "enable_thinking": True}, True),
        ({"model": "qwen3.7-max"}, True),
        ({"model": "qwen3.7-max", "enable_thinking": False}, False),
        ({"model": "kimi-k2.6"}, True),
        ({"model": "kimi-k2.6", "enable_thinking": False}, False),
        ({"model": "kimi-k2.6", "thinking": {"type": "disabled"}}, True),
        ({"model": "qwen3.8-max", "reasoning_effort": "none"}, False),
    ],
)
def test_each_model_thinks_as_it_is_told(dashscope, fields: dict, thinks: bool) -> None:
    reply = dashscope.call({"messages": USER, **fields})
    assert ("reasoning_content" in message(reply)) is thinks
    assert ("completion_tokens_details" in reply.json["usage"]) is thinks


def test_thinking_has_a_budget(dashscope) -> None:
    reply = dashscope.call(request(enable_thinking=True, thinking_budget=4))
    assert reply.json["usage"]["completion_tokens_details"] == {"reasoning_tokens": 4}


def test_an_answer_goes_on_where_a_partial_turn_ends(dashscope) -> None:
    messages = [{"role": "user", "content": "Count to 4"}, {"role": "assistant", "content": "1, 2, ", "partial": True}]
    assert message(dashscope.call(request(messages=messages)))["content"] == "3, 4"


def test_json_is_answered_in_json(dashscope) -> None:
    asked = [{"role": "user", "content": "How old is a person of 42? Answer in json."}]
    plain = dashscope.call(request(messages=asked, response_format={"type": "json_object"}))
    json.loads(message(plain)["content"])
    newer = {"model": "qwen3.7-max", "enable_thinking": False, "response_format": STRUCTURED}
    assert json.loads(message(dashscope.call(request(messages=asked, **newer)))["content"]) == {"age": 42}


def test_pictures_are_seen_by_models_that_see(dashscope) -> None:
    messages = [{"role": "user", "content": [{"type": "text", "text": "What is it?"}, IMAGE]}]
    assert "1 image" in message(dashscope.call(request(model="qwen3-vl-plus", messages=messages)))["content"]


def test_repeated_and_marked_beginnings_are_told_in_the_usage(dashscope) -> None:
    messages = [{"role": "system", "content": "word " * 100}, *USER]
    details = [dashscope.call(request(messages=messages)).json["usage"]["prompt_tokens_details"] for _ in range(2)]
    assert details[0] == {"cached_tokens": 0}
    assert details[1]["cached_tokens"] > 0
    mark = {"type": "text", "text": "other " * 100, "cache_control": {"type": "ephemeral"}}
    usage = dashscope.call(request(messages=[{"role": "system", "content": [mark]}, *USER])).json["usage"]
    told = {"cached_tokens": 0, "cache_creation_input_tokens": usage["prompt_tokens"], "cache_type": "ephemeral"}
    assert usage["prompt_tokens_details"] == told


def test_an_unstreamed_answer_is_given_up_after_300_seconds(dashscope) -> None:
    slow = [{"role": "user", "content": "Hello [[first_token_ms=301000]]"}]
    reply = dashscope.call(request(messages=slow))
    assert (reply.status, reply.json["error"]["code"], reply.waited_s) == (500, "RequestTimeOut", 300.0)
    assert dashscope.call(request(messages=slow, stream=True)).status == 200


# --- checks

PREFIX = "<400> InternalError.Algo.InvalidParameter: "
REFUSED = [
    ({"temperature": 2}, "Temperature should be in [0.0, 2.0)"),
    ({"top_p": 0}, "Range of top_p should be (0.0, 1.0]"),
    ({"presence_penalty": 3}, "Range of presence_penalty should be [-2, 2]"),
    ({"n": 5}, "Range of n should be [1, 4]"),
    ({"n": 2, "tools": [WEATHER]}, "n parameter must be 1 when tools are used"),
    ({"seed": 2**31}, "Range of seed should be [0, 2147483647]"),
    ({"max_tokens": 0}, "Range of max_tokens should be [1, 65536]"),
    ({"max_tokens": 65_537}, "Range of max_tokens should be [1, 65536]"),
    ({"response_format": {"type": "json_object"}}, "must contain the word 'json'"),
    (
        {
            "response_format": {"type": "json_object"},
            "enable_thinking": True,
            "messages": [{"role": "user", "content": "json"}],
        },
        "Json mode response is not supported when enable_thinking is true",
    ),
    ({"response_format": STRUCTURED}, "'response_format.type' should be one of"),
    ({"model": "qwen3.7-max", "response_format": STRUCTURED}, "Json mode response is not supported"),
    (
        {"tools": [WEATHER], "tool_choice": "required"},
        'tool_choice is one of the strings that should be ["none", "auto"]',
    ),
    ({"tools": [WEATHER], "tool_choice": NAMED, "enable_thinking": True}, "in thinking mode"),
    ({"tool_choice": NAMED}, "not in tools"),
    ({"tools": [{"type": "function", "function": {"name": "search"}}]}, "Tool names are not allowed to be [search]"),
    ({"messages": [{"role": "developer", "content": "x"}, *USER]}, "'developer' is not one of"),
    ({"messages": [*USER, RESULT]}, "must be a response to a preceeding message"),
    ({"messages": [*USER, CALLED, *USER]}, "did not have response messages: c1"),
    ({"messages": [{"role": "user"}]}, "'content' is a required property"),
    ({"enable_thinking": "yes"}, "enable_thinking must be a boolean"),
    ({"thinking_budget": 0}, "thinking_budget"),
    ({"model": "qwen3.8-max", "reasoning_effort": "high"}, "reasoning_effort should be one of"),
    ({"model": "qwen3-32b"}, "parameter.enable_thinking must be set to false for non-streaming calls"),
    ({"model": "qwen3-32b", "enable_thinking": False, "messages": [*USER, {"role": "assistant", "content": "Hm"}]},
     "last message"),
    ({"messages": [{"role": "user", "content": [{"type": "text", "text": "x", "cache_control": {}}] * 5}]},
     "maximum of 4 blocks"),
    ({"stop": {"a": 1}}, "'stop'"),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "marker"), REFUSED, ids=[marker for _, marker in REFUSED])
def test_requests_are_refused_as_dashscope_refuses_them(dashscope, fields: dict, marker: str) -> None:
    reply = dashscope.call(request(**fields))
    error = reply.json["error"]
    assert (reply.status, set(reply.json), set(error)) == (
        400,
        {"error", "request_id"},
        {"message", "type", "param", "code"},
    )
    assert (error["code"], error["type"]) == ("invalid_parameter_error", "invalid_request_error")
    assert error["message"].startswith(PREFIX)
    assert marker in error["message"]


@pytest.mark.parametrize(
    ("fields", "status", "code", "marker"),
    [
        ({"model": "qwen2-max"}, 404, "model_not_found", "The model `qwen2-max` does not exist"),
        ({"messages": [{"role": "user", "content": [IMAGE]}]}, 400, "InternalError.Algo.InvalidParameter",
         "Unexpected item type in content"),
        ({"model": "qwen3-coder-plus", "enable_thinking": True}, 400, "InvalidParameter.NotSupportEnableThinking", ""),
        ({"messages": [{"role": "user", "content": "[[prompt_tokens=262145]]"}]}, 400, "invalid_parameter_error",
         "Range of input length should be [1, 262144]"),
    ],
)  # fmt: skip
def test_some_refusals_have_codes_of_their_own(dashscope, fields: dict, status: int, code: str, marker: str) -> None:
    reply = dashscope.call(request(**fields))
    assert (reply.status, reply.json["error"]["code"]) == (status, code)
    assert marker in reply.json["error"]["message"]


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"model":"qwen3-max"}'])
def test_broken_bodies_are_refused(dashscope, body: bytes) -> None:
    assert dashscope.call(body).json["error"]["code"] == "invalid_parameter_error"


@pytest.mark.parametrize(
    "fields",
    [
        {"temperature": 1.99, "top_p": 0.01, "top_k": 5, "repetition_penalty": 1.1, "presence_penalty": 2},
        {"frequency_penalty": 9, "logit_bias": {}, "user": "x", "metadata": {}, "store": True, "service_tier": "auto"},
        {"max_completion_tokens": 10**9},
        {"max_tokens": 65_536, "seed": 2**31 - 1, "stop": [151643]},
        {"stop": ["a", "b"], "logprobs": True},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "x"}]}]},
        {"tools": [WEATHER], "tool_choice": NAMED},
        {"tools": [WEATHER], "tool_choice": "none"},
        {"model": "qwen3-coder-plus", "enable_thinking": False},
        {"model": "qwen3-32b", "stream": True},
        {"enable_thinking": True, "preserve_thinking": True, "enable_search": True},
    ],
)
def test_requests_that_dashscope_takes_are_taken(dashscope, fields: dict) -> None:
    assert dashscope.call(request(**fields)).status == 200


# --- who calls, and how much


@pytest.mark.parametrize("authorization", ["", "Bearer ", "Bearer sk-bad", "Bearer sk-intl-acme", "Bearer sk-sp-plan"])
def test_wrong_keys_are_refused_401(dashscope, authorization: str) -> None:
    reply = dashscope.call(request(), authorization=authorization)
    assert (reply.status, reply.json["error"]["code"]) == (401, "invalid_api_key")
    assert reply.json["error"]["message"].startswith("Incorrect API key provided")


def test_a_surge_is_refused_as_a_burst_and_a_full_minute_as_a_rate(bench) -> None:
    busy = bench("dashscope", requests_per_minute_max=120)

    def code(at_s: float, key: str = "sk-acme-1", model: str = "qwen3-max") -> str | None:
        return busy.call(request(model=model), key=key, wall_s=WALL_S + at_s).json.get("error", {}).get("code")

    assert [code(0), code(0), code(0, "sk-acme-2")] == [None, None, "limit_burst_rate"]
    assert code(0, "sk-other") is None
    assert code(0, model="qwen-plus") is None
    paced = [code(second) for second in range(1, 60) for _ in (0, 1)]
    assert set(paced) == {None}
    assert code(59.5) == "limit_requests"
    assert code(60.5) is None


def test_tokens_are_throttled_with_words_of_billing(bench) -> None:
    busy = bench("dashscope", tokens_per_minute_max=100)
    long = request(messages=[{"role": "user", "content": "word " * 80}])
    assert busy.call(long).status == 200
    refused = busy.call(long)
    assert (refused.status, refused.json["error"]["code"]) == (429, "insufficient_quota")
    assert busy.call(long, wall_s=WALL_S + 61).status == 200


def test_published_limits_are_for_keys_that_are_limited(dashscope) -> None:
    snapshot = "qwen3-max-2025-09-23"
    statuses = [dashscope.call(request(model=snapshot), key="sk-limited-1").status for _ in range(2)]
    assert statuses == [200, 429]
    assert {dashscope.call(request(model=snapshot)).status for _ in range(5)} == {200}


def test_concurrency_can_be_limited(bench) -> None:
    busy = bench("dashscope", concurrency_max=1)
    busy.vendor.shared.inflight["acme/qwen3-max"] = 1
    refused = busy.call(request(), key="sk-acme-2")
    assert (refused.status, "current requests list" in refused.json["error"]["message"]) == (429, True)


# --- failures on demand, other routes


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [
        ("code:AllocationQuota.FreeTierOnly", 403, "insufficient_quota"),
        ("code:Throttling.BurstRate", 429, "limit_burst_rate"),
        ("code:PostpaidBillOverdue", 429, "PostpaidBillOverdue"),
        ("code:InternalError.Timeout", 500, "InternalError.Timeout"),
        ("code:ModelUnavailable", 503, "ModelUnavailable"),
        ("code:BadRequest.TooLarge", 413, "BadRequest.TooLarge"),
        ("code:InvalidParameter.DataInspection", 400, "InvalidParameter.DataInspection"),
        ("status:401", 401, "invalid_api_key"),
        ("status:403", 403, "AccessDenied"),
        ("status:429", 429, "limit_requests"),
        ("status:500", 500, "InternalError"),
        ("status:503", 503, "ModelUnavailable"),
    ],
)
def test_errors_can_be_asked_for(dashscope, fault: str, status: int, code: str) -> None:
    reply = dashscope.call(request(), fault=fault)
    assert (reply.status, reply.json["error"]["code"]) == (status, code)


def test_a_stream_refused_by_moderation_has_a_body_like_an_event(dashscope) -> None:
    reply = dashscope.call(request(stream=True), fault="code:DataInspectionFailed")
    assert reply.status == 400
    assert reply.body.startswith(b'data: {"error":')
    assert reply.chunks[0]["error"]["code"] == "data_inspection_failed"


def test_usage_can_be_missing_or_absurd(dashscope) -> None:
    streamed = request(stream=True, stream_options=USAGE)
    assert all(chunk["choices"] for chunk in dashscope.call(streamed, fault="usage:missing").chunks)
    assert "usage" not in dashscope.call(request(), fault="usage:missing").json
    assert dashscope.call(streamed, fault="usage:absurd").chunks[-1]["usage"]["prompt_tokens"] == 10**12


@pytest.mark.parametrize("prefix", ["", "/v1", "/compatible-mode/v1"])
def test_models_are_listed(dashscope, prefix: str) -> None:
    listed = dashscope.call(method="GET", path=prefix + "/models").json
    assert {"qwen3-max", "qwen3.7-max", "deepseek-v3.2", "kimi-k2.6"} <= {model["id"] for model in listed["data"]}
    assert dashscope.call(request(), path=prefix + "/nothing").status == 404


def test_quotas_are_told_by_model(dashscope) -> None:
    told = dashscope.call(method="GET", path=QUOTAS, query="model=qwen3-max").json["data"]
    assert (told["rpm"], told["qps"], told["tpm"]) == (600, 10, 1_000_000)
    missing = dashscope.call(method="GET", path=QUOTAS, query="model=none")
    assert (missing.status, missing.json["code"]) == (404, "ModelNotFound")


def test_texts_become_vectors_ten_at_a_time(dashscope) -> None:
    def embed(texts, model="text-embedding-v4", **fields):
        return dashscope.call({"model": model, "input": texts, **fields}, path="/compatible-mode/v1/embeddings")

    reply = embed(["one", "two", "one"], dimensions=64).json
    first, second, third = (entry["embedding"] for entry in reply["data"])
    assert (len(first), first == third, first == second) == (64, True, False)
    assert math.isclose(sum(value * value for value in first), 1)
    assert [entry["index"] for entry in reply["data"]] == [0, 1, 2]
    assert reply["usage"] == {"prompt_tokens": 3, "total_tokens": 3}
    assert len(embed("one").json["data"][0]["embedding"]) == 1024
    refused = [
        embed(["x"] * 11), embed([]), embed("x", dimensions=63), embed("x", encoding_format="base64"),
        embed("x", model="text-embedding-v3", dimensions=2048), embed("word " * 9000),
    ]  # fmt: skip
    assert {reply.status for reply in refused} == {400}
    assert embed("x", model="qwen3-max").status == 404


# --- the native dialect


def test_a_native_answer_has_its_own_names(dashscope) -> None:
    reply = dashscope.call(native(), path=NATIVE).json
    assert reply["output"]["choices"] == [
        {"message": {"content": "Hello! How can I help you today?", "role": "assistant"}, "finish_reason": "stop"}
    ]
    assert set(reply) == {"output", "usage", "request_id"}
    assert set(reply["usage"]) == {"input_tokens", "output_tokens", "total_tokens"}


@pytest.mark.parametrize("incremental", [False, True])
def test_a_native_stream_grows_unless_it_is_told_not_to(dashscope, incremental: bool) -> None:
    sent = native(**({"incremental_output": True} if incremental else {}))
    reply = dashscope.call(sent, path=NATIVE, more={b"x-dashscope-sse": b"enable"})
    events = [json.loads(line[5:]) for line in reply.body.decode().split("\n") if line.startswith("data:")]
    texts = [event["output"]["choices"][0]["message"]["content"] for event in events]
    assert ("".join(texts) if incremental else texts[-1]) == "Hello! How can I help you today?"
    reasons = [event["output"]["choices"][0]["finish_reason"] for event in events]
    assert set(reasons[:-1]) == {"null"}
    assert reasons[-1] == "stop"
    assert b"[DONE]" not in reply.body


def test_a_native_call_is_checked_alike_and_refused_in_its_own_words(dashscope) -> None:
    reply = dashscope.call(native(temperature=2), path=NATIVE)
    assert (reply.status, set(reply.json), reply.json["code"]) == (
        400,
        {"code", "message", "request_id"},
        "InvalidParameter",
    )
    called = native(tools=[WEATHER]) | {"input": {"messages": PARIS}}
    said = dashscope.call(called, path=NATIVE).json["output"]["choices"][0]
    assert (said["finish_reason"], said["message"]["tool_calls"][0]["function"]["name"]) == (
        "tool_calls",
        "get_weather",
    )

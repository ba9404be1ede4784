"""DeepSeek's simulator against the wire examples of its documentation and captures."""

import json

import pytest
from asking import USER, WEATHER

OFF = {"type": "disabled"}
CALLED = {
    "role": "assistant",
    "content": "",
    "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "get_weather", "arguments": "{}"}}],
}
RESULT = {"role": "tool", "tool_call_id": "c1", "content": "sunny"}


def request(**fields):
    return {"model": "deepseek-flash", "messages": USER, "thinking": OFF, **fields}


@pytest.fixture
def deepseek(bench):
    return bench("deepseek")


# --- shapes


def test_an_unstreamed_answer_has_the_documented_keys(deepseek) -> None:
    reply = deepseek.call(request())
    assert (reply.status, reply.headers["content-type"], reply.headers["server"]) == (200, "application/json", "elb")
    assert len(reply.headers["x-ds-trace-id"]) == 32
    document = reply.json
    assert set(document) == {"id", "object", "created", "model", "choices", "usage", "system_fingerprint"}
    assert (document["object"], document["created"]) == ("chat.completion", 1794700000)
    assert document["choices"] == [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "Hello! How can I help you today?"},
            "logprobs": None,
            "finish_reason": "stop",
        }
    ]
    usage = document["usage"]
    assert usage["prompt_tokens"] + usage["completion_tokens"] == usage["total_tokens"]
    assert usage["prompt_cache_hit_tokens"] + usage["prompt_cache_miss_tokens"] == usage["prompt_tokens"]
    assert "completion_tokens_details" not in usage


def test_a_stream_has_an_opening_null_usage_and_the_usage_on_the_finish_chunk(deepseek) -> None:
    reply = deepseek.call(request(stream=True))
    assert reply.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert reply.data[-1] == "[DONE]"
    first, *middle, last = reply.chunks
    keys = {"id", "object", "created", "model", "system_fingerprint", "choices", "usage"}
    assert all(set(chunk) == keys for chunk in reply.chunks)
    assert all(set(chunk["choices"][0]) == {"index", "delta", "logprobs", "finish_reason"} for chunk in reply.chunks)
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert all(set(delta) == {"content"} for delta in reply.deltas[1:])
    assert all(chunk["usage"] is None and chunk["choices"][0]["finish_reason"] is None for chunk in (first, *middle))
    assert last["choices"][0] == {"index": 0, "delta": {"content": ""}, "logprobs": None, "finish_reason": "stop"}
    assert last["usage"]["completion_tokens"] == len(middle)
    assert reply.text == "Hello! How can I help you today?"


def test_thinking_is_on_unless_switched_off(deepseek) -> None:
    reply = deepseek.call({"model": "deepseek-flash", "messages": USER})
    message = reply.json["choices"][0]["message"]
    assert message["reasoning_content"]
    assert reply.json["usage"]["completion_tokens_details"]["reasoning_tokens"] > 0


def test_a_reasoning_stream_has_both_fields_in_every_delta(deepseek) -> None:
    reply = deepseek.call({"model": "deepseek-flash", "messages": USER, "stream": True})
    first, *middle, last = reply.deltas
    assert first == {"role": "assistant", "content": None, "reasoning_content": ""}
    assert last == {"content": "", "reasoning_content": None}
    assert all(set(delta) == {"content", "reasoning_content"} for delta in middle)
    thoughts = [delta for delta in middle if delta["content"] is None]
    said = [delta for delta in middle if delta["reasoning_content"] is None]
    assert thoughts + said == middle
    usage = reply.chunks[-1]["usage"]
    assert usage["completion_tokens_details"] == {"reasoning_tokens": len(thoughts)}
    assert usage["completion_tokens"] == len(middle)


def test_a_tool_call_streams_its_name_first_and_its_arguments_in_fragments(deepseek) -> None:
    messages = [{"role": "user", "content": "Weather in Paris?"}]
    reply = deepseek.call(request(messages=messages, tools=[WEATHER], stream=True))
    named, *fragments = [delta["tool_calls"][0] for delta in reply.deltas if "tool_calls" in delta]
    assert set(named) == {"index", "id", "type", "function"}
    assert named["id"].startswith("call_00_")
    assert len(named["id"]) == len("call_00_") + 24
    assert named["function"] == {"name": "get_weather", "arguments": ""}
    assert all(set(fragment) == {"index", "function"} for fragment in fragments)
    assert len(fragments) > 1
    assert json.loads("".join(f["function"]["arguments"] for f in fragments)) == {"city": "Paris"}
    assert reply.chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"


def test_unstreamed_tool_calls_are_indexed_beside_empty_content(deepseek) -> None:
    messages = [{"role": "user", "content": "Weather in Paris and Tokyo?"}]
    message = deepseek.call(request(messages=messages, tools=[WEATHER])).json["choices"][0]["message"]
    assert message["content"] == ""
    assert [call["index"] for call in message["tool_calls"]] == [0, 1]
    assert message["tool_calls"][1]["id"].startswith("call_01_")


def test_a_round_of_tools_ends_in_an_answer(deepseek) -> None:
    messages = [*USER, CALLED, RESULT]
    reply = deepseek.call(request(messages=messages, tools=[WEATHER]))
    assert reply.json["choices"][0]["message"]["content"] == "Here is what I found: sunny"


def test_logprobs_come_with_each_token(deepseek) -> None:
    streamed = deepseek.call(request(logprobs=True, stream=True))
    tokens = [chunk["choices"][0]["logprobs"] for chunk in streamed.chunks[1:-1]]
    assert "".join(each["content"][0]["token"] for each in tokens) == streamed.text
    whole = deepseek.call(request(logprobs=True)).json["choices"][0]["logprobs"]
    assert len(whole["content"]) == len(tokens)


def test_a_repeated_prefix_hits_the_cache(deepseek) -> None:
    system = {"role": "system", "content": "word " * 100}
    assert deepseek.call(request(messages=[system, *USER])).json["usage"]["prompt_cache_hit_tokens"] == 0
    again = deepseek.call(request(messages=[system, *USER])).json["usage"]
    assert again["prompt_cache_hit_tokens"] == again["prompt_tokens_details"]["cached_tokens"] > 0


def test_keep_alives_come_while_queued(bench) -> None:
    often = bench("deepseek", keep_alive_every=1)
    assert often.call(request(stream=True)).body.startswith(b": keep-alive\n\n: keep-alive\n\ndata: {")
    assert often.call(request()).body.startswith(b"\n\n{")
    queued = [{"role": "user", "content": "Hello [[queue_ms=3000 keep_alive_ms=500]]"}]
    reply = often.call(request(messages=queued, stream=True))
    assert (reply.body.count(b": keep-alive\n\n"), reply.waited_s) == (6, 3.0)


def test_json_mode_answers_in_json(deepseek) -> None:
    messages = [{"role": "user", "content": "Give me json with keys name and age"}]
    reply = deepseek.call(request(messages=messages, response_format={"type": "json_object"}))
    assert set(json.loads(reply.json["choices"][0]["message"]["content"])) == {"name", "age"}


def test_images_are_seen_by_flash_only(deepseek) -> None:
    content = [{"type": "text", "text": "What is it?"}, {"type": "image_url", "image_url": {"url": "https://e.org/i"}}]
    messages = [{"role": "user", "content": content}]
    assert "1 image" in deepseek.call(request(messages=messages)).json["choices"][0]["message"]["content"]
    refused = deepseek.call(request(messages=messages, model="deepseek-v4-pro"))
    assert refused.status == 400
    assert "untagged enum ChatCompletionRequestContent" in refused.json["error"]["message"]


def test_a_prefix_is_carried_on_at_the_beta_address_only(deepseek) -> None:
    messages = [{"role": "user", "content": "Count to 4"}, {"role": "assistant", "content": "1, 2, ", "prefix": True}]
    for path, said in (("/beta/chat/completions", "3, 4"), ("/v1/chat/completions", "1, 2, 3, 4")):
        reply = deepseek.call(request(messages=messages), path=path)
        assert reply.json["choices"][0]["message"]["content"] == said


def test_names_of_before_are_answered_by_flash(deepseek) -> None:
    assert deepseek.call(request(model="deepseek-v4-flash")).json["model"] == "deepseek-flash"


def test_pace_is_kept_by_streams_and_whole_answers(deepseek) -> None:
    slow = [{"role": "user", "content": "[[tokens=5 pace_ms=20 first_token_ms=100]]"}]
    assert deepseek.call(request(messages=slow, stream=True)).waited_s == pytest.approx(0.18)
    assert deepseek.call(request(messages=slow)).waited_s == pytest.approx(0.18)


# --- other routes


@pytest.mark.parametrize("prefix", ["", "/v1"])
def test_models_and_balance(deepseek, prefix: str) -> None:
    listed = deepseek.call(method="GET", path=prefix + "/models").json
    assert listed["object"] == "list"
    assert {"id": "deepseek-flash", "object": "model", "owned_by": "deepseek"} in listed["data"]
    balance = deepseek.call(method="GET", path=prefix + "/user/balance").json
    assert balance["is_available"] is True
    assert set(balance["balance_infos"][0]) == {"currency", "total_balance", "granted_balance", "topped_up_balance"}
    assert deepseek.call(method="GET", path="/user/balance", key="sk-broke").json["is_available"] is False


def test_an_unknown_path_is_not_found_in_another_shape(deepseek) -> None:
    reply = deepseek.call(request(), path="/v1/embeddings")
    assert (reply.status, "error" in reply.json) == (404, False)


# --- refusals


@pytest.mark.parametrize("authorization", ["", "Bearer ", "Bearer vc-sk-1", "sk-test", "Bearer sk-bad-key", "Basic x"])
def test_wrong_keys_are_refused_401_with_a_misleading_code(deepseek, authorization: str) -> None:
    reply = deepseek.call(request(), authorization=authorization)
    assert reply.status == 401
    error = reply.json["error"]
    assert error["message"].startswith("Authentication Fails")
    assert (error["type"], error["param"], error["code"]) == ("authentication_error", None, "invalid_request_error")


def test_configured_keys_are_the_only_ones(bench) -> None:
    closed = bench("deepseek", keys=("sk-one",))
    assert closed.call(request(), key="sk-one").status == 200
    assert closed.call(request(), key="sk-two").status == 401


def test_an_empty_account_is_refused_402(deepseek) -> None:
    reply = deepseek.call(request(), key="sk-broke-1")
    assert reply.status == 402
    assert reply.json["error"] == {
        "message": "Insufficient Balance",
        "type": "unknown_error",
        "param": None,
        "code": "invalid_request_error",
    }


def test_an_account_above_its_concurrency_is_refused_429(bench) -> None:
    busy = bench("deepseek", concurrency_max=1)
    busy.vendor.shared.inflight["acme/deepseek-flash"] = 1
    assert busy.call(request(), key="sk-acme-2").status == 429
    assert busy.call(request(model="deepseek-v4-pro"), key="sk-acme-2").status == 200
    assert busy.call(request(), key="sk-other").status == 200


ON = {"thinking": {"type": "enabled"}}
REFUSED = [
    ({"model": "deepseek-chat"}, "The supported API model names are"),
    ({"model": "deepseek-reasoner"}, "The supported API model names are"),
    ({"messages": [{"role": "developer", "content": "x"}]}, "unknown variant `developer`"),
    ({"messages": []}, "Empty input messages"),
    ({"messages": [{"role": "user"}]}, "missing field `content`"),
    ({"messages": [{"role": "assistant", "content": None}]}, "content or tool_calls must be set"),
    (
        {"messages": [*USER, CALLED, {**RESULT, "content": [{"type": "text", "text": "x"}]}]},
        "invalid type: sequence, expected a string",
    ),
    ({"messages": [{"role": "system", "content": [{"type": "text", "text": "x"}]}]}, "invalid type: sequence"),
    ({"messages": [*USER, CALLED, *USER]}, "must be followed by tool messages"),
    ({"messages": [*USER, RESULT]}, "must be a response to a preceding message"),
    ({"messages": [*USER, CALLED, RESULT], "tools": [WEATHER], **ON}, "The `reasoning_content` in the thinking mode"),
    ({"response_format": {"type": "json_schema", "json_schema": {}}}, "This response_format type is unavailable now"),
    ({"response_format": {"type": "json_object"}}, "must contain the word 'json'"),
    ({"tools": [WEATHER], "tool_choice": "required", **ON}, "does not support this tool_choice"),
    (
        {"tools": [WEATHER], "tool_choice": {"type": "function", "function": {"name": "get_weather"}}, **ON},
        "does not support this tool_choice",
    ),
    ({"tools": [WEATHER] * 129}, "at most 128"),
    ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "does not match pattern"),
    ({"reasoning_effort": "extreme"}, "unknown variant `extreme`"),
    ({"thinking": {"type": "maybe"}}, "thinking.type"),
    ({"user_id": "a b"}, "user_id"),
    ({"user_id": "x" * 513}, "user_id"),
    ({"temperature": 2.1}, "valid range of temperature"),
    ({"max_tokens": 0}, "valid range of max_tokens"),
    ({"max_tokens": 1.5}, "max_tokens: invalid type"),
    ({"n": 2}, "valid range of n"),
    ({"stop": ["x"] * 17}, "at most 16"),
    ({"top_logprobs": 3}, "logprobs must be true"),
    ({"messages": [{"role": "user", "content": "[[prompt_tokens=2000000]]"}]}, "maximum context length is 1048576"),
]


@pytest.mark.parametrize(("fields", "marker"), REFUSED, ids=[marker for _, marker in REFUSED])
def test_requests_are_refused_as_deepseek_refuses_them(deepseek, fields: dict, marker: str) -> None:
    reply = deepseek.call(request(**fields))
    assert reply.status == 400
    error = reply.json["error"]
    assert marker in error["message"]
    assert set(error) == {"message", "type", "param", "code"}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'{"model":"deepseek-flash"}',
        b'{"model":"deepseek-flash","messages":[{"role":"user","content":"\\ud800"}]}',
    ],
)
def test_broken_bodies_are_refused_400(deepseek, body: bytes) -> None:
    reply = deepseek.call(body)
    assert (reply.status, reply.json["error"]["type"]) == (400, "invalid_request_error")


@pytest.mark.parametrize(
    "fields",
    [
        {"messages": [*USER, {**CALLED, "reasoning_content": ""}, RESULT], "tools": [WEATHER], **ON},
        {"messages": [*USER, CALLED, RESULT], **ON},
        {"tools": [WEATHER], "tool_choice": "required"},
        {"tools": [WEATHER], "tool_choice": {"type": "function", "function": {"name": "get_weather"}}},
        {"presence_penalty": 1, "n": 1, "seed": 7, "unknown": [1], "stop": "x", "user_id": "a-b_1"},
        {"stream_options": {"include_usage": False}},
        {"reasoning_effort": "max", **ON},
    ],
)
def test_requests_that_deepseek_takes_are_taken(deepseek, fields: dict) -> None:
    assert deepseek.call(request(**fields)).status == 200


# --- failures on demand


@pytest.mark.parametrize("status", [400, 401, 402, 413, 422, 429, 500, 503])
def test_a_status_can_be_asked_for(deepseek, status: int) -> None:
    assert deepseek.call(request(), fault=f"status:{status}").status == status


@pytest.mark.parametrize(
    ("code", "status", "marker"),
    [("risk", 400, b"Content Exists Risk"), ("context", 400, b"maximum context"), ("balance", 402, b"Insufficient")],
)
def test_an_error_of_the_documentation_can_be_asked_for(deepseek, code: str, status: int, marker: bytes) -> None:
    reply = deepseek.call(request(), fault=f"code:{code}")
    assert reply.status == status
    assert marker in reply.body


def test_a_stream_can_end_for_want_of_capacity(deepseek) -> None:
    reply = deepseek.call(request(stream=True), fault="finish:insufficient_system_resource")
    assert reply.chunks[-1]["choices"][0]["finish_reason"] == "insufficient_system_resource"


def test_an_error_event_ends_the_stream_without_done(deepseek) -> None:
    reply = deepseek.call(request(stream=True), fault="error:2")
    assert reply.chunks[-1]["error"]["code"] == "internal_error"
    assert len(reply.chunks) == 4  # the opening, two deltas, the error


@pytest.mark.parametrize(
    ("kind", "prompt_tokens"), [("zero", 0), ("negative", -7), ("absurd", 10**12), ("missing", None)]
)
def test_usage_can_be_wrong(deepseek, kind: str, prompt_tokens: int | None) -> None:
    streamed = deepseek.call(request(stream=True), fault=f"usage:{kind}").chunks[-1]["usage"]
    whole = deepseek.call(request(), fault=f"usage:{kind}").json.get("usage")
    for usage in (streamed, whole):
        assert (usage and usage["prompt_tokens"]) == prompt_tokens


def test_usage_can_come_in_a_chunk_of_its_own(deepseek) -> None:
    *_, finish, usage = deepseek.call(request(stream=True), fault="usage:trailing").chunks
    assert (finish["usage"], finish["choices"][0]["finish_reason"]) == (None, "stop")
    assert usage["choices"] == []
    assert usage["usage"]["total_tokens"] > 0

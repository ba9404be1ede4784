"""Zhipu's simulator against the wire examples of its documentation, SDKs and captures."""

import base64
import hashlib
import hmac
import json

import pytest
from asking import USER, WEATHER

NOW_MS = 1_794_700_000_000


def request(**fields):
    return {"model": "glm-4-flash-250414", "messages": USER, **fields}


@pytest.fixture
def zhipu(bench):
    return bench("zhipu")


def jwt(account: str = "acme", secret: str = "simulated-secret", exp=NOW_MS + 60_000, **head: str) -> str:
    def part(value: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    payload = {"api_key": account, "exp": exp, "timestamp": NOW_MS}
    signed = f"{part({'alg': 'HS256', 'sign_type': 'SIGN', **head})}.{part(payload)}"
    digest = hmac.new(secret.encode(), signed.encode(), hashlib.sha256).digest()
    return f"{signed}.{base64.urlsafe_b64encode(digest).rstrip(b'=').decode()}"


# --- shapes


def test_an_unstreamed_answer_has_the_documented_keys(zhipu) -> None:
    reply = zhipu.call(request())
    assert reply.headers == {"content-type": "application/json; charset=UTF-8"}
    document = reply.json
    assert set(document) == {"choices", "created", "id", "model", "object", "request_id", "usage"}
    assert document["choices"] == [
        {
            "finish_reason": "stop",
            "index": 0,
            "message": {"content": "Hello! How can I help you today?", "role": "assistant"},
        }
    ]
    assert document["id"] == document["request_id"]
    assert document["id"].startswith("2026")
    assert len(document["id"]) == 30
    usage = document["usage"]
    assert set(usage) == {"completion_tokens", "prompt_tokens", "prompt_tokens_details", "total_tokens"}
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]


def test_a_stream_repeats_the_role_and_has_no_finish_reason_before_the_end(zhipu) -> None:
    reply = zhipu.call(request(stream=True))
    assert reply.headers == {"content-type": "text/event-stream;charset=UTF-8"}
    assert reply.data[-1] == "[DONE]"
    *deltas, last = reply.chunks
    for chunk in deltas:
        assert set(chunk) == {"id", "created", "object", "model", "choices"}
        assert set(chunk["choices"][0]) == {"index", "delta"}
        assert set(chunk["choices"][0]["delta"]) == {"role", "content"}
    assert deltas[0]["choices"][0]["delta"] == {"role": "assistant", "content": "Hello"}
    assert last["choices"] == [{"index": 0, "finish_reason": "stop", "delta": {"role": "assistant", "content": ""}}]
    assert last["usage"]["completion_tokens"] == len(deltas)
    assert reply.text == "Hello! How can I help you today?"


def test_newer_models_reason_by_default_and_the_role_is_repeated_there_too(zhipu) -> None:
    reply = zhipu.call(request(model="glm-4.7", stream=True))
    thoughts = [delta for delta in reply.deltas if "reasoning_content" in delta]
    assert all(set(delta) == {"role", "reasoning_content"} for delta in thoughts)
    assert reply.chunks[-1]["usage"]["completion_tokens_details"] == {"reasoning_tokens": len(thoughts)}
    off = zhipu.call(request(model="glm-4.7", thinking={"type": "disabled"})).json
    assert "reasoning_content" not in off["choices"][0]["message"]
    assert "completion_tokens_details" not in off["usage"]


def test_a_tool_call_arrives_whole_in_one_delta_without_a_role(zhipu) -> None:
    messages = [{"role": "user", "content": "Weather in Paris and Tokyo?"}]
    reply = zhipu.call(request(messages=messages, tools=[WEATHER], stream=True))
    first, second, last = reply.deltas
    assert set(first) == set(second) == {"tool_calls"}
    call = first["tool_calls"][0]
    assert set(call) == {"id", "index", "type", "function"}
    assert call["id"].startswith("call_")
    assert len(call["id"]) == 29
    assert call["function"] == {"name": "get_weather", "arguments": '{"city":"Paris"}'}
    assert second["tool_calls"][0]["index"] == 1
    assert second["tool_calls"][0]["id"] != call["id"]
    assert last == {"role": "assistant", "content": ""}
    assert reply.chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"


def test_tool_stream_fragments_the_arguments_on_newer_models(zhipu) -> None:
    messages = [{"role": "user", "content": "Weather in Paris?"}]
    reply = zhipu.call(request(model="glm-4.6", messages=messages, tools=[WEATHER], stream=True, tool_stream=True))
    parts = [delta["tool_calls"][0]["function"]["arguments"] for delta in reply.deltas if "tool_calls" in delta]
    assert len(parts) > 2
    assert json.loads("".join(parts)) == {"city": "Paris"}


def test_cached_tokens_are_counted_except_for_glm_4(zhipu) -> None:
    messages = [{"role": "system", "content": "word " * 200}, *USER]
    for model, cached in (("glm-4-plus", 0), ("glm-4.7", 192)):
        zhipu.call(request(model=model, messages=messages))
        usage = zhipu.call(request(model=model, messages=messages)).json["usage"]
        assert usage["prompt_tokens_details"]["cached_tokens"] == cached


def test_pictures_are_seen_by_vision_models(zhipu) -> None:
    def see(model: str, url: str):
        content = [{"type": "text", "text": "What is it?"}, {"type": "image_url", "image_url": {"url": url}}]
        return zhipu.call(request(model=model, messages=[{"role": "user", "content": content}]))

    assert "image/png, 8 bytes" in see("glm-4.6v", "iVBORw0KGgo=").json["choices"][0]["message"]["content"]
    assert see("glm-4.6v", "https://example.com/a.png").status == 200
    assert see("glm-4.6v", "data:image/png;base64,iVBORw0KGgo=").json["error"]["code"] == "1210"
    assert see("glm-4-plus", "iVBORw0KGgo=").json["error"]["code"] == "1210"


# --- silently ignored


def test_tool_choice_is_not_looked_at(zhipu) -> None:
    paris = [{"role": "user", "content": "Weather in Paris?"}]
    called = zhipu.call(request(messages=paris, tools=[WEATHER], tool_choice="none"))
    assert called.json["choices"][0]["finish_reason"] == "tool_calls"
    uncalled = zhipu.call(request(tools=[WEATHER], tool_choice="required"))
    assert uncalled.json["choices"][0]["finish_reason"] == "stop"


def test_a_json_schema_is_answered_with_fenced_json(zhipu) -> None:
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}}
    text = zhipu.call(request(response_format=wanted)).json["choices"][0]["message"]["content"]
    assert text.startswith("```json\n")
    plain = zhipu.call(request(response_format={"type": "json_object"})).json["choices"][0]["message"]["content"]
    json.loads(plain)


@pytest.mark.parametrize(
    "fields",
    [
        {"temperature": 1.3},
        {"temperature": 0},
        {"do_sample": False},
        {"n": 5, "logprobs": True, "seed": 1, "user": "x", "stream_options": {"include_usage": True}},
        {"max_tokens": 16_384},
        {"stop": ["x"]},
        {"user_id": "123456"},
    ],
)
def test_requests_that_zhipu_takes_are_taken(zhipu, fields: dict) -> None:
    assert zhipu.call(request(**fields)).status == 200


# --- authentication


@pytest.mark.parametrize(
    "authorization", ["Bearer acme.secret", f"Bearer {jwt()}", jwt()], ids=["raw", "bearer jwt", "bare jwt"]
)
def test_three_ways_of_authentication_are_taken(zhipu, authorization: str) -> None:
    assert zhipu.call(request(), authorization=authorization).status == 200


@pytest.mark.parametrize(
    ("authorization", "code"),
    [
        ("", "1001"),
        ("Bearer nonsense", "1002"),
        (jwt(alg="none"), "1002"),
        (jwt(sign_type="OTHER"), "1002"),
        (jwt(exp="soon"), "1002"),
        ("Bearer bad.secret", "1000"),
        (jwt(account="bad"), "1000"),
        (jwt(secret="other"), "1004"),
        (jwt(exp=NOW_MS), "1003"),
        (jwt(exp=NOW_MS // 1000 + 3600), "1003"),
        ("Bearer intl-acme.secret", "1000"),
    ],
    ids=[
        "missing", "malformed", "no algorithm", "no sign_type", "exp is text", "bad key", "unknown id",
        "wrong signature", "expired", "exp in seconds", "other site's key",
    ],
)  # fmt: skip
def test_wrong_authentication_has_its_code(zhipu, authorization: str, code: str) -> None:
    reply = zhipu.call(request(), authorization=authorization)
    assert (reply.status, reply.json["error"]["code"]) == (401, code)


def test_configured_keys_are_the_only_ones_and_sign_their_tokens(bench) -> None:
    closed = bench("zhipu", keys=("acme.s3cret",))
    assert closed.call(request(), key="acme.s3cret").status == 200
    assert closed.call(request(), key="acme.other").json["error"]["code"] == "1000"
    assert closed.call(request(), authorization=jwt(secret="s3cret")).status == 200
    assert closed.call(request(), authorization=jwt()).json["error"]["code"] == "1004"
    assert closed.call(request(), authorization=jwt(account="ghost")).json["error"]["code"] == "1000"


def test_the_international_site_has_its_own_words(bench) -> None:
    abroad = bench("zhipu", region="intl")
    assert abroad.call(request(), key="bad.secret").json["error"]["code"] == "401"
    assert abroad.call(request(), key="cn-acme.secret").status == 401
    missing = abroad.call(request())
    assert (missing.status, missing.json["error"]) == (400, {"code": "1214", "message": "modelCode: does not exist"})
    assert abroad.call(request(model="glm-4.7")).status == 200


# --- refusals

REFUSED = [
    ({"model": "glm-4"}, "1211"),
    ({"model": None}, "1213"),
    ({"messages": []}, "1213"),
    ({"messages": [{"role": "user", "content": ""}]}, "1213"),
    ({"messages": [{"role": "system", "content": "x"}]}, "1214"),
    ({"messages": [{"role": "system", "content": "x"}, {"role": "assistant", "content": "x"}]}, "1214"),
    ({"messages": [{"role": "developer", "content": "x"}, *USER]}, "1214"),
    ({"messages": [{"role": "user", "content": [{"type": "text", "text": "x"}]}]}, "1210"),
    ({"stop": ["a", "b"]}, "1214"),
    ({"stop": "a"}, "1210"),
    ({"user_id": "12345"}, "1214"),
    ({"user_id": "x" * 129}, "1214"),
    ({"max_tokens": 0}, "1214"),
    ({"max_tokens": 16_385}, "1214"),
    ({"model": "glm-4-plus", "max_tokens": 4_096}, "1214"),
    ({"temperature": -0.1}, "1214"),
    ({"temperature": 2.5}, "1214"),
    ({"top_p": 0}, "1214"),
    ({"tools": [WEATHER] * 129}, "1214"),
    ({"tools": [{"type": "custom"}]}, "1214"),
    ({"thinking": {"type": "enabled"}}, "1210"),
    ({"model": "glm-5.3", "thinking": {"type": "disabled"}}, "1210"),
    ({"model": "glm-5.3", "reasoning_effort": "medium"}, "1210"),
    ({"response_format": {"type": "xml"}}, "1214"),
    ({"messages": [{"role": "user", "content": "[[prompt_tokens=200000]]"}]}, "1261"),
]


@pytest.mark.parametrize(("fields", "code"), REFUSED)
def test_requests_are_refused_with_a_code_and_a_message_and_nothing_else(zhipu, fields: dict, code: str) -> None:
    reply = zhipu.call(request(**fields))
    assert (reply.status, set(reply.json), set(reply.json["error"])) == (400, {"error"}, {"code", "message"})
    assert reply.json["error"]["code"] == code


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"x"'])
def test_broken_bodies_are_refused(zhipu, body: bytes) -> None:
    assert zhipu.call(body).json["error"]["code"] == "1210"


def test_a_request_id_works_once_and_comes_back(zhipu) -> None:
    assert zhipu.call(request(request_id="my-request")).json["request_id"] == "my-request"
    assert zhipu.call(request(request_id="my-request")).json["error"]["code"] == "1231"


def test_an_empty_account_is_refused_with_429_and_1113(zhipu) -> None:
    reply = zhipu.call(request(), key="broke.secret")
    assert (reply.status, reply.json["error"]["code"]) == (429, "1113")


def test_concurrency_counts_by_account_and_model(bench) -> None:
    busy = bench("zhipu", concurrency_max=1)
    busy.vendor.shared.inflight["acme/glm-4-plus"] = 1
    assert busy.call(request(model="glm-4-plus"), key="acme-2.secret").json["error"]["code"] == "1302"
    assert busy.call(request(), key="acme-2.secret").status == 200


def test_messages_are_chinese_unless_english_is_asked_for(zhipu) -> None:
    assert zhipu.call(request(), fault="code:1211").json["error"]["message"] == "模型不存在，请检查模型代码。"
    assert zhipu.call(request(), fault="code:1211", language="en-US,en").json["error"]["message"].startswith("Unknown")


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [("code:1113", 429, "1113"), ("code:1301", 400, "1301"), ("code:1234", 500, "1234"), ("status:429", 429, "1302")],
)
def test_errors_can_be_asked_for(zhipu, fault: str, status: int, code: str) -> None:
    reply = zhipu.call(request(), fault=fault)
    assert (reply.status, reply.json["error"]["code"]) == (status, code)
    assert ("contentFilter" in reply.json) == (code == "1301")


def test_a_stream_can_end_as_sensitive_or_with_an_error_event(zhipu) -> None:
    sensitive = zhipu.call(request(stream=True), fault="finish:sensitive")
    assert sensitive.chunks[-1]["choices"][0]["finish_reason"] == "sensitive"
    broken = zhipu.call(request(stream=True), fault="error:1")
    assert broken.chunks[-1] == {"error": {"code": "1234", "message": "network error, please retry"}}
    missing = zhipu.call(request(stream=True), fault="usage:missing")
    assert "usage" not in missing.chunks[-1]


# --- other routes


def test_models_tokenizer_and_unknown_paths(zhipu) -> None:
    listed = zhipu.call(method="GET", path="/api/paas/v4/models").json["data"]
    assert "glm-4-flash-250414" in [model["id"] for model in listed]
    counted = zhipu.call(request(), path="/api/paas/v4/tokenizer").json["usage"]
    assert counted["prompt_tokens"] > 0
    missing = zhipu.call(request(), path="/api/paas/v4/nothing")
    assert (missing.status, missing.json["error"]) == (404, "Not Found")


def test_a_key_of_the_coding_plan_works_only_there(zhipu) -> None:
    assert zhipu.call(request(), key="plan-acme.secret").json["error"]["code"] == "1315"
    there = zhipu.call(request(), key="plan-acme.secret", path="/api/coding/paas/v4/chat/completions")
    assert there.status == 200

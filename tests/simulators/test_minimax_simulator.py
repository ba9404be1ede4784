"""MiniMax's simulator against the wire examples of its documentation and captures."""

import json
import re
from typing import Any

import pytest
from asking import WEATHER, Opener

WALL_S = 1_794_700_000.0
CHAT = "/v1/chat/completions"
NATIVE = "/v1/text/chatcompletion_v2"
HEX32 = re.compile(r"[0-9a-f]{32}")
FLAGS = {
    "input_sensitive": False,
    "output_sensitive": False,
    "input_sensitive_type": 0,
    "output_sensitive_type": 0,
    "output_sensitive_int": 0,
}
NAMED = {"role": "assistant", "name": "MiniMax AI", "audio_content": ""}
FILLER = {"total_tokens": 0, "total_characters": 0}
GREETING = "Hello! How can I help you today?"
CHUNK_KEYS = {"id", "choices", "created", "model", "object", "usage", *FLAGS}
CALLED = {
    "role": "assistant",
    "content": "\n",
    "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "get_weather", "arguments": "{}"}}],
}
RESULT = {"role": "tool", "tool_call_id": "c1", "content": "sunny"}
SYSTEM = {"role": "system", "content": "Be brief."}
USAGE = {"stream_options": {"include_usage": True}}


def user(text: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": text}]


def m2(text: str = "Hello!", **fields: Any) -> dict[str, Any]:
    return {"model": "MiniMax-M2.7", "messages": user(text), "reasoning_split": True, **fields}


def text01(text: str = "Hello!", **fields: Any) -> dict[str, Any]:
    return {"model": "MiniMax-Text-01", "messages": user(text), **fields}


def said(reply) -> str:
    """The text of the deltas; a replay counts for nothing."""
    choices = [choice for chunk in reply.chunks for choice in chunk["choices"]]
    return "".join(choice.get("delta", {}).get("content") or "" for choice in choices)


@pytest.fixture
def minimax(bench):
    return bench("minimax")


# --- /v1/chat/completions


def test_a_whole_answer_is_the_documented_one(minimax) -> None:
    reply = minimax.call(m2(), path=CHAT)
    assert (reply.status, reply.headers["content-type"]) == (200, "application/json; charset=utf-8")
    document = reply.json
    assert HEX32.fullmatch(document["id"])
    assert document["id"] == reply.headers["trace-id"]
    assert reply.headers["x-mm-request-id"] == "1000_1794700000"
    thought = "The user writes: Hello!\nI can answer that directly."
    detail = {"type": "reasoning.text", "id": "reasoning-text-1", "format": "MiniMax-response-v1", "index": 0}
    assert document["choices"] == [
        {
            "finish_reason": "stop",
            "index": 0,
            "message": {
                "content": GREETING,
                **NAMED,
                "reasoning_content": thought,
                "reasoning_details": [{**detail, "text": thought}],
            },
        }
    ]
    usage = document["usage"]
    assert set(usage) == {
        "total_tokens",
        "total_characters",
        "prompt_tokens",
        "completion_tokens",
        "completion_tokens_details",
    }
    assert (usage["total_characters"], usage["total_tokens"]) == (
        0,
        usage["prompt_tokens"] + usage["completion_tokens"],
    )
    assert document["base_resp"] == {"status_code": 0, "status_msg": ""}
    assert {name: document[name] for name in FLAGS} == FLAGS
    assert (document["model"], document["object"], document["created"]) == (
        "MiniMax-M2.7",
        "chat.completion",
        1794700000,
    )


def test_a_reasoning_stream_is_the_documented_one(minimax) -> None:
    reply = minimax.call(m2(stream=True, **USAGE), path=CHAT)
    assert reply.headers["content-type"] == "text/event-stream"
    *chunks, last = reply.chunks
    assert all(set(chunk) == CHUNK_KEYS and chunk["usage"] is None for chunk in chunks)
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    thoughts = [delta for delta in deltas if "reasoning_content" in delta]
    assert "content" not in thoughts[0]
    assert all(delta["content"] == "" for delta in thoughts[1:])
    assert [delta["reasoning_details"][0]["text"] for delta in thoughts] == [d["reasoning_content"] for d in thoughts]
    assert "".join(delta["reasoning_content"] for delta in thoughts).startswith("The user writes")
    assert all(set(delta) == {"content", *NAMED} and delta["role"] == "assistant" for delta in deltas[len(thoughts) :])
    assert said(reply) == GREETING
    assert set(last) == {"id", "choices", "created", "model", "object", "usage", "base_resp"}
    assert (last["choices"], last["base_resp"]) == ([], {"status_code": 0, "status_msg": ""})
    assert last["usage"]["completion_tokens_details"]["reasoning_tokens"] > 0
    assert "[DONE]" not in reply.data


def test_the_finish_chunk_carries_text(minimax) -> None:
    finish = minimax.call(m2(stream=True), path=CHAT).chunks[-1]["choices"][0]
    assert finish["finish_reason"] == "stop"
    assert finish["delta"]["content"]
    assert GREETING.endswith(finish["delta"]["content"])


def test_only_the_finish_chunk_has_the_key_finish_reason(minimax) -> None:
    *chunks, _ = minimax.call(m2(stream=True), path=CHAT).chunks
    assert all("finish_reason" not in chunk["choices"][0] for chunk in chunks)


def test_pieces_are_coarse(minimax) -> None:
    reply = minimax.call(m2("[[tokens=400 reasoning_tokens=0]]", stream=True), path=CHAT)
    sizes = [len(chunk["choices"][0]["delta"]["content"]) for chunk in reply.chunks]
    assert max(sizes) == 100
    assert sizes[1:-1] == [100] * (len(sizes) - 2)


def test_thinking_stands_in_the_text_unless_it_is_split(minimax) -> None:
    whole = minimax.call(m2(reasoning_split=False), path=CHAT).json["choices"][0]["message"]
    assert whole["content"].startswith("<think>\nThe user writes: Hello!")
    assert whole["content"].endswith(f"</think>\n\n{GREETING}")
    assert "reasoning_content" not in whole
    reply = minimax.call(m2(reasoning_split=None, stream=True), path=CHAT)
    assert said(reply) == whole["content"]


def test_a_think_tag_may_be_split_between_chunks(bench) -> None:
    starts = set()
    for seed in range(12):
        reply = bench("minimax", seed=seed).call(m2(reasoning_split=False, stream=True), path=CHAT)
        starts.add(reply.chunks[0]["choices"][0]["delta"]["content"])
    assert any(not start.startswith("<think>") for start in starts)
    assert any(start.startswith("<think>") for start in starts)


@pytest.mark.parametrize(("thinking", "thinks"), [(None, True), ("adaptive", True), ("disabled", False)])
def test_m3_thinks_unless_told_not_to(minimax, thinking: str | None, thinks: bool) -> None:
    fields = {"model": "MiniMax-M3"} if thinking is None else {"model": "MiniMax-M3", "thinking": {"type": thinking}}
    message = minimax.call(m2(**fields), path=CHAT).json["choices"][0]["message"]
    assert ("reasoning_content" in message) == thinks


def test_m2_thinks_whatever_it_is_told(minimax) -> None:
    reply = minimax.call(m2(thinking={"type": "disabled"}), path=CHAT)
    assert reply.json["choices"][0]["message"]["reasoning_content"]


def test_usage_comes_only_where_it_is_asked_for(minimax) -> None:
    assert all(not chunk["usage"] for chunk in minimax.call(m2(stream=True), path=CHAT).chunks)


def test_m2_5_opens_with_an_empty_role_and_fills_the_usage_with_zeros(minimax) -> None:
    first, *chunks = minimax.call(m2(model="MiniMax-M2.5", stream=True), path=CHAT).chunks
    assert first["choices"] == [{"index": 0, "delta": {"role": "", "reasoning_content": ""}}]
    assert not first.keys() & {"id", "model"}
    assert all(chunk["usage"] == FILLER for chunk in (first, *chunks))
    assert {chunk["choices"][0]["delta"]["role"] for chunk in chunks} == {"", "assistant"}


def test_a_tool_call_streams_as_captured(minimax) -> None:
    request = {"model": "MiniMax-M2.7-highspeed", "messages": user("Weather in Paris?"), "tools": [WEATHER]}
    reply = minimax.call({**request, "stream": True, **USAGE}, path=CHAT)
    *chunks, finish, usage = reply.chunks
    thinking = [chunk for chunk in chunks if "tool_calls" not in chunk["choices"][0]["delta"]]
    assert all("usage" not in chunk for chunk in thinking)
    assert {"role" in chunk["choices"][0]["delta"] for chunk in thinking} == {True, False}
    assert said(reply).startswith("<think>\n")
    assert said(reply).endswith("</think>\n\n\n")
    calling = chunks[len(thinking) :]
    assert all(set(chunk) == {"id", "created", "model", "object", "choices"} for chunk in calling)
    assert all(chunk["choices"][0]["delta"]["content"] == "" for chunk in calling)
    first, *rest = [chunk["choices"][0]["delta"]["tool_calls"][0] for chunk in calling]
    assert re.fullmatch(r"call_function_[0-9a-z]{12}_1", first["id"])
    assert first["function"]["name"] == "get_weather"
    assert first["function"]["arguments"]
    assert rest
    assert all(set(each) == {"function", "type", "index"} and set(each["function"]) == {"arguments"} for each in rest)
    assert json.loads("".join(each["function"]["arguments"] for each in (first, *rest))) == {"city": "Paris"}
    assert finish["choices"] == [{"finish_reason": "tool_calls", "index": 0, "delta": {}}]
    assert usage["choices"] == [{"index": 0, "delta": {}}]
    assert usage["usage"]["total_tokens"] > 0
    assert reply.data[-1] == "[DONE]"


def test_whole_tool_calls_stand_beside_a_line_end(minimax) -> None:
    reply = minimax.call(m2("Weather in Paris and Tokyo?", tools=[WEATHER]), path=CHAT).json["choices"][0]
    assert (reply["finish_reason"], reply["message"]["content"]) == ("tool_calls", "\n")
    calls = reply["message"]["tool_calls"]
    assert [(call["index"], call["id"][-2:]) for call in calls] == [(0, "_1"), (1, "_2")]
    assert [json.loads(call["function"]["arguments"])["city"] for call in calls] == ["Paris", "Tokyo"]


def test_a_round_of_tools_ends_in_an_answer(minimax) -> None:
    request = m2(messages=[*user("Weather in Paris?"), CALLED, RESULT], tools=[WEATHER])
    assert minimax.call(request, path=CHAT).json["choices"][0]["message"]["content"] == "Here is what I found: sunny"


def test_a_repeated_prefix_is_cached_but_not_by_text_01(minimax) -> None:
    messages = [{"role": "system", "content": "word " * 100}, *user("Hello!")]
    usage = [minimax.call(m2(messages=messages), path=CHAT).json["usage"] for _ in range(2)]
    assert "prompt_tokens_details" not in usage[0]
    assert usage[1]["prompt_tokens_details"]["cached_tokens"] > 0
    usage = [minimax.call(text01(messages=messages)).json["usage"] for _ in range(2)]
    assert all("prompt_tokens_details" not in each for each in usage)


def test_blocked_output_is_marked(minimax) -> None:
    document = minimax.call(m2(), path=CHAT, fault="finish:content_filter").json
    assert (document["output_sensitive"], document["output_sensitive_type"]) == (True, 1)
    finish = minimax.call(m2(stream=True), path=CHAT, fault="finish:content_filter").chunks[-1]
    assert (finish["output_sensitive"], finish["choices"][0]["finish_reason"]) == (True, "content_filter")


# --- what is ignored


def test_stop_is_ignored(minimax) -> None:
    for path, request in ((CHAT, m2), (NATIVE, text01)):
        reply = minimax.call(request("Count to 9", stop=["4"]), path=path)
        assert reply.json["choices"][0]["message"]["content"] == "1, 2, 3, 4, 5, 6, 7, 8, 9"
        assert reply.json["base_resp"]["status_msg"] == ""


@pytest.mark.parametrize("model", ["MiniMax-M2.7", "MiniMax-Text-01"])
def test_json_mode_is_ignored_but_words_are_not(minimax, model: str) -> None:
    wanted = {"type": "json_object"}
    plain = minimax.call(m2("A colour please", model=model, response_format=wanted)).json["choices"][0]["message"]
    assert "This is a simulated answer" in plain["content"]
    told = [{"role": "system", "content": "Answer with one JSON object and nothing else."}, *user("A colour please")]
    fenced = minimax.call(m2(model=model, messages=told)).json["choices"][0]["message"]["content"]
    assert set(json.loads(fenced.removeprefix("```json\n").removesuffix("\n```"))) == {"answer"}


SCHEMA = {"type": "object", "properties": {"colour": {"type": "string"}}, "required": ["colour"]}
STRUCTURED = {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}


def test_only_text_01_heeds_a_schema(minimax) -> None:
    heeded = minimax.call(text01("A colour please", response_format=STRUCTURED)).json["choices"][0]["message"]
    assert json.loads(heeded["content"]) == {"colour": "blue"}
    ignored = minimax.call(m2("A colour please", response_format=STRUCTURED)).json["choices"][0]["message"]
    assert "This is a simulated answer" in ignored["content"]


def test_tool_choice_none_is_known_to_v2_only(minimax) -> None:
    fields = {"tools": [WEATHER], "tool_choice": "none"}
    asked = "Weather in Paris?"
    assert "tool_calls" not in minimax.call(text01(asked, **fields)).json["choices"][0]["message"]
    assert "tool_calls" in minimax.call(m2(asked, **fields), path=CHAT).json["choices"][0]["message"]
    fields["tool_choice"] = "required"
    assert "tool_calls" not in minimax.call(text01("Hello!", **fields)).json["choices"][0]["message"]


def test_functions_are_not_tools(minimax) -> None:
    request = m2("Weather in Paris?", functions=[WEATHER["function"]])
    assert "tool_calls" not in minimax.call(request, path=CHAT).json["choices"][0]["message"]


def test_fields_that_v2_does_not_know_are_a_warning(minimax) -> None:
    document = minimax.call(text01(user="me", seed=1)).json
    message = 'Invalid parameters detected, json: unknown field "user"'
    assert document["base_resp"] == {"status_code": 0, "status_msg": message}
    assert document["choices"][0]["message"]["content"] == GREETING
    replay = minimax.call(text01(user="me", stream=True)).chunks[-1]
    assert replay["base_resp"] == {"status_code": 0, "status_msg": message}
    assert minimax.call(m2(user="me"), path=CHAT).json["base_resp"]["status_msg"] == ""


def test_text_01_knows_max_tokens_only(minimax) -> None:
    short = minimax.call(text01("[[tokens=9]]", max_tokens=4)).json
    assert (short["choices"][0]["finish_reason"], short["usage"]["completion_tokens"]) == ("length", 4)
    ignored = minimax.call(text01("[[tokens=9]]", max_completion_tokens=4)).json
    assert (ignored["choices"][0]["finish_reason"], ignored["usage"]["completion_tokens"]) == ("stop", 9)
    assert "max_completion_tokens" in ignored["base_resp"]["status_msg"]
    default = minimax.call(text01("[[tokens=3000]]")).json
    assert (default["choices"][0]["finish_reason"], default["usage"]["completion_tokens"]) == ("length", 2048)


def test_m_series_take_max_completion_tokens(minimax) -> None:
    reply = minimax.call(m2("[[tokens=9 reasoning_tokens=2]]", max_completion_tokens=4), path=CHAT).json
    assert (reply["choices"][0]["finish_reason"], reply["usage"]["completion_tokens"]) == ("length", 4)


def test_text_01_masks_addresses_unless_told_not_to(minimax) -> None:
    asked = "Say: write to ann@example.com"
    assert minimax.call(text01(asked)).json["choices"][0]["message"]["content"] == "write to ***"
    shown = minimax.call(text01(asked, mask_sensitive_info=False)).json["choices"][0]["message"]["content"]
    assert shown == "write to ann@example.com"
    assert said(minimax.call(text01(asked, stream=True))) == "write to ***"


# --- native v2


def test_a_native_stream_ends_with_the_whole_message_again(minimax) -> None:
    reply = minimax.call(text01(stream=True))
    *chunks, finish, replay = reply.chunks
    assert all(set(chunk) == CHUNK_KEYS and chunk["usage"] == FILLER for chunk in (*chunks, finish))
    deltas = [chunk["choices"][0]["delta"] for chunk in (*chunks, finish)]
    assert all(set(delta) == {"content", *NAMED} and delta["role"] == "assistant" for delta in deltas)
    assert finish["choices"][0]["finish_reason"] == "stop"
    assert finish["choices"][0]["delta"]["content"]
    assert said(reply) == GREETING
    assert replay["object"] == "chat.completion"
    message = {"content": GREETING, **NAMED}
    assert replay["choices"] == [{"finish_reason": "stop", "index": 0, "message": message}]
    assert set(replay["usage"]) == {"total_tokens", "total_characters", "prompt_tokens", "completion_tokens"}
    assert replay["base_resp"] == {"status_code": 0, "status_msg": ""}
    assert "[DONE]" not in reply.data


def test_native_tool_calls_come_in_the_replay_only(minimax) -> None:
    reply = minimax.call(text01("Weather in Paris?", tools=[WEATHER], stream=True))
    *chunks, replay = reply.chunks
    assert all("tool_calls" not in chunk["choices"][0]["delta"] for chunk in chunks)
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"
    (call,) = replay["choices"][0]["message"]["tool_calls"]
    assert json.loads(call["function"]["arguments"]) == {"city": "Paris"}


def test_blocked_output_is_code_1027_without_text(minimax) -> None:
    document = minimax.call(text01(), fault="finish:content_filter").json
    assert document["output_sensitive"] is True
    assert document["base_resp"]["status_code"] == 1027
    assert document["choices"][0]["message"]["content"] == ""
    *_, broken = minimax.call(text01(stream=True), fault="finish:content_filter").chunks
    assert (broken["choices"], broken["base_resp"]) == (
        None,
        {"status_code": 1027, "status_msg": "output new_sensitive"},
    )


def test_an_error_to_a_native_stream_is_one_event_with_or_without_data(minimax) -> None:
    bodies = [minimax.call(text01(stream=True), fault="code:1002") for _ in range(2)]
    assert {reply.body.startswith(b"data: {") for reply in bodies} == {True, False}
    for reply in bodies:
        assert (reply.status, reply.headers["content-type"]) == (200, "text/event-stream")
        event = json.loads(reply.body.removeprefix(b"data: "))
        assert (event["choices"], event["base_resp"]["status_code"]) == (None, 1002)


# --- refusals


def code_of(reply) -> int:
    if "base_resp" in reply.json:
        return int(reply.json["base_resp"]["status_code"])
    return int(re.fullmatch(r".*\((\d{4})\)", reply.json["error"]["message"])[1])


def test_native_errors_come_with_200(minimax) -> None:
    reply = minimax.call(text01(), authorization="")
    assert (reply.status, reply.headers["content-type"]) == (200, "application/json")
    assert set(reply.json) == {"id", "base_resp"}
    assert reply.json["base_resp"] == {
        "status_code": 1004,
        "status_msg": "login fail: Please carry the API secret key in the 'Authorization' field of the request header",
    }


def test_errors_of_the_other_endpoint_end_with_their_code_in_one_of_two_envelopes(minimax) -> None:
    reply = minimax.call(m2(messages=[SYSTEM, SYSTEM, *user("Hi")]), path=CHAT)
    assert (reply.status, reply.headers["content-type"]) == (400, "application/json")
    assert reply.json == {
        "type": "error",
        "error": {
            "type": "bad_request_error",
            "message": "invalid params, invalid chat setting (2013)",
            "http_code": "400",
        },
        "request_id": reply.headers["trace-id"],
    }
    reply = minimax.call(m2(messages=[*user("Hi"), SYSTEM]), path=CHAT)
    assert reply.json == {
        "error": {
            "message": "invalid params, chat content has invalid message role: system (2013)",
            "type": "bad_request_error",
            "param": "",
            "code": None,
        }
    }


@pytest.mark.parametrize(
    ("key", "codes"),
    [
        ("sk-api-bad", {1004, 2049}),
        ("wrong", {1004, 2049}),
        ("sk-api-intl-acme", {1004, 2049}),  # of the other site
        ("sk-api-broke", {1008}),
        ("sk-cp-acme", {1008, 0}),  # a plan's key: not for Text-01
        ("sk-cp-broke", {2056}),
        ("sk-api-acme", {0}),
    ],
)
def test_keys_are_of_a_site_and_of_a_kind(minimax, key: str, codes: set[int]) -> None:
    native, chat = minimax.call(text01(), key=key), minimax.call(m2(), key=key, path=CHAT)
    assert native.status == 200
    assert {code_of(native), code_of(chat)} == codes


def test_the_international_site_knows_its_own_keys(bench) -> None:
    abroad = bench("minimax", region="intl")
    assert code_of(abroad.call(text01(), key="sk-api-intl-acme")) == 0
    assert code_of(abroad.call(text01(), key="sk-api-cn-acme")) == 1004


def test_an_empty_account_is_told_with_many_statuses(minimax) -> None:
    replies = [minimax.call(m2(), path=CHAT, key="sk-api-broke") for _ in range(4)]
    assert {reply.status for reply in replies} == {200, 402, 429, 500}
    assert {code_of(reply) for reply in replies} == {1008}
    assert {code_of(minimax.call(m2(), path=CHAT, fault="code:1039")) for _ in range(2)} == {1039}


def test_an_account_above_its_connections_is_refused_1041(bench) -> None:
    busy = bench("minimax", concurrency_max=1)
    busy.vendor.shared.inflight["acme"] = 1
    assert code_of(busy.call(text01(), key="sk-api-acme-2")) == 1041
    assert code_of(busy.call(text01(), key="sk-api-other")) == 0


@pytest.mark.parametrize(
    ("limits", "code"), [({"requests_per_minute_max": 2}, 1002), ({"tokens_per_minute_max": 25}, 1039)]
)
def test_an_account_above_its_rate_is_told_so_with_200_until_the_minute_is_over(bench, limits: dict, code: int) -> None:
    busy = bench("minimax", **limits)
    replies = [busy.call(text01(), key=f"sk-api-acme-{n}") for n in range(3)]
    assert [(reply.status, code_of(reply)) for reply in replies] == [(200, 0), (200, 0), (200, code)]
    assert code_of(busy.call(text01(), key="sk-api-other")) == 0
    assert code_of(busy.call(text01(), key="sk-api-acme", wall_s=WALL_S + 61)) == 0


def test_the_published_limits_hold_for_who_asks_for_them(minimax) -> None:
    codes = [code_of(minimax.call(text01(), key="sk-limited")) for _ in range(501)]
    assert codes == [0] * 500 + [1002]


def with_arguments(text: str) -> list[dict[str, Any]]:
    function = {"name": "get_weather", "arguments": text}
    return [*user("Hi"), {**CALLED, "tool_calls": [{"id": "c1", "type": "function", "function": function}]}, RESULT]


REFUSED = [
    ({"messages": [SYSTEM, SYSTEM, *user("Hi")]}, 2013, "invalid chat setting"),
    ({"messages": [*user("Hi"), SYSTEM]}, 2013, "chat content has invalid message role: system"),
    ({"messages": [{"role": "developer", "content": "x"}]}, 2013, "invalid message role: developer"),
    ({"messages": []}, 2013, "messages must not be empty"),
    ({"messages": [*user("Hi"), CALLED, {**RESULT, "tool_call_id": "c2"}]}, 2013, "tool call id is invalid"),
    ({"messages": with_arguments('{"city": ')}, 2013, "invalid function arguments json string"),
    ({"messages": with_arguments("")}, 2013, "invalid function arguments json string"),
    ({"messages": user("\u200b\u200bhi\u200b")}, 1042, "invisible"),
    ({"messages": [{"role": "user", "content": [{"type": "text", "text": "x"}]}]}, 2013, "content must be a string"),
    ({"model": "minimax-m2.7"}, 2013, "unknown model 'minimax-m2.7'"),
    ({"model": "abab6.5"}, 2013, "unknown model"),
    ({"temperature": 1.1}, 2013, "temperature"),
    ({"temperature": -0.1}, 2013, "temperature"),
    ({"model": "MiniMax-M3", "temperature": 2.1}, 2013, "temperature"),
    ({"model": "MiniMax-Text-01", "temperature": 0}, 2013, "temperature must be in (0, 1]"),
    ({"model": "MiniMax-Text-01", "temperature": 1.5}, 2013, "temperature must be in (0, 1]"),
    ({"top_p": 0}, 2013, "top_p"),
    ({"max_completion_tokens": 0}, 2013, "max_completion_tokens"),
    ({"n": 2}, 2013, "n must be 1"),
    ({"model": "MiniMax-M3", "thinking": {"type": "enabled"}}, 2013, "thinking"),
    (
        {
            "model": "MiniMax-Text-01",
            "response_format": {**STRUCTURED, "json_schema": {"schema": {**SCHEMA, "required": []}}},
        },
        2013,
        "must be required",
    ),
    ({"messages": user("[[prompt_tokens=300000]]")}, 2013, "context window exceeds limit"),
]


@pytest.mark.parametrize("path", [CHAT, NATIVE])
@pytest.mark.parametrize(("fields", "code", "marker"), REFUSED, ids=[marker for *_, marker in REFUSED])
def test_requests_are_refused_as_minimax_refuses_them(minimax, fields: dict, code: int, marker: str, path: str) -> None:
    reply = minimax.call(m2(**fields), path=path)
    assert reply.status == (200 if path == NATIVE else 400)
    assert code_of(reply) == code
    assert marker in reply.body.decode()


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"model":"MiniMax-M2.7"}'])
def test_broken_bodies_are_refused_2013(minimax, body: bytes) -> None:
    assert code_of(minimax.call(body, path=CHAT)) == 2013


IMAGE = [{"type": "text", "text": "What is it?"}, {"type": "image_url", "image_url": {"url": "https://e.org/i"}}]


@pytest.mark.parametrize(
    ("model", "path", "sees"),
    [
        ("MiniMax-M3", CHAT, True),
        ("MiniMax-Text-01", NATIVE, True),
        ("MiniMax-Text-01", CHAT, False),
        ("MiniMax-M2.7", CHAT, False),
    ],
)
def test_images_are_seen_by_m3_and_by_text_01_over_v2(minimax, model: str, path: str, sees: bool) -> None:
    reply = minimax.call(m2(model=model, messages=[{"role": "user", "content": IMAGE}]), path=path)
    assert code_of(reply) == (0 if sees else 2013)
    assert (b"1 image" in reply.body) == sees


@pytest.mark.parametrize(
    "fields",
    [
        {"temperature": 0},
        {"model": "MiniMax-M3", "temperature": 2},
        {"presence_penalty": 1, "frequency_penalty": 1, "logit_bias": {"1": 1}, "seed": 7, "n": 1, "unknown": [1]},
        {"messages": [SYSTEM, *user("Hi")], "max_tokens": 9_999_999},
        {"tool_choice": {"type": "function", "function": {"name": "nothing"}}, "tools": [WEATHER]},
    ],
)
def test_requests_that_minimax_takes_are_taken(minimax, fields: dict) -> None:
    assert code_of(minimax.call(m2(**fields), path=CHAT)) == 0


def test_models_are_listed_and_other_paths_are_not_there(minimax) -> None:
    listed = minimax.call(method="GET", path="/v1/models").json["data"]
    assert "MiniMax-Text-01" in [model["id"] for model in listed]
    assert minimax.call(m2(), path="/v1/completions").status == 404


# --- failures on demand


@pytest.mark.parametrize("status", [400, 401, 402, 403, 429, 500, 529])
def test_a_status_can_be_asked_for(minimax, status: int) -> None:
    chat = minimax.call(m2(), path=CHAT, fault=f"status:{status}")
    assert (chat.status, chat.json["error"]["http_code"]) == (status, str(status))
    native = minimax.call(text01(), fault=f"status:{status}")
    assert (native.status, native.json["base_resp"]["status_code"] > 0) == (status, True)


def test_an_error_can_be_asked_for_with_any_status(minimax) -> None:
    reply = minimax.call(m2(), path=CHAT, fault="code:1008,status:500")
    assert (reply.status, reply.json["error"]) == (
        500,
        {"type": "insufficient_balance_error", "message": "insufficient balance (1008)", "http_code": "500"},
    )
    reply = minimax.call(m2(), path=CHAT, fault="code:1008,status:200")
    assert (reply.status, reply.json["base_resp"]["status_code"]) == (200, 1008)


def test_blocked_input_is_marked(minimax) -> None:
    document = minimax.call(text01(), fault="code:1026").json
    assert (document["input_sensitive"], document["input_sensitive_type"]) == (True, 1)
    assert document["base_resp"] == {"status_code": 1026, "status_msg": "input new_sensitive"}


def test_an_error_event_ends_the_stream(minimax) -> None:
    reply = minimax.call(text01(stream=True), fault="error:2")
    assert reply.chunks[-1]["base_resp"]["status_code"] == 1000
    assert len(reply.chunks) == 3


@pytest.mark.parametrize(
    ("kind", "prompt_tokens"), [("zero", 0), ("negative", -7), ("absurd", 10**12), ("missing", None)]
)
def test_usage_can_be_wrong(minimax, kind: str, prompt_tokens: int | None) -> None:
    fault = f"usage:{kind}"
    chunk = minimax.call(m2(stream=True, **USAGE), path=CHAT, fault=fault).chunks[-1]
    replay = minimax.call(text01(stream=True), fault=fault).chunks[-1]
    whole = minimax.call(text01(), fault=fault).json
    for usage in (chunk["usage"], replay.get("usage"), whole.get("usage")):
        assert (usage and usage["prompt_tokens"]) == prompt_tokens


def test_the_usage_of_a_native_stream_can_trail_the_replay(minimax) -> None:
    *_, replay, usage = minimax.call(text01(stream=True), fault="usage:trailing").chunks
    assert "usage" not in replay
    assert (usage["choices"], usage["usage"]["prompt_tokens"] > 0) == ([], True)


# --- over a socket


@pytest.mark.parametrize("path", [CHAT, NATIVE])
async def test_both_endpoints_answer_over_http(simulator: Opener, path: str) -> None:
    client = await simulator("minimax")
    stream = json.dumps(m2(stream=True, **USAGE)).encode()
    answer = await client.request("POST", path, stream, authorization="Bearer sk-api-test")
    assert (answer.status, answer.whole) == (200, True)
    assert answer.headers["trace-id"] in answer.body.decode()
    broke = await client.request("POST", path, stream, authorization="Bearer sk-api-broke")
    assert b"1008" in broke.body
    asked = json.dumps({"faults": ["cut:2", "code:1039"]}).encode()
    await client.request("POST", "/_sim/faults", asked)
    cut = await client.request("POST", path, stream, authorization="Bearer sk-api-test")
    assert (cut.body.count(b"data: "), cut.whole) == (2, False)
    limited = await client.request("POST", path, stream, authorization="Bearer sk-api-test")
    assert b"1039" in limited.body

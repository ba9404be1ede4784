"""Each row of the parameter matrix for DeepSeek and Zhipu, and the message rules of both sheets.

A test sends a caller's JSON through the real decoder and reads what goes upstream.
"""

import json
import re
import weakref
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from candidates import varied
from vipcloud.dialects.openai import ChatRequest, PlainChat
from vipcloud.dialects.shapes import Shapes
from vipcloud.errors import BadRequest, GatewayError, NotImplementedYet
from vipcloud.providers import call_ids, catalog, fitness, translate
from vipcloud.providers.catalog import catalog_of
from vipcloud.providers.models import Candidate, Model

MODELS = catalog_of(catalog.packaged_toml()).models
CHAT = MODELS["deepseek-chat"].candidates[0]
REASONER = MODELS["deepseek-reasoner"].candidates[0]
FLASH = MODELS["glm-4-flash"].candidates[0]
PLUS, PLUS_FALLBACK, VISION = MODELS["glm-4-plus"].candidates

SYSTEM_FIRST = varied(CHAT, quirks=msgspec.structs.replace(CHAT.quirks, system_first=True))

HELLO = [{"role": "user", "content": "Hello"}]
TOOL = {"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object", "properties": {}}}}
OTHER = {"type": "function", "function": {"name": "get_time", "parameters": {"type": "object"}}}
NAMED = {"type": "function", "function": {"name": "get_weather"}}
IMAGE = {"type": "image_url", "image_url": {"url": "https://example.com/cat.png"}}
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}
SCHEMA_FORMAT = {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA, "strict": True}}


def asked(**fields: Any) -> ChatRequest:
    raw = msgspec.json.encode({"model": "m", "messages": HELLO, **fields})
    return msgspec.json.decode(raw, type=ChatRequest)


def sent(candidate: Candidate, **fields: Any) -> dict[str, Any]:
    """What goes upstream. Where the request is plain, the same must go by the short way."""
    request = asked(**fields)
    body = translate.encode_request(request, candidate, attempt_id="attempt-1")
    try:
        plain = msgspec.convert(msgspec.to_builtins(request), PlainChat)
    except msgspec.ValidationError:
        pass
    else:
        assert translate.encode_request(plain, candidate, attempt_id="attempt-1") == body
    decoded: dict[str, Any] = msgspec.json.decode(body)
    return decoded


def refused(candidate: Candidate, **fields: Any) -> GatewayError:
    with pytest.raises(GatewayError) as caught:
        sent(candidate, **fields)
    return caught.value


# --- the whole body ------------------------------------------------------------------------------------------------


def test_a_plain_request_to_deepseek_is_this_and_no_more() -> None:
    assert sent(CHAT) == {
        "model": "deepseek-flash",
        "messages": HELLO,
        "max_tokens": 8_192,
        "thinking": {"type": "disabled"},
    }
    assert sent(REASONER)["thinking"] == {"type": "enabled"}


def test_a_plain_request_to_zhipu_is_this_and_no_more() -> None:
    assert sent(FLASH) == {
        "model": "glm-4-flash-250414",
        "messages": HELLO,
        "max_tokens": 16_000,
        "request_id": "attempt-1",
    }


def test_thinking_is_always_said_from_glm_45_on_and_never_before() -> None:
    assert "thinking" not in sent(PLUS)
    assert sent(PLUS_FALLBACK)["thinking"] == {"type": "disabled"}


def test_the_callers_own_keys_go_no_further() -> None:
    raw = (
        b'{"model":"m","messages":[{"role":"user","content":"Hello","cache_control":{"a":1}}],'
        b'"top_k":3,"thinking":{"type":"enabled"},"enable_thinking":true,"request_id":"mine"}'
    )
    request = msgspec.json.decode(raw, type=ChatRequest)
    body = translate.encode_request(request, FLASH, attempt_id="attempt-2")
    assert msgspec.json.decode(body) == {**sent(FLASH), "request_id": "attempt-2"}


def test_a_doubled_key_goes_on_once() -> None:
    raw = b'{"model":"m","messages":[{"role":"user","content":"a","content":"b"}],"max_tokens":1,"max_tokens":2}'
    body = translate.encode_request(msgspec.json.decode(raw, type=ChatRequest), CHAT, attempt_id="a")
    assert body.count(b'"content"') == body.count(b'"max_tokens"') == 1
    assert msgspec.json.decode(body)["messages"] == [{"role": "user", "content": "b"}]


@given(
    st.lists(
        st.fixed_dictionaries(
            {"role": st.sampled_from(["system", "user", "assistant"]), "content": st.text(max_size=9)}
        ),
        min_size=1,
        max_size=4,
    ),
    st.fixed_dictionaries(
        {},
        optional={
            "stream": st.booleans(),
            "temperature": st.floats(0, 2),
            "top_p": st.floats(0, 1),
            "max_tokens": st.integers(1, 10**6),
            "n": st.just(1),
            "user": st.text(max_size=9),
        },
    ),
    st.sampled_from([CHAT, REASONER, FLASH, PLUS_FALLBACK]),
)
def test_a_plain_request_goes_upstream_by_the_short_way_as_by_the_long_one(
    messages: list[Any], fields: dict[str, Any], candidate: Candidate
) -> None:
    raw = msgspec.json.encode({"model": "m", "messages": messages, **fields})
    long, short = msgspec.json.decode(raw, type=ChatRequest), msgspec.json.decode(raw, type=PlainChat)
    problem, same = fitness.refusal(long, candidate), fitness.refusal(short, candidate)
    assert (str(problem), type(problem)) == (str(same), type(same))
    bodies = [
        translate.encode_suited(request, candidate, max_tokens=None, attempt_id="a", account="b")
        for request in (long, short)
    ]
    assert bodies[0] == bodies[1]


@given(
    st.lists(
        st.tuples(
            st.lists(st.text(max_size=9), min_size=2, max_size=2),
            st.sampled_from([CHAT, REASONER, FLASH, PLUS_FALLBACK, SYSTEM_FIRST]),
            st.sampled_from([None, 7, 9]),
            st.sampled_from(["", "a", "b"]),
            st.booleans(),
        ),
        min_size=3,
        max_size=8,
    ),
    st.sampled_from([{}, {"store": False, "temperature": 0}, {"stream": True, "top_p": 0.123}]),
)
def test_a_request_that_was_recognised_goes_upstream_as_any_other(calls: list[Any], fields: dict[str, Any]) -> None:
    known = Shapes()
    for number, (texts, candidate, ceiling, account, escaped) in enumerate(calls):
        said = [{"role": role, "content": text} for role, text in zip(("user", "system"), texts, strict=True)]
        chat = {"model": "m", "messages": said, **fields}
        read = known.read("k", json.dumps(chat, separators=(",", ":"), ensure_ascii=escaped).encode())
        assert (read.shape is not None) == (number > 1)
        other = msgspec.structs.replace(read.request, messages=read.request.messages[:1])
        for request in (read.request, other):
            by_shape, afresh = [
                translate.encode_suited(
                    request, candidate, max_tokens=ceiling, attempt_id=f"a-{number}", account=account, asked=how
                )
                for how in (read, None)
            ]
            assert by_shape == afresh or escaped
            assert msgspec.json.decode(by_shape) == msgspec.json.decode(afresh)


@pytest.mark.parametrize("model", [model for model in MODELS.values() if model.takes_plain], ids=lambda model: model.id)
def test_a_model_that_takes_plain_requests_refuses_none(model: Model) -> None:
    raw = b'{"model":"m","messages":[{"role":"system","content":""},{"role":"assistant","content":""}],"n":1}'
    request = msgspec.json.decode(raw, type=PlainChat)
    assert fitness.suited(request, model.candidates) is model.candidates


# --- parameters ----------------------------------------------------------------------------------------------------

# what is asked, what DeepSeek gets, what Zhipu gets; {} is "nothing"
PASSED: list[tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = [
    ({"temperature": 1.5}, {"temperature": 1.5}, {"temperature": 1.0}),
    ({"temperature": 0.333}, {"temperature": 0.333}, {"temperature": 0.33}),
    ({"temperature": 0}, {"temperature": 0.0}, {"temperature": 0.01, "do_sample": False}),
    ({"temperature": 0.001}, {"temperature": 0.001}, {"temperature": 0.01}),
    ({"top_p": 0}, {"top_p": 0.0}, {"top_p": 0.01}),
    ({"top_p": 0.9}, {"top_p": 0.9}, {"top_p": 0.9}),
    ({"max_tokens": 100}, {"max_tokens": 100}, {"max_tokens": 100}),
    ({"max_tokens": 10**9}, {"max_tokens": 8_192}, {"max_tokens": 16_000}),
    ({"max_completion_tokens": 100}, {"max_tokens": 100}, {"max_tokens": 100}),
    ({"max_tokens": 7, "max_completion_tokens": 9}, {"max_tokens": 9}, {"max_tokens": 9}),
    ({"stop": "a"}, {"stop": ["a"]}, {"stop": ["a"]}),
    ({"stop": ["a", "b", "a"]}, {"stop": ["a", "b"]}, {"stop": ["a"]}),
    ({"stop": ["", "b"]}, {"stop": ["b"]}, {"stop": ["b"]}),
    ({"stop": ""}, {}, {}),
    ({"n": 1}, {}, {}),
    ({"presence_penalty": 1}, {"presence_penalty": 1.0}, {}),
    ({"frequency_penalty": -1}, {"frequency_penalty": -1.0}, {}),
    ({"logprobs": False}, {}, {}),
    ({"seed": 7}, {}, {}),
    ({"logit_bias": {"1": 2}}, {}, {}),
    ({"stream": False}, {}, {}),
    ({"stream": True}, {"stream": True, "stream_options": {"include_usage": True}}, {"stream": True}),
    (
        {"stream": True, "stream_options": {"include_usage": False}},
        {"stream": True, "stream_options": {"include_usage": True}},
        {"stream": True},
    ),
    ({"tools": [TOOL]}, {"tools": [TOOL]}, {"tools": [TOOL]}),
    ({"tools": []}, {}, {}),
    ({"tools": [TOOL], "parallel_tool_calls": True}, {"tools": [TOOL]}, {"tools": [TOOL]}),
    (
        {"tools": [TOOL], "tool_choice": "auto"},
        {"tools": [TOOL], "tool_choice": "auto"},
        {"tools": [TOOL], "tool_choice": "auto"},
    ),
    ({"tools": [TOOL], "tool_choice": "none"}, {"tools": [TOOL], "tool_choice": "none"}, {}),
    ({"tool_choice": "auto"}, {}, {}),
    ({"response_format": {"type": "text"}}, {}, {}),
    ({"reasoning_effort": "high"}, {}, {}),
    (
        {
            "store": True,
            "metadata": {"a": "b"},
            "service_tier": "auto",
            "prompt_cache_key": "k",
            "verbosity": "low",
            "modalities": ["text"],
            "prediction": {"type": "content", "content": "x"},
            "moderation": {"model": "m"},
        },
        {},
        {},
    ),
]


@pytest.mark.parametrize(("fields", "to_deepseek", "to_zhipu"), PASSED)
def test_a_parameter_arrives_as_each_upstream_takes_it(
    fields: dict[str, Any], to_deepseek: dict[str, Any], to_zhipu: dict[str, Any]
) -> None:
    assert sent(CHAT, **fields) == sent(CHAT) | to_deepseek
    assert sent(FLASH, **fields) == sent(FLASH) | to_zhipu


AUDIO_PART = {"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}}
FILE_PART = {"type": "file", "file": {"file_id": "file-1"}}
CUSTOM_TOOL = {"type": "custom", "custom": {"name": "shell"}}
REQUIRED = {"tools": [TOOL], "tool_choice": "required"}
ALLOWED_REQUIRED = {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [NAMED]}}
LEGACY = {"functions": [{"name": "get_weather"}], "function_call": {"name": "get_weather"}}


@pytest.mark.parametrize(
    ("candidates", "fields", "param"),
    [
        ([CHAT, REASONER, FLASH], {"n": 2}, "n"),
        ([REASONER, FLASH], {"logprobs": True}, "logprobs"),
        ([CHAT, FLASH], {"modalities": ["text", "audio"]}, "modalities"),
        ([CHAT, FLASH], {"audio": {"voice": "a", "format": "mp3"}}, "audio"),
        ([CHAT, FLASH], {"web_search_options": {}}, "web_search_options"),
        ([CHAT, FLASH], {"tools": [TOOL, CUSTOM_TOOL]}, "tools[1]"),
        ([CHAT], {"tools": [TOOL], "tool_choice": {"type": "custom", "custom": {"name": "x"}}}, "tool_choice"),
        ([REASONER, FLASH], REQUIRED, "tool_choice"),
        ([REASONER, FLASH], REQUIRED | {"tool_choice": "any"}, "tool_choice"),
        ([REASONER, FLASH], REQUIRED | {"tool_choice": NAMED}, "tool_choice"),
        ([REASONER, FLASH], REQUIRED | {"tool_choice": ALLOWED_REQUIRED}, "tool_choice"),
        ([REASONER, FLASH], LEGACY, "function_call"),
        ([CHAT, REASONER, PLUS], {"messages": [{"role": "user", "content": [IMAGE]}]}, "messages[0].content[0]"),
        ([CHAT, VISION], {"messages": [*HELLO, {"role": "user", "content": [AUDIO_PART]}]}, "messages[1].content[0]"),
        ([CHAT, VISION], {"messages": [{"role": "user", "content": [FILE_PART]}]}, "messages[0].content[0]"),
        ([CHAT], {"messages": [*HELLO, {"role": "assistant", "audio": {"id": "a"}}]}, "messages[1].audio"),
        (
            [CHAT],
            {
                "messages": [
                    {"role": "assistant", "tool_calls": [{"id": "c", "type": "custom", "custom": {"name": "x"}}]}
                ]
            },
            "messages[0].tool_calls",
        ),
    ],
)
def test_what_an_upstream_cannot_do_is_said_and_not_dropped(
    candidates: list[Candidate], fields: dict[str, Any], param: str
) -> None:
    for candidate in candidates:
        error = refused(candidate, **fields)
        assert (type(error), error.status, error.param) == (NotImplementedYet, 501, param)


def test_logprobs_pass_where_deepseek_does_not_think() -> None:
    assert sent(CHAT, logprobs=True, top_logprobs=3) == sent(CHAT) | {"logprobs": True, "top_logprobs": 3}


@pytest.mark.parametrize(
    ("choice", "to_deepseek"), [("required", "required"), ("any", "required"), (NAMED, NAMED), ("none", "none")]
)
def test_a_forced_tool_call_passes_where_deepseek_does_not_think(choice: Any, to_deepseek: Any) -> None:
    assert sent(CHAT, tools=[TOOL], tool_choice=choice)["tool_choice"] == to_deepseek


@pytest.mark.parametrize("effort", ["minimal", "low", "medium", "high", "xhigh", "max"])
def test_reasoning_effort_goes_only_to_a_model_that_reasons(effort: str) -> None:
    assert sent(REASONER, reasoning_effort=effort)["reasoning_effort"] == effort
    assert "reasoning_effort" not in sent(CHAT, reasoning_effort=effort)


def test_an_effort_goes_by_the_upstreams_own_word_or_not_at_all() -> None:
    override = (
        '[models.deepseek-reasoner]\n[[models.deepseek-reasoner.candidates]]\nprovider = "deepseek"\nmodel = "x"\n'
    )
    override += (
        'cost = { input = "1", output = "1" }\nquirks = { thinking = true, reasoning_efforts = { minimal = "high" } }'
    )
    candidate = catalog_of(catalog.packaged_toml(), override).models["deepseek-reasoner"].candidates[0]
    assert sent(candidate, reasoning_effort="minimal")["reasoning_effort"] == "high"
    assert "reasoning_effort" not in sent(candidate, reasoning_effort="max")


@pytest.mark.parametrize(("granted", "asked_for", "goes"), [(16, None, 16), (16, 100, 16), (10**6, None, 8_192)])
def test_the_granted_ceiling_goes_before_the_callers(granted: int, asked_for: int | None, goes: int) -> None:
    request = asked(max_tokens=asked_for)
    body = translate.encode_request(request, CHAT, max_tokens=granted, attempt_id="a")
    assert msgspec.json.decode(body)["max_tokens"] == goes


@given(st.floats(0, 2), st.floats(0, 1))
def test_zhipu_never_sees_sampling_outside_its_range(temperature: float, top_p: float) -> None:
    body = sent(FLASH, temperature=temperature, top_p=top_p)
    assert 0.01 <= body["temperature"] <= 1
    assert 0.01 <= body["top_p"] <= 1


# --- user ----------------------------------------------------------------------------------------------------------


@given(st.text(max_size=300), st.text(max_size=20))
def test_a_user_becomes_a_pseudonym_in_every_upstreams_alphabet(user: str, account: str) -> None:
    request = asked(user=user)
    for candidate in (CHAT, FLASH):
        body = translate.encode_request(request, candidate, attempt_id="a", account=account)
        user_id = msgspec.json.decode(body)["user_id"]
        assert re.fullmatch(r"[A-Za-z0-9_-]{6,128}", user_id)
        assert "user" not in msgspec.json.decode(body)


def test_two_customers_same_user_are_two_users_upstream() -> None:
    def user_id(account: str, **fields: Any) -> str | None:
        body = translate.encode_request(asked(**fields), CHAT, attempt_id="a", account=account)
        found: str | None = msgspec.json.decode(body).get("user_id")
        return found

    ids = [user_id("a", user="1"), user_id("b", user="1"), user_id("a", user="2"), user_id("a"), user_id("b")]
    assert len(set(ids)) == len(ids)
    assert user_id("a", user="1") == user_id("a", safety_identifier="1") == ids[0]
    assert user_id("") is None


class Name(str):
    """One that can be looked at weakly."""

    __slots__ = ("__weakref__",)


@pytest.mark.parametrize("field", ["user", "safety_identifier"])
def test_a_user_is_forgotten_with_the_request(field: str) -> None:
    request, name = asked(), Name(f"Zyzzyva, {field}")
    setattr(request, field, name)
    alive = weakref.ref(name)
    translate.encode_request(request, CHAT, attempt_id="a", account="b")
    assert alive() is not None
    del request, name
    assert alive() is None


# --- stops ---------------------------------------------------------------------------------------------------------


@given(st.lists(st.text(max_size=3), min_size=1, max_size=4) | st.text(max_size=3))
def test_every_stop_is_watched_for_exactly_once(stop: list[str] | str) -> None:
    wanted = {text for text in ([stop] if isinstance(stop, str) else stop) if text}
    for candidate in (CHAT, FLASH):
        upstream = sent(candidate, stop=stop).get("stop", [])
        here = translate.local_stops(asked(stop=stop), candidate)
        assert {*upstream, *here} == wanted
        assert len(upstream) + len(here) == len(wanted)


def test_without_stops_there_are_none_to_watch_for() -> None:
    assert translate.local_stops(asked(), FLASH) == ()
    assert translate.local_stops(asked(stop=["a", "b"]), FLASH) == ("b",)


# --- messages ------------------------------------------------------------------------------------------------------

CALL = {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": "{}"}}
RESULT = {"role": "tool", "content": "rain", "tool_call_id": "call_1"}


def text_part(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}


@pytest.mark.parametrize("candidate", [CHAT, FLASH], ids=["deepseek", "zhipu"])
@pytest.mark.parametrize(
    ("message", "goes"),
    [
        ({"role": "developer", "content": "Be brief"}, {"role": "system", "content": "Be brief"}),
        (
            {"role": "system", "content": [text_part("a"), text_part("b")]},
            {"role": "system", "content": "a\nb"},
        ),
        (
            {"role": "user", "content": [text_part("a"), text_part("b")]},
            {"role": "user", "content": "a\nb"},
        ),
        ({"role": "user"}, {"role": "user", "content": ""}),
        (
            {"role": "assistant", "content": None, "tool_calls": [CALL]},
            {"role": "assistant", "content": "", "tool_calls": [CALL]},
        ),
        ({"role": "assistant", "content": None}, {"role": "assistant", "content": ""}),
        ({"role": "assistant", "tool_calls": []}, {"role": "assistant", "content": ""}),
        ({"role": "assistant", "content": "a", "tool_calls": []}, {"role": "assistant", "content": "a"}),
        ({"role": "assistant", "refusal": "No."}, {"role": "assistant", "content": "No."}),
        ({"role": "assistant", "content": "a", "refusal": "No."}, {"role": "assistant", "content": "a"}),
        (
            {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]},
            {"role": "assistant", "content": "No."},
        ),
        ({"role": "assistant", "content": [text_part("a")]}, {"role": "assistant", "content": "a"}),
        ({"role": "assistant", "content": "a", "reasoning_content": "b"}, {"role": "assistant", "content": "a"}),
        ({"role": "assistant", "content": "a", "reasoning": "b"}, {"role": "assistant", "content": "a"}),
        (RESULT, RESULT),
        (RESULT | {"content": [text_part("ra"), text_part("in")]}, RESULT | {"content": "ra\nin"}),
    ],
)
def test_a_message_arrives_as_both_upstreams_take_it(
    candidate: Candidate, message: dict[str, Any], goes: dict[str, Any]
) -> None:
    assert sent(candidate, messages=[message, *HELLO])["messages"] == [goes, *HELLO]


def test_names_of_speakers_go_only_where_they_are_known() -> None:
    messages = [{"role": role, "content": "x", "name": "ann"} for role in ("system", "developer", "user", "assistant")]
    assert all(message["name"] == "ann" for message in sent(CHAT, messages=messages)["messages"])
    assert not any("name" in message for message in sent(FLASH, messages=messages)["messages"])


def test_functions_of_the_old_kind_become_tools() -> None:
    body = sent(
        CHAT,
        messages=[
            *HELLO,
            {"role": "assistant", "content": None, "function_call": {"name": "get_weather", "arguments": "{}"}},
            {"role": "function", "name": "get_weather", "content": "rain"},
        ],
        **LEGACY,
    )
    assert body["messages"][1]["tool_calls"] == [CALL]
    assert body["messages"][2] == RESULT
    assert body["tools"] == [TOOL]
    assert body["tool_choice"] == NAMED


def test_strict_is_left_out_and_missing_parameters_are_none() -> None:
    tool = {"type": "function", "function": {"name": "get_weather", "strict": True}}
    assert sent(CHAT, tools=[tool])["tools"] == sent(FLASH, tools=[tool])["tools"] == [TOOL]
    described = {
        "type": "function",
        "function": {"name": "f", "description": "d", "parameters": SCHEMA, "strict": False},
    }
    assert sent(CHAT, tools=[described])["tools"][0]["function"] == {
        "name": "f",
        "description": "d",
        "parameters": SCHEMA,
    }


def test_allowed_tools_narrow_what_is_offered() -> None:
    choice = {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [NAMED]}}
    for candidate in (CHAT, REASONER, FLASH):
        body = sent(candidate, tools=[TOOL, OTHER], tool_choice=choice)
        assert (body["tools"], body["tool_choice"]) == ([TOOL], "auto")
    assert refused(CHAT, tools=[OTHER], tool_choice=choice).param == "tool_choice"


def test_zhipu_is_not_asked_without_a_user() -> None:
    lonely = [{"role": "system", "content": "a"}, {"role": "assistant", "content": "b"}]
    error = refused(FLASH, messages=lonely)
    assert (type(error), error.param) == (BadRequest, "messages")
    assert sent(CHAT, messages=lonely)["messages"] == lonely
    assert sent(FLASH, messages=[*lonely, RESULT])["messages"][2] == RESULT


# --- reasoning in the history --------------------------------------------------------------------------------------

TURNS = [
    *HELLO,
    {"role": "assistant", "content": "a"},
    {"role": "assistant", "content": "b", "reasoning_content": "why"},
    {"role": "assistant", "content": "c", "reasoning": "because"},
]


def replayed(candidate: Candidate, **fields: Any) -> list[str | None]:
    messages = sent(candidate, **fields)["messages"]
    return [message.get("reasoning_content") for message in messages if message["role"] == "assistant"]


def test_with_tools_every_turn_carries_its_reasoning_or_an_empty_one() -> None:
    assert replayed(REASONER, messages=TURNS, tools=[TOOL]) == ["", "why", "because"]
    called = [*TURNS, {"role": "assistant", "content": None, "tool_calls": [CALL]}, RESULT]
    assert replayed(REASONER, messages=called) == ["", "why", "because", ""]


@pytest.mark.parametrize(
    ("candidate", "fields"), [(REASONER, {}), (CHAT, {"tools": [TOOL]}), (FLASH, {"tools": [TOOL]})]
)
def test_elsewhere_reasoning_is_left_out(candidate: Candidate, fields: dict[str, Any]) -> None:
    assert replayed(candidate, messages=TURNS, **fields) == [None, None, None]


def test_an_id_that_was_made_unique_goes_back_as_the_provider_gave_it() -> None:
    repeating = varied(CHAT, quirks=msgspec.structs.replace(CHAT.quirks, call_ids_repeat=True))
    ours = call_ids.unique("chatcmpl-01ab", "get_weather:0")
    messages = [
        {"role": "assistant", "content": None, "tool_calls": [{**CALL, "id": ours}, CALL]},
        {**RESULT, "tool_call_id": ours},
        RESULT,
    ]
    turn, *results = sent(repeating, messages=messages)["messages"]
    assert [call["id"] for call in turn["tool_calls"]] == ["get_weather:0", "call_1"]
    assert [result["tool_call_id"] for result in results] == ["get_weather:0", "call_1"]
    assert sent(repeating, messages=messages[1:])["messages"][0]["tool_call_id"] == "get_weather:0"
    assert sent(CHAT, messages=messages)["messages"][1]["tool_call_id"] == ours


# --- images --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("image_url", "goes"),
    [
        ({"url": "https://example.com/cat.png", "detail": "low"}, "https://example.com/cat.png"),
        ({"url": "data:image/png;base64,iVBORw0KGgo="}, "iVBORw0KGgo="),
        ({"url": "DATA:image/png;base64,iVBORw0KGgo="}, "iVBORw0KGgo="),
        ("data:image/png;base64,iVBORw0KGgo=", "iVBORw0KGgo="),
        ({"url": "iVBORw0KGgo="}, "iVBORw0KGgo="),
    ],
)
def test_zhipu_gets_images_without_the_data_prefix(image_url: Any, goes: str) -> None:
    parts = [text_part("What is this?"), {"type": "image_url", "image_url": image_url}]
    body = sent(VISION, messages=[{"role": "user", "content": parts}])
    assert body["messages"][0]["content"] == [parts[0], {"type": "image_url", "image_url": {"url": goes}}]


def test_a_request_with_images_goes_to_a_candidate_that_sees() -> None:
    candidates = MODELS["glm-4-plus"].candidates
    assert fitness.suited(asked(), candidates) is candidates
    pictured = asked(messages=[{"role": "user", "content": [IMAGE]}])
    assert list(fitness.suited(pictured, candidates)) == [VISION]
    with pytest.raises(NotImplementedYet, match="images"):
        fitness.suited(pictured, MODELS["glm-4"].candidates)


# --- JSON ----------------------------------------------------------------------------------------------------------

JSON_MODE = {"type": "json_object"}
JSON_HELLO = [{"role": "system", "content": "Answer in JSON."}, *HELLO]


def test_json_mode_passes() -> None:
    for candidate in (CHAT, REASONER, FLASH):
        body = sent(candidate, messages=JSON_HELLO, response_format=JSON_MODE)
        assert (body["messages"], body["response_format"]) == (JSON_HELLO, JSON_MODE)


def test_deepseek_is_told_the_word_json_where_the_caller_did_not_say_it() -> None:
    system = {"role": "system", "content": "Be brief."}
    body = sent(CHAT, messages=[system, *HELLO], response_format=JSON_MODE)
    assert [message["role"] for message in body["messages"]] == ["system", "system", "user"]
    assert body["messages"][0] == system
    assert "JSON" in body["messages"][1]["content"]
    assert sent(FLASH, response_format=JSON_MODE)["messages"] == HELLO


def test_a_schema_is_asked_for_in_words_with_json_mode() -> None:
    for candidate in (CHAT, REASONER, FLASH):
        body = sent(candidate, response_format=SCHEMA_FORMAT)
        assert body["response_format"] == JSON_MODE
        assert [message["role"] for message in body["messages"]] == ["system", "user"]
        assert msgspec.json.encode(SCHEMA).decode() in body["messages"][0]["content"]


def test_a_schema_without_a_schema_is_json_mode() -> None:
    body = sent(CHAT, response_format={"type": "json_schema", "json_schema": {"name": "x"}})
    assert body["response_format"] == JSON_MODE
    assert len(body["messages"]) == 2


def test_json_is_native_or_in_words_as_the_quirks_say() -> None:
    def with_quirks(quirks: str) -> Candidate:
        override = '[[models.glm-4.candidates]]\nprovider = "zhipu"\nmodel = "x"\n'
        override += f'cost = {{ input = "1", output = "1" }}\nquirks = {{ {quirks} }}'
        return catalog_of(catalog.packaged_toml(), override).models["glm-4"].candidates[0]

    native = sent(with_quirks('json_schema = "native"'), response_format=SCHEMA_FORMAT)
    assert (native["messages"], native["response_format"]) == (HELLO, SCHEMA_FORMAT)
    in_words = sent(with_quirks('json_object = "emulate"'), response_format=JSON_MODE)
    assert "response_format" not in in_words
    assert len(in_words["messages"]) == 2


# --- values that cannot be encoded ---------------------------------------------------------------------------------


def test_what_json_cannot_carry_is_the_callers_fault() -> None:
    nested: dict[str, Any] = {}
    for _ in range(100_000):
        nested = {"a": nested}
    for value in (nested, {"a": 10**5000}):
        request = asked(tools=[TOOL])
        assert request.tools is not None
        request.tools[0].function.parameters = value  # type: ignore[union-attr]
        with pytest.raises(BadRequest):
            translate.encode_request(request, CHAT, attempt_id="a")
    request = asked(messages=[{"role": "user", "content": "x"}])
    request.messages[0].content = "\ud800"
    with pytest.raises(BadRequest):
        translate.encode_request(request, CHAT, attempt_id="a")


# --- properties ----------------------------------------------------------------------------------------------------

TEXTS = st.text(max_size=10)
CONTENTS = TEXTS | st.lists(TEXTS.map(text_part), min_size=1, max_size=3)
MESSAGES = st.lists(
    st.builds(lambda role, content: {"role": role, "content": content}, st.sampled_from(["system", "user"]), CONTENTS)
    | st.builds(lambda content: {"role": "developer", "content": content}, CONTENTS)
    | st.builds(lambda content: {"role": "assistant", "content": content}, st.none() | CONTENTS)
    | st.builds(lambda content: {"role": "tool", "content": content, "tool_call_id": "c"}, CONTENTS),
    max_size=5,
)


@given(MESSAGES, st.sampled_from([CHAT, REASONER, FLASH, VISION]))
def test_every_conversation_arrives_as_strings_in_order(messages: list[dict[str, Any]], candidate: Candidate) -> None:
    body = sent(candidate, messages=[*messages, *HELLO])
    assert len(body["messages"]) == len(messages) + 1
    for before, after in zip(messages, body["messages"], strict=False):
        assert after["role"] == ("system" if before["role"] == "developer" else before["role"])
        content = before["content"]
        parts = [part["text"] for part in content] if isinstance(content, list) else [content or ""]
        assert after["content"] == "\n".join(parts)


@given(MESSAGES)
def test_translating_leaves_the_request_as_it_was(messages: list[dict[str, Any]]) -> None:
    fields = {"messages": [*messages, *HELLO], "tools": [TOOL], "response_format": SCHEMA_FORMAT, "user": "u"}
    request = asked(**fields)
    for candidate in (CHAT, REASONER, FLASH):
        translate.encode_request(request, candidate, attempt_id="a")
    assert request == asked(**fields)

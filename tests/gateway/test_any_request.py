"""Whatever is sent, the answer is quick, in the envelope where it is an error, and never a fault of ours."""

import asyncio
import json
from typing import Any

from front_door import House
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

CHAT = "/v1/chat/completions"
FIELDS = [
    "model", "messages", "stream", "stream_options", "temperature", "top_p", "max_tokens", "max_completion_tokens", "n",
    "stop", "presence_penalty", "logit_bias", "logprobs", "top_logprobs", "seed", "tools", "tool_choice", "functions",
    "function_call", "response_format", "reasoning_effort", "modalities", "audio", "metadata", "user", "store",
]  # fmt: skip
MODELS = ["deepseek-chat", "deepseek-reasoner", "glm-4", "glm-4-plus", "glm-4-flash"]

scalars = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(allow_nan=False), st.text(max_size=20)
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
)
likely: dict[str, st.SearchStrategy[Any]] = {
    "stream": st.booleans(),
    "stream_options": st.fixed_dictionaries({}, optional={"include_usage": st.booleans()}),
    "temperature": st.floats(-0.5, 2.5),
    "top_p": st.floats(-0.5, 1.5),
    "max_tokens": st.integers(-1, 100_000),
    "n": st.integers(0, 3),
    "stop": st.text(max_size=4) | st.lists(st.text(max_size=4), max_size=6),
    "logprobs": st.booleans(),
    "seed": st.integers(),
    "response_format": st.sampled_from([{"type": "text"}, {"type": "json_object"}, {"type": "json_schema"}]),
    "tool_choice": st.sampled_from(["none", "auto", "required", "any"]),
    "reasoning_effort": st.sampled_from(["none", "low", "high", "huge"]),
}
roles = st.sampled_from(["system", "developer", "user", "assistant", "tool", "function", "king"])
parts = st.fixed_dictionaries(
    {"type": st.sampled_from(["text", "image_url", "input_audio", "file"])},
    optional={"text": st.text(max_size=9), "image_url": st.text(max_size=9)},
)
messages = st.lists(
    st.fixed_dictionaries(
        {"role": roles}, optional={"content": st.text(max_size=30) | st.lists(parts, max_size=2) | values}
    ),
    max_size=4,
)
simple = st.lists(st.fixed_dictionaries({"role": st.just("user"), "content": st.text(min_size=1)}), min_size=1)
sound = st.fixed_dictionaries({"model": st.sampled_from(MODELS), "messages": simple | messages})
fit = st.fixed_dictionaries({"model": st.sampled_from(MODELS), "messages": simple}, optional=likely)
odd = st.dictionaries(st.sampled_from(FIELDS) | st.text(max_size=9), values, max_size=3)
fitting = st.fixed_dictionaries({}, optional=likely)
bodies = st.one_of(
    st.builds(lambda base, fit, rest: {**base, **fit, **rest}, sound, fitting, odd),
    st.builds(lambda base, rest: {**base, **rest}, fit, odd),
    fit,
)

SMALL = settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@SMALL
@given(body=bodies)
async def test_any_json_is_answered_or_refused(house: House, body: dict[str, Any]) -> None:
    async with asyncio.timeout(5):
        reply = await house.ask("POST", CHAT, json.dumps(body).encode())
    assert reply.status in (200, 400, 402, 404, 501), (reply.status, reply.body)
    if reply.status != 200:
        assert reply.error["type"] == "invalid_request_error" or reply.status == 402
    elif body.get("stream"):
        assert reply.done, reply.body
    else:
        assert reply.json["object"] == "chat.completion"


@SMALL
@given(st.binary(max_size=200), st.sampled_from(["POST", "GET", "PUT"]))
async def test_any_bytes_are_answered_or_refused(house: House, body: bytes, method: str) -> None:
    async with asyncio.timeout(5):
        reply = await house.ask(method, CHAT, body)
    assert reply.status in (400, 405), reply.body


@SMALL
@given(st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=60))
async def test_any_path_is_answered_or_refused(house: House, path: str) -> None:
    async with asyncio.timeout(5):
        for target in (f"/{path}", f"/v1/{path}", f"/v1/models/{path}"):
            reply = await house.ask("GET", target)
            assert reply.status in (200, 400, 404, 405), (target, reply.body)

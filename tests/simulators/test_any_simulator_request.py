"""Whatever a request holds, a simulated provider answers or refuses it; none stumbles over it."""

from typing import Any

import pytest
from asking import HOW, USER, WEATHER
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vipcloud.simulators import app

_FIELDS = (
    "model messages stream stream_options temperature top_p n seed stop max_tokens max_completion_tokens logprobs"
    " top_logprobs tools tool_choice parallel_tool_calls response_format thinking thinking_budget enable_thinking"
    " reasoning_effort user_id request_id presence_penalty frequency_penalty reasoning_split"
)
_NAMES = (
    "type function name parameters properties role content text image_url url tool_calls tool_call_id schema"
    " json_schema enum anyOf items $ref include_usage keep partial cache_control arguments id"
)
_WORDS = (
    "function object user system assistant tool text image_url enabled disabled json_object json_schema auto required"
    " get_weather"
)
FIELDS, NAMES, WORDS = _FIELDS.split(), _NAMES.split(), _WORDS.split()
SCALARS = st.none() | st.booleans() | st.integers(-2, 5) | st.sampled_from(WORDS) | st.floats(-1, 3)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4),
    max_leaves=5,
)
MESSAGES = st.lists(st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=4) | st.just(USER[0]), max_size=3)
TOOLS = st.lists(st.just(WEATHER) | st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=3), max_size=2)


@pytest.mark.parametrize("provider", app.PROVIDERS)
@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_request_is_answered_or_refused(bench, provider: str, data: Any) -> None:
    how = HOW[provider]
    changed = data.draw(st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=3))
    if data.draw(st.booleans()):
        changed["messages"] = data.draw(MESSAGES)
    if data.draw(st.booleans()):
        changed["tools"] = data.draw(TOOLS)
    reply = bench(provider).call({"model": how.model, "messages": USER, **how.fields, **changed})
    assert reply.status in (200, 400, 404)

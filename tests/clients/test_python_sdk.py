"""The OpenAI SDK for Python, sync and async, as customers use it. Every answer is held strictly against its types."""

import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel
from running import CANCEL_WITHIN_S, Gateway, Simulator, eventually, mark, unknown_key

pytestmark = pytest.mark.clients

CHAT, REASONER, VISION = "deepseek-chat", "deepseek-reasoner", "glm-4-plus"
GREETING = "Hello! How can I help you today?"

# One pixel.
PIXEL = (
    "data:image/png;base64,"
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
            "additionalProperties": False,
        },
        "strict": True,
    },
}


class Event(BaseModel):
    name: str
    date: str
    participants: list[str]


def user(text: str) -> list[Any]:
    return [{"role": "user", "content": text}]


def connect(gateway: Gateway, key: str, **options: Any) -> OpenAI:
    return OpenAI(
        api_key=key,
        base_url=gateway.base_url,
        timeout=15,
        _strict_response_validation=True,
        **{"max_retries": 0, **options},
    )


@pytest.fixture(scope="module")
def client(gateway: Gateway) -> Iterator[OpenAI]:
    with connect(gateway, gateway.customer) as client:
        yield client


@pytest.fixture
async def async_client(gateway: Gateway) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(
        api_key=gateway.customer,
        base_url=gateway.base_url,
        timeout=15,
        max_retries=0,
        _strict_response_validation=True,
    ) as client:
        yield client


class Attempts:
    """A client that tells how often it really sent something."""

    def __init__(self, gateway: Gateway, key: str, **options: Any) -> None:
        self.sent_s: list[float] = []
        self._http = openai.DefaultHttpxClient(event_hooks={"request": [self._sent]})
        self.client = connect(gateway, key, http_client=self._http, max_retries=openai.DEFAULT_MAX_RETRIES, **options)

    def _sent(self, request: object) -> None:
        self.sent_s.append(time.monotonic())

    def __enter__(self) -> "Attempts":
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()


# --- completions -------------------------------------------------------------------------------------------------


def test_a_completion_has_the_documented_shape(client: OpenAI) -> None:
    reply = client.chat.completions.create(model=CHAT, messages=user("Hello!"))
    choice = reply.choices[0]
    assert reply.id.startswith("chatcmpl-")
    assert (reply.object, reply.model) == ("chat.completion", CHAT)
    assert (choice.message.role, choice.message.content, choice.finish_reason) == ("assistant", GREETING, "stop")
    assert reply.usage is not None
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens > 0
    assert abs(reply.created - time.time()) < 60


@pytest.mark.parametrize("model", [CHAT, "deepseek-v3.2", REASONER, "glm-4-flash", "glm-4-air", VISION, "glm-4"])
def test_every_live_model_answers_under_the_name_it_was_asked_by(client: OpenAI, model: str) -> None:
    reply = client.chat.completions.create(model=model, messages=user("Hello!"))
    assert (reply.model, reply.choices[0].message.content) == (model, GREETING)


def test_a_conversation_is_remembered(client: OpenAI) -> None:
    messages: list[Any] = [{"role": "developer", "content": "Be brief."}, *user("My name is Ada.")]
    messages.append(client.chat.completions.create(model=CHAT, messages=messages).choices[0].message)
    reply = client.chat.completions.create(model=CHAT, messages=[*messages, *user("What is my name?")])
    assert reply.choices[0].message.content == "Your name is Ada."


@pytest.mark.parametrize("limit", ["max_tokens", "max_completion_tokens"])
def test_an_answer_cut_by_its_limit_says_so(client: OpenAI, limit: str) -> None:
    reply = client.chat.completions.create(model=CHAT, messages=user("Count to 100"), **{limit: 5})
    assert reply.choices[0].finish_reason == "length"
    assert reply.usage is not None
    assert reply.usage.completion_tokens == 5


def test_an_answer_ends_before_its_stop_text(client: OpenAI) -> None:
    reply = client.chat.completions.create(model=CHAT, messages=user("Count to 10"), stop=["4"])
    assert (reply.choices[0].message.content, reply.choices[0].finish_reason) == ("1, 2, 3, ", "stop")


def test_log_probabilities_come_where_the_model_has_them(client: OpenAI) -> None:
    reply = client.chat.completions.create(model=CHAT, messages=user("Hello!"), logprobs=True)
    logprobs = reply.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    assert "".join(token.token for token in logprobs.content) == GREETING
    assert all(token.logprob <= 0 for token in logprobs.content)


def test_text_of_every_script_comes_back_as_it_was_sent(client: OpenAI) -> None:
    text = 'naïve 港口 🚢 \u2028 \u0085 \\ " </script>'
    reply = client.chat.completions.create(model=CHAT, messages=user(f'Repeat exactly: "{text}"'))
    streamed = client.chat.completions.create(
        model=CHAT, messages=user(f'Repeat exactly: "{text}" [[fault=utf8]]'), stream=True
    )
    assert "naïve 港口 🚢 \u2028 \u0085 \\" in (reply.choices[0].message.content or "")
    assert text_of(streamed) == reply.choices[0].message.content


def text_of(stream: Any) -> str:
    return "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)


# --- streams -----------------------------------------------------------------------------------------------------


def test_a_stream_begins_with_the_role_and_ends_with_the_reason_and_the_usage(client: OpenAI) -> None:
    chunks = list(client.chat.completions.create(model=CHAT, messages=user("Count to 5"), stream=True))
    assert len({(chunk.id, chunk.object, chunk.created, chunk.model) for chunk in chunks}) == 1
    assert [len(chunk.choices) for chunk in chunks] == [1] * len(chunks)
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [chunk.choices[0].delta.role for chunk in chunks[1:]] == [None] * (len(chunks) - 1)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "1, 2, 3, 4, 5"
    assert [chunk.choices[0].finish_reason for chunk in chunks] == [None] * (len(chunks) - 1) + ["stop"]
    assert [chunk.usage is not None for chunk in chunks] == [False] * (len(chunks) - 1) + [True]


def test_the_usage_chunk_comes_once_and_last_when_asked_for(client: OpenAI) -> None:
    chunks = list(
        client.chat.completions.create(
            model="glm-4-air", messages=user("Hello!"), stream=True, stream_options={"include_usage": True}
        )
    )
    assert [bool(chunk.choices) for chunk in chunks] == [True] * (len(chunks) - 1) + [False]
    assert all("usage" in chunk.model_fields_set for chunk in chunks)
    assert [chunk.usage for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.total_tokens == chunks[-1].usage.prompt_tokens + chunks[-1].usage.completion_tokens > 0


def test_a_stream_arrives_as_it_is_made(client: OpenAI) -> None:
    begun_s = time.monotonic()
    stream = client.chat.completions.create(model=CHAT, messages=user("[[tokens=20 pace_ms=50]]"), stream=True)
    arrived_s = [time.monotonic() - begun_s for chunk in stream if chunk.choices[0].delta.content]
    assert len(arrived_s) == 20
    assert arrived_s[0] < 0.5
    assert arrived_s[-1] - arrived_s[0] > 0.8


def test_the_stream_helper_tells_of_the_text_and_puts_it_together(client: OpenAI) -> None:
    with client.chat.completions.stream(model=CHAT, messages=user("Hello!")) as stream:
        events = list(stream)
        final = stream.get_final_completion()
    deltas = [event.delta for event in events if event.type == "content.delta"]
    assert "".join(deltas) == GREETING
    assert [event.content for event in events if event.type == "content.done"] == [GREETING]
    assert (final.choices[0].message.role, final.choices[0].message.content) == ("assistant", GREETING)
    assert final.choices[0].finish_reason == "stop"


def test_the_stream_helper_parses_json_after_a_pydantic_model(client: OpenAI) -> None:
    with client.chat.completions.stream(
        model=CHAT, messages=user("Alice and Bob go to a science fair on 2026-12-04."), response_format=Event
    ) as stream:
        final = stream.get_final_completion()
    assert isinstance(final.choices[0].message.parsed, Event)


# --- tools -------------------------------------------------------------------------------------------------------


def answered(messages: list[Any], calls: list[Any]) -> list[Any]:
    """`messages` with the assistant's turn and a result for each of its calls."""
    turn = {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.function.name, "arguments": call.function.arguments},
            }
            for call in calls
        ],
    }
    results = [
        {"role": "tool", "tool_call_id": call.id, "content": f"{json.loads(call.function.arguments)['city']}: 21 °C"}
        for call in calls
    ]
    return [*messages, turn, *results]


@pytest.mark.parametrize("model", [CHAT, REASONER, "glm-4-air"])
def test_tools_go_there_and_back(client: OpenAI, model: str) -> None:
    messages = user("What is the weather in Paris?")
    asked = client.chat.completions.create(model=model, messages=messages, tools=[WEATHER]).choices[0]
    assert asked.finish_reason == "tool_calls"
    assert asked.message.content is None
    assert asked.message.tool_calls is not None
    [call] = asked.message.tool_calls
    assert (call.type, call.function.name, json.loads(call.function.arguments)) == (
        "function",
        "get_weather",
        {"city": "Paris"},
    )
    messages = [*messages, asked.message, {"role": "tool", "tool_call_id": call.id, "content": "21 °C and sunny"}]
    told = client.chat.completions.create(model=model, messages=messages, tools=[WEATHER]).choices[0]
    assert told.finish_reason == "stop"
    assert "21 °C and sunny" in (told.message.content or "")


@pytest.mark.parametrize("model", [CHAT, "glm-4-air"])
def test_several_tools_are_called_at_once(client: OpenAI, model: str) -> None:
    messages = user("What is the weather in Paris and Tokyo?")
    calls = (
        client.chat.completions.create(model=model, messages=messages, tools=[WEATHER]).choices[0].message.tool_calls
    )
    assert calls is not None
    assert [json.loads(call.function.arguments) for call in calls] == [{"city": "Paris"}, {"city": "Tokyo"}]
    assert len({call.id for call in calls}) == 2
    told = client.chat.completions.create(model=model, messages=answered(messages, calls), tools=[WEATHER])
    said = told.choices[0].message.content or ""
    assert "Paris: 21 °C" in said
    assert "Tokyo: 21 °C" in said


@pytest.mark.parametrize("model", [CHAT, REASONER, "glm-4-air"])
def test_streamed_tool_calls_are_put_together(client: OpenAI, model: str) -> None:
    with client.chat.completions.stream(
        model=model, messages=user("What is the weather in Paris and Tokyo?"), tools=[WEATHER]
    ) as stream:
        done = [event for event in stream if event.type == "tool_calls.function.arguments.done"]
        final = stream.get_final_completion().choices[0]
    assert [(event.index, event.name, event.parsed_arguments) for event in done] == [
        (0, "get_weather", {"city": "Paris"}),
        (1, "get_weather", {"city": "Tokyo"}),
    ]
    assert final.finish_reason == "tool_calls"
    assert final.message.tool_calls is not None
    assert len({call.id for call in final.message.tool_calls}) == 2
    assert {call.type for call in final.message.tool_calls} == {"function"}


def test_each_streamed_call_is_named_once(client: OpenAI) -> None:
    stream = client.chat.completions.create(
        model=CHAT, messages=user("What is the weather in Paris and Tokyo?"), tools=[WEATHER], stream=True
    )
    deltas = [call for chunk in stream for call in chunk.choices[0].delta.tool_calls or []]
    named = [(call.index, call.type, call.function.name) for call in deltas if call.id]
    assert named == [(0, "function", "get_weather"), (1, "function", "get_weather")]
    assert all((call.type, call.function.name) == (None, None) for call in deltas if not call.id)


@pytest.mark.parametrize(
    ("choice", "called"),
    [
        ("none", []),
        ("auto", []),
        ("required", ["get_weather"]),
        ({"type": "function", "function": {"name": "get_weather"}}, ["get_weather"]),
    ],
    ids=["none", "auto", "required", "named"],
)
def test_tool_choice_is_honoured(client: OpenAI, choice: Any, called: list[str]) -> None:
    reply = client.chat.completions.create(model=CHAT, messages=user("Hello!"), tools=[WEATHER], tool_choice=choice)
    assert [call.function.name for call in reply.choices[0].message.tool_calls or []] == called


def test_legacy_functions_go_there_and_back(client: OpenAI) -> None:
    function: Any = {key: value for key, value in WEATHER["function"].items() if key != "strict"}  # type: ignore[attr-defined]
    messages = user("What is the weather in Paris?")
    asked = client.chat.completions.create(model=CHAT, messages=messages, functions=[function]).choices[0]
    assert asked.finish_reason == "function_call"
    assert asked.message.tool_calls is None
    assert asked.message.function_call is not None
    assert json.loads(asked.message.function_call.arguments) == {"city": "Paris"}
    messages = [*messages, asked.message, {"role": "function", "name": "get_weather", "content": "21 °C"}]
    told = client.chat.completions.create(model=CHAT, messages=messages, functions=[function]).choices[0]
    assert "21 °C" in (told.message.content or "")


def test_legacy_functions_stream(client: OpenAI) -> None:
    function: Any = {key: value for key, value in WEATHER["function"].items() if key != "strict"}  # type: ignore[attr-defined]
    stream = client.chat.completions.create(
        model=CHAT, messages=user("What is the weather in Paris?"), functions=[function], stream=True
    )
    chunks = list(stream)
    calls = [chunk.choices[0].delta.function_call for chunk in chunks if chunk.choices[0].delta.function_call]
    assert [call.name for call in calls if call.name] == ["get_weather"]
    assert json.loads("".join(call.arguments or "" for call in calls)) == {"city": "Paris"}
    assert chunks[-1].choices[0].finish_reason == "function_call"


# --- JSON, images, reasoning -------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", [CHAT, "glm-4-air"])
def test_json_mode_answers_json(client: OpenAI, model: str) -> None:
    reply = client.chat.completions.create(
        model=model,
        messages=user('Answer in JSON with the keys "city" and "country".'),
        response_format={"type": "json_object"},
    )
    assert sorted(json.loads(reply.choices[0].message.content or "")) == ["city", "country"]


@pytest.mark.parametrize("model", [CHAT, REASONER, "glm-4-air"])
def test_parse_fills_a_pydantic_model(client: OpenAI, model: str) -> None:
    reply = client.chat.completions.parse(
        model=model, messages=user("Alice and Bob go to a science fair on 2026-12-04."), response_format=Event
    )
    parsed = reply.choices[0].message.parsed
    assert isinstance(parsed, Event)
    assert parsed.date == "2026-12-04"


def test_parse_reads_the_arguments_of_a_tool(client: OpenAI) -> None:
    class GetWeather(BaseModel):
        city: str

    reply = client.chat.completions.parse(
        model=CHAT,
        messages=user("What is the weather in Paris?"),
        tools=[openai.pydantic_function_tool(GetWeather)],
    )
    calls = reply.choices[0].message.tool_calls
    assert calls is not None
    assert calls[0].function.parsed_arguments == GetWeather(city="Paris")


def test_parse_notices_an_answer_that_was_cut(client: OpenAI) -> None:
    with pytest.raises(openai.LengthFinishReasonError):
        client.chat.completions.parse(
            model=CHAT, messages=user("Alice goes to a fair."), response_format=Event, max_tokens=3
        )


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_images_are_seen(client: OpenAI, stream: bool) -> None:
    content = [{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": {"url": PIXEL}}]
    reply: Any = client.chat.completions.create(
        model=VISION, messages=[{"role": "user", "content": content}], stream=stream
    )
    said = text_of(reply) if stream else reply.choices[0].message.content
    assert said.startswith("I can see 1 image: image/png")


def test_a_reasoner_shows_its_reasoning(client: OpenAI) -> None:
    reply = client.chat.completions.create(model=REASONER, messages=user("Hello!"))
    message: Any = reply.choices[0].message
    assert message.reasoning_content.startswith("The user writes: Hello!")
    assert message.content == GREETING
    assert reply.usage is not None
    assert reply.usage.completion_tokens_details is not None
    assert 0 < (reply.usage.completion_tokens_details.reasoning_tokens or 0) < reply.usage.completion_tokens


def test_streamed_reasoning_comes_before_the_answer(client: OpenAI) -> None:
    stream = client.chat.completions.create(model=REASONER, messages=user("Hello!"), stream=True)
    deltas: list[Any] = [chunk.choices[0].delta for chunk in stream]
    kinds = [kind for delta in deltas for kind in ("reasoning_content", "content") if getattr(delta, kind, None)]
    reasoned = kinds.count("reasoning_content")
    assert reasoned > 0
    assert kinds == ["reasoning_content"] * reasoned + ["content"] * (len(kinds) - reasoned)
    assert all("reasoning_content" not in (delta.model_extra or {}) for delta in deltas if delta.content)


def test_the_stream_helper_puts_reasoning_together(client: OpenAI) -> None:
    with client.chat.completions.stream(model=REASONER, messages=user("Hello!")) as stream:
        message: Any = stream.get_final_completion().choices[0].message
    assert message.reasoning_content.endswith("I can answer that directly.")


def test_a_chat_model_does_not_reason(client: OpenAI) -> None:
    reply = client.chat.completions.create(model=CHAT, messages=user("Hello!"))
    assert "reasoning_content" not in (reply.choices[0].message.model_extra or {})


# --- models ------------------------------------------------------------------------------------------------------


def test_models_are_listed_and_each_can_be_retrieved(client: OpenAI) -> None:
    listed = list(client.models.list())
    names = {model.id for model in listed}
    assert {CHAT, REASONER, "deepseek-v3.2", "glm-4-flash", "glm-4-air", VISION, "glm-4"} <= names
    assert {"kimi-k2", "qwen3-max", "minimax-text-01"} <= names
    assert [client.models.retrieve(model.id) for model in listed] == listed


# --- headers -----------------------------------------------------------------------------------------------------


def test_every_answer_has_its_own_request_id(client: OpenAI) -> None:
    replies = [client.chat.completions.create(model=CHAT, messages=user("Hello!")) for _ in range(2)]
    ids = {reply._request_id for reply in replies}
    assert len(ids) == 2
    assert all(request_id is not None and request_id.startswith("req_") for request_id in ids)


def test_raw_responses_show_the_headers(gateway: Gateway) -> None:
    with connect(gateway, gateway.key(rpm=60)) as client:
        raw = client.chat.completions.with_raw_response.create(model=CHAT, messages=user("Hello!"))
    assert raw.request_id == raw.parse()._request_id
    assert raw.headers["content-type"] == "application/json"
    assert raw.headers["x-ratelimit-limit-requests"] == "60"
    assert raw.headers["x-ratelimit-remaining-requests"] == "59"
    assert raw.headers["x-ratelimit-reset-requests"] == "1m0s"


def test_streaming_responses_show_the_headers_before_the_body(client: OpenAI) -> None:
    with client.chat.completions.with_streaming_response.create(
        model=CHAT, messages=user("Count to 3"), stream=True
    ) as response:
        assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert response.headers["cache-control"] == "no-cache"
        assert (response.request_id or "").startswith("req_")
        lines = [line for line in response.iter_lines() if line]
    assert all(line.startswith("data: ") for line in lines)
    assert lines[-1] == "data: [DONE]"


# --- errors ------------------------------------------------------------------------------------------------------


def post(body: Any, path: str = "/chat/completions", **headers: str) -> Callable[[OpenAI], object]:
    return lambda client: client.post(path, body=body, cast_to=object, options={"headers": headers})


def ask(**fields: Any) -> Callable[[OpenAI], object]:
    return post({"model": CHAT, "messages": user("Hello!"), **fields})


INVALID = "invalid_request_error"
REFUSALS = [
    ("a temperature too high", ask(temperature=3), openai.BadRequestError, 400, INVALID, "bad_request", "temperature"),
    ("a temperature in text", ask(temperature="1"), openai.BadRequestError, 400, INVALID, "bad_request", "temperature"),
    ("no messages", post({"model": CHAT}), openai.BadRequestError, 400, INVALID, "bad_request", "messages"),
    ("empty messages", ask(messages=[]), openai.BadRequestError, 400, INVALID, "bad_request", "messages"),
    (
        "an unknown role",
        ask(messages=[{"role": "robot", "content": ""}]),
        openai.BadRequestError,
        400,
        INVALID,
        "bad_request",
        "messages[0].role",
    ),
    ("no model", post({"messages": user("Hello!")}), openai.BadRequestError, 400, INVALID, "bad_request", "model"),
    ("a list for a body", post([1]), openai.BadRequestError, 400, INVALID, "bad_request", None),
    (
        "stream options without a stream",
        ask(stream_options={"include_usage": True}),
        openai.BadRequestError,
        400,
        INVALID,
        "bad_request",
        "stream_options",
    ),
    ("an unknown model", ask(model="gpt-4o"), openai.NotFoundError, 404, INVALID, "model_not_found", "model"),
    (
        "an unknown model, retrieved",
        lambda client: client.models.retrieve("gpt-4o"),
        openai.NotFoundError,
        404,
        INVALID,
        "model_not_found",
        "model",
    ),
    (
        "an endpoint that is not served",
        lambda client: client.embeddings.create(model="m", input="x"),
        openai.InternalServerError,
        501,
        INVALID,
        "not_implemented",
        None,
    ),
    (
        "an unknown route",
        lambda client: client.batches.list(),
        openai.NotFoundError,
        404,
        INVALID,
        "not_found",
        None,
    ),
    ("a wrong method", post({}, "/models"), openai.APIStatusError, 405, INVALID, "method_not_allowed", None),
    (
        "a body that is not JSON by its type",
        post({}, **{"Content-Type": "text/plain"}),
        openai.APIStatusError,
        415,
        INVALID,
        "unsupported_media_type",
        None,
    ),
]


@pytest.mark.parametrize(
    ("call", "kind", "status", "type_", "code", "param"),
    [case[1:] for case in REFUSALS],
    ids=[case[0] for case in REFUSALS],
)
def test_a_refusal_is_the_sdk_s_own_exception(
    client: OpenAI,
    call: Callable[[OpenAI], object],
    kind: type[openai.APIStatusError],
    status: int,
    type_: str,
    code: str,
    param: str | None,
) -> None:
    with pytest.raises(openai.APIStatusError) as caught:
        call(client)
    error = caught.value
    assert type(error) is kind
    assert (error.status_code, error.type, error.code, error.param) == (status, type_, code, param)
    assert isinstance(error.body, dict)
    assert error.body["message"]
    assert error.body["message"] in error.message
    assert (error.request_id or "").startswith("req_")


def mistyped(key: str) -> str:
    return key[:-1] + ("a" if key[-1] != "a" else "b")


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize(
    ("key", "headers"),
    [
        (lambda _: "sk-proj-1234567890abcdef", {}),
        (lambda gateway: mistyped(gateway.customer), {}),
        (lambda _: unknown_key(), {}),
        (lambda gateway: gateway.revoked, {}),
        (lambda _: "My API Key", {}),
        (lambda gateway: gateway.customer, {"Authorization": "Basic dXNlcjpwYXNz"}),
        (lambda gateway: gateway.customer, {"Authorization": "Bearer"}),
    ],
    ids=["another company's", "mistyped", "of nobody", "revoked", "with spaces", "another scheme", "missing"],
)
def test_a_wrong_key_is_an_authentication_error_and_not_retried(
    gateway: Gateway, key: Callable[[Gateway], str], headers: dict[str, str], stream: bool
) -> None:
    sent = key(gateway)
    with Attempts(gateway, sent, default_headers=headers) as attempts:
        with pytest.raises(openai.AuthenticationError) as caught:
            attempts.client.chat.completions.create(model=CHAT, messages=user("Hello!"), stream=stream)
        assert len(attempts.sent_s) == 1
    assert (caught.value.status_code, caught.value.type, caught.value.code) == (401, INVALID, "invalid_api_key")
    assert sent not in str(caught.value)


def test_a_key_may_come_in_other_headers(gateway: Gateway) -> None:
    with connect(gateway, "unused") as client:
        for header in ("x-api-key", "api-key"):
            headers = {"Authorization": openai.omit, header: gateway.customer}
            assert client.models.retrieve(CHAT, extra_headers=headers).id == CHAT


def test_a_revoked_key_stops_within_a_second(gateway: Gateway) -> None:
    key = gateway.key()
    with connect(gateway, key) as client:
        assert client.models.retrieve(CHAT).id == CHAT
        gateway.revoke(key)
        begun_s = time.monotonic()

        def refused() -> bool:
            try:
                client.models.retrieve(CHAT)
            except openai.AuthenticationError:
                return True
            return False

        eventually(refused)
        assert time.monotonic() - begun_s < 1.0


def test_an_account_without_credit_may_call_the_free_model_only(gateway: Gateway) -> None:
    with Attempts(gateway, gateway.penniless) as attempts:
        with pytest.raises(openai.APIStatusError) as caught:
            attempts.client.chat.completions.create(model=CHAT, messages=user("Hello!"))
        assert len(attempts.sent_s) == 1
        free = attempts.client.chat.completions.create(model="glm-4-flash", messages=user("Hello!"))
    error = caught.value
    assert (error.status_code, error.type, error.code) == (402, "insufficient_quota", "insufficient_credit")
    assert free.choices[0].message.content == GREETING


@pytest.mark.parametrize("model", ["kimi-k2", "qwen3-max", "minimax-text-01"])
def test_a_model_announced_is_not_implemented_and_not_retried(gateway: Gateway, model: str) -> None:
    with Attempts(gateway, gateway.customer) as attempts, pytest.raises(openai.InternalServerError) as caught:
        attempts.client.chat.completions.create(model=model, messages=user("Hello!"))
    assert (caught.value.status_code, caught.value.code) == (501, "not_implemented")
    assert len(attempts.sent_s) == 1


def test_images_for_a_model_without_eyes_are_not_implemented(client: OpenAI) -> None:
    content = [{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": {"url": PIXEL}}]
    with pytest.raises(openai.InternalServerError) as caught:
        client.chat.completions.create(model=CHAT, messages=[{"role": "user", "content": content}])  # type: ignore[list-item,misc]
    assert (caught.value.status_code, caught.value.code) == (501, "not_implemented")


def test_a_body_above_the_limit_is_told_before_it_is_sent_whole(impatient: Gateway) -> None:
    with connect(impatient, impatient.customer) as client:
        with pytest.raises(openai.APIStatusError) as caught:
            client.chat.completions.create(model=CHAT, messages=user("x" * 8_000_000))
        assert (caught.value.status_code, caught.value.code) == (413, "request_too_large")
        assert client.models.retrieve(CHAT).id == CHAT


# --- limits and retries ------------------------------------------------------------------------------------------


def test_the_rate_limit_says_when_to_come_back(gateway: Gateway) -> None:
    with connect(gateway, gateway.key(rpm=2)) as client:
        for _ in range(2):
            client.chat.completions.create(model=CHAT, messages=user("Hello!"))
        with pytest.raises(openai.RateLimitError) as caught:
            client.chat.completions.create(model=CHAT, messages=user("Hello!"))
    error = caught.value
    assert (error.status_code, error.type, error.code) == (429, "rate_limit_error", "rate_limited")
    assert 50 <= int(error.response.headers["retry-after"]) <= 60


def test_the_sdk_waits_as_long_as_a_full_account_is_told_to(gateway: Gateway) -> None:
    key = gateway.key(concurrency=1)
    with (
        connect(gateway, key) as busy,
        Attempts(gateway, key) as attempts,
        busy.chat.completions.create(model=CHAT, messages=user("[[tokens=60 pace_ms=10]]"), stream=True) as running,
    ):
        next(running)
        reply = attempts.client.chat.completions.create(model=CHAT, messages=user("Hello!"))
    assert reply.choices[0].message.content == GREETING
    assert len(attempts.sent_s) == 2
    assert attempts.sent_s[1] - attempts.sent_s[0] >= 1.0


def test_a_throttled_upstream_is_waited_for(gateway: Gateway, deepseek: Simulator) -> None:
    word, begun_s = mark(), time.monotonic()
    with Attempts(gateway, gateway.customer) as attempts:
        reply = attempts.client.chat.completions.create(
            model=CHAT, messages=user(f"Say {word} [[fault=status:429,retry-after:2,first:1]]")
        )
    assert reply.choices[0].message.content == word
    assert [entry["status"] for entry in deepseek.log(word)] == [429, 200]
    assert len(attempts.sent_s) == 1, "the gateway waits itself, for the only route there is"
    assert time.monotonic() - begun_s >= 2.0


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_a_failing_upstream_is_tried_again_here_and_not_by_the_sdk(
    gateway: Gateway, deepseek: Simulator, stream: bool
) -> None:
    word = mark()
    with Attempts(gateway, gateway.customer) as attempts, pytest.raises(openai.InternalServerError) as caught:
        attempts.client.chat.completions.create(
            model=CHAT, messages=user(f"Say {word} [[fault=status:500]]"), stream=stream
        )
    error = caught.value
    assert (error.status_code, error.type, error.code) == (502, "upstream_error", "upstream_error")
    assert len(attempts.sent_s) == 1
    assert [entry["status"] for entry in deepseek.log(word)] == [500] * 3


def test_a_retry_that_succeeds_is_all_the_caller_sees(gateway: Gateway) -> None:
    word = mark()
    with Attempts(gateway, gateway.customer) as attempts:
        reply = attempts.client.chat.completions.create(
            model=CHAT, messages=user(f"Say {word} [[fault=status:503,first:1]]")
        )
    assert reply.choices[0].message.content == word
    assert len(attempts.sent_s) == 1


@pytest.mark.parametrize(
    ("fault", "stream"),
    [("hang", False), ("hang-body", False), ("hang", True), ("hang-body", True), ("keep-alive:30:50", True)],
)
def test_a_silent_upstream_is_a_time_out(impatient: Gateway, fault: str, stream: bool) -> None:
    begun_s = time.monotonic()
    with connect(impatient, impatient.customer) as client, pytest.raises(openai.InternalServerError) as caught:
        client.chat.completions.create(model=CHAT, messages=user(f"Hello! [[fault={fault}]]"), stream=stream)
    error = caught.value
    assert (error.status_code, error.type, error.code) == (504, "timeout_error", "upstream_timeout")
    assert time.monotonic() - begun_s < 4.0


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_signs_of_life_change_nothing_for_the_sdk(lively: Gateway, stream: bool) -> None:
    with connect(lively, lively.customer) as client:
        messages = user("Count to 5 [[fault=hang:0.6,stall:2:0.6]]")
        if stream:
            chunks = list(client.chat.completions.create(model=CHAT, messages=messages, stream=True))
            assert text_of(chunks) == "1, 2, 3, 4, 5"
        else:
            reply = client.chat.completions.create(model=CHAT, messages=messages)
            assert reply.choices[0].message.content == "1, 2, 3, 4, 5"
        raw = client.chat.completions.with_raw_response.create(model=CHAT, messages=messages, stream=stream)
        sent = b"".join(raw.http_response.iter_bytes())
    assert sent.startswith(b": ping\n\n" if stream else b" ")


# --- streams that end early --------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["cut:3", "eof:3", "error:3", "malformed:3"])
def test_a_stream_that_breaks_off_raises_after_what_was_said(gateway: Gateway, fault: str) -> None:
    heard: list[str] = []
    with Attempts(gateway, gateway.customer) as attempts:
        stream = attempts.client.chat.completions.create(
            model=CHAT, messages=user(f"Count to 9 [[fault={fault}]]"), stream=True
        )
        with pytest.raises(openai.APIError) as caught:
            heard.extend(chunk.choices[0].delta.content or "" for chunk in stream)
    assert "".join(heard) == "1, 2"
    assert type(caught.value) is openai.APIError
    assert (caught.value.code, caught.value.type) == ("upstream_interrupted", "upstream_error")
    assert len(attempts.sent_s) == 1


def test_a_stream_that_falls_silent_raises(impatient: Gateway) -> None:
    with connect(impatient, impatient.customer) as client:
        stream = client.chat.completions.create(model=CHAT, messages=user("Count to 9 [[fault=stall:3]]"), stream=True)
        with pytest.raises(openai.APIError) as caught:
            list(stream)
    assert caught.value.code == "upstream_timeout"


def check_cancelled(gateway: Gateway, deepseek: Simulator, word: str, request_id: str, left_s: float) -> None:
    """The upstream was let go at once, and what was delivered is in the books, less than the whole."""
    entry = deepseek.ended(word)
    assert entry["outcome"] == "cancelled"
    assert entry["ended_s"] - left_s < CANCEL_WITHIN_S
    row = gateway.usage(request_id)
    assert (row["outcome"], row["estimated"]) == ("client_gone", 1)
    assert 0 < row["completion_tokens"] < 400
    assert row["charge_nanousd"] > 0


def test_leaving_a_stream_cancels_its_upstream(gateway: Gateway, deepseek: Simulator, client: OpenAI) -> None:
    word = mark()
    stream = client.chat.completions.create(model=CHAT, messages=user(f"{word} [[tokens=400 pace_ms=20]]"), stream=True)
    request_id = stream.response.headers["x-request-id"]
    for number, _ in enumerate(stream):
        if number == 5:
            break
    stream.close()
    check_cancelled(gateway, deepseek, word, request_id, time.monotonic())


def test_giving_up_on_an_answer_cancels_its_upstream(gateway: Gateway, deepseek: Simulator, client: OpenAI) -> None:
    word = mark()
    with pytest.raises(openai.APITimeoutError):
        client.with_options(timeout=0.5).chat.completions.create(model=CHAT, messages=user(f"{word} [[fault=hang]]"))
    left_s = time.monotonic()
    entry = deepseek.ended(word)
    assert entry["outcome"] == "cancelled"
    assert entry["ended_s"] - left_s < CANCEL_WITHIN_S


# --- async -------------------------------------------------------------------------------------------------------


async def test_async_a_completion_comes(async_client: AsyncOpenAI) -> None:
    reply = await async_client.chat.completions.create(model=CHAT, messages=user("Hello!"))
    assert reply.choices[0].message.content == GREETING


async def test_async_a_stream_comes_and_its_connection_is_used_again(async_client: AsyncOpenAI) -> None:
    for _ in range(3):
        stream = await async_client.chat.completions.create(model=CHAT, messages=user("Count to 5"), stream=True)
        heard = [chunk.choices[0].delta.content or "" async for chunk in stream]
        assert "".join(heard) == "1, 2, 3, 4, 5"


async def test_async_the_stream_helper_puts_tool_calls_together(async_client: AsyncOpenAI) -> None:
    async with async_client.chat.completions.stream(
        model=CHAT, messages=user("What is the weather in Paris and Tokyo?"), tools=[WEATHER]
    ) as stream:
        kinds = {event.type async for event in stream}
        final = await stream.get_final_completion()
    assert {"chunk", "tool_calls.function.arguments.delta", "tool_calls.function.arguments.done"} <= kinds
    calls = final.choices[0].message.tool_calls or []
    assert [call.function.parsed_arguments for call in calls] == [{"city": "Paris"}, {"city": "Tokyo"}]


async def test_async_tools_go_there_and_back(async_client: AsyncOpenAI) -> None:
    messages = user("What is the weather in Paris and Tokyo?")
    asked = await async_client.chat.completions.create(model=CHAT, messages=messages, tools=[WEATHER])
    calls = asked.choices[0].message.tool_calls
    assert calls is not None
    told = await async_client.chat.completions.create(model=CHAT, messages=answered(messages, calls), tools=[WEATHER])
    assert "Tokyo: 21 °C" in (told.choices[0].message.content or "")


async def test_async_parse_fills_a_pydantic_model(async_client: AsyncOpenAI) -> None:
    reply = await async_client.chat.completions.parse(
        model=CHAT, messages=user("Alice goes to a fair on 2026-12-04."), response_format=Event
    )
    assert isinstance(reply.choices[0].message.parsed, Event)


async def test_async_models_are_listed_and_retrieved(async_client: AsyncOpenAI) -> None:
    names = [model.id async for model in async_client.models.list()]
    assert CHAT in names
    assert (await async_client.models.retrieve(CHAT)).id == CHAT


async def test_async_errors_are_the_sdk_s_own(gateway: Gateway, async_client: AsyncOpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as bad:
        await async_client.chat.completions.create(model=CHAT, messages=user("Hello!"), top_p=2)
    with pytest.raises(openai.NotFoundError):
        await async_client.chat.completions.create(model="gpt-4o", messages=user("Hello!"))
    with pytest.raises(openai.AuthenticationError):
        await async_client.with_options(api_key=gateway.revoked).models.list()
    with pytest.raises(openai.InternalServerError):
        await async_client.chat.completions.create(model=CHAT, messages=user("Hello! [[fault=status:500]]"))
    assert bad.value.param == "top_p"


async def test_async_a_stream_that_breaks_off_raises(async_client: AsyncOpenAI) -> None:
    stream = await async_client.chat.completions.create(
        model=CHAT, messages=user("Count to 9 [[fault=cut:3]]"), stream=True
    )
    with pytest.raises(openai.APIError) as caught:
        async for _ in stream:
            pass
    assert caught.value.code == "upstream_interrupted"


async def test_async_leaving_a_stream_cancels_its_upstream(
    gateway: Gateway, deepseek: Simulator, async_client: AsyncOpenAI
) -> None:
    word = mark()
    stream = await async_client.chat.completions.create(
        model=CHAT, messages=user(f"{word} [[tokens=400 pace_ms=20]]"), stream=True
    )
    request_id = stream.response.headers["x-request-id"]
    number = 0
    async for _ in stream:
        number += 1
        if number == 5:
            break
    await stream.close()
    check_cancelled(gateway, deepseek, word, request_id, time.monotonic())

"""The OpenAI SDK's helpers: Pydantic objects from `parse`, tools by class, a loop of tools, events of streams."""

import json

import openai
import pytest
from customer import API_KEY, BASE_URL, FORECAST, GREETING, JANE, LIVE, PARIS, Person, models_with
from pydantic import BaseModel

client = openai.OpenAI(base_url=BASE_URL, api_key=API_KEY, max_retries=0, timeout=15)


class GetWeather(BaseModel):
    """The weather in a city."""

    city: str


PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
TOOLS = [openai.pydantic_function_tool(GetWeather, name="get_weather")]


def user(text: str) -> list[dict]:
    return [{"role": "user", "content": text}]


@models_with("structured_outputs")
def test_parse_gives_a_pydantic_object(model: str) -> None:
    reply = client.chat.completions.parse(model=model, messages=user(JANE), response_format=Person)
    assert reply.choices[0].message.parsed == Person(name="Jane Doe", age=32)
    assert reply.choices[0].message.refusal is None


@models_with("structured_outputs")
def test_a_stream_ends_in_a_pydantic_object(model: str) -> None:
    with client.chat.completions.stream(model=model, messages=user(JANE), response_format=Person) as stream:
        deltas = [event.delta for event in stream if event.type == "content.delta"]
        reply = stream.get_final_completion()
    assert reply.choices[0].message.parsed == Person(name="Jane Doe", age=32)
    assert "".join(deltas) == reply.choices[0].message.content


@models_with("tools")
def test_parse_gives_the_arguments_of_a_tool_as_an_object(model: str) -> None:
    message = client.chat.completions.parse(model=model, messages=user(PARIS), tools=TOOLS).choices[0].message
    (call,) = message.tool_calls
    assert call.function.parsed_arguments == GetWeather(city="Paris")


@models_with("tools")
@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
def test_a_loop_of_tools_ends_in_an_answer_that_uses_the_results(model: str, streamed: bool) -> None:
    """As customers write it: whatever message came goes back as it is."""
    messages, asked = user("What is the weather in Paris and Tokyo?"), []
    for _ in range(5):
        if streamed:
            with client.chat.completions.stream(model=model, messages=messages, tools=TOOLS) as stream:
                choice = stream.until_done().get_final_completion().choices[0]
        else:
            choice = client.chat.completions.parse(model=model, messages=messages, tools=TOOLS).choices[0]
        if choice.finish_reason != "tool_calls":
            break
        messages.append(choice.message)
        for call in choice.message.tool_calls:
            city = json.loads(call.function.arguments)["city"]
            asked.append(city)
            messages.append({"role": "tool", "tool_call_id": call.id, "content": f"{city}: {FORECAST}"})
    assert asked == ["Paris", "Tokyo"]
    assert choice.finish_reason == "stop"
    assert f"Paris: {FORECAST}" in choice.message.content
    assert f"Tokyo: {FORECAST}" in choice.message.content


@pytest.mark.parametrize("model", [row["id"] for row in LIVE if "image" in row["architecture"]["input_modalities"]])
def test_images_are_seen(model: str) -> None:
    image = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}}
    messages = [{"role": "user", "content": [{"type": "text", "text": "What is it?"}, image]}]
    reply = client.chat.completions.create(model=model, messages=messages)
    assert "1 image: image/png" in reply.choices[0].message.content


@pytest.mark.parametrize("model", [row["id"] for row in LIVE])
def test_the_events_of_a_stream_add_up(model: str) -> None:
    options = {"include_usage": True}
    with client.chat.completions.stream(model=model, messages=user("Hello!"), stream_options=options) as stream:
        events = list(stream)
        reply = stream.get_final_completion()
    assert "".join(event.delta for event in events if event.type == "content.delta") == GREETING
    assert [event.content for event in events if event.type == "content.done"] == [GREETING]
    assert reply.choices[0].message.content == GREETING
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens > 0


@models_with("reasoning_effort")
def test_reasoning_comes_beside_the_answer(model: str) -> None:
    stream = client.chat.completions.create(model=model, messages=user("Hello!"), stream=True)
    deltas = [chunk.choices[0].delta for chunk in stream if chunk.choices]
    assert "".join(getattr(delta, "reasoning_content", None) or "" for delta in deltas).startswith("The user writes")
    assert "".join(delta.content or "" for delta in deltas) == GREETING

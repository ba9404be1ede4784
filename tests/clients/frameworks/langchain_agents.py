"""LangChain: an agent with a tool, structured output, streams."""

import pytest
from customer import API_KEY, BASE_URL, FORECAST, GREETING, JANE, LIVE, PARIS, Person, models_with
from langchain.agents import create_agent
from langchain_openai import ChatOpenAI


def chat(model: str, **options: object) -> ChatOpenAI:
    return ChatOpenAI(model=model, base_url=BASE_URL, api_key=API_KEY, max_retries=0, timeout=15, **options)


@models_with("tools")
def test_an_agent_calls_its_tool_and_uses_the_result(model: str) -> None:
    asked = []

    def get_weather(city: str) -> str:
        """The weather in a city."""
        asked.append(city)
        return FORECAST

    agent = create_agent(chat(model), tools=[get_weather], system_prompt="You are a helpful assistant.")
    answer = agent.invoke({"messages": [{"role": "user", "content": PARIS}]})["messages"][-1]
    assert asked == ["Paris"]
    assert FORECAST in answer.content
    assert answer.usage_metadata["total_tokens"] > 0


@models_with("tools")
def test_an_agent_streams_its_steps_and_its_words(model: str) -> None:
    asked = []

    def get_weather(city: str) -> str:
        """The weather in a city."""
        asked.append(city)
        return f"{city}: {FORECAST}"

    agent = create_agent(chat(model, streaming=True, stream_usage=True), tools=[get_weather])
    said, used = "", 0
    for chunk, _ in agent.stream(
        {"messages": [{"role": "user", "content": "What is the weather in Paris and Tokyo?"}]}, stream_mode="messages"
    ):
        if chunk.type == "AIMessageChunk":
            said += chunk.text
            used += (chunk.usage_metadata or {}).get("total_tokens", 0)
    assert sorted(asked) == ["Paris", "Tokyo"]
    assert f"Tokyo: {FORECAST}" in said
    assert used > 0


@models_with("structured_outputs")
@pytest.mark.parametrize("method", ["json_schema", "json_mode"])
def test_structured_output_is_a_pydantic_object(model: str, method: str) -> None:
    asked = JANE if method == "json_schema" else f"{JANE} Answer in JSON with the keys name and age."
    assert chat(model).with_structured_output(Person, method=method).invoke(asked) == Person(name="Jane Doe", age=32)


@models_with("tools", "tool_choice")
def test_structured_output_may_come_by_a_tool(model: str) -> None:
    asked = chat(model).with_structured_output(Person, method="function_calling")
    assert asked.invoke(JANE) == Person(name="Jane Doe", age=32)


@pytest.mark.parametrize("model", [row["id"] for row in LIVE])
def test_chunks_add_up_to_the_answer(model: str) -> None:
    *chunks, last = chat(model, stream_usage=True).stream("Hello!")
    whole = last
    for chunk in reversed(chunks):
        whole = chunk + whole
    assert whole.text == GREETING
    assert whole.usage_metadata["total_tokens"] > 0
    assert whole.response_metadata["finish_reason"] == "stop"

"""Pydantic AI: an agent with a tool and a structured result."""

import pytest
from customer import API_KEY, BASE_URL, FORECAST, GREETING, JANE, LIVE, PARIS, Person, models_with
from pydantic import BaseModel
from pydantic_ai import Agent, NativeOutput, PromptedOutput
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

provider = OpenAIProvider(base_url=BASE_URL, api_key=API_KEY)


class Report(BaseModel):
    city: str
    temperature: int


def agent(model: str, **options: object) -> Agent:
    return Agent(OpenAIChatModel(model, provider=provider), **options)


def with_weather(made: Agent) -> list[str]:
    """The cities that its tool is asked for."""
    asked = []

    @made.tool_plain
    def get_weather(city: str) -> str:
        """The weather in a city."""
        asked.append(city)
        return FORECAST

    return asked


@models_with("tools")
def test_an_agent_calls_its_tool_and_uses_the_result(model: str) -> None:
    made = agent(model, instructions="Be brief.")
    asked = with_weather(made)
    ended = made.run_sync(PARIS)
    assert asked == ["Paris"]
    assert FORECAST in ended.output
    assert ended.usage.requests == 2
    assert ended.usage.output_tokens > 0


@models_with("tools", "structured_outputs")
def test_an_agent_with_a_tool_ends_in_an_object(model: str) -> None:
    made = agent(model, output_type=NativeOutput(Report))
    asked = with_weather(made)
    ended = made.run_sync(PARIS)
    assert asked == ["Paris"]
    assert ended.output.city == "Paris"


@models_with("tools", "tool_choice")
def test_the_result_may_come_by_a_tool(model: str) -> None:
    made = agent(model, output_type=Report)
    asked = with_weather(made)
    ended = made.run_sync(PARIS)
    assert asked == ["Paris"]
    assert ended.output == Report(city="Paris", temperature=21)


@models_with("structured_outputs")
@pytest.mark.parametrize("output", [NativeOutput, PromptedOutput])
def test_a_result_is_an_object(model: str, output: type) -> None:
    assert agent(model, output_type=output(Person)).run_sync(JANE).output == Person(name="Jane Doe", age=32)


@pytest.mark.parametrize("model", [row["id"] for row in LIVE])
def test_a_run_is_streamed(model: str) -> None:
    with agent(model).run_stream_sync("Hello!") as run:
        assert "".join(run.stream_text(delta=True)) == GREETING
        assert run.usage.output_tokens > 0

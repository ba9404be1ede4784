"""Tools are chosen by what the text is about, and get arguments out of it."""

import json

import pytest

from vipcloud.simulators.toolcalls import choose, places


def tool(name: str, description: str = "", **properties: str) -> dict[str, object]:
    typed = {key: {"type": kind} for key, kind in properties.items()}
    schema = {"type": "object", "properties": typed, "required": list(properties)}
    return {"name": name, "description": description, "parameters": schema}


TOOLS = [
    tool("getCurrentWeather", location="string"),
    tool("get_time", location="string"),
    tool("web_search", "Search the web", query="string"),
    tool("send_email", to="string", subject="string"),
    tool("calculate", "Evaluate an expression", expression="string"),
    tool("book_table", "Reserve seats at a restaurant", people="integer", date="string"),
]


@pytest.mark.parametrize(
    ("text", "calls"),
    [
        ("What's the weather in Oslo?", [("getCurrentWeather", {"location": "Oslo"})]),
        ("What time is it in New York?", [("get_time", {"location": "New York"})]),
        (
            "Weather and time in Lima?",
            [("getCurrentWeather", {"location": "Lima"}), ("get_time", {"location": "Lima"})],
        ),
        ("Search for sailing schools", [("web_search", {"query": "Search for sailing schools"})]),
        ('Mail bob@example.com about "Lunch"', [("send_email", {"to": "bob@example.com", "subject": "Lunch"})]),
        ("Please calculate (3 + 4) * 2", [("calculate", {"expression": "(3 + 4) * 2"})]),
        ("Reserve 4 seats on 2026-12-01", [("book_table", {"people": 4, "date": "2026-12-01"})]),
        ("Tell me a joke", []),
    ],
)
def test_calls_fit_the_question(text: str, calls: list[object]) -> None:
    made = [(call.name, json.loads("".join(call.arguments))) for call in choose(TOOLS, "auto", text)]
    assert made == calls


def test_an_unknown_name_calls_nothing_and_odd_tools_do_no_harm() -> None:
    assert choose(TOOLS, "nothing", "weather") == []
    (call,) = choose([{"name": "ping", "parameters": None}], "required", "x")
    assert (call.name, "".join(call.arguments)) == ("ping", "{}")


def test_places_are_found_once_each_in_order() -> None:
    assert places("From Tokyo to Paris and Tokyo") == ["Tokyo", "Paris"]
    assert places("in Little Rock") == ["Little Rock"]
    assert places("Parisian food") == []

"""The pretend model answers sensibly, and the same each time."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vipcloud.simulators import answers
from vipcloud.simulators.answers import Answer, Ask, plan

WEATHER = {
    "name": "get_weather",
    "description": "Get the current weather for a city",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}, "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]}},
        "required": ["city"],
    },
}
ADD = {
    "name": "add",
    "description": "Add two numbers",
    "parameters": {
        "type": "object",
        "properties": {"a": {"type": "number"}, "b": {"type": "number"}},
        "required": ["a", "b"],
    },
}


def asked(text: object, **more: object) -> Answer:
    return plan(Ask(messages=[{"role": "user", "content": text}], **more))


def said(answer: Answer) -> str:
    return "".join(answer.text)


def calls(answer: Answer) -> list[tuple[str, object]]:
    return [(call.name, json.loads("".join(call.arguments))) for call in answer.calls]


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("Hello!", "Hello! How can I help you today?"),
        ("你好", "你好！有什么可以帮你的吗？"),
        ("Count to 5", "1, 2, 3, 4, 5"),
        ("Please count from 3 to 1.", "3, 2, 1"),
        ("count to three", "1, 2, 3"),
        ("数到3", "1, 2, 3"),
        ("What is 2+2?", "2 + 2 = 4"),
        ("What's 17 times 23? Just the number.", "391"),
        ("What is 7 / 0?", "Division by zero has no result."),
        ("Say this is a test", "this is a test"),
        ("Reply with the single word “pong” and nothing else.", "pong"),
        ("Respond with only: OK", "OK"),
        ("What is the capital of France?", "The capital of France is Paris."),
        ("", "I am ready; there was no text in your message."),
    ],
)
def test_plain_questions_get_plain_answers(text: str, answer: str) -> None:
    assert said(asked(text)) == answer


def test_what_it_has_no_rule_for_it_says_it_has_understood() -> None:
    assert "flux capacitors" in said(asked("Tidy my flux capacitors"))


def test_it_remembers_what_was_said_before() -> None:
    messages = [
        {"role": "user", "content": "My name is Alice and I like tea."},
        {"role": "assistant", "content": "Noted."},
        {"role": "user", "content": "What is my name?"},
    ]
    assert said(plan(Ask(messages=messages))) == "Your name is Alice."


@pytest.mark.parametrize(
    ("text", "measure", "length"),
    [
        ("[[tokens=500]] hello", lambda a: a.completion_tokens, 500),
        ("answer with exactly 40 tokens", lambda a: a.completion_tokens, 40),
        ("Write a 200-word story", lambda a: len(said(a).split()), 200),
        ("[[words=17]]", lambda a: len(said(a).split()), 17),
        ("[[bytes=1024]]", lambda a: len(said(a).encode()), 1024),
        ("[[tokens=0]]", lambda a: a.completion_tokens, 0),
    ],
)
def test_lengths_are_exact(text: str, measure, length: int) -> None:
    assert measure(asked(text)) == length


def test_the_same_conversation_has_the_same_answer_and_another_seed_another() -> None:
    assert asked("Write a story") == asked("Write a story")
    assert {said(asked("Write a story", seed=seed)) for seed in range(10)} != {said(asked("Write a story"))}


@pytest.mark.parametrize("tokens_max", [1, 5, 9])
def test_the_output_limit_cuts_the_answer(tokens_max: int) -> None:
    cut = asked("Count to 100", output_tokens_max=tokens_max)
    assert (cut.completion_tokens, cut.finish_reason) == (tokens_max, "length")


def test_the_output_limit_counts_reasoning_and_cuts_arguments() -> None:
    thought = asked("Count to 100 [[reasoning_tokens=8]]", thinking=True, output_tokens_max=10)
    assert (len(thought.reasoning), len(thought.text), thought.finish_reason) == (8, 2, "length")
    called = asked("weather in Paris", tools=[WEATHER], output_tokens_max=4)
    assert (called.completion_tokens, called.finish_reason) == (4, "length")
    with pytest.raises(ValueError):
        json.loads("".join(called.calls[0].arguments))


def test_a_stop_string_ends_the_answer_before_itself() -> None:
    answer = asked("Count to 9", stop=("nothing", ", 4"))
    assert (said(answer), answer.finish_reason) == ("1, 2, 3", "stop")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("What's the weather in Paris?", [("get_weather", {"city": "Paris"})]),
        ("北京天气怎么样？", [("get_weather", {"city": "北京"})]),
        ("Will it rain in Springfield?", [("get_weather", {"city": "Springfield"})]),
        (
            "Weather in Paris and Tokyo in celsius, please",
            [
                ("get_weather", {"city": "Paris", "unit": "celsius"}),
                ("get_weather", {"city": "Tokyo", "unit": "celsius"}),
            ],
        ),
        ("Please add 2 and 40", [("add", {"a": 2, "b": 40})]),
        ("Hello", []),
    ],
)
def test_a_tool_is_called_when_the_question_is_about_it(text: str, expected: list[object]) -> None:
    answer = asked(text, tools=[ADD, WEATHER])
    assert calls(answer) == expected
    assert answer.finish_reason == ("tool_calls" if expected else "stop")


@pytest.mark.parametrize(
    ("choice", "expected"),
    [("none", []), ("required", [("add", {"a": 1, "b": 1})]), ("get_weather", [("get_weather", {"city": "Paris"})])],
)
def test_a_tool_choice_is_kept(choice: str, expected: list[object]) -> None:
    assert calls(asked("Hello", tools=[ADD, WEATHER], tool_choice=choice)) == expected


def test_results_of_tools_are_used() -> None:
    messages = [
        {"role": "user", "content": "What's the weather in Paris?"},
        {"role": "assistant", "content": "", "tool_calls": [{"id": "a"}]},
        {"role": "tool", "tool_call_id": "a", "content": "21 degrees"},
    ]
    answer = plan(Ask(messages=messages, tools=[WEATHER]))
    assert (calls(answer), said(answer)) == ([], "Here is what I found: 21 degrees")


SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "when": {"type": "string", "format": "date"},
        "mood": {"enum": ["glad", "sad"]},
        "guests": {"type": "array", "items": {"$ref": "#/$defs/guest"}, "minItems": 2},
        "seats": {"type": ["integer", "null"], "minimum": 5, "maximum": 9},
        "note": {"anyOf": [{"type": "null"}, {"type": "string", "maxLength": 3}]},
    },
    "required": ["name", "when", "mood", "guests", "seats", "note"],
    "$defs": {"guest": {"type": "object", "properties": {"id": {"type": "integer"}}, "required": ["id"]}},
}


def test_json_follows_a_schema_written_in_the_messages() -> None:
    messages = [
        {"role": "system", "content": f"Answer in JSON after this schema: {json.dumps(SCHEMA)}"},
        {"role": "user", "content": "We are sad and invite Alice"},
    ]
    value = json.loads(said(plan(Ask(messages=messages, json=True))))
    assert set(value) == set(SCHEMA["required"])
    assert value["mood"] == "sad"
    assert value["name"] == "Alice"
    assert value["when"] == "2026-11-24"
    assert len(value["guests"]) == 2
    assert all(isinstance(guest["id"], int) for guest in value["guests"])
    assert 5 <= value["seats"] <= 9
    assert len(value["note"]) <= 3


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("Give me JSON", {"answer"}),
        ("JSON with the keys name and age", {"name", "age"}),
        ('Answer like {"city": "…", "ok": true} in JSON', {"city", "ok"}),
    ],
)
def test_json_without_a_schema_has_the_keys_that_are_named(text: str, keys: set[str]) -> None:
    assert set(json.loads(said(asked(text, json=True)))) == keys


def test_fenced_json_is_json_in_a_fence() -> None:
    text = said(asked("Give me JSON", json=True, fenced=True))
    assert text.startswith("```json\n")
    assert json.loads(text.removeprefix("```json\n").removesuffix("\n```"))


def test_images_are_counted_and_named_by_type() -> None:
    content = [
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": "data:image/jpeg;base64,/9j/4AAQ"}},
        {"type": "image_url", "image_url": {"url": "iVBORw0KGgo="}},
        {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}},
    ]
    text = said(asked(content))
    assert text.startswith("I can see 3 images: image/jpeg, 6 bytes; image/png, 8 bytes; ")
    assert "https://example.com/a.png" in text


@settings(deadline=None)  # the machine is shared
@given(text=st.text(max_size=300), thinking=st.booleans(), json_mode=st.booleans())
def test_any_text_has_an_answer_with_consistent_counts(text: str, *, thinking: bool, json_mode: bool) -> None:
    answer = asked(text, thinking=thinking, json=json_mode, tools=[WEATHER, ADD], output_tokens_max=5000)
    assert answer.completion_tokens <= 5000
    assert answer.prompt_tokens > 0
    assert answer.finish_reason in ("stop", "length", "tool_calls")
    if json_mode and not answer.calls and answer.finish_reason == "stop":
        json.loads(said(answer))


@settings(deadline=None)  # the machine is shared
@given(st.dictionaries(st.sampled_from(["tokens", "pace_ms", "prompt_tokens", "fault"]), st.text("0123456789.e-")))
def test_any_directive_is_survived(wanted: dict[str, str]) -> None:
    text = "[[" + " ".join(f"{name}={value[:4]}" for name, value in wanted.items()) + "]]"
    answer = asked(text)
    assert answer.milliseconds("pace_ms", 3) >= 0


def test_directives_are_read_and_left_out_of_the_answer() -> None:
    assert answers.directives("a [[tokens=5 fault=cut:3]] b [[fault=drip]]") == {"tokens": "5", "fault": "cut:3,drip"}
    assert said(asked("Say hello [[pace_ms=5]]")) == "hello"


def test_json_fits_the_schema_that_the_request_brings() -> None:
    schema = {"type": "object", "properties": {"year": {"type": "integer"}}, "required": ["year"]}
    answer = asked("When was that, 1969 or later?", json=True, schema=schema)
    assert json.loads(said(answer)) == {"year": 1969}


@pytest.mark.parametrize(("prefix", "rest"), [("1, 2, ", "3, 4"), ("Well: ", "1, 2, 3, 4"), ("", "1, 2, 3, 4")])
def test_an_answer_that_has_begun_is_carried_on(prefix: str, rest: str) -> None:
    assert said(asked("Count to 4", prefix=prefix)) == rest


def test_a_call_that_must_be_made_after_results_is_one_of_another_tool_if_there_is_any() -> None:
    """As frameworks end a run: the result is to come by a tool, once the others have been used."""
    report = {
        "name": "final_result",
        "parameters": {"type": "object", "properties": {"degrees": {"type": "integer"}}, "required": ["degrees"]},
    }
    messages = [
        {"role": "user", "content": "What's the weather in Paris?"},
        {"role": "assistant", "tool_calls": [{"id": "a", "function": {"name": "get_weather", "arguments": "{}"}}]},
        {"role": "tool", "tool_call_id": "a", "content": "21 degrees"},
    ]
    ask = Ask(messages=messages, tools=[WEATHER, report], tool_choice="required")
    assert calls(plan(ask)) == [("final_result", {"degrees": 21})]
    alone = Ask(messages=messages, tools=[WEATHER], tool_choice="required")
    assert calls(plan(alone)) == [("get_weather", {"city": "Paris"})]


@pytest.mark.parametrize(
    ("system", "text", "told"),
    [
        ("Answer with one JSON object and nothing else.", "A colour", True),
        ("", "Give me json with keys name and age", True),
        ("You know JSON.", "What is JSON?", False),
    ],
)
def test_being_told_in_words_to_answer_in_json(system: str, text: str, told: bool) -> None:
    messages = [{"role": "system", "content": system}, {"role": "user", "content": text}]
    assert answers.told_json(messages) == told

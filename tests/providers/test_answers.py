"""Whether an answer has the form that was asked for, and schemas that would cost too much to hold one to."""

import contextlib
import time
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vipcloud.dialects.openai import ChatRequest
from vipcloud.errors import BadRequest
from vipcloud.providers import answers
from vipcloud.providers.answers import Form, Unfit

HELLO = [{"role": "user", "content": "Hello"}]
PARAM = "response_format.json_schema.schema"
# zod's pattern for an e-mail address, with look-ahead: what `generateObject` sends
EMAIL = r"^(?!\.)(?!.*\.\.)([A-Za-z0-9_'+\-\.]*)[A-Za-z0-9_+-]@([A-Za-z0-9][A-Za-z0-9\-]*\.)+[A-Za-z]{2,}$"
TREE = {
    "$ref": "#/$defs/node",
    "$defs": {
        "node": {
            "type": "object",
            "properties": {
                "name": {"type": "string"},
                "left": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]},
                "right": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]},
            },
            "required": ["name"],
            "additionalProperties": False,
        }
    },
}


def form(schema: dict[str, Any]) -> Form:
    spec = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
    found = answers.wanted(msgspec.convert({"model": "m", "messages": HELLO, "response_format": spec}, ChatRequest))
    assert found is not None
    return found


def problem(schema: dict[str, Any], text: str) -> str:
    with pytest.raises(Unfit) as caught:
        form(schema).read(text)
    return str(caught.value)


def doubling(levels: int, keyword: str = "allOf") -> dict[str, Any]:
    """Each level refers to the next one twice."""
    steps = {f"a{level}": {keyword: [{"$ref": f"#/$defs/a{level + 1}"}] * 2} for level in range(levels)}
    return {"$ref": "#/$defs/a0", "$defs": {**steps, f"a{levels}": {"type": "object"}}}


def test_a_form_is_wanted_only_where_one_is_asked_for() -> None:
    def wanted(**fields: Any) -> Form | None:
        return answers.wanted(msgspec.convert({"model": "m", "messages": HELLO, **fields}, ChatRequest))

    assert wanted() is wanted(response_format={"type": "text"}) is None
    assert wanted(response_format={"type": "json_object"}) == Form()
    assert wanted(response_format={"type": "json_schema", "json_schema": {"name": "a"}}) == Form()


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        ({}, "1"),
        ({"type": "integer"}, f"{10**30}"),
        ({"type": "array", "items": {"type": "string"}}, '["a", "é"]'),
        ({"type": "object", "properties": {"m": {"type": "string", "pattern": EMAIL}}}, '{"m": "ann.lee@example.com"}'),
        ({"type": "string", "format": "date"}, '"not a date"'),  # an annotation, as the draft has it
        (TREE, '{"name": "a", "left": {"name": "b", "right": null}}'),
        (doubling(5), "{}"),
        ({"$schema": "http://json-schema.org/draft-07/schema#", "type": "object"}, "{}"),
    ],
)
def test_what_fits_is_passed_on_as_it_was_written(schema: dict[str, Any], text: str) -> None:
    assert form(schema).read(text) == text
    assert form(schema).read(f"```json\n{text}\n```") == text


@pytest.mark.parametrize(
    ("schema", "text", "said"),
    [
        ({}, "", "It is not JSON."),
        ({}, "{} {}", "It is not JSON."),
        ({}, '"\ud800"', "It is not JSON."),
        ({}, "[" * 100_000, "It is not JSON."),
        ({"type": "object"}, "[]", "At $: [] is not of type"),
        ({"required": ["a"], "type": "object"}, "{}", 'At $: "a" is a required property'),
        ({"items": {"properties": {"a": {"maximum": 1}}}}, '[{}, {"a": 2}]', "At $[1]['a']: 2 is greater than"),
        (TREE, '{"name": "a", "left": {}}', "At $['left']: "),
        ({"pattern": EMAIL}, '"ann..lee@example.com"', "At $: "),
    ],
)
def test_what_does_not_fit_is_told_with_its_place(schema: dict[str, Any], text: str, said: str) -> None:
    assert problem(schema, text).startswith(said)


def test_json_mode_wants_an_object() -> None:
    assert Form().read(' {"a": 1} ') == '{"a": 1}'
    with pytest.raises(Unfit, match="not a JSON object"):
        Form().read("[1]")


def test_the_first_fence_that_holds_json_is_taken() -> None:
    text = 'Run this:\n```sh\nls\n```\nIt says:\n```json\n{"a": 1}\n```\n'
    assert Form().read(text) == '{"a": 1}'


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ({"type": "strin"}, "not a JSON Schema"),
        ({"properties": 3}, "not a JSON Schema"),
        ({"pattern": "("}, "not a JSON Schema"),
        ({"$ref": "https://example.com/s"}, "does not refer to a part of it"),
        ({"$ref": "file:///etc/passwd"}, "does not refer to a part of it"),
        ({"$ref": "#/$defs/none"}, "does not refer to a part of it"),
        ({"$ref": "#"}, "refers to itself"),
        ({"$defs": {"a": {"anyOf": [{"$ref": "#/$defs/a"}]}}, "$ref": "#/$defs/a"}, "refers to itself"),
        ({"$dynamicRef": "#a"}, "References must be plain"),
        (doubling(40), "too complex"),
        (doubling(40, "anyOf"), "too complex"),
        ({"enum": ["x" * 70_000]}, "too large. Expected at most 65536 bytes"),
        (
            {
                "$defs": {"a": {"anyOf": [{"items": {"$ref": "#/$defs/a"}}, {"items": {"$ref": "#/$defs/a"}}]}},
                "$ref": "#/$defs/a",
            },
            "too complex",
        ),
    ],
)
def test_a_schema_that_cannot_be_held_to_is_refused_by_its_name(schema: dict[str, Any], said: str) -> None:
    with pytest.raises(BadRequest, match=said) as caught:
        form(schema)
    assert caught.value.param == PARAM
    assert len(caught.value.message) < 700


def test_a_schema_is_reckoned_with_by_the_ways_to_one_value() -> None:
    assert form({"properties": {"a": {}, "b": {}}}).weight == 2
    assert form({"allOf": [{}, {}], "properties": {"a": {}}}).weight == 4
    assert form({"properties": {"a": {}}, "patternProperties": {"^a": {}}}).weight == 3
    assert form({"enum": [1, 2, 3]}).weight == 4
    assert form(TREE).weight < 500


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        (doubling(18), "[" + "{}," * 50_000 + "{}]"),
        ({"items": {"pattern": "^(a+)+(?!c)$"}}, "[" + ",".join(['"' + "a" * 40 + 'b"'] * 10_000) + "]"),
        ({"uniqueItems": True}, "[" + ",".join(map(str, range(100_000))) + "]"),
    ],
    ids=["doubling", "look-around", "unique"],
)
def test_no_answer_takes_more_than_a_moment_to_check(schema: dict[str, Any], text: str) -> None:
    held = form(schema)
    started = time.process_time()
    with contextlib.suppress(Unfit):
        held.read(text)
    assert time.process_time() - started < 5


SCHEMAS = st.recursive(
    st.sampled_from([{}, {"type": "string"}, {"enum": [1, "a"]}, {"$ref": "#/$defs/a"}, {"type": "null"}]),
    lambda inner: st.one_of(
        st.builds(lambda below: {"anyOf": below}, st.lists(inner, min_size=1, max_size=3)),
        st.builds(lambda below: {"properties": below}, st.dictionaries(st.sampled_from("ab"), inner, max_size=2)),
        st.builds(lambda below: {"items": below, "type": "array"}, inner),
    ),
    max_leaves=8,
)


@given(SCHEMAS, SCHEMAS, st.text(max_size=8) | st.sampled_from(["{}", '{"a": {}}', "[]", '["a"]', "1"]))
def test_any_schema_is_held_to_or_refused(schema: dict[str, Any], below: dict[str, Any], text: str) -> None:
    try:
        held = form({**schema, "$defs": {"a": below}})
    except BadRequest:
        return
    with contextlib.suppress(Unfit):
        assert msgspec.json.decode(held.read(text)) == msgspec.json.decode(text.strip())

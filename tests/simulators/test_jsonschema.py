"""Values made up from schemas fit them."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vipcloud.simulators.jsonschema import find_schema, instance
from vipcloud.simulators.toolcalls import Suggestions

TYPES = {"string": str, "integer": int, "number": (int, float), "boolean": bool, "array": list, "object": dict}


def made(schema: dict[str, Any], text: str = "") -> Any:
    return instance(schema, text, Suggestions())


LEAVES = st.sampled_from(["string", "integer", "number", "boolean"]).map(lambda kind: {"type": kind})
SCHEMAS = st.recursive(
    LEAVES,
    lambda below: st.one_of(
        st.fixed_dictionaries({"type": st.just("array"), "items": below}),
        st.dictionaries(st.text("abcdename", min_size=1, max_size=5), below, max_size=4).map(
            lambda properties: {"type": "object", "properties": properties, "required": list(properties)}
        ),
    ),
    max_leaves=8,
)


def check(value: Any, schema: dict[str, Any]) -> None:
    assert isinstance(value, TYPES[schema["type"]])
    if schema["type"] == "object":
        assert set(value) == set(schema["properties"])
        for name, below in schema["properties"].items():
            check(value[name], below)
    if schema["type"] == "array":
        for item in value:
            check(item, schema["items"])


@settings(deadline=None)  # the machine is shared
@given(SCHEMAS, st.text(max_size=60))
def test_a_value_has_the_types_and_required_properties(schema: dict[str, Any], text: str) -> None:
    check(made(schema, text), schema)


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"const": 7}, 7),
        ({"enum": ["a", "b"]}, "a"),
        ({"type": "string", "format": "email"}, "alex@example.com"),
        ({"type": "string", "minLength": 9}, "examplexx"),
        ({"type": "integer", "minimum": 3}, 3),
        ({"type": "integer", "exclusiveMaximum": 1}, 0),
        ({"anyOf": [{"type": "null"}, {"type": "boolean"}]}, True),
        ({"$ref": "#/$defs/x", "$defs": {"x": {"const": "found"}}}, "found"),
        ({"$ref": "#/nowhere"}, "example"),
        ({}, "example"),
    ],
)
def test_keywords_are_kept(schema: dict[str, Any], value: Any) -> None:
    assert made(schema) == value


def test_a_schema_that_contains_itself_ends() -> None:
    schema = {"type": "object", "properties": {"child": {"$ref": "#"}}, "required": ["child"]}
    assert "child" in made(schema)


@pytest.mark.parametrize(
    "text",
    [
        'Use {"type": "object", "properties": {"a": {}}} please',
        'not {this} but {"schema": {"properties": {"a": {}}}}',
        'see {"type": "json_schema", "json_schema": {"schema": {"properties": {"a": {}}}}}',
    ],
)
def test_a_schema_is_found_in_a_text(text: str) -> None:
    found = find_schema(text)
    assert found is not None
    assert found["properties"] == {"a": {}}


def test_plain_json_is_no_schema() -> None:
    assert find_schema('{"name": "x"} {') is None

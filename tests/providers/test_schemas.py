"""Schemas in the subset that some upstreams take: always in it, and saying so where they had to be loosened."""

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vipcloud.providers.schemas import COPIED_BYTES_MAX, NODES_MAX, Subset, pointed, subset

TREE = {"type": "object", "properties": {"children": {"type": "array", "items": {"$ref": "#"}}}}


def made(properties: dict[str, Any], **root: Any) -> Subset:
    return subset({"type": "object", "properties": properties, **root}, bounds=False)


@pytest.mark.parametrize(
    ("given_", "goes", "loosened"),
    [
        ({}, {"type": "string"}, False),
        ({"description": "d"}, {"type": "string", "description": "d"}, False),
        ({"enum": ["a"]}, {"type": "string", "enum": ["a"]}, False),
        ({"const": 1}, {"type": "integer", "const": 1}, False),
        ({"properties": {}}, {"type": "object", "properties": {}}, False),
        ({"items": {}}, {"type": "array", "items": {"type": "string"}}, False),
        ({"type": ["string", "null"]}, {"type": ["string", "null"]}, False),
        (
            {"type": ["string", "null"], "enum": ["a", None]},
            {"anyOf": [{"type": "string", "enum": ["a"]}, {"type": "null"}]},
            False,
        ),
        (
            {"type": "object", "anyOf": [{"required": ["a"]}]},
            {"anyOf": [{"type": "object", "required": ["a"]}]},
            False,
        ),
        ({"type": "integer", "minimum": 1}, {"type": "integer"}, True),
        ({"type": "string", "pattern": "^a"}, {"type": "string"}, True),
        ({"$ref": "#/$defs/a", "description": "mine"}, {"type": "boolean", "description": "mine"}, False),
        ({"$ref": "#/$defs/none"}, {"type": "object"}, True),
        ({"$ref": "https://example.com/s"}, {"type": "object"}, True),
    ],
)
def test_a_property_is_written_in_the_subset(given_: dict[str, Any], goes: dict[str, Any], loosened: bool) -> None:
    found = made({"x": given_}, **{"$defs": {"a": {"type": "boolean", "description": "theirs"}}, "$schema": "x"})
    assert found == Subset({"type": "object", "properties": {"x": goes}}, loosened)


def test_a_schema_that_refers_to_itself_ends_in_any_object() -> None:
    found = subset(TREE, bounds=False)
    inner = {"type": "object", "properties": {"children": {"type": "array", "items": {"type": "object"}}}}
    assert found.schema == {"type": "object", "properties": {"children": {"type": "array", "items": inner}}}
    assert found.loosened


def test_bounds_stay_in_a_tools_schema() -> None:
    schema = {"type": "object", "properties": {"x": {"type": "integer", "minimum": 1}}}
    assert subset(schema, bounds=True) == Subset(schema, loosened=False)


def test_a_property_may_be_called_like_a_keyword() -> None:
    names = {name: {"type": "string"} for name in ("$ref", "enum", "pattern", "$defs", "anyOf")}
    assert made(names) == Subset({"type": "object", "properties": names}, loosened=False)


def test_references_that_double_do_not_grow_without_end() -> None:
    steps = {f"a{n}": {"anyOf": [{"$ref": f"#/$defs/a{n + 1}"}] * 2} for n in range(40)}
    found = made({"x": {"$ref": "#/$defs/a0"}}, **{"$defs": steps | {"a40": {"type": "null"}}})
    assert found.loosened
    assert len(msgspec.json.encode(found.schema)) < 100 * NODES_MAX


def test_a_pointer_leads_to_a_schema_or_nowhere() -> None:
    root = {"$defs": {"a/b": {"anyOf": [{"type": "null"}]}}, "title": "t"}
    assert pointed(root, "#") is root
    assert pointed(root, "#/$defs/a~1b/anyOf/0") == {"type": "null"}
    for nowhere in ("#/title", "#/$defs/a~1b/anyOf/1", "#/$defs/a~1b/anyOf/x", "#anchor", "other#/$defs", ""):
        assert pointed(root, nowhere) is None


NAMES = st.sampled_from("ab")
SCHEMAS: st.SearchStrategy[dict[str, Any]] = st.recursive(
    st.sampled_from([{}, {"type": "string"}, {"enum": [1, "a", None]}, {"$ref": "#/$defs/a"}, {"$ref": "#"}]),
    lambda inner: st.one_of(
        st.builds(lambda below: {"properties": below}, st.dictionaries(NAMES, inner, max_size=2)),
        st.builds(lambda below: {"items": below, "minItems": 1}, inner),
        st.builds(lambda below: {"type": "string", "anyOf": below}, st.lists(inner, min_size=1, max_size=2)),
    ),
    max_leaves=6,
)


def properties(schema: Any) -> Iterator[dict[str, Any]]:
    """Every property's schema, at any depth."""
    if isinstance(schema, list):
        for below in schema:
            yield from properties(below)
    elif isinstance(schema, dict):
        yield from schema.get("properties", {}).values()
        for keyword, below in schema.items():
            yield from properties(list(below.values()) if keyword == "properties" else below)


@given(SCHEMAS, SCHEMAS)
def test_any_schema_comes_out_in_the_subset_and_is_not_changed_itself(
    schema: dict[str, Any], below: dict[str, Any]
) -> None:
    given_ = {"type": "object", "properties": {"x": schema}, "$defs": {"a": below}}
    before = msgspec.json.encode(given_)
    found = subset(given_, bounds=False).schema
    assert msgspec.json.encode(given_) == before
    text = msgspec.json.encode(found).decode()
    assert not any(keyword in text for keyword in ('"$ref"', '"$defs"', '"minItems"'))
    for one in properties(found):
        assert "type" in one or "anyOf" in one
        assert not {"type", "anyOf"} <= one.keys()


def linked(links: int, end: dict[str, Any]) -> dict[str, Any]:
    named = {f"d{index}": {"$ref": f"#/$defs/d{index + 1}"} for index in range(links)}
    return {**named, f"d{links}": end}


@pytest.mark.parametrize(
    ("definitions", "properties"),
    [
        (linked(20_000, {}), 1),
        (linked(800, {}), 4_000),
        ({"d0": {"enum": list(range(20_000))}}, 4_000),
        ({"d0": {f"k{index}": 1 for index in range(40_000)}}, 4_000),
        ({"d0": {"description": "x" * 100_000}}, 4_000),
    ],
    ids=["a long chain", "many chains", "values", "keywords", "text"],
)
def test_what_references_write_out_has_a_limit(definitions: dict[str, Any], properties: int) -> None:
    named = {f"p{index}": {"$ref": "#/$defs/d0"} for index in range(properties)}
    made = subset({"type": "object", "properties": named, "$defs": definitions}, bounds=True)
    assert made.loosened
    assert len(msgspec.json.encode(made.schema)) < 2 * COPIED_BYTES_MAX


def test_what_no_reference_leads_to_may_be_as_large_as_it_is() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string", "enum": ["x" * 100] * 50_000}}}
    assert subset(schema, bounds=True).schema == schema

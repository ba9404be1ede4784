"""What a caller's schema may cost, and that what costs more is refused before it is compiled.

Some of these schemas took minutes, gigabytes or the process when they were compiled. They must never reach the library.
"""

import contextlib
import json
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest

from vipcloud.dialects.openai import ChatRequest, JSONSchemaFormat, SchemaSpec, UserMessage
from vipcloud.errors import BadRequest
from vipcloud.providers import answers
from vipcloud.providers.answers import Form, Unfit
from vipcloud.providers.reckoning import weigh

STRICT = "unevaluatedProperties"
DATE_TIME = (  # zod's
    r"^(?:(?:\d\d[2468][048]|\d\d[13579][26]|\d\d0[48]|[02468][048]00|[13579][26]00)-02-29|\d{4}-(?:(?:0[13578]|1[02])-"
    r"(?:0[1-9]|[12]\d|3[01])|(?:0[469]|11)-(?:0[1-9]|[12]\d|30)|(?:02)-(?:0[1-9]|1\d|2[0-8])))T(?:(?:[01]\d|2[0-3]):"
    r"[0-5]\d(?::[0-5]\d(?:\.\d+)?)?(?:Z))$"
)
UUID = r"^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[1-8][0-9a-fA-F]{3}-[89abAB][0-9a-fA-F]{3}-[0-9a-fA-F]{12}$"


def wanted(schema: dict[str, Any]) -> Form:
    spec = JSONSchemaFormat(SchemaSpec(name="a", schema=schema))
    form = answers.wanted(ChatRequest("m", [UserMessage("json")], response_format=spec))
    assert form is not None
    return form


def refused(schema: dict[str, Any]) -> str:
    with pytest.raises(BadRequest) as caught:
        wanted(schema)
    assert caught.value.param == "response_format.json_schema.schema"
    return caught.value.message


def with_patterns(*patterns: str) -> dict[str, Any]:
    named = {f"a{index}": {"type": "string", "pattern": pattern} for index, pattern in enumerate(patterns)}
    return {"type": "object", "properties": named}


def linked(links: int, link: Callable[[dict[str, str]], dict[str, Any]], end: dict[str, Any]) -> dict[str, Any]:
    """Definitions that each refer to the next one as `link` does."""
    named = {f"d{index}": link({"$ref": f"#/$defs/d{index + 1}"}) for index in range(links)}
    return {"$ref": "#/$defs/d0", "$defs": {**named, f"d{links}": end}}


def plainly(next_one: dict[str, str]) -> dict[str, Any]:
    return next_one


def twice(next_one: dict[str, str]) -> dict[str, Any]:
    return {"anyOf": [next_one, next_one]}


def strictly_twice(next_one: dict[str, str]) -> dict[str, Any]:
    return {STRICT: False, "anyOf": [next_one, next_one]}


# --- depth ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("links", [600, 1_500])
def test_a_long_chain_of_references_is_refused(links: int) -> None:
    assert "more than 500 steps deep" in refused({"type": "object", **linked(links, plainly, {})})


def test_a_chain_of_references_is_as_long_as_it_is_at_all_levels_of_an_answer_together() -> None:
    assert wanted(linked(400, plainly, {"type": "array"})).read("[]") == "[]"
    assert "more than 500 steps deep" in refused(linked(400, plainly, {"items": {"$ref": "#/$defs/d0"}}))
    # the same where a part of the way is known from before
    assert "more than 500 steps deep" in refused(
        {"anyOf": [linked(300, plainly, {}), {"$ref": "#/$defs/d0"}], "$defs": linked(300, plainly, {})["$defs"]}
        | {"not": json.loads('{"not":' * 250 + '{"$ref": "#/$defs/d0"}' + "}" * 250)}
    )


def test_an_answer_has_a_limit_of_levels() -> None:
    held = wanted({"items": {"$ref": "#"}})
    assert held.read("[" * 64 + "]" * 64)
    with pytest.raises(Unfit, match="nested too deeply"):
        held.read("[" * 65 + "]" * 65)
    assert held.read("[" + "[]," * 100 + "[]]")  # many, but not deep


# --- patterns ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "schema",
    [
        with_patterns(*(f"\\p{{L}}{{90}}{index}" for index in range(100))),
        with_patterns("\\p{L}{90}"),
        with_patterns(*(f"\\p{{L}}{{9}}{index}" for index in range(10))),
        with_patterns("(?:.{1000}){1000}"),
        with_patterns("(?=\\p{L}{90})a"),
        {"patternProperties": {f"\\pL{{20}}{index}": {} for index in range(100)}},
        {"allOf": [{"$ref": "#/$defs/a"}], "$defs": {"a": {"propertyNames": {"pattern": "\\p{L}{90}"}}}},
    ],
)
def test_patterns_are_refused_by_the_room_they_take(schema: dict[str, Any]) -> None:
    message = refused(schema)
    assert "too large together with the others" in message
    assert "bound the length with 'maxLength'" in message


@pytest.mark.parametrize(
    "patterns",
    [
        ["\\w" * 15_000],  # five minutes
        ["\\s" * 100],
        ["(?i)[" + "!-\uffff" * 1_000 + "]"],
        [f"(?i:[\\pL{index}])" for index in range(200)],
        ["|".join(f"ab{index}" for index in range(5_000))],
        [f"x{index}|y" for index in range(1_000)],
    ],
    ids=["words", "spaces", "ranges without case", "letters without case", "alternatives", "many"],
)
def test_patterns_are_refused_by_the_time_that_reading_them_takes(patterns: list[str]) -> None:
    assert "too long or too many" in refused(with_patterns(*patterns))


def with_pattern(pattern: str, **others: Any) -> dict[str, Any]:
    return {"properties": {"a": {"type": "string", "pattern": pattern, **others}}}


def fits(schema: dict[str, Any], value: str) -> bool:
    try:
        wanted(schema).read(json.dumps({"a": value}))
    except Unfit:
        return False
    return True


@pytest.mark.parametrize(
    ("pattern", "good", "bad"),
    [
        (r"^[\p{L} .'-]{2,50}$", ["Jo", "Zoë O'Neill-é", "é" * 50, "𝒜" * 50], ["J", "é" * 51, "J0", "Jo\n"]),
        (r"^\p{L}{1,50}$", ["é", "é" * 50], ["", "é" * 51, "1", "é "]),
        (r"^.{1,2000}$", ["x", "😀" * 2000, "\r"], ["", "x" * 2001, "x\ny", "\n", "x\n"]),
        (r"^[\s\S]{0,2000}$", ["", "x\ny", "\n" * 2000, "😀" * 2000], ["x" * 2001]),
        (r"^[^\]\[]{3}$", ["abc"], ["ab", "abcd", "a]c", "a[c"]),
        (r"^\w{40,}$", ["x" * 40, "x" * 4000], ["x" * 39, "-" * 40]),
        (r"^[\p{L}]{0}$", [""], ["a"]),
    ],
)
def test_a_length_in_a_pattern_is_held_to(pattern: str, good: list[str], bad: list[str]) -> None:
    schema = with_pattern(pattern)
    assert [value for value in good if not fits(schema, value)] == []
    assert [value for value in bad if fits(schema, value)] == []


def test_large_lengths_stand_beside_each_other() -> None:
    schema = with_patterns("^.{1,255}$", "^.{1,1000}$", *(f"^\\w{{1,{most}}}$" for most in range(100, 200)))
    assert wanted(schema).read(json.dumps({"a0": "x" * 255, "a1": "x" * 1000, "a2": "x" * 100, "a3": "x" * 101}))
    for name, length in (("a0", 256), ("a1", 1001), ("a2", 101), ("a3", 102)):
        with pytest.raises(Unfit):
            wanted(schema).read(json.dumps({name: "x" * length}))


def test_lengths_beside_a_pattern_hold_too() -> None:
    schema = with_pattern("^.{2,100}$", minLength=3, maxLength=200)
    assert [fits(schema, "x" * length) for length in (2, 3, 100, 101)] == [False, True, True, False]
    schema = with_pattern("^.{2,100}$", minLength=1, maxLength=50)
    assert [fits(schema, "x" * length) for length in (1, 2, 50, 51)] == [False, True, True, False]
    assert "not a JSON Schema" in refused(with_pattern("^.{2,100}$", maxLength="9"))
    assert "not a JSON Schema" in refused(with_pattern("^.{2,100}$", minLength=-1))


@pytest.mark.parametrize(
    "pattern", ["^a|.{1,3}$", "^.{1,3}?$", "^.{1,3}", "^.{3,1}$", "^a.{1,3}$", "^(.){1,3}$", "^[]]{2}$"]
)
def test_no_other_pattern_is_rewritten(pattern: str) -> None:
    schema = with_pattern(pattern)
    with contextlib.suppress(ValueError):
        assert weigh(schema).plain == schema


def test_a_name_or_a_value_is_no_pattern() -> None:
    schema = {"properties": {"pattern": {}}, "const": {"pattern": "^.{1,3}$"}}
    assert weigh(schema).plain == schema


def test_a_pattern_counts_once_however_often_it_stands() -> None:
    assert weigh(with_patterns(*["\\p{L}{40}"] * 500))[:2] == weigh(with_patterns(*["\\p{L}{40}"]))[:2]
    assert wanted(with_patterns(*[DATE_TIME] * 100))


def test_patterns_as_they_are_in_use_are_held_to() -> None:
    held = wanted(
        with_patterns(
            *(DATE_TIME, UUID, r"^\d{4}-\d{2}-\d{2}$", r"^[\p{L}\p{M} '-]+$", r"^\p{L}{1,4}$", "^.{1,100}$"),
            *(rf"^[A-Z]{{2}}-{index}-\w+$" for index in range(20)),
        )
    )
    assert held.read('{"a2": "2026-11-27", "a3": "Jo Ann", "a7": "AB-1-x"}')
    with pytest.raises(Unfit):
        held.read('{"a2": "27 Nov"}')


# --- the library's own expansions ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "schema",
    [
        linked(20, strictly_twice, {}),  # 12 GB
        {STRICT: False, **linked(20, twice, {})},
        {"unevaluatedItems": False, "dependentSchemas": {"a": linked(20, twice, {})}, **linked(20, twice, {})},
        linked(40, lambda below: {STRICT: False, "not": below}, {}),
    ],
)
def test_what_stands_beside_unevaluated_has_a_limit(schema: dict[str, Any]) -> None:
    assert "write additionalProperties" in refused(schema)


def test_a_base_with_what_it_extends_may_be_strict() -> None:
    base = {"type": "object", "properties": {"a": {"type": "string"}}}
    schema = {"$defs": {"base": base}, "allOf": [{"$ref": "#/$defs/base"}], "properties": {"b": {}}, STRICT: False}
    assert wanted(schema).read('{"a": "", "b": 1}')
    with pytest.raises(Unfit):
        wanted(schema).read('{"c": 1}')


# --- what is reckoned is what the library does ----------------------------------------------------------------------


def test_dependencies_of_old_drafts_are_reckoned_with() -> None:
    assert "too complex" in refused({"dependencies": {"a": linked(40, twice, {})}, **linked(40, twice, {})})


def test_a_reference_is_decoded_as_the_library_does() -> None:
    schema = {"$ref": "#/$defs/a%62", "$defs": {"a%62": {}, "ab": {"type": "string"}}}
    assert weigh(schema).evaluations == 2
    with pytest.raises(Unfit):
        wanted(schema).read("1")
    assert "does not refer" in refused({"$ref": f"#/allOf/{'9' * 5_000}", "allOf": [{}]})


def test_a_base_inside_a_schema_with_references_is_refused() -> None:
    inside = {"$id": "https://example.com/s", "$ref": "#/$defs/b", "$defs": {"b": {"type": "string"}}}
    assert "at its root only" in refused({"properties": {"a": inside}, "$defs": {"b": {}}})
    assert "at its root only" in refused({"properties": {"const": inside}, "$defs": {"b": {}}})
    assert wanted({"$id": "https://example.com/s", "$ref": "#/$defs/b", "$defs": {"b": {}}})
    assert wanted({"properties": {"a": {"$id": "https://example.com/s"}, "$id": {"type": "string"}}})


def test_one_draft_holds_throughout() -> None:
    old = {"$schema": "http://json-schema.org/draft-07/schema#", "$ref": "#/$defs/any", "maxLength": 2}
    held = wanted({"properties": {"a": old, "$schema": {"type": "string"}}, "$defs": {"any": {}}})
    assert held.read('{"a": "xy", "$schema": ""}')
    with pytest.raises(Unfit):  # draft 7 knows nothing beside $ref
        held.read('{"a": "xyz"}')
    with pytest.raises(Unfit):
        held.read('{"$schema": 1}')


@pytest.mark.parametrize("keyword", ["examples", "default", "const", "enum"])
def test_what_looks_like_a_schema_in_mere_data_is_none(keyword: str) -> None:
    data = {"$schema": "x", "$id": "https://example.com/s", "pattern": "\\p{L}{90}"}
    schema = {
        "properties": {"a": {keyword: data if keyword in ("default", "const") else [data]}, "b": {"$ref": "#/$defs/c"}},
        "$defs": {"c": {"type": "string"}},
    }
    assert wanted(schema).read(json.dumps({"a": data, "b": ""}))
    with pytest.raises(Unfit):
        wanted(schema).read('{"b": 1}')
    if keyword in ("const", "enum"):
        with pytest.raises(Unfit):
            wanted(schema).read('{"a": {}}')


@pytest.mark.parametrize("reference", ["#/const", "#/%63onst/d", "#/$defs/properties/enum/0", "#/default"])
def test_a_reference_into_mere_data_is_refused(reference: str) -> None:
    data: dict[str, Any] = {"$id": "https://example.com/s", "d": {}}
    named = {"properties": {"enum": [data]}, "const": {"type": "string"}}
    schema = {"const": data, "default": data, "$defs": named, "not": {"$ref": reference}}
    assert "does not refer to a part of it" in refused(schema)
    assert wanted({"$defs": named, "$ref": "#/$defs/const"}).read('""')


# --- the reckoning itself --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "schema",
    [
        {"allOf": [{"a": 1} for _ in range(7_900)]},
        {"$ref": "#/$defs/d", "$defs": {"d": {"properties": {f"a{n}": {"$ref": "#/$defs/d"} for n in range(2_000)}}}},
        {"allOf": [{"multipleOf": 1e-300} for _ in range(2_000)]},
    ],
    ids=["many", "one that refers to itself everywhere", "fractions"],
)
def test_the_reckoning_has_a_limit_of_steps(schema: dict[str, Any]) -> None:
    assert "too complex" in refused(schema)


def test_a_part_without_references_is_reckoned_once_for_all_levels() -> None:
    fields = {f"f{index}": {"type": "object", "properties": {"v": {"type": "string"}}} for index in range(200)}
    node = {"type": "object", "properties": {**fields, "below": {"items": {"$ref": "#/$defs/node"}}}}
    assert wanted({"$ref": "#/$defs/node", "$defs": {"node": node}})
    assert weigh({"properties": {"v": {"properties": {"v": {"properties": {"v": {}}}}}}}).evaluations == 4


def test_what_a_recursive_part_refers_to_is_reckoned_once() -> None:
    leaves = {f"d{index}": {"type": "object", "properties": {"v": {"type": "string"}}} for index in range(100)}
    fields = {name: {"anyOf": [{"$ref": f"#/$defs/{name}"}, {"type": "null"}]} for name in leaves}
    parent = {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]}
    node = {"type": "object", "properties": {**fields, "parent": parent}}
    held = wanted({"$ref": "#/$defs/node", "$defs": {**leaves, "node": node}})
    assert held.read('{"d1": {"v": ""}, "parent": {"d99": null}}')
    with pytest.raises(Unfit):
        held.read('{"parent": {"parent": {"d99": {"v": 1}}}}')


def test_a_part_that_was_cut_off_is_reckoned_anew_where_there_is_room() -> None:
    lists = linked(10, lambda below: {"items": below}, {"enum": [*range(1_000)]})["$defs"]
    far = json.loads('{"items":' * 60 + '{"$ref": "#/$defs/d0"}' + "}" * 60)
    assert weigh({"prefixItems": [far], "$defs": lists}).evaluations < 1_000
    assert weigh({"prefixItems": [far, {"$ref": "#/$defs/d0"}], "$defs": lists}).evaluations > 1_000


def test_patterns_take_what_room_they_need() -> None:
    small = answers._pattern_room(frozenset(["a", ".*"]))
    large = answers._pattern_room(frozenset(["a", "x.{100}"]))
    assert small < large < answers._pattern_room(frozenset(["a", "x.{1000}"])) < answers.PATTERN_BYTES_MAX
    assert wanted(with_patterns("^x.{1,255}$", "^y.{1,1000}$", *(f"^z.{{1,{most}}}$" for most in range(40, 60))))
    assert wanted(with_patterns("^x.{1,2000}$"))
    assert "too large together" in refused(with_patterns(*(f"^x.{{1,{most}}}$" for most in range(1000, 1004))))
    assert "too large together" in refused(with_patterns(*(f".{{9}}{index}" for index in range(300))))  # each is small


def test_the_pattern_that_is_none_is_named() -> None:
    assert 'The pattern "(" is no regular expression' in refused(with_patterns("a{90}", "(", "^x.{1,500}$"))
    assert answers._pattern_room(frozenset()) == 0


def test_a_refused_schema_takes_little_memory_of_ours() -> None:
    schema = linked(20, strictly_twice, {})
    tracemalloc.start()
    try:
        refused(schema)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()

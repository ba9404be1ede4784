"""A value that fits a JSON schema, made up from a sentence. PURE."""

import json
from collections.abc import Callable, Mapping
from typing import Any

DEPTH_MAX = 12

Suggest = Callable[[str, Mapping[str, Any], str], Any]
"""(name, schema, text) → a value for a property of that name, or None where the text offers nothing."""


def instance(schema: Mapping[str, Any], text: str, suggest: Suggest) -> Any:
    """A value for `schema`. Required properties are always there, optional ones where the text offers a value."""
    return _value(schema, "", text, suggest, schema, 0)


def find_schema(text: str) -> Mapping[str, Any] | None:
    """The first JSON schema of an object that is written out in `text`, bare or wrapped as `{"schema": {…}}`."""
    decoder = json.JSONDecoder()
    place = text.find("{")
    tries = 0
    while place >= 0 and tries < 50:
        tries += 1
        try:
            value, end = decoder.raw_decode(text, place)
        except (ValueError, RecursionError):
            place = text.find("{", place + 1)
            continue
        if (schema := _schema_in(value)) is not None:
            return schema
        place = text.find("{", end)
    return None


def _schema_in(value: Any) -> Mapping[str, Any] | None:
    for _ in range(3):
        if not isinstance(value, dict):
            return None
        if isinstance(value.get("properties"), dict) or "$ref" in value or "anyOf" in value:
            return value
        value = value.get("json_schema") or value.get("schema")
    return None


def _value(schema: Any, name: str, text: str, suggest: Suggest, root: Mapping[str, Any], depth: int) -> Any:
    if not isinstance(schema, Mapping) or depth > DEPTH_MAX:
        return None
    schema = _resolved(schema, root)
    if "const" in schema:
        return schema["const"]
    if isinstance(schema.get("enum"), list) and schema["enum"]:
        return _mentioned(schema["enum"], text) or schema["enum"][0]
    kind = _kind(schema)
    if kind == "object":
        return _object(schema, text, suggest, root, depth)
    if kind == "array":
        return _array(schema, name, text, suggest, root, depth)
    found = suggest(name, schema, text)
    if found is None:
        found = schema.get("default")
    return _fitted(kind, found, schema, name)


def _resolved(schema: Mapping[str, Any], root: Mapping[str, Any]) -> Mapping[str, Any]:
    """`schema` with its reference followed and the first usable alternative taken."""
    for _ in range(DEPTH_MAX):
        if isinstance(reference := schema.get("$ref"), str) and reference.startswith("#"):
            target: Any = root
            for step in reference[1:].strip("/").split("/"):
                target = target.get(step) if isinstance(target, Mapping) and step else target
            if not isinstance(target, Mapping):
                return {}
            schema = target
            continue
        choices = schema.get("anyOf") or schema.get("oneOf") or schema.get("allOf")
        if not isinstance(choices, list) or not choices:
            return schema
        usable = [choice for choice in choices if isinstance(choice, Mapping) and choice.get("type") != "null"]
        if not usable:
            return {"type": "null"}
        schema = usable[0]
    return schema


def _kind(schema: Mapping[str, Any]) -> str:
    kind = schema.get("type")
    if isinstance(kind, list):
        kind = next((one for one in kind if one != "null"), "null")
    if isinstance(kind, str):
        return kind
    if "properties" in schema:
        return "object"
    return "array" if "items" in schema else "string"


def _object(schema: Mapping[str, Any], text: str, suggest: Suggest, root: Mapping[str, Any], depth: int) -> Any:
    properties = schema.get("properties")
    if not isinstance(properties, Mapping):
        return {}
    required = schema.get("required")
    wanted = set(required) if isinstance(required, list) else set(list(properties)[:1])
    made: dict[str, Any] = {}
    for name, below in properties.items():
        if name in wanted or (isinstance(below, Mapping) and _offered(below, name, text, suggest)):
            made[name] = _value(below, name, text, suggest, root, depth + 1)
    return made


def _offered(schema: Mapping[str, Any], name: str, text: str, suggest: Suggest) -> bool:
    """Does the text say something about an optional property?"""
    if isinstance(schema.get("enum"), list):
        return _mentioned(schema["enum"], text) is not None
    return _kind(schema) == "string" and suggest(name, {**schema, "optional": True}, text) is not None


def _array(
    schema: Mapping[str, Any], name: str, text: str, suggest: Suggest, root: Mapping[str, Any], depth: int
) -> Any:
    offered = suggest(name, schema, text)
    if isinstance(offered, list):
        return offered
    items = schema.get("items", {})
    least = schema.get("minItems")
    length = min(max(1, least if isinstance(least, int) else 1), 32)
    made = [_value(items, name, text, suggest, root, depth + 1) for _ in range(length)]
    return made if depth < DEPTH_MAX - 1 else []


def _mentioned(choices: list[Any], text: str) -> Any:
    lower = text.lower()
    return next((choice for choice in choices if isinstance(choice, str) and choice.lower() in lower), None)


_FORMATS = {
    "date": "2026-11-24",
    "date-time": "2026-11-24T09:00:00Z",
    "time": "09:00:00",
    "email": "alex@example.com",
    "uri": "https://example.com/",
    "uuid": "3f0c6a52-9d1b-4c1e-8a54-0e6c4e5f7a10",
    "ipv4": "192.0.2.1",
}


def _fitted(kind: str, value: Any, schema: Mapping[str, Any], name: str) -> Any:
    """`value` made to fit the type and its bounds."""
    if kind == "boolean":
        return value if isinstance(value, bool) else True
    if kind == "null":
        return None
    if kind in ("integer", "number"):
        return _bounded(value if isinstance(value, int | float) else 1, kind, schema)
    text = value if isinstance(value, str) else _FORMATS.get(str(schema.get("format")), name or "example")
    least, most = schema.get("minLength"), schema.get("maxLength")
    if isinstance(least, int) and len(text) < least:
        text = text.ljust(min(least, 10_000), "x")
    return text[:most] if isinstance(most, int) else text


def _bounded(value: float, kind: str, schema: Mapping[str, Any]) -> float:
    low, high = schema.get("minimum"), schema.get("maximum")
    if isinstance(low, int | float):
        value = max(value, low)
    if isinstance(high, int | float):
        value = min(value, high)
    above, below = schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum")
    if isinstance(above, int | float) and not isinstance(above, bool) and value <= above:
        value = above + 1
    if isinstance(below, int | float) and not isinstance(below, bool) and value >= below:
        value = below - 1
    return int(value) if kind == "integer" else value

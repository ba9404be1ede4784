"""The public API as a document, made from the types that serve it."""

from typing import Any, NamedTuple

import msgspec
from msgspec import Struct


class Field(NamedTuple):
    """One field of a body, for people."""

    name: str
    kind: str
    meaning: str
    required: bool


def fields(kind: type[Struct]) -> list[Field]:
    """The fields of a struct in the order of their declaration; `kind` in words, such as `number or null`."""
    named = msgspec.json.schema(kind)["$defs"]
    schema = named[kind.__name__]
    required = schema.get("required", ())
    return [
        Field(name, " or ".join(_kinds(each, named)), each.get("description", ""), name in required)
        for name, each in schema["properties"].items()
    ]


def _kinds(schema: dict[str, Any], named: dict[str, Any]) -> list[str]:
    if "anyOf" in schema:
        return list(dict.fromkeys(kind for each in schema["anyOf"] for kind in _kinds(each, named)))
    if "$ref" in schema:
        return _kinds(named[schema["$ref"].rpartition("/")[2]], named)
    if "enum" in schema:
        return ["null" if word is None else f"`{word}`" for word in schema["enum"]]
    if schema.get("type") == "array":
        return [f"array of {' or '.join(_kinds(schema['items'], named))}s"]
    return [str(schema.get("type", "any"))]

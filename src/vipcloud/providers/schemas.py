"""A caller's JSON schema in the subset that some upstreams take: references written out, a type on every property.

Moonshot's rules: no `$ref`, each nested property has a `type`, the type stands inside `anyOf` and not beside it, an
`enum` holds values of one type, and a schema for an answer has no bounds and no patterns. Source: platform.kimi.com,
tool use and chat API; MoonshotAI/kimi-code `kimi-schema.ts`; seen 2026-11.

What cannot be said in the subset is said more loosely: a schema that refers to itself, or that becomes too large when
its references are written out, ends in an object of any kind, and a bound is left out. `loosened` tells, so that an
answer can be held to the caller's own schema.
"""

import re
from typing import Any, Final
from urllib.parse import unquote

import msgspec
from msgspec import Struct

NODES_MAX: Final = 4096  # of one schema, references written out
COPIED_BYTES_MAX: Final = 1_048_576  # of what references stand for

_DROPPED: Final = frozenset({"$schema", "$id", "$comment", "$defs", "$anchor", "$dynamicAnchor", "definitions"})
_BOUNDS: Final = frozenset(
    {
        "minimum",
        "maximum",
        "exclusiveMinimum",
        "exclusiveMaximum",
        "multipleOf",
        "minLength",
        "maxLength",
        "pattern",
        "minItems",
        "maxItems",
        "uniqueItems",
        "contains",
        "minContains",
        "maxContains",
        "minProperties",
        "maxProperties",
        "patternProperties",
        "propertyNames",
    }
)
_ALTERNATIVES: Final = ("anyOf", "oneOf", "allOf")
_ANY_OBJECT: Final = {"type": "object"}
_encode: Final = msgspec.json.Encoder().encode
_PLACE: Final = re.compile("[0-9]{1,9}")


class Subset(Struct, frozen=True):
    """A schema in the subset, and whether it allows more than the one it was made from."""

    schema: dict[str, Any]
    loosened: bool


def subset(schema: dict[str, Any], *, bounds: bool) -> Subset:
    """`schema` in the subset; with `bounds` its limits of number, length and pattern stay."""
    writer = _Writer(schema, bounds)
    made = writer.node(schema, ())
    made.setdefault("type", "object")
    return Subset(made, writer.loosened)


class _Writer:
    def __init__(self, root: dict[str, Any], bounds: bool) -> None:
        self.loosened = False
        self._root = root
        self._bounds = bounds
        self._left = NODES_MAX
        self._copied = 0

    def node(self, schema: dict[str, Any], followed: tuple[str, ...]) -> dict[str, Any]:
        """`schema` written out; `followed` are the references on the way to it."""
        self._left -= 1
        if self._left >= 0 and self._copied <= COPIED_BYTES_MAX:
            schema, followed = self._resolved(schema, followed)
        if self._left < 0 or self._copied > COPIED_BYTES_MAX:
            self.loosened = True
            return dict(_ANY_OBJECT)
        made: dict[str, Any] = {}
        for keyword, value in schema.items():
            if keyword in _DROPPED:
                continue
            if keyword in _BOUNDS and not self._bounds:
                self.loosened = True
                continue
            made[keyword] = self._value(keyword, value, followed)
        return _with_type_inside(made)

    def _value(self, keyword: str, value: Any, followed: tuple[str, ...]) -> Any:
        if keyword in ("properties", "patternProperties") and isinstance(value, dict):
            return {name: self._typed(below, followed) for name, below in value.items()}
        if keyword in ("items", "contains", "additionalProperties", "not") and isinstance(value, dict):
            return self._typed(value, followed)
        if keyword in (*_ALTERNATIVES, "prefixItems") and isinstance(value, list):
            return [self._typed(below, followed, alternative=keyword != "prefixItems") for below in value]
        if followed:
            self._copied += len(_encode(value))
        return value

    def _typed(self, schema: Any, followed: tuple[str, ...], *, alternative: bool = False) -> dict[str, Any]:
        made = self.node(schema, followed) if isinstance(schema, dict) else {}
        if "type" in made or any(keyword in made for keyword in _ALTERNATIVES):
            return made
        if alternative and not made.keys() & {"properties", "items", "enum", "const"}:
            return made  # a condition, such as `required` alone
        return {"type": _type_of(made), **made}

    def _resolved(self, schema: dict[str, Any], followed: tuple[str, ...]) -> tuple[dict[str, Any], tuple[str, ...]]:
        """`schema` with what it refers to in its place; its own keywords win."""
        while isinstance(reference := schema.get("$ref"), str):
            beside = {keyword: value for keyword, value in schema.items() if keyword != "$ref"}
            target = pointed(self._root, reference)
            self._copied += 64 * (1 + len(target or ()) + len(followed))
            if reference in followed or target is None or self._copied > COPIED_BYTES_MAX:
                self.loosened = True
                return {**_ANY_OBJECT, **beside}, followed
            followed = (*followed, reference)
            schema = {**target, **beside}
        return schema, followed


def pointed(root: dict[str, Any], reference: str) -> dict[str, Any] | None:
    """What `#` or `#/a/b` points to in `root`, if that is a schema."""
    if not reference.startswith("#"):
        return None
    target: Any = root
    for step in unquote(reference[1:]).split("/")[1:]:
        name = step.replace("~1", "/").replace("~0", "~")
        if isinstance(target, list) and _PLACE.fullmatch(name) and int(name) < len(target):
            target = target[int(name)]
        elif isinstance(target, dict) and name in target:
            target = target[name]
        else:
            return None
    return target if isinstance(target, dict) and reference[1:2] in ("", "/") else None


def _with_type_inside(schema: dict[str, Any]) -> dict[str, Any]:
    """`schema` with its type inside its alternatives, and an enum of several types as alternatives of one type each."""
    values = schema.get("enum")
    if isinstance(values, list) and "anyOf" not in schema:
        kinds: dict[str, list[Any]] = {}
        for value in values:
            kinds.setdefault(_kind(value), []).append(value)
        if len(kinds) > 1:
            rest = {keyword: value for keyword, value in schema.items() if keyword not in ("enum", "type")}
            return {**rest, "anyOf": [_one_of(kind, found) for kind, found in kinds.items()]}
    alternatives = schema.get("anyOf")
    if isinstance(alternatives, list) and "type" in schema:
        rest = {keyword: value for keyword, value in schema.items() if keyword != "type"}
        rest["anyOf"] = [
            {"type": schema["type"], **below} if isinstance(below, dict) and "type" not in below else below
            for below in alternatives
        ]
        return rest
    return schema


def _one_of(kind: str, values: list[Any]) -> dict[str, Any]:
    return {"type": kind} if kind == "null" else {"type": kind, "enum": values}


def _type_of(schema: dict[str, Any]) -> str:
    """The type that a schema without one means."""
    values = schema.get("enum") or ([schema["const"]] if "const" in schema else [])
    if values:
        return _kind(values[0])
    if "properties" in schema or "additionalProperties" in schema:
        return "object"
    return "array" if "items" in schema or "prefixItems" in schema else "string"


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "number" if isinstance(value, float) else "integer"
    if isinstance(value, str):
        return "string"
    return "array" if isinstance(value, list) else "object"

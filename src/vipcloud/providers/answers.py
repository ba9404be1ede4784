"""Whether an answer has the form that its caller asked for, where the upstream does not see to it itself.

Theory of operation. `wanted` reads a request's `response_format` into a `Form`, and refuses a schema that cannot be
held to: one that is no JSON Schema, too large, or that refers to another document. `Form.read` takes an answer's text,
out of a code fence if the model put it into one, and says what is wrong with it; `again` makes the request for a second
try out of the first one's words.

A schema comes from a caller and an answer from a model, so neither may cost more than a moment. References stay inside
the schema, look-around in a pattern has a limit of steps, and how often one value can be evaluated at most is reckoned
beforehand: `allOf` of references doubles with each level, and a validator would follow it.

The library is loaded when the first schema comes.
"""

import re
from collections.abc import Iterator
from typing import Any, Final, Protocol

import msgspec
from msgspec import Struct

from vipcloud.dialects.openai import AssistantMessage, ChatRequest, JSONObjectFormat, JSONSchemaFormat, UserMessage
from vipcloud.errors import BadRequest, shorten
from vipcloud.providers.schemas import pointed

SCHEMA_BYTES_MAX: Final = 65_536
EVALUATIONS_MAX: Final = 10_000_000  # of one answer: under half a second
NESTING_LEVELS_MAX: Final = 64  # of an answer
PROBLEM_CHARS_MAX: Final = 500

_SCHEMA_PARAM = "response_format.json_schema.schema"
_BACKTRACKS_MAX = 5_000
_LOOK_AROUND_WEIGHT = 2_000  # evaluations that a pattern with look-around counts for
_STEPS_MAX = 20_000  # of the reckoning itself
_FENCED = re.compile(r"```[^\n`]*\n(.*?)```", re.DOTALL)
_IN_PLACE_LISTS = ("allOf", "anyOf", "oneOf")
_IN_PLACE = ("not", "if", "then", "else")
_AGAIN = "That is not what was asked for: {problem} Answer again with the corrected JSON and nothing else."

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


class Unfit(ValueError):
    """An answer without the form that was asked for. The text says what is wrong with it."""


class _Validator(Protocol):
    def iter_errors(self, instance: Any) -> Iterator[Any]: ...


class Form(Struct, frozen=True):
    """What an answer must be: a JSON object, or a value that is valid under a schema. `weight` is how many evaluations
    one value of an answer may cost."""

    validator: _Validator | None = None
    weight: int = 1

    def read(self, text: str) -> str:
        """The JSON in `text` as it was written, without what stands around it. Raises Unfit."""
        for written in (text.strip(), *(found.group(1).strip() for found in _FENCED.finditer(text))):
            try:
                value = _decode(written)
            except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
                continue
            self._check(value, written)
            return written
        raise Unfit("It is not JSON.")

    def _check(self, value: Any, written: str) -> None:
        if self.validator is None:
            if not isinstance(value, dict):
                raise Unfit("It is not a JSON object.")
            return
        if self.weight * len(written) > EVALUATIONS_MAX and self.weight * _size(value) > EVALUATIONS_MAX:
            raise Unfit("It is too large to be checked against the schema.")
        error = next(iter(self.validator.iter_errors(value)), None)
        if error is not None:
            place = "".join(f"[{step!r}]" for step in error.instance_path)
            raise Unfit(shorten(f"At ${place}: {error.message}", PROBLEM_CHARS_MAX))


def wanted(request: ChatRequest) -> Form | None:
    """The form that `request` asks for; None where any text will do. Raises BadRequest for a schema that cannot be
    held to."""
    form = request.response_format
    if isinstance(form, JSONSchemaFormat) and form.json_schema.schema is not None:
        return _of_schema(form.json_schema.schema)
    return Form() if isinstance(form, JSONObjectFormat | JSONSchemaFormat) else None


def again(request: ChatRequest, said: str, problem: str) -> ChatRequest:
    """`request` with the answer that was `said` and what is wrong with it; without tools, whose time is over."""
    turns = [AssistantMessage(content=said), UserMessage(content=_AGAIN.format(problem=problem))]
    return msgspec.structs.replace(
        request,
        messages=[*request.messages, *turns],
        tools=None,
        tool_choice=None,
        parallel_tool_calls=None,
        functions=None,
        function_call=None,
    )


def _of_schema(schema: dict[str, Any]) -> Form:
    import jsonschema_rs as library

    size = len(_encode(schema))
    if size > SCHEMA_BYTES_MAX:
        raise _refused(f"too large. Expected at most {SCHEMA_BYTES_MAX} bytes, but got {size} instead")
    try:
        weight = _Reckoning(schema).evaluations(schema, NESTING_LEVELS_MAX)
        validator = library.Draft202012Validator(
            schema,
            validate_formats=False,
            offline=True,
            pattern_options=library.FancyRegexOptions(backtrack_limit=_BACKTRACKS_MAX),
        )
    except (library.ValidationError, library.ReferencingError, ValueError) as error:
        reason = getattr(error, "message", None) or str(error)
        raise _refused(f"not a JSON Schema that can be used. {shorten(reason, PROBLEM_CHARS_MAX)}") from None
    return Form(validator, weight)


def _refused(what: str) -> BadRequest:
    return BadRequest(f"Invalid '{_SCHEMA_PARAM}': {what}.", param=_SCHEMA_PARAM)


def _size(value: Any) -> int:
    """How many values `value` consists of."""
    count, pending = 0, [value]
    while pending:
        node = pending.pop()
        count += 1
        if isinstance(node, dict):
            pending += node.values()
        elif isinstance(node, list):
            pending += node
    return count


class _Reckoning:
    """How many evaluations a schema may need for each value of an answer.

    A subschema is evaluated at the same value as its parent (`allOf`, `$ref` …) or at one inside it, and of those
    inside a property or an item is reached by a single way. So for one value the ways from the root to it are counted:
    all of those in place, and the most of those to any one property or item.
    """

    def __init__(self, root: dict[str, Any]) -> None:
        self._root = root
        self._known: dict[tuple[int, int], int] = {}
        self._steps = 0

    def evaluations(self, schema: Any, levels: int, followed: tuple[str, ...] = ()) -> int:
        """At most, in an answer of so many levels. Raises ValueError where there is no telling, or too many."""
        if not isinstance(schema, dict) or levels < 0:
            return 1
        key = (id(schema), levels)
        if key in self._known:
            return self._known[key]
        self._steps += 1
        if self._steps > _STEPS_MAX:
            raise ValueError("It is too complex.")
        count = _weight(schema)
        if isinstance(reference := schema.get("$ref"), str):
            target = pointed(self._root, reference)
            if target is None:
                raise ValueError(f"'{shorten(reference)}' does not refer to a part of it: write #/$defs/name.")
            if reference in followed:
                raise ValueError(f"'{shorten(reference)}' refers to itself.")
            count += self.evaluations(target, levels, (*followed, reference))
        if "$dynamicRef" in schema or "$recursiveRef" in schema:
            raise ValueError("References must be plain: write $ref.")
        count += sum(self.evaluations(below, levels, followed) for below in _in_place(schema))
        count += max((self._together(group, levels - 1) for group in _inside(schema)), default=0)
        if count > EVALUATIONS_MAX:
            raise ValueError("It is too complex.")
        self._known[key] = count
        return count

    def _together(self, group: list[Any], levels: int) -> int:
        return sum(self.evaluations(below, levels) for below in group)


def _weight(schema: dict[str, Any]) -> int:
    pattern, values = schema.get("pattern"), schema.get("enum")
    weight = 1 + (len(values) if isinstance(values, list) else 0)
    return weight + (_LOOK_AROUND_WEIGHT if isinstance(pattern, str) and "(?" in pattern else 0)


def _in_place(schema: dict[str, Any]) -> Iterator[Any]:
    for keyword in _IN_PLACE_LISTS:
        listed = schema.get(keyword)
        if isinstance(listed, list):
            yield from listed
    for keyword in _IN_PLACE:
        if keyword in schema:
            yield schema[keyword]
    dependent = schema.get("dependentSchemas")
    if isinstance(dependent, dict):
        yield from dependent.values()


def _inside(schema: dict[str, Any]) -> Iterator[list[Any]]:
    """For each property or item that is told apart, the subschemas that hold for it."""
    everywhere = [schema[keyword] for keyword in ("propertyNames", "unevaluatedProperties") if keyword in schema]
    patterns = schema.get("patternProperties")
    if isinstance(patterns, dict):
        everywhere += patterns.values()
    named = schema.get("properties")
    for below in named.values() if isinstance(named, dict) else ():
        yield [below, *everywhere]
    yield [*everywhere, *([schema["additionalProperties"]] if "additionalProperties" in schema else ())]
    every_item = [schema[keyword] for keyword in ("contains", "unevaluatedItems") if keyword in schema]
    placed = schema.get("prefixItems")
    for below in placed if isinstance(placed, list) else ():
        yield [below, *every_item]
    yield [*every_item, *([schema["items"]] if "items" in schema else ())]

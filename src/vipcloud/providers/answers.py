"""Whether an answer has the form that its caller asked for, where the upstream does not see to it itself.

Theory of operation. `wanted` reads a request's `response_format` into a `Form`, and refuses a schema that cannot be
held to: one that is no JSON Schema, too large, or that refers to another document. `Form.read` takes an answer's text,
out of a code fence if the model put it into one, and says what is wrong with it; `again` makes the request for a second
try out of the first one's words.

A schema comes from a caller and an answer from a model, so neither may cost more than a moment. References stay inside
the schema, look-around in a pattern has a limit of steps, and `reckoning` refuses beforehand what would cost too much.
An answer has a limit of levels: the validator's own stack is what it goes down on, and the process dies at its end.

The library is loaded when the first schema comes.
"""

import re
from collections.abc import Iterator
from typing import Any, Final, Protocol

import msgspec
from msgspec import Struct

from vipcloud.dialects.openai import AssistantMessage, ChatRequest, JSONObjectFormat, JSONSchemaFormat, UserMessage
from vipcloud.errors import BadRequest, shorten
from vipcloud.providers.reckoning import EVALUATIONS_MAX, NESTING_LEVELS_MAX, weigh

SCHEMA_BYTES_MAX: Final = 65_536
PATTERN_BYTES_MAX: Final = 3 * 2**20  # of a schema's patterns, compiled
PROBLEM_CHARS_MAX: Final = 500

_SCHEMA_PARAM = "response_format.json_schema.schema"
_BACKTRACKS_MAX = 5_000
_SMALL_PATTERN_BYTES = 4_096
_FENCED = re.compile(r"```[^\n`]*\n(.*?)```", re.DOTALL)
_PATTERN_REFUSED = (
    "The pattern {pattern} is no regular expression, or too large together with the others: in place of {{m,n}} after "
    "'.' or a character class, write '*' and bound the length with 'maxLength'."
)
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
        if written.count("[") + written.count("{") > NESTING_LEVELS_MAX and _is_deep(value):
            raise Unfit("It is nested too deeply to be checked against the schema.")
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
        weight = weigh(schema)
        validator = library.Draft202012Validator(
            weight.plain, validate_formats=False, offline=True, pattern_options=_engine(_pattern_room(weight.patterns))
        )
    except (library.ValidationError, library.ReferencingError, ValueError) as error:
        reason = getattr(error, "message", None) or str(error)
        raise _refused(f"not a JSON Schema that can be used. {shorten(reason, PROBLEM_CHARS_MAX)}") from None
    return Form(validator, weight.evaluations)


def _pattern_room(patterns: frozenset[str]) -> int:
    """Bytes that the program of any one pattern may take. What each one takes is found by doubling, and the sum is
    `PATTERN_BYTES_MAX` at most: raises ValueError where it is more, or for what is no pattern.
    """
    left, most = PATTERN_BYTES_MAX, 0
    small = min(_SMALL_PATTERN_BYTES, PATTERN_BYTES_MAX // 2 // max(1, len(patterns)))
    for pattern in sorted(patterns):
        room = min(small, left)
        while not _compiles(pattern, room):
            if room == left:
                raise ValueError(_PATTERN_REFUSED.format(pattern=shorten(_encode(pattern).decode())))
            room = min(2 * room, left)
        left, most = left - room, max(most, room)
    return most


def _compiles(pattern: str, room: int) -> bool:
    import jsonschema_rs as library

    try:
        library.Draft202012Validator({"pattern": pattern}, pattern_options=_engine(room))
    except (library.ValidationError, ValueError):
        return False
    return True


def _engine(room: int) -> Any:
    import jsonschema_rs as library

    return library.FancyRegexOptions(backtrack_limit=_BACKTRACKS_MAX, size_limit=room, dfa_size_limit=room)


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


def _is_deep(value: Any) -> bool:
    """Does it have more than `NESTING_LEVELS_MAX` levels?"""
    level: list[Any] = [value]
    for _ in range(NESTING_LEVELS_MAX):
        below: list[Any] = []
        for node in level:
            if isinstance(node, dict):
                below += node.values()
            elif isinstance(node, list):
                below += node
        level = below
    return any(isinstance(node, dict | list) for node in level)

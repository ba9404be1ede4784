"""What a caller's schema costs, before it is compiled and before an answer is held to it.

Theory of operation. A few hundred bytes of schema can be gigabytes for a validator, and it compiles on the event loop,
where everyone waits. So three things are reckoned from the plain schema, and `weigh` refuses what costs too much:

- how often one value of an answer is evaluated: `allOf` of references doubles with each level;
- how deep a validator goes into references and alternatives, as each step is one on its stack;
- what patterns take: `\\p{L}{90}` is 4 MB. The engine bounds each one's program (`answers` adds them up); what it
  does before that grows with the text, and is estimated from it.

A library's rules about where references lead must be ours too, or what it follows is not what was reckoned: so there is
one base for all of them, and `$id` inside a schema with references is refused. Numbers were measured on
jsonschema-rs 0.60: a schema at one of these limits compiles within 40 ms on a core of 2026.
"""

import re
from collections.abc import Iterator
from typing import Any, Final, NamedTuple
from urllib.parse import unquote

from vipcloud.errors import shorten
from vipcloud.providers.schemas import pointed

EVALUATIONS_MAX: Final = 10_000_000  # of one answer: under half a second
NESTING_LEVELS_MAX: Final = 64  # of an answer
DEPTH_MAX: Final = 500  # subschemas inside each other, references followed, over all levels of an answer
WATCHED_MAX: Final = 500  # subschemas below `unevaluatedProperties` and its like: each takes the library up to 10 KB
PATTERN_EFFORT_US_MAX: Final = 10_000
LENGTH_MAX: Final = 2**31  # of a text, for all that an answer is

_STEPS_MAX = 6_000  # of the reckoning itself
_LOOK_AROUND_WEIGHT = 2_000  # evaluations that a pattern with look-around counts for
_MULTIPLE_STEPS = 10  # a division is compiled into a fraction without bounds

_IN_PLACE_LISTS = frozenset({"allOf", "anyOf", "oneOf"})
_IN_PLACE = frozenset({"not", "if", "then", "else"})
_IN_PLACE_NAMED = frozenset({"dependentSchemas", "dependencies"})
_UNEVALUATED = frozenset({"unevaluatedProperties", "unevaluatedItems"})
_PROPERTIES = frozenset(
    {"properties", "patternProperties", "additionalProperties", "propertyNames", "unevaluatedProperties"}
)
_ITEMS = frozenset({"items", "prefixItems", "additionalItems", "contains", "unevaluatedItems"})
_NAMED = frozenset(
    {"properties", "patternProperties", "$defs", "definitions", "dependentSchemas", "dependencies"}
)  # what they hold has names for keys
_VALUES = frozenset({"const", "enum"})
_LEFT_ALONE = _VALUES | {"$schema", "examples", "default"}

_BOUNDED = re.compile(  # one character of some kind, so many times, and nothing else
    r"\^(?P<one>\.|\\[dDwWsS]|\\[pP](?:[A-Za-z]|\{[^{}]*\})|\[\^?(?:[^\[\]\\]|\\.)+\])"
    r"\{(?P<least>[0-9]{1,9})(?:(?P<open>,)|,(?P<most>[0-9]{1,9}))?\}\$"
)
_ESCAPED_CLASS = re.compile(r"\\[dDwWsS]")
_ESCAPED_SPACE = re.compile(r"\\[sS]")
_UNICODE_CLASS = re.compile(r"\\[pP]")
_CASELESS = re.compile(r"\(\?[^:)<=!]*i")


class Weight(NamedTuple):
    """`evaluations` of one value of an answer at most; `patterns`, each once; `plain` is the schema to compile."""

    evaluations: int
    patterns: frozenset[str]
    plain: dict[str, Any]


def weigh(schema: dict[str, Any]) -> Weight:
    """Raises ValueError, in words for the caller, for a schema that costs too much or that cannot be reckoned with."""
    reading = _Reading()
    plain = reading.root(schema)
    effort = sum(map(_effort_us, reading.patterns))
    if effort > PATTERN_EFFORT_US_MAX:
        raise ValueError(
            "Its patterns are too long or too many: write fewer of them, character classes in place of alternatives, "
            "[0-9] in place of \\d, and no case-insensitive groups."
        )
    evaluations = _Reckoning(plain).of(plain, NESTING_LEVELS_MAX, 0, ()).evaluations
    return Weight(evaluations, frozenset(reading.patterns), plain)


# --- reading -------------------------------------------------------------------------------------------------------


class _Reading:
    """A copy of a schema in which one draft holds throughout, and its patterns, each once, as the library compiles it.

    Left out are `$schema` inside it, as another draft's rules would hold there, and what only describes. Values of
    `const` and `enum` are no schemas: they stay as they are, and no reference may lead into them.
    """

    def __init__(self) -> None:
        self.patterns: set[str] = set()
        self._refers = self._rebased = False

    def root(self, schema: dict[str, Any]) -> dict[str, Any]:
        made: dict[str, Any] = self._of({key: value for key, value in schema.items() if key != "$id"}, named=False)
        if self._refers and self._rebased:
            raise ValueError("A schema with $ref has $id at its root only: leave it out inside it.")
        return {key: schema[key] for key in ("$schema", "$id") if key in schema} | made

    def _of(self, node: Any, named: bool) -> Any:
        """`named`: the keys of `node` are names, not keywords."""
        if type(node) is list:
            return [self._of(below, named=False) for below in node]
        if type(node) is not dict:
            return node
        made: dict[str, Any] = {}
        for key, value in node.items():
            if named or key not in _LEFT_ALONE:
                made[key] = self._of(value, not named and key in _NAMED)
            elif key in _VALUES:
                made[key] = value
        if not named:
            _bound_by_length(made)
            self._note(made)
        return made

    def _note(self, schema: dict[str, Any]) -> None:
        if isinstance(pattern := schema.get("pattern"), str):
            self.patterns.add(pattern)
        if isinstance(named := schema.get("patternProperties"), dict):
            self.patterns.update(named)
        self._refers = self._refers or "$ref" in schema
        self._rebased = self._rebased or isinstance(schema.get("$id"), str)


def _bound_by_length(schema: dict[str, Any]) -> None:
    """Say `^.{1,1000}$` as `^.*$` with `minLength` and `maxLength`, in place: as a pattern it becomes a megabyte.

    Both count code points. Bounds that stand beside it hold on; where one is no length, the library tells.
    """
    pattern = schema.get("pattern")
    found = _BOUNDED.fullmatch(pattern) if isinstance(pattern, str) else None
    least_now, most_now = schema.get("minLength", 0), schema.get("maxLength", LENGTH_MAX)
    if found is None or type(least_now) is not int or type(most_now) is not int or least_now < 0 or most_now < 0:
        return
    least = int(found["least"])
    most = LENGTH_MAX if found["open"] else int(found["most"] or least)
    if least > most:  # no regular expression
        return
    schema["pattern"] = f"^{found['one']}*$"
    schema["minLength"], schema["maxLength"] = max(least, least_now), min(most, most_now)


def _leads_into_values(reference: str) -> bool:
    """Is it a part of what `const` or `enum` holds, by the rules of `_Reading`?"""
    named = False
    for step in unquote(reference).split("/")[1:]:
        if not named and step in _VALUES:
            return True
        named = not named and step in _NAMED
    return False


def _effort_us(pattern: str) -> int:
    """Microseconds that a pattern takes beside the program it becomes.

    The library writes `\\d`, `\\w` and `\\s` out one by one and reads the pattern anew for each; a range without case
    is looked up letter by letter.
    """
    classes = len(_ESCAPED_CLASS.findall(pattern))
    written_out = len(pattern) + 12 * classes + 48 * len(_ESCAPED_SPACE.findall(pattern))
    effort = 20 + len(pattern) + classes * written_out // 30 + 40 * len(_UNICODE_CLASS.findall(pattern))
    if _CASELESS.search(pattern):
        effort += 1000 * (pattern.count("-") + pattern.count("\\"))
    return effort


# --- evaluations -----------------------------------------------------------------------------------------------


class _Cost(NamedTuple):
    """Of a subschema: `ways` are the subschemas for the same value, itself included; `height` is the deepest way down.
    `whole` says that it ends within the levels it was reckoned for, as what refers to itself does not: so it costs the
    same in any answer with more of them, and no more in one with fewer."""

    evaluations: int
    ways: int
    height: int
    whole: bool


_NOTHING = _Cost(1, 1, 1, whole=True)
_BEYOND = _Cost(1, 1, 1, whole=False)  # of what an answer has no levels for


class _Reckoning:
    """How many evaluations a schema may need for each value of an answer.

    A subschema is evaluated at the same value as its parent (`allOf`, `$ref` …) or at one inside it, and of those
    inside a property or an item is reached by a single way. So for one value the ways from the root to it are counted:
    all of those in place, and the most of those to any one property or item.
    """

    def __init__(self, root: dict[str, Any]) -> None:
        self._root = root
        self._known: dict[tuple[int, int], _Cost] = {}
        self._whole: dict[int, _Cost] = {}
        self._steps = 0
        self._watched: dict[int, int] = {}

    def of(self, schema: Any, levels: int, depth: int, followed: tuple[str, ...]) -> _Cost:
        """What it costs in an answer of so many levels. Raises ValueError where there is no telling, or too much.

        One frame of Python for each step down, so that `DEPTH_MAX` comes before the interpreter's own limit.
        """
        if not isinstance(schema, dict) or not schema:
            return _NOTHING
        if levels < 0:
            return _BEYOND
        known = self._whole.get(id(schema)) or self._known.get((id(schema), levels))
        if known is not None:
            _check_depth(depth + known.height)
            return known
        _check_depth(depth + 1)
        self._step(schema)
        count, ways, height, whole = _weight(schema), 1, 0, True
        for below, references in self._in_place(schema, followed):
            cost = self.of(below, levels, depth + 1, references)
            count, ways = count + cost.evaluations, ways + cost.ways
            height, whole = max(height, cost.height), whole and cost.whole
        most = 0
        for group in _inside(schema):
            together = 0
            for below in group:
                cost = self.of(below, levels - 1, depth + 1, ())
                together += cost.evaluations
                height, whole = max(height, cost.height), whole and cost.whole
            most = max(most, together)
        found = _Cost(count + most, ways, height + 1, whole)
        self._keep(schema, levels, found)
        return found

    def _step(self, schema: dict[str, Any]) -> None:
        self._steps += 1 + (_MULTIPLE_STEPS if "multipleOf" in schema else 0)
        if self._steps > _STEPS_MAX:
            raise ValueError("It is too complex.")
        if "$dynamicRef" in schema or "$recursiveRef" in schema:
            raise ValueError("References must be plain: write $ref.")

    def _in_place(self, schema: dict[str, Any], followed: tuple[str, ...]) -> Iterator[tuple[Any, tuple[str, ...]]]:
        """The subschemas for the same value, each with the references that led to it from there."""
        if isinstance(reference := schema.get("$ref"), str):
            target = pointed(self._root, reference)
            if target is None or _leads_into_values(reference):
                raise ValueError(f"'{shorten(reference)}' does not refer to a part of it: write #/$defs/name.")
            if reference in followed:
                raise ValueError(f"'{shorten(reference)}' refers to itself.")
            yield target, (*followed, reference)
        for keyword, value in schema.items():
            if keyword in _IN_PLACE:
                yield value, followed
            elif keyword in _IN_PLACE_LISTS and isinstance(value, list):
                for below in value:
                    yield below, followed
            elif keyword in _IN_PLACE_NAMED and isinstance(value, dict):
                for below in value.values():
                    yield below, followed

    def _keep(self, schema: dict[str, Any], levels: int, cost: _Cost) -> None:
        if cost.evaluations > EVALUATIONS_MAX:
            raise ValueError("It is too complex.")
        if not schema.keys().isdisjoint(_UNEVALUATED):
            self._watched[id(schema)] = cost.ways
            if sum(self._watched.values()) > WATCHED_MAX:
                raise ValueError(
                    "Too much stands beside unevaluatedProperties or unevaluatedItems: write additionalProperties."
                )
        if cost.whole:
            self._whole[id(schema)] = cost
        else:
            self._known[(id(schema), levels)] = cost


def _check_depth(depth: int) -> None:
    if depth > DEPTH_MAX:
        raise ValueError(f"Its references and alternatives lead more than {DEPTH_MAX} steps deep.")


def _weight(schema: dict[str, Any]) -> int:
    pattern, values = schema.get("pattern"), schema.get("enum")
    weight = 1 + (len(values) if isinstance(values, list) else 0)
    return weight + (_LOOK_AROUND_WEIGHT if isinstance(pattern, str) and "(?" in pattern else 0)


def _inside(schema: dict[str, Any]) -> Iterator[list[Any]]:
    """For each property or item that is told apart, the subschemas that hold for it."""
    if not schema.keys().isdisjoint(_PROPERTIES):
        everywhere = [schema[keyword] for keyword in ("propertyNames", "unevaluatedProperties") if keyword in schema]
        patterns = schema.get("patternProperties")
        if isinstance(patterns, dict):
            everywhere += patterns.values()
        named = schema.get("properties")
        for below in named.values() if isinstance(named, dict) else ():
            yield [below, *everywhere]
        yield [*everywhere, *([schema["additionalProperties"]] if "additionalProperties" in schema else ())]
    if not schema.keys().isdisjoint(_ITEMS):
        every_item = [schema[keyword] for keyword in ("contains", "unevaluatedItems") if keyword in schema]
        placed: list[Any] = []
        for keyword in ("prefixItems", "items"):  # a list of items is what draft 7 called them
            if isinstance(listed := schema.get(keyword), list):
                placed += listed
        for below in placed:
            yield [below, *every_item]
        rest = [schema[keyword] for keyword in ("items", "additionalItems") if isinstance(schema.get(keyword), dict)]
        yield [*every_item, *rest]

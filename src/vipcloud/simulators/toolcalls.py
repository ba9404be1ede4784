"""Which tool a sentence asks for, and with which arguments. PURE."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from vipcloud.simulators import tokens
from vipcloud.simulators.jsonschema import instance


@dataclass(frozen=True, slots=True)
class ToolCall:
    """`arguments` is JSON text, in pieces; cut by the output limit it may be no valid JSON."""

    name: str
    arguments: tuple[str, ...]

    @property
    def tokens(self) -> int:
        return 1 + len(self.arguments)  # the name costs one

    def cut(self, tokens_max: int) -> "ToolCall":
        return self if self.tokens <= tokens_max else replace(self, arguments=self.arguments[: max(0, tokens_max - 1)])


def choose(tools: Sequence[Mapping[str, Any]], tool_choice: str, text: str) -> list[ToolCall]:
    """The calls a model would make. `tool_choice` is `auto`, `required` or a function's name."""
    if tool_choice not in ("auto", "required"):
        chosen = [tool for tool in tools if tool.get("name") == tool_choice]
    else:
        chosen = fitting(tools, text)
        if not chosen and tool_choice == "required":
            chosen = list(tools[:1])
    return [call for tool in chosen for call in calls_of(tool, text)]


# Words that occur in many tools' names and say nothing about what the tool is for.
_GENERIC_WORDS = (
    "a an and any as at by call can current do does fetch find for from function get give given has i in information is"
    " it its lookup make me my name of on or return returns run set show some tell that the this to tool use user what"
    " when where which who will with you your please now today value values"
)
_GENERIC = frozenset(_GENERIC_WORDS.split())
_ALIKE = {
    "temperature": "weather", "forecast": "weather", "rain": "weather", "sunny": "weather", "天气": "weather",
    "气温": "weather", "clock": "time", "几点": "time", "时间": "time", "plus": "add", "sum": "add",
    "times": "multiply", "calculate": "calculator", "compute": "calculator", "math": "calculator",
    "stock": "price", "cost": "price", "google": "search", "look": "search", "mail": "email", "股价": "price",
    "搜索": "search",
}  # fmt: skip
_WORD = re.compile(r"[a-z]+|[\u4e00-\u9fff]{2}")
_SNAKE = re.compile(r"[_\W]")
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
DESCRIPTION_WORDS_MIN = 2  # this many words in common make a tool fit when its name has none


def _stem(word: str) -> str:
    for ending in ("ing", "es", "s"):
        if len(word) > len(ending) + 3 and word.endswith(ending):
            word = word[: -len(ending)]
            break
    return _ALIKE.get(word, word)


def _words(text: str) -> set[str]:
    lower = text.lower()
    found = {_stem(word) for word in _WORD.findall(lower) if word not in _GENERIC}
    return found | {meaning for word, meaning in _ALIKE.items() if not word.isascii() and word in lower}


def fitting(tools: Sequence[Mapping[str, Any]], text: str) -> list[Mapping[str, Any]]:
    """The tools that the text is about: the best first, another only if it explains words the better ones do not."""
    said = _words(text)
    scored = []
    for tool in tools:
        name = str(tool.get("name", ""))
        by_name = said & _words(_CAMEL.sub(" ", name).replace("_", " ").replace("-", " "))
        if len(name) > 3 and name.lower() in text.lower():
            by_name |= {name}
        by_description = said & _words(str(tool.get("description") or ""))
        if by_name or len(by_description) >= DESCRIPTION_WORDS_MIN:
            scored.append((3 * len(by_name) + len(by_description), by_name or by_description, tool))
    scored.sort(key=lambda entry: -entry[0])
    explained: set[str] = set()
    chosen = []
    for _, matched, tool in scored:
        if matched - explained:
            explained |= matched
            chosen.append(tool)
    return chosen


def calls_of(tool: Mapping[str, Any], text: str) -> list[ToolCall]:
    """One call, or one for each city that the text names when the tool takes one."""
    schema = tool.get("parameters")
    schema = schema if isinstance(schema, Mapping) else {}
    named = places(text)
    properties = schema.get("properties")
    takes_one_place = isinstance(properties, Mapping) and any(
        _is_place(name) and isinstance(below, Mapping) and below.get("type") != "array"
        for name, below in properties.items()
    )
    if takes_one_place and len(named) > 1:
        rest = _without(text, named)
        return [_call(tool, schema, f"{rest} in {place}") for place in named]
    return [_call(tool, schema, text)]


def _call(tool: Mapping[str, Any], schema: Mapping[str, Any], text: str) -> ToolCall:
    arguments = instance(schema, text, Suggestions()) if schema else {}
    return ToolCall(str(tool.get("name")), tuple(tokens.pieces(json.dumps(arguments, ensure_ascii=False))))


def _without(text: str, named: Sequence[str]) -> str:
    for place in named:
        text = text.replace(place, "")
    return text


# --- values for arguments ----------------------------------------------------------------------------------------

_CITY_WORDS = (
    "Amsterdam Athens Barcelona Beijing Berlin Boston Brussels Budapest Cairo Chicago Copenhagen Delhi Denver Dubai "
    "Dublin Geneva Hamburg Helsinki Houston Istanbul Jakarta Johannesburg Kyiv Lagos Lima Lisbon London Madrid "
    "Melbourne Miami Milan Moscow Mumbai Munich Nairobi Osaka Oslo Paris Prague Rome Santiago Seattle Seoul Shanghai "
    "Shenzhen Singapore Stockholm Sydney Taipei Tokyo Toronto Vancouver Vienna Warsaw Zurich 北京 上海 广州 深圳 杭州 "
    "成都 香港 东京 巴黎 伦敦 纽约"
)
_CITIES = (
    *_CITY_WORDS.split(),
    "Hong Kong",
    "Los Angeles",
    "Mexico City",
    "New York",
    "San Francisco",
    "São Paulo",
    "Tel Aviv",
)
_KNOWN_PLACE = re.compile(
    "|".join(rf"(?<![A-Za-z]){re.escape(city)}(?![A-Za-z])" if city[0] < "\u4e00" else city for city in _CITIES)
)
_AFTER_IN = re.compile(r"\b(?:in|for|near|at|to|of)\s+([A-Z][\w'-]+(?:\s[A-Z][\w'-]+){0,2})")
_PLACE_NAMES = frozenset(("city", "location", "place", "town", "destination", "region", "cities", "locations"))


def places(text: str) -> list[str]:
    """Cities named, in order, each once; else what follows "in" with a capital."""
    known = list(dict.fromkeys(_KNOWN_PLACE.findall(text)))
    return known or list(dict.fromkeys(_AFTER_IN.findall(text)))


def _is_place(name: str) -> bool:
    return bool(_PLACE_NAMES & set(_SNAKE.split(_CAMEL.sub("_", name).lower())))


_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
_QUOTED = re.compile(r"[\"“「]([^\"”」]{1,200})[\"”」]|(?<!\w)'([^']{1,200})'(?!\w)")
_EMAIL = re.compile(r"[\w.+-]+@[\w-]+\.[\w.-]*\w")
_URL = re.compile(r"https?://[^\s\"'<>]+")
_EXPRESSION = re.compile(r"[\d(][\d\s.()+*/^×÷-]*[\d)]")
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
_PERSON = re.compile(r"(?<![.!?]\s)(?<!^)\b([A-Z][a-z]+(?:\s[A-Z][a-z]+)?)")
_FREE_TEXT = frozenset(
    ("query", "q", "question", "text", "message", "prompt", "content", "input", "search", "topic", "body", "sentence")
)


class Suggestions:
    """A value for a property of that name and schema, or None (`jsonschema.Suggest`).

    Hands out the numbers and quotations of a text in order, each once: `add(a=2, b=3)`."""

    def __init__(self) -> None:
        self._numbers: list[float] | None = None
        self._quoted: list[str] | None = None

    def __call__(self, name: str, schema: Mapping[str, Any], text: str) -> Any:
        kind = schema.get("type")
        if kind in ("integer", "number"):
            return self._number(text)
        if kind == "array":
            named = places(text) if _is_place(name) else []
            return named or None
        if kind == "boolean":
            return None
        return self._string(name, schema, text)

    def _number(self, text: str) -> float | None:
        if self._numbers is None:
            self._numbers = [float(found) if "." in found else int(found[:15]) for found in _NUMBER.findall(text)]
        return self._numbers.pop(0) if self._numbers else None

    def _string(self, name: str, schema: Mapping[str, Any], text: str) -> str | None:
        if _is_place(name):
            named = places(text)
            return named[0] if named else None if "optional" in schema else "Paris"
        lower = name.lower()
        for part, pattern in _BY_NAME:
            if part in lower and (match := pattern.search(text)):
                return match[0].strip()
        if lower == "to" and (match := _EMAIL.search(text)):
            return match[0]
        if "optional" in schema:
            return None
        if self._quoted is None:
            self._quoted = [double or single for double, single in _QUOTED.findall(text)]
        if self._quoted:
            return self._quoted.pop(0)
        if lower in _FREE_TEXT or set(_SNAKE.split(lower)) & _FREE_TEXT:
            return text[:200].strip() or None
        if "name" in lower and (person := _PERSON.search(text)):
            return person[1]
        return _PLAUSIBLE.get(lower)


_BY_NAME = (
    ("email", _EMAIL),
    ("recipient", _EMAIL),
    ("url", _URL),
    ("link", _URL),
    ("expression", _EXPRESSION),
    ("formula", _EXPRESSION),
    ("date", _DATE),
    ("day", _DATE),
)


_PLAUSIBLE = {
    "animal": "otter", "author": "Alex Morgan", "color": "blue", "colour": "blue", "country": "France",
    "currency": "USD", "first_name": "Alex", "job": "engineer", "language": "English", "last_name": "Morgan",
    "name": "Alex", "occupation": "engineer", "sentiment": "positive", "subject": "A note", "timezone": "UTC",
    "title": "The harbour at dawn",
}  # fmt: skip
_COUNTED = ("age", "count", "number", "year", "total", "amount", "score", "sum", "result", "price", "quantity")


def plain_value(name: str, text: str, said: str) -> Any:
    """A value for a JSON key of which only the name is known."""
    lower = name.lower()
    if lower in ("n", "id", "num") or any(part in _SNAKE.split(lower) for part in _COUNTED):
        found = _NUMBER.search(said) or _NUMBER.search(text)
        return (float(found[0]) if "." in found[0] else int(found[0][:15])) if found else 42
    if lower in ("ok", "success", "valid", "done", "status_ok") or lower.startswith("is_"):
        return True
    if lower.endswith("s") and lower not in ("status", "address", "class"):
        return [lower.rstrip("s")]
    return Suggestions()(name, {"type": "string"}, text) or said

"""A pretend model: reads a conversation, answers sensibly, the same for the same conversation and seed. PURE.

It greets back, counts, calculates, repeats what it is told to say, remembers ("my name is …"), names capitals, writes
prose of a given length, calls the tool that fits the question (`toolcalls`), makes use of the result, answers in JSON,
reasons first where it is told to, and says which images it got. What it has no rule for it says it has understood.

Directives in the last user message steer it exactly: `[[tokens=500 pace_ms=20]]`. They are

    tokens=N  words=N  bytes=N   length of the text
    reasoning_tokens=N           length of the reasoning, where there is one
    prompt_tokens=N              what the usage will say about the prompt
    pace_ms=N  first_token_ms=N  time between pieces, and before the first
    queue_ms=N  keep_alive_ms=N  time in the queue, and between the keep-alives sent while there
    fault=NAME:…                 see `faults`
"""

import math
import operator
import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from vipcloud.simulators import tokens, toolcalls
from vipcloud.simulators.jsonschema import find_schema, instance
from vipcloud.simulators.script import encode
from vipcloud.simulators.toolcalls import ToolCall

ANSWER_TOKENS_MAX = 500_000
READ_CHARACTERS_MAX = 8000  # of the last user message; more is counted, not understood


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """A request as a provider understood it, its own rules applied."""

    messages: Sequence[Mapping[str, Any]]
    tools: Sequence[Mapping[str, Any]] = ()  # function specs: name, description, parameters
    tool_choice: str = "auto"  # auto, none, required, or a function's name
    json: bool = False
    schema: Mapping[str, Any] | None = None  # what the JSON has to fit; else the conversation may name it
    fenced: bool = False  # JSON comes in a Markdown fence
    prefix: str = ""  # how the answer begins already: only the rest is said
    thinking: bool = False
    reasoning_tokens_max: int | None = None
    stop: tuple[str, ...] = ()
    output_tokens_max: int = 4096
    image_tokens: int = tokens.IMAGE_TOKENS  # what each counts as
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Pieces are tokens. `finish_reason` is `stop`, `length` or `tool_calls`."""

    reasoning: Sequence[str]
    text: Sequence[str]
    calls: Sequence[ToolCall]
    finish_reason: str
    prompt_tokens: int
    directives: Mapping[str, str]

    @property
    def completion_tokens(self) -> int:
        return len(self.reasoning) + len(self.text) + sum(call.tokens for call in self.calls)

    def milliseconds(self, name: str, default: float) -> float:
        return number(self.directives, name, default)


def plan(ask: Ask) -> Answer:
    whole = last_user_text(ask.messages)
    given = directives(whole)
    text = plain(whole)
    prompt_tokens = int(number(given, "prompt_tokens", -1))
    if prompt_tokens < 0:
        counted = sum(tokens.message_tokens(message, ask.image_tokens) for message in ask.messages)
        prompt_tokens = 3 + tokens.tools_tokens(ask.tools) + counted
    calls = choose_calls(ask, text)
    reasoning = reason(text, calls, given)[: ask.reasoning_tokens_max] if ask.thinking else []
    said = [] if calls else say(ask, text, given)
    said = cut_at_stop(continued(said, ask.prefix), ask.stop)
    return limited(ask.output_tokens_max, reasoning, said, calls, prompt_tokens, given)


def limited(
    output_tokens_max: int,
    reasoning: Sequence[str],
    said: Sequence[str],
    calls: Sequence[ToolCall],
    prompt_tokens: int,
    given: Mapping[str, str],
) -> Answer:
    """The answer, cut where the output limit falls: in the reasoning, in the text, or in a call's arguments."""
    left = output_tokens_max
    kept_reasoning = reasoning[:left]
    left -= len(kept_reasoning)
    kept_text = said[:left]
    left -= len(kept_text)
    kept_calls: list[ToolCall] = []
    for call in calls:
        if left <= 0:
            break
        kept_calls.append(call.cut(left))
        left -= kept_calls[-1].tokens
    whole = len(kept_reasoning) == len(reasoning) and len(kept_text) == len(said) and kept_calls == [*calls]
    finish_reason = "length" if not whole else "tool_calls" if calls else "stop"
    return Answer(
        reasoning=kept_reasoning,
        text=kept_text,
        calls=kept_calls,
        finish_reason=finish_reason,
        prompt_tokens=prompt_tokens,
        directives=given,
    )


# --- reading -----------------------------------------------------------------------------------------------------

_DIRECTIVES = re.compile(r"\[\[([^\[\]]*)\]\]")


def directives(text: str) -> dict[str, str]:
    """`Hello [[tokens=5 fault=cut:3]]` → `{"tokens": "5", "fault": "cut:3"}`; several faults are joined by commas."""
    found: dict[str, str] = {}
    if "[[" not in text:
        return found
    for block in _DIRECTIVES.findall(text):
        for word in block.split():
            name, equals, value = word.partition("=")
            if equals:
                found[name] = f"{found[name]},{value}" if name == "fault" and name in found else value
    return found


def number(given: Mapping[str, str], name: str, default: float) -> float:
    """A directive as a number, not below 0; the default if it is absent or none."""
    try:
        value = float(given[name])
    except (KeyError, ValueError):
        return default
    return max(0.0, value) if math.isfinite(value) else default


def plain(text: str) -> str:
    """`text` without its directives, as far as it is read."""
    return _DIRECTIVES.sub("", text[-READ_CHARACTERS_MAX:]).strip() if "[[" in text else text[-READ_CHARACTERS_MAX:]


def text_of(message: Mapping[str, Any]) -> str:
    """The text of a message, whatever form its content has."""
    content = message.get("content")
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        texts = [part.get("text") for part in content if isinstance(part, Mapping)]
        return " ".join(text for text in texts if isinstance(text, str))
    return ""


def last_user_text(messages: Sequence[Mapping[str, Any]]) -> str:
    for message in reversed(messages):
        if message.get("role") == "user":
            return text_of(message)
    return ""


def earlier_text(messages: Sequence[Mapping[str, Any]]) -> str:
    """What was said before the last user message, newest first."""
    texts = [text_of(message)[-READ_CHARACTERS_MAX:] for message in messages if message.get("role") != "tool"]
    return "\n".join(reversed(texts[:-1]))


def results_at_end(messages: Sequence[Mapping[str, Any]]) -> list[str]:
    """The tool results that the conversation ends with."""
    results: list[str] = []
    for message in reversed(messages):
        if message.get("role") != "tool":
            break
        results.append(text_of(message))
    return results[::-1]


def called_at_end(messages: Sequence[Mapping[str, Any]]) -> set[str]:
    """The names of the tools called since the last user message."""
    names: set[str] = set()
    for message in reversed(messages):
        if message.get("role") == "user":
            break
        for call in message.get("tool_calls") or ():
            names.add(str(call.get("function", {}).get("name")))
    return names


# --- speaking ----------------------------------------------------------------------------------------------------


def choose_calls(ask: Ask, text: str) -> list[ToolCall]:
    if not ask.tools or ask.tool_choice == "none":
        return []
    results = results_at_end(ask.messages)
    if ask.tool_choice == "auto" and results:
        return []
    if ask.tool_choice != "required" or not results:
        return toolcalls.choose(ask.tools, ask.tool_choice, text)
    used = called_at_end(ask.messages)
    unused = [tool for tool in ask.tools if tool.get("name") not in used]
    return toolcalls.choose(unused or ask.tools, ask.tool_choice, "\n".join((text, *results)))


def reason(text: str, calls: Sequence[ToolCall], given: Mapping[str, str]) -> list[str]:
    if "reasoning_tokens" in given:
        return prose(min(int(number(given, "reasoning_tokens", 0)), ANSWER_TOKENS_MAX), zlib.crc32(text.encode()))
    todo = f"I should call {calls[0].name}." if calls else "I can answer that directly."
    return tokens.pieces(f"The user writes: {shortened(text, 120)}\n{todo}")


def say(ask: Ask, text: str, given: Mapping[str, str]) -> list[str]:
    results = results_at_end(ask.messages)
    if ask.json:
        return tokens.pieces(json_text(ask, text, results))
    if not results and (sized := of_length(text, given, ask.seed)) is not None:
        return sized
    return tokens.pieces(from_results(results) if results else free_text(ask, text))


def free_text(ask: Ask, text: str) -> str:
    if images := images_in(ask.messages):
        return about_images(images)
    if (told := remembering(text, ask.messages)) is not None:
        return told
    for rule in RULES:
        if (said := rule(text)) is not None:
            return said
    return composed(text, ask.seed) if _COMPOSE.search(text) else echo(text)


def from_results(results: Sequence[str]) -> str:
    lines = [_readable(result) for result in results]
    return f"Here is what I found: {lines[0]}" if len(lines) == 1 else "Here is what I found:\n" + "\n".join(lines)


def _readable(result: str) -> str:
    return shortened(result.strip(), 600) or "(an empty result)"


def json_text(ask: Ask, text: str, results: Sequence[str]) -> str:
    """JSON after the schema or the keys that the conversation names; else one key, `answer`."""
    everything = "\n".join(text_of(message)[-READ_CHARACTERS_MAX:] for message in ask.messages)
    schema = ask.schema or find_schema(everything)
    if schema is not None:
        value = instance(schema, _without_json(text), toolcalls.Suggestions())
    else:
        said = from_results(results) if results else free_text(ask, text)
        names = _named_keys(text) or _named_keys(everything)
        value = {name: toolcalls.plain_value(name, text, said) for name in names} if names else {"answer": said}
    document = encode(value).decode()
    return f"```json\n{document}\n```" if ask.fenced else document


def _without_json(text: str) -> str:
    """`text` without what stands between its outermost braces, so that a schema's words are not taken for content."""
    before, brace, rest = text.partition("{")
    return f"{before} {rest.rpartition('}')[2]}" if brace and "}" in rest else text


_TOLD_JSON = re.compile(
    r"\b(?:answer|format|give|output|produce|reply|respond|return|write)\w*\b[^.\n]{0,100}\bjson\b", re.I
)


def told_json(messages: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a system message or the last user message says in words that the answer is to be JSON."""
    told = [text_of(message) for message in messages if message.get("role") == "system"]
    return any(_TOLD_JSON.search(text[-READ_CHARACTERS_MAX:]) for text in (*told, last_user_text(messages)))


_KEYS = re.compile(r"\b(?:keys?|fields?|propert(?:y|ies))\b\s*(?:called|named|:|are|of)?\s*([^.;\n]{1,200})", re.I)
_KEY = re.compile(r"[\"'`“]?([A-Za-z_][A-Za-z0-9_]{0,40})[\"'`”]?")
_EXAMPLE_KEY = re.compile(r"[{,]\s*\"([A-Za-z_][A-Za-z0-9_]{0,40})\"\s*:")


def _named_keys(text: str) -> list[str]:
    """`with the keys "name" and "age"` or `{"name": …, "age": …}` → the names."""
    if found := _EXAMPLE_KEY.findall(text):
        return list(dict.fromkeys(found))
    if not (match := _KEYS.search(text)):
        return []
    quoted = re.findall(r"[\"'`“]([A-Za-z_]\w{0,40})[\"'`”]", match.group(1))
    if quoted:
        return list(dict.fromkeys(quoted))
    words = re.split(r"\s*(?:,|\band\b|&)\s*", match.group(1).strip())
    return [name.group(1) for word in words if (name := _KEY.fullmatch(word.strip()))]


# Fixed lengths.

_LENGTH = re.compile(r"\b(\d{1,6})[\s-]+(word|token|byte)s?\b", re.I)


def of_length(text: str, given: Mapping[str, str], seed: int) -> list[str] | None:
    """Prose of exactly the length that a directive or a sentence such as "in 200 words" asks for."""
    turn = seed ^ zlib.crc32(text.encode())
    for unit in ("tokens", "words", "bytes"):
        if unit in given:
            return _WRITERS[unit](min(int(number(given, unit, 0)), ANSWER_TOKENS_MAX), turn)
    if match := _LENGTH.search(text):
        return _WRITERS[match.group(2).lower() + "s"](min(int(match.group(1)), ANSWER_TOKENS_MAX), turn)
    return None


_SENTENCES = (
    "The harbour wakes before the town does, and the first boats leave while the lamps still burn.",
    "A pilot reads the water more than the chart, because the sand moves every winter.",
    "Ropes, crates and weather are checked twice, since neither forgives a hurry.",
    "Along the quay the cranes swing slowly, each one answering a signal from below.",
    "Somebody writes down what came in and what went out, to the last barrel.",
    "By noon the market has sold most of the catch, and the gulls argue about the rest.",
    "Letters from three continents wait in one small office with a blue door.",
    "When fog rolls in, the bell at the end of the pier speaks for everyone.",
    "Old captains say that a calm sea teaches nothing worth knowing.",
    "In the evening the last ferry turns, lights its lanterns and comes home.",
)
_PROSE = tuple(tokens.pieces(" " + " ".join(_SENTENCES)))
_WORDS = tuple(" ".join(_SENTENCES).split())
# Where each sentence begins, in tokens and in words.
_TOKEN_STARTS = tuple(len(tokens.pieces("".join(f" {s}" for s in _SENTENCES[:n]))) for n in range(len(_SENTENCES)))
_WORD_STARTS = tuple(len(" ".join(_SENTENCES[:n]).split()) for n in range(len(_SENTENCES)))
_PROSE_ZH = "天还没亮，港口已经醒来，第一批船点着灯出海。领航员看水多过看图，因为沙洲每年冬天都会移动。🚢"


def prose(length: int, turn: int) -> list[str]:
    """Exactly `length` tokens, beginning at a sentence that `turn` decides."""
    start = _TOKEN_STARTS[turn % len(_SENTENCES)]
    rounds = (start + length) // len(_PROSE) + 1
    said = list((_PROSE * rounds)[start : start + length])
    return [said[0].lstrip(), *said[1:]] if said else said


def words(length: int, turn: int) -> list[str]:
    start = _WORD_STARTS[turn % len(_SENTENCES)]
    rounds = (start + length) // len(_WORDS) + 1
    return tokens.pieces(" ".join((_WORDS * rounds)[start : start + length]))


def exact_bytes(length: int, turn: int) -> list[str]:
    return list(_exact_bytes(length, turn % len(_SENTENCES)))


@lru_cache(maxsize=64)  # load tests ask for the same length over and over
def _exact_bytes(length: int, turn: int) -> tuple[str, ...]:
    return tuple(tokens.pieces("".join(prose(length, turn))[:length]))


_WRITERS: dict[str, Callable[[int, int], list[str]]] = {"tokens": prose, "words": words, "bytes": exact_bytes}


# Rules for free text, asked in order (`RULES`): an answer, or None if the text is not about that.

_NUMERALS = "zero one two three four five six seven eight nine ten"
_NUMBER_WORDS = {name: n for n, name in enumerate(_NUMERALS.split())}
_COUNT = re.compile(
    r"\bcount\b(?:\s+(?P<up>up))?(?:\s+down)?(?:\s+from\s+(?P<first>-?\d+))?(?:\s+down)?\s+to\s+(?P<last>-?\d+|[a-z]+)"
    r"|从\s*(?P<zh_first>\d+)\s*数到\s*(?P<zh_last>\d+)|数到\s*(?P<zh_only>\d+)",
    re.I,
)
COUNT_MAX = 20_000


def counting(text: str) -> str | None:
    if not (match := _COUNT.search(text)):
        return None
    last_word = match["last"] or match["zh_last"] or match["zh_only"]
    last = _NUMBER_WORDS.get(last_word.lower()) if last_word.isalpha() else int(last_word[:9])
    if last is None:
        return None
    first = int((match["first"] or match["zh_first"] or "1")[:9])
    step = 1 if last >= first else -1
    reach = min(abs(last - first), COUNT_MAX)
    return ", ".join(str(first + step * n) for n in range(reach + 1))


_SUM = re.compile(
    r"(-?\d{1,12}(?:\.\d{1,6})?)\s*(\+|-|\*|/|×|÷|x|plus|minus|times|multiplied by|divided by|加|减|乘|除以)\s*"
    r"(-?\d{1,12}(?:\.\d{1,6})?)",
    re.I,
)
_OPERATORS: dict[str, tuple[str, Callable[[float, float], float]]] = {
    **dict.fromkeys(("+", "plus", "加"), ("+", operator.add)),
    **dict.fromkeys(("-", "minus", "减"), ("-", operator.sub)),
    **dict.fromkeys(("*", "×", "x", "times", "multiplied by", "乘"), ("×", operator.mul)),
    **dict.fromkeys(("/", "÷", "divided by", "除以"), ("/", operator.truediv)),
}


def calculating(text: str) -> str | None:
    if not (match := _SUM.search(text)):
        return None
    sign, apply = _OPERATORS[match[2].lower()]
    left, right = _parsed(match[1]), _parsed(match[3])
    if sign == "/" and right == 0:
        return "Division by zero has no result."
    result = apply(left, right)
    shown = str(int(result)) if result == int(result) else f"{result:.6g}"
    bare = re.search(r"\b(only|just|nothing else)\b|只", text, re.I)
    return shown if bare else f"{match[1]} {sign} {match[3]} = {shown}"


def _parsed(text: str) -> float:
    return float(text) if "." in text else int(text)


_SAY = re.compile(
    r"^(?:please\s+)?(?:just\s+|simply\s+)?"
    r"(?:(?:say|repeat|echo|print|output)(?:\s+after me|\s+back)?"
    r"|(?:reply|respond|answer)\s+(?:only\s+|just\s+|exactly\s+)?with)"
    r"(?:\s+(?:only|just|exactly|the following|the (?:single |exact )?(?:word|text|phrase|string|sentence)s?))*"
    r"\s*[:,]?\s+(.+)$",
    re.I | re.S,
)
_QUOTED = re.compile(r"^[\"'“‘`「](.+?)[\"'”’`」](?=\W*$|\s)", re.S)
_NOT_LITERAL = re.compile(r"^(?:something|anything|a |an |the |your |yes or no|in |json)", re.I)


def repeating(text: str) -> str | None:
    if not (match := _SAY.match(text)):
        return None
    rest = match[1].strip()
    if quoted := _QUOTED.match(rest):
        return quoted[1]
    if _NOT_LITERAL.match(rest):
        return None
    rest = re.sub(r"\s*(?:,?\s*(?:and )?nothing else|\bonly|\bexactly)[.!]?$", "", rest, flags=re.I)
    return rest.rstrip(".") or None


_GREETING = re.compile(r"^\W*(?:hello|hi|hey|good (?:morning|evening|day)|bonjour|hola|hallo)\b", re.I)


def greeting(text: str) -> str | None:
    if re.match(r"^\W*(?:你好|您好|嗨)", text):
        return "你好！有什么可以帮你的吗？"
    return "Hello! How can I help you today?" if len(text) < 60 and _GREETING.match(text) else None


_RECALL = re.compile(
    r"\b(?:what(?:'s| is| was| did i say)|tell me|repeat|recall)\s+(?:my|the|our)\s+([a-z ]{2,40}?)\s*\W*$", re.I
)
_PREVIOUS = re.compile(r"what (?:did i|have i) (?:just )?(?:say|said|ask|asked|write|tell)", re.I)


def remembering(text: str, messages: Sequence[Mapping[str, Any]]) -> str | None:
    if _PREVIOUS.search(text):
        earlier = [text_of(message) for message in messages if message.get("role") == "user"][:-1]
        return f"You said: {shortened(plain(earlier[-1]), 300)}" if earlier else "That was your first message."
    if not (match := _RECALL.search(text)):
        return None
    thing = match[1].strip()
    before = earlier_text(messages)
    told = re.search(
        rf"\b{re.escape(thing)}\s+(?:is|was|=|:)\s+[\"“]?([^.,;!?\n\"”]{{1,80}}?)(?=\s+and\b|[.,;!?\n\"”]|$)",
        before,
        re.I,
    )
    if told is None and thing.lower() == "name":
        told = re.search(r"\b(?:i am|i'm|call me)\s+([A-Z][\w-]*)", before)
    return f"Your {thing} is {told[1].strip()}." if told else None


CAPITALS = {
    "australia": "Canberra", "austria": "Vienna", "brazil": "Brasília", "canada": "Ottawa", "china": "Beijing",
    "egypt": "Cairo", "england": "London", "france": "Paris", "germany": "Berlin", "greece": "Athens",
    "india": "New Delhi", "ireland": "Dublin", "italy": "Rome", "japan": "Tokyo", "kenya": "Nairobi",
    "mexico": "Mexico City", "norway": "Oslo", "poland": "Warsaw", "portugal": "Lisbon", "russia": "Moscow",
    "spain": "Madrid", "sweden": "Stockholm", "turkey": "Ankara", "ukraine": "Kyiv",
    "the united kingdom": "London", "the uk": "London", "the united states": "Washington, D.C.",
    "the usa": "Washington, D.C.",
}  # fmt: skip


def capital(text: str) -> str | None:
    match = re.search(r"\bcapital(?: city)? of ([a-z ]+?)\s*(?:\W|$)", text, re.I)
    country = match[1].lower() if match else ""
    if match is None or country not in CAPITALS:
        return None
    named = match[1][0].upper() + match[1][1:] if not country.startswith("the ") else f"the {match[1][4:]}"
    return f"The capital of {named} is {CAPITALS[country]}."


_COMPOSE = re.compile(r"\b(?:write|tell|compose|explain|describe|essay|story|poem|article|paragraph|summar)", re.I)


def composed(text: str, seed: int) -> str:
    return "".join(prose(120, seed ^ zlib.crc32(text.encode()))).rstrip(" ,.") + "."


RULES: tuple[Callable[[str], str | None], ...] = (counting, calculating, repeating, capital, greeting)


def echo(text: str) -> str:
    if not text.strip():
        return "I am ready; there was no text in your message."
    if re.search(r"[\u4e00-\u9fff]", text):
        return f"我明白了，你说的是：“{shortened(text.strip(), 200)}”。{_PROSE_ZH}"
    return f"I understand that you wrote: “{shortened(text.strip(), 200)}”. This is a simulated answer."


def shortened(text: str, length_max: int) -> str:
    return text if len(text) <= length_max else text[: length_max - 1] + "…"


def continued(said: list[str], prefix: str) -> list[str]:
    """What is left to say after `prefix`; all of it where it would have begun otherwise."""
    text = "".join(said)
    return tokens.pieces(text.removeprefix(prefix)) if prefix and text.startswith(prefix) else said


def cut_at_stop(said: list[str], stop: Sequence[str]) -> list[str]:
    """The pieces before the first stop string."""
    marks = [mark for mark in stop if mark]
    if not marks or not said:
        return said
    text = "".join(said)
    places = [place for mark in marks if (place := text.find(mark)) >= 0]
    return tokens.pieces(text[: min(places)]) if places else said


# --- images ------------------------------------------------------------------------------------------------------

# The first bytes of a picture, as base64 begins; Zhipu takes base64 without a `data:` prefix.
_MAGIC = {"iVBOR": "image/png", "/9j/": "image/jpeg", "R0lG": "image/gif", "UklG": "image/webp"}


def images_in(messages: Sequence[Mapping[str, Any]]) -> list[str]:
    """URLs or base64 of the pictures of the last user message."""
    for message in reversed(messages):
        if message.get("role") == "user":
            return image_urls(message.get("content"))
    return []


def image_urls(content: Any) -> list[str]:
    if not isinstance(content, list):
        return []
    found = []
    for part in content:
        image = part.get("image_url") if isinstance(part, Mapping) else None
        url = image.get("url") if isinstance(image, Mapping) else image
        if isinstance(url, str):
            found.append(url)
    return found


def about_images(images: Sequence[str]) -> str:
    kinds = "; ".join(describe_image(url) for url in images)
    return f"I can see {len(images)} image{'s' if len(images) > 1 else ''}: {kinds}."


def describe_image(url: str) -> str:
    if url.startswith(("http://", "https://")):
        return f"one by its address ({shortened(url, 80)})"
    mime, _, data = url.removeprefix("data:").partition(";base64,") if url.startswith("data:") else ("", "", url)
    kind = mime or next((kind for magic, kind in _MAGIC.items() if data.startswith(magic)), "an unknown type")
    return f"{kind}, {len(data.rstrip('=')) * 3 // 4} bytes"

"""Upstreams' token counts in our terms, or nothing at all where they cannot be believed.

Money is computed from these numbers, so a count that is not a plain non-negative integer, is larger than any window, or
contradicts another one refuses the whole object; who asked then counts locally and marks the record as estimated.
`read` takes the object untyped, because a strange one must not make the reply around it unreadable. `Counts` is one
without strangeness, decoded in C together with its reply, and `of_counts` does the same for it in a third of the steps.

Sources (seen 2026-11): DeepSeek `prompt_cache_hit_tokens`; Moonshot `cached_tokens` at top level; Zhipu, DashScope and
MiniMax `prompt_tokens_details.cached_tokens`; DashScope `cache_creation_input_tokens` there too, and `input_tokens` and
`output_tokens` in its native form. Everywhere cached and written tokens are part of `prompt_tokens`, and reasoning
tokens of `completion_tokens`.
"""

from dataclasses import dataclass
from typing import Any, Final

from msgspec import UNSET

from vipcloud.dialects.openai import CompletionDetails, PromptDetails, Usage
from vipcloud.dialects.tokens import Tokens
from vipcloud.providers.wire import Counts

TOKENS_MAX: Final = 1 << 24  # sixteen times the largest window on offer


@dataclass(slots=True)
class TextSize:
    """How much text: its characters, and its bytes as UTF-8."""

    chars: int = 0
    utf8_bytes: int = 0

    def add(self, text: str) -> None:
        self.chars += len(text)
        self.utf8_bytes += utf8_bytes(text)


def utf8_bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


class GrowingText:
    """A text in the pieces in which it was sent, measured when asked: who sends thousands only appends to `pieces`."""

    __slots__ = ("_joined", "pieces")

    def __init__(self) -> None:
        self.pieces: list[str] = []
        self._joined: tuple[list[str], TextSize] | None = None  # texts made of pieces, and their size in all

    def join(self) -> tuple[list[str], TextSize]:
        """Make one text of the pieces so far: many small ones take ten times the memory."""
        joined = self._joined
        if joined is None:
            joined = self._joined = [], TextSize()
        if self.pieces:
            text = "".join(self.pieces)
            self.pieces.clear()
            joined[0].append(text)
            joined[1].add(text)
        return joined

    @property
    def size(self) -> TextSize:
        _, size = self.join()
        return TextSize(size.chars, size.utf8_bytes)

    @property
    def text(self) -> str:
        texts, _ = self.join()
        return "".join(texts)


@dataclass(slots=True)
class Delivered:
    """What a caller was given of an answer. `content` includes refusals, `calls` the functions' names."""

    content: TextSize
    reasoning: TextSize
    calls: TextSize


def of(
    prompt_tokens: int,
    completion_tokens: int,
    *,
    cached_tokens: int = 0,
    cache_write_tokens: int = 0,
    reasoning_tokens: int = 0,
) -> Usage:
    """Usage as we render it, with its total and every detail."""
    return Usage(
        prompt_tokens=prompt_tokens,
        completion_tokens=completion_tokens,
        total_tokens=prompt_tokens + completion_tokens,
        prompt_tokens_details=PromptDetails(cached_tokens, cache_write_tokens=cache_write_tokens or UNSET),
        completion_tokens_details=CompletionDetails(reasoning_tokens=reasoning_tokens),
    )


def with_prompt_of(first: Usage, last: Usage) -> Usage:
    """The answer of `last` to the prompt of `first`."""
    return Usage(
        prompt_tokens=first.prompt_tokens,
        completion_tokens=last.completion_tokens,
        total_tokens=first.prompt_tokens + last.completion_tokens,
        prompt_tokens_details=first.prompt_tokens_details,
        completion_tokens_details=last.completion_tokens_details,
    )


def read(wire: Any, tokens_max: int = TOKENS_MAX, *, output_seen: bool = False) -> Usage | None:
    """`wire` is the decoded `usage` of a reply or chunk. None if it is missing, incomplete or absurd.

    No prompt is empty, so `prompt_tokens: 0` is the filler of a running stream (MiniMax) and not a count; neither is
    `completion_tokens: 0` after output was seen. The total is ours: it is never read.
    """
    if type(wire) is not dict:
        return None
    prompt = _count(wire.get("prompt_tokens", wire.get("input_tokens")), tokens_max)
    completion = _count(wire.get("completion_tokens", wire.get("output_tokens")), tokens_max)
    if not prompt or completion is None or (output_seen and not completion):
        return None
    inputs, outputs = wire.get("prompt_tokens_details"), wire.get("completion_tokens_details")
    cached = _part(prompt, wire.get("prompt_cache_hit_tokens"), _at(inputs, "cached_tokens"), wire.get("cached_tokens"))
    name = "cache_creation_input_tokens"
    written = _part(prompt, _at(inputs, name), wire.get(name))
    reasoning = _part(completion, _at(outputs, "reasoning_tokens"))
    if cached is None or written is None or reasoning is None or cached + written > prompt:
        return None
    return of(prompt, completion, cached_tokens=cached, cache_write_tokens=written, reasoning_tokens=reasoning)


def of_counts(counts: Counts, tokens_max: int) -> Tokens | None:
    """As `read` with `output_seen`."""
    prompt, completion, cached, reasoning = counts_of(counts)
    return believed(prompt, completion, cached, reasoning, tokens_max)


def counts_of(counts: Counts) -> tuple[int, int, int, int]:
    """The tokens of the prompt and the completion, and those of them that were cached and spent on reasoning."""
    cached = counts.prompt_cache_hit_tokens
    if cached is None:
        details = counts.prompt_tokens_details
        cached = counts.cached_tokens if details is None or details.cached_tokens is None else details.cached_tokens
        if cached is None:
            cached = 0
    output = counts.completion_tokens_details
    reasoning = 0 if output is None else output.reasoning_tokens or 0
    return counts.prompt_tokens, counts.completion_tokens, cached, reasoning


def believed(prompt: int, completion: int, cached: int, reasoning: int, tokens_max: int) -> Tokens | None:
    """What was told, unless it contradicts itself or is too much."""
    if cached > prompt or reasoning > completion or prompt > tokens_max or completion > tokens_max:
        return None
    return Tokens(prompt, completion, cached, 0, reasoning)


def is_filler(wire: Any) -> bool:
    """Whether `wire` counts nothing: null, empty or zeros, as MiniMax puts on every chunk."""
    if not isinstance(wire, dict):
        return True
    get = wire.get
    return not (get("prompt_tokens") or get("completion_tokens") or get("total_tokens") or get("input_tokens"))


def _at(details: Any, name: str) -> Any:
    return details.get(name) if isinstance(details, dict) else None


def _part(whole: int, *spellings: Any) -> int | None:
    """The first of a part's `spellings` that is there and not null, 0 without one; None if it is no part of `whole`."""
    for spelling in spellings:
        if spelling is not None:
            return _count(spelling, whole)
    return 0


def _count(value: Any, tokens_max: int) -> int | None:
    return value if type(value) is int and 0 <= value <= tokens_max else None  # a bool is an int, but no count

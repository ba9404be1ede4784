"""Counting, as the pretend model does it. PURE.

A token is a word of up to 16 ASCII letters or a number of up to 3 digits (each with the space before it), a run of
blanks, a run of line ends, or any other single character. Joining the pieces of a text gives the text back.
"""

import re
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

from vipcloud.simulators.script import encode

IMAGE_TOKENS = 85
MESSAGE_TOKENS = 4  # what the chat template adds to each message
COUNTED_EXACTLY_MAX = 65536  # characters; a longer text is counted by its beginning

_PIECE = re.compile(r" ?[a-zA-Z]{1,16}| ?[0-9]{1,3}|[ \t]+|\n+|.", re.DOTALL)


def pieces(text: str) -> list[str]:
    return _PIECE.findall(text)


def count(text: str) -> int:
    """Tokens of `text`; beyond `COUNTED_EXACTLY_MAX` characters the beginning stands for the whole."""
    if len(text) <= COUNTED_EXACTLY_MAX:
        return len(_PIECE.findall(text))
    return len(_PIECE.findall(text[:COUNTED_EXACTLY_MAX])) * len(text) // COUNTED_EXACTLY_MAX


def message_tokens(message: Mapping[str, Any], image_tokens: int = IMAGE_TOKENS) -> int:
    total = MESSAGE_TOKENS
    content = message.get("content")
    if isinstance(content, str):
        total += count(content)
    elif isinstance(content, list):
        total += sum(_part_tokens(part, image_tokens) for part in content)
    if calls := message.get("tool_calls"):
        total += count(encode(calls).decode())
    return total


def _part_tokens(part: Any, image_tokens: int) -> int:
    text = part.get("text") if isinstance(part, Mapping) else None
    return count(text) if isinstance(text, str) else image_tokens


class PrefixCache:
    """Which beginnings of conversations an account has sent before, and how many tokens they had.

    Only whole messages count, in steps of `block_tokens`. Holds the newest `entries_max` beginnings.
    """

    def __init__(self, block_tokens: int = 64, entries_max: int = 4096) -> None:
        self._block_tokens = block_tokens
        self._entries_max = entries_max
        self._known: OrderedDict[int, None] = OrderedDict()

    def hit(self, account: str, tools: Any, messages: Sequence[Mapping[str, Any]]) -> int:
        """Tokens of the longest known beginning; all beginnings of `messages` are known from now on."""
        total = tools_tokens(tools)
        mark = hash((account, encode(tools) if tools else b""))
        cached = 0
        for message in messages:
            mark = hash((mark, _identity(message)))
            total += message_tokens(message)
            if mark in self._known:
                cached = total
            self._known[mark] = None
            self._known.move_to_end(mark)
        while len(self._known) > self._entries_max:
            self._known.popitem(last=False)
        return cached // self._block_tokens * self._block_tokens


def _identity(message: Mapping[str, Any]) -> object:
    content = message.get("content")
    if isinstance(content, str) and len(message) == 2:
        return message.get("role"), content
    return encode(message)


def tools_tokens(tools: Any) -> int:
    return count(encode(tools).decode()) if tools else 0

"""The wire examples of `tests/examples`, and what makes an answer look like one of them.

Texts, counts and ids differ between an example and a simulator's answer. What must be the same is the shape: which keys
there are and in which order of events, what is null, what is an empty string, and words that have a meaning.
"""

import itertools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[1] / "examples"
WORDS = frozenset(("finish_reason", "object", "role", "type", "code", "system_fingerprint"))


@dataclass(frozen=True)
class Example:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def shape(self) -> Any:
        return shape(json.loads(self.body))

    @property
    def shapes(self) -> list[Any]:
        return shapes(self.body)


def example(name: str) -> Example:
    """`moonshot/stream.sse` or `moonshot/whole.http`."""
    data = (FOLDER / name).read_bytes()
    if name.endswith(".sse"):
        return Example(200, {}, data)
    head, _, body = data.partition(b"\n\n")
    first, *lines = head.decode().split("\n")
    headers = dict(line.split(": ", 1) for line in lines)
    return Example(int(first.split()[1]), headers, body.strip())


def shape(value: Any, key: str = "") -> Any:
    match value:
        case dict():
            return {name: shape(below, name) for name, below in value.items()}
        case list():
            return [shape(below) for below in value]
        case str() if value and key not in WORDS:
            return "some text"
        case int() | float() if not isinstance(value, bool):
            return "a number"
    return value


def shapes(body: bytes) -> list[Any]:
    """What the data of each event looks like; of a run of events that look alike, one."""
    found = []
    for line in body.decode().split("\n"):
        if line.startswith("data:"):
            data = line.removeprefix("data:").strip()
            found.append(data if data == "[DONE]" else shape(json.loads(data)))
    return [one for one, _ in itertools.groupby(found)]

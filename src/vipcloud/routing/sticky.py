"""Which account a conversation went to last, as a value: an upstream's prompt cache is warm there and nowhere else."""

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass, field


@dataclass(slots=True)
class Sticky:
    """Bounded, and forgotten after `idle_s`. Times are in the monotonic clock's seconds."""

    entries_max: int
    idle_s: float
    _entries: OrderedDict[Hashable, tuple[object, float]] = field(default_factory=OrderedDict)

    def __len__(self) -> int:
        return len(self._entries)

    def find(self, key: Hashable, now_s: float) -> object | None:
        """What `key` was bound to; None if that is too long ago."""
        found = self._entries.get(key)
        if found is None:
            return None
        bound, seen_s = found
        if now_s - seen_s > self.idle_s:
            del self._entries[key]
            return None
        return bound

    def bind(self, key: Hashable, bound: object, now_s: float) -> None:
        """Remember, and make room: the longest unused goes first."""
        entries = self._entries
        entries[key] = (bound, now_s)
        entries.move_to_end(key)
        while len(entries) > self.entries_max:
            entries.popitem(last=False)
        _, (_, oldest_s) = next(iter(entries.items()))
        if now_s - oldest_s > self.idle_s:
            entries.popitem(last=False)

"""Small limits for the console's own forms, in memory: so many per key in any window of time."""

from collections import deque

KEYS_MAX = 10_000


class Window:
    """Admits `most` per key in any `window_s` seconds. A restart forgets: what must not is counted in the store."""

    def __init__(self, most: int, window_s: float) -> None:
        self._most = most
        self._window_s = window_s
        self._seen: dict[str, deque[float]] = {}

    def admits(self, key: str, now_s: float) -> bool:
        seen = self._seen.setdefault(key, deque())
        while seen and seen[0] <= now_s - self._window_s:
            seen.popleft()
        if len(seen) >= self._most:
            return False
        seen.append(now_s)
        if len(self._seen) > KEYS_MAX:
            self._seen.pop(next(iter(self._seen)))
        return True

"""How much an account has used lately, for limits per minute, second and day. PURE."""

import math
from collections import deque


class Window:
    """Amounts of the last `span_s` seconds, by account. Holds nothing of accounts that have used nothing since."""

    def __init__(self, span_s: float = 60.0) -> None:
        self._span_s = span_s
        self._entries: dict[str, deque[tuple[float, int]]] = {}

    def used(self, account: str, now_s: float) -> int:
        entries = self._entries.get(account)
        if entries is None:
            return 0
        while entries and entries[0][0] <= now_s - self._span_s:
            entries.popleft()
        if not entries:
            del self._entries[account]
        return sum(amount for _, amount in entries)

    def add(self, account: str, now_s: float, amount: int = 1) -> None:
        self._entries.setdefault(account, deque()).append((now_s, amount))

    def wait_s(self, account: str, now_s: float, most: int, amount: int = 1) -> int:
        """0 where `amount` more fits within `most`; else whole seconds until the oldest amount leaves."""
        if self.used(account, now_s) + amount <= most:
            return 0
        entries = self._entries.get(account)
        oldest_s = entries[0][0] if entries else now_s
        return max(1, math.ceil(oldest_s + self._span_s - now_s))

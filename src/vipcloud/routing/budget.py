"""How many extra tries all requests together may have, as a value: a share of the requests, and a few a second.

Without it an upstream's outage would multiply the load on what is left of it by the tries of each request.
"""

from dataclasses import dataclass

from vipcloud.settings import RetrySettings


@dataclass(slots=True)
class RetryBudget:
    """`requests` is counted up by whoever serves one; all else is worked out when a try is asked for."""

    rules: RetrySettings
    requests: int = 0
    _left: float = -1.0  # below zero: not begun
    _seen_requests: int = 0
    _seen_s: float = 0.0

    def take(self, now_s: float) -> bool:
        """Whether one more try may be made."""
        rules = self.rules
        if self._left < 0:
            self._left = float(rules.burst)
        else:
            earned = (self.requests - self._seen_requests) * rules.share + (now_s - self._seen_s) * rules.per_s
            self._left = min(float(rules.burst), self._left + earned)
        self._seen_requests, self._seen_s = self.requests, now_s
        if self._left < 1:
            return False
        self._left -= 1
        return True

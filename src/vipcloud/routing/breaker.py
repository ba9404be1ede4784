"""A circuit breaker for one model at one of our accounts, as a value: closed, open, or on trial.

Theory of operation. A breaker opens on failures in a row, or when too large a share of a window's calls fail. While it
is open, routing passes the route by. When its interval is over, one request goes there as a probe and the breaker is on
trial: one call at a time until its first token, and the first failure opens it again for twice as long. So a route
that flaps costs one failed attempt per interval, and one that has recovered has its traffic back after a few calls.
The interval grows up to its maximum, and falls back to the first when the route has been closed for that long.

Where no other route can serve, nothing is gained by passing the last one by: see `force`, and `alone` in
`note_failure`.

Each attempt remembers the `epoch` it began in: what comes of calls from before the breaker opened says nothing about
what has changed since. `troubled` is False while there is nothing to remember, and then nobody need ask or tell.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from vipcloud.settings import BreakerSettings

BreakerState = Literal["closed", "open", "trial"]


@dataclass(slots=True)
class Breaker:
    """Times are in the monotonic clock's seconds. `jitter` returns numbers of [0, 1)."""

    rules: BreakerSettings
    jitter: Callable[[], float]
    troubled: bool = False
    state: BreakerState = "closed"
    epoch: int = 0
    open_until_s: float = 0.0
    opened: int = 0  # times in all
    _interval_s: float = 0.0
    _closed_s: float = 0.0
    _failures_in_row: int = 0
    _window_s: float = 0.0  # when it began
    _window_failures: int = 0
    _window_successes: int = 0
    _trial_left: int = 0
    _probe_until_s: float = 0.0  # a probe is under way, until then at the latest

    def usable(self, now_s: float) -> bool:
        """Whether `begin` would let a call through."""
        return self.state == "closed" or (now_s >= self.open_until_s and now_s >= self._probe_until_s)

    @property
    def due(self) -> bool:
        """Whether a call that is let through is a probe."""
        return self.state != "closed"

    def begin(self, now_s: float) -> bool:
        """Let a call through, or not. One that is must come to one of the notes, or to `release`."""
        if self.state == "closed":
            return True
        if not self.usable(now_s):
            return False
        self._start_trial()
        self._probe_until_s = now_s + max(self._interval_s, self.rules.interval_s)
        return True

    def force(self, now_s: float) -> bool:
        """`begin` for the only route there is: an open breaker lets one call at a time through, a trial all."""
        if self.state != "open":
            return True
        if now_s < self._probe_until_s:
            return False
        self._probe_until_s = now_s + self.rules.interval_s
        return True

    def release(self, epoch: int) -> None:
        """A call that was let through ended without a verdict: its client left, or its request was at fault."""
        if epoch == self.epoch:
            self._probe_until_s = 0.0

    def note_alive(self, epoch: int) -> None:
        """The first token has come: the next probe need not wait for the last."""
        self.release(epoch)

    def note_success(self, now_s: float, epoch: int) -> None:
        """A whole answer."""
        if not self.troubled or epoch != self.epoch:
            return
        self._failures_in_row = 0
        if self.state == "closed":
            self._window_successes += 1
            if now_s - self._window_s > self.rules.window_s:
                self._window_failures = 0
                self.troubled = now_s - self._closed_s < self.rules.interval_max_s and self._interval_s > 0
            return
        if self.state == "open":
            self._start_trial()
        self._probe_until_s = 0.0
        self._trial_left -= 1
        if self._trial_left <= 0:
            self.state = "closed"
            self._closed_s = self._window_s = now_s
            self._window_failures = self._window_successes = 0

    def note_failure(self, now_s: float, epoch: int, weight: int = 1, *, alone: bool = False) -> None:
        """A failure that is the upstream's. `alone`: no other route could serve, so only failures in a row count."""
        if epoch != self.epoch:
            return
        self.troubled = True
        self._failures_in_row += weight
        if self.state == "closed":
            self._count_failure(now_s)
            if self._failures_in_row >= self.rules.failures_in_row or (not alone and self._rate_too_high()):
                self.trip(now_s)
        elif self.state == "open":
            self._probe_until_s = 0.0
            if now_s >= self.open_until_s:
                self.trip(now_s)
        elif not alone or self._failures_in_row >= self.rules.failures_in_row:
            self.trip(now_s)
        else:
            self._probe_until_s = 0.0

    def trip(self, now_s: float) -> None:
        """Open now."""
        rules = self.rules
        calm = self.state == "closed" and now_s - self._closed_s >= rules.interval_max_s
        if self._interval_s == 0.0 or calm:
            self._interval_s = rules.interval_s
        else:
            self._interval_s = min(rules.interval_max_s, 2 * self._interval_s)
        self.troubled = True
        self.state = "open"
        self.epoch += 1
        self.opened += 1
        self.open_until_s = now_s + self._interval_s * (1 + rules.jitter * self.jitter())
        self._probe_until_s = 0.0
        self._failures_in_row = self._window_failures = self._window_successes = 0

    def reset(self) -> None:
        """Close it by hand, and forget."""
        self.state = "closed"
        self.troubled = False
        self.epoch += 1
        self.open_until_s = self._probe_until_s = self._interval_s = 0.0
        self._failures_in_row = self._window_failures = self._window_successes = 0

    def free_in_s(self, now_s: float) -> float:
        """Seconds until it may let a call through."""
        if self.state == "closed":
            return 0.0
        return max(0.0, self.open_until_s - now_s, self._probe_until_s - now_s)

    def _start_trial(self) -> None:
        if self.state == "open":
            self.state = "trial"
            self._trial_left = self.rules.trial_successes

    def _count_failure(self, now_s: float) -> None:
        if self._window_failures == 0 or now_s - self._window_s > self.rules.window_s:
            self._window_s = now_s
            self._window_failures = self._window_successes = 0
        self._window_failures += 1

    def _rate_too_high(self) -> bool:
        calls = self._window_failures + self._window_successes
        return calls >= self.rules.window_calls_min and self._window_failures >= self.rules.failure_share * calls

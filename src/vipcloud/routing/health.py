"""What we know of one of our accounts at a provider, as a value: active, cooling, suspended, removed or drained.

Limits and balances are per account at every provider, not per key (providers' sheets). A model that an account may not
use is noted apart.
"""

from dataclasses import dataclass, field
from typing import Literal

AccountEffect = Literal["cooling", "suspended", "removed", "no_access"]
AccountStatus = Literal["active", "cooling", "suspended", "removed", "no_access", "drained"]

COOLING_FIRST_S = 1.0
COOLING_MAX_S = 60.0
SUSPENDED_S = 600.0  # then it counts as active again: the operator may have topped up
REMOVED_S = 60.0  # what a caller is told to wait for: only the operator can mend it


@dataclass(slots=True)
class AccountHealth:
    """Times are in the monotonic clock's seconds.

    `per_model` says how the provider limits: an account that is throttled for one model rests for that model only.
    `reason` is for the operator: what sort of failure it was, in our words.
    """

    per_model: bool = False
    suspended_until_s: float = 0.0
    removed: bool = False
    drained: bool = False
    closed_models: set[str] = field(default_factory=set)
    reason: str = ""
    _cooling_until_s: dict[str, float] = field(default_factory=dict)
    _coolings: dict[str, int] = field(default_factory=dict)  # in a row

    @property
    def troubled(self) -> bool:
        """Whether there is anything that `status` has to look at."""
        return bool(self._coolings or self.suspended_until_s or self.removed or self.drained or self.closed_models)

    def note(
        self, effect: AccountEffect | None, model: str, now_s: float, retry_after_s: float | None, why: str
    ) -> None:
        """Take in what a failure says about the account."""
        if effect is None:
            return
        self.reason = why
        if effect == "removed":
            self.removed = True
        elif effect == "no_access":
            self.closed_models.add(model)
        elif effect == "suspended":
            self.suspended_until_s = now_s + (retry_after_s or SUSPENDED_S)
        else:
            scope = model if self.per_model else ""
            count = self._coolings[scope] = self._coolings.get(scope, 0) + 1
            backoff_s = min(COOLING_MAX_S, COOLING_FIRST_S * 2 ** (count - 1))
            self._cooling_until_s[scope] = now_s + min(COOLING_MAX_S, retry_after_s or backoff_s)

    def note_success(self, model: str, now_s: float) -> None:
        """The account works after all. It goes on resting while it is throttled: what has just ended began earlier."""
        scope = model if self.per_model else ""
        if now_s >= self._cooling_until_s.get(scope, 0.0):
            self._coolings.pop(scope, None)
            self._cooling_until_s.pop(scope, None)
        self.closed_models.discard(model)
        self.suspended_until_s = 0.0
        self.removed = False
        self.reason = ""

    def revive(self) -> None:
        """By hand: forget all that is held against it."""
        self._coolings.clear()
        self._cooling_until_s.clear()
        self.closed_models.clear()
        self.suspended_until_s = 0.0
        self.removed = False
        self.reason = ""

    def status(self, model: str, now_s: float) -> AccountStatus:
        if self.drained:
            return "drained"
        if self.removed:
            return "removed"
        if model in self.closed_models:
            return "no_access"
        if now_s < self.suspended_until_s:
            return "suspended"
        return "cooling" if now_s < self._cooling_until(model) else "active"

    def free_in_s(self, model: str, now_s: float) -> float:
        """Seconds until it may be asked again for `model`."""
        if self.removed or self.drained or model in self.closed_models:
            return REMOVED_S
        return max(0.0, self._cooling_until(model) - now_s, self.suspended_until_s - now_s)

    def _cooling_until(self, model: str) -> float:
        return self._cooling_until_s.get(model if self.per_model else "", 0.0)

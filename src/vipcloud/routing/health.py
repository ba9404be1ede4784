"""What we know of one of our accounts at a provider, as a value: active, cooling, suspended or removed.

Limits and balances are per account at every provider, not per key (providers' sheets), so a key's trouble is taken as
its account's. A model that an account may not use is noted apart.
"""

from dataclasses import dataclass, field
from typing import Literal

AccountEffect = Literal["cooling", "suspended", "removed", "no_access"]
AccountStatus = Literal["active", "cooling", "suspended", "removed"]

COOLING_FIRST_S = 1.0
COOLING_MAX_S = 60.0
SUSPENDED_S = 600.0  # then one request may try again: the operator may have topped up


@dataclass(slots=True)
class AccountHealth:
    """Times are in the monotonic clock's seconds.

    `per_model` says how the provider limits: an account that is throttled for one model rests for that model only.
    """

    per_model: bool = False
    suspended_until_s: float = 0.0
    removed: bool = False
    closed_models: set[str] = field(default_factory=set)
    reason: str = ""
    _cooling_until_s: dict[str, float] = field(default_factory=dict)
    _coolings: dict[str, int] = field(default_factory=dict)  # in a row

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

    def note_success(self, model: str) -> None:
        """The account works after all."""
        if self._coolings or self.suspended_until_s:
            scope = model if self.per_model else ""
            self._coolings.pop(scope, None)
            self._cooling_until_s.pop(scope, None)
            self.suspended_until_s = 0.0
            self.reason = ""

    def status(self, model: str, now_s: float) -> AccountStatus:
        if self.removed:
            return "removed"
        if now_s < self.suspended_until_s:
            return "suspended"
        return "cooling" if now_s < self._cooling_until(model) else "active"

    def serves(self, model: str) -> bool:
        return not self.removed and model not in self.closed_models

    def free_in_s(self, model: str, now_s: float) -> float:
        """Seconds until it may be asked again for `model`."""
        return max(0.0, self._cooling_until(model) - now_s, self.suspended_until_s - now_s)

    def _cooling_until(self, model: str) -> float:
        return self._cooling_until_s.get(model if self.per_model else "", 0.0)

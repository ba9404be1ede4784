"""What the data plane is made of, built once by `cli.serve` and passed to every request."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from vipcloud.accounts.directory import Account, Directory
from vipcloud.clock import Clock
from vipcloud.gateway.upstreams import Upstreams
from vipcloud.http.deadlines import Deadlines
from vipcloud.ledger.journal import Journal
from vipcloud.limits.guard import Guard
from vipcloud.limits.rules import Limits
from vipcloud.providers.catalog import Catalog
from vipcloud.settings import Settings, TierSettings

KNOWN_LIMITS_MAX = 10_000  # combinations of tier and own numbers


class Tiers:
    """What an account may do: its own numbers, or else its tier's; one that the settings do not know counts as payg."""

    def __init__(self, tiers: Mapping[str, TierSettings]) -> None:
        self._tiers = tiers
        self._known: dict[tuple[str, int | None, int | None, int | None], Limits] = {}

    def limits(self, account: Account) -> Limits:
        key = (account.tier, account.rpm, account.rpd, account.concurrency)
        return self._known.get(key) or self._resolve(*key)

    def _resolve(self, name: str, rpm: int | None, rpd: int | None, concurrency: int | None) -> Limits:
        tier = self._tiers.get(name) or self._tiers["payg"]
        found = Limits(
            tier.rpm if rpm is None else rpm,
            tier.rpd if rpd is None else rpd,
            tier.concurrency if concurrency is None else concurrency,
        )
        if len(self._known) < KNOWN_LIMITS_MAX:
            self._known[name, rpm, rpd, concurrency] = found
        return found


@dataclass(slots=True)
class Parts:
    """`catalog` is the one in force; a reload replaces it and leaves requests under way on the former."""

    settings: Settings
    clock: Clock
    catalog: Catalog
    directory: Directory
    guard: Guard
    journal: Journal
    upstreams: Upstreams
    deadlines: Deadlines
    tiers: Tiers = field(init=False)

    def __post_init__(self) -> None:
        self.tiers = Tiers(self.settings.tiers)

"""What the data plane is made of, built once by `cli.serve` and passed to every request."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_network
from typing import TYPE_CHECKING

from vipcloud.accounts.directory import Directory, Principal
from vipcloud.clock import Clock
from vipcloud.dialects.shapes import Shapes
from vipcloud.errors import SettingsError
from vipcloud.gateway.counting import TokenCounter
from vipcloud.gateway.idempotency import Idempotency
from vipcloud.gateway.progress import ProgressNotes
from vipcloud.gateway.pulse import Pulse
from vipcloud.gateway.upstreams import Upstreams
from vipcloud.gateway.visitors import Visitors
from vipcloud.http.addresses import Network
from vipcloud.http.deadlines import Deadlines
from vipcloud.ledger.journal import Journal
from vipcloud.limits.guard import Guard, Purse, Subject
from vipcloud.limits.rules import NO_LIMITS, Limits, Meter
from vipcloud.providers.models import Catalog
from vipcloud.settings import Settings, TierSettings
from vipcloud.telemetry.figures import Figures

if TYPE_CHECKING:  # OpenTelemetry is an extra
    from vipcloud.telemetry.traces import Tracing


class Tiers:
    """What an account may do: its own numbers, or else its tier's; one that the settings do not know counts as payg."""

    def __init__(self, tiers: Mapping[str, TierSettings]) -> None:
        self._tiers = tiers

    def subject(self, principal: Principal) -> Subject:
        """What a caller is counted by; kept with the key until its account changes."""
        subject = principal.subject
        if subject is None or principal.subject_version != principal.account.version:
            subject = principal.subject = self._subject(principal)
            principal.subject_version = principal.account.version
        return subject

    def _subject(self, principal: Principal) -> Subject:
        account = principal.account
        tier = self._tiers.get(account.tier) or self._tiers["payg"]
        limits = Limits(
            tier.rpm if account.rpm is None else account.rpm,
            tier.rpd if account.rpd is None else account.rpd,
            tier.concurrency if account.concurrency is None else account.concurrency,
        )
        meters: tuple[Meter, ...] = (Meter(account.id, limits, " for this account"),)
        purses: tuple[Purse, ...] = (account,)
        terms = principal.terms
        if terms is not None and principal.key_id is not None:
            if terms.limits != NO_LIMITS:
                meters = (Meter(principal.key_id, terms.limits, " for this key"), *meters)
            if terms.purse is not None:
                purses = (account, terms.purse)
        return Subject(meters, purses)


class Constants:
    """The settings that every request asks for, as compiled code reads them quickest."""

    def __init__(self, settings: Settings) -> None:
        gateway = settings.gateway
        self.strict_parameters = gateway.strict_parameters
        self.ping_stream_s = float(gateway.ping_stream_s)
        self.ping_unary_s = float(gateway.ping_unary_s)
        self.reply_bytes_max = gateway.reply_bytes_max
        self.total_s = float(settings.timeouts.total_s)


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
    progress: ProgressNotes
    counter: TokenCounter
    idempotency: Idempotency
    visitors: Visitors
    figures: Figures = field(default_factory=Figures)
    shapes: Shapes = field(default_factory=Shapes)
    tracing: "Tracing | None" = None
    pulse: Pulse = field(init=False)
    constants: Constants = field(init=False)
    tiers: Tiers = field(init=False)
    trusted_proxies: tuple[Network, ...] = field(init=False)

    def __post_init__(self) -> None:
        self.constants = Constants(self.settings)
        self.tiers = Tiers(self.settings.tiers)
        self.pulse = Pulse.of(self.settings, self.figures)
        try:
            self.trusted_proxies = tuple(map(ip_network, self.settings.server.trusted_proxies))
        except ValueError as error:
            raise SettingsError(f"server.trusted_proxies: {error}; say such as 127.0.0.1/32 or 10.0.0.0/8.") from error

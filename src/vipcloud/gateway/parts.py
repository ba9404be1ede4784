"""What the data plane is made of, built once by `cli.serve` and passed to every request."""

from dataclasses import dataclass

from vipcloud.accounts.directory import Directory
from vipcloud.clock import Clock
from vipcloud.gateway.upstreams import Upstreams
from vipcloud.http.deadlines import Deadlines
from vipcloud.ledger.journal import Journal
from vipcloud.limits.guard import Guard
from vipcloud.providers.catalog import Catalog
from vipcloud.settings import Settings


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

"""Values of the guard's that travel: between gateways, and to and from the store."""

from msgspec import Struct


class Caps(Struct, frozen=True, gc=False):
    """The most that may be spent per UTC day, per calendar month (UTC), and in all; None: no cap."""

    daily_nanousd: int | None = None
    monthly_nanousd: int | None = None
    total_nanousd: int | None = None


class Counts(Struct, frozen=True):
    """All that a guard in memory counts, as plain values, for the guard of another process on this machine.

    By meter: what was admitted in the window, requests by day, leases. By purse: what was charged, what is held, and
    charges by day. Times are of the monotonic clock, which the processes of a machine share.
    """

    meters: dict[str, tuple[list[float], dict[int, int], dict[str, float]]]
    purses: dict[str, tuple[int, int, dict[int, int]]]

"""Which route a request takes first, and which next: pure, over what the caller tells of each route."""

from collections.abc import Iterable
from typing import Protocol, TypeVar

from vipcloud.routing.health import AccountHealth


class Route(Protocol):
    """One way to serve a model: a candidate's place in the catalogue's order of preference, and one of our accounts.

    `model` is the upstream's name of the model; `running` counts the account's requests under way.
    """

    @property
    def preference(self) -> int: ...
    @property
    def model(self) -> str: ...
    @property
    def health(self) -> AccountHealth: ...
    @property
    def running(self) -> int: ...


R = TypeVar("R", bound=Route)


def order(routes: Iterable[R], now_s: float) -> list[R]:
    """Routes to try, the best first: active before resting, by preference, then the least loaded.

    Resting routes come last, the soonest free first, and are left out while an active one is there; with none active
    they are all there is, and a request on one is how its recovery is found. Removed accounts and models that an
    account may not use are never tried.
    """
    serving = [route for route in routes if route.health.serves(route.model)]
    if len(serving) < 2:
        return serving
    active = [route for route in serving if route.health.status(route.model, now_s) == "active"]
    if active:
        return sorted(active, key=lambda route: (route.preference, route.running))
    return sorted(serving, key=lambda route: (route.health.free_in_s(route.model, now_s), route.preference))

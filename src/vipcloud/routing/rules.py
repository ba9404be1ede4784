"""Which route a request takes first, and which next: pure, over what the caller tells of each route.

A route is *usable* while its account is active and its breaker lets calls through. Usable ones go in the order of
preference; among equals a breaker that waits for its probe goes first (one request finds out whether it has recovered),
then the account that the conversation is bound to, then the least loaded for its weight, then the one that is behind.

Where none is usable, the last resort is a route whose breaker, or whose account's suspension, may prove out of date:
see `Breaker.force`. An account that is throttled has said when it will serve again, so it is left alone until then,
and so is one that was drained by hand.
"""

from collections.abc import Iterable
from typing import Protocol, TypeVar

from vipcloud.routing.breaker import Breaker
from vipcloud.routing.health import AccountHealth

OUT_OF_SERVICE = ("suspended", "removed", "no_access")  # until someone acts


class Load(Protocol):
    """An account as routing sees it: how many requests run there, for which share of them."""

    @property
    def running(self) -> int: ...
    @property
    def weight(self) -> int: ...


class Route(Protocol):
    """One way to serve a model: a candidate's place in the catalogue's order of preference, and one of our accounts.

    `model` is the upstream's name of the model; `turn` is kept by `take_turn`.
    """

    turn: float

    @property
    def preference(self) -> int: ...
    @property
    def model(self) -> str: ...
    @property
    def account(self) -> Load: ...
    @property
    def health(self) -> AccountHealth: ...
    @property
    def breaker(self) -> Breaker: ...


R = TypeVar("R", bound=Route)


def usable(route: Route, now_s: float) -> bool:
    return route.health.status(route.model, now_s) == "active" and route.breaker.usable(now_s)


def order(routes: Iterable[R], now_s: float, bound: object | None = None, turn: float = 0.0) -> list[R]:
    """The usable routes, the best first.

    `bound` is the account that the conversation went to last, `turn` is what `take_turn` returned last.
    """
    found = [route for route in routes if usable(route, now_s)]
    if len(found) > 1:
        found.sort(
            key=lambda route: (
                route.preference,
                not route.breaker.due,
                route.account is not bound,
                route.account.running / route.account.weight,
                max(route.turn, turn),
            )
        )
    return found


def take_turn(route: Route, turn: float) -> float:
    """Count a request for `route`: of idle routes each has its turn, by weight, and what it missed while it rested is
    not made up for. (Start-time fair queueing: Goyal, Vin, Cheng, SIGCOMM 1996.)"""
    turn = max(route.turn, turn)
    route.turn = turn + 1 / route.account.weight
    return turn


def last_resort(routes: Iterable[R], now_s: float) -> R | None:
    """The route to try although none is usable; None if each is throttled, drained or being probed already."""
    found: list[R] = []
    for route in routes:
        status = route.health.status(route.model, now_s)
        if status == "active" or (status in OUT_OF_SERVICE and route.breaker.usable(now_s)):
            found.append(route)
    found.sort(key=lambda route: (route.breaker.free_in_s(now_s), route.preference))
    return next((route for route in found if route.breaker.force(now_s)), None)


def free_in_s(routes: Iterable[Route], now_s: float) -> float:
    """Seconds until the first of them may serve again; 0 if one may now, or if there are none."""
    return min((_free_in_s(route, now_s) for route in routes), default=0.0)


def _free_in_s(route: Route, now_s: float) -> float:
    breaker_s = route.breaker.free_in_s(now_s)
    if route.health.status(route.model, now_s) in OUT_OF_SERVICE:
        return breaker_s  # then it is the last resort
    return max(route.health.free_in_s(route.model, now_s), breaker_s)

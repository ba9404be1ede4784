"""What a caller wants of models and providers: OpenRouter's `models` and `provider`.

Names of providers are the catalogue's, as ids or as names for people, in any case. One that is not known here is passed
over: the same request may be meant for other hosts too. A model has one price here whoever serves it, so `sort: price`
changes nothing, and `max_price` decides whether a model may be taken at all.
"""

from collections.abc import Callable, Collection, Sequence
from decimal import Decimal
from typing import Protocol, TypeVar

from msgspec.structs import replace

from vipcloud.dialects.openai import ChatRequest, PriceLimit, ProviderOptions
from vipcloud.errors import NoProviderAllowed
from vipcloud.providers.models import Candidate
from vipcloud.providers.prices import Rates
from vipcloud.routing.pace import Pace

PICO_PER_DOLLAR_A_MILLION = 1_000_000  # pico-dollars a token


class Route(Protocol):
    """One way to serve a model, as a caller's wishes look at it."""

    @property
    def candidate(self) -> Candidate: ...
    @property
    def preference(self) -> int: ...
    @property
    def pace(self) -> Pace: ...


R = TypeVar("R", bound=Route)


def by_model(request: ChatRequest) -> list[ChatRequest]:
    """The same request for each model that the caller lists, the first one's first."""
    names = dict.fromkeys([request.model, *(request.models or ())])
    return [replace(request, model=name) for name in names]


def allowed(routes: Sequence[R], options: ProviderOptions, model: str) -> list[tuple[int, R]]:
    """The routes that the caller allows, each with its place in the caller's order. Raises NoProviderAllowed."""
    only, ignored = _names(options.only), _names(options.ignore)
    left = [
        route
        for route in routes
        if (options.only is None or _is_among(route, only)) and not (ignored and _is_among(route, ignored))
    ]
    if options.allow_fallbacks is False and options.order:
        wanted = _names(options.order)
        left = [route for route in left if _is_among(route, wanted)]
    placed = _placed(left, _rank(options))
    if options.allow_fallbacks is False and not options.order:
        placed = [(place, route) for place, route in placed if place == placed[0][0]]
    if not placed:
        raise NoProviderAllowed(f"None of the providers that `provider` allows serves the model '{model}'.")
    return placed


def check_price(limit: PriceLimit, rates: Rates, model: str) -> None:
    """Raises NoProviderAllowed if `rates` are above what the caller will pay."""
    for asked, rate in ((limit.prompt, rates.input), (limit.completion, rates.output)):
        if asked is not None and rate > Decimal(str(asked)) * PICO_PER_DOLLAR_A_MILLION:
            raise NoProviderAllowed(f"The model '{model}' costs more than `provider.max_price` allows.")


def _rank(options: ProviderOptions) -> Callable[[Route], float] | None:
    """What puts routes in the caller's order, the lowest first; of equals the catalogue's holds."""
    if options.order:
        order = {name: place for place, name in reversed(list(enumerate(map(str.casefold, options.order))))}
        return lambda route: min(order.get(name, len(order)) for name in _names_of(route))
    if options.sort == "latency":
        return lambda route: float("inf") if route.pace.first_token_s is None else route.pace.first_token_s
    if options.sort == "throughput":
        return lambda route: -(route.pace.tokens_per_s or 0.0)
    return None


def _placed(routes: Sequence[R], rank: Callable[[Route], float] | None) -> list[tuple[int, R]]:
    """The routes in order, each with its place; equals share one."""
    keyed = [((rank(route) if rank is not None else 0.0, route.preference), route) for route in routes]
    keyed.sort(key=lambda pair: pair[0])
    places = {key: place for place, key in enumerate(dict.fromkeys(key for key, _ in keyed))}
    return [(places[key], route) for key, route in keyed]


def _names(names: Sequence[str] | None) -> frozenset[str]:
    return frozenset(name.casefold() for name in names or ())


def _names_of(route: Route) -> tuple[str, str]:
    provider = route.candidate.provider
    return provider.id.casefold(), provider.name.casefold()


def _is_among(route: Route, names: Collection[str]) -> bool:
    return any(name in names for name in _names_of(route))

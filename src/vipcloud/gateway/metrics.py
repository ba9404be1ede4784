"""`GET /metrics`: the gateway's figures as Prometheus text.

What there is stands in `telemetry.families`. Nothing is done for a metric but when it is
asked for: what requests add up to is in `telemetry.figures`, the rest is looked up where it is. The answer is rendered
family by family, and between two of them the event loop goes on with what matters more.

Who may read it: whoever has `telemetry.metrics_token`; without one, who asks from this machine by no proxy, and only
while the gateway has no public address. A tunnel and a proxy on this machine come from here, too; but they say so. A
browser on this machine does, with the page of a website that has pointed its name here (DNS rebinding); but it asks by
that name.
"""

import asyncio
import hmac
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.core import Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from vipcloud.errors import RouteNotFound, Unauthenticated
from vipcloud.gateway.app import Route, same_origin_head
from vipcloud.gateway.call import Call
from vipcloud.gateway.parts import Parts
from vipcloud.gateway.upstreams import UpstreamAccount
from vipcloud.http import addresses
from vipcloud.http.headers import header_block
from vipcloud.http.server import HTTPServer
from vipcloud.ledger import bookkeeper
from vipcloud.settings import Settings
from vipcloud.telemetry.families import FAMILIES, STATUSES, Labels
from vipcloud.telemetry.figures import COMPLETE, Buckets, Kind, Slot

BREAKER_STATES = {"closed": 0, "trial": 1, "open": 2}
HANDED_ON = frozenset(name.encode() for name in addresses.HANDED_ON)
MS_PER_S = 1000

Values = Sequence[str]


class Exporter:
    """Looks up the figures. Belongs to the gateway's event loop, as all does that it looks at."""

    def __init__(self, parts: Parts, server: HTTPServer) -> None:
        self._parts = parts
        self._server = server

    def collect(self) -> Iterator[Metric]:
        """One family after the other, each with what there is at that moment."""
        for found in (self._requests, self._gen_ai, self._money, self._upstreams, self._process, self._books):
            yield from found()

    # --- what requests add up to

    def _requests(self) -> Iterator[Metric]:
        figures = self._parts.figures
        yield numbers(
            "vipcloud_requests",
            (((str(told.status), told.code, told.model, told.tier), n) for told, n in figures.answers().items()),
        )
        yield self._summed(
            "vipcloud_settled",
            lambda kind: (kind.outcome, kind.model, kind.tier),
            lambda slot: slot.requests,
        )
        kinds: dict[Labels, float] = {}
        for (model, _, _, tier), slot in figures.slots.items():
            for kind, count in (
                ("input", slot.input.total),
                ("cached_input", slot.cached_tokens),
                ("output", slot.output.total),
                ("reasoning", slot.reasoning_tokens),
            ):
                kinds[kind, model, tier] = kinds.get((kind, model, tier), 0) + count
        yield numbers("vipcloud_tokens", kinds.items())
        yield self._summed("vipcloud_estimated", _by_model_tier, lambda slot: slot.estimated)
        yield numbers("vipcloud_shed", (((tier,), n) for tier, n in figures.turned_away.items()))

    def _gen_ai(self) -> Iterator[Metric]:
        slots = self._parts.figures.slots
        durations, firsts, paces, tokens = ({} for _ in range(4))  # type: ignore[var-annotated]
        for (model, provider, outcome, _), slot in slots.items():
            base = ("chat", provider or "", model)
            error = "" if outcome == COMPLETE else outcome
            durations.setdefault((*base, error), []).append(slot.duration)
            firsts.setdefault(base, []).append(slot.first_token)
            paces.setdefault(base, []).append(slot.per_token)
            tokens.setdefault((*base, "input"), []).append(slot.input)
            tokens.setdefault((*base, "output"), []).append(slot.output)
        yield histograms("gen_ai_server_request_duration_seconds", durations, MS_PER_S)
        yield histograms("gen_ai_server_time_to_first_token_seconds", firsts, MS_PER_S)
        yield histograms("gen_ai_server_time_per_output_token_seconds", paces, MS_PER_S)
        yield histograms("gen_ai_client_token_usage", tokens, 1)

    def _money(self) -> Iterator[Metric]:
        yield self._summed("vipcloud_charged_nanousd", _by_model_tier, lambda slot: slot.charge_nanousd)
        yield self._summed("vipcloud_cost_nanousd", _by_model_provider, lambda slot: slot.cost_nanousd)
        yield self._summed("vipcloud_variance_nanousd", _by_model_provider, lambda slot: slot.variance_nanousd)
        wasted = self._parts.figures.wasted
        yield numbers("vipcloud_waste_nanousd", ((name, waste.cost_nanousd) for name, waste in wasted.items()))
        yield numbers("vipcloud_waste_calls", ((name, waste.calls) for name, waste in wasted.items()))
        yield numbers(
            "vipcloud_waste_tokens",
            [
                ((kind, *name), count)
                for name, waste in wasted.items()
                for kind, count in (("input", waste.input_tokens), ("output", waste.output_tokens))
            ],
        )

    def _summed(self, name: str, labels: Callable[[Kind], Labels], value: Callable[[Slot], float]) -> Metric:
        sums: dict[Labels, float] = {}
        for kind, slot in self._parts.figures.slots.items():
            found = labels(Kind(*kind))
            sums[found] = sums.get(found, 0) + value(slot)
        return numbers(name, sums.items())

    # --- how things stand

    def _upstreams(self) -> Iterator[Metric]:
        accounts, now_s = self._parts.upstreams.accounts, self._parts.clock.monotonic_s()
        called = [(kind, slot) for kind, slot in self._parts.figures.slots.items() if kind[1] is not None]
        calls: dict[Labels, float] = {}
        further: dict[Labels, float] = {}
        for (model, provider, _, _), slot in called:
            name = (model, provider or "")
            calls[name] = calls.get(name, 0) + slot.requests + slot.further_calls
            further[name] = further.get(name, 0) + slot.further_calls
        yield numbers("vipcloud_upstream_calls", calls.items())
        yield numbers("vipcloud_upstream_retries", further.items())
        yield numbers(
            "vipcloud_upstream_failures",
            [((one.id, *name), count) for one in accounts for name, count in one.failures.items()],
        )
        yield numbers("vipcloud_upstream_running", (((one.id,), one.running) for one in accounts))
        yield numbers(
            "vipcloud_upstream_keys",
            [
                ((one.id, state), len(keys))
                for one in accounts
                for state, keys in (("usable", one.keys), ("refused", one.refused_keys))
            ],
        )
        yield numbers("vipcloud_upstream_status", _statuses(accounts, now_s))
        breakers = [((one.id, model), breaker) for one in accounts for model, breaker in one.breakers.items()]
        yield numbers(
            "vipcloud_upstream_breaker_state", [(name, BREAKER_STATES[breaker.state]) for name, breaker in breakers]
        )
        yield numbers("vipcloud_upstream_breaker_opened", [(name, breaker.opened) for name, breaker in breakers])

    def _process(self) -> Iterator[Metric]:
        parts, server = self._parts, self._server
        yield histograms("vipcloud_loop_lag_seconds", {(): [parts.pulse.lags_ms]}, MS_PER_S)
        yield number("vipcloud_loop_lag_now_seconds", parts.pulse.lag_s)
        yield number("vipcloud_open_connections", len(server.connections))
        yield number("vipcloud_running_requests", len(server.running))
        yield number("vipcloud_open_streams", len(parts.progress))
        yield number("vipcloud_deadlines", len(parts.deadlines))
        yield number("vipcloud_draining", server.draining)
        yield number("vipcloud_guard_degraded", bool(parts.guard.degraded))
        yield number("vipcloud_changes_lag_seconds", parts.directory.lag_s)

    def _books(self) -> Iterator[Metric]:
        """The bookkeeper is another process: it leaves what it has to say in a file beside the journal."""
        yield number("vipcloud_journal_failing", self._parts.journal.failing)
        told = bookkeeper.status(self._parts.settings.journal_path)
        if told is None:
            return
        now_s = self._parts.clock.wall_s()
        yield number("vipcloud_journal_backlog_bytes", told.backlog_bytes)
        yield number("vipcloud_bookkeeper_lag_seconds", max(0.0, now_s - told.booked_until))
        yield number("vipcloud_bookkeeper_silence_seconds", max(0.0, now_s - told.at))
        yield number("vipcloud_bookkeeper_failing", bool(told.failing))
        if told.checked_at is not None:
            yield number("vipcloud_ledger_breaks", len(told.breaks))
            yield number("vipcloud_ledger_overdrawn", told.overdrawn)
            yield number("vipcloud_ledger_check_age_seconds", max(0.0, now_s - told.checked_at))


def _by_model_tier(kind: Kind) -> Labels:
    return kind.model, kind.tier


def _by_model_provider(kind: Kind) -> Labels:
    return kind.model, kind.provider or ""


def _statuses(accounts: Iterable[UpstreamAccount], now_s: float) -> Iterator[tuple[Labels, float]]:
    for account in accounts:
        for model in account.breakers:
            current = account.health.status(model, now_s)
            for status in STATUSES:
                yield (account.id, model, status), status == current


def number(name: str, value: float) -> Metric:
    return numbers(name, (((), value),))


def numbers(name: str, samples: Iterable[tuple[Values, float]]) -> Metric:
    """The family `name` with one value for each set of labels."""
    family = FAMILIES[name]
    metric = Metric(family.name, family.meaning, family.sort)
    for values, value in samples:
        metric.add_sample(family.shown, dict(zip(family.labels, values, strict=True)), float(value))
    return metric


def histograms(name: str, samples: Mapping[Labels, Sequence[Buckets]], unit: int) -> Metric:
    """The family `name` with one histogram for each set of labels, added up, in units of `unit` of ours.

    What never happened is left out.
    """
    family = FAMILIES[name]
    metric = Metric(family.name, family.meaning, family.sort)
    for values, parts in samples.items():
        labels = dict(zip(family.labels, values, strict=True))
        count = 0
        counts = [sum(column) for column in zip(*(part.counts for part in parts), strict=True)]
        if not any(counts):
            continue
        for bound, more in zip(
            (*(f"{bound / unit:g}" if unit > 1 else str(bound) for bound in parts[0].bounds), "+Inf"),
            counts,
            strict=True,
        ):
            count += more
            metric.add_sample(f"{name}_bucket", {**labels, "le": bound}, count)
        metric.add_sample(f"{name}_count", labels, count)
        metric.add_sample(f"{name}_sum", labels, sum(part.total for part in parts) / unit)
    return metric


class _One:
    """A registry of one family."""

    def __init__(self, metric: Metric) -> None:
        self._metric = metric

    def collect(self) -> Iterable[Metric]:
        return (self._metric,)


async def rendered(metrics: Iterable[Metric]) -> bytes:
    """All of them as Prometheus text; other work goes on between two."""
    parts = []
    for metric in metrics:
        parts.append(generate_latest(_One(metric)))
        await asyncio.sleep(0)
    return b"".join(parts)


def route(parts: Parts) -> Route:
    """`GET /metrics`."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    head = header_block([("content-type", CONTENT_TYPE_LATEST), ("cache-control", "no-store")])

    async def metrics(call: Call) -> None:
        call.head = same_origin_head(call.head)  # no page of another site may read it through a browser on this machine
        check_reader(call, parts.settings)
        exporter = Exporter(parts, call.exchange.connection.server)
        body = await rendered(exporter.collect()) + await rendered(registry.collect())
        call.exchange.respond(200, call.head + head, body)

    return metrics


def check_reader(call: Call, settings: Settings) -> None:
    """Raises Unauthenticated without the token, where there is one; else RouteNotFound for all but this machine."""
    token, headers = settings.telemetry.metrics_token.reveal(), call.exchange.headers
    if token:
        given = headers.get(b"authorization", b"")
        if not hmac.compare_digest(given.strip(), b"Bearer " + token.encode()):
            raise Unauthenticated("Metrics are shown to who sends telemetry.metrics_token as 'Authorization: Bearer'.")
        return
    host = headers.get(b"host", b"").decode("latin-1")
    local = addresses.is_loopback(call.exchange.peer) and addresses.names_loopback(host)
    if not local or settings.console.public_url or any(name in headers for name in HANDED_ON):
        raise RouteNotFound("Invalid URL (GET /metrics)")

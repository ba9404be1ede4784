"""What the gateway has served, counted where a request is settled and read only when somebody asks for metrics.

Every request comes by here, so this is integers and lists: one look-up finds the `Slot` of its kind, whose buckets are
lists made once. They are counted some at a time, for code that has just run is quicker, and before somebody reads.
Times are milliseconds, money nano-dollars. Bounds of buckets are OpenTelemetry's advice for generative AI
(opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-metrics, seen 2026-11).
"""

from collections.abc import Sequence
from typing import Final, NamedTuple, Protocol

from vipcloud.errors import GatewayError
from vipcloud.ledger.records import Settled

TOKENS: Final = tuple(4**power for power in range(14))
DURATION_MS: Final = tuple(10 * 2**power for power in range(14))
FIRST_TOKEN_MS: Final = (1, 5, 10, 20, 40, 60, 80, 100, 250, 500, 750, 1000, 2500, 5000, 7500, 10_000)
PER_TOKEN_MS: Final = (10, 25, 50, 75, 100, 150, 200, 300, 400, 500, 750, 1000, 2500)
LAG_MS: Final = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)
COMPLETE: Final = "complete"
WAITING_MAX: Final = 64
CLIENT_GONE: Final = "client_gone"
CLIENT_GONE_STATUS = 499  # nobody was told one; nginx' word for it


class Buckets:
    """A histogram: how many values were at most each of `bounds`, and above all of them; and their sum."""

    def __init__(self, bounds: tuple[int, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def note(self, value: float) -> None:
        place, counts = _place(self.bounds, value), self.counts
        counts[place] = counts[place] + 1  # compiled, `+=` would be an addition of objects
        self.total += value


def _place(bounds: tuple[int, ...], value: float) -> int:
    """The first of `bounds` that is not below `value`. Compiled, a loop over so few costs less than to call bisect."""
    place = 0
    for bound in bounds:
        if value <= bound:
            break
        place += 1
    return place


class Kind(NamedTuple):
    """What sort of request a slot counts; `provider` is None for one that no upstream was called for."""

    model: str
    provider: str | None
    outcome: str
    tier: str


class Slot:
    """All requests of one kind."""

    __slots__ = (
        "cached_tokens",
        "charge_nanousd",
        "cost_nanousd",
        "duration",
        "estimated",
        "first_token",
        "further_calls",
        "input",
        "output",
        "per_token",
        "reasoning_tokens",
        "requests",
        "variance_nanousd",
    )

    def __init__(self) -> None:
        self.duration = Buckets(DURATION_MS)
        self.input = Buckets(TOKENS)
        self.output = Buckets(TOKENS)
        self.first_token = Buckets(FIRST_TOKEN_MS)
        self.per_token = Buckets(PER_TOKEN_MS)
        self.requests = self.estimated = 0
        self.further_calls = 0  # beyond the first of each request; below 0 where there was not even one
        self.cached_tokens = self.reasoning_tokens = 0
        self.charge_nanousd = self.cost_nanousd = self.variance_nanousd = 0

    def note_end(self, duration_ms: int, attempts: int) -> None:
        self.requests += 1
        self.duration.note(duration_ms)
        if attempts != 1:
            self.further_calls += attempts - 1

    def note_tokens(self, prompt: int, cached: int, completion: int, reasoning: int, *, estimated: bool) -> None:
        self.input.note(prompt)
        self.output.note(completion)
        self.estimated += estimated
        self.cached_tokens += cached
        self.reasoning_tokens += reasoning

    def note_money(self, charge_nanousd: int, cost_nanousd: int, variance_nanousd: int) -> None:
        self.charge_nanousd += charge_nanousd
        self.cost_nanousd += cost_nanousd
        self.variance_nanousd += variance_nanousd

    def note_pace(self, duration_ms: int, first_token_ms: int, completion: int) -> None:
        """How quick a stream was."""
        self.first_token.note(first_token_ms)
        if completion > 1:
            self.per_token.note((duration_ms - first_token_ms) / (completion - 1))


class Ending:
    """How one request ended, as it is counted. `first_token_ms` is that of a stream; `prompt` is 0 if nothing came."""

    def __init__(
        self,
        model: str,
        provider: str | None,
        outcome: str,
        tier: str,
        duration_ms: int,
        first_token_ms: int | None,
        attempts: int,
        prompt: int,
        cached: int,
        completion: int,
        reasoning: int,
        estimated: bool,
        charge_nanousd: int,
        cost_nanousd: int,
        variance_nanousd: int,
    ) -> None:
        self.model = model
        self.provider = provider
        self.outcome = outcome
        self.tier = tier
        self.duration_ms = duration_ms
        self.first_token_ms = first_token_ms
        self.attempts = attempts
        self.prompt = prompt
        self.cached = cached
        self.completion = completion
        self.reasoning = reasoning
        self.estimated = estimated
        self.charge_nanousd = charge_nanousd
        self.cost_nanousd = cost_nanousd
        self.variance_nanousd = variance_nanousd


class Answer(NamedTuple):
    """How a request was answered; `model` and `tier` are empty where they were not known yet, `code` of a success."""

    status: int
    code: str
    model: str
    tier: str


class Waste:
    """What we pay for and nobody was charged: calls of which nothing was delivered."""

    def __init__(self) -> None:
        self.calls = self.input_tokens = self.output_tokens = self.cost_nanousd = 0


class ErrorWatcher(Protocol):
    """Whoever wants to be told of every error as well."""

    def note_error(self, error: GatewayError, request_id: str, model: str, tier: str) -> None: ...


class Watcher(ErrorWatcher, Protocol):
    """Whoever wants to be told of every single request as well."""

    def settled(self, record: Settled, tier: str) -> None: ...


class Figures:
    """Belongs to one event loop. `watchers` and `error_watchers` are told what is counted."""

    def __init__(self, watchers: Sequence[Watcher] = (), error_watchers: Sequence[ErrorWatcher] = ()) -> None:
        self._watchers = tuple(watchers)
        self._error_watchers = (*error_watchers, *watchers)
        self._slots: dict[tuple[str, str | None, str, str], Slot] = {}
        self._waiting: list[Ending] = []  # to be counted
        self.errors: dict[Answer, int] = {}
        self.wasted: dict[tuple[str, str], Waste] = {}  # by model and provider
        self.turned_away: dict[str, int] = {}  # by tier

    @property
    def slots(self) -> dict[tuple[str, str | None, str, str], Slot]:
        """By kind: the requests that were admitted and have ended."""
        self._count()
        return self._slots

    def ended(self, ending: Ending) -> None:
        self._waiting.append(ending)
        if len(self._waiting) >= WAITING_MAX:
            self._count()

    def _count(self) -> None:
        for ending in self._waiting:
            slot = self._slot(ending.model, ending.provider, ending.outcome, ending.tier)
            slot.note_end(ending.duration_ms, ending.attempts)
            if not ending.prompt:
                continue
            slot.note_tokens(
                ending.prompt, ending.cached, ending.completion, ending.reasoning, estimated=ending.estimated
            )
            slot.note_money(ending.charge_nanousd, ending.cost_nanousd, ending.variance_nanousd)
            if ending.first_token_ms is not None:
                slot.note_pace(ending.duration_ms, ending.first_token_ms, ending.completion)
        self._waiting.clear()

    def _slot(self, model: str, provider: str | None, outcome: str, tier: str) -> Slot:
        slot = self._slots.get((model, provider, outcome, tier))
        if slot is None:
            slot = self._slots[Kind(model, provider, outcome, tier)] = Slot()
        return slot

    def settled(self, record: Settled, tier: str) -> None:
        """Tell the watchers of a request that was counted."""
        for watcher in self._watchers:
            watcher.settled(record, tier)

    def note_error(self, error: GatewayError, request_id: str, model: str, tier: str) -> None:
        """Count an error that a caller was told, as a status or inside an answer that had begun."""
        for watcher in self._error_watchers:
            watcher.note_error(error, request_id, model, tier)
        answer = Answer(error.status, error.code, model, tier)
        self.errors[answer] = self.errors.get(answer, 0) + 1

    def lost(self, model: str, provider: str, input_tokens: int, output_tokens: int, cost_nanousd: int) -> None:
        """Count a call that we pay for, and of which nothing was delivered."""
        waste = self.wasted.setdefault((model, provider), Waste())
        waste.calls += 1
        waste.input_tokens += input_tokens
        waste.output_tokens += output_tokens
        waste.cost_nanousd += cost_nanousd

    def answers(self) -> dict[Answer, int]:
        """How requests were answered: those that ended well, those whose clients left, and the errors."""
        found: dict[Answer, int] = dict(self.errors)
        for (model, _, outcome, tier), slot in self.slots.items():
            if outcome == COMPLETE:
                answer = Answer(200, "", model, tier)
            elif outcome == CLIENT_GONE:
                answer = Answer(CLIENT_GONE_STATUS, CLIENT_GONE, model, tier)
            else:
                continue  # its caller was told an error
            found[answer] = found.get(answer, 0) + slot.requests
        return found

"""How a request's money is settled: once, synchronously, whatever has become of its coroutine.

`Bill.settle` awaits nothing, so no cancellation can come between the guard and the journal; whoever holds a bill calls
it on every way out. What each end costs whom is the table of `docs/architecture.md` (money).
"""

from typing import Literal

import structlog
from msgspec import Struct

from vipcloud.accounts.directory import Principal
from vipcloud.dialects.openai import Usage
from vipcloud.gateway.parts import Parts
from vipcloud.gateway.upstreams import Way
from vipcloud.ledger.journal import JournalError, Opened, Settled
from vipcloud.limits.guard import Permit
from vipcloud.metering import rules as metering
from vipcloud.money import NanoUSD
from vipcloud.providers.catalog import Candidate, Model
from vipcloud.providers.prices import Price

Outcome = Literal["complete", "client_gone", "interrupted", "upstream_failed", "restarted", "fault"]

log = structlog.get_logger(__name__)


class Bill(Struct, eq=False):
    """One admitted request's account, from its hold to its resolution. Times: wall, and the monotonic clock's.

    `price` was in force when the request began, and stays its price whatever the catalogue says later.
    """

    parts: Parts
    principal: Principal
    model: Model
    price: Price
    permit: Permit
    streamed: bool
    started_s: float
    opened_s: float
    way: Way | None = None  # the last one tried
    attempts: int = 0
    first_token_s: float | None = None
    settled: bool = False
    wasted_nanousd: int = 0  # what tries that another one made up for cost us, counted here

    def open(self) -> None:
        """Note in the journal that money is held. Raises JournalError while the journal cannot be written.

        A request that is answered whole charges nothing before it is settled, so it needs no note but for that test.
        """
        if self.streamed or self.parts.journal.failing:
            permit, principal = self.permit, self.principal
            self.parts.journal.append(
                Opened(
                    permit.request_id,
                    principal.account.id,
                    principal.key_id,
                    self.model.id,
                    permit.held_nanousd,
                    self.started_s,
                )
            )

    def note_first_token(self) -> None:
        self.first_token_s = self.parts.clock.monotonic_s()
        way = self.way
        if way is not None and way.breaker.troubled:
            way.breaker.note_alive(way.breaker.epoch)

    def note_waste(self, candidate: Candidate, usage: Usage) -> None:
        """A try that an upstream had begun to answer came to nothing."""
        self.wasted_nanousd += metering.cost(usage, candidate.costs.at(self.started_s))

    def settle(self, outcome: Outcome, usage: Usage | None = None, *, estimated: bool = False) -> None:
        """Charge `usage` (None: nothing was delivered), free the hold, write the record. Later calls change nothing."""
        if self.settled:
            return
        self.settled = True
        parts, permit, principal, opened_s = self.parts, self.permit, self.principal, self.opened_s
        candidate = self.way.candidate if self.way is not None else None
        charge = cost = NanoUSD(0)
        prompt = cached = completion = reasoning = 0
        if usage is not None:
            assert candidate is not None, "what was delivered came from somewhere"
            charge = metering.cost(usage, self.price)
            if charge > permit.held_nanousd:
                charge = permit.held_nanousd
            cost = metering.cost(usage, candidate.costs.at(self.started_s))
            prompt, completion = usage.prompt_tokens, usage.completion_tokens
            cached = usage.prompt_tokens_details.cached_tokens
            reasoning = usage.completion_tokens_details.reasoning_tokens
        parts.guard.settle(permit, charge)
        duration_ms = int((parts.clock.monotonic_s() - opened_s) * 1000)
        first_s = self.first_token_s
        if first_s is not None:
            first_token_ms: int | None = int((first_s - opened_s) * 1000)
        else:  # an answer that is sent whole has its first token when it has its last
            first_token_ms = duration_ms if usage is not None else None
        record = Settled(
            permit.request_id,
            principal.account.id,
            principal.key_id,
            self.model.id,
            candidate.provider.id if candidate is not None else None,
            candidate.upstream_model if candidate is not None else None,
            self.streamed,
            outcome,
            prompt,
            cached,
            completion,
            reasoning,
            estimated,
            charge,
            cost,
            self.started_s,
            duration_ms,
            first_token_ms,
            self.attempts,
        )
        try:
            parts.journal.append_now(record)
        except JournalError as error:
            log.error("journal failed; new requests are refused until it can be written", error=str(error))

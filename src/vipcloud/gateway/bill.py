"""How a request's money is settled: once, synchronously, whatever has become of its coroutine.

`Bill.settle` awaits nothing, so no cancellation can come between the guard and the journal; whoever holds a bill calls
it on every way out. What each end costs whom is the table of `docs/architecture.md` (money).
"""

from typing import Literal

from msgspec import Raw

from vipcloud.accounts.directory import Principal
from vipcloud.dialects.openai import FinishReason, Usage
from vipcloud.dialects.tokens import Tokens, tokens_of
from vipcloud.gateway.idempotency import Claim
from vipcloud.gateway.parts import Parts
from vipcloud.gateway.upstreams import Way
from vipcloud.http.client import Sender
from vipcloud.ledger import rules
from vipcloud.ledger.records import Aborted, Opened, Reached, Settled
from vipcloud.limits.guard import Permit
from vipcloud.limits.local import LocalGuard
from vipcloud.metering import rules as metering
from vipcloud.money import NanoUSD, usd_number
from vipcloud.providers.models import Model
from vipcloud.providers.prices import Price
from vipcloud.telemetry.figures import Ending

Outcome = Literal["complete", "client_gone", "interrupted", "upstream_failed", "restarted", "revoked", "fault"]


class Bill(Sender):
    """One admitted request's account, from its hold to its resolution. Times: wall, and the monotonic clock's.

    `price` was in force when the request began, and stays its price whatever the catalogue says later.

    `sent`: an upstream has got a call of which we have yet to say who pays for it. A charge does, and `lose`; an error
    answer is free.

    `billed`: what the provider counts of the last call, where that is not what the customer pays for: of an answer that
    was continued, calls before it are lost, each by itself, and what they said is in the last one's prompt.
    """

    def __init__(
        self,
        parts: Parts,
        principal: Principal,
        model: Model,
        price: Price,
        permit: Permit,
        streamed: bool,
        started_s: float,
        opened_s: float,
        claim: Claim | None,  # the request's Idempotency-Key
    ) -> None:
        self.parts = parts
        self.principal = principal
        self.model = model
        self.price = price
        self.permit = permit
        self.streamed = streamed
        self.started_s = started_s
        self.opened_s = opened_s
        self.claim = claim
        self.way: Way | None = None  # the last one tried
        self.attempts = 0
        self.billed: Usage | None = None
        self.first_token_s: float | None = None
        self.settled = False

    def open(self, model: Model, price: Price) -> None:
        """Note in the journal that money is held for `model`. Raises JournalError while the journal cannot be written.

        A request that is answered whole charges nothing before it is settled, so it needs no note but for that test,
        and for its Idempotency-Key.
        """
        claim = self.claim
        if self.streamed or claim is not None or self.parts.journal.failing:
            permit, principal = self.permit, self.principal
            self.parts.journal.append(
                Opened(
                    permit.request_id,
                    principal.account.id,
                    principal.key_id,
                    model.id,
                    permit.ask.hold(permit.output_tokens),
                    self.started_s,
                    self.streamed,
                    price.version,
                    None if claim is None else claim.name[1],
                    None if claim is None else claim.body_hash,
                )
            )

    def change_model(self, model: Model, price: Price) -> None:
        """From now on `model` is asked, under the permit as it was held anew.

        Raises JournalError; then it is as before.
        """
        self.open(model, price)
        self.model, self.price, self.way = model, price, None

    def note_first_token(self) -> None:
        self.first_token_s = self.parts.clock.monotonic_s()
        way = self.way
        if way is not None and way.breaker.troubled:
            way.breaker.note_alive(way.breaker.epoch)

    def worth(self, usage: Usage) -> tuple[NanoUSD, NanoUSD, int]:
        """What `usage` of the last way costs the customer, within the hold; what it costs us; and how much of that is
        variance, because an upstream counted more than the hold covers."""
        details = usage.prompt_tokens_details
        written = details.cache_write_tokens or 0
        return self._worth(usage.prompt_tokens, usage.completion_tokens, details.cached_tokens, written)

    def _worth(self, prompt: int, completion: int, cached: int, written: int) -> tuple[NanoUSD, NanoUSD, int]:
        """The same of these counts; `cached` and `written` are parts of the prompt."""
        way = self.way
        assert way is not None, "what was delivered came from somewhere"
        charge = metering.amount(prompt, completion, cached, written, self.price)
        rates, billed = way.candidate.costs.at(self.started_s), self.billed
        if billed is None:
            cost = metering.amount(prompt, completion, cached, written, rates)
        else:
            cost = metering.cost(billed, rates)
        held = self.permit.held_nanousd
        if charge <= held:
            return charge, cost, 0
        return held, cost, max(0, cost - held)

    def settle(
        self,
        outcome: Outcome,
        usage: Usage | None = None,
        *,
        estimated: bool = False,
        finish_reason: FinishReason | None = None,
        error_code: str = "",
    ) -> None:
        """Charge `usage` (None: nothing was delivered), free the hold, write the record. Later calls change nothing.

        What it cost is put into `usage`.
        """
        tokens = None if usage is None else tokens_of(usage)
        self.settle_tokens(outcome, tokens, estimated=estimated, finish_reason=finish_reason, error_code=error_code)
        if usage is not None and tokens is not None and tokens.cost:
            usage.cost, usage.cost_details = Raw(tokens.cost), Raw(tokens.cost_details)

    def settle_tokens(
        self,
        outcome: Outcome,
        used: Tokens | None,
        *,
        estimated: bool = False,
        finish_reason: FinishReason | None = None,
        error_code: str = "",
    ) -> None:
        """As `settle`, of `used`."""
        if self.settled:
            return
        self.settled = True
        parts, permit, principal, way = self.parts, self.permit, self.principal, self.way
        account, model_id, attempts = principal.account, self.model.id, self.attempts
        provider_id: str | None = None
        upstream_model: str | None = None
        if way is not None:
            provider_id, upstream_model = way.candidate.provider.id, way.candidate.upstream_model
        charge = cost = NanoUSD(0)
        variance = prompt = cached = completion = reasoning = 0
        if used is not None:
            prompt, cached, completion, reasoning = used.prompt, used.cached, used.completion, used.reasoning
            charge, cost, variance = self._worth(prompt, completion, cached, used.written)
            self.sent = False
            used.cost, used.upstream_cost = usd_number(charge), usd_number(cost)
        duration_ms = int((parts.clock.monotonic_s() - self.opened_s) * 1000)
        token_ms = first_token_ms = self.first_token_ms
        if used is not None and first_token_ms is None:
            first_token_ms = duration_ms  # an answer that is sent whole has its first token when it has its last
        # By place, as names take six times as long; test_bill_fields.py sees two that change places.
        record = Settled(
            permit.request_id,
            account.id,
            principal.key_id,
            model_id,
            provider_id,
            upstream_model,
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
            attempts,
            permit.held_nanousd,
            variance,
            self.price.version,
            finish_reason,
            error_code,
        )
        parts.journal.keep(record)  # before all that might fail
        guard = parts.guard
        if type(guard) is LocalGuard:  # the same call either way: compiled, it is a direct one where the class is known
            guard.settle(permit, charge)
        else:
            guard.settle(permit, charge)
        if self.claim is not None:
            self.claim.settle(charge, answered=outcome == rules.COMPLETE)
        ending = Ending(
            model_id,
            provider_id,
            outcome,
            account.tier,
            duration_ms,
            token_ms if self.streamed else None,
            attempts,
            prompt,
            cached,
            completion,
            reasoning,
            estimated,
            charge,
            cost,
            variance,
        )
        parts.figures.ended(ending)
        parts.figures.settled(record, account.tier)

    def lose(self, usage: Usage) -> None:
        """Note what the last way's call cost us, of which nothing was delivered, or with which another one goes on."""
        self.sent = False
        way = self.way
        assert way is not None, "what costs us something was called"
        cost = metering.cost(usage, way.candidate.costs.at(self.started_s))
        tokens = usage.prompt_tokens, usage.completion_tokens
        self.parts.figures.lost(self.model.id, way.candidate.provider.id, *tokens, cost)
        if not cost:
            return
        clock, request_id = self.parts.clock, self.permit.request_id
        self.parts.journal.keep(Aborted(request_id, self.attempts, way.candidate.provider.id, cost, clock.wall_s()))

    def reached(self, usage: Usage) -> Reached:
        """What to charge should this process die now: `usage`, counted here."""
        charge, cost, _ = self.worth(usage)
        way = self.way
        assert way is not None, "what was delivered came from somewhere"
        return Reached(
            self.permit.request_id,
            way.candidate.provider.id,
            way.candidate.upstream_model,
            usage.prompt_tokens,
            usage.completion_tokens,
            usage.completion_tokens_details.reasoning_tokens,
            charge,
            cost,
            int((self.parts.clock.monotonic_s() - self.opened_s) * 1000),
            self.first_token_ms,
            self.attempts,
            self.permit.held_nanousd,
        )

    @property
    def first_token_ms(self) -> int | None:
        return None if self.first_token_s is None else int((self.first_token_s - self.opened_s) * 1000)

"""The guard in memory, for a gateway of one process. Its counts begin at zero with the process.

Credit does not: what the store holds when an account is first seen is the start, every charge since is kept here, and
later readings of the store only raise what was granted. The journal carries the charges into the store.
"""

from vipcloud.clock import Clock
from vipcloud.errors import InsufficientCredit, RateLimited
from vipcloud.limits.guard import Payer, Permit
from vipcloud.limits.rules import (
    DAY_S,
    WINDOW_S,
    AccountState,
    Ask,
    Limits,
    affordable_tokens,
    seconds_to_midnight,
)
from vipcloud.money import NanoUSD, format_usd

CONCURRENCY_RETRY_S = 1.0


class LocalGuard:
    """`lease_s` is how long a request may hold its place if its end is never told."""

    def __init__(self, clock: Clock, lease_s: float) -> None:
        self._clock = clock
        self._now_s = clock.monotonic_s
        self._lease_s = lease_s
        self._accounts: dict[str, AccountState] = {}

    async def admit(self, request_id: str, payer: Payer, limits: Limits, ask: Ask) -> Permit:
        now_s = self._now_s()
        account_id = payer.id
        state = self._accounts.get(account_id)
        if state is None:
            state = self._accounts[account_id] = AccountState(charged_nanousd=payer.charged_nanousd)
        admitted, leases, rpm = state.admitted, state.leases, limits.rpm
        if rpm:
            state.forget_old(now_s)
            if len(admitted) >= rpm:
                raise RateLimited(
                    f"Rate limit reached: {rpm} requests per minute.", retry_after_s=state.next_slot_s(now_s)
                )
        if limits.rpd:
            self._check_day(state, limits.rpd)
        if limits.concurrency and len(leases) >= limits.concurrency:
            self._check_concurrency(state, limits.concurrency, now_s)
        tokens = ask.output_tokens
        held = ask.hold(tokens)
        if held:
            credit = payer.granted_nanousd - state.charged_nanousd - state.held_nanousd
            if held > credit:
                tokens = affordable_tokens(ask, credit)
                if not tokens:
                    raise InsufficientCredit(_no_credit(credit))
                held = ask.hold(tokens)
            state.held_nanousd += held
        state.day_count += 1
        leases[request_id] = now_s + self._lease_s
        if not rpm:
            return Permit(request_id, account_id, held, tokens, 0, 0, 0.0)
        admitted.append(now_s)
        return Permit(request_id, account_id, held, tokens, rpm, rpm - len(admitted), admitted[0] + WINDOW_S - now_s)

    def settle(self, permit: Permit, charge: NanoUSD) -> None:
        assert not permit.settled, "a permit is settled once"
        assert 0 <= charge <= permit.held_nanousd, "a hold is the ceiling of its request"
        permit.settled = True
        state = self._accounts[permit.account_id]
        state.leases.pop(permit.request_id, None)
        state.held_nanousd -= permit.held_nanousd
        state.charged_nanousd += charge

    def _check_concurrency(self, state: AccountState, concurrency: int, now_s: float) -> None:
        state.forget_lapsed(now_s)
        if len(state.leases) >= concurrency:
            raise RateLimited(
                f"Rate limit reached: {concurrency} requests at the same time.", retry_after_s=CONCURRENCY_RETRY_S
            )

    def _check_day(self, state: AccountState, rpd: int) -> None:
        wall_s = self._clock.wall_s()
        day = int(wall_s // DAY_S)
        if day != state.day:
            state.day, state.day_count = day, 0
        if state.day_count >= rpd:
            raise RateLimited(
                f"Rate limit reached: {rpd} requests per day (UTC).", retry_after_s=seconds_to_midnight(wall_s)
            )


def _no_credit(credit: int) -> str:
    left = format_usd(NanoUSD(max(0, credit)))
    return f"Your credit (${left} not held by running requests) does not cover this request. Top up and try again."

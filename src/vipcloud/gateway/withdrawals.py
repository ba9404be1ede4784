"""Takes back credit that no request holds: refunds, and payments that a bank took back.

It is done here because the guard knows of holds and nobody else does. A withdrawal is held for as a request is, posted,
and let go when the directory, and those of other gateways, have learned of the smaller credit; so at no moment can a
request be admitted on credit that is being taken. Where the process dies in between, nothing was posted, or all was.
"""

import asyncio
from collections.abc import Callable
from typing import NamedTuple

import structlog
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from vipcloud.accounts.directory import Directory
from vipcloud.billing import withdrawals
from vipcloud.billing.withdrawals import Withdrawal
from vipcloud.clock import Clock
from vipcloud.errors import GatewayError, InsufficientCredit
from vipcloud.ledger import store as ledger
from vipcloud.ledger.store import LedgerError
from vipcloud.limits.guard import Guard, Permit, Purse, Subject
from vipcloud.limits.rules import Ask
from vipcloud.money import NANO, NanoUSD, PicoUSDPerToken
from vipcloud.storage import engine as storage

POLL_S = 1.0
RELEASE_S = 5.0  # where others admit by the same guard: they read the change feed by then
_CENT = PicoUSDPerToken(NANO // 100 * 1000)  # a "token" of a withdrawal is a cent: as much is held as is free

log = structlog.get_logger(__name__)


class _Posted(NamedTuple):
    account_id: str
    permit: Permit
    posted_s: float


class Withdrawals:
    """Looks for withdrawals that are asked for and takes them, one after the other.

    `guard` tells which one counts now: another does while this gateway hands over, and then none is taken here.

    Until it lets go, at least `release_s` after it posted one, credit counts for less than it is: never for more.
    """

    def __init__(
        self,
        engine: Engine,
        directory: Directory,
        guard: Callable[[], Guard],
        clock: Clock,
        release_s: float = RELEASE_S,
    ) -> None:
        self._engine = engine
        self._directory = directory
        self._guard = guard
        self._clock = clock
        self._release_s = release_s
        self._posted: list[_Posted] = []

    async def run(self) -> None:
        while True:
            try:
                await self.round()
            except (SQLAlchemyError, LedgerError, GatewayError):
                log.exception("withdrawals_not_taken")
            await asyncio.sleep(POLL_S)

    async def round(self) -> None:
        """Take what is asked for, and let go of what the directory knows by now."""
        self._release()
        for withdrawal in await asyncio.to_thread(self._asked):
            if self._guard().degraded:
                return  # nobody knows what is held
            await self._take(withdrawal)

    async def _take(self, withdrawal: Withdrawal) -> None:
        purse = await asyncio.to_thread(self._purse, withdrawal.account_id)
        permit, cents = None, 0
        # No more than the books have, and so most often all of it: a part is held for from 16 "tokens" on only.
        wanted = min(withdrawal.amount_cents, (purse.granted_nanousd - purse.charged_nanousd) * 100 // NANO)
        if wanted > 0:
            ask = Ask(NanoUSD(0), _CENT, wanted)
            # What is posted and not let go of yet is missing from the store's credit and held besides.
            twice = sum(each.permit.held_nanousd for each in self._posted if each.account_id == purse.id)
            purse.granted_nanousd += twice
            try:
                permit = await self._guard().admit(withdrawal.id, Subject((), (purse,)), ask, self._clock.wall_s())
                cents = permit.output_tokens
            except InsufficientCredit:
                pass
        try:
            taken = await asyncio.to_thread(self._post, withdrawal.id, cents)
        except BaseException:
            if permit is not None:
                self._guard().settle(permit, NanoUSD(0))
            raise
        if permit is not None and not taken:
            self._guard().settle(permit, NanoUSD(0))
        elif permit is not None:
            self._posted.append(_Posted(purse.id, permit, self._clock.monotonic_s()))
        log.info("withdrawal", id=withdrawal.id, kind=withdrawal.kind, wanted=withdrawal.amount_cents, cents=taken)

    def _release(self) -> None:
        now_s = self._clock.monotonic_s()
        read_s = now_s - self._directory.lag_s
        kept = []
        for each in self._posted:
            if now_s - each.posted_s >= self._release_s and read_s > each.posted_s:
                self._guard().settle(each.permit, NanoUSD(0))
            else:
                kept.append(each)
        self._posted = kept

    def _asked(self) -> list[Withdrawal]:
        with storage.reading(self._engine) as connection:
            return withdrawals.in_state(connection, "asked")

    def _purse(self, account_id: str) -> Purse:
        """An account's money as the store has it now, without its caps: what goes back is not spent."""
        with storage.reading(self._engine) as connection:
            sums = ledger.sums(connection, account_id)
            booked = self._directory.booked_in(connection, account_id)
        return Purse(account_id, sums.credits_nanousd, booked.charged_nanousd, spent=booked.spent)

    def _post(self, withdrawal_id: str, cents: int) -> int:
        with storage.writing(self._engine) as connection:
            return withdrawals.take(connection, withdrawal_id, cents, self._clock.wall_s())

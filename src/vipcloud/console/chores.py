"""What has to be done about payments now and then, whoever looks at pages meanwhile: one loop.

It lives in the console because that has what it takes (Stripe, mails, the address that links begin with) and because
here it can fail or wait for Stripe without holding up answers or the books. Several consoles may run it at once: each
step is one transaction that looks again before it acts, and Stripe is asked with the row's own id.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial

import structlog
from litestar import Litestar
from sqlalchemy.exc import SQLAlchemyError

from vipcloud.billing import recharges, refunds, watch, withdrawals
from vipcloud.billing import store as billing
from vipcloud.billing.payments import Payments, PaymentsError
from vipcloud.console.parts import Parts, beside
from vipcloud.storage import engine as storage

POLL_S = 3.0
AWAY_S = 30.0  # until Stripe is asked again when it does not answer
UNNAMED_S = 3 * 86_400.0  # a payment whose card Stripe does not tell by then is left alone
COMMAND_S = 10.0  # a refund is its command's for so long

log = structlog.get_logger(__name__)


class Chores:
    """Low credit and charges of saved cards; refunds that were left midway, and those that were made at Stripe."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        settings = parts.settings.payments
        self._stripe = Payments(settings) if settings.stripe_key.reveal() else None

    @asynccontextmanager
    async def lifespan(self, _app: Litestar) -> AsyncIterator[None]:
        async with beside(self._run()):
            yield

    async def _run(self) -> None:
        while True:
            wait_s = POLL_S
            try:
                await asyncio.to_thread(self.round)
            except PaymentsError as error:
                log.error("stripe does not answer as it should", error=str(error))
                wait_s = AWAY_S
            except SQLAlchemyError:
                log.exception("payments cannot be looked after")
            await asyncio.sleep(wait_s)

    def round(self) -> None:
        """Everything that is due; where Stripe does not answer, the next round tries again, and the rest is done now.

        Raises PaymentsError and SQLAlchemyError.
        """
        parts = self._parts
        engine, clock, public_url = parts.engine, parts.clock, parts.public_url
        recharges.tell_low(engine, clock, parts.settings.payments, public_url)
        recharges.tell_stopped(engine, clock, public_url)
        if self._stripe is None:
            return
        recharges.begin(engine, clock, public_url, parts.random_bytes)
        failed = [error for act in self._asking(self._stripe) if (error := _failure(act)) is not None]
        if failed:
            raise failed[-1]

    def _asking(self, stripe: Payments) -> Iterator[Callable[[], object]]:
        """What needs an answer of Stripe, one by one."""
        engine, clock, public_url = self._parts.engine, self._parts.clock, self._parts.public_url
        with storage.reading(engine) as connection:
            charging = watch.charging(connection)
        for topup in charging:
            yield partial(recharges.charge, engine, stripe, clock, topup)
        with storage.reading(engine) as connection:
            unnamed = watch.unnamed(connection, clock.wall_s() - UNNAMED_S)
            stale = billing.stale(connection)
            since_s = clock.wall_s() - COMMAND_S
            left = [each for each in withdrawals.in_state(connection, "taken") if (each.decided_at or 0.0) < since_s]
        for topup in unnamed:
            yield partial(recharges.name_card, engine, stripe, clock, topup, public_url)
        for topup in stale:
            yield partial(refunds.look, engine, stripe, clock, topup)
        for withdrawal in left:
            yield partial(refunds.pursue, engine, stripe, clock, withdrawal)


def _failure(act: Callable[[], object]) -> PaymentsError | None:
    try:
        act()
    except PaymentsError as error:
        return error
    return None

"""The store's answers for routes: SQL runs in a thread, a few at a time, so that look-ups never crowd out the rest."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

from sqlalchemy.exc import SQLAlchemyError

from vipcloud.errors import Unavailable
from vipcloud.ledger.journal import JournalError

TURNS_MAX = 2

T = TypeVar("T")


class Turns:
    """Belongs to one event loop."""

    def __init__(self) -> None:
        self._turn = asyncio.Semaphore(TURNS_MAX)

    async def ask(self, act: Callable[[], T]) -> T:
        """What `act` returns. Raises Unavailable where the store or the journal cannot be read or written."""
        async with self._turn:
            try:
                return await asyncio.to_thread(act)
            except (SQLAlchemyError, JournalError) as error:
                raise Unavailable("The books cannot be read right now; try again shortly.", retry_after_s=1) from error

"""A guard with a clock to turn, requests to make up, and accounts, keys and addresses to make them for."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from valkey_server import Server
from vipcloud.clock import ManualClock
from vipcloud.limits.caps import Caps
from vipcloud.limits.connection import Client
from vipcloud.limits.guard import NO_CREDIT_LIMIT, Booked, Guard, Permit, Purse, Subject
from vipcloud.limits.rules import Ask, Limits, Meter, Standing
from vipcloud.limits.valkey import Reread, ValkeyGuard
from vipcloud.money import NANO, NanoUSD, PicoUSDPerToken

LEASE_S = 600.0
FREE = Ask(NanoUSD(0), PicoUSDPerToken(0), 100)
DOLLAR = Ask(NanoUSD(NANO), PicoUSDPerToken(0), 100)  # whatever is answered
PRICE = PicoUSDPerToken(1_000_000)  # $1 per million: 1,000 nano-dollars a token


def dollars(amount: float, name: str = "a", **fields: Any) -> Purse:
    return Purse(name, int(amount * NANO), **{"charged_nanousd": 0, **fields})


def key(**caps: int) -> Purse:
    """A key's purse: nothing but its caps."""
    return Purse("k", NO_CREDIT_LIMIT, 0, Caps(**caps))


def meter(name: str = "a", rpm: int = 0, rpd: int = 0, concurrency: int = 0, whose: str = "") -> Meter:
    return Meter(name, Limits(rpm, rpd, concurrency), whose)


class Desk:
    """`chance` is what the guard's dice say."""

    def __init__(self, make: Callable[[ManualClock, Callable[[], float]], Guard]) -> None:
        self.clock = ManualClock()
        self.chance = 0.0
        self.guard = make(self.clock, lambda: self.chance)
        self._count = 0

    async def admit(self, *legs: Meter | Purse, ask: Ask = FREE) -> Permit:
        """A request that is counted by the meters and paid by the funds among `legs`."""
        self._count += 1
        subject = Subject(
            tuple(leg for leg in legs if isinstance(leg, Meter)), tuple(leg for leg in legs if isinstance(leg, Purse))
        )
        return await self.guard.admit(f"r{self._count}", subject, ask, self.clock.wall_s())

    async def standing(self, *meters: Meter) -> Standing:
        return await self.guard.standing(Subject(meters), self.clock.wall_s())

    async def settle(self, permit: Permit, charge: int = 0) -> None:
        """Settled, and heard of by the guard wherever it keeps its counts."""
        self.guard.settle(permit, NanoUSD(charge))
        await self.guard.flushed()

    async def extend(self, permit: Permit, tokens: int) -> bool:
        """Whether more of the answer could be held for."""
        refused: list[bool] = []
        self.guard.extend(permit, tokens, lambda: refused.append(True))
        await self.guard.flushed()
        return not refused


@asynccontextmanager
async def running(client: Client) -> AsyncIterator[Client]:
    """The client, connected."""
    task = asyncio.get_running_loop().create_task(client.run())
    await client.up.wait()
    yield client
    task.cancel()
    await asyncio.wait([task])


async def as_told(purse: Purse) -> Booked:
    return Booked(purse.charged_nanousd, purse.spent)


@asynccontextmanager
async def valkey_desk(
    server: Server, nodes: int = 1, timeout_s: float = 5, reread: Reread = as_told
) -> AsyncIterator[Desk]:
    client = Client(server.url, timeout_s=timeout_s, waiting_max=1000)

    def make(clock: ManualClock, chance: Callable[[], float]) -> ValkeyGuard:
        return ValkeyGuard(client, clock, LEASE_S, nodes, reread, chance, lambda: round(clock.wall_s() * 1_000_000))

    desk = Desk(make)
    task = asyncio.get_running_loop().create_task(desk.guard.run())
    await client.up.wait()
    yield desk
    task.cancel()
    await asyncio.wait([task])

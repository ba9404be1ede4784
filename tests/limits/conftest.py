from collections.abc import AsyncIterator

import pytest
from desk import LEASE_S, Desk, valkey_desk

from vipcloud.limits.local import LocalGuard


@pytest.fixture(params=["memory", "valkey"])
async def desk(request: pytest.FixtureRequest) -> AsyncIterator[Desk]:
    """A guard of each kind."""
    if request.param == "memory":
        yield Desk(lambda clock, chance: LocalGuard(clock, LEASE_S, chance))
        return
    async with valkey_desk(request.getfixturevalue("valkey")) as desk:
        yield desk

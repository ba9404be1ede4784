import pytest
from desk import Desk

from vipcloud.limits.local import LocalGuard

LEASE_S = 600.0


@pytest.fixture
def desk() -> Desk:
    return Desk(lambda clock, chance: LocalGuard(clock, LEASE_S, chance))

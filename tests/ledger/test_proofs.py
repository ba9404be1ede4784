"""The proofs of docs/trust.md, with fewer rounds; and that they find what is wrong."""

import asyncio
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

sys.path.append(str(Path(__file__).parents[2] / "proofs"))

import disk
import restarts
import simulation
from vipcloud.gateway.attempt import Attempt
from vipcloud.gateway.bill import Bill
from vipcloud.ledger.journal import Journal
from vipcloud.ledger.records import Record, Settled
from vipcloud.limits.local import LocalGuard


@pytest.mark.interpreted
@pytest.mark.timeout(120)
def test_cancelled_at_every_await_and_dead_at_any_step_every_request_is_settled_once() -> None:
    counts = simulation.play(1000, seed=7)
    assert counts["booked"] == counts["schedules"] >= 1000


@pytest.mark.timeout(120)
def test_a_disk_that_fails_at_any_call_loses_and_corrupts_nothing() -> None:
    counts = asyncio.run(disk.play(60, seed=7))
    assert counts["failures"] > 100
    assert counts["refused"] > 10


def _keep(self: Attempt, *_: object) -> None:
    """Settles nothing."""


def _drop(self: Journal, record: Record) -> None:
    if not (isinstance(record, Settled) and record.outcome == "client_gone"):
        KEEP(self, record)


def _twice(self: Journal, record: Record) -> None:
    KEEP(self, record)
    if isinstance(record, Settled):
        KEEP(self, record)


def _too_much(self: Bill, usage: object) -> object:
    return msgspec.structs.replace(REACHED(self, usage), completion_tokens=usage.completion_tokens + 2)


def _generous(self: LocalGuard, purse: object, day: int) -> int:
    return LEFT(self, purse, day) + 20_000


KEEP, REACHED, LEFT = Journal.keep, Bill.reached, LocalGuard._left


@pytest.mark.interpreted
@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("owner", "name", "wrong"),
    [
        (Attempt, "settle_cut", _keep),
        (Journal, "keep", _drop),
        (Journal, "keep", _twice),
        (Bill, "reached", _too_much),
        (LocalGuard, "_left", _generous),
    ],
)
def test_the_simulation_finds_what_is_wrong(
    monkeypatch: pytest.MonkeyPatch, owner: type, name: str, wrong: object
) -> None:
    monkeypatch.setattr(owner, name, wrong)
    with pytest.raises(AssertionError, match="scenario"):
        simulation.play(2000, seed=1)


@pytest.mark.timeout(180)
def test_restarts_under_load_drop_no_stream_and_lose_no_cent() -> None:
    command = [sys.executable, restarts.__file__, "--restarts", "2", "--streams", "15", "--seed", "7"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=170)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "streams dropped                 0" in done.stdout

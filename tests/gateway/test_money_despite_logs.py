"""A line of the log, a figure or a note that cannot be written takes no money with it."""

import errno
from typing import Any

import pytest
import structlog
from front_door import House, charge, eventually

from vipcloud.ledger.journal import JournalError
from vipcloud.ledger.records import Progress, Settled


class Broken:
    """A watcher of what is settled that fails."""

    def settled(self, record: Settled, tier: str) -> None:
        raise RuntimeError("a fault of ours")


@pytest.mark.parametrize("stream", [False, True], ids=["unary", "stream"])
async def test_what_is_charged_is_booked_though_its_watcher_fails(house: House, stream: bool) -> None:
    house.gateway.parts.figures._watchers = (Broken(),)
    async with house.sent("Count to 5", stream=stream) as wire:
        await eventually(lambda: [event for event in house.logs if "handler" in event["event"]])
        wire.close()
    (row,) = await house.settled()
    assert (row.outcome, row.charge_nanousd) == (
        "complete",
        charge(row.model, row.prompt_tokens, row.completion_tokens),
    )
    house.logs.clear()  # that it failed was meant


async def test_who_leaves_while_journal_and_log_are_full_frees_the_hold(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the call cost us is noted once the journal is well again; `front_door` looks at the hold."""

    def full(*_: Any) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device")

    journal = house.gateway.parts.journal
    write = journal._write
    async with house.sent("Count to 5 [[first_token_ms=60000]]") as wire:
        await house.upstream.called()
        monkeypatch.setattr(journal, "_write", full)
        journal.keep(Progress([]))
        with pytest.raises(JournalError):
            journal.flush()
        structlog.configure(processors=[full])
        wire.close()
        await eventually(lambda: not house.gateway.server.running)
    structlog.configure(processors=[dropped])
    monkeypatch.setattr(journal, "_write", write)
    journal.flush()
    (row,) = await house.settled()
    assert row.outcome == "client_gone"
    assert [record.request_id for record in house.lost()] == [row.request_id]


def dropped(*_: Any) -> Any:
    raise structlog.DropEvent

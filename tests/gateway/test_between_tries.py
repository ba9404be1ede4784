"""What must hold of a request between two of its tries."""

from typing import Any

import pytest
from front_door import House, eventually


async def test_a_way_that_was_about_to_be_tried_again_is_free_for_others(open_house: Any) -> None:
    """Its breaker is open and lets one call at a time through: that one has gone before it was made."""
    house: House = await open_house(
        retry={"backoff_s": 60}, breaker={"failures_in_row": 1, "interval_s": 3600, "interval_max_s": 3600}
    )
    (account,) = [one for one in house.gateway.parts.upstreams.accounts if one.provider.id == "deepseek"]
    await house.upstream.always("status:500")
    async with house.sent():
        await eventually(lambda: any(breaker.state == "open" for breaker in account.breakers.values()))
    assert [(row.outcome, row.attempts) for row in await house.settled()] == [("client_gone", 1)]
    await house.upstream.always("none")
    assert (await house.chat()).status == 200


async def test_the_next_model_takes_no_blame_where_it_cannot_be_noted(
    open_house: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The journal fails just after it has taken the request: what has failed is the first model, and its provider."""
    house: House = await open_house(gateway={"attempts_max": 1})
    journal = house.gateway.parts.journal
    write = journal._write

    def last_write(file: int, data: bytes) -> int:
        monkeypatch.setattr(journal, "_write", write)
        journal.note_sync(OSError(5, "Input/output error"))
        return write(file, data)

    monkeypatch.setattr(journal, "_write", last_write)
    await house.upstream.always("status:500")
    reply = await house.stream(models=["deepseek-chat", "glm-4-flash"])
    assert reply.status == 502
    journal.note_sync(None)
    (row,) = await house.settled()
    assert (row.outcome, row.model, row.provider) == ("upstream_failed", "deepseek-chat", "deepseek")

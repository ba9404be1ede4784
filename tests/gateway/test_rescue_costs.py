"""What a rescue costs us is what the providers bill: each call its prompt and what it said, once, at its own provider.

A call that goes on has what was said before in its prompt. The plain provider's token costs 500 nano-dollars in and
1000 out.
"""

import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from front_door import House, Reply
from scripted import Scripted, scripted

from vipcloud.ledger import journal
from vipcloud.ledger.records import Aborted, Progress

FIRST, REST = "The first half of a long answer, ", "and then the other half."


@pytest.fixture
async def upstream(
    tmp_path: Path, template: Any, monkeypatch: pytest.MonkeyPatch, open_house: Any
) -> AsyncIterator[Scripted]:
    monkeypatch.setenv("PLAIN_API_KEY", "sk-plain")
    data = tmp_path / "data"
    data.mkdir()
    shutil.copy(template[0], data)
    async with scripted() as upstream:
        row = upstream.catalog().replace('key_env = "PLAIN', 'continue_field = "prefix"\n            key_env = "PLAIN')
        refusals = '[[providers.plain.errors]]\ncodes = ["content_filter"]\nkind = "content_filter"'
        (data / "catalog.toml").write_text(f"{row}\n{refusals}\n")
        yield upstream


@pytest.fixture
async def house(upstream: Scripted, open_house: Any) -> House:
    return await open_house(retry={"backoff_s": 0.001})


def cut(text: str, usage: tuple[int, int] | None = None) -> list[Any]:
    """A stream that ends in the middle."""
    choice = {"index": 0, "delta": {"role": "assistant", "content": text}, "finish_reason": None}
    return [{"choices": [choice], **told(usage)}]


def whole(text: str, usage: tuple[int, int] | None = None) -> list[Any]:
    return [*cut(text), {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], **told(usage)}]


def told(usage: tuple[int, int] | None) -> dict[str, Any]:
    if usage is None:
        return {}
    return {"usage": {"prompt_tokens": usage[0], "completion_tokens": usage[1], "total_tokens": sum(usage)}}


def fault() -> list[Any]:
    """An error as the first event, which is free."""
    return [{"error": {"message": "overloaded", "type": "server_error", "code": "x"}}]


def costs(prompt_tokens: int, completion_tokens: int) -> int:
    return prompt_tokens * 500 + completion_tokens * 1000


async def ask(house: House, mode: str = "continue") -> Reply:
    body = house.body("Tell me something long.", "plain-1", {"stream": True})
    return await house.ask("POST", "/v1/chat/completions", body, house.head(**{"x-vipcloud-rescue": mode}))


async def counted(house: House, upstream: Scripted, text: str = FIRST) -> tuple[int, int]:
    """Our own count of the prompt, and of `text` as what was delivered."""
    upstream.answers = [cut(text)]
    body = house.body("Tell me something long.", "plain-1", {"stream": True})
    reply = await house.ask("POST", "/v1/chat/completions", body, house.head())
    row = house.usage(reply.request_id)
    assert row is not None
    assert (row.outcome, row.cost_nanousd) == ("interrupted", costs(row.prompt_tokens, row.completion_tokens))
    return row.prompt_tokens, row.completion_tokens


def lost(house: House) -> list[tuple[int, int]]:
    return [(record.number, record.cost_nanousd) for record in house.lost()]


async def test_a_continued_call_is_lost_whole_and_the_row_costs_what_the_last_one_does(
    house: House, upstream: Scripted
) -> None:
    prompt, said = await counted(house, upstream)
    upstream.answers = [cut(FIRST), whole(REST, usage=(40, 6))]
    reply = await ask(house)
    assert reply.text == FIRST + REST
    row = house.usage(reply.request_id)
    assert row is not None
    assert (row.outcome, row.cost_nanousd) == ("complete", costs(40, 6))
    assert row.charge_nanousd == 2 * costs(row.prompt_tokens, row.completion_tokens)
    assert lost(house) == [(1, costs(prompt, said))]


async def test_what_a_call_told_before_it_broke_off_is_what_is_lost(house: House, upstream: Scripted) -> None:
    upstream.answers = [cut(FIRST, usage=(20, 9)), whole(REST, usage=(40, 6))]
    row = house.usage((await ask(house)).request_id)
    assert row is not None
    assert row.cost_nanousd == costs(40, 6)
    assert lost(house) == [(1, costs(20, 9))]


async def test_without_a_count_what_was_said_before_is_in_the_last_calls_prompt(
    house: House, upstream: Scripted
) -> None:
    prompt, said = await counted(house, upstream)
    _, all_said = await counted(house, upstream, FIRST + REST)
    upstream.answers = [cut(FIRST), whole(REST)]
    row = house.usage((await ask(house)).request_id)
    assert row is not None
    assert (row.prompt_tokens, row.completion_tokens) == (prompt, all_said)
    assert abs(row.cost_nanousd - costs(prompt + said, all_said - said)) <= 2000  # what was said before is sized
    assert lost(house) == [(1, costs(prompt, said))]


async def test_a_broken_call_that_none_can_follow_costs_what_it_would_without_a_rescue(
    upstream: Scripted, open_house: Any
) -> None:
    house: House = await open_house(gateway={"attempts_max": 1})
    prompt, said = await counted(house, upstream)
    upstream.answers = [cut(FIRST)]
    reply = await ask(house)
    assert reply.stream_error is not None
    row = house.usage(reply.request_id)
    assert row is not None
    assert row.cost_nanousd == costs(prompt, said)
    assert lost(house) == []


async def test_calls_that_add_nothing_cost_their_prompts_alone(house: House, upstream: Scripted) -> None:
    """The second is an error answer, the third an error as its first event: both are free."""
    prompt, said = await counted(house, upstream)
    upstream.answers = [cut(FIRST), 500, fault()]
    row = house.usage((await ask(house)).request_id)
    assert row is not None
    assert (row.outcome, row.attempts, row.cost_nanousd) == ("interrupted", 3, 0)
    assert row.charge_nanousd > 0
    assert lost(house) == [(1, costs(prompt, said))]


async def test_a_call_that_ends_with_nothing_said_is_lost_with_what_stood_in_its_prompt(
    house: House, upstream: Scripted
) -> None:
    prompt, said = await counted(house, upstream)
    upstream.answers = [cut(FIRST), [], whole(REST, usage=(40, 6))]
    row = house.usage((await ask(house)).request_id)
    assert row is not None
    assert (row.attempts, row.cost_nanousd) == (3, costs(40, 6))
    first, (number, cost) = lost(house)
    assert first == (1, costs(prompt, said))
    assert number == 2
    assert abs(cost - costs(prompt + said, 0)) <= 2500  # counted by size


async def test_each_of_two_continued_calls_is_lost_by_itself(house: House, upstream: Scripted) -> None:
    prompt, said = await counted(house, upstream)
    upstream.answers = [cut(FIRST), cut("and more, ", usage=(30, 4)), whole(REST, usage=(50, 6))]
    row = house.usage((await ask(house)).request_id)
    assert row is not None
    assert row.cost_nanousd == costs(50, 6)
    assert lost(house) == [(1, costs(prompt, said)), (2, costs(30, 4))]


async def test_a_kept_answer_that_broke_off_is_lost_by_what_it_told(house: House, upstream: Scripted) -> None:
    upstream.answers = [cut(FIRST, usage=(20, 9)), whole(REST, usage=(20, 6))]
    row = house.usage((await ask(house, "buffer")).request_id)
    assert row is not None
    assert row.cost_nanousd == costs(20, 6)
    assert lost(house) == [(1, costs(20, 9))]


async def test_a_kept_answer_that_the_provider_refuses_midway_costs_the_caller_nothing(
    house: House, upstream: Scripted
) -> None:
    """Another try would be refused as well; but nothing of this one was delivered."""
    refusal = {"error": {"message": "no", "type": "invalid_request_error", "code": "content_filter"}}
    upstream.answers = [[*cut(FIRST, usage=(20, 9)), refusal]]
    reply = await ask(house, "buffer")
    assert (reply.status, reply.error["code"]) == (400, "content_filter")
    (row,) = house.rows()
    assert (row.outcome, row.attempts, row.charge_nanousd, row.cost_nanousd) == ("upstream_failed", 1, 0, 0)
    assert lost(house) == [(1, costs(20, 9))]


async def test_a_death_after_the_loss_was_noted_does_not_count_it_again(house: House, upstream: Scripted) -> None:
    upstream.answers = [cut(FIRST), whole(REST, usage=(40, 6))]
    await ask(house)
    (live,) = [one for one in journal.files(house.gateway.parts.settings.journal_path) if one.live]
    records = journal.parse(live.path.read_bytes()).records
    at = next(number for number, record in enumerate(records) if isinstance(record, Aborted))
    after = records[at + 1]
    assert isinstance(after, Progress)
    (reached,) = after.reached
    assert (reached.cost_nanousd, reached.provider) == (0, "plain")
    assert reached.charge_nanousd > 0


@pytest.mark.parametrize("second", [[], fault()], ids=["ended", "refused"])
async def test_a_death_after_a_call_that_added_nothing_does_not_count_that_one_again(
    house: House, upstream: Scripted, second: list[Any]
) -> None:
    """A note may have been taken while it was open: the next one takes its cost out of the row."""
    upstream.answers = [cut(FIRST), second, whole(REST, usage=(40, 6))]
    reply = await ask(house)
    assert reply.text == FIRST + REST
    (live,) = [one for one in journal.files(house.gateway.parts.settings.journal_path) if one.live]
    records = journal.parse(live.path.read_bytes()).records
    tries = [each for record in records if isinstance(record, Progress) for each in record.reached]
    noted = [each for each in tries if each.attempts == 2]
    assert noted, "of the second try"
    assert (noted[-1].cost_nanousd, noted[-1].charge_nanousd > 0) == (0, True)

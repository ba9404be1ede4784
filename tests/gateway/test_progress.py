"""What is noted of streams while they run, and what they cost when the process dies."""

import shutil
from pathlib import Path

import pytest
from front_door import House, Reply, charge, eventually

from vipcloud.clock import ManualClock
from vipcloud.gateway.progress import ProgressNotes
from vipcloud.ledger import bookkeeper, journal, store
from vipcloud.ledger.journal import Journal, JournalError
from vipcloud.ledger.records import Progress, Reached
from vipcloud.storage import engine as storage

FAST = {"journal": {"progress_interval_s": 0.02}}


def reached(name: str) -> Reached:
    return Reached(name, "deepseek", "deepseek-chat", 1, 2, 0, 3, 2, 4, 5, 1)


class Stream:
    def __init__(self, name: str) -> None:
        self.name, self.events, self.asked = name, 0, 0

    def reached(self) -> Reached | None:
        self.asked += 1
        return reached(self.name) if self.events > 1 else None


class Pages:
    """A journal that keeps what it is given, or refuses it."""

    def __init__(self) -> None:
        self.records: list[Progress] = []
        self.full = False

    def append(self, record: Progress) -> None:
        if self.full:
            raise JournalError("full")
        self.records.append(record)


async def test_only_what_moved_is_noted_and_a_refused_note_is_made_up_for() -> None:
    pages = Pages()
    notes = ProgressNotes(pages, 60)  # type: ignore[arg-type]
    streams = [Stream("a"), Stream("b")]
    for stream in streams:
        notes.add(stream)
    notes.note()
    assert (pages.records, [stream.asked for stream in streams]) == ([], [0, 0])
    streams[0].events = 5
    notes.note()
    notes.note()
    assert pages.records == [Progress([reached("a")])]
    streams[1].events = 1
    notes.note()
    assert len(pages.records) == 1, "it has moved and said nothing yet"
    pages.full, streams[1].events = True, 4
    notes.note()
    pages.full = False
    notes.note()
    assert pages.records[1:] == [Progress([reached("b")])]
    notes.discard(streams[0])
    notes.close()


async def test_many_streams_are_noted_in_records_of_bounded_size(tmp_path: Path) -> None:
    turns = []
    book = Journal(tmp_path, turns.append, ManualClock())
    notes = ProgressNotes(book, 60)
    for number in range(1000):
        stream = Stream(f"chatcmpl-{number:022d}")
        stream.events = 2
        notes.add(stream)
    notes.note()
    assert len(turns) == 1, "all in one write"
    turns[0]()
    (file,) = journal.files(tmp_path)
    records = journal.parse(file.path.read_bytes()).records
    assert sum(len(record.reached) for record in records if isinstance(record, Progress)) == 1000
    notes.close()
    book.close()


def die(house: House, folder: Path) -> dict[str, store.Settled]:
    """The books as the next process finds them, had the gateway been killed now."""
    shutil.copytree(house.gateway.parts.settings.data_path, folder)
    engine = storage.open_engine(folder / "vipcloud.db")
    Journal(folder / "journal", lambda _: None, ManualClock()).close()
    bookkeeper.catch_up(engine, folder / "journal")
    with storage.reading(engine) as connection:
        assert store.differences(connection) == []
        rows = {row.request_id: row for row in store.recent_usage(connection, rows_max=1000)}
    engine.dispose()
    return rows


@pytest.mark.parametrize("events", [1, 3, 8])
async def test_a_stream_whose_process_dies_costs_what_was_noted(open_house, tmp_path: Path, events: int) -> None:
    house: House = await open_house(**FAST)
    async with house.live(f"Count to 30 [[fault=stall:{events}]]") as live:
        said = Reply(200, live.headers, await live.until(events + 1)).text
        reader = house.gateway.parts.settings.journal_path
        await eventually(lambda: any(b"progress" in file.path.read_bytes() for file in journal.files(reader)))
        row = die(house, tmp_path / "grave")[live.request_id]
    assert (row.outcome, row.estimated, row.streamed) == ("crashed", True, True)
    assert row.completion_tokens == -(-len(said) // 4)
    assert row.charge_nanousd == charge("deepseek-chat", row.prompt_tokens, row.completion_tokens) > 0
    assert row.held_nanousd is not None
    assert row.charge_nanousd <= row.held_nanousd


async def test_what_had_said_nothing_costs_nothing(house: House, tmp_path: Path) -> None:
    wait = "Hello [[first_token_ms=60000]]"
    async with house.sent(wait, stream=True), house.sent(wait):
        await house.upstream.called(2)
        (row,) = die(house, tmp_path / "grave").values()  # of the other nothing is known, and nothing is owed
    assert (row.outcome, row.streamed, row.charge_nanousd) == ("crashed", True, 0)


async def test_what_was_settled_before_the_death_stands(house: House, tmp_path: Path) -> None:
    replies = [await house.chat("Count to 5"), await house.stream("Count to 5")]
    rows = die(house, tmp_path / "grave")
    assert {rows[reply.request_id].outcome for reply in replies} == {"complete"}
    assert len(rows) == 2

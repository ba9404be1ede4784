import subprocess
import sys
import threading
from pathlib import Path

import msgspec
import pytest
from sqlalchemy import Engine, event, text
from sqlalchemy.exc import OperationalError

from vipcloud.clock import ManualClock
from vipcloud.ledger import bookkeeper, journal, store, used_keys
from vipcloud.ledger.bookkeeper import Bookkeeper
from vipcloud.ledger.journal import Journal, JournalError
from vipcloud.ledger.records import Opened, Record, Settled
from vipcloud.storage import engine as storage

NOW = 1_795_000_000


def settled(number: int, charge_nanousd: int = 10) -> Settled:
    return Settled(
        request_id=f"req_{number}",
        account_id="ab"[number % 2],
        key_id="key_1",
        model="deepseek-chat",
        provider="deepseek",
        upstream_model="deepseek-chat",
        streamed=False,
        outcome="complete",
        prompt_tokens=1,
        cached_tokens=0,
        completion_tokens=2,
        reasoning_tokens=0,
        estimated=False,
        charge_nanousd=charge_nanousd,
        cost_nanousd=8,
        started_at=float(number),
        duration_ms=3,
        first_token_ms=1,
        attempts=1,
    )


FRAME_BYTES = len(journal.frame(settled(1)))


class Office:
    """A store and a journal folder, with a journal that can be written, closed and written on by a next process."""

    def __init__(self, engine: Engine, folder: Path) -> None:
        self.engine = engine
        self.directory = folder / "journal"

    def journal(self, file_bytes_max: int = journal.FILE_BYTES_MAX) -> Journal:
        return Journal(self.directory, lambda _: None, ManualClock(NOW), file_bytes_max=file_bytes_max)

    def write(self, *numbers: int) -> Path:
        """A process that settles these requests and ends. The file it wrote."""
        book = self.journal()
        for number in numbers:
            book.append(Opened(f"req_{number}", "a", "key_1", "deepseek-chat", 99, 1.0))
            book.keep(settled(number))
            book.flush()
        book.close()
        return journal.files(self.directory)[-1].path

    def book(self) -> int:
        return bookkeeper.book_once(self.engine, self.directory)

    def booked(self) -> list[str]:
        """The requests in the books, which must be right."""
        with storage.reading(self.engine) as connection:
            assert store.differences(connection) == []
            rows = store.recent_usage(connection, rows_max=100_000)
            charged = sum(store.sums(connection, name).debits_nanousd for name in "ab")
        assert charged == sum(row.charge_nanousd for row in rows)
        return sorted(row.request_id for row in rows)

    def files(self) -> list[Path]:
        return [file.path for file in journal.files(self.directory)]


@pytest.fixture
def office(engine: Engine, tmp_path: Path) -> Office:
    return Office(engine, tmp_path)


def test_settled_requests_are_booked_with_their_charges(office: Office) -> None:
    office.write(1, 2, 3)
    assert bookkeeper.backlog_bytes(office.engine, office.directory) > 3 * FRAME_BYTES
    assert office.book() == 3
    assert office.booked() == ["req_1", "req_2", "req_3"]
    assert bookkeeper.backlog_bytes(office.engine, office.directory) == 0
    with storage.reading(office.engine) as connection:
        assert store.usage_of(connection, "req_2") == settled(2)
        assert store.balance(connection, "a") == -10


def test_booking_twice_is_booking_once(office: Office) -> None:
    office.write(1, 2)
    assert [office.book(), office.book()] == [2, 0]
    assert office.booked() == ["req_1", "req_2"]


def test_a_live_file_is_booked_as_it_grows(office: Office) -> None:
    book = office.journal()
    for number in range(5):
        book.keep(settled(number))
        book.flush()
        assert office.book() == 1
    book.close()
    assert len(office.booked()) == 5


def test_a_folder_that_is_not_there_yet_has_nothing_to_book(office: Office) -> None:
    assert office.book() == 0
    assert bookkeeper.backlog_bytes(office.engine, office.directory) == 0


def test_free_requests_have_a_usage_row_and_no_transfer(office: Office) -> None:
    book = office.journal()
    book.keep(settled(1, charge_nanousd=0))
    book.flush()
    book.close()
    assert office.book() == 1
    assert office.booked() == ["req_1"]
    with storage.reading(office.engine) as connection:
        assert connection.execute(text("SELECT DISTINCT kind FROM transfer")).scalars().all() == ["cost"]


def test_requests_that_were_journaled_twice_are_booked_once(office: Office) -> None:
    office.write(1, 2, 2, 1)
    assert office.book() == 2
    office.write(2, 3)
    assert office.book() == 1
    assert office.booked() == ["req_1", "req_2", "req_3"]


def test_booking_goes_in_groups_and_removes_files_that_are_done(office: Office) -> None:
    book = office.journal(file_bytes_max=400 * FRAME_BYTES)
    for number in range(2000):
        book.keep(settled(number))
        book.flush()
    assert len(office.files()) > 3
    assert office.book() == 2000
    assert len(office.booked()) == 2000
    assert office.files() == office.files()[-1:], "the live file stays"
    with storage.reading(office.engine) as connection:
        assert connection.execute(text("SELECT count(*) FROM journal_position")).scalar() == 1
    book.keep(settled(2000))
    book.flush()
    assert office.book() == 1
    book.close()


def test_a_file_of_several_groups_is_booked_in_one_round(office: Office) -> None:
    numbers = range(bookkeeper.GROUP_BYTES // FRAME_BYTES + 100)
    path = office.write()
    path.write_bytes(b"".join(journal.frame(settled(number)) for number in numbers))
    assert office.book() == len(numbers)
    assert len(office.booked()) == len(numbers)


@pytest.mark.timeout(60)
def test_a_last_record_cut_at_any_byte_is_not_booked_and_stops_nothing(office: Office) -> None:
    path = office.write(0)
    whole = path.read_bytes()
    for cut in range(FRAME_BYTES):
        number = 2 * cut
        good, torn = journal.frame(settled(number)), journal.frame(settled(number + 1))
        path.write_bytes(good + torn[:cut])  # what a process leaves that dies inside a write
        office.book()
        assert office.book() == 0
        with storage.reading(office.engine) as connection:
            assert store.usage_of(connection, f"req_{number + 1}") is None
        path = office.write()  # the next process closes the file of the one before it
        assert bookkeeper.catch_up(office.engine, office.directory) == 0
        assert office.files() == [path]
    assert office.booked() == sorted(f"req_{2 * cut}" for cut in range(FRAME_BYTES))
    assert bookkeeper.damaged_files(office.engine, office.directory) == {}
    assert len(whole) > 0


def test_catching_up_books_everything_of_the_process_before(office: Office) -> None:
    office.write(1, 2)
    office.write(3)
    book = office.journal()
    assert bookkeeper.catch_up(office.engine, office.directory) == 3
    assert len(office.files()) == 1
    book.close()
    assert office.booked() == ["req_1", "req_2", "req_3"]


@pytest.mark.parametrize("at", [0, 2, 4, 8, 30, FRAME_BYTES - 1])
def test_damage_inside_a_closed_file_is_reported_and_costs_one_record(
    office: Office, capsys: pytest.CaptureFixture[str], at: int
) -> None:
    path = office.write()
    frames = [journal.frame(settled(number)) for number in range(5)]
    broken = bytearray(frames[2])
    broken[at] ^= 0x55
    path.write_bytes(b"".join([*frames[:2], broken, *frames[3:]]))
    assert office.book() == 2, "the live file is read up to the bad frame"
    assert office.book() == 0
    office.write(7)
    assert office.book() == 3
    assert "journal_damaged" in capsys.readouterr().out
    assert office.booked() == ["req_0", "req_1", "req_3", "req_4", "req_7"]
    assert bookkeeper.damaged_files(office.engine, office.directory) == {path.name: FRAME_BYTES}
    assert path.exists(), "it is evidence"
    assert office.book() == 0
    path.unlink()
    assert bookkeeper.damaged_files(office.engine, office.directory) == {}


def test_damage_that_spans_more_than_a_group_is_stepped_over(office: Office) -> None:
    path = office.write()
    path.write_bytes(
        journal.frame(settled(0)) + b"\xaa" * (2 * bookkeeper.GROUP_BYTES) + journal.frame(settled(1)) + b"\x01"
    )
    office.write()
    assert office.book() == 2
    assert office.booked() == ["req_0", "req_1"]
    assert bookkeeper.damaged_files(office.engine, office.directory) == {path.name: 2 * bookkeeper.GROUP_BYTES}


def test_a_record_of_a_later_version_stops_its_file_and_no_other(office: Office) -> None:
    payload = b"\x92\xa7unknown\x01"
    strange = len(payload).to_bytes(4, "little") + journal.crc32(payload).to_bytes(4, "little") + payload
    path = office.write()
    path.write_bytes(journal.frame(settled(0)) + strange + journal.frame(settled(1)))
    office.write(2)
    for _ in range(2):
        with pytest.raises(JournalError, match=f"{path.name}, byte {FRAME_BYTES}: a sound record of unknown kind"):
            office.book()
    assert office.booked() == ["req_0", "req_2"]
    assert path.read_bytes()[FRAME_BYTES:].startswith(strange)


DIES = """
import os, sys
from pathlib import Path
from sqlalchemy import event
from vipcloud.clock import SystemClock
from vipcloud.ledger import bookkeeper
from vipcloud.ledger.journal import Journal
from vipcloud.ledger.records import Settled
from vipcloud.storage.engine import open_engine

directory = Path(sys.argv[2])
engine = open_engine(sys.argv[1])  # children take over the statements that it has compiled, and none of its connections

def write(request_id):
    book = Journal(directory, lambda callback: None, SystemClock())
    counts = (1, 0, 2, 0, False, 10, 8, 1.0, 3, 1, 1)
    book.keep(Settled(request_id, "a", None, "m", "deepseek", "m", False, "complete", *counts))
    book.flush()
    book.close()

def book(statements_max):
    '''In a process of its own, which ends after so many statements; whether it came to its own end.'''
    child = os.fork()
    if child == 0:
        left = [statements_max]
        def count(*_):
            left[0] -= 1
            if left[0] == 0:
                os._exit(9)
        engine.dispose(close=False)
        event.listen(engine, "after_cursor_execute", count)
        bookkeeper.book_once(engine, directory)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

write("req_0a")
write("req_0b")
bookkeeper.book_once(engine, directory)
engine.dispose()
rounds, survived = 0, False
while not survived:
    rounds += 1
    write(f"req_{rounds}a")
    write(f"req_{rounds}b")
    survived = book(rounds)
    assert book(-1)
print(rounds)
"""


@pytest.mark.timeout(60)
def test_dying_after_any_statement_changes_nothing_that_is_booked(office: Office) -> None:
    command = [
        sys.executable,
        "-c",
        DIES,
        office.engine.url.render_as_string(hide_password=False),
        str(office.directory),
    ]
    rounds = int(subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=55).stdout)
    assert rounds > 12, "a round has more statements than that, and the process died after each of them"
    assert office.booked() == sorted(f"req_{number}{name}" for number in range(rounds + 1) for name in "ab")
    assert len(office.files()) == 1


def test_a_bookkeeper_killed_while_it_works_leaves_books_that_the_next_one_completes(office: Office) -> None:
    path = office.write()
    path.write_bytes(b"".join(journal.frame(settled(number)) for number in range(20_000)))
    program = """
import sys
from pathlib import Path
from vipcloud.ledger import bookkeeper
from vipcloud.storage import engine
print("ready", flush=True)
bookkeeper.book_once(engine.open_engine(sys.argv[1]), Path(sys.argv[2]))
"""
    command = [
        sys.executable,
        "-c",
        program,
        office.engine.url.render_as_string(hide_password=False),
        str(office.directory),
    ]
    for delay_s in (0.02, 0.05, 0.1, 0.15):
        with subprocess.Popen(command, stdout=subprocess.PIPE) as worker:
            assert worker.stdout is not None
            worker.stdout.readline()
            try:
                worker.wait(delay_s)
            except subprocess.TimeoutExpired:
                worker.kill()
        office.booked()
    office.book()
    assert len(office.booked()) == 20_000


def test_two_bookkeepers_at_once_book_each_request_once(office: Office) -> None:
    path = office.write()
    path.write_bytes(b"".join(journal.frame(settled(number)) for number in range(12_000)))
    booked: list[int] = []
    workers = [threading.Thread(target=lambda: booked.append(office.book())) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert sum(booked) == 12_000
    assert len(office.booked()) == 12_000


def test_the_loop_books_what_is_left_when_it_is_stopped(office: Office) -> None:
    office.write(1)
    stop = threading.Event()
    stop.set()
    bookkeeper.run(Bookkeeper(office.engine, office.directory, ManualClock()), stop)
    assert office.booked() == ["req_1"]


def test_the_loop_outlives_a_store_that_is_away(office: Office, capsys: pytest.CaptureFixture[str]) -> None:
    office.write(1)
    failures = 2
    stop = threading.Event()

    def fail(*_: object) -> None:
        nonlocal failures
        if failures == 0:
            stop.set()
            return
        failures -= 1
        raise OperationalError("BEGIN", {}, OSError("the disk is away"))

    event.listen(office.engine, "before_cursor_execute", fail)
    bookkeeper.run(Bookkeeper(office.engine, office.directory, ManualClock()), stop, interval_s=0.001)
    event.remove(office.engine, "before_cursor_execute", fail)
    assert office.booked() == ["req_1"]
    assert "booking_failed" in capsys.readouterr().out
    assert failures == 0


def test_a_charge_beyond_the_grant_is_booked_all_the_same(office: Office) -> None:
    """The guard keeps balances above zero; the books record what happened."""
    book = office.journal()
    book.keep(msgspec.structs.replace(settled(1), charge_nanousd=10**15))
    book.flush()
    book.close()
    office.book()
    with storage.reading(office.engine) as connection:
        assert store.balance(connection, "b") == -(10**15)


@pytest.mark.parametrize("parts", [(6,), (1, 5), (3, 3), (1, 1, 1, 1, 1, 1)])
def test_a_key_is_the_last_requests_that_was_opened_with_it(office: Office, parts: tuple[int, ...]) -> None:
    """Two ended without an answer and freed it; whichever of it is booked together."""
    nothing = {"account_id": "a", "charge_nanousd": 0, "cost_nanousd": 0}
    records: list[Record] = []
    for number, outcome in ((1, "upstream_failed"), (2, "client_gone"), (3, "complete")):
        opened = Opened(f"req_{number}", "a", "key_1", "m", 99, 1.0, key_hash=bytes(32), body_hash=bytes([number] * 32))
        records += [opened, msgspec.structs.replace(settled(number), **nothing, outcome=outcome)]
    book = office.journal()
    for count in parts:
        for record in records[:count]:
            book.keep(record)
        book.flush()
        office.book()
        del records[:count]
    book.close()
    with storage.reading(office.engine) as connection:
        assert used_keys.find(connection, ("a", bytes(32)), 0.0) == used_keys.Used("req_3", bytes([3] * 32), 0)
    assert office.booked() == ["req_1", "req_2", "req_3"]


def test_the_bookkeeper_says_how_it_stands(office: Office) -> None:
    clock = ManualClock(NOW)
    keeper = Bookkeeper(office.engine, office.directory, clock)
    assert bookkeeper.status(office.directory) is None
    office.write(1, 3)
    keeper.round()
    told = bookkeeper.status(office.directory)
    assert told is not None
    assert (told.booked_until, told.backlog_bytes, told.breaks, told.failing) == (NOW, 0, (), "")
    assert (told.checked_at, told.checked_rows, told.overdrawn) == (NOW, 4, 1), "nobody was granted anything"
    with storage.writing(office.engine) as connection:
        connection.execute(text("UPDATE balance SET credits_nanousd = 1 WHERE ledger_account = 'revenue'"))
    clock.advance(30)
    keeper.round()
    told = bookkeeper.status(office.directory)
    assert told is not None
    assert (told.booked_until, told.checked_at, told.breaks) == (NOW + 30, NOW, ())
    clock.advance(30)
    keeper.round()
    told = bookkeeper.status(office.directory)
    assert told is not None
    assert told.breaks[0].startswith("revenue: the balance says")
    assert bookkeeper.booked_until(office.directory) == NOW + 60


def test_a_request_is_found_in_the_journal_before_it_is_booked(office: Office) -> None:
    book = office.journal()
    for number in range(200):
        book.append(Opened(f"req_{number}", "a", "key_1", "deepseek-chat", 99, 1.0))
        book.keep(settled(number))
        book.flush()
    for number in (0, 1, 99, 199):
        assert bookkeeper.unbooked(office.engine, office.directory, f"req_{number}") == settled(number)
    assert bookkeeper.unbooked(office.engine, office.directory, "req_") is None
    assert bookkeeper.unbooked(office.engine, office.directory, "req_200") is None
    book.keep(Opened("req_open", "a", "key_1", "deepseek-chat", 99, 1.0))
    book.flush()
    assert bookkeeper.unbooked(office.engine, office.directory, "req_open") is None
    office.book()
    assert bookkeeper.unbooked(office.engine, office.directory, "req_199") is None
    book.close()

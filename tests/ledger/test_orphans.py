"""Requests whose process died: paid for as far as the journal says they had come, once, whatever dies meanwhile."""

import os
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from sqlalchemy import event, select

from vipcloud.clock import ManualClock
from vipcloud.ledger import audit, bookkeeper, journal, rules, store
from vipcloud.ledger.journal import Journal
from vipcloud.ledger.records import Aborted, Opened, Progress, Reached, Settled
from vipcloud.storage import engine as storage
from vipcloud.storage import migrate, schema


def opened(name: str, hold_nanousd: int = 100) -> Opened:
    return Opened(name, "a", "key_1", "deepseek-chat", hold_nanousd, 1_795_000_000.0, price_version="v1")


def reached(name: str, completion_tokens: int) -> Reached:
    return Reached(name, "deepseek", "deepseek-chat", 5, completion_tokens, 0, completion_tokens, 3, 70, 40, 1)


def settled(name: str, charge_nanousd: int = 9) -> Settled:
    ended = rules.orphaned(opened(name), reached(name, 9))
    return msgspec.structs.replace(ended, outcome="complete", charge_nanousd=charge_nanousd, estimated=False)


class Shop:
    """A store, and a journal that processes write one after the other."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.engine = storage.open_engine(folder / "books.db")
        migrate.upgrade(self.engine)
        self.directory = folder / "journal"
        self._journal: Journal | None = None

    def start(self, worker: str = "gateway", file_bytes_max: int = journal.FILE_BYTES_MAX) -> Journal:
        """A process begins; the one before it has died."""
        if self._journal is not None:
            os.close(self._journal._file)
            os.close(self._journal._lock)
        turns = ManualClock()
        self._journal = Journal(self.directory, lambda _: None, turns, worker=worker, file_bytes_max=file_bytes_max)
        return self._journal

    def book(self) -> int:
        return bookkeeper.book_once(self.engine, self.directory)

    def catch_up(self) -> int:
        return bookkeeper.catch_up(self.engine, self.directory)

    def rows(self) -> dict[str, tuple[str, int]]:
        """Outcome and charge of each request in the books, which are right."""
        with storage.reading(self.engine) as connection:
            assert audit.Audit().check(connection) == []
            return {
                row.request_id: (row.outcome, row.charge_nanousd)
                for row in store.recent_usage(connection, rows_max=10_000)
            }

    def open(self) -> list[str]:
        with storage.reading(self.engine) as connection:
            return sorted(connection.scalars(select(schema.open_request.c.request_id)))


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    shop = Shop(tmp_path)
    yield shop
    shop.engine.dispose()


def write(book: Journal, *records: journal.Record) -> None:
    for record in records[:-1]:
        book.append(record)
    book.keep(records[-1])
    book.flush()


def test_an_orphan_pays_for_what_it_had_reached_and_for_nothing_otherwise(shop: Shop) -> None:
    book = shop.start()
    write(
        book,
        opened("silent"),
        opened("spoke"),
        opened("done"),
        Progress([reached("spoke", 3), reached("done", 2)]),
        Progress([reached("spoke", 7)]),
        settled("done"),
    )
    shop.start()
    assert shop.catch_up() == 3
    assert shop.rows() == {"silent": ("crashed", 0), "spoke": ("crashed", 7), "done": ("complete", 9)}
    assert shop.open() == []
    with storage.reading(shop.engine) as connection:
        row = store.usage_of(connection, "spoke")
    assert row is not None
    assert (row.held_nanousd, row.price_version, row.estimated, row.completion_tokens) == (100, "v1", True, 7)
    assert (row.provider, row.cost_nanousd, row.duration_ms, row.first_token_ms) == ("deepseek", 3, 70, 40)


def test_what_runs_is_left_alone_until_its_process_is_dead(shop: Shop) -> None:
    book = shop.start()
    write(book, opened("runs"), Progress([reached("runs", 4)]))
    assert [shop.book(), shop.catch_up(), shop.book()] == [0, 0, 0]
    assert shop.open() == ["runs"]
    write(book, Progress([reached("runs", 6)]))
    assert shop.book() == 0
    shop.start()
    assert [shop.book(), shop.catch_up(), shop.catch_up()] == [0, 1, 0]
    assert shop.rows() == {"runs": ("crashed", 6)}


def test_a_request_may_end_in_another_file_than_it_began(shop: Shop) -> None:
    book = shop.start(file_bytes_max=150)
    for number in range(10):
        write(book, opened(f"r{number}"))
        shop.book()
        write(book, Progress([reached(f"r{number}", 1)]))
    for number in range(5):
        write(book, settled(f"r{number}"))
    shop.book()
    assert shop.open() == [f"r{number}" for number in range(5, 10)]
    shop.start()
    assert shop.catch_up() == 5
    assert shop.rows() == {f"r{number}": ("complete", 9) if number < 5 else ("crashed", 1) for number in range(10)}


def test_another_workers_requests_are_none_of_ours(shop: Shop) -> None:
    other = Journal(shop.directory, lambda _: None, ManualClock(), worker="w2")
    write(other, opened("theirs"))
    write(shop.start(), opened("ours"))
    shop.start()
    assert shop.catch_up() == 1
    assert (shop.rows(), shop.open()) == ({"ours": ("crashed", 0)}, ["theirs"])
    other.close()


def test_a_request_that_is_in_the_books_is_not_settled_again(shop: Shop) -> None:
    """As when a damaged file is mended by hand and booked anew."""
    write(shop.start(), settled("r"))
    write(shop.start(), opened("r"), Progress([reached("r", 5)]))
    shop.start()
    assert shop.catch_up() == 1
    assert (shop.rows(), shop.open()) == ({"r": ("complete", 9)}, [])


def test_calls_that_nobody_pays_for_are_posted_once(shop: Shop) -> None:
    calls = [Aborted("r", 1, "deepseek", 40, 1.0), Aborted("r", 2, "zhipu", 2, 2.0), Aborted("r", 3, "zhipu", 0, 3.0)]
    write(shop.start(), opened("r"), *calls, settled("r"))
    write(shop.start(), *calls[:2], settled("r"))
    assert shop.catch_up() == 1
    assert shop.rows() == {"r": ("complete", 9)}
    with storage.reading(shop.engine) as connection:
        balances = {row.ledger_account: tuple(row)[1:] for row in connection.execute(select(schema.balance))}
    assert balances["aborted_attempts"] == (0, 42)
    assert (balances["upstream:deepseek"], balances["upstream:zhipu"]) == ((43, 0), (2, 0))
    assert balances["cost:deepseek"] == (0, 3)


@pytest.mark.timeout(60)
def test_dying_after_any_statement_settles_each_orphan_once(shop: Shop) -> None:
    """A child process per point of death: it catches up and ends after so many statements."""
    rounds, survived = 0, False
    while not survived:
        rounds += 1
        write(
            shop.start(),
            opened(f"{rounds}-silent"),
            opened(f"{rounds}-spoke"),
            opened(f"{rounds}-done"),
            Progress([reached(f"{rounds}-spoke", 5)]),
            settled(f"{rounds}-done"),
        )
        shop.start()
        survived = catches_up_in_a_child(shop, rounds)
        assert catches_up_in_a_child(shop, -1)
        assert shop.open() == []
    assert rounds > 15, "there are more statements than that, and a process died after each of them"
    ends = {"silent": ("crashed", 0), "spoke": ("crashed", 5), "done": ("complete", 9)}
    assert shop.rows() == {f"{number}-{name}": end for number in range(1, rounds + 1) for name, end in ends.items()}


def catches_up_in_a_child(shop: Shop, statements_max: int) -> bool:
    shop.engine.dispose()  # the child takes over the statements that are compiled, and no connection
    child = os.fork()
    if child == 0:
        left = [statements_max]

        def count(*_: object) -> None:
            left[0] -= 1
            if left[0] == 0:
                os._exit(9)

        event.listen(shop.engine, "after_cursor_execute", count)
        os.close(1)
        os.open(os.devnull, os.O_WRONLY)
        bookkeeper.catch_up(shop.engine, shop.directory)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

import asyncio
import random
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import Engine, event

from databases import Postgres
from vipcloud.accounts import rules, store
from vipcloud.accounts.directory import Directory, Principal
from vipcloud.clock import ManualClock
from vipcloud.errors import Forbidden, Unauthenticated, Unavailable
from vipcloud.ledger import store as ledger
from vipcloud.money import NanoUSD
from vipcloud.settings import AccountSettings
from vipcloud.storage import engine as storage

NOW = 1_795_000_000.0


class House:
    """A store with one account, its directory, and a count of the questions the store was asked about keys."""

    def __init__(self, engine: Engine, keys_cached_max: int = 100, unknown_keys_cached_max: int = 100) -> None:
        self.dice = random.Random(3).randbytes
        self.engine = engine
        self.clock = ManualClock()
        with storage.writing(self.engine) as connection:
            self.account = store.create_account(connection, "ada@example.com", NOW, self.dice, rpm=7)
            ledger.grant(connection, "welcome", self.account.id, NanoUSD(5_000_000_000), NOW)
        self.questions = 0
        self.gate = threading.Event()  # closed, it holds a question about a key in its thread
        self.gate.set()
        self.read = threading.Event()
        event.listen(self.engine, "after_cursor_execute", self._count)
        settings = AccountSettings(keys_cached_max=keys_cached_max, unknown_keys_cached_max=unknown_keys_cached_max)
        self.directory = Directory(self.engine, self.clock, settings, loads_max=4)

    def _count(self, _connection: object, _cursor: object, statement: str, *_: object) -> None:
        if "FROM api_key JOIN account" in statement:
            self.questions += 1
            self.read.set()
            assert self.gate.wait(10)

    def key(self) -> bytes:
        with storage.writing(self.engine) as connection:
            return store.create_key(connection, self.account.id, NOW, self.dice).plaintext.encode()

    def stranger(self) -> bytes:
        return rules.mint(self.dice(rules.RANDOM_BYTES)).encode()

    def revoke(self, key: bytes) -> None:
        with storage.writing(self.engine) as connection:
            store.revoke_key(connection, key.decode(), NOW)

    def suspend(self, *, suspended: bool) -> None:
        with storage.writing(self.engine) as connection:
            store.set_suspended(connection, self.account.id, suspended=suspended)


@pytest.fixture
def house(engine: Engine) -> House:
    return House(engine)


@pytest.fixture
def small_house(engine: Engine) -> House:
    return House(engine, keys_cached_max=2, unknown_keys_cached_max=2)


@pytest.fixture
def lose_store(engine: Engine, request: pytest.FixtureRequest) -> Callable[[], Callable[[], None]]:
    """Puts the store out of reach; what it returns brings it back."""

    def lose_file() -> Callable[[], None]:
        engine.dispose()
        path = Path(str(engine.url.database))
        away = path.rename(path.with_suffix(".away"))
        path.mkdir()

        def find() -> None:
            engine.dispose()
            path.rmdir()
            away.rename(path)

        return find

    def lose_server() -> Callable[[], None]:
        server: Postgres = request.getfixturevalue("postgres")
        server.close(str(engine.url.database))
        return lambda: server.reopen(str(engine.url.database))

    return lose_file if engine.name == "sqlite" else lose_server


async def test_a_key_is_read_once_and_then_known(house: House) -> None:
    key = house.key()
    assert house.directory.lookup(key) is None
    principal = await house.directory.authenticate(key)
    assert house.directory.lookup(key) is principal
    assert await house.directory.authenticate(key) is principal
    assert house.questions == 1
    account = principal.account
    assert (account.id, account.tier, account.rpm, account.rpd) == (house.account.id, "payg", 7, None)
    assert (account.granted_nanousd, account.charged_nanousd) == (5_000_000_000, 0)


async def test_a_known_key_does_not_suspend_the_caller(house: House) -> None:
    key = house.key()
    principal = await house.directory.authenticate(key)
    call = house.directory.authenticate(key)
    with pytest.raises(StopIteration) as stopped:
        call.send(None)
    assert stopped.value.value is principal


@pytest.mark.parametrize(
    ("token", "message"),
    [
        (b"", "No API key was given. Send it in the header `Authorization: Bearer vc-sk-…`."),
        (b"hunter2", "Incorrect API key provided: hu…."),
        (b"vc-sk-" + b"0" * 46, "Incorrect API key provided: vc-sk-00…000."),
        (b"\xff" * 1_000_000, "Incorrect API key provided: ��������…���."),
    ],
)
async def test_a_malformed_key_is_refused_without_asking_the_store(house: House, token: bytes, message: str) -> None:
    with pytest.raises(Unauthenticated) as refusal:
        await house.directory.authenticate(token)
    assert refusal.value.message == message
    assert house.questions == 0


async def test_an_unknown_key_is_asked_for_once_until_it_is_made(house: House) -> None:
    stranger = house.stranger()
    for _ in range(3):
        with pytest.raises(Unauthenticated, match="Incorrect API key provided: vc-sk-"):
            await house.directory.authenticate(stranger)
    assert house.questions == 1
    with storage.writing(house.engine) as connection:
        dealt = iter([b"", b"x" * 32])
        made = store.create_key(connection, house.account.id, NOW, lambda size: next(dealt) or bytes(size))
    zero = made.plaintext.encode()
    await house.directory.poll_changes()
    assert (await house.directory.authenticate(zero)).key_id == made.row.id


async def test_a_key_refused_before_it_was_made_works_after_the_next_poll(house: House) -> None:
    dice = random.Random(99)
    later = rules.mint(dice.randbytes(rules.RANDOM_BYTES)).encode()
    with pytest.raises(Unauthenticated):
        await house.directory.authenticate(later)
    with storage.writing(house.engine) as connection:
        made = store.create_key(connection, house.account.id, NOW, random.Random(99).randbytes)
    assert made.plaintext.encode() == later
    with pytest.raises(Unauthenticated):
        await house.directory.authenticate(later)
    await house.directory.poll_changes()
    assert (await house.directory.authenticate(later)).key_id == made.row.id


async def test_a_revoked_key_stops_at_the_next_poll(house: House) -> None:
    key, other = house.key(), house.key()
    kept = await house.directory.authenticate(other)
    await house.directory.authenticate(key)
    house.revoke(key)
    await house.directory.poll_changes()
    for _ in range(2):
        with pytest.raises(Unauthenticated, match=r"The API key vc-sk-.{4}….{4} has been revoked\."):
            await house.directory.authenticate(key)
    assert house.directory.lookup(key) is None
    assert house.directory.lookup(other) is kept


async def test_account_changes_reach_the_same_object(house: House) -> None:
    first, second = house.key(), house.key()
    account = (await house.directory.authenticate(first)).account
    assert (await house.directory.authenticate(second)).account is account
    with storage.writing(house.engine) as connection:
        ledger.grant(connection, "top-up", house.account.id, NanoUSD(1), NOW)
        store.set_limits(connection, house.account.id, tier="pro", rpm=None, rpd=9, concurrency=0)
    await house.directory.poll_changes()
    assert account.granted_nanousd == 5_000_000_001
    assert (account.tier, account.rpm, account.rpd, account.concurrency) == ("pro", None, 9, 0)
    assert (await house.directory.authenticate(house.key())).account is account


async def test_a_suspended_account_is_refused_until_it_is_opened_again(house: House) -> None:
    key = house.key()
    principal = await house.directory.authenticate(key)
    house.suspend(suspended=True)
    await house.directory.poll_changes()
    assert house.directory.lookup(key) is None
    for token in (key, house.key()):
        with pytest.raises(Forbidden, match="suspended"):
            await house.directory.authenticate(token)
    house.suspend(suspended=False)
    await house.directory.poll_changes()
    assert house.directory.lookup(key) is principal


async def test_many_requests_with_one_unknown_key_ask_once(house: House) -> None:
    key = house.key()
    house.gate.clear()
    async with asyncio.TaskGroup() as tasks:
        waiting = [tasks.create_task(house.directory.authenticate(key)) for _ in range(50)]
        await asyncio.to_thread(house.read.wait, 10)
        waiting[0].cancel()  # whoever asked first may leave: the others still get their answer
        await asyncio.wait([waiting[0]])
        house.gate.set()
    assert waiting[0].cancelled()
    assert len({id(task.result()) for task in waiting[1:]}) == 1
    assert house.questions == 1


async def test_a_row_older_than_the_change_feed_is_read_again(house: House) -> None:
    key = house.key()
    house.gate.clear()
    async with asyncio.TaskGroup() as tasks:
        call = tasks.create_task(refusal(house.directory, key))
        await asyncio.to_thread(house.read.wait, 10)  # the row has been read, and says that the key is good
        house.revoke(key)
        await house.directory.poll_changes()
        house.gate.set()
    assert "has been revoked" in call.result()
    assert house.questions == 2


async def test_too_many_lookups_at_once_are_told_to_come_back(house: House) -> None:
    house.gate.clear()
    async with asyncio.TaskGroup() as tasks:
        waiting = [tasks.create_task(refusal(house.directory, house.stranger())) for _ in range(4)]
        await asyncio.to_thread(house.read.wait, 10)
        with pytest.raises(Unavailable) as refused:
            await house.directory.authenticate(house.stranger())
        house.gate.set()
    assert refused.value.retry_after_s == 1
    assert all("Incorrect API key" in call.result() for call in waiting)


async def test_with_the_store_away_known_keys_work_and_unknown_ones_are_not_called_wrong(
    house: House, lose_store: Callable[[], Callable[[], None]]
) -> None:
    key, cold = house.key(), house.key()
    principal = await house.directory.authenticate(key)
    await house.directory.poll_changes()
    find_store = lose_store()
    house.clock.advance(3)
    await house.directory.poll_changes()
    assert house.directory.lag_s == 3
    assert await house.directory.authenticate(key) is principal
    with pytest.raises(Unavailable) as refusal:
        await house.directory.authenticate(cold)
    assert refusal.value.retry_after_s == 1
    find_store()
    house.revoke(key)
    await house.directory.poll_changes()
    assert house.directory.lag_s == 0
    assert house.directory.lookup(key) is None
    assert isinstance(await house.directory.authenticate(cold), Principal)


async def test_a_flood_of_wrong_keys_pushes_out_no_right_one(small_house: House) -> None:
    keys = [small_house.key(), small_house.key()]
    for key in keys:
        await small_house.directory.authenticate(key)
    strangers = [small_house.stranger() for _ in range(20)]
    for stranger in strangers:
        with pytest.raises(Unauthenticated):
            await small_house.directory.authenticate(stranger)
    assert all(small_house.directory.lookup(key) for key in keys)
    asked = small_house.questions
    for stranger in strangers[-2:]:
        with pytest.raises(Unauthenticated):
            await small_house.directory.authenticate(stranger)
    assert small_house.questions == asked, "the latest wrong keys are remembered"
    with pytest.raises(Unauthenticated):
        await small_house.directory.authenticate(strangers[0])
    assert small_house.questions == asked + 1, "older ones are not"


async def test_the_key_that_is_not_used_makes_room(small_house: House) -> None:
    first, second, third, fourth = (small_house.key() for _ in range(4))
    for key in (first, second, third):  # full at two: the third looks at both others and drops the first
        await small_house.directory.authenticate(key)
    assert small_house.directory.lookup(first) is None
    small_house.directory.lookup(second)
    for _ in range(2):
        await small_house.directory.authenticate(fourth)
    held = [key for key in (first, second, third, fourth) if small_house.directory.lookup(key)]
    assert len(held) == 2
    assert fourth in held


async def refusal(directory: Directory, token: bytes) -> str:
    with pytest.raises(Unauthenticated) as refused:
        await directory.authenticate(token)
    return refused.value.message

"""The bank as a state machine: money comes in, is spent, withdrawn and given back in any order, each step perhaps tried
twice or rolled back, and an oracle of plain sums knows what everybody must have. The books themselves must agree.
"""

import tempfile
from pathlib import Path

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule
from sqlalchemy.exc import IntegrityError
from test_ledger_store import USAGE

from vipcloud.ledger import rules, store
from vipcloud.ledger.records import Aborted
from vipcloud.ledger.store import AlreadyPosted, LedgerError
from vipcloud.money import NanoUSD
from vipcloud.storage import engine as storage
from vipcloud.storage import migrate

pytestmark = pytest.mark.timeout(240)  # every step is a transaction on the disk

ACCOUNTS = st.sampled_from(["a", "b"])
AMOUNT = st.integers(1, 5_000_000_000)
NOW = 1_795_000_000.0


class RolledBackError(Exception):
    """Something else in the transaction failed."""


class Bank(RuleBasedStateMachine):
    withdrawals = Bundle("withdrawals")

    @initialize()
    def begin(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.engine = storage.open_engine(Path(self.folder.name) / "books.db")
        migrate.upgrade(self.engine)
        self.has = {"a": 0, "b": 0}
        self.cost = 0
        self.count = 0

    def teardown(self) -> None:
        if hasattr(self, "engine"):
            with storage.reading(self.engine) as connection:
                assert store.differences(connection) == []
            self.engine.dispose()
            self.folder.cleanup()

    def name(self) -> str:
        self.count += 1
        return f"n{self.count}"

    @rule(account=ACCOUNTS, amount=AMOUNT, card=st.booleans(), again=st.booleans())
    def come_in(self, account: str, amount: int, card: bool, again: bool) -> None:
        name, post = self.name(), store.pay_in if card else store.grant
        for turn in range(2 if again else 1):
            try:
                with storage.writing(self.engine) as connection:
                    post(connection, name, account, NanoUSD(amount), NOW)
            except AlreadyPosted:
                assert turn == 1
            else:
                assert turn == 0
                self.has[account] += amount

    @rule(account=ACCOUNTS, parts=st.lists(st.floats(0, 1), min_size=1, max_size=4), twice=st.booleans())
    def spend(self, account: str, parts: list[float], twice: bool) -> None:
        """A group of requests, as the bookkeeper posts them."""
        group, left = [], max(0, self.has[account])
        for part in parts:
            charge = int(left * part / len(parts))
            record = msgspec.structs.replace(
                USAGE,
                request_id=self.name(),
                account_id=account,
                charge_nanousd=charge,
                cost_nanousd=charge // 2,
                held_nanousd=charge,
            )
            group.append(record)
        for turn in range(2 if twice else 1):
            try:
                with storage.writing(self.engine) as connection:
                    store.post_usage(connection, group)
            except IntegrityError:
                assert turn == 1
            else:
                assert turn == 0
                self.has[account] -= sum(record.charge_nanousd for record in group)
                self.cost += sum(record.cost_nanousd for record in group)

    @rule(amount=st.integers(0, 1_000_000), twice=st.booleans())
    def waste(self, amount: int, twice: bool) -> None:
        record = Aborted(self.name(), 1, "deepseek", amount, NOW)
        for _ in range(2 if twice else 1):
            with storage.writing(self.engine) as connection:
                store.post_aborted(connection, [record])
        self.cost += amount

    @rule(target=withdrawals, account=ACCOUNTS, part=st.floats(0.01, 1.5), paid=st.booleans())
    def withdraw(self, account: str, part: float, paid: bool) -> tuple[str, str, int, bool]:
        name, amount = self.name(), max(1, int(self.has[account] * part))
        try:
            with storage.writing(self.engine) as connection:
                store.withdraw(connection, name, "refund", account, NanoUSD(amount), NOW, paid=paid)
        except LedgerError:
            assert amount > self.has[account], "it was refused although the money is there"
            return name, account, 0, paid
        self.has[account] -= amount
        return name, account, amount, paid

    @rule(which=consumes(withdrawals))
    def undo(self, which: tuple[str, str, int, bool]) -> None:
        name, account, amount, paid = which
        if amount:
            with storage.writing(self.engine) as connection:
                store.give_back(connection, name, "refund", account, NanoUSD(amount), NOW, was_paid=paid)
            self.has[account] += amount

    @rule(account=ACCOUNTS, amount=AMOUNT)
    def roll_back(self, account: str, amount: int) -> None:
        try:
            with storage.writing(self.engine) as connection:
                store.grant(connection, self.name(), account, NanoUSD(amount), NOW)
                raise RolledBackError
        except RolledBackError:
            return

    @invariant()
    def everybody_has_what_the_oracle_says(self) -> None:
        if hasattr(self, "engine"):
            with storage.reading(self.engine) as connection:
                assert {name: store.balance(connection, name) for name in self.has} == self.has
                assert store.sums_of(connection, rules.UPSTREAM_PREFIX + "deepseek").balance_nanousd == -self.cost


TestBank = Bank.TestCase
TestBank.settings = settings(deadline=None, max_examples=20, stateful_step_count=20)

"""PURE: which transfers an event makes. A debit is the ledger account an amount leaves, a credit the one it enters.

Ledger accounts: `promo` (credit we give), `customer:ID` (credit a customer holds), `revenue`. A charge bears the
number of the usage row it is for, every other transfer names its cause; so that posting it twice is impossible.
"""

from collections.abc import Mapping
from typing import NamedTuple

from vipcloud.money import AMOUNT_NANOUSD_MAX, NanoUSD

PROMO = "promo"
REVENUE = "revenue"
CUSTOMER_PREFIX = "customer:"
CHARGE = "charge"


class Transfer(NamedTuple):
    """One movement of money. `amount_nanousd` is above 0; `created_at` is seconds since 1970.

    The fields are the table's columns after its first, in their order: the ledger gives the number.
    """

    debit: str
    credit: str
    amount_nanousd: int
    kind: str
    cause: str | None
    created_at: float


class Sums(NamedTuple):
    """What has left a ledger account and what has entered it, ever; nano-dollars, both ≥ 0."""

    debits_nanousd: int = 0
    credits_nanousd: int = 0

    @property
    def balance_nanousd(self) -> NanoUSD:
        return NanoUSD(self.credits_nanousd - self.debits_nanousd)


def customer(account_id: str) -> str:
    """The ledger account of a customer's credit."""
    return CUSTOMER_PREFIX + account_id


def grant(grant_id: str, account_id: str, amount: NanoUSD, created_at: float) -> Transfer:
    """Credit given to an account. Raises ValueError if `amount` is not above 0 or more than the ledger can hold."""
    if not 0 < amount <= AMOUNT_NANOUSD_MAX:
        raise ValueError("a grant must be above $0 and within what the ledger can hold")
    return Transfer(PROMO, customer(account_id), amount, "grant", f"grant/{grant_id}", created_at)


def moved(transfer: Transfer) -> dict[str, Sums]:
    """What `transfer` adds to the sums of the two ledger accounts that it touches."""
    return {
        transfer.debit: Sums(debits_nanousd=transfer.amount_nanousd),
        transfer.credit: Sums(credits_nanousd=transfer.amount_nanousd),
    }


def charged(paid: Mapping[str, int]) -> dict[str, Sums]:
    """What charges add to the sums of ledger accounts. `paid`: nano-dollars by account, all its requests together.

    A request that costs nothing makes no transfer, and an account that pays nothing is not among the sums.
    """
    sums = {customer(account_id): Sums(debits_nanousd=amount) for account_id, amount in sorted(paid.items()) if amount}
    if sums:
        sums[REVENUE] = Sums(credits_nanousd=sum(paid.values()))
    return sums

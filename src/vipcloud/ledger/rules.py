"""PURE: which transfers an event makes. A debit is the ledger account an amount leaves, a credit the one it enters.

Ledger accounts: `promo` (credit we give), `customer:ID` (credit a customer holds), `revenue`. Every transfer's id
derives from what caused it, so that posting it twice is impossible.
"""

from typing import NamedTuple

from vipcloud.money import AMOUNT_NANOUSD_MAX, NanoUSD

PROMO = "promo"
REVENUE = "revenue"
CHARGE_SUFFIX = "/charge"


class Transfer(NamedTuple):
    """One movement of money. `amount_nanousd` is above 0; `created_at` is seconds since 1970.

    The fields stand in the order of the table's columns.
    """

    id: str
    debit: str
    credit: str
    amount_nanousd: int
    kind: str
    request_id: str | None
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
    return f"customer:{account_id}"


def grant(grant_id: str, account_id: str, amount: NanoUSD, created_at: float) -> Transfer:
    """Credit given to an account. Raises ValueError if `amount` is not above 0 or more than the ledger can hold."""
    if not 0 < amount <= AMOUNT_NANOUSD_MAX:
        raise ValueError("a grant must be above $0 and within what the ledger can hold")
    return Transfer(f"grant/{grant_id}", PROMO, customer(account_id), amount, "grant", None, created_at)


def charge(request_id: str, account_id: str, amount: int, created_at: float) -> Transfer:
    """What a customer pays for a request. A request that costs nothing makes no transfer: `amount` is above 0."""
    assert amount > 0, "free requests make no transfer"
    return Transfer(
        request_id + CHARGE_SUFFIX, f"customer:{account_id}", REVENUE, amount, "charge", request_id, created_at
    )


def fold(transfers: list[Transfer]) -> dict[str, Sums]:
    """The sums of every ledger account that `transfers` touch."""
    left: dict[str, int] = {}
    entered: dict[str, int] = {}
    for transfer in transfers:
        left[transfer.debit] = left.get(transfer.debit, 0) + transfer.amount_nanousd
        entered[transfer.credit] = entered.get(transfer.credit, 0) + transfer.amount_nanousd
    return {name: Sums(left.get(name, 0), entered.get(name, 0)) for name in sorted(left.keys() | entered.keys())}

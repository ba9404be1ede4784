"""PURE: which transfers an event makes. A debit is the ledger account an amount leaves, a credit the one it enters.

The chart of accounts:

    customer:ID          credit that a customer holds
    promo:REASON         credit that we give away; for a promo code, the code
    withdrawn:ID         credit taken from a customer, for as long as it is not certain that the money goes back
    cash:stripe          what was paid in
    refunds, disputes    what went back to customers, or was taken back by their banks
    revenue              what was charged
    upstream:PROVIDER    our balance at a provider: it falls with every call, below zero until we pay
    cost:PROVIDER        what the calls cost that customers were charged for
    variance             what calls cost beyond what their customers had agreed to
    aborted_attempts     what calls cost that no customer pays for

Every transfer names its cause, so that posting it twice is impossible. What requests were charged is posted by
customer, and what their calls cost by provider, for all usage rows of a group together, whose first and last number are
in the cause. Earlier versions posted a charge per request: it has no cause, and the number of its usage row.
"""

from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple

from vipcloud.ledger.records import Aborted, Opened, Reached, Settled
from vipcloud.money import AMOUNT_NANOUSD_MAX, NanoUSD

CUSTOMER_PREFIX = "customer:"
PROMO_PREFIX = "promo:"
WITHDRAWN_PREFIX = "withdrawn:"
CASH = "cash:stripe"
REFUNDS = "refunds"
DISPUTES = "disputes"
REVENUE = "revenue"
UPSTREAM_PREFIX = "upstream:"
COST_PREFIX = "cost:"
VARIANCE = "variance"
ABORTED_ATTEMPTS = "aborted_attempts"
SINGLE = frozenset({CASH, REFUNDS, DISPUTES, REVENUE, VARIANCE, ABORTED_ATTEMPTS})
FAMILIES = (CUSTOMER_PREFIX, PROMO_PREFIX, WITHDRAWN_PREFIX, UPSTREAM_PREFIX, COST_PREFIX)

CHARGE = "charge"
COST = "cost"
FOR_ROWS = frozenset({CHARGE, COST, VARIANCE})  # kinds that are posted for usage rows
Withdrawn = Literal["refund", "dispute"]
_GOES_TO: Mapping[Withdrawn, str] = {"refund": REFUNDS, "dispute": DISPUTES}
COMPLETE = "complete"  # the outcome of a request that was answered whole
FAILED = ("upstream_failed", "fault")  # outcomes that delivered nothing, by no doing of the caller's
CRASHED = "crashed"  # the outcome of a request whose process died


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


def withdrawn(account_id: str) -> str:
    """The ledger account of what was taken from a customer's credit, ever; its credits are that."""
    return WITHDRAWN_PREFIX + account_id


def in_chart(ledger_account: str) -> bool:
    """Whether an account of this name may be in the books."""
    return ledger_account in SINGLE or any(
        ledger_account.startswith(family) and len(ledger_account) > len(family) for family in FAMILIES
    )


def grant(grant_id: str, account_id: str, amount: NanoUSD, created_at: float, reason: str = "grants") -> Transfer:
    """Credit given to an account. Raises ValueError if `amount` is not above 0 or more than the ledger can hold."""
    if not 0 < amount <= AMOUNT_NANOUSD_MAX:
        raise ValueError("a grant must be above $0 and within what the ledger can hold")
    return Transfer(PROMO_PREFIX + reason, customer(account_id), amount, "grant", f"grant/{grant_id}", created_at)


def promised(code: str, account_id: str, amount: NanoUSD, created_at: float) -> Transfer:
    """Credit by a promo code, once per code and account. Raises ValueError as `grant` does."""
    if not 0 < amount <= AMOUNT_NANOUSD_MAX:
        raise ValueError("a promo code must give more than $0 and what the ledger can hold")
    return Transfer(
        PROMO_PREFIX + code, customer(account_id), amount, "promo", f"promo/{code}/{account_id}", created_at
    )


def paid_in(payment_id: str, account_id: str, amount: NanoUSD, created_at: float) -> Transfer:
    """What a customer paid by card, once per payment. Raises ValueError as `grant` does."""
    if not 0 < amount <= AMOUNT_NANOUSD_MAX:
        raise ValueError("a payment must be above $0 and within what the ledger can hold")
    return Transfer(CASH, customer(account_id), amount, "topup", f"topup/{payment_id}", created_at)


def withdrawal(withdrawal_id: str, kind: Withdrawn, account_id: str, amount: NanoUSD, created_at: float) -> Transfer:
    """Credit taken from a customer, for a refund or a dispute; `amount` is at most what no request holds."""
    assert amount > 0, "where nothing is left there is nothing to post"
    cause = f"withdrawal/{withdrawal_id}"
    return Transfer(customer(account_id), withdrawn(account_id), amount, kind, cause, created_at)


def paid_out(withdrawal_id: str, kind: Withdrawn, account_id: str, amount: NanoUSD, created_at: float) -> Transfer:
    """The money of a withdrawal has left us."""
    cause = f"withdrawal/{withdrawal_id}/out"
    return Transfer(withdrawn(account_id), _GOES_TO[kind], amount, f"{kind}_paid", cause, created_at)


def given_back(
    withdrawal_id: str, kind: Withdrawn, account_id: str, amount: NanoUSD, created_at: float, *, was_paid: bool
) -> Transfer:
    """The money of a withdrawal did not leave us, or came back: the credit is the customer's again."""
    source = _GOES_TO[kind] if was_paid else withdrawn(account_id)
    cause = f"withdrawal/{withdrawal_id}/back"
    return Transfer(source, customer(account_id), amount, f"{kind}_returned", cause, created_at)


Posting = tuple[str, str]  # a kind of FOR_ROWS, and whose: a customer's account, or a provider


def due(account_id: str, provider: str | None, charge: int, cost: int, variance: int) -> list[tuple[Posting, int]]:
    """What usage rows of one account at one provider are posted for, and with which amounts. 0 is not posted."""
    at = provider or ""
    amounts = ((CHARGE, account_id), charge), ((COST, at), cost - variance), ((VARIANCE, at), variance)
    return [each for each in amounts if each[1]]


def sides(posting: Posting) -> tuple[str, str]:
    """The accounts that such a transfer leaves and enters."""
    kind, whose = posting
    if kind == CHARGE:
        return customer(whose), REVENUE
    return UPSTREAM_PREFIX + whose, COST_PREFIX + whose if kind == COST else VARIANCE


def posted(amounts: Mapping[Posting, int], first: int, last: int, at: float) -> list[Transfer]:
    """The transfers for the usage rows from `first` to `last`, which are the amounts' sums."""
    return [
        Transfer(*sides(posting), amount, posting[0], f"{posting[0]}/{posting[1]}/{first}-{last}", at)
        for posting, amount in sorted(amounts.items())
    ]


def covered(number: int, transfer: Transfer) -> tuple[Posting, int, int]:
    """What a transfer of FOR_ROWS, with this number, is posted for, and its first and last usage row.

    Raises ValueError for a cause that `posted` does not write.
    """
    if transfer.cause is None:
        return (transfer.kind, transfer.debit.removeprefix(CUSTOMER_PREFIX)), number, number
    whose, _, numbers = transfer.cause.removeprefix(transfer.kind + "/").rpartition("/")
    first, _, last = numbers.partition("-")
    return (transfer.kind, whose), int(first), int(last)


def aborted(record: Aborted) -> Transfer:
    """What a call costs us that no customer pays for."""
    cause = f"aborted/{record.request_id}/{record.number}"
    return Transfer(
        UPSTREAM_PREFIX + record.provider, ABORTED_ATTEMPTS, record.cost_nanousd, "aborted", cause, record.at
    )


def orphaned(opened: Opened, reached: Reached | None) -> Settled:
    """How a request ends whose process died: paid for as far as it was known to have come, or else for nothing."""
    charge = reached.charge_nanousd if reached is not None else 0
    held = max(opened.hold_nanousd, reached.held_nanousd if reached is not None else 0)
    assert 0 <= charge <= held, "a hold is the ceiling of its request"
    return Settled(
        request_id=opened.request_id,
        account_id=opened.account_id,
        key_id=opened.key_id,
        model=opened.model,
        provider=reached.provider if reached is not None else None,
        upstream_model=reached.upstream_model if reached is not None else None,
        streamed=opened.streamed,
        outcome=CRASHED,
        prompt_tokens=reached.prompt_tokens if reached is not None else 0,
        cached_tokens=0,
        completion_tokens=reached.completion_tokens if reached is not None else 0,
        reasoning_tokens=reached.reasoning_tokens if reached is not None else 0,
        estimated=reached is not None,
        charge_nanousd=charge,
        cost_nanousd=reached.cost_nanousd if reached is not None else 0,
        started_at=opened.opened_at,
        duration_ms=reached.duration_ms if reached is not None else 0,
        first_token_ms=reached.first_token_ms if reached is not None else None,
        attempts=reached.attempts if reached is not None else 0,
        held_nanousd=held,
        price_version=opened.price_version,
    )


def frees_key(settled: Settled) -> bool:
    """Whether its Idempotency-Key may be used again: it ended without an answer, and nothing was charged."""
    return settled.charge_nanousd == 0 and settled.outcome != COMPLETE


def moved(transfers: Iterable[Transfer]) -> dict[str, Sums]:
    """What `transfers` add to the sums of the ledger accounts that they touch."""
    sums: dict[str, Sums] = {}
    for transfer in transfers:
        left, entered = sums.get(transfer.debit, Sums()), sums.get(transfer.credit, Sums())
        sums[transfer.debit] = left._replace(debits_nanousd=left.debits_nanousd + transfer.amount_nanousd)
        sums[transfer.credit] = entered._replace(credits_nanousd=entered.credits_nanousd + transfer.amount_nanousd)
    return sums

"""PURE: what stands in the journal, from which the books are made. No record holds text of a prompt or an answer.

New fields go to the end of a record, with a default: what an earlier version wrote stays readable.
"""

import msgspec


class Opened(msgspec.Struct, array_like=True, tag="opened", frozen=True, gc=False):
    """A request was admitted with a hold. `opened_at` is seconds since 1970."""

    request_id: str
    account_id: str
    key_id: str | None
    model: str
    hold_nanousd: int
    opened_at: float
    streamed: bool = True
    price_version: str = ""
    key_hash: bytes | None = None  # SHA-256 of an Idempotency-Key, and of the body that came with it
    body_hash: bytes | None = None


class Reached(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """How far one open request had come, and what it would cost if it ended there (counted here, within its hold)."""

    request_id: str
    provider: str
    upstream_model: str
    prompt_tokens: int
    completion_tokens: int
    reasoning_tokens: int
    charge_nanousd: int
    cost_nanousd: int
    duration_ms: int
    first_token_ms: int | None
    attempts: int
    held_nanousd: int = 0  # by then: a hold may grow with its answer


class Progress(msgspec.Struct, array_like=True, tag="progress", frozen=True, gc=False):
    """Open requests that moved since the record before. Should the process die, each is charged for what it reached."""

    reached: list[Reached]


class Aborted(msgspec.Struct, array_like=True, tag="aborted", frozen=True, gc=False):
    """An upstream call whose cost is in no usage row, and what its provider bills for it as far as we can tell.

    `number` is the call's place among those of its request; the two name it for good.
    """

    request_id: str
    number: int
    provider: str
    cost_nanousd: int
    at: float


class Settled(msgspec.Struct, array_like=True, tag="settled", frozen=True, gc=False):
    """How a request ended: its usage row, and the charge that the bookkeeper posts.

    The fields are the columns of `usage`, in their order. New fields go to the end of both, with a default. `outcome`
    is the gateway's word for the end state; `cost_nanousd` is what we pay upstream, of which `variance_nanousd` is what
    the customer's hold did not cover; `held_nanousd` is None where an earlier version did not say; `error_code` is that
    of the error which the caller was told, if nothing was delivered; `started_at` is seconds since 1970.
    """

    request_id: str
    account_id: str
    key_id: str | None
    model: str
    provider: str | None
    upstream_model: str | None
    streamed: bool
    outcome: str
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    reasoning_tokens: int
    estimated: bool
    charge_nanousd: int
    cost_nanousd: int
    started_at: float
    duration_ms: int
    first_token_ms: int | None
    attempts: int
    held_nanousd: int | None = None
    variance_nanousd: int = 0
    price_version: str = ""
    finish_reason: str | None = None
    error_code: str = ""


Record = Opened | Progress | Aborted | Settled
REACHED_PER_RECORD = 200  # each well below 200 bytes, a record at most 65,535

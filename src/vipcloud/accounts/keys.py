"""An account's keys in the hands of its owners: the rules that the dashboard and the management API share.

An owner's keys have names, no two that stand have the same one, and there are at most so many. Another account's keys
are not there. What a key may spend and has spent is put together here, for whoever tells it.
"""

from collections.abc import Callable, Container, Iterable
from typing import Literal, NamedTuple

from sqlalchemy import Connection

from vipcloud.accounts import store
from vipcloud.accounts.store import InvalidInput, KeyNotFound, KeyRow, KeyTerms, NewKey
from vipcloud.ledger import reports
from vipcloud.ledger import store as ledger
from vipcloud.ledger.store import KeySpending
from vipcloud.limits.caps import Caps
from vipcloud.limits.rules import DAY_S

Period = Literal["daily", "monthly", "total"]


class Binding(NamedTuple):
    """The cap that leaves a key the least, and what it leaves (not below 0)."""

    cap_nanousd: int
    period: Period
    left_nanousd: int


def make(
    connection: Connection,
    account_id: str,
    name: str,
    terms: KeyTerms,
    now_s: float,
    random_bytes: Callable[[int], bytes],
    *,
    keys_max: int,
    models: Container[str],
) -> NewKey:
    """A new key for an owner; `models` are those there are. Raises InvalidInput."""
    standing = store.standing_keys(connection, account_id, now_s)
    _check_name(name, standing)
    _check_models(terms, models)
    if len(standing) >= keys_max:
        raise InvalidInput(f"{keys_max} keys are the most. Revoke one, or write to us.")
    return store.create_key(connection, account_id, now_s, random_bytes, name, terms)


def change(
    connection: Connection,
    row: KeyRow,
    now_s: float,
    *,
    name: str,
    disabled: bool,
    terms: KeyTerms,
    models: Container[str],
) -> KeyRow:
    """A key with another name or other terms, its end included, or switched on or off. Raises InvalidInput."""
    if name.strip() != row.name:
        standing = store.standing_keys(connection, row.account_id, now_s)
        _check_name(name, [key for key in standing if key.id != row.id])
    if terms.models != row.terms.models:
        _check_models(terms, models)
    return store.change_key(connection, row, now_s, name=name, disabled=disabled, terms=terms)


def managed(connection: Connection, account_id: str, key_hash: bytes) -> KeyRow:
    """The account's key with this hash. Raises KeyNotFound for others', revoked ones, and those that manage."""
    found = store.key_by_hash(connection, key_hash)
    if found is None or found[0].account_id != account_id or found[0].revoked_at is not None or found[0].management:
        raise KeyNotFound("The account has no key with this hash.")
    return found[0]


class Use(NamedTuple):
    """What a key spent, and when it was used last (seconds since 1970)."""

    spent: KeySpending = KeySpending()
    last_at: float | None = None


def use(connection: Connection, account_id: str, rows: Iterable[KeyRow], now_s: float) -> dict[str, Use]:
    """Of each of the account's keys, by id."""
    ids = [row.id for row in rows]
    spent = ledger.spending_of_keys(connection, ids, int(now_s // DAY_S))
    last = reports.last_used(connection, account_id, ids)
    return {key_id: Use(spent.get(key_id, KeySpending()), last.get(key_id)) for key_id in ids}


def binding(caps: Caps | None, spent: KeySpending) -> Binding | None:
    """None without a cap."""
    if caps is None:
        return None
    amounts: tuple[tuple[int | None, Period, int], ...] = (
        (caps.total_nanousd, "total", spent.total),
        (caps.monthly_nanousd, "monthly", spent.monthly),
        (caps.daily_nanousd, "daily", spent.daily),
    )
    found = [Binding(cap, period, max(0, cap - used)) for cap, period, used in amounts if cap is not None]
    return min(found, key=lambda each: each.left_nanousd, default=None)


def _check_name(name: str, others: Iterable[KeyRow]) -> None:
    name = name.strip()
    if not name:
        raise InvalidInput("Give the key a name.", "name")
    if any(key.name == name for key in others):
        raise InvalidInput(f"A working key is named {name} already. Choose another name.", "name")


def _check_models(terms: KeyTerms, models: Container[str]) -> None:
    for model in terms.models:
        if model not in models:
            raise InvalidInput(f"There is no model {model[:64]}.", "models")

"""The gateway's memory of keys and accounts: a known key costs a request a dict lookup and, at most, a SHA-256.

A miss asks the store from a thread, once per key however many requests wait for it. Unknown keys are remembered too,
apart from the known, so that a flood of wrong keys pushes out no right one. The change feed (`poll_changes`) says what
to forget. When the store is away, known keys keep working and unknown ones get a 503: never a false 401.

A row read from the store carries the number of the change feed at which it was read. If the feed has moved on since,
the row may be from before a revocation, and is read again.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Final, NamedTuple
from weakref import WeakValueDictionary

import structlog
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from vipcloud.accounts import rules, store
from vipcloud.accounts.store import AccountRow, KeyRow
from vipcloud.clock import Clock
from vipcloud.errors import Forbidden, Unauthenticated, Unavailable
from vipcloud.ledger import store as ledger
from vipcloud.ledger.rules import Sums
from vipcloud.limits.caps import Caps
from vipcloud.limits.guard import NO_CREDIT_LIMIT, Booked, Purse, Subject
from vipcloud.limits.rules import DAY_S, NO_LIMITS, Limits, month
from vipcloud.settings import AccountSettings
from vipcloud.storage import engine as storage
from vipcloud.storage import schema

LOADS_MAX = 1024
CHANCES_MAX = 64  # steps to find a key to drop; then the oldest goes, so that one miss never costs milliseconds
CHANGES_PER_POLL = 1000
CLOSED_KEPT_S = 3600.0  # longer than the slowest body takes to come: its request was let in before that

_log = structlog.get_logger(__name__)
_hash: Final = rules.key_hash


class Account(Purse):
    """An account as the gateway sees it; one object per id for as long as a `Principal` has it.

    Limits: None takes the tier's, 0 is no limit. `granted_nanousd` and the limits follow the store within a poll.
    `charged_nanousd` is what was booked when the object was made and never changes: whoever counts charges takes it
    when it meets the id for the first time, and counts by itself from there.
    """

    def __init__(
        self,
        *,
        id: str,  # noqa: A002
        tier: str,
        rpm: int | None,
        rpd: int | None,
        concurrency: int | None,
        suspended: bool,
        granted_nanousd: int,
        charged_nanousd: int,
        caps: Caps | None = None,
        spent: dict[int, int] | None = None,
    ) -> None:
        super().__init__(id, granted_nanousd, charged_nanousd, caps, spent)
        self.tier = tier
        self.rpm = rpm
        self.rpd = rpd
        self.concurrency = concurrency
        self.suspended = suspended
        self.version = 0  # rises with every change


@dataclass(frozen=True, slots=True)
class Terms:
    """What a key may do, if not all that its account may. `purse` has its caps. Empty or None: no bound."""

    limits: Limits = NO_LIMITS
    purse: Purse | None = None
    expires_at: float | None = None
    models: frozenset[str] = frozenset()
    networks: tuple[IPv4Network | IPv6Network, ...] = ()
    management: bool = False  # it runs no requests


class Principal:
    """Who calls: a key that may be used. `seq` (of the change feed, when read) and `recently_used` are the cache's.

    `terms` is None for a key that may do all that its account may. `subject` was made of both when the account had
    `subject_version`. `shared` is where the directory finds the account, for as long as somebody holds it.
    """

    def __init__(
        self, key_id: str | None, account: Account, seq: int, terms: Terms | None = None, shared: object = None
    ) -> None:
        self.key_id = key_id
        self.account = account
        self.seq = seq
        self.terms = terms
        self.shared = shared
        self.recently_used = True
        self.subject: Subject | None = None
        self.subject_version = 0


class _Loaded(NamedTuple):
    """What the store said about a key, and the change feed's number before it was asked."""

    seq: int
    key: KeyRow | None
    account: AccountRow | None
    sums: Sums
    spent: dict[int, int]
    key_spending: Booked | None


class Directory:
    """Keys and accounts in memory. Belongs to one event loop.

    Reads the change feed's number when it is made; raises SQLAlchemyError if the store is away then.
    """

    def __init__(self, engine: Engine, clock: Clock, settings: AccountSettings, *, loads_max: int = LOADS_MAX) -> None:
        self._engine = engine
        self._clock = clock
        self._settings = settings
        self._loads_max = loads_max
        self._known: OrderedDict[bytes, Principal] = OrderedDict()
        self._refused: OrderedDict[bytes, str] = OrderedDict()
        self._closed: dict[str, float] = {}
        # Each in a set of its own, because to a compiled object there are no weak references.
        self._accounts: WeakValueDictionary[str, set[Account]] = WeakValueDictionary()
        self._stale_accounts: set[str] = set()
        self._loading: dict[bytes, asyncio.Future[_Loaded]] = {}
        with storage.reading(engine) as connection:
            self._seq = store.latest_change(connection)
        self._polled_s = clock.monotonic_s()

    @property
    def engine(self) -> Engine:
        """The store that it reads."""
        return self._engine

    @property
    def lag_s(self) -> float:
        """The age a revocation may have here: seconds since the change feed was last read to its end, or more exactly
        since that reading began."""
        return self._clock.monotonic_s() - self._polled_s

    @property
    def closed(self) -> Collection[str]:
        """The ids of keys that were revoked, and of accounts that were suspended, within the last minutes.

        Of accounts only those that somebody holds. A request that was let in just before may have yet to begin.
        """
        return self._closed.keys()

    def lookup(self, token: bytes) -> Principal | None:
        """The caller, if the key is known and usable; None says nothing: ask `authenticate`."""
        return self.known(_hash(token))

    def known(self, key_hash: bytes) -> Principal | None:
        """The same, by what is stored of the key."""
        principal = self._known.get(key_hash)
        if principal is None or principal.account.suspended:
            return None
        terms = principal.terms
        if terms is not None and terms.expires_at is not None and terms.expires_at <= self._clock.wall_s():
            return None
        principal.recently_used = True
        return principal

    async def authenticate(self, token: bytes) -> Principal:
        """The caller. Does not suspend when the key is known or malformed.

        Raises Unauthenticated, Forbidden (a suspended account) and Unavailable (unknown key, and the store is away).
        """
        return self.lookup(token) or await self._authenticate_unknown(token)

    async def holder(self, row: KeyRow) -> Principal:
        """The caller with a key that was found otherwise than by the key itself. Raises as `authenticate` does."""
        return await self._find(row.hash, row.masked.encode())

    async def poll_changes(self) -> None:
        """Forget what changed in the store since the last poll. When the store is away the next poll catches up."""
        began_s = self._clock.monotonic_s()
        try:
            while True:
                changes, revoked = await asyncio.to_thread(self._read_changes)
                self._forget(changes)
                self._note_closed(revoked)
                await self._refresh_accounts()
                if len(changes) < CHANGES_PER_POLL:
                    break
        except SQLAlchemyError as error:
            _log.warning("changes_not_read", error=type(error).__name__, lag_s=round(self.lag_s, 1))
            return
        self._polled_s = began_s

    async def booked(self, purse: Purse) -> Booked:
        """What the store says of a purse now. Raises Unavailable."""
        try:
            return await asyncio.to_thread(self._read_booked, purse.id)
        except SQLAlchemyError as error:
            raise Unavailable("Credit cannot be checked at present.", retry_after_s=1) from error

    def booked_in(self, connection: Connection, purse_id: str) -> Booked:
        """The same, from a thread that is reading the store."""
        if purse_id.startswith("key_"):
            return _booked_of_key(connection, purse_id)
        return Booked(ledger.sums(connection, purse_id).debits_nanousd, self._spent(connection, purse_id))

    async def _authenticate_unknown(self, token: bytes) -> Principal:
        if not token:
            raise Unauthenticated("No API key was given. Send it in the header `Authorization: Bearer vc-sk-…`.")
        if not rules.well_formed(token):
            raise _incorrect(token)
        return await self._find(_hash(token), token)

    async def _find(self, key: bytes, token: bytes) -> Principal:
        """The caller whose key has the hash `key`; `token` is what refusals show of it."""
        while True:
            principal = self._known.get(key)
            if principal is not None:
                if principal.account.suspended:
                    raise Forbidden("This account is suspended.")
                terms = principal.terms
                if terms is not None and terms.expires_at is not None and terms.expires_at <= self._clock.wall_s():
                    raise Unauthenticated(f"The API key {rules.masked(token.decode())} has expired.")
                return principal
            if key in self._refused:
                raise Unauthenticated(self._refused[key]) if self._refused[key] else _incorrect(token)
            loaded = await self._load(key)
            if loaded.seq >= self._seq:
                self._remember(key, loaded)

    async def _load(self, key: bytes) -> _Loaded:
        """Ask the store, together with everyone who waits for the same key; one who leaves stops nobody else."""
        future = self._loading.get(key)
        if future is None or future.done():  # a finished one has yet to leave, and may be older than the feed
            if len(self._loading) >= self._loads_max:
                raise Unavailable("Too many unknown keys are being looked up; try again shortly.", retry_after_s=1)
            future = asyncio.get_running_loop().run_in_executor(None, self._read_key, key)
            self._loading[key] = future
            future.add_done_callback(lambda done: self._loaded(key, done))
        try:
            return await asyncio.shield(future)
        except SQLAlchemyError as error:
            raise Unavailable("The key cannot be looked up right now; try again shortly.", retry_after_s=1) from error

    def _loaded(self, key: bytes, done: asyncio.Future[_Loaded]) -> None:
        if self._loading.get(key) is done:
            del self._loading[key]
        if not done.cancelled() and (error := done.exception()) is not None:
            _log.warning("key_not_read", error=type(error).__name__)

    def _read_key(self, key: bytes) -> _Loaded:
        """In a thread. The feed's number is read first: what comes after it is at least as new."""
        with storage.reading(self._engine) as connection:
            seq = store.latest_change(connection)
            found = store.key_by_hash(connection, key)
            if found is None:
                return _Loaded(seq, None, None, Sums(), {}, None)
            row, account = found
            spending = _booked_of_key(connection, row.id) if counts_spending(row) else None
            return _Loaded(
                seq, row, account, ledger.sums(connection, account.id), self._spent(connection, account.id), spending
            )

    def _spent(self, connection: Connection, account_id: str) -> dict[int, int]:
        first, _ = month(int(self._clock.wall_s() // DAY_S))
        return ledger.account_charges_by_day(connection, account_id, first)

    def _read_booked(self, purse_id: str) -> Booked:
        with storage.reading(self._engine) as connection:
            return self.booked_in(connection, purse_id)

    def _remember(self, key: bytes, loaded: _Loaded) -> None:
        if loaded.key is None or loaded.account is None:
            self._refuse(key, "")
        elif loaded.key.revoked_at is not None:
            self._refuse(key, f"The API key {loaded.key.masked} has been revoked.")
        elif loaded.key.disabled:
            self._refuse(key, f"The API key {loaded.key.masked} is disabled.")
        elif key not in self._known:
            if len(self._known) >= self._settings.keys_cached_max:
                self._evict()
            terms = _terms(loaded.key, loaded.key_spending)
            shared = self._shared(loaded.account, loaded.sums, loaded.spent)
            (account,) = shared
            self._known[key] = Principal(loaded.key.id, account, loaded.seq, terms, shared)

    def _refuse(self, key: bytes, message: str) -> None:
        if len(self._refused) >= self._settings.unknown_keys_cached_max:
            self._refused.popitem(last=False)
        self._refused[key] = message

    def _evict(self) -> None:
        """Drop the oldest key that was not used since it was last looked at (second chance: a hit moves nothing)."""
        for _ in range(CHANCES_MAX):
            key, principal = self._known.popitem(last=False)
            if not principal.recently_used:
                return
            principal.recently_used = False
            self._known[key] = principal
        self._known.popitem(last=False)

    def _shared(self, row: AccountRow, sums: Sums, spent: dict[int, int]) -> set[Account]:
        """The account, up to date, in its set."""
        shared = self._accounts.get(row.id)
        if shared is None:
            account = Account(
                id=row.id,
                tier=row.tier,
                rpm=row.rpm,
                rpd=row.rpd,
                concurrency=row.concurrency,
                suspended=row.closed,
                granted_nanousd=sums.credits_nanousd,
                charged_nanousd=sums.debits_nanousd,
                caps=row.caps,
                spent=spent,
            )
            shared = self._accounts[row.id] = {account}
        else:
            (account,) = shared
            _update(account, row, sums)
        return shared

    def _read_changes(self) -> tuple[list[store.Change], list[str]]:
        """What has changed, and which of the keys among it are revoked."""
        with storage.reading(self._engine) as connection:
            changes = store.changes_since(connection, self._seq, CHANGES_PER_POLL)
            hashes = [bytes.fromhex(change.subject) for change in changes if change.kind == schema.KEY_CHANGED]
            return changes, store.revoked_among(connection, hashes) if hashes else []

    def _note_closed(self, ids: Iterable[str]) -> None:
        now_s = self._clock.monotonic_s()
        self._closed = {id_: at_s for id_, at_s in self._closed.items() if now_s - at_s < CLOSED_KEPT_S}
        self._closed.update(dict.fromkeys(ids, now_s))

    def _forget(self, changes: list[store.Change]) -> None:
        for change in changes:
            if change.kind == schema.KEY_CHANGED:
                key = bytes.fromhex(change.subject)
                self._refused.pop(key, None)
                principal = self._known.get(key)
                if principal is not None and principal.seq < change.seq:
                    del self._known[key]
            elif change.kind == schema.ACCOUNT_CHANGED:
                self._stale_accounts.add(change.subject)
            self._seq = change.seq

    async def _refresh_accounts(self) -> None:
        stale = [name for name in self._stale_accounts if name in self._accounts]
        if stale:
            for row, sums in await asyncio.to_thread(self._read_accounts, stale):
                for account in self._accounts.get(row.id, ()):
                    _update(account, row, sums)
                    if account.suspended:
                        self._note_closed([account.id])
                    else:
                        self._closed.pop(account.id, None)
        self._stale_accounts.clear()

    def _read_accounts(self, account_ids: list[str]) -> list[tuple[AccountRow, Sums]]:
        with storage.reading(self._engine) as connection:
            rows = [store.account_by_id(connection, account_id) for account_id in account_ids]
            return [(row, ledger.sums(connection, row.id)) for row in rows if row is not None]


def _update(account: Account, row: AccountRow, sums: Sums) -> None:
    account.tier = row.tier
    account.rpm, account.rpd, account.concurrency = row.rpm, row.rpd, row.concurrency
    account.suspended = row.closed
    account.granted_nanousd = sums.credits_nanousd
    account.caps = row.caps
    account.version += 1


def _booked_of_key(connection: Connection, key_id: str) -> Booked:
    by_day = ledger.charges_by_day(connection, key_id)
    return Booked(sum(by_day.values()), by_day)


def counts_spending(row: KeyRow) -> bool:
    """Whether a key has a purse: with caps, and once it was changed. A cap that comes again finds all of it counted."""
    return row.caps is not None or row.updated_at is not None


def _terms(row: KeyRow, spending: Booked | None) -> Terms | None:
    """None for a key that may do all that its account may, which is the way that costs nothing."""
    purse = None
    if spending is not None:
        purse = Purse(row.id, NO_CREDIT_LIMIT, spending.charged_nanousd, row.caps or Caps(), spending.spent)
    terms = Terms(
        Limits(row.rpm or 0, row.rpd or 0, row.concurrency or 0),
        purse,
        row.expires_at,
        frozenset(row.models.split(",")) if row.models else frozenset(),
        tuple(map(ip_network, row.networks.split(","))) if row.networks else (),
        row.management,
    )
    return None if terms == Terms() else terms


def _incorrect(token: bytes) -> Unauthenticated:
    return Unauthenticated(f"Incorrect API key provided: {rules.masked_unknown(token)}.")

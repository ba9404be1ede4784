"""Named queries for accounts and keys. Callers bring a connection: `storage.engine.writing` for what changes things.

Each write adds to the change feed in its own transaction, so that a gateway's directory learns of it.
"""

from collections.abc import Callable, Sequence
from ipaddress import ip_network
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import Connection, Select, func, insert, or_, select, update

from vipcloud.accounts import rules
from vipcloud.limits.caps import Caps
from vipcloud.money import AMOUNT_NANOUSD_MAX
from vipcloud.storage import schema

_account, _key, _change, _member = schema.account, schema.api_key, schema.change, schema.member
PLAYGROUND_KEY = "playground"  # the name of the key that the dashboard's playground uses
RandomBytes = Callable[[int], bytes]


class AccountsError(Exception):
    """What was asked of accounts or keys cannot be done. The text is for the operator."""


class AccountExists(AccountsError):
    """The e-mail address has an account."""


class AccountNotFound(AccountsError):
    """No account has this e-mail address or id."""


class KeyNotFound(AccountsError):
    """No key has this id or this beginning, or it is not that key."""


class AmbiguousKey(AccountsError):
    """Several keys begin like this."""


class InvalidInput(AccountsError):
    """An e-mail address, a name or a limit is not one. `field` is of KeyTerms or `name`, where it is known."""

    def __init__(self, text: str, field: str = "") -> None:
        super().__init__(text)
        self.field = field


class AccountRow(NamedTuple):
    """An account as stored. Limits: None takes the tier's, 0 is no limit. `created_at`: seconds since 1970."""

    id: str
    email: str
    tier: str
    rpm: int | None
    rpd: int | None
    concurrency: int | None
    suspended: bool
    created_at: float
    cap_daily_nanousd: int | None = None
    cap_monthly_nanousd: int | None = None
    cap_total_nanousd: int | None = None
    contested: bool = False

    @property
    def caps(self) -> Caps | None:
        return _caps(self)

    @property
    def closed(self) -> bool:
        """Whether its keys are refused: the operator's word, or a payment that is contested."""
        return self.suspended or self.contested


class KeyRow(NamedTuple):
    """A key as stored: its hash, never itself. `masked` is for people. `…_at`: seconds since 1970.

    `models` and `networks` (CIDRs) have commas between; None: every one. Limits: None is none but the account's. One
    that is revoked never works again; one that is `disabled` may.
    """

    id: str
    account_id: str
    hash: bytes
    masked: str
    name: str
    created_at: float
    revoked_at: float | None
    cap_daily_nanousd: int | None = None
    cap_monthly_nanousd: int | None = None
    cap_total_nanousd: int | None = None
    rpm: int | None = None
    rpd: int | None = None
    concurrency: int | None = None
    expires_at: float | None = None
    models: str | None = None
    networks: str | None = None
    management: bool = False
    disabled: bool = False
    updated_at: float | None = None

    @property
    def caps(self) -> Caps | None:
        return _caps(self)

    def ended(self, now_s: float) -> bool:
        """Whether it has been revoked or has expired."""
        return self.revoked_at is not None or (self.expires_at is not None and self.expires_at <= now_s)

    @property
    def terms(self) -> "KeyTerms":
        """What a key that takes over from this one may do. When this one ends is its own business."""
        return KeyTerms(
            caps=_caps(self) or Caps(),
            rpm=self.rpm,
            rpd=self.rpd,
            concurrency=self.concurrency,
            expires_at=None,
            models=tuple(self.models.split(",")) if self.models else (),
            networks=tuple(self.networks.split(",")) if self.networks else (),
            management=self.management,
        )


class KeyTerms(NamedTuple):
    """What a key may do, if not all that its account may. `networks`: addresses or CIDRs.

    With `management` it manages the account's other keys and runs no requests.
    """

    caps: Caps = Caps()
    rpm: int | None = None
    rpd: int | None = None
    concurrency: int | None = None
    expires_at: float | None = None
    models: Sequence[str] = ()
    networks: Sequence[str] = ()
    management: bool = False


ALL_TERMS = KeyTerms()


class NewKey(NamedTuple):
    """A key just made; `plaintext` is shown once and kept nowhere."""

    plaintext: str
    row: KeyRow


class Change(NamedTuple):
    """One line of the change feed; `kind` and `subject` as in `storage.schema`."""

    seq: int
    kind: str
    subject: str


def create_account(
    connection: Connection,
    email: str,
    created_at: float,
    random_bytes: RandomBytes,
    *,
    tier: str = "payg",
    rpm: int | None = None,
    rpd: int | None = None,
    concurrency: int | None = None,
) -> AccountRow:
    """A new account without credit, and its owner, who may sign in. Raises AccountExists and InvalidInput.

    That the tier exists is the caller's to see to.
    """
    email = _email(email)
    _check_limits(rpm, rpd, concurrency)
    if connection.scalar(select(_account.c.id).where(_account.c.email == email)) is not None:
        raise AccountExists(f"{email} has an account already.")
    if connection.scalar(select(_member.c.id).where(_member.c.email == email)) is not None:
        raise AccountExists(f"{email} is a member of another account.")
    row = AccountRow(
        id=new_id("acct", random_bytes),
        email=email,
        tier=tier,
        rpm=rpm,
        rpd=rpd,
        concurrency=concurrency,
        suspended=False,
        created_at=created_at,
    )
    connection.execute(insert(_account).values(row._asdict()))
    owner = {"id": new_id("mem", random_bytes), "account_id": row.id, "email": email, "role": "owner"}
    connection.execute(insert(_member).values(**owner, created_at=created_at))
    schema.announce(connection, schema.ACCOUNT_CHANGED, row.id)
    return row


def find_account(connection: Connection, email: str) -> AccountRow:
    """The account of an e-mail address in any case. Raises AccountNotFound and InvalidInput."""
    email = _email(email)
    row = connection.execute(select(_account).where(_account.c.email == email)).one_or_none()
    if row is None:
        raise AccountNotFound(f"{email} has no account; `vipcloud accounts create {email}` makes one.")
    return AccountRow(*row)


def account_by_id(connection: Connection, account_id: str) -> AccountRow | None:
    """The account with this id; None if there is none."""
    row = connection.execute(select(_account).where(_account.c.id == account_id)).one_or_none()
    return AccountRow(*row) if row else None


def list_accounts(connection: Connection) -> list[AccountRow]:
    """All accounts, oldest first."""
    return [
        AccountRow(*row) for row in connection.execute(select(_account).order_by(_account.c.created_at, _account.c.id))
    ]


def search_accounts(connection: Connection, words: str, most: int) -> list[AccountRow]:
    """Those whose address, or a member's, has `words` in it, or whose id that is; the newest first."""
    query = select(_account).order_by(_account.c.created_at.desc(), _account.c.id).limit(most)
    words = words.strip().lower()
    if words:
        members = select(schema.member.c.account_id).where(schema.member.c.email.contains(words, autoescape=True))
        query = query.where(
            _account.c.email.contains(words, autoescape=True)
            | (func.lower(_account.c.id) == words)
            | _account.c.id.in_(members)
        )
    return [AccountRow(*row) for row in connection.execute(query)]


def set_limits(
    connection: Connection, account_id: str, *, tier: str, rpm: int | None, rpd: int | None, concurrency: int | None
) -> None:
    """Replace an account's tier and its own limits. Raises AccountNotFound and InvalidInput."""
    _check_limits(rpm, rpd, concurrency)
    _update_account(connection, account_id, {"tier": tier, "rpm": rpm, "rpd": rpd, "concurrency": concurrency})


def set_caps(connection: Connection, account_id: str, caps: Caps) -> None:
    """Replace an account's spending caps. Raises AccountNotFound and InvalidInput."""
    _check_caps(caps)
    _update_account(connection, account_id, dict(_columns(caps)))


def set_suspended(connection: Connection, account_id: str, *, suspended: bool) -> None:
    """The operator's word: close an account to requests, or open it again. Raises AccountNotFound."""
    _update_account(connection, account_id, {"suspended": suspended})


def set_contested(connection: Connection, account_id: str, *, contested: bool) -> None:
    """Close an account for a disputed payment, or end that; the operator's own word stays. Raises AccountNotFound."""
    _update_account(connection, account_id, {"contested": contested})


def create_key(
    connection: Connection,
    account_id: str,
    created_at: float,
    random_bytes: RandomBytes,
    name: str = "",
    terms: KeyTerms = ALL_TERMS,
) -> NewKey:
    """A new key for an account; the only moment at which it can be read. Raises AccountNotFound and InvalidInput."""
    if account_by_id(connection, account_id) is None:
        raise AccountNotFound(f"No account has the id {account_id}.")
    name = _name(name)
    columns = _terms(terms)
    _check_end(terms.expires_at, created_at)
    plaintext = rules.mint(random_bytes(rules.RANDOM_BYTES))
    row = KeyRow(
        id=new_id("key", random_bytes),
        account_id=account_id,
        hash=rules.key_hash(plaintext.encode()),
        masked=rules.masked(plaintext),
        name=name,
        created_at=created_at,
        revoked_at=None,
        **columns,
    )
    connection.execute(insert(_key).values(row._asdict()))
    schema.announce(connection, schema.KEY_CHANGED, row.hash.hex())
    return NewKey(plaintext, row)


def list_keys(connection: Connection, account_id: str | None = None) -> list[KeyRow]:
    """Keys of one account or of all, revoked ones included, oldest first."""
    query = select(_key).order_by(_key.c.created_at, _key.c.id)
    return _keys(connection, query if account_id is None else query.where(_key.c.account_id == account_id))


def standing_keys(connection: Connection, account_id: str, now_s: float) -> list[KeyRow]:
    """The account's keys that have not ended, disabled ones included, oldest first."""
    stands = _key.c.revoked_at.is_(None) & or_(_key.c.expires_at.is_(None), _key.c.expires_at > now_s)
    query = select(_key).where(_key.c.account_id == account_id, stands)
    return _keys(connection, query.order_by(_key.c.created_at, _key.c.id))


def managed_keys(
    connection: Connection, account_id: str, *, disabled: bool, skip: int = 0, most: int = 100
) -> list[KeyRow]:
    """The account's keys that run requests and were not revoked, newest first; disabled ones if asked for."""
    query = select(_key).where(_key.c.account_id == account_id, _key.c.revoked_at.is_(None), ~_key.c.management)
    query = query if disabled else query.where(~_key.c.disabled)
    return _keys(connection, query.order_by(_key.c.created_at.desc(), _key.c.id.desc()).offset(skip).limit(most))


def change_key(
    connection: Connection, row: KeyRow, updated_at: float, *, name: str, disabled: bool, terms: KeyTerms
) -> KeyRow:
    """Replace a key's name and terms, its end included, and switch it on or off. Raises InvalidInput."""
    if terms.expires_at != row.expires_at:
        _check_end(terms.expires_at, updated_at)
    values = {"name": _name(name), "disabled": disabled, "updated_at": updated_at, **_terms(terms)}
    connection.execute(update(_key).where(_key.c.id == row.id).values(values))
    schema.announce(connection, schema.KEY_CHANGED, row.hash.hex())
    return KeyRow(**{**row._asdict(), **values})


def revoke_key(connection: Connection, reference: str, revoked_at: float) -> KeyRow:
    """Revoke a key named by its id, itself, or as shown (`vc-sk-7Qm2…f9Kd`, or the part before the dots).

    Revoking it again changes nothing. Raises KeyNotFound and AmbiguousKey.
    """
    row = _find_key(connection, reference.strip())
    if row.revoked_at is not None:
        return row
    connection.execute(update(_key).where(_key.c.id == row.id).values(revoked_at=revoked_at))
    schema.announce(connection, schema.KEY_CHANGED, row.hash.hex())
    return row._replace(revoked_at=revoked_at)


def end_key(connection: Connection, key_id: str, expires_at: float) -> None:
    """Let a key expire at a time: the old one of a pair, when a new one takes over. Raises KeyNotFound."""
    row = connection.execute(select(_key).where(_key.c.id == key_id)).one_or_none()
    if row is None:
        raise KeyNotFound(f"No key has the id {key_id}.")
    connection.execute(update(_key).where(_key.c.id == key_id).values(expires_at=expires_at))
    schema.announce(connection, schema.KEY_CHANGED, row.hash.hex())


def key_by_hash(connection: Connection, key_hash: bytes) -> tuple[KeyRow, AccountRow] | None:
    """The key with this SHA-256 and its account; None if there is none. Revoked and suspended ones come too."""
    row = connection.execute(select(_key, _account).join(_account).where(_key.c.hash == key_hash)).one_or_none()
    if row is None:
        return None
    values = tuple(row)
    width = len(KeyRow._fields)
    return KeyRow(*values[:width]), AccountRow(*values[width:])


def key_by_id(connection: Connection, key_id: str) -> KeyRow | None:
    """The key with this id; None if there is none."""
    return next(iter(_keys(connection, select(_key).where(_key.c.id == key_id))), None)


def revoked_among(connection: Connection, hashes: Sequence[bytes]) -> list[str]:
    """The ids of those of these keys that are revoked."""
    query = select(_key.c.id).where(_key.c.hash.in_(hashes), _key.c.revoked_at.is_not(None))
    return list(connection.scalars(query))


def working_key(connection: Connection, account_id: str, name: str, now_s: float) -> KeyRow | None:
    """The account's newest key of this name that is neither revoked nor over; None if there is none."""
    query = (
        select(_key)
        .where(_key.c.account_id == account_id, _key.c.name == name, _key.c.revoked_at.is_(None))
        .where(_key.c.expires_at.is_(None) | (_key.c.expires_at > now_s))
        .order_by(_key.c.created_at.desc(), _key.c.id)
        .limit(1)
    )
    return next(iter(_keys(connection, query)), None)


def latest_change(connection: Connection) -> int:
    """The number of the last line of the change feed; 0 before the first."""
    return connection.scalar(select(func.max(_change.c.seq))) or 0


def changes_since(connection: Connection, seq: int, rows_max: int = 1000) -> list[Change]:
    """The lines of the change feed after `seq`, in order, at most `rows_max`."""
    query = select(_change).where(_change.c.seq > seq).order_by(_change.c.seq).limit(rows_max)
    return [Change(*row) for row in connection.execute(query)]


def _find_key(connection: Connection, reference: str) -> KeyRow:
    if rules.well_formed(reference):
        found = _keys(connection, select(_key).where(_key.c.hash == rules.key_hash(reference.encode())))
    elif reference.startswith(rules.PREFIX):
        shown = reference if "…" in reference else f"{reference}…"
        found = _keys(connection, select(_key).where(_key.c.masked.startswith(shown, autoescape=True)))
    else:
        found = _keys(connection, select(_key).where(_key.c.id == reference))
    if not found:
        raise KeyNotFound(
            "No such key: give its id, the key itself, or its beginning as `vipcloud keys list` shows it."
        )
    if len(found) > 1:
        raise AmbiguousKey(
            f"{len(found)} keys look like {reference}; use the id: {', '.join(row.id for row in found)}."
        )
    return found[0]


def _keys(connection: Connection, query: Select[Any]) -> list[KeyRow]:
    return [KeyRow(*row) for row in connection.execute(query)]


def _update_account(connection: Connection, account_id: str, values: dict[str, object]) -> None:
    if connection.execute(update(_account).where(_account.c.id == account_id).values(values)).rowcount == 0:
        raise AccountNotFound(f"No account has the id {account_id}.")
    schema.announce(connection, schema.ACCOUNT_CHANGED, account_id)


def _check_limits(rpm: int | None, rpd: int | None, concurrency: int | None) -> None:
    for name, limit in (("rpm", rpm), ("rpd", rpd), ("concurrency", concurrency)):
        if limit is not None and not 0 <= limit < 2**31:
            raise InvalidInput(f"{name} must be 0 (no limit) or above, and below 2147483648.")


def _check_caps(caps: Caps) -> None:
    for amount in _columns(caps).values():
        if amount is not None and not 0 <= amount <= AMOUNT_NANOUSD_MAX:
            raise InvalidInput("A cap must be $0 or above, and within what the ledger can hold.")


def _name(text: str) -> str:
    try:
        return rules.normal_name(text)
    except ValueError as error:
        raise InvalidInput(f"{error}.".capitalize(), "name") from error


def _check_end(expires_at: float | None, now_s: float) -> None:
    if expires_at is not None and expires_at <= now_s:
        raise InvalidInput("A key must expire later than now.", "expires_at")


def _terms(terms: KeyTerms) -> dict[str, Any]:
    """As columns. Raises InvalidInput."""
    _check_limits(terms.rpm, terms.rpd, terms.concurrency)
    _check_caps(terms.caps)
    bounds = terms.rpm or terms.rpd or terms.concurrency or terms.models
    if terms.management and (bounds or terms.caps != Caps()):
        raise InvalidInput("A management key runs no requests: it takes no caps, limits or models.")
    return {
        "rpm": terms.rpm,
        "rpd": terms.rpd,
        "concurrency": terms.concurrency,
        "expires_at": terms.expires_at,
        "models": ",".join(terms.models) or None,
        "networks": ",".join(map(_network, terms.networks)) or None,
        "management": terms.management,
        **_columns(terms.caps),
    }


def _columns(caps: Caps) -> dict[str, int | None]:
    return {f"cap_{name}": amount for name, amount in msgspec.structs.asdict(caps).items()}


def _caps(row: AccountRow | KeyRow) -> Caps | None:
    """None where there is no cap at all, which is the way that costs nothing."""
    caps = Caps(row.cap_daily_nanousd, row.cap_monthly_nanousd, row.cap_total_nanousd)
    return None if caps == Caps() else caps


def _network(text: str) -> str:
    try:
        return str(ip_network(text.strip()))
    except ValueError as error:
        raise InvalidInput(f"{text!r} is not an address or a network such as 203.0.113.0/24.", "networks") from error


def _email(text: str) -> str:
    try:
        return rules.normal_email(text)
    except ValueError as error:
        raise InvalidInput(f"{error}.") from error


def new_id(kind: str, random_bytes: RandomBytes) -> str:
    """An id of its kind: `acct_…`, 16 base62 characters."""
    return f"{kind}_{rules.encode(random_bytes(32), 16)}"

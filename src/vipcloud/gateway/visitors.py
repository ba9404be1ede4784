"""Names for the addresses that use the demo: each holds for a UTC day, and tells nobody the address.

The books count the demo's requests by these names, so that a day's limits outlast the process. The secret that they
are made with is kept in a file for as long as the day lasts; once it is gone, nobody can find out whose they were.
"""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import structlog
from sqlalchemy import Engine

from vipcloud.ledger import store as ledger
from vipcloud.storage import engine as storage

DEMO = "demo"  # the account, in usage rows: no account of this id is in the store
_ADDRESS_METER = f"{DEMO}:"
_SECRET_BYTES = 32

log = structlog.get_logger(__name__)


class Visitors:
    """`path` is the secret's file; days are counted since 1970."""

    def __init__(self, path: Path, random_bytes: Callable[[int], bytes]) -> None:
        self._path = path
        self._random_bytes = random_bytes
        self._day, self._secret = _read(path)

    def name(self, address: str, day: int) -> str:
        """The address's name on that day, as the key's id in usage rows."""
        if day != self._day:
            self._begin(day)
        return f"visitor_{hashlib.blake2b(address.encode(), key=self._secret, digest_size=8).hexdigest()}"

    def _begin(self, day: int) -> None:
        self._day, self._secret = _read(self._path)
        if self._day == day:
            return  # the gateway that handed over to this one had begun it
        self._day, self._secret = day, self._random_bytes(_SECRET_BYTES)
        try:
            _write(self._path, f"{day} {self._secret.hex()}\n")
        except OSError as error:  # the day's counts then end with the process
            log.warning("the demo's names are not kept", error=str(error))


class DayCounts:
    """How many requests were counted today before this process began, as the books have it."""

    def __init__(self, engine: Engine, day: int, visitors: Visitors) -> None:
        self._day = day
        self._visitors = visitors
        with storage.reading(engine) as connection:
            self._requests = ledger.requests_on(connection, day)

    def before(self, meter_id: str, day: int) -> int:
        """Of a meter of `limits`: an account's, a key's, the demo's, or that of an address which uses the demo."""
        if day != self._day or not self._requests:
            return 0
        if meter_id.startswith(_ADDRESS_METER):
            meter_id = self._visitors.name(meter_id.removeprefix(_ADDRESS_METER), day)
        return self._requests.get(meter_id, 0)


def address_meter(address: str) -> str:
    """The id of the meter of an address that uses the demo."""
    return f"{_ADDRESS_METER}{address}"


def _read(path: Path) -> tuple[int, bytes]:
    """The day and its secret; no day where there is no such file."""
    try:
        day, _, secret = path.read_text(encoding="ascii").strip().partition(" ")
        found = int(day), bytes.fromhex(secret)
    except (OSError, ValueError):
        return -1, b""
    return found if len(found[1]) == _SECRET_BYTES else (-1, b"")


def _write(path: Path, text: str) -> None:
    """For its owner's eyes only; the former day's is gone with it."""
    made = path.with_suffix(".new")
    descriptor = os.open(made, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(descriptor, "w", encoding="ascii") as file:
        file.write(text)
    made.replace(path)

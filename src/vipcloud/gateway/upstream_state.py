"""What a running gateway tells of its upstream accounts, and what it is told of them: two files in the data folder.

`upstreams.json` is written by the gateway when something has changed, and every few seconds; `upstreams.control.json`
is written by `vipcloud upstreams drain` and `revive` and followed by every gateway on the folder. Neither holds a key.
"""

import os
from pathlib import Path
from typing import TypeVar

import msgspec
from msgspec import Struct

from vipcloud.errors import SettingsError
from vipcloud.gateway.upstreams import UpstreamAccount, Upstreams

STATE_FILE, CONTROL_FILE = "upstreams.json", "upstreams.control.json"
FRESH_S = 15.0  # a state that is older is that of a gateway which no longer runs
WRITE_INTERVAL_S = 5.0

T = TypeVar("T")


class ModelState(Struct, frozen=True):
    """`status` is the account's for this model; `breaker` is closed, open or trial; `free_in_s`: till its next try."""

    model: str
    status: str
    breaker: str
    opened: int
    free_in_s: float


class AccountState(Struct, frozen=True):
    id: str
    running: int
    keys: int
    keys_refused: int
    drained: bool
    reason: str
    models: list[ModelState]


class State(Struct, frozen=True):
    """`written_s` is wall time."""

    written_s: float
    accounts: list[AccountState]


class Control(Struct, frozen=True):
    """Ids of accounts that are drained, and how often each has been revived."""

    drained: frozenset[str] = frozenset()
    revived: dict[str, int] = {}


def account_state(account: UpstreamAccount, now_s: float) -> AccountState:
    health = account.health
    return AccountState(
        account.id,
        account.running,
        len(account.keys),
        len(account.refused_keys),
        health.drained,
        health.reason,
        [
            ModelState(
                model,
                health.status(model, now_s),
                breaker.state,
                breaker.opened,
                round(max(health.free_in_s(model, now_s), breaker.free_in_s(now_s)), 1),
            )
            for model, breaker in account.breakers.items()
        ],
    )


def read_state(data: Path, now_s: float) -> State | None:
    """What the gateway on this folder told last; None if none runs."""
    state = _read(data / STATE_FILE, State)
    return state if state is not None and now_s - state.written_s < FRESH_S else None


def read_control(data: Path) -> Control:
    return _read(data / CONTROL_FILE, Control) or Control()


def drain(data: Path, account_id: str) -> None:
    """Send no new request there, from the gateway's next poll on and until `revive`."""
    control = read_control(data)
    _write(data / CONTROL_FILE, Control(control.drained | {account_id}, control.revived))


def revive(data: Path, account_id: str) -> None:
    """Forget all that is held against it, drained or not."""
    control = read_control(data)
    revived = {**control.revived, account_id: control.revived.get(account_id, 0) + 1}
    _write(data / CONTROL_FILE, Control(control.drained - {account_id}, revived))


class UpstreamNotices:
    """The gateway's end of both files."""

    def __init__(self, upstreams: Upstreams, data: Path) -> None:
        self._upstreams = upstreams
        self._data = data
        self._told: list[AccountState] = []
        self._told_s = float("-inf")
        self._control = Control(revived=read_control(data).revived)

    def follow(self) -> None:
        """Take over what was ordered since the last time."""
        control = read_control(self._data)
        if control == self._control:
            return
        for account in self._upstreams.accounts:
            if control.revived.get(account.id, 0) > self._control.revived.get(account.id, 0):
                account.revive()
            account.health.drained = account.id in control.drained
        self._upstreams.calm = False  # it is looked at anew
        self._control = control

    def tell(self, wall_s: float, now_s: float) -> None:
        """Write the state if it has changed, or was last written long ago."""
        accounts = [account_state(account, now_s) for account in self._upstreams.accounts]
        if accounts != self._told or wall_s - self._told_s >= WRITE_INTERVAL_S:
            self._told, self._told_s = accounts, wall_s
            _write(self._data / STATE_FILE, State(wall_s, accounts))


def _read(path: Path, kind: type[T]) -> T | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as error:
        raise SettingsError(f"{path}: {error}") from error


def _write(path: Path, value: Struct) -> None:
    """All of it or nothing: a reader never sees half a file."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fresh.write_bytes(msgspec.json.encode(value) + b"\n")
    fresh.replace(path)

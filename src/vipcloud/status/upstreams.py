"""What is told of our upstream accounts, and ordered for them, by files in the data folder. None of them holds a key.

`upstreams.json` is written by the gateway when something has changed, and every few seconds; `upstreams.control.json`
by whoever drains or revives an account, and followed by every gateway on the folder; `upstreams.checks.json` by
`vipcloud watch`, and tells what its last looks found.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Literal, TypeVar

import msgspec
from msgspec import Struct

from vipcloud.errors import SettingsError
from vipcloud.status import files
from vipcloud.storage import files as storage_files

STATE_FILE, CONTROL_FILE, LOOKS_FILE = "upstreams.json", "upstreams.control.json", "upstreams.checks.json"
FRESH_S = 15.0  # a state that is older is that of a gateway which no longer runs

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


class Look(Struct, frozen=True, kw_only=True):
    """What one of our accounts said when it was last asked. `detail` may quote its provider: it is for the operator."""

    id: str
    at: float
    ms: int
    verdict: Literal["ok", "note", "fail"]
    detail: str
    advice: str


def read_state(data: Path, now_s: float) -> State | None:
    """What the gateway on this folder told last; None if none runs."""
    state = _read(data / STATE_FILE, State)
    return state if state is not None and now_s - state.written_s < FRESH_S else None


def write_state(data: Path, state: State) -> None:
    data.mkdir(parents=True, exist_ok=True, mode=0o700)
    files.put(data / STATE_FILE, msgspec.json.encode(state) + b"\n")


def read_control(data: Path) -> Control:
    return _read(data / CONTROL_FILE, Control) or Control()


def drain(data: Path, account_id: str) -> None:
    """Send no new request there, from the gateway's next poll on and until `revive`."""

    def edit(control: Control) -> Control:
        return Control(control.drained | {account_id}, control.revived)

    _order(data, edit)


def revive(data: Path, account_id: str) -> None:
    """Forget all that is held against it, drained or not."""

    def edit(control: Control) -> Control:
        revived = {**control.revived, account_id: control.revived.get(account_id, 0) + 1}
        return Control(control.drained - {account_id}, revived)

    _order(data, edit)


def read_looks(data: Path) -> dict[str, Look]:
    """By account; empty where nobody has looked yet."""
    return {look.id: look for look in _read(data / LOOKS_FILE, list[Look]) or []}


def write_looks(data: Path, looks: list[Look]) -> None:
    files.put(data / LOOKS_FILE, msgspec.json.encode(looks) + b"\n")


def _order(data: Path, edit: Callable[[Control], Control]) -> None:
    """One writer at a time: two orders given at once are both followed. Raises SettingsError."""

    def rewritten(text: str) -> str:
        control = msgspec.json.decode(text, type=Control) if text else Control()
        return msgspec.json.encode(edit(control)).decode() + "\n"

    path = data / CONTROL_FILE
    try:
        storage_files.rewrite(path, rewritten)
    except (OSError, UnicodeDecodeError, msgspec.DecodeError) as error:
        raise SettingsError(f"{path}: {error}") from error


def _read(path: Path, kind: type[T]) -> T | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as error:
        raise SettingsError(f"{path}: {error}") from error

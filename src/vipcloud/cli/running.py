"""How commands find the gateway that runs on the same data folder.

While it serves, a file there says where, and stays locked; a lock ends with its process, so what a killed gateway has
left behind is not taken for a running one. It holds no secret.
"""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import msgspec
from msgspec import Struct

from vipcloud.errors import SettingsError
from vipcloud.settings import Secret, Settings, UpstreamSettings

FILE = "gateway.json"
SIMULATED_KEY = "sk-simulated.simulated"  # simulators take any


class Running(Struct, frozen=True, kw_only=True):
    """Where the gateway listens, by provider where its simulators do, and the socket at which it hands over."""

    origin: str
    handover: str = ""
    simulated: dict[str, str] = {}


@contextlib.contextmanager
def announced(settings: Settings, running: Running) -> Iterator[None]:
    """Say so until the block ends, or until a successor says it of itself. Raises SettingsError."""
    path = settings.data_path / FILE
    fresh = path.with_name(f".{FILE}.{os.getpid()}")
    try:
        descriptor = os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise SettingsError(f"data: {path} cannot be written: {error.strerror}.") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        os.pwrite(descriptor, msgspec.json.encode(running), 0)
        fresh.replace(path)  # whoever finds it finds it locked
        yield
    finally:
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(path.stat(), os.fstat(descriptor)):
                path.unlink()
        os.close(descriptor)


def find(settings: Settings) -> Running | None:
    """The gateway that runs now; None where none does."""
    path: Path = settings.data_path / FILE
    try:
        with path.open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return msgspec.json.decode(file.read(), type=Running)
    except (OSError, msgspec.DecodeError):
        return None  # there is none, or it is just starting
    return None


def as_served(settings: Settings) -> tuple[Settings, Running | None]:
    """The settings with the upstreams that the running gateway has, simulators included; and that gateway."""
    running = find(settings)
    if running is None or not running.simulated:
        return settings, running
    upstreams = {
        provider: UpstreamSettings(base_url=url, keys=(Secret(SIMULATED_KEY),))
        for provider, url in running.simulated.items()
    }
    return msgspec.structs.replace(settings, upstreams=upstreams), running

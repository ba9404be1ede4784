"""Small files that people and the program both write: changed whole or not at all, by one writer at a time."""

import contextlib
import fcntl
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

LOCK_TIMEOUT_S = 10.0
LOCK_POLL_S = 0.05
_MODE = 0o644


def rewrite(path: Path, edit: Callable[[str], str]) -> bool:
    """Put `edit` of its text in the file's place ("" where there is none); whether that changed anything.

    Readers see the former text or the new one, after a crash too. A link is followed, and owner and mode stay. Whatever
    `edit` raises leaves the file as it was. Raises OSError (TimeoutError where another writer does not finish) and
    UnicodeDecodeError.
    """
    path = path.resolve()
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with _locked(path.parent) as folder:
        before = path.read_bytes().decode() if path.exists() else ""
        after = edit(before)
        if after == before:
            return False
        _replace(path, after.encode())
        os.fsync(folder)  # the new name is on the disk as well
    return True


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[int]:
    """The folder's descriptor, locked against other writers. The lock ends with the process, however that ends."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        deadline = time.monotonic() + LOCK_TIMEOUT_S
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise TimeoutError(f"another process has been changing files in {folder} for too long") from None
                time.sleep(LOCK_POLL_S)
        yield descriptor
    finally:
        os.close(descriptor)


def _replace(path: Path, content: bytes) -> None:
    model = path.stat() if path.exists() else path.parent.stat()
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with open(descriptor, "wb") as file:
            file.write(content)
            os.fchmod(descriptor, model.st_mode & 0o777 if path.exists() else _MODE)
            with contextlib.suppress(PermissionError):  # only root may give a file away; others own it anyway
                os.fchown(descriptor, model.st_uid, model.st_gid)
            file.flush()
            os.fsync(descriptor)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise

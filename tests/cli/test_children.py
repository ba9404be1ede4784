"""Helpers of `vipcloud serve`, without what they do."""

import errno
import subprocess
import sys
from typing import Any

import pytest

from vipcloud.cli import children
from vipcloud.cli.children import Child


class StartedAgainError(Exception):
    """What was waited for."""


class Helper(Child):
    """Ends at once; says so when it is there for the second time."""

    def __init__(self) -> None:
        super().__init__("helper", [])
        self._command = [sys.executable, "-c", "pass"]
        self.starts = 0

    def start(self) -> "subprocess.Popen[bytes]":
        process = super().start()
        self.starts += 1
        if self.starts == 2:
            raise StartedAgainError
        return process


async def test_a_helper_that_cannot_be_started_now_is_started_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(children, "POLL_S", 0.0)
    monkeypatch.setattr(children, "RESTART_FIRST_S", 0.0)
    helper = Helper()
    helper.start()
    popen, tries = subprocess.Popen, 0

    def scarce(*arguments: Any, **options: Any) -> Any:
        nonlocal tries
        tries += 1
        if tries <= 2:
            raise OSError(errno.EMFILE, "Too many open files")
        return popen(*arguments, **options)

    monkeypatch.setattr(subprocess, "Popen", scarce)
    try:
        with pytest.raises(StartedAgainError):
            await helper.watch()
    finally:
        helper.stop()
    assert tries == 3

"""How lines of the log are written, and that nobody has to fear writing one."""

import errno
import io
import json
import sys
from collections.abc import Iterator

import pytest
import structlog

from vipcloud.telemetry import logs


class FullDisk(io.StringIO):
    """A file that can be opened, and takes nothing."""

    def write(self, text: str, /) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


class LateFullDisk(io.StringIO):
    """A file that says so when its buffer is written."""

    def flush(self) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    yield
    structlog.reset_defaults()


def test_each_event_is_a_line_of_json(monkeypatch: pytest.MonkeyPatch) -> None:
    file = io.StringIO()
    monkeypatch.setattr(sys, "stderr", file)
    logs.configure()
    log = structlog.get_logger("any")
    log.info("one", number=1)
    log.error("two", text="ä")
    try:
        raise ValueError("why")
    except ValueError:
        log.exception("three")
    one, two, three = map(json.loads, file.getvalue().splitlines())
    assert (one["event"], one["level"], one["number"]) == ("one", "info", 1)
    assert (two["event"], two["level"], two["text"]) == ("two", "error", "ä")
    assert (three["event"], three["level"]) == ("three", "error")
    assert "ValueError: why" in three["exception"]


@pytest.mark.parametrize("kind", [FullDisk, LateFullDisk, io.StringIO], ids=["full", "full at last", "closed"])
@pytest.mark.parametrize("level", ["debug", "info", "warning", "error", "critical", "exception"])
def test_a_log_that_cannot_be_written_stops_nobody(
    monkeypatch: pytest.MonkeyPatch, kind: type[io.StringIO], level: str
) -> None:
    file = kind()
    monkeypatch.setattr(sys, "stderr", file)
    logs.configure()
    if kind is io.StringIO:
        file.close()
    getattr(structlog.get_logger("any"), level)("what happens", number=1)

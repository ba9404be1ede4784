"""Limits for what pytest-timeout does not end: it forgets a test that has failed, whose fixtures are still to end."""

import contextlib
import os
import sys
import threading
from collections.abc import Callable, Iterator

import pytest


def limit_s(item: pytest.Item) -> float:
    mark = item.get_closest_marker("timeout")
    return float(mark.args[0] if mark else item.config.getini("timeout"))


@contextlib.contextmanager
def after(seconds: float, act: Callable[[], object]) -> Iterator[None]:
    """Do it if what is inside has not ended by then."""
    timer = threading.Timer(seconds, act)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()


@contextlib.contextmanager
def last_resort(item: pytest.Item) -> Iterator[None]:
    """The run ends where a test, with its second try if it gets one, takes several times as long as it may."""

    def end() -> None:
        print(f"{item.nodeid} hangs: the run ends here", file=sys.__stderr__, flush=True)
        os._exit(1)

    if item.config.getoption("usepdb"):
        yield
        return
    with after(3 * limit_s(item), end):
        yield

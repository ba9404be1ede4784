"""A browser that hangs or dies is no fault of ours, and does not cost the run: its test is tried once more.

Most calls of Playwright end after 30 s, but `evaluate`, `close` and others wait for ever. So the browser is killed when
a test has used most of its limit, which ends the call; where that does not, Playwright's driver is killed, too. What a
test asserts is never tried again.
"""

import contextlib
import os
from collections.abc import Generator, Iterator

import pytest
from _pytest.runner import runtestprotocol
from chromium import end
from playwright._impl._errors import Error, TargetClosedError
from playwright._impl._errors import TimeoutError as Late

import hanging

BROWSER_AFTER, DRIVER_AFTER = 0.75, 0.85  # of a test's limit, when they are killed
ITS_OWN = ("BrowserType.launch:", "Page.screenshot:")  # nothing of ours takes part in these

first_error = pytest.StashKey[BaseException | None]()


def is_lost(error: BaseException | None) -> bool:
    """Is it the browser that failed?"""
    if isinstance(error, BaseExceptionGroup):
        return all(map(is_lost, error.exceptions))
    if isinstance(error, Late):
        return str(error).startswith(ITS_OWN)
    return isinstance(error, TargetClosedError) or (isinstance(error, Error) and "crashed" in str(error))


@contextlib.contextmanager
def watch(item: pytest.Item) -> Iterator[None]:
    """Whatever waits for the browser ends before pytest-timeout ends the run."""
    limit_s = hanging.limit_s(item)
    with (
        hanging.after(BROWSER_AFTER * limit_s, lambda: end("/chromium", os.getpid())),
        hanging.after(DRIVER_AFTER * limit_s, lambda: end("/playwright/driver/node", os.getpid())),
    ):
        yield


def tried(item: pytest.Item, nextitem: pytest.Item | None) -> list[pytest.TestReport]:
    item.stash[first_error] = None
    with watch(item):
        return runtestprotocol(item, log=False, nextitem=nextitem)


def tried_again(item: pytest.Item, nextitem: pytest.Item | None) -> list[pytest.TestReport]:
    """With everything of its module made anew, and so after the module's tests before it, on which it may build."""
    module = item.getparent(pytest.Module)
    assert module is not None
    with watch(item):
        pytest.CallInfo.from_call(lambda: item.session._setupstate.teardown_exact(module.parent), "teardown")
    for before in item.session.items[: item.session.items.index(item)]:
        if before.getparent(pytest.Module) is module:
            tried(before, item)
    return tried(item, nextitem)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    if call.excinfo and item.stash.get(first_error, None) is None:
        item.stash[first_error] = call.excinfo.value
    return (yield)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    if item.config.getoption("usepdb"):
        return None
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    reports = tried(item, nextitem)
    error = item.stash[first_error]
    if is_lost(error):
        why = str(error).partition("\n")[0]
        item.config.get_terminal_writer().line(f"\n{item.nodeid} lost its browser and is tried again: {why}")
        reports = tried_again(item, nextitem)
    for report in reports:
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True

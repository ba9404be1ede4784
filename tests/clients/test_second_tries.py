"""What a browser does that hangs or dies: its test gets another, and the run goes on."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from playwright.sync_api import Browser
from running import Gateway

pytestmark = [pytest.mark.clients, pytest.mark.timeout(180)]

HERE = Path(__file__).parent
TESTS = """
import os

import pytest
from chromium import end
from playwright.sync_api import Browser

TRIES = []

@pytest.fixture(scope="module")
def builds() -> list[str]:
    return []

@pytest.mark.timeout(120)
def test_before(chromium: Browser, builds: list[str]) -> None:
    assert chromium.new_page().evaluate("1 + 1") == 2
    builds.append("before")

@pytest.mark.timeout(8)
def test_hangs_once(chromium: Browser, builds: list[str]) -> None:
    page = chromium.new_page()
    TRIES.append("hangs")
    if TRIES == ["hangs"]:
        page.evaluate("while (true);")
    assert builds == ["before"]

def test_has_a_fault_of_ours(chromium: Browser) -> None:
    TRIES.append("ours")
    page = chromium.new_page()
    assert page.evaluate("1 + 1") == 3

def test_is_late(chromium: Browser) -> None:
    TRIES.append("late")
    chromium.new_page().click("text=Nothing", timeout=100)

def test_at_the_end(chromium: Browser) -> None:
    assert chromium.new_page().evaluate("1 + 1") == 2
    assert [TRIES.count(each) for each in ("hangs", "ours", "late")] == [2, 1, 1]

def test_dies_always(chromium: Browser) -> None:
    end("/chromium", os.getpid())
    chromium.new_page()
"""


def test_a_page_may_be_closed_while_it_goes_to_another(chromium: Browser, demo: Gateway) -> None:
    """Or the next one never opens, now and then: more often than not without the flag for it."""
    context = chromium.new_context()
    for _ in range(8):
        page = context.new_page()
        page.goto(f"{demo.origin}/login")
        page.fill("#mail", "ann@example.com")
        page.click("text=Mail me a code")
        page.close()
    assert context.new_page().evaluate("1 + 1") == 2
    context.close()


def test_a_browser_that_hangs_or_dies_costs_one_try_and_what_we_assert_is_tried_once(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text((HERE / "conftest.py").read_text())
    (tmp_path / "test_browsers.py").write_text(TESTS)
    settings = [f"--rootdir={tmp_path}", "-c", str(HERE.parents[1] / "pyproject.toml"), "-p", "no:cacheprovider"]
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", *settings, "-rA", str(tmp_path)],
        env=os.environ | {"PYTHONPATH": f"{HERE}:{HERE.parent}"},
        capture_output=True,
        text=True,
        timeout=150,
    )
    told = dict(reversed(each) for each in re.findall(r"^(PASSED|FAILED|ERROR) \S+::(\w+)", ended.stdout, re.MULTILINE))
    assert told == {
        "test_before": "PASSED",
        "test_hangs_once": "PASSED",
        "test_has_a_fault_of_ours": "FAILED",
        "test_is_late": "FAILED",
        "test_at_the_end": "PASSED",
        "test_dies_always": "FAILED",
    }, ended.stdout + ended.stderr
    lost = re.findall(r"::(\w+) lost its browser and is tried again", ended.stdout)
    assert lost == ["test_hangs_once", "test_dies_always"]

"""Orders for upstream accounts, and what was last seen of them."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from vipcloud.errors import SettingsError
from vipcloud.status import upstreams
from vipcloud.status.upstreams import Look


def test_orders_that_come_at_once_are_all_followed(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: upstreams.drain(tmp_path, f"deepseek/{number}"), range(24)))
        list(pool.map(lambda _: upstreams.revive(tmp_path, "deepseek/0"), range(8)))
    control = upstreams.read_control(tmp_path)
    assert control.drained == {f"deepseek/{number}" for number in range(1, 24)}
    assert control.revived == {"deepseek/0": 8}


def test_a_file_that_cannot_be_read_is_said_to_be(tmp_path: Path) -> None:
    (tmp_path / upstreams.CONTROL_FILE).write_text("{")
    with pytest.raises(SettingsError, match=upstreams.CONTROL_FILE):
        upstreams.drain(tmp_path, "deepseek/1")


def test_looks_are_read_as_they_were_written(tmp_path: Path) -> None:
    assert upstreams.read_looks(tmp_path) == {}
    look = Look(id="deepseek/1", at=1.0, ms=20, verdict="fail", detail="no money", advice="Top it up.")
    upstreams.write_looks(tmp_path, [look])
    assert upstreams.read_looks(tmp_path) == {"deepseek/1": look}

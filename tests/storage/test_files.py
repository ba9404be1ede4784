"""Small files are changed whole or not at all, by one writer at a time."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from vipcloud.storage import files


def test_a_file_is_made_changed_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "new" / "catalog.toml"
    assert files.rewrite(path, lambda text: text + "a\n")
    assert files.rewrite(path, lambda text: text + "b\n")
    before = path.stat()
    assert not files.rewrite(path, lambda text: text)
    assert path.stat() == before
    assert path.read_bytes() == b"a\nb\n"
    assert [entry.name for entry in path.parent.iterdir()] == ["catalog.toml"]


def test_bytes_that_no_edit_touches_stay(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes("é\r\n\tx".encode())
    files.rewrite(path, lambda text: text + "!")
    assert path.read_bytes() == "é\r\n\tx!".encode()


def test_an_edit_that_fails_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("x")

    def fails(text: str) -> str:
        raise ValueError(text)

    with pytest.raises(ValueError, match="x"):
        files.rewrite(path, fails)
    with pytest.raises(UnicodeEncodeError):
        files.rewrite(path, lambda _: "\ud800")
    assert path.read_text() == "x"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_mode_and_links_stay(tmp_path: Path) -> None:
    real, link = tmp_path / "real", tmp_path / "link"
    real.write_text("x")
    real.chmod(0o640)
    link.symlink_to(real)
    files.rewrite(link, lambda text: text + "y")
    assert link.is_symlink()
    assert (real.read_text(), real.stat().st_mode & 0o777) == ("xy", 0o640)


def test_what_is_no_text_is_told(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"\xff")
    with pytest.raises(UnicodeDecodeError):
        files.rewrite(path, lambda text: text)


def test_writers_in_turn_lose_no_change(tmp_path: Path) -> None:
    """Two processes and two threads add lines to one file; a reader never sees a part of one."""
    path = tmp_path / "file"
    path.write_text("")
    script = (
        "import sys; from pathlib import Path; from vipcloud.storage import files\n"
        "for n in range(25): files.rewrite(Path(sys.argv[1]), lambda text: text + f'{sys.argv[2]}-{n}\\n')"
    )
    processes = [subprocess.Popen([sys.executable, "-c", script, str(path), str(each)]) for each in range(2)]
    done = threading.Event()
    torn: list[str] = []

    def read() -> None:
        while not done.is_set():
            text = path.read_text()
            if text and not text.endswith("\n"):
                torn.append(text)

    def add(name: str) -> None:
        for line in [f"{name}-{number}\n" for number in range(25)]:
            files.rewrite(path, lambda text, line=line: text + line)

    reader = threading.Thread(target=read)
    writers = [threading.Thread(target=add, args=(name,)) for name in ("a", "b")]
    for thread in (reader, *writers):
        thread.start()
    for thread in writers:
        thread.join()
    assert [process.wait(15) for process in processes] == [0, 0]
    done.set()
    reader.join()
    assert torn == []
    assert sorted(path.read_text().split()) == sorted(f"{name}-{n}" for name in "ab01" for n in range(25))


def test_a_writer_that_never_ends_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "LOCK_TIMEOUT_S", 0.1)
    path = tmp_path / "file"

    def inner(text: str) -> str:
        with pytest.raises(TimeoutError, match="another process"):
            files.rewrite(path, lambda _: "inner")
        return text + "outer"

    files.rewrite(path, inner)
    assert path.read_text() == "outer"
    assert files.rewrite(path, lambda _: "free again")
    assert os.listdir(tmp_path) == ["file"]

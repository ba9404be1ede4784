"""The page's files: whole or not there, and nothing left of former ones."""

import gzip
from pathlib import Path

from vipcloud.status import files
from vipcloud.status.files import Asset


def test_pages_and_what_they_load_are_put_in_place_packed_too(tmp_path: Path) -> None:
    files.write(tmp_path, {files.PAGE: b"<h1>1", files.JSON: b"{}"}, [Asset("1.base.css", b"a{}")])
    folder = files.folder(tmp_path)
    assert sorted(path.name for path in folder.iterdir()) == [
        "1.base.css", "1.base.css.gz", "status.html", "status.html.gz", "status.json", "status.json.gz",
    ]  # fmt: skip
    for name, content in ((files.PAGE, b"<h1>1"), ("1.base.css", b"a{}")):
        assert (folder / name).read_bytes() == content
        assert gzip.decompress((folder / f"{name}.gz").read_bytes()) == content


def test_what_no_page_loads_any_more_is_removed(tmp_path: Path) -> None:
    files.write(tmp_path, {files.PAGE: b"1"}, [Asset("1.base.css", b"a{}")])
    files.write(tmp_path, {files.PAGE: b"2"}, [Asset("2.base.css", b"b{}")])
    names = {path.name for path in files.folder(tmp_path).iterdir()}
    assert names == {"2.base.css", "2.base.css.gz", "status.html", "status.html.gz"}
    assert (files.folder(tmp_path) / files.PAGE).read_bytes() == b"2"

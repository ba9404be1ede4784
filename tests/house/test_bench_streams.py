"""The benchmark's streams arrive whole, or there is no benchmark."""

import importlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

BENCH = Path(__file__).parents[2] / "bench"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Any]]:
    """Modules of the benchmark by their names, as its programs import them: tests have modules of such names, too."""
    monkeypatch.syspath_prepend(BENCH)
    names = {file.stem for file in BENCH.glob("*.py")}
    others = {name: sys.modules.pop(name) for name in names & sys.modules.keys()}
    yield importlib.import_module
    for name in names & sys.modules.keys():
        del sys.modules[name]
    sys.modules.update(others)


def test_a_stream_that_lacks_two_texts_did_not_arrive(bench: Callable[[str], Any], tmp_path: Path) -> None:
    load, contestants = bench("load"), bench("contestants")
    core = min(os.sched_getaffinity(0))
    ask = {"folder": tmp_path, "core": core, "streams": 2, "repeats": 2}
    with contestants.stream_upstream(tmp_path, core, contestants.Pace(20, 1)) as upstream:
        assert load.chunks(upstream, **ask, pace=contestants.Pace(20, 1)).per_s > 0
        with pytest.raises(bench("process").BenchError, match="80 texts of 88 arrived"):
            load.chunks(upstream, **ask, pace=contestants.Pace(22, 1))


class Wire:
    """What a stream writes goes nowhere."""

    def write(self, data: bytes) -> None:
        self.written = data

    def close(self) -> None:
        self.closed = True


@pytest.mark.parametrize("spaced", [False, True], ids=["compact", "spaced"])
async def test_texts_are_counted_alike_however_the_bytes_are_cut(bench: Callable[[str], Any], spaced: bool) -> None:
    client, upstream = bench("stream_client"), bench("stream_upstream")
    answer = upstream.STREAM_HEAD + b"".join(upstream.script(3))
    if spaced:  # as Python's json writes it
        answer = answer.replace(b'"content":', b'"content": ')
    for cut in range(20, len(answer)):
        stream = client.Stream(b"", repeats=1)
        stream.connection_made(Wire())
        stream.data_received(answer[:cut])
        stream.data_received(answer[cut:])
        assert stream.finished.done(), cut
        assert stream.texts == 3, cut

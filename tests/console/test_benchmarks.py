"""The chart of CPU time: the figures are those of the last benchmark, and there is none without one."""

import json
from pathlib import Path

import pytest
from litestar import Litestar
from litestar.testing import TestClient

from console.conftest import Page, words
from vipcloud.console import benchmarks, charts

MACHINE = {"processor": "AMD EPYC", "python": "3.11.7", "nginx": "1.22.1", "commit": "abc1234", "cores": 2}
MACHINE["at"] = "2026-11-26T09:38:19+00:00"
LATEST = {"nonstream_cpu_us": 43.26, "nginx_nonstream_cpu_us": 21.5, "nonstream_cpu_ratio_nginx": 2.01}


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "results"
    folder.mkdir()
    monkeypatch.setattr(benchmarks, "RESULTS", folder)
    return folder


def write(folder: Path, name: str, numbers: dict[str, object], **machine: object) -> None:
    (folder / f"{name}.json").write_text(json.dumps({**numbers, "machine": {**MACHINE, **machine}, "rounds": {}}))


def test_the_figures_are_the_benchmarks(site: TestClient[Litestar], results: Path) -> None:
    write(results, "latest", LATEST)
    write(results, "peers", {"nonstream_cpu_us": {"nginx": 20, "vipcloud": 44, "Other": 16_575.2}})
    answer = site.get("/")
    text = words(answer.text)
    assert "nginx 1.22.1, relay only 22, vipcloud, the whole of it 43, Other 16,575." in answer.text
    assert "takes 2.0 times the CPU of nginx" in text
    assert "26 Nov 2026 (AMD EPYC, Python 3.11.7, commit abc1234 )" in text
    assert Page(answer.text).inline == []


def test_without_results_there_is_no_chart(site: TestClient[Litestar], results: Path) -> None:
    assert "CPU time" not in site.get("/").text
    for broken in ("", "[]", "{}", json.dumps({**LATEST, "machine": {}})):
        (results / "latest.json").write_text(broken)
        answer = site.get("/")
        assert (answer.status_code, "CPU time" in answer.text) == (200, False), broken


def test_peers_of_another_machine_are_left_out(results: Path) -> None:
    write(results, "latest", LATEST)
    write(results, "peers", {"nonstream_cpu_us": {"Other": 100}}, processor="Another")
    found = benchmarks.read(results)
    assert found is not None
    assert [cost.cpu_us for cost in found.costs] == [21.5, 43.26]


def test_the_scale_is_logarithmic() -> None:
    chart = charts.logarithmic([20, 200, 2000], left=100, right=500, top=10, step=40)
    assert [bar.y for bar in chart.bars] == [10, 50, 90]
    steps = [second.width - first.width for first, second in zip(chart.bars, chart.bars[1:], strict=False)]
    assert steps[0] == pytest.approx(steps[1], abs=0.2)
    assert chart.bars[-1].width == 400
    assert [tick.value for tick in chart.ticks] == [10, 100, 1000]
    assert chart.ticks[0].x == 100

"""Every public page: it obeys its own policy, its links lead somewhere, its numbers are the catalogue's."""

import re
from pathlib import Path

import pytest
from litestar import Litestar
from litestar.testing import TestClient

from console.conftest import Page, words
from vipcloud.console import parts as console_parts
from vipcloud.console.pages import docs
from vipcloud.console.parts import Parts

PAGES = ["/", "/models", "/terms", "/privacy", "/docs?q=key", *(f"/docs/{slug}" for slug in docs.SLUGS)]


@pytest.mark.parametrize("path", PAGES)
def test_a_page_obeys_its_policy_and_has_one_heading(site: TestClient[Litestar], path: str) -> None:
    answer = site.get(path)
    assert answer.status_code == 200
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")
    assert answer.headers["x-content-type-options"] == "nosniff"
    page = Page(answer.text)
    assert page.inline == []
    assert page.tags.count("h1") == 1
    assert page.tags.count("main") == 1
    assert len(page.ids) == len(set(page.ids)), "an id stands once"
    assert page.labelled <= set(page.ids), "a label has its control"
    assert not [link for link in page.loaded if re.match(r"(https?:)?//", link)], "nothing from another origin"


def test_no_link_leads_nowhere(site: TestClient[Litestar]) -> None:
    seen: dict[str, Page | None] = {}
    left = [("/", "start")]
    while left:
        link, source = left.pop()
        if link.startswith(("mailto:", "https:", "/status")):  # the gateway has the status page
            continue
        path, _, anchor = link.partition("#")
        path = path or source
        if path not in seen:
            answer = site.get(path)
            assert answer.status_code == 200, (link, source)
            is_page = answer.headers["content-type"].startswith("text/html")
            seen[path] = Page(answer.text) if is_page else None
            left += [(each, path) for each in (seen[path].links if seen[path] else [])]  # type: ignore[union-attr]
        page = seen[path]
        if anchor:
            assert page is not None, (link, source)
            assert anchor in page.ids, (link, source)
    assert set(PAGES) - {"/docs?q=key"} <= set(seen), "every page can be reached from the first"


def test_prices_are_the_catalogues_and_follow_its_file(
    site: TestClient[Litestar], parts: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "$0.31" in site.get("/models").text
    monkeypatch.setattr(console_parts, "CATALOG_LOOK_S", 0)
    override = tmp_path / "catalog.toml"
    override.write_text('[models.deepseek-chat]\nprice = { input = "0.444", output = "1.27" }\n')
    for path in ("/", "/models", "/docs/pricing"):
        assert "$0.444" in site.get(path).text, path
    override.write_text("[models.deepseek-chat]\nprice = 7\n")
    assert "$0.444" in site.get("/models").text, "a file with a mistake changes nothing"


def test_the_bill_of_ones_own_traffic(site: TestClient[Litestar]) -> None:
    text = words(site.get("/models?in=1,000,000&out=0&n=10").text)
    assert "Costs are for 1,000,000 tokens in, 0 out, 10 requests a day" in text
    row = text[text.index("deepseek-chat ") :]
    assert "$0.310000 000" in row[:400], "a million tokens cost the price"
    assert "$93.00" in row[:400], "ten a day, thirty days"


@pytest.mark.parametrize("value", ["", "-1", "1e9", "²", "9" * 30, "<script>", "0x10"])
def test_a_count_that_is_none_takes_the_default(site: TestClient[Litestar], value: str) -> None:
    answer = site.get("/models", params={"in": value})
    assert answer.status_code == 200
    assert "1,200 tokens in" in words(answer.text)
    assert "<script>" not in answer.text


def test_what_is_not_there_is_said_in_the_form_that_was_asked_for(site: TestClient[Litestar]) -> None:
    page = site.get("/nowhere")
    assert (page.status_code, "Nothing is at this address" in page.text) == (404, True)
    assert page.headers["content-security-policy"]
    told = site.get("/v1/nowhere")
    assert told.status_code == 404
    assert told.json()["error"]["code"] == "not_found"
    assert site.get("/nowhere", headers={"accept": "*/*"}).json()["error"]["code"] == "not_found"
    assert site.get("/docs/../../settings.py").status_code == 404
    assert site.get("/static/wrong/base.css").status_code == 404


def test_static_files_are_kept_for_ever_under_an_address_of_their_content(site: TestClient[Litestar]) -> None:
    [style] = re.findall(r'href="(/static/\w+/base\.css)"', site.get("/").text)
    answer = site.get(style)
    assert "immutable" in answer.headers["cache-control"]
    assert answer.headers["content-type"].startswith("text/css")
    assert answer.headers["content-encoding"] == "gzip"


def test_the_worked_charge_is_the_sum_of_its_lines(site: TestClient[Litestar]) -> None:
    text = words(site.get("/").text)
    assert "$0.000716 100" in text
    assert "$0.000650 240" in text
    assert "$0.001366 340" in text


@pytest.mark.parametrize("method", ["PUT", "TRACE", "SOURCE"])
@pytest.mark.parametrize("accept", ["text/html", "*/*"])
def test_a_method_that_a_page_does_not_have_is_told_those_it_has(
    site: TestClient[Litestar], method: str, accept: str
) -> None:
    answer = site.request(method, "/", headers={"accept": accept})
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD, OPTIONS")
    if accept == "*/*":
        assert answer.json()["error"]["code"] == "method_not_allowed"


def test_a_refused_form_is_told_in_the_words_of_the_api(site: TestClient[Litestar]) -> None:
    headers = {"accept": "*/*", "sec-fetch-site": "cross-site"}
    answer = site.post("/login", data={"email": "a@example.com"}, headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "forbidden")

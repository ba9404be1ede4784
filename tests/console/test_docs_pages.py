"""The docs: their Markdown, their tables, their search."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from litestar import Litestar
from litestar.testing import TestClient
from msgspec import Struct

from console.conftest import words
from vipcloud import errors
from vipcloud.console import markdown
from vipcloud.console.pages import docs
from vipcloud.providers.catalog import catalog_of, packaged_toml
from vipcloud.status.report import Component, Day, Incident, Period, Report, Update


def test_a_page_has_sections_with_their_code_beside_them() -> None:
    page = markdown.read(
        "# Title\n\nLead *text*.\n\n## One\n\nBefore.\n\n```python\na = 1\n```\n\n"
        "```bash Shell\nls\n```\n\nBetween.\n\n"
        "```json\n{}\n```\n\n## Two: `x`\n\n### Deep\n\n| a | b |\n| --- | --- |\n| 1 | 2 |\n"
    )
    assert page.title == "Title"
    lead, one, two = page.sections
    assert (lead.title, lead.prose) == ("", "<p>Lead <em>text</em>.</p>\n")
    assert [[sample.title for sample in block] for block in one.code] == [["Python", "Shell"], ["JSON"]]
    assert one.code[0][0] == markdown.Sample("Python", "python", "a = 1")
    assert (two.title, two.anchor) == ("Two: x", "two-x")
    assert '<h3 id="deep">' in two.prose
    assert '<table class="table">' in two.prose


def test_a_page_without_a_title_is_refused() -> None:
    with pytest.raises(ValueError, match="title"):
        markdown.read("Text.\n")


@given(st.text())
def test_no_text_becomes_markup(text: str) -> None:
    page = markdown.read(f"# T\n\n{text}")
    assert "<script" not in "".join(section.prose.lower() for section in page.sections)


@pytest.mark.parametrize("slug", docs.SLUGS)
def test_each_page_is_there_as_markdown_with_its_values_filled_in(site: TestClient[Litestar], slug: str) -> None:
    answer = site.get(f"/docs/{slug}.md")
    assert answer.headers["content-type"] == "text/markdown; charset=utf-8"
    assert answer.text.startswith("# ")
    assert "{{" not in answer.text
    assert "{%" not in answer.text
    same = site.get(f"/docs/{slug}", headers={"accept": "text/markdown"})
    assert same.text == answer.text


def test_every_error_and_every_model_is_in_the_tables(site: TestClient[Litestar]) -> None:
    listed = site.get("/docs/errors.md").text
    for error in errors.documented():
        assert f"| {error.status} | `{error.code}` |" in listed
    models = site.get("/docs/models.md").text
    prices = site.get("/docs/pricing.md").text
    for model in catalog_of(packaged_toml()).models:
        assert f"| `{model}` |" in models
        assert f"| `{model}` |" in prices


def test_search_finds_titles_first_and_says_when_there_is_nothing(site: TestClient[Litestar]) -> None:
    text = site.get("/docs?q=rate+limits").text
    assert text.index("/docs/rate-limits") < text.index("/docs/chat-completions#")
    nothing = words(site.get("/docs?q=xylophone").text)
    assert "Nothing has all of the words xylophone" in nothing
    assert "<b><script>" not in site.get("/docs", params={"q": "<script>"}).text


def test_llms_txt_lists_every_page(site: TestClient[Litestar]) -> None:
    text = site.get("/llms.txt").text
    assert all(f"/docs/{slug}.md" in text for slug in docs.SLUGS)
    assert "/openapi.json)" in text


@pytest.mark.parametrize("kind", [Report, Component, Day, Period, Incident, Update])
def test_every_field_of_the_status_report_is_described(site: TestClient[Litestar], kind: type[Struct]) -> None:
    text = site.get("/docs/status.md").text
    assert [name for name in kind.__struct_fields__ if f"`{name}`" not in text] == []

"""Docs pages from Markdown: sections with their code beside them, tabs for the same code in several languages.

A page is Markdown from its first line (`# Title`, then a lead paragraph). Each `## ` opens a section; fences go to the
section's rail, in order. Fences that follow each other directly are one block with a tab for each; the word after the
language names the tab: "```python Python". Raw HTML is off: pages are text.
"""

import re
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

from markdown_it import MarkdownIt
from markdown_it.token import Token
from markupsafe import Markup

_SLUG = re.compile(r"[^a-z0-9]+")
_TITLES = {"python": "Python", "javascript": "Node", "bash": "curl", "json": "JSON", "text": "Text", "toml": "TOML"}


class Sample(NamedTuple):
    """One tab of a code block."""

    title: str
    language: str
    text: str


@dataclass(slots=True)
class Section:
    """Text and code of one `## ` heading; the part before the first has no title."""

    title: str = ""
    anchor: str = ""
    prose: str = ""  # HTML
    code: list[list[Sample]] = field(default_factory=list)
    words: str = ""  # for the search


@dataclass(slots=True)
class Page:
    """A page as read: `lead` is the first paragraph's HTML."""

    title: str
    sections: list[Section]


def read(text: str) -> Page:
    """The page of a Markdown text. Raises ValueError if it does not begin with a title."""
    renderer = MarkdownIt("commonmark", {"html": False, "typographer": False}).enable("table")
    tokens = renderer.parse(text)
    if not tokens or tokens[0].type != "heading_open" or tokens[0].tag != "h1":
        raise ValueError("a page begins with its title, '# …'")
    title = tokens[1].content
    sections = [_section("", renderer, part) for part in _parts(tokens[3:])]
    return Page(title, sections)


def _parts(tokens: list[Token]) -> list[list[Token]]:
    """The tokens of each section; the first is what stands before the first heading."""
    parts: list[list[Token]] = [[]]
    for token in tokens:
        if token.type == "heading_open" and token.tag == "h2":
            parts.append([])
        parts[-1].append(token)
    return parts if parts[0] else parts[1:]


def _section(title: str, renderer: MarkdownIt, tokens: list[Token]) -> Section:
    section = Section(title)
    if tokens and tokens[0].type == "heading_open" and tokens[0].tag == "h2":
        section.title = plain(tokens[1])
        section.anchor = slug(section.title)
        tokens = tokens[3:]
    prose: list[Token] = []
    open_block = False
    for token in tokens:
        if token.type != "fence":
            prose.append(token)
            open_block = False
            continue
        language, _, named = token.info.strip().partition(" ")
        sample = Sample(named or _TITLES.get(language, language), language, token.content.rstrip("\n"))
        if open_block:
            section.code[-1].append(sample)
        else:
            section.code.append([sample])
        open_block = True
    for token, following in pairwise(prose):
        if token.type == "heading_open":
            token.attrSet("id", slug(plain(following)))
        elif token.type == "table_open":
            token.attrSet("class", "table")
    section.prose = Markup(renderer.renderer.render(prose, renderer.options, {}))  # noqa: S704 - markdown-it escapes
    section.words = " ".join(plain(token) for token in prose if token.type == "inline")
    return section


def plain(token: Token) -> str:
    """The text of an inline token without its marks."""
    return "".join(child.content for child in token.children or ()) or token.content


def slug(text: str) -> str:
    return _SLUG.sub("-", text.lower()).strip("-")

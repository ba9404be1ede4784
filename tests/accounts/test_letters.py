"""A letter's two parts have the same words, and its HTML is nothing but words, links and styles."""

import re
from html.parser import HTMLParser

import pytest

from vipcloud.accounts import letters
from vipcloud.accounts.letters import Letter

LINK = "https://gateway.example/credit?a=1&b=2"
LETTERS = {
    "code": letters.code("12345678", "14:12 UTC", "Firefox on Linux"),
    "confirm": letters.confirm(LINK),
    "approved": letters.approved(LINK, "1.00"),
    "invited": letters.invited(LINK, "ann@example.com", "bob@example.com"),
    "rejected": letters.rejected(),
    "key_changed": letters.key_changed('<b>"x" & y</b>', "vc-sk-7Qm2…f9Kd", "created", "ann@example.com"),
    "low_credit": letters.low_credit("$0.42", "$0.50", LINK),
    "recharged": letters.recharged("$20.00", "Visa ending 4242", "$20.42", LINK),
    "recharge_stopped": letters.recharge_stopped("", "Your card was declined.", LINK),
    "refunded": letters.refunded("$20.00", "VC-2026-000412", "Visa ending 4242"),
    "paid_twice": letters.paid_twice("ann@example.com", "$20.00", "VC-2026-000412"),
    "contested": letters.contested("ann@example.com", "$20.00", "VC-2026-000412", "open"),
    "recharge_capped": letters.recharge_capped("$50.00", LINK),
}


class Read(HTMLParser):
    """What a reader sees, where links lead, and what would be loaded or run."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.links: list[str] = []
        self.loaded: list[str] = []
        self._skips = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._skips = tag in ("style", "title")
        given = dict(attrs)
        if tag == "a":
            self.links.append(str(given["href"]))
        if tag in ("img", "script", "link", "iframe", "b b") or "src" in given or "url(" in str(given.get("style")):
            self.loaded.append(tag)

    def handle_endtag(self, tag: str) -> None:
        self._skips = False

    def handle_data(self, data: str) -> None:
        if not self._skips:
            self.words.append(data)


def plain(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip()


@pytest.mark.parametrize("name", LETTERS)
def test_both_parts_have_the_same_words_and_nothing_is_loaded(name: str) -> None:
    letter: Letter = LETTERS[name]
    page = letters.html(*letter)
    read = Read(page)
    assert read.loaded == []
    assert "url(" not in page
    words = plain(" ".join(read.words)).removeprefix("vipcloud ")
    # A button's colon is the text's alone.
    assert words.replace(" ", "") == plain(letter.body).replace(": https", " https").replace(" ", "")
    assert set(read.links) == set(re.findall(r"https?://\S+", letter.body))


def test_every_letter_is_looked_at() -> None:
    made = {name for name, each in vars(letters).items() if callable(each) and not name.startswith("_")}
    assert made - {"Letter", "NamedTuple", "escape", "html"} == set(LETTERS)


def test_what_people_wrote_is_no_html() -> None:
    page = letters.html("a <script>", 'Hello <img src=x>\n\nClick: https://x.example/"onclick="\n')
    assert "<script>" not in page
    assert "<img" not in page
    assert '"onclick' not in page

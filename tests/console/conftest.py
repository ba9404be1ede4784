"""The console as an application, over a store and the packaged catalogue, asked without a network."""

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest
from litestar import Litestar
from litestar.testing import TestClient

from vipcloud.clock import SystemClock
from vipcloud.console import app
from vipcloud.console.parts import CurrentCatalog, Parts
from vipcloud.providers.catalog import Catalog, packaged_toml
from vipcloud.settings import Settings
from vipcloud.storage import engine as storage
from vipcloud.storage import migrate

PUBLIC_URL = "https://gateway.example"


class Page(HTMLParser):
    """What a test asks of a page: its links, its headings, and what a strict policy would refuse."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text
        self.links: list[str] = []
        self.loaded: list[str] = []  # what the browser fetches or sends to by itself
        self.ids: list[str] = []
        self.tags: list[str] = []
        self.inline: list[str] = []
        self.labelled: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        given = dict(attrs)
        self.links += [str(given[name]) for name in ("href", "src", "action") if name in given]
        if tag != "a":
            self.loaded += [str(given[name]) for name in ("href", "src", "action") if name in given]
        if given.get("id"):
            self.ids.append(str(given["id"]))
        if "style" in given or any(name.startswith("on") for name in given) or (tag == "script" and "src" not in given):
            self.inline.append(f"{tag} {given}")
        self.labelled |= {str(given[name]) for name in ("for", "aria-controls", "aria-labelledby") if name in given}


@pytest.fixture
def parts(tmp_path: Path) -> Parts:
    engine = storage.open_engine(f"sqlite:///{tmp_path / 'vipcloud.db'}")
    migrate.upgrade(engine)
    override = tmp_path / "catalog.toml"
    clock = SystemClock()

    def load() -> Catalog:
        return Catalog.load(packaged_toml(), override.read_text() if override.exists() else None)

    return Parts(
        settings=Settings(data=str(tmp_path)),
        clock=clock,
        engine=engine,
        catalogs=CurrentCatalog(load, override, clock),
        public_url=PUBLIC_URL,
        random_bytes=bytes,
    )


@pytest.fixture
def site(parts: Parts) -> Iterator[TestClient[Litestar]]:
    with TestClient(app.build(parts), raise_server_exceptions=False) as client:
        client.headers["accept"] = "text/html,*/*;q=0.8"
        yield client


def words(text: str) -> str:
    """What a person reads: the text without tags and doubled space."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", text))

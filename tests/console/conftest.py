"""The console as an application, over a store and the packaged catalogue, asked without a network."""

import re
import secrets
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest
from httpx import Response
from litestar import Litestar
from litestar.testing import TestClient

from vipcloud.accounts import mails, store
from vipcloud.accounts.store import AccountRow
from vipcloud.clock import SystemClock
from vipcloud.console import app
from vipcloud.console.parts import CurrentCatalog, Parts
from vipcloud.ledger import store as ledger
from vipcloud.money import parse_usd
from vipcloud.providers.catalog import catalog_of, packaged_toml
from vipcloud.providers.models import Catalog
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
        self.links += [str(given[name]) for name in ("href", "src") if name in given]
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
        return catalog_of(packaged_toml(), override.read_text() if override.exists() else None)

    return Parts(
        settings=Settings(data=str(tmp_path)),
        clock=clock,
        engine=engine,
        catalogs=CurrentCatalog(load, override, clock),
        public_url=PUBLIC_URL,
        random_bytes=secrets.token_bytes,
    )


@pytest.fixture
def site(parts: Parts) -> Iterator[TestClient[Litestar]]:
    with TestClient(app.build(parts), base_url=PUBLIC_URL, raise_server_exceptions=False) as client:
        client.headers["accept"] = "text/html,*/*;q=0.8"
        yield client


class Person:
    """Somebody with a browser: signs in by the mails that are written, fills in forms as their pages have them."""

    def __init__(self, site: TestClient[Litestar], parts: Parts) -> None:
        self.site = site
        self.parts = parts

    def account(self, email: str, credit_usd: str = "5.00") -> AccountRow:
        """An account of that address, as the operator makes one."""
        with storage.writing(self.parts.engine) as connection:
            made = store.create_account(connection, email, self.parts.clock.wall_s(), secrets.token_bytes)
            ledger.grant(connection, f"test/{made.id}", made.id, parse_usd(credit_usd), self.parts.clock.wall_s())
        return made

    def sign_in(self, email: str) -> None:
        self.site.cookies.clear()
        asked = self.site.post("/login", data={"email": email}, follow_redirects=False)
        assert asked.headers["location"] == "/login/code"
        [code] = re.findall(r"Your code: (\d{4} \d{4})", self.mail(email))
        entered = self.site.post("/login/code", data={"code": code}, follow_redirects=False)
        assert entered.headers["location"] == "/overview", entered.text

    def mail(self, email: str) -> str:
        """The last mail to an address."""
        with storage.reading(self.parts.engine) as connection:
            return next(mail.body for mail in mails.unsent(connection) if mail.recipient == email)

    def token(self, path: str = "/settings") -> str:
        """What forms of the session carry."""
        found = re.search(r'name="token" value="(\w+)"', self.site.get(path).text)
        assert found is not None
        return found.group(1)

    def post(self, path: str, **fields: str) -> Response:
        return self.site.post(path, data={"token": self.token(), **fields}, follow_redirects=False)


@pytest.fixture
def person(site: TestClient[Litestar], parts: Parts) -> Person:
    return Person(site, parts)


def words(text: str) -> str:
    """What a person reads: the text without tags and doubled space."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", text))

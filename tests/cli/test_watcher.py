"""What `vipcloud watch` sees and tells: with everything there, without the store, the website or a provider."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import pytest
from sqlalchemy import Engine, text

from vipcloud.cli.upstreams import Upstream
from vipcloud.cli.watcher import Watcher
from vipcloud.clock import ManualClock
from vipcloud.ledger import bookkeeper
from vipcloud.ledger.bookkeeper import Status
from vipcloud.providers.catalog import catalog_of, packaged_toml
from vipcloud.settings import Secret, Settings, UpstreamAccountSettings
from vipcloud.status import files, rules, store, upstreams
from vipcloud.status.report import Component, Report
from vipcloud.storage import engine as storage
from vipcloud.storage import migrate

KEY = "sk-acme-0123456789abcdef"
CATALOG = catalog_of(packaged_toml())


@dataclass
class Origin:
    """A server that answers by path with a status; what has none is refused at once."""

    port: int = 0
    answers: dict[str, int] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        path = head.split(" ")[1]
        self.asked.append(path)
        status = self.answers.get(path)
        if status is not None:
            body = b'{"data": []}' if status == 200 else b'{"error": {"message": "No."}}'
            writer.write(
                b"HTTP/1.1 %d X\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%b" % (status, len(body), body)
            )
        writer.close()


@dataclass
class Post:
    """A watcher, what it watches, and what it has written."""

    watcher: Watcher
    clock: ManualClock
    origin: Origin
    engine: Engine
    data: Path
    accounts: list[Upstream]

    async def round(self) -> Report:
        return await self.watcher.round(CATALOG, self.accounts)

    async def minutes(self, count: int) -> Report:
        for _ in range(count):
            self.clock.advance(60)
            report = await self.round()
        return report

    def page(self, name: str = files.PAGE) -> str:
        return (files.folder(self.data) / name).read_text()

    @property
    def json(self) -> dict:
        return json.loads(self.page(files.JSON))


@pytest.fixture
async def origin() -> AsyncIterator[Origin]:
    made = Origin(answers={"/readyz": 200, "/login": 200, "/up/models": 200})
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    yield made
    server.close()


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = storage.open_engine(tmp_path / "vipcloud.db")
    migrate.upgrade(engine)
    yield engine
    engine.dispose()


@pytest.fixture
async def post(tmp_path: Path, origin: Origin, engine: Engine) -> Post:
    clock, url = ManualClock(), f"http://127.0.0.1:{origin.port}"
    (tmp_path / "journal").mkdir()
    settings = Settings(data=str(tmp_path))
    account = UpstreamAccountSettings(name="1", keys=(Secret(KEY),))
    zhipu = Upstream(provider=CATALOG.providers["zhipu"], base_url=f"{url}/up", account=account, simulated=False)
    keyless = Upstream(provider=CATALOG.providers["deepseek"], base_url=url, account=None, simulated=False)
    return Post(Watcher(settings, engine, clock, url), clock, origin, engine, tmp_path, [zhipu, keyless])


def component(report: Report, name: str) -> Component:
    return next(each for each in (*report.parts, *report.providers, *report.models) if each.id == name)


async def test_when_all_is_well_the_page_says_so_and_the_store_has_the_minute(post: Post) -> None:
    report = await post.round()
    assert (report.state, report.headline) == ("normal", "All systems normal")
    assert sorted(post.origin.asked) == ["/login", "/readyz", "/up/models"]
    assert [part.state for part in report.parts] == ["normal"] * 3
    assert (component(report, "zhipu").state, component(report, "glm-4-air").state) == ("normal", "normal")
    assert (component(report, "deepseek").state, component(report, "deepseek-chat").state) == ("off", "off")
    assert msgspec.convert(post.json, Report) == report
    with storage.reading(post.engine) as connection:
        seen = store.checks(connection, 0)
    assert sorted(seen) == ["books", "gateway", "website", "zhipu"]
    assert {minutes.good.bit_count() for hours in seen.values() for minutes in hours.values()} == {1}
    html = post.page()
    assert '<span class="state state-ok state-title">All systems normal</span>' in html
    assert "state-title" not in post.page(files.STALE_PAGE)
    assert "Not checked since 11:06 UTC" in post.page(files.STALE_PAGE)
    assert json.loads(post.page(files.STALE_JSON))["state"] == "unknown"


async def test_everything_that_the_page_loads_is_beside_it_and_nothing_is_inline(post: Post) -> None:
    await post.round()
    html = post.page()
    loaded = re.findall(r'<(?:link|script)[^>]*(?:href|src)="([^"]+)"', html)
    assert len(loaded) == 5
    for path in loaded:
        assert (files.folder(post.data) / path.removeprefix("/status/")).is_file()
    assert not re.search(r"<style|style=|<script(?! src)| on\w+=", html)


async def test_a_gateway_that_does_not_answer_is_down_after_two_minutes(post: Post) -> None:
    await post.round()
    del post.origin.answers["/readyz"]
    assert component(await post.minutes(1), rules.GATEWAY).state == "disturbed"
    report = await post.minutes(1)
    assert (report.state, report.headline) == ("down", "The gateway does not answer")
    assert report.periods[0].lost == 2
    assert component(report, rules.GATEWAY).note == "18 Nov: 2 min"
    post.origin.answers["/readyz"] = 503
    assert (await post.minutes(1)).periods[0].lost == 3, "not ready is no answer"
    post.origin.answers["/readyz"] = 200
    assert (await post.minutes(1)).state == "normal"


async def test_a_website_that_does_not_answer_disturbs(post: Post) -> None:
    post.origin.answers["/login"] = 503
    report = await post.minutes(2)
    assert (report.state, report.headline) == ("disturbed", "Disturbed: Website and sign-in")
    assert component(report, rules.GATEWAY).state == "normal"


@pytest.mark.parametrize(
    ("changes", "state"),
    [
        ({}, "normal"),
        ({"booked_until": 1.0}, "disturbed"),
        ({"failing": "the disk is full"}, "disturbed"),
        ({"breaks": ("a break",)}, "disturbed"),
    ],
)
async def test_books_that_lag_or_do_not_agree_disturb(post: Post, changes: dict[str, object], state: str) -> None:
    folder = post.data / "journal"
    told = Status(**({"at": post.clock.wall_s(), "booked_until": post.clock.wall_s(), "backlog_bytes": 0} | changes))
    (folder / bookkeeper.STATUS_FILE).write_bytes(msgspec.json.encode(told))
    assert component(await post.round(), "books").state == state


@pytest.mark.parametrize(
    ("status", "state", "verdict"),
    [(200, "normal", "ok"), (404, "normal", "ok"), (429, "normal", "note"), (503, "down", "note"),
     (500, "down", "fail"), (401, "down", "fail"), (402, "down", "fail"), (None, "down", "fail")],
)  # fmt: skip
async def test_a_provider_is_as_its_answer_says(post: Post, status: int | None, state: str, verdict: str) -> None:
    if status is None:
        del post.origin.answers["/up/models"]
    else:
        post.origin.answers["/up/models"] = status
    report = await post.minutes(2)
    assert (component(report, "zhipu").state, component(report, "glm-4-air").state) == (state, state)
    [look] = upstreams.read_looks(post.data).values()
    assert (look.id, look.verdict) == ("zhipu/1", verdict)
    assert KEY not in (post.data / upstreams.LOOKS_FILE).read_text()
    assert KEY not in post.page() + post.page(files.JSON)


async def test_without_its_store_the_page_goes_on_and_says_how_old_its_history_is(post: Post) -> None:
    with storage.writing(post.engine) as connection:
        store.open_incident(
            connection, "Slow at Zhipu", "notice", ["zhipu"], "Nothing fails.", post.clock.wall_s(), known=["zhipu"]
        )
    before = await post.round()
    with post.engine.connect() as connection:
        connection.execute(text("ALTER TABLE check_hour RENAME TO away"))
        connection.commit()
    report = await post.minutes(3)
    assert (report.state, report.history_until) == ("normal", before.history_until)
    assert [incident.title for incident in report.incidents] == ["Slow at Zhipu"]
    assert report.periods[0].minutes == 4
    assert report.periods[0].lost == 0
    assert "The store does not answer" in post.page()
    with post.engine.connect() as connection:
        connection.execute(text("ALTER TABLE away RENAME TO check_hour"))
        connection.commit()
    report = await post.minutes(1)
    assert report.history_until == report.checked_at
    with storage.reading(post.engine) as connection:
        [minutes] = store.checks(connection, 0)["gateway"].values()
    assert minutes.good.bit_count() == 5, "what was seen meanwhile is not lost"
    assert "The store does not answer" not in post.page()


async def test_a_store_that_was_never_there_leaves_only_what_is_seen(post: Post) -> None:
    with post.engine.connect() as connection:
        connection.execute(text("DROP TABLE check_hour"))
        connection.commit()
    report = await post.round()
    assert (report.state, report.history_until) == ("normal", None)
    assert "The store has not been read yet" in post.page()


async def test_what_was_read_once_is_kept_over_the_hours(post: Post) -> None:
    first = await post.round()
    post.clock.advance(5 * 3600)
    report = await post.round()
    assert report.periods[0].minutes == first.periods[0].minutes + 300
    assert report.periods[0].unchecked == 299


async def test_providers_are_left_alone_if_the_settings_say_so(post: Post) -> None:
    settings = msgspec.structs.replace(
        Settings(data=str(post.data)), status=msgspec.structs.replace(Settings().status, probe_upstreams=False)
    )
    post.watcher = Watcher(settings, post.engine, post.clock, f"http://127.0.0.1:{post.origin.port}")
    report = await post.round()
    assert "/up/models" not in post.origin.asked
    assert component(report, "zhipu").state == "unknown"
    assert report.state == "normal"


async def test_books_that_are_not_to_be_seen_from_here_are_not_told_of(post: Post) -> None:
    (post.data / "journal").rmdir()
    report = await post.round()
    assert [part.id for part in report.parts] == ["gateway", "website"]

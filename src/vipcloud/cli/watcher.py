"""Looks once a minute whether all is well, and writes the status page.

What was seen goes into the store; while that is away it is kept here, and the page says how old its history is.
"""

import asyncio
from collections import deque
from collections.abc import Mapping
from pathlib import Path

import msgspec
import structlog
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from vipcloud.cli import upstreams
from vipcloud.cli.upstreams import Upstream
from vipcloud.clock import Clock
from vipcloud.console.pages import status as status_page
from vipcloud.console.render import Renderer
from vipcloud.console.site import Site
from vipcloud.errors import SettingsError
from vipcloud.gateway import probes
from vipcloud.gateway.probes import Target
from vipcloud.gateway.upstreams import USER_AGENT
from vipcloud.http.client import Client, ClientError, split_url
from vipcloud.http.headers import header_block
from vipcloud.ledger import availability, bookkeeper
from vipcloud.ledger.availability import Counts, Key
from vipcloud.providers.models import Catalog
from vipcloud.settings import Settings
from vipcloud.status import files, rules, store
from vipcloud.status import upstreams as upstream_files
from vipcloud.status.report import Incident, Report
from vipcloud.status.rules import Check, Facts, Minutes, Subject
from vipcloud.status.upstreams import Look
from vipcloud.storage import engine as storage

MINUTE_S = 60
BEYOND_MINUTE_S = 0.05  # a timer may be early
HOUR_S = 3600
DAY_S = 86_400
RELOAD_S = HOUR_S  # history older than a day is read this often
LATEST_MAX = 5
UNWRITTEN_MAX = 50_000  # looks that wait for the store: some days of them
ANSWER_BYTES_MAX = 65_536
BOOKS_LAG_MAX_S = 60.0

log = structlog.get_logger(__name__)


async def run(watcher: "Watcher", data: Path | None, config: Path | None) -> None:
    """One at once, and then one at the beginning of each minute."""
    while True:
        try:
            _, catalog, accounts = upstreams.look(data, config)
            await watcher.round(catalog, accounts)
        except (SettingsError, OSError) as error:  # the page gets old, and says so
            log.error("status page not written", error=str(error))
        await asyncio.sleep(MINUTE_S - watcher.clock.wall_s() % MINUTE_S + BEYOND_MINUTE_S)


class Watcher:
    """Looks, remembers, tells. One per gateway."""

    def __init__(self, settings: Settings, engine: Engine, clock: Clock, origin: str) -> None:
        self.clock = clock
        self._settings = settings
        self._engine = engine
        self._origin = origin
        self._client = Client(settings.client)
        self._history = History()
        self._latest: dict[str, deque[Check]] = {}
        self._unwritten: deque[tuple[int, str, bool]] = deque(maxlen=UNWRITTEN_MAX)
        url = settings.console.public_url or origin
        self._renderer = Renderer(Site(url, settings.console.support_email))

    async def round(self, catalog: Catalog, accounts: list[Upstream]) -> Report:
        """Look at everything, note it, write the page. Raises OSError where it cannot be written."""
        await asyncio.gather(self._look_at_ours(), self._look_at_providers(accounts))
        now_s = self.clock.wall_s()
        await asyncio.to_thread(self._remember, now_s)
        report = rules.report(self._facts(now_s, catalog, accounts))
        await asyncio.to_thread(self._write, report)
        return report

    # --- looking

    async def _look_at_ours(self) -> None:
        looks = [self._asks(rules.GATEWAY, "/readyz")]
        if self._settings.console.enabled:
            looks.append(self._asks(rules.WEBSITE, "/login"))
        await asyncio.gather(*looks)
        if not self._settings.journal_path.is_dir():
            return  # the gateway is on another machine: its books are not to be seen from here
        told, now_s = bookkeeper.status(self._settings.journal_path), self.clock.wall_s()
        behind = told is not None and now_s - told.booked_until > BOOKS_LAG_MAX_S
        self._note(rules.BOOKS, good=told is None or not (behind or told.failing or told.breaks))

    async def _asks(self, subject: str, path: str) -> None:
        """Whether the gateway answers 200 there, and with a whole answer."""
        began_s, good = self.clock.monotonic_s(), False
        try:
            address, prefix = split_url(self._origin)
            head = header_block(
                [
                    ("host", address.authority),
                    ("accept", "text/html, application/json"),
                    ("user-agent", USER_AGENT),
                ]
            )
            deadline = asyncio.get_running_loop().time() + self._settings.status.timeout_s
            response = await self._client.origin(address).send(
                f"GET {prefix}{path} HTTP/1.1\r\n".encode() + head + b"\r\n", deadline
            )
            try:
                await response.read(ANSWER_BYTES_MAX)
                good = response.status == 200
            finally:
                response.abort()
        except ClientError as error:
            log.warning("does not answer", subject=subject, error=str(error))
        self._note(subject, good=good, ms=round((self.clock.monotonic_s() - began_s) * 1000))

    async def _look_at_providers(self, accounts: list[Upstream]) -> None:
        if not self._settings.status.probe_upstreams:
            return
        found = await asyncio.gather(*(self._probe(each) for each in accounts if each.keys))
        by_provider: dict[str, list[tuple[Look, bool]]] = {}
        for provider, look, good in found:
            by_provider.setdefault(provider, []).append((look, good))
        for provider, looks in by_provider.items():
            working = [look for look, good in looks if good]
            self._note(provider, good=bool(working), ms=min(look.ms for look in working or [looks[0][0]]))
        await asyncio.to_thread(upstream_files.write_looks, self._settings.data_path, [look for _, look, _ in found])

    async def _probe(self, upstream: Upstream) -> tuple[str, Look, bool]:
        """By the account's first key: its provider, what was found, whether it works. One that throttles us does."""
        target = Target(
            provider=upstream.provider,
            base_url=upstream.base_url,
            key=upstream.keys[0],
            timeout_s=self._settings.status.timeout_s,
        )
        began_s = self.clock.monotonic_s()
        found = await probes.reach(self._client, self.clock, target)
        ms = round((self.clock.monotonic_s() - began_s) * 1000)
        look = Look(
            id=upstream.id,
            at=self.clock.wall_s(),
            ms=ms,
            verdict=found.verdict,
            detail=found.detail,
            advice=found.advice,
        )
        return upstream.provider.id, look, found.kind in ("ok", "rate_limited")

    def _note(self, subject: str, *, good: bool, ms: int | None = None) -> None:
        now_s = self.clock.wall_s()
        self._latest.setdefault(subject, deque(maxlen=LATEST_MAX)).append(Check(now_s, good, ms))
        self._unwritten.append((int(now_s // MINUTE_S), subject, good))

    # --- remembering

    def _remember(self, now_s: float) -> None:
        """What was seen goes into the store, what others counted comes from it. Without a store both wait."""
        waiting = list(self._unwritten)
        try:
            with storage.writing(self._engine) as connection:
                store.note_checks(connection, waiting)
            self._unwritten.clear()
            self._history.read(self._engine, now_s)
        except SQLAlchemyError as error:
            log.warning("the store does not answer; the page goes on without it", error=str(error))
            self._history.add(waiting)

    def _facts(self, now_s: float, catalog: Catalog, accounts: list[Upstream]) -> Facts:
        held = {each.provider.id for each in accounts if each.keys}
        history = self._history
        return Facts(
            now_s=now_s,
            history_until=history.read_at,
            parts=[Subject(id=id_, name=name) for id_, name in rules.PARTS.items() if id_ in self._latest],
            providers=providers(catalog, held),
            models=models(catalog, held),
            latest=self._latest,
            checks=history.checks,
            since=history.since,
            days=history.days,
            hours=history.hours(int(now_s // HOUR_S) - 1),
            last_day=history.hours(int(now_s // HOUR_S) - 23),
            first_token=history.first_token,
            whole=history.whole,
            incidents=history.incidents,
        )

    # --- telling

    def _write(self, report: Report) -> None:
        stale = msgspec.structs.replace(report, state="unknown", headline="Not checked for some time")
        pages = {
            files.STALE_JSON: msgspec.json.encode(stale),
            files.STALE_PAGE: status_page.page(self._renderer, report, stale=True).encode(),
            files.JSON: msgspec.json.encode(report),
            files.PAGE: status_page.page(self._renderer, report).encode(),
        }
        files.write(self._settings.data_path, pages, status_page.assets())


def providers(catalog: Catalog, held: set[str]) -> list[Subject]:
    """Those of the catalogue. They count where we have an account, and sell something of theirs."""
    found = []
    for provider in catalog.providers.values():
        served = [
            model
            for model in catalog.models.values()
            if any(candidate.provider.id == provider.id for candidate in model.candidates)
        ]
        offered = provider.id in held and any(model.on_sale for model in served)
        names = tuple(model.id for model in served)
        found.append(Subject(id=provider.id, name=provider.name, models=names, offered=offered))
    return found


def models(catalog: Catalog, held: set[str]) -> list[Subject]:
    """Those of the catalogue, with the providers that serve them here."""
    found = []
    for model in catalog.models.values():
        serving = tuple(dict.fromkeys(each.provider.id for each in model.candidates if each.provider.id in held))
        offered = model.on_sale and bool(serving)
        found.append(Subject(id=model.id, name=model.id, providers=serving, offered=offered))
    return found


class History:
    """What the store said last. Past days do not change, so they are read once an hour only."""

    def __init__(self) -> None:
        self.read_at: float | None = None
        self.checks: dict[str, dict[int, Minutes]] = {}
        self.since: dict[str, int] = {}
        self.days: dict[Key, Counts] = {}
        self.first_token: Mapping[tuple[str, str], Mapping[int, int]] = {}
        self.whole: Mapping[tuple[str, str], Mapping[int, int]] = {}
        self.incidents: list[Incident] = []
        self._hours: dict[Key, Counts] = {}
        self._all_read_s = float("-inf")

    def read(self, engine: Engine, now_s: float) -> None:
        """Raises SQLAlchemyError; what was known stays then."""
        hour, day = int(now_s // HOUR_S), int(now_s // DAY_S)
        everything = now_s - self._all_read_s >= RELOAD_S
        with storage.reading(engine) as connection:
            checks = store.checks(connection, (hour // 24 - rules.DAYS) * 24 if everything else hour - 24)
            since = store.first_minutes(connection)
            days = availability.by_day(connection, day - rules.DAYS if everything else day - 1)
            hours = availability.by_hour(connection, hour - 23)
            first_token = availability.steps(connection, hour - 23, "first_token")
            whole = availability.steps(connection, hour - 23, "whole")
            incidents = store.incidents(connection, now_s - rules.DAYS * DAY_S)
        if everything:
            self.checks, self.days, self._all_read_s = checks, days, now_s
        else:
            for subject, found in checks.items():
                self.checks.setdefault(subject, {}).update(found)
            self.days.update(days)
        self.since, self._hours, self.first_token, self.whole = since, hours, first_token, whole
        self.incidents, self.read_at = incidents, now_s

    def add(self, looks: list[tuple[int, str, bool]]) -> None:
        """What could not be written yet counts all the same."""
        for minute, subject, good in looks:
            hours = self.checks.setdefault(subject, {})
            known, bit = hours.get(minute // 60, Minutes()), 1 << minute % 60
            hours[minute // 60] = Minutes(known.checked | bit, known.good | (bit if good else 0))
            self.since[subject] = min(self.since.get(subject, minute), minute)

    def hours(self, since_hour: int) -> dict[Key, Counts]:
        return {key: counts for key, counts in self._hours.items() if key.bucket >= since_hour}

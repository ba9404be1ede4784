"""`/keys`: make a key, see who uses which, replace one without a gap, stop one."""

from datetime import UTC, datetime
from typing import Any, NamedTuple

from litestar import Response, get, post
from litestar.exceptions import NotFoundException
from litestar.params import FromPath
from litestar.response import Redirect
from litestar.types import ControllerRouterHandler
from sqlalchemy import Connection

from vipcloud.accounts import keys, letters, people, store
from vipcloud.accounts.people import Visitor
from vipcloud.accounts.store import InvalidInput, KeyRow, KeyTerms, NewKey
from vipcloud.console import visits
from vipcloud.console.pages import shell
from vipcloud.console.parts import Parts, threaded
from vipcloud.console.render import Renderer, stop_time
from vipcloud.console.visits import AnyRequest
from vipcloud.ledger import reports
from vipcloud.ledger import store as ledger
from vipcloud.limits.caps import Caps
from vipcloud.money import parse_usd
from vipcloud.storage import engine as storage

HOUR_S = 3600.0
OVERLAPS_S = {"24h": 24 * HOUR_S, "7d": 7 * 24 * HOUR_S, "1h": HOUR_S, "0": 0.0}


class Form(NamedTuple):
    """The fields of a new key, as typed."""

    name: str = ""
    models: tuple[str, ...] = ()
    cap_day: str = ""
    cap_month: str = ""
    cap_total: str = ""
    ends: str = ""
    networks: str = ""
    management: bool = False


class Keys:
    """What the routes do; each in one transaction, in a thread."""

    def __init__(self, parts: Parts, renderer: Renderer) -> None:
        self._parts = parts
        self._renderer = renderer

    def show(self, request: AnyRequest) -> Response[Any]:
        now_s = self._parts.clock.wall_s()
        with storage.reading(self._parts.engine) as connection:
            visitor = visits.visitor(request, connection, self._parts)
            every = store.list_keys(connection, visitor.account.id)
            ids = [key.id for key in every]
            spending = ledger.spending_of_keys(connection, ids, int(now_s // reports.DAY_S))
            context = {
                **shell.context(request, connection, visitor, "keys"),
                "working": [key for key in every if not key.ended(now_s)],
                "ended": [key for key in reversed(every) if key.ended(now_s)],
                "last_used": reports.last_used(connection, visitor.account.id, ids),
                "spending": spending,
                "hour": reports.by_key(connection, reports.Filter(visitor.account.id, now_s - HOUR_S, now_s + 1)),
                "spent": sum(each.monthly for each in spending.values()),
                "now_s": now_s,
            }
        return self._renderer.page("pages/keys.html", context)

    def form(self, request: AnyRequest) -> Response[Any]:
        with storage.reading(self._parts.engine) as connection:
            visitor = visits.visitor(request, connection, self._parts)
            return self._form(request, connection, visitor, Form())

    def create(self, request: AnyRequest, fields: dict[str, list[str]]) -> Response[Any]:
        form = read(fields)
        with storage.writing(self._parts.engine) as connection:
            visitor = visits.visitor(request, connection, self._parts)
            try:
                made = keys.make(
                    connection,
                    visitor.account.id,
                    form.name,
                    terms_of(form),
                    self._parts.clock.wall_s(),
                    self._parts.random_bytes,
                    keys_max=self._parts.settings.accounts.keys_per_account_max,
                    models=self._parts.catalog.models,
                )
                return self._made(request, connection, visitor, made, None)
            except InvalidInput as error:
                return self._form(request, connection, visitor, form, f"{error} No key was made.")

    def ask_rotate(self, request: AnyRequest, key_id: str) -> Response[Any]:
        now_s = self._parts.clock.wall_s()
        with storage.reading(self._parts.engine) as connection:
            visitor = visits.visitor(request, connection, self._parts)
            key = self._own(connection, visitor, key_id)
            context = {
                **shell.context(request, connection, visitor, "keys"),
                "key": key,
                "recent": self._recent(connection, visitor, key),
                "stops": {name: stop_time(now_s + overlap_s) for name, overlap_s in OVERLAPS_S.items()},
                "older": self._older(connection, visitor, key),
            }
        return self._renderer.page("pages/key_rotate.html", context)

    def rotate(self, request: AnyRequest, key_id: str, fields: dict[str, str]) -> Response[Any]:
        """A new key of the same name and terms; the old one stops when its owner said."""
        now_s = self._parts.clock.wall_s()
        with storage.writing(self._parts.engine) as connection:
            visitor = visits.visitor(request, connection, self._parts)
            key = self._own(connection, visitor, key_id)
            if key.ended(now_s) or self._older(connection, visitor, key) is not None:
                return Redirect(f"/keys/{key.id}/rotate", status_code=303)
            overlap_s = OVERLAPS_S.get(fields.get("overlap", ""), OVERLAPS_S["24h"])
            if overlap_s:
                store.end_key(connection, key.id, min(now_s + overlap_s, key.expires_at or float("inf")))
            else:
                store.revoke_key(connection, key.id, now_s)
            stops = f"stops {stop_time(now_s + overlap_s)}" if overlap_s else "has stopped"
            replaces = {"masked": key.masked, "stops": stops}
            made = store.create_key(
                connection, visitor.account.id, now_s, self._parts.random_bytes, key.name, key.terms
            )
            return self._made(request, connection, visitor, made, replaces)

    def ask_revoke(self, request: AnyRequest, key_id: str, problem: str = "") -> Response[Any]:
        with storage.reading(self._parts.engine) as connection:
            visitor = visits.visitor(request, connection, self._parts)
            key = self._own(connection, visitor, key_id)
            context = {
                **shell.context(request, connection, visitor, "keys"),
                "key": key,
                "recent": self._recent(connection, visitor, key),
                "problem": problem,
            }
        return self._renderer.page("pages/key_revoke.html", context, status=400 if problem else 200)

    def revoke(self, request: AnyRequest, key_id: str, fields: dict[str, str]) -> Response[Any]:
        now_s = self._parts.clock.wall_s()
        with storage.writing(self._parts.engine) as connection:
            visitor = visits.visitor(request, connection, self._parts)
            key = self._own(connection, visitor, key_id)
            named = fields.get("name", "").strip() == (key.name or key.masked)
            stops = named or not self._recent(connection, visitor, key)
            if stops and key.revoked_at is None:
                store.revoke_key(connection, key.id, now_s)
                self._tell(connection, visitor, key, "revoked", now_s)
        if not stops:
            return self.ask_revoke(request, key_id, "This is not the key's name. The key still works.")
        return Redirect("/keys", status_code=303)

    def _made(
        self,
        request: AnyRequest,
        connection: Connection,
        visitor: Visitor,
        made: NewKey,
        replaces: dict[str, str] | None,
    ) -> Response[Any]:
        """The page that shows a new key, once."""
        what = "rotated" if replaces else "created"
        self._tell(connection, visitor, made.row, what, self._parts.clock.wall_s())
        context = {
            **shell.context(request, connection, visitor, "keys"),
            "key": made.plaintext,
            "masked": made.row.masked,
            "name": made.row.name,
            "replaces": replaces,
        }
        return self._renderer.page("pages/key_created.html", context, headers={"cache-control": "no-store"})

    def _form(
        self, request: AnyRequest, connection: Connection, visitor: Visitor, form: Form, problem: str = ""
    ) -> Response[Any]:
        context = {
            **shell.context(request, connection, visitor, "keys"),
            "form": form,
            "models": [model.id for model in self._parts.catalog.models.values() if model.status != "soon"],
            "problem": problem,
        }
        return self._renderer.page("pages/key_new.html", context, status=400 if problem else 200)

    def _own(self, connection: Connection, visitor: Visitor, key_id: str) -> KeyRow:
        """The account's key; another account's is not there. Raises NotFoundException."""
        for key in store.list_keys(connection, visitor.account.id):
            if key.id == key_id:
                return key
        raise NotFoundException

    def _older(self, connection: Connection, visitor: Visitor, key: KeyRow) -> KeyRow | None:
        """Another working key of the same name: one old key at a time."""
        standing = store.standing_keys(connection, visitor.account.id, self._parts.clock.wall_s())
        return next((other for other in standing if other.name == key.name and other.id != key.id), None)

    def _recent(self, connection: Connection, visitor: Visitor, key: KeyRow) -> int:
        """Requests of the last hour."""
        now_s = self._parts.clock.wall_s()
        chosen = reports.Filter(visitor.account.id, now_s - HOUR_S, now_s + 1, key_id=key.id)
        return reports.sums(connection, chosen).requests

    def _tell(self, connection: Connection, visitor: Visitor, key: KeyRow, what: str, now_s: float) -> None:
        """Mail the owners: a key that nobody knows of is how money leaves."""
        letter = letters.key_changed(key.name, key.masked, what, visitor.member.email)
        people.mail_owners(connection, visitor.account.id, letter, now_s)


def read(fields: dict[str, list[str]]) -> Form:
    def first(name: str) -> str:
        return fields.get(name, [""])[0].strip()[:200]

    return Form(
        name=first("name")[:100],
        models=tuple(fields.get("models", ())[:100]),
        cap_day=first("cap_day"),
        cap_month=first("cap_month"),
        cap_total=first("cap_total"),
        ends=first("ends"),
        networks=fields.get("networks", [""])[0].strip()[:2000],
        management=first("kind") == "management",
    )


def terms_of(form: Form) -> KeyTerms:
    """Raises InvalidInput."""
    return KeyTerms(
        caps=Caps(_dollars(form.cap_day), _dollars(form.cap_month), _dollars(form.cap_total)),
        expires_at=_day_end(form.ends),
        models=form.models,
        networks=tuple(form.networks.replace(",", " ").split()),
        management=form.management,
    )


def _dollars(text: str) -> int | None:
    """Raises InvalidInput."""
    if not text:
        return None
    try:
        amount = parse_usd(text.lstrip("$"))
    except ValueError as error:
        raise InvalidInput(f"{text[:40]} is no amount of dollars such as 25.00.") from error
    if amount <= 0:
        raise InvalidInput("A cap is above $0.")
    return amount


def _day_end(text: str) -> float | None:
    """The end of a UTC day, `2026-12-31`. Raises InvalidInput."""
    if not text:
        return None
    try:
        day = datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError as error:
        raise InvalidInput(f"{text[:40]} is no day such as 2026-12-31.") from error
    return day.timestamp() + reports.DAY_S


def handlers(parts: Parts, renderer: Renderer) -> list[ControllerRouterHandler]:
    views = Keys(parts, renderer)

    @get("/keys")
    @threaded
    def show(request: AnyRequest) -> Response[Any]:
        return views.show(request)

    @get("/keys/new")
    @threaded
    def new(request: AnyRequest) -> Response[Any]:
        return views.form(request)

    @post("/keys")
    async def create(request: AnyRequest) -> Response[Any]:
        return await parts.in_thread(views.create, request, await visits.form_lists(request, parts))

    @get("/keys/{key_id:str}/rotate")
    @threaded
    def ask_rotate(request: AnyRequest, key_id: FromPath[str]) -> Response[Any]:
        return views.ask_rotate(request, key_id)

    @post("/keys/{key_id:str}/rotate")
    async def rotate(request: AnyRequest, key_id: FromPath[str]) -> Response[Any]:
        return await parts.in_thread(views.rotate, request, key_id, await visits.form(request, parts))

    @get("/keys/{key_id:str}/revoke")
    @threaded
    def ask_revoke(request: AnyRequest, key_id: FromPath[str]) -> Response[Any]:
        return views.ask_revoke(request, key_id)

    @post("/keys/{key_id:str}/revoke")
    async def revoke(request: AnyRequest, key_id: FromPath[str]) -> Response[Any]:
        return await parts.in_thread(views.revoke, request, key_id, await visits.form(request, parts))

    return [show, new, create, ask_rotate, rotate, ask_revoke, revoke]

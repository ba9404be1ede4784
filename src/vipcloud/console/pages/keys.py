"""`/keys`: make a key, see who uses which, replace one, stop one."""

from typing import Any

from litestar import Response, get, post
from litestar.exceptions import NotFoundException
from litestar.params import FromPath
from litestar.response import Redirect
from litestar.types import ControllerRouterHandler
from sqlalchemy import Connection

from vipcloud.accounts import letters, mails, people, store
from vipcloud.accounts.people import Visitor
from vipcloud.accounts.store import InvalidInput, KeyRow
from vipcloud.console import visits
from vipcloud.console.pages import shell
from vipcloud.console.pages.usage import bounds
from vipcloud.console.parts import Parts, threaded
from vipcloud.console.render import Renderer
from vipcloud.console.visits import AnyRequest
from vipcloud.ledger import reports
from vipcloud.storage import engine as storage

KEYS_MAX = 20
HOUR_S = 3600.0


class Keys:
    """What the routes do; each in one transaction, in a thread."""

    def __init__(self, parts: Parts, renderer: Renderer) -> None:
        self._parts = parts
        self._renderer = renderer

    def show(self, request: AnyRequest) -> Response[Any]:
        with storage.reading(self._parts.engine) as connection:
            visitor = visits.visitor(request, connection, self._parts)
            return self._page(request, connection, visitor)

    def create(self, request: AnyRequest, fields: dict[str, str]) -> Response[Any]:
        now_s = self._parts.clock.wall_s()
        with storage.writing(self._parts.engine) as connection:
            visitor = visits.visitor(request, connection, self._parts)
            name = fields.get("name", "").strip()
            working = self._working(connection, visitor)
            if not name:
                return self._page(request, connection, visitor, "Give the key a name. No key was made.", name)
            if any(key.name == name for key in working):
                problem = f"A working key is named {name} already. No key was made. Choose another name."
                return self._page(request, connection, visitor, problem, name)
            if len(working) >= KEYS_MAX:
                problem = f"{KEYS_MAX} keys are the most. No key was made. Revoke one, or write to us."
                return self._page(request, connection, visitor, problem, name)
            try:
                made = store.create_key(connection, visitor.account.id, now_s, self._parts.random_bytes, name)
            except InvalidInput as error:
                return self._page(request, connection, visitor, f"{error} No key was made.", name[:100])
            self._tell(connection, visitor, made.row, "created", now_s)
            context = {
                **shell.context(request, connection, visitor, "keys"),
                "key": made.plaintext,
                "masked": made.row.masked,
                "name": made.row.name,
            }
        return self._renderer.page("pages/key_created.html", context, headers={"cache-control": "no-store"})

    def ask_revoke(self, request: AnyRequest, key_id: str) -> Response[Any]:
        with storage.reading(self._parts.engine) as connection:
            visitor = visits.visitor(request, connection, self._parts)
            key = self._own(connection, visitor, key_id)
            context = {
                **shell.context(request, connection, visitor, "keys"),
                "key": key,
                "recent": self._recent(connection, visitor, key),
                "problem": "",
            }
        return self._renderer.page("pages/key_revoke.html", context)

    def revoke(self, request: AnyRequest, key_id: str, fields: dict[str, str]) -> Response[Any]:
        now_s = self._parts.clock.wall_s()
        with storage.writing(self._parts.engine) as connection:
            visitor = visits.visitor(request, connection, self._parts)
            key = self._own(connection, visitor, key_id)
            recent = self._recent(connection, visitor, key)
            if recent and fields.get("name", "").strip() != (key.name or key.masked):
                context = {
                    **shell.context(request, connection, visitor, "keys"),
                    "key": key,
                    "recent": recent,
                    "problem": "This is not the key's name. The key still works.",
                }
                return self._renderer.page("pages/key_revoke.html", context, status=400)
            store.revoke_key(connection, key.id, now_s)
            if key.revoked_at is None:
                self._tell(connection, visitor, key, "revoked", now_s)
        return Redirect("/keys", status_code=303)

    def _page(
        self, request: AnyRequest, connection: Connection, visitor: Visitor, problem: str = "", name: str = ""
    ) -> Response[Any]:
        now_s = self._parts.clock.wall_s()
        since_s, until_s = bounds("month", now_s)
        ever = reports.by_key(connection, reports.Filter(visitor.account.id, 0, until_s))
        month = reports.by_key(connection, reports.Filter(visitor.account.id, since_s, until_s))
        keys = store.list_keys(connection, visitor.account.id)
        context = {
            **shell.context(request, connection, visitor, "keys"),
            "working": [key for key in keys if key.revoked_at is None],
            "revoked": [key for key in reversed(keys) if key.revoked_at is not None],
            "ever": ever,
            "month": month,
            "spent": sum(use.charge_nanousd for use in month.values()),
            "now_s": now_s,
            "keys_max": KEYS_MAX,
            "problem": problem,
            "name": name,
        }
        return self._renderer.page("pages/keys.html", context, status=400 if problem else 200)

    def _working(self, connection: Connection, visitor: Visitor) -> list[KeyRow]:
        return [key for key in store.list_keys(connection, visitor.account.id) if key.revoked_at is None]

    def _own(self, connection: Connection, visitor: Visitor, key_id: str) -> KeyRow:
        """The account's key; another account's is not there. Raises NotFoundException."""
        for key in store.list_keys(connection, visitor.account.id):
            if key.id == key_id:
                return key
        raise NotFoundException

    def _recent(self, connection: Connection, visitor: Visitor, key: KeyRow) -> int:
        """Requests of the last hour."""
        now_s = self._parts.clock.wall_s()
        chosen = reports.Filter(visitor.account.id, now_s - HOUR_S, now_s + 1, key_id=key.id)
        return reports.sums(connection, chosen).requests

    def _tell(self, connection: Connection, visitor: Visitor, key: KeyRow, what: str, now_s: float) -> None:
        """Mail the owners: a key that nobody knows of is how money leaves."""
        letter = letters.key_changed(key.name, key.masked, what, visitor.member.email)
        for member in people.list_members(connection, visitor.account.id):
            if member.role == "owner":
                mails.queue(connection, member.email, letter.subject, letter.body, now_s)


def handlers(parts: Parts, renderer: Renderer) -> list[ControllerRouterHandler]:
    keys = Keys(parts, renderer)

    @get("/keys")
    @threaded
    def show(request: AnyRequest) -> Response[Any]:
        return keys.show(request)

    @post("/keys")
    async def create(request: AnyRequest) -> Response[Any]:
        return await parts.in_thread(keys.create, request, await visits.form(request, parts))

    @get("/keys/{key_id:str}/revoke")
    @threaded
    def ask_revoke(request: AnyRequest, key_id: FromPath[str]) -> Response[Any]:
        return keys.ask_revoke(request, key_id)

    @post("/keys/{key_id:str}/revoke")
    async def revoke(request: AnyRequest, key_id: FromPath[str]) -> Response[Any]:
        return await parts.in_thread(keys.revoke, request, key_id, await visits.form(request, parts))

    return [show, create, ask_revoke, revoke]

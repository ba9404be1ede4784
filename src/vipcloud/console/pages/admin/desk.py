"""What all pages below /admin share: for whom they exist, what stands around them, and the trace that an act leaves."""

from collections.abc import Callable, Mapping
from typing import Any

from litestar import Response
from litestar.exceptions import NotFoundException
from litestar.response import Redirect
from sqlalchemy import Connection

from vipcloud.accounts import operators, people
from vipcloud.accounts.people import Visitor
from vipcloud.accounts.store import AccountsError
from vipcloud.console import visits
from vipcloud.console.parts import Parts
from vipcloud.console.render import Renderer
from vipcloud.console.visits import AnyRequest
from vipcloud.errors import SettingsError
from vipcloud.ledger.store import LedgerError
from vipcloud.status.store import IncidentError
from vipcloud.storage import engine as storage

Context = Mapping[str, Any]
Show = Callable[[Connection], Context]
Act = Callable[[Connection, Visitor, dict[str, str]], None]


class Refused(Exception):
    """A form asks for what cannot be. The text is for the operator."""


class Desk:
    """For operators the pages are there; for everybody else they are a 404, as are their forms."""

    def __init__(self, parts: Parts, renderer: Renderer) -> None:
        self.parts = parts
        self._renderer = renderer

    def operator(self, request: AnyRequest, connection: Connection) -> Visitor:
        """Raises NotFoundException."""
        found = visits.known_visitor(request, connection, self.parts)
        if found is None or not operators.is_operator(connection, found.member.id):
            raise NotFoundException
        return found

    def page(self, request: AnyRequest, name: str, show: Show, *, problem: str = "") -> Response[Any]:
        """The page `admin/NAME.html` with what `show` finds."""
        with storage.reading(self.parts.engine) as connection:
            visitor = self.operator(request, connection)
            context = {
                "page": name,
                "member": visitor.member,
                "form_token": visits.form_token(request),
                "now": self.parts.clock.wall_s(),
                "waiting_count": len(people.list_waiting(connection, "waiting")),
                "problem": problem,
                **show(connection),
            }
        return self._renderer.page(f"admin/{name}.html", context, status=400 if problem else 200)

    async def act(self, request: AnyRequest, act: Act, back: str, name: str, show: Show) -> Response[Any]:
        """Do what a form asks for, in one transaction, and go `back`; or show page `name` again and say why not."""
        await self.parts.in_thread(self._check, request)
        fields = await visits.form(request, self.parts)
        try:
            await self.parts.in_thread(self._write, request, act, fields)
        except (Refused, AccountsError, IncidentError, LedgerError, SettingsError) as error:
            return await self.parts.in_thread(self.page, request, name, show, problem=str(error))
        return Redirect(back, status_code=303)

    def note(
        self, connection: Connection, visitor: Visitor, action: str, object_: str, *, before: str = "", after: str = ""
    ) -> None:
        """The trace of an act, in its transaction."""
        now_s = self.parts.clock.wall_s()
        operators.note(connection, visitor.member.email, action, object_, now_s, before=before, after=after)

    def _check(self, request: AnyRequest) -> None:
        with storage.reading(self.parts.engine) as connection:
            self.operator(request, connection)

    def _write(self, request: AnyRequest, act: Act, fields: dict[str, str]) -> None:
        with storage.writing(self.parts.engine) as connection:
            act(connection, self.operator(request, connection), fields)

"""`/settings`: the people of an account, and signing out everywhere."""

from typing import Any

from litestar import Response, get, post
from litestar.exceptions import PermissionDeniedException
from litestar.params import FromPath
from litestar.response import Redirect
from litestar.types import ControllerRouterHandler
from sqlalchemy import Connection

from vipcloud.accounts import letters, mails, people
from vipcloud.accounts.people import Visitor
from vipcloud.accounts.store import AccountsError
from vipcloud.console import visits
from vipcloud.console.pages import shell
from vipcloud.console.parts import Parts, threaded
from vipcloud.console.render import Renderer
from vipcloud.console.visits import AnyRequest
from vipcloud.storage import engine as storage

MEMBERS_MAX = 50


class People:
    """What the routes do; each in one transaction, in a thread."""

    def __init__(self, parts: Parts, renderer: Renderer) -> None:
        self._parts = parts
        self._renderer = renderer

    def show(self, request: AnyRequest) -> Response[Any]:
        with storage.reading(self._parts.engine) as connection:
            visitor = visits.visitor(request, connection, self._parts)
            return self._page(request, connection, visitor)

    def invite(self, request: AnyRequest, fields: dict[str, str]) -> Response[Any]:
        parts, now_s = self._parts, self._parts.clock.wall_s()
        email = fields.get("email", "").strip()
        with storage.writing(parts.engine) as connection:
            visitor = self._owner(request, connection)
            if len(people.list_members(connection, visitor.account.id)) >= MEMBERS_MAX:
                problem = f"{MEMBERS_MAX} people are the most. Nobody was invited."
                return self._page(request, connection, visitor, problem, email)
            try:
                role: people.Role = "owner" if fields.get("role") == "owner" else "member"
                member = people.add_member(connection, visitor.account.id, email, role, now_s, parts.random_bytes)
            except AccountsError as error:
                return self._page(request, connection, visitor, f"{error} Nobody was invited.", email[:200])
            token = people.invite(connection, member.id, now_s, parts.random_bytes)
            letter = letters.invited(f"{parts.public_url}/welcome/{token}", visitor.account.email, visitor.member.email)
            mails.queue(connection, member.email, letter.subject, letter.body, now_s)
        return Redirect("/settings", status_code=303)

    def remove(self, request: AnyRequest, member_id: str) -> Response[Any]:
        with storage.writing(self._parts.engine) as connection:
            visitor = visits.visitor(request, connection, self._parts)
            if member_id != visitor.member.id and visitor.member.role != "owner":
                raise PermissionDeniedException("Only owners can take other people's access away")
            try:
                people.remove_member(connection, visitor.account.id, member_id)
            except AccountsError as error:
                return self._page(request, connection, visitor, str(error))
        return Redirect("/" if member_id == visitor.member.id else "/settings", status_code=303)

    def change_role(self, request: AnyRequest, member_id: str, fields: dict[str, str]) -> Response[Any]:
        with storage.writing(self._parts.engine) as connection:
            visitor = self._owner(request, connection)
            try:
                role: people.Role = "owner" if fields.get("role") == "owner" else "member"
                people.set_role(connection, visitor.account.id, member_id, role)
            except AccountsError as error:
                return self._page(request, connection, visitor, str(error))
        return Redirect("/settings", status_code=303)

    def sign_out_everywhere(self, request: AnyRequest) -> Response[Any]:
        with storage.writing(self._parts.engine) as connection:
            visitor = visits.visitor(request, connection, self._parts)
            people.close_sessions(connection, visitor.member.id)
        return Redirect("/login", status_code=303, cookies=[visits.cookie(self._parts, visits.SESSION, "", 0)])

    def _owner(self, request: AnyRequest, connection: Connection) -> Visitor:
        """Raises PermissionDeniedException for members."""
        visitor = visits.visitor(request, connection, self._parts)
        if visitor.member.role != "owner":
            raise PermissionDeniedException("Only owners can do this")
        return visitor

    def _page(
        self, request: AnyRequest, connection: Connection, visitor: Visitor, problem: str = "", email: str = ""
    ) -> Response[Any]:
        context = {
            **shell.context(request, connection, visitor, "settings"),
            "people": people.list_members(connection, visitor.account.id),
            "problem": problem,
            "email": email,
        }
        return self._renderer.page("pages/settings.html", context, status=400 if problem else 200)


def handlers(parts: Parts, renderer: Renderer) -> list[ControllerRouterHandler]:
    page = People(parts, renderer)

    @get("/settings")
    @threaded
    def show(request: AnyRequest) -> Response[Any]:
        return page.show(request)

    @post("/settings/members")
    async def invite(request: AnyRequest) -> Response[Any]:
        return await parts.in_thread(page.invite, request, await visits.form(request, parts))

    @post("/settings/members/{member_id:str}/remove")
    async def remove(request: AnyRequest, member_id: FromPath[str]) -> Response[Any]:
        await visits.form(request, parts)
        return await parts.in_thread(page.remove, request, member_id)

    @post("/settings/members/{member_id:str}/role")
    async def change_role(request: AnyRequest, member_id: FromPath[str]) -> Response[Any]:
        return await parts.in_thread(page.change_role, request, member_id, await visits.form(request, parts))

    @post("/settings/sign-out")
    async def sign_out(request: AnyRequest) -> Response[Any]:
        await visits.form(request, parts)
        return await parts.in_thread(page.sign_out_everywhere, request)

    return [show, invite, remove, change_role, sign_out]

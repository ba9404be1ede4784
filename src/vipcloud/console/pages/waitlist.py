"""`/waitlist`: join, confirm the address; `/welcome`: an approved account's link, which shows its first key once."""

from typing import Any

from litestar import Response, get, post
from litestar.params import FromPath
from litestar.response import Redirect
from litestar.types import ControllerRouterHandler

from vipcloud.accounts import admission, letters, mails, people, store
from vipcloud.accounts.store import InvalidInput
from vipcloud.console import visits
from vipcloud.console.parts import Parts, threaded
from vipcloud.console.rate import Window
from vipcloud.console.render import Renderer
from vipcloud.console.visits import AnyRequest
from vipcloud.storage import engine as storage

JOINS_PER_HOUR = 20
FIRST_KEY = "first key"


class Waitlist:
    """What the routes do; each in one transaction, in a thread."""

    def __init__(self, parts: Parts, renderer: Renderer) -> None:
        self._parts = parts
        self._renderer = renderer
        self._joins = Window(JOINS_PER_HOUR, 3600)

    def join(self, email: str, client: str) -> Response[Any]:
        parts, now_s = self._parts, self._parts.clock.wall_s()
        if not self._joins.admits(client, parts.clock.monotonic_s()):
            problem = "Too many addresses came from your network. Nothing was noted. Try again in an hour."
            return self._told("Not noted", problem, 429)
        try:
            with storage.writing(parts.engine) as connection:
                token = people.join_waitlist(connection, email, now_s, parts.random_bytes)
                if token is not None:
                    letter = letters.confirm(f"{parts.public_url}/waitlist/confirm/{token}")
                    mails.queue(connection, people.normal_email(email), letter.subject, letter.body, now_s)
        except InvalidInput:
            return self._told("Not noted", "That is no e-mail address. Nothing was noted. Go back and mend it.", 400)
        return self._told(
            "Look into your mail",
            "If the address is new to us, a mail with a link is on its way. You are on the list once you open it.",
        )

    def confirm(self, token: str) -> Response[Any]:
        parts, now_s = self._parts, self._parts.clock.wall_s()
        with storage.writing(parts.engine) as connection:
            waiting = people.confirm_waiting(connection, token, now_s)
            if waiting is not None and waiting.status == "waiting" and parts.settings.console.waitlist == "open":
                admission.approve(
                    connection, waiting.email, now_s, parts.random_bytes, parts.settings, parts.public_url
                )
                return self._told(
                    "Look into your mail again", "Your account is open; a link to its key is in your mail."
                )
        if waiting is None:
            return self._told(
                "This link leads nowhere", "It is mistyped, or a newer one was mailed. Nothing changed.", 404
            )
        return self._told(
            "You are on the list", "We read each request and send a key within 24 hours. There is nothing more to do."
        )

    def question(self, template: str, **context: Any) -> Response[Any]:
        return self._renderer.page(template, {"page": "waitlist", **context})

    def invited(self, token: str) -> Response[Any]:
        with storage.reading(self._parts.engine) as connection:
            member = people.invited(connection, token, self._parts.clock.wall_s())
        if member is None:
            return self._spent()
        return self.question("pages/welcome.html", token=token, email=member.email)

    def enter(self, token: str) -> Response[Any]:
        """Sign the member in; an account without a key gets its first one, shown now and never again."""
        parts, now_s = self._parts, self._parts.clock.wall_s()
        with storage.writing(parts.engine) as connection:
            member = people.use_invitation(connection, token, now_s)
            if member is None:
                return self._spent()
            session = people.open_session(connection, member.id, now_s, parts.random_bytes)
            made = None
            if not store.list_keys(connection, member.account_id):
                made = store.create_key(connection, member.account_id, now_s, parts.random_bytes, FIRST_KEY)
        cookie = visits.cookie(parts, visits.SESSION, session, people.SESSION_LIFE_S)
        if made is None:
            return Redirect("/overview", status_code=303, cookies=[cookie])
        page = self._renderer.page(
            "pages/first_key.html",
            {"page": "welcome", "key": made.plaintext, "masked": made.row.masked, "name": made.row.name},
            headers={"cache-control": "no-store"},
        )
        page.cookies.append(cookie)
        return page

    def _spent(self) -> Response[Any]:
        return self._told(
            "This link has been used",
            "It works once and for 14 days. If you did not store the key, sign in and rotate it.",
            404,
        )

    def _told(self, title: str, text: str, status: int = 200) -> Response[Any]:
        context = {"page": "waitlist", "title": title, "text": text}
        return self._renderer.page("pages/told.html", context, status=status)


def handlers(parts: Parts, renderer: Renderer) -> list[ControllerRouterHandler]:
    waitlist = Waitlist(parts, renderer)

    @post("/waitlist")
    async def join(request: AnyRequest) -> Response[Any]:
        fields = await visits.form(request, parts, signed_in=False)
        client = visits.client_address(request.headers)
        return await parts.in_thread(waitlist.join, fields.get("email", ""), client)

    # Mail filters open links to look at them: what a link does is done by its page's button.
    @get("/waitlist/confirm/{token:str}", sync_to_thread=False)
    def ask_confirm(token: FromPath[str]) -> Response[Any]:
        return waitlist.question("pages/waitlist_confirm.html", token=token)

    @post("/waitlist/confirm/{token:str}")
    async def confirm(request: AnyRequest, token: FromPath[str]) -> Response[Any]:
        await visits.form(request, parts, signed_in=False)
        return await parts.in_thread(waitlist.confirm, token)

    @get("/welcome/{token:str}")
    @threaded
    def invited(token: FromPath[str]) -> Response[Any]:
        return waitlist.invited(token)

    @post("/welcome/{token:str}")
    async def enter(request: AnyRequest, token: FromPath[str]) -> Response[Any]:
        await visits.form(request, parts, signed_in=False)
        return await parts.in_thread(waitlist.enter, token)

    return [join, ask_confirm, confirm, invited, enter]

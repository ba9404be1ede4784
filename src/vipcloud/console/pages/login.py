"""`/login`: a code by mail instead of a password; `/logout`. The answers are the same for addresses nobody has."""

from typing import Any

from litestar import Response, get, post
from litestar.datastructures import Cookie
from litestar.response import Redirect
from litestar.types import ControllerRouterHandler

from vipcloud.accounts import letters, mails, people, rules
from vipcloud.console import visits
from vipcloud.console.parts import Parts, threaded
from vipcloud.console.rate import Window
from vipcloud.console.render import Renderer, clock_time
from vipcloud.console.visits import AnyRequest
from vipcloud.storage import engine as storage

ASKS_PER_HOUR = 30  # from one address of the network
TRIES_PER_HOUR = 60


class SignIn:
    """What the routes do; each in one transaction, in a thread."""

    def __init__(self, parts: Parts, renderer: Renderer) -> None:
        self._parts = parts
        self._renderer = renderer
        self._asks = Window(ASKS_PER_HOUR, 3600)
        self._tries = Window(TRIES_PER_HOUR, 3600)

    def form(self, email: str = "", problem: str = "", back: str = "", status: int = 200) -> Response[str]:
        context = {"page": "login", "email": email, "problem": problem, "back": back}
        return self._renderer.page("pages/login.html", context, status=status)

    def ask(self, fields: dict[str, str], client: str, agent: str) -> Response[Any]:
        parts, now_s = self._parts, self._parts.clock.wall_s()
        back = visits.local_page(fields.get("back", ""), "")
        try:
            email = rules.normal_email(fields.get("email", ""))
        except ValueError:
            problem = "That is no e-mail address. Nothing was sent. Write it as name@example.com."
            return self.form(fields.get("email", "")[:200], problem, back, 400)
        if not self._asks.admits(client, parts.clock.monotonic_s()):
            problem = "Too many codes were asked for from your network. Nothing was sent. Try again in an hour."
            return self.form(email, problem, back, 429)
        with storage.writing(parts.engine) as connection:
            issued = people.issue_code(connection, email, now_s, parts.random_bytes)
            if issued is None:
                problem = "Five codes an hour is the most for one address. Nothing was sent. Use the last one, or wait."
                return self.form(email, problem, back, 429)
            if people.find_member(connection, email) is not None:
                letter = letters.code(issued.code, clock_time(issued.expires_at), browser_name(agent))
                mails.queue(connection, email, letter.subject, letter.body, now_s)
        cookie = visits.cookie(parts, visits.BROWSER, issued.browser, people.CODE_LIFE_S)
        return Redirect("/login/code" + (f"?back={back}" if back else ""), status_code=303, cookies=[cookie])

    def code_form(self, browser: str, back: str, problem: str = "", status: int = 200) -> Response[Any]:
        with storage.reading(self._parts.engine) as connection:
            asked = people.asked_code(connection, browser)
        if asked is None:
            return Redirect("/login", status_code=303)
        context = {
            "page": "login",
            "email": asked.email,
            "until": clock_time(asked.expires_at),
            "tries_left": asked.tries_left,
            "problem": problem,
            "back": back,
        }
        return self._renderer.page("pages/login_code.html", context, status=status)

    def check(self, fields: dict[str, str], browser: str, client: str) -> Response[Any]:
        parts, now_s = self._parts, self._parts.clock.wall_s()
        back = visits.local_page(fields.get("back", ""), "")
        code = "".join(mark for mark in fields.get("code", "") if mark.isdigit())
        if not self._tries.admits(client, parts.clock.monotonic_s()):
            return self.code_form(browser, back, "Too many tries from your network. Wait an hour.", 429)
        with storage.writing(parts.engine) as connection:
            member = people.check_code(connection, browser, code, now_s)
            session = people.open_session(connection, member.id, now_s, parts.random_bytes) if member else None
        if session is None:
            return self._refused(browser, back, now_s)
        cookies = [
            visits.cookie(parts, visits.SESSION, session, people.SESSION_LIFE_S),
            visits.cookie(parts, visits.BROWSER, "", 0),
        ]
        return Redirect(back or "/overview", status_code=303, cookies=cookies)

    def _refused(self, browser: str, back: str, now_s: float) -> Response[Any]:
        with storage.reading(self._parts.engine) as connection:
            asked = people.asked_code(connection, browser)
        if asked is None or asked.expires_at < now_s:
            return self.form(problem="The code has expired. Nobody was signed in. Have a new one mailed.", status=400)
        if asked.tries_left <= 0:
            problem = "That was the last try. Nobody was signed in. Have a new code mailed."
            return self.form(asked.email, problem, back, 400)
        tries = "1 try is" if asked.tries_left == 1 else f"{asked.tries_left} tries are"
        return self.code_form(browser, back, f"This is not the code of our last mail. {tries} left.", 400)

    def end(self, request: AnyRequest) -> list[Cookie]:
        with storage.writing(self._parts.engine) as connection:
            found = visits.known_visitor(request, connection, self._parts)
            if found is not None:
                people.close_session(connection, found.session_hash)
        return [visits.cookie(self._parts, visits.SESSION, "", 0)]


def browser_name(agent: str) -> str:
    """The browser and system of a User-Agent, as far as people would name them."""
    browsers = (("Edg/", "Edge"), ("Firefox/", "Firefox"), ("Chrome/", "Chrome"), ("Safari/", "Safari"))
    systems = (
        ("Windows", "Windows"),
        ("Android", "Android"),
        ("iPhone", "iPhone"),
        ("Mac OS", "macOS"),
        ("Linux", "Linux"),
    )
    browser = next((name for mark, name in browsers if mark in agent), "a browser")
    system = next((name for mark, name in systems if mark in agent), "Linux" if "Linux" in agent else "")
    return f"{browser} on {system}" if system else browser


def handlers(parts: Parts, renderer: Renderer) -> list[ControllerRouterHandler]:
    sign_in = SignIn(parts, renderer)

    @get("/login", sync_to_thread=False)
    def login(request: AnyRequest) -> Response[Any]:
        return sign_in.form(back=visits.local_page(request.query_params.get("back", ""), ""))

    @post("/login")
    async def ask(request: AnyRequest) -> Response[Any]:
        fields = await visits.form(request, parts, signed_in=False)
        client, agent = visits.client_address(request.headers), request.headers.get("user-agent", "")
        return await parts.in_thread(sign_in.ask, fields, client, agent)

    @get("/login/code")
    @threaded
    def code(request: AnyRequest) -> Response[Any]:
        back = visits.local_page(request.query_params.get("back", ""), "")
        return sign_in.code_form(request.cookies.get(visits.BROWSER, ""), back)

    @post("/login/code")
    async def check(request: AnyRequest) -> Response[Any]:
        fields = await visits.form(request, parts, signed_in=False)
        browser, client = request.cookies.get(visits.BROWSER, ""), visits.client_address(request.headers)
        return await parts.in_thread(sign_in.check, fields, browser, client)

    @post("/logout")
    async def logout(request: AnyRequest) -> Response[Any]:
        await visits.form(request, parts)
        return Redirect("/", status_code=303, cookies=await parts.in_thread(sign_in.end, request))

    return [login, ask, code, check, logout]

"""The form for promo codes on `/credit`."""

from typing import Any

from litestar import Response, post
from litestar.exceptions import PermissionDeniedException
from litestar.response import Redirect
from litestar.types import ControllerRouterHandler

from vipcloud.billing import promos
from vipcloud.billing.promos import PromoError
from vipcloud.console import visits
from vipcloud.console.pages import shell
from vipcloud.console.parts import Parts
from vipcloud.console.rate import Window
from vipcloud.console.render import Renderer
from vipcloud.console.visits import AnyRequest
from vipcloud.ledger.store import LedgerError
from vipcloud.storage import engine as storage

TRIES_PER_HOUR = 10  # of an account, and three times as many of an address


class Promos:
    """What the route does; in a thread."""

    def __init__(self, parts: Parts, renderer: Renderer) -> None:
        self._parts = parts
        self._renderer = renderer
        self._of_account = Window(TRIES_PER_HOUR, 3600)
        self._of_address = Window(3 * TRIES_PER_HOUR, 3600)

    def redeem(self, request: AnyRequest, code: str) -> Response[Any]:
        clock = self._parts.clock
        address = visits.client_address(request.headers)
        with storage.reading(self._parts.engine) as connection:
            visitor = visits.visitor(request, connection, self._parts)
            shown = shell.context(request, connection, visitor, "credit")
        if visitor.member.role != "owner":
            raise PermissionDeniedException("Only owners can add credit")
        now_s = clock.monotonic_s()
        # Both count every try, whichever of them is the stricter.
        if not all([self._of_account.admits(visitor.account.id, now_s), self._of_address.admits(address, now_s)]):
            return self._problem(shown, "Too many codes were tried. Try again in an hour.", 429)
        try:
            with storage.writing(self._parts.engine) as connection:
                promos.redeem(connection, visitor.account, code, clock.wall_s())
        except PromoError as error:
            return self._problem(shown, str(error), 400)
        except LedgerError:
            return self._problem(shown, promos.NOTHING, 400)
        return Redirect("/credit?promo=added#promo", status_code=303)

    def _problem(self, shown: dict[str, Any], problem: str, status: int) -> Response[Any]:
        context = {**shown, "title": "No credit was added", "problem": problem}
        return self._renderer.page("pages/credit_problem.html", context, status=status)


def handlers(parts: Parts, renderer: Renderer) -> list[ControllerRouterHandler]:
    codes = Promos(parts, renderer)

    @post("/credit/promo")
    async def redeem(request: AnyRequest) -> Response[Any]:
        fields = await visits.form(request, parts)
        return await parts.in_thread(codes.redeem, request, fields.get("code", ""))

    return [redeem]

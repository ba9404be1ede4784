"""What `/credit` lets owners choose for when credit runs low: a mail, or a charge of the saved card."""

from typing import Any

import structlog
from litestar import Response, post
from litestar.exceptions import PermissionDeniedException
from litestar.response import Redirect
from litestar.types import ControllerRouterHandler
from sqlalchemy import Connection

from vipcloud.accounts.people import Visitor
from vipcloud.billing import rules, watch
from vipcloud.billing.payments import Payments, PaymentsError
from vipcloud.billing.watch import Watch
from vipcloud.console import visits
from vipcloud.console.pages import shell, topup
from vipcloud.console.parts import Parts
from vipcloud.console.render import Renderer
from vipcloud.console.visits import AnyRequest
from vipcloud.money import parse_usd
from vipcloud.storage import engine as storage

LOW_MAX_USD = 10_000
BELOW_CENTS, AMOUNT_CENTS, CAP_CENTS = 1_000, 5_000, 20_000  # what the form suggests

log = structlog.get_logger(__name__)


def context(parts: Parts, connection: Connection, account_id: str, now_s: float) -> dict[str, Any]:
    """What the page shows of it."""
    found = watch.find(connection, account_id)
    low = int(parse_usd(parts.settings.payments.low_credit_usd)) if found.low_nanousd is None else found.low_nanousd
    return {
        "watch": found,
        "low": plain(low // rules.NANO_PER_CENT),
        "below": plain(found.below_cents or BELOW_CENTS),
        "recharge_amount": plain(found.amount_cents or AMOUNT_CENTS),
        "cap": plain(found.cap_cents or CAP_CENTS),
        "charged_nanousd": rules.nanousd(watch.charged_cents(connection, account_id, rules.month_start(now_s))),
    }


def plain(cents: int) -> str:
    """Dollars as a field has them: `25` or `12.50`."""
    return f"{cents // 100}" if cents % 100 == 0 else f"{cents / 100:.2f}"


class Recharging:
    """What the routes do; each in a thread. `stripe` is None where paying by card is off."""

    def __init__(self, parts: Parts, renderer: Renderer, stripe: Payments | None) -> None:
        self._parts = parts
        self._renderer = renderer
        self._stripe = stripe

    def watch_low(self, request: AnyRequest, fields: dict[str, str]) -> Response[Any]:
        with storage.writing(self._parts.engine) as connection:
            visitor = self._owner(request, connection)
            try:
                cents = rules.cents(fields.get("low", ""), 0, LOW_MAX_USD)
            except ValueError as error:
                return self._problem(request, connection, visitor, f"{error}. 0 is for no mails.")
            # Whoever sets a bound above what is left knows that it is: the next fall below it is mailed.
            left = watch.left(connection, visitor.account.id)
            now_s = self._parts.clock.wall_s()
            low_at = now_s if left < rules.nanousd(cents) else None
            watch.save(connection, visitor.account.id, low_nanousd=int(rules.nanousd(cents)), low_at=low_at)
        return Redirect("/credit#low", status_code=303)

    def set_recharge(self, request: AnyRequest, fields: dict[str, str]) -> Response[Any]:
        settings = self._parts.settings.payments
        with storage.writing(self._parts.engine) as connection:
            visitor = self._owner(request, connection)
            account_id = visitor.account.id
            if fields.get("do") == "off":
                watch.save(connection, account_id, recharge_on=False, stopped_reason=None)
                return Redirect("/credit#recharge", status_code=303)
            known = watch.find(connection, account_id)
            if known.method_id is None:
                return self._problem(request, connection, visitor, "No card is saved yet: add credit with one first.")
            try:
                amount = rules.cents(
                    fields.get("amount", ""), settings.topup_min_usd, settings.topup_max_usd, "an amount to add"
                )
                below = rules.cents(fields.get("below", ""), 1, amount // 100, "a bound no higher than what is added,")
                least = -(-amount // 100)
                cap = rules.cents(
                    fields.get("cap", ""), least, max(least, settings.recharge_cap_max_usd), "a cap per month"
                )
            except ValueError as error:
                return self._problem(request, connection, visitor, f"{error}.")
            values = {"below_cents": below, "amount_cents": amount, "cap_cents": cap}
            fresh = {} if known.cap_cents == cap else {"capped_at": None}
            watch.save(connection, account_id, recharge_on=True, stopped_reason=None, **values, **fresh)
        return Redirect("/credit#recharge", status_code=303)

    def forget_card(self, request: AnyRequest) -> Response[Any]:
        """Here first: a card that Stripe still knows is charged by nobody."""
        gone: dict[str, Any] = {"recharge_on": False, "method_id": None, "card": None, "stopped_reason": None}
        with storage.writing(self._parts.engine) as connection:
            visitor = self._owner(request, connection)
            known = watch.find(connection, visitor.account.id)
            watch.save(connection, visitor.account.id, **gone)
        if known.method_id is not None and self._stripe is not None:
            try:
                self._stripe.forget_card(known.method_id)
            except PaymentsError as error:
                log.error("stripe did not forget a card", account=known.account_id, error=str(error))
                with storage.writing(self._parts.engine) as connection:
                    self._keep(connection, known)
                    return self._problem(
                        request, connection, visitor, "Stripe does not answer. The card is off, and still saved.", 503
                    )
        return Redirect("/credit#recharge", status_code=303)

    def _keep(self, connection: Connection, known: Watch) -> None:
        if watch.find(connection, known.account_id).method_id is None:
            watch.save(connection, known.account_id, method_id=known.method_id, card=known.card)

    def _owner(self, request: AnyRequest, connection: Connection) -> Visitor:
        visitor = visits.visitor(request, connection, self._parts)
        if visitor.member.role != "owner":
            raise PermissionDeniedException("Only owners can change this")
        return visitor

    def _problem(
        self, request: AnyRequest, connection: Connection, visitor: Visitor, problem: str, status: int = 400
    ) -> Response[Any]:
        shown = {
            **shell.context(request, connection, visitor, "credit"),
            "title": "Nothing was changed",
            "problem": problem,
        }
        return self._renderer.page("pages/credit_problem.html", shown, status=status)


def handlers(parts: Parts, renderer: Renderer) -> list[ControllerRouterHandler]:
    stripe = Payments(parts.settings.payments) if topup.is_on(parts) else None
    recharging = Recharging(parts, renderer, stripe)

    @post("/credit/low")
    async def low(request: AnyRequest) -> Response[Any]:
        return await parts.in_thread(recharging.watch_low, request, await visits.form(request, parts))

    @post("/credit/recharge")
    async def recharge(request: AnyRequest) -> Response[Any]:
        return await parts.in_thread(recharging.set_recharge, request, await visits.form(request, parts))

    @post("/credit/card/forget")
    async def forget(request: AnyRequest) -> Response[Any]:
        await visits.form(request, parts)
        return await parts.in_thread(recharging.forget_card, request)

    return [low, recharge, forget] if stripe is not None else [low]

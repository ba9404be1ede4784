"""Paying by card: the way to Stripe's page and back, receipts, and Stripe's events at `/webhooks/stripe`."""

from typing import Any

import structlog
from litestar import Response, get, post
from litestar.background_tasks import BackgroundTask
from litestar.enums import MediaType
from litestar.exceptions import NotFoundException, PermissionDeniedException
from litestar.params import FromPath
from litestar.response import Redirect
from litestar.types import ControllerRouterHandler
from sqlalchemy import Connection

from vipcloud.accounts import letters, mails
from vipcloud.accounts import store as accounts
from vipcloud.accounts.people import Visitor
from vipcloud.billing import payments, recharges, rules, watch, withdrawals
from vipcloud.billing import store as billing
from vipcloud.billing.payments import ForgedEvent, Payments, PaymentsError
from vipcloud.billing.rules import Added, AddedAgain, Disputed, Ignored, Outcome, Topup
from vipcloud.console import visits
from vipcloud.console.pages import shell
from vipcloud.console.parts import Parts, threaded
from vipcloud.console.render import Renderer
from vipcloud.console.visits import AnyRequest
from vipcloud.storage import engine as storage

LONG_S = 600.0  # a payment that is not confirmed by then is told of as such
ASKED = ("account_id", "amount_cents", "saves_card", "charged_to")  # of a top-up: what a form asks for
PAGE_LIFE_S = 20 * 3600.0  # Stripe's pages and idempotency keys live for a day

log = structlog.get_logger(__name__)


def is_on(parts: Parts) -> bool:
    """Whether customers can pay: without the secret a payment would never be heard of."""
    settings = parts.settings.payments
    return bool(settings.stripe_key.reveal() and settings.webhook_secret.reveal())


class TopUps:
    """What the routes do; each in a thread."""

    def __init__(self, parts: Parts, renderer: Renderer, stripe: Payments) -> None:
        self._parts = parts
        self._renderer = renderer
        self._stripe = stripe

    def begin(self, request: AnyRequest, fields: dict[str, str]) -> Response[Any]:
        settings = self._parts.settings.payments
        now_s = self._parts.clock.wall_s()
        with storage.writing(self._parts.engine) as connection:
            visitor = visits.visitor(request, connection, self._parts)
            if visitor.member.role != "owner":
                raise PermissionDeniedException("Only owners can add credit")
            try:
                asked = fields.get("other", "").strip() or fields.get("amount", "")
                cents = rules.cents(asked, settings.topup_min_usd, settings.topup_max_usd)
            except ValueError as error:
                return self._problem(request, connection, visitor, f"{error}. Nothing was charged.", 400)
            wanted = Topup("", visitor.account.id, cents, "waiting", now_s, saves_card="save" in fields)
            topup = self._topup(connection, wanted, fields.get("topup", ""))
            customer_id = watch.find(connection, visitor.account.id).customer_id
        if topup.state != "waiting":
            return Redirect(f"/credit/wait/{topup.id}", status_code=303)
        try:
            page = self._stripe.open_page(topup, visitor.member.email, self._parts.public_url, customer_id)
        except PaymentsError as error:
            log.error("stripe opened no page", topup=topup.id, error=str(error))
            with storage.reading(self._parts.engine) as connection:
                return self._problem(
                    request, connection, visitor, "Stripe does not answer. Nothing was charged. Try again.", 503
                )
        with storage.writing(self._parts.engine) as connection:
            billing.note_session(connection, topup.id, page.session_id)
        return Redirect(page.url, status_code=303)

    def wait(self, request: AnyRequest, topup_id: str) -> Response[Any]:
        with storage.reading(self._parts.engine) as connection:
            visitor = visits.visitor(request, connection, self._parts)
            topup = billing.find(connection, topup_id)
            if topup is None or topup.account_id != visitor.account.id:
                raise NotFoundException
            late = self._parts.clock.wall_s() - topup.created_at > LONG_S
            context = {
                **shell.context(request, connection, visitor, "credit"),
                "topup": topup,
                "late": late,
                "number": billing.number(topup) if topup.state == "added" else "",
                "refresh_s": 0 if topup.state != "waiting" else 30 if late else 2,
            }
        return self._renderer.page("pages/credit_wait.html", context)

    def _topup(self, connection: Connection, wanted: Topup, form_id: str) -> Topup:
        """The form's own payment, so that a double click begins one; a new one where that is not what is asked for."""
        if rules.is_id(form_id):
            topup = billing.begin(connection, wanted._replace(id=form_id))
            same = all(getattr(topup, name) == getattr(wanted, name) for name in ASKED)
            young = wanted.created_at - topup.created_at < PAGE_LIFE_S
            if same and young and topup.state not in ("refused", "expired"):
                return topup
        return billing.begin(connection, wanted._replace(id=accounts.new_id("top", self._parts.random_bytes)))

    def _problem(
        self, request: AnyRequest, connection: Connection, visitor: Visitor, problem: str, status: int
    ) -> Response[Any]:
        context = {
            **shell.context(request, connection, visitor, "credit"),
            "title": "No payment was begun",
            "problem": problem,
        }
        return self._renderer.page("pages/credit_problem.html", context, status=status)


class Events:
    """Takes in what Stripe signs. `stripe` is None where only its secret is set."""

    def __init__(self, parts: Parts, stripe: Payments | None) -> None:
        self._parts = parts
        self._stripe = stripe

    def take_in(self, body: bytes, signature: str) -> Response[Any]:
        try:
            event = payments.read_event(body, signature, self._parts.settings.payments)
        except ForgedEvent as error:
            log.warning("an event was refused", reason=str(error))
            return _said("refused", 400)
        live = self._stripe is not None and self._stripe.live
        with storage.writing(self._parts.engine) as connection:
            outcome, topup = billing.take_in(connection, event, self._parts.clock.wall_s(), live=live)
            self._tell_operator(connection, outcome, topup)
        if isinstance(outcome, Ignored):
            tell = log.error if outcome.wrong else log.info
            tell("an event changed nothing", id=event.id, kind=event.kind, reason=outcome.why)
        elif isinstance(outcome, AddedAgain) and topup is not None:
            log.error(
                "a top-up was paid twice; the second payment became credit too: refund it if it was not meant",
                topup=topup.again_of,
                second=topup.id,
                receipt=billing.number(topup),
            )
        else:
            log.info("an event was taken in", id=event.id, kind=event.kind, topup=topup.id if topup else None)
        if isinstance(outcome, Added | AddedAgain) and topup is not None and self._stripe is not None:
            name_card = BackgroundTask(self._parts.in_thread, self._name_card, self._stripe, topup)
            return _said("stored", 200, name_card)
        return _said("stored", 200)

    def _tell_operator(self, connection: Connection, outcome: Outcome, topup: Topup | None) -> None:
        to = self._parts.settings.payments.operator_email
        if not to or topup is None or not isinstance(outcome, AddedAgain | Disputed):
            return
        account = accounts.account_by_id(connection, topup.account_id)
        told = (account.email if account is not None else "", rules.usd(topup.amount_cents), billing.number(topup))
        if isinstance(outcome, Disputed):
            letter = letters.contested(*told, outcome.dispute)
        else:
            letter = letters.paid_twice(*told)
        mails.queue(connection, to, letter.subject, letter.body, self._parts.clock.wall_s())

    def _name_card(self, stripe: Payments, topup: Topup) -> None:
        """For the receipt; after the answer, since the credit must not wait for it."""
        try:
            recharges.name_card(self._parts.engine, stripe, self._parts.clock, topup, self._parts.public_url)
        except PaymentsError as error:
            log.warning("the card of a payment is not known yet", topup=topup.id, error=str(error))


def _said(word: str, status: int, background: BackgroundTask | None = None) -> Response[Any]:
    return Response(word, status_code=status, media_type=MediaType.TEXT, background=background)


def handlers(parts: Parts, renderer: Renderer) -> list[ControllerRouterHandler]:
    stripe = Payments(parts.settings.payments) if parts.settings.payments.stripe_key.reveal() else None

    @get("/credit/receipts/{number:str}")
    @threaded
    def receipt(request: AnyRequest, number: FromPath[str]) -> Response[Any]:
        with storage.reading(parts.engine) as connection:
            visitor = visits.visitor(request, connection, parts)
            paid = billing.receipts(connection, visitor.account.id)
            found = next((topup for topup in paid if billing.number(topup) == number), None)
            if found is None:
                raise NotFoundException
            context = {
                **shell.context(request, connection, visitor, "credit"),
                "topup": found,
                "number": number,
                "refunded_nanousd": rules.nanousd(withdrawals.refunded_cents(connection, found.id)),
                "seller": parts.settings.payments.seller,
            }
        return renderer.page("pages/receipt.html", context)

    found: list[ControllerRouterHandler] = [receipt]
    if is_on(parts) and stripe is not None:
        topups = TopUps(parts, renderer, stripe)

        @post("/credit")
        async def begin(request: AnyRequest) -> Response[Any]:
            return await parts.in_thread(topups.begin, request, await visits.form(request, parts))

        @get("/credit/wait/{topup_id:str}")
        @threaded
        def wait(request: AnyRequest, topup_id: FromPath[str]) -> Response[Any]:
            return topups.wait(request, topup_id)

        found += [begin, wait]
    if parts.settings.payments.webhook_secret.reveal():
        events = Events(parts, stripe)

        @post("/webhooks/stripe")
        async def webhook(request: AnyRequest) -> Response[Any]:
            body = await request.body()
            return await parts.in_thread(events.take_in, body, request.headers.get("stripe-signature", ""))

        found.append(webhook)
    return found

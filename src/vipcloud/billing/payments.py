"""Stripe, as far as we use it: payment pages, the events it signs, and what it knows of both. Synchronous: in threads.

Every call that makes something carries our own id as its idempotency key, so asking twice makes it once.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple, cast

import msgspec
import stripe

from vipcloud.billing import rules
from vipcloud.billing.rules import Event, Topup
from vipcloud.settings import PaymentSettings

PAGE_ROWS = 100


class PaymentsError(Exception):
    """Stripe does not answer, or not as it should."""


class PaymentRefused(PaymentsError):
    """Stripe's answer is no, and would be again. The text is for people."""


class ForgedEvent(Exception):
    """Not signed by Stripe, or too long ago, or no event."""


class Page(NamedTuple):
    """Where a customer pays."""

    session_id: str
    url: str


class Card(NamedTuple):
    """A card that paid: for people (`Visa ending 4242`, empty where it is none), and as Stripe names it."""

    name: str
    customer_id: str | None
    method_id: str | None


class Refund(NamedTuple):
    """A refund as Stripe has it. `withdrawal_id` is ours, None where it was made elsewhere."""

    id: str
    payment_id: str
    amount_cents: int
    status: str
    withdrawal_id: str | None

    @property
    def stands(self) -> bool:
        """Whether the money is back with the customer, or on its way."""
        return self.status not in ("failed", "canceled")


class Payments:
    """One Stripe account."""

    def __init__(self, settings: PaymentSettings) -> None:
        key = settings.stripe_key.reveal()
        self.live = key.startswith(("sk_live_", "rk_live_"))
        self._settings = settings
        self._client = stripe.StripeClient(
            key,
            base_addresses={"api": settings.api_url} if settings.api_url else {},
            http_client=stripe.RequestsClient(timeout=settings.timeout_s),
            max_network_retries=1,
        )

    def open_page(self, topup: Topup, email: str, public_url: str, customer_id: str | None = None) -> Page:
        """The page where `topup` is paid, the same one however often it is asked for. Raises PaymentsError.

        `customer_id`: Stripe's customer, where we have one; else a top-up that saves its card makes one.
        """
        named = {"topup": topup.id, "account": topup.account_id}
        payment: dict[str, Any] = {"metadata": named}
        asked: dict[str, Any] = {
            "mode": "payment",
            "client_reference_id": topup.id,
            "metadata": named,
            "payment_intent_data": payment,
            "payment_method_types": ["card"],
            "line_items": [
                {
                    "quantity": 1,
                    "price_data": {
                        "currency": rules.CURRENCY,
                        "unit_amount": topup.amount_cents,
                        "product_data": {"name": "vipcloud credit"},
                    },
                }
            ],
            "success_url": f"{public_url}/credit/wait/{topup.id}",
            "cancel_url": f"{public_url}/credit",
        }
        if topup.saves_card:
            payment["setup_future_usage"] = "off_session"
        if topup.saves_card and customer_id is not None:
            asked["customer"] = customer_id
        else:
            asked["customer_email"] = email
            if topup.saves_card:
                asked["customer_creation"] = "always"
        try:
            session = self._client.v1.checkout.sessions.create(cast(Any, asked), {"idempotency_key": topup.id})
        except stripe.StripeError as error:
            raise PaymentsError(str(error)) from error
        if not session.url:
            raise PaymentsError("a session without an address")
        return Page(session.id, session.url)

    def charge(self, topup: Topup) -> dict[str, Any]:
        """Charge the saved card, once however often it is asked for. Raises PaymentRefused and PaymentsError."""
        assert topup.charged_to is not None, "a top-up without its customer"
        customer_id, _, method_id = topup.charged_to.partition(" ")
        try:
            payment = self._client.v1.payment_intents.create(
                {
                    "amount": topup.amount_cents,
                    "currency": rules.CURRENCY,
                    "customer": customer_id,
                    "payment_method": method_id,
                    "payment_method_types": ["card"],
                    "off_session": True,
                    "confirm": True,
                    "metadata": {"topup": topup.id, "account": topup.account_id},
                },
                {"idempotency_key": topup.id},
            )
        except (stripe.InvalidRequestError, stripe.CardError) as error:
            raise PaymentRefused(error.user_message or str(error)) from error
        except stripe.StripeError as error:
            raise PaymentsError(str(error)) from error
        told: dict[str, Any] = payment.to_dict()
        if told.get("status") not in ("succeeded", "processing"):
            self._cancel(str(told["id"]))
            raise PaymentRefused("The bank asks for a confirmation that only you can give.")
        return told

    def charges_since(self, since_s: float, customer_id: str | None = None) -> list[dict[str, Any]]:
        """Every payment made since, of one of Stripe's customers or of all. Raises PaymentsError."""
        which: Any = {"created": {"gte": int(since_s)}, "limit": PAGE_ROWS}
        if customer_id is not None:
            which["customer"] = customer_id
        try:
            found = self._client.v1.payment_intents.list(which)
            return [each.to_dict() for each in found.auto_paging_iter()]
        except stripe.StripeError as error:
            raise PaymentsError(str(error)) from error

    def _cancel(self, payment_id: str) -> None:
        """What is not paid now shall not be paid later."""
        try:
            self._client.v1.payment_intents.cancel(payment_id)
        except stripe.StripeError as error:
            raise PaymentsError(str(error)) from error

    def card(self, payment_id: str) -> Card:
        """What a payment was made with. Raises PaymentsError."""
        try:
            payment = self._client.v1.payment_intents.retrieve(payment_id, {"expand": ["payment_method"]})
        except stripe.StripeError as error:
            raise PaymentsError(str(error)) from error
        method: Any = payment.payment_method
        card = getattr(method, "card", None)
        name = f"{card.brand.title()} ending {card.last4}" if card is not None else ""
        customer: Any = payment.customer
        return Card(name, customer if isinstance(customer, str) else None, getattr(method, "id", None))

    def forget_card(self, method_id: str) -> None:
        """Have Stripe forget it too. Raises PaymentsError; a card that it does not know is none."""
        try:
            self._client.v1.payment_methods.detach(method_id)
        except stripe.InvalidRequestError:
            return
        except stripe.StripeError as error:
            raise PaymentsError(str(error)) from error

    def refund(self, withdrawal_id: str, payment_id: str, amount_cents: int) -> Refund:
        """Send money of a payment back, once however often it is asked for. Raises PaymentRefused, PaymentsError."""
        # Stripe forgets idempotency keys after a day: what was made before is found by our id.
        made = next((each for each in self.refunds_of(payment_id) if each.withdrawal_id == withdrawal_id), None)
        if made is not None:
            return made
        try:
            refund = self._client.v1.refunds.create(
                {
                    "payment_intent": payment_id,
                    "amount": amount_cents,
                    "metadata": {"withdrawal": withdrawal_id},
                },
                {"idempotency_key": withdrawal_id},
            )
        except (stripe.InvalidRequestError, stripe.CardError) as error:
            raise PaymentRefused(error.user_message or str(error)) from error
        except stripe.StripeError as error:
            raise PaymentsError(str(error)) from error
        return _refund(refund.to_dict())

    def refunds_of(self, payment_id: str) -> list[Refund]:
        """Every refund of a payment. Raises PaymentsError."""
        return self._refunds({"payment_intent": payment_id, "limit": PAGE_ROWS})

    def refunds_since(self, since_s: float) -> list[Refund]:
        """Every refund made since. Raises PaymentsError."""
        return self._refunds({"created": {"gte": int(since_s)}, "limit": PAGE_ROWS})

    def _refunds(self, which: Any) -> list[Refund]:
        try:
            found = self._client.v1.refunds.list(which)
            return [_refund(each.to_dict()) for each in found.auto_paging_iter()]
        except stripe.StripeError as error:
            raise PaymentsError(str(error)) from error

    def sessions(self, since_s: float) -> Iterator[dict[str, Any]]:
        """Every session made since, as Stripe has it. Raises PaymentsError."""
        try:
            found = self._client.v1.checkout.sessions.list({"created": {"gte": int(since_s)}, "limit": PAGE_ROWS})
            for session in found.auto_paging_iter():
                yield session.to_dict()
        except stripe.StripeError as error:
            raise PaymentsError(str(error)) from error


def _refund(told: dict[str, Any]) -> Refund:
    ours = (told.get("metadata") or {}).get("withdrawal")
    return Refund(
        str(told["id"]),
        str(told.get("payment_intent") or ""),
        int(told["amount"]),
        str(told.get("status") or ""),
        ours if isinstance(ours, str) else None,
    )


def read_event(body: bytes, signature: str, settings: PaymentSettings) -> Event:
    """The event in `body`, whose very bytes Stripe signed. Raises ForgedEvent."""
    try:
        text = body.decode()
        stripe.WebhookSignature.verify_header(
            text, signature, settings.webhook_secret.reveal(), settings.signature_age_max_s
        )
        read = msgspec.json.decode(body)
        event = Event(read["id"], read["type"], read["livemode"], read["data"]["object"])
    except stripe.SignatureVerificationError as error:
        raise ForgedEvent("the signature is not Stripe's, or too old") from error
    except (UnicodeDecodeError, msgspec.DecodeError, KeyError, TypeError) as error:
        raise ForgedEvent("signed, and no event") from error
    if not (isinstance(event.id, str) and isinstance(event.kind, str) and isinstance(event.about, dict)):
        raise ForgedEvent("signed, and no event")
    return event

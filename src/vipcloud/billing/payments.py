"""Stripe, as far as we use it: payment pages, the events it signs, and what it knows of both. Synchronous: in threads.

Every call that makes something carries our own id as its idempotency key, so asking twice makes it once.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

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

    def open_page(self, topup: Topup, email: str, public_url: str) -> Page:
        """The page where `topup` is paid, the same one however often it is asked for. Raises PaymentsError."""
        named = {"topup": topup.id, "account": topup.account_id}
        try:
            session = self._client.v1.checkout.sessions.create(
                {
                    "mode": "payment",
                    "client_reference_id": topup.id,
                    "customer_email": email,
                    "metadata": named,
                    "payment_intent_data": {"metadata": named},
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
                },
                {"idempotency_key": topup.id},
            )
        except stripe.StripeError as error:
            raise PaymentsError(str(error)) from error
        if not session.url:
            raise PaymentsError("a session without an address")
        return Page(session.id, session.url)

    def card(self, payment_id: str) -> str | None:
        """What a payment was made with, such as `Visa ending 4242`. Raises PaymentsError."""
        try:
            payment = self._client.v1.payment_intents.retrieve(payment_id, {"expand": ["payment_method"]})
        except stripe.StripeError as error:
            raise PaymentsError(str(error)) from error
        method: Any = payment.payment_method
        card = getattr(method, "card", None)
        return f"{card.brand.title()} ending {card.last4}" if card is not None else None

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

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

PAGE_SESSIONS = 100


class PaymentsError(Exception):
    """Stripe does not answer, or not as it should."""


class ForgedEvent(Exception):
    """Not signed by Stripe, or too long ago, or no event."""


class Page(NamedTuple):
    """Where a customer pays."""

    session_id: str
    url: str


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

    def sessions(self, since_s: float) -> Iterator[dict[str, Any]]:
        """Every session made since, as Stripe has it. Raises PaymentsError."""
        try:
            found = self._client.v1.checkout.sessions.list({"created": {"gte": int(since_s)}, "limit": PAGE_SESSIONS})
            for session in found.auto_paging_iter():
                yield session.to_dict()
        except stripe.StripeError as error:
            raise PaymentsError(str(error)) from error


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

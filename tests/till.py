"""An account that pays by card at a local Stripe, and the part of a gateway that refunds need."""

import asyncio
import secrets
from typing import Any

import httpx
import msgspec
from sqlalchemy import Engine

from vipcloud.accounts import store as accounts
from vipcloud.accounts.directory import Directory
from vipcloud.billing import store as billing
from vipcloud.billing.payments import Payments
from vipcloud.billing.rules import Event, Topup
from vipcloud.clock import ManualClock
from vipcloud.gateway.withdrawals import RELEASE_S, Withdrawals
from vipcloud.ledger import audit
from vipcloud.ledger import store as ledger
from vipcloud.ledger.records import Settled
from vipcloud.limits.guard import Permit, Purse, Subject
from vipcloud.limits.local import LocalGuard
from vipcloud.limits.rules import Ask
from vipcloud.money import NanoUSD, PicoUSDPerToken, parse_usd
from vipcloud.settings import AccountSettings, PaymentSettings, Secret
from vipcloud.storage import engine as storage

USAGE = Settled(
    request_id="req_1",
    account_id="",
    key_id=None,
    model="deepseek-chat",
    provider=None,
    upstream_model=None,
    streamed=False,
    outcome="complete",
    prompt_tokens=1,
    cached_tokens=0,
    completion_tokens=1,
    reasoning_tokens=0,
    estimated=False,
    charge_nanousd=0,
    cost_nanousd=0,
    started_at=1_795_000_000.0,
    duration_ms=1,
    first_token_ms=None,
    attempts=1,
)
VISA = "4242424242424242"
KEY = "sk_test_12345"


class Till:
    """`email` with `credit` given to it; amounts in text are dollars."""

    def __init__(self, engine: Engine, stripe_url: str, email: str = "ann@example.com", credit: str = "5.00") -> None:
        self.engine, self.stripe_url = engine, stripe_url
        self.clock = ManualClock()
        self.stripe = Payments(PaymentSettings(stripe_key=Secret(KEY), api_url=stripe_url))
        with storage.writing(engine) as connection:
            self.account = accounts.create_account(connection, email, 1.0, secrets.token_bytes)
            if parse_usd(credit):
                ledger.grant(connection, self.account.id, self.account.id, parse_usd(credit), 1.0)
        self.directory = Directory(engine, self.clock, AccountSettings())
        self.guard = LocalGuard(self.clock, 600.0)
        self.gateway = Withdrawals(engine, self.directory, lambda: self.guard, self.clock)

    def begin(self, cents: int, *, saves_card: bool = False) -> Topup:
        """A payment that was begun, and paid at Stripe."""
        topup_id = accounts.new_id("top", secrets.token_bytes)
        with storage.writing(self.engine) as connection:
            now_s = self.clock.wall_s()
            wanted = Topup(topup_id, self.account.id, cents, "waiting", now_s, saves_card=saves_card)
            topup = billing.begin(connection, wanted)
        page = self.stripe.open_page(topup, self.account.email, "https://gateway.example")
        self.paid = httpx.post(f"{self.stripe_url}/_pay/{page.session_id}", data={"number": VISA}).json()
        return topup

    def pay(self, cents: int = 5000, *, saves_card: bool = False) -> Topup:
        """A payment that was made and heard of."""
        topup = self.begin(cents, saves_card=saves_card)
        [told] = [each for each in self.paid if each["type"] == "checkout.session.completed"]
        self.tell(told["type"], told["data"]["object"], told["id"])
        with storage.reading(self.engine) as connection:
            found = billing.find(connection, topup.id)
        assert found is not None
        assert found.state == "added"
        return found

    def tell(self, kind: str, about: dict[str, Any], name: str | None = None) -> Any:
        """What came of an event."""
        with storage.writing(self.engine) as connection:
            event = Event(name or f"evt_{secrets.token_hex(6)}", kind, live=False, about=about)
            return billing.take_in(connection, event, self.clock.wall_s(), live=False)[0]

    def refund_at_stripe(self, topup: Topup, cents: int) -> dict[str, Any]:
        """Somebody refunds in Stripe's dashboard; the refund, of which no event has come yet."""
        data = {"payment_intent": topup.payment_id, "amount": cents}
        answer = httpx.post(f"{self.stripe_url}/v1/refunds", data=data, headers={"authorization": f"Bearer {KEY}"})
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def spend(self, amount: str) -> None:
        """A request that was charged."""
        permit = self.hold(amount)
        self.guard.settle(permit, parse_usd(amount))
        self.book(amount)

    def book(self, amount: str) -> None:
        """The usage row of a request."""
        row = msgspec.structs.replace(
            USAGE,
            request_id=f"req_{secrets.token_hex(6)}",
            account_id=self.account.id,
            charge_nanousd=int(parse_usd(amount)),
        )
        with storage.writing(self.engine) as connection:
            ledger.post_usage(connection, [row])

    def hold(self, amount: str) -> Permit:
        """A running request."""
        with storage.reading(self.engine) as connection:
            sums = ledger.sums(connection, self.account.id)
        purse = Purse(self.account.id, sums.credits_nanousd, sums.debits_nanousd)
        ask = Ask(parse_usd(amount), PicoUSDPerToken(0), 100)
        return self.guard.admit_now(secrets.token_hex(4), Subject((), (purse,)), ask, self.clock.wall_s())

    def take(self) -> None:
        """The gateway looks for withdrawals, and lets go of what it held for them."""

        async def rounds() -> None:
            await self.gateway.round()
            self.clock.advance(RELEASE_S + 2)
            await self.directory.poll_changes()
            await self.gateway.round()

        asyncio.run(rounds())

    @property
    def credit(self) -> int:
        """What is left, in nano-dollars; and the books are right."""
        with storage.reading(self.engine) as connection:
            assert ledger.differences(connection) == []
            assert audit.overdrawn(connection) == {}
            return ledger.balance(connection, self.account.id)

    def balance_of(self, ledger_account: str) -> NanoUSD:
        with storage.reading(self.engine) as connection:
            return ledger.sums_of(connection, ledger_account).balance_nanousd

    @property
    def closed(self) -> bool:
        with storage.reading(self.engine) as connection:
            found = accounts.account_by_id(connection, self.account.id)
        assert found is not None
        return found.closed

"""localstripe with what it lacks of Stripe: Checkout, idempotency keys, a limit for refunds, lists by date.

A process of its own, on a port that it prints. `POST /_pay/{session}` is the customer at the payment page; it answers
with the events that Stripe would send.
"""

import asyncio
import contextlib
import socket
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

CHECKOUT = "/v1/checkout/sessions"


@contextlib.contextmanager
def serving() -> Iterator[str]:
    """A running server; its address."""
    process = subprocess.Popen(
        [sys.executable, __file__],
        stdin=subprocess.PIPE,  # ends when we do, however that is: then the server ends too
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip()
    finally:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()


def stored(kind: str) -> list[Any]:
    from localstripe import resources

    return [each for name, each in resources.store.items() if name.startswith(f"{kind}:")]


answered: dict[str, tuple[int, bytes]] = {}  # by idempotency key
answering = asyncio.Lock()  # two with one key may come at once


def idempotency() -> Any:
    """What was asked for with a key is answered again, until `POST /_forget_keys`, as after a day."""
    from aiohttp import web

    @web.middleware
    async def once(request: web.Request, handler: Any) -> Any:
        key = request.headers.get("idempotency-key")
        if request.path == "/_forget_keys":
            answered.clear()
            return web.Response()
        if key is None or request.method != "POST" or request.path == CHECKOUT:
            return await handler(request)
        async with answering:
            if key not in answered:
                answer = await handler(request)
                answered[key] = answer.status, answer.body
        status, body = answered[key]
        return web.Response(status=status, body=body, content_type="application/json")

    return once


def money_routes() -> list[Any]:
    """No more is refunded than was paid; and lists without a payment."""
    from aiohttp import web
    from localstripe import resources, server

    async def refund(request: web.Request) -> web.Response:
        data = await server.get_post_data(request)
        charge = resources.PaymentIntent._api_retrieve(data["payment_intent"]).latest_charge
        if int(data["amount"]) > charge.amount - charge.amount_refunded:
            raise server.UserError(400, "Refund amount is greater than unrefunded amount on charge.")
        return server.json_response(resources.Refund._api_create(**data)._export())

    async def refunds(request: web.Request) -> web.Response:
        payment = request.query.get("payment_intent")
        found = [each._export() for each in stored("refund") if payment in (None, each.payment_intent)]
        return server.json_response({"object": "list", "data": found, "has_more": False, "url": "/v1/refunds"})

    async def payments(request: web.Request) -> web.Response:
        customer = request.query.get("customer")
        found = [each._export() for each in stored("payment_intent") if customer in (None, each.customer)]
        return server.json_response({"object": "list", "data": found, "has_more": False, "url": "/v1/payment_intents"})

    return [
        web.post("/v1/refunds", refund),
        web.get("/v1/refunds", refunds),
        web.get("/v1/payment_intents", payments),
    ]


def main() -> None:
    from aiohttp import web
    from localstripe import resources, server

    class Session(resources.StripeObject):  # type: ignore[misc]
        object = "checkout.session"
        _id_prefix = "cs_test_"

        def __init__(self, data: dict[str, Any]) -> None:
            super().__init__()
            price = data["line_items"][0]["price_data"]
            self.amount_total = int(price["unit_amount"])
            self.currency = price["currency"]
            self.mode = data["mode"]
            self.client_reference_id = data["client_reference_id"]
            self.metadata = data["metadata"]
            self.payment_intent = None
            self.payment_status = "unpaid"
            self.status = "open"
            self.customer = data.get("customer")
            self.url = f"https://checkout.stripe.com/c/pay/{self.id}"
            self._intent_metadata = data["payment_intent_data"]["metadata"]
            if data["payment_intent_data"].get("setup_future_usage") == "off_session" and self.customer is None:
                assert data["customer_creation"] == "always", "a card is saved to a customer"
                self.customer = resources.Customer(email=data["customer_email"]).id

    sessions: dict[str, Session] = {}  # by idempotency key

    async def create(request: web.Request) -> web.Response:
        key = request.headers["idempotency-key"]
        if key not in sessions:
            sessions[key] = Session(await server.get_post_data(request))
        return server.json_response(sessions[key]._export())

    async def listed(_request: web.Request) -> web.Response:
        every = [session._export() for session in sessions.values()]
        return server.json_response({"object": "list", "data": every, "has_more": False, "url": CHECKOUT})

    async def pay(request: web.Request) -> web.Response:
        session = next(each for each in sessions.values() if each.id == request.match_info["id"])
        card = {"number": (await request.post())["number"], "exp_month": "12", "exp_year": "2030", "cvc": "123"}
        method = resources.PaymentMethod(type="card", card=card)
        intent = resources.PaymentIntent(
            amount=session.amount_total,
            currency=session.currency,
            payment_method=method.id,
            customer=session.customer,
            metadata=session._intent_metadata,
        )
        if session.customer is not None:
            resources.PaymentMethod._api_attach(method.id, customer=session.customer)
        with contextlib.suppress(server.UserError):  # the bank refuses: the event says so
            intent._confirm(on_failure_now=intent._report_failure)
        if intent.status == "succeeded":
            session.payment_intent, session.payment_status, session.status = intent.id, "paid", "complete"
            resources.Event("checkout.session.completed", session)
        mine = (session.id, intent.id)
        return server.json_response([each._export() for each in stored("event") if each.data["object"]["id"] in mine])

    resources.Store.dump_to_disk = lambda _store: None  # nothing is left behind
    app = web.Application(middlewares=[idempotency(), server.error_middleware])
    app.router.add_post(CHECKOUT, create)
    app.router.add_get(CHECKOUT, listed)
    app.router.add_post("/_pay/{id}", pay)
    app.router.add_routes(money_routes())
    app.router.add_routes(
        [
            web.route(each.method, each.resource.canonical, each.handler)
            for each in server.app.router.routes()
            if each.resource is not None and each.method != "HEAD"
        ]
    )

    async def run() -> None:
        runner = web.AppRunner(app)
        await runner.setup()
        listener = socket.create_server(("127.0.0.1", 0))
        await web.SockSite(runner, listener).start()
        sys.stdout.write(f"http://127.0.0.1:{listener.getsockname()[1]}\n")
        sys.stdout.flush()
        await asyncio.to_thread(sys.stdin.read)

    asyncio.run(run())


if __name__ == "__main__":
    main()

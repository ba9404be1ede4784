"""The demo on the home page: completions without a key, by one free model, within limits of its own.

It is for our own pages only: a browser says of every request where it comes from (`Sec-Fetch-Site`), other sites get no
CORS headers, and their preflights are refused. Whoever is no browser is bound by the limits alone.
"""

from msgspec import Struct

from vipcloud.accounts.directory import Account, Principal
from vipcloud.dialects.openai import ChatRequest
from vipcloud.errors import BadRequest, Forbidden, RequestTooLarge
from vipcloud.gateway.app import same_origin_head
from vipcloud.gateway.call import Call
from vipcloud.gateway.parts import Parts
from vipcloud.gateway.visitors import DEMO, address_meter
from vipcloud.http.addresses import bucket, client_address
from vipcloud.limits.guard import Subject
from vipcloud.limits.rules import DAY_S, Limits, Meter
from vipcloud.settings import DemoSettings

DEMO_PATH = "/demo/chat/completions"
OWN_PAGES = frozenset((b"same-origin", b"none"))


class Demo(Struct, frozen=True):
    """What the demo makes of a request."""

    settings: DemoSettings

    def admit(self, call: Call, parts: Parts) -> tuple[Principal, Subject]:
        """Who asks, and what they are counted by. Raises Forbidden and RequestTooLarge."""
        exchange = call.exchange
        call.head = same_origin_head(call.head)
        if exchange.headers.get(b"sec-fetch-site", b"none").strip() not in OWN_PAGES:
            raise Forbidden("The demo is for this site's own pages. Get a key to call the API from yours.")
        length = exchange.headers.get(b"content-length", b"0").strip()
        if length.isdigit() and int(length) > self.settings.body_bytes_max:
            self._refuse_size()
        settings = self.settings
        address = bucket(client_address(exchange.peer, exchange.headers, parts.trusted_proxies))
        limits = Limits(settings.address_rpm, settings.address_rpd, settings.address_concurrency_max)
        meters = (
            Meter(address_meter(address), limits, " for your address"),
            Meter(DEMO, Limits(rpd=settings.rpd), " for the demo in all"),
        )
        account = Account(
            id=DEMO,
            tier=DEMO,
            rpm=None,
            rpd=None,
            concurrency=None,
            suspended=False,
            granted_nanousd=0,
            charged_nanousd=0,
        )
        visitor = parts.visitors.name(address, int(parts.clock.wall_s() // DAY_S))
        return Principal(visitor, account, 0), Subject(meters)

    def restrict(self, request: ChatRequest, body_bytes: int) -> None:
        """Let the demo's model answer, once and not for long. Raises BadRequest and RequestTooLarge."""
        if body_bytes > self.settings.body_bytes_max:
            self._refuse_size()
        if (request.n or 1) > 1:
            raise BadRequest("The demo gives one answer to a request.", param="n")
        most = self.settings.output_tokens_max
        request.model, request.models, request.provider = self.settings.model, None, None
        request.max_tokens = min(request.max_completion_tokens or request.max_tokens or most, most)
        request.max_completion_tokens = None

    def _refuse_size(self) -> None:
        raise RequestTooLarge(f"The demo takes requests of up to {self.settings.body_bytes_max} bytes.")

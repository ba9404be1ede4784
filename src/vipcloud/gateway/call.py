"""One request as the data plane sees it: the exchange, its ids, and what the steps learn on the way."""

from typing import Final, Literal

from vipcloud.accounts.directory import Principal
from vipcloud.errors import GatewayError
from vipcloud.gateway.idempotency import Claim
from vipcloud.http.deadlines import NEVER
from vipcloud.http.server import Exchange

JSON: Final = b"content-type: application/json\r\n"
EVENTS: Final = (
    b"content-type: text/event-stream; charset=utf-8\r\ncache-control: no-cache\r\nx-accel-buffering: no\r\n"
)
MS: Final = [b"%d" % number for number in range(1000)]  # formatting them costs more than to look them up
PING_EVENT: Final = b": ping\n\n"
PING_JSON: Final = b" "  # white space before the JSON changes nothing for a parser


class Call:
    """`head` is the block of headers that every answer to this call begins with.

    It is a member of `Deadlines` while an upstream is at work: when nothing has been sent for too long, it sends what
    tunnels and browsers take for a sign of life. The status is 200 from then on, and failures travel in the body.
    """

    def __init__(self, exchange: Exchange, serial: str, head: bytes) -> None:
        self.exchange = exchange
        self.serial = serial
        self.head = head
        self.rest = ""  # what a `/*` route's path ends with, decoded
        self.streams = False  # the answer is a stream of events
        self.deadline = NEVER
        self.ping_s = 0.0
        self.claim: Claim | None = None  # the caller's Idempotency-Key, where one came
        self.principal: Principal | None = None  # of a completion, once an upstream is at work
        self.ending: GatewayError | None = None  # why we end it before it has ended
        self.model = ""  # of our list; this and the tier are told only where an error has to be counted
        self.tier = ""

    @property
    def request_id(self) -> str:
        return f"req_{self.serial}"

    @property
    def completion_id(self) -> str:
        return f"chatcmpl-{self.serial}"

    @property
    def cut_by(self) -> Literal["restarted", "revoked", "client_gone"]:
        """Why it was cancelled."""
        if not self.exchange.interrupted:
            return "client_gone"
        return "restarted" if self.ending is None else "revoked"

    def end(self, error: GatewayError) -> None:
        """Cancel it; the caller is told `error`, in whichever form still fits, and the connection is closed."""
        self.ending = error
        self.exchange.keep_alive = False
        self.exchange.connection.interrupt()

    def timed(self, asked_s: float, answered_s: float, now_s: float) -> None:
        """Tell in the answer's head where the time went, in whole milliseconds: an upstream was asked first, and has
        answered, at these moments of the monotonic clock. What other tries took is the upstream's, too."""
        gateway_s = max(0.0, asked_s - self.exchange.received_s + now_s - answered_s)
        gateway_ms, upstream_ms = int(gateway_s * 1000), int((answered_s - asked_s) * 1000)
        self.head = b"%bserver-timing: gateway;dur=%b, upstream;dur=%b\r\n" % (
            self.head,
            MS[gateway_ms] if gateway_ms < 1000 else b"%d" % gateway_ms,
            MS[upstream_ms] if 0 <= upstream_ms < 1000 else b"%d" % upstream_ms,
        )

    def respond(self, status: int, body: bytes) -> None:
        """Answer with JSON."""
        self.exchange.respond(status, self.head + JSON, body)

    def send_part(self, data: bytes) -> None:
        """Send a part of a stream, opening it if it is the first."""
        exchange = self.exchange
        if not exchange.started:
            exchange.start(200, self.head + EVENTS)
        exchange.write(data)

    def send_last(self, data: bytes) -> None:
        """End the answer with `data`, whether or not it has begun."""
        exchange = self.exchange
        if exchange.started:
            exchange.finish(data)
        elif self.streams:
            exchange.start(200, self.head + EVENTS)
            exchange.finish(data)
        else:
            self.respond(200, data)

    def expire(self, now: float) -> None:
        """The silence has lasted long enough."""
        self.deadline = now + self.ping_s
        exchange = self.exchange
        if exchange.finished or exchange.gone:
            self.deadline = NEVER
            return
        if not exchange.started:
            exchange.start(200, self.head + (EVENTS if self.streams else JSON))
        exchange.write(PING_EVENT if self.streams else PING_JSON)

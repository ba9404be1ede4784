"""Every setting, frozen, in groups; read once at start and passed down as arguments.

Sources, the later one wins: the defaults below, `vipcloud.toml`, environment variables `VIPCLOUD_<GROUP>_<FIELD>`
(such as `VIPCLOUD_SERVER_PORT`), command line options. A wrong setting raises SettingsError with its name and what
would be right. This is the only module that reads the environment. Units stand last in names.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from vipcloud.errors import SettingsError

PREFIX = "VIPCLOUD_"


class Secret:
    """Text that never prints. `reveal` is the only way to it."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return "Secret(…)"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._text == self._text

    def __hash__(self) -> int:
        return hash(self._text)


Seconds = Annotated[float, Meta(gt=0)]
Count = Annotated[int, Meta(ge=1)]


class ServerSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the public port listens and how long it waits. Over a limit, the caller gets the error named."""

    host: Annotated[str, Meta(description="Address to listen on.")] = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535, description="Port to listen on; 0 lets the system choose.")] = 8080
    trusted_proxies: Annotated[
        tuple[str, ...],
        Meta(description="Networks (CIDR) whose CF-Connecting-IP or X-Forwarded-For tells the client's address."),
    ] = ()
    backlog: Annotated[int, Meta(ge=1, description="Connections the kernel holds before we accept them.")] = 4096
    connections_max: Annotated[int, Meta(ge=1, description="Open client connections; more are closed at once.")] = 18000
    head_bytes_max: Annotated[
        int, Meta(ge=1024, description="Request line and headers (431; 414 if mostly target).")
    ] = 65536
    headers_max: Annotated[int, Meta(ge=8, description="Number of header lines (431).")] = 256
    head_timeout_s: Annotated[
        float, Meta(gt=0, description="From a request's first byte to its last header (408).")
    ] = 10
    body_bytes_max: Annotated[int, Meta(ge=1024, description="Request body (413).")] = 32 * 1024 * 1024
    body_timeout_s: Annotated[
        float, Meta(gt=0, description="For a body, beyond the time its bytes earn at `body_rate_min_bytes_s` (408).")
    ] = 30
    body_rate_min_bytes_s: Annotated[int, Meta(ge=1, description="Slowest body that is still waited for (408).")] = (
        10240
    )
    body_unread_bytes_max: Annotated[
        int, Meta(ge=1024, description="Body bytes taken in before the route asks for them; then reading pauses.")
    ] = 65536
    keepalive_timeout_s: Annotated[float, Meta(gt=0, description="An idle connection is closed after this.")] = 75
    linger_timeout_s: Annotated[
        float, Meta(gt=0, description="After an early refusal, how long the rest of the body is thrown away.")
    ] = 5
    pipelined_max: Annotated[
        int, Meta(ge=1, description="Requests that wait behind a running one, then reading pauses.")
    ] = 16
    write_buffer_bytes_max: Annotated[
        int, Meta(ge=1024, description="Unsent bytes per connection at which its source is paused.")
    ] = 32768
    write_stall_timeout_s: Annotated[
        float, Meta(gt=0, description="A reader that takes nothing for this long is cut off.")
    ] = 30
    drain_timeout_s: Annotated[
        float, Meta(ge=0, description="After SIGTERM, how long running requests may go on; then they get an error.")
    ] = 30


class ClientSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How connections to upstreams are made, kept and given up."""

    connections_max: Annotated[int, Meta(ge=1, description="Open connections per origin.")] = 4096
    waiting_max: Annotated[
        int, Meta(ge=1, description="Calls that wait for a connection; more fail at once (502).")
    ] = 4096
    connect_timeout_s: Annotated[float, Meta(gt=0, description="To connect, TLS included (504).")] = 5
    idle_timeout_s: Annotated[float, Meta(gt=0, description="An idle pooled connection is closed after this.")] = 30
    head_bytes_max: Annotated[int, Meta(ge=1024, description="Response headers (502).")] = 65536
    release_timeout_s: Annotated[
        float, Meta(gt=0, description="After the last event, how long the end of the body is waited for to reuse it.")
    ] = 1


class TimeoutSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How long an upstream may take. Each is a 504 `upstream_timeout`, or an error event once a stream has begun."""

    first_byte_s: Annotated[
        float,
        Meta(
            ge=0,
            description="Streams: to the first token, reasoning included; 0: the catalogue's (60, or 300 where it "
            "reasons). What comes before, comments and empty events, does not count.",
        ),
    ] = 0
    first_token_s: Annotated[
        float, Meta(ge=0, description="The same while another route is left to try, if shorter; 0: no shorter.")
    ] = 0
    idle_s: Annotated[
        float, Meta(gt=0, description="Streams: between events that carry data; comments do not count.")
    ] = 60
    total_s: Annotated[float, Meta(gt=0, description="The whole call, streamed or not.")] = 300


class GatewaySettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How requests are read and answered."""

    strict_parameters: Annotated[
        bool, Meta(description="Refuse unknown top-level fields with 400 instead of dropping them.")
    ] = False
    ping_stream_s: Annotated[float, Meta(gt=0, description="Silence on a stream after which `: ping` is sent.")] = 15
    ping_unary_s: Annotated[
        float,
        Meta(
            gt=0,
            description="Silence on an unstreamed answer after which white space is sent; the status is 200 then.",
        ),
    ] = 60
    event_bytes_max: Annotated[int, Meta(ge=1024, description="One event of an upstream's stream (502).")] = (
        4 * 1024 * 1024
    )
    reply_bytes_max: Annotated[int, Meta(ge=1024, description="One unstreamed reply of an upstream (502).")] = (
        32 * 1024 * 1024
    )
    count_timeout_s: Annotated[
        float,
        Meta(
            ge=0,
            le=10,
            description="Longest wait for a count by a real vocabulary, of an answer without usage; 0: never count so.",
        ),
    ] = 2
    attempts_max: Annotated[int, Meta(ge=1, le=5, description="Upstream calls per request, the first included.")] = 3
    catalog: Annotated[
        str,
        Meta(description="Catalogue laid over the packaged one; empty: `catalog.toml` in the data folder, if there."),
    ] = ""
    poll_interval_s: Annotated[
        float, Meta(gt=0, description="How often changes of keys, accounts and catalogue are looked for.")
    ] = 0.5


class RetrySettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Extra tries, before anything of an answer has gone out; see also `gateway.attempts_max`."""

    share: Annotated[float, Meta(ge=0, le=1, description="Extra tries that each request earns for all.")] = 0.1
    per_s: Annotated[float, Meta(ge=0, description="Extra tries that each second earns.")] = 1.0
    burst: Annotated[int, Meta(ge=1, description="Earned tries that are kept; as many are there at the start.")] = 50
    backoff_s: Annotated[
        float, Meta(gt=0, description="Before the same route is tried again; doubled each time, and varied by half.")
    ] = 0.1
    throttle_wait_max_s: Annotated[
        float,
        Meta(ge=0, description="Longest `Retry-After` of the only route that is waited for; else the caller is told."),
    ] = 2.0


class BreakerSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When a model at one of our accounts is passed by, and when it is tried again."""

    failures_in_row: Annotated[
        int, Meta(ge=1, description="Failures in a row that open it; a time out counts as 2.")
    ] = 5
    failure_share: Annotated[float, Meta(gt=0, le=1, description="Share of a window's calls that opens it.")] = 0.5
    window_s: Annotated[float, Meta(gt=0, description="Length of a window; it begins with a failure.")] = 30
    window_calls_min: Annotated[int, Meta(ge=1, description="Calls of a window below which no share counts.")] = 10
    interval_s: Annotated[float, Meta(gt=0, description="First wait for a probe; doubled each time one fails.")] = 1
    interval_max_s: Annotated[float, Meta(gt=0, description="Longest wait for a probe.")] = 60
    jitter: Annotated[float, Meta(ge=0, le=1, description="Largest share of a wait that is added by chance.")] = 0.2
    trial_successes: Annotated[int, Meta(ge=1, description="Whole answers, one after the other, that close it.")] = 3


class RoutingSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a conversation keeps to the account that has its prompt cached."""

    sticky_idle_s: Annotated[float, Meta(gt=0, description="A conversation is forgotten after so much silence.")] = 600
    sticky_conversations_max: Annotated[int, Meta(ge=1, description="Conversations that are remembered.")] = 100_000


class UpstreamAccountSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One account of ours at a provider, as `[[upstreams.PROVIDER.accounts]]`. Its keys share its limits and health."""

    name: Annotated[
        str,
        Meta(
            pattern="^[a-z0-9_-]{0,32}$",
            description="For logs, metrics and `vipcloud upstreams`; empty: its place in the list.",
        ),
    ] = ""
    keys: Annotated[
        tuple[Secret, ...],
        Meta(description="API keys, each `env:NAME` or the key itself; the next is used when one is refused."),
    ] = ()
    base_url: Annotated[str, Meta(description="Where its API begins; empty: the provider's.")] = ""
    weight: Annotated[int, Meta(ge=1, le=1000, description="Share of the requests that it takes among its like.")] = 1
    models: Annotated[
        tuple[str, ...], Meta(description="Our ids of the models that it serves; empty: all that the provider does.")
    ] = ()
    tiers: Annotated[
        tuple[str, ...], Meta(description="Reserved for customers of these tiers; empty, `customers` too: for all.")
    ] = ()
    customers: Annotated[tuple[str, ...], Meta(description="Reserved for these customers, by account id.")] = ()


class UpstreamSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One provider's endpoint and our accounts there. Empty fields take the catalogue's."""

    base_url: Annotated[str, Meta(description="Where the provider's API begins; empty: the catalogue's.")] = ""
    keys: Annotated[
        tuple[Secret, ...],
        Meta(
            description="API keys, each `env:NAME` or the key itself, each of an account of its own; none, and no "
            "`accounts`: the provider's own variable."
        ),
    ] = ()
    accounts: Annotated[
        tuple[UpstreamAccountSettings, ...],
        Meta(description="Accounts with a name, several keys, a share or a purpose; see below."),
    ] = ()
    auth: Annotated[
        str, Meta(pattern="^(bearer|jwt|)$", description="`bearer` or `jwt` (Zhipu); empty: the catalogue's.")
    ] = ""

    @property
    def has_keys(self) -> bool:
        return bool(self.keys) or any(account.keys for account in self.accounts)


class OverloadSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How it is told that the gateway has more to do than it can. Whom that turns away first: `shed_lag_s` of the demo
    and of each tier."""

    beat_interval_s: Annotated[float, Meta(gt=0, description="How often the event loop is timed.")] = 0.05
    beats_in_row: Annotated[
        int, Meta(ge=1, description="Beats that must be late for it to count; the least late one does.")
    ] = 3
    retry_after_max_s: Annotated[
        int, Meta(ge=2, le=60, description="Callers are told to come back within this, each at another second.")
    ] = 5


class TelemetrySettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the gateway tells of itself; see docs/operating.md."""

    metrics_token: Annotated[
        Secret,
        Meta(
            description="Who sends it as `Authorization: Bearer` may read `/metrics`; `env:NAME` or the token itself. "
            "Empty: only this machine may, by its own name and no proxy, and only while `console.public_url` is empty."
        ),
    ] = Secret("")
    log_requests: Annotated[
        Literal["none", "failures", "all"],
        Meta(description="Which requests get a line in the log: none, those answered with a 5xx, or all."),
    ] = "failures"
    otlp_endpoint: Annotated[
        str,
        Meta(
            pattern=r"^(https?://[^/\s]+(/\S*)?)?$",
            description="Where traces are sent, such as `http://127.0.0.1:4318`; `/v1/traces` is added. Needs the "
            "extra `vipcloud[otlp]`. Empty: no traces.",
        ),
    ] = ""
    otlp_interval_s: Annotated[
        float, Meta(gt=0, description="Spans are sent together, after so long or by the 512.")
    ] = 5
    otlp_timeout_s: Annotated[float, Meta(gt=0, description="How long the collector may take, tries included.")] = 5
    otlp_queue_max: Annotated[int, Meta(ge=1, description="Spans that wait to be sent; more are dropped.")] = 4096


class DemoSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The demo on the home page, `POST /demo/chat/completions`: no key, one free model, and limits of its own.

    An address is an IPv4 address, or a /64 of IPv6.
    """

    enabled: Annotated[bool, Meta(description="Whether it is served, with the website; if not, it is a 404.")] = True
    model: Annotated[str, Meta(min_length=1, description="What answers, whatever was asked for; must be free.")] = (
        "glm-4-flash"
    )
    address_rpm: Annotated[int, Meta(ge=0, description="Requests in any 60 s of one address; 0: no limit.")] = 5
    address_rpd: Annotated[int, Meta(ge=0, description="Requests per UTC day of one address; 0: no limit.")] = 100
    address_concurrency_max: Annotated[int, Meta(ge=0, description="At the same time of one address; 0: no limit.")] = 1
    rpd: Annotated[int, Meta(ge=0, description="Requests per UTC day in all; 0: no limit.")] = 2000
    output_tokens_max: Annotated[int, Meta(ge=16, description="Longest answer.")] = 1024
    body_bytes_max: Annotated[int, Meta(ge=256, description="Longest request (413).")] = 16384
    shed_lag_s: Annotated[
        float, Meta(ge=0, description="Turned away (503) while the event loop is so late; 0: never.")
    ] = 0.2


class TierSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an account of this tier may do; 0 means no limit. An account's own numbers go first."""

    rpm: Annotated[int, Meta(ge=0, description="Requests in any 60 s.")] = 60
    rpd: Annotated[int, Meta(ge=0, description="Requests per UTC day.")] = 0
    concurrency: Annotated[int, Meta(ge=0, description="Requests at the same time.")] = 10
    shed_lag_s: Annotated[
        float, Meta(ge=0, description="New requests are turned away (503) while the event loop is so late; 0: never.")
    ] = 0.5


class GuardSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where limits and credit are counted while requests run."""

    backend: Annotated[
        Literal["memory", "valkey"],
        Meta(description="`memory` for a gateway of its own; `valkey` (or Redis) where several share accounts."),
    ] = "memory"
    url: Annotated[
        str,
        Meta(
            description="The server: `redis://user:password@host:6379/0`, `rediss://…` with TLS, or `unix:///socket`."
        ),
    ] = "redis://127.0.0.1:6379"
    timeout_s: Annotated[
        float, Meta(gt=0, description="For an answer; then the connection is made anew and limits degrade meanwhile.")
    ] = 1
    waiting_max: Annotated[int, Meta(ge=1, description="Calls under way at once; more count as no answer.")] = 16384
    nodes: Annotated[
        int, Meta(ge=1, description="Gateways that share limits: without the server each takes this part of them.")
    ] = 1
    hold_slice_tokens: Annotated[
        int,
        Meta(ge=0, description="Streams: tokens of output that are held for at a time; 0: all that was asked for."),
    ] = 2048


class AccountSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Keys and accounts as the gateway holds them in memory."""

    keys_cached_max: Annotated[int, Meta(ge=1, description="Keys held in memory.")] = 100_000
    unknown_keys_cached_max: Annotated[int, Meta(ge=1, description="Unknown keys remembered as such.")] = 50_000
    keys_per_account_max: Annotated[
        int, Meta(ge=1, description="Keys that an account may have at a time, for its owners; commands make more.")
    ] = 500
    management_rpm: Annotated[
        int, Meta(ge=0, description="Requests to the management API in any 60 s, for an account; 0 is no limit.")
    ] = 120
    starter_credit_usd: Annotated[
        str, Meta(pattern=r"^\d{1,9}(\.\d{1,9})?$", description="Credit of a new account when `--credit` is not given.")
    ] = "5.00"


class StoreSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the books are."""

    url: Annotated[
        str,
        Meta(
            description="Database, such as `postgresql://user:password@host/vipcloud`; "
            "empty: `vipcloud.db` (SQLite) in the data folder."
        ),
    ] = ""


class JournalSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The append-only record between gateway and books."""

    file_bytes_max: Annotated[
        int, Meta(ge=65536, description="A journal file is closed and a new one begun at this size.")
    ] = 64 * 1024 * 1024
    sync: Annotated[
        str,
        Meta(
            pattern="^(interval|none)$",
            description="`interval`: what is journaled is put on the disk every `sync_interval_s`, against power cuts.",
        ),
    ] = "interval"
    sync_interval_s: Annotated[float, Meta(gt=0, description="How much a power cut may cost, at most.")] = 1.0
    progress_interval_s: Annotated[
        float, Meta(gt=0, description="How often it is noted how far streams are: what is charged should we die.")
    ] = 0.25
    check_interval_s: Annotated[
        float, Meta(gt=0, description="How often the bookkeeper checks the books; each row is read once.")
    ] = 60
    book_interval_s: Annotated[float, Meta(gt=0, description="How often the bookkeeper posts what is new.")] = 1.0
    worker: Annotated[
        str,
        Meta(
            pattern="^[a-z0-9]{0,32}$",
            description="What this gateway's files are named after, unlike those of others at the same store; "
            "empty: `gateway` on SQLite, else a name made once and kept in the journal's folder.",
        ),
    ] = ""


class ConsoleSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The website and dashboard, a process of its own behind the gateway's port."""

    enabled: Annotated[bool, Meta(description="Serve pages; without them, unknown paths are a 404.")] = True
    public_url: Annotated[
        str,
        Meta(
            pattern=r"^(https?://[^/\s]+)?$",
            description="The address customers use, for code samples and mails; empty: host and port of `server`.",
        ),
    ] = ""
    waitlist: Annotated[
        str,
        Meta(
            pattern="^(ask|open)$", description="`ask`: the operator approves who joins; `open`: everybody is let in."
        ),
    ] = "ask"
    welcome_credit_usd: Annotated[
        str, Meta(pattern=r"^\d{1,9}(\.\d{1,9})?$", description="Credit of an account that comes from the waitlist.")
    ] = "1.00"
    support_email: Annotated[str, Meta(description="Whom pages tell people to write to.")] = "support@vipcloud.example"
    body_bytes_max: Annotated[int, Meta(ge=1024, description="Body of a request to the console (413).")] = 1024 * 1024
    first_byte_timeout_s: Annotated[float, Meta(gt=0, description="Until the console begins to answer (503).")] = 30
    total_timeout_s: Annotated[float, Meta(gt=0, description="A whole answer of the console, exports included.")] = 300


class StatusSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`/status`: a process of its own checks once a minute and writes the page, which the gateway serves as it is."""

    enabled: Annotated[bool, Meta(description="Check, write the page and serve it; else `/status` is a 404.")] = True
    probe_upstreams: Annotated[
        bool,
        Meta(description="Ask each of our accounts for its balance or its list of models, which costs nothing."),
    ] = True
    timeout_s: Annotated[float, Meta(gt=0, le=30, description="For each check; what takes longer has failed.")] = 10


class MailSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How mails leave. Without a host they stay in the store, and are shown in the terminal and at `/outbox`."""

    host: Annotated[str, Meta(description="The SMTP server; empty: mails are kept and shown on this machine.")] = ""
    port: Annotated[int, Meta(ge=1, le=65535, description="Its port.")] = 587
    security: Annotated[
        str, Meta(pattern="^(starttls|tls|none)$", description="`starttls`, `tls`, or `none` on a trusted network.")
    ] = "starttls"
    username: Annotated[str, Meta(description="For servers that ask; empty: none is given.")] = ""
    password: Annotated[Secret, Meta(description="`env:NAME` or the password itself.")] = Secret("")
    sender: Annotated[str, Meta(min_length=3, description="The address that mails come from.")] = (
        "vipcloud <no-reply@vipcloud.example>"
    )
    timeout_s: Annotated[float, Meta(gt=0, description="For the delivery of one mail.")] = 20
    tries_max: Annotated[int, Meta(ge=1, description="Deliveries that are tried, less and less often.")] = 8


class PaymentSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Paying by card, through Stripe Checkout. Both secrets are needed; without them pages say that it is off."""

    stripe_key: Annotated[Secret, Meta(description="Stripe's secret key, as `env:NAME` or itself; empty: off.")] = (
        Secret("")
    )
    webhook_secret: Annotated[
        Secret,
        Meta(description="What Stripe signs its events with (`whsec_…`), as `env:NAME` or itself; empty: no route."),
    ] = Secret("")
    api_url: Annotated[
        str, Meta(pattern=r"^(https?://[^/\s]+)?$", description="Where Stripe's API is; empty: Stripe's own.")
    ] = ""
    timeout_s: Annotated[float, Meta(gt=0, le=60, description="For one answer of Stripe (503).")] = 10
    signature_age_max_s: Annotated[
        int, Meta(ge=1, le=3600, description="Oldest signature of an event that is taken (400).")
    ] = 300
    topup_min_usd: Annotated[int, Meta(ge=1, le=10_000, description="Smallest payment.")] = 5
    topup_max_usd: Annotated[int, Meta(ge=1, le=10_000, description="Largest payment.")] = 1000
    operator_email: Annotated[
        str, Meta(description="Who is mailed about disputes and second payments; empty: they are in the log only.")
    ] = ""
    low_credit_usd: Annotated[
        str,
        Meta(
            pattern=r"^\d{1,6}(\.\d{1,9})?$",
            description="Credit below which owners are mailed, unless they chose otherwise; 0: nobody is.",
        ),
    ] = "0.50"
    recharge_cap_max_usd: Annotated[
        int, Meta(ge=1, le=99_999, description="The most per month that a customer may have a saved card charged for.")
    ] = 5000
    seller: Annotated[str, Meta(description="Name and address on receipts, one line.")] = "vipcloud"


class IdempotencySettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is remembered of the `Idempotency-Key`s that came with requests: hashes only."""

    retention_s: Annotated[float, Meta(gt=0, description="How long a key stays used.")] = 86_400
    key_bytes_max: Annotated[int, Meta(ge=16, le=4096, description="Length of a key (400).")] = 255
    keys_cached_max: Annotated[
        int, Meta(ge=1, description="Keys in memory; more wait until the books have the oldest (503).")
    ] = 100_000


def _tiers() -> dict[str, TierSettings]:
    return {
        "payg": TierSettings(rpm=60, concurrency=10),
        "pro": TierSettings(rpm=600, concurrency=100, shed_lag_s=1),
        "enterprise": TierSettings(rpm=6000, concurrency=1000, shed_lag_s=2),
    }


class Settings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All of it. `data` is the folder for database, journal and catalogue."""

    data: Annotated[str, Meta(min_length=1, description="Folder for database, journal and an own catalogue.")] = "data"
    server: ServerSettings = ServerSettings()
    client: ClientSettings = ClientSettings()
    timeouts: TimeoutSettings = TimeoutSettings()
    gateway: GatewaySettings = GatewaySettings()
    retry: RetrySettings = RetrySettings()
    breaker: BreakerSettings = BreakerSettings()
    routing: RoutingSettings = RoutingSettings()
    guard: GuardSettings = GuardSettings()
    overload: OverloadSettings = OverloadSettings()
    demo: DemoSettings = DemoSettings()
    accounts: AccountSettings = AccountSettings()
    store: StoreSettings = StoreSettings()
    journal: JournalSettings = JournalSettings()
    idempotency: IdempotencySettings = IdempotencySettings()
    console: ConsoleSettings = ConsoleSettings()
    status: StatusSettings = StatusSettings()
    mail: MailSettings = MailSettings()
    payments: PaymentSettings = PaymentSettings()
    telemetry: TelemetrySettings = TelemetrySettings()
    tiers: dict[str, TierSettings] = msgspec.field(default_factory=_tiers)
    upstreams: dict[str, UpstreamSettings] = msgspec.field(default_factory=dict)

    @property
    def data_path(self) -> Path:
        return Path(self.data)

    @property
    def journal_path(self) -> Path:
        return self.data_path / "journal"

    @property
    def store_url(self) -> str:
        return self.store.url or f"sqlite:///{self.data_path / 'vipcloud.db'}"

    @property
    def catalog_path(self) -> Path:
        return Path(self.gateway.catalog) if self.gateway.catalog else self.data_path / "catalog.toml"


def load(file: Path | None = None, overrides: Mapping[str, Any] | None = None) -> Settings:
    """Settings from `file` (or `./vipcloud.toml`, if there), the environment and `overrides`. Raises SettingsError.

    `overrides` is nested like the file: `{"server": {"port": 9000}}`.
    """
    source: dict[str, Any] = {}
    path = file or Path("vipcloud.toml")
    if path.is_file():
        source = _read(path)
    elif file is not None:
        raise SettingsError(f"The settings file {file} does not exist.")
    merged = _merge(_merge(source, _from_environment(os.environ)), dict(overrides or {}))
    if "tiers" in merged and isinstance(merged["tiers"], dict):
        merged["tiers"] = _merge(msgspec.to_builtins(_tiers()), merged["tiers"])
    return _convert(merged)


def environment_secret(name: str) -> Secret | None:
    """The environment variable `name` as a secret; None where it is unset or empty."""
    text = os.environ.get(name, "").strip()
    return Secret(text) if text else None


def _read(path: Path) -> dict[str, Any]:
    try:
        decoded = msgspec.toml.decode(path.read_bytes(), type=dict[str, Any])
    except (OSError, UnicodeDecodeError, msgspec.DecodeError) as error:
        raise SettingsError(f"{path}: {error}") from error
    return decoded


def _from_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, text in environ.items():
        if not name.startswith(PREFIX):
            continue
        for field in msgspec.structs.fields(Settings):
            rest = name[len(PREFIX) :].lower()
            if rest == field.name:
                found[field.name] = text
            elif rest.startswith(f"{field.name}_") and isinstance(field.type, type) and issubclass(field.type, Struct):
                found.setdefault(field.name, {})[rest[len(field.name) + 1 :]] = _scalar(field.type, rest, text)
    return found


def _scalar(group: type[Struct], name: str, text: str) -> object:
    """`text` as the type of the setting that `name` (`server_port`) ends with; text where there is no such setting."""
    for field in msgspec.structs.fields(group):
        if name.endswith(f"_{field.name}"):
            try:
                if getattr(field.type, "__origin__", field.type) is Secret:
                    return text  # read like the file's: `env:NAME` or the secret itself
                return msgspec.to_builtins(msgspec.convert(text, type=field.type, strict=False))
            except msgspec.ValidationError as error:
                raise SettingsError(f"{PREFIX}{name.upper()}: {_explain(error)}") from error
    return text


def _merge(below: dict[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        merged[key] = _merge(old, value) if isinstance(old, dict) and isinstance(value, Mapping) else value
    return merged


def _convert(source: dict[str, Any]) -> Settings:
    try:
        settings = msgspec.convert(source, type=Settings, dec_hook=_secret)
    except msgspec.ValidationError as error:
        raise SettingsError(_explain(error)) from error
    for provider, upstream in settings.upstreams.items():
        _check_upstream(f"upstreams.{provider}", upstream)
    return _without_unset_keys(settings)


def _check_upstream(path: str, upstream: UpstreamSettings) -> None:
    """Raises SettingsError."""
    urls = {f"{path}.base_url": upstream.base_url}
    for account in upstream.accounts:
        urls[f"{path}.accounts.{account.name}.base_url"] = account.base_url
    for name, url in urls.items():
        if url and not re.match(r"https?://[^/\s]+", url):
            raise SettingsError(f"{name} must begin with http:// or https://, such as https://api.example.com")
    names = [account.name for account in upstream.accounts if account.name]
    if len(set(names)) < len(names):
        raise SettingsError(f"{path}.accounts: two have the same name; each needs one of its own.")


def _secret(kind: type, value: object) -> object:
    if kind is Secret and isinstance(value, str):
        if not value.startswith("env:"):
            return Secret(value)
        return environment_secret(value[4:]) or Secret("")
    raise TypeError(f"Expected `str`, got `{type(value).__name__}`")  # msgspec adds the setting's path


def _without_unset_keys(settings: Settings) -> Settings:
    """Keys that name an unset variable count as not given: a template may list all five providers."""
    upstreams = {
        name: msgspec.structs.replace(
            upstream,
            keys=_given(upstream.keys),
            accounts=tuple(
                msgspec.structs.replace(account, keys=_given(account.keys)) for account in upstream.accounts
            ),
        )
        for name, upstream in settings.upstreams.items()
    }
    return msgspec.structs.replace(settings, upstreams=upstreams)


def _given(keys: tuple[Secret, ...]) -> tuple[Secret, ...]:
    return tuple(key for key in keys if key.reveal())


def _explain(error: msgspec.ValidationError) -> str:
    """msgspec's text with the setting's name in front: `server.port: expected `int` <= 65535`."""
    text = str(error)
    match = re.fullmatch(r"(?s)(.*?)(?: - at `\$\.?(.*)`)?", text)
    assert match is not None, "the pattern takes any text"
    problem, path = match.group(1), match.group(2) or ""
    unknown = re.fullmatch(r"Object contains unknown field `(.*)`", problem)
    if unknown:
        name = f"{path}.{unknown.group(1)}" if path else unknown.group(1)
        return f"{name} is not a setting; docs/reference/settings.md lists them all."
    problem = problem[:1].lower() + problem[1:]
    return f"{path}: {problem}." if path else f"{problem}."

"""PURE: every metric there is: name, labels, meaning. `GET /metrics` and docs/reference/metrics.md are made of this.

Names are OpenTelemetry's for generative AI where it has one, as its Prometheus exporter writes them (`gen_ai_…`); the
rest is ours (`vipcloud_…`). What the Python runtime and the system say of the process comes beside these.
"""

from collections.abc import Mapping
from typing import Literal, NamedTuple

STATUSES = ("active", "cooling", "suspended", "removed", "no_access", "drained")

Sort = Literal["counter", "gauge", "histogram"]
Labels = tuple[str, ...]


class Family(NamedTuple):
    """One metric: its name as Prometheus shows it, but for the `_total` of a counter."""

    name: str
    sort: Sort
    labels: Labels
    meaning: str

    @property
    def shown(self) -> str:
        return f"{self.name}_total" if self.sort == "counter" else self.name


MODEL_TIER = ("model", "tier")
UPSTREAM_MODEL = ("upstream", "model")
GEN_AI = ("gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model")

_LIST = (
    # Requests
    Family(
        "vipcloud_requests",
        "counter",
        ("status", "code", *MODEL_TIER),
        "Requests by how they were answered; an error inside an answer that had begun counts by its own status; "
        "499: the client left.",
    ),
    Family(
        "vipcloud_settled",
        "counter",
        ("outcome", *MODEL_TIER),
        "Admitted requests by how they ended (docs/architecture.md, Money).",
    ),
    Family(
        "gen_ai_server_request_duration_seconds", "histogram", (*GEN_AI, "error_type"), "From admission to settlement."
    ),
    Family(
        "gen_ai_server_time_to_first_token_seconds",
        "histogram",
        GEN_AI,
        "Streams: from admission to the first token, reasoning included.",
    ),
    Family(
        "gen_ai_server_time_per_output_token_seconds",
        "histogram",
        GEN_AI,
        "Streams: between tokens after the first, the mean of each stream.",
    ),
    Family(
        "gen_ai_client_token_usage",
        "histogram",
        (*GEN_AI, "gen_ai_token_type"),
        "Tokens that a request was charged for; `gen_ai_token_type` is input or output.",
    ),
    Family(
        "vipcloud_tokens",
        "counter",
        ("kind", *MODEL_TIER),
        "Tokens by kind: input, of that cached_input; output, of that reasoning.",
    ),
    Family(
        "vipcloud_estimated",
        "counter",
        MODEL_TIER,
        "Requests whose usage was counted here, because the upstream did not say.",
    ),
    Family(
        "vipcloud_shed",
        "counter",
        ("tier",),
        "Requests turned away because the event loop was late (503 `overloaded`).",
    ),
    # Money
    Family("vipcloud_charged_nanousd", "counter", MODEL_TIER, "What customers were charged."),
    Family("vipcloud_cost_nanousd", "counter", ("model", "provider"), "What the answers cost us, without waste."),
    Family(
        "vipcloud_waste_nanousd",
        "counter",
        ("model", "provider"),
        "What we pay and nobody was charged: calls of which nothing was delivered.",
    ),
    Family(
        "vipcloud_waste_tokens",
        "counter",
        ("kind", "model", "provider"),
        "The tokens of those calls, input and output.",
    ),
    Family("vipcloud_waste_calls", "counter", ("model", "provider"), "Those calls."),
    Family(
        "vipcloud_variance_nanousd",
        "counter",
        ("model", "provider"),
        "Of the cost, what an upstream counted above the customer's hold.",
    ),
    # Upstreams
    Family(
        "vipcloud_upstream_calls", "counter", ("model", "provider"), "Calls of upstreams for requests that have ended."
    ),
    Family(
        "vipcloud_upstream_retries",
        "counter",
        ("model", "provider"),
        "Of those, the calls after the first of a request, by who was called last.",
    ),
    Family(
        "vipcloud_upstream_failures",
        "counter",
        (*UPSTREAM_MODEL, "code"),
        "Calls that failed, by account, its name of the model, and the error's code.",
    ),
    Family("vipcloud_upstream_running", "gauge", ("upstream",), "Calls under way at an account."),
    Family("vipcloud_upstream_keys", "gauge", ("upstream", "state"), "Keys of an account: usable or refused."),
    Family(
        "vipcloud_upstream_status",
        "gauge",
        (*UPSTREAM_MODEL, "status"),
        "1 for the state that an account is in for a model, 0 for the others: " + ", ".join(STATUSES) + ".",
    ),
    Family("vipcloud_upstream_breaker_state", "gauge", UPSTREAM_MODEL, "0 closed, 1 on trial, 2 open."),
    Family("vipcloud_upstream_breaker_opened", "counter", UPSTREAM_MODEL, "Times that it has opened."),
    # The process
    Family("vipcloud_loop_lag_seconds", "histogram", (), "How late the event loop's heartbeat was."),
    Family(
        "vipcloud_loop_lag_now_seconds",
        "gauge",
        (),
        "The same, as requests are turned away by it: the least of the last beats.",
    ),
    Family("vipcloud_open_connections", "gauge", (), "Open client connections."),
    Family("vipcloud_running_requests", "gauge", (), "Requests that are being answered, of any route."),
    Family("vipcloud_open_streams", "gauge", (), "Upstream streams that are being relayed."),
    Family("vipcloud_deadlines", "gauge", (), "Requests whose upstream is watched for silence."),
    Family("vipcloud_draining", "gauge", (), "1 after SIGTERM, or after handing over to a successor."),
    Family(
        "vipcloud_guard_degraded", "gauge", (), "1 while limits are counted here because the shared server is away."
    ),
    Family(
        "vipcloud_changes_lag_seconds", "gauge", (), "Since changes of keys and accounts were last read from the store."
    ),
    # The books
    Family("vipcloud_journal_failing", "gauge", (), "1 while the journal cannot be written: new requests get 503."),
    Family("vipcloud_journal_backlog_bytes", "gauge", (), "Journaled and not yet booked, as the bookkeeper last said."),
    Family("vipcloud_bookkeeper_lag_seconds", "gauge", (), "Since the moment up to which all is booked."),
    Family("vipcloud_bookkeeper_silence_seconds", "gauge", (), "Since the bookkeeper last said anything."),
    Family("vipcloud_bookkeeper_failing", "gauge", (), "1 if its last round failed."),
    Family("vipcloud_ledger_breaks", "gauge", (), "What the last check of the books found wrong; must be 0."),
    Family("vipcloud_ledger_overdrawn", "gauge", (), "Customers below zero; must be 0."),
    Family("vipcloud_ledger_check_age_seconds", "gauge", (), "Since the books were last checked."),
)
FAMILIES: Mapping[str, Family] = {family.name: family for family in _LIST}

"""Traces: one span for each request that was admitted and has ended, sent to `telemetry.otlp_endpoint` by OTLP/HTTP.

Only `cli.serve` imports this, and only when there is an endpoint: OpenTelemetry is an extra (`vipcloud[otlp]`). A span
is made after its request is settled, in a later turn of the loop, from the settled record alone; a thread of the SDK
sends it. So nothing that becomes of a span can touch the request or its money. Names are those of OpenTelemetry for
generative AI (opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-spans, seen 2026-11) and, under `vipcloud.`, our own.
"""

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Sequence
from importlib.metadata import version

import structlog
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import AttributeValue

from vipcloud.clock import Clock
from vipcloud.ledger.records import Settled
from vipcloud.settings import TelemetrySettings
from vipcloud.telemetry.figures import COMPLETE

BATCH_SPANS_MAX = 512
COMPLAINT_INTERVAL_S = 60
LAST_WORDS_S = 1.0  # how long a closing gateway lets a collector that is away be asked again

log = structlog.get_logger(__name__)


class Tracing:
    """Belongs to one event loop."""

    def __init__(self, settings: TelemetrySettings, clock: Clock) -> None:
        self._parents: dict[str, bytes] = {}  # what callers sent, by the id of a request under way
        self._queue_max = settings.otlp_queue_max
        self._queued = 0  # since the start, as `Sender.taken` is; only this thread writes it
        self._sender = Sender(settings, clock)
        self._provider = TracerProvider(
            resource=Resource.create({"service.name": "vipcloud", "service.version": version("vipcloud")}),
            shutdown_on_exit=False,
        )
        processor = BatchSpanProcessor(
            self._sender,
            max_queue_size=settings.otlp_queue_max,
            schedule_delay_millis=settings.otlp_interval_s * 1000,
            max_export_batch_size=min(BATCH_SPANS_MAX, settings.otlp_queue_max),
        )
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("vipcloud")
        self._propagator = TraceContextTextMapPropagator()

    def opened(self, request_id: str, traceparent: bytes | None) -> None:
        """Note what a request that will be settled is part of."""
        if traceparent:
            self._parents[request_id] = traceparent

    def settled(self, record: Settled) -> None:
        asyncio.get_running_loop().call_soon(self._export, record, self._parents.pop(record.request_id, None))

    def _export(self, record: Settled, traceparent: bytes | None) -> None:
        if self._queued - self._sender.taken >= self._queue_max:
            self._sender.overflowed += 1
            return
        carrier = {"traceparent": traceparent.decode("latin-1")} if traceparent is not None else {}
        start_ns = int(record.started_at * 1e9)
        span = self._tracer.start_span(
            f"chat {record.model}",
            self._propagator.extract(carrier),  # one that is malformed is as good as none
            SpanKind.SERVER,
            attributes(record),
            start_time=start_ns,
        )
        if not span.is_recording():
            return  # the caller's trace is not sampled
        if record.outcome != COMPLETE:
            span.set_status(Status(StatusCode.ERROR))
        self._queued += 1
        span.end(start_ns + record.duration_ms * 1_000_000)

    def close(self) -> None:
        """Send what is left; gives up soon where the collector is away."""
        impatience = threading.Timer(LAST_WORDS_S, self._sender.shutdown)
        impatience.start()
        self._provider.shutdown()
        impatience.cancel()
        self._sender.end()


def attributes(record: Settled) -> dict[str, AttributeValue]:
    """What a span says: neither of the text of a request nor of who sent it."""
    found: dict[str, AttributeValue | None] = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": record.provider,
        "gen_ai.request.model": record.model,
        "gen_ai.response.model": record.upstream_model,
        "gen_ai.response.id": record.request_id,
        "gen_ai.response.finish_reasons": None if record.finish_reason is None else (record.finish_reason,),
        "gen_ai.usage.input_tokens": record.prompt_tokens,
        "gen_ai.usage.output_tokens": record.completion_tokens,
        "vipcloud.streamed": record.streamed,
        "vipcloud.attempts": record.attempts,
        "vipcloud.outcome": record.outcome,
        "vipcloud.charge_nanousd": record.charge_nanousd,
        "vipcloud.cost_nanousd": record.cost_nanousd,
    }
    if record.streamed and record.first_token_ms is not None:
        found["gen_ai.server.time_to_first_token"] = record.first_token_ms / 1000
    if record.outcome != COMPLETE:
        found["error.type"] = record.error_code or record.outcome
    return {name: value for name, value in found.items() if value is not None}


class Sender(SpanExporter):
    """The exporter of OTLP/HTTP; what it loses is told in our log, once a minute at most. Runs in the SDK's thread."""

    def __init__(self, settings: TelemetrySettings, clock: Clock) -> None:
        self.taken = 0  # spans that have left the queue
        self.overflowed = 0  # spans that found no room there; only the event loop's thread writes it
        self._exporter = OTLPSpanExporter(
            f"{settings.otlp_endpoint.rstrip('/')}/v1/traces", timeout=settings.otlp_timeout_s
        )
        self._clock = clock
        self._failed = self._told = 0
        self._told_s = clock.monotonic_s() - COMPLAINT_INTERVAL_S
        self._reason = Reason()
        self._closed = threading.Lock()
        library = logging.getLogger("opentelemetry")
        library.addHandler(self._reason)
        library.propagate = False  # or it would write a line of its own for each try

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.taken += len(spans)
        self._reason.said.clear()
        result = self._exporter.export(spans)
        if result is not SpanExportResult.SUCCESS:
            self._failed += len(spans)
        self._tell()
        return result

    def _tell(self, *, last: bool = False) -> None:
        lost, now_s = self._failed + self.overflowed, self._clock.monotonic_s()
        if lost > self._told and (last or now_s - self._told_s >= COMPLAINT_INTERVAL_S):
            reason = " ".join(self._reason.said) or "The queue was full."
            log.warning("spans were dropped", spans=lost - self._told, in_all=lost, reason=reason)
            self._told, self._told_s = lost, now_s

    def shutdown(self) -> None:
        if self._closed.acquire(blocking=False):  # by the SDK or by impatience, whoever comes first
            self._exporter.shutdown()  # type: ignore[no-untyped-call]

    def end(self) -> None:
        """Tell what was lost since it was told last. The SDK's thread must have ended."""
        self._tell(last=True)
        logging.getLogger("opentelemetry").removeHandler(self._reason)


class Reason(logging.Handler):
    """Keeps what the library has said last: why a try failed, and that it gave up."""

    def __init__(self) -> None:
        super().__init__()
        self.said: deque[str] = deque(maxlen=2)

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(record.getMessage())

"""What is told of a single request: a line in the log and a span; nothing of what was said in it."""

from typing import TYPE_CHECKING

import structlog

from vipcloud.errors import GatewayError, Overloaded
from vipcloud.ledger.records import Settled
from vipcloud.settings import Settings
from vipcloud.telemetry.figures import ErrorWatcher, Figures, Watcher

if TYPE_CHECKING:  # OpenTelemetry is an extra
    from vipcloud.telemetry.traces import Tracing

log = structlog.get_logger(__name__)


def figures_for(settings: Settings, tracing: "Tracing | None" = None) -> Figures:
    """Figures that also log what `telemetry.log_requests` asks for, and tell `tracing`."""
    wanted = settings.telemetry.log_requests
    watchers: list[Watcher] = []
    error_watchers: list[ErrorWatcher] = []
    if wanted == "all":
        watchers.append(LoggedRequests())
    elif wanted == "failures":
        error_watchers.append(LoggedFailures())
    if tracing is not None:
        watchers.append(Traced(tracing))
    return Figures(watchers, error_watchers)


class LoggedFailures:
    """Who is turned away by overload is counted only: there may be thousands a second, and a line costs more."""

    def note_error(self, error: GatewayError, request_id: str, model: str, tier: str) -> None:
        if error.status >= 500 and not isinstance(error, Overloaded):
            log.warning(
                "request failed", request_id=request_id, status=error.status, code=error.code, model=model, tier=tier
            )


class LoggedRequests(LoggedFailures):
    """For installations with few requests, or much patience with their log."""

    def settled(self, record: Settled, tier: str) -> None:
        log.info(
            "request settled",
            request_id=f"req_{record.request_id.removeprefix('chatcmpl-')}",
            account=record.account_id,
            key=record.key_id,
            tier=tier,
            model=record.model,
            provider=record.provider,
            streamed=record.streamed,
            outcome=record.outcome,
            finish_reason=record.finish_reason,
            prompt_tokens=record.prompt_tokens,
            completion_tokens=record.completion_tokens,
            charge_nanousd=record.charge_nanousd,
            attempts=record.attempts,
            first_token_ms=record.first_token_ms,
            duration_ms=record.duration_ms,
        )


class Traced:
    """A span for each request."""

    def __init__(self, tracing: "Tracing") -> None:
        self._tracing = tracing

    def settled(self, record: Settled, tier: str) -> None:
        self._tracing.settled(record)

    def note_error(self, error: GatewayError, request_id: str, model: str, tier: str) -> None:
        """The span tells how it ended."""

"""Traces, as a collector gets them: a real one over HTTP, read with OpenTelemetry's own protobuf."""

import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from front_door import House, Reply, eventually
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from vipcloud.cli.serve import tracing_for
from vipcloud.clock import ManualClock
from vipcloud.errors import SettingsError
from vipcloud.ledger.records import Settled
from vipcloud.settings import Settings, TelemetrySettings

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SECRET_TEXT = "the heron stands in the shallows"


class Collector:
    """Takes traces at `/v1/traces`; answers `status` while it is `open`, and waits otherwise."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.status = 200
        self.open = threading.Event()
        self.open.set()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                collector.open.wait(5)
                status = collector.status if self.path == "/v1/traces" else 404
                if status == 200:
                    collector.bodies.append(body)
                self.send_response(status)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self.server.server_address[1]}"

    def resources(self) -> list[Any]:
        return [group for body in self.bodies for group in ExportTraceServiceRequest.FromString(body).resource_spans]

    def spans(self) -> list[Span]:
        """In the order of their starts."""
        found = [span for group in self.resources() for scope in group.scope_spans for span in scope.spans]
        return sorted(found, key=lambda span: span.start_time_unix_nano)

    async def got(self, count: int) -> list[Span]:
        await eventually(lambda: len(self.spans()) >= count)
        return self.spans()


@pytest.fixture
def collector() -> Iterator[Collector]:
    collector = Collector()
    thread = threading.Thread(target=collector.server.serve_forever, args=(0.01,))
    thread.start()
    yield collector
    collector.server.shutdown()
    thread.join()
    collector.server.server_close()


def traced(endpoint: str, **fields: Any) -> dict[str, Any]:
    return {"telemetry": {"otlp_endpoint": endpoint, "otlp_interval_s": 0.02, **fields}}


def value(found: AnyValue) -> Any:
    kind = found.WhichOneof("value")
    return [value(each) for each in found.array_value.values] if kind == "array_value" else getattr(found, kind)


def said(span: Span) -> dict[str, Any]:
    return {each.key: value(each.value) for each in span.attributes}


async def with_parent(house: House, traceparent: str) -> Reply:
    headers = house.head(traceparent=traceparent)
    return await house.ask("POST", "/v1/chat/completions", house.body("Hello", "deepseek-chat", {}), headers)


def expected(row: Settled) -> dict[str, Any]:
    """What the span of a settled request says, taken from the books."""
    return {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "deepseek",
        "gen_ai.request.model": "deepseek-chat",
        "gen_ai.response.model": row.upstream_model,
        "gen_ai.response.id": row.request_id,
        "gen_ai.usage.input_tokens": row.prompt_tokens,
        "gen_ai.usage.output_tokens": row.completion_tokens,
        "vipcloud.streamed": row.streamed,
        "vipcloud.attempts": row.attempts,
        "vipcloud.outcome": row.outcome,
        "vipcloud.charge_nanousd": row.charge_nanousd,
        "vipcloud.cost_nanousd": row.cost_nanousd,
    }


async def test_a_request_is_a_span_that_says_what_the_books_say(open_house: Any, collector: Collector) -> None:
    house = await open_house(**traced(collector.endpoint))
    reply = await house.chat()
    [span] = await collector.got(1)
    [row] = await house.settled()
    assert row.charge_nanousd > 0
    assert said(span) == {**expected(row), "gen_ai.response.finish_reasons": ["stop"]}
    assert said(span)["gen_ai.response.id"] == reply.json["id"]
    assert (span.name, span.kind, span.parent_span_id) == ("chat deepseek-chat", Span.SPAN_KIND_SERVER, b"")
    assert span.status.code == Status.STATUS_CODE_UNSET
    assert span.start_time_unix_nano / 1e9 == pytest.approx(row.started_at, abs=1e-6)
    assert span.end_time_unix_nano - span.start_time_unix_nano == row.duration_ms * 1_000_000
    [resource] = collector.resources()
    names = {each.key: value(each.value) for each in resource.resource.attributes}
    assert names["service.name"] == "vipcloud"


async def test_a_stream_also_says_when_its_first_token_came(open_house: Any, collector: Collector) -> None:
    house = await open_house(**traced(collector.endpoint))
    await house.stream()
    [span] = await collector.got(1)
    [row] = await house.settled()
    assert said(span) == {
        **expected(row),
        "gen_ai.response.finish_reasons": ["stop"],
        "gen_ai.server.time_to_first_token": row.first_token_ms / 1000,
    }
    assert row.streamed


@pytest.mark.parametrize(("which", "lines"), [("none", 0), ("failures", 0), ("all", 1)])
async def test_traces_do_not_change_what_is_logged(
    open_house: Any, collector: Collector, which: str, lines: int
) -> None:
    house = await open_house(**traced(collector.endpoint, log_requests=which))
    await house.chat()
    assert len(await collector.got(1)) == 1
    assert [line["event"] for line in house.logs] == ["request settled"] * lines


async def test_a_failed_request_is_an_error_and_names_it(open_house: Any, collector: Collector) -> None:
    house = await open_house(**traced(collector.endpoint))
    await house.upstream.fails("status:400")
    assert (await house.chat()).status == 400
    [span] = await collector.got(1)
    [row] = await house.settled()
    assert said(span) == {**expected(row), "error.type": "bad_request"}
    assert (row.outcome, row.charge_nanousd) == ("upstream_failed", 0)
    assert span.status.code == Status.STATUS_CODE_ERROR


async def test_a_span_is_the_child_of_what_the_caller_names(open_house: Any, collector: Collector) -> None:
    house = await open_house(**traced(collector.endpoint))
    await with_parent(house, f"00-{TRACE}-{PARENT}-00")  # not sampled: no span
    await with_parent(house, f"00-{TRACE}-{PARENT}-01")
    await with_parent(house, "00-nonsense")
    child, alone = await collector.got(2)
    assert (child.trace_id.hex(), child.parent_span_id.hex()) == (TRACE, PARENT)
    assert (alone.trace_id.hex() != TRACE, alone.parent_span_id) == (True, b"")
    assert len(await house.settled(3)) == 3
    assert house.gateway.parts.tracing._parents == {}


async def test_nothing_that_was_said_and_no_caller_is_sent(open_house: Any, collector: Collector) -> None:
    house = await open_house(**traced(collector.endpoint))
    reply = await house.chat(f"Repeat: {SECRET_TEXT}", user="ann@example.com")
    await collector.got(1)
    [row] = await house.settled()
    sent = b"".join(collector.bodies)
    assert b"deepseek-chat" in sent
    for secret in (SECRET_TEXT, reply.text, house.key, "@example.com", row.account_id, row.key_id, "sk-ours"):
        assert secret.encode() not in sent, secret


async def test_what_waits_is_sent_when_the_gateway_ends(open_house: Any, collector: Collector) -> None:
    house = await open_house(**traced(collector.endpoint, otlp_interval_s=600))
    await house.chat()
    assert collector.bodies == []
    house.gateway.parts.tracing.close()
    assert len(collector.spans()) == 1


async def test_a_collector_that_is_away_is_no_matter_and_told_once(open_house: Any, collector: Collector) -> None:
    collector.status = 400
    house = await open_house(**traced(collector.endpoint))
    parts = house.gateway.parts
    for _ in range(3):
        assert (await house.chat()).status == 200
        await eventually(lambda: parts.tracing._sender.taken == parts.tracing._queued)
    assert len(await house.settled(3)) == 3
    [line] = await eventually(lambda: [line for line in house.logs if line["event"] == "spans were dropped"])
    assert line["spans"] == 1
    assert "400" in line["reason"]
    parts.tracing.close()
    told = [line["spans"] for line in house.logs if line["event"] == "spans were dropped"]
    assert told == [1, 2], "what was not told yet is told at the end"


async def test_nobody_listening_is_no_matter_either(open_house: Any, collector: Collector) -> None:
    collector.server.socket.close()  # from now on it is refused
    house = await open_house(**traced(collector.endpoint, otlp_timeout_s=0.05))
    assert (await house.chat()).status == 200
    assert (await house.stream()).done
    [line] = await eventually(lambda: [line for line in house.logs if line["event"] == "spans were dropped"])
    assert "refused" in line["reason"] or "timeout" in line["reason"]
    assert [row.outcome for row in await house.settled(2)] == ["complete", "complete"]


async def test_what_finds_the_queue_full_is_dropped_and_counted(open_house: Any, collector: Collector) -> None:
    house = await open_house(**traced(collector.endpoint, otlp_interval_s=600, otlp_queue_max=2))
    collector.open.clear()
    for _ in range(2):
        await house.chat()
    await eventually(lambda: house.gateway.parts.tracing._sender.taken == 2)  # on their way, and not there yet
    for _ in range(3):
        assert (await house.chat()).status == 200
    collector.open.set()
    assert len(await collector.got(4)) == 4
    await eventually(lambda: [line for line in house.logs if line["event"] == "spans were dropped"])
    assert [(line["spans"], line["reason"]) for line in house.logs] == [(1, "The queue was full.")]


async def test_without_an_endpoint_there_are_no_traces(house: House) -> None:
    assert (await with_parent(house, f"00-{TRACE}-{PARENT}-01")).status == 200
    assert house.gateway.parts.tracing is None


def test_a_missing_extra_stops_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "vipcloud.telemetry.traces", raising=False)
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(SettingsError, match=r"telemetry\.otlp_endpoint.*vipcloud\[otlp\].*opentelemetry"):
        tracing_for(Settings(telemetry=TelemetrySettings(otlp_endpoint="http://127.0.0.1:4318")), ManualClock())

"""What is counted of a request, and what is logged of it."""

from typing import Any

import pytest
import structlog
from structlog.testing import capture_logs

from vipcloud.errors import NoUpstream, Overloaded, RateLimited
from vipcloud.ledger.records import Settled
from vipcloud.settings import Settings, TelemetrySettings
from vipcloud.telemetry.figures import DURATION_MS, TOKENS, WAITING_MAX, Answer, Buckets, Ending, Figures, Kind, Slot
from vipcloud.telemetry.requests import figures_for

RECORD = Settled(
    request_id="chatcmpl-1",
    account_id="acc",
    key_id="key",
    model="deepseek-chat",
    provider="deepseek",
    upstream_model="deepseek-chat",
    streamed=False,
    outcome="complete",
    prompt_tokens=200,
    cached_tokens=50,
    completion_tokens=60,
    reasoning_tokens=10,
    estimated=False,
    charge_nanousd=1000,
    cost_nanousd=800,
    started_at=1.0,
    duration_ms=840,
    first_token_ms=120,
    attempts=1,
)
KIND = Kind("deepseek-chat", "deepseek", "complete", "payg")


@pytest.mark.parametrize(("value", "place"), [(0, 0), (10, 0), (11, 1), (20, 1), (81_920, 13), (81_921, 14)])
def test_a_bucket_holds_what_is_at_most_its_bound(value: int, place: int) -> None:
    buckets = Buckets(DURATION_MS)
    buckets.note(value)
    assert [index for index, count in enumerate(buckets.counts) if count] == [place]
    assert buckets.total == value


def ending(kind: Kind = KIND, **different: Any) -> Ending:
    """Of a request that had 200 tokens in, 60 out."""
    usual = {"duration_ms": 840, "first_token_ms": None, "attempts": 1, "prompt": 200, "cached": 50, "completion": 60}
    usual |= {"reasoning": 10, "estimated": False, "charge_nanousd": 1000, "cost_nanousd": 800, "variance_nanousd": 0}
    return Ending(*kind, **usual | different)


def test_a_request_is_counted_under_its_kind() -> None:
    figures = Figures()
    figures.ended(ending())
    figures.ended(ending(attempts=3, estimated=True, variance_nanousd=7))
    figures.ended(ending(KIND._replace(tier="pro"), attempts=0, prompt=0))
    slot = figures.slots[KIND]
    assert (slot.requests, slot.further_calls, slot.estimated, slot.variance_nanousd) == (2, 2, 1, 7)
    assert (slot.charge_nanousd, slot.cost_nanousd) == (2000, 1600)
    assert (slot.input.total, slot.output.total, slot.cached_tokens, slot.reasoning_tokens) == (400, 120, 100, 20)
    assert slot.input.counts[TOKENS.index(256)] == 2
    assert (slot.duration.total, sum(slot.duration.counts)) == (1680, 2)
    assert sum(slot.first_token.counts) == 0
    other = figures.slots[KIND._replace(tier="pro")]
    assert (other.requests, other.further_calls, sum(other.duration.counts), sum(other.input.counts)) == (1, -1, 1, 0)


@pytest.mark.parametrize("count", [1, WAITING_MAX - 1, WAITING_MAX, 3 * WAITING_MAX + 1])
def test_however_many_have_ended_all_are_counted(count: int) -> None:
    figures = Figures()
    for _ in range(count):
        figures.ended(ending())
    assert len(figures._waiting) < WAITING_MAX
    assert figures.slots[KIND].requests == count
    assert figures.answers() == {Answer(200, "", "deepseek-chat", "payg"): count}


def test_a_stream_tells_its_first_token_and_its_pace() -> None:
    slot = Slot()
    slot.note_pace(1000, first_token_ms=100, completion=10)
    slot.note_pace(840, first_token_ms=120, completion=1)
    assert (slot.first_token.total, sum(slot.first_token.counts)) == (220, 2)
    assert (slot.per_token.total, sum(slot.per_token.counts)) == (100, 1)


def test_answers_are_successes_leavers_and_errors() -> None:
    figures = Figures()
    for kind in (
        KIND,
        KIND._replace(provider="dashscope"),
        KIND._replace(outcome="client_gone"),
        KIND._replace(outcome="upstream_failed"),
    ):
        figures.ended(ending(kind))
    figures.note_error(NoUpstream("no"), "req_1", "deepseek-chat", "payg")
    assert figures.answers() == {
        Answer(200, "", "deepseek-chat", "payg"): 2,
        Answer(499, "client_gone", "deepseek-chat", "payg"): 1,
        Answer(503, "no_upstream", "deepseek-chat", "payg"): 1,
    }


@pytest.mark.parametrize(
    ("which", "events"),
    [("none", []), ("failures", ["request failed"]), ("all", ["request settled", "request failed"])],
)
def test_the_log_has_the_lines_that_are_asked_for(which: Any, events: list[str]) -> None:
    structlog.reset_defaults()
    with capture_logs() as logs:
        figures = figures_for(Settings(telemetry=TelemetrySettings(log_requests=which)))
        figures.settled(RECORD, "payg")
        figures.note_error(NoUpstream("what was said"), "req_1", "deepseek-chat", "payg")
        figures.note_error(RateLimited("no"), "req_2", "deepseek-chat", "payg")
        figures.note_error(Overloaded("no"), "req_3", "deepseek-chat", "payg")
    assert [line["event"] for line in logs] == events
    assert all(line["request_id"] == "req_1" for line in logs)
    assert "what was said" not in str(logs)

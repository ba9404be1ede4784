"""What a request counts as, for whom, and how long it took: the counts are those of the usage rows."""

from collections import Counter

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Engine, func, select

from ledger.test_ledger_store import USAGE
from vipcloud import errors
from vipcloud.gateway.bill import Outcome
from vipcloud.ledger import availability, store
from vipcloud.ledger.availability import Counts, Key
from vipcloud.ledger.records import Settled
from vipcloud.storage import engine as storage
from vipcloud.storage import schema

HOUR = int(USAGE.started_at // 3600)


def ended(number: int, outcome: str = "complete", **changes: object) -> Settled:
    return msgspec.structs.replace(USAGE, request_id=f"req_{number}", outcome=outcome, **changes)


@pytest.mark.parametrize(
    ("outcome", "code", "counts_as"),
    [
        ("complete", "", "answered"),
        ("interrupted", "", "cut"),
        ("upstream_failed", "upstream_error", "failed"),
        ("upstream_failed", "upstream_timeout", "failed"),
        ("upstream_failed", "rate_limited", "failed"),
        ("upstream_failed", "no_upstream", "failed"),
        ("upstream_failed", "", "failed"),
        ("upstream_failed", "bad_request", "refused"),
        ("upstream_failed", "context_length_exceeded", "refused"),
        ("upstream_failed", "content_filter", "refused"),
        ("upstream_failed", "structured_output_failed", "refused"),
        ("client_gone", "", "gone"),
        ("revoked", "", "gone"),
        ("restarted", "", "ours"),
        ("crashed", "", "ours"),
        ("fault", "", "ours"),
        ("unheard_of", "", "ours"),
    ],
)
def test_what_a_request_counts_as(outcome: str, code: str, counts_as: str) -> None:
    assert availability.judged(outcome, code) == counts_as
    assert counts_as in Counts._fields


def test_every_outcome_of_the_gateway_is_judged_and_only_what_is_ours_falls_to_us() -> None:
    found = {outcome: availability.judged(outcome, "") for outcome in Outcome.__args__}
    assert {outcome for outcome, word in found.items() if word == "ours"} == {"restarted", "fault"}


def test_no_error_of_ours_or_of_an_upstream_is_called_the_callers_own() -> None:
    for kind in errors.documented():
        if kind.status >= 500 and kind is not errors.StructuredOutputFailed:
            assert kind.code not in availability.CALLERS_OWN


def test_the_columns_are_the_counts() -> None:
    assert tuple(schema.availability_hour.columns.keys()) == ("hour", "model", "provider", *Counts._fields)


def test_requests_are_counted_as_they_are_booked_by_hour_model_and_provider(engine: Engine) -> None:
    with storage.writing(engine) as connection:
        store.post_usage(connection, [ended(1), ended(2, attempts=2), ended(3, "interrupted")])
        store.post_usage(
            connection,
            [
                ended(4, "upstream_failed", provider=None, charge_nanousd=0, cost_nanousd=0, error_code="no_upstream"),
                ended(5, "client_gone"),
                ended(6, started_at=USAGE.started_at + 86_400),
            ],
        )
    with storage.reading(engine) as connection:
        assert availability.by_hour(connection, HOUR) == {
            Key(HOUR, "deepseek-chat", "deepseek"): Counts(answered=2, cut=1, gone=1, rescued=1),
            Key(HOUR, "deepseek-chat", ""): Counts(failed=1),
            Key(HOUR + 24, "deepseek-chat", "deepseek"): Counts(answered=1),
        }
        days = availability.by_day(connection, HOUR // 24)
        assert [(key.bucket, counts.judged) for key, counts in sorted(days.items())] == [
            (HOUR // 24, 1),
            (HOUR // 24, 3),
            (HOUR // 24 + 1, 1),
        ]
        assert availability.by_day(connection, HOUR // 24 + 2) == {}


def test_the_counts_are_those_of_the_usage_rows(engine: Engine) -> None:
    outcomes = ["complete", "interrupted", "client_gone", "upstream_failed", "restarted"]
    with storage.writing(engine) as connection:
        for group in range(4):
            store.post_usage(connection, [ended(10 * group + place, name) for place, name in enumerate(outcomes)])
    with storage.reading(engine) as connection:
        rows = connection.execute(select(schema.usage.c.outcome, schema.usage.c.error_code)).all()
        expected = Counter(availability.judged(*row) for row in rows)
        total: Counter[str] = Counter()
        for counts in availability.by_hour(connection, 0).values():
            total.update(counts._asdict())
    assert +total == expected


def test_half_are_within_the_median_to_the_width_of_a_step(engine: Engine) -> None:
    times = [200, 300, 400, 5000, 6000]
    with storage.writing(engine) as connection:
        store.post_usage(connection, [ended(ms, first_token_ms=ms, duration_ms=2 * ms) for ms in times])
        store.post_usage(connection, [ended(1, streamed=False, first_token_ms=9000, duration_ms=9000)])
    with storage.reading(engine) as connection:
        first = availability.steps(connection, HOUR, "first_token")["deepseek-chat", "deepseek"]
        whole = availability.steps(connection, HOUR, "whole")["deepseek-chat", "deepseek"]
    assert sum(first.values()) == 5, "an answer that is sent whole has no first token of its own"
    assert sum(whole.values()) == 6
    assert availability.quantile_ms(first, 0.5) == pytest.approx(400, rel=0.05)
    assert availability.quantile_ms(whole, 0.5) == pytest.approx(800, rel=0.05)
    assert availability.quantile_ms({}, 0.5) is None


@given(st.integers(1, 10_000_000))
def test_a_step_is_near_every_time_in_it(ms: int) -> None:
    assert availability.step_ms(availability.step(ms)) == pytest.approx(ms, rel=0.05)


def test_old_times_are_forgotten_and_counts_are_kept(engine: Engine) -> None:
    with storage.writing(engine) as connection:
        store.post_usage(connection, [ended(1)])
        availability.forget_latency(connection, USAGE.started_at + 7 * 86_400)
        assert connection.scalar(select(func.count()).select_from(schema.latency_hour)) == 1
        availability.forget_latency(connection, USAGE.started_at + 9 * 86_400)
        assert connection.scalar(select(func.count()).select_from(schema.latency_hour)) == 0
        assert len(availability.by_hour(connection, 0)) == 1

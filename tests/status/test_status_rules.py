"""From what was seen to what the status page says: unknown is never good, and nothing is rounded up."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vipcloud.ledger.availability import Counts, Key
from vipcloud.status import rules
from vipcloud.status.report import Component, Incident, Report, Update
from vipcloud.status.rules import GATEWAY, Check, Facts, Minutes, Subject

DAY = 20_000  # since 1970
NOW_S = DAY * 86_400 + 12 * 3600 + 30 * 60 + 7.0  # half past twelve
HOUR = int(NOW_S // 3600)
FULL = (1 << 60) - 1
NOW_MASK = (1 << 31) - 1  # minutes 0 to 30 of this hour

PARTS = [Subject(id=GATEWAY, name="Gateway API")]
PROVIDERS = [Subject(id="deepseek", name="DeepSeek"), Subject(id="dashscope", name="Alibaba")]
MODELS = [
    Subject(id="deepseek-chat", name="deepseek-chat", providers=("deepseek", "dashscope")),
    Subject(id="kimi-k2", name="kimi-k2", offered=False),
]


def facts(**changes: object) -> Facts:
    given = {"now_s": NOW_S, "history_until": NOW_S, "parts": PARTS, "providers": PROVIDERS, "models": MODELS}
    return Facts(**(given | changes))  # type: ignore[arg-type]


def looked(outcomes: str, ago_s: float = 5.0) -> list[Check]:
    """One look a minute, the last `ago_s` ago: `+` was good, `-` was not."""
    first = len(outcomes) - 1
    return [Check(NOW_S - ago_s - 60 * (first - place), each == "+", 12) for place, each in enumerate(outcomes)]


def all_well() -> dict[str, list[Check]]:
    return {subject: looked("++") for subject in (GATEWAY, "deepseek", "dashscope")}


def checked_since(days: int) -> tuple[dict[int, Minutes], int]:
    """Every minute of that many days before today, and of today, good; and the first of them."""
    hours = {hour: Minutes(FULL, FULL) for hour in range((DAY - days) * 24, HOUR)}
    hours[HOUR] = Minutes(NOW_MASK, NOW_MASK)
    return hours, (DAY - days) * 1440


def component(report: Report, name: str) -> Component:
    return next(each for each in (*report.parts, *report.providers, *report.models) if each.id == name)


def incident(severity: str = "outage", resolved_at: float | None = None) -> Incident:
    updates = (Update(at=NOW_S - 600, message="We look into it."),)
    return Incident(
        id=1,
        title="No answers",
        severity=severity,  # type: ignore[arg-type]
        affects=(),
        opened_at=NOW_S - 600,
        resolved_at=resolved_at,
        updates=updates,
    )


def test_nothing_seen_is_nothing_known() -> None:
    report = rules.report(facts(history_until=None))
    assert (report.state, report.headline) == ("unknown", "Not checked yet")
    for each in (*report.parts, *report.providers, *report.models):
        assert each.state in ("unknown", "off")
        assert len(each.days) == rules.DAYS
        assert {day.answered for day in each.days} == {None}
        assert (each.answered_30, each.answered_90, each.first_token_ms, each.check_ms) == (None, None, None, None)
    assert [period.answered for period in report.periods] == [None, None]
    assert (report.failed, report.rescued, report.first_token_ms) == (None, None, None)


def test_all_well_is_normal_and_the_days_before_the_first_check_are_not_known() -> None:
    hours, first = checked_since(3)
    report = rules.report(facts(latest=all_well(), checks={GATEWAY: hours}, since={GATEWAY: first}))
    assert (report.state, report.headline) == ("normal", "All systems normal")
    gateway = component(report, GATEWAY)
    assert [day.answered for day in gateway.days] == [None] * (rules.DAYS - 4) + [100.0] * 4
    assert gateway.days[-1].day == "2024-10-04"
    assert (gateway.note, gateway.answered_90, gateway.check_ms) == ("", 100.0, 12)
    ninety = report.periods[-1]
    assert (ninety.minutes, ninety.lost, ninety.unchecked) == (3 * 1440 + 12 * 60 + 31, 0, 0)


def test_a_lost_minute_shows_and_the_share_is_cut_not_rounded() -> None:
    hours, first = checked_since(89)
    hours[HOUR - 48] = Minutes(FULL, FULL & ~1)
    report = rules.report(facts(latest=all_well(), checks={GATEWAY: hours}, since={GATEWAY: first}))
    ninety = report.periods[-1]
    assert (ninety.lost, ninety.answered) == (1, 99.99)
    assert ninety.allowed == ninety.minutes * 5 // 1000
    assert component(report, GATEWAY).days[-3].answered == 99.93


def test_minutes_without_a_check_count_as_lost_and_a_day_without_any_is_not_known() -> None:
    hours, first = checked_since(9)
    for hour in range((DAY - 5) * 24, (DAY - 4) * 24):
        del hours[hour]
    hours[(DAY - 2) * 24 + 3] = Minutes(FULL & ~0b1111, FULL & ~0b1111)
    report = rules.report(facts(latest=all_well(), checks={GATEWAY: hours}, since={GATEWAY: first}))
    gateway, ninety = component(report, GATEWAY), report.periods[-1]
    assert (ninety.lost, ninety.unchecked) == (1440 + 4, 1440 + 4)
    assert gateway.days[-6].answered is None
    assert gateway.days[-3].answered == 99.72
    assert gateway.note == "29 Sep: not checked. 2 Oct: 4 min"


def test_an_open_gap_up_to_now_counts_too() -> None:
    hours, first = checked_since(1)
    del hours[HOUR], hours[HOUR - 1]
    report = rules.report(facts(latest=all_well(), checks={GATEWAY: hours}, since={GATEWAY: first}))
    assert report.periods[0].lost == 60 + 31


@pytest.mark.parametrize(
    ("looks", "state"),
    [
        (looked("+"), "normal"),
        (looked("-"), "disturbed"),
        (looked("+-"), "disturbed"),
        (looked("--"), "down"),
        (looked("-+"), "normal"),
        (looked("+", ago_s=200.0), "unknown"),
        ([], "unknown"),
    ],
)
def test_one_bad_look_disturbs_and_two_are_down(looks: list[Check], state: str) -> None:
    report = rules.report(facts(latest={**all_well(), "deepseek": looks}))
    assert component(report, "deepseek").state == state


@pytest.mark.parametrize(
    ("answered", "failed", "state"),
    [(19, 0, "normal"), (0, 19, "normal"), (20, 0, "normal"), (18, 2, "normal"), (15, 5, "disturbed"), (9, 11, "down")],
)
def test_requests_that_fail_tell_what_the_checks_do_not(answered: int, failed: int, state: str) -> None:
    counts = {Key(HOUR, "deepseek-chat", "deepseek"): Counts(answered=answered, failed=failed, refused=500)}
    report = rules.report(facts(latest=all_well(), hours=counts))
    assert component(report, "deepseek").state == state
    assert component(report, "deepseek-chat").state == state, "the only provider it has had requests at"


def test_a_model_is_as_well_as_the_best_of_its_providers() -> None:
    latest = {**all_well(), "deepseek": looked("--")}
    report = rules.report(facts(latest=latest))
    assert component(report, "deepseek").state == "down"
    assert component(report, "deepseek-chat").state == "normal"
    assert report.state == "normal", "no customer feels it"
    both = {**latest, "dashscope": looked("--")}
    report = rules.report(facts(latest=both))
    assert (component(report, "deepseek-chat").state, report.state) == ("down", "disturbed")
    assert report.headline == "1 of 1 models disturbed"


def test_a_provider_has_the_lower_of_its_checks_and_its_requests() -> None:
    hours, first = checked_since(2)
    hours[(DAY - 1) * 24] = Minutes(FULL, FULL & ~0b111111)
    days = {
        Key(DAY, "deepseek-chat", "deepseek"): Counts(answered=90, cut=4, failed=6, gone=50),
        Key(DAY - 1, "deepseek-chat", "deepseek"): Counts(answered=100),
        Key(DAY - 2, "deepseek-chat", "deepseek"): Counts(failed=19),
    }
    report = rules.report(facts(checks={"deepseek": hours}, since={"deepseek": first}, days=days))
    deepseek = component(report, "deepseek")
    assert [day.answered for day in deepseek.days[-3:]] == [100.0, 99.58, 90.0]
    assert deepseek.note == "3 Oct: 0.4 % lost. 4 Oct: 10.0 % lost"
    assert deepseek.answered_90 == 86.75, "190 of 219"


def test_a_minute_in_which_a_provider_was_not_asked_is_not_held_against_it() -> None:
    hours = {HOUR - 30: Minutes(0b11, 0b11)}
    report = rules.report(facts(checks={"deepseek": hours}, since={"deepseek": (HOUR - 30) * 60}))
    assert component(report, "deepseek").answered_90 == 100.0


def test_what_another_upstream_made_good_is_not_lost_and_is_told() -> None:
    days = {
        Key(DAY, "deepseek-chat", "deepseek"): Counts(answered=80),
        Key(DAY, "deepseek-chat", "dashscope"): Counts(answered=20, rescued=20),
    }
    report = rules.report(facts(days=days, last_day=days))
    assert component(report, "deepseek-chat").days[-1].answered == 100.0
    assert (report.rescued, report.failed) == (20.0, 0.0)


def test_what_fails_by_our_fault_is_told_and_not_held_against_a_provider() -> None:
    counts = {Key(DAY, "deepseek-chat", "deepseek"): Counts(answered=90, cut=2, failed=3, ours=5, gone=40, refused=7)}
    report = rules.report(facts(days=counts, last_day=counts))
    assert report.failed == 10.0
    assert component(report, "deepseek").days[-1].answered == 94.73


def test_what_is_not_offered_is_off_whatever_is_seen() -> None:
    report = rules.report(facts(days={Key(DAY, "kimi-k2", "moonshot"): Counts(failed=100)}))
    assert (component(report, "kimi-k2").state, component(report, "kimi-k2").note) == ("off", "not offered yet")


@pytest.mark.parametrize(
    ("incidents", "state", "headline"),
    [
        ([incident()], "down", "No answers"),
        ([incident("disturbance")], "disturbed", "No answers"),
        ([incident("notice")], "normal", "All systems normal"),
        ([incident(resolved_at=NOW_S - 1)], "normal", "All systems normal"),
        ([incident("disturbance"), msgspec.structs.replace(incident(), title="Worse")], "down", "Worse"),
    ],
)
def test_an_open_incident_is_the_headline(incidents: list[Incident], state: str, headline: str) -> None:
    report = rules.report(facts(latest=all_well(), incidents=incidents))
    assert (report.state, report.headline) == (state, headline)


def test_a_gateway_that_is_down_comes_before_all_incidents() -> None:
    latest = {**all_well(), GATEWAY: looked("--")}
    report = rules.report(facts(latest=latest, incidents=[incident("disturbance")]))
    assert (report.state, report.headline) == ("down", "The gateway does not answer")


def test_medians_are_over_all_that_serve_it() -> None:
    times = {("deepseek-chat", "deepseek"): {72: 9}, ("deepseek-chat", "dashscope"): {80: 1}}
    report = rules.report(facts(first_token=times, whole=times))
    assert component(report, "deepseek-chat").first_token_ms == 512
    assert component(report, "dashscope").whole_ms == 1024
    assert (report.first_token_ms, report.first_token_95_ms) == (512, 1024)


@given(st.integers(0, 10**9), st.integers(1, 10**9))
def test_less_than_all_is_never_told_as_all(part: int, whole: int) -> None:
    part = min(part, whole)
    percent = rules._percent(part, whole)
    assert 0 <= percent <= 100
    assert (percent == 100) == (part == whole)
    assert percent <= part / whole * 100 + 1e-9

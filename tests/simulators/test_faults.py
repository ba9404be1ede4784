"""Each fault bends an answer as its catalogue says, for streams and for whole answers."""

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vipcloud.simulators import faults
from vipcloud.simulators.faults import UnknownFault, parse
from vipcloud.simulators.script import End, Fault, Head, Wait, Whole, Write

USER = [{"role": "user", "content": "Count to 9"}]
STREAM = {"model": "glm-4-flash-250414", "messages": USER, "stream": True}
WHOLE = {"model": "glm-4-flash-250414", "messages": USER}


@pytest.fixture
def zhipu(bench):
    return bench("zhipu")


def test_arguments_are_filled_in() -> None:
    assert parse("cut:5, drip;hang") == (Fault("cut", ("5",)), Fault("drip", ("1", "1")), Fault("hang", ("3600",)))
    assert parse("") == ()


@pytest.mark.parametrize(
    "text", ["nonsense", "cut:x", "cut:-1", "status", "cut:1:2", "usage:odd", "stall::3", "hang:nan"]
)
def test_what_makes_no_sense_is_refused_with_what_would(text: str) -> None:
    with pytest.raises(UnknownFault):
        parse(text)


@settings(deadline=None)  # the machine is shared
@given(st.text(max_size=30))
def test_any_text_is_faults_or_refused(text: str) -> None:
    with contextlib.suppress(UnknownFault):
        assert all(fault.name in faults.CATALOGUE for fault in parse(text))


def test_every_fault_of_the_catalogue_is_put_to_use() -> None:
    by_the_provider = {"status", "code", "html", "finish", "usage"}
    by_the_application = {"none", "first", "close", "error"}
    assert set(faults.CATALOGUE) == set(faults.BENDERS) | by_the_provider | by_the_application


@pytest.mark.parametrize(("fault", "ended"), [("cut:3", End.ABORT), ("eof:3", End.FINISH)])
def test_a_stream_breaks_after_so_many_events(zhipu, fault: str, ended: End) -> None:
    reply = zhipu.call(STREAM, fault=fault)
    assert (len(reply.data), reply.ended) == (3, ended)


@pytest.mark.parametrize(("fault", "ended"), [("cut:1000", End.ABORT), ("eof:1000", End.FINISH)])
def test_a_broken_stream_never_has_its_finish_chunk(zhipu, fault: str, ended: End) -> None:
    reply = zhipu.call(STREAM, fault=fault)
    assert reply.text == "1, 2, 3, 4, 5, 6, 7, 8, 9"
    assert reply.ended is ended
    assert not any("finish_reason" in chunk["choices"][0] for chunk in reply.chunks)


def test_a_stream_can_break_before_its_first_event(bench) -> None:
    reply = bench("deepseek").call({**STREAM, "model": "deepseek-flash"}, fault="cut:0")
    assert (reply.status, reply.body, reply.ended) == (200, b"", End.ABORT)


@pytest.mark.parametrize(("fault", "ended"), [("cut", End.ABORT), ("eof", End.FINISH)])
def test_a_whole_answer_breaks_in_its_middle(zhipu, fault: str, ended: End) -> None:
    healthy = zhipu.call(WHOLE)
    reply = zhipu.call(WHOLE, fault=fault)
    assert (len(reply.body), reply.ended) == (len(healthy.body) // 2, ended)


def test_done_can_be_missing(zhipu) -> None:
    reply = zhipu.call(STREAM, fault="no-done")
    assert reply.chunks[-1]["choices"][0]["finish_reason"] == "stop"
    assert "[DONE]" not in reply.data


def test_waits_are_where_they_are_asked_for(zhipu) -> None:
    assert zhipu.call(STREAM, fault="hang:7").steps[0] == Wait(7)
    assert zhipu.call(WHOLE, fault="hang:7").steps[0] == Wait(7)
    for body in (STREAM, WHOLE):
        head, wait, write, *_ = zhipu.call(body, fault="hang-body:7").steps
        assert isinstance(head, Head)
        assert wait == Wait(7)
        assert isinstance(write, Write)
    stalled = zhipu.call(STREAM, fault="stall:2:7").steps
    assert stalled.index(Wait(7)) == 3


def test_an_event_can_be_broken_or_giant(zhipu) -> None:
    broken = zhipu.call(STREAM, fault="malformed:2")
    assert broken.data[2] == '{"id":"x","choices":[{"delta":{"con'
    assert broken.data[-1] == "[DONE]"
    assert max(map(len, zhipu.call(STREAM, fault="giant:5000").data)) > 5000


HEALTHY = "1, 2, 3, 4, 5, 6, 7, 8, 9"


@pytest.mark.parametrize("fault", ["drip:3:1", "utf8", "batch:4", "batch", "crlf", "comments:2", "keep-alive:1:250"])
def test_awkward_bytes_carry_the_same_answer(zhipu, fault: str) -> None:
    reply = zhipu.call(STREAM, fault=fault)
    assert (reply.text, reply.data[-1], reply.ended) == (HEALTHY, "[DONE]", End.FINISH)


def test_drip_and_batch_size_the_writes(zhipu) -> None:
    dripped = [step for step in zhipu.call(STREAM, fault="drip:3:5").steps if isinstance(step, Write)]
    assert max(len(step.data) for step in dripped) == 3
    assert {step.after_s for step in dripped} == {0.005}
    batched = [step for step in zhipu.call(STREAM, fault="batch").steps if isinstance(step, Write)]
    assert len(batched) == 1


def test_characters_are_split_across_writes(zhipu) -> None:
    body = {**STREAM, "messages": [{"role": "user", "content": "你好"}]}
    writes = [step.data for step in zhipu.call(body, fault="utf8").steps if isinstance(step, Write)]
    assert b"".join(writes).decode().count("data: ") > 5
    with pytest.raises(UnicodeDecodeError):
        writes[0].decode()


def test_lines_and_comments_come_before_an_answer(zhipu) -> None:
    assert zhipu.call(WHOLE, fault="blank:4").body.startswith(b"\n\n\n\n{")
    waiting = zhipu.call(WHOLE, fault="keep-alive:1:250")
    assert waiting.body.startswith(b"\n\n\n\n{")
    assert waiting.waited_s == 1.0
    assert zhipu.call(STREAM, fault="keep-alive:1:250").body.startswith(b": keep-alive\n\n" * 4 + b"data: ")


def test_a_header_and_a_page_can_be_added(zhipu) -> None:
    limited = zhipu.call(WHOLE, fault="status:429,retry-after:7")
    assert (limited.status, limited.headers["retry-after"]) == (429, "7")
    page = zhipu.call(WHOLE, fault="html:502")
    assert (page.status, page.headers["content-type"]) == (502, "text/html")


def test_without_faults_the_steps_are_the_same_object() -> None:
    steps = iter([Whole(200, (), b"")])
    assert faults.apply((), steps, b"") is steps


@settings(deadline=None)  # the machine is shared
@given(st.lists(st.sampled_from(sorted(faults.BENDERS)), max_size=4))
def test_faults_may_be_combined(names: list[str]) -> None:
    steps = [Head(200, ()), *(Write("data: é\n\n".encode(), "delta") for _ in range(5)), End.FINISH]
    asked = ",".join("giant:500" if name == "giant" else name for name in names)
    bent = list(faults.apply(parse(asked), iter(steps), b"data: x\n\n"))
    assert isinstance(bent[-1], End)
    assert sum(isinstance(step, Head) for step in bent) == ("reset" not in names)

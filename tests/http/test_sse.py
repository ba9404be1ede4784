"""Server-sent events from bytes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vipcloud.http.sse import BOM, Event, NamedEvent, SSEDecoder, StreamTooLarge

STREAM = (
    b'event: delta\r\ndata: {"a": 1}\r\n\r\n: keep-alive\n\ndata:{"b":\rdata:2}\r\r\n\n\n'
    b"id: 3\nretry: 5\ndata: \xc3\xa9\n\ndata: [DONE]\n\n"
)
EVENTS: list[Event] = [NamedEvent("delta", b'{"a": 1}'), b'{"b":\n2}', "é".encode(), b"[DONE]"]


def decoded(*reads: bytes, event_bytes_max: int = 1024) -> list[Event]:
    decoder = SSEDecoder(event_bytes_max)
    return [event for data in reads for event in decoder.feed(data)] + decoder.at_end()


@pytest.mark.parametrize(
    ("data", "events"),
    [
        (b"data: a\n\n", [b"a"]),
        (b"data:a\n\n", [b"a"]),
        (b"data:  a\n\n", [b" a"]),
        (b"data: a\n\ndata: b\n\n", [b"a", b"b"]),
        (b"data: a\r\n\r\ndata: b\r\n\r\n", [b"a", b"b"]),
        (b"data: a\r\rdata: b\r\r", [b"a", b"b"]),
        (b"data: a\ndata: b\n\n", [b"a\nb"]),
        (b"data\ndata: b\n\n", [b"\nb"]),
        (b": comment\n\n: another\ndata: a\n\n", [b"a"]),
        (b"id: 1\nretry: 10\nfoo: bar\n:x\ndata: a\n\n", [b"a"]),
        (b"event: ping\n\n", []),
        (b"event: error\ndata: {}\n\ndata: a\n\n", [NamedEvent("error", b"{}"), b"a"]),
        (b"event: message\ndata: a\n\n", [b"a"]),
        (b"id:1\nevent:result\n:HTTP_STATUS/200\ndata:{}\n\n", [NamedEvent("result", b"{}")]),
        (BOM + b"data: a\n\n", [b"a"]),
        (b"\n\n\n\ndata: a\n\n\n\n\ndata: b\n\n\n", [b"a", b"b"]),
        (b'{"error": 1}\n\n', [b'{"error": 1}']),
        (b"data: \xe2\x80\xa8\x0b\x0c\x85\n\n", [b"\xe2\x80\xa8\x0b\x0c\x85"]),
        (b"data: \n\n", [b""]),
        (b"", []),
    ],
)
def test_events_are_found_in_every_form(data: bytes, events: list[Event]) -> None:
    assert decoded(data) == events


def test_any_cut_of_the_bytes_gives_the_same_events() -> None:
    assert decoded(STREAM) == EVENTS
    for first in range(len(STREAM)):
        for second in range(first, len(STREAM)):
            assert decoded(STREAM[:first], STREAM[first:second], STREAM[second:]) == EVENTS, (first, second)
    assert decoded(*(bytes([byte]) for byte in STREAM)) == EVENTS


@given(
    st.lists(st.sampled_from([b"\n", b"\r", b"\r\n", b"data: x", b"data:", b"event: e", b": c", b"{}", BOM])), st.data()
)
def test_cuts_do_not_matter_in_any_mixture_of_lines(pieces: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(pieces)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=4)))
    reads = [stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert decoded(*reads) == decoded(stream)


@given(st.lists(st.sampled_from([b"data: a\n\n", b"data: \n\n", b"data: b", b"\n", b": c\n\n", b"event: e\n", b"{}"])))
def test_events_of_one_read_are_those_that_come_one_by_one(pieces: list[bytes]) -> None:
    stream = b"".join(pieces)
    blocks = stream.split(b"\n\n")[:-1]
    single = [event for block in blocks for event in SSEDecoder(1024).feed(block + b"\n\n")]
    assert SSEDecoder(1024).feed(stream) == single


@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n"])
def test_an_event_comes_out_as_soon_as_its_blank_line_is_in(end: bytes) -> None:
    decoder = SSEDecoder(1024)
    assert decoder.feed(b"data: a") == []
    assert decoder.feed(end) == [b"a"]


def test_with_lone_returns_the_second_one_ends_the_event() -> None:
    decoder = SSEDecoder(1024)
    assert decoder.feed(b"data: a\r\r") == [b"a"]
    assert decoder.feed(b"") == []
    assert decoder.feed(b"\ndata: b\r\r") == [b"b"]


def test_what_no_blank_line_closed_is_handed_out_at_the_end_and_only_once() -> None:
    decoder = SSEDecoder(1024)
    assert decoder.feed(b"data: a\n\ndata: [DO") == [b"a"]
    assert decoder.feed(b"NE]\n") == []
    assert decoder.at_end() == [b"[DONE]"]
    assert decoder.at_end() == []


@pytest.mark.parametrize("size", [15, 16, 17, 18])
@pytest.mark.parametrize("end", [b"\n\n", b"\ndata: b\n\n"])
def test_an_event_above_the_limit_is_refused_wherever_it_is_cut(size: int, end: bytes) -> None:
    stream = b"data: a\n\n" + b"data: ".ljust(size - len(end), b"x") + end + b"data: c\n\n"
    for cut in range(len(stream)):
        if size <= 16:
            assert len(decoded(stream[:cut], stream[cut:], event_bytes_max=16)) == 3
        else:
            with pytest.raises(StreamTooLarge):
                decoded(stream[:cut], stream[cut:], event_bytes_max=16)
    if size > 16:
        with pytest.raises(StreamTooLarge):
            decoded(*(bytes([byte]) for byte in stream), event_bytes_max=16)


def test_an_endless_event_is_refused_before_it_fills_memory() -> None:
    decoder = SSEDecoder(1000)
    for _ in range(99):
        assert decoder.feed(b"x" * 10) == []
    with pytest.raises(StreamTooLarge):
        decoder.feed(b"x" * 10)


def test_comments_of_any_number_pass_under_a_small_limit() -> None:
    assert decoded(*([b": keep-alive\n\n"] * 100), b"data: a\n\n", event_bytes_max=32) == [b"a"]

"""Events that are recognised instead of decoded say what decoding says."""

import json

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from vipcloud.providers.event_shapes import TRIES_MAX, EventShape
from vipcloud.providers.wire import decode_reasoning_chunk, decode_text_chunk

MODEL = "deepseek-chat"


def event(text: str, *, escaped: bool = False, key: str = "content", **more: object) -> bytes:
    """As DeepSeek writes them."""
    choice = {"index": 0, "delta": {key: text}, "logprobs": None, "finish_reason": None} | more
    said = {"id": "5f0a", "object": "chat.completion.chunk", "created": 1795000000, "model": MODEL, "choices": [choice]}
    return json.dumps(said, ensure_ascii=escaped, separators=(",", ":")).encode("utf-8", "surrogatepass")


def learned(*texts: str) -> EventShape:
    shape = EventShape(decode_text_chunk)
    for text in texts:
        assert shape.decode_and_learn(event(text)) == text
    return shape


@given(st.text(min_size=1), st.booleans())
@example(text='say "no"', escaped=False)
@example(text="back\\slash", escaped=False)
@example(text="line\nend", escaped=False)
@example(text="\u2028\u200d\x7f", escaped=False)
@example(text="你好", escaped=True)
def test_what_is_recognised_is_what_decoding_says(text: str, escaped: bool) -> None:
    shape = learned("Hello")
    raw = shape.recognise(event(text, escaped=escaped))
    if raw is None:
        assert escaped or not text.isprintable() or set(text) & set('"\\'), "plain text is recognised"
    else:
        assert shape.text == text
        assert b'"%b"' % raw == msgspec.json.encode(text)


@given(st.binary(max_size=40))
def test_bytes_between_are_a_text_or_decoded(between: bytes) -> None:
    shape = learned("Hello")
    said = event("Hello").replace(b"Hello", between)
    if shape.recognise(said) is not None:
        assert decode_text_chunk(said).choices[0].delta.text == shape.text


@pytest.mark.parametrize(
    "other",
    [
        event("Hello", finish_reason="stop"),
        event("Hello", key="reasoning_content"),
        event("Hello").replace(b"5f0a", b"5f0b"),
        event("Hello") + b" ",
        event(""),
        b"",
        b"[DONE]",
        b'{"error":{"message":"Hello"}}',
    ],
)
def test_another_event_is_not_recognised(other: bytes) -> None:
    assert learned("Hello").recognise(other) is None


def test_nothing_is_recognised_before_it_was_learned() -> None:
    assert EventShape(decode_text_chunk).recognise(event("Hello")) is None
    assert EventShape(decode_text_chunk).decode_and_learn(event("Hello", finish_reason="stop")) is None


def test_a_text_that_stands_elsewhere_too_teaches_nothing_wrong() -> None:
    shape = learned(MODEL, "chat.completion.chunk")
    assert shape.recognise(event("Hello")) is None
    shape = learned(MODEL, "Hello")
    assert shape.recognise(event(MODEL)) is not None
    assert shape.text == MODEL


def test_a_new_shape_is_learned_as_long_as_there_are_tries() -> None:
    shape = EventShape(decode_text_chunk)
    for number in range(TRIES_MAX + 1):
        changed = event("Hello").replace(b"5f0a", b"%d" % number)
        assert shape.recognise(changed) is None
        assert shape.decode_and_learn(changed) == "Hello"
        assert (shape.recognise(changed) is not None) == (number < TRIES_MAX)


def test_reasoning_is_recognised_as_text_is() -> None:
    shape = EventShape(decode_reasoning_chunk)
    assert shape.decode_and_learn(event("Hmm", key="reasoning_content")) == "Hmm"
    assert shape.recognise(event("so", key="reasoning_content")) == b"so"
    assert shape.recognise(event("so")) is None

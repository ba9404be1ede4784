"""Whole replies that are recognised instead of decoded say what decoding says."""

import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from vipcloud.dialects.replies import Reply
from vipcloud.dialects.text_reply import TextReply
from vipcloud.providers import reply
from vipcloud.providers.reply_shapes import LEARNED_BYTES_MAX, SHAPES_MAX, VALUES_MAX, WORTH_HITS, ReplyShapes

WIRE = Path(__file__).parent / "wire"
TOKENS_MAX = 1000
TEXT = b"Hello there."
ODD = (  # the same key twice, a count in both of its places, counts before the text, what only looks like a count
    b'{"usage":{"prompt_tokens":3,"prompt_tokens":4,"completion_tokens":5,"completion_tokens_details":'
    b'{"reasoning_tokens":5},"cached_tokens":2,"prompt_tokens_details":{"cached_tokens":1}}, "prompt_tokens": 7,\n'
    b'"id":"a","choices":[{"index":0,"message":{"id":"","index":1,"content":"Hi","content":"Hello there."},'
    b'"finish_reason":"length"}],"base_resp":{"status_code":0},"created":1.5,"n":[1,-2,1e3,{"id":7}]}'
)


def wire(name: str) -> bytes:
    """A provider's own reply, saying `TEXT`."""
    _, _, body = (WIRE / f"{name}.http").read_bytes().partition(b"\n\n")
    return re.sub(rb'"content":"[^"]*"', b'"content":"Hello there."', body)


BODIES = {
    "deepseek": wire("deepseek-text"),
    "zhipu": wire("zhipu-text"),
    "moonshot": wire("moonshot-text"),
    "dashscope": wire("dashscope-text"),
    "minimax": re.sub(rb',"reasoning_content.*?\}\]', b"", wire("minimax-reasoning-and-text")),
    "odd": ODD,
}
BODY = pytest.mark.parametrize("body", BODIES.values(), ids=list(BODIES))
DEEPSEEK = BODIES["deepseek"]


def read(body: bytes, shapes: ReplyShapes) -> TextReply | None:
    return reply.read_text(body, "chatcmpl-ours", b'"vip"', 1_795_000_000, shapes, TOKENS_MAX)


def recognised(body: bytes, shapes: ReplyShapes) -> TextReply | None:
    return shapes.read(body.lstrip(b"\n"), "chatcmpl-ours", b'"vip"', 1_795_000_000, TOKENS_MAX)


def learned(*bodies: bytes) -> ReplyShapes:
    shapes = ReplyShapes()
    for body in bodies:
        assert read(body, shapes) is not None
    return shapes


def said(text: TextReply | None) -> tuple[Reply, object] | None:
    """All of it. What is sent must be what `whole` is, whoever has escaped it."""
    return text and (text.whole(), json.loads(text.encode()))


def check(body: bytes, shapes: ReplyShapes) -> bool:
    """Whether it was recognised; it must be read as it is decoded."""
    found = recognised(body, shapes)
    if found is not None:
        assert said(found) == said(read(body, ReplyShapes()))
    return found is not None


def put(body: bytes, key: str, value: bytes, count: int = 0) -> bytes:
    """With another value of that key, the first `count` times or wherever it stands."""
    return re.sub(rb'("%b":\s*)("[^"]*"|[0-9]+)' % key.encode(), lambda found: found[1] + value, body, count=count)


@BODY
def test_a_reply_that_differs_in_what_varies_is_recognised(body: bytes) -> None:
    shapes = learned(body)
    other = put(put(body, "content", b'"say \\"no\\", \\u00e9, \xc3\xa9"'), "prompt_tokens", b"900")
    other = put(put(other, "completion_tokens", b"77"), "cached_tokens", b"9")
    assert check(body, shapes)
    assert check(other, shapes) == (body != ODD), "the ignored one of its two contents has another length"
    given = re.search(rb'"id":"([^"]*)"', body)
    assert given is not None
    assert check(put(body, "id", b'"%b"' % (b"z" * len(given[1])), count=1), shapes)


@BODY
@given(text=st.text(min_size=1), ascii_only=st.booleans())
@example(text='"},"logprobs":null,"finish_reason":"stop"}],"usage":{"prompt_tokens":13', ascii_only=False)
def test_any_text_is_recognised(body: bytes, text: str, ascii_only: bool) -> None:
    shapes = learned(body)
    raw = json.dumps(text, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    changed = body.replace(b'"Hello there."', raw)
    found = recognised(changed, shapes)
    assert check(changed, shapes) == (found is not None)
    whole = not re.search("[\ud800-\udfff]", text)
    if whole and b'"' not in raw[1:-1]:
        assert found is not None
        assert (found.content, found.raw) == (text, raw)
    if not whole:
        assert found is None


NUMBERS = [b"0", b"1", b"5", b"13", b"999", b"1001", b"9" * 15, b"9" * 16, b"9" * 40, b"01", b"00", b"", b"-1", b"1.0"]
NUMBERS += [b"1e3", b"1E0", b"null", b"true", b'"5"', b"5 ", b" 5", b"[5]", b"{}", b"+5", b"0x1", b"\xd9\xa3", b"5,5"]
STRINGS = [b'""', b'"x"', b'"stop"', b'"length"', b'"tool_calls"', b"null", b"7", b'"\\ud800"', b'"\\udc00\\ud800"']
STRINGS += [b'"\\', b'"\\"', b'"a\nb"', b'"\xff"', b'"\xed\xa0\x80"', b'"\\x41"', b'"\\u12"', b'"a"b"', b'"a","b":"c"']
STRINGS += [
    b'"a","reasoning_content":"b"',
    b'"a","content":"b"',
    b'"a","error":{"code":1},"id":"b"',
    b'["a"]',
    b'"a\x7f"',
]
STRINGS += [b'"a"},"finish_reason":"stop"},{"message":{"content":"b"', b'"a","tool_calls":[{"id":"b"}]', b'"\x00"']
VALUES = (
    st.sampled_from(NUMBERS + STRINGS) | st.text().map(lambda text: json.dumps(text).encode()) | st.binary(max_size=6)
)


@BODY
@given(data=st.data())
def test_whatever_is_put_in_any_place_is_read_as_it_is_decoded(body: bytes, data: st.DataObject) -> None:
    shapes = learned(body)
    pieces = re.findall(rb'"[^"]*"|[-+.\w]+|.|\s', body, re.DOTALL)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(pieces) - 1))
        how = data.draw(st.sampled_from(("value", "value", "value", "insert", "delete", "double")))
        value = data.draw(VALUES)
        pieces[place] = {"value": value, "insert": value + pieces[place], "delete": b"", "double": 2 * pieces[place]}[
            how
        ]
    check(b"".join(pieces), shapes)


@BODY
@pytest.mark.parametrize("character", [b"\n", b"\x00", b"\xff", b"\\", b'"', b"\x7f", b"z"])
def test_an_id_of_the_same_length_is_read_as_it_is_decoded(body: bytes, character: bytes) -> None:
    shapes = learned(body)
    for found in re.finditer(rb'"(?:request_)?id":"([^"]+)"', body):
        begin, end = found.span(1)
        check(body[:begin] + character * (end - begin) + body[end:], shapes)
        assert check(body[: end - 1] + character + body[end:], shapes) == (character in b"z\x7f")


VARYING = rb'"(?:id|content|request_id)":\s*("[^"]*")|"(?:\w+tokens|created|status_code|index)":\s*([0-9]+)'


@BODY
@pytest.mark.parametrize("value", [*NUMBERS, *STRINGS])
def test_each_value_by_itself_is_read_as_it_is_decoded(body: bytes, value: bytes) -> None:
    shapes = learned(body)
    for found in re.finditer(VARYING, body):
        begin, end = found.span(found.lastindex or 0)
        check(body[:begin] + value + body[end:], shapes)


@given(st.lists(st.tuples(st.sampled_from(["prompt", "completion", "cached", "reasoning"]), st.integers(0, 1200))))
def test_counts_are_believed_by_the_same_rules(counts: list[tuple[str, int]]) -> None:
    body = BODIES["moonshot"]
    shapes = learned(body)
    changed, zero = body, False
    for key, count in counts:
        changed = re.sub(rb'"%b_tokens":[0-9]+' % key.encode(), b'"%b_tokens":%d' % (key.encode(), count), changed)
    zero = b'prompt_tokens":0' in changed or b'completion_tokens":0' in changed
    assert check(changed, shapes) == (not zero)


def test_counts_that_contradict_each_other_are_none() -> None:
    found = recognised(put(DEEPSEEK, "prompt_cache_hit_tokens", b"14"), learned(DEEPSEEK))
    assert found is not None
    assert found.used is None


@BODY
def test_what_was_equal_when_it_was_learned_is_told_apart(body: bytes) -> None:
    same = re.sub(rb'("\w*tokens":)[0-9]+', rb"\g<1>1", body)
    shapes = learned(same)
    assert check(same, shapes)
    assert check(body, shapes) == (body != ODD), "the first of its two counts of the prompt may be no zero, so stays"


def test_the_count_that_is_read_is_the_one_that_decoding_reads() -> None:
    shapes = learned(ODD)
    found = recognised(put(ODD.replace(b'"cached_tokens":2', b'"cached_tokens":0'), "reasoning_tokens", b"3"), shapes)
    assert found is not None
    assert found.used is not None
    assert (found.used.prompt, found.used.completion, found.used.cached, found.used.reasoning) == (4, 5, 1, 3)


CHANGES: dict[str, Callable[[bytes], bytes]] = {
    "another ending": lambda body: body.replace(b'"stop"', b'"length"'),
    "an id of another length": lambda body: put(body, "id", b'"short"'),
    "white space": lambda body: body.replace(b",", b", ", 1),
    "white space at the end": lambda body: body + b"\n",
    "something behind": lambda body: body + b"{}",
    "a part": lambda body: body[:-1],
    "an error": lambda body: body.replace(b'"choices"', b'"error":{"code":1},"choices"'),
    "two choices": lambda body: body.replace(b'"choices":[', b'"choices":[{"message":{"content":"b"}},'),
    "a key twice": lambda body: body.replace(b'"usage"', b'"usage":{},"usage"'),
    "no text": lambda body: body.replace(b'"Hello there."', b'""'),
    "null": lambda body: body.replace(b'"Hello there."', b"null"),
    "reasoning": lambda body: body.replace(b'"content"', b'"reasoning_content":"Hm.","content"'),
    "nothing": lambda body: b"",
    "line ends": lambda body: b"\n\n",
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=list(CHANGES))
def test_what_differs_elsewhere_is_decoded(change: Callable[[bytes], bytes]) -> None:
    shapes = learned(DEEPSEEK)
    assert recognised(change(DEEPSEEK), shapes) is None
    assert said(read(change(DEEPSEEK), shapes)) == said(read(change(DEEPSEEK), ReplyShapes()))


def test_keep_alive_lines_make_no_difference() -> None:
    shapes = learned(DEEPSEEK.strip())
    assert recognised(b"\n\n\n" + DEEPSEEK.strip(), shapes) is not None
    assert read(b"\n\n\n" + DEEPSEEK.strip(), shapes) is not None


def test_what_is_kept_as_it_came_does_not_vary() -> None:
    details = b'"reasoning_details":[{"id":"a","text":"","index":0}],"content"'
    body = DEEPSEEK.replace(b'"content"', details)
    shapes = learned(body)
    assert check(body.replace(b"Hello", b"Bye"), shapes)
    assert not check(body.replace(b'"id":"a"', b'"id":"b"'), shapes)


@pytest.mark.parametrize("text", [b"vipcloud's probe", b"vipcloud\\u0027s probe", b"deepseek-chat", b"content", b"id"])
def test_a_text_that_may_be_taken_for_something_else_teaches_nothing_wrong(text: bytes) -> None:
    shapes = learned(DEEPSEEK.replace(TEXT, text))
    check(DEEPSEEK.replace(TEXT, b"x" * len(text)), shapes)
    check(DEEPSEEK, shapes)


def test_a_reply_with_reasoning_teaches_nothing() -> None:
    body = wire("minimax-reasoning-and-text")
    assert recognised(body, learned(body)) is None


@pytest.mark.parametrize(
    "vendor",
    [
        b'"web_search":[{"title":"What was asked"}]',
        b'"web_search":["What was asked"]',
        b'"object":"x","note":"What was asked"',
        b'"quote":"What was \\"asked\\""',
    ],
)
def test_a_reply_with_texts_that_are_no_names_teaches_nothing(vendor: bytes) -> None:
    """A shape outlives its request, and what was answered may not."""
    body = DEEPSEEK.rstrip()[:-1] + b"," + vendor + b"}"
    assert read(body, ReplyShapes()) is not None
    assert recognised(body, learned(body)) is None
    assert learned(body)._shapes == []


def test_a_long_reply_teaches_nothing() -> None:
    body = DEEPSEEK.replace(b"Hello", b"Hello" * LEARNED_BYTES_MAX)
    assert recognised(body, learned(body)) is None
    assert recognised(body, learned(DEEPSEEK)) is not None


@pytest.mark.parametrize(("numbers", "is_learned"), [(10, True), (VALUES_MAX, False), (5000, False)])
def test_a_reply_of_many_values_teaches_nothing(numbers: int, is_learned: bool) -> None:
    """Each of them costs up to two decodings of the whole, on the loop."""
    scores = b'"scores":[%b],"choices"' % b",".join([b"7"] * numbers)
    body = DEEPSEEK.replace(b'"choices"', scores, 1)
    assert len(body) <= LEARNED_BYTES_MAX
    shapes = learned(body)
    assert check(body, shapes) == is_learned


def test_shapes_of_two_upstreams_are_two() -> None:
    first, second = learned(DEEPSEEK), learned(BODIES["zhipu"])
    assert recognised(BODIES["zhipu"], first) is recognised(DEEPSEEK, second) is None


def numbered(number: int) -> bytes:
    """Each of another shape."""
    return DEEPSEEK.replace(b"fp_", b"fp_%d" % number)


def taught(shapes: ReplyShapes, numbers: Iterable[int]) -> list[int]:
    """Which of those replies were learned from when they came."""
    taught = []
    for number in numbers:
        read(numbered(number), shapes)
        if recognised(numbered(number), shapes) is not None:
            taught.append(number)
    return taught


def test_several_shapes_are_known_at_a_time_the_last_used() -> None:
    shapes = learned(numbered(0))
    for number in range(1, SHAPES_MAX + 1):
        while recognised(numbered(number), shapes) is None:
            assert read(numbered(number), shapes) is not None
        assert recognised(numbered(0), shapes) is not None, "it is in use"
    assert [recognised(numbered(number), shapes) is None for number in range(3)] == [False, True, False]


def test_what_does_not_pay_is_learned_ever_more_rarely() -> None:
    assert taught(ReplyShapes(), range(1, 100)) == [1, 3, 7, 15, 31, 63]


def test_what_has_paid_is_followed_by_the_next_at_once() -> None:
    shapes = learned(*map(numbered, range(3)))
    for _ in range(WORTH_HITS):
        assert read(numbered(2), shapes) is not None
    for number in range(10, 14):
        read(numbered(number), shapes)
    assert recognised(numbered(13), shapes) is not None
    read(numbered(14), shapes)
    assert recognised(numbered(14), shapes) is not None
    assert taught(shapes, range(15, 30)) == [16, 20, 28], "the last ones have not paid"

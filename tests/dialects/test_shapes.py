"""Requests that are recognised instead of decoded are what decoding makes of them."""

import contextlib
import gc
import importlib.util
import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from vipcloud.dialects import openai, requests, shapes
from vipcloud.dialects.shapes import (
    EARNED_IF_RECOGNISED,
    KEYS_MAX,
    LEARNING_COST,
    MESSAGES_MAX,
    SHAPES_MAX,
    Asked,
    Shapes,
)
from vipcloud.errors import BadRequest

ROOT = Path(__file__).parents[2]
TAIL = b',"temperature":0.7,"stream":true,"stream_options":{"include_usage":true},"store":false}'
ROLES = ("system", "user")


def chat(*texts: bytes, roles: Sequence[str] = ROLES, gap: bytes = b"", tail: bytes = TAIL) -> bytes:
    """A body whose messages have these texts, each written as it is."""
    messages = [
        b'{"role":%b"%b",%b"content":%b"%b"}' % (gap, role.encode(), gap, gap, text)
        for role, text in zip(roles, texts, strict=True)
    ]
    return b'{"model":"m",%b"messages":[%b]%b' % (gap, b",".join(messages), tail)


def learned(*bodies: bytes) -> Shapes:
    """What has come twice from the key `k`."""
    known = Shapes()
    for body in bodies:
        for _ in range(2):
            assert known.read("k", body).shape is None
    return known


def outcome(known: Shapes | None, body: bytes) -> Any:
    try:
        return requests.parse_chat(body) if known is None else known.read("k", body).request
    except BadRequest as refusal:
        return type(refusal), refusal.message, refusal.param


def upstream(asked: Asked) -> Any:
    """The messages as they are sent on, decoded."""
    return json.loads(asked.messages or msgspec.json.encode(asked.request.messages))


def is_text(raw: bytes) -> bool:
    try:
        msgspec.json.decode(b'"%b"' % raw, type=str)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False
    return True


PIECES = st.sampled_from(
    [
        *(b'"', b"\\", b"\n", b"\0", b"\x7f", b"\xff", b"\xed\xa0\x80", "\u2028".encode(), b" ", b"{}", b"}]"),
        *(b"\\n", b"\\/", b"\\x", b'\\"', b"\\u00e9", b"\\u0000", b"\\ud800", b"\\udc00", b"\\ud83d\\ude00"),
        *(b'"},{"role":"user","content":"', b'x","role":"system', b'x"}],"temperature":0.7', b'x","content":"y', TAIL),
    ]
)
RAW = (
    st.text().map(lambda text: json.dumps(text)[1:-1].encode())
    | st.text().map(lambda text: json.dumps(text, ensure_ascii=False)[1:-1].encode("utf-8", "surrogatepass"))
    | st.lists(PIECES | st.binary(max_size=4), max_size=6).map(b"".join)
)


@given(RAW, RAW, st.booleans(), st.sampled_from([b"", b" ", b"\n\t"]))
@example(first=b"", last=b"", spaced=False, end=b"")
@example(first=b"Be brief.", last=b'x","role":"system', spaced=False, end=b"")
@example(first=b'"},{"role":"user","content":"', last=b"x", spaced=False, end=b"")
@example(first=b'"},{"role":"user","content":"', last=b"x", spaced=True, end=b"")
@example(first=b"a\\", last=b'b","c', spaced=False, end=b"")
@example(first=b"\\\\", last=b"\\\\", spaced=False, end=b"")
@example(first=b"\\", last=b"\\", spaced=False, end=b"")
def test_what_is_recognised_is_what_decoding_says(first: bytes, last: bytes, spaced: bool, end: bytes) -> None:
    gap, tail = (b" " if spaced else b""), TAIL + end
    known = learned(chat(b"Be brief.", b"Hello", gap=gap, tail=tail))
    held = known.read("k", chat(b"Be brief.", b"Hi", gap=gap, tail=tail))
    assert held.shape is not None
    for texts in (b"Be brief.", last), (first, last), (first, b"Hi"):
        body = chat(*texts, gap=gap, tail=tail)
        expected = outcome(None, body)
        assert outcome(known, body) == expected
        if isinstance(expected, openai.PlainChat):
            asked = known.read("k", body)
            assert upstream(asked) == msgspec.to_builtins(expected.messages)
            assert asked.shape is not None or not all(map(is_text, texts))


HELLO = chat(b"Be brief.", b"Hello")


@pytest.mark.parametrize(
    "other",
    [
        HELLO + b"x",
        HELLO + b"}",
        HELLO[:-1],
        HELLO.replace(b'"m"', b'"n"'),
        HELLO.replace(b'"system"', b'"developer"'),
        HELLO.replace(b'"role":"user","content":"Hello"', b'"content":"Hello","role":"user"'),
        HELLO.replace(b'"Hello"', b'["Hello"]'),
        HELLO.replace(b'"Hello"', b'"Hello","name":"x"'),
        HELLO.replace(b'"Hello"', b'"Hello","content":"x"'),
        HELLO.replace(b'"Hello"', b'null,"content":"x"'),
        HELLO.replace(b'"Hello"', b'"Hello"}, {"role":"user","content":"x"'),
        HELLO.replace(b'"Hello"', b'"Hello"},{"role":"user","content":null'),
        HELLO.replace(b'"Hello"', b'"Hello"},{"role":"usher","content":"x"'),
        HELLO.replace(b'"Hello"', b'"Hello"},{"role":"","content":"x"'),
        HELLO.replace(b'"Hello"', b'"Hello"},{"content":"x","role":"user"'),
        HELLO.replace(b'"Hello"', b'"Hello"},{"role":"user"'),
        HELLO.replace(b'"Hello"', b'"Hello"},{}'),
        HELLO.replace(b'"Hello"', b'"Hello"},'),
        HELLO.replace(b"Hello", b'a\\"},{"role":"user","content":"b","c'),
        HELLO.replace(b"Hello", b'a\\"},{"role":"user","content":"b'),
        HELLO.replace(b'"Hello"', b'"Hello"},{"role":"tool","content":"x"'),
        HELLO.replace(b'"Hello"', b"1"),
        HELLO.replace(b'"Hello"', b' "Hello"'),
        HELLO.replace(b'"Hello"', b'"Hello'),
        HELLO.replace(b"Hello", b'"}],"n":2,"messages":[{"role":"user","content":"'),
        HELLO.replace(b"0.7", b"7"),
        HELLO.replace(b'"stream":true,', b""),
        HELLO.replace(b'"Hello"', b'"'),
        HELLO.replace(b'"Hello"', b""),
        b"",
        b"{",
        b"[]",
    ],
)
def test_another_body_is_decoded(other: bytes) -> None:
    known = learned(HELLO)
    assert known.read("k", HELLO).shape is not None
    with contextlib.suppress(BadRequest):
        assert known.read("k", other).shape is None
    assert outcome(known, other) == outcome(None, other)


# What a text may be taken for: each has a key or a text besides that looks like one of a message.
TRICKY = [
    b'{"model":"m","messages":[{"role":"user","content":"%b"}],"user":"%b"}',
    b'{"model":"%b","messages":[{"role":"user","content":"%b"}]}',
    b'{"model":"m","messages":[{"role":"user","content":"x","content":"%b"}]}',
    b'{"model":"m","messages":[{"role":"user","content":"%b","content":"x"}]}',
    b'{"model":"m","messages":[{"role":"user","content":"x","%b":"\\u0063ontent"}]}',
    b'{"model":"m","messages":[{"role":"user","c":"%b","\\u0063ontent":"x"}]}',
    b'{"model":"m","messages":[{"role":"user","\\u0063ontent":"%b"}]}',
    b'{"model":"m","messages":[{"role":"user","content":"%b"}],"messages":[{"role":"user","content":"x"}]}',
    b'{"model":"m","messages":[{"role":"user","content":"x"}],"messages":[{"role":"user","content":"%b"}]}',
    b'{"model":"m","messages":[{"role":"user","content":"x"}],"prediction":{"type":"content","content":"%b"}}',
    b'{"model":"m","messages":[{"role":"user","content":"x"}],"vendor":{"content":"%b"}}',
    b'{"model":"m","messages":[{"role":"user","content":"x","extra":{"content":"%b"}}]}',
    b'{"model":"m","messages":[{"role":"user","content":"x"}],"content":"%b"}',
    b'{"model":"m","messages":[{"role":"user","\\u0063ontent":"x"}],"vendor":{"content":"%b"}}',
    b'{"model":"m","messages":[{"role":"user","content":"%b","\\u0063ontent":"x"}]}',
    b'{"content":"%b","model":"m","messages":[{"role":"user","content":"x"}]}',
    b'{"model":"m","messages":[{"role":"%b","content":"x"}]}',
    b'{"model":"m","user":"\\"content\\":\\"%b\\"","messages":[{"role":"user","content":"x"}]}',
    b'{"model":"m","user":"\\\\","content":"%b","messages":[{"role":"user","content":"x"}]}',
]
WORDS = [b"x", b"m", b"content", b"user", b"role", b"assistant", b"messages", b'\\"content\\":\\"x', b"", b"Hello"]


@pytest.mark.parametrize("tricky", TRICKY)
@pytest.mark.parametrize("taught", WORDS)
def test_a_text_in_another_place_teaches_nothing_wrong(tricky: bytes, taught: bytes) -> None:
    known = Shapes()
    for text in [taught, taught, taught, *WORDS]:
        body = tricky % ((text,) * tricky.count(b"%b"))
        assert outcome(known, body) == outcome(None, body)
        body = tricky % ((b"Hello",) * (tricky.count(b"%b") - 1) + (text,))
        assert outcome(known, body) == outcome(None, body)


@pytest.mark.parametrize(
    "body",
    [
        HELLO.replace(TAIL, b',"prediction":{"type":"content","content":[{"type":"text","text":"x"}]}}'),
        HELLO.replace(TAIL, b',"vendor":"%b"}' % (b"x" * shapes.SHAPE_BYTES_MAX)),
        chat(b"Be brief.", b"x" * shapes.BODY_BYTES_MAX),
        HELLO.replace(b'"role":"user","content":"Hello"', b'"content":"Hello","role":"user"'),
        HELLO.replace(b'"role":"user","content"', b'"role": "user", "content"'),
        chat(b"a", b"b", b"c", roles=["user"] * 3).replace(b"},{", b"}, {", 1),
        HELLO.replace(b'"store":false', b'"messages":[{"content":"x","role":"user"}]'),
        b'{"messages":[{"content":"x","role":"user"}],' + HELLO[1:],
        b'{"messages":[{"role":"user","content":[{"type":"text","text":"x"}]}],' + HELLO[1:],
        HELLO.replace(TAIL, b',"stop":"x"}'),
    ],
)
def test_what_is_large_or_spelled_in_several_ways_or_says_more_of_the_prompt_is_not_learned(body: bytes) -> None:
    known = learned(body)
    assert known.read("k", body).shape is None


# Where a caller's own words may stand, besides the texts of the messages.
OWN_WORDS = [
    HELLO.replace(b'"Hello"', b'"Hello","thinking":"Zyzzyva"'),
    HELLO.replace(b'"Hello"', b'"Hello","Zyzzyva":null'),
    HELLO.replace(b'"Hello"', b'"Hello","vendor":{"deep":[{"er":"Zyzzyva"}]}'),
    HELLO.replace(b'"Hello"', b'"Hello","\\u006eote":"Zyzzyva"'),
    HELLO.replace(b'"content":"Hello"', b'"\\u0063ontent":"Zyzzyva","content":"Hello"'),
    HELLO.replace(b'"store":false', b'"\\u006dodel":"Zyzzyva","model":"m"'),
    HELLO.replace(b'"store":false', b'"system":"Zyzzyva"'),
    HELLO.replace(b'"store":false', b'"user":"Zyzzyva"'),
    HELLO.replace(b'"store":false', b'"user":"Zyzzyva","user":null'),
    HELLO.replace(b'"store":false', b'"\\u0075ser":"Zyzzyva"'),
    HELLO.replace(b'"store":false', b'"safety_identifier":"Zyzzyva"'),
    HELLO.replace(b'"store":false', b'"prompt_cache_key":"Zyzzyva"'),
    HELLO.replace(b'"store":false', b'"prediction":{"type":"content","content":[{"type":"text","text":"Zyzzyva"}]}'),
    HELLO.replace(b'"store":false', b'"vendor":{"deep":[[{"er":"Zyzzyva"}]]}'),
    HELLO.replace(b'"store":false', b'"vendor":["Zyzzyva"]'),
    HELLO.replace(b'"store":false', b'"vendor":{"Zyzzyva":1}'),
    HELLO.replace(b'"store":false', b'"Zyzzyva":true'),
    HELLO.replace(b'"store":false', b'"pin":4711'),
    HELLO.replace(b'"store":false', b'"ill":true'),
    HELLO.replace(b'"store":false', b'"vendor":null'),
    HELLO.replace(b'"include_usage"', b'"note":"Zyzzyva","include_usage"'),
    HELLO.replace(b'"m"', b'"Zyzzyva is a weevil"'),
    HELLO.replace(b'"m"', b'"%b"' % (b"Zyzzyva" * 20)),
    HELLO.replace(b'"m"', '"☕ Zyzzyva"'.encode()),
    HELLO.replace(b'"store":false', b'"messages":[{"content":"Zyzzyva","role":"user"}]'),
    b'{"messages":[{"content":"Zyzzyva","role":"user"}],' + HELLO[1:],
    b'{"messages":[{"content":"x","role":"user"}],"vendor":[{"role":"user","content":"Zyzzyva"}],' + HELLO[1:],
]


@pytest.mark.parametrize("body", OWN_WORDS)
def test_nothing_is_kept_of_a_request_with_words_of_the_callers_own_around_its_texts(body: bytes) -> None:
    known = Shapes()
    assert isinstance(known.read("k", body).request, openai.PlainChat), "or it is not learned from anyway"
    for _ in range(3):
        assert known.read("k", body).shape is None
    assert not any(b"Zyzzyva" in said for said in texts_of(known))


def strings_in(schema: Any, path: str = "") -> list[str]:
    """Where a schema admits strings that are not from a list."""
    if isinstance(schema, list):
        return [found for one in schema for found in strings_in(one, path)]
    if not isinstance(schema, dict):
        return []
    here = [path] if schema.get("type") == "string" else []
    free = schema.get("type") == "object" and schema.get("additionalProperties", True) is not False
    inside = [found for key, value in schema.items() for found in strings_in(value, f"{path}/{key}")]
    return here + ([f"{path} (any key)"] if free else []) + inside


def test_only_texts_and_a_models_name_are_free_in_what_is_learned_from() -> None:
    """A field that is added to a request must be none of a `BareChat`, unless its values are from a list."""
    free = strings_in(msgspec.json.schema(openai.BareChat))
    kinds = ("BareAssistantMessage", "BareSystemMessage", "BareUserMessage")
    texts = [f"/$defs/{kind}/properties/content" for kind in kinds]
    assert sorted(free) == sorted(["/$defs/BareChat/properties/model", *texts])


def bench_wire() -> ModuleType:
    """What the benchmark sends."""
    spec = importlib.util.spec_from_file_location("bench_wire", ROOT / "bench" / "wire.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("spaced", [False, True])
def test_what_programs_send_is_learned(stream: bool, spaced: bool) -> None:
    wire = bench_wire()
    bodies = [wire.chat_body(stream=stream, question=question) for question in wire.QUESTIONS]
    if spaced:  # as `json.dumps` writes it
        bodies = [json.dumps(json.loads(body)).encode() for body in bodies]
    known = learned(bodies[0])
    for body in bodies:
        asked = known.read("k", body)
        assert asked.shape is not None
        assert asked.request == requests.parse_chat(body)


@pytest.mark.parametrize("more", [b'"stop":null', b'"service_tier":"auto","top_p":1', b'"n":1,"max_tokens":9'])
def test_options_that_say_nothing_of_a_customer_are_learned(more: bytes) -> None:
    body = HELLO.replace(b'"store":false', more)
    assert learned(body).read("k", body).shape is not None


@pytest.mark.parametrize("taught", [chat(b"Hello", roles=["user"]), HELLO, chat(b"a", b"b", b"c", roles=["user"] * 3)])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_messages_of_any_number_and_role_are_recognised(taught: bytes, count: int) -> None:
    known = learned(taught)
    for roles in itertools.product(["system", "user", "assistant"], repeat=count):
        body = chat(*[rb"a \"b\" %d" % number for number in range(count)], roles=roles)
        asked = known.read("k", body)
        assert asked.shape is not None
        assert asked.request == requests.parse_chat(body)
        assert asked.messages == msgspec.json.encode(asked.request.messages)


@pytest.mark.parametrize("spaced", [False, True])
def test_a_conversation_is_recognised_from_its_first_question_on(spaced: bool) -> None:
    def said(count: int) -> bytes:
        messages = [{"role": ("user", "assistant")[n % 2], "content": f"„{n}“ \\ \n"} for n in range(count)]
        chat = {"model": "m", "messages": messages}
        return (json.dumps(chat) if spaced else json.dumps(chat, separators=(",", ":"), ensure_ascii=False)).encode()

    known = learned(said(1))
    for count in (3, 5, 99, MESSAGES_MAX):
        asked = known.read("k", said(count))
        assert asked.shape is not None
        assert asked.request == requests.parse_chat(said(count))
        assert upstream(asked) == msgspec.to_builtins(asked.request.messages)
    assert known.read("k", said(MESSAGES_MAX + 2)).shape is None, "it is decoded"


def test_a_text_of_any_length_is_recognised() -> None:
    known = learned(HELLO)
    body = HELLO.replace(b"Hello", b"x" * 2 * shapes.BODY_BYTES_MAX)
    assert known.read("k", body).shape is not None


def test_keys_do_not_see_each_others_shapes() -> None:
    known = learned(HELLO)
    assert known.read("k", HELLO).shape is not None
    assert [known.read("other", HELLO).shape is not None for _ in range(3)] == [False, False, True]


def test_what_is_done_to_one_request_does_not_show_in_the_next() -> None:
    known = learned(HELLO)
    first, second = known.read("k", HELLO).request, known.read("k", HELLO).request
    first.model, first.max_tokens, first.stream = "other", 1, None
    first.messages[1].content = "other"
    first.messages.append(openai.UserMessage("more"))
    assert second == known.read("k", HELLO).request == requests.parse_chat(HELLO)


def test_learning_is_paid_for_by_what_is_recognised_and_a_little_by_what_is_not() -> None:
    other = HELLO.replace(b'"m"', b'"n"')
    known = learned(HELLO)
    for _ in range(LEARNING_COST - 1):
        assert known.read("k", other).shape is None
    assert known.read("k", other).shape is None  # now it is learned
    assert known.read("k", other).shape is not None

    known = learned(HELLO)
    for _ in range(LEARNING_COST // EARNED_IF_RECOGNISED):
        assert known.read("k", HELLO).shape is not None
    assert known.read("k", other).shape is None
    assert known.read("k", other).shape is not None
    assert known.read("k", HELLO).shape is not None  # beside the first


def test_few_shapes_are_kept_of_a_key_and_of_few_keys() -> None:
    known = learned(HELLO)
    for number in range(SHAPES_MAX):
        assert known.read("k", HELLO).shape is not None
        for _ in range(LEARNING_COST):
            known.read("k", HELLO.replace(b'"m"', b'"%d"' % number))
    assert known.read("k", HELLO).shape is None

    known = learned(HELLO)
    for number in range(KEYS_MAX - 1):
        known.read(str(number), HELLO)
    known.read("one more", HELLO)
    assert known.read("k", HELLO).shape is None


def test_a_key_in_use_outlives_those_that_are_not() -> None:
    known = learned(HELLO)
    for number in range(3 * KEYS_MAX):
        known.read(str(number), HELLO)
        if number % (KEYS_MAX // 2) == 0:
            assert known.read("k", HELLO).shape is not None
    assert len(known._callers) == KEYS_MAX
    for number in range(3 * KEYS_MAX, 5 * KEYS_MAX):
        known.read(str(number), HELLO)
    assert known.read("k", HELLO).shape is None, "it was not in use for long"


def test_room_is_made_where_all_keys_are_in_use() -> None:
    known = Shapes()
    for number in range(KEYS_MAX):
        for _ in range(3):
            asked = known.read(str(number), HELLO)
        assert asked.shape is not None
    known.read("one more", HELLO)
    assert len(known._callers) == KEYS_MAX
    assert known.read("one more", HELLO).shape is None
    assert known.read("one more", HELLO).shape is not None


def test_a_refused_request_is_not_remembered() -> None:
    known = Shapes()
    for _ in range(3):
        with pytest.raises(BadRequest):
            known.read("k", HELLO.replace(b"true", b"false", 1))


def test_no_text_of_a_message_is_kept() -> None:
    known = learned(chat(b"Zyzzyva 1", b"Zyzzyva 2"))
    running = [known.read("k", chat(b"Zyzzyva 3", b"Zyzzyva %d" % number)) for number in range(4)]
    assert all(asked.shape is not None for asked in running)
    assert texts_of(known) != []
    assert not any(b"Zyzzyva" in said for said in texts_of(known))


def texts_of(owner: object) -> list[bytes]:
    """All that it holds, itself or by others."""
    pending, seen, found = [owner], set(), []
    while pending:
        one = pending.pop()
        if id(one) in seen or isinstance(one, type):
            continue
        seen.add(id(one))
        if isinstance(one, str | bytes):
            found.append(one if isinstance(one, bytes) else one.encode())
        if type(one).__module__.startswith("vipcloud") or isinstance(one, list | dict | tuple | set):
            pending += gc.get_referents(one)
    return found

"""What is refused before a handler sees it, and that nothing is smuggled past."""

import asyncio
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise

import msgspec
import pytest
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st

from vipcloud.http.server import Exchange, HTTPServer
from vipcloud.settings import ServerSettings
from wire import CHUNKED_HEAD, GET, Answer, Echo, Serve, Served, Wire, dial, get, post, until

SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
CHUNKS = b"3\r\nabc\r\n0\r\n\r\n"


def head(*lines: str, first: str = "POST / HTTP/1.1") -> bytes:
    return "".join(f"{line}\r\n" for line in (first, *lines, "")).encode("latin-1")


REFUSED = {
    "no host": (head(), 400),
    "two hosts": (head("Host: a", "Host: b"), 400),
    "two equal hosts": (head("Host: a", "host: a"), 400),
    **{
        f"host {host!r}": (head(f"Host: {host}"), 400)
        for host in (
            *(
                "a b",
                "a, b",
                "a/b",
                "/",
                "u@a",
                "a:99999x",
                "a:80:80",
                ":80:",
                "\xff<>",
                "a\tb",
                'a"',
                "a?b",
                "a#b",
                "a\\b",
            ),
            *(
                "[::1",
                "::1",
                "::1]",
                "[::1]a",
                "[]",
                "[::g]",
                "[::1%]",
                "[%eth0]",
                "[::1%eth 0]",
                "[::1%a/b]",
                "[::1%" + "a" * 33 + "]",
                "a%eth0",
                "a%2",
                "a%zz",
                "http://a",
                "a|b",
                "[a]:80",
            ),
        )
    },
    "a malformed host in HTTP/1.0": (head("Host: a b", first="POST / HTTP/1.0"), 400),
    "a malformed host beside an absolute target": (head("Host: a b", first="GET http://a/ HTTP/1.1"), 400),
    "two authorizations": (head("Host: a", "Authorization: Bearer a", "Authorization: Bearer b"), 400),
    "two content types": (head("Host: a", "Content-Type: a/b", "Content-Type: a/b"), 400),
    "two claimed addresses": (head("Host: a", "CF-Connecting-IP: 1.1.1.1", "CF-Connecting-IP: 1.1.1.1"), 400),
    "length and encoding": (head("Host: a", "Content-Length: 3", "Transfer-Encoding: chunked") + CHUNKS, 400),
    "encoding and length": (head("Host: a", "Transfer-Encoding: chunked", "Content-Length: 3") + CHUNKS, 400),
    "two lengths": (head("Host: a", "Content-Length: 3", "Content-Length: 4") + b"abc", 400),
    "two equal lengths": (head("Host: a", "Content-Length: 3", "Content-Length: 3") + b"abc", 400),
    "listed lengths": (head("Host: a", "Content-Length: 3, 3") + b"abc", 400),
    "empty length": (head("Host: a", "Content-Length:") + b"abc", 400),
    "signed length": (head("Host: a", "Content-Length: +3") + b"abc", 400),
    "negative length": (head("Host: a", "Content-Length: -3") + b"abc", 400),
    "hexadecimal length": (head("Host: a", "Content-Length: 0x3") + b"abc", 400),
    "length of 30 digits": (head("Host: a", f"Content-Length: {'9' * 30}") + b"abc", 400),
    "encoding gzip, chunked": (head("Host: a", "Transfer-Encoding: gzip, chunked") + CHUNKS, 400),
    "encoding chunked, chunked": (head("Host: a", "Transfer-Encoding: chunked, chunked") + CHUNKS, 400),
    "encoding chunked twice": (head("Host: a", *["Transfer-Encoding: chunked"] * 2) + CHUNKS, 400),
    "encoding chunked, identity": (head("Host: a", "Transfer-Encoding: chunked, identity") + CHUNKS, 400),
    "encoding identity": (head("Host: a", "Transfer-Encoding: identity") + CHUNKS, 400),
    "encoding xchunked": (head("Host: a", "Transfer-Encoding: xchunked") + CHUNKS, 400),
    "encoding with a parameter": (head("Host: a", "Transfer-Encoding: chunked;q=1") + CHUNKS, 400),
    "encoding with a tab behind": (head("Host: a", "Transfer-Encoding: chunked\t") + CHUNKS, 400),
    "encoding with a vertical tab behind": (head("Host: a", "Transfer-Encoding: chunked\x0b") + CHUNKS, 400),
    "encoding chunked and nothing": (head("Host: a", "Transfer-Encoding: chunked,") + CHUNKS, 400),
    "encoding nothing": (head("Host: a", "Transfer-Encoding: ,") + CHUNKS, 400),
    "encoding chunked, nothing, chunked": (head("Host: a", "Transfer-Encoding: chunked,, chunked") + CHUNKS, 400),
    "encoding nothing, then chunked": (
        head("Host: a", "Transfer-Encoding: ,", "Transfer-Encoding: chunked") + CHUNKS,
        400,
    ),
    "encoding nothing, identity": (head("Host: a", "Transfer-Encoding: , identity") + CHUNKS, 400),
    "encoding of two words": (head("Host: a", "Transfer-Encoding: x chunked") + CHUNKS, 400),
    "encoding nothing, chunked and a length": (
        head("Host: a", "Content-Length: 3", "Transfer-Encoding: , chunked") + CHUNKS,
        400,
    ),
    "encoding with a vertical tab": (head("Host: a", "Transfer-Encoding: \x0bchunked") + CHUNKS, 400),
    "encoding in HTTP/1.0": (head("Transfer-Encoding: chunked", first="POST / HTTP/1.0") + CHUNKS, 400),
    "space before the colon": (head("Host : a"), 400),
    "folded header": (head("Host: a", "X: b", " c"), 400),
    "fold after the first line": (head(" Host: a"), 400),
    "bare line feeds": (b"GET / HTTP/1.1\nHost: a\n\n", 400),
    "one bare line feed": (b"GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n", 400),
    "bare carriage return": (b"GET / HTTP/1.1\r\nHost: a\rX: b\r\n\r\n", 400),
    "NUL in a value": (head("Host: a\0b"), 400),
    "control character in a value": (head("Host: a", "X: \x01"), 400),
    "header without a name": (head("Host: a", ": b"), 400),
    "name outside ASCII": (head("Host: a", "X\xff: b"), 400),
    "target with a control character": (b"GET /\x01 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "target outside ASCII": (b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "target without a slash": (b"GET x:80 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "CONNECT": (b"CONNECT x:80 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "HTTP/0.9": (b"GET /\r\n\r\n", 400),
    "HTTP/0.9 in words": (b"GET / HTTP/0.9\r\nHost: a\r\n\r\n", 400),
    "HTTP/1.10": (b"GET / HTTP/1.10\r\nHost: a\r\n\r\n", 400),
    "HTTP/1.2 without a host": (b"GET / HTTP/1.2\r\n\r\n", 400),
    "HTTP/1.2 with length and encoding": (
        head("Host: a", "Content-Length: 3", "Transfer-Encoding: chunked", first="POST / HTTP/1.2") + CHUNKS,
        400,
    ),
    "HTTP/2.0": (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
    "HTTP/2.0 without a host": (b"GET / HTTP/2.0\r\n\r\n", 505),
    "HTTP/3.7": (b"GET / HTTP/3.7\r\nHost: a\r\n\r\n", 505),
    "HTTP/2 preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    "lower-case protocol": (b"GET / http/1.1\r\nHost: a\r\n\r\n", 400),
    "garbage": (b"\x00\x01\x02garbage\r\n\r\n", 400),
    "TLS hello": (bytes.fromhex("160301020001000" + "1fc0303") + bytes(64), 400),
    "chunk extension behind a space": (CHUNKED_HEAD + b"3 ;a=b\r\nabc\r\n0\r\n\r\n", 400),
    "chunk size with a space": (CHUNKED_HEAD + b"3 \r\nabc\r\n0\r\n\r\n", 400),
    "negative chunk size": (CHUNKED_HEAD + b"-3\r\nabc\r\n0\r\n\r\n", 400),
    "chunk size of 17 digits": (CHUNKED_HEAD + b"10000000000000003\r\nabc\r\n0\r\n\r\n", 400),
    "chunk size that is no number": (CHUNKED_HEAD + b"xyz\r\nabc\r\n0\r\n\r\n", 400),
    "chunk longer than its size": (CHUNKED_HEAD + b"3\r\nabcd\r\n0\r\n\r\n", 400),
    "bare line feed after the size": (CHUNKED_HEAD + b"3\nabc\r\n0\r\n\r\n", 400),
    "bare line feed in an extension": (CHUNKED_HEAD + b"3;a\nxx\r\nabc\r\n0\r\n\r\n", 400),
    "bare line feed after the chunk": (CHUNKED_HEAD + b"3\r\nabc\n0\r\n\r\n", 400),
    "length in a trailer": (CHUNKED_HEAD + b"3\r\nabc\r\n0\r\nContent-Length: 9\r\n\r\n", 400),
    "compressed body": (head("Host: a", "Content-Encoding: gzip", "Content-Length: 3") + b"abc", 415),
    "body compressed twice": (head("Host: a", "Content-Encoding: identity, gzip ", "Content-Length: 3") + b"abc", 415),
    "expectations": (head("Host: a", "Expect: 100-continue, tea", "Content-Length: 3") + b"abc", 417),
    "other expectation": (head("Host: a", "Expect: tea", "Content-Length: 3") + b"abc", 417),
    "body above the limit": (head("Host: a", "Content-Length: 2000"), 413),
    "body above the limit, sent at once": (head("Host: a", "Content-Length: 2000") + bytes(2000), 413),
    "body above the limit behind an upgrade offer": (
        head("Host: a", "Connection: upgrade", "Upgrade: h2c", "Content-Length: 2000") + bytes(2000),
        413,
    ),
    "well-formed chunked body above the limit": (
        CHUNKED_HEAD + b"500\r\n" + bytes(0x500) + b"\r\n0\r\n\r\n",
        413,
    ),
    "CONNECT without a host": (b"CONNECT x:80 HTTP/1.1\r\n\r\n", 400),
    "chunked body above the limit": (CHUNKED_HEAD + b"500\r\n" + bytes(0x500), 413),
    "head above the limit": (head("Host: a", f"X: {'x' * 5000}"), 431),
    "head above the limit in many lines": (head("Host: a", *[f"X-{at}: {'x' * 100}" for at in range(60)]), 431),
    "target above the limit": (head("Host: a", first=f"GET /{'x' * 5000} HTTP/1.1"), 414),
    "query above the limit": (head("Host: a", first=f"GET /?{'x' * 4200} HTTP/1.1"), 414),
    "target just above the limit": (head("Host: a", first=f"GET /{'x' * 4072} HTTP/1.1"), 414),
    "target and headers above the limit": (
        head("Host: a", f"X: {'x' * 3000}", first=f"GET /{'x' * 1500} HTTP/1.1"),
        431,
    ),
    "repeated long names above the limit": (head("Host: a", *[f"{'x' * 600}: 1"] * 9), 431),
    "too many headers": (head("Host: a", *[f"X-{at}: 1" for at in range(32)]), 431),
    "too many headers of one name": (head("Host: a", *["X: 1"] * 32), 431),
}


async def both(serve: Serve) -> tuple[Echo, Served]:
    echo = Echo()
    return echo, await serve(echo, body_bytes_max=1024, head_bytes_max=4096, headers_max=32, linger_timeout_s=0.2)


def assert_refused(answer: Answer, status: int) -> None:
    assert answer.status == status
    assert answer.headers["connection"] == "close"
    assert answer.headers["content-type"] == "application/json"
    assert set(json.loads(answer.body)["error"]) == {"message", "type", "param", "code"}


@pytest.mark.parametrize("name", REFUSED)
async def test_a_bad_request_gets_one_clean_refusal_and_hides_no_other(serve: Serve, name: str) -> None:
    data, status = REFUSED[name]
    echo, served = await both(serve)
    async with served.dial() as wire:
        wire.send(data + SMUGGLED)
        assert_refused(await wire.answer(), status)
        assert await wire.ended()
    assert not [line for line in echo.seen if "smuggled" in line]


@pytest.mark.parametrize("name", REFUSED)
async def test_a_bad_request_in_single_bytes_gets_the_same_refusal(serve: Serve, name: str) -> None:
    data, status = REFUSED[name]
    echo, served = await both(serve)
    async with served.dial() as wire:
        wire.writer.get_extra_info("socket").setsockopt(6, 1, 1)  # TCP_NODELAY
        await wire.trickle(data + SMUGGLED)
        assert_refused(await wire.answer(), status)
        assert await wire.ended()
    assert not [line for line in echo.seen if "smuggled" in line]


@pytest.mark.parametrize("name", REFUSED)
async def test_a_bad_request_behind_a_good_one_does_not_spoil_its_answer(serve: Serve, name: str) -> None:
    data, status = REFUSED[name]
    echo, served = await both(serve)
    async with served.dial() as wire:
        wire.send(get("/good") + data + SMUGGLED)
        assert (await wire.answer()).body == b"GET /good "
        assert_refused(await wire.answer(), status)
        assert await wire.ended()
    assert echo.seen[0] == "GET /good"
    assert not [line for line in echo.seen if "smuggled" in line]


ACCEPTED = {
    "lower-case names": (b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", b"GET / "),
    "empty lines before": (b"\r\n\r\n" + GET, b"GET / "),
    "empty value": (head("Host: a", "X:", "Y: 1", first="GET / HTTP/1.1"), b"GET / "),
    "HTTP/1.2": (b"GET / HTTP/1.2\r\nHost: a\r\n\r\n", b"GET / "),
    "HTTP/1.9 with chunks": (
        head("Host: a", "Transfer-Encoding: chunked", first="POST / HTTP/1.9") + CHUNKS,
        b"POST / abc",
    ),
    "absolute target": (b"GET http://b/x/y?z HTTP/1.1\r\nHost: a\r\n\r\n", b"GET /x/y "),
    "absolute target without a path": (b"GET http://b HTTP/1.1\r\nHost: a\r\n\r\n", b"GET / "),
    "absolute target with a query only": (b"GET HTTP://b?x=/y HTTP/1.1\r\nHost: a\r\n\r\n", b"GET / "),
    **{
        f"host {host!r}": (head(f"Host: {host}", first="GET / HTTP/1.1"), b"GET / ")
        for host in (
            *(
                "",
                ":",
                "a:",
                ":80",
                "a:8080",
                "A.example.com.",
                "127.0.0.1:80",
                "xn--bcher-kva.example",
                "a_b",
                "a%2Fb",
            ),
            *("[fe80::1%eth0]:8080", "[fe80::1%25eth0]", "[fe80::1%br-1.2_a~]"),
            *("[::1]", "[::1]:80", "[::FFFF:1.2.3.4]", "a\t ", "a;b=c,d!$&'()*+~"),
        )
    },
    "asterisk": (b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", b"OPTIONS * "),
    "upper-case encoding": (head("Host: a", "Transfer-Encoding: CHUNKED") + CHUNKS, b"POST / abc"),
    "encoding with spaces behind": (head("Host: a", "Transfer-Encoding: chunked  ") + CHUNKS, b"POST / abc"),
    "encoding with a tab before": (head("Host: a", "Transfer-Encoding: \tchunked") + CHUNKS, b"POST / abc"),
    "encoding with empty elements": (head("Host: a", "Transfer-Encoding: , ,\tchunked") + CHUNKS, b"POST / abc"),
    "length with white space behind": (head("Host: a", "Content-Length: 3 \t") + b"abc", b"POST / abc"),
    "chunk extensions": (CHUNKED_HEAD + b'3;a=b;c="d"\r\nabc\r\n0;e\r\n\r\n', b"POST / abc"),
    "chunk sizes with zeros before": (CHUNKED_HEAD + b"003\r\nabc\r\n000\r\n\r\n", b"POST / abc"),
    "trailers": (CHUNKED_HEAD + b"3\r\nabc\r\n0\r\nHost: c\r\nX: 9\r\n\r\n", b"POST / abc"),
    "identity content with white space": (post(b"x", "Content-Encoding:  Identity, \t,"), b"POST / x"),
    "no expectation": (post(b"x", "Expect:"), b"POST / x"),
    "identity content": (head("Host: a", "Content-Encoding: identity", "Content-Length: 1") + b"x", b"POST / x"),
    "upgrade offer": (head("Host: a", "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c"), b"POST / "),
    "upgrade offer with a body": (post(b"abc", "Connection: Upgrade", "Upgrade: h2c"), b"POST / abc"),
    "upgrade offer with a chunked body": (
        head("Host: a", "Connection: Upgrade", "Upgrade: websocket", "Transfer-Encoding: chunked") + CHUNKS,
        b"POST / abc",
    ),
    "upgrade without connection": (post(b"abc", "Upgrade: h2c"), b"POST / abc"),
    "a body at the limit": (post(bytes(1024)), b"POST / " + bytes(1024)),
    "a head at the limit, nearly all target": (
        head("Host:a", first=f"GET /{'x' * 4070} HTTP/1.1"),
        b"GET /" + b"x" * 4070 + b" ",
    ),
    "as many headers as allowed": (
        head("Host: a", *[f"X-{at}: 1" for at in range(31)], first="GET / HTTP/1.1"),
        b"GET / ",
    ),
}


LINES = {  # of heads that come whole and first in a read; elsewhere llhttp does not tell where they stand
    "GET / RTSP/1.0": 400,
    "GET / RTSP/1.1": 400,
    "OPTIONS rtsp://a/ RTSP/2.0": 400,
    "SOURCE / ICE/1.0": 400,
    "GET  / HTTP/1.1": 400,
    "GET /  HTTP/1.1": 400,
    "GET  / HTTP/1.0": 400,
    "get / http/1.1": 400,
    " GET / HTTP/1.1": 400,
    "GET\t/ HTTP/1.1": 400,
    "G\xcbT / HTTP/1.1": 400,
    "FETCH / HTTP/1.1": 501,
    "get / HTTP/1.1": 501,
    "GETX / HTTP/1.0": 501,
    "DESCRIBE / HTTP/1.1": 501,
}


@pytest.mark.parametrize("before", [b"", b"\r\n\r\n"])
@pytest.mark.parametrize("line", LINES)
async def test_a_request_line_of_another_kind_is_refused(serve: Serve, line: str, before: bytes) -> None:
    echo, served = await both(serve)
    async with served.dial() as wire:
        wire.send(GET)
        assert (await wire.answer()).status == 200
        wire.send(before + head("Host: a", first=line) + SMUGGLED)
        assert_refused(await wire.answer(), LINES[line])
        assert await wire.ended()
    assert echo.seen == ["GET /"]


@pytest.mark.parametrize("line", LINES)
async def test_a_request_line_of_another_kind_is_a_fault_of_its_own_request_only(serve: Serve, line: str) -> None:
    _, served = await both(serve)
    async with served.dial() as wire:
        wire.send(GET + head("Host: a", first=line))
        assert (await wire.answer()).status == 200
        assert (await wire.answer()).status in (200, 400, 505)


@pytest.mark.parametrize("trickled", [False, True])
@pytest.mark.parametrize("name", ACCEPTED)
async def test_an_unusual_request_is_served_and_the_next_one_too(serve: Serve, name: str, trickled: bool) -> None:
    data, body = ACCEPTED[name]
    echo, served = await both(serve)
    async with served.dial() as wire:
        if trickled:
            await wire.trickle(data + get("/next"))
        else:
            wire.send(data + get("/next"))
        assert (await wire.answer()).body == body
        assert (await wire.answer()).body == b"GET /next "
    assert len(echo.seen) == 2


async def test_a_thousand_upgrade_offers_in_one_read_are_ignored_one_by_one(serve: Serve) -> None:
    echo, served = await both(serve)
    async with served.dial() as wire:
        wire.send(get("/", "Connection: upgrade", "Upgrade: h2c") * 1000)
        for _ in range(1000):
            assert (await wire.answer()).status == 200
    assert len(echo.seen) == 1000


async def test_trailers_do_not_become_headers_of_the_next_request(serve: Serve) -> None:
    headers: list[dict[bytes, bytes]] = []

    async def handler(exchange: Exchange) -> None:
        await exchange.body()
        headers.append(exchange.headers)
        exchange.respond(200, b"")

    served = await serve(handler)
    async with served.dial() as wire:
        wire.send(CHUNKED_HEAD + b"0\r\nAuthorization: evil\r\n\r\n" + GET)
        await wire.answer()
        await wire.answer()
    assert headers == [{b"host": b"a", b"transfer-encoding": b"chunked"}, {b"host": b"a"}]


async def test_repeated_headers_are_joined(serve: Serve) -> None:
    async def handler(exchange: Exchange) -> None:
        exchange.respond(200, b"", exchange.headers[b"x"] + b"|" + exchange.headers[b"cookie"])

    served = await serve(handler)
    assert (await served.ask(get("/", "X: 1", "x: 2", "Cookie: a=1", "Cookie: b=2"))).body == b"1, 2|a=1; b=2"


async def test_a_host_is_looked_at_in_each_request_of_a_connection(serve: Serve) -> None:
    echo, served = await both(serve)
    async with served.dial() as wire:
        for host in (b"a", b"a", b"b:80", b"a"):
            wire.send(GET.replace(b"Host: a", b"Host: " + host))
            assert (await wire.answer()).status == 200
        wire.send(GET.replace(b"Host: a", b"Host: a b") + SMUGGLED)
        assert_refused(await wire.answer(), 400)
    assert len(echo.seen) == 4


async def test_a_bad_request_of_a_half_closed_client_gets_its_refusal(serve: Serve) -> None:
    _, served = await both(serve)
    async with served.dial() as wire:
        wire.send(head("Content-Length: 3"))
        wire.half_close()
        assert_refused(await wire.answer(), 400)
        assert await wire.ended()


async def test_a_large_body_before_it_does_not_count_into_a_head(serve: Serve) -> None:
    _, served = await both(serve)
    async with served.dial() as wire:
        for _ in range(8):
            wire.send(post(bytes(1000)) * 4 + GET[:10])
            for _ in range(4):
                assert (await wire.answer()).status == 200
            await wire.trickle(GET[10:])
            assert (await wire.answer()).status == 200


@pytest.mark.parametrize("piece", [b"1" + b";x" * 2048, b"0\r\n" + b"X: y\r\n" * 512])
async def test_chunks_that_are_nearly_all_framing_are_refused(serve: Serve, piece: bytes) -> None:
    _, served = await both(serve)
    async with served.dial() as wire:
        wire.send(CHUNKED_HEAD + piece)
        for _ in range(64):
            wire.send(piece[1:].removeprefix(b"\r\n"))
            await asyncio.sleep(0)
        assert_refused(await wire.answer(), 400)
        assert await wire.ended()


async def test_many_tiny_chunks_are_joined(serve: Serve) -> None:
    echo = Echo()
    served = await serve(echo)
    content = bytes(range(256)) * 400
    async with served.dial() as wire:
        wire.send(CHUNKED_HEAD + b"".join(b"1\r\n%c\r\n" % byte for byte in content) + b"0\r\n\r\n")
        assert (await wire.answer()).body == b"POST / " + content


VALID = (
    get("/a", "X: 1")
    + post(b'{"a": 1}', path="/b")
    + CHUNKED_HEAD
    + b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nT: u\r\n\r\n"
    + get("/c", "Connection: upgrade", "Upgrade: h2c")
    + post(b"xyz", "Expect: 100-continue", path="/d")
    + b"GET /e HTTP/1.0\r\n\r\n"
)


@st.composite
def mangled(draw: st.DrawFn) -> bytes:
    """VALID with up to eight bytes changed, put in or taken out."""
    data = bytearray(VALID)
    for _ in range(draw(st.integers(0, 8))):
        at = draw(st.integers(0, len(data) - 1))
        byte = draw(st.sampled_from(b"\r\n\0 :;,0123fAGx\xff\t") | st.integers(0, 255))
        match draw(st.integers(0, 2)):
            case 0:
                data[at] = byte
            case 1:
                data.insert(at, byte)
            case _:
                del data[at : at + draw(st.integers(1, 20))]
                data = data or bytearray(b"x")
    return bytes(data)


async def read_all(wire: Wire) -> list[Answer]:
    """The answers until the connection ends; part of one is an error."""
    answers = []
    while True:
        try:
            answers.append(await wire.answer())
        except asyncio.IncompleteReadError as error:
            if error.partial:
                raise
            return answers
        except ConnectionError:
            return answers


@contextmanager
def playing() -> Iterator[Callable[[bytes, list[int]], None]]:
    """Plays bytes, cut at the given places, against one server; synchronously, because hypothesis is."""
    faults: list[dict[str, object]] = []
    limits = msgspec.structs.replace(ServerSettings(), linger_timeout_s=0.05, head_timeout_s=0.2)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.get_loop().set_exception_handler(lambda _, context: faults.append(context))

        async def start() -> tuple[HTTPServer, int]:
            server = HTTPServer(Echo(), limits)
            return server, await server.start("127.0.0.1", 0)

        async def play(data: bytes, cuts: list[int]) -> None:
            async with asyncio.timeout(5), dial(port) as wire:
                for begin, end in pairwise((0, *cuts, len(data))):
                    wire.send(data[begin:end])
                    await asyncio.sleep(0)
                wire.half_close()
                await read_all(wire)
                await until(lambda: not server.connections)
            assert faults == []

        server, port = runner.run(start())
        yield lambda data, cuts: runner.run(play(data, cuts))
        runner.run(server.close(0))


def test_no_mangled_bytes_hang_crash_or_confuse() -> None:
    with playing() as play:

        @settings(max_examples=200, deadline=None)
        @given(data=mangled(), cuts=st.lists(st.integers(0, len(VALID)), max_size=4))
        def check(data: bytes, cuts: list[int]) -> None:
            play(data, sorted(cuts))

        check()

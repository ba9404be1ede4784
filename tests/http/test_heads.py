"""A head that came before is compared, not parsed: what the handler, or the caller, gets is the same either way."""

import asyncio
from dataclasses import dataclass, field

import httptools
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vipcloud.http.client import Address, Client, ClientError
from vipcloud.http.heads import AnswerShape, RequestHead, Shaper, cut
from vipcloud.http.server import Exchange
from vipcloud.settings import ClientSettings
from wire import Peer, Serve, Wire, get, post

HEAD = b"POST /v1 HTTP/1.1\r\nHost: a\r\nContent-Length: 12\r\nX: y\r\n\r\n"


def made(head: bytes) -> RequestHead:
    parts = cut(head)
    assert parts is not None
    return RequestHead(*parts, "POST", b"/v1", {b"host": b"a", b"content-length": b"12"})


@given(st.integers(0, 10**5), st.binary(max_size=50))
def test_a_head_is_known_by_all_but_its_length(size: int, behind: bytes) -> None:
    head = HEAD.replace(b"12", b"%d" % size)
    known = made(HEAD)
    body = bytes(size)
    assert known.begins(head + body) == len(head)
    assert known.begins(head + body + (behind or b"x")) == 0
    assert known.headers_with(size) == {b"host": b"a", b"content-length": b"%d" % size}
    assert known.headers[b"content-length"] == b"12"


@pytest.mark.parametrize(
    "other",
    [
        HEAD.replace(b"X: y", b"X: z"),
        HEAD.replace(b"/v1", b"/v2"),
        HEAD.replace(b"12", b"1 2"),
        HEAD.replace(b"12", b"+12"),
        HEAD.replace(b"12", b""),
        HEAD.replace(b"12", b"12, 12"),
        HEAD.replace(b"12", b"123456789"),
        HEAD.replace(b"12\r\n", b"12\r\nContent-Length: 12\r\n"),
        HEAD.replace(b"12\r\n", b"12\r\nTransfer-Encoding: chunked\r\n"),
    ],
)
def test_any_other_head_is_not_known(other: bytes) -> None:
    assert made(HEAD).begins(other + b"x" * 12) == 0


@given(st.integers(0, len(HEAD) + 11))
def test_what_did_not_come_whole_is_not_known(came: int) -> None:
    assert made(HEAD).begins((HEAD + b"x" * 12)[:came]) == 0


def test_a_head_without_a_usual_length_is_not_cut() -> None:
    for head in (get("/"), HEAD.replace(b"Content-Length: ", b"Content-Length:"), HEAD[:-2]):
        assert cut(head) is None


@pytest.mark.parametrize("spelled", ["Content-Length", "content-length"])
async def test_repeated_heads_are_served_as_parsed_ones(serve: Serve, spelled: str) -> None:
    seen: list[tuple[str, str, dict[bytes, bytes], bytes]] = []

    async def handler(exchange: Exchange) -> None:
        seen.append((exchange.method, exchange.path, exchange.headers, await exchange.body()))
        exchange.respond(200, b"", b"ok")

    def asked(body: bytes, path: str = "/v1", line: str = "X: y") -> bytes:
        return post(body, line, path=path).replace(b"Content-Length", spelled.encode())

    sent = [(b"a" * size, "/v1", "X: y") for size in (3, 3, 12, 0, 1500, 7)]
    sent += [(b"b", "/v2", "X: y"), (b"c", "/v1", "X: z"), (b"d\r\n\r\n", "/v1", "X: y"), (b"{}", "/v1", "X: y")]
    served = await serve(handler)
    async with served.dial() as wire:
        for body, path, line in sent:
            wire.send(asked(body, path, line))
            assert (await wire.answer()).status == 200
        [connection] = served.server.connections
        assert connection._head is not None, "or nothing of this was tested"
        wire.send(asked(b"e" * 9)[:40])  # in two reads
        await asyncio.sleep(0.05)
        wire.send(asked(b"e" * 9)[40:] + asked(b"f"))  # and one behind it
        assert [(await wire.answer()).status for _ in range(2)] == [200, 200]
        wire.send(b"\r\n" + asked(b"g"))  # a line break that RFC 9112, 2.2 has servers pass over
        assert (await wire.answer()).status == 200
    assert [each[3] for each in seen] == [*(body for body, _, _ in sent), b"e" * 9, b"f", b"g"]
    assert [each[1] for each in seen[: len(sent)]] == [path for _, path, _ in sent]
    for (_, _, headers, body), line in zip(seen, [line for _, _, line in sent], strict=False):
        assert headers == {b"host": b"a", b"content-length": b"%d" % len(body), b"x": line[3:].encode()}


@pytest.mark.parametrize("line", ["Accept: b", "Expect: 100-continue"])
async def test_a_head_that_is_looked_at_closely_is_not_taken_for_the_one_behind_it(serve: Serve, line: str) -> None:
    seen: list[tuple[str, bytes, bytes]] = []

    async def handler(exchange: Exchange) -> None:
        seen.append((exchange.path, exchange.headers.get(b"authorization", b""), await exchange.body()))
        exchange.respond(200, b"", b"ok")

    first = post(b"one", "Accept: a", line, "Authorization: 1", path="/first")
    second = post(b"two", "Authorization: 2", path="/second")
    served = await serve(handler)
    async with served.dial() as wire:
        for pair in (first + second, first + second, first, second, first):
            wire.send(pair)
            for _ in range(pair.count(b"POST")):
                assert (await wire.answer()).status == 200
    one, two = ("/first", b"1", b"one"), ("/second", b"2", b"two")
    assert seen == [one, two, one, two, one, two, one]


@pytest.mark.parametrize("before", [b"", b"\r\n"])
async def test_requests_of_one_read_are_each_taken_for_what_they_are(serve: Serve, before: bytes) -> None:
    async def handler(exchange: Exchange) -> None:
        exchange.respond(200, b"", f"{exchange.method} {exchange.path} ".encode() + await exchange.body())

    served = await serve(handler)
    async with served.dial() as wire:
        for _ in range(3):
            wire.send(before + get("/a") + post(b"b", path="/b") + get("/c") + post(b"\r\n", path="/d"))
            answers = [(await wire.answer()).body for _ in range(4)]
            assert answers == [b"GET /a ", b"POST /b b", b"GET /c ", b"POST /d \r\n"]


async def test_a_refused_head_is_refused_each_time(serve: Serve) -> None:
    async def handler(exchange: Exchange) -> None:
        exchange.respond(200, b"")

    served = await serve(handler)
    for _ in range(3):
        async with served.dial() as wire:
            for _ in range(3):
                wire.send(post(b"{}"))
                assert (await wire.answer()).status == 200
            wire.send(post(b"{}", "Content-Length: 2"))
            assert (await wire.answer()).status == 400


# --- answers

DATED = b"HTTP/1.1 200 OK\r\nDate: %b\r\nContent-Length: %d\r\nConnection: keep-alive\r\nX-Id: %b\r\n\r\n%b"


def dated(body: bytes, date: bytes = b"Thu", number: bytes = b"1") -> bytes:
    return DATED % (date, len(body), number, body)


@dataclass
class Parsed:
    """What llhttp finds in bytes, which are all that a connection brings."""

    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    body: bytes = b""
    status: int = 0
    begun: int = 0
    complete: int = 0
    keep_alive: bool = False

    def __post_init__(self) -> None:
        self.parser = httptools.HttpResponseParser(self)

    def on_message_begin(self) -> None:
        self.begun += 1
        self.body = b""
        self.headers.clear()

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        self.status = self.parser.get_status_code()

    def on_body(self, data: bytes) -> None:
        self.body += data

    def on_message_complete(self) -> None:
        self.complete += 1
        self.keep_alive = self.parser.should_keep_alive()

    def found(self, data: bytes) -> tuple[int, list[tuple[bytes, bytes]], bytes] | None:
        """The one message that is all of `data`, if another may follow it."""
        begun = self.begun
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError:
            return None
        whole = self.begun == self.complete == begun + 1 and self.keep_alive
        return (self.status, list(self.headers), self.body) if whole else None


def shape_of(*answers: bytes) -> AnswerShape | None:
    """As a connection learns it: of answers that llhttp found to be whole."""
    shaper = Shaper()
    for answer in answers:
        found = Parsed().found(answer)
        head, _, body = answer.partition(b"\r\n\r\n")
        if found is not None and found[0] == 200 and found[2] == body:
            shaper.learn(head)
    return shaper.shape


NAMES = st.sampled_from(
    b"Date|X-Id|Content-Length|content-length|Content-Length |Connection|Transfer-Encoding|Set-Cookie|Upgrade|"
    b"Proxy-Connection|Keep-Alive|X\xe9|X(|| X|Trailer".split(b"|")
)
USUAL = st.sampled_from([b"a", b"bc", b"", b"Thu, 26 Nov 2026", b"5", b"3", b"0", b"close", b"keep-alive", b"chunked"])
ODD = st.sampled_from(
    [b"h2c", b"\x00", b"a\rb", b"a\nb", b"\t", b"a\tb", b"\xe9", b"\x7f", b" a ", b"5, 5", b"+3", b"03"]
)
VALUES = st.one_of(USUAL, USUAL, ODD)
BODIES = st.sampled_from([b"", b"abc", b"abcde", b"\r\n", b"0\r\n\r\n", b"{}\n"])
PIECES = st.sampled_from(
    [b"\r", b"\n", b"\r\n", b"\r\n ", b": ", b":", b" ", b"\x00", b"0", b"9", b"x", b"\xff", b"\r\n\r\n", b""]
)


@st.composite
def alike(draw: st.DrawFn) -> tuple[list[bytes], bytes]:
    """Answers with the same headers in the same order, and one of them that was tampered with."""
    names = draw(st.lists(NAMES, min_size=1, max_size=4))
    if draw(st.booleans()):
        names = [b"Date", b"Connection", b"X-Id"][: draw(st.integers(0, 3))]
    names.insert(draw(st.integers(0, len(names))), b"Content-Length")
    separators = [draw(st.sampled_from([b": ", b": ", b": ", b":", b":  "])) for _ in names]
    status = draw(st.sampled_from([b"HTTP/1.1 200 OK", b"HTTP/1.1 200 ", b"HTTP/1.0 200 OK", b"HTTP/1.1 204 No"]))
    answers = []
    for _ in range(4):
        body = draw(BODIES)
        head = status + b"\r\n"
        for name, separator in zip(names, separators, strict=True):
            usual = b"%d" % len(body) if name.lower() == b"content-length" else draw(USUAL)
            value = draw(VALUES) if draw(st.integers(0, 7)) == 0 else usual
            head += name + separator + value + b"\r\n"
        answers.append(head + b"\r\n" + body)
    last = answers.pop()
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(0, len(last)))
        last = last[:at] + draw(PIECES) + last[at + draw(st.integers(0, 2)) :]
    return answers, last


@settings(max_examples=600)
@given(alike())
def test_a_shape_finds_nothing_but_what_llhttp_finds(drawn: tuple[list[bytes], bytes]) -> None:
    answers, last = drawn
    shape = shape_of(*answers)
    if shape is None or not (size := shape.begins(last)):
        return
    parser = Parsed()
    for each in (last, last):  # the first on a connection, and one behind another
        found = parser.found(each)
        assert found is not None
        status, headers, body = found
        assert (status, body) == (200, last[size:])
        lines = [line.partition(b":") for line in last[: size - 4].split(b"\r\n")[1:]]
        assert [(name, value.strip(b" \t")) for name, _, value in lines] == [
            (name, value.strip(b" \t")) for name, value in headers
        ]


@given(BODIES, st.sampled_from([b"Fri", b"", b"Sat, 28"]), st.sampled_from([b"2", b"f00-ba", b" "]))
def test_answers_of_one_shape_are_known(body: bytes, date: bytes, number: bytes) -> None:
    shape = shape_of(dated(b"{}"), dated(b"abc", b"Wed", b"77"))
    assert shape is not None
    answer = dated(body, date, number)
    assert shape.begins(answer) == len(answer) - len(body)
    assert shape.begins(answer + b"x") == shape.begins(answer[:-1]) == 0


@pytest.mark.parametrize(
    "other",
    [
        dated(b"abc").replace(b"200 OK", b"200 ok"),
        dated(b"abc").replace(b"200 OK", b"429 No"),
        dated(b"abc").replace(b"keep-alive", b"close"),
        dated(b"abc").replace(b"X-Id", b"X-Ib"),
        dated(b"abc").replace(b": 3", b": "),
        dated(b"abc").replace(b": 3", b": +3"),
        dated(b"abc").replace(b": 3", b": 3 "),
        dated(b"abc").replace(b": 3", b": 000000003"),
        dated(b"abc").replace(b": 3", b": 3\r\nContent-Length: 3"),
        dated(b"abc", b"Thu\r\nTransfer-Encoding: chunked"),
        dated(b"abc", b"Thu\r\n folded"),
        dated(b"abc", b"Thu\rx"),
        dated(b"abc", b"Thu\nx"),
        dated(b"abc", b"Th\x00"),
        dated(b"abc", b"Th\t"),
        dated(b"abc", b"Th\xe9"),
        b"\r\n" + dated(b"abc"),
    ],
)
def test_an_answer_of_another_shape_is_parsed(other: bytes) -> None:
    shape = shape_of(dated(b"{}"), dated(b"abc", b"Wed", b"77"))
    assert shape is not None
    assert shape.begins(dated(b"abc"))
    assert shape.begins(other) == 0


def test_what_frames_an_answer_does_not_vary() -> None:
    two = [dated(b"{}").replace(b"keep-alive", value) for value in (b"keep-alive", b"Keep-Alive")]
    shape = shape_of(*two)
    assert shape is not None
    seen = (*two, dated(b"{}").replace(b"keep-alive", b"close"))
    assert [shape.begins(each) > 0 for each in seen] == [False, True, False]


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length:2\r\n\r\nok",
        b"HTTP/1.1 429 No\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\nConnection: keep-alive\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX: " + b"x" * 5000 + b"\r\n\r\nok",
    ],
)
def test_an_unusual_answer_has_no_shape(answer: bytes) -> None:
    assert shape_of(answer, answer) is None


async def test_answers_of_one_shape_are_taken_as_parsed_ones() -> None:
    bodies = [b"a" * size for size in (2, 3, 0, 1500, 7)]
    sent = [dated(body, b"day %d" % at, b"%d" % at) for at, body in enumerate(bodies)]
    sent += [dated(b"b").replace(b"200 OK", b"429 No"), dated(b"c", b"Fri"), dated(b"d").replace(b"Id", b"Ix")]
    sent += [dated(b"e"), b"HTTP/1.1 100 Continue\r\n\r\n" + dated(b"f"), dated(b"g"), dated(b"h")]

    async def script(wire: Wire) -> None:
        for each in sent:
            await wire.reader.readuntil(b"\r\n\r\n")
            wire.send(each)
        await wire.reader.readuntil(b"\r\n\r\n")
        await wire.trickle(dated(b"in pieces"))
        await wire.reader.readuntil(b"\r\n\r\n")
        wire.send(dated(b"last").replace(b"keep-alive", b"close"))
        await wire.reader.read()

    client = Client(ClientSettings())
    loop = asyncio.get_running_loop()
    async with Peer(script).listening() as peer:
        origin = client.origin(Address("http", "127.0.0.1", peer.port))
        seen = []
        for _ in range(len(sent) + 2):
            response = await origin.send(get("/"), loop.time() + 5)
            seen.append((response.status, response.raw_head, response.headers[b"date"], await response.read(9999)))
        assert peer.accepted == 1
        assert origin.open_count == 0, "the last one closes"
    client.close()
    expected = [each.removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n") for each in sent]
    expected += [dated(b"in pieces"), dated(b"last").replace(b"keep-alive", b"close")]
    assert [head + b"\r\n\r\n" + body for _, head, _, body in seen] == expected
    assert [status for status, _, _, _ in seen] == [429 if b"429" in each else 200 for each in expected]
    assert [date for _, _, date, _ in seen[:5]] == [b"day %d" % at for at in range(5)]
    assert origin.shaper.shape is not None, "or nothing of this was tested"


@pytest.mark.parametrize("behind", [b"x", dated(b"evil"), b"\r\nx"])
async def test_what_nobody_asked_for_behind_a_known_shape_ends_the_connection(behind: bytes) -> None:
    async def script(wire: Wire) -> None:
        for each in (dated(b"a"), dated(b"b", b"Fri"), dated(b"c") + behind):
            await wire.reader.readuntil(b"\r\n\r\n")
            wire.send(each)
        await wire.reader.read()

    client = Client(ClientSettings())
    loop = asyncio.get_running_loop()
    async with Peer(script).listening() as peer:
        origin = client.origin(Address("http", "127.0.0.1", peer.port))
        for _ in range(2):
            response = await origin.send(get("/"), loop.time() + 5)
            assert len(await response.read(9)) == 1
        try:
            response = await origin.send(get("/"), loop.time() + 5)
            assert await response.read(9) == b"c"
        except ClientError:
            pass
        await asyncio.sleep(0)
        assert origin.open_count == 0
    client.close()

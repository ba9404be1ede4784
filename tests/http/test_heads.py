"""A head that came before is compared, not parsed: what the handler gets is the same either way."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vipcloud.http.heads import Head, cut
from vipcloud.http.server import Exchange
from wire import Serve, get, post

HEAD = b"POST /v1 HTTP/1.1\r\nHost: a\r\nContent-Length: 12\r\nX: y\r\n\r\n"


def made(head: bytes) -> Head:
    parts = cut(bytearray(head), len(head))
    assert parts is not None
    return Head(*parts, "POST", b"/v1", {b"host": b"a", b"content-length": b"12"})


@given(st.integers(0, 10**7), st.binary(max_size=50))
def test_a_head_is_known_by_all_but_its_length(size: int, behind: bytes) -> None:
    head = HEAD.replace(b"12", b"%d" % size)
    known = made(HEAD)
    assert known.begins(bytearray(head + behind), len(head) + size) == len(head)
    assert known.headers_now() == {b"host": b"a", b"content-length": b"%d" % size}
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
    assert made(HEAD).begins(bytearray(other + b"x" * 12), len(other) + 12) == 0


@given(st.integers(0, len(HEAD) + 11))
def test_what_did_not_come_whole_is_not_known_though_old_bytes_complete_it(came: int) -> None:
    assert made(HEAD).begins(bytearray(HEAD + b"x" * 12), came) == 0


def test_a_head_without_a_usual_length_is_not_cut() -> None:
    for head in (get("/"), HEAD.replace(b"Content-Length: ", b"Content-Length:"), HEAD[:-2]):
        assert cut(bytearray(head), len(head)) is None


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

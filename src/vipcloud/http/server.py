"""An HTTP/1.1 server on asyncio and llhttp. It knows no route and no LLM: a handler is a plain `async def`.

Theory of operation. One `Connection` per client; llhttp (httptools) calls it back as it parses. As soon as a request's
head is complete an `Exchange` (the request and its answer) is handed to the handler, which may refuse it without its
body ever being read, or await `body()`. Requests that are pipelined behind it wait their turn in the same task.
Once a connection has sent the same head twice in a row, a request with that head that comes whole in one read is not
parsed (`heads`).

What llhttp does not refuse by itself is refused here: a missing, doubled or malformed Host, doubled Authorization,
Content-Type or CF-Connecting-IP, any Transfer-Encoding but `chunked`, a Content-Encoding, limits of size and time.
llhttp in its strict mode refuses bare LF, obs-fold, Content-Length beside Transfer-Encoding, doubled or malformed
Content-Length, malformed chunks and control characters (checked against httptools 0.9.0 by
tests/http/test_server_framing.py). Two things stay as llhttp has them. A request line of another protocol (`GET /
RTSP/1.0`), or with two spaces, is refused only where its head comes whole at the start of a read: llhttp does not tell
where else it stands. White space before or in a chunk extension is refused against RFC 9110 §5.6.3: llhttp takes it
only together with white space that no extension follows. After a fault the connection is closed: what follows on it can
no longer be trusted.

The loop hands over what a read has brought as `bytes`, uvloop up to 256 KiB of it (docs/decisions/0032). It is taken in
by pieces no larger than a head or a body may be, so that limits are met in time.

Time limits are deadlines on the connection, swept by `deadlines.Deadlines`. Writing is synchronous and goes through
the `Outbox`, so it leaves at the end of the loop's turn; `drain`, or the pair of callbacks given to `throttle`, is the
back-pressure.

An end of file from the client means either that it is gone or that it has closed only its sending half. The two look
alike until something is written, so an interim `100 Continue` is written as a probe: a client that is gone answers with
a reset, and its request is cancelled within about 100 ms; one that still listens gets its answer. While reading is
paused the loop tells of no end of file, so it is looked for.
"""

import asyncio
import contextlib
import os
import re
import select
import socket
import struct
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from email.utils import formatdate
from typing import Any, Final, cast

import httptools
import structlog

from vipcloud.errors import (
    BadRequest,
    ExpectationFailed,
    GatewayError,
    HeadTooLarge,
    InternalError,
    MethodUnknown,
    RequestTimeout,
    RequestTooLarge,
    TargetTooLong,
    UnsupportedMediaType,
    VersionNotSupported,
)
from vipcloud.http.deadlines import NEVER, Deadlines
from vipcloud.http.headers import STATUS_LINES, header_block
from vipcloud.http.heads import RequestHead, cut
from vipcloud.http.outbox import Outbox
from vipcloud.settings import ServerSettings

TYPE_JSON: Final = b"content-type: application/json\r\n"

READ_BYTES_MAX: Final = 65536
PROBE_INTERVAL_S = 0.05
WATCH_INTERVAL_S = 0.1  # between looks for an end of file while nothing is read
INTERRUPT_S = 2.0  # for handlers to end once they are interrupted
DATE_AGE_S = 0.5  # how old the date in an answer may be
FLUSH_S = 1.0  # for the last answers to leave the buffers
CHUNK_OVERHEAD_FACTOR: Final = 16  # framing bytes a chunked body may cost per byte of content, beyond one read
_AT_ONCE: Final = struct.pack("ii", 1, 0)  # SO_LINGER: to close is to forget what is unsent
_HEX_MAX: Final = 4096
_HEX: Final = [b"%x" % size for size in range(_HEX_MAX)]  # sizes of chunks: to format one costs more than to send it
_CLOSE: Final = b"connection: close\r\n\r\n"  # the last header
_ONCE: Final = frozenset(
    (b"host", b"authorization", b"content-length", b"transfer-encoding", b"content-type", b"cf-connecting-ip")
)
# uri-host [":" port] (RFC 9110 §7.2, RFC 3986 §3.2.2). It may be empty: a target without an authority has such a Host
# (RFC 9112 §3.2), and no route here depends on it. Clients send an address's zone along, as `%eth0` or `%25eth0`.
_HOST: Final = re.compile(
    rb"(?:\[[0-9A-Fa-f:.]{2,45}(?:%[A-Za-z0-9._~%-]{1,32})?\]"
    rb"|(?:[A-Za-z0-9._~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})*)(?::[0-9]*)?[ \t]*"
)
_REQUEST_LINE: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+ [^ ]+ HTTP/1\.[0-9]\r\n")
_RARE: Final = frozenset(
    (b"transfer-encoding", b"content-encoding", b"expect")
)  # a request with one is looked at closely

log = structlog.get_logger(__name__)


class Exchange:
    """One request and its answer; it writes to its connection's transport by itself.

    `headers` has lower-case names; repeated ones are joined with a comma, and white space after a value stays.
    `target` is the request target as sent; `received_s` is the loop's time when the head was complete. `head` is the
    connection's recurring head, if the request has come with it.
    Answer either with `respond`, or with `start`, any number of `write`, and `finish`.
    """

    def __init__(
        self,
        connection: "Connection",
        method: str,
        target: bytes,
        headers: dict[bytes, bytes] | None,  # None: those of `head`
        received_s: float,
        keep_alive: bool,
        head: RequestHead | None = None,
    ) -> None:
        self.connection = connection
        self.method = method
        self.target = target
        self.head = head
        self._headers = headers
        self.received_s = received_s
        self.keep_alive = keep_alive
        self.version = "1.1"
        self.state: object = None  # for the application: what it knows of this exchange
        self.fault: GatewayError | None = None
        self.started = False  # the status line has been sent
        self.finished = False  # the whole answer has been sent
        self.gone = False  # the client has left
        self.interrupted = False  # the server is going down and the drain limit is reached
        self.chunked = False  # the answer
        self.chunked_body = False
        self.expects_continue = False
        self.whole: bytes | None = None  # the body, once all of it has come: `body` without a task switch
        self.late = False  # the body did not come whole in one read with the end of the head, or is not to be taken
        self.body_bytes = 0  # of a late body: how much has come
        self.parts: list[bytes] = []
        self.waiter: asyncio.Future[None] | None = None
        self.on_pause: Callable[[], None] | None = None
        self.on_resume: Callable[[], None] | None = None

    @property
    def headers(self) -> dict[bytes, bytes]:
        headers = self._headers
        if headers is None:
            assert self.head is not None, "it has headers of its own, or a head"
            headers = self._headers = self.head.headers_with(len(self.whole or b""))
        return headers

    def header(self, name: bytes) -> bytes | None:
        """As `headers.get(name)`, of any but Content-Length; cheaper for a recurring head."""
        headers = self._headers
        if headers is None:
            assert self.head is not None, "it has headers of its own, or a head"
            headers = self.head.headers
        return headers.get(name)

    @property
    def path(self) -> str:
        """The target's path, still percent-encoded, without its query. Of `http://host/path` it is `/path`."""
        target = self.target
        if not target.startswith(b"/"):
            target = _origin_form(target)
        return target.partition(b"?")[0].decode("ascii", "replace")

    @property
    def query(self) -> str:
        return self.target.partition(b"?")[2].decode("ascii", "replace")

    @property
    def peer(self) -> str:
        """The address at the other end of the socket; empty where there is none."""
        return self.connection.peer

    @property
    def draining(self) -> bool:
        """The server takes nothing new any more."""
        return self.connection.server.draining

    async def body(self) -> bytes:
        """The whole body. Raises RequestTooLarge, RequestTimeout, BadRequest; each of them ends the connection."""
        if self.whole is None and self.fault is None:
            await self.connection.receive_body(self)
        if self.whole is None:
            assert self.fault is not None, "a body ends whole or at fault"
            raise self.fault
        return self.whole

    def respond(self, status: int, headers: bytes, body: bytes = b"") -> None:
        """Send the whole answer. `headers` is a block of lines (see `header_block`) without framing headers."""
        assert not self.started, "an exchange is answered once"
        self.started = self.finished = True
        if self.gone:
            return
        connection = self.connection
        server = connection.server
        if self.keep_alive and self.whole is not None and not server.draining:
            end = b"\r\n"
        else:
            self.keep_alive = False
            end = _CLOSE
        if self.method == "HEAD" or status in (204, 304):
            length = b"" if status in (204, 304) else b"content-length: %d\r\n" % len(body)
            connection.send(b"".join((STATUS_LINES[status], server.date_line, headers, length, end)))
            return
        server.outbox.send(
            connection._transport,
            b"%b%b%bcontent-length: %d\r\n%b%b"
            % (STATUS_LINES[status], server.date_line, headers, len(body), end, body),
        )

    def start(self, status: int, headers: bytes) -> None:
        """Send the head of an answer whose length is not known."""
        assert not self.started, "an exchange is answered once"
        self.started = True
        self.chunked = self.version == "1.1"
        if self.gone:
            return
        connection = self.connection
        server = connection.server
        if self.whole is None or server.draining or not self.chunked:
            self.keep_alive = False
        framing = b"transfer-encoding: chunked\r\n" if self.chunked else b""
        end = b"\r\n" if self.keep_alive else _CLOSE
        connection.send(b"".join((STATUS_LINES[status], server.date_line, headers, framing, end)))

    def write(self, data: bytes) -> None:
        """Send a part of the body, in one write. Never blocks; see `drain` and `throttle`."""
        assert self.started, "the head goes first"
        assert not self.finished, "nothing follows the end"
        if data and not self.gone and self.method != "HEAD":
            connection = self.connection
            connection.server.outbox.send(connection._transport, _chunk(data) if self.chunked else data)

    def finish(self, data: bytes = b"") -> None:
        """Send the last part and end the answer."""
        assert self.started, "the head goes first"
        if self.finished:
            return
        self.finished = True
        if self.gone or self.method == "HEAD":
            return
        if self.chunked:
            data = _chunk(data) + b"0\r\n\r\n" if data else b"0\r\n\r\n"
        if data:
            self.connection.send(data)

    async def drain(self) -> None:
        """Wait until the client has taken enough of what was written."""
        await self.connection.writable()

    def throttle(self, pause: Callable[[], None], resume: Callable[[], None]) -> None:
        """Call `pause` when unsent bytes pass the limit and `resume` when they have gone out."""
        self.on_pause, self.on_resume = pause, resume
        if self.connection._paused_writing:
            pause()

    def abort(self) -> None:
        """Cut the connection at once."""
        self.connection.abort()

    def add_part(self, data: bytes) -> None:
        if data:
            self.parts.append(data)
            self.body_bytes += len(data)

    def complete_body(self, fault: GatewayError | None = None) -> None:
        """All of the body has come, or no more of it will be taken."""
        self.fault = self.fault or fault
        if self.fault is None:
            self.whole = b"".join(self.parts)
        self.parts = []
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)

    @property
    def body_complete(self) -> bool:
        return self.whole is not None or self.fault is not None

    @property
    def body_awaited(self) -> bool:
        return self.waiter is not None

    def await_body(self) -> "asyncio.Future[None]":
        self.waiter = asyncio.get_running_loop().create_future()
        return self.waiter


Handler = Callable[[Exchange], Awaitable[None]]
ErrorRenderer = Callable[[Exchange, GatewayError], None]


def render_error(exchange: Exchange, error: GatewayError) -> None:
    """The plainest rendering: status, headers and envelope."""
    exchange.respond(error.status, TYPE_JSON + header_block(error.headers()), error.body())


class HTTPServer:
    """Listens, keeps the connections, drains them. `handler` serves each exchange.

    A GatewayError out of the handler, or a fault of the request's framing, goes to `on_error` as long as the answer
    has not begun; any other exception, or none but no answer either, is logged and answered 500.
    """

    def __init__(
        self,
        handler: Handler,
        settings: ServerSettings,
        on_error: ErrorRenderer = render_error,
        outbox: Outbox | None = None,
    ) -> None:
        self.handler = handler
        self.settings = settings
        self.on_error = on_error
        self.outbox = outbox or Outbox()
        self.draining = False
        self.deadlines = Deadlines(min(0.25, settings.head_timeout_s / 4, settings.write_stall_timeout_s / 4))
        self.connections: set[Connection] = set()
        self.leaving: set[asyncio.Task[None]] = set()  # of clients that are gone, still cleaning up
        self.emptied = asyncio.Event()
        # What is taken in at a time. No more than a head or a body may have, so that none above it comes in one piece.
        self.read_bytes_max = min(READ_BYTES_MAX, settings.head_bytes_max, settings.body_bytes_max)
        self.date_line = b""  # kept up to date while there are connections
        self.deadline = NEVER
        self._listening: list[asyncio.Server] = []

    async def start(self, host: str, port: int) -> int:
        """Listen; the port, which is the system's choice if `port` is 0. Raises OSError."""
        loop = asyncio.get_running_loop()
        listening = await loop.create_server(
            self._connection, host, port, backlog=self.settings.backlog, reuse_address=True
        )
        self._listening.append(listening)
        return int(_sockets(listening)[0].getsockname()[1])

    def _connection(self) -> asyncio.Protocol:
        return cast("asyncio.Protocol", Connection(self))

    async def adopt(self, sockets: list[socket.socket], connections: list[socket.socket]) -> int:
        """Listen on sockets that listen already, with whoever waits there, and go on with connections that are open.

        Returns the port of the first. Raises OSError.
        """
        loop, backlog = asyncio.get_running_loop(), self.settings.backlog
        self.draining = False
        for each in sockets:
            self._listening.append(await loop.create_server(self._connection, sock=each, backlog=backlog))
        for each in connections:
            try:
                await loop.connect_accepted_socket(self._connection, each)
            except OSError:
                each.close()  # its client has left
        return int(sockets[0].getsockname()[1])

    def release(self) -> list[socket.socket]:
        """Stop listening. Who comes waits in these sockets for who adopts them; who has come is served as before."""
        copies = [os.dup(each.fileno()) for listening in self._listening for each in _sockets(listening)]
        for listening in self._listening:
            listening.close()
        self._listening.clear()
        return [socket.socket(fileno=copy) for copy in copies]

    def release_idle(self) -> list[socket.socket]:
        """Give away the connections on which nothing is under way: those that wait for a request."""
        self.outbox.flush()
        found = [connection.release() for connection in list(self.connections)]
        return [each for each in found if each is not None]

    @property
    def running(self) -> list[Exchange]:
        """Exchanges whose answer is not finished."""
        return [connection.exchange for connection in self.connections if connection.exchange is not None]

    async def close(self, drain_s: float) -> None:
        """Finish what runs for up to `drain_s`, then interrupt it, and close everything.

        The port stays open while draining, so that a readiness probe is answered; the handler refuses new work.
        """
        self.draining = True
        loop = asyncio.get_running_loop()
        deadline = loop.time() + drain_s
        self.outbox.flush()
        for connection in list(self.connections):
            connection.close_if_idle()
        while (tasks := self._tasks()) and (left_s := deadline - loop.time()) > 0:
            await asyncio.wait(tasks, timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
        for connection in list(self.connections):
            connection.interrupt()
        if tasks := self._tasks():
            await asyncio.wait(tasks, timeout=INTERRUPT_S)
        for listening in self._listening:
            listening.close()
        await self._flush()
        for connection in list(self.connections):
            connection.abort()
        self.deadlines.close()

    def _tasks(self) -> "list[asyncio.Task[None]]":
        """What still runs. A task that waits for its connection's next request does not count."""
        running = [connection.task for connection in self.connections if connection.exchange is not None]
        return [task for task in (*running, *self.leaving) if task is not None and not task.done()]

    async def _flush(self) -> None:
        """Give the last answers a moment to leave the buffers."""
        self.outbox.flush()
        for connection in list(self.connections):
            connection.close_when_flushed()
        if self.connections:
            self.emptied.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.emptied.wait(), FLUSH_S)

    def expire(self, now: float) -> None:
        """Renew the date. A timer costs less than a look at the clock for each answer."""
        self.date_line = f"date: {formatdate(usegmt=True)}\r\n".encode()
        self.deadline = now + DATE_AGE_S

    def add(self, connection: "Connection") -> None:
        if not self.connections:
            self.expire(asyncio.get_running_loop().time())
            self.deadlines.add(self)
        self.connections.add(connection)
        self.deadlines.add(connection)

    def discard(self, connection: "Connection") -> None:
        self.connections.discard(connection)
        self.deadlines.discard(connection)
        if not self.connections:
            self.deadlines.discard(self)
            self.emptied.set()


class Connection:
    """One client's connection: parses requests, runs them one after the other, writes their answers.

    An `asyncio.Protocol` by its methods, not by birth: compiled, it could not be a class of its own otherwise.
    """

    __deletable__ = ("_parser",)  # of attributes, for mypyc

    def __init__(self, server: HTTPServer) -> None:
        self.server = server
        self.exchange: Exchange | None = None  # the one being answered
        self.deadline = NEVER
        self.note: object = None  # for the application: what it knows of this connection
        self.peer = ""
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport
        self.task: asyncio.Task[None] | None = None
        self._wake: asyncio.Future[Exchange] | None = None  # what the task waits for between requests
        self._waiting: deque[Exchange] = deque()
        self._receiving: Exchange | None = None  # the one whose body is coming in
        self._receiving_since_s = 0.0
        self._raw_bytes = 0  # of a chunked body: framing and content
        self._bare_bytes = 0  # of them: since content last came
        self._head_bytes = 0  # 0 outside of a head; in one, 1 and what earlier reads brought of it
        self._headers: dict[bytes, bytes] = {}
        self._repeated = 0  # header lines whose name had been there before
        self._repeated_bytes = 0  # of their names
        self._host = b""  # the last that was found good
        self._fault: GatewayError | None = None  # what is wrong with them; the last request then
        self._url: list[bytes] = []  # of the head, and the part of the body, that the parser is at
        self._parts: list[bytes] = []
        self._replaying = False
        self._head: RequestHead | None = None  # which came twice in a row
        self._former_head = 0  # the hash of the last one that was parsed
        self._first_read = b""  # one that begins with a head or line breaks before it, until it is parsed
        self._clean = True  # nothing is between the last request and the next, not even a line break
        self._ended = False  # the client has sent its end of file
        self._lingering = False
        self._paused_reading = False
        self._watching = False  # for an end of file: a timer runs
        self._paused_writing = False
        self._awaited_until = NEVER  # by when the client has to send what we wait for
        self._stall_deadline = NEVER
        self._stall_bytes = 0  # unsent when the deadline was set
        self._writable: asyncio.Future[None] | None = None
        # Two of llhttp's callbacks only collect, so they are functions written in C.
        self.on_url = self._url.append
        self.on_body = self._parts.append
        self._parser = self._new_parser()

    def _new_parser(self) -> httptools.HttpRequestParser:
        parser = httptools.HttpRequestParser(self)
        # HTTP/1.2 and above are to be understood as 1.1 (RFC 9110 §2.5); `_guard` tells which versions are served.
        parser.set_dangerous_leniencies(lenient_version=True)
        return parser

    # --- the transport's callbacks

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport = cast("asyncio.Transport", transport)  # uvloop's is one in all but name
        server = self.server
        if len(server.connections) >= server.settings.connections_max:
            transport.abort()
            return
        transport.set_write_buffer_limits(server.settings.write_buffer_bytes_max)
        peer = transport.get_extra_info("peername")
        self.peer = peer[0] if isinstance(peer, tuple) else ""
        self.deadline = self._loop.time() + server.settings.keepalive_timeout_s
        server.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.server.discard(self)
        self.deadline = NEVER
        for exchange in (self.exchange, *self._waiting):
            if exchange is not None:
                exchange.gone = True
                exchange.keep_alive = False
        self._waiting.clear()
        task = self.task
        if task is not None and not task.done():
            self.server.leaving.add(task)
            task.add_done_callback(self.server.leaving.discard)
            task.cancel()
        self._release_writers()
        del self._parser  # it holds our methods; without this only the garbage collector would free us

    def data_received(self, data: bytes) -> None:
        most = self.server.read_bytes_max
        if len(data) <= most:
            self._take(data)
            return
        for start in range(0, len(data), most):
            self._take(data[start : start + most])

    def _take(self, data: bytes) -> None:
        if self._lingering:
            return
        if self.exchange is None and not self._head_bytes and self._receiving is None:
            head = self._head
            if head is not None and self._clean and (size := head.begins(data)):
                # A whole request whose head has come before: what the parser would find in it is known.
                received_s = self._loop.time()
                exchange = Exchange(self, head.method, head.target, None, received_s, keep_alive=True, head=head)
                exchange.whole = data[size:]
                self._start(exchange)
                return
            self._first_read = data
        self._parse(data)

    def _parse(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserCallbackError:
            raise
        except httptools.HttpParserUpgrade as upgrade:
            self._feed(data[upgrade.args[0] :])
        except httptools.HttpParserError as error:
            self._refuse_malformed(error)
        self._first_read = b""
        self._clean = not data.endswith((b"\r", b"\n"))
        if self._head_bytes or self._receiving is not None:
            self._end_read(len(data))

    def eof_received(self) -> bool:
        """True keeps the sending half open: the client may have closed only its own."""
        self._ended = True
        exchange = self.exchange
        if exchange is None:
            self.server.outbox.flush()  # the last answer, before the transport closes
            return False
        if not exchange.finished:
            if exchange.started or not exchange.body_complete:
                self.abort()
                return False
            self._probe(exchange)
        self._head_bytes = 0
        if self._receiving is not None:  # one that waits behind
            self._refuse(BadRequest("The connection ended before the request's body did."))
        last = self._waiting[-1] if self._waiting else exchange
        last.keep_alive = False
        return True

    def pause_writing(self) -> None:
        self._paused_writing = True
        self._watch_unsent(self._loop.time())
        if self.exchange is not None and self.exchange.on_pause is not None:
            self.exchange.on_pause()

    def resume_writing(self) -> None:
        self._stall_deadline = NEVER
        if self._transport.is_closing():
            self._watch_unsent(self._loop.time())
        elif self.exchange is None and not self._head_bytes and not self._lingering:
            self.deadline = self._loop.time() + self.server.settings.keepalive_timeout_s
        else:
            self.deadline = self._due()
        self._release_writers()

    def expire(self, now: float) -> None:
        """A time limit has passed: of a stalled reader, a head, a body, an idle connection, or of lingering."""
        settings = self.server.settings
        if self._stall_deadline <= now:
            self._check_stall(now)
        elif self._lingering:
            self._close()
        elif self._head_bytes and self._paused_reading:
            self._await_until(now + settings.head_timeout_s)
        elif self._head_bytes:
            self._refuse(RequestTimeout(f"The request's head did not arrive within {settings.head_timeout_s:g} s."))
        elif self._receiving is not None:
            self._check_body_pace(now, self._receiving)
        elif self.exchange is None:
            self._close()
        else:
            self.deadline = self._stall_deadline

    # --- llhttp's callbacks

    def on_message_begin(self) -> None:
        self._head_bytes = 1
        self._headers = {}
        self._url.clear()

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        if name in self._headers:
            self._repeat(name, value)
        else:
            self._headers[name] = value

    def on_headers_complete(self) -> None:
        head_bytes = self._head_bytes
        self._head_bytes = 0
        if self._replaying:
            return
        parser, headers = self._parser, self._headers
        first_read, self._first_read = self._first_read, b""  # its head is this one, and no later one's
        self._headers = {}  # for trailers: nothing that we act on may come after the body
        method, target = parser.get_method(), b"".join(self._url)
        exchange = Exchange(
            self,
            method.decode(),
            target,
            headers,
            self._loop.time(),
            parser.should_keep_alive(),
        )
        self._receiving = exchange
        # One test for the usual request; what fails it is looked at closely, and mostly found good. A body above the
        # limit cannot have come whole with its head, so `_end_read` finds it.
        if (
            head_bytes > 1
            or self._repeated
            or len(headers) > self.server.settings.headers_max
            or not self._is_host(headers.get(b"host"))
            or not _RARE.isdisjoint(headers)
            or not (
                first_read.startswith(b"%b %b HTTP/1.1\r\n" % (method, target))
                if first_read
                else parser.get_http_version() == "1.1"
            )
        ):
            fault = self._fault or self._guard(exchange, headers, first_read)
            if fault is not None:
                exchange.late = True
                exchange.fault = fault
                exchange.keep_alive = False
        elif first_read and self._clean:
            self._remember(exchange, first_read)
        self._start(exchange)

    def _remember(self, exchange: Exchange, first_read: bytes) -> None:
        """Keep what the parser has found in this head, if it is the one of the request before."""
        parts = cut(first_read)
        if parts is None or not exchange.keep_alive:
            return
        former, self._former_head = self._former_head, hash(parts)
        if former == self._former_head:
            self._head = RequestHead(*parts, exchange.method, exchange.target, exchange.headers)

    def _start(self, exchange: Exchange) -> None:
        wake = self._wake
        if wake is None:
            self._run(exchange)
        else:
            self._wake = None
            self.exchange = exchange
            wake.set_result(exchange)

    def on_message_complete(self) -> None:
        exchange = self._receiving
        if exchange is None:
            return
        self._receiving = None
        parts = self._parts
        if exchange.late:
            self._take_parts(exchange)
            exchange.complete_body()
            self.deadline = self._stall_deadline
        else:
            exchange.whole = b"".join(parts)  # of one part it makes no copy
            parts.clear()

    # --- reading

    def _repeat(self, name: bytes, value: bytes) -> None:
        """Another header line of the same name."""
        if not self._head_bytes:
            return  # a trailer
        self._repeated += 1
        self._repeated_bytes += len(name)
        headers = self._headers
        if self._repeated + len(headers) > self.server.settings.headers_max:
            return  # refused by _guard: joining the rest would take quadratic time
        if name in _ONCE:
            self._fault = BadRequest(f"The header '{name.decode('latin-1')}' is there more than once.")
        separator = b"; " if name == b"cookie" else b", "
        headers[name] = headers[name] + separator + value

    def _feed(self, data: bytes) -> None:
        """Read on behind an upgrade that was offered; there may be more of them."""
        while self._ignore_upgrade() and data:
            try:
                self._parser.feed_data(data)
                return
            except httptools.HttpParserUpgrade as upgrade:
                data = data[upgrade.args[0] :]
            except httptools.HttpParserCallbackError:
                raise
            except httptools.HttpParserError as error:
                self._refuse_malformed(error)
                return

    def _end_read(self, nbytes: int) -> None:
        """A read has ended in the middle of a request."""
        exchange = self._receiving
        if exchange is None:
            self._measure_head(nbytes)
            return
        content = self._take_parts(exchange)
        if exchange.fault is not None:
            return
        settings = self.server.settings
        if not exchange.late:
            exchange.late = True
            self._receiving_since_s = now = self._loop.time()
            self._await_until(now + settings.body_timeout_s)
            self._raw_bytes = self._bare_bytes = 0
            if int(exchange.headers.get(b"content-length", b"0")) > settings.body_bytes_max:
                self._refuse_too_large(exchange)
        elif exchange.chunked_body:
            self._measure_chunks(nbytes, content, exchange)
        if exchange.body_bytes > settings.body_unread_bytes_max and not exchange.body_awaited:
            self._pause_reading()

    def _take_parts(self, exchange: Exchange) -> int:
        """Move what the parser has found to the exchange, as one part, so that a chunk of one byte costs one byte.

        How many bytes there were of it.
        """
        data = b"".join(self._parts)
        self._parts.clear()
        if exchange.fault is None:
            exchange.add_part(data)
            if exchange.body_bytes > self.server.settings.body_bytes_max:
                self._refuse_too_large(exchange)
        return len(data)

    def _refuse_too_large(self, exchange: Exchange) -> None:
        exchange.keep_alive = False
        exchange.complete_body(
            RequestTooLarge(f"The request's body is above {self.server.settings.body_bytes_max} bytes.")
        )

    def _refuse_malformed(self, error: httptools.HttpParserError) -> None:
        if self._receiving is not None:
            self._take_parts(self._receiving)  # they may be too many, and that came first
        if "method" in str(error) and _REQUEST_LINE.match(self._first_read.lstrip(b"\r\n")):
            self._refuse(MethodUnknown("No route has this method."))
        else:
            self._refuse(BadRequest(f"The request is not well-formed HTTP/1.1: {error}."))

    def _measure_head(self, nbytes: int) -> None:
        """Bound a head that has not come whole, in bytes, lines and time."""
        settings = self.server.settings
        if self._head_bytes == 1:  # it began in this read
            self._await_until(self._loop.time() + settings.head_timeout_s)
            # Behind a request that runs, bytes of earlier messages may be among these.
            self._head_bytes += 1 + (nbytes if self.exchange is None else self._target_bytes())
        else:
            self._head_bytes += nbytes
        if self._head_bytes > settings.head_bytes_max + 2:
            self._refuse(_head_too_large(settings, self._target_bytes()))

    def _target_bytes(self) -> int:
        """How much of the request's target has come."""
        return sum([len(part) for part in self._url])

    def _measure_chunks(self, nbytes: int, content: int, exchange: Exchange) -> None:
        """Chunk extensions and trailers cost the sender little and us time: they may not outgrow the content."""
        self._raw_bytes += nbytes
        self._bare_bytes = 0 if content else self._bare_bytes + nbytes
        most = READ_BYTES_MAX + CHUNK_OVERHEAD_FACTOR * exchange.body_bytes
        if self._bare_bytes > READ_BYTES_MAX or self._raw_bytes > most:
            self._refuse(BadRequest("The body's chunks carry far more framing than content."))

    def _ignore_upgrade(self) -> bool:
        """Read on as if `Upgrade` had not been sent, which HTTP allows (RFC 9110 §7.8). False: do not read on.

        llhttp tells of the end of such a request after its head, and leaves its body unread. So the end is taken back,
        and a fresh parser reads that head once more without the offer; the exchange that was begun with it stays, and
        takes the body. Its handler has not run yet: we are still inside the read.
        """
        exchange = self._waiting[-1] if self._waiting else self.exchange
        if exchange is None or exchange.fault is not None:
            self._lingering = True
            self._await_until(NEVER)
            return False
        exchange.whole = None
        self._receiving = exchange
        if exchange.method == "CONNECT":
            self._refuse(BadRequest("CONNECT is not served here."))
            return False
        kept = [line for line in exchange.headers.items() if line[0] not in (b"upgrade", b"connection")]
        head = b"".join(b"%b: %b\r\n" % line for line in kept)
        self._parser = self._new_parser()
        self._replaying = True
        self._parser.feed_data(b"%b %b HTTP/1.1\r\n%b\r\n" % (exchange.method.encode(), exchange.target, head))
        self._replaying = False
        return True

    def _is_host(self, host: bytes | None) -> bool:
        """Whether a Host is there and well-formed. A connection's is mostly the same in all of its requests."""
        if host is None:
            return False
        if host != self._host:
            if _HOST.fullmatch(host) is None:
                return False
            self._host = host
        return True

    def _guard(self, exchange: Exchange, headers: dict[bytes, bytes], first_read: bytes) -> GatewayError | None:
        """What llhttp lets through and we do not; also notes how the body is framed.

        `first_read` begins with the head, if that is known.
        """
        settings = self.server.settings
        lines, self._repeated = len(headers) + self._repeated, 0
        # One read cannot bring more than a head may have, but several can.
        size = len(exchange.method) + len(exchange.target) + len(b"  HTTP/1.1\r\n\r\n") + self._repeated_bytes
        size += sum([len(name) + len(value) + 3 for name, value in headers.items()])
        self._repeated_bytes = 0
        if size > settings.head_bytes_max:
            return _head_too_large(settings, len(exchange.target))
        if lines > settings.headers_max:
            return HeadTooLarge(f"The request has more than {settings.headers_max} headers.")
        line = b"%b %b HTTP/" % (exchange.method.encode(), exchange.target)
        if first_read and not first_read.lstrip(b"\r\n").startswith(line):
            return BadRequest("The request's first line is not of HTTP: a method, a target and a version.")
        version = self._parser.get_http_version()
        if version == "1.0":
            exchange.version = version
            exchange.keep_alive = False
        elif not version.startswith("1."):
            words = f"HTTP/{version} is not served here; use HTTP/1.1."
            return BadRequest(words) if version.startswith("0.") else VersionNotSupported(words)
        elif b"host" not in headers:
            return BadRequest("The header 'host' is missing.")
        if not self._is_host(headers.get(b"host", b"")):
            return BadRequest("The header 'host' is no host with or without a port.")
        return _guard_body(exchange, headers)

    def _refuse(self, fault: GatewayError) -> None:
        """The bytes coming in are bad or late: answer what came before them, then this, then close."""
        self._head_bytes = 0
        self._lingering = True
        self._parts.clear()
        receiving = self._receiving
        self._receiving = None
        self._await_until(NEVER)
        if receiving is not None:
            receiving.keep_alive = False
            receiving.complete_body(fault)
            return
        target = b"".join(self._url)
        exchange = Exchange(self, "GET", target, self._headers, self._loop.time(), keep_alive=False)
        exchange.complete_body(fault)
        self._run(exchange)

    def _check_body_pace(self, now: float, exchange: Exchange) -> None:
        settings = self.server.settings
        earned_s = exchange.body_bytes / settings.body_rate_min_bytes_s
        allowed_until = self._receiving_since_s + settings.body_timeout_s + earned_s
        unasked = exchange.expects_continue and not exchange.body_awaited  # the client waits for us
        if self._paused_reading or unasked or now < allowed_until:
            self._await_until(max(allowed_until, now + 0.25))
        else:
            self._refuse(RequestTimeout("The request's body arrived too slowly."))

    def _await_until(self, until: float) -> None:
        self._awaited_until = until
        self.deadline = min(until, self._stall_deadline)

    def _due(self) -> float:
        """Until when what comes in is awaited; NEVER where nothing is: between a request's end and its answer."""
        awaited = self._head_bytes or self._receiving is not None or self._lingering
        return self._awaited_until if awaited else NEVER

    def _check_stall(self, now: float) -> None:
        """Cut a reader that has taken nothing since the deadline was set. A slow one is waited for."""
        if self._transport.get_write_buffer_size() >= self._stall_bytes:
            self.deadline = NEVER
            with contextlib.suppress(OSError):  # else the kernel keeps what it has, megabytes, for minutes
                self._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
            self.abort()
            return
        self.deadline = self._due()
        self._watch_unsent(now)

    def _watch_unsent(self, now: float) -> None:
        self._stall_bytes = self._transport.get_write_buffer_size()
        self._stall_deadline = now + self.server.settings.write_stall_timeout_s
        self.deadline = min(self.deadline, self._stall_deadline)

    async def receive_body(self, exchange: Exchange) -> None:
        if exchange.gone:
            raise BadRequest("The client left before the request's body was complete.")
        waiter = exchange.await_body()
        if exchange.expects_continue and not exchange.started and exchange.body_bytes == 0:
            self._receiving_since_s = self._loop.time()
            self.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        self._resume_reading()
        await waiter

    def _pause_reading(self) -> None:
        if not self._paused_reading and not self._transport.is_closing():
            self._paused_reading = True
            self._transport.pause_reading()
            if not self._watching:
                self._watching = True
                self._loop.call_later(WATCH_INTERVAL_S, self._watch)

    def _watch(self) -> None:
        """See whether the client has sent its end of file, or a reset, behind what is not read yet."""
        self._watching = False
        exchange = self.exchange
        if not self._paused_reading or exchange is None or self._transport.is_closing():
            return
        if not _has_ended(self._transport.get_extra_info("socket").fileno()):
            self._watching = True
            self._loop.call_later(WATCH_INTERVAL_S, self._watch)
        elif exchange.started and not exchange.finished:
            self.abort()
        else:
            self._probe(exchange)

    def _resume_reading(self) -> None:
        if self._paused_reading:
            self._paused_reading = False
            self._receiving_since_s = now = self._loop.time()  # the pause was ours, not the client's
            if self._head_bytes:
                self._await_until(now + self.server.settings.head_timeout_s)
            if not self._transport.is_closing():
                self._transport.resume_reading()

    # --- running

    def _run(self, exchange: Exchange) -> None:
        """Answer `exchange` now, or when those before it have been answered."""
        if self._wake is not None:
            self.exchange = exchange
            self._wake.set_result(exchange)
            self._wake = None
        elif self.exchange is None:
            self.exchange = exchange
            self.task = self._loop.create_task(self._serve(exchange))
        else:
            self._waiting.append(exchange)
            if len(self._waiting) >= self.server.settings.pipelined_max:
                self._pause_reading()

    async def _serve(self, exchange: Exchange | None) -> None:
        """Answer the connection's requests one after the other. One task for all: a new one costs more than a wait."""
        server, loop = self.server, self._loop
        handler, keepalive_timeout_s = server.handler, server.settings.keepalive_timeout_s
        try:
            while exchange is not None:
                try:
                    if exchange.fault is None:
                        await handler(exchange)
                    else:
                        server.on_error(exchange, exchange.fault)
                except GatewayError as error:
                    self._answer_error(exchange, error)
                except Exception:
                    log.exception("handler failed", method=exchange.method, path=exchange.path)
                    self._answer_error(exchange, InternalError("The gateway had an internal fault."))
                if not exchange.finished:
                    self._give_up(exchange)
                exchange.state = None  # what the application keeps may point back: a cycle would outlive the request
                if exchange.keep_alive and not self._waiting and not server.draining:
                    self.exchange = None
                    exchange = None  # an idle connection keeps no body
                    if self._head_bytes or self._paused_reading or self._paused_writing:
                        self._rest()
                    else:
                        self.deadline = loop.time() + keepalive_timeout_s
                    wake = self._wake = loop.create_future()
                    exchange = await wake
                else:
                    exchange = self._advance(exchange)
                    if exchange is not None:
                        await self.writable()
        except asyncio.CancelledError:
            running = self.exchange
            if running is not None and running.interrupted and running.finished:
                server.outbox.flush()
                self._transport.close()
            else:
                self.abort()
            raise
        except Exception:
            log.exception("error could not be rendered", peer=self.peer)
            self.abort()
            raise

    def _rest(self) -> None:
        """Wait for the next request where part of it is there, or where back-pressure was at work."""
        if not self._head_bytes:
            deadline = self._loop.time() + self.server.settings.keepalive_timeout_s
            self.deadline = min(deadline, self._stall_deadline)
        self._resume_reading()

    def _give_up(self, exchange: Exchange) -> None:
        """The handler has ended but its answer has not."""
        if exchange.started or exchange.gone or self._transport.is_closing():
            self.abort()
            return
        log.error("handler gave no answer", method=exchange.method, path=exchange.path)
        self._answer_error(exchange, InternalError("The gateway had an internal fault."))

    def _answer_error(self, exchange: Exchange, error: GatewayError) -> None:
        if not exchange.started and not exchange.gone:
            self.server.on_error(exchange, error)

    def _advance(self, done: Exchange) -> Exchange | None:
        """The next request, if one waits and may be served; else the connection lingers or closes."""
        self.exchange = None
        if self._transport.is_closing():
            return None
        if done.keep_alive and self._waiting:
            self._resume_reading()
            following = self.exchange = self._waiting.popleft()
            if self._ended:
                self._probe(following)
            return following
        self._linger(done)
        self._waiting.clear()
        return None

    def _linger(self, done: Exchange) -> None:
        """Close so that the client can still read the answer: unread bytes would turn the close into a reset."""
        behind = self._lingering or self._head_bytes or self._waiting  # the client sends on although this is the end
        if self._ended or (done.whole is not None and not behind):
            self._close()
            return
        self._lingering = True
        self._receiving = None
        self._await_until(self._loop.time() + self.server.settings.linger_timeout_s)
        self._resume_reading()
        if self._transport.can_write_eof():
            self.server.outbox.flush()
            self._transport.write_eof()

    def _probe(self, exchange: Exchange, count: int = 0) -> None:
        """See whether a client that sent its end of file still listens. The second write to one that is gone fails."""
        if exchange is not self.exchange or exchange.started or self._transport.is_closing():
            return
        if exchange.version == "1.1":
            self.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        elif count > 0:
            self.abort()  # HTTP/1.0 has no interim answers: past a moment's grace it counts as gone
            return
        self._loop.call_later(PROBE_INTERVAL_S if count < 3 else 1.0, self._probe, exchange, count + 1)

    # --- writing

    def send(self, data: bytes) -> None:
        """Write `data` at the end of the loop's turn."""
        self.server.outbox.send(self._transport, data)

    async def writable(self) -> None:
        self.server.outbox.flush()
        while self._paused_writing and not self._transport.is_closing():
            if self._writable is None:
                self._writable = self._loop.create_future()
            await asyncio.shield(self._writable)

    def _release_writers(self) -> None:
        self._paused_writing = False
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)
        self._writable = None
        if self.exchange is not None and self.exchange.on_resume is not None:
            self.exchange.on_resume()

    # --- ending

    def abort(self) -> None:
        """Cut the connection; what runs on it is cancelled by `connection_lost`."""
        self.server.outbox.flush()
        self._transport.abort()

    def _close(self) -> None:
        """Close when all that was written has gone out, or when the reader takes no more of it."""
        self.server.outbox.flush()
        self._transport.close()
        self._awaited_until = self.deadline = NEVER
        if self._transport.get_write_buffer_size():
            self._watch_unsent(self._loop.time())

    def release(self) -> socket.socket | None:
        """A copy of the socket, and no more of it here, if this connection is idle and may serve on; else None."""
        transport = self._transport
        idle = self.exchange is None and not self._head_bytes and not self._lingering and not self._ended
        if not idle or transport.is_closing() or transport.get_write_buffer_size():
            return None
        copy = os.dup(transport.get_extra_info("socket").fileno())
        transport.abort()  # the copy keeps it open
        return socket.socket(fileno=copy)

    def close_if_idle(self) -> None:
        if self.exchange is None and not self._head_bytes:
            self._transport.close()

    def close_when_flushed(self) -> None:
        if self.exchange is None and not self._transport.is_closing():
            self._transport.close()

    def interrupt(self) -> None:
        """End what runs: its handler is cancelled with `interrupted` set and may still send an error."""
        if self.exchange is not None and self.task is not None:
            self.exchange.interrupted = True
            self.task.cancel()


def _sockets(listening: asyncio.Server) -> Sequence[socket.socket]:
    """uvloop's are a list, asyncio's a tuple."""
    sockets: Sequence[socket.socket] = cast("Any", listening).sockets
    return sockets


def _has_ended(descriptor: int) -> bool:
    """Whether the peer of this socket will send nothing more. It may be open for what we send; see `_probe`."""
    poll = select.poll()
    poll.register(descriptor, getattr(select, "POLLRDHUP", 0))  # resets are told in any case
    return bool(poll.poll(0))


def _chunk(data: bytes) -> bytes:
    """As a part of a chunked body."""
    size = len(data)
    return b"%b\r\n%b\r\n" % (_HEX[size] if size < _HEX_MAX else b"%x" % size, data)


def _origin_form(target: bytes) -> bytes:
    """`http://host/path` → `/path` (RFC 9112 §3.2.2 has servers accept it); any other as it is, such as `*`."""
    scheme, separator, rest = target.partition(b"://")
    if not separator or scheme.lower() not in (b"http", b"https"):
        return target
    cut = min((at for mark in (b"/", b"?") if (at := rest.find(mark)) >= 0), default=len(rest))
    path = rest[cut:]
    return path if path.startswith(b"/") else b"/" + path


def _guard_body(exchange: Exchange, headers: dict[bytes, bytes]) -> GatewayError | None:
    if b"content-length" not in headers and b"transfer-encoding" in headers:
        if exchange.version != "1.1" or _elements(headers[b"transfer-encoding"]) != [b"chunked"]:
            return BadRequest("The only transfer encoding served here is 'chunked', over HTTP/1.1.")
        exchange.chunked_body = True
    encoding = headers.get(b"content-encoding")
    if encoding is not None and set(_elements(encoding)) - {b"identity"}:
        words = "Compressed request bodies are not accepted; send the JSON as it is."
        return UnsupportedMediaType(words, encoded=True)
    expect = headers.get(b"expect")
    if expect is not None:
        expected = set(_elements(expect))
        if expected - {b"100-continue"}:
            return ExpectationFailed("The only expectation served here is '100-continue'.")
        exchange.expects_continue = bool(expected) and exchange.version == "1.1"  # RFC 9110 §10.1.1: not before
    return None


def _elements(value: bytes) -> list[bytes]:
    """Of a list of words, in lower case: white space around them and empty ones mean nothing (RFC 9110 §5.6.1)."""
    return [word for each in value.lower().split(b",") if (word := each.strip(b" \t"))]


def _head_too_large(settings: ServerSettings, target_bytes: int) -> GatewayError:
    """RFC 9112 §3 tells a target that is too long apart. Here that is one that takes more than half of the limit."""
    most = settings.head_bytes_max
    if target_bytes > most // 2:
        return TargetTooLong(f"The request's target is too long: its head may have {most} bytes in all.")
    return HeadTooLarge(f"The request's head is above {most} bytes.")

"""A pooled HTTP/1.1 client on asyncio and llhttp. It knows connections and time; what it carries is not its business.

Theory of operation. A `Client` has one `Origin` per scheme, host and port, and an origin keeps a bounded pool of
connections, the most recently used first. `Origin.send` takes a connection (idle, new, or the next to come free),
writes one request and returns a `Response` when the head has come; its body is read whole (`read`) or handed on part by
part (`pipe`). Whoever holds a Response must `release` it: a finished one has already gone back to the pool, an
unfinished one is given a moment to end and is cut otherwise. Cancelling any call cuts its connection, never another's.

llhttp parses the answers. One that comes whole in one read, and whose head has the shape of those before it, is not
parsed (`heads`); llhttp is between two messages then, and stays there. What a `unix` origin answers is always parsed.

A request on a reused connection that ends before any byte of an answer, and within `STALE_S`, is sent once more, on a
new connection: the peer had closed it while it was idle. In no other case is anything sent twice: whoever has kept a
request for longer may have worked on it, and what that costs is for the caller to note.

The tree of what can go wrong (callers translate it):

    ClientError
    ├── ConnectFailed      no connection: refused, unreachable, TLS, or no free place in the pool
    ├── ConnectionBroken   it ended before the answer did
    ├── ResponseInvalid    the answer is not HTTP, or is too large
    └── TimedOut           connect, first byte, idle, or total; `phase` says which
"""

import asyncio
import ssl
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, TypeVar, cast
from urllib.parse import urlsplit

import httptools

from vipcloud.errors import GatewayError
from vipcloud.http.deadlines import NEVER, Deadlines
from vipcloud.http.heads import Shaper
from vipcloud.http.outbox import Outbox
from vipcloud.settings import ClientSettings

# How long after a request it may show that the peer had closed the connection before. Word of that is on its way, or
# comes back after one round trip: 0.3 s across the world, and as much again for a packet that is lost.
STALE_S: Final = 1.0
READ_BYTES_MAX: Final = 32768  # what is taken in at a time: a transport may bring more in one read

T = TypeVar("T")


class ClientError(Exception):
    """A call to an upstream failed below the level of its answer."""


class ConnectFailed(ClientError):
    """No connection could be had."""


class ConnectionBroken(ClientError):
    """The connection ended before the answer did."""


class ResponseInvalid(ClientError):
    """The answer is not well-formed HTTP, or above a limit."""


class TimedOut(ClientError):
    """`phase` is one of connect, first_byte, idle, total."""

    def __init__(self, phase: str) -> None:
        super().__init__(f"timed out: {phase}")
        self.phase = phase


@dataclass(frozen=True, slots=True)
class Address:
    """Where an origin is. `authority` is what its Host header says. Of scheme `unix`, `host` is a socket's path."""

    scheme: str
    host: str
    port: int

    @property
    def authority(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        standard = self.port == (443 if self.scheme == "https" else 80)
        return host if standard else f"{host}:{self.port}"


def split_url(url: str) -> tuple[Address, str]:
    """`https://api.example.com/v1` → its address and `/v1`. Raises ValueError."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{url!r} is not an http or https URL")
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return Address(parts.scheme, parts.hostname, port), parts.path.rstrip("/")


class Response:
    """An answer whose head has come.

    `raw_headers` is kept of a `unix` origin only: names as they were sent, repeated ones on lines of their own. Of any
    other it is `raw_head`: what is not wanted of an upstream, and that is nearly always all of it, need not be taken
    apart. `parts` are of the body, as long as there is no sink. Once the loop's time passes `total_deadline` it fails
    with TimedOut("total"), whatever it is in and whether or not it is paused.
    """

    def __init__(self, connection: "Connection", status: int, raw_head: bytes, raw_headers: dict[bytes, bytes]) -> None:
        self.connection = connection
        self.status = status
        self.raw_head = raw_head
        self.raw_headers = raw_headers
        self.complete = False
        self.total_deadline = NEVER
        self.error: Exception | None = None
        self.parts: list[bytes] = []
        self.sink: Callable[[bytes], object] | None = None
        self.waiter: asyncio.Future[None] | None = None  # what `pipe` waits for

    @property
    def headers(self) -> dict[bytes, bytes]:
        """With lower-case names; of repeated ones, the last."""
        if self.raw_headers:
            return {name.lower(): value for name, value in self.raw_headers.items()}
        found: dict[bytes, bytes] = {}
        for line in self.raw_head.split(b"\r\n")[1:]:
            name, colon, value = line.partition(b":")
            if colon:
                found[name.lower()] = value.strip(b" \t")
        return found

    def read_now(self, bytes_max: int) -> bytes | None:
        """The whole body if all of it has come, as that of a short answer mostly has with its head; else None.

        Raises ResponseInvalid if it is above `bytes_max`.
        """
        if not self.complete:
            return None
        body = b"".join(self.parts)  # of one part it makes no copy
        if len(body) > bytes_max:
            raise _body_too_large(bytes_max)
        return body

    async def read(self, bytes_max: int) -> bytes:
        """The whole body. Raises ClientError."""
        body = self.read_now(bytes_max)
        return await self._read_on(bytes_max) if body is None else body

    async def _read_on(self, bytes_max: int) -> bytes:
        taken: list[bytes] = []
        size = 0

        def take(data: bytes) -> None:
            nonlocal size
            size += len(data)
            if size > bytes_max:
                raise _body_too_large(bytes_max)
            taken.append(data)

        await self.pipe(take)
        return b"".join(taken)

    async def pipe(self, sink: Callable[[bytes], object]) -> None:
        """Hand each part of the body to `sink` as it comes, all that one read brought in one call.

        Returns at the end of the body, or after `stop`. Raises ClientError, or what `sink` raises; either way the
        connection is cut. `pause` and `resume` are the back-pressure.
        """
        waiter = self.waiter = asyncio.get_running_loop().create_future()
        try:
            if self.parts:
                data = b"".join(self.parts)
                self.parts = []
                sink(data)
            if self.error is not None:
                raise self.error
            if self.complete or waiter.done():
                return
            self.sink = sink
            await waiter
        except BaseException:
            self.abort()
            _retrieve(waiter)
            raise
        finally:
            self.sink = None

    def stop(self) -> None:
        """Let `pipe` return now: what the caller wanted has come, and its sink is not called again."""
        self.sink = None
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)

    def expect(self, deadline: float, phase: str) -> None:
        """From now on the call fails with TimedOut(phase) when the loop's time passes `deadline`.

        A pause puts that off, unless the phase is `total`.
        """
        connection = self.connection
        if connection.response is self:
            connection.phase, connection.deadline = phase, deadline

    def pause(self) -> None:
        self.connection.pause(self)

    def resume(self) -> None:
        self.connection.resume(self)

    def release(self) -> None:
        """The caller is done with it. Harmless if the body has ended, and when called twice."""
        if not self.complete and self.error is None:
            self.connection.release_unfinished(self)

    def abort(self) -> None:
        """The caller wants nothing more of it, and the peer shall know at once."""
        if not self.complete and self.error is None:
            self.connection.abort()

    def discard(self) -> None:
        self.parts = []
        self.sink = len  # any function of bytes without effect

    def end(self, error: Exception | None = None) -> None:
        self.complete = error is None
        self.error = error
        if self.waiter is not None and not self.waiter.done():
            if error is None:
                self.waiter.set_result(None)
            else:
                self.waiter.set_exception(error)


def _body_too_large(bytes_max: int) -> ResponseInvalid:
    return ResponseInvalid(f"the reply is above {bytes_max} bytes")


class Connection:
    """One connection to an origin; carries one request at a time. A protocol by its methods, as the server's are."""

    __deletable__ = ("_parser",)  # of attributes, for mypyc

    def __init__(self, origin: "Origin") -> None:
        self.origin = origin
        self.deadline = NEVER
        self.closed = False
        self.response: Response | None = None
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport
        self.phase = ""
        self._asked_s = 0.0
        self._head_waiter: asyncio.Future[Response] | None = None
        self._head_bytes = 0  # of a head that is not complete
        self._reads: list[bytes] = []  # since the request, as long as its head is not complete
        self._first_read = b""  # since the request, while it is parsed
        self._interim = 0  # heads of answers with status 1xx among them
        self._headers: dict[bytes, bytes] = {}
        self._parts: list[bytes] = []
        self._paused = False
        self._keeps_headers = origin.address.scheme == "unix"
        if self._keeps_headers:
            self.on_header = self._add_header  # without it llhttp's wrapper makes nothing of header lines
        self.on_body = self._parts.append  # a function written in C: it runs for every part
        self._parser = httptools.HttpResponseParser(self)

    # --- used by Origin and Response

    def ask(self, data: bytes, deadline: float, phase: str) -> "asyncio.Future[Response]":
        """Write one request. Its Response, when the head has come, or a ClientError. `give_up` goes with it."""
        self._head_bytes = self._interim = 0
        self._reads.clear()
        self.phase = phase
        self.deadline = deadline
        self._asked_s = self._loop.time()
        waiter: asyncio.Future[Response] = self._loop.create_future()
        self._head_waiter = waiter
        self.origin.outbox.send(self._transport, data)
        return waiter

    def give_up(self, waiter: "asyncio.Future[Response]") -> None:
        """The caller that waits for `waiter` was cancelled."""
        # An answer that came whole in the same moment has set the connection free: it may be another's by now.
        answer = _retrieve(waiter)
        if answer is None:
            self.abort()
        else:
            answer.abort()

    @property
    def was_stale(self) -> bool:
        """The request that was just broken off came too late, if the connection had been used before: see `STALE_S`."""
        return self._head_bytes == 0 and self._loop.time() - self._asked_s < STALE_S

    def pause(self, response: Response) -> None:
        if response is self.response and not self._paused and not self.closed:
            self._paused = True
            self._transport.pause_reading()

    def resume(self, response: Response) -> None:
        if response is self.response and self._paused:
            self._paused = False
            if not self.closed:
                self._transport.resume_reading()

    def release_unfinished(self, response: Response) -> None:
        if response is not self.response:
            return
        response.discard()
        self.resume(response)
        self.phase, self.deadline = "total", self._loop.time() + self.origin.settings.release_timeout_s

    def abort(self) -> None:
        """Cut the connection; it leaves the pool at once."""
        if not self.closed:
            self._close(ConnectionBroken("the call was given up"))
            self._transport.abort()

    def fail(self, error: Exception) -> None:
        """End the running request with `error` and cut the connection."""
        if not self.closed:
            self._close(error)
            self._transport.abort()

    # --- the transport's callbacks

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one in all but name

    def data_received(self, data: bytes) -> None:
        if len(data) <= READ_BYTES_MAX:
            self._take(data)
            return
        for start in range(0, len(data), READ_BYTES_MAX):
            if not self.closed:
                self._take(data[start : start + READ_BYTES_MAX])

    def _take(self, data: bytes) -> None:
        waiter = self._head_waiter
        if waiter is not None:
            if not self._reads:
                shape = self.origin.shaper.shape
                if shape is not None and (size := shape.begins(data)):
                    # A whole answer, whose head is as those before: what the parser would find in it is known.
                    self._head_waiter = None
                    response = Response(self, 200, data[: size - 4], {})
                    response.parts.append(data[size:])
                    response.complete = True
                    if not waiter.done():
                        waiter.set_result(response)
                    self._rest()
                    return
                self._first_read = data
            self._reads.append(data)
        elif self.response is None:
            self.fail(ResponseInvalid("the peer sent bytes that nobody asked for"))
            return
        self._parse(data)
        self._first_read = b""

    def _parse(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserCallbackError as error:
            if not isinstance(error.__context__, ResponseInvalid):
                raise
            self.fail(error.__context__)
            return
        except httptools.HttpParserUpgrade:
            self.fail(ResponseInvalid("the peer switches to a protocol that nobody asked for"))
            return
        except httptools.HttpParserError as error:
            self.fail(ResponseInvalid(f"the reply is not well-formed HTTP: {error}"))
            return
        if self._head_waiter is not None:
            self._head_bytes += len(data)
            if self._head_bytes > self.origin.settings.head_bytes_max:
                self.fail(ResponseInvalid("the reply's head is above the limit"))
        elif self.response is not None and self._parts:
            self._deliver(self.response)

    def eof_received(self) -> bool:
        response = self.response
        if response is not None and response.headers.keys().isdisjoint((b"content-length", b"transfer-encoding")):
            self.response = None  # such a body ends with the connection
            self._close(None)
            response.end()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._close(ConnectionBroken("the peer closed the connection before the end of its answer"))
        del self._parser  # it holds our methods; without this only the garbage collector would free us

    def pause_writing(self) -> None:
        """A request is written whole; its size is bounded by the server's limit on bodies."""

    def resume_writing(self) -> None:
        """See `pause_writing`."""

    def expire(self, now: float) -> None:
        response = self.response
        if response is None:
            if self._head_waiter is None:
                self.abort()  # idle for long enough
            else:
                self.fail(TimedOut(self.phase))
        elif now >= response.total_deadline:
            self.fail(TimedOut("total"))
        elif self._paused and self.phase != "total":
            self.deadline = min(now + 1, response.total_deadline)  # the reader behind it is slow, not the peer
        else:
            self.fail(TimedOut(self.phase))

    # --- llhttp's callbacks

    def on_message_begin(self) -> None:
        self._headers.clear()
        if self._head_waiter is None:
            raise ResponseInvalid("the peer sent an answer that nobody asked for")

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        waiter = self._head_waiter
        if status < 200 or waiter is None:
            self._interim += 1
            return
        self._head_waiter = None
        response = self.response = Response(self, status, self._take_head(), self._headers.copy())
        if not waiter.done():
            waiter.set_result(response)

    def on_message_complete(self) -> None:
        response = self.response
        if response is None:
            return  # an interim answer has ended
        if response.sink is None:
            response.parts += self._parts
            self._parts.clear()
        elif self._parts:
            self._deliver(response)
            if self.closed:
                return
        self.response = None
        if self._parser.should_keep_alive():
            if self._paused:
                self._paused = False
                self._transport.resume_reading()
            if self._first_read:
                self._learn(response, len(self._first_read))
            self._rest()
        else:
            self._close(None)
            self._transport.close()
        if response.waiter is None:
            response.complete = True
        else:
            response.end()

    # --- inside

    def _rest(self) -> None:
        """The answer has ended, and another may follow it."""
        origin = self.origin
        self.deadline = self._loop.time() + origin.idle_timeout_s
        origin.give_back(self)

    def _learn(self, response: Response, read_bytes: int) -> None:
        """Take note of the head of `response` if that and its body are all that its first read brought."""
        if response.status == 200 and not self._keeps_headers:
            body_bytes = sum([len(part) for part in response.parts])
            if len(response.raw_head) + 4 + body_bytes == read_bytes:
                self.origin.shaper.learn(response.raw_head)

    def _take_head(self) -> bytes:
        """The head that has just come, out of what was read."""
        read = b"".join(self._reads)  # of one part it makes no copy
        self._reads.clear()
        begin = 0
        for _ in range(self._interim):
            begin = read.find(b"\r\n\r\n", begin) + 4
        self._interim = 0
        return read[begin : read.find(b"\r\n\r\n", begin)]

    def _add_header(self, name: bytes, value: bytes) -> None:
        """Our own console may set several cookies in one answer; of upstreams nothing that repeats is of use."""
        known = self._headers.get(name)
        self._headers[name] = value if known is None else b"%b\n%b" % (known, value)

    def _deliver(self, response: Response) -> None:
        """Hand on what the parser has found of its body."""
        parts = self._parts
        data = b"".join(parts)  # of one part it makes no copy
        parts.clear()
        sink = response.sink
        if sink is None:
            response.parts.append(data)
            return
        try:
            sink(data)
        except (ClientError, GatewayError) as error:
            response.sink = None
            self.fail(error)
        except Exception as error:
            response.sink = None
            self.fail(error)
            raise

    def _close(self, error: Exception | None) -> None:
        if self.closed:
            return
        self.closed = True
        self.deadline = NEVER
        self.origin.forget(self)
        waiter, response = self._head_waiter, self.response
        self._head_waiter = self.response = None
        if waiter is not None and not waiter.done():
            waiter.set_exception(error or ConnectionBroken("closed"))
        if response is not None:
            if self._parts:
                self._deliver(response)  # what was parsed before the connection broke still belongs to the answer
            response.end(error)


def _retrieve(waiter: "asyncio.Future[T]") -> T | None:
    """What `waiter` was given although its caller was cancelled; an error in it counts as seen."""
    if not waiter.done() or waiter.cancelled() or waiter.exception() is not None:
        return None
    return waiter.result()


class Sender:
    """Who has to know of a request, however the wait for its answer ends, whether it had left: then `sent` is set."""

    sent: bool = False


class Origin:
    """The pool of one origin. `send` is all that callers need."""

    def __init__(
        self,
        address: Address,
        settings: ClientSettings,
        deadlines: Deadlines,
        tls: ssl.SSLContext | None,
        outbox: Outbox,
    ) -> None:
        self.address = address
        self.settings = settings
        self.outbox = outbox
        self.idle_timeout_s = settings.idle_timeout_s
        self.shaper = Shaper()
        self._deadlines = deadlines
        self._tls = tls
        self._connections: set[Connection] = set()
        self._idle: dict[Connection, None] = {}  # in the order of their last use
        self._waiting: deque[asyncio.Future[Connection | None]] = deque()
        self._opening = 0  # places taken by connections that are not there yet
        self._closed = False

    @property
    def open_count(self) -> int:
        return len(self._connections)

    @property
    def idle_count(self) -> int:
        return len(self._idle)

    async def send(
        self, data: bytes, deadline: float, phase: str = "first_byte", sender: Sender | None = None
    ) -> Response:
        """Send `data` (one whole request) and wait for the head of its answer, until `deadline` in the loop's time.

        It is sent a second time, on a new connection, if the first one had been used before and ended within `STALE_S`
        without a byte of an answer; never otherwise, and never a third time. Raises ClientError.
        """
        if self._idle:
            connection, reused = self._idle.popitem()[0], True
        else:
            connection, reused = await self._take()
        if sender is not None:
            sender.sent = True
        waiter = connection.ask(data, deadline, phase)
        try:
            return await waiter
        except asyncio.CancelledError:
            connection.give_up(waiter)
            raise
        except ConnectionBroken:
            if not (reused and connection.was_stale):
                raise
        if sender is not None:
            sender.sent = False  # its peer had left before it came
        connection, _ = await self._take(fresh=True)
        if sender is not None:
            sender.sent = True
        waiter = connection.ask(data, deadline, phase)
        try:
            return await waiter
        except asyncio.CancelledError:
            connection.give_up(waiter)
            raise

    def close(self) -> None:
        self._closed = True
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_exception(ConnectFailed("the client is closed"))
        for connection in list(self._connections):
            connection.abort()

    def give_back(self, connection: Connection) -> None:
        """Nothing runs on it any more; it goes to the first in the queue, or may idle for a while."""
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(connection)
                return
        self._idle[connection] = None

    def forget(self, connection: Connection) -> None:
        self._deadlines.discard(connection)
        self._idle.pop(connection, None)
        if connection in self._connections:
            self._connections.remove(connection)
            self._invite()

    def _invite(self) -> None:
        """A place has come free: it goes to the first in the queue, who opens a connection of its own."""
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                self._opening += 1
                waiter.set_result(None)
                return

    async def _take(self, fresh: bool = False) -> tuple[Connection, bool]:
        """A connection, and whether it has been used before. A `fresh` one has not just sat idle."""
        if self._closed:
            raise ConnectFailed("the client is closed")
        if self._idle and not fresh:
            return self._idle.popitem()[0], True
        if self._idle and len(self._connections) + self._opening >= self.settings.connections_max:
            next(iter(self._idle)).abort()
        if len(self._connections) + self._opening < self.settings.connections_max:
            self._opening += 1
            return await self._open(), False
        connection = await self._queue()
        if connection is None:
            return await self._open(), False
        if connection.closed:
            return await self._take(fresh)
        return connection, True

    async def _queue(self) -> Connection | None:
        """Wait in turn for a connection that another call has done with; None: for a place to open one."""
        if len(self._waiting) >= self.settings.waiting_max:
            raise ConnectFailed("too many calls wait for a connection")
        waiter: asyncio.Future[Connection | None] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        try:
            async with asyncio.timeout(self.settings.connect_timeout_s):
                return await waiter
        except TimeoutError as error:
            self._pass_on(waiter)
            raise ConnectFailed("no connection came free in time") from error
        except asyncio.CancelledError:
            self._pass_on(waiter)
            raise

    def _pass_on(self, waiter: "asyncio.Future[Connection | None]") -> None:
        """What `waiter` was given, and can no longer use, goes to the next."""
        if waiter.cancelled():
            with suppress(ValueError):  # whoever had a place to give in between has taken it out
                self._waiting.remove(waiter)
            return
        if waiter.exception() is not None:
            return
        connection = waiter.result()
        if connection is None:
            self._opening -= 1
            self._invite()
        elif not connection.closed:
            self.give_back(connection)

    async def _open(self) -> Connection:
        """A new connection, in the place that the caller has taken for it."""
        try:
            connection = await self._connect()
        except BaseException:
            self._opening -= 1
            self._invite()
            raise
        self._opening -= 1
        self._connections.add(connection)
        self._deadlines.add(connection)
        return connection

    def _protocol(self) -> asyncio.Protocol:
        return cast("asyncio.Protocol", Connection(self))

    async def _connect(self) -> Connection:
        address, loop = self.address, asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self.settings.connect_timeout_s):
                if address.scheme == "unix":
                    _, protocol = await loop.create_unix_connection(self._protocol, address.host)
                else:
                    _, protocol = await loop.create_connection(
                        self._protocol,
                        address.host,
                        address.port,
                        ssl=self._tls,
                        server_hostname=address.host if self._tls else None,
                    )
        except TimeoutError as error:
            raise TimedOut("connect") from error
        except OSError as refused:  # ssl.SSLError is one
            raise ConnectFailed(str(refused)) from refused
        connection = cast("Connection", protocol)
        if self._closed:
            connection.abort()
        if connection.closed:
            raise ConnectionBroken("the connection was closed at once")
        return connection


class Client:
    """Origins by address. Close it when the loop ends."""

    def __init__(
        self, settings: ClientSettings, tls: ssl.SSLContext | None = None, outbox: Outbox | None = None
    ) -> None:
        self.settings = settings
        self._tls = tls
        self._outbox = outbox or Outbox()
        self._deadlines = Deadlines()
        self._origins: dict[Address, Origin] = {}

    def origin(self, address: Address) -> Origin:
        found = self._origins.get(address)
        if found is None:
            tls = (self._tls or ssl.create_default_context()) if address.scheme == "https" else None
            found = self._origins[address] = Origin(address, self.settings, self._deadlines, tls, self._outbox)
        return found

    @property
    def open_count(self) -> int:
        return sum(origin.open_count for origin in self._origins.values())

    def close(self) -> None:
        for origin in self._origins.values():
            origin.close()
        self._deadlines.close()

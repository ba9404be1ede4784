"""A connection to Valkey or Redis: calls, answered in their order.

The parser is hiredis; what is here is what the hot path needs and no more. A connection that does not answer in time is
given up, all its calls fail with `Away`, and `Client.run` makes another.
"""

import asyncio
import contextlib
import random
import ssl
from collections import deque
from typing import cast
from urllib.parse import parse_qs, unquote, urlsplit

import hiredis
import structlog

from vipcloud.errors import SettingsError

PAUSE_S_MIN, PAUSE_S_MAX = 0.05, 2.0
STEADY_S = 5.0  # a connection that lasted for so long is followed by another at once
KEEPALIVE_S = 1.0  # how often an idle connection is asked whether it is there

Word = bytes | str | int
log = structlog.get_logger(__name__)


class Away(Exception):
    """The server cannot be asked, or has not answered in time.

    `sent`: whether it may have done what was asked.
    """

    def __init__(self, message: str, *, sent: bool = False) -> None:
        super().__init__(message)
        self.sent = sent


class Waiter:
    """Who is told what became of a call, while what came is read: it must be quick."""

    def answered(self, answer: object) -> None:
        """Errors of the server are answers too (`hiredis.ReplyError`)."""
        raise NotImplementedError

    def failed(self, error: Away) -> None:
        raise NotImplementedError


class _Future(Waiter):
    """One who waits by a future."""

    def __init__(self, future: asyncio.Future[object]) -> None:
        self._future = future

    def answered(self, answer: object) -> None:
        if not self._future.done():  # who asked may have gone
            self._future.set_result(answer)

    def failed(self, error: Away) -> None:
        if not self._future.done():
            self._future.set_exception(error)


class Address:
    """Where the server is, from a URL such as `redis://user:password@host:6379/0` or `unix:///run/valkey.sock?db=0`.

    Raises SettingsError.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("redis", "rediss", "valkey", "valkeys", "unix"):
            raise SettingsError(
                "guard.url must begin with redis://, rediss:// or unix://, such as redis://127.0.0.1:6379."
            )
        try:
            port = parts.port
        except ValueError as error:
            raise SettingsError("guard.url: the port is not a number from 0 to 65535.") from error
        self.path = unquote(parts.path) if parts.scheme == "unix" else ""
        self.host, self.port = parts.hostname or "127.0.0.1", port or 6379
        self.tls = parts.scheme in ("rediss", "valkeys")
        database = parse_qs(parts.query).get("db", ["0"])[0] if self.path else parts.path.strip("/") or "0"
        if not database.isdecimal():
            raise SettingsError("guard.url: the database is not a number.")
        self.database = int(database)
        self.user, self.password = unquote(parts.username or ""), unquote(parts.password or "")

    def __str__(self) -> str:
        """For people: without the password."""
        return self.path or f"{self.host}:{self.port}"

    def greeting(self) -> list[tuple[Word, ...]]:
        """What is said first on a new connection."""
        words: list[tuple[Word, ...]] = []
        if self.password:
            words.append(("AUTH", self.user, self.password) if self.user else ("AUTH", self.password))
        if self.database:
            words.append(("SELECT", self.database))
        words.append(("PING",))
        return words


class Connection:
    """One socket, a protocol as those of `http` are. `lost` is done when it is closed."""

    def __init__(self, timeout_s: float, waiting_max: int) -> None:
        self.loop = asyncio.get_running_loop()
        self._timeout_s = timeout_s
        self._waiting_max = waiting_max
        self._reader = hiredis.Reader()
        self._waiting: deque[tuple[Waiter, float]] = deque()  # with the time since when
        self._watched = False
        self._transport: asyncio.Transport | None = None
        self.lost: asyncio.Future[None] = self.loop.create_future()

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def call(self, words: tuple[Word, ...]) -> asyncio.Future[object]:
        """The answer to come; errors of the server are answers too (`hiredis.ReplyError`). Raises Away."""
        future: asyncio.Future[object] = self.loop.create_future()
        command = hiredis.pack_command(words)  # type: ignore[arg-type] # its stub says one word
        self.call_packed(command, _Future(future), self.loop.time())
        return future

    def call_packed(self, command: bytes, waiter: Waiter, since_s: float) -> None:
        """The same of a command as it goes over the wire; who waits has done so since then. Raises Away."""
        if self._transport is None or len(self._waiting) >= self._waiting_max:
            raise Away("too many calls are waiting" if self._transport else "the connection is lost")
        self._waiting.append((waiter, since_s))
        self._transport.write(command)
        if not self._watched:
            self._watched = True
            self.loop.call_at(since_s + self._timeout_s, self._watch)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def pause_writing(self) -> None:
        """What waits for an answer is bounded, and calls are small."""

    def resume_writing(self) -> None:
        """See `pause_writing`."""

    def eof_received(self) -> bool:
        return False

    def data_received(self, data: bytes) -> None:
        reader, waiting = self._reader, self._waiting
        reader.feed(data)
        try:
            while (answer := reader.gets()) is not False:
                waiter, _ = waiting.popleft()
                waiter.answered(answer)
        except (hiredis.ProtocolError, IndexError):  # this is no server of ours
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        waiting, self._waiting = self._waiting, deque()
        for waiter, _ in waiting:
            waiter.failed(Away("the connection was lost", sent=True))
        if not self.lost.done():
            self.lost.set_result(None)

    def _watch(self) -> None:
        """Give the connection up if its oldest call has waited for too long."""
        self._watched = False
        if self._waiting:
            late_s = self.loop.time() - self._waiting[0][1] - self._timeout_s
            if late_s >= 0:
                self.close()
                return
            self._watched = True
            self.loop.call_later(-late_s, self._watch)


class Client:
    """Keeps one connection while `run` runs."""

    def __init__(self, url: str, *, timeout_s: float, waiting_max: int) -> None:
        self._address = Address(url)
        self.timeout_s = timeout_s
        self.waiting_max = waiting_max
        self.connection: Connection | None = None
        self.up = asyncio.Event()  # set while there is a connection
        self.changed = asyncio.Event()  # set whenever one has come or gone

    @property
    def connected(self) -> bool:
        return self.connection is not None

    def call(self, *words: Word) -> asyncio.Future[object]:
        """Raises Away at once where there is no connection; else the answer fails with Away if it is lost."""
        if self.connection is None:
            raise Away("there is no connection")
        return self.connection.call(words)

    def leave(self) -> None:
        """Give the connection up and make another: by the same name there may be another server by now."""
        if self.connection is not None:
            self.connection.close()

    async def run(self) -> None:
        """Connect, and connect anew whenever the connection is lost."""
        pause_s = PAUSE_S_MIN
        told = False
        while True:
            connection: Connection | None = None
            try:
                connection = await self._open()
            except (OSError, Away, TimeoutError, hiredis.ReplyError) as error:
                if not told:
                    log.error("valkey_away", server=str(self._address), error=str(error) or type(error).__name__)
                    told = True
            if connection is None:
                pause_s = await _paused(pause_s)
                continue
            told, since_s = False, connection.loop.time()
            log.info("valkey_connected", server=str(self._address))
            self.connection = connection
            self.up.set()
            self.changed.set()
            try:
                await self._attend(connection)
            finally:
                self.connection = None
                self.up.clear()
                self.changed.set()
                connection.close()
            log.warning("valkey_lost", server=str(self._address))
            if connection.loop.time() - since_s >= STEADY_S:
                pause_s = PAUSE_S_MIN
            else:
                pause_s = await _paused(pause_s)  # it may be one that is left at once, such as a replica

    async def _attend(self, connection: Connection) -> None:
        """Until the connection is lost. An idle one is asked now and then, so that its loss shows before it matters."""
        while not connection.lost.done():
            await asyncio.wait([connection.lost], timeout=KEEPALIVE_S)
            if not connection.waiting:
                with contextlib.suppress(Away):
                    connection.call(("PING",)).add_done_callback(_heard)

    def _protocol(self) -> asyncio.Protocol:
        return cast("asyncio.Protocol", Connection(self.timeout_s, self.waiting_max))

    async def _open(self) -> Connection:
        loop, address = asyncio.get_running_loop(), self._address

        async with asyncio.timeout(self.timeout_s):
            if address.path:
                _, protocol = await loop.create_unix_connection(self._protocol, address.path)
            else:
                context = ssl.create_default_context() if address.tls else None
                _, protocol = await loop.create_connection(self._protocol, address.host, address.port, ssl=context)
        connection = cast("Connection", protocol)
        try:
            for words in address.greeting():
                answer = await connection.call(words)
                if isinstance(answer, hiredis.ReplyError):
                    raise answer
            role = await connection.call(("ROLE",))  # an error says that we may not ask
            if isinstance(role, list) and role[0] != b"master":
                raise Away("it is a replica")
        except BaseException:
            connection.close()
            raise
        return connection


async def _paused(pause_s: float) -> float:
    """How long the next pause is."""
    await asyncio.sleep(pause_s * (0.5 + random.random()))  # noqa: S311 - spreads the attempts of many
    return min(2 * pause_s, PAUSE_S_MAX)


def _heard(future: asyncio.Future[object]) -> None:
    """Nobody waits for a ping: that it failed shows as the loss of its connection."""
    if not future.cancelled():
        future.exception()

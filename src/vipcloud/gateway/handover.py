"""How a gateway hands its port to a successor on the same machine and data folder, without a gap and without a cent.

    successor                       elder
    connects to its socket  ───►    stops listening; after a moment it admits nothing more
                            ◄───    the listening sockets, and the connections that wait for a request
                            ◄───    `Handed`: what its guard counts, its Idempotency-Keys
    has taken that in       ───►    `Ready`. Without that it listens again, as if nothing had been.
    listens, admits         ◄───    `Yours`; it drains
                            ◄───    `Ended`, `Released`: what becomes of the requests that still run there
                            ◄───    `More`: a long stream needs a further slice of credit     `Granted` ───►
                            ◄───    `Done`, when the last has ended; then it goes

Connections that come meanwhile wait in the kernel: the listening socket itself changes hands. From the hand-over on
the successor's guard is the only one that admits, and it counts what the elder's requests hold until it is told what
they cost. If the elder dies instead, the successor settles what it left open (`ledger.slots`) and frees the rest.

A successor may have to hand over itself while its elder still drains: then what it is told goes on to the next.
"""

import asyncio
import contextlib
import os
import socket
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from struct import Struct as Layout
from typing import NamedTuple

import msgspec
import structlog
from msgspec import Struct
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from vipcloud.errors import Unavailable
from vipcloud.gateway.idempotency import Claim
from vipcloud.gateway.parts import Parts
from vipcloud.http.server import HTTPServer
from vipcloud.ledger import bookkeeper
from vipcloud.ledger.journal import JournalError
from vipcloud.ledger.records import Settled
from vipcloud.limits.caps import Caps, Counts
from vipcloud.limits.guard import Permit, Purse, Subject
from vipcloud.limits.local import LocalGuard
from vipcloud.limits.rules import DAY_S, Ask, Limits, Meter, Standing
from vipcloud.money import NanoUSD, PicoUSDPerToken

ANSWER_S = 10.0  # for the other end
GRACE_S = 0.1  # for requests that are coming in to be admitted
SOCKETS_AT_ONCE = 250  # Linux passes 253 in a message
MESSAGE_BYTES_MAX = 1 << 30
GONE_TRIES, GONE_TRY_S = 50, 0.1  # till the lock of a process that has died is free
NOTHING = Ask(NanoUSD(0), PicoUSDPerToken(0), 0)
_LENGTH, _COUNTS = Layout("<I"), Layout("<II")

log = structlog.get_logger(__name__)


class HandedPurse(Struct, array_like=True):
    """A purse as the elder knows it. What was charged is in the counts that were handed over."""

    id: str
    granted_nanousd: int
    caps: Caps | None
    charged_nanousd: int = 0
    spent: dict[int, int] = {}


class Handed(Struct, tag="handed", array_like=True):
    """`counts` is None where the guard is shared anyway."""

    counts: Counts | None
    claims: list[Claim]


class Ready(Struct, tag="ready", array_like=True):
    """The successor could serve now."""


class Yours(Struct, tag="yours", array_like=True):
    """The elder does not serve any more."""


class Ended(Struct, tag="ended", array_like=True):
    """A request of the elder's has ended: what it held is free, and so much is charged."""

    request_id: str
    meters: list[str]
    purses: list[HandedPurse]
    held_nanousd: NanoUSD
    charge_nanousd: NanoUSD
    day: int


class More(Struct, tag="more", array_like=True):
    """A request of the elder's asks for more: the permit's figures, as in `Guard.extend`."""

    serial: int
    purses: list[HandedPurse]
    ask: tuple[NanoUSD, PicoUSDPerToken, int, int]  # what an `Ask` is made of
    day: int
    held_nanousd: NanoUSD
    held_tokens: int
    output_tokens: int
    tokens: int


class Granted(Struct, tag="granted", array_like=True):
    serial: int
    held_nanousd: NanoUSD  # in all; as before if nothing was granted


class Released(Struct, tag="released", array_like=True):
    """An Idempotency-Key of the elder's."""

    claim: Claim


class Done(Struct, tag="done", array_like=True):
    """Every request of the elder's has ended."""


Message = Handed | Ready | Yours | Ended | More | Granted | Released | Done
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Message).decode


class HandoverFailed(Exception):
    """There is no gateway to take over from, or it did not answer."""


class Channel:
    """Messages both ways, in order. What is sent after the other end is gone is lost."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def over(cls, connected: socket.socket) -> "Channel":
        return cls(*await asyncio.open_unix_connection(sock=connected))

    def send(self, message: Message) -> None:
        data = _encode(message)
        if not self._writer.is_closing():
            self._writer.write(_LENGTH.pack(len(data)) + data)

    async def receive(self) -> Message | None:
        """The next message; None when the other end is gone."""
        try:
            (length,) = _LENGTH.unpack(await self._reader.readexactly(_LENGTH.size))
            return _decode(await self._reader.readexactly(length)) if length <= MESSAGE_BYTES_MAX else None
        except (OSError, asyncio.IncompleteReadError, msgspec.DecodeError):
            return None

    async def close(self) -> None:
        """When all that was sent has gone out."""
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(ANSWER_S):
                await self._writer.drain()
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()


class _Extension(NamedTuple):
    """What a successor was asked; `held_nanousd` before it."""

    permit: Permit
    held_nanousd: NanoUSD
    tokens: int
    refused: Callable[[], None]


# --- the elder's end -----------------------------------------------------------------------------------------------


class RelayedGuard:
    """The elder's guard from the hand-over on: it admits nothing, and tells the successor's what becomes of the rest.

    `local` goes on counting, in case the successor does not come up.
    """

    def __init__(self, local: LocalGuard, send: Callable[[Message], None]) -> None:
        self.local = local
        self._send = send
        self._asked: dict[int, _Extension] = {}
        self._serial = 0
        self._idle = asyncio.Event()
        self._idle.set()

    async def admit(self, request_id: str, subject: Subject, ask: Ask, wall_s: float) -> Permit:
        raise Unavailable("The gateway is restarting; send the request again.", retry_after_s=1)

    def settle(self, permit: Permit, charge: NanoUSD) -> None:
        held = permit.held_nanousd
        self.local.settle(permit, charge)
        meters = [meter.id for meter in permit.subject.meters]
        self._send(Ended(permit.request_id, meters, handed_purses(permit), held, charge, permit.day))

    def extend(self, permit: Permit, tokens: int, refused: Callable[[], None]) -> None:
        assert not permit.settled, "only a running request needs more"
        self._serial += 1
        self._idle.clear()
        self._asked[self._serial] = _Extension(permit, permit.held_nanousd, tokens, refused)
        ask = permit.ask
        asked = ask.input_nanousd, ask.output_price, ask.output_tokens, ask.slice_tokens
        figures = asked, permit.day, permit.held_nanousd, permit.held_tokens, permit.output_tokens
        self._send(More(self._serial, handed_purses(permit), *figures, tokens))

    async def rehold(self, permit: Permit, ask: Ask) -> None:
        raise Unavailable("The gateway is restarting; send the request again.", retry_after_s=1)

    def granted(self, answer: Granted) -> None:
        """The successor's answer to `extend`."""
        asked = self._asked.pop(answer.serial)
        permit = asked.permit
        more = NanoUSD(answer.held_nanousd - asked.held_nanousd)
        if more and permit.settled:  # it has ended meanwhile, without it
            self._send(Ended(permit.request_id, [], handed_purses(permit), more, NanoUSD(0), permit.day))
        elif more:
            self.local.extend(permit, asked.tokens, asked.refused)
        elif not permit.settled:
            asked.refused()
        if not self._asked:
            self._idle.set()

    def forsaken(self) -> None:
        """The successor is gone: what it was asked is decided here."""
        asked, self._asked = list(self._asked.values()), {}
        for each in asked:
            if not each.permit.settled:
                self.local.extend(each.permit, each.tokens, each.refused)
        self._idle.set()

    @property
    def degraded(self) -> str:
        return "a successor counts now"

    async def run(self) -> None:
        await self.local.run()

    async def ready(self) -> None:
        await self.local.ready()

    async def flushed(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ANSWER_S):
                await self._idle.wait()

    async def standing(self, subject: Subject, wall_s: float) -> Standing:
        return await self.local.standing(subject, wall_s)


def handed_purses(permit: Permit) -> list[HandedPurse]:
    return [HandedPurse(purse.id, purse.granted_nanousd, purse.caps) for purse in permit.subject.purses]


class Elder:
    """Waits at `path` for a successor. `left` is set when one serves: then this gateway is to drain, and to `end`."""

    def __init__(self, parts: Parts, server: HTTPServer, path: Path) -> None:
        self._parts = parts
        self._server = server
        self._path = path
        self._channel: Channel | None = None
        self.left = asyncio.Event()

    async def run(self) -> None:
        """Until this gateway ends. Raises OSError where `path` cannot be listened at."""
        with socket.socket(socket.AF_UNIX) as waiting:
            waiting.bind(str(self._path))
            waiting.listen(1)
            waiting.settimeout(0)
            while self._channel is None:
                asked, _ = await asyncio.get_running_loop().sock_accept(waiting)
                self._channel = await self._hand_over(asked)
        log.info("handed over; draining")
        self.left.set()
        while (message := await self._channel.receive()) is not None:
            if isinstance(message, Granted) and isinstance(self._parts.guard, RelayedGuard):
                self._parts.guard.granted(message)
        if isinstance(self._parts.guard, RelayedGuard):
            self._parts.guard.forsaken()

    async def end(self) -> None:
        """All requests have ended."""
        if self._channel is not None:
            self._channel.send(Done())
            await self._channel.close()

    async def _hand_over(self, asked: socket.socket) -> Channel | None:
        parts, guard = self._parts, self._parts.guard
        sockets = self._server.release()
        await asyncio.sleep(GRACE_S)
        self._server.draining = True
        connections = self._server.release_idle()
        channel = None
        try:
            await asyncio.to_thread(_give, asked, sockets, connections)
            channel = await Channel.over(asked)
            counts = None
            if isinstance(guard, LocalGuard):
                counts = guard.counts()
                parts.guard = RelayedGuard(guard, channel.send)
            parts.idempotency.follow = lambda claim: channel.send(Released(claim))
            channel.send(Handed(counts, parts.idempotency.claims()))
            async with asyncio.timeout(ANSWER_S):
                if isinstance(await channel.receive(), Ready):
                    channel.send(Yours())
                    for each in (*sockets, *connections):
                        each.close()
                    return channel
        except (OSError, TimeoutError) as error:
            log.warning("successor does not answer", error=str(error))
        log.warning("not handed over; serving on")
        parts.guard, parts.idempotency.follow = guard, None
        await self._server.adopt(sockets, connections)
        if channel is not None:
            await channel.close()
        else:
            asked.close()
        return None


# --- the successor's end -------------------------------------------------------------------------------------------


class Successor:
    """What was handed to this gateway; and, once it serves, the news of what still runs at its elder."""

    def __init__(self, sockets: "_Sockets", channel: Channel, handed: Handed) -> None:
        self._sockets = sockets
        self._channel = channel
        self._handed = handed
        self._early: deque[Message] = deque()  # of requests that ended before this gateway served
        counts = handed.counts or Counts({}, {})
        self._held = {name: money[1] for name, money in counts.purses.items() if money[1]}
        self._leases = {name: set(leases) for name, (_, _, leases) in counts.meters.items() if leases}

    @classmethod
    async def ask(cls, path: Path) -> "Successor":
        """Take over from who waits at `path`. Raises HandoverFailed."""
        try:
            asked, sockets = await asyncio.to_thread(_ask, path)
            channel = await Channel.over(asked)
            async with asyncio.timeout(ANSWER_S):
                handed = await channel.receive()
        except (OSError, TimeoutError) as error:
            raise HandoverFailed(f"The running gateway does not hand over: {error}.") from error
        if not isinstance(handed, Handed):
            await channel.close()
            raise HandoverFailed("The running gateway did not say what it hands over.")
        return cls(sockets, channel, handed)

    async def serve(self, parts: Parts, server: HTTPServer) -> int:
        """Go on with it; the port. Raises HandoverFailed, OSError."""
        if self._handed.counts is not None and isinstance(parts.guard, LocalGuard):
            parts.guard.adopt(self._handed.counts)
        parts.idempotency.adopt(self._handed.claims)
        self._channel.send(Ready())
        while not isinstance(message := await self._channel.receive(), Yours):
            if message is None:
                raise HandoverFailed("The running gateway has changed its mind, or ended.")
            self._early.append(message)
        return await server.adopt(*self._sockets)

    async def follow(self, parts: Parts, engine: Engine, worker: str) -> None:
        """Until the elder is gone. `worker`: what this folder's gateways are named after."""
        done = False
        while (message := await self._next()) is not None:
            if isinstance(message, Ended):
                self._ended(parts, message)
            elif isinstance(message, More):
                await self._more(parts, message)
            elif isinstance(message, Released):
                parts.idempotency.released(message.claim)
            elif isinstance(message, Done):
                done = True
        if not done:
            log.error("the elder died; what it left open is settled")
            await self._settle(parts, engine, worker)
        self._free(parts)
        parts.idempotency.abandon(self._handed.claims)
        await self._channel.close()

    async def _next(self) -> Message | None:
        return self._early.popleft() if self._early else await self._channel.receive()

    def _ended(self, parts: Parts, told: Ended) -> None:
        purses = [purse for purse in told.purses if purse.id in self._held]
        for purse in purses:
            self._held[purse.id] -= told.held_nanousd
        for meter in told.meters:
            self._leases.get(meter, set()).discard(told.request_id)
        permit = permit_of(told.request_id, told.meters, purses, told.held_nanousd, told.day)
        parts.guard.settle(permit, told.charge_nanousd)

    async def _more(self, parts: Parts, asked: More) -> None:
        permit = permit_of("", [], asked.purses, asked.held_nanousd, asked.day)
        permit.ask, permit.held_tokens, permit.output_tokens = Ask(*asked.ask), asked.held_tokens, asked.output_tokens
        parts.guard.extend(permit, asked.tokens, lambda: None)
        await parts.guard.flushed()
        for purse in asked.purses:
            self._held[purse.id] = self._held.get(purse.id, 0) + permit.held_nanousd - asked.held_nanousd
        self._channel.send(Granted(asked.serial, permit.held_nanousd))

    async def _settle(self, parts: Parts, engine: Engine, worker: str) -> None:
        """Settle what a dead elder has left open, in the books and then in the guard."""
        directory, own, settled = parts.settings.journal_path, parts.journal.worker, list[Settled]()
        for _ in range(GONE_TRIES):
            try:
                settled = await asyncio.to_thread(bookkeeper.settle_gone, engine, directory, worker, own)
            except (SQLAlchemyError, JournalError, OSError):
                log.exception("not settled; the next start will")
            if settled:
                break
            await asyncio.sleep(GONE_TRY_S)
        for record in settled:
            charge, day = NanoUSD(record.charge_nanousd), int(record.started_at // DAY_S)
            names = [name for name in (record.account_id, record.key_id) if name is not None]
            purses = [HandedPurse(name, 0, None) for name in names if self._held.get(name, 0) >= charge]
            self._ended(parts, Ended("", [], purses, charge, charge, day))

    def _free(self, parts: Parts) -> None:
        """Nothing of the elder's runs any more: what is left of its holds and places is nobody's."""
        for name, held in self._held.items():
            if held > 0:
                purses = [HandedPurse(name, 0, None)]
                parts.guard.settle(permit_of("", [], purses, NanoUSD(held), 0), NanoUSD(0))
        for meter, request_ids in self._leases.items():
            for request_id in request_ids:
                parts.guard.settle(permit_of(request_id, [meter], [], NanoUSD(0), 0), NanoUSD(0))
        self._held, self._leases = {}, {}


class _Sockets(NamedTuple):
    """Those that listen, and connections that wait for a request."""

    listening: list[socket.socket]
    connections: list[socket.socket]


def _give(asked: socket.socket, listening: list[socket.socket], connections: list[socket.socket]) -> None:
    """Send sockets to a successor. Raises OSError. It may wait, so it is for a thread."""
    asked.settimeout(ANSWER_S)
    asked.sendall(_COUNTS.pack(len(listening), len(connections)))
    every = [each.fileno() for each in (*listening, *connections)]
    for start in range(0, len(every), SOCKETS_AT_ONCE):
        socket.send_fds(asked, [b"\n"], every[start : start + SOCKETS_AT_ONCE])
    asked.settimeout(0)


def _ask(path: Path) -> tuple[socket.socket, _Sockets]:
    """The connection to an elder, and its sockets. Raises OSError. It waits, so it is for a thread."""
    asked, descriptors = socket.socket(socket.AF_UNIX), list[int]()
    try:
        asked.settimeout(ANSWER_S)
        asked.connect(str(path))
        counts = asked.recv(_COUNTS.size, socket.MSG_WAITALL)
        if len(counts) < _COUNTS.size:
            raise OSError("it has no socket to give")
        listening, connections = _COUNTS.unpack(counts)
        while len(descriptors) < listening + connections:
            _, some, _, _ = socket.recv_fds(asked, 1, SOCKETS_AT_ONCE)
            if not some:
                raise OSError("it has not given all its sockets")
            descriptors += some
        asked.settimeout(0)
    except OSError:
        asked.close()
        for descriptor in descriptors:
            os.close(descriptor)
        raise
    sockets = [socket.socket(fileno=descriptor) for descriptor in descriptors]
    return asked, _Sockets(sockets[:listening], sockets[listening:])


def permit_of(
    request_id: str, meters: Sequence[str], purses: Sequence[HandedPurse], held_nanousd: NanoUSD, day: int
) -> Permit:
    """A permit of the elder's, as far as a guard looks at it when it ends."""
    subject = Subject(
        tuple(Meter(name, Limits()) for name in meters),
        tuple(Purse(one.id, one.granted_nanousd, one.charged_nanousd, one.caps, one.spent) for one in purses),
    )
    return Permit(request_id, subject, NOTHING, day, held_nanousd, 0, 0, 0, 0, 0.0)

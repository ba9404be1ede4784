"""The guard on Valkey or Redis, for several gateways that share their counts: `admission.lua`, one call per admission.

Counts go by the server's clock. A settlement is told without waiting for it, and told again after a lost connection; a
request whose gateway died gives its place and its hold back when they lapse. What no answer came for may have been
admitted all the same, and so is settled for nothing.

Without the server limits go on from this process's memory, each at its part (limit ÷ `nodes`), and what costs money is
refused with 503: how much of the credit the other gateways have held cannot be known here. With data lost on the
server, a purse begins anew with what the store says: charges of the last second or two and running requests' holds are
missing from that. One server (with replicas, if you like), not a cluster: an admission touches keys of many names.
"""

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable
from hashlib import sha1
from importlib.resources import files
from typing import Any, Final

import hiredis
import msgspec
import structlog

from vipcloud.clock import Clock
from vipcloud.errors import Unavailable
from vipcloud.limits.caps import Caps
from vipcloud.limits.connection import Away, Client
from vipcloud.limits.guard import Booked, Permit, Purse, Subject
from vipcloud.limits.local import CONCURRENCY_RETRY_S, LimitKind, LocalGuard, rate_limited, unaffordable
from vipcloud.limits.rules import Ask, Standing, jittered
from vipcloud.money import NanoUSD

SCRIPT = files("vipcloud.limits").joinpath("admission.lua").read_bytes()
DIGEST: Final = sha1(SCRIPT, usedforsecurity=False).hexdigest()  # what EVALSHA calls it by
KINDS: Final[dict[int, LimitKind]] = {1: "rpm", 2: "rpd", 3: "concurrency"}
AWAY_RETRY_S = 2.0
READY_WITHIN_S = 3.0
OPENINGS_MAX = 3  # tries to admit while another gateway loses and finds the server's data


def _word(text: bytes) -> bytes:
    """As it stands in a command on the wire (RESP: redis.io/docs, protocol spec, bulk strings)."""
    return b"$%d\r\n%b\r\n" % (len(text), text)


# The beginning of every call of the script, without the number of its words: hiredis takes ten thousand instructions to
# pack it, a third of all that a request costs more with a shared guard.
_EVALSHA: Final = _word(b"EVALSHA") + _word(DIGEST.encode()) + _word(b"0")
_pack: Final = msgspec.msgpack.Encoder().encode
log = structlog.get_logger(__name__)


Reread = Callable[[Purse], Awaitable[Booked]]


class ValkeyGuard:
    """`reread` asks the store anew about a purse that the server does not know. `now_us` sets the script's clock, for
    tests. `run` keeps the connection and tells what has not been told; nothing works without it."""

    def __init__(
        self,
        client: Client,
        clock: Clock,
        lease_s: float,
        nodes: int,
        reread: Reread,
        chance: Callable[[], float] = random.random,
        now_us: Callable[[], int] | None = None,
    ) -> None:
        self._client = client
        self._lease_us = int(lease_s * 1_000_000)
        self._reread = reread
        self._chance = chance
        self._now_us = now_us
        self._fallback = LocalGuard(clock, lease_s, chance, share=1 / nodes)
        self._fallen_back: set[str] = set()  # requests that the fallback has admitted
        self._untold: dict[str, tuple[bytes, bytes]] = {}  # by request: settlements that have not been heard of
        self._telling: set[asyncio.Future[None]] = set()
        self._degraded = False

    @property
    def degraded(self) -> str:
        """Why limits are not the published ones; empty while they are."""
        return "" if self._client.connected and not self._degraded else "limits: the shared counts cannot be reached"

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._client.run())
            tasks.create_task(self._retell())

    async def ready(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(READY_WITHIN_S):
                await self._client.up.wait()

    async def admit(self, request_id: str, subject: Subject, ask: Ask, wall_s: float) -> Permit:
        details = self._asked(request_id, ask)
        try:
            answer = await self._ask_opened(b"admit", subject, details)
        except asyncio.CancelledError:
            self._abandon(request_id, subject)
            raise
        except Away as error:
            if error.sent:
                self._abandon(request_id, subject)
            return self._fall_back(error, request_id, subject, ask, wall_s)
        if self._degraded:
            self._degraded = False
            log.info("limits_restored")
        kind = answer[0]
        if kind == 0:
            _, tokens, first, held, limit, remaining, reset_us, day_limit, day_remaining, day = answer
            reset_s = reset_us / 1_000_000
            return Permit(
                request_id, subject, ask, day, NanoUSD(held), tokens, first,
                limit, remaining, reset_s, day_limit, day_remaining,
            )  # fmt: skip
        if kind == 1:
            _, place, which, wait_us = answer
            wait_s = wait_us / 1_000_000 if which != 3 else CONCURRENCY_RETRY_S
            meter, limit = subject.meters[place - 1], KINDS[which]
            raise rate_limited(meter, limit, getattr(meter.limits, limit), jittered(wait_s, self._chance()))
        if kind == 2:
            _, place, left, capped = answer
            raise unaffordable(left, capped=bool(capped), of_key=place > 1)
        raise Unavailable("Credit cannot be checked at present.", retry_after_s=AWAY_RETRY_S)

    def extend(self, permit: Permit, tokens: int, refused: Callable[[], None]) -> None:
        assert not permit.settled, "only a running request needs more"
        wanted = min(permit.held_tokens + tokens, permit.output_tokens)
        more = permit.ask.hold(wanted) - permit.held_nanousd
        if not more:
            return  # all of it is held for, or it is free

        def heard(future: asyncio.Future[Any]) -> None:
            if future.cancelled() or future.exception() is not None or future.result() != 1:
                refused()
            elif not permit.settled:
                permit.held_tokens, permit.held_nanousd = wanted, NanoUSD(permit.held_nanousd + more)

        try:
            future = self._call(b"extend", permit.subject, _pack((permit.request_id, more)))
        except Away:
            refused()
            return
        self._watch(future, heard)

    async def rehold(self, permit: Permit, ask: Ask) -> None:
        assert not permit.settled, "only a running request holds anything"
        if permit.request_id in self._fallen_back:
            if ask.hold(ask.output_tokens):
                raise Unavailable("Credit cannot be checked at present.", retry_after_s=AWAY_RETRY_S)
            await self._fallback.rehold(permit, ask)
            return
        try:
            details = self._asked(permit.request_id, ask, permit.day)
            answer = await self._ask_opened(b"rehold", permit.subject, details)
        except Away as error:
            raise Unavailable("Credit cannot be checked at present.", retry_after_s=AWAY_RETRY_S) from error
        if answer[0] == 2:
            _, place, left, capped = answer
            raise unaffordable(left, capped=bool(capped), of_key=place > 1)
        if answer[0] != 0:
            raise Unavailable("Credit cannot be checked at present.", retry_after_s=AWAY_RETRY_S)
        _, tokens, first, held = answer
        permit.ask, permit.held_nanousd, permit.output_tokens, permit.held_tokens = ask, NanoUSD(held), tokens, first

    def _asked(self, request_id: str, ask: Ask, day: int | None = None) -> bytes:
        asked = request_id, self._lease_us, ask.input_nanousd, ask.output_price, ask.output_tokens, ask.slice_tokens
        return _pack(asked if day is None else (*asked, day))

    def settle(self, permit: Permit, charge: NanoUSD) -> None:
        assert not permit.settled, "a permit is settled once"
        assert 0 <= charge <= permit.held_nanousd, "a hold is the ceiling of its request"
        if permit.request_id in self._fallen_back:
            self._fallen_back.remove(permit.request_id)
            self._fallback.settle(permit, charge)
            return
        permit.settled = True
        if permit.held_nanousd or any(meter.limits.concurrency for meter in permit.subject.meters):
            self._tell(permit.request_id, permit.subject, charge, permit.day)

    async def standing(self, subject: Subject, wall_s: float) -> Standing:
        answer = None
        with contextlib.suppress(Away):
            answer = await self._ask(b"standing", subject, _pack(("",)))
        if answer is None:
            return await self._fallback.standing(subject, wall_s)
        limit, remaining, reset_us, day_limit, day_remaining = answer
        return Standing(limit, remaining, reset_us / 1_000_000, day_limit, day_remaining)

    async def flushed(self) -> None:
        if self._telling:
            await asyncio.wait(set(self._telling))

    # --- the server

    def _call(self, operation: bytes, subject: Subject, details: bytes) -> asyncio.Future[Any]:
        return self._send(operation, subject.packed or _packed(subject), details)

    def _send(self, operation: bytes, packed: bytes, details: bytes) -> asyncio.Future[Any]:
        """Raises Away."""
        return self._client.call_packed(
            b"*%d\r\n%b$%d\r\n%b\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n%b"
            % (
                6 if self._now_us is None else 7,
                _EVALSHA,
                len(operation),
                operation,
                len(packed),
                packed,
                len(details),
                details,
                b"" if self._now_us is None else _word(b"%d" % self._now_us()),
            )
        )

    async def _ask(self, operation: bytes, subject: Subject, details: bytes) -> Any:
        """The script's answer. Raises Away, also where the server cannot do its work at present."""
        answer = await self._call(operation, subject, details)
        if isinstance(answer, hiredis.ReplyError):
            if str(answer).startswith("NOSCRIPT"):
                await self.load()
                answer = await self._call(operation, subject, details)
            if isinstance(answer, hiredis.ReplyError):
                raise Away(str(answer))
        return answer

    async def _ask_opened(self, operation: bytes, subject: Subject, details: bytes) -> Any:
        """As `_ask`, after the purses that the server does not know yet were opened."""
        answer = await self._ask(operation, subject, details)
        for _ in range(OPENINGS_MAX):
            if answer[0] != 3:
                break
            await self._open(subject)
            answer = await self._ask(operation, subject, details)
        return answer

    async def load(self) -> None:
        answer = await self._client.call("SCRIPT", "LOAD", SCRIPT)
        if isinstance(answer, hiredis.ReplyError):
            raise Away(str(answer))

    async def _open(self, subject: Subject) -> None:
        booked = [await self._reread(purse) for purse in subject.purses]
        fresh = Subject(
            (),
            tuple(
                Purse(purse.id, purse.granted_nanousd, charged, purse.caps, spent)
                for purse, (charged, spent) in zip(subject.purses, booked, strict=True)
            ),
        )
        await self._ask(b"open", fresh, _pack(("", [spent for _, spent in booked])))

    # --- without the server

    def _fall_back(self, error: Away, request_id: str, subject: Subject, ask: Ask, wall_s: float) -> Permit:
        if not self._degraded:
            self._degraded = True
            log.error("limits_degraded", reason=str(error))
        if ask.hold(ask.output_tokens):
            raise Unavailable("Credit cannot be checked at present.", retry_after_s=AWAY_RETRY_S) from error
        permit = self._fallback.admit_now(request_id, subject, ask, wall_s)
        self._fallen_back.add(request_id)
        return permit

    # --- telling

    def _abandon(self, request_id: str, subject: Subject) -> None:
        """Whatever became of its admission, nobody waits for it any more."""
        self._tell(request_id, subject, 0, 0)

    def _tell(self, request_id: str, subject: Subject, charge: int, day: int) -> None:
        self._untold[request_id] = subject.packed or _packed(subject), _pack((request_id, charge, day, 1))
        try:
            future = self._call(b"settle", subject, _pack((request_id, charge, day, 0)))
        except Away:
            return
        self._telling.add(future)
        future.add_done_callback(_Settlement(self, request_id).heard)

    def told(self, request_id: str, future: asyncio.Future[Any]) -> None:
        """A settlement has been answered, or never will be."""
        self._telling.discard(future)
        if not future.cancelled() and future.exception() is None and future.result() == 1:
            self._untold.pop(request_id, None)
        else:
            self._client.changed.set()  # `_retell` looks after it

    async def _retell(self) -> None:
        """Tell again what was not heard, whenever the connection is there again, oldest first."""
        while True:
            await self._client.changed.wait()
            self._client.changed.clear()
            try:
                await self.load()
                for request_id, (packed, details) in list(self._untold.items()):
                    if await self._send(b"settle", packed, details) == 1:
                        self._untold.pop(request_id, None)
            except Away:
                continue

    def _watch(self, future: asyncio.Future[Any], heard: Callable[[asyncio.Future[Any]], None]) -> None:
        self._telling.add(future)
        future.add_done_callback(self._telling.discard)
        future.add_done_callback(heard)


class _Settlement:
    """One that is under way to the server."""

    def __init__(self, guard: ValkeyGuard, request_id: str) -> None:
        self._guard = guard
        self._request_id = request_id

    def heard(self, future: asyncio.Future[Any]) -> None:
        self._guard.told(self._request_id, future)


def _packed(subject: Subject) -> bytes:
    """The subject as the script takes it, made once."""
    meters = [(meter.id, meter.limits.rpm, meter.limits.rpd, meter.limits.concurrency) for meter in subject.meters]
    purses = []
    for purse in subject.purses:
        caps = purse.caps or Caps()
        amounts = (caps.daily_nanousd, caps.monthly_nanousd, caps.total_nanousd)
        limits = [-1 if amount is None else amount for amount in amounts]
        purses.append((purse.id, purse.granted_nanousd, purse.charged_nanousd, *limits))
    subject.packed = _pack((meters, purses))
    return subject.packed

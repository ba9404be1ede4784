"""The guard on Valkey or Redis, for several gateways that share their counts: `admission.lua`, one call for many.

What is asked in one turn of the loop goes in one call. Settlements, which nobody waits for, wait a little for an
admission to go with. Counts go by the server's clock. A settlement that was not heard is told again after a lost
connection, and after growing pauses where the server cannot write it, until its hold has lapsed; then the server is
told what the books say of these purses, again and again until they surely have the charge. A request whose gateway died
gives its place and its hold back when they lapse. What no answer came for may have been admitted all the same, and so
is settled for nothing.

Without the server limits go on from this process's memory, each at its part (limit ÷ `nodes`), and what costs money is
refused with 503: how much of the credit the other gateways have held cannot be known here. What runs goes on: a request
was admitted with credit for all of its answer, and asks for its next slice until it is heard. With data lost on the
server, a purse begins anew with what the store says. Charges of the last second or two are missing from that until the
store is asked again, soon after, and running requests' holds until they ask for their next slice. One server (with
replicas, if you like), not a cluster: an admission touches keys of many names.
"""

import asyncio
import contextlib
import math
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
from vipcloud.limits.connection import Away, Client, Connection, Waiter
from vipcloud.limits.guard import Booked, Permit, Purse, Subject
from vipcloud.limits.local import CONCURRENCY_RETRY_S, LimitKind, LocalGuard, rate_limited, unaffordable
from vipcloud.limits.rules import Ask, Standing, jittered
from vipcloud.money import NanoUSD

SCRIPT = files("vipcloud.limits").joinpath("admission.lua").read_bytes()
DIGEST: Final = sha1(SCRIPT, usedforsecurity=False).hexdigest()  # what EVALSHA calls it by
KINDS: Final[dict[int, LimitKind]] = {1: "rpm", 2: "rpd", 3: "concurrency"}
AWAY_RETRY_S = 2.0
READY_WITHIN_S = 3.0
TOGETHER_MAX: Final = 64  # operations in one call: the server does nothing else meanwhile, for a millisecond or two
SETTLEMENT_WAITS_S: Final = 0.002  # at most, for an admission to go with
UNKNOWN: Final = 3  # the kind of answer that the script gives for a purse that it does not know
HEARD: Final = 1
UNSURE: Final = 2  # whether the charge is counted: it was told again, or its purse is not known
UNHEARD_MAX = 20_000  # settlements, some 10 MB; and as many purses that charges may be missing from
RETELL_S_MIN, RETELL_S_MAX = 1.0, 60.0  # pauses
BOOKED_WITHIN_S = 10.0  # as a rule: from a request's end until the books have its charge, whichever gateway booked it
LOOK_AGAIN_S_MIN, LOOK_AGAIN_S_MAX = 160.0, 640.0  # the last pause at least; pauses, each four times the one before
SERVERS_OWN: Final = ("OOM", "MISCONF", "READONLY", "NOREPLICAS", "NOPERM")  # refusals of any write; others, of a key
SAID_EVERY_S = 60.0
OPENINGS_MAX = 3  # tries to admit while another gateway loses and finds the server's data


def _word(text: bytes) -> bytes:
    """As it stands in a command on the wire (RESP: redis.io/docs, protocol spec, bulk strings)."""
    return b"$%d\r\n%b\r\n" % (len(text), text)


# Calls of the script are written as they go over the wire: hiredis takes ten thousand instructions to pack one. This is
# how each begins, but for the number of its words.
_EVALSHA: Final = _word(b"EVALSHA") + _word(DIGEST.encode()) + _word(b"0")
_ADMIT: Final = "admit"
_SETTLE: Final = "settle"
_EXTEND: Final = "extend"
_REHOLD: Final = "rehold"
_STANDING: Final = "standing"
_OPEN: Final = "open"
_pack: Final = msgspec.msgpack.Encoder().encode
_unpacked: Final = msgspec.msgpack.Decoder(list).decode
log = structlog.get_logger(__name__)


Reread = Callable[[Purse], Awaitable[Booked]]


class _Unreadable(Away):
    """A key of this subject's own holds something else than it should; the server works."""


class ValkeyGuard:
    """`reread` asks the store anew about a purse that the server does not know. `booked_until` tells up to which time
    (wall) it has all of this gateway's charges. `now_us` sets the script's clock, for tests. `run` keeps the connection
    and tells what has not been told; nothing works without it."""

    def __init__(
        self,
        client: Client,
        clock: Clock,
        lease_s: float,
        nodes: int,
        reread: Reread,
        chance: Callable[[], float] = random.random,
        now_us: Callable[[], int] | None = None,
        booked_until: Callable[[], float] = lambda: math.inf,
    ) -> None:
        self._client = client
        self._clock = clock
        self._lease_s = lease_s
        self._lease_us = int(lease_s * 1_000_000)
        self._reread = reread
        self._booked_until = booked_until
        self._chance = chance
        self._now_us = now_us
        self._fallback = LocalGuard(clock, lease_s, chance, share=1 / nodes)
        self._fallen_back: set[str] = set()  # requests that the fallback has admitted
        self._untold: dict[str, _Settlement] = {}  # by request: those that have not been heard of
        self._unheard: dict[str, float] = {}  # of these, those that will not be unless told again, oldest first; since
        self._unsure: dict[str, _LookUp] = {}  # purses that charges may be missing from
        self._doubted: set[str] = set()  # running requests of which a lost connection may still extend a hold
        self._given_up = 0  # settlements, since that was last said
        self._refused = False  # whether the server could not write a settlement, and that was said
        self._gathered = _Batch(self)  # what goes next
        self._last: _Batch | None = None  # of those that are under way
        self._asking = 0  # operations whose answer is waited for
        self._soon = self._later = False  # whether a turn of the loop, or a time, is waited for
        self._degraded = False
        self._say_from_s = 0.0  # monotonic: when a key that cannot be read may be said again

    @property
    def degraded(self) -> str:
        """Why limits are not the published ones; empty while they are."""
        return "" if self._client.connected and not self._degraded else "limits: the shared counts cannot be reached"

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._client.run())
            tasks.create_task(self._retell())
            tasks.create_task(self._look_up())

    async def ready(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(READY_WITHIN_S):
                await self._client.up.wait()

    async def admit(self, request_id: str, subject: Subject, ask: Ask, wall_s: float) -> Permit:
        details = self._asked(request_id, ask)
        try:
            answer = await self._call(_ADMIT, subject, details)
            if type(answer) is not list or answer[0] == UNKNOWN:
                answer = await self._mended(answer, _ADMIT, subject, details)
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
        amount = permit.ask.hold(wanted)
        if amount == permit.held_nanousd:
            return  # all of it is held for, or it is free

        def heard(future: asyncio.Future[Any]) -> None:
            error = None if future.cancelled() else future.exception()
            if isinstance(error, Away) and error.sent and not permit.settled:
                self._doubted.add(permit.request_id)
            answer = None if future.cancelled() or error is not None else future.result()
            if answer == 0:
                refused()
            elif answer == 1:
                if amount > permit.held_nanousd and not permit.settled:
                    permit.held_tokens, permit.held_nanousd = wanted, amount
            elif answer == UNKNOWN:
                for purse in permit.subject.purses:  # nobody else may come to open them
                    self._look_up_later(purse.id, 0.0)
            elif isinstance(answer, hiredis.ReplyError):
                self._client.changed.set()  # it may have forgotten the script: `_retell` gives it to it

        with contextlib.suppress(Away):
            details = permit.request_id, amount, permit.day, self._lease_us
            self._call(_EXTEND, permit.subject, details).add_done_callback(heard)

    async def rehold(self, permit: Permit, ask: Ask) -> None:
        assert not permit.settled, "only a running request holds anything"
        if permit.request_id in self._fallen_back:
            if ask.hold(ask.output_tokens):
                raise Unavailable("Credit cannot be checked at present.", retry_after_s=AWAY_RETRY_S)
            await self._fallback.rehold(permit, ask)
            return
        try:
            details = (*self._asked(permit.request_id, ask), permit.day)
            answer = await self._call(_REHOLD, permit.subject, details)
            answer = await self._mended(answer, _REHOLD, permit.subject, details)
        except Away as error:
            raise Unavailable("Credit cannot be checked at present.", retry_after_s=AWAY_RETRY_S) from error
        if answer[0] == 2:
            _, place, left, capped = answer
            raise unaffordable(left, capped=bool(capped), of_key=place > 1)
        if answer[0] != 0:
            raise Unavailable("Credit cannot be checked at present.", retry_after_s=AWAY_RETRY_S)
        _, tokens, first, held = answer
        permit.ask, permit.held_nanousd, permit.output_tokens, permit.held_tokens = ask, NanoUSD(held), tokens, first

    def _asked(self, request_id: str, ask: Ask) -> tuple[Any, ...]:
        return request_id, self._lease_us, ask.input_nanousd, ask.output_price, ask.output_tokens, ask.slice_tokens

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
            answer = await self._ask(_STANDING, subject, ("",))
        if answer is None:
            return await self._fallback.standing(subject, wall_s)
        limit, remaining, reset_us, day_limit, day_remaining = answer
        return Standing(limit, remaining, reset_us / 1_000_000, day_limit, day_remaining)

    async def flushed(self) -> None:
        self._send()
        batch = self._last
        if batch is not None:
            heard: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            batch.listeners.append(heard)
            await heard

    # --- the server

    def _call(self, name: str, subject: Subject, details: tuple[Any, ...]) -> asyncio.Future[Any]:
        """The script's answer to come; errors are answers too. Raises Away."""
        return self._call_packed(name, subject.packed or _packed(subject), details)

    def _call_packed(self, name: str, packed: bytes, details: tuple[Any, ...]) -> asyncio.Future[Any]:
        connection = self._client.connection
        if connection is None:
            raise Away("there is no connection")
        if self._asking >= self._client.waiting_max:
            raise Away("too many calls are waiting")
        self._asking += 1
        future: asyncio.Future[Any] = connection.loop.create_future()
        batch = self._gathered
        batch.asked += 1
        self._gather(connection, name, packed, details, future)
        if not self._soon and self._gathered is batch:
            self._soon = True
            connection.loop.call_soon(self._turned)
        return future

    def _gather(
        self,
        connection: Connection,
        name: str,
        packed: bytes,
        details: tuple[Any, ...],
        whose: "asyncio.Future[Any] | _Settlement",
    ) -> None:
        batch = self._gathered
        if not batch.whose:
            batch.since_s = connection.loop.time()
        batch.whose.append(whose)
        subjects = batch.subjects
        place = subjects.get(packed)
        if place is None:
            place = subjects[packed] = len(subjects) + 1
        batch.operations.append((name, place, details))
        if len(batch.whose) >= TOGETHER_MAX:
            self._send()

    def _turned(self) -> None:
        """The turn of the loop that somebody asked in is over."""
        self._soon = False
        self._send()

    def _waited(self) -> None:
        """Settlements have waited long enough for somebody to ask."""
        self._later = False
        self._send()

    def _send(self) -> None:
        batch = self._gathered
        if not batch.whose:
            return
        self._gathered = _Batch(self)
        connection = self._client.connection
        try:
            if connection is None:
                raise Away("there is no connection")
            connection.call_packed(batch.command(self._now_us), batch, batch.since_s)
        except Away as error:
            batch.failed(error)
        except OverflowError:
            batch.failed(Away("a number has more than 64 bits"))
        else:
            self._last = batch

    def ended(self, batch: "_Batch") -> None:
        """It was answered, or never will be."""
        self._asking -= batch.asked
        if self._last is batch:
            self._last = None

    async def _ask(self, name: str, subject: Subject, details: tuple[Any, ...]) -> Any:
        """The script's answer. Raises Away, also where the server cannot do its work at present."""
        return await self._loaded(await self._call(name, subject, details), name, subject, details)

    async def _loaded(self, answer: Any, name: str, subject: Subject, details: tuple[Any, ...]) -> Any:
        """The answer, or the next one if the server had to be given the script. Raises Away for other errors."""
        if isinstance(answer, hiredis.ReplyError) and str(answer).startswith("NOSCRIPT"):
            await self.load()
            answer = await self._call(name, subject, details)
        if isinstance(answer, (hiredis.ReplyError, str)):
            self._look_at(answer)
            own = isinstance(answer, str) and not answer.startswith(SERVERS_OWN)
            raise _Unreadable(str(answer)) if own else Away(str(answer))
        return answer

    def _look_at(self, refusal: hiredis.ReplyError | str) -> None:
        if str(refusal).startswith("READONLY"):
            self._client.leave()  # another has taken over

    async def _mended(self, answer: Any, name: str, subject: Subject, details: tuple[Any, ...]) -> Any:
        """As `_loaded`, and after the purses that the server does not know yet were opened."""
        answer = await self._loaded(answer, name, subject, details)
        for _ in range(OPENINGS_MAX):
            if answer[0] != UNKNOWN:
                break
            await self._open(subject)
            answer = await self._ask(name, subject, details)
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
        await self._ask(_OPEN, fresh, ("", [spent for _, spent in booked]))
        for purse in subject.purses:
            self._look_up_later(purse.id, BOOKED_WITHIN_S)  # the books may lack the last charges

    # --- without the server

    def _fall_back(self, error: Away, request_id: str, subject: Subject, ask: Ask, wall_s: float) -> Permit:
        if isinstance(error, _Unreadable):
            now_s = self._clock.monotonic_s()
            if now_s >= self._say_from_s:
                self._say_from_s = now_s + SAID_EVERY_S
                log.error("limits_unreadable", reason=str(error), whose=[purse.id for purse in subject.purses])
        elif not self._degraded:
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
        again = 0
        if request_id in self._doubted:
            self._doubted.remove(request_id)
            again = 1  # so that it leaves a mark for the extension
        packed = subject.packed or _packed(subject)
        settlement = self._untold[request_id] = _Settlement(request_id, packed, charge, day)
        connection = self._client.connection
        if connection is None:
            self._note_unheard(settlement)
            return
        self._gather(connection, _SETTLE, packed, settlement.details(again=again), settlement)
        if not self._soon and not self._later:
            self._later = True
            connection.loop.call_later(SETTLEMENT_WAITS_S, self._waited)

    def note_answer(self, settlement: "_Settlement", answer: object) -> None:
        if self._untold.get(settlement.request_id) is not settlement:
            return  # it was heard, or given up, meanwhile
        if answer in (HEARD, UNSURE):
            del self._untold[settlement.request_id]
            again = self._unheard.pop(settlement.request_id, None) is not None
            if answer == UNSURE:
                self._note_unsure(settlement, 0.0 if again else BOOKED_WITHIN_S)
            return
        self._note_unheard(settlement)
        if isinstance(answer, hiredis.ReplyError) and str(answer).startswith("NOSCRIPT"):
            self._client.changed.set()  # `_retell` gives it the script
        elif isinstance(answer, (hiredis.ReplyError, str)):
            self._look_at(answer)
            if not self._refused:
                self._refused = True
                log.error("settlements_refused", reason=str(answer))

    def _note_unheard(self, settlement: "_Settlement") -> None:
        self._unheard.setdefault(settlement.request_id, self._clock.monotonic_s())
        if len(self._unheard) > UNHEARD_MAX:
            self._give_up(next(iter(self._unheard)))

    def _give_up(self, request_id: str) -> None:
        """What it held lapses by itself; what it was charged is in the books."""
        del self._unheard[request_id]
        self._note_unsure(self._untold.pop(request_id), 0.0)
        self._given_up += 1

    def _note_unsure(self, settlement: "_Settlement", in_s: float) -> None:
        if settlement.charge:
            for purse in _unpacked(settlement.packed)[1]:
                self._look_up_later(purse[0], in_s)

    def _look_up_later(self, purse_id: str, in_s: float) -> None:
        due_s, before = self._clock.monotonic_s() + in_s, self._unsure.get(purse_id)
        if before is not None:
            due_s = min(due_s, before.due_s)
        self._unsure[purse_id] = _LookUp(due_s, self._clock.wall_s())
        if len(self._unsure) > UNHEARD_MAX:  # it is set right when a gateway reads its account anew
            del self._unsure[next(iter(self._unsure))]

    async def _retell(self) -> None:
        """Tell again what was not heard: whenever the connection is there again, and after pauses."""
        changed, pause_s = self._client.changed, RETELL_S_MIN
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await changed.wait()
            if changed.is_set():
                changed.clear()
                pause_s = RETELL_S_MIN
            elif not self._unheard:
                pause_s = RETELL_S_MIN
                continue
            with contextlib.suppress(Away):
                await self.load()
                await self.tell_again()
            pause_s = min(2 * pause_s, RETELL_S_MAX)

    async def tell_again(self) -> None:
        """Oldest first. Raises Away."""
        untold = list(self._unheard)
        for place in range(0, len(untold), TOGETHER_MAX):
            connection = self._client.connection
            if connection is None:
                raise Away("there is no connection")
            for request_id in untold[place : place + TOGETHER_MAX]:
                settlement = self._untold.get(request_id)
                if settlement is not None:
                    details = settlement.details(again=self._ended_us_ago(request_id))
                    self._gather(connection, _SETTLE, settlement.packed, details, settlement)
            await self.flushed()
        overdue_s = self._clock.monotonic_s() - self._lease_s
        for request_id in [name for name, since_s in self._unheard.items() if since_s <= overdue_s]:
            self._give_up(request_id)
        if self._given_up:
            log.error("settlements_given_up", count=self._given_up)
            self._given_up = 0
        if self._refused and not self._unheard:
            self._refused = False
            log.info("settlements_told")

    def _ended_us_ago(self, request_id: str) -> int:
        """At most: its first telling had a time limit, and so has the next."""
        ago_s = self._clock.monotonic_s() - self._unheard.get(request_id, 0.0)
        return max(1, int((ago_s + 2 * self._client.timeout_s) * 1_000_000))

    async def _look_up(self) -> None:
        while True:
            await asyncio.sleep(RETELL_S_MIN)
            with contextlib.suppress(Away):
                await self.look_up()

    async def look_up(self) -> None:
        """Tell the server what the books say of purses that charges may be missing from. Raises Away."""
        now_s = self._clock.monotonic_s()
        due = [purse_id for purse_id, look_up in self._unsure.items() if look_up.due_s <= now_s]
        if not due:
            return
        await self.load()
        until_s = self._booked_until()  # what the store is asked after that has at least so much
        for purse_id in due:
            look_up = self._unsure.get(purse_id)
            purse = Purse(purse_id, 0, 0)
            try:
                purse.charged_nanousd, purse.spent = await self._reread(purse)
            except Unavailable:
                return  # until the store is back
            answer = await self._call(_OPEN, Subject((), (purse,)), ("", [purse.spent]))
            if look_up is None or self._unsure.get(purse_id) is not look_up:
                continue  # something more may be missing meanwhile
            if answer != HEARD:
                look_up.due_s = now_s + BOOKED_WITHIN_S
            elif not look_up.again(now_s, until_s):
                del self._unsure[purse_id]


class _LookUp:
    """Of a purse that charges of before `cause_s` (wall) may be missing from: this gateway's, and others'."""

    def __init__(self, due_s: float, cause_s: float) -> None:
        self.due_s = due_s
        self._cause_s = cause_s
        self._pause_s = BOOKED_WITHIN_S

    def again(self, now_s: float, until_s: float) -> bool:
        """Whether it must be done again: `until_s` says up to when the books had this gateway's charges, and time alone
        that others' bookkeepers have come so far."""
        if self._pause_s > LOOK_AGAIN_S_MIN and until_s > self._cause_s:
            return False
        self.due_s = now_s + self._pause_s
        self._pause_s = min(4 * self._pause_s, LOOK_AGAIN_S_MAX)
        return True


class _Settlement:
    """What is told of a request's end."""

    def __init__(self, request_id: str, packed: bytes, charge: int, day: int) -> None:
        self.request_id = request_id
        self.packed = packed
        self.charge = charge
        self._day = day

    def details(self, *, again: int) -> tuple[Any, ...]:
        return self.request_id, self.charge, self._day, again


class _Batch(Waiter):
    """One call of the script, for operations that are done in their order."""

    def __init__(self, guard: ValkeyGuard) -> None:
        self._guard = guard
        self.subjects: dict[bytes, int] = {}  # as they were packed, with their places from 1 on
        self.operations: list[tuple[str, int, tuple[Any, ...]]] = []  # the name, the subject's place, and details
        self.whose: list[asyncio.Future[Any] | _Settlement] = []  # the operations' answers
        self.asked = 0  # how many of them are waited for
        self.since_s = 0.0  # when the first was asked for
        self.listeners: list[asyncio.Future[None]] = []

    def command(self, now_us: Callable[[], int] | None) -> bytes:
        """As it goes over the wire."""
        asked = _word(_pack(([msgspec.Raw(subject) for subject in self.subjects], self.operations)))
        if now_us is None:
            return b"*4\r\n%b%b" % (_EVALSHA, asked)
        return b"*5\r\n%b%b%b" % (_EVALSHA, asked, _word(b"%d" % now_us()))

    def answered(self, answer: object) -> None:
        whose = self.whose
        answers: list[Any] = []
        if isinstance(answer, bytes):
            answers = _unpacked(answer)
        if len(answers) != len(whose):
            answers = [answer] * len(whose)
        for place in range(len(whose)):
            who = whose[place]
            if isinstance(who, _Settlement):
                self._guard.note_answer(who, answers[place])
            elif not who.done():  # who asked may have gone
                who.set_result(answers[place])
        self._end()

    def failed(self, error: Away) -> None:
        for who in self.whose:
            if isinstance(who, _Settlement):
                self._guard.note_answer(who, error)
            elif not who.done():
                who.set_exception(error)
        self._end()

    def _end(self) -> None:
        self._guard.ended(self)
        for listener in self.listeners:
            if not listener.done():
                listener.set_result(None)


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

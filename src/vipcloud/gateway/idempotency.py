"""`Idempotency-Key` on completions: the same key never generates or charges twice.

    first use                        goes on; the key is its request's while that runs, and for good if it is answered
    same body, request runs          409 request_in_progress
    same body, request was answered  409 already_answered, with its id and charge: its content is kept nowhere
    another body                     422 idempotency_key_reused (IETF draft-ietf-httpapi-idempotency-key-header, 2.7)
    the request failed, uncharged    the key is free again

A key is first claimed in memory, in one step, and then looked up in the store; so of two that come at once one is told
of the other. Entries leave memory only when the bookkeeper has them in the store. Keys are an account's own.
"""

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterable

from msgspec import Struct
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from vipcloud.clock import Clock
from vipcloud.errors import (
    AlreadyAnswered,
    BadRequest,
    GatewayError,
    IdempotencyKeyReused,
    RequestInProgress,
    Unavailable,
)
from vipcloud.ledger import used_keys
from vipcloud.ledger.used_keys import Name
from vipcloud.money import NanoUSD, format_usd
from vipcloud.settings import IdempotencySettings
from vipcloud.storage import engine as storage


class Claim(Struct, eq=False):
    """A key in the hands of one request. `charge_nanousd` and `ended_s` (wall) are None while it runs."""

    name: Name
    body_hash: bytes
    request_id: str
    charge_nanousd: int | None = None
    answered: bool = False
    ended_s: float | None = None

    def settle(self, charge_nanousd: int, *, answered: bool) -> None:
        self.charge_nanousd = charge_nanousd
        self.answered = answered or charge_nanousd > 0


class Idempotency:
    """Belongs to one event loop. `booked_until` tells up to which time (wall) everything is in the store."""

    def __init__(
        self, engine: Engine, clock: Clock, settings: IdempotencySettings, booked_until: Callable[[], float]
    ) -> None:
        self._engine = engine
        self._clock = clock
        self._settings = settings
        self._booked_until = booked_until
        self._claims: OrderedDict[Name, Claim] = OrderedDict()
        self.follow: Callable[[Claim], None] | None = None  # is told of every claim that is released

    async def claim(self, account_id: str, key: bytes, body: bytes, request_id: str) -> Claim:
        """Take `key` for a request; give it back with `release`.

        Raises RequestInProgress, AlreadyAnswered, IdempotencyKeyReused; BadRequest for a key that is too long, and
        Unavailable where it cannot be looked up.
        """
        if not 0 < len(key) <= self._settings.key_bytes_max:
            raise BadRequest(f"An Idempotency-Key has 1 to {self._settings.key_bytes_max} bytes.")
        name = account_id, hashlib.sha256(key).digest()
        made = Claim(name, hashlib.sha256(body).digest(), request_id)
        known = self._claims.get(name)
        if known is not None:
            raise conflict(known, made.body_hash)
        self._make_room()
        self._claims[name] = made
        try:
            used = await asyncio.to_thread(self._find, name)
        except SQLAlchemyError as error:
            self._claims.pop(name)
            raise Unavailable("The Idempotency-Key cannot be looked up right now.", retry_after_s=1) from error
        except BaseException:
            self._claims.pop(name)
            raise
        if used is None:
            return made
        self._claims.pop(name)
        charge = used.charge_nanousd
        found = Claim(name, used.body_hash, used.request_id, charge, charge is not None, 0.0)
        raise conflict(found, made.body_hash)

    def release(self, claim: Claim) -> None:
        """The request is over. What was answered or charged stays known; else the key is free."""
        if claim.answered:
            claim.ended_s = self._clock.wall_s()
        else:
            self._claims.pop(claim.name, None)
        if self.follow is not None:
            self.follow(claim)

    def claims(self) -> list[Claim]:
        """All that are in memory."""
        return list(self._claims.values())

    def adopt(self, claims: Iterable[Claim]) -> None:
        """Take over what another gateway has claimed."""
        self._claims.update((claim.name, claim) for claim in claims)

    def released(self, claim: Claim) -> None:
        """`claim`, of another gateway, was released there."""
        known = self._claims.get(claim.name)
        if known is not None and known.request_id == claim.request_id:
            known.charge_nanousd, known.answered = claim.charge_nanousd, claim.answered
            self.release(known)

    def abandon(self, claims: Iterable[Claim]) -> None:
        """Requests of another gateway that never ended: what became of them, the store knows."""
        for claim in claims:
            if claim.ended_s is None and self._claims.get(claim.name) is claim:
                del self._claims[claim.name]

    def _find(self, name: Name) -> used_keys.Used | None:
        with storage.reading(self._engine) as connection:
            return used_keys.find(connection, name, self._clock.wall_s() - self._settings.retention_s)

    def _make_room(self) -> None:
        """Forget the oldest that the store has by now. Raises Unavailable while it has none of them."""
        if len(self._claims) < self._settings.keys_cached_max:
            return
        booked = self._booked_until()
        for name, claim in list(self._claims.items())[: self._settings.keys_cached_max // 8 + 1]:
            if claim.ended_s is not None and claim.ended_s < booked:
                del self._claims[name]
        if len(self._claims) >= self._settings.keys_cached_max:
            raise Unavailable("Too many requests with an Idempotency-Key are not booked yet.", retry_after_s=2)


def conflict(claim: Claim, body_hash: bytes) -> GatewayError:
    """Why a key that `claim` has cannot be used by a request with this body."""
    if claim.body_hash != body_hash:
        return IdempotencyKeyReused("This Idempotency-Key was used for another body.", claim.request_id)
    if claim.charge_nanousd is None or not claim.answered:
        return RequestInProgress(
            f"The request with this Idempotency-Key is running as {claim.request_id}.", claim.request_id
        )
    charge = format_usd(NanoUSD(claim.charge_nanousd))
    return AlreadyAnswered(
        f"The request with this Idempotency-Key was answered as {claim.request_id} and cost ${charge}. Its content is "
        "not kept; GET /v1/generation tells its usage.",
        claim.request_id,
        charge,
    )

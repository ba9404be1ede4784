"""Our accounts at the providers, and the one place where a request leaves for one.

An `UpstreamAccount` is what a provider limits and bills: one or more keys, and what we know of its health. A `Way` is
one candidate of a model over one account, the unit that routing puts in order; a `Pool` holds the ways of a model.
Which of them is taken is decided in `routing`; here its values are kept. Keys are bound to their provider's address and
are never printed.
"""

import dataclasses
import random
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
import structlog

from vipcloud.accounts.directory import Account
from vipcloud.clock import Clock
from vipcloud.dialects.openai import ChatRequest, PlainChat, UserMessage
from vipcloud.errors import GatewayError, NoUpstream, RateLimited, SettingsError, UpstreamFailed, UpstreamTimeout
from vipcloud.gateway import wishes
from vipcloud.http.client import Client, ClientError, ConnectFailed, Origin, Response, Sender, TimedOut, split_url
from vipcloud.http.headers import header_block
from vipcloud.providers import auth, failures, fitness
from vipcloud.providers.models import Candidate, Catalog, Model, Provider
from vipcloud.providers.reply_shapes import ReplyShapes
from vipcloud.routing import rules
from vipcloud.routing.breaker import Breaker
from vipcloud.routing.budget import RetryBudget
from vipcloud.routing.health import AccountHealth
from vipcloud.routing.pace import Pace
from vipcloud.routing.sticky import Sticky
from vipcloud.settings import (
    BreakerSettings,
    Secret,
    Settings,
    UpstreamAccountSettings,
    UpstreamSettings,
    environment_secret,
)

ERROR_BYTES_MAX = 65536
USER_AGENT = "vipcloud/0.1"
REVIEW_S: Final = 0.25  # how often it is looked whether all is well again
RETRY_AFTER_S_MAX = 60.0  # SDKs give up on a longer wait, or take it whole
STICKY_MESSAGES = 4  # at most, and no more than up to the first of the user
STICKY_CHARS = 2048  # of each
AT_ONCE = 1000  # the weight of a failure that opens a breaker by itself
TIME_OUT_WEIGHT: Final = 2  # each makes a caller wait
BLAMELESS: Final = frozenset({"rate_limited", "bad_request", "context_length", "content_filter", "output_filtered"})
HOPELESS: Final = frozenset({"auth", "arrears", "quota_exhausted", "no_access"})  # until someone acts, or much later

log = structlog.get_logger(__name__)


class AttemptFailed(Exception):
    """One upstream call failed before anything of its answer reached the client. `error` is what the caller is told.

    `retryable`: another route may be tried; `again`: this one too. `weight` is what its breaker counts it for.
    """

    def __init__(self, error: GatewayError, *, retryable: bool, again: bool = False, weight: int = 1) -> None:
        super().__init__(error.message)
        self.error = error
        self.retryable = retryable
        self.again = again
        self.weight = weight


@dataclass(slots=True, eq=False)
class UpstreamKey:
    """One key of an account. `steady_heads` has by path and `accept` what `head` returned, unless the key is signed
    anew from time to time."""

    secret: Secret
    steady_heads: dict[tuple[str, str], bytes] = field(default_factory=dict, repr=False)
    _authorization: str = field(default="", repr=False)
    _heads: dict[tuple[str, str], bytes] = field(default_factory=dict, repr=False)

    def forget_heads(self) -> None:
        """What was built of a provider's former row is built anew."""
        self._authorization = ""
        self.steady_heads = {}

    def head(self, account: "UpstreamAccount", now_ms: int, path: str, accept: str) -> bytes:
        """The request line and headers of a call, up to the length of its body."""
        provider = account.provider
        authorization = auth.auth_header(provider, self.secret.reveal(), now_ms)
        if authorization != self._authorization:
            self._authorization = authorization
            self._heads = {}
        head = self._heads.get((path, accept))
        if head is None:
            pairs = [
                ("host", account.origin.address.authority),
                ("authorization", authorization),
                ("content-type", "application/json"),
                ("accept", accept),
                ("accept-encoding", "identity"),
                ("user-agent", USER_AGENT),
                *provider.headers.items(),
            ]
            line = f"POST {account.prefix}{path} HTTP/1.1\r\n".encode()
            head = self._heads[path, accept] = line + header_block(pairs)
            if provider.auth == "bearer":
                self.steady_heads[path, accept] = head
        return head


@dataclass(slots=True, eq=False)
class UpstreamAccount:
    """One of our accounts at a provider. `running` counts its calls under way; `keys` are those not refused so far.
    `prefix` is the path of its address."""

    provider: Provider
    name: str
    keys: list[UpstreamKey]
    origin: Origin
    prefix: str
    health: AccountHealth
    settings: UpstreamAccountSettings
    running: int = 0
    refused_keys: list[UpstreamKey] = field(default_factory=list)
    breakers: dict[str, Breaker] = field(default_factory=dict)  # by the upstream's name of the model
    paces: dict[str, Pace] = field(default_factory=dict)  # likewise
    reply_shapes: dict[str, ReplyShapes] = field(default_factory=dict)  # likewise
    failures: dict[tuple[str, str], int] = field(default_factory=dict)  # by that name and the error's code

    @property
    def id(self) -> str:
        """`deepseek/main`: for logs, metrics and the command line."""
        return f"{self.provider.id}/{self.name}"

    @property
    def key(self) -> UpstreamKey:
        return self.keys[0]

    @property
    def weight(self) -> int:
        return self.settings.weight

    @property
    def reserved(self) -> bool:
        return bool(self.settings.tiers or self.settings.customers)

    def open_to(self, customer: Account) -> bool:
        return not self.reserved or customer.tier in self.settings.tiers or customer.id in self.settings.customers

    def renew(self, provider: Provider, settings: UpstreamAccountSettings) -> None:
        """Take the provider's row of a new catalogue."""
        self.provider = provider
        self.settings = settings
        for key in (*self.keys, *self.refused_keys):
            key.forget_heads()

    def drop_key(self, key: UpstreamKey) -> bool:
        """Use `key` no more; False if it is the only one left."""
        if key not in self.keys:
            return True
        if len(self.keys) == 1:
            return False
        self.keys.remove(key)
        self.refused_keys.append(key)
        return True

    def revive(self) -> None:
        """By hand: as if nothing had happened."""
        self.keys += self.refused_keys
        self.refused_keys.clear()
        self.health.revive()
        for breaker in self.breakers.values():
            breaker.reset()


@dataclass(slots=True, eq=False)
class Way:
    """A candidate over one of our accounts. `preference` is the candidate's place in the catalogue, reserved accounts
    before those for all."""

    candidate: Candidate
    account: UpstreamAccount
    preference: int
    breaker: Breaker
    pace: Pace
    reply_shapes: ReplyShapes
    turn: float = 0.0

    @property
    def model(self) -> str:
        return self.candidate.upstream_model

    @property
    def health(self) -> AccountHealth:
        return self.account.health


@dataclass(slots=True, eq=False)
class Pool:
    """The ways that may serve a request, by preference. `fixed`: while all is well the first is always taken.

    `caching`: the first ones' provider caches prompts, so that a conversation had better stay where it was.
    """

    ways: Sequence[Way]
    fixed: bool = field(init=False)
    caching: bool = field(init=False)
    reserved: bool = field(init=False)
    turn: float = 0.0

    def __post_init__(self) -> None:
        ways = self.ways
        self.fixed = len(ways) < 2 or ways[0].preference < ways[1].preference
        self.caching = bool(ways) and not self.fixed and ways[0].candidate.caches_prompts
        self.reserved = any(way.account.reserved for way in ways)


class Upstreams:
    """All accounts by provider. A new catalogue keeps the accounts whose address and keys stay the same.

    `calm` is True while no account and no breaker has anything to say; then nothing need be asked of them.
    """

    def __init__(
        self, client: Client, clock: Clock, settings: Settings, jitter: Callable[[], float] = random.random
    ) -> None:
        self._client = client
        self._clock = clock
        self._settings = settings.upstreams
        self._breaker_settings: BreakerSettings = settings.breaker
        self._jitter = jitter
        self._accounts: dict[str, list[UpstreamAccount]] = {}
        self._pools: dict[str, Pool] = {}
        self._candidates: dict[str, Sequence[Candidate]] = {}
        self._nothing = Pool(())
        self._reviewed_s = 0.0
        self.calm = True
        self.budget = RetryBudget(settings.retry)
        self._sticky = Sticky(settings.routing.sticky_conversations_max, settings.routing.sticky_idle_s)

    def adopt(self, catalog: Catalog) -> None:
        """Take `catalog` as the one in force. Raises SettingsError; then the former stays."""
        check_names(self._settings, catalog)
        accounts = {provider.id: self._open_accounts(provider) for provider in catalog.providers.values()}
        self._accounts = accounts
        self._pools = {model.id: Pool(self._ways(model, accounts)) for model in catalog.models.values()}
        # A model can do what those can that we have an account for; without any, what it could do with one.
        self._candidates = {
            model.id: [one for one in model.candidates if accounts[one.provider.id]] or model.candidates
            for model in catalog.models.values()
        }

    def _ways(self, model: Model, accounts: Mapping[str, Sequence[UpstreamAccount]]) -> list[Way]:
        ways = [
            Way(
                candidate,
                account,
                2 * place + (not account.reserved),
                self._breaker(account, candidate.upstream_model),
                account.paces.setdefault(candidate.upstream_model, Pace()),
                account.reply_shapes.setdefault(candidate.upstream_model, ReplyShapes()),
            )
            for place, candidate in enumerate(model.candidates)
            for account in accounts[candidate.provider.id]
            if not account.settings.models or model.id in account.settings.models
        ]
        return sorted(ways, key=lambda way: way.preference)

    def _breaker(self, account: UpstreamAccount, model: str) -> Breaker:
        breaker = account.breakers.get(model)
        if breaker is None:
            breaker = account.breakers[model] = Breaker(self._breaker_settings, self._jitter)
        return breaker

    @property
    def accounts(self) -> list[UpstreamAccount]:
        return [account for accounts in self._accounts.values() for account in accounts]

    @property
    def configured(self) -> list[str]:
        """Providers that we hold a key for."""
        return [provider for provider, accounts in self._accounts.items() if accounts]

    # --- which way

    def pool(self, model: Model, request: ChatRequest, customer: Account) -> Pool:
        """What may serve `request`. Raises the refusal where no candidate can do what it asks for.

        Raises NoUpstream where we have no account, NoProviderAllowed where the caller allows none that we have, and
        what to tell the caller where it is certain that none serves.
        """
        pool = self._pools.get(model.id, self._nothing)
        if not model.takes_plain or type(request) is not PlainChat:
            candidates = self._candidates.get(model.id, model.candidates)
            suited = fitness.suited(request, candidates)
            if suited is not candidates:
                pool = Pool([way for way in pool.ways if way.candidate in suited])
            if request.provider is not None and pool.ways:
                placed = wishes.allowed(pool.ways, request.provider, model.id)
                pool = Pool([dataclasses.replace(way, preference=place) for place, way in placed])
        if pool.reserved:
            pool = Pool([way for way in pool.ways if way.account.open_to(customer)])
        if not pool.ways:
            raise NoUpstream(f"No upstream is configured for the model '{model.id}'.", retry_after_s=60)
        if not self.calm:
            self._check_hope(model, pool)
        return pool

    def choose(self, pool: Pool, request: ChatRequest, customer: Account) -> Way | None:
        """The way to take first; None if none would serve."""
        now_s = self._clock.monotonic_s()
        key = conversation(request, customer) if pool.caching else None
        bound = self._sticky.find(key, now_s) if key is not None else None
        way = self._take(rules.order(pool.ways, now_s, bound, pool.turn), pool, now_s)
        if way is None:
            return rules.last_resort(pool.ways, now_s)
        if key is not None:
            self._sticky.bind(key, way.account, now_s)
        return way

    def following(self, pool: Pool, tried: Sequence[Way], failed: AttemptFailed) -> tuple[Way, float] | None:
        """The way to take after `failed`, and how long to wait before; None if there is none."""
        now_s = self._clock.monotonic_s()
        way = self._take(
            rules.order((way for way in pool.ways if way not in tried), now_s, None, pool.turn), pool, now_s
        )
        if way is not None:
            return way, 0.0
        last = tried[-1]
        retry = self.budget.rules
        if failed.again and last in pool.ways and last.health.status(last.model, now_s) == "active":
            if last.breaker.begin(now_s) or last.breaker.force(now_s):
                return last, retry.backoff_s * 2 ** (len(tried) - 1) * (0.5 + self._jitter())
        elif isinstance(failed.error, RateLimited):
            soonest = min(pool.ways, key=lambda way: rules.free_in_s((way,), now_s))
            wait_s = rules.free_in_s((soonest,), now_s)
            given = failed.error.retry_after_s
            if soonest.breaker.state == "closed" and given is not None and wait_s <= retry.throttle_wait_max_s:
                return soonest, wait_s
        return None

    def spare(self, pool: Pool, tried: Sequence[Way]) -> bool:
        """Whether a way is left that has not been tried."""
        if len(pool.ways) <= len(tried):
            return False
        now_s = self._clock.monotonic_s()
        return any(way not in tried and (self.calm or rules.usable(way, now_s)) for way in pool.ways)

    def unserved(self, pool: Pool) -> GatewayError:
        """What a caller is told whom none of the ways will serve now."""
        now_s = self._clock.monotonic_s()
        wait_s = min(rules.free_in_s(pool.ways, now_s), RETRY_AFTER_S_MAX)
        if any(way.health.status(way.model, now_s) == "cooling" for way in pool.ways):
            return RateLimited("Every upstream of this model is at its limit.", retry_after_s=wait_s)
        return NoUpstream("No upstream of this model can serve it at present.", retry_after_s=wait_s)

    def last_error(self, failed: AttemptFailed, pool: Pool, *, spent: bool) -> GatewayError:
        """What a caller is told after the last try. `spent`: there was another, and no budget for it.

        An SDK that tries again multiplies our own tries: it is told when there is sense in that, or that there is none.
        """
        error, now_s = failed.error, self._clock.monotonic_s()
        if isinstance(error, RateLimited):
            soonest_s = rules.free_in_s(pool.ways, now_s)
            if soonest_s > 0:
                error.retry_after_s = min(soonest_s, RETRY_AFTER_S_MAX)
        elif spent:
            error.retry_after_s = 1.0
        elif isinstance(error, UpstreamFailed):
            error.retryable = False
        return error

    def _take(self, ordered: Iterable[Way], pool: Pool, now_s: float) -> Way | None:
        for way in ordered:
            if way.breaker.begin(now_s):
                pool.turn = rules.take_turn(way, pool.turn)
                return way
        return None

    def _check_hope(self, model: Model, pool: Pool) -> None:
        """Raises what to tell the caller if each of the ways rests until a time that is known."""
        now_s = self._clock.monotonic_s()
        if now_s - self._reviewed_s > REVIEW_S:
            self._reviewed_s = now_s
            self.calm = not any(
                account.health.troubled or any(breaker.troubled for breaker in account.breakers.values())
                for account in self.accounts
            )
        if all(way.health.status(way.model, now_s) in ("cooling", "drained") for way in pool.ways):
            raise self.unserved(pool)

    # --- what became of it

    def note_failed(self, way: Way, epoch: int, weight: int, code: str, *, alone: bool) -> None:
        """A call failed, by the caller's fault if `weight` is 0. `alone`: it was the only way there is."""
        failures = way.account.failures
        failures[way.model, code] = failures.get((way.model, code), 0) + 1
        if weight == 0:
            way.breaker.release(epoch)
            return
        self.calm = False
        way.breaker.note_failure(self._clock.monotonic_s(), epoch, weight, alone=alone)

    def note_served(self, way: Way, epoch: int) -> None:
        """A whole answer, while not all was calm."""
        if epoch == way.breaker.epoch:
            now_s = self._clock.monotonic_s()
            if way.health.troubled:
                way.health.note_success(way.model, now_s)
            way.breaker.note_success(now_s, epoch)

    # --- the call

    async def send(
        self,
        way: Way,
        key: UpstreamKey,
        body: bytes,
        accept: str,
        deadline: float,
        phase: str,
        sender: Sender,
        *,
        continuing: bool = False,
    ) -> Response:
        """Call the upstream; its answer with status 200, head read. Raises AttemptFailed.

        `sender` is told that the call has left, and that it has not if an error answer has ended it: those are free.
        """
        account = way.account
        path = way.candidate.provider.continue_path if continuing else way.candidate.chat_path
        head = key.steady_heads.get((path, accept)) or key.head(account, int(self._clock.wall_s() * 1000), path, accept)
        try:
            response = await account.origin.send(
                b"%bcontent-length: %d\r\n\r\n%b" % (head, len(body), body), deadline, phase, sender
            )
            if response.status == 200:
                return response
            sender.sent = False
            try:
                payload = await response.read(ERROR_BYTES_MAX)
            finally:
                response.abort()
        except ClientError as error:
            raise broken(error, way) from error
        retry_after = response.headers.get(b"retry-after")
        failure = failures.classify(
            way.account.provider,
            response.status,
            payload,
            retry_after.decode("latin-1") if retry_after else None,
            now_s=self._clock.wall_s(),
        )
        raise self.failed(way, key, failure)

    def meaning(self, way: Way, said: dict[str, Any]) -> failures.Failure:
        """Of an error inside an answer of status 200."""
        return failures.classify_event(way.account.provider, said, now_s=self._clock.wall_s())

    def failed(self, way: Way, key: UpstreamKey, failure: failures.Failure) -> AttemptFailed:
        """What a failure means, noted in the account's health. It may quote the request: only its kind is logged."""
        account, effect, again, weight = way.account, failure.account_state, failure.same_account, 1
        if failure.kind in BLAMELESS:
            weight = 0
        elif failure.kind in HOPELESS:
            weight = AT_ONCE
        if effect == "removed" and account.drop_key(key):
            log.error("upstream key refused; the account's next is used", upstream=account.id, kind=failure.kind)
            return AttemptFailed(failure.error(), retryable=True, again=True, weight=0)
        if effect is not None:
            self.calm = False
            why = f"{failure.kind} (status {failure.status})"
            if effect != "cooling" and account.health.status(way.model, self._clock.monotonic_s()) == "active":
                log.error("upstream account out of service", upstream=account.id, state=effect, reason=why)
            account.health.note(effect, way.model, self._clock.monotonic_s(), failure.retry_after_s, why)
        return AttemptFailed(failure.error(), retryable=failure.retryable, again=again, weight=weight)

    # --- the accounts

    def _open_accounts(self, provider: Provider) -> list[UpstreamAccount]:
        settings = self._settings.get(provider.id) or UpstreamSettings()
        if settings.auth:
            provider = provider.with_auth(settings.auth)
        known = {
            (account.origin, account.prefix, _secrets(account)): account
            for account in self._accounts.get(provider.id, [])
        }
        accounts = []
        for given in account_settings(provider, settings):
            url = given.base_url or settings.base_url or provider.base_url
            try:
                address, prefix = split_url(url)
            except ValueError as error:
                raise SettingsError(f"upstreams.{provider.id}.base_url: {error}.") from error
            origin = self._client.origin(address)
            account = known.get((origin, prefix, frozenset(given.keys))) or UpstreamAccount(
                provider,
                given.name,
                [UpstreamKey(secret) for secret in given.keys],
                origin,
                prefix,
                AccountHealth(per_model=provider.limits_per == "model"),
                given,
            )
            account.renew(provider, given)
            accounts.append(account)
        return accounts


def _secrets(account: UpstreamAccount) -> frozenset[Secret]:
    return frozenset(key.secret for key in (*account.keys, *account.refused_keys))


def account_settings(provider: Provider, settings: UpstreamSettings) -> list[UpstreamAccountSettings]:
    """Our accounts at `provider` that have a key, each with a name: those named, then one for each of `keys`."""
    fallback = environment_secret(provider.key_env) if not settings.has_keys else None
    keys = settings.keys or ((fallback,) if fallback else ())
    given = [*settings.accounts, *(UpstreamAccountSettings(keys=(key,)) for key in keys)]
    return [
        account if account.name else msgspec.structs.replace(account, name=str(place))
        for place, account in enumerate(given, 1)
        if account.keys
    ]


def conversation(request: ChatRequest, customer: Account) -> Hashable:
    """What stays the same of a conversation from turn to turn: whose it is, its model, and how it began."""
    began = [customer.id, request.model]
    for message in request.messages[:STICKY_MESSAGES]:
        content = message.content
        began.append(content[:STICKY_CHARS] if isinstance(content, str) else "")
        if isinstance(message, UserMessage):
            break
    return hash(tuple(began))


def check_names(settings: Iterable[str], catalog: Catalog) -> None:
    """That each upstream of the settings is a provider of the catalogue. Raises SettingsError."""
    for name in settings:
        if name not in catalog.providers:
            known = ", ".join(catalog.providers)
            raise SettingsError(f"upstreams.{name} is no provider of the catalogue; there are {known}.")


def broken(error: ClientError, way: Way) -> AttemptFailed:
    """What a failure below the answer is to the caller."""
    name = way.candidate.provider.name
    if isinstance(error, TimedOut):
        told: GatewayError = UpstreamTimeout(f"{name} took too long ({error.phase.replace('_', ' ')}).")
        return AttemptFailed(told, retryable=True, weight=TIME_OUT_WEIGHT)
    if isinstance(error, ConnectFailed):
        return AttemptFailed(UpstreamFailed(f"{name} could not be reached."), retryable=True, again=True)
    return AttemptFailed(UpstreamFailed(f"{name} broke off its answer."), retryable=True, again=True)

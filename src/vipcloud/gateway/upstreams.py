"""Our accounts at the providers, and the one place where a request leaves for one.

An `UpstreamAccount` is one key with what we know of its health; a `Way` is one candidate of a model over one account,
the unit that routing puts in order. Keys are bound to their provider's address and are never printed.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import msgspec

from vipcloud.clock import Clock
from vipcloud.dialects.openai import ChatRequest, PlainChat
from vipcloud.errors import GatewayError, SettingsError, Unavailable, UpstreamFailed, UpstreamTimeout
from vipcloud.http.client import Client, ClientError, ConnectFailed, Origin, Response, TimedOut, split_url
from vipcloud.http.headers import header_block
from vipcloud.providers import auth, failures, translate
from vipcloud.providers.catalog import Candidate, Catalog, Model, Provider
from vipcloud.routing import rules
from vipcloud.routing.health import AccountHealth
from vipcloud.settings import Secret, UpstreamSettings, environment_secret

ERROR_BYTES_MAX = 65536
USER_AGENT = "vipcloud/0.1"


class AttemptFailed(Exception):
    """One upstream call failed before anything of its answer reached the client. `error` is what the caller is told."""

    def __init__(self, error: GatewayError, *, retryable: bool) -> None:
        super().__init__(error.message)
        self.error = error
        self.retryable = retryable


@dataclass(slots=True, eq=False)
class UpstreamAccount:
    """One of our keys at a provider. `running` counts its calls under way.

    `steady_heads` has by `accept` what `head` returned, unless the key is signed anew from time to time.
    """

    provider: Provider
    key: Secret
    origin: Origin
    path: str
    health: AccountHealth = field(default_factory=AccountHealth)
    running: int = 0
    steady_heads: dict[str, bytes] = field(default_factory=dict, repr=False)
    _authorization: str = field(default="", repr=False)
    _heads: dict[str, bytes] = field(default_factory=dict, repr=False)

    def renew(self, provider: Provider) -> None:
        """Take the provider's row of a new catalogue."""
        self.provider = provider
        self._authorization = ""  # what was built of the former row is built anew
        self.steady_heads = {}

    def head(self, now_ms: int, accept: str) -> bytes:
        """The request line and headers of a call, up to the length of its body."""
        authorization = auth.auth_header(self.provider, self.key.reveal(), now_ms)
        if authorization != self._authorization:
            self._authorization = authorization
            self._heads = {}
        head = self._heads.get(accept)
        if head is None:
            pairs = [
                ("host", self.origin.address.authority),
                ("authorization", authorization),
                ("content-type", "application/json"),
                ("accept", accept),
                ("accept-encoding", "identity"),
                ("user-agent", USER_AGENT),
                *self.provider.headers.items(),
            ]
            head = self._heads[accept] = f"POST {self.path} HTTP/1.1\r\n".encode() + header_block(pairs)
            if self.provider.auth == "bearer":
                self.steady_heads[accept] = head
        return head


@dataclass(frozen=True, slots=True, eq=False)
class Way:
    """A candidate over one of our accounts. `preference` is the candidate's place in the catalogue."""

    candidate: Candidate
    account: UpstreamAccount
    preference: int

    @property
    def model(self) -> str:
        return self.candidate.upstream_model

    @property
    def health(self) -> AccountHealth:
        return self.account.health

    @property
    def running(self) -> int:
        return self.account.running


class Upstreams:
    """All accounts by provider. A new catalogue keeps the accounts whose address and key stay the same."""

    def __init__(self, client: Client, clock: Clock, settings: Mapping[str, UpstreamSettings]) -> None:
        self._client = client
        self._clock = clock
        self._settings = settings
        self._accounts: dict[str, list[UpstreamAccount]] = {}
        self._ways: dict[str, list[Way]] = {}

    def adopt(self, catalog: Catalog) -> None:
        """Take `catalog` as the one in force. Raises SettingsError; then the former stays."""
        check_names(self._settings, catalog)
        accounts = {provider.id: self._open_accounts(provider) for provider in catalog.providers.values()}
        self._accounts = accounts
        self._ways = {
            model.id: [
                Way(candidate, account, preference)
                for preference, candidate in enumerate(model.candidates)
                for account in accounts[candidate.provider.id]
            ]
            for model in catalog.models.values()
        }

    @property
    def configured(self) -> list[str]:
        """Providers that we hold a key for."""
        return [provider for provider, accounts in self._accounts.items() if accounts]

    def ways(self, model: Model, request: ChatRequest) -> list[Way]:
        """What to try for `request`, in order. Raises the refusal where no candidate can do what it asks for.

        Raises Unavailable where we have no account, and UpstreamFailed where none of ours may serve the model.
        """
        ways = self._ways.get(model.id, [])
        if not model.takes_plain or type(request) is not PlainChat:
            suited = translate.suited(request, model.candidates)
            if suited is not model.candidates:
                ways = [way for way in ways if way.candidate in suited]
        if len(ways) == 1:
            way = ways[0]
            if way.account.health.serves(way.candidate.upstream_model):
                return ways  # there is nothing to put in order
        if not ways:
            raise Unavailable(f"No upstream is configured for the model '{model.id}'.", retry_after_s=60)
        ordered = rules.order(ways, self._clock.monotonic_s())
        if not ordered:
            raise UpstreamFailed(f"No upstream account can serve the model '{model.id}' at present.")
        return ordered

    async def send(self, way: Way, body: bytes, accept: str, deadline: float, phase: str) -> Response:
        """Call the upstream; its answer with status 200, head read. Raises AttemptFailed."""
        account = way.account
        head = account.steady_heads.get(accept) or account.head(int(self._clock.wall_s() * 1000), accept)
        try:
            response = await account.origin.send(
                b"%bcontent-length: %d\r\n\r\n%b" % (head, len(body), body), deadline, phase
            )
            if response.status == 200:
                return response
            try:
                payload = await response.read(ERROR_BYTES_MAX)
            finally:
                response.abort()
        except ClientError as error:
            raise broken(error, way) from error
        retry_after = response.headers.get(b"retry-after")
        raise self.refused(way, response.status, payload, retry_after.decode("latin-1") if retry_after else None)

    def refused(self, way: Way, status: int, payload: bytes, retry_after: str | None = None) -> AttemptFailed:
        """What an error answer means, noted in the account's health."""
        return self.failed(way, failures.classify(way.account.provider, status, payload, retry_after))

    def failed(self, way: Way, failure: failures.Failure) -> AttemptFailed:
        now_s = self._clock.monotonic_s()
        way.health.note(failure.account_state, way.model, now_s, failure.retry_after_s, failure.message)
        return AttemptFailed(failure.error(), retryable=failure.retryable)

    def _open_accounts(self, provider: Provider) -> list[UpstreamAccount]:
        settings = self._settings.get(provider.id) or UpstreamSettings()
        fallback = environment_secret(provider.key_env)
        keys = settings.keys or ((fallback,) if fallback else ())
        if settings.auth:
            provider = msgspec.structs.replace(provider, auth=settings.auth)
        url = settings.base_url or provider.base_url
        try:
            address, prefix = split_url(url)
        except ValueError as error:
            raise SettingsError(f"upstreams.{provider.id}.base_url: {error}.") from error
        if not keys:
            return []
        origin, path = self._client.origin(address), prefix + provider.chat_path
        known = {
            (account.key, account.origin, account.path): account for account in self._accounts.get(provider.id, [])
        }
        accounts = []
        for key in keys:
            account = known.get((key, origin, path)) or UpstreamAccount(
                provider, key, origin, path, AccountHealth(per_model=provider.limits_per == "model")
            )
            account.renew(provider)
            accounts.append(account)
        return accounts


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
        return AttemptFailed(told, retryable=error.phase == "connect")
    if isinstance(error, ConnectFailed):
        return AttemptFailed(UpstreamFailed(f"{name} could not be reached."), retryable=True)
    return AttemptFailed(UpstreamFailed(f"{name} broke off its answer."), retryable=True)

"""`vipcloud upstreams`: our accounts at the providers, whether they work, and whether they are to."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
import uvloop
from msgspec import Struct

from vipcloud.cli import context, running
from vipcloud.errors import SettingsError
from vipcloud.gateway import probes
from vipcloud.gateway.probes import Finding, Target
from vipcloud.gateway.upstreams import account_settings, check_names
from vipcloud.http.client import Client
from vipcloud.providers.models import Candidate, Catalog, Provider
from vipcloud.settings import Secret, Settings, UpstreamAccountSettings, UpstreamSettings
from vipcloud.status import upstreams as upstream_state
from vipcloud.status.upstreams import AccountState

KEY_CHARS_MIN = 20  # of a shorter one not even its end is shown

app = typer.Typer(no_args_is_help=True)

Only = Annotated[
    str | None,
    typer.Argument(
        metavar="UPSTREAM", help="Only this provider (deepseek) or account (deepseek/1).", show_default=False
    ),
]


Account = Annotated[str, typer.Argument(metavar="UPSTREAM", help="The account, such as deepseek/1.")]


class Upstream(Struct, frozen=True, kw_only=True):
    """One account as commands show it; a provider without a key is one without a name."""

    provider: Provider
    base_url: str
    account: UpstreamAccountSettings | None
    simulated: bool

    @property
    def id(self) -> str:
        return f"{self.provider.id}/{self.account.name}" if self.account is not None else self.provider.id

    @property
    def state(self) -> str:
        if not self.provider.ready:
            return "not ready"
        if self.account is None:
            return "no key"
        return "simulated" if self.simulated else "key set"

    @property
    def keys(self) -> tuple[Secret, ...]:
        return self.account.keys if self.account is not None else ()


@app.command("list")
@context.renders_errors
def list_(as_json: context.AsJSON = False, data: context.Data = None, config: context.Config = None) -> None:
    """List providers with addresses, our accounts there, and the models that they serve."""
    settings, catalog, found = look(data, config)
    live = live_states(settings)
    if as_json:
        context.print_json(
            [{**described(upstream, catalog), "live": msgspec.to_builtins(live.get(upstream.id))} for upstream in found]
        )
        return
    separator = "\n" if context.out.is_terminal else ", "
    rows = [
        [
            upstream.id,
            upstream.state,
            separator.join(map(masked, upstream.keys)) or "–",
            upstream.base_url,
            ", ".join(served(upstream, catalog)) or "–",
            *([now(live.get(upstream.id))] if live else []),
        ]
        for upstream in found
    ]
    context.print_table(["upstream", "state", "keys", "address", "serves", *(["now"] if live else [])], rows)
    missing = [upstream.provider.key_env for upstream in found if upstream.state == "no key"]
    if missing:
        context.note("No key", f"is set for some providers: {', '.join(missing)}, or upstreams.PROVIDER.keys.")
    if all(upstream.account is None for upstream in found):
        context.note(
            "Simulated", "providers are what `vipcloud serve` runs on then; while it does, they are listed here."
        )


@app.command()
@context.renders_errors
def drain(upstream: Account, data: context.Data = None, config: context.Config = None) -> None:
    """Send no new requests to an account; those that run go on. It holds until `revive`, restarts included."""
    upstream_state.drain(_data_of(upstream, data, config), upstream)
    context.out.print(f"{upstream} gets no new requests. `vipcloud upstreams revive {upstream}` ends that.")


@app.command()
@context.renders_errors
def revive(upstream: Account, data: context.Data = None, config: context.Config = None) -> None:
    """Take an account into service again, whatever took it out: a drain, an open breaker, a refused key, arrears."""
    upstream_state.revive(_data_of(upstream, data, config), upstream)
    context.out.print(f"{upstream} gets requests again.")


@app.command("test")
@context.renders_errors
def check(
    only: Only = None,
    every_model: Annotated[
        bool, typer.Option("--every-model", help="Ask each upstream model for one token too; costs next to nothing.")
    ] = False,
    as_json: context.AsJSON = False,
    data: context.Data = None,
    config: context.Config = None,
) -> None:
    """Call each account: its balance, or else one token. Exit status 1 if one does not work."""
    settings, catalog, found = look(data, config)
    chosen = [each for each in found if each.account is not None and each.provider.ready]
    if only is not None:
        chosen = [each for each in chosen if only in (each.id, each.provider.id)]
        if not chosen:
            known = ", ".join(each.id for each in found)
            raise SettingsError(f"'{only}' is no upstream with a key; there are {known}: vipcloud upstreams list")
    if not chosen:
        names = ", ".join(provider.key_env for provider in catalog.providers.values() if provider.ready)
        raise SettingsError(f"No provider key is set, so there is nothing to test. Set {names}, or start the gateway.")
    told = uvloop.run(_test(settings, catalog, chosen, every_model=every_model))
    if as_json:
        context.print_json(
            [{"upstream": name, "key": key, **msgspec.to_builtins(finding)} for name, key, finding in told]
        )
    else:
        for name, key, finding in told:
            context.print_finding(finding.verdict, f"{name} {key}", finding.detail, finding.advice)
    if any(finding.verdict == "fail" for _, _, finding in told):
        raise typer.Exit(1)


async def _test(
    settings: Settings, catalog: Catalog, chosen: list[Upstream], *, every_model: bool
) -> list[tuple[str, str, Finding]]:
    client = Client(settings.client)
    try:
        calls = [call for upstream in chosen for call in _calls(client, catalog, upstream, every_model=every_model)]
        findings = await asyncio.gather(*(finding for _, _, finding in calls))
    finally:
        client.close()
    return [(name, key, finding) for (name, key, _), finding in zip(calls, findings, strict=True)]


def _calls(
    client: Client, catalog: Catalog, upstream: Upstream, *, every_model: bool
) -> Iterator[tuple[str, str, Any]]:
    candidates = _candidates(upstream, catalog)
    for key in upstream.keys:
        target = Target(provider=upstream.provider, base_url=upstream.base_url, key=key)
        asks_balance = upstream.provider.balance is not None
        if asks_balance:
            yield upstream.id, masked(key), probes.balance(client, context.clock, target)
        for candidate in candidates if every_model else () if asks_balance else candidates[:1]:
            yield upstream.id, masked(key), probes.complete(client, context.clock, target, candidate)


def look(data: context.Data, config: context.Config) -> tuple[Settings, Catalog, list[Upstream]]:
    """All accounts, and the providers without one, in the catalogue's order. Raises SettingsError."""
    settings, found = running.as_served(context.load(data, config))
    catalog = context.load_catalog(settings)
    check_names(settings.upstreams, catalog)
    simulated = found.simulated if found is not None else {}
    upstreams = []
    for provider in catalog.providers.values():
        own = settings.upstreams.get(provider.id) or UpstreamSettings()
        if own.auth:
            provider = provider.with_auth(own.auth)  # noqa: PLW2901 - the same one, as set
        accounts: list[UpstreamAccountSettings | None] = [*account_settings(provider, own)]
        for account in accounts or [None]:
            base_url = (account.base_url if account is not None else "") or own.base_url or provider.base_url
            upstreams.append(
                Upstream(provider=provider, base_url=base_url, account=account, simulated=provider.id in simulated)
            )
    return settings, catalog, upstreams


def live_states(settings: Settings) -> dict[str, AccountState]:
    """What the running gateway tells of each account; empty while none runs."""
    state = upstream_state.read_state(settings.data_path, context.clock.wall_s())
    return {account.id: account for account in state.accounts} if state is not None else {}


def now(account: AccountState | None) -> str:
    """What keeps an account, or a model there, from being asked now."""
    if account is None:
        return "–"
    if account.drained:
        return "drained"
    troubles = [f"{account.keys_refused} key(s) refused"] if account.keys_refused else []
    for model in account.models:
        if model.status != "active":
            troubles.append(f"{model.model} {model.status}, {account.reason}")
        elif model.breaker != "closed":
            troubles.append(f"{model.model} breaker {model.breaker}, next try in {model.free_in_s:g} s")
    return "; ".join(troubles) or f"serving, {account.running} running"


def _data_of(upstream: str, data: context.Data, config: context.Config) -> Path:
    """The data folder, if there is such an account. Raises SettingsError."""
    settings, _, found = look(data, config)
    known = [one.id for one in found if one.account is not None]
    if upstream not in known:
        raise SettingsError(f"There is no upstream account '{upstream}'; there are {', '.join(known) or 'none'}.")
    return settings.data_path


def served(upstream: Upstream, catalog: Catalog) -> list[str]:
    """Our ids of the models that have a candidate there, in the catalogue's order."""
    chosen = upstream.account.models if upstream.account is not None else ()
    return [
        model.id
        for model in catalog.models.values()
        if any(candidate.provider.id == upstream.provider.id for candidate in model.listed)
        and (not chosen or model.id in chosen)
    ]


def _candidates(upstream: Upstream, catalog: Catalog) -> list[Candidate]:
    """One for each upstream model that a model of ours needs there."""
    found: dict[str, Candidate] = {}
    for model_id in served(upstream, catalog):
        for candidate in catalog.models[model_id].listed:
            if candidate.provider.id == upstream.provider.id:
                found.setdefault(candidate.upstream_model, candidate)
    return list(found.values())


def described(upstream: Upstream, catalog: Catalog) -> dict[str, Any]:
    """An account for scripts."""
    return {
        "id": upstream.id,
        "provider": upstream.provider.id,
        "state": upstream.state,
        "keys": [masked(key) for key in upstream.keys],
        "base_url": upstream.base_url,
        "models": served(upstream, catalog),
        "upstream_models": [candidate.upstream_model for candidate in _candidates(upstream, catalog)],
    }


def masked(key: Secret) -> str:
    text = key.reveal()
    return f"…{text[-4:]}" if len(text) >= KEY_CHARS_MIN else "(short)"

"""`vipcloud doctor`: looks at settings, store, journal and upstreams, and says what to do."""

import asyncio
import resource
from dataclasses import asdict, dataclass

import typer
import uvloop
from sqlalchemy.exc import SQLAlchemyError

from vipcloud.accounts import store
from vipcloud.cli import context, models
from vipcloud.errors import SettingsError
from vipcloud.gateway.upstreams import account_settings, check_names
from vipcloud.http import server
from vipcloud.http.client import Client, ClientError, split_url
from vipcloud.http.headers import header_block
from vipcloud.ledger import bookkeeper
from vipcloud.ledger import store as ledger
from vipcloud.providers import auth
from vipcloud.providers.models import Catalog, Provider
from vipcloud.settings import Settings, UpstreamSettings
from vipcloud.storage import engine as storage

PROBE_TIMEOUT_S = 8.0
REPLY_BYTES_MAX = 4 * 1024 * 1024
FILES_MIN = 4096
BACKLOG_BYTES_MAX = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at. `advice` is what to do about it; empty where there is nothing to do."""

    what: str
    verdict: context.Verdict
    detail: str
    advice: str = ""


@context.renders_errors
def doctor(as_json: context.AsJSON = False, data: context.Data = None, config: context.Config = None) -> None:
    """Check settings, store and upstreams, and say what to do. Exit status 1 if something fails."""
    findings = examine(data, config)
    if as_json:
        context.print_json([asdict(finding) for finding in findings])
    else:
        for finding in findings:
            context.print_finding(finding.verdict, finding.what, finding.detail, finding.advice)
    if any(finding.verdict == "fail" for finding in findings):
        raise typer.Exit(1)


def examine(data: context.Data, config: context.Config) -> list[Finding]:
    try:
        settings = context.load(data, config)
    except SettingsError as error:
        return [Finding("settings", "fail", str(error), "Correct it in vipcloud.toml, the environment or the option.")]
    findings = [Finding("settings", "ok", f"data folder {settings.data_path}"), _files(), _compiled()]
    findings += _store(settings)
    try:
        catalog = context.load_catalog(settings)
    except SettingsError as error:
        return [*findings, Finding("catalogue", "fail", str(error), "Correct or remove the file.")]
    live = sum(model.status != "soon" for model in catalog.models.values())
    try:
        check_names(settings.upstreams, catalog)
    except SettingsError as error:
        findings.append(Finding("settings", "fail", str(error), "Correct it in vipcloud.toml."))
    findings.append(Finding("catalogue", "ok", f"{len(catalog.models)} models, {live} of them switched on"))
    findings += _prices(catalog)
    return findings + uvloop.run(_upstreams(settings, catalog))


def _prices(catalog: Catalog) -> list[Finding]:
    """What is sold below cost, and calendars that have run out."""
    now_s = context.clock.wall_s()
    sold = [model for model in catalog.models.values() if model.status != "soon"]
    dear = [model.id for model in sold if models.losses(model, now_s)]
    findings = [Finding("prices", "ok", "none is below cost")]
    if dear:
        detail = f"some calls cost more than they bring: {', '.join(dear)}"
        findings = [Finding("prices", "note", detail, "See which: vipcloud models show MODEL")]
    for calendar in catalog.calendars.values():
        if not calendar.knows(now_s):
            advice = f"Add them to [calendars.{calendar.id}] in catalog.toml; until then they count as working days."
            findings.append(Finding(f"calendar {calendar.id}", "note", "it has no holidays of this year", advice))
    return findings


def _files() -> Finding:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < FILES_MIN:
        return Finding("open files", "note", f"at most {hard}", "Raise it (ulimit -n): a request takes two.")
    return Finding("open files", "ok", f"up to {hard}")


def _compiled() -> Finding:
    """Whether the data plane is the compiled one (docs/decisions/0030-compile-the-data-plane.md)."""
    if server.__file__.endswith(".py"):
        return Finding(
            "data plane", "note", "interpreted: more CPU per request", "In a checkout: make run compiles it."
        )
    return Finding("data plane", "ok", "compiled")


def _store(settings: Settings) -> list[Finding]:
    try:
        engine = context.open_store(settings)
        with storage.reading(engine) as connection:
            accounts = len(store.list_accounts(connection))
            wrong = ledger.differences(connection)
        backlog = bookkeeper.backlog_bytes(engine, settings.journal_path)
        damaged = bookkeeper.damaged_files(engine, settings.journal_path)
    except (SQLAlchemyError, OSError, SettingsError) as error:
        advice = "Check store.url and that the data folder can be written."
        return [Finding("store", "fail", str(getattr(error, "orig", None) or error), advice)]
    advice = "" if accounts else "Create an account: vipcloud accounts create you@example.com"
    findings = [
        Finding(
            "store", "ok" if accounts else "note", f"{storage.shown(settings.store_url)}, {accounts} accounts", advice
        )
    ]
    if wrong:
        findings.append(
            Finding("books", "fail", "; ".join(wrong[:3]), "Keep a copy of the data folder and report this.")
        )
    else:
        findings.append(Finding("books", "ok", "transfers, balances and usage agree"))
    if damaged:
        names = ", ".join(f"{name} ({lost} bytes)" for name, lost in damaged.items())
        findings.append(Finding("journal", "fail", f"damaged: {names}", "Check the disk; the rest has been booked."))
    elif backlog > BACKLOG_BYTES_MAX:
        findings.append(Finding("journal", "note", f"{backlog:,} bytes not booked", "Is `vipcloud serve` running?"))
    else:
        findings.append(Finding("journal", "ok", f"{backlog:,} bytes to book"))
    return findings


async def _upstreams(settings: Settings, catalog: Catalog) -> list[Finding]:
    client = Client(settings.client)
    try:
        probes = [_probe(client, settings, provider) for provider in catalog.providers.values() if provider.ready]
        findings = list(await asyncio.gather(*probes))
    finally:
        client.close()
    if all(finding.verdict == "note" for finding in findings):
        variables = " or ".join(provider.key_env for provider in catalog.providers.values() if provider.ready)
        advice = f"`vipcloud serve` will simulate the providers; set {variables} to call real ones."
        findings.append(Finding("upstreams", "note", "no provider key is set", advice))
    return findings


async def _probe(client: Client, settings: Settings, provider: Provider) -> Finding:
    """List the provider's models with our key: free of charge at all of them."""
    upstream = settings.upstreams.get(provider.id) or UpstreamSettings()
    keys = [key for account in account_settings(provider, upstream) for key in account.keys]
    what = f"upstream {provider.id}"
    if not keys:
        return Finding(what, "note", "no key", f"Set {provider.key_env}, or upstreams.{provider.id}.keys.")
    url = upstream.base_url or provider.base_url
    address, prefix = split_url(url)
    authorization = auth.auth_header(provider, keys[0].reveal(), int(context.clock.wall_s() * 1000))
    head = header_block([("host", address.authority), ("authorization", authorization), ("accept", "application/json")])
    request = b"GET %b/models HTTP/1.1\r\n%b\r\n" % (prefix.encode(), head)
    try:
        origin = client.origin(address)
        response = await origin.send(request, asyncio.get_running_loop().time() + PROBE_TIMEOUT_S)
        await response.read(REPLY_BYTES_MAX)
    except ClientError as error:
        return Finding(what, "fail", f"{url}: {error}", "Check the address, the network and the provider's status.")
    if response.status in (401, 403):
        return Finding(what, "fail", f"{url} refuses the key ({response.status})", "Check the key and its region.")
    if response.status >= 400:
        return Finding(what, "note", f"{url} answers {response.status} to a list of models", "Calls may still work.")
    return Finding(what, "ok", f"{url} answers, {len(keys)} key(s)")

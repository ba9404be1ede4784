"""`vipcloud serve`: builds the gateway from the settings, starts its helpers, and drains on SIGTERM.

This process owns the public port and runs the data plane. The bookkeeper is a process of its own, so that posting to
the books never delays a stream; so are the simulators together, where no provider key is given.
"""

import asyncio
import contextlib
import gc
import resource
import secrets
import signal
import socket
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import structlog
import typer
import uvloop
from sqlalchemy import Engine

from vipcloud.accounts import store
from vipcloud.accounts.directory import Directory
from vipcloud.accounts.store import AccountNotFound
from vipcloud.cli import context, running
from vipcloud.cli.children import Child
from vipcloud.clock import Clock
from vipcloud.errors import SettingsError
from vipcloud.gateway import management, routes
from vipcloud.gateway.app import App
from vipcloud.gateway.console import ConsoleRelay
from vipcloud.gateway.counting import TokenCounter
from vipcloud.gateway.handover import Elder, HandoverFailed, Successor
from vipcloud.gateway.housekeeping import Housekeeping
from vipcloud.gateway.idempotency import Idempotency
from vipcloud.gateway.parts import Parts
from vipcloud.gateway.progress import ProgressNotes
from vipcloud.gateway.upstreams import Upstreams
from vipcloud.gateway.visitors import DayCounts, Visitors
from vipcloud.gateway.withdrawals import RELEASE_S, Withdrawals
from vipcloud.http.client import Client
from vipcloud.http.deadlines import Deadlines
from vipcloud.http.outbox import Outbox
from vipcloud.http.server import HTTPServer
from vipcloud.ledger import bookkeeper, slots
from vipcloud.ledger import store as ledger
from vipcloud.ledger.journal import Journal, JournalError, Syncer
from vipcloud.limits.guard import Guard
from vipcloud.limits.local import LocalGuard
from vipcloud.limits.rules import DAY_S
from vipcloud.money import parse_usd
from vipcloud.providers.models import Catalog
from vipcloud.settings import Settings, UpstreamSettings, environment_secret
from vipcloud.simulators import app as simulators
from vipcloud.storage import engine as storage
from vipcloud.telemetry import logs
from vipcloud.telemetry.requests import figures_for

if TYPE_CHECKING:  # OpenTelemetry is an extra
    from vipcloud.telemetry.traces import Tracing

DEMO_EMAIL = "demo@example.com"
LEASE_BEYOND_TOTAL_S = 60
CONSOLE_START_S = 30.0  # until the console says that it listens
CallSoon = Callable[[Callable[[], None]], object]
GARBAGE_THRESHOLD = 50_000  # objects more than at the last look

log = structlog.get_logger(__name__)


@context.renders_errors
def serve(
    host: Annotated[
        str | None, typer.Option(help="Address to listen on (default: 127.0.0.1).", show_default=False)
    ] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on (default: 8080).", show_default=False)] = None,
    takeover: Annotated[
        bool,
        typer.Option(
            "--takeover", help="Take the port over from the gateway that runs on the same data folder, if any."
        ),
    ] = False,
    data: context.Data = None,
    config: context.Config = None,
) -> None:
    """Run the gateway. Without a provider key it runs with simulated upstreams."""
    logs.configure()
    server = {name: value for name, value in (("host", host), ("port", port)) if value is not None}
    overrides: dict[str, Any] = {"server": server} if server else {}
    settings = context.load(data, config, overrides)
    catalog = context.load_catalog(settings)
    engine = context.open_store(settings)
    raise_file_limit()
    file = context.chosen_config(config)
    helpers = [Child("bookkeeper", ["bookkeeper", "--data", settings.data, *(["--config", str(file)] if file else [])])]
    simulated = not has_keys(settings, catalog)
    if simulated:
        check_no_address_is_ignored(settings, catalog)
        settings, simulator = with_simulators(data, config, overrides)
        helpers.append(simulator)
    try:
        for helper in helpers:
            helper.start()
        if simulated:
            simulator.first_line()  # they say so when they listen
        elder = running.find(settings) if takeover else None
        uvloop.run(run(settings, catalog, engine, helpers, file, simulated=simulated, elder=elder))
    finally:
        for helper in helpers:
            helper.stop()


@dataclass(frozen=True, slots=True)
class Gateway:
    """The data plane, built and not yet listening."""

    parts: Parts
    server: HTTPServer
    housekeeping: Housekeeping
    syncer: Syncer
    withdrawals: Withdrawals


@contextlib.contextmanager
def gateway(
    settings: Settings,
    catalog: Catalog,
    engine: Engine,
    clock: Clock,
    reload: asyncio.Event,
    console_socket: Path | None = None,
    *,
    beside: bool = False,
) -> Iterator[Gateway]:
    """The gateway as it runs in the current event loop, its journal opened and what was in it booked.

    Setting `reload` has the catalogue read again. What is no route goes to the console behind `console_socket`. With
    `beside` another gateway may still run on the data folder, to be taken over. Raises SettingsError, JournalError and
    SQLAlchemyError.
    """
    outbox = Outbox()
    with contextlib.ExitStack() as stack:
        journal = open_journal(settings, outbox.first, clock, beside=beside)
        stack.callback(journal.close)
        bookkeeper.catch_up(engine, settings.journal_path, journal.worker)
        bookkeeper.settle_gone(engine, settings.journal_path, worker_name(settings), journal.worker)
        client = Client(settings.client, outbox=outbox)
        stack.callback(client.close)
        upstreams = Upstreams(client, clock, settings)
        upstreams.adopt(catalog)
        deadlines = Deadlines()
        stack.callback(deadlines.close)
        syncer = Syncer(journal, settings.journal_path, settings.journal.sync_interval_s)
        progress = ProgressNotes(journal, settings.journal.progress_interval_s)
        stack.callback(progress.close)
        counter = TokenCounter(settings.gateway.count_timeout_s)
        stack.callback(counter.close)
        directory = Directory(engine, clock, settings.accounts)
        tracing = tracing_for(settings, clock)
        if tracing is not None:
            stack.callback(tracing.close)
        visitors = Visitors(settings.data_path / "demo-visitors", context.random_bytes)
        parts = Parts(
            settings=settings,
            clock=clock,
            catalog=catalog,
            directory=directory,
            guard=make_guard(settings, clock, directory, visitors),
            journal=journal,
            upstreams=upstreams,
            deadlines=deadlines,
            progress=progress,
            counter=counter,
            idempotency=Idempotency(
                engine, clock, settings.idempotency, lambda: bookkeeper.booked_until(settings.journal_path)
            ),
            visitors=visitors,
            figures=figures_for(settings, tracing),
            tracing=tracing,
        )
        parts.pulse.start()
        stack.callback(parts.pulse.close)
        pages = None
        if console_socket is not None:
            pages = ConsoleRelay(client, console_socket, settings.console, parts.trusted_proxies).serve
        only_versioned = management.ONLY_VERSIONED
        app = App(
            routes.table(parts, pages), parts.clock, pages, routes.SAME_ORIGIN, only_versioned, parts.figures.note_error
        )
        server = HTTPServer(app.handle, settings.server, app.render_error, outbox)
        housekeeping = Housekeeping(parts, lambda: context.load_catalog(settings), reload)
        release_s = 0.0 if settings.guard.backend == "memory" else RELEASE_S
        withdrawals = Withdrawals(engine, directory, lambda: parts.guard, clock, release_s)
        yield Gateway(parts, server, housekeeping, syncer, withdrawals)


def tracing_for(settings: Settings, clock: Clock) -> "Tracing | None":
    """What sends traces, if the settings ask for it. Raises SettingsError where it is not installed."""
    if not settings.telemetry.otlp_endpoint:
        return None
    try:
        from vipcloud.telemetry.traces import Tracing
    except ModuleNotFoundError as error:
        raise SettingsError(
            f"telemetry.otlp_endpoint: traces need the extra vipcloud[otlp] ({error.name} is not installed); "
            "install it: pip install 'vipcloud[otlp]'."
        ) from error
    return Tracing(settings.telemetry, clock)


def make_guard(settings: Settings, clock: Clock, directory: Directory, visitors: Visitors) -> Guard:
    """The guard that the settings ask for. Raises SettingsError and SQLAlchemyError."""
    lease_s = settings.timeouts.total_s + LEASE_BEYOND_TOTAL_S
    guard = settings.guard
    if guard.backend == "memory":
        counts = DayCounts(directory.engine, int(clock.wall_s() // DAY_S), visitors)
        return LocalGuard(clock, lease_s, before=counts.before)
    # Whoever counts in memory need not load what speaks to a server.
    from vipcloud.limits.connection import Client
    from vipcloud.limits.valkey import ValkeyGuard

    client = Client(guard.url, timeout_s=guard.timeout_s, waiting_max=guard.waiting_max)
    return ValkeyGuard(
        client,
        clock,
        lease_s,
        guard.nodes,
        directory.booked,
        booked_until=lambda: bookkeeper.booked_until(settings.journal_path),
    )


def open_journal(settings: Settings, call_soon: CallSoon, clock: Clock, *, beside: bool) -> Journal:
    """The journal under the first of the folder's names; the first free one if another gateway may run `beside`.

    Raises JournalError where that cannot be, or where there is another gateway although there may not be.
    """
    directory, base = settings.journal_path, worker_name(settings)
    failure: JournalError | None = None
    for name in slots.names(base) if beside else (base,):
        try:
            journal = Journal(
                directory,
                call_soon,
                clock,
                worker=name,
                file_bytes_max=settings.journal.file_bytes_max,
                synced=settings.journal.sync == "interval",
            )
        except JournalError as error:
            failure = failure or error
            continue
        for other in () if beside else slots.used(directory, base):
            with slots.held(directory, other) as free:
                if not free and other != name:
                    journal.close()
                    raise JournalError(
                        f"Another process writes the journal in {directory}; stop it, or use --takeover."
                    )
        return journal
    assert failure is not None, "there is a name at least"
    raise failure


def worker_name(settings: Settings) -> str:
    """What the journal's files are named after. The books know files by name, so no two gateways may share one."""
    if settings.journal.worker:
        return settings.journal.worker
    if settings.store_url.startswith("sqlite:"):
        return "gateway"  # alone with its store
    file = settings.journal_path / "worker"
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        file.write_text(f"gateway{secrets.token_hex(4)}", encoding="ascii")
    return file.read_text(encoding="ascii")


async def run(
    settings: Settings,
    catalog: Catalog,
    engine: Engine,
    helpers: list[Child],
    file: Path | None,
    *,
    simulated: bool,
    elder: running.Running | None = None,
) -> None:
    """The gateway until SIGTERM, SIGINT or a successor; `elder`: the gateway to take over from.

    Raises SettingsError where it cannot start.
    """
    loop = asyncio.get_running_loop()
    stop, reload = asyncio.Event(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGHUP, reload.set)
    with contextlib.ExitStack() as stack:
        # A folder of its own: a socket's path may have only about a hundred characters.
        sockets = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="vipcloud-")))
        console_socket = sockets / "console.sock" if settings.console.enabled else None
        built = stack.enter_context(
            gateway(settings, catalog, engine, context.clock, reload, console_socket, beside=elder is not None)
        )
        origin = elder.origin if elder is not None else own_origin(settings, await listen(built.server, settings))
        site = successor = None
        if console_socket is not None:
            site = Child("console", console_arguments(settings, file, console_socket, origin))
            site.start()
            stack.callback(site.stop)
            helpers = [*helpers, site]
        if elder is not None:
            await heard(site, stop)  # until then the elder's website is there
            if stop.is_set():
                return
            successor = await take_over(elder, built)
        guard = built.parts.guard
        async with asyncio.TaskGroup() as tasks:
            watchers = [tasks.create_task(helper.watch()) for helper in helpers]
            watchers.append(tasks.create_task(guard.run()))
            await guard.ready()
            told = announcement(settings, origin, sockets, simulated=simulated)
            stack.enter_context(running.announced(settings, told))
            leaving = Elder(built.parts, built.server, Path(told.handover))
            watchers.append(tasks.create_task(leaving.run()))
            housekeeping = tasks.create_task(built.housekeeping.run())
            following = None
            if successor is not None:
                following = tasks.create_task(successor.follow(built.parts, engine, worker_name(settings)))
            if settings.payments.stripe_key.reveal() or settings.payments.webhook_secret.reveal():
                watchers.append(tasks.create_task(built.withdrawals.run()))
            if settings.journal.sync == "interval":
                watchers.append(tasks.create_task(built.syncer.run()))
            if elder is None:
                await heard(site, stop, leaving.left)  # no request waits for that, but the greeting names the website
            if not stop.is_set() and not leaving.left.is_set():
                watchers += [tasks.create_task(each.watch()) for each in watching(settings, file, origin, stack)]
                greet(settings, origin, engine, simulated=simulated)
                relax_collector()
            await either(stop, leaving.left)
            housekeeping.cancel()  # what it tells is the successor's to tell now
            watchers.append(tasks.create_task(built.housekeeping.run_draining()))
            await built.server.close(settings.server.drain_timeout_s)
            if following is not None:  # what still runs at our elder is told through us; its limit was before ours
                await following
            await built.parts.guard.flushed()
            await leaving.end()
            for watcher in watchers:
                watcher.cancel()


def watching(settings: Settings, file: Path | None, origin: str, stack: contextlib.ExitStack) -> Sequence[Child]:
    """The helper that looks at all the others, and so starts last; none where there is no status page."""
    if not settings.status.enabled:
        return ()
    looker = Child("watch", watch_arguments(settings, file, origin), abrupt=True)
    looker.start()
    stack.callback(looker.stop)
    return (looker,)


async def take_over(elder: running.Running, built: Gateway) -> Successor:
    """Raises SettingsError."""
    try:
        successor = await Successor.ask(Path(elder.handover))
        await successor.serve(built.parts, built.server)
    except (HandoverFailed, OSError) as error:
        raise SettingsError(f"--takeover: {error}") from error
    return successor


async def heard(console: Child | None, *ends: asyncio.Event) -> None:
    """Wait until the console listens or has ended, or for one of `ends`; at most `CONSOLE_START_S`.

    One that has said nothing by then is stuck, and is ended as such: its watcher starts it again. One that has not when
    all ends is ended for good.
    """
    if console is None:
        return
    loop = asyncio.get_running_loop()
    word = loop.create_task(console.heard())
    others = [loop.create_task(event.wait()) for event in ends]
    try:
        done, _ = await asyncio.wait([word, *others], timeout=CONSOLE_START_S, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in (word, *others):
            wait.cancel()
    if word in done:
        return
    if done:
        console.end()
        return
    log.error("console does not start; it is started again", waited_s=CONSOLE_START_S)
    console.kill()


async def either(*events: asyncio.Event) -> None:
    """Wait for the first of them."""
    waits = [asyncio.get_running_loop().create_task(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()


def announcement(settings: Settings, origin: str, sockets: Path, *, simulated: bool) -> running.Running:
    addresses = {name: each.base_url for name, each in settings.upstreams.items()} if simulated else {}
    return running.Running(origin=origin, handover=str(sockets / "handover.sock"), simulated=addresses)


async def listen(server: HTTPServer, settings: Settings) -> int:
    host, port = settings.server.host, settings.server.port
    try:
        return await server.start(host, port)
    except OSError as error:
        reason = error.strerror or str(error)
        raise SettingsError(
            f"server.port: port {port} on {host} cannot be used ({reason}); choose another: --port."
        ) from error


def has_keys(settings: Settings, catalog: Catalog) -> bool:
    """Whether any provider has a key, from the settings or its own environment variable."""
    return any(
        settings.upstreams.get(provider.id, UpstreamSettings()).has_keys
        or environment_secret(provider.key_env) is not None
        for provider in catalog.providers.values()
    )


def check_no_address_is_ignored(settings: Settings, catalog: Catalog) -> None:
    """An upstream that was given an address is not to be simulated unasked. Raises SettingsError."""
    for name, upstream in settings.upstreams.items():
        provider = catalog.providers.get(name)
        if upstream.base_url and provider is not None:
            raise SettingsError(
                f"upstreams.{name}.base_url is set, but no key: set upstreams.{name}.keys or {provider.key_env}."
            )


def with_simulators(data: Path | None, config: Path | None, overrides: dict[str, Any]) -> tuple[Settings, Child]:
    """Settings whose upstreams are simulators, and the process to start for it: one for all of them."""
    upstreams, arguments = {}, ["sim", *simulators.PROVIDERS, "--json", "--under-parent"]
    for provider, port in zip(simulators.PROVIDERS, free_ports(len(simulators.PROVIDERS)), strict=True):
        upstreams[provider] = {"base_url": f"http://127.0.0.1:{port}", "keys": [running.SIMULATED_KEY]}
        arguments += ["--port", str(port)]
    return context.load(data, config, {**overrides, "upstreams": upstreams}), Child("simulators", arguments)


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as held:
        probes = [held.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]


def relax_collector() -> None:
    """Look for reference cycles seldom, and never among what was made at start: requests make none."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(GARBAGE_THRESHOLD, 20, 50)


def raise_file_limit() -> None:
    """As many open files as the system allows this user: one per client and one per upstream call."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def own_origin(settings: Settings, port: int) -> str:
    """Where this machine reaches the gateway: `http://127.0.0.1:8080`."""
    host = settings.server.host if settings.server.host not in ("0.0.0.0", "::") else "127.0.0.1"  # noqa: S104
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def console_arguments(settings: Settings, file: Path | None, socket_path: Path, origin: str) -> list[str]:
    url = settings.console.public_url or origin
    arguments = ["console", "--socket", str(socket_path), "--public-url", url, "--data", settings.data]
    return [*arguments, *(["--config", str(file)] if file else [])]


def watch_arguments(settings: Settings, file: Path | None, origin: str) -> list[str]:
    return ["watch", "--origin", origin, "--data", settings.data, *(["--config", str(file)] if file else [])]


def greet(settings: Settings, origin: str, engine: Engine, *, simulated: bool) -> None:
    """Say where it listens, and how to make a first call."""
    base = f"{origin}/v1"
    out = context.out
    out.print(f"[bold green]vipcloud[/] is ready.\n  base URL  [bold]{base}[/]")
    if settings.console.enabled:
        out.print(f"  website   [bold]{origin}[/]")
    if not simulated:
        out.print(
            "  API keys  vipcloud accounts create you@example.com; vipcloud keys create --account you@example.com"
        )
        return
    key = demo_key(settings, engine)
    out.print(f"  API key   [bold]{key}[/]")
    out.print("  upstreams [yellow]simulated[/]: no provider key is set, so every answer is made up on this machine.")
    out.print("            Set DEEPSEEK_API_KEY, ZHIPU_API_KEY or another provider's key to call the real ones.\n")
    out.print("Try it:\n")
    out.print(
        f"curl -N {base}/chat/completions \\\n"
        f'  -H "Authorization: Bearer {key}" \\\n'
        '  -H "Content-Type: application/json" \\\n'
        '  -d \'{"model":"deepseek-chat","stream":true,"messages":[{"role":"user","content":"Hello!"}]}\'\n'
    )


def demo_key(settings: Settings, engine: Engine) -> str:
    """A fresh key of the demo account, for simulated upstreams only: a stored key cannot be shown again."""
    now_s = context.clock.wall_s()
    with storage.writing(engine) as connection:
        try:
            account = store.find_account(connection, DEMO_EMAIL)
        except AccountNotFound:
            account = store.create_account(connection, DEMO_EMAIL, now_s, context.random_bytes)
            credit = parse_usd(settings.accounts.starter_credit_usd)
            if credit:
                ledger.grant(connection, f"demo/{account.id}", account.id, credit, now_s, "demo")
        return store.create_key(connection, account.id, now_s, context.random_bytes, "vipcloud serve").plaintext

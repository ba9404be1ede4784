"""`vipcloud sim PROVIDER`: simulated upstreams by themselves, each on a port of its own."""

import asyncio
import contextlib
import signal
from collections.abc import Mapping
from typing import Annotated

import typer
import uvloop

from vipcloud.cli import children, context
from vipcloud.errors import SettingsError
from vipcloud.http.server import HTTPServer
from vipcloud.simulators import app as simulators
from vipcloud.telemetry import logs

PORTS = {"deepseek": 9101, "zhipu": 9102, "moonshot": 9103, "dashscope": 9104, "minimax": 9105}


@context.renders_errors
def sim(
    providers: Annotated[
        list[str], typer.Argument(metavar="PROVIDER...", help=f"Some of {', '.join(simulators.PROVIDERS)}.")
    ],
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        list[int] | None,
        typer.Option(
            min=0,
            max=65535,
            help="Port, once for each provider in their order (default: the provider's own; 0: any).",
            show_default=False,
        ),
    ] = None,
    as_json: context.AsJSON = False,
    under_parent: Annotated[bool, typer.Option("--under-parent", hidden=True)] = False,
) -> None:
    """Start simulated providers, true to their quirks, with faults on demand."""
    for provider in providers:
        if provider not in simulators.PROVIDERS:
            raise SettingsError(f"There is no simulator for '{provider}'; there are {', '.join(simulators.PROVIDERS)}.")
    ports = port or [PORTS[provider] for provider in providers]
    if len(ports) != len(providers):
        raise SettingsError(f"--port is there {len(ports)} times for {len(providers)} providers; name one for each.")
    logs.configure()
    wanted = dict(zip(providers, ports, strict=True))
    uvloop.run(_run(wanted, host, as_json=as_json, under_parent=under_parent))


async def _run(ports: Mapping[str, int], host: str, *, as_json: bool, under_parent: bool) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with contextlib.AsyncExitStack() as servers:
        urls = {}
        for provider, port in ports.items():
            server, bound = await _listen(provider, host, port)
            servers.push_async_callback(server.close, 0)
            urls[provider] = f"http://{host}:{bound}"
        say(urls, as_json=as_json)
        if under_parent:
            children.when_parent_ends(lambda: loop.call_soon_threadsafe(stop.set))
        await stop.wait()


async def _listen(provider: str, host: str, port: int) -> tuple[HTTPServer, int]:
    try:
        return await simulators.start(provider, host, port)
    except OSError as error:
        raise SettingsError(f"Port {port} on {host} cannot be used: {error.strerror}.") from error


def say(urls: Mapping[str, str], *, as_json: bool) -> None:
    """Where they are, all at once: whoever reads the first line may call any of them."""
    for provider, url in urls.items():
        if as_json:
            context.print_json({"provider": provider, "base_url": url})
        else:
            context.out.print(f"[bold]{provider}[/] is simulated on {url} (Ctrl-C ends it)")
            context.out.print(f"  any key does; what it was sent: curl {url}/_sim/log")

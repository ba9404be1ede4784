"""`vipcloud sim PROVIDER`: one simulated upstream by itself."""

import asyncio
import signal
from typing import Annotated

import typer
import uvloop

from vipcloud.cli import children, context
from vipcloud.errors import SettingsError
from vipcloud.simulators import app as simulators
from vipcloud.telemetry import logs

PORTS = {"deepseek": 9101, "zhipu": 9102}


@context.told
def sim(
    provider: Annotated[str, typer.Argument(help=f"One of {', '.join(simulators.PROVIDERS)}.")],
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port (default: one per provider; 0: any).", show_default=False)
    ] = None,
    as_json: context.AsJSON = False,
    under_parent: Annotated[bool, typer.Option("--under-parent", hidden=True)] = False,
) -> None:
    """Start a simulated provider, true to its quirks, with faults on demand."""
    if provider not in simulators.PROVIDERS:
        raise SettingsError(f"There is no simulator for '{provider}'; there are {', '.join(simulators.PROVIDERS)}.")
    logs.configure()
    wanted = port if port is not None else PORTS.get(provider, 0)
    try:
        uvloop.run(_run(provider, host, wanted, as_json=as_json, under_parent=under_parent))
    except OSError as error:
        raise SettingsError(f"Port {wanted} on {host} cannot be used: {error.strerror}.") from error


async def _run(provider: str, host: str, port: int, *, as_json: bool, under_parent: bool) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    server, bound = await simulators.start(provider, host, port)
    url = f"http://{host}:{bound}"
    if as_json:
        context.print_json({"provider": provider, "base_url": url})
    else:
        context.out.print(f"[bold]{provider}[/] is simulated on {url} (Ctrl-C ends it)")
        context.out.print(f"  any key does; what it was sent: curl {url}/_sim/log")
    if under_parent:
        children.when_parent_ends(lambda: loop.call_soon_threadsafe(stop.set))
    await stop.wait()
    await server.close(0)

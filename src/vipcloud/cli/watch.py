"""`vipcloud watch`: once a minute looks whether all is well, and writes the status page. `serve` starts it.

It is a process of its own, so that the page tells of a gateway, a website or a store that does not answer.
"""

import os
from typing import Annotated

import typer
import uvloop

from vipcloud.cli import children, context
from vipcloud.telemetry import logs


@context.renders_errors
def watch(
    origin: Annotated[str, typer.Option(help="Where the gateway is reached, such as http://127.0.0.1:8080.")],
    data: context.Data = None,
    config: context.Config = None,
) -> None:
    """Check once a minute and write the status page until standard input ends."""
    children.when_parent_ends(lambda: os._exit(0))  # whatever it is at: there is nothing to bring to an end
    # Imported here: the gateway reads this module too, and need not carry what renders pages.
    from vipcloud.cli import watcher

    logs.configure()
    children.give_way()
    settings = context.load(data, config)
    looking = watcher.Watcher(settings, context.open_store(settings), context.clock, origin)
    uvloop.run(watcher.run(looking, data, config))

"""`vipcloud console`: the website and dashboard. `serve` starts it; it ends with its parent."""

from pathlib import Path
from typing import Annotated, Any

import typer

from vipcloud.cli import children, context
from vipcloud.telemetry import logs

READY = "ready"  # the first line it prints


@context.renders_errors
def console(
    socket: Annotated[Path, typer.Option(help="The Unix socket to listen on.")],
    public_url: Annotated[str, typer.Option(help="Where customers reach it, such as https://vipcloud.ai.")],
    data: context.Data = None,
    config: context.Config = None,
) -> None:
    """Serve pages on a Unix socket until standard input ends."""
    # Imported here: the gateway reads this module too, and shall not carry a web framework in its memory.
    import uvicorn

    from vipcloud.console import app
    from vipcloud.console.parts import CurrentCatalog, Parts

    class Server(uvicorn.Server):
        """Says when it listens."""

        async def startup(self, sockets: list[Any] | None = None) -> None:
            await super().startup(sockets)
            typer.echo(READY)

    logs.configure()
    settings = context.load(data, config)
    engine = context.open_store(settings)
    parts = Parts(
        settings=settings,
        clock=context.clock,
        engine=engine,
        catalogs=CurrentCatalog(lambda: context.load_catalog(settings), settings.catalog_path, context.clock),
        public_url=public_url.rstrip("/"),
        random_bytes=context.random_bytes,
    )
    server = Server(
        uvicorn.Config(
            app.build(parts),
            uds=str(socket),
            access_log=False,
            log_config=None,
            lifespan="on",
            proxy_headers=False,
            server_header=False,
            date_header=False,
            timeout_graceful_shutdown=5,
        )
    )

    def end() -> None:
        server.should_exit = True

    children.when_parent_ends(end)
    server.run()

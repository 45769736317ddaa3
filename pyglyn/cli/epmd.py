"""``pyglyn epmd`` and ``pyglyn names``. Layer: cli."""

from __future__ import annotations

import asyncio
import signal

import rich_click as click

from pyglyn.cli import tables, values
from pyglyn.cli.options import json_option, log_level_option, run, set_up_logging
from pyglyn.errors import EpmdError
from pyglyn.net import EpmdServer, epmd_client
from pyglyn.net.settings import epmd_port_from_environment
from pyglyn.net.transport import explain


@click.command()
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=None,
    help="Port to serve on. [default: ERL_EPMD_PORT or 4369]",
)
@log_level_option("info")
def epmd(port: int | None, log_level: str) -> None:
    """Run an EPMD (the port mapper of Erlang nodes) until SIGINT or SIGTERM."""
    set_up_logging(log_level)

    async def go() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        server = EpmdServer(epmd_port_from_environment() if port is None else port)
        try:
            await server.start()
        except OSError as error:
            raise EpmdError(f"cannot serve EPMD on port {server.port}: {explain(error)}") from error
        try:
            await stop.wait()
        finally:
            server.stop()

    run(go())


@click.command()
@click.argument("host", default="localhost")
@json_option
def names(host: str, as_json: bool) -> None:
    """List the nodes registered at the EPMD of HOST (this machine)."""
    found = run(epmd_client.names(host, epmd_port_from_environment()))
    if as_json:
        values.show_json([{"node": f"{name}@{host}", "port": port} for name, port in sorted(found)])
        return
    if not found:
        click.echo(f"no nodes on {host}")
        return
    table = tables.table("node", "port", right=["port"], whole=["port"])
    for name, port in sorted(found):
        tables.row(table, f"{name}@{host}", port)
    tables.show(table)

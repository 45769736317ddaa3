"""``pyglyn ping`` and ``pyglyn call``. Layer: cli."""

from __future__ import annotations

import time

import rich_click as click

from pyglyn import etf, logs
from pyglyn.cli import values
from pyglyn.cli.options import client_node, client_options, json_option, run, set_up_logging
from pyglyn.errors import DistributionError, ProcessError


@click.command()
@click.argument("node", metavar="NODE")
@json_option
@client_options
def ping(node: str, as_json: bool, cookie: str, timeout: float, log_level: str) -> None:
    """Ask NODE whether it is there: prints pong, or pang (and the reason) and exits with 1."""
    set_up_logging(log_level)

    async def go() -> float:
        async with client_node(node, cookie) as local:
            start = time.perf_counter()
            if not await local.ping(node, timeout):
                raise DistributionError(f"{node} does not answer as a node does")
            return time.perf_counter() - start

    try:
        seconds = run(go())
    except (DistributionError, ProcessError) as error:
        if as_json:
            values.show_json({"node": node, "answer": "pang", "seconds": None, "error": str(error)})
        else:
            click.echo("pang")
        raise
    if as_json:
        values.show_json({"node": node, "answer": "pong", "seconds": seconds, "error": None})
        return
    click.echo(f"pong ({seconds * 1000:.1f} ms)")


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("node", metavar="NODE")
@click.argument("module", metavar="MODULE")
@click.argument("function", metavar="FUNCTION")
@click.argument("terms", metavar="[TERM]...", nargs=-1)
@json_option
@client_options
def call(
    node: str,
    module: str,
    function: str,
    terms: tuple[str, ...],
    as_json: bool,
    cookie: str,
    timeout: float,
    log_level: str,
) -> None:
    """Call MODULE:FUNCTION on NODE with arguments in Erlang syntax and print the result in it.

    Example: `pyglyn call order@localhost pricing quote '<<"laptop">>' 3`
    """
    set_up_logging(log_level)
    args = [etf.text.parse(term) for term in terms]

    async def go() -> etf.Term:
        async with client_node(node, cookie) as local:
            return await local.erpc(node, module, function, args, timeout)

    result = run(go())
    if as_json:
        values.show_json(values.json_of(result))
    else:
        click.echo(etf.text.format(result))


@click.command("log-level")
@click.argument("node", metavar="NODE")
@click.argument("level", metavar="[LEVEL]", required=False, type=click.Choice(logs.LEVELS))
@json_option
@client_options
def log_level_command(
    node: str, level: str | None, as_json: bool, cookie: str, timeout: float, log_level: str
) -> None:
    """Show from which level on NODE logs, or change it while it runs, in all its processes."""
    set_up_logging(log_level)

    async def go() -> etf.Term:
        async with client_node(node, cookie) as local:
            args: list[etf.Term] = [] if level is None else [etf.Atom(level)]
            return await local.erpc(node, "pyglyn", "log_level", args, timeout)

    result = str(run(go()))
    if as_json:
        values.show_json({"node": node, "level": result})
    else:
        click.echo(result)

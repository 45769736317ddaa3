"""``pyglyn ping`` and ``pyglyn call``. Layer: cli."""

from __future__ import annotations

import time

import rich_click as click

from pyglyn import etf, logs
from pyglyn.cli import values
from pyglyn.cli.options import client_node, client_options, json_option, run, set_up_logging
from pyglyn.errors import (
    DistributionError,
    LocalProtocolError,
    ProcessError,
    RemoteException,
    TermSyntaxError,
)

UNDEF = etf.Atom("undef")


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
    except LocalProtocolError:
        raise  # the fault is here: nothing is known of the node
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
@click.argument("function", metavar="FUNCTION", required=False)
@click.argument("terms", metavar="[TERM]...", nargs=-1)
@json_option
@client_options
def call(
    node: str,
    module: str,
    function: str | None,
    terms: tuple[str, ...],
    as_json: bool,
    cookie: str,
    timeout: float,
    log_level: str,
) -> None:
    """Call MODULE:FUNCTION on NODE with arguments in Erlang syntax and print the result in it.

    Example: `pyglyn call order@localhost pricing quote '<<"laptop">>' 3`. What Python, Gleam and Elixir call
    a string is `<<"laptop">>` there. MODULE:FUNCTION may be one word.
    """
    set_up_logging(log_level)
    if ":" in module:
        module, _, name = module.partition(":")
        terms = terms if function is None else (function, *terms)
    elif function is not None:
        name = function
    else:
        raise click.UsageError("Missing argument 'FUNCTION'.")
    args = list(map(_parsed, terms))

    async def go() -> etf.Term:
        async with client_node(node, cookie) as local:
            return await local.erpc(node, module, name, args, timeout)

    try:
        result = run(go())
    except RemoteException as error:
        if error.reason is UNDEF:
            error.add_note(f"has {node} exported {module}:{name}/{len(args)}?")
        raise
    if as_json:
        values.show_json(values.json_of(result))
    else:
        click.echo(etf.text.format(result))


def _parsed(text: str) -> etf.Term:
    try:
        return etf.text.parse(text)
    except TermSyntaxError as error:
        error.add_note(f"the argument is {text}")
        raise


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

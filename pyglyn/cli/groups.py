"""``pyglyn groups``, ``pyglyn tap`` and ``pyglyn publish``. Layer: cli."""

from __future__ import annotations

import asyncio
import signal
import sys
from typing import Any

import rich_click as click
from rich.tree import Tree

from pyglyn import etf
from pyglyn.cli import tables, values
from pyglyn.cli.options import client_node, client_options, json_option, run, set_up_logging
from pyglyn.errors import DistributionError, RemoteException
from pyglyn.etf import Atom, Term
from pyglyn.groups import syn
from pyglyn.groups.overview import Member, Merged, Scope, merge, overview
from pyglyn.node import Node, Process
from pyglyn.node.described import pid_text
from pyglyn.node.reasons import UNDEFINED

UNDEF = Atom("undef")
WORDS = {"pg": "pg", "syn_groups": "syn groups", "syn_registry": "syn registry"}


async def look(local: Node, node: str, timeout: float) -> list[Scope]:
    """The scopes, groups and members that a node knows of."""

    async def ask(module: str, function: str, *args: Term) -> Any:
        return await local.erpc(node, module, function, args, timeout)

    return await overview(ask)


@click.command()
@click.argument("nodes", metavar="NODE...", nargs=-1, required=True)
@json_option
@client_options
def groups(nodes: tuple[str, ...], as_json: bool, cookie: str, timeout: float, log_level: str) -> None:
    """Show the process groups and registered names of the cluster as NODE sees them.

    Of several NODEs, what all of them see is shown as one; a member that one of them does not know of says
    so. NODEs may be BEAM nodes (with `pg`, `syn`, or both) or Python ones.
    """
    set_up_logging(log_level)

    async def go() -> list[Merged]:
        async with client_node(nodes[0], cookie) as local:
            seen = await asyncio.gather(*(look(local, node, timeout) for node in nodes))
            return merge(zip(nodes, seen, strict=True))

    scopes = run(go())
    if as_json:
        values.show_json([_scope(scope) for scope in scopes])
        return
    if not scopes:
        click.echo(f"no scopes on {', '.join(nodes)}")
        return
    for scope in scopes:
        tables.show(_tree(scope))


def _tree(scope: Merged) -> Tree:
    tree = Tree(tables.cell(f"{WORDS[scope.kind]} ", "bold").append(tables.printable(scope.name), "cyan"))
    for group, members in scope.groups:
        branch = tree.add(tables.cell(etf.text.format(group), "bold green"))
        for member in members:
            note = "" if member.meta is UNDEFINED else f"  {etf.text.format(member.meta)}"
            line = tables.cell(f"{etf.text.format(member.pid)} on {member.pid.node}{note}")
            if member.missing:
                line.append(f"  not known on {', '.join(map(tables.printable, member.missing))}", "yellow")
            branch.add(line)
    if not scope.groups:
        tree.add(tables.cell("empty", "dim"))
    return tree


def _scope(scope: Merged) -> dict[str, Any]:
    def members(found: list[Member]) -> list[dict[str, Any]]:
        return [
            {
                "pid": pid_text(member.pid),
                "node": member.pid.node,
                "meta": None if member.meta is UNDEFINED else values.json_of(member.meta),
                "missing": member.missing,
            }
            for member in found
        ]

    groups = [{"name": values.json_of(name), "members": members(found)} for name, found in scope.groups]
    return {"kind": scope.kind, "scope": scope.name, "nodes": scope.nodes, "groups": groups}


def _group_option(function: Any) -> Any:
    function = click.option(
        "--group", required=True, metavar="G", help="The group, a string as Glyn has it; or with --term."
    )(function)
    function = click.option("--scope", required=True, metavar="S", help="The syn scope.")(function)
    return click.option("--term", is_flag=True, help="G is a term in Erlang syntax, not a string.")(function)


def _group(text: str, is_term: bool) -> Term:
    return etf.text.parse(text) if is_term else text.encode()


async def _connect_to_all(local: Node, node: str, timeout: float) -> None:
    """Connect to whom a node is connected to: nobody introduces a hidden node to the others."""
    kinds = [Atom("visible"), Atom("hidden")]
    others: Any = await local.rpc(node, "erlang", "nodes", [kinds], timeout)
    for other in sorted({other.name for other in others} - {local.name}):
        try:
            await local.connect(other)
        except DistributionError as error:
            click.echo(f"pyglyn: not listening to publishers on {other}: {error}", err=True)


@click.command()
@click.argument("node", metavar="NODE")
@_group_option
@json_option
@client_options
def tap(
    node: str, scope: str, group: str, term: bool, as_json: bool, cookie: str, timeout: float, log_level: str
) -> None:
    """Print what is published to a group, as it happens, until Ctrl-C.

    The command joins the group as a member on a hidden node of its own, which connects to NODE and to the
    nodes that NODE is connected to: publishers count one subscriber more while it runs.
    """
    set_up_logging(log_level)
    wanted = _group(group, term)

    async def watch(me: Process) -> None:
        await syn.join(me, scope, wanted, me.pid)
        click.echo(f"listening to {group} in scope {scope} of {node}", err=True)
        while True:
            message = await me.receive()
            if as_json:
                values.show_json(values.json_of(message))
            else:
                click.echo(etf.text.format(message))
                sys.stdout.flush()

    async def go() -> None:
        async with client_node(node, cookie, watching=True) as local:
            syn.start(local, scope)
            await _connect_to_all(local, node, timeout)
            local.spawn(watch)
            stop = asyncio.Event()
            for number in (signal.SIGINT, signal.SIGTERM):
                asyncio.get_running_loop().add_signal_handler(number, stop.set)
            local.on_node_event(lambda event: stop.set() if event.node == node and not event.up else None)
            await stop.wait()
            if node not in local.nodes():
                raise click.ClickException(f"the connection to {node} is lost")

    run(go())


@click.command()
@click.argument("node", metavar="NODE")
@_group_option
@click.argument("message", metavar="TERM")
@click.option("--bare", is_flag=True, help='Send TERM as it is, not as Glyn\'s {<<"group">>, TERM}.')
@json_option
@client_options
def publish(
    node: str,
    scope: str,
    group: str,
    term: bool,
    message: str,
    bare: bool,
    as_json: bool,
    cookie: str,
    timeout: float,
    log_level: str,
) -> None:
    """Have NODE publish TERM (in Erlang syntax) to a group; prints how many members it was sent to."""
    set_up_logging(log_level)
    wanted = _group(group, term)
    body = etf.text.parse(message)

    async def go() -> int:
        async with client_node(node, cookie) as local:
            if await local.rpc(node, "erlang", "whereis", [Atom(f"syn_pg_{scope}")], timeout) is UNDEFINED:
                raise click.ClickException(f"{node} does not run the syn scope {scope}")
            args = [Atom(scope), wanted, body if bare else (wanted, body)]
            try:
                answer: Any = await local.erpc(node, "pyglyn", "publish", args, timeout)
            except RemoteException as error:
                if error.reason is not UNDEF:
                    raise
                answer = await local.erpc(node, "syn", "publish", args, timeout)
            return int(answer[1])

    sent = run(go())
    if as_json:
        values.show_json({"sent": sent})
    else:
        click.echo(f"sent to {sent}")

"""``pyglyn groups``, ``pyglyn tap`` and ``pyglyn publish``. Layer: cli."""

from __future__ import annotations

import asyncio
import signal
import sys
from typing import Any

import attrs
import rich_click as click
from rich.tree import Tree

from pyglyn import etf
from pyglyn.cli import tables, values
from pyglyn.cli.options import client_node, client_options, json_option, run, set_up_logging
from pyglyn.errors import DistributionError, RemoteException
from pyglyn.etf import Atom, Pid, Term
from pyglyn.groups import syn
from pyglyn.node import Node, Process
from pyglyn.node.described import pid_text
from pyglyn.node.reasons import UNDEFINED

UNDEF = Atom("undef")
WORDS = {"pg": "pg", "syn_groups": "syn groups", "syn_registry": "syn registry"}

# What is asked of a BEAM node: its pg scopes (processes that run pg:init/1) and its syn tables.
_SYN_TABLES = {
    "syn_pg_": ("syn_groups", "syn_pg_by_name_"),
    "syn_registry_": ("syn_registry", "syn_registry_by_name_"),
}


@attrs.frozen
class Scope:
    """One scope as seen from a node.

    Attributes:
        kind: ``pg``, ``syn_groups`` or ``syn_registry``.
        name: the scope.
        groups: group (or registered name) -> members with metadata.
    """

    kind: str
    name: str
    groups: list[tuple[Term, list[tuple[Pid, Term]]]]


async def overview(local: Node, node: str, timeout: float) -> list[Scope]:
    """The scopes, groups and members that a node knows of."""
    try:
        answer: Any = await local.erpc(node, "pyglyn", "groups", [], timeout)
    except RemoteException as error:
        if error.reason is not UNDEF:
            raise
    else:
        return [Scope(kind.name, name.decode(), groups) for kind, name, groups in answer]
    try:
        await local.erpc(node, "pyglyn", "log_level", [], timeout)
    except RemoteException as error:
        if error.reason is not UNDEF:
            raise
        return await _beam_overview(local, node, timeout)
    return []  # a pyglyn node that runs no scope


async def _beam_overview(local: Node, node: str, timeout: float) -> list[Scope]:
    async def ask(module: str, function: str, *args: Term) -> Any:
        return await local.erpc(node, module, function, args, timeout)

    scopes: list[Scope] = []
    for name in sorted(str(name) for name in await ask("erlang", "registered")):
        for prefix, (kind, table) in _SYN_TABLES.items():
            if name.startswith(prefix):
                scope = name.removeprefix(prefix)
                entries = await ask("ets", "tab2list", Atom(table + scope))
                scopes.append(Scope(kind, scope, _syn_groups(kind, entries)))
        if await _is_pg_scope(ask, name):
            groups = await ask("pg", "which_groups", Atom(name))
            members = [await ask("pg", "get_members", Atom(name), group) for group in groups]
            listed: Any = [(g, [(pid, UNDEFINED) for pid in m]) for g, m in zip(groups, members, strict=True)]
            scopes.append(Scope("pg", name, listed))
    return scopes


async def _is_pg_scope(ask: Any, name: str) -> bool:
    pid = await ask("erlang", "whereis", Atom(name))
    if not isinstance(pid, Pid):
        return False
    info = await ask("erlang", "process_info", pid, Atom("dictionary"))
    pairs = info[1] if isinstance(info, tuple) else []
    return (Atom("$initial_call"), (Atom("pg"), Atom("init"), 1)) in pairs


def _syn_groups(kind: str, entries: list[Any]) -> list[tuple[Term, list[tuple[Pid, Term]]]]:
    """Rows of syn's tables: ``{{Group, Pid}, Meta, …}`` for groups, ``{Name, Pid, Meta, …}`` for names."""
    groups: dict[str, tuple[Term, list[tuple[Pid, Term]]]] = {}
    for entry in entries:
        (name, pid), meta = entry[:2] if kind == "syn_groups" else (entry[:2], entry[2])
        groups.setdefault(etf.text.format(name), (name, []))[1].append((pid, meta))
    return [groups[key] for key in sorted(groups)]


@click.command()
@click.argument("node", metavar="NODE")
@json_option
@client_options
def groups(node: str, as_json: bool, cookie: str, timeout: float, log_level: str) -> None:
    """Show the process groups and registered names of the cluster as NODE sees them.

    NODE may be a BEAM node (with `pg`, `syn`, or both) or a Python one.
    """
    set_up_logging(log_level)

    async def go() -> list[Scope]:
        async with client_node(node, cookie) as local:
            return await overview(local, node, timeout)

    scopes = run(go())
    if as_json:
        values.show_json([_scope(scope) for scope in scopes])
        return
    if not scopes:
        click.echo(f"no scopes on {node}")
        return
    for scope in scopes:
        tree = Tree(tables.cell(f"{WORDS[scope.kind]} ", "bold").append(tables.printable(scope.name), "cyan"))
        for group, members in scope.groups:
            branch = tree.add(tables.cell(etf.text.format(group), "bold green"))
            for pid, meta in members:
                note = "" if meta is UNDEFINED else f"  {etf.text.format(meta)}"
                branch.add(tables.cell(f"{etf.text.format(pid)} on {pid.node}{note}"))
        if not scope.groups:
            tree.add(tables.cell("empty", "dim"))
        tables.show(tree)


def _scope(scope: Scope) -> dict[str, Any]:
    def members(found: list[tuple[Pid, Term]]) -> list[dict[str, Any]]:
        return [
            {
                "pid": pid_text(pid),
                "node": pid.node,
                "meta": None if meta is UNDEFINED else values.json_of(meta),
            }
            for pid, meta in found
        ]

    groups = [{"name": values.json_of(name), "members": members(found)} for name, found in scope.groups]
    return {"kind": scope.kind, "scope": scope.name, "groups": groups}


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

"""``pyglyn doctor``: why a node is not reached, step by step. Layer: cli."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator

import attrs
import rich_click as click

from pyglyn.cli import tables, values
from pyglyn.cli.groups import look
from pyglyn.cli.network import net_settings
from pyglyn.cli.options import client_node, client_options, json_option, own_name, run, set_up_logging
from pyglyn.dist import has_long_host, is_node_name
from pyglyn.errors import (
    EpmdError,
    HandshakeError,
    MissingFlags,
    NameRefused,
    NotEpmd,
    PyglynError,
    TlsError,
    WrongCookie,
)
from pyglyn.net import NetSettings, epmd_client, transport
from pyglyn.node.cookie import CookieError


@attrs.frozen
class Finding:
    """What one step has shown.

    Attributes:
        step: which.
        seen: what there was.
        advice: what to do; empty where all is well.
    """

    step: str
    seen: str
    advice: str = ""


@click.command()
@click.argument("node", metavar="NODE")
@json_option
@client_options
def doctor(node: str, as_json: bool, cookie: str, timeout: float, log_level: str) -> None:
    """Find out why NODE is not reached: name, host, EPMD, port, TLS and handshake, cookie, groups, in turn.

    Takes the options of the command that does not get through. Exits with 1 at the first step that fails, and
    says what to do.
    """
    set_up_logging("critical" if log_level == "error" else log_level)

    async def as_one() -> bool:
        found = [finding async for finding in walk(node, cookie, net_settings(), timeout)]
        values.show_json([{**attrs.asdict(each), "ok": not each.advice} for each in found])
        return not any(each.advice for each in found)

    async def go() -> bool:
        fine = True
        async for finding in walk(node, cookie, net_settings(), timeout):
            fine = not finding.advice
            mark = "ok    " if fine else "FAILED"
            click.echo(f"{mark}  {finding.step:<9}  {tables.printable(finding.seen)}")
            if finding.advice:
                click.echo(f"        {'':<9}  {tables.printable(finding.advice)}")
        return fine

    sys.exit(0 if run(as_one() if as_json else go()) else 1)


async def walk(node: str, cookie: str, net: NetSettings, timeout: float) -> AsyncIterator[Finding]:
    """Take the steps to a node, up to the first that fails."""
    if not is_node_name(node):
        yield Finding("name", f"{node!r} is no node name", "write name@host, as in inventory@localhost")
        return
    kind = "a long name" if has_long_host(node) else "a short name"
    yield Finding("name", f"{node} is {kind}; this command is {own_name(node)}")
    alive, _, host = node.partition("@")
    try:
        address = await transport.resolve(host, timeout, ipv6=net.ipv6)
    except HandshakeError as error:
        advice = f"put {host} into DNS or /etc/hosts here, or call the node by a name that is there"
        yield Finding("host", str(error), advice)
        return
    yield Finding("host", f"{host} is {address}")
    port = net.dist_port
    if net.has_epmd:
        async for finding, found in _epmd(alive, address, net, timeout):
            yield finding
            if finding.advice:
                return
            port = found or port
    finding = await _port(address, port, net, timeout)
    yield finding
    if finding.advice:
        return
    async for finding in _inside(node, cookie, net, timeout):
        yield finding


async def _epmd(
    alive: str, address: str, net: NetSettings, timeout: float
) -> AsyncIterator[tuple[Finding, int]]:
    where = f"{address}:{net.epmd_port}"
    try:
        names = dict(await epmd_client.names(address, net.epmd_port, timeout_s=timeout))
    except NotEpmd as error:
        advice = "another program has that port: end it, or give all nodes another one in ERL_EPMD_PORT"
        yield Finding("EPMD", str(error), advice), 0
        return
    except EpmdError as error:
        advice = (
            "start the node, let its EPMD's port through, or set ERL_EPMD_PORT as the cluster has it; "
            "a cluster without EPMD needs --dist-port"
        )
        yield Finding("EPMD", str(error), advice), 0
        return
    listed = ", ".join(sorted(names)) or "nobody"
    if alive not in names:
        advice = f"start {alive} there, or correct the name; a node whose app is starting is not announced"
        yield Finding("EPMD", f"EPMD at {where} knows {listed}, and no {alive}", advice), 0
        return
    yield Finding("EPMD", f"EPMD at {where} says that {alive} listens at port {names[alive]}"), names[alive]


async def _port(address: str, port: int, net: NetSettings, timeout: float) -> Finding:
    try:
        async with asyncio.timeout(timeout):
            _, writer = await asyncio.open_connection(address, port)
    except OSError as error:
        advice = (
            f"let port {port} through every firewall on the way; the node may listen on another interface "
            "(inet_dist_use_interface, IPv6), or have ended without EPMD noticing"
        )
        return Finding("port", f"{address}:{port}: {transport.explain(error)}", advice)
    writer.transport.abort()
    return Finding("port", f"{address}:{port} takes connections")


async def _inside(node: str, cookie: str, net: NetSettings, timeout: float) -> AsyncIterator[Finding]:
    speaks = "TLS" if net.tls is not None else "handshake"
    connected = False
    try:
        async with client_node(node, cookie) as local:
            connected = True
            connection = local.peers.get(node)
            common = 0 if connection is None else connection.flags.bit_count()
            yield Finding(speaks, f"{node} lets this command in; {common} capabilities in common")
            yield Finding("cookie", "is the same on both sides")
            scopes = await look(local, node, timeout)
            told = ", ".join(f"{scope.kind} {scope.name}: {len(scope.groups)}" for scope in scopes)
            yield Finding("groups", told or f"{node} runs no pg and no syn scope")
    except PyglynError as error:
        step, advice = (
            ("groups", "the node let this command in, and then did not answer")
            if connected
            else advice_for(error, net)
        )
        yield Finding(step, str(error), advice)


def advice_for(error: PyglynError, net: NetSettings) -> tuple[str, str]:
    """The step at which a connect failed, by the kind of error, and what helps."""
    if isinstance(error, WrongCookie | CookieError):
        return "cookie", "give both sides the same one: ~/.erlang.cookie, PYGLYN_COOKIE or -setcookie"
    if isinstance(error, MissingFlags):
        return "flags", "one of the two is too old: OTP 25 or later is needed"
    if isinstance(error, NameRefused):
        return "handshake", "the node lets in only some (net_kernel:allow, NetSettings.allowed)"
    if isinstance(error, TlsError):
        ours = "this command speaks TLS" if net.tls is not None else "this command speaks no TLS"
        return "TLS", f"{ours}: both sides must, with certificates of the same CA (--ssl-dist-optfile)"
    if isinstance(error, EpmdError):
        return (
            "EPMD",
            "this command is a node itself: let it register with this machine's EPMD, or set ERL_EPMD_PORT",
        )
    return "handshake", "what listens there may be no node, one that hangs, or one that speaks TLS"

"""``pyglyn node``: run a node until it is told to stop. Layer: cli."""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

import attrs
import rich_click as click
from click.core import ParameterSource

from pyglyn import logs, loops, patience
from pyglyn.cli import configuration, known, values
from pyglyn.cli.loading import load_function
from pyglyn.cli.network import net_settings, network_options, network_values
from pyglyn.cli.observe import TOKEN_VARIABLE, address, http_address, new_token
from pyglyn.cli.options import cookie_option, json_option, log_level_option, run, set_up_logging
from pyglyn.dist import has_long_host, is_node_name
from pyglyn.errors import ChildStartError, DiscoveryError, DistributionError
from pyglyn.etf import Atom, Term
from pyglyn.net import Discovery, LocalNode, discovery
from pyglyn.node import Node, Settings
from pyglyn.node.exits import reason_text
from pyglyn.node.node import APP
from pyglyn.node.settings import Observe
from pyglyn.supervision import ChildSpec, Supervisor, start
from pyglyn.supervision.hub import trees

logger = logging.getLogger("pyglyn.node")

LONG_START_S = 10.0
"""How long an app may start before a line says that nobody finds the node yet."""

EXIT_KILLED = 3
"""The exit status when something had to be killed at the end."""


async def _serve_http(local: Node, host: str, port: int) -> None:
    from pyglyn.http import Observer, serve
    from pyglyn.http.pages import routes

    token, observe = new_token(), local.settings.observe
    observer = Observer(local, [local.name], may_change=observe == "full")
    server = await serve(local, host, port, routes=[] if observe == "off" else [routes(observer, token)])
    logger.info("serves HTTP at %s, port %d", host, server.port)
    if observe != "off" and TOKEN_VARIABLE not in os.environ:
        click.echo(f"observe at {address(host, server.port, token)}")  # no log line: there is a secret in it


@click.command()
@click.option(
    "--sname",
    metavar="NAME@HOST",
    help="Short node name; without @HOST, this machine's. With undefined the first node of "
    "--connect gives it one.",
)
@click.option("--name", metavar="NAME@HOST", help="Long node name; the host has a dot or is an address.")
@cookie_option
@click.option(
    "--connect", multiple=True, metavar="NODE", help="Connect to NODE and stay connected; repeatable."
)
@click.option(
    "--discover",
    multiple=True,
    metavar="KIND:WHERE",
    help="Connect to the nodes found by list:A@X,B@Y, env:VARIABLE, dns:NAME (addresses), srv:NAME or "
    "python:MODULE:FUNCTION, and look again and again; repeatable. DNS needs pyglyn[dns].",
)
@click.option(
    "--discover-interval",
    metavar="SECONDS",
    type=click.FloatRange(min=0, min_open=True),
    default=5.0,
    show_default=True,
    help="How often to look for nodes, a little less each time at random.",
)
@click.option(
    "--app",
    metavar="MODULE:FUNCTION",
    help="What to run: a function that receives the node and returns a supervision tree, or an async "
    "function that is the app itself; also path.py:function.",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    help="TCP port to listen on. [default: that of --dist-port, else any]",
)
@click.option(
    "--hidden/--visible", default=True, show_default=True, help="How the node shows in the cluster."
)
@click.option(
    "--observe",
    type=click.Choice(["full", "read", "off"]),
    default="read",
    show_default=True,
    help="What Observer and its like get: all that only reads, also what changes something, or nothing.",
)
@network_options
@click.option(
    "--http",
    metavar="HOST:PORT",
    callback=http_address,
    help="Serve a page to look at the node, /livez, /readyz and /metrics (Prometheus) there; needs "
    "pyglyn[http]. [default: off]",
)
@click.option(
    "--heartbeat-file",
    metavar="FILE",
    help="Write starting, ready or stopping there, anew every two seconds, for probes that look at a file.",
)
@click.option(
    "--loop",
    type=click.Choice(loops.KINDS),
    default="asyncio",
    show_default=True,
    help="The event loop of the node and its workers; uvloop answers sooner, and needs pyglyn[speed].",
)
@click.option(
    "--print-config", is_flag=True, help="Print what holds, with where it came from, and start nothing."
)
@json_option
@log_level_option("info")
@click.option(
    "--log-format",
    type=click.Choice(logs.FORMATS),
    default="text",
    show_default=True,
    help="Lines for people, or one JSON object a line.",
)
@click.option(
    "--log-config",
    metavar="FILE",
    help="Log as a dictConfig in FILE (.json or .toml) says, in all the node's processes, instead of to "
    "standard error.",
)
def node(
    sname: str | None,
    name: str | None,
    cookie: str,
    connect: Sequence[str],
    discover: tuple[str, ...],
    discover_interval: float,
    app: str | None,
    port: int | None,
    hidden: bool,
    http: tuple[str, int] | None,
    observe: Observe,
    heartbeat_file: str | None,
    loop: loops.Kind,
    print_config: bool,
    as_json: bool,
    log_level: str,
    log_format: str,
    log_config: str | None,
) -> None:
    """Run a node of the cluster until SIGINT or SIGTERM; a second signal ends it at once.

    The cluster finds it, and it connects, once its app has started: when the function has returned and its
    tree is up, when it waits for a message, or when it has called node.ready().

    Exit status: 0; 1 when the app failed or its supervision tree gave up; 3 when a child of the tree had to
    be killed because it did not stop in time.
    """
    sname, name = _closer(sname, name)
    if print_config:
        for sentence in known.unread(os.environ):
            click.echo(f"pyglyn: {sentence}", err=True)
        served = None if http is None else _host_and_port(*http)
        _print_config(as_json, sname=sname, name=name, http=served, print_config=False)
        return
    full_name = _node_name(sname, name)
    set_up_logging(log_level, log_format, log_config, node=full_name)
    for sentence in known.unread(os.environ):
        logger.warning("%s", sentence)
    function = load_function(app) if app else None
    make_loop = _maker(loop)
    _check_peers(connect, full_name)
    net = attrs.evolve(net_settings(), listen_port=port)
    ways = [_way(text, full_name.partition("@")[0], ipv6=net.ipv6) for text in discover]
    settings = Settings(net=net, observe=observe, heartbeat_file=heartbeat_file)

    if not LocalNode(name=full_name, cookie="").loopback_only and net.tls is None:
        logger.warning(
            "traffic with other machines is in the clear: --ssl-dist-optfile or --tls-cert gives TLS"
        )

    named_by = None
    if LocalNode(name=full_name, cookie="").unnamed:
        if not connect:
            raise click.UsageError("--sname undefined: the node that gives it a name is that of --connect")
        named_by, *connect = connect

    async def go() -> int:
        async with Node(
            full_name,
            cookie=cookie or None,
            hidden=hidden,
            settings=settings,
            announced=False,
            named_by=named_by,
        ) as local:
            if named_by is not None:
                set_up_logging(log_level, log_format, log_config, node=local.name)
                logger.info("%s has named this node %s", named_by, local.name)
            if http is not None:
                await _serve_http(local, *http)
            if function is not None:
                local.readiness.waits_for(APP, "it has not started yet")
            else:
                local.ready()
            announcing = asyncio.create_task(_announce(local, connect, ways, discover_interval))
            status = await _serve(local, function)
            announcing.cancel()
            await asyncio.gather(announcing, return_exceptions=True)
        return status or (EXIT_KILLED if trees(local).forced else 0)

    sys.exit(run(go(), make_loop))


def _maker(loop: loops.Kind) -> Callable[[], asyncio.AbstractEventLoop] | None:
    """What makes the event loop; None for what the program has anyway."""
    try:
        return None if loop == "asyncio" else loops.maker(loop)
    except ImportError as error:
        raise click.ClickException(
            f"--loop {loop} needs {error.name}: pip install 'pyglyn[speed]'"
        ) from error


def _closer(sname: str | None, name: str | None) -> tuple[str | None, str | None]:
    """Of two names of different kinds, the one from the command line, else the environment, else a file."""
    context = click.get_current_context()
    assert context is not None
    first, second = (_SOURCES.index(context.get_parameter_source(each)) for each in ("sname", "name"))
    if first == second:
        return sname, name
    return (sname, None) if first < second else (None, name)


_SOURCES = (
    ParameterSource.COMMANDLINE,
    ParameterSource.ENVIRONMENT,
    ParameterSource.DEFAULT_MAP,
    ParameterSource.DEFAULT,
)
"""The closest first."""


def _host_and_port(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _print_config(as_json: bool, **changed: Any) -> None:
    context = click.get_current_context()
    assert context is not None
    held = {**context.params, **network_values(), **changed}
    if as_json:
        told = configuration.settings(context, held)
        values.show_json({key: {"value": value, "from": origin} for key, value, origin in told})
        return
    for line in configuration.lines(context, held):
        click.echo(line)


def _node_name(sname: str | None, name: str | None) -> str:
    if sname is not None and name is not None:
        raise click.UsageError("give the node one name: --sname, or --name with a full host")
    if sname is None and name is None:
        raise click.UsageError(
            "give the node a name: --sname inventory@localhost, or --name with a full host"
        )
    given = sname or name or ""
    alive, separator, host = given.partition("@")
    if not separator:
        import socket

        host = socket.gethostname().split(".")[0] if sname else socket.getfqdn()
    if sname and "." in host:
        raise click.UsageError(f"--sname takes a host without dots; use --name {alive}@{host}")
    if name and "." not in host:
        raise click.UsageError(f"--name takes a full host name; use --sname {alive}@{host}")
    if not alive:
        raise click.UsageError(f"{given!r} is no node name: write name@host")
    return f"{alive}@{host}"


def _check_peers(connect: Sequence[str], own: str) -> None:
    """Refuse names of nodes that no node can be reached by, however often it is tried."""
    for peer in connect:
        if not is_node_name(peer):
            raise click.UsageError(f"--connect {peer}: write name@host, as in order@localhost")
        if has_long_host(peer) != has_long_host(own):
            ours, option = ("a long", "--sname") if has_long_host(own) else ("a short", "--name")
            raise click.UsageError(
                f"--connect {peer}: {own} is {ours} name, and both have to be of a kind; see {option}"
            )


def _way(text: str, alive: str, *, ipv6: bool) -> Callable[[Node], Discovery]:
    """What makes the discovery that ``--discover`` means."""
    kind, _, reference = text.partition(":")
    if kind == "python":
        return load_function(reference, "--discover")
    try:
        found = discovery.from_text(text, alive, ipv6=ipv6)
    except DiscoveryError as error:
        raise click.UsageError(f"--discover: {error}") from error
    return lambda _: found


async def _announce(
    local: Node, connect: Sequence[str], ways: Sequence[Callable[[Node], Discovery]], interval_s: float
) -> None:
    """Tell EPMD, and the nodes to connect to, that this one is there, once its app can take what they send.

    Until then there is no thread either that looks up host names: the app's tree can be forked.
    """
    try:
        async with patience.timeout(LONG_START_S):
            await local.until_ready()
    except TimeoutError:
        logger.warning(
            "%s is not announced yet: the app has not returned, waits for no message "
            "and has not called node.ready()",
            local.name,
        )
        await local.until_ready()
    try:
        await local.announce()
    except DistributionError as error:
        local.fail(error)
        return
    for peer in connect:
        local.keep_connected(peer)
    for way in ways:
        local.discover(way(local), interval_s)


def _kind(value: object) -> str:
    return f"the class {value.__name__}" if isinstance(value, type) else f"a {type(value).__name__}"


async def _serve(local: Node, function: Callable[[Node], Any] | None) -> int:
    """Run the app beside the node; one that fails, or whose tree ends, ends the node with exit status 1."""
    if os.getpid() == 1:
        await trees(local).prepare()  # process 1 adopts every orphan, and has to collect it
    if function is None:
        await local.run()
        return 0
    failed = False

    def tree_ended(reason: Term) -> None:
        nonlocal failed
        failed = True
        logger.error("the supervision tree ended, and the node with it: %s", reason_text(reason))
        local.request_stop()

    async def run_app() -> None:
        nonlocal failed
        try:
            result = function(local)
            if inspect.isawaitable(result):
                result = await result
            if inspect.isclass(result) and issubclass(result, Supervisor):
                result = result()
            if isinstance(result, (Supervisor, ChildSpec)):
                await start(local, result, on_end=tree_ended)
            elif result is not None:
                raise ChildStartError(
                    f"the function given to --app returned {_kind(result)}; it returns a Supervisor, "
                    "a child specification (what worker, program, … return) or nothing",
                    child_id="app",
                    reason=Atom("bad_return_value"),
                )
            local.ready()
        except ChildStartError as error:
            failed = True
            logger.error("the app failed: %s", error)
            local.request_stop()
        except Exception:
            failed = True
            logger.exception("the app failed")
            local.request_stop()

    task = asyncio.create_task(run_app())
    await local.run()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return int(failed)

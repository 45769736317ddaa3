"""Options that several commands share, and how a command becomes a node for a moment. Layer: cli."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, TypeVar

import rich_click as click

from pyglyn import logs
from pyglyn.cli.network import net_settings, network_options
from pyglyn.errors import CallTimeout
from pyglyn.net.settings import LOOPBACK_HOSTS
from pyglyn.node import Node, Settings
from pyglyn.node.hiding import hide_arguments

SHORTEST_INTERVAL_S = 0.05

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")


def in_utf8(
    context: click.Context, parameter: click.Parameter, value: str | tuple[str, ...] | None
) -> str | tuple[str, ...] | None:
    """Callback of an option or argument: bytes that are not UTF-8 cannot be sent."""
    for each in value if isinstance(value, tuple) else (value or "",):
        try:
            each.encode()
        except UnicodeEncodeError:
            raise click.BadParameter(f"{each!r} is not in UTF-8", context, parameter) from None
    return value


def _hidden(context: click.Context, parameter: click.Parameter, value: str) -> str:
    """Callback of ``--cookie``: take it out of what ``ps`` shows."""
    hide_arguments([value])
    return value


def cookie_option(function: F) -> F:
    """``--cookie``: with no value, or left out, the environment and the file decide."""
    return click.option(
        "--cookie",
        is_flag=False,
        flag_value="",
        default="",
        metavar="[COOKIE]",
        callback=_hidden,
        is_eager=True,
        help="The cluster's cookie. Without it (or without a value): PYGLYN_COOKIE, then ~/.erlang.cookie or "
        "$XDG_CONFIG_HOME/erlang/.erlang.cookie, as OTP has it; created if absent. For a moment ps shows it.",
    )(function)


def log_level_option(default: str) -> Callable[[F], F]:
    """``--log-level``."""
    return click.option(
        "--log-level",
        type=click.Choice(logs.LEVELS),
        metavar="LEVEL",
        default=default,
        show_default=True,
        help=f"How much to log, on standard error: {', '.join(logs.LEVELS[:-1])} or {logs.LEVELS[-1]}.",
    )


def _interval(context: click.Context, parameter: click.Parameter, value: float) -> float:
    """Callback of ``--interval``: no loop without a pause, and no number that is none."""
    if not value >= SHORTEST_INTERVAL_S:
        raise click.BadParameter(f"{value:g} is less than {SHORTEST_INTERVAL_S:g}", context, parameter)
    return value


def interval_option(default: float) -> Callable[[F], F]:
    """``--interval``, of what looks again and again."""
    return click.option(
        "--interval",
        type=float,
        callback=_interval,
        default=default,
        show_default=True,
        help="Seconds between two looks.",
    )


def json_option(function: F) -> F:
    """``--json``, for every command that shows something; what it prints then is documented, and stays."""
    return click.option(
        "--json", "as_json", is_flag=True, help="Print JSON, as docs/operations.md has it, instead."
    )(function)


def client_options(function: F) -> F:
    """The options of a command that connects to a node, asks something and leaves."""
    function = click.option(
        "--timeout", type=float, default=10.0, show_default=True, help="Seconds to wait, connecting included."
    )(function)
    return log_level_option("error")(cookie_option(network_options(function)))


def set_up_logging(level: str, format: str = "text", config: str | None = None, node: str = "") -> None:
    """Log to standard error, or as a file of the user's says; see `pyglyn.logs`.

    Raises:
        click.UsageError: that file is no logging configuration.
    """
    try:
        table = None if config is None else logs.load_config(config)
        logs.set_up(logs.LogSettings(level=level, format=format, config=table), node=node)
    except ValueError as error:
        raise click.UsageError(f"--log-config: {error}") from error


def own_name(peer: str) -> str:
    """A node name for this command, short or long like the peer's and on the peer's host if that is local."""
    _, _, host = peer.partition("@")
    if not host:
        raise click.UsageError(f"{peer!r} is no node name: write name@host, as in inventory@localhost")
    if host not in LOOPBACK_HOSTS:
        import socket

        full = socket.getfqdn() if "." in host else socket.gethostname().split(".")[0]
        host = full if ("." in full) == ("." in host) else host
    return f"pyglyn_{os.getpid()}@{host}"


@contextlib.asynccontextmanager
async def client_node(peer: str, cookie: str, *, watching: bool = False) -> AsyncIterator[Node]:
    """A hidden node of this command, connected to ``peer``.

    All that the command does with it has to be done within its ``--timeout``; only connecting where it then
    watches until it is told to stop.

    Raises:
        CallTimeout: it was not.
    """
    context = click.get_current_context()
    assert context is not None
    timeout: float = context.params["timeout"]
    limit = asyncio.timeout(timeout)
    connected = False
    try:
        settings = Settings(net=net_settings())
        async with limit, Node(own_name(peer), cookie=cookie or None, settings=settings) as node:
            await node.connect(peer)
            connected = True
            if watching:
                limit.reschedule(None)
            yield node
    except TimeoutError as error:
        if not limit.expired():
            raise
        done = "no answer of" if connected else "no connection to"
        raise CallTimeout(f"{done} {peer} within {timeout:g} s") from error


def run(
    coroutine: Coroutine[Any, Any, T], make_loop: Callable[[], asyncio.AbstractEventLoop] | None = None
) -> T:
    """Run a command's coroutine."""
    with asyncio.Runner(loop_factory=make_loop) as runner:
        return runner.run(coroutine)

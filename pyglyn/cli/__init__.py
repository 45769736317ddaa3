"""The command line: arguments to calls, no logic. Layer: cli; nobody imports it.

Each command is a function in a module of its own, imported when it is called: `pyglyn --help` and a shell's
completion start no event loop and open no database driver.
"""

from __future__ import annotations

import importlib
import io
import os
import sys
from typing import NoReturn

import rich_click as click

from pyglyn import _standard
from pyglyn._version import __version__
from pyglyn.cli import configuration, known
from pyglyn.errors import PyglynError

click.rich_click.TEXT_MARKUP = "markdown"
click.rich_click.SHOW_ARGUMENTS = True


COMMANDS = {
    "node": (
        "node:node",
        "Run a node of the cluster until SIGINT or SIGTERM; a second signal ends it at once.",
    ),
    "demo": (
        "demo:demo",
        "Watch a BEAM node use a Python node: ping, gen_server call, rpc, an event, a monitor.",
    ),
    "epmd": (
        "epmd:epmd",
        "Run an EPMD (the port mapper of Erlang nodes) until SIGINT or SIGTERM.",
    ),
    "names": (
        "epmd:names",
        "List the nodes registered at the EPMD of HOST (this machine).",
    ),
    "certs": (
        "certs:certs",
        "Make a CA in DIR, and a certificate for each NODE (NAME@HOST) with an option file for both worlds.",
    ),
    "interop": (
        "interop:interop",
        "Write the Erlang and Gleam files that the documentation speaks of into DIR.",
    ),
    "ping": (
        "call:ping",
        "Ask NODE whether it is there: prints pong, or pang (and the reason) and exits with 1.",
    ),
    "doctor": (
        "doctor:doctor",
        "Find out why NODE is not reached: name, host, EPMD, port, TLS and handshake, cookie, groups, in turn.",  # noqa: E501
    ),
    "call": (
        "call:call",
        "Call MODULE:FUNCTION on NODE with arguments in Erlang syntax and print the result in it.",
    ),
    "groups": (
        "groups:groups",
        "Show the process groups and registered names of the cluster as NODE sees them.",
    ),
    "tap": (
        "groups:tap",
        "Print what is published to a group, as it happens, until Ctrl-C.",
    ),
    "publish": (
        "groups:publish",
        "Have NODE publish TERM (in Erlang syntax) to a group; prints how many members it was sent to.",
    ),
    "tree": (
        "tree:tree",
        "Show the supervision tree and all other processes of NODE.",
    ),
    "top": (
        "top:top",
        "Show who on NODE uses CPU and memory, and whose mailbox is full; again and again on a terminal.",
    ),
    "observe": (
        "observe:observe",
        "Serve a page that shows NODEs, live, until Ctrl-C; prints its address, with the token in it.",
    ),
    "stop": (
        "tree:stop",
        "Stop NODE as SIGTERM does: its trees first, each child in its turn.",
    ),
    "kill": (
        "tree:kill",
        "Kill the process of NODE that is registered as NAME, or has that pid (`<1.2>`, as in `pyglyn tree`).",  # noqa: E501
    ),
    "log-level": (
        "call:log_level_command",
        "Show from which level on NODE logs, or change it while it runs, in all its processes.",
    ),
    "events": (
        "eventsourcing:events",
        "Print the events of a store, one a line: position, time, event id, payload, metadata.",
    ),
    "store": (
        "store:store",
        "Care for the database of a store: migrate, copy, verify, archive, stats.",
    ),
    "trace": (
        "eventsourcing:trace_command",
        "Print what one request caused, as a tree, from the events of one or more stores.",
    ),
    "queries": (
        "eventsourcing:queries",
        "List the queries of NODE: position, lag, state, processed and parked events, last error.",
    ),
    "sql": (
        "sql:sql",
        "Run one STATEMENT that reads on the database of a durable query of NODE, and print what it finds.",
    ),
    "replay": (
        "eventsourcing:replay",
        "Have a durable query of NODE undo its effects and process all events again.",
    ),
    "parked": (
        "eventsourcing:parked",
        "List the parked events of NODE's queries with their errors, or drive them again.",
    ),
}
"""Where each command is, and the first sentence of its help; in the order in which they are shown."""


class LazyGroup(click.RichGroup):
    """A group whose commands are imported when they are called; help is made of `COMMANDS`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a stand-in that knows its name and its short help."""
        if cmd_name not in COMMANDS:
            return None
        return click.RichCommand(name=cmd_name, short_help=COMMANDS[cmd_name][1])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that is called, and import it."""
        name, command, rest = super().resolve_command(ctx, args)
        if command is not None:
            command = load_command(command.name or "")
            configuration.apply(ctx, command)
            if command.name != "node":  # which logs them
                for sentence in known.unread(os.environ):
                    click.echo(f"pyglyn: {sentence}", err=True)
        return name, command, rest


def load_command(name: str) -> click.Command:
    """Import a command of the table."""
    module, attribute = COMMANDS[name][0].split(":")
    command: click.Command = getattr(importlib.import_module(f"pyglyn.cli.{module}"), attribute)
    return configuration.with_variables(command)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="pyglyn")
@click.option(
    "--config",
    metavar="FILE",
    envvar="PYGLYN_CONFIG",
    expose_value=False,
    callback=configuration.read,
    help="Options of the commands, as docs/settings.md has them. [default: pyglyn.toml, then pyproject.toml]",
)
def cli() -> None:
    """Python services inside Erlang, Gleam and Elixir clusters.

    Start a node with `pyglyn node --sname inventory@localhost --app my_service:app`, look around with
    `pyglyn names`, `pyglyn ping` and `pyglyn call`. Every option can also be given as
    `PYGLYN_<OPTION>`, and in a file.
    """


def main() -> None:
    """Run the command line and exit.

    Every error is ``pyglyn: `` and what is wrong on standard error, in one line; the status is 1, and 2 for a
    command that is not written as its help says. Ctrl-C is 130.
    """
    _standard.fill()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as standard error
    try:
        sys.exit(cli(prog_name="pyglyn", standalone_mode=False))
    except click.UsageError as error:
        where = error.ctx.command_path if error.ctx is not None else "pyglyn"
        _fail(f"{configuration.told(error)} (see {where} --help)", error.exit_code)
    except click.ClickException as error:
        _fail(error.format_message(), error.exit_code)
    except PyglynError as error:
        _fail(error.with_notes, 1)
    except (KeyboardInterrupt, click.Abort):
        sys.exit(130)


def _fail(text: str, status: int) -> NoReturn:
    click.echo(f"pyglyn: {' '.join(text.split())}", err=True)
    sys.exit(status)

"""The command line: arguments to calls, no logic. Layer: cli; nobody imports it.

Each command is a function in a module of its own, attached here.
"""

from __future__ import annotations

import io
import sys
from typing import NoReturn

import rich_click as click

from pyglyn._version import __version__
from pyglyn.cli.call import call, ping
from pyglyn.cli.demo import demo
from pyglyn.cli.epmd import epmd, names
from pyglyn.cli.eventsourcing import events, parked, queries, replay, trace_command
from pyglyn.cli.groups import groups, publish, tap
from pyglyn.cli.node import node
from pyglyn.cli.tree import kill, stop, tree
from pyglyn.errors import PyglynError

click.rich_click.TEXT_MARKUP = "markdown"
click.rich_click.SHOW_ARGUMENTS = True


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="pyglyn")
def cli() -> None:
    """Python services inside Erlang, Gleam and Elixir clusters.

    Start a node with `pyglyn node --sname inventory@localhost --app my_service:app`, look around with
    `pyglyn names`, `pyglyn ping` and `pyglyn call`.
    """


for command in (node, demo, epmd, names, ping, call, groups, tap, publish, tree, stop, kill):
    cli.add_command(command)

for command in (events, trace_command, queries, replay, parked):
    cli.add_command(command)


def main() -> None:
    """Run the command line and exit.

    Every error is ``pyglyn: `` and what is wrong on standard error, in one line; the status is 1, and 2 for a
    command that is not written as its help says. Ctrl-C is 130.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as standard error
    try:
        sys.exit(cli(prog_name="pyglyn", standalone_mode=False))
    except click.UsageError as error:
        where = error.ctx.command_path if error.ctx is not None else "pyglyn"
        _fail(f"{error.format_message()} (see {where} --help)", error.exit_code)
    except click.ClickException as error:
        _fail(error.format_message(), error.exit_code)
    except PyglynError as error:
        _fail(str(error), 1)
    except (KeyboardInterrupt, click.Abort):
        sys.exit(130)


def _fail(text: str, status: int) -> NoReturn:
    click.echo(f"pyglyn: {' '.join(text.split())}", err=True)
    sys.exit(status)

"""The table of commands: it says what the commands say of themselves, and spares importing them."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from pyglyn.cli import COMMANDS, load_command


@pytest.mark.parametrize("name", COMMANDS)
def test_the_table_says_what_the_command_says_of_itself(name: str) -> None:
    command = load_command(name)
    assert command.name == name
    assert command.get_short_help_str(200) == COMMANDS[name][1]


def imported_by(*words: str) -> set[str]:
    """Run the command line; returns the modules it has imported."""
    program = (
        "import sys\nfrom pyglyn.cli import cli\n"
        f"try: cli({list(words)!r}, prog_name='pyglyn')\n"
        "finally: print('MODULES', *sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(done.stdout.rpartition("MODULES ")[2].split())


def test_help_imports_no_event_loop_no_database_and_no_codec() -> None:
    assert not imported_by("--help") & {"asyncio", "sqlite3", "ssl", "cattrs", "pyglyn.etf", "pyglyn.node"}


def test_a_command_imports_what_it_needs_and_not_what_others_need() -> None:
    modules = imported_by("ping", "--help")
    assert not {name for name in modules if name.startswith(("pyglyn.eventsourcing", "pyglyn.supervision"))}


def test_every_command_is_in_the_table() -> None:
    folder = Path(sys.modules["pyglyn.cli"].__file__ or "").parent
    commands = re.compile(r"^@click\.(?:command|group)\b.*?^def (\w+)", re.MULTILINE | re.DOTALL)
    written = {
        f"{path.stem}:{name}"
        for path in folder.glob("[!_]*.py")
        for name in commands.findall(path.read_text())
    }
    assert written == {where for where, _ in COMMANDS.values()}


def options_of(command: click.Command, name: str) -> Iterator[tuple[str, str]]:
    """How each option of a command, and of those in it, shows what it takes."""
    context = click.Context(command, info_name=name)
    for option in command.params:
        if isinstance(option, click.Option) and not option.is_flag:
            yield f"{name} {option.opts[-1]}", option.make_metavar(context)
    if isinstance(command, click.Group):
        for below in command.list_commands(context):
            found = command.get_command(context, below)
            assert found is not None
            yield from options_of(found, f"{name} {below}")


@pytest.mark.parametrize("name", COMMANDS)
def test_what_an_option_takes_is_not_cut_in_a_window_of_80_columns(name: str) -> None:
    long = [(who, shown) for who, shown in options_of(load_command(name), name) for each in shown.split()
            if len(each) > 24]  # fmt: skip
    assert not long

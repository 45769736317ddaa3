"""The table of commands: it says what the commands say of themselves, and spares importing them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

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

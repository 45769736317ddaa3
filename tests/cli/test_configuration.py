"""Options from the command line, the environment and files: which of them holds."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import rich_click as click

from pyglyn.cli import COMMANDS, load_command
from pyglyn.cli.configuration import FOR_ALL, key_of, options_of
from pyglyn.cli.known import OPTIONS

FILE = """
net-ticktime = 11
cookie = "from-the-file"

[node]
sname = "filed@localhost"
connect = ["a@localhost", "b@localhost"]
log-level = "warning"
hidden = false
"""


def pyglyn(*words: str, where: Path, **env: str) -> tuple[int, str]:
    clean = {key: value for key, value in os.environ.items() if not key.startswith("PYGLYN_")}
    done = subprocess.run(
        [sys.executable, "-m", "pyglyn", *words],
        cwd=where, env={**clean, **env}, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "pyglyn.toml").write_text(FILE)
    return tmp_path


def test_what_holds_is_printed_with_where_it_came_from_and_without_secrets(folder: Path) -> None:
    words = ("node", "--log-format", "json", "--print-config")
    env = {"PYGLYN_NODE_LOG_LEVEL": "debug", "PYGLYN_DIST_PORT": "4711", "PYGLYN_NODE_PORT": "4712"}
    status, output = pyglyn(*words, where=folder, **env)
    assert status == 0, output
    for line in (
        'sname = "filed@localhost"  # pyglyn.toml',
        'cookie = "***"  # pyglyn.toml',
        'connect = ["a@localhost", "b@localhost"]  # pyglyn.toml',
        "hidden = false  # pyglyn.toml",
        "net-ticktime = 11.0  # pyglyn.toml",
        'log-level = "debug"  # environment, PYGLYN_NODE_LOG_LEVEL',
        "dist-port = 4711  # environment, PYGLYN_DIST_PORT",
        "port = 4712  # environment, PYGLYN_NODE_PORT",
        'log-format = "json"  # command line',
        "# http is not set",
    ):
        assert line in output.splitlines(), (line, output)
    assert "from-the-file" not in output


def test_what_is_printed_is_a_file_that_says_the_same(folder: Path) -> None:
    first = pyglyn("node", "--http", "[::1]:9568", "--print-config", where=folder)[1]
    assert 'http = "[::1]:9568"  # command line' in first
    (folder / "again.toml").write_text("[node]\n" + first)
    second = pyglyn("--config", "again.toml", "node", "--print-config", where=folder)[1]
    assert [line.partition("  #")[0] for line in first.splitlines()] == [
        line.partition("  #")[0] for line in second.splitlines()
    ]


@pytest.mark.parametrize(
    ("words", "env", "holds"),
    [
        (("--net-ticktime", "14"), {"PYGLYN_NET_TICKTIME": "12", "PYGLYN_NODE_NET_TICKTIME": "13"}, "14.0"),
        ((), {"PYGLYN_NET_TICKTIME": "12", "PYGLYN_NODE_NET_TICKTIME": "13"}, "13.0"),
        ((), {"PYGLYN_NET_TICKTIME": "12"}, "12.0"),
        ((), {}, "11.0"),
    ],
)
def test_the_command_line_comes_before_the_environment_and_that_before_the_file(
    folder, words, env, holds
) -> None:
    assert f"net-ticktime = {holds}  #" in pyglyn("node", *words, "--print-config", where=folder, **env)[1]


def test_a_name_given_closer_by_wins_over_one_of_the_other_kind(folder: Path) -> None:
    status, output = pyglyn("node", "--name", "long@127.0.0.1", "--print-config", where=folder)
    assert status == 0
    assert 'name = "long@127.0.0.1"  # command line' in output
    assert "# sname is not set" in output


def test_a_project_file_serves_as_well_and_a_file_that_is_named_before_both(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[tool.other]\nx = 1\n[tool.pyglyn]\nnet-ticktime = 21\n")
    assert "net-ticktime = 21.0  # pyproject.toml" in pyglyn("node", "--print-config", where=tmp_path)[1]
    (tmp_path / "named.toml").write_text("net-ticktime = 22\n")
    named = pyglyn("node", "--print-config", where=tmp_path, PYGLYN_CONFIG="named.toml")[1]
    assert "net-ticktime = 22.0  # named.toml" in named


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("colour = 1", "pyglyn.toml: colour is no setting for all commands: give it in a table"),
        ("[ping]\ncolour = 1", "pyglyn.toml: pyglyn ping has no option --colour"),
        (
            "timeout = 'soon'",
            "pyglyn.toml: timeout: Invalid value for '--timeout': 'soon' is not a valid float.",
        ),
        ("[ping]\ntimeout = 'soon'", "pyglyn.toml: [ping] timeout: Invalid value for '--timeout'"),
        ("[store]\ncolour = 1", None),
        ("timeout =", "pyglyn.toml: "),
    ],
)
def test_a_file_that_makes_no_sense_is_said_in_one_line(
    tmp_path: Path, text: str, sentence: str | None
) -> None:
    (tmp_path / "pyglyn.toml").write_text(text)
    status, output = pyglyn("ping", "nobody@localhost", where=tmp_path, ERL_EPMD_PORT="1")
    if sentence is None:  # another command's
        assert status == 1
        return
    assert (status, output.count("\n")) == (2, 1)
    assert output.startswith(f"pyglyn: {sentence}")


def test_a_table_of_another_command_is_not_looked_at(tmp_path: Path) -> None:
    (tmp_path / "pyglyn.toml").write_text("[epmd]\ncolour = 1\n[node]\nsname = 'x@localhost'\n")
    assert pyglyn("node", "--print-config", where=tmp_path)[0] == 0


@pytest.mark.parametrize(
    ("words", "env", "said"),
    [
        (("ping", "n@h"), {"PYGLYN_TIMEOUT": "soon"}, "PYGLYN_TIMEOUT: Invalid value for '--timeout': 'soon'"),
        (("ping", "n@h"), {"PYGLYN_PING_TIMEOUT": "soon", "PYGLYN_TIMEOUT": "1"}, "PYGLYN_PING_TIMEOUT: Inv"),
        (("node",), {"PYGLYN_SNAME": "a@b", "PYGLYN_CONNECT": "bla"}, "PYGLYN_CONNECT: --connect bla: write"),
        (("node",), {"PYGLYN_NODE_SNAME": "a@b.c"}, "PYGLYN_NODE_SNAME: --sname takes a host without dots"),
        (("node", "--sname", "a@b"), {"PYGLYN_HTTP": "nix"}, "PYGLYN_HTTP: --http: 'nix' is no HOST:PORT"),
        (("ping", "n@h"), {"PYGLYN_SSL_DIST_OPTFILE": "/nix"}, "PYGLYN_SSL_DIST_OPTFILE: --ssl-dist-optfile: the TLS"),
        (("store", "archive", "a", "b"), {"PYGLYN_STORE_ARCHIVE_UNTIL": "x"}, "PYGLYN_STORE_ARCHIVE_UNTIL: Inv"),
        (("names",), {"PYGLYN_JSON": "maybe"}, "PYGLYN_JSON: Invalid value for '--json'"),
    ],
)  # fmt: skip
def test_a_variable_with_a_wrong_value_is_named(tmp_path: Path, words, env, said) -> None:
    status, output = pyglyn(*words, where=tmp_path, **env)
    assert (status, output.count("\n")) == (2, 1)
    assert output.startswith(f"pyglyn: {said}")


def test_a_wrong_value_of_the_command_line_is_not_said_to_be_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "pyglyn.toml").write_text("timeout = 2.0\n")
    output = pyglyn("ping", "n@h", "--timeout", "soon", where=tmp_path)[1]
    assert output.startswith("pyglyn: Invalid value for '--timeout'")


def test_a_table_of_a_command_in_a_command(tmp_path: Path) -> None:
    file = tmp_path / "pyglyn.toml"
    file.write_text("log-level = 'error'\n[store.archive]\nuntil = 'x'\n")
    output = pyglyn("store", "archive", "a", "b", where=tmp_path)[1]
    assert output.startswith("pyglyn: pyglyn.toml: [store.archive] until: Invalid value for '--until'")
    file.write_text("[store.archive]\ncolour = 1\n")
    output = pyglyn("store", "archive", "a", "b", where=tmp_path)[1]
    assert output.startswith("pyglyn: pyglyn.toml: pyglyn store archive has no option --colour")
    file.write_text("[store]\ncolour = 1\n")
    output = pyglyn("store", "archive", "a", "b", where=tmp_path)[1]
    assert output.startswith("pyglyn: pyglyn.toml: pyglyn store has no command colour")


def test_variables_that_no_command_reads_are_told_with_the_nearest_that_one_reads(tmp_path: Path) -> None:
    wrong = {"PYGLYN_NODE_PROT": "4711", "PYGLYN_QWERTY": "1", "PYGLYN_PORT_4370_TCP_ADDR": "10.0.0.1"}
    right = {"PYGLYN_NODE_SNAME": "x@localhost", "PYGLYN_PURE": "1", "PYGLYN_TEST_PATIENCE": "2"}
    status, output = pyglyn("names", "--json", where=tmp_path, ERL_EPMD_PORT="1", **wrong, **right)
    said = [line for line in output.splitlines() if "in the environment" in line]
    assert status == 1
    assert said == [
        "pyglyn: PYGLYN_NODE_PROT is in the environment, and no command has such an option: "
        "did you mean PYGLYN_NODE_PORT?",
        "pyglyn: PYGLYN_QWERTY is in the environment, and no command has such an option",
    ]
    assert pyglyn("node", "--print-config", where=tmp_path, **wrong)[1].count("in the environment") == 2


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("--http", ("node", "--sname", "x@localhost", "--http", "127.0.0.1:0")),
        ("--http", ("observe", "x@y", "--http", "127.0.0.1:0")),
        ("the page", ("observe", "x@y")),
    ],
)
def test_a_missing_extra_is_said_in_one_line(tmp_path: Path, what: str, words: tuple[str, ...]) -> None:
    without = "import sys; sys.modules['aiohttp'] = None; from pyglyn.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", without, *words], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )  # fmt: skip
    assert (done.returncode, done.stdout + done.stderr) == (
        1,
        f"pyglyn: {what} needs aiohttp: pip install 'pyglyn[http]'\n",
    )


def test_an_event_loop_that_is_not_installed_is_said_in_one_line(tmp_path: Path) -> None:
    without = "import sys; sys.modules['uvloop'] = None; from pyglyn.cli import main; main()"
    words = ("node", "--sname", "x@localhost", "--loop", "uvloop")
    done = subprocess.run(
        [sys.executable, "-c", without, *words], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )  # fmt: skip
    said = (done.returncode, done.stdout + done.stderr)
    assert said == (1, "pyglyn: --loop uvloop needs uvloop: pip install 'pyglyn[speed]'\n")


def all_options() -> dict[str, list[str]]:
    found = {}
    for name in COMMANDS:
        command = load_command(name)
        inner = command.commands if isinstance(command, click.Group) else {"": command}
        for word, each in inner.items():
            found[f"{name} {word}".strip()] = sorted(map(key_of, options_of(each)))
    return found


def test_the_table_of_options_is_what_the_commands_have() -> None:
    assert all_options() == {name: sorted(options.split()) for name, options in OPTIONS.items()}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_of_every_command_has_its_variables(name: str) -> None:
    command = load_command(name)
    inner = command.commands if isinstance(command, click.Group) else {"": command}
    for word, each in inner.items():
        for option in options_of(each):
            assert option.envvar == [
                f"PYGLYN_{name} {word}".strip().upper().replace("-", "_").replace(" ", "_")
                + f"_{key_of(option)}".upper().replace("-", "_"),
                f"PYGLYN_{key_of(option)}".upper().replace("-", "_"),
            ]


def test_what_is_for_all_is_what_many_commands_have() -> None:
    having = [{key_of(option) for option in options_of(load_command(name))} for name in COMMANDS]
    for option in FOR_ALL:
        assert sum(option in names for names in having) >= 10, option

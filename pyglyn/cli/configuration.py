"""Options from the environment and from a file, for every command. Layer: cli.

The command line comes first, then ``PYGLYN_<COMMAND>_<OPTION>``, ``PYGLYN_<OPTION>``, the command's table in
the file, what stands above the tables there, and the default. The file is what ``pyglyn --config FILE``
(or ``PYGLYN_CONFIG``) says, else ``pyglyn.toml`` here, else ``[tool.pyglyn]`` of ``pyproject.toml`` here.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import rich_click as click
from click.core import ParameterSource

from pyglyn.cli.known import variables

FOR_ALL = frozenset(
    (
        "cookie", "dist-port", "log-level", "net-ticktime", "proto-dist", "ssl-dist-optfile", "timeout",
        "tls-ca", "tls-cert", "tls-key",
    )
)  # fmt: skip
"""What may stand above the tables of a file: options that many commands have; others do without."""

SECRET = frozenset(("cookie",))
"""What is never shown."""

_PATH = "pyglyn.configuration"
_SHARED = f"{_PATH}.shared"
_TABLES = f"{_PATH}.tables"


def key_of(option: click.Option) -> str:
    """What an option is called in a file: its long form, of two that exclude each other the first."""
    return next((name for name in option.opts if name.startswith("--")), option.opts[0]).lstrip("-")


def options_of(command: click.Command) -> Iterator[click.Option]:
    """The options of a command, which all are settings."""
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            yield parameter


def with_variables(command: click.Command, group: str = "") -> click.Command:
    """Have every option of a command, and of the commands in it, read its variables."""
    path = f"{group} {command.name}".strip()
    for option in options_of(command):
        option.envvar = variables(path, key_of(option))
    if isinstance(command, click.Group):
        for inner in command.commands.values():
            with_variables(inner, path)
    return command


def read(context: click.Context, parameter: click.Parameter, value: str | None) -> None:
    """Callback of ``--config``: keep the file's values, for `apply`.

    Raises:
        click.UsageError: there is no such file, or it is none.
    """
    path, table = _find() if value is None else (Path(value), None)
    if path is None:
        return
    table = _table(path, context) if table is None else table
    context.meta[_PATH] = str(path)
    shared: dict[str, Any] = {}
    tables: dict[str, dict[str, Any]] = {}
    for key, item in table.items():
        name = key.replace("_", "-")
        if isinstance(item, dict):
            tables[name] = item
        elif name in FOR_ALL:
            shared[name] = item
        else:
            raise click.UsageError(
                f"{path}: {key} is no setting for all commands: give it in a table", context
            )
    context.meta[_SHARED], context.meta[_TABLES] = shared, tables


def apply(context: click.Context, command: click.Command) -> None:
    """Make the file's values the defaults of a command, and of the commands in it.

    Raises:
        click.UsageError: names the first one that the command has not got.
    """
    if _PATH in context.meta:
        table = context.meta[_TABLES].get(command.name or "", {})
        context.default_map = {
            command.name or "": _defaults(context, command, table, f"pyglyn {command.name}")
        }


def _defaults(
    context: click.Context, command: click.Command, table: Mapping[str, Any], path: str
) -> dict[str, Any]:
    own = {key.replace("_", "-"): item for key, item in table.items()}
    if isinstance(command, click.Group):
        unknown = [name for name in own if name not in command.commands or not isinstance(own[name], dict)]
        if unknown:
            raise click.UsageError(
                f"{context.meta[_PATH]}: {path} has no command {unknown[0]} to give a table", context
            )
        return {
            name: _defaults(context, inner, own.get(name, {}), f"{path} {name}")
            for name, inner in command.commands.items()
        }
    known = {key_of(option): option.name or "" for option in options_of(command)}
    for name in own:
        if name not in known and name not in FOR_ALL:
            raise click.UsageError(f"{context.meta[_PATH]}: {path} has no option --{name}", context)
    found = {**context.meta[_SHARED], **own}
    return {known[name]: value for name, value in found.items() if name in known}


def told(error: click.UsageError) -> str:
    """What is wrong in one sentence, with the variable or the file where the wrong value is, if in one."""
    text = error.format_message()
    context = error.ctx
    if context is None:
        return text
    at_fault = [option for option in options_of(context.command) if option is getattr(error, "param", None)]
    for word in re.findall(r"--[a-z][a-z-]*", text):
        at_fault += [option for option in options_of(context.command) if word in option.opts]
    if not at_fault:
        return text
    option = at_fault[0]
    match context.get_parameter_source(option.name or ""):
        case ParameterSource.ENVIRONMENT:
            return f"{_variable(option)}: {text}"
        case ParameterSource.DEFAULT_MAP:
            words = context.command_path.split()[1:]
            table: Any = context.meta[_TABLES]
            for word in words:
                table = table.get(word, {})
            key = key_of(option)
            own = key in {each.replace("_", "-") for each in table}
            return f"{context.meta[_PATH]}: {f'[{chr(46).join(words)}] ' if own else ''}{key}: {text}"
        case _:
            return text


def _variable(option: click.Option) -> str:
    names = [option.envvar] if isinstance(option.envvar, str) else list(option.envvar or ())
    return next((name for name in names if os.environ.get(name)), "the environment")


def _find() -> tuple[Path | None, Mapping[str, Any] | None]:
    if Path("pyglyn.toml").is_file():
        return Path("pyglyn.toml"), None
    project = Path("pyproject.toml")
    if project.is_file():
        import tomllib

        try:
            table = tomllib.loads(project.read_text(encoding="utf-8")).get("tool", {}).get("pyglyn")
        except (OSError, ValueError):
            return None, None  # somebody else's file: who wants it to count will see that it does not
        if isinstance(table, dict):
            return project, table
    return None, None


def _table(path: Path, context: click.Context) -> Mapping[str, Any]:
    import tomllib

    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise click.UsageError(f"{path}: {error}", context) from error
    if path.name == "pyproject.toml":
        table = table.get("tool", {}).get("pyglyn", {})
    return table


def settings(context: click.Context, values: Mapping[str, Any]) -> Iterator[tuple[str, Any, str]]:
    """Every option of the running command: its key in a file, its value (None if not set), its origin.

    Args:
        values: of all options, by name.
    """
    for option in options_of(context.command):
        name = option.name or ""
        value = values.get(name)
        source = context.get_parameter_source(name)
        if source is ParameterSource.ENVIRONMENT:
            origin = f"environment, {_variable(option)}"
        elif source is ParameterSource.DEFAULT_MAP:
            origin = context.meta[_PATH]
        elif source is ParameterSource.COMMANDLINE:
            origin = "command line"
        else:
            origin = "default"
        if value is None or value == "" or value == ():
            value = None
        elif name in SECRET:
            value = "***"
        yield key_of(option), value, origin


def lines(context: click.Context, values: Mapping[str, Any]) -> Iterable[str]:
    """`settings` as lines of such a file."""
    for key, value, origin in settings(context, values):
        yield f"# {key} is not set" if value is None else f"{key} = {_toml(value)}  # {origin}"


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, (int, float)):
        return f"{value:g}" if isinstance(value, float) and not value.is_integer() else str(value)
    return json.dumps(str(value), ensure_ascii=False)

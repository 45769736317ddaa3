"""Options from the environment and from a file, for every command. Layer: cli.

The command line comes first, then ``PYGLYN_<COMMAND>_<OPTION>``, ``PYGLYN_<OPTION>``, the command's table in
the file, what stands above the tables there, and the default. The file is what ``pyglyn --config FILE``
(or ``PYGLYN_CONFIG``) says, else ``pyglyn.toml`` here, else ``[tool.pyglyn]`` of ``pyproject.toml`` here.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import rich_click as click
from click.core import ParameterSource

FOR_ALL = frozenset(
    (
        "cookie", "dist_port", "log_level", "net_ticktime", "proto_dist", "ssl_dist_optfile", "timeout",
        "tls_ca", "tls_cert", "tls_key",
    )
)  # fmt: skip
"""What may stand above the tables of a file: options that many commands have; others do without."""

SECRET = frozenset(("cookie",))
"""What is never shown."""

_PATH = "pyglyn.configuration"


def variables(command: str, option: str) -> list[str]:
    """The variables that give an option of a command, the first one first."""
    word = option.upper().replace("-", "_")
    return [f"PYGLYN_{command.upper().replace('-', '_')}_{word}", f"PYGLYN_{word}"]


def options_of(command: click.Command) -> Iterator[click.Option]:
    """The options of a command, which all are settings."""
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            yield parameter


def with_variables(command: click.Command) -> click.Command:
    """Have every option of a command read its variables."""
    for option in options_of(command):
        option.envvar = variables(command.name or "", option.name or "")
    return command


def read(context: click.Context, parameter: click.Parameter, value: str | None) -> None:
    """Callback of ``--config``: make the file's values the defaults of all commands.

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
        name = key.replace("-", "_")
        if isinstance(item, dict):
            tables[key.replace("_", "-")] = {inner.replace("-", "_"): each for inner, each in item.items()}
        elif name in FOR_ALL:
            shared[name] = item
        else:
            raise click.UsageError(
                f"{path}: {key} is no setting for all commands: give it in a table", context
            )
    context.default_map = _Tables(shared, tables)


class _Tables(dict[str, Any]):
    """By command: what is for all, and the command's own table."""

    def __init__(self, shared: dict[str, Any], tables: dict[str, dict[str, Any]]) -> None:
        super().__init__(tables)
        self.shared = shared

    def get(self, key: str, default: Any = None) -> Any:
        return {**self.shared, **super().get(key, {})}


def check(context: click.Context, command: click.Command) -> None:
    """Refuse settings of a command that it has not got.

    Raises:
        click.UsageError: names the first one.
    """
    own: dict[str, Any] = (context.default_map or {}).get(command.name or "") or {}
    known = {option.name for option in options_of(command)}
    for name in own:
        if name not in known and name not in FOR_ALL:
            shown = name.replace("_", "-")
            path = context.meta[_PATH]
            raise click.UsageError(f"{path}: pyglyn {command.name} has no option --{shown}", context)


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
    import os

    for option in options_of(context.command):
        name = option.name or ""
        value = values.get(name)
        source = context.get_parameter_source(name)
        if source is ParameterSource.ENVIRONMENT:
            found = [each for each in variables(context.command.name or "", name) if os.environ.get(each)]
            origin = f"environment, {found[0]}" if found else "environment"
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
        yield name.replace("_", "-"), value, origin


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

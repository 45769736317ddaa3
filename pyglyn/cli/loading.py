"""What options name in Python: ``module:name`` or ``path.py:name``. Layer: cli."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import rich_click as click

from pyglyn.errors import PyglynError

_MACHINERY = ("importlib", "<frozen importlib")
"""What stands between us and the module in a traceback."""


def load_function(reference: str, option: str = "--app") -> Callable[..., Any]:
    """Find a function by ``module:function`` or ``path.py:function``.

    Raises:
        click.UsageError: there is no such thing; says what is missing.
        click.ClickException: the module does not run; says where it fails.
    """
    function = load_object(reference, option)
    if callable(function):
        return function  # type: ignore[no-any-return]
    where, _, name = reference.rpartition(":")
    if function is None:
        raise click.UsageError(f"{option} {reference}: {where} has no function {name}")
    kind = type(function).__name__
    raise click.UsageError(f"{option} {reference}: {name} is of type {kind}, and no function")


def load_object(reference: str, option: str = "--app") -> Any:
    """Find ``module:name`` or ``path.py:name``; None if the module has no such name.

    Raises:
        click.UsageError: there is no such module.
        click.ClickException: it does not run; says where it fails.
    """
    where, _, name = reference.rpartition(":")
    if not where or not name:
        raise click.UsageError(f"{option} {reference}: write module:function or path.py:function")
    if "" not in sys.path:
        sys.path.insert(0, "")  # the current directory, as python -m has it
    try:
        module = _from_file(Path(where), option) if where.endswith(".py") else importlib.import_module(where)
    except click.ClickException:
        raise
    except ModuleNotFoundError as error:
        raise click.UsageError(f"{option} {reference}: {error}{_hint(where, error)}") from error
    except SyntaxError as error:
        place = f"{error.filename}, line {error.lineno}"
        raise click.ClickException(f"{option} {reference}: {place}: {error.msg}") from error
    except Exception as error:
        click.echo(_trace(error), nl=False, err=True)
        raise click.ClickException(f"{option} {reference}: {where} does not run, see above") from error
    return getattr(module, name, None)


def made_by(function: Callable[..., Any], reference: str, option: str = "--app") -> Any:
    """Call a function that was found by `load_object`, without arguments.

    Raises:
        click.UsageError: it takes some.
        click.ClickException: it raises; says what.
    """
    try:
        inspect.signature(function).bind()
    except TypeError as error:
        raise click.UsageError(f"{option} {reference}: it is called without arguments: {error}") from error
    try:
        return function()
    except PyglynError:
        raise
    except Exception as error:
        click.echo(_trace(error), nl=False, err=True)
        raise click.ClickException(f"{option} {reference}: it raises, see above") from error


def _hint(where: str, error: ModuleNotFoundError) -> str:
    """Where a module was looked for, if it is the one that was asked for."""
    if error.name is None or not f"{where}.".startswith(f"{error.name}."):
        return ""
    return f"; it is looked for in {Path.cwd()} and where Python's packages are, or write path.py:function"


def _from_file(path: Path, option: str) -> ModuleType:
    try:
        there = path.is_file()
    except OSError as error:
        raise click.UsageError(f"{option}: {path}: {error.strerror}") from error
    if not there:
        raise click.UsageError(f"{option}: there is no file {path}")
    sys.path.insert(0, str(path.parent.resolve()))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[path.stem]
        raise
    return module


def _trace(error: Exception) -> str:
    """The traceback of a module that does not run, from the module on."""
    shown = traceback.TracebackException.from_exception(error)
    stack = shown.stack
    first = next(
        (
            number
            for number, frame in enumerate(stack)
            if frame.filename != __file__ and not any(part in frame.filename for part in _MACHINERY)
        ),
        0,
    )
    shown.stack = traceback.StackSummary.from_list(stack[first:])
    return "".join(shown.format())

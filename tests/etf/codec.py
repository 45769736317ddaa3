"""The functions of the codec for tests that run once with each implementation.

Such a module imports them from here and has ``pytestmark = each_implementation``. `run_with` is what the
fixture of `conftest.py` calls; before that they are those of ``pure``.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from pyglyn.etf import normaliser, pure
from pyglyn.testing import require

IMPLEMENTATIONS = {"python": "pyglyn.etf.pure", "c": "pyglyn.etf._speedups"}

DECODING = ("decode", "decode_prefix", "decode_bare")
ENCODING = ("encode", "encode_bare", "encode_parts")
NORMALISING = "normalise"

each_implementation = pytest.mark.usefixtures("implementation")

_current: ModuleType = pure


def implementation(name: str) -> ModuleType:
    """Import one; skip the test (see `require`) where it was not built."""
    found = importlib.util.find_spec(IMPLEMENTATIONS[name])
    require(found, "the codec in C was not built: it takes a C compiler and Python's headers")
    return importlib.import_module(IMPLEMENTATIONS[name])


def run_with(module: ModuleType) -> None:
    """Let the functions below be those of this module from now on."""
    global _current
    _current = module


def function_of(module: ModuleType, name: str) -> Callable[..., Any]:
    """The function of an implementation; that of Python's ``normalise`` is in a module of its own."""
    function: Callable[..., Any] = getattr(
        normaliser if module is pure and name == "normalise" else module, name
    )
    return function


def decode(*args: Any, **options: Any) -> Any:
    return _current.decode(*args, **options)


def decode_prefix(*args: Any, **options: Any) -> Any:
    return _current.decode_prefix(*args, **options)


def decode_bare(*args: Any, **options: Any) -> Any:
    return _current.decode_bare(*args, **options)


def encode(*args: Any, **options: Any) -> Any:
    return _current.encode(*args, **options)


def encode_bare(*args: Any, **options: Any) -> Any:
    return _current.encode_bare(*args, **options)


def encode_parts(*args: Any, **options: Any) -> Any:
    return _current.encode_parts(*args, **options)


def normalise(*args: Any, **options: Any) -> Any:
    return function_of(_current, "normalise")(*args, **options)


# --- comparing -------------------------------------------------------------------------------------


def shown(value: Any) -> object:
    """What two results have in common when they are the same: every type in them, order of keys included."""
    if isinstance(value, list) and any(isinstance(item, memoryview) for item in value):
        value = [(type(item), bytes(item)) for item in value]
    return type(value), repr(value)


def outcome_of(function: Callable[..., Any], *args: Any, **options: Any) -> object:
    try:
        return shown(function(*args, **options))
    except Exception as error:
        fields = {name: repr(value) for name, value in vars(error).items()}
        return type(error), str(error), fields, type(error.__cause__), type(error.__context__)


def assert_same(speedups: ModuleType, name: str, *args: Any, **options: Any) -> None:
    mine, theirs = function_of(speedups, name), function_of(pure, name)
    assert outcome_of(mine, *args, **options) == outcome_of(theirs, *args, **options)

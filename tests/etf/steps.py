"""How much work a call does, counted and not timed: the same on every machine, however busy.

A step is a line of Python, a basic block of the codec in C, or 64 bytes asked of an allocator, whoever asks. What
neither runs lines nor takes memory goes uncounted: the looks at the keys of a crowded dict, the characters that a
regular expression passes over.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import tomllib
from collections.abc import Callable
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

from pyglyn.testing import require

ROOT = Path(__file__).parents[2]
BYTES_A_STEP = 64


@functools.cache
def _build() -> Path:
    """Compile the codec with a counter at every basic block."""
    compiler = shutil.which("cc")
    headers = Path(sysconfig.get_path("include"))
    require(compiler and (headers / "Python.h").exists(), "a C compiler and Python's headers are not here")
    assert compiler is not None
    modules = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["ext-modules"]
    (module,) = [each for each in modules if each["name"] == "pyglyn.etf._speedups"]
    folder = Path(tempfile.mkdtemp(prefix="pyglyn-steps-"))
    try:
        objects = []
        for number, source in enumerate([*module["sources"], "tests/etf/steps.c"]):
            objects.append(f"{folder}/{number}.o")
            counted = [] if source.endswith("steps.c") else ["-fsanitize-coverage=trace-pc"]
            options = [f"-I{headers}", "-O1", "-fPIC", *counted]
            subprocess.run([compiler, *options, "-c", source, "-o", objects[-1]], cwd=ROOT, check=True)
        library = folder / f"_speedups{sysconfig.get_config_var('EXT_SUFFIX')}"
        subprocess.run([compiler, "-shared", *objects, "-o", library], check=True)
        _load(library)  # what is loaded needs no file any more
        _counter(library)
    finally:
        shutil.rmtree(folder)
    return library


@functools.cache
def _load(library: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("pyglyn.etf._speedups", library)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@functools.cache
def _counter(library: Path) -> ctypes.PyDLL:
    return ctypes.PyDLL(str(library))


def counted_speedups() -> ModuleType:
    """The codec in C, in the form that counts."""
    return _load(_build())


def steps(action: Callable[[], Any]) -> int:
    """Carry out a call; return how many steps it took."""
    counter = _counter(_build())
    lines = 0

    def trace(frame: FrameType, event: str, arg: object) -> Any:
        nonlocal lines
        lines += event == "line"
        return trace

    numbers = (ctypes.c_ulonglong * 2)()
    before = sys.gettrace()
    sys.settrace(trace)
    counter.steps_start()
    try:
        action()
    finally:
        counter.steps_stop(numbers)
        sys.settrace(before)
    return lines + numbers[0] + numbers[1] // BYTES_A_STEP


def grows_with_the_size(make: Callable[[int], Callable[[], Any]], *, few: int = 250, times: int = 8) -> bool:
    """Whether so many times the size takes at most twice as many times the steps (a square would be 64 for 8).

    Args:
        make: gives for a size the call to be counted; what it does itself is not counted.
    """
    small, large = make(few), make(few * times)
    return steps(large) < 2 * times * steps(small)

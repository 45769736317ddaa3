"""The import rule: which part of the package may import which, and what pure modules never import.

A module says that it is pure in its docstring ("Layer: groups, pure."). Imports count wherever they stand, inside
functions and under TYPE_CHECKING too.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

PACKAGE = Path(__file__).parent.parent / "pyglyn"

BANNED_WHEN_PURE = {
    "asyncio", "concurrent", "multiprocessing", "os", "random", "secrets", "select", "selectors", "signal",
    "socket", "socketserver", "sqlite3", "ssl", "subprocess", "time",
}  # fmt: skip

ALL_PURE = {"etf", "dist"}
PURE_FILES = {
    "node/signals.py",
    "gleam/values.py",
    "gleam/decode.py",
    "supervision/spec.py",
    "supervision/exported.py",
    "supervision/policy.py",
    "groups/pg_state.py",
    "groups/syn_state.py",
    "eventsourcing/aggregate.py",
    "eventsourcing/snapshot.py",
}
MAY_READ_THE_ENVIRONMENT = {"etf/__init__.py"}  # it chooses the codec

_BELOW_NODE = {"errors", "etf", "dist", "net"}
_BELOW_ACTOR = _BELOW_NODE | {"gleam", "node"}

LAYERS = {
    "errors": set(),
    "_version": set(),
    "etf": {"errors"},
    "dist": {"errors", "etf"},
    "net": {"errors", "etf", "dist"},
    "gleam": {"errors", "etf"},
    "node": _BELOW_NODE | {"gleam", "actor", "_version"},  # `Node.start` starts an actor
    "actor": _BELOW_ACTOR | {"supervision", "groups"},
    "supervision": _BELOW_ACTOR | {"actor", "groups"},
    "groups": _BELOW_ACTOR | {"actor", "supervision"},
    "glyn": _BELOW_ACTOR | {"actor", "groups"},
    "eventsourcing": {"errors", "etf", "gleam"},
}
"""What each part may import besides itself. Those not listed stand above all of these."""

TOP = {"__init__", "__main__", "cli", "testing"}
NOBODY_IMPORTS = {"cli", "testing"}
SAME_ROW = {"actor", "supervision", "groups"}

EVENTSOURCING_ON_A_NODE = {
    "__init__.py", "client.py", "durable.py", "front.py", "glyn.py", "live.py", "query_process.py", "routing.py", "runtime.py", "scope.py",
    "sources.py",
}  # fmt: skip
"""The files of `eventsourcing` that need a cluster; stores and domain do without."""


@attrs.frozen
class Import:
    """One imported module, with the line and the names taken from it."""

    module: str
    line: int
    names: tuple[str, ...] = ()

    @property
    def root(self) -> str:
        return self.module.split(".")[0]

    def parts(self) -> set[str]:
        """Return the parts of our package that it imports."""
        if self.root != "pyglyn":
            return set()
        below = self.module.split(".")[1:]
        if below:
            return {below[0]}
        return {name if is_part(name) else "__init__" for name in self.names}


def is_part(name: str) -> bool:
    return (PACKAGE / name).is_dir() or (PACKAGE / f"{name}.py").exists()


def sources() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py") if "__pycache__" not in path.parts)


def name_of(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def part_of(path: Path) -> str:
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


def imports_of(path: Path) -> Iterator[Import]:
    return parsed_imports(path, path.read_text())


def parsed_imports(path: Path, source: str) -> Iterator[Import]:
    package = ("pyglyn", *path.relative_to(PACKAGE).parent.parts)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, node.lineno)
        elif isinstance(node, ast.ImportFrom):
            above = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(filter(None, (above, node.module)))
            yield Import(module, node.lineno, tuple(alias.name for alias in node.names))


def is_pure(path: Path) -> bool:
    if part_of(path) in ALL_PURE or name_of(path) in PURE_FILES:
        return True
    docstring = ast.get_docstring(ast.parse(path.read_text())) or ""
    return bool(re.search(r"\bPure\.$|\bLayer: \w+, pure\.", docstring, re.MULTILINE))


def own_modules(imported: Import) -> Iterator[Path]:
    """Find the files behind an import of ours; a name may be a module or something inside the module."""
    base = PACKAGE.joinpath(*imported.module.split(".")[1:])
    for candidate in (base, *(base / name for name in imported.names)):
        if candidate.with_suffix(".py").exists():
            yield candidate.with_suffix(".py")
        elif candidate != PACKAGE and (candidate / "__init__.py").exists():
            yield candidate / "__init__.py"


each_file = pytest.mark.parametrize("path", sources(), ids=name_of)


@each_file
def test_a_module_imports_only_layers_below_it(path: Path) -> None:
    part = part_of(path)
    if part in TOP or (part == "eventsourcing" and path.name in EVENTSOURCING_ON_A_NODE):
        return
    allowed = LAYERS[part] | {part}
    wrong = [f"line {i.line}: {i.module} {i.names}" for i in imports_of(path) if not i.parts() <= allowed]
    assert not wrong, f"{part} may import {sorted(allowed)}"


@each_file
def test_a_pure_module_imports_no_clock_no_socket_and_no_randomness(path: Path) -> None:
    if not is_pure(path):
        return
    banned = BANNED_WHEN_PURE - ({"os"} if name_of(path) in MAY_READ_THE_ENVIRONMENT else set())
    assert not [f"line {i.line}: {i.module}" for i in imports_of(path) if i.root in banned]


@each_file
def test_a_pure_module_imports_only_pure_modules_of_ours(path: Path) -> None:
    if not is_pure(path):
        return
    ours = [(i, found) for i in imports_of(path) if i.root == "pyglyn" for found in own_modules(i)]
    wrong = [
        f"line {i.line}: {name_of(found)}"
        for i, found in ours
        if not is_pure(found) and part_of(found) != "errors" and found.name != "__init__.py"
    ]
    assert not wrong


@each_file
def test_nobody_below_imports_the_testing_aids_or_the_command_line(path: Path) -> None:
    if part_of(path) in {"testing", "cli", "__main__"}:
        return
    assert not [f"line {i.line}" for i in imports_of(path) if i.parts() & NOBODY_IMPORTS]


@each_file
def test_a_module_leaves_the_private_names_of_other_parts_alone(path: Path) -> None:
    wrong = []
    for imported in imports_of(path):
        if not imported.parts() or imported.parts() <= {part_of(path), "_version"}:
            continue
        names = [*imported.module.split("."), *imported.names]
        wrong += [f"line {imported.line}: {name}" for name in names if re.match(r"_[^_]", name)]
    assert not wrong


@each_file
def test_parts_of_the_same_row_meet_only_through_their_front_door(path: Path) -> None:
    part = part_of(path)
    if part not in SAME_ROW:
        return
    wrong = [
        f"line {i.line}: {i.module}"
        for i in imports_of(path)
        if i.parts() & (SAME_ROW - {part}) and i.module.count(".") > 1
    ]
    assert not wrong


@each_file
def test_a_module_starts_with_a_docstring(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text()))


def test_the_named_pure_files_are_where_this_test_looks_for_them() -> None:
    assert not [name for name in sorted(PURE_FILES) if not (PACKAGE / name).exists()]


def test_the_reader_of_imports_finds_them_all() -> None:
    path = PACKAGE / "groups" / "example.py"
    source = """
import os.path
from pyglyn import etf
from . import effects
from ..node import signals
def f():
    import time
"""
    assert [(i.root, i.parts()) for i in parsed_imports(path, source)] == [
        ("os", set()),
        ("pyglyn", {"etf"}),
        ("pyglyn", {"groups"}),
        ("pyglyn", {"node"}),
        ("time", set()),
    ]

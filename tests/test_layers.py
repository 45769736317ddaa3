"""The import rule: which part of the package may import which, and what pure modules never import.

Two tables say it, `LAYERS` and `PURE`; nothing hangs on the wording of a docstring. Imports count wherever they
stand, inside functions and under TYPE_CHECKING too.
"""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

PACKAGE = Path(__file__).parent.parent / "pyglyn"

BANNED_WHEN_PURE = {
    "asyncio", "concurrent", "multiprocessing", "os", "random", "secrets", "select", "selectors", "signal",
    "socket", "socketserver", "sqlite3", "ssl", "subprocess", "threading", "time",
}  # fmt: skip

PURE = {
    "errors.py",
    "digests.py",
    "escaping.py",
    "etf/",
    "dist/",
    "gleam/",
    "http/exposition.py",
    "node/boundary.py",
    "node/destinations.py",
    "node/heads.py",
    "node/reasons.py",
    "node/signals.py",
    "groups/discovery.py",
    "groups/effects.py",
    "groups/membership.py",
    "groups/pg_state.py",
    "groups/syn_pg_state.py",
    "groups/syn_registry_state.py",
    "groups/syn_state.py",
    "supervision/declaration.py",
    "supervision/effects.py",
    "supervision/erlang_spec.py",
    "supervision/exported.py",
    "supervision/policy.py",
    "supervision/requests.py",
    "supervision/os/command.py",
    "supervision/spec.py",
    "supervision/words.py",
    "eventsourcing/domain/aggregate.py",
    "eventsourcing/domain/copying.py",
    "eventsourcing/domain/envelope.py",
    "eventsourcing/domain/evolution.py",
    "eventsourcing/domain/lenient.py",
    "eventsourcing/domain/snapshot.py",
    "eventsourcing/domain/trace.py",
    "eventsourcing/domain/wire.py",
    "eventsourcing/stores/json/",
    "eventsourcing/stores/later.py",
    "eventsourcing/stores/layout.py",
    "eventsourcing/stores/managing.py",
    "eventsourcing/stores/packed.py",
    "eventsourcing/stores/rows.py",
    "eventsourcing/managers/machine.py",
    "eventsourcing/managers/outgoing.py",
    "eventsourcing/managers/rules.py",
    "eventsourcing/queries/bounds.py",
    "eventsourcing/queries/durable_state.py",
    "eventsourcing/queries/failure.py",
    "eventsourcing/queries/ordering.py",
    "testing/bank.py",
}
"""Files, and folders with all below them, that neither wait nor look at a clock: input in, decision out."""

EXCEPTIONS = {
    ("etf/__init__.py", "os"): "it chooses the codec by the environment",
    ("gleam/values.py", "threading"): "one lock around the compiling of types, which threads may share",
}
"""Banned imports of pure files, each with its reason."""

PURE_ENOUGH = {"eventsourcing/stores/store.py"}
"""Interfaces that pure files may name, though their default methods wait."""

_BELOW_NODE = {
    "credentials",
    "digests",
    "tracing",
    "errors",
    "etf",
    "escaping",
    "dist",
    "net",
    "patience",
    "forks",
    "loop_turn",
    "complaints",
}
_NODE = _BELOW_NODE | {"counters", "gleam", "node"}
_ES_STORES = {"complaints", "tracing", "errors", "etf", "gleam", "forks", "patience", "eventsourcing/domain"}
_ES_COMMANDS = _ES_STORES | {"counters", "eventsourcing/stores"}
_ES_CLUSTER = _ES_COMMANDS | {"eventsourcing/commands", "node", "groups", "glyn"}
_ES_QUERIES = _ES_CLUSTER | {"eventsourcing/cluster", "supervision"}
_ES_SERVICE = _ES_QUERIES | {"eventsourcing/queries"}

LAYERS = {
    "counters": set(),
    "complaints": set(),
    "tracing": set(),
    "credentials": set(),
    "digests": set(),
    "escaping": set(),
    "certificates": set(),
    "errors": set(),
    "_version": set(),
    "_main_module": set(),
    "_standard": set(),
    "patience": set(),
    "loop_turn": {"patience"},
    "loops": set(),
    "forks": set(),
    "etf": {"errors"},
    "dist": {"digests", "errors", "etf", "escaping"},
    "net": {"complaints", "errors", "etf", "escaping", "dist", "patience", "forks", "loop_turn"},
    "gleam": {"errors", "etf"},
    "logs": {"escaping"},
    "node": _BELOW_NODE | {"counters", "logs", "gleam", "_version", "_main_module"},
    "supervision/words": {"errors", "etf", "escaping"},
    "supervision/os": {
        "errors",
        "etf",
        "patience",
        "forks",
        "_main_module",
        "_standard",
        "credentials",
        "supervision/words",
    },
    "supervision": _NODE | {"logs", "loops", "groups", "supervision/words", "supervision/os"},
    "groups": _NODE | {"supervision"},
    "glyn": _NODE | {"groups"},
    "eventsourcing/domain": {"tracing", "errors", "etf", "gleam"},
    "eventsourcing/stores": _ES_STORES,
    "eventsourcing/commands": _ES_COMMANDS,
    "eventsourcing/cluster": _ES_CLUSTER,
    "eventsourcing/queries": _ES_QUERIES,
    "eventsourcing/managers": _ES_SERVICE,
    "eventsourcing/service": _ES_SERVICE,
    "http": _NODE | _ES_SERVICE | {"groups", "logs", "_version"},
    "eventsourcing/glyn": _ES_SERVICE | {"eventsourcing/service"},
}
"""What each part may import besides itself. Those not listed stand above all of these."""

TOP = {"", "__init__", "__main__", "cli", "testing", "eventsourcing"}
NOBODY_IMPORTS = {"cli", "testing"}
SAME_ROW = {"supervision", "groups"}
FOR_ALL_PARTS = {"_version", "_main_module", "_standard"}
WITHOUT_CIRCLES = (
    "etf", "dist", "net", "gleam", "node", "groups", "glyn", "supervision", "eventsourcing", "http", "testing",
    "cli",
)  # fmt: skip
"""The folders whose modules do not import each other in circles, not even for types."""


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
        below = "/".join(self.module.split(".")[1:])
        inside = [f"{below}/{name}".lstrip("/") for name in self.names if is_module(f"{below}/{name}")]
        return {part_of(name) or "__init__" for name in (inside or [below])}


def is_module(name: str) -> bool:
    path = PACKAGE / name.strip("/")
    return path.is_dir() or path.with_suffix(".py").exists()


def part_of(name: str) -> str:
    """Return the longest part of `LAYERS` that a file or module is in, or its first folder."""
    name = name.removesuffix(".py").removesuffix("/__init__")
    inside = [part for part in LAYERS if name == part or name.startswith(f"{part}/")]
    return max(inside, key=len) if inside else name.split("/")[0]


def sources() -> list[str]:
    found = (path for path in PACKAGE.rglob("*.py") if "__pycache__" not in path.parts)
    return sorted(path.relative_to(PACKAGE).as_posix() for path in found)


@functools.cache
def tree_of(name: str) -> ast.Module:
    """Return a file's syntax tree; each is parsed once."""
    return ast.parse((PACKAGE / name).read_text())


@functools.cache
def imports_of(name: str) -> tuple[Import, ...]:
    return tuple(imports_in(name, tree_of(name)))


def imports_in(name: str, tree: ast.Module) -> Iterator[Import]:
    package = ("pyglyn", *Path(name).parent.parts)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, node.lineno)
        elif isinstance(node, ast.ImportFrom):
            above = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(filter(None, (above, node.module)))
            yield Import(module, node.lineno, tuple(alias.name for alias in node.names))


def is_pure(name: str) -> bool:
    return any(name == entry or (entry.endswith("/") and name.startswith(entry)) for entry in PURE)


def own_files(imported: Import) -> Iterator[str]:
    """Find the files behind an import of ours; a name may be a module or something inside the module."""
    base = "/".join(imported.module.split(".")[1:])
    for candidate in (base, *(f"{base}/{name}".lstrip("/") for name in imported.names)):
        if candidate and (PACKAGE / f"{candidate}.py").exists():
            yield f"{candidate}.py"
        elif candidate and (PACKAGE / candidate / "__init__.py").exists():
            yield f"{candidate}/__init__.py"


def wrong_layers(name: str, imports: tuple[Import, ...]) -> list[str]:
    part = part_of(name)
    if part in TOP:
        return []
    allowed = LAYERS[part] | {part}
    return [f"line {i.line}: {i.module} {i.names}" for i in imports if not i.parts() <= allowed]


def banned_imports(name: str, imports: tuple[Import, ...]) -> list[str]:
    return [
        f"line {i.line}: {i.module}"
        for i in imports
        if is_pure(name) and i.root in BANNED_WHEN_PURE and (name, i.root) not in EXCEPTIONS
    ]


each_file = pytest.mark.parametrize("name", sources())


@each_file
def test_a_module_imports_only_layers_below_it(name: str) -> None:
    assert not wrong_layers(name, imports_of(name))


@each_file
def test_a_pure_module_imports_no_clock_no_socket_and_no_randomness(name: str) -> None:
    assert not banned_imports(name, imports_of(name))


@each_file
def test_a_pure_module_imports_only_pure_modules_of_ours(name: str) -> None:
    if not is_pure(name):
        return
    ours = [(i, found) for i in imports_of(name) if i.root == "pyglyn" for found in own_files(i)]
    assert not [
        f"line {i.line}: {found}"
        for i, found in ours
        if not is_pure(found) and found not in PURE_ENOUGH and not found.endswith("__init__.py")
    ]


@each_file
def test_nobody_below_imports_the_testing_aids_or_the_command_line(name: str) -> None:
    if part_of(name) in {"testing", "cli", "__main__"}:
        return
    assert not [f"line {i.line}" for i in imports_of(name) if i.parts() & NOBODY_IMPORTS]


@each_file
def test_a_module_leaves_the_private_names_of_other_parts_alone(name: str) -> None:
    wrong = []
    for imported in imports_of(name):
        if not imported.parts() or imported.parts() <= {part_of(name), *FOR_ALL_PARTS}:
            continue
        names = [*imported.module.split("."), *imported.names]
        wrong += [
            f"line {imported.line}: {each}"
            for each in names
            if re.match(r"_[^_]", each) and each not in FOR_ALL_PARTS
        ]
    assert not wrong


@each_file
def test_parts_of_the_same_row_meet_only_through_their_front_door(name: str) -> None:
    part = part_of(name)
    if part not in SAME_ROW:
        return
    assert not [
        f"line {i.line}: {i.module}"
        for i in imports_of(name)
        if i.parts() & (SAME_ROW - {part}) and i.module.count(".") > 1
    ]


def circles(imports: dict[str, set[str]]) -> list[str]:
    """The modules that import each other in circles, and what lies between two circles."""
    while imports:
        wanted = set().union(*imports.values())
        free = {name for name, below in imports.items() if name not in wanted or not below & imports.keys()}
        if not free:
            break
        imports = {name: below for name, below in imports.items() if name not in free}
    return sorted(imports)


@pytest.mark.parametrize("folder", WITHOUT_CIRCLES)
def test_the_modules_of_a_part_do_not_import_each_other_in_circles(folder: str) -> None:
    modules = [name for name in sources() if name.startswith(f"{folder}/")]
    assert len(modules) > 1
    below = {name: {found for i in imports_of(name) for found in files_needed(i)} for name in modules}
    assert not circles({name: files - {name} for name, files in below.items()})


def files_needed(imported: Import) -> set[str]:
    """As ``own_files``, but a package counts only where a name comes from the package itself."""
    found = set(own_files(imported))
    base = "/".join(imported.module.split(".")[1:])
    if imported.names and all(is_module(f"{base}/{name}".lstrip("/")) for name in imported.names):
        found.discard(f"{base}/__init__.py")
    return found


def test_a_package_that_is_only_passed_through_is_no_import_of_it() -> None:
    assert files_needed(Import("pyglyn.etf", 1, ("tags",))) == {"etf/tags.py"}
    assert files_needed(Import("pyglyn.etf", 1, ("tags", "Atom"))) == {"etf/tags.py", "etf/__init__.py"}


def test_a_circle_is_found() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b", "d"}, "d": set()}) == ["b", "c"]


@each_file
def test_a_module_starts_with_a_docstring(name: str) -> None:
    assert ast.get_docstring(tree_of(name))


def test_the_tables_name_only_what_is_there() -> None:
    assert not [entry for entry in sorted(PURE | PURE_ENOUGH) if not (PACKAGE / entry).exists()]
    assert not [part for part in LAYERS if not is_module(part)]
    assert not [part for part in TOP - {""} if not is_module(part)]
    assert not [
        (name, root) for name, root in EXCEPTIONS if root not in {i.root for i in imports_of(name)}
    ], "an exception that nobody needs any more"


def test_every_part_of_the_package_is_in_a_table() -> None:
    assert {part_of(name) for name in sources()} <= LAYERS.keys() | TOP


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("eventsourcing/queries/durable_state.py", "import time, socket"),
        ("node/boundary.py", "import socket, asyncio"),
        ("etf/text.py", "def f():\n    import random"),
    ],
)
def test_a_clock_in_a_pure_file_is_found(name: str, line: str) -> None:
    assert banned_imports(name, tuple(imports_in(name, ast.parse(line))))


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("etf/text.py", "from pyglyn.dist import flags"),
        ("node/rpc.py", "from pyglyn import supervision"),
        ("supervision/os/start.py", "from pyglyn.node.reasons import OK"),
        ("supervision/os/start.py", "def f():\n    from pyglyn.supervision import spec"),
        ("eventsourcing/domain/wire.py", "from pyglyn.eventsourcing.stores.store import EventStore"),
        ("eventsourcing/stores/sqlite.py", "def f():\n    from pyglyn.node import Node"),
        ("eventsourcing/commands.py", "from pyglyn.eventsourcing.cluster import client"),
        ("eventsourcing/cluster/client.py", "from pyglyn.eventsourcing.queries.live import Query"),
        ("eventsourcing/queries/live.py", "from pyglyn.eventsourcing import glyn"),
        ("eventsourcing/service/server.py", "from pyglyn.eventsourcing.glyn import supervised"),
    ],
)
def test_an_import_upwards_is_found(name: str, line: str) -> None:
    assert wrong_layers(name, tuple(imports_in(name, ast.parse(line))))


def test_the_reader_of_imports_finds_them_all() -> None:
    source = """
import os.path
from pyglyn import etf
from . import effects
from ..node import signals
from pyglyn.eventsourcing.stores import memory
def f():
    import time
"""
    assert [(i.root, i.parts()) for i in imports_in("groups/example.py", ast.parse(source))] == [
        ("os", set()),
        ("pyglyn", {"etf"}),
        ("pyglyn", {"groups"}),
        ("pyglyn", {"node"}),
        ("pyglyn", {"eventsourcing/stores"}),
        ("time", set()),
    ]

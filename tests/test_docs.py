"""What README, docs and docstrings speak of is there: files, folders, modules and what is in them."""

from __future__ import annotations

import ast
import functools
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TOP = "pyglyn|tests|docs|interop|examples"
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md")])
SOURCES = sorted(
    path
    for folder in ("pyglyn", "tests", "examples")
    for path in (ROOT / folder).rglob("*.py")
    if "__pycache__" not in path.parts
)

PATH = re.compile(rf"(?<![\w/.@-])((?:{TOP})(?:/[\w.*-]+)+/?)")
FILE = re.compile(r"`([\w/*-]+\.(?:py|c|sql|erl|md|toml|svg))`")
LINK = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")
NAME = re.compile(r"(?<![\w./@-])(pyglyn(?:\.[A-Za-z_]\w*)+)(?![\w/@-])")
ROLE = re.compile(r":(?:mod|class|func|meth|data):`~?([\w.]+)`")

NO_MODULE = {"pyglyn.toml"}


@functools.cache
def files() -> frozenset[str]:
    """All files of the project, as paths from its root."""
    skipped = {".git", ".venv", "__pycache__", "build"}
    return frozenset(
        path.relative_to(ROOT).as_posix()
        for path in ROOT.rglob("*")
        if not skipped & set(path.relative_to(ROOT).parts) and path.is_file()
    )


@functools.cache
def logger_names() -> frozenset[str]:
    """Names under which the package logs: they read like modules and are none."""
    pattern = re.compile(r'"(pyglyn[\w.]*)"')
    return frozenset(name for path in SOURCES for name in pattern.findall(path.read_text()))


def is_there(path: str, beside: Path) -> bool:
    """Whether a path leads somewhere, from the root or from the page; a star is any text."""
    path = path.rstrip("/.")
    if "*" in path:
        return any(True for _ in ROOT.glob(path)) or any(True for _ in beside.parent.glob(path))
    return (ROOT / path).exists() or (beside.parent / path).exists()


@functools.cache
def is_known(name: str) -> bool:
    """Whether a dotted name is a module, or something in one."""
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        try:
            found: object = importlib.import_module(".".join(parts[:end]))
        except ImportError:
            continue
        for part in parts[end:]:
            if not hasattr(found, part) and part not in getattr(found, "__annotations__", {}):
                return False
            found = getattr(found, part, None)
        return True
    return False


def names_in(text: str) -> Iterator[str]:
    for name in (*NAME.findall(text), *(role for role in ROLE.findall(text) if role.startswith("pyglyn."))):
        if name not in logger_names() and name not in NO_MODULE:
            yield name


def docstrings(path: Path) -> str:
    tree = ast.parse(path.read_text())
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    texts = [ast.get_docstring(node) or "" for node in ast.walk(tree) if isinstance(node, kinds)]
    comments = [
        line.partition("#")[2] for line in path.read_text().splitlines() if line.strip().startswith("#")
    ]
    return "\n".join([*texts, *comments])


def named(paths: list[Path]) -> object:
    return pytest.mark.parametrize("path", paths, ids=[path.relative_to(ROOT).as_posix() for path in paths])


def missing_from(text: str, path: Path) -> list[str]:
    return sorted(
        {found for found in PATH.findall(text) if not is_there(found, path)}
        | {name for name in names_in(text) if not is_known(name)}
    )


@named(PAGES)
def test_a_page_speaks_of_what_is_there(path: Path) -> None:
    text = path.read_text()
    assert not missing_from(text, path)
    assert not [link for link in LINK.findall(text) if not (path.parent / link).exists()]
    known = files()
    ends = [name for name in FILE.findall(text) if "*" not in name and name not in NO_MODULE]
    assert not [name for name in ends if not any(f"/{each}".endswith(f"/{name}") for each in known)]


@named(SOURCES)
def test_docstrings_and_comments_speak_of_what_is_there(path: Path) -> None:
    assert not missing_from(docstrings(path), path)


@pytest.mark.parametrize(
    "text",
    [
        "see `pyglyn/eventsourcing/projection.py`",
        ":mod:`pyglyn.eventsourcing.projection`",
        "what pyglyn.node.router.claimed_sender says",
        "tests/groups/*_nothing.py",
    ],
)
def test_what_is_gone_is_found(text: str) -> None:
    assert missing_from(text, Path(__file__))


def test_what_is_there_is_not() -> None:
    text = (
        "`pyglyn/groups/*_state.py`, pyglyn.etf.decode, pyglyn.eventsourcing.stores.store.EventStore, .ci/run"
    )
    assert not missing_from(text, Path(__file__))

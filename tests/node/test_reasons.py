"""Exit reasons: which ones are clean, and that each of the common atoms is written once."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from pyglyn.etf import Atom, Term
from pyglyn.node import reasons
from pyglyn.node.reasons import KILLED, NORMAL, SHUTDOWN, is_clean

PACKAGE = Path(__file__).parent.parent.parent / "pyglyn"
KNOW_NODE = ("node", "groups", "glyn", "supervision", "cli")
OS_FLOOR = PACKAGE / "supervision" / "os"  # it knows no node
COMMON = {value for value in vars(reasons).values() if isinstance(value, Atom)}


@pytest.mark.parametrize(
    ("reason", "clean"),
    [
        (NORMAL, True),
        (SHUTDOWN, True),
        ((SHUTDOWN, b"why"), True),
        ((SHUTDOWN,), False),
        ((SHUTDOWN, 1, 2), False),
        ([SHUTDOWN, 1], False),
        ((NORMAL, 1), False),
        (KILLED, False),
        (b"normal", False),
    ],
)
def test_clean_are_normal_shutdown_and_shutdown_with_a_term(reason: Term, clean: bool) -> None:
    assert is_clean(reason) is clean


def named_atoms(path: Path) -> list[str]:
    """The atoms that a module gives a name of its own."""
    found: list[ast.expr] = []
    for statement in ast.parse(path.read_text()).body:
        value = statement.value if isinstance(statement, (ast.Assign, ast.AnnAssign)) else None
        if value is not None:
            found += value.elts if isinstance(value, ast.Tuple) else [value]
    return [
        str(ast.literal_eval(each.args[0]))
        for each in found
        if isinstance(each, ast.Call) and ast.unparse(each.func) == "Atom"
    ]


def test_no_other_module_that_may_know_nodes_names_these_atoms() -> None:
    assert named_atoms(PACKAGE / "node" / "reasons.py")
    again = {
        path.relative_to(PACKAGE).as_posix(): twice
        for part in KNOW_NODE
        for path in (PACKAGE / part).rglob("*.py")
        if path.name != "reasons.py"
        and OS_FLOOR not in path.parents
        and (twice := [name for name in named_atoms(path) if Atom(name) in COMMON])
    }
    assert not again

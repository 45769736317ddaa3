"""Whom one may send to, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from pyglyn.etf import Atom, Pid, Reference
from pyglyn.node.destinations import check_destination, describe, name_and_node, name_of, name_term, node_of

PID, ALIAS = Pid("b@h", 1, 0, 1), Reference("c@h", 1, (1, 2, 3))


@pytest.mark.parametrize(
    ("to", "node"),
    [
        (PID, "b@h"),
        (ALIAS, "c@h"),
        ("stock", None),
        (Atom("stock"), None),
        (("stock", "d@h"), "d@h"),
        ((Atom("stock"), Atom("d@h")), "d@h"),
    ],
)
def test_each_kind_names_its_node_or_means_this_one(to: Any, node: str | None) -> None:
    check_destination(to)
    assert node_of(to) == node


@pytest.mark.parametrize("to", [b"stock", 1, None, ["stock", "d@h"], {}])
def test_anything_else_is_refused_with_the_right_forms(to: object) -> None:
    with pytest.raises(TypeError, match="a destination is a pid, a name"):
        check_destination(to)


@pytest.mark.parametrize("name", ["stock", Atom("stock")])
@pytest.mark.parametrize("node", ["d@h", Atom("d@h")])
def test_a_name_and_its_node_may_be_text_or_atoms(name: Any, node: Any) -> None:
    assert name_and_node((name, node)) == (Atom("stock"), "d@h")


@pytest.mark.parametrize(
    "to", [(), ("stock",), ("stock", "d@h", 1), (b"stock", "d@h"), ("stock", PID), (1, "d@h")]
)
def test_other_tuples_are_refused(to: tuple[object, ...]) -> None:
    with pytest.raises(TypeError, match="a destination is a pid, a name"):
        name_and_node(to)


def test_a_server_is_described_for_people() -> None:
    assert describe(("stock", "d@h")) == "stock on d@h"
    assert describe("stock") == "stock"
    assert describe(PID) == str(PID)


SPECIAL = {"true": True, "false": False, "nil": None}


@pytest.mark.parametrize("name", SPECIAL)
def test_atoms_that_are_values_in_python_are_names_like_others(name: str) -> None:
    assert name_term(name) is SPECIAL[name]
    assert name_of(SPECIAL[name]) == name


def test_a_name_is_an_atom_and_nothing_that_equals_one() -> None:
    assert name_term("stock") is name_term(Atom("stock")) is Atom("stock")
    assert name_of(Atom("stock")) == "stock"
    for term in (1, 0, 1.0, b"stock", (), [], PID):
        assert name_of(term) is None
    with pytest.raises(ValueError, match="255"):
        name_term("x" * 256)

"""What several nodes know of groups, put together; what is asked of a BEAM node is in the tests of ``pyglyn groups``."""

from __future__ import annotations

from typing import Any

import pytest

from pyglyn.errors import RemoteException
from pyglyn.etf import Atom, Pid
from pyglyn.groups.overview import Member, Merged, Scope, merge, overview
from pyglyn.node.exits import ErlangError
from pyglyn.node.reasons import UNDEFINED

A, B = Pid("a@h", 1, 0, 1), Pid("b@h", 2, 0, 1)


def pg(*groups: tuple[bytes, list[Pid]]) -> Scope:
    return Scope("pg", "scope", [(name, [(pid, UNDEFINED) for pid in pids]) for name, pids in groups])


def test_a_member_that_all_know_of_is_missing_nowhere_and_one_that_is_says_where() -> None:
    found = merge(
        [
            ("a@h", [pg((b"shop", [A, B]), (b"bar", [A]))]),
            ("b@h", [pg((b"shop", [B]))]),
            ("c@h", []),  # runs no such scope, so it need not know
        ]
    )
    assert found == [
        Merged(
            "pg",
            "scope",
            ["a@h", "b@h"],
            [
                (b"bar", [Member(A, UNDEFINED, ["b@h"])]),
                (b"shop", [Member(A, UNDEFINED, ["b@h"]), Member(B, UNDEFINED, [])]),
            ],
        )
    ]


def test_nodes_that_know_a_name_as_another_process_or_with_another_note_disagree() -> None:
    again = Pid("a@h", 1, 0, 2)
    one = Scope("syn_registry", "names", [(b"alice", [(A, b"gold")])])
    other = Scope("syn_registry", "names", [(b"alice", [(again, b"gold")])])
    third = Scope("syn_registry", "names", [(b"alice", [(A, b"silver")])])
    [scope] = merge([("a@h", [one]), ("b@h", [other]), ("c@h", [third])])
    [(_, members)] = scope.groups
    assert {(each.pid.creation, each.meta, *each.missing) for each in members} == {
        (1, b"gold", "b@h", "c@h"),
        (2, b"gold", "a@h", "c@h"),
        (1, b"silver", "a@h", "b@h"),
    }


UNDEF = Atom("undef")


@pytest.mark.parametrize("error", [ErlangError(UNDEF), RemoteException("undef", kind="error", reason=UNDEF)])
async def test_a_node_of_this_package_without_a_scope_has_none(error: Exception) -> None:
    async def ask(module: str, function: str, *args: Any) -> Any:
        if function == "groups":
            raise error
        assert (module, function) == ("pyglyn", "log_level")
        return Atom("info")

    assert await overview(ask) == []


async def test_another_error_of_the_node_is_told() -> None:
    async def ask(module: str, function: str, *args: Any) -> Any:
        raise ErlangError("system_limit")

    with pytest.raises(ErlangError):
        await overview(ask)

"""Rows of ``pyglyn:tree/0`` as JSON."""

from __future__ import annotations

from typing import Any

import pytest

from pyglyn.etf import Atom, Pid
from pyglyn.node import described
from pyglyn.node.reasons import UNDEFINED

A = Atom


def row(number: int, **about: Any) -> dict[Atom, Any]:
    fields = {"pid": Pid("n@h", number, 3, 1), "os_pid": 77, **about}
    return {Atom(key): value for key, value in fields.items()}


def test_what_is_not_known_is_null_and_a_pid_is_within_its_node() -> None:
    [shown] = described.processes([row(5, label=b"x\xff", status=A("running"), parent=UNDEFINED)])
    assert shown == {
        "pid": "<5.3>", "parent": None, "name": "x\ufffd", "label": "x\ufffd", "status": "running", "type": "process",
        "current_function": "", "restarts": None, "last_exit": "", "os_pid": 77, "memory": None, "cpu_us": None, "mailbox": None, "uptime_ms": None,
    }  # fmt: skip


def test_of_an_os_process_one_process_has_what_it_uses() -> None:
    main = row(1, memory=100, cpu_us=5, restarts=2, type=A("worker"))
    shown = described.processes([main, row(2, memory=100, cpu_us=5, parent=Pid("n@h", 1, 3, 1))])
    assert [(each["memory"], each["cpu_us"]) for each in shown] == [(100, 5), (None, None)]
    assert shown[1]["parent"] == "<1.3>"


def test_a_name_is_the_registered_one_else_the_id_else_what_runs() -> None:
    assert described.name_of(row(1, name=A("a"), id=A("b"), label=b"c")) == "a"
    assert described.name_of(row(1, name=UNDEFINED, id=A("b"), label=b"c")) == "b"
    assert described.name_of(row(1, label=b"c")) == "c"
    assert described.name_of(row(1)) == ""


@pytest.mark.parametrize(
    ("value", "shown"),
    [(1, 1), (1.5, 1.5), (2**63, 2**63), (2**64, None), (None, None), (b"1", None), (float("nan"), None)],
)
def test_a_number_is_one_that_json_has(value: Any, shown: Any) -> None:
    assert described.number(value) == shown

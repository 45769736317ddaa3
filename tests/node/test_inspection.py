"""What is said of the processes of an OS process, and which of them that OS process is there for."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from pyglyn.etf import Atom, Pid
from pyglyn.node.inspection import (
    OS_PID,
    PID,
    CpuUse,
    cpu_use,
    own_share_of_memory,
    owners,
    resident_memory,
    row,
    rows,
)
from pyglyn.node.reasons import UNDEFINED
from tests.node.runtimes import NODE, THEM, noted

PARENT, LABEL, RESTARTS = Atom("parent"), Atom("label"), Atom("restarts")
NO_OS_PROCESS = 2**22 + 1
"""Above the largest number that Linux gives (proc(5), pid_max)."""


async def test_a_row_says_who_a_process_is_and_how_it_does() -> None:
    here = noted()
    me, other = here.process("shop"), here.process()
    other.parent = THEM
    me.send(me.pid, 1)
    told = row(me)
    assert told.pop(Atom("uptime_ms")) >= 0
    assert told == {
        PID: me.pid,
        Atom("name"): Atom("shop"),
        LABEL: b"test",
        PARENT: UNDEFINED,
        OS_PID: os.getpid(),
        Atom("status"): Atom("running"),
        Atom("message_queue_len"): 1,
        Atom("current_function"): b"",
    }
    assert (row(other)[Atom("name")], row(other)[PARENT]) == (UNDEFINED, THEM)
    assert [each[PID] for each in rows(here.runtime)] == [me.pid, other.pid]


async def test_a_name_that_python_has_another_value_for_is_shown_as_the_atom_it_is() -> None:
    here = noted()
    assert row(here.process("true"))[Atom("name")] is True


# --- for whom an OS process is there --------------------------------------------------------------------

TOP, A, B, C = (Pid(NODE, number, number, 1) for number in (1, 2, 3, 4))


def said(pid: Any, os_pid: Any, **more: Any) -> dict[Any, Any]:
    return {PID: pid, OS_PID: os_pid} | {Atom(name): value for name, value in more.items()}


def test_an_os_process_belongs_to_the_child_of_a_supervisor_in_another_one() -> None:
    found = [
        said(TOP, 10, parent=UNDEFINED),
        said(A, 11, parent=TOP, restarts=0),
        said(B, 11, parent=A, restarts=3),
        said(C, 12, parent=A, restarts=0),
    ]
    assert owners(found) == owners(found[::-1]) == {10: TOP, 11: A, 12: C}


def test_beside_the_child_of_a_supervisor_whatever_else_is_there_counts_for_nothing() -> None:
    beside, child = said(A, 11, parent=UNDEFINED), said(B, 11, parent=TOP, restarts=0)
    top = said(TOP, 10, parent=UNDEFINED)
    assert owners([top, beside, child])[11] == owners([top, child, beside])[11] == B


def test_the_hub_belongs_to_the_system_process() -> None:
    others = [said(A, 10, label=b"rex"), said(C, 10, label=b"app")]
    system = said(B, 10, label=b"system")
    assert owners([*others, system]) == owners([system, *others]) == {10: B}
    assert owners(others) == {10: A}, "without one, the first"


def test_a_child_without_a_pid_or_an_os_process_owns_nothing() -> None:
    assert owners([said(UNDEFINED, 11, restarts=1), said(A, UNDEFINED, restarts=1)]) == {}


# --- what the system says of an OS process --------------------------------------------------------------


def test_memory_is_what_the_system_says() -> None:
    pid = os.getpid()
    status = Path(f"/proc/{pid}/status").read_text()
    (resident,) = (int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:"))
    told, shared = resident_memory(pid), own_share_of_memory(pid)
    assert isinstance(told, int)
    assert resident * 1024 / 2 < told < resident * 1024 * 2
    assert 0 < shared <= told * 2


def test_cpu_time_is_in_microseconds_and_grows_with_work() -> None:
    before = cpu_use(os.getpid())
    spent = os.times()
    assert abs(before.own_us / 1e6 - (spent.user + spent.system)) < 1
    assert abs(before.collected_us / 1e6 - (spent.children_user + spent.children_system)) < 1
    while os.times().user < spent.user + 0.05:
        sum(range(10_000))
    after = cpu_use(os.getpid())
    assert after.own_us >= before.own_us + 40_000
    assert after.switches >= before.switches > 0


def test_of_an_os_process_that_is_not_there_nothing_is_said() -> None:
    assert resident_memory(NO_OS_PROCESS) is UNDEFINED
    assert cpu_use(NO_OS_PROCESS) == CpuUse(0, 0, 0)
    assert own_share_of_memory(NO_OS_PROCESS) == 0


def test_where_shares_of_memory_are_not_told_shared_pages_count_in_full(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A kernel older than 4.14, or one that hides other OS processes' maps."""
    known, pid = open, os.getpid()

    def without_shares(path: Any, *args: Any, **options: Any) -> Any:
        if str(path).endswith("smaps_rollup"):
            raise PermissionError(path)
        return known(path, *args, **options)

    monkeypatch.setattr("builtins.open", without_shares)
    assert own_share_of_memory(pid) == pytest.approx(resident_memory(pid), rel=0.1)

"""What a worker answers when its hub asks what is in it."""

from __future__ import annotations

import os
from typing import Any

import pytest

from pyglyn.etf import Atom, Pid, Term
from pyglyn.node.reasons import UNDEFINED
from pyglyn.node.worker_questions import (
    CHILDREN,
    INFO_OF,
    PIDS,
    READINESS,
    ROWS,
    answer,
    answer_later,
    read,
    takes_a_while,
)
from tests.node.runtimes import CREATION, NODE, Noted, noted

LENGTH = Atom("message_queue_len")


async def asked(here: Noted, question: Term) -> Any:
    """The answer, as the hub reads it."""
    return read(answer(here.runtime, [lambda: [1], lambda: [2]], question))


async def test_the_rows_and_pids_of_all_processes_and_what_supervisors_say() -> None:
    here = noted(serial=3)
    me, other = here.process("shop"), here.process()
    assert await asked(here, PIDS) == [me.pid, other.pid]
    assert await asked(here, CHILDREN) == [[1], [2]]
    rows, told = await asked(here, ROWS)
    assert told == [[1], [2]]
    assert [(row[Atom("pid")], row[Atom("name")], row[Atom("os_pid")]) for row in rows] == [
        (me.pid, Atom("shop"), os.getpid()),
        (other.pid, UNDEFINED, os.getpid()),
    ]


async def test_items_of_a_process_here_and_of_nobody_else() -> None:
    here = noted(serial=3)
    me = here.process()
    me.send(me.pid, 1)
    assert await asked(here, (INFO_OF, me.pid, [LENGTH])) == [(LENGTH, 1)]
    nobody = [
        Pid(NODE, 99, 3, CREATION),
        Pid(NODE, me.pid.id, 2, CREATION),
        Pid("o@h", me.pid.id, 3, CREATION),
    ]
    for pid in nobody:
        assert await asked(here, (INFO_OF, pid, [LENGTH])) is UNDEFINED


async def test_an_answer_may_be_deeper_than_any_limit_of_the_node() -> None:
    here = noted(serial=3)
    me = here.process()
    deep: Any = 1
    for _ in range(3000):
        deep = [deep]
    me.put(deep)
    [(item, messages)] = await asked(here, (INFO_OF, me.pid, [Atom("messages")]))
    assert item is Atom("messages")
    depth = 0
    inside = messages[0]
    while isinstance(inside, list):
        [inside], depth = inside, depth + 1
    assert depth == 3000


async def test_whether_it_is_ready_is_said_by_its_own_checks() -> None:
    here = noted(serial=3)
    here.runtime.readiness.waits_for("app", "it starts")
    assert takes_a_while(READINESS)
    assert not takes_a_while(PIDS)
    assert read(await answer_later(here.runtime)) == {b"app": b"it starts"}


@pytest.mark.parametrize("question", [Atom("nonsense"), (INFO_OF, 1, []), 7])
async def test_what_is_no_question_is_undefined(question: Term) -> None:
    assert await asked(noted(), question) is UNDEFINED

"""Which message is the answer somebody waits for."""

from __future__ import annotations

import pytest

from pyglyn.etf import Atom, ImproperList, Pid, Reference, Term
from pyglyn.node.pending import Pending

REF, OTHER = Reference("a@h", 1, (1, 0, 0)), Reference("a@h", 1, (2, 0, 0))
ALIAS = ImproperList((Atom("alias"),), REF)


@pytest.mark.parametrize("tag", [REF, ALIAS], ids=["reference", "alias"])
async def test_an_answer_goes_to_who_waits_for_its_reference(tag: Term) -> None:
    pending = Pending()
    future, other = pending.expect(REF), pending.expect(OTHER)
    assert pending.answer((tag, b"yes"))
    assert future.result() == (True, b"yes")
    assert not other.done()


@pytest.mark.parametrize(
    "message",
    [
        REF,
        (REF,),
        (REF, 1, 2),
        [REF, 1],
        (b"x", REF),
        (Atom("ok"), 1),
        (Pid("a@h", 1, 0, 1), 1),
        (ImproperList((Atom("alias"),), Atom("x")), 1),
        (Reference("a@h", 1, (3, 0, 0)), 1),
    ],
)
async def test_anything_else_is_a_message(message: Term) -> None:
    pending = Pending()
    future = pending.expect(REF)
    assert not pending.answer(message)
    assert not future.done()


async def test_the_first_answer_counts_and_a_late_one_is_a_message() -> None:
    pending = Pending()
    future = pending.expect(REF)
    assert pending.answer((REF, 1))
    assert not pending.answer((REF, 2))
    assert future.result() == (True, 1)
    pending.forget(REF)
    assert not pending.expects(REF)
    assert not pending.answer((REF, 3))
    pending.forget(REF)


async def test_the_end_of_the_answering_process_is_an_outcome_only_for_who_waits() -> None:
    pending = Pending()
    future = pending.expect(REF)
    assert not pending.fail(OTHER, Atom("boom"))
    assert pending.fail(REF, Atom("boom"))
    assert pending.fail(REF, Atom("again"))
    assert future.result() == (False, Atom("boom"))


async def test_with_the_waiting_process_everything_ends() -> None:
    pending = Pending()
    answered, waiting = pending.expect(REF), pending.expect(OTHER)
    pending.answer((REF, 1))
    assert len(pending) == 2
    pending.close(Atom("boom"))
    assert (answered.result(), waiting.result()) == ((True, 1), (False, Atom("boom")))
    assert len(pending) == 0

"""The requests of supervisor(3) that OTP has no counterpart of; the others are compared with OTP's."""

from __future__ import annotations

from pyglyn.etf import Atom
from pyglyn.supervision.declaration import worker
from pyglyn.supervision.effects import (
    AnswerRequest,
    ChildStarted,
)
from pyglyn.supervision.requests import receive_request
from pyglyn.supervision.spec import Supervisor
from pyglyn.supervision.words import Backoff
from tests.supervision.policies import job, pid, seen, started

A = Atom
BACKOFF = Backoff(initial=0.5, factor=2.0, maximum=3.0, reset_after=60.0)


def test_an_unknown_request_is_answered() -> None:
    policy = started(Supervisor().add(worker(job)))
    for request in (A("help"), (A("start_child"),), (A("a"), 1, 2), 7, [], (A("which_children"), 1)):
        [reply] = receive_request(policy, "caller", request, 0)
        assert reply == AnswerRequest("caller", (A("error"), (A("bad_request"), request)))


def test_python_may_give_a_child_specification() -> None:
    policy = started(Supervisor())
    spec = worker(job, name="new")
    assert seen(receive_request(policy, 1, (A("start_child"), spec), 0)) == [("start", "new")]
    effects = policy.child_started(ChildStarted(pid(9)), 0)
    assert effects[-1] == AnswerRequest(1, (A("ok"), pid(9)))
    [reply] = receive_request(policy, 2, (A("start_child"), spec), 0)
    assert reply == AnswerRequest(2, (A("error"), (A("already_started"), pid(9))))

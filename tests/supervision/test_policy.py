"""What the policy does beyond OTP: backoff, requests it does not know, factories after an ignored restart."""

from __future__ import annotations

from pyglyn.etf import Atom
from pyglyn.supervision.declaration import worker
from pyglyn.supervision.effects import (
    AnswerRequest,
    CancelTimer,
    ChildFailed,
    ChildIgnored,
    ChildStarted,
    EndSupervisor,
    Restarting,
    Started,
)
from pyglyn.supervision.requests import receive_request
from pyglyn.supervision.spec import Supervisor
from pyglyn.supervision.words import Backoff
from tests.supervision.policies import job, pid, policy_of, seen, started

A = Atom
BACKOFF = Backoff(initial=0.5, factor=2.0, maximum=3.0, reset_after=60.0)


def test_a_backoff_waits_longer_each_time_and_starts_anew_after_a_while() -> None:
    policy = started(Supervisor(intensity=100, period=1).add(worker(job, backoff=BACKOFF)))
    now = 0
    for number, pause in enumerate((0.5, 1.0, 2.0, 3.0, 3.0), 1):
        assert seen(policy.child_exited(pid(number), A("boom"), now)) == [("timer", pause)]
        assert seen(policy.timer_expired(number, now)) == [("start", "job")]
        policy.child_started(ChildStarted(pid(number + 1)), now)
    now += 60
    assert seen(policy.child_exited(pid(6), A("boom"), now)) == [("timer", 0.5)]


def test_a_failed_start_waits_too_and_counts() -> None:
    policy = started(Supervisor(intensity=2, period=5).add(worker(job, backoff=BACKOFF)))
    policy.child_exited(pid(1), A("boom"), 0)
    policy.timer_expired(1, 0)
    assert seen(policy.child_started(ChildFailed(A("nope")), 0)) == [("timer", 1.0)]
    policy.timer_expired(2, 1)
    assert seen(policy.child_started(ChildFailed(A("nope")), 1)) == [("timer", 2.0)]
    assert seen(policy.timer_expired(3, 3)) == [EndSupervisor(A("shutdown"))]


def test_siblings_stop_at_once_and_start_after_the_pause() -> None:
    supervisor = Supervisor("rest_for_one").add(worker(job, id="a"))
    supervisor.add(worker(job, id="b", backoff=BACKOFF)).add(worker(job, id="c"))
    policy = started(supervisor)
    effects = policy.child_exited(pid(2), A("boom"), 0)
    assert seen(effects) == [("stop", 3, "shutdown"), ("timer", 5.0)]
    assert seen(policy.child_exited(pid(3), A("shutdown"), 0)) == [CancelTimer(1), ("timer", 0.5)]
    [reply] = receive_request(policy, "caller", A("which_children"), 0)
    assert isinstance(reply, AnswerRequest)
    assert [row[:2] for row in reply.term] == [  # type: ignore[union-attr]
        (A("c"), A("undefined")),
        (A("b"), A("restarting")),
        (A("a"), pid(1)),
    ]
    assert seen(policy.timer_expired(2, 0)) == [("start", "b")]
    assert seen(policy.child_started(ChildStarted(pid(4)), 0)) == [("start", "c")]
    policy.child_started(ChildStarted(pid(5)), 0)
    assert [child.pid for child in policy.children.values()] == [pid(1), pid(4), pid(5)]


def test_a_child_terminated_during_its_pause_stays_down() -> None:
    policy = started(Supervisor().add(worker(job, backoff=BACKOFF)))
    policy.child_exited(pid(1), A("boom"), 0)
    assert receive_request(policy, 1, (A("terminate_child"), A("job")), 0) == [AnswerRequest(1, A("ok"))]
    assert policy.timer_expired(1, 0) == []
    [child] = policy.children.values()
    assert child.pid is None


def test_a_supervisor_that_stops_during_a_pause_cancels_it() -> None:
    policy = started(Supervisor().add(worker(job, backoff=BACKOFF)))
    policy.child_exited(pid(1), A("boom"), 0)
    assert seen(policy.stop(A("shutdown"), 0)) == [CancelTimer(1), EndSupervisor(A("shutdown"))]
    assert policy.timer_expired(1, 0) == []
    assert receive_request(policy, 1, A("which_children"), 0) == []


def test_a_dynamic_child_has_its_backoff() -> None:
    supervisor = Supervisor("simple_one_for_one").add(worker(job, backoff=BACKOFF))
    policy = policy_of(supervisor)
    assert policy.start(0) == [Started()]
    receive_request(policy, 1, (A("start_child"), [7]), 0)
    policy.child_started(ChildStarted(pid(1)), 0)
    assert seen(policy.child_exited(pid(1), A("boom"), 0)) == [("timer", 0.5)]
    assert list(policy.dynamics) == [Restarting(pid(1))]
    assert seen(policy.timer_expired(1, 0)) == [("start", "job")]
    policy.child_started(ChildStarted(pid(2)), 0)
    [child] = policy.dynamics.values()
    assert (child.pid, child.args, child.restarts) == (pid(2), (7,), 1)


def test_a_dynamic_child_that_ignores_its_restart_is_forgotten() -> None:
    policy = policy_of(Supervisor("simple_one_for_one").add(worker(job)))
    policy.start(0)
    receive_request(policy, 1, (A("start_child"), []), 0)
    policy.child_started(ChildStarted(pid(1)), 0)
    policy.child_exited(pid(1), A("boom"), 0)
    policy.child_started(ChildIgnored(), 0)
    assert policy.dynamics == {}
    assert seen(policy.stop(A("shutdown"), 0)) == [EndSupervisor(A("shutdown"))]


def test_ends_of_strangers_and_late_timers_do_nothing() -> None:
    policy = started(Supervisor().add(worker(job)))
    assert policy.child_exited(pid(77), A("boom"), 0) == []
    assert policy.timer_expired(12, 0) == []
    assert policy.child_started(ChildStarted(pid(5)), 0) == []

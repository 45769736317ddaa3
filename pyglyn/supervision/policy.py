"""The supervisor's rules: what happened in, what to do out. Layer: supervision, pure.

Source: supervisor.erl (OTP 25.2, 28), function by function; the tests run the same scenarios in a real one.

OTP's supervisor does one thing at a time: while a child starts or stops, requests and the ends of other
children wait in its mailbox. So the policy has a mailbox of its own. Each input is handled by a generator
that reads like the Erlang function it comes from; where the Erlang code blocks, it yields, and goes on when
the awaited answer comes. A failed restart puts ``try_again_restart`` at the end of the mailbox, so that
requests get their turn.

Every method takes ``now``, seconds of a monotonic clock as an integer (OTP counts restarts in whole
seconds), and returns the effects to carry out, in order.

Where this is deliberately not OTP: an unknown request is answered with ``{error, {bad_request, R}}`` and
does not crash the supervisor; a dynamic child whose restart is answered with ``ignore`` is forgotten (OTP
keeps an entry without a pid and then crashes when it stops); ``count_children`` of a factory does not
miscount after a child was terminated between two restart attempts; backoff between restarts, and children
that are started anew without that counting (`Recycle`), are ours alone. Where releases differ, it is as in
28: a start that fails with ``{already_started, Pid}`` is answered so.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from itertools import takewhile
from typing import Any, Final, TypeAlias, TypeVar

from pyglyn.etf import Atom, Pid, Term
from pyglyn.etf.terms import exact_key
from pyglyn.node.reasons import KILLED, RECYCLED, SHUTDOWN, UNDEFINED, is_clean
from pyglyn.supervision.effects import (
    CancelTimer,
    Child,
    ChildFailed,
    ChildIgnored,
    ChildStarted,
    Effect,
    EndSupervisor,
    Outcome,
    Report,
    ReportContext,
    Restarting,
    SetTimer,
    StartChild,
    Started,
    StopChild,
)
from pyglyn.supervision.spec import ChildSpec, ExportStart
from pyglyn.supervision.words import AutoShutdown, Restart, ShutdownWord, Strategy

MAX_INTENSITY_REACHED: Final = Atom("reached_max_restart_intensity")


T = TypeVar("T")
Steps: TypeAlias = Generator[None, Any, T]
"""A handler under way: it yields nothing where it waits, and is sent what it waited for."""


class Policy:
    """One supervisor's rules and state.

    Call `start`, carry out the effects, and from then on tell it what happens; after an `EndSupervisor`
    effect nothing has any effect.

    Args:
        strategy, intensity, period, auto_shutdown: the supervisor's flags; the period is in seconds.
        children: in start order; for ``simple_one_for_one`` the one template.
        is_alive: tells whether a pid belongs to a running process of this node (asked for pids that are not
            children any more).
        described: gives the specification of what Erlang names, whose options are those Erlang left open.
    """

    def __init__(
        self,
        *,
        strategy: Strategy,
        intensity: int,
        period: int,
        auto_shutdown: AutoShutdown,
        children: Sequence[ChildSpec],
        is_alive: Callable[[Pid], bool] = lambda pid: False,
        described: Callable[[ExportStart], ChildSpec | None] = lambda start: None,
    ) -> None:
        self.strategy = strategy
        self.auto_shutdown = auto_shutdown
        self.is_alive = is_alive
        self.described = described
        self.children: dict[object, Child] = {exact_key(spec.id): Child(spec) for spec in children}
        """By id, in start order, which never changes: new ones come last."""
        self.dynamics: dict[Pid | Restarting, Child] = {}
        """The children of a ``simple_one_for_one`` supervisor."""
        self._by_pid: dict[Pid, Child] = {}
        self.intensity = intensity
        self.period = period
        self._restarts: list[int] = []
        self._now = 0
        self._effects: list[Effect] = []
        self._mailbox: deque[Steps[None]] = deque()
        self._running: Steps[None] | None = None
        self._stopping: set[Pid] = set()
        self._dead: dict[Pid, Term] = {}
        self._timers = 0
        self._kill_timer: int | None = None
        self._retries: dict[int, object] = {}
        self.ended = False

    # --- inputs ----------------------------------------------------------------------------------------

    def start(self, now: int) -> list[Effect]:
        """Start the children of the declaration; ends in `Started`, or in `EndSupervisor` when one fails."""
        return self._deliver(self._init(), now)

    def child_started(self, outcome: Outcome, now: int) -> list[Effect]:
        """The outcome of the last `StartChild`."""
        return self._resume(outcome, now)

    def child_exited(self, pid: Pid, reason: Term, now: int) -> list[Effect]:
        """A child ended, by itself or as asked."""
        if pid in self._stopping:
            self._stopping.discard(pid)
            return self._resume((pid, reason), now)
        self._dead[pid] = reason
        return self._deliver(self._handle_exit(pid), now)

    def timer_expired(self, timer: int, now: int) -> list[Effect]:
        """A timer is over; one that was cancelled may still come."""
        if timer == self._kill_timer:
            self._kill_timer = None
            return self._resume(None, now)
        if timer in self._retries:
            return self._deliver(self._try_again(self._retries.pop(timer)), now)
        return []

    def receive_handler(self, handler: Steps[None], now: int) -> list[Effect]:
        """Run a handler in its turn; see `pyglyn.supervision.requests.receive_request`."""
        return self._deliver(handler, now)

    def stop(self, reason: Term, now: int) -> list[Effect]:
        """Stop in its turn, as when the parent's exit signal comes; children first, the last one first."""
        return self._deliver(self.terminate(reason), now)

    # --- the mailbox -----------------------------------------------------------------------------------

    def _deliver(self, handler: Steps[None], now: int) -> list[Effect]:
        self._now = now
        if not self.ended:
            self._mailbox.append(handler)
            self._work()
        return self._take_effects()

    def _resume(self, value: object, now: int) -> list[Effect]:
        self._now = now
        if self._running is not None:
            self._advance(self._running, value)
            self._work()
        return self._take_effects()

    def _work(self) -> None:
        """Handle the mailbox until something has to be waited for."""
        while self._running is None and self._mailbox and not self.ended:
            self._running = self._mailbox.popleft()
            self._advance(self._running, None)

    def _advance(self, handler: Steps[None], value: object) -> None:
        try:
            handler.send(value)
        except StopIteration:
            self._running = None

    def _take_effects(self) -> list[Effect]:
        effects, self._effects = self._effects, []
        return effects

    def emit(self, effect: Effect) -> None:
        """Add an effect to those of the current step."""
        self._effects.append(effect)

    # --- starting --------------------------------------------------------------------------------------

    @property
    def is_simple(self) -> bool:
        """Whether this is a factory of dynamic children."""
        return self.strategy is Strategy.SIMPLE_ONE_FOR_ONE

    def _init(self) -> Steps[None]:
        if not self.is_simple:
            failed = yield from self._start_children(list(self.children.values()))
            if failed is not None:
                child, reason = failed
                yield from self._terminate_children(list(self.children.values()))
                error = (Atom("failed_to_start_child"), child.spec.id, reason)
                self._exit((SHUTDOWN, error))
                return
        self.emit(Started())

    def start_child(self, child: Child, *, again: bool = False) -> Steps[Outcome]:
        """Start one child and wait for the outcome. Does not touch the child."""
        self.emit(StartChild(child, again))
        outcome: Outcome = yield
        if isinstance(outcome, ChildStarted):
            self.emit(Report(ReportContext.PROGRESS, UNDEFINED, child.spec, outcome.pid))
        return outcome

    def set_started(self, child: Child, outcome: Outcome) -> None:
        """Note a start that did not fail."""
        self.set_pid(child, outcome.pid if isinstance(outcome, ChildStarted) else None)
        child.restarts += child.started_at is not None
        child.started_at = self._now

    def set_pid(self, child: Child, pid: Pid | Restarting | None) -> None:
        """Note a child's pid, and find it by that from now on."""
        if isinstance(child.pid, Pid):
            self._by_pid.pop(child.pid, None)
        child.pid = pid
        if isinstance(pid, Pid):
            self._by_pid[pid] = child

    def _start_children(self, children: Iterable[Child]) -> Steps[tuple[Child, Term] | None]:
        """Start these, in order; stops at one that fails, and returns it with the reason."""
        for child in children:
            outcome = yield from self.start_child(child, again=child.started_at is not None)
            if isinstance(outcome, ChildFailed):
                self._report(ReportContext.START_ERROR, outcome.reason, child)
                return child, outcome.reason
            if isinstance(outcome, ChildIgnored) and child.spec.restart is Restart.TEMPORARY:
                del self.children[exact_key(child.spec.id)]
            else:
                self.set_started(child, outcome)
        return None

    # --- stopping --------------------------------------------------------------------------------------

    def terminate(self, reason: Term) -> Steps[None]:
        """Stop all children and end with a reason."""
        if self.is_simple:
            yield from self._terminate_dynamic_children()
        else:
            yield from self._terminate_children(list(self.children.values()))
        self._exit(reason)

    def _exit(self, reason: Term) -> None:
        self.ended = True
        self._mailbox.clear()
        for timer in self._retries:
            self.emit(CancelTimer(timer))
        self._retries.clear()
        self.emit(EndSupervisor(reason))

    def _terminate_children(self, children: Sequence[Child]) -> Steps[None]:
        """Stop these in reverse start order, one after the other; temporary ones are forgotten."""
        for child in reversed(children):
            yield from self.stop_child(child)
            self.set_pid(child, None)
            if child.spec.restart is Restart.TEMPORARY:
                del self.children[exact_key(child.spec.id)]

    def stop_child(self, child: Child) -> Steps[None]:
        """Stop one child if it runs, and report when it did not end as asked. Leaves its pid as it is."""
        if isinstance(child.pid, Pid):
            reasons = yield from self._stop_all([child.pid], child.spec)
            for reason in reasons.values():
                if not _ended_as_asked(reason, child.spec):
                    self._report(ReportContext.SHUTDOWN_ERROR, reason, child)

    def _terminate_dynamic_children(self) -> Steps[None]:
        """Stop all dynamic children together, with one common time limit."""
        [template] = self.children.values()
        pids = [pid for pid in self.dynamics if isinstance(pid, Pid)]
        reasons = yield from self._stop_all(pids, template.spec)
        self.dynamics.clear()
        self._by_pid.clear()
        by_reason: dict[object, tuple[Term, list[Pid]]] = {}
        for pid, reason in reasons.items():
            if not _ended_as_asked(reason, template.spec):
                by_reason.setdefault(exact_key(reason), (reason, []))[1].append(pid)
        for reason, ended in by_reason.values():
            self.emit(Report(ReportContext.SHUTDOWN_ERROR, reason, template.spec, ended))

    def _stop_all(self, pids: Iterable[Pid], spec: ChildSpec) -> Steps[dict[Pid, Term]]:
        """Stop these processes together; returns why each one ended.

        One whose end waits in the mailbox is not asked again: its end is taken out of there, as OTP's
        ``unlink_flush`` does.
        """
        brutal = spec.shutdown is ShutdownWord.BRUTAL_KILL
        reasons: dict[Pid, Term] = {}
        for pid in pids:
            if pid in self._dead:
                reasons[pid] = self._dead.pop(pid)
            else:
                self._stopping.add(pid)
                self.emit(StopChild(pid, spec, "kill" if brutal else "shutdown"))
        if self._stopping and not isinstance(spec.shutdown, ShutdownWord):
            self._kill_timer = self._set_timer(spec.shutdown)
        while self._stopping:
            ended = yield
            if ended is not None:
                reasons[ended[0]] = ended[1]
                continue
            for pid in self._stopping:
                self.emit(StopChild(pid, spec, "kill"))
        if self._kill_timer is not None:
            self.emit(CancelTimer(self._kill_timer))
            self._kill_timer = None
        return reasons

    def _set_timer(self, seconds: float) -> int:
        self._timers += 1
        self.emit(SetTimer(self._timers, seconds))
        return self._timers

    # --- children that ended ---------------------------------------------------------------------------

    def is_running(self, child: Child) -> bool:
        """Whether a child's process lives, as ``is_process_alive`` would say."""
        return isinstance(child.pid, Pid) and child.pid not in self._dead

    def _handle_exit(self, pid: Pid) -> Steps[None]:
        if pid not in self._dead:
            return  # stopped meanwhile: its end was taken out of the mailbox
        reason = self._dead.pop(pid)
        child = self._by_pid.get(pid)
        if child is None:
            return  # not a child, or one that failed to start
        restart = child.spec.restart
        clean = is_clean(reason)
        if child.spec.recycle is not None and reason == RECYCLED:
            yield from self._restart(child, counts=False)
            return
        if restart is Restart.PERMANENT or not clean:
            self._report(ReportContext.CHILD_TERMINATED, reason, child)
        if restart is Restart.PERMANENT or (restart is Restart.TRANSIENT and not clean):
            yield from self._restart_later_or_now(child)
        else:
            self.forget_child(child)
            if self._is_time_for_auto_shutdown(child):
                yield from self.terminate(SHUTDOWN)

    def forget_child(self, child: Child) -> None:
        """The child does not run any more: a temporary or dynamic one goes, of others the spec stays."""
        if self.is_simple:
            if child.pid is not None:
                self.dynamics.pop(child.pid, None)
            self.set_pid(child, None)
            return
        self.set_pid(child, None)
        if child.spec.restart is Restart.TEMPORARY:
            del self.children[exact_key(child.spec.id)]

    def _is_time_for_auto_shutdown(self, ended: Child) -> bool:
        if self.auto_shutdown is AutoShutdown.NEVER or not ended.spec.significant:
            return False
        if self.auto_shutdown is AutoShutdown.ANY_SIGNIFICANT:
            return True
        return not any(child.spec.significant and child.pid is not None for child in self.children.values())

    # --- restarting ------------------------------------------------------------------------------------

    def _restart(self, child: Child, *, counts: bool = True) -> Steps[None]:
        """Restart by the strategy, unless that is one restart too many."""
        if counts and not self._add_restart():
            self._report(ReportContext.SHUTDOWN, MAX_INTENSITY_REACHED, child)
            self.forget_child(child)
            yield from self.terminate(SHUTDOWN)
            return
        if self.strategy is Strategy.SIMPLE_ONE_FOR_ONE:
            again = yield from self._restart_dynamic(child)
        elif self.strategy is Strategy.ONE_FOR_ONE:
            again = yield from self._restart_one(child)
        else:
            again = yield from self._restart_several(child, self._affected(child))
        if again is not None:
            self._try_again_later(again)

    def _affected(self, child: Child) -> list[Child]:
        """The children that stop and start with this one, in start order."""
        children = list(self.children.values())
        return children[children.index(child) :] if self.strategy is Strategy.REST_FOR_ONE else children

    def _add_restart(self) -> bool:
        """Count a restart; False when there were more than ``intensity`` within ``period``.

        One that is exactly ``period`` seconds old still counts.
        """
        recent = takewhile(lambda moment: moment >= self._now - self.period, self._restarts)
        self._restarts = [self._now, *recent]
        return len(self._restarts) <= self.intensity

    def _restart_one(self, child: Child) -> Steps[object | None]:
        outcome = yield from self.start_child(child, again=True)
        if isinstance(outcome, ChildFailed):
            self._report(ReportContext.START_ERROR, outcome.reason, child)
            self.set_pid(child, _restarting(child.pid))
            return exact_key(child.spec.id)
        self.set_started(child, outcome)
        return None

    def _restart_dynamic(self, child: Child) -> Steps[object | None]:
        outcome = yield from self.start_child(child, again=True)
        if child.pid is not None:
            self.dynamics.pop(child.pid, None)
        if isinstance(outcome, ChildFailed):
            marker = _restarting(child.pid)
            self._report(ReportContext.START_ERROR, outcome.reason, child)
            self.set_pid(child, marker)
            self.dynamics[marker] = child
            return marker
        self.set_started(child, outcome)
        if isinstance(child.pid, Pid):
            self.dynamics[child.pid] = child
        return None

    def _restart_several(self, child: Child, affected: list[Child]) -> Steps[object | None]:
        """Stop these in reverse order, start them in order; also those that were not running."""
        marker = _restarting(child.pid)
        self.set_pid(child, None)
        yield from self._terminate_children(affected)
        failed = yield from self._start_children(
            [each for each in affected if exact_key(each.spec.id) in self.children]
        )
        if failed is None:
            return None
        self.set_pid(failed[0], marker if failed[0] is child else Restarting(None))
        return exact_key(failed[0].spec.id)

    def _try_again(self, key: object) -> Steps[None]:
        """Try a failed restart again, unless somebody terminated or restarted the child meanwhile."""
        child = self.dynamics.get(key) if isinstance(key, Restarting) else self.children.get(key)
        if child is not None and isinstance(child.pid, Restarting):
            yield from self._restart(child)

    def _try_again_later(self, key: object) -> None:
        """Put the next attempt at the end of the mailbox; with a backoff, when its pause is over."""
        child = self.dynamics.get(key) if isinstance(key, Restarting) else self.children.get(key)
        if child is not None and child.spec.backoff is not None:
            self._retries[self._set_timer(self._next_pause(child))] = key
        else:
            self._mailbox.append(self._try_again(key))

    def _restart_later_or_now(self, child: Child) -> Steps[None]:
        """Restart a child that just ended; with a backoff, siblings that depend on it stop at once."""
        if child.spec.backoff is None:
            yield from self._restart(child)
            return
        marker = _restarting(child.pid)
        if self.is_simple:
            self.forget_child(child)
            self.dynamics[marker] = child
        self.set_pid(child, None)
        if self.strategy in (Strategy.ONE_FOR_ALL, Strategy.REST_FOR_ONE):
            yield from self._terminate_children(self._affected(child))
        self.set_pid(child, marker)
        key = marker if self.is_simple else exact_key(child.spec.id)
        self._retries[self._set_timer(self._next_pause(child))] = key

    def _next_pause(self, child: Child) -> float:
        assert child.spec.backoff is not None
        if child.started_at is not None and self._now - child.started_at >= child.spec.backoff.reset_after:
            child.row = 0
        child.row += 1
        return child.spec.backoff.delay(child.row - 1)

    def _report(self, context: ReportContext, reason: Term, child: Child) -> None:
        self.emit(Report(context, reason, child.spec, child.pid_term))


def _restarting(pid: Pid | Restarting | None) -> Restarting:
    return pid if isinstance(pid, Restarting) else Restarting(pid)


def _ended_as_asked(reason: Term, spec: ChildSpec) -> bool:
    """Whether a stopped child's reason needs no report.

    A permanent child has to end with exactly what it was asked to; others may end cleanly in any way.
    """
    asked = KILLED if spec.shutdown is ShutdownWord.BRUTAL_KILL else SHUTDOWN
    return reason is asked or (spec.restart is not Restart.PERMANENT and is_clean(reason))

"""The running supervisor: a process that carries out what the policy decides. Layer: supervision.

It is a `GenServer` in an OS process of its own (or in its parent's, with ``isolation="task"``) that answers
the requests of supervisor(3). Whatever happens to its children arrives in its mailbox, in the order it
happened: exit signals, what children say at their start, ends of OS processes, timers. A child has ended when
its exit signal is here *and* its OS process is collected *and* the hub has withdrawn its names and told its
links; so a restart never meets what is left of its predecessor.
"""

from __future__ import annotations

import contextlib
import hmac
import time
import weakref
from collections.abc import Callable
from typing import Any

from pyglyn import counters
from pyglyn.errors import PyglynError
from pyglyn.etf import Atom, Pid, Reference, Term
from pyglyn.node.calls import Caller
from pyglyn.node.exits import atom_of, reason_text
from pyglyn.node.gen_server import GenServer, NoReply, Stop, run_server
from pyglyn.node.inspection import Row
from pyglyn.node.process import PRIVATE
from pyglyn.node.reasons import KILL, KILLED, SHUTDOWN, UNDEFINED, is_clean
from pyglyn.node.rpc import rpc
from pyglyn.node.signals import ExitSignal
from pyglyn.patience import Patience
from pyglyn.supervision.effects import (
    AnswerRequest,
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
from pyglyn.supervision.launcher import Launcher, start_failure
from pyglyn.supervision.os.deaths import ExitStatus
from pyglyn.supervision.place import Place
from pyglyn.supervision.policy import Policy
from pyglyn.supervision.requests import receive_request
from pyglyn.supervision.running import (
    LINGER_S,
    AllTold,
    OsEnded,
    ProgramReady,
    Running,
    StartFailed,
    StartTimeout,
    TimerExpired,
    logger,
)
from pyglyn.supervision.spec import Supervisor
from pyglyn.supervision.wording import reason_word, shown
from pyglyn.supervision.words import ChildType, ShutdownWord

ROOT = "pyglyn_sup"
"""The name of the hub's own supervisor, above all others of the node."""
ALIVE_TIMEOUT_S = 10.0
"""How long the node may take to say whether a process lives that is not a child."""
FORCED = Atom("$forced")


class SupervisorServer(GenServer):
    """Runs one `Supervisor` declaration.

    Attributes:
        forced: how many children below had to be killed because they did not stop in time.
    """

    marks_signals = True

    async def init(self, declaration: Supervisor, place: Place) -> None:
        self.me.trap_exit = True
        self.place = place
        self.forced = 0
        self.policy = Policy(
            strategy=declaration.strategy,
            intensity=declaration.intensity,
            period=declaration.period,
            auto_shutdown=declaration.auto_shutdown,
            children=declaration.children,
            described=place.exported.described,
            is_alive=self._is_alive,
        )
        self._runs: dict[object, Running] = {}
        self._by_pid: dict[Pid, Running] = {}
        self.launcher = Launcher(
            self.me,
            place,
            declaration.start_method or place.default_method,
            self.post,
            self._by_pid,
            lambda me, below: run_server(me, SupervisorServer, (below, place)),
        )
        self._starting: Running | None = None
        self._timers: dict[int, Patience] = {}
        self._handover: weakref.WeakKeyDictionary[Child, Term] = weakref.WeakKeyDictionary()
        self._stop_reason: Term = None
        self._alive_elsewhere: Pid | None = None
        place.supervisors[self.me.pid] = self
        self._carry_out(self.policy.start(self._now()))

    @staticmethod
    def _now() -> int:
        return int(time.monotonic())

    def post(self, event: Any) -> None:
        """Put something that happened in this OS process into the mailbox."""
        self.me.put(event)

    # --- what arrives -----------------------------------------------------------------------------

    async def handle_call(self, request: Term, caller: Caller) -> Any:
        match request:
            case (Atom("terminate_child" | "get_childspec"), Pid() as pid) if self.policy.is_simple:
                await self._look_elsewhere(pid)
        self._carry_out(receive_request(self.policy, caller, request, self._now()))
        return self._outcome()

    def _is_alive(self, pid: Pid) -> bool:
        runtime = self.me.runtime
        return pid.id in runtime.processes if runtime.is_here(pid) else pid == self._alive_elsewhere

    async def _look_elsewhere(self, pid: Pid) -> None:
        """Ask the node whether a process of another OS process of it lives: the policy will want to know."""
        self._alive_elsewhere = None
        if pid.node != self.me.node or self.me.runtime.is_here(pid) or pid in self.policy.dynamics:
            return
        with contextlib.suppress(PyglynError):
            if await rpc(self.me, self.me.node, "erlang", "is_process_alive", [pid], ALIVE_TIMEOUT_S) is True:
                self._alive_elsewhere = pid

    async def handle_info(self, message: Any) -> Any:
        match message:
            case ExitSignal((_, Pid() as pid, reason)):
                self._exit_signal(pid, reason)
            case (Atom("$pyglyn"), bytes() as secret, told):
                if hmac.compare_digest(secret, self.me.runtime.secret):
                    self._told(told)
            case _:
                handler = _EVENTS.get(type(message))
                if handler is not None:
                    handler(self, message)
        return self._outcome()

    def _told(self, message: Term) -> None:
        """Take what one of this node's own processes says; nobody else knows the secret that came with it."""
        match message:
            case (Atom("ack"), Pid() as pid, answer):
                self._acknowledged(pid, answer)
            case (Atom("$checkpoint"), Pid() as pid, value):
                run = self._by_pid.get(pid)
                if run is not None and run.spec.handover:
                    self._handover[run.child] = value
            case (Atom("$child"), Reference() as ref, Pid() as pid):
                self._announced(ref, pid)
            case (Atom("$forced"), bytes() as title):
                self._note_forced(title.decode(errors="replace"))

    async def handle_cast(self, request: Term) -> Any:
        """Casts have no meaning for a supervisor and are dropped."""

    async def terminate(self, reason: Term) -> None:
        self.place.supervisors.pop(self.me.pid, None)
        for run in list(self._runs.values()):
            run.close()
            if run.task is not None:
                run.task.cancel()
        for timer in self._timers.values():
            timer.cancel()

    def _outcome(self) -> Any:
        return NoReply if self._stop_reason is None else Stop(self._stop_reason)

    def _exit_signal(self, pid: Pid, reason: Term) -> None:
        run = self._by_pid.get(pid)
        if run is not None:
            run.reason, run.has_reason = reason, True
            if run.os_process is not None and not run.os_ended:
                run.allow(LINGER_S, lambda: run.kill(reason))
            self._check_gone(run)
        elif pid == self.me.parent:
            self._stop(reason)

    def _stop(self, reason: Term) -> None:
        """The parent says so. A start under way is given up: nobody waits for its end."""
        effects = self.policy.stop(reason, self._now())
        run = self._starting
        if run is not None and run.spec.type is ChildType.SUPERVISOR and run.pid is not None:
            self.me.exit(run.pid, SHUTDOWN)  # it gives up its own starts in turn
        elif run is not None:
            self._give_up(run, SHUTDOWN)
        self._carry_out(effects)

    # --- what the policy wants ---------------------------------------------------------------------

    def _carry_out(self, effects: list[Effect]) -> None:
        for effect in effects:
            _EFFECTS[type(effect)](self, effect)

    def _set_timer(self, effect: SetTimer) -> None:
        def expire() -> None:
            self._timers.pop(effect.timer, None)
            self.post(TimerExpired(effect.timer))

        self._timers[effect.timer] = Patience(effect.seconds, expire)

    def _cancel_timer(self, effect: CancelTimer) -> None:
        timer = self._timers.pop(effect.timer, None)
        if timer is not None:
            timer.cancel()

    def _timer_expired(self, event: TimerExpired) -> None:
        self._carry_out(self.policy.timer_expired(event.timer, self._now()))

    def _reply(self, effect: AnswerRequest) -> None:
        assert isinstance(effect.caller, Caller)
        self.reply(effect.caller, effect.term)

    def _started(self, effect: Started) -> None:
        self.me.ready()

    def _exit(self, effect: EndSupervisor) -> None:
        self._stop_reason = effect.reason

    def _report(self, effect: Report) -> None:
        """Log what no line about a child's end says already."""
        match effect.context:
            case ReportContext.START_ERROR:
                text = reason_text(effect.reason)
                log = logger.info if is_clean(effect.reason) else logger.error
                log("%s: %s did not start: %s", self._own_name(), shown(effect.spec), text)
            case ReportContext.SHUTDOWN:
                logger.error(
                    "%s gives up: more than %d restarts in %g s, the last of %s",
                    self._own_name(),
                    self.policy.intensity,
                    self.policy.period,
                    shown(effect.spec),
                )
            case _:
                pass

    def _who(self, run: Running) -> dict[str, str]:
        """The labels that tell a child from others; all children of a factory are one."""
        return {"supervisor": self._own_name(), "child": shown(run.child.spec)}

    def _own_name(self) -> str:
        return self.me.name or self.me.label

    # --- starting ----------------------------------------------------------------------------------

    def _start_child(self, effect: StartChild) -> None:
        child = effect.child
        run = Running(child, child.spec, child.spec.start, self.me.make_ref())
        self._starting = self._runs[run.ref] = run
        try:
            run.spec, run.start = self.place.exported.resolve(child.spec, child.args)
            self.launcher.start(run, self._handover.get(child))
        except Exception as error:
            self.post(StartFailed(run, start_failure(error)))
            return
        if run.spec.start_timeout is not None:
            run.allow(run.spec.start_timeout, lambda: self.post(StartTimeout(run)))

    # --- how a start goes on -----------------------------------------------------------------------

    def _announced(self, ref: Term, pid: Pid) -> None:
        run = self._runs.get(ref)
        if run is not None:
            run.pid = pid
            self._by_pid[pid] = run

    def _acknowledged(self, pid: Pid, answer: Term) -> None:
        run = self._by_pid.get(pid)
        if run is None or run is not self._starting or run.override is not None or run.has_reason:
            return
        match answer:
            case (Atom("ok"), Pid()):
                self._settle(run, ChildStarted(pid))
            case (Atom("ok"), Pid(), info):
                self._settle(run, ChildStarted(pid, info, True))
            case Atom("ignore"):
                run.ignored = True

    def _settle(self, run: Running, outcome: Outcome) -> None:
        """The start is over, well or not."""
        if isinstance(outcome, ChildStarted):
            run.started = True
            if run.child.started_at is not None:
                counters.add("pyglyn_child_restarts_total", **self._who(run))
            os_pid = f", os_pid {run.os_process.os_pid}" if run.os_process is not None else ""
            logger.info("%s started (%s%s)", shown(run.spec), run.pid, os_pid)
        if self._starting is run:
            self._starting = None
            self._carry_out(self.policy.child_started(outcome, self._now()))

    def _start_failed(self, event: StartFailed) -> None:
        self._forget(event.running)
        self._settle(event.running, ChildFailed(event.reason))

    def _start_timed_out(self, event: StartTimeout) -> None:
        if event.running is self._starting and not event.running.is_program:
            self._give_up(event.running, Atom("timeout"))

    def _give_up(self, run: Running, reason: Term) -> None:
        """Kill a child that is starting."""
        if run.task is not None:
            run.task.cancel()
            run.task.add_done_callback(lambda task: self.post(StartFailed(run, reason)))
        elif run.os_process is not None:
            run.kill(reason)
        elif run.pid is not None:
            run.override = reason
            self.me.exit(run.pid, KILL)

    # --- stopping ----------------------------------------------------------------------------------

    def _stop_child(self, effect: StopChild) -> None:
        run = self._by_pid.get(effect.pid)
        if run is not None:
            run.stopped = True
        if run is None:
            self._carry_out(self.policy.child_exited(effect.pid, Atom("noproc"), self._now()))
        elif effect.reason == "shutdown":
            self.me.exit(effect.pid, SHUTDOWN)
        else:
            if effect.spec.shutdown is not ShutdownWord.BRUTAL_KILL:
                self._note_forced(shown(run.spec))
            if run.os_process is None:
                self.me.exit(effect.pid, KILL)
            else:
                run.kill(KILLED)

    def _note_forced(self, title: str) -> None:
        """Count a child that did not stop in time; the supervisor on top has the sum for the whole node."""
        self.forced += 1
        if ROOT not in self.me.names:
            logger.warning("%s did not stop in time and is killed", title)
            self.me.send(ROOT, (PRIVATE, self.me.runtime.secret, (FORCED, title.encode())))

    # --- ends --------------------------------------------------------------------------------------

    def _os_ended(self, event: OsEnded) -> None:
        run = event.running
        if run.is_program:
            run.os_ended = True
            self._check_gone(run)
            return
        reason = run.override if run.override is not None else event.status.reason()
        told = self.place.report_exit(event.status.os_pid, reason)
        told.add_done_callback(lambda _: self.post(AllTold(run)))

    def _all_told(self, event: AllTold) -> None:
        event.running.os_ended = True
        self._check_gone(event.running)

    def _check_gone(self, run: Running) -> None:
        """Go on once nothing of a child is left."""
        if not run.is_gone or run.ref not in self._runs:
            return
        reason = run.final_reason
        self._forget(run)
        self._log_end(run, reason)
        run.child.last_exit = reason
        if run.started:
            counters.add("pyglyn_child_exits_total", **self._who(run), reason=reason_word(reason))
            self.child_ended(run, reason)
        if run is self._starting:
            self._settle(run, ChildIgnored() if run.ignored else ChildFailed(reason))
        elif run.pid is not None:
            self._carry_out(self.policy.child_exited(run.pid, reason, self._now()))

    def format_state(self) -> Term:
        """What ``sys:get_state`` shows: its strategy, and its children as tools see them."""
        return {Atom("strategy"): Atom(self.policy.strategy.value), Atom("children"): self.children()}

    def child_ended(self, run: Running, reason: Term) -> None:
        """A child that had started has ended; for subclasses."""

    def _forget(self, run: Running) -> None:
        run.close()
        self._runs.pop(run.ref, None)
        if run.pid is not None:
            self._by_pid.pop(run.pid, None)

    def _log_end(self, run: Running, reason: Term) -> None:
        os_pid = f", os_pid {run.os_process.os_pid}" if run.os_process is not None else ""
        log = logger.info if is_clean(reason) or run.ignored else logger.error
        log("%s ended (%s%s): %s", shown(run.spec), run.pid, os_pid, reason_text(reason))

    def abandon(self) -> None:
        """Kill the OS processes there are: this supervisor was killed, and lives in another's OS process."""

        def report(status: ExitStatus) -> None:
            self.place.report_exit(status.os_pid, KILLED)

        for run in list(self._runs.values()):
            run.close()
            if run.os_process is not None and run.os_process.status is None:
                run.os_process.kill()
                if not run.is_program:
                    run.os_process.on_exit(report)

    # --- looking at it -----------------------------------------------------------------------------

    def children(self) -> list[Row]:
        """A row for each child, for `pyglyn.node.inspection`."""
        static = [] if self.policy.is_simple else list(self.policy.children.values())
        return [self._row(child) for child in [*static, *self.policy.dynamics.values()]]

    def _row(self, child: Child) -> Row:
        pid = child.pid if isinstance(child.pid, Pid) else None
        run = self._by_pid.get(pid) if pid is not None else None
        if run is None and self._starting is not None and self._starting.child is child:
            run, pid = self._starting, self._starting.pid
        if isinstance(child.pid, Restarting):
            status = "restarting"
        elif run is None:
            status = "stopped"
        else:
            status = "running" if run.started else "starting"
        name: Term = child.spec.id if isinstance(child.spec.id, Atom) else atom_of(shown(child.spec))
        row: Row = {
            Atom("pid"): pid or UNDEFINED,
            Atom("id"): name,
            Atom("parent"): self.me.pid,
            Atom("status"): Atom(status),
            Atom("restarts"): child.restarts,
            Atom("type"): Atom("program" if run is not None and run.is_program else child.spec.type.value),
        }
        if run is not None and run.os_process is not None:
            row[Atom("os_pid")] = run.os_process.os_pid
            row[Atom("uptime_ms")] = int((time.monotonic() - run.os_process.started_at) * 1000)
        if child.last_exit is not UNDEFINED:
            row[Atom("last_exit")] = reason_text(child.last_exit).encode(errors="replace")
        return row


_EFFECTS: dict[type, Callable[[SupervisorServer, Any], None]] = {
    StartChild: SupervisorServer._start_child,
    StopChild: SupervisorServer._stop_child,
    SetTimer: SupervisorServer._set_timer,
    CancelTimer: SupervisorServer._cancel_timer,
    AnswerRequest: SupervisorServer._reply,
    Report: SupervisorServer._report,
    Started: SupervisorServer._started,
    EndSupervisor: SupervisorServer._exit,
}
_EVENTS: dict[type, Callable[[SupervisorServer, Any], None]] = {
    OsEnded: SupervisorServer._os_ended,
    AllTold: SupervisorServer._all_told,
    StartFailed: SupervisorServer._start_failed,
    StartTimeout: SupervisorServer._start_timed_out,
    ProgramReady: lambda server, event: server.launcher.stand_in(event),
    TimerExpired: SupervisorServer._timer_expired,
}

"""OS processes as children: start them, wait for them, stop them, leave nothing behind.

Layer: supervision/os.

Independent of nodes and supervisors. An `OsProcesses` belongs to one event loop and looks after the
children of this OS process. It is told of ends by the kernel (a pidfd in the event loop, or SIGCHLD),
collects every child at once, and kills what a dead child leaves behind: its process group, and those of its
descendants that the kernel made our children because their own parent died. `pyglyn.supervision.os.child`
has the other half, `pyglyn.supervision.os.start` the making.

When *this* OS process is killed, its children are killed by the kernel, or, if they have children themselves,
clean up below them and then end. So one kill -9 anywhere leaves nothing. What can escape: a program's or
worker's own descendants when everything above them is killed in the same moment.

**Fork and descriptors.** Only an OS process with one thread can fork: a lock that another thread held in that
moment stays locked in the child for ever. The child has all that its parent had open, and two of those things
do harm. A *socket or pipe* that a sibling has as well does not close when its owner dies, so that nobody
notices the death; the parent's *event loop* is shared in the kernel, so that what one of the two registers or
reads disturbs the other. So before anything else runs in the child, the loop is forgotten, not closed, since
closing would write into what is shared; and each pipe and socket that was not handed down is replaced by
``/dev/null``, by number and not by object, for there are more of them than objects that anybody knows.
Replaced and not closed: objects that the parent left still have those numbers, and would write into whatever
got them next, or close it (``descriptors``). For that reason too the child never collects them (``child``).

Who dies with whom is the kernel's to do. The child asks for the signal at its parent's death, and then looks
whether that parent is still there, which may have died before. A number of an OS process is used again: so
ends are waited for by a pidfd, and signals go only to children that were not collected yet, whose number
nobody else can have.

Not supported: Windows. On macOS there are no orphans to adopt and no parent death signals; the lifeline of
`ChildSide` is what tells there.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
import pickle
import secrets
import signal
import sys
import weakref
from collections.abc import Callable, Mapping
from typing import Final

from pyglyn import _standard, forks
from pyglyn.errors import ForkUnsafe
from pyglyn.supervision.os import kernel, main_module, orphans, start
from pyglyn.supervision.os.child import CHILD_VARIABLE, TREE_VARIABLE, ChildSide, Main
from pyglyn.supervision.os.deaths import ExitStatus, OomKills, exit_status_of
from pyglyn.supervision.os.process import OsProcess
from pyglyn.supervision.words import StartMethod

logger = logging.getLogger("pyglyn.supervision")

_SWEEPS_S = (0.02, 0.1, 0.5)
ADOPTED_S: Final = 1.0
"""How long an ended OS process may wait for who started it before it counts as adopted."""
_TRACKERS_S = 5.0
"""How long what `multiprocessing` started may clean up after a dead child."""


class OsProcesses:
    """The children of this OS process, in the running event loop.

    From when it is made until it is closed, this OS process adopts orphans below it. If it was itself made
    by an `OsProcesses`, its parent's death makes it kill everything below it and end.

    Args:
        owns_orphans: every adopted OS process in another session is a stray of a dead child. True for
        supervisors.
            False where the application may have others, as in the hub: strays are then told by
            `TREE_VARIABLE`, so that one that has a session and an environment of its own escapes.
        adopted_after: seconds after which an ended OS process that nobody has collected counts as adopted.
    """

    def __init__(self, *, owns_orphans: bool, adopted_after: float = ADOPTED_S) -> None:
        self._loop = asyncio.get_running_loop()
        self._owns_orphans = owns_orphans
        self._children: dict[int, OsProcess] = {}
        self._strays: dict[int, int | None] = {}
        self._no_strays = asyncio.Event()
        self._no_strays.set()
        self._oom = OomKills()
        self._session = os.getsid(0)
        self._timers: set[asyncio.TimerHandle] = set()
        self._adopted_after = adopted_after
        self._ended: dict[int, float] = {}
        self._sigchld = False
        _here.add(self)
        self.tree = os.environ.get(TREE_VARIABLE) or secrets.token_hex(8)
        self._own_token = os.environ.get(CHILD_VARIABLE)
        if owns_orphans or signal.getsignal(signal.SIGCHLD) is signal.SIG_DFL:
            self._watch_by_signal()
        _standard.fill()
        if not kernel.has_proc():
            logger.warning(
                "/proc is not there: memory limits do nothing, and what dead children leave behind stays"
            )
        orphans.watch_forks()
        kernel.set_subreaper(True)
        if kernel.parent_death_signal():
            signal.signal(kernel.PARENT_DIED, start.parent_died)
            kernel.set_parent_death_signal(kernel.PARENT_DIED)

    @property
    def running(self) -> list[OsProcess]:
        """The children that run."""
        return list(self._children.values())

    # --- starting --------------------------------------------------------------------------------------

    def start(
        self,
        main: Main,
        *,
        title: str,
        fds: Mapping[str, int] | None = None,
        method: StartMethod = StartMethod.FORK,
    ) -> OsProcess:
        """Start a child by fork or spawn. Arguments and errors are theirs."""
        begin = self.fork if method is StartMethod.FORK else self.spawn
        return begin(main, title=title, fds=fds)

    def fork(self, main: Main, *, title: str, fds: Mapping[str, int] | None = None) -> OsProcess:
        """Start a child as a copy of this OS process.

        Args:
            main: what it runs, see `Main`. It starts outside of any event loop and may make its own.
            title: what ``ps`` shows.
            fds: descriptors it gets, by name, under the same numbers; of others it keeps files, terminals.

        Raises:
            ForkUnsafe: this OS process has threads.
            OSError: no more OS processes or descriptors.
        """
        if kernel.thread_count() > 1:
            raise ForkUnsafe(f"{title}: this OS process has threads; start the child by spawn")
        lifeline, own_end = os.pipe()
        try:
            side = self._side(title, lifeline, fds)
            start.flush_streams()
            os_pid = start.fork(main, side)
        except BaseException:
            os.close(own_end)
            raise
        finally:
            os.close(lifeline)
        return self._started(os_pid, side, own_end)

    def spawn(self, main: Main, *, title: str, fds: Mapping[str, int] | None = None) -> OsProcess:
        """Start a child in a fresh interpreter.

        Args:
            main: what it runs; it is pickled, so it is a module-level function, or a `functools.partial` or
                an object of a module-level class.
            title, fds: as for `fork`.

        Raises:
            OSError: no more OS processes or descriptors.
            TypeError: ``main`` cannot be pickled, or this is a frozen program.
        """
        if getattr(sys, "frozen", False):
            raise TypeError(f"{title}: a frozen program has no interpreter of its own to spawn; let it fork")
        try:
            pickled = pickle.dumps(main)
            described = main_module.describe_main(pickled)
        except Exception as error:
            raise TypeError(
                f"{title} cannot be handed to a fresh interpreter: {error}. What a spawned child is made of "
                "has to be importable: functions and classes at the top of a module, no lambdas"
            ) from error
        lifeline, own_end = os.pipe()
        try:
            side = self._side(title, lifeline, fds)
            with start.payload(pickle.dumps((side, described, pickled))) as file:
                os_pid = start.spawn(file, [lifeline, *side.fds.values()])
        except BaseException:
            os.close(own_end)
            raise
        finally:
            os.close(lifeline)
        return self._started(os_pid, side, own_end)

    def _side(self, title: str, lifeline: int, fds: Mapping[str, int] | None) -> ChildSide:
        return ChildSide(
            parent_os_pid=os.getpid(),
            title=title,
            tree=self.tree,
            token=secrets.token_hex(8),
            lifeline=lifeline,
            fds=dict(fds or {}),
        )

    def _started(self, os_pid: int, side: ChildSide, lifeline: int) -> OsProcess:
        child = OsProcess(os_pid, side.title, side.token, lifeline)
        self._children[os_pid] = child
        child.pidfd = self._watch(os_pid)
        return child

    # --- ends ------------------------------------------------------------------------------------------

    def _watch(self, os_pid: int) -> int | None:
        """Have `_collect` called when an OS process ends; returns the pidfd that tells, if there is one."""
        try:
            pidfd = os.pidfd_open(os_pid)
        except (OSError, AttributeError):  # not Linux, or descriptors exhausted
            self._watch_by_signal()
            return None
        self._loop.add_reader(pidfd, self._collect, os_pid)
        return forks.keep_number(pidfd)

    def _watch_by_signal(self) -> None:
        if not self._sigchld:
            self._sigchld = True
            try:
                self._loop.add_signal_handler(signal.SIGCHLD, self._collect_all)
            except RuntimeError:  # uvloop keeps this one for itself, and has nothing in its place
                signal.signal(signal.SIGCHLD, self._on_sigchld)
            self._loop.call_soon(self._collect_all)  # it may have ended before

    def _on_sigchld(self, number: int, frame: object) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._collect_all)

    def _collect_all(self) -> None:
        """Collect whoever ended: children and strays that have no pidfd, and orphans."""
        for os_pid in [*self._children, *self._strays]:
            self._collect(os_pid)
        self._collect_zombies()

    def _collect_zombies(self) -> None:
        """Collect what ended here and has no parent but this OS process, which has adopted it.

        What somebody here has started is left to them: nothing says of a zombie who started it, so those in
        our own session are only collected when they are none of `started_here` and nobody has collected them
        for ``adopted_after`` seconds.
        """
        zombies = {each: stat for each, stat in self._unknown_children() if stat.state == "Z"}
        self._ended = {os_pid: at for os_pid, at in self._ended.items() if os_pid in zombies}
        started_here = orphans.started_here() if zombies else set()
        for os_pid, stat in zombies.items():
            if os_pid in started_here:
                continue
            if stat.session != self._session or self._is_left_alone(os_pid):
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(os_pid, os.WNOHANG)

    def _is_left_alone(self, os_pid: int) -> bool:
        """Whether an ended OS process has been here for a while; if not, look again when it has."""
        if os_pid in self._ended:
            return self._loop.time() - self._ended[os_pid] >= self._adopted_after
        self._ended[os_pid] = self._loop.time()
        self._later(self._adopted_after, self._collect_zombies)
        return False

    def _collect(self, os_pid: int) -> None:
        """Collect an OS process if it has ended, and kill what it leaves behind."""
        try:
            if os.waitid(os.P_PID, os_pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
                return
            self._kill_left_behind(os_pid)  # while its number cannot be anybody else's
            _, wait_status, usage = os.wait4(os_pid, 0)
            status = exit_status_of(os_pid, wait_status, usage.ru_maxrss, self._oom)
        except ChildProcessError:
            status = ExitStatus(os_pid=os_pid)
        child = self._children.pop(os_pid, None)
        pidfd = child.pidfd if child is not None else self._strays.pop(os_pid, None)
        if pidfd is not None:
            self._loop.remove_reader(pidfd)
        if child is not None:
            child.finish(status)
        elif pidfd is not None:
            forks.close_number(pidfd)
        if not self._strays:
            self._no_strays.set()
        self._sweep()
        for delay in _SWEEPS_S if child is not None else ():
            self._later(delay, self._sweep)
        if child is not None:
            self._later(_TRACKERS_S, functools.partial(self._sweep, trackers=True))

    def _kill_left_behind(self, os_pid: int) -> None:
        """Kill the process group of an OS process that has ended.

        What `multiprocessing` started to clean up after it (shared memory, say) gets the time to do so.
        """
        orphans = [each for each, stat in self._orphans() if stat.group == os_pid]
        if not any(map(kernel.is_resource_tracker, orphans)):
            start.kill_group(os_pid)
            return
        for each in orphans:
            if not kernel.is_resource_tracker(each):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(each, signal.SIGKILL)

    # --- strays ----------------------------------------------------------------------------------------

    def _later(self, delay: float, action: Callable[[], None]) -> None:
        """Look again: OS processes that die with a dead child's take a moment to be handed up to us."""

        def act() -> None:
            self._timers.discard(timer.pop())  # it refers to this function
            action()

        timer = [self._loop.call_later(delay, act)]
        self._timers.update(timer)

    def _sweep(self, *, trackers: bool = False) -> None:
        """Kill and collect the strays that dead children left us.

        Args:
            trackers: also those that clean up after a dead child; by now they have had their time.
        """
        self._collect_zombies()
        for os_pid, stat in self._orphans():
            if not self._is_stray(os_pid, stat) or (not trackers and kernel.is_resource_tracker(os_pid)):
                continue
            self._strays[os_pid] = None
            self._no_strays.clear()
            if stat.group == os_pid:
                start.kill_group(os_pid)
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(os_pid, signal.SIGKILL)
            self._strays[os_pid] = self._watch(os_pid)

    def _orphans(self) -> list[tuple[int, kernel.OsStat]]:
        """The children of this OS process that we did not start, or have not recognised yet.

        Those in our own session are the application's own, made with `subprocess` and the like.
        """
        return [(each, stat) for each, stat in self._unknown_children() if stat.session != self._session]

    def _unknown_children(self) -> list[tuple[int, kernel.OsStat]]:
        known = {os_pid for each in _here for os_pid in (*each._children, *each._strays)}
        looked = [(each, kernel.os_stat(each)) for each in kernel.os_children() if each not in known]
        return [(each, stat) for each, stat in looked if stat is not None]

    def _is_stray(self, os_pid: int, stat: kernel.OsStat) -> bool:
        """Whether an orphan comes from no child that lives, and not from this OS process itself.

        Orphans only get here when a child has just died.
        """
        if stat.state == "Z" or any(stat.session in each._children for each in _here):
            return False
        token = kernel.mark_of(os_pid)
        if token is None:
            environment = kernel.environment_of(os_pid)
            token = environment.get(CHILD_VARIABLE)
            if token is None or environment.get(TREE_VARIABLE) != self.tree:
                return self._owns_orphans
        running = {child.token for each in _here for child in each.running}
        return token != self._own_token and token not in running

    # --- the end ---------------------------------------------------------------------------------------

    async def close(self) -> None:
        """Kill all children that are left, and what they leave, and wait until all are collected."""
        for child in self.running:
            child.kill()
        for child in self.running:
            await child.wait()
        self._sweep(trackers=True)
        while self._strays:
            await self._no_strays.wait()
            self._sweep(trackers=True)
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()
        if self._sigchld:
            if signal.getsignal(signal.SIGCHLD) == self._on_sigchld:
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            else:
                self._loop.remove_signal_handler(signal.SIGCHLD)
            self._sigchld = False
        _here.discard(self)
        if not _here:
            kernel.set_subreaper(False)


_here: weakref.WeakSet[OsProcesses] = weakref.WeakSet()
"""Those of this OS process that are not closed; two nodes in one have two."""

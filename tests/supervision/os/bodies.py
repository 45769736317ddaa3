"""Bodies of the tests of OS processes; each runs in a fresh interpreter, see `tests.supervision.os.fresh`."""

# ruff: noqa: T201 - what they print is shown with the test

from __future__ import annotations

import asyncio
import ctypes
import functools
import json
import logging
import multiprocessing
import os
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

import pytest

from pyglyn.errors import ForkUnsafe
from pyglyn.etf import Atom, Term
from pyglyn.node.inspection import own_share_of_memory
from pyglyn.supervision.os import descriptors, kernel, orphans
from pyglyn.supervision.os.child import ChildSide
from pyglyn.supervision.os.deaths import OomKills
from pyglyn.supervision.os.process import OsProcess
from pyglyn.supervision.os.processes import OsProcesses
from pyglyn.supervision.words import StartMethod
from pyglyn.testing import count_file_descriptors, eventually
from tests.supervision.os.fresh import BACKGROUND, descendants, left_over, running

METHODS = (StartMethod.FORK, StartMethod.SPAWN)


def sleep_forever(side: ChildSide) -> NoReturn:
    while True:
        signal.pause()


def exit_with(status: object, side: ChildSide) -> object:
    return status


def raise_error(side: ChildSide) -> NoReturn:
    raise ValueError("on purpose")


def exit_by_text(side: ChildSide) -> NoReturn:
    sys.exit("a text, as sys.exit takes it")


def segfault(side: ChildSide) -> None:
    ctypes.string_at(0)


def kill_itself(side: ChildSide) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def ignore_sigterm(side: ChildSide) -> NoReturn:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.write(side.fds["out"], b"ready")
    sleep_forever(side)


def pipe() -> tuple[int, int]:
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    return reading, writing


async def read(fd: int, until: Callable[[bytes], bool] = bool) -> bytes:
    """Read from a pipe until there is enough."""
    data = b""

    def enough() -> bool:
        nonlocal data
        with suppress(BlockingIOError):
            data += os.read(fd, 65536)
        return until(data)

    await eventually(enough, timeout=10.0)
    return data


async def ends_tell_their_reason() -> None:
    os_processes = OsProcesses(owns_orphans=True)
    expected: dict[Callable[[ChildSide], object], Term] = {
        functools.partial(exit_with, None): Atom("normal"),
        functools.partial(exit_with, 0): Atom("normal"),
        functools.partial(exit_with, "result"): (Atom("exit_status"), 1),
        functools.partial(exit_with, 3): (Atom("exit_status"), 3),
        raise_error: (Atom("exit_status"), 1),
        exit_by_text: (Atom("exit_status"), 1),
        segfault: (Atom("signal"), 11),
        kill_itself: (Atom("signal"), 9),
    }
    for method in METHODS:
        for main, reason in expected.items():
            child = os_processes.start(main, title="child", method=method)
            status = await child.wait()
            assert status.reason() == reason, f"{main} by {method}: {status}"
            assert status.os_pid == child.os_pid
            assert status.max_resident > 1 << 20
    assert kernel.os_children() == []
    await os_processes.close()


def leads_nowhere(fd: int) -> bool:
    """Whether a descriptor is closed, or leads to ``/dev/null``."""
    with suppress(OSError):
        return os.path.samestat(os.fstat(fd), os.stat(os.devnull))
    return True


def report_itself(side: ChildSide) -> None:
    async def main() -> dict[str, object]:
        loop = asyncio.get_running_loop()
        handled = asyncio.Event()
        loop.add_signal_handler(signal.SIGUSR1, handled.set)
        os.kill(os.getpid(), signal.SIGUSR1)
        await asyncio.wait_for(handled.wait(), 180)
        await asyncio.sleep(0.001)
        return {"tasks": len(asyncio.all_tasks())}

    fds = sorted(int(name) for name in os.listdir("/proc/self/fd"))
    report = {
        "sid": os.getsid(0),
        "pgid": os.getpgrp(),
        "os_pid": os.getpid(),
        "fds": [fd for fd in fds if fd < 3 or not leads_nowhere(fd)],
        "expected_fds": sorted({0, 1, 2, side.lifeline, *side.fds.values()}),
        "sigterm": str(signal.getsignal(signal.SIGTERM)),
        "blocked": len(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
        "cmdline": Path("/proc/self/cmdline").read_text().split("\0")[0],
        "comm": Path("/proc/self/comm").read_text().strip(),
        "stdin": os.read(0, 10).decode(),
        **asyncio.run(main()),
    }
    os.write(side.fds["out"], json.dumps(report).encode() + b"\n")


async def children_begin_clean() -> None:
    """While the parent has sockets, readers, signal handlers and tasks, and keeps them working."""
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, lambda: None)
    loop.add_signal_handler(signal.SIGUSR1, lambda: None)
    one, other = socket.socketpair()
    one.setblocking(False)
    other.setblocking(False)
    ticking = asyncio.create_task(asyncio.sleep(3600))
    os_processes = OsProcesses(owns_orphans=True)
    for method in METHODS:
        out, writing = pipe()
        child = os_processes.start(
            report_itself, title="pyglyn test child", fds={"out": writing}, method=method
        )
        os.close(writing)
        report = json.loads(await read(out, lambda data: data.endswith(b"\n")))
        status = await child.wait()
        os.close(out)
        assert status.code == 0, f"{method}: {status} {report}"
        assert report["sid"] == report["pgid"] == report["os_pid"] == child.os_pid, report
        assert report["fds"] == report["expected_fds"], report
        assert report["sigterm"] == str(signal.SIG_DFL), report
        assert report["blocked"] == 0, report
        assert report["comm"] == "pyglyn test chi", report
        assert report["stdin"] == "", report
        assert report["tasks"] == 1, report
        await loop.sock_sendall(one, b"x")
        assert await loop.sock_recv(other, 1) == b"x", (
            f"{method}: the parent's loop does not hear its sockets"
        )
    assert not ticking.done()
    ticking.cancel()
    await os_processes.close()


def write_where_the_parent_did(number: int, side: ChildSide) -> None:
    """Open a file, then use what the parent left: log to its pipe and file, and forget its pipe."""
    assert number != side.lifeline
    with open(f"/proc/self/fd/{side.fds['out']}", "wb", buffering=0) as mine:
        os.write(number, b"into the pipe")
        logging.getLogger("bodies").warning("into the file")
        os.close(number)
        mine.write(b"mine")


def content(folder: str, name: str) -> str:
    return Path(folder, name).read_text()


async def descriptors_of_the_parent_do_not_become_others() -> None:
    """What the parent's objects still write to must not be what the child has opened since."""
    os_processes = OsProcesses(owns_orphans=True)
    with tempfile.TemporaryDirectory() as folder:
        handler = logging.FileHandler(f"{folder}/log")
        logging.getLogger("bodies").addHandler(handler)
        out = os.open(f"{folder}/out", os.O_CREAT | os.O_WRONLY)
        reading, writing = pipe()
        main = functools.partial(write_where_the_parent_did, writing)
        child = os_processes.fork(main, title="child", fds={"out": out})
        assert (await child.wait()).code == 0
        assert content(folder, "out") == "mine"
        assert content(folder, "log") == "into the file\n"
        with suppress(BlockingIOError):
            assert os.read(reading, 100) == b""
        for fd in (out, reading, writing):
            os.close(fd)
        logging.getLogger("bodies").removeHandler(handler)
        handler.close()
    await os_processes.close()


async def a_signal_to_a_new_child_is_not_the_parents() -> None:
    """The wakeup descriptor of the parent's loop is shared until the child has let go of it."""
    caught: list[int] = []
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, caught.append, 1)
    os_processes = OsProcesses(owns_orphans=True)
    for _ in range(50):
        child = os_processes.fork(sleep_forever, title="child")
        child.terminate()
        assert (await child.wait()).reason() == (Atom("signal"), 15)
    assert caught == []
    os.kill(os.getpid(), signal.SIGTERM)
    await eventually(lambda: caught == [1])
    await os_processes.close()


async def threads_forbid_fork_but_not_spawn() -> None:
    os_processes = OsProcesses(owns_orphans=True)
    release = threading.Event()
    thread = threading.Thread(target=release.wait)
    thread.start()
    try:
        os_processes.fork(sleep_forever, title="child")
    except ForkUnsafe:
        pass
    else:
        raise AssertionError("forked beside a thread")
    child = os_processes.spawn(functools.partial(exit_with, 5), title="child")
    assert (await child.wait()).code == 5
    release.set()
    thread.join()
    await eventually(lambda: kernel.thread_count() == 1)
    child = os_processes.fork(functools.partial(exit_with, 6), title="child")
    assert (await child.wait()).code == 6
    await os_processes.close()


async def a_frozen_program_does_not_start_itself_anew() -> None:
    """As those that freeze programs mark them; its executable is the program, not an interpreter."""
    os_processes = OsProcesses(owns_orphans=True)
    sys.frozen = True  # type: ignore[attr-defined]
    with pytest.raises(TypeError, match="frozen"):
        os_processes.spawn(functools.partial(exit_with, 0), title="child")
    assert (await os_processes.fork(functools.partial(exit_with, 0), title="child").wait()).code == 0
    await os_processes.close()


async def a_child_that_ignores_sigterm_is_killed() -> None:
    os_processes = OsProcesses(owns_orphans=True)
    out, writing = pipe()
    child = os_processes.fork(ignore_sigterm, title="child", fds={"out": writing})
    os.close(writing)
    await read(out)
    status = await child.stop(0.2)
    assert status.reason() == (Atom("signal"), 9)
    obedient = os_processes.fork(sleep_forever, title="child")
    assert (await obedient.stop(10.0)).reason() == (Atom("signal"), 15)
    os.close(out)
    await os_processes.close()


# --- strays --------------------------------------------------------------------------------------------

_DAEMON = (
    "import os,time\nif os.fork(): os._exit(0)\nos.setsid()\nif os.fork(): os._exit(0)\ntime.sleep(1000)"
)


def have_a_family(side: ChildSide) -> NoReturn:
    """Start grandchildren of every kind: of this group, of another, of another session, forked only, daemons."""
    kept = [
        subprocess.Popen(["sleep", "1000"]),
        subprocess.Popen(["sleep", "1000"], process_group=0),
        subprocess.Popen(["sleep", "1000"], start_new_session=True),
        subprocess.Popen(["sh", "-c", "sleep 1000 & sleep 1000 & wait"]),
    ]
    subprocess.Popen([sys.executable, "-c", _DAEMON]).wait()
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            sleep_forever(side)
        sleep_forever(side)
    os.write(side.fds["out"], b"ready")
    sleep_forever(side)
    del kept


FAMILY = 9
"""How many OS processes `have_a_family` has: 3 sleeps, a shell with 2, a daemon, 2 forks."""


async def a_dead_childs_family_dies() -> None:
    for owns_orphans in (True, False):
        os_processes = OsProcesses(owns_orphans=owns_orphans)
        bystander = os_processes.fork(sleep_forever, title="bystander")
        same_session = subprocess.Popen(["sleep", "1000"])  # noqa: ASYNC220
        for method in METHODS:
            out, writing = pipe()
            child = os_processes.start(have_a_family, title="child", fds={"out": writing}, method=method)
            os.close(writing)
            await read(out)
            os.close(out)
            others = {bystander.os_pid, same_session.pid, child.os_pid}
            await eventually(lambda: len(running(os.getpid()) - others) == FAMILY)  # noqa: B023
            family = descendants(os.getpid()) - others
            os.kill(child.os_pid, signal.SIGKILL)
            assert (await child.wait()).reason() == (Atom("signal"), 9)
            await eventually(lambda: not left_over(family))  # noqa: B023
        assert bystander.status is None
        assert same_session.poll() is None
        same_session.kill()
        same_session.wait()
        await os_processes.close()
        assert bystander.status is not None


async def the_hubs_own_os_processes_are_left_alone() -> None:
    """With ``owns_orphans`` false: the application's own OS processes in sessions of their own, and its daemons."""
    os_processes = OsProcesses(owns_orphans=False)
    own = subprocess.Popen(["sleep", "1000"], start_new_session=True)  # noqa: ASYNC220
    child = os_processes.fork(kill_itself, title="child")
    await child.wait()
    await asyncio.sleep(0.7)  # past the last look for strays
    assert own.poll() is None
    own.kill()
    assert own.wait() == -9
    await os_processes.close()


def supervise(side: ChildSide) -> None:
    """A supervisor of four: a family, a sleeper, a nested supervisor with a family, an obstinate one."""

    async def main() -> None:
        os_processes = OsProcesses(owns_orphans=True)
        ready, writing = pipe()
        os_processes.fork(have_a_family, title="family", fds={"out": writing})
        os_processes.fork(sleep_forever, title="sleeper")
        os_processes.fork(supervise_one, title="nested", fds={"out": writing})
        os_processes.fork(ignore_sigterm, title="obstinate", fds={"out": writing})
        await read(ready, lambda data: data.count(b"ready") == 3)
        os.write(side.fds["out"], b"ready")
        if "busy" in side.fds:
            while True:
                pass
        await asyncio.get_running_loop().create_future()

    asyncio.run(main())


def supervise_one(side: ChildSide) -> None:
    async def main() -> None:
        os_processes = OsProcesses(owns_orphans=True)
        ready, writing = pipe()
        os_processes.fork(have_a_family, title="family", fds={"out": writing})
        await read(ready)
        os.write(side.fds["out"], b"ready")
        await asyncio.get_running_loop().create_future()

    asyncio.run(main())


TREE = 4 + FAMILY + 1 + FAMILY
"""How many OS processes are below `supervise`."""


async def commands_of_ones_own_keep_their_exit_status() -> None:
    """Although they look like what a dead child has left: orphans in sessions of their own."""
    os_processes = OsProcesses(owns_orphans=True)
    commands = [subprocess.Popen(["sh", "-c", "exit 7"], start_new_session=True) for _ in range(5)]  # noqa: ASYNC220
    await eventually(lambda: [kernel.os_stat(each.pid).state for each in commands] == ["Z"] * 5)  # type: ignore[union-attr]
    child = os_processes.fork(functools.partial(exit_with, 1), title="child")
    assert (await child.wait()).code == 1
    await asyncio.sleep(0.2)  # sweeps for strays
    assert [each.wait() for each in commands] == [7] * 5
    await os_processes.close()


async def what_was_adopted_is_collected(owner: str) -> None:
    """Neither of a hub nor of a supervisor a zombie stays, whatever session it was in."""
    os_processes = OsProcesses(owns_orphans=owner == "supervisor", adopted_after=0.1)
    for command in BACKGROUND:
        for _ in range(5):
            assert await asyncio.to_thread(os.system, command) == 0
    await eventually(lambda: not kernel.os_children(), timeout=60.0)
    await os_processes.close()


async def what_was_started_here_keeps_its_exit_status(owner: str) -> None:
    """Whoever started it, and however late it asks."""
    os_processes = OsProcesses(owns_orphans=owner == "supervisor", adopted_after=0.0)
    forked = os.fork()
    if forked == 0:
        os._exit(7)
    context = multiprocessing.get_context("fork")
    process = context.Process(target=os._exit, args=(7,))
    process.start()
    command = subprocess.Popen(["sh", "-c", "exit 7"])  # noqa: ASYNC220
    mine = {forked, process.pid, command.pid}
    await eventually(lambda: {each for each in mine if kernel.os_stat(each).state == "Z"} == mine)  # type: ignore[union-attr, arg-type]
    for _ in range(3):  # each end makes it look at what there is
        assert (await os_processes.fork(functools.partial(exit_with, 0), title="child").wait()).code == 0
    assert os.waitstatus_to_exitcode(os.waitpid(forked, 0)[1]) == 7  # noqa: ASYNC222
    await asyncio.to_thread(process.join)
    assert (process.exitcode, await asyncio.to_thread(command.wait)) == (7, 7)
    await os_processes.close()


async def what_was_forked_and_has_ended_is_forgotten() -> None:
    """A supervisor forks for as long as it lives."""
    os_processes = OsProcesses(owns_orphans=True)
    for _ in range(20):
        assert (await os_processes.fork(functools.partial(exit_with, 0), title="child").wait()).code == 0
    assert len(orphans._forked) <= 1
    await os_processes.close()


async def a_handler_of_ones_own_is_left_alone() -> None:
    """An application that watches its children itself goes on to do so."""
    seen: list[int] = []
    signal.signal(signal.SIGCHLD, lambda number, frame: seen.append(number))
    os_processes = OsProcesses(owns_orphans=False)
    child = os_processes.fork(functools.partial(exit_with, 3), title="child")
    assert (await child.wait()).code == 3
    await eventually(lambda: bool(seen))
    await os_processes.close()


async def a_killed_supervisor_leaves_nothing() -> None:
    os_processes = OsProcesses(owns_orphans=False)
    for _ in range(3):
        out, writing = pipe()
        supervisor = os_processes.fork(supervise, title="supervisor", fds={"out": writing})
        os.close(writing)
        await read(out)
        os.close(out)
        await eventually(lambda s=supervisor: len(running(s.os_pid)) == TREE)
        tree = descendants(supervisor.os_pid)
        os.kill(supervisor.os_pid, signal.SIGKILL)
        await supervisor.wait()
        await eventually(lambda: not left_over(tree))  # noqa: B023
    assert kernel.os_children() == []
    await os_processes.close()


async def hub(busy: str) -> None:
    """A hub for the test to kill; prints its tree when it stands."""
    os_processes = OsProcesses(owns_orphans=False)
    out, writing = pipe()
    fds = {"out": writing, "busy": writing} if busy == "busy" else {"out": writing}
    os_processes.fork(supervise, title="supervisor", fds=fds)
    await read(out)
    await eventually(lambda: len(running(os.getpid())) == TREE + 1)
    asyncio.get_running_loop().add_signal_handler(
        signal.SIGINT, functools.partial(print, "interrupted", flush=True)
    )
    print("tree", *descendants(os.getpid()), flush=True)
    await asyncio.get_running_loop().create_future()


# --- limits --------------------------------------------------------------------------------------------


async def exhausted_descriptors_fail_a_start_cleanly() -> None:
    os_processes = OsProcesses(owns_orphans=True)
    before = count_file_descriptors()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
    taken: list[int] = []
    with suppress(OSError):
        while True:
            taken.append(os.dup(0))
    refused: list[tuple[StartMethod, int, int | None]] = []
    for method in METHODS:
        for free in range(4):
            for _ in range(free):
                os.close(taken.pop())
            try:
                child = os_processes.start(functools.partial(exit_with, 4), title="child", method=method)
            except OSError as error:
                refused.append((method, free, error.errno))
            else:
                assert (await child.wait()).code == 4
            taken += [os.dup(0) for _ in range(free)]
    for fd in taken:
        os.close(fd)
    assert [(free, number) for _, free, number in refused] == [(0, 24), (1, 24), (0, 24), (1, 24), (2, 24)]
    assert count_file_descriptors() == before
    child = os_processes.fork(functools.partial(exit_with, 4), title="child")
    assert (await child.wait()).code == 4
    await os_processes.close()


async def without_pidfds_signals_tell() -> None:
    def refuse(os_pid: int, flags: int = 0) -> NoReturn:
        raise OSError(24, "too many open files")

    os.pidfd_open = refuse  # type: ignore[assignment]
    os_processes = OsProcesses(owns_orphans=True)
    children = [os_processes.fork(functools.partial(exit_with, n), title="child") for n in range(10)]
    sleeper = os_processes.fork(sleep_forever, title="child")
    assert [(await child.wait()).code for child in children] == list(range(10))
    sleeper.kill()
    assert (await sleeper.wait()).signal == 9
    await os_processes.close()


async def many_children_leave_no_trace(count: str = "300") -> None:
    os_processes = OsProcesses(owns_orphans=True)

    async def one() -> None:
        child = os_processes.fork(functools.partial(exit_with, 0), title="child")
        assert (await child.wait()).code == 0

    for _ in range(20):
        await one()
    await asyncio.sleep(0.6)  # the last looks for strays are timers
    before = (count_file_descriptors(), len(asyncio.all_tasks()))
    memory = kernel.resident_memory(os.getpid())
    for _ in range(int(count)):
        await one()
    await asyncio.sleep(0.6)
    assert (count_file_descriptors(), len(asyncio.all_tasks())) == before
    after = kernel.resident_memory(os.getpid())
    assert memory is not None
    assert after is not None
    assert after - memory < 4 << 20, f"{after - memory} bytes more"
    assert kernel.os_children() == []
    await os_processes.close()


def look_at_standard_streams(side: ChildSide) -> int:
    return 0 if [os.readlink(f"/proc/self/fd/{number}") for number in range(3)] == [os.devnull] * 3 else 5


async def children_of_one_without_standard_streams_have_none_of_its_files() -> None:
    """Started with 0, 1 and 2 closed, so that what is opened first gets these numbers, and not held open."""
    files = [tempfile.TemporaryFile() for _ in range(3)]  # noqa: SIM115
    os_processes = OsProcesses(owns_orphans=True)
    for method in METHODS:
        child = os_processes.start(look_at_standard_streams, title="child", method=method)
        if (await child.wait()).code != 0:
            sys.exit(4)
    await os_processes.close()
    del files


async def without_memfd_and_proc_children_run() -> None:
    """As in a sandbox that refuses the one and mounts the other nowhere."""

    def refuse(*args: object) -> int:
        raise PermissionError(1, "refused")

    os.memfd_create = refuse
    missing = "/proc/not/there"
    descriptors._DESCRIPTORS = missing  # type: ignore[misc]
    os_processes = OsProcesses(owns_orphans=True)
    for method in METHODS:
        child = os_processes.start(functools.partial(exit_with, 3), title="child", method=method)
        assert (await child.wait()).code == 3
    await os_processes.close()


def take_memory(side: ChildSide) -> None:
    os.read(side.fds["go"], 1)
    held = bytearray(b"x" * (64 << 20))
    os.write(side.fds["out"], b"taken")
    signal.pause()
    del held


async def memory_is_read() -> None:
    os_processes = OsProcesses(owns_orphans=True)
    out, writing = pipe()
    go, going = os.pipe()
    child = os_processes.fork(take_memory, title="child", fds={"out": writing, "go": go})
    before = child.resident_memory()
    os.write(going, b"x")
    await read(out)
    after = child.resident_memory()
    share = own_share_of_memory(child.os_pid)
    assert before is not None
    assert after is not None
    assert after - before > 60 << 20, f"{before} {after}"
    assert share is not None
    assert 60 << 20 < share <= after, f"{share} {after}"
    own = kernel.own_memory(child.os_pid)
    assert own is not None
    assert 60 << 20 < own <= share, f"{own} {share}"
    assert child.has_more_memory_than(own - (8 << 20))
    assert not child.has_more_memory_than(own + (8 << 20))
    child.kill()
    status = await child.wait()
    assert status.max_resident >= after - (1 << 20)
    assert not status.out_of_memory
    assert child.resident_memory() is None
    assert not child.has_more_memory_than(0)
    await os_processes.close()


def take_all_memory(side: ChildSide) -> None:
    os.read(side.fds["go"], 1)
    held = []
    while True:
        held.append(bytearray(b"x" * (1 << 20)))


async def out_of_memory_kills_are_told_apart(folder: str) -> None:
    """``folder`` is a control group with a memory limit far above a child's needs, and far below the machine's.

    What is killed in another one is not taken for ours.
    """
    elsewhere = OomKills()
    Path(folder, "cgroup.procs").write_text(str(os.getpid()))  # noqa: ASYNC240
    os_processes = OsProcesses(owns_orphans=True)
    go, going = os.pipe()
    child = os_processes.fork(take_all_memory, title="child", fds={"go": go})
    os.write(going, b"x")
    status = await child.wait()
    assert status.reason() == (Atom("signal"), 9, Atom("out_of_memory")), status
    other = os_processes.fork(kill_itself, title="child")
    assert (await other.wait()).reason() == (Atom("signal"), 9)
    await os_processes.close()
    assert elsewhere.counter == "/proc/vmstat" or not elsewhere.claim()


async def a_lost_status_is_unknown() -> None:
    """Somebody else collected the child: it has ended, how is not known."""
    os_processes = OsProcesses(owns_orphans=True)
    child: OsProcess = os_processes.fork(functools.partial(exit_with, 3), title="child")
    os.waitpid(child.os_pid, 0)  # noqa: ASYNC222
    assert (await child.wait()).reason() == (Atom("exit_status"), Atom("unknown"))
    await os_processes.close()

"""What the trees of the tests are made of; a module of its own, so that fresh interpreters can import it."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import subprocess
import sys
import time
from multiprocessing.shared_memory import SharedMemory
from typing import Any

from pyglyn import Atom, Exit, GenServer, Ignore, Pid, Process
from pyglyn.groups import pg
from pyglyn.supervision import ChildSpec, Supervisor, export_child, program, worker
from pyglyn.supervision.os import kernel
from pyglyn.testing import eventually
from tests.supervision.os.fresh import BACKGROUND

OS_PID = Atom("os_pid")


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


class Probe(GenServer):
    """Does to its own OS process what it is asked to."""

    async def init(self, *fate: str) -> None:
        self.count = 0
        self.grabbed: list[Any] = []
        if "ignore" in fate:
            raise Ignore
        if "raise" in fate:
            raise ValueError("not today")
        if "hang" in fate:
            await asyncio.Event().wait()
        if "die" in fate:
            os.kill(os.getpid(), 9)

    async def handle_call(self, request: Any, caller: Any) -> Any:
        match request:
            case Atom("os_pid"):
                return os.getpid()
            case Atom("count"):
                self.count += 1
                return self.count
            case Atom("fork_grandchildren"):
                return fork_grandchildren()
            case Atom("descriptors"):
                return len(os.listdir("/proc/self/fd"))
            case Atom("share_memory"):
                self.grabbed.append(SharedMemory(create=True, size=4096))
                return self.grabbed[-1].name
            case (Atom("ask"), Pid() as pid, question):
                return await self.me.call(pid, question)

    async def handle_cast(self, request: Any) -> Any:
        match request:
            case Atom("crash"):
                raise ValueError("bad quantity")
            case Atom("crash_without_text"):
                raise Unprintable
            case Atom("stray_cancel"):
                task = asyncio.create_task(asyncio.sleep(600))
                task.cancel()
                await task
            case Atom("interrupt"):
                raise KeyboardInterrupt
            case (Atom("exit"), status):
                os._exit(status)
            case (Atom("sys_exit"), status):
                sys.exit(status)
            case (Atom("stop"), reason):
                raise Exit(reason)
            case Atom("sigkill"):
                os.kill(os.getpid(), 9)
            case Atom("segfault"):
                ctypes.string_at(0)
            case Atom("grow"):
                while True:
                    self.grabbed.append(b"x" * 2**20)
                    await asyncio.sleep(0)
            case Atom("busy"):
                while True:
                    pass
            case Atom("exhaust_descriptors"):
                while True:
                    self.grabbed.append(os.open("/dev/null", os.O_RDONLY))


def fork_grandchildren() -> list[int]:
    """One in a session of its own, one in ours, and one that holds everything open that we have."""
    script = "import os,time\nos.fork()\ntime.sleep(600)"
    own_session = subprocess.Popen([sys.executable, "-c", script], start_new_session=True)
    same = subprocess.Popen([sys.executable, "-c", script])
    copy = os.fork()
    if copy == 0:
        time.sleep(600)
        os._exit(0)
    return [own_session.pid, same.pid, copy]


async def echo(me: Process) -> None:
    """Answers ``{ping, From}`` with ``{pong, OsPid}``."""
    while True:
        match await me.receive():
            case (Atom("ping"), Pid() as caller):
                me.send(caller, (Atom("pong"), os.getpid()))


async def returns(me: Process) -> None:
    """Ends at once."""


async def stubborn(me: Process) -> None:
    """Does not stop when asked to."""
    me.trap_exit = True
    while True:
        await me.receive()


async def member(me: Process, group: bytes) -> None:
    """Joins a group twice, and waits."""
    await pg.join(me, group, [me.pid, me.pid], scope="shop")
    await me.receive()


async def hoards_descriptors(me: Process, free: int) -> None:
    """Takes all descriptors its OS process can have but some, when asked."""
    _, caller = await me.receive()
    hoard = []
    try:
        while True:
            hoard.append(os.open("/dev/null", os.O_RDONLY))
    except OSError:
        for fd in hoard[:free]:
            os.close(fd)
    me.send(caller, Atom("hoarded"))
    await me.receive()


async def deaf(me: Process) -> None:
    """Does not even let an exit signal end it."""
    while True:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(600)


def blocking_sender(me: Any, to: Pid) -> None:
    """Sends much, then something to nowhere, then how much waited at most."""
    most = 0
    for number in range(5000):
        me.send(to, number)
        most = max(most, len(me._outbox))
    try:
        me.send(None, Atom("nowhere"))
    except TypeError as error:
        me.send(to, (Atom("refused"), str(error).encode(), most))
    me.receive()


def blocking_member(me: Any) -> None:
    """Joins a group through what is async only."""
    me.run(pg.join, b"servers", me.pid, scope="shop")
    me.receive()


async def slow_start(me: Process, seconds: float) -> None:
    await asyncio.sleep(seconds)
    await me.register("is ready")
    me.ready()
    await me.receive()


async def counts(me: Process) -> None:
    """Checks that numbered messages come in order, and acknowledges every hundredth with all before it."""
    last = wrong = 0
    while True:
        match await me.receive():
            case (Atom("n"), caller, number):
                wrong += number != last + 1
                last = number
                if last % 100 == 0:
                    me.send(caller, (Atom("acked"), me.pid, last, wrong))
                    wrong = 0
            case (Atom("sync"), caller):
                me.send(caller, (Atom("synced"), me.pid, last, wrong))


async def remembers(me: Process) -> None:
    """Counts messages across restarts; its state is its checkpoint."""
    count = me.handover or 0
    while True:
        match await me.receive():
            case (Atom("add"), Pid() as caller):
                count += 1
                me.checkpoint(count)
                me.send(caller, (Atom("count"), count))
            case Atom("die"):
                os.kill(os.getpid(), 9)


def blocking_echo(me: Any, path: str) -> None:
    """A blocking child; writes to a file what ended it."""
    try:
        while True:
            match me.receive():
                case (Atom("ping"), Pid() as caller):
                    me.send(caller, (Atom("pong"), os.getpid()))
                case Atom("sleep"):
                    time.sleep(600)
                case Atom("compute"):
                    while True:
                        pass
                case (Atom("call"), Pid() as caller, to, request):
                    me.send(caller, (Atom("answer"), me.call(to, request)))
                case Atom("raise"):
                    raise KeyError("missing")
    except BaseException as error:
        with open(path, "a") as file:
            file.write(f"{error!r}\n")
        raise


@export_child("shop")
def probe(name: Atom) -> ChildSpec:
    return worker(Probe, name=name.name)


@export_child("shop")
def short_lived(name: Atom) -> ChildSpec:
    return worker(Probe, name=name.name, restart="temporary", shutdown="brutal_kill")


export_child("shop", "echo")(echo)
export_child("shop", "blocking_echo")(blocking_echo)


def probes(*names: str, **options: Any) -> Supervisor:
    tree = Supervisor("one_for_one", name="top", intensity=20)
    for name in names:
        tree.add(worker(Probe, name=name, **options))
    return tree


# --- the same as apps for ``pyglyn node --app tests.supervision.service:…`` ----------------------------


def three(node: Any) -> Supervisor:
    """Three workers, one below a second supervisor."""
    below = Supervisor("one_for_all", name="below").add(worker(Probe, name="c"))
    from pyglyn.supervision import supervisor

    return (
        Supervisor("one_for_one", name="top")
        .add(worker(Probe, name="a"))
        .add(worker(Probe, name="b"))
        .add(supervisor(below))
    )


def eight_counting(node: Any) -> Supervisor:
    tree = Supervisor(name="top", intensity=1_000_000)
    for number in range(8):
        tree.add(worker(counts, name=f"w{number}"))
    return tree


async def leaves_orphans(node: Any) -> None:
    """An app without a tree, whose commands leave something in the background."""
    for command in BACKGROUND:
        await asyncio.to_thread(os.system, command)
    await eventually(lambda: not kernel.os_children(), timeout=60.0)
    print("all collected", flush=True)  # noqa: T201


TABLE_BYTES = 180 << 20


class WithTable(Supervisor):
    """Something large is loaded before the child is forked; the child's limit is below that."""

    def __init__(self) -> None:
        super().__init__(name="top", intensity=20)
        self.table = bytearray(b"x" * TABLE_BYTES)
        self.add(worker(Probe, name="a", memory_limit=TABLE_BYTES))


HEARTBEAT_S = 3.0


async def beats(me: Process) -> None:
    await me.receive()


def beats_blocking(me: Any) -> None:
    me.receive()


def with_heartbeats(node: Any) -> Supervisor:
    """Three workers, one of them a blocking function, one spawned."""
    return (
        Supervisor(name="top", intensity=0)
        .add(worker(beats, name="a", heartbeat=HEARTBEAT_S))
        .add(worker(beats_blocking, name="b", heartbeat=HEARTBEAT_S))
        .add(worker(beats, name="c", heartbeat=HEARTBEAT_S, start="spawn"))
    )


def with_stubborn(node: Any) -> Supervisor:
    return Supervisor(name="top").add(worker(Probe, name="a")).add(worker(stubborn, name="s", shutdown=0.3))


async def with_family_of_its_own(me: Process) -> None:
    subprocess.Popen(["sleep", "600"])  # noqa: ASYNC220 - it does not wait
    await me.receive()


def families(node: Any) -> Supervisor:
    """Children that have started OS processes of their own."""
    script = "sleep 600 & exec sleep 600"
    return (
        Supervisor(name="top")
        .add(worker(with_family_of_its_own, name="w"))
        .add(program(["sh", "-c", script], name="p"))
    )


def a_list(node: Any) -> list[ChildSpec]:
    return [worker(Probe, name="a")]


def gives_up(node: Any) -> Supervisor:
    return Supervisor(name="top", intensity=1, period=60).add(worker(Probe, name="a"))


def hangs(node: Any) -> Supervisor:
    from pyglyn.supervision import supervisor

    below = Supervisor(name="below").add(worker(Probe, "hang", name="c"))
    return Supervisor(name="top").add(worker(Probe, name="a")).add(supervisor(below))


def does_not_start(node: Any) -> Supervisor:
    return Supervisor(name="top").add(worker(Probe, name="a")).add(worker(Probe, "raise", name="b"))

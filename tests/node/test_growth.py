"""What a node keeps for its processes and peers grows by what is kept: no step looks through all of it.

Held by the time of the processor, as a ratio: so many times the size may take three times as long for each. A step
that looks through all that is kept would take as many times as long for each.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio

from pyglyn.dist.control import DemonitorP, Link, LinkExit, MonitorP, UnlinkId
from pyglyn.etf import Atom, Pid, Reference, decode_bare, encode_bare
from pyglyn.groups.pg_state import PgState
from pyglyn.groups.syn_pg_state import SynGroups
from pyglyn.groups.syn_registry_state import SynRegistry
from pyglyn.net import NetSettings
from pyglyn.node import Node, Process, Settings
from pyglyn.node.boundary import Boundary
from pyglyn.node.mailbox import Mailbox
from pyglyn.node.pending import Pending
from pyglyn.node.runtime import Identity, Runtime
from tests.node.conftest import unique_name

TIMES, MOST = 16, 3
FEW = int(os.environ.get("PYGLYN_GROWTH_SIZE", "4800")) // TIMES
"""By hand 100,000; C moves memory so fast that what is wrong with a list shows only there."""
FAR = "far@localhost"
Work = Callable[[], Any]


@pytest_asyncio.fixture
async def node() -> AsyncIterator[Node]:
    async with Node(unique_name(), cookie="c", settings=Settings(net=NetSettings(epmd_port=0))) as started:
        yield started


def grows_with_what_is_kept(make: Callable[[int], Work]) -> bool:
    """Whether a number of steps takes as long for each where there are many."""

    def seconds(size: int) -> float:
        best = float("inf")
        for _ in range(2):
            work = make(size)
            before = time.thread_time()
            work()
            best = min(best, time.thread_time() - before)
        return best

    return seconds(FEW * TIMES) < MOST * TIMES * seconds(FEW)


def far(number: int) -> Pid:
    return Pid(FAR, number + 1, 0, 7)


def ref(number: int) -> Reference:
    return Reference(FAR, 7, (number & 0x3FFFF, number >> 18, 0))


async def idle(me: Process) -> None:
    await me.receive(lambda message: False)


def each(count: int, *steps: Callable[[int], object]) -> Work:
    def work() -> None:
        for step in steps:
            for number in range(count):
                step(number)

    return work


async def test_links_and_monitors_of_a_peer(node: Node) -> None:
    take = node.runtime.receive_encoded

    def make(count: int) -> Work:
        name = f"watched{time.monotonic_ns()}"
        watched = node.runtime.spawn(idle, name=name)
        return each(
            count,
            lambda n: take(MonitorP(far(n), watched.pid, ref(n)), None),
            lambda n: take(MonitorP(far(n), Atom(name), ref(n + count)), None),
            lambda n: take(Link(far(n), watched.pid), None),
            lambda n: take(DemonitorP(far(n), watched.pid, ref(n)), None),
            lambda n: take(DemonitorP(far(n), Atom(name), ref(n + count)), None),
            lambda n: take(UnlinkId(1, far(n), watched.pid), None) if n % 2 else None,
            lambda n: take(LinkExit(far(n), watched.pid, Atom("normal")), encode_bare(Atom("normal"))),
        )

    node.router.hub.runtime.outlet = lambda *args: None
    assert grows_with_what_is_kept(make)


async def test_names_aliases_timers_and_own_links(node: Node) -> None:
    node.runtime.outlet = lambda *args: None

    def make(count: int) -> Work:
        me = node.runtime.attach("test")
        kept: list[Any] = []
        return each(
            count,
            lambda n: node.runtime.register(f"n{n}", me.pid),
            lambda n: kept.append((me.alias(), me.send_after(1000, me.pid, n), me.monitor(far(n)))),
            lambda n: me.link(far(n)),
            lambda n: node.runtime.unregister(f"n{count - 1 - n}"),
            lambda n: (me.unalias(kept[n][0]), me.cancel_timer(kept[n][1])),
            lambda n: me.demonitor(kept[n][2]),
            lambda n: me.unlink(far(n)),
            lambda n: me.die(Atom("normal")) if n == 0 else None,
        )

    assert grows_with_what_is_kept(make)


async def test_processes_that_come_and_go(node: Node) -> None:
    def make(count: int) -> Work:
        made: list[Process] = []
        return each(
            count,
            lambda n: made.append(node.runtime.attach("test")),
            lambda n: made[n].link(made[n - 1].pid) if n else None,
            lambda n: node.runtime.register(f"p{n}", made[n].pid),
            lambda n: made[0].die(Atom("x")) if n == 0 else None,
        )

    assert grows_with_what_is_kept(make)


async def test_pending_calls() -> None:
    def make(count: int) -> Work:
        pending = Pending()
        return each(
            count,
            lambda n: pending.expect(ref(n)),
            lambda n: pending.answer((ref(n), n)),
            lambda n: pending.forget(ref(n)),
        )

    assert grows_with_what_is_kept(make)


async def test_a_mailbox_that_is_taken_from_behind() -> None:
    def make(count: int) -> Work:
        mailbox = Mailbox(decode_bare)
        for number in range(count):
            mailbox.put(number)
        last = lambda message: message == count - 1  # noqa: E731

        def work() -> None:
            for _ in range(3):
                mailbox.take(last)
                mailbox.put(count - 1)

        return work

    assert grows_with_what_is_kept(make)


def test_what_crosses_to_a_worker() -> None:
    inside = Pid("here@localhost", 1, 3, 1)

    def make(count: int) -> Work:
        boundary = Boundary()
        return each(
            count,
            lambda n: boundary.incoming(Link(far(n), inside)),
            lambda n: boundary.incoming(MonitorP(far(n), inside, ref(n))),
            lambda n: boundary.outgoing(MonitorP(inside, far(n), ref(n + count)), None),
            lambda n: boundary.incoming(DemonitorP(far(n), inside, ref(n))),
            lambda n: boundary.outgoing(DemonitorP(inside, far(n), ref(n + count)), None),
            lambda n: deque(boundary.death(Atom("x")), 0) if n == 0 else None,
        )

    assert grows_with_what_is_kept(make)


@pytest.mark.parametrize("kind", ["pg", "syn groups", "syn registry"])
def test_scopes(kind: str) -> None:
    own = Pid("own@localhost", 1, 0, 1)
    there = Pid(FAR, 1, 0, 7)

    def here(number: int) -> Pid:
        return Pid("own@localhost", number + 2, 0, 1)

    def of_pg(count: int) -> Work:
        refs = iter(range(1, 1 << 40))
        state = PgState(own, "s", lambda: ref(next(refs)))
        state.handle_node_up(FAR)
        state.handle_message((Atom("discover"), there), 0.0)
        kept: list[Any] = []
        return each(
            count,
            lambda n: kept.append(state.monitor(here(n), n)[0]),
            lambda n: state.join(n, here(n)),
            lambda n: state.join(b"all", here(n)),
            lambda n: state.handle_message((Atom("join"), there, b"all", far(n)), 0.0),
            lambda n: state.leave(n, here(n)),
            lambda n: state.demonitor(kept[n]) if n % 2 else None,
            lambda n: state.handle_down(here(n), Atom("x"), 0.0),
            lambda n: state.handle_message((Atom("leave"), there, far(n), [b"all"]), 0.0),
        )

    def of_syn_groups(count: int) -> Work:
        state = SynGroups(own, "s")
        state.handle_node_up(FAR)
        state.handle_message((Atom("3.0"), Atom("discover"), there), 0.0, 1)
        change = Atom("3.0"), Atom("sync_join"), b"all"
        return each(
            count,
            lambda n: state.join(n, here(n), [], n),
            lambda n: state.join(b"all", here(n), [], n),
            lambda n: state.handle_message((*change, far(n), [], n, Atom("normal")), 0.0, n),
            lambda n: state.leave(n, here(n)),
            lambda n: state.handle_down(here(n), Atom("x"), 0.0),
            lambda n: state.handle_node_down(FAR) if n == 0 else None,
        )

    def of_syn_registry(count: int) -> Work:
        state = SynRegistry(own, "s")
        state.handle_node_up(FAR)
        state.handle_message((Atom("3.0"), Atom("discover"), there), 0.0, 1)
        return each(
            count,
            lambda n: state.register(n, here(n), [], n),
            lambda n: state.handle_message(
                (Atom("3.0"), Atom("sync_register"), -n - 1, far(n), [], n, Atom("normal")), 0.0, n
            ),
            lambda n: state.unregister(n, here(n)) if n % 2 else None,
            lambda n: state.handle_down(here(n), Atom("x"), 0.0),
            lambda n: state.handle_node_down(FAR) if n == 0 else None,
        )

    makes = {"pg": of_pg, "syn groups": of_syn_groups, "syn registry": of_syn_registry}
    assert grows_with_what_is_kept(makes[kind])


def test_a_node_that_goes() -> None:
    """It costs what is tied to it, however many processes there are."""

    async def looks(idle: int) -> int:
        runtime = Runtime(Identity("here@localhost", 1), lambda control, parts, node: None)
        for _ in range(idle):
            runtime.attach("idle")
        tied = [runtime.attach("tied") for _ in range(3)]
        for number, process in enumerate(tied):
            process.monitor(far(number))
        calls = 0

        def count(frame: object, event: str, argument: object) -> None:
            nonlocal calls
            calls += event == "call"

        sys.setprofile(count)
        try:
            runtime.node_down(FAR)
        finally:
            sys.setprofile(None)
        assert [process.message_queue_len for process in tied] == [1, 1, 1]
        return calls

    assert asyncio.run(looks(1_000)) == asyncio.run(looks(0)) > 3


async def test_a_node_that_goes_and_others_that_watch_the_same_process() -> None:
    """It costs what it had itself, in the hub and for a worker."""

    def node_of(number: int) -> str:
        return f"n{number}@localhost"

    def own_ref(number: int) -> Reference:
        return Reference(node_of(number), 7, (number & 0x3FFFF, 0, 0))

    def make(count: int) -> Work:
        runtime = Runtime(Identity("here@localhost", 1), lambda control, parts, node: None)
        watched, boundary = Pid("here@localhost", 1, 0, 1), Boundary()
        many = [MonitorP(far(number), watched, ref(number)) for number in range(count)]
        few = [MonitorP(Pid(node_of(n), 1, 0, 7), watched, own_ref(n)) for n in range(count)]
        runtime.register("name", runtime.attach("watched").pid)
        for one in many + few:
            boundary.incoming(one)
            runtime.receive_encoded(one, None)
            by_name = Reference(one.ref.node, 7, (*one.ref.words[:2], 1))
            runtime.receive_encoded(MonitorP(one.watcher, Atom("name"), by_name), None)
        return each(count, lambda n: boundary.node_down(node_of(n)), lambda n: runtime.node_down(node_of(n)))

    assert grows_with_what_is_kept(make)

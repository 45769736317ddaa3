"""Starting, listing and ending children from Python, on Python nodes and on the BEAM."""

from __future__ import annotations

from pathlib import Path

import pytest

from pyglyn.errors import CallFailed, ChildStartError, NoProcess, SupervisionError
from pyglyn.etf import Atom, Pid, Term
from pyglyn.node import Caller, GenServer, Ignore, Node, Process, Stop
from pyglyn.supervision import (
    Supervisor,
    count_children,
    factory,
    start,
    start_child,
    terminate_child,
    which_children,
    worker,
)
from pyglyn.supervision.calls import ChildCounts, ChildInfo
from pyglyn.supervision.words import ChildType
from tests.node.conftest import unique_name


async def session(me: Process, kind: bytes, user: bytes) -> None:
    me.ready()
    while True:
        match await me.receive():
            case Pid() as asker:
                me.send(asker, (kind, user))


class Refusing(GenServer):
    """Starts for nobody."""

    async def init(self, user: bytes) -> None:
        raise Stop((Atom("banned"), user)) if user else Ignore


class Polite(GenServer):
    """Answers everybody, and is no supervisor."""

    async def handle_call(self, request: Term, caller: Caller) -> Term:
        return b"how do you do"


async def starting(me: Process, to: Pid) -> None:
    """Start a child of another supervisor, from an OS process of its own."""
    me.send(to, await start_child(me, "sessions", b"bob"))
    await me.receive()


async def test_children_of_a_factory(epmd):
    async with Node(unique_name(), cookie="c") as node, node.process() as me:
        tree = (
            Supervisor("one_for_one")
            .add(factory(session, b"guest", name="sessions"))
            .add(factory(Refusing, name="none"))
            .add(worker(starting, me.pid, name="starting"))
        )
        await start(node, tree)
        bob = await me.receive(timeout=60)
        ada = await start_child(node, "sessions", b"ada")
        assert isinstance(ada, Pid)
        for pid, user in ((ada, b"ada"), (bob, b"bob")):
            me.send(pid, me.pid)
            assert await me.receive(timeout=60) == (b"guest", user)
        listed = await which_children(me, ("sessions", node.name))
        assert {child.pid for child in listed} == {ada, bob}
        assert set(listed) == {ChildInfo(None, pid, False, ChildType.WORKER) for pid in (ada, bob)}
        assert await count_children(node, "sessions") == ChildCounts(1, 2, 0, 2)
        await terminate_child(node, "sessions", ada)
        assert [child.pid for child in await which_children(node, "sessions")] == [bob]
        await terminate_child(node, "sessions", ada)
        with pytest.raises(SupervisionError, match="pids"):
            await terminate_child(node, "sessions", Atom("ada"))
        with pytest.raises(ChildStartError, match=r"a child of none did not start: \{banned") as refused:
            await start_child(node, "none", b"eve")
        assert refused.value.reason == (Atom("banned"), b"eve")
        assert await start_child(node, "none", b"") is None
        with pytest.raises(CallFailed):
            await start_child(node, "nowhere")
        with pytest.raises(SupervisionError, match="as a supervisor does"):
            await count_children(node, await node.start(Polite))


async def test_children_of_a_supervisor_on_the_beam(beam):
    await beam.load(Path(__file__).with_name("plain_supervisor.erl"))
    dynamic = "#{strategy => simple_one_for_one}, [#{id => x, start => {gen_event, start_link, []}}]"
    static = "#{}, [#{id => x, start => {gen_event, start_link, []}}]"
    sessions = await beam.eval(f"plain_supervisor:start({dynamic})")
    fixed = await beam.eval(f"plain_supervisor:start({static})")
    async with Node(unique_name(), cookie=beam.cookie) as node:
        pid = await start_child(node, sessions, (Atom("local"), Atom("ada")))
        assert await beam.eval("whereis(ada)") == pid
        assert await which_children(node, sessions) == [ChildInfo(None, pid, False, ChildType.WORKER)]
        with pytest.raises(ChildStartError, match="already_started"):
            await start_child(node, sessions, (Atom("local"), Atom("ada")))
        await terminate_child(node, sessions, pid)
        assert await count_children(node, sessions) == ChildCounts(1, 0, 0, 0)
        with pytest.raises(ChildStartError):
            await start_child(node, fixed)
        await terminate_child(node, fixed, Atom("x"))
        assert await which_children(node, fixed) == [ChildInfo(Atom("x"), None, False, ChildType.WORKER)]
        with pytest.raises(NoProcess):
            await terminate_child(node, fixed, Atom("y"))

"""Processes of one node among themselves: what needs no peer."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from pyglyn import Atom, GenServer, Node, Process
from pyglyn.errors import EncodeError, NameTaken
from pyglyn.net import NetSettings
from pyglyn.node import Exit, Exports, Ignore, NoReply, Settings, StartError, Stop
from pyglyn.testing import eventually
from pyglyn.testing.waiting import patiently
from tests.node.conftest import unique_name


@pytest_asyncio.fixture
async def alone() -> AsyncIterator[Node]:
    """A node without EPMD that nobody connects to."""
    async with Node(
        "alone@localhost", cookie="pyglyn_testing", settings=Settings(net=NetSettings(epmd_port=0))
    ) as node:
        yield node


async def wait_for_stop(me: Process) -> None:
    await me.receive(lambda message: message is Atom("stop"))


async def test_an_alias_of_a_monitor_ends_when_the_monitor_fires(alone):
    async with alone.process() as me:
        ref = me.monitor(alone.spawn(wait_for_stop, name="watched"), alias=True)
        me.send(ref, 1)
        assert await me.receive(timeout=60) == 1
        me.send("watched", Atom("stop"))
        assert (await me.receive(timeout=60))[1] == ref
        me.send(ref, 2)
        with pytest.raises(TimeoutError):
            await me.receive(timeout=0)
        assert alone.runtime.aliases == {}


async def test_a_process_that_polls_its_mailbox_lets_the_others_run(alone):
    async def poll(me: Process) -> None:
        while True:
            try:
                await me.receive(timeout=0)
            except TimeoutError:
                continue
            return

    polling = alone.spawn(poll, name="polling")
    await asyncio.sleep(0)
    alone.send(polling, Atom("stop"))
    await eventually(lambda: alone.whereis("polling") is None)


async def test_a_process_that_is_killed_while_it_lets_the_others_run_stops_receiving(alone):
    async with alone.process() as me:
        for _ in range(127):
            me.send(me.pid, 1)
            await me.receive()
        receiving = asyncio.ensure_future(me.receive())
        await asyncio.sleep(0)
        alone.system.exit(me.pid, Atom("kill"))
        with pytest.raises(Exit):
            await asyncio.wait_for(receiving, 180)


async def test_a_call_to_a_node_with_arguments_that_are_no_terms_leaves_nothing_behind(alone):
    async with alone.process() as me:
        with pytest.raises(EncodeError):
            await alone.rpc("alone@localhost", "erlang", "whereis", [object()])
        assert alone.runtime.spawn_replies == {}
        assert alone.system.signals.monitors == {}
        assert me.alive


async def test_an_exit_reason_arrives_as_it_would_from_another_node(alone):
    async with alone.process() as me, alone.process() as other:
        other.trap_exit = True
        me.exit(other.pid, (Atom("because"), "text"))
        assert await other.receive(timeout=60) == (Atom("EXIT"), me.pid, (Atom("because"), b"text"))
        with pytest.raises(EncodeError):
            me.exit(other.pid, object())


@pytest.mark.parametrize("name", ["\ud800", "undefined", "x" * 256, "net_kernel"])
async def test_a_name_that_cannot_be_had_leaves_no_process_behind(alone, name):
    before = len(alone.runtime.processes)
    with pytest.raises((NameTaken, ValueError)):
        alone.spawn(wait_for_stop, name=name)
    assert len(alone.runtime.processes) == before


class Sleepy(GenServer):
    """Tells its owner when it has had nothing to do, and when it ends."""

    async def init(self, owner):
        self.owner = owner
        return NoReply(timeout=patiently(0.2))

    async def handle_info(self, message):
        self.me.send(self.owner, message)

    async def handle_cast(self, request):
        raise Exit(request)

    async def terminate(self, reason):
        self.me.send(self.owner, (Atom("terminate"), reason))


async def test_a_look_into_a_server_does_not_cancel_its_timeout(alone):
    async with alone.process() as me:
        server = await alone.start(Sleepy, me.pid)
        me.send(server, (Atom("system"), (me.pid, 1), Atom("get_state")))
        assert (await me.receive(timeout=60))[0] == 1
        assert await me.receive(timeout=60) is Atom("timeout")


async def test_a_suspended_server_has_its_timeout_only_after_it_is_resumed(alone):
    async with alone.process() as me:
        server = await alone.start(Sleepy, me.pid)
        me.send(server, (Atom("system"), (me.pid, 1), Atom("suspend")))
        assert await me.receive(timeout=60) == (1, Atom("ok"))
        with pytest.raises(TimeoutError):
            await me.receive(timeout=patiently(0.4))
        me.send(server, (Atom("system"), (me.pid, 2), Atom("resume")))
        assert await me.receive(timeout=60) == (2, Atom("ok"))
        assert await me.receive(timeout=60) is Atom("timeout")


async def test_a_server_that_exits_in_a_handler_cleans_up_first(alone):
    async with alone.process() as me:
        server = await alone.start(Sleepy, me.pid)
        ref = me.monitor(server)
        me.cast(server, Atom("bored"))
        assert await me.receive(timeout=60) == (Atom("terminate"), Atom("bored"))
        assert await me.receive(timeout=60) == (Atom("DOWN"), ref, Atom("process"), server, Atom("bored"))


async def test_many_blocking_exported_functions_leave_room_for_a_quick_one():
    release = threading.Event()
    exports = Exports()
    exports.add("some", release.wait, "slow")
    exports.add("some", lambda: 1, "quick")
    settings = Settings(net=NetSettings(epmd_port=0))
    async with Node("alone@localhost", cookie="pyglyn_testing", settings=settings, exports=exports) as node:
        slow = [asyncio.ensure_future(node.rpc(node.name, "some", "slow", [20.0], 20.0)) for _ in range(50)]
        try:
            assert await node.rpc(node.name, "some", "quick", [], 5.0) == 1
        finally:
            release.set()
        assert await asyncio.gather(*slow) == [True] * 50


class Starting(GenServer):
    """Does not start."""

    async def init(self, how):
        if how == "wait":
            await asyncio.Event().wait()
        return Ignore if how == "ignore" else Stop("no_disk")


async def test_a_name_is_free_again_when_a_server_did_not_start(alone):
    assert await alone.start(Starting, "ignore", name="server") is None
    for _ in range(2):
        with pytest.raises(StartError) as refused:
            await alone.start(Starting, "stop", name="server")
        assert refused.value.reason is Atom("no_disk")


@pytest.mark.parametrize(("signal", "reason"), [("shutdown", "shutdown"), ("kill", "killed")])
async def test_a_server_that_is_ended_while_it_starts_says_why(alone, signal, reason):
    starting = asyncio.ensure_future(alone.start(Starting, "wait", name="server"))
    await eventually(lambda: alone.whereis("server"))
    await asyncio.sleep(0)
    alone.system.exit(alone.whereis("server"), Atom(signal))
    with pytest.raises(StartError) as ended:
        await starting
    assert ended.value.reason is Atom(reason)


async def test_a_server_that_traps_exits_cleans_up_when_the_node_stops(epmd):
    reasons = []

    class Careful(GenServer):
        async def init(self):
            self.me.trap_exit = True

        async def terminate(self, reason):
            reasons.append(reason)

    async with Node(unique_name(), cookie="c") as node:
        await node.start(Careful)
    assert reasons == [Atom("shutdown")]


async def test_names_are_a_list_in_the_order_in_which_they_were_registered(alone):
    async with alone.process() as me:
        assert (me.names, me.name) == ([], None)
        for name in ("b", "a", "c"):
            await me.register(name)
        assert (me.names, me.names[0], me.name) == (["b", "a", "c"], "b", "b")
        await me.unregister("b")
        assert (me.names, me.name) == (["a", "c"], "a")

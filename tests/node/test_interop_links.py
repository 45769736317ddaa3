"""Links, monitors and exits across the boundary, in both directions."""

from __future__ import annotations

import asyncio

import pytest

from pyglyn.etf import Atom, Pid
from pyglyn.node import Exit, Process
from pyglyn.testing import eventually

REASONS = ["normal", "shutdown", "{shutdown, x}", "kill", "killed", "boom", '{error, <<"text">>, [1,2]}']


def term(text: str):
    from pyglyn.etf import text as syntax

    return syntax.parse(text)


async def ending(me: Process, reason) -> None:
    await me.receive(lambda m: m is Atom("go"))
    raise Exit(reason)


@pytest.mark.parametrize("reason", REASONS)
async def test_a_beam_process_sees_how_a_linked_and_monitored_python_process_ends(beam, node, reason):
    pid = node.spawn(ending, term(reason))
    seen = await beam.eval(
        """
        process_flag(trap_exit, true), link(Pid), Ref = monitor(process, Pid), Pid ! go,
        E = receive {'EXIT', Pid, R1} -> R1 after 60000 -> none end,
        D = receive {'DOWN', Ref, process, Pid, R2} -> R2 after 60000 -> none end, {E, D}
        """,
        Pid=pid,
    )
    assert seen == (term(reason), term(reason))


@pytest.mark.parametrize("reason", REASONS)
async def test_a_python_process_sees_how_a_linked_and_monitored_beam_process_ends(beam, node, reason):
    pid = await beam.eval("spawn(fun() -> receive {go, R} -> exit(R) end end)")
    async with node.process() as me:
        me.trap_exit = True
        me.link(pid)
        ref = me.monitor(pid)
        me.send(pid, (Atom("go"), term(reason)))
        messages = [await me.receive(timeout=60) for _ in range(2)]
    assert (Atom("EXIT"), pid, term(reason)) in messages
    assert (Atom("DOWN"), ref, Atom("process"), pid, term(reason)) in messages


@pytest.mark.parametrize("reason", REASONS)
async def test_exit_2_from_the_beam_follows_the_table(beam, node, reason):
    """otp-messages: X normal is ignored, X kill becomes killed, the rest is the reason."""

    async def waiting(me: Process) -> None:
        await me.receive(lambda m: False)

    pid = node.spawn(waiting)
    down = await beam.eval(
        """Ref = monitor(process, Pid), exit(Pid, Reason),
           receive {'DOWN', Ref, process, Pid, R} -> {down, R}
           after After -> exit(Pid, kill), alive end""",
        Pid=pid,
        Reason=term(reason),
        After=300 if reason == "normal" else 60_000,
    )
    expected = {"normal": Atom("alive"), "kill": (Atom("down"), Atom("killed"))}
    assert down == expected.get(reason, (Atom("down"), term(reason)))


@pytest.mark.parametrize("reason", REASONS)
async def test_exit_2_to_the_beam_follows_the_table(beam, node, reason):
    pid = await beam.eval("spawn(fun() -> receive never -> ok end end)")
    async with node.process() as me:
        ref = me.monitor(pid)
        me.exit(pid, term(reason))
        if reason == "normal":
            me.exit(pid, Atom("kill"))
        _, got, _, _, seen = await me.receive(timeout=60)
        assert got == ref
    expected = {"normal": Atom("killed"), "kill": Atom("killed")}
    assert seen == expected.get(reason, term(reason))


async def test_a_python_process_that_traps_gets_exits_of_the_beam_as_messages(beam, node):
    async with node.process() as me:
        me.trap_exit = True
        sender = await beam.eval("exit(Pid, normal), exit(Pid, {why, 1}), self()", Pid=me.pid)
        assert await me.receive(timeout=60) == (Atom("EXIT"), sender, Atom("normal"))
        assert await me.receive(timeout=60) == (Atom("EXIT"), sender, (Atom("why"), 1))


async def test_a_linked_python_process_dies_with_its_beam_process(beam, node):
    async def linked(me: Process, to: Pid) -> None:
        me.link(to)
        me.send(to, Atom("linked"))
        await me.receive(lambda m: False)

    pid = await beam.eval("spawn(fun() -> receive linked -> exit(bye) end end)")
    async with node.process() as me:
        child, ref = me.spawn_monitor(linked, pid)
        assert await me.receive(timeout=60) == (Atom("DOWN"), ref, Atom("process"), child, Atom("bye"))


async def test_an_uncaught_exception_reads_well_on_the_beam(beam, node):
    async def failing(me: Process) -> None:
        await me.receive()
        raise KeyError("laptop")

    pid = node.spawn(failing)
    (exception, stack) = await beam.eval(
        "Ref = monitor(process, Pid), Pid ! go, receive {'DOWN', Ref, _, _, R} -> R after 60000 -> none end",
        Pid=pid,
    )
    assert exception == (Atom("exception"), Atom("KeyError"), b"'laptop'")
    module, function, arity, where = stack[0]
    assert (module, function, arity) == (Atom("test_interop_links"), Atom("failing"), 0)
    assert [key for key, _ in where] == [Atom("file"), Atom("line")]


async def test_monitors_by_name_both_ways(beam, node):
    node.spawn(ending, Atom("bye"), name="named")
    assert await beam.eval(
        """Ref = monitor(process, {named, Node}), {named, Node} ! go,
           receive {'DOWN', Ref, process, {named, Node}, R} -> R after 60000 -> none end""",
        Node=Atom(node.name),
    ) is Atom("bye")
    assert await beam.eval(
        "Ref = monitor(process, {nobody, Node}), receive {'DOWN', Ref, process, Item, R} -> {Item, R} end",
        Node=Atom(node.name),
    ) == ((Atom("nobody"), Atom(node.name)), Atom("noproc"))
    await beam.eval("register(erl_named, spawn(fun() -> receive go -> exit(bye) end end))")
    async with node.process() as me:
        ref = me.monitor(("erl_named", beam.name))
        me.send(("erl_named", beam.name), Atom("go"))
        item = (Atom("erl_named"), Atom(beam.name))
        assert await me.receive(timeout=60) == (Atom("DOWN"), ref, Atom("process"), item, Atom("bye"))


async def test_links_and_monitors_of_the_dead_give_noproc(beam, node):
    dead = await beam.eval(
        "P = spawn(fun() -> ok end), R = monitor(process, P), receive {'DOWN', R, _, _, _} -> P end"
    )
    async with node.process() as me:
        me.trap_exit = True
        me.link(dead)
        assert await me.receive(timeout=60) == (Atom("EXIT"), dead, Atom("noproc"))
        ref = me.monitor(dead)
        assert await me.receive(timeout=60) == (Atom("DOWN"), ref, Atom("process"), dead, Atom("noproc"))
        gone = Pid(node.name, 2**27, 0, me.pid.creation)
    assert await beam.eval(
        """process_flag(trap_exit, true), link(Pid), Ref = monitor(process, Pid),
           {receive {'EXIT', Pid, A} -> A end, receive {'DOWN', Ref, process, Pid, B} -> B end}""",
        Pid=gone,
    ) == (Atom("noproc"), Atom("noproc"))


async def test_unlink_and_demonitor_take_effect_both_ways(beam, node):
    pid = await beam.eval("spawn(fun() -> receive {go, R} -> exit(R) end end)")
    async with node.process() as me:
        me.trap_exit = True
        me.link(pid)
        me.unlink(pid)
        me.link(pid)
        me.unlink(pid)
        me.demonitor(me.monitor(pid), flush=True)
        watch = me.monitor(pid)
        me.send(pid, (Atom("go"), Atom("boom")))
        assert (await me.receive(timeout=60))[1] == watch
        assert me.message_queue_len == 0
    child = node.spawn(ending, Atom("boom"))
    assert await beam.eval(
        """process_flag(trap_exit, true), link(Pid), unlink(Pid), link(Pid), unlink(Pid),
           demonitor(monitor(process, Pid), [flush]), Ref = monitor(process, Pid), Pid ! go,
           receive {'DOWN', Ref, _, _, R} -> ok end, receive M -> {unexpected, M} after 100 -> R end""",
        Pid=child,
    ) is Atom("boom")


@pytest.mark.parametrize("how", ["kill -9", "link cut", "node stops"])
async def test_the_loss_of_a_beam_node_ends_links_and_monitors_with_noconnection(beam, node, how):
    pid = await beam.eval(
        "P = spawn(fun() -> receive never -> ok end end), catch unregister(watched), register(watched, P), P"
    )
    async with node.process() as me:
        me.trap_exit = True
        me.link(pid)
        by_pid, by_name = me.monitor(pid), me.monitor(("watched", beam.name))
        assert await me.call(("net_kernel", beam.name), (Atom("is_auth"), Atom(node.name))) is Atom("yes")
        if how == "kill -9":
            beam.kill()
        elif how == "link cut":
            assert await beam.disconnect(node.name)
        else:
            await beam.stop()
        messages = [await me.receive(timeout=60) for _ in range(3)]
        noconnection, process = Atom("noconnection"), Atom("process")
        assert (Atom("EXIT"), pid, noconnection) in messages
        assert (Atom("DOWN"), by_pid, process, pid, noconnection) in messages
        item = (Atom("watched"), Atom(beam.name))
        assert (Atom("DOWN"), by_name, process, item, noconnection) in messages


async def test_the_loss_of_the_python_node_is_noconnection_for_the_beam(beam, node):
    async def waiting(me: Process) -> None:
        await me.receive(lambda m: False)

    pid = node.spawn(waiting, name="waiting")
    task = asyncio.create_task(
        beam.eval(
            """
            process_flag(trap_exit, true), link(Pid), R1 = monitor(process, Pid),
            R2 = monitor(process, {waiting, Node}),
            {waiting, Node} ! hello,
            [receive {'EXIT', Pid, A} -> A end,
             receive {'DOWN', R1, process, Pid, B} -> B end,
             receive {'DOWN', R2, process, {waiting, Node}, C} -> C end]
            """,
            Pid=pid,
            Node=Atom(node.name),
        )
    )
    process = node.runtime.processes[pid.id]
    await eventually(lambda: process.message_queue_len)
    node.disconnect(beam.name)
    assert await task == [Atom("noconnection")] * 3


async def test_aliases_of_both_sides(beam, node):
    async with node.process() as me:
        alias = me.alias()
        await beam.eval("Alias ! first, ok", Alias=alias)
        assert await me.receive(timeout=60) is Atom("first")
        me.unalias(alias)
        await beam.eval("Alias ! second, Pid ! third, ok", Alias=alias, Pid=me.pid)
        assert await me.receive(timeout=60) is Atom("third")
        task = asyncio.create_task(
            beam.eval("A = alias(), Pid ! {alias, A}, receive M -> M after 60000 -> none end", Pid=me.pid)
        )
        _, peer_alias = await me.receive(timeout=60)
        me.send(peer_alias, Atom("hello"))
        assert await task is Atom("hello")

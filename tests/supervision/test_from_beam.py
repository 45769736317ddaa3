"""Python supervisors and children as Erlang sees them."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from pyglyn import Atom, Node, Pid
from pyglyn.groups import pg
from pyglyn.supervision import Supervisor, factory, start, supervisor, worker
from pyglyn.testing import Beam, eventually
from tests.supervision.conftest import Client, Start
from tests.supervision.service import Probe, blocking_echo, echo, member, returns, stubborn

LINK = """
process_flag(trap_exit, true), link(Pid),
receive {'EXIT', Pid, Reason} -> Reason after 20000 -> timeout end
"""
LINKED = """
lists:any(fun(P) -> case process_info(P, links) of {links, L} -> lists:member(Pid, L); undefined -> false end end,
          processes() -- [self()])
"""


@pytest_asyncio.fixture
async def local(beam: Beam) -> AsyncIterator[Client]:
    """A node with the cookie of a BEAM node, connected to it."""
    async with (
        Node(f"sup_{secrets.token_hex(4)}@localhost", cookie=beam.cookie) as node,
        node.process() as me,
    ):
        await node.connect(beam.name)
        yield Client(node, me)


async def call(beam: Beam, local: Client, function: str, *args: Any) -> Any:
    """``supervisor:function`` on the tree's top, from Erlang."""
    text = f"supervisor:{function}({', '.join(['{top, Node}', *[f'A{n}' for n in range(len(args))]])})"
    return await beam.eval(text, Node=Atom(local.node.name), **{f"A{n}": arg for n, arg in enumerate(args)})


def tree(**options: Any) -> Supervisor:
    below = Supervisor(name="below").add(worker(Probe, name="c"))
    return (
        Supervisor(name="top", intensity=50)
        .add(worker(Probe, name="a", **options))
        .add(supervisor(below))
        .add(factory(Probe, name="many"))
    )


async def test_the_functions_of_module_supervisor_work(beam: Beam, local: Client) -> None:
    await start(local.node, tree())
    ok, not_found = Atom("ok"), (Atom("error"), Atom("not_found"))
    a, modules = local.node.whereis("a"), [Atom("tests.supervision.service")]
    rows = await call(beam, local, "which_children")
    assert [row[0] for row in rows] == [Atom("many"), Atom("below"), Atom("a")]
    assert rows[2] == (Atom("a"), a, Atom("worker"), modules)
    assert dict(await call(beam, local, "count_children")) == {
        Atom("specs"): 3, Atom("active"): 3, Atom("supervisors"): 2, Atom("workers"): 1,
    }  # fmt: skip
    _, spec = await call(beam, local, "get_childspec", Atom("a"))
    assert spec[Atom("restart")] == Atom("permanent")
    assert spec[Atom("shutdown")] == 5000
    assert await call(beam, local, "terminate_child", Atom("a")) == ok
    assert local.node.whereis("a") is None
    assert (await call(beam, local, "which_children"))[2][1] == Atom("undefined")
    _, new = await call(beam, local, "restart_child", Atom("a"))
    assert isinstance(new, Pid)
    assert local.node.whereis("a") == new
    assert await call(beam, local, "delete_child", Atom("a")) == (Atom("error"), Atom("running"))
    await call(beam, local, "terminate_child", Atom("a"))
    assert await call(beam, local, "delete_child", Atom("a")) == ok
    assert await call(beam, local, "terminate_child", Atom("a")) == not_found


async def test_sys_looks_into_children_of_every_kind(beam: Beam, local: Client, tmp_path: Path) -> None:
    children = (
        Supervisor(name="top")
        .add(worker(Probe, name="server"))
        .add(worker(echo, name="function"))
        .add(worker(echo, name="light", isolation="task"))
        .add(worker(blocking_echo, str(tmp_path / "ends"), name="blocking"))
    )
    await start(local.node, children)
    states = {
        name: await beam.eval(f"sys:get_state({{{name}, Node}})", Node=Atom(local.node.name))
        for name in ("server", "function", "light", "blocking")
    }
    assert states.pop("server")[Atom("count")] == 0
    assert states == {"function": {}, "light": {}, "blocking": {}}
    shown = await beam.eval("sys:get_state({top, Node})", Node=Atom(local.node.name))
    assert set(shown) == {Atom("strategy"), Atom("children")}
    assert [row[Atom("id")].name for row in shown[Atom("children")]] == [
        "server",
        "function",
        "light",
        "blocking",
    ]
    text = """
        ok = sys:suspend({P, Node}), {P, Node} ! {ping, self()},
        {status, _, _, [_, suspended | _]} = sys:get_status({P, Node}),
        none = receive {pong, _} -> early after 0 -> none end,
        ok = sys:resume({P, Node}), receive {pong, _} -> ok after 60000 -> timeout end"""
    for name in ("function", "light", "blocking"):
        assert await beam.eval(text, P=Atom(name), Node=Atom(local.node.name)) is Atom("ok")


async def test_erlang_starts_an_exported_child_links_to_it_and_is_told_how_it_ended(
    beam: Beam, local: Client
) -> None:
    await start(local.node, tree())
    text = """
        process_flag(trap_exit, true),
        {ok, Pid} = supervisor:start_child({top, Node},
            #{id => extra, start => {shop, probe, [extra]}, restart => temporary}),
        link(Pid),
        1 = gen_server:call({extra, Node}, count),
        gen_server:cast(Pid, sigkill),
        receive {'EXIT', Pid, Reason} -> Reason after 60000 -> timeout end"""
    assert await beam.eval(text, Node=Atom(local.node.name)) == (Atom("signal"), 9)


async def test_options_that_erlang_leaves_open_are_those_of_the_exported_specification(
    beam: Beam, local: Client
) -> None:
    await start(local.node, tree())
    for given, restart in (("", "temporary"), (", restart => transient", "transient")):
        child = f"#{{id => s, start => {{shop, short_lived, [s]}}{given}}}"
        begin = f"{{ok, _}} = supervisor:start_child({{top, Node}}, {child}), ok"
        await beam.eval(begin, Node=Atom(local.node.name))
        _, spec = await call(beam, local, "get_childspec", Atom("s"))
        assert (spec[Atom("restart")], spec[Atom("shutdown")]) == (Atom(restart), Atom("brutal_kill"))
        await call(beam, local, "terminate_child", Atom("s"))
        await call(beam, local, "delete_child", Atom("s"))


async def test_what_is_not_exported_cannot_be_started(beam: Beam, local: Client) -> None:
    await start(local.node, tree())
    spec = {Atom("id"): Atom("x"), Atom("start"): (Atom("os"), Atom("system"), [b"true"])}
    match await call(beam, local, "start_child", spec):
        case (Atom("error"), ((Atom("EXIT"), (Atom("undef"), _)), _)):
            pass
        case other:
            pytest.fail(f"started or other error: {other}")


async def test_a_factory_says_of_processes_that_are_not_its_children_what_otp_says(
    beam: Beam, local: Client
) -> None:
    await start(local.node, tree())
    ok, not_found = Atom("ok"), (Atom("error"), Atom("not_found"))
    hub = local.node.spawn(echo)
    dead = local.node.spawn(returns)
    await eventually(lambda: not local.node.runtime.processes.get(dead.id))
    text = "supervisor:terminate_child({many, Node}, P)"
    where = {"Node": Atom(local.node.name)}
    for pid, answer in ((hub, not_found), (local.node.whereis("a"), not_found), (dead, ok)):
        assert await beam.eval(text, P=pid, **where) == answer
    look = "element(1, supervisor:get_childspec({many, Node}, P))"
    assert await beam.eval(look, P=hub, **where) is Atom("error")
    assert await beam.eval(look, P=dead, **where) is Atom("ok")
    assert local.node.whereis("a") is not None


async def test_a_factory_starts_children_for_erlang(beam: Beam, local: Client) -> None:
    await start(local.node, tree())
    text = """
        Pids = [begin {ok, P} = supervisor:start_child({many, Node}, []), P end || _ <- lists:seq(1, 5)],
        [1 = gen_server:call(P, count) || P <- Pids],
        ok = supervisor:terminate_child({many, Node}, hd(Pids)),
        proplists:get_value(active, supervisor:count_children({many, Node}))"""
    assert await beam.eval(text, Node=Atom(local.node.name), timeout=20.0) == 4


@pytest.mark.parametrize(
    ("cast", "expected", "options"),
    [
        (Atom("sigkill"), (Atom("signal"), 9), {}),
        (Atom("segfault"), (Atom("signal"), 11), {}),
        ((Atom("exit"), 0), Atom("normal"), {}),
        ((Atom("exit"), 3), (Atom("exit_status"), 3), {}),
        (Atom("crash"), None, {}),
        (Atom("grow"), (Atom("memory_limit"), 150 * 2**20), {"memory_limit": 150 * 2**20}),
        (Atom("busy"), Atom("stuck"), {"heartbeat": 0.4}),
        (Atom("exhaust_descriptors"), None, {}),
    ],
    ids=str,
)
async def test_a_linked_beam_process_gets_the_reason(
    beam: Beam, local: Client, cast: Any, expected: Any, options: dict[str, Any]
) -> None:
    await start(local.node, tree(**options))
    pid = local.node.whereis("a")
    watching = await linked(beam, local, pid)
    local.me.cast(pid, cast)
    reason = await watching
    if expected is not None:
        assert reason == expected
    else:
        assert isinstance(reason, tuple)
        assert reason[0][0] == Atom("exception")
    await local.restarted("a", pid)


async def linked(beam: Beam, local: Client, pid: Pid) -> asyncio.Task[Any]:
    """Link a BEAM process to a worker's; the task gives the reason that it was told."""
    watching = asyncio.create_task(beam.eval(LINK, Pid=pid, timeout=25.0))
    boundary = local.node.workers.links[pid.serial].boundary
    await eventually(lambda: any(outside.node == beam.name for _, outside in boundary.links))
    return watching


async def test_a_linked_beam_process_is_told_of_five_deaths_at_once(beam: Beam, local: Client) -> None:
    top = Supervisor(name="top", intensity=50)
    for number in range(5):
        top.add(worker(Probe, name=f"p{number}"))
    await start(local.node, top)
    os_pids = [await local.os_pid(f"p{number}") for number in range(5)]
    watching = [await linked(beam, local, local.node.whereis(f"p{number}")) for number in range(5)]
    for os_pid in os_pids:
        os.kill(os_pid, signal.SIGKILL)
    for each in watching:
        assert await each == (Atom("signal"), 9)


async def test_a_linked_beam_process_is_told_although_grandchildren_live_on_for_a_moment(
    beam: Beam, local: Client
) -> None:
    await start(local.node, tree())
    pid = local.node.whereis("a")
    os_pid = await local.os_pid("a")
    await local.me.call("a", Atom("fork_grandchildren"))
    watching = await linked(beam, local, pid)
    os.kill(os_pid, signal.SIGKILL)
    assert await watching == (Atom("signal"), 9)


async def test_a_linked_beam_process_is_told_of_the_end_of_a_supervisor_and_of_those_below(
    beam: Beam, local: Client
) -> None:
    await start(local.node, tree())
    below, c = local.node.whereis("below"), local.node.whereis("c")
    os_pid = local.node.workers.links[below.serial].os_pid
    watching = [await linked(beam, local, below), await linked(beam, local, c)]
    os.kill(os_pid, signal.SIGKILL)
    assert await watching[0] == (Atom("signal"), 9)
    assert await watching[1] == Atom("killed")


async def test_a_linked_beam_process_is_told_of_a_child_that_had_to_be_killed(
    beam: Beam, local: Client
) -> None:
    await start(local.node, Supervisor(name="top").add(worker(stubborn, name="s", shutdown=0.3)))
    pid = local.node.whereis("s")
    watching = await linked(beam, local, pid)
    stopping = asyncio.create_task(call(beam, local, "terminate_child", Atom("s")))
    assert await watching == Atom("killed")
    assert await stopping == Atom("ok")


async def test_a_linked_beam_process_is_told_of_the_end_of_the_hub(beam: Beam, program: Start) -> None:
    node = await program("three", cookie=beam.cookie)
    pid = await beam.eval(
        "element(2, lists:keyfind(a, 1, supervisor:which_children({top, Node})))", Node=Atom(node.name)
    )
    watching = asyncio.create_task(beam.eval(LINK, Pid=pid, timeout=25.0))
    await eventually(lambda: beam.eval(LINKED, Pid=pid))
    node.process.send_signal(signal.SIGKILL)
    assert await watching == Atom("noconnection")


async def test_exit_from_erlang_ends_a_child_and_kill_even_a_stuck_one(beam: Beam, local: Client) -> None:
    await start(local.node, tree())
    old = local.node.whereis("a")
    text = """R = erlang:monitor(process, Pid), exit(Pid, Why),
              receive {'DOWN', R, _, _, Reason} -> Reason after 60000 -> timeout end"""
    assert await beam.eval(text, Pid=old, Why=Atom("because")) == Atom("because")
    new = await local.restarted("a", old)
    local.me.cast(new, Atom("busy"))
    assert await beam.eval(text, Pid=new, Why=Atom("kill")) == Atom("killed")
    await local.restarted("a", new)


async def test_names_of_the_dead_are_withdrawn_and_given_anew(beam: Beam, local: Client) -> None:
    await start(local.node, tree())
    for _ in range(5):
        old = local.node.whereis("a")
        local.me.cast(old, Atom("sigkill"))
        new = await local.restarted("a", old)
        text = "gen_server:call({a, Node}, os_pid)"
        assert await beam.eval(text, Node=Atom(local.node.name)) == await local.os_pid(new)


async def test_group_memberships_of_the_dead_are_withdrawn_and_made_anew(beam: Beam, local: Client) -> None:
    await beam.eval("{ok, _} = pg:start(shop), ok")
    pg.start(local.node, "shop")
    await start(local.node, Supervisor(name="top", intensity=50).add(worker(member, b"servers", name="m")))

    async def seen(*pids: Pid | None) -> bool:
        members = await beam.eval('pg:get_members(shop, <<"servers">>)')
        return sorted(members, key=str) == sorted(pids, key=str)

    old = local.node.whereis("m")
    await eventually(lambda: seen(old, old))
    for how in (signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM):
        assert old is not None
        os.kill(local.node.workers.links[old.serial].os_pid, how)
        new = await eventually(
            lambda old=old: local.node.whereis("m") not in (None, old) and local.node.whereis("m")
        )
        await eventually(lambda new=new: seen(new, new))
        old = new
    await local.me.call("top", (Atom("terminate_child"), Atom("m")))
    await eventually(seen)

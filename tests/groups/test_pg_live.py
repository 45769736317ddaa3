"""Our pg scopes beside those of real BEAM nodes: each sees what the other sees."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from pyglyn.etf import Atom, Pid
from pyglyn.groups import operations, pg
from pyglyn.node import Node, Process
from pyglyn.testing import Beam, Beams, eventually
from tests.groups.conftest import StartNode, count_signals, idle, unique_name

START_PG = "{ok, _} = pg:start(S), ok"
MEMBER = "P = spawn(fun() -> receive stop -> ok end end), ok = pg:join(S, G, P), P"
SCOPE = Atom("scope")
GROUP = b"workers"


async def join_there(beam: Beam, group: Any = GROUP) -> Pid:
    pid = await beam.eval(MEMBER, S=SCOPE, G=group)
    assert isinstance(pid, Pid)
    return pid


async def seen_there(beam: Beam, group: Any = GROUP) -> Counter[Any]:
    return Counter(await beam.eval("pg:get_members(S, G)", S=SCOPE, G=group))


async def all_see(nodes: list[Node], beams: list[Beam], group: Any, members: list[Pid]) -> None:
    """Wait until every node has exactly these members."""
    for node in nodes:
        await eventually(
            lambda node=node: Counter(pg.start(node, "scope").get_members(group)) == Counter(members),
        )
    for beam in beams:
        assert beam.alive, beam.log()

        async def same(beam: Beam = beam) -> bool:
            return await seen_there(beam, group) == Counter(members)

        await eventually(same)


@pytest.mark.parametrize("order", ["scope first", "connection first", "both ways"])
async def test_both_sides_see_all_members_whoever_starts_first(
    order: str, beam: Beam, start_node: StartNode
) -> None:
    node = await start_node()
    if order == "connection first":
        await node.connect(beam.name)
        pg.start(node, "scope")
        await beam.eval(START_PG, S=SCOPE)
    elif order == "scope first":
        await beam.eval(START_PG, S=SCOPE)
        pg.start(node, "scope")
        await node.connect(beam.name)
    else:
        await beam.eval(START_PG, S=SCOPE)
        pg.start(node, "scope")
        assert await beam.eval("net_adm:ping(N)", N=Atom(node.name)) == Atom("pong")
    theirs = await join_there(beam)
    ours = node.spawn(idle)
    await pg.join(node, GROUP, ours, scope="scope")
    await all_see([node], [beam], GROUP, [theirs, ours])


async def test_members_join_several_times_and_leave_as_often(beam: Beam, start_node: StartNode) -> None:
    node = await start_node()
    await beam.eval(START_PG, S=SCOPE)
    scope = pg.start(node, "scope")
    await node.connect(beam.name)
    one, two = node.spawn(idle), node.spawn(idle)
    scope.join(GROUP, [one, one, two])
    await all_see([node], [beam], GROUP, [one, one, two])
    scope.leave(GROUP, one)
    await all_see([node], [beam], GROUP, [one, two])
    scope.leave(GROUP, [one, two, two])
    await all_see([node], [beam], GROUP, [])
    with pytest.raises(LookupError):
        scope.leave(GROUP, one)
    scope.join({b"any": [1.0, (Atom("term"),)]}, two)
    await all_see([node], [beam], {b"any": [1.0, (Atom("term"),)]}, [two])
    node.system.exit(two, "kill")
    await all_see([node], [beam], {b"any": [1.0, (Atom("term"),)]}, [])
    assert scope.which_groups() == [] == await beam.eval("pg:which_groups(S)", S=SCOPE)


WATCHING = "[P || P <- processes(), {_, {erpc, execute_call, 4}} <- [process_info(P, initial_call)]] =/= []"


async def test_a_scope_that_starts_long_after_the_connection_is_found_without_polling(
    beam: Beam, start_node: StartNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = await start_node()
    scope = pg.start(node, "scope")
    ours = node.spawn(idle)
    scope.join(GROUP, ours)
    await node.connect(beam.name)
    await eventually(lambda: beam.eval(WATCHING))
    signals = count_signals(node, monkeypatch)
    await beam.eval("timer:sleep(3000)")  # driven over stdio: nothing of this crosses the connection
    assert signals == []
    await beam.eval(START_PG, S=SCOPE)
    theirs = await join_there(beam)
    await all_see([node], [beam], GROUP, [theirs, ours])
    await eventually(lambda: beam.eval(f"not ({WATCHING})"))


async def test_a_pair_that_agrees_is_silent(
    beam: Beam, start_node: StartNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = await start_node()
    await beam.eval(START_PG, S=SCOPE)
    await pg.join(node, GROUP, ours := node.spawn(idle), scope="scope")
    await node.connect(beam.name)
    await all_see([node], [beam], GROUP, [ours])
    await eventually(lambda: pg.start(node, "scope").machine.next_deadline() is None)
    signals = count_signals(node, monkeypatch)
    await beam.eval("timer:sleep(3000)")
    assert signals == []


async def test_a_scope_process_that_crashes_there_comes_back(beam: Beam, start_node: StartNode) -> None:
    node = await start_node()
    await beam.eval(START_PG, S=SCOPE)
    scope = pg.start(node, "scope")
    await node.connect(beam.name)
    ours, theirs = node.spawn(idle), await join_there(beam)
    scope.join(GROUP, ours)
    await all_see([node], [beam], GROUP, [ours, theirs])
    await beam.eval("exit(whereis(S), kill)", S=SCOPE)
    await eventually(lambda: scope.get_members(GROUP) == [ours])
    await beam.eval(START_PG, S=SCOPE)
    again = await join_there(beam)
    await all_see([node], [beam], GROUP, [ours, again])


async def test_our_scope_process_that_is_killed_comes_back_with_its_members(
    beam: Beam, start_node: StartNode
) -> None:
    node = await start_node()
    await beam.eval(START_PG, S=SCOPE)
    scope = pg.start(node, "scope")
    await node.connect(beam.name)
    ours, theirs = node.spawn(idle), await join_there(beam)
    scope.join(GROUP, ours)
    await all_see([node], [beam], GROUP, [ours, theirs])
    before = scope.process.pid
    await beam.eval("exit(P, kill)", P=before)
    await eventually(lambda: scope.process.alive and scope.process.pid != before)
    await all_see([node], [beam], GROUP, [ours, theirs])
    node.system.exit(ours, "kill")
    await all_see([node], [beam], GROUP, [theirs])


async def test_a_cut_link_hides_the_others_and_a_healed_one_shows_them(
    beams: Beams, start_node: StartNode
) -> None:
    one, two = await beams.start(), await beams.start()
    node = await start_node()
    assert await one.eval("net_adm:ping(N)", N=Atom(two.name)) == Atom("pong")
    for beam in (one, two):
        await beam.eval(START_PG, S=SCOPE)
        await node.connect(beam.name)
    scope = pg.start(node, "scope")
    ours, first, second = node.spawn(idle), await join_there(one), await join_there(two)
    scope.join(GROUP, ours)
    await all_see([node], [one, two], GROUP, [ours, first, second])
    await one.disconnect(node.name)
    await all_see([node], [], GROUP, [ours, second])
    await all_see([], [one], GROUP, [first, second])
    await all_see([], [two], GROUP, [ours, first, second])
    scope.join(GROUP, ours)
    await node.connect(one.name)
    await all_see([node], [one, two], GROUP, [ours, ours, first, second])


async def test_a_node_that_comes_back_under_its_name_starts_empty(beam: Beam, start_node: StartNode) -> None:
    name = unique_name()
    await beam.eval(START_PG, S=SCOPE)
    theirs = await join_there(beam)
    node = await start_node(name)
    await node.connect(beam.name)
    ours = node.spawn(idle)
    await pg.join(node, GROUP, ours, scope="scope")
    await all_see([node], [beam], GROUP, [ours, theirs])
    await node.stop()
    await all_see([], [beam], GROUP, [theirs])
    again = await start_node(name)
    await again.connect(beam.name)
    ours = again.spawn(idle)
    await pg.join(again, GROUP, ours, scope="scope")
    await all_see([again], [beam], GROUP, [ours, theirs])


async def test_python_nodes_find_each_other_whenever_a_scope_starts(start_node: StartNode) -> None:
    one, two = await start_node(), await start_node()
    first, second = one.spawn(idle), two.spawn(idle)
    await pg.join(one, GROUP, first, scope="scope")
    await one.connect(two.name)
    await pg.join(two, GROUP, second, scope="scope")
    await all_see([one, two], [], GROUP, [first, second])


async def test_subscribers_get_joins_and_leaves_of_all_nodes(beam: Beam, start_node: StartNode) -> None:
    node = await start_node()
    await beam.eval(START_PG, S=SCOPE)
    pg.start(node, "scope")
    await node.connect(beam.name)
    async with node.process() as me:
        ref, members = await pg.monitor(me, GROUP, scope="scope")
        every, groups = await pg.monitor_scope(me, scope="scope")
        assert (members, groups) == ([], [])
        theirs = await join_there(beam)
        other = await join_there(beam, b"other")

        async def received(count: int) -> list[Any]:
            return [await me.receive(timeout=60) for _ in range(count)]

        assert Counter(map(repr, await received(3))) == Counter(
            map(
                repr,
                [
                    (ref, Atom("join"), GROUP, [theirs]),
                    (every, Atom("join"), GROUP, [theirs]),
                    (every, Atom("join"), b"other", [other]),
                ],
            )
        )
        assert await pg.demonitor(me, every, scope="scope")
        await beam.eval("exit(P, kill)", P=theirs)
        assert await received(1) == [(ref, Atom("leave"), GROUP, [theirs])]
        assert not await pg.demonitor(me, every, scope="scope")


async def test_a_process_of_the_beam_monitors_our_group_and_our_scope(
    beam: Beam, start_node: StartNode
) -> None:
    node = await start_node()
    await beam.eval(START_PG, S=SCOPE)
    scope = pg.start(node, "scope")
    await node.connect(beam.name)
    watcher = await beam.eval(
        "Self = self(), W = spawn(fun() -> R = gen_server:call({S, N}, {monitor, G}), Self ! {self(), R},"
        " (fun L(A) -> receive {get, F} -> F ! {self(), lists:reverse(A)}, L(A); M -> L([M | A]) end end)([])"
        " end), receive {W, {Ref, []}} -> {W, Ref} end",
        S=SCOPE,
        N=Atom(node.name),
        G=GROUP,
    )
    pid, ref = watcher
    ours = node.spawn(idle)
    scope.join(GROUP, ours)
    scope.leave(GROUP, ours)
    expected = [(ref, Atom("join"), GROUP, [ours]), (ref, Atom("leave"), GROUP, [ours])]
    await eventually(lambda: beam.eval("W ! {get, self()}, receive {W, A} -> A =:= E end", W=pid, E=expected))
    join = "gen_server:call({S, N}, {join_local, G, P})"
    there = await beam.eval(join, S=SCOPE, N=Atom(node.name), G=GROUP, P=ours)
    assert there is Atom("ok")
    await all_see([node], [beam], GROUP, [ours])


async def test_what_is_no_message_of_pg_changes_nothing(
    beam: Beam, start_node: StartNode, caplog: pytest.LogCaptureFixture
) -> None:
    node = await start_node()
    await beam.eval(START_PG, S=SCOPE)
    scope = pg.start(node, "scope")
    await node.connect(beam.name)
    theirs = await join_there(beam)
    await all_see([node], [beam], GROUP, [theirs])
    to = (Atom("scope"), Atom(node.name))
    peer = await beam.eval("whereis(S)", S=SCOPE)
    for message in [
        Atom("nonsense"),
        (Atom("$gen_cast"), (Atom("sync"), peer, [(GROUP, Atom("nobody"))])),
        (Atom("$gen_cast"), (Atom("sync"), peer, Atom("nothing"))),
        (Atom("join"), peer, bytes(1_000_000), theirs),
        (Atom("join"), peer, GROUP, [1]),
        (Atom("discover"), Pid("stranger@localhost", 1, 0, 1)),
    ] * 2:
        await beam.eval("T ! M, ok", T=to, M=message)
    # A payload that is no term at all is dropped below the scope; the connection lives.
    await eventually(lambda: scope.machine.rejections.count == 12, 5.0)
    assert scope.which_groups() == [GROUP]
    assert len([r for r in caplog.records if r.name == "pyglyn.groups"]) == 5
    await all_see([node], [beam], GROUP, [theirs])


async def test_a_stopped_scope_is_forgotten_by_all_and_a_stopped_node_leaves_nothing(
    start_node: StartNode,
) -> None:
    one, two = await start_node(), await start_node()
    await one.connect(two.name)
    scope, other = pg.start(one, "scope"), pg.start(two, "scope")
    scope.join(GROUP, one.spawn(idle))
    await eventually(lambda: len(other.get_members(GROUP)) == 1)
    assert pg.stop(one, "scope")
    assert not pg.stop(one, "scope")
    await eventually(lambda: other.get_members(GROUP) == [])
    again = pg.start(one, "scope")
    assert again is not scope
    again.join(GROUP, one.spawn(idle))
    await eventually(lambda: len(other.get_members(GROUP)) == 1)
    await one.stop()
    assert operations.running(one, "scope") is None
    await eventually(lambda: other.get_members(GROUP) == [])


async def test_processes_of_the_hub_use_the_functions_with_themselves(start_node: StartNode) -> None:
    node = await start_node()
    pg.start(node, "scope")

    async def body(me: Process, to: Pid) -> None:
        await pg.join(me, GROUP, me.pid, scope="scope")
        me.send(to, await pg.get_members(me, GROUP, scope="scope"))

    async with node.process() as me:
        member = node.spawn(body, me.pid)
        assert await me.receive(timeout=60) == [member]


async def test_three_nodes_with_partial_connections(beams: Beams, start_node: StartNode) -> None:
    one, two, node = await beams.start(), await beams.start(), await start_node()
    for beam in (one, two):
        await beam.eval(START_PG, S=SCOPE)
    assert await one.eval("net_adm:ping(N)", N=Atom(two.name)) is Atom("pong")
    first, second = await join_there(one), await join_there(two)
    scope = pg.start(node, "scope")
    ours = node.spawn(idle)
    scope.join(GROUP, ours)
    await node.connect(one.name)
    await all_see([node], [], GROUP, [first, ours])
    await all_see([], [one], GROUP, [first, second, ours])
    await all_see([], [two], GROUP, [first, second])
    await node.connect(two.name)
    everyone = [first, second, ours]
    await all_see([node], [one, two], GROUP, everyone)
    await one.disconnect(node.name)
    await all_see([node], [], GROUP, [second, ours])
    await all_see([], [one], GROUP, [first, second])
    await node.connect(one.name)
    await all_see([node], [one, two], GROUP, everyone)

"""Our syn scopes beside those of real syn releases: each sees what the other sees."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pyglyn.errors import CallFailed, NoProcess, NotInGroup, RegistrationFailed
from pyglyn.etf import Atom, Pid
from pyglyn.groups import syn
from pyglyn.groups.effects import Event
from pyglyn.node import Node, Process
from pyglyn.testing import Beam, eventually
from pyglyn.testing.waiting import patiently
from tests.groups.conftest import StartNode, count_signals, idle, unique_name
from tests.peers import SynBeams

SCOPE = "example"
UNDEFINED = Atom("undefined")
OK = Atom("ok")
GROUP = b"users"


async def there(beam: Beam, text: str, **bindings: Any) -> Any:
    return await beam.eval(text, **bindings)


async def view_there(beam: Beam, group: Any = GROUP) -> dict[Any, Any]:
    return dict(await beam.eval("syn:members(example, G)", G=group))


async def views_agree(
    nodes: list[Node], beams: list[Beam], members: dict[Pid, Any], group: Any = GROUP
) -> None:
    """Wait until every node has exactly these members of the group."""
    for node in nodes:
        await eventually(lambda node=node: dict(syn.start(node, SCOPE).groups.members(group)) == members)
    for beam in beams:
        assert beam.alive, beam.log()

        async def same(beam: Beam = beam) -> bool:
            assert await view_there(beam, group) == members
            return True

        await eventually(same)


async def names_agree(nodes: list[Node], beams: list[Beam], name: Any, entry: Any) -> None:
    """Wait until every node has this process and metadata under the name (None: nobody)."""
    for node in nodes:
        await eventually(lambda node=node: syn.start(node, SCOPE).registry.lookup(name) == entry)
    for beam in beams:
        assert beam.alive, beam.log()
        expected = UNDEFINED if entry is None else entry

        async def same(beam: Beam = beam, expected: Any = expected) -> bool:
            assert await beam.eval("syn:lookup(example, N)", N=name) == expected
            return True

        await eventually(same)


@pytest.mark.parametrize("order", ["scope first", "connection first", "late scope", "they connect"])
async def test_both_sides_see_all_members_and_names_whoever_starts_first(
    order: str, syn_beams: SynBeams, start_node: StartNode
) -> None:
    node = await start_node()
    beam = await syn_beams.start(scopes=() if order == "late scope" else (SCOPE,))
    if order == "connection first":
        await node.connect(beam.name)
    ours = node.spawn(idle)
    await syn.join(node, SCOPE, GROUP, ours, {b"of": 1})
    await syn.register(node, SCOPE, b"ours", ours)
    if order == "they connect":
        assert await beam.eval("net_adm:ping(N)", N=Atom(node.name)) is Atom("pong")
    else:
        await node.connect(beam.name)
    if order == "late scope":
        await eventually(lambda: beam.eval(WATCHING))
        await beam.eval("ok = syn:add_node_to_scopes([example])")
    theirs = await beam.eval("syn_driver:join(example, G)", G=GROUP)
    named = await beam.eval("syn_driver:register(example, N, {meta, 1})", N=b"theirs")
    await views_agree([node], [beam], {ours: {b"of": 1}, theirs: UNDEFINED})
    await names_agree([node], [beam], b"ours", (ours, UNDEFINED))
    await names_agree([node], [beam], b"theirs", (named, (Atom("meta"), 1)))


WATCHING = "[P || P <- processes(), {_, {erpc, execute_call, 4}} <- [process_info(P, initial_call)]] =/= []"


async def test_joins_updates_and_leaves_travel_both_ways(syn_beams: SynBeams, start_node: StartNode) -> None:
    beam, node = await syn_beams.start(), await start_node()
    await node.connect(beam.name)
    ours = node.spawn(idle)
    await syn.join(node, SCOPE, GROUP, ours)
    theirs = await beam.eval("syn_driver:join(example, G)", G=GROUP)
    await views_agree([node], [beam], {ours: UNDEFINED, theirs: UNDEFINED})
    await syn.join(node, SCOPE, GROUP, ours, b"new")
    assert await syn.update_member(node, SCOPE, GROUP, ours, lambda meta: [meta]) == (ours, [b"new"])
    await beam.eval("syn:update_member(example, G, P, fun(undefined) -> 7 end)", G=GROUP, P=theirs)
    await views_agree([node], [beam], {ours: [b"new"], theirs: 7})
    assert await syn.is_member(node, SCOPE, GROUP, theirs)
    assert await syn.member_count(node, SCOPE, GROUP) == 2
    assert await syn.member_count(node, SCOPE, GROUP, node=beam.name) == 1
    assert await syn.local_members(node, SCOPE, GROUP) == [(ours, [b"new"])]
    assert await syn.group_names(node, SCOPE) == [GROUP]
    await syn.leave(node, SCOPE, GROUP, ours)
    with pytest.raises(NotInGroup):
        await syn.leave(node, SCOPE, GROUP, ours)
    await beam.eval("syn_driver:crash(P, oops)", P=theirs)
    await views_agree([node], [beam], {})


async def test_calls_for_our_processes_from_there_and_for_theirs_from_here(
    syn_beams: SynBeams, start_node: StartNode
) -> None:
    beam, node = await syn_beams.start(), await start_node()
    await node.connect(beam.name)
    ours = node.spawn(idle)
    theirs = await beam.eval("syn_driver:member()")
    syn.start(node, SCOPE)
    await eventually(lambda: syn.start(node, SCOPE).groups.subcluster_nodes() == [beam.name])
    await eventually(lambda: syn.start(node, SCOPE).registry.subcluster_nodes() == [beam.name])
    assert await beam.eval("syn:join(example, G, P, 1)", G=GROUP, P=ours) is OK
    assert await view_there(beam) == {ours: 1}  # the caller's own view has it at once
    assert await beam.eval("syn:join(example, G, P, 2)", G=GROUP, P=ours) is OK
    await syn.join(node, SCOPE, GROUP, theirs, 3)
    assert dict(await syn.members(node, SCOPE, GROUP)) == {ours: 2, theirs: 3}
    await views_agree([node], [beam], {ours: 2, theirs: 3})
    update = "syn:update_member(example, G, P, fun(M) -> M end)"
    assert await beam.eval(update, G=GROUP, P=ours) == (Atom("error"), Atom("notsup"))
    assert await beam.eval("syn:leave(example, G, P)", G=GROUP, P=ours) is OK
    await syn.leave(node, SCOPE, GROUP, theirs)
    await views_agree([node], [beam], {})
    assert await beam.eval("syn:register(example, <<1>>, P, m)", P=ours) is OK
    taken = (Atom("error"), Atom("taken"))
    assert await beam.eval("syn:register(example, <<1>>, P, m)", P=theirs) == taken
    await syn.register(node, SCOPE, b"2", theirs, b"m")
    await names_agree([node], [beam], b"\x01", (ours, Atom("m")))
    await names_agree([node], [beam], b"2", (theirs, b"m"))
    with pytest.raises(RegistrationFailed):
        await syn.register(node, SCOPE, b"2", ours)
    await syn.unregister(node, SCOPE, b"2")
    assert await beam.eval("syn:unregister(example, <<1>>)") is OK
    assert await syn.count(node, SCOPE) == 0 == await beam.eval("syn:registry_count(example)")
    node.system.exit(ours, "kill")
    not_alive = (Atom("error"), Atom("not_alive"))
    assert await beam.eval("syn:join(example, G, P)", G=GROUP, P=ours) == not_alive
    with pytest.raises(NoProcess):
        await syn.join(node, SCOPE, GROUP, ours)
    elsewhere = Pid("nobody@localhost", 1, 0, 1)
    with pytest.raises(CallFailed):
        await syn.join(node, SCOPE, GROUP, elsewhere)


async def test_messages_reach_members_on_both_sides(syn_beams: SynBeams, start_node: StartNode) -> None:
    beam, node = await syn_beams.start(), await start_node()
    await node.connect(beam.name)
    async with node.process() as me:
        await syn.join(node, SCOPE, GROUP, me.pid)
        theirs = await beam.eval("syn_driver:join(example, G)", G=GROUP)
        await views_agree([node], [beam], {me.pid: UNDEFINED, theirs: UNDEFINED})
        assert await syn.publish(node, SCOPE, GROUP, (Atom("from"), b"py")) == 2
        assert await beam.eval("syn_driver:wait(P, 1, 5000)", P=theirs) == [(Atom("from"), b"py")]
        assert await me.receive(timeout=60) == (Atom("from"), b"py")
        assert await beam.eval("syn:publish(example, G, hello)", G=GROUP) == (OK, 2)
        assert await me.receive(timeout=60) is Atom("hello")
        assert await syn.local_publish(node, SCOPE, GROUP, 1) == 1
        assert await me.receive(timeout=60) == 1


async def test_multi_calls_are_made_and_answered(syn_beams: SynBeams, start_node: StartNode) -> None:
    beam, node = await syn_beams.start(), await start_node()
    await node.connect(beam.name)

    async def echo(me: Process) -> None:
        while True:
            match await me.receive():
                case (Atom("syn_multi_call"), message, caller, meta):
                    syn.multi_call_reply(me, caller, (message, meta))

    ours, silent = node.spawn(echo), node.spawn(idle)
    await syn.join(node, SCOPE, GROUP, ours, b"meta")
    await syn.join(node, SCOPE, GROUP, silent)
    theirs = await beam.eval(
        "P = spawn(fun F() -> receive {syn_multi_call, M, C, _} -> syn:multi_call_reply(C, {beam, M}), F() end"
        " end), ok = syn:join(example, G, P), P",
        G=GROUP,
    )
    await views_agree([node], [beam], {ours: b"meta", silent: UNDEFINED, theirs: UNDEFINED})
    replies, bad = await syn.multi_call(node, SCOPE, GROUP, 1, timeout=patiently(0.5))
    expected = {ours: (1, b"meta"), theirs: (Atom("beam"), 1)}
    assert {pid: reply for (pid, _), reply in replies} == expected
    assert bad == [(silent, UNDEFINED)]
    node.system.exit(silent, "kill")
    await views_agree([node], [beam], {ours: b"meta", theirs: UNDEFINED})
    replies, bad = await beam.eval("syn:multi_call(example, G, 2, 30000)", G=GROUP)
    assert {pid: reply for (pid, _), reply in replies} == {ours: (2, b"meta"), theirs: (Atom("beam"), 2)}
    assert bad == []


async def test_a_name_registered_apart_stays_with_the_later_one(
    syn_beams: SynBeams, start_node: StartNode
) -> None:
    beam, node = await syn_beams.start(), await start_node()
    async with node.process() as first, node.process() as second:
        first.trap_exit = True
        await syn.register(node, SCOPE, b"early", first.pid, b"m")
        theirs = await beam.eval("syn_driver:register(example, N, theirs)", N=b"early")
        loser = await beam.eval("syn_driver:register(example, N, theirs)", N=b"late")
        await syn.register(node, SCOPE, b"late", second.pid, b"ours")
        await node.connect(beam.name)
        kill = (Atom("syn_resolve_kill"), b"early", b"m")
        assert await first.receive(timeout=60) == (
            Atom("EXIT"),
            syn.start(node, SCOPE).registry.process.pid,
            kill,
        )
        await names_agree([node], [beam], b"early", (theirs, Atom("theirs")))
        await names_agree([node], [beam], b"late", (second.pid, b"ours"))
        await eventually(lambda: beam.eval("not is_process_alive(P)", P=loser))


async def test_a_function_of_ours_decides_conflicts(syn_beams: SynBeams, start_node: StartNode) -> None:
    beam, node = await syn_beams.start(), await start_node()
    await beam.load(Path(__file__).parent / "keep_least.erl")
    await beam.eval("syn:set_event_handler(keep_least)")
    syn.start(node, SCOPE, resolve=lambda scope, name, one, two: min(one, two, key=lambda each: each[1])[0])
    ours, others = node.spawn(idle), node.spawn(idle)
    await syn.register(node, SCOPE, b"a", ours, 1)
    theirs = await beam.eval("syn_driver:register(example, <<98>>, 1)")
    worse = await beam.eval("syn_driver:register(example, <<97>>, 2)")
    await syn.register(node, SCOPE, b"b", others, 2)
    await node.connect(beam.name)
    await names_agree([node], [beam], b"a", (ours, 1))
    await names_agree([node], [beam], b"b", (theirs, 1))
    assert await beam.eval("is_process_alive(P)", P=worse) is True  # losers are not killed then
    assert others.id in node.runtime.processes


async def test_crashes_of_scope_processes_on_either_side_heal(
    syn_beams: SynBeams, start_node: StartNode
) -> None:
    beam, node = await syn_beams.start(), await start_node()
    await node.connect(beam.name)
    ours = node.spawn(idle)
    await syn.join(node, SCOPE, GROUP, ours)
    await syn.register(node, SCOPE, b"ours", ours)
    theirs = await beam.eval("syn_driver:join(example, G)", G=GROUP)
    everyone = {ours: UNDEFINED, theirs: UNDEFINED}
    await views_agree([node], [beam], everyone)
    pid = await beam.eval("whereis(syn_pg_example)")
    await beam.eval("exit(whereis(syn_pg_example), kill), exit(whereis(syn_registry_example), kill)")
    await eventually(lambda: beam.eval("not lists:member(whereis(syn_pg_example), [undefined, P])", P=pid))
    await views_agree([node], [beam], everyone)
    await names_agree([node], [beam], b"ours", (ours, UNDEFINED))
    scope = syn.start(node, SCOPE)
    before = scope.groups.process.pid
    await beam.eval("exit(P, kill)", P=before)
    await eventually(lambda: scope.groups.process.pid != before)
    await views_agree([node], [beam], everyone)
    node.system.exit(ours, "kill")
    await views_agree([node], [beam], {theirs: UNDEFINED})
    await names_agree([node], [beam], b"ours", None)


async def test_three_nodes_with_partial_connections(syn_beams: SynBeams, start_node: StartNode) -> None:
    one, two, node = await syn_beams.start(), await syn_beams.start(), await start_node()
    assert await one.eval("net_adm:ping(N)", N=Atom(two.name)) is Atom("pong")
    first = await one.eval("syn_driver:join(example, G)", G=GROUP)
    second = await two.eval("syn_driver:join(example, G)", G=GROUP)
    ours = node.spawn(idle)
    await syn.join(node, SCOPE, GROUP, ours)
    await node.connect(one.name)
    await eventually(lambda: set(dict(syn.start(node, SCOPE).groups.members(GROUP))) == {first, ours})
    await views_agree([], [one], {first: UNDEFINED, second: UNDEFINED, ours: UNDEFINED})
    await views_agree([], [two], {first: UNDEFINED, second: UNDEFINED})
    await node.connect(two.name)
    everyone = {first: UNDEFINED, second: UNDEFINED, ours: UNDEFINED}
    await views_agree([node], [one, two], everyone)
    await one.disconnect(node.name)
    await views_agree([node], [], {second: UNDEFINED, ours: UNDEFINED})
    await views_agree([], [one], {first: UNDEFINED, second: UNDEFINED})
    await node.connect(one.name)
    await views_agree([node], [one, two], everyone)


async def test_a_node_that_comes_back_under_its_name_replaces_its_entries(
    syn_beams: SynBeams, start_node: StartNode
) -> None:
    name, beam = unique_name(), await syn_beams.start()
    node = await start_node(name)
    await node.connect(beam.name)
    ours = node.spawn(idle)
    await syn.join(node, SCOPE, GROUP, ours)
    await syn.register(node, SCOPE, b"n", ours)
    await views_agree([node], [beam], {ours: UNDEFINED})
    await node.stop()
    await views_agree([], [beam], {})
    again = await start_node(name)
    await again.connect(beam.name)
    ours = again.spawn(idle)
    await syn.join(again, SCOPE, GROUP, ours, 1)
    await syn.register(again, SCOPE, b"n", ours)
    await views_agree([again], [beam], {ours: 1})
    await names_agree([again], [beam], b"n", (ours, UNDEFINED))


async def test_events_tell_what_changed_and_why(syn_beams: SynBeams, start_node: StartNode) -> None:
    beam, node = await syn_beams.start(), await start_node()
    events: list[Event] = []
    scope = syn.start(node, SCOPE)
    remove = scope.on_event(events.append)
    theirs = await beam.eval("syn_driver:join(example, G, 1)", G=GROUP)
    await node.connect(beam.name)
    await views_agree([node], [], {theirs: 1})
    await beam.eval("syn:join(example, G, P, 2)", G=GROUP, P=theirs)
    await beam.eval("syn_driver:crash(P, oops)", P=theirs)
    await views_agree([node], [beam], {})
    up = (Atom("syn_remote_scope_node_up"), Atom(SCOPE), Atom(beam.name))
    assert [(e.kind, e.name, e.pid, e.previous_meta, e.meta, e.reason) for e in events] == [
        ("joined", GROUP, theirs, None, 1, up),
        ("member_updated", GROUP, theirs, 1, 2, Atom("normal")),
        ("left", GROUP, theirs, None, 2, Atom("oops")),
    ]
    named = await beam.eval("syn_driver:register(example, <<110>>, 1)")
    await names_agree([node], [], b"n", (named, 1))
    del events[:]
    await beam.disconnect(node.name)
    await names_agree([node], [], b"n", None)
    down = (Atom("syn_remote_scope_node_down"), Atom(SCOPE), Atom(beam.name))
    assert [(e.kind, e.name, e.pid, e.reason) for e in events] == [("unregistered", b"n", named, down)]
    remove()
    await syn.join(node, SCOPE, GROUP, node.spawn(idle))
    assert len(events) == 1
    assert await beam.eval("length(syn_driver:callbacks())") >= 4


async def test_what_is_no_message_of_syn_changes_nothing(
    syn_beams: SynBeams, start_node: StartNode, caplog: pytest.LogCaptureFixture
) -> None:
    beam, node = await syn_beams.start(), await start_node()
    await node.connect(beam.name)
    theirs = await beam.eval("syn_driver:join(example, G)", G=GROUP)
    scope = syn.start(node, SCOPE)
    await views_agree([node], [beam], {theirs: UNDEFINED})
    v3, peer = Atom("3.0"), await beam.eval("whereis(syn_pg_example)")
    stranger = Pid("stranger@localhost", 1, 0, 1)
    bad = [
        Atom("nonsense"),
        (Atom("$gen_cast"), 1),
        (v3, Atom("ack_sync"), peer, [(GROUP, theirs)]),
        (v3, Atom("sync_join"), bytes(1_000_000), theirs, 1, 1, Atom("normal")),
        (v3, Atom("sync_join"), GROUP, theirs, 1),
        (v3, Atom("discover"), stranger),
        (v3, Atom("sync_join"), GROUP, stranger, 1, 1, Atom("normal")),
    ]
    for message in bad * 2:
        await beam.eval("{syn_pg_example, N} ! M, ok", N=Atom(node.name), M=message)
    await eventually(lambda: scope.groups.machine.rejections.count == 2 * len(bad), 5.0)
    assert scope.groups.members(GROUP) == [(theirs, UNDEFINED)]
    dropped = [r.getMessage() for r in caplog.records if r.name == "pyglyn.groups"]
    assert len(dropped) == len(set(dropped)) == 6  # the two that are no messages of syn at all are one kind
    assert await beam.eval("gen_server:call({syn_pg_example, N}, what)", N=Atom(node.name)) is UNDEFINED
    nodes = "gen_server:call({syn_pg_example, N}, {'3.0', subcluster_nodes})"
    assert await beam.eval(nodes, N=Atom(node.name)) == [Atom(beam.name)]


async def test_metadata_that_do_not_decode_are_dropped_with_their_message(
    syn_beams: SynBeams, start_node: StartNode, caplog: pytest.LogCaptureFixture
) -> None:
    beam, node = await syn_beams.start(), await start_node()
    await node.connect(beam.name)
    scope = syn.start(node, SCOPE)
    theirs = await beam.eval("syn_driver:join(example, G)", G=GROUP)
    await views_agree([node], [beam], {theirs: UNDEFINED})
    deep = "lists:foldl(fun(_, Inner) -> [Inner] end, [], lists:seq(1, 1000000))"
    await beam.eval(f"ok = syn:join(example, G, P, {deep}), ok", G=GROUP, P=theirs)
    await eventually(lambda: node.runtime.refused == 1)
    assert "does not decode" in caplog.text
    assert scope.groups.members(GROUP) == [(theirs, UNDEFINED)]
    await beam.eval("syn:join(example, G, P, 1)", G=GROUP, P=theirs)
    await views_agree([node], [beam], {theirs: 1})


async def test_a_pair_that_agrees_is_silent(
    syn_beams: SynBeams, start_node: StartNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    beam, node = await syn_beams.start(scopes=(SCOPE, "second")), await start_node()
    ours = node.spawn(idle)
    await syn.join(node, SCOPE, GROUP, ours)
    absent = syn.start(node, "absent")
    await node.connect(beam.name)
    await views_agree([node], [beam], {ours: UNDEFINED})
    scopes = [syn.start(node, SCOPE), syn.start(node, "absent")]
    for each in [process for scope in scopes for process in (scope.groups, scope.registry)]:
        await eventually(lambda each=each: each.machine.next_deadline() is None)
    signals = count_signals(node, monkeypatch)
    await beam.eval("timer:sleep(3000)")  # driven over stdio: nothing of this crosses the connection
    assert signals == []
    await beam.eval("ok = syn:add_node_to_scopes([absent])")
    await eventually(lambda: absent.groups.subcluster_nodes() == [beam.name])


async def test_python_nodes_and_syn_agree_on_a_name_after_a_cut(
    syn_beams: SynBeams, start_node: StartNode
) -> None:
    beam, one, two = await syn_beams.start(), await start_node(), await start_node()
    for node in (one, two):
        syn.start(node, SCOPE)
    first, second = one.spawn(idle), two.spawn(idle)
    await syn.register(one, SCOPE, b"n", first, 1)
    await syn.register(two, SCOPE, b"n", second, 2)
    await one.connect(beam.name)
    await names_agree([one], [beam], b"n", (first, 1))
    await two.connect(beam.name)
    await names_agree([two], [beam], b"n", (second, 2))
    await one.connect(two.name)
    await names_agree([one, two], [beam], b"n", (second, 2))
    await eventually(lambda: first.id not in one.runtime.processes)

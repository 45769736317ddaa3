"""A real node with the cookie that means harm: each thing it sends, and the node at its work afterwards.

What no real node can send, such as packets that break the protocol, is sent by raw peers elsewhere
(``test_hostile_peers.py``, ``tests/net/test_adversaries.py``).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from pyglyn.etf import Atom
from pyglyn.groups import pg, syn
from pyglyn.node import Node, Settings
from pyglyn.supervision import Supervisor, start, supervisor, worker
from pyglyn.testing import Beam, eventually
from tests.node.conftest import unique_name
from tests.node.test_any_term import Stock, idle, works


@pytest_asyncio.fixture
async def victim(beam: Beam) -> AsyncIterator[Node]:
    """A node with a tree, groups and names."""
    settings = Settings(calls_of_a_node=200)
    async with Node(unique_name(), cookie=beam.cookie, settings=settings) as node:
        pg.start(node)
        syn.start(node, "example")
        below = Supervisor(name="below").add(worker(idle, name="deep", isolation="task"))
        tree = Supervisor(name="tree").add(worker(Stock, name="stock")).add(supervisor(below, name="below"))
        await start(node, tree)
        await eventually(lambda: node.whereis("deep"))
        yield node


INTERNAL = {
    "child": "{'$child', [], self()}",
    "child by its number": "{'$child', make_ref(), self()}",
    "forced": '{\'$forced\', <<"x\\nFAKE ERROR: ", 27, "[2J">>}',
    "nothing": "{}",
    "half a down": "{'DOWN'}",
    "half an exit": "{'EXIT'}",
    "a down of ours": "{'DOWN', make_ref(), process, NetKernel, killed}",
    "an exit of ours": "{'EXIT', Tree, shutdown}",
    "its secret guessed": "{'$pyglyn', <<>>, {'$child', make_ref(), self()}}",
    "a checkpoint": "{'$checkpoint', self(), []}",
    "arrived": "{'$arrived', node(), {'$arrived', a, {'$gen_call', {self(), a}, {spawn, a, b, c, d}}}}",
    "improper": "[a | b]",
}


async def test_what_only_the_nodes_own_processes_may_say_is_believed_from_no_peer(
    beam: Beam, victim: Node, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    pids = {name: victim.whereis(name) for name in sorted(victim.runtime.names)}
    where = {"N": Atom(victim.name), "Names": [Atom(name) for name in pids]}
    theirs = {name: victim.whereis(name) for name in ("net_kernel", "tree")}
    for what, message in INTERNAL.items():
        sent = f"[{{Name, N}} ! {message} || Name <- Names], ok"
        await beam.eval(sent, NetKernel=theirs["net_kernel"], Tree=theirs["tree"], **where)
        for name in pids:
            assert await beam.eval("net_adm:ping(N)", **where) is Atom("pong")
            assert {name: victim.whereis(name) for name in pids} == pids, what
    await works(victim, beam, "stock")
    assert {name: victim.whereis(name) for name in pids} == pids
    lines = [line for record in caplog.records for line in record.getMessage().splitlines()]
    assert not [line for line in lines if line.startswith("FAKE")]
    assert "\x1b" not in "".join(lines)


async def test_an_end_that_is_made_up_is_not_believed(beam: Beam, victim: Node) -> None:
    """References are counted, so a peer may name that of any monitor; a signal comes from whoever has ended."""
    async with Node(unique_name("other"), cookie=beam.cookie) as other, other.process() as member:
        pg.start(other)
        await other.connect(victim.name)
        await pg.join(other, "kept", member.pid)

        async def is_seen() -> bool:
            return member.pid in await pg.get_members(victim, "kept")

        await eventually(is_seen)
        scope = victim.whereis("pg")
        assert scope is not None
        for ref in [*victim.runtime.processes[scope.id].signals.monitors]:
            await beam.eval("P ! {'DOWN', R, process, self(), lie}, ok", P=scope, R=ref)
        asked = "gen_server:call(P, {join_local, g, self()}, 60000)"
        await beam.eval(f"catch {asked}", P=scope, timeout=120)  # all before it has been taken
        assert await is_seen()


@pytest.mark.parametrize("name", ["net_kernel", "rex", "user", "pg", "syn_pg_example"])
async def test_what_serves_every_node_is_suspended_by_none(beam: Beam, victim: Node, name: str) -> None:
    where = {"N": Atom(victim.name), "P": victim.whereis(name)}
    assert where["P"] is not None
    await beam.eval("catch sys:suspend(P, 60000), ok", timeout=120, **where)
    status = await beam.eval("sys:get_status(P, 60000)", timeout=120, **where)
    assert status[3][1] is Atom("running")
    assert await beam.eval("net_adm:ping(N)", **where) is Atom("pong")
    await works(victim, beam, "stock")


KILLS = {
    "kill": "exit(P, kill)",
    "a reason": "exit(P, {x, <<0:80000>>})",
    "normal": "exit(P, normal)",
    "a link that breaks": "spawn(fun() -> link(P), exit(die) end)",
    "a link to the dead": "spawn(fun() -> link(P), unlink(P), link(P), exit(kill) end)",
    "terminate": "(catch sys:terminate(P, because, 1000))",
    "suspend": "(catch sys:suspend(P, 1000)), (catch sys:resume(P, 1000))",
}


@pytest.mark.parametrize("name", ["net_kernel", "rex", "user", "pg"])
async def test_a_process_of_the_node_that_a_peer_ends_is_there_again(
    beam: Beam, victim: Node, name: str
) -> None:
    async with victim.process() as me:
        await pg.join(victim, "before", me.pid)
        where = {"N": Atom(victim.name), "Name": Atom(name)}

        async def at_work() -> bool:
            ping = await beam.eval("net_adm:ping(N)", **where)
            return ping is Atom("pong") and bool(victim.whereis(name)) and bool(victim.whereis("pg"))

        for how in KILLS.values():
            pid = victim.whereis(name)
            assert pid is not None
            await beam.eval(f"{how}, ok", P=pid, **where)
            await eventually(at_work, timeout=30)
        await works(victim, beam, "stock")
        assert me.pid in await pg.get_members(victim, "before")


PG = {
    "pids times groups": "{leave, S, [P || _ <- L], [{g, I} || I <- L]}",
    "one group again and again": "{leave, S, [P || _ <- L], [g || _ <- L]}",
    "joins with the pids of others": "{join, S, g, [rpc:call(N, erlang, whereis, [net_kernel]) || _ <- [1, 2]]}",
    "a sync with everything twice": "{'$gen_cast', {sync, S, [{{g, I rem 9}, [P, P]} || I <- L]}}",
    "a sync of what is no list": "{'$gen_cast', {sync, S, [{g, P} | h]}}",
    "groups of any kind": "{'$gen_cast', {sync, S, [{X, [P]} || X <- [1, 1.0, -0.0, #{}, [], {}, <<>>, self(), make_ref(), fun lists:map/2]]}}",
    "a group with a huge name": "{join, S, <<0:8000000>>, P}",
    "discovered again and again": "{discover, S}",
    "a version nobody has": "{discover, S, [x]}",
    "a subscription": "{'$gen_call', {self(), make_ref()}, monitor}",
}  # fmt: skip


async def test_a_scope_of_pg_takes_what_a_hostile_peer_sends(beam: Beam, victim: Node) -> None:
    where = {"N": Atom(victim.name)}
    started = "case pg:start(pg) of {ok, _} -> ok; {error, {already_started, _}} -> ok end"
    assert await beam.eval(started) is Atom("ok")
    join = "P = spawn(fun() -> receive stop -> ok end end), ok = pg:join(G, P), P"
    before = await beam.eval(join, G=Atom("before"))
    await victim.connect(beam.name)
    state = pg.start(victim)
    await eventually(lambda: state.get_members(Atom("before")) == [before])
    scope = victim.whereis("pg")
    for what, message in PG.items():
        hostile = (
            "S = whereis(pg), L = lists:seq(1, 3000), P = spawn(fun() -> receive stop -> ok end end),"
            f" [{{pg, N}} ! {message} || _ <- [1, 2, 3]], sys:get_state({{pg, N}}), ok"
        )
        assert await beam.eval(hostile, timeout=60, **where) is Atom("ok"), what
        assert victim.whereis("pg") == scope, what
    await works(victim, beam, "stock")
    # What it says rightly afterwards is taken, and with its scope all of it goes.
    after = await beam.eval(join, G=Atom("after all"))
    await eventually(lambda: state.get_members(Atom("after all")) == [after], timeout=30)
    await beam.eval("exit(whereis(pg), kill), ok")
    await eventually(lambda: not any(state.get_members(group) for group in state.which_groups()), timeout=30)


SYN = {
    "a name of ours": "{'3.0', sync_register, <<\"after\">>, P, [], erlang:system_time(), normal}",
    "a time in the far future": "{'3.0', sync_register, <<\"n\">>, P, [], 1 bsl 200, normal}",
    "a time that is none": "{'3.0', sync_register, <<\"n\">>, P, [], <<>>, normal}",
    "data of everybody": "{'3.0', ack_sync, S, [{{n, I}, P, [], I, make_ref(), node()} || I <- L]}",
    "data of nobody": "{'3.0', ack_sync, x, [{n}]}",
    "discovered again and again": "{'3.0', discover, S}",
    "discovered by a name": "{'3.0', discover, x}",
    "a call for a change": "{'$gen_call', {self(), make_ref()}, {'3.0', register_or_update_on_node, <<\"n\">>, S, P, []}}",
    "a call of the far side": "{'$gen_call', {self(), make_ref()}, {'3.0', subcluster_nodes}}",
    "a leave of everybody": "{'3.0', sync_leave, <<\"g\">>, rpc:call(N, erlang, whereis, [net_kernel]), [], normal}",
}  # fmt: skip


async def test_scopes_of_syn_take_what_a_hostile_peer_sends(beam: Beam, victim: Node) -> None:
    """From a node without a syn, under the names that its processes would have."""
    names = [Atom(name) for name in victim.runtime.names if name.startswith("syn_")]
    assert len(names) == 2
    where = {"N": Atom(victim.name), "Names": names}
    async with victim.process() as me:
        await syn.register(victim, "example", b"ours", me.pid)
        pids = [victim.whereis(name.name) for name in names]
        await beam.eval(
            "[register(Name, spawn(fun F() -> receive _ -> F() end end)) || Name <- Names], ok", **where
        )
        try:
            for what, message in SYN.items():
                hostile = (
                    "L = lists:seq(1, 3000), P = spawn(fun() -> receive stop -> ok end end),"
                    " lists:foreach(fun(Name) -> S = whereis(Name), {Name, N} ! {'3.0', discover, S},"
                    f" [{{Name, N}} ! {message} || _ <- [1, 2, 3]], sys:get_state({{Name, N}}) end, Names), ok"
                )
                assert await beam.eval(hostile, timeout=60, **where) is Atom("ok"), what
                assert [victim.whereis(name.name) for name in names] == pids, what
                found = await syn.lookup(victim, "example", b"ours")
                assert found is not None, what
                assert found[0] == me.pid, what
        finally:
            await beam.eval("[exit(whereis(Name), kill) || Name <- Names], ok", Names=names)
        await works(victim, beam, "stock")


FLOODS = {
    "trees nobody reads": "[erpc:send_request(N, pyglyn, tree, []) || _ <- lists:seq(1, 300)]",
    "messages for nodes that are not there": (
        "[{rex, N} ! {binary_to_term(<<131, 88, 119, 6, (<<\"x@y\">>)/binary, (integer_to_binary(100 + I))/binary,"
        " 1:32, 0:32, 7:32>>), {call, erlang, node, [], self()}} || I <- lists:seq(0, 800)]"
    ),
    "atoms": "[{stock, N} ! list_to_atom(\"a\" ++ integer_to_list(I)) || I <- lists:seq(1, 20000)]",
    "deep terms": "[{stock, N} ! lists:foldl(fun(_, T) -> [T] end, [], lists:seq(1, 100000)) || _ <- [1, 2, 3]]",
    "wide terms": "[{stock, N} ! lists:duplicate(1000000, []) || _ <- [1, 2, 3]]",
    "compressed nothing": "[{stock, N} ! binary_to_term(term_to_binary(<<0:80000000>>, [compressed])) || _ <- [1, 2]]",
    "maps of maps": "[{stock, N} ! lists:foldl(fun(_, T) -> #{T => T} end, #{}, lists:seq(1, 12)) || _ <- [1, 2, 3]]",
    "huge names": "[{list_to_atom(lists:duplicate(255, $é)), N} ! x || _ <- lists:seq(1, 3000)]",
}  # fmt: skip


@pytest.mark.parametrize("flood", FLOODS.values(), ids=FLOODS)
async def test_a_flood_of_a_real_node_leaves_others_answered(beam: Beam, victim: Node, flood: str) -> None:
    async with Node(unique_name("other"), cookie=beam.cookie) as other:
        await other.connect(victim.name)
        pings = 0

        async def ping() -> None:
            nonlocal pings
            while True:
                assert await other.ping(victim.name, 60.0)
                pings += 1
                await asyncio.sleep(0)

        pinging = asyncio.ensure_future(ping())
        await beam.eval(
            f"Run = fun(Fun) -> Fun() end, Run(fun() -> {flood}, ok end)", timeout=120, N=Atom(victim.name)
        )
        await eventually(lambda: pings > 5, timeout=60)
        pinging.cancel()
        await asyncio.gather(pinging, return_exceptions=True)
        # As many calls as a node takes may be under way, and then no other caller is served.
        await eventually(lambda: not len(victim.services.callers), timeout=60)
        await works(victim, beam, "stock")
        await eventually(lambda: not len(victim.services.callers), timeout=60)


async def atoms_known() -> int:
    from pyglyn.etf import terms

    return len(terms._interned)


async def test_atoms_of_a_peer_do_not_stay(beam: Beam, victim: Node) -> None:
    before = await atoms_known()
    many = FLOODS["atoms"].replace("20000", "30000").replace('"a"', '"gone"')
    await beam.eval(f"{many}, ok", timeout=60, N=Atom(victim.name))
    await works(victim, beam, "stock")

    async def few() -> bool:
        return await atoms_known() < before + 5_000

    await eventually(few, timeout=30)

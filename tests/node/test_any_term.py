"""Every registered process of a node takes any term from any peer, and goes on with its work."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from examples import billing
from pyglyn import etf
from pyglyn import eventsourcing as es
from pyglyn.dist.control import RegSend
from pyglyn.etf import Atom, ImproperList, Pid, Reference, Term
from pyglyn.etf.limits import DEFAULT_LIMITS
from pyglyn.eventsourcing.cluster.scope import MOST_SCOPES, ScopeServer
from pyglyn.eventsourcing.queries.durable import DurableQuery
from pyglyn.groups import pg, syn
from pyglyn.http import Observer, serve
from pyglyn.http.pages import routes
from pyglyn.node import GenServer, Node, Process
from pyglyn.supervision import Supervisor, start, supervisor, worker
from pyglyn.testing import Beam, eventually
from tests.node.conftest import unique_name

SENT = 2000
SEED = 20


class Stock(GenServer):
    async def handle_call(self, request: object, caller: object) -> object:
        return ("stock", request)

    async def handle_cast(self, request: object) -> None:
        pass

    async def handle_info(self, message: object) -> None:
        pass


async def idle(me: Process) -> None:
    while True:
        await me.receive()


def templates(me: Pid, theirs: Pid, ref: Reference) -> list[Term]:
    """The shapes that the processes of a node know."""
    a = Atom
    caller = (me, ref)
    alias = (me, ImproperList((a("alias"),), ref))
    requests: list[Term] = [
        (a("is_auth"), a("x@localhost")),
        a("ticktime"),
        (a("call"), a("m"), a("f"), [], me),
        (a("spawn_link"), a("m"), a("f"), [], me),
        a("which_children"),
        a("count_children"),
        (a("start_child"), [me]),
        (a("get_childspec"), a("stock")),
        (a("restart_child"), a("stock")),
        (a("pyglyn_do"), a("join"), [b"g"], [me]),
        (a("pyglyn_do"), a("x")),
        (a("join_local"), b"g", me),
        (a("1"), a("register_on_node"), b"n", me, []),
        (a("3.0"), a("join"), b"g", me, [], a("x")),
    ]
    return [
        *((a("$gen_call"), caller, request) for request in requests),
        (a("$gen_call"), alias, a("x")),
        (a("$gen_cast"), (a("cast"), a("m"), a("f"), [], me)),
        (a("$gen_cast"), (a("discover"), me)),
        (a("system"), caller, a("get_state")),
        (a("system"), caller, (a("replace_state"), me)),
        (a("EXIT"), theirs, a("kill")),
        (a("EXIT"), me, a("shutdown")),
        (a("DOWN"), ref, a("process"), theirs, a("killed")),
        (a("ack"), theirs, (a("ok"), theirs)),
        (a("$child"), ref, theirs),
        (a("$child"), [], theirs),
        (a("$forced"), b"x\nFAKE ERROR: \x1b[2J"),
        (a("$checkpoint"), theirs, []),
        (a("$pyglyn"), b"secret", (a("$child"), ref, theirs)),
        (a("join"), me, b"group", [me, theirs]),
        (a("leave"), me, theirs, [b"group", b"group"]),
        (a("discover"), me),
        (a("discover"), me, 1),
        (a("sync"), me, [(b"group", [me, me])]),
        (a("3.0"), a("discover"), me),
        (a("3.0"), a("ack_sync"), a("x@localhost"), [(b"name", me, [], 1, ref, a("x@localhost"))]),
        (a("3.0"), a("sync_join"), b"g", me, [], 1, a("normal")),
        (a("3.0"), a("sync_leave"), b"g", me, [], a("normal")),
        (a("3.0"), a("sync_register"), b"n", me, [], 1, a("normal")),
        (a("3.0"), a("sync_unregister"), b"n", me, [], a("normal")),
        (me, (a("call"), a("m"), a("f"), [], me)),
        (me, a("features_request")),
        (me, (a("sbcast"), a("stock"), a("x"))),
        (a("io_request"), me, ref, (a("put_chars"), a("unicode"), b"")),
        (a("io_request"), me, ref, (a("put_chars"), a("unicode"), a("io_lib"), a("format"), ["~p", [1]])),
        (a("io_request"), me, ref, (a("get_line"), a("unicode"), b"> ")),
        (a("io_request"), me, ref, (a("requests"), [a("getopts")])),
        (a("io_reply"), ref, a("ok")),
        (a("nodeup"), a("x@localhost"), []),
        (a("nodedown"), a("x@localhost")),
        (a("process_events"), b"id", []),
        (),
        (a("DOWN"),),
        (a("EXIT"),),
    ]


def anything(rng: random.Random, pids: list[Pid], depth: int = 3) -> Any:
    """A term of any shape."""
    kinds: list[Any] = [
        lambda: rng.choice([0, -1, 1 << 70, -(1 << 40), 255]),
        lambda: rng.choice([0.5, -1e300]),
        lambda: rng.choice([True, False, None]),
        lambda: Atom(rng.choice(["ok", "x", "", "undefined", "é", "a" * 255])),
        lambda: rng.randbytes(rng.choice([0, 3, 300])),
        lambda: rng.choice(pids),
        lambda: Reference(rng.choice(pids).node, 1, (1, 2, 3)),
        list,
        tuple,
        dict,
    ]
    if depth:
        few = range(rng.randrange(4))
        kinds += [
            lambda: [anything(rng, pids, depth - 1) for _ in few],
            lambda: tuple(anything(rng, pids, depth - 1) for _ in few),
            lambda: ImproperList((anything(rng, pids, 0),), rng.randbytes(2)),
            lambda: {rng.randrange(9): anything(rng, pids, depth - 1) for _ in few},
        ]
    return rng.choice(kinds)()


def wrong(rng: random.Random, term: Any, pids: list[Pid]) -> Any:
    """A term with one field, at any depth, replaced by anything."""
    if isinstance(term, (tuple, list)) and term and rng.random() < 0.8:
        at = rng.randrange(len(term))
        changed = [wrong(rng, each, pids) if index == at else each for index, each in enumerate(term)]
        return changed if isinstance(term, list) else tuple(changed)
    return anything(rng, pids)


async def send_anything(
    node: Node, peer: Node, me: Process, to: Atom | Pid, behind: Pid, count: int, more: Sequence[Term] = ()
) -> None:
    """Send a process all shapes and then so many that are wrong, by its name or its pid."""
    me.trap_exit = True
    rng = random.Random(SEED)
    shapes = [*templates(me.pid, behind, me.make_ref()), *more]
    pids = [me.pid, behind, node.system.pid, Pid("gone@localhost", 1, 0, 7)]
    for number in range(count):
        shape = shapes[number % len(shapes)]
        term = shape if number < len(shapes) else wrong(rng, shape, pids)
        me.send((to.name, node.name) if isinstance(to, Atom) else to, term)
        if number % 200 == 0:
            await me.drain()
            await asyncio.sleep(0)
    assert await peer.ping(node.name, 30.0)


async def works(node: Node, beam: Beam, name: str) -> None:
    """See a node do all its work, as its peers do; it may have much to do first."""

    async def ask(text: str) -> Any:
        return await beam.eval(text, timeout=60, N=Atom(node.name), S=Atom(name))

    assert await ask("net_adm:ping(N)") == Atom("pong")
    assert await ask("gen_server:call({S, N}, hello, infinity)") == (b"stock", Atom("hello"))
    assert await ask("rpc:call(N, erlang, node, [])") == Atom(node.name)
    assert await ask("rpc:block_call(N, erlang, node, [])") == Atom(node.name)
    assert len(await ask("supervisor:which_children({pyglyn_sup, N})")) == 1
    assert await ask('io:format(rpc:call(N, erlang, whereis, [user]), "~p~n", [x])') == Atom("ok")
    async with node.process() as me:
        await pg.join(node, "after", me.pid)
        assert me.pid in await pg.get_members(node, "after")
        await syn.join(node, "example", b"after", me.pid)
        assert me.pid in [pid for pid, _ in await syn.members(node, "example", b"after")]
        await syn.register(node, "example", b"after", me.pid)
        found = await syn.lookup(node, "example", b"after")
        assert found is not None
        assert found[0] == me.pid
        await syn.unregister(node, "example", b"after")


async def test_every_registered_process_takes_any_term(
    beam: Beam, node: Node, caplog: pytest.LogCaptureFixture
) -> None:
    name = "stock"
    pg.start(node)
    syn.start(node, "example")
    below = Supervisor(name="below").add(worker(idle, name="deep", isolation="task"))
    tree = Supervisor(name="tree").add(worker(Stock, name=name)).add(supervisor(below, name="below"))
    ended: list[Term] = []
    await start(node, tree, on_end=ended.append)
    await eventually(lambda: node.whereis("deep"))
    await works(node, beam, name)
    names = sorted(node.runtime.names)
    assert {"net_kernel", "rex", "user", "pyglyn_sup", "tree", "below", "deep", name, "pg"} <= set(names)
    async with Node(unique_name("peer"), cookie=beam.cookie) as peer, peer.process() as me:
        for each in names:
            pid = node.whereis(each)
            assert isinstance(pid, Pid), each
            await send_anything(node, peer, me, Atom(each), pid, SENT)
            assert not ended, f"{each}: {etf.text.format(ended)}"
        await eventually(lambda: all(node.whereis(each) for each in names), 20.0)
    await works(node, beam, name)
    assert not ended
    lines = [line for record in caplog.records for line in record.getMessage().splitlines()]
    assert not [line for line in lines if line.startswith("FAKE")]


MARK = Atom("here is something deep")
SPECIFICATION: dict[Term, Term] = {
    Atom("id"): Atom("x"), Atom("start"): (Atom("m"), Atom("f"), [1]), Atom("restart"): Atom("permanent"),
    Atom("significant"): False, Atom("shutdown"): 5, Atom("type"): Atom("worker"), Atom("modules"): [Atom("m")],
}  # fmt: skip


def marked(term: Any, depth: int = 0) -> Iterator[tuple[Any, int]]:
    """A term with each of its parts replaced by a mark in turn, and how deep that is in it."""
    yield MARK, depth
    if isinstance(term, (tuple, list)):
        for index, each in enumerate(term):
            for part, at in marked(each, depth + 1):
                changed = [*term[:index], part, *term[index + 1 :]]
                yield changed if isinstance(term, list) else tuple(changed), at
    elif isinstance(term, dict):
        for key, value in term.items():
            for part, at in marked(value, depth + 1):
                yield {**term, key: part}, at


def deep(shapes: Sequence[Term]) -> Iterator[bytes]:
    """Each of the shapes with each of its parts as deep as a term may be, encoded."""
    kinds = [
        (b"l\0\0\0\1", b"j"),
        (b"h\1", b""),
        (b"t\0\0\0\1a\1", b""),
        (b"t\0\0\0\1", b"a\1"),
        (b"l\0\0\0\1", b"a\1"),
    ]
    number = 0
    for shape in shapes:
        for term, at in marked(shape):
            begin, end = kinds[number % len(kinds)]
            levels = DEFAULT_LIMITS.depth - at
            number += 1
            yield etf.encode_bare(term).replace(etf.encode_bare(MARK), begin * levels + b"a\1" + end * levels)


async def test_every_registered_process_takes_terms_as_deep_as_they_may_be(beam: Beam, node: Node) -> None:
    """What Python does with each level by a call of its own ends at a thousand of them."""
    name = "stock"
    pg.start(node)
    syn.start(node, "example")
    below = Supervisor(name="below").add(worker(idle, name="deep", isolation="task"))
    tree = Supervisor(name="tree").add(worker(Stock, name=name)).add(supervisor(below, name="below"))
    ended: list[Term] = []
    await start(node, tree, on_end=ended.append)
    await eventually(lambda: node.whereis("deep"))
    pids = {each: node.whereis(each) for each in sorted(node.runtime.names)}
    async with Node(unique_name("peer"), cookie=beam.cookie) as peer, peer.process() as me:
        assert await peer.ping(node.name)
        connection = peer.hub.peers.get(node.name)
        assert connection is not None
        caller = me.pid, me.make_ref()
        words = ("terminate_child", "delete_child", "restart_child", "get_childspec")
        requests = [(Atom("start_child"), SPECIFICATION), *((Atom(word), Atom("x")) for word in words)]
        more = [(Atom("$gen_call"), caller, request) for request in requests]
        for each, pid in pids.items():
            assert isinstance(pid, Pid)
            for payload in deep([*templates(me.pid, pid, me.make_ref()), *more]):
                connection.send(RegSend(me.pid, Atom(each)), [payload])
                if connection.queued_bytes > 1_000_000:
                    assert await peer.ping(node.name, 60.0)
            assert await peer.ping(node.name, 60.0)
            assert not ended, f"{each}: {etf.text.format(ended)}"
    await works(node, beam, name)
    assert {each: node.whereis(each) for each in pids} == pids
    assert not ended


class NoNodes:
    """A discovery that finds nobody."""

    async def nodes(self) -> list[str]:
        return ["nobody@localhost"]


def seen_by(seen: list[str]) -> Any:
    def project(id: str, envelopes: list[Any]) -> None:
        seen.extend(type(envelope.payload).__name__ for envelope in envelopes)

    return project


def messages_of_event_sourcing(me: Pid, ref: Reference) -> list[Term]:
    a = Atom
    event = (a("memory_store_event_envelop"), b"id", 1, (a("subscribed"), 1, 1.0, 1.0), [])
    requests: list[Term] = [
        (a("execute"), b"id", (a("pay"), 1), [], b"c"),
        (a("load_aggregate"), b"id"),
        a("get_system_stats"),
        a("status"),
        a("pause"),
        (a("drive"), b"id"),
        (a("replay"), b"id"),
        (a("wait_for"), 1),
    ]
    return [
        *((a("$gen_call"), (me, ref), request) for request in requests),
        *((a("$gen_cast"), request) for request in requests),
        (a("process_events"), b"id", [event]),
        (b"pubsub", event),
        event,
        (a("committed"), 1),
        (a("due"), 1),
        a("pyglyn_query_ended"),
        (a("pyglyn_query_ended"), a("x")),
        (a("pyglyn_forwarded"), me, 1, (me, requests[0])),
        (a("pyglyn_passed"), me, 1, (a("$gen_call"), (me, ref), requests[0])),
        (a("read"), 1, [event]),
    ]


async def test_every_process_of_a_node_with_event_sourcing_takes_any_term_by_its_pid_too(
    beam: Beam, node: Node, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """A service, a manager with deadlines, queries, HTTP with its observer, a discovery: whatever has a name or a pid."""
    observer = Observer(node, [node.name])
    server = await serve(node, "127.0.0.1", 0, [routes(observer, "token")])
    node.discover(NoNodes(), every_s=0.05)
    spec, manager = billing.billing(f"sqlite:{tmp_path}/billing.db")
    subscriptions = await es.start(node, spec)
    await manager.start(node)
    lasting: list[str] = []
    live: list[str] = []
    await node.start(ScopeServer, "example", name="scope of a tree")
    await DurableQuery("lasting", seen_by(lasting), store=manager.store).start(node)
    query = es.QuerySpec(name="living", function=seen_by(live), events=billing.Event)
    await node.start(query.server, query, name=query.name)
    async with aiohttp.ClientSession() as session:
        bearer = {"Authorization": "Bearer token"}
        url = f"http://127.0.0.1:{server.port}"
        assert (await session.get(f"{url}/api/nodes", headers=bearer)).status == 200
        everything = [process.pid for process in node.runtime.processes.values()]
        names = sorted(node.runtime.names)
        assert {"subscriptions", "billing", "lasting", "living"} <= {
            name.rpartition(":")[2] for name in names
        }
        named = {node.whereis(name) for name in names}
        other = [pid for pid in everything if pid not in named]
        assert other
        async with Node(unique_name("peer"), cookie=beam.cookie) as peer, peer.process() as me:
            more = messages_of_event_sourcing(me.pid, me.make_ref())
            for name in names:
                pid = node.whereis(name)
                assert isinstance(pid, Pid), name
                await send_anything(node, peer, me, Atom(name), pid, SENT, more)
                assert node.whereis(name) is not None, name
            for pid in other:
                await send_anything(node, peer, me, pid, pid, SENT // 4, more)
        assert set(other) <= {process.pid for process in node.runtime.processes.values()}
        assert set(names) <= set(node.runtime.names)
        for query_name in ("billing", "lasting", "living"):  # some of what was sent has stopped them, rightly
            resume = "gen_server:call({S, N}, resume)"
            assert await beam.eval(resume, N=Atom(node.name), S=Atom(query_name)) is Atom("ok")
        await subscriptions.execute("s", billing.Subscribe(10, 3600.0, 0.01))
        await eventually(lambda: lasting[-1:] == ["Suspended"], timeout=30)
        assert (await session.get(f"{url}/livez")).status == 200
        assert (await session.get(f"{url}/api/nodes", headers=bearer)).status == 200
    assert "crashed" not in caplog.text


async def test_peers_have_a_bounded_number_of_scopes_started(beam: Beam, node: Node) -> None:
    start = "[catch erpc:call(N, pyglyn, start_scope, [integer_to_binary(I)]) || I <- lists:seq(1, Many)]"
    answers = await beam.eval(start, N=Atom(node.name), Many=2 * MOST_SCOPES, timeout=60)
    assert answers[:MOST_SCOPES] == [True] * MOST_SCOPES
    assert True not in answers[MOST_SCOPES:]
    assert sum(name.startswith("syn_pg_") for name in node.runtime.names) == MOST_SCOPES
    assert await beam.eval('erpc:call(N, pyglyn, start_scope, [<<"7">>])', N=Atom(node.name)) is True

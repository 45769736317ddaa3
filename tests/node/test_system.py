"""What ``sys`` of a BEAM node learns of the processes of a Python node, and what an unhandled call does to one."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from pyglyn.etf import Atom, Pid
from pyglyn.groups import pg, syn
from pyglyn.node import GenServer, Node, NoReply, Process, Reply
from pyglyn.testing import Beam, eventually
from tests.node.conftest import unique_name


class Counter(GenServer):
    """Counts, and knows few requests."""

    async def init(self, count: int = 0) -> None:
        self.count = count

    async def handle_call(self, request: Any, caller: Any) -> Any:
        match request:
            case Atom("count"):
                return self.count
            case Atom("price"):
                return Reply(None)
            case Atom("later"):
                self.reply(caller, None)
                return NoReply

    async def handle_cast(self, request: Any) -> None:
        match request:
            case (Atom("add"), int() as more):
                self.count += more
            case _:
                await super().handle_cast(request)


class Unnamed(GenServer):
    """Has no handler at all."""


async def collecting(me: Process) -> None:
    """A plain function: knows nothing of ``sys``, keeps what else it gets."""
    me.dictionary["got"] = []
    me.dictionary["self"] = me
    while True:
        me.dictionary["got"].append(await me.receive())


CRASH = """
{Pid, Ref} = spawn_monitor(fun() -> exit(catch %s) end),
Down = monitor(process, Server),
Why = receive {'DOWN', Ref, _, _, W} -> W after 60000 -> timeout end,
Died = receive {'DOWN', Down, _, _, D} -> D after 60000 -> timeout end,
{Why, Died}
"""


@pytest.mark.parametrize("server", [Counter, Unnamed])
@pytest.mark.parametrize(
    ("call", "request_"),
    [
        ("gen_server:call(Server, {get, x}, 4000)", (Atom("get"), Atom("x"))),
        ("supervisor:which_children(Server)", Atom("which_children")),
        ("supervisor:count_children(Server)", Atom("count_children")),
        ("supervisor:start_child(Server, [])", (Atom("start_child"), [])),
    ],
    ids=["call", "which_children", "count_children", "start_child"],
)
async def test_an_unhandled_call_crashes_the_server_as_one_in_erlang(
    server: type[GenServer], call: str, request_: Any, beam: Beam, node: Node
) -> None:
    pid = await node.start(server)
    (exit_, ((reason, stack), where)), died = await beam.eval(CRASH % call, Server=pid)
    assert (exit_, reason) == (Atom("EXIT"), Atom("function_clause"))
    assert where[:2] == (Atom("gen_server"), Atom("call"))
    assert where[2][:2] == [pid, request_]
    assert died == (reason, stack)
    module, function, arity, location = stack[0]
    assert (module, function, arity) == (Atom("test_system"), Atom("handle_call"), 3)
    if server is Counter:
        line = Counter.handle_call.__code__.co_firstlineno
        assert location == [(Atom("file"), list(__file__.encode())), (Atom("line"), line)]


async def test_a_reply_of_nil_is_said_to_be_one(beam: Beam, node: Node) -> None:
    pid = await node.start(Counter)
    for request in ("price", "later"):
        assert await beam.eval(f"gen_server:call(P, {request})", P=pid) is None
    assert await beam.eval("gen_server:call(P, count)", P=pid) == 0


@pytest.mark.parametrize("server", [Counter, Unnamed])
async def test_an_unhandled_cast_crashes_the_server_as_one_in_erlang(
    server: type[GenServer], beam: Beam, node: Node
) -> None:
    pid = await node.start(server)
    _, (reason, stack) = await beam.eval(CRASH % "gen_server:cast(Server, {nothing, 1})", Server=pid)
    assert reason == Atom("function_clause")
    assert stack[0][1:3] == (Atom("handle_cast"), 2)


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (Atom("reload"), "reload"),
        ((Atom("order created"), b"secret", 20), "{'order created',_,_}"),
        ((Atom("row"), *range(20)), "{row,…}"),
        ((b"secret", 1), "a tuple"),
        (b"secret", "a bytes"),
    ],
    ids=["atom", "tagged", "long", "untagged", "binary"],
)
async def test_what_is_unhandled_is_named_by_its_tag_and_not_shown(
    epmd: Any, caplog: pytest.LogCaptureFixture, message: Any, words: str
) -> None:
    caplog.set_level(logging.INFO, "pyglyn")
    async with Node(unique_name(), cookie="c") as node:
        pid = await node.start(Unnamed)
        node.send(pid, message)
        await eventually(lambda: f"unhandled message in Unnamed: {words}" in caplog.messages)
        node.cast(pid, message)
        await eventually(lambda: f"Unnamed.handle_cast has no case for {words}" in caplog.text)
        assert "secret" not in caplog.text


async def test_sys_sees_the_state_of_a_server_as_this_release_has_it(beam: Beam, node: Node) -> None:
    pid = await node.start(Counter, 20)
    assert await beam.eval("sys:get_state(P)", P=pid) == {Atom("count"): 20}
    status = await beam.eval("sys:get_status(P)", P=pid)
    assert status[:3] == (Atom("status"), pid, (Atom("module"), Atom("gen_server")))
    assert status[3][1] is Atom("running")


async def test_sys_is_answered_by_a_plain_function_that_knows_nothing_of_it(beam: Beam, node: Node) -> None:
    pid = node.spawn(collecting, name="collecting")
    first = await beam.eval("P ! {order, 1}, sys:get_state(P)", P=pid)
    assert set(first) == {Atom("got"), Atom("self")}
    status = await beam.eval("sys:get_status(P)", P=pid)
    assert status[:2] == (Atom("status"), pid)
    assert await beam.eval("sys:suspend(P), P ! two, sys:get_state(P)", P=pid) == first | {
        Atom("got"): [(Atom("order"), 1)]
    }
    assert (await beam.eval("sys:get_status(P)", P=pid))[3][1] is Atom("suspended")
    assert await beam.eval("sys:resume(P)", P=pid) is Atom("ok")

    async def has_taken_it() -> bool:
        state = await beam.eval("sys:get_state(P)", P=pid)
        return bool(state[Atom("got")] == [(Atom("order"), 1), Atom("two")])

    await eventually(has_taken_it)
    assert await beam.eval("sys:trace(P, true), sys:log(P, get)", P=pid) == (Atom("ok"), [])
    answers = await beam.eval(
        "[begin {ok, A} = gen:call(P, system, R), A end || R <- [{debug, bad}, nosuch, {change_code, m, v, e}]]",
        P=pid,
    )
    assert answers[0] is Atom("unknown_debug")
    assert [answer[0] for answer in answers[1:]] == [Atom("error")] * 2
    died = await beam.eval(
        "R = monitor(process, P), ok = sys:terminate(P, enough), receive {'DOWN', R, _, _, W} -> W end", P=pid
    )
    assert died is Atom("enough")


async def test_sys_is_answered_by_the_processes_that_every_node_has(beam: Beam, node: Node) -> None:
    pg.start(node, "scope")
    syn.start(node, "example")
    await pg.join(node, "crew", node.spawn(collecting), scope="scope")
    for name in ("scope", "syn_pg_example", "syn_registry_example", "net_kernel", "rex", "user"):
        where = {"Server": (Atom(name), Atom(node.name))}
        for function in ("get_state", "get_status", "suspend", "resume"):
            answer = await beam.eval(f"catch sys:{function}(Server, 2000)", **where)
            assert not (isinstance(answer, tuple) and answer[0] is Atom("EXIT")), (name, function, answer)
    assert (
        await beam.eval("sys:get_state({scope, N})", N=Atom(node.name)) == pg.start(node, "scope").overview()
    )


async def test_a_function_that_fails_to_tell_the_state_is_what_sys_reports(beam: Beam, node: Node) -> None:
    class Secretive(GenServer):
        def format_state(self) -> Any:
            raise ValueError("no")

    pid = await node.start(Secretive)
    kind, (failure, _stack) = await beam.eval("catch sys:get_state(P)", P=pid)
    assert (kind, failure[0]) == (Atom("EXIT"), Atom("callback_failed"))
    assert isinstance(pid, Pid)
    assert (await beam.eval("sys:get_status(P)", P=pid))[0] is Atom("status")

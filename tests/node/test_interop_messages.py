"""Messages and calls between a Python node and real BEAM nodes."""

from __future__ import annotations

import asyncio

import attrs
import pytest

from pyglyn.errors import CallFailed, CallTimeout
from pyglyn.etf import Atom, Pid
from pyglyn.node import GenServer, NoReply, Process, Reply, Stop
from pyglyn.testing import eventually
from tests.node.conftest import unique_name

EVENT = """{<<"inventory">>, {process_events, <<"order_001">>, [{memory_store_event_envelop, <<"order_001">>, N,
 {order_created, <<"order_001">>, [{item, {product, <<"laptop">>, <<"Gaming Laptop">>, 20}, 1}], 20}, []}]}}"""


async def test_ten_thousand_events_arrive_in_order_and_are_answered(beam, node):
    seen = []

    async def inventory(me: Process) -> None:
        while True:
            match await me.receive():
                case (Pid() as sender, (b"inventory", (Atom("process_events"), order, [envelope]))):
                    tag, aggregate, number, (event, *_), metadata = envelope
                    assert (tag, aggregate, metadata) == (Atom("memory_store_event_envelop"), order, [])
                    assert event is Atom("order_created")
                    seen.append(number)
                    me.send(sender, (Atom("handled"), number))

    node.spawn(inventory, name="inventory")
    answers = await beam.eval(
        f"""
        Self = self(),
        [{{inventory, Node}} ! {{Self, {EVENT}}} || N <- lists:seq(1, 10000)],
        [receive {{handled, N}} -> N after 20000 -> missing end || N <- lists:seq(1, 10000)]
        """,
        Node=Atom(node.name),
        timeout=60,
    )
    assert answers == list(range(1, 10001))
    assert seen == answers


class Stock(GenServer):
    """A server with every form of reply."""

    async def init(self, items):
        self.items = dict(items)

    async def handle_call(self, request, caller):
        match request:
            case (Atom("get"), product):
                return self.items.get(product, 0)
            case (Atom("later"), product):
                asyncio.get_running_loop().call_soon(self.reply, caller, self.items.get(product, 0))
                return NoReply
            case Atom("never"):
                self.items[b"never"] = 1
                return NoReply
            case Atom("crash"):
                raise ValueError("out of stock")
            case Atom("stop"):
                return Stop("normal", reply=Atom("bye"))
            case Atom("continue"):
                return Reply(Atom("ok"), then="more")
            case Atom("continued"):
                return getattr(self, "continued", False)

    async def handle_continue(self, then):
        self.continued = then == "more"


@pytest.fixture
async def stock(node) -> Pid:
    pid = await node.start(Stock, {b"laptop": 10}, name="stock")
    assert pid is not None
    return pid


async def test_fifty_beam_processes_call_a_python_server(beam, node, stock):
    results = await beam.eval(
        """
        Self = self(),
        [spawn(fun() -> Self ! {N, [gen_server:call({stock, Node}, {get, <<"laptop">>}) || _ <- lists:seq(1, 20)]} end)
         || N <- lists:seq(1, 50)],
        [receive {N, R} -> R after 10000 -> missing end || N <- lists:seq(1, 50)]
        """,
        Node=Atom(node.name),
        timeout=30,
    )
    assert results == [[10] * 20] * 50


async def test_every_form_of_reply_reaches_a_beam_caller(beam, node, stock):
    call = "gen_server:call({stock, Node}, %s)"
    where = Atom(node.name)
    assert await beam.eval(call % '{later, <<"laptop">>}', Node=where) == 10
    assert await beam.eval(call % "continue", Node=where) is Atom("ok")
    assert await beam.eval(call % "continued", Node=where) is True
    assert await beam.eval('gen_server:multi_call([Node], stock, {get, <<"laptop">>})', Node=where) == (
        [(where, 10)],
        [],
    )
    assert await beam.eval(
        """R = gen_server:send_request({stock, Node}, {get, <<"laptop">>}), gen_server:wait_response(R, 5000)""",
        Node=where,
    ) == (Atom("reply"), 10)
    assert await beam.eval('gen_statem:call({stock, Node}, {get, <<"laptop">>})', Node=where) == 10


async def test_a_beam_caller_learns_how_a_call_failed(beam, node, stock):
    where = Atom(node.name)
    caught = "catch gen_server:call({%s, Node}, %s, 500)"
    assert (await beam.eval(caught % ("stock", "never"), Node=where))[1][0] is Atom("timeout")
    assert (await beam.eval(caught % ("nobody", "x"), Node=where))[1][0] is Atom("noproc")
    (exception, stack), _call = (await beam.eval(caught % ("stock", "crash"), Node=where))[1]
    assert exception == (Atom("exception"), Atom("ValueError"), b"out of stock")
    assert stack[0][1] is Atom("handle_call")
    pid = await node.start(Stock, {}, name="stock")
    assert pid is not None
    assert await beam.eval("gen_server:call({stock, Node}, stop)", Node=where) is Atom("bye")


async def test_a_call_that_is_running_when_the_link_is_lost_fails_with_nodedown(beam, node, stock):
    task = asyncio.create_task(
        beam.eval("catch gen_server:call({stock, Node}, never, infinity)", Node=Atom(node.name))
    )
    await eventually(lambda: node.call(stock, (Atom("get"), b"never")))
    await eventually(lambda: beam.disconnect(node.name))  # it may not have noticed yet that this node is up
    (nodedown, _), _call = (await task)[1]
    assert nodedown == Atom("nodedown")


async def test_sys_looks_into_a_python_server(beam, node, stock):
    where = Atom(node.name)
    state = await beam.eval("sys:get_state({stock, Node})", Node=where)
    assert state == {Atom("items"): {b"laptop": 10}}
    status = await beam.eval("sys:get_status({stock, Node})", Node=where)
    assert status[:2] == (Atom("status"), stock)
    assert await beam.eval("sys:suspend({stock, Node}), sys:resume({stock, Node})", Node=where) is Atom("ok")


ECHO_SERVER = """
Loop = fun Loop() ->
    receive
        {'$gen_call', From, crash} -> exit({boom, From});
        {'$gen_call', _From, never} -> Loop();
        {'$gen_call', From, Request} -> gen:reply(From, {echo, Request}), Loop();
        {'$gen_cast', {to, Pid}} -> Pid ! got_cast, Loop()
    end
end,
Pid = spawn(Loop), catch unregister(echo), register(echo, Pid), Pid
"""


async def test_python_calls_a_beam_server_fifty_times_at_once(beam, node):
    await beam.eval(ECHO_SERVER)
    async with node.process() as me:
        replies = await asyncio.gather(*(me.call(("echo", beam.name), n) for n in range(50)))
    assert replies == [(Atom("echo"), n) for n in range(50)]


async def test_a_python_caller_learns_how_a_call_failed(beam, node):
    pid = await beam.eval(ECHO_SERVER)
    async with node.process() as me:
        with pytest.raises(CallTimeout):
            await me.call(pid, Atom("never"), timeout=0.2)
        with pytest.raises(CallFailed) as noproc:
            await me.call(("nobody", beam.name), Atom("x"))
        assert noproc.value.reason is Atom("noproc")
        with pytest.raises(CallFailed) as crash:
            await me.call(pid, Atom("crash"))
        assert crash.value.reason[0] is Atom("boom")
        with pytest.raises(CallFailed) as gone:
            await me.call(pid, Atom("x"))
        assert gone.value.reason is Atom("noproc")
        with pytest.raises(CallFailed) as unreachable:
            await me.call(("echo", "nowhere@localhost"), Atom("x"))
        assert unreachable.value.reason == (Atom("nodedown"), Atom("nowhere@localhost"))


async def test_a_python_caller_learns_at_once_that_the_link_is_lost(beam, node):
    pid = await beam.eval(ECHO_SERVER)
    async with node.process() as me:
        await me.call(pid, 1)
        task = asyncio.create_task(me.call(pid, Atom("never"), timeout=30))
        await asyncio.sleep(0)
        beam.kill()
        with pytest.raises(CallFailed) as lost:
            await asyncio.wait_for(task, 180)
    assert lost.value.reason == (Atom("nodedown"), Atom(beam.name))


async def test_a_late_reply_does_not_reach_the_mailbox(beam, node):
    pid = await beam.eval(
        """spawn(fun() -> receive {'$gen_call', From, hold} -> ok end,
            receive release -> gen:reply(From, late) end, receive {P, done} -> P ! done end end)"""
    )
    async with node.process() as me:
        with pytest.raises(CallTimeout):
            await me.call(pid, Atom("hold"), timeout=0.1)
        me.send(pid, Atom("release"))
        me.send(pid, (me.pid, Atom("done")))
        assert await me.receive(timeout=60) is Atom("done")
        assert me.message_queue_len == 0


async def test_selective_receive_leaves_the_others_in_order(node):
    async with node.process() as me:
        for n in range(5):
            me.send(me.pid, n)
        assert await me.receive(lambda m: m == 3) == 3
        assert [await me.receive(timeout=60) for _ in range(4)] == [0, 1, 2, 4]
        with pytest.raises(TimeoutError):
            await me.receive(timeout=0)


async def test_large_binaries_both_ways_and_small_calls_meanwhile(beam, node):
    size = 64 * 1024 * 1024

    async def mirror(me: Process) -> None:
        while True:
            match await me.receive():
                case (Atom("big"), Pid() as sender, bytes() as data):
                    me.send(sender, (Atom("back"), len(data), data))

    node.spawn(mirror, name="mirror")
    await node.start(Stock, {b"laptop": 10}, name="stock")
    await node.connect(beam.name)
    task = asyncio.create_task(
        beam.eval(
            """
            B = binary:copy(<<"0123456789abcdef">>, Size div 16), {mirror, Node} ! {big, self(), B},
            receive {back, Size, C} -> C =:= B end
            """,
            Node=Atom(node.name),
            Size=size,
            timeout=60,
        )
    )
    small, call = 0, 'gen_server:call({stock, Node}, {get, <<"laptop">>}, infinity)'
    while not task.done():
        assert await beam.eval(call, Node=Atom(node.name), timeout=60) == 10
        small += 1
    assert await task is True
    assert small > 1


async def test_send_after_and_cancel_timer(node):
    async with node.process() as me:
        me.send_after(0.01, me.pid, Atom("tick"))
        timer = me.send_after(60, me.pid, Atom("never"))
        assert await me.receive(timeout=60) is Atom("tick")
        left = me.cancel_timer(timer)
        assert left is not None
        assert 50 < left <= 60
        assert me.cancel_timer(timer) is None


async def test_two_python_nodes_talk(epmd, make_node):
    async with make_node(unique_name("a"), cookie="c") as a, make_node(unique_name("b"), cookie="c") as b:
        await a.start(Stock, {b"laptop": 3}, name="stock")
        assert await b.call(("stock", a.name), (Atom("get"), b"laptop")) == 3
        assert await a.ping(b.name)


@attrs.frozen
class Unencodable:
    x: int


async def test_what_is_no_term_is_refused_at_the_sender_also_locally(node):
    async with node.process() as me:
        for value in (object(), Unencodable(1), {"a": 1, b"a": 2}, float("nan")):
            with pytest.raises(ValueError, match=r"."):
                me.send(me.pid, value)
        me.send(me.pid, "text")
        assert await me.receive(timeout=60) == b"text"

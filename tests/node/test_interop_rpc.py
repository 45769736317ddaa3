"""rpc, erpc, remote spawn and ping between a Python node and real BEAM nodes."""

from __future__ import annotations

import asyncio
import threading

import attrs
import pytest
import pytest_asyncio

from pyglyn.errors import BadRpc, CallTimeout, RemoteException
from pyglyn.etf import Atom, Pid
from pyglyn.node import ErlangError, Exit, Exports, Process, Throw
from tests.node.conftest import unique_name


@attrs.frozen
class Product:
    id: str
    price: int


async def quote(product: str, quantity: int) -> float:
    return quantity * 2.5 if product == "laptop" else 0.0


LET_GO = threading.Event()


def slow() -> str:
    LET_GO.wait()
    return "done"


async def double(product: Product) -> Product:
    return Product(product.id, product.price * 2)


async def fail(how):
    match how:
        case Atom("throw"):
            raise Throw(Atom("ball"))
        case Atom("exit"):
            raise Exit("gone")
        case Atom("error"):
            raise ValueError("no such product")
        case Atom("object"):
            return object()
        case Atom("erlang_error"):
            raise ErlangError((Atom("out_of_stock"), b"laptop"))
        case Atom("throw_object"):
            raise Throw(object())


async def seven() -> float:
    return 7.5


async def bye() -> None:
    raise Exit("goodbye")


async def loop(me: Process, owner) -> None:
    me.send(owner, (Atom("started"), me.pid))
    while True:
        match await me.receive():
            case (Atom("echo"), what):
                me.send(owner, what)
            case Atom("stop"):
                raise Exit("stopped")


def exports() -> Exports:
    table = Exports()
    for function in (quote, slow, double, fail, loop, seven, bye):
        table.add("pricing", function)
    return table


@pytest_asyncio.fixture
async def serving(beam, make_node):
    async with make_node(unique_name("serving"), cookie=beam.cookie, exports=exports()) as node:
        yield node


async def test_ping_both_ways(beam, serving):
    assert await beam.eval("net_adm:ping(Node)", Node=Atom(serving.name)) is Atom("pong")
    assert await serving.ping(beam.name)


@pytest.mark.parametrize(
    "call",
    [
        'rpc:call(N, pricing, quote, [<<"laptop">>, 3])',
        'erpc:call(N, pricing, quote, [<<"laptop">>, 3])',
        'erpc:receive_response(erpc:send_request(N, pricing, quote, [<<"laptop">>, 3]))',
        'rpc:block_call(N, pricing, quote, [<<"laptop">>, 3])',
        'rpc:yield(rpc:async_call(N, pricing, quote, [<<"laptop">>, 3]))',
        '{[R], []} = rpc:multicall([N], pricing, quote, [<<"laptop">>, 3]), R',
        '[{ok, R}] = erpc:multicall([N], pricing, quote, [<<"laptop">>, 3]), R',
    ],
)
async def test_every_kind_of_call_reaches_an_exported_function(beam, serving, call):
    assert await beam.eval(call, N=Atom(serving.name)) == 7.5


async def test_typed_arguments_and_results(beam, serving):
    where = Atom(serving.name)
    doubled = await beam.eval('erpc:call(N, pricing, double, [{product, <<"laptop">>, 20}])', N=where)
    assert doubled == (Atom("product"), b"laptop", 40)
    badarg = await beam.eval('rpc:call(N, pricing, quote, [<<"laptop">>, <<"three">>])', N=where)
    assert badarg[0] is Atom("badrpc")
    ((tag, text), _stack) = badarg[1][1]
    assert tag is Atom("badarg")
    assert b"argument 2" in text


async def test_failures_are_what_an_erlang_caller_expects(beam, serving):
    where = Atom(serving.name)
    rpc = "rpc:call(N, pricing, fail, [%s])"
    erpc = "try erpc:call(N, pricing, fail, [%s]) catch C:R -> {C, R} end"
    assert await beam.eval(rpc % "throw", N=where) is Atom("ball")
    assert await beam.eval(erpc % "throw", N=where) == (Atom("throw"), Atom("ball"))
    assert await beam.eval(rpc % "exit", N=where) == (Atom("badrpc"), (Atom("EXIT"), Atom("gone")))
    assert await beam.eval(erpc % "exit", N=where) == (Atom("exit"), (Atom("exception"), Atom("gone")))
    exception = (Atom("exception"), Atom("ValueError"), b"no such product")
    (_, (_, (reason, stack))) = await beam.eval(rpc % "error", N=where)
    assert reason == exception
    assert stack[0][1] is Atom("fail")
    kind, (tag, reason, _stack) = await beam.eval(erpc % "error", N=where)
    assert (kind, tag, reason) == (Atom("error"), Atom("exception"), exception)
    kind, (tag, reason, _stack) = await beam.eval(erpc % "object", N=where)
    assert (kind, reason[1]) == (Atom("error"), Atom("EncodeError"))


@pytest.mark.parametrize("call", ["os:cmd([])", "pricing:nothing()", "pricing:quote(1)", "erlang:halt()"])
async def test_what_is_not_exported_is_undef(beam, serving, call):
    module, rest = call.split(":")
    function, args = rest.rstrip(")").split("(")
    text = f"rpc:call(N, {module}, {function}, [{args}])"
    (badrpc, (exit_, (undef, stack))) = await beam.eval(text, N=Atom(serving.name))
    assert (badrpc, exit_, undef) == (Atom("badrpc"), Atom("EXIT"), Atom("undef"))
    assert stack[0][:2] == (Atom(module), Atom(function))
    text = (
        f"try erpc:call(N, {module}, {function}, [{args}]) catch error:{{exception, undef, [_|_]}} -> ok end"
    )
    assert await beam.eval(text, N=Atom(serving.name)) is Atom("ok")
    assert await beam.eval("N =:= node() orelse rpc:call(N, erlang, node, []) =:= N", N=Atom(serving.name))


async def test_a_slow_export_does_not_block_other_calls(beam, serving):
    where = Atom(serving.name)
    LET_GO.clear()
    try:
        slow_call = asyncio.create_task(beam.eval("rpc:call(N, pricing, slow, [])", N=where, timeout=60))
        for _ in range(20):
            assert await beam.eval('rpc:call(N, pricing, quote, [<<"laptop">>, 1])', N=where) == 2.5
        assert not slow_call.done()
        timed_out = await beam.eval("rpc:call(N, pricing, slow, [], 100)", N=where)
        assert timed_out == (Atom("badrpc"), Atom("timeout"))
    finally:
        LET_GO.set()
    assert await slow_call == b"done"


async def test_remote_spawn_link_and_monitor_of_an_exported_function(beam, serving):
    assert await beam.eval(
        """
        process_flag(trap_exit, true), Self = self(),
        P1 = spawn(N, pricing, loop, [Self]), receive {started, P1} -> ok end,
        P1 ! {echo, one}, receive one -> ok end,
        P2 = spawn_link(N, pricing, loop, [Self]), receive {started, P2} -> ok end,
        P2 ! stop, receive {'EXIT', P2, R2} -> ok end,
        {P3, M} = spawn_monitor(N, pricing, loop, [Self]), receive {started, P3} -> ok end,
        P3 ! stop, receive {'DOWN', M, process, P3, R3} -> ok end,
        {P4, M4} = spawn_monitor(N, pricing, nothing, []), receive {'DOWN', M4, process, P4, {R4, _}} -> ok end,
        exit(P1, kill), {R2, R3, R4}
        """,
        N=Atom(serving.name),
    ) == (Atom("stopped"), Atom("stopped"), Atom("undef"))


async def test_casts_reach_exported_functions(beam, serving):
    async with serving.process() as me:
        await beam.eval(
            "rpc:cast(N, pricing, loop, [Pid]), erpc:cast(N, pricing, loop, [Pid])",
            N=Atom(serving.name),
            Pid=me.pid,
        )
        for _ in range(2):
            assert (await me.receive(timeout=60))[0] is Atom("started")


async def test_python_calls_functions_on_the_beam(beam, serving):
    where = beam.name
    assert await serving.rpc(where, "lists", "seq", [1, 3]) == [1, 2, 3]
    assert await serving.erpc(where, "erlang", "node") is Atom(where)
    with pytest.raises(BadRpc) as undef:
        await serving.rpc(where, "nothing", "here")
    assert undef.value.reason[1][0] is Atom("undef")
    with pytest.raises(RemoteException) as error:
        await serving.erpc(where, "erlang", "hd", [[]])
    assert (error.value.kind, error.value.reason) == ("error", Atom("badarg"))
    with pytest.raises(RemoteException) as thrown:
        await serving.erpc(where, "erlang", "throw", [Atom("ball")])
    assert (thrown.value.kind, thrown.value.reason) == ("throw", Atom("ball"))
    assert await serving.rpc(where, "erlang", "throw", [Atom("ball")]) is Atom("ball")
    with pytest.raises(RemoteException) as exit_:
        await serving.erpc(where, "erlang", "exit", [Atom("gone")])
    assert (exit_.value.kind, exit_.value.reason) == ("exit", Atom("gone"))
    with pytest.raises(CallTimeout):
        await serving.erpc(where, "timer", "sleep", [5000], timeout=0.1)
    with pytest.raises(BadRpc) as nodedown:
        await serving.rpc("nowhere@localhost", "erlang", "node")
    assert nodedown.value.reason is Atom("nodedown")


async def test_output_of_a_function_called_on_the_beam_comes_back_to_the_log(beam, serving, caplog):
    with caplog.at_level("INFO", logger="pyglyn.io"):
        assert await serving.rpc(
            beam.name, "io", "format", [list(b"hello ~p ~s~n"), [Atom("you"), b"x"]]
        ) is Atom("ok")
    assert "hello you x" in caplog.text


async def test_shells_and_tools_get_their_read_only_functions(beam, serving):
    where = Atom(serving.name)
    pid = serving.whereis("net_kernel")
    assert await beam.eval("rpc:call(N, erlang, whereis, [net_kernel])", N=where) == pid
    info = await beam.eval("rpc:call(N, erlang, process_info, [P, message_queue_len])", N=where, P=pid)
    assert info == (Atom("message_queue_len"), 0)
    info = await beam.eval("rpc:call(N, erlang, process_info, [P])", N=where, P=pid)
    assert (Atom("registered_name"), Atom("net_kernel")) in info
    assert Atom("rex") in await beam.eval("rpc:call(N, erlang, registered, [])", N=where)


@pytest.mark.parametrize("name", ["net_kernel", "rex", "user"])
async def test_a_peer_cannot_take_away_what_others_depend_on(beam, serving, name):
    where = Atom(serving.name)
    await beam.eval("exit(rpc:call(N, erlang, whereis, [W]), kill)", N=where, W=Atom(name))
    assert await beam.eval("net_adm:ping(N)", N=where) is Atom("pong")
    assert await beam.eval('rpc:block_call(N, pricing, quote, [<<"laptop">>, 1])', N=where) == 2.5
    assert isinstance(serving.whereis(name), Pid)


async def test_garbage_to_every_named_process_changes_nothing(beam, serving):
    where = Atom(serving.name)
    await beam.eval(
        """
        Garbage = [x, {}, [], #{}, 1.5, {'$gen_call', x, y}, {'$gen_call', {self(), make_ref()}, {[], #{}}},
          {'$gen_cast', z}, {system, {self(), make_ref()}, get_state}, {self(), {call, a}}, {io_request, a, b, c},
          {io_request, self(), make_ref(), {put_chars, unicode, [[[1114112]], -1]}},
          {io_request, self(), make_ref(), {put_chars, unicode, io_lib, format, ["~p ~q", [1]]}},
          {'EXIT', self(), x}, {'DOWN', a, b, c, d}, fun() -> ok end, <<1:3>>, [a | b]],
        [{W, N} ! G || G <- Garbage, W <- [net_kernel, rex, user]], ok
        """,
        N=where,
    )
    assert await beam.eval("net_adm:ping(N)", N=where) is Atom("pong")
    assert await beam.eval('rpc:call(N, pricing, quote, [<<"laptop">>, 1])', N=where) == 2.5


@pytest.mark.parametrize(
    "call",
    [
        "erpc:call(N, fun pricing:seven/0)",
        "erpc:call(N, erlang, apply, [fun pricing:quote/2, Args])",
        "erpc:call(N, erlang, apply, [pricing, quote, Args])",
        "rpc:call(N, erlang, apply, [erlang, apply, [fun pricing:quote/2, Args]])",
        "rpc:block_call(N, erlang, apply, [fun pricing:quote/2, Args])",
    ],
)
async def test_external_funs_and_apply_reach_exported_functions(beam, serving, call):
    assert await beam.eval(call, N=Atom(serving.name), Args=[b"laptop", 3]) == 7.5


@pytest.mark.parametrize(
    "spawn",
    [
        "spawn(N, fun pricing:bye/0)",
        "spawn(N, erlang, apply, [pricing, bye, []])",
        "proc_lib:spawn(N, fun pricing:bye/0)",
        "proc_lib:spawn(N, pricing, bye, [])",
        "proc_lib:spawn_link(N, pricing, bye, [])",
    ],
)
async def test_every_kind_of_spawn_runs_an_exported_function(beam, serving, spawn):
    text = f"process_flag(trap_exit, true), P = {spawn}, link(P), receive {{'EXIT', P, R}} -> R after 10000 -> late end"
    assert await beam.eval(text, N=Atom(serving.name)) in (Atom("goodbye"), Atom("noproc"))
    monitored = "{P, M} = spawn_monitor(N, fun pricing:bye/0), receive {'DOWN', M, _, P, R} -> R after 10000 -> late end"
    assert await beam.eval(monitored, N=Atom(serving.name)) is Atom("goodbye")


async def test_a_closure_is_undefined_and_a_wrong_apply_says_what_is_wrong(beam, serving):
    text = "try erpc:call(N, erlang, apply, [F, []]) catch C:Why -> {C, Why} end"
    for fun, reason in (
        ("fun() -> 1 end", "{exception, undef, [{F, [], []}]}"),
        ("fun pricing:quote/2", "{exception, {badarity, {F, []}}, []}"),
    ):
        said = await beam.eval(
            f"F = {fun}, {{error, R}} = {text}, case R of {reason} -> ok; _ -> R end", N=Atom(serving.name)
        )
        assert said is Atom("ok")


async def test_a_function_raises_an_erlang_error_with_a_term_of_its_own(beam, serving):
    where = Atom(serving.name)
    match await beam.eval("rpc:call(N, pricing, fail, [erlang_error])", N=where):
        case (Atom("badrpc"), (Atom("EXIT"), ((Atom("out_of_stock"), b"laptop"), [_, *_]))):
            pass
        case other:
            raise AssertionError(other)
    match await beam.eval("P = self(), rpc:call(N, pricing, fail, [throw_object])", N=where):
        case (Atom("badrpc"), (Atom("EXIT"), ((Atom("exception"), Atom("EncodeError"), _), _))):
            pass
        case other:
            raise AssertionError(other)


async def test_an_argument_beyond_the_limits_is_a_badrpc_and_the_reason_of_what_was_spawned(beam, serving):
    where = Atom(serving.name)
    deep = "Deep = lists:foldl(fun(_, T) -> [T] end, [], lists:seq(1, 20000)),"
    match await beam.eval(deep + "rpc:call(N, pricing, quote, [Deep, 1])", N=where):
        case (Atom("badrpc"), (Atom("EXIT"), (Atom("undecodable"), bytes()))):
            pass
        case other:
            raise AssertionError(other)
    spawned = "{P, M} = spawn_monitor(N, pricing, quote, [Deep, 1]), receive {'DOWN', M, _, P, R} -> R end"
    match await beam.eval(deep + spawned, N=where):
        case (Atom("undecodable"), bytes()):
            pass
        case other:
            raise AssertionError(other)

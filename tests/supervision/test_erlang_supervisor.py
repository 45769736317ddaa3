"""An Erlang supervisor has Python processes as its children, by ``pyglyn/interop/pyglyn_child.erl``."""

from __future__ import annotations

import os
import secrets
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import attrs
import pytest_asyncio

from pyglyn import Atom, Node, Pid
from pyglyn.supervision import start
from pyglyn.supervision.os import kernel
from pyglyn.testing import Beam, eventually
from tests.supervision.erlang_children import workers

A = Atom
ROOT = Path(__file__).parents[2]


@attrs.define
class Both:
    """A Python node with an empty supervisor, ``workers``, and an Erlang node beside it."""

    beam: Beam
    node: Node

    async def supervisor(self, children: str, **bindings: Any) -> Pid:
        """Start an Erlang supervisor; the children are Erlang text in which ``Spec(Id, MFA)`` may stand."""
        text = (
            "Spec = fun(Id, MFA) -> pyglyn_child:spec(Id, {workers, Node}, MFA, Options) end, "
            f"plain_supervisor:start(#{{intensity => 3, period => 10}}, {children})"
        )
        options = bindings.pop("Options", {})
        return await self.eval(text, Options=options, **bindings)

    async def eval(self, text: str, **bindings: Any) -> Any:
        return await self.beam.eval(text, Node=Atom(self.node.name), **bindings)

    async def child(self, sup: Pid, id: str) -> Any:
        """The Erlang pid of a child."""
        children = await self.eval("supervisor:which_children(Sup)", Sup=sup)
        return next(row[1] for row in children if row[0] is Atom(id))

    async def python_children(self) -> Any:
        """What the Python supervisor has."""
        return await self.eval("supervisor:which_children({workers, Node})")


@pytest_asyncio.fixture
async def both(shared_beam: Beam) -> AsyncIterator[Both]:
    async with Node(f"child_{secrets.token_hex(4)}@localhost", cookie=shared_beam.cookie) as node:
        await start(node, workers)
        await shared_beam.load(ROOT / "pyglyn" / "interop" / "pyglyn_child.erl")
        await shared_beam.load(ROOT / "tests" / "supervision" / "plain_supervisor.erl")
        await shared_beam.eval("logger:set_primary_config(level, none)")
        yield Both(shared_beam, node)


def gone(os_pid: int) -> bool:
    return kernel.os_stat(os_pid) is None


async def test_a_child_is_started_called_and_restarted_with_the_reason_as_data(both: Both) -> None:
    sup = await both.supervisor("[Spec(stock, {erlang_children, named, [stock]})]")
    child = await both.child(sup, "stock")
    python_pid = await both.eval("pyglyn_child:pid(Child)", Child=child)
    assert python_pid.node == both.node.name
    assert python_pid == both.node.whereis("stock")
    os_pid = await both.eval("gen_server:call({stock, Node}, os_pid)")
    assert os_pid == await both.eval("gen_server:call(Child, os_pid)", Child=child)
    waiting = (
        "Ref = monitor(process, Child), gen_server:cast(Child, sigkill), "
        "receive {'DOWN', Ref, _, _, Reason} -> Reason end"
    )
    assert await both.eval(waiting, Child=child) == (A("signal"), 9)

    async def answers_anew() -> bool:
        new = await both.child(sup, "stock")
        return isinstance(new, Pid) and new != child

    await eventually(answers_anew, 10.0)
    new_os_pid = await both.eval("gen_server:call({stock, Node}, os_pid)")
    assert new_os_pid != os_pid
    await eventually(lambda: gone(os_pid))
    await both.eval("gen_server:stop(Sup, shutdown, 5000)", Sup=sup)
    await eventually(lambda: gone(new_os_pid))
    assert await both.python_children() == []


async def test_stopping_a_child_stops_its_os_process(both: Both) -> None:
    """Also one that traps exits: the signal comes from its own supervisor, in Python."""
    sup = await both.supervisor("[Spec(t, {erlang_children, 'Trapping', []})]")
    child = await both.child(sup, "t")
    assert await both.eval("gen_server:call(Child, heard)", Child=child) == []
    assert len(await both.python_children()) == 1
    assert await both.eval("supervisor:terminate_child(Sup, t)", Sup=sup) is A("ok")
    assert await both.python_children() == []
    [(_, undefined, _, _)] = await both.eval("supervisor:which_children(Sup)", Sup=sup)
    assert undefined is A("undefined")
    ok, again, python_pid = await both.eval("supervisor:restart_child(Sup, t)", Sup=sup)
    assert (ok, python_pid.node) == (A("ok"), both.node.name)
    assert again.node == both.beam.name
    await both.eval("gen_server:stop(Sup, shutdown, 5000)", Sup=sup)


async def test_a_killed_erlang_supervisor_leaves_no_python_process(both: Both) -> None:
    sup = await both.supervisor(
        "[Spec(t, {erlang_children, 'Trapping', []}), Spec(n, {erlang_children, named, [n]})]"
    )
    os_pid = await both.eval("gen_server:call({n, Node}, os_pid)")
    await both.eval("exit(Sup, kill)", Sup=sup)

    async def empty() -> bool:
        return await both.python_children() == []

    await eventually(empty)
    await eventually(lambda: gone(os_pid))


async def test_a_child_that_does_not_stop_is_killed_by_the_python_side(both: Both) -> None:
    """Even when its OS process cannot handle any signal of Erlang's any more."""
    sup = await both.supervisor(
        "[Spec(s, {erlang_children, stubborn, []}), Spec(n, {erlang_children, named, [n]})]",
        Options={A("shutdown"): 200},
    )
    os_pid = await both.eval("gen_server:call({n, Node}, os_pid)")
    os.kill(os_pid, signal.SIGSTOP)
    assert await both.eval("timer:tc(supervisor, terminate_child, [Sup, s])", Sup=sup) > (200_000,)
    microseconds, _ = await both.eval("timer:tc(supervisor, terminate_child, [Sup, n])", Sup=sup)
    assert 200_000 <= microseconds < 2_000_000
    await eventually(lambda: gone(os_pid))
    assert await both.python_children() == []
    await both.eval("gen_server:stop(Sup, shutdown, 5000)", Sup=sup)


async def test_starts_that_fail_say_why(both: Both) -> None:
    sup = await both.supervisor("[]")

    async def start_child(mfa: str, node: str | None = None, **options: Any) -> Any:
        text = (
            f"supervisor:start_child(Sup, (pyglyn_child:spec(x, {{workers, Where}}, {mfa}, Options))"
            "#{restart => temporary})"
        )
        where = Atom(node or both.node.name)
        return await both.eval(text, Sup=sup, Where=where, Options={A(k): v for k, v in options.items()})

    error, ((exit_, (undef, _)), _record) = await start_child("{erlang_children, unknown, []}")
    assert (error, exit_, undef) == (A("error"), A("EXIT"), A("undef"))
    error, (reason, _record) = await start_child("{m, f, []}", "nobody@localhost", connect_timeout=300)
    assert (error, reason) == (A("error"), (A("nodedown"), A("nobody@localhost")))
    assert await start_child("{erlang_children, 'Absent', []}") == (A("ok"), A("undefined"))
    assert await both.python_children() == []
    await both.eval("gen_server:stop(Sup, shutdown, 5000)", Sup=sup)


async def test_a_lost_connection_ends_the_child_and_the_next_one_takes_its_place(both: Both) -> None:
    """Nothing of the old one is left, though it traps exits and does not care for the connection."""
    sup = await both.supervisor("[Spec(t, {erlang_children, 'Trapping', []})]")
    child = await both.child(sup, "t")
    [(old_id, old_pid, _, _)] = await both.python_children()
    waiting = (
        "Ref = monitor(process, Child), true = erlang:disconnect_node(Node), "
        "receive {'DOWN', Ref, _, _, Reason} -> Reason end"
    )
    assert await both.eval(waiting, Child=child) is A("noconnection")

    async def replaced() -> bool:
        rows = await both.python_children()
        return [row[0] for row in rows] != [old_id] and len(rows) == 1

    await eventually(replaced)
    [(_, new_pid, _, _)] = await both.python_children()
    assert new_pid != old_pid
    await both.eval("gen_server:stop(Sup, shutdown, 5000)", Sup=sup)
    assert await both.python_children() == []


async def test_supervisors_of_one_node_leave_each_others_children_of_the_same_id_alone(both: Both) -> None:
    first = await both.supervisor("[Spec(t, {erlang_children, 'Trapping', []})]")
    child = await both.child(first, "t")
    second = await both.supervisor("[Spec(t, {erlang_children, 'Trapping', []})]")
    assert len(await both.python_children()) == 2
    assert await both.eval("gen_server:call(Child, heard)", Child=child) == []
    for sup in (first, second):
        await both.eval("gen_server:stop(Sup, shutdown, 5000)", Sup=sup)
    assert await both.python_children() == []


async def test_asking_for_the_python_process_has_a_time_limit(both: Both) -> None:
    text = "P = spawn(fun() -> receive stop -> ok end end), R = (catch pyglyn_child:pid(P, 50)), P ! stop, R"
    (exit_, (timeout, _)) = await both.eval(text)
    assert (exit_, timeout) == (A("EXIT"), A("timeout"))


async def test_gleams_supervisors_start_a_child_by_what_their_start_functions_return(both: Both) -> None:
    """gleam/otp/actor: ``Ok(Started(pid, data))``, ``Error(InitFailed(text))``."""
    text = """
        S = self(),
        P = spawn(fun() ->
            Start = fun(F) -> pyglyn_child:gleam_start({workers, Node}, {erlang_children, F, []}, #{}) end,
            S ! {started, [Start(F) || F <- ['Trapping', 'Trapping', 'Absent', unknown]]},
            receive stop -> exit(shutdown) end
        end),
        receive {started, Results} -> {P, Results} end
    """
    parent, ((ok, (started, pid, python)), (_, (_, other, _)), ignored, (error, (failed, why))) = _pair(
        await both.eval(text)
    )
    assert (ok, started, pid.node, python.node) == (A("ok"), A("started"), both.beam.name, both.node.name)
    assert other != pid
    assert ignored == (A("error"), (A("init_failed"), b"it chose not to run"))
    assert (error, failed) == (A("error"), A("init_failed"))
    assert b"undef" in why
    assert len(await both.python_children()) == 2
    await both.eval("P ! stop, ok", P=parent)

    async def empty() -> bool:
        return await both.python_children() == []

    await eventually(empty)


def _pair(answer: Any) -> Any:
    parent, results = answer
    return parent, tuple(results)

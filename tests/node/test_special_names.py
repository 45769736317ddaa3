"""``true``, ``false`` and ``nil`` are atoms like others where an atom is a name."""

from __future__ import annotations

import pytest

from pyglyn.etf import Atom
from pyglyn.node import Exports, GenServer, Node, Process
from pyglyn.supervision import Supervisor, start, worker
from pyglyn.testing import Beam, eventually
from tests.node.conftest import unique_name

NAMES = ["true", "false", "nil"]


class Echo(GenServer):
    async def handle_call(self, request: object, caller: object) -> object:
        return ("echo", request)


@pytest.mark.parametrize("name", NAMES)
async def test_a_process_with_such_a_name_is_reached_from_the_beam(name: str, beam: Beam, node: Node) -> None:
    await node.start(Echo, name=name)
    assert node.whereis(name) is not None
    asked = "{gen_server:call({Name, Node}, hello), rpc:call(Node, erlang, whereis, [Name])}"
    where = {"Node": Atom(node.name), "Name": {"true": True, "false": False, "nil": None}[name]}
    answer, pid = await beam.eval(asked, **where)
    assert answer == (b"echo", Atom("hello"))
    assert pid == node.whereis(name)
    assert await beam.eval("lists:member(Name, rpc:call(Node, erlang, registered, []))", **where) is True
    seen = await beam.eval(
        "R = monitor(process, {Name, Node}), exit(rpc:call(Node, erlang, whereis, [Name]), kill), "
        "receive {'DOWN', R, process, {Name, Node}, Why} -> Why after 10000 -> none end",
        **where,
    )
    assert seen == Atom("killed")


@pytest.mark.parametrize("name", NAMES)
async def test_a_process_of_a_worker_with_such_a_name_is_reached(name: str, beam: Beam, node: Node) -> None:
    await start(node, Supervisor().add(worker(Echo, name=name)))
    await eventually(lambda: node.whereis(name))
    where = {"Node": Atom(node.name), "Name": {"true": True, "false": False, "nil": None}[name]}
    assert await beam.eval("gen_server:call({Name, Node}, hello)", **where) == (b"echo", Atom("hello"))


@pytest.mark.parametrize("name", NAMES)
async def test_a_beam_process_with_such_a_name_is_reached_from_python(
    name: str, beam: Beam, node: Node
) -> None:
    value = {"true": True, "false": False, "nil": None}[name]
    await beam.eval(
        "P = spawn(fun() -> receive {'$gen_call', From, _} -> gen_server:reply(From, here), "
        "receive never -> ok end end end), register(Name, P)",
        Name=value,
    )
    async with node.process() as me:
        ref = me.monitor((name, beam.name))
        assert await me.call((name, beam.name), Atom("get")) == Atom("here")
        me.demonitor(ref)


async def test_functions_and_modules_with_such_names_are_called(beam: Beam) -> None:
    exports = Exports()

    async def answer(me: Process) -> bytes:
        return b"called"

    exports.add("nil", answer, "true")
    async with Node(unique_name("special"), cookie=beam.cookie, exports=exports) as node:
        assert await beam.eval("rpc:call(Node, nil, true, [])", Node=Atom(node.name)) == b"called"
        assert await beam.eval("erpc:call(Node, nil, true, [])", Node=Atom(node.name)) == b"called"

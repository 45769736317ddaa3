"""A node without a name of its own is given one by the first real node it meets, as ``erl -sname undefined`` is."""

from __future__ import annotations

import socket

import pytest

from pyglyn import Atom, GenServer, Node
from pyglyn.errors import HandshakeError, LocalProtocolError, NodeDisconnected, WrongCookie
from pyglyn.testing import eventually
from tests.cli.test_cli import APP, pyglyn, run
from tests.node.conftest import unique_name

UNDEFINED = "undefined@localhost"


class Echo(GenServer):
    async def handle_call(self, request, caller):
        return request


async def test_a_real_node_names_a_node_and_both_reach_each_others_processes(beam):
    async with Node(UNDEFINED, cookie=beam.cookie, named_by=beam.name) as node:
        assert node.name.endswith("@localhost")
        assert node.name != UNDEFINED
        assert node.peers.port == 0
        assert await beam.eval("{nodes(), nodes(hidden)}") == ([], [Atom(node.name)])
        pid = await node.start(Echo, name="echo")
        assert (pid.node, pid.creation) == (node.name, node.local.creation)
        assert await beam.eval("gen_server:call({echo, N}, hello)", N=Atom(node.name)) is Atom("hello")
        assert await beam.eval("gen_server:call(P, hello)", P=pid) is Atom("hello")
        assert await node.rpc(beam.name, "erlang", "node") is Atom(beam.name)
        # A message in answer to one: the pid of a node of this name and creation is the very same process.
        assert await beam.eval("P ! x, is_process_alive(whereis(rex)) andalso node(P)", P=pid) is Atom(
            node.name
        )
    await eventually(lambda: beam.eval("nodes(hidden) =:= []"))


async def test_two_nodes_get_two_names_and_one_goes_on_to_other_nodes(beams):
    first, second = await beams.start(), await beams.start()
    async with (
        Node(UNDEFINED, cookie=beams.cookie, named_by=first.name) as one,
        Node(UNDEFINED, cookie=beams.cookie, named_by=first.name) as other,
    ):
        assert one.name != other.name
        assert await one.ping(second.name)
        assert await second.eval("nodes(hidden)") == [Atom(one.name)]


async def test_a_node_of_ours_names_a_node_too():
    async with (
        Node(unique_name(), cookie="c") as giver,
        Node(UNDEFINED, cookie="c", named_by=giver.name) as node,
    ):
        assert giver.nodes() == [node.name]
        assert await node.ping(giver.name)


async def test_without_the_one_that_gave_it_the_name_a_node_is_at_its_end(beams):
    beam = await beams.start()
    async with Node(UNDEFINED, cookie=beam.cookie, named_by=beam.name) as node:
        beam.kill()
        with pytest.raises(NodeDisconnected, match="it gave this node its name, and is gone: "):
            await node.run()


async def test_a_node_that_gets_no_name_does_not_start(beam):
    with pytest.raises(WrongCookie):
        async with Node(UNDEFINED, cookie="another", named_by=beam.name):
            pass
    with pytest.raises(HandshakeError, match="has a long host name"):
        async with Node(UNDEFINED, cookie=beam.cookie, named_by="b@127.0.0.1"):
            pass


@pytest.mark.parametrize(
    ("name", "more"),
    [
        (UNDEFINED, {}),
        ("a@localhost", {"named_by": "b@localhost"}),
        (UNDEFINED, {"named_by": "b@localhost", "hidden": False}),
    ],
)
async def test_only_a_hidden_node_without_a_name_is_named_by_another(name, more):
    with pytest.raises(LocalProtocolError, match="named by another"):
        async with Node(name, cookie="c", **more):
            pass


async def test_a_node_of_the_command_line_is_named_by_the_first_it_connects_to(beams, tmp_path):
    (tmp_path / "my_service.py").write_text(APP)
    host = socket.gethostname().partition(".")[0]
    beam = await beams.start(f"namer@{host}")
    words = (
        "--sname",
        "undefined",
        "--cookie",
        beam.cookie,
        "--app",
        "my_service:app",
        "--log-format",
        "json",
    )
    async with pyglyn("node", *words, "--connect", beam.name, cwd=tmp_path) as node:
        name = (await node.says(r"has named this node ([^ \"]+)")).group(1)
        await node.says(f'"node": ?"{name}"')
        asks = 'gen_server:call({stock, N}, <<"laptop">>)'
        assert await eventually(lambda: beam.eval(asks, N=Atom(name))) == 10
        beam.kill()
        assert await node.ends() == 1
        assert "it gave this node its name, and is gone" in node.output


async def test_a_node_without_a_name_says_whom_it_needs():
    status, output = await run("node", "--sname", "undefined", "--cookie", "c")
    assert status == 2
    assert "the node that gives it a name is that of --connect" in output

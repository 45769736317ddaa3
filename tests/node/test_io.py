"""What is printed through a group leader of ours, and what our processes print through one elsewhere."""

from __future__ import annotations

import logging
import re

import pytest

from pyglyn.errors import CallFailed
from pyglyn.etf import Atom, io_lib
from pyglyn.node import Exports, Node, Process, put_chars
from pyglyn.testing import eventually
from tests.node.conftest import unique_name


async def hello(me: Process) -> None:
    await put_chars(me, "hellö from Python\n")


@pytest.fixture
def exports() -> Exports:
    made = Exports()
    made.add("shop", hello)
    return made


async def test_what_an_erlang_process_prints_is_logged_as_otp_formats_it(beam, caplog):
    caplog.set_level(logging.INFO, "pyglyn.io")
    async with Node(unique_name(), cookie=beam.cookie) as node:
        formats = 'io_lib:format("~.16B ~.2f ~*c ~w ~P ~p ~ts", [255, 1.0, 3, $x, "hi", [1, 2, 3], 2, Me, "\\x{e4}"])'
        print_there = formats.replace("io_lib:", "io:").replace("~ts", "~ts~n")
        expected = await beam.eval(f"Me = self(), unicode:characters_to_binary({formats})")
        leader = node.whereis("user")
        await node.connect(beam.name)
        await beam.eval(f"Me = self(), group_leader(Leader, Me), {print_there}", Leader=leader)
        await eventually(lambda: len(caplog.messages) == 1)
        [said] = caplog.messages
        normal = re.sub(r"<\d+\.\d+\.", "<N.P.", said)
        assert normal == re.sub(r"<\d+\.\d+\.", "<N.P.", expected.decode())
        refused = 'group_leader(Leader, self()), try io:format("~q", [a]) catch error:Reason -> Reason end'
        assert await beam.eval(refused, Leader=leader) is not Atom("ok")
        await beam.eval('group_leader(Leader, self()), io:write({"a"}), io:nl()', Leader=leader)
        await eventually(lambda: caplog.messages[-1] == io_lib.format(b"~w", [([97],)]))


async def test_a_python_process_prints_where_its_caller_is(beam, exports):
    async with Node(unique_name(), cookie=beam.cookie, exports=exports) as node:
        captured = """
            Self = self(),
            Leader = spawn(fun() ->
                receive {io_request, From, Ref, {put_chars, unicode, Text}} ->
                    From ! {io_reply, Ref, Answer}, Self ! {text, Text}
                end
            end),
            group_leader(Leader, self()),
            Result = rpc:call(N, shop, hello, []),
            receive {text, T} -> {Result, T} after 60000 -> {Result, none} end
        """
        text = "hellö from Python\n".encode()
        assert await beam.eval(captured, N=Atom(node.name), Answer=Atom("ok")) == (None, text)
        refused, _ = await beam.eval(captured, N=Atom(node.name), Answer=(Atom("error"), Atom("terminated")))
        assert refused[0] is Atom("badrpc")


async def test_a_python_process_of_its_own_prints_to_the_log(epmd, caplog):
    caplog.set_level(logging.INFO, "pyglyn.io")
    async with Node(unique_name(), cookie="c") as node, node.process() as me:
        await put_chars(me, "one\ntwo")
        await put_chars(me, "\n")
        assert caplog.messages == ["one", "two"]
        me.group_leader = node.spawn(hello)  # that ends without an answer
        with pytest.raises(CallFailed):
            await put_chars(me, "lost")

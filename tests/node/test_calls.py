"""The two sides of OTP's call protocol, between processes of one runtime; with real nodes in test_interop_messages."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from pyglyn.dist.control import AliasSend, MonitorPExit, RegSend, Send
from pyglyn.errors import CallFailed, CallTimeout
from pyglyn.etf import Atom, ImproperList, Pid, Reference, Term
from pyglyn.node import Caller, Process
from pyglyn.node.calls import ALIAS, GEN_CALL, call, exchange, multi_call, reply
from tests.node.runtimes import NOPROC, PEER, REF, THEM, Noted, mailbox, noted


async def echo(me: Process) -> None:
    """Answers each call with its request."""
    while True:
        _, from_, request = await me.receive()  # type: ignore[misc]
        caller = Caller.from_term(from_)
        assert caller is not None
        reply(me, caller, request)


@pytest.mark.parametrize(
    ("tag", "to"),
    [
        (ImproperList((ALIAS,), REF), REF),
        (ImproperList((ImproperList((ALIAS,), REF),), 1), REF),
        (REF, THEM),
        (ImproperList((Atom("other"),), REF), THEM),
        (ImproperList((ALIAS,), 1), THEM),
        ([ALIAS, REF], THEM),
    ],
)
def test_an_answer_goes_to_the_alias_in_the_tag_or_to_the_caller(tag: Term, to: Any) -> None:
    assert Caller(THEM, tag).destination() == to


@pytest.mark.parametrize("term", [(THEM,), (THEM, 1, 2), (Atom("a"), 1), [THEM, 1], THEM])
def test_what_is_no_caller_is_none(term: Term) -> None:
    assert Caller.from_term(term) is None
    assert Caller.from_term((THEM, 1)) == Caller(THEM, 1)


async def test_a_call_leaves_as_gen_sends_it_and_takes_the_answer_with_its_tag() -> None:
    here = noted()
    me = here.process()
    calling = asyncio.ensure_future(call(me, ("shop", PEER), 1, None))
    await asyncio.sleep(0)
    [_, (sent, message, node)] = here.take()
    assert (sent, node) == (RegSend(me.pid, Atom("shop")), PEER)
    tag, (pid, alias), request = message  # type: ignore[misc]
    assert (tag, pid, request) == (GEN_CALL, me.pid, 1)
    assert isinstance(alias, ImproperList)
    here.receive(AliasSend(THEM, alias.tail), (REF, b"not this one"))
    here.receive(Send(THEM, me.pid), (alias, b"answer"))
    assert await calling == b"answer"
    assert mailbox(me) == [(REF, b"not this one")]


async def test_after_the_answer_nothing_is_left_of_a_call() -> None:
    here = noted()
    me = here.process()
    server = here.runtime.spawn(echo)
    assert await call(me, server.pid, b"request", 5.0) == b"request"
    assert server.signals.watchers == {}
    assert (here.runtime.aliases, me.signals.monitors, mailbox(me)) == ({}, {}, [])


async def test_no_answer_in_time_is_a_timeout_and_a_late_one_is_dropped() -> None:
    here = noted()
    me, server = here.process(), here.process("server")
    with pytest.raises(CallTimeout, match=r"call to server: no reply within 0.0 s"):
        await call(me, "server", b"request", 0.0)
    [(_, from_, _)] = mailbox(server)
    caller = Caller.from_term(from_)
    assert caller is not None
    reply(server, caller, b"late")
    assert mailbox(me) == []
    assert server.signals.watchers == {}


async def test_a_server_that_is_not_there_is_said_at_once() -> None:
    me = noted().process()
    with pytest.raises(CallFailed, match="there is no such process") as caught:
        await call(me, "nobody", 1, None)
    assert caught.value.reason is NOPROC


async def test_a_server_that_ends_during_the_call_gives_its_reason() -> None:
    here = noted()
    me, server = here.process(), here.process("server")
    calling = asyncio.ensure_future(call(me, "server", 1, None))
    await asyncio.sleep(0)
    server.end((Atom("shutdown"), 1))
    with pytest.raises(CallFailed, match=r"the process ended: \{shutdown,1\}") as caught:
        await calling
    assert caught.value.reason == (Atom("shutdown"), 1)


@pytest.mark.parametrize(
    ("server", "node"), [(THEM, PEER), (("shop", PEER), PEER), ((Atom("shop"), Atom(PEER)), PEER)]
)
async def test_without_a_connection_the_reason_names_the_node(server: Any, node: str) -> None:
    here = noted()
    me = here.process()
    calling = asyncio.ensure_future(call(me, server, 1, None))
    await asyncio.sleep(0)
    here.runtime.node_down(PEER)
    with pytest.raises(CallFailed, match="no connection to its node") as caught:
        await calling
    assert caught.value.reason == (Atom("nodedown"), Atom(node))


async def test_a_caller_that_ends_has_its_call_end() -> None:
    here = noted()
    me = here.process()
    calling = asyncio.ensure_future(call(me, THEM, 1, None))
    await asyncio.sleep(0)
    me.end("boom")
    with pytest.raises(CallFailed) as caught:
        await calling
    assert caught.value.reason == Atom("boom")


async def test_other_protocols_have_the_plain_reference_as_their_tag() -> None:
    here = noted()
    me = here.process()
    asking = asyncio.ensure_future(exchange(me, THEM, lambda tag: (Atom("ask"), tag), None))
    await asyncio.sleep(0)
    [_, (_, (ask, tag), _)] = here.take()  # type: ignore[misc]
    assert ask is Atom("ask")
    assert isinstance(tag, Reference)
    here.receive(Send(THEM, me.pid), (tag, 7))
    assert await asking == 7


async def test_of_many_nodes_those_that_answer_and_those_that_do_not() -> None:
    here = noted()
    me = here.process()
    nodes = ["a@h", "b@h", "c@h"]
    asking = asyncio.ensure_future(multi_call(me, nodes, "shop", 1, None))
    for _ in range(3):
        await asyncio.sleep(0)
    sent = {node: message for control, message, node in here.take() if type(control) is RegSend}
    assert list(sent) == nodes
    _answer(here, me, sent["c@h"], b"c")
    _answer(here, me, sent["a@h"], b"a")
    here.runtime.node_down("b@h")
    assert await asking == ([("a@h", b"a"), ("c@h", b"c")], ["b@h"])


def _answer(here: Noted, me: Process, message: Any, value: Term) -> None:
    here.receive(Send(THEM, me.pid), (message[1][1], value))


async def test_a_down_of_another_monitor_does_not_end_a_call() -> None:
    here = noted()
    me = here.process()
    other = me.monitor(Pid(PEER, 5, 0, 3))
    calling = asyncio.ensure_future(call(me, THEM, 1, None))
    await asyncio.sleep(0)
    here.receive(MonitorPExit(Pid(PEER, 5, 0, 3), me.pid, other), NOPROC)
    assert [message[1] for message in mailbox(me)] == [other]
    assert not calling.done()
    me.end()
    with pytest.raises(CallFailed):
        await calling

"""The client of ``rpc`` and ``erpc``: what it sends, and what each answer means. With real nodes in test_interop_rpc."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from pyglyn.dist.control import DemonitorP, MonitorPExit, SpawnFlags, SpawnReply, SpawnRequest
from pyglyn.errors import BadRpc, CallTimeout, RemoteException
from pyglyn.etf import Atom, Term
from pyglyn.node import Process, rpc
from tests.node.runtimes import PEER, THEM, Noted, noted

A = Atom
ERPC = A("erpc")


class Asked:
    """A call under way: the request that left, and how the peer can answer it."""

    def __init__(self, function: Any = rpc.erpc, timeout: float | None = None) -> None:
        self.here: Noted = noted()
        self.me: Process = self.here.process()
        self.result = asyncio.ensure_future(function(self.me, PEER, "shop", "price", [1], timeout))

    async def sent(self) -> SpawnRequest:
        """The request, once it has left."""
        await asyncio.sleep(0)
        [(request, self.payload, node)] = self.here.take()
        assert isinstance(request, SpawnRequest)
        assert node == PEER
        self.request = request
        return request

    def reply(self, result: Any = THEM) -> None:
        """The peer says what came of the request."""
        self.here.receive(SpawnReply(self.request.request_id, self.me.pid, SpawnFlags.MONITOR, result))

    def ends(self, *kind_and_details: Term) -> None:
        """The process ends with what the function did."""
        self.down((self.payload[0], *kind_and_details))  # type: ignore[index]

    def down(self, reason: Term) -> None:
        """The process ends."""
        self.here.receive(MonitorPExit(THEM, self.me.pid, self.request.request_id), reason)

    def assert_nothing_is_left(self) -> None:
        """Neither a monitor nor an alias nor a request is kept."""
        assert self.me.signals.monitors == {}
        assert self.here.runtime.spawn_replies == {}
        assert not self.me.pending
        assert self.me.waiting_messages == []


async def test_a_call_is_a_spawn_request_with_a_monitor() -> None:
    asked = Asked()
    request = await asked.sent()
    assert (request.mfa, request.options) == ((ERPC, A("execute_call"), 4), [A("monitor")])
    assert request.sender == request.group_leader == asked.me.pid
    assert asked.payload[1:] == [A("shop"), A("price"), [1]]  # type: ignore[index]
    asked.reply()
    asked.ends(A("return"), b"value")
    assert await asked.result == b"value"
    asked.assert_nothing_is_left()


@pytest.mark.parametrize(
    ("details", "kind", "reason", "stack"),
    [
        ((A("throw"), 1), "throw", 1, ()),
        ((A("exit"), A("gone")), "exit", A("gone"), ()),
        ((A("error"), A("badarg"), [b"stack"]), "error", A("badarg"), [b"stack"]),
        ((A("error"), (ERPC, A("badarg"))), "error", (ERPC, A("badarg")), []),
    ],
)
async def test_what_the_function_raised_is_raised_here(
    details: Any, kind: str, reason: Term, stack: Term
) -> None:
    asked = Asked()
    await asked.sent()
    asked.reply()
    asked.ends(*details)
    with pytest.raises(RemoteException, match=f"shop:price on {PEER}: {kind}") as caught:
        await asked.result
    assert (caught.value.kind, caught.value.reason, caught.value.stack) == (kind, reason, stack)
    asked.assert_nothing_is_left()


@pytest.mark.parametrize(
    ("reason", "kind", "raised"),
    [
        (A("killed"), "exit", (A("signal"), A("killed"))),
        (A("noconnection"), "error", (ERPC, A("noconnection"))),
        ((1, A("return"), 2), "exit", (A("signal"), (1, A("return"), 2))),
    ],
)
async def test_a_process_that_ends_otherwise_is_an_error(reason: Term, kind: str, raised: Term) -> None:
    asked = Asked()
    await asked.sent()
    asked.reply()
    asked.down(reason)
    with pytest.raises(RemoteException) as caught:
        await asked.result
    assert (caught.value.kind, caught.value.reason) == (kind, raised)


async def test_a_peer_that_spawns_nothing_is_an_error_of_erpc() -> None:
    asked = Asked()
    await asked.sent()
    asked.reply(A("notsup"))
    with pytest.raises(RemoteException) as caught:
        await asked.result
    assert (caught.value.kind, caught.value.reason) == ("error", (ERPC, A("notsup")))
    asked.assert_nothing_is_left()


@pytest.mark.parametrize("replied", [False, True])
async def test_with_the_connection_the_call_ends_before_and_after_the_reply(replied: bool) -> None:
    asked = Asked()
    await asked.sent()
    if replied:
        asked.reply()
    asked.here.runtime.node_down(PEER)
    with pytest.raises(RemoteException) as caught:
        await asked.result
    assert caught.value.reason == (ERPC, A("noconnection"))
    asked.assert_nothing_is_left()


async def test_a_call_that_takes_too_long_is_given_up_and_its_monitor_removed() -> None:
    asked = Asked(timeout=600.0)
    request = await asked.sent()
    asked.reply()
    asked.result.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked.result
    assert asked.here.take() == [(DemonitorP(asked.me.pid, THEM, request.request_id), None, PEER)]
    asked = Asked(timeout=0.0)
    request = await asked.sent()
    with pytest.raises(CallTimeout, match=r"shop:price on erl@h: no result within 0.0 s"):
        await asked.result
    assert asked.here.take() == []
    asked.reply()  # only now: nobody watches what was spawned
    assert asked.here.take() == [(DemonitorP(asked.me.pid, THEM, request.request_id), None, PEER)]
    asked.assert_nothing_is_left()


async def test_a_request_that_is_no_term_leaves_nothing_behind() -> None:
    here = noted()
    me = here.process()
    with pytest.raises(Exception, match="object"):
        await rpc.erpc(me, PEER, "shop", "price", [object()])  # type: ignore[list-item]
    assert (me.signals.monitors, here.runtime.spawn_replies, here.out) == ({}, {}, [])
    assert not me.pending


# --- rpc --------------------------------------------------------------------------------------------------


async def test_of_rpc_a_thrown_value_is_the_result() -> None:
    asked = Asked(rpc.rpc)
    await asked.sent()
    asked.reply()
    asked.ends(A("throw"), b"thrown")
    assert await asked.result == b"thrown"


@pytest.mark.parametrize(
    ("details", "reason"),
    [
        ((A("exit"), A("gone")), (A("EXIT"), A("gone"))),
        ((A("error"), A("badarg"), [b"s"]), (A("EXIT"), (A("badarg"), [b"s"]))),
        ((A("error"), (ERPC, A("noconnection"))), A("nodedown")),
        ((A("error"), (ERPC, A("notsup"))), A("notsup")),
        ((A("error"), (ERPC, A("other"))), (A("EXIT"), A("other"))),
        ((A("return"), (A("badrpc"), A("why"))), (A("badrpc"), A("why"))),
        ((A("return"), (A("EXIT"), A("why"))), (A("EXIT"), A("why"))),
    ],
)
async def test_all_else_is_what_rpc_calls_badrpc(details: Any, reason: Term) -> None:
    asked = Asked(rpc.rpc)
    await asked.sent()
    asked.reply()
    asked.ends(*details)
    with pytest.raises(BadRpc) as caught:
        await asked.result
    assert caught.value.reason == reason


async def test_of_rpc_a_killed_process_and_a_timeout_are_badrpc_too() -> None:
    asked = Asked(rpc.rpc)
    await asked.sent()
    asked.reply()
    asked.down(A("killed"))
    with pytest.raises(BadRpc) as caught:
        await asked.result
    assert caught.value.reason == (A("EXIT"), A("killed"))
    asked = Asked(rpc.rpc, timeout=0.0)
    await asked.sent()
    with pytest.raises(BadRpc) as caught:
        await asked.result
    assert caught.value.reason is A("timeout")


async def test_a_cast_asks_for_nothing_back() -> None:
    here = noted()
    me = here.process()
    rpc.cast(me, PEER, "shop", "note", [1])
    [(request, payload, node)] = here.take()
    assert isinstance(request, SpawnRequest)
    assert (request.mfa, request.options, node) == ((ERPC, A("execute_cast"), 3), [], PEER)
    assert payload == [A("shop"), A("note"), [1]]
    assert here.runtime.spawn_replies == {}


async def test_of_several_nodes_the_results_and_those_that_are_gone() -> None:
    here = noted()
    me = here.process()
    nodes = ["a@h", "b@h", "c@h"]
    calling = asyncio.ensure_future(rpc.multicall(me, nodes, "shop", "price", [1], None))
    for _ in range(3):
        await asyncio.sleep(0)
    requests = {node: (request, payload) for request, payload, node in here.take()}
    assert list(requests) == nodes
    for node, details in (("a@h", (A("return"), 1)), ("c@h", (A("exit"), A("why")))):
        request, payload = requests[node]
        assert isinstance(request, SpawnRequest)
        here.receive(SpawnReply(request.request_id, me.pid, SpawnFlags.MONITOR, THEM))
        here.receive(MonitorPExit(THEM, me.pid, request.request_id), (payload[0], *details))  # type: ignore[index]
    here.runtime.node_down("b@h")
    assert await calling == ([1, (A("badrpc"), (A("EXIT"), A("why")))], ["b@h"])

"""Calling functions on other nodes: ``rpc`` and ``erpc``, client side. Layer: node.

Source: erpc.erl, rpc.erl (OTP 25, 28): a SPAWN_REQUEST for ``erpc:execute_call/4`` with a monitor; the
result comes as the exit reason of the spawned process.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from pyglyn import etf
from pyglyn.dist.control import DemonitorP, SpawnReply, SpawnRequest
from pyglyn.errors import BadRpc, CallTimeout, RemoteException
from pyglyn.etf import Atom, Pid, Reference, Term
from pyglyn.node import calls
from pyglyn.node.exits import atom_of
from pyglyn.node.pending import Answer
from pyglyn.node.process import Process
from pyglyn.node.reasons import EXIT, NOCONNECTION, NODEDOWN

ERPC = Atom("erpc")
MONITOR = Atom("monitor")
BADRPC = Atom("badrpc")


def _request(
    me: Process, node: str, mfa: tuple[Term, Term, int], args: list[Term], options: list[Term]
) -> tuple[Reference, Answer]:
    """Send a spawn request with a monitor; the future resolves to ``(False, exit reason)``."""
    runtime = me.runtime
    ref = runtime.make_ref()
    future = me.pending.expect(ref)
    me.signals.expect_down(ref, (ERPC, node))

    def on_reply(reply: SpawnReply) -> None:
        if not me.pending.expects(ref):
            if isinstance(reply.result, Pid):
                runtime.send(DemonitorP(me.pid, reply.result, ref))
        elif isinstance(reply.result, Pid):
            me.signals.expect_down(ref, reply.result)
        elif not future.done():
            me.signals.demonitor(ref)
            future.set_result((True, reply.result))

    runtime.spawn_replies[ref] = (node, on_reply)
    leader = me.group_leader or me.pid
    try:
        runtime.send(SpawnRequest(ref, me.pid, leader, mfa, options), list(args), node)  # type: ignore[arg-type]
    except BaseException:
        del runtime.spawn_replies[ref]
        _forget(me, ref)
        raise
    return ref, future


def _forget(me: Process, ref: Reference) -> None:
    me.pending.forget(ref)
    target = me.signals.monitors.get(ref)
    if isinstance(target, Pid):
        me.demonitor(ref)
    else:
        me.signals.demonitor(ref)


async def erpc(
    me: Process,
    node: str,
    module: str,
    function: str,
    args: Sequence[Term] = (),
    timeout: float | None = 5.0,
) -> Term:
    """Call ``module:function(*args)`` on a node, with ``erpc:call``'s distinction of failures.

    Raises:
        RemoteException: the function raised (``kind`` is error, exit or throw), is undefined (error
            ``undef``), the process was killed (exit ``{signal, R}``), or the node is gone (error
            ``{erpc, noconnection}``).
        CallTimeout: no result within ``timeout`` seconds.
    """
    result_ref = me.make_ref()
    payload: list[Term] = [result_ref, atom_of(module), atom_of(function), list(args)]
    mfa = (ERPC, Atom("execute_call"), 4)
    ref, future = _request(me, node, mfa, payload, [MONITOR])
    where = f"{module}:{function} on {node}"
    refused: bool
    outcome: Any
    try:
        refused, outcome = await calls.wait(future, timeout)
    except TimeoutError:
        raise CallTimeout(f"{where}: no result within {timeout} s") from None
    finally:
        _forget(me, ref)
    if refused:
        raise _error(where, (ERPC, outcome))
    return _result(where, result_ref, outcome)


def _result(where: str, result_ref: Reference, outcome: Term) -> Term:
    value: Term
    match outcome:
        case (ref, Atom("return"), returned) if ref == result_ref:
            value = returned
            return value
        case (ref, Atom("throw"), value) if ref == result_ref:
            raise RemoteException(f"{where}: throw {_short(value)}", kind="throw", reason=value)
        case (ref, Atom("exit"), reason) if ref == result_ref:
            raise RemoteException(f"{where}: exit {_short(reason)}", kind="exit", reason=reason)
        case (ref, Atom("error"), reason, stack) if ref == result_ref:
            raise _error(where, reason, stack)
        case (ref, Atom("error"), (Atom("erpc"), reason)) if ref == result_ref:
            raise _error(where, (ERPC, reason))
        case Atom("noconnection"):
            raise _error(where, (ERPC, NOCONNECTION))
        case reason:
            killed = (Atom("signal"), reason)
            raise RemoteException(f"{where}: its process ended: {_short(reason)}", kind="exit", reason=killed)


def _error(where: str, reason: Term, stack: Term = None) -> RemoteException:
    text = f"{where}: error {_short(reason)}"
    return RemoteException(text, kind="error", reason=reason, stack=stack or [])


def _short(term: Term) -> str:
    return etf.text.format(term, limit=300)


async def rpc(
    me: Process,
    node: str,
    module: str,
    function: str,
    args: Sequence[Term] = (),
    timeout: float | None = 5.0,
) -> Term:
    """Call ``module:function(*args)`` on a node as ``rpc:call``: a thrown value is the result.

    Raises:
        BadRpc: whatever ``rpc:call`` returns as ``{badrpc, Reason}``; ``reason`` is ``nodedown``,
            ``timeout``, ``{'EXIT', …}`` and so on.
    """
    try:
        value: Term = await erpc(me, node, module, function, args, timeout)
    except CallTimeout as error:
        raise BadRpc(str(error), reason=Atom("timeout")) from None
    except RemoteException as error:
        if error.kind == "throw":
            value = error.reason
        else:
            raise BadRpc(str(error), reason=_badrpc(error)) from error
    if isinstance(value, tuple) and len(value) == 2 and value[0] in (EXIT, BADRPC):
        raise BadRpc(f"{module}:{function} on {node}: {_short(value)}", reason=value)
    return value


def _badrpc(error: RemoteException) -> Term:
    match error.kind, error.reason:
        case "error", (Atom("erpc"), Atom("noconnection")):
            return NODEDOWN
        case "error", (Atom("erpc"), Atom("notsup") as reason):
            return reason
        case "error", (Atom("erpc"), reason):
            return (EXIT, reason)
        case "exit", (Atom("signal"), reason):
            return (EXIT, reason)
        case "exit", reason:
            return (EXIT, reason)
        case _:
            return (EXIT, (error.reason, error.stack))


def cast(me: Process, node: str, module: str, function: str, args: Sequence[Term] = ()) -> None:
    """Run ``module:function(*args)`` on a node and forget it, as ``erpc:cast``."""
    payload: list[Term] = [atom_of(module), atom_of(function), list(args)]
    leader = me.group_leader or me.pid
    request = SpawnRequest(me.make_ref(), me.pid, leader, (ERPC, Atom("execute_cast"), 3), [])
    me.runtime.send(request, payload, node)


async def multicall(
    me: Process,
    nodes: Sequence[str],
    module: str,
    function: str,
    args: Sequence[Term] = (),
    timeout: float | None = 5.0,
) -> tuple[list[Term], list[str]]:
    """Call a function on several nodes at once, as ``rpc:multicall``: the results and the bad nodes.

    A function that failed on a node gives ``{badrpc, Reason}`` among the results; a node that is gone, or
    did not answer in time, is among the bad nodes.
    """

    async def one(node: str) -> Term:
        try:
            return await rpc(me, node, module, function, args, timeout)
        except BadRpc as error:
            return (BADRPC, error.reason)

    answers = await asyncio.gather(*map(one, nodes))
    gone = ((BADRPC, NODEDOWN), (BADRPC, Atom("timeout")))
    pairs = list(zip(nodes, answers, strict=True))
    return [a for _, a in pairs if a not in gone], [n for n, a in pairs if a in gone]

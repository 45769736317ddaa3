"""The client side of OTP's call protocol, and how a server answers. Layer: node.

Source: gen.erl (OTP 25, 28). A call monitors the server with a reference that is also an alias, sends
``{'$gen_call', {Pid, [alias|Ref]}, Request}``, and waits for ``{[alias|Ref], Reply}`` or the monitor.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any, Protocol

import attrs

from pyglyn import etf, tracing
from pyglyn.errors import CallFailed, CallTimeout
from pyglyn.etf import Atom, ImproperList, Pid, Reference, Term
from pyglyn.loop_turn import LATE
from pyglyn.node.destinations import Destination, ServerRef, describe, name_term
from pyglyn.node.pending import Answer
from pyglyn.node.reasons import NOCONNECTION, NOPROC

GEN_CALL = Atom("$gen_call")
GEN_CAST = Atom("$gen_cast")
ALIAS = Atom("alias")
_ALIAS = (ALIAS,)


@attrs.define(unsafe_hash=True)  # immutable by convention, as terms are: each call makes one
class Caller:
    """Who waits for a reply: OTP's ``From``. Keep it to answer later, from any process.

    Attributes:
        pid: the calling process.
        tag: sent back unchanged with the reply.
    """

    pid: Pid
    tag: Term

    @classmethod
    def from_term(cls, term: Term) -> Caller | None:
        """Read ``{Pid, Tag}``; None if it is something else."""
        if type(term) is tuple and len(term) == 2 and type(term[0]) is Pid:
            return cls(term[0], term[1])
        return None

    def destination(self) -> Pid | Reference:
        """Where the reply goes: the alias in the tag where there is one, as ``gen:reply`` does."""
        alias = _alias_in(self.tag)
        if alias is None and isinstance(self.tag, ImproperList) and len(self.tag.elements) == 1:
            alias = _alias_in(self.tag.elements[0])
        return self.pid if alias is None else alias


def _alias_in(tag: Term) -> Reference | None:
    """The reference of ``[alias|Ref]``; None of anything else."""
    if type(tag) is ImproperList and type(tag.tail) is Reference and tag.elements == _ALIAS:
        return tag.tail
    return None


class Calling(Protocol):
    """What of a process a call needs; ``Process`` has it."""

    pid: Pid

    def send(self, to: Destination, message: Term) -> None: ...
    def expect_reply(self, to: ServerRef) -> tuple[Reference, Answer]: ...
    def forget_reply(self, ref: Reference) -> None: ...


def reply(me: Calling, caller: Caller, answer: Term) -> None:
    """Answer a call."""
    tag = caller.tag  # as most have it
    if type(tag) is ImproperList and type(tag.tail) is Reference and tag.elements == _ALIAS:
        me.send(tag.tail, (tag, answer))
    else:
        me.send(caller.destination(), (tag, answer))


def _failure(server: ServerRef, reason: Term) -> CallFailed:
    where = describe(server)
    if reason is NOPROC:
        return CallFailed(f"call to {where}: there is no such process", reason=reason)
    if reason is NOCONNECTION:
        node = server.node if isinstance(server, Pid) else str(server[1]) if isinstance(server, tuple) else ""
        reason = (Atom("nodedown"), name_term(node)) if node else reason
        return CallFailed(f"call to {where}: no connection to its node", reason=reason)
    text = etf.text.format(reason, limit=500)
    return CallFailed(f"call to {where}: the process ended: {text}", reason=reason)


def call(me: Calling, server: ServerRef, request: Term, timeout: float | None) -> Coroutine[Any, Any, Term]:
    """See ``Process.call``."""
    asked = exchange(me, server, lambda tag: (GEN_CALL, (me.pid, tag), request), timeout, alias_tag=True)
    return asked if tracing.tracer is None else _traced(server, asked)


async def _traced(server: ServerRef, asked: Coroutine[Any, Any, Term]) -> Term:
    with tracing.span(f"call {_target(server)}", "client"):
        return await asked


def _target(server: ServerRef) -> str:
    """A name of few: the registered one, or that there is none."""
    if isinstance(server, tuple):
        server = server[0]
    return str(server) if isinstance(server, (str, Atom)) else "process"


async def exchange(
    me: Calling,
    server: ServerRef,
    make_message: Any,
    timeout: float | None,
    *,
    alias_tag: bool = False,
) -> Term:
    """Send ``make_message(tag)`` and wait for ``{tag, Reply}``.

    Args:
        alias_tag: the tag is ``[alias|Ref]`` as ``gen`` has it, else the plain reference.
    """
    ref, future = me.expect_reply(server)
    try:
        tag = ImproperList((ALIAS,), ref) if alias_tag else ref
        me.send(server, make_message(tag))
        if timeout is not None:
            future.turn.limits.begin(future, timeout)
        answer = await future
    finally:
        me.forget_reply(ref)
        if timeout is not None:
            future.turn.limits.end(future, timeout)
    if answer is LATE:
        raise CallTimeout(f"call to {describe(server)}: no reply within {timeout} s")
    answered, value = answer
    if answered:
        return value  # type: ignore[no-any-return]
    raise _failure(server, value)


async def wait(future: Answer, timeout: float | None) -> Any:
    """The answer; cheaper than ``asyncio.wait_for``, which makes a task.

    Raises:
        TimeoutError: not within ``timeout`` seconds.
    """
    if timeout is None:
        return await future
    limits = future.turn.limits
    limits.begin(future, timeout)
    try:
        answer = await future
    finally:
        limits.end(future, timeout)
    if answer is LATE:
        raise TimeoutError
    return answer


async def multi_call(
    me: Calling, nodes: Sequence[str], name: str, request: Term, timeout: float | None = 5.0
) -> tuple[list[tuple[str, Term]], list[str]]:
    """Call the servers registered as ``name`` on several nodes; returns the replies and the bad nodes."""

    async def one(node: str) -> tuple[str, bool, Term]:
        try:
            return node, True, await call(me, (name, node), request, timeout)
        except (CallFailed, CallTimeout):
            return node, False, None

    answers = await asyncio.gather(*map(one, nodes))
    return [(node, value) for node, ok, value in answers if ok], [node for node, ok, _ in answers if not ok]

"""Printing where the caller is: through a process's group leader, on whatever node that runs. Layer: node.

Source: stdlib, "The Erlang I/O Protocol". A function called by ``rpc`` or ``spawn`` from another node has the
group leader of its caller; a process of one's own has this node's, which logs.
"""

from __future__ import annotations

from pyglyn.errors import CallFailed, NoProcess
from pyglyn.etf import Atom, Term
from pyglyn.node.process import Process
from pyglyn.node.reasons import DOWN, OK

IO_REQUEST, IO_REPLY = Atom("io_request"), Atom("io_reply")
PUT_CHARS, UNICODE = Atom("put_chars"), Atom("unicode")


async def put_chars(me: Process, text: str) -> None:
    """Print text as ``io:put_chars/1`` does, and wait until it is printed.

    Raises:
        NoProcess: the process has no group leader.
        CallFailed: the group leader is gone, or refused.
    """
    leader = me.group_leader
    if leader is None:
        raise NoProcess("the process has no group leader")
    ref = me.monitor(leader)
    me.send(leader, (IO_REQUEST, me.pid, ref, (PUT_CHARS, UNICODE, text.encode("utf-8", "replace"))))

    def is_answer(message: Term) -> bool:
        match message:
            case (Atom("io_reply"), answered, _):
                return bool(answered == ref)
            case (Atom("DOWN"), answered, _, _, _):
                return bool(answered == ref) and ref not in me.signals.monitors  # else it is made up
        return False

    answer = await me.receive(is_answer)
    me.demonitor(ref, flush=True)
    assert isinstance(answer, tuple)
    if answer[0] is DOWN:
        raise CallFailed("the group leader is gone", reason=answer[4])
    if answer[2] is not OK:
        raise CallFailed("the group leader did not print it", reason=answer[2])

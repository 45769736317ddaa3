"""What tools ask of processes beside ``process_info``: ``exit/2``, ``sys``, ``proc_lib``. Layer: node.

Source: sys.erl, proc_lib.erl (OTP 25, 28). Only what changes nothing works, unless the node says otherwise.
"""

from __future__ import annotations

from typing import Any, Final

from pyglyn.errors import CallFailed, CallTimeout
from pyglyn.etf import Atom, Pid, Term
from pyglyn.node.calls import exchange
from pyglyn.node.census import Census
from pyglyn.node.destinations import ServerRef, name_of
from pyglyn.node.exits import Exit
from pyglyn.node.exports import Badarg, waits
from pyglyn.node.hub import Hub
from pyglyn.node.process import Process
from pyglyn.node.reasons import UNDEFINED
from pyglyn.node.tools.terms import Functions, check_may_change

SYSTEM: Final = Atom("system")
INITIAL_CALL: Final = Atom("initial_call")
_TIMEOUT_MS: Final = 5000


def functions(hub: Hub, census: Census) -> Functions:
    """Those of modules ``erlang``, ``sys`` and ``proc_lib``."""

    async def exit(pid: Term, reason: Term) -> Term:
        check_may_change(hub, "erlang:exit/2")
        if not isinstance(pid, Pid):
            raise Badarg("exit/2 needs a pid")
        hub.system.exit(pid, reason)
        return True

    @waits
    async def get_status(me: Process, server: Term, timeout: Term = _TIMEOUT_MS) -> Term:
        return await ask(me, server, "get_status", timeout)

    @waits
    async def get_state(me: Process, server: Term, timeout: Term = _TIMEOUT_MS) -> Term:
        match await ask(me, server, "get_state", timeout):
            case (Atom("ok"), state):
                return state  # type: ignore[no-any-return]
            case other:
                return other

    @waits
    async def suspend(me: Process, server: Term, timeout: Term = _TIMEOUT_MS) -> Term:
        check_may_change(hub, "sys:suspend")
        return await ask(me, server, "suspend", timeout)

    @waits
    async def resume(me: Process, server: Term, timeout: Term = _TIMEOUT_MS) -> Term:
        check_may_change(hub, "sys:resume")
        return await ask(me, server, "resume", timeout)

    async def translate_initial_call(pid: Term) -> Term:
        return await initial_call(census, pid)

    return {
        ("erlang", "exit"): exit,
        ("sys", "get_status"): get_status,
        ("sys", "get_state"): get_state,
        ("sys", "suspend"): suspend,
        ("sys", "resume"): resume,
        ("proc_lib", "translate_initial_call"): translate_initial_call,
    }


async def initial_call(census: Census, pid: Term) -> Term:
    """``proc_lib:translate_initial_call/1``."""
    pairs = await census.info(pid, [INITIAL_CALL]) if isinstance(pid, Pid) else None
    return UNDEFINED if pairs is None else pairs[0][1]


async def ask(me: Process, server: Term, request: str, timeout_ms: Term) -> Term:
    """A request of ``sys`` to a process, for another process.

    Raises:
        Exit: as in ``sys``: ``{timeout, {sys, Function, Args}}``, or why there is no answer.
    """
    where = (Atom("sys"), Atom(request), [server, timeout_ms])
    seconds = None if timeout_ms is Atom("infinity") else _milliseconds(timeout_ms) / 1000
    try:
        return await exchange(
            me, _server(server), lambda tag: (SYSTEM, (me.pid, tag), Atom(request)), seconds, alias_tag=True
        )
    except CallTimeout:
        raise Exit((Atom("timeout"), where)) from None
    except CallFailed as error:
        reason: Any = error.reason
        raise Exit((reason, where)) from error


def _milliseconds(timeout: Term) -> int:
    if not isinstance(timeout, int) or isinstance(timeout, bool) or timeout < 0:
        raise Badarg("a timeout is milliseconds, or infinity")
    return timeout


def _server(server: Any) -> ServerRef:
    if isinstance(server, Pid):
        return server
    if isinstance(server, tuple) and len(server) == 2 and all(name_of(part) is not None for part in server):
        return (str(server[0]), str(server[1]))
    registered = name_of(server)
    if registered is None:
        raise Badarg("a process is a pid, a name, or {Name, Node}")
    return registered

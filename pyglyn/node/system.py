"""What ``sys`` asks of a process, and the answers. Layer: node.

Source: sys.erl, gen_server.erl (OTP 25, 28). A request is ``{system, From, Request}``. A server answers it in
its turn. For every other process, whatever its body does, its mailbox answers at once, and while it is
suspended ``receive`` gives it nothing.

Not supported: ``replace_state`` and ``change_code`` (they carry Erlang funs and modules), traces, statistics.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from typing import Any, Final, Protocol

from pyglyn import etf
from pyglyn.errors import EncodeError, NodeBusy
from pyglyn.etf import Atom, Pid, Term
from pyglyn.node.calls import Caller, Calling, reply
from pyglyn.node.exits import Exit, atom_of, exception_term
from pyglyn.node.reasons import ERROR, OK

SYSTEM: Final = Atom("system")
GET_STATE: Final = Atom("get_state")
RUNNING, SUSPENDED = Atom("running"), Atom("suspended")
WRAPPED_STATE_RELEASE: Final = 26
"""The OTP release whose ``sys`` takes ``{ok, State}``; those before give their callers what they get."""
_TRACES: Final = frozenset({"trace", "log", "log_to_file", "statistics", "install", "remove"})


def is_system_message(message: Term) -> bool:
    """True for ``{system, From, Request}``."""
    return type(message) is tuple and len(message) == 3 and message[0] is SYSTEM


def state_of(attributes: Iterable[tuple[Any, Any]]) -> Term:
    """A map of what a process has: the values that are terms, the others as text."""
    state: dict[Any, Term] = {}
    for name, value in attributes:
        try:
            state[atom_of(str(name))] = etf.normalise(value)
        except EncodeError:
            state[atom_of(str(name))] = repr(value).encode("utf-8", "replace")
    return state


class Releases(Protocol):
    """What knows the release of other nodes; a runtime does."""

    def tell_release(self, node: str, then: Callable[[int | None], None]) -> None: ...


class Shown(Calling, Protocol):
    """What of a process is shown or answers; ``Process`` has it."""

    parent: Pid | None

    @property
    def name(self) -> str | None: ...
    @property
    def runtime(self) -> Releases: ...


class SystemSide:
    """The system messages of one process.

    Args:
        suspends: whether it can be suspended. What serves every node cannot: one of them could silence it.

    Attributes:
        suspended: whether it takes system messages only.
    """

    def __init__(
        self, me: Shown, module: str, kind: str, state: Callable[[], Term], *, suspends: bool = True
    ) -> None:
        self.suspended = False
        self._suspends = suspends
        self._me = me
        self._module = Atom(module)
        self._kind = kind
        self._state = state

    def take(self, message: Any) -> tuple[Term] | None:
        """Answer a system message; returns the reason to end with, in a tuple, if that is what it asks for.

        A caller whose node takes no more for now gets no answer.
        """
        caller = Caller.from_term(message[1])
        if caller is None:
            return None
        match message[2]:
            case Atom("get_state"):
                self._tell_state(caller)
            case (Atom("terminate"), reason):
                self._reply(caller, OK)
                return (reason,)
            case request:
                self._reply(caller, self._answer(request))
        return None

    def _answer(self, request: Term) -> Term:
        match request:
            case Atom("get_status"):
                return self._status()
            case Atom("suspend") if not self._suspends:
                return (ERROR, Atom("cannot_be_suspended"))
            case Atom("suspend") | Atom("resume"):
                self.suspended = request is Atom("suspend")
                return OK
            case (Atom("debug"), what):
                return _debug_answer(what)
        return (ERROR, (Atom("unknown_system_msg"), request))

    def _reply(self, caller: Caller, answer: Term) -> None:
        with contextlib.suppress(NodeBusy, Exit):
            reply(self._me, caller, answer)

    def _tell_state(self, caller: Caller) -> None:
        state, error = self._look()

        def tell(release: int | None) -> None:
            if error is not None:
                self._reply(caller, (ERROR, error))
            else:
                bare = release is not None and release < WRAPPED_STATE_RELEASE
                self._reply(caller, state if bare else (OK, state))

        self._me.runtime.tell_release(caller.pid.node, tell)

    def _look(self) -> tuple[Term, Term | None]:
        """The state, or what is wrong with the function that tells it."""
        try:
            return etf.normalise(self._state()), None
        except Exception as error:
            where = (self._module, Atom("format_state"))
            return None, (Atom("callback_failed"), where, (ERROR, exception_term(error)))

    def _status(self) -> Term:
        me = self._me
        name = me.name or str(me.pid)
        parent = me.parent or me.pid
        sys_state = SUSPENDED if self.suspended else RUNNING
        state, error = self._look()
        data = [_pair("Status", sys_state), _pair("Parent", parent), _pair("Logged events", [])]
        misc: Term = [
            (Atom("header"), _text(f"Status for {self._kind} {name}")),
            (Atom("data"), data),
            (Atom("data"), [_pair("State", state if error is None else error)]),
        ]
        items: Term = [[], sys_state, parent, [], misc]
        return (Atom("status"), me.pid, (Atom("module"), self._module), items)


def _text(text: str) -> list[Term]:
    return list(text.encode())


def _pair(name: str, value: Term) -> tuple[Term, Term]:
    return _text(name), value


def _debug_answer(what: Term) -> Term:
    match what:
        case (Atom("statistics"), Atom("get")):
            return (OK, Atom("no_statistics"))
        case (Atom("log"), Atom("get")):
            return (OK, [])
        case Atom("no_debug"):
            return OK
        case (Atom(name), _) if name in _TRACES:
            return OK
    return Atom("unknown_debug")

"""GenServer: OTP's generic server in Python. Layer: node.

Source: gen_server.erl, sys.erl (OTP 25, 28). Erlang and Elixir call it with ``gen_server:call`` /
``GenServer.call`` and look into it with ``sys``; it calls BEAM servers with ``me.call`` and ``me.cast``.

Not supported: ``sys:replace_state`` and ``code_change`` (they carry Erlang funs and modules), hibernation.
"""

from __future__ import annotations

import asyncio
from typing import Any

import attrs

from pyglyn import etf
from pyglyn.errors import EncodeError, ProcessError
from pyglyn.etf import Atom, Pid, Term
from pyglyn.node import exits
from pyglyn.node.calls import Caller
from pyglyn.node.calls import reply as send_reply
from pyglyn.node.exits import Exit
from pyglyn.node.process import Process, logger
from pyglyn.node.reasons import ERROR, NORMAL, OK
from pyglyn.node.runtime import Runtime
from pyglyn.node.signals import ExitSignal

SYSTEM = Atom("system")
TIMEOUT = Atom("timeout")


@attrs.frozen
class Reply:
    """Return from ``handle_call`` to reply and set a timeout or a continuation.

    Attributes:
        value: the reply.
        timeout: seconds until ``handle_info(Atom("timeout"))`` if no message comes before.
        then: passed to ``handle_continue`` before the next message is taken.
    """

    value: Term
    timeout: float | None = None
    then: Any = None


@attrs.frozen
class NoReply:
    """Return from a handler: no reply (or none yet). The class itself does, or an instance with options."""

    timeout: float | None = None
    then: Any = None


class Stop(Exception):
    """Return or raise in a handler to stop the server.

    Attributes:
        reason: the exit reason; a plain string stands for the atom.
        reply: in ``handle_call``, what the caller still gets; by default nothing.
    """

    def __init__(self, reason: Term = NORMAL, reply: Any = NoReply) -> None:
        super().__init__(reason)
        self.reason = exits.as_reason(reason)
        self.reply = reply


class Ignore(Exception):
    """Return or raise in ``init``: the server does not start, and that is no error."""


class StartError(ProcessError):
    """A server could not be started.

    Attributes:
        reason: why, as a term.
    """

    def __init__(self, message: str, *, reason: Term) -> None:
        super().__init__(message)
        self.reason = reason


class GenServer:
    """Subclass it and write the handlers you need; ``self.me`` is the process.

    Handlers run one at a time. An exception ends the server with that exception as reason, after
    ``terminate``. ``self.reply(caller, value)`` answers a call whose handler returned ``NoReply``.
    """

    me: Process

    async def init(self, *args: Any, **kwargs: Any) -> Any:
        """Set up. May return ``NoReply(…)`` for a timeout; returns or raises ``Ignore`` or ``Stop``."""
        return None

    async def handle_call(self, request: Term, caller: Caller) -> Any:
        """Answer a call: return the reply, ``Reply(…)``, ``NoReply`` or ``Stop(…)``."""
        _unhandled("unhandled call", self, request)
        return NoReply

    async def handle_cast(self, request: Term) -> Any:
        """Handle a cast; may return ``NoReply(…)`` or ``Stop(…)``."""
        _unhandled("unhandled cast", self, request)

    async def handle_info(self, message: Term) -> Any:
        """Handle any other message; ``Atom("timeout")`` is the timeout."""
        _unhandled("unhandled message", self, message)

    async def handle_continue(self, then: Any) -> Any:
        """Go on after the handler that asked for it, before any message."""

    async def terminate(self, reason: Term) -> None:
        """Clean up when the server stops by itself, crashes, or its parent ends while exits are trapped."""

    def format_state(self) -> Term:
        """What ``sys:get_state`` shows: the attributes that are terms, the others as text."""
        state: dict[Any, Term] = {}
        for name, value in vars(self).items():
            if name == "me":
                continue
            try:
                state[Atom(name)] = etf.normalise(value)
            except EncodeError:
                state[Atom(name)] = repr(value).encode("utf-8", "replace")
        return state

    def reply(self, caller: Caller, value: Term) -> None:
        """Answer a call later."""
        send_reply(self.me, caller, value)


def _unhandled(what: str, server: GenServer, message: Term) -> None:
    """One line about a message nobody handles: its tag, never what is in it."""
    logger.warning("%s in %s: %s", what, type(server).__name__, _tag(message))


def _tag(message: Term) -> str:
    """An atom, the first atom of a tuple and how many elements it has, or only of which type it is."""
    match message:
        case Atom():
            return etf.text.format(message)
        case (Atom() as tag, *rest):
            return f"{{{etf.text.format(tag)}{',_' * len(rest)}}}" if len(rest) < 10 else f"{{{tag},…}}"
    return f"a {type(message).__name__}"


async def run_server(
    me: Process,
    server_class: type[GenServer],
    args: tuple[Any, ...] = (),
    kwargs: dict[str, Any] | None = None,
    started: asyncio.Future[Any] | None = None,
    parent: Pid | None = None,
) -> None:
    """The body of a server process.

    Args:
        started: resolved with None once ``init`` is through, with ``Ignore`` or ``Stop`` otherwise.
        parent: the process whose exit ends this one even when exits are trapped.
    """
    server = server_class()
    server.me = me
    try:
        outcome = await server.init(*args, **(kwargs or {}))
        if isinstance(outcome, (Ignore, Stop)) or outcome is Ignore:
            raise outcome
    except BaseException as error:
        _settle(started, error)
        if isinstance(error, Ignore):
            return
        if isinstance(error, Stop):
            raise Exit(error.reason) from None
        raise
    _settle(started, None)
    try:
        await _Loop(server, parent).run(outcome)
    except Stop as stop:
        await server.terminate(stop.reason)
        raise Exit(stop.reason) from None
    except Exit as error:
        if me.alive:  # it ends itself; killed from outside there is nothing it may still do
            await server.terminate(error.reason)
        raise
    except Exception as error:
        await server.terminate(exits.exit_reason(error))
        raise


def _settle(started: asyncio.Future[Any] | None, error: BaseException | None) -> None:
    if started is not None and not started.done():
        started.set_result(error)


class _Loop:
    """Takes messages and calls handlers."""

    def __init__(self, server: GenServer, parent: Pid | None) -> None:
        self.server = server
        self.me = server.me
        self.parent = parent
        self.timeout: float | None = None
        self.suspended = False

    async def run(self, outcome: Any) -> None:
        await self.after(outcome)
        while True:
            try:
                message = await self.me.receive(self._wanted, None if self.suspended else self.timeout)
            except TimeoutError:
                message = TIMEOUT
            if not _is_system(message):  # after a look into the server its timeout starts again, as in OTP
                self.timeout = None
            await self.handle(message)

    def _wanted(self, message: Term) -> bool:
        return not self.suspended or _is_system(message)

    async def after(self, outcome: Any) -> None:
        """Act on what a handler returned besides a reply: timeout, continuation, stop."""
        while True:
            if isinstance(outcome, Stop):
                raise outcome
            if isinstance(outcome, (Reply, NoReply)):
                self.timeout = outcome.timeout
                if outcome.then is not None:
                    outcome = await self.server.handle_continue(outcome.then)
                    continue
            return

    async def handle(self, message: Term) -> None:
        match message:
            case (Atom("$gen_call"), from_, request):
                caller = Caller.from_term(from_)
                if caller is not None:
                    await self.call(request, caller)
            case (Atom("$gen_cast"), request):
                await self.after(await self.server.handle_cast(request))
            case (Atom("system"), from_, request):
                caller = Caller.from_term(from_)
                if caller is not None:
                    self.system(request, caller)
            case (Atom("EXIT"), pid, reason) if pid == self.parent and type(message) is ExitSignal:
                raise Stop(reason)
            case _:
                await self.after(await self.server.handle_info(message))

    async def call(self, request: Term, caller: Caller) -> None:
        try:
            outcome = await self.server.handle_call(request, caller)
        except Stop as stop:
            outcome = stop
        if isinstance(outcome, Stop):
            if outcome.reply is not NoReply:
                self.server.reply(caller, outcome.reply)
            raise outcome
        if isinstance(outcome, Reply):
            self.server.reply(caller, outcome.value)
        elif outcome is not NoReply and not isinstance(outcome, NoReply):
            self.server.reply(caller, outcome)
        await self.after(outcome)

    def system(self, request: Term, caller: Caller) -> None:
        """Answer ``sys`` requests; source: sys.erl and gen_server's format_status."""
        answer: Term
        match request:
            case Atom("get_state"):
                answer = (OK, self.server.format_state())
            case Atom("get_status"):
                answer = self.status()
            case Atom("suspend") | Atom("resume"):
                self.suspended = request is Atom("suspend")
                answer = OK
            case (Atom("debug"), what):
                answer = _debug_answer(what)
            case (Atom("terminate"), reason):
                self.server.reply(caller, OK)
                raise Stop(reason)
            case _:
                answer = (ERROR, (Atom("unknown_system_msg"), request))
        self.server.reply(caller, answer)

    def status(self) -> Term:
        name = self.me.names[0] if self.me.names else str(self.me.pid)
        sys_state = Atom("suspended" if self.suspended else "running")
        data = [(list(b"Status"), sys_state), (list(b"Parent"), self.parent or self.me.pid)]
        misc: Term = [
            (Atom("header"), list(f"Status for generic server {name}".encode())),
            (Atom("data"), data),
            (Atom("data"), [(list(b"State"), self.server.format_state())]),
        ]
        module = (Atom("module"), Atom("gen_server"))
        items: Term = [[], sys_state, self.parent or self.me.pid, [], misc]
        return (Atom("status"), self.me.pid, module, items)


def _is_system(message: Term) -> bool:
    return type(message) is tuple and len(message) == 3 and message[0] is SYSTEM


def _debug_answer(what: Term) -> Term:
    match what:
        case (Atom("statistics"), Atom("get")):
            return (OK, Atom("no_statistics"))
        case (Atom("log"), Atom("get")):
            return (OK, [])
        case _:
            return OK


async def start_server(
    runtime: Runtime,
    server_class: type[GenServer],
    *args: Any,
    name: str | None = None,
    parent: Pid | None = None,
    **kwargs: Any,
) -> Pid | None:
    """Start a server in a runtime and wait for its ``init``. None if it said ``Ignore``.

    Args:
        parent: the process whose exit ends the server, through ``terminate``, even when it traps exits.

    Raises:
        StartError: ``init`` failed or stopped; ``reason`` says why.
        NameTaken: another process has the name.
    """
    started: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    process = runtime.spawn(
        run_server, (server_class, args, kwargs, started, parent), name=name, label=server_class.__qualname__
    )
    ended = asyncio.Event()

    def on_end(reason: Term) -> None:
        _settle(started, Stop(reason))
        ended.set()

    process.on_end.append(on_end)
    error = await started
    if error is None:
        return process.pid
    await ended.wait()  # its name is free again, as after gen_server:start
    if isinstance(error, asyncio.CancelledError):
        error = Stop(process.exit_reason)
    if isinstance(error, Ignore):
        return None
    reason = error.reason if isinstance(error, Stop) else exits.exit_reason(error)
    raise StartError(f"{server_class.__name__} did not start: {etf.text.format(reason)}", reason=reason)

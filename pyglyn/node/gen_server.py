"""GenServer: OTP's generic server in Python. Layer: node.

Source: gen_server.erl, sys.erl (OTP 25, 28). Erlang and Elixir call it with ``gen_server:call`` /
``GenServer.call`` and look into it with ``sys``; it calls BEAM servers with ``me.call`` and ``me.cast``.

Not supported: hibernation; for ``sys`` see ``system``.
"""

from __future__ import annotations

import asyncio
import inspect
from typing import Any, ClassVar, Final

import attrs

from pyglyn import etf
from pyglyn.errors import EncodeError, ProcessError
from pyglyn.etf import Atom, Pid, Term
from pyglyn.node import exits
from pyglyn.node.calls import GEN_CALL, GEN_CAST, Caller
from pyglyn.node.calls import reply as send_reply
from pyglyn.node.exits import ErlangError, Exit, Placed
from pyglyn.node.process import Process, logger
from pyglyn.node.reasons import NORMAL
from pyglyn.node.runtime import Runtime
from pyglyn.node.signals import DownSignal, ExitSignal
from pyglyn.node.system import SYSTEM, SystemSide, is_system_message, state_of

FUNCTION_CLAUSE = Atom("function_clause")
TIMEOUT = Atom("timeout")
HANDLERS: Final = ("init", "handle_call", "handle_cast", "handle_info", "handle_continue", "terminate")


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

    Attributes:
        marks_signals: ``handle_info`` gets trapped exit signals as `signals.ExitSignal`, and ends of what is
            monitored as `signals.DownSignal`, which no message is.
    """

    me: Process
    marks_signals: ClassVar[bool] = False

    async def init(self, *args: Any, **kwargs: Any) -> Any:
        """Set up. May return ``NoReply(…)`` for a timeout; returns or raises ``Ignore`` or ``Stop``."""
        return None

    async def handle_call(self, request: Term, caller: Caller) -> Any:
        """Answer a call: return the reply, ``Reply(…)``, ``NoReply`` or ``Stop(…)``.

        None, which a ``match`` that knows no such request ends in, is no reply: the server crashes with
        ``function_clause``, as one in Erlang, and so does the call. ``Reply(None)`` replies ``nil``.
        """

    async def handle_cast(self, request: Term) -> Any:
        """Handle a cast; may return ``NoReply(…)`` or ``Stop(…)``.

        Not overridden, or called for what a ``match`` does not know, it crashes the server with
        ``function_clause``, as a cast does that no clause of a server in Erlang is for.
        """
        raise Unhandled(self, "handle_cast", 2, request)

    async def handle_info(self, message: Term) -> Any:
        """Handle any other message; ``Atom("timeout")`` is the timeout. Not overridden it logs the
        first of a burst.
        """
        self.me.runtime.complain(logger, f"unhandled message in {type(self).__name__}: {_tag(message)}")

    async def handle_continue(self, then: Any) -> Any:
        """Go on after the handler that asked for it, before any message."""

    async def terminate(self, reason: Term) -> None:
        """Clean up when the server stops by itself, crashes, or its parent ends while exits are trapped."""

    def format_state(self) -> Term:
        """What ``sys:get_state`` shows: the attributes that are terms, the others as text."""
        return state_of((name, value) for name, value in vars(self).items() if name != "me")

    def reply(self, caller: Caller, value: Term) -> None:
        """Answer a call later."""
        send_reply(self.me, caller, value)


class Unhandled(ErlangError):
    """A server was sent what it has no handler for; the reason is ``function_clause``, as in Erlang.

    What was sent is not in it, as it is in no log: only its tag is.

    Args:
        arity: of the callback in Erlang, which has the state as an argument.
    """

    def __init__(self, server: GenServer, handler: str, arity: int, request: Term) -> None:
        super().__init__(FUNCTION_CLAUSE)
        self.text = f"{type(server).__name__}.{handler} has no case for {_tag(request)}"
        if handler == "handle_call":
            self.text += ", or returns None where it means Reply(None)"
        self.stack: list[Term] = [_handler_site(type(server), handler, arity)]

    def __str__(self) -> str:
        return self.text


class UnsendableReply(Placed, EncodeError):
    """What ``handle_call`` replied is no term."""

    def __init__(self, server: GenServer, error: EncodeError) -> None:
        super().__init__(
            f"{type(server).__name__}.handle_call replies what cannot be sent: {error}", value=error.value
        )
        self.stack = [_handler_site(type(server), "handle_call", 3)]


def _in_our_words(server: type[GenServer], error: BaseException) -> BaseException:
    """The error, or what to say instead of Python's where a handler is a plain function.

    Looked at only when it has failed: a plain function may return something to be awaited, as one that a
    decorator has made does.
    """
    last = error.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    if not isinstance(error, TypeError) or last is None or last.tb_frame.f_globals is not globals():
        return error
    plain = [name for name in HANDLERS if not inspect.iscoroutinefunction(getattr(server, name))]
    if not plain or "await" not in str(error):
        return error
    named = ", ".join(f"{server.__name__}.{name}" for name in plain)
    return TypeError(f"the handlers of a GenServer are `async def`, and these are not: {named}")


async def _terminate(server: GenServer, reason: Term) -> None:
    try:
        await server.terminate(reason)
    except TypeError as raised:
        error = _in_our_words(type(server), raised)
        if error is raised:
            raise
        raise error from None


def _handler_site(server: type[GenServer], handler: str, arity: int) -> Term:
    """Where a handler is defined, or should be, as an entry of a stack trace."""
    code = getattr(server, handler).__code__
    if not exits.is_own_code(code.co_filename):
        return exits.call_site(code.co_filename, handler, arity, code.co_firstlineno)
    return (exits.atom_of(server.__module__.rsplit(".", 1)[-1]), exits.atom_of(handler), arity, [])


def _tag(message: Term) -> str:
    """An atom, the first atom of a tuple and how many elements it has, or only of which type it is."""
    match message:
        case Atom() | None | bool():
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
    me.answers_system_messages = me.marks_signals = True
    try:
        outcome = await server.init(*args, **(kwargs or {}))
        if isinstance(outcome, (Ignore, Stop)) or outcome is Ignore:
            raise outcome
    except BaseException as raised:
        error = _in_our_words(server_class, raised)
        _settle(started, error)
        if isinstance(error, Ignore):
            return
        if isinstance(error, Stop):
            raise Exit(error.reason) from None
        if error is not raised:
            raise error from None
        raise
    _settle(started, None)
    try:
        await _Loop(server, parent).run(outcome)
    except Stop as stop:
        await _terminate(server, stop.reason)
        raise Exit(stop.reason) from None
    except Exit as exit:
        if me.alive:  # it ends itself; killed from outside there is nothing it may still do
            await _terminate(server, exit.reason)
        raise
    except Exception as raised:
        error = _in_our_words(server_class, raised)
        await _terminate(server, exits.exit_reason(error))
        if error is not raised:
            raise error from None
        raise


def _settle(started: asyncio.Future[Any] | None, error: BaseException | None) -> None:
    if started is not None and not started.done():
        started.set_result(error)


_OUTCOMES: Final = (Reply, NoReply, Stop)
"""Of these classes is what a handler returns that is no mere reply."""


class _Loop:
    """Takes messages and calls handlers."""

    def __init__(self, server: GenServer, parent: Pid | None) -> None:
        self.server = server
        self.me = server.me
        self.parent = parent
        self.timeout: float | None = None
        self.system = SystemSide(server.me, "gen_server", "generic server", server.format_state)

    async def run(self, outcome: Any) -> None:
        await self.after(outcome)
        me, server, system = self.me, self.server, self.system
        receive = me.receive
        while True:
            if self.timeout is None and not system.suspended:
                message = await receive()
            else:
                message = await self.wait()
            caller = None
            if type(message) is tuple and len(message) == 3 and message[0] is GEN_CALL:
                who = message[1]
                if type(who) is tuple and len(who) == 2 and type(who[0]) is Pid:  # as `Caller.from_term`
                    caller = Caller(who[0], who[1])
            if caller is None:
                await self.handle(message)
                continue
            try:
                outcome = await server.handle_call(message[2], caller)  # type: ignore[index]
            except Stop as stop:
                outcome = stop
            if outcome is None or outcome is NoReply or isinstance(outcome, _OUTCOMES):
                try:
                    await self.after_call(message[2], caller, outcome)  # type: ignore[index]
                finally:
                    outcome = None  # as in `after`
            else:
                try:
                    send_reply(me, caller, outcome)
                except EncodeError as error:
                    raise UnsendableReply(server, error) from None
                outcome = None  # not kept until the next message comes

    async def wait(self) -> Term:
        """Take the next message of a server that has a timeout, or is suspended."""
        try:
            message = await (
                self.me.receive(is_system_message)
                if self.system.suspended
                else self.me.receive(timeout=self.timeout)
            )
        except TimeoutError:
            message = TIMEOUT
        if not is_system_message(message):  # after a look into the server its timeout starts again, as in OTP
            self.timeout = None
        return message

    async def after(self, outcome: Any) -> None:
        """Act on what a handler returned besides a reply: timeout, continuation, stop."""
        while True:
            if isinstance(outcome, Stop):
                try:
                    raise outcome
                finally:
                    # Its traceback knows this frame: the two would be left to the garbage collector.
                    del outcome
            if isinstance(outcome, (Reply, NoReply)):
                self.timeout = outcome.timeout
                if outcome.then is not None:
                    outcome = await self.server.handle_continue(outcome.then)
                    continue
            return

    async def handle(self, message: Term) -> None:
        """Handle a message that is no call."""
        tag = message[0] if isinstance(message, tuple) and message else None
        size = len(message) if tag is not None else 0  # type: ignore[arg-type]
        if tag is GEN_CALL and size == 3:
            return  # from nobody
        if tag is GEN_CAST and size == 2:
            await self.after(await self.server.handle_cast(message[1]))  # type: ignore[index]
        elif tag is SYSTEM and size == 3:
            if (end := self.system.take(message)) is not None:
                raise Stop(end[0])
        elif type(message) is ExitSignal and message[1] == self.parent:
            raise Stop(message[2])
        else:
            if isinstance(message, (ExitSignal, DownSignal)) and not self.server.marks_signals:
                message = tuple(message)
            await self.after(await self.server.handle_info(message))

    async def after_call(self, request: Term, caller: Caller, outcome: Any) -> None:
        """Act on what a handler of calls returned that is no reply, or more than that."""
        if outcome is None:
            raise Unhandled(self.server, "handle_call", 3, request)
        if isinstance(outcome, Stop):
            if outcome.reply is not NoReply:
                self.answer(caller, outcome.reply)
            try:
                raise outcome
            finally:
                del outcome  # as in `after`
        if isinstance(outcome, Reply):
            self.answer(caller, outcome.value)
        await self.after(outcome)

    def answer(self, caller: Caller, value: Term) -> None:
        """Send what a handler of calls has said beside more."""
        try:
            self.server.reply(caller, value)
        except EncodeError as error:
            raise UnsendableReply(self.server, error) from None


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
    raise StartError(f"{server_class.__name__} did not start: {exits.reason_text(reason)}", reason=reason)

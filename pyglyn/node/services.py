"""What other nodes expect of any node: ``net_kernel``, ``rex``, spawn requests, ``erpc``. Layer: node.

Source: net_kernel.erl, rpc.erl, erpc.erl (OTP 25, 28). Spawn requests, ``rpc`` and ``erpc`` reach exported
functions only (see ``exports``), also by ``fun m:f/0``, ``apply`` and ``proc_lib:spawn``; everything else is
``undef``, and so are closures: their code is not here. A few read-only functions of module
``erlang`` are exported here, since shells and tools ask them of every node.

Not supported: ``rpc:block_call`` blocking others (each call has its own process), ``change_code``.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from typing import Any, Final

from pyglyn import etf
from pyglyn.dist.control import SpawnFlags, SpawnReply, SpawnRequest
from pyglyn.errors import EncodeError, NodeBusy
from pyglyn.etf import Atom, Export, Fun, Pid, Term
from pyglyn.etf.formatter import format_atom
from pyglyn.node import exits
from pyglyn.node.backpressure import WhenBusy
from pyglyn.node.callers import A_TURN, Callers
from pyglyn.node.calls import Caller, reply
from pyglyn.node.exits import ErlangError, Exit, Throw
from pyglyn.node.exports import BadArgument, Exported
from pyglyn.node.global_names import GLOBAL_NAME_SERVER, GlobalNames
from pyglyn.node.heads import ARRIVED
from pyglyn.node.hub import Hub
from pyglyn.node.io_server import IoServer
from pyglyn.node.process import Process
from pyglyn.node.reasons import BADARG, ERROR, EXIT, is_clean
from pyglyn.node.runtime import Body

UNDEF = Atom("undef")
ERLANG, APPLY, BADARITY = Atom("erlang"), Atom("apply"), Atom("badarity")
BADRPC = Atom("badrpc")
RETURN, THROW, EXIT_KIND = Atom("return"), Atom("throw"), Atom("exit")
BADOPT, SYSTEM_LIMIT = Atom("badopt"), Atom("system_limit")
REX = Atom("rex")


MAX_LABEL: Final = 300
"""About how many characters a label shows of a module or a function: a caller may give any term as one."""


def label_of(module: Term, function: Term) -> str:
    """What a process runs, for people."""
    return f"{_label(module)}:{_label(function)}"


def _label(term: Term) -> str:
    return format_atom(term.name) if type(term) is Atom else etf.text.format(term, limit=MAX_LABEL)


def _arrived(message: Term, here: str) -> tuple[str, Term]:
    """The node a message came from, whatever pids are in it, and the message; see ``Process.told_source``."""
    match message:
        case (_, Atom() as node, inner) if message[0] is ARRIVED:
            return node.name, inner
    return here, message


def _ending(reason: Term) -> Body:
    """A body that ends at once."""

    async def body(me: Process) -> None:
        raise Exit(reason)

    return body


def _raised(kind: Term, exception: BaseException, value: Term, *stack: Term) -> tuple[Term, ...]:
    """What an exported function raised; an error of its own where the value is no term."""
    try:
        return (kind, etf.normalise(value), *stack)
    except EncodeError as error:
        return (ERROR, exits.exception_term(error), exits.stack_term(exception.__traceback__))


class Services:
    """Serves one node; the hub's runtime hands it spawn requests, and it runs ``net_kernel`` and ``rex``."""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self.callers = Callers(hub.runtime.busy, hub.settings.calls_of_a_node)

    def start(self) -> None:
        """Register the named processes."""
        self.hub.runtime.on_spawn_request = self.spawn_request
        self._serve("net_kernel", self._net_kernel)
        self._serve("rex", self._rex)
        self._serve("user", self._user)
        if not self.hub.local.hidden:
            self._serve(GLOBAL_NAME_SERVER, GlobalNames())

    def _serve(self, name: str, body: Body) -> None:
        """Run a named process, and again should a peer's exit signal end it: others depend on it."""
        process = self.hub.runtime.spawn(body, name=name, label=name)
        process.when_busy = WhenBusy.DROP
        process.told_source = body in (self._net_kernel, self._rex)
        if name == "user":
            self.hub.runtime.group_leader = process.pid

        def ended(reason: Term) -> None:
            if not self.hub.stopping.is_set():
                self._serve(name, body)

        process.on_end.append(ended)

    async def _user(self, me: Process) -> None:
        await IoServer(me.node)(me)

    # --- spawn requests ---------------------------------------------------------------------------

    def spawn_request(self, request: SpawnRequest, args: Term) -> None:
        """Start the process asked for, and answer before it runs."""
        node = request.sender.node
        if not self.callers.begin(node):
            self._spawn_reply(request, SpawnFlags(0), SYSTEM_LIMIT)
            return
        try:
            process = self._spawned(request, args)
        except BaseException:
            self.callers.end(node)
            raise
        if process is None:
            self.callers.end(node)
        else:
            process.on_end.append(lambda reason: self.callers.end(node))

    def _spawned(self, request: SpawnRequest, args: Term) -> Process | None:
        """The process asked for; None if it cannot be had."""
        flags = self._flags(request.options)
        refused = type(args) is tuple  # the arguments went beyond a limit: this stands for them
        if flags is None or not (refused or isinstance(args, list)):
            self._spawn_reply(request, SpawnFlags(0), BADOPT)
            return None
        if isinstance(args, list):
            body, label, quiet = self._body(request, args)
        else:
            body, label, quiet = _ending(args), label_of(*request.mfa[:2]), True
        link_to = request.sender if flags & SpawnFlags.LINK else None
        process = self.hub.runtime.spawn(body, link_to=link_to, label=label)
        process.quiet = quiet
        process.group_leader = request.group_leader
        if flags & SpawnFlags.MONITOR:
            process.signals.on_monitor(request.sender, process.pid, request.request_id)
        self._spawn_reply(request, flags, process.pid)
        return process

    def _flags(self, options: Term) -> SpawnFlags | None:
        flags = SpawnFlags(0)
        if not isinstance(options, list):
            return None
        for option in options:
            match option:
                case Atom("link"):
                    flags |= SpawnFlags.LINK
                case Atom("monitor"):
                    flags |= SpawnFlags.MONITOR
                case (Atom(), _):
                    pass  # scheduling hints: priority, heap sizes, message_queue_data
                case _:
                    return None
        return flags

    def _spawn_reply(self, request: SpawnRequest, flags: SpawnFlags, result: Pid | Atom) -> None:
        self.hub.runtime.send(SpawnReply(request.request_id, request.sender, flags, result))

    def _body(self, request: SpawnRequest, args: list[Term]) -> tuple[Any, str, bool]:
        module, function, _ = request.mfa
        node = request.sender.node
        match module, function, args:
            case Atom("erpc"), Atom("execute_call"), [ref, m, f, call_args]:
                return (lambda me: self._execute_call(me, node, ref, m, f, call_args)), label_of(m, f), True
            case Atom("erpc"), Atom("execute_cast"), [m, f, call_args]:
                return (lambda me: self._execute(me, node, m, f, call_args)), label_of(m, f), False
            case Atom("proc_lib"), Atom("init_p"), [_, _, fun]:
                return (
                    (lambda me: self._execute(me, node, ERLANG, APPLY, [fun, []])),
                    label_of(ERLANG, APPLY),
                    False,
                )
            case Atom("proc_lib"), Atom("init_p"), [_, _, m, f, call_args]:
                return (lambda me: self._execute(me, node, m, f, call_args)), label_of(m, f), False
            case _:
                return (
                    (lambda me: self._execute(me, node, module, function, args)),
                    label_of(module, function),
                    False,
                )

    async def _execute_call(
        self, me: Process, node: str, ref: Term, module: Term, function: Term, args: Term
    ) -> None:
        await self.callers.readable(node)
        kind, *details = await self.run(me, node, module, function, args)
        raise Exit((ref, kind, *details))

    async def _execute(self, me: Process, node: str, module: Term, function: Term, args: Term) -> None:
        kind, *details = await self.run(me, node, module, function, args)
        if kind is EXIT_KIND:
            raise Exit(details[0])
        if kind is THROW:
            raise Exit(((Atom("nocatch"), details[0]), []))
        if kind is ERROR:
            raise Exit((details[0], details[1]))

    async def run(self, me: Process, node: str, module: Term, function: Term, args: Term) -> tuple[Term, ...]:
        """Run an exported function: ``(return, V)``, ``(throw, V)``, ``(exit, R)``, ``(error, R, Stack)``.

        Args:
            node: who called it.
        """
        found: Exported | None = None
        while module is ERLANG and function is APPLY and isinstance(args, list):
            match args:
                case [Export(m, f, arity), list() as call_args]:
                    if len(call_args) != arity:
                        return (ERROR, (BADARITY, (args[0], call_args)), [])
                    module, function, args = exits.atom_of(m), exits.atom_of(f), call_args
                case [
                    Fun() as closure,
                    list() as call_args,
                ]:  # its code is elsewhere, as of an unknown module
                    return (ERROR, UNDEF, [(closure, call_args, [])])
                case [m, f, list() as call_args]:
                    module, function, args = m, f, call_args
                case [what, list()]:
                    return (ERROR, (Atom("badfun"), what), [])
                case _:
                    return (ERROR, BADARG, [(module, function, args, [])])
        try:
            if isinstance(args, list):
                found = self.hub.exports.find(module, function, len(args))
                if found is None and (found := self.hub.builtins.find(module, function, len(args))):
                    async with contextlib.nullcontext() if found.waits else self.callers.turn(node):
                        return (RETURN, await found.run(me, list(args)))
            if found is None:
                return (ERROR, UNDEF, [(module, function, args, [])])
            return (RETURN, await found.run(me, list(args)))  # type: ignore[arg-type]
        except Throw as throw:
            return _raised(THROW, throw, throw.value)
        except Exit as error:
            return _raised(EXIT_KIND, error, error.reason)
        except ErlangError as error:
            return _raised(ERROR, error, error.reason, exits.stack_term(error.__traceback__))
        except BadArgument as error:
            return (ERROR, error.reason, [(module, function, args, [])])
        except EncodeError as error:
            return (ERROR, exits.exception_term(error), [(module, function, args, [])])
        except Exception as error:
            reason = exits.exit_reason(error)
            if isinstance(reason, tuple) and len(reason) == 2 and isinstance(reason[1], list):
                return (ERROR, reason[0], reason[1])
            return (ERROR, reason, exits.stack_term(error.__traceback__))

    # --- net_kernel -------------------------------------------------------------------------------

    async def _net_kernel(self, me: Process) -> None:
        """Answers ``net_adm:ping`` and the tick time; other requests get no reply, as in OTP."""
        while True:
            node, message = _arrived(await me.receive(), me.node)
            match message:
                case (Atom("$gen_call"), from_, request):
                    caller = Caller.from_term(from_)
                    answer = self._net_kernel_answer(node, request)
                    if caller is not None and answer is not None:
                        reply(me, caller, answer)

    def _net_kernel_answer(self, node: str, request: Term) -> Term:
        match request:
            case (Atom("is_auth"), _):
                return Atom("yes")
            case Atom("ticktime"):
                return int(self.hub.settings.net.channel.net_ticktime_s * 1000)
            case (Atom("spawn") | Atom("spawn_link") as how, module, function, list() as args, leader):
                options: list[Term] = [Atom("link")] if how is Atom("spawn_link") else []
                return self._old_spawn(node, module, function, args, leader, options)
            case _:
                return None

    def _old_spawn(
        self, node: str, module: Term, function: Term, args: list[Term], leader: Term, options: list[Term]
    ) -> Term:
        runtime = self.hub.runtime
        request = SpawnRequest(
            runtime.make_ref(),
            sender := runtime.make_pid(),
            leader if isinstance(leader, Pid) else runtime.group_leader or sender,
            (module, function, len(args)),  # type: ignore[arg-type]
            options,
        )
        body, label, _ = self._body(request, args)
        process = self._spawn_for(node, body, label)
        return SYSTEM_LIMIT if process is None else process.pid

    def _spawn_for(self, node: str, body: Body, label: str) -> Process | None:
        """A process for a call of a node; None if the node has too many."""
        if not self.callers.begin(node):
            return None
        process = self.hub.runtime.spawn(body, label=label)
        process.on_end.append(lambda reason: self.callers.end(node))
        return process

    # --- rex --------------------------------------------------------------------------------------

    async def _rex(self, me: Process) -> None:
        """The rpc server for old callers and ``rpc:block_call``; each call has a process of its own."""
        for number in itertools.count(1):
            node, message = _arrived(await me.receive(), me.node)
            if number % A_TURN == 0:
                await asyncio.sleep(0)
            match message:
                case (Atom("$gen_call"), from_, request):
                    caller = Caller.from_term(from_)
                    if caller is not None:
                        self._rex_call(me, node, caller, request)
                case (Pid() as pid, Atom("features_request")):
                    me.send(pid, (Atom("features_reply"), Atom(self.hub.name), [Atom("erpc")]))
                case (Pid() as pid, (Atom("sbcast"), Atom() as name, message)):
                    self._sbcast(me, pid, name, message)
                case (Pid() as pid, request):
                    self._rex_call(me, node, Caller(pid, REX), request)
                case (Atom("$gen_cast"), (Atom("cast"), module, function, args, _)):
                    self._rex_cast(node, module, function, args)

    def _rex_cast(self, node: str, module: Term, function: Term, args: Term) -> None:
        self._spawn_for(
            node, lambda m: self._execute(m, node, module, function, args), label_of(module, function)
        )

    def _rex_call(self, me: Process, node: str, caller: Caller, request: Term) -> None:
        match request:
            case (Atom("call") | Atom("block_call"), module, function, args, _):
                process = self._spawn_for(
                    node,
                    lambda m: self._rex_run(m, node, caller, module, function, args),
                    label_of(module, function),
                )
                if process is None:
                    reply(me, caller, (BADRPC, (EXIT, SYSTEM_LIMIT)))
                else:
                    process.on_end.append(lambda reason: self._rex_ended(caller, reason))

    def _rex_ended(self, caller: Caller, reason: Term) -> None:
        """A call's process that was killed has not replied."""
        if not is_clean(reason):
            with contextlib.suppress(NodeBusy):  # a caller that takes no replies gets none
                reply(self.hub.system, caller, (BADRPC, (EXIT, reason)))

    async def _rex_run(
        self, me: Process, node: str, caller: Caller, module: Term, function: Term, args: Term
    ) -> None:
        answer: Term
        await self.callers.readable(node)
        await self.callers.readable(caller.pid.node)
        match await self.run(me, node, module, function, args):
            case (Atom("return") | Atom("throw"), value):
                answer = value
            case (Atom("error"), reason, stack):
                answer = (BADRPC, (EXIT, (reason, stack)))
            case (_, reason):
                answer = (BADRPC, (EXIT, reason))
        reply(me, caller, answer)

    def _sbcast(self, me: Process, pid: Pid, name: Atom, message: Term) -> None:
        here = Atom(self.hub.name)
        if name.name in self.hub.runtime.names:
            me.send(name, message)
            me.send(pid, (REX, here, here))
        else:
            me.send(pid, (REX, here, (Atom("nonexisting_name"), name)))

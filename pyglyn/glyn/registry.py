"""Glyn Registry: processes with a name, found, told and asked from every node. Layer: glyn.

Source: glyn/registry.gleam (the same in glyn 2.0.3 and later). A Glyn scope is a syn scope; a name is a
binary; the metadata in syn are ``{Subject, Metadata}`` with the subject that takes the messages. A message is
``{Tag, Message}`` to its owner; a call carries the caller's own subject in the message, where the message's
constructor puts it, and the reply comes there.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any, Generic, TypeVar, cast

from pyglyn import gleam
from pyglyn.errors import CallFailed, CallTimeout, GroupError, NoProcess
from pyglyn.etf import Atom, Pid, Reference, Term
from pyglyn.gleam import Subject
from pyglyn.glyn.subject import Codec, Undecodable
from pyglyn.groups import syn
from pyglyn.node import At, Node, Process
from pyglyn.node.signals import DownSignal

T = TypeVar("T")
R = TypeVar("R")

SUBJECT = Atom("subject")


class Registration(Generic[T]):
    """The messages to a registered process; made by ``Registry.register``.

    Iterate over it, or ``receive``, in the process that registered. The process's other messages stay.

    Attributes:
        name: the name.
        subject: where messages go; it can be handed to Gleam.
    """

    def __init__(self, me: Process, name: str, codec: Codec[T]) -> None:
        self.name = name
        self.subject: Subject[T] = Subject(me.pid, me.make_ref())
        self._me = me
        self._codec = codec

    async def receive(self, timeout: float | None = None) -> T:
        """Wait for the next message; what does not decode goes to the handler and is passed over.

        Raises:
            TimeoutError: none came within ``timeout`` seconds; 0 looks only at what is here.
        """
        loop = asyncio.get_running_loop()
        deadline = None if timeout is None else loop.time() + timeout
        while True:
            left = None if deadline is None else max(0.0, deadline - loop.time())
            _, term = cast(Any, await self._me.receive(self._is_ours, left))
            decoded, message = self._codec.decode(term)
            if decoded:
                return cast(T, message)

    async def __aiter__(self) -> AsyncIterator[T]:
        while True:
            yield await self.receive()

    def _is_ours(self, message: Any) -> bool:
        return type(message) is tuple and len(message) == 2 and message[0] == self.subject.tag


class Registry(Generic[T]):
    """A Glyn Registry: ``Registry(node, "services", Request)``.

    Args:
        at: the node, or a process of it; in a worker the process (``me``).
        scope: the scope, as in Glyn; it is started on the node where ``at`` is the node.
        decoder: the type of the messages, or a decoder of them.
        metadata: the type of the metadata that ``whereis`` returns, or a decoder; None for raw terms.
        on_undecodable: called with the raw term and the reason for each message that does not decode; by
            default it is logged and counted. Nothing is ever made up in its place.
    """

    def __init__(
        self,
        at: At,
        scope: str,
        decoder: Any,
        *,
        metadata: Any = None,
        on_undecodable: Undecodable | None = None,
    ) -> None:
        self.at = at
        self.scope = scope
        self._codec: Codec[T] = Codec(decoder, on_undecodable, f"Registry {scope}")
        self._metadata = None if metadata is None else gleam.as_decoder(metadata)
        if isinstance(at, Node):
            syn.start(at, scope)

    @property
    def undecodable(self) -> int:
        """How many messages did not decode."""
        return self._codec.undecodable

    async def register(self, me: Process, name: str, metadata: object = None) -> Registration[T]:
        """Register a process under a name; the name is free again when the process ends.

        Raises:
            RegistrationFailed: another process of the cluster has the name.
            ValueEncodeError: the metadata have no Gleam counterpart.
            NoProcess: the scope was not started on this node.
        """
        registration: Registration[T] = Registration(me, name, self._codec)
        subject = (SUBJECT, me.pid, registration.subject.tag)
        await syn.register(self.at, self.scope, name.encode(), me.pid, (subject, gleam.encode(metadata)))
        return registration

    async def unregister(self, name: str) -> None:
        """Free a name.

        Raises:
            RegistrationFailed: nobody has it.
        """
        await syn.unregister(self.at, self.scope, name.encode())

    async def whereis(self, name: str) -> tuple[Pid, Any]:
        """The process of a name, and its metadata.

        Raises:
            NoProcess: nobody has the name.
            DecodeErrors: the metadata do not decode.
        """
        pid, _, metadata = await self._find(name)
        return pid, metadata if self._metadata is None else self._metadata.decode(metadata)

    async def subject(self, name: str) -> Subject[T]:
        """The subject that takes the messages to a name; good until the process that has the name ends.

        Raises:
            NoProcess: nobody has the name.
        """
        _, subject, _ = await self._find(name)
        return subject

    async def send(self, name: str, message: T) -> None:
        """Send a message to the process of a name.

        Raises:
            NoProcess: nobody has the name.
            ValueEncodeError: the message has no Gleam counterpart, or is not of the declared type.
        """
        term = self._codec.encode(message)
        subject = await self.subject(name)
        self.at.send(subject.owner, (subject.tag, term))

    async def call(
        self,
        name: str,
        make_message: Callable[[Subject[Any]], T],
        timeout: float = 5.0,
        *,
        reply: Any = None,
    ) -> Any:
        """Ask the process of a name: ``make_message`` gets the subject for the reply.

        Args:
            make_message: makes the message; ``lambda reply_to: GetPrice("laptop", reply_to)``.
            timeout: seconds to wait.
            reply: the type of the reply, or a decoder; None for the raw term.

        Raises:
            NoProcess: nobody has the name.
            CallTimeout: no reply came in time; a late one is dropped.
            CallFailed: the process ended before it replied.
            DecodeErrors: the reply does not decode.
        """
        decoder = None if reply is None else gleam.as_decoder(reply)
        pid, subject, _ = await self._find(name)
        caller = self.at.runtime.attach("registry call")
        caller.marks_signals = True
        try:
            tag = caller.make_ref()
            down = caller.monitor(pid)
            caller.send(
                subject.owner, (subject.tag, self._codec.encode(make_message(Subject(caller.pid, tag))))
            )
            answer = await _reply(caller, name, tag, down, timeout)
        finally:
            caller.end()
        return answer if decoder is None else decoder.decode(answer)

    async def _find(self, name: str) -> tuple[Pid, Subject[Any], Term]:
        found = await syn.lookup(self.at, self.scope, name.encode())
        match found:
            case None:
                raise NoProcess(f"nobody is registered as {name!r} in scope {self.scope!r}")
            case (Pid() as pid, ((Atom("subject"), Pid() as owner, tag), metadata)):
                return pid, Subject(owner, tag), metadata
        raise GroupError(f"{name!r} in scope {self.scope!r} was not registered by a Glyn Registry")


async def _reply(caller: Process, name: str, tag: Reference, down: Reference, timeout: float) -> Term:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(timeout):
            while True:
                message: Any = await caller.receive()
                match message:
                    case (Reference() as ref, answer) if ref == tag:
                        return cast(Term, answer)
                    case DownSignal((_, Reference() as ref, _, _, Atom("noproc"))) if ref == down:
                        raise NoProcess(f"the process of {name!r} has just ended")
                    case DownSignal((_, Reference() as ref, _, _, reason)) if ref == down:
                        raise CallFailed(f"{name!r} ended before it replied", reason=reason)
    raise CallTimeout(f"{name!r} did not reply within {timeout} s")

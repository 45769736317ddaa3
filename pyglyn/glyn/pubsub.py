"""Glyn PubSub: typed events to all subscribers of a group, on every node. Layer: glyn.

Source: glyn/pubsub.gleam of glyn 2.0.3 and of its later revision ("decode once per node"), which has not been
released. A Glyn scope is a syn scope, a group a binary. The two speak differently:

==================  ========================================  ================================================
                    2.0.3                                     later
==================  ========================================  ================================================
members of Group    every subscriber                          one decoding actor a node
besides             -                                         subscribers join ``{Reference, Group}``
message             ``{Group, Event}``                        ``Event``
==================  ========================================  ================================================

A subscription here takes both. What is published goes to each node in the form that node speaks: a node with
groups named ``{Reference, _}`` in the scope gets the later form, all others the released one.

A subscription is a small process of its own beside the subscriber, as the later Glyn has it: whatever arrives
there was meant for the group, and the subscriber's other messages are not touched. It ends with its
subscriber.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any, Generic, Literal, TypeAlias, TypeVar, cast

from pyglyn import etf
from pyglyn.errors import DecodeError, NodeBusy, NotInGroup
from pyglyn.etf import Pid, Reference, Term
from pyglyn.glyn.subject import Codec, Undecodable
from pyglyn.groups import syn
from pyglyn.node import At, Exit, Node, Process
from pyglyn.node.mailbox import Plain, as_it_came
from pyglyn.node.signals import DownSignal

T = TypeVar("T")

Form: TypeAlias = Literal["auto", "tagged", "bare"]
"""How to publish: ``{Group, Event}`` (2.0.3), ``Event`` (later), or what each node speaks."""


_PAIR, _NAMED = b"h\2", b"w"
_ELSE = (b"h", b"w", b"l", b"j", b"k", b"m", b"a", b"b", b"F", b"t")
"""How values begin that are no pair with a group's name."""


def event_in(message: bytes | memoryview, tagged: bytes) -> int | None:
    """Where the event is in an encoded message, which begins with ``tagged`` in the form of 2.0.3.

    None where a look at the term has to tell: of a pair that may have the group's name in other words.
    """
    head = bytes(message[: len(tagged)])
    if head == tagged:
        return len(tagged)
    if head.startswith(_PAIR) and head[2:3] != _NAMED:
        return None
    return 0 if head[:1] in _ELSE else None


class Subscription(Generic[T]):
    """The events of one group for one process; made by ``PubSub.subscribe``.

    Iterate over it, or ``receive``, in the process that subscribed. Events wait in that process's mailbox as
    ``(subscription.tag, event)``, where a selective ``me.receive`` finds them too.

    Attributes:
        group: the group.
        pid: the member of the group.
        tag: marks the events in the mailbox.
    """

    def __init__(self, me: Process, scope: str, group: str, codec: Codec[T]) -> None:
        self.group = group
        self.tag: Reference = me.make_ref()
        self._me = me
        self._scope = scope
        self._codec = codec
        self._name = group.encode()
        self.pid: Pid = me.spawn(self._relay)

    @property
    def undecodable(self) -> int:
        """How many messages to this PubSub's subscriptions did not decode."""
        return self._codec.undecodable

    async def receive(self, timeout: float | None = None) -> T:
        """Wait for the next event.

        Raises:
            TimeoutError: none came within ``timeout`` seconds; 0 looks only at what is here.
        """
        _, event = cast(Any, await self._me.receive(self._is_event, timeout))
        return cast(T, event)

    async def __aiter__(self) -> AsyncIterator[T]:
        while True:
            yield await self.receive()

    async def unsubscribe(self) -> None:
        """Leave the group; events that have arrived can still be received. Once is enough."""
        with contextlib.suppress(NotInGroup):
            await syn.leave(self._me, self._scope, self._name, self.pid)
        self._me.exit(self.pid, "kill")

    def _is_event(self, message: Any) -> bool:
        return type(message) is tuple and len(message) == 2 and message[0] is self.tag

    async def _relay(self, member: Process) -> None:
        member.marks_signals = True
        down = member.monitor(self._me.pid)
        limits, tagged = member.runtime.settings.limits, _PAIR + etf.encode_bare(self._name)
        while True:
            message: Any = await member.receive(as_it_came)
            decoded, event = False, None
            if type(message) is bytes or type(message) is memoryview:
                at = event_in(message, tagged)
                if at is not None:
                    decoded, event = self._codec.read(message, at, limits)
                if not decoded:
                    try:
                        message = member.runtime.read_message(message)
                    except DecodeError:
                        continue
            elif type(message) is Plain:
                message = message.message
            if not decoded:
                match message:
                    case (name, event) if name == self._name:
                        message = event
                    case DownSignal((_, Reference() as ref, *_)) if ref == down:
                        raise Exit("normal")
                decoded, event = self._codec.decode(message)
            if decoded and self._me.alive:
                self._me.put((self.tag, event))


class PubSub(Generic[T]):
    """A Glyn PubSub: ``PubSub(node, "example", OrderEvent)``.

    Args:
        at: the node, or a process of it; in a worker the process (``me``).
        scope: the scope, as in Glyn; it is started on the node where ``at`` is the node.
        decoder: the type of the events, or a decoder of them.
        form: how to publish; see the module.
        on_undecodable: called with the raw term and the reason for each message that does not decode; by
            default it is logged and counted. Nothing is ever made up in its place.
    """

    def __init__(
        self,
        at: At,
        scope: str,
        decoder: Any,
        *,
        form: Form = "auto",
        on_undecodable: Undecodable | None = None,
    ) -> None:
        self.at = at
        self.scope = scope
        self.form = form
        self._codec: Codec[T] = Codec(decoder, on_undecodable, f"PubSub {scope}")
        if isinstance(at, Node):
            syn.start(at, scope)

    @property
    def undecodable(self) -> int:
        """How many messages did not decode."""
        return self._codec.undecodable

    async def subscribe(self, me: Process, group: str) -> Subscription[T]:
        """Subscribe a process to a group; it gets every event published from now on.

        Raises:
            NoProcess: the scope was not started on this node.
        """
        subscription = Subscription(me, self.scope, group, self._codec)
        try:
            await syn.join(self._for(me), self.scope, group.encode(), subscription.pid)
        except BaseException:
            me.exit(subscription.pid, "kill")
            raise
        return subscription

    async def unsubscribe(self, subscription: Subscription[T]) -> None:
        """Leave the group; as ``subscription.unsubscribe()``."""
        await subscription.unsubscribe()

    async def publish(self, group: str, event: T, *, sender: Process | None = None) -> int:
        """Send an event to every subscriber on every node; returns to how many members it went.

        Events of one sender reach a subscriber in the order they were published.

        Args:
            sender: the process that publishes; by default what the PubSub was made with.

        Raises:
            ValueEncodeError: the event has no Gleam counterpart, or is not of the declared type.
            NodeBusy: far too much is queued for a node; all others got the event.
        """
        term = etf.normalise(self._codec.encode(event))
        return await self.publish_term(group, term, sender=sender)

    async def publish_term(self, group: str, term: Term, *, sender: Process | None = None) -> int:
        """Send a raw term to every subscriber, as ``publish``."""
        at = self.at if sender is None else sender
        name = group.encode()
        pids = await self.subscribers(group)
        bare = await self._bare_nodes()
        busy: NodeBusy | None = None
        for pid in pids:
            try:
                at.send(pid, term if bare is None or pid.node in bare else (name, term))
            except NodeBusy as error:
                busy = error
        if busy is not None:
            raise busy
        return len(pids)

    async def subscribers(self, group: str) -> list[Pid]:
        """The members of a group on all nodes."""
        return [pid for pid, _ in await syn.members(self.at, self.scope, group.encode())]

    async def subscriber_count(self, group: str) -> int:
        """How many members a group has on all nodes."""
        return await syn.member_count(self.at, self.scope, group.encode())

    async def _bare_nodes(self) -> set[str] | None:
        """The nodes that want the bare form; None for all."""
        if self.form == "auto":
            return set(await syn.nodes_with_private_groups(self.at, self.scope))
        return None if self.form == "bare" else set()

    def _for(self, me: Process) -> At:
        """Where the scope is asked from on behalf of a process: the node itself if it is at hand."""
        return self.at if isinstance(self.at, Node) and self.at.runtime is me.runtime else me

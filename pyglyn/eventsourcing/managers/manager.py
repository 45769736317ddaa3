"""Process managers: what is to follow from events, by commands and in time, whatever dies when.

::

    def handle(state: Order, message: object) -> list[es.Action]:
        match message:
            case OrderPlaced(total):
                return [es.Dispatch("payments", Charge(total)), es.Deadline("payment", after=3600)]
            case Expired("payment"):
                return [es.Dispatch("orders", Cancel()), es.End()]
        return []

    orders = es.manager("orders", store=events, handle=handle, services={...})
    tree.add(orders.worker())

The state of an instance, the checkpoint of the manager, the commands it issues and the deadlines it sets are
written in one transaction. Commands are sent afterwards, each as often as it takes, with an id that makes it
carried out once.

Layer: eventsourcing, managers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from pyglyn.etf import Pid
from pyglyn.eventsourcing.cluster.broadcast import GlynConfig
from pyglyn.eventsourcing.domain.envelope import EventEnvelope
from pyglyn.eventsourcing.managers.rules import Action, Rules
from pyglyn.eventsourcing.managers.sending import OnRefusal
from pyglyn.eventsourcing.managers.server import ManagerServer
from pyglyn.eventsourcing.managers.spec import Destination, ManagerSpec
from pyglyn.eventsourcing.queries.durable_spec import Start
from pyglyn.eventsourcing.queries.durable_state import BatchLimits
from pyglyn.eventsourcing.queries.failure import FailurePolicy
from pyglyn.eventsourcing.stores.memory import refuse_memory_elsewhere
from pyglyn.eventsourcing.stores.store import EventStore
from pyglyn.node import Node
from pyglyn.supervision import ChildSpec, worker

S = TypeVar("S")


class Manager(ManagerSpec[S]):
    """A process manager: what `manager` makes."""

    def worker(self, **options: Any) -> ChildSpec:
        """Specify it for a supervision tree: an OS process of its own.

        Raises:
            EventStoreError: the events are in memory, which another OS process does not see.
        """
        refuse_memory_elsewhere(f"manager {self.name!r}", self.store, options)
        return worker(ManagerServer, self, name=self.name, **options)

    async def start(self, node: Node) -> Pid:
        """Start it in the node's own OS process, without supervision."""
        pid = await node.start(ManagerServer, self, name=self.name)
        assert pid is not None
        return pid


def manager(
    name: str,
    *,
    store: EventStore[Any, Any] | GlynConfig,
    handle: Callable[[S, Any], Iterable[Action]],
    apply: Callable[[S, Any], S] | None = None,
    empty_state: S = None,  # type: ignore[assignment]
    correlate: Callable[[EventEnvelope[Any]], str | None] | None = None,
    starts: tuple[type, ...] = (),
    services: Mapping[str, Destination],
    into: EventStore[Any, Any] | str | None = None,
    on_refusal: OnRefusal = "park",
    policy: FailurePolicy | None = None,
    limits: BatchLimits | None = None,
    start: Start = 0,
    group: GlynConfig | None = None,
    events: object = None,
    select: Sequence[type | str] | None = None,
) -> Manager[S]:
    """Describe a process manager.

    Args:
        name: the manager's; its checkpoint, its process and the ids of its commands have it too.
        store: where the events are: a store, or a `GlynConfig` whose services are asked.
        handle: ``handle(state, message)`` returns what is to be done: `Dispatch`, `Deadline`, `Schedule`,
            `Cancel`, `End`. A message is the payload of an event, `Expired`, or `Refused`. Pure, as
            ``apply``.
        apply: ``apply(state, message)`` returns the state after it; None for a manager without a state.
        empty_state: of an instance that begins.
        correlate: ``correlate(envelope)`` names the instance that an event concerns, or returns None. By
            default it is the aggregate of the event.
        starts: the types of events that begin an instance; of one that has ended, or never began, other
            events are left out. Empty for all types.
        services: where its commands may go, by the names that `Dispatch` has.
        into: the database of all that the manager keeps; that of the events unless given.
        on_refusal: what becomes of a command that its aggregate refuses: ``handle`` gives `Refused` to
            ``handle``; ``park`` keeps it aside until it is driven; ``skip`` logs and forgets it. Later
            commands of the instance wait until then.
        policy: how often to try what fails, and what then.
        limits: how many events are handled in one transaction.
        start: where a manager begins that has no checkpoint yet, as for `durable_query`.
        group: the Glyn group whose broadcasts wake it up.
        events: the type of the events, where ``store`` is a `GlynConfig`.
        select: the types of the events that it gets, as for `durable_query`; None for all.

    Raises:
        EventStoreError: there is no database for what it keeps.
        TypeError, ValueError: the state has no JSON.
        UnsupportedType: a type of commands is no Gleam value.
    """
    rules = Rules(
        handle=handle, apply=apply, empty_state=empty_state, correlate=correlate, starts=tuple(starts)
    )
    return Manager(
        name,
        rules,
        store=store,
        into=into,
        services=services,
        on_refusal=on_refusal,
        policy=policy,
        limits=limits,
        start=start,
        group=group,
        events=events,
        select=select,
    )

"""What is declared of a process manager. Layer: eventsourcing, managers."""

from __future__ import annotations

import functools
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, TypeVar

import attrs

from pyglyn.errors import EventStoreError
from pyglyn.eventsourcing.cluster.broadcast import GlynConfig
from pyglyn.eventsourcing.cluster.client import Address
from pyglyn.eventsourcing.domain import wire
from pyglyn.eventsourcing.managers.rules import Rules
from pyglyn.eventsourcing.managers.sealing import Sealing
from pyglyn.eventsourcing.managers.sending import OnRefusal
from pyglyn.eventsourcing.queries.durable_spec import DurableSpec, Start
from pyglyn.eventsourcing.queries.durable_state import BatchLimits
from pyglyn.eventsourcing.queries.failure import FailurePolicy
from pyglyn.eventsourcing.stores.encrypted import EncryptedStore
from pyglyn.eventsourcing.stores.json.codec import JsonCodec
from pyglyn.eventsourcing.stores.store import EventStore
from pyglyn.eventsourcing.stores.wrapped import WrappedStore, unwrapped

S = TypeVar("S")

_CACHED = ("codec", "readers", "sealing")


@attrs.frozen(kw_only=True)
class Destination:
    """A service that a manager sends commands to.

    Attributes:
        name: as `es.Service` takes it: a name of this node, ``(name, node)``, a Gleam subject; None for the
            name that it has in the manager's ``services``.
        scope: of several services that share it, the owner of the aggregate gets the command.
        commands: the type of its commands, to have them back as such in a `Refused`.
        timeout: seconds until a command that has no answer is sent again.
    """

    name: Address | None = None
    scope: str | None = None
    commands: object = None
    timeout: float = 5.0


class ManagerSpec(DurableSpec, Generic[S]):
    """A process manager as declared: rules, places, destinations; see `manager`."""

    def __init__(
        self,
        name: str,
        rules: Rules[S],
        *,
        store: EventStore[Any, Any] | GlynConfig,
        into: EventStore[Any, Any] | str | None,
        services: Mapping[str, Destination],
        on_refusal: OnRefusal,
        policy: FailurePolicy | None,
        limits: BatchLimits | None,
        start: Start,
        group: GlynConfig | None,
        events: object,
        select: Sequence[type | str] | None,
    ) -> None:
        if into is None:
            if isinstance(store, GlynConfig):
                raise EventStoreError(f"manager {name!r}: say into which database its state goes, by into=")
            into = unwrapped(store)
        super().__init__(
            name,
            rules.handle,  # type: ignore[arg-type]
            store=store,
            into=into,
            policy=policy,
            limits=limits,
            start=start,
            group=group,
            events=events,
            select=select,
        )
        if on_refusal not in typing.get_args(OnRefusal):
            known = ", ".join(typing.get_args(OnRefusal))
            raise ValueError(f"on_refusal is one of {known}, got {on_refusal!r}")
        self.rules = rules
        self.services = dict(services)
        self.on_refusal = on_refusal
        _ = self.codec, self.readers  # refuses what cannot be kept or sent, here and not in its process

    def _check_into(self, into: EventStore[Any, Any]) -> None:
        if not into.has_side_tables:
            raise EventStoreError(f"manager {self.name!r}: its database cannot keep its state")

    @functools.cached_property
    def codec(self) -> JsonCodec[S]:
        """Writes and reads states."""
        state = None if self.rules.apply is None else wire.parameter_type(self.rules.apply, 0)
        if state is None and self.rules.empty_state is not None:
            state = type(self.rules.empty_state)
        return JsonCodec(state, tagged=False)

    @functools.cached_property
    def readers(self) -> dict[str, Callable[[Any], Any]]:
        """Read commands, by service."""
        return {name: wire.decoding(each.commands) for name, each in self.services.items()}

    @functools.cached_property
    def sealing(self) -> Sealing:
        """Encrypts what is kept of its instances, if they are aggregates that have keys."""
        store: Any = self.store
        while isinstance(store, WrappedStore) and not isinstance(store, EncryptedStore):
            store = store.underlying  # whatever else one around it does, its aggregates have keys
        has_keys = isinstance(store, EncryptedStore) and self.rules.correlate is None
        return Sealing(self.name, store.ring if has_keys else None)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in _CACHED}

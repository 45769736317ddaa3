"""Event sourcing compatible with Gleam's ``eventsourcing``: domain core, stores, readers.

::

    from pyglyn import eventsourcing as es

    store = es.open_store("sqlite:bank.db", events=BankAccountEvent, state=BankAccount,
                          aggregate_type="BankAccount")
    domain = es.Domain(handle, apply, BankAccount())
    accounts = es.CommandExecutor(store, domain, snapshot_config=es.SnapshotConfig(frequency=100))
    executed = await accounts.execute("account-1", OpenAccount("account-1"))

Nothing here needs a node or a cluster.
"""

from __future__ import annotations

from pyglyn.errors import (
    ActorTimeout,
    CheckpointConflict,
    DomainError,
    EntityNotFound,
    EventDecodeError,
    EventEncodeError,
    EventSourcingError,
    EventStoreError,
    InvalidHandlerResult,
    NonPositiveArgument,
    StoreUnavailable,
    TransactionFailed,
    TransactionRolledBack,
    VersionConflict,
)
from pyglyn.eventsourcing.aggregate import Aggregate, AggregateStats, Domain, SystemStats
from pyglyn.eventsourcing.commands import CommandExecutor, Executed
from pyglyn.eventsourcing.envelope import (
    EventEnvelope,
    MemoryStoreEventEnvelop,
    Metadata,
    ProcessEvents,
    SerializedEventEnvelop,
)
from pyglyn.eventsourcing.json_codec import (
    JsonCodec,
    JsonStyle,
    camel_case,
    kebab_case,
    pascal_case,
    snake_case,
)
from pyglyn.eventsourcing.memory import MemoryStore
from pyglyn.eventsourcing.opening import open_store
from pyglyn.eventsourcing.recorder import RecorderStore
from pyglyn.eventsourcing.rows import RowCodec
from pyglyn.eventsourcing.snapshot import Snapshot, SnapshotConfig
from pyglyn.eventsourcing.store import (
    Checkpoint,
    EventStore,
    Loaded,
    OutboxEntry,
    OutboxMessage,
    ParkedEvent,
    RecordedEvent,
    Transaction,
)

__all__ = [
    "ActorTimeout",
    "Aggregate",
    "AggregateStats",
    "Checkpoint",
    "CheckpointConflict",
    "CommandExecutor",
    "Domain",
    "DomainError",
    "EntityNotFound",
    "EventDecodeError",
    "EventEncodeError",
    "EventEnvelope",
    "EventSourcingError",
    "EventStore",
    "EventStoreError",
    "Executed",
    "InvalidHandlerResult",
    "JsonCodec",
    "JsonStyle",
    "Loaded",
    "MemoryStore",
    "MemoryStoreEventEnvelop",
    "Metadata",
    "NonPositiveArgument",
    "OutboxEntry",
    "OutboxMessage",
    "ParkedEvent",
    "ProcessEvents",
    "RecordedEvent",
    "RecorderStore",
    "RowCodec",
    "SerializedEventEnvelop",
    "Snapshot",
    "SnapshotConfig",
    "StoreUnavailable",
    "SystemStats",
    "Transaction",
    "TransactionFailed",
    "TransactionRolledBack",
    "VersionConflict",
    "camel_case",
    "kebab_case",
    "open_store",
    "pascal_case",
    "snake_case",
]

"""Event sourcing compatible with Gleam's ``eventsourcing``: domain core, stores, readers.

::

    from pyglyn import eventsourcing as es

    store = es.open_store("sqlite:bank.db", events=BankAccountEvent, state=BankAccount,
                          aggregate_type="BankAccount")
    domain = es.Domain(handle, apply, BankAccount())
    accounts = es.CommandExecutor(store, domain, snapshot_config=es.SnapshotConfig(frequency=100))
    executed = await accounts.execute("account-1", OpenAccount("account-1"))

None of that needs a node. On one, aggregates are a service that every node of the cluster can use::

    child = es.supervised("bank", store, handle=handle, apply=apply, empty_state=BankAccount())
    bank = es.Service(node, "bank", events=BankAccountEvent, state=BankAccount)
    envelopes = await bank.execute("account-1", OpenAccount("account-1"))
"""

from __future__ import annotations

from pyglyn.errors import (
    ActorTimeout,
    AppendConditionFailed,
    CheckpointConflict,
    CommandRepeated,
    DomainError,
    EntityNotFound,
    EventDecodeError,
    EventEncodeError,
    EventSourcingError,
    EventStoreError,
    Forgotten,
    InvalidHandlerResult,
    NonPositiveArgument,
    NoOwner,
    StoreUnavailable,
    TransactionFailed,
    TransactionRolledBack,
    VersionConflict,
)
from pyglyn.eventsourcing.cluster.client import Committed, Service
from pyglyn.eventsourcing.cluster.reachable import must_be_reachable
from pyglyn.eventsourcing.commands import CommandExecutor, Executed
from pyglyn.eventsourcing.domain.aggregate import Aggregate, AggregateStats, Domain, SystemStats
from pyglyn.eventsourcing.domain.causation import caused_by, event_id
from pyglyn.eventsourcing.domain.envelope import (
    EventEnvelope,
    MemoryStoreEventEnvelop,
    Metadata,
    ProcessEvents,
    SerializedEventEnvelop,
)
from pyglyn.eventsourcing.domain.evolution import Several, Upcaster, event, state
from pyglyn.eventsourcing.domain.snapshot import Snapshot, SnapshotConfig
from pyglyn.eventsourcing.managers.manager import Manager, manager
from pyglyn.eventsourcing.managers.rules import (
    Action,
    Cancel,
    Deadline,
    Dispatch,
    End,
    Expired,
    Refused,
    Schedule,
)
from pyglyn.eventsourcing.managers.spec import Destination
from pyglyn.eventsourcing.queries.asking import select
from pyglyn.eventsourcing.queries.durable import DurableQuery, durable_query
from pyglyn.eventsourcing.queries.durable_state import BatchLimits
from pyglyn.eventsourcing.queries.failure import FailurePolicy
from pyglyn.eventsourcing.queries.live import QuerySpec
from pyglyn.eventsourcing.queries.query_process import QueryStatus
from pyglyn.eventsourcing.queries.reading import subscribe, wait_for
from pyglyn.eventsourcing.service.server import ServiceSpec, service, start, supervised
from pyglyn.eventsourcing.stores.encrypted import EncryptedStore
from pyglyn.eventsourcing.stores.facts.log import Criterion, FactLog, NewFact, Query, RawFact
from pyglyn.eventsourcing.stores.facts.opening import open_facts, open_log
from pyglyn.eventsourcing.stores.facts.store import Decided, Fact, FactStore
from pyglyn.eventsourcing.stores.json.codec import (
    JsonCodec,
    JsonStyle,
    camel_case,
    kebab_case,
    pascal_case,
    snake_case,
)
from pyglyn.eventsourcing.stores.keys import Keys, open_keys
from pyglyn.eventsourcing.stores.memory import MemoryStore
from pyglyn.eventsourcing.stores.opening import open_store
from pyglyn.eventsourcing.stores.read_only_sql import ReadOnlySql, Selected
from pyglyn.eventsourcing.stores.recorder import RecorderStore
from pyglyn.eventsourcing.stores.rows import RowCodec
from pyglyn.eventsourcing.stores.store import (
    Checkpoint,
    CommandRecord,
    Cursor,
    EventStore,
    Loaded,
    OutboxEntry,
    OutboxMessage,
    ParkedEvent,
    RecordedEvent,
    Replay,
    Transaction,
)

__all__ = [
    "Action",
    "ActorTimeout",
    "Aggregate",
    "AggregateStats",
    "AppendConditionFailed",
    "BatchLimits",
    "Cancel",
    "Checkpoint",
    "CheckpointConflict",
    "CommandExecutor",
    "CommandRecord",
    "CommandRepeated",
    "Committed",
    "Criterion",
    "Cursor",
    "Deadline",
    "Decided",
    "Destination",
    "Dispatch",
    "Domain",
    "DomainError",
    "DurableQuery",
    "EncryptedStore",
    "End",
    "EntityNotFound",
    "EventDecodeError",
    "EventEncodeError",
    "EventEnvelope",
    "EventSourcingError",
    "EventStore",
    "EventStoreError",
    "Executed",
    "Expired",
    "Fact",
    "FactLog",
    "FactStore",
    "FailurePolicy",
    "Forgotten",
    "InvalidHandlerResult",
    "JsonCodec",
    "JsonStyle",
    "Keys",
    "Loaded",
    "Manager",
    "MemoryStore",
    "MemoryStoreEventEnvelop",
    "Metadata",
    "NewFact",
    "NoOwner",
    "NonPositiveArgument",
    "OutboxEntry",
    "OutboxMessage",
    "ParkedEvent",
    "ProcessEvents",
    "Query",
    "QuerySpec",
    "QueryStatus",
    "RawFact",
    "ReadOnlySql",
    "RecordedEvent",
    "RecorderStore",
    "Refused",
    "Replay",
    "RowCodec",
    "Schedule",
    "Selected",
    "SerializedEventEnvelop",
    "Service",
    "ServiceSpec",
    "Several",
    "Snapshot",
    "SnapshotConfig",
    "StoreUnavailable",
    "SystemStats",
    "Transaction",
    "TransactionFailed",
    "TransactionRolledBack",
    "Upcaster",
    "VersionConflict",
    "camel_case",
    "caused_by",
    "durable_query",
    "event",
    "event_id",
    "kebab_case",
    "manager",
    "must_be_reachable",
    "open_facts",
    "open_keys",
    "open_log",
    "open_store",
    "pascal_case",
    "select",
    "service",
    "snake_case",
    "start",
    "state",
    "subscribe",
    "supervised",
    "wait_for",
]

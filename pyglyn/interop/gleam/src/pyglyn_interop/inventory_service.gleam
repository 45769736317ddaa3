//// The inventory service: an event store broadcast over Glyn, and one query subscribed to group `inventory`.

import eventsourcing.{
  type AggregateMessage, type EventEnvelop, type EventSourcingError,
}
import eventsourcing/memory_store
import eventsourcing_glyn
import gleam/erlang/process.{type Name}
import gleam/option.{None}
import gleam/otp/static_supervisor as supervisor
import pyglyn_interop/inventory.{type Command, type Event, type State}
import pyglyn_interop/lasting
import pyglyn_interop/recorder.{type Recorder}

pub type Service {
  Service(
    name: Name(AggregateMessage(State, Command, Event, String)),
    seen: Recorder(#(String, List(EventEnvelop(Event)))),
  )
}

pub fn start(scope: String) -> Service {
  use <- lasting.start
  let seen = recorder.start()
  let name = process.new_name("inventory_service")
  let #(memory, memory_child) =
    memory_store.supervised(
      process.new_name("inventory_events"),
      process.new_name("inventory_snapshots"),
      supervisor.OneForOne,
    )
  let coordination = fn(aggregate_id, events) {
    recorder.record(seen, #(aggregate_id, events))
  }
  let assert Ok(#(store, queries_child)) =
    eventsourcing_glyn.supervised(
      eventsourcing_glyn.GlynConfig(
        pubsub_scope: scope,
        pubsub_group: "inventory",
      ),
      memory,
      [#(process.new_name("order_coordination"), coordination)],
      inventory.decoder(),
    )
  let assert Ok(service_child) =
    eventsourcing.supervised(
      name:,
      eventstore: store,
      handle: inventory.handle,
      apply: inventory.apply,
      empty_state: inventory.Closed,
      queries: [],
      snapshot_config: None,
    )
  let assert Ok(_) =
    supervisor.new(supervisor.OneForOne)
    |> supervisor.add(memory_child)
    |> supervisor.add(queries_child)
    |> supervisor.add(service_child)
    |> supervisor.start
  Service(name:, seen:)
}

/// Execute a command and wait for its outcome.
pub fn execute(
  service: Service,
  aggregate_id: String,
  command: Command,
  metadata: List(#(String, String)),
) -> Result(Nil, EventSourcingError(String)) {
  process.named_subject(service.name)
  |> eventsourcing.execute_with_response(aggregate_id, command, metadata)
  |> process.receive_forever
}

/// What the query has been given so far: aggregate id and envelopes, oldest first.
pub fn seen(service: Service) -> List(#(String, List(EventEnvelop(Event)))) {
  recorder.values(service.seen)
}

pub fn load(
  service: Service,
  aggregate_id: String,
) -> Result(
  eventsourcing.Aggregate(State, Command, Event, String),
  EventSourcingError(String),
) {
  process.named_subject(service.name)
  |> eventsourcing.load_aggregate(aggregate_id)
  |> process.receive_forever
}

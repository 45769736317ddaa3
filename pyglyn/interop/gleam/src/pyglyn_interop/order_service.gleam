//// The order service: its own event store, and a query that hands new orders to group `inventory` of other nodes.

import eventsourcing.{
  type AggregateMessage, type EventEnvelop, type EventSourcingError,
  ProcessEvents,
}
import eventsourcing/memory_store
import eventsourcing_glyn
import gleam/erlang/process.{type Name}
import gleam/int
import gleam/list
import gleam/option.{None}
import gleam/otp/static_supervisor as supervisor
import pyglyn_interop/lasting
import pyglyn_interop/orders.{
  type Item, type OrderEvent, OrderCancelled, OrderConfirmed, OrderCreated,
}
import pyglyn_interop/recorder.{type Recorder}

pub type Command {
  CreateOrder(id: String, items: List(Item))
  ConfirmOrder(id: String)
  CancelOrder(id: String, reason: String)
}

pub type State {
  NotFound
  Pending
  Confirmed
  Cancelled
}

pub type Service {
  Service(
    name: Name(AggregateMessage(State, Command, OrderEvent, String)),
    reached: Recorder(Result(Int, EventSourcingError(String))),
  )
}

fn handle(state: State, command: Command) -> Result(List(OrderEvent), String) {
  case state, command {
    NotFound, CreateOrder(id:, items:) -> {
      let total =
        list.map(items, fn(item) { item.product.price * item.quantity })
        |> int.sum
      Ok([OrderCreated(id:, items:, total:)])
    }
    Pending, ConfirmOrder(id:) -> Ok([OrderConfirmed(id:)])
    Pending, CancelOrder(id:, reason:) -> Ok([OrderCancelled(id:, reason:)])
    _, _ -> Error("not now")
  }
}

fn apply(state: State, event: OrderEvent) -> State {
  case event {
    OrderCreated(..) -> Pending
    OrderConfirmed(..) -> Confirmed
    OrderCancelled(..) -> Cancelled
    orders.Undecodable -> state
  }
}

/// Start the service; its own events go to group `registry`, as nobody's query listens there.
pub fn start(scope: String) -> Service {
  use <- lasting.start
  let reached = recorder.start()
  let name = process.new_name("order_service")
  let #(memory, memory_child) =
    memory_store.supervised(
      process.new_name("order_events"),
      process.new_name("order_snapshots"),
      supervisor.OneForOne,
    )
  let assert Ok(#(store, glyn_child)) =
    eventsourcing_glyn.supervised(
      eventsourcing_glyn.GlynConfig(
        pubsub_scope: scope,
        pubsub_group: "registry",
      ),
      memory,
      [],
      orders.decoder(),
    )
  let hand_over = fn(aggregate_id, envelopes: List(EventEnvelop(OrderEvent))) {
    use envelope <- list.each(envelopes)
    case envelope.payload {
      OrderCreated(..) ->
        store.eventstore
        |> eventsourcing_glyn.publish(
          "inventory",
          ProcessEvents(aggregate_id, [envelope]),
        )
        |> recorder.record(reached, _)
      _ -> Nil
    }
  }
  let assert Ok(service_child) =
    eventsourcing.supervised(
      name:,
      eventstore: store,
      handle:,
      apply:,
      empty_state: NotFound,
      queries: [#(process.new_name("inventory_coordination"), hand_over)],
      snapshot_config: None,
    )
  let assert Ok(_) =
    supervisor.new(supervisor.OneForOne)
    |> supervisor.add(memory_child)
    |> supervisor.add(glyn_child)
    |> supervisor.add(service_child)
    |> supervisor.start
  Service(name:, reached:)
}

/// Execute a command and wait for its outcome.
pub fn execute(
  service: Service,
  aggregate_id: String,
  command: Command,
) -> Result(Nil, EventSourcingError(String)) {
  process.named_subject(service.name)
  |> eventsourcing.execute_with_response(aggregate_id, command, [])
  |> process.receive_forever
}

/// How many subscribers each order was handed to, oldest first.
pub fn reached(
  service: Service,
) -> List(Result(Int, EventSourcingError(String))) {
  recorder.values(service.reached)
}

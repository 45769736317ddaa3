//// Bank accounts that other nodes reach by a name in a Glyn Registry.

import eventsourcing
import eventsourcing/memory_store
import gleam/erlang/process.{type Pid, type Subject}
import gleam/option.{None}
import gleam/otp/actor
import gleam/otp/static_supervisor as supervisor
import gleam/otp/supervision
import glyn/registry
import pyglyn_interop/bank.{type Message}
import pyglyn_interop/lasting

/// Start the accounts, with a process that has the name and passes on what comes to it.
pub fn start(scope: String, name: String) -> Pid {
  use <- lasting.start
  let accounts = process.new_name("accounts")
  let #(store, store_child) =
    memory_store.supervised(
      process.new_name("account_events"),
      process.new_name("account_snapshots"),
      supervisor.OneForOne,
    )
  let assert Ok(accounts_child) =
    eventsourcing.supervised(
      name: accounts,
      eventstore: store,
      handle: bank.handle,
      apply: bank.apply,
      empty_state: bank.unopened,
      queries: [],
      snapshot_config: None,
    )
  let assert Ok(started) =
    supervisor.new(supervisor.OneForOne)
    |> supervisor.add(store_child)
    |> supervisor.add(accounts_child)
    |> supervisor.add(
      supervision.worker(fn() {
        start_door(scope, name, process.named_subject(accounts))
      }),
    )
    |> supervisor.start
  started.pid
}

fn start_door(
  scope: String,
  name: String,
  accounts: Subject(Message),
) -> Result(actor.Started(Nil), actor.StartError) {
  actor.new_with_initialiser(5000, fn(_subject: Subject(Message)) {
    let registry =
      registry.new(
        scope:,
        decoder: bank.message_decoder(),
        error_default: bank.nothing(),
      )
    case registry.register(registry, name, Nil) {
      Ok(selector) ->
        actor.initialised(accounts) |> actor.selecting(selector) |> Ok
      Error(_) -> Error("the name is taken")
    }
  })
  |> actor.on_message(fn(accounts, message) {
    process.send(accounts, message)
    actor.continue(accounts)
  })
  |> actor.start
}

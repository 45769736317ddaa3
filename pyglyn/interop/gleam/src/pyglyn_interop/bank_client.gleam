//// A client of bank accounts: it knows the scope and a name in its Glyn Registry, not who has that name where.

import eventsourcing.{
  type Aggregate, type EventSourcingError, ExecuteCommandWithResponse,
  LoadAggregate,
}
import gleam/erlang/process.{type Pid}
import gleam/string
import glyn/registry.{type Registry, type RegistryError}
import pyglyn_interop/bank.{
  type BankAccount, type Command, type Event, type Message, BankAccount,
}

pub type Answer(value) =
  Result(Result(value, EventSourcingError(String)), RegistryError)

fn open(scope: String) -> Registry(Message, Nil) {
  registry.new(
    scope:,
    decoder: bank.message_decoder(),
    error_default: bank.nothing(),
  )
}

/// Execute a command and wait for its outcome.
pub fn execute(
  scope: String,
  name: String,
  account_id: String,
  command: Command,
  metadata: List(#(String, String)),
  timeout_ms: Int,
) -> Answer(Nil) {
  registry.call(
    open(scope),
    name,
    waiting: timeout_ms,
    sending: ExecuteCommandWithResponse(account_id, command, metadata, _),
  )
}

pub fn load(
  scope: String,
  name: String,
  account_id: String,
  timeout_ms: Int,
) -> Answer(Aggregate(BankAccount, Command, Event, String)) {
  registry.call(open(scope), name, waiting: timeout_ms, sending: LoadAggregate(
    account_id,
    _,
  ))
}

/// Deposit half of what is there; the result is the new balance, or why there is none.
pub fn add_half(
  scope: String,
  name: String,
  account_id: String,
  timeout_ms: Int,
) -> Result(Float, String) {
  case load(scope, name, account_id, timeout_ms) {
    Ok(Ok(eventsourcing.Aggregate(entity: BankAccount(balance:, ..), ..))) -> {
      let amount = balance /. 2.0
      let command = bank.DepositMoney(amount:)
      case execute(scope, name, account_id, command, [], timeout_ms) {
        Ok(Ok(Nil)) -> Ok(balance +. amount)
        Ok(Error(eventsourcing.DomainError(reason))) -> Error(reason)
        other -> Error(string.inspect(other))
      }
    }
    Ok(Error(eventsourcing.EntityNotFound)) -> Error("no such account")
    other -> Error(string.inspect(other))
  }
}

pub fn whereis(scope: String, name: String) -> Result(Pid, RegistryError) {
  case registry.whereis(open(scope), name) {
    Ok(#(pid, Nil)) -> Ok(pid)
    Error(error) -> Error(error)
  }
}

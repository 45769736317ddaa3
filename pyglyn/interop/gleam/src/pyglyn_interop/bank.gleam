//// A bank account as an aggregate: the types, the rules, and the decoders of what comes from other nodes.

import eventsourcing.{type AggregateMessage}
import gleam/dynamic/decode.{type Decoder}
import pyglyn_interop/orders

pub type Command {
  OpenAccount(account_id: String)
  DepositMoney(amount: Float)
  WithDrawMoney(amount: Float)
}

pub type Event {
  AccountOpened(account_id: String)
  CustomerDepositedCash(amount: Float, balance: Float)
  CustomerWithdrewCash(amount: Float, balance: Float)
}

pub type BankAccount {
  BankAccount(opened: Bool, balance: Float)
}

pub type Message =
  AggregateMessage(BankAccount, Command, Event, String)

pub const unopened = BankAccount(opened: False, balance: 0.0)

pub fn handle(
  account: BankAccount,
  command: Command,
) -> Result(List(Event), String) {
  let BankAccount(opened:, balance:) = account
  case command {
    OpenAccount(account_id:) if !opened -> Ok([AccountOpened(account_id:)])
    DepositMoney(amount:) if opened && amount >. 0.0 ->
      Ok([CustomerDepositedCash(amount:, balance: balance +. amount)])
    WithDrawMoney(amount:) if opened && amount >. 0.0 && amount <=. balance ->
      Ok([CustomerWithdrewCash(amount:, balance: balance -. amount)])
    OpenAccount(..) -> Error("the account is open already")
    DepositMoney(..) -> Error("the deposit is refused")
    WithDrawMoney(..) -> Error("the withdrawal is refused")
  }
}

pub fn apply(account: BankAccount, event: Event) -> BankAccount {
  case event {
    AccountOpened(..) -> BankAccount(..account, opened: True)
    CustomerDepositedCash(balance:, ..) | CustomerWithdrewCash(balance:, ..) ->
      BankAccount(..account, balance:)
  }
}

/// A decoder of commands to accounts and of questions about them.
pub fn message_decoder() -> Decoder(Message) {
  use tag <- decode.then(orders.constructor())
  use aggregate_id <- decode.field(1, decode.string)
  case tag {
    "execute_command_with_response" -> {
      use command <- decode.field(2, command_decoder())
      use metadata <- decode.field(3, decode.list(pair_decoder()))
      use reply_to <- decode.field(4, orders.trusted_subject())
      decode.success(eventsourcing.ExecuteCommandWithResponse(
        aggregate_id:,
        command:,
        metadata:,
        reply_to:,
      ))
    }
    "load_aggregate" -> {
      use reply_to <- decode.field(2, orders.trusted_subject())
      decode.success(eventsourcing.LoadAggregate(aggregate_id:, reply_to:))
    }
    _ -> decode.failure(nothing(), "a message to an account")
  }
}

/// What stands for a message that does not decode: a command that is refused.
pub fn nothing() -> Message {
  eventsourcing.ExecuteCommand("", DepositMoney(0.0), [])
}

fn command_decoder() -> Decoder(Command) {
  use tag <- decode.then(orders.constructor())
  case tag {
    "open_account" -> {
      use account_id <- decode.field(1, decode.string)
      decode.success(OpenAccount(account_id:))
    }
    "deposit_money" -> {
      use amount <- decode.field(1, decode.float)
      decode.success(DepositMoney(amount:))
    }
    "with_draw_money" -> {
      use amount <- decode.field(1, decode.float)
      decode.success(WithDrawMoney(amount:))
    }
    _ -> decode.failure(DepositMoney(0.0), "a command to an account")
  }
}

fn pair_decoder() -> Decoder(#(String, String)) {
  use key <- decode.field(0, decode.string)
  use value <- decode.field(1, decode.string)
  decode.success(#(key, value))
}

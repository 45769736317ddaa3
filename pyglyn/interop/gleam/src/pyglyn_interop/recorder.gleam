//// A process that remembers values for a test to look at.

import gleam/erlang/process.{type Subject}
import gleam/list
import gleam/otp/actor

pub type Message(value) {
  Record(value)
  Report(reply_to: Subject(List(value)))
}

pub type Recorder(value) =
  Subject(Message(value))

pub fn start() -> Recorder(value) {
  let assert Ok(started) =
    actor.new([])
    |> actor.on_message(fn(values, message) {
      case message {
        Record(value) -> actor.continue([value, ..values])
        Report(reply_to) -> {
          process.send(reply_to, list.reverse(values))
          actor.continue(values)
        }
      }
    })
    |> actor.start
  started.data
}

pub fn record(recorder: Recorder(value), value: value) -> Nil {
  process.send(recorder, Record(value))
}

/// Everything recorded so far, oldest first.
pub fn values(recorder: Recorder(value)) -> List(value) {
  process.call(recorder, 5000, Report)
}

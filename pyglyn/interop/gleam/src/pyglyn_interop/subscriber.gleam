//// An actor that is subscribed to a PubSub group and remembers what it got.

import gleam/erlang/process.{type Pid, type Subject}
import gleam/list
import gleam/otp/actor
import glyn/pubsub.{type PubSub}
import pyglyn_interop/lasting
import pyglyn_interop/orders.{type OrderEvent}

pub type Message {
  Got(OrderEvent)
  Report(reply_to: Subject(List(OrderEvent)))
  Unsubscribe(reply_to: Subject(Nil))
  Stop
}

pub type Subscriber {
  Subscriber(pid: Pid, subject: Subject(Message))
}

pub fn start(scope: String, group: String) -> Subscriber {
  use <- lasting.start
  let assert Ok(started) =
    actor.new_with_initialiser(5000, fn(subject) {
      let pubsub = open(scope)
      let selector =
        process.new_selector()
        |> process.select(subject)
        |> process.merge_selector(
          pubsub.subscribe(pubsub, group) |> process.map_selector(Got),
        )
      actor.initialised([])
      |> actor.selecting(selector)
      |> actor.returning(subject)
      |> Ok
    })
    |> actor.on_message(fn(events, message) {
      case message {
        Got(event) -> actor.continue([event, ..events])
        Report(reply_to) -> {
          process.send(reply_to, list.reverse(events))
          actor.continue(events)
        }
        Unsubscribe(reply_to) -> {
          pubsub.unsubscribe(open(scope), group)
          process.send(reply_to, Nil)
          actor.continue(events)
        }
        Stop -> actor.stop()
      }
    })
    |> actor.start
  Subscriber(pid: started.pid, subject: started.data)
}

pub fn open(scope: String) -> PubSub(OrderEvent) {
  pubsub.new(scope, orders.decoder(), orders.Undecodable)
}

/// All events received so far, oldest first.
pub fn events(subscriber: Subscriber) -> List(OrderEvent) {
  process.call(subscriber.subject, 5000, Report)
}

pub fn unsubscribe(subscriber: Subscriber) -> Nil {
  process.call(subscriber.subject, 5000, Unsubscribe)
}

pub fn stop(subscriber: Subscriber) -> Nil {
  process.send(subscriber.subject, Stop)
}

//// Publishing to a PubSub group, and counting whom it reaches.

import gleam/erlang/process.{type Pid}
import glyn/pubsub.{type PubSubError}
import pyglyn_interop/orders.{type OrderEvent}
import pyglyn_interop/subscriber

/// Publish an event; the result is the number of subscribers.
pub fn publish(
  scope: String,
  group: String,
  event: OrderEvent,
) -> Result(Int, PubSubError) {
  pubsub.publish(subscriber.open(scope), group, event)
}

pub fn subscribers(scope: String, group: String) -> List(Pid) {
  pubsub.subscribers(subscriber.open(scope), group)
}

pub fn count(scope: String, group: String) -> Int {
  pubsub.subscriber_count(subscriber.open(scope), group)
}

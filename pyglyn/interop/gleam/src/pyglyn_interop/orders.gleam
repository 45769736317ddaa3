//// The order events that all programs here exchange, and their decoder.

import gleam/dynamic/decode.{type Decoder}
import gleam/erlang/atom
import gleam/erlang/process.{type Subject}

pub type Product {
  Product(id: String, name: String, price: Int)
}

pub type Item {
  Item(product: Product, quantity: Int)
}

pub type OrderEvent {
  OrderCreated(id: String, items: List(Item), total: Int)
  OrderConfirmed(id: String)
  OrderCancelled(id: String, reason: String)
  /// What a subscriber gets for a message that is none of the above.
  Undecodable
}

pub fn decoder() -> Decoder(OrderEvent) {
  use tag <- decode.then(constructor())
  case tag {
    "order_created" -> {
      use id <- decode.field(1, decode.string)
      use items <- decode.field(2, decode.list(item_decoder()))
      use total <- decode.field(3, decode.int)
      decode.success(OrderCreated(id:, items:, total:))
    }
    "order_confirmed" -> {
      use id <- decode.field(1, decode.string)
      decode.success(OrderConfirmed(id:))
    }
    "order_cancelled" -> {
      use id <- decode.field(1, decode.string)
      use reason <- decode.field(2, decode.string)
      decode.success(OrderCancelled(id:, reason:))
    }
    _ -> decode.failure(Undecodable, "an order event")
  }
}

/// The name of a value's constructor: its first field, or the value itself where it has no fields.
pub fn constructor() -> Decoder(String) {
  decode.one_of(decode.at([0], atom.decoder()), or: [atom.decoder()])
  |> decode.map(atom.to_string)
}

/// A subject cannot be checked, only believed.
pub fn trusted_subject() -> Decoder(Subject(message)) {
  decode.map(decode.dynamic, as_subject)
}

@external(erlang, "gleam_stdlib", "identity")
fn as_subject(value: decode.Dynamic) -> Subject(message)

pub fn item_decoder() -> Decoder(Item) {
  use product <- decode.field(1, product_decoder())
  use quantity <- decode.field(2, decode.int)
  decode.success(Item(product:, quantity:))
}

pub fn product_decoder() -> Decoder(Product) {
  use id <- decode.field(1, decode.string)
  use name <- decode.field(2, decode.string)
  use price <- decode.field(3, decode.int)
  decode.success(Product(id:, name:, price:))
}

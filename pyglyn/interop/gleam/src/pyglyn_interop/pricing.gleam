//// A server found by its name in a Glyn Registry, and its client.

import gleam/dict.{type Dict}
import gleam/dynamic/decode.{type Decoder}
import gleam/erlang/process.{type Pid, type Subject}
import gleam/int
import gleam/option.{type Option}
import gleam/otp/actor
import glyn/registry.{type Registry, type RegistryError}
import pyglyn_interop/lasting
import pyglyn_interop/orders

pub type Request {
  GetPrice(product: String, reply_to: Subject(Option(Int)))
  SetPrice(product: String, price: Int)
  Undecodable
  Stop
}

pub type Server {
  Server(pid: Pid)
}

fn decoder() -> Decoder(Request) {
  use tag <- decode.then(orders.constructor())
  case tag {
    "get_price" -> {
      use product <- decode.field(1, decode.string)
      use reply_to <- decode.field(2, orders.trusted_subject())
      decode.success(GetPrice(product:, reply_to:))
    }
    "set_price" -> {
      use product <- decode.field(1, decode.string)
      use price <- decode.field(2, decode.int)
      decode.success(SetPrice(product:, price:))
    }
    "stop" -> decode.success(Stop)
    _ -> decode.failure(Undecodable, "a pricing request")
  }
}

fn open(scope: String) -> Registry(Request, String) {
  registry.new(scope:, decoder: decoder(), error_default: Undecodable)
}

/// Start a server registered under a name, with metadata; the error is the registry's.
pub fn start(
  scope: String,
  name: String,
  metadata: String,
) -> Result(Server, actor.StartError) {
  use <- lasting.start
  let built =
    actor.new_with_initialiser(5000, fn(_subject: Subject(Request)) {
      case registry.register(open(scope), name, metadata) {
        Ok(selector) ->
          actor.initialised(dict.from_list([#("laptop", 20), #("mouse", 10)]))
          |> actor.selecting(selector)
          |> Ok
        Error(_) -> Error("the name is taken")
      }
    })
    |> actor.on_message(handle)
  case actor.start(built) {
    Ok(started) -> Ok(Server(pid: started.pid))
    Error(error) -> Error(error)
  }
}

fn handle(
  prices: Dict(String, Int),
  request: Request,
) -> actor.Next(Dict(String, Int), Request) {
  case request {
    GetPrice(product:, reply_to:) -> {
      process.send(reply_to, dict.get(prices, product) |> option.from_result)
      actor.continue(prices)
    }
    SetPrice(product:, price:) ->
      actor.continue(dict.insert(prices, product, price))
    Undecodable ->
      actor.continue(
        dict.upsert(prices, "undecodable", fn(seen) {
          option.unwrap(seen, 0) |> int.add(1)
        }),
      )
    Stop -> actor.stop()
  }
}

/// Ask a server anywhere in the cluster for a price.
pub fn ask(
  scope: String,
  name: String,
  product: String,
  timeout_ms: Int,
) -> Result(Option(Int), RegistryError) {
  registry.call(open(scope), name, waiting: timeout_ms, sending: GetPrice(
    product,
    _,
  ))
}

/// Tell a server anywhere in the cluster a price.
pub fn tell(
  scope: String,
  name: String,
  product: String,
  price: Int,
) -> Result(Nil, RegistryError) {
  registry.send(open(scope), name, SetPrice(product:, price:))
}

pub fn whereis(
  scope: String,
  name: String,
) -> Result(#(Pid, String), RegistryError) {
  registry.whereis(open(scope), name)
}

pub fn stop(scope: String, name: String) -> Result(Nil, RegistryError) {
  registry.send(open(scope), name, Stop)
}

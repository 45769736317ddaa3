//// The stock of a warehouse as an aggregate. It also knows the orders that another service tells it of.

import gleam/dict.{type Dict}
import gleam/dynamic/decode.{type Decoder}
import gleam/list
import pyglyn_interop/orders

pub type Item {
  Item(id: String, name: String, stock_level: Int, reserved: Int)
}

pub type OrderItem {
  OrderItem(product: orders.Product, quantity: Int)
}

pub type Command {
  InitializeInventory(items: List(Item))
  ReserveStock(product_id: String, quantity: Int, order_id: String)
  RestockItem(product_id: String, quantity: Int)
}

pub type Event {
  InventoryInitialized(items: List(Item))
  StockReserved(
    product_id: String,
    quantity: Int,
    order_id: String,
    remaining_stock: Int,
  )
  StockReservationFailed(
    product_id: String,
    quantity: Int,
    order_id: String,
    reason: String,
  )
  ItemRestocked(product_id: String, quantity: Int, new_stock: Int)
  OrderCreated(id: String, items: List(OrderItem), total: Int)
}

pub type State {
  Closed
  Open(items: Dict(String, Item))
}

pub fn handle(state: State, command: Command) -> Result(List(Event), String) {
  case state, command {
    Closed, InitializeInventory(items:) -> Ok([InventoryInitialized(items:)])
    Closed, _ -> Error("the inventory is closed")
    Open(_), InitializeInventory(_) -> Error("the inventory is open already")
    Open(items:), ReserveStock(product_id:, quantity:, order_id:) ->
      Ok([reserve(items, product_id, quantity, order_id)])
    Open(items:), RestockItem(product_id:, quantity:) ->
      case dict.get(items, product_id) {
        Ok(item) -> {
          let new_stock = item.stock_level + quantity
          Ok([ItemRestocked(product_id:, quantity:, new_stock:)])
        }
        Error(Nil) -> Error("no such product")
      }
  }
}

fn reserve(
  items: Dict(String, Item),
  product_id: String,
  quantity: Int,
  order_id: String,
) -> Event {
  case dict.get(items, product_id) {
    Error(Nil) ->
      StockReservationFailed(product_id, quantity, order_id, "no such product")
    Ok(item) -> {
      let remaining_stock = item.stock_level - item.reserved - quantity
      case remaining_stock >= 0 {
        True -> StockReserved(product_id, quantity, order_id, remaining_stock)
        False ->
          StockReservationFailed(product_id, quantity, order_id, "out of stock")
      }
    }
  }
}

pub fn apply(state: State, event: Event) -> State {
  case state, event {
    _, InventoryInitialized(items:) ->
      Open(list.map(items, fn(item) { #(item.id, item) }) |> dict.from_list)
    Open(items:), StockReserved(product_id:, quantity:, ..) -> {
      use item <- change(items, product_id)
      Item(..item, reserved: item.reserved + quantity)
    }
    Open(items:), ItemRestocked(product_id:, new_stock:, ..) -> {
      use item <- change(items, product_id)
      Item(..item, stock_level: new_stock)
    }
    _, _ -> state
  }
}

fn change(
  items: Dict(String, Item),
  id: String,
  update: fn(Item) -> Item,
) -> State {
  case dict.get(items, id) {
    Ok(item) -> Open(dict.insert(items, id, update(item)))
    Error(Nil) -> Open(items)
  }
}

pub fn decoder() -> Decoder(Event) {
  use tag <- decode.then(orders.constructor())
  case tag {
    "inventory_initialized" -> {
      use items <- decode.field(1, decode.list(item_decoder()))
      decode.success(InventoryInitialized(items:))
    }
    "stock_reserved" -> {
      use product_id <- decode.field(1, decode.string)
      use quantity <- decode.field(2, decode.int)
      use order_id <- decode.field(3, decode.string)
      use remaining_stock <- decode.field(4, decode.int)
      decode.success(StockReserved(
        product_id:,
        quantity:,
        order_id:,
        remaining_stock:,
      ))
    }
    "stock_reservation_failed" -> {
      use product_id <- decode.field(1, decode.string)
      use quantity <- decode.field(2, decode.int)
      use order_id <- decode.field(3, decode.string)
      use reason <- decode.field(4, decode.string)
      decode.success(StockReservationFailed(
        product_id:,
        quantity:,
        order_id:,
        reason:,
      ))
    }
    "item_restocked" -> {
      use product_id <- decode.field(1, decode.string)
      use quantity <- decode.field(2, decode.int)
      use new_stock <- decode.field(3, decode.int)
      decode.success(ItemRestocked(product_id:, quantity:, new_stock:))
    }
    "order_created" -> {
      use id <- decode.field(1, decode.string)
      use items <- decode.field(2, decode.list(order_item_decoder()))
      use total <- decode.field(3, decode.int)
      decode.success(OrderCreated(id:, items:, total:))
    }
    _ -> decode.failure(InventoryInitialized([]), "an inventory event")
  }
}

fn item_decoder() -> Decoder(Item) {
  use id <- decode.field(1, decode.string)
  use name <- decode.field(2, decode.string)
  use stock_level <- decode.field(3, decode.int)
  use reserved <- decode.field(4, decode.int)
  decode.success(Item(id:, name:, stock_level:, reserved:))
}

fn order_item_decoder() -> Decoder(OrderItem) {
  use product <- decode.field(1, orders.product_decoder())
  use quantity <- decode.field(2, decode.int)
  decode.success(OrderItem(product:, quantity:))
}

//// Starting things from a caller that ends before they do.

import gleam/erlang/process

/// Run a function in a process that lives on, and give its result to the caller.
pub fn start(run: fn() -> result) -> result {
  let answer = process.new_subject()
  process.spawn_unlinked(fn() {
    process.send(answer, run())
    process.sleep_forever()
  })
  process.receive_forever(answer)
}

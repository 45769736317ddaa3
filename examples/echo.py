"""A node with one process that answers pings.

Run:          python examples/echo.py
Then, in erl: {echo, 'inventory@localhost'} ! {ping, self()}, receive Answer -> Answer after 5000 -> timeout end.
              (erl -sname order@localhost -setcookie eventsourcing)
"""

import asyncio

from pyglyn import Atom, Node, Process


async def echo(me: Process) -> None:
    while True:
        match await me.receive():
            case (Atom("ping"), caller):
                me.send(caller, (Atom("pong"), me.pid))
            case Atom("stop"):
                return  # exit reason: normal


async def main() -> None:
    async with Node("inventory@localhost", cookie="eventsourcing") as node:
        node.spawn(echo, name="echo")
        print(f"{node.name} is up")
        await node.run()  # until SIGINT or SIGTERM


if __name__ == "__main__":
    asyncio.run(main())

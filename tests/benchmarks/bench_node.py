"""How a Python node compares with a hidden BEAM node at the same work, against the same BEAM peer.

Run: ``python -m tests.benchmarks.bench_node`` (needs `erl` or the OTP 28 wheel). Each figure is measured for
both in the same run; the ratio is what counts, the absolute figures depend on the machine.
"""

from __future__ import annotations

import asyncio
import os
import time

from rich.console import Console
from rich.table import Table

from pyglyn.etf import Atom, Pid
from pyglyn.node import GenServer, Node, Process
from pyglyn.testing import Beams, PrivateEpmd, find_otps

CALLS = 5_000
MESSAGES = 50_000
EVENT = (
    '{<<"inventory">>, {process_events, <<"order_001">>, [{memory_store_event_envelop, <<"order_001">>, 1, '
    '{order_created, <<"order_001">>, [{item, {product, <<"laptop">>, <<"Gaming Laptop">>, 20}, 1}], 20}, []}]}}'
)
BEAM_SIDE = """
Count = fun Count(0, To) -> To ! done; Count(N, To) -> receive {_, _} -> Count(N - 1, To) end end,
Server = fun Server() -> receive
    {'$gen_call', From, Request} -> gen:reply(From, Request), Server();
    {count, N, To} -> Count(N, To), Server();
    {send, N, Message, To} -> [To ! Message || _ <- lists:seq(1, N)], Server()
end end,
register(bench, spawn(Server)), ok
"""


class Echo(GenServer):
    """Replies with the request."""

    async def handle_call(self, request, caller):
        return request


async def bench(me: Process) -> None:
    """The Python twin of ``BEAM_SIDE``."""
    while True:
        match await me.receive():
            case (Atom("count"), int() as count, to):
                for _ in range(count):
                    await me.receive()
                me.send(to, Atom("done"))
            case (Atom("send"), int() as count, message, Pid() as to):
                for _ in range(count):
                    me.send(to, message)
                    await me.drain()


CALL_RATE = """
T = erlang:monotonic_time(), [gen_server:call({Name, Node}, N) || N <- lists:seq(1, Count)],
erlang:convert_time_unit(erlang:monotonic_time() - T, native, microsecond)
"""
IN_RATE = f"""
Self = self(), Event = {EVENT}, T = erlang:monotonic_time(),
{{bench, Node}} ! {{count, Count, Self}}, [{{bench, Node}} ! Event || _ <- lists:seq(1, Count)],
receive done -> ok end,
erlang:convert_time_unit(erlang:monotonic_time() - T, native, microsecond)
"""
OUT_RATE = f"""
Event = {EVENT}, T = erlang:monotonic_time(), {{bench, Node}} ! {{send, Count, Event, self()}},
[receive {{_, _}} -> ok end || _ <- lists:seq(1, Count)],
erlang:convert_time_unit(erlang:monotonic_time() - T, native, microsecond)
"""


async def rate(beam, text: str, node: str, count: int, name: str = "bench") -> float:
    """Things per second."""
    microseconds = await beam.eval(text, Node=Atom(node), Count=count, Name=Atom(name), timeout=300)
    return count / (microseconds / 1e6)


async def main() -> None:
    """Measure and print."""
    console = Console()
    for otp in find_otps():
        with PrivateEpmd(otp) as epmd:
            os.environ["ERL_EPMD_PORT"] = str(epmd.port)
            beams = Beams(epmd, otp)
            try:
                await measure(beams, otp.release, console)
            finally:
                beams.close()


async def measure(beams, release: int, console: Console) -> None:
    """One table for one OTP release."""
    client, peer = await beams.start(), await beams.start(hidden=True)
    await peer.eval(BEAM_SIDE)
    table = Table(title=f"against OTP {release}, per second")
    for column in ("", "Python node", "hidden BEAM node", "ratio"):
        table.add_column(column, justify="right" if column else "left")
    async with Node("bench_python@localhost", cookie=client.cookie) as node:
        await node.start(Echo, name="echo")
        node.spawn(bench, name="bench")
        for what, text, count, name in (
            ("gen_server calls, one after the other", CALL_RATE, CALLS, "echo"),
            ("event messages in", IN_RATE, MESSAGES, "bench"),
            ("event messages out", OUT_RATE, MESSAGES, "bench"),
        ):
            python = await rate(client, text, node.name, count, name)
            erlang = await rate(client, text, peer.name, count, "bench")
            table.add_row(what, f"{python:,.0f}", f"{erlang:,.0f}", f"1 : {erlang / python:.1f}")
        started = time.perf_counter()
        async with node.process() as me:
            for n in range(CALLS):
                await me.call(("bench", peer.name), n)
        table.add_row(
            "calls by Python to a BEAM server", f"{CALLS / (time.perf_counter() - started):,.0f}", "", ""
        )
    console.print(table)


if __name__ == "__main__":
    asyncio.run(main())

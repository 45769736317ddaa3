"""The examples with groups and supervision."""

from __future__ import annotations

import os
import re
import secrets
import signal
from pathlib import Path

import psutil

from pyglyn.errors import NoProcess
from pyglyn.etf import Atom
from pyglyn.node import Node
from pyglyn.testing import eventually
from tests.cli.test_cli import pyglyn, run
from tests.examples.test_node_examples import load
from tests.node.conftest import unique_name

EXAMPLES = Path(__file__).parents[2] / "examples"


async def test_orders_reach_every_watcher_and_prices_are_found_by_name(epmd):
    name = unique_name("a"), unique_name("b")
    app = ["--cookie", "demo", "--app", str(EXAMPLES / "orders.py") + ":app"]
    async with (
        pyglyn("node", "--sname", name[0], *app) as a,
        pyglyn("node", "--sname", name[1], *app, "--connect", name[0]) as b,
    ):
        await b.says("is up")
        event = '{order_created, <<"o1">>, [{item, {product, <<"laptop">>, <<"Gaming Laptop">>, 20}, 1}], 20}'
        group = ["--cookie", "demo", "--scope", "example", "--group", "inventory"]

        async def sent_to_both() -> bool:
            return (await run("publish", name[0], *group, event)) == (0, "sent to 2\n")

        await eventually(sent_to_both, timeout=30)
        for program, its_name in ((a, name[0]), (b, name[1])):
            await program.says(re.escape(f"{its_name}: order o1 over 20"))
        async with Node(unique_name("c"), cookie="demo") as client:
            await client.connect(name[0])
            await client.connect(name[1])
            example = load("orders")

            async def price() -> float:
                try:
                    return await example.ask_price(client, "laptop")
                except NoProcess:
                    return 0.0

            assert await eventually(price) == 999.0


async def test_the_supervised_example_survives_a_kill(beam):
    name = f"supervised_{secrets.token_hex(4)}@localhost"
    app = str(EXAMPLES / "supervised.py") + ":app"
    async with pyglyn("node", "--sname", name, "--cookie", beam.cookie, "--app", app) as node:
        where = Atom(name)
        get = 'gen_server:call({stock, N}, {get, <<"laptop">>})'

        async def answers() -> bool:
            return await beam.eval(f"(catch {get}) =:= 10", N=where)

        await eventually(answers, timeout=30)
        before = await beam.eval("rpc:call(N, erlang, whereis, [stock])", N=where)
        status, tree = await run("tree", name, "--cookie", beam.cookie)
        assert status == 0, tree
        assert all(child in tree for child in ("stock", "audit", "report", "feed", "ingest"))
        line = next(line for line in tree.splitlines() if "stock" in line)
        children = {int(number) for number in re.findall(r"\b\d{3,}\b", line)}
        victim = next(pid for pid in children if psutil.pid_exists(pid))
        os.kill(victim, signal.SIGKILL)
        await eventually(answers, timeout=30)
        assert await beam.eval("rpc:call(N, erlang, whereis, [stock])", N=where) != before
        node.process.send_signal(signal.SIGTERM)
        assert await node.ends() == 0, node.output

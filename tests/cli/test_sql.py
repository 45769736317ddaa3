"""``pyglyn sql`` as a program."""

from __future__ import annotations

import json
from typing import Any

from pyglyn import Node
from pyglyn import eventsourcing as es
from tests.cli.test_cli import run
from tests.cli.test_eventsourcing_commands import COOKIE
from tests.node.conftest import unique_name


async def nothing(tx: Any, envelope: Any) -> None:
    pass


async def tables(tx: Any) -> None:
    await tx.execute("CREATE TABLE IF NOT EXISTS stock (product TEXT, level INT, mark BLOB)")


async def test_rows_are_printed_and_what_is_refused_is_a_line(epmd, tmp_path):
    store = es.open_store(f"sqlite:{tmp_path}/stock.db", aggregate_type="t")
    limits = es.ReadOnlySql(rows=2)
    async with Node(unique_name(), cookie="eventsourcing") as node:
        await es.DurableQuery("levels", nothing, store=store, into=store, prepare=tables, sql=limits).start(
            node
        )
        await es.DurableQuery("closed", nothing, store=store, into=store).start(node)
        async with store.transaction() as tx:
            await tables(tx)
            await tx.execute_many(
                "INSERT INTO stock VALUES (?, ?, ?)",
                [("a", 1, None), ("b 2", 2, b"\xff"), ("\x1b[31mc", 3, None)],
            )

        async def ask(*words: str, query: str = "levels") -> tuple[int, str]:
            status, output = await run("sql", node.name, query, *words, *COOKIE)
            return status, output

        assert await ask("SELECT product, level FROM stock WHERE level < ?", "3") == (
            0,
            "product  level\na        1\nb 2      2\n",
        )
        assert await ask("SELECT level FROM stock WHERE product = ?", '"b 2"') == (0, "level\n2\n")
        assert await ask("SELECT level FROM stock WHERE product = ?", "b 2") == (0, "level\n2\n")
        status, output = await ask("SELECT product FROM stock ORDER BY level DESC")
        assert (status, "\x1b" in output, "there is more than the query lets out" in output) == (
            0,
            False,
            True,
        )
        status, output = await ask(
            "SELECT mark, level FROM stock WHERE level = 2 OR ? IS NOT NULL", "null", "--json"
        )
        assert (status, json.loads(output)) == (
            0,
            {"columns": ["mark", "level"], "rows": [["\\xff", 2]], "complete": True},
        )
        for words, query, says in (
            (["DELETE FROM stock"], "levels", "begins with SELECT"),
            (["SELECT 1"], "closed", "does not say sql="),
            (["SELECT 1"], "none", f"`pyglyn queries {node.name}` lists them"),
        ):
            status, output = await ask(*words, query=query)
            assert (status, says in output, output.count("\n")) == (1, True, 1), output
    await store.close()

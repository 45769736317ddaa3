"""``pyglyn sql``: the tables of a durable query, read where it runs. Layer: cli."""

from __future__ import annotations

import json
from typing import Any

import rich_click as click

from pyglyn.cli import tables, values
from pyglyn.cli.options import client_node, client_options, in_utf8, json_option, run, set_up_logging
from pyglyn.errors import CallFailed, EventStoreError
from pyglyn.etf import Atom
from pyglyn.eventsourcing.queries.asking import select
from pyglyn.eventsourcing.queries.query_process import PREFIX
from pyglyn.eventsourcing.stores.read_only_sql import Selected
from pyglyn.node.reasons import NOPROC


def _parameter(text: str) -> Any:
    """Read a number, true, false, null or a quoted string as JSON has them, all else as it is."""
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return text if isinstance(value, dict | list) else value


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    return f"\\x{value.hex()}" if isinstance(value, bytes) else str(value)


def _json(value: Any) -> Any:
    return f"\\x{value.hex()}" if isinstance(value, bytes) else value


@click.command()
@click.argument("node", metavar="NODE")
@click.argument("query", metavar="QUERY", callback=in_utf8)
@click.argument("statement", metavar="STATEMENT", callback=in_utf8)
@click.argument("parameters", metavar="[PARAMETER]...", nargs=-1)
@json_option
@client_options
def sql(
    node: str,
    query: str,
    statement: str,
    parameters: tuple[str, ...],
    as_json: bool,
    cookie: str,
    timeout: float,
    log_level: str,
) -> None:
    """Run one STATEMENT that reads on the database of a durable query of NODE, and print what it finds.

    The query has to say `sql=`; how many rows there are at most, and how long the statement may run, is its
    to say too. A PARAMETER takes the place of `?` (SQLite) or `%s` (PostgreSQL): numbers, `true`, `false`,
    `null` and `"text"` are read as JSON has them, all else is text.
    """
    set_up_logging(log_level)

    async def go() -> Selected:
        async with client_node(node, cookie) as local:
            none = EventStoreError(
                f"there is no query {query!r} on {node}; `pyglyn queries {node}` lists them"
            )
            try:
                to = (Atom(PREFIX + query).name, node)
            except ValueError as error:
                raise none from error
            try:
                return await select(local, to, statement, [*map(_parameter, parameters)], timeout=timeout)
            except CallFailed as failure:
                if failure.reason is not NOPROC:
                    raise
                raise none from failure

    found = run(go())
    if as_json:
        rows = [[_json(value) for value in row] for row in found.rows]
        values.show_json({"columns": list(found.columns), "rows": rows, "complete": found.complete})
    else:
        table = tables.table(*found.columns)
        for row in found.rows:
            tables.row(table, *map(_shown, row))
        tables.show(table)
    if not found.complete:
        click.echo("there is more than the query lets out", err=True)

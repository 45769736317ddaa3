"""``pyglyn tree``, ``pyglyn stop`` and ``pyglyn kill``: look at a node's processes, end them. Layer: cli."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Iterable
from typing import Any

import rich_click as click
from rich.live import Live
from rich.table import Table
from rich.text import Text

from pyglyn.cli import tables, values
from pyglyn.cli.options import client_node, client_options, interval_option, json_option, run, set_up_logging
from pyglyn.etf import Atom, Term
from pyglyn.node import Node, described
from pyglyn.node.reasons import UNDEFINED

_COLOURS = {
    "running": "green",
    "starting": "yellow",
    "restarting": "yellow",
    "no_answer": "red",
    "stopped": "dim",
}
_COLUMNS = ("pid", "os pid", "status", "restarts", "memory", "mailbox", "uptime")
_NUMBERS = ("os pid", "restarts", "memory", "mailbox", "uptime")

Row = dict[Any, Any]


@click.command()
@click.argument("node", metavar="NODE")
@click.option("--live", is_flag=True, help="Keep showing it, until Ctrl-C.")
@interval_option(1.0)
@json_option
@client_options
def tree(
    node: str, live: bool, interval: float, as_json: bool, cookie: str, timeout: float, log_level: str
) -> None:
    """Show the supervision tree and all other processes of NODE."""
    set_up_logging(log_level)

    async def go() -> None:
        async with client_node(node, cookie, watching=live) as local:
            if as_json:
                await _as_json(local, node, timeout, interval if live else None)
                return
            if not live:
                tables.show(draw(await look(local, node, timeout)))
                return
            with Live(console=tables.console(), auto_refresh=False) as view:
                while True:
                    view.update(draw(await look(local, node, timeout)), refresh=True)
                    await asyncio.sleep(interval)

    with contextlib.suppress(KeyboardInterrupt):  # that is how to leave the live view
        run(go())


async def _as_json(local: Node, node: str, timeout: float, interval: float | None) -> None:
    """A line of JSON for each look."""
    while True:
        values.show_json(described.processes(await look(local, node, timeout)))
        if interval is None:
            return
        await asyncio.sleep(interval)


@click.command()
@click.argument("node", metavar="NODE")
@client_options
def stop(node: str, cookie: str, timeout: float, log_level: str) -> None:
    """Stop NODE as SIGTERM does: its trees first, each child in its turn. Waits until it is gone."""
    set_up_logging(log_level)

    async def go() -> bool:
        async with client_node(node, cookie) as local:
            gone = asyncio.Event()
            local.on_node_event(lambda event: None if event.up else gone.set())
            await local.erpc(node, "pyglyn", "stop", [], timeout)
            try:
                async with asyncio.timeout(timeout):
                    await gone.wait()
            except TimeoutError:
                return False
            return True

    if not run(go()):
        click.echo(f"pyglyn: {node} is still stopping after {timeout:g} s", err=True)
        sys.exit(1)


@click.command()
@click.argument("node", metavar="NODE")
@click.argument("name", metavar="NAME")
@client_options
def kill(node: str, name: str, cookie: str, timeout: float, log_level: str) -> None:
    """Kill the process of NODE that is registered as NAME, or has that pid (`<1.2>`, as in `pyglyn tree`)."""
    set_up_logging(log_level)

    async def go() -> Term:
        async with client_node(node, cookie) as local:
            return await local.erpc(node, "pyglyn", "kill", [name], timeout)

    if run(go()) is not True:
        click.echo(f"pyglyn: {node} has no process {name}", err=True)
        sys.exit(1)


async def look(local: Node, node: str, timeout: float) -> list[Row]:
    """Ask a node for its processes."""
    answer: Any = await local.erpc(node, "pyglyn", "tree", [], timeout)
    return list(answer)


def draw(rows: list[Row]) -> Table:
    """The processes as a table, children drawn below their supervisors."""
    table = tables.table("name", *_COLUMNS, right=_NUMBERS, whole=_COLUMNS)
    for branch, row in in_order(rows):
        table.add_row(tables.cell(branch, "dim").append(name_of(row), "default"), *cells(row))
    return table


def in_order(rows: list[Row]) -> Iterable[tuple[str, Row]]:
    """Each row after its parent, with the branch it hangs on; the trees come last."""
    pids = {row[Atom("pid")] for row in rows if row[Atom("pid")] is not UNDEFINED}
    below: dict[Any, list[Row]] = {}
    for row in rows:
        parent = row.get(Atom("parent"), UNDEFINED)
        below.setdefault(parent if parent in pids else UNDEFINED, []).append(row)
    tops = sorted(below.get(UNDEFINED, []), key=lambda row: row[Atom("pid")] in below)
    waiting = [("", "", row) for row in reversed(tops)]
    while waiting:
        branch, trunk, row = waiting.pop()
        yield branch, row
        children = below.get(row[Atom("pid")], []) if row[Atom("pid")] is not UNDEFINED else []
        for number, child in enumerate(reversed(children)):
            last = number == 0
            waiting.append((trunk + ("└─ " if last else "├─ "), trunk + ("   " if last else "│  "), child))


def name_of(row: Row) -> str:
    """Its name, fit for a terminal."""
    return tables.printable(described.name_of(row))


def cells(row: Row) -> list[Text]:
    """The cells after the name."""
    status = str(row.get(Atom("status"), ""))
    return [
        tables.cell(described.pid_text(row[Atom("pid")]) or ""),
        tables.cell(shown(row, "os_pid")),
        tables.cell(status, _COLOURS.get(status, "")),
        tables.cell(shown(row, "restarts")),
        tables.cell(size(row.get(Atom("memory")))),
        tables.cell(shown(row, "message_queue_len")),
        tables.cell(duration(row.get(Atom("uptime_ms")))),
    ]


def shown(row: Row, key: str) -> str:
    """A value as text, nothing where there is none."""
    value = row.get(Atom(key), UNDEFINED)
    return "" if value is UNDEFINED else str(value)


def size(value: Any) -> str:
    """Bytes for people."""
    if not isinstance(value, int):
        return ""
    return f"{value / 2**20:.1f} MiB"


def duration(milliseconds: Any) -> str:
    """A time for people: ``3.2 s``, ``4 min``, ``5 h``, ``6 d``."""
    if not isinstance(milliseconds, int):
        return ""
    seconds = milliseconds / 1000
    for unit, name in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.0f} {name}"
    return f"{seconds:.1f} s"

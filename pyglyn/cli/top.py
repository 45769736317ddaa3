"""``pyglyn top``: who on a node uses CPU and memory, and where messages wait. Layer: cli."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import termios
import time
import tty
from collections.abc import Iterator
from typing import Any, Final

import attrs
import rich_click as click
from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from pyglyn.cli import tables, values
from pyglyn.cli.options import client_node, client_options, interval_option, json_option, run, set_up_logging
from pyglyn.cli.tree import Row, duration, look, name_of, shown, size
from pyglyn.etf import Atom
from pyglyn.node.described import pid_text, processes
from pyglyn.node.inspection import owners
from pyglyn.node.reasons import UNDEFINED

SORTS: Final = ("cpu", "memory", "mailbox", "restarts", "uptime", "name")
KEYS: Final = {"c": "cpu", "m": "memory", "b": "mailbox", "r": "restarts", "u": "uptime", "n": "name"}
_COLUMNS: Final = (
    "pid",
    "os pid",
    "cpu",
    "memory",
    "mailbox",
    "restarts",
    "uptime",
    "status",
    "current function",
)
_NUMBERS: Final = ("os pid", "cpu", "memory", "mailbox", "restarts", "uptime")


@attrs.frozen
class Use:
    """A process, and what it used since the last look.

    Attributes:
        row: what the node says of it.
        cpu: share of one CPU that its OS process used; None for those without an OS process to themselves.
        memory: bytes of that OS process, or None.
    """

    row: Row
    cpu: float | None = None
    memory: int | None = None

    def value(self, sort: str) -> Any:
        """What it is sorted by."""
        match sort:
            case "cpu":
                return -1.0 if self.cpu is None else self.cpu
            case "memory":
                return -1 if self.memory is None else self.memory
            case "name":
                return name_of(self.row).lower()
        key = {"mailbox": "message_queue_len", "restarts": "restarts", "uptime": "uptime_ms"}[sort]
        value = self.row.get(Atom(key), UNDEFINED)
        return -1 if value is UNDEFINED else value


def uses(before: list[Row], now: list[Row], seconds: float) -> list[Use]:
    """What each process used between two looks, so many seconds apart."""
    past = {row[Atom("os_pid")]: row.get(Atom("cpu_us")) for row in before if Atom("os_pid") in row}
    own = set(owners(now).values())
    return [_use(row, past, seconds) if row[Atom("pid")] in own else Use(row) for row in now]


def _use(row: Row, past: dict[Any, Any], seconds: float) -> Use:
    cpu, memory = row.get(Atom("cpu_us")), row.get(Atom("memory"))
    first = past.get(row[Atom("os_pid")])
    known = isinstance(cpu, int) and isinstance(first, int) and seconds > 0
    return Use(
        row,
        max(0.0, (cpu - first) / 1e6 / seconds) if known else None,  # type: ignore[operator]
        memory if isinstance(memory, int) else None,
    )


def order(found: list[Use], sort: str) -> list[Use]:
    """The largest first; names as in the alphabet."""
    return sorted(found, key=lambda use: use.value(sort), reverse=sort != "name")


def draw(found: list[Use], sort: str) -> Table:
    """A table of them."""
    table = tables.table("name", *_COLUMNS, right=_NUMBERS, whole=_COLUMNS[:-1])
    for use in order(found, sort):
        row = use.row
        cells = (
            name_of(row),
            pid_text(row[Atom("pid")]) or "",
            shown(row, "os_pid"),
            "" if use.cpu is None else f"{use.cpu:.1%}",
            size(use.memory),
            shown(row, "message_queue_len"),
            shown(row, "restarts"),
            duration(row.get(Atom("uptime_ms"))),
            str(row.get(Atom("status"), "")),
            row.get(Atom("current_function"), b"").decode(errors="replace"),
        )
        tables.row(table, *cells)
    return table


def summary(node: str, found: list[Use], sort: str) -> str:
    """One line about all of them."""
    os_processes = sum(use.memory is not None for use in found)
    cpu = sum(use.cpu or 0.0 for use in found)
    waiting = sum(max(0, use.value("mailbox")) for use in found)
    counts = f"{len(found)} processes in {os_processes} OS processes"
    return f"{node}: {counts}, {cpu:.1%} CPU, {waiting} messages wait; by {sort}"


@click.command()
@click.argument("node", metavar="NODE")
@click.option(
    "--sort",
    type=click.Choice(SORTS),
    metavar="WHAT",
    default="cpu",
    show_default=True,
    help=f"What comes first: {', '.join(SORTS[:-1])} or {SORTS[-1]}.",
)
@interval_option(2.0)
@json_option
@client_options
def top(
    node: str, sort: str, interval: float, as_json: bool, cookie: str, timeout: float, log_level: str
) -> None:
    """Show who on NODE uses CPU and memory, and whose mailbox is full; again and again on a terminal.

    CPU and memory are those of OS processes. The keys c, m, b, r, u and n sort by CPU, memory, mailbox,
    restarts, uptime and name; q ends it. In a pipe, or as JSON, it is told once, of the time between two
    looks.
    """
    set_up_logging(log_level)
    chosen = [sort]

    async def go() -> None:
        async with client_node(node, cookie, watching=True) as local:
            before, at = await look(local, node, timeout), time.monotonic()
            if as_json or not sys.stdout.isatty():
                await asyncio.sleep(interval)
                now = await look(local, node, timeout)
                seconds = time.monotonic() - at
                found = uses(before, now, seconds)
                if as_json:
                    values.show_json(_as_json(node, seconds, order(found, sort)))
                    return
                click.echo(summary(node, found, chosen[0]))
                tables.show(draw(found, chosen[0]))
                return
            pressed = asyncio.Event()
            with (
                Live(console=tables.console(), auto_refresh=False, screen=True) as view,
                _keys(chosen, pressed),
            ):
                while chosen[0] != "quit":
                    now, then = await look(local, node, timeout), time.monotonic()
                    found = uses(before, now, then - at)
                    line = Text(tables.printable(summary(node, found, chosen[0])), "bold")
                    view.update(Group(line, draw(found, chosen[0])), refresh=True)
                    before, at = now, then
                    pressed.clear()
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(interval):
                            await pressed.wait()

    with contextlib.suppress(KeyboardInterrupt):  # that is how to leave the live view
        run(go())


@contextlib.contextmanager
def _keys(chosen: list[str], pressed: asyncio.Event) -> Iterator[None]:
    """Have single keys choose what is sorted by, as long as it is entered."""
    if not sys.stdin.isatty():
        yield
        return
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    tty.setcbreak(descriptor)
    loop = asyncio.get_running_loop()
    loop.add_reader(descriptor, _on_keys, descriptor, chosen, pressed)
    try:
        yield
    finally:
        loop.remove_reader(descriptor)
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def _on_keys(descriptor: int, chosen: list[str], pressed: asyncio.Event) -> None:
    """Take all keys that were pressed, past Python's own buffer, which the event loop does not see.

    At its end, or where it has broken, nobody can press a key any more: then it ends.
    """
    try:
        keys = os.read(descriptor, 1024).decode("latin-1")
    except OSError:
        keys = ""
    for key in keys or "q":
        if chosen[0] != "quit":
            chosen[0] = "quit" if key == "q" else KEYS.get(key, chosen[0])
    pressed.set()


def _as_json(node: str, seconds: float, found: list[Use]) -> dict[str, Any]:
    told = [
        {**described, "cpu": use.cpu}
        for use, described in zip(found, processes([use.row for use in found]), strict=True)
    ]
    return {"node": node, "seconds": seconds, "processes": told}

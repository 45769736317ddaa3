"""``pyglyn events``, ``trace``, ``queries``, ``replay`` and ``parked``. Layer: cli."""

from __future__ import annotations

import asyncio
import datetime
import json
import os
from collections.abc import AsyncIterator
from typing import Any

import rich_click as click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from pyglyn import eventsourcing as es
from pyglyn.cli.options import client_node, client_options, log_level_option, run, set_up_logging
from pyglyn.errors import CallFailed, EventStoreError, PyglynError
from pyglyn.etf import Atom, Term
from pyglyn.eventsourcing import causation, wire
from pyglyn.eventsourcing.query_process import ALL, PREFIX, readable
from pyglyn.eventsourcing.trace import Traced, trace
from pyglyn.node import Node

PAGE = 500


# --- stores --------------------------------------------------------------------------------------------


def _opened(url: str) -> es.EventStore[Any, Any]:
    """Open a store for reading; a SQLite file that is not there is not created."""
    path = url.removeprefix("sqlite:").partition("?")[0]
    if url.startswith("sqlite:") and not os.path.exists(path):
        raise EventStoreError(f"there is no file {path}")
    if url.startswith("memory:"):
        raise EventStoreError("a memory store lives in its service: nothing of it can be seen from here")
    return es.open_store(url)


async def _all_events(
    store: es.EventStore[Any, Any], after: int = 0, aggregate_id: str | None = None
) -> AsyncIterator[es.RecordedEvent[Any]]:
    while events := await store.read(after, limit=PAGE, aggregate_id=aggregate_id):
        for event in events:
            yield event
        after = events[-1].position


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _line(event: es.RecordedEvent[Any]) -> str:
    start = f"{event.position}\t{_time(event.recorded_at)}"
    if event.envelope is None:
        text = event.error.payload if event.error is not None else ""
        return f"{start}\t{event.aggregate_id} #{event.sequence}\tdoes not decode: {text}"
    payload = json.dumps(event.envelope.payload, ensure_ascii=False)
    metadata = " ".join(f"{key}={value}" for key, value in event.envelope.metadata)
    return f"{start}\t{causation.event_id(event.envelope)}\t{payload}\t{metadata}"


@click.command()
@click.argument("url", metavar="STORE-URL")
@click.option("--aggregate", metavar="ID", help="Only the events of this aggregate.")
@click.option("--after", type=int, default=0, metavar="POSITION", help="Only events behind this position.")
@click.option("--limit", type=click.IntRange(1), help="So many events at most.")
@log_level_option("error")
def events(url: str, aggregate: str | None, after: int, limit: int | None, log_level: str) -> None:
    """Print the events of a store, one a line: position, time, event id, payload, metadata.

    STORE-URL is `sqlite:path` or `postgresql://…`.
    """
    set_up_logging(log_level)

    async def go() -> None:
        count = 0
        async with _opened(url) as store:
            async for event in _all_events(store, after, aggregate):
                click.echo(_line(event))
                count += 1
                if count == limit:
                    return

    run(go())


@click.command("trace")
@click.argument("correlation", metavar="CORRELATION")
@click.argument("urls", metavar="STORE-URL...", nargs=-1, required=True)
@log_level_option("error")
def trace_command(correlation: str, urls: tuple[str, ...], log_level: str) -> None:
    """Print what one request caused, as a tree, from the events of one or more stores.

    CORRELATION is the `correlation_id` in the metadata of an event; `pyglyn events` shows it.
    """
    set_up_logging(log_level)

    async def go() -> list[tuple[es.EventEnvelope[Any], float | None]]:
        found = []
        for url in urls:
            async with _opened(url) as store:
                async for event in _all_events(store):
                    envelope = event.envelope
                    if envelope is not None and _correlates(envelope, correlation):
                        found.append((envelope, event.recorded_at))
        return found

    found = run(go())
    if not found:
        raise EventStoreError(f"no event has the correlation id {correlation}")
    tree = Tree(f"correlation {correlation}")
    _grow(tree, trace(found))
    Console(soft_wrap=True).print(tree)


def _correlates(envelope: es.EventEnvelope[Any], correlation: str) -> bool:
    return causation.value_of(envelope.metadata, causation.CORRELATION) == correlation


def _grow(tree: Tree, events: list[Traced]) -> None:
    stack = [(tree, event) for event in reversed(events)]
    while stack:
        parent, event = stack.pop()
        where = f" on {event.node}" if event.node else ""
        branch = parent.add(f"{event.name} {event.id}{where} at {_time(event.at)}")
        stack += [(branch, each) for each in reversed(event.caused)]


# --- queries of a node -----------------------------------------------------------------------------------


async def _names(node: Node, peer: str) -> list[str]:
    registered = await node.erpc(peer, "erlang", "registered")
    assert isinstance(registered, list)
    names = [name.name for name in registered if isinstance(name, Atom)]
    return sorted(name.removeprefix(PREFIX) for name in names if name.startswith(PREFIX))


async def _ask(node: Node, peer: str, query: str, request: Term, timeout: float) -> Any:
    try:
        answer = await node.call((PREFIX + query, peer), request, timeout)
    except CallFailed as failure:
        raise EventStoreError(f"there is no query {query!r} on {peer}: {failure}") from failure
    if isinstance(answer, tuple) and answer and answer[0] is wire.ERROR:
        raise wire.read_error(answer[1])
    return answer


async def _status(node: Node, peer: str, query: str, timeout: float) -> es.QueryStatus:
    return es.QueryStatus.from_term(await _ask(node, peer, query, Atom("status"), timeout))


@click.command()
@click.argument("node", metavar="NODE")
@click.option("--pause", metavar="QUERY", help="Have this query stand still, also after a restart.")
@click.option("--resume", metavar="QUERY", help="Have this query go on.")
@client_options
def queries(
    node: str, pause: str | None, resume: str | None, cookie: str, timeout: float, log_level: str
) -> None:
    """List the queries of NODE: position, lag, state, processed and parked events, last error."""
    set_up_logging(log_level)

    async def go() -> list[es.QueryStatus]:
        async with client_node(node, cookie) as local:
            for query, order in ((pause, "pause"), (resume, "resume")):
                if query is not None:
                    await _ask(local, node, query, Atom(order), timeout)
            return [await _status(local, node, name, timeout) for name in await _names(local, node)]

    table = Table("query", "kind", "state", "position", "lag", "processed", "parked", "error")
    for each in run(go()):
        position = "-" if each.position is None else str(each.position)
        numbers = (position, str(each.lag), str(each.processed), str(each.parked))
        table.add_row(*map(Text, (each.name, each.kind, each.state, *numbers, each.error[:200])))
    Console().print(table if table.row_count else f"{node} has no queries")


@click.command()
@click.argument("node", metavar="NODE")
@click.argument("query", metavar="QUERY")
@click.option("--aggregate", metavar="ID", help="Only the events of this aggregate.")
@click.option(
    "--wait/--no-wait", default=True, show_default=True, help="Show how far it is until it is done."
)
@client_options
def replay(
    node: str, query: str, aggregate: str | None, wait: bool, cookie: str, timeout: float, log_level: str
) -> None:
    """Have a durable query of NODE undo its effects and process all events again."""
    set_up_logging(log_level)

    async def go() -> None:
        async with client_node(node, cookie) as local:
            what: Term = ALL if aggregate is None else aggregate.encode()
            await _ask(local, node, query, (Atom("replay"), what), timeout)
            if wait:
                await _show_progress(local, node, query, timeout)

    run(go())


async def _show_progress(local: Node, node: str, query: str, timeout: float) -> None:
    """Ask for the status until nothing is behind, with a bar on standard error."""
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"))
    console = Console(stderr=True)
    with Progress(*columns, TimeRemainingColumn(), console=console) as progress:
        bar = progress.add_task(query, total=None)
        while True:
            await asyncio.sleep(0.1)
            status = await _status(local, node, query, timeout)
            position = status.position or 0
            progress.update(bar, completed=position, total=position + status.lag)
            if status.state in ("stuck", "paused"):
                raise EventStoreError(f"query {query} is {status.state} {status.error}".rstrip())
            if status.state in ("live", "idle"):
                break
    click.echo(f"{query}: {status.state} at position {status.position}, {status.parked} parked")


@click.command()
@click.argument("node", metavar="NODE")
@click.argument("query", metavar="[QUERY]", required=False)
@click.option("--drive", metavar="ID|all", help="Have QUERY process this parked event again, or all of them.")
@client_options
def parked(
    node: str, query: str | None, drive: str | None, cookie: str, timeout: float, log_level: str
) -> None:
    """List the parked events of NODE's queries with their errors, or drive them again.

    A table on a terminal; else lines of query, id, aggregate, sequence, attempts, time, error, event.
    """
    set_up_logging(log_level)
    if drive is not None and (query is None or not (drive == "all" or drive.isdigit())):
        raise click.UsageError("--drive needs a QUERY, and the id of a parked event or the word all")

    async def go() -> None:
        async with client_node(node, cookie) as local:
            if drive is not None:
                which: Term = ALL if drive == "all" else int(drive)
                _, count = await _ask(local, node, query or "", (Atom("drive"), which), timeout)
                click.echo(f"{count} driven")
                return
            names = [query] if query is not None else await _names(local, node)
            _show_parked(
                [
                    _parked_row(name, event)
                    for name in names
                    for event in await _ask(local, node, name, Atom("parked"), timeout)
                ]
            )

    run(go())


def _show_parked(rows: list[tuple[str, ...]]) -> None:
    console = Console()
    if not console.is_terminal:
        for row in rows:
            click.echo("\t".join(row))
        return
    table = Table("query", "id", "aggregate", "#", "attempts", "parked at", "error", "event")
    for row in rows:
        table.add_row(*map(Text, row))
    console.print(table if rows else "nothing is parked")


def _parked_row(query: str, event: dict[Any, Any]) -> tuple[str, ...]:
    try:
        raw = readable(event)
    except PyglynError:
        raw = repr(event[Atom("raw")])
    return (
        query,
        str(event[Atom("id")]),
        wire.text(event[Atom("aggregate_id")]),
        str(event[Atom("sequence")]),
        str(event[Atom("attempts")]),
        _time(event[Atom("parked_at")]),
        wire.text(event[Atom("error")]),
        raw,
    )

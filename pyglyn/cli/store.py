"""``pyglyn store``: the care of a store's database. Layer: cli."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

import attrs
import rich_click as click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from pyglyn.cli import tables, values
from pyglyn.cli.options import json_option, log_level_option, set_up_logging
from pyglyn.eventsourcing.stores import care


@click.group()
def store() -> None:
    """Care for the database of a store: migrate, copy, verify, archive, stats."""


@contextlib.contextmanager
def _progress(what: str) -> Iterator[care.Progress]:
    """Show a bar on a terminal, and nothing elsewhere."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed} of {task.total}"))
    with Progress(*columns, TimeRemainingColumn(), console=console, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@store.command()
@click.argument("url", metavar="STORE-URL")
@json_option
@log_level_option("warning")
def migrate(url: str, as_json: bool, log_level: str) -> None:
    """Take the side tables to the layout of this version of pyglyn. Stop older services first."""
    set_up_logging(log_level)
    before, after = care.migrate(url)
    if as_json:
        values.show_json({"before": before, "after": after})
        return
    click.echo(f"version {after}" if before == after else f"from version {before} to {after}")


@store.command()
@click.argument("source", metavar="FROM-URL")
@click.argument("target", metavar="TO-URL")
@json_option
@log_level_option("warning")
def copy(source: str, target: str, as_json: bool, log_level: str) -> None:
    """Copy a store into an empty one: events with position and time, facts, and what is kept beside them.

    Run it again to go on after it was broken off, or with what has come since. The target must not be in use.
    """
    set_up_logging(log_level)
    with _progress("copying") as progress:
        done = care.copy(source, target, progress=progress)
    if as_json:
        values.show_json(attrs.asdict(done))
        return
    there = f", {done.there_before} were there" if done.there_before else ""
    facts = f"; {done.facts} facts" if done.facts or done.facts_there_before else ""
    facts += f", {done.facts_there_before} were there" if done.facts_there_before else ""
    click.echo(f"{done.events} events copied{there}; {done.snapshots} snapshots{facts}")


@store.command()
@click.argument("url", metavar="STORE-URL")
@json_option
@log_level_option("warning")
def verify(url: str, as_json: bool, log_level: str) -> None:
    """Check positions, sequences, snapshots, facts, and that events are JSON; exits with 1 for any fault."""
    set_up_logging(log_level)
    faults: list[str] = []
    with _progress("verifying") as progress:
        for fault in care.verify(url, progress=progress):
            faults.append(str(fault))
            if not as_json:
                click.echo(fault)
    if as_json:
        values.show_json(faults)
    elif not faults:
        click.echo("nothing is wrong")
    if faults:
        sys.exit(1)


@store.command()
@click.argument("url", metavar="STORE-URL")
@click.argument("target", metavar="ARCHIVE-URL")
@click.option(
    "--until",
    type=click.IntRange(0, 2**63 - 1),
    required=True,
    metavar="POSITION",
    help="Up to this one.",
)
@json_option
@log_level_option("warning")
def archive(url: str, target: str, until: int, as_json: bool, log_level: str) -> None:
    """Move events that snapshots make needless into another store.

    The archive has everything afterwards; what goes from the store are the events of an aggregate before its
    snapshot. Its service has to use snapshots then, and a query that starts anew gets only what is left.
    """
    set_up_logging(log_level)
    with _progress("archiving") as progress:
        gone = care.archive(url, target, until=until, progress=progress)
    if as_json:
        values.show_json({"events": gone})
        return
    why = "" if gone else ": up to there none lies before a snapshot of its aggregate"
    click.echo(f"{gone} events archived{why}")


@store.command()
@click.argument("url", metavar="STORE-URL")
@json_option
@log_level_option("warning")
def stats(url: str, as_json: bool, log_level: str) -> None:
    """Print what is in a store: events, facts, aggregates, queries and how far behind they are."""
    set_up_logging(log_level)
    found = care.stats(url)
    if as_json:
        values.show_json(found)
        return
    for index, what in enumerate(_shown(found)):
        if index:
            click.echo()
        tables.show(what)


def _shown(found: dict[str, Any]) -> Iterator[Table]:
    """Lay out what `care.stats` has found: the whole, then each kind that there is any of."""
    whole = tables.table("what", "count", "", right=["count"])
    first, last = (tables.moment(at, whole=True) for at in found["recorded"])
    times = f"recorded {first} to {last}" if found["events"] else ""
    tables.row(whole, "events", found["events"], times)
    facts = found["facts"]
    if facts is not None:
        tables.row(whole, "facts", facts["count"], "")
    for name in ("snapshots", "parked", "outbox", "commands", "deadlines"):
        tables.row(whole, name, found[name], "")
    tables.row(whole, "side tables", found["version"], "their version")
    yield whole
    if found["types"]:
        types = tables.table("aggregate type", "events", "aggregates", right=["events", "aggregates"])
        for name, of in found["types"].items():
            tables.row(types, name, of["events"], of["aggregates"])
        yield types
    if facts is not None and facts["types"]:
        types = tables.table("fact type", "facts", right=["facts"])
        for name, count in facts["types"].items():
            tables.row(types, name, count)
        yield types
    if found["queries"]:
        queries = tables.table("query", "position", "behind", "", right=["position", "behind"])
        for name, of in found["queries"].items():
            paused = "paused" if of["paused"] else ""
            tables.row(queries, name, of["position"], of["behind"], paused)
        yield queries

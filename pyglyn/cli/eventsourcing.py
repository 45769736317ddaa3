"""``pyglyn events``, ``trace``, ``queries``, ``replay`` and ``parked``. Layer: cli."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import re
import sys
import time
from collections.abc import Iterator
from typing import Any

import attrs
import rich_click as click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from pyglyn import eventsourcing as es
from pyglyn.cli import tables, values
from pyglyn.cli.loading import load_object, made_by
from pyglyn.cli.options import (
    client_node,
    client_options,
    in_utf8,
    json_option,
    log_level_option,
    run,
    set_up_logging,
)
from pyglyn.errors import CallFailed, CallTimeout, EventDecodeError, EventStoreError, PyglynError
from pyglyn.etf import Atom, Term
from pyglyn.eventsourcing.domain import causation, wire
from pyglyn.eventsourcing.domain.trace import Traced, trace
from pyglyn.eventsourcing.queries.query_process import ALL, PREFIX, readable
from pyglyn.eventsourcing.stores.readonly import NO_POSITION, has_facts, look, look_at_facts
from pyglyn.eventsourcing.stores.wrapped import unwrapped
from pyglyn.node import Node
from pyglyn.node.reasons import NOPROC

Parked = dict[Any, Any]


# --- stores --------------------------------------------------------------------------------------------


def _one_line(text: str) -> str:
    """Write what does not print (line feeds, control characters, lone surrogates) as JSON does."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else json.dumps(each)[1:-1] for each in text)


def _put(*fields: str, below: tuple[str, ...]) -> None:
    """Print what belongs together: on one line, or on a terminal what may be long in lines below the rest."""
    if sys.stdout.isatty():
        click.echo(
            "\n".join(["  ".join(map(_one_line, fields)), *(tables.note(text) for text in below if text)])
        )
    else:
        click.echo("\t".join(map(_one_line, (*fields, *below))))


def _put_event(event: es.RecordedEvent[Any]) -> None:
    start = ("-" if event.position == NO_POSITION else str(event.position), tables.moment(event.recorded_at))
    if event.envelope is None:
        text = event.error.payload if event.error is not None else ""
        _put(*start, f"{event.aggregate_id} #{event.sequence}", below=(f"does not decode: {text}",))
        return
    payload = json.dumps(event.envelope.payload, ensure_ascii=False)
    metadata = " ".join(f"{key}={value}" for key, value in event.envelope.metadata)
    _put(*start, causation.event_id(event.envelope), below=(payload, metadata))


def _event_json(event: es.RecordedEvent[Any]) -> dict[str, Any]:
    envelope, fault = event.envelope, event.error
    told = {
        "position": None if event.position == NO_POSITION else event.position,
        "at": event.recorded_at,
        "aggregate_id": event.aggregate_id,
        "sequence": event.sequence,
    }
    if envelope is None:
        raw = fault.payload if fault is not None else ""
        return {**told, "id": None, "payload": raw, "metadata": [], "error": "does not decode"}
    shown = {"payload": envelope.payload, "metadata": [list(pair) for pair in envelope.metadata]}
    return {**told, "id": causation.event_id(envelope), **shown, "error": None}


def _data_of(fact: es.RawFact) -> Any:
    """What is in a fact: JSON where it is that, else its bytes as text."""
    try:
        return json.loads(fact.data)
    except ValueError:
        return fact.data.decode("utf-8", "backslashreplace")


def _show_facts(url: str, tags: tuple[str, ...], after: int, limit: int | None, as_json: bool) -> None:
    query = es.Query(tags=tags)
    with contextlib.closing(look_at_facts(url, after=after, query=query)) as found:
        for fact in itertools.islice(found, limit):
            data = _data_of(fact)
            if as_json:
                told = {
                    **attrs.asdict(fact),
                    "data": data,
                    "metadata": [list(pair) for pair in fact.metadata],
                }
                values.show_json({**told, "tags": list(fact.tags)})
                continue
            pairs = " ".join(f"{key}={value}" for key, value in fact.metadata)
            what = f"{fact.type} {fact.version}"
            text = json.dumps(data, ensure_ascii=False)
            _put(str(fact.position), what, " ".join(fact.tags), below=(text, pairs))


def _app_codec(reference: str) -> es.RowCodec[Any, Any]:
    """Find how an application reads its events: by a store, a service, or a function that returns one.

    Raises:
        click.UsageError: it names nothing of that kind.
    """
    found = load_object(reference)
    if callable(found) and not isinstance(found, es.DurableQuery):
        found = made_by(found, reference)
    codec = getattr(unwrapped(getattr(found, "store", found)), "codec", None)
    if found is None:
        raise click.UsageError(f"--app {reference}: there is nothing of that name")
    if not isinstance(codec, es.RowCodec):
        raise click.UsageError(
            f"--app {reference} is of type {type(found).__name__}: name an SQL store, a service over one, "
            "or a function that returns one"
        )
    if codec.aggregate_type is None:
        raise click.UsageError(f"--app {reference}: give a store (or service) with an aggregate_type")
    return codec


def _check(url: str, reference: str, as_json: bool) -> bool:
    """Read all events of a store by an application's types, and say what does not decode."""
    codec = _app_codec(reference)
    fine = faults = others = 0
    for event in look(url):
        kind, version = _kind_of(event)
        if kind not in (None, codec.aggregate_type):
            others += 1
            continue
        try:
            codec.read_event(event.raw, version)
            fine += 1
        except EventDecodeError as error:
            faults += 1
            if as_json:
                told = {**_event_json(event), "payload": error.payload, "error": "; ".join(error.errors)}
                values.show_json(told)
                continue
            what = f"{event.aggregate_id} #{event.sequence}"
            _put(str(event.position), what, below=("; ".join(error.errors), error.payload))
    rest = f", {others} of other types" if others else ""
    click.echo(f"{fine} of {codec.aggregate_type} decode, {faults} do not{rest}", err=True)
    return not faults


def _kind_of(event: es.RecordedEvent[Any]) -> tuple[str | None, str]:
    if isinstance(event.envelope, es.SerializedEventEnvelop):
        return event.envelope.aggregate_type, event.envelope.event_version
    return None, ""


@click.command()
@click.argument("url", metavar="[check] STORE-URL")
@click.argument("checked", metavar="", required=False)
@click.option("--app", metavar="MODULE:NAME", help="With check: a store or service that has the types.")
@click.option("--aggregate", callback=in_utf8, metavar="ID", help="Only the events of this aggregate.")
@click.option(
    "--after",
    type=click.IntRange(0, 2**63 - 1),
    default=0,
    metavar="POSITION",
    help="Only events behind this position.",
)
@click.option("--limit", type=click.IntRange(1), help="So many events at most.")
@click.option("--facts", is_flag=True, help="Print the facts of the database instead, which carry tags.")
@click.option(
    "--tag",
    "tags",
    multiple=True,
    callback=in_utf8,
    metavar="TAG",
    help="With --facts: only those that have this tag; repeatable.",
)
@json_option
@log_level_option("error")
def events(
    url: str,
    checked: str | None,
    app: str | None,
    aggregate: str | None,
    after: int,
    limit: int | None,
    facts: bool,
    tags: tuple[str, ...],
    as_json: bool,
    log_level: str,
) -> None:
    """Print the events of a store, one a line: position, time, event id, payload, metadata.

    STORE-URL is `sqlite:path` or `postgresql://…`. The database is only read. Where no service of pyglyn has
    used it, or read the event yet, the position is `-`. On a terminal payload and metadata stand below the
    rest.

    With `--facts` those that rules across aggregates rest on: position, type, tags, data, metadata.

    `events check STORE-URL --app MODULE:NAME` reads the whole store with the present types of an application
    and prints what does not decode; the exit status is 1 if there is any.
    """
    set_up_logging(log_level)
    if url == "check" and checked is not None:
        if app is None:
            raise click.UsageError("check needs --app MODULE:NAME, which says what the events are read by")
        sys.exit(0 if _check(checked, app, as_json) else 1)
    if checked is not None or app is not None:
        raise click.UsageError(f"one STORE-URL, or check STORE-URL --app MODULE:NAME; got {url} {checked}")
    if tags and not facts:
        raise click.UsageError("--tag is for --facts: events have no tags")
    if facts:
        if aggregate is not None:
            raise click.UsageError("facts belong to no aggregate: --tag selects them")
        _show_facts(url, tags, after, limit, as_json)
        return
    count = 0
    with contextlib.closing(look(url, after=after, aggregate_id=aggregate)) as found:
        for count, event in enumerate(found, 1):
            if as_json:
                values.show_json(_event_json(event))
            else:
                _put_event(event)
            if count == limit:
                break
    if not count and not after and has_facts(url):
        click.echo("there are no such events here, but facts: --facts prints them", err=True)


@click.command("trace")
@click.argument("correlation", metavar="CORRELATION")
@click.argument("urls", metavar="STORE-URL...", nargs=-1, required=True)
@json_option
@log_level_option("error")
def trace_command(correlation: str, urls: tuple[str, ...], as_json: bool, log_level: str) -> None:
    """Print what one request caused, as a tree, from the events of one or more stores.

    CORRELATION is the `correlation_id` in the metadata of an event; `pyglyn events` shows it. The databases
    are only read.
    """
    set_up_logging(log_level)
    found = [
        (event.envelope, event.recorded_at)
        for url in urls
        for event in look(url)
        if event.envelope is not None and _correlates(event.envelope, correlation)
    ]
    if not found:
        raise EventStoreError(f"no event has the correlation id {correlation}")
    if as_json:
        values.show_json({"correlation": correlation, "events": list(_flat(trace(found)))})
        return
    click.echo(f"correlation {_one_line(correlation)}")
    for line in _tree(trace(found)):
        click.echo(line)


def _correlates(envelope: es.EventEnvelope[Any], correlation: str) -> bool:
    return causation.value_of(envelope.metadata, causation.CORRELATION) == correlation


def _tree(roots: list[Traced]) -> Iterator[str]:
    """Draw a tree, a line for each event, however long it is."""
    stack = [("", event, event is roots[-1]) for event in reversed(roots)]
    while stack:
        indent, event, is_last = stack.pop()
        where = f" on {event.node}" if event.node else ""
        text = f"{event.name} {event.id}{where} at {tables.moment(event.at)}"
        yield f"{indent}{'└── ' if is_last else '├── '}{_one_line(text)}"
        indent += "    " if is_last else "│   "
        stack += [(indent, each, each is event.caused[-1]) for each in reversed(event.caused)]


def _flat(roots: list[Traced]) -> Iterator[dict[str, Any]]:
    """The events of a tree, each after the one that caused it."""
    stack: list[tuple[str | None, Traced]] = [(None, event) for event in reversed(roots)]
    while stack:
        cause, event = stack.pop()
        told = {"id": event.id, "cause": cause, "name": event.name, "node": event.node or None}
        yield {**told, "at": event.at}
        stack += [(event.id, each) for each in reversed(event.caused)]


# --- queries of a node -----------------------------------------------------------------------------------


async def _names(node: Node, peer: str) -> list[str]:
    registered = await node.erpc(peer, "erlang", "registered")
    assert isinstance(registered, list)
    names = [name.name for name in registered if isinstance(name, Atom)]
    return sorted(name.removeprefix(PREFIX) for name in names if name.startswith(PREFIX))


ANSWERS_SHARE = 0.8
"""Of a command's time, what each of several queries has to answer: one that does not hides no other."""


async def _ask(node: Node, peer: str, query: str, request: Term, timeout: float) -> Any:
    try:
        Atom(PREFIX + query)
        answer = await node.call((PREFIX + query, peer), request, timeout)
    except (CallFailed, ValueError) as failure:
        if isinstance(failure, CallFailed) and failure.reason is not NOPROC:
            raise
        raise EventStoreError(
            f"there is no query {query!r} on {peer}; `pyglyn queries {peer}` lists them"
        ) from failure
    if isinstance(answer, tuple) and answer and answer[0] is wire.ERROR:
        raise wire.read_error(answer[1])
    return answer


async def _status(node: Node, peer: str, query: str, timeout: float) -> es.QueryStatus:
    return es.QueryStatus.from_term(await _ask(node, peer, query, Atom("status"), timeout))


async def _status_or_none(node: Node, peer: str, query: str, timeout: float) -> es.QueryStatus:
    try:
        return await _status(node, peer, query, timeout)
    except PyglynError as error:
        return es.QueryStatus(name=query, kind="-", state="no answer", error=str(error))


@click.command()
@click.argument("node", metavar="NODE")
@click.option(
    "--pause",
    callback=in_utf8,
    metavar="QUERY",
    help="Have this query stand still: a durable one also after a restart, a live one until it ends.",
)
@click.option("--resume", callback=in_utf8, metavar="QUERY", help="Have this query go on.")
@json_option
@client_options
def queries(
    node: str,
    pause: str | None,
    resume: str | None,
    as_json: bool,
    cookie: str,
    timeout: float,
    log_level: str,
) -> None:
    """List the queries of NODE: position, lag, state, processed and parked events, last error.

    The lag of a live query is the number of messages that wait. A query that is busy may give no answer.
    Process managers have two columns more: commands that are not carried out yet, and deadlines.
    """
    set_up_logging(log_level)

    async def go() -> list[es.QueryStatus]:
        async with client_node(node, cookie) as local:
            for query, order in ((pause, "pause"), (resume, "resume")):
                if query is not None:
                    await _ask(local, node, query, Atom(order), timeout)
            names = await _names(local, node)
            return await asyncio.gather(
                *(_status_or_none(local, node, name, timeout * ANSWERS_SHARE) for name in names)
            )

    found = run(go())
    if as_json:
        values.show_json([attrs.asdict(each) for each in found])
        return
    of_managers = ("commands", "timers") if any(each.kind == "manager" for each in found) else ()
    numbers = ("position", "lag", "processed", "parked", *of_managers)
    whole = ("query", "kind", "state", *numbers)
    errors = ("error",) if any(each.error for each in found) or not sys.stdout.isatty() else ()
    table = tables.table(*whole, *errors, right=numbers, whole=whole)
    if not found:
        click.echo(f"{node} has no queries")
        return
    for each in found:
        found_numbers = (getattr(each, number) for number in numbers)
        counts = ("-" if value is None else str(value) for value in found_numbers)
        row = (each.name, each.kind, each.state, *counts, _one_line(each.error))
        tables.row(table, *row[: len(table.columns)])
    tables.show(table)


@click.command()
@click.argument("node", metavar="NODE")
@click.argument("query", metavar="QUERY", callback=in_utf8)
@click.option("--aggregate", callback=in_utf8, metavar="ID", help="Only the events of this aggregate.")
@click.option(
    "--wait/--no-wait", default=True, show_default=True, help="Show how far it is until it is done."
)
@json_option
@client_options
def replay(
    node: str,
    query: str,
    aggregate: str | None,
    wait: bool,
    as_json: bool,
    cookie: str,
    timeout: float,
    log_level: str,
) -> None:
    """Have a durable query of NODE undo its effects and process all events again.

    Its `on_reset` is what undoes them. A query without one is refused, because its effects would be there
    twice, unless it was made with `idempotent=True`. The command ends when all is processed, whatever has to
    be tried again meanwhile; Ctrl-C ends the command and leaves the replay running. The exit status is 1 when
    events were parked.
    """
    set_up_logging(log_level)

    async def go() -> bool:
        async with client_node(node, cookie, watching=wait) as local:
            what: Term = ALL if aggregate is None else aggregate.encode()
            await _ask(local, node, query, (Atom("replay"), what), timeout)
            if not wait:
                if as_json:
                    values.show_json(_replayed(query, None, []))
                return True
            status = await _show_progress(local, node, query, timeout)
            found: list[Parked] = await _ask(local, node, query, Atom("parked"), timeout)
            left = [event for event in found if what in (ALL, event[Atom("aggregate_id")])]
            if as_json:
                values.show_json(_replayed(query, status, left))
                return not left
            click.echo(f"{query}: {status.state} at position {status.position}, {status.parked} parked")
            return _tell_parked(query, left)

    sys.exit(0 if run(go()) else 1)


def _replayed(query: str, status: es.QueryStatus | None, left: list[Parked]) -> dict[str, Any]:
    return {
        "query": query,
        "done": status is not None,
        "state": None if status is None else status.state,
        "position": None if status is None else status.position,
        "parked": [_parked_json(query, event) for event in left],
    }


def _tell_parked(query: str, left: list[Parked]) -> bool:
    """Say what a replay has parked; True if it is nothing."""
    for event in left[:MOST_TOLD]:
        id, error = wire.text(event[Atom("aggregate_id")]), wire.text(event[Atom("error")])
        click.echo(_one_line(f"{query}: parked event {event[Atom('sequence')]} of {id}: {error}"))
    if len(left) > MOST_TOLD:
        click.echo(f"{query}: parked {len(left) - MOST_TOLD} more")
    return not left


MOST_TOLD = 20
"""How many parked events a replay lists."""
RESTARTED_S = 15.0
"""For how long a query may give no answer while it is watched."""


async def _show_progress(local: Node, node: str, query: str, timeout: float) -> es.QueryStatus:
    """Ask for the status until all is done, with a bar on standard error; what it is then.

    Raises:
        EventStoreError: the query stands still, or has not answered for so long.
    """
    click.echo(f"{query} is replayed; Ctrl-C leaves it running", err=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"))
    console = Console(stderr=True)
    with Progress(*columns, TimeRemainingColumn(), console=console) as progress:
        bar = progress.add_task(query, total=None)
        answered_at = time.monotonic()
        while True:
            await asyncio.sleep(0.1)
            try:
                status = await _status(local, node, query, timeout)
            except (CallTimeout, EventStoreError):  # busy, or being restarted
                if time.monotonic() - answered_at > max(timeout, RESTARTED_S):
                    raise
                continue
            answered_at = time.monotonic()
            position = status.position or 0
            progress.update(
                bar,
                description=f"{query} {status.state} {_one_line(status.error)}".rstrip(),
                completed=position,
                total=position + status.lag,
            )
            if status.state in ("stopped", "paused"):
                raise EventStoreError(f"query {query} is {status.state} {status.error}".rstrip())
            if status.state in ("live", "idle", "standby") and status.lag == 0:
                return status


@click.command()
@click.argument("node", metavar="NODE")
@click.argument("query", metavar="[QUERY]", required=False, callback=in_utf8)
@click.option("--drive", metavar="ID|all", help="Have QUERY process this parked event again, or all of them.")
@json_option
@client_options
def parked(
    node: str,
    query: str | None,
    drive: str | None,
    as_json: bool,
    cookie: str,
    timeout: float,
    log_level: str,
) -> None:
    """List the parked events of NODE's queries with their errors, or drive them again.

    A table on a terminal, error and event below each; else lines of query, id, aggregate, sequence, attempts,
    time, error, event. Driving keeps the order of each aggregate: after a failure the rest of it stays
    parked. The exit status is 1 when something that was to be driven is still parked.
    """
    set_up_logging(log_level)
    if drive is not None and (query is None or not (drive == "all" or re.fullmatch(r"-?\d+", drive))):
        raise click.UsageError("--drive needs a QUERY, and the id of a parked event or the word all")

    async def go() -> tuple[list[tuple[str, Parked]], list[PyglynError]]:
        async with client_node(node, cookie) as local:
            names = [query] if query is not None else await _names(local, node)
            asked = (_ask(local, node, name, Atom("parked"), timeout * ANSWERS_SHARE) for name in names)
            answers = await asyncio.gather(*asked, return_exceptions=True)
        rows, errors = [], []
        for name, answer in zip(names, answers, strict=True):
            if isinstance(answer, PyglynError):
                errors.append(answer)
            elif isinstance(answer, BaseException):
                raise answer
            else:
                rows += [(name, event) for event in answer]
        return rows, errors

    if drive is not None:
        assert query is not None
        sys.exit(0 if run(_drive(node, query, drive, cookie, timeout, as_json)) else 1)
    rows, errors = run(go())
    if as_json:
        values.show_json([_parked_json(name, event) for name, event in rows])
    elif rows or not errors:
        _show_parked([_parked_row(name, event) for name, event in rows])
    for error in errors:
        click.echo(f"pyglyn: {error}", err=True)
    sys.exit(1 if errors else 0)


async def _drive(node: str, query: str, which: str, cookie: str, timeout: float, as_json: bool) -> bool:
    """Drive and say what became of it; True when nothing of it is parked any more."""
    async with client_node(node, cookie, watching=True) as local:

        async def parked_now() -> list[Parked]:
            found: list[Parked] = await _ask(local, node, query, Atom("parked"), timeout)
            return found

        everything = await parked_now()
        chosen = [event for event in everything if which == "all" or event[Atom("id")] == int(which)]
        if not chosen and which != "all":
            raise EventStoreError(f"query {query!r} has no parked event {which}")
        if chosen:
            what: Term = ALL if which == "all" else int(which)
            await _ask(local, node, query, (Atom("drive"), what), timeout)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                while True:
                    everything = await parked_now()
                    if _settled(chosen, everything):
                        break
                    await asyncio.sleep(0.1)
    return _tell(chosen, everything, timeout, as_json)


def _by_aggregate(chosen: list[Parked]) -> list[list[Parked]]:
    groups: dict[Any, list[Parked]] = {}
    for event in chosen:
        groups.setdefault(event[Atom("aggregate_id")], []).append(event)
    return list(groups.values())


def _settled(chosen: list[Parked], now: list[Parked]) -> bool:
    """Whether of each aggregate all events are processed, up to one that has failed again."""
    attempts = {event[Atom("id")]: event[Atom("attempts")] for event in now}
    for group in _by_aggregate(chosen):
        first = next((event for event in group if event[Atom("id")] in attempts), None)
        if first is not None and attempts[first[Atom("id")]] == first[Atom("attempts")]:
            return False
    return True


def _tell(chosen: list[Parked], now: list[Parked], timeout: float, as_json: bool) -> bool:
    after = {event[Atom("id")]: event for event in now}
    remaining = [event for event in chosen if event[Atom("id")] in after]
    failed = [e for e in remaining if after[e[Atom("id")]][Atom("attempts")] != e[Atom("attempts")]]
    aggregates = {event[Atom("aggregate_id")] for event in failed}
    behind = [e for e in remaining if e not in failed and e[Atom("aggregate_id")] in aggregates]
    waiting = len(remaining) - len(failed) - len(behind)
    if as_json:
        again = [
            {"id": event[Atom("id")], "error": wire.text(after[event[Atom("id")]][Atom("error")])}
            for event in failed
        ]
        counts = {"driven": len(chosen) - len(remaining), "behind": len(behind), "waiting": waiting}
        values.show_json({**counts, "failed": again})
        return not remaining
    click.echo(f"{len(chosen) - len(remaining)} driven" if chosen else "nothing is parked")
    for event in failed:
        error = wire.text(after[event[Atom("id")]][Atom("error")])
        click.echo(f"{event[Atom('id')]} failed again: {_one_line(error)}")
    if behind:
        click.echo(f"{len(behind)} still parked behind what failed")
    if waiting:
        click.echo(f"{waiting} not processed within {timeout:g} s")
    return not remaining


def _show_parked(rows: list[tuple[str, ...]]) -> None:
    if not sys.stdout.isatty():
        for row in rows:
            click.echo("\t".join(row))
        return
    if not rows:
        click.echo("nothing is parked")
        return
    columns = ("query", "id", "aggregate", "#", "attempts", "parked at")
    table = tables.table(*columns, right=("id", "#", "attempts"), whole=columns)
    for *cells, _, _ in rows:
        tables.row(table, *cells)
    tables.show_with_notes(table, ((error, event) for *_, error, event in rows))


def _raw(event: Parked) -> str:
    try:
        return str(readable(event))
    except (PyglynError, RecursionError):  # JSON that is nested too deeply is shown as it came
        return str(event[Atom("raw")].decode(errors="backslashreplace"))


def _parked_json(query: str, event: Parked) -> dict[str, Any]:
    return {
        "query": query,
        "id": event[Atom("id")],
        "aggregate_id": wire.text(event[Atom("aggregate_id")]),
        "sequence": event[Atom("sequence")],
        "attempts": event[Atom("attempts")],
        "at": event[Atom("parked_at")],
        "error": wire.text(event[Atom("error")]),
        "event": _raw(event),
    }


def _parked_row(query: str, event: Parked) -> tuple[str, ...]:
    fields = (
        query,
        str(event[Atom("id")]),
        wire.text(event[Atom("aggregate_id")]),
        str(event[Atom("sequence")]),
        str(event[Atom("attempts")]),
        tables.moment(event[Atom("parked_at")]),
        wire.text(event[Atom("error")]),
        _raw(event),
    )
    return tuple(map(_one_line, fields))

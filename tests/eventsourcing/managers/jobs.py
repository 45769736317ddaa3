"""Jobs of several steps, and a manager that has the steps taken, for tests."""

from __future__ import annotations

from collections import Counter
from typing import Any

import attrs

from pyglyn import eventsourcing as es
from pyglyn.etf import Atom
from pyglyn.eventsourcing.domain.causation import value_of
from pyglyn.node import Node
from pyglyn.testing import eventually


@attrs.frozen
class Begin:
    steps: int = 0
    wait_s: float | None = None


@attrs.frozen
class Step:
    number: int


@attrs.frozen
class Close:
    pass


@attrs.frozen
class Reopen:
    pass


@attrs.frozen
class TimeOut:
    name: str


@attrs.frozen
class Note:
    text: str


Command = Begin | Step | Close | Reopen | TimeOut | Note


@attrs.frozen
class Begun:
    steps: int
    wait_s: float | None


@attrs.frozen
class Stepped:
    number: int


@attrs.frozen
class Closed:
    pass


@attrs.frozen
class Reopened:
    pass


@attrs.frozen
class TimedOut:
    name: str


@attrs.frozen
class Noted:
    text: str


Event = Begun | Stepped | Closed | Reopened | TimedOut | Noted


@attrs.frozen
class Job:
    is_closed: bool = False


def handle(job: Job, command: Command) -> list[Event]:
    match command:
        case Begin(steps, wait_s):
            return [Begun(steps, wait_s)]
        case Step() if job.is_closed:
            raise es.DomainError("closed")
        case Step(number):
            return [Stepped(number)]
        case Close():
            return [Closed()]
        case Reopen():
            return [Reopened()]
        case TimeOut(name):
            return [TimedOut(name)]
        case Note(text):
            return [Noted(text)]


def apply(job: Job, event: Event) -> Job:
    return Job(isinstance(event, Closed)) if isinstance(event, Closed | Reopened) else job


@attrs.frozen
class Progress:
    """The state of the manager's instances."""

    steps: int = 0
    taken: int = 0


def follow(progress: Progress, message: Event | es.Expired | es.Refused) -> list[es.Action]:
    match message:
        case Begun(steps, wait_s):
            actions: list[es.Action] = [es.Dispatch("jobs", Step(n)) for n in range(1, steps + 1)]
            return actions if wait_s is None else [*actions, es.Deadline("late", after=wait_s)]
        case Closed():
            return [es.Cancel("late"), es.End()]
        case es.Expired(name):
            return [es.Dispatch("jobs", TimeOut(f"{name} after {progress.taken}"))]
        case es.Refused(es.Dispatch("jobs", Step(number), to), error):
            return [es.Dispatch("jobs", Note(f"{number} of {to}: {error}"))]
    return []


def note(progress: Progress, message: Event | es.Expired | es.Refused) -> Progress:
    match message:
        case Begun(steps, _):
            return Progress(steps)
        case Stepped():
            return attrs.evolve(progress, taken=progress.taken + 1)
    return progress


QUICK = es.FailurePolicy(retries=2, first=0.001, longest=0.002)
DESTINATION = es.Destination(commands=Command)


def open_jobs(url: str) -> es.EventStore[Any, Any]:
    return es.open_store(url, events=Event, state=Job, aggregate_type="job")


def jobs_service(store: es.EventStore[Any, Any], **options: Any) -> es.ServiceSpec[Job, Command, Event]:
    return es.service("jobs", store, handle=handle, apply=apply, empty_state=Job(), **options)


def jobs_manager(store: es.EventStore[Any, Any], **options: Any) -> es.Manager[Progress]:
    values: dict[str, Any] = {
        "handle": follow,
        "apply": note,
        "empty_state": Progress(),
        "starts": (Begun,),
        "services": {"jobs": DESTINATION},
        "policy": QUICK,
    }
    return es.manager("steps", store=store, **(values | options))


async def status(node: Node, name: str = "steps") -> es.QueryStatus:
    return es.QueryStatus.from_term(await node.call(name, Atom("status")))


async def events_of(store: es.EventStore[Any, Any], job: str) -> list[Event]:
    return [envelope.payload for envelope in await store.load_events(job)]


async def become(
    store: es.EventStore[Any, Any], job: str, expected: list[Event], timeout: float = 20
) -> None:
    """Wait until a job has exactly these events."""

    async def equal() -> bool:
        assert await events_of(store, job) == expected
        return True

    await eventually(equal, timeout=timeout)


async def at_rest(store: es.EventStore[Any, Any]) -> bool:
    """Whether the manager has handled all events, and has nothing to send and nothing due."""
    before = await store.checkpoint("steps")
    outlook = await store.outlook("steps")
    is_done = before == await store.checkpoint("steps") == await store.last_position()
    has_due = outlook.due_in is not None and outlook.due_in <= 0
    return is_done and not (outlook.waiting or outlook.refused or has_due)


async def rests(store: es.EventStore[Any, Any], timeout: float = 20) -> None:
    """Wait until the manager is at rest."""
    await eventually(lambda: at_rest(store), timeout=timeout)


async def parked(node: Node, count: int, name: str = "steps") -> list[dict[Any, Any]]:
    """Return what is parked, as maps, once it is so many."""

    async def found() -> list[Any]:
        events: list[Any] = await node.call(name, Atom("parked"))
        assert len(events) == count
        return [events]

    return (await eventually(found, timeout=20))[0]


# --- what is left of a run with faults ----------------------------------------------------------------------

FAR_AWAY = 36_000.0
"""A deadline that no test waits for."""


def steady(progress: Any, message: Any) -> list[es.Action]:
    """As `follow`, but an instance does not end, so that a refusal finds it."""
    actions = [each for each in follow(progress, message) if not isinstance(each, es.End)]
    if isinstance(message, Begun) and message.wait_s == FAR_AWAY:
        actions.append(es.Schedule("never", es.Dispatch("jobs", Close()), after=FAR_AWAY))
    return [*actions, es.Cancel("never")] if isinstance(message, Closed) else actions


async def check(store: es.EventStore[Any, Any], begun: dict[str, Begun]) -> None:
    """Hold the events against what each job was to bring about, by a manager that is `steady`."""
    ids: Counter[str] = Counter()
    for id, begin in begun.items():
        envelopes = await store.load_events(id)
        ids.update(filter(None, (value_of(each.metadata, "command_id") for each in envelopes)))
        _check_job(id, begin, [each.payload for each in envelopes])
        timers = await store.timers("steps", instance=id)
        waits = begin.wait_s == FAR_AWAY and all(each.payload != Closed() for each in envelopes)
        assert [each.name for each in timers] == (["late", "never"] if waits else [])
    assert set(ids.values()) <= {1}, "a command was carried out twice"
    assert await store.issued_commands("steps") == []
    assert await store.count_parked("steps") == 0


def _check_job(id: str, begun: Begun, events: list[Event]) -> None:
    stepped = [each.number for each in events if isinstance(each, Stepped)]
    noted = [each.text for each in events if isinstance(each, Noted)]
    refused = [number for number in range(1, begun.steps + 1) if number not in stepped]
    assert stepped == sorted(stepped), (id, events)
    assert len(stepped) + len(refused) == begun.steps, (id, events)
    assert noted == [f"{number} of {id}: closed" for number in refused], (id, events)
    expired = sum(isinstance(each, TimedOut) for each in events)
    if begun.wait_s != 0.0:
        assert expired == 0, (id, events)
    elif Closed() not in events:
        assert expired == 1, (id, events)
    else:
        assert expired <= 1, (id, events)

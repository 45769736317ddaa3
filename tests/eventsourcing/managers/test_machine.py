"""A manager's state machine: deadlines and refusals between batches of events."""

from __future__ import annotations

from typing import Any

import attrs

from pyglyn import eventsourcing as es
from pyglyn.eventsourcing.managers.machine import Attend, ManagerMachine, Survey
from pyglyn.eventsourcing.managers.rules import Rules
from pyglyn.eventsourcing.queries.durable_state import (
    PAUSED,
    STOPPED,
    STUCK,
    Apply,
    BatchLimits,
    Effect,
    Load,
    Read,
    Sleep,
    Wait,
)
from pyglyn.eventsourcing.stores.managing import Timer


def correlate(envelope: es.EventEnvelope[Any]) -> str | None:
    if envelope.payload == "bad":
        raise ValueError("bad")
    instance: str | None = envelope.payload
    return instance


RULES: Rules[None] = Rules(handle=lambda state, message: [], empty_state=None, correlate=correlate)


def timer(name: str, instance: str = "i") -> Timer:
    return Timer(manager="m", instance=instance, name=name, due_at=1.0, id=ord(name))


def event(position: int, payload: str | None = "i") -> es.RecordedEvent[Any]:
    envelope = es.MemoryStoreEventEnvelop("a", position, payload)
    return es.RecordedEvent(position=position, aggregate_id="a", sequence=position, envelope=envelope)


def loaded(
    *, checkpoint: es.Checkpoint | None = None, blocked: tuple[str, ...] = (), **options: Any
) -> tuple[ManagerMachine, Effect]:
    machine = ManagerMachine("m", RULES, limits=BatchLimits(size=3), **options)
    assert isinstance(machine.start(), Load)
    return machine, machine.loaded(0.0, checkpoint or es.Checkpoint("m"), blocked=blocked)


def quiet() -> ManagerMachine:
    """A machine that waits for events, and knows of no timer."""
    machine, effect = loaded()
    assert isinstance(effect, Survey)
    effect = machine.surveyed(0.0, (), due_in=None, barrier=0)
    assert effect == Read(0, 3)
    assert isinstance(machine.read(0.0, []), Wait)
    return machine


def test_it_looks_for_what_is_due_before_it_reads_and_waits_no_longer_than_until_the_next_timer() -> None:
    machine, effect = loaded()
    assert isinstance(effect, Survey)
    assert machine.surveyed(0.0, (), due_in=2.5, barrier=0) == Read(0, 3)
    assert machine.read(1.0, []) == Wait(0, 1.5)
    assert isinstance(machine.woken(2.5), Survey)


def test_less_than_was_asked_for_is_no_reason_for_a_deadline_to_come_before_what_is_behind_it() -> None:
    machine, _ = loaded()
    assert machine.surveyed(0.0, [timer("d")], due_in=None, barrier=4) == Read(0, 3)
    assert isinstance(machine.read(0.0, [event(1), event(2)]), Apply)
    assert machine.applied(0.0) == Read(2, 3)
    assert isinstance(machine.read(0.0, []), Attend), "what is at 4 is none of its business"


def test_a_deadline_comes_after_what_was_committed_before_it_was_due() -> None:
    machine, _ = loaded()
    assert machine.surveyed(0.0, [timer("d")], due_in=None, barrier=4) == Read(0, 3)
    effect = machine.read(0.0, [event(n) for n in (1, 2, 3)])
    assert isinstance(effect, Apply)
    assert machine.applied(0.0) == Read(3, 3)
    effect = machine.read(0.0, [event(n) for n in (4, 5, 6)])
    assert isinstance(effect, Apply)
    effect = machine.applied(0.0)  # there may be more events, but those are younger
    assert isinstance(effect, Attend)
    assert effect.item == timer("d")
    assert effect.after == effect.before.next()


def test_events_that_came_while_it_waited_for_the_time_are_read_first() -> None:
    machine = quiet()
    machine.survey()
    assert isinstance(machine.woken(1.0), Survey)
    assert machine.surveyed(1.0, [timer("d")], due_in=None, barrier=2) == Read(0, 3)
    assert isinstance(machine.read(1.0, []), Attend)  # those up to there were of another type


def test_one_item_follows_the_other_and_then_it_looks_again() -> None:
    machine, _ = loaded()
    effect = machine.surveyed(0.0, [timer("d"), timer("e")], due_in=9.0, barrier=0)
    assert isinstance(effect, Attend)
    assert effect.item == timer("d")
    effect = machine.attended(0.0)
    assert isinstance(effect, Attend)
    assert effect.item == timer("e")
    assert effect.before.version == 1
    assert isinstance(machine.attended(0.0), Survey)


def test_an_item_that_fails_is_tried_again_and_then_parked_in_its_place() -> None:
    machine, _ = loaded(policy=es.FailurePolicy(retries=1, first=1.0))
    effect = machine.surveyed(0.0, [timer("d")], due_in=None, barrier=0)
    assert isinstance(effect, Attend)
    assert machine.failed(0.0, None, "why") == Sleep(1.0)
    assert machine.state(0.0) == STUCK
    machine.survey()
    assert isinstance(machine.woken(1.0), Attend)  # not another survey, which would forget the attempts
    parking = machine.failed(1.0, None, "why")
    assert isinstance(parking, Attend)
    assert (parking.park, parking.attempts, parking.before) == ("why", 2, effect.before)
    assert isinstance(machine.failed(1.0, None, "no connection"), Sleep)


def test_what_is_refused_while_it_looks_is_looked_for_again() -> None:
    """The answer may be from before."""
    machine, effect = loaded()
    assert isinstance(effect, Survey)
    machine.survey()
    assert isinstance(machine.surveyed(0.0, (), due_in=None, barrier=0), Survey)
    assert machine.surveyed(0.0, (), due_in=None, barrier=0) == Read(0, 3)


def test_a_policy_that_stops_has_it_stand_still_until_it_is_resumed() -> None:
    machine, _ = loaded(policy=es.FailurePolicy(retries=0, then="stop"))
    machine.surveyed(0.0, [timer("d")], due_in=None, barrier=0)
    assert isinstance(machine.failed(0.0, None, "why"), Sleep)
    assert (machine.state(0.0), machine.may_send) == (STOPPED, False)
    machine.resume()
    assert isinstance(machine.woken(0.0), Load)
    assert machine.may_send


def test_while_it_is_paused_nothing_is_attended_to_and_nothing_is_sent() -> None:
    machine, effect = loaded(checkpoint=es.Checkpoint("m", paused=True, version=1))
    assert isinstance(effect, Sleep)
    assert (machine.state(0.0), machine.may_send) == (PAUSED, False)
    machine.resume()
    assert isinstance(machine.woken(0.0), Survey)


def test_a_conflict_has_it_look_for_everything_anew() -> None:
    machine, _ = loaded()
    machine.surveyed(0.0, [timer("d")], due_in=None, barrier=0)
    assert isinstance(machine.conflict(0.0), Load)
    effect = machine.loaded(0.0, es.Checkpoint("m", 7, version=3), blocked=())
    assert isinstance(effect, Survey)


def test_events_wait_for_the_parked_ones_of_their_instance_whichever_aggregate_they_are_of() -> None:
    machine, _ = loaded(blocked=("i",))
    assert machine.surveyed(0.0, (), due_in=None, barrier=0) == Read(0, 3)
    effect = machine.read(0.0, [event(5, "j"), event(6, "i"), event(7, None)])
    assert isinstance(effect, Apply)
    assert [each.position for each in effect.events] == [5]
    effect = machine.applied(0.0)
    assert isinstance(effect, Apply)
    assert [(each.aggregate_id, each.sequence) for each in effect.park] == [("i", 6)]
    effect = machine.applied(0.0)
    assert isinstance(effect, Apply)
    assert [each.position for each in effect.events] == [7]


def test_an_event_whose_instance_cannot_be_told_is_parked_under_its_aggregate() -> None:
    machine, _ = loaded(policy=es.FailurePolicy(retries=0))
    machine.surveyed(0.0, (), due_in=None, barrier=0)
    assert isinstance(machine.read(0.0, [event(5, "bad")]), Apply)
    effect = machine.failed(0.0, 0, "ValueError: bad")
    assert isinstance(effect, Apply)
    assert [(each.aggregate_id, each.sequence) for each in effect.park] == [("a", 5)]
    undecodable = attrs.evolve(event(6), envelope=None, error=es.EventDecodeError(["no JSON"], payload=""))
    assert machine._instance_of(undecodable) == "a"


def test_what_waited_for_a_parked_event_is_looked_for_once_it_is_driven() -> None:
    machine = quiet()
    parked = es.ParkedEvent(query="m", aggregate_id="i", sequence=1, raw=b"", error="why", position=1, id=1)
    machine.drive([parked])
    machine.woken(0.0)
    assert isinstance(machine.driven(0.0, remaining=0), Survey)

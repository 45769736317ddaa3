"""The rules of process managers: what a message leads to."""

from __future__ import annotations

import datetime
from typing import Any

import attrs
import pytest

from pyglyn import eventsourcing as es
from pyglyn.eventsourcing.managers.rules import Reaction, Rules, command_id, due_at


@attrs.frozen
class Placed:
    order: str


@attrs.frozen
class Paid:
    order: str


@attrs.define
class Order:
    """A state that is changed in place."""

    seen: list[str] = attrs.Factory(list)


def handle(order: Order, message: object) -> list[es.Action]:
    order.seen.append("by handle")  # a copy of its own
    match message:
        case Placed():
            return [es.Dispatch("payments", "charge"), es.Deadline("payment", after=60.0)]
        case es.Expired():
            return [es.Dispatch("orders", "cancel"), es.End()]
    return []


def apply(order: Order, message: object) -> Order:
    order.seen.append(type(message).__name__)
    return order


RULES: Rules[Order] = Rules(handle=handle, apply=apply, empty_state=Order())


def envelope(payload: object, id: str = "a") -> es.EventEnvelope[Any]:
    return es.MemoryStoreEventEnvelop(id, 1, payload)


def test_a_message_leads_to_actions_and_a_state_and_changes_nobody_elses() -> None:
    before = Order(["Placed"])
    reaction = RULES.react(before, Paid("o"))
    assert reaction == Reaction(Order(["Placed", "Paid"]), ())
    assert before == Order(["Placed"])
    assert RULES.react(RULES.empty_state, Placed("o")).state == Order(["Placed"])
    assert RULES.empty_state == Order()


def test_an_instance_that_ends_has_no_state() -> None:
    reaction = RULES.react(Order(), es.Expired("payment"))
    assert reaction == Reaction(None, (es.Dispatch("orders", "cancel"), es.End()), ended=True)


def test_a_manager_without_apply_keeps_the_state_that_it_has() -> None:
    rules: Rules[None] = Rules(handle=lambda state, message: (), empty_state=None)
    assert rules.react(None, Placed("o")) == Reaction(None, ())


def test_an_event_concerns_its_aggregate_unless_the_manager_says_otherwise() -> None:
    assert RULES.instance_of(envelope(Placed("o"))) == "a"
    by_order: Rules[Any] = attrs.evolve(RULES, correlate=lambda each: getattr(each.payload, "order", None))
    assert by_order.instance_of(envelope(Placed("o"))) == "o"
    assert by_order.instance_of(envelope("another")) is None
    wrong: Rules[Any] = attrs.evolve(RULES, correlate=lambda each: 7)
    with pytest.raises(es.InvalidHandlerResult, match="correlate returned 7"):
        wrong.instance_of(envelope(Placed("o")))


def test_only_some_events_begin_an_instance_if_the_manager_says_so() -> None:
    assert RULES.begins(Paid("o"))
    some: Rules[Any] = attrs.evolve(RULES, starts=(Placed,))
    assert some.begins(Placed("o"))
    assert not some.begins(Paid("o"))


async def _coroutine(state: object, message: object) -> list[es.Action]:
    return []


MIDNIGHT = datetime.datetime(2026, 1, 1)


@pytest.mark.parametrize(
    ("returned", "says"),
    [
        (None, "returned None; return a list of actions"),
        (es.End(), "returned a End"),
        ([None], "which is no action"),
        (["charge"], "which is no action"),
        ([es.Deadline("d")], "give either after or at"),
        ([es.Deadline("d", after=1, at=MIDNIGHT.astimezone())], "give either after or at"),
        ([es.Deadline("d", at=MIDNIGHT)], "no time zone"),
        ([es.Schedule("d", es.End(), after=1)], "what is scheduled is a Dispatch"),  # type: ignore[arg-type]
    ],
)
def test_what_is_no_list_of_actions_is_refused(returned: Any, says: str) -> None:
    rules: Rules[None] = Rules(handle=lambda state, message: returned, empty_state=None)
    with pytest.raises(es.InvalidHandlerResult, match=says):
        rules.react(None, Placed("o"))


def test_a_coroutine_function_is_refused() -> None:
    rules: Rules[Any] = Rules(handle=_coroutine, empty_state=None)  # type: ignore[arg-type]
    with pytest.raises(es.InvalidHandlerResult, match="returned a coroutine"):
        rules.react(None, Placed("o"))


def test_a_deadline_is_due_some_time_after_its_cause_or_at_a_time() -> None:
    assert due_at(es.Deadline("d", after=1.5), 100.0) == 101.5
    assert due_at(es.Deadline("d", after=datetime.timedelta(days=1)), 100.0) == 86500.0
    at = datetime.datetime(1970, 1, 1, 1, tzinfo=datetime.UTC)
    assert due_at(es.Schedule("d", es.Dispatch("s", 1), at=at), 100.0) == 3600.0


def test_a_command_has_one_id_and_no_other_has_it() -> None:
    ids = {command_id("m", cause, n) for cause in ("a", "b", "\ud800") for n in range(3)}
    assert len(ids) == 9
    assert command_id("m", "a", 0) in ids
    assert command_id("n", "a", 0) not in ids

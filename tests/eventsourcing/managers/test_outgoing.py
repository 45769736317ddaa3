"""Which command is sent next."""

from __future__ import annotations

import random
from typing import Any

import attrs

from pyglyn.eventsourcing.managers.outgoing import Outgoing
from pyglyn.eventsourcing.stores.managing import PARKED, REFUSED, WAITING, IssuedCommand


def command(id: int, instance: str, service: str = "s", **fields: Any) -> IssuedCommand:
    return IssuedCommand(
        manager="m",
        instance=instance,
        command_id=str(id),
        service=service,
        aggregate_id="a",
        command=b"",
        id=id,
        **fields,
    )


def filled(*instances: str) -> Outgoing:
    outgoing = Outgoing(64)
    outgoing.put(command(n, instance) for n, instance in enumerate(instances, 1))
    return outgoing


def taken(outgoing: Outgoing, now: float = 0.0) -> list[IssuedCommand]:
    return list(iter(lambda: outgoing.take(now), None))


def ids(commands: list[IssuedCommand]) -> list[int]:
    return [each.id for each in commands]


def test_instances_go_side_by_side_and_each_in_order() -> None:
    outgoing = filled("a", "a", "b", "a")
    first, other = taken(outgoing)
    assert ids([first, other]) == [1, 3]
    assert (len(outgoing), outgoing.last) == (4, 4)
    outgoing.done(other)
    assert taken(outgoing) == []
    outgoing.done(first)
    assert ids(taken(outgoing)) == [2]
    assert len(outgoing) == 2


def test_a_command_that_is_tried_again_keeps_the_others_of_its_instance_waiting() -> None:
    outgoing = filled("a", "a", "b")
    first, _ = taken(outgoing)
    assert outgoing.failed(first) == 1
    outgoing.again(first, 5.0)
    assert outgoing.wake_at() == 5.0
    assert taken(outgoing, 4.9) == []
    assert taken(outgoing, 5.0) == [first]
    assert outgoing.failed(first) == 2
    outgoing.done(first)
    [second] = taken(outgoing)
    assert second.id == 2
    assert outgoing.failed(second) == 1
    assert outgoing.wake_at() is None


def test_a_service_with_all_that_it_may_have_under_way_holds_up_no_other() -> None:
    outgoing = Outgoing(2)
    outgoing.put(command(n, f"a{n}", "slow") for n in range(1, 6))
    outgoing.put([command(6, "b", "quick"), command(7, "a1", "quick")])
    first, quick, second = taken(outgoing)
    assert ids([first, quick, second]) == [1, 6, 2]  # by turns
    outgoing.done(quick)
    assert taken(outgoing) == []
    assert outgoing.wake_at() is None  # an end is what it waits for
    outgoing.again(second, 5.0)
    outgoing.done(first)
    assert sorted(ids(taken(outgoing))) == [3, 4, 7]
    outgoing.forget()
    outgoing.put(command(n, f"a{n}", "slow") for n in (3, 4, 5))
    assert taken(outgoing, 9.0) == []


def test_a_command_that_is_held_keeps_its_instance_until_it_is_released() -> None:
    outgoing = filled("a", "a", "b")
    first, other = taken(outgoing)
    outgoing.hold(first)
    outgoing.done(other)
    outgoing.put([command(4, "a")])
    assert taken(outgoing) == []
    outgoing.release(other)  # not the one that holds it
    outgoing.release(command(2, "a"))
    assert taken(outgoing) == []
    outgoing.release(attrs.evolve(first, status=REFUSED))
    assert ids(taken(outgoing)) == [2]


def test_a_command_that_was_held_and_waits_again_is_read_anew() -> None:
    outgoing = filled("a", "a")
    [first] = taken(outgoing)
    outgoing.hold(first)
    outgoing.forget()
    outgoing.put([command(1, "a"), command(2, "a")])
    assert ids(taken(outgoing)) == [1]


def test_what_was_refused_or_parked_before_holds_its_instance() -> None:
    outgoing = Outgoing(64)
    outgoing.put([command(1, "a"), command(2, "a", status=REFUSED), command(3, "a")])
    outgoing.put([command(4, "b", status=PARKED), command(5, "b")])
    [first] = taken(outgoing)
    outgoing.done(first)
    assert taken(outgoing) == []
    outgoing.release(command(2, "a"))
    assert ids(taken(outgoing)) == [3]
    assert len(outgoing) == 1  # however many are parked, nothing of them is kept
    outgoing.forget()
    outgoing.put([command(4, "b"), command(5, "b")])
    assert ids(taken(outgoing)) == [4]


def test_what_is_forgotten_is_read_again_but_for_what_is_under_way() -> None:
    outgoing = filled("a", "a", "b")
    first, other = taken(outgoing)
    outgoing.done(other)
    outgoing.forget()
    assert (len(outgoing), outgoing.last) == (1, 0)
    outgoing.put([command(1, "a"), command(2, "a"), command(4, "b")])
    assert ids(taken(outgoing)) == [4]
    outgoing.done(first)
    assert ids(taken(outgoing)) == [2]


def test_what_is_beyond_the_bound_of_a_service_holds_up_no_other_and_comes_in_order() -> None:
    outgoing = Outgoing(64, 4)
    rows = [command(n, f"a{n}", "hung") for n in range(1, 10)]
    rows += [command(10, "a9", "quick"), command(11, "a1", "quick"), command(12, "b", "quick")]
    outgoing.put(rows)
    assert (len(outgoing), outgoing.last) == (5, 12)
    found = taken(outgoing)
    assert sorted(ids(found)) == [1, 2, 3, 4, 12]
    done = [each for each in found if each.id in (1, 12)]
    for each in done:
        outgoing.done(each)
    assert not outgoing.has_room_again()
    outgoing.put([command(13, "a1", "quick"), command(14, "c", "quick")])
    assert ids(taken(outgoing)) == [14]  # 13 comes behind 11
    outgoing.done(next(each for each in found if each.id == 2))
    assert outgoing.has_room_again()
    assert not outgoing.has_room_again()
    outgoing.put([*rows[2:11], command(13, "a1", "quick"), command(14, "c", "quick")])
    assert sorted(ids(taken(outgoing))) == [5, 6, 11]


def test_whatever_happens_each_instance_is_in_order_and_nothing_is_left() -> None:
    for seed in range(200):
        chance = random.Random(seed)
        outgoing, now = Outgoing(64, chance.choice([2, 5, 100])), 0.0
        rows = [command(n, chance.choice("abc"), chance.choice("st")) for n in range(1, 30)]
        stored = {each.id: each for each in rows}
        finished: list[IssuedCommand] = []
        under_way: list[IssuedCommand] = []
        held: list[IssuedCommand] = []
        while stored:
            now += 1
            outgoing.has_room_again()
            match chance.randrange(8):
                case 0:
                    found = [each for each in stored.values() if each.id > outgoing.last]
                    outgoing.put(found[: chance.randrange(5)])
                case 1 if under_way:
                    chance.choice([outgoing.hold, outgoing.park])(each := under_way.pop())
                    held.append(each)
                    stored[each.id] = attrs.evolve(each, status=PARKED)
                case 2 if held:
                    each = held.pop(chance.randrange(len(held)))
                    stored[each.id] = attrs.evolve(each, status=WAITING)
                    outgoing.forget()
                case 3 if under_way:
                    outgoing.again(under_way.pop(), now + chance.randrange(3))
                case 4 if chance.random() < 0.2:
                    outgoing.forget()
                case 5 if under_way:
                    each = under_way.pop(chance.randrange(len(under_way)))
                    finished.append(stored.pop(each.id))
                    outgoing.done(each)
                case _:
                    each_or_none = outgoing.take(now)
                    if each_or_none is not None:
                        assert each_or_none.instance not in {each.instance for each in under_way}
                        under_way.append(each_or_none)
        for instance in "abc":
            in_order = [each.id for each in finished if each.instance == instance]
            assert in_order == [each.id for each in rows if each.instance == instance], seed
        assert len(outgoing) == 0

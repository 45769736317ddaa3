"""The durable query's state machine: its moves one by one."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from pyglyn import eventsourcing as es
from pyglyn.eventsourcing.queries.durable_state import (
    STANDBY_S,
    Apply,
    BatchLimits,
    Drive,
    Load,
    Projection,
    Read,
    Reset,
    Sleep,
    Wait,
    mark,
)
from pyglyn.eventsourcing.queries.failure import FailurePolicy
from pyglyn.eventsourcing.stores.store import Replay


def event(position: int, aggregate_id: str = "a", *, broken: bool = False) -> es.RecordedEvent[Any]:
    error = es.EventDecodeError(["no JSON"], payload="{", aggregate_id=aggregate_id, sequence=position)
    return es.RecordedEvent(
        position=position,
        aggregate_id=aggregate_id,
        sequence=position,
        envelope=None if broken else es.MemoryStoreEventEnvelop(aggregate_id, position, position),
        error=error if broken else None,
        raw="{" if broken else str(position),
    )


def at(position: int = 0, **fields: Any) -> es.Checkpoint:
    return es.Checkpoint("q", position, **fields)


def loaded(position: int = 0, *, blocked: tuple[str, ...] = (), **options: Any) -> tuple[Projection, Any]:
    projection = Projection("q", **options)
    assert projection.start() == Load()
    return projection, projection.loaded(0.0, at(position), blocked=blocked)


def positions(effect: Any) -> tuple[int, ...]:
    assert isinstance(effect, Apply)
    return tuple(event.position for event in effect.events)


def test_it_catches_up_then_lives_then_is_idle() -> None:
    projection, effect = loaded(5, limits=BatchLimits(size=2, idle_after=10.0))
    assert effect == Read(5, 2)
    assert projection.state(0.0) == "catching up"
    effect = projection.read(0.0, [event(6), event(7)])
    assert effect == Apply(
        events=(event(6), event(7)), park=(), before=at(5), after=at(7, version=1, mark=mark(event(7)))
    )
    assert projection.applied(0.0) == Read(7, 2)
    assert positions(projection.read(0.0, [event(9)])) == (9,)
    assert projection.state(0.0) == "catching up", "what was read is not done"
    assert projection.applied(1.0) == Wait(9, 4.0)
    assert (projection.position, projection.processed) == (9, 3)
    assert (projection.state(10.9), projection.state(11.0)) == ("live", "idle")
    assert projection.woken(4.0) == Read(9, 2)
    assert projection.read(4.0, []) == Wait(9, 1.0)
    # From time to time it looks whether anybody else has changed the checkpoint.
    assert projection.woken(20.0) == Load()
    assert projection.loaded(20.0, projection.checkpoint, blocked=()) == Read(9, 2)
    assert projection.state(20.0) == "idle"
    assert positions(projection.read(21.0, [event(10)])) == (10,)
    assert projection.state(40.0) == "live", "it is busy with that one"
    assert projection.applied(50.0) == Wait(10, 0.0)
    assert (projection.state(59.9), projection.state(60.0)) == ("live", "idle")


def test_a_batch_whose_time_is_over_is_cut() -> None:
    projection, _ = loaded(0, limits=BatchLimits(size=10))
    assert positions(projection.read(0.0, [event(n) for n in range(1, 6)])) == (1, 2, 3, 4, 5)
    cut = projection.cut(2)
    assert positions(cut) == (1, 2)
    assert cut.after == at(2, version=1, mark=mark(event(2)))
    assert positions(projection.applied(0.0)) == (3, 4, 5)
    assert positions(projection.failed(0.0, 2, "boom")) == (3, 4)
    projection.cut(1)
    assert positions(projection.applied(0.0)) == (4,), "the failing event stays alone"
    assert positions(projection.applied(0.0)) == (5,)


def test_while_another_instance_has_the_effects_it_stands_by() -> None:
    projection, _ = loaded(0)
    projection.read(0.0, [event(1), event(2)])
    assert projection.standby(0.0) == Sleep(STANDBY_S)
    assert projection.state(0.0) == "standby"
    assert projection.woken(STANDBY_S) == Load()
    assert projection.loaded(1.0, at(1, version=1), blocked=()) == Read(1, 500)
    assert positions(projection.read(1.0, [event(2)])) == (2,)
    assert projection.standby(1.0) == Sleep(STANDBY_S)
    projection.woken(2.0)
    projection.loaded(2.0, at(2, version=2), blocked=())
    assert isinstance(projection.read(2.0, []), Wait)
    assert projection.state(2.0) == "live"


def test_a_batch_that_is_not_full_lingers() -> None:
    projection, _ = loaded(0, limits=BatchLimits(size=3, linger=1.0))
    assert projection.read(0.0, [event(1)]) == Wait(1, 1.0)
    assert projection.woken(0.4) == Read(1, 3)
    assert projection.read(0.4, [event(2)]) == Wait(2, pytest.approx(0.6))
    assert positions(projection.woken(1.0)) == (1, 2)
    assert projection.applied(1.0) == Read(2, 3)
    assert positions(projection.read(2.0, [event(3), event(4), event(5)])) == (3, 4, 5)


def test_a_failing_batch_is_split_and_the_failing_event_tried_again_then_parked() -> None:
    policy = FailurePolicy(retries=2, first=1.0, factor=2.0)
    projection, _ = loaded(0, policy=policy, limits=BatchLimits(size=10))
    assert positions(projection.read(0.0, [event(n, "abcd"[n % 4]) for n in range(1, 7)])) == (
        1,
        2,
        3,
        4,
        5,
        6,
    )
    assert positions(projection.failed(0.0, 2, "boom")) == (1, 2)
    assert positions(projection.applied(0.0)) == (3,)
    assert projection.failed(0.0, 0, "boom") == Sleep(1.0)
    assert projection.state(0.0) == "stuck"
    assert projection.woken(0.5) == Sleep(0.5)
    assert positions(projection.woken(1.0)) == (3,)
    assert projection.failed(1.0, 0, "boom") == Sleep(2.0)
    assert positions(projection.woken(3.0)) == (3,)
    parking = projection.failed(3.0, 0, "boom")
    assert isinstance(parking, Apply)
    assert (parking.events, parking.before.position, parking.after.position) == ((), 2, 3)
    parked = parking.park[0]
    assert (parked.aggregate_id, parked.sequence, parked.error, parked.attempts) == ("d", 3, "boom", 3)
    assert (parked.raw, parked.position, parked.query) == (b"3", 3, "q")
    assert positions(projection.applied(3.0)) == (4, 5, 6)
    assert projection.state(3.0) == "catching up"
    assert projection.blocked == {"d"}
    projection.applied(3.0)
    projection.woken(4.0)
    assert positions(projection.read(4.0, [event(8, "a"), event(7, "d")])) == (8,)
    later = projection.applied(4.0)
    assert isinstance(later, Apply)
    assert (later.events, later.park[0].sequence, later.park[0].attempts) == ((), 7, 0)
    assert "earlier event" in later.park[0].error


def test_an_event_that_succeeds_at_last_is_not_parked() -> None:
    projection, _ = loaded(0, policy=FailurePolicy(retries=None, first=1.0, longest=4.0))
    projection.read(0.0, [event(1)])
    waits = []
    for _ in range(5):
        sleep = projection.failed(0.0, 0, "boom")
        assert isinstance(sleep, Sleep)
        waits.append(sleep.timeout)
        assert positions(projection.woken(100.0)) == (1,)
    assert waits == [1.0, 2.0, 4.0, 4.0, 4.0]
    assert projection.applied(0.0) == Wait(1, 5.0)
    assert projection.error == ""


def test_with_the_policy_stop_it_stands_still_until_resumed() -> None:
    projection, _ = loaded(0, policy=FailurePolicy(retries=0, then="stop"))
    assert positions(projection.read(0.0, [event(1)])) == (1,)
    assert projection.failed(0.0, 0, "boom") == Sleep(5.0)
    assert (projection.state(0.0), projection.error) == ("stopped", "boom")
    assert projection.woken(1.0) == Sleep(4.0)
    assert projection.woken(5.0) == Load()
    assert projection.loaded(5.0, at(), blocked=()) == Sleep(5.0)
    projection.resume()
    assert projection.woken(6.0) == Load()  # the event may have been mended
    assert projection.loaded(6.0, at(), blocked=()) == Read(0, 500)
    assert positions(projection.read(6.0, [event(1)])) == (1,)
    projection.applied(6.0)
    projection.woken(7.0)
    assert projection.read(7.0, [event(2, broken=True)]) == Sleep(4.0)
    assert "does not decode" in projection.error
    # Whatever somebody else does to the query is a reason to try again.
    assert projection.woken(11.0) == Load()
    moved = projection.checkpoint.next()
    assert projection.loaded(11.0, moved, blocked=()) == Read(1, 500)


def test_an_event_that_does_not_decode_is_parked_at_once_and_blocks_its_aggregate() -> None:
    projection, _ = loaded(0)
    assert positions(
        projection.read(0.0, [event(1, "b"), event(2, broken=True), event(3), event(4, "b")])
    ) == (1,)
    for sequence in (2, 3):
        parking = projection.applied(0.0)
        assert isinstance(parking, Apply)
        assert [e.sequence for e in parking.park] == [sequence]
    assert parking.park[0].attempts == 0
    assert positions(projection.applied(0.0)) == (4,)


def test_an_unavailable_store_is_tried_for_ever_and_everything_loaded_anew() -> None:
    projection, _ = loaded(0)
    projection.read(0.0, [event(1)])
    sleep = projection.unavailable(0.0, "gone")
    for attempt in range(100):
        assert isinstance(sleep, Sleep)
        assert sleep.timeout is not None
        assert 0 < sleep.timeout <= 5.0
        assert projection.state(0.0) == "stuck"
        assert projection.woken(attempt * 10.0 + 10) == Load()
        sleep = projection.unavailable(attempt * 10.0 + 10, "gone")
    assert projection.woken(9999.0) == Load()
    # The commit that went unanswered had happened.
    assert projection.loaded(9999.0, at(1, version=1), blocked=()) == Read(1, 500)
    assert projection.state(9999.0) == "stuck"
    projection.read(9999.0, [])
    assert (projection.state(9999.0), projection.error) == ("idle", "")


def test_a_store_that_can_be_read_but_not_written_is_tried_less_and_less_often() -> None:
    projection = Projection("q")
    effect, now, pauses = projection.start(), 0.0, []
    for _ in range(10):
        assert effect == Load()
        projection.loaded(now, at(), blocked=())
        projection.read(now, [event(1)])
        sleep = projection.unavailable(now, "the disk is full")
        assert isinstance(sleep, Sleep)
        assert sleep.timeout is not None
        pauses.append(sleep.timeout)
        now += sleep.timeout
        effect = projection.woken(now)
    assert pauses == sorted(pauses)
    assert pauses[-1] == 5.0


def test_a_conflict_loads_the_checkpoint_anew() -> None:
    projection, _ = loaded(0)
    projection.read(0.0, [event(1), event(2)])
    assert projection.conflict(0.0) == Load()
    assert projection.loaded(0.0, at(2, version=1), blocked=()) == Read(2, 500)
    assert projection.position == 2


def test_pause_and_resume() -> None:
    projection, _ = loaded(0)
    assert positions(projection.read(0.0, [event(1)])) == (1,)
    projection.pause()
    assert projection.applied(0.0) == Sleep(5.0)
    assert projection.state(0.0) == "paused"
    assert projection.woken(1.0) == Sleep(4.0)
    projection.resume()
    assert projection.woken(2.0) == Wait(1, 3.0)
    again = Projection("q")
    again.start()
    assert again.loaded(0.0, at(3, paused=True), blocked=()) == Sleep(5.0)


def test_a_pause_ordered_elsewhere_is_found_by_looking_and_so_is_its_end() -> None:
    projection, _ = loaded(3)
    assert projection.read(0.0, []) == Wait(3, 5.0)
    assert projection.woken(5.0) == Load()
    assert projection.loaded(5.0, at(3, paused=True, version=1), blocked=()) == Sleep(5.0)
    assert projection.state(5.0) == "paused"
    projection.look()
    assert projection.woken(6.0) == Load()
    assert projection.loaded(6.0, at(3, version=2), blocked=("a",)) == Read(3, 500)
    assert projection.blocked == {"a"}


def test_parked_events_are_driven_in_order() -> None:
    projection, _ = loaded(9, blocked=("a", "b"))
    assert projection.read(0.0, []) == Wait(9, 5.0)
    first, second, third = (
        es.ParkedEvent(query="q", aggregate_id=id, sequence=n, raw=b"", error="e", id=n, attempts=1)
        for n, id in [(1, "a"), (2, "a"), (3, "b")]
    )
    projection.drive([first, second, third])
    projection.drive([first])  # twice, by somebody in a hurry
    assert projection.woken(0.0) == Drive(parked=first, before=at(9), after=at(9, version=1))
    repark = projection.failed(0.0, 0, "still")
    assert isinstance(repark, Apply)
    assert (repark.events, repark.after) == ((), at(9, version=1))
    assert repark.park == (attrs.evolve(first, error="still", attempts=2),)
    assert projection.applied(0.0) == Drive(parked=third, before=at(9, version=1), after=at(9, version=2))
    assert projection.driven(0.0, remaining=0) == Read(9, 500)
    assert projection.blocked == {"a"}
    assert projection.read(0.0, []) == Wait(9, 5.0)
    projection.drive([first, second])
    assert driving(projection.woken(0.0)) == first
    assert driving(projection.driven(0.0, remaining=1)) == second
    assert projection.blocked == {"a"}
    assert isinstance(projection.unavailable(0.0, "gone"), Sleep)
    assert projection.woken(99.0) == Load()
    assert driving(projection.loaded(99.0, at(9, version=3), blocked=("a",))) == second
    assert projection.driven(99.0, remaining=0) == Read(9, 500)
    assert projection.blocked == frozenset()


def driving(effect: Any) -> es.ParkedEvent:
    assert isinstance(effect, Drive)
    return effect.parked


def test_a_pause_that_is_ordered_while_it_loads_holds() -> None:
    """What was read is from before the order, and is read again."""
    projection = Projection("q")
    assert projection.start() == Load()
    projection.look()
    projection.pause()
    assert projection.loaded(0.0, at(), blocked=()) == Load()
    assert projection._paused
    assert isinstance(projection.loaded(0.0, at(version=1, paused=True), blocked=()), Sleep)
    assert projection.state(0.0) == "paused"
    projection.look()
    projection.resume()
    assert projection.woken(1.0) == Load()
    assert projection.loaded(1.0, at(version=2), blocked=()) == Read(0, 500)


def test_the_end_of_a_pause_is_found_though_somebody_asked_for_a_look_while_it_was_loaded() -> None:
    """Who asks for the status does so whenever the checkpoint has moved; that orders no pause."""
    projection, _ = loaded(3)
    projection.conflict(0.0)
    assert projection.loaded(0.0, at(3, paused=True, version=1), blocked=()) == Sleep(5.0)
    projection.look()
    assert projection.woken(1.0) == Load()
    projection.look()
    assert projection.loaded(1.0, at(3, version=2), blocked=()) == Load()
    assert projection.loaded(1.0, at(3, version=2), blocked=()) == Read(3, 500)


def test_a_pause_that_nobody_wrote_down_ends_with_the_next_look() -> None:
    projection, _ = loaded(3)
    projection.read(0.0, [])
    projection.pause()
    assert isinstance(projection.woken(1.0), Sleep)
    assert projection.woken(5.0) == Load()
    assert projection.loaded(5.0, at(3), blocked=()) == Read(3, 500)


def test_everything_can_be_replayed() -> None:
    projection, _ = loaded(9)
    projection.read(0.0, [])
    assert projection.state(0.0) == "idle"
    projection.reset()
    assert projection.state(0.0) == "catching up"  # from the order on: who waits for the end sees no end yet
    reset = Reset(aggregate_id=None, before=at(9), after=at(0, version=1))
    assert projection.woken(0.0) == reset
    assert projection.state(0.0) == "catching up"
    assert isinstance(projection.unavailable(0.0, "gone"), Sleep)
    assert projection.woken(9.0) == Load()
    assert projection.loaded(9.0, at(9), blocked=()) == reset
    assert projection.reset_done(9.0) == Load()
    assert projection.loaded(9.0, at(0, version=1), blocked=()) == Read(0, 500)


def test_one_aggregate_can_be_replayed_without_moving_the_checkpoint() -> None:
    projection, _ = loaded(9, blocked=("a",), limits=BatchLimits(size=2))
    projection.read(0.0, [])
    projection.reset("a")
    begun = at(9, version=1, replay=Replay("a", 0, until=9))
    assert projection.woken(0.0) == Reset(aggregate_id="a", before=at(9), after=begun)
    assert projection.reset_done(0.0) == Load()
    assert projection.loaded(0.0, begun, blocked=()) == Read(0, 2, "a")
    assert projection.state(0.0) == "catching up"
    half = begun.next(replay=Replay("a", 5, until=9))
    assert projection.read(0.0, [event(1), event(5)]) == Apply(
        events=(event(1), event(5)), park=(), before=begun, after=half
    )
    assert projection.applied(0.0) == Read(5, 2, "a")
    most = half.next(replay=Replay("a", 8, until=9))
    assert projection.read(0.0, [event(8), event(11)]) == Apply(
        events=(event(8),), park=(), before=half, after=most
    )
    done = at(9, version=4)
    assert projection.applied(0.0) == Apply(events=(), park=(), before=most, after=done), "11 is behind it"
    assert projection.applied(0.0) == Read(9, 2)
    assert positions(projection.read(0.0, [event(10, "b"), event(11)])) == (10, 11)


def test_a_replay_ends_where_nothing_more_comes_not_where_less_comes_than_was_asked_for() -> None:
    projection, _ = loaded(9, limits=BatchLimits(size=3))
    projection.read(0.0, [])
    projection.conflict(0.0)
    begun = at(9, version=1, replay=Replay("a", 0, until=9))
    assert projection.loaded(0.0, begun, blocked=()) == Read(0, 3, "a")
    assert positions(projection.read(0.0, [event(1), event(2)])) == (1, 2)
    assert projection.applied(0.0) == Read(2, 3, "a")
    assert positions(projection.read(0.0, [event(7)])) == (7,)
    assert projection.applied(0.0) == Read(7, 3, "a")
    finish = projection.read(0.0, [])
    assert isinstance(finish, Apply)
    assert (finish.events, finish.after.replay, finish.after.position) == ((), None, 9)


def test_a_replay_that_was_broken_off_goes_on_before_anything_else() -> None:
    projection, _ = loaded(0, limits=BatchLimits(size=2))
    again = at(9, version=7, replay=Replay("a", 5, until=9))
    projection.conflict(0.0)
    assert projection.loaded(0.0, again, blocked=()) == Read(5, 2, "a")
    projection.drive([es.ParkedEvent(query="q", aggregate_id="b", sequence=1, raw=b"", error="e", id=1)])
    projection.reset("b")
    batch = projection.read(0.0, [event(8)])
    assert isinstance(batch, Apply)
    assert batch.after == again.next(replay=Replay("a", 8, until=9))
    assert projection.applied(0.0) == Read(8, 2, "a")
    finish = projection.read(0.0, [])
    assert isinstance(finish, Apply)
    assert (finish.events, finish.after.replay, finish.after.position) == ((), None, 9)
    assert isinstance(projection.applied(0.0), Reset)


def test_a_replay_can_be_paused() -> None:
    projection, _ = loaded(0)
    projection.conflict(0.0)
    projection.loaded(0.0, at(9, version=7, replay=Replay("a", 5, until=9)), blocked=())
    projection.pause()
    assert projection.read(0.0, [event(8)]) == Sleep(5.0)
    projection.resume()
    assert positions(projection.woken(1.0)) == (8,)


def test_a_reset_that_fails_is_tried_again_then_the_query_stands_still_until_it_is_resumed() -> None:
    projection, _ = loaded(9, policy=FailurePolicy(retries=1, first=1.0))
    projection.read(0.0, [])
    projection.reset()
    reset = projection.woken(0.0)
    assert isinstance(reset, Reset)
    assert projection.failed(0.0, None, "cannot undo") == Sleep(1.0)
    assert (projection.state(0.0), projection.error) == ("stuck", "cannot undo")
    assert projection.woken(0.5) == Sleep(0.5)
    assert projection.woken(1.0) == reset
    assert projection.failed(1.0, None, "cannot undo") == Sleep(4.0)
    assert projection.woken(5.0) == Load()
    assert projection.loaded(5.0, at(9), blocked=()) == Sleep(5.0)
    assert (projection.state(5.0), projection.error) == ("stopped", "cannot undo")
    projection.resume()
    assert projection.woken(6.0) == Load()
    assert projection.loaded(6.0, at(9), blocked=()) == reset
    assert projection.reset_done(6.0) == Load()
    assert projection.loaded(6.0, at(0, version=1), blocked=()) == Read(0, 500)
    assert (projection.state(6.0), projection.error) == ("catching up", "")


def test_of_a_batch_that_fails_as_a_whole_the_halves_are_tried_until_the_event_is_found() -> None:
    projection, _ = loaded(0, policy=FailurePolicy(retries=0))
    sizes, parked = [], []
    effect = projection.read(0.0, [event(n, f"a{n}") for n in range(1, 9)])
    while isinstance(effect, Apply):
        parked += [each.position for each in effect.park]
        sizes.append(len(effect.events))
        if any(each.position == 6 for each in effect.events):
            effect = projection.failed(0.0, None, "the commit failed")
        else:
            effect = projection.applied(0.0)
    assert effect == Wait(8, 5.0)
    assert sizes == [8, 4, 4, 2, 1, 1, 0, 2]
    assert parked == [6]
    assert projection.position == 8


def test_a_database_that_cannot_even_park_is_nobodys_fault() -> None:
    projection, _ = loaded(0, policy=FailurePolicy(retries=0))
    pauses = []
    effect = projection.read(0.0, [event(1)])
    for n in range(1, 9):
        assert positions(effect) == (1,)
        parking = projection.failed(n * 10.0, 0, "boom")
        assert isinstance(parking, Apply)
        sleep = projection.failed(n * 10.0, None, "permission denied")
        assert isinstance(sleep, Sleep)
        pauses.append(sleep.timeout)
        assert projection.error == "permission denied"
        assert projection.woken(n * 10.0 + 5) == Load()
        projection.loaded(n * 10.0 + 5, at(), blocked=())
        effect = projection.read(n * 10.0 + 5, [event(1)])
    assert pauses == sorted(pauses)
    assert pauses[-1] == 5.0


def test_a_checkpoint_that_does_not_fit_the_store_stops_everything_but_a_reset() -> None:
    projection = Projection("q")
    projection.start()
    assert projection.loaded(0.0, at(9), blocked=(), fault="ahead") == Sleep(5.0)
    assert (projection.state(0.0), projection.error) == ("stopped", "ahead")
    projection.drive([es.ParkedEvent(query="q", aggregate_id="b", sequence=1, raw=b"", error="e", id=1)])
    assert projection.woken(1.0) == Sleep(4.0)
    projection.reset("a")
    assert projection.woken(2.0) == Sleep(3.0)
    assert projection.woken(5.0) == Load()
    assert projection.loaded(5.0, at(9), blocked=(), fault="ahead") == Sleep(5.0)
    projection.reset()
    assert projection.state(6.0) == "catching up"
    assert projection.woken(6.0) == Reset(aggregate_id=None, before=at(9), after=at(0, version=1))
    assert projection.reset_done(6.0) == Load()
    assert projection.state(6.0) == "loading"
    assert isinstance(projection.loaded(6.0, at(0, version=1), blocked=()), Drive)
    assert (projection.state(6.0), projection.error) == ("catching up", "")


def test_the_mark_tells_an_event_from_another_one_at_its_position() -> None:
    assert mark(event(1)) == mark(event(1))
    others = [event(2), event(1, "b"), attrs.evolve(event(1), recorded_at=1.5)]
    assert len({mark(each) for each in [event(1), *others]}) == 4


@pytest.mark.parametrize("bad", [{"size": 0}, {"linger": -1.0}, {"idle_after": 0.0}])
def test_limits_have_to_make_sense(bad: dict[str, Any]) -> None:
    with pytest.raises(es.NonPositiveArgument):
        BatchLimits(**bad)

"""The tree of what an event caused."""

from __future__ import annotations

from pyglyn import eventsourcing as es
from pyglyn.eventsourcing.domain.trace import Traced, trace


def event(id: str, cause: str, at: float | None = None) -> tuple[es.EventEnvelope[str], float | None]:
    pairs = [("correlation_id", "c"), ("causation_id", cause), ("causation_id", "not the first")]
    return es.SerializedEventEnvelop(id, 1, "happened", pairs, "Event", "1.0", "t"), at


def shape(traced: list[Traced]) -> list[tuple[str, object]]:
    return [(each.id, shape(each.caused)) for each in traced]


def test_events_stand_under_their_cause_oldest_first() -> None:
    given = [event("late", "t/root/1", 3.0), event("early", "t/root/1", 2.0), event("root", "c", 1.0)]
    leaf = event("leaf", "t/early/1", 2.5)
    early = ("t/early/1", [("t/leaf/1", [])])
    assert shape(trace([*given, leaf])) == [("t/root/1", [early, ("t/late/1", [])])]


def test_causes_that_go_in_a_circle_lose_no_event() -> None:
    given = [event("a", "t/b/1"), event("b", "t/a/1"), event("c", "t/b/1"), event("d", "t/d/1")]
    assert shape(trace(given)) == [("t/a/1", []), ("t/b/1", []), ("t/c/1", []), ("t/d/1", [])]


def test_a_long_chain_takes_no_longer_per_event_than_a_short_one() -> None:
    count = 50_000
    [root] = trace([event(str(number), f"t/{number - 1}/1") for number in reversed(range(count))])
    depth = 1
    while root.caused:
        [root] = root.caused
        depth += 1
    assert depth == count

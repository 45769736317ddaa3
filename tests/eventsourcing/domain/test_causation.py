"""What caused what: ids in the metadata of events."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from pyglyn.eventsourcing.domain.causation import (
    CAUSATION,
    CORRELATION,
    NODE,
    caused_by,
    event_id,
    value_of,
    with_causation,
    with_cause,
    with_node,
)
from pyglyn.eventsourcing.domain.envelope import (
    MemoryStoreEventEnvelop,
    SerializedEventEnvelop,
    metadata_pairs,
)


def stored(metadata: list[tuple[str, str]]) -> SerializedEventEnvelop[Any]:
    return SerializedEventEnvelop("7", 3, "payload", metadata, "event", "1.0", "account")


CAUSE = stored([(CORRELATION, "c1"), (CAUSATION, "account/7/2")])


def test_an_event_is_named_by_type_aggregate_and_sequence() -> None:
    assert event_id(CAUSE) == "account/7/3"
    assert event_id(MemoryStoreEventEnvelop("7", 3, "payload")) == "/7/3"


def test_the_first_value_of_a_key_counts() -> None:
    assert value_of([("a", "1"), ("b", "2"), ("b", "3")], "b") == "2"
    assert value_of([("a", "1")], "b") is None


def test_the_root_of_a_chain_is_its_own_cause() -> None:
    pairs = with_causation([("by", "teller")])
    assert pairs[0] == ("by", "teller")
    assert [name for name, _ in pairs] == ["by", CORRELATION, CAUSATION]
    assert pairs[1][1] == pairs[2][1]
    assert len(pairs[1][1]) == 32
    assert with_causation([])[0] != with_causation([])[0]


def test_what_an_event_causes_carries_its_correlation_and_its_id() -> None:
    with caused_by(CAUSE):
        assert with_causation([]) == [(CORRELATION, "c1"), (CAUSATION, "account/7/3")]
        assert with_cause([("by", "me")]) == [("by", "me"), (CORRELATION, "c1"), (CAUSATION, "account/7/3")]
    assert with_cause([("by", "me")]) == [("by", "me")]


def test_an_event_without_a_correlation_begins_a_chain_with_its_id() -> None:
    with caused_by(stored([])):
        assert with_causation([]) == [(CORRELATION, "account/7/3"), (CAUSATION, "account/7/3")]


def test_what_a_command_was_given_stays() -> None:
    given = [(CAUSATION, "mine"), (CORRELATION, "chain")]
    with caused_by(CAUSE):
        assert with_causation(given) == given
        assert with_causation([(CORRELATION, "chain")]) == [
            (CORRELATION, "chain"),
            (CAUSATION, "account/7/3"),
        ]
        assert with_causation([(CAUSATION, "mine")]) == [(CAUSATION, "mine"), (CORRELATION, "c1")]
    assert with_causation([(CORRELATION, "chain")]) == [(CORRELATION, "chain"), (CAUSATION, "chain")]


def test_causes_nest_and_end_with_their_block_whatever_happens() -> None:
    inner = SerializedEventEnvelop("8", 1, "p", [(CORRELATION, "c2")], "e", "1.0", "order")
    with caused_by(CAUSE):
        with caused_by(inner):
            assert value_of(with_causation([]), CORRELATION) == "c2"
        assert value_of(with_causation([]), CORRELATION) == "c1"
    with pytest.raises(ZeroDivisionError), caused_by(CAUSE):
        raise ZeroDivisionError
    assert with_cause([]) == []


async def test_a_cause_is_that_of_its_own_task() -> None:
    with caused_by(CAUSE):
        inside = asyncio.create_task(asyncio.to_thread(with_cause, []))
    assert value_of(await inside, CORRELATION) == "c1"
    assert await asyncio.to_thread(with_cause, []) == []


def test_the_node_is_added_once_and_never_overwritten() -> None:
    """A command that was passed on says where it was carried out first."""
    assert with_node([("by", "me")], "b@host") == [("by", "me"), (NODE, "b@host")]
    assert with_node([(NODE, "a@host")], "b@host") == [(NODE, "a@host")]
    assert with_node([(NODE, "")], "b@host") == [(NODE, "")]


def test_metadata_is_pairs_of_strings_and_copied() -> None:
    given = [("a", "1"), ["b", "2"]]
    copied = metadata_pairs(given)  # type: ignore[arg-type]
    assert copied == [("a", "1"), ("b", "2")]
    assert copied is not given
    for wrong in ([("a",)], [("a", "b", "c")], [("a", 1)], [(1, "a")], ["ab"], [5]):
        with pytest.raises(TypeError, match="pairs of two strings"):
            metadata_pairs(wrong)  # type: ignore[arg-type]

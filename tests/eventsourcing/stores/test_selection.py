"""Which events are selected: by tags in the text that is stored, and again once they are read."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from typing import Any

import attrs
import pytest

from pyglyn import eventsourcing as es
from pyglyn.eventsourcing.domain.evolution import Several
from pyglyn.eventsourcing.stores.json.codec import JsonCodec
from pyglyn.eventsourcing.stores.selection import Selection, part_of, quoted
from pyglyn.eventsourcing.stores.sql import SCAN


@es.event("added", version=2, aliases=["Added", "hinzugefügt"], upcasters={1: lambda old: old})
@attrs.frozen
class Added:
    name: str


@es.event("removed")
@attrs.frozen
class Removed:
    name: str


def recorded(payload: Any, *, id: str = "a") -> es.RecordedEvent[Any]:
    return es.RecordedEvent(1, id, 1, es.MemoryStoreEventEnvelop(id, 1, payload))


def broken(raw: str | bytes) -> es.RecordedEvent[Any]:
    return es.RecordedEvent(1, "a", 1, None, es.EventDecodeError(["no"], payload=""), None, raw)


def test_an_old_event_that_is_several_now_is_what_of_it_is_selected() -> None:
    selection = Selection((Added,))
    both = recorded(Several((Added("x"), Removed("y"), Added("z"))))
    kept = selection.kept(both)
    assert kept is not None
    assert kept.envelope is not None
    assert kept.envelope.payload == Several((Added("x"), Added("z")))
    assert selection.kept(recorded(Several((Removed("y"),)))) is None
    assert selection.kept(recorded(Several(()))) is None


def test_an_event_that_does_not_decode_is_selected_if_it_may_be_one() -> None:
    selection, names = Selection((Added,)), {"added"}
    assert selection.kept(broken('{"event-type": "added"'), names) is not None
    assert selection.kept(broken(b'\xff"added"'), names) is not None
    assert selection.kept(broken('{"event-type": "\\u0061dded"'), names) is not None
    assert selection.kept(broken('{"event-type": "removed"'), names) is None
    assert selection.kept(broken('{"event-type": "removed"')) is not None
    assert selection.kept(broken(""), names) is not None


def test_plain_json_is_selected_by_its_tag() -> None:
    selection = Selection(("added",), tag_key="kind")
    assert selection.kept(recorded({"kind": "added"})) is not None
    for other in ({"kind": "removed"}, {"event-type": "added"}, ["added"], "added", None):
        assert selection.kept(recorded(other)) is None


def test_all_names_that_a_type_had_are_looked_for_and_all_that_may_become_one() -> None:
    codec: JsonCodec[Any] = JsonCodec(Added | Removed, tagged=True)
    assert codec.names_of([Removed]) == {"removed", "added", "Added", "hinzugefügt"}  # added has an upcaster
    plain: JsonCodec[Any] = JsonCodec(Removed, tagged=True)
    assert plain.names_of([Removed]) == {"removed"}
    assert plain.names_of(["x"]) == {"x"}
    style = es.JsonStyle(earlier=[es.JsonStyle(tags={Removed: "Gone"})])
    former: JsonCodec[Any] = JsonCodec(Removed, style, tagged=True)
    assert former.names_of([Removed]) == {"removed", "Gone"}


def test_parts_are_even_and_take_any_id() -> None:
    counts = [0] * 4
    for number in range(4000):
        counts[part_of(f"account-{number}", 4)] += 1
    assert min(counts) > 900
    assert 0 <= part_of("\udcff", 4) < 4
    assert 0 <= part_of(b"x", 4) < 4
    assert part_of("anything", 1) == 0


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
async def test_former_names_odd_letters_and_upcast_rows_are_found_in_a_database(kind, tmp_path, request):
    url = f"sqlite:{tmp_path}/a.db" if kind == "sqlite" else request.getfixturevalue("postgres")
    async with es.open_store(url, aggregate_type="t") as plain:
        for number, tag in enumerate(["added", "Added", "hinzugefügt", "removed", "other"]):
            await plain.append(f"ä{number}", [{"event-type": tag, "name": "added"}], expected=0)
    async with es.open_store(url, events=Added | Removed, aggregate_type="t") as store:
        names = {"event-type": "hinzugefügt", "name": "escaped"}
        async with store.transaction() as tx:
            mark = "?" if kind == "sqlite" else "%s"
            await tx.execute(
                f"INSERT INTO event VALUES ('t', 'e', 1, 'x', '1', {mark}, '[]')", (json.dumps(names),)
            )
        found = (await store.scan(Selection((Added,)), 0)).events
        assert [event.aggregate_id for event in found if event.error is None] == ["ä0", "ä1", "ä2", "e"]
        # What does not decode and has such a text in it may have been one.
        assert [event.aggregate_id for event in found if event.error is not None] == ["ä4"]
        for part in range(2):
            of_part = (await store.scan(Selection(None, (part, 2)), 0)).events
            wanted = [
                event.position for event in await store.read() if part_of(event.aggregate_id, 2) == part
            ]
            assert [event.position for event in of_part] == wanted


async def test_a_scan_looks_through_a_part_of_the_log_at_a_time(tmp_path):
    store = es.open_store(f"sqlite:{tmp_path}/a.db", events=Added | Removed, aggregate_type="t")
    async with store:
        await store.append("a", [Removed("x")] * SCAN + [Added("y")], expected=0)
        first = await store.scan(Selection((Removed,), (1 - part_of("a", 2), 2)))
        assert (first.events, first.end, first.more) == ([], SCAN, True)
        second = await store.scan(Selection((Added,)), first.end)
        assert ([event.sequence for event in second.events], second.more) == ([SCAN + 1], False)


async def test_a_row_that_another_program_has_damaged_is_no_obstacle(tmp_path):
    store = es.open_store(f"sqlite:{tmp_path}/a.db", events=Removed, aggregate_type="t")
    async with store:
        await store.append("a", [Removed("x")], expected=0)
        with contextlib.closing(sqlite3.connect(f"{tmp_path}/a.db")) as other, other:
            other.execute(
                "INSERT INTO event VALUES ('t', ?, 1, 'x', '1', ?, '[]')", (b"\xff", b'\xff"removed"')
            )
        found = (await store.scan(Selection((Removed,)))).events
        assert [event.error is None for event in found] == [True, False]
        parts = [(await store.scan(Selection(None, (part, 2)))).events for part in range(2)]
        assert sorted(event.position for part in parts for event in part) == [1, 2]


def test_quotes_in_a_name_are_written_as_in_json() -> None:
    assert quoted(['a"b']) == ['"a\\"b"', "\\u"]
